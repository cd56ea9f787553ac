"""Intervals and reaches find their widths from matured labels alone; means are shrunk."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import same_bits, slow_noise

from lstm_model.market.candles import Floats
from lstm_model.model.calibration import (
    CAUTION,
    HASTE,
    POOLED,
    RATE,
    STAYS_WITHIN,
    Calibration,
    Label,
    Series,
    Tracked,
    Widths,
    WidthTracker,
    pooled,
    reaches,
    rescale,
)
from lstm_model.model.calibration import track as track_all
from lstm_model.model.dataset import Reached
from lstm_model.model.forecast import coverage
from lstm_model.settings import DEFAULT_LEVELS
from lstm_model.trading.outlook import trust

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
START = Widths.neutral(LEVELS)
GROWN = START._replace(labels=10**6, usual=math.log(0.01))
USUAL = 0.01  # volatility


def labels_of(
    realized: Floats, lowest: float | Floats = np.nan, highest: float | Floats = np.nan,
    volatility: float | Floats = USUAL,
) -> list[Label]:  # fmt: skip
    columns = np.broadcast_arrays(realized, lowest, highest, volatility)
    return [Label(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def series_of(quantiles: Floats, labels: list[Label], start: Widths) -> Series:
    return Series(quantiles, Reached(*np.array(labels).reshape(-1, 4).T), start)


def track(
    levels: tuple[float, ...], quantiles: Floats, labels: list[Label], horizon: int, start: Widths
) -> Tracked:
    """One series alone."""
    return track_all(levels, [series_of(quantiles, labels, start)], horizon)[0]


def normal_rows(count: int, width: float = 1.0) -> Floats:
    return np.tile(width * NORMAL, (count, 1))


def some_labels(count: int, seed: int = 0) -> list[Label]:
    """Labels of all kinds: overlapping nothing, with reaches and a volatility that changes."""
    random = np.random.default_rng(seed)
    realized = random.normal(size=count)
    lowest = np.minimum(realized, 0.0) - random.random(count)
    highest = np.maximum(realized, 0.0) + random.random(count)
    lowest[::7] = np.nan
    return labels_of(realized, lowest, highest, USUAL * np.exp(random.normal(size=count)))


def some_rows(count: int, seed: int = 0) -> Floats:
    return np.sort(np.random.default_rng((seed, 1)).normal(size=(count, 5)))


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("width", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("horizon", [1, 3])
def test_intervals_of_wrong_width_reach_their_coverage(width: float, horizon: int) -> None:
    realized = np.random.default_rng(0).normal(size=12_000)
    quantiles = normal_rows(len(realized), width)
    scales, last = track(LEVELS, quantiles, labels_of(realized), horizon, START)
    calibrated = rescale(quantiles, scales)[6_000:]
    assert coverage(calibrated[:, 0], calibrated[:, 4], realized[6_000:]) == pytest.approx(
        0.9, abs=0.015
    )
    assert coverage(calibrated[:, 1], calibrated[:, 3], realized[6_000:]) == pytest.approx(
        0.5, abs=0.025
    )
    np.testing.assert_allclose(np.exp(last.scales[:2]), 1.0 / width, rtol=0.2)


def covered_by_quintile(width: float, horizon: int) -> tuple[list[float], Widths]:
    """Late coverage in five parts by volatility, where the market moves by its square root alone.

    The forecast, in units of volatility, is then too narrow when it is calm, too wide when wild.
    """
    random = np.random.default_rng(0)
    ratio = np.exp(0.6 * slow_noise(random, 12_000, 0.98))
    realized = np.sqrt(ratio) * random.normal(size=len(ratio))
    quantiles = normal_rows(len(ratio), width)
    labels = labels_of(realized, volatility=USUAL * ratio)
    scales, last = track(LEVELS, quantiles, labels, horizon, START)
    scaled = rescale(quantiles, scales)
    inside = (scaled[:, 0] <= realized) & (realized <= scaled[:, 4])
    order = np.argsort(ratio[6_000:])
    return [float(part.mean()) for part in np.array_split(inside[6_000:][order], 5)], last


@pytest.mark.lengthy
@pytest.mark.parametrize("width", [0.5, 2.0])
@pytest.mark.parametrize("horizon", [1, 3])
def test_intervals_hold_in_calm_and_in_wild_times(width: float, horizon: int) -> None:
    quintiles, last = covered_by_quintile(width, horizon)
    assert quintiles == pytest.approx([0.9] * 5, abs=0.025)
    assert last.slopes[:2] == pytest.approx((0.25, 0.25), abs=0.05)  # half of a log, per 0.5


def test_without_a_slope_they_hold_on_average_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above, against a tracker that knows no tilt."""
    monkeypatch.setattr("lstm_model.model.calibration._TILT_UNIT", math.inf)
    quintiles, last = covered_by_quintile(1.0, 1)
    assert np.mean(quintiles) == pytest.approx(0.9, abs=0.02)
    assert quintiles[0] > 0.97
    assert quintiles[4] < 0.8
    assert not any(last.slopes)


