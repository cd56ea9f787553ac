"""A bot that does not start leaves nothing open, whichever of its steps it was that failed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from freqtrade.strategy import IStrategy
from instant_training import SETTINGS, make_terms
from live_world import (  # noqa: F401 - three fixtures
    FIRST,
    Bot,
    easy_to_beat,
    instant_training,
    learning_has_ended,
)
from opened import Refusal, left_open, open_things, refusing

from lstm_model.bot.forecasting import LSTMForecasts
from lstm_model.bot.live import LiveEngine
from lstm_model.errors import LstmModelError
from lstm_model.market.flow_store import FlowStore
from lstm_model.stream.trade_stream import TradeStream
from lstm_model.trading.inside import Guard, InsideCandle, OnTrades

# What a start may end in: ours, and what the system says where nothing of ours can be said of it.
REFUSED = (LstmModelError, OSError, RuntimeError, KeyboardInterrupt)


def left_to(root: Path, before: Path) -> Path:
    """The folder of a bot that goes on from what another has left."""
    if before.exists():
        shutil.copytree(before, root)
    return root


def nobody_there() -> Any:
    raise OSError("no route to host")


def listening(root: Path) -> Bot:
    """A bot with a trade stream, whose exchange cannot be reached."""
    bot = Bot(root)
    terms = make_terms(SETTINGS)

    def open_stream(on_trades: OnTrades) -> TradeStream:
        return TradeStream(nobody_there, 300_000, terms.settings, on_trades)

    def open_inside(guard: Guard) -> InsideCandle:
        return InsideCandle(terms, "5m", open_stream, FlowStore(root / "flow"), guard, None)

    bot.engine = LiveEngine(bot.learning, terms, bot.recorder, bot.lineage, open_inside)
    return bot


def attempt(bot: Bot, at: int, *, interrupt: bool) -> Refusal:
    """Start and end a bot of which one step is refused."""
    with refusing(bot.root, at, interrupt=interrupt) as refusal:
        try:
            bot.start(FIRST + 1)
        except REFUSED:
            return refusal
    bot.stop()  # it can do without
    return refusal


@pytest.mark.lengthy
@pytest.mark.parametrize("interrupt", [False, True], ids=["refused", "interrupted"])
@pytest.mark.parametrize("has_learnt", [False, True], ids=["first start", "later start"])
def test_whatever_step_of_a_start_fails_nothing_stays_open(
    tmp_path: Path, has_learnt: bool, interrupt: bool
) -> None:
    root = tmp_path / "before"
    if has_learnt:
        Bot(root).start().close_candle_and_stop(FIRST)
    whole = listening(left_to(tmp_path / "whole", root))
    steps, refused = attempt(whole, -1, interrupt=interrupt).asked, set()
    for at in range(len(steps)):
        bot, before = listening(left_to(tmp_path / str(at), root)), open_things()
        refused.add(attempt(bot, at, interrupt=interrupt).refused)
        assert not left_open(before), f"step {at}: {steps[at]}"
    assert refused >= {*steps} >= {"open", "fcntl.flock", "threading.Thread.start"}


class Theirs(IStrategy):  # type: ignore[misc]
    """A user's strategy that does not start."""

    timeframe, stoploss, minimal_roi = "5m", -0.1, {"0": 0.1}
    error: BaseException

    def populate_indicators(self, dataframe: Any, metadata: Any) -> Any:
        return dataframe

    populate_entry_trend = populate_exit_trend = populate_indicators

    def bot_start(self, **_: Any) -> None:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()])
def test_a_strategy_that_fails_to_start_behind_ours_leaves_no_bot_of_ours_running(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Safer(LSTMForecasts, Theirs):
        pass

    Safer.error, before = error, open_things()
    monkeypatch.setattr(
        "lstm_model.bot.assembly.open_engine", lambda *_, **__: listening(tmp_path).start().engine
    )
    strategy = Safer({"lstm": {}, "timeframe": "5m"})
    strategy.dp = None
    with pytest.raises(type(error)):
        strategy.bot_start()
    assert not left_open(before)
