"""Does the gate let a bad network in, and a better one? Poisoned and sound challengers.

    python benchmarks/study_poison.py

Several invented markets with a learnable relation (`study_switch.market`, stationary). In each a
good network is trained, and challengers that should never serve:

    shuffled   trained on labels in random order
    inverted   trained on labels with the wrong sign
    overfit    trained on 200 windows until it knows them by heart
    nan        forced past trainer and store, which refuse it: raw output that is no number

Each is let in twice: as a network from scratch, with the calibration and the record that its own
held-out blocks give it, and as a fine-tuned one, which is worse: with the good network's
calibration, so that nothing shrinks its errors. Then it is judged after every step, a day of 5m
candles, for four weeks and a day, against the good champion and against the baseline. So are truly
better challengers, against the baseline and against a champion that stopped learning early.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from study_switch import PAIRS, SMALL, STEP_MS, market

from lstm_model.errors import DataError, StoreError, TrainingError
from lstm_model.learning import learner
from lstm_model.learning.chain import Learning
from lstm_model.learning.contender import Contender, View
from lstm_model.learning.learner import Event, State
from lstm_model.learning.matured import Matured
from lstm_model.learning.packing import pack
from lstm_model.learning.run import Run
from lstm_model.model.calibration import Calibration
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.gate import Evidence, contest
from lstm_model.model.mean import Windows, learn_mean
from lstm_model.scoring.evaluation import Evaluation
from lstm_model.settings import Settings, parse_settings
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore
from lstm_model.training.job import TrainingJob
from lstm_model.training.maker import ModelMaker, Training
from lstm_model.training.material import reach_ms
from lstm_model.training.trainer import run_training

STEPS = 29  # of 288 candles
KINDS = ("shuffled", "inverted", "overfit", "nan")
Predict = Callable[[Matured], np.ndarray]
Weights = Mapping[str, np.ndarray]


class Entrant(NamedTuple):
    """A network, how it answers, and what it brings along."""

    name: str
    predict: Predict
    calibration: Calibration
    evidence: Evidence

    def contender(self, kind: str, boundary_ms: int) -> Contender:
        """As the learner lets it in: a fine-tuned one has yet to earn a record."""
        known = kind != "finetune" and len(self.evidence) > 0
        unseen_ms = int(self.evidence.date_ms[0]) if known else boundary_ms
        evidence = self.evidence if known else Evidence.nothing()
        return Contender.entering(
            self.name, kind, unseen_ms, boundary_ms, self.calibration, evidence, SMALL["horizon"]
        )


class World:
    """One market: its material, its baseline, its good network and the days that follow."""

    def __init__(self, seed: int, signal: float, settings: Settings, root: Path) -> None:
        self.settings, self.seed = settings, seed
        self.boundary_ms = 200 * settings.retrain_candles * STEP_MS
        past = reach_ms(settings, "5m", len(PAIRS)) // STEP_MS
        count = past + (STEPS + 1) * settings.step_candles
        begin_ms = self.boundary_ms - past * STEP_MS
        known = {p: market(p, seed, begin_ms, count, 0, "stationary", signal) for p in PAIRS}
        self.maker = ModelMaker(settings, "5m", PAIRS, ModelStore(root), known.get)
        self.learning = Learning(self.maker, StepStore(root))
        self.material = self.maker.material(self.boundary_ms)
        run = Run(known.get, lambda wish, boundary_ms: Training())
        step_ms = self.learning.schedule.step_ms
        bounds = [self.boundary_ms + number * step_ms for number in range(STEPS + 1)]
        self.days = [self.learning.matured(a, b, run) for a, b in pairwise(bounds)]
        made = self.maker.baseline(self.material)
        card = made.stored.card
        calibration = Calibration.from_card(settings.levels, card.calibration)
        weights = made.stored.weights
        self.baseline = Entrant("baseline", self._answers(weights), calibration, made.evidence)
        self.good_weights = fitted(self.job(seed))
        self.good = self.entrant("good", self.good_weights)

    def job(self, seed: int, **options: object) -> TrainingJob:
        """A training on the true labels."""
        split, panel = self.material.split, self.material.panel
        job = self.maker._job(panel, split.train, split.validation, self.material.scaled)
        return replace(job, settings=self.settings.model_copy(update={"seed": seed, **options}))

    def entrant(self, name: str, weights: Weights) -> Entrant:
        """A trained network with its own calibration and the record of its test block."""
        scaler = self.material.scaler
        whole = {**weights, "scaler/mean": scaler.mean, "scaler/scale": scaler.scale}
        found: Evaluation = self.maker._evaluate(self.material, whole)
        return Entrant(name, self._answers(whole), found.calibration, found.evidence)

    def _answers(self, weights: Weights) -> Predict:
        lstm = Ensemble(weights, self.settings.lookback)
        answers = lru_cache(maxsize=None)(
            lambda day: lstm.predict(self.days[day].panel.rows, self.days[day].rows)
        )
        return lambda matured: answers(next(n for n, d in enumerate(self.days) if d is matured))


def fitted(job: TrainingJob) -> Weights:
    """Weights that a training gives, and the mean that its labels lead to; without scaler."""
    with tempfile.TemporaryDirectory() as folder:
        trained = run_training(job, Path(folder), background=False).weights
    ones = np.ones(job.rows.shape[1], np.float32)  # the rows of a job are scaled already
    start = {**(job.initial or {}), **trained, "scaler/mean": 0.0 * ones, "scaler/scale": ones}
    windows = Windows(job.rows, job.targets, job.train_ends, job.validation_ends)
    made = learn_mean(start, windows)
    return {name: array for name, array in made.items() if not name.startswith("scaler/")}


def poisoned(world: World, kind: str, seed: int) -> Entrant:
    """A challenger that should never serve."""
    random, job = np.random.default_rng(seed), world.job(seed)
    targets = job.targets.copy()
    if kind == "shuffled":
        for ends in (world.material.split.train, world.material.split.validation):
            targets[ends] = random.permutation(targets[ends])
    elif kind == "inverted":
        targets = -targets
    elif kind == "overfit":
        few = np.sort(random.choice(job.train_ends, 200, replace=False))
        job = world.job(seed, max_epochs=150, patience=150, batch_size=32)
        job = replace(job, train_ends=few, validation_ends=few)
    else:
        return _no_number(world, seed)
    return world.entrant(f"{kind}-{seed}", fitted(replace(job, targets=targets)))


def _no_number(world: World, seed: int) -> Entrant:
    """The good network, but for numbers that are none: all, a column, a few rows, one row a day."""

    def predict(matured: Matured) -> np.ndarray:
        raw = world.good.predict(matured).copy()
        random, value = np.random.default_rng(seed), (math.nan, math.inf, -math.inf)[seed % 3]
        rows = (
            np.arange(len(raw)),
            random.random(len(raw)) < 0.01,
            np.array([seed % len(raw)]),
            np.flatnonzero(matured.labels.pair_index == 0),
        )[seed // 3 % 4]
        columns = slice(None) if seed % 2 else seed % raw.shape[1]
        raw[rows, columns] = value
        return raw

    return Entrant(f"nan-{seed}", predict, world.good.calibration, Evidence.nothing())


class Trial(NamedTuple):
    """What became of a challenger.

    Attributes
    ----------
    promoted_after : candles from its admission to its promotion; infinite without one
    rejected_after : the same, to its rejection as worse
    saved : share of the first champion's pinball loss that it saves over all the days
    """

    name: str
    promoted_after: float
    rejected_after: float
    saved: float
    end: State


def trial(world: World, champion: Entrant, challenger: Entrant | None, kind: str) -> Trial:
    """Let a challenger in and judge it after every step."""
    entrants = {e.name: e for e in (world.baseline, champion, challenger) if e is not None}
    state, events = opening(world, champion), []
    first, settings = state.champion, world.settings
    if challenger is not None:
        newcomer = challenger.contender(kind, world.boundary_ms)
        state, _ = learner.admit(state, newcomer, settings)
        state, events = learner.judge(state, settings)
    records: dict[str, Evidence] = {name: Evidence.nothing() for name in entrants}
    for number, day in enumerate(world.days, start=1):
        boundary_ms = world.boundary_ms + number * world.learning.schedule.step_ms
        views = {c.version: entrants[c.version] for c in state.contenders}
        said = {name: View(e.predict(day), e.calibration) for name, e in views.items()}
        with np.errstate(invalid="ignore"):  # of those that are no numbers
            state = learner.observe(
                state, boundary_ms, day.labels, said, settings, world.learning.schedule
            )
        records |= {c.version: c.evidence for c in state.contenders}
        json.dumps(pack(state)[0], allow_nan=False)
        state, judged = learner.judge(state, settings)
        events.extend(judged)
    name = "" if challenger is None else challenger.name
    return Trial(
        name,
        _after(world, events, "promoted", name),
        _after(world, events, "rejected", name),
        _saved(world, records, name, first),
        state,
    )


def opening(world: World, champion: Entrant) -> State:
    """The state at the boundary with this champion; the baseline is always a contender."""
    state = learner.begin(
        world.boundary_ms, world.baseline.contender("baseline", world.boundary_ms)
    )
    if champion.name == "baseline":
        return state
    serving = champion.contender("scratch", world.boundary_ms)
    return replace(
        state, champion=champion.name, promoted_ms=world.boundary_ms,
        contenders=(*state.contenders, serving),
    )  # fmt: skip


def _after(world: World, events: Sequence[Event], kind: str, name: str) -> float:
    found = [e.at_ms for e in events if e.kind == kind and e.version == name]
    return (found[0] - world.boundary_ms) / STEP_MS if found else math.inf


def _saved(world: World, records: Mapping[str, Evidence], name: str, first: str) -> float:
    if name not in records or name == first:
        return math.nan
    settings = world.settings
    verdict = contest(
        records[name], records[first], world.boundary_ms, settings.horizon, settings.promotion_error
    )
    return verdict.saved_fraction


def summary(title: str, trials: Sequence[Trial]) -> str:
    """One line of the table."""
    promoted = sorted(t.promoted_after for t in trials if t.promoted_after < math.inf)
    rejected = sorted(t.rejected_after for t in trials if t.rejected_after < math.inf)
    known = [t.saved for t in trials if math.isfinite(t.saved)]
    saved = (
        f"{np.mean(known):+8.2%} ({min(known):+.2%} to {max(known):+.2%})" if known else "no number"
    )
    return (
        f"{title:44} {len(trials):>4} {len(promoted):>9} {_range(promoted):>18} "
        f"{len(rejected):>9} {_range(rejected):>18}  {saved}"
    )


def _range(candles: Sequence[float]) -> str:
    if not candles:
        return "-"
    return f"{np.median(candles):,.0f} ({candles[0]:,.0f}-{candles[-1]:,.0f})"


HEAD = (f"{'challenger, entering as, against':44} {'n':>4} {'promoted':>9} {'after candles':>18} "
        f"{'rejected':>9} {'after candles':>18}  pinball loss saved, mean (range)")  # fmt: skip


def refusals(world: World) -> list[str]:
    """Where weights and labels that are no numbers are stopped before the gate."""
    lines, job = [], world.job(1, max_epochs=1)
    broken = {n: a.copy() for n, a in world.good_weights.items()}
    broken["gaps/kernel"][0] = math.nan
    card = world.maker.baseline(world.material).stored.card.model_copy(
        update={"version": "poisoned"}
    )
    attempts: dict[str, Callable[[], object]] = {
        "store, weights with a NaN": lambda: world.maker.store.publish(card, broken, None),
        "trainer, a NaN among the labels": lambda: _with_targets(job, math.nan),
        "trainer, endless labels": lambda: _with_targets(job, math.inf),
        "trainer, a NaN in the initial weights": lambda: fitted(replace(job, initial=broken)),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
            lines.append(f"{name}: NOT REFUSED")
        except (DataError, StoreError, TrainingError) as error:
            lines.append(f"{name}: {type(error).__name__}: {error}")
    return lines


def _with_targets(job: TrainingJob, factor: float) -> Weights:
    return fitted(replace(job, targets=job.targets * np.float32(factor)))


def undisturbed(world: World, challenger: Entrant) -> bool:
    """Whether the champion's record, widths and drift are the same bits without the challenger."""
    with_it = trial(world, world.good, challenger, "finetune").end
    alone = trial(world, world.good, None, "").end
    mine, theirs = with_it.contender("good"), alone.contender("good")
    columns = mine.evidence.arrays().values()
    same = all(
        np.array_equal(a, b)
        for a, b in zip(
            mine.evidence.arrays().values(), theirs.evidence.arrays().values(), strict=True
        )
    )
    return (
        same and mine.widths == theirs.widths and with_it.drift == alone.drift
        and all(np.isfinite(column).all() for column in columns)
        and with_it.champion == "good"
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=4)
    parser.add_argument("--each", type=int, default=14, help="challengers of a kind")
    parser.add_argument("--signal", type=float, default=0.15)
    options = parser.parse_args()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a graph per training is meant
    started_s, settings = time.monotonic(), parse_settings({**SMALL, "seed": 1})
    with tempfile.TemporaryDirectory() as root:
        worlds = [
            World(seed, options.signal, settings, Path(root) / str(seed))
            for seed in range(101, 101 + options.markets)
        ]
        _report(worlds, options.each, options.signal)
    print(f"\n{time.monotonic() - started_s:.0f} s")


