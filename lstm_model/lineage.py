"""What the learning has come to: computed steps, and which of them a bot has reached.

    root/steps/<address>.json     the record of a step: what was decided
    root/steps/<address>.npz      the same record, and the arrays to go on from there
    root/lineages/<name>.json     one bot: its newest step, its champions, a pinned version
    root/lineages/<name>.lock     held by the process that learns in it

Every file is replaced whole, so a kill at any moment leaves the old content or the new. A step can
be computed again: a damaged one counts as absent. What a bot has reached cannot: a damaged lineage
is refused, by name.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lstm_model.card import VERSION_PATTERN, canonical, pack_weights, parse_weights, sha256
from lstm_model.errors import StoreError
from lstm_model.files import exclusive, write_atomically, writing

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_ADDRESS = "[0-9a-f]{16,64}"
_ARRAY = r"[\w.:/+-]{1,200}"  # a pair's name is one
_RECORD = "record"
_GIVEN = "array/"  # before the name of every array, so that none can be taken for the record
_DIGEST = 64  # hex digits of a sha256
_HISTORY = 100  # chosen: far more champions than a roll-back looks at


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
        write_atomically(self._arrays(address), _pack_step(address, plain, arrays))
        self._write_record(address, plain)

    def record(self, address: str) -> dict[str, Any] | None:
        """What was decided in a step; None when it was not computed or is damaged.

        Raises
        ------
        StoreError
            For an address that is none, and if the file is there but may not be read.
        """
        path = self._records(address)
        content = _content(path)
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
        if (content := _content(path)) is None:
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
        content = _content(self._records(address)) or b""
        if _parse_record(address, content) is None and (step := self.load(address)) is not None:
            self._write_record(address, step[0])  # killed while saving: only the arrays have it
        path = self._arrays(address)
        with writing(path):
            path.unlink(missing_ok=True)

    def _records(self, address: str) -> Path:
        return self._folder / f"{_checked(_ADDRESS, address, 'address of a step')}.json"

    def _arrays(self, address: str) -> Path:
        return self._records(address).with_suffix(".npz")

    def _write_record(self, address: str, record: dict[str, Any]) -> None:
        fields = {"record": record, "sha256": _record_digest(address, record)}
        write_atomically(self._records(address), canonical(fields) + b"\n")

    def _warn(self, path: Path) -> None:
        if path not in self._reported:
            self._reported.add(path)
            logger.warning("%s is damaged or foreign and is left out: it is computed again.", path)


class Lineage:
    """What one bot has learnt, told in files that others may read and pin meanwhile.

    Parameters
    ----------
    root : made on the first write
    name : e.g. "binance-spot-5m-1f2e3d4c"

    Raises
    ------
    StoreError
        If the name cannot be that of a file. Reading one of the properties raises it if the file
        is damaged.

    Examples
    --------
    >>> import tempfile
    >>> lineage = Lineage(Path(tempfile.mkdtemp()), "binance-spot-5m")
    >>> lineage.head, lineage.champions, lineage.pinned
    (None, [], None)
    >>> lineage.advance("0123456789abcdef", "baseline")
    >>> lineage.pin("baseline")
    >>> lineage.head, lineage.champions, lineage.pinned
    ('0123456789abcdef', ['baseline'], 'baseline')
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = _checked(VERSION_PATTERN, name, "name of a lineage")
        self._path = root / "lineages" / f"{name}.json"
        self._held: BinaryIO | None = None

    def acquire(self) -> None:
        """Be the one process that learns here, until `release` or the end of the process.

        A second call does nothing. On Windows there is no such lock.

        Raises
        ------
        StoreError
            If another process, or another object of this one, holds it; or the folder is not
            writable.
        """
        if self._held is not None:
            return
        path = self._path.with_suffix(".lock")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+b", buffering=0)
            try:
                self._lock(handle)
                self._held = handle
            finally:
                if self._held is None:
                    handle.close()

    def release(self) -> None:
        """Let another process learn here. Nothing happens if this one did not."""
        handle, self._held = self._held, None
        if handle is None:
            return
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may have the file open still
        handle.close()

    @property
    def head(self) -> str | None:
        """Address of the newest step; None before the first."""
        return self._state().head

    @property
    def pinned(self) -> str | None:
        """The version that was told to serve whatever the gate says, or None."""
        return self._state().pinned

    @property
    def champions(self) -> list[str]:
        """Versions that ever served, the newest first, each once, at most 100."""
        return list(self._state().champions)

    def advance(self, address: str, champion: str) -> None:
        """A new head and who serves from there, both at once.

        Raises
        ------
        StoreError
            If the file is damaged or cannot be written, or an argument is no address or version.
        """
        _checked(_ADDRESS, address, "address of a step")
        _checked(VERSION_PATTERN, champion, "model version")

        def change(state: _State) -> dict[str, Any]:
            others = (version for version in state.champions if version != champion)
            return {"head": address, "champions": (champion, *others)[:_HISTORY]}

        self._change(change)

    def pin(self, version: str) -> None:
        """Have a version serve whatever the gate says; safe while a bot advances.

        Whether the version is stored is for the caller to know. Raises as `advance`.
        """
        _checked(VERSION_PATTERN, version, "model version")
        self._change(lambda _: {"pinned": version})

    def unpin(self) -> None:
        """Give the choice back to the gate."""
        self._change(lambda _: {"pinned": None})

    def changed_ns(self) -> int:
        """When the file last changed, 0 if it was never written; differs after every change."""
        try:
            return self._path.stat().st_mtime_ns
        except OSError:  # if it is there, reading it says what is wrong
            return 0

    def _state(self) -> _State:
        content = _content(self._path)
        if content is None:
            return _State(head=None, champions=(), pinned=None)
        try:
            return _State.model_validate_json(content)
        except ValidationError:
            raise StoreError(
                f"{self._path} is damaged or foreign: move it away; models are kept, and the bot "
                "then begins its learning anew"
            ) from None

    def _change(self, change: Callable[[_State], dict[str, Any]]) -> None:
        # Not the lock of the bot: the command line pins while that one is held.
        with exclusive(self._path.parent / ".lock"):
            old, before_ns = self._state(), self.changed_ns()
            new = old.model_copy(update=change(old))
            if new == old:
                return
            write_atomically(self._path, canonical(new.model_dump(mode="json")) + b"\n")
            if self.changed_ns() == before_ns:  # the clock of a file system ticks in milliseconds
                os.utime(self._path, ns=(before_ns + 1, before_ns + 1))

    def _lock(self, handle: BinaryIO) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another bot{_owner(handle)} already learns in {self.root}: stop it, or give this "
                'bot its own "store_dir" in the "lstm" section'
            ) from None
        handle.truncate(0)
        since = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
        handle.write(f"{os.getpid()} {since}\n".encode())


