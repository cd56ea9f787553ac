"""The journal never changes what was said, whoever asks and whoever dies."""

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import TESTS

from lstm_model.errors import DataError, StoreError
from lstm_model.store import journal_tables
from lstm_model.store.journal import DecisionRow, Journal, JournalRow, VerdictRow

STEP_MS = 300_000
SECRET = "s3cret/p@ss"  # noqa: S105 - planted, to see that no message shows it

finite = st.floats(-1e100, 1e100)
rows = st.builds(
    JournalRow,
    pair=st.sampled_from(["BTC/USDT", "ETH/USDT:USDT"]),
    timeframe=st.sampled_from(["5m", "1h"]),
    candle_ms=st.integers(0, 5).map(lambda number: number * STEP_MS),
    version=st.sampled_from(["a1", "b2"]),
    quantiles=st.lists(finite, max_size=7).map(tuple),
    volatility=finite,
    mean=finite,
    low=finite,
    high=finite,
    reason=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    created_ms=st.integers(0, 2**53),
    mean_error=st.none() | finite,
    lowest=st.none() | finite,
    highest=st.none() | finite,
    far=st.lists(st.none() | finite, max_size=6).map(tuple),
)


decisions = st.builds(
    DecisionRow,
    lineage=st.sampled_from(["binance-5m", "kraken-1h"]),
    at_ms=st.integers(0, 3).map(lambda number: number * STEP_MS),
    kind=st.sampled_from(["trained", "promoted", "drift"]),
    version=st.sampled_from(["a1", "b2"]),
    champion=st.sampled_from(["a1", "b2"]),
    candles=st.integers(0, 2**53),
    gain=st.none() | finite,
    bound=st.none() | finite,
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    created_ms=st.integers(0, 2**53),
)


verdicts = st.builds(
    VerdictRow,
    pair=st.sampled_from(["BTC/USDT", "ETH/USDT:USDT"]),
    timeframe=st.sampled_from(["5m", "1h"]),
    candle_ms=st.integers(0, 5).map(lambda number: number * STEP_MS),
    reason=st.sampled_from(["enter_long", "no_edge", "too_small"]),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
    created_ms=st.integers(0, 3),
)


def make_verdict(candle: int = 0, reason: str = "no_edge", **changes: object) -> VerdictRow:
    row = VerdictRow("BTC/USDT", "5m", candle * STEP_MS, reason, "an edge of -3 bps", 1)
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def make_decision(step: int = 0, kind: str = "promoted", **changes: object) -> DecisionRow:
    text = "b2 is the champion"
    row = DecisionRow("binance-5m", step * STEP_MS, kind, "b2", "b2", 864, 0.5, 0.125, text, 1)
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def make_row(candle: int = 0, version: str = "a1", **changes: object) -> JournalRow:
    row = JournalRow(
        "BTC/USDT", "5m", candle * STEP_MS, version, (-0.1, 0.0, 0.1), 0.01, 0.0, -0.1, 0.1, "", 1
    )
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path}/lstm/journal.sqlite")
    yield opened
    opened.close()


def test_a_forecast_is_never_overwritten(journal: Journal) -> None:
    first = make_row(reason="the first word")
    journal.record([first])
    journal.record([make_row(reason="a later word", mean=1.0), make_row(1)])
    assert journal.read("BTC/USDT", "5m", 0, 2 * STEP_MS) == [first, make_row(1)]


