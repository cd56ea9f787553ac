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
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from lstm_model.errors import DataError, TrainingError, explained
from lstm_model.files import DAMAGE
from lstm_model.model.weights import check_trained, is_trained
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
        kinds = [self.rows.dtype.kind, self.targets.dtype.kind, *self._kinds_of_ends()]
        if kinds != ["f", "f", "i", "i"]:
            raise DataError(f"training rows, targets and ends of windows are of kinds {kinds}")
        if self.rows.ndim != 2 or self.targets.shape != self.rows.shape[:1]:
            raise DataError(
                f"training rows {self.rows.shape} and targets {self.targets.shape} do not match"
            )
        self._check_windows("training", self.train_ends)
        self._check_windows("validation", self.validation_ends)
        if self.initial is not None and not self._initial_arrays():
            raise DataError(f"the initial weights hold no network, only {sorted(self.initial)}")

    def _kinds_of_ends(self) -> list[str]:
        ends = (self.train_ends, self.validation_ends)
        return [of.dtype.kind if of.ndim == 1 else f"{of.ndim}-d" for of in ends]

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


# As JSON has them, where a library may have written what it likes.
_Text = Annotated[str, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
_Number = Annotated[float, Field(strict=True)]
_Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]


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

    stage: _Text = "starting"
    epoch: _Count = 0
    epochs: _Count = 0
    step: _Count = 0
    steps: _Count = 0
    fraction: _Share = 0.0
    loss: _Number | None = None
    validation_loss: _Number | None = None
    windows_per_s: _Number | None = None
    eta_s: _Number | None = None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Progress | None:
        """What a message of the child says of progress; None when it says something else."""
        if not message or not message.keys() <= _PROGRESS_FIELDS:
            return None
        try:
            return _PROGRESS.validate_python(message)
        except ValidationError:
            return None


_PROGRESS = TypeAdapter(Progress)
_PROGRESS_FIELDS = {field.name for field in fields(Progress)}


@dataclass(frozen=True)
class Epoch:
    """One pass over the training windows: mean loss with dropout, validation loss without."""

    epoch: _Count
    loss: _Number
    validation_loss: _Number
    seconds: _Number


@dataclass(frozen=True)
class _Record:
    """What result.json holds."""

    epochs: _Count
    best_epoch: _Count
    history: tuple[Epoch, ...]
    fallback: _Text | None
    initial_loss: _Number | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


_RECORD = TypeAdapter(_Record)


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
            record = _RECORD.validate_python(json.loads(path.read_text()))
        with _usable(workdir / "result.npz") as path:
            weights = _read_weights(path)
        with _usable(workdir / "network.keras") as network:
            network.open("rb").close()
        broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
        if broken:
            raise TrainingError(f"the trained weights are not finite: {', '.join(broken)}")
        return cls(
            weights, network, record.epochs, record.best_epoch, record.history, record.fallback,
            seconds, record.initial_loss,
        )  # fmt: skip


def check_network(job: TrainingJob, result: TrainingResult) -> TrainingResult:
    """The result, if it holds a network for the job.

    Raises
    ------
    TrainingError
        It holds something else.
    """
    try:
        check_trained(result.weights, job.rows.shape[1], len(job.settings.levels))
    except (ValueError, LookupError) as error:
        raise TrainingError(f"the training left no network that fits: {error}") from None
    return result


@contextmanager
def _usable(path: Path) -> Iterator[Path]:
    """Say of a result's file that is missing or damaged which it is."""
    try:
        yield path
    except DAMAGE as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        what = explained(found, ()) if found else str(error) or type(error).__name__
        raise TrainingError(f"the training left no usable result, {path}: {what}") from error


def _read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    content = io.BytesIO(path.read_bytes())  # np.load leaves a file open that is damaged
    with np.load(content, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    foreign = [name for name, array in found.items() if array.dtype.kind != "f"]
    if foreign:
        raise ValueError(f"no numbers with a fraction: {', '.join(foreign)}")
    with np.errstate(over="ignore"):  # infinite is named
        return {name: np.asarray(array, np.float32) for name, array in found.items()}
