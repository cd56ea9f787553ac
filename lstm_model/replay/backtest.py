"""A real freqtrade backtest in this process, which gives away what it saw of every candle.

`freqtrade backtesting` writes trades alone. Its own `Backtesting` is run here, and listened to: the
dataframes that the strategy made, the stakes that came out as nothing, the pairs that were locked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from freqtrade.enums import RunMode
from freqtrade.exceptions import FreqtradeException
from freqtrade.mixins import LoggingMixin
from freqtrade.optimize.backtesting import Backtesting
from freqtrade.persistence import CustomDataWrapper, LocalTrade, PairLocks, Trade
from pandas import DataFrame

from lstm_model.bot import insides
from lstm_model.bot.reading import in_a_line
from lstm_model.errors import ConfigError
from lstm_model.replay.accounts import Account, Lock
from lstm_model.replay.forecasts import opens_of
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.store.journal_rows import VerdictRow
from lstm_model.trading.analyzed import opened_ms
from lstm_model.trading.sizing import ENTER_LONG, ENTER_SHORT

# What a backtest leaves behind in freqtrade's classes. Lists are replaced there, never emptied.
_GLOBALS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Trade, ("use_db",)),
    (PairLocks, ("use_db", "timeframe", "locks")),
    (CustomDataWrapper, ("use_db", "custom_data")),
    (LoggingMixin, ("show_output",)),
    (
        LocalTrade,
        ("bt_trades", "bt_trades_open", "bt_trades_open_pp", "bt_open_open_trade_count",
         "bt_total_profit"),
    ),
)  # fmt: skip
_ENTRIES = (("enter_long", ENTER_LONG), ("enter_short", ENTER_SHORT))


@dataclass(frozen=True)
class BacktestRun:
    """What a backtest did.

    Attributes
    ----------
    forecasts : pair -> `date` and all `lstm_*` columns, also of the candles that only warm up
    trades : freqtrade's records; trades that were open at the end have `force_exit` as the reason
    account : the same trades, what became of every candle, and which pairs were locked
    max_open_trades : of the strategy; `inf` without a limit
    """

    forecasts: dict[str, DataFrame]
    trades: list[dict[str, Any]]
    account: Account
    max_open_trades: float


def backtest(
    config_args: Mapping[str, Any], start_ms: int, end_ms: int, *, plain: bool = False
) -> BacktestRun:
    """Run one strategy over the candles that open in `[start_ms, end_ms)`, protections enabled.

    Nothing is exported or printed, no result is taken from a cache, and afterwards freqtrade's
    classes and the handlers of the root logger are as they were. The exchange of the configuration
    must answer: freqtrade asks it for its markets.

    Parameters
    ----------
    config_args : as freqtrade's command line gives them: `config` (files), `strategy`,
        `user_data_dir`, `datadir`, `fee`, ...
    plain : whether the strategy may have no forecasts; then there are trades and locks alone

    Raises
    ------
    ConfigError
        Whatever freqtrade or the strategy have against the configuration or the data.
    """
    args = {
        **config_args,
        # freqtrade's time range holds the candle that opens at its end, too.
        "timerange": f"{start_ms // 1000}-{(end_ms - 1) // 1000}",
        "enable_protections": True,
        "export": "none",
        "backtest_cache": "none",
    }
    try:
        with as_it_was():
            return _run(insides.set_up(args, RunMode.BACKTEST), start_ms, plain)
    except FreqtradeException as error:
        raise ConfigError(f"the backtest failed: {in_a_line(error)}") from None


def entries(results: Path, strategy: str) -> list[int]:
    """When the newest backtest that freqtrade has exported into a folder entered its trades.

    Returns
    -------
    list of int
        Milliseconds UTC, rising.

    Raises
    ------
    ConfigError
        There is none of this strategy.
    """
    try:
        trades = insides.exported_trades(results, strategy)
    except (FreqtradeException, ValueError) as error:
        raise ConfigError(f"no backtest in {results}: {in_a_line(error)}") from None
    return sorted(int(at.timestamp() * 1000) for at in trades["open_date"]) if len(trades) else []


def _run(config: dict[str, Any], start_ms: int, plain: bool) -> BacktestRun:
    testing = Backtesting(config)
    try:
        strategy = testing.strategylist[0]
        listener = _Deaf() if plain else _Listener(strategy, start_ms)
        candles, timerange = testing.load_bt_data()
        testing.backtest_one_strategy(strategy, candles, timerange)
    finally:
        testing.exchange.close()
    content = testing.all_bt_content[strategy.get_strategy_name()]
    trades = content["results"].to_dict("records")
    account = Account(
        trades=tuple(TradeFacts.of(trade) for trade in trades),
        verdicts=tuple(listener.verdicts),
        locks=tuple(Lock.of(lock.to_json()) for lock in content["locks"]),
        first_ms=listener.first_ms(),
    )
    return BacktestRun(listener.forecasts, trades, account, float(strategy.max_open_trades))


class _Deaf:
    """Beside a strategy that says nothing of forecasts."""

    def __init__(self) -> None:
        self.forecasts: dict[str, DataFrame] = {}
        self.verdicts: list[VerdictRow] = []

    def first_ms(self) -> dict[str, int]:
        """No candle had a forecast."""
        return {}


class _Listener:
    """Hears what a strategy answers in a backtest, and changes nothing."""

    def __init__(self, strategy: Any, start_ms: int) -> None:
        self.forecasts: dict[str, DataFrame] = {}
        self.verdicts: list[VerdictRow] = []
        self._strategy, self._start_ms = strategy, start_ms
        self._advise = strategy.advise_all_indicators
        self._signal = strategy.ft_advise_signals
        strategy.advise_all_indicators = self._hear_indicators
        strategy.ft_advise_signals = self._hear_signals
        if hasattr(strategy, "lstm_stake_for"):  # only `LSTMRisk` has it
            self._stake = strategy.lstm_stake_for
            strategy.lstm_stake_for = self._hear_stake

    def first_ms(self) -> dict[str, int]:
        """The first candle of each pair that could lead to an entry."""
        first = {}
        for pair, frame in self.forecasts.items():
            known = opens_of(frame)[np.isfinite(frame["lstm_mean"].to_numpy())]
            known = known[known >= self._start_ms]
            if len(known):
                first[pair] = int(known[0])
        return first

    def _hear_indicators(self, data: dict[str, DataFrame]) -> dict[str, DataFrame]:
        advised: dict[str, DataFrame] = self._advise(data)
        for pair, frame in advised.items():
            ours = [name for name in frame if name.startswith("lstm_")]
            if not ours:
                raise ConfigError(
                    f"the strategy {self._strategy.get_strategy_name()} has no forecasts: derive "
                    "it from LSTMForecasts or LSTMRisk"
                )
            self.forecasts[pair] = frame[["date", *ours]].copy()
        return advised

    def _hear_signals(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        signalled: DataFrame = self._signal(dataframe, metadata)
        reasons = signalled["lstm_reason"].to_numpy(dtype=object).copy()
        for column, code in _ENTRIES:
            if column in signalled:
                reasons[signalled[column].to_numpy() == 1] = code
        for candle_ms, reason in zip(opens_of(signalled).tolist(), reasons, strict=True):
            if candle_ms >= self._start_ms:
                self._note(metadata["pair"], candle_ms, reason)
        return signalled

    def _hear_stake(self, entry: Any) -> Any:
        stake = self._stake(entry)
        if stake.amount == 0.0 and entry.trade_id is None:
            candle_ms = opened_ms(self._strategy.lstm_analyzed(entry.pair))
            self._note(entry.pair, candle_ms, stake.reason, f"stake {stake.text}")
        return stake

    def _note(self, pair: str, candle_ms: int, reason: str, text: str = "") -> None:
        order = len(self.verdicts)  # in place of the time it was said
        timeframe = str(self._strategy.timeframe)
        self.verdicts.append(VerdictRow(pair, timeframe, candle_ms, str(reason), text, order))


@contextmanager
def as_it_was() -> Iterator[None]:
    """Put back afterwards what freqtrade keeps in its classes, and the root logger's handlers."""
    before = [
        (owner, name, getattr(owner, name)) for owner, names in _GLOBALS for name in names
    ]  # fmt: skip
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        root.handlers[:] = handlers
        root.setLevel(level)
