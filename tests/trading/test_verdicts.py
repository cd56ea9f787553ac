"""Every candle is counted once, however often it is talked about and whatever dies."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_faults import locked

from lstm_model.store.journal import Journal, VerdictRow
from lstm_model.store.recorder import Recorder
from lstm_model.trading.sizing import ENTER_LONG, ENTER_SHORT, NO_EDGE, NO_SKILL, REASONS, TOO_SMALL
from lstm_model.trading.verdicts import Verdicts

STEP_MS = 300_000
DAY_MS = 86_400_000
NOW_MS = 1_700_006_400_000


class Book(Recorder):
    """Counts what is handed over at once."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.batches = Journal(folder / "journal.sqlite", "bot"), list[int]()
        super().__init__(self.journal, folder / "bot.spool", "5m")

    def record_verdicts(self, rows: Iterable[VerdictRow]) -> None:
        rows = list(rows)
        self.batches.append(len(rows))
        super().record_verdicts(rows)


def open_verdicts(book: Book, now_ms: int = NOW_MS) -> Verdicts:
    return Verdicts(book, "5m", clock=lambda: now_ms)


def summed(verdicts: Verdicts, since_ms: int) -> str:
    return verdicts.summary(since_ms).result(10.0)


def written(book: Book) -> list[tuple[str, int, str, str]]:
    assert book.settle(10.0)
    rows = book.journal.verdicts("5m", 0, 2**60)
    return [(row.pair, row.candle_ms, row.reason, row.text) for row in rows]


@contextmanager
def opened(folder: Path) -> Iterator[Book]:
    book = Book(folder)
    book.start()
    try:
        yield book
    finally:
        book.stop()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with opened(tmp_path) as made:
        yield made


def test_a_word_said_again_is_written_once_with_its_first_text(book: Book) -> None:
    verdicts = open_verdicts(book)
    for text in ("an edge of -3 bps", "an edge of -4 bps"):
        verdicts.note("BTC/USDT", 0, NO_EDGE, text)
        verdicts.flush()
    assert book.batches == [1]
    assert written(book) == [("BTC/USDT", 0, NO_EDGE, "an edge of -3 bps")]


def test_an_older_candle_keeps_its_first_text_too(book: Book) -> None:
    verdicts = open_verdicts(book)
    verdicts.note("BTC/USDT", STEP_MS, NO_EDGE, "newer")
    for text in ("the first", "the second"):
        verdicts.note("BTC/USDT", 0, NO_EDGE, text)
    verdicts.flush()
    assert [text for *_, text in written(book)] == ["the first", "newer"]


def test_all_pairs_go_to_the_journal_in_one_transaction(book: Book) -> None:
    verdicts = open_verdicts(book)
    for number in range(100):
        verdicts.note(f"P{number}/USDT", STEP_MS, NO_EDGE)
    assert book.batches == []
    verdicts.flush()
    verdicts.flush()
    assert book.batches == [100]


def test_a_signal_that_was_refused_at_once_counts_as_refused(book: Book) -> None:
    verdicts = open_verdicts(book)
    for code in (ENTER_SHORT, TOO_SMALL):
        verdicts.note("BTC/USDT", 0, code)
    for code in (ENTER_SHORT, "calibrating"):  # alphabetically the other way round
        verdicts.note("ETH/USDT", 0, code)
    verdicts.flush()
    assert book.settle(10.0)
    assert book.journal.count_verdicts("5m", 0, 1) == {
        ("BTC/USDT", TOO_SMALL): 1,
        ("ETH/USDT", "calibrating"): 1,
    }


def test_a_restart_counts_nothing_twice(tmp_path: Path) -> None:
    for start_ms in (NOW_MS, NOW_MS + 5_000):
        with opened(tmp_path) as book:
            verdicts = open_verdicts(book, start_ms)
            verdicts.note("BTC/USDT", NOW_MS - STEP_MS, NO_EDGE, f"said at {start_ms}")
            told = summed(verdicts, NOW_MS - DAY_MS)
            assert told == "No entry signal in 24 h: 1 candle, no_edge 1"
            assert [text for *_, text in written(book)] == [f"said at {NOW_MS}"]


def test_a_summary_comes_when_the_journal_answers_again(book: Book, tmp_path: Path) -> None:
    verdicts = open_verdicts(book)
    assert book.settle(10.0)
    with locked(tmp_path / "journal.sqlite"):
        verdicts.note("BTC/USDT", NOW_MS - STEP_MS, NO_EDGE)
        told = verdicts.summary(NOW_MS - DAY_MS)
        verdicts.note("BTC/USDT", NOW_MS, NO_SKILL)
        verdicts.flush()
        assert not told.done()
    assert "2 candles, no_edge 1, no_skill 1" in told.result(40.0)


