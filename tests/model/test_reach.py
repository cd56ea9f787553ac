"""How far the price goes within longer spans: of the past alone, and as often as promised."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import drop, make_candles

from lstm_model.features.ingredients import Ingredients
from lstm_model.market.candles import Candles
from lstm_model.model.forecast import SPANS
from lstm_model.model.reach import (
    Reach,
    completed,
    highest_ahead,
    measure,
    pooled_reach,
    reach_within,
)

HORIZON = 3


def restless(count: int, seed: int) -> Candles:
    """A market whose volatility changes for days on end."""
    random = np.random.default_rng(seed)
    log_volatility = -6.0 + 0.5 * np.repeat(random.normal(size=count // 500 + 1), 500)[:count]
    price = np.exp((np.exp(log_volatility) * random.normal(size=count)).cumsum())
    opened = np.concatenate([price[:1], price[:-1]])
    high, low = np.maximum(opened, price), np.minimum(opened, price)
    return Candles("A/B", 300_000, 300_000 * np.arange(count), opened, high, low, price,
                   np.ones(count))  # fmt: skip


def test_the_promised_share_of_later_spans_stay_within() -> None:
    whole = restless(60_000, seed=3)
    past, later = whole.rows(0, 40_000), whole.rows(39_000, 60_000)
    volatility = np.asarray(Ingredients(later).volatility)
    rows = np.flatnonzero(volatility > 0.0)[1_000:]
    reaches = measure(past, HORIZON).at(volatility[rows], HORIZON)
    for number, (side, span) in enumerate([(-1, s) for s in SPANS] + [(1, s) for s in SPANS]):
        prices = later.low if side < 0 else later.high
        excursion = highest_ahead(side * np.log(prices), span * HORIZON) - side * np.log(
            later.close
        )
        known = np.isfinite(excursion[rows])
        missed = (excursion[rows] > np.abs(reaches[:, number]))[known]
        assert missed.mean() == pytest.approx(0.05, abs=0.03)


def test_only_the_given_candles_count_and_holes_are_left_out() -> None:
    candles = make_candles(6_000)
    found = measure(candles, HORIZON)
    np.testing.assert_equal(tuple(measure(candles.rows(0, 6_000), HORIZON)), tuple(found))
    holed = measure(drop(candles, list(range(100, 140))), HORIZON)
    assert np.isfinite(holed.scales)[[0, 1, 3, 4]].all()
    assert holed.scales[0] != found.scales[0]


def test_a_history_that_is_too_short_for_a_span_says_nothing_of_it() -> None:
    found = measure(make_candles(16 * HORIZON * 30 + 400), HORIZON)
    assert np.isfinite(found.scales)[[0, 1, 3, 4]].all()
    assert np.isnan(found.scales)[[2, 5]].all()
    assert np.isnan(measure(make_candles(50), HORIZON).scales).all()


@given(st.lists(st.floats(-5.0, 5.0) | st.just(math.nan), min_size=13, max_size=13))
def test_reaches_survive_a_file(numbers: list[float]) -> None:
    reach = Reach(0.0 if math.isnan(numbers[0]) else numbers[0], tuple(numbers[1:7]),
                  tuple(numbers[7:]))  # fmt: skip
    again = Reach.of_plain(json.loads(json.dumps(reach.plain(), allow_nan=False)))
    np.testing.assert_equal(tuple(again), tuple(reach))


def test_a_pair_without_a_history_has_the_mean_of_the_others() -> None:
    one, two = (Reach(-6.0 + x, (x,) * 6, (-x,) * 6) for x in (0.2, 0.4))
    assert pooled_reach([one, two, Reach.unknown()]).scales == pytest.approx((0.3,) * 6)
    assert np.isnan(pooled_reach([]).scales).all()


def test_a_young_pair_has_the_others_reach_of_spans_that_its_history_is_too_short_for() -> None:
    old = Reach(-6.0, (0.2,) * 6, (-0.5,) * 6)
    young = Reach(-5.0, (0.1, math.nan, math.nan) * 2, (-0.1, math.nan, math.nan) * 2)
    assert completed(young, pooled_reach([old, young])).scales == pytest.approx((0.1, 0.2, 0.2) * 2)
    assert completed(None, pooled_reach([old])).scales == pytest.approx(old.scales)
    assert completed(old, pooled_reach([])) == old


@given(
    st.floats(1.0, 1e4), st.floats(1.0, 1e4), st.floats(0.001, 0.1),
    st.lists(st.floats(0.001, 0.5) | st.just(math.nan), min_size=3, max_size=3),
    st.sampled_from([1.0, -1.0]),
)  # fmt: skip
def test_a_longer_hold_never_has_a_shorter_reach(
    one: float, other: float, first: float, others: list[float], side: float
) -> None:
    near, far = sorted((one, other))
    short, long = (
        side * reach_within(hold, 12, side * first, [side * x for x in others])
        for hold in (near, far)
    )
    assert 0.0 < short <= long * (1.0 + 1e-12)


@pytest.mark.parametrize("first", [0.0, math.nan, math.inf])
def test_without_a_forecast_there_is_no_reach(first: float) -> None:
    assert not np.isfinite(reach_within(12, 12, first, [math.nan] * 3))
