"""Pages of past trades, asked for until REST answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from lstm_model.market.candles import Records
from lstm_model.market.continuity import Gap
from lstm_model.stream.connection import Refusal, Rest
from lstm_model.stream.customs import RawTrade
from lstm_model.stream.timing import Backoff, Timing
from lstm_model.stream.trade_feed import records

_AT_ONCE = 4  # chosen: requests under way; ccxt's throttler spaces them as the exchange wants
_BINANCE_METHODS = {
    "spot": "publicGet", "linear": "fapiPublicGet", "inverse": "dapiPublicGet"
}  # fmt: skip


class Page(NamedTuple):
    """Trades that one request told.

    Attributes
    ----------
    trades : (N,) TRADE, in order of time
    is_full : there may be more
    is_next : they follow those of the page before, and nothing between was left out
    """

    trades: Records
    is_full: bool
    is_next: bool = True


class Pages:
    """Asks for pages. Where a request is refused for now, that page is asked for again.

    Who began anew with the first page would never come to the end of a gap of hundreds. While it
    waits, others ask.
    """

    def __init__(self, rest: Rest, timing: Timing) -> None:
        self._rest, self._timing = rest, timing
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._longest = 2  # trades on the longest page so far

    async def newest(self, pair: str, until_s: float = 0.0) -> list[RawTrade]:
        """The newest page, as ccxt has it.

        Parameters
        ----------
        until_s : on the monotonic clock; until then it is asked for again

        Raises
        ------
        Refusal
        """
        method = self._method(pair, "Trades") if self._is_binance else {}
        return await self._page(pair, None, method, until_s)

    def routes(self, pair: str, span: Gap, until_s: float) -> list[AsyncIterator[Page]]:
        """Ways to get at a span, best first; the last of them begins where the span does.

        Each raises a `Refusal` as `newest` does.
        """
        if not self._is_binance:
            return [self._by_time(pair, span, until_s)]
        if self._rest.has_key and span.first_id is not None:
            return [self._by_id(pair, span.first_id, until_s)]
        return [self._recent(pair, until_s), self._by_time(pair, span, until_s)]

    def records(self, page: list[RawTrade]) -> Records:
        """(N,) TRADE of a page, in order of time; trades that are none are left out."""
        return records(page, self._rest.customs, time.time_ns())

    @property
    def _is_binance(self) -> bool:
        return self._rest.customs.route == "binance"

    def _read(self, page: list[RawTrade]) -> Page:
        return Page(self.records(page), len(page) >= self._longest)

    async def _recent(self, pair: str, until_s: float) -> AsyncIterator[Page]:
        yield self._read(await self.newest(pair, until_s))

    async def _by_id(self, pair: str, first_id: int, until_s: float) -> AsyncIterator[Page]:
        """Binance's `historicalTrades`, for which it wants to know an API key."""
        method = self._method(pair, "HistoricalTrades")
        while True:
            try:
                page = self._read(
                    await self._page(pair, None, {**method, "fromId": first_id}, until_s)
                )
            except Refusal as refusal:
                if refusal.unauthorized:
                    self._rest.has_key = False  # the next try goes without
                raise
            yield page
            last_id = int(page.trades["id"].max(initial=-1))
            if last_id < first_id:
                return
            first_id = last_id + 1

    async def _by_time(self, pair: str, span: Gap, until_s: float) -> AsyncIterator[Page]:
        """From the beginning of the span on; on Binance these are aggregates, see `records`."""
        # The last trade before the gap is asked for too, to see that the page reaches it.
        cursor_ms, window_ms = span.start_ms - 1, self._rest.customs.window_ms
        whole_ms = window_ms
        while True:
            params = {"until": cursor_ms + window_ms} if window_ms else {}
            page = self._read(await self._page(pair, cursor_ms, params, until_s))
            times = page.trades["time_ms"]
            if page.is_full and len(times) and window_ms > 1 and times[0] > cursor_ms + 1:
                yield page._replace(is_next=False)  # it may have told the end of the window only
                window_ms = max(1, window_ms // 8)
                continue
            yield page
            window_ms = window_ms if page.is_full else min(whole_ms, 2 * window_ms)
            if len(times) and times[-1] > cursor_ms:
                cursor_ms = int(times[-1])
            elif page.is_full or (window_ms and cursor_ms + window_ms < span.end_ms):
                cursor_ms, window_ms = cursor_ms + max(1, window_ms), whole_ms
            else:
                return

    async def _page(
        self, pair: str, since_ms: int | None, params: Mapping[str, Any], until_s: float
    ) -> list[RawTrade]:
        backoff = Backoff(self._timing.first_retry_s, self._timing.longest_retry_s)
        while True:
            try:
                async with self._limit:
                    page = await self._rest.trades(pair, since_ms, params)
                self._longest = max(self._longest, len(page))
                return page
            except Refusal as refusal:
                wait_s = max(refusal.wait_s, backoff.next_s())
                if not refusal.passing or time.monotonic() + wait_s > until_s:
                    raise
            await asyncio.sleep(wait_s)

    def _method(self, pair: str, name: str) -> dict[str, str]:
        """Without it ccxt asks Binance for aggregates, which have other ids."""
        return {"fetchTradesMethod": _BINANCE_METHODS[self._rest.kind(pair)] + name}
