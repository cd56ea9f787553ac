"""The card says what a model is worth: signal is found, noise and bounce are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import make_candles, same_bits

from lstm_model.features.closed_candle import feature_names
from lstm_model.market.candles import Candles
from lstm_model.model.calibration import POOLED, Series, Widths, pooled, track
from lstm_model.model.dataset import TARGET_CLIP, Panel, Scaler, Split, build_panel, purged_split
from lstm_model.model.forecast import pinball_loss
from lstm_model.scoring import boosted, evaluation
from lstm_model.scoring.evaluation import Baselines, Evaluation, Outcomes, evidence_of
from lstm_model.settings import Settings

SETTINGS = Settings(lookback=10, horizon=2, validation_fraction=0.1, test_fraction=0.15)
VOLUME = feature_names(False).index("volume_48")
# Quantiles of the scaled return as a network that knows nothing but the deviation gives them.
SPREAD = np.array([-1.6, -1.2, -0.6, 0.0, 0.6, 1.2, 1.6])

Predict = Callable[[np.ndarray], np.ndarray]


def prepared(*series: Candles, settings: Settings = SETTINGS) -> tuple[Panel, Split]:
    panel = build_panel(series, settings)
    return panel, purged_split(panel, settings)


def baselines_of(panel: Panel, split: Split, settings: Settings = SETTINGS) -> Baselines:
    scaled = Scaler.fit(panel.rows[split.train]).transform(panel.rows)
    return Baselines(panel, split, settings, scaled)


def evaluate(
    panel: Panel, split: Split, settings: Settings, predict: Predict, *,
    shrinkage: float | None = None,
) -> Evaluation:  # fmt: skip
    beside = baselines_of(panel, split, settings)
    return evaluation.evaluate(beside, predict, shrinkage=shrinkage)


def around(location: np.ndarray) -> np.ndarray:
    return location[:, None] + SPREAD


def fitted(panel: Panel, split: Split) -> Predict:
    """A small stand-in for a network: least squares on the newest candle's features."""
    inputs = np.column_stack([panel.rows, np.ones(len(panel.rows))])
    seen = inputs[split.train]
    weights = np.linalg.lstsq(seen, panel.target()[split.train], rcond=None)[0]
    return lambda ends: around(inputs[ends] @ weights)


def guess(panel: Panel) -> Predict:
    location = np.random.default_rng(7).normal(size=len(panel.rows))
    return lambda ends: around(location[ends])


def one_pair(seed: int = 0, **options: float) -> tuple[Panel, Split]:
    return prepared(make_candles(4_000, seed=seed, **options))


@pytest.fixture(scope="module")
def signal() -> tuple[Panel, Split, Evaluation]:
    pairs = [make_candles(3_000, signal=0.4), make_candles(3_000, signal=0.4, seed=1, pair="E/U")]
    panel, split = prepared(*pairs)
    return panel, split, evaluate(panel, split, SETTINGS, fitted(panel, split))


