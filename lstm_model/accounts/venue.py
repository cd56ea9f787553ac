"""The practice market as orders meet it: its filters, its book and its trades, in decimals."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Side
from lstm_model.accounts.rules import Rules, read_rules
from lstm_model.practice import dialect
from lstm_model.practice.query import RefusedRequest
from lstm_model.practice.tape_market import Listing, Market

_LEVELS = 1_000  # chosen: deeper than any stake of a practice account

Level = tuple[Decimal, Decimal]
"""Price and quantity."""


@dataclass(frozen=True, order=True)
class Traded:
    """A trade of the market that others made."""

    time_ms: int
    symbol: str
    price: Decimal
    quantity: Decimal
    taker_buy: bool


class Prices(Protocol):
    """What contracts are valued by."""

    def mark(self, symbol: str, now_ms: int) -> Decimal:
        """The mark price at a moment."""

    def funding(self, symbol: str, since_ms: int, until_ms: int) -> list[tuple[int, Decimal]]:
        """Time and rate of the payments in `(since_ms, until_ms]`, oldest first."""


class Venue:
    """One market as its orders meet it; symbols that it does not list are refused.

    Parameters
    ----------
    told : symbols as `exchangeInfo` tells of them
    """

    def __init__(self, market: Market, told: list[dict[str, dialect.Json]]) -> None:
        self._market = market
        self._rules = {item["symbol"]: read_rules(item) for item in told}

    @property
    def symbols(self) -> list[str]:
        """All that are listed."""
        return list(self._rules)

    def now_ms(self) -> int:
        """The market's clock."""
        return self._market.now_ms()

    def rules(self, symbol: str) -> Rules:
        """The filters of a symbol.

        Raises
        ------
        RefusedRequest
            There is no such symbol.
        """
        if symbol not in self._rules:
            raise RefusedRequest(-1121, "Invalid symbol.")
        return self._rules[symbol]

    def last(self, symbol: str, now_ms: int) -> Decimal:
        """The price of the last trade at a moment."""
        listing = self._listing(symbol)
        at = listing.trades.due(now_ms) - 1
        return _scaled(int(listing.trades.price[max(at, 0)]), listing.instrument.price_decimals)

    def book(self, symbol: str, taker: Side, now_ms: int) -> Iterator[Level]:
        """What a taker may take, best first: what `depth` tells."""
        told = dialect.depth(self._listing(symbol), now_ms, _LEVELS)
        for price, quantity in told["asks" if taker == "BUY" else "bids"]:
            yield Decimal(price), Decimal(quantity)

    def traded(self, symbols: Iterable[str], since_ms: int, until_ms: int) -> Iterator[Traded]:
        """The trades of these symbols in `(since_ms, until_ms]`, oldest first."""
        return heapq.merge(*(self._of(symbol, since_ms, until_ms) for symbol in symbols))

    def _of(self, symbol: str, since_ms: int, until_ms: int) -> Iterator[Traded]:
        listing = self._listing(symbol)
        tape, instrument = listing.trades, listing.instrument
        for at in range(tape.due(since_ms), tape.due(until_ms)):
            price = _scaled(int(tape.price[at]), instrument.price_decimals)
            quantity = _scaled(int(tape.amount[at]), instrument.amount_decimals)
            yield Traded(int(tape.time_ms[at]), symbol, price, quantity, bool(tape.taker_buy[at]))

    def _listing(self, symbol: str) -> Listing:
        self.rules(symbol)
        return self._market.listings[symbol]


class TapePrices:
    """Marks by the last trade, and no funding but what is set by hand."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def mark(self, symbol: str, now_ms: int) -> Decimal:
        """The price of the last trade."""
        return self._venue.last(symbol, now_ms)

    def funding(self, symbol: str, since_ms: int, until_ms: int) -> list[tuple[int, Decimal]]:
        """None."""
        return []


def _scaled(value: int, decimals: int) -> Decimal:
    return ZERO + Decimal(value).scaleb(-decimals)