@pytest.mark.lengthy
@given(st.lists(st.lists(rows, max_size=8), max_size=3))
def test_journal_equals_a_dictionary_that_keeps_the_first(batches: list[list[JournalRow]]) -> None:
    journal = Journal("sqlite://")
    known: dict[tuple[object, ...], JournalRow] = {}
    for batch in batches:
        journal.record(batch)
        for row in batch:
            known.setdefault((row.pair, row.timeframe, row.candle_ms, row.version), row)
    for pair, timeframe in {(row.pair, row.timeframe) for row in known.values()}:
        mine = [row for row in known.values() if (row.pair, row.timeframe) == (pair, timeframe)]
        mine.sort(key=lambda row: (row.candle_ms, row.created_ms, row.version))
        assert journal.read(pair, timeframe, 0, 10 * STEP_MS) == mine
        assert journal.last(pair, timeframe) == mine[-1]
        assert journal.read(pair, timeframe, 0, 10 * STEP_MS, version="b2") == [
            row for row in mine if row.version == "b2"
        ]
    journal.close()


def test_interval_is_half_open(journal: Journal) -> None:
    journal.record(make_row(candle) for candle in range(5))
    found = journal.read("BTC/USDT", "5m", STEP_MS, 3 * STEP_MS)
    assert [row.candle_ms for row in found] == [STEP_MS, 2 * STEP_MS]
    assert journal.read("BTC/USDT", "5m", STEP_MS, STEP_MS) == []
    assert journal.last("ETH/USDT", "5m") is None


def test_numpy_numbers_become_plain_ones(journal: Journal, tmp_path: Path) -> None:
    row = make_row(
        candle_ms=np.int64(STEP_MS),
        created_ms=np.int64(7),
        quantiles=tuple(np.array([-0.5, 0.25], np.float32)),
        mean=np.float32(0.5),
        mean_error=np.float32(0.25),
    )
    journal.record([row])
    start, end = np.array([0, 2 * STEP_MS])
    assert journal.read("BTC/USDT", "5m", start, end) == [row]
    journal.close()
    with sqlite3.connect(tmp_path / "lstm" / "journal.sqlite") as database:
        query = "SELECT typeof(candle_ms), typeof(mean), typeof(mean_error), typeof(lowest), "
        (found,) = database.execute(query + "quantiles FROM forecast").fetchall()
        assert found == ("integer", "real", "real", "null", "[-0.5, 0.25]")
    database.close()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan")])
@pytest.mark.parametrize(
    "field",
    ["quantiles", "volatility", "mean", "low", "high", "mean_error", "lowest", "highest"],
)
def test_one_bad_number_refuses_the_whole_batch(journal: Journal, field: str, bad: float) -> None:
    value = (0.0, bad) if field == "quantiles" else bad
    with pytest.raises(DataError, match=r"BTC/USDT.*NaN or infinite"):
        journal.record([make_row(0), make_row(1, **{field: value})])
    assert journal.last("BTC/USDT", "5m") is None


def test_a_decision_told_twice_is_written_once(journal: Journal) -> None:
    journal.record_decisions([make_decision(), make_decision(kind="trained", gain=None)])
    journal.close()
    journal.record_decisions([make_decision(text="after a restart", created_ms=9)])
    assert journal.decisions("binance-5m") == [
        make_decision(kind="trained", gain=None),
        make_decision(),
    ]
    assert journal.decisions("kraken-1h") == []


@pytest.mark.lengthy
@given(st.lists(st.lists(decisions, max_size=8), max_size=3), st.integers(1, 9))
def test_decisions_equal_a_dictionary_that_keeps_the_first(
    batches: list[list[DecisionRow]], count: int
) -> None:
    journal = Journal("sqlite://")
    known: dict[tuple[object, ...], DecisionRow] = {}
    for batch in batches:
        journal.record_decisions(batch)
        for row in batch:
            known.setdefault((row.lineage, row.at_ms, row.kind, row.version), row)
    for lineage in ("binance-5m", "kraken-1h"):
        mine = [row for row in known.values() if row.lineage == lineage]
        mine.sort(key=lambda row: (row.at_ms, row.created_ms, row.kind, row.version), reverse=True)
        assert journal.decisions(lineage, count) == mine[:count]
    journal.close()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan")])
