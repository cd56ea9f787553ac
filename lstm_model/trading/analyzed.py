"""What a strategy reads from a pair's analyzed dataframe: the newest candle, returns, facts.

Any of it may be missing (no candle yet, no forecast, no such column); then the answer is NaN or
empty, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from lstm_model.market.candles import Floats, Ints
from lstm_model.settings import Settings
from lstm_model.trading.sizing import NO_DATA


def newest(frame: DataFrame, column: str) -> float:
    """The newest candle's number; NaN without the column, a candle or a number.

    Examples
    --------
    >>> newest(DataFrame({"close": [1.0, 2.0]}), "close"), newest(DataFrame(), "close")
    (2.0, nan)
    """
    if not len(frame) or column not in frame:
        return math.nan
    value = frame[column].to_numpy()[-1]  # a fifth of what `iloc` takes
    return math.nan if value is None else float(value)


def kelly_of_side(frame: DataFrame, side: int) -> float:
    """Kelly's position on this side; the column has it for the side that the forecast leans to."""
    return 0.0 if side * newest(frame, "lstm_mean") < 0.0 else newest(frame, "lstm_kelly")


def gate_of(frame: DataFrame) -> str:
    """What forbids an entry by the newest candle's forecast, whatever its edge."""
    return str(frame["lstm_gate"].iloc[-1]) if len(frame) else NO_DATA


def opened_ms(frame: DataFrame) -> int:
    """When the newest candle opened; 0 without one."""
    return int(frame["date"].iloc[-1].timestamp() * 1000) if len(frame) else 0


class Coming(NamedTuple):
    """What forecasts say of candles that are not there yet.

    Attributes
    ----------
    date_ms : (M,) opens of the candles, rising, from the newest that is there on
    low, high : (M,) prices that bound the interval of each one's close; NaN without a forecast
    """

    date_ms: Ints
    low: Floats
    high: Floats


def coming(frame: DataFrame, horizon: int, step_ms: int) -> Coming:
    """The intervals of the newest candle's close and of the next ones, each from `horizon` before.

    The last is the newest forecast's.

    Examples
    --------
    >>> from pandas import date_range
    >>> dates = date_range("1970-01-01", periods=3, freq="1s", tz="UTC")
    >>> prices = {"lstm_price_low": [1.0, 2.0, 3.0], "lstm_price_high": [4.0, 5.0, 6.0]}
    >>> coming(DataFrame({"date": dates, **prices}), 1, 1_000)
    Coming(date_ms=array([2000, 3000]), low=array([2., 3.]), high=array([5., 6.]))
    """
    if not len(frame) or not {"lstm_price_low", "lstm_price_high"} <= {*frame}:
        return Coming(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    recent = frame.tail(horizon + 1)
    opened_ms = recent["date"].to_numpy(dtype="datetime64[ms]").astype(np.int64)
    due_ms = opened_ms + horizon * step_ms
    low, high = (recent[f"lstm_price_{end}"].to_numpy(np.float64) for end in ("low", "high"))
    shown = due_ms >= opened_ms[-1]
    return Coming(due_ms[shown], low[shown], high[shown])


def outline(low: Floats, high: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """The way around a band (N,): numbers of its candles, and whether it goes along `high` there.

    There along `low` and back along `high`. Where candles without a band part it, -1 does so, too.

    Examples
    --------
    >>> edge = np.array([1.0, 1.0, np.nan, 1.0])
    >>> outline(edge, edge)[0]
    array([ 0,  1,  1,  0, -1,  3,  3, -1])
    """
    known = np.isfinite(low) & np.isfinite(high)
    turns = np.flatnonzero(np.diff(known, prepend=False, append=False)).reshape(-1, 2)
    parts: list[Ints] = []
    for start, stop in turns.tolist():
        there = np.arange(start, stop)
        parts += [there, there[::-1], np.array([-1])]
    back = [np.full(len(part), number % 3 == 1) for number, part in enumerate(parts)]
    nothing, nowhere = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return np.concatenate([nothing, *parts]), np.concatenate([nowhere, *back])


def log_returns(frames: Mapping[str, DataFrame], count: int) -> dict[str, Floats]:
    """Log returns (T,) of the newest `count` candles of several pairs, all on the same candles.

    NaN where a pair lacks one; a pair without any candle is left out. T < the candles that any of
    the pairs has.

    Examples
    --------
    >>> from pandas import date_range
    >>> dates = date_range("2026-01-01", periods=3, freq="5min", tz="UTC")
    >>> frame = DataFrame({"date": dates, "lstm_close": [1.0, 1.0, 1.0]})
    >>> log_returns({"A/USDT": frame, "B/USDT": frame[:2], "C/USDT": DataFrame()}, 3)
    {'A/USDT': array([0., 0.]), 'B/USDT': array([ 0., nan])}
    """
    known = {pair: frame for pair, frame in frames.items() if "lstm_close" in frame}
    tails = {pair: frame.tail(count) for pair, frame in known.items() if len(frame)}
    opened = {pair: tail["date"].astype("int64").to_numpy() for pair, tail in tails.items()}
    every = np.unique(np.concatenate([*opened.values(), np.zeros(0, np.int64)]))
    returns = {}
    for pair, tail in tails.items():
        closes = np.full(len(every), np.nan)
        closes[np.searchsorted(every, opened[pair])] = tail["lstm_close"].to_numpy()
        returns[pair] = np.diff(np.log(closes))
    return returns


def forecast_facts(frame: DataFrame, settings: Settings) -> dict[str, Any]:
    """The newest candle's forecast as JSON: custom data of a trade; empty without a forecast."""
    mean, low, high = (
        round(1e4 * newest(frame, f"lstm_{name}"), 1) for name in ("mean", "low", "high")
    )
    if not math.isfinite(mean + low + high):
        return {}
    level = round(settings.levels[-1] - settings.levels[0], 6)
    return {
        "lstm_model": str(frame["lstm_version"].iloc[-1]),
        "lstm_forecast": {
            "mean_bps": mean,
            "horizon_candles": settings.horizon,
            "candle": frame["date"].iloc[-1].isoformat(),
        },
        "lstm_interval": {"low_bps": low, "high_bps": high, "level": level},
    }
