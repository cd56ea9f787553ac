"""The one engine for spot and contracts: takes orders, fills them by the market, ends them.

Who takes gets what the book shows; who rests is filled by the market's own trades: wholly by one
through the price, by one at the price as far as that reaches. Time passes when somebody asks:
then all that happened since is done in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Protocol

from lstm_model.accounts.money import ZERO, stepped
from lstm_model.accounts.orders import FIRST_FILL, Algo, Draft, Fill, Order, Orders
from lstm_model.accounts.venue import LastPrices, Level, Prices, Traded, Venue
from lstm_model.practice.query import RefusedRequest


class Books(Protocol):
    """What an engine asks of an account's books."""

    def check(self, draft: Draft) -> None:
        """Refuse what the account's state forbids."""

    def afford(self, draft: Draft, taken: list[Level]) -> None:
        """Refuse what cannot be paid; `taken` is what would be filled at once."""

    def fillable(self, order: Order, price: Decimal) -> Decimal:
        """How much of an order may be filled at that price."""

    def is_void(self, order: Order) -> bool:
        """Whether an open order can never be filled any more."""

    def settle(self, order: Order, level: Level, number: int, maker: bool, now_ms: int) -> Fill:
        """Book a fill."""

    def pass_to(self, now_ms: int) -> None:
        """Do what is due by then."""

    def forced(self, symbol: str, now_ms: int) -> Draft | None:
        """The order that ends a position that must end now."""

    def exposed(self) -> set[str]:
        """Symbols whose every trade matters, orders aside."""