def test_the_summary_tells_the_most_frequent_reason_first(book: Book) -> None:
    verdicts = open_verdicts(book)
    for candle in range(288):
        opened = NOW_MS - DAY_MS + candle * STEP_MS
        for number in range(10):
            verdicts.note(f"P{number}", opened, NO_EDGE if number < 2 else NO_SKILL)
    expected = "in 24 h: 2,880 candles, no_skill 2,304, no_edge 576"
    assert summed(verdicts, NOW_MS - DAY_MS) == f"No entry signal {expected}"
    verdicts.note("A/B", NOW_MS - STEP_MS, ENTER_LONG)
    assert summed(verdicts, NOW_MS - DAY_MS) == (
        "1 entry signal in 24 h: 2,881 candles, no_skill 2,304, no_edge 576"
    )
    verdicts.note("A/B", NOW_MS - 2 * STEP_MS, ENTER_SHORT)
    assert summed(verdicts, NOW_MS - DAY_MS).startswith("2 entry signals in 24 h: 2,882 candles,")


def test_the_summary_knows_only_its_own_time_and_timeframe(book: Book) -> None:
    verdicts = open_verdicts(book)
    hourly = Verdicts(book, "1h", clock=lambda: NOW_MS)
    hourly.note("A/B", NOW_MS - STEP_MS, NO_SKILL)
    verdicts.note("A/B", NOW_MS - 20 * 60_000 - 1, NO_SKILL)
    assert summed(verdicts, NOW_MS - 20 * 60_000) == ""
    verdicts.note("A/B", NOW_MS - 20 * 60_000, NO_EDGE)
    told = summed(verdicts, NOW_MS - 20 * 60_000)
    assert told == "No entry signal in 20 min: 1 candle, no_edge 1"
    assert summed(hourly, NOW_MS - 2 * DAY_MS) == "No entry signal in 48 h: 1 candle, no_skill 1"


def test_a_clock_that_is_set_back_costs_no_later_sum(book: Book) -> None:
    verdicts = open_verdicts(book)
    day = NOW_MS // DAY_MS
    assert list(verdicts.sum_up(day * DAY_MS)) == []
    verdicts.note("A/B", (day - 2) * DAY_MS, NO_EDGE)
    assert list(verdicts.sum_up((day - 2) * DAY_MS)) == []
    told = [*verdicts.sum_up((day - 1) * DAY_MS), *awaited(book, verdicts, day - 1)]
    assert [line.partition(": ")[2] for line in told] == ["1 candle, no_edge 1"]


def awaited(book: Book, verdicts: Verdicts, day: int) -> list[str]:
    assert book.settle(10.0)
    return list(verdicts.sum_up(day * DAY_MS))


def test_without_a_clock_of_its_own_it_is_now(book: Book) -> None:
    verdicts = Verdicts(book, "5m")
    verdicts.note("A/B", 0, NO_EDGE)
    verdicts.flush()
    assert book.settle(10.0)
    (row,) = book.journal.verdicts("5m", 0, 1)
    assert row.created_ms > NOW_MS


notes = st.lists(
    st.tuples(
        st.sampled_from(["A/B", "C/D"]),
        st.integers(0, 3).map(lambda number: number * STEP_MS),
        st.sampled_from(sorted(REASONS)),
    ),
    max_size=25,
)


@pytest.mark.lengthy
@settings(max_examples=25, deadline=None)
@given(notes, st.sets(st.integers(0, 24)))
def test_each_candle_of_a_pair_is_counted_once(
    said: list[tuple[str, int, str]], flushes: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as book:
        check_counts(book, said, flushes)


def check_counts(book: Book, said: list[tuple[str, int, str]], flushes: set[int]) -> None:
    verdicts = open_verdicts(book)
    for number, (pair, candle_ms, reason) in enumerate(said):
        verdicts.note(pair, candle_ms, reason)
        if number in flushes:
            verdicts.flush()
    verdicts.flush()
    assert Counter((*key, "") for key in set(said)) == Counter(written(book))
    candles = Counter(pair for pair, _ in {(pair, candle_ms) for pair, candle_ms, _ in said})
    found: Counter[str] = Counter()
    for (pair, _), count in book.journal.count_verdicts("5m", 0, 2**60).items():
        found[pair] += count
    assert found == candles
