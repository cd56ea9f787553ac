"""The mean is found where there is one, turns with its market, and is exactly zero elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from lstm_reference import hidden_states, random_weights
from series import same_bits

from lstm_model.model import mean
from lstm_model.model.gate import Worth, worth
from lstm_model.model.lstm import Lstm
from lstm_model.model.mean import Moments, Windows, fitted, learn_mean
from lstm_model.settings import Settings

FEATURES, UNITS, LOOKBACK, COUNT = 5, 4, 8, 3_000
SETTINGS = Settings(lookback=LOOKBACK, units=UNITS)
WEIGHTS = random_weights(FEATURES, UNITS, 7, layers=1)
PLAIN = {name: array for name, array in WEIGHTS.items() if not name.startswith("mean/")}


def windows(signal: float, held_out_signal: float | None = None, seed: int = 0) -> Windows:
    """The newest candle foretells what comes, in the block held out perhaps the opposite."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(COUNT, FEATURES))
    strength = np.full(COUNT, signal)
    strength[COUNT // 2 :] = signal if held_out_signal is None else held_out_signal
    target = strength * rows[:, 2] + random.normal(size=COUNT)
    ends = np.arange(LOOKBACK - 1, COUNT)
    return Windows(rows, target, ends[ends < COUNT // 2], ends[ends >= COUNT // 2])


def said(weights: dict[str, np.ndarray], of: Windows) -> np.ndarray:
    """(N,) the mean that is served of the windows held out."""
    return Lstm(weights, LOOKBACK).predict(of.rows, of.held_out)[:, 3]


def r2(weights: dict[str, np.ndarray], of: Windows) -> float:
    target = of.target[of.held_out]
    return float(1.0 - np.square(target - said(weights, of)).mean() / np.square(target).mean())


def test_the_head_sees_the_last_hidden_state_and_the_newest_row() -> None:
    rows = np.random.default_rng(3).normal(size=(400, FEATURES))
    ends = np.array([300, 7, 8, 399, *range(20, 160)])
    scaled = (rows - WEIGHTS["scaler/mean"]) / WEIGHTS["scaler/scale"]
    cut = np.stack([scaled[end - LOOKBACK + 1 : end + 1] for end in ends])
    seen = Lstm(WEIGHTS, LOOKBACK).head_inputs(rows, ends)
    wanted = np.concatenate([hidden_states(WEIGHTS, cut), cut[:, -1]], axis=1)
    np.testing.assert_allclose(seen, wanted, atol=1e-5)


def test_a_mean_that_can_be_learnt_is_found() -> None:
    made = learn_mean(PLAIN, windows(0.5), SETTINGS)
    assert r2(made, windows(0.5, seed=1)) == pytest.approx(0.2, abs=0.03)
    assert {name: array.dtype for name, array in made.items()} == dict.fromkeys(
        WEIGHTS, np.dtype(np.float32)
    )
    assert all(same_bits(made[name], PLAIN[name]) for name in PLAIN)


def test_what_does_not_hold_out_of_sample_is_exactly_zero() -> None:
    """And goes through what follows without a warning."""
    made = learn_mean(PLAIN, of := windows(0.5, -0.5), SETTINGS)
    assert not made["mean/kernel"].any()
    assert not made["mean/bias"].any()
    found = said(made, of)
    assert not found.any()
    assert worth(found * of.target[of.held_out], found**2, 12) == Worth(0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_on_noise_the_mean_is_next_to_nothing(seed: int) -> None:
    made = learn_mean(PLAIN, windows(0.0, seed=seed), SETTINGS)
    assert r2(made, windows(0.0, seed=seed + 100)) > -0.015
    assert np.square(said(made, windows(0.0, seed=seed + 100))).mean() < 0.015


def test_a_mean_follows_a_signal_that_turns_round() -> None:
    champion = learn_mean(PLAIN, windows(0.5), SETTINGS)
    turned = windows(-0.5, seed=1)
    assert r2(champion, turned) < -0.5
    tuned = learn_mean(champion, turned, SETTINGS)
    assert r2(tuned, windows(-0.5, seed=2)) == pytest.approx(0.2, abs=0.03)


def test_a_mean_that_is_as_good_as_can_be_stays_to_the_last_bit() -> None:
    champion = learn_mean(PLAIN, windows(0.5), SETTINGS)
    again = learn_mean(champion, windows(-0.5, 0.5, seed=1), SETTINGS)
    assert all(same_bits(again[name], champion[name]) for name in champion)


def test_little_evidence_changes_a_known_mean_little() -> None:
    champion = learn_mean(PLAIN, windows(0.5), SETTINGS)
    few = windows(0.4, seed=1)
    few = few._replace(train=few.train[:30])
    assert r2(learn_mean(champion, few, SETTINGS), windows(0.5, seed=2)) > 0.15


def test_columns_that_say_nothing_get_no_coefficient() -> None:
    """One that is always zero, and one that hardly moved while it was learnt from."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2_000, 4)).astype(np.float32)
    inputs[:, 1], inputs[:, 2] = 0.0, 1e-7 * inputs[:, 2]
    target = 0.5 * inputs[:, 0] + random.normal(size=2_000)
    halves = [Moments.of(inputs[half::2], target[half::2]) for half in (0, 1)]
    found = fitted(*halves, np.zeros(5))
    assert found[1] == 0.0
    assert abs(found[2]) < 0.1
    assert found[0] == pytest.approx(0.5, abs=0.1)


def test_the_moments_are_those_of_all_windows_at_once() -> None:
    random = np.random.default_rng(0)
    inputs, target = random.normal(size=(5_000, 60)).astype(np.float32), random.normal(size=5_000)
    whole = np.column_stack([inputs.astype(np.float64), np.ones(5_000)])
    found = Moments.of(inputs, target)
    np.testing.assert_allclose(found.gram, whole.T @ whole / 5_000, atol=1e-12)
    np.testing.assert_allclose(found.moment, whole.T @ target / 5_000, atol=1e-12)


def test_of_many_windows_some_are_drawn_the_same_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mean, "MOST_WINDOWS", 700)
    one, two = (learn_mean(PLAIN, windows(0.5), SETTINGS) for _ in range(2))
    assert all(same_bits(one[name], two[name]) for name in one)
    other = learn_mean(PLAIN, windows(0.5), SETTINGS.model_copy(update={"seed": 2}))
    assert not same_bits(one["mean/kernel"], other["mean/kernel"])
    assert r2(one, windows(0.5, seed=1)) > 0.15
