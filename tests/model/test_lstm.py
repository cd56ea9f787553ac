"""The serving LSTM computes what it should, and the same bits in any company."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from lstm_reference import Weights, random_weights, reference_quantiles
from places import ROOT, TESTS
from series import same_bits

from lstm_model.errors import StoreError
from lstm_model.model.lstm import Lstm

FEATURES, LEVELS = 16, 7


def make_rows(count: int = 700, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES))


def make_lstm(units: int = 8, lookback: int = 12, levels: int = LEVELS, layers: int = 2) -> Lstm:
    return Lstm(random_weights(FEATURES, units, levels, layers=layers), lookback)


@pytest.mark.parametrize(
    ("units", "levels", "layers"),
    [(4, 3, 1), (8, 7, 2), (8, 7, 4), (50, 7, 2), (50, 5, 2), (51, 3, 3), (100, 7, 1)],
)
def test_it_equals_the_reference(units: int, levels: int, layers: int) -> None:
    weights = random_weights(FEATURES, units, levels, layers=layers, seed=units)
    rows, ends = make_rows(50), np.arange(19, 50)
    got = Lstm(weights, 20).predict(rows, ends)
    wanted = reference_quantiles(weights, rows, ends, 20)
    assert (got.shape, got.dtype) == ((31, levels), np.float64)
    np.testing.assert_allclose(got, wanted, rtol=0.0, atol=1e-5)


def alone(lstm: Lstm, rows: np.ndarray, end: int) -> np.ndarray:
    return lstm.predict(rows, np.array([end]))[0]


@pytest.mark.parametrize(
    ("units", "levels"),
    [(4, 3), (8, 7), (20, 3), (20, 5), (50, 3), (50, 7), (51, 7), (64, 7)],
)
def test_a_window_alone_has_the_bits_it_has_among_hundreds(units: int, levels: int) -> None:
    rows, lookback = make_rows(), 12
    lstm = make_lstm(units, lookback, levels)
    ends = np.arange(lookback - 1, len(rows))
    many = lstm.predict(rows, ends)
    edges = [0, 1, 2, 3, 126, 127, 128, 129, 130, 131, 255, 256, 257, len(ends) - 2, len(ends) - 1]
    for number in [*edges, *range(5, len(ends), 31)]:
        assert same_bits(alone(lstm, rows, int(ends[number])), many[number]), number


@pytest.mark.lengthy
@pytest.mark.parametrize("units", [88, 89, 100, 120, 200, 256])
def test_wide_layers_too_have_the_same_bits_alone_and_among_many(units: int) -> None:
    rows, lookback = make_rows(150), 8
    lstm = make_lstm(units, lookback)
    many = lstm.predict(rows, np.arange(7, 150))
    for end in (7, 8, 9, 50, 134, 135, 149):
        assert same_bits(alone(lstm, rows, end), many[end - 7])


# Processors that OpenBLAS has kernels of its own for, and what a machine needs to run them.
KERNELS = {"Prescott": "sse3", "Nehalem": "sse4_2", "Sandybridge": "avx", "Haswell": "avx2",
           "SkylakeX": "avx512bw"}  # fmt: skip
ALONE_AND_AMONG = """
import numpy as np
from lstm_model.model.lstm import Lstm
from lstm_reference import random_weights

