"""The mean is found where there is one, turns with its market, and is exactly zero elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from lstm_reference import random_weights
from series import same_bits

from lstm_model.model.gate import Worth, worth
from lstm_model.model.lstm import Lstm
from lstm_model.model.mean import Moments, Windows, fitted, learn_mean
from lstm_model.model.weights import numbered

FEATURES, UNITS, LOOKBACK, COUNT = 5, 4, 8, 3_000
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


def test_a_mean_that_can_be_learnt_is_found() -> None:
    made = learn_mean(PLAIN, windows(0.5))
    assert r2(made, windows(0.5, seed=1)) == pytest.approx(0.2, abs=0.03)
    assert {name: array.dtype for name, array in made.items()} == dict.fromkeys(
        WEIGHTS, np.dtype(np.float32)
    )
    assert all(same_bits(made[name], PLAIN[name]) for name in PLAIN)


def test_what_does_not_hold_out_of_sample_is_exactly_zero() -> None:
    """And goes through what follows without a warning."""
    made = learn_mean(PLAIN, of := windows(0.5, -0.5))
    assert not made["mean/kernel"].any()
    assert not made["mean/bias"].any()
    found = said(made, of)
    assert not found.any()
    assert worth(found * of.target[of.held_out], found**2, 12) == Worth(0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_on_noise_the_mean_is_next_to_nothing(seed: int) -> None:
    made = learn_mean(PLAIN, windows(0.0, seed=seed))
    assert r2(made, windows(0.0, seed=seed + 100)) > -0.015
    assert np.square(said(made, windows(0.0, seed=seed + 100))).mean() < 0.015


def test_a_mean_follows_a_signal_that_turns_round() -> None:
    champion = learn_mean(PLAIN, windows(0.5))
    turned = windows(-0.5, seed=1)
    assert r2(champion, turned) < -0.5
    tuned = learn_mean(champion, turned)
    assert r2(tuned, windows(-0.5, seed=2)) == pytest.approx(0.2, abs=0.03)


def test_a_mean_that_is_as_good_as_can_be_stays_to_the_last_bit() -> None:
    champion = learn_mean(PLAIN, windows(0.5))
    again = learn_mean(champion, windows(-0.5, 0.5, seed=1))
    assert all(same_bits(again[name], champion[name]) for name in champion)


def test_little_evidence_changes_a_known_mean_little() -> None:
    champion = learn_mean(PLAIN, windows(0.5))
    few = windows(0.4, seed=1)
    few = few._replace(train=few.train[:30])
    assert r2(learn_mean(champion, few), windows(0.5, seed=2)) > 0.15


def test_columns_that_say_nothing_get_no_coefficient() -> None:
    """One that is always zero, and one that hardly moved while it was learnt from."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2_000, 4)).astype(np.float32)
    inputs[:, 1], inputs[:, 2] = 0.0, 1e-7 * inputs[:, 2]
    target = 0.5 * inputs[:, 0] + random.normal(size=2_000)
    parts = [Moments.of(inputs[part::4], target[part::4]) for part in range(4)]
    found = fitted(parts[1:], parts[0], np.zeros(5))
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


def test_blocks_are_of_time_whatever_the_order_of_rows() -> None:
    dates = np.array([5, 1, 3, 4, 2, 0, 9, 8, 7, 6])
    of = Windows(np.zeros((10, 1)), np.zeros(10), np.arange(10), np.arange(0), dates)
    assert [sorted(dates[block].tolist()) for block in of.blocks()] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9]
    ]  # fmt: skip


def test_blocks_hold_nothing_that_was_known_after_the_next_began() -> None:
    dates = np.arange(20)
    of = Windows(np.zeros((20, 1)), np.zeros(20), dates, np.arange(0), dates, dates + 2)
    assert [block.tolist() for block in of.blocks()] == [
        [0, 1, 2], [4, 5, 6], [8, 9, 10], [12, 13, 14], [16, 17, 18, 19]
    ]  # fmt: skip


def test_a_horizon_longer_than_the_blocks_leaves_the_mean_as_it_is() -> None:
    """Purging leaves the last block alone; warnings are errors here."""
    dates = np.arange(COUNT)
    of = windows(0.5)._replace(date_ms=dates, label_ms=dates + COUNT)
    assert [len(block) > 0 for block in of.blocks()] == [False] * 4 + [True]
    assert not learn_mean(PLAIN, of)["mean/kernel"].any()


def test_what_turns_round_from_block_to_block_is_not_believed() -> None:
    """Although the block held out speaks for it."""
    of = windows(0.5)
    turning = np.where(np.arange(COUNT) // 150 % 2, 1.0, -1.0)
    turning[COUNT // 2 :] = 1.0
    of = of._replace(target=0.5 * turning * of.rows[:, 2] + of.target - 0.5 * of.rows[:, 2])
    made = learn_mean(PLAIN, of)
    assert np.abs(made["mean/kernel"]).max() < 0.1


def test_all_members_have_the_same_mean() -> None:
    both = {**PLAIN, **numbered({n: a for n, a in PLAIN.items() if n[:6] != "scaler"}, 2)}
    made = learn_mean(both, windows(0.5))
    assert made["mean/kernel"].any()
    assert same_bits(made["mean/kernel"], made["2/mean/kernel"])
