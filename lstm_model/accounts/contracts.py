"""The books of a USD-M account: a wallet in USDT, isolated positions in one direction each.

https://www.binance.com/en/support/faq/how-to-calculate-liquidation-price-of-usd%E2%93%A2-m-futures-contracts-b3c689c1f50a44cabb3a84e663b81d93
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from lstm_model.accounts.money import ZERO, units, units_up
from lstm_model.accounts.orders import Draft, Fill, Order, Orders
from lstm_model.accounts.spot import Fees
from lstm_model.accounts.venue import Level, Prices, Venue
from lstm_model.practice.query import RefusedRequest

ASSET: Final = "USDT"
CONTRACT_FEES: Final = Fees(Decimal("0.0002"), Decimal("0.0005"))  # Binance's, without discounts
_FIRST_INCOME = 300_000_001
_USUAL_LEVERAGE = 20  # Binance's, of a symbol that nobody has chosen one for

Kind = Literal["TRANSFER", "REALIZED_PNL", "COMMISSION", "FUNDING_FEE", "INSURANCE_CLEAR"]


class Bracket(NamedTuple):
    """Terms of positions worth `floor` to `cap`."""

    floor: Decimal
    cap: Decimal
    leverage: int
    maintenance: Decimal
    cum: Decimal


# Binance's first ones, as freqtrade's own file of 2026.9 has them.
_LARGE = [(0, 150, ".004"), (300_000, 100, ".005"), (800_000, 75, ".0065"),
          (3_000_000, 50, ".01"), (12_000_000, 25, ".02"), (70_000_000, 0, "")]  # fmt: skip
_SMALL = [(0, 100, ".005"), (50_000, 75, ".0065"), (400_000, 50, ".01"),
          (1_000_000, 25, ".02"), (4_000_000, 0, "")]  # fmt: skip
_LARGE_BASES = ("BTC", "ETH")


def brackets(base: str) -> list[Bracket]:
    """The brackets of a coin's contract, lowest first."""
    found, cum, before = list[Bracket](), ZERO, ZERO
    steps = _LARGE if base in _LARGE_BASES else _SMALL
    for (floor, leverage, rate), (cap, _, _) in pairwise(steps):
        cum += floor * (Decimal(rate) - before)
        before = Decimal(rate)
        found.append(Bracket(Decimal(floor), Decimal(cap), leverage, before, cum))
    return found


@dataclass(frozen=True)
class Income:
    """A change of the wallet."""

    number: int
    symbol: str
    kind: Kind
    amount: Decimal
    time_ms: int
    fill: int | None = None


@dataclass
class Position:
    """What is held of one contract, and its terms.

    Attributes
    ----------
    quantity : in base, negative for a short
    cost : in USDT, of what is held at the prices it was opened at; negative for a short
    margin : USDT set aside for it
    """

    symbol: str
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    margin: Decimal = ZERO
    leverage: int = _USUAL_LEVERAGE
    isolated: bool = False
    updated_ms: int = 0

    @property
    def entry(self) -> Decimal:
        """The mean price, 0 of nothing."""
        return self.cost / self.quantity if self.quantity else ZERO

    def profit(self, mark: Decimal) -> Decimal:
        """What it would bring at that price."""
        return units(self.quantity * mark - self.cost)


