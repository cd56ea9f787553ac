"""One pair with damaged candles is left out and named; all others go on, the learner too."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from examples import further
from freqtrade.enums import RunMode
from freqtrade.persistence import LocalTrade, disable_database_use, enable_database_use
from freqtrade.resolvers import StrategyResolver
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from live_world import (  # noqa: F401 - three fixtures
    BOUNDARY,
    FIRST,
    LAG,
    OTHER,
    PAIR,
    SERIES,
    SETTINGS,
    Bot,
    easy_to_beat,
    instant_training,
    learning_has_ended,
    now_ms,
    wait_for_learning,
)
from places import STRATEGIES
from series import STEP_MS, to_frame

from lstm_model.bot.live import LiveEngine
from lstm_model.durations import DAY_MS
from lstm_model.errors import DataError
from lstm_model.market.candles import Candles
from lstm_model.trading.sizing import ERROR, NO_DATA

Spoil = Callable[[pd.DataFrame], pd.DataFrame]
DAY = DAY_MS // STEP_MS  # candles
LOOPS = 20  # of a bot that looks every few seconds


def off_the_grid(frame: pd.DataFrame) -> pd.DataFrame:
    dates = frame["date"].to_numpy(copy=True)
    dates[-7] += np.timedelta64(7, "s")
    return frame.assign(date=pd.to_datetime(dates, utc=True))


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[-1:]], ignore_index=True)


def out_of_order(frame: pd.DataFrame) -> pd.DataFrame:
    rows = [*range(len(frame) - 3), len(frame) - 2, len(frame) - 3, len(frame) - 1]
    return frame.iloc[rows].reset_index(drop=True)


def of_text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(close=[*frame["close"].iloc[:-1], "n/a"])


def with_newest(**values: float) -> Spoil:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        for name, value in values.items():
            changed.loc[len(frame) - 1, name] = value
        return changed

    return spoil


REFUSED = {"grid": off_the_grid, "twice": twice, "order": out_of_order, "text": of_text}
UNUSABLE = {
    "nan": with_newest(close=np.nan), "volume": with_newest(volume=-3.0),
    "crossed": with_newest(high=1.0), "negative": with_newest(low=-1.0),
    "infinite": with_newest(high=np.inf),
}  # fmt: skip


class Provider:
    """freqtrade's data provider, with the frames that a test has."""

    _exchange = None

    def __init__(self) -> None:
        self.frames: dict[str, pd.DataFrame] = {}
        self.sent: list[str] = []

    def current_whitelist(self) -> list[str]:
        return [PAIR, OTHER]

    def ohlcv(self, pair: str, timeframe: str, copy: bool) -> pd.DataFrame:
        return self.frames.get(pair, pd.DataFrame())

    def send_msg(self, message: str, *, always_send: bool = False) -> None:
        self.sent.append(message)

    def market(self, pair: str) -> None:
        """Nothing is known of its ticks."""


def load(bot: Bot) -> Any:
    """The strategy as freqtrade loads it, with this bot's engine."""
    strategy = StrategyResolver.load_strategy(
        {"strategy": "LSTMStrategy", "strategy_path": str(STRATEGIES), "runmode": RunMode.DRY_RUN,
         "user_data_dir": Path("nowhere"), "timeframe": "5m", "stake_currency": "USDT",
         "stake_amount": 100.0, "max_open_trades": 3, "dry_run": True, "trading_mode": "spot",
         "exchange": {"name": "binance"}, "lstm": {"lookback": SETTINGS.lookback}}
    )  # fmt: skip
    strategy.dp, strategy._lstm_engine = Provider(), bot.engine
    strategy.ft_load_hyper_params()
    return strategy


