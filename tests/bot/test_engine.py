"""The backtest engine: nothing looks ahead, nothing is made twice, too little history is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from instant_training import SETTINGS, InstantTraining, ScriptedTraining, make_learning, make_terms
from live_world import (  # noqa: F401 - two fixtures
    COUNT,
    FIRST,
    LAG,
    OTHER,
    PAIR,
    RETRAIN,
    SERIES,
    TRAINER,
    backtest,
    boundary_ms,
    easy_to_beat,
    facts,
    instant_training,
    is_forecast,
    learning_has_ended,
)
from series import STEP_MS, change

from lstm_model.bot import engine as engine_module
from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.errors import DataError, TrainingError
from lstm_model.learning.chain import Learning
from lstm_model.market.candles import Candles
from lstm_model.model.model import Model
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore
from lstm_model.trading import outlook as outlook_module
from lstm_model.trading.foreseen import Foreseen
from lstm_model.trading.outlook import Frame, Outlook
from lstm_model.trading.sizing import NO_MODEL
from lstm_model.training.maker import ModelMaker
from lstm_model.training.material import Material


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outlook, Path]:
    """A backtest over everything, and its store."""
    root = tmp_path_factory.mktemp("past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        return backtest(root), root


def engine_in(root: Path, series: list[Candles] = SERIES) -> WalkForwardEngine:
    return WalkForwardEngine(make_learning(root, series), make_terms())


def foresees(outlook: Outlook, store: ModelStore) -> bool:
    """Whether a forecast comes from a model whose data ended after the candle's close."""
    ends = {card.version: card.train_end_ms for card in store.cards()}
    closes = outlook.date_ms + STEP_MS
    pairs = zip(outlook.version, closes.tolist(), strict=True)
    return any(version and ends[version] > close for version, close in pairs)


@pytest.mark.lengthy
def test_every_backtest_forecast_comes_from_a_model_of_its_past(past: tuple[Outlook, Path]) -> None:
    outlook, root = past
    assert len(set(outlook.version)) == 2  # a promotion
    assert is_forecast(outlook).all()
    assert not foresees(outlook, ModelStore(root))


def test_a_planted_model_from_the_future_is_caught(tmp_path: Path) -> None:
    maker = make_learning(tmp_path, SERIES).maker
    made = maker.scratch(maker.material(boundary_ms(FIRST + 100)))
    later = Model.of(made.stored, SETTINGS)
    candles = SERIES[0].rows(0, FIRST + 1)
    outlook = Outlook(PAIR, candles.date_ms, make_terms())
    outlook.fill(later, Frame(candles, SETTINGS), np.array([FIRST]))
    assert foresees(outlook, maker.store)


STOP = 1_800  # from here on the future is another


def prefix_agrees(
    engine_of: Callable[[Path, list[Candles]], WalkForwardEngine], root: Path
) -> bool:
    """Whether forecasts of a backtest stay the same when the future is another."""
    other = [
        change(c, slice(STOP, None), open=90.0, high=99.0, low=80.0, close=85.0) for c in SERIES
    ]
    said = []
    for name, series in (("one", SERIES), ("other", other)):
        outlook = engine_of(root / name, series).outlook(
            series[0].rows(STOP - 99, STOP + 1), skip=0
        )
        said.append([facts(outlook, row) for row in range(99)])
    return bool(said[0] == said[1])


@pytest.mark.lengthy
def test_no_forecast_of_a_backtest_depends_on_the_future(tmp_path: Path) -> None:
    assert prefix_agrees(engine_in, tmp_path)


