"""Who competes to forecast: scored as served, calibrated by what came true.

Shapes: N labels that matured in one step, of all pairs; K quantile levels; J = K // 2 intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats
from lstm_model.model.calibration import (
    POOLED,
    Calibration,
    Series,
    Widths,
    pooled,
    rescale,
    track,
)
from lstm_model.model.dataset import Reached
from lstm_model.model.gate import Evidence, Worth
from lstm_model.model.reliability import Kept
from lstm_model.scoring.evaluation import Outcomes, evidence_of, means_by_moment

Known = TypeVar("Known")

_RECORD = 10_000  # chosen: moments a contender's record keeps, a month of 5m candles
_RECENT = 4_000  # chosen: the newest of them say what the mean is worth, two weeks of 5m candles


@dataclass(frozen=True)
class Contender:
    """A version that serves or wants to.

    Attributes
    ----------
    kind : "baseline", "scratch" or "finetune"
    unseen_ms : candles that open from then on had no part in making it
    entered_ms : boundary at which it came
    widths, widths_before : per pair, in force since the newest boundary and since the one before
    worth, worth_before : of the mean, in force as the widths
    evidence : its out-of-sample record; before `unseen_ms`, its parent's
    kept : how its widest interval has held since it entered
    """

    version: str
    kind: str
    unseen_ms: int
    entered_ms: int
    widths: Mapping[str, Widths]
    widths_before: Mapping[str, Widths]
    worth: Worth
    worth_before: Worth
    evidence: Evidence
    kept: Kept

    @classmethod
    def entering(
        cls, version: str, kind: str, unseen_ms: int, boundary_ms: int, calibration: Calibration,
        evidence: Evidence, horizon: int,
    ) -> Contender:  # fmt: skip
        """A new one, with the widths and the record it was made with."""
        widths = {pair: own for pair, own in calibration.widths.items() if pair != POOLED}
        made = Worth(calibration.shrinkage, calibration.shrinkage_error)
        worth = _worth(kind, evidence, horizon, made)
        return cls(
            version, kind, unseen_ms, boundary_ms, widths, widths, worth, worth, evidence,
            Kept.nothing(),
        )  # fmt: skip

    def calibration(self, made: Calibration) -> Calibration:
        """The calibration it was made with, with the widths and the worth it has by now."""
        shrinkage, error = self.worth
        widths = _with_pooled(self.widths, made)
        return replace(made, widths=widths, shrinkage=shrinkage, shrinkage_error=error)


def _with_pooled(known: Mapping[str, Widths], made: Calibration) -> dict[str, Widths]:
    return {POOLED: pooled(known.values()) if known else made.widths[POOLED], **known}


def _worth(kind: str, evidence: Evidence, horizon: int, otherwise: Worth) -> Worth:
    """What a contender's mean is worth by its record; the baseline's is zero by definition."""
    found = None if kind == "baseline" else evidence.newest(_RECENT).worth(horizon)
    return otherwise if found is None else found


@dataclass(frozen=True)
class Labels:
    """The labels that matured in one step, oldest first within each pair.

    Attributes
    ----------
    pairs : names; `pair_index` (N,) points at them
    reached : of the same N, not clipped
    candle_ms : length of a candle
    absent : pairs without a label by now, of which what is known stays
    """

    pairs: tuple[str, ...]
    pair_index: NDArray[np.int32]
    outcomes: Outcomes
    reached: Reached
    candle_ms: int
    absent: frozenset[str] = frozenset()

    def with_absent(
        self, learnt: Mapping[str, Known], known: Mapping[str, Known]
    ) -> dict[str, Known]:
        """What was learnt of each pair, and what was known of those that are absent."""
        left = {pair: value for pair, value in known.items() if pair in self.absent}
        return dict(sorted({**left, **learnt}.items()))


class View(NamedTuple):
    """What one contender said about the labels' candles: raw output (N, K), and how to read it."""

    raw: Floats
    calibration: Calibration


