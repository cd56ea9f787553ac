"""LSTMStrategy: enters by the forecast, leaves when it has turned or its horizon is over."""

from datetime import datetime
from typing import Any

from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy, RealParameter
from pandas import DataFrame

from lstm_model import LSTMRisk


class LSTMStrategy(LSTMRisk, IStrategy):
    """Enter when the forecast return exceeds all costs by `min_edge`.

    Stake, stop and the rest are `LSTMRisk`'s. With `position_adjustment_enable`, a position is
    reduced when the newest forecast is worth less than half of it. ROI and trailing are freqtrade's
    own and the user's to configure; all other options are in the `lstm` section of config.json.
    """

    INTERFACE_VERSION = 3

    timeframe = "5m"
    can_short = None  # on futures, unless a strategy of yours says no
    protections = None  # ours, unless a strategy of yours has others
    stoploss = -0.05
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form
    process_only_new_candles = True
    use_exit_signal = True

    lstm_sets_stop = lstm_holds_horizon = True
    lstm_min_edge = RealParameter(0.0, 0.01, default=0.0, space="buy")
    lstm_kelly_fraction = RealParameter(0.05, 1.0, default=0.25, space="buy")

    def __init__(self, config: dict[str, Any]) -> None:
        if self.can_short is None:  # yours may say False on futures
            self.can_short = config.get("trading_mode", "spot") != "spot"
        super().__init__(config)
        if self.protections is None:
            self.protections = self.lstm_protections

    def leverage(
        self, pair: str, current_time: datetime, current_rate: float, proposed_leverage: float,
        max_leverage: float, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """As the settings say, within what the exchange allows; the stake shrinks with it."""
        return self.lstm_leverage(self.lstm_settings.max_leverage or 1.0, max_leverage)

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        return self.lstm_enter(dataframe, metadata)

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """None: `custom_exit` knows the trade."""
        return dataframe

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, **kwargs: Any,
    ) -> str | None:  # fmt: skip
        turned = self.lstm_exit(pair, trade, current_time, current_rate)
        return turned or super().custom_exit(
            pair, trade, current_time, current_rate, current_profit, **kwargs
        )

    def adjust_trade_position(  # noqa: PLR0913 - freqtrade's signature
        self, trade: Trade, current_time: datetime, current_rate: float, current_profit: float,
        min_stake: float | None, max_stake: float, current_entry_rate: float,
        current_exit_rate: float, current_entry_profit: float, current_exit_profit: float,
        **kwargs: Any,
    ) -> tuple[float, str] | None:  # fmt: skip
        return self.lstm_reduce(trade, current_exit_rate, min_stake)
