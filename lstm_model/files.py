"""Files that are there whole or not at all, whatever moment the writer is killed at."""

from __future__ import annotations

import os
import secrets
import shlex
import struct
import sys
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lstm_model.errors import StoreError, UnreadableError

if sys.platform != "win32":
    import fcntl

# What reading arrays raises of a file that is missing, cut short or has other bytes: zipfile takes
# a flipped bit for encryption (RuntimeError) or another compression, NumPy parses a header before
# its sum is checked (TokenError).
DAMAGE = (
    OSError, EOFError, MemoryError, RuntimeError, LookupError, ArithmeticError, AttributeError,
    SyntaxError, TypeError, ValueError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
    struct.error,
)  # fmt: skip
TEMPORARY = ".tmp-"  # how the names of unfinished files and folders begin
_LOCK_WAIT_S = 5.0  # chosen: who changes a file holds its lock for milliseconds
_LOCK_POLL_S = 0.01


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file; readers and crashes see the old content or the new, never a part.

    Raises
    ------
    StoreError
        If the folder cannot be made or written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(8)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_synced(temporary, content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: one change at a time, by whatever process; the others wait.

    Raises
    ------
    StoreError
        If the lock file or its folder cannot be made, or another process does not let go of it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as handle:
            lock(handle, path)
            yield


def lock(handle: IO[bytes], path: Path) -> None:
    """Lock an open file for this process, until it is closed or the process ends.

    On Windows there is no such lock.

    Raises
    ------
    StoreError
        If another process holds it for seconds: one that was suspended may hold it for ever.
    """
    if sys.platform == "win32":
        return
    until_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until_s:
                raise StoreError(
                    f"{path} is held by another process for more than {_LOCK_WAIT_S:g} seconds: "
                    "let a suspended command go on, or end it"
                ) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a failed write which path it was and what to do, as a `StoreError`."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path} ({error.strerror}): {how_to_place(error)} and leave room on "
            'the disk, or choose another folder: "store_dir" in the "lstm" section for models, '
            "--datadir for order flow"
        ) from None


def how_to_place(error: OSError) -> str:
    """What to do where a file or its folder could not be made."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "move away what is in the place of its folder"
    return "make its folder writable"


def refuse_unwritable(path: Path) -> None:
    """Say so before the work if a file or folder could not be written after it.

    Raises
    ------
    StoreError
        It, or what it would be made in, is not writable or no folder.
    """
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    is_place, effective = there == path or there.is_dir(), os.access in os.supports_effective_ids
    if not there.exists():
        why = "it is a link to what is not there"
    elif not is_place:
        why = "it is no folder"
    else:
        why = "" if os.access(there, os.W_OK, effective_ids=effective) else "it is not writable"
    if why:
        raise StoreError(f"cannot write {path} because of {there}: {why}; name another place")


def refuse_closed(path: Path) -> None:
    """Refuse a file that is there and not for this user, before it is taken for damaged.

    Raises
    ------
    UnreadableError
        It, or a folder that it lies in; says what gives permission.
    """
    try:
        with path.open("rb"):
            pass
    except PermissionError as error:
        raise unreadable(path, error) from None
    except OSError:  # what it is instead is for the reader to say
        return


def unreadable(path: Path, error: PermissionError) -> UnreadableError:
    """What to say of a file that may not be read: which it is, or which folder around it."""
    effective = os.access in os.supports_effective_ids
    around = reversed(path.absolute().parents)
    shut = (each for each in around if not os.access(each, os.X_OK, effective_ids=effective))
    place = next(shut, path)
    quoted = shlex.quote(str(place))
    return UnreadableError(
        f"{place} cannot be read by this user ({error.strerror}): give it permission by "
        f"`chown USER {quoted}` or `chmod u+rwX {quoted}`; what is in it may be sound"
    )


def content_of(path: Path) -> bytes | None:
    """What is in a file; None if it is not there.

    Raises
    ------
    StoreError
        If it is there but may not be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}): make it readable for this user"
        ) from None


def names_in(folder: Path) -> list[str]:
    """The names of what is in a folder; none if it is not there.

    Raises
    ------
    StoreError
        If it is there but may not be read.
    """
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be read ({error.strerror}): make it readable for this user"
        ) from None


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file; it is on the disk when this returns."""
    with path.open("xb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Put what was renamed into a folder on the disk."""
    if sys.platform == "win32":  # cannot open a folder there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