def test_a_study_of_the_future_is_refused_before_a_step_is_walked(tmp_path: Path) -> None:
    """One stray date would mean decades of steps."""
    candles = SERIES[0].rows(FIRST, FIRST + 3)
    late = candles.date_ms + np.array([0, 0, 80 * 365 * 86_400_000 // STEP_MS * STEP_MS])
    with pytest.raises(DataError, match=r"BTC/USDT: the candle of 2103-.* lies in the future"):
        engine_in(tmp_path).outlook(replace(candles, date_ms=late), skip=0)
    assert not (tmp_path / "steps").exists()


class Foresighted(ModelMaker):
    """Trains every model on the candles it will be asked about, too."""

    def material(self, boundary_ms: int, known: object = None, panels: object = None) -> Material:
        return super().material(boundary_ms + 300 * STEP_MS)


@pytest.mark.lengthy
def test_a_planted_lookahead_of_the_trainer_is_caught(tmp_path: Path) -> None:
    def foresighted(root: Path, series: list[Candles]) -> WalkForwardEngine:
        history, pairs = {candles.pair: candles for candles in series}.get, [PAIR, "ETH/USDT"]
        maker = Foresighted(SETTINGS, "5m", pairs, ModelStore(root), history)
        return WalkForwardEngine(Learning(maker, StepStore(root)), make_terms())

    assert not prefix_agrees(foresighted, tmp_path)


def test_a_second_backtest_trains_nothing_and_says_the_same(
    past: tuple[Outlook, Path], training: InstantTraining
) -> None:
    one, two = past[0], backtest(past[1])
    assert training.jobs == []
    assert [facts(one, row) for row in (0, 99, -1)] == [facts(two, row) for row in (0, 99, -1)]


def test_where_a_backtest_starts_does_not_matter(past: tuple[Outlook, Path]) -> None:
    one, two = past[0], backtest(past[1], first=FIRST + 37)
    for row in (0, 1, 100, 200):
        studied = row + SETTINGS.horizon
        assert facts(two, studied) == facts(one, studied + 37)


def test_of_start_up_candles_those_are_forecast_whose_forecasts_are_due_in_the_study(
    tmp_path: Path,
) -> None:
    engine = engine_in(tmp_path)
    outlook = engine.outlook(SERIES[0].rows(FIRST, FIRST + 30), skip=20)
    lead = 20 - SETTINGS.horizon
    assert is_forecast(outlook).tolist() == [False] * lead + [True] * (30 - lead)
    due = outlook.columns(np.full(30, 100.0), STEP_MS)["lstm_due_low"]
    assert np.isfinite(due).tolist() == [False] * 20 + [True] * 10


def test_what_is_due_at_the_start_trains_nothing(tmp_path: Path, training: InstantTraining) -> None:
    """The study begins with the first candle that the chain's first step serves."""
    origin = FIRST // RETRAIN * RETRAIN + LAG - 1
    outlook = backtest(tmp_path / "one", first=origin, stop=origin + 20)
    jobs = len(training.jobs)
    lead = SETTINGS.horizon
    assert is_forecast(outlook).tolist() == [False] * lead + [True] * 20
    engine = WalkForwardEngine(
        make_learning(tmp_path / "other", SERIES, followed=[PAIR, OTHER]), make_terms()
    )
    alone = engine.outlook(SERIES[0].rows(origin, origin + 20), skip=0)
    assert len(training.jobs) == 2 * jobs
    assert alone.forecast.mean.tobytes() == outlook.forecast.mean[lead:].tobytes()


def test_a_backtest_that_no_model_can_serve_is_refused(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    with pytest.raises(DataError, match=r"too little history before it.*earlier --timerange"):
        engine.outlook(SERIES[0].rows(0, 500), skip=0)


@pytest.mark.lengthy
def test_a_backtest_begins_where_history_suffices(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_in(tmp_path)
    past = engine.outlook(SERIES[0].rows(800, 1_300), skip=0)
    forecast = is_forecast(past)
    begin = int(np.argmax(forecast))
    assert 0 < begin < 500
    assert (past.version[:begin] == "").all()
    assert (past.decision.reason[:begin] == NO_MODEL).all()
    assert forecast[begin:].all()
    assert "No forecasts from" in caplog.text


@pytest.mark.lengthy
def test_a_study_may_begin_before_its_first_candle_that_is_asked_for(tmp_path: Path) -> None:
    """freqtrade asks pair by pair; the one that was listed last must not begin the chain."""
    late = SERIES[0].rows(1_700, COUNT)
    learning = make_learning(tmp_path, SERIES)
    engine = WalkForwardEngine(learning, make_terms(), boundary_ms(FIRST))
    engine.outlook(late, skip=0)
    outlook = engine.outlook(SERIES[1].rows(FIRST, COUNT), skip=0)
    assert is_forecast(outlook).all()


@pytest.mark.lengthy
def test_a_training_that_fails_ends_a_backtest_and_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, past: tuple[Outlook, Path]
) -> None:
    trainer, seen = InstantTraining(), []

    def fail_the_second(*args: object, **options: object) -> object:
        seen.append(1)
        if len(seen) == 2:
            raise TrainingError("killed")
        return trainer.run(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TRAINER, ScriptedTraining(fail_the_second))
    with pytest.raises(TrainingError, match="killed"):
        backtest(tmp_path)
    again = backtest(tmp_path)
    assert again.forecast.quantiles.tobytes() == past[0].forecast.quantiles.tobytes()


@pytest.mark.lengthy
def test_what_one_strategy_has_forecast_the_next_finds(
    tmp_path: Path, training: InstantTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--strategy-list`, hyperopt: neither features nor forecasts are made twice."""
    made: list[str] = []
    forecast, features = Model.forecast, outlook_module.compute_features

    def count(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            made.append(what)
            return call(*args, **options)

        return counted

    monkeypatch.setattr(engine_module, "_FORESEEN", Foreseen())
    monkeypatch.setattr(Model, "forecast", count("forecast", forecast))
    monkeypatch.setattr(outlook_module, "compute_features", count("features", features))
    first = backtest(tmp_path)
    assert {*made} == {"forecast", "features"}
    made.clear()
    dearer = replace(make_terms(), fee_fraction=0.01)
    engine = WalkForwardEngine(make_learning(tmp_path, SERIES, followed=[PAIR, OTHER]), dearer)
    lead = SETTINGS.horizon
    second = engine.outlook(SERIES[0].rows(FIRST - lead, COUNT), skip=lead)
    assert made == []
    assert first.forecast.quantiles.tobytes() == second.forecast.quantiles.tobytes()
    assert (first.version == second.version).all()
    assert (first.decision.side != second.decision.side).any()  # it costs more to trade


@pytest.mark.lengthy
@pytest.mark.parametrize("kind", ["a candle", "fewer candles", "a setting"])
def test_what_was_forecast_of_other_candles_or_by_others_is_not_taken(
    tmp_path: Path, training: InstantTraining, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    backtest(tmp_path / "first")
    series, settings, first = [*SERIES], SETTINGS, FIRST
    if kind == "a candle":
        volume = series[0].volume.copy()
        volume[FIRST + 100] *= 2.0
        series[0] = replace(series[0], volume=volume)
    elif kind == "fewer candles":
        first += 10
    else:
        settings = SETTINGS.model_copy(update={"seed": 2, "promotion_error": 0.3})
    warm = backtest(tmp_path / "first", series, first, settings)
    monkeypatch.setattr(engine_module, "_FORESEEN", Foreseen())
    cold = backtest(tmp_path / "second", series, first, settings)
    assert warm.forecast.quantiles.tobytes() == cold.forecast.quantiles.tobytes()


@pytest.mark.lengthy
def test_what_the_models_of_another_store_forecast_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who trained elsewhere has the same addresses, but other bits."""

    class Wider(InstantTraining):
        def run(self, *args: Any, **options: Any) -> Any:
            made = super().run(*args, **options)
            made.weights["gaps/bias"] += np.float32(0.5)
            return made

    monkeypatch.setattr(TRAINER, InstantTraining())
    here = backtest(tmp_path / "here")
    monkeypatch.setattr(TRAINER, Wider())
    warm = backtest(tmp_path / "there")
    monkeypatch.setattr(engine_module, "_FORESEEN", Foreseen())
    cold = backtest(tmp_path / "there")
    assert warm.forecast.quantiles.tobytes() == cold.forecast.quantiles.tobytes()
    assert warm.forecast.quantiles.tobytes() != here.forecast.quantiles.tobytes()


@pytest.mark.lengthy
def test_no_strategy_can_change_what_another_finds(
    tmp_path: Path, training: InstantTraining
) -> None:
    outlook = backtest(tmp_path)
    close = SERIES[0].close[FIRST - SETTINGS.horizon : COUNT]
    frame = pd.DataFrame(outlook.columns(close, STEP_MS))
    before = outlook.forecast.mean.copy()
    frame["lstm_mean"] *= 2.0
    frame.loc[frame.index[-1], "lstm_mean"] = 1.0
    np.testing.assert_array_equal(backtest(tmp_path).forecast.mean, before)
    with pytest.raises(ValueError, match="read-only"):
        outlook.forecast.mean[0] = 1.0
