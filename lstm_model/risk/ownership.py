"""The open trades of freqtrade's database as what explains an account."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from freqtrade.persistence import Trade

from lstm_model.bot.configuration import Config, store_folder
from lstm_model.orders.standing import Owned
from lstm_model.risk.entry import entries_of, side_of
from lstm_model.settings import Settings


def book_path(config: Config, settings: Settings) -> Path:
    """Where the book of a bot is: of its exchange, market and database of trades."""
    database = hashlib.sha256(str(config["db_url"]).encode()).hexdigest()[:12]
    names = config["exchange"]["name"], config.get("trading_mode", "spot"), database
    return store_folder(config, settings) / "orders" / f"{'-'.join(map(str, names))}.json"


def owned_by(trades: Iterable[Trade]) -> dict[str, Owned]:
    """Pair -> what these open trades explain."""
    owned: dict[str, Owned] = {}
    for trade in trades:
        owned[trade.pair] = _together(owned.get(trade.pair), _of(trade))
    return owned


def newest_closed(pair: str) -> Owned | None:
    """What is left of the pair's newest closed trade: when it was opened, and its entries."""
    found = Trade.get_trades_proxy(pair=pair, is_open=False)
    newest = max(found, key=_opened_ms, default=None)
    if newest is None:
        return None
    return Owned(0.0, since_ms=_opened_ms(newest), entries=entries_of(newest))


def _of(trade: Trade) -> Owned:
    waiting = [order for order in trade.orders if order.ft_is_open]
    bought, sold = (
        sum(order.safe_remaining for order in waiting if _buys(trade, order) is buys)
        for buys in (True, False)
    )
    ids = frozenset(str(order.order_id) for order in trade.orders)
    held = side_of(trade) * trade.amount
    return Owned(held, bought, sold, ids, _opened_ms(trade), entries_of(trade))


def _buys(trade: Trade, order: Any) -> bool:
    """Whether an order of the trade buys; a stop is on neither of freqtrade's sides."""
    return bool(trade.is_short) is (order.ft_order_side != trade.entry_side)


def _together(one: Owned | None, other: Owned) -> Owned:
    if one is None:
        return other
    return Owned(
        one.amount + other.amount, one.bought + other.bought, one.sold + other.sold,
        one.orders | other.orders, max(one.since_ms, other.since_ms), one.entries + other.entries,
    )  # fmt: skip


def _opened_ms(trade: Trade) -> int:
    return int(trade.open_date_utc.timestamp() * 1000)
