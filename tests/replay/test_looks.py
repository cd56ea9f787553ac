"""A replay looks early where a real bot would have seen a price that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.practice.candle_path import STEP_BPS, candle_path
from lstm_model.practice.tape_market import Instrument, Listing, Trades
from lstm_model.replay.looks import TURNED_BPS, Held, held_in, next_look

HOUR_MS = 3_600_000


def tape(times_s: list[int], prices: list[int]) -> Trades:
    ones = np.ones(len(prices), np.int64)
    return Trades(1_000 * np.array(times_s), np.array(prices), ones, ones > 0)


def looks(held: Held, until_ms: int, every_ms: int) -> list[int]:
    """Of a bot that holds the pair from a second on."""
    times = [1_000]
    while times[-1] < until_ms:
        times.append(next_look([held], times[-1], min(until_ms, times[-1] + every_ms)))
    return times


def test_where_nothing_is_held_nothing_is_early() -> None:
    assert next_look([], 1_000, 61_000) == 61_000


def test_of_several_pairs_the_first_that_matters_counts() -> None:
    still = tape([0, 20, 40], [10_000, 10_000, 10_000])
    late, early = (tape([0, at], [10_000, 10_100]) for at in (30, 15))
    held = [Held(each, (), 10_000.0) for each in (still, late, early)]
    assert next_look(held, 1_000, 61_000) == 15_000


def test_a_top_that_is_left_again_is_seen() -> None:
    """A stop that trails would have followed it."""
    up = tape([0, 20, 40], [100_000, 100_020, 100_000])
    assert next_look([Held(up, (), 100_000.0)], 1_000, 61_000) == 20_000
    assert next_look([Held(up, (), 100_015.0)], 1_000, 61_000) == 61_000  # it was there before
    down = tape([0, 20, 40], [100_000, 99_980, 100_000])
    assert next_look([Held(down, (), 100_000.0)], 1_000, 61_000) == 61_000
    assert next_look([Held(down, (), 100_000.0, side=-1)], 1_000, 61_000) == 20_000


def test_looks_are_a_second_apart_at_least() -> None:
    ones = np.ones(2, np.int64)
    crash = Trades(np.array([0, 1_200]), np.array([10_000, 9_000]), ones, ones > 0)
    assert next_look([Held(crash, (9_500.0,), 10_000.0)], 1_000, 61_000) == 2_000


@pytest.mark.parametrize(
    ("level", "at_s"), [(9_998.0, 30), (9_997.5, 40), (10_001.5, 61), (10_000.0, 61)]
)
def test_a_level_is_seen_where_it_is_passed(level: float, at_s: int) -> None:
    falling = tape([0, 20, 30, 40], [10_000, 9_999, 9_998, 9_997])
    assert next_look([Held(falling, (level,), 10_000.0)], 1_000, 61_000) == 1_000 * at_s


def test_a_market_that_has_not_begun_has_no_price() -> None:
    assert next_look([Held(tape([90], [10_000]), (), 9_000.0)], 1_000, 61_000) == 61_000


@given(
    st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 100), st.integers(0, 100),
    st.integers(0, 99), st.sampled_from([60_000, 900_000, HOUR_MS]),
)  # fmt: skip
def test_a_stop_inside_a_candle_is_met_within_a_step_of_the_path(
    up: int, down: int, first: int, last: int, level: int, every_ms: int
) -> None:
    """However seldom the bot looks otherwise, and even if the stop is the low itself."""
    low, high = 100_000 - down, 100_000 + up
    ends = [low + (high - low) * share // 100 for share in (first, last)]
    path = candle_path(
        np.array([0]), np.array([[ends[0], high, low, ends[1]]]), np.array([10**6]), HOUR_MS
    )
    trades = Trades(path.time_ms, path.price, path.amount, np.ones(len(path.price), np.bool_))
    stop = low + (ends[0] - low) * level // 100
    times = looks(Held(trades, (float(stop),), float(high)), HOUR_MS, every_ms)
    seen = [int(trades.price[trades.due(at_ms) - 1]) for at_ms in times]
    fill = next(price for price in seen if price <= stop)
    assert stop - fill <= STEP_BPS * 1e-4 * high + 1


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=200))
def test_no_look_misses_the_best_price_by_far(ways: list[int]) -> None:
    """So that a stop which trails lags by no more."""
    prices = (100_000 + 10 * np.cumsum([0, *ways])).tolist()
    trades = tape([*range(0, 2 * len(prices), 2)], prices)
    now_ms, best, end_ms = 1_000, 100_000, int(trades.time_ms[-1])
    while now_ms < end_ms:
        now_ms = next_look([Held(trades, (), float(best))], now_ms, min(end_ms, now_ms + 60_000))
        due = trades.due(now_ms)
        best = max(best, int(trades.price[due - 1]))
        assert trades.price[:due].max() - best <= TURNED_BPS * 1e-4 * 110_000


@dataclass
class FakeTrade:
    """What is asked of freqtrade's trades; `tests/replay/test_e2e_replay.py` has real ones."""

    is_short: bool = False
    open_orders: tuple[Any, ...] = ()
    has_open_position: bool = True
    stop_loss: float = 95.0
    max_rate: float | None = 101.0
    min_rate: float | None = 99.0
    open_rate: float = 100.0
    open_date_utc: datetime = datetime(2024, 1, 1, tzinfo=UTC)

    def calc_close_rate_for_roi(self, roi: float) -> float:
        return self.open_rate * (1.0 - roi if self.is_short else 1.0 + roi)