@pytest.mark.parametrize("field", ["gain", "bound"])
def test_one_bad_number_refuses_all_decisions(journal: Journal, field: str, bad: float) -> None:
    with pytest.raises(DataError, match=r'binance-5m.*"promoted".*b2.*NaN or infinite'):
        journal.record_decisions([make_decision(0), make_decision(1, **{field: bad})])
    assert journal.decisions("binance-5m") == []


def test_numpy_numbers_of_a_decision_become_plain_ones(journal: Journal) -> None:
    row = make_decision(at_ms=np.int64(7), candles=np.int64(9), gain=np.float32(0.5))
    journal.record_decisions([row])
    (found,) = journal.decisions("binance-5m")
    assert found == row
    assert {type(found.at_ms), type(found.candles)} == {int}
    assert type(found.gain) is float


def test_a_database_from_before_there_were_decisions_and_verdicts_gets_tables(
    journal: Journal, tmp_path: Path
) -> None:
    journal.record([make_row()])
    journal.close()
    with sqlite3.connect(tmp_path / "lstm" / "journal.sqlite") as database:
        database.execute("DROP TABLE decision")
        database.execute("DROP TABLE verdict")
    database.close()
    journal.record_decisions([make_decision()])
    journal.record_verdicts([make_verdict()])
    assert journal.count_verdicts("5m", 0, 1) == {("BTC/USDT", "no_edge"): 1}
    assert journal.decisions("binance-5m") == [make_decision()]
    assert journal.last("BTC/USDT", "5m") == make_row()


def test_a_verdict_is_written_once_and_kept(journal: Journal) -> None:
    later = make_verdict(reason="too_small", created_ms=np.int64(2))
    journal.record_verdicts([make_verdict(), later])
    journal.record_verdicts([make_verdict(text="after a restart", created_ms=9)])
    assert journal.verdicts("5m", 0, STEP_MS) == [make_verdict(), later]


@pytest.mark.lengthy
@settings(max_examples=50)
@given(
    st.lists(st.lists(verdicts, max_size=12), max_size=3),
    st.integers(0, 5 * STEP_MS),
    st.integers(0, 6 * STEP_MS),
)
def test_verdicts_equal_a_dictionary_and_the_last_word_on_a_candle_counts(
    batches: list[list[VerdictRow]], start_ms: int, end_ms: int
) -> None:
    journal = Journal("sqlite://")
    known: dict[tuple[object, ...], VerdictRow] = {}
    for batch in batches:
        journal.record_verdicts(batch)
        for row in batch:
            known.setdefault((row.pair, row.timeframe, row.candle_ms, row.reason), row)
    for timeframe in ("5m", "1h"):
        mine = [row for row in known.values() if row.timeframe == timeframe]
        mine = [row for row in mine if start_ms <= row.candle_ms < end_ms]
        mine.sort(key=lambda row: (row.candle_ms, row.created_ms, row.pair, row.reason))
        assert journal.verdicts(timeframe, start_ms, end_ms) == mine
        assert journal.verdicts(timeframe, start_ms, end_ms, "BTC/USDT") == [
            row for row in mine if row.pair == "BTC/USDT"
        ]
        last: dict[tuple[str, int], VerdictRow] = {}
        for row in sorted(mine, key=lambda row: (row.created_ms, row.reason)):
            last[row.pair, row.candle_ms] = row
        ended = Counter((row.pair, row.reason) for row in last.values())
        assert journal.count_verdicts(timeframe, start_ms, end_ms) == ended
    journal.close()


def test_the_pairs_of_a_time_range_are_found(journal: Journal) -> None:
    journal.record([make_row(0, pair="XRP/USDT"), make_row(1, pair="ETH/USDT"), make_row(1)])
    journal.record([make_row(1, pair="ADA/USDT", timeframe="1h"), make_row(1, "b2"), make_row(2)])
    assert journal.pairs("5m", STEP_MS, 2 * STEP_MS) == ["BTC/USDT", "ETH/USDT"]
    assert journal.pairs("5m", 3 * STEP_MS, 9 * STEP_MS) == []


