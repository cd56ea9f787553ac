"""Targets look ahead only; windows, blocks and the scaler keep what is later out."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from series import STEP_MS, change, drop, make_candles, same_bits, with_flow

from lstm_model.errors import DataError
from lstm_model.features.closed_candle import WARM_UP, FeatureRows, compute_features
from lstm_model.market.candles import Candles
from lstm_model.model.dataset import (
    MAX_EMPTY_FRACTION,
    TARGET_CLIP,
    Panel,
    Panels,
    Scaler,
    Split,
    build_panel,
    purged_split,
    reached_returns,
    realized_return,
    usable_windows,
)
from lstm_model.settings import Settings

SETTINGS = Settings(lookback=10, horizon=4)


HOLED = build_panel(
    [
        make_candles(1_500),
        drop(make_candles(1_500, pair="ETH/USDT", seed=2), slice(900, 905)),
    ],
    SETTINGS,
)


def same_panel(panel: Panel, other: Panel) -> bool:
    columns = [f.name for f in fields(Panel) if f.name not in ("pairs", "horizon")]
    return panel.pairs == other.pairs and all(
        same_bits(getattr(panel, name), getattr(other, name)) for name in columns
    )


def history(count: int, *, flow: bool) -> list[Candles]:
    """Three pairs: whole, with a hole, and of flow that is not known everywhere."""
    pairs = [make_candles(count, seed=n, pair=f"{n}/USDT", tick=0.05) for n in range(3)]
    pairs[1] = drop(pairs[1], slice(700, 705))
    return [with_flow(candles, seed=1) for candles in pairs] if flow else pairs


SPANS = st.tuples(st.integers(0, 400), st.integers(600, 1_500))


@pytest.mark.lengthy
@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(SPANS, min_size=2, max_size=4), st.booleans())
def test_a_panel_of_a_history_that_grows_is_the_one_built_from_nothing(
    spans: list[tuple[int, int]], flow: bool
) -> None:
    settings = SETTINGS.model_copy(update={"order_flow": flow})
    panels, whole = Panels(), history(1_500, flow=flow)
    for number, (start, stop) in enumerate(spans):
        # A pair leaves, and comes back.
        series = [candles.rows(start, stop) for candles in whole[number % 2 :]]
        assert same_panel(panels.build(series, settings), build_panel(series, settings))


@pytest.mark.parametrize("row", [800, 1_100, 1_150])
def test_features_are_computed_anew_where_a_candle_changed(row: int) -> None:
    panels, candles = Panels(), make_candles(1_400)
    panels.build([candles.rows(0, 1_200)], SETTINGS)
    changed = change(candles, row, close=1.001 * candles.close[row])
    later = [changed.rows(100, 1_400)]
    assert same_panel(panels.build(later, SETTINGS), build_panel(later, SETTINGS))


def test_of_a_history_that_grew_only_what_is_new_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panels, candles, asked = Panels(), make_candles(3_000), []

    def followed(candles: Candles, *, order_flow: bool = False) -> FeatureRows:
        asked.append(len(candles))
        return compute_features(candles, order_flow=order_flow)

    monkeypatch.setattr("lstm_model.model.dataset.compute_features", followed)
    panels.build([candles.rows(0, 2_500)], SETTINGS)
    panels.build([candles.rows(400, 2_900)], SETTINGS)
    assert asked == [2_500, WARM_UP, WARM_UP + 400]
    panels.forget()
    panels.build([candles.rows(500, 3_000)], SETTINGS)
    assert asked[3:] == [2_500]


@pytest.fixture
def panel() -> Panel:
    return HOLED


@given(st.integers(1, 8), st.integers(0, 2), st.integers(0, 59))
def test_a_target_looks_ahead_only(horizon: int, delay: int, row: int) -> None:
    candles = make_candles(60)
    before = realized_return(candles, horizon, delay)
    after = realized_return(change(candles, row, close=50.0), horizon, delay)
    differs = np.flatnonzero(~((before == after) | np.isnan(before)))
    ends = {row - delay - horizon, row - delay}
    last = len(candles) - horizon - delay
    assert set(differs.tolist()) == {end for end in ends if 0 <= end < last}


@given(st.integers(1, 8), st.integers(0, 2))
def test_a_target_is_the_return_someone_gets(horizon: int, delay: int) -> None:
    close = make_candles(60).close
    got = realized_return(make_candles(60), horizon, delay)
    for row in range(60):
        end = row + delay + horizon
        wanted = np.log(close[end] / close[row + delay]) if end < 60 else np.nan
        assert got[row] == pytest.approx(wanted, nan_ok=True)


def test_the_delayed_twin_is_the_target_of_the_next_candle() -> None:
    candles = make_candles(60)
    at_once, late = realized_return(candles, 4), realized_return(candles, 4, delay=1)
    assert same_bits(late[:-1], at_once[1:])
    assert np.isnan(late[-5:]).all()


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_a_series_shorter_than_the_horizon_has_no_targets(count: int) -> None:
    candles = make_candles(10).rows(0, count)
    assert np.isnan(realized_return(candles, 5)).all()
    assert np.isnan(reached_returns(candles, 5)).all()
    assert reached_returns(candles, 5)[0].shape == (count,)


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 99), st.sets(st.integers(0, 29)))
def test_the_price_on_the_way_is_that_of_the_next_candles_one_by_one(
    horizon: int, count: int, seed: int, holes: set[int]
) -> None:
    holed = [row for row in holes if row < count]
    candles = change(make_candles(30, seed=seed).rows(0, count), holed, low=np.nan)
    lowest, highest = reached_returns(candles, horizon)
    for row in range(count):
        low, high = (getattr(candles, name).tolist()[row + 1 :] for name in ("low", "high"))
        close = candles.close[row]
        if len(low) < horizon:
            assert np.isnan([lowest[row], highest[row]]).all()
        else:
            broken = np.isnan(low[:horizon]).any()
            wanted = np.nan if broken else np.log(min(low[:horizon]) / close)
            assert lowest[row] == pytest.approx(wanted, abs=1e-12, nan_ok=True)
            assert highest[row] == pytest.approx(np.log(max(high[:horizon]) / close), abs=1e-12)


def test_the_way_holds_the_return_and_the_candle_itself_is_not_on_it() -> None:
    candles = make_candles(60)
    lowest, highest = reached_returns(candles, 4)
    realized = realized_return(candles, 4)[:-4]
    assert (lowest[:-4] <= realized).all()
    assert (realized <= highest[:-4]).all()
    now = change(candles, 30, low=1.0, high=900.0)
    spoilt = reached_returns(now, 4)
    assert same_bits(spoilt[0][30:], lowest[30:])
    assert same_bits(spoilt[1][30:], highest[30:])
    assert np.flatnonzero(spoilt[0] != lowest)[:4].tolist() == [26, 27, 28, 29]


def test_a_hole_in_the_candles_makes_the_way_across_it_unknown(panel: Panel) -> None:
    holed = panel.pair_index == 1
    missing = np.flatnonzero(holed)[900:905]
    for column in (panel.lowest, panel.highest):
        assert np.isnan(column[missing[0] - SETTINGS.horizon : missing[-1] + 1]).all()
        assert np.isfinite(column[missing[0] - SETTINGS.horizon - 1])


def test_what_was_reached_is_in_units_of_volatility_over_the_horizon(panel: Panel) -> None:
    rows = np.flatnonzero(panel.usable)[::-5]
    realized, lowest, highest, volatility = panel.reached(rows)
    unit = panel.volatility[rows] * 2.0  # the square root of the horizon
    assert same_bits(volatility, panel.volatility[rows])
    np.testing.assert_allclose(realized * unit, panel.realized[rows], rtol=1e-12)
    np.testing.assert_allclose(lowest * unit, panel.lowest[rows], rtol=1e-12)
    np.testing.assert_allclose(highest * unit, panel.highest[rows], rtol=1e-12)


def test_a_panel_keeps_the_pairs_apart(panel: Panel) -> None:
    alone = [build_panel([make_candles(1_500)], SETTINGS)]
    holed = drop(make_candles(1_500, pair="ETH/USDT", seed=2), slice(900, 905))
    alone.append(build_panel([holed], SETTINGS))
    assert panel.pairs == ("BTC/USDT", "ETH/USDT")
    for name in (
        "date_ms", "label_ms", "rows", "volatility", "realized", "delayed", "lowest", "highest",
        "usable",
    ):  # fmt: skip
        joined = np.concatenate([getattr(part, name) for part in alone])
        assert same_bits(getattr(panel, name).astype(float), joined.astype(float)), name


def test_no_usable_window_holds_rows_of_another_pair(panel: Panel) -> None:
    for end in np.flatnonzero(panel.usable).tolist():
        window = slice(end - SETTINGS.lookback + 1, end + 1)
        assert len(set(panel.pair_index[window].tolist())) == 1
        assert set(np.diff(panel.date_ms[window]).tolist()) == {STEP_MS}
        assert np.isfinite(panel.rows[window]).all()


def test_every_usable_window_has_both_labels(panel: Panel) -> None:
    assert np.isfinite(panel.realized[panel.usable]).all()
    assert np.isfinite(panel.delayed[panel.usable]).all()
    assert np.abs(panel.target()[panel.usable]).max() <= TARGET_CLIP
    assert panel.usable.sum() > 1_500


def test_a_target_is_the_return_in_units_of_volatility(panel: Panel) -> None:
    row = int(np.flatnonzero(panel.usable)[7])
    assert panel.target()[row] == panel.realized[row] / (panel.volatility[row] * 2.0)


def test_a_crash_does_not_own_the_loss() -> None:
    crashed = build_panel([change(make_candles(600), slice(500, None), close=1e-3)], SETTINGS)
    assert np.nanmin(crashed.target()) == -TARGET_CLIP


@given(
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_windows_are_usable_exactly_as_documented(
    known: list[bool], sound: list[bool], lookback: int
) -> None:
    count = min(len(known), len(sound))
    rows = np.where(np.array(known[:count])[:, None], 1.0, np.nan)
    features = FeatureRows(rows, np.ones(count))
    got = usable_windows(features.known, np.array(sound[:count]), lookback)
    for end in range(count):
        window = slice(end - lookback + 1, end + 1)
        wanted = (
            end >= lookback - 1
            and all(known[:count][window])
            and sound[end]
            and sound[:count][window].count(False) <= MAX_EMPTY_FRACTION * lookback
        )
        assert got[end] == wanted


def test_an_empty_candle_is_forecast_by_none_and_seen_by_many() -> None:
    candles = change(make_candles(WARM_UP + 60), WARM_UP + 30, volume=0.0)
    usable = usable_windows(compute_features(candles).known, candles.sound(), 10)
    assert np.flatnonzero(~usable[WARM_UP + 9 :]).tolist() == [21]


@given(st.integers(-5, 1_505), st.integers(-5, 1_505))
def test_labelled_windows_begin_and_mature_within_the_time(start: int, end: int) -> None:
    panel = HOLED
    start_ms, end_ms = (int(panel.date_ms[0]) + row * STEP_MS for row in (start, end))
    wanted = [
        row
        for row in np.flatnonzero(panel.usable).tolist()
        if panel.date_ms[row] >= start_ms and panel.label_ms[row] <= end_ms
    ]
    assert panel.labelled_within(start_ms, end_ms).tolist() == wanted


def test_a_moment_parts_labelled_windows_but_for_those_that_span_it() -> None:
    panel, cut_ms = HOLED, int(HOLED.date_ms[700])
    older, newer = panel.labelled_within(0, cut_ms), panel.labelled_within(cut_ms, 2**62)
    assert panel.label_ms[older].max() == panel.date_ms[newer].min() == cut_ms
    between = np.setdiff1d(np.flatnonzero(panel.usable), np.concatenate([older, newer]))
    spans = (panel.date_ms[between] < cut_ms) & (panel.label_ms[between] > cut_ms)
    assert spans.all()
    assert len(between) == 2 * SETTINGS.horizon


def leaks(panel: Panel, split: Split) -> bool:
    """Whether a label of a block is known only after the next block begins."""
    return any(
        panel.label_ms[earlier].max() > panel.date_ms[later].min()
        for earlier, later in itertools.pairwise(split)
    )


SPLITS = st.tuples(st.integers(1, 40), st.floats(0.05, 0.3), st.floats(0.05, 0.29))


@hypothesis_settings(max_examples=15)
@given(SPLITS)
def test_no_label_of_a_block_is_known_after_the_next_begins(
    shape: tuple[int, float, float],
) -> None:
    horizon, validation, test = shape
    settings = Settings(
        lookback=10, horizon=horizon, validation_fraction=validation, test_fraction=test
    )
    series = [make_candles(2_000), make_candles(1_700, pair="ETH/USDT", start_ms=LATE)]
    panel = build_panel(series, settings)
    split = purged_split(panel, settings)
    assert not leaks(panel, split)
    assert all(panel.usable[rows].all() for rows in split)
    together = np.concatenate(split)
    assert len(set(together.tolist())) == len(together)


LATE = make_candles(2_000).date_ms[300].item()  # the second pair was listed later


def test_the_label_time_is_the_close_of_the_last_candle_it_needs(panel: Panel) -> None:
    candles, row = make_candles(1_500), 700
    changed = change(candles, row + SETTINGS.horizon, close=55.0)
    assert panel.realized[row] != build_panel([changed], SETTINGS).realized[row]
    assert panel.label_ms[row] == candles.date_ms[row + SETTINGS.horizon] + STEP_MS


def test_a_planted_leak_is_caught(panel: Panel) -> None:
    rows = np.flatnonzero(panel.usable & (panel.pair_index == 0))
    unpurged = Split(rows[:800], rows[800:900], rows[900:])
    assert leaks(panel, unpurged)
    shuffled = np.random.default_rng(0).permutation(rows)
    assert leaks(panel, Split(shuffled[:800], shuffled[800:900], shuffled[900:]))


def test_all_pairs_are_cut_at_the_same_moments(panel: Panel) -> None:
    split = purged_split(panel, SETTINGS)
    for rows in split:
        first = [panel.date_ms[rows[panel.pair_index[rows] == pair]].min() for pair in (0, 1)]
        assert abs(first[0] - first[1]) <= 10 * STEP_MS


def test_too_little_history_says_what_to_do() -> None:
    panel = build_panel([make_candles(800)], SETTINGS)
    with pytest.raises(
        DataError, match=r"\d+ complete windows in 800 candles, 1,000.*download-data --prepend"
    ):
        purged_split(panel, SETTINGS)


def test_no_history_at_all_says_what_to_do() -> None:
    panel = build_panel([make_candles(100)], SETTINGS)
    with pytest.raises(DataError, match=r"0 complete windows.*download-data.*doctor"):
        purged_split(panel, SETTINGS)


def test_the_scaler_knows_training_rows_alone(panel: Panel) -> None:
    split = purged_split(panel, SETTINGS)
    fitted = Scaler.fit(panel.rows[split.train])
    spoilt = panel.rows.copy()
    spoilt[np.concatenate([split.validation, split.test])] = 1e6
    again = Scaler.fit(replace(panel, rows=spoilt).rows[split.train])
    assert same_bits(fitted.mean, again.mean)
    assert same_bits(fitted.scale, again.scale)


def test_scaled_training_rows_have_mean_zero_and_deviation_one() -> None:
    rows = np.random.default_rng(0).normal([5.0, -3.0], [2.0, 0.1], size=(5_000, 2))
    scaled = Scaler.fit(rows).transform(rows)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, atol=1e-4)


def test_a_constant_feature_and_an_unknown_row_scale_to_zeros() -> None:
    scaler = Scaler.fit(np.full((10, 2), 3.0))
    assert scaler.transform(np.array([[3.0, 3.0], [np.nan, np.nan]])).tolist() == [[0, 0], [0, 0]]


def test_what_was_the_same_in_training_or_is_hidden_is_not_shown_later() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 4))
    rows[:, 1] = 0.4
    scaler = Scaler.fit(rows, hidden=[3])
    later = scaler.transform(np.array([[1.0, -7.0, 1.0, 1e6], [2.0, 0.4, 2.0, 0.0]]))
    assert (np.abs(later[:, [1, 3]]) < 1e-20).all()
    assert (np.abs(later[:, [0, 2]]) > 0.1).all()
