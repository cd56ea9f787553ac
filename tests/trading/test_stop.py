"""A stop is adverse, never looser than the hard one, and only ever comes closer."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lstm_model.trading.stop import stop_distance, stop_price, tighter

NAN, INF = float("nan"), float("inf")
SIDES = st.sampled_from([1, -1])
PRICES = st.floats(1e-6, 1e6)
EXCURSIONS = st.floats(1e-6, 2.0)
MULTIPLES = st.floats(0.25, 10.0)
HARD = st.floats(0.001, 0.99)


def looser(one: float, other: float, side: int) -> bool:
    return one < other if side > 0 else one > other


@given(PRICES, EXCURSIONS, MULTIPLES, SIDES, HARD)
def test_a_stop_is_never_looser_than_the_hard_one_and_always_adverse(
    close: float, reach: float, multiple: float, side: int, hard: float
) -> None:
    stop = stop_price(close, -side * reach, multiple, side, hard)
    assert stop is not None
    assert not looser(stop, close * (1.0 - side * hard), side)
    assert looser(stop, close, side)
    assert 0.0 < stop_distance(close, stop, side) <= hard * (1.0 + 1e-9)


@given(PRICES, EXCURSIONS, MULTIPLES, SIDES)
def test_a_stop_is_a_multiple_of_the_excursion_away(
    close: float, reach: float, multiple: float, side: int
) -> None:
    stop = stop_price(close, -side * reach, multiple, side, 1e300 if side < 0 else 1.0)
    assert stop == pytest.approx(close * math.exp(-side * multiple * reach))


@given(PRICES, EXCURSIONS, EXCURSIONS, MULTIPLES, MULTIPLES, SIDES, HARD)
def test_a_wider_excursion_or_multiple_never_brings_a_stop_closer(
    close: float, one: float, other: float, few: float, many: float, side: int, hard: float
) -> None:
    (near, far), (few, many) = sorted((one, other)), sorted((few, many))
    close_by = stop_price(close, -side * near, few, side, hard)
    far_off = stop_price(close, -side * far, many, side, hard)
    assert close_by is not None
    assert far_off is not None
    assert not looser(close_by, far_off, side)


@given(PRICES, EXCURSIONS, MULTIPLES)
def test_stops_of_both_sides_mirror_each_other(close: float, reach: float, multiple: float) -> None:
    assume(multiple * reach < 5.0)
    long = stop_price(close, -reach, multiple, 1, 0.999)
    short = stop_price(close, reach, multiple, -1, 1e3)
    assert long is not None
    assert short is not None
    assert math.log(long / close) == pytest.approx(-math.log(short / close), abs=1e-9)


@given(PRICES, HARD)
def test_hard_stops_of_both_sides_are_equally_far(close: float, hard: float) -> None:
    long, short = (stop_price(close, -side * 50.0, 1.0, side, hard) for side in (1, -1))
    assert stop_distance(close, long, 1) == pytest.approx(hard)
    assert stop_distance(close, short, -1) == pytest.approx(hard)


SOUND = (100.0, -0.02, 1.0, 1, 0.05)


@pytest.mark.parametrize("wrong", [NAN, INF, -INF, 0.0])
@pytest.mark.parametrize("place", [0, 1, 2, 4])
@pytest.mark.parametrize("side", [1, -1])
def test_without_a_sound_number_there_is_no_stop_of_ours(
    place: int, wrong: float, side: int
) -> None:
    numbers = [100.0, -side * 0.02, 1.0, side, 0.05]
    assert stop_price(*numbers) is not None  # type: ignore[arg-type]
    numbers[place] = wrong
    assert stop_price(*numbers) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "numbers",
    [
        (100.0, 0.02, 1.0, 1, 0.05), (100.0, -0.02, 1.0, -1, 0.05), (-100.0, -0.02, 1.0, 1, 0.05),
        (100.0, 0.02, -1.0, 1, 0.05), (100.0, -0.02, 1.0, 1, -0.05), (100.0, -0.02, 1.0, 0, 0.05),
        (100.0, -0.02, 1.0, 2, 0.05),
    ],
)  # fmt: skip
def test_an_excursion_to_the_wrong_side_is_no_stop(
    numbers: tuple[float, float, float, int, float],
) -> None:
    assert stop_price(*SOUND) is not None
    assert stop_price(*numbers) is None


def test_an_excursion_beyond_all_numbers_is_stopped_hard() -> None:
    assert stop_price(100.0, 1e5, 1.0, -1, 0.05) == 105.0
    assert stop_price(100.0, -1e5, 1.0, 1, 0.05) == 95.0


@given(st.lists(st.none() | st.just(NAN) | PRICES, max_size=8), SIDES)
def test_a_stop_is_never_moved_away(offers: list[float | None], side: int) -> None:
    steps: list[float | None] = [None]
    for offer in offers:
        steps.append(tighter(steps[-1], offer, side))
    for old, new in itertools.pairwise(steps):
        assert old is None or (new is not None and not looser(new, old, side))
    offered = [offer for offer in offers if offer is not None and not math.isnan(offer)]
    best = (max if side > 0 else min)(offered, default=None)
    assert steps[-1] == best


@given(st.lists(st.tuples(PRICES, EXCURSIONS), min_size=1, max_size=8), MULTIPLES, SIDES, HARD)
def test_a_stop_that_follows_the_candles_only_protects_more(
    candles: list[tuple[float, float]], multiple: float, side: int, hard: float
) -> None:
    stop = None
    for close, reach in candles:
        before, stop = (
            stop,
            tighter(stop, stop_price(close, -side * reach, multiple, side, hard), side),
        )
        assert stop is not None
        assert before is None or not looser(stop, before, side)
        assert not looser(stop, close * (1.0 - side * hard), side)
