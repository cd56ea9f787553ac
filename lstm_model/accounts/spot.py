"""The books of a spot account: what it has, what is locked, what its fills cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from lstm_model.accounts.money import ZERO, stepped, units
from lstm_model.accounts.orders import Draft, Fill, Order, Orders
from lstm_model.accounts.venue import Level, Rules, Venue
from lstm_model.practice.query import RefusedRequest


@dataclass(frozen=True)
class Fees:
    """Shares of what is traded that the exchange keeps."""

    maker: Decimal = Decimal("0.001")  # Binance's, without discounts
    taker: Decimal = Decimal("0.001")

    def of(self, maker: bool) -> Decimal:
        """The share of a fill."""
        return self.maker if maker else self.taker


class SpotBooks:
    """What a spot account has.

    Attributes
    ----------
    total : of each asset, locked amounts included
    kept : what the exchange has kept of each asset as its fee
    """

    def __init__(
        self, venue: Venue, orders: Orders, balances: Mapping[str, Decimal], fees: Fees
    ) -> None:
        self._venue, self._orders, self._fees = venue, orders, fees
        self.total = dict(balances)
        self.kept: dict[str, Decimal] = {}

    def locked(self, asset: str) -> Decimal:
        """What open orders may still cost."""
        return sum((self._held(order, asset) for order in self._orders.open()), ZERO)

    def free(self, asset: str) -> Decimal:
        """What may be spent."""
        return self.total.get(asset, ZERO) - self.locked(asset)

    def totals(self) -> dict[str, Decimal]:
        """Of each asset, locked amounts included."""
        return dict(self.total)

    def give(self, asset: str, amount: Decimal, now_ms: int) -> None:
        """Put something into the account, or take what is free of it."""
        self.total[asset] = self.total.get(asset, ZERO) + max(amount, -self.free(asset))

    def _held(self, order: Order, asset: str) -> Decimal:
        rules, draft = self._venue.rules(order.draft.symbol), order.draft
        if draft.side == "SELL":
            return order.remaining if asset == rules.base else ZERO
        return order.remaining * draft.price if asset == rules.quote else ZERO

    def fee(self, maker: bool) -> Decimal:
        """The share that the exchange keeps."""
        return self._fees.of(maker)

    def check(self, draft: Draft) -> None:
        """Nothing is forbidden that the filters allow."""

    def afford(self, draft: Draft, taken: Iterable[Level]) -> None:
        """Refuse what the account cannot pay for.

        Raises
        ------
        RefusedRequest
            -2010.
        """
        rules, taken = self._venue.rules(draft.symbol), list(taken)
        asset, amount = rules.base, draft.quantity
        if draft.side == "BUY":
            asset, amount = rules.quote, draft.quantity * draft.price
            if not draft.price:
                amount = sum((price * quantity for price, quantity in taken), ZERO)
        if amount > self.free(asset):
            said = "Account has insufficient balance for requested action."
            raise RefusedRequest(-2010, said)

    def fillable(self, order: Order, price: Decimal) -> Decimal:
        """How much of an order may be filled: one that names no price has nothing locked."""
        if order.draft.price or order.draft.side == "SELL":
            return order.remaining
        rules = self._rules(order)
        return min(
            order.remaining, stepped(max(self.free(rules.quote), ZERO) / price, rules.lot.step)
        )

    def is_void(self, order: Order) -> bool:
        """None is for ever."""
        return False

    def settle(self, order: Order, level: Level, number: int, maker: bool, now_ms: int) -> Fill:
        """Exchange base and quote; the fee is taken from what comes in."""
        rules, (price, quantity), sign = self._rules(order), level, order.draft.sign
        cost = price * quantity
        asset, got = (rules.base, quantity) if sign > 0 else (rules.quote, cost)
        fee = units(got * self._fees.of(maker))
        self._add(rules.base, sign * quantity)
        self._add(rules.quote, -sign * cost)
        self._add(asset, -fee)
        self.kept[asset] = self.kept.get(asset, ZERO) + fee
        return Fill(number, price, quantity, fee, asset, maker, now_ms)

    def pass_to(self, now_ms: int) -> None:
        """Nothing is due."""

    def forced(self, symbol: str, now_ms: int) -> Draft | None:
        """Nothing is ever liquidated."""
        return None

    def exposed(self) -> set[str]:
        """Symbols whose every trade matters, orders aside."""
        return set()

    def _rules(self, order: Order) -> Rules:
        return self._venue.rules(order.draft.symbol)

    def _add(self, asset: str, amount: Decimal) -> None:
        self.total[asset] = self.total.get(asset, ZERO) + amount
