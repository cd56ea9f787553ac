"""A stake stays within every bound and grows with certainty; a stop only ever comes closer."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import fields, replace

import hypothesis
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lstm_model.errors import DataError
from lstm_model.settings import Settings
from lstm_model.trading.own_trades import reduction
from lstm_model.trading.sizing import CALIBRATING, ERROR, NO_EDGE, STALE_STREAM, TOO_SMALL
from lstm_model.trading.stake import (
    ENOUGH_COMMON,
    FREE,
    KELLY,
    LEAST,
    OWN,
    PORTFOLIO,
    RISK,
    Holding,
    Request,
    correlations,
    stake_of,
)
from lstm_model.trading.stop import stop_distance

NAN, INF = float("nan"), float("inf")
MONEY = st.floats(0.0, 1e6)
SHARES = st.floats(0.0, 1.0)
SIDES = st.sampled_from([1, -1])
CORRELATIONS = st.floats(-1.0, 1.0) | st.just(NAN)
SETTINGS = st.builds(
    Settings,
    kelly_fraction=st.floats(0.01, 1.0),
    max_stake_fraction=st.floats(0.01, 1.0),
    risk_fraction=st.floats(0.001, 0.2),
    max_portfolio_fraction=st.floats(0.01, 1.0),
)
HOLDINGS = st.lists(
    st.builds(Holding, st.just("ETH/USDT"), MONEY, SIDES, CORRELATIONS), max_size=3
).map(tuple)
REQUESTS = st.builds(
    Request,
    proposed=MONEY,
    wealth=MONEY,
    free=MONEY | st.just(INF),
    least=st.just(0.0) | st.floats(0.0, 100.0),
    stop_distance=st.floats(1e-4, 2.0),
    kelly=st.none() | st.just(0.0) | st.floats(1e-6, 1e4),
    trust=st.sampled_from([0.0, 1.0]) | SHARES,
    coverage=st.sampled_from([0.0, 1.0]) | SHARES,
    side=SIDES,
    leverage=st.just(1.0) | st.floats(1.0, 20.0),
    holdings=HOLDINGS,
    beyond=st.just(0.0) | st.floats(0.0, 0.1),
    parts=st.integers(1, 5),
    steady=st.just(1.0) | SHARES,
)
PLAIN = Request(
    proposed=300.0, wealth=1000.0, free=900.0, least=10.0, stop_distance=0.02, kelly=2.0, trust=1.0,
    coverage=1.0, side=1, leverage=1.0, holdings=(),
)  # fmt: skip
NUMBERS = [field.name for field in fields(Request) if field.name not in ("side", "holdings")]


def taken(request: Request) -> float:
    """What the open positions count for, computed slowly."""
    total = 0.0
    for held in request.holdings:
        if math.isnan(held.correlation):
            total += held.position
        elif held.side == request.side:
            total += held.position * max(held.correlation, 0.0)
        else:
            total += held.position * max(-held.correlation, 0.0)
    return total


@given(REQUESTS, SETTINGS)
def test_a_stake_lies_within_every_bound(request: Request, settings: Settings) -> None:
    amount = stake_of(request, settings).amount
    assert 0.0 <= amount <= request.proposed * settings.max_stake_fraction
    assert amount <= request.free
    assert amount == 0.0 or amount >= request.least
    rounding = 1.0 + 1e-9
    position, certain = amount * request.leverage, request.trust * request.coverage
    lost = request.parts * position * (request.stop_distance + request.beyond)
    assert lost <= request.wealth * settings.risk_fraction * rounding
    room = request.wealth * settings.max_portfolio_fraction - taken(request)
    assert request.parts * position <= certain * max(room, 0.0) * rounding
    assert amount <= request.proposed * request.steady * rounding
    if request.kelly is not None:
        assert position <= request.wealth * request.kelly * settings.kelly_fraction * rounding


@pytest.mark.lengthy
@given(REQUESTS, SETTINGS)
def test_a_stake_is_no_smaller_than_the_smallest_bound_makes_it(
    request: Request, settings: Settings
) -> None:
    lost = (request.stop_distance + request.beyond) * request.parts
    room = max(request.wealth * settings.max_portfolio_fraction - taken(request), 0.0)
    bounds = [
        request.proposed * min(settings.max_stake_fraction, request.steady),
        request.wealth * settings.risk_fraction / lost / request.leverage,
        room / request.leverage / request.parts,
    ]
    if request.kelly is not None:
        bounds.append(request.wealth * request.kelly * settings.kelly_fraction / request.leverage)
    expected = min(min(bounds) * request.trust * request.coverage, request.free)
    assume(abs(expected - request.least) > 1e-6 * request.least)
    amount = stake_of(request, settings).amount
    assert amount == pytest.approx(expected if expected >= request.least else 0.0)


@given(REQUESTS, SETTINGS)
def test_risk_alone_refuses_no_entry_that_is_to_be_made_anyway(
    request: Request, settings: Settings
) -> None:
    request = replace(request, least_anyway=True, kelly=None, trust=1.0, coverage=1.0)
    plain, amount = (stake_of(replace(request, least_anyway=on), settings).amount
                     for on in (False, True))  # fmt: skip
    without = stake_of(replace(request, stop_distance=1e-300, beyond=0.0, sunk=0.0), settings)
    assert amount >= plain
    assert amount in (plain, request.least)
    assert (amount == 0.0) == (without.amount == 0.0)


@given(REQUESTS, SETTINGS)
def test_a_stake_has_no_reason_against_it_and_no_stake_has_one(
    request: Request, settings: Settings
) -> None:
    made = stake_of(request, settings)
    assert (made.amount == 0.0) == (made.reason in {TOO_SMALL, CALIBRATING, NO_EDGE, STALE_STREAM})
    assert (made.amount > 0.0) == (made.reason == "")
    assert made.text.startswith(f"{made.amount:.6g}: ")


@given(REQUESTS, SETTINGS)
def test_no_kelly_no_trust_and_no_coverage_are_no_stake(
    request: Request, settings: Settings
) -> None:
    for nothing in ({"kelly": 0.0}, {"trust": 0.0}, {"coverage": 0.0}, {"free": 0.0}):
        assert stake_of(replace(request, **nothing), settings).amount == 0.0


RISING = ("proposed", "wealth", "free", "kelly", "trust", "coverage")
FALLING = ("least", "stop_distance", "leverage")


@pytest.mark.lengthy
@pytest.mark.parametrize("name", [*RISING, *FALLING])
@hypothesis.settings(max_examples=40)
@given(request=REQUESTS, other=REQUESTS, settings=SETTINGS)
def test_a_stake_is_monotone_in_edge_certainty_and_means(
    name: str, request: Request, other: Request, settings: Settings
) -> None:
    values = [getattr(request, name), getattr(other, name)]
    assume(None not in values)
    low, high = sorted(values, reverse=name in FALLING)
    less, more = (
        stake_of(replace(request, **{name: value}), settings).amount for value in (low, high)
    )
    assert less <= more


@given(REQUESTS, st.builds(Holding, st.just("SOL/USDT"), MONEY, SIDES, CORRELATIONS), SETTINGS)
def test_one_more_position_never_makes_room(
    request: Request, holding: Holding, settings: Settings
) -> None:
    beside = replace(request, holdings=(*request.holdings, holding))
    assert stake_of(beside, settings).amount <= stake_of(request, settings).amount


@given(REQUESTS, SETTINGS, SHARES, SHARES)
def test_a_larger_kelly_fraction_never_makes_a_stake_smaller(
    request: Request, settings: Settings, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    less = stake_of(request, settings, kelly_fraction=low).amount
    assert less <= stake_of(request, settings, kelly_fraction=high).amount


@given(REQUESTS, SETTINGS)
def test_a_stake_does_not_depend_on_the_sides_names(request: Request, settings: Settings) -> None:
    turned = replace(
        request,
        side=-request.side,
        holdings=tuple(replace(held, side=-held.side) for held in request.holdings),
    )
    assert stake_of(turned, settings) == stake_of(request, settings)


@pytest.mark.lengthy
@given(REQUESTS, SETTINGS, st.sampled_from([2.0, 0.5, 1024.0]))
def test_a_stake_has_the_scale_of_the_money(
    request: Request, settings: Settings, factor: float
) -> None:
    # Powers of two, so that nothing is rounded; numbers too small for that are left out.
    sums = [
        request.proposed,
        request.wealth,
        request.least,
        *(h.position for h in request.holdings),
    ]
    assume(all(value == 0.0 or value > 1e-100 for value in (*sums, request.free, request.trust)))
    scaled = replace(
        request,
        proposed=factor * request.proposed,
        wealth=factor * request.wealth,
        free=factor * request.free,
        least=factor * request.least,
        holdings=tuple(replace(held, position=factor * held.position) for held in request.holdings),
    )
    made, other = stake_of(request, settings), stake_of(scaled, settings)
    assume(made.amount == 0.0 or made.amount > 1e-100)  # correlations can make it as small
    assert other.amount == factor * made.amount
    assert other.reason == made.reason


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (name, wrong)
        for name, wrong in itertools.product(NUMBERS, [NAN, INF, -INF, -1.0])
        if (name, wrong) != ("free", INF)  # nothing limits what is free
        and (name, wrong) != ("sunk", -1.0)  # it may lose less
        and name != "least_anyway"
    ],
)
def test_a_number_that_cannot_be_gives_no_stake(name: str, wrong: float) -> None:
    made = stake_of(replace(PLAIN, **{name: wrong}), Settings())
    assert (made.amount, made.reason) == (0.0, ERROR)
    assert made.text.startswith(f"0: {name} must be between ")
    assert made.text.endswith(f", found {wrong}")


@pytest.mark.parametrize(
    "change",
    [
        {"stop_distance": 0.0}, {"trust": 1.1}, {"coverage": 1.1}, {"leverage": 0.5}, {"side": 0},
        {"holdings": (Holding("ETH/USDT", NAN, 1, 0.5),)},
        {"holdings": (Holding("ETH/USDT", -1.0, 1, 0.5),)},
        {"holdings": (Holding("ETH/USDT", 1.0, 0, 0.5),)},
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_gives_no_stake(change: dict[str, object]) -> None:
    made = stake_of(replace(PLAIN, **change), Settings())  # type: ignore[arg-type]
    assert (made.amount, made.reason) == (0.0, ERROR)


@pytest.mark.parametrize("share", [NAN, INF, -0.1, 1.1])
def test_a_kelly_fraction_that_cannot_be_gives_no_stake(share: float) -> None:
    made = stake_of(PLAIN, Settings(), kelly_fraction=share)
    assert (made.amount, made.reason) == (0.0, ERROR)


BESIDE = Holding("ETH/USDT", 700.0, 1, 0.9)


@pytest.mark.parametrize(
    ("change", "amount", "text"),
    [
        ({}, 300.0, "300: 1 of freqtrade's own stake = 300"),
        ({"kelly": 0.4}, 100.0, "100: 0.25 of Kelly's 0.4 x the wallet = 100"),
        ({"kelly": 0.4, "leverage": 2.0}, 50.0,
         "50: 0.25 of Kelly's 0.4 x the wallet at leverage 2 = 50"),
        ({"stop_distance": 0.05}, 200.0,
         "200: 0.01 of the wallet lost at a stop 0.05 of the price away = 200"),
        ({"stop_distance": 0.05, "leverage": 4.0}, 50.0,
         "50: 0.01 of the wallet lost at a stop 0.05 of the price away at leverage 4 = 50"),
        ({"holdings": (BESIDE,)}, 120.0,
         "120: 0.75 of the wallet for all positions, less 630 in correlated pairs = 120"),
        ({"trust": 0.5}, 150.0, "150: 1 of freqtrade's own stake = 300, x trust 0.5"),
        ({"trust": 0.5, "coverage": 0.9}, 135.0,
         "135: 1 of freqtrade's own stake = 300, x trust 0.5, x coverage 0.9"),
        ({"free": 42.0}, 42.0, "42: what is free"),
        ({"kelly": None}, 300.0, "300: 1 of freqtrade's own stake = 300"),
        ({"kelly": None, "stop_distance": 0.04}, 250.0,
         "250: 0.01 of the wallet lost at a stop 0.04 of the price away = 250"),
    ],
)  # fmt: skip
def test_the_bound_that_decides_is_told(
    change: dict[str, object], amount: float, text: str
) -> None:
    made = stake_of(replace(PLAIN, **change), Settings())  # type: ignore[arg-type]
    assert (made.amount, made.reason, made.text) == (pytest.approx(amount), "", text)


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({}, OWN),
        ({"kelly": 0.4, "trust": 0.5}, KELLY),
        ({"stop_distance": 0.05}, RISK),
        ({"holdings": (BESIDE,)}, PORTFOLIO),
        ({"free": 42.0}, FREE),
        ({"stop_distance": 0.9, "least": 20.0, "least_anyway": True}, LEAST),
        ({"kelly": 0.0}, ""),
    ],
)
def test_the_bound_that_decides_has_a_name(change: dict[str, object], bound: str) -> None:
    assert stake_of(replace(PLAIN, **change), Settings()).bound == bound  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        ({"kelly": 0.0}, NO_EDGE, "0: 0.25 of Kelly's 0 x the wallet = 0"),
        ({"kelly": 0.0, "trust": 0.0}, NO_EDGE, "0: 0.25 of Kelly's 0 x the wallet = 0"),
        ({"trust": 0.0}, CALIBRATING, "0: 1 of freqtrade's own stake = 300, x trust 0"),
        ({"coverage": 0.0}, STALE_STREAM, "0: 1 of freqtrade's own stake = 300, x coverage 0"),
        ({"trust": 0.0, "coverage": 0.0}, CALIBRATING,
         "0: 1 of freqtrade's own stake = 300, x trust 0"),
        ({"proposed": 0.0}, TOO_SMALL, "0: 1 of freqtrade's own stake = 0"),
        ({"free": 0.0}, TOO_SMALL, "0: what is free"),
        ({"wealth": 0.0}, TOO_SMALL, "0: 0.25 of Kelly's 2 x the wallet = 0"),
        ({"holdings": (replace(BESIDE, position=5000.0),)}, TOO_SMALL,
         "0: 0.75 of the wallet for all positions, less 4500 in correlated pairs = 0"),
        ({"kelly": 0.02}, TOO_SMALL,
         "0: 5 is below the exchange's minimum 10 (0.25 of Kelly's 0.02 x the wallet = 5)"),
        ({"free": 9.0}, TOO_SMALL, "0: 9 is below the exchange's minimum 10 (what is free)"),
    ],
)  # fmt: skip
def test_why_there_is_no_stake_is_told(change: dict[str, object], reason: str, text: str) -> None:
    made = stake_of(replace(PLAIN, **change), Settings())  # type: ignore[arg-type]
    assert (made.amount, made.reason, made.text) == (0.0, reason, text)


def test_the_exchanges_minimum_itself_is_enough() -> None:
    assert stake_of(replace(PLAIN, free=10.0), Settings()).amount == 10.0


@pytest.mark.parametrize(
    ("side", "correlation", "room"),
    [
        (1, 1.0, 350.0), (1, 0.5, 550.0), (1, 0.0, 750.0), (1, -0.5, 750.0), (1, NAN, 350.0),
        (-1, 1.0, 750.0), (-1, -0.5, 550.0), (-1, NAN, 350.0), (1, 1.5, 350.0),
        (1, -INF, 350.0),
    ],
)  # fmt: skip
def test_correlated_positions_count_together_and_hedges_free_nothing(
    side: int, correlation: float, room: float
) -> None:
    holding = Holding("ETH/USDT", 400.0, side, correlation)
    request = replace(PLAIN, proposed=1000.0, free=1000.0, stop_distance=0.001, holdings=(holding,))
    assert stake_of(request, Settings(kelly_fraction=1.0)).amount == pytest.approx(room)


def test_correlated_entries_in_a_row_do_not_pass_the_cap_of_all_stakes() -> None:
    holdings: tuple[Holding, ...] = ()
    for number in range(9):
        request = replace(PLAIN, least=0.0, stop_distance=0.001, holdings=holdings)
        amount = stake_of(request, Settings(max_portfolio_fraction=0.5)).amount
        holdings = (*holdings, Holding(f"{number}/USDT", amount, 1, 1.0))
    assert sum(held.position for held in holdings) == pytest.approx(500.0)


@given(MONEY, MONEY, st.floats(0.0, 100.0))
def test_a_reduction_only_ever_gives_back_and_keeps_the_minimum(
    held: float, wanted: float, least: float
) -> None:
    given_back = reduction(held, wanted, least, 0.0)
    assert 0.0 <= given_back <= held
    assert given_back == 0.0 or wanted < 0.5 * held
    assert given_back == 0.0 or held - given_back >= max(least, wanted) - 1e-9 * held


@pytest.mark.parametrize(
    "numbers",
    [(NAN, 1.0, 1.0, 1), (9.0, NAN, 1.0, 1), (9.0, 1.0, NAN, 1), (9, 1, 1, NAN), (INF, 1, 1, 1)],
)
def test_a_reduction_by_what_is_no_number_is_none(
    numbers: tuple[float, float, float, float],
) -> None:
    assert reduction(*numbers) == 0.0


def test_nothing_is_given_back_below_the_minimum_or_above_half() -> None:
    assert reduction(100.0, 50.0, 10.0, 5.0) == 0.0
    assert reduction(100.0, 49.0, 10.0, 5.0) == 51.0
    assert reduction(100.0, 0.0, 10.0, 5.0) == 90.0
    assert reduction(8.0, 0.0, 10.0, 5.0) == 0.0
    assert reduction(100.0, -5.0, 0.0, 0.0) == 100.0
    assert reduction(11.0, 0.0, 10.5, 10.0) == 0.0  # what is given back is an order, too


@pytest.mark.parametrize(
    ("rate", "stop", "side"),
    [
        (100.0, None, 1), (100.0, NAN, 1), (NAN, 98.0, 1), (0.0, -1.0, 1), (-1.0, -2.0, 1),
        (INF, 98.0, 1), (100.0, 100.0, 1), (100.0, 101.0, 1), (100.0, 99.0, -1),
    ],
)  # fmt: skip
def test_a_stop_that_is_passed_or_unknown_has_no_distance_and_gives_no_stake(
    rate: float, stop: float | None, side: int
) -> None:
    distance = stop_distance(rate, stop, side)
    assert math.isnan(distance)
    assert stake_of(replace(PLAIN, stop_distance=distance), Settings()).reason == ERROR


def slow_correlation(one: list[float], other: list[float]) -> float:
    """Pearson's, term by term, over what both have."""
    both = [
        (a, b) for a, b in zip(one, other, strict=True) if math.isfinite(a) and math.isfinite(b)
    ]
    if len(both) < ENOUGH_COMMON:
        return NAN
    middle, centre = (statistics.fmean(column) for column in zip(*both, strict=True))
    products = [
        ((a - middle) * (b - centre), (a - middle) ** 2, (b - centre) ** 2) for a, b in both
    ]
    both_vary, one_varies, other_varies = (sum(column) for column in zip(*products, strict=True))
    return both_vary / math.sqrt(one_varies * other_varies)


