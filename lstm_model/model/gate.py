"""Who may forecast: a challenger's record against the champion's, judged after every step.

Shapes: N moments in time, oldest first, on the grid of candles. Losses are pinball losses in
units of volatility; `gain` is the champion's loss less the challenger's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import DataError
from lstm_model.market.candles import Floats, Ints
from lstm_model.model.forecast import paired_test

# Horizons of moments before anyone is judged. Chosen: the bound leans on the central limit
# theorem and on a variance that so many blocks have to give.
_LEAST_SPANS = 30
# The bound is tightest after so many horizons (12 days at 5m with a horizon of 12). Simulated (see
# `contest`, horizon 12): with 100 a challenger that leads by 0.1 deviations is found within four
# weeks in 39 % of series instead of 43 %, one that leads by 0.4 after 2 days instead of 3.
_SHARPEST_SPANS = 300.0
# A variance is taken from no fewer blocks. Simulated (see `contest`, horizon 12) with equals that
# take turns to lead for about 50 and 200 moments: 3.4 and 12.7 % are promoted, 7.2 and 25.5 % with
# the variance of the overlap, as in `forecast.paired_test`. With 50 blocks 3.0 and 14.6 %; with 20
# 3.0 and 11.0 %, but who leads by 0.1 deviations is found in 42 % of series instead of 43 %.
_FEWEST_BLOCKS = _LEAST_SPANS
# Horizons. Longer blocks are few, and the largest of many estimates from few blocks is noise: on
# recorded 1h candles 31 blocks of 128 horizons gave 3.5 times the variance of all the others.
_LONGEST_BLOCK = 32
_LONGEST_MEMORY = 0.9  # chosen: correlation of neighbouring blocks that is believed at most


@dataclass(frozen=True)
class Evidence:
    """Out-of-sample record of one contender: a row per moment, mean over pairs, oldest first.

    Attributes
    ----------
    date_ms : (N,) int64, candle of the forecast, strictly rising
    pinball : (N,) float64, pinball loss, mean over levels and pairs, in units of volatility
    gain : (N,) float64, `realized**2 - error**2` of the mean, mean over pairs
    gain_delayed : (N,) float64, the same for who acts one candle late
    product, power : (N,) float64, `mean * realized` and `mean**2` of the mean before shrinkage,
        means over pairs; what shrinkage is measured by

    Raises
    ------
    DataError
        If the columns differ in length or the moments do not rise.
    """

    date_ms: Ints
    pinball: Floats
    gain: Floats
    gain_delayed: Floats
    product: Floats
    power: Floats

    def __post_init__(self) -> None:
        lengths = [len(column) for column in self.arrays().values()]
        if len(set(lengths)) > 1:
            raise DataError(f"the columns of a record must be equally long, found {lengths}")
        if (np.diff(self.date_ms) <= 0).any():
            raise DataError("the moments of a record must rise, found one twice or out of order")

    @classmethod
    def nothing(cls) -> Self:
        """The record of who has not forecast yet."""
        return cls(np.empty(0, np.int64), *(np.empty(0) for _ in range(len(_COLUMNS) - 1)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `arrays` gave; other arrays beside them are left alone.

        Raises
        ------
        DataError
            If a column is missing, or see `Evidence`.
        """
        missing = [name for name in _COLUMNS if name not in arrays]
        if missing:
            raise DataError(f"a record lacks the column(s) {', '.join(missing)}")
        return cls(*(np.asarray(arrays[name], kind) for name, kind in _COLUMNS.items()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> column, to be saved."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def __len__(self) -> int:
        return len(self.date_ms)

    def then(self, newer: Self) -> Self:
        """This record, continued by the rows of `newer` that are newer than its last."""
        if not len(self):
            return newer
        added = newer.since(int(self.date_ms[-1]) + 1)
        return type(self)(
            *(np.concatenate([getattr(self, name), getattr(added, name)]) for name in _COLUMNS)
        )

    def since(self, start_ms: int) -> Self:
        """Rows of moments at or after `start_ms`."""
        return self._from(int(np.searchsorted(self.date_ms, start_ms)))

    def newest(self, count: int) -> Self:
        """The last `count` rows, or all if there are fewer."""
        return self._from(max(0, len(self) - count))

    def p_value(self, horizon: int) -> float:
        """How likely such squared errors are without skill, the worse of acting at once and late.

        `forecast.paired_test` against a forecast of zero. 1.0 before `_LEAST_SPANS` horizons of
        moments: with a few, their variance is a sum that cancels, and luck looks certain.
        """
        if len(self) < max(2, _LEAST_SPANS * horizon):
            return 1.0
        gains = np.stack([self.gain, self.gain_delayed])
        if not np.isfinite(gains).all():
            return 1.0
        nothing = np.zeros(len(self))
        return max(paired_test(-gain, nothing, horizon).p_value for gain in gains)

    def worth(self, horizon: int) -> Worth | None:
        """What the mean was worth by this record, see `worth`; None while too little is known."""
        known = self.power > 0.0
        if known.sum() < _LEAST_SPANS * horizon:
            return None
        return worth(self.product[known], self.power[known], horizon)

    def with_means(self, date_ms: Ints, product: Floats, power: Floats) -> Self:
        """The record with what another mean was worth at the moments `date_ms`, and only there."""
        place = np.isin(self.date_ms, date_ms)
        theirs = np.isin(date_ms, self.date_ms)
        products, powers = np.zeros(len(self)), np.zeros(len(self))
        products[place], powers[place] = product[theirs], power[theirs]
        return replace(self, product=products, power=powers)

    def _from(self, row: int) -> Self:
        return type(self)(*(getattr(self, name)[row:] for name in _COLUMNS))


_COLUMNS: dict[str, Any] = {
    field.name: np.int64 if field.name == "date_ms" else np.float64 for field in fields(Evidence)
}


class Worth(NamedTuple):
    """What a forecast mean is worth: the factor it is to be shrunk by, and its standard error."""

    shrinkage: float
    error: float


def worth(product: Floats, power: Floats, horizon: int) -> Worth:
    """The slope of outcomes on a forecast mean, less what may be luck.

    Least squares through the origin, times `1 - 1 / t**2` of its t statistic where that is
    positive (positive-part James & Stein 1961), clipped to [0, 1]. The statistic counts each
    moment once and overlapping horizons as correlated; so does the standard error of the slope.

    Parameters
    ----------
    product, power : (N,) `mean * realized` and `mean**2`, oldest moment first

    Examples
    --------
    >>> mean, noise = np.random.default_rng(0).normal(size=(2, 1_000))
    >>> found = worth(mean * (0.6 * mean + noise), mean**2, horizon=1)
    >>> round(found.shrinkage, 1), round(found.error, 2)
    (0.7, 0.05)
    """
    total = float(power.sum())
    statistic = paired_test(-product, np.zeros(len(product)), horizon).statistic
    if total <= 0.0 or not statistic > 1.0:
        return Worth(0.0, 0.0)
    slope = float(product.sum()) / total
    return Worth(min(1.0, slope * (1.0 - 1.0 / statistic**2)), slope / statistic)


@dataclass(frozen=True)
class Verdict:
    """Of a challenger against the champion. Numbers that cannot be known are NaN.

    Attributes
    ----------
    candles : moments that both have
    gain : mean loss that the challenger saves
    bound : lower confidence bound of that gain; NaN also while there are too few moments
    saved_fraction : gain as a share of the champion's mean loss
    better, worse : proven; neither while there are too few moments
    """

    candles: int
    gain: float
    bound: float
    saved_fraction: float
    better: bool
    worse: bool


def contest(
    challenger: Evidence, champion: Evidence, since_ms: int, horizon: int, error: float
) -> Verdict:
    """Compare the pinball losses of two records at the moments since `since_ms` that both have.

    The learner may ask after every step and act on the first answer it likes: the chance that a
    challenger which is no better is ever called better is about `error`, if no lead lasts for long
    by chance. Simulated for 0.05, four weeks of 5m candles and a look a day: 1.0 to 1.7 % with
    horizons of 1, 12 and 24. Where equals take turns to lead for about 50 moments each, 11.4, 3.4
    and 1.9 %; where for about 200, 29.6, 12.7 and 7.6 %: no test can tell that from merit in time
    (`benchmarks/study_gate.py`). A record with a loss that is no finite number loses to one
    without.

    Parameters
    ----------
    horizon : labels overlap over so many moments
    error : in (0, 0.5); for `better` and for `worse` each

    References
    ----------
    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Time-uniform central limit theory and
    asymptotic confidence sequences, Annals of Statistics 2024: the one-sided sequence.

    Examples
    --------
    >>> moments, noise = np.arange(500), np.random.default_rng(0).normal(size=500)
    >>> others = [noise] * 4
    >>> champion = Evidence(moments, 1.0 + 0.1 * noise, *others)
    >>> challenger = Evidence(moments, 0.95 + 0.1 * noise[::-1], *others)
    >>> verdict = contest(challenger, champion, 0, horizon=1, error=0.05)
    >>> verdict.better, round(verdict.saved_fraction, 2)
    (True, 0.05)
    """
    mine, theirs = _joined(challenger, champion.since(since_ms))
    count = len(mine)
    enough = count >= max(1, _LEAST_SPANS * horizon)
    sound = bool(np.isfinite(mine).all()), bool(np.isfinite(theirs).all())
    if not (count and all(sound)):
        won, lost = enough and sound == (True, False), enough and sound == (False, True)
        return Verdict(count, math.nan, math.nan, math.nan, won, lost)
    gains, loss = theirs - mine, float(theirs.mean())
    gain = float(gains.mean())
    saved = gain / loss if loss else 0.0
    if not enough:
        return Verdict(count, gain, math.nan, saved, False, False)
    width = _width(gains, horizon, error)
    return Verdict(count, gain, gain - width, saved, gain - width > 0.0, -gain - width > 0.0)


class _Losses(NamedTuple):
    challenger: Floats
    champion: Floats


def _joined(challenger: Evidence, champion: Evidence) -> _Losses:
    _, mine, theirs = np.intersect1d(
        challenger.date_ms, champion.date_ms, assume_unique=True, return_indices=True
    )
    return _Losses(challenger.pinball[mine], champion.pinball[theirs])


def _width(gains: Floats, horizon: int, error: float) -> float:
    """Mean less lower bound. A span of `horizon` overlapping labels counts as one observation."""
    spans = len(gains) / horizon
    doubt = -2.0 * math.log(error)
    tuned = (doubt + math.log(doubt) + 1.0) / _SHARPEST_SPANS  # their rho squared
    seen = spans * tuned + 1.0
    reach = 2.0 * seen / (spans**2 * tuned) * math.log(1.0 + math.sqrt(seen) / (2.0 * error))
    return math.sqrt(_long_run_variance(gains, horizon) / horizon * reach)


def _long_run_variance(gains: Floats, horizon: int) -> float:
    """Variance of the mean, times N: the largest that blocks of 1, 2, 4, ... 32 horizons give.

    Longer blocks, because a network that suits the times may lead for days. The sum of
    autocovariances in `forecast.paired_test` sees nothing beyond the overlap, and can be negative;
    as one more estimate it moved the share of equals that are promoted by 0.3 points at most
    (simulated, see `contest`).
    """
    found, block = 0.0, horizon
    while len(gains) // block >= _FEWEST_BLOCKS and block <= _LONGEST_BLOCK * horizon:
        found = max(found, _block_variance(gains, block))
        block *= 2
    return found


def _block_variance(gains: Floats, block: int) -> float:
    """Long-run variance of an AR(1) through the means of M blocks, its memory freed of bias.

    The memory found in M values is too small by about (1 + 3 memory) / M (Kendall 1954).
    """
    count = len(gains) // block
    means = gains[len(gains) - count * block :].reshape(count, block).mean(axis=1)
    means = means - means.mean()
    power = float(means @ means)
    if power <= 0.0:
        return 0.0
    memory = float(means[1:] @ means[:-1]) / power
    memory += (1.0 + 3.0 * memory) / count
    memory = min(_LONGEST_MEMORY, max(0.0, memory))
    return block * power / (count - 1) * (1.0 + memory) / (1.0 - memory)
