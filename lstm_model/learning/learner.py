"""The learner's state and its moves: score, calibrate, promote, roll back, notice drift.

A state machine without clock, thread, file or TensorFlow: `lstm_model.learning.chain` feeds it and
does what it asks for. Everything is in candle time, so a backtest and a live bot move alike.

Shapes: N labels that matured in one step, of all pairs; K quantile levels; J = K // 2 intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.learning.contender import Contender, Labels, Seen, View, scored
from lstm_model.learning.drift import DriftWatch
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Candles
from lstm_model.model.forecast import deviation_of
from lstm_model.model.gate import Verdict, contest
from lstm_model.model.reach import Reach, measure
from lstm_model.settings import Settings

# chosen: less is a tie; a network that is almost the champion gains nothing by its place
_WORTH_IT = 0.001
# Horizons of newest candles on which predecessor and baseline may show that they do better by now:
# a champion that was good for months must not live on that. Measured on a market that changes its
# sign: rolled back after 2 to 4 days instead of weeks or never.
_RECENT_SPANS = (120, 240, 480)
_USUAL_MS = 30 * DAY_MS  # chosen: a month says what is usual of a pair


@dataclass(frozen=True)
class State:
    """All that the learner knows at a boundary.

    Attributes
    ----------
    champion, predecessor : versions; the predecessor is the champion before
    promoted_ms : boundary since which the champion serves; it is judged by what came after
    finetuned_ms : boundary of the last fine-tuning
    owed : a training to be made up for: it failed, or the champion has fallen
    drift : of `lstm_model.learning.drift.DriftWatch`
    far : per pair, how far the price goes within spans longer than the horizon
    usual_widths : per pair, of the interval as it was served: labels, and the mean of its logs
    learnt_ms : per pair, until when its candles were there; what comes late is learnt from there on
    contenders : champion, predecessor, baseline and challengers
    """

    boundary_ms: int
    champion: str
    predecessor: str | None
    promoted_ms: int
    finetuned_ms: int
    owed: str | None
    drift: Mapping[str, Any]
    far: Mapping[str, Reach]
    usual_widths: Mapping[str, tuple[int, float]]
    learnt_ms: Mapping[str, int]
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
    kind : "trained", "promoted", "rejected", "rolled back", "drift", "calibration",
        "training failed" or "candles missing"
    champion : against which it was judged
    candles, gain, bound, saved_fraction : of the comparison, see `lstm_model.model.gate.Verdict`
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


def begin(boundary_ms: int, baseline: Contender) -> State:
    """A learner that knows the baseline alone."""
    return State(
        boundary_ms, baseline.version, None, 0, boundary_ms, None, {}, {}, {}, {}, (baseline,)
    )


def measured(state: State, series: Sequence[Candles], settings: Settings) -> State:
    """With how far the price went in the candles that a network would be trained on."""
    return replace(state, far={c.pair: measure(c, settings.horizon) for c in series})


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
        usual_widths=_usual(state.usual_widths, champion, labels, settings.horizon),
        contenders=scored(seen, labels, settings.horizon),
    )


def _usual(
    known: Mapping[str, tuple[int, float]], champion: Seen, labels: Labels, horizon: int
) -> dict[str, tuple[int, float]]:
    """The mean log width of each pair's interval as it was served, over about a month."""
    units = labels.reached.volatility * math.sqrt(horizon)
    logs = np.log((champion.quantiles[:, -1] - champion.quantiles[:, 0]) * units)
    month, out = _USUAL_MS // labels.candle_ms, {}
    for number, pair in enumerate(labels.pairs):
        mine = logs[(labels.pair_index == number) & np.isfinite(logs)]
        count, mean = known.get(pair, (0, 0.0))
        if len(mine):
            weight = len(mine) / max(len(mine), min(count + len(mine), month))
            mean += weight * (float(mine.mean()) - mean)
        out[pair] = count + len(mine), mean
    return labels.with_absent(out, known)


def _watched(
    known: Mapping[str, Any], champion: Seen, labels: Labels, settings: Settings
) -> Mapping[str, Any]:
    """The drift detectors after the champion's errors; labels that overlap are left out."""
    levels, quantiles = settings.levels, champion.quantiles
    watch = DriftWatch(2.0 * levels[0], known or None)
    watch.forget(known.keys() - {*labels.pairs, *labels.absent})
    error = labels.outcomes.realized - champion.mean
    residual = error / deviation_of(quantiles[:, 0], quantiles[:, -1], levels)
    missed = (labels.reached.realized < quantiles[:, 0]) | (
        labels.reached.realized > quantiles[:, -1]
    )
    apart = labels.outcomes.date_ms // labels.candle_ms % settings.horizon == 0
    for row in np.flatnonzero(apart).tolist():
        pair = labels.pairs[labels.pair_index[row]]
        watch.update(pair, float(residual[row]), bool(missed[row]))
    return watch.state()


