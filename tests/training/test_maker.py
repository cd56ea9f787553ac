"""A model's version is all that decides it; who needs it again finds it in the store."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instant_training import SETTINGS, InstantTraining, ScriptedTraining, make_maker
from live_world import TRAINER
from series import START_MS, STEP_MS, change, make_candles, same_bits

import lstm_model.training.maker
from lstm_model.durations import DAY_MS
from lstm_model.errors import DataError, StoreError, TrainingError
from lstm_model.features.closed_candle import OF_THE_WEEK, WARM_UP, feature_names
from lstm_model.learning.contender import Contender
from lstm_model.market.candles import Candles, Ints, unknown_flow
from lstm_model.model.calibration import Calibration, rescale
from lstm_model.model.dataset import Panel, Panels, Scaler, Split
from lstm_model.model.forecast import pinball_loss
from lstm_model.model.gate import Evidence, Worth
from lstm_model.model.lstm import Lstm
from lstm_model.model.mean import Windows, learn_mean
from lstm_model.model.model import Model
from lstm_model.model.weights import baseline_weights
from lstm_model.scoring.evaluation import evaluate
from lstm_model.settings import Settings
from lstm_model.training.job import Progress
from lstm_model.training.maker import Candidate, ModelMaker, Training
from lstm_model.training.material import Material

COUNT = 1_700
SERIES = [
    make_candles(COUNT, signal=2.0),
    make_candles(COUNT, signal=2.0, seed=1, pair="ETH/USDT"),
]
BOUNDARY = START_MS + 1_600 * STEP_MS
LATER = BOUNDARY + 100 * STEP_MS
RECENT_BEGIN = LATER - SETTINGS.finetune_recent_candles * STEP_MS
HELD_OUT_BEGIN = LATER - 20 * STEP_MS  # a tenth of them

VARIED = {"created_ms": 0, "checksums": {}}


def settings_with(**options: Any) -> Settings:
    return Settings.model_validate(SETTINGS.model_dump() | options)


@cache
def material(boundary_ms: int = BOUNDARY, settings: Settings = SETTINGS) -> Material:
    """Built once for all makers that see the same candles."""
    return make_maker(Path("unused"), SERIES, settings).material(boundary_ms)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> InstantTraining:
    instant = InstantTraining()
    monkeypatch.setattr(TRAINER, instant)
    return instant


@pytest.fixture
def maker(tmp_path: Path, training: InstantTraining) -> ModelMaker:
    return make_maker(tmp_path / "lstm", SERIES)


def served(made: Candidate, settings: Settings = SETTINGS) -> Model:
    return Model.of(made.stored, settings)


def same_record(left: Evidence, right: Evidence) -> bool:
    return all(same_bits(left.arrays()[name], right.arrays()[name]) for name in left.arrays())


# What a model is made from, and its version


def version_of(series: list[Candles], settings: Settings = SETTINGS, kind: str = "scratch") -> str:
    maker = make_maker(Path("unused"), series, settings)
    return maker.version(maker.material(BOUNDARY), kind)


def test_training_candles_end_with_the_boundary() -> None:
    assert material().pairs == ("BTC/USDT", "ETH/USDT")
    for candles in material().candles:
        assert candles.date_ms[-1] + STEP_MS == BOUNDARY
        assert len(candles) == SETTINGS.train_candles + WARM_UP + SETTINGS.lookback


@pytest.mark.lengthy
@given(st.integers(0, COUNT - 1), st.sampled_from(["open", "high", "low", "close", "volume"]))
def test_a_version_changes_with_each_candle_it_learns_from_and_with_no_other(
    row: int, column: str
) -> None:
    dates, window = SERIES[1].date_ms, material().candles[1]
    value = float(np.nextafter(getattr(SERIES[1], column)[row], np.inf))
    learnt = window.date_ms[0] <= dates[row] <= window.date_ms[-1]
    if dates[row] < window.date_ms[0]:  # a sum over whole days, also from the candle before them
        value *= 1.01
        first_ms = START_MS + DAY_MS - (STEP_MS if column == "close" else 0)
        learnt = column in ("high", "low", "close") and dates[row] >= first_ms
    changed = change(SERIES[1], row, **{column: value})
    versions = [version_of([SERIES[0], other]) for other in (SERIES[1], changed)]
    assert (versions[0] != versions[1]) == learnt


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 2}, {"units": 12}, {"horizon": 3}, {"levels": (0.1, 0.5, 0.9)},
        {"learning_rate": 0.01}, {"test_fraction": 0.2}, {"train_candles": 1_100},
        {"epoch_windows": 2_000}, {"pool_candles": 20_000},
    ],
)  # fmt: skip
def test_a_version_changes_with_what_decides_the_weights(options: dict[str, Any]) -> None:
    assert version_of(SERIES, settings_with(**options)) != version_of(SERIES)


@pytest.mark.parametrize(
    "options",
    [
        {"train_threads": 1}, {"train_timeout_s": 99}, {"require_skill": False},
        {"skill_p_value": 0.5}, {"slippage_fraction": 0.01}, {"kelly_fraction": 1.0},
        {"max_stake_fraction": 0.5}, {"store_dir": "x"}, {"journal_url": "sqlite://"},
        {"finetune_epochs": 9}, {"step_candles": 60}, {"promotion_error": 0.01},
    ],
)  # fmt: skip
def test_a_version_does_not_change_with_what_only_serves_or_comes_later(
    options: dict[str, Any],
) -> None:
    assert version_of(SERIES, settings_with(**options)) == version_of(SERIES)


FLOWING = settings_with(order_flow=True)


def flowing(candles: Candles, coverage: float = 1.0) -> Candles:
    """The candles with an order flow that says takers bought half of everything."""
    flow = unknown_flow(candles.date_ms)
    flow["trades"], flow["coverage"] = 20.0, coverage
    flow["volume"], flow["quote_volume"] = candles.volume, candles.volume * candles.close
    flow["taker_base"], flow["taker_quote"] = flow["volume"] / 2, flow["quote_volume"] / 2
    return candles.with_flow(flow)


def with_record(candles: Candles, row: int, name: str, value: float) -> Candles:
    assert candles.flow is not None
    flow = candles.flow.copy()
    flow[name][row] = value
    return candles.with_flow(flow)


@pytest.mark.lengthy
@given(
    st.integers(0, COUNT - 1),
    st.sampled_from(
        ["trades", "volume", "quote_volume", "taker_base", "taker_quote", "coverage",
         "realized_volatility", "largest"]
    ),
)  # fmt: skip
def test_a_version_changes_with_the_flow_it_learns_from_and_with_no_other(
    row: int, name: str
) -> None:
    candles = flowing(SERIES[1])
    changed = with_record(candles, row, name, 0.25)
    window = material().candles[1]
    learnt = window.date_ms[0] <= candles.date_ms[row] <= window.date_ms[-1]
    versions = [version_of([SERIES[0], it], FLOWING) for it in (candles, changed)]
    of_use = name not in ("realized_volatility", "largest")
    assert (versions[0] != versions[1]) == (learnt and of_use)


def test_without_order_flow_a_version_does_not_depend_on_it() -> None:
    with_flow = [flowing(candles) for candles in SERIES]
    assert version_of(with_flow) == version_of(SERIES)
    assert version_of(SERIES, FLOWING) != version_of(SERIES)


def test_unknown_flow_is_one_version_however_it_is_written() -> None:
    other_nan = np.array([0x7FF8_0000_0000_0001], np.uint64).view(np.float64)[0]
    odd = SERIES[1].with_flow(unknown_flow(SERIES[1].date_ms))
    odd = with_record(with_record(odd, 1_300, "trades", other_nan), 1_301, "coverage", -0.0)
    versions = [version_of([SERIES[0], other], FLOWING) for other in (SERIES[1], odd)]
    assert versions[0] == versions[1]


def test_a_version_names_its_pairs_not_their_order() -> None:
    assert version_of(SERIES[::-1]) == version_of(SERIES)
    assert version_of(SERIES[:1]) != version_of(SERIES)
    assert version_of([replace(SERIES[0], pair="A/USDT"), SERIES[1]]) != version_of(SERIES)


def test_with_many_pairs_each_gives_fewer_candles() -> None:
    many = [replace(SERIES[0], pair=f"C{number}/USDT") for number in range(20)]
    maker = make_maker(Path("unused"), many, settings_with(train_candles=1_400))
    found = maker.material(BOUNDARY).candles
    assert {len(candles) for candles in found} == {10_000 // 20 + WARM_UP + SETTINGS.lookback}
    assert {candles.date_ms[-1] + STEP_MS for candles in found} == {BOUNDARY}
    assert version_of(many) != version_of(many[:19])


def test_a_pair_with_too_little_history_is_left_out(maker: ModelMaker, tmp_path: Path) -> None:
    young = make_candles(300, pair="NEW/USDT", start_ms=BOUNDARY - 100 * STEP_MS)
    absent = make_maker(tmp_path, [*SERIES, young])
    assert absent.baseline(absent.material(BOUNDARY)).stored.card.pairs == maker.pairs


def test_material_is_gathered_from_what_is_known_then(tmp_path: Path) -> None:
    maker = make_maker(tmp_path, [candles.rows(0, 1_500) for candles in SERIES])
    for candles in SERIES:
        maker.history.remember(candles.rows(1_400, COUNT))
    assert maker.material(BOUNDARY).digest == material().digest
    alone = maker.material(BOUNDARY, {"ETH/USDT": SERIES[1]}.get)
    assert [candles.pair for candles in alone.candles] == ["ETH/USDT"]


@pytest.mark.parametrize("kind", ["scratch", "baseline"])
def test_no_history_says_which_command_downloads_it(maker: ModelMaker, kind: str) -> None:
    early = maker.material(START_MS + 10 * STEP_MS)
    with pytest.raises(
        DataError,
        match=r"no 5m candles of BTC/USDT, ETH/USDT .* 2023\d{4}- --pairs BTC/USDT ETH/USDT --pr",
    ):
        getattr(maker, kind)(early)


@pytest.mark.parametrize("kind", ["scratch", "baseline"])
def test_too_little_history_trains_nothing(
    maker: ModelMaker, training: InstantTraining, kind: str
) -> None:
    early = maker.material(START_MS + 700 * STEP_MS)
    with pytest.raises(DataError, match="too little history"):
        getattr(maker, kind)(early)
    assert not training.jobs
    assert not maker.store.cards()


ABSENCE = "lstm_model.training.absence"  # what candles are seen in, see `test_absence`


def test_unknown_order_flow_is_told_before_training(caplog: pytest.LogCaptureFixture) -> None:
    def told(series: list[Candles], settings: Settings) -> list[str]:
        caplog.clear()
        make_maker(Path("unused"), series, settings).material(BOUNDARY).check()
        return [r.message for r in caplog.records if r.name != ABSENCE]

    known = [flowing(candles) for candles in SERIES]
    assert told([known[0], SERIES[1]], FLOWING) == [
        f"{SERIES[1].pair}: order flow is known of 0 % of the candles to train on; run "
        "`freqtrade-lstm download-flow`"
    ]
    assert not told(known, FLOWING)
    assert not told(SERIES, SETTINGS)


def test_missing_candles_are_told_before_training(caplog: pytest.LogCaptureFixture) -> None:
    holed = SERIES[0].rows(0, 1_000).then(SERIES[0].rows(1_200, COUNT))
    make_maker(Path("unused"), [holed]).material(BOUNDARY).check()
    assert [r.message for r in caplog.records if r.name != ABSENCE] == [
        "BTC/USDT: 16 % of the candles to train on are missing; run `freqtrade download-data "
        "--timeframes 5m`"
    ]


# From scratch


def test_what_was_made_is_found_and_nothing_is_trained_again(
    maker: ModelMaker, training: InstantTraining, tmp_path: Path
) -> None:
    made = maker.scratch(material())
    again = make_maker(tmp_path / "lstm", SERIES, settings_with(train_threads=1))
    for other in (maker, again):
        found = other.scratch(other.material(BOUNDARY))
        assert found.stored.card == made.stored.card
        assert found.unseen_ms == made.unseen_ms
        assert same_record(found.evidence, made.evidence)
    assert len(training.jobs) == 1


def test_the_same_candles_make_the_same_model(tmp_path: Path, training: InstantTraining) -> None:
    one, two = (make_maker(tmp_path / name, SERIES).scratch(material()).stored for name in "ab")
    assert all(same_bits(one.weights[name], two.weights[name]) for name in one.weights)
    assert one.card.model_copy(update=VARIED) == two.card.model_copy(update=VARIED)
    assert len(training.jobs) == 2


def test_the_card_says_what_the_model_was_made_from(maker: ModelMaker) -> None:
    card = maker.scratch(material()).stored.card
    lag_ms = SETTINGS.training_lag_candles * STEP_MS
    assert (card.train_end_ms, card.serves_from_ms) == (BOUNDARY, BOUNDARY + lag_ms)
    assert card.train_start_ms == material().candles[0].date_ms[0]
    assert card.pairs == ("BTC/USDT", "ETH/USDT")
    assert (card.timeframe, card.feature_names) == ("5m", feature_names(False))
    assert (card.version, card.kind, card.parent) == (maker.version(material()), "scratch", None)
    assert card.windows["train"] > 1_000 > card.windows["test"] > card.windows["validation"] > 10


def test_the_record_is_of_candles_that_had_no_part_in_the_model(maker: ModelMaker) -> None:
    made, panel, split = maker.scratch(material()), material().panel, material().split
    assert made.unseen_ms == panel.date_ms[split.test].min()
    assert made.unseen_ms >= panel.label_ms[np.concatenate([split.train, split.validation])].max()
    assert made.evidence.date_ms[0] == made.unseen_ms
    assert made.evidence.date_ms[-1] < BOUNDARY


def test_the_job_holds_only_candles_of_the_past(
    maker: ModelMaker, training: InstantTraining
) -> None:
    maker.scratch(material())
    job = training.jobs[0]
    assert len(job.rows) == 2 * (SETTINGS.train_candles + WARM_UP + SETTINGS.lookback)
    assert job.train_ends.max() < len(job.rows)
    assert job.initial is None
    assert job.settings == SETTINGS.model_copy(update={"train_python": sys.executable})


def test_validation_looks_at_a_quarter_of_an_epochs_windows_at_most(
    tmp_path: Path, training: InstantTraining
) -> None:
    few = settings_with(epoch_windows=1_000, validation_fraction=0.2, test_fraction=0.1)
    maker = make_maker(tmp_path, SERIES, few)
    made = maker.scratch(material(BOUNDARY, few))
    whole = material(BOUNDARY, few).split.validation
    assert 250 < len(whole) <= 500
    assert same_bits(training.jobs[0].validation_ends, whole[::2].astype(np.int32))
    assert made.stored.card.windows["validation"] == len(whole)


def test_a_model_is_evaluated_pair_by_pair_as_in_one_block(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, asked = Lstm.predict, []

    def followed(lstm: Lstm, rows: np.ndarray, ends: np.ndarray) -> np.ndarray:
        asked.append(ends)
        return predict(lstm, rows, ends)

    monkeypatch.setattr(Lstm, "predict", followed)
    made, panel = maker.scratch(material()), material().panel
    assert [set(panel.pair_index[ends].tolist()) for ends in asked] == [{0}, {1}] * 2
    lstm = Lstm(made.stored.weights, SETTINGS.lookback)
    whole = evaluate(material().baselines, lambda ends: predict(lstm, panel.rows, ends))
    assert same_record(made.evidence, whole.evidence)
    assert made.stored.card.calibration == whole.calibration.to_card()


def test_few_validation_windows_are_all_looked_at(
    maker: ModelMaker, training: InstantTraining
) -> None:
    maker.scratch(material())
    whole = material().split.validation
    assert same_bits(training.jobs[0].validation_ends, whole.astype(np.int32))


def test_the_planted_signal_is_learnt(maker: ModelMaker) -> None:
    """Else the tests with this trainer would compare zeros with zeros."""
    model = served(maker.scratch(material()))
    assert model.is_skilled(SETTINGS)
    assert model.calibration.shrinkage > 0.5


def test_a_mean_of_zero_is_worth_nothing_and_disturbs_nothing(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `learn_mean` leaves it where no penalty gains anything; warnings are errors here."""

    def nothing(weights: Any, windows: Windows) -> Any:
        made = learn_mean(weights, windows)
        return {n: 0.0 * a if n.startswith("mean/") else a for n, a in made.items()}

    monkeypatch.setattr(lstm_model.training.maker, "learn_mean", nothing)
    made, panel, test = maker.scratch(material()), material().panel, material().split.test
    card = made.stored.card
    assert card.calibration["shrinkage"] == [0.0, 0.0]
    assert (card.p_value, card.scores["lstm"]["r2"]) == (1.0, 0.0)
    assert not made.evidence.power.any()
    assert made.evidence.p_value(SETTINGS.horizon) == 1.0
    assert entering(made).worth == Worth(0.0, 0.0)
    forecast = served(made).forecast("BTC/USDT", panel.rows, panel.volatility, test)
    assert not forecast.mean.any()
    assert not forecast.mean_error.any()
    assert made.evidence.pinball.mean() < maker.baseline(material()).evidence.pinball.mean() * 1.05