class Engine:
    """Orders of one account on one market.

    Attributes
    ----------
    share : per symbol the part of each order that the market fills; all of it unless set
    """

    def __init__(
        self, venue: Venue, orders: Orders, books: Books, prices: Prices | None = None
    ) -> None:
        self.venue, self.orders, self.books = venue, orders, books
        self._prices = prices or LastPrices(venue)
        self.share: dict[str, Decimal] = {}
        self._seen_ms = venue.now_ms()
        self._fills = FIRST_FILL

    def advance(self) -> int:
        """Do what has happened since the last call; the time now."""
        now_ms = max(self.venue.now_ms(), self._seen_ms)
        for traded in self.venue.traded(sorted(self._watched()), self._seen_ms, now_ms):
            self.books.pass_to(traded.time_ms)
            self._hear(traded)
        self.books.pass_to(now_ms)
        self._seen_ms = now_ms
        return now_ms

    def place(self, draft: Draft) -> Order:
        """Take an order.

        Raises
        ------
        RefusedRequest
            With Binance's code.
        """
        now_ms = self.advance()
        rules, last = self.venue.rules(draft.symbol), self.venue.last(draft.symbol, now_ms)
        near = self._prices.mark(draft.symbol, now_ms) if rules.contract else last
        self._admit(draft, near)
        if draft.stop_price:
            return self._wait(draft, last, now_ms)
        return self._enter(draft, now_ms)

    def place_algo(self, draft: Draft) -> Algo:
        """Take a conditional order for a contract; as `place`."""
        now_ms = self.advance()
        price = self._watched_price(draft, now_ms)
        self._admit(draft, price)
        if draft.crosses(price):
            raise RefusedRequest(-2021, "Order would immediately trigger.")
        return self.orders.add_algo(draft, now_ms)

    def cancel(self, symbol: str, number: int | None, client_id: str) -> Order:
        """End an order.

        Raises
        ------
        RefusedRequest
            -2011: it is not open, or was never.
        """
        now_ms = self.advance()
        order = self.orders.find(symbol, number, client_id, -2011)
        if not order.is_open:
            raise RefusedRequest(-2011, "Unknown order sent.")
        order.end("CANCELED", now_ms)
        return order

    def cancel_algo(self, number: int | None, client_id: str) -> Algo:
        """As `cancel`, of a conditional order."""
        now_ms = self.advance()
        algo = self.orders.find_algo(number, client_id, -2011)
        if algo.status != "NEW":
            raise RefusedRequest(-2011, "Unknown order sent.")
        algo.end("CANCELED", now_ms)
        return algo

    def set_share(self, symbol: str, share: Decimal) -> None:
        """Let the market fill so much of every order of a symbol, of open ones too."""
        self.advance()
        self.share[symbol] = share
        for order in self.orders.open(symbol):
            self._limit(order)

    def review(self, symbol: str) -> None:
        """Look again at a price that somebody has set: stops and liquidations follow from it."""
        self._react(symbol, self.advance())

    def _admit(self, draft: Draft, last: Decimal) -> None:
        rules = self.venue.rules(draft.symbol)
        rules.check(draft, last)
        self.books.check(draft)
        ids = {order.draft.client_id for order in self.orders.open()}
        ids |= {algo.draft.client_id for algo in self.orders.waiting()}
        if draft.client_id in ids:
            said = "ClientOrderId is duplicated." if rules.contract else "Duplicate order sent."
            raise RefusedRequest(-4116 if rules.contract else -2010, said)

    def _wait(self, draft: Draft, last: Decimal, now_ms: int) -> Order:
        if draft.crosses(last):
            raise RefusedRequest(-2010, "Stop price would trigger immediately.")
        self.books.afford(draft, [])
        order = self.orders.add(draft, now_ms)
        order.waiting = True
        self._limit(order)
        return order

    def _enter(self, draft: Draft, now_ms: int) -> Order:
        taken = self._takeable(draft, now_ms)
        if taken and draft.time_in_force == "GTX":
            raise self._no_maker(draft)
        self.books.afford(draft, taken)
        order = self.orders.add(draft, now_ms)
        self._limit(order)
        if draft.time_in_force == "FOK" and _sum(taken) < draft.quantity:
            order.end("EXPIRED", now_ms)
        else:
            self._take(order, now_ms)
        return order

    def _no_maker(self, draft: Draft) -> RefusedRequest:
        if self.venue.rules(draft.symbol).contract:
            said = "Due to the order could not be executed as maker, the Post Only order will be "
            return RefusedRequest(-5022, said + "rejected.")
        return RefusedRequest(-2010, "Order would immediately match and take.")

    def _limit(self, order: Order) -> None:
        step = self.venue.rules(order.draft.symbol).lot.step
        wanted = order.draft.quantity * self.share.get(order.draft.symbol, Decimal(1))
        order.most = max(stepped(wanted, step), order.filled)

    def _takeable(self, draft: Draft, now_ms: int) -> list[Level]:
        """What the book gives to an order at once."""
        taken, wanted = list[Level](), draft.quantity
        for price, quantity in self.venue.book(draft.symbol, draft.side, now_ms):
            if not wanted or (draft.price and (price - draft.price) * draft.sign > 0):
                break
            taken.append((price, min(quantity, wanted)))
            wanted -= taken[-1][1]
        return taken

    def _take(self, order: Order, now_ms: int) -> None:
        """Fill an order from the book; what is left of it rests, or ends."""
        for price, quantity in self._takeable(order.draft, now_ms):
            self._fill(order, (price, quantity), False, now_ms)
        resting = order.draft.price and order.draft.time_in_force in ("GTC", "GTX")
        if order.is_open and not (resting or self._held(order)):
            order.end("EXPIRED", now_ms)

    def _held(self, order: Order) -> bool:
        """Whether only somebody's hand keeps it from being filled."""
        return order.most < order.draft.quantity

    def _fill(self, order: Order, level: Level, maker: bool, now_ms: int) -> None:
        price, quantity = level
        allowed = min(order.most - order.filled, self.books.fillable(order, price), quantity)
        if order.is_open and allowed > 0:
            self._fills += 1
            fill = self.books.settle(order, (price, allowed), self._fills, maker, now_ms)
            order.take(fill)
            self._expire(order.draft.symbol, now_ms)

    def _expire(self, symbol: str, now_ms: int) -> None:
        """End orders that have nothing left to reduce."""
        for order in self.orders.open(symbol):
            if self.books.is_void(order):
                order.end("EXPIRED", now_ms)

    def _end_what_must(self, symbol: str, now_ms: int) -> None:
        if draft := self.books.forced(symbol, now_ms):
            for order in self.orders.open(symbol):
                order.end("CANCELED", now_ms)
            forced = self.orders.add(draft, now_ms)
            self._fill(forced, (draft.price, draft.quantity), False, now_ms)

    def _watched(self) -> set[str]:
        waiting = {algo.draft.symbol for algo in self.orders.waiting()}
        return {order.draft.symbol for order in self.orders.open()} | waiting | self.books.exposed()

    def _hear(self, traded: Traded) -> None:
        for order in self.orders.open(traded.symbol):
            if order.waiting and order.draft.crosses(traded.price):
                order.waiting = False
                self._take(order, traded.time_ms)
            elif not order.waiting:
                self._rest(order, traded)
        self._react(traded.symbol, traded.time_ms)

    def _react(self, symbol: str, now_ms: int) -> None:
        for algo in self.orders.waiting(symbol):
            if algo.draft.crosses(self._watched_price(algo.draft, now_ms)):
                self._trigger(algo, now_ms)
        self._end_what_must(symbol, now_ms)

    def _rest(self, order: Order, traded: Traded) -> None:
        draft = order.draft
        if not draft.price:  # one at the market's price that was held
            self._take(order, traded.time_ms)
            return
        beyond = (draft.price - traded.price) * draft.sign
        meets = not beyond and traded.taker_buy != (draft.side == "BUY")
        if beyond > 0 or meets:
            quantity = order.remaining if beyond > 0 else traded.quantity
            self._fill(order, (draft.price, quantity), True, traded.time_ms)

    def _watched_price(self, draft: Draft, now_ms: int) -> Decimal:
        if draft.working_type == "MARK_PRICE":
            return self._prices.mark(draft.symbol, now_ms)
        return self.venue.last(draft.symbol, now_ms)

    def _trigger(self, algo: Algo, now_ms: int) -> None:
        try:
            self.books.check(algo.draft)
            order = self._enter(_after_trigger(algo.draft), now_ms)
        except RefusedRequest:
            algo.end("EXPIRED", now_ms)
        else:
            algo.order = order.number
            algo.end("FINISHED", now_ms)

    def fills(self, symbol: str) -> Iterator[tuple[Order, Fill]]:
        """All fills of a symbol, oldest first."""
        found = [
            (order, fill)
            for order in self.orders.all.values()
            if order.draft.symbol == symbol
            for fill in order.fills
        ]
        yield from sorted(found, key=lambda pair: pair[1].number)


def _after_trigger(draft: Draft) -> Draft:
    kind = "LIMIT" if draft.price else "MARKET"
    return Draft(
        draft.symbol, draft.side, kind, draft.quantity, draft.price,
        reduce_only=draft.reduce_only, time_in_force=draft.time_in_force,
        client_id=draft.client_id,
    )  # fmt: skip


def _sum(levels: list[Level]) -> Decimal:
    return sum((quantity for _, quantity in levels), ZERO)
