"""What goes wrong on a bot's disk in a replay is what goes wrong on real disks."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lstm_model.errors import ConfigError
from lstm_model.replay.disturbances import FullDisk, LockedJournal
from lstm_model.store.journal import Journal, JournalRow

ROW = JournalRow("BTC/USDT", "5m", 0, "1f", (-0.1, 0.0, 0.1), 0.01, 0.0, -0.1, 0.1, "", 1)


def written(path: Path) -> str:
    """What SQLite says of another connection that writes and does not wait."""
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as other:
        try:
            other.execute("UPDATE forecast SET version = version")
        except sqlite3.OperationalError as error:
            return str(error)
    return ""


def test_a_locked_journal_can_be_read_and_not_written_until_it_is_let_go(tmp_path: Path) -> None:
    journal, path = Journal(f"sqlite:///{tmp_path}/journal.sqlite"), tmp_path / "journal.sqlite"
    journal.record([ROW])
    locked = LockedJournal(path)
    assert written(path) == ""
    locked.begin()
    assert written(path) == "database is locked"
    assert journal.last("BTC/USDT", "5m") == ROW
    locked.end()
    assert written(path) == ""
    locked.end()
    journal.close()


def test_a_journal_may_be_locked_before_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "store" / "journal.sqlite"
    locked = LockedJournal(path)
    locked.begin()
    assert written(path) == "database is locked"
    locked.end()


def test_a_disk_that_is_not_there_to_be_filled_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file system of its own") as caught:
        FullDisk(tmp_path).check()
    assert f"mount -t tmpfs -o size=500m tmpfs {tmp_path}" in str(caught.value)


def test_what_is_advised_for_a_folder_with_spaces_and_quotes_means_that_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my week's $(disk)"
    folder.mkdir()
    with pytest.raises(ConfigError) as caught:
        FullDisk(folder).check()
    advice = "unshare " + str(caught.value).partition("unshare ")[2]
    words = shlex.split(advice)
    *_, command = words
    assert words[-3:-1] == ["sh", "-c"]
    mkdir, mount, _ = [shlex.split(part) for part in command.split("; ")]
    assert mkdir[-1] == mount[-1] == str(folder)


def test_a_large_disk_is_not_filled() -> None:
    with pytest.raises(ConfigError, match="GiB are free in /, at most 4 GiB are filled"):
        FullDisk(Path("/")).check()


_FILLED = """
import errno, sqlite3, sys
from pathlib import Path
from lstm_model.errors import StoreError
from lstm_model.replay.disturbances import FullDisk
folder = Path(sys.argv[1])
full, path = FullDisk(folder), folder / "journal.sqlite"
journal = sqlite3.connect(path, isolation_level=None)
journal.execute("PRAGMA journal_mode=WAL")
journal.execute("CREATE TABLE said (text)")
full.check()
full.begin()
for work in (
    lambda: (folder / "new").write_bytes(b"1"),
    lambda: journal.execute("INSERT INTO said VALUES (?)", ["x" * 9_000]),
):
    try:
        work()
    except OSError as error:
        print(errno.errorcode[error.errno])
    except sqlite3.OperationalError as error:
        print(error)
full.end()
journal.execute("INSERT INTO said VALUES (?)", ["x" * 9_000])
(folder / "new").write_bytes(b"1")
full.end()
print(journal.execute("SELECT count(*) FROM said").fetchone()[0])
"""


def test_on_a_full_disk_nothing_is_written_and_later_all_is(tmp_path: Path) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    mount = f"mount -t tmpfs -o size=2m tmpfs {tmp_path}"
    done = subprocess.run(
        [*apart, f'{mount} && "$@"', "sh", sys.executable, "-c", _FILLED, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.split("\n") == ["ENOSPC", "database or disk is full", "1", ""], done.stderr