def test_the_job_folder_is_removed_whatever_happens(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = tmp_path / "temporary"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    maker.scratch(material())
    assert not list(folders.iterdir())
    seen = []

    def fail(_: Any, workdir: Path, *__: Any, **___: Any) -> None:
        seen.append(workdir)
        raise TrainingError("no")

    monkeypatch.setattr(TRAINER, ScriptedTraining(fail))
    with pytest.raises(TrainingError, match="no"):
        maker.scratch(material(LATER))
    assert [folder.parent for folder in seen] == [folders]
    assert not list(folders.iterdir())


def test_a_training_is_run_as_it_was_asked_for(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant, found = InstantTraining(), []

    def follow(*arguments: Any, **options: bool) -> Any:
        found.append((arguments[3], options))
        return instant.run(*arguments, **options)

    def stop() -> bool:
        return False

    told: list[Progress] = []
    monkeypatch.setattr(TRAINER, ScriptedTraining(follow))
    made = maker.scratch(material(), Training(told.append, stop, background=True))
    maker.finetune(material(LATER), served(made), made.evidence, Training(ahead=True))
    assert [progress.fraction for progress in told] == [1.0]
    assert found == [
        (stop, {"background": True, "ahead": False}), (None, {"background": False, "ahead": True}),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["scratch", "baseline"])
def test_an_unwritable_store_is_noticed_before_training(
    tmp_path: Path, training: InstantTraining, kind: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    maker = make_maker(tmp_path / "file", SERIES)
    with pytest.raises(StoreError, match="cannot write"):
        getattr(maker, kind)(material())
    assert not training.jobs


# A stored version, ready to serve


def test_a_model_for_other_settings_or_features_is_refused(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = maker.scratch(material())
    with pytest.raises(StoreError, match="other settings; train anew"):
        served(made, settings_with(lookback=9))
    monkeypatch.setattr("lstm_model.model.model.feature_names", lambda _: ("tea_leaves",))
    with pytest.raises(StoreError, match="other features; train anew"):
        served(made)


@pytest.mark.parametrize(
    ("at_once", "late", "skilled"),
    [(0.01, 0.01, True), (0.01, 0.2, False), (0.2, 0.01, False), (0.05, 0.05, True)],
)
def test_skill_must_be_significant_at_once_and_one_candle_late(
    maker: ModelMaker, at_once: float, late: float, skilled: bool
) -> None:
    stored = maker.baseline(material()).stored
    skill = stored.card.skill | {"p_value": at_once, "p_value_delayed": late}
    card = stored.card.model_copy(update={"skill": skill})
    model = Model.of(replace(stored, card=card), SETTINGS)
    assert model.p_value == max(at_once, late)
    assert model.is_skilled(SETTINGS) == skilled
    assert model.is_skilled(settings_with(require_skill=False))


def test_what_was_learnt_of_a_models_skill_since_counts(maker: ModelMaker) -> None:
    model = served(maker.scratch(material()))
    assert model.is_skilled(SETTINGS)
    assert not replace(model, p_value=0.06).is_skilled(SETTINGS)


# The baseline


def wanted_of(found: Material, rows: Ints) -> np.ndarray:
    """(N, K) what champion number zero is to say: HAR's quantiles, or those of the past."""
    beside = found.baselines
    plain = beside.ewma - beside.ewma[len(beside.ewma) // 2]
    made = {
        "HAR": beside.har.predict(found.panel.rows[rows]), "EWMA": np.tile(plain, (len(rows), 1))
    }  # fmt: skip
    return made[foretells_better(found)]


def foretells_better(found: Material) -> str:
    """Who had the lower pinball loss on the validation block."""
    beside, rows = found.baselines, found.split.validation
    target, levels = found.panel.target()[rows], SETTINGS.levels
    har = pinball_loss(levels, beside.har.predict(found.panel.rows[rows]), target).mean()
    ewma = pinball_loss(levels, np.tile(beside.ewma, (len(rows), 1)), target).mean()
    return "HAR" if har < ewma else "EWMA"


@pytest.mark.parametrize("better", ["HAR", "EWMA"])
def test_the_baseline_answers_what_foretells_better(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    found = maker.material(BOUNDARY)
    assert foretells_better(found) == "HAR"
    if better == "EWMA":  # as if volatility had foretold nothing but noise
        blind = replace(
            found.baselines.har, weights=(*(-1.0 for _ in found.baselines.har.columns), 0.0)
        )
        found.baselines.__dict__["har"] = blind
    assert foretells_better(found) == better
    weights, rows = found.baselines.zero_weights(), found.split.test
    assert ("scale/bias" in weights) == (better == "HAR")
    raw = Lstm(weights, SETTINGS.lookback).predict(found.panel.rows, rows)
    np.testing.assert_allclose(raw, wanted_of(found, rows), rtol=1e-4, atol=1e-5)


def test_the_baseline_forecasts_a_zero_mean_and_is_calibrated_as_a_network(
    maker: ModelMaker,
) -> None:
    model, panel, test = served(maker.baseline(material())), material().panel, material().split.test
    made = model.forecast("BTC/USDT", panel.rows, panel.volatility, test)
    assert not made.mean.any()
    assert not made.mean_error.any()
    unit = panel.unit[test]
    assert unit.max() > 1.5 * unit.min()
    scales = model.calibration.widths_of("BTC/USDT").at(panel.volatility[test])
    wanted = rescale(wanted_of(material(), test), scales)
    np.testing.assert_allclose(made.quantiles / unit[:, None], wanted, atol=2e-4)
    assert (np.diff(made.quantiles, axis=1) > 0.0).all()


def test_the_baseline_is_what_every_card_compares_with(maker: ModelMaker) -> None:
    scores = maker.baseline(material()).stored.card.scores
    beside = {"HAR": "har", "EWMA": "zero"}[foretells_better(material())]
    for name in ("coverage", "width_bps", "winkler_bps", "pinball_bps"):
        assert scores["lstm"][name] == pytest.approx(scores[beside][name], rel=1e-3)
    assert scores["lstm"]["r2"] == 0.0


class CountedTrees:
    """Stands in for LightGBM; counts how often it was asked to learn."""

    fits = 0

    @classmethod
    def fit(cls, panel: Panel, split: Split, settings: Settings) -> CountedTrees:
        cls.fits += 1
        return cls()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return np.tile(np.linspace(-1.6, 1.6, len(SETTINGS.levels)), (len(rows), 1))


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> type[CountedTrees]:
    """LightGBM is installed, as it seems."""
    monkeypatch.setattr(CountedTrees, "fits", 0)
    monkeypatch.setattr("lstm_model.scoring.boosted.is_installed", lambda: True)
    monkeypatch.setattr("lstm_model.scoring.evaluation.Boosted", CountedTrees)
    return CountedTrees


def test_lightgbm_is_scored_once_when_a_card_is_made(
    maker: ModelMaker, trees: type[CountedTrees], caplog: pytest.LogCaptureFixture
) -> None:
    fresh = maker.material(BOUNDARY)
    with caplog.at_level("INFO"):
        made = maker.scratch(fresh)
    assert {"lightgbm", "har", "zero"} <= made.stored.card.scores.keys()
    assert f"Scoring {made.stored.card.version} beside LightGBM" in caplog.text
    assert trees.fits == 1
    found = maker.scratch(maker.material(BOUNDARY))
    assert same_record(found.evidence, made.evidence)
    assert trees.fits == 1


def test_lightgbm_is_left_out_where_nobody_is_to_wait_for_it(
    maker: ModelMaker, trees: type[CountedTrees]
) -> None:
    lesson = Training(background=True, thorough=False)
    card = maker.scratch(maker.material(BOUNDARY), lesson).stored.card
    assert "har" in card.scores
    assert "lightgbm" not in card.scores
    baseline = maker.baseline(maker.material(BOUNDARY)).stored.card
    assert "lightgbm" not in baseline.scores
    assert trees.fits == 0


def test_the_baselines_card_says_that_nothing_was_trained(
    maker: ModelMaker, training: InstantTraining
) -> None:
    made = maker.baseline(material())
    card = made.stored.card
    assert (card.kind, card.parent, card.epochs, card.seconds) == ("baseline", None, 0, 0.0)
    assert (made.stored.network, card.p_value) == (None, 1.0)
    assert not made.evidence.gain.any()
    assert not served(made).is_skilled(SETTINGS)
    assert not training.jobs


def test_the_baseline_has_a_version_of_its_own_that_changes_with_the_data(
    maker: ModelMaker,
) -> None:
    made = maker.baseline(material())
    assert made.stored.card.version == version_of(SERIES, kind="baseline")
    assert made.stored.card.version != maker.version(material())
    changed = change(SERIES[1], 1_000, volume=SERIES[1].volume[1_000] + 1.0)
    assert made.stored.card.version != version_of([SERIES[0], changed], kind="baseline")


def test_a_baseline_is_found_again_with_the_same_record(maker: ModelMaker) -> None:
    made, again = (maker.baseline(material()) for _ in range(2))
    assert again.stored.card == made.stored.card
    assert again.unseen_ms == made.unseen_ms
    assert same_record(again.evidence, made.evidence)


def test_both_first_contenders_are_scored_at_the_same_moments(maker: ModelMaker) -> None:
    baseline, network = maker.baseline(material()), maker.scratch(material())
    assert same_bits(baseline.evidence.date_ms, network.evidence.date_ms)
    assert network.evidence.pinball.mean() < baseline.evidence.pinball.mean()


def test_a_market_that_stood_still_has_a_baseline_too() -> None:
    weights = baseline_weights(np.zeros(7), n_features=3)
    raw = Lstm(weights, lookback=8).predict(np.zeros((9, 3)), np.array([8]))
    assert (np.diff(raw[0]) > 0.0).all()
    assert np.abs(raw).max() < 1e-3


# Fine-tuning


class Tuning:
    """A network from scratch, and what a maker tunes it to a hundred candles later."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = make_maker(root, SERIES).scratch(material())
        self.parent = served(self.scratch)

    def tune(
        self, settings: Settings = SETTINGS, parent: Model | None = None, boundary_ms: int = LATER
    ) -> Candidate:
        maker = make_maker(self.root, SERIES, settings)
        found = material(boundary_ms, settings)
        return maker.finetune(found, parent or self.parent, self.scratch.evidence)

    def version(self, **options: Any) -> str:
        return self.tune(**options).stored.card.version


@pytest.fixture
def tuning(tmp_path: Path, training: InstantTraining) -> Tuning:
    return Tuning(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"finetune_recent_candles": 150}, {"finetune_replay": 0.5}, {"finetune_epochs": 4},
        {"finetune_learning_rate": 0.005}, {"epoch_windows": 2_000},
    ],
)  # fmt: skip
def test_a_fine_tunings_version_changes_with_the_options_that_decide_it(
    tuning: Tuning, options: dict[str, Any]
) -> None:
    assert tuning.version(settings=settings_with(**options)) != tuning.version()


@pytest.mark.parametrize(
    "options", [{"train_threads": 1}, {"finetune_candles": 0}, {"promotion_error": 0.01}]
)
def test_a_fine_tunings_version_does_not_change_with_what_only_schedules_it(
    tuning: Tuning, training: InstantTraining, options: dict[str, Any]
) -> None:
    assert tuning.version(settings=settings_with(**options)) == tuning.version()
    assert len(training.jobs) == 2


@pytest.mark.lengthy
def test_a_fine_tunings_version_changes_with_its_parent_and_the_parents_calibration(
    tuning: Tuning,
) -> None:
    other = settings_with(seed=2)
    brother = served(make_maker(tuning.root, SERIES, other).scratch(material(BOUNDARY, other)))
    brother = replace(brother, calibration=tuning.parent.calibration)
    recalibrated = replace(tuning.parent.calibration, shrinkage=0.25)
    parents = [tuning.parent, brother, replace(tuning.parent, calibration=recalibrated)]
    assert len({tuning.version(parent=parent) for parent in parents}) == 3


def test_a_fine_tunings_version_changes_with_the_data(tuning: Tuning) -> None:
    versions = {tuning.version(boundary_ms=at) for at in (LATER - 50 * STEP_MS, LATER)}
    assert len(versions | {tuning.parent.card.version}) == 3


def test_a_fine_tuning_is_found_again_and_not_trained_again(
    tuning: Tuning, training: InstantTraining
) -> None:
    made, again = tuning.tune(), tuning.tune()
    assert again.stored.card == made.stored.card
    assert len(training.jobs) == 2


def test_a_fine_tuning_starts_from_its_parents_weights(
    tuning: Tuning, training: InstantTraining
) -> None:
    made = tuning.tune().stored.weights
    initial, before = training.jobs[-1].initial, tuning.scratch.stored.weights
    assert initial is not None
    assert initial.keys() == before.keys() == made.keys()
    assert all(same_bits(initial[name], before[name]) for name in before)
    assert not same_bits(made["gaps/bias"], before["gaps/bias"])


def test_a_fine_tuning_keeps_its_parents_scaler(tuning: Tuning, training: InstantTraining) -> None:
    made, before = tuning.tune().stored.weights, tuning.scratch.stored.weights
    for name in ("scaler/mean", "scaler/scale"):
        assert same_bits(made[name], before[name])
    scaler = Scaler(before["scaler/mean"], before["scaler/scale"])
    rows = material(LATER).panel.rows
    assert same_bits(training.jobs[-1].rows, scaler.transform(rows))
    assert not same_bits(scaler.mean, Scaler.fit(rows[material(LATER).split.train]).mean)


def test_a_fine_tuning_keeps_the_calibration_its_parent_has_by_now(tuning: Tuning) -> None:
    now = replace(tuning.parent.calibration, shrinkage=0.25)
    assert served(tuning.tune(parent=replace(tuning.parent, calibration=now))).calibration == now


def test_a_fine_tuning_learns_gently(tuning: Tuning, training: InstantTraining) -> None:
    tuning.tune(settings_with(finetune_epochs=4, finetune_learning_rate=0.002))
    used = training.jobs[-1].settings
    assert (used.learning_rate, used.max_epochs, used.patience) == (0.002, 4, 4)
    assert used.units == SETTINGS.units


def test_a_fine_tunings_card_names_its_parent_and_claims_no_skill(tuning: Tuning) -> None:
    made = tuning.tune()
    card = made.stored.card
    assert (card.kind, card.parent) == ("finetune", tuning.parent.card.version)
    assert (card.scores, card.skill, card.p_value) == ({}, {}, 1.0)
    assert card.train_end_ms == LATER
    counts = {name: len(rows) for name, rows in material(LATER).recent_windows._asdict().items()}
    assert card.windows == counts
    assert not served(made).is_skilled(SETTINGS)


def test_a_fine_tuning_begins_with_its_parents_record_and_sees_nothing_after_the_boundary(
    tuning: Tuning,
) -> None:
    made, before = tuning.tune(), tuning.scratch.evidence
    for name in ("date_ms", "pinball", "gain", "gain_delayed"):
        assert same_bits(made.evidence.arrays()[name], before.arrays()[name])
    assert made.unseen_ms == LATER


PROVING = settings_with(finetune_recent_candles=700)  # the newest 70 are held out


def tuned_to(root: Path, shrinkage: float) -> tuple[Candidate, Evidence]:
    """A child of a parent whose mean was worth so much, and the parent's record by now."""
    tuning, maker = Tuning(root), make_maker(root, SERIES, PROVING)
    record = maker.scratch(material(LATER, PROVING)).evidence
    known = {"shrinkage": shrinkage, "shrinkage_error": 0.25}
    calibration = replace(tuning.parent.calibration, **known)
    parent = replace(tuning.parent, calibration=calibration)
    return maker.finetune(material(LATER, PROVING), parent, record), record


def entering(made: Candidate) -> Contender:
    card = made.stored.card
    return Contender.entering(
        card.version, card.kind, made.unseen_ms, LATER,
        Calibration.from_card(SETTINGS.levels, card.calibration), made.evidence, SETTINGS.horizon,
    )  # fmt: skip


@pytest.mark.lengthy
def test_a_fine_tunings_mean_is_measured_on_the_candles_held_out_of_it(
    tmp_path: Path, training: InstantTraining
) -> None:
    made, record = tuned_to(tmp_path, 0.5)
    panel, rows = material(LATER, PROVING).panel, training.jobs[-1].validation_ends
    raw = served(made).lstm.predict(panel.rows, rows)[:, len(SETTINGS.levels) // 2]
    found, held_out = made.evidence, panel.date_ms[rows].min()
    assert held_out == LATER - 70 * STEP_MS
    assert not found.power[found.date_ms < held_out].any()
    assert record.power[record.date_ms < held_out].all()
    for date, product, power in zip(
        *(x[-5:].tolist() for x in (found.date_ms, found.product, found.power)), strict=True
    ):
        mine = panel.date_ms[rows] == date
        assert power == pytest.approx((raw[mine] ** 2).mean())
        assert product == pytest.approx((raw[mine] * panel.target()[rows][mine]).mean())


@pytest.mark.lengthy
def test_a_fine_tuning_can_give_a_mean_back_that_its_parent_had_lost(
    tmp_path: Path, training: InstantTraining
) -> None:
    made, _ = tuned_to(tmp_path, 0.0)
    assert made.stored.card.calibration["shrinkage"] == [0.0, 0.25]
    assert entering(made).worth.shrinkage > 0.5
    assert 0.0 < entering(made).worth.error != 0.25


def test_a_fine_tuning_that_spoilt_the_mean_does_not_serve_it(
    tmp_path: Path, training: InstantTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(weights: Any, windows: Windows) -> Any:
        if "mean/bias" in weights:
            windows = windows._replace(target=-windows.target)
        return learn_mean(weights, windows)

    monkeypatch.setattr(lstm_model.training.maker, "learn_mean", spoilt)
    assert entering(tuned_to(tmp_path, 1.0)[0]).worth == Worth(0.0, 0.0)


def test_a_fine_tuning_learns_from_the_newest_candles_and_some_older_ones(
    tuning: Tuning, training: InstantTraining
) -> None:
    tuning.tune()
    job, windows = training.jobs[-1], material(LATER).recent_windows
    assert job.train_ends.tolist() == [*windows.train, *windows.replay]
    assert job.validation_ends.tolist() == windows.validation.tolist()
    assert set(windows.train.tolist()).isdisjoint(windows.replay.tolist())


def test_no_label_of_a_fine_tuning_reaches_into_its_validation_or_beyond_the_boundary() -> None:
    panel, windows = material(LATER).panel, material(LATER).recent_windows
    assert panel.date_ms[windows.train].min() == RECENT_BEGIN
    assert panel.label_ms[windows.train].max() == HELD_OUT_BEGIN
    assert panel.label_ms[windows.replay].max() <= RECENT_BEGIN
    assert panel.date_ms[windows.validation].min() == HELD_OUT_BEGIN
    assert LATER - STEP_MS <= panel.label_ms[windows.validation].max() <= LATER
    assert all(panel.usable[rows].all() for rows in windows)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 20.0])
def test_as_many_old_windows_are_learnt_again_as_the_settings_ask_for(share: float) -> None:
    found = material(LATER, settings_with(finetune_replay=share))
    windows, older = found.recent_windows, found.panel.labelled_within(0, RECENT_BEGIN)
    assert len(windows.replay) == min(len(older), round(share * len(windows.train)))
    assert len(set(windows.replay.tolist())) == len(windows.replay)
    assert np.isin(windows.replay, older).all()
    assert windows.train.size


def test_old_windows_are_drawn_from_the_whole_past_the_same_for_everyone() -> None:
    def drawn(boundary_ms: int = LATER, settings: Settings = SETTINGS) -> list[int]:
        """Which of the older windows, as numbers from the oldest on."""
        found = make_maker(Path("unused"), SERIES, settings).material(boundary_ms)
        begin = boundary_ms - settings.finetune_recent_candles * STEP_MS
        older, replay = found.panel.labelled_within(0, begin), found.recent_windows.replay
        return np.searchsorted(older, replay).tolist()

    first = drawn()
    assert drawn() == first
    assert drawn(settings=settings_with(seed=2)) != first
    assert drawn(LATER - 50 * STEP_MS) != first
    older = material(LATER).panel.labelled_within(0, RECENT_BEGIN)
    halves = np.histogram(first, bins=2, range=(0, len(older)))[0]
    assert 0.8 < halves[0] / halves[1] < 1.25


def test_pairs_without_an_older_past_are_tuned_on_what_there_is() -> None:
    settings = settings_with(finetune_recent_candles=COUNT, validation_fraction=0.4)
    windows = make_maker(Path("unused"), SERIES, settings).material(LATER).recent_windows
    assert not windows.replay.size
    assert windows.train.size


def test_too_few_recent_candles_are_refused_before_training(
    tuning: Tuning, training: InstantTraining
) -> None:
    ended = [candles.rows(0, 1_540) for candles in SERIES]
    maker = make_maker(tuning.root, ended)
    with pytest.raises(
        DataError, match=r"fine-tune on: 74 complete .* last 200 candles, 100 are needed"
    ):
        maker.finetune(maker.material(LATER), tuning.parent, tuning.scratch.evidence)
    assert len(training.jobs) == 1


def test_an_unwritable_store_is_noticed_before_fine_tuning(
    tuning: Tuning, training: InstantTraining, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    maker = make_maker(tmp_path / "file", SERIES)
    with pytest.raises(StoreError, match="cannot write"):
        maker.finetune(material(LATER), tuning.parent, tuning.scratch.evidence)
    assert len(training.jobs) == 1


def test_the_time_of_the_week_is_hidden_until_there_are_weeks_enough() -> None:
    names = feature_names(SETTINGS.order_flow)
    hidden = [names.index(name) for name in OF_THE_WEEK]
    made = material()
    assert (made.scaler.scale[hidden] > 1e20).all()
    shown = replace(made, panels=Panels())
    panel = shown.panel
    stretched = replace(panel, date_ms=panel.date_ms * 1_000)
    vars(shown)["panel"], vars(shown)["split"] = stretched, made.split
    assert (shown.scaler.scale[hidden[:2]] < 1e20).all()


def test_a_maker_warns_of_an_unknown_leader_once(caplog: pytest.LogCaptureFixture) -> None:
    maker = make_maker(Path("unused"), SERIES[1:] * 1, SETTINGS)
    for boundary_ms in (BOUNDARY, BOUNDARY, BOUNDARY + STEP_MS):
        maker.material(boundary_ms)
    told = [r.message for r in caplog.records if "what BTC/USDT did" in r.message]
    assert len(told) == 1
    assert "--pairs BTC/USDT --timeframes 5m" in told[0]
