"""From the network's raw output to a forecast: shrunk location, intervals and reaches that hold.

Shapes: N forecasts, K quantile levels, J = K // 2 symmetric intervals, widest first; M = J + 2
widths: those of the intervals, then how far the price reaches down and up within the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from lstm_model.market.candles import Floats
from lstm_model.model.dataset import Reached
from lstm_model.model.forecast import (
    STAYS_WITHIN,
    Forecast,
    normal_quantile,
    unknown_far,
)
from lstm_model.model.reach import Reach, completed, pooled_reach

# Step per label that does not overlap. Measured on the markets of docs/intervals.md: Winkler scores
# differ by 0.3 % from 0.002 to 0.02. Simulated: with 0.005 and a horizon of 12, widths that are off
# by half take 20,000 labels to mend, ten weeks of 5m candles.
RATE = 0.01
HASTE = 20  # chosen: a pair's n-th such label counts 1 / (n + 20) while that is more than `RATE`
POOLED = "pooled"  # the mean of all pairs' widths
CAUTION = 0.2  # chosen: a pair without a record of its own gets widths larger by exp(0.2)
_WIDEST = 3.0  # chosen: no width is scaled by more than exp(3) or less than exp(-3)
_TILT_UNIT = 0.5  # log volatility; measured: 0.25 to 1 give the same scores to 0.1 %
_MEMORY = 5_000  # labels that the usual volatility is the mean of; measured: 2,000 to 20,000 alike


class Widths(NamedTuple):
    """How the widths of one pair are scaled, and how many labels that was learnt from.

    A log scale is linear in the tilt: how far volatility is from its usual level. Without it
    intervals are too narrow in calm times and too wide in wild ones.

    Attributes
    ----------
    usual : mean log volatility; without meaning while there are no labels
    scales, slopes : (M,) log scale at the usual volatility, and its change per unit of tilt
    """

    labels: int
    usual: float
    scales: tuple[float, ...]
    slopes: tuple[float, ...]

    @classmethod
    def neutral(cls, levels: Sequence[float]) -> Self:
        """Of who has learnt nothing: quantiles as they are, and reaches by reflection.

        A random walk passes x on its way with twice the probability of ending beyond x (the
        reflection principle), whatever its volatility.
        """
        reach = normal_quantile((1.0 + STAYS_WITHIN) / 2.0) / normal_quantile(levels[-1])
        intervals = len(levels) // 2
        scales = (0.0,) * intervals + (math.log(reach),) * 2
        return cls(0, 0.0, scales, (0.0,) * len(scales))

    def at(self, volatility: Floats) -> Floats:
        """(N, M) log scales in force at a volatility (N,)."""
        known = 1.0 if self.labels else 0.0
        tilt = known * _bounded((np.log(volatility) - self.usual) / _TILT_UNIT)
        return _bounded(np.array(self.scales) + np.array(self.slopes) * tilt[:, None])

    def cautious(self) -> Widths:
        """To begin with for a pair that has no record of its own, when these are the pooled."""
        scales = tuple(min(_WIDEST, scale + CAUTION) for scale in self.scales)
        return Widths(0, 0.0, scales, self.slopes)


def pooled(many: Iterable[Widths]) -> Widths:
    """The mean of several pairs' widths; their usual volatilities have no common meaning."""
    known = list(many)
    scales = np.mean([widths.scales for widths in known], axis=0).tolist()
    slopes = np.mean([widths.slopes for widths in known], axis=0).tolist()
    return Widths(0, 0.0, tuple(scales), tuple(slopes))


def _bounded(values: Floats) -> Floats:
    return np.asarray(np.clip(values, -_WIDEST, _WIDEST))


class Label(NamedTuple):
    """What came true for one forecast, as `lstm_model.model.dataset.Reached` has it for many."""

    realized: float
    lowest: float
    highest: float
    volatility: float


class Series(NamedTuple):
    """Consecutive forecasts of one pair, oldest first, and what came true for each.

    Attributes
    ----------
    quantiles : (N, K) unscaled
    start : widths in force before the first
    """

    quantiles: Floats
    reached: Reached
    start: Widths


class Tracked(NamedTuple):
    """(N, M) log scales by what was known when each forecast was made; the widths at the end."""

    in_force: Floats
    widths: Widths


