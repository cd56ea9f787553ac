"""What the network sees of a candle: causal, scale-free numbers. `FEATURES` is their one source.

19 of them come from the candles; six more, on request, from the order flow (`FLOW_FEATURES`).

Every feature is an exact function of a bounded number of past candles, so a row has the same bits
whether it is computed live, in a backtest or from a file that begins elsewhere. That rules out
recursive averages, running sums and TA-Lib's functions built on them (RSI, ATR, SMA, STDDEV,
LINEARREG); TA-Lib's functions of extremes (BOP, WILLR, AROONOSC) are exact and used.

Shapes: T candles, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import unwrap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import MissingPackageError
from lstm_model.market.candles import Candles, Floats, Records, unknown_flow

try:
    import talib
except ImportError as missing:  # pragma: no cover - depends on the installation
    raise MissingPackageError(
        f'TA-Lib cannot be imported ({missing}); run: pip install "ta-lib>=0.6.8"'
    ) from None

# Without the wrappers that look for pandas, which take longer than TA-Lib does for one row.
_BOP, _WILLR, _AROONOSC = (unwrap(f) for f in (talib.BOP, talib.WILLR, talib.AROONOSC))

VOLATILITY_HALFLIFE = 36  # chosen: 3 hours of 5m candles
FAST_HALFLIFE = 8  # chosen: reacts within the lookback
ENOUGH_COVERAGE = 0.95  # chosen: below, the missing trades may tell another story
CLIP = 10.0  # chosen: one wild candle must not set the scale of a feature
_LONG = 240  # chosen: candles of the slow volatility; the warm-up holds them anyway
_DAY_MS = 86_400_000


def lagged(values: Floats, lag: int) -> Floats:
    """`values` moved `lag` rows later; the first rows, which nothing precedes, are NaN."""
    moved = np.empty_like(values)
    moved[:lag] = np.nan
    moved[lag:] = values[: max(0, len(values) - lag)]
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
    """What several features share, computed once per call, for all candles or for the newest.

    A feature asks `now`, `ago`, `total` and `mean` for what it needs of a series. Here they answer
    with columns (T,); `OpenRow` answers with the newest row's number alone.
    """

    def __init__(self, candles: Candles) -> None:
        self.candles = candles

    def last(self, count: int) -> Candles:
        """Candles with at least so many behind each that is asked for, for TA-Lib."""
        return self.candles

    def now(self, series: NDArray[Any]) -> Any:
        """The series itself."""
        return series

    def newest(self, series: Floats, window: int) -> Floats:
        """All of the series that is needed to say something of so many rows."""
        return series

    def ago(self, series: Floats, candles: int) -> Any:
        """The series as it was so many candles before."""
        return lagged(series, candles)

    def total(self, series: Floats, window: int) -> Any:
        """Sum over the last `window` candles."""
        return window_sum(series, window)

    def mean(self, series: Floats, halflife: int) -> Any:
        """Exponentially weighted mean."""
        return ewma(series, halflife)

    @cached_property
    def log_close(self) -> Floats:
        return np.log(self.candles.close)

    @cached_property
    def log_return(self) -> Floats:
        return self.log_close - lagged(self.log_close, 1)

    @cached_property
    def squared_return(self) -> Floats:
        return self.log_return**2

    @cached_property
    def volatility(self) -> Any:
        """(T,) EWMA standard deviation of one candle's log return; NaN where nothing moved."""
        return self._volatility(VOLATILITY_HALFLIFE)

    @cached_property
    def fast_volatility(self) -> Any:
        return self._volatility(FAST_HALFLIFE)

    def _volatility(self, halflife: int) -> Any:
        variance = self.mean(self.squared_return, halflife)
        return np.sqrt(np.where(variance > 0.0, variance, np.nan))

    @cached_property
    def flow(self) -> Records:
        flow = self.candles.flow
        return unknown_flow(self.candles.date_ms) if flow is None else flow

    @cached_property
    def coverage(self) -> Floats:
        return np.asarray(np.nan_to_num(self.flow["coverage"]))

    @cached_property
    def covered(self) -> Floats:
        """(T,) one where order flow is known well enough to be used, else zero."""
        known = (self.coverage >= ENOUGH_COVERAGE) & (self.flow["volume"] > 0.0)
        return known.astype(np.float64)

    def of_flow(self, name: str) -> Floats:
        """(T,) a column of the order flow, zero where masked."""
        return np.where(self.covered > 0.0, self.flow[name], 0.0)

    @cached_property
    def traded(self) -> Floats:
        return self.of_flow("volume")

    @cached_property
    def net_bought(self) -> Floats:
        """(T,) what takers bought less what they sold."""
        return 2.0 * self.of_flow("taker_base") - self.traded

    def log_ratio(self, top: Floats, bottom: Floats) -> Any:
        """(T,) log(top / bottom) in units of volatility."""
        return np.log(self.now(top) / self.now(bottom)) / self.volatility


