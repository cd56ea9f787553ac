"""A trend by two moving averages, in and out at their cross."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class MovingAverages(IStrategy):
    """A trend by two moving averages, in and out at their cross."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 400
    stoploss = -0.10
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["fast"] = ta.EMA(dataframe, timeperiod=20)
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=100)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        above = dataframe["fast"] > dataframe["slow"]
        dataframe.loc[above & ~above.shift(fill_value=True), ["enter_long", "enter_tag"]] = (
            1,
            "cross",
        )
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["fast"] < dataframe["slow"], "exit_long"] = 1
        return dataframe
