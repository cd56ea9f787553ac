"""Nothing bad gets in, something better does, and what turns bad has to go: the gate at work.

Networks are fitted in milliseconds (`instant_training`); the learner is the real one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from instant_training import SETTINGS, InstantTraining, fit, make_maker, start_of
from series import START_MS, STEP_MS, make_candles

import lstm_model.training.maker
from lstm_model.learning import learner
from lstm_model.learning.chain import Learning
from lstm_model.learning.contender import Contender, View
from lstm_model.learning.learner import Event, State
from lstm_model.learning.matured import Matured
from lstm_model.learning.run import Run
from lstm_model.learning.steps import Step
from lstm_model.market.candles import Candles
from lstm_model.model.calibration import Calibration
from lstm_model.model.gate import Evidence
from lstm_model.model.lstm import Lstm
from lstm_model.model.mean import Windows, learn_mean
from lstm_model.settings import Settings
from lstm_model.store.steps import StepStore
from lstm_model.training.job import TrainingJob, TrainingResult
from lstm_model.training.maker import Training

SIGNAL = 0.6
DAYS = 20  # steps of 100 candles
PAIRS = ("BTC/USDT", "ETH/USDT")
LEARNT = SETTINGS.model_copy(update={"step_candles": 100})


class Entrant(NamedTuple):
    """A network's weights and how its output is read."""

    weights: dict[str, np.ndarray]
    calibration: Calibration


class World(NamedTuple):
    """A learnable market: what is known at the boundary, and the days that follow."""

    learning: Learning
    boundary_ms: int
    job: TrainingJob
    scaler: dict[str, np.ndarray]
    baseline: Entrant
    good: Entrant
    days: Sequence[Matured]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    patch = pytest.MonkeyPatch()
    patch.setattr(lstm_model.training.maker, "TRAINER", training := InstantTraining())
    series = [make_candles(3_700, pair=p, seed=n, signal=SIGNAL) for n, p in enumerate(PAIRS)]
    maker = make_maker(tmp_path_factory.mktemp("world"), series, LEARNT)
    learning = Learning(maker, StepStore(maker.store.root))
    boundary_ms = learning.schedule.last_boundary(START_MS + 1_500 * STEP_MS)
    material = maker.material(boundary_ms)
    made = [candidate.stored for candidate in (maker.baseline(material), maker.scratch(material))]
    baseline, good = (
        Entrant(dict(m.weights), Calibration.from_card(LEARNT.levels, m.card.calibration))
        for m in made
    )
    scaler = {name: a for name, a in good.weights.items() if name.startswith("scaler/")}
    run = Run(maker.history.of, lambda wish, at_ms: Training())
    bounds = [boundary_ms + n * learning.schedule.step_ms for n in range(DAYS + 1)]
    days = [learning.matured(a, b, run) for a, b in pairwise(bounds)]
    yield World(learning, boundary_ms, training.jobs[0], scaler, baseline, good, days)
    patch.undo()


def poisoned(world: World, kind: str, seed: int) -> Entrant:
    """A fine-tuned challenger that should never serve; it keeps the good one's calibration."""
    random, job = np.random.default_rng(seed), world.job
    job = replace(job, settings=job.settings.model_copy(update={"seed": seed}))
    if kind == "shuffled":
        targets = job.targets.copy()
        targets[job.train_ends] = random.permutation(targets[job.train_ends])
        job = replace(job, targets=targets)
    elif kind == "inverted":
        job = replace(job, targets=-job.targets)
    elif kind == "overfit":
        few = random.choice(job.train_ends, 20, replace=False)
        job = replace(job, train_ends=few, validation_ends=few)
    weights = made_of(job, world)
    if kind == "no number":
        weights["mean/bias"] = np.full_like(weights["mean/bias"], math.nan)
    return Entrant(weights, world.good.calibration)


def made_of(job: TrainingJob, world: World) -> dict[str, np.ndarray]:
    """The weights that a maker makes of a job, whose rows are scaled already."""
    ones = {name: np.full_like(a, name.endswith("scale")) for name, a in world.scaler.items()}
    windows = Windows(
        *map(np.asarray, (job.rows, job.targets, job.train_ends, job.validation_ends))
    )
    return learn_mean(fit(job) | ones, windows) | world.scaler


def all_poisoned(world: World, kinds: Sequence[str]) -> dict[str, Entrant]:
    return {
        f"{kind} {seed}": poisoned(world, kind, seed) for kind in kinds for seed in (1, 2, 3, 4)
    }


