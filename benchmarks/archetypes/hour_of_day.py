"""In at the same hour every day, out two hours later."""

from typing import Any

from freqtrade.strategy import IStrategy
from pandas import DataFrame


class HourOfDay(IStrategy):
    """In at the same hour every day, out two hours later."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 30
    stoploss = -0.04
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["minute"] = dataframe["date"].dt.hour * 60 + dataframe["date"].dt.minute
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["minute"] == 21 * 60, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["minute"] == 23 * 60, "exit_long"] = 1
        return dataframe
