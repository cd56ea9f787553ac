"""What this process has open, and a system that refuses one thing at a chosen moment.

Python tells an audit hook before it opens a file, a database or a socket, begins a thread or takes
a lock; whatever the hook raises is raised there, as if the system had said no. A hook stays until
the process ends, so there is one, which sleeps while nobody asks for anything.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_DATABASES: list[sqlite3.Connection] = []
_REFUSALS: list[Refusal] = []
_BEGIN = "threading.Thread.start"  # which Python tells no hook of before 3.13
_SYSTEM = ("open", "os.mkdir", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.truncate")


class Refusal:
    """Refuses the `at`-th thing that is asked of the system below `folder`, and no other.

    Threads and locks have no place on the disk; they count wherever they are asked for.

    Attributes
    ----------
    asked : what was asked for so far
    refused : what was refused of it
    """

    def __init__(self, folder: Path, at: int, interrupt: bool) -> None:
        self.asked: list[str] = []
        self.refused = ""
        self._folder, self._at, self._interrupt = str(folder), at, interrupt
        self._thread = threading.current_thread()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        refused = self._refused(event, args)
        if refused is None:
            return
        self.asked.append(event)
        if len(self.asked) - 1 == self._at:
            self.refused = event
            raise KeyboardInterrupt if self._interrupt else refused

    def _refused(self, event: str, args: tuple[Any, ...]) -> Exception | None:
        if self._interrupt and threading.current_thread() is not self._thread:
            return None  # Ctrl-C is heard by one thread
        if event == _BEGIN:
            return RuntimeError("can't start new thread")
        if event == "fcntl.flock":
            return OSError(errno.ENOLCK, "No locks available")
        if not any(str(place).startswith(self._folder) for place in args[:2]):
            return None
        if event == "sqlite3.connect":
            return sqlite3.OperationalError("unable to open database file")
        return OSError(errno.EIO, "Input/output error") if event in _SYSTEM else None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect/handle":
        _DATABASES.append(args[0])
    elif _REFUSALS:
        _REFUSALS[0](event, args)


sys.addaudithook(_hook)


@contextmanager
def refusing(folder: Path, at: int = -1, *, interrupt: bool = False) -> Iterator[Refusal]:
    """Refuse one thing for a while; none by default."""
    start = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        refusal(_BEGIN, ())
        start(thread)

    refusal = Refusal(folder, at, interrupt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", begin)
        _REFUSALS.append(refusal)
        try:
            yield refusal
        finally:
            _REFUSALS.clear()


def open_databases() -> int:
    """SQLite connections that are open, and of which nobody else keeps count."""
    _DATABASES[:] = [database for database in _DATABASES if _is_open(database)]
    return len(_DATABASES)


def _is_open(database: sqlite3.Connection) -> bool:
    try:
        _ = database.total_changes
    except sqlite3.ProgrammingError as error:  # another thread's says so, and may be open
        return "closed" not in str(error)
    return True


def open_things() -> Counter[str]:
    """Databases, threads, and what the system's table of open files holds, each by its name."""
    found = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    for number in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
        except FileNotFoundError:  # that of the listing itself
            continue
    return found + Counter({"database": open_databases()})


def left_open(before: Counter[str]) -> Counter[str]:
    """What is open beside what was `before`; what is about to end has a moment for it."""
    until_s = time.monotonic() + 2.0
    while (left := open_things() - before) and time.monotonic() < until_s:
        time.sleep(0.01)
    return left
