"""A forecast is a fact once it was made, and whatever fails means no trade."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from instant_training import SETTINGS, InstantTraining
from journal_faults import locked, wait_until
from live_world import (  # noqa: F401 - three fixtures
    BOUNDARY,
    FIRST,
    FRAME,
    LAG,
    OTHER,
    PAIR,
    PROMOTION,
    SERIES,
    SWITCH,
    TRAINER,
    Bot,
    backtest,
    boundary_ms,
    close_of,
    differences,
    easy_to_beat,
    facts,
    instant_training,
    is_forecast,
    learning_has_ended,
    no_trade,
    now_ms,
    row_of,
    running_bot,
    wait_for_learning,
)
from series import STEP_MS, change, drop

from lstm_model.errors import StoreError
from lstm_model.learning.chain import Learning
from lstm_model.market.candles import Candles
from lstm_model.model.model import Model
from lstm_model.store.journal import Journal, JournalRow
from lstm_model.store.models import ModelStore, StoredModel
from lstm_model.store.spool import Spool
from lstm_model.trading.outlook import Outlook
from lstm_model.trading.sizing import (
    ENTER_LONG,
    ENTER_SHORT,
    ERROR,
    NO_DATA,
    NO_EDGE,
    NO_MODEL,
    STALE_MODEL,
)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Outlook:
    """A backtest over the first candles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        return backtest(tmp_path_factory.mktemp("past"), stop=SWITCH + 20)


# ---------------------------------------------------------------- a forecast is a fact


@pytest.mark.lengthy
def test_a_promotion_repaints_nothing(bot: Bot) -> None:
    bot.look(FIRST)
    said = bot.run(PROMOTION - 5, PROMOTION + LAG + 5)
    assert differences(said, bot.engine.outlook(bot.frame())) == []
    assert len({fact["version"] for fact in said.values()}) == 2


@pytest.mark.lengthy
def test_a_candle_revised_later_changes_no_forecast_made_before(bot: Bot) -> None:
    said = bot.run(FIRST, FIRST + 4)
    rows = slice(FIRST - 2, FIRST + 2)
    bot.series[PAIR] = change(SERIES[0], rows, volume=99.0, close=SERIES[0].low[rows])
    assert differences(said, bot.engine.outlook(bot.frame())) == []
    assert is_forecast(bot.close_candle(FIRST + 4))[-1]


@pytest.mark.lengthy
def test_a_new_champion_serves_from_its_time_on_and_the_old_one_until_then(bot: Bot) -> None:
    bot.look(FIRST)
    said = bot.run(PROMOTION - 3, PROMOTION + LAG + 5)
    versions = [fact["version"] for fact in said.values()]
    assert versions[: LAG + 2] == [versions[0]] * (LAG + 2)
    assert versions[LAG + 2 :] == [versions[-1]] * 6
    [*_, promoted] = [row for row in bot.decisions() if row.kind == "promoted"]
    assert (promoted.version, promoted.champion) == (versions[-1], versions[0])
    assert promoted.at_ms == close_of(PROMOTION - 1)
    assert bot.maker.store.load(versions[-1]).card.serves_from_ms <= close_of(PROMOTION + LAG - 1)


@pytest.mark.lengthy
def test_a_restart_restores_what_was_said(bot: Bot, tmp_path: Path) -> None:
    bot.look(FIRST)
    said = bot.run(SWITCH - 5, SWITCH + 5)
    bot.stop()
    again = Bot(tmp_path / "live").start(SWITCH + 4)
    assert differences(said, again.engine.outlook(again.frame())) == []
    again.stop()


def test_what_a_pinned_model_said_is_known_after_a_restart_without_the_pin(
    bot: Bot, tmp_path: Path
) -> None:
    bot.look(FIRST)
    said = bot.run(FIRST, FIRST + 2)
    never_served = {card.version for card in bot.maker.store.cards()} - {*bot.lineage.champions}
    bot.lineage.pin(min(never_served))
    said |= bot.run(FIRST + 2, FIRST + 5)
    assert said[FIRST + 4]["version"] == min(never_served)
    bot.lineage.unpin()
    bot.look(FIRST + 5)
    bot.stop()
    again = Bot(tmp_path / "live").start(FIRST + 4)
    assert differences(said, again.engine.outlook(again.frame())) == []
    rows = again.journal.read(PAIR, "5m", boundary_ms(FIRST), boundary_ms(FIRST + 5))
    assert len(rows) == 5
    again.stop()


