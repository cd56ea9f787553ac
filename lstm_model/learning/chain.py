"""The chain of the learner's steps: what each looked at, what came of it, and where it is kept.

A step's address is the hash of the step before, the settings, the code and the candles that came
with it. So a backtest, a hyperopt epoch and a restarted bot find what was computed already, and
what was cut short is computed again to the same result.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from lstm_model.errors import DataError, StoreError, TrainingError
from lstm_model.learning import learner
from lstm_model.learning.contender import Contender, View
from lstm_model.learning.learner import Event, State, Wish
from lstm_model.learning.matured import Matured, label_reach, mature
from lstm_model.learning.packing import pack, unpack, unpack_contender, unpack_far, unpack_usual
from lstm_model.learning.run import SCRATCH, Run
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Candles
from lstm_model.market.history import digest_of
from lstm_model.model.calibration import Calibration
from lstm_model.model.gate import Evidence
from lstm_model.model.model import Model
from lstm_model.model.reliability import Kept
from lstm_model.store.card import ModelCard, canonical
from lstm_model.store.lineage import lineages
from lstm_model.store.steps import StepStore
from lstm_model.training.maker import Candidate, ModelMaker, code_digest
from lstm_model.training.material import Material

logger = logging.getLogger(__name__)

_MODELS_READY = 16  # chosen: versions kept in memory, far more than compete at a time

# The code that decides a step beside what decides its models.
_DECISIVE_MODULES = (
    "features.closed_candle", "features.context", "features.ingredients", "features.series",
    "learning.chain", "learning.contender", "learning.drift", "learning.learner",
    "learning.matured", "learning.packing", "learning.schedule", "market.candles",
    "model.calibration", "model.dataset", "model.ensemble", "model.forecast", "model.gate",
    "model.lstm", "model.mean", "model.reach", "model.reliability", "model.weights",
    "scoring.evaluation", "scoring.har", "training.maker", "training.material",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What the learner came to at one boundary.

    Attributes
    ----------
    model : the champion, with the calibration and the skill it has by now
    versions : every version that competes
    """

    address: str
    boundary_ms: int
    model: Model
    versions: frozenset[str]
    events: tuple[Event, ...]