def track(levels: Sequence[float], many: Sequence[Series], horizon: int) -> list[Tracked]:
    """Slow multiplicative tracking of the widths of every series, each for itself.

    Quantile tracking (Angelopoulos, Candès & Tibshirani 2023) in logarithms, and linear in the
    tilt: each width's log scale moves along the gradient of its pinball loss when a label matures,
    so that misses are neither too many nor related to volatility. The first labels count for more,
    as in Robbins & Monro (1951); of labels that overlap each counts its share.

    Parameters
    ----------
    horizon : a label is known so many rows later

    Examples
    --------
    >>> levels = (0.05, 0.5, 0.95)
    >>> start = Widths.neutral(levels)._replace(labels=10**6)
    >>> missed_above = Reached(*np.array([[3.0], [0.0], [3.0], [0.01]]))
    >>> [made] = track(levels, [Series(np.array([[-1.0, 0.0, 1.0]]), missed_above, start)], 1)
    >>> [round(change, 4) for change in made.widths.scales]  # wider, and higher
    [0.009, 0.1743, 0.1943]
    """
    lessons = [_Lessons.of(levels, series, horizon) for series in many]
    trails = _trails(lessons, [series.start for series in many])
    return [
        _tracked(series, lesson, trails[..., number], horizon)
        for number, (series, lesson) in enumerate(zip(many, lessons, strict=True))
    ]


class _Lessons(NamedTuple):
    """What the labels of one series teach, as far as it does not depend on what was learnt before.

    Attributes
    ----------
    needed : (N, M) log scale from which on a width holds what came true; NaN where not known
    missed, held : (N, M) how far a log scale moves when its width did not hold, and when it did
    usual : (N + 1,) mean log volatility, before the first label and after each
    tilt : (N,) when the label is learnt
    """

    needed: Floats
    missed: Floats
    held: Floats
    usual: Floats
    tilt: Floats

    @classmethod
    def of(cls, levels: Sequence[float], series: Series, horizon: int) -> Self:
        half, before = len(levels) // 2, series.start.labels + np.arange(len(series.quantiles))
        needed = _needed(series.quantiles, series.reached)
        rate = np.maximum(RATE / horizon, 1.0 / (before + HASTE * horizon))
        # Reaches twice as far: misses of one side are half as many as those of both.
        rates = rate[:, None] * np.repeat([1.0, 2.0], [half, 2])
        wanted = np.array([2.0 * level for level in levels[:half]] + 2 * [1.0 - STAYS_WITHIN])
        held = np.where(np.isnan(needed), 0.0, rates * (0.0 - wanted))
        log_volatility = np.log(series.reached.volatility)
        usual = _usual(series.start, log_volatility)
        tilt = np.where(before > 0, _bounded((log_volatility - usual[:-1]) / _TILT_UNIT), 0.0)
        return cls(needed, rates * (1.0 - wanted), held, usual, tilt)


def _needed(quantiles: Floats, reached: Reached) -> Floats:
    """(N, M) see `_Lessons`; infinite where no scale is so large, or none so small."""
    half = quantiles.shape[1] // 2
    realized, lowest, highest, _ = reached
    middle, below, above = quantiles[:, half], quantiles[:, :half], quantiles[:, :half:-1]
    sides = np.where((realized < middle)[:, None], below, above)
    away = np.repeat(np.abs(realized - middle)[:, None], half, axis=1)
    down = np.where(lowest < 0.0, middle - lowest, 0.0)  # a reach never ends short of the price
    up = np.where(highest > 0.0, highest - middle, 0.0)
    went = np.column_stack([away, down, up])
    reach = np.column_stack(
        [np.abs(sides - middle[:, None]), middle - below[:, 0], above[:, 0] - middle]
    )
    with np.errstate(all="ignore"):
        needed = np.where(went > 0.0, np.log(went / reach), -np.inf)
    needed[~np.isfinite(lowest + highest), half:] = np.nan
    needed[needed > _WIDEST], needed[needed <= -_WIDEST] = np.inf, -np.inf
    return needed


def _usual(start: Widths, log_volatility: Floats) -> Floats:
    """(N + 1,) see `_Lessons`."""
    count = start.labels + 1 + np.arange(len(log_volatility))
    shares, usual = np.maximum(1.0 / _MEMORY, 1.0 / count), [start.usual]
    for share, seen in zip(shares.tolist(), log_volatility.tolist(), strict=True):
        usual.append(usual[-1] + share * (seen - usual[-1]))
    return np.array(usual)


