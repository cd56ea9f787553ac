"""Binance's market streams without any input or output: requests in, messages out.

One `Subscriptions` belongs to one websocket connection. `poll` returns what happened since the
last poll, so the pace at which it is called never loses or repeats a trade.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from lstm_model.market.candles import candle_open_ms, timeframe_ms
from lstm_model.practice import dialect, usdm_dialect
from lstm_model.practice.dialect import Json
from lstm_model.practice.tape_market import TIMEFRAMES, Listing, Market

KLINE_UPDATE_MS = 1_000  # chosen; Binance updates the open candle every one to two seconds
_MOST_CANDLES = 1_000  # sent at once after a jump of the clock


@dataclass(frozen=True)
class Offer:
    """What one address streams; its messages are functions of the listing.

    Attributes
    ----------
    trades : by the stream's kind, of the trades at `[start, stop)` and the time
    books : by kind, of the time: sent whenever something traded
    klines : whether there are candles
    """

    trades: Mapping[str, Callable[[Any, int, int, int], Iterator[Json]]] = field(
        default_factory=dict
    )
    books: Mapping[str, Callable[[Any, int], Json]] = field(default_factory=dict)
    klines: bool = False


SPOT = Offer(
    {"trade": dialect.trade_events, "aggTrade": dialect.aggregate_trade_events},
    {"bookTicker": dialect.book_ticker_event},
    klines=True,
)
USDM = {  # by the address' first word
    "public": Offer(
        {"trade": usdm_dialect.trade_events},
        {"bookTicker": usdm_dialect.book_ticker_event}
        | {f"depth{n}": partial(usdm_dialect.depth_event, levels=n) for n in (5, 10, 20)},
    ),
    "market": Offer({"aggTrade": usdm_dialect.aggregate_trade_events}, klines=True),
}


class _Stream(Protocol):
    is_trades: bool

    def poll(self, now_ms: int) -> Iterator[Json]: ...


class _TradeStream:
    """Every trade once, from the moment of the subscription on."""

    is_trades = True

    def __init__(
        self, listing: Listing, events: Callable[..., Iterator[Json]], now_ms: int
    ) -> None:
        self._listing, self._events = listing, events
        self._next = listing.trades.due(now_ms)

    @property
    def next_ms(self) -> float:
        """When the next trade is due, endless if none will come."""
        time_ms = self._listing.trades.time_ms
        return int(time_ms[self._next]) if self._next < len(time_ms) else math.inf

    def poll(self, now_ms: int) -> Iterator[Json]:
        if now_ms < self.next_ms:
            return iter(())
        start, self._next = self._next, self._listing.trades.due(now_ms)
        return self._events(self._listing, start, self._next, now_ms)


class _BookStream:
    """The book, or the best of it, after every poll in which something traded."""

    is_trades = False

    def __init__(self, listing: Listing, event: Callable[[Any, int], Json]) -> None:
        self._listing, self._event, self._seen = listing, event, 0

    def poll(self, now_ms: int) -> Iterator[Json]:
        due = self._listing.trades.due(now_ms)
        if due != self._seen:
            self._seen = due
            yield self._event(self._listing, now_ms)


class _KlineStream:
    """The open candle every second, and every candle once more when it is final."""

    is_trades = False

    def __init__(self, listing: Listing, timeframe: str, now_ms: int) -> None:
        self._listing, self._timeframe = listing, timeframe
        self._step_ms = timeframe_ms(timeframe)
        self._open_ms = int(candle_open_ms(now_ms, self._step_ms))
        self._sent_ms: int | None = None

    def poll(self, now_ms: int) -> Iterator[Json]:
        open_ms = int(candle_open_ms(now_ms, self._step_ms))
        waited = self._sent_ms is None or now_ms - self._sent_ms >= KLINE_UPDATE_MS
        if open_ms == self._open_ms and not waited:
            return
        start = max(self._open_ms, open_ms - (_MOST_CANDLES - 1) * self._step_ms)
        self._sent_ms = now_ms
        candles = self._listing.candles(self._timeframe, now_ms, start, None, _MOST_CANDLES)
        if len(candles):  # one that is late is waited for
            self._open_ms = int(candles.open_ms[-1])
        yield from dialect.kline_events(self._listing, self._timeframe, candles, now_ms)


class Subscriptions:
    """What one connection listens to.

    Parameters
    ----------
    combined : messages are wrapped as `{"stream": name, "data": message}`, as under `/stream`
    offer : what there is to listen to
    """

    def __init__(self, market: Market, combined: bool, offer: Offer = SPOT) -> None:
        self._market, self._combined, self._offer = market, combined, offer
        self._streams: dict[str, _Stream | None] = {}

    def subscribe(self, names: list[str]) -> None:
        """Add streams by Binance's names; like Binance, unknown ones are accepted and silent."""
        for name in names:
            if name not in self._streams:
                self._streams[name] = _open(self._market, self._offer, name)

    def next_trade_ms(self) -> float:
        """Milliseconds until the next trade by the market's clock, endless if none will come."""
        streams = (item for item in self._streams.values() if isinstance(item, _TradeStream))
        due_ms = min((item.next_ms for item in streams), default=math.inf)
        return due_ms - self._market.now_ms()

    def poll(self, trades_only: bool = False) -> Iterator[Json]:
        """The messages due since the last poll."""
        now_ms = self._market.now_ms()
        for name, stream in self._streams.items():
            if stream is None or (trades_only and not stream.is_trades):
                continue
            for message in stream.poll(now_ms):
                yield {"stream": name, "data": message} if self._combined else message

    def reply(self, text: str) -> Json:
        """Obey one request of the client and return the answer."""
        request = _parse(text)
        method, names = request.get("method"), request.get("params", [])
        number = request.get("id")
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": list(self._streams), "id": number}
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or not _is_names(names):
            message = (
                "Invalid request: method and params must be SUBSCRIBE or UNSUBSCRIBE and names"
            )
            return {"error": {"code": 2, "msg": message}, "id": number}
        if method == "SUBSCRIBE":
            self.subscribe(names)
        else:
            for name in names:
                self._streams.pop(name, None)
        return {"result": None, "id": number}


def _parse(text: str) -> dict[str, Json]:
    try:
        request = json.loads(text)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _is_names(names: Json) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _open(market: Market, offer: Offer, name: str) -> _Stream | None:
    symbol, kind, *_ = [*name.split("@"), ""]  # the speed, as in `@100ms`, is ours to choose
    listing, now_ms = market.listings.get(symbol.upper()), market.now_ms()
    if listing is None:
        return None
    if (events := offer.trades.get(kind)) is not None:
        return _TradeStream(listing, events, now_ms)
    if (event := offer.books.get(kind)) is not None:
        return _BookStream(listing, event)
    timeframe = kind.removeprefix("kline_")
    known = offer.klines and timeframe in TIMEFRAMES
    return _KlineStream(listing, timeframe, now_ms) if known else None