def lineages(root: Path) -> list[Lineage]:
    """All that were ever written below `root`, by name."""
    names = (path.stem for path in (root / "lineages").glob("*.json"))
    return [Lineage(root, name) for name in sorted(names) if re.fullmatch(VERSION_PATTERN, name)]


class _State(BaseModel):
    """Content of a lineage's file. Nothing may be missing: "{}" is no new lineage."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    head: Annotated[str, Field(pattern=f"^{_ADDRESS}$")] | None
    champions: tuple[Annotated[str, Field(pattern=f"^{VERSION_PATTERN}$")], ...]
    pinned: Annotated[str, Field(pattern=f"^{VERSION_PATTERN}$")] | None


def _owner(handle: BinaryIO) -> str:
    """Who wrote into the lock file; nothing while the owner is about to."""
    handle.seek(0)
    found = re.fullmatch(rb"(\d+) (\S+)\n", handle.read(100))
    return f" (process {found[1].decode()}, since {found[2].decode()})" if found else ""


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
    except (ValueError, TypeError, KeyError):
        return None


def _step_digest(address: str, content: bytes) -> bytes:
    return sha256(address.encode() + content).encode()


def _record_digest(address: str, record: dict[str, Any]) -> str:
    return sha256(canonical({"address": address, "record": record}))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}): make it readable for this user"
        ) from None


def _checked(pattern: str, value: str, what: str) -> str:
    if not re.fullmatch(pattern, value):
        raise StoreError(f'"{value}" is no {what}: it must match {pattern}')
    return value
