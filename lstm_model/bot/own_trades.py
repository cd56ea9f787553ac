"""Trades that the forecast makes by itself, in freqtrade's terms.

`strategy` is a `LSTMRisk`, whose methods these are the bodies of.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from freqtrade.persistence import Trade
from pandas import DataFrame

from lstm_model.bot.entry import Entry, side_of
from lstm_model.market.candles import timeframe_ms
from lstm_model.trading.analyzed import opened_ms
from lstm_model.trading.own_trades import (
    LONG_TAG,
    SHORT_TAG,
    enters_again,
    has_turned,
    is_own,
    mark_entries,
    reduction,
)
from lstm_model.trading.sizing import NO_EDGE, TOO_SMALL

# freqtrade keeps a position only if it exceeds the exchange's minimum by a reserve for the stop, at
# most 1.5 times; chosen above that, because the price may fall meanwhile.
_KEPT_MINIMA = 2.0


def enter(strategy: Any, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
    """See `LSTMRisk.lstm_enter`."""
    least = strategy._lstm_parameter("min_edge")
    dataframe = mark_entries(dataframe, least, can_short=strategy.can_short)
    if live := strategy._lstm_live:
        live.note(metadata["pair"], opened_ms(dataframe), dataframe["lstm_reason"].iloc[-1])
    return dataframe


def leave(
    strategy: Any, pair: str, trade: Trade, current_time: datetime, current_rate: float
) -> str | None:
    """See `LSTMRisk.lstm_exit`."""
    if not is_own(trade.enter_tag):
        return None
    side, frame, settings = side_of(trade), strategy.lstm_analyzed(pair), strategy.lstm_settings
    if has_turned(frame, side):
        return "lstm_turned"
    live = strategy._lstm_live if settings.inside_exits else None
    if live and live.wants_exit(pair, side, current_rate):
        return "lstm_turned_inside"
    horizon = timedelta(milliseconds=timeframe_ms(strategy.timeframe)) * settings.horizon
    is_over = current_time - trade.open_date_utc >= horizon
    return "lstm_horizon" if is_over and not enters_again(frame, side) else None


def reduce(
    strategy: Any, trade: Trade, current_rate: float, min_stake: float | None
) -> tuple[float, str] | None:
    """See `LSTMRisk.lstm_reduce`."""
    turned = has_turned(strategy.lstm_analyzed(trade.pair), side_of(trade))
    if turned or trade.has_open_orders or not is_own(trade.enter_tag):
        return None
    least, wealth = min_stake or 0.0, strategy.wallets.get_total_stake_amount()
    held = Entry.of(trade, current_rate, wealth, trade.stake_amount, least)
    own_tag = LONG_TAG if held.side > 0 else SHORT_TAG  # an older release had another
    wanted = strategy.lstm_stake_for(replace(held, tag=own_tag))
    if wanted.reason not in ("", NO_EDGE, TOO_SMALL):
        return None  # nothing is known against the position
    surplus = reduction(trade.stake_amount, wanted.amount, _KEPT_MINIMA * least, least)
    return (-surplus, "lstm_reduced") if surplus else None


def protections(horizon: int) -> list[dict[str, Any]]:
    """Pauses in horizons, all chosen, in freqtrade's form."""
    return [
        {"method": "CooldownPeriod", "stop_duration_candles": max(1, horizon // 6)},
        {"method": "StoplossGuard", "lookback_period_candles": 24 * horizon,
         "trade_limit": 4, "stop_duration_candles": 4 * horizon},
        {"method": "MaxDrawdown", "lookback_period_candles": 168 * horizon,
         "trade_limit": 10, "stop_duration_candles": 24 * horizon,
         "max_allowed_drawdown": 0.1, "calculation_mode": "equity"},
        {"method": "LowProfitPairs", "lookback_period_candles": 168 * horizon,
         "trade_limit": 4, "stop_duration_candles": 24 * horizon, "required_profit": -0.02},
    ]  # fmt: skip