def _report(worlds: Sequence[World], each: int, signal: float) -> None:
    print(f"{len(worlds)} markets, 5m, {', '.join(PAIRS)}, signal {signal}; {SMALL}; judged "
          f"{STEPS} times, every {worlds[0].settings.step_candles} candles, promotion_error "
          f"{worlds[0].settings.promotion_error}")  # fmt: skip
    good = [trial(w, w.baseline, w.good, "finetune") for w in worlds]
    print(
        "good networks save of the baseline's loss: " + ", ".join(f"{t.saved:+.2%}" for t in good)
    )
    print("\n" + "\n".join(refusals(worlds[0])) + f"\n\n{HEAD}")
    everything: dict[str, list[Trial]] = {"good": [], "baseline": []}
    for kind in KINDS:
        challengers = [
            (w := worlds[n % len(worlds)], poisoned(w, kind, 1_000 + n)) for n in range(each)
        ]
        if kind != "nan":
            worth = [e.calibration.shrinkage for _, e in challengers]
            print(f"{kind}: their own held-out blocks shrink their means to {min(worth):.2f} to "
                  f"{max(worth):.2f} of what they say (good: "
                  f"{min(w.good.calibration.shrinkage for w in worlds):.2f} or more)")  # fmt: skip
        for name in everything:
            for way in ("scratch", "finetune"):
                trials = [
                    trial(w, w.good if name == "good" else w.baseline, _as(e, way, w), way)
                    for w, e in challengers
                ]
                everything[name] += trials
                print(summary(f"{kind}, {way}, {name}", trials), flush=True)
        if kind == "nan":
            safe = sum(undisturbed(w, e) for w, e in challengers)
            print(f"nan: champion's record, widths and drift watch bit for bit as without it: "
                  f"{safe} of {len(challengers)}")  # fmt: skip
            print(summary("baseline or good against a nan champion",
                          [_deposed(w, e) for w, e in challengers]))  # fmt: skip
    for name, trials in everything.items():
        found = [t for t in trials if t.promoted_after < math.inf]
        truly = sum(t.saved > 0.0 for t in found)
        print(f"poisoned, against {name}: {len(found)} of {len(trials)} promoted, {truly} of them "
              f"better over all days: {', '.join(t.name for t in found) or 'none'}")  # fmt: skip
    _better(worlds)