def review(state: State, schedule: Schedule) -> list[Event]:
    """At a retraining, how the champion's intervals have held, beside the baseline's."""
    if not schedule.retrains_at(state.boundary_ms):
        return []
    champion = state.contender(state.champion)
    if not len(champion.kept.date_ms):
        return []
    baseline = next(c for c in state.contenders if c.kind == "baseline")
    text = f"inside its widest interval were {champion.kept.line()}"
    if champion is not baseline:
        text += f"; of the baseline {baseline.kept.line()}"
    return [Event("calibration", state.boundary_ms, state.champion, state.champion, text=text)]


def judge(state: State, settings: Settings) -> tuple[State, list[Event]]:
    """The gate: who beats the champion takes its place, who is beaten by it leaves.

    A network that beats the baseline is promoted; a predecessor or the baseline that beats the
    champion is restored. Ties keep the champion.
    """
    verdicts = _verdicts(state, settings)
    lost = [c for c in state.challengers() if _is_worse(verdicts[c.version])]
    state, events = _without(state, lost, verdicts, "worse than the champion")
    better = {
        c.version: verdicts[c.version]
        for c in state.contenders
        if c.version != state.champion and _is_better(verdicts[c.version])
    }
    if not better:
        return state, events
    best = max(better, key=lambda version: better[version].bound)
    kind = "rolled back" if _served_before(state, best) else "promoted"
    return _crowned(state, best), [*events, _event(kind, state, best, better[best])]


def _verdicts(state: State, settings: Settings) -> dict[str, Verdict]:
    """Everyone against the champion, on what came since it serves."""
    return {
        other.version: _verdict(state, other, settings)
        for other in state.contenders
        if other.version != state.champion
    }


def _verdict(state: State, other: Contender, settings: Settings) -> Verdict:
    """Of who served before, the best of several: on all candles and on the newest alone."""
    champion = state.contender(state.champion)
    since_ms = max(champion.unseen_ms, state.promoted_ms, other.unseen_ms)
    starts, error = [since_ms], settings.promotion_error
    if _served_before(state, other.version):
        moments = champion.evidence.since(since_ms).date_ms
        counts = (spans * settings.horizon for spans in _RECENT_SPANS)
        starts += [int(moments[-count]) for count in counts if count < len(moments)]
        error /= 1 + len(_RECENT_SPANS)
    verdicts = [
        contest(other.evidence, champion.evidence, start_ms, settings.horizon, error)
        for start_ms in starts
    ]
    return next((verdict for verdict in verdicts if _is_better(verdict)), verdicts[0])


def _served_before(state: State, version: str) -> bool:
    return version == state.predecessor or state.contender(version).kind == "baseline"


def _is_better(verdict: Verdict) -> bool:
    """Proven, and by more than nothing."""
    return verdict.better and not verdict.saved_fraction < _WORTH_IT


def _is_worse(verdict: Verdict) -> bool:
    return verdict.worse and not verdict.saved_fraction > -_WORTH_IT


def _crowned(state: State, version: str) -> State:
    """The contender as champion; the old one is the predecessor, the one before that leaves.

    A champion that was beaten by who served before it has lost what it knew: something is to be
    learnt at once.
    """
    fallen = _served_before(state, version) and state.promoted_ms > 0
    gone = state.predecessor if state.predecessor != version else None
    kept = (version, state.champion)
    return replace(
        state,
        champion=version,
        predecessor=state.champion,
        promoted_ms=state.boundary_ms,
        owed=(state.owed or "finetune") if fallen else state.owed,
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
    """Whether a fine-tuned challenger leads by half of what it takes: it may go on for a while."""
    verdicts = _verdicts(state, settings)
    return any(
        _leads(verdicts[challenger.version])
        and state.boundary_ms - challenger.entered_ms < schedule.retrain_ms
        for challenger in state.challengers()
        if challenger.kind == "finetune"
    )


def _leads(verdict: Verdict) -> bool:
    return verdict.saved_fraction >= _WORTH_IT and verdict.gain + verdict.bound > 0.0


def finetune_parent(state: State) -> Contender | None:
    """The champion if it is a network, else the newest network that wants to be."""
    champion = state.contender(state.champion)
    if champion.kind != "baseline":
        return champion
    networks = [c for c in state.contenders if c.kind != "baseline"]
    return max(networks, key=lambda c: c.entered_ms, default=None)


def decline(state: State, version: str) -> tuple[State, list[Event]]:
    """Let a fine-tuning go that ended where it began: its windows had nothing to teach."""
    at_ms, champion = state.boundary_ms, state.champion
    text = "on the candles held out it did no better than what it came from"
    events = [
        Event("trained", at_ms, version, champion),
        Event("rejected", at_ms, version, champion, text=text),
    ]
    return replace(state, owed=None, finetuned_ms=at_ms, drift={}), events


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
