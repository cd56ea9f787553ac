"""Coverage is told overall and where it is worst; a plain slow computation agrees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.model.forecast import winkler_score
from lstm_model.model.reliability import (
    WINDOW,
    Kept,
    Reliability,
    constant_interval,
    ewma_interval,
    line,
)

FIELDS = [field.name for field in dataclasses.fields(Reliability)]


def made(count: int, pairs: int, seed: int, ties: bool = False) -> list[np.ndarray]:
    """(N,) low, high, realized, volatility and pair number; the pairs' rows stand mixed."""
    random = np.random.default_rng(seed)
    volatility = np.exp(random.normal(size=count))
    volatility = np.round(volatility) + 1.0 if ties else volatility
    middle = random.normal(size=count)
    realized = middle + volatility * random.standard_t(4, count)
    return [middle - 1.6, middle + 1.6, realized, volatility, random.integers(0, pairs, count)]


def same(one: Reliability, other: Reliability) -> None:
    for name in FIELDS:
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True), name


def slow_worst_quintile(rows: list[np.ndarray]) -> float:
    inside: list[list[bool]] = [[] for _ in range(5)]
    for pair in set(rows[4].tolist()):
        mine = [row for row in zip(*rows, strict=True) if row[4] == pair]
        mine.sort(key=lambda row: row[3])
        for place, (low, high, realized, _, _) in enumerate(mine):
            inside[int(place * 5 / len(mine))].append(bool(low <= realized <= high))
    return min(sum(part) / len(part) for part in inside if part)


def slow_worst_window(rows: list[np.ndarray]) -> float:
    shares = []
    for pair in set(rows[4].tolist()):
        mine = [row[0] <= row[2] <= row[1] for row in zip(*rows, strict=True) if row[4] == pair]
        shares += [np.mean(mine[end - WINDOW : end]) for end in range(WINDOW, len(mine) + 1)]
    return float(min(shares, default=np.nan))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 900), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_it_equals_a_plain_slow_computation(count: int, pairs: int, seed: int, ties: bool) -> None:
    rows = made(count, pairs, seed, ties)
    low, high, realized, volatility, groups = rows
    found = Reliability.of(low, high, realized, volatility, 0.9, groups=groups)
    assert (found.count, found.level) == (count, 0.9)
    inside = (low <= realized) & (realized <= high)
    if not count:
        assert np.isnan([found.coverage, found.winkler, found.width]).all()
        return
    assert found.coverage == inside.mean()
    assert found.winkler == pytest.approx(winkler_score(low, high, realized, 0.9).mean())
    assert found.width == pytest.approx(3.2)
    assert found.worst_window == pytest.approx(slow_worst_window(rows), nan_ok=True)
    if count >= WINDOW:
        assert found.worst_quintile == pytest.approx(slow_worst_quintile(rows))
        assert found.worst_quintile <= found.coverage + 0.01
    else:
        assert np.isnan(found.worst_quintile)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0, 1, 2, 3]), st.sampled_from([np.nan, np.inf]))
