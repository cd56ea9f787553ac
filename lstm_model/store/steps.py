"""Computed steps on disk, each under the address that says what it was computed from.

    root/steps/<address>.json     the record of a step: what was decided
    root/steps/<address>.npz      the same record, and the arrays to go on from there

Every file is replaced whole, so a kill at any moment leaves the old content or the new. A step can
be computed again: a damaged one counts as absent.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import StoreError
from lstm_model.files import content_of, names_in, write_atomically, writing
from lstm_model.store.card import canonical, pack_weights, parse_weights, sha256

logger = logging.getLogger(__name__)

ADDRESS_PATTERN = "[0-9a-f]{16,64}"
_ARRAY = r"[\w.:/+-]{1,200}"  # a pair's name is one
_RECORD = "record"
_GIVEN = "array/"  # before the name of every array, so that none can be taken for the record
_DIGEST = 64  # hex digits of a sha256


class StepStore:
    """Computed steps below one folder; several processes may share it.

    A record is JSON: keys become text and are sorted, tuples become lists. Arrays may be of any
    plain type and may hold NaN.

    Parameters
    ----------
    root : made on the first write

    Examples
    --------
    >>> import tempfile
    >>> steps = StepStore(Path(tempfile.mkdtemp()))
    >>> steps.save("0123456789abcdef", {"boundary_ms": 300_000}, {"gain": np.zeros(2)})
    >>> steps.load("0123456789abcdef")
    ({'boundary_ms': 300000}, {'gain': array([0., 0.])})
    >>> steps.forget("0123456789abcdef")
    >>> steps.load("0123456789abcdef"), steps.record("0123456789abcdef")
    (None, {'boundary_ms': 300000})
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "steps"
        self._reported: set[Path] = set()
        self._names: list[str] = []  # as they were when the folder last changed
        self._folder_ns = 0

    def find(self, beginning: str) -> list[str]:
        """The addresses of steps that begin so, by name; of damaged ones, too.

        Raises
        ------
        StoreError
            If the folder is there but may not be read.
        """
        if self._folder_ns != (changed_ns := _changed_ns(self._folder)):
            names = {name.rpartition(".")[0] for name in names_in(self._folder)}
            self._names, self._folder_ns = sorted(filter(_is_address, names)), changed_ns
        begin = bisect_left(self._names, beginning)
        return list(takewhile(lambda name: name.startswith(beginning), self._names[begin:]))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the folder without reading thousands of names anew, if nobody else changed it.

        What another process saves meanwhile is found later, or computed twice to the same.
        """
        known = self._folder_ns == _changed_ns(self._folder)
        yield
        if known:
            self._folder_ns = _changed_ns(self._folder)

    def has_arrays(self, address: str) -> bool:
        """Whether there is a file of arrays of a step, though it may be damaged."""
        return self._arrays(address).exists()

    def save(
        self, address: str, record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Store a step, in place of what is there.

        Raises
        ------
        StoreError
            Before anything is written: for an address that is none, a record with NaN or other
            things JSON has no word for, arrays of objects. And if the folder is not writable.
        """
        plain = _plain(address, record)
        # The arrays first: they hold the record too, so that it is there whenever they are.
        content = _pack_step(address, plain, arrays)
        with self._changing():
            write_atomically(self._arrays(address), content)
            self._write_record(address, plain)
            if address not in self._names[(at := bisect_left(self._names, address)) : at + 1]:
                self._names.insert(at, address)

    def record(self, address: str) -> dict[str, Any] | None:
        """What was decided in a step; None when it was not computed or is damaged.

        Raises
        ------
        StoreError
            For an address that is none, and if the file is there but may not be read.
        """
        path = self._records(address)
        content = content_of(path)
        if content is not None:
            if (found := _parse_record(address, content)) is not None:
                return found
            self._warn(path)
        step = self.load(address)
        return None if step is None else step[0]

    def load(self, address: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Record and read-only arrays of a step; None when the arrays are gone or damaged.

        Raises as `record`.
        """
        path = self._arrays(address)
        if (content := content_of(path)) is None:
            return None
        if (step := _parse_step(address, content, path)) is None:
            self._warn(path)
        return step

    def forget(self, address: str) -> None:
        """Remove the arrays of a step and keep its record. Nothing happens if there are none.

        Raises
        ------
        StoreError
            As `record`, and if the folder is not writable.
        """
        content = content_of(self._records(address)) or b""
        if _parse_record(address, content) is None and (step := self.load(address)) is not None:
            self._write_record(address, step[0])  # killed while saving: only the arrays have it
        path = self._arrays(address)
        with writing(path), self._changing():
            path.unlink(missing_ok=True)

    def oldest(self, keep: int) -> list[str]:
        """The steps beside the `keep` that were written last, the oldest first."""
        written = {path.stem: _written_s(path) for path in self._folder.glob("*.json")}
        found = sorted((at for at in written if _is_address(at)), key=lambda at: (written[at], at))
        return found[: max(0, len(found) - keep)]

    def idle(self, for_s: float) -> list[str]:
        """The steps whose arrays were written so long ago."""
        before_s = time.time() - for_s
        old = (path.stem for path in self._folder.glob("*.npz") if _written_s(path) < before_s)
        return sorted(address for address in old if _is_address(address))

    def remove(self, address: str) -> None:
        """Remove all of a step. Raises as `forget`."""
        for path in (self._arrays(address), self._records(address)):
            with writing(path):
                path.unlink(missing_ok=True)

    def _records(self, address: str) -> Path:
        return self._folder / f"{checked(ADDRESS_PATTERN, address, 'address of a step')}.json"

    def _arrays(self, address: str) -> Path:
        return self._records(address).with_suffix(".npz")

    def _write_record(self, address: str, record: dict[str, Any]) -> None:
        fields = {"record": record, "sha256": _record_digest(address, record)}
        write_atomically(self._records(address), canonical(fields) + b"\n")

    def warn_of(self, address: str, problem: str) -> None:
        """Say once that what is stored of a step cannot be used and is left out."""
        self._warn(self._records(address), problem)

    def _warn(self, path: Path, problem: str = "it is damaged or foreign") -> None:
        if path not in self._reported:
            self._reported.add(path)
            logger.warning("%s is left out and computed again: %s", path, problem)


def _changed_ns(folder: Path) -> int:
    """When something came to a folder or left it; 0 if there is none."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:  # if it is there, reading a file of it says what is wrong
        return 0


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process removed it just now
        return math.inf


def _is_address(name: str) -> bool:
    return re.fullmatch(ADDRESS_PATTERN, name) is not None


def _plain(address: str, record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(canonical(dict(record))))
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"step {address}: its record is not plain, finite JSON ({error})"
        ) from None


