"""A scalp below the lower band, out by a table of ROI."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class BollingerScalper(IStrategy):
    """A scalp below the lower band, out by a table of ROI."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    startup_candle_count = 200
    stoploss = -0.03
    minimal_roi = {"0": 0.01, "30": 0.005, "120": 0.0}  # noqa: RUF012 - freqtrade's own form

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        bands = ta.BBANDS(dataframe, timeperiod=20, nbdevup=2.5, nbdevdn=2.5)
        dataframe["lower"] = bands["lowerband"]
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        under = dataframe["close"] < dataframe["lower"]
        dataframe.loc[under & ~under.shift(fill_value=True), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        # leaves by its stop or ROI
        return dataframe
