"""A trade in plain numbers, whether a bot made it or a backtest.

freqtrade tells of a trade in three ways that differ in small things: `Trade.to_json()`, the records
of a backtest, and the status its RPC gives. What is unknown is None, NaN or missing there. Here it
is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from lstm_model.errors import DataError


@dataclass(frozen=True)
class TradeFacts:
    """One trade. Money is in stake currency, profits are after fees.

    Attributes
    ----------
    pair : as freqtrade names it
    open_ms : when the trade was opened, UTC; of a backtest the open of its first candle
    close_ms : when it was closed, UTC; None: it is open
    enter_tag, exit_reason : "" where freqtrade says nothing
    open_rate, close_rate : price of the fills, their mean over several; None: not closed
    amount : in base currency
    stake : without leverage
    profit_ratio : after fees, as a fraction of the stake, as freqtrade reckons and rounds it; of an
        open trade None, or what a partial exit or the price at the time of asking gave
    profit : the same in stake currency, not rounded
    fee_open, fee_close : of one side, as a fraction; None where freqtrade does not say
    funding : what funding brought, below 0 what it cost; in the profit. None: not of a future
    orders : how many of its orders were filled, in whole or part; None where freqtrade does not say
    """

    pair: str
    open_ms: int
    close_ms: int | None
    is_short: bool
    enter_tag: str
    exit_reason: str
    open_rate: float
    close_rate: float | None
    amount: float
    stake: float
    profit_ratio: float | None
    profit: float | None = None
    fee_open: float | None = None
    fee_close: float | None = None
    leverage: float = 1.0
    funding: float | None = None
    orders: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self.close_ms is None

    @property
    def side(self) -> str:
        """`"long"` or `"short"`."""
        return "short" if self.is_short else "long"

    @classmethod
    def of(cls, trade: Mapping[str, Any]) -> TradeFacts:
        """Read what freqtrade says of a trade.

        Parameters
        ----------
        trade : `Trade.to_json()`, a record of a backtest's results, or an entry of the RPC's status

        Raises
        ------
        DataError
            A field that every trade has is missing or is no number; the text names it.

        Examples
        --------
        A backtest leaves NaN where there is nothing to say:

        >>> trade = TradeFacts.of({
        ...     "pair": "BTC/USDT", "open_timestamp": 300_000, "close_timestamp": float("nan"),
        ...     "is_short": False, "enter_tag": None, "open_rate": 100.0,
        ...     "close_rate": float("nan"), "amount": 0.5, "stake_amount": 50.0,
        ... })
        >>> trade.open_ms, trade.close_ms, trade.close_rate, trade.is_open, trade.side
        (300000, None, None, True, 'long')
        """
        still_open = bool(trade.get("is_open", False))
        closed_ms = None if still_open else _number(trade, "close_timestamp")
        return cls(
            pair=_text(trade, "pair") or _missing(trade, "pair"),
            open_ms=int(_needed(trade, "open_timestamp")),
            close_ms=None if closed_ms is None else int(closed_ms),
            is_short=bool(trade.get("is_short", False)),
            enter_tag=_text(trade, "enter_tag"),
            exit_reason=_text(trade, "exit_reason"),
            open_rate=_needed(trade, "open_rate"),
            close_rate=_number(trade, "close_rate"),
            amount=_needed(trade, "amount"),
            stake=_needed(trade, "stake_amount"),
            profit_ratio=_number(trade, "profit_ratio"),
            profit=_number(trade, "profit_abs"),
            fee_open=_number(trade, "fee_open"),
            fee_close=_number(trade, "fee_close"),
            leverage=_number(trade, "leverage") or 1.0,
            funding=_number(trade, "funding_fees"),
            orders=_filled(trade),
        )


@dataclass(frozen=True)
class TradeLife:
    """A trade with what a bot has written down of it.

    Attributes
    ----------
    number : freqtrade's
    written : what `LSTMRisk` said of the entry, as `/list_custom_data` shows it; empty of others
    highest, lowest : prices that the bot saw while the trade was open; None: it never looked
    stop : where it stood at last
    """

    number: int
    trade: TradeFacts
    written: Mapping[str, Any]
    highest: float | None
    lowest: float | None
    stop: float | None


def _number(trade: Mapping[str, Any], field: str) -> float | None:
    """The finite number in a field, or None; NumPy's numbers become Python's."""
    value = trade.get(field)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(
            f"{field} of a trade must be a number, it is {value!r}: pass what "
            "Trade.to_json() or a backtest's results give"
        ) from None
    return number if math.isfinite(number) else None


def _needed(trade: Mapping[str, Any], field: str) -> float:
    number = _number(trade, field)
    return _missing(trade, field) if number is None else number


def _filled(trade: Mapping[str, Any]) -> int | None:
    """How many orders of a trade were filled; a backtest tells of none of the others."""
    orders = trade.get("orders")
    if not isinstance(orders, list):
        return None
    return sum(order.get("order_filled_timestamp") is not None for order in orders)


def _text(trade: Mapping[str, Any], field: str) -> str:
    """The text in a field; pandas puts NaN where there is none."""
    value = trade.get(field)
    return value if isinstance(value, str) else ""


def _missing(trade: Mapping[str, Any], field: str) -> NoReturn:
    raise DataError(
        f"a trade of freqtrade has no {field}, its fields are {', '.join(map(str, trade))}: pass "
        "what Trade.to_json() or a backtest's results give"
    )
