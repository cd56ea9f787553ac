"""Intervals find their width from matured labels alone; locations are shrunk to their worth."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import same_bits

from lstm_model.calibration import (
    CAUTION,
    GROWN,
    POOLED,
    RATE,
    Calibration,
    QuantileTracker,
    cautious,
    rescale,
    track,
)
from lstm_model.config import DEFAULT_LEVELS
from lstm_model.forecast import coverage, mean_weights

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


@pytest.mark.parametrize("width", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("horizon", [1, 12])
def test_intervals_of_wrong_width_reach_their_coverage(width: float, horizon: int) -> None:
    realized = np.random.default_rng(0).normal(size=12_000)
    quantiles = np.tile(width * NORMAL, (len(realized), 1))
    scales, last = track(LEVELS, quantiles, realized, horizon, (0.0, 0.0))
    calibrated = rescale(quantiles, scales)[4_000:]
    assert coverage(calibrated[:, 0], calibrated[:, 4], realized[4_000:]) == pytest.approx(
        0.9, abs=0.015
    )
    assert coverage(calibrated[:, 1], calibrated[:, 3], realized[4_000:]) == pytest.approx(
        0.5, abs=0.025
    )
    np.testing.assert_allclose(np.exp(last), 1.0 / width, rtol=0.2)


def test_intervals_follow_a_market_that_becomes_wilder() -> None:
    random = np.random.default_rng(1)
    realized = random.normal(size=9_000) * np.repeat([1.0, 2.0], [3_000, 6_000])
    quantiles = np.tile(NORMAL, (len(realized), 1))
    scales, _ = track(LEVELS, quantiles, realized, 1, (0.0, 0.0))
    late = rescale(quantiles, scales)[-3_000:]
    assert coverage(late[:, 0], late[:, 4], realized[-3_000:]) == pytest.approx(0.9, abs=0.02)


@given(st.integers(1, 9), st.integers(0, 39), st.floats(-5, 5))
def test_a_label_changes_only_what_comes_a_horizon_later(
    horizon: int, row: int, outcome: float
) -> None:
    random = np.random.default_rng(0)
    quantiles, realized = np.sort(random.normal(size=(40, 5))), random.normal(size=40)
    other = realized.copy()
    other[row] = outcome
    before = track(LEVELS, quantiles, realized, horizon, (0.0, 0.0))[0]
    after = track(LEVELS, quantiles, other, horizon, (0.0, 0.0))[0]
    assert same_bits(before[: row + horizon], after[: row + horizon])


def test_a_label_does_change_what_comes_a_horizon_later() -> None:
    realized, quantiles = np.zeros(40), np.tile(NORMAL, (40, 1))
    other = np.where(np.arange(40) == 10, 9.0, 0.0)
    before = track(LEVELS, quantiles, realized, 7, (0.0, 0.0))[0]
    after = track(LEVELS, quantiles, other, 7, (0.0, 0.0))[0]
    assert np.flatnonzero((before != after).any(axis=1))[0] == 17


def test_a_planted_early_label_is_caught() -> None:
    """The check above, against a tracker that learns a label one row too early."""
    realized, quantiles = np.zeros(40), np.tile(NORMAL, (40, 1))
    other = np.where(np.arange(40) == 10, 9.0, 0.0)
    leaky = [track(LEVELS, quantiles, x, 7 - 1, (0.0, 0.0))[0] for x in (realized, other)]
    assert not same_bits(leaky[0][:17], leaky[1][:17])


@given(st.integers(1, 30), st.integers(0, 40))
def test_tracking_ends_with_every_label_learnt_once(horizon: int, count: int) -> None:
    random = np.random.default_rng(count)
    quantiles, realized = np.sort(random.normal(size=(count, 5))), random.normal(size=count)
    last = track(LEVELS, quantiles, realized, horizon, (0.1, -0.1))[1]
    tracker = QuantileTracker(LEVELS, (0.1, -0.1))
    for row in range(count):
        tracker.update(quantiles[row].tolist(), float(realized[row]))
    assert last == tracker.log_scales


def test_tracking_in_two_parts_is_tracking_in_one() -> None:
    random = np.random.default_rng(5)
    quantiles, realized = np.sort(random.normal(size=(60, 5))), random.normal(size=60)
    whole = track(LEVELS, quantiles, realized, 1, (0.0, 0.0))[1]
    half = track(LEVELS, quantiles[:30], realized[:30], 1, (0.0, 0.0))[1]
    assert track(LEVELS, quantiles[30:], realized[30:], 1, half)[1] == whole


def test_a_young_pair_learns_faster_and_then_as_slowly_as_the_others() -> None:
    young, grown = QuantileTracker(LEVELS, (0.0, 0.0), 0), QuantileTracker(LEVELS, (0.0, 0.0))
    for tracker in (young, grown):
        tracker.update([-2.0, -1.0, 0.0, 1.0, 2.0], 9.0)
    assert young.log_scales[0] == pytest.approx(10 * grown.log_scales[0])
    assert grown.log_scales[0] == pytest.approx(RATE * (1.0 - 2 * LEVELS[0]))
    again = QuantileTracker(LEVELS, (0.0, 0.0), GROWN)
    again.update([-2.0, -1.0, 0.0, 1.0, 2.0], 9.0)
    assert (again.log_scales, young.labels) == (grown.log_scales, 1)


def test_scales_stay_finite_whatever_happens() -> None:
    tracker = QuantileTracker(LEVELS, (0.0, 0.0))
    for _ in range(2_000):
        tracker.update([0.0] * 5, 1e9)
    assert max(tracker.log_scales) == 3.0
    for _ in range(20_000):
        tracker.update([-1e9, -1.0, 0.0, 1.0, 1e9], 0.0)
    assert min(tracker.log_scales) == -3.0


ROW = st.lists(st.floats(-5, 5), min_size=5, max_size=5).map(sorted)
SCALES = st.tuples(st.floats(-3, 3), st.floats(-3, 3))


@given(st.lists(ROW, min_size=1, max_size=6), SCALES)
def test_rescaled_quantiles_rise_and_keep_their_median(
    rows: list[list[float]], scales: tuple[float, float]
) -> None:
    quantiles = np.array(rows)
    scaled = rescale(quantiles, np.array(scales))
    assert (np.diff(scaled, axis=1) >= 0.0).all()
    np.testing.assert_array_equal(scaled[:, 2], quantiles[:, 2])
    each = rescale(quantiles, np.tile(scales, (len(rows), 1)))
    assert same_bits(scaled, each)


@given(SCALES)
def test_half_widths_are_scaled_by_the_exponential(scales: tuple[float, float]) -> None:
    outer, inner = (math.exp(scale) for scale in scales)
    if outer > inner:
        wanted = [-4 * outer, -1 * inner, 0, 2 * inner, 8 * outer]
        got = rescale(np.array([[-4.0, -1.0, 0.0, 2.0, 8.0]]), np.array(scales))
        np.testing.assert_allclose(got[0], wanted)


def calibration(shrinkage: float = 0.5, residuals: tuple[float, ...] = ()) -> Calibration:
    scales = {POOLED: (0.1, 0.2), "BTC/USDT": (-0.3, 1 / 3)}
    return Calibration(LEVELS, shrinkage, residuals, scales)


@pytest.mark.parametrize("residuals", [(), (-2.0, -0.7, 0.1, 0.6, 1.9)])
def test_a_card_carries_the_calibration_unchanged(residuals: tuple[float, ...]) -> None:
    made = calibration(0.1 + 0.2, residuals)
    card = json.loads(json.dumps(made.to_card()))
    assert Calibration.from_card(LEVELS, card) == made


@pytest.mark.parametrize("shrinkage", [0.0, 0.4, 1.0])
def test_the_served_mean_is_the_shrunk_mean_and_the_shape_stays(shrinkage: float) -> None:
    raw = np.sort(np.random.default_rng(0).normal(0.5, 1.0, size=(30, 5)))
    location, quantiles = calibration(shrinkage).spread(raw)
    mean = raw @ mean_weights(LEVELS)
    np.testing.assert_allclose(location, shrinkage * mean)
    np.testing.assert_allclose(np.diff(quantiles, axis=1), np.diff(raw, axis=1))
    np.testing.assert_allclose(quantiles @ mean_weights(LEVELS), location, atol=1e-12)


def test_a_network_without_quantiles_gets_them_from_its_residuals() -> None:
    residuals = (-2.0, -1.0, 0.0, 1.0, 2.0)
    location, quantiles = calibration(0.5, residuals).spread(np.array([[2.0], [0.0]]))
    assert location.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(quantiles, [[-1, 0, 1, 2, 3], [-2, -1, 0, 1, 2]])


def test_a_forecast_is_in_units_of_the_return_over_the_horizon() -> None:
    raw = np.tile(NORMAL, (2, 1))
    made = calibration(1.0).apply(raw, np.array([0.01, 0.02]), 4, "BTC/USDT")
    np.testing.assert_allclose(made.low, NORMAL[0] * math.exp(-0.3) * np.array([0.02, 0.04]))
    assert (made.levels, made.volatility.tolist()) == (LEVELS, [0.01, 0.02])


def test_a_pair_never_seen_gets_wider_intervals_than_the_pooled_ones() -> None:
    raw, volatility = np.tile(NORMAL, (2, 1)), np.full(2, 0.01)
    pooled = calibration().apply(raw, volatility, 4, POOLED)
    new = calibration().apply(raw, volatility, 4, "NEW/USDT")
    wider = (new.high - new.low) / (pooled.high - pooled.low)
    np.testing.assert_allclose(wider, math.exp(CAUTION))
    known = calibration().apply(raw, volatility, 4, "BTC/USDT")
    assert not same_bits(known.quantiles, pooled.quantiles)


@given(SCALES)
def test_caution_widens_every_interval_alike_and_none_beyond_what_tracking_allows(
    scales: tuple[float, float],
) -> None:
    for before, after in zip(scales, cautious(scales), strict=True):
        assert after == pytest.approx(min(3.0, before + CAUTION))
        assert before <= after <= 3.0


def test_a_pair_without_a_record_begins_cautiously() -> None:
    made = calibration()
    assert made.scales_of("NEW/USDT") == cautious(made.log_scales[POOLED])
    assert made.scales_of("BTC/USDT") == made.log_scales["BTC/USDT"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 97])
def test_a_forecast_alone_has_the_bits_it_has_among_others(count: int) -> None:
    random = np.random.default_rng(0)
    raw = np.sort(random.normal(size=(400, len(DEFAULT_LEVELS))))
    volatility = np.exp(random.normal(size=400))
    made = Calibration(DEFAULT_LEVELS, 0.7, (), {POOLED: (0.1, 0.2, 0.3)})
    many = made.apply(raw, volatility, 12, "BTC/USDT")
    for start in range(0, 400 - count, 3):
        rows = slice(start, start + count)
        few = made.apply(raw[rows], volatility[rows], 12, "BTC/USDT")
        assert same_bits(few.quantiles, many.quantiles[rows])
        assert same_bits(few.mean, many.mean[rows])