@pytest.mark.parametrize("seed", range(20))
def test_correlations_are_those_of_the_common_candles(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(3, 80)) + random.normal() * random.normal(size=80)
    rows[random.random((3, 80)) < random.choice([0.0, 0.1, 0.2])] = NAN
    found = correlations(dict(zip("ABC", rows, strict=True)), "A", ["B", "C"])
    for name, row in zip("BC", rows[1:], strict=True):
        expected = slow_correlation(rows[0].tolist(), row.tolist())
        assert found[name] == pytest.approx(expected, nan_ok=True)


def test_fewer_than_enough_common_candles_say_nothing() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 100))
    one[: 100 - ENOUGH_COMMON] = NAN
    assert not math.isnan(correlations({"A": one, "B": other}, "A", ["B"])["B"])
    other[-1] = INF
    assert math.isnan(correlations({"A": one, "B": other}, "A", ["B"])["B"])


def test_what_does_not_move_or_is_not_known_has_no_correlation() -> None:
    noise = np.random.default_rng(0).normal(size=100)
    returns = {"A": noise, "B": np.full(100, 0.1), "C": np.full(100, NAN)}
    found = correlations(returns, "A", ["B", "C", "D"])
    assert list(found) == ["B", "C", "D"]
    assert all(math.isnan(number) for number in found.values())
    for pair in "BCD":
        assert math.isnan(correlations(returns, pair, ["A"])["A"])
    assert correlations({}, "A", []) == {}


def test_a_pair_moves_with_itself_and_against_its_opposite() -> None:
    noise = np.random.default_rng(1).normal(size=100)
    found = correlations({"A": noise, "B": -3.0 * noise}, "A", ["A", "B"])
    assert found == {"A": pytest.approx(1.0), "B": pytest.approx(-1.0)}


def test_returns_of_other_candles_are_refused() -> None:
    with pytest.raises(DataError, match=r"same candles, found lengths \[3, 4\]"):
        correlations({"A": np.zeros(3), "B": np.zeros(4)}, "A", ["B"])
