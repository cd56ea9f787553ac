"""Real faults of a journal's database: a lock of another process, a server that stands."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOLDS = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE" if sys.argv[2] == "writes" else "BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
DRIVERS = [name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)]
BINARIES = next(
    (Path(os.path.realpath(path)).parent for path in [shutil.which("pg_ctl")] if path), None
)
needs_server = pytest.mark.skipif(
    BINARIES is None or not DRIVERS, reason="needs PostgreSQL's pg_ctl, and psycopg or psycopg2"
)


@contextmanager
def locked(path: Path, how: str = "writes") -> Iterator[None]:
    """Another process writes into a SQLite file and does not come to an end."""
    command = [sys.executable, "-c", HOLDS, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            other.kill()


class Server:
    """PostgreSQL on 127.0.0.1, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        assert BINARIES is not None
        self.folder, self.binaries = folder, BINARIES
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "bot", "-N")

    def url(self, driver: str) -> str:
        return f"postgresql+{driver}://bot:s3cret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self.folder / "log")
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", log, "-o", options, "start"
        )

    def demand_passwords(self) -> None:
        """From now on; that of the url is wrong, for it has none."""
        rule = "host all all 127.0.0.1/32 scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rule)
        self._run("pg_ctl", "-D", str(self.folder / "data"), "reload")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def send(self, number: signal.Signals) -> None:
        """To the server and all that serve a connection."""
        main = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        tasks = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for process in (main, *map(int, tasks)):
            os.kill(process, number)

    def _run(self, name: str, *args: str) -> None:
        command = [str(self.binaries / name), *args]
        if os.geteuid() == 0:  # which it refuses to be run by
            command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs."""
    with tempfile.TemporaryDirectory(prefix="lstm-postgres-") as folder:
        Path(folder).chmod(0o777)
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.send(signal.SIGCONT)
            server.stop()


def wait_until(condition: object, timeout_s: float = 10.0) -> None:
    """Look again until it holds."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
