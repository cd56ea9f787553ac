"""What a wallet is measured by, and that a difference is called proven as seldom as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lstm_model.rivals import days as measures
from lstm_model.rivals.days import Days, Difference, block_rows, differences

RETURNS = arrays(np.float64, st.integers(2, 60), elements=st.floats(-0.25, 0.25, width=32))
BY_NAME = {measure.name: measure for measure in measures.MEASURES}


def days_of(returns: np.ndarray, **others: np.ndarray) -> Days:
    nothing = np.zeros(len(returns))
    fields = dict.fromkeys(("entries", "beyond", "turnover", "exposure"), nothing)
    return Days(returns, **{**fields, **others})


def measured(found: tuple[Difference, ...], name: str) -> Difference:
    return next(each for each in found if each.measure.name == name)


def test_measures_by_hand() -> None:
    returns = np.array([0.10, -0.20, 0.05, -0.10])  # equity 1.1, 0.88, 0.924, 0.8316
    assert measures.total_return(returns) == pytest.approx(-0.1684)
    assert measures.drawdown(returns) == pytest.approx(1.0 - 0.8316 / 1.1)
    assert measures.sharpe(returns) == pytest.approx(-0.0375 / np.sqrt(0.0625 / 4 - 0.0375**2))
    assert measures.sortino(returns) == pytest.approx(-0.0375 / np.sqrt((0.04 + 0.01) / 4))
    assert measures.cvar(returns, 0.5) == pytest.approx(-0.15)
    assert measures.cvar(returns) == pytest.approx(-0.20)  # a fifth of a day is the worst one


def test_a_fall_from_the_first_wallet_counts() -> None:
    assert measures.drawdown(np.array([-0.1, 0.05])) == pytest.approx(0.1)


def test_a_wallet_that_stands_still_has_ratios_of_zero_and_one_without_loss_no_sortino() -> None:
    assert float(measures.sharpe(np.zeros(5))) == float(measures.sortino(np.zeros(5))) == 0.0
    assert np.isnan(measures.sortino(np.full(5, 0.01)))


@given(RETURNS)
def test_measures_of_many_draws_are_those_of_each(returns: np.ndarray) -> None:
    days = days_of(returns, entries=np.ones(len(returns)))
    rows = block_rows(len(returns), 7)
    for measure in measures.MEASURES:
        alone = [float(measure.of(days.drawn(row))) for row in rows]
        np.testing.assert_allclose(measure.of(days.drawn(rows)), alone, rtol=1e-9, atol=1e-12)


@given(RETURNS)
def test_the_worst_days_are_no_better_than_the_mean_and_no_worse_than_the_worst(
    returns: np.ndarray,
) -> None:
    worst = float(measures.cvar(returns))
    assert returns.min() - 1e-12 <= worst <= returns.mean() + 1e-12
    assert 0.0 <= measures.drawdown(returns) <= 1.0


@given(RETURNS)
def test_equal_wallets_do_not_differ(returns: np.ndarray) -> None:
    for found in differences(days_of(returns), days_of(returns), draws=50):
        assert found.proven == 0
        assert np.isnan(found.value) or found.value == found.low == found.high == 0.0


def test_a_difference_below_what_is_shown_is_none() -> None:
    """Exposures are equal to a percent only; a thousandth of a point is no proof of anything."""
    returns = np.random.default_rng(3).normal(0.0, 0.01, 200)
    found = measured(differences(days_of(0.9995 * returns), days_of(returns)), measures.CVAR)
    assert found.low > 0.0
    assert found.proven == 0


def test_less_is_better_where_it_is() -> None:
    fall, profit = BY_NAME["drawdown"], BY_NAME["profit"]
    assert Difference(fall, 0.1, 0.2, -0.2, -0.05).proven == 1
    assert Difference(profit, 0.1, 0.2, -0.2, -0.05).proven == -1
    assert Difference(BY_NAME["trades"], 1.0, 9.0, -9.0, -7.0).proven == 0
    assert Difference(profit, np.nan, 0.2, np.nan, np.nan).proven == 0


def test_the_share_beyond_the_promise_is_of_trades_not_of_days() -> None:
    days = days_of(np.zeros(2), entries=np.array([9.0, 1.0]), beyond=np.array([0.0, 1.0]))
    assert float(BY_NAME["beyond promise"].of(days)) == pytest.approx(0.1)
    assert float(BY_NAME["beyond promise"].of(days_of(np.zeros(2)))) == 0.0


def test_blocks_are_as_long_as_asked_and_every_day_is_drawn_as_often() -> None:
    rows = block_rows(50, 4_000, block=5.0)
    goes_on = np.mean((rows[:, 1:] - rows[:, :-1]) % 50 == 1)
    assert goes_on == pytest.approx(1.0 - 0.2 * 49 / 50, abs=0.01)
    np.testing.assert_allclose(np.bincount(rows.ravel()) / rows.size, 1 / 50, rtol=0.1)
    np.testing.assert_array_equal(rows, block_rows(50, 4_000, block=5.0))


@pytest.mark.lengthy
@pytest.mark.parametrize("shift", [0.0, 0.002])
def test_intervals_cover_a_known_difference(shift: float) -> None:
    """Of the mean of days that hang together, by as many as promised, but for small samples."""
    rng, covered, count = np.random.default_rng(5), 0, 200
    mean = measures.Measure("mean", lambda days: days.returns.mean(axis=-1), 1, "percent")
    for _ in range(count):
        noise = rng.normal(0.0, 0.004, 121)
        spread = shift + noise[1:] + 0.5 * noise[:-1]  # a moving average: days hang together
        market = rng.normal(0.0, 0.02, 120)
        ours, theirs = days_of(market + spread), days_of(market)
        rows = block_rows(120, 400)
        found = measures._difference(mean, ours, theirs, ours.drawn(rows), theirs.drawn(rows))
        covered += found.low <= shift <= found.high
    assert 0.86 <= covered / count <= 1.0


@pytest.mark.lengthy
@pytest.mark.parametrize("count", [45, 120])
def test_of_wallets_that_are_equal_by_law_few_are_called_different(count: int) -> None:
    """One in twenty is promised; 200 pairs say so to three points or so."""
    rng, named = np.random.default_rng(count), {"profit": 0, measures.CVAR: 0, "drawdown": 0}
    for _ in range(200):
        calm = np.exp(np.convolve(rng.normal(0.0, 0.3, count + 9), np.ones(10) / 3.0, "valid"))
        market, *own = (0.01 * calm * rng.standard_t(4, count) for _ in range(3))
        found = differences(*(days_of(market + 0.3 * each) for each in own), draws=300)
        for name in named:
            named[name] += measured(found, name).proven != 0
    assert max(named.values()) <= 22
