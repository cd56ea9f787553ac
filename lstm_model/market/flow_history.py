"""Order flow of past candles: from Binance's raw klines, or from trades that freqtrade downloaded.

Sans-I/O: rows and dataframes come in, (N,) FLOW goes out. Only here is decided what is asked of
the exchange; who asks is a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import DataError
from lstm_model.market.candles import (
    FLOW,
    Floats,
    Ints,
    Records,
    candle_open_ms,
    timeframe_ms,
    utc_text,
)
from lstm_model.market.flow_store import FlowStore, coverage_at

PAGE = 1_000  # rows; the most that Binance's klines endpoint gives at once
_PAGES_PER_WRITE = 20  # chosen: writing then costs less time than asking, for years of 1m candles

# (start_ms, end_ms, limit) -> the first `limit` klines that open in [start_ms, end_ms), raw
Klines = Callable[[int, int, int], Sequence[Sequence[Any]]]
FlowProgress = Callable[[float], None]  # is told the share that is done

# https://developers.binance.com/docs/binance-spot-api-docs/rest-api: GET /api/v3/klines
_KLINE_COLUMNS = {
    "volume": 5, "quote_volume": 7, "trades": 8, "taker_base": 9, "taker_quote": 10,
}  # fmt: skip


class FlowSpan(NamedTuple):
    """How much order flow is known of the candles of a pair in a span of time.

    Attributes
    ----------
    candles : of which something is known
    covered_fraction : share of all trades of the span that is known, candles weighing the same
    first_ms, last_ms : open of the first and last known candle, None without any
    """

    pair: str
    candles: int
    covered_fraction: float
    first_ms: int | None
    last_ms: int | None


def flow_of_klines(rows: Sequence[Sequence[Any]], pair: str, timeframe: str) -> Records:
    """(N,) FLOW of Binance's raw klines, twelve columns each, oldest first.

    Raises
    ------
    DataError
        For rows that are disordered, off the grid or hold no numbers.

    Examples
    --------
    >>> row = [300000, "2", "3", "1", "2", "10", 599999, "20.5", 4, "6", "12.25", "0"]
    >>> flow = flow_of_klines([row], "BTC/USDT", "5m")
    >>> flow["trades"], flow["taker_quote"], flow["coverage"]
    (array([4.]), array([12.25]), array([1.]))
    """
    flow = np.empty(len(rows), FLOW)
    try:
        flow["date_ms"] = [int(row[0]) for row in rows]
        for name, column in _KLINE_COLUMNS.items():
            flow[name] = [float(row[column]) for row in rows]
    except (TypeError, ValueError, IndexError, OverflowError, KeyError) as error:
        raise DataError(f"{pair}: these are no klines of Binance's ({error})") from None
    flow["coverage"] = 1.0
    flow["realized_volatility"] = flow["largest"] = np.nan
    amounts = np.stack([flow[name] for name in _KLINE_COLUMNS])
    dates = flow["date_ms"]
    _refuse(~(np.isfinite(amounts) & (amounts >= 0.0)).all(axis=0), dates, pair, "unsound klines")
    _refuse(_not_rising(dates), dates, pair, "klines out of order")
    off_grid = dates % timeframe_ms(timeframe) != 0
    _refuse(off_grid, dates, pair, f"klines off the {timeframe} grid")
    return flow


def flow_of_trades_frame(frame: Any, pair: str, timeframe: str) -> Records:
    """(N,) FLOW of the trades in one of freqtrade's `--dl-trades` files.

    Where the download began and ended within a candle is not known, so the candles of the first
    and of the last trade are left out. Between them freqtrade downloads every trade.

    Parameters
    ----------
    frame : columns `timestamp id side price amount`, oldest first; `side` is the taker's

    Raises
    ------
    DataError
        For missing columns and for trades that are disordered, double or without sound numbers.
    """
    missing = {"timestamp", "id", "side", "price", "amount"} - set(frame.columns)
    if missing:
        raise DataError(f"{pair}: the trades lack the column(s) {', '.join(sorted(missing))}")
    side = frame["side"]
    buy, sell = ((side == name).to_numpy(np.bool_) for name in ("buy", "sell"))
    numbers = frame[["timestamp", "price", "amount"]].to_numpy(np.float64).T
    time_ms = np.nan_to_num(numbers[0]).astype(np.int64)
    sound = (np.isfinite(numbers) & (numbers > 0.0)).all(axis=0)
    double = frame.duplicated(["timestamp", "id"]).to_numpy(np.bool_)
    _refuse(~sound, time_ms, pair, "trades without a sound time, price and amount")
    _refuse(~(buy | sell), time_ms, pair, "trades whose side is neither buy nor sell")
    _refuse(double, time_ms, pair, "double trades")
    _refuse(np.asarray(np.diff(time_ms, prepend=0) < 0), time_ms, pair, "trades out of order")
    trades = _Trades(time_ms, numbers[1], numbers[2], buy)
    return _aggregate(trades, timeframe_ms(timeframe)) if len(frame) else np.empty(0, FLOW)


class _Trades(NamedTuple):
    time_ms: Ints
    price: Floats
    amount: Floats
    taker_buy: NDArray[np.bool_]


def _aggregate(trades: _Trades, step_ms: int) -> Records:
    """Flow of every candle between the first and the last trade's, those without a trade too."""
    opens = candle_open_ms(trades.time_ms, step_ms)
    dates = np.arange(opens[0] + step_ms, opens[-1], step_ms)
    bounds = np.searchsorted(opens, np.append(dates, opens[-1]))
    buy, cost = trades.taker_buy, trades.price * trades.amount
    moved = np.diff(np.log(trades.price), prepend=np.nan) ** 2
    moved[np.diff(opens, prepend=-1) != 0] = 0.0  # from trade to trade of one candle
    flow = np.zeros(len(dates), FLOW)
    flow["date_ms"], flow["trades"], flow["coverage"] = dates, np.diff(bounds), 1.0
    sums = {
        "volume": trades.amount, "quote_volume": cost, "taker_base": trades.amount * buy,
        "taker_quote": cost * buy, "realized_volatility": moved,
    }  # fmt: skip
    for name, values in sums.items():
        flow[name] = _fold(np.add, values, bounds)
    flow["realized_volatility"] = np.sqrt(flow["realized_volatility"])
    flow["largest"] = _fold(np.maximum, trades.amount, bounds)
    return flow


