"""The practice market as orders meet it: its filters, its book and its trades, in decimals.

The filters are read from what the exchange itself tells in `exchangeInfo`.
https://developers.binance.com/docs/binance-spot-api-docs/filters
https://developers.binance.com/docs/derivatives/usds-margined-futures/error-code
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, cast

from lstm_model.accounts.money import ZERO, stepped
from lstm_model.accounts.orders import Draft, Side
from lstm_model.practice import dialect
from lstm_model.practice.perpetual import Perpetual
from lstm_model.practice.query import RefusedRequest
from lstm_model.practice.tape_market import Listing, Market

_NO_LIMIT = Decimal("1e15")
_FIRST_LEVELS, _LEVELS = 20, 1_000  # chosen: deeper than any stake of a practice account

Level = tuple[Decimal, Decimal]
"""Price and quantity."""


@dataclass(frozen=True)
class Steps:
    """Smallest, largest and step of a price or amount; a step of 0 forbids nothing."""

    least: Decimal
    most: Decimal
    step: Decimal

    def allow(self, value: Decimal) -> bool:
        """Whether the value is one of them."""
        whole = not self.step or stepped(value, self.step) == value
        return self.least <= value <= self.most and whole


@dataclass(frozen=True)
class Rules:
    """The filters of one symbol.

    Attributes
    ----------
    notional : the least price times quantity
    bids, asks : least and most price of an order, as multiples of the market's
    contract : whether it is a future, which has codes of its own
    """

    symbol: str
    base: str
    quote: str
    price: Steps
    lot: Steps
    market_lot: Steps
    notional: Decimal
    bids: tuple[Decimal, Decimal]
    asks: tuple[Decimal, Decimal]
    contract: bool

    def tick(self, price: Decimal) -> Decimal:
        """The next allowed price below, the least at least."""
        return max(stepped(price, self.price.step), self.price.least)

    def check(self, draft: Draft, last: Decimal) -> None:
        """Refuse what a filter forbids; `last` is the price to be near to.

        Raises
        ------
        RefusedRequest
            With the code of the first that does.
        """
        self._check_prices(draft)
        at_market = draft.type in ("MARKET", "STOP_MARKET")
        if not self.lot.allow(draft.quantity):
            raise self._lot_failure(draft.quantity)
        if at_market and not self.market_lot.allow(draft.quantity):
            raise self._failure("MARKET_LOT_SIZE", -4005, "Quantity greater than max quantity.")
        if draft.price:
            self._check_distance(draft, draft.stop_price or last)
        worth = draft.quantity * (draft.price or draft.stop_price or last)
        if worth < self.notional and not draft.reduce_only:
            said = f"Order's notional must be no smaller than {self.notional}"
            said += " (unless you choose reduce only)."
            raise self._failure("NOTIONAL", -4164, said)

    def _check_prices(self, draft: Draft) -> None:
        for price in filter(None, (draft.price, draft.stop_price)):
            if not self.price.allow(price):
                said = "Price not increased by tick size."
                raise self._failure("PRICE_FILTER", -4014, said)

    def _check_distance(self, draft: Draft, last: Decimal) -> None:
        least, most = self.bids if draft.side == "BUY" else self.asks
        if draft.price > most * last:
            said = f"Limit price can't be higher than {most * last}."
            raise self._failure("PERCENT_PRICE_BY_SIDE", -4016, said)
        if draft.price < least * last:
            said = f"Limit price can't be lower than {least * last}."
            raise self._failure("PERCENT_PRICE_BY_SIDE", -4024, said)

    def _lot_failure(self, quantity: Decimal) -> RefusedRequest:
        if not quantity:
            return self._failure("LOT_SIZE", -4003, "Quantity less than or equal to zero.")
        if quantity < self.lot.least:
            return self._failure("LOT_SIZE", -4004, "Quantity less than min quantity.")
        if quantity > self.lot.most:
            return self._failure("LOT_SIZE", -4005, "Quantity greater than max quantity.")
        said = "Precision is over the maximum defined for this asset."
        return self._failure("LOT_SIZE", -1111, said)

    def _failure(self, name: str, code: int, said: str) -> RefusedRequest:
        if self.contract:
            return RefusedRequest(code, said)
        return RefusedRequest(-1013, f"Filter failure: {name}")


def read_rules(told: dict[str, Any]) -> Rules:
    """The rules of a symbol as `exchangeInfo` tells of it."""
    filters = {item["filterType"]: item for item in told["filters"]}
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    least = notional.get("minNotional") or notional.get("notional") or "0"
    bids, asks = _distances(filters)
    return Rules(
        told["symbol"],
        told["baseAsset"],
        told["quoteAsset"],
        _steps(filters.get("PRICE_FILTER", {}), "Price", "tickSize"),
        _steps(filters.get("LOT_SIZE", {}), "Qty", "stepSize"),
        _steps(filters.get("MARKET_LOT_SIZE", {}), "Qty", "stepSize"),
        Decimal(least),
        bids,
        asks,
        "contractType" in told,
    )


def _steps(told: dict[str, str], what: str, step: str) -> Steps:
    least, most = told.get(f"min{what}", "0"), told.get(f"max{what}", "0")
    return Steps(Decimal(least), Decimal(most) or _NO_LIMIT, Decimal(told.get(step, "0")))


def _distances(filters: dict[str, dict[str, str]]) -> tuple[tuple[Decimal, Decimal], ...]:
    if side := filters.get("PERCENT_PRICE_BY_SIDE"):
        return tuple(
            (Decimal(side[f"{name}MultiplierDown"]), Decimal(side[f"{name}MultiplierUp"]))
            for name in ("bid", "ask")
        )
    both = filters.get("PERCENT_PRICE", {})
    least = Decimal(both.get("multiplierDown", "0"))
    most = Decimal(both.get("multiplierUp", "0")) or _NO_LIMIT
    return (ZERO, most), (least, _NO_LIMIT)


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
        side, told = "asks" if taker == "BUY" else "bids", 0
        for levels in (_FIRST_LEVELS, _LEVELS):  # most need no more than the first
            book = dialect.depth(self._listing(symbol), now_ms, levels)[side]
            yield from ((Decimal(price), Decimal(quantity)) for price, quantity in book[told:])
            told = levels

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


class LastPrices:
    """Marks by the last trade, and no funding."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def mark(self, symbol: str, now_ms: int) -> Decimal:
        """The price of the last trade."""
        return self._venue.last(symbol, now_ms)

    def funding(self, symbol: str, since_ms: int, until_ms: int) -> list[tuple[int, Decimal]]:
        """None."""
        return []


