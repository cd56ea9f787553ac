"""An invented market with known properties: one to learn from and one nothing can be learned from.

`synthetic`: volatility clusters (two log-autoregressive speeds times a mild daily cycle), minutes
have fat tails (a Student mixture), trades bounce between bid and ask, and a latent order flow,
persistent over minutes, decides both the taker sides and a part of the price's drift. So recent
returns, volume and, best, the taker sides forecast the next minutes.
`random-walk`: the same volatility, but the mid is a martingale, trades happen at the mid
and the sides are coin flips.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lstm_model.errors import ConfigError
from lstm_model.market.candles import Floats, Ints
from lstm_model.practice.tape_market import (
    DAY_MS,
    FUTURE_DAYS,
    Bools,
    Instrument,
    Listing,
    Market,
    Trades,
    make_market,
    wall_clock_ms,
)

MINUTE_MS = 60_000

# Chosen, all of them; the statistical tests hold what they were chosen for.
FLOW_HALF_LIFE = 15.0  # minutes
FLOW_SHARE = 0.045  # share of a minute's return variance that is flow
REVERSION_HALF_LIFE = 5 * 1440.0  # minutes; keeps prices near their level over months
TAIL_DEGREES = 5.0  # of the Student mixture of a minute's returns
COMMON_SHARE = 0.3  # share of the noise variance that all pairs have in common


@dataclass(frozen=True)
class Character:
    """One invented pair; `volatility` is the log return's per minute, `pace` trades per minute."""

    instrument: Instrument
    price: float
    volatility: float
    pace: float
    notional: float


CHARACTERS = (
    Character(Instrument("BTC", "USDT", 2, 5, 2.0e-4), 64_000.0, 18e-4, 16.0, 2_400.0),
    Character(Instrument("ETH", "USDT", 2, 4, 2.5e-4), 3_100.0, 21e-4, 14.0, 1_600.0),
    Character(Instrument("SOL", "USDT", 2, 3, 3.0e-4), 150.0, 26e-4, 11.0, 900.0),
    Character(Instrument("XRP", "USDT", 4, 1, 4.0e-4), 2.2, 24e-4, 10.0, 700.0),
)


@dataclass(frozen=True)
class _Minutes:
    """The latent state per minute, (M,) float64 each."""

    volatility: Floats
    flow: Floats