class ContractBooks:
    """What a USD-M account has.

    Attributes
    ----------
    wallet : USDT, margins of positions included
    income : everything that ever changed it
    """

    def __init__(
        self, venue: Venue, orders: Orders, prices: Prices, wallet: Decimal, fees: Fees
    ) -> None:
        self._venue, self._orders, self._prices, self._fees = venue, orders, prices, fees
        self._paid_ms = venue.now_ms()
        self.wallet, self.income = ZERO, list[Income]()
        self.positions = {symbol: Position(symbol) for symbol in venue.symbols}
        self._earn("", "TRANSFER", wallet, self._paid_ms)

    def position(self, symbol: str) -> Position:
        """Of one contract.

        Raises
        ------
        RefusedRequest
            There is no such symbol.
        """
        return self.positions[self._venue.rules(symbol).symbol]

    def held(self) -> Iterator[Position]:
        """Positions that are not empty."""
        return (position for position in self.positions.values() if position.quantity)

    def mark(self, symbol: str) -> Decimal:
        """The mark price now."""
        return self._prices.mark(symbol, self._venue.now_ms())

    def available(self) -> Decimal:
        """What new orders may set aside."""
        margins = sum((position.margin for position in self.held()), ZERO)
        return self.wallet - margins - self.order_margin()

    def order_margin(self, symbol: str = "") -> Decimal:
        """What open orders have set aside."""
        return sum((self._needed(order) for order in self._orders.open(symbol)), ZERO)

    def _needed(self, order: Order) -> Decimal:
        draft, left = order.draft, replace(order.draft, quantity=order.remaining)
        price = draft.price or self.mark(draft.symbol)
        return units_up(self._opening(left) * price / self.position(draft.symbol).leverage)

    def _opening(self, draft: Draft) -> Decimal:
        """How much of an order would not close what is held."""
        against = -self.position(draft.symbol).quantity * draft.sign
        return ZERO if draft.reduce_only else max(draft.quantity - max(against, ZERO), ZERO)

    def totals(self) -> dict[str, Decimal]:
        """The wallet, margins of positions included."""
        return {ASSET: self.wallet}

    def free(self, asset: str) -> Decimal:
        """What new orders may set aside."""
        return self.available() if asset == ASSET else ZERO

    def give(self, asset: str, amount: Decimal, now_ms: int) -> None:
        """Put something into the wallet, or take what is free of it."""
        self._earn("", "TRANSFER", max(amount, min(ZERO, -self.available())), now_ms)

    def check(self, draft: Draft) -> None:
        """Refuse what would reduce nothing, and what is not isolated."""
        position = self.position(draft.symbol)
        if draft.reduce_only and position.quantity * draft.sign >= 0:
            raise RefusedRequest(-2022, "ReduceOnly Order is rejected.")
        if not position.isolated:
            said = "The practice exchange knows isolated margin only: POST marginType."
            raise RefusedRequest(-1000, said)

    def afford(self, draft: Draft, taken: list[Level]) -> None:
        """Refuse what the wallet or the bracket does not allow.

        Raises
        ------
        RefusedRequest
            -2019, -2027.
        """
        position, opening = self.position(draft.symbol), self._opening(draft)
        price = draft.price or (taken[-1][0] if taken else self.mark(draft.symbol))
        needed = opening * price / position.leverage + opening * price * self._fees.taker
        if opening and needed > self.available():
            raise RefusedRequest(-2019, "Margin is insufficient.")
        allowed = [it.cap for it in self.brackets(draft.symbol) if it.leverage >= position.leverage]
        if opening and abs(position.quantity + draft.sign * opening) * price > max(allowed):
            said = "Exceeded the maximum allowable position at current leverage."
            raise RefusedRequest(-2027, said)

    def fillable(self, order: Order, price: Decimal) -> Decimal:
        """How much of an order may be filled: one that reduces ends with the position."""
        if not order.draft.reduce_only:
            return order.remaining
        against = -self.position(order.draft.symbol).quantity * order.draft.sign
        return min(order.remaining, max(against, ZERO))

    def is_void(self, order: Order) -> bool:
        """One that has nothing to reduce."""
        return not self.fillable(order, order.draft.price)

    def fee(self, maker: bool) -> Decimal:
        """The share that the exchange keeps."""
        return self._fees.of(maker)

    def settle(self, order: Order, level: Level, number: int, maker: bool, now_ms: int) -> Fill:
        """Close against what is held, then open; profit and fee go through the wallet."""
        draft, (price, quantity) = order.draft, level
        position = self.position(draft.symbol)
        margin = position.margin
        closing = min(quantity, max(-position.quantity * draft.sign, ZERO))
        realized = self._close(position, closing, price) if closing else ZERO
        self._open(position, draft.sign * (quantity - closing), price)
        position.updated_ms = now_ms
        fee = ZERO if draft.is_forced else units(quantity * price * self._fees.of(maker))
        self._earn(draft.symbol, "REALIZED_PNL", realized, now_ms, number)
        self._earn(draft.symbol, "COMMISSION", -fee, now_ms, number)
        if draft.is_forced:  # the insurance fund has what is left, or pays what is short
            self._earn(draft.symbol, "INSURANCE_CLEAR", -(margin + realized), now_ms, number)
        return Fill(number, price, quantity, fee, ASSET, maker, now_ms, realized)

    def _close(self, position: Position, quantity: Decimal, price: Decimal) -> Decimal:
        """Take so much off a position; what it brings."""
        share = quantity / abs(position.quantity)
        cost, margin = units(position.cost * share), units(position.margin * share)
        closed = quantity if position.quantity > 0 else -quantity
        if closed == position.quantity:
            cost, margin = position.cost, position.margin
        position.quantity -= closed
        position.cost -= cost
        position.margin -= margin
        return units(closed * price) - cost

    def _open(self, position: Position, quantity: Decimal, price: Decimal) -> None:
        cost = units(quantity * price)
        position.quantity += quantity
        position.cost += cost
        position.margin += units_up(abs(cost) / position.leverage)

    def pass_to(self, now_ms: int) -> None:
        """Pay the funding that is due."""
        since_ms, self._paid_ms = self._paid_ms, max(now_ms, self._paid_ms)
        for position in tuple(self.held()):
            due = self._prices.funding(position.symbol, since_ms, self._paid_ms)
            for time_ms, rate in due:
                self.pay(position.symbol, rate, time_ms)

    def pay(self, symbol: str, rate: Decimal, now_ms: int) -> None:
        """Pay funding at this rate: longs to shorts if it is positive."""
        position = self.position(symbol)
        amount = -units(position.quantity * self._prices.mark(symbol, now_ms) * rate)
        position.margin += amount
        self._earn(symbol, "FUNDING_FEE", amount, now_ms)

    def forced(self, symbol: str, now_ms: int) -> Draft | None:
        """The order that liquidates a position where its margin is used up."""
        position, mark = self.positions[symbol], self._prices.mark(symbol, now_ms)
        least = self.kept(position, mark)
        if not position.quantity or position.margin + position.profit(mark) > least:
            return None
        price = units((position.cost - position.margin) / position.quantity)
        return Draft(
            symbol, "SELL" if position.quantity > 0 else "BUY", "LIMIT", abs(position.quantity),
            self._venue.rules(symbol).tick(price), time_in_force="IOC",
            client_id=f"autoclose-{now_ms}",
        )  # fmt: skip

    def kept(self, position: Position, mark: Decimal) -> Decimal:
        """The margin below which a position is liquidated."""
        worth = abs(position.quantity) * mark
        bracket = self._bracket(position.symbol, worth)
        return worth * bracket.maintenance - bracket.cum

    def liquidation_price(self, position: Position) -> Decimal:
        """The mark price at which it is liquidated, 0 if there is none."""
        sign, size = (1 if position.quantity > 0 else -1), abs(position.quantity)
        bracket = self._bracket(position.symbol, abs(position.cost))
        least = size * bracket.maintenance - sign * size
        price = (position.margin + bracket.cum - position.cost) / least
        return max(units(price), ZERO)

    def exposed(self) -> set[str]:
        """Symbols whose every trade matters, orders aside."""
        return {position.symbol for position in self.held()}

    def set_isolated(self, symbol: str, isolated: bool) -> None:
        """Choose the margin of a contract.

        Raises
        ------
        RefusedRequest
            -4046: it is so already; -4047, -4048: there is an order or a position.
        """
        position = self.position(symbol)
        if position.isolated == isolated:
            raise RefusedRequest(-4046, "No need to change margin type.")
        if any(self._orders.open(symbol)):
            said = "Margin type cannot be changed if there exists open orders."
            raise RefusedRequest(-4047, said)
        if position.quantity:
            said = "Margin type cannot be changed if there exists position."
            raise RefusedRequest(-4048, said)
        position.isolated = isolated

    def set_leverage(self, symbol: str, leverage: int) -> Decimal:
        """Choose the leverage of a contract; how much a position may be worth with it.

        Raises
        ------
        RefusedRequest
            -4028: none; -4161: lower than that of an open position.
        """
        position = self.position(symbol)
        allowed = [it.cap for it in self.brackets(symbol) if it.leverage >= leverage]
        if leverage < 1 or not allowed:
            raise RefusedRequest(-4028, f"Leverage {leverage} is not valid")
        if position.quantity and leverage < position.leverage:
            said = "Leverage reduction is not supported in Isolated Margin Mode with open positions"
            raise RefusedRequest(-4161, said)
        position.leverage = leverage
        return max(allowed)

    def brackets(self, symbol: str) -> list[Bracket]:
        """Of one contract."""
        return brackets(self._venue.rules(symbol).base)

    def _bracket(self, symbol: str, worth: Decimal) -> Bracket:
        return [it for it in self.brackets(symbol) if it.floor <= worth][-1]

    def _earn(
        self, symbol: str, kind: Kind, amount: Decimal, now_ms: int, fill: int | None = None
    ) -> None:
        if amount:
            self.wallet += amount
            number = _FIRST_INCOME + len(self.income)
            self.income.append(Income(number, symbol, kind, amount, now_ms, fill))
