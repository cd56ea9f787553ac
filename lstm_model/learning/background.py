"""Learning while the bot trades: one thread walks the chain of steps, the bot never waits."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

from lstm_model.durations import HOUR_MS
from lstm_model.errors import LstmModelError, StoreError, TrainingError
from lstm_model.learning.chain import Learning
from lstm_model.learning.learner import Wish
from lstm_model.learning.run import Run
from lstm_model.learning.steps import Step
from lstm_model.learning.wording import Teller, decisions, minute
from lstm_model.machine import give_memory_back
from lstm_model.market.candles import Candles, Ints
from lstm_model.model.model import Model
from lstm_model.store.lineage import Lineage, versions_in_use
from lstm_model.store.recorder import Recorder
from lstm_model.trading.outlook import Terms
from lstm_model.training.maker import Training
from lstm_model.training.trainer import TRAINER

logger = logging.getLogger(__name__)

_RETRY_MS = 600_000  # chosen: after a walk that failed; twice as long after each that follows
_DOUBLINGS = 4  # chosen: who has made room on the disk need not wait for hours
_ASK_DISK_MS = 60_000  # chosen: reading the candles of a hundred pairs takes the learner seconds
_NAMED = 5  # chosen: of pairs in a message
_STEPS_READY = 64  # chosen: a first start walks at most `retrain_candles / step_candles` of them


class BackgroundLearning:
    """One lineage's newest steps, and at most one thread that makes the next.

    Attributes
    ----------
    steps : the newest, oldest first; replaced, never changed
    news : what the user should hear of, oldest first
    """

    def __init__(
        self, learning: Learning, terms: Terms, lineage: Lineage, journal: Recorder
    ) -> None:
        self.steps: tuple[Step, ...] = ()
        self.news: deque[str] = deque(maxlen=100)
        self._learning, self._maker, self._terms = learning, learning.maker, terms
        self._lineage, self._journal = lineage, journal
        self._schedule = learning.schedule
        self._pinned: Model | None = None
        self._were_skilled: dict[str, bool] = {}  # by the cards of versions that serve no more
        self._pins_read_ns = -1
        self._fresh_start = False
        self._retry_at_ms = self._ask_disk_ms = 0
        self._failures = 0  # in a row
        self._clock_ms = 0  # that of the newest tick: a replay's is not this machine's
        self._told_ms: dict[str, int] = {}  # by what kind of failure
        self._awaited: set[str] = set()  # pairs whose candles are still to come
        self._awaited_ms = 0  # the newest step of which the user heard that it waits
        self._stopping = threading.Event()
        self._threads: ThreadPoolExecutor | None = None
        self._walking: Future[None] | None = None

    def start(self, now_ms: int) -> None:
        """Take the lineage for this process and load its champion.

        Raises
        ------
        StoreError
            The store cannot be used, or another bot learns here; better known before the bot
            trades.
        DataError
            There is no model and nothing to train one on.
        TrainingError
            There is no model and no Python that trains one.
        """
        self._maker.store.check_writable()
        self._maker.remove_leftovers()
        with ExitStack() as undone:
            self._lineage.acquire()
            undone.callback(self._lineage.release)
            self._resume(now_ms)
            self._read_pin()
            if not self.steps:
                due_ms = self._schedule.last_boundary(now_ms)
                material = self._maker.material(self._learning.origin_of(due_ms))
                material.check()
                if not self.serves():
                    self._maker.check_trainer(material)
            undone.pop_all()

    def tick(self, now_ms: int, pairs: Collection[str] = ()) -> None:
        """Begin a walk in the background when a step is due; returns at once.

        A step begins one candle after its boundary: before, the last candle may not be there yet.
        Where it is not there even then, the step waits, see `_waits`.
        """
        self._look_at_clock(now_ms)
        self._read_pin()
        due_ms = self._schedule.last_boundary(now_ms - self._schedule.candle_ms)
        done = bool(self.steps) and not self._fresh_start and self.steps[-1].boundary_ms >= due_ms
        if self.busy or done or now_ms < self._retry_at_ms:
            return
        self._learning.follow(tuple(pairs))
        self._maker.history.forget_all_but(self._learning.pairs)
        # freqtrade asks for no others: of a pair to train on that left its list nothing new comes.
        self._awaited = {*pairs, *filter(None, [self._maker.history.leader])}
        seen = self._maker.history.seen_until(self._awaited)
        lacking = sorted(pair for pair, until_ms in seen.items() if until_ms < due_ms)
        nothing_new = len(lacking) == len(seen)
        if self._waits(due_ms, now_ms, lacking, nothing_new):
            return
        self._begin(due_ms, now_ms if nothing_new else None)

    def _look_at_clock(self, now_ms: int) -> None:
        """A clock that was set back holds nothing back."""
        if now_ms < self._clock_ms:
            self._retry_at_ms = self._ask_disk_ms = 0
            self._told_ms.clear()
        self._clock_ms = now_ms

    @property
    def busy(self) -> bool:
        """Whether a walk is under way."""
        return self._walking is not None

    def _waits(self, due_ms: int, now_ms: int, lacking: Sequence[str], nothing_new: bool) -> bool:
        """Whether candles before the boundary are still to come, by what the bot has seen.

        A step never sees again what it did not see when it was made. So while the exchange gives
        nothing at all it waits; for single pairs, which may be halted, until half of the lag is
        over, so that the other half is left to make the step in, and no less than a candle.
        """
        if nothing_new:  # the learner looks whether they are on disk
            return now_ms < self._ask_disk_ms
        lag_ms, candle_ms = self._schedule.lag_ms, self._schedule.candle_ms
        patience_ms = min(max(lag_ms // 2, 2 * candle_ms), lag_ms - candle_ms)
        if lacking and now_ms >= due_ms + patience_ms:
            self._tell_of_halted(due_ms, lacking)
        return bool(lacking) and now_ms < due_ms + patience_ms

    def _tell_of_halted(self, due_ms: int, pairs: Sequence[str]) -> None:
        named = ", ".join(pairs[:_NAMED])
        more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
        self._tell(
            f"The exchange gives no new candles of {named}{more}: the learner's step of "
            f"{minute(due_ms)} is made without them; a backtest makes it with those that come late"
        )

    def _lacks_candles(self, due_ms: int, now_ms: int) -> bool:
        """As `_waits` where the bot has seen nothing new: by what another process has downloaded.

        What the bot sees meanwhile does not count: it sees one pair after the other.
        """
        found = self._maker.history.stored_until(self._awaited or self._learning.pairs)
        there = [until_ms >= due_ms for until_ms in found]
        late = now_ms >= due_ms + max(self._schedule.lag_ms, 2 * self._schedule.candle_ms)
        lacking = not there or not (any(there) if late else all(there))
        if lacking and late and due_ms > self._awaited_ms:
            self._awaited_ms = due_ms
            self._tell(
                f"The step of {minute(due_ms)} waits for candles, which end before; the last good "
                "model keeps serving"
            )
        return lacking

    def stop(self) -> None:
        """End a running training; returns when no thread and no training process is left."""
        self._stopping.set()
        with ExitStack() as ended:
            ended.callback(self._lineage.release)
            ended.callback(TRAINER.end_idle)
            if self._threads is not None:
                self._threads.shutdown()

    def versions(self) -> set[str]:
        """Versions that are known to have served here, of whose forecasts none names the bot."""
        pinned = {self._pinned.card.version} if self._pinned else set()
        return {*self._lineage.champions, *pinned}

    def in_force(self, candles: Candles) -> Iterator[tuple[Model, Ints]]:
        """The models, newest first, and the rows of the candles each may forecast."""
        closes = candles.date_ms + candles.step_ms
        newer = np.full(len(closes), False)
        for from_ms, model in self._serving():
            served = (closes >= from_ms + self._schedule.lag_ms) & ~newer
            newer |= served
            yield model, np.flatnonzero(served)

    def _serving(self) -> Iterator[tuple[int, Model]]:
        """The boundary from which on each model serves, newest first."""
        if self._pinned is not None:
            yield self._pinned.card.train_end_ms, self._pinned
        for step in reversed(self.steps):
            yield step.boundary_ms, step.model

    def is_skilled(self, version: str) -> bool:
        """Whether a version has proven skill; one that cannot be read has not."""
        for _, model in self._serving():
            if model.card.version == version:
                return model.is_skilled(self._terms.settings)
        if version not in self._were_skilled:
            self._were_skilled[version] = self._was_skilled(version)
        return self._were_skilled[version]

    def stale_from_ms(self) -> float:
        """Candles that close later have no model that was checked lately; a pin is the user's."""
        if self._pinned is not None or not self.steps:
            return math.inf
        age_ms = self._terms.settings.stale_model_candles * self._schedule.candle_ms
        return self.steps[-1].boundary_ms + age_ms

    def serves(self) -> bool:
        """Whether there is a model to forecast with."""
        return next(self._serving(), None) is not None

    def _was_skilled(self, version: str) -> bool:
        try:
            stored = self._maker.store.load(version)
            return Model.of(stored, self._terms.settings).is_skilled(self._terms.settings)
        except StoreError as error:
            logger.warning("%s; its forecasts count as unskilled", error)
            return False

    def _resume(self, now_ms: int) -> None:
        """The steps with which the last run ended; a new chain where that is too long ago."""
        head = self._lineage.head
        self.steps = () if head is None else self._learning.resume(head, _STEPS_READY)
        if not self.steps:
            if head is not None:
                self._tell(
                    f"The last step {head[:8]} of the learner or its champion is gone, damaged or "
                    "of another form: it begins anew"
                )
            return
        due_ms = self._schedule.last_boundary(now_ms)
        self._fresh_start = not self._learning.continues(self.steps[-1], due_ms)
        if self._fresh_start:
            self._tell("The learner begins anew: it rested too long, or its code has changed")

    def _read_pin(self) -> None:
        """Serve the version that the command line has pinned, if it has."""
        changed_ns = self._lineage.changed_ns()
        self._tell_of_loss()
        if changed_ns == self._pins_read_ns:
            return
        self._pins_read_ns = changed_ns
        before = self._pinned.card.version if self._pinned else None
        try:
            version = self._lineage.pinned
            self._pinned = None if version is None else self._learning.model(version, self.steps)
        except StoreError as error:
            self._tell(f"The pinned model cannot serve: {error}")
            return
        if version != before:
            self._tell("The gate chooses again" if version is None else f"Pinned: {version} serves")

    def _begin(self, due_ms: int, ask_disk_ms: int | None) -> None:
        """Walk in a thread of its own; whatever ends it is heard."""
        self._threads = ThreadPoolExecutor(1, "lstm-learning")
        try:
            self._walking = self._threads.submit(self._walk, due_ms, ask_disk_ms)
        except RuntimeError as error:  # the system has no thread left
            self._fail(error)
            return
        self._threads.shutdown(wait=False)
        self._walking.add_done_callback(self._hear)

    def _walk(self, due_ms: int, ask_disk_ms: int | None) -> None:
        """One step after the other until the newest that is due.

        `ask_disk_ms` is the time now if candles may be missing that can only be on disk.
        """
        if ask_disk_ms is not None and self._lacks_candles(due_ms, ask_disk_ms):
            self._ask_disk_ms = self._clock_ms + _ASK_DISK_MS
            return
        for step in self._missing(due_ms):
            self._take(step)
        self._failures = 0

    def _hear(self, walking: Future[None]) -> None:
        """The walk has ended, in its thread."""
        try:
            if error := walking.exception():
                self._fail(error)
            else:
                self._retry_at_ms = 0
        finally:
            self._walking = None
            give_memory_back()  # a step looks at all candles, and the next is a day or so away

    def _fail(self, error: BaseException) -> None:
        """Tell the log all and the user a line, of each kind at most one an hour; try again."""
        if self._stopping.is_set():
            return
        pause_ms = _RETRY_MS * 2 ** min(self._failures, _DOUBLINGS)
        self._failures, self._retry_at_ms = self._failures + 1, self._clock_ms + pause_ms
        kind, foreseen = type(error).__name__, isinstance(error, LstmModelError)
        what = "Training failed" if isinstance(error, TrainingError) else "Learning stopped"
        meanwhile = "the last good model keeps serving" if self.steps else "no model yet"
        logger.error("%s, %s: %s", what, meanwhile, error, exc_info=None if foreseen else error)
        if self._clock_ms < self._told_ms.get(kind, -HOUR_MS) + HOUR_MS:
            return
        self._told_ms[kind] = self._clock_ms
        first = str(error).partition("\n")[0]
        reason = first if foreseen or isinstance(error, OSError) else f"{kind}: {first}"
        self.news.append(
            f"{what}, {meanwhile}: {reason.removesuffix(': ')}; tried again in "
            f"{pause_ms // 60_000} minutes"
        )

    def _missing(self, due_ms: int) -> Iterator[Step]:
        origin_ms = self._learning.origin_of(due_ms)
        step = None if self._fresh_start or not self.steps else self.steps[-1]
        known = self._maker.history.since(self._learning.looks_back_to(origin_ms, step))
        stopped = self._stopping.is_set
        run = Run(known, self._lesson, forgiving=True, stopped=stopped, tell=self._tell)
        for later in self._learning.walk(origin_ms, due_ms, run, step):
            yield later
            if self._stopping.is_set():
                return

    def _lesson(self, wish: Wish, boundary_ms: int) -> Training:
        """Trainings take what time others leave; of the first one the user hears more."""
        say = None if self.steps else self._tell
        teller = Teller(wish, boundary_ms, say)
        return Training(teller, self._stopping, background=True, thorough=False)

    def _take(self, step: Step) -> None:
        """Write down what was decided, then go on from this step, then serve it."""
        made = decisions(step.events, self._lineage.name, self._learning.card)
        self._journal.record_decisions(made)
        self._lineage.advance(step.address, step.model.card.version)
        self.steps, self._fresh_start = (*self.steps[1 - _STEPS_READY :], step), False
        for decision in made:
            self._tell(decision.text)
        if any(event.kind == "trained" for event in step.events):
            self._prune()

    def _prune(self) -> None:
        """Keep the disk bounded; what any lineage here still needs stays."""
        store = self._maker.store
        self._learning.prune()
        try:
            store.prune(self._maker.settings.keep_models, versions_in_use(store.root))
        except StoreError as error:  # another bot's file is damaged: what it needs is not known
            logger.warning("No model is removed from the store: %s", error)

    def _tell_of_loss(self) -> None:
        """Say what became of the lineage's file, if it is not as it was left."""
        lost, self._lineage.lost = self._lineage.lost, ""
        if lost:
            self._tell(lost)

    def _tell(self, message: str) -> None:
        logger.info("%s", message)
        self.news.append(message)
