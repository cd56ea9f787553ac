"""A trend with a stop of its own, at break-even once something is earned."""

from typing import Any

import talib.abstract as ta
from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy, stoploss_from_open
from pandas import DataFrame


class BreakEven(IStrategy):
    """A trend with a stop of its own, at break-even once something is earned."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 240
    stoploss = -0.06
    use_custom_stoploss = True
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["fast"] = ta.EMA(dataframe, timeperiod=12)
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=60)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        above = dataframe["fast"] > dataframe["slow"]
        dataframe.loc[above & ~above.shift(fill_value=True), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["fast"] < 0.997 * dataframe["slow"], "exit_long"] = 1
        return dataframe

    def custom_stoploss(
        self, trade: Trade, current_rate: float, current_profit: float, **kwargs: Any
    ) -> float | None:
        """At the entry price and its fees, once 1.5 % are earned."""
        if current_profit < 0.015:
            return None
        return float(stoploss_from_open(0.002, current_profit, is_short=trade.is_short))
