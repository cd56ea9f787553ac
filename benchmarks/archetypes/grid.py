"""A grid: adds to a position as the price falls, leaves it at a profit."""

from typing import Any

import talib.abstract as ta
from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class Grid(IStrategy):
    """A grid: adds to a position as the price falls, leaves it at a profit."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 200
    stoploss = -0.15
    position_adjustment_enable = True
    max_entry_position_adjustment = 3
    minimal_roi = {"0": 0.015}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["rsi"] = ta.RSI(dataframe, timeperiod=14)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["rsi"] < 30, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        # leaves by its stop or ROI
        return dataframe

    def custom_stake_amount(self, proposed_stake: float, **kwargs: Any) -> float:
        """A quarter, to leave room for three more."""
        return proposed_stake / 4

    def adjust_trade_position(
        self, trade: Trade, current_profit: float, **kwargs: Any
    ) -> float | None:
        step = 0.02 * trade.nr_of_successful_entries
        if current_profit >= -step:
            return None
        return float(trade.stake_amount / trade.nr_of_successful_entries)