class FuturesPrices:
    """Marks and funding of the practice market's futures, and what is set by hand.

    Parameters
    ----------
    market : of `Perpetual` listings

    Attributes
    ----------
    set_marks : mark prices by symbol that hold instead of the market's
    set_fundings : payments by symbol, time and rate instead of the market's
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self.set_marks: dict[str, Decimal] = {}
        self.set_fundings: list[tuple[str, int, Decimal]] = []

    def mark(self, symbol: str, now_ms: int) -> Decimal:
        """The mark price at a moment."""
        if symbol in self.set_marks:
            return self.set_marks[symbol]
        future = self._future(symbol)
        return _scaled(future.mark(now_ms), future.instrument.price_decimals)

    def funding(self, symbol: str, since_ms: int, until_ms: int) -> list[tuple[int, Decimal]]:
        """Time and rate of the payments in `(since_ms, until_ms]`, oldest first."""
        told = self._future(symbol).fundings(since_ms + 1, until_ms)
        due = {item.time_ms: Decimal(f"{item.rate:.8f}") for item in told}
        for name, time_ms, rate in self.set_fundings:
            if name == symbol and since_ms < time_ms <= until_ms:
                due[time_ms] = rate
        return sorted(due.items())

    def _future(self, symbol: str) -> Perpetual:
        return cast(Perpetual, self._market.listings[symbol])


def _scaled(value: int, decimals: int) -> Decimal:
    return ZERO + Decimal(value).scaleb(-decimals)
