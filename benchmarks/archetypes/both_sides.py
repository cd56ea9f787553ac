"""Long and short on futures, at the cross of two averages."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class BothSides(IStrategy):
    """Long and short on futures, at the cross of two averages."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 480
    stoploss = -0.10
    can_short = True
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["fast"] = ta.EMA(dataframe, timeperiod=24)
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=120)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        above = dataframe["fast"] > dataframe["slow"]
        dataframe.loc[above & ~above.shift(fill_value=True), "enter_long"] = 1
        dataframe.loc[~above & above.shift(fill_value=False), "enter_short"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        above = dataframe["fast"] > dataframe["slow"]
        dataframe.loc[~above, "exit_long"] = 1
        dataframe.loc[above, "exit_short"] = 1
        return dataframe

    def leverage(self, **kwargs: Any) -> float:
        return 2.0
