"""What the learning has come to: which of the computed steps each bot has reached.

    root/lineages/<name>.json     one bot: its newest step, its champions, a pinned version
    root/lineages/<name>.lock     held by the process that learns in it

A lineage is replaced whole, so a kill at any moment leaves the old content or the new. A damaged
one is refused, by name; who learns in it sets it aside and begins anew. Fields of a newer release
stay.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lstm_model.errors import StoreError
from lstm_model.files import content_of, exclusive, write_atomically, writing
from lstm_model.store.card import VERSION_PATTERN, canonical
from lstm_model.store.steps import ADDRESS_PATTERN, StepStore, checked

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_ANEW = "the learner begins anew, and a version that was pinned has to be pinned again"
_HISTORY = 100  # chosen: far more champions than a roll-back looks at


class Lineage:
    """What one bot has learnt, told in files that others may read and pin meanwhile.

    Parameters
    ----------
    root : made on the first write
    name : e.g. "binance-spot-5m-1f2e3d4c"

    Attributes
    ----------
    lost : what became of a file that this lineage had, to be told; who tells it, empties it

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
        self.name = checked(VERSION_PATTERN, name, "name of a lineage")
        self._path = root / "lineages" / f"{name}.json"
        self._held: BinaryIO | None = None
        self.lost = ""

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
        is_lost = path.exists() and not self._path.exists()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._begin()
            handle = path.open("a+b", buffering=0)
            try:
                self._lock(handle)
                self._held = handle
            finally:
                if self._held is None:
                    handle.close()
        if is_lost:
            self.lost = f"{self._path} is not there, which says what was learnt: {_ANEW}"

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
        checked(ADDRESS_PATTERN, address, "address of a step")
        checked(VERSION_PATTERN, champion, "model version")

        def change(state: _State) -> dict[str, Any]:
            others = (version for version in state.champions if version != champion)
            return {"head": address, "champions": (champion, *others)[:_HISTORY]}

        self._change(change)

    def pin(self, version: str) -> None:
        """Have a version serve whatever the gate says; safe while a bot advances.

        Whether the version is stored is for the caller to know. Raises as `advance`.
        """
        checked(VERSION_PATTERN, version, "model version")
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
        content = content_of(self._path)
        if content is None:
            return _NOTHING
        try:
            return _State.model_validate_json(content)
        except ValidationError:
            if self._held is not None:
                return self._begun_anew()
            raise StoreError(
                f"{self._path} is damaged or foreign: move it away, or start its bot, which does; "
                "models are kept, and the learning begins anew"
            ) from None

    def _begin(self) -> None:
        """Write the file if there is none: one that is missing later was lost."""
        with exclusive(self._path.parent / ".lock"):
            if not self._path.exists():
                write_atomically(self._path, _content(_NOTHING))

    def _begun_anew(self) -> _State:
        """Keep the damaged file under another name."""
        aside = self._path.with_name(f"{self.name}.damaged-{secrets.token_hex(4)}")
        with writing(aside), suppress(FileNotFoundError):
            self._path.rename(aside)
        self.lost = f"{self._path} was damaged and is kept as {aside.name}: {_ANEW}"
        logger.warning("%s", self.lost)
        return _NOTHING

    def _change(self, change: Callable[[_State], dict[str, Any]]) -> None:
        # Not the lock of the bot: the command line pins while that one is held.
        with exclusive(self._path.parent / ".lock"):
            old, before_ns = self._state(), self.changed_ns()
            new = old.model_copy(update=change(old))
            if new == old:
                return
            write_atomically(self._path, _content(new))
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


def heads(root: Path) -> list[str]:
    """The newest step of each lineage below `root`; one whose file is damaged has lost it."""
    found = []
    for lineage in lineages(root):
        with suppress(StoreError):  # another bot's file is its own affair
            found.append(lineage.head)
    return [head for head in found if head is not None]


def head_record(lineage: Lineage) -> dict[str, Any]:
    """The record of a lineage's newest step; empty before the first, and if it is lost or of
    another form.

    Raises
    ------
    StoreError
        If the lineage is damaged, or the record is there but may not be read.
    """
    record = _newest(lineage)
    competing = list(_competing(record))
    whole = isinstance(record.get("boundary_ms"), int) and isinstance(record.get("champion"), str)
    return record if whole and competing and None not in competing else {}


def _newest(lineage: Lineage) -> dict[str, Any]:
    head = lineage.head
    return {} if head is None else StepStore(lineage.root).record(head) or {}


def versions_in_use(root: Path) -> set[str]:
    """Versions that some bot below `root` serves, may go back to, tries out or has pinned.

    Raises
    ------
    StoreError
        As `head_record`, for any of the lineages.
    """
    named = set[str | None]()
    for lineage in lineages(root):
        record = _newest(lineage)
        named |= {lineage.pinned, *lineage.champions[:1]}  # should the record be lost
        others = (record.get("champion"), record.get("predecessor"), *_competing(record))
        named |= {version for version in others if isinstance(version, str)}
    return {version for version in named if version is not None}


def _competing(record: Mapping[str, Any]) -> Iterator[Any]:
    """Versions that compete by a record, which another release may have written."""
    contenders = record.get("contenders")
    for entry in contenders if isinstance(contenders, list) else ():
        yield entry.get("version") if isinstance(entry, dict) else None


class _State(BaseModel):
    """Content of a lineage's file. Nothing may be missing: "{}" is no new lineage."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    head: Annotated[str, Field(pattern=f"^{ADDRESS_PATTERN}$")] | None
    champions: tuple[Annotated[str, Field(pattern=f"^{VERSION_PATTERN}$")], ...]
    pinned: Annotated[str, Field(pattern=f"^{VERSION_PATTERN}$")] | None


_NOTHING = _State(head=None, champions=(), pinned=None)  # what a bot has learnt at first


def _content(state: _State) -> bytes:
    return canonical(state.model_dump(mode="json")) + b"\n"


def _owner(handle: BinaryIO) -> str:
    """Who wrote into the lock file; nothing while the owner is about to."""
    handle.seek(0)
    found = re.fullmatch(rb"(\d+) (\S+)\n", handle.read(100))
    return f" (process {found[1].decode()}, since {found[2].decode()})" if found else ""