class FakeStrategy:
    use_custom_roi = False
    minimal_roi = MappingProxyType({0: 0.02, 60: 0.01})

    def min_roi_reached_entry(self, trade: Any, minutes: int, now: datetime) -> tuple[int, float]:
        return (0, 0.02) if minutes < 60 else (60, 0.01)


LISTING = Listing(Instrument("BTC", "USDT", 2, 4, spread_fraction=0.001), tape([0], [10_000]))
BEGUN_MS = int(FakeTrade.open_date_utc.timestamp() * 1000)


def levels(at_ms: int = BEGUN_MS, **fields: Any) -> tuple[tuple[float, ...], float]:
    held = held_in(LISTING, FakeTrade(**fields), FakeStrategy(), at_ms)
    return tuple(round(level, 6) for level in held.levels), held.best


def test_the_levels_of_a_trade_are_its_stop_and_its_roi_beyond_the_spread() -> None:
    assert levels() == ((9_500.0, 10_210.0), 10_100.0)
    assert levels(BEGUN_MS + HOUR_MS)[0] == (9_500.0, 10_110.0)
    assert levels(is_short=True, stop_loss=105.0) == ((10_500.0, 9_790.0), 9_900.0)


def test_an_order_that_waits_is_a_level_and_an_entry_has_no_other() -> None:
    """Nothing is bought yet, so there is no profit to reckon with."""
    buy, sell = SimpleNamespace(price=98.0, side="buy"), SimpleNamespace(price=103.0, side="sell")
    assert levels(open_orders=(buy,), has_open_position=False) == ((9_790.0,), math.inf)
    assert levels(open_orders=(sell,))[0] == (10_310.0, 9_500.0, 10_210.0)


def test_a_roi_that_a_callback_decides_is_not_asked_for() -> None:
    strategy = FakeStrategy()
    strategy.use_custom_roi = True
    assert held_in(LISTING, FakeTrade(), strategy, BEGUN_MS).levels == (9_500.0,)


def test_the_roi_is_looked_at_when_it_changes() -> None:
    held = held_in(LISTING, FakeTrade(), FakeStrategy(), BEGUN_MS + 1_000)
    assert held.turn_ms == BEGUN_MS + HOUR_MS
    assert next_look([held], BEGUN_MS + 1_000, BEGUN_MS + 2 * HOUR_MS) == BEGUN_MS + HOUR_MS
    later = held_in(LISTING, FakeTrade(), FakeStrategy(), BEGUN_MS + HOUR_MS)
    assert later.turn_ms == math.inf
