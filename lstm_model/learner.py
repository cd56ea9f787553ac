"""The learner's state and its moves: score, calibrate, promote, roll back, notice drift.

A state machine without clock, thread, file or TensorFlow: `lstm_model.learning` feeds it and does
what it asks for. Everything is in candle time, so a backtest and a live bot move alike.

Shapes: N labels that matured in one step, of all pairs; K quantile levels; J = K // 2 intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
from lstm_model.config import Settings
from lstm_model.drift import DriftWatch
from lstm_model.evaluation import Outcomes, evidence_of
from lstm_model.forecast import deviation_of
from lstm_model.gate import Evidence, Verdict, contest
from lstm_model.market import Floats
from lstm_model.schedule import Schedule

_RECORD = 10_000  # chosen: moments a contender's record keeps, a month of 5m candles


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
    evidence : its out-of-sample record; before `unseen_ms`, its parent's
    """

    version: str
    kind: str
    unseen_ms: int
    entered_ms: int
    scales: Mapping[str, Scales]
    before: Mapping[str, Scales]
    evidence: Evidence

    @classmethod
    def entering(
        cls, version: str, kind: str, unseen_ms: int, boundary_ms: int, calibration: Calibration,
        evidence: Evidence,
    ) -> Contender:  # fmt: skip
        """A new one, with the scales and the record it was made with."""
        scales = {
            pair: Scales(GROWN, log_scales)
            for pair, log_scales in calibration.log_scales.items()
            if pair != POOLED
        }
        return cls(version, kind, unseen_ms, boundary_ms, scales, scales, evidence)

    def calibration(self, made: Calibration) -> Calibration:
        """The calibration it was made with, with the scales it has by now."""
        return replace(made, log_scales=_log_scales(self.scales, made))


def _log_scales(scales: Mapping[str, Scales], made: Calibration) -> dict[str, tuple[float, ...]]:
    known = {pair: entry.log_scales for pair, entry in scales.items()}
    pooled = np.mean(list(known.values()), axis=0).tolist() if known else made.log_scales[POOLED]
    return {POOLED: tuple(pooled), **known}


@dataclass(frozen=True)
class State:
    """All that the learner knows at a boundary.

    Attributes
    ----------
    champion, predecessor : versions; the predecessor is the champion before
    promoted_ms : boundary since which the champion serves; it is judged by what came after
    finetuned_ms : boundary of the last fine-tuning
    owed : a training that failed and is to be tried again
    drift : of `lstm_model.drift.DriftWatch`
    contenders : champion, predecessor, baseline and challengers
    """

    boundary_ms: int
    champion: str
    predecessor: str | None
    promoted_ms: int
    finetuned_ms: int
    owed: str | None
    drift: Mapping[str, Any]
    contenders: tuple[Contender, ...]

    def contender(self, version: str) -> Contender:
        """The contender of this version; it must be one."""
        return next(found for found in self.contenders if found.version == version)

    def challengers(self) -> list[Contender]:
        """Those that never served, or no longer count as champion, predecessor or baseline."""
        kept = (self.champion, self.predecessor)
        return [c for c in self.contenders if c.version not in kept and c.kind != "baseline"]


class Event(NamedTuple):
    """Something the learner decided, with its numbers.

    Attributes
    ----------
    kind : "trained", "promoted", "rejected", "rolled back", "drift" or "training failed"
    champion : against which it was judged
    candles, gain, bound, saved_fraction : of the comparison, see `lstm_model.gate.Verdict`
    text : what else there is to say
    """

    kind: str
    at_ms: int
    version: str
    champion: str
    candles: int = 0
    gain: float | None = None
    bound: float | None = None
    saved_fraction: float | None = None
    text: str = ""


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


def begin(boundary_ms: int, baseline: Contender) -> State:
    """A learner that knows the baseline alone."""
    return State(boundary_ms, baseline.version, None, 0, boundary_ms, None, {}, (baseline,))


