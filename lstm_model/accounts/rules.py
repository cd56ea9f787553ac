"""The filters of a symbol: which prices and amounts are allowed, and what is said if one is not.

They are read from what the exchange itself tells in `exchangeInfo`.
https://developers.binance.com/docs/binance-spot-api-docs/filters
https://developers.binance.com/docs/derivatives/usds-margined-futures/error-code
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lstm_model.accounts.money import ZERO, stepped
from lstm_model.accounts.orders import Draft
from lstm_model.practice.query import RefusedRequest

_NO_LIMIT = Decimal("1e15")


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

    def check(self, draft: Draft, last: Decimal) -> None:
        """Refuse what a filter forbids.

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
            self._check_distance(draft, last)
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
