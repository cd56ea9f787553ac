"""No entry without forecast, trust, skill and edge; what an edge is worth falls with doubt."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lstm_model.model.forecast import Forecast, unknown_far
from lstm_model.settings import DEFAULT_LEVELS, Settings
from lstm_model.trading.sizing import (
    CALIBRATING,
    ENTER_LONG,
    ENTER_SHORT,
    NO_DATA,
    NO_EDGE,
    NO_MODEL,
    NO_SKILL,
    OF_ORDERS,
    REASONS,
    Decision,
    baker_mchale_factor,
    decide,
    kelly_of,
    net_edge,
    reasons,
    round_trip_cost,
)

FEE = 0.001
NAN, INF = float("nan"), float("inf")
NORMAL = np.array([NormalDist().inv_cdf(level) for level in DEFAULT_LEVELS])
ENTRIES = [ENTER_LONG, ENTER_SHORT]
FORBIDDEN = [NO_MODEL, NO_SKILL, "stale_model", "stale_stream", "error"]
COLUMNS = ("mean", "quantiles", "mean_error", "lowest", "highest")

WRONG = st.sampled_from([NAN, INF, -INF])
MEANS = st.floats(-0.5, 0.5)
WIDTHS = st.floats(1e-6, 1.0)
ERRORS = st.just(0.0) | st.floats(1e-6, 1.0)
EDGES = st.floats(1e-6, 1.0)
TRUSTS = st.sampled_from([0.0, 1.0, NAN]) | st.floats(0.0, 1.0)
GATES = st.sampled_from(["", *FORBIDDEN])
SETTINGS = st.builds(
    Settings,
    slippage_fraction=st.floats(0.0, 0.05),
    half_spread_fraction=st.floats(0.0, 0.05),
    min_edge=st.floats(0.0, 0.1),
)
CASES = st.lists(
    st.tuples(MEANS | WRONG, WIDTHS, ERRORS | WRONG, GATES, TRUSTS), min_size=1, max_size=10
)
Case = tuple[float, float, float, str, float]


def forecast_of(
    mean: object, deviation: object = 0.01, mean_error: object = 0.002, *, shift: object = None
) -> Forecast:
    """Normal forecasts; the interval lies around `shift`, or else around the mean."""
    means = np.atleast_1d(np.asarray(mean, dtype=float))
    widths = np.broadcast_to(np.asarray(deviation, dtype=float), means.shape)
    middle = means if shift is None else np.broadcast_to(np.asarray(shift, float), means.shape)
    return Forecast(
        DEFAULT_LEVELS,
        quantiles=middle[:, None] + widths[:, None] * NORMAL,
        mean=means,
        volatility=widths.copy(),
        mean_error=np.broadcast_to(np.asarray(mean_error, dtype=float), means.shape).copy(),
        lowest=-2.0 * widths,
        highest=2.0 * widths,
        far=unknown_far(len(means)),
    )


def mirrored(forecast: Forecast) -> Forecast:
    """The same forecast of a market turned upside down."""
    return replace(
        forecast,
        quantiles=-forecast.quantiles[:, ::-1],
        mean=-forecast.mean,
        lowest=-forecast.highest,
        highest=-forecast.lowest,
    )


def decided(
    forecast: Forecast, *, gate: str = "", trust: float = 1.0, can_short: bool = True,
    settings: Settings | None = None, min_edge: float | None = None,
) -> Decision:  # fmt: skip
    count = len(forecast.mean)
    return decide(
        forecast, np.full(count, gate), np.full(count, trust), FEE, settings or Settings(),
        can_short=can_short, min_edge=min_edge,
    )  # fmt: skip


@pytest.mark.lengthy
@given(CASES, SETTINGS, st.booleans(), st.floats(0.0, 0.01), st.none() | st.floats(0.0, 0.1))
def test_an_entry_needs_forecast_trust_an_open_gate_and_edge(
    cases: list[Case], settings: Settings, can_short: bool, fee: float, min_edge: float | None
) -> None:
    means, widths, errors, gates, trusts = (np.array(x) for x in zip(*cases, strict=True))
    made = decide(
        forecast_of(means, widths, errors, shift=0.0), gates, trusts, fee, settings,
        can_short=can_short, min_edge=min_edge,
    )  # fmt: skip
    entered = made.side != 0
    least = settings.min_edge if min_edge is None else min_edge
    assert np.isfinite(means[entered]).all()
    assert np.isfinite(errors[entered]).all()
    assert (gates[entered] == "").all()
    assert (trusts[entered] > 0.0).all()
    assert (made.edge[entered] > least).all()
    assert (made.kelly[entered] > 0.0).all()
    assert can_short or (made.side >= 0).all()
    assert (made.side[entered] == np.sign(means[entered])).all()
    np.testing.assert_array_equal(np.isin(made.reason, ENTRIES), entered)
    # ... and it needs nothing else.
    sound = np.isfinite(means) & np.isfinite(errors) & (errors >= 0.0) & (trusts > 0.0)
    np.testing.assert_array_equal(entered, sound & (gates == "") & (made.edge > least))


@given(st.floats(-0.2, 0.2), st.floats(-0.03, 0.03), st.floats(0.0, 0.01))
def test_funding_takes_from_who_is_long_what_it_gives_to_who_is_short(
    mean: float, funding: float, fee: float
) -> None:
    means, sides, settings = np.full(2, mean), np.array([1, -1]), Settings()
    without = net_edge(means, sides, fee, settings)
    long, short = net_edge(means, sides, fee, settings, np.full(2, funding)) - without
    assert long == pytest.approx(-funding, abs=1e-15)
    assert short == pytest.approx(funding, abs=1e-15)
    same = net_edge(means, sides, fee, settings, np.zeros(2))
    np.testing.assert_array_equal(same.tobytes(), without.tobytes())


def test_funding_decides_where_it_is_more_than_the_edge_but_enters_nothing_alone() -> None:
    edge = 0.01 - round_trip_cost(FEE, Settings())
    means = forecast_of([np.log1p(0.01), np.log1p(-0.01)])

    def reason(funding: float) -> list[str]:
        made = decide(
            means, np.full(2, ""), np.ones(2), FEE, Settings(), can_short=True,
            funding=np.full(2, funding),
        )  # fmt: skip
        return made.reason.tolist()

    assert reason(0.9 * edge) == [ENTER_LONG, ENTER_SHORT]
    assert reason(1.1 * edge) == [NO_EDGE, ENTER_SHORT]
    assert reason(-1.1 * edge) == [ENTER_LONG, NO_EDGE]
    assert reason(0.5) == [NO_EDGE, ENTER_SHORT]  # never short against the mean, whatever it pays


@given(CASES, SETTINGS, st.booleans())
def test_kelly_is_a_finite_number_and_never_negative(
    cases: list[Case], settings: Settings, can_short: bool
) -> None:
    means, widths, errors, gates, trusts = (np.array(x) for x in zip(*cases, strict=True))
    forecast = forecast_of(means, widths, errors, shift=0.0)
    made = decide(forecast, gates, trusts, FEE, settings, can_short=can_short)
    assert np.isfinite(made.kelly).all()
    assert (made.kelly >= 0.0).all()
    assert (made.kelly[~(made.edge > 0.0)] == 0.0).all()
    assert (made.kelly[~np.isfinite(errors)] == 0.0).all()


@given(CASES, SETTINGS, st.booleans())
def test_every_reason_can_be_explained(
    cases: list[Case], settings: Settings, can_short: bool
) -> None:
    means, widths, errors, gates, trusts = (np.array(x) for x in zip(*cases, strict=True))
    forecast = forecast_of(means, widths, errors, shift=0.0)
    made = decide(forecast, gates, trusts, FEE, settings, can_short=can_short)
    assert set(made.reason.tolist()) <= set(REASONS)
    assert set(made.gate.tolist()) <= {*REASONS, ""} - {ENTER_LONG, ENTER_SHORT, NO_EDGE}
    np.testing.assert_array_equal(made.leaning == 0, made.gate != "")


def test_reason_codes_are_countable_and_explained_in_words() -> None:
    assert len(REASONS) == 16
    for code, words in REASONS.items():
        assert code.replace("_", "").isalpha()
        assert code == code.lower()
        assert len(code) <= 12 or code in OF_ORDERS  # the width of the reason columns
        assert len(words) > 20


@pytest.mark.parametrize(
    ("mean", "gate", "trust", "can_short", "side", "reason"),
    [
        (0.02, "", 1.0, False, 1, ENTER_LONG),
        (0.02, "", 1.0, True, 1, ENTER_LONG),
        (0.02, "", 0.1, True, 1, ENTER_LONG),
        (-0.02, "", 1.0, True, -1, ENTER_SHORT),
        (-0.02, "", 1.0, False, 0, NO_EDGE),
        (0.002, "", 1.0, True, 0, NO_EDGE),
        (0.0, "", 1.0, True, 0, NO_EDGE),
        (0.02, NO_SKILL, 1.0, True, 0, NO_SKILL),
        (0.0, NO_SKILL, 1.0, True, 0, NO_SKILL),
        (0.02, "", 0.0, True, 0, CALIBRATING),
        (0.02, "", NAN, True, 0, CALIBRATING),
        (0.02, NO_SKILL, 0.0, True, 0, NO_SKILL),
        (NAN, "", 1.0, True, 0, NO_DATA),
        (NAN, "", 0.0, True, 0, NO_DATA),
        (NAN, NO_MODEL, 0.0, True, 0, NO_MODEL),
        (INF, "", 1.0, True, 0, NO_DATA),
        (-INF, "", 1.0, True, 0, NO_DATA),
    ],
)
def test_the_reason_is_told(
    mean: float, gate: str, trust: float, can_short: bool, side: int, reason: str
) -> None:
    made = decided(forecast_of(mean, shift=0.0), gate=gate, trust=trust, can_short=can_short)
    assert (made.side[0], made.reason[0]) == (side, reason)


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("name", COLUMNS)
def test_whatever_is_not_finite_gives_no_entry(name: str, wrong: float) -> None:
    forecast = forecast_of([0.02, 0.02])
    getattr(forecast, name)[0] = wrong
    made = decided(forecast)
    assert made.side.tolist() == [0, 1]
    assert made.reason.tolist() == [NO_DATA, ENTER_LONG]


@pytest.mark.parametrize("end", [0, -1])
def test_an_interval_that_is_open_on_one_side_gives_no_entry(end: int) -> None:
    forecast = forecast_of([0.02])
    forecast.quantiles[0, end] = INF if end else -INF
    made = decided(forecast)
    assert (made.side[0], made.kelly[0], made.reason[0]) == (0, 0.0, NO_DATA)


@pytest.mark.parametrize("deviation", [0.0, -0.01])
def test_an_interval_without_width_gives_no_entry(deviation: float) -> None:
    made = decided(forecast_of([0.02], deviation))
    assert (made.side[0], made.kelly[0], made.reason[0]) == (0, 0.0, NO_DATA)


def test_a_negative_standard_error_gives_no_entry() -> None:
    made = decided(forecast_of([0.02], mean_error=-0.001))
    assert (made.side[0], made.kelly[0], made.reason[0]) == (0, 0.0, NO_DATA)


@pytest.mark.parametrize("fee", [NAN, INF])
def test_unknown_costs_give_no_entry(fee: float) -> None:
    made = decide(forecast_of([0.02]), np.array([""]), np.ones(1), fee, Settings(), can_short=True)
    assert (made.side[0], made.kelly[0], made.reason[0]) == (0, 0.0, NO_DATA)


def test_costs_are_fees_slippages_and_half_spreads_of_both_ways() -> None:
    settings = Settings(slippage_fraction=0.0005, half_spread_fraction=0.0002)
    assert round_trip_cost(0.001, settings) == pytest.approx(0.0034)
    made = decided(forecast_of([0.02, -0.02]), settings=settings)
    expected = [np.expm1(0.02) - 0.0034, -np.expm1(-0.02) - 0.0034]
    np.testing.assert_allclose(made.edge, expected)


@given(MEANS, st.floats(0.0, 0.05), SETTINGS)
def test_a_fee_lowers_the_edge_twice(mean: float, fee: float, settings: Settings) -> None:
    one, side = np.array([mean]), np.array([1])
    dear, free = (net_edge(one, side, each, settings)[0] for each in (fee, 0.0))
    assert free - dear == pytest.approx(2.0 * fee, abs=1e-12)


def test_the_edge_is_as_uncertain_as_the_mean_in_prices() -> None:
    made = decided(forecast_of([0.1, -0.1], mean_error=0.003))
    np.testing.assert_allclose(made.edge_error, 0.003 * np.exp([0.1, -0.1]))


def test_kellys_fraction_is_edge_over_variance() -> None:
    made = decided(forecast_of([0.02], 0.2, 0.0))
    assert made.kelly[0] == pytest.approx(made.edge[0] / 0.04)


def test_an_edge_no_larger_than_its_error_is_worth_half() -> None:
    assert baker_mchale_factor(np.array([0.01]), np.array([0.01]))[0] == 0.5
    assert kelly_of(np.array([0.01]), np.array([0.01]), np.array([0.1]))[0] == pytest.approx(0.5)


def test_the_factor_is_that_of_a_bet_with_an_uncertain_probability() -> None:
    # Baker & McHale's own terms: odds b, win probability p with standard error s.
    odds, chance, error = 1.5, 0.45, 0.03
    edge = (odds + 1.0) * chance - 1.0
    ours = baker_mchale_factor(np.array([edge]), np.array([(odds + 1.0) * error]))[0]
    assert ours == pytest.approx(edge**2 / (edge**2 + (odds + 1.0) ** 2 * error**2))


def test_the_factor_makes_wealth_grow_fastest_where_the_edge_is_estimated() -> None:
    random = np.random.default_rng(0)
    edge, error, deviation = 0.01, 0.008, 0.1
    estimates = random.normal(edge, error, 20_000)
    shares = np.linspace(0.0, 1.0, 51)
    bets = shares[:, None] * estimates / deviation**2
    growth = (bets * edge - 0.5 * (bets * deviation) ** 2).mean(1)
    factor = baker_mchale_factor(np.array([edge]), np.array([error]))[0]
    assert shares[int(np.argmax(growth))] == pytest.approx(factor, abs=0.03)


@given(st.floats(allow_nan=True), st.floats(allow_nan=True))
@example(edge=5e-324, error=0.0)
@example(edge=0.1, error=NAN)
@example(edge=0.1, error=INF)
@example(edge=INF, error=INF)
@example(edge=0.0, error=0.0)
def test_the_factor_lies_between_zero_and_one(edge: float, error: float) -> None:
    factor = baker_mchale_factor(np.array([edge]), np.array([error]))[0]
    assert 0.0 <= factor <= 1.0
    assert factor == 0.0 or edge > 0.0


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_kelly_of_anything_is_finite_and_not_negative(
    edge: float, error: float, deviation: float
) -> None:
    kelly = kelly_of(np.array([edge]), np.array([error]), np.array([deviation]))[0]
    assert 0.0 <= kelly < INF
    assert kelly == 0.0 or (edge > 0.0 and deviation > 0.0)


@given(EDGES, EDGES, ERRORS, WIDTHS)
def test_kelly_rises_with_the_edge(one: float, other: float, error: float, width: float) -> None:
    low, high = sorted((one, other))
    kelly = kelly_of(np.array([low, high]), np.full(2, error), np.full(2, width))
    assert kelly[0] <= kelly[1]


@given(EDGES, ERRORS, WIDTHS, WIDTHS)
def test_kelly_falls_with_the_variance(edge: float, error: float, one: float, other: float) -> None:
    calm, wild = sorted((one, other))
    kelly = kelly_of(np.full(2, edge), np.full(2, error), np.array([calm, wild]))
    assert kelly[0] >= kelly[1]
    assume(wild > 1.01 * calm)
    assert kelly[0] > kelly[1]


@given(EDGES, ERRORS, ERRORS, WIDTHS)
def test_kelly_falls_with_the_error_of_the_mean(
    edge: float, one: float, other: float, width: float
) -> None:
    sure, doubtful = sorted((one, other))
    kelly = kelly_of(np.full(2, edge), np.array([sure, doubtful]), np.full(2, width))
    assert kelly[0] >= kelly[1]


@given(st.floats(0.0, 0.3), st.floats(0.0, 0.3), ERRORS, WIDTHS, SETTINGS, st.sampled_from([1, -1]))
def test_a_farther_mean_never_decides_for_less(
    one: float, other: float, error: float, width: float, settings: Settings, side: int
) -> None:
    near, far = sorted((one, other))
    forecast = forecast_of([side * near, side * far], width, error, shift=0.0)
    made = decided(forecast, settings=settings)
    assert made.edge[0] <= made.edge[1]
    assert made.kelly[0] <= made.kelly[1]
    assert abs(made.side[0]) <= abs(made.side[1])


def test_more_doubt_about_the_mean_or_a_wider_interval_makes_kelly_smaller() -> None:
    forecast = forecast_of([0.02, 0.02, 0.02], [0.1, 0.2, 0.1], [0.01, 0.01, 0.02], shift=0.0)
    kelly = decided(forecast).kelly
    assert kelly[0] == pytest.approx(4.0 * kelly[1])
    assert kelly[0] > 1.5 * kelly[2] > 0.0


@given(st.floats(-0.3, 0.3).filter(bool), WIDTHS, ERRORS, SETTINGS)
def test_a_mirrored_forecast_is_decided_the_other_way(
    mean: float, width: float, error: float, settings: Settings
) -> None:
    # A log return and its opposite differ in prices: +x and -x compound to expm1(x) and expm1(-x).
    compounding = 4.0 * np.sinh(mean / 2.0) ** 2
    forecast = forecast_of([mean], width, error, shift=0.3 * mean)
    made, other = (
        decided(forecast, settings=settings),
        decided(mirrored(forecast), settings=settings),
    )
    assert made.leaning[0] == -other.leaning[0] == np.sign(mean)
    assert made.edge[0] - other.edge[0] == pytest.approx(np.sign(mean) * compounding, abs=1e-12)
    if abs(made.edge[0] - settings.min_edge) > compounding:
        assert made.side[0] == -other.side[0]


@given(st.floats(-0.3, 0.3).filter(bool), WIDTHS, ERRORS, SETTINGS)
def test_the_same_expected_return_on_either_side_is_worth_the_same(
    gain: float, width: float, error: float, settings: Settings
) -> None:
    mean = np.log1p([gain, -gain])
    forecast = forecast_of(mean, width, error * np.exp(-mean), shift=0.0)
    made = decided(forecast, settings=settings)
    assert made.side[0] == -made.side[1] or min(abs(made.edge - settings.min_edge)) < 1e-12
    np.testing.assert_allclose(made.edge[0], made.edge[1], atol=1e-12)
    np.testing.assert_allclose(made.edge_error[0], made.edge_error[1])
    if made.edge[0] > 1e-6:
        np.testing.assert_allclose(made.kelly[0], made.kelly[1], rtol=1e-6)


@given(MEANS, st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_asking_for_more_edge_never_lets_more_in(mean: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    forecast = forecast_of([mean])
    easy, hard = (decided(forecast, min_edge=least) for least in (low, high))
    assert abs(hard.side[0]) <= abs(easy.side[0])
    assert hard.kelly[0] == easy.kelly[0]


def test_the_least_edge_may_replace_the_setting_both_ways() -> None:
    forecast, settings = forecast_of([0.02]), Settings(min_edge=0.1)
    assert decided(forecast, settings=settings).reason[0] == NO_EDGE
    assert decided(forecast, settings=settings, min_edge=0.0).reason[0] == ENTER_LONG
    assert decided(forecast, min_edge=0.1).reason[0] == NO_EDGE
    assert decided(forecast, min_edge=0.1).leaning[0] == 1


def test_a_least_edge_below_zero_lets_no_loss_in() -> None:
    assert decided(forecast_of([0.001]), min_edge=-1.0).reason[0] == NO_EDGE


def test_a_least_edge_that_is_no_number_lets_nothing_in() -> None:
    assert decided(forecast_of([0.2]), min_edge=NAN).reason[0] == NO_EDGE


def test_without_a_side_there_is_no_entry_whatever_the_edge() -> None:
    assert reasons(np.array([""]), np.array([0]), np.array([0.1]), 0.0)[0] == NO_DATA


def test_an_edge_of_exactly_the_least_is_not_enough() -> None:
    edge = float(decided(forecast_of([0.02])).edge[0])
    assert decided(forecast_of([0.02]), min_edge=edge).side[0] == 0
    assert decided(forecast_of([0.02]), min_edge=np.nextafter(edge, 0.0)).side[0] == 1


@given(CASES, SETTINGS, st.booleans(), st.floats(0.0, 0.1))
def test_columns_of_a_decision_can_be_judged_again_by_another_least_edge(
    cases: list[Case], settings: Settings, can_short: bool, least: float
) -> None:
    means, widths, errors, gates, trusts = (np.array(x) for x in zip(*cases, strict=True))
    forecast = forecast_of(means, widths, errors, shift=0.0)
    made = decide(forecast, gates, trusts, FEE, settings, can_short=can_short)
    asked = decide(forecast, gates, trusts, FEE, settings, can_short=can_short, min_edge=least)
    again = reasons(made.gate, made.leaning, made.edge, least)
    np.testing.assert_array_equal(again, asked.reason)
    # Columns of a dataframe are objects.
    again = reasons(made.gate.astype(object), made.leaning, made.edge, least)
    np.testing.assert_array_equal(again, asked.reason)


def test_each_candle_is_decided_on_its_own_forecast() -> None:
    random = np.random.default_rng(0)
    means, widths = random.normal(0.0, 0.01, 50), np.exp(random.normal(size=50))
    gates = np.where(random.random(50) < 0.5, "", NO_SKILL)
    trusts = np.round(random.random(50))
    forecast = forecast_of(means, widths, 0.001)
    many = decide(forecast, gates, trusts, FEE, Settings(), can_short=True)
    assert len(set(many.reason.tolist())) == 5
    for row in range(50):
        alone = decide(
            forecast.row(row), gates[[row]], trusts[[row]], FEE, Settings(), can_short=True
        )
        for name in (field.name for field in fields(Decision)):
            assert getattr(alone, name)[0] == getattr(many, name)[row]


def test_no_candles_are_no_decisions() -> None:
    made = decided(forecast_of([]))
    assert [len(getattr(made, field.name)) for field in fields(Decision)] == [0] * 7


def test_the_gate_is_told_before_data_trust_and_edge() -> None:
    states = itertools.product([NO_SKILL, ""], [NAN, 0.02, 0.0], [0.0, 1.0])
    told = [
        str(decided(forecast_of(mean, shift=0.0), gate=gate, trust=trust).reason[0])
        for gate, mean, trust in states
    ]
    open_gate = [NO_DATA, NO_DATA, CALIBRATING, ENTER_LONG, CALIBRATING, NO_EDGE]
    assert told == [NO_SKILL] * 6 + open_gate
