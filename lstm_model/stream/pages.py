"""Pages of past trades, asked for until REST answers, and whether they follow each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from lstm_model.market.candles import Records
from lstm_model.market.gaps import Gap
from lstm_model.stream.connection import Refusal, Rest
from lstm_model.stream.customs import RawTrade
from lstm_model.stream.timing import Backoff, Timing
from lstm_model.stream.trade_feed import TradeFeed, has_numbers, is_readable, records

_AT_ONCE = 4  # chosen: requests under way; ccxt's throttler spaces them as the exchange wants
_SHORTEST_PAGE = 50  # chosen: of any exchange; a shorter answer is all there is
_SECOND_MS = 1_000  # no exchange cuts more off the times of past trades
_BINANCE_METHODS = {
    "spot": "publicGet", "linear": "fapiPublicGet", "inverse": "dapiPublicGet"
}  # fmt: skip


class Anchor(NamedTuple):
    """The last trade before what is asked for, and all of its moment; without ids, if forgotten."""

    time_ms: int
    ids: frozenset[int]

    @classmethod
    def last_of(cls, trades: Records) -> Anchor:
        """Of (N,) TRADE in order of time."""
        last = trades["time_ms"] == trades["time_ms"][-1]
        return cls(int(trades["time_ms"][-1]), frozenset(trades["id"][last].tolist()))


class Page(NamedTuple):
    """Trades that one request told.

    Attributes
    ----------
    trades : (N,) TRADE, in order of time
    is_sound : none that it told was unreadable
    has_numbers : the ids of all are plain numbers
    is_full : there may be more
    is_whole : nothing is left out between the beginning of the span and the last of them
    """

    trades: Records
    is_sound: bool
    has_numbers: bool
    is_full: bool
    is_whole: bool = False

    def shows(self, anchor: Anchor | None, since_ms: int) -> bool:
        """Does the page reach back to a trade that is known, or to `since_ms` if none is?

        An empty answer does not, nor one that only tells the newest trades, or the last ones
        before an end, or is of before that trade: what an exchange has forgotten, not found or
        not learnt yet looks like this.
        """
        times = self.trades["time_ms"]
        if anchor is None:
            return not (self.is_full and len(times) and times[0] > since_ms + 1)
        if not len(times):
            return False
        if not anchor.ids:
            return bool(times[0] <= anchor.time_ms < times[-1] + _SECOND_MS)
        earlier = times[0] < anchor.time_ms - _SECOND_MS and anchor.time_ms < times[-1]
        return bool(earlier or anchor.ids.intersection(self.trades["id"].tolist()))


class Pages:
    """Asks for pages. Where a request is refused for now, that page is asked for again.

    Who began anew with the first page would never come to the end of a gap of hundreds. While it
    waits, others ask; where the exchange wants to be left alone, nobody does.
    """

    def __init__(self, rest: Rest, feed: TradeFeed, timing: Timing) -> None:
        self._rest, self._feed, self._timing = rest, feed, timing
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._longest = _SHORTEST_PAGE  # trades on the longest page so far
        self._closed_s = 0.0  # on the monotonic clock; until then the exchange is left alone
        self._refusal: Refusal | None = None  # that said so

    async def newest(self, pair: str, until_s: float = 0.0) -> Page:
        """The newest page.

        Parameters
        ----------
        until_s : on the monotonic clock; until then it is asked for again

        Raises
        ------
        Refusal
        """
        method = self._method(pair, "Trades") if self._is_binance else {}
        return await self._page(pair, None, method, until_s)

    def routes(
        self, pair: str, span: Gap, anchor: Anchor | None, until_s: float
    ) -> list[AsyncIterator[Page]]:
        """Ways to get at a span, best first; the last of them begins where the span does.

        Each raises a `Refusal` as `newest` does.

        Parameters
        ----------
        anchor : before the span; None where there is none
        """
        by_time = self._by_time(pair, span, anchor, until_s)
        if not self._is_binance:
            return [by_time]
        if self._rest.has_key and span.first_id is not None:
            return [self._by_id(pair, span.first_id, until_s)]
        return [self._recent(pair, span, anchor, until_s), by_time]

    @property
    def _is_binance(self) -> bool:
        return self._rest.customs.route == "binance"

    async def _recent(
        self, pair: str, span: Gap, anchor: Anchor | None, until_s: float
    ) -> AsyncIterator[Page]:
        page = await self.newest(pair, until_s)
        is_whole = page.is_sound and page.shows(anchor, span.start_ms)
        yield page._replace(is_whole=is_whole)

    async def _by_id(self, pair: str, first_id: int, until_s: float) -> AsyncIterator[Page]:
        """Binance's `historicalTrades`, for which it wants to know an API key."""
        method, is_whole = self._method(pair, "HistoricalTrades"), True
        while True:
            try:
                page = await self._page(pair, None, {**method, "fromId": first_id}, until_s)
            except Refusal as refusal:
                if refusal.unauthorized:
                    self._rest.has_key = False  # the next try goes without
                raise
            is_whole &= page.is_sound and len(page.trades) > 0
            yield page._replace(is_whole=is_whole)
            last_id = int(page.trades["id"].max(initial=-1))
            if last_id < first_id:
                return
            first_id = last_id + 1

    async def _by_time(
        self, pair: str, span: Gap, anchor: Anchor | None, until_s: float
    ) -> AsyncIterator[Page]:
        """From the beginning of the span on; on Binance these are aggregates, see `records`.

        Every page has to show the last trade of the one before: only then is nothing left out.
        """
        whole_ms = window_ms = self._rest.customs.window_ms
        since_ms = (span.start_ms if anchor is None else anchor.time_ms) - 1
        since_ms -= since_ms % self._rest.customs.unit_ms
        is_whole = True
        while True:
            params = {"until": since_ms + window_ms} if window_ms else {}
            page = await self._page(pair, since_ms, params, until_s)
            times, shows = page.trades["time_ms"], page.shows(anchor, since_ms)
            if len(times) and window_ms > 1 and not shows:
                window_ms = max(1, window_ms // 8)  # it may have told the end of the window only
                continue
            is_whole &= shows and page.is_sound
            yield page._replace(is_whole=is_whole)
            known_ms = since_ms if anchor is None else since_ms + 1
            if len(times) and times[-1] > known_ms:
                anchor = Anchor.last_of(page.trades)
                since_ms = anchor.time_ms - 1
                window_ms = window_ms if page.is_full else min(whole_ms, 2 * window_ms)
            elif page.is_full and len(times) and times[0] >= since_ms:
                # A page of trades of one moment: those beyond it cannot be asked for.
                is_whole, anchor, since_ms = False, None, int(times[-1]) + 1
            elif window_ms and since_ms + window_ms < span.end_ms:
                anchor, since_ms, window_ms = None, since_ms + window_ms, whole_ms
            else:
                return

    async def _page(
        self, pair: str, since_ms: int | None, params: Mapping[str, Any], until_s: float
    ) -> Page:
        backoff = Backoff(self._timing.first_retry_s, self._timing.longest_retry_s)
        while True:
            async with self._limit:
                await self._while_closed(until_s)
                try:
                    return self._read(await self._rest.trades(pair, since_ms, params))
                except Refusal as refusal:
                    now_s, wait_s = time.monotonic(), max(refusal.wait_s, backoff.next_s())
                    if now_s + refusal.wait_s > self._closed_s:
                        self._closed_s, self._refusal = now_s + refusal.wait_s, refusal
                    if not refusal.passing or now_s + wait_s > until_s:
                        raise
            await asyncio.sleep(wait_s)

    async def _while_closed(self, until_s: float) -> None:
        """Who goes on asking an exchange that wants to be left alone is banned for longer."""
        while (wait_s := self._closed_s - time.monotonic()) > 0.0:
            if self._refusal is not None and self._closed_s > until_s:
                raise self._refusal.with_traceback(None)
            await asyncio.sleep(wait_s)

    def _read(self, told: list[RawTrade]) -> Page:
        """Trades that are none are left out, and so are those that have not happened yet."""
        customs = self._rest.customs
        found = records(told, customs, time.time_ns())
        trades = found[found["time_ms"] < self._feed.latest_ms]
        is_sound = len(trades) == len(found) and all(is_readable(each, customs) for each in told)
        is_full = len(told) >= self._longest
        self._longest = max(self._longest, len(told))
        return Page(trades, is_sound, has_numbers(told), is_full)

    def _method(self, pair: str, name: str) -> dict[str, str]:
        """Without it ccxt asks Binance for aggregates, which have other ids."""
        return {"fetchTradesMethod": _BINANCE_METHODS[self._rest.kind(pair)] + name}