def synthetic_market(
    seed: int = 1,
    days: int = 30,
    *,
    start_ms: int | None = None,
    learnable: bool = True,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> Market:
    """Invent trades of four pairs for `days` before today's midnight (UTC) and the days to come.

    Parameters
    ----------
    start_ms : first moment of the market; another moment is another market. None: `days` before
        today's midnight, and the same prices on whatever day it is asked for. The result depends
        on `seed`, `days`, this start and `learnable` alone.
    learnable : False gives the random walk.

    Raises
    ------
    ConfigError
        If `days` is not in 1..730 or `seed` is negative.
    """
    if not 1 <= days <= 730 or seed < 0:
        raise ConfigError(f"days must be 1..730 and seed at least 0, found {days} and {seed}")
    moment = () if start_ms is None else (start_ms,)
    if start_ms is None:
        start_ms = (now_ms() // DAY_MS - days) * DAY_MS
    minutes = (days + FUTURE_DAYS) * 1440
    common = _common_noise(np.random.default_rng((seed, 0, *moment)), minutes)
    listings = [
        _invent(
            character, np.random.default_rng((seed, index, *moment)), common, start_ms, learnable
        )
        for index, character in enumerate(CHARACTERS, start=1)
    ]
    return make_market(listings, now_ms)


def _common_noise(rng: np.random.Generator, minutes: int) -> Floats:
    """(S,) one Brownian path, a point per second, unit variance per minute."""
    return np.cumsum(rng.standard_normal(minutes * 60 + 1)) / math.sqrt(60.0)


def _invent(
    character: Character,
    rng: np.random.Generator,
    common: Floats,
    start_ms: int,
    learnable: bool,
) -> Listing:
    minutes = _latent(character, rng, (len(common) - 1) // 60)
    offset_ms = _trade_times(character, rng, minutes)
    minute = offset_ms // MINUTE_MS
    flow = minutes.flow[minute]
    taker_buy = rng.random(len(minute)) < 0.5 * (1.0 + np.tanh(0.6 * flow) * learnable)
    log_mid = _log_mid(character, rng, minutes, common, offset_ms, learnable)
    trades = Trades(
        time_ms=start_ms + offset_ms,
        price=_to_ticks(character.instrument, log_mid, taker_buy, learnable),
        amount=_amounts(character, rng, len(minute)),
        taker_buy=taker_buy,
        first_id=1_000_000,
    )
    return Listing(character.instrument, trades)


def _latent(character: Character, rng: np.random.Generator, minutes: int) -> _Minutes:
    slow = _autoregression(rng, minutes, half_life=720.0)
    fast = _autoregression(rng, minutes, half_life=45.0)
    cycle = 1.0 + 0.2 * np.sin(2.0 * np.pi * (np.arange(minutes) / 1440.0 - 0.35))
    level = np.exp(0.30 * slow + 0.20 * fast) * cycle
    # A Student variable is a normal one over the root of a chi-square: fat tails by the minute.
    tails = np.sqrt((TAIL_DEGREES - 2.0) / rng.chisquare(TAIL_DEGREES, minutes))
    flow = _autoregression(rng, minutes, half_life=FLOW_HALF_LIFE)
    return _Minutes(character.volatility * level * np.minimum(tails, 5.0), flow)


def _autoregression(rng: np.random.Generator, count: int, half_life: float) -> Floats:
    """(count,) stationary first-order autoregression with unit variance."""
    keep = 0.5 ** (1.0 / half_life)
    shocks = rng.standard_normal(count)
    shocks[1:] *= math.sqrt(1.0 - keep * keep)
    return _discounted_sum(shocks, keep)


def _discounted_sum(steps: Floats, keep: float) -> Floats:
    path = itertools.accumulate(steps.tolist(), lambda level, step: keep * level + step)
    return np.fromiter(path, np.float64, len(steps))


def _trade_times(character: Character, rng: np.random.Generator, minutes: _Minutes) -> Ints:
    """(N,) int64, milliseconds since the start: busier when volatile and when flow is one-sided."""
    busy = np.sqrt(np.minimum(minutes.volatility / character.volatility, 4.0))
    counts = rng.poisson(character.pace * busy * (0.65 + 0.45 * np.abs(minutes.flow)))
    offset_ms = np.repeat(np.arange(len(counts)) * MINUTE_MS, counts)
    offset_ms += rng.integers(0, MINUTE_MS, len(offset_ms))
    offset_ms.sort()
    return offset_ms


def _log_mid(
    character: Character,
    rng: np.random.Generator,
    minutes: _Minutes,
    common: Floats,
    offset_ms: Ints,
    learnable: bool,
) -> Floats:
    """(N,) log of the mid at every trade."""
    minute = offset_ms // MINUTE_MS
    elapsed = np.diff(offset_ms, prepend=0) / MINUTE_MS
    shared = np.diff(common[offset_ms // 1000], prepend=0.0) * math.sqrt(COMMON_SHARE)
    own = rng.standard_normal(len(minute)) * np.sqrt((1.0 - COMMON_SHARE) * elapsed)
    if not learnable:
        steps = minutes.volatility[minute] * (shared + own)
        return np.cumsum(steps) + math.log(character.price)
    # The drift is scaled by the plain volatility: a fat-tailed minute is news, not flow.
    drift = math.sqrt(FLOW_SHARE) * character.volatility * minutes.flow[minute] * elapsed
    noise = math.sqrt(1.0 - FLOW_SHARE) * minutes.volatility[minute] * (shared + own)
    keep = 0.5 ** (1.0 / (REVERSION_HALF_LIFE * character.pace))
    return _discounted_sum(drift + noise, keep) + math.log(character.price)


def _to_ticks(instrument: Instrument, log_mid: Floats, taker_buy: Bools, bouncing: bool) -> Ints:
    half_spread = 0.5 * instrument.spread_fraction * bouncing
    price = np.exp(log_mid + np.where(taker_buy, half_spread, -half_spread))
    ticks = np.rint(price * 10.0**instrument.price_decimals).astype(np.int64)
    return np.maximum(ticks, 1)


def _amounts(character: Character, rng: np.random.Generator, count: int) -> Ints:
    mean_lots = character.notional / character.price * 10.0**character.instrument.amount_decimals
    lots = mean_lots * np.exp(rng.normal(-0.5, 1.0, count))
    return np.maximum(np.rint(lots).astype(np.int64), 1)