class Trader:
    """Loops as freqtrade does: the start of the loop in its guard, then each pair with a candle."""

    def __init__(self, bot: Bot) -> None:
        self.bot, self.strategy = bot, load(bot)
        self.spoilt: dict[str, Spoil] = {}
        self.columns: dict[str, pd.DataFrame] = {}

    def loop(self, row: int) -> None:
        self.bot.at(row)
        for pair in self.bot.series:
            frame = to_frame(self.bot.frame(pair))
            self.strategy.dp.frames[pair] = self.spoilt.get(pair, lambda whole: whole)(frame)
        moment = datetime.fromtimestamp(now_ms(row) / 1000, UTC)
        strategy_safe_wrapper(self.strategy.bot_loop_start, supress_error=True)(current_time=moment)
        wait_for_learning()
        for pair, frame in self.strategy.dp.frames.items():
            told = self.strategy.populate_indicators(frame.copy(), {"pair": pair})
            self.columns[pair] = self.strategy.populate_entry_trend(told, {"pair": pair})

    def newest(self, pair: str) -> tuple[str, bool]:
        """What is said of the newest candle: its gate, and whether there is a forecast."""
        last = self.columns[pair].iloc[-1]
        return str(last["lstm_gate"]), bool(np.isfinite(last["lstm_mean"]))


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    disable_database_use("5m")
    LocalTrade.reset_trades()
    yield
    enable_database_use()


@pytest.fixture
def trader(tmp_path: Path) -> Iterator[Trader]:
    made = Trader(Bot(tmp_path / "live").start())
    made.loop(FIRST)
    assert [made.newest(pair)[1] for pair in (PAIR, OTHER)] == [True, True]
    yield made
    made.bot.engine.stop()