def judged(world: World, champion: str, entrants: dict[str, Entrant]) -> tuple[State, list[Event]]:
    """Let all in at once beside the baseline, and judge them after every step."""
    entrants = {"baseline": world.baseline} | entrants
    contenders = tuple(
        Contender.entering(
            name, "baseline" if name == "baseline" else "finetune", world.boundary_ms,
            world.boundary_ms, entrant.calibration, Evidence.nothing(), LEARNT.horizon,
        )
        for name, entrant in entrants.items()
    )  # fmt: skip
    state = replace(learner.begin(world.boundary_ms, contenders[0]), contenders=contenders)
    state, events = replace(state, champion=champion), []
    schedule = world.learning.schedule
    networks = {name: Lstm(e.weights, LEARNT.lookback) for name, e in entrants.items()}
    for day in world.days:
        views = {
            c.version: View(
                networks[c.version].predict(day.panel.rows, day.rows),
                entrants[c.version].calibration,
            )
            for c in state.contenders
        }
        end_ms = state.boundary_ms + schedule.step_ms
        state = learner.observe(state, end_ms, day.labels, views, LEARNT, schedule)
        state, made = learner.judge(state, LEARNT)
        events.extend(made)
    return state, events


def of_kind(events: Sequence[Event], kind: str) -> list[str]:
    return [event.version for event in events if event.kind == kind]


HARMFUL = ("inverted", "overfit", "no number")


@pytest.mark.lengthy
def test_no_poisoned_challenger_is_promoted(world: World) -> None:
    bad = all_poisoned(world, ("shuffled", *HARMFUL))
    assert len(bad) == 16
    state, events = judged(world, "good", {"good": world.good} | bad)
    assert state.champion == "good"
    assert of_kind(events, "promoted") == of_kind(events, "rolled back") == []
    stayed = set(bad) - set(of_kind(events, "rejected"))
    assert len(stayed) <= 1  # without its mean it is hardly worse than the baseline


def test_not_even_the_baseline_makes_way_for_poison(world: World) -> None:
    state, events = judged(world, "baseline", all_poisoned(world, HARMFUL))
    assert state.champion == "baseline"
    assert {event.kind for event in events} == {"rejected"}


@pytest.mark.lengthy
def test_the_good_one_among_the_poisoned_is_found(world: World) -> None:
    bad = all_poisoned(world, HARMFUL)
    state, events = judged(world, "baseline", bad | {"good": world.good})
    assert state.champion == "good"
    assert of_kind(events, "promoted") == ["good"]


def test_a_better_challenger_replaces_a_worse_network(world: World) -> None:
    half = replace(world.job, train_ends=world.job.train_ends[:60])
    champion = Entrant(made_of(half, world), world.good.calibration)
    state, events = judged(world, "half", {"half": champion, "good": world.good})
    assert state.champion == "good"
    assert of_kind(events, "promoted") == ["good"]


# The whole learner


def turning(signal: float, row: int, *, seed: int = 0, count: int = 2_900) -> list[Candles]:
    """Markets whose relation changes its sign at a row."""
    out = []
    for number, pair in enumerate(PAIRS):
        up, down = (
            make_candles(count, pair=pair, seed=10 * seed + number, signal=s)
            for s in (signal, -signal)
        )
        ratio = up.close[row - 1] / down.close[row - 1]
        columns = {
            name: np.concatenate([getattr(up, name)[:row], ratio * getattr(down, name)[row:]])
            for name in ("open", "high", "low", "close")
        }
        out.append(replace(up, **columns))
    return out


def course(root: Path, series: Sequence[Candles], settings: Settings) -> list[Step]:
    """All the steps of a learner, from the first retraining that has enough history."""
    maker = make_maker(root, series, settings)
    learning = Learning(maker, StepStore(maker.store.root))
    origin_ms = learning.schedule.origin_of(
        learning.schedule.last_boundary(START_MS + 1_700 * STEP_MS)
    )
    run = Run(maker.history.of, lambda wish, at_ms: Training())
    last_ms = learning.schedule.last_boundary(int(series[0].date_ms[-1]))
    return list(learning.walk(origin_ms, last_ms, run))


def events_of(steps: Sequence[Step], *kinds: str) -> list[Event]:
    return [event for step in steps for event in step.events if event.kind in kinds]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> InstantTraining:
    instant = InstantTraining()
    monkeypatch.setattr(lstm_model.training.maker, "TRAINER", instant)
    monkeypatch.setattr(lstm_model.training.maker, "learn_mean", learn_mean)  # `turned` is about
    return instant


def random_walk(pair: str, seed: int) -> Candles:
    """Candles that nobody can forecast, nor how wild they will be."""
    random, count = np.random.default_rng(seed), 2_500
    close = 100.0 * np.exp(0.001 * random.standard_t(5, count).cumsum())
    open_ = np.concatenate([[100.0], close[:-1]])
    reach = 0.001 * np.abs(random.normal(size=(2, count)))
    high, low = np.maximum(open_, close) * (1 + reach[0]), np.minimum(open_, close) * (1 - reach[1])
    known = make_candles(count, pair=pair, seed=seed)
    return replace(known, open=open_, high=high, low=low, close=close)


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_baseline_serves_a_random_walk_for_ever(
    tmp_path: Path, training: InstantTraining, seed: int
) -> None:
    steps = course(tmp_path, [random_walk(p, 10 * seed + n) for n, p in enumerate(PAIRS)], LEARNT)
    assert {step.model.card.kind for step in steps} == {"baseline"}
    assert len(training.jobs) > 6  # for want of trying it is not