def test_rows_that_are_not_known_count_for_nothing(seed: int, column: int, bad: float) -> None:
    rows = made(700, 2, seed)
    unknown = np.random.default_rng(seed).random(700) < 0.3
    whole = [each[~unknown] for each in rows]
    rows[column][unknown] = bad
    found = Reliability.of(*rows[:4], 0.9, groups=rows[4])
    same(found, Reliability.of(*whole[:4], 0.9, groups=whole[4]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(0.001, 1000.0), st.permutations(range(4)))
def test_units_and_the_numbering_of_pairs_do_not_matter(
    seed: int, unit: float, numbers: list[int]
) -> None:
    *rows, groups = made(900, 4, seed)
    found = Reliability.of(*rows, 0.9, groups=groups)
    scaled = [unit * each for each in rows]
    other = Reliability.of(*scaled, 0.9, groups=np.array(numbers)[groups])
    same(dataclasses.replace(found, winkler=unit * found.winkler, width=unit * found.width), other)


def test_without_groups_all_rows_are_of_one_pair() -> None:
    *rows, _ = made(600, 1, 0)
    same(Reliability.of(*rows, 0.9), Reliability.of(*rows, 0.9, groups=np.full(600, 7)))


def test_a_bad_day_is_found_that_the_mean_hides() -> None:
    realized = np.zeros(5_000)
    realized[2_000 : 2_000 + WINDOW] = 9.0
    ones = np.ones(5_000)
    found = Reliability.of(-ones, ones, realized, np.arange(5_000.0) % 7, 0.9)
    assert (found.coverage, found.worst_window) == (0.95, 0.0)
    assert found.worst_quintile > 0.9


def test_a_bad_day_at_either_end_is_found() -> None:
    ones = np.ones(1_000)
    for stretch in (slice(0, WINDOW), slice(1_000 - WINDOW, 1_000)):
        realized = np.zeros(1_000)
        realized[stretch] = 9.0
        assert Reliability.of(-ones, ones, realized, ones, 0.9).worst_window == 0.0


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_the_worst_pair_has_the_worst_window(bad: int) -> None:
    ones, groups = np.ones(3 * WINDOW), np.repeat([0, 1, 2], WINDOW)
    realized = np.where(groups == bad, 9.0, 0.0)
    assert Reliability.of(-ones, ones, realized, ones, 0.9, groups=groups).worst_window == 0.0


def test_a_window_never_spans_two_pairs() -> None:
    ones, realized = np.ones(2 * WINDOW), np.zeros(2 * WINDOW)
    realized[WINDOW // 2 : WINDOW // 2 + WINDOW] = 9.0
    groups = np.repeat([0, 1], WINDOW)
    found = Reliability.of(-ones, ones, realized, ones, 0.9, groups=groups)
    assert found.worst_window == 0.5
    assert np.isnan(
        Reliability.of(*(x[1:-1] for x in (-ones, ones, realized, ones)), 0.9,
                       groups=groups[1:-1]).worst_window
    )  # fmt: skip


def test_wild_hours_are_found_in_each_pair_by_its_own_volatility() -> None:
    random = np.random.default_rng(0)
    volatility = np.tile(random.permutation(100) + 1.0, 10)
    groups = np.repeat([0, 1], 500)
    wild = volatility > 80
    volatility[groups == 1] *= 1_000.0
    ones = np.ones(1_000)
    realized = np.where(wild, 9.0, 0.0)
    assert Reliability.of(-ones, ones, realized, volatility, 0.9).worst_quintile == 0.5
    found = Reliability.of(-ones, ones, realized, volatility, 0.9, groups=groups)
    assert (found.coverage, found.worst_quintile) == (0.8, 0.0)


def test_few_forecasts_are_not_judged_by_their_worst() -> None:
    *rows, _ = made(WINDOW - 1, 1, 0)
    found = Reliability.of(*rows, 0.9)
    assert np.isfinite([found.coverage, found.winkler, found.width]).all()
    assert np.isnan([found.worst_quintile, found.worst_window]).all()
    assert "worst fifth by volatility unknown" in line(found)


def test_nothing_matured_is_said_in_words() -> None:
    none = np.array([])
    assert line(Reliability.of(none, none, none, none, 0.9)) == (
        "90% interval: no forecast has matured"
    )


def test_many_pairs_of_few_rows_are_judged_together() -> None:
    *rows, _ = made(300, 1, 0)
    found = Reliability.of(*rows, 0.9, groups=np.arange(300))
    assert found.worst_quintile == found.coverage
    assert np.isnan(found.worst_window)


def test_the_interval_of_normal_returns_covers_what_it_promises() -> None:
    random = np.random.default_rng(1)
    volatility = np.exp(random.normal(size=100_000))
    realized = volatility * np.sqrt(12) * random.normal(size=100_000)
    for level in (0.5, 0.9):
        low, high = ewma_interval(volatility, 12, level)
        found = Reliability.of(low, high, realized, volatility, level)
        assert found.coverage == pytest.approx(level, abs=0.005)
        assert found.worst_quintile == pytest.approx(level, abs=0.015)
    assert high[0] / volatility[0] == pytest.approx(1.6448536 * np.sqrt(12))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-10.0, 10.0) | st.just(np.nan), min_size=1, max_size=40),
    st.floats(-10.0, 10.0), st.floats(0.0, 10.0), st.sampled_from([0.5, 0.8, 0.9]),
)  # fmt: skip
def test_no_constant_interval_scores_better(
    outcomes: list[float], low: float, width: float, level: float
) -> None:
    realized = np.array(outcomes)
    best = constant_interval(realized, level)
    known = np.isfinite(realized)
    assert all(len(end) == len(realized) for end in best)
    if known.any():
        score = winkler_score(*(end[known] for end in best), realized[known], level).mean()
        other = winkler_score(np.array(low), np.array(low + width), realized[known], level).mean()
        assert score <= other + 1e-9
    else:
        assert np.isnan(best).all()


# What a contender has kept


def kept(count: int, seed: int = 0, first: int = 0) -> Kept:
    random = np.random.default_rng(seed)
    inside = random.integers(0, 3, count) / 2.0  # of two pairs
    return Kept(first + np.arange(count), inside, random.normal(size=count))


def test_a_moment_is_kept_once_and_only_the_newest_are() -> None:
    both = kept(300).then(kept(200, 1, first=200), most=250)
    assert both.date_ms.tolist() == list(range(150, 400))
    assert both.inside[:150].tolist() == kept(300).inside[150:].tolist()
    assert both.inside[150:].tolist() == kept(200, 1).inside[100:].tolist()
    assert Kept.nothing().then(kept(10), most=250).inside.tolist() == kept(10).inside.tolist()
    assert len(kept(10).then(Kept.nothing(), most=250).date_ms) == 10


@settings(max_examples=25, deadline=None)
@given(st.integers(WINDOW, 700), st.integers(0, 99))
def test_the_line_tells_all_the_worst_fifth_and_the_worst_stretch(count: int, seed: int) -> None:
    record = kept(count, seed)
    wildness = sorted(zip(record.log_volatility, record.inside, strict=True))
    parts = np.array_split([inside for _, inside in wildness], 5)
    windows = [record.inside[end - WINDOW : end] for end in range(WINDOW, count + 1)]
    fifth, window = (min(np.mean(part) for part in found) for found in (parts, windows))
    assert record.line() == (
        f"{record.inside.mean():.1%} over {count} candles, {fifth:.1%} in the worst fifth by "
        f"volatility, {window:.1%} in the worst 250"
    )


@pytest.mark.parametrize(
    ("count", "told"), [(0, "unknown over 0 candles"), (249, "over 249 candles")]
)
def test_of_too_few_only_the_whole_is_told(count: int, told: str) -> None:
    assert kept(count).line().endswith(told)
