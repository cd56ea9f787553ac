"""Who competes to forecast: scored as served, calibrated by what came true.

Shapes: N labels that matured in one step, of all pairs; K quantile levels; J = K // 2 intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.calibration import (
    GROWN,
    POOLED,
    Calibration,
    QuantileTracker,
    cautious,
    rescale,
)
from lstm_model.evaluation import Outcomes, evidence_of
from lstm_model.gate import Evidence
from lstm_model.market import Floats

_RECORD = 10_000  # chosen: moments a contender's record keeps, a month of 5m candles
_RECENT = 4_000  # chosen: the newest of them say what the mean is worth, two weeks of 5m candles


class Scales(NamedTuple):
    """Log scales (J,) of one pair's intervals, and how many labels made them."""

    labels: int
    log_scales: tuple[float, ...]


@dataclass(frozen=True)
class Contender:
    """A version that serves or wants to.

    Attributes
    ----------
    kind : "baseline", "scratch" or "finetune"
    unseen_ms : candles that open from then on had no part in making it
    entered_ms : boundary at which it came
    scales, before : per pair, in force since the newest boundary and since the one before
    shrinkage, shrinkage_before : of the mean, in force as the scales
    evidence : its out-of-sample record; before `unseen_ms`, its parent's
    """

    version: str
    kind: str
    unseen_ms: int
    entered_ms: int
    scales: Mapping[str, Scales]
    before: Mapping[str, Scales]
    shrinkage: float
    shrinkage_before: float
    evidence: Evidence

    @classmethod
    def entering(
        cls, version: str, kind: str, unseen_ms: int, boundary_ms: int, calibration: Calibration,
        evidence: Evidence, horizon: int,
    ) -> Contender:  # fmt: skip
        """A new one, with the scales and the record it was made with."""
        scales = {
            pair: Scales(GROWN, log_scales)
            for pair, log_scales in calibration.log_scales.items()
            if pair != POOLED
        }
        worth = _worth(kind, evidence, horizon, calibration.shrinkage)
        return cls(version, kind, unseen_ms, boundary_ms, scales, scales, worth, worth, evidence)

    def calibration(self, made: Calibration) -> Calibration:
        """The calibration it was made with, with the scales and the shrinkage it has by now."""
        scales = _log_scales(self.scales, made)
        return replace(made, log_scales=scales, shrinkage=self.shrinkage)


def _log_scales(scales: Mapping[str, Scales], made: Calibration) -> dict[str, tuple[float, ...]]:
    known = {pair: entry.log_scales for pair, entry in scales.items()}
    pooled = np.mean(list(known.values()), axis=0).tolist() if known else made.log_scales[POOLED]
    return {POOLED: tuple(pooled), **known}


def _worth(kind: str, evidence: Evidence, horizon: int, otherwise: float) -> float:
    """What a contender's mean is worth by its record; the baseline's is zero by definition."""
    found = None if kind == "baseline" else evidence.newest(_RECENT).shrinkage(horizon)
    return otherwise if found is None else found


@dataclass(frozen=True)
class Labels:
    """The labels that matured in one step, oldest first within each pair.

    Attributes
    ----------
    pairs : names; `pair_index` (N,) points at them
    realized : (N,) float64, in units of volatility over the horizon, not clipped
    candle_ms : length of a candle
    """

    pairs: tuple[str, ...]
    pair_index: NDArray[np.int32]
    outcomes: Outcomes
    realized: Floats
    candle_ms: int


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
        """Read a contender's raw output; scales since `served_ms` are the newer ones."""
        made, levels = view.calibration, view.calibration.levels
        late = labels.outcomes.date_ms + labels.candle_ms >= served_ms
        mean, quantiles = np.empty(len(late)), np.empty((len(late), len(levels)))
        unscaled = np.empty_like(quantiles)
        for then, rows in ((_earlier(contender), ~late), (contender, late)):
            in_force = then.calibration(made)
            table = np.array([in_force.scales_of(pair) for pair in labels.pairs])
            mean[rows], unscaled[rows] = in_force.spread(view.raw[rows])
            scales = table[labels.pair_index[rows]]
            quantiles[rows] = rescale(unscaled[rows], scales)
        raw_mean = replace(made, shrinkage=1.0).spread(view.raw)[0]
        return cls(contender, made, mean, raw_mean, unscaled, quantiles)

    def scored(self, labels: Labels, horizon: int) -> Contender:
        """The contender with these labels in its record, its scales and its shrinkage."""
        old, levels = self.contender, self.calibration.levels
        made = evidence_of(labels.outcomes, self.mean, self.raw_mean, self.quantiles, levels)
        evidence = old.evidence.then(made).newest(_RECORD)
        return replace(
            old,
            before=old.scales,
            scales=self._tracked(labels),
            shrinkage_before=old.shrinkage,
            shrinkage=_worth(old.kind, evidence, horizon, old.shrinkage),
            evidence=evidence,
        )

    def _tracked(self, labels: Labels) -> dict[str, Scales]:
        """Scales of the pairs that are followed; who left is let go of."""
        known, out = self.contender.scales, {}
        start = cautious(_log_scales(known, self.calibration)[POOLED])
        for number, pair in enumerate(labels.pairs):
            mine = labels.pair_index == number
            labels_before, scales = known.get(pair, Scales(0, start))
            tracker = QuantileTracker(self.calibration.levels, scales, labels_before)
            pairs = zip(self.unscaled[mine].tolist(), labels.realized[mine].tolist(), strict=True)
            for quantiles, realized in pairs:
                tracker.update(quantiles, realized)
            out[pair] = Scales(tracker.labels, tuple(tracker.log_scales))
        return out


def _earlier(contender: Contender) -> Contender:
    """As it served before the newest boundary."""
    return replace(contender, scales=contender.before, shrinkage=contender.shrinkage_before)
