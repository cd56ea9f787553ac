"""Facts on a local file until the database has them.

    root/spool/<lineage>.spool    a line each: CRC-32 in hex, and the fact as JSON

What is in the file survives the end of the process, and, once it was synced, that of the machine. A
line that was torn by either is no fact: nobody had been told of it. Facts that the database has
already are written there once all the same, so the file is shortened whenever that is easy.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import zlib
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from lstm_model.errors import StoreError
from lstm_model.files import sync_folder, writing
from lstm_model.store.journal_rows import Fact, is_fact

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

SUFFIX = ".spool"
_CHUNK = 1 << 20  # chosen: bytes, about 1,500 forecasts


class Spool:
    """One file, held by one process. Safe between threads.

    Examples
    --------
    >>> import tempfile
    >>> spool = Spool(Path(tempfile.mkdtemp()) / "bot.spool")
    >>> spool.open()
    True
    >>> spool.append([Fact("decision", {"lineage": "bot"})])
    >>> spool.is_empty
    False
    >>> spool.close()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0  # lines that were no facts, since it was opened
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._begin = self._read = self._size = 0
        self._synced = True

    def open(self) -> bool:
        """Take the file for this process; whether nobody else has it. On Windows nobody looks.

        Raises
        ------
        StoreError
            The folder or the file cannot be written.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b", buffering=0)
            if not _taken(file):
                file.close()
                return False
            self._size = _whole_lines(file)
            sync_folder(self.path.parent)
        self._file, self._begin, self._read = file, 0, 0
        return True

    @property
    def is_empty(self) -> bool:
        """Whether the database has everything."""
        return self._begin == self._size

    def append(self, facts: Collection[Fact], *, synced: bool = True) -> None:
        """Add facts; `synced`, they are on the disk when this returns.

        Raises
        ------
        StoreError
            They could not be written; the file is as before.
        """
        lines = b"".join(map(_line, facts))
        with self._lock, writing(self.path):
            file = self._opened()
            try:
                _write(file, lines)
                self._synced = False
                if synced:
                    self._sync(file)
            except OSError:
                file.truncate(self._size)
                raise
            self._size += len(lines)

    def sync(self) -> None:
        """Put on the disk what is not there yet. Raises as `append`."""
        with self._lock, writing(self.path):
            if not self._synced:
                self._sync(self._opened())

    def read(self) -> list[Fact]:
        """The oldest facts that the database may lack; `done` says that it has them."""
        with self._lock, writing(self.path):
            content = self._rest(_CHUNK)
            if len(content) == _CHUNK:
                content = content[: content.rfind(b"\n") + 1] or self._rest()
        self._read = self._begin + len(content)
        return list(self._facts(content))

    def everything(self) -> list[Fact]:
        """All facts that the database may lack."""
        with self._lock, writing(self.path):
            return list(self._facts(self._rest()))

    def done(self) -> None:
        """The database has what `read` gave last; the file is emptied when it has all."""
        with self._lock, writing(self.path):
            self._begin = self._read
            if self.is_empty:
                self._opened().truncate(0)
                self._begin = self._read = self._size = 0

    def close(self) -> None:
        """Let another process have the file."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise StoreError(f"{self.path} is closed")
        return self._file

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())
        self._synced = True

    def _rest(self, most: int = -1) -> bytes:
        file = self._opened()
        file.seek(self._begin)
        return file.read(most)

    def _facts(self, content: bytes) -> Iterator[Fact]:
        for line in content.splitlines():
            fact = _parsed(line)
            if fact is not None:
                yield fact
                continue
            self.damaged += 1
            logger.error("%s: a line is damaged and no fact: %r", self.path, line[:200])


def others(path: Path) -> Generator[Spool]:
    """What other bots left behind in the folder of `path`, as those whose options have changed."""
    if sys.platform == "win32":  # who else has it cannot be known
        return
    for other in sorted(path.parent.glob(f"*{SUFFIX}")):
        spool = Spool(other)
        try:
            if other != path and spool.open() and not spool.is_empty:
                yield spool
        except StoreError as error:  # somebody else's
            logger.warning("%s", error)
        finally:
            spool.close()


def _line(fact: Fact) -> bytes:
    content = json.dumps([fact.kind, fact.values], separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _parsed(line: bytes) -> Fact | None:
    digest, _, content = line.partition(b" ")
    if digest != b"%08x" % zlib.crc32(content):
        return None
    try:
        kind, values = json.loads(content)
    except (ValueError, TypeError):
        return None
    fact = Fact(kind, values)
    return fact if is_fact(fact) else None


def _write(file: BinaryIO, content: bytes) -> None:
    """All of it: a disk that is nearly full takes a part."""
    while content:
        content = content[file.write(content) :]


def _whole_lines(file: BinaryIO) -> int:
    """Drop a last line that was torn; the size of what is left."""
    file.seek(0)
    content = file.read()
    size = content.rfind(b"\n") + 1
    if size < len(content):
        file.truncate(size)
    return size


def _taken(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
