"""The books of a spot account: nothing is lost and nothing made, whatever is asked."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from itertools import pairwise
from typing import Any

from account_world import Clock, small_market
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.accounts.engine import Engine
from lstm_model.accounts.exchange import spot_symbols
from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Draft, Fill, Order, Orders
from lstm_model.accounts.spot import Fees, SpotBooks
from lstm_model.accounts.venue import Venue
from lstm_model.practice.query import RefusedRequest

SYMBOL = "BTCUSDT"
FEES = Fees(Decimal("0.00075"), Decimal("0.001"))


class Account:
    """An account with 1000 USDT and 5 BTC on a market with these prices in cents."""

    def __init__(self, prices: list[int]) -> None:
        self.clock, self.orders = Clock(), Orders()
        told = [str(Decimal(price) / 100) for price in prices]
        amounts = [str(Decimal(1 + price % 97) / 100) for price in prices]
        market = small_market(self.clock, told, amounts)
        self.given = {"USDT": Decimal(1000), "BTC": Decimal(5)}
        self.venue = Venue(market, spot_symbols(market))
        self.books = SpotBooks(self.venue, self.orders, self.given, FEES)
        self.engine = Engine(self.venue, self.orders, self.books)

    def check(self) -> None:
        fills = [(order, fill) for order in self.orders.all.values() for fill in order.fills]
        for asset in self.given:
            moved = sum((change(order, fill, asset) for order, fill in fills), ZERO)
            kept = self.books.kept.get(asset, ZERO)
            assert self.books.total[asset] == self.given[asset] + moved - kept
            assert 0 <= self.books.locked(asset) <= self.books.total[asset]
        for order in self.orders.all.values():
            check_order(order)


def change(order: Order, fill: Fill, asset: str) -> Decimal:
    return order.draft.sign * (fill.quantity if asset == "BTC" else -fill.quantity * fill.price)


def check_order(order: Order) -> None:
    draft = order.draft
    assert 0 <= order.filled <= draft.quantity
    assert order.is_open == (order.status in ("NEW", "PARTIALLY_FILLED"))
    assert (order.status == "FILLED") == (order.filled == draft.quantity)
    for before, after in pairwise(order.fills):
        assert before.number < after.number
        assert before.time_ms <= after.time_ms
    for fill in order.fills:
        assert not draft.price or (draft.price - fill.price) * draft.sign >= 0
        assert fill.commission == fill.commission.quantize(Decimal("1e-8"))


PRICES = st.lists(st.integers(9_000, 11_000), min_size=30, max_size=30)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("place"),
            st.sampled_from(["BUY", "SELL"]),
            st.sampled_from(["LIMIT", "MARKET", "STOP_LOSS_LIMIT"]),
            st.integers(1, 400_000),
            st.integers(8_900, 11_100),
            st.integers(8_900, 11_100),
            st.sampled_from(["GTC", "IOC", "FOK", "GTX"]),
        ),
        st.tuples(st.just("wait"), st.integers(1, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("share"), st.sampled_from(["0", "0.3", "1"])),
        st.tuples(st.just("give"), st.sampled_from(["USDT", "BTC"]), st.integers(-2_000, 2_000)),
    ),
    max_size=25,
)


def draft_of(side: str, kind: str, lots: int, price: int, stop: int, force: str) -> Draft:
    cents = Decimal(price) / 100
    return Draft(
        SYMBOL, "BUY" if side == "BUY" else "SELL", kind, Decimal(lots) / 100_000,
        ZERO if kind == "MARKET" else cents,
        Decimal(stop) / 100 if kind == "STOP_LOSS_LIMIT" else ZERO,
        force if kind == "LIMIT" else "GTC",
    )  # fmt: skip


@given(PRICES, ACTIONS)
def test_value_is_conserved_to_the_last_unit(prices: list[int], actions: list[Any]) -> None:
    account = Account(prices)
    for name, *details in actions:
        with contextlib.suppress(RefusedRequest):
            act(account, name, details)
        account.engine.advance()
        account.check()


def act(account: Account, name: str, details: list[Any]) -> None:
    if name == "place":
        account.engine.place(draft_of(*details))
    elif name == "wait":
        account.clock.forth(details[0])
    elif name == "cancel":
        numbers = list(account.orders.all) or [0]
        account.engine.cancel(SYMBOL, numbers[details[0] % len(numbers)], "")
    elif name == "share":
        account.engine.set_share(SYMBOL, Decimal(details[0]))
    else:
        asset, amount = details
        account.engine.advance()
        before = account.books.total[asset]
        account.books.give(asset, Decimal(amount), 0)
        account.given[asset] += account.books.total[asset] - before


@given(PRICES, ACTIONS)
def test_looking_often_changes_nothing(prices: list[int], actions: list[Any]) -> None:
    """What happened is done in its order, however long nobody asked."""
    seldom, often = Account(prices), Account(prices)
    for name, *details in actions:
        for account in (seldom, often):
            if name == "wait" and account is often:
                for _ in range(details[0]):
                    account.clock.forth()
                    account.engine.advance()
                continue
            with contextlib.suppress(RefusedRequest):
                act(account, name, details)
    for account in (seldom, often):
        account.engine.advance()
    assert seldom.orders.all == often.orders.all
    assert seldom.books.total == often.books.total
