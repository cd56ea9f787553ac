"""No entry without forecast, skill and edge; the stake follows the edge and stays in bounds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.config import DEFAULT_LEVELS, Settings
from lstm_model.forecast import Forecast
from lstm_model.sizing import (
    ENTER_LONG,
    ENTER_SHORT,
    NO_EDGE,
    NO_FORECAST,
    NO_SKILL,
    Decision,
    decide,
    round_trip_cost,
)

FEE = 0.001
NORMAL = np.array([NormalDist().inv_cdf(level) for level in DEFAULT_LEVELS])
MEANS = st.floats(-0.5, 0.5) | st.just(float("nan"))
CASES = st.lists(
    st.tuples(MEANS, st.floats(1e-6, 1.0), st.booleans()), min_size=1, max_size=10
)  # fmt: skip
SETTINGS = st.builds(
    Settings,
    slippage_fraction=st.floats(0.0, 0.05),
    kelly_fraction=st.floats(0.01, 1.0),
    max_stake_fraction=st.floats(0.01, 1.0),
)


def forecast_of(means: list[float], deviations: list[float]) -> Forecast:
    mean, deviation = np.array(means), np.array(deviations)
    quantiles = mean[:, None] + deviation[:, None] * NORMAL
    return Forecast(DEFAULT_LEVELS, quantiles, mean, deviation)


def decided(
    mean: float, deviation: float = 0.01, *, skilled: bool = True, can_short: bool = False,
    settings: Settings | None = None,
) -> Decision:  # fmt: skip
    made = forecast_of([mean], [deviation])
    return decide(made, np.array([skilled]), FEE, settings or Settings(), can_short=can_short)


@given(CASES, SETTINGS, st.booleans(), st.floats(0.0, 0.01))
def test_an_entry_needs_forecast_skill_and_edge(
    cases: list[tuple[float, float, bool]], settings: Settings, can_short: bool, fee: float
) -> None:
    means, deviations, skilled = (list(column) for column in zip(*cases, strict=True))
    made = decide(
        forecast_of(means, deviations), np.array(skilled), fee, settings, can_short=can_short
    )
    entered = made.side != 0
    assert np.isfinite(np.array(means)[entered]).all()
    assert np.array(skilled)[entered].all()
    assert (made.edge[entered] > 0.0).all()
    assert can_short or (made.side >= 0).all()
    assert ((made.side == 0) | (made.side == np.sign(np.array(means)))).all()
    assert (made.stake_fraction >= 0.0).all()
    assert (made.stake_fraction <= settings.max_stake_fraction).all()
    assert (made.stake_fraction[~entered] == 0.0).all()
    told = np.isin(made.reason, [ENTER_LONG, ENTER_SHORT])
    np.testing.assert_array_equal(told, entered)


@pytest.mark.parametrize(
    ("mean", "skilled", "can_short", "side", "reason"),
    [
        (0.02, True, False, 1, ENTER_LONG),
        (0.02, True, True, 1, ENTER_LONG),
        (-0.02, True, True, -1, ENTER_SHORT),
        (-0.02, True, False, 0, NO_EDGE),
        (0.002, True, True, 0, NO_EDGE),
        (0.0, True, True, 0, NO_EDGE),
        (0.02, False, True, 0, NO_SKILL),
        (float("nan"), True, True, 0, NO_FORECAST),
        (float("nan"), False, True, 0, NO_FORECAST),
        (float("inf"), True, True, 0, NO_FORECAST),
        (float("-inf"), True, True, 0, NO_FORECAST),
    ],
)
def test_the_reason_is_told(
    mean: float, skilled: bool, can_short: bool, side: int, reason: str
) -> None:
    made = decided(mean, skilled=skilled, can_short=can_short)
    assert (made.side[0], made.reason[0]) == (side, reason)
    assert (made.stake_fraction[0] > 0.0) == bool(side)


def test_a_forecast_of_infinite_width_gets_no_stake() -> None:
    ends = np.array([[-np.inf, -1.0, 0.0, 0.0, 0.0, 1.0, np.inf]])
    made = Forecast(DEFAULT_LEVELS, ends, np.full(1, 0.02), np.ones(1))
    decision = decide(made, np.ones(1, bool), FEE, Settings(), can_short=False)
    assert decision.stake_fraction[0] == 0.0


@given(st.floats(0.0, 0.3), st.floats(0.0, 0.3), st.floats(1e-3, 1.0), SETTINGS)
def test_a_larger_edge_never_gets_a_smaller_stake(
    one: float, other: float, deviation: float, settings: Settings
) -> None:
    low, high = sorted((one, other))
    made = decide(
        forecast_of([low, high], [deviation, deviation]), np.ones(2, bool), FEE, settings,
        can_short=False,
    )  # fmt: skip
    assert made.edge[0] <= made.edge[1]
    # The deviation is read from quantiles around the mean: equal up to rounding.
    assert made.stake_fraction[0] <= made.stake_fraction[1] * (1.0 + 1e-9)


@given(st.floats(1e-3, 1.0), st.floats(1e-3, 1.0), SETTINGS)
def test_more_uncertainty_never_gets_a_larger_stake(
    one: float, other: float, settings: Settings
) -> None:
    calm, wild = sorted((one, other))
    made = decide(
        forecast_of([0.2, 0.2], [calm, wild]), np.ones(2, bool), FEE, settings, can_short=False
    )
    assert made.stake_fraction[0] >= made.stake_fraction[1] * (1.0 - 1e-9)


def test_the_edge_is_net_of_both_fees_and_slippages() -> None:
    assert round_trip_cost(0.001, Settings(slippage_fraction=0.0005)) == pytest.approx(0.003)
    assert decided(0.02).edge[0] == pytest.approx(np.expm1(0.02) - 0.003)
    assert decided(-0.02, can_short=True).edge[0] == pytest.approx(-np.expm1(-0.02) - 0.003)


def test_the_stake_is_a_share_of_kellys() -> None:
    settings = Settings(kelly_fraction=0.25)
    made = decided(0.02, 0.2, settings=settings)
    assert made.stake_fraction[0] == pytest.approx(0.25 * made.edge[0] / 0.04)
    assert decided(0.02, 0.001, settings=settings).stake_fraction[0] == 1.0


def test_each_candle_is_decided_on_its_own_forecast() -> None:
    random = np.random.default_rng(0)
    means, deviations = (
        random.normal(0.0, 0.01, 50).tolist(),
        np.exp(random.normal(size=50)).tolist(),
    )
    skilled = random.random(50) < 0.5
    many = decide(forecast_of(means, deviations), skilled, FEE, Settings(), can_short=True)
    for row in range(50):
        one = decided(means[row], deviations[row], skilled=bool(skilled[row]), can_short=True)
        assert one.side[0] == many.side[row]
        assert one.edge[0] == many.edge[row]
        assert one.stake_fraction[0] == many.stake_fraction[row]
