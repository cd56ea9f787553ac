"""A strategy of two moving averages: what a user may have without us. `EmaCrossLSTM` adds to it."""

from typing import Any

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class EmaCross(IStrategy):
    """Long from the fast average's cross above the slow one to its cross below."""

    INTERFACE_VERSION = 3

    timeframe = "5m"
    stoploss = -0.10
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form
    fast, slow = 12, 48  # candles
    startup_candle_count = 4 * slow  # by then the first candle weighs 0.03 % in the average

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["ema_fast"] = ta.EMA(dataframe, timeperiod=self.fast)
        dataframe["ema_slow"] = ta.EMA(dataframe, timeperiod=self.slow)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        above = dataframe["ema_fast"] > dataframe["ema_slow"]
        crossed = above & ~above.shift(fill_value=True)
        dataframe.loc[crossed, ["enter_long", "enter_tag"]] = 1, "ema_cross"
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        below = dataframe["ema_fast"] < dataframe["ema_slow"]
        crossed = below & ~below.shift(fill_value=True)
        dataframe.loc[crossed, ["exit_long", "exit_tag"]] = 1, "ema_cross"
        return dataframe
