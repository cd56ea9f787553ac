"""Scores agree with slow, plain implementations; the paired test keeps its promises."""

from __future__ import annotations

from dataclasses import fields
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import slow_noise

from lstm_model.model.forecast import (
    Forecast,
    coverage,
    deviation_of,
    hit_rate,
    paired_test,
    pinball_loss,
    skill,
    unknown_far,
    winkler_score,
)

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NUMBERS = st.floats(-10.0, 10.0)
CASES = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=5, max_size=5).map(sorted), NUMBERS),
    min_size=1,
    max_size=8,
)
Case = tuple[list[float], float]


def slow_pinball(level: float, quantile: float, realized: float) -> float:
    if realized >= quantile:
        return level * (realized - quantile)
    return (1.0 - level) * (quantile - realized)


def slow_winkler(low: float, high: float, realized: float, level: float) -> float:
    width = high - low
    if realized < low:
        return width + 2.0 / (1.0 - level) * (low - realized)
    if realized > high:
        return width + 2.0 / (1.0 - level) * (realized - high)
    return width


@given(CASES)
def test_scores_equal_their_definitions(cases: list[Case]) -> None:
    quantiles = np.array([case[0] for case in cases])
    realized = np.array([case[1] for case in cases])
    low, high = quantiles[:, 0], quantiles[:, -1]
    pinball = [
        sum(slow_pinball(level, q, y) for level, q in zip(LEVELS, row, strict=True)) / 5
        for row, y in cases
    ]
    winkler = [slow_winkler(row[0], row[-1], y, 0.9) for row, y in cases]
    inside = [row[0] <= y <= row[-1] for row, y in cases]
    np.testing.assert_allclose(pinball_loss(LEVELS, quantiles, realized), pinball, atol=1e-12)
    np.testing.assert_allclose(winkler_score(low, high, realized, 0.9), winkler, atol=1e-9)
    assert coverage(low, high, realized) == pytest.approx(sum(inside) / len(cases))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8))
def test_the_hit_rate_counts_moves_alone(cases: list[tuple[float, float]]) -> None:
    mean, realized = (np.array(column) for column in zip(*cases, strict=True))
    moved = [(m, y) for m, y in cases if m != 0.0 and y != 0.0]
    wanted = sum((m > 0) == (y > 0) for m, y in moved) / len(moved) if moved else np.nan
    assert hit_rate(mean, realized) == pytest.approx(wanted, nan_ok=True)


def test_the_true_quantiles_have_the_best_pinball_and_winkler_score() -> None:
    realized = np.random.default_rng(0).normal(size=20_000)
    true = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    scores = {
        (shift, scale): pinball_loss(LEVELS, np.tile(shift + scale * true, (20_000, 1)), realized)
        for shift in (-0.2, 0.0, 0.2)
        for scale in (0.7, 1.0, 1.4)
    }
    assert min(scores, key=lambda key: scores[key].mean()) == (0.0, 1.0)
    widths = np.array([1.0, 1.3, 1.645, 2.0, 2.5])
    ends = [np.full(20_000, width) for width in widths]
    winkler = [winkler_score(-end, end, realized, 0.9).mean() for end in ends]
    assert widths[int(np.argmin(winkler))] == 1.645


def test_skill_against_zero_is_r_squared() -> None:
    random = np.random.default_rng(0)
    forecast = random.normal(size=50_000)
    realized = forecast + random.normal(size=50_000)
    assert skill((realized - forecast) ** 2, realized**2) == pytest.approx(0.5, abs=0.02)
    assert skill(realized**2, realized**2) == 0.0


def test_a_forecast_knows_its_interval_and_deviation() -> None:
    quantiles = 0.02 * np.array([[NormalDist().inv_cdf(level) for level in LEVELS]])
    columns = (np.array([x]) for x in (0.0, 0.01, 0.005, -0.03, 0.04))
    forecast = Forecast(LEVELS, quantiles, *columns, far=unknown_far(1))
    assert forecast.interval_level == pytest.approx(0.9)
    assert (forecast.low[0], forecast.high[0]) == (quantiles[0, 0], quantiles[0, -1])
    assert forecast.deviation[0] == pytest.approx(0.02)


