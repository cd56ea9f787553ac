"""A trend of Heikin-Ashi candles, written over the market's as many do."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class HeikinAshi(IStrategy):
    """A trend of Heikin-Ashi candles, written over the market's as many do."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 200
    stoploss = -0.07
    disable_dataframe_checks = True  # freqtrade refuses another close otherwise
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        close = (dataframe["open"] + dataframe["high"] + dataframe["low"] + dataframe["close"]) / 4
        dataframe["open"] = (dataframe["open"].shift() + dataframe["close"].shift()) / 2
        dataframe["close"] = close
        dataframe["trend"] = ta.EMA(dataframe, timeperiod=50)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        green = (dataframe["close"] > dataframe["open"]).rolling(4).sum() == 4
        dataframe.loc[green & (dataframe["close"] > dataframe["trend"]), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        red = (dataframe["close"] < dataframe["open"]).rolling(3).sum() == 3
        dataframe.loc[red, "exit_long"] = 1
        return dataframe
