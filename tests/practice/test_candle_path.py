"""Whatever candle is drawn as a path, the trades of the path are that candle to the last unit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.errors import DataError
from lstm_model.practice.candle_path import STEP_BPS, CandlePath, candle_path
from lstm_model.practice.tape_market import Trades, aggregate

HOUR_MS = 3_600_000
STEPS_MS = (60_000, 300_000, HOUR_MS, 24 * HOUR_MS)
FOUR = 4  # corners of a path

Candle = tuple[int, int, int, int, int]


@st.composite
def candles(draw: st.DrawFn) -> Candle:
    """Open, high, low, close in ticks, a volume in lots: one tick, one price, a crash."""
    top = draw(st.sampled_from((1, 12, 5_000, 10**7, 10**12)))
    prices = draw(st.lists(st.integers(1, top), min_size=4, max_size=4))
    if draw(st.booleans()):  # near each other, as nearly all candles are
        prices = [prices[0] + price % max(2, prices[0] // 200) for price in prices]
    low, first, last, high = sorted(prices)
    if draw(st.booleans()):
        first, last = last, first
    lots = draw(st.sampled_from((4, 5, 63, 10**6)) | st.integers(4, 400))
    return first, high, low, last, lots


def drawn(rows: list[Candle], step_ms: int) -> CandlePath:
    table = np.array(rows, np.int64)
    return candle_path(step_ms * np.arange(len(rows)), table[:, :4], table[:, 4], step_ms)


@pytest.mark.lengthy
@settings(max_examples=300, deadline=None)
@given(st.lists(candles(), min_size=1, max_size=8), st.sampled_from(STEPS_MS))
def test_a_path_is_its_candle(rows: list[Candle], step_ms: int) -> None:
    path = drawn(rows, step_ms)
    trades = Trades(path.time_ms, path.price, path.amount, np.ones(len(path.price), np.bool_))
    made = aggregate(trades, step_ms * np.arange(len(rows) + 1), len(trades))
    table = np.array(rows)
    for column, name in enumerate(("open", "high", "low", "close", "volume")):
        assert getattr(made, name).tolist() == table[:, column].tolist()
    assert (made.trades >= FOUR).all()


@pytest.mark.lengthy
@settings(max_examples=300, deadline=None)
@given(candles(), st.sampled_from(STEPS_MS))
def test_a_step_is_short_unless_ticks_lots_or_seconds_are_not(row: Candle, step_ms: int) -> None:
    first, lots = row[0], row[4]
    path = drawn([row], step_ms)
    steps, seconds = np.abs(np.diff(path.price)), np.diff(path.time_ms) / 1e3
    bound = max(1.0, first * STEP_BPS / 1e4) + 1.0  # of which one is rounding
    is_coarse = len(path.price) == FOUR or (seconds[:-1] < 2.0).any() or len(path.price) > 256
    if lots > 400:
        assert is_coarse or (steps <= bound).all()
    assert len(path.price) <= lots
    assert (seconds >= 0.999).all()


@pytest.mark.lengthy
@settings(max_examples=300, deadline=None)
@given(candles())
def test_a_rising_candle_visits_its_low_first_on_straight_lines(row: Candle) -> None:
    first, high, low, last, _ = row
    path = drawn([row], HOUR_MS)
    corners = (first, low, high, last) if last >= first else (first, high, low, last)
    times = (0, HOUR_MS // 4, HOUR_MS // 2, HOUR_MS - 1)
    places = np.searchsorted(path.time_ms, times)
    assert path.price[places].tolist() == [*corners]
    for begin, end in pairwise(places.tolist()):
        ways = np.sign(np.diff(path.price[begin : end + 1]))
        assert len({*ways.tolist()} - {0}) <= 1


def test_a_stop_in_a_one_per_cent_candle_of_an_hour_is_met_within_a_step() -> None:
    path = drawn([(100_000, 100_100, 99_000, 99_900, 10**6)], HOUR_MS)
    beyond = path.price[path.price <= 99_500]
    assert 99_500 - int(beyond[0]) < 100_000 * STEP_BPS / 1e4
    assert len(path.price) < 130


def test_a_quiet_candle_is_four_trades() -> None:
    path = drawn([(100_000, 100_020, 99_980, 100_010, 10**6)], 300_000)
    assert path.price.tolist() == [100_000, 99_980, 100_020, 100_010]
    assert path.time_ms.tolist() == [0, 75_000, 150_000, 299_999]


def test_a_candle_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(DataError, match="outside its low and high"):
        drawn([(100, 99, 90, 95, 10)], 60_000)
