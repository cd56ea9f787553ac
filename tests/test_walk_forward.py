"""The schedule is anchored to absolute time; a model's version is all that decides it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instant_training import SETTINGS, InstantTraining, make_maker
from series import START_MS, STEP_MS, change, make_candles, same_bits

from lstm_model.config import Settings
from lstm_model.errors import DataError, StoreError, TrainingError
from lstm_model.features import WARM_UP, feature_names
from lstm_model.market import Candles, Records, unknown_flow
from lstm_model.store import ModelStore
from lstm_model.walk_forward import Model, ModelMaker, Slot, slot_at

COUNT = 1_700
SERIES = [
    make_candles(COUNT, signal=2.0),
    make_candles(COUNT, signal=2.0, seed=1, pair="ETH/USDT"),
]
SLOT = slot_at(START_MS + 1_600 * STEP_MS, STEP_MS, SETTINGS)

CLOSES = st.integers(1, 10_000_000).map(lambda number: number * STEP_MS)
SCHEDULES = st.builds(
    Settings, retrain_candles=st.integers(50, 10_000), training_lag_candles=st.integers(0, 1_000)
)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> InstantTraining:
    instant = InstantTraining()
    monkeypatch.setattr("lstm_model.walk_forward.run_training", instant)
    return instant


@pytest.fixture
def maker(tmp_path: Path, training: InstantTraining) -> ModelMaker:
    return make_maker(tmp_path / "lstm", SERIES)


@given(CLOSES, SCHEDULES)
def test_every_close_lies_in_the_slot_that_is_found_for_it(close_ms: int, plan: Settings) -> None:
    slot = slot_at(close_ms, STEP_MS, plan)
    assert slot.serves_from_ms <= close_ms < slot.serves_until_ms


@given(CLOSES, SCHEDULES)
def test_slots_follow_each_other_without_gap_or_overlap(close_ms: int, plan: Settings) -> None:
    slot = slot_at(close_ms, STEP_MS, plan)
    assert slot_at(slot.serves_from_ms, STEP_MS, plan) == slot
    assert slot_at(slot.serves_until_ms - 1, STEP_MS, plan) == slot
    assert slot_at(slot.serves_until_ms, STEP_MS, plan).serves_from_ms == slot.serves_until_ms
    assert slot_at(slot.serves_from_ms - 1, STEP_MS, plan).serves_until_ms == slot.serves_from_ms


@given(CLOSES, SCHEDULES)
def test_a_model_serves_only_after_its_data_ended_and_time_to_train(
    close_ms: int, plan: Settings
) -> None:
    slot = slot_at(close_ms, STEP_MS, plan)
    assert slot.serves_from_ms == slot.data_end_ms + plan.training_lag_candles * STEP_MS
    assert slot.data_end_ms <= close_ms - plan.training_lag_candles * STEP_MS


@given(CLOSES, SCHEDULES)
def test_the_schedule_counts_from_1970_whoever_asks(close_ms: int, plan: Settings) -> None:
    period = plan.retrain_candles * STEP_MS
    slot = slot_at(close_ms, STEP_MS, plan)
    assert slot.data_end_ms % period == 0
    assert slot.serves_until_ms - slot.serves_from_ms == period


def version(maker: ModelMaker, slot: Slot = SLOT) -> str:
    return maker.version(maker.training_candles(slot))


def version_of(tmp_path: Path, series: list[Candles], **options: Any) -> str:
    settings = Settings.model_validate(SETTINGS.model_dump() | options)
    return version(make_maker(tmp_path, series, settings))


def test_training_candles_end_with_the_slots_data(maker: ModelMaker) -> None:
    candles = maker.training_candles(SLOT)
    assert [series.pair for series in candles] == ["BTC/USDT", "ETH/USDT"]
    for series in candles:
        assert series.date_ms[-1] + STEP_MS == SLOT.data_end_ms
        assert len(series) == SETTINGS.train_candles + WARM_UP + SETTINGS.lookback


@given(st.integers(0, COUNT - 1), st.sampled_from(["open", "high", "low", "close", "volume"]))
def test_a_version_changes_with_each_candle_it_learns_from_and_with_no_other(
    row: int, column: str
) -> None:
    root = Path("unused")
    value = float(np.nextafter(getattr(SERIES[1], column)[row], np.inf))
    changed = change(SERIES[1], row, **{column: value})
    window = make_maker(root, SERIES).training_candles(SLOT)[1]
    learnt = window.date_ms[0] <= SERIES[1].date_ms[row] <= window.date_ms[-1]
    versions = [version_of(root, [SERIES[0], other]) for other in (SERIES[1], changed)]
    assert (versions[0] != versions[1]) == learnt


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 2}, {"units": 12}, {"horizon": 3}, {"levels": (0.1, 0.5, 0.9)}, {"loss": "mse"},
        {"learning_rate": 0.01}, {"test_fraction": 0.2}, {"train_candles": 900},
    ],
)  # fmt: skip
def test_a_version_changes_with_what_decides_the_weights(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    assert version_of(tmp_path, SERIES, **options) != version_of(tmp_path, SERIES)


@pytest.mark.parametrize(
    "options",
    [
        {"train_threads": 1}, {"train_timeout_s": 99}, {"require_skill": False},
        {"skill_p_value": 0.5}, {"slippage_fraction": 0.01}, {"kelly_fraction": 1.0},
        {"max_stake_fraction": 0.5}, {"store_dir": "x"}, {"journal_url": "sqlite://"},
    ],
)  # fmt: skip
def test_a_version_does_not_change_with_what_only_serves(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    assert version_of(tmp_path, SERIES, **options) == version_of(tmp_path, SERIES)


FLOWING = Settings.model_validate(SETTINGS.model_dump() | {"order_flow": True})


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


def flow_maker(
    stored: Records, settings: Settings = FLOWING, series: Sequence[Candles] = ()
) -> ModelMaker:
    """A maker whose data directory holds `series` and, of every pair, this flow."""
    disk = {candles.pair: candles for candles in series}
    store = ModelStore(Path("unused"))
    return ModelMaker(settings, "5m", list(disk), store, disk.get, lambda _: stored)


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
    root, candles = Path("unused"), flowing(SERIES[1])
    changed = with_record(candles, row, name, 0.25)
    window = make_maker(root, SERIES).training_candles(SLOT)[1]
    learnt = window.date_ms[0] <= candles.date_ms[row] <= window.date_ms[-1]
    versions = [version(make_maker(root, [SERIES[0], it], FLOWING)) for it in (candles, changed)]
    of_use = name not in ("realized_volatility", "largest")
    assert (versions[0] != versions[1]) == (learnt and of_use)


def test_without_order_flow_a_version_does_not_depend_on_it(tmp_path: Path) -> None:
    with_flow = [flowing(candles) for candles in SERIES]
    assert version_of(tmp_path, with_flow) == version_of(tmp_path, SERIES)
    assert version_of(tmp_path, SERIES, order_flow=True) != version_of(tmp_path, SERIES)


def test_unknown_flow_is_one_version_however_it_is_written(tmp_path: Path) -> None:
    other_nan = np.array([0x7FF8_0000_0000_0001], np.uint64).view(np.float64)[0]
    odd = SERIES[1].with_flow(unknown_flow(SERIES[1].date_ms))
    odd = with_record(with_record(odd, 1_300, "trades", other_nan), 1_301, "coverage", -0.0)
    versions = [
        version_of(tmp_path, [SERIES[0], other], order_flow=True) for other in (SERIES[1], odd)
    ]
    assert versions[0] == versions[1]


def test_candles_get_the_stored_flow_only_when_it_is_wanted(tmp_path: Path) -> None:
    candles, stored = SERIES[0], flowing(SERIES[0].rows(100, 200)).flow
    assert stored is not None
    assert flow_maker(stored, SETTINGS).with_flow(candles) is candles
    found = flow_maker(stored).with_flow(candles)
    assert found.flow is not None
    assert np.flatnonzero(found.flow["coverage"]).tolist() == list(range(100, 200))
    nothing = make_maker(tmp_path, SERIES, FLOWING).with_flow(candles)
    assert nothing.flow is not None
    assert not nothing.flow["coverage"].any()


@pytest.mark.parametrize("stored_coverage", [0.5, 0.8])
def test_of_stored_and_carried_flow_the_one_that_covers_more_is_taken(
    stored_coverage: float,
) -> None:
    stored = flowing(SERIES[0].rows(100, 200), stored_coverage).flow
    assert stored is not None
    found = flow_maker(stored).with_flow(flowing(SERIES[0].rows(150, 250), 0.6))
    assert found.flow is not None
    assert found.flow["coverage"].tolist() == [max(stored_coverage, 0.6)] * 50 + [0.6] * 50


def test_what_the_bot_saw_gets_the_flow_that_was_stored_since() -> None:
    stored = flowing(SERIES[0].rows(0, 650)).flow
    assert stored is not None
    maker = flow_maker(stored, series=[SERIES[0].rows(0, 500).with_flow(stored[:500])])
    maker.remember(flowing(SERIES[0].rows(400, 700), 0.3))
    history = maker.history("BTC/USDT")
    assert history is not None
    assert history.flow is not None
    assert history.flow["coverage"].tolist() == [1.0] * 650 + [0.3] * 50


def test_a_version_names_its_pairs_not_their_order(tmp_path: Path) -> None:
    assert version_of(tmp_path, SERIES[::-1]) == version_of(tmp_path, SERIES)
    assert version_of(tmp_path, SERIES[:1]) != version_of(tmp_path, SERIES)


def test_what_was_made_is_found_and_nothing_is_trained_again(
    maker: ModelMaker, training: InstantTraining, tmp_path: Path
) -> None:
    assert maker.find(SLOT) is None
    made = maker.make(SLOT)
    again = make_maker(tmp_path / "lstm", SERIES, SETTINGS.model_copy(update={"train_threads": 1}))
    for other in (maker, again):
        found = other.find(SLOT)
        assert found is not None
        assert found.card == made.card
    assert len(training.jobs) == 1


def test_the_same_candles_make_the_same_model(tmp_path: Path, training: InstantTraining) -> None:
    one, two = (make_maker(tmp_path / name, SERIES).make(SLOT) for name in "ab")
    assert all(same_bits(one.weights[name], two.weights[name]) for name in one.weights)
    varying = {"created_ms": 0, "checksums": {}}
    assert one.card.model_copy(update=varying) == two.card.model_copy(update=varying)


def test_the_card_says_what_the_model_was_made_from(maker: ModelMaker) -> None:
    card = maker.make(SLOT).card
    assert (card.train_end_ms, card.serves_from_ms) == (SLOT.data_end_ms, SLOT.serves_from_ms)
    assert card.train_start_ms == maker.training_candles(SLOT)[0].date_ms[0]
    assert card.pairs == ("BTC/USDT", "ETH/USDT")
    assert (card.timeframe, card.feature_names) == ("5m", feature_names(False))
    assert card.version == version(maker)
    assert card.windows["train"] > 1_000 > card.windows["test"] > card.windows["validation"] > 10


def test_the_job_holds_only_candles_of_the_slots_past(
    maker: ModelMaker, training: InstantTraining
) -> None:
    maker.make(SLOT)
    job = training.jobs[0]
    assert len(job.rows) == 2 * (SETTINGS.train_candles + WARM_UP + SETTINGS.lookback)
    assert job.train_ends.max() < len(job.rows)


def test_the_job_folder_is_removed_whatever_happens(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = tmp_path / "temporary"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    maker.make(SLOT)
    assert not list(folders.iterdir())

    def fail(*_: Any, **__: Any) -> None:
        raise TrainingError("no")

    monkeypatch.setattr("lstm_model.walk_forward.run_training", fail)
    with pytest.raises(TrainingError, match="no"):
        maker.make(SLOT._replace(data_end_ms=SLOT.data_end_ms - 150 * STEP_MS))
    assert not list(folders.iterdir())


def test_a_pair_with_too_little_history_is_left_out(
    tmp_path: Path, training: InstantTraining
) -> None:
    young = make_candles(300, pair="NEW/USDT", start_ms=SLOT.data_end_ms - 100 * STEP_MS)
    absent = make_maker(tmp_path, [*SERIES, young])
    assert absent.make(SLOT).card.pairs == ("BTC/USDT", "ETH/USDT")


def test_no_history_says_which_command_downloads_it(tmp_path: Path) -> None:
    early = slot_at(START_MS + 10 * STEP_MS, STEP_MS, SETTINGS)
    with pytest.raises(
        DataError, match=r"no 5m candles of BTC/USDT, ETH/USDT .*--timerange 202311\d\d-"
    ):
        make_maker(tmp_path, SERIES).make(early)


def test_too_little_history_trains_nothing(tmp_path: Path, training: InstantTraining) -> None:
    early = slot_at(START_MS + 700 * STEP_MS, STEP_MS, SETTINGS)
    with pytest.raises(DataError, match="too little history"):
        make_maker(tmp_path, SERIES).make(early)
    assert not training.jobs


def test_an_unwritable_store_is_noticed_before_training(
    tmp_path: Path, training: InstantTraining
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        make_maker(tmp_path / "file", SERIES).make(SLOT)
    assert not training.jobs


def test_history_is_the_disk_continued_by_what_the_bot_saw(tmp_path: Path) -> None:
    disk, seen = SERIES[0].rows(0, 500), SERIES[0].rows(400, 700)
    maker = make_maker(tmp_path, [disk])
    maker.remember(seen)
    history = maker.history("BTC/USDT")
    assert history is not None
    assert same_bits(history.close, SERIES[0].close[:700])
    assert maker.history("ETH/USDT") is None


def test_no_candle_the_bot_saw_is_forgotten(tmp_path: Path) -> None:
    """A bot runs for weeks after the last download, and sees a few hundred candles at a time."""
    maker = make_maker(tmp_path, [SERIES[0].rows(0, 500)])
    for end in range(501, 1_600, 50):
        maker.remember(SERIES[0].rows(end - 300, end))
    history = maker.history("BTC/USDT")
    assert history is not None
    assert same_bits(history.close, SERIES[0].close[: len(history)])
    assert len(history) == 1_551


def served(maker: ModelMaker, settings: Settings = SETTINGS) -> Model:
    return Model.of(maker.make(SLOT), settings)


def test_a_model_for_other_settings_or_features_is_refused(
    maker: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="other settings; train anew"):
        served(maker, SETTINGS.model_copy(update={"lookback": 9}))
    monkeypatch.setattr("lstm_model.walk_forward.feature_names", lambda _: ("tea_leaves",))
    with pytest.raises(StoreError, match="other features; train anew"):
        served(maker)


@pytest.mark.parametrize(
    ("at_once", "late", "skilled"),
    [(0.01, 0.01, True), (0.01, 0.2, False), (0.2, 0.01, False), (0.05, 0.05, True)],
)
def test_skill_must_be_significant_at_once_and_one_candle_late(
    maker: ModelMaker, at_once: float, late: float, skilled: bool
) -> None:
    stored = maker.make(SLOT)
    skill = stored.card.skill | {"p_value": at_once, "p_value_delayed": late}
    model = Model(stored.card.model_copy(update={"skill": skill}), *_parts(stored))
    assert model.is_skilled(SETTINGS) == skilled
    assert model.is_skilled(SETTINGS.model_copy(update={"require_skill": False}))


def _parts(stored: Any) -> tuple[Any, Any]:
    model = Model.of(stored, SETTINGS)
    return model.lstm, model.calibration


def test_the_planted_signal_is_learnt(maker: ModelMaker) -> None:
    """Else the tests with this trainer would compare zeros with zeros."""
    model = served(maker)
    assert model.is_skilled(SETTINGS)
    assert model.calibration.shrinkage > 0.5


def test_unknown_order_flow_is_told_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = [flowing(candles) for candles in SERIES]
    make_maker(tmp_path, [known[0], SERIES[1]], FLOWING).check_history(SLOT)
    assert [record.message for record in caplog.records] == [
        f"{SERIES[1].pair}: order flow is known of 0 % of the candles to train on; run "
        "`freqtrade-lstm download-flow`"
    ]
    caplog.clear()
    make_maker(tmp_path, known, FLOWING).check_history(SLOT)
    make_maker(tmp_path, SERIES).check_history(SLOT)
    assert not caplog.records
