"""Builders that several tests share: synthetic candles, and where recorded ones may lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from places import SHARED

from lstm_model.features.context import Contexts
from lstm_model.market.candles import Candles, unknown_flow

STEP_MS = 300_000
START_MS = 1_699_920_000_000  # a midnight


def make_candles(
    count: int = 600, *, pair: str = "BTC/USDT", seed: int = 0, signal: float = 0.0,
    bounce: float = 0.0, tick: float = 0.0, start_ms: int = START_MS,
) -> Candles:  # fmt: skip
    """Candles of a random walk with changing volatility.

    Parameters
    ----------
    signal : share of a candle's deviation that the slow part of the volume before foretells
    bounce : half the bid-ask spread; closes jump between bid and ask at random
    tick : prices are multiples of it, so that there are ties
    """
    random = np.random.default_rng(seed)
    deviation = 0.001 * np.exp(0.4 * np.sin(np.arange(count) / 90.0))
    mood = slow_noise(random, count, 0.9)
    drift = signal * np.concatenate([[0.0], mood[:-1]])
    middle = 100.0 * np.exp(np.cumsum(deviation * (drift + random.standard_t(5, count))))
    close = middle * (1.0 + bounce * random.choice([-1.0, 1.0], count))
    open_ = np.concatenate([[100.0], close[:-1]])
    reach = deviation * np.abs(random.normal(size=(2, count)))
    high, low = np.maximum(open_, close) * (1 + reach[0]), np.minimum(open_, close) * (1 - reach[1])
    prices = [np.round(x / tick) * tick if tick else x for x in (open_, high, low, close)]
    volume = 10.0 * np.exp(mood + 0.1 * random.normal(size=count))
    return Candles(pair, STEP_MS, start_ms + STEP_MS * np.arange(count), *prices, volume)


def with_flow(candles: Candles, *, seed: int = 0, holes: float = 0.1) -> Candles:
    """The candles with an invented order flow, a share `holes` of it partly or wholly unknown."""
    random = np.random.default_rng((seed, 1))
    count = len(candles)
    flow = unknown_flow(candles.date_ms)
    bought = random.beta(4, 4, count)
    flow["trades"] = np.rint(40.0 * random.gamma(2.0, 1.0, count) + 1.0)
    flow["volume"], flow["taker_base"] = candles.volume, bought * candles.volume
    vwap = candles.low + random.random(count) * (candles.high - candles.low)
    flow["quote_volume"] = vwap * candles.volume
    flow["taker_quote"] = bought * flow["quote_volume"]
    flow["coverage"] = np.where(random.random(count) < holes, random.random(count), 1.0)
    flow[random.random(count) < holes / 2] = unknown_flow(np.zeros(1, np.int64))[0]
    flow["date_ms"] = candles.date_ms
    return candles.with_flow(flow)


def with_context(
    candles: Candles, leader: Candles | None = None, *, days: int = 70, seed: int = 5
) -> Candles:
    """The candles with what they are seen in: so many invented days before, and a leader.

    Parameters
    ----------
    leader : that of all; None: an invented one, whose candles begin before these
    """
    step_ms, first_ms = candles.step_ms, int(candles.date_ms[0])
    before = days * 86_400_000 // step_ms
    past = make_candles(before, pair=candles.pair, seed=seed, start_ms=first_ms - before * STEP_MS)
    dates = first_ms + step_ms * np.arange(-before, 0)
    known = replace(past, step_ms=step_ms, date_ms=dates).then(candles)
    if leader is None:
        count = len(candles) + 500
        leader = make_candles(count, pair="LEAD/USDT", seed=seed + 1)
        leader = replace(
            leader, step_ms=step_ms, date_ms=first_ms + step_ms * np.arange(-500, count - 500)
        )
    series = {leader.pair: leader, known.pair: known}
    return candles.with_context(Contexts(leader.pair).of(candles, series.get))


def slow_noise(random: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """(count,) first-order autoregression of variance one."""
    shocks = random.normal(size=count) * np.sqrt(1.0 - memory**2)
    shocks[0] = random.normal()
    out = np.empty(count)
    level = 0.0
    for number, shock in enumerate(shocks):
        level = memory * level + shock
        out[number] = level
    return out


def change(candles: Candles, rows: object, **values: object) -> Candles:
    """The same candles with other numbers in some rows, e.g. `close=np.nan`."""
    columns = {name: getattr(candles, name).copy() for name in values}
    for name, value in values.items():
        columns[name][rows] = value
    return replace(candles, **columns)


def drop(candles: Candles, rows: object) -> Candles:
    """The same candles without some rows."""
    names = ("date_ms", "open", "high", "low", "close", "volume")
    return replace(candles, **{name: np.delete(getattr(candles, name), rows) for name in names})


def to_frame(candles: Candles) -> pd.DataFrame:
    """The candles as freqtrade holds them."""
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame({name: getattr(candles, name) for name in names})
    frame.insert(0, "date", pd.to_datetime(candles.date_ms, unit="ms", utc=True))
    return frame


def recorded_candles(pair: str, timeframe: str) -> Candles:
    """Recorded candles from `../shared/data`; skips the test where they are absent."""
    path = SHARED / "binance" / f"{pair.replace('/', '_')}-{timeframe}.feather"
    if not path.is_file():
        pytest.skip(f"no recorded market data: {path.name} is not in {SHARED}")
    return Candles.from_frame(pd.read_feather(path), pair, timeframe)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal shapes and equal bytes; any NaN equals any NaN."""
    a, b = (np.where(np.isnan(x), np.nan, x) for x in (left, right))
    return a.shape == b.shape and a.tobytes() == b.tobytes()
