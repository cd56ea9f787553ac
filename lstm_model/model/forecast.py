"""A forecast is a type; a score is a function of a forecast and what came true.

Shapes: N forecasts, K quantile levels. Returns are log returns over the horizon;
`error = realized - forecast`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lstm_model.market.candles import Floats, Ints

STAYS_WITHIN = 0.95  # chosen: of the horizons the price stays above `lowest`; `highest` alike
SPANS = (4, 16, 64)  # horizons; chosen: from an hour to days at 5m, from hours to weeks at 1h
FAR_NAMES = tuple(f"{end}_{span}" for end in ("lowest", "highest") for span in SPANS)


def unknown_far(count: int) -> Floats:
    """(N, 2 S) `Forecast.far` of N forecasts, none of it known."""
    return np.full((count, 2 * len(SPANS)), np.nan)


@dataclass(frozen=True)
class Forecast:
    """Distribution of the next return, for N candles.

    Attributes
    ----------
    levels : K quantile levels; one level (0.5) for a point forecast
    quantiles : (N, K) float64, log return over the horizon, rising along K; NaN where none was made
    mean : (N,) float64, log return over the horizon, shrunk by its measured relation to outcomes
    volatility : (N,) float64, EWMA standard deviation of one candle's log return
    mean_error : (N,) float64, standard error of the mean: what it is worth is itself an estimate
    lowest, highest : (N,) float64, log return that the price does not pass within the horizon with
        probability `STAYS_WITHIN`; never above and never below zero
    far : (N, 2 S) float64, the same within longer spans, see `lstm_model.model.reach`; NaN where
        they are not known
    """

    levels: tuple[float, ...]
    quantiles: Floats
    mean: Floats
    volatility: Floats
    mean_error: Floats
    lowest: Floats
    highest: Floats
    far: Floats

    @classmethod
    def nothing(cls, levels: tuple[float, ...], count: int) -> Forecast:
        """No forecast yet for any of `count` candles."""
        unknown = {name: np.full(count, np.nan) for name in _COLUMNS[1:-1]}
        quantiles = np.full((count, len(levels)), np.nan)
        return cls(levels, quantiles, **unknown, far=unknown_far(count))

    def put(self, rows: Ints, made: Forecast) -> None:
        """Write another's forecasts (M,) into the rows (M,) of this one."""
        for name in _COLUMNS:
            getattr(self, name)[rows] = getattr(made, name)

    def row(self, number: int) -> Forecast:
        """One candle's alone."""
        mine = slice(number, number + 1)
        return Forecast(self.levels, *(getattr(self, name)[mine] for name in _COLUMNS))

    def known_far(self, number: int) -> tuple[float | None, ...]:
        """`far` of one candle, as a database has it: None where it is not known."""
        return tuple(None if math.isnan(reach) else reach for reach in self.far[number].tolist())

    @property
    def low(self) -> Floats:
        """(N,) lower end of the widest interval."""
        return np.asarray(self.quantiles[:, 0])

    @property
    def high(self) -> Floats:
        """(N,) upper end of the widest interval."""
        return np.asarray(self.quantiles[:, -1])

    @property
    def width(self) -> Floats:
        """(N,) of the widest interval; NaN where it has no end."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.high - self.low)

    @property
    def interval_level(self) -> float:
        """Nominal coverage of `[low, high]`."""
        return self.levels[-1] - self.levels[0]

    @property
    def deviation(self) -> Floats:
        """(N,) standard deviation of the return, from the interval's width as if it were normal."""
        return deviation_of(self.low, self.high, self.levels)


_COLUMNS = tuple(field.name for field in fields(Forecast) if field.name != "levels")


def deviation_of(low: Floats, high: Floats, levels: tuple[float, ...]) -> Floats:
    """(N,) standard deviation of a normal distribution whose widest interval is [low, high]."""
    return np.asarray((high - low) / (2.0 * normal_quantile(levels[-1])))


def pinball_loss(levels: tuple[float, ...], quantiles: Floats, realized: Floats) -> Floats:
    """(N,) pinball loss averaged over levels (Koenker & Bassett 1978); `realized` (N,)."""
    error = realized[:, None] - quantiles
    return np.asarray(
        np.maximum(np.array(levels) * error, (np.array(levels) - 1.0) * error).mean(1)
    )


def winkler_score(low: Floats, high: Floats, realized: Floats, level: float) -> Floats:
    """(N,) interval score (Winkler 1972; Gneiting & Raftery 2007): width plus scaled misses."""
    below, above = np.maximum(low - realized, 0.0), np.maximum(realized - high, 0.0)
    return np.asarray(high - low + (below + above) * (2.0 / (1.0 - level)))


def coverage(low: Floats, high: Floats, realized: Floats) -> float:
    """Fraction of outcomes inside `[low, high]`."""
    return float(((low <= realized) & (realized <= high)).mean())


def hit_rate(mean: Floats, realized: Floats) -> float:
    """Fraction of moves whose direction was forecast; flat outcomes and forecasts are left out."""
    moved = (realized != 0.0) & (mean != 0.0)
    return (
        float((np.sign(mean) == np.sign(realized))[moved].mean()) if moved.any() else float("nan")
    )


def skill(loss: Floats, reference: Floats) -> float:
    """One minus the ratio of summed losses; with squared errors against zero it is R squared."""
    return float(1.0 - loss.sum() / reference.sum())


class PairedTest(NamedTuple):
    """Is one forecast better than another?"""

    gain: float  # mean of `reference - loss`
    statistic: float
    p_value: float  # one-sided: how likely such a gain is without skill


def paired_test(loss: Floats, reference: Floats, horizon: int) -> PairedTest:
    """Diebold-Mariano test with their variance: all `horizon - 1` lags at full weight.

    Weights that decline (Newey & West 1987) take luck for skill too often here: simulated with
    a horizon of 12 and persistent forecasts, in 8 to 10 % of cases instead of 5.

    Parameters
    ----------
    loss, reference : (N,) float64, oldest first, one per moment in time
    horizon : overlapping forecasts are correlated over so many rows

    References
    ----------
    Diebold & Mariano (1995).

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=500)
    >>> paired_test(noise**2, (noise + 1.0)**2, 1).p_value < 0.001
    True
    """
    gains = reference - loss
    centred = gains - gains.mean()
    count = len(gains)
    variance = float(centred @ centred) / count
    for lag in range(1, min(horizon, count)):
        variance += 2.0 * float(centred[lag:] @ centred[:-lag]) / count
    if variance <= 0.0:
        return PairedTest(float(gains.mean()), 0.0, 1.0)
    statistic = float(gains.mean() / np.sqrt(variance / count))
    return PairedTest(float(gains.mean()), statistic, _normal_tail(statistic))


def _normal_tail(statistic: float) -> float:
    return 0.5 * math.erfc(statistic / math.sqrt(2.0))


def normal_quantile(probability: float) -> float:
    """Of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)
