"""LSTMStrategy: enters by the forecast, leaves when it has turned or its horizon is over."""

from datetime import datetime, timedelta
from typing import Any

from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy, RealParameter
from pandas import DataFrame

from lstm_model.bot.risk import LONG_TAG, SHORT_TAG, Entry, LSTMRisk, side_of
from lstm_model.market.candles import timeframe_ms
from lstm_model.trading.analyzed import newest, opened_ms
from lstm_model.trading.sizing import ENTER_LONG, ENTER_SHORT, NO_EDGE, TOO_SMALL
from lstm_model.trading.stake import reduction

# freqtrade keeps a position only if it exceeds the exchange's minimum by a reserve for the stop, at
# most 1.5 times; chosen above that, because the price may fall meanwhile.
_KEPT_MINIMA = 2.0


def _is_forecasts(trade: Trade) -> bool:
    """Whether the forecast entered it. A trade opened by hand is left by hand, stop or ROI."""
    return (trade.enter_tag or "").startswith("lstm")  # "lstm" alone: an older release's


class LSTMStrategy(LSTMRisk, IStrategy):
    """Enter when the forecast return exceeds all costs by `min_edge`.

    Stake, stop and the rest are `LSTMRisk`'s. With `position_adjustment_enable`, a position is
    reduced when the newest forecast is worth less than half of it. ROI and trailing are freqtrade's
    own and the user's to configure; all other options are in the `lstm` section of config.json.
    """

    INTERFACE_VERSION = 3

    timeframe = "5m"
    can_short = False
    stoploss = -0.10
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form
    process_only_new_candles = True
    use_exit_signal = True

    def __init__(self, config: dict[str, Any]) -> None:
        self.can_short = config.get("trading_mode", "spot") != "spot"
        super().__init__(config)
        self.min_edge = RealParameter(0.0, 0.01, default=self.lstm_settings.min_edge, space="buy")
        self.kelly_fraction.optimize = True

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        free = (dataframe["lstm_gate"] == "") & dataframe["lstm_edge"].notna()
        dataframe.loc[free, ["lstm_side", "lstm_reason"]] = 0, NO_EDGE
        worth = free & (dataframe["lstm_edge"] > self.min_edge.value)
        for side, column, tag, reason in (
            (1, "enter_long", LONG_TAG, ENTER_LONG),
            (-1, "enter_short", SHORT_TAG, ENTER_SHORT),
        ):
            if side > 0 or self.can_short:
                chosen = worth & (dataframe["lstm_mean"] * side > 0.0)
                dataframe.loc[chosen, [column, "enter_tag"]] = 1, tag
                dataframe.loc[chosen, ["lstm_side", "lstm_reason"]] = side, reason
        if self.live_engine:
            reason = dataframe["lstm_reason"].iloc[-1]
            self.live_engine.note(metadata["pair"], opened_ms(dataframe), reason)
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """None: `custom_exit` knows the trade."""
        return dataframe

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, **kwargs: Any,
    ) -> str | None:  # fmt: skip
        """Leave when the forecast is against the position, or too old and not made anew."""
        if not _is_forecasts(trade):
            return None
        side, frame, live = side_of(trade), self.analyzed(pair), self.live_engine
        if side * newest(frame, "lstm_mean") < 0.0:
            return "lstm_turned"
        if live and live.wants_exit(pair, side, current_rate):
            return "lstm_turned_inside"
        if current_time - trade.open_date_utc < self._horizon():
            return None
        again = newest(frame, "enter_long" if side > 0 else "enter_short") == 1.0
        return None if again else "lstm_horizon"

    def adjust_trade_position(  # noqa: PLR0913 - freqtrade's signature
        self, trade: Trade, current_time: datetime, current_rate: float, current_profit: float,
        min_stake: float | None, max_stake: float, current_entry_rate: float,
        current_exit_rate: float, current_entry_profit: float, current_exit_profit: float,
        **kwargs: Any,
    ) -> tuple[float, str] | None:  # fmt: skip
        """Give back what the newest forecast would not stake, if it is more than half."""
        side = side_of(trade)
        turned = side * newest(self.analyzed(trade.pair), "lstm_mean") < 0.0
        if turned or trade.has_open_orders or not _is_forecasts(trade):
            return None
        least, free = min_stake or 0.0, trade.stake_amount
        tag, wealth = LONG_TAG if side > 0 else SHORT_TAG, self.wallets.get_total_stake_amount()
        held = Entry(
            trade.pair, tag, side, current_exit_rate, trade.leverage or 1.0, wealth, free, least,
            trade.id,
        )  # fmt: skip
        wanted = self.stake_for(held)
        if wanted.reason not in ("", NO_EDGE, TOO_SMALL):
            return None  # nothing is known against the position
        surplus = reduction(trade.stake_amount, wanted.amount, _KEPT_MINIMA * least)
        return (-surplus, "lstm_reduced") if surplus else None

    def _horizon(self) -> timedelta:
        step = timedelta(milliseconds=timeframe_ms(self.timeframe))
        return self.lstm_settings.horizon * step