def observe(
    state: State, boundary_ms: int, labels: Labels, views: Mapping[str, View], settings: Settings,
    schedule: Schedule,
) -> State:  # fmt: skip
    """The state at the next boundary, with every contender scored and calibrated.

    Parameters
    ----------
    views : per version, for all contenders
    """
    served_ms = state.boundary_ms + schedule.lag_ms
    seen = [
        Seen.of(contender, labels, views[contender.version], served_ms)
        for contender in state.contenders
    ]
    champion = next(it for it in seen if it.contender.version == state.champion)
    return replace(
        state,
        boundary_ms=boundary_ms,
        drift=_watched(state.drift, champion, labels, settings),
        contenders=tuple(it.scored(labels) for it in seen),
    )


@dataclass(frozen=True)
class Seen:
    """One contender's forecasts of the labels' candles, as they were or would have been served.

    Attributes
    ----------
    mean : (N,) float64, and quantiles : (N, K), in units of volatility over the horizon
    unscaled : (N, K) quantiles before their half-widths were scaled
    """

    contender: Contender
    calibration: Calibration
    mean: Floats
    unscaled: Floats
    quantiles: Floats

    @classmethod
    def of(cls, contender: Contender, labels: Labels, view: View, served_ms: int) -> Seen:
        """Read a contender's raw output; scales since `served_ms` are the newer ones."""
        mean, unscaled = view.calibration.spread(view.raw)
        scales = np.empty((len(mean), unscaled.shape[1] // 2))
        late = labels.outcomes.date_ms + labels.candle_ms >= served_ms
        for known, rows in ((contender.before, ~late), (contender.scales, late)):
            in_force = replace(view.calibration, log_scales=_log_scales(known, view.calibration))
            table = np.array([in_force.scales_of(pair) for pair in labels.pairs])
            scales[rows] = table[labels.pair_index[rows]]
        quantiles = rescale(unscaled, scales)
        return cls(contender, view.calibration, mean, unscaled, quantiles)

    def scored(self, labels: Labels) -> Contender:
        """The contender with these labels in its record and in its scales."""
        old, levels = self.contender, self.calibration.levels
        made = evidence_of(labels.outcomes, self.mean, self.quantiles, levels)
        return replace(
            old,
            before=old.scales,
            scales=self._tracked(labels),
            evidence=old.evidence.then(made).newest(_RECORD),
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


def _watched(
    known: Mapping[str, Any], champion: Seen, labels: Labels, settings: Settings
) -> Mapping[str, Any]:
    """The drift detectors after the champion's errors; labels that overlap are left out."""
    levels, quantiles = settings.levels, champion.quantiles
    watch = DriftWatch(2.0 * levels[0], known or None)
    watch.forget(known.keys() - set(labels.pairs))
    error = labels.outcomes.realized - champion.mean
    residual = error / deviation_of(quantiles[:, 0], quantiles[:, -1], levels)
    missed = (labels.realized < quantiles[:, 0]) | (labels.realized > quantiles[:, -1])
    apart = labels.outcomes.date_ms // labels.candle_ms % settings.horizon == 0
    for row in np.flatnonzero(apart).tolist():
        pair = labels.pairs[labels.pair_index[row]]
        watch.update(pair, float(residual[row]), bool(missed[row]))
    return watch.state()


def judge(state: State, settings: Settings) -> tuple[State, list[Event]]:
    """The gate: who beats the champion takes its place, who is beaten by it leaves.

    A network that beats the baseline is promoted; a predecessor or the baseline that beats the
    champion is restored. Ties keep the champion.
    """
    verdicts = _verdicts(state, settings)
    better = {version: verdict for version, verdict in verdicts.items() if verdict.better}
    lost = [c for c in state.challengers() if verdicts[c.version].worse]
    state, events = _without(state, lost, verdicts, "worse than the champion")
    if not better:
        return state, events
    best = max(better, key=lambda version: better[version].bound)
    restored = best == state.predecessor or state.contender(best).kind == "baseline"
    kind = "rolled back" if restored else "promoted"
    return _crowned(state, best), [*events, _event(kind, state, best, better[best])]


def _verdicts(state: State, settings: Settings) -> dict[str, Verdict]:
    champion = state.contender(state.champion)
    since_ms = max(champion.unseen_ms, state.promoted_ms)
    return {
        other.version: contest(
            other.evidence, champion.evidence, max(since_ms, other.unseen_ms), settings.horizon,
            settings.promotion_error,
        )
        for other in state.contenders
        if other is not champion
    }  # fmt: skip


def _crowned(state: State, version: str) -> State:
    """The contender as champion; the old one is the predecessor, the one before that leaves."""
    gone = state.predecessor if state.predecessor != version else None
    kept = (version, state.champion)
    return replace(
        state,
        champion=version,
        predecessor=state.champion,
        promoted_ms=state.boundary_ms,
        drift={},
        contenders=tuple(
            c
            for c in state.contenders
            if c.version in kept or c.version != gone or c.kind == "baseline"
        ),
    )


def _without(
    state: State, lost: Sequence[Contender], verdicts: Mapping[str, Verdict], text: str
) -> tuple[State, list[Event]]:
    events = [_event("rejected", state, c.version, verdicts[c.version], text) for c in lost]
    kept = tuple(c for c in state.contenders if c not in lost)
    return replace(state, contenders=kept), events


def _event(kind: str, state: State, version: str, verdict: Verdict, text: str = "") -> Event:
    return Event(
        kind, state.boundary_ms, version, state.champion, verdict.candles,
        _finite(verdict.gain), _finite(verdict.bound), _finite(verdict.saved_fraction), text,
    )  # fmt: skip


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


class Wish(NamedTuple):
    """A training that is due: "scratch" or "finetune", and why."""

    kind: str
    drift: str = ""


def due(state: State, settings: Settings, schedule: Schedule) -> Wish | None:
    """What is to be learnt at the state's boundary, if anything."""
    boundary_ms = state.boundary_ms
    if schedule.retrains_at(boundary_ms) or state.owed == "scratch":
        return Wish("scratch")
    if finetune_parent(state) is None:
        return None
    if state.owed == "finetune":
        return Wish("finetune")
    if schedule.finetunes_at(boundary_ms) and not _is_led(state, settings, schedule):
        return Wish("finetune")
    watch = DriftWatch(2.0 * settings.levels[0], state.drift or None)
    rested_ms = boundary_ms - state.finetuned_ms
    if watch.drift_detected and rested_ms >= settings.drift_cooldown_candles * schedule.candle_ms:
        return Wish("finetune", watch.reason())
    return None


def _is_led(state: State, settings: Settings, schedule: Schedule) -> bool:
    """Whether a fine-tuned challenger does better so far: it may go on, for a retraining's time."""
    verdicts = _verdicts(state, settings)
    return any(
        verdicts[challenger.version].gain > 0.0
        and state.boundary_ms - challenger.entered_ms < schedule.retrain_ms
        for challenger in state.challengers()
        if challenger.kind == "finetune"
    )


def finetune_parent(state: State) -> Contender | None:
    """The champion if it is a network, else the newest network that wants to be."""
    champion = state.contender(state.champion)
    if champion.kind != "baseline":
        return champion
    networks = [c for c in state.contenders if c.kind != "baseline"]
    return max(networks, key=lambda c: c.entered_ms, default=None)


def admit(state: State, newcomer: Contender, settings: Settings) -> tuple[State, list[Event]]:
    """Let a new network compete; it takes the place of the last challenger of its kind."""
    if any(c.version == newcomer.version for c in state.contenders):
        return replace(state, owed=None), []
    trained = Event("trained", state.boundary_ms, newcomer.version, state.champion)
    replaced = [c for c in state.challengers() if c.kind == newcomer.kind]
    verdicts = _verdicts(state, settings)
    state, rejected = _without(state, replaced, verdicts, "no better in time")
    if newcomer.kind == "finetune":
        state = replace(state, finetuned_ms=state.boundary_ms, drift={})
    state = replace(state, owed=None, contenders=(*state.contenders, newcomer))
    return state, [*rejected, trained]