def _as(entrant: Entrant, way: str, world: World) -> Entrant:
    """A fine-tuned network keeps its parent's calibration."""
    return entrant if way == "scratch" else entrant._replace(calibration=world.good.calibration)


def _deposed(world: World, broken: Entrant) -> Trial:
    """A champion that answers with what is no number, and the good network as challenger."""
    return trial(world, broken, world.good, "finetune")


def _better(worlds: Sequence[World]) -> None:
    """Sound challengers against the baseline and against a champion that stopped learning early."""
    print(f"\n{HEAD}")
    sound = [
        (w, w.entrant(f"sound-{seed}", fitted(w.job(seed))))
        for w in worlds
        for seed in (11, 12, 13)
    ]
    for way in ("scratch", "finetune"):
        trials = [trial(w, w.baseline, e, way) for w, e in sound]
        print(summary(f"sound, {way}, baseline", trials), flush=True)
    half = {w.seed: w.entrant("half", fitted(_early(w))) for w in worlds}
    for way in ("scratch", "finetune"):
        trials = [trial(w, half[w.seed], e, way) for w, e in sound]
        print(summary(f"sound, {way}, half-trained", trials), flush=True)


def _early(world: World) -> TrainingJob:
    """A training that sees a tenth of the windows once."""
    job = world.job(7, max_epochs=1)
    return replace(job, train_ends=job.train_ends[::10])


if __name__ == "__main__":
    main()
