"""A nowcast is the forecast of the open candle, exact when it closes and calibrated before."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from nowcast_world import PAIRS, SETTINGS, World
from series import STEP_MS, drop, same_bits

from lstm_model.features import WARM_UP
from lstm_model.nowcast import Nowcast, QuarterWidths


def quantiles(world: World, pair: str) -> np.ndarray:
    made = world.nowcaster.latest(pair)
    assert made is not None
    return made.forecast.quantiles[0]


def test_when_the_candle_is_over_the_nowcast_is_its_forecast() -> None:
    world, number = World(), WARM_UP + 40
    world.rebase(number)
    world.open(number)
    world.nowcaster.refresh(PAIRS)
    for pair in PAIRS:
        wanted = world.closed_forecast(pair, number)
        np.testing.assert_allclose(quantiles(world, pair), wanted, rtol=1e-5)
        made = world.nowcaster.latest(pair)
        assert (made.candle_ms, made.version) == (world.series[pair].date_ms[number], "v0")
        assert (made.price, made.received_ns) == (world.series[pair].close[number], 77)
        assert made.low < made.high


def test_a_pair_gets_the_same_alone_and_among_others() -> None:
    together, number = World(), WARM_UP + 40
    together.rebase(number)
    together.open(number, passed=0.4)
    together.nowcaster.refresh(PAIRS)
    for pair in PAIRS:
        alone = World()
        alone.nowcaster.rebase([(alone.model, alone.series[pair].rows(0, number))])
        alone.open(number, passed=0.4)
        alone.nowcaster.refresh([pair])
        assert same_bits(quantiles(alone, pair), quantiles(together, pair))
        assert alone.nowcaster.latest(pair).passed == pytest.approx(0.4)


def test_the_tape_carries_over_to_the_next_candle_until_the_exchange_gives_it() -> None:
    world, number = World(), WARM_UP + 40
    world.rebase(number)
    world.open(number)
    world.nowcaster.refresh(PAIRS)
    world.open(number + 1, passed=0.5)
    world.nowcaster.refresh(PAIRS)
    rolled = {pair: quantiles(world, pair) for pair in PAIRS}
    world.rebase(number + 1)
    world.nowcaster.refresh(PAIRS)
    for pair in PAIRS:
        given = quantiles(world, pair)
        width = given[-1] - given[0]
        np.testing.assert_allclose(rolled[pair], given, rtol=0.0, atol=0.02 * width)


def test_a_tape_with_holes_does_not_carry_over() -> None:
    world, number = World(["BTC/USDT"]), WARM_UP + 40
    world.rebase(number)
    world.series["BTC/USDT"].flow["coverage"][number] = 0.99
    world.open(number + 1)
    world.nowcaster.refresh(PAIRS)
    assert world.nowcaster.latest("BTC/USDT") is None
    world.rebase(number + 1)
    world.nowcaster.refresh(PAIRS)
    assert world.nowcaster.latest("BTC/USDT") is not None


def test_two_candles_without_news_of_the_exchange_are_too_many() -> None:
    world, number = World(["BTC/USDT"]), WARM_UP + 40
    world.rebase(number)
    world.open(number + 2)
    world.nowcaster.refresh(PAIRS)
    assert world.nowcaster.latest("BTC/USDT") is None


def test_a_trade_of_a_closed_candle_changes_nothing() -> None:
    world, number = World(["BTC/USDT"]), WARM_UP + 40
    world.rebase(number + 1)
    world.open(number)
    world.nowcaster.refresh(PAIRS)
    assert world.nowcaster.latest("BTC/USDT") is None


@pytest.mark.parametrize("missing", [1, 30])
def test_no_base_across_a_hole(missing: int) -> None:
    world, number = World(["BTC/USDT"]), WARM_UP + 40
    holed = drop(world.series["BTC/USDT"].rows(0, number), [number - 1 - missing])
    world.nowcaster.rebase([(world.model, holed)])
    assert world.nowcaster.based_on("BTC/USDT") == 0


def test_too_few_candles_make_no_base() -> None:
    world = World(["BTC/USDT"])
    world.nowcaster.rebase([(world.model, world.series["BTC/USDT"].rows(0, WARM_UP))])
    assert world.nowcaster.based_on("BTC/USDT") == 0


def test_pairs_nobody_knows_are_left_alone() -> None:
    world = World(["BTC/USDT"])
    world.nowcaster.refresh(["BTC/USDT", "DOGE/USDT"])
    assert world.nowcaster.latest("DOGE/USDT") is None


def made_at(candle: int, price: float, passed: float = 0.1) -> Nowcast:
    world = World(["BTC/USDT"])
    number = WARM_UP + 30
    world.rebase(number)
    world.open(number)
    world.nowcaster.refresh(["BTC/USDT"])
    made = world.nowcaster.latest("BTC/USDT")
    return replace(made, candle_ms=candle * STEP_MS, price=price, passed=passed)


def width_of(made: Nowcast) -> float:
    return made.high - made.low


def test_a_quarter_learns_from_the_same_quarter_of_the_candle_at_the_horizon() -> None:
    widths, calm = QuarterWidths(SETTINGS), made_at(0, 100.0)
    first = width_of(widths.apply(calm, STEP_MS))
    assert first == pytest.approx(width_of(calm))
    far = 100.0 * math.exp(3.0 * (abs(calm.low) + abs(calm.high)))
    for candle in (1, 2):
        widths.apply(replace(calm, candle_ms=candle * STEP_MS, price=far), STEP_MS)
    later = replace(calm, candle_ms=3 * STEP_MS, price=far)
    assert width_of(widths.apply(later, STEP_MS)) > first
    other_quarter = replace(later, passed=0.6)
    assert width_of(widths.apply(other_quarter, STEP_MS)) == pytest.approx(first)


def test_only_the_first_nowcast_of_a_quarter_counts_and_a_missed_one_teaches_nothing() -> None:
    widths, calm = QuarterWidths(SETTINGS), made_at(0, 100.0)
    for price in (100.0, 250.0, 300.0):
        widths.apply(replace(calm, price=price), STEP_MS)
    before = width_of(widths.apply(replace(calm, candle_ms=4 * STEP_MS, price=900.0), STEP_MS))
    assert before == pytest.approx(width_of(calm))
    same = replace(calm, candle_ms=7 * STEP_MS, price=900.0)
    assert width_of(widths.apply(same, STEP_MS)) < before  # nothing moved: narrower
