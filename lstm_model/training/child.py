"""One training process, seen from its parent.

stdin            a job folder a line, as JSON; the process ends when it is closed
stdout, stderr   what it tells, one JSON object a line; the other lines are its log, quoted when it
                 fails. One pipe for both keeps their order, and needs no disk, which may be full.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lstm_model import machine
from lstm_model.errors import TrainingError

_EXIT_S = 30.0  # chosen: TensorFlow unloads in about one
_DUMP_S = 0.5  # chosen: to write where it stands takes a process milliseconds
_LOG_LINES = 1_000  # chosen: holds where many threads stand
_LOG_LINE_CHARS = 300
_LOG_TAIL_LINES = 15
_FRAMES_SHOWN = 4
_ELSEWHERE = "run the bot on another computer, or with a TensorFlow that is built for this one"

CHILD_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # measured: not faster here, and it reorders float additions
}


class Child:
    """A training process that takes one job after the other.

    Parameters
    ----------
    command : what to run
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._has_worked, self._megabytes, self._kills = False, 0.0, machine.memory_kills()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, encoding="utf-8", errors="replace",
                env=_environment(os.environ, own=command[0] == sys.executable),
                cwd=tempfile.gettempdir(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise TrainingError(f"the training process cannot be started: {error}") from error
        try:
            threading.Thread(target=self._read, daemon=True, name="training-progress").start()
        except RuntimeError as error:  # the system has no thread left for us
            self.kill()
            if self._process.stdout:
                self._process.stdout.close()
            raise TrainingError(f"the training process cannot be followed: {error}") from error

    @property
    def pid(self) -> int:
        """Of the process, which may have ended."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._process.poll() is None

    def send(self, folder: Path) -> None:
        """Hand over a job. Whether the process takes it, its messages tell."""
        if self._has_worked:  # of its first job it may have said before why it cannot do it
            self._log.clear()
        self._has_worked = True
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError):  # it has just ended
            self._process.stdin.write(json.dumps(str(folder)) + "\n")
            self._process.stdin.flush()

    def message(self, wait_s: float) -> dict[str, Any] | None:
        """The next message; empty when there is none yet, None at the end."""
        try:
            return self._messages.get(timeout=wait_s)
        except queue.Empty:
            return {}

    def megabytes(self) -> float:
        """Its resident memory (10^6 bytes); one that ended has none."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # macOS denies a look at the dead
            self._megabytes = float(psutil.Process(self.pid).memory_info().rss / 1e6)
            return self._megabytes
        return 0.0

    def processor_s(self) -> float:
        """Processor time it has taken so far; one that ended takes no more."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = psutil.Process(self.pid).cpu_times()
            return float(times.user + times.system)
        return 0.0

    def standing(self) -> str:
        """Where it stands, if it can still say so; it does not outlive the question for long."""
        if sys.platform != "win32":
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)
            time.sleep(_DUMP_S)
        return _standing(list(self._log)) or "it could not say where it stood"

    def ending(self) -> TrainingError:
        """Why there are no more messages.

        Raises
        ------
        TrainingError
            It said its last word but does not end.
        """
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            raise TrainingError("the training process said its last word but did not end") from None
        log = list(self._log)
        if code < 0:
            cause = "; ".join(filter(None, [self._cause(-code), _standing(log)]))
        else:
            cause = f"ended with code {code}: {log[-1] if log else 'it wrote no message'}"
        tail = ["The end of its log:", *log[-_LOG_TAIL_LINES:]] if log else []
        return TrainingError("\n".join([f"the training process {cause}", *tail]))

    def _cause(self, number: int) -> str:
        """Why a signal ended it, as far as that can be known."""
        name = _signal_name(number)
        if name == "SIGKILL":
            return f"was ended by SIGKILL, {self._killed()}"
        if name == "SIGILL":
            return f"was ended by SIGILL, {_unknown_instruction(machine.processor_flags())}"
        return f"was ended by {name}, {_MEANINGS.get(name, 'which somebody sent')}"

    def _killed(self) -> str:
        counted = machine.memory_kills() - self._kills
        known = f"the kernel ended {counted} process(es) for want of memory meanwhile"
        guessed = "by somebody, or by the kernel for want of memory"
        taken = f"it took {self._megabytes:,.0f} MB when last looked at"
        if (room := machine.tightest_room()) is None:
            return f"{known if counted else guessed}; {taken}"
        bound = f"{room.bound} allows {room.limit_mb:,.0f} MB in all"
        return f"{known if counted else guessed}; {taken}, {bound}"

    def crash(self) -> None:
        """End it and whatever it started; harmless when it has ended."""
        if sys.platform == "win32":
            self._process.kill()
        elif self._process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):  # macOS, when it ends just now
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def kill(self) -> None:
        """The same for good: nothing of it is open any more."""
        self.crash()
        if self._process.stdin:
            with suppress(OSError):  # a job that it did not take
                self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            with self._process.stdout as stdout:
                for line in stdout:
                    if message := _message(line):
                        self._messages.put(message)
                    elif line.strip():
                        self._log.append(line.rstrip()[:_LOG_LINE_CHARS])
        finally:
            self._messages.put(None)


_MEANINGS = {
    "SIGABRT": "because a library of it gave up",
    "SIGBUS": "because memory behind a file was not there: damaged, or its disk full",
    "SIGFPE": "because of a division that cannot be",
    "SIGSEGV": "because a library of it is at fault",
    "SIGXCPU": "because it may take no more processor time (ulimit -t)",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those without a name
        return f"signal {number}"


def _unknown_instruction(flags: Collection[str]) -> str:
    """What is known of a processor that was given an instruction it does not have."""
    if not flags:
        return f"most likely because TensorFlow needs a newer processor than this; {_ELSEWHERE}"
    known = ", ".join(sorted(flag for flag in flags if flag.startswith(("avx", "fma", "asimd"))))
    return (
        "most likely because TensorFlow is built for instructions that this processor does not "
        f"have (of AVX, FMA and ASIMD, /proc/cpuinfo lists {known or 'none'}); {_ELSEWHERE}"
    )


def _standing(log: Sequence[str]) -> str:
    """The innermost calls in a dump of faulthandler, of the thread at fault; "" without one."""
    starts = [n for n, line in enumerate(log) if "(most recent call first)" in line]
    if not starts:
        return ""
    current = [n for n in starts if log[n].startswith("Current thread")]
    calls = itertools.takewhile(
        lambda line: line.startswith("  File "), log[(current or starts)[-1] + 1 :]
    )
    told = [call.strip() for call in calls if "<frozen importlib" not in call]
    return "it stood in " + ", called by ".join(told[:_FRAMES_SHOWN])


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # a library can say anything
        return {}
    return message if isinstance(message, dict) else {}


def _environment(inherited: Mapping[str, str], own: bool) -> dict[str, str]:
    """The child's environment: no other TensorFlow options, and another Python its own libraries.

    Parameters
    ----------
    own : it runs under this interpreter
    """
    foreign = ("TF_", "XLA_", "KERAS_", "OMP_", "KMP_", "CUDA_", *(() if own else ("PYTHON",)))
    kept = {name: value for name, value in inherited.items() if not name.startswith(foreign)}
    return kept | CHILD_ENVIRONMENT
