"""What the capture of a backtest leaves behind, and what it hears. The real thing: test_e2e."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from freqtrade.mixins import LoggingMixin
from freqtrade.persistence import CustomDataWrapper, LocalTrade, PairLocks, Trade
from freqtrade.persistence.usedb_context import disable_database_use
from pandas import DataFrame
from series import STEP_MS, make_candles, to_frame

from lstm_model.errors import ConfigError
from lstm_model.replay import backtest
from lstm_model.trading.sizing import ENTER_LONG, NO_EDGE, TOO_SMALL
from lstm_model.trading.stake import Stake

PAIR = "BTC/USDT"
CANDLES = make_candles(6)
START_MS = int(CANDLES.date_ms[2])


def freqtrades_state() -> list[Any]:
    return [getattr(owner, name) for owner, names in backtest._GLOBALS for name in names]


def test_freqtrade_is_as_it_was_even_after_a_failure() -> None:
    before, handlers = freqtrades_state(), logging.getLogger().handlers[:]

    def fail() -> None:
        with backtest.as_it_was():
            disable_database_use("5m")
            LoggingMixin.show_output = False
            PairLocks.reset_locks()
            CustomDataWrapper.reset_custom_data()
            LocalTrade.reset_trades()
            LocalTrade.bt_open_open_trade_count = 3
            logging.getLogger().addHandler(logging.NullHandler())
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    assert all(now is then for now, then in zip(freqtrades_state(), before, strict=True))
    assert logging.getLogger().handlers == handlers
    assert Trade.use_db


@dataclass
class Strategy:
    """Answers as freqtrade's strategies do, with columns to choose."""

    columns: dict[str, Any] = field(default_factory=dict)
    timeframe: str = "5m"

    def get_strategy_name(self) -> str:
        return "Mine"

    def advise_all_indicators(self, data: dict[str, DataFrame]) -> dict[str, DataFrame]:
        return {pair: frame.assign(**self.columns) for pair, frame in data.items()}

    def ft_advise_signals(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        return dataframe.assign(enter_long=[np.nan, 1, np.nan, 1, np.nan, np.nan])


class Staking(Strategy):
    def lstm_stake_for(self, entry: Any) -> Stake:
        return Stake(entry.amount, TOO_SMALL, "0: too little")

    def lstm_analyzed(self, pair: str) -> DataFrame:
        return to_frame(CANDLES)[:4]


@dataclass(frozen=True)
class Asked:
    """What an entry says of itself, as far as it is heard."""

    amount: float
    trade_id: int | None = None
    pair: str = PAIR


FORECASTS = {"lstm_mean": [0.1, np.nan, np.nan, 0.1, 0.1, 0.1], "lstm_reason": NO_EDGE, "own": 1.0}


def test_forecasts_and_signals_are_heard_as_they_were_given() -> None:
    strategy = Strategy(FORECASTS)
    listener = backtest._Listener(strategy, START_MS)
    advised = strategy.advise_all_indicators({PAIR: to_frame(CANDLES)})
    strategy.ft_advise_signals(advised[PAIR], {"pair": PAIR})
    assert list(listener.forecasts[PAIR]) == ["date", "lstm_mean", "lstm_reason"]
    assert listener.first_ms() == {PAIR: START_MS + STEP_MS}
    said = [(word.candle_ms - START_MS, word.reason) for word in listener.verdicts]
    assert said == [(0, NO_EDGE), (STEP_MS, ENTER_LONG), (2 * STEP_MS, NO_EDGE),
                    (3 * STEP_MS, NO_EDGE)]  # fmt: skip


def test_a_stake_of_nothing_is_heard_with_its_candle() -> None:
    strategy = Staking(FORECASTS)
    listener = backtest._Listener(strategy, START_MS)
    assert strategy.lstm_stake_for(Asked(0.0)).reason == TOO_SMALL
    strategy.lstm_stake_for(Asked(12.0))
    strategy.lstm_stake_for(Asked(0.0, trade_id=3))  # a trade that is weighed anew
    (word,) = listener.verdicts
    assert (word.candle_ms, word.reason) == (int(CANDLES.date_ms[3]), TOO_SMALL)
    assert word.text == "stake 0: too little"


def test_a_strategy_without_forecasts_is_refused() -> None:
    strategy = Strategy()
    backtest._Listener(strategy, START_MS)
    with pytest.raises(ConfigError, match="Mine has no forecasts: derive it from"):
        strategy.advise_all_indicators({PAIR: to_frame(CANDLES)})