random = np.random.default_rng(0)
for units in (8, 24, 25, 50):
    lstm, rows = Lstm(random_weights(19, units, 7), 12), random.normal(size=(300, 19))
    many = lstm.predict(rows, np.arange(11, 300))
    windows = np.stack([rows[end - 11 : end + 1] for end in range(11, 300)])
    assert np.array_equal(lstm.predict_windows(windows), many), units
    for end in (11, 12, 20, 137, 138, 299):
        assert np.array_equal(lstm.predict(rows, np.array([end]))[0], many[end - 11]), units
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_window_has_the_same_bits_alone_and_among_many_on_other_processors(kernel: str) -> None:
    known = Path("/proc/cpuinfo")
    if not known.is_file() or KERNELS[kernel] not in known.read_text():
        pytest.skip(f"this processor cannot run the kernels of {kernel}")
    paths = os.pathsep.join([str(TESTS), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", ALONE_AND_AMONG], capture_output=True, text=True, check=False,
        env={**os.environ, "OPENBLAS_CORETYPE": kernel, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("units", [8, 50, 100])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 127, 128, 129, 300])
def test_windows_of_many_pairs_have_the_bits_of_each_alone(units: int, count: int) -> None:
    lstm, rows = make_lstm(units, 8), make_rows()
    windows = np.stack([rows[start : start + 8] for start in range(2, 2 + 2 * 300, 2)])[:count]
    got = lstm.predict_windows(windows)
    assert got.shape == (count, LEVELS)
    for number in {0, 1, 2, count // 2, 126, 127, 128, count - 1} & set(range(count)):
        assert same_bits(got[number], alone(lstm, windows[number], 7))


@pytest.mark.parametrize("units", [8, 50])
def test_company_position_and_gaps_do_not_matter(units: int) -> None:
    rows, random = make_rows(), np.random.default_rng(2)
    lstm = make_lstm(units)
    whole = lstm.predict(rows, np.arange(11, 700))
    for count in (1, 2, 5, 60, 300):
        ends = np.sort(random.choice(np.arange(11, 700), count, replace=False))
        assert same_bits(lstm.predict(rows, ends), whole[ends - 11])
        start = int(random.integers(0, ends[0] - 11 + 1))
        assert same_bits(lstm.predict(rows[start:], ends - start), whole[ends - 11])


@pytest.mark.lengthy
def test_the_default_size_has_the_same_bits_live_and_in_bulk() -> None:
    lstm, rows = make_lstm(50, 60), make_rows(2_400)
    many = lstm.predict(rows, np.arange(59, 2_400))
    for end in (59, 60, 186, 187, 188, 1_000, 2_398, 2_399):
        live = rows[max(0, end - 315) : end + 1]
        assert same_bits(alone(lstm, live, len(live) - 1), many[end - 59])


@pytest.mark.parametrize("units", [8, 50])
@pytest.mark.parametrize("layers", [1, 2])
def test_step_by_step_equals_the_window(units: int, layers: int) -> None:
    lstm, rows = make_lstm(units, layers=layers), make_rows(12)
    state = lstm.initial_state()
    for row in rows:
        last = lstm.step(state, row[None])
    np.testing.assert_allclose(last[0], alone(lstm, rows, 11), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_on_a_kept_state_equals_the_window_for_many_series(layers: int) -> None:
    lstm, count = make_lstm(50, layers=layers), 9
    windows = np.stack([make_rows(12, seed=seed) for seed in range(count)])
    kept = lstm.state_after(windows[:, :-1])
    wanted = lstm.predict_windows(windows)
    made = lstm.step(kept.rows(range(count)), windows[:, -1])
    np.testing.assert_allclose(made, wanted, rtol=0.0, atol=1e-6)
    some = [7, 2, 3]
    few = lstm.step(kept.rows(some), windows[some, -1])
    assert same_bits(few, made[some])


@pytest.mark.lengthy
@pytest.mark.parametrize("layers", [1, 2])
def test_threads_that_serve_with_one_network_at_once_get_the_same_bits(layers: int) -> None:
    lstm, rows = make_lstm(24, layers=layers), make_rows()
    windows = np.stack([rows[start : start + 12] for start in range(100)])

    def serve(number: int) -> bytes:
        state = lstm.state_after(windows[:3, :-1])
        made = [
            lstm.predict(rows, np.array([11 + number])), lstm.predict_windows(windows),
            lstm.step(state, windows[:3, -1]), lstm.predict(rows, np.arange(11, 700)),
        ]  # fmt: skip
        return b"".join(part.tobytes() for part in made)

    numbers = [number % 2 for number in range(40)]
    wanted = [serve(0), serve(1)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(serve, numbers)) == [wanted[number] for number in numbers]


def test_more_sizes_than_a_thread_keeps_memory_for_do_not_disturb_each_other() -> None:
    lstm, rows = make_lstm(8), make_rows()
    wanted = lstm.predict(rows, np.arange(11, 60))
    for count in (*range(1, 30), *range(29, 0, -1)):
        assert same_bits(lstm.predict(rows, np.arange(11, 11 + count)), wanted[:count])


def test_a_copied_state_leaves_the_original_alone() -> None:
    lstm, rows = make_lstm(), make_rows(12)
    state = lstm.initial_state()
    for row in rows[:6]:
        lstm.step(state, row[None])
    probe = state.copy()
    first = lstm.step(probe, rows[6:7])
    lstm.step(probe, rows[7:8])
    assert same_bits(lstm.step(state, rows[6:7]), first)


def test_quantiles_rise() -> None:
    assert (np.diff(make_lstm().predict(make_rows(), np.arange(11, 700))) >= 0.0).all()


def test_the_future_and_rows_before_the_window_do_not_matter() -> None:
    lstm, rows = make_lstm(), make_rows(60)
    other = rows.copy()
    other[:29], other[41:] = 99.0, np.nan
    assert same_bits(alone(lstm, rows, 40), alone(lstm, other, 40))
    other[29] = 5.0
    assert not same_bits(alone(lstm, rows, 40), alone(lstm, other, 40))


def test_unknown_rows_elsewhere_spoil_nothing() -> None:
    lstm, rows = make_lstm(), make_rows(60)
    holed = rows.copy()
    holed[25] = np.nan
    ends = np.array([20, 24, 37, 50])
    assert same_bits(lstm.predict(holed, ends), lstm.predict(rows, ends))


def test_nothing_to_forecast_gives_nothing() -> None:
    assert make_lstm().predict(make_rows(20), np.empty(0, np.int64)).shape == (0, LEVELS)


def test_predicting_changes_neither_rows_nor_weights() -> None:
    weights, rows = random_weights(FEATURES, 8, LEVELS), make_rows(40)
    for array in weights.values():
        array.flags.writeable = False
    rows.flags.writeable = False
    lstm = Lstm(weights, 12)
    assert same_bits(lstm.predict(rows, np.arange(11, 40)), lstm.predict(rows, np.arange(11, 40)))


NAMES = sorted(random_weights(FEATURES, 8, LEVELS))


def refused(weights: Weights) -> None:
    with pytest.raises(StoreError):
        Lstm(weights, 12)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_weight_is_refused(name: str) -> None:
    weights = random_weights(FEATURES, 8, LEVELS)
    del weights[name]
    refused(weights)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, -1])
def test_a_weight_of_wrong_size_is_refused(name: str, axis: int) -> None:
    weights = random_weights(FEATURES, 8, LEVELS)
    weights[name] = np.concatenate([weights[name]] * 2, axis=axis)
    refused(weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_without_axes_is_refused(name: str) -> None:
    refused({**random_weights(FEATURES, 8, LEVELS), name: np.float32(1.0).reshape(())})


def test_a_network_without_layers_is_refused() -> None:
    weights = random_weights(FEATURES, 8, LEVELS)
    refused({name: array for name, array in weights.items() if not name.startswith("lstm_")})