def test_a_planted_signal_beats_zero_at_once_and_one_candle_late(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    made = signal[2]
    assert made.skill["r2_vs_zero"] > 0.05
    assert made.skill["r2_vs_zero_delayed"] > 0.03
    assert max(made.skill["p_value"], made.skill["p_value_delayed"]) < 0.05
    assert made.scores["lstm"]["hit_rate"] > 0.55
    assert made.calibration.shrinkage > 0.7


@pytest.mark.lengthy
def test_noise_has_no_skill_and_is_shrunk_away() -> None:
    shrinkages, proven = [], 0
    for seed in range(12):
        panel, split = one_pair(seed)
        made = evaluate(panel, split, SETTINGS, fitted(panel, split))
        shrinkages.append(made.calibration.shrinkage)
        proven += max(made.skill["p_value"], made.skill["p_value_delayed"]) <= 0.05
        assert made.skill["r2_vs_zero"] < 0.01
    assert np.mean(shrinkages) < 0.15
    assert proven <= 1


def test_a_wild_guess_is_worth_nothing_and_served_as_zero() -> None:
    panel, split = one_pair()
    made = evaluate(panel, split, SETTINGS, guess(panel))
    assert made.calibration.shrinkage < 0.05
    assert made.scores["lstm_raw"]["r2"] < -0.5
    assert made.skill["r2_vs_zero"] > -0.01


def test_a_true_signal_is_not_shrunk() -> None:
    panel, split = one_pair(signal=0.8)
    foretold = np.nan_to_num(panel.target()) + np.random.default_rng(0).normal(size=len(panel.rows))
    slope = 0.5  # of outcomes on a forecast with as much noise as signal
    made = evaluate(panel, split, SETTINGS, lambda ends: around(foretold[ends] * slope))
    assert made.calibration.shrinkage > 0.75


def test_a_reversed_signal_is_never_turned_around() -> None:
    panel, split = one_pair(signal=0.8)
    predict = fitted(panel, split)
    made = evaluate(panel, split, SETTINGS, lambda ends: around(-predict(ends)[:, 3]))
    assert made.calibration.shrinkage == 0.0
    assert made.skill["r2_vs_zero"] == 0.0
    assert made.skill["p_value"] == 1.0


def test_a_signal_is_worth_at_most_itself() -> None:
    panel, split = one_pair(signal=0.8)
    predict = fitted(panel, split)
    made = evaluate(panel, split, SETTINGS, lambda ends: around(0.1 * predict(ends)[:, 3]))
    assert made.calibration.shrinkage == 1.0


def test_bid_ask_bounce_pays_at_once_and_not_one_candle_late() -> None:
    settings = SETTINGS.model_copy(update={"horizon": 1})
    panel, split = prepared(make_candles(4_000, bounce=0.001), settings=settings)
    made = evaluate(panel, split, settings, fitted(panel, split))
    assert made.scores["reversal"]["r2"] > 0.05
    assert made.scores["reversal"]["hit_rate"] > 0.55
    assert made.scores["reversal_delayed"]["r2"] < 0.0
    assert made.skill["p_value"] < 0.05
    assert made.skill["p_value_delayed"] > 0.05


def test_every_score_has_its_delayed_twin(signal: tuple[Panel, Split, Evaluation]) -> None:
    scores, skill = signal[2].scores, signal[2].skill
    for name in ("lstm", "lstm_raw", "zero", "ridge", "reversal"):
        assert {"r2"} <= scores[name].keys() & scores[f"{name}_delayed"].keys()
    for name in ("r2_vs_zero", "r2_vs_ridge", "r2_vs_reversal", "p_value"):
        assert {name, f"{name}_delayed"} <= skill.keys()
    assert scores["zero"]["r2"] == scores["zero_delayed"]["r2"] == 0.0


def test_every_number_is_finite(signal: tuple[Panel, Split, Evaluation]) -> None:
    numbers = [x for entry in signal[2].scores.values() for x in entry.values()]
    assert np.isfinite([*numbers, *signal[2].skill.values()]).all()


def test_ridge_finds_a_linear_signal(signal: tuple[Panel, Split, Evaluation]) -> None:
    made = signal[2]
    assert made.scores["ridge"]["r2"] > 0.05
    assert abs(made.skill["r2_vs_ridge"]) < 0.05


def test_intervals_cover_what_they_promise_beside_ewmas(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    for name in ("lstm", "zero"):
        scores = signal[2].scores[name]
        assert scores["coverage"] == pytest.approx(0.9, abs=0.035)
        assert 0.0 < scores["pinball_bps"] < scores["width_bps"] < scores["winkler_bps"]
    assert signal[2].skill["winkler_vs_zero"] > 0.0


def test_intervals_stand_beside_plain_ones_overall_and_where_they_do_worst(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    scores = signal[2].scores
    measures = {
        "coverage", "coverage_worst_quintile", "coverage_worst_window", "width_bps", "winkler_bps",
        "pinball_bps",
    }  # fmt: skip
    for name in ("lstm", "lstm_uncalibrated", "zero", "har", "ewma_untracked", "constant"):
        assert measures <= scores[name].keys(), name
        assert scores[name]["coverage_worst_quintile"] <= scores[name]["coverage"]
        assert scores[name]["coverage_worst_window"] <= scores[name]["coverage"]
    assert scores["lstm"]["winkler_bps"] < scores["constant"]["winkler_bps"]
    raw = signal[2].calibration.spread(fitted(*signal[:2])(signal[1].test))[1]
    outside = np.abs(raw[:, 3] - signal[0].target()[signal[1].test]) > 1.6
    assert scores["lstm_uncalibrated"]["coverage"] == pytest.approx(1.0 - outside.mean(), abs=1e-9)


def test_rivals_are_tracked_as_the_network_is(signal: tuple[Panel, Split, Evaluation]) -> None:
    """Who says what a rival says has its scores."""
    panel, split, made = signal
    har = baselines_of(panel, split).har
    other = evaluate(
        panel, split, SETTINGS, lambda ends: har.predict(panel.rows[ends]), shrinkage=1.0
    )
    measures = made.scores["har"].keys()
    assert {name: other.scores["lstm"][name] for name in measures} == pytest.approx(
        made.scores["har"], rel=1e-9
    )
    assert made.scores["har"]["coverage"] == pytest.approx(0.9, abs=0.035)
    ratio = made.scores["lstm"]["winkler_bps"] / made.scores["har"]["winkler_bps"]
    assert made.skill["winkler_vs_har"] == 1.0 - ratio


def test_lightgbm_is_scored_where_it_is_installed_and_asked_for(
    signal: tuple[Panel, Split, Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel, split, quick = signal
    beside, predict = baselines_of(panel, split), fitted(panel, split)
    assert "lightgbm" not in quick.scores
    assert "lightgbm" not in evaluation.evaluate(beside, predict, thorough=True).scores
    monkeypatch.setattr(boosted, "is_installed", lambda: True)
    if find_spec("lightgbm") is None:
        pytest.skip('LightGBM is not installed: pip install "lightgbm>=4,<5"')
    alone = SETTINGS.model_copy(update={"train_threads": 1})
    made = evaluation.evaluate(baselines_of(panel, split, alone), predict, thorough=True)
    assert made.scores["lightgbm"].keys() == made.scores["har"].keys()
    assert made.scores["lightgbm"]["coverage"] == pytest.approx(0.9, abs=0.035)
    assert {name: entry for name, entry in made.scores.items() if name != "lightgbm"} == (
        quick.scores
    )


def test_every_pair_is_calibrated_and_a_new_one_gets_the_mean(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, split, made = signal
    widths = made.calibration.widths
    assert widths.keys() == {POOLED, "BTC/USDT", "E/U"}
    assert widths[POOLED] == pooled([widths["BTC/USDT"], widths["E/U"]])
    learnt = np.concatenate([split.validation, split.test])
    for number, pair in enumerate(panel.pairs):
        mine = learnt[panel.pair_index[learnt] == number]
        assert widths[pair].labels == len(mine)
        assert widths[pair].usual == pytest.approx(np.log(panel.volatility[mine]).mean())
        assert all(widths[pair].slopes)


def test_the_test_blocks_intervals_are_those_of_tracking_from_neutral_widths(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, split, made = signal
    predict = fitted(panel, split)
    rows = np.concatenate([split.validation, split.test])
    mine = rows[panel.pair_index[rows] == 0]
    unscaled = made.calibration.spread(predict(mine))[1]
    neutral = Widths.neutral(SETTINGS.levels)
    series = Series(unscaled, panel.reached(mine), neutral)
    [tracked] = track(SETTINGS.levels, [series], SETTINGS.horizon)
    assert tracked.widths == made.calibration.widths[panel.pairs[0]]


def test_reaches_hold_on_candles_that_came_later() -> None:
    """Calibrated on the first half of a series, counted on the second."""
    candles = make_candles(6_000)
    panel, split = prepared(candles.rows(0, 3_000))
    made = evaluate(panel, split, SETTINGS, lambda ends: around(np.zeros(len(ends))))
    whole = build_panel([candles], SETTINGS)
    later = np.flatnonzero(whole.usable & (whole.date_ms > panel.label_ms[-1]))
    raw, volatility = around(np.zeros(len(later))), whole.volatility[later]
    forecast = made.calibration.apply(raw, volatility, SETTINGS.horizon, "BTC/USDT")
    passed = [
        (whole.lowest[later] < forecast.lowest).mean(),
        (whole.highest[later] > forecast.highest).mean(),
    ]
    assert passed == pytest.approx([0.05, 0.05], abs=0.02)


def test_what_a_mean_is_worth_comes_with_its_error(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, split, made = signal
    assert 0.0 < made.calibration.shrinkage_error < made.calibration.shrinkage
    fewer = split._replace(validation=split.validation[::5])
    other = evaluate(panel, fewer, SETTINGS, fitted(panel, split))
    assert other.calibration.shrinkage_error > 1.4 * made.calibration.shrinkage_error
    worthless = evaluate(panel, split, SETTINGS, guess(panel)).calibration
    assert (worthless.shrinkage, worthless.shrinkage_error) == (0.0, 0.0)


def with_other_test_outcomes(panel: Panel, split: Split) -> Panel:
    realized, delayed = panel.realized.copy(), panel.delayed.copy()
    realized[split.test] = 5.0 * realized[split.test][::-1] + 0.01
    delayed[split.test] = -delayed[split.test]
    return replace(panel, realized=realized, delayed=delayed)


def test_no_outcome_of_the_test_block_changes_the_shrinkage(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, split, _ = signal
    made, other = (
        evaluate(p, split, SETTINGS, fitted(panel, split))
        for p in (panel, with_other_test_outcomes(panel, split))
    )
    assert made.calibration.shrinkage == other.calibration.shrinkage
    assert made.calibration.shrinkage_error == other.calibration.shrinkage_error
    assert made.scores["lstm"]["r2"] != other.scores["lstm"]["r2"]


def test_no_outcome_of_validation_or_test_changes_a_baseline_forecast(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    """The baselines' scores are functions of what they learnt from training rows alone."""
    panel, split, made = signal
    realized = panel.realized.copy()
    realized[split.validation] = 7.0
    other = evaluate(replace(panel, realized=realized), split, SETTINGS, fitted(panel, split))
    for name in ("ridge", "reversal"):
        assert other.scores[name] == made.scores[name]


def test_a_constant_forecast_is_scored_without_a_warning() -> None:
    panel, split = one_pair()
    made = evaluate(panel, split, SETTINGS, lambda ends: around(np.zeros(len(ends))))
    assert made.skill["r2_vs_zero"] == 0.0
    assert "hit_rate" not in made.scores["lstm"]


def test_correlated_pairs_do_not_count_twice() -> None:
    candles = make_candles(3_000, signal=0.15)
    panel, split = prepared(candles)
    alone = evaluate(panel, split, SETTINGS, fitted(panel, split))
    clones = [replace(candles, pair=f"C{number}/USDT") for number in range(5)]
    pooled, pooled_split = prepared(*clones)
    together = evaluate(pooled, pooled_split, SETTINGS, fitted(pooled, pooled_split))
    assert together.skill["p_value"] == pytest.approx(alone.skill["p_value"], rel=1e-3)
    assert together.calibration.shrinkage == pytest.approx(alone.calibration.shrinkage, rel=1e-3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_a_shrinkage_that_is_given_is_taken(
    signal: tuple[Panel, Split, Evaluation], shrinkage: float
) -> None:
    panel, split, free = signal
    made = evaluate(panel, split, SETTINGS, fitted(panel, split), shrinkage=shrinkage)
    assert (made.calibration.shrinkage, made.calibration.shrinkage_error) == (shrinkage, 0.0)
    assert made.scores["lstm"]["r2"] != free.scores["lstm"]["r2"]
    assert made.evidence.gain.any() == (shrinkage > 0.0)
    assert (made.scores["lstm"]["r2"] == 0.0) == (shrinkage == 0.0)
    assert made.scores["lstm_raw"] == free.scores["lstm_raw"]
    assert made.scores["lstm"]["coverage"] == pytest.approx(0.9, abs=0.035)


def test_outcomes_are_those_of_the_panel_in_units_of_volatility(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, rows = signal[0], signal[1].test[::-7]
    found = Outcomes.of(panel, rows)
    assert same_bits(found.date_ms, panel.date_ms[rows])
    assert same_bits(found.realized, panel.target()[rows])
    np.testing.assert_allclose(found.delayed, panel.target()[rows + 1] * growth(panel, rows))


def growth(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """Volatility one candle later, in units of the volatility that was known."""
    return np.asarray(panel.volatility[rows + 1] / panel.volatility[rows])


def test_a_crash_does_not_own_the_record(signal: tuple[Panel, Split, Evaluation]) -> None:
    panel, split, _ = signal
    crashed = replace(panel, realized=panel.realized - 9.0, delayed=panel.delayed + 9.0)
    found = Outcomes.of(crashed, split.test)
    assert (set(found.realized), set(found.delayed)) == ({-TARGET_CLIP}, {TARGET_CLIP})


LEVELS = (0.1, 0.5, 0.9)
NUMBERS = st.floats(-5.0, 5.0)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 4), NUMBERS, NUMBERS, NUMBERS,
        st.lists(NUMBERS, min_size=3, max_size=3).map(sorted),
    ), max_size=12,
)  # fmt: skip


@given(ROWS)
def test_a_record_has_one_row_per_moment_the_mean_over_pairs(rows: list[tuple[Any, ...]]) -> None:
    dates, realized, delayed, mean = (np.array([row[n] for row in rows], float) for n in range(4))
    quantiles = np.array([row[4] for row in rows]).reshape(-1, 3)
    outcomes = Outcomes(dates.astype(np.int64), realized, delayed)
    found = evidence_of(outcomes, mean, 2.0 * mean, quantiles, LEVELS)
    assert found.date_ms.tolist() == sorted({row[0] for row in rows})
    losses = pinball_loss(LEVELS, quantiles, realized)
    for number, date in enumerate(found.date_ms):
        mine = dates == date
        assert found.pinball[number] == pytest.approx(losses[mine].mean())
        for gain, came in ((found.gain, realized), (found.gain_delayed, delayed)):
            wanted = came[mine] ** 2 - (came[mine] - mean[mine]) ** 2
            assert gain[number] == pytest.approx(wanted.mean(), abs=1e-9)
        raw = 2.0 * mean[mine]
        assert found.product[number] == pytest.approx((raw * realized[mine]).mean(), abs=1e-9)
        assert found.power[number] == pytest.approx((raw**2).mean(), abs=1e-9)


def test_the_record_and_the_card_tell_the_same_skill(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, split, made = signal
    assert same_bits(made.evidence.date_ms, np.unique(panel.date_ms[split.test]))
    told = max(made.skill["p_value"], made.skill["p_value_delayed"])
    assert made.evidence.p_value(SETTINGS.horizon) == pytest.approx(told, rel=1e-6)
    losses = panel.target()[split.test] ** 2
    count = len(split.test) / len(made.evidence)
    saved = count * made.evidence.gain.sum() / losses.sum()
    assert saved == pytest.approx(made.skill["r2_vs_zero"], rel=0.05)


def test_the_record_is_of_calibrated_intervals(signal: tuple[Panel, Split, Evaluation]) -> None:
    """A network whose intervals are three times too wide is nearly as good once they are scaled."""
    panel, split, made = signal
    predict = fitted(panel, split)
    wide = evaluate(panel, split, SETTINGS, lambda ends: stretched(predict(ends)))
    outcomes = Outcomes.of(panel, split.test)
    raw = stretched(predict(split.test))
    unscaled = evidence_of(outcomes, raw[:, 3], raw[:, 3], raw, SETTINGS.levels)
    right = made.evidence.pinball.mean()
    assert wide.evidence.pinball.mean() < 1.4 * right < unscaled.pinball.mean()


def stretched(raw: np.ndarray) -> np.ndarray:
    return raw[:, 3:4] + 3.0 * (raw - raw[:, 3:4])


def test_no_outcome_changes_the_record_of_what_came_before(
    signal: tuple[Panel, Split, Evaluation],
) -> None:
    panel, split, made = signal
    moments = made.evidence.date_ms
    changed_ms = int(moments[len(moments) // 2])
    late = panel.date_ms >= changed_ms
    realized = np.where(late, 3.0 * panel.realized, panel.realized)
    other = evaluate(replace(panel, realized=realized), split, SETTINGS, fitted(panel, split))
    differs = made.evidence.pinball != other.evidence.pinball
    assert moments[differs].min() == changed_ms
    assert differs[moments >= changed_ms].mean() > 0.95


def test_baselines_are_the_same_for_whoever_is_asked_second() -> None:
    panel, split = one_pair()
    beside = baselines_of(panel, split)
    evaluation.evaluate(beside, guess(panel), shrinkage=0.0)
    second = evaluation.evaluate(beside, fitted(panel, split))
    assert second.scores == evaluate(panel, split, SETTINGS, fitted(panel, split)).scores