@pytest.mark.lengthy
@pytest.mark.parametrize("bad", [PAIR, OTHER], ids=["leader", "other"])
@pytest.mark.parametrize("kind", ["grid", *further([*REFUSED][1:])])
def test_a_damaged_frame_costs_that_pair_alone_and_is_told_once(
    trader: Trader, kind: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = OTHER if bad == PAIR else PAIR
    trader.strategy.dp.sent.clear()
    caplog.clear()
    trader.spoilt = {bad: REFUSED[kind]}
    for _ in range(LOOPS):
        trader.loop(FIRST + 1)
    assert trader.newest(good)[1]
    assert trader.newest(bad) == (ERROR, False)
    assert not (trader.columns[bad].filter(like="enter_") == 1).to_numpy().any()
    assert trader.bot.journal.last(good, "5m").candle_ms == SERIES[0].date_ms[FIRST + 1]
    named = [
        record.message for record in caplog.records if f"{bad}: no forecast: " in record.message
    ]
    assert len(named) == 1
    assert len([text for text in trader.strategy.dp.sent if f"{bad}: no forecast: " in text]) == 1
    trader.spoilt = {}
    trader.loop(FIRST + 2)
    assert [trader.newest(pair)[1] for pair in (PAIR, OTHER)] == [True, True]


@pytest.mark.lengthy
@pytest.mark.parametrize("kind", ["nan", *further([*UNUSABLE][1:])])
def test_an_unusable_candle_costs_that_pair_its_forecast_and_no_other(
    trader: Trader, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    trader.spoilt = {OTHER: UNUSABLE[kind]}
    for _ in range(LOOPS):
        trader.loop(FIRST + 1)
    assert trader.newest(PAIR)[1]
    assert trader.newest(OTHER) == (NO_DATA, False)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.lengthy
def test_a_learner_goes_on_while_a_pairs_frames_are_damaged(trader: Trader) -> None:
    trader.spoilt = {OTHER: twice}
    for row in (BOUNDARY - 1, BOUNDARY, BOUNDARY + LAG + 1):
        trader.loop(row)
    trader.bot.hear()
    assert BOUNDARY in trader.bot.steps
    assert trader.newest(PAIR)[1]


@pytest.mark.lengthy
def test_a_learner_goes_on_without_a_pair_whose_file_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged: set[str] = set()

    def disk(pair: str) -> Candles | None:
        if pair in damaged:
            raise DataError(f"{pair}: candles are not in order of time")
        return next(candles for candles in SERIES if candles.pair == pair)

    trader = Trader(Bot(tmp_path / "live", disk=disk).start())
    trader.loop(FIRST)
    damaged.add(OTHER)
    for row in (BOUNDARY - 1, BOUNDARY, BOUNDARY + LAG + 1):
        trader.loop(row)
    trader.bot.hear()
    trader.bot.engine.stop()
    assert BOUNDARY in trader.bot.steps
    assert any(OTHER in record.message for record in caplog.records)


@pytest.mark.lengthy
def test_a_candle_of_the_future_is_named_once_and_left_out(
    trader: Trader, caplog: pytest.LogCaptureFixture
) -> None:
    def later(frame: pd.DataFrame) -> pd.DataFrame:
        stray = frame.iloc[-1:].assign(date=pd.Timestamp("2100-01-01", tz="UTC"))
        return pd.concat([frame, stray], ignore_index=True)

    trader.strategy.dp.sent.clear()
    caplog.clear()
    trader.spoilt = {OTHER: later}
    for row in (FIRST + 1, FIRST + 1, FIRST + 2):
        trader.loop(row)
        assert np.isfinite(trader.columns[OTHER]["lstm_mean"].iloc[-2])
        assert trader.newest(OTHER) == (NO_DATA, False)
    assert len([text for text in trader.strategy.dp.sent if "2100-01-01" in text]) == 1
    assert len([record for record in caplog.records if "2100-01-01" in record.message]) == 1
    trader.spoilt = {}
    trader.loop(FIRST + 3)
    seen = trader.bot.maker.history.seen_until([OTHER])
    assert seen == {OTHER: SERIES[0].date_ms[FIRST + 3] + STEP_MS}
    awaited = int(SERIES[0].date_ms[FIRST + 4])
    assert trader.bot.engine.awaits(OTHER, awaited)


@pytest.mark.lengthy
def test_a_bot_that_cannot_be_ended_well_is_let_go_of_nevertheless(
    trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: LiveEngine) -> None:
        raise RuntimeError("no thread")

    trader.loop(FIRST + 1)
    assert gc.get_freeze_count()
    with monkeypatch.context() as patch:
        patch.setattr(LiveEngine, "stop", refuse)
        with pytest.raises(RuntimeError, match="no thread"):
            trader.strategy.ft_bot_cleanup()
    assert trader.strategy._lstm_engine is None
    assert not gc.get_freeze_count()


@pytest.mark.lengthy
def test_what_belonged_to_a_bot_is_let_go_when_its_configuration_is_reloaded(
    tmp_path: Path,
) -> None:
    """freqtrade makes the new bot while it holds the old one, full of circles."""

    class Worker:
        trader: Trader | None = None

    worker, generations = Worker(), []
    for number in range(4):
        if worker.trader is not None:
            worker.trader.strategy._lstm_stop()
        trader = Trader(Bot(tmp_path / "live").start(FIRST + number))
        trader.itself = trader
        worker.trader = trader
        generations.append((weakref.ref(trader), weakref.ref(trader.bot.engine)))
        del trader
        worker.trader.loop(FIRST + number)
        assert gc.get_freeze_count()
    worker.trader.strategy._lstm_stop()
    alive = [[ref() is not None for ref in refs] for refs in generations]
    assert alive == [[False, False]] * 3 + [[True, True]]
    assert not gc.get_freeze_count()


@pytest.mark.lengthy
def test_a_bot_that_a_log_holds_for_a_while_after_a_reload_is_let_go_of_later(
    tmp_path: Path,
) -> None:
    """freqtrade keeps its newest log with the frames that raised: of an outage, those of a bot."""
    trader = Trader(Bot(tmp_path / "live").start())
    trader.itself = trader
    trader.loop(FIRST)
    trader.strategy._lstm_stop()
    log, gone = [trader], weakref.ref(trader)
    trader = Trader(Bot(tmp_path / "live").start(FIRST + 1))
    trader.loop(FIRST + 1)
    log.clear()
    gc.collect()
    assert gone() is not None
    trader.loop(FIRST + DAY)
    assert gone() is not None
    trader.loop(FIRST + 1 + DAY)
    assert gone() is None
    assert gc.get_freeze_count()
    trader.strategy._lstm_stop()
