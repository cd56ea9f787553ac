"""A market made of recorded or invented trades: the one source of everything the exchange serves.

Prices and amounts are integers (ticks and lots), so a candle is *exactly* the aggregation of
its trades, whatever the timeframe. Nothing later than the clock is ever served. Past its last
trade a market stands still: flat candles without volume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import DataError
from lstm_model.market.candles import Ints, candle_open_ms, timeframe_ms

Bools = NDArray[np.bool_]

DAY_MS = 86_400_000
FUTURE_DAYS = 2  # chosen: how long a market goes on after the midnight (UTC) it was opened on

# Binance's intervals that divide a day: https://developers.binance.com/docs/binance-spot-api-docs
TIMEFRAMES = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")


def wall_clock_ms() -> int:
    """The time now, UTC milliseconds."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Instrument:
    """How a pair is quoted: one tick is `10 ** -price_decimals` quote, one lot likewise in base."""

    base: str
    quote: str
    price_decimals: int
    amount_decimals: int
    spread_fraction: float = 0.0

    @property
    def pair(self) -> str:
        """freqtrade's name, `BTC/USDT`."""
        return f"{self.base}/{self.quote}"

    @property
    def symbol(self) -> str:
        """Binance's name, `BTCUSDT`."""
        return f"{self.base}{self.quote}"

    def spread_ticks(self, price: int) -> int:
        """Ticks between best bid and best ask around `price` (ticks), at least one."""
        return max(1, round(price * self.spread_fraction))


@dataclass(frozen=True)
class Trades:
    """N trades of one pair, oldest first; their ids are `first_id`, `first_id + 1`, ...

    Attributes
    ----------
    time_ms : (N,) int64, never falling
    price : (N,) int64, ticks
    amount : (N,) int64, lots
    taker_buy : (N,) bool

    Raises
    ------
    DataError
        For no trade at all, disordered times and prices or amounts that are not positive.
    """

    time_ms: Ints
    price: Ints
    amount: Ints
    taker_buy: Bools
    first_id: int = 1

    def __post_init__(self) -> None:
        if not len(self.time_ms):
            raise DataError("a market needs at least one trade")
        if (np.diff(self.time_ms) < 0).any():
            raise DataError("trades are not in order of time")
        if (self.price <= 0).any() or (self.amount <= 0).any():
            raise DataError("trades need a positive price and a positive amount")

    def __len__(self) -> int:
        return len(self.time_ms)

    def due(self, now_ms: int) -> int:
        """How many trades have happened by `now_ms`."""
        return int(np.searchsorted(self.time_ms, now_ms, side="right"))


@dataclass(frozen=True)
class TapeCandles:
    """C candles on a gapless grid, in ticks and lots; a candle without a trade is flat.

    Attributes
    ----------
    open_ms : (C,) int64
    open, high, low, close : (C,) int64, ticks
    volume, taker_base : (C,) int64, lots
    quote_volume, taker_quote : (C,) int64, ticks times lots
    trades : (C,) int64, count
    first_trade : (C,) int64, position of the candle's first trade on the tape
    """

    open_ms: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    quote_volume: Ints
    trades: Ints
    taker_base: Ints
    taker_quote: Ints
    first_trade: Ints

    def __len__(self) -> int:
        return len(self.open_ms)


def aggregate(trades: Trades, edges_ms: Ints, stop: int) -> TapeCandles:
    """Candles `[edges[i], edges[i + 1])` of the first `stop` trades.

    Parameters
    ----------
    edges_ms : (C + 1,) int64, rising; the first candle must hold or follow the first trade
    """
    bounds = np.minimum(np.searchsorted(trades.time_ms, edges_ms), stop)
    first, counts = bounds[:-1], np.diff(bounds)
    close = trades.price[bounds[1:] - 1]
    price = trades.price[bounds[0] : bounds[-1]]
    amount = trades.amount[bounds[0] : bounds[-1]]
    taker = amount * trades.taker_buy[bounds[0] : bounds[-1]]
    fold = _Fold(counts > 0, (first - bounds[0])[counts > 0])
    return TapeCandles(
        open_ms=edges_ms[:-1],
        open=np.where(counts > 0, trades.price[np.minimum(first, stop - 1)], close),
        high=fold(np.maximum, price, close),
        low=fold(np.minimum, price, close),
        close=close,
        volume=fold(np.add, amount),
        quote_volume=fold(np.add, price * amount),
        trades=counts,
        taker_base=fold(np.add, taker),
        taker_quote=fold(np.add, price * taker),
        first_trade=first,
    )


