"""What one training is given, tells and leaves: the job folder and its messages.

job.json, job.npz                            written by the parent, read by the training process
result.npz, result.json, network.keras       the other way round
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import DataError, TrainingError
from lstm_model.files import DAMAGE
from lstm_model.model.weights import is_trained
from lstm_model.settings import Settings


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
        Weights to fine-tune, under the names listed in `lstm_model.fitting.network`; a scaler
        and a mean among them are ignored. None trains from scratch.
    parity
        Folder where it is remembered for which networks the fused kernel equals Keras. None: they
        are compared anew by every training process.

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
    parity: Path | None = None

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
            if is_trained(name)
        }

    def write(self, workdir: Path) -> None:
        """Write `job.json` and `job.npz` for the child."""
        options = {
            "settings": self.settings.model_dump(mode="json"),
            "parity": None if self.parity is None else str(self.parity.resolve()),
        }
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
        `waiting` (for another training), `starting`, `compiling` or `training`.
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
    def of(cls, message: Mapping[str, Any]) -> Self | None:
        """What a message of the child says of progress; None when it says something else."""
        return cls(**message) if message and message.keys() <= _PROGRESS_FIELDS else None


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
        Arrays under the names listed in `lstm_model.fitting.network`, from the best epoch.
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

    @classmethod
    def read(cls, workdir: Path, seconds: float) -> Self:
        """What the training process wrote.

        Raises
        ------
        TrainingError
            Something is missing or damaged, or a weight is not finite.
        """
        with _usable(workdir / "result.json") as path:
            result: dict[str, Any] = json.loads(path.read_text())
            history = tuple(Epoch(**epoch) for epoch in result.pop("history"))
        with _usable(workdir / "result.npz") as path:
            weights = _read_weights(path)
        with _usable(workdir / "network.keras") as network:
            network.stat()
        with _usable(workdir / "result.json"):
            found = cls(weights, network, history=history, seconds=seconds, **result)
        broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
        if broken:
            raise TrainingError(f"the trained weights are not finite: {', '.join(broken)}")
        return found


@contextmanager
def _usable(path: Path) -> Iterator[Path]:
    """Say of a result's file that is missing or damaged which it is."""
    try:
        yield path
    except DAMAGE as error:
        what = str(error) or type(error).__name__
        raise TrainingError(f"the training left no usable result, {path}: {what}") from error


def _read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    content = io.BytesIO(path.read_bytes())  # np.load leaves a file open that is damaged
    with np.load(content, allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
