"""What the network sees of a candle: causal, scale-free numbers. `FEATURES` is their one source.

27 of them come from the newest candles and the clock; 14 more from what a candle is seen in, see
`lstm_model.features.context`: how volatile the days before were, and what the leader did. Six more,
on request, come from the order flow (`FLOW_FEATURES`).

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
from lstm_model.features.ingredients import (
    FAST_HALFLIFE,
    VOLATILITY_HALFLIFE,
    Ingredients,
)
from lstm_model.features.series import ewma_window
from lstm_model.market.candles import LEADING, Candles, Floats

try:
    import talib
except ImportError as missing:  # pragma: no cover - depends on the installation
    raise MissingPackageError(
        f'TA-Lib cannot be imported ({missing}); run: pip install "ta-lib>=0.6.8"'
    ) from None

# Without the wrappers that look for pandas, which take longer than TA-Lib does for one row.
_BOP, _WILLR, _AROONOSC = (unwrap(f) for f in (talib.BOP, talib.WILLR, talib.AROONOSC))

CLIP = 10.0  # chosen: one wild candle must not set the scale of a feature
_LONG = 240  # chosen: candles of the slow volatility; the warm-up holds them anyway
_LEAST_RATIO = 1e-4  # chosen: of variances; candles that stand still say as little as a hundredth
_DAY_MS, _WEEK_MS = 86_400_000, 7 * 86_400_000
_MONDAY_MS = 4 * _DAY_MS  # 1970-01-05


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
    if not len(candles.open):  # TA-Lib 0.6.8 writes before the first of none
        return of.now(candles.open)
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


def _log_deviation(of: Ingredients, variance: Any) -> Any:
    """Log of a standard deviation in units of the usual one."""
    return 0.5 * np.log(np.maximum(variance / of.volatility**2, _LEAST_RATIO))


def _short_volatility(of: Ingredients) -> Any:
    return _log_deviation(of, of.total(of.newest(of.squared_return, 3), 3) / 3.0)


def _jump(of: Ingredients) -> Any:
    return _log_deviation(of, of.now(of.squared_return))


def _garman_klass(candles: int) -> Feature:
    def compute(of: Ingredients) -> Any:
        seen = of.newest(of.garman_klass, candles)
        return _log_deviation(of, of.total(seen, candles) / candles)

    return Feature(f"garman_klass_{candles}", _warm_up(candles), "log ratio to usual", compute)


def _of_days(name: str, variance: str) -> Feature:
    """Of the whole days before (Corsi 2009); zero, as if they were usual, where unknown."""

    def compute(of: Ingredients) -> Any:
        known = of.past(variance)
        return np.where(np.isfinite(known), _log_deviation(of, known), 0.0)

    return Feature(name, _warm_up(1), "log ratio to usual", compute)


def _past_known(of: Ingredients) -> Any:
    return of.past_known()


def _leading(name: str) -> Feature:
    """What the leader did until the same close; as if nothing particular, where unknown."""
    usual = math.log(2.0) if name.startswith("volume") else 0.0

    def compute(of: Ingredients) -> Any:
        return np.where(of.leader_known() > 0.0, of.leading(name), usual)

    return Feature(f"leader_{name}", 0, "as of the leader's own candle", compute)


def _leader_known(of: Ingredients) -> Any:
    return of.leader_known()


def _weekend(of: Ingredients) -> Any:
    since_monday = (of.now(of.candles.date_ms) - _MONDAY_MS) % _WEEK_MS
    return (since_monday >= 5 * _DAY_MS) * 1.0


def _season(name: str, wave: Callable[[Any], Any], period_ms: int, unit: str) -> Feature:
    """Where the candle stands in a day or a week: traders sleep, and have weekends."""

    def compute(of: Ingredients) -> Any:
        since = (of.now(of.candles.date_ms) - _MONDAY_MS) % period_ms
        return wave(since * (2.0 * np.pi / period_ms))

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
    Feature("volatility_3", _warm_up(3), "log ratio to usual", _short_volatility),
    Feature("jump", _warm_up(1), "log ratio to usual", _jump),
    _garman_klass(1),
    _garman_klass(6),
    _garman_klass(36),
    _season("week_sin", np.sin, _WEEK_MS, "sine of the time of the week"),
    _season("week_cos", np.cos, _WEEK_MS, "cosine of the time of the week"),
    Feature("weekend", 0, "one on Saturday and Sunday, UTC", _weekend, of_time=True),
    _of_days("volatility_1d", "variance_1d"),
    _of_days("volatility_7d", "variance_7d"),
    _of_days("volatility_30d", "variance_30d"),
    _of_days("volatility_60d", "variance_60d"),
    _of_days("parkinson_1d", "parkinson_1d"),
    Feature("past_known", 1, "share of the five before that is known", _past_known),
    *map(_leading, LEADING),
    Feature("leader_known", 0, "one where the leader's candle is known", _leader_known),
)
MASKS = ("past_known", "leader_known", "flow_coverage")  # they say what others are known of
OF_THE_WEEK = ("week_sin", "week_cos", "weekend")  # fmt: skip
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


# What goes round, or changes, so slowly, by the days that takes, and how often it has to be seen.
_SLOW = {
    **dict.fromkeys(OF_THE_WEEK, (7, 26)), "volatility_1d": (1, 10), "parkinson_1d": (1, 10),
    "volatility_7d": (7, 10), "volatility_30d": (30, 10), "volatility_60d": (60, 10),
}  # fmt: skip


def too_slow(history_ms: int) -> tuple[str, ...]:
    """Features that a history of this length would teach as a trend.

    Chosen: the week 26 times, the days before ten times over.

    Examples
    --------
    >>> too_slow(100 * 86_400_000)
    ('week_sin', 'week_cos', 'weekend', 'volatility_30d', 'volatility_60d')
    """
    slow = {name: days * times * _DAY_MS for name, (days, times) in _SLOW.items()}
    return tuple(name for name, least_ms in slow.items() if history_ms < least_ms)


def feature_set(order_flow: bool) -> tuple[Feature, ...]:
    """What the network sees, in the order of its inputs."""
    return FEATURES + FLOW_FEATURES if order_flow else FEATURES


def feature_names(order_flow: bool) -> tuple[str, ...]:
    """Names of `feature_set`.

    Examples
    --------
    >>> len(feature_names(False)), feature_names(True)[-1]
    (41, 'flow_coverage')
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

    def after(self, first: int) -> FeatureRows:
        """Those of the candles from number `first` on."""
        return FeatureRows(self.rows[first:], self.volatility[first:])


