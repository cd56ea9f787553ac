"""A real live engine beside a real backtest: the same, or it is said which step came too late."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from instant_training import SETTINGS, make_learning
from live_world import (  # noqa: F401 - two fixtures
    FIRST,
    PAIR,
    SERIES,
    SWITCH,
    Bot,
    backtest,
    boundary_ms,
    chain,
    in_context,
    instant_training,
    learning_has_ended,
    row_of,
)
from series import STEP_MS, to_frame

from lstm_model.market.candles import utc_text
from lstm_model.replay.causes import CALIBRATION, Evidence, explain
from lstm_model.replay.forecasts import ForecastComparison, compare_forecasts
from lstm_model.replay.reproduction import StepsInForce
from lstm_model.store.journal import JournalRow

DISK = {candles.pair: candles for candles in in_context(SERIES)}


def journaled(root: Path, rows: Iterable[int], late: int = 0) -> list[JournalRow]:
    """What a bot writes down whose learner rests for the last `late` candles."""
    numbers = list(rows)
    bot = Bot(root).start(numbers[0])
    for number in numbers:
        if number < numbers[-1] - late:
            bot.look(number)
        bot.listen(number)
    said = bot.journal.read(PAIR, "5m", 0, 2**60)
    bot.stop()
    return said


def held_against(root: Path, said: list[JournalRow], until: int) -> ForecastComparison:
    """The backtest's columns beside what was said of the candles until number `until`."""
    past = backtest(root, first=FIRST, stop=until)
    candles = SERIES[0].rows(FIRST - SETTINGS.horizon, until)
    frame = to_frame(candles)[["date"]].assign(**past.columns(candles.close, STEP_MS))
    window = (boundary_ms(FIRST), boundary_ms(until))
    return compare_forecasts({PAIR: frame}, {PAIR: said}, STEP_MS, *window)


@pytest.mark.lengthy
def test_a_bot_is_its_backtest_across_a_step(tmp_path: Path) -> None:
    until = SWITCH + 5
    said = journaled(tmp_path / "live", range(FIRST, until))
    assert row_of(said[0].candle_ms) < FIRST  # on a start it also forecasts older ones
    found = held_against(tmp_path / "past", said, until)
    assert (found.ok, found.compared) == (True, until - FIRST)


@pytest.mark.lengthy
def test_a_step_that_came_too_late_is_named(tmp_path: Path) -> None:
    until = SWITCH + 5
    said = journaled(tmp_path / "live", range(SWITCH - 10, until), late=12)
    found = held_against(tmp_path / "past", said, until).first
    assert found is not None
    assert row_of(found.candle_ms) == SWITCH
    learning = make_learning(tmp_path / "live", SERIES, SETTINGS)
    steps = chain(tmp_path / "live", SERIES, 1_500, 1_600)
    evidence = Evidence(
        SETTINGS, DISK.get, DISK.get, StepsInForce(learning, steps).model_for, leader=PAIR
    )
    explained = explain(found, evidence)
    assert explained.kind == CALIBRATION
    assert f"the backtest's by the step of {utc_text(boundary_ms(1_600))}" in explained.text
