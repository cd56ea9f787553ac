"""Journals as nobody should find them, and what waits beside them; see `fuzz_inputs.py`."""

# ruff: noqa: S608 - the names are those of our own tables

from __future__ import annotations

import json
import random
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import click
from instant_training import SETTINGS, InstantTraining, make_learning
from live_world import FIRST, PAIR, SERIES, SWITCH, TRAINER, Bot, wait_for_learning
from oddities import Inputs, answers, bytes_changed, odd, threads_watched, tree_changed
from series import to_frame

from lstm_model.bot import configuration
from lstm_model.commands.coverage import coverage
from lstm_model.commands.models import log
from lstm_model.commands.reasons import reasons
from lstm_model.commands.terminal import console
from lstm_model.replay import reproduction
from lstm_model.store.journal import Journal
from lstm_model.store.lineage import Lineage
from lstm_model.store.recorder import Recorder
from lstm_model.store.spool import Spool
from lstm_model.trading.told import Memory
from lstm_model.trading.verdicts import Verdicts

_FOREVER_MS, _ALL_DAYS = 2**62, 36_500
_TEXTS = ("", "a", "\x00", "ETH/USDT", "{}", "[]", "[1, [2]]", "[NaN]", "nan", "1e400", "🦄")
_NUMBERS = (0, -1, 1, 2**63 - 1, -(2**63), 0.5, 1e308, -0.0, float("inf"))


