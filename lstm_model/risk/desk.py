"""The account's side of an exchange, asked with a client of its own: it reads and never orders.

Only exchanges whose private look-ups are known are asked; of others nothing is promised.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ccxt import BaseError

from lstm_model.errors import DataError
from lstm_model.orders.standing import Placed, Standing

KNOWN = ("binance",)  # ccxt's names of exchanges whose look-ups were tried

UNREADABLE = (BaseError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def in_short(error: BaseException) -> str:
    """What failed, in a line, without what the request was signed with.

    Examples
    --------
    >>> in_short(ValueError("binance GET https://h/api/v3/account?timestamp=1&signature=ab no"))
    'ValueError: binance GET https://h/api/v3/account no'
    """
    line = f"{type(error).__name__}: {error}".partition("\n")[0]
    return re.sub(r"\?\S+", "", line)[:200]


class Desk:
    """What an account holds, by ccxt's unified look-ups.

    Parameters
    ----------
    client : ccxt's exchange, with keys and loaded markets, used by one thread alone
    futures : whether positions are asked for, or balances
    """

    def __init__(self, client: Any, *, futures: bool) -> None:
        self._client, self._futures = client, futures
        self._rates: dict[str, float] = {}
        self._pairs: frozenset[str] = frozenset()

    def follow(self, rates: Mapping[str, float]) -> None:
        """Which pairs matter now, with their newest prices, NaN where none is known."""
        self._pairs = frozenset(rates)
        self._rates |= {pair: rate for pair, rate in rates.items() if rate > 0.0}

    def look(self) -> Standing:
        """The account now.

        Raises
        ------
        DataError
            The exchange refuses, does not answer, or answers what cannot be read.
        """
        rates = self._rates
        try:
            pairs = self._pairs & self._client.markets.keys()  # a trade's may have been delisted
            asked_ms = time.time_ns() // 1_000_000
            placed = tuple(self._placed())
            held = self._positions() if self._futures else self._balances(pairs)
            known = {pair: rates.get(pair, 0.0) for pair in {*pairs, *held}}
            least = {pair: self._least(pair, rate) for pair, rate in known.items()}
        except UNREADABLE as error:
            raise DataError(in_short(error)) from None
        return Standing(asked_ms, held, placed, known, least)

    def _placed(self) -> Iterator[Placed]:
        """Waiting orders before what is held: what is filled in between is seen held."""
        self._client.options["warnOnFetchOpenOrdersWithoutSymbol"] = False
        asked: list[dict[str, Any]] = [{}]
        if self._futures:  # without a symbol ccxt would ask spot, whatever its default is
            asked = [{"type": "swap"}, {"type": "swap", "trigger": True}]
        for options in asked:
            for order in self._client.fetch_open_orders(params=options):
                yield self._order(order, conditional="trigger" in options)

    def _order(self, order: dict[str, Any], *, conditional: bool) -> Placed:
        side = 1 if order["side"] == "buy" else -1
        remaining = order["amount"] if order["remaining"] is None else order["remaining"]
        rate = float(order["price"] or order["triggerPrice"] or 0.0)
        reduces = bool(order.get("reduceOnly")) if self._futures else side < 0
        return Placed(
            str(order["id"]), order["symbol"], side, float(remaining), rate, reduces, conditional
        )

    def _positions(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for position in self._client.fetch_positions():
            amount = float(position["contracts"] or 0.0) * float(position["contractSize"] or 1.0)
            pair, side = position["symbol"], -1.0 if position["side"] == "short" else 1.0
            found[pair] = found.get(pair, 0.0) + side * amount
            self._rates[pair] = float(position["markPrice"] or self._rates.get(pair, 0.0))
        return found

    def _balances(self, pairs: Collection[str]) -> dict[str, float]:
        total = self._client.fetch_balance()["total"]
        markets = self._client.markets
        return {pair: float(total.get(markets[pair]["base"]) or 0.0) for pair in pairs}

    def _least(self, pair: str, rate: float) -> float:
        """The amount below which the exchange takes no order."""
        limits = self._client.markets[pair]["limits"]
        amount = float(limits["amount"]["min"] or 0.0)
        cost = float(limits["cost"]["min"] or 0.0)
        return max(amount, cost / rate if rate > 0.0 else 0.0)
