"""What a bot says is kept at once and is in the database once, whatever the database does."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_faults import DRIVERS, Server, locked, needs_server, serving, wait_until
from places import TESTS
from test_journal import STEP_MS, make_decision, make_row, make_verdict

from lstm_model.errors import DataError, StoreError
from lstm_model.store import recorder as recorder_module
from lstm_model.store import spool as spool_module
from lstm_model.store.journal import Journal, JournalRow
from lstm_model.store.journal_rows import Fact, is_fact
from lstm_model.store.recorder import PATIENCE_S, Recorder
from lstm_model.store.spool import Spool, others, spool_name

BOT = "binance-spot-5m-1f2e3d4c"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SLACK_S = 1.0  # of a machine that does other things


def make_recorder(folder: Path, lineage: str = BOT, url: str = "", days: int = 0) -> Recorder:
    journal = Journal(url or folder / "journal.sqlite", lineage, lock_wait_s=0.1)
    return Recorder(journal, folder / "spool" / f"{lineage}.spool", "5m", days)


def written(folder: Path, url: str = "", lineage: str = BOT) -> list[JournalRow]:
    journal = Journal(url or folder / "journal.sqlite", lineage, read_only=True)
    rows = journal.read("BTC/USDT", "5m", 0, 2**60)
    journal.close()
    return rows


@pytest.fixture(name="bot")
def running(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder that runs, and whose database is well."""
    recorder = make_recorder(tmp_path)
    recorder.start()
    assert recorder.settle(10.0)
    yield recorder
    recorder.stop()


