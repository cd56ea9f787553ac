"""How long the bot's loop takes for a journal that is well, locked, slow, away and back.

    PYTHONPATH=tests python benchmarks/bench_journal.py       # 300 candles a case, some minutes
    ... --candles 30 --bytes                                  # quick; and how large a journal grows

Of every candle: what the loop does with the journal, as `LiveEngine` does it: see the clock, look
up what was forecast, record the forecasts of all pairs in one go, note what became of the candles.
A pair of which the journal is to be asked joins meanwhile: that is what the loop waits for. In the
middle third of the candles something is wrong with the database; afterwards it is asked what
it holds: every forecast, once. PostgreSQL needs `pg_ctl` and a driver (psycopg or psycopg2).
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from journal_faults import BINARIES, DRIVERS, Server, locked, serving
from rich.console import Console
from rich.table import Table

from lstm_model.settings import DEFAULT_LEVELS
from lstm_model.store.journal import Journal, JournalRow
from lstm_model.store.recorder import LOCK_WAIT_S, Recorder
from lstm_model.trading.told import Memory
from lstm_model.trading.verdicts import Verdicts

STEP_MS, BEGIN_MS = 300_000, 1_700_000_100_000
PAIRS = (1, 20, 100)
LINEAGE, VERSION = "binance-spot-5m-1f2e3d4c", "0123456789abcdef"
PAUSE_S = 0.02  # between two candles; a bot waits for minutes
BACK_S = 90.0  # until the thread has tried again
console = Console(width=140)
Fault = Callable[[Path], Any]


class Bot:
    """The part of a bot that has to do with the journal."""

    def __init__(self, folder: Path, place: str | Path, pairs: int) -> None:
        self.recorder = Recorder(
            Journal(place, LINEAGE, lock_wait_s=LOCK_WAIT_S), folder / "bot.spool", "5m", 400
        )
        self.pairs = [f"P{number:03d}/USDT" for number in range(pairs)]
        self.memory = Memory(self.recorder, "5m", DEFAULT_LEVELS, lambda: {VERSION})
        self.verdicts = Verdicts(self.recorder, "5m")
        self.draw = np.random.default_rng(1)

    def start(self) -> None:
        self.recorder.start()
        self.memory.begin(0, BEGIN_MS - STEP_MS)
        self.memory.follow(self.pairs)
        self.recorder.settle(30.0)

    def candle(self, candle_ms: int) -> None:
        self.recorder.tick(candle_ms + STEP_MS, STEP_MS)
        self.verdicts.flush()
        known = [self.memory.newest_ms(pair) < candle_ms for pair in self.pairs]
        self.memory.keep([self.forecast(pair, candle_ms) for pair in self.pairs])
        for pair in self.pairs:
            self.verdicts.note(pair, candle_ms, "no_edge", "an edge of -3.2 bps")
        assert all(known)

    def forecast(self, pair: str, candle_ms: int) -> JournalRow:
        """Of as many digits as a real one."""
        quantiles = tuple(np.sort(self.draw.normal(scale=1e-3, size=len(DEFAULT_LEVELS))).tolist())
        volatility, mean, error, low, high = self.draw.normal(scale=1e-3, size=5).tolist()
        far = tuple(self.draw.normal(scale=1e-2, size=6).tolist())
        now_ms = time.time_ns() // 1_000_000
        return JournalRow(
            pair, "5m", candle_ms, VERSION, quantiles, volatility, mean, low, high, "no_edge",
            now_ms, error, low, high, far,
        )  # fmt: skip


@contextmanager
def slow(path: Path) -> Iterator[None]:
    """Another process writes most of the time: every lock is waited for."""
    code = (
        "import sqlite3, sys, time\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        "while True:\n"
        "    database.execute('BEGIN IMMEDIATE'); print('.', flush=True); time.sleep(0.4)\n"
        "    database.execute('COMMIT'); time.sleep(0.05)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:  # noqa: S603 - ours
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


@contextmanager
def moved(path: Path) -> Iterator[None]:
    """The file's folder is away, as a disk that is not mounted."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.write_text("in the way")
    try:
        yield
    finally:
        path.parent.unlink()
        away.rename(path.parent)


@contextmanager
def standing(server: Server) -> Iterator[None]:
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def measured(bot: Bot, candles: int, fault: Callable[[], Any]) -> np.ndarray:
    """Milliseconds of each candle's loop; the middle third under the fault."""
    took, third = np.empty(candles), candles // 3
    with ExitStack() as fate:
        for number in range(candles):
            if number == third:
                bot.recorder.settle(30.0)
                fate.enter_context(fault())
            if number == 2 * third:
                fate.close()
            began = time.perf_counter()
            bot.candle(BEGIN_MS + number * STEP_MS)
            if number > third:  # a pair that joined: was there anything to know of it?
                bot.memory.of(f"NEW{third}/USDT")
            took[number] = 1e3 * (time.perf_counter() - began)
            time.sleep(PAUSE_S)
    return took


