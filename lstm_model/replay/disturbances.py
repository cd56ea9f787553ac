"""What goes wrong on a bot's disk: its journal is locked, or nothing can be written any more.

Both are real: a second connection that holds SQLite's lock, and a file that takes all that is free
of a small file system. They last from one virtual time to another, whatever real time passes.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from shlex import quote

from lstm_model.errors import ConfigError

_LOCK_WAIT_S = 30.0  # chosen: far longer than the bot writes at a time
_MOST_FREE = 4 * 2**30  # chosen: bytes; what is larger was not made for this
_CHUNK = 2**20  # chosen: bytes written at a time, halved where less than that is left
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class LockedJournal:
    """Another connection to the journal that is about to write, and does not for a while.

    Nobody else can write meanwhile. Who only reads is not in its way, as SQLite's write-ahead log
    has it.

    Parameters
    ----------
    path : SQLite's file; made if the bot has not yet
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def begin(self) -> None:
        """Lock it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        self._connection = connection

    def end(self) -> None:
        """Let go of it; nothing if it is not locked."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.execute("ROLLBACK")
            connection.close()


class FullDisk:
    """A file system without a free byte, as "no space left on device" says.

    Parameters
    ----------
    folder : where a small file system is mounted that holds the bot's store and nothing else
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._filler = folder, folder / "nothing-is-free"

    def check(self) -> None:
        """Whether it may be filled.

        Raises
        ------
        ConfigError
            It is the disk of everything else, or a large one.
        """
        folder = self._folder
        place = quote(str(folder))
        command = (
            f"mkdir -p {place}; mount -t tmpfs -o size=500m tmpfs {place}; "
            "freqtrade-lstm replay ..."
        )
        how = (
            "mount a small one there first; without being root: unshare --user --map-root-user "
            f"--mount sh -c {quote(command)}"
        )
        if not folder.is_mount():
            raise ConfigError(
                f'incident "full": {folder} is no file system of its own, and your disk is not '
                f"filled for it; {how}"
            )
        found = os.statvfs(folder)
        if (free := found.f_bavail * found.f_frsize) > _MOST_FREE:
            raise ConfigError(
                f'incident "full": {free / 2**30:,.1f} GiB are free in {folder}, at most '
                f"{_MOST_FREE // 2**30} GiB are filled; {how}"
            )

    def begin(self) -> None:
        """Take all that is free."""
        chunk = _CHUNK
        with self._filler.open("wb", buffering=0) as file:
            while chunk:
                try:
                    file.write(bytes(chunk))
                except OSError as error:
                    if error.errno not in _NO_SPACE:
                        raise
                    chunk //= 2

    def end(self) -> None:
        """Give it back; nothing if it was not taken."""
        self._filler.unlink(missing_ok=True)
