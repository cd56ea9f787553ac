"""Every candle is counted once, however often it is talked about and whatever dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.errors import StoreError
from lstm_model.store.journal import Journal, VerdictRow
from lstm_model.trading import verdicts as verdicts_module
from lstm_model.trading.sizing import ENTER_LONG, ENTER_SHORT, NO_EDGE, NO_SKILL, REASONS, TOO_SMALL
from lstm_model.trading.verdicts import Verdicts

STEP_MS = 300_000
DAY_MS = 86_400_000
NOW_MS = 1_700_006_400_000


class Book(Journal):
    """A journal in memory that counts its transactions and can fail."""

    def __init__(self) -> None:
        super().__init__("sqlite://")
        self.batches: list[int] = []
        self.fails = False

    def record_verdicts(self, rows: Iterable[VerdictRow]) -> None:
        if self.fails:
            raise StoreError("the disk is full")
        rows = list(rows)
        self.batches.append(len(rows))
        super().record_verdicts(rows)


def open_verdicts(journal: Journal, now_ms: int = NOW_MS) -> Verdicts:
    return Verdicts(journal, "5m", clock=lambda: now_ms)


def written(journal: Journal) -> list[tuple[str, int, str, str]]:
    rows = journal.verdicts("5m", 0, 2**60)
    return [(row.pair, row.candle_ms, row.reason, row.text) for row in rows]


@pytest.fixture
def journal() -> Book:
    return Book()


def test_a_word_said_again_is_written_once_with_its_first_text(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    for text in ("an edge of -3 bps", "an edge of -4 bps"):
        verdicts.note("BTC/USDT", 0, NO_EDGE, text)
        verdicts.flush()
    assert journal.batches == [1]
    assert written(journal) == [("BTC/USDT", 0, NO_EDGE, "an edge of -3 bps")]


def test_an_older_candle_keeps_its_first_text_too(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    verdicts.note("BTC/USDT", STEP_MS, NO_EDGE, "newer")
    for text in ("the first", "the second"):
        verdicts.note("BTC/USDT", 0, NO_EDGE, text)
    verdicts.flush()
    assert [text for *_, text in written(journal)] == ["the first", "newer"]


def test_all_pairs_go_to_the_journal_in_one_transaction(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    for number in range(100):
        verdicts.note(f"P{number}/USDT", STEP_MS, NO_EDGE)
    assert journal.batches == []
    verdicts.flush()
    verdicts.flush()
    assert journal.batches == [100]


def test_a_signal_that_was_refused_at_once_counts_as_refused(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    for code in (ENTER_SHORT, TOO_SMALL):
        verdicts.note("BTC/USDT", 0, code)
    for code in (ENTER_SHORT, "calibrating"):  # alphabetically the other way round
        verdicts.note("ETH/USDT", 0, code)
    verdicts.flush()
    assert journal.count_verdicts("5m", 0, 1) == {
        ("BTC/USDT", TOO_SMALL): 1,
        ("ETH/USDT", "calibrating"): 1,
    }


def test_a_restart_counts_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.sqlite"
    for start_ms in (NOW_MS, NOW_MS + 5_000):
        journal = Journal(url)
        verdicts = open_verdicts(journal, start_ms)
        verdicts.note("BTC/USDT", NOW_MS - STEP_MS, NO_EDGE, f"said at {start_ms}")
        assert verdicts.summary(NOW_MS - DAY_MS) == "No entry signal in 24 h: 1 candle, no_edge 1"
        assert [text for *_, text in written(journal)] == [f"said at {NOW_MS}"]
        journal.close()


def test_what_a_failing_journal_did_not_take_is_kept_for_the_next_time(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    verdicts.note("BTC/USDT", 0, NO_EDGE)
    journal.fails = True
    with pytest.raises(StoreError, match="disk is full"):
        verdicts.flush()
    with pytest.raises(StoreError, match="disk is full"):
        verdicts.summary(0)
    verdicts.note("BTC/USDT", STEP_MS, NO_SKILL)
    journal.fails = False
    verdicts.flush()
    assert [code for _, _, code, _ in written(journal)] == [NO_EDGE, NO_SKILL]


def test_a_journal_that_fails_for_days_does_not_fill_the_memory(
    journal: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts_module, "MOST_PENDING", 10)
    verdicts = open_verdicts(journal)
    for candle in range(25):
        verdicts.note("BTC/USDT", candle * STEP_MS, NO_EDGE)
    verdicts.flush()
    assert [candle_ms // STEP_MS for _, candle_ms, _, _ in written(journal)] == [*range(15, 25)]


def test_the_summary_tells_the_most_frequent_reason_first(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    for candle in range(288):
        opened = NOW_MS - DAY_MS + candle * STEP_MS
        for number in range(10):
            verdicts.note(f"P{number}", opened, NO_EDGE if number < 2 else NO_SKILL)
    expected = "in 24 h: 2,880 candles, no_skill 2,304, no_edge 576"
    assert verdicts.summary(NOW_MS - DAY_MS) == f"No entry signal {expected}"
    verdicts.note("A/B", NOW_MS - STEP_MS, ENTER_LONG)
    assert verdicts.summary(NOW_MS - DAY_MS) == (
        "1 entry signal in 24 h: 2,881 candles, no_skill 2,304, no_edge 576"
    )
    verdicts.note("A/B", NOW_MS - 2 * STEP_MS, ENTER_SHORT)
    assert verdicts.summary(NOW_MS - DAY_MS).startswith("2 entry signals in 24 h: 2,882 candles,")


def test_the_summary_knows_only_its_own_time_and_timeframe(journal: Book) -> None:
    verdicts = open_verdicts(journal)
    hourly = Verdicts(journal, "1h", clock=lambda: NOW_MS)
    hourly.note("A/B", NOW_MS - STEP_MS, NO_SKILL)
    verdicts.note("A/B", NOW_MS - 20 * 60_000 - 1, NO_SKILL)
    assert verdicts.summary(NOW_MS - 20 * 60_000) == ""
    verdicts.note("A/B", NOW_MS - 20 * 60_000, NO_EDGE)
    told = verdicts.summary(NOW_MS - 20 * 60_000)
    assert told == "No entry signal in 20 min: 1 candle, no_edge 1"
    assert hourly.summary(NOW_MS - 2 * DAY_MS) == "No entry signal in 48 h: 1 candle, no_skill 1"


def test_without_a_clock_of_its_own_it_is_now(journal: Book) -> None:
    verdicts = Verdicts(journal, "5m")
    verdicts.note("A/B", 0, NO_EDGE)
    verdicts.flush()
    (row,) = journal.verdicts("5m", 0, 1)
    assert row.created_ms > NOW_MS


notes = st.lists(
    st.tuples(
        st.sampled_from(["A/B", "C/D"]),
        st.integers(0, 3).map(lambda number: number * STEP_MS),
        st.sampled_from(sorted(REASONS)),
    ),
    max_size=25,
)


@settings(max_examples=50, deadline=None)
@given(notes, st.sets(st.integers(0, 24)))
def test_each_candle_of_a_pair_is_counted_once(
    said: list[tuple[str, int, str]], flushes: set[int]
) -> None:
    journal = Book()
    verdicts = open_verdicts(journal)
    for number, (pair, candle_ms, reason) in enumerate(said):
        verdicts.note(pair, candle_ms, reason)
        if number in flushes:
            verdicts.flush()
    verdicts.flush()
    assert Counter((*key, "") for key in set(said)) == Counter(written(journal))
    candles = Counter(pair for pair, _ in {(pair, candle_ms) for pair, candle_ms, _ in said})
    found: Counter[str] = Counter()
    for (pair, _), count in journal.count_verdicts("5m", 0, 2**60).items():
        found[pair] += count
    assert found == candles
    journal.close()
