"""Orders and what became of them, and all orders of an account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from lstm_model.accounts.money import ZERO
from lstm_model.practice.query import RefusedRequest

Side = Literal["BUY", "SELL"]
OPEN = ("NEW", "PARTIALLY_FILLED")

FIRST_ORDER = 5_000_001  # chosen, so that no two series of ids meet
FIRST_FILL = 70_000_001
FIRST_ALGO = 9_000_000_001


@dataclass(frozen=True)
class Fill:
    """A part of an order that was filled; `realized` is what a closed position brought."""

    number: int
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: str
    maker: bool
    time_ms: int
    realized: Decimal = ZERO


@dataclass(frozen=True)
class Draft:
    """What a client asks for; a price of 0 is none."""

    symbol: str
    side: Side
    type: str
    quantity: Decimal
    price: Decimal = ZERO
    stop_price: Decimal = ZERO
    time_in_force: str = "GTC"
    client_id: str = ""
    reduce_only: bool = False
    working_type: str = "CONTRACT_PRICE"

    @property
    def sign(self) -> int:
        """1 for what buys, -1 for what sells."""
        return 1 if self.side == "BUY" else -1

    @property
    def is_forced(self) -> bool:
        """Whether it is the exchange's own, which ends a position."""
        return self.client_id.startswith("autoclose-")

    def crosses(self, price: Decimal) -> bool:
        """Whether its stop is reached at that price."""
        return (price - self.stop_price) * self.sign >= 0


@dataclass
class Order:
    """An order that was accepted.

    Attributes
    ----------
    waiting : its stop has not been reached
    most : how much of it the market is allowed to fill
    """

    number: int
    draft: Draft
    created_ms: int
    updated_ms: int
    status: str = "NEW"
    waiting: bool = False
    most: Decimal = ZERO
    fills: list[Fill] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        """How much of the base."""
        return sum((fill.quantity for fill in self.fills), ZERO)

    @property
    def cost(self) -> Decimal:
        """How much of the quote was paid or got, fees aside."""
        return sum((fill.quantity * fill.price for fill in self.fills), ZERO)

    @property
    def remaining(self) -> Decimal:
        """What is not filled."""
        return self.draft.quantity - self.filled

    @property
    def average(self) -> Decimal:
        """The mean price, 0 of nothing."""
        return self.cost / self.filled if self.fills else ZERO

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled."""
        return self.status in OPEN

    def end(self, status: str, now_ms: int) -> None:
        """It will not be filled any more."""
        self.status, self.updated_ms = status, now_ms

    def take(self, fill: Fill) -> None:
        """Put a fill on record."""
        self.fills.append(fill)
        self.updated_ms = fill.time_ms
        self.status = "PARTIALLY_FILLED" if self.remaining else "FILLED"


@dataclass
class Algo:
    """A conditional order for contracts; `order` is what it became when it was triggered."""

    number: int
    draft: Draft
    created_ms: int
    updated_ms: int
    status: str = "NEW"
    order: int | None = None

    def end(self, status: str, now_ms: int) -> None:
        """It waits no longer."""
        self.status, self.updated_ms = status, now_ms


class Orders:
    """All orders of an account, the newest last."""

    def __init__(self) -> None:
        self.all: dict[int, Order] = {}
        self.algos: dict[int, Algo] = {}

    def open(self, symbol: str = "") -> Iterator[Order]:
        """Those that may still be filled, of one symbol or of all."""
        for order in tuple(self.all.values()):
            if order.is_open and symbol in ("", order.draft.symbol):
                yield order

    def waiting(self, symbol: str = "") -> Iterator[Algo]:
        """Conditional orders that were not triggered."""
        for algo in tuple(self.algos.values()):
            if algo.status == "NEW" and symbol in ("", algo.draft.symbol):
                yield algo

    def add(self, draft: Draft, now_ms: int) -> Order:
        """A new order."""
        number = FIRST_ORDER + len(self.all)
        order = Order(number, draft, now_ms, now_ms, most=draft.quantity)
        self.all[number] = order
        return order

    def add_algo(self, draft: Draft, now_ms: int) -> Algo:
        """A new conditional order."""
        number = FIRST_ALGO + len(self.algos)
        self.algos[number] = Algo(number, draft, now_ms, now_ms)
        return self.algos[number]

    def find(self, symbol: str, number: int | None, client_id: str, code: int = -2013) -> Order:
        """The newest order of that number or client's id.

        Raises
        ------
        RefusedRequest
            With this code, if there is none; -1102 if nothing names it.
        """
        _check_named(number, client_id)
        for order in reversed(tuple(self.all.values())):
            known = order.number == number if number else order.draft.client_id == client_id
            if known and order.draft.symbol == symbol:
                return order
        raise unknown(code)

    def find_algo(self, number: int | None, client_id: str, code: int = -2013) -> Algo:
        """As `find`, of conditional orders."""
        _check_named(number, client_id)
        for algo in reversed(tuple(self.algos.values())):
            if algo.number == number if number else algo.draft.client_id == client_id:
                return algo
        raise unknown(code)


def _check_named(number: int | None, client_id: str) -> None:
    if number is None and not client_id:
        said = "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
        raise RefusedRequest(-1102, said)


def unknown(code: int) -> RefusedRequest:
    """What Binance says of an order it does not know, when asked (-2013) or told to cancel it."""
    said = {-2013: "Order does not exist.", -2011: "Unknown order sent."}
    return RefusedRequest(code, said[code])
