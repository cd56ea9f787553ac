"""Features look back only, a bounded way, and forget where a series began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series import (
    STEP_MS,
    change,
    drop,
    make_candles,
    recorded_candles,
    same_bits,
    with_context,
    with_flow,
)

from lstm_model.features.closed_candle import (
    FEATURES,
    FLOW_FEATURES,
    WARM_UP,
    Feature,
    FeatureRows,
    compute_features,
    feature_names,
)
from lstm_model.features.ingredients import Ingredients
from lstm_model.features.series import ewma, ewma_window, lagged, window_sum
from lstm_model.market.candles import Candles, Floats, unknown_context

Compute = Callable[[Candles], Floats]
COUNT = WARM_UP + 120
BY_NAME = {feature.name: feature for feature in FEATURES}


def rows_of(candles: Candles) -> Floats:
    made = compute_features(candles, order_flow=candles.flow is not None)
    return np.column_stack([made.rows, made.volatility])


def column_of(feature: Feature, candles: Candles) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(feature.compute(Ingredients(candles)))


def prefixes_agree(compute: Compute, candles: Candles, stops: list[int]) -> bool:
    """The check for lookahead: what is computed without the future equals what is with it."""
    whole = compute(candles)
    return all(same_bits(compute(candles.rows(0, stop)), whole[:stop]) for stop in stops)


@pytest.mark.parametrize("tick", [0.0, 0.1])
def test_features_of_a_prefix_are_the_prefix_of_features(tick: float) -> None:
    stops = [1, 2, 20, 25, 26, 60, WARM_UP, WARM_UP + 1, *range(WARM_UP + 2, COUNT, 7)]
    candles = make_candles(COUNT, tick=tick)
    assert prefixes_agree(rows_of, candles, stops)
    assert prefixes_agree(rows_of, with_flow(candles), stops)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, COUNT), st.sampled_from([0.0, 0.05, 1.0]))
def test_no_series_shows_a_lookahead(seed: int, stop: int, tick: float) -> None:
    candles = make_candles(COUNT, seed=seed, tick=tick)
    assert prefixes_agree(rows_of, candles, [stop])
    assert prefixes_agree(rows_of, with_flow(candles, seed=seed), [stop])


def _peeks_one_candle_ahead(candles: Candles) -> Floats:
    return rows_of(candles) + np.append(candles.close[1:], 0.0)[:, None]


def _scores_over_the_whole_series(candles: Candles) -> Floats:
    return np.asarray((candles.close - candles.close.mean()) / candles.close.std())


def _fills_backward(candles: Candles) -> Floats:
    rows = rows_of(candles)
    known = np.flatnonzero(np.isfinite(rows[:, 0]))
    return rows if not len(known) else np.r_[rows[known[:1]].repeat(known[0], 0), rows[known[0] :]]


def _centres_its_window(candles: Candles) -> Floats:
    return np.convolve(candles.close, np.ones(3) / 3, mode="same")


@pytest.mark.parametrize(
    "leak",
    [_peeks_one_candle_ahead, _scores_over_the_whole_series, _fills_backward, _centres_its_window],
)
def test_a_planted_lookahead_is_caught(leak: Compute) -> None:
    assert not prefixes_agree(leak, make_candles(COUNT), [60, WARM_UP + 1, COUNT - 1])


@pytest.mark.lengthy
@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 119), st.sampled_from([0.0, 0.05, 1.0]))
def test_a_row_does_not_know_where_the_series_began(seed: int, start: int, tick: float) -> None:
    candles = with_flow(make_candles(COUNT, seed=seed, tick=tick), seed=seed)
    later = rows_of(candles.rows(start, COUNT))
    assert same_bits(later[WARM_UP:], rows_of(candles)[start + WARM_UP :])
    for feature in FEATURES + FLOW_FEATURES:
        warm = feature.warm_up
        mine = column_of(feature, candles.rows(start, COUNT))[warm:]
        assert same_bits(mine, column_of(feature, candles)[start + warm :]), feature.name


@pytest.mark.parametrize("feature", FEATURES, ids=feature_names(False))
def test_a_feature_looks_back_as_far_as_it_says(feature: Feature) -> None:
    candles, now = with_context(make_candles(COUNT)), COUNT - 1
    oldest = now - feature.warm_up
    other = with_context(make_candles(COUNT, seed=9), seed=8)
    before = column_of(feature, candles)[now]
    earlier = replace(
        other,
        context=np.r_[other.context[:oldest], candles.context[oldest:]],
        **{
            name: np.r_[getattr(other, name)[:oldest], getattr(candles, name)[oldest:]]
            for name in ("open", "high", "low", "close", "volume")
        },
    )
    assert same_bits(column_of(feature, earlier)[now], before)
    if not feature.of_time:
        spoilt = [
            change(candles, oldest, high=1e3, low=1e-3, close=c, volume=1e6) for c in (1, 900)
        ]
        nowhere = candles.context.copy()
        nowhere[oldest] = unknown_context(np.zeros(1, np.int64))[0]
        spoilt.append(replace(candles, context=nowhere))
        assert any(column_of(feature, at_warm_up)[now] != before for at_warm_up in spoilt)


@pytest.mark.parametrize("feature", FEATURES, ids=feature_names(False))
def test_a_feature_is_known_once_it_is_warm_and_not_before(feature: Feature) -> None:
    column = column_of(feature, with_context(make_candles(COUNT)))
    assert np.isfinite(column[feature.warm_up :]).all()
    assert not np.nan_to_num(column[: feature.warm_up]).any()


def test_there_are_41_features_with_names_of_their_own() -> None:
    assert len(BY_NAME) == len(FEATURES) == 41
    assert feature_names(True) == (*BY_NAME, *(feature.name for feature in FLOW_FEATURES))
    assert max(feature.warm_up for feature in FEATURES) == WARM_UP
    assert all(feature.unit for feature in FEATURES)


@pytest.mark.parametrize(("name", "hours"), [("half_day", 12.0), ("day", 24.0)])
def test_the_clock_is_seen_as_a_point_on_a_circle_that_comes_round_again(
    name: str, hours: float
) -> None:
    candles = make_candles(round(2 * hours * 3_600_000 / STEP_MS))
    angle = 2.0 * np.pi * np.arange(len(candles)) * STEP_MS / 3_600_000 / hours
    found = [column_of(BY_NAME[f"{name}_{wave}"], candles) for wave in ("sin", "cos")]
    begin = np.arctan2(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0], np.sin(begin + angle), atol=1e-9)
    np.testing.assert_allclose(found[1], np.cos(begin + angle), atol=1e-9)
    assert begin == 0.0  # the series begins at midnight


def test_the_trend_of_volatility_is_above_zero_when_it_rises_and_below_when_it_falls() -> None:
    calm, wild = make_candles(COUNT, seed=1), make_candles(COUNT, seed=1)
    quiet = replace(calm, close=np.exp(0.05 * np.log(calm.close)))
    edge = COUNT - 60
    rising = np.r_[quiet.close[:edge], wild.close[edge:] * quiet.close[edge] / wild.close[edge]]
    falling = np.r_[wild.close[:edge], quiet.close[edge:] * wild.close[edge] / quiet.close[edge]]
    trend = BY_NAME["volatility_trend"]
    assert column_of(trend, replace(calm, close=rising))[-1] > 0.3
    assert column_of(trend, replace(calm, close=falling))[-1] < -0.3
    assert abs(column_of(trend, calm)[-1]) < 0.3


@pytest.mark.parametrize(("price", "amount"), [(1_000.0, 7.0), (1e-7, 1e9)])
def test_features_have_no_scale(price: float, amount: float) -> None:
    candles = make_candles(COUNT)
    prices = {name: getattr(candles, name) * price for name in ("open", "high", "low", "close")}
    scaled = replace(candles, **prices, volume=candles.volume * amount)
    np.testing.assert_allclose(rows_of(scaled), rows_of(candles), rtol=0.0, atol=1e-9)


def test_features_stay_in_bounds_after_a_crash() -> None:
    candles = make_candles(COUNT)
    crashed = change(candles, COUNT - 5, high=1e9, low=1.0, close=1.0, volume=1e9)
    rows = compute_features(crashed).rows[WARM_UP:]
    assert np.abs(rows).max() == 10.0


def unknown(made: FeatureRows) -> list[int]:
    return (np.flatnonzero(~made.known[WARM_UP:]) + WARM_UP).tolist()


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_a_nan_makes_rows_unknown_for_the_warm_up_and_no_longer(name: str) -> None:
    count, at = 3 * WARM_UP, WARM_UP + 10
    spoilt = change(make_candles(count), at, **{name: np.nan})
    made = compute_features(spoilt)
    assert unknown(made) == list(range(at, at + WARM_UP + 1))
    assert np.isnan(made.rows[~made.known]).all()
    clean = rows_of(make_candles(count))
    assert same_bits(rows_of(spoilt)[at + WARM_UP + 1 :], clean[at + WARM_UP + 1 :])


@pytest.mark.parametrize("price", [0.0, -1.0, np.inf])
def test_an_impossible_price_makes_rows_unknown_as_a_nan_does(price: float) -> None:
    count, at = 3 * WARM_UP, WARM_UP + 10
    made = compute_features(change(make_candles(count), at, low=price, close=price))
    assert unknown(made) == list(range(at, at + WARM_UP + 1))


def test_a_hole_makes_rows_unknown_as_a_nan_does() -> None:
    whole = make_candles(3 * WARM_UP)
    holed = drop(whole, [300, 301, 310]).on_grid()
    made = compute_features(holed)
    assert unknown(made) == list(range(300, 310 + WARM_UP + 1))
    after = 310 + WARM_UP + 1
    assert same_bits(made.rows[after:], compute_features(whole).rows[after:])


def test_one_candle_without_volume_spoils_no_row() -> None:
    empty = change(make_candles(COUNT), WARM_UP + 30, volume=0.0)
    assert unknown(compute_features(empty)) == []


def test_rows_without_any_trade_behind_them_are_unknown() -> None:
    """Freqtrade fills outages with flat candles of zero volume."""
    first, last, count = WARM_UP + 10, WARM_UP + 30, 3 * WARM_UP
    candles = make_candles(count)
    price = candles.close[first - 1]
    flat = change(
        candles, slice(first, last), open=price, high=price, low=price, close=price, volume=0.0
    )
    flat = change(flat, last, open=price)
    # 12 empty candles leave `signed_volume_12` without a denominator, 14 flat ones `momentum_14`.
    assert unknown(compute_features(flat)) == list(range(first + 11, last))


def test_a_market_that_never_moves_is_unknown_and_gives_no_warning() -> None:
    candles = make_candles(COUNT)
    flat = change(candles, slice(None), open=1.0, high=1.0, low=1.0, close=1.0)
    made = compute_features(flat)
    assert not made.known.any()
    assert np.isnan(made.volatility).all()


@pytest.mark.parametrize("count", [0, 1, 2, 19, 20, 26, WARM_UP])
def test_a_series_shorter_than_the_warm_up_is_unknown(count: int) -> None:
    made = compute_features(make_candles(COUNT).rows(0, count))
    assert made.rows.shape == (count, len(FEATURES))
    assert not made.known.any()


def test_candles_that_are_all_nan_are_unknown() -> None:
    nothing = change(
        make_candles(COUNT), slice(None), open=np.nan, high=np.nan, low=np.nan, close=np.nan
    )
    assert not compute_features(nothing).known.any()


@given(st.lists(st.floats(-1e6, 1e6), max_size=70), st.integers(1, 40))
def test_a_window_sum_is_a_sum(values: list[float], window: int) -> None:
    got = window_sum(np.array(values), window)
    assert np.isnan(got[: window - 1]).all()
    for end in range(window, len(values) + 1):
        assert got[end - 1] == pytest.approx(sum(values[end - window : end]), abs=1e-6)


@pytest.mark.parametrize("halflife", [2, 8, 36])
def test_an_ewma_is_the_truncated_weighted_mean(halflife: int) -> None:
    window = ewma_window(halflife)
    values = np.random.default_rng(0).normal(size=window + 30)
    weights = 0.5 ** (np.arange(window) / halflife)
    slow = [
        values[end - window : end][::-1] @ weights / weights.sum()
        for end in range(window, len(values) + 1)
    ]
    np.testing.assert_allclose(ewma(values, halflife)[window - 1 :], slow, rtol=1e-12, atol=1e-12)
    assert np.isnan(ewma(values, halflife)[: window - 1]).all()
    assert weights.sum() * (1.0 - 0.5 ** (1 / halflife)) > 1.0 - 0.008


@given(st.integers(0, 12), st.integers(0, 15))
def test_lagging_moves_values_later(count: int, lag: int) -> None:
    moved = lagged(np.arange(float(count)), lag)
    assert np.isnan(moved[:lag]).all()
    assert moved[lag:].tolist() == list(range(count - lag))


def test_features_of_recorded_candles_look_back_only() -> None:
    candles = recorded_candles("BTC/USDT", "5m").on_grid().rows(0, 3_000)
    assert prefixes_agree(rows_of, candles, [500, 1_000, 1_777, 2_999])
    assert compute_features(candles).known[WARM_UP:].mean() > 0.5


def flow_rows(candles: Candles) -> dict[str, Floats]:
    rows = compute_features(candles, order_flow=True).rows
    return dict(zip(feature_names(True), rows.T, strict=True))


def test_order_flow_changes_no_other_feature() -> None:
    candles = with_flow(make_candles(COUNT))
    with_it = compute_features(candles, order_flow=True).rows[:, : len(FEATURES)]
    assert same_bits(with_it, compute_features(candles).rows)


@pytest.mark.parametrize("coverage", [0.0, 0.5, 0.949])
def test_flow_that_is_hardly_covered_is_masked_and_says_so(coverage: float) -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    candles.flow["coverage"] = coverage
    made = flow_rows(candles)
    for feature in FLOW_FEATURES[:-1]:
        assert (made[feature.name][WARM_UP:] == 0.0).all(), feature.name
    assert (made["flow_coverage"][WARM_UP:] == coverage).all()


def test_without_any_flow_the_rows_are_known_and_neutral() -> None:
    made = compute_features(make_candles(COUNT), order_flow=True)
    assert made.known[WARM_UP:].all()
    assert (made.rows[WARM_UP:, len(FEATURES) :] == 0.0).all()


def test_one_uncovered_candle_leaves_the_sums_to_the_others() -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    at = COUNT - 5
    candles.flow["coverage"][at] = 0.2
    made = flow_rows(candles)
    flow = np.delete(candles.flow[COUNT - 12 :], 7)
    wanted = (2.0 * flow["taker_base"] - flow["volume"]).sum() / flow["volume"].sum()
    assert made["imbalance_12"][-1] == pytest.approx(wanted, rel=1e-12)
    assert made["imbalance"][at] == 0.0


def test_takers_who_only_buy_are_an_imbalance_of_one() -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    candles.flow["taker_base"] = candles.flow["volume"]
    made = flow_rows(candles)
    for name in ("imbalance", "imbalance_12", "imbalance_decay"):
        np.testing.assert_allclose(made[name][WARM_UP:], 1.0, rtol=1e-12)


def test_flow_features_have_no_scale() -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    flow = candles.flow.copy()
    for name, factor in {"volume": 7.0, "taker_base": 7.0, "quote_volume": 7e3}.items():
        flow[name] *= factor
    prices = {name: getattr(candles, name) * 1e3 for name in ("open", "high", "low", "close")}
    scaled = replace(candles, **prices, volume=candles.volume * 7.0, flow=flow)
    np.testing.assert_allclose(rows_of(scaled), rows_of(candles), rtol=0.0, atol=1e-9)


def test_a_price_above_the_vwap_is_a_positive_deviation() -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    candles.flow["quote_volume"] = candles.flow["volume"] * candles.close * 0.999
    deviation = flow_rows(candles)["vwap_deviation"][WARM_UP:]
    volatility = compute_features(candles).volatility[WARM_UP:]
    np.testing.assert_allclose(deviation, np.log(1 / 0.999) / volatility, rtol=1e-9)
