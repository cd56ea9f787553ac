"""A position that is meant to last for weeks, with a wide stop."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class LongHold(IStrategy):
    """A position that is meant to last for weeks, with a wide stop."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 1400
    stoploss = -0.25
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=900)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        rising = (dataframe["close"] > dataframe["slow"]) & (
            dataframe["slow"] > dataframe["slow"].shift(288)
        )
        dataframe.loc[rising, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["close"] < 0.95 * dataframe["slow"], "exit_long"] = 1
        return dataframe