def test_intervals_follow_a_market_that_becomes_wilder() -> None:
    random = np.random.default_rng(1)
    realized = random.normal(size=9_000) * np.repeat([1.0, 2.0], [3_000, 6_000])
    quantiles = normal_rows(len(realized))
    scales, _ = track(LEVELS, quantiles, labels_of(realized), 1, START)
    late = rescale(quantiles, scales)[-3_000:]
    assert coverage(late[:, 0], late[:, 4], realized[-3_000:]) == pytest.approx(0.9, abs=0.02)


# ---------------------------------------------------------------- reaches


@pytest.fixture(scope="module")
def walks() -> tuple[Floats, Floats, Floats]:
    """(N,) each: end, lowest and highest of random walks of 600 steps, of deviation one."""
    random = np.random.default_rng(1)
    paths = random.standard_normal((12_000, 600), dtype=np.float32).cumsum(axis=1) / math.sqrt(600)
    return tuple(x.astype(float) for x in (paths[:, -1], paths.min(axis=1), paths.max(axis=1)))


def passed(scales: Floats, lowest: Floats, highest: Floats) -> list[float]:
    """How often the price went beyond the reach below and above, of the last two thirds."""
    low, high = reaches(normal_rows(len(lowest)), scales)
    late = slice(len(lowest) // 3, None)
    return [float((lowest < low)[late].mean()), float((highest > high)[late].mean())]


def test_a_random_walk_passes_the_neutral_reaches_as_seldom_as_they_promise(
    walks: tuple[Floats, Floats, Floats],
) -> None:
    _, lowest, highest = walks
    in_force = START.at(np.full(len(lowest), USUAL))
    assert pytest.approx(0.05) == 1.0 - STAYS_WITHIN
    assert passed(in_force, lowest, highest) == pytest.approx([0.05, 0.05], abs=0.01)


def test_reaches_learn_the_tails_of_another_market_and_each_side_its_own(
    walks: tuple[Floats, Floats, Floats],
) -> None:
    wild = np.exp(0.6 * np.random.default_rng(2).normal(size=len(walks[0])))
    end, lowest, highest = (column * wild for column in walks)
    lowest = 2.0 * lowest  # it falls by twice as much as it rises
    never = np.tile(START.scales, (len(wild), 1))
    assert min(passed(never, lowest, highest)) > 0.09
    quantiles = normal_rows(len(wild))
    scales, last = track(LEVELS, quantiles, labels_of(end, lowest, highest), 1, START)
    assert passed(scales, lowest, highest) == pytest.approx([0.05, 0.05], abs=0.01)
    assert math.exp(last.scales[2] - last.scales[3]) == pytest.approx(2.0, rel=0.2)


def test_reaches_hold_in_calm_and_in_wild_times(walks: tuple[Floats, Floats, Floats]) -> None:
    ratio = np.exp(0.6 * slow_noise(np.random.default_rng(3), len(walks[0]), 0.98))
    end, lowest, highest = (column * np.sqrt(ratio) for column in walks)
    labels = labels_of(end, lowest, highest, USUAL * ratio)
    scales, last = track(LEVELS, normal_rows(len(ratio)), labels, 1, START)
    for times in np.array_split(np.argsort(ratio[6_000:]) + 6_000, 3):
        low, high = reaches(normal_rows(len(times)), scales[times])
        both = [(lowest[times] < low).mean(), (highest[times] > high).mean()]
        assert both == pytest.approx([0.05, 0.05], abs=0.015)
    assert last.slopes[2:] == pytest.approx((0.25, 0.25), abs=0.12)


ROW = st.lists(st.floats(-5, 5), min_size=5, max_size=5).map(sorted)
SCALES = st.lists(st.floats(-3, 3), min_size=4, max_size=4)


@given(st.lists(ROW, min_size=1, max_size=6), SCALES)
def test_a_reach_down_is_never_above_zero_and_one_up_never_below(
    rows: list[list[float]], scales: list[float]
) -> None:
    quantiles, tiled = np.array(rows), np.tile(scales, (len(rows), 1))
    low, high = reaches(quantiles, tiled)
    assert low.shape == high.shape == (len(rows),)
    assert (low <= 0.0).all()
    assert (high >= 0.0).all()
    down, up = np.exp(scales[2:])
    middle = quantiles[:, 2]
    wanted = np.minimum(0.0, middle - down * (middle - quantiles[:, 0]))
    np.testing.assert_allclose(low, wanted, atol=1e-9)
    wanted = np.maximum(0.0, middle + up * (quantiles[:, 4] - middle))
    np.testing.assert_allclose(high, wanted, atol=1e-9)


@pytest.mark.parametrize("which", ["lowest", "highest", "both"])
def test_an_unknown_way_leaves_the_reaches_alone_and_teaches_the_rest(which: str) -> None:
    unknown = dict.fromkeys(("lowest", "highest") if which == "both" else (which,), math.nan)
    label = Label(3.0, -9.0, 9.0, 2.0 * USUAL)._replace(**unknown)
    tracker, knowing = (WidthTracker(LEVELS, GROWN, horizon=1) for _ in range(2))
    tracker.update(NORMAL.tolist(), label)
    knowing.update(NORMAL.tolist(), label._replace(lowest=-9.0, highest=9.0))
    made, full = tracker.widths, knowing.widths
    assert (made.scales[2:], made.slopes[2:]) == (GROWN.scales[2:], GROWN.slopes[2:])
    assert full.scales[2] > GROWN.scales[2]
    assert full.scales[3] > GROWN.scales[3]
    assert (made.scales[:2], made.slopes[:2]) == (full.scales[:2], full.slopes[:2])
    assert (made.labels, made.usual) == (full.labels, full.usual)


# ---------------------------------------------------------------- what is known when


OUTCOME = st.tuples(st.floats(-5, 5), st.floats(-5, 0), st.floats(0, 5))


@given(st.integers(1, 9), st.integers(0, 39), OUTCOME)
def test_a_label_changes_only_what_comes_a_horizon_later(
    horizon: int, row: int, outcome: tuple[float, float, float]
) -> None:
    quantiles, labels = some_rows(40), some_labels(40)
    other = list(labels)
    other[row] = Label(*outcome, labels[row].volatility)
    before = track(LEVELS, quantiles, labels, horizon, START)[0]
    after = track(LEVELS, quantiles, other, horizon, START)[0]
    assert same_bits(before[: row + horizon], after[: row + horizon])


SURPRISES = {
    "interval": Label(9.0, math.nan, math.nan, USUAL),
    "reach down": Label(0.0, -9.0, 0.0, USUAL),
    "reach up": Label(0.0, 0.0, 9.0, USUAL),
}


@pytest.mark.parametrize("what", SURPRISES)
def test_a_label_does_change_what_comes_a_horizon_later(what: str) -> None:
    before, after = with_surprise(what, horizon=7)
    assert np.flatnonzero((before != after).any(axis=1))[0] == 17
    changed = np.flatnonzero((before != after).any(axis=0)).tolist()
    assert {"interval": 0, "reach down": 2, "reach up": 3}[what] in changed


@pytest.mark.parametrize("what", SURPRISES)
def test_a_planted_early_label_is_caught(what: str) -> None:
    """The check above, against a tracker that learns a label one row too early."""
    before, after = with_surprise(what, horizon=7 - 1)
    assert not same_bits(before[:17], after[:17])


def with_surprise(what: str, horizon: int) -> list[Floats]:
    """Log scales in force without and with a surprise in the eleventh label."""
    calm = labels_of(np.zeros(40), *([np.nan] * 2 if what == "interval" else [0.0] * 2))
    surprised = [*calm[:10], SURPRISES[what], *calm[11:]]
    return [track(LEVELS, normal_rows(40), x, horizon, START)[0] for x in (calm, surprised)]


@given(st.integers(0, 39), st.floats(-2, 2))
def test_the_volatility_of_a_forecast_counts_at_once_and_for_later_ones_when_its_label_is_known(
    row: int, change: float
) -> None:
    quantiles, labels = some_rows(40), some_labels(40)
    other = list(labels)
    other[row] = labels[row]._replace(volatility=USUAL * math.exp(change))
    before = track(LEVELS, quantiles, labels, 5, GROWN)[0]
    after = track(LEVELS, quantiles, other, 5, GROWN)[0]
    known = np.r_[0:row, row + 1 : min(40, row + 5)]
    assert same_bits(before[known], after[known])


@pytest.mark.lengthy
@given(st.integers(1, 30), st.integers(0, 40))
def test_tracking_ends_with_every_label_learnt_once(horizon: int, count: int) -> None:
    quantiles, labels = some_rows(count, count), some_labels(count, count)
    last = track(LEVELS, quantiles, labels, horizon, START)[1]
    tracker = WidthTracker(LEVELS, START, horizon)
    for row, label in zip(quantiles.tolist(), labels, strict=True):
        tracker.update(row, label)
    assert last == tracker.widths
    assert last.labels == count


@given(st.integers(1, 12), st.integers(0, 60))
def test_tracking_in_two_parts_is_tracking_in_one(horizon: int, cut: int) -> None:
    quantiles, labels = some_rows(60, 5), some_labels(60, 5)
    scales, whole = track(LEVELS, quantiles, labels, horizon, START)
    first, half = track(LEVELS, quantiles[:cut], labels[:cut], horizon, START)
    second, last = track(LEVELS, quantiles[cut:], labels[cut:], horizon, half)
    assert last == whole
    assert same_bits(first, scales[:cut])
    if horizon == 1:
        assert same_bits(second[1:], scales[cut + 1 :])


def learnt_plainly(
    quantiles: list[list[float]], labels: list[Label], horizon: int, start: Widths
) -> Widths:
    """The rule written out: one label, one width at a time."""
    count, usual, scales, slopes = start.labels, start.usual, [*start.scales], [*start.slopes]

    def bounded(value: float) -> float:
        return min(3.0, max(-3.0, value))

    for row, (realized, lowest, highest, volatility) in zip(quantiles, labels, strict=True):
        rate = max(RATE / horizon, 1.0 / (count + HASTE * horizon))
        tilt = bounded((math.log(volatility) - usual) / 0.5) if count else 0.0
        factors = [
            math.exp(bounded(scale + slope * tilt))
            for scale, slope in zip(scales, slopes, strict=True)
        ]
        middle, steps = row[2], [0.0] * 4
        for number in range(2):
            side = row[number] if realized < middle else row[4 - number]
            missed = abs(realized - middle) > abs(side - middle) * factors[number]
            steps[number] = rate * (missed - 2.0 * LEVELS[number])
        if math.isfinite(lowest + highest):
            down = min(0.0, middle - (middle - row[0]) * factors[2])
            up = max(0.0, middle + (row[4] - middle) * factors[3])
            steps[2] = 2.0 * rate * ((lowest < down) - (1.0 - STAYS_WITHIN))
            steps[3] = 2.0 * rate * ((highest > up) - (1.0 - STAYS_WITHIN))
        for number, step in enumerate(steps):
            scales[number] = bounded(scales[number] + step)
            slopes[number] = bounded(slopes[number] + step * tilt)
        count += 1
        usual += max(1.0 / 5_000, 1.0 / count) * (math.log(volatility) - usual)
    return Widths(count, usual, tuple(scales), tuple(slopes))


@given(st.integers(1, 12), st.integers(0, 300), st.sampled_from([START, GROWN]))
def test_tracking_follows_the_rule(horizon: int, count: int, start: Widths) -> None:
    rows, labels = 0.1 * some_rows(count, count), some_labels(count, count)
    found = track(LEVELS, rows, labels, horizon, start).widths
    wanted = learnt_plainly(rows.tolist(), labels, horizon, start)
    assert found.labels == wanted.labels
    for name in ("usual", "scales", "slopes"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12
        )


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=5),
    st.integers(1, 12),
)
def test_series_are_tracked_side_by_side_as_each_alone_bit_for_bit(
    kinds: list[tuple[int, bool]], horizon: int
) -> None:
    many = [
        series_of(some_rows(count, seed), some_labels(count, seed), GROWN if grown else START)
        for seed, (count, grown) in enumerate(kinds)
    ]
    together = track_all(LEVELS, many, horizon)
    for found, series in zip(together, many, strict=True):
        [alone] = track_all(LEVELS, [series], horizon)
        assert found.widths == alone.widths
        assert same_bits(found.in_force, alone.in_force)