class JournalRows(Inputs):
    """The journal of a bot that has learnt, with and without what keeps its rows in order."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root / "lstm", root / "lstm" / "journal.sqlite"
        section = SETTINGS.model_dump(mode="json", exclude_unset=True)
        self.config: dict[str, Any] = {
            "user_data_dir": root, "datadir": root, "timeframe": "5m", "config_files": [],
            "exchange": {"name": "binance", "pair_whitelist": [PAIR]}, "lstm": section,
        }  # fmt: skip
        self.settings = configuration.settings_of(self.config)
        self.lineage = configuration.lineage(self.config, self.settings)
        self._have_a_bot_write()
        to_frame(SERIES[0]).to_feather(root / "BTC_USDT-5m.feather")
        self.tables = _tables(self.path)
        self.rows = _rows(self.path, self.tables)
        self.strict, self.loose = self.path.read_bytes(), _without_keys(self.path, self.tables)
        self.spool = root / "lstm" / "spool" / f"{self.lineage}.{self._journal().database}.spool"
        self.learning = make_learning(self.root, SERIES)
        self.steps = self.learning.resume(Lineage(self.root, self.lineage).head or "", 64)

    def _have_a_bot_write(self) -> None:
        with mock.patch(TRAINER, InstantTraining()):
            bot = Bot(self.root, lineage=self.lineage).start(FIRST)
            bot.run_at([FIRST, FIRST + 1, SWITCH])
            for row, reason in ((FIRST, "no_edge"), (FIRST + 1, "enter_long"), (SWITCH, "error")):
                bot.engine.note(PAIR, int(SERIES[0].date_ms[row]), reason, "an edge of 1 bps")
            bot.stop()
            wait_for_learning()

    def case(self, draw: random.Random) -> str:
        """Damage, read; the kind of the case."""
        kinds = {"row": self._rows, "table": self._a_table, "file": self._bytes, "spool": _nothing}
        kind = draw.choice(["row", "row", "row", "table", "file", "spool", "spool"])
        self._begin(draw)
        kinds[kind](draw)
        with threads_watched():
            if kind == "spool":
                self._wait_beside(draw)
                self._recover(draw)
            else:
                self._read(draw)
        return kind

    def _journal(self, **options: Any) -> Journal:
        return Journal(self.path, self.lineage, lock_wait_s=0.2, **options)

    def _begin(self, draw: random.Random) -> None:
        for path in (*self.root.glob("journal.sqlite*"), self.spool):
            path.unlink(missing_ok=True)
        self.path.write_bytes(draw.choice([self.loose, self.loose, self.strict]))

    def _bytes(self, draw: random.Random) -> None:
        self.path.write_bytes(bytes_changed(self.path.read_bytes(), draw))

    def _rows(self, draw: random.Random) -> None:
        with closing(sqlite3.connect(self.path)) as database, database:
            for _ in range(draw.choice([1, 1, 3])):
                table = draw.choice(sorted(self.tables))
                with suppress(sqlite3.IntegrityError):  # with keys it cannot be written
                    draw.choice([self._other_value, self._other_row])(database, table, draw)

    def _other_value(self, database: Any, table: str, draw: random.Random) -> None:
        column = draw.choice(self.tables[table])
        some = draw.choice(["1", "created_ms % 2", "created_ms = (SELECT max(created_ms) FROM {})"])
        value, shown = _value(column, draw)
        database.execute(
            f"UPDATE OR IGNORE {table} SET {column} = {shown} WHERE {some.format(table)}", [value]
        )

    def _other_row(self, database: Any, table: str, draw: random.Random) -> None:
        names = self.tables[table]
        values = [(value, "?") for value in draw.choice(self.rows[table])]
        for place in draw.sample(range(len(names)), draw.randrange(1, len(names))):
            values[place] = _value(names[place], draw)
        shown = ", ".join(shown for _, shown in values)
        database.execute(f"INSERT INTO {table} VALUES ({shown})", [value for value, _ in values])

    def _a_table(self, draw: random.Random) -> None:
        table, other = draw.sample(sorted(self.tables), 2)
        column = draw.choice(self.tables[table])
        with closing(sqlite3.connect(self.path)) as database, suppress(sqlite3.OperationalError):
            database.execute(draw.choice([
                f"DROP TABLE {table}", f"ALTER TABLE {table} DROP COLUMN {column}",
                f"ALTER TABLE {table} RENAME COLUMN {column} TO newer",
                f"ALTER TABLE {table} ADD COLUMN newer TEXT NOT NULL DEFAULT 'x'",
                f"ALTER TABLE {table} RENAME TO newer", f"DELETE FROM {table}",
                f"CREATE VIEW newer AS SELECT * FROM {table}",
            ]))  # fmt: skip
            if not draw.randrange(4):
                database.execute(f"DROP TABLE {other}")
                database.execute(f"CREATE VIEW {other} AS SELECT * FROM {table}")
            database.commit()

    def _wait_beside(self, draw: random.Random) -> None:
        """Facts on the local file: some that are none, with sums that fit, or bytes that do not."""
        journal = self._journal()
        facts = [[table, dict(zip(names, row, strict=True))]
                 for table, names in self.tables.items() for row in self.rows[table]]  # fmt: skip
        journal.close()
        for _ in range(draw.choice([1, 3])):
            at = draw.randrange(len(facts))
            facts[at] = tree_changed(json.loads(json.dumps(facts[at])), draw)
        content = b"".join(_line(json.dumps(fact)) for fact in facts)
        self.spool.parent.mkdir(exist_ok=True)
        self.spool.write_bytes(content if draw.randrange(4) else bytes_changed(content, draw))

    # ------------------------------------------------------------ who reads

    def _read(self, draw: random.Random) -> None:
        journal = self._journal(
            read_only=bool(draw.randrange(2)), whole_market=bool(draw.randrange(2))
        )
        span = "5m", 0, _FOREVER_MS
        readers: list[Callable[[], Any]] = [
            lambda: journal.read(PAIR, *span), lambda: journal.read(PAIR, *span, lineage=""),
            lambda: journal.last(PAIR, "5m"), lambda: journal.pairs(*span),
            lambda: journal.decisions(self.lineage), lambda: journal.verdicts(*span),
            lambda: journal.count_verdicts(*span), lambda: journal.verdicts(*span, pair=PAIR),
            lambda: journal.prune("5m", 0, 5_000), journal.reach,
        ]  # fmt: skip
        try:
            for act in draw.sample(readers, 2):
                answers(act)
        finally:
            journal.close()
        draw.choice([_nothing, _nothing, self._ask_commands, self._recover])(draw)
        if not draw.randrange(50):
            answers(self._verify)

    def _ask_commands(self, draw: random.Random) -> None:
        """As the command line does, behind its options."""
        days = {"days": _ALL_DAYS}
        asked = [(reasons, days)] * 3 + [(log, {"last": 20})] * 3 + [(coverage, days)]
        command, options = draw.choice(asked)
        act = command.callback.__wrapped__
        with console.capture(), suppress(click.ClickException):
            answers(lambda: act(self.config, **options))

    def _verify(self) -> None:
        journal = self._journal(read_only=True, whole_market=True)
        try:
            pairs = journal.pairs("5m", 0, _FOREVER_MS)
            rows = [row for pair in pairs for row in journal.read(pair, "5m", 0, _FOREVER_MS)]
        finally:
            journal.close()
        candles = {c.pair: c for c in SERIES}.get
        found = reproduction.check_journal(rows, candles, self.learning, self.steps, self.settings)
        assert all(finding.text for finding in found)

    def _recover(self, draw: random.Random) -> None:
        """As a bot that starts, asks what it said before, says more and stops."""
        if not draw.randrange(4):
            answers(self._read_spool)
        recorder = Recorder(self._journal(), self.spool, "5m", draw.choice([None, 400]))
        try:
            answers(lambda: self._start(recorder))
        finally:
            recorder.stop()

    def _read_spool(self) -> None:
        spool = Spool(self.spool)
        assert spool.open()
        try:
            assert len(spool.everything()) >= len(spool.read())
            spool.done()
        finally:
            spool.close()

    def _start(self, recorder: Recorder) -> None:
        recorder.start()
        levels, dates = self.settings.levels, SERIES[0].date_ms
        memory = Memory(recorder, "5m", levels, lambda: {s.model.card.version for s in self.steps})
        verdicts = Verdicts(recorder, "5m")
        memory.begin(int(dates[0]), int(dates[-1]))
        memory.follow([PAIR])
        found = memory.of(PAIR).of(dates)
        assert len(found.rows) == len(found.versions) == len(found.forecast.mean)
        memory.newest_ms(PAIR)
        verdicts.note(PAIR, int(dates[-1]), "no_edge")
        verdicts.flush()
        assert all(isinstance(line, str) for line in verdicts.sum_up(int(dates[-1])))
        recorder.tick(int(dates[-1]), 300_000)
        recorder.settle(1.0)
        assert all(isinstance(line, str) for line in recorder.news)


def _nothing(_: random.Random) -> None:
    """As it is."""


def _line(content: str) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(content.encode()), content.encode())


def _tables(path: Path) -> dict[str, list[str]]:
    """The columns of each table, by its name."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
        return {
            name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
            for name in names if not name.startswith("sqlite_")
        }  # fmt: skip


def _rows(path: Path, tables: dict[str, list[str]]) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as database:
        return {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def _without_keys(path: Path, tables: dict[str, list[str]]) -> bytes:
    """The same tables as somebody made them who asks for nothing: no types, no keys."""
    other = path.with_name("loose.sqlite")
    with closing(sqlite3.connect(other)) as database:
        database.execute("ATTACH ? AS strict", [str(path)])
        for name, columns in tables.items():
            database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            database.execute(f"INSERT INTO {name} SELECT * FROM strict.{name}")
        database.commit()
    content = other.read_bytes()
    other.unlink()
    return content


def _value(column: str, draw: random.Random) -> tuple[Any, str]:
    """A value that nobody should find in this column, and how SQL has it."""
    kind = draw.randrange(8)
    if column in ("quantiles", "far") and kind < 5:
        listed = [-0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1]
        return json.dumps(tree_changed(listed, draw)), "?"
    if kind == 0:
        return None, "?"
    if kind == 1:
        return draw.randbytes(draw.randrange(9)), draw.choice(["?", "CAST(? AS TEXT)"])
    if kind < 5:
        return draw.choice(_NUMBERS), "?"
    if kind < 7:
        return draw.choice(_TEXTS), "?"
    return json.dumps(odd(draw)), "?"