@pytest.mark.parametrize("content", [None, b"{"])
def test_what_was_said_outlives_the_file_of_the_lineage(
    bot: Bot, tmp_path: Path, content: bytes | None
) -> None:
    bot.look(FIRST)
    said = bot.run(FIRST, FIRST + 5)
    bot.stop()
    path = tmp_path / "live" / "lineages" / "binance-spot-5m.json"
    path.write_bytes(content) if content else path.unlink()
    again, rows = Bot(tmp_path / "live"), slice(FIRST + 3, FIRST + 5)
    again.series[PAIR] = change(SERIES[0], rows, volume=99.0, close=SERIES[0].low[rows])
    again.start(FIRST + 4)
    outlook = again.engine.outlook(again.frame())  # before the learner has walked again
    assert is_forecast(outlook)[-5:].all()
    again.look(FIRST + 4)
    outlook = again.engine.outlook(again.frame())
    told = {row_of(int(date_ms)): float(mean) for date_ms, mean in zip(
        outlook.date_ms, outlook.forecast.mean, strict=True)}  # fmt: skip
    written = again.journal.read(PAIR, "5m", boundary_ms(FIRST), boundary_ms(FIRST + 5))
    assert [told[row_of(row.candle_ms)] for row in written] == [row.mean for row in written]
    assert [row.version for row in written] == [said[row]["version"] for row in sorted(said)]
    again.stop()


def test_a_pair_that_leaves_is_forgotten_and_comes_back_with_what_was_said(bot: Bot) -> None:
    said = bot.run(FIRST, FIRST + 3, pair=OTHER)
    memory = bot.engine._memory
    bot.at(FIRST + 3).engine.tick(now_ms(FIRST + 3), [PAIR])
    assert OTHER not in memory._told.keys() | memory._asked.keys() | memory._whole
    with hold(bot):
        bot.engine.outlook(bot.frame())
        wait_until(lambda: not bot.recorder.answers)
        bot.look(FIRST + 3)
        during = bot.engine.outlook(bot.frame(OTHER))
        assert is_forecast(during)[-1]
        assert not is_forecast(during)[:-1].any()  # nothing is made twice
    assert bot.recorder.settle(30.0)
    assert differences(said, bot.engine.outlook(bot.frame(OTHER))) == []
    rows = bot.journal.read(OTHER, "5m", boundary_ms(FIRST), boundary_ms(FIRST + 4))
    assert len(rows) == 4


