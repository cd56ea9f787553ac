"""What a strategy reads from a pair's analyzed dataframe: the newest candle, returns, facts.

Any of it may be missing (no candle yet, no forecast, no such column); then the answer is NaN or
empty, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pandas import DataFrame

from lstm_model.market.candles import Floats
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