class StubbornTraining(InstantTraining):
    """Its fine-tunings learn nothing: they give the weights that they were given."""

    def run(
        self, job: TrainingJob, workdir: Path, *rest: object, **options: object
    ) -> TrainingResult:
        result = super().run(job, workdir, *rest, **options)
        return result if job.initial is None else replace(result, weights=start_of(job))


def learn_no_other_mean(weights: dict[str, np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
    """A fine-tuning keeps the mean that its parent has."""
    return weights if "mean/bias" in weights else learn_mean(weights, windows)


# One retraining, 400 candles before the market turns round; later ones come of drift.
DRIFTING = LEARNT.model_copy(
    update={"finetune_candles": 0, "drift_cooldown_candles": 300, "retrain_candles": 1_300}
)
TURN = 2_000
TURN_MS = START_MS + TURN * STEP_MS
COOL_DOWN_MS = DRIFTING.drift_cooldown_candles * STEP_MS


@pytest.fixture(scope="module", params=[InstantTraining, StubbornTraining])
def turned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Step]]:
    """A learner in a market that turns round; with fine-tunings that help and that do not."""
    patch = pytest.MonkeyPatch()
    if request.param is StubbornTraining:
        patch.setattr(lstm_model.training.maker, "learn_mean", learn_no_other_mean)
    patch.setattr(lstm_model.training.maker, "TRAINER", request.param())
    yield course(tmp_path_factory.mktemp("turned"), turning(1.5, TURN, seed=1), DRIFTING)
    patch.undo()


@pytest.fixture
def learns(request: pytest.FixtureRequest) -> bool:
    """Whether the fine-tunings of `turned` help."""
    return request.node.callspec.params["turned"] is InstantTraining


@pytest.mark.lengthy
def test_drift_leads_to_an_early_fine_tuning(turned: list[Step]) -> None:
    drift = events_of(turned, "drift")[0]
    assert TURN_MS < drift.at_ms <= TURN_MS + 300 * STEP_MS
    assert drift.text
    step = next(step for step in turned if step.boundary_ms == drift.at_ms)
    assert [event.kind for event in step.events][:2] == ["drift", "trained"]


def test_drift_alone_promotes_nobody(turned: list[Step]) -> None:
    for before, step in pairwise(turned):
        changed = step.model.card.version != before.model.card.version
        reasons = [e for e in step.events if e.kind in ("promoted", "rolled back")]
        assert changed == bool(reasons)
        for event in reasons:
            assert event.bound > 0.0
            assert event.candles >= 30 * DRIFTING.horizon


def test_between_two_fine_tunings_for_drift_lies_the_cool_down(turned: list[Step]) -> None:
    times = [event.at_ms for event in events_of(turned, "drift")]
    assert all(b - a >= COOL_DOWN_MS for a, b in pairwise(times))


def test_a_fine_tuning_competes_if_it_has_learnt_something(
    turned: list[Step], learns: bool
) -> None:
    drifted = [step for step in turned if any(event.kind == "drift" for event in step.events)]
    for step in drifted:
        [made] = of_kind(step.events, "trained")
        assert (made in step.versions) is learns
        assert (made in of_kind(step.events, "rejected")) is not learns


def test_what_was_learnt_of_the_new_market_is_promoted(turned: list[Step], learns: bool) -> None:
    kinds = {step.model.card.kind for step in turned if step.boundary_ms > TURN_MS}
    assert ("finetune" in kinds) is learns


@pytest.mark.parametrize("turned", [StubbornTraining], indirect=True)
def test_a_promoted_model_that_turns_bad_is_rolled_back(turned: list[Step]) -> None:
    promoted, back = events_of(turned, "promoted", "rolled back")
    assert (promoted.kind, back.kind) == ("promoted", "rolled back")
    assert back.champion == promoted.version
    assert back.bound > 0.0
    assert promoted.at_ms < TURN_MS < back.at_ms <= TURN_MS + 600 * STEP_MS
    assert turned[-1].model.card.kind == "baseline"
    [fallen] = [step for step in turned if step.boundary_ms == back.at_ms]
    assert [event.kind for event in fallen.events][:2] == ["rolled back", "trained"]


@pytest.mark.lengthy
def test_a_fine_tuned_challenger_that_leads_is_not_replaced(
    tmp_path: Path, training: InstantTraining
) -> None:
    settings = LEARNT.model_copy(update={"retrain_candles": 1_300, "finetune_candles": 100})
    steps = course(tmp_path, turning(0.6, TURN, seed=1), settings)
    entered = {e.version: e.at_ms for e in events_of(steps, "trained")}
    replaced = [e for e in events_of(steps, "rejected") if e.text == "no better in time"]
    asked = {e.at_ms for e in events_of(steps, "drift")}
    assert replaced
    for event in replaced:
        old = event.at_ms - entered[event.version] >= settings.retrain_candles * STEP_MS
        led = event.bound is not None and event.gain + event.bound > 0.0
        assert not led or old or event.at_ms in asked
    calendar = {s.boundary_ms for s in steps if not s.boundary_ms // STEP_MS % 100}
    assert len(calendar - set(entered.values())) >= 1  # one was left to prove itself