def compute_features(candles: Candles, *, order_flow: bool = False) -> FeatureRows:
    """Features of every candle; row t looks at candles up to t and no further.

    `candles` must be on a complete grid (`Candles.on_grid`): holes are NaN rows, and a row is
    unknown while a NaN lies among the `WARM_UP` candles before it. Unknown order flow is no NaN:
    its features are zero, as is `flow_coverage`; so it is with what candles are seen in.
    """
    of = Ingredients(candles)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [feature.compute(of) for feature in feature_set(order_flow)]
        volatility = of.volatility
    return FeatureRows(_usable(np.stack(columns, axis=1), candles), volatility)


def leading_columns(candles: Candles) -> Floats:
    """(T, 7) what others may see of the leader's candles, `LEADING`; NaN where unknown."""
    of, chosen = Ingredients(candles), [f for f in FEATURES if f.name in LEADING]
    with np.errstate(divide="ignore", invalid="ignore"):
        return _usable(np.stack([feature.compute(of) for feature in chosen], axis=1), candles)


def _usable(rows: Floats, candles: Candles) -> Floats:
    rows = np.clip(rows, -CLIP, CLIP)
    rows[~(np.isfinite(rows).all(axis=1) & _settled(candles))] = np.nan
    return rows


def _settled(candles: Candles) -> NDArray[np.bool_]:
    """(T,) bool: no NaN or impossible price among this one and the `WARM_UP` before it."""
    prices = np.stack([candles.open, candles.high, candles.low, candles.close])
    broken = ~((prices > 0.0) & (prices < np.inf)).all(axis=0) | ~np.isfinite(candles.volume)
    seen = np.concatenate([np.ones(WARM_UP + 1, dtype=np.int64), broken]).cumsum()
    return np.asarray(seen[WARM_UP + 1 :] == seen[: -WARM_UP - 1])
