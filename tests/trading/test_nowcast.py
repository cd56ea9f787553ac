"""A nowcast is the forecast of the open candle, exact when it closes and calibrated before."""

from __future__ import annotations

import numpy as np
import pytest
from nowcast_world import PAIRS, SETTINGS, World, make_model
from series import STEP_MS, drop, same_bits

from lstm_model.features.closed_candle import WARM_UP
from lstm_model.market.candles import CONTEXT, LEADING
from lstm_model.trading.nowcast import QuarterWidths, _Look

COLUMNS = ("quantiles", "mean", "volatility", "mean_error", "lowest", "highest")


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
        wanted, made = world.closed_forecast(pair, number), world.nowcaster.latest(pair)
        for name in COLUMNS:
            found = getattr(made.forecast, name)
            np.testing.assert_allclose(found, getattr(wanted, name), rtol=1e-4, err_msg=name)
        assert made.forecast.lowest[0] < 0.0 < made.forecast.highest[0]
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


def test_before_its_first_trade_a_candle_stands_at_the_last_price() -> None:
    world, number = World(["BTC/USDT"]), WARM_UP + 40
    world.rebase(number + 1)
    world.open(number)
    world.now_ms = int(world.series["BTC/USDT"].date_ms[number + 1]) + 1
    world.nowcaster.refresh(PAIRS)
    made = world.nowcaster.latest("BTC/USDT")
    assert made.candle_ms == world.series["BTC/USDT"].date_ms[number + 1]
    assert made.price == world.series["BTC/USDT"].close[number]
    assert made.passed < 0.001


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


class Quarters:
    """One pair's nowcasts in one candle after the other, with prices of the test's choosing."""

    def __init__(self) -> None:
        self.world = World(["BTC/USDT"])
        self.world.rebase(NUMBER)
        self.tape = self.world.tapes["BTC/USDT"]
        self.base = self.world.nowcaster._bases["BTC/USDT"]
        self.widths = QuarterWidths(SETTINGS)

    def width(self, candle: int, price: float = 100.0, passed: float = 0.1) -> float:
        """Show a price in a candle; how much wider than the model's own the interval is then."""
        seen = self.tape.seen(int(self.tape.known.date_ms[NUMBER]))
        newest = seen._replace(open_ms=candle * STEP_MS, close=price)
        look = _Look(self.base, newest, passed, np.zeros(1), 0.001)
        self.widths.observe(look, UNSCALED)
        own = self.world.model.calibration.widths_of("BTC/USDT")
        return self.widths.log_scales(look)[0] - own.scales[0]


NUMBER = WARM_UP + 30
UNSCALED = [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03]


def test_a_quarter_learns_from_the_same_quarter_of_the_candle_at_the_horizon() -> None:
    quarters = Quarters()
    assert [quarters.width(candle, price=130.0 if candle else 100.0) for candle in range(3)] == [
        0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert quarters.width(3, price=130.0) > 0.0  # 0.26 in logs is far outside
    assert quarters.width(3, price=130.0, passed=0.6) == 0.0


def test_only_the_first_nowcast_of_a_quarter_counts_and_a_missed_one_teaches_nothing() -> None:
    quarters = Quarters()
    for price in (100.0, 250.0, 300.0):
        quarters.width(0, price=price)
    assert quarters.width(4, price=900.0) == 0.0
    assert quarters.width(7, price=900.0) < 0.0  # nothing moved since: narrower


def test_reaches_stay_as_calibrated_inside_the_candle() -> None:
    quarters = Quarters()
    own = quarters.world.model.calibration.widths_of("BTC/USDT")
    for candle in range(4):
        quarters.width(candle, price=130.0 if candle else 100.0)
    [learnt] = [q.tracker.widths for q in quarters.widths._quarters.values()]
    assert learnt.labels == 1
    assert learnt.scales[0] > own.scales[0]
    assert learnt.scales[3:] == own.scales[3:]
    assert learnt.slopes[3:] == own.slopes[3:]


def test_another_model_begins_with_its_own_widths() -> None:
    quarters = Quarters()
    quarters.width(0)
    assert quarters.width(3, price=130.0) > 0.0
    quarters.base = quarters.base._replace(model=make_model(seed=1))
    assert quarters.width(6, price=130.0) == 0.0


# ---- the leader ------------------------------------------------------------------------------


def nowcasts_are_forecasts(world: World, number: int, pairs: list[str]) -> bool:
    """Whether the candle that is over has the nowcast that a closed one gets."""
    world.nowcaster.refresh(pairs)
    return all(
        np.allclose(
            quantiles(world, pair),
            world.closed_forecast(pair, number).quantiles[0],
            rtol=1e-4, atol=1e-7,
        )
        for pair in pairs
    )  # fmt: skip


def test_the_open_candle_sees_the_leaders_open_candle() -> None:
    world, number = World(leader="BTC/USDT"), WARM_UP + 40
    world.rebase(number)
    world.open(number)
    assert nowcasts_are_forecasts(world, number, PAIRS)
    assert nowcasts_are_forecasts(world, number, PAIRS[1:])  # whether or not it is asked for


def test_a_leader_that_is_not_followed_is_unknown_between_candles_and_costs_no_nowcast() -> None:
    world, number = World(leader="BTC/USDT"), WARM_UP + 40
    world.rebase(number)
    del world.tapes["BTC/USDT"]
    world.open(number)
    world.nowcaster.refresh(PAIRS[1:])
    for name in (f"leader_{name}" for name in LEADING):
        for pair in PAIRS[1:]:
            world.series[pair].context[name][number] = np.nan
    assert nowcasts_are_forecasts(world, number, PAIRS[1:])


@pytest.mark.parametrize("silence", ["nothing traded yet", "the stream is stale"])
def test_a_leader_that_says_nothing_is_unknown_and_not_calm(silence: str) -> None:
    world, number = World(leader="BTC/USDT"), WARM_UP + 40
    world.rebase(number)
    world.open(number)
    if silence == "the stream is stale":
        world.nowcaster._is_fresh = lambda pair: pair != "BTC/USDT"
    else:
        world.tapes["BTC/USDT"].number = number - 1
    for name in (f"leader_{name}" for name in LEADING):
        for pair in PAIRS[1:]:
            world.series[pair].context[name][number] = np.nan
    assert nowcasts_are_forecasts(world, number, PAIRS[1:])


def test_what_the_tape_carries_over_is_seen_with_the_leader_and_the_days_before() -> None:
    world, number = World(leader="BTC/USDT"), WARM_UP + 40
    world.rebase(number)
    world.open(number)
    world.nowcaster.refresh(PAIRS)
    world.open(number + 1)
    world.nowcaster.refresh(PAIRS)
    for pair in PAIRS:
        wanted = world.closed_forecast(pair, number + 1).quantiles[0]
        width = wanted[-1] - wanted[0]
        np.testing.assert_allclose(quantiles(world, pair), wanted, rtol=0.0, atol=0.02 * width)
        rolled = world.nowcaster._bases[pair].closed.context[-1]
        assert rolled["date_ms"] == world.series[pair].date_ms[number]
        for name in CONTEXT.names:
            assert rolled[name] == pytest.approx(world.series[pair].context[number][name]), name
