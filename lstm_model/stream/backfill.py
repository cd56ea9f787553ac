"""Trades that the websocket did not bring, fetched over REST in the background.

Whatever REST gives goes onto the tape, which knows what it has already. What REST does not have,
or does not give within `Timing.patience_s`, is missing for good: it is counted, lowers `coverage`
and is told once. Where REST leaves ids out that never were a trade's, nothing is missing there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from lstm_model.market.candles import Records, candle_open_ms, utc_text
from lstm_model.market.continuity import Gap
from lstm_model.stream.connection import Refusal, Rest
from lstm_model.stream.pages import Page, Pages
from lstm_model.stream.timing import Backoff, Timing
from lstm_model.stream.trade_feed import Track, TradeFeed, has_numbers, log_failure

_PAGE_IDS = 1_000  # trades on a page; gaps closer together than that are asked for together
_NEAR_MS = 10_000  # chosen: the same for gaps of which only the time is known
_LATE_TRIES = 5  # chosen: REST may know a trade later than the websocket


def spans(gaps: Iterable[Gap]) -> list[Gap]:
    """Gaps near each other as one, because one request gets them all.

    Examples
    --------
    >>> spans([Gap(5, 5, 100, 130), Gap(8, 9, 140, 170), Gap(5_000, 5_001, 900, 950)])
    [Gap(first_id=5, last_id=9, start_ms=100, end_ms=170), Gap(first_id=5000, ...]
    """
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: (gap.first_id is None, gap.first_id, gap.start_ms)):
        if joined and _near(joined[-1], gap):
            last = joined[-1]
            end_ms = max(last.end_ms, gap.end_ms)
            joined[-1] = last._replace(last_id=gap.last_id, end_ms=end_ms)
        else:
            joined.append(gap)
    return joined


def _near(first: Gap, second: Gap) -> bool:
    if first.last_id is None or second.first_id is None:
        same_kind = first.last_id is None and second.first_id is None
        return same_kind and second.start_ms - first.end_ms < _NEAR_MS
    return second.first_id - first.last_id < _PAGE_IDS


def _inside(gap: Gap, span: Gap) -> bool:
    if gap.first_id is None or gap.last_id is None or span.first_id is None or span.last_id is None:
        return gap.first_id is span.first_id and (
            span.start_ms <= gap.start_ms and gap.end_ms <= span.end_ms
        )
    return span.first_id <= gap.first_id and gap.last_id <= span.last_id


class Backfill:
    """Keeps the tapes complete.

    Parameters
    ----------
    tell : takes what the user should hear of
    """

    def __init__(
        self, rest: Rest, feed: TradeFeed, timing: Timing, tell: Callable[[str], None]
    ) -> None:
        self._rest, self._feed, self._timing, self._tell = rest, feed, timing, tell
        self._pages = Pages(rest, timing)
        self._margin_ms = int(timing.margin_s * 1000)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._seen_s: dict[tuple[str, Gap], float] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is being fetched now."""
        return bool(self._tasks)

    def tend(self, tracks: Iterable[Track]) -> None:
        """Begin with every gap that does not close by itself; returns at once."""
        now_s, seen = time.monotonic(), self._seen_s
        self._seen_s = {}
        for track in tracks:
            for gap in track.tape.gaps():
                since_s = self._seen_s[track.pair, gap] = seen.get((track.pair, gap), now_s)
                if now_s - since_s >= self._timing.grace_s:
                    self._begin(track.pair, self._fill, track)

    def catch_up(self, track: Track) -> None:
        """Fetch what there is before the subscription; returns at once."""
        self._begin(f"{track.pair} newest", self._newest, track)

    async def stop(self) -> None:
        """End all work under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def is_behind(self, track: Track) -> bool:
        """Whether REST has trades that the websocket should have brought; they are taken over.

        Raises
        ------
        Refusal
        """
        asked_s, known_ms = time.monotonic(), track.tape.last_time_ms
        time_ms = (await self._take_newest(track))["time_ms"]
        due_ms = self._feed.clock.now_ms() - self._margin_ms
        behind = bool(((time_ms > known_ms) & (time_ms < due_ms)).any())
        if not behind:
            track.proven_s = asked_s
        return behind

    def _begin(self, key: str, work: Callable[[Track], Any], track: Track) -> None:
        if key not in self._tasks:
            task = asyncio.ensure_future(work(track))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
            task.add_done_callback(log_failure)

    async def _newest(self, track: Track) -> None:
        try:
            await self._begin_with_newest(track)
        except Refusal as refusal:
            why = "for too long" if refusal.passing else f"({refusal})"
            self._tell(f"{track.pair}: no trades over REST {why}")

    async def _begin_with_newest(self, track: Track) -> None:
        """What was before the subscription, as far as one page reaches."""
        asked_s, asked_ms = time.monotonic(), self._feed.clock.now_ms()
        trades = await self._take_newest(track, asked_s + self._timing.patience_s)
        track.proven_s = max(track.proven_s, asked_s)
        if not len(trades):
            return
        first_ms = int(trades["time_ms"][0]) + 1  # others of that very moment may be missing
        if not track.filled:
            track.filled = True
            track.tape.watch_from(first_ms)
        # Where ids are consecutive the next trade says anyway whether that was all.
        for gap in track.tape.gaps() if track.tape.ids_consecutive else ():
            if gap.first_id is None and first_ms <= gap.start_ms and gap.end_ms <= asked_ms:
                track.tape.recovered(gap)

    async def _take_newest(self, track: Track, until_s: float = 0.0) -> Records:
        """The newest page, which also teaches how the exchange numbers its trades."""
        page = await self._pages.newest(track.pair, until_s)
        trades, tape = self._pages.records(page), track.tape
        if len(trades) and tape.ids_consecutive is None:
            if self._rest.leaves_out(track.pair):
                tape.ids_consecutive = True  # which the holes in such a page might hide
            elif has_numbers(page):
                tape.learn_ids(trades)
            else:
                tape.ids_consecutive = False
        self._extend(track, trades)
        return trades

    async def _fill(self, track: Track) -> None:
        lost: list[Gap] = []
        for span in spans(track.tape.gaps()):
            lost += await self._fill_span(track, span)
        if lost:
            self._tell_loss(track, lost)

    async def _fill_span(self, track: Track, span: Gap) -> list[Gap]:
        """Ask until REST has told all it knows; what is missing for good."""
        until_s = time.monotonic() + self._timing.patience_s
        backoff = Backoff(self._timing.first_retry_s, self._timing.longest_retry_s)
        while time.monotonic() < until_s:
            had_key = self._rest.has_key
            try:
                told = await self._ask(track, _left_of(track, span), until_s)
            except Refusal:
                if had_key and not self._rest.has_key:
                    continue  # there is a way without
                break
            if told is not None or backoff.tries >= _LATE_TRIES:
                return _settle(track, span, whole=told is not False)
            await asyncio.sleep(backoff.next_s())
        return _settle(track, span, whole=False)

    async def _ask(self, track: Track, span: Gap, until_s: float) -> bool | None:
        """Put what REST has of the span onto the tape.

        Returns
        -------
        True if that is all there is, False if REST does not reach back so far or does not come to
        its end in time, None if it may know more a little later

        Raises
        ------
        Refusal
        """
        cut_off = reached = False
        asked_ms = self._feed.clock.now_ms()
        for pages in self._pages.routes(track.pair, span, until_s):
            cut_off, first, reached = False, True, False
            async for page in pages:
                self._extend(track, page.trades)
                if not any(_inside(gap, span) for gap in track.tape.gaps()):
                    return True
                if page.is_next:
                    reached = _reaches(page.trades, span)
                    cut_off |= first and reached and self._is_cut_off(page, span)
                    first = False
                if reached:
                    break
                if time.monotonic() > until_s:
                    return False
                asked_ms = self._feed.clock.now_ms()
        if span.first_id is None:
            return None if asked_ms < span.end_ms + self._margin_ms else not cut_off
        if reached and self._rest.leaves_out(track.pair):
            track.tape.whole(span.first_id, span.last_id or span.first_id)
        return True if reached else None

    def _is_cut_off(self, page: Page, span: Gap) -> bool:
        """Is this the newest full page, whatever was asked for, so that nobody knows the rest?"""
        full = page.is_full and not self._rest.customs.window_ms
        return full and int(page.trades["time_ms"][0]) > span.start_ms

    def _extend(self, track: Track, trades: Records) -> None:
        if not len(trades):
            return
        if track.tape.extend(trades):
            self._feed.touch(track.pair)
        if self._rest.leaves_out(track.pair) and track.tape.ids_consecutive:
            track.tape.whole(int(trades["id"].min()), int(trades["id"].max()))

    def _tell_loss(self, track: Track, lost: list[Gap]) -> None:
        """One line for what is missing for good."""
        start_ms, end_ms = min(gap.start_ms for gap in lost), max(gap.end_ms for gap in lost)
        open_ms = int(candle_open_ms(start_ms, track.tape.step_ms))
        coverage = track.tape.flow(open_ms, end_ms + 1)["coverage"].min(initial=1.0)
        count = sum(gap.last_id - gap.first_id + 1 for gap in lost if gap.first_id and gap.last_id)
        self._tell(
            f"{track.pair}: {count or 'the'} trade(s) between {utc_text(start_ms)} and "
            f"{utc_text(end_ms)} "
            f"could not be recovered; coverage {coverage:.4f}"
        )


def _left_of(track: Track, span: Gap) -> Gap:
    """What of a span is open still, by ids; a try before may have come far."""
    left = [gap for gap in track.tape.gaps() if _inside(gap, span)]
    if span.first_id is None or not left:
        return span
    ends_ms = max(gap.end_ms for gap in left)
    return Gap(left[0].first_id, left[-1].last_id, left[0].start_ms, ends_ms)


def _settle(track: Track, span: Gap, *, whole: bool) -> list[Gap]:
    """Close what is still open of a span; the gaps in which something is missing for good."""
    left = [gap for gap in track.tape.gaps() if _inside(gap, span)]
    for gap in left:
        if whole:
            track.tape.recovered(gap)
        else:
            track.tape.give_up(gap)
    return [gap for gap in left if gap.first_id is not None or not whole]


def _reaches(trades: Records, span: Gap) -> bool:
    if not len(trades):
        return False
    if span.last_id is not None:
        return int(trades["id"].max()) >= span.last_id
    return int(trades["time_ms"].max()) >= span.end_ms
