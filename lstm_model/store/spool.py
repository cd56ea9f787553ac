"""Facts on a local file until the database has them.

    root/spool/<lineage>.<database>.spool    a line each: CRC-32 in hex, and the fact as JSON

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
import time
import zlib
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from lstm_model.errors import StoreError
from lstm_model.files import names_in, sync_folder, writing
from lstm_model.store.journal_rows import Fact, is_fact

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

SUFFIX = ".spool"
_CHUNK = 1 << 20  # chosen: bytes, about 1,500 forecasts
_CLOSE_S = 2.0  # chosen: far above a write


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
    True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0  # lines that were no facts, since it was opened
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()  # not held while the file is synced
        self._begin = self._read = self._size = 0
        self._written = self._synced = 0  # bytes, ever
        self._checked = 0  # until where damaged lines were counted
        self._syncing: threading.Thread | None = None

    def open(self) -> bool:
        """Take the file for this process; whether nobody else has it. On Windows nobody looks.

        Raises
        ------
        StoreError
            The folder or the file cannot be written.
        """
        with writing(self.path), ExitStack() as undone:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = undone.enter_context(self.path.open("a+b", buffering=0))
            if not _taken(file):
                return False
            self._size = _whole_lines(file)
            sync_folder(self.path.parent)
            undone.pop_all()
        self._file, self._begin, self._read, self._checked = file, 0, 0, 0
        return True

    @property
    def is_empty(self) -> bool:
        """Whether the database has everything."""
        return self._begin >= self._size

    def append(
        self, facts: Collection[Fact], *, sync_s: float | None = None, lock_s: float = -1.0
    ) -> None:
        """Add facts.

        Parameters
        ----------
        sync_s : how long to wait until they are on the disk; None: as long as it takes
        lock_s : how long to wait for another thread's write; -1: as long as it takes

        Raises
        ------
        StoreError
            They could not be written; the file is as before, but for what was read meanwhile.
        """
        end_s = time.perf_counter() + (sync_s or 0.0)
        lines = b"".join(map(_line, facts))
        mark = self._add(lines, lock_s)
        with ExitStack() as refused:  # or interrupted: nobody is told of them
            refused.callback(self._undo, mark, len(lines), lock_s)
            if sync_s is None:
                self.sync()
            else:
                self.sync_within(end_s - time.perf_counter())
            refused.pop_all()

    def sync(self) -> None:
        """Put on the disk what is not there yet; others write meanwhile. Raises as `append`."""
        with self._held(), writing(self.path):
            written = self._written
            if self._synced >= written:
                return
            handle = os.dup(self._opened().fileno())
        try:
            with writing(self.path):
                os.fsync(handle)
        finally:
            os.close(handle)
        self._synced = max(self._synced, written)

    def sync_within(self, wait_s: float) -> None:
        """The same, by a thread that is waited for so long; one that hangs is left behind.

        As long as that one hangs no other is begun.
        """
        end_s = time.perf_counter() + wait_s
        before = self._syncing
        if before is not None and wait_s > 0.0:  # it may have begun before the newest facts
            before.join(wait_s)
        if wait_s <= 0.0 or (before is not None and before.is_alive()):
            return
        failed: list[StoreError] = []

        def work() -> None:
            try:
                self.sync()
            except StoreError as error:
                failed.append(error)

        syncing = threading.Thread(target=work, name="lstm-spool", daemon=True)
        try:
            syncing.start()
        except RuntimeError:  # the system has no thread left; the next time syncs it too
            return
        self._syncing = syncing
        syncing.join(max(end_s - time.perf_counter(), 0.0))
        if failed:
            raise failed[0]

    def read(self) -> list[Fact]:
        """The oldest facts that the database may lack; `done` says that it has them."""
        with self._held(), writing(self.path):
            begin, content = self._begin, self._rest(_CHUNK)
            if not content.endswith(b"\n"):
                content = content[: content.rfind(b"\n") + 1] or self._rest()
            self._read = begin + len(content)
        return list(self._facts(content, begin))

    def everything(self) -> list[Fact]:
        """All facts that the database may lack."""
        with self._held(), writing(self.path):
            begin, content = self._begin, self._rest()
        return list(self._facts(content, begin))

    def done(self) -> None:
        """The database has what `read` gave last; the file is emptied when it has all."""
        with self._held(), writing(self.path):
            self._begin = self._read
            if self.is_empty:
                self._opened().truncate(0)
                self._begin = self._read = self._size = self._checked = 0
                self._synced = self._written

    def close(self) -> bool:
        """Let another process have the file; what a thread does with it later is refused.

        Whether that could be: while a thread's write hangs in the disk, it is not let go, or that
        write could end in the file of another process.
        """
        if not self._lock.acquire(timeout=_CLOSE_S):
            return False
        try:
            file, self._file = self._file, None
            if file is not None:
                _let_go(file)
                file.close()
        finally:
            self._lock.release()
        return True

    @contextmanager
    def _held(self, wait_s: float = -1.0) -> Iterator[None]:
        if not self._lock.acquire(timeout=wait_s):
            raise StoreError(f"{self.path} is not answered for: a write to its disk hangs")
        try:
            yield
        finally:
            self._lock.release()

    def _add(self, lines: bytes, lock_s: float) -> int:
        """Write lines, or nothing, whatever interrupts it; all bytes that were ever written."""
        with self._held(lock_s), writing(self.path):
            file = self._opened()
            self._cut(file)  # the disk may have refused that before
            try:
                _write(file, lines)
                self._size, self._written = self._size + len(lines), self._written + len(lines)
            finally:
                self._cut(file)
            return self._written

    def _cut(self, file: BinaryIO) -> None:
        """Drop what somebody left who could not write all of it."""
        if file.seek(0, os.SEEK_END) > self._size:
            file.truncate(self._size)

    def _undo(self, mark: int, count: int, lock_s: float) -> None:
        """Take back the newest bytes, unless others wrote or the database got them meanwhile."""
        with self._held(lock_s), writing(self.path):
            start = self._size - count
            if self._written == mark and start >= self._read:
                self._opened().truncate(start)
                self._size = start

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise StoreError(f"{self.path} is closed")
        return self._file

    def _rest(self, most: int | None = None) -> bytes:
        """From the first fact that the database may lack, and no further than was written whole."""
        file, count = self._opened(), self._size - self._begin
        file.seek(self._begin)
        return file.read(count if most is None else min(count, most))

    def _facts(self, content: bytes, begin: int) -> Iterator[Fact]:
        """Those in whole lines that begin at this byte of the file."""
        for line in _lines(content):
            fact = _parsed(line)
            if fact is not None:
                yield fact
            elif begin >= self._checked:  # it is read again until the database has the others
                self._checked, self.damaged = begin + 1, self.damaged + 1
                logger.error("%s: a line is damaged and no fact: %r", self.path, line[:200])
            begin += len(line) + 1


def others(path: Path) -> Generator[Spool]:
    """What other bots left behind in the folder of `path` for the same database.

    So did this one, before an option was changed.
    """
    if sys.platform == "win32":  # who else has it cannot be known
        return
    for other in _beside(path):
        spool = Spool(other)
        try:
            if spool.open() and not spool.is_empty:
                yield spool
        except StoreError as error:  # somebody else's
            logger.warning("%s", error)
        finally:
            spool.close()


def _beside(path: Path) -> list[Path]:
    """The files of other bots for the same database; none where the folder may not be read."""
    try:
        names = sorted(names_in(path.parent))
    except StoreError as error:  # it is no reason to lose what this bot says
        logger.warning("%s", error)
        return []
    found = [path.with_name(name) for name in names if name.endswith(SUFFIX)]
    return [other for other in found if other != path and _database_of(other) == _database_of(path)]


def spool_name(lineage: str, database: str) -> str:
    """What the file of a bot is called that writes into this database."""
    return f"{lineage}.{database}{SUFFIX}"


def _database_of(path: Path) -> str:
    return path.stem.partition(".")[2]


def _lines(content: bytes) -> list[bytes]:
    return content.removesuffix(b"\n").split(b"\n") if content else []


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


def _let_go(file: BinaryIO) -> None:
    """Not by closing it alone: a sync that hangs holds a copy."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_UN)
