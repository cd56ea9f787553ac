"""The chain of the learner's steps: what each looked at, what came of it, and how it goes on.

A backtest, a hyperopt epoch and a restarted bot find what was computed already, see
`lstm_model.learning.steps`. What was cut short, lost or damaged is computed again by the same way;
where the same does not come out again, another chain begins, and that is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from lstm_model.errors import DataError, StoreError, TrainingError
from lstm_model.learning import learner
from lstm_model.learning.contender import Contender, View
from lstm_model.learning.learner import Event, State, Wish
from lstm_model.learning.matured import Matured, label_reach, mature, missing
from lstm_model.learning.run import SCRATCH, Run
from lstm_model.learning.schedule import Schedule
from lstm_model.learning.steps import STATES, Step, Steps
from lstm_model.learning.wording import minute
from lstm_model.market.candles import Candles
from lstm_model.market.history import digest_of
from lstm_model.model.calibration import Calibration
from lstm_model.model.model import Model
from lstm_model.store.card import ModelCard
from lstm_model.store.steps import StepStore
from lstm_model.training.maker import Candidate, ModelMaker
from lstm_model.training.material import Material, reach_ms

logger = logging.getLogger(__name__)

_NEAR = 2 * STATES  # steps back from the newest that one may have to go on from


class _Gone(StoreError):
    """What a step is to be gone on from is not there as it was."""


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
        self._steps = Steps(maker, steps)

    def follow(self, pairs: Sequence[str]) -> None:
        """From the next step on, score and calibrate these pairs beside those of the maker."""
        self.pairs = tuple(sorted({*self.maker.pairs, *pairs}))

    def origin_of(self, boundary_ms: int) -> int:
        """Where the chain begins that is to reach a boundary: by the schedule or by the user."""
        since_ms = self.maker.settings.learn_from_ms
        if since_ms is not None:
            boundary_ms = min(boundary_ms, self.schedule.last_boundary(since_ms))
        return self.schedule.origin_of(boundary_ms)

    def origin(self, boundary_ms: int, run: Run, *, whole: bool = False) -> Step:
        """Begin a chain at a boundary: the baseline, and the first network to compete with it.

        Parameters
        ----------
        whole : one from which one can go on, though its record would say what was decided

        Raises
        ------
        DataError
            Too little history before the boundary.
        TrainingError, StoreError
            The network could not be made.
        """
        material = self.maker.material(boundary_ms, run.known)
        material.check()
        key = self._steps.key("", boundary_ms, self.maker.version(material))
        found = self._steps.find(key, whole=whole)
        if found is not None:
            return found
        state, events = self._originate(boundary_ms, run)
        return self._steps.keep(key, None, state, events, self.pairs)

    def after(
        self, step: Step, run: Run, pairs: Sequence[str] = (), *, whole: bool = False
    ) -> Step:
        """The step that follows.

        Parameters
        ----------
        pairs : to score and calibrate; those of now by default
        whole : as `origin`

        Raises
        ------
        DataError, TrainingError, StoreError
            A model that is due could not be made, or what `step` came to is gone.
        """
        boundary_ms, pairs = step.boundary_ms + self.schedule.step_ms, pairs or self.pairs
        since_ms = self._since(step.learnt_ms, step.boundary_ms, pairs)
        fresh = list(self._candles(since_ms, boundary_ms, run))
        digest = digest_of(fresh, self.maker.settings)
        key = self._steps.key(step.address, boundary_ms, digest)
        found = self._steps.find(key, whole=whole)
        if found is not None:
            return found
        state = self._steps.state(step.address)
        if state is None:
            raise _Gone(f"what the step of {minute(step.boundary_ms)} came to is lost or damaged")
        state, events = self._computed(state, boundary_ms, run, pairs)
        return self._steps.keep(key, step.address, state, events, pairs)

    def walk(
        self, origin_ms: int, last_ms: int, run: Run, start: Step | None = None
    ) -> Iterator[Step]:
        """The steps after `start`, or from the origin on, until the boundary `last_ms`.

        Where what a step came to is lost or damaged, it is computed again. If something else comes
        out, the steps that come are those of the other chain, from its first on.

        Parameters
        ----------
        origin_ms : where a chain begins that is to reach `last_ms`

        Raises
        ------
        DataError, TrainingError, StoreError
            As `origin` and `after`.
        """
        step = start
        if step is None:
            step = self.origin(origin_ms, run)
            yield step
        # Who came this far may have been killed before it let go of those before.
        trail = [at for at, _ in islice(self._steps.line(step.address), _NEAR)][::-1]
        while step.boundary_ms < last_ms:
            try:
                made = [self.after(step, run)]
            except _Gone as gone:
                made = [*self._again(step, origin_ms, run, str(gone))]
                if not made or made[-1].boundary_ms < last_ms:
                    made.append(self.after([step, *made][-1], run))
            for step in made:
                yield step
                trail = [*trail[1 - _NEAR :], step.address]
                self._steps.release(trail)
        self._steps.release(trail)
        run.panels.forget()

    def _again(self, lost: Step, origin_ms: int, run: Run, reason: str) -> Iterator[Step]:
        """Compute again what led to a step; the steps, if something else comes out.

        From the newest before it that is whole, or from where a chain begins by now.
        """
        line = {
            record["boundary_ms"]: (at, record) for at, record in self._steps.line(lost.address)
        }
        near = (
            self._steps.at(at)
            for number, (boundary_ms, (at, _)) in enumerate(line.items())
            if (number < _NEAR or boundary_ms >= origin_ms) and self._steps.state(at) is not None
        )
        found = next(near, None)
        step = self.origin(origin_ms, run, whole=True) if found is None else found
        made = [step]
        while step.boundary_ms < lost.boundary_ms:
            _, record = line.get(step.boundary_ms + self.schedule.step_ms, ("", {}))
            step = self.after(step, run, record.get("pairs", ()), whole=True)
            made.append(step)
        if step.address == lost.address:
            logger.warning("%s; it was computed again", reason)
            return
        first = minute(made[0].boundary_ms)
        how = f"goes on anew from {first}" if found else f"begins anew on {first}"
        run.tell(f"{reason}, and does not come out again as it was: the learner {how}")
        yield from made[1:] if found else made

    def looks_back_to(self, origin_ms: int, start: Step | None) -> int:
        """When the first candle opens that a walk from there may look at."""
        near_ms, maker = _NEAR * self.schedule.step_ms, self.maker
        begin_ms = origin_ms if start is None else min(origin_ms, start.boundary_ms - near_ms)
        reach = reach_ms(maker.settings, maker.timeframe, len(maker.pairs))
        late_ms = self.schedule.retrain_ms + label_reach(maker.settings) * self.schedule.candle_ms
        return begin_ms - max(reach, late_ms)

    def resume(self, address: str, count: int = 1) -> tuple[Step, ...]:
        """The `count` steps that end with this one, oldest first, as far as they are there."""
        steps: list[Step] = []
        for at, _ in islice(self._steps.line(address), count):
            if (step := self._steps.at(at)) is None:
                break
            steps.insert(0, step)
        return tuple(steps)

    def continues(self, step: Step, due_ms: int) -> bool:
        """Whether who is to reach the boundary `due_ms` goes on from this step.

        Else the learner begins anew: the step is older than a retraining, or it was not made by
        the code and for the settings of now.
        """
        if due_ms - step.boundary_ms > self.schedule.retrain_ms:
            return False
        record = self._steps.record(step.address)
        return record is not None and record["made_by"] == self._steps.made_by()

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
                return self._steps.as_of(record, version)
        return self._steps.model(version)

    def prune(self) -> None:
        """Remove what nobody needs of old steps, see `lstm_model.learning.steps.Steps.prune`."""
        self._steps.prune()

    def card(self, version: str) -> ModelCard:
        """The card of a version that is in the store."""
        return self._steps.model(version).card

    def _since(
        self, learnt_ms: Mapping[str, int], boundary_ms: int, pairs: Sequence[str]
    ) -> dict[str, int]:
        """From when on each pair's candles are new to the step after the one at `boundary_ms`.

        Those that came late count, but not for ever: a pair may have been away for years.
        """
        oldest_ms = boundary_ms - self.schedule.retrain_ms
        return {pair: max(learnt_ms.get(pair, boundary_ms), oldest_ms) for pair in pairs}

    def _candles(
        self, since_ms: Mapping[str, int], end_ms: int, run: Run, before_ms: int = 0
    ) -> Iterator[Candles]:
        for pair, start_ms in since_ms.items():
            known = run.known(pair)
            if known is not None:
                yield known.known_at(start_ms - before_ms, end_ms)

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

    def _computed(
        self, state: State, boundary_ms: int, run: Run, pairs: Sequence[str]
    ) -> tuple[State, list[Event]]:
        settings = self.maker.settings
        state, absent = self._observed(state, boundary_ms, run, pairs)
        if self.schedule.retrains_at(boundary_ms):
            material = self.maker.material(boundary_ms, run.known)
            state = learner.measured(state, material.candles, settings)
        reviewed = learner.review(state, self.schedule)
        state, judged = learner.judge(state, settings)
        events = [*absent, *reviewed, *judged]
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

    def _observed(
        self, state: State, boundary_ms: int, run: Run, pairs: Sequence[str]
    ) -> tuple[State, list[Event]]:
        """The state after the labels that matured until the boundary, and what was missing."""
        since_ms = self._since(state.learnt_ms, state.boundary_ms, pairs)
        series = self._reaching(since_ms, boundary_ms, run)
        events = list(_missing(series, state, boundary_ms))
        learnt_ms = _late(series, since_ms, boundary_ms)
        matured = mature(series, since_ms, boundary_ms, self.maker.settings)
        if matured is None:
            return replace(state, boundary_ms=boundary_ms, learnt_ms=learnt_ms), events
        views = {c.version: self.view(c.version, matured) for c in state.contenders}
        labels, settings = matured.labels, self.maker.settings
        state = learner.observe(state, boundary_ms, labels, views, settings, self.schedule)
        return replace(state, learnt_ms=learnt_ms), events

    def _reaching(self, since_ms: Mapping[str, int], until_ms: int, run: Run) -> list[Candles]:
        """The candles that forecasts look at whose labels became known since then."""
        before_ms = label_reach(self.maker.settings) * self.schedule.candle_ms
        return list(self._candles(since_ms, until_ms, run, before_ms))

    def view(self, version: str, matured: Matured) -> View:
        """What a version says about the candles whose labels matured."""
        model = self._steps.model(version)
        return View(model.lstm.predict(matured.panel.rows, matured.rows), model.calibration)

    def matured(self, since_ms: int, until_ms: int, run: Run) -> Matured | None:
        """The labels that became known in `(since_ms, until_ms]`; None without candles."""
        since = dict.fromkeys(self.pairs, since_ms)
        return mature(self._reaching(since, until_ms, run), since, until_ms, self.maker.settings)

    def _made(self, wish: Wish, state: State, boundary_ms: int, run: Run) -> Contender:
        material = self.maker.material(boundary_ms, run.known, run.panels)
        if wish.kind == "scratch":
            return self._entering(self._network(material, boundary_ms, run)(), boundary_ms)
        parent = learner.finetune_parent(state)
        assert parent is not None  # noqa: S101 - `due` asks for no other
        model = self._steps.model(parent.version)
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


def _late(
    series: Sequence[Candles], since_ms: Mapping[str, int], boundary_ms: int
) -> dict[str, int]:
    """Until when the candles had come of pairs of which more are still to come."""
    ends = {c.pair: int(c.date_ms[-1]) + c.step_ms for c in series if len(c)}
    until_ms = {pair: max(start, ends.get(pair, 0)) for pair, start in since_ms.items()}
    return {pair: end_ms for pair, end_ms in until_ms.items() if end_ms < boundary_ms}


def _missing(series: Sequence[Candles], state: State, boundary_ms: int) -> Iterator[Event]:
    """What a step has to do without; of a pair that lacked candles before, no more is said."""
    in_time = [candles for candles in series if candles.pair not in state.learnt_ms]
    if text := missing(in_time, state.boundary_ms, boundary_ms):
        yield Event("candles missing", boundary_ms, "", state.champion, text=text)
