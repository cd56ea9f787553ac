"""How a bot stands: its money, and what its positions are worth at the market's last prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from freqtrade.persistence import Trade
from sqlalchemy import func, select

from lstm_model.practice.scenario import Scenario
from lstm_model.practice.tape_market import is_future


@dataclass(frozen=True)
class Moment:
    """How the bot stands; money in stake currency."""

    now_ms: int
    equity: float
    open_trades: int
    closed_trades: int


def standing(bot: Any, now_ms: int, scenario: Scenario) -> Moment:
    """How freqtrade's bot stands at this time of the market."""
    trades = Trade.get_open_trades()
    held = sum(_worth(trade, _price(scenario, trade.pair, now_ms)) for trade in trades)
    money = bot.wallets.get_total(bot.config["stake_currency"])
    closed = select(func.count(Trade.id)).where(Trade.is_open.is_(False))
    return Moment(now_ms, money + held, len(trades), Trade.session.scalar(closed))


def _worth(trade: Any, price: float) -> float:
    """What a position adds to the stake currency's total, which holds a future's margin already."""
    if not is_future(trade.pair):
        return float(trade.amount * price)
    side = -1.0 if trade.is_short else 1.0
    return float(side * trade.amount * (price - trade.open_rate) + (trade.funding_fees or 0.0))


def _price(scenario: Scenario, pair: str, now_ms: int) -> float:
    listing = scenario.listing(pair)
    last = listing.trades.price[listing.trades.due(now_ms) - 1]
    return float(last) / 10.0**listing.instrument.price_decimals
