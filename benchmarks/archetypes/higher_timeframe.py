"""A dip in the trend of a higher timeframe."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy, informative
from pandas import DataFrame


class HigherTimeframe(IStrategy):
    """A dip in the trend of a higher timeframe."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 200
    stoploss = -0.06
    minimal_roi = {"0": 0.03, "720": 0.0}  # noqa: RUF012 - freqtrade's own form

    @informative("1h")
    def populate_indicators_1h(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["fast"] = ta.EMA(dataframe, timeperiod=12)
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=48)
        return dataframe

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["rsi"] = ta.RSI(dataframe, timeperiod=14)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        up = dataframe["fast_1h"] > dataframe["slow_1h"]
        dataframe.loc[up & (dataframe["rsi"] < 35), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["rsi"] > 70, "exit_long"] = 1
        return dataframe
