"""Training in child processes that stay for the next job, so that the bot never imports TensorFlow.

To start Python and TensorFlow takes longer than most fine-tunings. So a training process takes job
after job, keeps the graphs it has compiled, and ends when it had nothing to do for a while. The
same job gives the same weights, whatever the process did before.

All learners of one program share `TRAINER`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import lstm_model
from lstm_model import machine
from lstm_model.errors import TrainingError
from lstm_model.settings import Settings
from lstm_model.training.child import Child
from lstm_model.training.job import Progress, TrainingJob, TrainingResult

_HEARTBEAT_S = 1.0  # progress is repeated this often while the child has nothing new to say
_POLL_S = 0.1
_LOOK_S = 0.25  # measured: while TensorFlow is imported it takes up to 25 MB in that time
_LIFELESS_S = 120.0  # chosen: a disk that is slow gives something to work on long before
_RESERVE_MB = 100.0  # chosen: for bot and training to grow by until the next look
_IDLE_S = 60.0  # chosen: the next training of a walk follows within seconds, the next walk in hours
_THREADS_EACH = 2  # chosen: of a study's trainings; a batch keeps few more busy
_MOST_AT_ONCE = 4  # chosen: each takes up to 1 GB, and its panel as much again in the study
_START = Path(lstm_model.__file__).with_name("fitting") / "start.py"

ProgressCallback = Callable[[Progress], None]
Stop = threading.Event | Callable[[], bool]


class Kind(NamedTuple):
    """What a training process is, once for all its jobs.

    Attributes
    ----------
    threads : it computes with
    background : it takes only processor time that nothing else wants
    python : the interpreter it runs under
    """

    threads: int
    background: bool
    python: str

    @classmethod
    def of(cls, settings: Settings, threads: int, background: bool) -> Self:
        """In a bot it has all threads; the trainings of a study share them."""
        python = settings.train_python or sys.executable
        return cls(threads if background else threads // at_once(threads), background, python)

    def command(self, program: Sequence[str]) -> list[str]:
        """The program, or else our own, with its options."""
        begun = program or (self.python, "-P", str(_START))
        return [*begun, f"--threads={self.threads}", *["--background"][: self.background]]


def at_once(threads: int) -> int:
    """How many trainings of a study run side by side and share the threads; of a bot it is one."""
    return min(_MOST_AT_ONCE, max(1, threads // _THREADS_EACH))


class Trainer:
    """The training processes of one program, and who gets one.

    Parameters
    ----------
    program : of a training process, whose options follow; empty: `lstm_model.fitting.start`,
        under the interpreter that is `train_python` of a job's settings, by default this one
    idle_s : without work, after which one ends
    lifeless_s : without a word and without taking processor time, after which one is ended
    root : below which the operating system says what memory is left, and how much processor time
        a cgroup allows: beyond that, all threads of the bot would wait
    """

    def __init__(
        self, program: Sequence[str] = (), idle_s: float = _IDLE_S,
        lifeless_s: float = _LIFELESS_S, root: Path = machine.ROOT,
    ) -> None:  # fmt: skip
        self._program, self._idle_s = tuple(program), idle_s
        self._lifeless_s, self._root = lifeless_s, root
        self._changed = threading.Condition()
        self._idle: dict[Child, tuple[Kind, threading.Timer]] = {}
        self._busy: set[Child] = set()
        self._urgent = 0  # trainings that wait for a process and let nobody pass

    def run(
        self, job: TrainingJob, workdir: Path, progress: ProgressCallback | None = None,
        stop: Stop | None = None, *, background: bool = True, ahead: bool = False,
    ) -> TrainingResult:  # fmt: skip
        """Train in a child process and read its result back.

        Parameters
        ----------
        workdir
            Folder of this job; made when missing. The caller removes it.
        progress
            Called in this thread about once a second.
        stop
            An event, or a function that returns True, to give up.
        background
            Let the child take only processor time that nothing else wants.
        ahead
            Let others pass that wait for a process: nobody needs this result yet.

        Raises
        ------
        TrainingError
            When the child fails, takes longer than `train_timeout_s`, more memory than
            `train_memory_mb` or all that is left, shows no life, is stopped, or leaves a result
            that is incomplete or not finite. Then its process is ended. Or when the folder cannot
            be written.
        """
        try:
            workdir = workdir.resolve()
            workdir.mkdir(parents=True, exist_ok=True)
            job.write(workdir)
        except (OSError, RuntimeError) as error:  # the latter of links in a circle
            raise TrainingError(f"the job cannot be written to {workdir}: {error}") from error
        watch = _Watch(
            progress or _ignore, _stop_check(stop), job.settings, self._lifeless_s, self._root
        )
        with self._taken(job.settings, background, ahead, watch) as child:
            started_s = time.monotonic()
            child.send(workdir)
            watch.follow(child)
            return TrainingResult.read(workdir, time.monotonic() - started_s)

    def prepare(self, settings: Settings, background: bool) -> None:
        """Start a process for a job that comes soon, unless there is one."""
        kind = Kind.of(settings, self._threads(settings), background)
        with self._changed:
            if not self._busy:
                self._rest(self._rested(kind) or Child(kind.command(self._program)), kind)

    def end_idle(self) -> None:
        """End the processes that have no work; one that cannot be ended keeps no other from it."""
        with self._changed, ExitStack() as ended:
            for child in self._idle:
                ended.callback(self._end, child)

    def crash(self) -> bool:
        """Have the processes crash that are training; whether there was one."""
        with self._changed:
            alive = [child for child in self._busy if child.alive]
            for child in alive:
                child.crash()
            return bool(alive)

    def forget(self) -> None:
        """What a process has to do that was forked: its parent's children are not its own."""
        self._changed = threading.Condition()
        self._idle, self._busy, self._urgent = {}, set(), 0

    def _threads(self, settings: Settings) -> int:
        quota = machine.tightest_quota(self._root)
        return min([settings.train_threads, *([quota.threads] if quota else [])])

    @contextmanager
    def _taken(
        self, settings: Settings, background: bool, ahead: bool, watch: _Watch
    ) -> Iterator[Child]:
        threads = self._threads(settings)
        kind = Kind.of(settings, threads, background)
        most = threads // kind.threads
        watch.check_stop()  # a process that is started for nothing costs seconds
        with self._waiting(ahead):
            while (child := self._take(kind, most, ahead)) is None:
                watch.wait()
        done = False
        try:
            yield child
            done = True
        finally:
            with self._changed:
                self._busy.remove(child)
                if done:
                    self._rest(child, kind)
                else:
                    child.kill()
                self._changed.notify_all()

    @contextmanager
    def _waiting(self, ahead: bool) -> Iterator[None]:
        with self._changed:
            self._urgent += not ahead
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= not ahead
                self._changed.notify_all()

    def _take(self, kind: Kind, most: int, ahead: bool) -> Child | None:
        """A process to work with; None, after a moment, if others go first."""
        with self._changed:
            if len(self._busy) >= most or (ahead and self._urgent):
                self._changed.wait(_POLL_S)
                return None
            child = self._rested(kind) or Child(kind.command(self._program))
            self._busy.add(child)
            return child

    def _rested(self, kind: Kind) -> Child | None:
        """A process of this kind that waits for work; those of another kind make room."""
        found = None
        for child, (known, timer) in [*self._idle.items()]:
            if known != kind or not child.alive:
                self._end(child)
            elif found is None:
                timer.cancel()
                del self._idle[child]
                found = child
        return found

    def _rest(self, child: Child, kind: Kind) -> None:
        timer = threading.Timer(self._idle_s, self._retire, (child,))
        timer.daemon = True
        self._idle[child] = kind, timer
        try:
            timer.start()
        except RuntimeError:  # the system has no thread left for us
            self._end(child)

    def _retire(self, child: Child) -> None:
        with self._changed:
            if child in self._idle:
                self._end(child)

    def _end(self, child: Child) -> None:
        _, timer = self._idle.pop(child)
        timer.cancel()
        child.kill()