def _fold(reduce: np.ufunc, values: Floats, bounds: Ints) -> Floats:
    """(C,) reduction of `values[bounds[i]:bounds[i + 1]]`, 0 where that is empty."""
    result = np.zeros(max(len(bounds) - 1, 0))
    filled = np.diff(bounds) > 0
    if filled.any():
        result[filled] = reduce.reduceat(values[: bounds[-1]], bounds[:-1][filled])
    return result


def download(
    pair: str, timeframe: str, start_ms: int, end_ms: int, klines: Klines, store: FlowStore,
    progress: FlowProgress | None = None,
) -> None:  # fmt: skip
    """Get the klines of all candles that lie in `[start_ms, end_ms)` whole and are not complete.

    What is stored already is not asked for again, so an interrupted download continues where it
    stopped. `end_ms` must not be later than now: then no open candle is ever stored.

    Raises
    ------
    DataError
        The exchange answers nonsense.
    StoreError
        The store is damaged or cannot be written.
    """
    grid = _grid(start_ms, end_ms, timeframe_ms(timeframe))
    known = store.read(pair, timeframe)
    missing = grid[coverage_at(known, grid) < 1.0]
    begun_ms = int(known["date_ms"][0]) if len(known) else end_ms
    waiting: list[Records] = []
    try:
        for page in _pages(pair, timeframe, klines, missing, begun_ms):
            waiting.append(page)
            if progress:
                done = np.searchsorted(missing, page["date_ms"][-1], side="right")
                progress(float(done) / len(missing))
            if len(waiting) == _PAGES_PER_WRITE:
                store.write(pair, timeframe, np.concatenate(waiting))
                waiting.clear()
    finally:
        if waiting:
            store.write(pair, timeframe, np.concatenate(waiting))


def _pages(
    pair: str, timeframe: str, klines: Klines, missing: Ints, begun_ms: int
) -> Iterator[Records]:
    """Flow of the candles that open at `missing` (C,), page by page, without holes.

    Parameters
    ----------
    begun_ms : a time at which the pair was traded already; before it a hole may be its absence
    """
    step = timeframe_ms(timeframe)
    while len(missing):
        begin, end = int(missing[0]), int(missing[-1]) + step
        rows = klines(begin, end, PAGE)
        if not rows:
            return
        flow = _within(flow_of_klines(rows, pair, timeframe), begin, end, pair)
        begun_ms = min(begun_ms, int(flow["date_ms"][0]))
        yield _without_holes(flow, max(begun_ms, begin), step)
        missing = missing[missing > flow["date_ms"][-1]]


def span_of(store: FlowStore, pair: str, timeframe: str, start_ms: int, end_ms: int) -> FlowSpan:
    """What the store knows of the candles that lie in `[start_ms, end_ms)` whole."""
    grid = _grid(start_ms, end_ms, timeframe_ms(timeframe))
    coverage = coverage_at(store.read(pair, timeframe), grid)
    known = grid[coverage > 0.0]
    first, last = (int(known[0]), int(known[-1])) if len(known) else (None, None)
    return FlowSpan(pair, len(known), float(coverage.mean()) if len(grid) else 0.0, first, last)


def _grid(start_ms: int, end_ms: int, step_ms: int) -> Ints:
    first = -(-start_ms // step_ms) * step_ms
    return np.arange(first, candle_open_ms(end_ms, step_ms), step_ms, dtype=np.int64)


def _within(flow: Records, begin_ms: int, end_ms: int, pair: str) -> Records:
    if flow["date_ms"][0] < begin_ms or flow["date_ms"][-1] >= end_ms:
        raise DataError(
            f"{pair}: asked for klines from {utc_text(begin_ms)} to {utc_text(end_ms)}, the "
            f"exchange gave {utc_text(flow['date_ms'][0])} to {utc_text(flow['date_ms'][-1])}"
        )
    return flow


def _without_holes(flow: Records, begin_ms: int, step_ms: int) -> Records:
    """The same, with the candles that Binance leaves out: nothing was traded in them."""
    whole = np.zeros((int(flow["date_ms"][-1]) - begin_ms) // step_ms + 1, FLOW)
    whole["date_ms"] = begin_ms + step_ms * np.arange(len(whole))
    whole["coverage"] = 1.0
    whole["realized_volatility"] = whole["largest"] = np.nan
    whole[(flow["date_ms"] - begin_ms) // step_ms] = flow
    return whole


def _not_rising(dates: Ints) -> NDArray[np.bool_]:
    return np.asarray(np.diff(dates, prepend=-(2**62)) <= 0)


def _refuse(rows: NDArray[np.bool_], dates: Ints, pair: str, what: str) -> None:
    if rows.any():
        raise DataError(f"{pair}: {int(rows.sum())} {what}, first at {utc_text(dates[rows][0])}")
