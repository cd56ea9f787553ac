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
from lstm_model.model.forecast import (
    STAYS_WITHIN,
    Forecast,
    mean_weights,
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


def trust(labels: int, horizon: int) -> float:
    """How far widths learnt from so many labels can be relied on, from 0 (a guess) to 1.

    Examples
    --------
    >>> trust(480, horizon=12), trust(10_000, horizon=12)
    (0.5, 1.0)
    """
    return min(1.0, labels / (horizon * (1.0 / RATE - HASTE)))


def _bounded(values: Floats) -> Floats:
    return np.asarray(np.clip(values, -_WIDEST, _WIDEST))


class Label(NamedTuple):
    """What came true for one forecast, in units of volatility over the horizon.

    `lowest` and `highest` price on the way; NaN where they are not known.
    """

    realized: float
    lowest: float
    highest: float
    volatility: float  # of one candle, when it was forecast


class WidthTracker:
    """Slow multiplicative tracking of the widths of one pair.

    Quantile tracking (Angelopoulos, Candès & Tibshirani 2023) in logarithms, and linear in the
    tilt: each width's log scale moves along the gradient of its pinball loss when a label matures,
    so that misses are neither too many nor related to volatility. The first labels count for more,
    as in Robbins & Monro (1951); of labels that overlap each counts its share.

    Examples
    --------
    >>> levels = (0.05, 0.5, 0.95)
    >>> tracker = WidthTracker(levels, Widths.neutral(levels)._replace(labels=10**6), horizon=1)
    >>> tracker.update([-1.0, 0.0, 1.0], Label(3.0, 0.0, 3.0, volatility=0.01))
    >>> [round(change, 4) for change in tracker.widths.scales]  # missed above: wider, and higher
    [0.009, 0.1743, 0.1943]
    """

    def __init__(self, levels: Sequence[float], widths: Widths, horizon: int) -> None:
        half = len(levels) // 2
        self._misses = [2.0 * level for level in levels[:half]]
        self._half, self._horizon = half, horizon
        self._labels, self._usual = widths.labels, widths.usual
        self._scales, self._slopes = list(widths.scales), list(widths.slopes)

    @property
    def widths(self) -> Widths:
        """What was learnt so far."""
        return Widths(self._labels, self._usual, tuple(self._scales), tuple(self._slopes))

    def update(self, quantiles: Sequence[float], label: Label) -> None:
        """Learn from one matured label; `quantiles` (K,) are unscaled."""
        rate = max(RATE / self._horizon, 1.0 / (self._labels + HASTE * self._horizon))
        tilt = self._tilt(label.volatility)
        last, middle = len(quantiles) - 1, quantiles[self._half]
        for number, wanted in enumerate(self._misses):
            side = quantiles[number] if label.realized < middle else quantiles[last - number]
            reach = abs(side - middle) * self._scale(number, tilt)
            self._move(number, tilt, rate * ((abs(label.realized - middle) > reach) - wanted))
        if math.isfinite(label.lowest + label.highest):
            self._learn_reaches(quantiles, label, tilt, rate)
        self._labels += 1
        share = max(1.0 / _MEMORY, 1.0 / self._labels)
        self._usual += share * (math.log(label.volatility) - self._usual)

    def in_force(self, volatility: float) -> list[float]:
        """(M,) log scales at a volatility, as `Widths.at` has them."""
        tilt = self._tilt(volatility)
        return [self._log_scale(number, tilt) for number in range(len(self._scales))]

    def _tilt(self, volatility: float) -> float:
        if not self._labels:
            return 0.0
        return min(_WIDEST, max(-_WIDEST, (math.log(volatility) - self._usual) / _TILT_UNIT))

    def _log_scale(self, number: int, tilt: float) -> float:
        return min(_WIDEST, max(-_WIDEST, self._scales[number] + self._slopes[number] * tilt))

    def _learn_reaches(
        self, quantiles: Sequence[float], label: Label, tilt: float, rate: float
    ) -> None:
        middle, down, up = quantiles[self._half], self._half, self._half + 1
        lowest = middle - (middle - quantiles[0]) * self._scale(down, tilt)
        highest = middle + (quantiles[-1] - middle) * self._scale(up, tilt)
        # Twice as far: misses of one side are half as many as those of both.
        wanted = 1.0 - STAYS_WITHIN
        self._move(down, tilt, 2.0 * rate * ((label.lowest < min(0.0, lowest)) - wanted))
        self._move(up, tilt, 2.0 * rate * ((label.highest > max(0.0, highest)) - wanted))

    def _scale(self, number: int, tilt: float) -> float:
        return math.exp(self._log_scale(number, tilt))

    def _move(self, number: int, tilt: float, step: float) -> None:
        for known, moved in ((self._scales, step), (self._slopes, step * tilt)):
            known[number] = min(_WIDEST, max(-_WIDEST, known[number] + moved))


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


def track(
    levels: Sequence[float], quantiles: Floats, labels: Sequence[Label], horizon: int,
    start: Widths,
) -> tuple[Floats, Widths]:  # fmt: skip
    """Calibrate N consecutive forecasts of one pair, each with what was known when it was made.

    Parameters
    ----------
    quantiles : (N, K) unscaled, and their labels, oldest first
    horizon : a label is known so many rows later
    start : in force before the first

    Returns
    -------
    (N, M) log scales in force at each row, and the widths after the last label.
    """
    tracker, rows = WidthTracker(levels, start, horizon), quantiles.tolist()
    in_force = np.empty((len(rows), len(start.scales)))
    for now, label in enumerate(labels):
        if now >= horizon:
            tracker.update(rows[now - horizon], labels[now - horizon])
        in_force[now] = tracker.in_force(label.volatility)
    for matured in range(max(0, len(rows) - horizon), len(rows)):
        tracker.update(rows[matured], labels[matured])
    return in_force, tracker.widths


@dataclass(frozen=True)
class Calibration:
    """How one model version's raw output becomes a forecast.

    Attributes
    ----------
    levels : K quantile levels
    shrinkage : in [0, 1], what a predicted mean was worth on data the network was not fitted to
    shrinkage_error : standard error of that
    residuals : K quantiles of the target, for a network without quantiles; else empty
    widths : per pair, and `POOLED`
    far : per pair, how far the price goes within spans longer than the horizon
    usual_widths : per pair, of the widest interval over a month, log return
    """

    levels: tuple[float, ...]
    shrinkage: float
    shrinkage_error: float
    residuals: tuple[float, ...]
    widths: Mapping[str, Widths]
    far: Mapping[str, Reach] = field(default_factory=dict)
    usual_widths: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def _far_of_others(self) -> Reach:
        return pooled_reach(self.far.values())

    def spread(self, raw: Floats) -> tuple[Floats, Floats]:
        """Raw output (N, K) or (N, 1) -> location (N,) and unscaled quantiles (N, K)."""
        return self._spread(raw, self.raw_mean(raw))

    def _spread(self, raw: Floats, mean: Floats) -> tuple[Floats, Floats]:
        location = self.shrinkage * mean
        if raw.shape[1] == 1:
            return location, location[:, None] + np.array(self.residuals)
        return location, raw + (location - mean)[:, None]

    def raw_mean(self, raw: Floats) -> Floats:
        """(N,) mean before shrinkage."""
        if raw.shape[1] == 1:
            return np.asarray(raw[:, 0])
        # A sum, not a product: BLAS may round a row differently with the rows beside it.
        return np.asarray(np.add.reduce(raw * mean_weights(self.levels), 1))

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
        return {"shrinkage": shrinkage, "residuals": list(self.residuals), **named}

    @classmethod
    def from_card(cls, levels: tuple[float, ...], card: Mapping[str, list[float]]) -> Calibration:
        """The inverse of `to_card`."""
        shrinkage, error = card["shrinkage"]
        return cls(levels, shrinkage, error, tuple(card["residuals"]), dict(_named_widths(card)))


def _named_widths(card: Mapping[str, list[float]]) -> Iterator[tuple[str, Widths]]:
    for name, values in card.items():
        if name.startswith("widths "):
            count, both = len(values) // 2 - 1, tuple(values[2:])
            widths = Widths(round(values[0]), values[1], both[:count], both[count:])
            yield name.removeprefix("widths "), widths