def _trails(lessons: Sequence[_Lessons], starts: Sequence[Widths]) -> Floats:
    """(N + 1, 2, M, S) scales and slopes of S series before the first label and after each.

    Label by label for all series at once: measured, a label of one series alone takes 6 us, of 6
    together 1 us each and of 40 together 0.2 us; 1.8 us in plain Python. The shorter series stand
    still at their end.
    """
    needed, missed, held, tilt = (
        _abreast([getattr(lesson, name) for lesson in lessons])
        for name in ("needed", "missed", "held", "tilt")
    )
    trails = np.empty((len(needed) + 1, 2, *needed.shape[1:]))
    trails[0] = np.stack([(start.scales, start.slopes) for start in starts], axis=-1)
    along = np.stack([np.ones_like(tilt), tilt], axis=1)[:, :, None]
    scale, miss = np.empty(needed.shape[1:]), np.empty(needed.shape[1:], np.bool_)
    for need, up, down, move, now, after in zip(
        needed, missed, held, along, trails, trails[1:], strict=False
    ):
        np.multiply(now[1], move[1], out=scale)
        np.add(now[0], scale, out=scale)  # not bounded: `need` is, and compares alike
        np.greater(need, scale, out=miss)
        np.multiply(np.where(miss, up, down), move, out=after)
        np.add(now, after, out=after)
        np.minimum(after, _WIDEST, out=after)
        np.maximum(after, -_WIDEST, out=after)
    return trails


def _abreast(columns: Sequence[Floats]) -> Floats:
    """(N, ..., S) columns (at most N, ...) side by side, zero where one has ended."""
    longest = max(map(len, columns), default=0)
    out = np.zeros((longest, *columns[0].shape[1:], len(columns)))
    for number, column in enumerate(columns):
        out[: len(column), ..., number] = column
    return out


def _tracked(series: Series, lesson: _Lessons, trail: Floats, horizon: int) -> Tracked:
    """From the trail (N + 1 and more, 2, M) of a series."""
    count, labels = len(series.quantiles), series.start.labels
    known = np.maximum(np.arange(count) + 1 - horizon, 0)  # labels that had matured
    log_volatility = np.log(series.reached.volatility)
    tilt = _bounded((log_volatility - lesson.usual[known]) / _TILT_UNIT)
    tilt[labels + known == 0] = 0.0
    in_force = _bounded(trail[known, 0] + trail[known, 1] * tilt[:, None])
    scales, slopes = trail[count].tolist()
    return Tracked(
        in_force,
        Widths(labels + count, float(lesson.usual[-1]), tuple(scales), tuple(slopes)),
    )


class WidthTracker:
    """The widths of one pair, tracked label by label; the same numbers as `track`."""

    def __init__(self, levels: Sequence[float], widths: Widths, horizon: int) -> None:
        self._levels, self._horizon = levels, horizon
        self.widths = widths

    def update(self, quantiles: Sequence[float], label: Label) -> None:
        """Learn from one matured label; `quantiles` (K,) are unscaled."""
        reached = Reached(*(np.array([value]) for value in label))
        series = Series(np.array([quantiles]), reached, self.widths)
        self.widths = track(self._levels, [series], self._horizon)[0].widths

    def in_force(self, volatility: float) -> list[float]:
        """(M,) log scales at a volatility."""
        return list(self.widths.at(np.array([volatility]))[0].tolist())


def rescale(quantiles: Floats, scales: Floats) -> Floats:
    """Scale half-widths around the median; (N, K) and (N, M) log scales -> (N, K), rising."""
    half = quantiles.shape[1] // 2
    middle = quantiles[:, half : half + 1]
    factors, scaled = np.exp(scales[:, :half]), quantiles - middle
    scaled[:, :half] *= factors
    scaled[:, half + 1 :] *= factors[:, ::-1]
    scaled += middle
    scaled.sort(axis=1)
    return scaled


