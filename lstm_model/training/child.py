"""One training process, seen from its parent.

stdin   a job folder a line, as JSON; the process ends when it is closed
stdout  what it tells, one JSON object a line; other lines are of no interest
stderr  its log, quoted when it fails
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lstm_model.errors import TrainingError

_EXIT_S = 30.0  # chosen: TensorFlow unloads in about one
_LOG_TAIL_LINES = 15

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
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._has_worked = False
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            encoding="utf-8", errors="replace", env=_environment(os.environ),
            cwd=tempfile.gettempdir(), start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True, name="training-progress").start()

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
            self._log.seek(0)  # its file is ours too: the log begins anew with every job
            self._log.truncate()
        self._has_worked = True
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError):  # it has just ended
            self._process.stdin.write(json.dumps(str(folder)) + "\n")
            self._process.stdin.flush()

    def message(self, wait_s: float) -> dict[str, Any] | None:
        """The next message; empty when there is none yet or it is not one, None at the end."""
        try:
            line = self._lines.get(timeout=wait_s)
        except queue.Empty:
            return {}
        return None if line is None else _message(line)

    def megabytes(self) -> float:
        """Its resident memory (10^6 bytes); one that ended has none."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # macOS denies a look at the dead
            return float(psutil.Process(self.pid).memory_info().rss / 1e6)
        return 0.0

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
        return TrainingError(f"the training process ended with code {code}: {self._log_tail()}")

    def crash(self) -> None:
        """End it and whatever it started; harmless when it has ended."""
        if sys.platform == "win32":
            self._process.kill()
        elif self.alive:
            with suppress(ProcessLookupError, PermissionError):  # macOS, when it ends just now
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def kill(self) -> None:
        """The same for good: nothing of it is open any more."""
        self.crash()
        if self._process.stdin:
            with suppress(OSError):  # a job that it did not take
                self._process.stdin.close()
        self._log.close()

    def _read(self) -> None:
        if self._process.stdout:
            with self._process.stdout as stdout:
                for line in stdout:
                    self._lines.put(line)
        self._lines.put(None)

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        if not lines:
            return "it wrote no message"
        return f"{lines[-1]}\nThe end of its log:\n" + "\n".join(lines[-_LOG_TAIL_LINES:])


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: no other TensorFlow options, this package importable."""
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(("TF_", "XLA_", "KERAS_", "OMP_", "KMP_", "CUDA_"))
    }
    kept.update(CHILD_ENVIRONMENT)
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):  # a checkout that is not installed
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), kept.get("PYTHONPATH"))))
    return kept