@pytest.mark.lengthy
def test_forecasts_of_other_models_are_not_shown_as_ours(
    bot: Bot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another lineage may write into the same journal, as one with other settings does."""
    bot.run(FIRST, FIRST + 3)
    bot.stop()
    changed = SETTINGS.model_copy(update={"levels": (0.1, 0.5, 0.9), "horizon": 4})
    again = Bot(tmp_path / "live", settings=changed, lineage="binance-spot-5m-other").start()
    outlook = again.close_candle(FIRST + 3)
    again.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert is_forecast(outlook)[-1]
    horizons = {
        again.maker.store.load(version).card.settings["horizon"]
        for version in set(outlook.version) - {""}
    }
    assert horizons == {4}


def test_a_pair_the_model_never_saw_gets_forecasts_at_once(bot: Bot) -> None:
    bot.close_candle(FIRST)
    stranger = replace(SERIES[0], pair="NEW/USDT").rows(FIRST - FRAME, FIRST + 1)
    assert is_forecast(bot.engine.outlook(stranger))[-1]


@pytest.mark.lengthy
def test_a_candle_that_is_still_open_is_not_forecast(
    bot: Bot, past: Outlook, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 1)
    bot.at(FIRST + 1)
    opened = change(SERIES[0], FIRST + 1, volume=1.0).between(0, bot.close_ms)
    with monkeypatch.context() as patch:
        patch.setattr(
            "lstm_model.bot.live.time.time_ns", lambda: (close_of(FIRST) + 2_000) * 1_000_000
        )
        bot.engine.foresee([opened])
        outlook = bot.engine.outlook(opened)
    assert not is_forecast(outlook)[-1]
    assert outlook.decision.side[-1] == 0
    said = bot.run(FIRST + 1, FIRST + 2)
    assert differences(said, past) == []


# ---------------------------------------------------------------- many pairs at once


def test_what_is_foreseen_for_all_pairs_is_what_each_pair_gets_alone(
    bot: Bot, past: Outlook, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 1)
    bot.run(FIRST, FIRST + 1, pair=OTHER)
    bot.at(FIRST + 1)
    frames = [bot.frame(PAIR), bot.frame(OTHER)]
    assert all(bot.engine.awaits(c.pair, int(c.date_ms[-1])) for c in frames)
    bot.engine.lead(frames[0])
    bot.engine.foresee(frames)
    assert [bot.journal.last(c.pair, "5m").candle_ms for c in frames] == [frames[0].date_ms[-1]] * 2
    monkeypatch.setattr(Model, "forecast", None)  # nothing is left to forecast
    said = {FIRST + 1: facts(bot.engine.outlook(frames[0]), -1)}
    assert differences(said, past) == []
    assert not bot.engine.awaits(PAIR, int(frames[0].date_ms[-1]))


def test_a_fault_while_foreseeing_costs_nothing(
    bot: Bot, past: Outlook, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 1)
    bot.at(FIRST + 1)
    monkeypatch.setattr("lstm_model.model.lstm.Lstm.predict_windows", None)
    bot.engine.foresee([bot.frame()])
    assert differences({FIRST + 1: facts(bot.engine.outlook(bot.frame()), -1)}, past) == []


def test_an_unusable_newest_candle_is_not_foreseen(bot: Bot) -> None:
    bot.run(FIRST, FIRST + 1)
    empty = change(SERIES[0], FIRST + 1, volume=0.0)
    bot.at(FIRST + 1)
    bot.engine.foresee([empty.between(bot.close_ms - FRAME * STEP_MS, bot.close_ms)])
    assert bot.journal.last(PAIR, "5m").candle_ms == SERIES[0].date_ms[FIRST]


# ---------------------------------------------------------------- whatever fails: no trade


def hold(bot: Bot) -> Any:
    """Another process writes into the bot's journal and does not come to an end."""
    assert bot.recorder.settle(10.0)
    return locked(bot.root / "journal.sqlite")


def said_in_file(root: Path, pair: str = PAIR) -> list[JournalRow]:
    """What another process reads there."""
    other = Journal(root / "journal.sqlite", "binance-spot-5m", read_only=True)
    rows = other.read(pair, "5m", 0, 2**62)
    other.close()
    return rows


@pytest.mark.lengthy
def test_a_journal_that_is_locked_changes_nothing_of_what_is_said(
    bot: Bot, past: Outlook, caplog: pytest.LogCaptureFixture
) -> None:
    said = bot.run(FIRST, FIRST + 2)
    with hold(bot):
        began = time.perf_counter()
        said |= bot.run(FIRST + 2, FIRST + 5)
        assert time.perf_counter() - began < 4.0
        assert len(said_in_file(bot.root)) < FRAME
        outlook = bot.engine.outlook(bot.frame())
    assert differences(said, past) == []
    assert differences(said, outlook) == []
    assert outlook.decision.reason[-1] != ERROR
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bot.recorder.settle(30.0)
    rows = [row_of(row.candle_ms) for row in said_in_file(bot.root)]
    assert rows[-5:] == [*range(FIRST, FIRST + 5)]
    assert len(set(rows)) == len(rows)


def test_a_pair_that_comes_while_the_journal_is_locked_is_forecast_from_then_on(
    bot: Bot, past: Outlook
) -> None:
    before = bot.run(FIRST, FIRST + 2, pair=OTHER)
    bot.engine._memory._asked.clear()  # as if it had just come to the whitelist
    bot.engine._memory._told.clear()
    bot.engine._memory._whole.clear()
    with hold(bot):
        during = bot.run(FIRST + 2, FIRST + 4, pair=OTHER)
        known = is_forecast(bot.engine.outlook(bot.frame(OTHER)))
        assert known[-2:].all()
    assert bot.recorder.settle(30.0)
    again = bot.engine.outlook(bot.frame(OTHER))
    assert differences(before | during, again) == []


def test_a_restart_while_the_journal_is_locked_makes_no_forecast_twice(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    said = bot.run(FIRST, FIRST + 3)
    with hold(bot):
        said |= bot.run(FIRST + 3, FIRST + 5)
        bot.stop()
        again = Bot(tmp_path / "live").start(FIRST + 4)
        outlook = again.close_candle(FIRST + 4)
        assert is_forecast(outlook)[-2:].all()  # what waits on the file
        assert not is_forecast(outlook)[:-2].any()  # nobody can say what was said
        said |= again.run(FIRST + 5, FIRST + 6)
    assert again.recorder.settle(30.0)
    outlook = again.engine.outlook(again.frame())
    assert differences(said, outlook) == []
    assert is_forecast(outlook)[-20:].all()
    again.stop()


@pytest.mark.lengthy
def test_a_row_that_nobody_understands_costs_what_was_said_before_and_no_more(
    tmp_path: Path,
) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.run(FIRST, FIRST + 2)
    bot.stop()
    with closing(sqlite3.connect(tmp_path / "live" / "journal.sqlite")) as file, file:
        file.execute("UPDATE forecast SET quantiles = 'no json' WHERE pair = ?", (PAIR,))
    again = Bot(tmp_path / "live").start(FIRST + 1)
    again.run(FIRST + 2, FIRST + 3)
    outlook = again.close_candle(FIRST + 3)
    again.stop()
    assert is_forecast(outlook)[-2:].all()
    assert not is_forecast(outlook)[:-2].any()


def fill_the_disk(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("cannot write, no space left")

    patch.setattr(Spool, "append", refuse)


@pytest.mark.lengthy
def test_without_journal_and_file_there_is_no_entry_and_what_was_said_stays(
    bot: Bot, past: Outlook, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bot.run(FIRST, FIRST + 3)
    with hold(bot), monkeypatch.context() as patch:
        fill_the_disk(patch)
        outlook = bot.close_candle(FIRST + 3)
        assert outlook.decision.reason[-1] == ERROR
        assert outlook.decision.side[-1] == 0
        assert differences(said, outlook) == []
        assert is_forecast(outlook)[-1]  # exits go on with it
        bot.look(FIRST + 4)
        assert any(news.startswith("No entries") for news in bot.news)
    wait_until(lambda: bot.recorder.keeps, 15.0)
    said |= bot.run(FIRST + 4, FIRST + 5)
    assert differences(said, past) == []
    assert bot.recorder.settle(30.0)
    rows = [row_of(row.candle_ms) for row in said_in_file(bot.root)]
    assert rows[-5:] == [*range(FIRST, FIRST + 5)]


def test_no_forecast_trades_that_nobody_holds(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    outlook = bot.close_candle(FIRST)
    assert bot.recorder.settle(10.0)
    rows = said_in_file(tmp_path / "live")
    bot.stop()
    made = outlook.date_ms[is_forecast(outlook)]
    assert [row.candle_ms for row in rows] == made.tolist()


@pytest.mark.parametrize("error", [StoreError("boom"), RuntimeError("boom"), MemoryError()])
def test_whatever_fails_what_was_said_before_stays_to_be_seen(
    bot: Bot, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bot.run(FIRST, FIRST + 2)

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("lstm_model.bot.live.Frame", fail)
        outlook = bot.close_candle(FIRST + 2)
    assert no_trade(outlook)
    assert set(outlook.decision.reason) == {ERROR}
    assert [is_forecast(outlook)[place] for place in (-3, -2, -1)] == [True, True, False]
    seen = {row: facts(outlook, row - FIRST - 3)["lstm_mean"] for row in said}
    assert seen == {row: fact["lstm_mean"] for row, fact in said.items()}


@pytest.mark.parametrize("error", [StoreError("weights are gone"), ValueError("bad shape")])
def test_a_model_that_fails_means_no_trade(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bot.close_candle(FIRST)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Model, "forecast", fail)
    assert no_trade(bot.close_candle(FIRST + 1))


def test_versions_missing_from_the_store_count_as_unskilled(bot: Bot, tmp_path: Path) -> None:
    bot.run(FIRST, FIRST + 3)
    bot.stop()
    for folder in (tmp_path / "live" / "models").iterdir():
        folder.rename(tmp_path / folder.name)
    again = Bot(tmp_path / "live").start()
    again.close_ms = bot.close_ms
    assert no_trade(again.engine.outlook(again.frame()))
    again.stop()


@pytest.mark.lengthy
def test_versions_that_serve_no_more_are_asked_for_once(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 2)
    baseline = next(c.version for c in bot.maker.store.cards() if c.kind == "baseline")
    bot.lineage.pin(baseline)
    said = bot.run(FIRST + 2, FIRST + 5)
    bot.lineage.unpin()
    asked, load = [], ModelStore.load

    def counted(store: ModelStore, version: str) -> StoredModel:
        asked.append(version)
        return load(store, version)

    monkeypatch.setattr(ModelStore, "load", counted)
    said |= bot.run(FIRST + 5, FIRST + 8)
    assert len({fact["version"] for fact in said.values()}) == 2
    assert asked == [baseline]
    assert differences(said, bot.engine.outlook(bot.frame())) == []


def test_a_pinned_model_serves_before_the_first_step(bot: Bot, tmp_path: Path) -> None:
    version = bot.close_candle(FIRST).version[-1]
    other = Bot(tmp_path / "live", lineage="another")
    other.lineage.pin(version)
    other.start(FIRST + 1)
    outlook = other.engine.outlook(other.frame())
    assert other.engine._learning.steps == ()
    assert is_forecast(outlook)[-1]
    assert outlook.version[-1] == version
    other.stop()


def test_an_unusable_store_or_journal_is_noticed_at_the_start_and_nothing_stays_open(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        Bot(tmp_path / "file").start()
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "journal.sqlite").write_bytes(b"no database" * 500)
    gc.collect()  # what tests before left
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with pytest.raises(StoreError, match="file is not a database"):
        Bot(tmp_path / "live").start()
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    (tmp_path / "live" / "journal.sqlite").unlink()
    Bot(tmp_path / "live").start().stop()  # neither lineage nor file are held


def test_before_the_first_model_there_is_no_trade(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.at(FIRST)
    outlook = bot.engine.outlook(bot.frame())
    assert no_trade(outlook)
    assert set(outlook.decision.reason) == {NO_MODEL}
    bot.stop()


def _nothing(candles: Candles) -> Candles:
    return candles.rows(0, 0)


def _one(candles: Candles) -> Candles:
    return candles.rows(len(candles) - 1, len(candles))


def _too_few(candles: Candles) -> Candles:
    return candles.rows(len(candles) - 200, len(candles))


def _nan(candles: Candles) -> Candles:
    return change(candles, -1, close=np.nan)


def _all_nan(candles: Candles) -> Candles:
    return change(candles, slice(None), open=np.nan, high=np.nan, low=np.nan, close=np.nan)


def _hole(candles: Candles) -> Candles:
    return drop(candles, slice(-40, -3))


def _no_volume(candles: Candles) -> Candles:
    return change(candles, -1, volume=0.0)


def _crossed(candles: Candles) -> Candles:
    return change(candles, -1, high=1.0)


SPOILERS = [_nothing, _one, _too_few, _nan, _all_nan, _hole, _no_volume, _crossed]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_spoilt_candles_mean_no_trade_and_no_traceback(
    bot: Bot, spoil: Callable[[Candles], Candles], caplog: pytest.LogCaptureFixture
) -> None:
    bot.close_candle(FIRST)
    caplog.clear()
    bot.at(FIRST + 1)
    outlook = bot.engine.outlook(spoil(bot.frame()))
    assert len(outlook.date_ms) == 0 or outlook.decision.side[-1] == 0
    assert not is_forecast(outlook)[-1:].any()
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("spoil", SPOILERS)
def test_spoilt_candles_are_told_in_one_line(
    bot: Bot, spoil: Callable[[Candles], Candles], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bot.close_candle(FIRST)
    bot.at(FIRST + 1)
    frame = spoil(bot.frame())
    caplog.clear()
    bot.engine.outlook(frame)
    [line] = [record.message for record in caplog.records]
    assert PAIR in line
    assert ("the exchange gave no candles" in line) == (spoil is _nothing)
    assert (NO_DATA in line) == (spoil is not _nothing)


def test_after_a_spoilt_candle_forecasts_come_back(bot: Bot) -> None:
    bot.close_candle(FIRST)
    bot.at(FIRST + 1)
    bot.engine.outlook(_no_volume(bot.frame()))
    assert is_forecast(bot.close_candle(FIRST + 2))[-1]


@pytest.mark.lengthy
def test_a_candle_without_volume_is_forecast_by_neither_engine(tmp_path: Path) -> None:
    series = [change(SERIES[0], FIRST + 1, volume=0.0), SERIES[1]]
    bot = Bot(tmp_path / "live", series).start()
    live = bot.run(FIRST, FIRST + 3)
    bot.stop()
    past = backtest(tmp_path / "past", series)
    assert is_forecast(past)[SETTINGS.horizon :][:3].tolist() == [True, False, True]
    assert [said["lstm_reason"] == NO_DATA for said in live.values()] == [False, True, False]


# ---------------------------------------------------------------- what became of candles


def summaries(bot: Bot) -> list[str]:
    """What was told of candles: how many, and why there was no entry."""
    told = [news for news in bot.news if "entry signal" in news]
    return [news.split(": ", maxsplit=1)[1] for news in told]


@pytest.mark.lengthy
def test_what_became_of_candles_is_summed_up_once_a_step_and_on_a_start(
    bot: Bot, tmp_path: Path
) -> None:
    bot.look(FIRST)
    for row in (FIRST, FIRST + 1):
        bot.engine.note(PAIR, boundary_ms(row), NO_EDGE)
        bot.look(row + 1)
    assert summaries(bot) == []
    bot.look(BOUNDARY - 1)
    bot.engine.note(PAIR, boundary_ms(BOUNDARY), NO_DATA)
    bot.look(BOUNDARY + 1)
    assert summaries(bot) == ["2 candles, no_edge 2"]
    bot.stop()
    again = Bot(tmp_path / "live").start(BOUNDARY + 2)
    again.look(BOUNDARY + 2)
    again.look(BOUNDARY + 3)
    again.stop()
    assert summaries(again) == ["1 candle, no_data 1"]


@pytest.mark.lengthy
def test_a_sum_comes_when_the_journal_answers(bot: Bot) -> None:
    bot.look(FIRST)
    bot.engine.note(PAIR, boundary_ms(FIRST), NO_EDGE)
    with hold(bot):
        bot.look(BOUNDARY)
        assert summaries(bot) == []
    assert bot.recorder.settle(30.0)
    bot.look(BOUNDARY + 1)
    assert summaries(bot) == ["1 candle, no_edge 1"]


# ---------------------------------------------------------------- a learner that stands still

STALE_AFTER = 60  # candles; the last step is at candle 1,550
STALE = SETTINGS.model_copy(update={"stale_model_candles": STALE_AFTER})
TOO_OLD = 1_550 + STALE_AFTER  # the first candle whose close nobody may enter at


def stand_still(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StoreError("the disk is full")

    patch.setattr(Learning, "walk", fail)


@pytest.mark.lengthy
def test_a_model_that_was_not_checked_for_too_long_enters_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Bot(tmp_path / "live", settings=STALE).start()
    bot.look(FIRST)
    with monkeypatch.context() as patch:
        stand_still(patch)
        said = bot.run(TOO_OLD - 4, TOO_OLD + 4)
        outlook = bot.engine.outlook(bot.frame())
    assert list(bot.steps)[-1] == 1_550
    stale = {row: fact["lstm_gate"] == STALE_MODEL for row, fact in said.items()}
    assert stale == {row: row >= TOO_OLD for row in said}
    sides = {row: fact["lstm_side"] for row, fact in said.items()}
    assert all((sides[row] == 0) == stale[row] for row in said)
    assert [fact["lstm_reason"] for fact in said.values()][-4:] == [STALE_MODEL] * 4
    assert is_forecast(outlook)[-8:].all()  # what it thinks is shown all the same
    assert differences(said, outlook) == []
    bot.stop()


@pytest.mark.lengthy
def test_a_step_that_comes_late_lifts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = Bot(tmp_path / "live", settings=STALE).start()
    bot.look(FIRST)
    with monkeypatch.context() as patch:
        stand_still(patch)
        assert bot.close_candle(TOO_OLD).decision.gate[-1] == STALE_MODEL
    lifted = bot.close_candle(TOO_OLD + 2)  # ten minutes later it is tried again
    assert list(bot.steps)[-1] == 1_600
    assert lifted.decision.gate[-1] == ""
    assert lifted.decision.side[-1] != 0
    bot.stop()


@pytest.mark.lengthy
def test_a_pinned_model_is_the_users_and_never_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Bot(tmp_path / "live", settings=STALE).start()
    version = str(bot.close_candle(FIRST).version[-1])
    bot.lineage.pin(version)
    stand_still(monkeypatch)
    assert STALE_MODEL not in bot.close_candle(TOO_OLD + 20).decision.gate
    bot.lineage.unpin()
    assert bot.close_candle(TOO_OLD + 21).decision.gate[-1] == STALE_MODEL
    bot.stop()


def test_a_candle_that_cannot_be_forecast_is_called_so_even_if_the_model_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Bot(tmp_path / "live", settings=STALE).start()
    bot.look(FIRST)
    stand_still(monkeypatch)
    bot.at(TOO_OLD + 5)
    assert bot.engine.outlook(_no_volume(bot.frame())).decision.reason[-1] == NO_DATA
    bot.stop()


# ---------------------------------------------------------------- an older release's journal


@pytest.mark.lengthy
def test_forecasts_of_an_older_release_are_shown_and_enter_nothing(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    said = bot.run(FIRST, FIRST + 5)
    bot.stop()
    with closing(sqlite3.connect(tmp_path / "live" / "journal.sqlite")) as file, file:
        file.execute("UPDATE forecast SET mean_error = NULL, lowest = NULL, highest = NULL")
    again = Bot(tmp_path / "live").start(FIRST + 5)
    outlook = again.close_candle(FIRST + 5)
    again.stop()
    assert is_forecast(outlook)[-6:].all()
    for row, fact in said.items():
        place = row - FIRST - 6
        assert outlook.forecast.mean[place].tobytes() == fact["lstm_mean"]
        assert outlook.forecast.quantiles[place].tobytes() == fact["quantiles"]
        assert fact["lstm_side"] != 0
    old, new = outlook.decision.reason[-6:-1], outlook.decision.reason[-1]
    assert set(old) == {NO_DATA}
    assert not outlook.decision.side[-6:-1].any()
    assert np.isnan(outlook.forecast.lowest[-6:-1]).all()
    assert new in (ENTER_LONG, ENTER_SHORT)


# ---------------------------------------------------------------- between candles


class Listening:
    """Stands in for `InsideCandle`; keeps what it is told."""

    def __init__(self) -> None:
        self.stream = SimpleNamespace(news=deque(), stop=lambda: None)
        self.followed: set[str] = set()
        self.based: list[str] = []

    def follow(self, pairs: set[str]) -> None:
        self.followed = pairs

    def rebase(self, series: list[tuple[Model, Candles]]) -> None:
        self.based += [candles.pair for _, candles in series]

    def save_flow(self, closed: Candles) -> None:
        """No trade is known."""


def test_a_leader_beside_the_whitelist_is_followed_between_candles(tmp_path: Path) -> None:
    """As soon as freqtrade has candles of it, so that the others' forecasts see it there, too."""
    bot = Bot(tmp_path / "live").start()
    bot.engine.inside = inside = Listening()
    bot.at(FIRST).engine.tick(now_ms(FIRST), [OTHER])
    assert inside.followed == {OTHER}
    wait_for_learning()
    bot.engine.lead(bot.frame(PAIR))
    assert inside.based == [PAIR]
    bot.engine.tick(now_ms(FIRST), [OTHER])
    assert inside.followed == {PAIR, OTHER}
    bot.stop()
