"""Trades that the websocket did not bring, fetched over REST in the background.

Whatever REST gives goes onto the tape, which knows what it has already. A gap of which only the
time is known counts as whole only where the answers show it: from a trade that was known before,
each page follows the one before. What REST does not have, or does not give within
`Timing.patience_s`, is missing for good: it is counted, lowers `coverage` and is told once. Where
REST leaves ids out that never were a trade's, nothing is missing there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from lstm_model.market.candles import Records, candle_open_ms, utc_text
from lstm_model.market.gaps import Gap
from lstm_model.stream.connection import Refusal, Rest
from lstm_model.stream.pages import Anchor, Page, Pages
from lstm_model.stream.timing import Backoff, Timing
from lstm_model.stream.trade_feed import Track, TradeFeed, log_failure

_PAGE_IDS = 1_000  # trades on a page; gaps closer together than that are asked for together
_EVER_MS = 2**62
_NEAR_MS = 10_000  # chosen: the same for gaps of which only the time is known
_LATE_TRIES = 5  # chosen: REST may know a trade later than the websocket, or answer badly once


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
        self._pages = Pages(rest, feed, timing)
        self._margin_ms = int(timing.margin_s * 1000)
        self._tasks: dict[tuple[Track, str], asyncio.Task[None]] = {}
        self._seen_s: dict[tuple[Track, Gap], float] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is being fetched now."""
        return bool(self._tasks)

    def tend(self, tracks: Iterable[Track]) -> None:
        """Begin with every gap that does not close by itself; returns at once.

        Parameters
        ----------
        tracks : all that are followed; what is being fetched for others is given up
        """
        now_s, seen, followed = time.monotonic(), self._seen_s, set(tracks)
        self._seen_s = {}
        for track in followed:
            for gap in track.tape.gaps():
                since_s = self._seen_s[track, gap] = seen.get((track, gap), now_s)
                if now_s - since_s >= self._timing.grace_s:
                    self._begin(track, "gaps", self._fill)
        for (track, _), task in self._tasks.items():
            if track not in followed:
                task.cancel()

    def catch_up(self, track: Track) -> None:
        """Fetch what there is before the subscription; returns at once."""
        self._begin(track, "newest", self._newest)

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
        asked_s, due_ms = time.monotonic(), self._feed.clock.now_ms() - self._margin_ms
        time_ms = (await self._take_newest(track))["time_ms"]
        # The tape may know better than the websocket, from an earlier look.
        known_ms = max(track.told_ms, track.begun_ms)
        behind = bool(((time_ms > known_ms) & (time_ms < due_ms)).any())
        if not behind:
            track.proven_s = asked_s
        return behind

    def _begin(
        self, track: Track, what: str, work: Callable[[Track], Coroutine[Any, Any, None]]
    ) -> None:
        key = track, what
        if key not in self._tasks:
            task = self._tasks[key] = asyncio.ensure_future(work(track))
            task.add_done_callback(partial(self._end, key))

    def _end(self, key: tuple[Track, str], task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        log_failure(task)
        if task.cancelled() or task.exception() is None:
            return
        track, what = key
        if what == "gaps":  # it would fail again and again
            lost = [_settle(track, span, whole=False) for span in spans(track.tape.gaps())]
            self._tell_loss(track, list(chain.from_iterable(lost)))

    async def _newest(self, track: Track) -> None:
        try:
            await self._begin_with_newest(track)
        except Refusal as refusal:
            why = "for too long" if refusal.passing else f"({refusal})"
            self._tell(f"{track.pair}: no trades over REST {why}")

    async def _begin_with_newest(self, track: Track) -> None:
        """What was before the subscription, as far as one page reaches."""
        asked_s, asked_ms = time.monotonic(), self._feed.clock.now_ms()
        until_s, begins_s = asked_s + self._timing.patience_s, asked_s + self._timing.margin_s
        trades = await self._take_newest(track, until_s)
        track.proven_s = max(track.proven_s, asked_s)
        if not track.tape.ids_consecutive and not track.filled:
            # The newest before the subscription may not have been known there yet.
            await asyncio.sleep(begins_s - time.monotonic())
            trades = _joined(trades, await self._take_newest(track, until_s))
        track.caught_ms = int(trades["time_ms"].max(initial=0))
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
        page, tape = await self._pages.newest(track.pair, until_s), track.tape
        if len(page.trades) and tape.ids_consecutive is None:
            if self._rest.leaves_out(track.pair):
                tape.ids_consecutive = True  # which the holes in such a page might hide
            elif page.has_numbers:
                tape.learn_ids(page.trades)
            else:
                tape.ids_consecutive = False
        self._extend(track, page)
        return page.trades

    async def _fill(self, track: Track) -> None:
        lost: list[Gap] = []
        patience_s = self._timing.patience_s
        for span in spans(track.tape.gaps()):
            is_whole = False
            try:
                is_whole = await self._fill_span(track, span, time.monotonic() + patience_s)
            except Refusal:
                patience_s = 0.0  # the others are asked for once
            lost += _settle(track, span, whole=is_whole)
        self._tell_loss(track, lost)

    async def _fill_span(self, track: Track, span: Gap, until_s: float) -> bool:
        """Ask until REST has told all; False if it does not show that it has.

        Raises
        ------
        Refusal
        """
        backoff = Backoff(self._timing.first_retry_s, self._timing.longest_retry_s)
        search = _Search(track, span, span.start_ms)
        while search.gaps():
            had_key = self._rest.has_key
            try:
                if await self._ask(search, until_s):
                    return True
            except Refusal:
                if had_key and not self._rest.has_key:
                    continue  # there is a way without
                raise
            wait_s = backoff.next_s()
            if search.advanced():
                backoff.reset()
            if backoff.tries > _LATE_TRIES or time.monotonic() + wait_s > until_s:
                return False
            await asyncio.sleep(wait_s)
        return True

    async def _ask(self, search: _Search, until_s: float) -> bool:
        """Put what REST has of the span onto the tape. Is that shown to be all there is?

        Raises
        ------
        Refusal
        """
        track, span = search.track, search.left()
        asked_ms, is_whole = self._feed.clock.now_ms(), False
        for pages in self._pages.routes(track.pair, span, search.anchor(), until_s):
            reached = False
            async for page in pages:
                self._extend(track, page)
                if not search.gaps():
                    return True
                is_whole, reached = page.is_whole, _reaches(page.trades, span, track)
                if is_whole and len(page.trades):
                    search.whole_ms = min(span.end_ms, int(page.trades["time_ms"][-1]))
                if reached:
                    break
                if time.monotonic() > until_s:
                    return False
                asked_ms = self._feed.clock.now_ms()
            if is_whole:
                reached |= span.first_id is None and self._is_over(search, asked_ms)
                break
        if is_whole and reached and span.first_id is not None and self._rest.leaves_out(track.pair):
            track.tape.whole(span.first_id, span.last_id or span.first_id)
        return is_whole and reached

    def _is_over(self, search: _Search, asked_ms: int) -> bool:
        """Was nothing newer traded that REST did not tell, or does it only learn of it later?"""
        end_ms, tape = search.span.end_ms, search.track.tape
        return asked_ms - self._margin_ms >= end_ms and not len(tape.trades(end_ms, asked_ms))

    def _extend(self, track: Track, page: Page) -> None:
        trades = page.trades
        if not len(trades):
            return
        if track.tape.extend(trades):
            self._feed.touch(track.pair)
        if page.is_sound and self._rest.leaves_out(track.pair) and track.tape.ids_consecutive:
            track.tape.whole(int(trades["id"].min()), int(trades["id"].max()))

    def _tell_loss(self, track: Track, lost: list[Gap]) -> None:
        """One line for what is missing for good."""
        if not lost:
            return
        start_ms, end_ms = min(gap.start_ms for gap in lost), max(gap.end_ms for gap in lost)
        open_ms = int(candle_open_ms(start_ms, track.tape.step_ms))
        coverage = track.tape.flow(open_ms, end_ms + 1)["coverage"].min(initial=1.0)
        count = sum(_size(gap) for gap in lost)
        self._tell(
            f"{track.pair}: {count or 'the'} trade(s) between {utc_text(start_ms)} and "
            f"{utc_text(end_ms)} "
            f"could not be recovered; coverage {coverage:.4f}"
        )


@dataclass
class _Search:
    """For what is missing in a span.

    Attributes
    ----------
    whole_ms : until then REST has told all
    """

    track: Track
    span: Gap
    whole_ms: int
    _asked: Gap | None = None

    def advanced(self) -> bool:
        """Is less left than when it was asked before?"""
        before, self._asked = self._asked, self.left()
        return before not in (None, self._asked)

    def gaps(self) -> list[Gap]:
        """What of the span is open still."""
        return [gap for gap in self.track.tape.gaps() if _inside(gap, self.span)]

    def left(self) -> Gap:
        """What is still to be asked for; a try before may have come far."""
        gaps = self.gaps()
        if self.span.first_id is None or not gaps:
            return self.span._replace(start_ms=self.whole_ms)
        ends_ms = max(gap.end_ms for gap in gaps)
        return Gap(gaps[0].first_id, gaps[-1].last_id, gaps[0].start_ms, ends_ms)

    def anchor(self) -> Anchor | None:
        """The last trade before what is left; None where there was none."""
        start_ms, tape = self.left().start_ms, self.track.tape
        before = tape.trades(0, start_ms + 1)
        if len(before):
            return Anchor.last_of(before)
        held_no_longer = tape.counts.trades > tape.capacity
        return Anchor(start_ms, frozenset()) if held_no_longer else None


def _joined(first: Records, second: Records) -> Records:
    """Two newest pages as one, where nothing can be missing between them; else the second."""
    if len(first) and len(second) and second["time_ms"][0] < first["time_ms"][-1]:
        return np.concatenate([first, second])
    return second


def _settle(track: Track, span: Gap, *, whole: bool) -> list[Gap]:
    """Close what is still open of a span; the gaps in which something is missing for good."""
    left = [gap for gap in track.tape.gaps() if _inside(gap, span)]
    close = track.tape.recovered if whole else track.tape.give_up
    for gap in left if span.first_id is None else [span]:
        close(gap)
    return [gap for gap in left if gap.first_id is not None or not whole]


def _reaches(trades: Records, span: Gap, track: Track) -> bool:
    """Is there one from after the span among them?"""
    if not len(trades):
        return False
    if span.last_id is not None:
        return int(trades["id"].max()) >= span.last_id
    after = track.tape.trades(span.end_ms, _EVER_MS)["id"]  # REST's times may be whole seconds
    return int(trades["time_ms"].max()) >= span.end_ms or bool(np.isin(trades["id"], after).any())


def _size(gap: Gap) -> int:
    """Trades that are missing in it, as far as ids tell."""
    return 0 if gap.first_id is None or gap.last_id is None else gap.last_id - gap.first_id + 1