def numbered(count: int, start: float) -> Forecast:
    """Forecasts of which every number is another."""
    quantiles = start + np.arange(count * len(LEVELS), dtype=float).reshape(count, len(LEVELS))
    columns = (start + 100.0 * place + np.arange(count) for place in range(1, 6))
    far = start + 1e4 + np.arange(6.0 * count).reshape(count, 6)
    return Forecast(LEVELS, quantiles, *columns, far=far)


def columns_of(forecast: Forecast) -> list[np.ndarray]:
    return [getattr(forecast, f.name) for f in fields(forecast) if f.name != "levels"]


@given(st.integers(1, 6), st.data())
def test_forecasts_are_written_into_their_rows_and_taken_out_of_them_whole(
    count: int, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, count - 1), unique=True))
    whole, made = Forecast.nothing(LEVELS, count), numbered(len(rows), 7.0)
    assert all(np.isnan(column).all() for column in columns_of(whole))
    whole.put(np.array(rows, dtype=np.int64), made)
    for place, row in enumerate(rows):
        for found, wanted in zip(columns_of(whole.row(row)), columns_of(made), strict=True):
            assert found.tolist() == wanted[place : place + 1].tolist()
    for row in set(range(count)) - set(rows):
        assert all(np.isnan(column).all() for column in columns_of(whole.row(row)))


@given(
    st.floats(0.01, 10.0), NUMBERS,
    st.floats(0.01, 0.4).map(lambda low: (low, 0.5, 1.0 - low)),
)  # fmt: skip
def test_a_deviation_is_that_of_the_normal_distribution_with_such_an_interval(
    deviation: float, mean: float, levels: tuple[float, ...]
) -> None:
    ends = [
        np.full(2, NormalDist(mean, deviation).inv_cdf(level)) for level in (levels[0], levels[-1])
    ]
    found = deviation_of(*ends, levels)
    assert found.shape == (2,)
    assert found == pytest.approx(deviation, rel=1e-6)


def rejections(horizon: int, memory: float, advantage: float, *, count: int = 1_000) -> float:
    """Share of simulated comparisons that the test calls significant at 5 %.

    `memory`: of the forecast, whose gain `realized * forecast` overlaps over `horizon` rows.
    """
    random = np.random.default_rng(horizon)
    found = 0
    for _ in range(count):
        noise = np.convolve(random.normal(size=600 + horizon), np.ones(horizon), "valid")[:600]
        forecast = slow_noise(random, 600, memory) if memory else random.normal(size=600)
        realized = noise / np.sqrt(horizon) + advantage * forecast
        gain = 2.0 * realized * forecast  # what is left of squared losses with a tiny forecast
        found += paired_test(-gain, np.zeros(600), horizon).p_value <= 0.05
    return found / count


@pytest.mark.parametrize(("horizon", "memory"), [(1, 0.0), (1, 0.9), (12, 0.0)])
def test_luck_is_called_skill_one_time_in_twenty(horizon: int, memory: float) -> None:
    assert 0.03 < rejections(horizon, memory, 0.0) < 0.075


def test_luck_with_overlapping_horizons_is_called_skill_one_time_in_twenty() -> None:
    assert 0.03 < rejections(12, 0.99, 0.0) < 0.08


def test_a_true_advantage_is_found() -> None:
    assert rejections(1, 0.0, 0.2, count=100) > 0.95
    assert rejections(12, 0.9, 0.5, count=100) > 0.95


def test_a_disadvantage_is_never_skill() -> None:
    assert rejections(1, 0.0, -0.2, count=100) == 0.0


def test_without_overlap_the_paired_test_is_a_t_test() -> None:
    gains = np.random.default_rng(3).normal(0.02, 1.0, size=5_000)
    found = paired_test(-gains, np.zeros(5_000), 1)
    assert found.gain == pytest.approx(gains.mean())
    assert found.statistic == pytest.approx(gains.mean() / gains.std() * 5_000**0.5, rel=0.05)
    assert found.p_value == pytest.approx(1.0 - NormalDist().cdf(found.statistic))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_equal_losses_prove_nothing(count: int) -> None:
    losses = np.arange(float(count))
    assert paired_test(losses, losses, 12) == (0.0, 0.0, 1.0)
