"""What a model version is: its card, its weight arrays and the bytes both become on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lstm_model.errors import StoreError
from lstm_model.files import DAMAGE

Weights = Mapping[str, NDArray[np.float32]]

WEIGHTS_FILE = "weights.npz"
NETWORK_FILE = "network.keras"
CARD_FILE = "card.json"

VERSION_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
REMEDY = "move that folder away; the next training makes the version anew"


class ModelCard(BaseModel):
    """What one model version was made from and how it scored.

    Numbers must be finite: a NaN or infinite score is refused here, because JSON has no word for
    it and a gate that compares with it answers nonsense. Leave an undefined score out.

    Attributes
    ----------
    version : content address, see `version_id`
    train_start_ms, train_end_ms : half-open; everything used was known at `train_end_ms`
    serves_from_ms : open of the first candle this version may forecast
    settings : `Settings.model_dump()`, kept as plain JSON
    windows : number of windows in train, validation and test
    seconds : wall time of the training
    scores : per forecaster ("lstm", "zero", ...), per score
    kind : how it was made: not trained at all, trained from scratch, or fine-tuned
    parent : version it was fine-tuned from, if it was
    weights : shape of every array in weights.npz; filled in by `ModelStore.publish`
    checksums : file name -> sha256; filled in by `ModelStore.publish`
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    version: str = Field(pattern=f"^{VERSION_PATTERN}$")
    created_ms: int
    code_version: str
    timeframe: str
    pairs: tuple[str, ...]
    settings: dict[str, Any]
    feature_names: tuple[str, ...]
    train_start_ms: int
    train_end_ms: int
    serves_from_ms: int
    data_digest: str
    windows: dict[str, int]
    epochs: int
    seconds: float
    scores: dict[str, dict[str, float]]
    skill: dict[str, float]
    calibration: dict[str, list[float]]
    kind: Literal["baseline", "scratch", "finetune"] = "scratch"
    parent: str | None = None
    weights: dict[str, list[int]] = {}
    checksums: dict[str, str] = {}

    @property
    def substance(self) -> str:
        """Hash of what this version forecasts with, as it is stored: weights and calibration."""
        parts = {"weights": self.checksums.get(WEIGHTS_FILE), "calibration": self.calibration}
        return sha256(canonical(parts))[:16]

    @property
    def p_value(self) -> float:
        """Of the mean's skill against zero return: the worse of at once and one candle late.

        1.0 for a version that was never tested before it served, as a fine-tuned one.
        """
        tested = [self.skill.get(name, 1.0) for name in ("p_value", "p_value_delayed")]
        return max(tested)

    @property
    def proven(self) -> bool:
        """Whether that skill is significant at the usual 5 %."""
        return self.p_value <= 0.05

    @field_validator("settings", mode="before")
    @classmethod
    def _as_plain_json(cls, value: Any) -> Any:
        return json.loads(json.dumps(value, allow_nan=False))


def version_id(**parts: str) -> str:
    """Content address of a model: 16 hex digits over everything that decides its weights.

    Examples
    --------
    >>> version_id(settings="1f", data="2e") == version_id(data="2e", settings="1f")
    True
    >>> len(version_id(settings="1f"))
    16
    """
    return hashlib.sha256(canonical(parts)).hexdigest()[:16]


@cache
def code_digest(modules: tuple[str, ...]) -> str:
    """Hash of the source of these modules of the package."""
    digest = hashlib.sha256()
    for name in modules:
        spec = importlib.util.find_spec(f"lstm_model.{name}")
        assert spec is not None and spec.origin is not None, name  # noqa: S101, PT018
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:16]


def pack_card(card: ModelCard, weights: Weights, files: Mapping[str, bytes]) -> bytes:
    """The card as JSON, completed with shapes, the checksums of `files` and its own."""
    update: dict[str, Any] = {
        "weights": shapes(weights),
        "checksums": {name: sha256(content) for name, content in files.items()},
    }
    fields = card.model_copy(update=update).model_dump(mode="json")
    fields["checksums"][CARD_FILE] = _card_digest(fields)
    return json.dumps(fields, indent=2, allow_nan=False).encode()


def parse_card(content: bytes, path: Path) -> ModelCard:
    """The inverse of `pack_card`.

    Raises
    ------
    StoreError
        If the bytes are no card, or not as they were written. Names `path`.
    """
    try:
        card = ModelCard.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(f"{path} is no model card ({_first_problem(error)}): {REMEDY}") from None
    try:
        digest = _card_digest({"checksums": {}, **json.loads(content)})
    except (ValueError, RecursionError):  # numbers or depths that only pydantic reads
        digest = None
    if digest is None or card.checksums.get(CARD_FILE) != digest:
        raise StoreError(f"{path} was changed (checksum differs): {REMEDY}")
    return card


def _card_digest(fields: dict[str, Any]) -> str:
    others = {name: sha for name, sha in fields["checksums"].items() if name != CARD_FILE}
    return sha256(canonical({**fields, "checksums": others}))


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f'unknown field "{name}"; was it written by a newer release?'
    return f"{name or 'file'}: {first['msg']}"


def pack_weights(weights: Weights) -> bytes:
    """The content of weights.npz: the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(weights):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, np.asarray(weights[name]), allow_pickle=False)
    return buffer.getvalue()


def parse_weights(content: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    """The inverse of `pack_weights`; the arrays are read-only. Nothing is unpickled.

    Raises
    ------
    StoreError
        If the bytes are no archive of plain arrays. Names `path`.
    """
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz file")
        with loaded:
            weights = {name: loaded[name] for name in loaded.files}
        if not all(isinstance(array, np.ndarray) for array in weights.values()):
            raise ValueError("a member is none")  # of another name; NumPy gives its bytes
    except DAMAGE as error:
        raise StoreError(f"{path} holds no plain arrays ({error}): {REMEDY}") from None
    for array in weights.values():
        array.flags.writeable = False
    return weights


def check_weights(weights: Weights, where: str) -> None:
    """Refuse anything but named, finite float32 arrays.

    Raises
    ------
    StoreError
        Names the array, and `where` it came from.
    """
    if not weights:
        raise StoreError(f"{where} has no weights")
    for name, array in weights.items():
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name):
            raise StoreError(f'{where}: "{name}" is no name for a weight array')
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise StoreError(f'{where}: array "{name}" must hold finite float32 numbers')


def shapes(weights: Weights) -> dict[str, list[int]]:
    """Shape of every array, by name."""
    return {name: list(weights[name].shape) for name in sorted(weights)}


def canonical(value: Any) -> bytes:
    """JSON of which equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(content: bytes) -> str:
    """Checksum as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
