"""How a bot stands: its money, what its positions are worth at the market's last prices, and what
its trades own by freqtrade's record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from freqtrade.persistence import Trade
from sqlalchemy import func, select

from lstm_model.practice.scenario import Scenario
from lstm_model.practice.tape_market import is_future
from lstm_model.replay.books import Owned, Sent
from lstm_model.replay.trade_facts import TradeFacts, TradeLife

_FEES_APART = 3e-4  # between who rests and who takes, of a future


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


def trades() -> list[TradeFacts]:
    """What freqtrade's database holds, as it was opened last."""
    return [TradeFacts.of(trade.to_json()) for trade in Trade.get_trades([]).all()]


def lives() -> list[TradeLife]:
    """The same trades, each with what the bot has written down of it."""
    return [
        TradeLife(
            trade.id, TradeFacts.of(trade.to_json()),
            {data.cd_key: data.value for data in trade.get_all_custom_data()},
            trade.max_rate or None, trade.min_rate or None, trade.stop_loss or None,
        )
        for trade in Trade.get_trades([]).all()
    ]  # fmt: skip


def owned() -> list[Owned]:
    """Every trade of freqtrade's database, as it was opened last, with what its orders moved."""
    return [_owned(trade) for trade in Trade.get_trades([]).all()]


def _owned(trade: Any) -> Owned:
    futures = is_future(trade.pair)
    filled = [order for order in trade.orders if order.safe_filled]
    entries = [order for order in filled if order.ft_order_side == trade.entry_side]
    exits = [order for order in filled if order not in entries]
    cash = sum(_cost(order) if order.side == "sell" else -_cost(order) for order in filled)
    fees = sum(map(_cost, exits)) * (trade.fee_close or 0.0)
    fees += sum(map(_cost, entries)) * (trade.fee_open or 0.0) if futures else 0.0  # else in base
    later = sum(map(_cost, (*entries[1:], *exits[1:]))) if futures else 0.0
    return Owned(
        trade.pair, trade.is_short, trade.open_rate,
        trade.amount if trade.is_open and entries else 0.0, cash, fees,
        (trade.funding_fees or 0.0) if futures else 0.0, _FEES_APART * later,
        {order.order_id: Sent(order.safe_filled, order.ft_is_open) for order in trade.orders},
    )  # fmt: skip


def _cost(order: Any) -> float:
    return float(order.safe_filled * order.safe_price)