@dataclass(frozen=True)
class _Fold:
    """Reduces trades to candles; `filled` (C,) bool, `starts`: first trade of each filled one."""

    filled: Bools
    starts: Ints

    def __call__(self, reduce: np.ufunc, values: Ints, flat: Ints | None = None) -> Ints:
        result = np.zeros(len(self.filled), np.int64) if flat is None else flat.copy()
        if len(self.starts):
            result[self.filled] = reduce.reduceat(values, self.starts)
        return result


@dataclass(frozen=True)
class Listing:
    """One pair of the market: how it is quoted and all its trades, future ones included."""

    instrument: Instrument
    trades: Trades

    def ids(self, start: int, stop: int) -> Ints:
        """Ids of the trades at `[start, stop)` of the tape, rising."""
        return self.trades.first_id + np.arange(start, stop, dtype=np.int64)

    def position(self, id: int) -> int:
        """Where on the tape the first trade with at least this id is."""
        return min(max(0, id - self.trades.first_id), len(self.trades))

    def candles(
        self,
        timeframe: str,
        now_ms: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 500,
    ) -> TapeCandles:
        """Candles that open in `[start_ms, end_ms]`, the open one up to `now_ms` included.

        With `start_ms` the first `limit` of them, otherwise the last.
        """
        edges = self.edges(timeframe, now_ms, start_ms, end_ms, limit)
        due = self.trades.due(now_ms)
        return aggregate(self.trades, edges, due) if len(edges) > 1 else no_candles()

    def edges(
        self, timeframe: str, now_ms: int, start_ms: int | None, end_ms: int | None, limit: int
    ) -> Ints:
        """(C + 1,) where these candles begin, and where the last one ends."""
        step = timeframe_ms(timeframe)
        low, high = self._span(step, now_ms, start_ms, end_ms)
        if start_ms is None:
            low = max(low, high - (limit - 1) * step)
        else:
            high = min(high, low + (limit - 1) * step)
        count = (high - low) // step + 1 if self.trades.due(now_ms) else 0
        return low + step * np.arange(max(count, 0) + 1, dtype=np.int64)

    def _span(
        self, step: int, now_ms: int, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int]:
        low = int(candle_open_ms(int(self.trades.time_ms[0]), step))
        high = int(candle_open_ms(now_ms, step))
        if start_ms is not None:
            low = max(low, -(-start_ms // step) * step)
        if end_ms is not None:
            high = min(high, int(candle_open_ms(end_ms, step)))
        return low, high

    def last_day(self, now_ms: int) -> TapeCandles:
        """The 24 hours up to `now_ms` as one candle; at least one trade must be due."""
        edges = np.array([now_ms + 1 - DAY_MS, now_ms + 1], dtype=np.int64)
        return aggregate(self.trades, edges, self.trades.due(now_ms))

    def quotes(self, now_ms: int) -> tuple[int, int]:
        """Best bid and ask in ticks: the last trade is on one side, the spread beyond it."""
        last = self.trades.due(now_ms) - 1
        price = int(self.trades.price[last])
        spread = self.instrument.spread_ticks(price)
        if self.trades.taker_buy[last]:
            return max(1, price - spread), max(2, price)
        return price, price + spread


def no_candles() -> TapeCandles:
    """Of a time in which there are none."""
    return TapeCandles(*(np.empty(0, np.int64) for _ in range(11)))


@dataclass(frozen=True)
class Market:
    """Listings and one clock. `now_ms` decides what has happened; tests set it as they like."""

    listings: dict[str, Listing]
    now_ms: Callable[[], int] = field(default=wall_clock_ms)

    def listing(self, symbol: str) -> Listing:
        """The pair of that Binance symbol.

        Raises
        ------
        DataError
            If the market has no such symbol.
        """
        if symbol not in self.listings:
            raise DataError(f'no symbol "{symbol}"; there are {", ".join(self.listings)}')
        return self.listings[symbol]

    def trading(self) -> list[Listing]:
        """Pairs that have traded by now."""
        now_ms = self.now_ms()
        return [item for item in self.listings.values() if item.trades.due(now_ms)]


def symbol_of(pair: str) -> str:
    """Binance's name of freqtrade's pair, which is the same on spot and on futures.

    Examples
    --------
    >>> symbol_of("BTC/USDT"), symbol_of("BTC/USDT:USDT")
    ('BTCUSDT', 'BTCUSDT')
    """
    return pair.partition(":")[0].replace("/", "")


def is_future(pair: str) -> bool:
    """Whether a pair, by freqtrade's name, is one of futures: it says what it is settled in."""
    return ":" in pair


def make_market(listings: Iterable[Listing], now_ms: Callable[[], int] = wall_clock_ms) -> Market:
    """A market of these listings."""
    return Market({item.instrument.symbol: item for item in listings}, now_ms)