def held(place: str | Path, bot: Bot, candles: int) -> str:
    """What the database holds of what was said."""
    journal = Journal(place, LINEAGE, read_only=True)
    rows = [row for pair in bot.pairs for row in journal.read(pair, "5m", 0, 2**62)]
    verdicts = len(journal.verdicts("5m", 0, 2**62))
    journal.close()
    keys = {(row.pair, row.candle_ms) for row in rows}
    said = len(bot.pairs) * candles
    once = len(rows) == len(keys) == said and verdicts == said
    return f"{len(rows):,} of {said:,}{', each once' if once else ' WRONG'}"


def run(table: Table, name: str, place: str | Path, pairs: int, candles: int, fault: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bot = Bot(Path(folder), place, pairs)
        bot.start()
        took = measured(bot, candles, fault)
        bot.verdicts.flush()
        bot.recorder.settle(BACK_S)
        bot.recorder.stop()
        p50, p99 = np.percentile(took, [50, 99])
        figures = f"{p50:.1f}", f"{p99:.1f}", f"{took.max():.1f}"
        table.add_row(name, str(pairs), *figures, held(place, bot, candles))


def sqlite_cases(table: Table, candles: int) -> None:
    faults = {"well": nullcontext, "locked": locked, "slow": slow, "away": moved}
    for pairs in PAIRS:
        for name, fault in faults.items():
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "store" / "journal.sqlite"
                run(table, f"SQLite {name}", place, pairs, candles, partial(fault, place))


def postgres_cases(table: Table, candles: int) -> None:
    if BINARIES is None or not DRIVERS:
        console.print("No PostgreSQL here: it needs pg_ctl, and psycopg or psycopg2.")
        return
    with serving() as server:
        faults = {
            "well": nullcontext, "standing still": partial(standing, server),
            "away": partial(stopped, server),
        }  # fmt: skip
        url = server.url(DRIVERS[0])
        for pairs in PAIRS:
            for name, fault in faults.items():
                empty(url)
                run(table, f"PostgreSQL {name}", url, pairs, candles, fault)


def empty(url: str) -> None:
    journal = Journal(url, LINEAGE)
    journal.reach()
    while journal.prune("5m", 2**62, 1_000_000):
        pass
    journal.close()


def show_size(candles: int = 2_000, pairs: int = 20) -> None:
    """Bytes of a row, of SQLite's file after it was written as a bot writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path, sizes = Path(folder) / "journal.sqlite", []
        journal, bot = Journal(path, LINEAGE), Bot(Path(folder), path, pairs)
        for number in range(candles):
            opened = BEGIN_MS + number * STEP_MS
            journal.record(bot.forecast(pair, opened) for pair in bot.pairs)
        journal.close()
        sizes.append(path.stat().st_size)
        bot.verdicts.note("", 0, "")
        row = next(iter(bot.verdicts._pending.values()))
        for number in range(candles):
            said = replace(row, candle_ms=BEGIN_MS + number * STEP_MS, reason="no_edge")
            journal.record_verdicts(replace(said, pair=pair) for pair in bot.pairs)
        journal.close()
        sizes.append(path.stat().st_size - sizes[0])
        assert sqlite3.connect(path).execute("PRAGMA freelist_count").fetchone()
    forecast, verdict = (size / candles / pairs for size in sizes)
    year = 48 * 365 * 288 * (forecast + verdict) / 1e9
    console.print(
        f"Bytes in SQLite: {forecast:.0f} a forecast, {verdict:.0f} a verdict; 48 pairs of 5m: "
        f"{year:.2f} GB a year, {year * 400 / 365:.2f} GB in 400 days"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candles", type=int, default=300)
    parser.add_argument("--bytes", action="store_true", help="also measure how large it grows")
    options = parser.parse_args()
    table = Table(title=f"the journal's part of the loop, ms a candle, {options.candles} candles")
    for name in ("database", "pairs", "p50", "p99", "longest", "in the database afterwards"):
        table.add_column(name, justify="left" if name == "database" else "right")
    sqlite_cases(table, options.candles)
    postgres_cases(table, options.candles)
    console.print(table)
    if options.bytes:
        show_size()


if __name__ == "__main__":
    main()
