"""What the user hears: of each kind once an hour, the rest counted, no message too long."""

from __future__ import annotations

import itertools
import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.errors import DataError
from lstm_model.learning.news import LONGEST, PAUSE_MS, Complaints, News, as_markdown, kind_of
from lstm_model.practice.chat import markdown_text

HOUR_S = 3_600.0
# What the bot says, twice each as it is said again.
ALIKE = [
    ("BTC/USDT: 3 trade(s) between 2026-01-01T00:00:00Z and 2026-01-01T00:00:07Z could not be "
     "recovered; coverage 0.9931",
     "ETH/USDT:USDT: 12 trade(s) between 2026-01-01T09:00:00Z and 2026-01-01T09:11:07Z could not "
     "be recovered; coverage 0.1"),
    ("BTC/USDT: no trades over REST (RateLimitExceeded)",
     "1000PEPE/USDT: no trades over REST (RateLimitExceeded)"),
    ("BTC/USDT: no forecast: BTC/USDT: 1 duplicate candle(s), first at 2026-01-01T00:00:00Z",
     "ETH/USDT: no forecast: ETH/USDT: 3 duplicate candle(s), first at 2026-01-02T00:00:00Z"),
    ("The trade stream cannot be kept up: NetworkError; trying on",
     "The trade stream cannot be kept up: NetworkError, closing code 1006; trying on"),
    ("Training failed, the last good model keeps serving: the training process ended with code 1",
     "Training failed, the last good model keeps serving: it took longer than 3,600 s"),
    ("No entry signal in 24 h: 96 candles, no_edge 90, stale_stream 5, too_small 1",
     "No entry signal in 4 h: 10 candles, no_data 10"),
    ("Training a network on candles until 2026-01-01T00:00Z:  25%, training, epoch 1 of 6",
     "Training a network on candles until 2026-01-02T00:00Z: 100%, scoring"),
    ("The exchange gives no new candles of A/USDT: the learner's step of 2026",
     "The exchange gives no new candles of B/USDT, C/USDT: the learner's step of"),
]  # fmt: skip
DECIDED = "Promoted: model {} serves instead of the baseline: its pinball loss was 2% lower"


@pytest.mark.parametrize(("first", "second"), ALIKE)
def test_what_is_said_of_other_pairs_numbers_and_times_is_of_one_kind(
    first: str, second: str
) -> None:
    assert kind_of(first) == kind_of(second)
    news = News()
    assert news.due([first, second], 0) == [first]
    assert news.due([], PAUSE_MS) == [second]


def test_messages_of_different_kinds_are_all_told() -> None:
    told = [first for first, _ in ALIKE]
    told += [DECIDED.format(version) for version in ("3f" * 16, "b2" * 16)]
    assert News().due(told, 0) == told


def test_nothing_of_a_kind_is_sent_twice_an_hour_and_what_is_held_back_is_counted() -> None:
    """A month of ten loops an hour that each have something to say of one of 48 pairs."""
    news, draw, sent, count = News(), random.Random(0), [], 0
    for now_ms in range(0, 31 * 24 * PAUSE_MS, PAUSE_MS // 10):
        pair, lost = draw.randrange(48), draw.randrange(1, 9)
        said = f"P{pair}/USDT: {lost} trade(s) could not be recovered"
        count += 1
        sent += [(now_ms, text) for text in news.due([said], now_ms)]
    gaps = [later - before for (before, _), (later, _) in itertools.pairwise(sent)]
    assert min(gaps) >= PAUSE_MS
    assert len(sent) >= 31 * 24 - 1
    more = [int(text.partition("(and ")[2].split()[0]) for _, text in sent[1:]]
    assert sum(more) + len(sent) >= count - 10  # the last hour's are still held back


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    news = News()
    assert news.due(["one"], 10 * PAUSE_MS) == ["one"]
    assert news.due(["one"], 5 * PAUSE_MS) == ["one"]


def test_what_was_told_is_forgotten_after_an_hour() -> None:
    news = News()
    news.due([f"kind {chr(97 + number)}" for number in range(26)], 0)
    news.due([], PAUSE_MS)
    assert not news._told_ms
    assert not news._held


@given(st.text(st.sampled_from("_*`[ab\\ \n😀"), max_size=60), st.integers(1, 400))
def test_no_message_is_longer_than_telegram_takes_and_its_beginning_is_as_it_was(
    text: str, times: int
) -> None:
    whole = text * times
    sent = as_markdown(whole)
    assert len(sent.encode("utf-16-le")) // 2 <= LONGEST
    if "\\" not in whole:
        shown = markdown_text(sent)
        assert shown == whole or whole.startswith(shown.removesuffix(" …"))
    if len(whole) * 2 <= LONGEST:
        assert " …" not in sent


# ---------------------------------------------------------------- the log


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_fails_in_every_loop_is_logged_in_growing_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, told = Clock(), []
    complaints = Complaints(told.append, clock)
    for loop in range(17_280):  # a day of 5 s each
        clock.now_s = loop * 5.0
        complaints.take("BTC/USDT", DataError("candles are not in order of time, first at now"))
    times = len(caplog.records)
    assert 6 + 22 <= times <= 6 + 24
    assert told == [record.message for record in caplog.records]
    assert caplog.records[0].exc_info is None


def test_one_complaint_silences_no_other_and_what_was_well_for_an_hour_is_said_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    complaints = Complaints([].append, clock)
    complaints.take("BTC/USDT", DataError("candles are not in order of time"))
    complaints.take("ETH/USDT", DataError("candles are not in order of time"))
    complaints.take("BTC/USDT", DataError("the exchange gave no candles"))
    assert len(caplog.records) == 3
    clock.now_s = 60.0 + HOUR_S
    complaints.take("BTC/USDT", DataError("the exchange gave no candles"))
    clock.now_s += 60.0
    complaints.take("BTC/USDT", DataError("the exchange gave no candles"))
    assert len(caplog.records) == 5


def test_what_nobody_foresaw_is_logged_with_its_trace_and_told_in_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    complaints = Complaints(told.append)
    try:
        raise ZeroDivisionError("one\ntwo")
    except ZeroDivisionError as error:
        complaints.take("BTC/USDT", error)
    assert told == ["BTC/USDT: no forecast: ZeroDivisionError: one"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