class Feature(NamedTuple):
    """One column of the network's input."""

    name: str
    warm_up: int  # candles before its own that it looks back on
    unit: str
    compute: Callable[[Ingredients], Any]
    of_time: bool = False  # a function of the candle's date alone


def _past_return(candles: int) -> Feature:
    spread = math.sqrt(candles)

    def compute(of: Ingredients) -> Any:
        move = of.now(of.log_close) - of.ago(of.log_close, candles)
        return move / (of.volatility * spread)

    return Feature(f"return_{candles}", _warm_up(candles), "volatility", compute)


def _warm_up(own: int) -> int:
    return max(own, ewma_window(VOLATILITY_HALFLIFE))


def _body(of: Ingredients) -> Any:
    candles = of.last(1)
    return of.now(_BOP(candles.open, candles.high, candles.low, candles.close))


def _range(of: Ingredients) -> Any:
    return of.log_ratio(of.candles.high, of.candles.low)


def _upper_shadow(of: Ingredients) -> Any:
    return of.log_ratio(of.candles.high, np.maximum(of.candles.open, of.candles.close))


def _lower_shadow(of: Ingredients) -> Any:
    return of.log_ratio(np.minimum(of.candles.open, of.candles.close), of.candles.low)


def _channel(of: Ingredients) -> Any:
    candles = of.last(20)
    return of.now(_WILLR(candles.high, candles.low, candles.close, 20)) / 50.0 + 1.0


def _trend(of: Ingredients) -> Any:
    candles = of.last(26)
    return of.now(_AROONOSC(candles.high, candles.low, 25)) / 100.0


def _momentum(of: Ingredients) -> Any:
    moves = of.newest(of.log_return, 14)
    return of.total(moves, 14) / of.total(np.abs(moves), 14)


def _relative_volume(of: Ingredients) -> Any:
    volume = of.candles.volume
    return np.log1p(of.now(volume) / (of.total(volume, 48) / 48.0))


def _signed_volume(of: Ingredients) -> Any:
    moves, volume = of.newest(of.log_return, 12), of.newest(of.candles.volume, 12)
    return of.total(np.sign(moves) * volume, 12) / of.total(volume, 12)


def _volatility_ratio(of: Ingredients) -> Any:
    return np.log(of.fast_volatility / of.volatility)


def _volatility_trend(of: Ingredients) -> Any:
    slow = of.total(of.squared_return, _LONG) / _LONG
    return np.log(of.volatility) - 0.5 * np.log(slow)


def _season(name: str, wave: Callable[[Any], Any], period_ms: int, unit: str) -> Feature:
    """Where the candle stands in a day: traders sleep. (In a week: a history shorter than a few
    weeks would learn the weekday as a trend.)"""

    def compute(of: Ingredients) -> Any:
        return wave(of.now(of.candles.date_ms) % period_ms * (2.0 * np.pi / period_ms))

    return Feature(name, 0, unit, compute, of_time=True)


def _share(top: Any, bottom: Any) -> Any:
    """`top / bottom`, zero where there is nothing to divide by."""
    return np.where(bottom > 0.0, top / np.where(bottom > 0.0, bottom, 1.0), 0.0)


def _imbalance(of: Ingredients) -> Any:
    return _share(of.now(of.net_bought), of.now(of.traded))