def test_who_only_reads_makes_no_file(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no journal at sqlite:.*journal\.sqlite yet.*dry run"):
        journal.check_exists()
    assert not list(tmp_path.iterdir())
    journal.record([])
    journal.record([make_row()])
    journal.check_exists()
    in_memory = Journal("sqlite://")
    in_memory.check_exists()


OLD_FORECAST = """
CREATE TABLE forecast (
    pair TEXT NOT NULL, timeframe TEXT NOT NULL, candle_ms BIGINT NOT NULL, version TEXT NOT NULL,
    quantiles TEXT NOT NULL, volatility DOUBLE NOT NULL, mean DOUBLE NOT NULL, low DOUBLE NOT NULL,
    high DOUBLE NOT NULL, reason TEXT NOT NULL, created_ms BIGINT NOT NULL,
    PRIMARY KEY (pair, timeframe, candle_ms, version)
)
"""
OLD_INSERT = """
INSERT INTO forecast (pair, timeframe, candle_ms, version, quantiles, volatility, mean, low, high,
    reason, created_ms)
VALUES ('BTC/USDT', '5m', ?, 'a1', '[-0.1, 0.0, 0.1]', 0.01, 0.0, -0.1, 0.1, '', 1)
"""


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A journal of the release before `mean_error`, with one forecast."""
    path = tmp_path / "old.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(OLD_FORECAST)
    database.execute(OLD_INSERT, (0,))
    database.commit()
    database.close()
    return path


def test_a_journal_of_an_older_release_gets_the_columns_and_keeps_its_facts(old_file: Path) -> None:
    journal = Journal(f"sqlite:///{old_file}")
    assert journal.last("BTC/USDT", "5m") == make_row()
    with sqlite3.connect(old_file) as database:  # the older release still writes there
        database.execute(OLD_INSERT, (STEP_MS,))
    database.close()
    newer = make_row(2, mean_error=0.001, lowest=-0.2, highest=0.3)
    journal.record([newer, make_row(0, mean_error=0.5)])
    assert journal.read("BTC/USDT", "5m", 0, 9 * STEP_MS) == [make_row(), make_row(1), newer]
    journal.close()
    assert journal.last("BTC/USDT", "5m") == newer
    journal.close()


def test_many_may_open_a_journal_of_an_older_release_at_once(old_file: Path) -> None:
    together, found = threading.Barrier(6), []

    def open_and_read() -> None:
        journal = Journal(f"sqlite:///{old_file}")
        together.wait()
        found.append(journal.last("BTC/USDT", "5m"))
        journal.close()

    threads = [threading.Thread(target=open_and_read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [make_row()] * 6


def test_a_column_that_another_process_just_added_is_no_error(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, seen = journal_tables._missing, []

    def look_too_early(engine: Any, table: Any) -> Any:
        missing = look(engine, table)
        if missing and not seen:
            seen.append(missing)
            with sqlite3.connect(old_file) as other:
                for column in missing[1:]:
                    other.execute(f"ALTER TABLE forecast ADD COLUMN {column.name} DOUBLE")
            other.close()
        return missing

    monkeypatch.setattr(journal_tables, "_missing", look_too_early)
    journal = Journal(f"sqlite:///{old_file}")
    assert journal.last("BTC/USDT", "5m") == make_row()
    journal.close()
    added = ["lineage", "mean_error", "lowest", "highest", "far"]
    assert [column.name for column in seen[0]] == added


def test_a_column_that_cannot_be_added_is_an_error(old_file: Path) -> None:
    with sqlite3.connect(old_file) as database:
        database.execute("ALTER TABLE forecast RENAME TO hidden")
        database.execute("CREATE VIEW forecast AS SELECT * FROM hidden")
    database.close()
    journal = Journal(f"sqlite:///{old_file}")
    with pytest.raises(StoreError, match="Cannot add a column to a view"):
        journal.last("BTC/USDT", "5m")
    journal.close()


def test_other_processes_may_read_while_we_write(journal: Journal, tmp_path: Path) -> None:
    journal.record([make_row()])
    database = sqlite3.connect(f"file:{tmp_path}/lstm/journal.sqlite?mode=ro", uri=True)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.execute("BEGIN")
    assert database.execute("SELECT count(*) FROM forecast").fetchone() == (1,)
    journal.record([make_row(1)])
    assert database.execute("SELECT count(*) FROM forecast").fetchone() == (1,)
    database.close()


def test_threads_share_one_journal(journal: Journal) -> None:
    def write(version: str) -> None:
        for candle in range(20):
            journal.record([make_row(candle, version)])

    threads = [threading.Thread(target=write, args=(f"v{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.read("BTC/USDT", "5m", 0, 20 * STEP_MS)) == 80


def test_closing_twice_and_using_again_is_allowed(journal: Journal) -> None:
    journal.close()
    journal.record([make_row()])
    journal.close()
    journal.close()
    assert journal.last("BTC/USDT", "5m") == make_row()


@pytest.mark.parametrize(
    "url",
    [
        f"nonsense {SECRET}",
        f"postgresql+psycopg://user:{SECRET}@host:port/name",
        f"mysql://user:{SECRET}@host/name",
        "",
    ],
)
def test_a_bad_url_is_refused_at_once_without_the_password(url: str) -> None:
    with pytest.raises(StoreError, match=r'journal_url.*give "sqlite') as caught:
        Journal(url)
    assert "p@ss" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+nodriver://user:s3cret%2Fp%40ss@localhost:1/name",
        "postgresql+nodriver://localhost:1/name?user=u&password=s3cret%2Fp%40ss",
    ],
)
def test_a_missing_driver_is_named_without_the_password(url: str) -> None:
    journal = Journal(url)
    with pytest.raises(StoreError, match=r"forecast journal .* is unusable") as caught:
        journal.last("BTC/USDT", "5m")
    shown = str(caught.value)
    assert "p@ss" not in shown
    assert "p%40ss" not in shown
    assert "s3cret/" not in shown
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" * 99])
def test_a_broken_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    journal = Journal(f"sqlite:///{path}")
    with pytest.raises(StoreError, match=r"journal\.sqlite is unusable.*move it away"):
        journal.record([make_row()])
    journal.close()
    assert path.read_bytes() == content


def test_a_foreign_table_and_a_foreign_row_are_refused(tmp_path: Path) -> None:
    for number, statement in enumerate(
        [
            "CREATE TABLE forecast (a, b)",
            "CREATE TABLE forecast (pair, timeframe, candle_ms, version, quantiles, volatility, "
            "mean, low, high, reason, created_ms)",
        ]
    ):
        path = tmp_path / f"{number}.sqlite"
        database = sqlite3.connect(path)
        database.execute(statement)
        if number:
            row = ("BTC/USDT", "5m", 0, "a1", "no json", 1, 1, 1, 1, "", 1)
            database.execute("INSERT INTO forecast VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
        database.commit()
        database.close()
        journal = Journal(f"sqlite:///{path}")
        told = (
            "unusable",
            "'no json', in the row of pair BTC/USDT, candle_ms 0, .* delete that row",
        )
        with pytest.raises(StoreError, match=told[number]):
            journal.read("BTC/USDT", "5m", 0, 1)
        journal.close()


def spoilt(path: Path, table: str, **values: Any) -> Journal:
    """A journal whose tables ask for nothing, with such values in every row of one."""
    path.unlink(missing_ok=True)
    strict = Journal(path.with_name("strict.sqlite"), "binance-5m")
    strict.record([make_row(), make_row(1)])
    strict.record_decisions([make_decision()])
    strict.record_verdicts([make_verdict()])
    strict.close()
    database = sqlite3.connect(path)
    database.execute("ATTACH ? AS strict", [str(path.with_name("strict.sqlite"))])
    for name in journal_tables.TABLES:
        database.execute(f"CREATE TABLE {name} AS SELECT * FROM strict.{name}")  # noqa: S608
    for column, value in values.items():
        database.execute(f"UPDATE {table} SET {column} = ?", [value])  # noqa: S608
    database.commit()
    database.close()
    return Journal(path, "binance-5m", whole_market=True)


NO_FORECASTS = (
    {"reason": None}, {"pair": b"BTC/USDT"}, {"created_ms": "soon"}, {"candle_ms": 0.5},
    {"mean": "x"}, {"low": float("inf")}, {"volatility": None}, {"lowest": b"\xff"},
    {"quantiles": None}, {"quantiles": "[1, [2]]"}, {"quantiles": "7"}, {"quantiles": "[null]"},
    {"quantiles": "[NaN]"}, {"quantiles": "[true]"}, {"quantiles": "[" * 50_000}, {"far": "{}"},
    {"far": "[1" + 400 * "0" + "]"}, {"far": b"7"}, {"version": b"a1"},
    {"quantiles": "[-1e308, 1e308]"}, {"mean": 1e300},
)  # fmt: skip


@pytest.mark.parametrize("values", NO_FORECASTS, ids=str)
def test_what_is_no_forecast_is_refused_by_its_column(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    journal, [column] = spoilt(tmp_path / "j.sqlite", "forecast", **values), values
    read = partial(journal.read, "BTC/USDT", "5m", 0, 2**62)
    if column == "pair":  # so it is of none
        read = partial(journal.pairs, "5m", 0, 2**62)
    if column == "candle_ms":
        read = partial(journal.last, "BTC/USDT", "5m")
    with pytest.raises(StoreError, match=rf"column {column} .*holds no .*(correct|row)"):
        read()
    journal.close()


@pytest.mark.parametrize(
    ("table", "values"),
    [("decision", {"at_ms": "x"}), ("decision", {"text": None}), ("decision", {"gain": "much"}),
     ("verdict", {"pair": None}), ("verdict", {"reason": b"1"}), ("verdict", {"created_ms": 0.5})],
)  # fmt: skip
def test_what_is_no_decision_and_no_verdict_is_refused(
    tmp_path: Path, table: str, values: dict[str, Any]
) -> None:
    journal = spoilt(tmp_path / "j.sqlite", table, **values)
    reads = [partial(journal.decisions, "binance-5m")]
    if table == "verdict":
        reads = [partial(journal.verdicts, "5m", 0, 2**62)]
        reads += [partial(journal.count_verdicts, "5m", 0, 2**62)] * ("created_ms" not in values)
    for read in reads:
        with pytest.raises(StoreError, match=r"holds no .*: correct or delete"):
            read()
    journal.close()


def test_a_lineage_that_is_no_text_keeps_nobody_from_theirs(tmp_path: Path) -> None:
    journal = spoilt(tmp_path / "j.sqlite", "verdict", lineage=7)
    database = sqlite3.connect(tmp_path / "j.sqlite")
    database.execute("INSERT INTO forecast (lineage, pair, timeframe) VALUES (7, 'X/Y', '5m')")
    database.commit()
    database.close()
    assert len(journal.read("BTC/USDT", "5m", 0, 2**62)) == 2
    assert journal.prune("5m", STEP_MS, 10) == 1
    journal.close()


def test_a_foreign_table_is_not_changed(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "foreign.sqlite")
    database.execute("CREATE TABLE forecast (a, b)")
    journal = Journal(f"sqlite:///{tmp_path}/foreign.sqlite")
    with pytest.raises(StoreError, match="unusable"):
        journal.last("BTC/USDT", "5m")
    journal.close()
    columns = database.execute("PRAGMA table_info(forecast)").fetchall()
    database.close()
    assert [name for _, name, *_ in columns] == ["a", "b"]


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(f"sqlite:///{tmp_path}/file/journal.sqlite")
    with pytest.raises(StoreError, match=r"file/journal\.sqlite is unusable"):
        journal.record([make_row()])


# ---------------------------------------------------------------- several bots, any place, reading


def test_bots_of_one_store_do_not_hear_of_each_other(tmp_path: Path) -> None:
    names = ("binance-spot-5m-1", "kraken-spot-5m-1", "binance-futures-5m-1", "binance-spot-5m-2")
    journals = [Journal(tmp_path / "journal.sqlite", name) for name in names]
    for number, journal in enumerate(journals):
        journal.record([make_row(0, mean=float(number))])
        journal.record_verdicts([make_verdict(0, text=str(number)), make_verdict(number + 1)])
    for number, journal in enumerate(journals):
        assert [row.mean for row in journal.read("BTC/USDT", "5m", 0, 1)] == [number]
        assert journal.last("BTC/USDT", "5m") == make_row(0, mean=float(number))
        first, second = journal.verdicts("5m", 0, 2**60)
        assert (first.text, second.candle_ms) == (str(number), (number + 1) * STEP_MS)
        assert journal.count_verdicts("5m", 0, 2**60) == {("BTC/USDT", "no_edge"): 2}
        journal.close()


def test_a_market_is_seen_through_changes_of_options(tmp_path: Path) -> None:
    names = ("binance-spot-5m-1", "binance-spot-5m-2", "binance-spot-15m-1", "kraken-spot-5m-1")
    for number, name in enumerate(names):
        journal = Journal(tmp_path / "journal.sqlite", name)
        journal.record([make_row(number)])
        journal.record_verdicts([make_verdict(number)])
        journal.close()
    path = tmp_path / "journal.sqlite"
    journal = Journal(path, "binance-spot-5m-2", read_only=True, whole_market=True)
    assert journal.read("BTC/USDT", "5m", 0, 2**60) == [make_row(0), make_row(1)]
    assert journal.verdicts("5m", 0, 2**60) == [make_verdict(0), make_verdict(1)]
    journal.close()


def test_what_an_older_release_wrote_is_everybodys_and_stays(old_file: Path) -> None:
    with sqlite3.connect(old_file) as database:
        database.executescript(
            "CREATE TABLE verdict (pair TEXT, timeframe TEXT, candle_ms BIGINT, reason TEXT, "
            "text TEXT NOT NULL, created_ms BIGINT NOT NULL, "
            "PRIMARY KEY (timeframe, candle_ms, pair, reason));"
            "INSERT INTO verdict VALUES ('BTC/USDT', '5m', 0, 'no_edge', 'an edge of -3 bps', 1);"
        )
    database.close()
    for name in ("binance-spot-5m-1", "kraken-spot-5m-1"):
        journal = Journal(old_file, name)
        journal.record([make_row(1)])
        journal.record_verdicts([make_verdict(1)])
        assert journal.read("BTC/USDT", "5m", 0, 2**60) == [make_row(0), make_row(1)]
        assert journal.verdicts("5m", 0, 2**60) == [make_verdict(0), make_verdict(1)]
        journal.close()
    with sqlite3.connect(old_file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    database.close()
    assert sorted(name for name in tables if "autoindex" not in name) == [
        "decision", "forecast", "verdict",
    ]  # fmt: skip


PLACES = ["a?b", "a%20b", "a#b", "a b", "Märkte/日本", "a?mode=memory", "a&b=c;d", "a%b", "file:x"]


@pytest.mark.parametrize("name", PLACES)
def test_a_journal_is_where_its_path_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "journal.sqlite"
    for read_only in (False, True):
        journal = Journal(path, read_only=read_only)
        if not read_only:
            journal.record([make_row()])
        assert journal.last("BTC/USDT", "5m") == make_row()
        journal.close()
    assert {found.name for found in tmp_path.rglob("*") if found.is_file()} == {path.name}
    assert path.stat().st_size > 0


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """As somebody who may read everything here and write nothing."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_journal_in_a_folder_that_cannot_be_written_can_be_read(public_folder: Path) -> None:
    path = public_folder / "journal.sqlite"
    journal = Journal(path)
    journal.record([make_row()])
    journal.record_verdicts([make_verdict()])
    journal.close()
    reading = Journal(path, read_only=True)
    before = path.read_bytes()
    with unprivileged(public_folder):
        assert reading.last("BTC/USDT", "5m") == make_row()
        assert reading.verdicts("5m", 0, 1) == [make_verdict()]
        assert reading.decisions("binance-5m") == []
        with pytest.raises(StoreError, match=r"readonly|read-only"):
            reading.record([make_row(1)])
        reading.close()
    assert path.read_bytes() == before
    assert [found.name for found in public_folder.iterdir()] == [path.name]


def test_a_bots_journal_can_be_read_while_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    writing = Journal(path)
    writing.record([make_row(0)])
    reading = Journal(path, read_only=True)
    assert reading.last("BTC/USDT", "5m") == make_row(0)
    writing.record([make_row(1)])
    assert reading.last("BTC/USDT", "5m") == make_row(1)
    reading.close()
    writing.close()


def test_reading_changes_no_journal_of_an_older_release(old_file: Path) -> None:
    before = old_file.read_bytes()
    journal = Journal(old_file, "binance-spot-5m-1", read_only=True)
    assert journal.read("BTC/USDT", "5m", 0, 2**60) == [make_row()]
    assert journal.pairs("5m", 0, 1) == ["BTC/USDT"]
    assert journal.count_verdicts("5m", 0, 1) == {}
    assert journal.decisions("binance-5m") == []
    journal.close()
    assert old_file.read_bytes() == before


@pytest.mark.parametrize("write", [False, True])
def test_who_reads_makes_no_journal(tmp_path: Path, write: bool) -> None:
    journal = Journal(tmp_path / "lstm" / "journal.sqlite", read_only=True)
    assert journal.is_missing
    with pytest.raises(StoreError, match="unusable"):
        journal.record([make_row()]) if write else journal.last("BTC/USDT", "5m")
    journal.close()
    assert not list(tmp_path.iterdir())


def test_a_number_that_no_database_takes_is_refused(journal: Journal) -> None:
    with pytest.raises(DataError, match="too large"):
        journal.record([make_row(0, created_ms=2**63)])


WRITER = """
import sys
sys.path[:0] = {tests!r}
from test_journal import Journal, make_row
journal = Journal({url!r})
for candle in range(0, 10**9, 3):
    journal.record([make_row(candle + ahead, sys.argv[1]) for ahead in range(3)])
    print("recorded", flush=True)
"""


def start_writer(url: str, version: str) -> subprocess.Popen[bytes]:
    code = WRITER.format(tests=[str(TESTS), str(TESTS / "store")], url=url)
    return subprocess.Popen([sys.executable, "-c", code, version], stdout=subprocess.PIPE)


@pytest.mark.lengthy
def test_killed_writers_leave_whole_batches(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.sqlite"
    for attempt in range(2):
        writers = [start_writer(url, f"v{attempt}{number}") for number in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"recorded\n"
        time.sleep(0.1 * attempt)
        for writer in writers:
            assert writer.poll() is None, "the writer stopped by itself"
            writer.send_signal(signal.SIGKILL)
            with writer:
                writer.wait()
        journal = Journal(url)
        for number in range(2):
            found = journal.read("BTC/USDT", "5m", 0, 2**60, version=f"v{attempt}{number}")
            assert len(found) >= 3
            assert len(found) % 3 == 0
            assert [row.candle_ms for row in found] == [k * STEP_MS for k in range(len(found))]
        journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