WIDTHS = st.builds(
    lambda labels, usual, scales, slopes: Widths(labels, usual, tuple(scales), tuple(slopes)),
    st.integers(0, 20_000), st.floats(-9, -2), SCALES, SCALES,
)  # fmt: skip


@given(WIDTHS, st.lists(st.floats(1e-6, 0.5), min_size=1, max_size=9))
def test_widths_say_what_their_tracker_has_in_force(
    widths: Widths, volatilities: list[float]
) -> None:
    tracker = WidthTracker(LEVELS, widths, horizon=4)
    found = widths.at(np.array(volatilities))
    assert found.shape == (len(volatilities), 4)
    for row, volatility in zip(found, volatilities, strict=True):
        assert tracker.in_force(volatility) == row.tolist()
    assert np.abs(found).max() <= 3.0
    assert tracker.widths == widths


@given(WIDTHS)
def test_at_the_usual_volatility_there_is_no_tilt(widths: Widths) -> None:
    found = widths.at(np.exp([widths.usual]))[0]
    np.testing.assert_allclose(found, widths.scales, atol=1e-9)
    young = widths._replace(labels=0).at(np.array([1e-9, 0.5]))
    np.testing.assert_array_equal(young, [widths.scales] * 2)


@pytest.mark.lengthy
def test_the_usual_volatility_is_the_mean_of_logs_and_follows_the_market() -> None:
    logs = np.random.default_rng(0).normal(-5.0, 1.0, size=3_000)
    tracker = WidthTracker(LEVELS, START, horizon=1)
    for label in labels_of(np.zeros(3_000), volatility=np.exp(logs)):
        tracker.update(NORMAL.tolist(), label)
    assert tracker.widths.usual == pytest.approx(logs.mean())
    for label in labels_of(np.zeros(15_000), volatility=math.exp(-3.0)):
        tracker.update(NORMAL.tolist(), label)
    assert -3.2 < tracker.widths.usual < -3.0


