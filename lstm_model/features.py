"""What the network sees of a candle: 16 causal, scale-free numbers. `FEATURES` is their one source.

Every feature is an exact function of a bounded number of past candles, so a row has the same bits
whether it is computed live, in a backtest or from a file that begins elsewhere. That rules out
recursive averages, running sums and TA-Lib's functions built on them (RSI, ATR, SMA, STDDEV,
LINEARREG); TA-Lib's functions of extremes (BOP, WILLR, AROONOSC) are exact and used.

Shapes: T candles, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import MissingPackageError
from lstm_model.market import Candles, Floats

try:
    import talib
except ImportError as missing:  # pragma: no cover - depends on the installation
    raise MissingPackageError(
        f'TA-Lib cannot be imported ({missing}); run: pip install "ta-lib>=0.6.8"'
    ) from None

VOLATILITY_HALFLIFE = 36  # chosen: 3 hours of 5m candles
_FAST_HALFLIFE = 8  # chosen: reacts within the lookback
_CLIP = 10.0  # chosen: one wild candle must not set the scale of a feature
_DAY_MS = 86_400_000


def lagged(values: Floats, lag: int) -> Floats:
    """`values` moved `lag` rows later; the first rows, which nothing precedes, are NaN."""
    moved = np.full_like(values, np.nan)
    moved[lag:] = values[: len(values) - lag] if lag < len(values) else []
    return moved


def window_sum(values: Floats, window: int) -> Floats:
    """(T,) sum over the last `window` rows, NaN until there are so many.

    Built by doubling (2, 4, 8 ... rows), always in the same order: no running sum that would
    remember where the series began.

    Examples
    --------
    >>> window_sum(np.array([1.0, 2.0, 3.0, 4.0]), 3)
    array([nan, nan,  6.,  9.])
    """
    total, block, size, offset = np.zeros_like(values), values, 1, 0
    while True:
        if window & size:
            total = total + lagged(block, offset)
            offset += size
        if 2 * size > window:
            return total
        block = block + lagged(block, size)
        size *= 2


def ewma_window(halflife: int) -> int:
    """Rows an `ewma` looks back on: the power of two that holds seven half-lives."""
    return 1 << (7 * halflife - 1).bit_length()


def ewma(values: Floats, halflife: int) -> Floats:
    """(T,) exponentially weighted mean, cut off after `ewma_window(halflife)` rows.

    The cut leaves out less than 0.8 % of the weight; the rest is renormalized.

    Examples
    --------
    >>> ewma(np.ones(64), 2)[-1]
    np.float64(1.0)
    """
    decay, size = 0.5 ** (1.0 / halflife), 1
    while size < ewma_window(halflife):
        values = values + decay**size * lagged(values, size)
        size *= 2
    return np.asarray(values * ((1.0 - decay) / (1.0 - decay**size)))


class Ingredients:
    """What several features share, computed once per call."""

    def __init__(self, candles: Candles) -> None:
        self.candles = candles

    @cached_property
    def log_close(self) -> Floats:
        return np.log(self.candles.close)

    @cached_property
    def log_return(self) -> Floats:
        return self.log_close - lagged(self.log_close, 1)

    @cached_property
    def volatility(self) -> Floats:
        """(T,) EWMA standard deviation of one candle's log return; NaN where nothing moved."""
        return self._volatility(VOLATILITY_HALFLIFE)

    @cached_property
    def fast_volatility(self) -> Floats:
        return self._volatility(_FAST_HALFLIFE)

    def _volatility(self, halflife: int) -> Floats:
        variance = ewma(self.log_return**2, halflife)
        return np.sqrt(np.where(variance > 0.0, variance, np.nan))

    def log_ratio(self, top: Floats, bottom: Floats) -> Floats:
        """(T,) log(top / bottom) in units of volatility."""
        return np.log(top / bottom) / self.volatility


class Feature(NamedTuple):
    """One column of the network's input."""

    name: str
    warm_up: int  # candles before its own that it looks back on
    unit: str
    compute: Callable[[Ingredients], Floats]


def _past_return(candles: int) -> Feature:
    def compute(of: Ingredients) -> Floats:
        move = of.log_close - lagged(of.log_close, candles)
        return np.asarray(move / (of.volatility * np.sqrt(candles)))

    return Feature(f"return_{candles}", _warm_up(candles), "volatility", compute)


def _warm_up(own: int) -> int:
    return max(own, ewma_window(VOLATILITY_HALFLIFE))


def _body(of: Ingredients) -> Floats:
    candles = of.candles
    return np.asarray(talib.BOP(candles.open, candles.high, candles.low, candles.close))


