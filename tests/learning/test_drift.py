"""Drift is found within days, false alarms come months apart, and a restart changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.errors import DataError
from lstm_model.learning.drift import (
    _HOLD,
    _THRESHOLD,
    Cusum,
    Detector,
    DriftWatch,
    misses,
    residuals,
)
from lstm_model.market.candles import Floats

RATE = 0.1
EDGE = 1.645  # deviations: the end of an interval that holds nine outcomes of ten
BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"
Build = Callable[[list[float] | None], Cusum]

# Each detector, and what alarms it at once.
DETECTORS: dict[str, tuple[Build, float]] = {
    "residuals": (residuals, 3.0),
    "residuals, downwards": (residuals, -3.0),
    "misses": (lambda state: misses(RATE, state), 1.0),
    "misses of a narrow interval": (lambda state: misses(0.5, state), 1.0),
}
every_detector = pytest.mark.parametrize(("build", "drift"), DETECTORS.values(), ids=DETECTORS)


def outcomes(
    random: np.random.Generator, labels: int, pairs: int = 1, *, scale: float = 1.0,
    shift: float = 0.0,
) -> Floats:  # fmt: skip
    """(labels, pairs) residuals: Student t5, pairs correlated by 0.6, one of ten beyond `EDGE`."""
    common = np.sqrt(0.6) * random.normal(size=(labels, 1))
    both = common + np.sqrt(0.4) * random.normal(size=(labels, pairs))
    tails = np.sqrt(5.0 / random.chisquare(5, size=(labels, pairs)))
    return np.asarray(scale * both * tails / 1.225 + shift)


def feed(watch: DriftWatch, row: list[float]) -> None:
    for number, residual in enumerate(row):
        watch.update(f"P{number}/USDT", residual, abs(residual) > EDGE)


def false_alarms(series: Floats) -> int:
    watch, found = DriftWatch(RATE), 0
    for row in series.tolist():
        feed(watch, row)
        if watch.drift_detected:
            found += 1
            watch.reset()
    return found


def wait(before: Floats, after: Floats) -> int:
    """Labels of `after` until the alarm."""
    watch = DriftWatch(RATE)
    for row in before.tolist():
        feed(watch, row)
        if watch.drift_detected:
            watch.reset()
    for count, row in enumerate(after.tolist(), 1):
        feed(watch, row)
        if watch.drift_detected:
            return count
    return len(after)


def waits(pairs: int, scale: float, shift: float) -> Floats:
    random = np.random.default_rng(pairs)
    return np.array(
        [
            wait(
                outcomes(random, 50, pairs),
                outcomes(random, 300, pairs, scale=scale, shift=shift),
            )
            for _ in range(60)
        ]
    )


def ring(watch: DriftWatch, *pairs: str) -> None:
    for _ in range(8):
        for pair in pairs:
            watch.update(pair, 0.0, True)


def calm(watch: DriftWatch, *pairs: str, labels: int = 1) -> None:
    for _ in range(labels):
        for pair in pairs:
            watch.update(pair, 0.0, False)


@every_detector
def test_a_detector_is_silent_at_first_and_rings_on_drift(build: Build, drift: float) -> None:
    detector: Detector = build(None)
    assert not detector.drift_detected
    for _ in range(30):
        detector.update(drift)
    assert detector.drift_detected


@every_detector
def test_an_alarm_ends_a_while_after_its_cause(build: Build, drift: float) -> None:
    detector = build(None)
    for _ in range(1_000):  # however long it lasted
        detector.update(drift)
    for _ in range(_HOLD - 1):
        detector.update(0.0)
    assert detector.drift_detected
    detector.update(0.0)
    assert not detector.drift_detected


@every_detector
@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_teaches_nothing(build: Build, drift: float, nothing: float) -> None:
    detector = build(None)
    detector.update(drift)
    before = detector.state()
    for _ in range(100):
        detector.update(nothing)
    assert detector.state() == before


@every_detector
@given(numbers=st.lists(st.floats(-5.0, 5.0), max_size=60), cut=st.integers(0, 60))
def test_a_restored_detector_continues(
    build: Build, drift: float, numbers: list[float], cut: int
) -> None:
    numbers = [float(x > 0) for x in numbers] if drift == 1.0 else numbers
    whole, first = build(None), build(None)
    for x in numbers:
        whole.update(x)
    for x in numbers[:cut]:
        first.update(x)
    second = build(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert second.drift_detected == first.drift_detected
    for x in numbers[cut:]:
        second.update(x)
    assert second.state() == whole.state()


@every_detector
@pytest.mark.parametrize("state", [[], [0.0] * 9, [0.0, math.nan, 0.0], ["a", "b", "c"]])
def test_a_damaged_state_is_refused(build: Build, drift: float, state: list[float]) -> None:
    with pytest.raises(DataError, match="the state of a detector must be"):
        build(state)


@given(st.lists(st.floats(-1e300, 1e300), max_size=40))
def test_a_residual_chart_treats_both_directions_alike(numbers: list[float]) -> None:
    up, down = residuals(), residuals()
    for x in numbers:
        up.update(x)
        down.update(-x)
    (*sums, quiet), (*mirrored, same) = up.state(), down.state()
    assert (sums, quiet) == (mirrored[::-1], same)


def test_one_wild_residual_is_no_alarm() -> None:
    detector = residuals()
    for _ in range(3):
        detector.update(1e12)
    assert not detector.drift_detected


def test_fewer_misses_than_promised_are_no_drift() -> None:
    detector = misses(0.5)
    for _ in range(1_000):
        detector.update(0.0)
    assert not detector.drift_detected


@pytest.mark.parametrize(("rate", "drifted"), [(0.1, 0.3), (0.5, 0.794)])
def test_the_miss_chart_sums_log_likelihood_ratios(rate: float, drifted: float) -> None:
    detector = misses(rate)
    ratios = math.log(drifted / rate), math.log((1.0 - drifted) / (1.0 - rate))
    for x in (1.0, 1.0, 1.0, 0.0):
        detector.update(x)
    assert detector.state()[0] == pytest.approx(3.0 * ratios[0] + ratios[1], abs=0.01)


def test_the_residual_chart_sums_log_likelihood_ratios() -> None:
    detector = residuals()
    for x in (2.0, 1.0):
        detector.update(x)
    ratio = sum((x**2 - (x - 0.5) ** 2) / 2.0 for x in (2.0, 1.0))
    assert detector.state()[0] == pytest.approx(ratio)
    assert ratio < _THRESHOLD


@pytest.mark.lengthy
def test_one_pair_gives_a_false_alarm_less_than_once_in_two_thousand_labels() -> None:
    found = false_alarms(outcomes(np.random.default_rng(0), 60_000))
    assert 3 <= found <= 30  # none at all would mean that nothing is watched


@pytest.mark.lengthy
def test_many_pairs_give_a_false_alarm_no_oftener_than_one() -> None:
    assert false_alarms(outcomes(np.random.default_rng(0), 8_000, 8)) <= 4


@pytest.mark.parametrize(
    ("pairs", "scale", "shift", "allowed"),
    [(1, 1.7, 0.0, 50), (1, 1.0, 0.5, 60), (2, 1.7, 0.0, 60), (8, 1.7, 0.0, 30), (8, 1.0, 0.5, 45)],
)
def test_drift_is_found_within_days(pairs: int, scale: float, shift: float, allowed: int) -> None:
    found = waits(pairs, scale, shift)
    assert 5 < found.mean() < allowed


@pytest.mark.parametrize(("pairs", "wanted"), [(1, 1), (2, 2), (3, 2), (8, 2), (9, 3), (12, 3)])
def test_a_quarter_of_the_pairs_but_two_at_least_must_agree(pairs: int, wanted: int) -> None:
    watch = DriftWatch(RATE)
    names = [f"P{number}/USDT" for number in range(pairs)]
    calm(watch, *names)
    for ringing, name in enumerate(names, 1):
        ring(watch, name)
        assert watch.drift_detected == (ringing >= wanted)


def test_a_pair_with_two_alarms_counts_once() -> None:
    watch = DriftWatch(RATE)
    calm(watch, BTC, ETH)
    for _ in range(10):
        watch.update(BTC, 3.0, True)
    assert not watch.drift_detected
    assert (
        watch.reason() == f"intervals missed too often on {BTC}; forecasts off to one side on {BTC}"
    )


def test_the_reason_names_what_and_where() -> None:
    watch = DriftWatch(RATE)
    assert watch.reason() == ""
    calm(watch, SOL)
    ring(watch, ETH, BTC)
    assert watch.reason() == f"intervals missed too often on {BTC}, {ETH}"


def test_nothing_is_detected_where_nothing_was_seen() -> None:
    assert not DriftWatch(RATE).drift_detected
    watch = DriftWatch(RATE)
    watch.update(BTC, math.nan, True)
    assert watch.state() == {}


def test_a_reset_starts_anew() -> None:
    watch = DriftWatch(RATE)
    ring(watch, BTC)
    watch.reset()
    assert (watch.drift_detected, watch.reason(), watch.state()) == (False, "", {})


def test_pairs_that_left_have_no_say() -> None:
    watch = DriftWatch(RATE)
    calm(watch, ETH)
    ring(watch, BTC)
    assert not watch.drift_detected
    watch.forget([ETH, "NEVER/SEEN"])
    assert watch.drift_detected
    watch.forget({BTC})
    assert not watch.drift_detected
    assert watch.state() == {}


def test_pairs_that_ring_months_apart_do_not_agree() -> None:
    watch = DriftWatch(RATE)
    calm(watch, BTC, ETH)
    ring(watch, BTC)
    calm(watch, BTC, labels=_HOLD)
    ring(watch, ETH)
    assert not watch.drift_detected


LABEL = st.tuples(st.sampled_from([BTC, ETH, SOL]), st.floats(-4.0, 4.0), st.booleans())


@given(st.lists(LABEL, max_size=80), st.integers(0, 80))
def test_a_restored_watch_continues(labels: list[tuple[str, float, bool]], cut: int) -> None:
    whole, first = DriftWatch(RATE), DriftWatch(RATE)
    for label in labels:
        whole.update(*label)
    for label in labels[:cut]:
        first.update(*label)
    second = DriftWatch(RATE, json.loads(json.dumps(first.state(), allow_nan=False)))
    for label in labels[cut:]:
        second.update(*label)
    assert second.state() == whole.state()
    assert (second.drift_detected, second.reason()) == (whole.drift_detected, whole.reason())


@pytest.mark.parametrize(
    "state", [{BTC: 3}, {BTC: {"width": [0.0]}}, {BTC: {"mean": [0.0]}}, {BTC: {"mean": 3}}]
)
def test_a_damaged_watch_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(DataError, match="the state of a"):
        DriftWatch(RATE, state)