# ---------------------------------------------------------------- how fast it learns


@pytest.mark.parametrize("horizon", [1, 12])
def test_of_labels_that_overlap_each_counts_its_share(horizon: int) -> None:
    """Young and grown: as many labels as a horizon teach what one alone teaches."""
    for labels in (0, 10**6):
        alone = WidthTracker(LEVELS, START._replace(labels=labels), 1)
        shared = WidthTracker(LEVELS, START._replace(labels=labels), horizon)
        alone.update(NORMAL.tolist(), Label(9.0, -9.0, 9.0, USUAL))
        for _ in range(horizon):
            shared.update(NORMAL.tolist(), Label(9.0, -9.0, 9.0, USUAL))
        moved, together = (
            np.subtract(tracker.widths.scales, START.scales) for tracker in (alone, shared)
        )
        np.testing.assert_allclose(together, moved, rtol=0.03)
        if labels:
            wanted = [RATE * (1.0 - 2.0 * level) for level in LEVELS[:2]]
            np.testing.assert_allclose(together[:2], wanted)


@pytest.mark.parametrize("horizon", [1, 12])
def test_a_young_pair_learns_faster_and_then_as_slowly_as_the_others(horizon: int) -> None:
    def step(labels: int) -> float:
        tracker = WidthTracker(LEVELS, START._replace(labels=labels), horizon)
        tracker.update(NORMAL.tolist(), Label(9.0, math.nan, math.nan, USUAL))
        return tracker.widths.scales[0] / (1.0 - 2.0 * LEVELS[0])

    last = round(horizon * (1.0 / RATE - HASTE))
    assert step(0) == pytest.approx(1.0 / (HASTE * horizon))
    assert step(last // 2) > step(last - 1) > step(last)
    assert step(last) == pytest.approx(RATE / horizon)
    assert step(last + 1) == step(10**6) == pytest.approx(RATE / horizon)


@pytest.mark.lengthy
def test_widths_stay_finite_whatever_happens() -> None:
    tracker = WidthTracker(LEVELS, START, horizon=1)
    for number in range(3_000):
        tracker.update([0.0] * 5, Label(1e9, -1e9, 1e9, 10.0 ** (number % 9 - 9)))
    assert max(tracker.widths.scales) == 3.0
    for number in range(20_000):
        label = Label(0.0, 0.0, 0.0, 10.0 ** (number % 9 - 9))
        tracker.update([-1e9, -1.0, 0.0, 1.0, 1e9], label)
    assert min(tracker.widths.scales) == -3.0
    assert np.isfinite(tracker.widths.at(np.array([1e-12, 1e6]))).all()


def test_a_pass_of_one_reach_counts_twice_and_leaves_the_other_nearer() -> None:
    """Passes of one side are half as many as misses of both, and so is what can be learnt."""
    for lowest, highest, passed, kept in ((-9.0, 0.0, 2, 3), (0.0, 9.0, 3, 2)):
        tracker = WidthTracker(LEVELS, GROWN, horizon=1)
        tracker.update(NORMAL.tolist(), Label(0.0, lowest, highest, USUAL))
        moved = np.subtract(tracker.widths.scales, GROWN.scales)
        assert moved[passed] == pytest.approx(2.0 * RATE * STAYS_WITHIN)
        assert moved[kept] == pytest.approx(-2.0 * RATE * (1.0 - STAYS_WITHIN))


def test_misses_move_the_slope_to_the_side_they_were_on() -> None:
    for direction in (-1.0, 1.0):
        tracker = WidthTracker(LEVELS, GROWN, horizon=1)
        volatility = USUAL * math.exp(direction)
        tracker.update(NORMAL.tolist(), Label(9.0, -9.0, 9.0, volatility))
        assert all(math.copysign(1.0, slope) == direction for slope in tracker.widths.slopes)
        assert np.abs(tracker.widths.slopes).min() > 0.0


# ---------------------------------------------------------------- scaling


@given(st.lists(ROW, min_size=1, max_size=6), SCALES)
def test_rescaled_quantiles_rise_and_keep_their_median(
    rows: list[list[float]], scales: list[float]
) -> None:
    quantiles = np.array(rows)
    scaled = rescale(quantiles, np.tile(scales, (len(rows), 1)))
    assert (np.diff(scaled, axis=1) >= 0.0).all()
    np.testing.assert_array_equal(scaled[:, 2], quantiles[:, 2])
    each = [rescale(row[None], np.array([scales]))[0] for row in quantiles]
    assert same_bits(scaled, np.array(each))


@given(SCALES)
def test_half_widths_are_scaled_by_the_exponential(scales: list[float]) -> None:
    outer, inner = (math.exp(scale) for scale in scales[:2])
    if outer > inner:
        wanted = [-4 * outer, -1 * inner, 0, 2 * inner, 8 * outer]
        got = rescale(np.array([[-4.0, -1.0, 0.0, 2.0, 8.0]]), np.array([scales]))
        np.testing.assert_allclose(got[0], wanted)


# ---------------------------------------------------------------- new pairs


@given(st.lists(WIDTHS, min_size=1, max_size=5))
def test_the_pooled_widths_are_the_mean_and_have_no_usual_volatility(many: list[Widths]) -> None:
    found = pooled(many)
    np.testing.assert_allclose(found.scales, np.mean([w.scales for w in many], axis=0))
    np.testing.assert_allclose(found.slopes, np.mean([w.slopes for w in many], axis=0))
    assert found.labels == 0
    assert pooled(reversed(many)).scales == pytest.approx(found.scales)


@given(WIDTHS)
def test_caution_widens_everything_alike_and_nothing_beyond_what_tracking_allows(
    widths: Widths,
) -> None:
    made = widths.cautious()
    for before, after in zip(widths.scales, made.scales, strict=True):
        assert after == pytest.approx(min(3.0, before + CAUTION))
        assert before <= after <= 3.0
    assert (made.labels, made.slopes) == (0, widths.slopes)


def test_a_pair_without_a_record_begins_cautiously_and_is_not_trusted() -> None:
    made = calibration()
    new = made.widths_of("NEW/USDT")
    assert new == made.widths[POOLED].cautious()
    assert trust(new.labels, horizon=12) == 0.0
    assert made.widths_of("BTC/USDT") == made.widths["BTC/USDT"]


@given(st.integers(1, 200), st.integers(0, 10**6), st.integers(0, 10**6))
def test_trust_rises_to_one_with_what_was_learnt(horizon: int, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    assert 0.0 <= trust(fewer, horizon) <= trust(more, horizon) <= 1.0
    enough = horizon * round(1.0 / RATE - HASTE)
    assert trust(enough, horizon) == 1.0
    assert trust(enough - 1, horizon) < 1.0
    assert (trust(one, horizon) == 0.0) == (one == 0)


def test_nobody_is_fully_trusted_before_it_learns_as_slowly_as_the_others() -> None:
    tracker, steps, trusted = WidthTracker(LEVELS, START, horizon=3), [], []
    for _ in range(700):
        before = tracker.widths
        trusted.append(trust(before.labels, 3))
        tracker.update(NORMAL.tolist(), Label(0.0, math.nan, math.nan, USUAL))
        steps.append(before.scales[1] - tracker.widths.scales[1])
    slowest = RATE / 3 * 2 * LEVELS[1]
    assert [value == 1.0 for value in trusted] == [
        step == pytest.approx(slowest, rel=1e-6) for step in steps
    ]
    assert all(before <= after for before, after in pairwise(trusted))


def test_a_pair_never_seen_gets_wider_intervals_and_reaches_than_the_pooled_ones() -> None:
    raw, volatility = normal_rows(2), np.array([0.01, 0.09])
    mean = calibration().apply(raw, volatility, 4, POOLED)
    new = calibration().apply(raw, volatility, 4, "NEW/USDT")
    np.testing.assert_allclose((new.high - new.low) / (mean.high - mean.low), math.exp(CAUTION))
    np.testing.assert_allclose(new.lowest / mean.lowest, math.exp(CAUTION))
    np.testing.assert_allclose(new.highest / mean.highest, math.exp(CAUTION))
    known = calibration().apply(raw, volatility, 4, "BTC/USDT")
    assert not same_bits(known.quantiles, mean.quantiles)


# ---------------------------------------------------------------- the forecast


def calibration(shrinkage: float = 0.5, error: float = 0.25) -> Calibration:
    widths = {
        POOLED: Widths(0, 0.0, (0.1, 0.2, 0.3, 0.4), (0.01, 0.02, 0.03, 0.04)),
        "BTC/USDT": Widths(77, math.log(0.02), (-0.3, 1 / 3, 0.1 + 0.2, -1e-17), (0.5, 0, 0, 0.1)),
    }
    return Calibration(LEVELS, shrinkage, error, widths)


def test_a_card_carries_the_calibration_unchanged() -> None:
    made = calibration(0.1 + 0.2, error=1 / 7)
    card = json.loads(json.dumps(made.to_card()))
    again = Calibration.from_card(LEVELS, card)
    assert again == made
    assert [type(widths.labels) for widths in again.widths.values()] == [int, int]


@given(st.dictionaries(st.text(max_size=8), WIDTHS, max_size=4), st.floats(0, 1), st.floats(0, 9))
def test_any_calibration_comes_back_from_its_card(
    widths: dict[str, Widths], shrinkage: float, error: float
) -> None:
    made = Calibration(LEVELS, shrinkage, error, widths)
    assert Calibration.from_card(LEVELS, json.loads(json.dumps(made.to_card()))) == made


@pytest.mark.parametrize("shrinkage", [0.0, 0.4, 1.0])
def test_the_served_mean_is_the_shrunk_mean_and_the_shape_stays(shrinkage: float) -> None:
    raw = np.sort(np.random.default_rng(0).normal(0.5, 1.0, size=(30, 5)))
    location, quantiles = calibration(shrinkage).spread(raw)
    np.testing.assert_allclose(location, shrinkage * raw[:, 2])
    np.testing.assert_allclose(np.diff(quantiles, axis=1), np.diff(raw, axis=1))
    np.testing.assert_allclose(quantiles[:, 2], location, atol=1e-12)


def test_a_forecast_is_in_units_of_the_return_over_the_horizon() -> None:
    raw, unit = normal_rows(2), np.array([0.04, 0.08])
    made = calibration(1.0).apply(raw, np.array([0.02, 0.04]), 4, "BTC/USDT")
    tilt = np.array([0.0, math.log(2.0) / 0.5])
    np.testing.assert_allclose(made.low, NORMAL[0] * np.exp(-0.3 + 0.5 * tilt) * unit)
    np.testing.assert_allclose(made.lowest, NORMAL[0] * np.exp(0.1 + 0.2) * unit)
    np.testing.assert_allclose(made.highest, NORMAL[4] * np.exp(0.1 * tilt) * unit)
    assert (made.levels, made.volatility.tolist()) == (LEVELS, [0.02, 0.04])


@given(shrinkage=st.floats(0, 1), error=st.floats(0, 3), shift=st.floats(-2, 2))
def test_the_error_of_a_mean_is_that_of_its_worth_times_the_raw_mean(
    shrinkage: float, error: float, shift: float
) -> None:
    raw = NORMAL + np.array([[shift], [0.0]])
    made = calibration(shrinkage, error).apply(raw, np.array([0.01, 0.02]), 9, "X")
    np.testing.assert_allclose(made.mean, [shrinkage * shift * 0.03, 0.0], atol=1e-12)
    np.testing.assert_allclose(made.mean_error, [abs(shift) * error * 0.03, 0.0], atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 97])
def test_a_forecast_alone_has_the_bits_it_has_among_others(count: int) -> None:
    random = np.random.default_rng(0)
    raw = np.sort(random.normal(size=(400, len(DEFAULT_LEVELS))))
    volatility = np.exp(random.normal(size=400))
    widths = Widths(9, 0.1, (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1))
    made = Calibration(DEFAULT_LEVELS, 0.7, 0.1, {"BTC/USDT": widths})
    many = made.apply(raw, volatility, 12, "BTC/USDT")
    for start in range(0, 400 - count, 3):
        rows = slice(start, start + count)
        few = made.apply(raw[rows], volatility[rows], 12, "BTC/USDT")
        for name in ("quantiles", "mean", "mean_error", "lowest", "highest", "volatility"):
            assert same_bits(getattr(few, name), getattr(many, name)[rows]), name
