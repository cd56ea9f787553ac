"""Closed trades say how long the next lasts; stops are met as often as promised."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.trading.experience import ENOUGH, Experience


@given(st.lists(st.integers(1, 10**10), max_size=60))
def test_the_typical_duration_is_the_median_once_there_are_enough(durations: list[int]) -> None:
    experience = Experience()
    for duration in durations:
        experience.learn(duration, reached=None)
    wanted = statistics.median(durations) if len(durations) >= ENOUGH else None
    assert experience.typical_ms == wanted
    assert experience.factor == 1.0


@pytest.mark.parametrize("wrong", [0.4, 0.7, 1.0, 1.5, 2.2])
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_the_excursions_of_a_strategys_trades_the_promised_share_reaches_its_stop(
    wrong: float, seed: int
) -> None:
    """Reaches that are `wrong` times too short or too far for its entries."""
    random = np.random.default_rng(seed)
    experience, met = Experience(), []
    scale = wrong / math.exp(1.645 * 0.8)  # its own 95 % quantile is `wrong`
    for _ in range(1_500):
        met.append(scale * math.exp(0.8 * random.normal()) > experience.factor)
        experience.learn(1, reached=met[-1])
    assert np.mean(met) == pytest.approx(0.05, abs=0.02)
    assert np.mean(met[500:]) == pytest.approx(0.05, abs=0.02)


@given(st.lists(st.booleans(), max_size=300))
def test_a_distance_is_never_changed_beyond_bounds(met: list[bool]) -> None:
    experience = Experience()
    for reached in met:
        before = experience.factor
        experience.learn(1, reached=reached)
        assert (experience.factor >= before) == reached or experience.factor in (
            math.e, pytest.approx(1 / math.e),
        )  # fmt: skip
        assert 1 / math.e - 1e-12 <= experience.factor <= math.e + 1e-12