def reaches(quantiles: Floats, scales: Floats) -> tuple[Floats, Floats]:
    """How far down and up the price may go; unscaled (N, K), (N, M) -> (N,) <= 0, (N,) >= 0."""
    half = quantiles.shape[1] // 2
    middle, factors = quantiles[:, half], np.exp(scales[:, half:])
    lowest = middle - (middle - quantiles[:, 0]) * factors[:, 0]
    highest = middle + (quantiles[:, -1] - middle) * factors[:, 1]
    return np.minimum(lowest, 0.0), np.maximum(highest, 0.0)


@dataclass(frozen=True)
class Calibration:
    """How one model version's raw output becomes a forecast.

    Attributes
    ----------
    levels : K quantile levels
    shrinkage : in [0, 1], what a predicted mean was worth on data the network was not fitted to
    shrinkage_error : standard error of that
    widths : per pair, and `POOLED`
    far : per pair, how far the price goes within spans longer than the horizon
    usual_widths : per pair, of the widest interval over a month, log return
    shift : in [0, 1], by how much of the mean the quantiles are moved: where a signal makes returns
        lopsided, their middle does not go with their mean
    """

    levels: tuple[float, ...]
    shrinkage: float
    shrinkage_error: float
    widths: Mapping[str, Widths]
    far: Mapping[str, Reach] = field(default_factory=dict)
    usual_widths: Mapping[str, float] = field(default_factory=dict)
    shift: float = 1.0

    @cached_property
    def _far_of_others(self) -> Reach:
        return pooled_reach(self.far.values())

    def spread(self, raw: Floats) -> tuple[Floats, Floats]:
        """Raw output (N, K) -> location (N,) and unscaled quantiles (N, K)."""
        return self._spread(raw, self.raw_mean(raw))

    def _spread(self, raw: Floats, mean: Floats) -> tuple[Floats, Floats]:
        location = self.shrinkage * mean
        return location, raw + (self.shift * location - mean)[:, None]

    def raw_mean(self, raw: Floats) -> Floats:
        """(N,) mean before shrinkage: the middle of the raw output (N, K)."""
        return np.asarray(raw[:, len(self.levels) // 2])

    def apply(self, raw: Floats, volatility: Floats, horizon: int, pair: str) -> Forecast:
        """The forecast of N candles of one pair, as log returns over the horizon."""
        scales = self.widths_of(pair).at(volatility)
        far = completed(self.far.get(pair), self._far_of_others).at(volatility, horizon)
        return replace(self.scaled(raw, scales, volatility, horizon), far=far)

    def scaled(self, raw: Floats, scales: Floats, volatility: Floats, horizon: int) -> Forecast:
        """The same with given log scales (N, M), and nothing beyond the horizon."""
        mean = self.raw_mean(raw)
        location, quantiles = self._spread(raw, mean)
        unit = volatility * math.sqrt(horizon)
        lowest, highest = reaches(quantiles, scales)
        return Forecast(
            self.levels,
            rescale(quantiles, scales) * unit[:, None],
            location * unit,
            volatility,
            abs(mean) * self.shrinkage_error * unit,
            lowest * unit,
            highest * unit,
            unknown_far(len(raw)),
        )

    def widths_of(self, pair: str) -> Widths:
        """Of a pair; of an unknown one the pooled ones and `CAUTION`."""
        return self.widths.get(pair) or self.widths[POOLED].cautious()

    def to_card(self) -> dict[str, list[float]]:
        """Plain numbers for the model card."""
        named = {
            f"widths {pair}": [widths.labels, widths.usual, *widths.scales, *widths.slopes]
            for pair, widths in self.widths.items()
        }
        shrinkage = [self.shrinkage, self.shrinkage_error]
        return {"shrinkage": shrinkage, "shift": [self.shift], **named}

    @classmethod
    def from_card(cls, levels: tuple[float, ...], card: Mapping[str, list[float]]) -> Calibration:
        """The inverse of `to_card`."""
        shrinkage, error = card["shrinkage"]
        [shift] = card.get("shift", [1.0])
        return cls(levels, shrinkage, error, dict(_named_widths(card)), shift=shift)


def _named_widths(card: Mapping[str, list[float]]) -> Iterator[tuple[str, Widths]]:
    for name, values in card.items():
        if name.startswith("widths "):
            count, both = len(values) // 2 - 1, tuple(values[2:])
            widths = Widths(round(values[0]), values[1], both[:count], both[count:])
            yield name.removeprefix("widths "), widths
