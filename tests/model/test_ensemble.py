"""Several networks served as one: the mean of what each says."""

from __future__ import annotations

import numpy as np
import pytest
from lstm_reference import random_weights

from lstm_model.errors import StoreError
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.lstm import Lstm
from lstm_model.model.weights import members, numbered, of_member

FEATURES, LOOKBACK = 5, 12
SCALER = {"scaler/mean": np.ones(FEATURES, "f"), "scaler/scale": np.full(FEATURES, 2.0, "f")}
SINGLE = [{**random_weights(FEATURES, 8, 7, seed=seed), **SCALER} for seed in range(3)]
WEIGHTS = {
    name: array
    for number, weights in enumerate(SINGLE, 1)
    for name, array in numbered(weights, number).items()
}
ROWS = np.random.default_rng(0).normal(size=(60, FEATURES))


def test_members_come_back_as_they_were() -> None:
    assert members(WEIGHTS) == 3
    for number, single in enumerate(SINGLE, 1):
        found = of_member(WEIGHTS, number)
        assert found.keys() == single.keys()
        assert all(np.array_equal(found[name], single[name]) for name in single)


def test_it_says_the_mean_of_what_its_members_say() -> None:
    ends = np.arange(LOOKBACK - 1, 60)
    each = [Lstm(single, LOOKBACK).predict(ROWS, ends) for single in SINGLE]
    together = Ensemble(WEIGHTS, LOOKBACK).predict(ROWS, ends)
    np.testing.assert_allclose(together, np.mean(each, axis=0), rtol=1e-12)
    assert (np.diff(together, axis=1) > 0.0).all()


def test_one_member_is_that_network_to_the_last_bit() -> None:
    ends = np.arange(LOOKBACK - 1, 60)
    alone = Lstm(SINGLE[0], LOOKBACK).predict(ROWS, ends)
    assert np.array_equal(Ensemble(SINGLE[0], LOOKBACK).predict(ROWS, ends), alone)


@pytest.mark.parametrize("layers", [1, 2])
def test_windows_alone_together_and_step_by_step_give_the_same_bits(layers: int) -> None:
    weights = {
        name: array
        for n in (1, 2)
        for name, array in numbered(
            {**random_weights(FEATURES, 8, 7, layers=layers, seed=n), **SCALER}, n
        ).items()
    }
    both, ends = Ensemble(weights, LOOKBACK), np.array([20, 31, 40])
    windows = np.stack([ROWS[end + 1 - LOOKBACK : end + 1] for end in ends])
    together = both.predict_windows(windows)
    assert np.array_equal(both.predict(ROWS, ends), together)
    for window, wanted in zip(windows, together, strict=True):
        assert np.array_equal(both.predict_windows(window[None])[0], wanted)
    state = both.state_after(windows[:, :-1])
    assert np.array_equal(both.step(state, windows[:, -1]), together)


def test_a_member_that_lacks_an_array_is_refused() -> None:
    broken = {name: array for name, array in WEIGHTS.items() if name != "2/gaps/bias"}
    with pytest.raises(StoreError, match="gaps/bias"):
        Ensemble(broken, LOOKBACK)
