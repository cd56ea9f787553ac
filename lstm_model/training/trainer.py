"""Training in a child process, so that the bot never imports TensorFlow.

The protocol is a job folder. The parent writes `job.json` and `job.npz` and starts
`python -m lstm_model.training.network_process FOLDER`; the child reports one JSON object per line
on stdout, writes `result.npz`, `result.json` and `network.keras` and ends with code 0. Its stderr
is `train.log`. It ends by itself when its stdin is closed: no training outlives its parent.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from lstm_model.errors import DataError, TrainingError
from lstm_model.settings import Settings

_HEARTBEAT_S = 1.0  # progress is repeated this often while the child has nothing new to say
_POLL_S = 0.1
_MEMORY_LOOK_S = 1.0  # chosen: a training that grows does so over many batches
_EXIT_S = 30.0  # chosen: TensorFlow unloads in about one
_LOG_TAIL_LINES = 15

CHILD_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # measured: not faster here, and it reorders float additions
}


@dataclass(frozen=True)
class TrainingJob:
    """What one training learns from. A window is `rows[end - L + 1 : end + 1]`, L the lookback.

    Attributes
    ----------
    rows : (R, F) float32
        Scaled feature rows of all pairs, one pair after the other.
    targets : (R,) float32, volatility-scaled log return
        NaN where a row has no label.
    train_ends : (N,) int32
        Row of each training window's newest candle.
    validation_ends : (M,) int32
        The same for the windows that decide when to stop.
    initial
        Weights to fine-tune, under the names listed in `lstm_model.training.network`; a scaler
        among them is ignored. None trains from scratch.

    Raises
    ------
    DataError
        When there is nothing to learn from, or a window has no label or unusable rows, or
        `initial` holds no network. Whether it fits the settings is for the child to find.
    """

    settings: Settings
    rows: NDArray[np.float32]
    targets: NDArray[np.float32]
    train_ends: NDArray[np.int32]
    validation_ends: NDArray[np.int32]
    initial: Mapping[str, NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.targets.shape != self.rows.shape[:1]:
            raise DataError(
                f"training rows {self.rows.shape} and targets {self.targets.shape} do not match"
            )
        self._check_windows("training", self.train_ends)
        self._check_windows("validation", self.validation_ends)
        if self.initial is not None and not self._initial_arrays():
            raise DataError(f"the initial weights hold no network, only {sorted(self.initial)}")

    def _check_windows(self, name: str, ends: NDArray[np.int32]) -> None:
        lookback = self.settings.lookback
        if not len(ends):
            raise DataError(f"there are no {name} windows: more candles are needed")
        if ends.min() < lookback - 1 or ends.max() >= len(self.rows):
            raise DataError(f"a {name} window reaches beyond the {len(self.rows)} rows")
        bad_rows = np.cumsum(np.r_[0, ~np.isfinite(self.rows).all(axis=1)])
        bad = (bad_rows[ends + 1] - bad_rows[ends + 1 - lookback] > 0) | ~np.isfinite(
            self.targets[ends]
        )
        if bad.any():
            raise DataError(
                f"{int(bad.sum())} of {len(ends)} {name} windows have no label or rows that are "
                f"not finite, first at row {int(ends[bad][0])}"
            )

    def _initial_arrays(self) -> dict[str, Any]:
        return {
            f"initial/{name}": np.asarray(array, np.float32)
            for name, array in (self.initial or {}).items()
            if not name.startswith("scaler/")
        }

    def write(self, workdir: Path, *, background: bool) -> None:
        """Write `job.json` and `job.npz` for the child."""
        options = {"settings": self.settings.model_dump(mode="json"), "background": background}
        (workdir / "job.json").write_text(json.dumps(options))
        np.savez(
            workdir / "job.npz",
            rows=np.asarray(self.rows, np.float32),
            targets=np.asarray(self.targets, np.float32),
            train_ends=np.asarray(self.train_ends, np.int32),
            validation_ends=np.asarray(self.validation_ends, np.int32),
            **self._initial_arrays(),
        )


@dataclass(frozen=True)
class Progress:
    """How far a training is. Numbers are unknown (None) until the first steps are done.

    Attributes
    ----------
    stage
        `starting`, `compiling` or `training`.
    fraction
        Done, in [0, 1], if every epoch is needed; early stopping may end sooner.
    eta_s
        Seconds left on the same assumption.
    """

    stage: str = "starting"
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    loss: float | None = None
    validation_loss: float | None = None
    windows_per_s: float | None = None
    eta_s: float | None = None

    @classmethod
    def from_line(cls, line: str) -> Self | None:
        """A line of the child's stdout, or None when it is not a progress line."""
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            return None
        if not isinstance(message, dict) or not message.keys() <= _PROGRESS_FIELDS:
            return None
        return cls(**message)


_PROGRESS_FIELDS = {field.name for field in fields(Progress)}