class Learning:
    """Computes steps, or finds them.

    Parameters
    ----------
    maker : of the models
    steps : where the steps are kept
    followed : pairs that are scored and calibrated beside those that models learn from
    """

    def __init__(self, maker: ModelMaker, steps: StepStore, followed: Sequence[str] = ()) -> None:
        self.maker = maker
        self.schedule = Schedule.of(maker.settings, maker.timeframe)
        self.pairs = tuple(sorted({*maker.pairs, *followed}))
        self._steps = steps
        self._model = lru_cache(maxsize=_MODELS_READY)(self._load_model)

    def follow(self, pairs: Sequence[str]) -> None:
        """From the next step on, score and calibrate these pairs beside those of the maker."""
        self.pairs = tuple(sorted({*self.maker.pairs, *pairs}))

    def origin_of(self, boundary_ms: int) -> int:
        """Where the chain begins that is to reach a boundary: by the schedule or by the user."""
        since_ms = self.maker.settings.learn_from_ms
        if since_ms is not None:
            boundary_ms = min(boundary_ms, self.schedule.last_boundary(since_ms))
        return self.schedule.origin_of(boundary_ms)

    def origin(self, boundary_ms: int, run: Run) -> Step:
        """Begin a chain at a boundary: the baseline, and the first network to compete with it.

        Raises
        ------
        DataError
            Too little history before the boundary.
        TrainingError, StoreError
            The network could not be made.
        """
        material = self.maker.material(boundary_ms, run.known)
        material.check()
        address = self._address("", boundary_ms, self.maker.version(material))
        found = self._found(address)
        if found is not None:
            return found
        state, events = self._originate(boundary_ms, run)
        return self._kept(address, None, state, events)

    def after(self, step: Step, run: Run) -> Step:
        """The step that follows.

        Raises
        ------
        DataError, TrainingError, StoreError
            A model that is due could not be made.
        """
        boundary_ms = step.boundary_ms + self.schedule.step_ms
        fresh = list(self._candles(step.boundary_ms, boundary_ms, run))
        digest = digest_of(fresh, self.maker.settings)
        address = self._address(step.address, boundary_ms, digest)
        found = self._found(address)
        if found is not None:
            return found
        state, events = self._computed(self._state(step.address, run), boundary_ms, run)
        return self._kept(address, step.address, state, events)

    def walk(
        self, origin_ms: int, last_ms: int, run: Run, start: Step | None = None
    ) -> Iterator[Step]:
        """The steps after `start`, or from the origin on, until the boundary `last_ms`.

        Raises
        ------
        DataError, TrainingError, StoreError
            As `origin` and `after`.
        """
        step = start
        if step is None:
            step = self.origin(origin_ms, run)
            yield step
        elif (record := self._steps.record(step.address)) is not None:
            self._release(record["previous"])  # who came this far may have been killed before it
        while step.boundary_ms < last_ms:
            before, step = step, self.after(step, run)
            yield step
            self._release(before.address)
        run.panels.forget()

    def resume(self, address: str, count: int = 1) -> tuple[Step, ...]:
        """The `count` steps that end with this one, oldest first, as far as they are there."""
        steps: list[Step] = []
        at: str | None = address
        while at and len(steps) < count and (step := self._found(at)) is not None:
            steps.insert(0, step)
            at = (self._steps.record(at) or {}).get("previous")
        return tuple(steps)

    def continues(self, step: Step, due_ms: int) -> bool:
        """Whether who is to reach the boundary `due_ms` goes on from this step.

        Else the learner begins anew: the step is older than a retraining, or it was not made by
        the code and for the settings of now.
        """
        if due_ms - step.boundary_ms > self.schedule.retrain_ms:
            return False
        record = self._steps.record(step.address)
        return record is not None and record.get("made_by") == self._made_by()

    def model(self, version: str, steps: Sequence[Step] = ()) -> Model:
        """A version ready to serve, with what the newest of these steps knows of it.

        Raises
        ------
        StoreError
            It is not in the store, or fits other settings.
        """
        for step in reversed(steps):
            record = self._steps.record(step.address)
            if record is not None and version in record["p_values"]:
                return self._as_of(record, version)
        return self._model(version)

    def card(self, version: str) -> ModelCard:
        """The card of a version that is in the store."""
        return self._model(version).card

    def _release(self, address: str | None) -> None:
        """Drop what only the next step needed, unless a bot has to go on from here."""
        heads = {lineage.head for lineage in lineages(self.maker.store.root)}
        if address is not None and address not in heads:
            self._steps.forget(address)

    def _address(self, previous: str, boundary_ms: int, data: str) -> str:
        parts = {"previous": previous, "boundary": str(boundary_ms), "data": data}
        return hashlib.sha256(canonical(parts | self._made_by())).hexdigest()[:32]

    def _made_by(self) -> dict[str, str]:
        return {
            "settings": self.maker.settings.learning_digest(),
            "code": code_digest(_DECISIVE_MODULES),
            "timeframe": self.maker.timeframe,
        }

    def _candles(self, start_ms: int, end_ms: int, run: Run) -> Iterator[Candles]:
        for pair in self.pairs:
            known = run.known(pair)
            if known is not None:
                yield known.between(start_ms, end_ms)

    def _state(self, address: str, run: Run) -> State:
        """The state at a step; computed again where only its record is left."""
        missing: list[dict[str, Any]] = []
        at: str | None = address
        found = None
        while at is not None:
            found = self._steps.load(at)
            if found is not None and self._has_models(found[0]["p_values"]):
                break
            found, record = None, self._steps.record(at)
            if record is None:
                raise DataError(f"the step {at} is gone; the learner has to begin anew")
            missing.append(record)
            at = record["previous"]
        state = None if found is None else unpack(*found)
        for record in reversed(missing):
            boundary_ms = record["boundary_ms"]
            if state is None:
                state, _ = self._originate(boundary_ms, run)
            else:
                state, _ = self._computed(state, boundary_ms, run)
        assert state is not None  # noqa: S101 - the loop ends with one
        return state

    def _originate(self, boundary_ms: int, run: Run) -> tuple[State, list[Event]]:
        material = self.maker.material(boundary_ms, run.known, run.panels)
        network = self._network(material, boundary_ms, run)  # trains beside what follows
        baseline = self.maker.baseline(material)
        state = learner.begin(boundary_ms, self._entering(baseline, boundary_ms))
        state = learner.measured(state, material.candles, self.maker.settings)
        newcomer = self._entering(network(), boundary_ms)
        state, trained = learner.admit(state, newcomer, self.maker.settings)
        state, judged = learner.judge(state, self.maker.settings)
        return state, [*trained, *judged]

    def _computed(self, state: State, boundary_ms: int, run: Run) -> tuple[State, list[Event]]:
        settings = self.maker.settings
        state = self._observed(state, boundary_ms, run)
        if self.schedule.retrains_at(boundary_ms):
            material = self.maker.material(boundary_ms, run.known)
            state = learner.measured(state, material.candles, settings)
        reviewed = learner.review(state, self.schedule)
        state, judged = learner.judge(state, settings)
        events = [*reviewed, *judged]
        wish = learner.due(state, settings, self.schedule)
        if wish is None:
            return state, events
        if wish.drift:
            events.append(
                Event("drift", boundary_ms, state.champion, state.champion, text=wish.drift)
            )
        try:
            newcomer = self._made(wish, state, boundary_ms, run)
        except (TrainingError, DataError) as error:
            if isinstance(error, TrainingError) and (run.stopped() or not run.forgiving):
                raise
            failed = Event("training failed", boundary_ms, "", state.champion, text=str(error))
            return replace(state, owed=wish.kind), [*events, failed]
        if self._learnt_nothing(newcomer.version):
            state, declined = learner.decline(state, newcomer.version)
            return state, [*events, *declined]
        state, admitted = learner.admit(state, newcomer, settings)
        state, judged = learner.judge(state, settings)
        return state, [*events, *admitted, *judged]

    def _learnt_nothing(self, version: str) -> bool:
        """Whether a fine-tuned version has the weights it began with."""
        made = self.maker.store.load(version)
        if made.card.parent is None:
            return False
        began = self.maker.store.load(made.card.parent).weights
        return all(np.array_equal(array, began[name]) for name, array in made.weights.items())

    def _observed(self, state: State, boundary_ms: int, run: Run) -> State:
        """The state after the labels that matured until the boundary."""
        matured = self.matured(state.boundary_ms, boundary_ms, run)
        if matured is None:
            return replace(state, boundary_ms=boundary_ms)
        views = {c.version: self.view(c.version, matured) for c in state.contenders}
        labels, settings = matured.labels, self.maker.settings
        return learner.observe(state, boundary_ms, labels, views, settings, self.schedule)

    def view(self, version: str, matured: Matured) -> View:
        """What a version says about the candles whose labels matured."""
        model = self._model(version)
        return View(model.lstm.predict(matured.panel.rows, matured.rows), model.calibration)

    def matured(self, since_ms: int, until_ms: int, run: Run) -> Matured | None:
        """The labels that became known in `(since_ms, until_ms]`; None without candles."""
        settings = self.maker.settings
        start_ms = since_ms - label_reach(settings) * self.schedule.candle_ms
        series = self._candles(start_ms, until_ms, run)
        return mature(series, since_ms, until_ms, settings)

    def _made(self, wish: Wish, state: State, boundary_ms: int, run: Run) -> Contender:
        material = self.maker.material(boundary_ms, run.known, run.panels)
        if wish.kind == "scratch":
            return self._entering(self._network(material, boundary_ms, run)(), boundary_ms)
        parent = learner.finetune_parent(state)
        assert parent is not None  # noqa: S101 - `due` asks for no other
        model = self._model(parent.version)
        model = replace(model, calibration=parent.calibration(model.calibration))
        training = run.lesson(wish, boundary_ms)
        made = self.maker.finetune(material, model, parent.evidence, training)
        entering = self._entering(made, boundary_ms)
        return replace(entering, widths=parent.widths, widths_before=parent.widths)

    def _network(self, material: Material, boundary_ms: int, run: Run) -> Callable[[], Candidate]:
        """What gives the network from scratch; it may be trained meanwhile."""
        if run.network is not None:
            return run.network(material)
        return partial(self.maker.scratch, material, run.lesson(SCRATCH, boundary_ms))

    def _entering(self, made: Candidate, boundary_ms: int) -> Contender:
        card = made.stored.card
        calibration = Calibration.from_card(self.maker.settings.levels, card.calibration)
        return Contender.entering(
            card.version, card.kind, made.unseen_ms, boundary_ms, calibration, made.evidence,
            self.maker.settings.horizon,
        )  # fmt: skip

    def _kept(
        self, address: str, previous: str | None, state: State, events: Sequence[Event]
    ) -> Step:
        horizon = self.maker.settings.horizon
        record, arrays = pack(state)
        record["previous"], record["made_by"] = previous, self._made_by()
        record["p_values"] = {c.version: c.evidence.p_value(horizon) for c in state.contenders}
        record["events"] = [event._asdict() for event in events]
        self._steps.save(address, record, arrays)
        return self._step(address, record)

    def _found(self, address: str) -> Step | None:
        """A step that was computed before, if it and its champion are still there."""
        record = self._steps.record(address)
        if record is None or not self._has_models([record["champion"]]):
            return None
        return self._step(address, record)

    def _has_models(self, versions: Iterable[str]) -> bool:
        try:
            return all(self._model(version) for version in versions)
        except StoreError:  # pruned, or damaged: it is made anew
            return False

    def _step(self, address: str, record: Mapping[str, Any]) -> Step:
        events = tuple(Event(**event) for event in record["events"])
        model = self._as_of(record, record["champion"])
        versions = frozenset(record["p_values"])
        return Step(address, record["boundary_ms"], model, versions, events)

    def _as_of(self, record: Mapping[str, Any], version: str) -> Model:
        """A version with the calibration and the skill it had at a step."""
        entry = next(c for c in record["contenders"] if c["version"] == version)
        nothing = Evidence.nothing(), Kept.nothing()
        model, contender = self._model(version), unpack_contender(entry, *nothing)
        calibration = contender.calibration(model.calibration)
        usual = {pair: math.exp(mean) for pair, (n, mean) in unpack_usual(record).items() if n}
        calibration = replace(calibration, far=unpack_far(record), usual_widths=usual)
        return replace(model, calibration=calibration, p_value=record["p_values"][version])

    def _load_model(self, version: str) -> Model:
        return Model.of(self.maker.store.load(version), self.maker.settings)
