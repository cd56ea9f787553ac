"""The open candle's features are those of a closed one, completed by what is to be expected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series import make_candles, with_flow

from lstm_model.errors import DataError
from lstm_model.features.closed_candle import WARM_UP, compute_features, feature_names
from lstm_model.features.open_candle import OpenCandle
from lstm_model.market.candles import Candles, Seen

COUNT = WARM_UP + 30


def whole(candles: Candles, number: int) -> Seen:
    """Everything that happened in a candle."""
    prices = (float(getattr(candles, name)[number]) for name in ("open", "high", "low", "close"))
    flow = candles.flow[number]
    names = ("trades", "quote_volume", "taker_base", "taker_quote", "coverage")
    sums = (float(candles.volume[number]), *(float(flow[name]) for name in names))
    return Seen(int(candles.date_ms[number]), *prices, *sums, 0)


def nothing(candle: OpenCandle) -> Seen:
    """A candle in which nothing has been traded yet."""
    return Seen(
        candle.open_ms, *[float(candle.candles.close[-2])] * 4, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0
    )


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(WARM_UP + 1, COUNT - 1), st.sampled_from([0.0, 0.1]))
def test_a_candle_that_has_passed_has_the_closed_candles_features(
    seed: int, number: int, tick: float
) -> None:
    candles = with_flow(make_candles(COUNT, seed=seed, tick=tick), seed=seed)
    for order_flow in (False, True):
        made = compute_features(candles, order_flow=order_flow)
        row, volatility = OpenCandle(candles.rows(0, number), order_flow=order_flow).row(
            whole(candles, number), passed=1.0
        )
        np.testing.assert_allclose(row, made.rows[number], rtol=0.0, atol=1e-9)
        assert volatility == pytest.approx(made.volatility[number], rel=1e-12)


def test_a_later_look_does_not_remember_an_earlier_one() -> None:
    candles = with_flow(make_candles(COUNT))
    candle = OpenCandle(candles.rows(0, WARM_UP + 3), order_flow=True)
    first = candle.row(whole(candles, WARM_UP + 3), passed=1.0)[0].copy()
    candle.row(whole(candles, WARM_UP + 20), passed=0.3)
    np.testing.assert_array_equal(candle.row(whole(candles, WARM_UP + 3), passed=1.0)[0], first)


def test_a_candle_just_opened_looks_like_a_usual_one() -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    candle = OpenCandle(candles, order_flow=True)
    row, volatility = candle.row(nothing(candle), passed=0.0)
    made = dict(zip(feature_names(True), row, strict=True))
    assert made["return_1"] == made["imbalance"] == 0.0
    assert made["volume_48"] == pytest.approx(np.log(2.0), abs=0.02)
    assert made["range"] == pytest.approx(np.sqrt(4 * np.log(2)), rel=0.05)
    assert volatility == pytest.approx(compute_features(candles).volatility[-1], rel=1e-3)


@given(st.floats(0.0, 1.0), st.floats(-0.02, 0.02))
def test_the_expected_rest_only_adds_range_and_volume(passed: float, move: float) -> None:
    candles = with_flow(make_candles(COUNT), holes=0.0)
    candle = OpenCandle(candles, order_flow=False)
    price = float(candle.candles.close[-2]) * np.exp(move)
    top, bottom = (
        max(price, float(candle.candles.close[-2])),
        min(price, float(candle.candles.close[-2])),
    )
    prices = (float(candle.candles.close[-2]), top, bottom, price)
    seen = Seen(candle.open_ms, *prices, 1.0, 1, price, 0.5, 1.0, 1.0, 0)
    candle.row(seen, passed)
    newest = candle.candles
    assert newest.high[-1] >= top * (1 - 1e-12)
    assert newest.low[-1] <= bottom * (1 + 1e-12)
    assert newest.volume[-1] >= 1.0
    assert newest.close[-1] == price


def test_the_candles_given_are_not_changed() -> None:
    candles = with_flow(make_candles(COUNT))
    before = [column.copy() for column in (*candles.columns(), candles.flow)]
    candle = OpenCandle(candles, order_flow=True)
    candle.row(nothing(candle), passed=0.0)
    for column, copy in zip((*candles.columns(), candles.flow), before, strict=True):
        assert column.tobytes() == copy.tobytes()


@pytest.mark.parametrize("count", [0, 1, 60, WARM_UP])
def test_too_few_candles_are_refused(count: int) -> None:
    with pytest.raises(DataError, match="too few"):
        OpenCandle(make_candles(COUNT).rows(0, count), order_flow=False)