def _imbalance_12(of: Ingredients) -> Any:
    return _share(of.total(of.net_bought, 12), of.total(of.traded, 12))


def _imbalance_decay(of: Ingredients) -> Any:
    return _share(of.mean(of.net_bought, FAST_HALFLIFE), of.mean(of.traded, FAST_HALFLIFE))


def _trade_intensity(of: Ingredients) -> Any:
    trades = of.of_flow("trades")
    usual = _share(of.total(trades, 48), of.total(of.covered, 48))
    return of.now(of.covered) * np.log((of.now(trades) + 1.0) / (usual + 1.0))


def _vwap_deviation(of: Ingredients) -> Any:
    vwap = _share(of.now(of.of_flow("quote_volume")), of.now(of.traded))
    close = of.now(of.candles.close)
    return np.log(close / np.where(vwap > 0.0, vwap, close)) / of.volatility


def _coverage(of: Ingredients) -> Any:
    return of.now(of.coverage)


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
    Feature("volatility_trend", _warm_up(_LONG), "log ratio, usual to slow", _volatility_trend),
    _season("day_sin", np.sin, _DAY_MS, "sine of the time of day"),
    _season("day_cos", np.cos, _DAY_MS, "cosine of the time of day"),
    _season("half_day_sin", np.sin, _DAY_MS // 2, "sine of the time of half a day"),
    _season("half_day_cos", np.cos, _DAY_MS // 2, "cosine of the time of half a day"),
)  # fmt: skip
# With `order_flow`; zero where coverage is too low to know.
FLOW_FEATURES: tuple[Feature, ...] = (
    Feature("imbalance", 0, "fraction, -1 to 1", _imbalance),
    Feature("imbalance_12", 11, "fraction, -1 to 1", _imbalance_12),
    Feature(
        "imbalance_decay", ewma_window(FAST_HALFLIFE) - 1, "fraction, -1 to 1", _imbalance_decay
    ),
    Feature("trade_intensity", 47, "log of the multiple of the mean", _trade_intensity),
    Feature("vwap_deviation", _warm_up(0), "volatility", _vwap_deviation),
    Feature("flow_coverage", 0, "fraction of the candle's trades", _coverage),
)
WARM_UP = max(feature.warm_up for feature in FEATURES + FLOW_FEATURES)


def feature_set(order_flow: bool) -> tuple[Feature, ...]:
    """What the network sees, in the order of its inputs."""
    return FEATURES + FLOW_FEATURES if order_flow else FEATURES


def feature_names(order_flow: bool) -> tuple[str, ...]:
    """Names of `feature_set`.

    Examples
    --------
    >>> len(feature_names(False)), feature_names(True)[-1]
    (19, 'flow_coverage')
    """
    return tuple(feature.name for feature in feature_set(order_flow))


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


def compute_features(candles: Candles, *, order_flow: bool = False) -> FeatureRows:
    """Features of every candle; row t looks at candles up to t and no further.

    `candles` must be on a complete grid (`Candles.on_grid`): holes are NaN rows, and a row is
    unknown while a NaN lies among the `WARM_UP` candles before it. Unknown order flow is no NaN:
    its features are zero, as is `flow_coverage`.
    """
    of = Ingredients(candles)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [feature.compute(of) for feature in feature_set(order_flow)]
        volatility = of.volatility
    rows = np.clip(np.stack(columns, axis=1), -CLIP, CLIP)
    rows[~(np.isfinite(rows).all(axis=1) & _settled(candles))] = np.nan
    return FeatureRows(rows, volatility)


def _settled(candles: Candles) -> NDArray[np.bool_]:
    """(T,) bool: no NaN or impossible price among this one and the `WARM_UP` before it."""
    prices = np.stack([candles.open, candles.high, candles.low, candles.close])
    broken = ~((prices > 0.0) & (prices < np.inf)).all(axis=0) | ~np.isfinite(candles.volume)
    seen = np.concatenate([np.ones(WARM_UP + 1, dtype=np.int64), broken]).cumsum()
    return np.asarray(seen[WARM_UP + 1 :] == seen[: -WARM_UP - 1])