def _range(of: Ingredients) -> Floats:
    return of.log_ratio(of.candles.high, of.candles.low)


def _upper_shadow(of: Ingredients) -> Floats:
    return of.log_ratio(of.candles.high, np.maximum(of.candles.open, of.candles.close))


def _lower_shadow(of: Ingredients) -> Floats:
    return of.log_ratio(np.minimum(of.candles.open, of.candles.close), of.candles.low)


def _channel(of: Ingredients) -> Floats:
    candles = of.candles
    return np.asarray(talib.WILLR(candles.high, candles.low, candles.close, 20) / 50.0 + 1.0)


def _trend(of: Ingredients) -> Floats:
    return np.asarray(talib.AROONOSC(of.candles.high, of.candles.low, 25) / 100.0)


def _momentum(of: Ingredients) -> Floats:
    return window_sum(of.log_return, 14) / window_sum(np.abs(of.log_return), 14)


def _relative_volume(of: Ingredients) -> Floats:
    return np.log1p(of.candles.volume / (window_sum(of.candles.volume, 48) / 48.0))


def _signed_volume(of: Ingredients) -> Floats:
    volume = of.candles.volume
    return window_sum(np.sign(of.log_return) * volume, 12) / window_sum(volume, 12)


def _volatility_ratio(of: Ingredients) -> Floats:
    return np.log(of.fast_volatility / of.volatility)


def _day_phase(of: Ingredients) -> Floats:
    return np.asarray((of.candles.date_ms % _DAY_MS) * (2.0 * np.pi / _DAY_MS))


FEATURES: tuple[Feature, ...] = (
    _past_return(1),
    _past_return(3),
    _past_return(12),
    _past_return(48),
    Feature("body", 0, "fraction of the range", _body),
    Feature("range", _warm_up(0), "volatility", _range),
    Feature("upper_shadow", _warm_up(0), "volatility", _upper_shadow),
    Feature("lower_shadow", _warm_up(0), "volatility", _lower_shadow),
    Feature("channel_20", 19, "fraction of the channel, -1 to 1", _channel),
    Feature("trend_25", 25, "fraction, -1 to 1 (Aroon)", _trend),
    Feature("momentum_14", 14, "fraction, -1 to 1 (Chande)", _momentum),
    Feature("volume_48", 47, "log(1 + multiple of the mean)", _relative_volume),
    Feature("signed_volume_12", 12, "fraction, -1 to 1", _signed_volume),
    Feature("volatility_ratio", _warm_up(0), "log ratio, fast to slow", _volatility_ratio),
    Feature("day_sin", 0, "sine of the time of day", lambda of: np.sin(_day_phase(of))),
    Feature("day_cos", 0, "cosine of the time of day", lambda of: np.cos(_day_phase(of))),
)  # fmt: skip
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
WARM_UP = max(feature.warm_up for feature in FEATURES)


@dataclass(frozen=True)
class FeatureRows:
    """Features of T candles and the volatility that scales their targets.

    Attributes
    ----------
    rows : (T, F) float64; a row is all NaN where any feature is unknown
    volatility : (T,) float64, standard deviation of one candle's log return
    """

    rows: Floats
    volatility: Floats

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(T,) bool: the row can be used."""
        return np.isfinite(self.rows[:, 0])


def compute_features(candles: Candles) -> FeatureRows:
    """Features of every candle; row t looks at candles up to t and no further.

    `candles` must be on a complete grid (`Candles.on_grid`): holes are NaN rows, and a row is
    unknown while a NaN lies among the `WARM_UP` candles before it.
    """
    of = Ingredients(candles)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [feature.compute(of) for feature in FEATURES]
        volatility = of.volatility
    rows = np.clip(np.stack(columns, axis=1), -_CLIP, _CLIP)
    rows[~(np.isfinite(rows).all(axis=1) & _settled(candles))] = np.nan
    return FeatureRows(rows, volatility)


def _settled(candles: Candles) -> NDArray[np.bool_]:
    """(T,) bool: no NaN or impossible price among this one and the `WARM_UP` before it."""
    prices = np.stack([candles.open, candles.high, candles.low, candles.close])
    broken = ~((prices > 0.0) & (prices < np.inf)).all(axis=0) | ~np.isfinite(candles.volume)
    seen = np.concatenate([np.ones(WARM_UP + 1, dtype=np.int64), broken]).cumsum()
    return np.asarray(seen[WARM_UP + 1 :] == seen[: -WARM_UP - 1])
