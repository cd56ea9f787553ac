"""A breakout above the high of a day, left by a trailing stop."""

from typing import Any

from freqtrade.strategy import IStrategy
from pandas import DataFrame


class Breakout(IStrategy):
    """A breakout above the high of a day, left by a trailing stop."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 300
    stoploss = -0.08
    trailing_stop = True
    trailing_stop_positive = 0.01
    trailing_stop_positive_offset = 0.02
    trailing_only_offset_is_reached = True
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["top"] = dataframe["high"].shift().rolling(288).max()
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        over = dataframe["close"] > dataframe["top"]
        dataframe.loc[over & ~over.shift(fill_value=True), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        # leaves by its stop or ROI
        return dataframe