@dataclass(frozen=True)
class Epoch:
    """One pass over the training windows: mean loss with dropout, validation loss without."""

    epoch: int
    loss: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Attributes
    ----------
    weights
        Arrays under the names listed in `lstm_model.training.network`, from the best epoch.
    network
        The same as a `.keras` file, in the job folder.
    best_epoch
        0 when no epoch beat the initial weights: then they are the result.
    fallback
        Why the slower stock Keras path was used; None when the fused kernel trained.
    initial_loss
        Validation loss of the initial weights; None when there were none.
    """

    weights: dict[str, NDArray[np.float32]]
    network: Path
    epochs: int
    best_epoch: int
    history: tuple[Epoch, ...]
    fallback: str | None
    seconds: float
    initial_loss: float | None = None


ProgressCallback = Callable[[Progress], None]
Stop = threading.Event | Callable[[], bool]


def run_training(
    job: TrainingJob,
    workdir: Path,
    progress: ProgressCallback | None = None,
    stop: Stop | None = None,
    *,
    background: bool = True,
    command: Sequence[str] = (sys.executable, "-m", "lstm_model.training.network_process"),
) -> TrainingResult:
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
    command
        Program that gets `workdir` as its last argument.

    Raises
    ------
    TrainingError
        When the child fails, takes longer than `train_timeout_s` or more memory than
        `train_memory_mb`, is stopped, or leaves a result that is incomplete or not finite. No
        process is left behind.
    """
    started_s = time.monotonic()
    workdir = workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    job.write(workdir, background=background)
    with _child([*command, str(workdir)], workdir) as child:
        _follow(child, progress or _ignore, _stop_check(stop), job.settings)
        code = _wait(child)
    if code:
        raise TrainingError(f"the training process ended with code {code}: {_log_tail(workdir)}")
    return _read_result(workdir, time.monotonic() - started_s)


def _ignore(_: Progress) -> None:
    pass


def _stop_check(stop: Stop | None) -> Callable[[], bool]:
    if stop is None:
        return lambda: False
    return stop.is_set if isinstance(stop, threading.Event) else stop


@contextmanager
def _child(command: Sequence[str], workdir: Path) -> Iterator[subprocess.Popen[str]]:
    with (workdir / "train.log").open("w") as log:
        child = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            encoding="utf-8", errors="replace", env=_environment(os.environ), cwd=workdir,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        _kill(child)


def _kill(child: subprocess.Popen[str]) -> None:
    """End the child and whatever it started; harmless when it has ended."""
    if sys.platform == "win32":
        child.kill()
    elif child.poll() is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS, when it ends just now
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        child.stdin.close()


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


def _follow(
    child: subprocess.Popen[str],
    progress: ProgressCallback,
    stop: Callable[[], bool],
    settings: Settings,
) -> None:
    """Pass the child's progress on until it closes stdout."""
    lines = _read_lines(child)
    started_s = time.monotonic()
    latest, told_s, looked_s = Progress(), -_HEARTBEAT_S, -_MEMORY_LOOK_S
    while (line := _next_line(lines)) is not None:
        if stop():
            raise TrainingError("the training was stopped")
        now_s = time.monotonic()
        _check_time(now_s - started_s, settings.train_timeout_s)
        if now_s - looked_s >= _MEMORY_LOOK_S:
            looked_s = now_s
            _check_memory(child.pid, settings.train_memory_mb)
        update = Progress.from_line(line)
        if update or now_s - told_s >= _HEARTBEAT_S:
            latest, told_s = update or latest, now_s
            progress(latest)


def _check_time(elapsed_s: float, limit_s: int) -> None:
    if elapsed_s > limit_s:
        raise TrainingError(
            f"the training took longer than train_timeout_s = {limit_s} s and was ended"
        )


def _check_memory(pid: int, limit_mb: int) -> None:
    """Refuse more than `limit_mb` (10^6 bytes) of resident memory; one that ended has none."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # macOS denies a look at the dead
        found_mb = psutil.Process(pid).memory_info().rss / 1e6
        if found_mb > limit_mb:
            raise TrainingError(
                f"the training process took more than train_memory_mb = {limit_mb} MB (found "
                f"{found_mb:.0f} MB) and was ended"
            )


def _wait(child: subprocess.Popen[str]) -> int:
    try:
        return child.wait(_EXIT_S)
    except subprocess.TimeoutExpired:
        raise TrainingError("the training process said its last word but did not end") from None


def _read_lines(child: subprocess.Popen[str]) -> queue.Queue[str | None]:
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        if child.stdout:
            with child.stdout as stdout:
                for line in stdout:
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True, name="training-progress").start()
    return lines


def _next_line(lines: queue.Queue[str | None]) -> str | None:
    """The next line, "" when there is none yet, None at the end."""
    try:
        return lines.get(timeout=_POLL_S)
    except queue.Empty:
        return ""


def _log_tail(workdir: Path) -> str:
    lines = (workdir / "train.log").read_text(errors="replace").strip().splitlines()
    if not lines:
        return "it wrote no message"
    return f"{lines[-1]}\nThe end of its log:\n" + "\n".join(lines[-_LOG_TAIL_LINES:])


def _read_result(workdir: Path, seconds: float) -> TrainingResult:
    network = workdir / "network.keras"
    try:
        result: dict[str, Any] = json.loads((workdir / "result.json").read_text())
        history = tuple(Epoch(**epoch) for epoch in result.pop("history"))
        weights = _read_weights(workdir / "result.npz")
        if not network.is_file():
            raise FileNotFoundError(network)
        found = TrainingResult(weights, network, history=history, seconds=seconds, **result)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"the training left no usable result: {error}") from error
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        raise TrainingError(f"the trained weights are not finite: {', '.join(broken)}")
    return found


def _read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