class _Watch:
    """Tells how one training gets on, and ends it when it has to end."""

    def __init__(
        self, progress: ProgressCallback, stopped: Callable[[], bool], settings: Settings,
        lifeless_s: float, root: Path,
    ) -> None:  # fmt: skip
        self._progress, self._stopped, self._settings = progress, stopped, settings
        self._lifeless_s, self._root = lifeless_s, root
        self._latest, self._told_s = Progress(), -_HEARTBEAT_S

    def wait(self) -> None:
        """The training has not begun."""
        self.check_stop()
        self._tell(Progress("waiting"), self._latest.stage != "waiting")

    def follow(self, child: Child) -> None:
        """Pass the child's progress on until it has done its job."""
        started_s, looked_s, pulse = time.monotonic(), -_LOOK_S, _Pulse(self._lifeless_s)
        self._tell(Progress(), is_new=True)
        while (message := child.message(_POLL_S)) is not None:
            self.check_stop()
            now_s = time.monotonic()
            if now_s - started_s > self._settings.train_timeout_s:
                raise self._late(child)
            update = Progress.of(message)
            self._tell(update or self._latest, update is not None)
            if "problem" in message:
                raise TrainingError(str(message["problem"]))
            if "done" in message:
                return
            if message or now_s - looked_s >= _LOOK_S:
                looked_s = now_s
                pulse.feel(child, bool(message), now_s)
                self._check_memory(child.megabytes())
        raise child.ending()

    def _late(self, child: Child) -> TrainingError:
        return TrainingError(
            f"the training took longer than train_timeout_s = {self._settings.train_timeout_s} s "
            f"and was ended: {child.standing()}"
        )

    def _check_memory(self, found_mb: float) -> None:
        """Refuse more memory than the settings allow, and the last that is left."""
        limit_mb, room = self._settings.train_memory_mb, machine.tightest_room(self._root)
        if found_mb > limit_mb:
            raise TrainingError(
                f"the training process took more than train_memory_mb = {limit_mb} MB (found "
                f"{found_mb:.0f} MB) and was ended"
            )
        if room is not None and room.left_mb < _RESERVE_MB:
            raise TrainingError(
                f"the training process took {found_mb:.0f} MB, and of the {room.limit_mb:,.0f} MB "
                f"that {room.bound} allows in all only {room.left_mb:.0f} MB were left; it was "
                "ended before the kernel ends the bot. Give it more memory, or train on less: "
                "pool_candles, train_candles"
            )

    def _tell(self, latest: Progress, is_new: bool) -> None:
        now_s = time.monotonic()
        if is_new or now_s - self._told_s >= _HEARTBEAT_S:
            self._latest, self._told_s = latest, now_s
            self._progress(latest)

    def check_stop(self) -> None:
        """Give up where that was asked for."""
        if self._stopped():
            raise TrainingError("the training was stopped")


def _ignore(_: Progress) -> None:
    pass


def _stop_check(stop: Stop | None) -> Callable[[], bool]:
    if stop is None:
        return lambda: False
    return stop.is_set if isinstance(stop, threading.Event) else stop


class _Pulse:
    """Ends a process that has neither said anything nor taken processor time for too long.

    Time in which nobody looked, because the whole machine was halted, does not count.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._still_s = limit_s, 0.0
        self._processor_s, self._felt_s = 0.0, time.monotonic()

    def feel(self, child: Child, spoke: bool, now_s: float) -> None:
        """Look whether there is life."""
        before_s, self._processor_s = self._processor_s, child.processor_s()
        passed_s, self._felt_s = now_s - self._felt_s, now_s
        moves = spoke or self._processor_s > before_s
        self._still_s = 0.0 if moves else self._still_s + min(passed_s, 2.0 * _LOOK_S)
        if self._still_s > self._limit_s:
            raise TrainingError(
                f"the training process showed no life for {self._still_s:.0f} s, neither a word "
                f"nor processor time taken, and was ended: {child.standing()}"
            )


TRAINER = Trainer()
run_training = TRAINER.run
atexit.register(TRAINER.end_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TRAINER.forget)
