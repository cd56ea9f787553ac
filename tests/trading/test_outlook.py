"""A candle's columns: the forecast, the decision, and the code that forbids an entry."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nowcast_world import LEVELS, SETTINGS, make_model
from series import STEP_MS, change, drop, make_candles, with_flow

from lstm_model.features.closed_candle import WARM_UP
from lstm_model.market.candles import Floats, Ints
from lstm_model.model.calibration import HASTE, RATE, Calibration, Widths
from lstm_model.model.forecast import FAR_NAMES, Forecast, unknown_far
from lstm_model.model.model import Model
from lstm_model.trading.outlook import Frame, Outlook, Terms
from lstm_model.trading.sizing import (
    CALIBRATING,
    ENTER_LONG,
    ERROR,
    NO_DATA,
    NO_EDGE,
    NO_MODEL,
    NO_SKILL,
    REASONS,
    STALE_MODEL,
)

PAIR = "BTC/USDT"
TERMS = Terms(SETTINGS, fee_fraction=0.001, can_short=True)
GROWN = HASTE * SETTINGS.horizon
COLUMNS = {
    "mean", "mean_error", "low", "high", "lowest", "highest", "volatility", "price", "price_low",
    "price_high", "price_lowest", "price_highest", "due_low", "due_high", "close",
    "edge", "kelly", "trust", "side", "gate", "gate_open", "width",
    "reason", "version", "usual_width", *FAR_NAMES,
}  # fmt: skip


def model_with(labels: int = GROWN, p_value: float = 0.0, version: str = "v0") -> Model:
    """A model that has seen so many labels of the pair, and has this much skill."""
    made = make_model()
    widths = Widths.neutral(LEVELS)._replace(labels=labels, usual=math.log(0.001))
    calibration = Calibration(LEVELS, 0.5, 0.1, {PAIR: widths})
    card = made.card.model_copy(update={"version": version})
    return replace(made, card=card, calibration=calibration, p_value=p_value)


def promising(count: int) -> Forecast:
    """Forecasts that are worth an entry: 2 % up, certainly."""
    ends = np.tile(np.linspace(-0.01, 0.05, len(LEVELS)), (count, 1))
    columns = (np.full(count, x) for x in (0.02, 0.001, 0.001, -0.012, 0.06))
    return Forecast(LEVELS, ends, *columns, far=unknown_far(count))


def outlook_of(count: int = 1) -> Outlook:
    return Outlook(PAIR, STEP_MS * np.arange(count), TERMS)


def admitted(model: Model, count: int = 1, *, forecast: bool = True) -> Outlook:
    outlook = outlook_of(count)
    outlook.admit(model, np.arange(count))
    if forecast:
        outlook.put(np.arange(count), promising(count))
    return outlook


def reason(outlook: Outlook) -> str:
    assert outlook.decision.gate[0] in ("", outlook.decision.reason[0])
    assert (outlook.decision.side[0] == 0) == (outlook.decision.reason[0] != ENTER_LONG)
    return str(outlook.decision.reason[0])


def test_the_edge_is_net_of_the_fee_of_the_pair_itself() -> None:
    fees = {PAIR: 0.002, "ETH/USDT": 0.0}
    terms = replace(TERMS, own_fee=fees.__getitem__)
    edges = []
    for pair in fees:
        outlook = Outlook(pair, np.zeros(1, np.int64), terms)
        outlook.put(np.arange(1), promising(1))
        edges.append(outlook.decision.edge[0])
    assert edges[1] - edges[0] == pytest.approx(2 * 0.002, abs=1e-15)


@pytest.mark.parametrize("side", [1, -1])
def test_funding_is_in_edge_column_and_line_of_the_candles_that_cross_a_payment(side: int) -> None:
    paid = {0: 0.0, 1: 0.003, 2: -0.003}

    def funding(pair: str, date_ms: Ints) -> Floats:
        assert pair == PAIR
        return np.array([paid[number] for number in (date_ms // STEP_MS).tolist()])

    made = promising(3)
    made = made if side > 0 else replace(made, mean=-made.mean)
    dates = STEP_MS * np.arange(3)
    outlooks = [Outlook(PAIR, dates, terms) for terms in (TERMS, replace(TERMS, funding=funding))]
    for outlook in outlooks:
        outlook.admit(model_with(), np.arange(3))
        outlook.put(np.arange(3), made)
    free, future = (outlook.decision.edge for outlook in outlooks)
    np.testing.assert_allclose(future - free, [0.0, -side * 0.003, side * 0.003], atol=1e-15)
    spot, columns = (outlook.columns(np.ones(3), STEP_MS) for outlook in outlooks)
    assert columns.keys() - spot.keys() == {"lstm_funding"}
    assert columns["lstm_funding"].tolist() == list(paid.values())
    lines = [outlooks[1].line(row) for row in range(3)]
    assert [line.partition("of which funding ")[2][:5] for line in lines] == [
        "", f"{-30 * side:+.1f}", f"{30 * side:+.1f}",
    ]  # fmt: skip


def test_a_forecast_of_a_skilled_and_calibrated_model_may_lead_to_an_entry() -> None:
    outlook = admitted(model_with())
    assert reason(outlook) == ENTER_LONG
    assert outlook.decision.gate[0] == ""
    assert outlook.version[0] == "v0"


def test_before_a_model_is_in_force_there_is_none() -> None:
    assert reason(outlook_of()) == NO_MODEL
    forecast_alone = outlook_of()
    forecast_alone.put(np.array([0]), promising(1))
    assert reason(forecast_alone) == NO_MODEL


def test_an_unknown_candle_is_called_so_whatever_else_stands_against_an_entry() -> None:
    for model in (model_with(), model_with(labels=0), model_with(p_value=1.0)):
        assert reason(admitted(model, forecast=False)) == NO_DATA
    stale = admitted(model_with(), forecast=False)
    stale.gate[:] = STALE_MODEL
    assert reason(stale) == NO_DATA


def test_a_failure_and_a_missing_model_are_not_called_unknown_candles() -> None:
    for code in (ERROR, NO_MODEL):
        outlook = outlook_of()
        outlook.gate[:] = code
        assert reason(outlook) == code


def test_a_stale_model_is_called_so_before_its_calibration_and_its_skill() -> None:
    for model in (model_with(), model_with(labels=0), model_with(p_value=1.0)):
        outlook = admitted(model)
        outlook.gate[:] = STALE_MODEL
        outlook.credit(np.array([0]), np.array(["other"], object), {"other": True})
        assert reason(outlook) == STALE_MODEL


@pytest.mark.parametrize("p_value", [0.0, 1.0])
def test_too_few_labels_forbid_an_entry_whatever_the_skill(p_value: float) -> None:
    assert reason(admitted(model_with(labels=GROWN - 1, p_value=p_value))) == CALIBRATING
    assert reason(admitted(model_with(labels=GROWN, p_value=p_value))) != CALIBRATING


def test_no_skill_forbids_an_entry_unless_the_settings_want_none() -> None:
    assert reason(admitted(model_with(p_value=SETTINGS.skill_p_value))) == ENTER_LONG
    assert reason(admitted(model_with(p_value=SETTINGS.skill_p_value + 1e-9))) == NO_SKILL
    careless = SETTINGS.model_copy(update={"require_skill": False})
    outlook = Outlook(PAIR, np.array([0]), replace(TERMS, settings=careless))
    outlook.admit(model_with(p_value=1.0), np.array([0]))
    outlook.put(np.array([0]), promising(1))
    assert reason(outlook) == ENTER_LONG


def test_of_several_models_each_candle_has_its_own() -> None:
    outlook = outlook_of(4)
    outlook.put(np.arange(4), promising(4))
    outlook.admit(model_with(p_value=1.0), np.array([1]))
    outlook.admit(model_with(labels=3, version="v1"), np.array([2]))
    outlook.admit(model_with(version="v2"), np.array([3]))
    assert outlook.decision.reason.tolist() == [NO_MODEL, NO_SKILL, CALIBRATING, ENTER_LONG]
    assert outlook.version.tolist() == ["", "v0", "v1", "v2"]
    full = SETTINGS.horizon * (1.0 / RATE - HASTE)
    wanted = [labels / full for labels in (0, GROWN, 3, GROWN)]
    assert outlook.trust.tolist() == pytest.approx(wanted)


def test_a_forecast_that_another_version_made_counts_by_that_ones_skill() -> None:
    for in_force, others, wanted in (
        (model_with(), False, NO_SKILL),
        (model_with(p_value=1.0), True, ENTER_LONG),
        (model_with(labels=0), True, CALIBRATING),
    ):
        outlook = admitted(in_force, 2)
        before = outlook.gate[1]
        outlook.credit(np.array([0]), np.array(["old"], object), {"old": others})
        assert reason(outlook) == wanted
        assert outlook.version.tolist() == ["old", "v0"]
        assert outlook.gate[1] == before
    nobody = outlook_of()
    nobody.put(np.array([0]), promising(1))
    nobody.credit(np.array([0]), np.array(["old"], object), {"old": True})
    assert reason(nobody) == NO_MODEL


def test_unusable_windows_stay_unknown_and_the_others_are_forecast() -> None:
    candles = with_flow(make_candles(WARM_UP + 60), holes=0.0)
    holed = change(drop(candles, [WARM_UP + 40]), -1, volume=0.0)
    outlook = Outlook(PAIR, holed.date_ms, TERMS)
    outlook.fill(model_with(), Frame(holed, SETTINGS), np.arange(1, len(holed)))
    known = np.isfinite(outlook.forecast.mean)
    decided = outlook.decision.reason
    assert np.flatnonzero(known)[0] == WARM_UP + SETTINGS.lookback - 1
    assert not known[WARM_UP + 40 :].any()
    assert decided[0] == NO_MODEL
    assert set(decided[1:][~known[1:]]) == {NO_DATA}
    assert set(decided[known]) <= {NO_EDGE, ENTER_LONG, "enter_short"}
    assert (outlook.forecast.mean_error[known] >= 0.0).all()


def test_the_columns_are_complete_and_say_prices_beside_returns() -> None:
    columns = admitted(model_with(), 3).columns(np.array([100.0, 200.0, 50.0]), STEP_MS)
    assert columns.keys() == {f"lstm_{name}" for name in COLUMNS}
    assert {len(column) for column in columns.values()} == {3}
    close, returns = np.array([100.0, 200.0, 50.0]), promising(3)
    for name, made in (
        ("", returns.mean), ("_low", returns.low), ("_high", returns.high),
        ("_lowest", returns.lowest), ("_highest", returns.highest),
    ):  # fmt: skip
        np.testing.assert_allclose(columns[f"lstm_price{name}"], close * np.exp(made))
    for name in ("mean", "mean_error", "low", "high", "lowest", "highest", "volatility"):
        np.testing.assert_array_equal(columns[f"lstm_{name}"], getattr(returns, name))
    assert (columns["lstm_kelly"] > 0.0).all()
    assert [type(columns[f"lstm_{name}"][0]) for name in ("gate", "reason", "version")] == [str] * 3


def due(outlook: Outlook, close: np.ndarray, end: str = "low") -> np.ndarray:
    return outlook.columns(close, STEP_MS)[f"lstm_due_{end}"]


def test_what_was_said_of_a_candle_stands_at_it_a_horizon_later_as_a_price() -> None:
    outlook, close = admitted(model_with(), 8), 100.0 * np.arange(1, 9)
    lead = SETTINGS.horizon
    for end in ("low", "high"):
        columns = outlook.columns(close, STEP_MS)
        assert np.isnan(columns[f"lstm_due_{end}"][:lead]).all()
        np.testing.assert_array_equal(
            columns[f"lstm_due_{end}"][lead:], columns[f"lstm_price_{end}"][:-lead]
        )
    assert np.isnan(due(admitted(model_with(), lead), np.ones(lead))).all()
    assert len(due(outlook_of(0), np.ones(0))) == 0


def test_what_was_said_is_found_by_time_across_holes_and_is_nothing_where_nothing_was() -> None:
    dates = STEP_MS * np.array([0, 1, 2, 4, 5, 6, 7])
    outlook = Outlook(PAIR, dates, TERMS)
    rows = np.array([0, 1, 2, 3, 5, 6])  # candle 5 is masked
    outlook.admit(model_with(version="v0"), np.arange(3))
    outlook.admit(model_with(version="v1"), np.arange(3, 7))
    outlook.put(rows, promising(len(rows)))
    close = 100.0 + np.arange(7.0)
    said = outlook.columns(close, STEP_MS)["lstm_price_low"]
    wanted = [math.nan, math.nan, math.nan, said[1], said[2], math.nan, said[3]]  # 3 apart
    assert SETTINGS.horizon == 3
    np.testing.assert_array_equal(due(outlook, close), wanted)


@given(st.integers(0, 8), st.integers(1, 12), st.data())
def test_what_is_due_depends_on_no_candle_after_and_on_none_before_the_horizon(
    first: int, count: int, data: st.DataObject
) -> None:
    opens = np.array(sorted(data.draw(st.sets(st.integers(0, 30), min_size=1, max_size=20))))
    close = np.linspace(50.0, 150.0, len(opens))
    outlook = Outlook(PAIR, STEP_MS * opens, TERMS)
    outlook.put(np.arange(len(opens)), promising(len(opens)))
    whole = due(outlook, close)
    part = slice(first, first + count)
    some = Outlook(PAIR, STEP_MS * opens[part], TERMS)
    some.put(np.arange(len(opens[part])), promising(len(opens[part])))
    old_enough = opens[part] - SETTINGS.horizon >= (opens[part][:1] if len(opens[part]) else 0)
    found = due(some, close[part])
    np.testing.assert_array_equal(found[old_enough], whole[part][old_enough])
    assert np.isnan(found[~old_enough]).all()


def test_the_gate_as_a_number_and_the_width_are_for_charts() -> None:
    open_, shut = (admitted(model_with(p_value=p)).columns(np.ones(1), STEP_MS) for p in (0.0, 1.0))
    assert (open_["lstm_gate_open"][0], shut["lstm_gate_open"][0]) == (1.0, 0.0)
    assert open_["lstm_width"][0] == open_["lstm_high"][0] - open_["lstm_low"][0]


NUMBER = st.one_of(st.floats(-2.0, 2.0), st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))
CODES = ("", ERROR, NO_MODEL, NO_DATA, STALE_MODEL, CALIBRATING, NO_SKILL)
CANDLE = st.tuples(
    st.lists(NUMBER, min_size=6 + len(LEVELS), max_size=6 + len(LEVELS)), st.sampled_from(CODES)
)


@pytest.mark.lengthy
@given(st.lists(CANDLE, max_size=6))
def test_whatever_is_no_number_crashes_nothing_and_enters_nothing(
    candles: list[tuple[list[float], str]],
) -> None:
    numbers = np.array([row for row, _ in candles]).reshape(-1, 6 + len(LEVELS))
    outlook = outlook_of(len(candles))
    columns = [numbers[:, -1 - place].copy() for place in range(5)]
    far = np.repeat(numbers[:, :1], 6, axis=1)
    made = Forecast(LEVELS, numbers[:, : len(LEVELS)], *columns, far=far)
    outlook.put(np.arange(len(candles)), made)
    outlook.gate[:] = [code for _, code in candles]
    outlook.trust[:] = np.clip(numbers[:, len(LEVELS)], 0.0, 1.0)
    found = outlook.columns(np.full(len(candles), 100.0), STEP_MS)
    for row, (_, code) in enumerate(candles):
        made = outlook.forecast.row(row)
        needed = (made.mean, made.mean_error, made.low, made.high, made.lowest, made.highest)
        known = np.isfinite(needed).all() and outlook.trust[row] > 0.0
        assert found["lstm_reason"][row] in REASONS
        assert found["lstm_kelly"][row] >= 0.0
        assert found["lstm_gate_open"][row] == (found["lstm_gate"][row] == "")
        assert outlook.line(row)
        if code or not known:
            assert found["lstm_side"][row] == 0
            assert found["lstm_gate"][row] != ""