@dataclass(frozen=True)
class Seen:
    """One contender's forecasts of the labels' candles, as they were or would have been served.

    Attributes
    ----------
    mean : (N,) float64, and quantiles : (N, K), in units of volatility over the horizon
    raw_mean : (N,) before shrinkage
    unscaled : (N, K) quantiles before their half-widths were scaled
    """

    contender: Contender
    calibration: Calibration
    mean: Floats
    raw_mean: Floats
    unscaled: Floats
    quantiles: Floats

    @classmethod
    def of(cls, contender: Contender, labels: Labels, view: View, served_ms: int) -> Seen:
        """Read a contender's raw output; widths since `served_ms` are the newer ones."""
        made, levels = view.calibration, view.calibration.levels
        late = labels.outcomes.date_ms + labels.candle_ms >= served_ms
        mean, quantiles = np.empty(len(late)), np.empty((len(late), len(levels)))
        unscaled = np.empty_like(quantiles)
        for then, chosen in ((_earlier(contender), ~late), (contender, late)):
            in_force = then.calibration(made)
            mean[chosen], unscaled[chosen] = in_force.spread(view.raw[chosen])
            for number, pair in enumerate(labels.pairs):
                rows = np.flatnonzero(chosen & (labels.pair_index == number))
                scales = in_force.widths_of(pair).at(labels.reached.volatility[rows])
                quantiles[rows] = rescale(unscaled[rows], scales)
        return cls(contender, made, mean, made.raw_mean(view.raw), unscaled, quantiles)

    def scored(self, labels: Labels, widths: Mapping[str, Widths], horizon: int) -> Contender:
        """The contender with these labels in its record, its widths and its worth."""
        old, levels = self.contender, self.calibration.levels
        made = evidence_of(labels.outcomes, self.mean, self.raw_mean, self.quantiles, levels)
        evidence = old.evidence.then(made).newest(_RECORD)
        return replace(
            old,
            widths_before=old.widths,
            widths=widths,
            worth_before=old.worth,
            worth=_worth(old.kind, evidence, horizon, old.worth),
            evidence=evidence,
            kept=old.kept.then(self._kept(labels), _RECORD),
        )

    def series(self, labels: Labels) -> list[Series]:
        """Its forecasts of each pair, and the widths they are to be learnt into."""
        known = self.contender.widths
        start = _with_pooled(known, self.calibration)[POOLED].cautious()
        rows = [labels.pair_index == number for number in range(len(labels.pairs))]
        return [
            Series(self.unscaled[mine], labels.reached.of(mine), known.get(pair, start))
            for pair, mine in zip(labels.pairs, rows, strict=True)
        ]

    def _kept(self, labels: Labels) -> Kept:
        """Whether the outcomes lay in the widest interval, moment by moment."""
        inside = (self.quantiles[:, 0] <= labels.reached.realized) & (
            labels.reached.realized <= self.quantiles[:, -1]
        )
        dates = labels.outcomes.date_ms
        return Kept(
            *means_by_moment(dates, inside.astype(np.float64), np.log(labels.reached.volatility))
        )


def scored(seen: Sequence[Seen], labels: Labels, horizon: int) -> tuple[Contender, ...]:
    """Every contender with these labels in its record; pairs that left are let go of."""
    series = [series for one in seen for series in one.series(labels)]
    ends = iter(track(seen[0].calibration.levels, series, horizon))
    learnt = [{pair: next(ends).widths for pair in labels.pairs} for _ in seen]
    widths = [
        labels.with_absent(own, one.contender.widths) for one, own in zip(seen, learnt, strict=True)
    ]
    return tuple(one.scored(labels, own, horizon) for one, own in zip(seen, widths, strict=True))


def _earlier(contender: Contender) -> Contender:
    """As it served before the newest boundary."""
    return replace(contender, widths=contender.widths_before, worth=contender.worth_before)