def _pack_step(address: str, record: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An .npz file with its checksum behind it, which readers of .npz files pass over."""
    packed: dict[str, NDArray[Any]] = {_RECORD: np.frombuffer(canonical(record), np.uint8)}
    for name, array in arrays.items():
        if not re.fullmatch(_ARRAY, name) or name.endswith(".npy"):  # numpy cuts that off
            raise StoreError(f'step {address}: "{name}" is no name for an array')
        packed[f"{_GIVEN}{name}"] = array
    try:
        content = pack_weights(packed)
    except ValueError as error:
        raise StoreError(f"step {address}: its arrays are not plain ({error})") from None
    return content + _step_digest(address, content)


def _parse_step(
    address: str, content: bytes, path: Path
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """The inverse of `_pack_step`; None if a byte differs or it was made for another address."""
    content, digest = content[:-_DIGEST], content[-_DIGEST:]
    if digest != _step_digest(address, content):
        return None
    try:
        arrays: dict[str, NDArray[Any]] = {**parse_weights(content, path)}
        record = dict(json.loads(arrays.pop(_RECORD).tobytes()))
    except (KeyError, TypeError, ValueError):  # also a `StoreError`
        return None
    return record, {name.removeprefix(_GIVEN): array for name, array in arrays.items()}


def _parse_record(address: str, content: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(content)
        record, digest = dict(fields["record"]), fields["sha256"]
        return record if digest == _record_digest(address, record) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _step_digest(address: str, content: bytes) -> bytes:
    return sha256(address.encode() + content).encode()


def _record_digest(address: str, record: dict[str, Any]) -> str:
    return sha256(canonical({"address": address, "record": record}))


def checked(pattern: str, value: str, what: str) -> str:
    """The value, which is to become a file's name or part of one.

    Raises
    ------
    StoreError
        If it does not match the pattern.
    """
    if not re.fullmatch(pattern, value):
        raise StoreError(f'"{value}" is no {what}: it must match {pattern}')
    return value