@pytest.fixture
def no_space(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A disk that is full, for the spool alone, until the list is emptied."""
    full, sync = [True], os.fsync

    def refuse(handle: int) -> None:
        if full and os.readlink(f"/proc/self/fd/{handle}").endswith(".spool"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    yield full
    full.clear()


# ---------------------------------------------------------------- while all is well


def test_what_is_recorded_is_in_the_database_and_no_longer_on_the_file(
    bot: Recorder, tmp_path: Path
) -> None:
    assert bot.record([make_row(0), make_row(1)])
    bot.record_decisions([make_decision()])
    bot.record_verdicts([make_verdict()])
    assert bot.settle(10.0)
    assert written(tmp_path) == [make_row(0), make_row(1)]
    assert bot.ask(lambda journal: journal.decisions("binance-5m")).result(5) == [make_decision()]
    assert bot.ask(lambda journal: journal.verdicts("5m", 0, 1)).result(5) == [make_verdict()]
    assert (tmp_path / "spool" / f"{BOT}.spool").stat().st_size == 0
    assert not bot.news


def test_a_question_knows_what_was_recorded_while_the_thread_went_from_one_to_the_other(
    bot: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread hands over, then answers; between the two the loop records and asks."""
    hand_over, asked = bot._hand_over, []

    def then_ask() -> None:
        hand_over()
        if not asked:
            bot.record([make_row(7)])
            asked.append(bot.ask(lambda journal: journal.last("BTC/USDT", "5m")))

    monkeypatch.setattr(bot, "_hand_over", then_ask)
    assert bot.settle(10.0)
    assert asked[0].result(10.0) == make_row(7)


def test_a_bad_number_is_refused_and_nothing_kept(bot: Recorder) -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        bot.record([make_row(0), make_row(1, mean=float("nan"))])
    assert bot.waiting() == []


def test_a_text_that_no_database_takes_stops_nothing(bot: Recorder, tmp_path: Path) -> None:
    bot.record([make_row(0, reason="a\0b\ud800")])
    assert bot.settle(10.0)
    assert [row.reason for row in written(tmp_path)] == ["a\ufffdb?"]


def test_a_question_that_fails_is_answered_so_and_the_next_one_as_ever(bot: Recorder) -> None:
    def fail(_: Journal) -> None:
        raise StoreError("no such table")

    failed = bot.ask(fail)
    assert bot.wait(failed)
    with pytest.raises(StoreError, match="no such table"):
        failed.result()
    assert bot.settle(5.0)


# ---------------------------------------------------------------- locked, slow and away


def test_a_lock_of_another_process_costs_no_time_and_loses_nothing(
    bot: Recorder, tmp_path: Path
) -> None:
    with locked(tmp_path / "journal.sqlite"):
        bot.tick(0, STEP_MS)
        began = time.perf_counter()
        for candle in range(100):
            assert bot.record([make_row(candle)])
        question = bot.ask(lambda journal: journal.last("BTC/USDT", "5m"))
        assert not any(bot.wait(question) for _ in range(100))
        assert time.perf_counter() - began < PATIENCE_S + SLACK_S
        assert bot.waiting() == [make_row(candle) for candle in range(100)]
        assert written(tmp_path) == []
    assert question.result(10.0) == make_row(99)
    assert written(tmp_path) == [make_row(candle) for candle in range(100)]


def test_with_the_next_candle_there_is_patience_again(bot: Recorder) -> None:
    over = threading.Event()
    question, waits = bot.ask(lambda _: over.wait(20.0)), []
    for now_ms in (0, 1, STEP_MS):
        bot.tick(now_ms, STEP_MS)
        began = time.perf_counter()
        assert not bot.wait(question)
        waits.append(time.perf_counter() - began)
    over.set()
    assert [wait > PATIENCE_S / 2 for wait in waits] == [True, False, True]
    assert question.result(10.0)


def test_a_database_that_is_known_to_be_away_is_not_waited_for(
    bot: Recorder, tmp_path: Path
) -> None:
    with locked(tmp_path / "journal.sqlite"):
        bot.record([make_row()])
        wait_until(lambda: bot._trouble is not None)
        question = bot.ask(lambda journal: journal.last("BTC/USDT", "5m"))
        began = time.perf_counter()
        for candle in range(100):
            bot.tick(candle * STEP_MS, STEP_MS)
            assert not bot.wait(question)
        assert time.perf_counter() - began < SLACK_S
    assert question.result(30.0) == make_row()


def test_the_user_is_told_once_that_it_is_away_and_once_that_it_is_back(
    bot: Recorder, tmp_path: Path
) -> None:
    with locked(tmp_path / "journal.sqlite"):
        bot.record([make_row()])
        wait_until(lambda: bot._trouble is not None)
        for now_ms in range(0, HOUR_MS, 5_000):
            bot.tick(now_ms, STEP_MS)
            if now_ms < 30_000:
                assert not bot.news
        [away] = bot.news
        assert str(tmp_path / "spool") in away
        assert "locked" in away
        for now_ms in range(HOUR_MS, 2 * HOUR_MS, 5_000):
            bot.tick(now_ms, STEP_MS)
        assert len(bot.news) == 2
    assert bot.settle(30.0)
    wait_until(lambda: bot._trouble is None)
    for now_ms in range(2 * HOUR_MS, 3 * HOUR_MS, 5_000):
        bot.tick(now_ms, STEP_MS)
    assert [news.startswith("The journal answers again") for news in bot.news] == [0, 0, 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_replaced(bot: Recorder, tmp_path: Path) -> None:
    def kill(_: Journal) -> None:
        raise SystemExit

    killing = bot.ask(kill)
    assert isinstance(killing.exception(10.0), SystemExit)  # who waits for it, hears of it
    assert bot._thread is not None
    bot._thread.join(10.0)
    bot.record([make_row()])
    bot.tick(0, STEP_MS)
    assert bot.settle(10.0)
    assert written(tmp_path) == [make_row()]


def test_a_call_that_hangs_is_ended(
    bot: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

    def hang(journal: Journal) -> None:
        if bot._trouble is None:
            with journal._database.connected() as connection:
                connection.exec_driver_sql(endless)

    monkeypatch.setattr(recorder_module, "_STUCK_S", 0.1)
    bot.ask(hang)
    bot.record([make_row()])
    wait_until(lambda: bot.tick(0, STEP_MS) or bot._trouble is not None)
    assert bot.settle(10.0)
    assert written(tmp_path) == [make_row()]


# ---------------------------------------------------------------- starts and stops


def test_what_a_stop_could_not_hand_over_the_next_start_does(tmp_path: Path) -> None:
    first = make_recorder(tmp_path)
    first.start()
    assert first.settle(10.0)
    with locked(tmp_path / "journal.sqlite"):
        first.record([make_row(0), make_row(1)])
        first.stop()
        second = make_recorder(tmp_path)
        second.start()  # with the journal locked still
        assert second.waiting() == [make_row(0), make_row(1)]
        second.record([make_row(2)])
    assert second.settle(30.0)
    second.stop()
    assert written(tmp_path) == [make_row(candle) for candle in range(3)]


def test_a_journal_that_cannot_be_used_is_noticed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 500)
    recorder = make_recorder(tmp_path)
    with pytest.raises(StoreError, match="file is not a database"):
        recorder.start()
    again = make_recorder(tmp_path)  # which nobody else holds
    (tmp_path / "journal.sqlite").unlink()
    again.start()
    again.stop()


def test_a_stop_lets_go_of_the_file_whatever_hangs(
    bot: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_STOP_S", 0.1)
    over = threading.Event()
    bot.ask(lambda _: over.wait(20.0))
    bot.record([make_row(0)])
    bot.stop()
    assert bot._thread is not None
    assert bot._thread.is_alive()
    again = make_recorder(tmp_path)
    again.start()  # at once, as a reload of the bot does
    again.record([make_row(1)])
    over.set()
    bot._thread.join(10.0)
    assert not bot.record([make_row(2)])
    again.record([make_row(3)])
    assert again.settle(10.0)
    again.stop()
    assert written(tmp_path) == [make_row(0), make_row(1), make_row(3)]


def test_a_start_has_patience_with_one_that_looks_into_the_file(tmp_path: Path) -> None:
    looking = Spool(tmp_path / "spool" / f"{BOT}.spool")
    assert looking.open()
    threading.Timer(0.2, looking.close).start()
    recorder = make_recorder(tmp_path)
    recorder.start()
    recorder.stop()


def test_what_waits_for_another_database_stays(tmp_path: Path) -> None:
    journals = {name: Journal(tmp_path / f"{name}.sqlite", f"x-spot-5m-{name}") for name in "ab"}
    left = {}
    for name, journal in journals.items():
        other = Spool(tmp_path / spool_name(f"x-spot-5m-0{name}", journal.database))
        assert other.open()
        other.append(journal.forecasts([make_row()]))
        other.close()
        left[name] = other.path
    mine = journals["a"]
    recorder = Recorder(mine, tmp_path / spool_name(mine.lineage, mine.database), "5m")
    recorder.start()
    assert recorder.settle(10.0)
    wait_until(lambda: recorder._has_adopted)
    assert recorder.ask(lambda journal: len(journal.read("BTC/USDT", "5m", 0, 2**60))).result() == 1
    recorder.stop()
    assert left["a"].stat().st_size == 0
    assert left["b"].stat().st_size > 0


def test_a_database_is_told_from_others_by_its_place_alone(tmp_path: Path) -> None:
    def of(place: str | Path) -> str:
        return Journal(place).database

    same = [
        "postgresql://host/name", "postgresql+psycopg://user:secret@host/name",
        "postgresql+psycopg2://me@host/name?password=secret",
    ]  # fmt: skip
    assert len({of(place) for place in same}) == 1
    different = ["postgresql://host/other", "postgresql://host:1/name", "postgresql://b/name",
                 "postgresql:///name?host=/run/a", "postgresql:///name?host=/run/b"]  # fmt: skip
    assert len({of(place) for place in (same[0], *different)}) == 6
    file = tmp_path / "journal.sqlite"
    assert of(file) == of(f"sqlite:///{file}") != of(tmp_path / "b.sqlite")


def test_two_bots_do_not_share_a_file(
    bot: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_OPEN_S", 0.1)
    with pytest.raises(StoreError, match="another bot writes"):
        make_recorder(tmp_path).start()


def test_what_a_bot_of_other_options_left_is_handed_over_under_its_name(
    bot: Recorder, tmp_path: Path
) -> None:
    facts = bot._journal.forecasts([make_row()])
    changed = [Fact(fact.kind, {**fact.values, "lineage": "old-spot-5m-0"}) for fact in facts]
    left = Spool(tmp_path / "spool" / "old-spot-5m-0.spool")
    assert left.open()
    left.append(changed)
    assert list(others(tmp_path / "spool" / "new.spool")) == []  # somebody holds it still
    left.close()
    third = make_recorder(tmp_path, "kraken-spot-5m-9")
    third.start()
    assert third.settle(10.0)
    third.stop()
    assert written(tmp_path) == written(tmp_path, lineage="kraken-spot-5m-9") == []
    assert written(tmp_path, lineage="old-spot-5m-0") == [make_row()]
    assert left.path.stat().st_size == 0


KILLED = """
import sys
sys.path[:0] = {tests!r}
from pathlib import Path
from test_recorder import make_recorder, make_row
recorder = make_recorder(Path({folder!r}))
recorder.start()
for candle in range(10**9):
    recorder.record([make_row(candle)])
    print(candle, flush=True)
"""


@pytest.mark.lengthy
def test_a_bot_that_is_killed_loses_nothing_that_it_acted_upon(tmp_path: Path) -> None:
    for lock in (False, True):
        code = KILLED.format(tests=[str(TESTS), str(TESTS / "store")], folder=str(tmp_path / "bot"))
        (tmp_path / "bot").mkdir(exist_ok=True)
        if lock:
            with locked(tmp_path / "bot" / "journal.sqlite"):
                last = killed_after(code, 20)
        else:
            last = killed_after(code, 20)
        recorder = make_recorder(tmp_path / "bot")
        recorder.start()
        assert recorder.settle(30.0)
        recorder.stop()
        assert [row.candle_ms // STEP_MS for row in written(tmp_path / "bot")][: last + 1] == [
            *range(last + 1)
        ]


def killed_after(code: str, count: int) -> int:
    """The last candle that the process said it had recorded."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as bot:
        assert bot.stdout is not None
        said = [int(bot.stdout.readline()) for _ in range(count)]
        bot.send_signal(signal.SIGKILL)
        said += [int(line) for line in bot.stdout.read().split(b"\n")[:-1]]
    return said[-1]


# ---------------------------------------------------------------- a full disk


def test_where_nothing_can_be_written_nothing_may_be_acted_upon(
    bot: Recorder, tmp_path: Path, no_space: list[bool]
) -> None:
    with locked(tmp_path / "journal.sqlite"):
        bot.tick(0, STEP_MS)
        began = time.perf_counter()
        assert not any(bot.record([make_row(candle)]) for candle in range(20))
        assert time.perf_counter() - began < PATIENCE_S + SLACK_S
        assert not bot.keeps
        bot.tick(1, STEP_MS)
        [news] = bot.news
        assert news.startswith("No entries")
        no_space.clear()
        wait_until(lambda: bot.keeps, 15.0)
        assert bot.record([make_row(20)])
    assert bot.settle(30.0)
    assert written(tmp_path) == [make_row(candle) for candle in range(21)]


def test_the_database_alone_is_enough(bot: Recorder, tmp_path: Path, no_space: list[bool]) -> None:
    bot.tick(0, STEP_MS)
    assert bot.record([make_row()])
    assert written(tmp_path) == [make_row()]


# ---------------------------------------------------------------- a slow disk


def test_a_disk_that_hangs_in_a_sync_is_waited_for_once_a_candle(
    bot: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, sync = threading.Event(), os.fsync

    def hang(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".spool"):
            over.wait(30.0)
        sync(handle)

    monkeypatch.setattr(os, "fsync", hang)
    bot.tick(0, STEP_MS)
    waits = []
    for candle in range(20):
        began = time.perf_counter()
        assert bot.record([make_row(candle)])
        waits.append(time.perf_counter() - began)
    assert waits[0] > PATIENCE_S / 2
    assert sum(waits) < PATIENCE_S + SLACK_S
    assert bot.settle(10.0)  # the database gets it meanwhile
    assert written(tmp_path) == [make_row(candle) for candle in range(20)]
    assert [thread.name for thread in threading.enumerate()].count("lstm-spool") == 1
    bot.stop()
    again = make_recorder(tmp_path)
    again.start()  # with the sync of the one before hanging still
    over.set()
    again.stop()


def test_a_disk_that_hangs_in_a_write_of_the_thread_is_waited_for_once_a_candle(
    bot: Recorder, tmp_path: Path
) -> None:
    bot.tick(0, STEP_MS)
    with bot._spool._lock:  # as the thread holds it then
        began = time.perf_counter()
        assert not any(bot.record([make_row(candle)]) for candle in range(20))
        assert time.perf_counter() - began < PATIENCE_S + SLACK_S
        assert not bot.keeps
    wait_until(lambda: bot.keeps)
    assert bot.settle(10.0)
    assert written(tmp_path) == [make_row(candle) for candle in range(20)]


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize("place", ["write", "sync"])
def test_a_write_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    first, second, third = Journal("sqlite://").forecasts([make_row(n) for n in range(3)])
    spool = Spool(tmp_path / "a.spool")
    assert spool.open()
    spool.append([first])

    def half(file: BinaryIO, content: bytes) -> None:
        file.write(content[:-9])
        raise KeyboardInterrupt

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "write":
            patch.setattr(spool_module, "_write", half)
        else:
            patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spool.append([second])
    assert spool.everything() == [first]
    with spool.path.open("ab") as file:
        file.write(b"torn")  # as if that could not even be taken back
    assert spool.read() == [first]
    spool.append([third])
    assert spool.everything() == [first, third]
    spool.done()
    assert spool.read() == [third]
    spool.done()
    assert spool.is_empty
    assert spool.damaged == 0
    spool.close()


def test_facts_are_on_the_disk_whoever_syncs_the_file_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Journal("sqlite://").forecasts([make_row(0), make_row(1)])
    spool, sync, sizes = Spool(tmp_path / "a.spool"), os.fsync, []
    assert spool.open()

    def slow(handle: int) -> None:
        size = os.fstat(handle).st_size
        time.sleep(0.1)
        sync(handle)
        sizes.append(size)

    monkeypatch.setattr(os, "fsync", slow)
    spool.append([first], sync_s=0.0)
    other = threading.Thread(target=spool.sync_within, args=(5.0,))
    other.start()
    wait_until(lambda: spool._syncing is not None)
    spool.append([second], sync_s=5.0)
    assert sizes[-1] == spool.path.stat().st_size
    other.join()
    spool.close()


def test_a_refused_sync_takes_back_nothing_that_the_database_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Journal("sqlite://").forecasts([make_row(0), make_row(1)])
    spool = Spool(tmp_path / "a.spool")
    assert spool.open()

    def refuse(_: int) -> None:
        assert spool.read() == [first]
        spool.done()
        spool.append([second], sync_s=0.0)
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match="full"):
            spool.append([first])
    assert spool.everything() == [second]
    spool.close()


def test_a_damaged_line_is_counted_once_however_often_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = Journal("sqlite://").forecasts([make_row(0), make_row(1)])
    spool = Spool(tmp_path / "a.spool")
    assert spool.open()
    spool.append(facts[:1])
    spool.close()
    whole = spool.path.read_bytes()
    spool.path.write_bytes(b"deadbeef \r nonsense\n" + whole + b"x\n")
    assert spool.open()
    for _ in range(5):  # while the database is away
        assert spool.read() == spool.everything() == facts[:1]
    assert spool.damaged == len(caplog.records) == 2
    spool.done()
    spool.append(facts[1:])
    assert spool.read() == facts[1:]
    assert spool.damaged == 2
    spool.close()


facts = st.lists(st.sampled_from([make_row(0), make_row(1), make_row(2, "b2")]), max_size=6)


@settings(max_examples=30, deadline=None)
@given(facts, st.integers(0, 5_000), st.binary(max_size=30))
def test_of_a_file_that_is_cut_or_spoilt_whole_lines_are_read(
    rows: list[JournalRow], cut: int, rest: bytes
) -> None:
    kept = Journal("sqlite://").forecasts(rows)
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "a.spool")
        assert spool.open()
        spool.append(kept)
        spool.close()
        content = spool.path.read_bytes()
        spool.path.write_bytes(content[:cut] + rest)
        assert spool.open()
        whole = content[: content[:cut].rfind(b"\n") + 1].count(b"\n")
        found = spool.everything()
        assert found[:whole] == kept[:whole]
        assert all(fact in kept and is_fact(fact) for fact in found)
        spool.append(kept[:1])
        spool.close()
        assert spool.open()
        assert spool.everything()[-len(kept[:1]) :] == kept[:1] or not kept
        spool.close()


@pytest.mark.parametrize("line", [b"00000000 []", b"", b"x", b"6d9b1c1f {}", b"\xff" * 40])
def test_a_damaged_line_costs_itself_alone_and_is_told(tmp_path: Path, line: bytes) -> None:
    spool, [fact] = (
        Spool(tmp_path / f"{BOT}.spool"),
        Journal("sqlite://", BOT).forecasts([make_row()]),
    )
    assert spool.open()
    spool.append([fact])
    spool.close()
    whole = spool.path.read_bytes()
    spool.path.write_bytes(line + b"\n" + whole)
    recorder = Recorder(Journal(tmp_path / "journal.sqlite", BOT), spool.path, "5m")
    recorder.start()
    assert recorder.settle(10.0)
    recorder.tick(0, STEP_MS)
    recorder.stop()
    assert written(tmp_path) == [make_row()]
    [news] = recorder.news
    assert news.endswith("damaged and lost: 1")


def lines_of(*facts: list[Any]) -> bytes:
    """Lines whose sums fit."""
    contents = [json.dumps(fact).encode() for fact in facts]
    return b"".join(b"%08x %s\n" % (zlib.crc32(content), content) for content in contents)


def test_a_line_of_a_newer_release_is_read_without_what_it_knows_more(tmp_path: Path) -> None:
    [fact] = Journal("sqlite://", BOT).forecasts([make_row()])
    path = tmp_path / f"{BOT}.spool"
    path.write_bytes(lines_of([fact.kind, fact.values | {"newer": 1.0}]))
    recorder = Recorder(Journal(tmp_path / "journal.sqlite", BOT), path, "5m")
    with locked(tmp_path / "journal.sqlite"):
        recorder.start()
        assert recorder.waiting() == [make_row()]
    assert recorder.settle(10.0)
    recorder.stop()
    assert written(tmp_path) == [make_row()]


@pytest.mark.parametrize(
    "values",
    [{"quantiles": "no json"}, {"quantiles": [0.1]}, {"candle_ms": "x"}, {"pair": 7},
     {"lineage": 1}, {"mean": {}}, {"far": "{}"}, {"created_ms": 10**40}],
    ids=str,
)  # fmt: skip
def test_a_line_with_a_sum_that_fits_and_values_that_do_not_is_no_fact(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    [fact] = Journal("sqlite://", BOT).forecasts([make_row()])
    path = tmp_path / f"{BOT}.spool"
    path.write_bytes(lines_of([fact.kind, fact.values | values], [*fact]))
    spool = Spool(path)
    assert spool.open()
    assert (spool.everything(), spool.damaged) == ([fact], 1)
    spool.close()


# ---------------------------------------------------------------- old rows


def test_old_rows_leave_those_of_other_markets_stay(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000 // STEP_MS
    for lineage in (BOT, "binance-spot-5m-0ld0ld00", "binance-spot-1h-1", "kraken-spot-5m-1"):
        journal = Journal(tmp_path / "journal.sqlite", lineage)
        ages = [now - days * 288 for days in (500, 401, 399, 0)]
        journal.record(make_row(candle) for candle in ages)
        journal.record_verdicts(make_verdict(candle) for candle in ages)
        journal.close()
    recorder = make_recorder(tmp_path, days=400)
    recorder.start()
    wait_until(lambda: recorder._prune_at > 0.0)
    recorder.stop()
    assert len(written(tmp_path)) == len(written(tmp_path, lineage="binance-spot-5m-0ld0ld00")) == 2
    for lineage in ("binance-spot-1h-1", "kraken-spot-5m-1"):
        assert len(written(tmp_path, lineage=lineage)) == 4
        journal = Journal(tmp_path / "journal.sqlite", lineage, read_only=True)
        assert len(journal.verdicts("5m", 0, 2**60)) == 4
        journal.close()


@pytest.mark.parametrize("days", [0, None])
def test_all_rows_stay_if_it_is_asked_for(tmp_path: Path, days: int | None) -> None:
    recorder = make_recorder(tmp_path, days=days or 0)
    recorder.start()
    recorder.record([make_row()])
    assert recorder.settle(5.0)
    recorder.stop()
    assert written(tmp_path) == [make_row()]


def test_pruning_takes_a_little_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", BOT)
    journal.record(make_row(candle, pair=pair) for pair in "AB" for candle in range(25))
    gone = [journal.prune("5m", 20 * STEP_MS, 8) for _ in range(8)]
    assert sum(gone) == 40
    assert max(gone) <= 8
    assert gone[-1] == 0
    assert [row.candle_ms // STEP_MS for row in journal.read("A", "5m", 0, 2**60)] == [
        *range(20, 25)
    ]
    journal.close()


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as it:
        yield it


@pytest.fixture(params=DRIVERS or ["none"])
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return server.url(request.param)


@needs_server
def test_a_server_that_stands_still_costs_no_time_and_loses_nothing(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_STUCK_S", 0.5)
    bot = make_recorder(tmp_path, url=url, lineage=f"{tmp_path.name}-5m-0")
    bot.start()
    bot.record([make_row(0)])
    assert bot.settle(10.0)
    server.send(signal.SIGSTOP)
    bot.tick(0, STEP_MS)
    began = time.perf_counter()
    assert all(bot.record([make_row(candle)]) for candle in range(1, 50))
    assert not bot.wait(bot.ask(lambda journal: journal.last("BTC/USDT", "5m")))
    assert time.perf_counter() - began < PATIENCE_S + SLACK_S
    wait_until(lambda: bot.tick(HOUR_MS, STEP_MS) or bot.tick(2 * HOUR_MS, STEP_MS) or bot.news)
    wait_until(lambda: bot.tick(0, STEP_MS) or bot._trouble is not None, 20.0)
    server.send(signal.SIGCONT)
    assert bot.settle(60.0)
    bot.stop()
    assert written(tmp_path, url, f"{tmp_path.name}-5m-0") == [make_row(c) for c in range(50)]


@needs_server
def test_a_server_that_goes_and_comes_back_gets_everything_once(
    server: Server, url: str, tmp_path: Path
) -> None:
    lineage = f"{tmp_path.name}-5m-0"
    bot = make_recorder(tmp_path, url=url, lineage=lineage)
    bot.start()
    bot.record([make_row(0)])
    assert bot.settle(10.0)
    server.stop()
    assert bot.record([make_row(1)])
    wait_until(lambda: bot._trouble is not None)
    bot.stop()
    again = make_recorder(tmp_path, url=url, lineage=lineage)
    again.start()
    assert again.waiting() == [make_row(1)]
    server.start()
    assert again.record([make_row(1), make_row(2)])
    assert again.settle(60.0)
    again.stop()
    assert written(tmp_path, url, lineage) == [make_row(candle) for candle in range(3)]


@needs_server
def test_a_server_keeps_what_an_older_release_wrote(server: Server, url: str) -> None:
    journal = Journal(url, "binance-spot-5m-new")
    with journal._database.connected() as connection:
        for table in ("forecast", "verdict"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql(
            "CREATE TABLE forecast (pair TEXT, timeframe TEXT, candle_ms BIGINT, version TEXT, "
            "quantiles TEXT NOT NULL, volatility FLOAT8 NOT NULL, mean FLOAT8 NOT NULL, "
            "low FLOAT8 NOT NULL, high FLOAT8 NOT NULL, reason TEXT NOT NULL, "
            "created_ms BIGINT NOT NULL, PRIMARY KEY (pair, timeframe, candle_ms, version))"
        )
        connection.exec_driver_sql(
            "INSERT INTO forecast VALUES ('BTC/USDT', '5m', 0, 'a1', '[-0.1, 0.0, 0.1]', 0.01, 0, "
            "-0.1, 0.1, '', 1)"
        )
        connection.commit()
    journal.close()
    reading = Journal(url, "binance-spot-5m-new", read_only=True)
    assert reading.last("BTC/USDT", "5m") == make_row()
    assert reading.verdicts("5m", 0, 1) == []
    reading.close()
    journal.record([make_row(0, mean=0.5), make_row(1)])
    other = Journal(url, "kraken-spot-5m-new")
    other.record([make_row(1, mean=0.25)])
    assert [row.mean for row in journal.read("BTC/USDT", "5m", 0, 2**60)] == [0.0, 0.5, 0.0]
    assert other.read("BTC/USDT", "5m", STEP_MS, 2**60) == [make_row(1, mean=0.25)]
    assert journal.prune("5m", STEP_MS, 10) == 1
    for opened in (journal, other):
        opened.close()
