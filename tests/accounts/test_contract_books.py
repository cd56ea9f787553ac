"""The books of a USD-M account: every change of the wallet has its reason, to the last unit."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import freqtrade.exchange
from account_world import Clock, small_market
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.accounts.contracts import ContractBooks, brackets
from lstm_model.accounts.engine import Engine
from lstm_model.accounts.exchange import usdm_symbols
from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Draft, Fill, Order, Orders
from lstm_model.accounts.spot import Fees
from lstm_model.accounts.venue import FuturesPrices, Venue
from lstm_model.practice.perpetual import perpetuals
from lstm_model.practice.query import RefusedRequest

SYMBOL, WALLET = "BTCUSDT", Decimal(500)


class Account:
    """An account with 500 USDT on a market with these prices in cents."""

    def __init__(self, prices: list[int], leverage: int) -> None:
        self.clock, self.orders = Clock(), Orders()
        told = [str(Decimal(price) / 100) for price in prices]
        amounts = [str(Decimal(1 + price % 97) / 100) for price in prices]
        futures = perpetuals(small_market(self.clock, told, amounts))
        self.prices = FuturesPrices(futures)
        venue = Venue(futures, usdm_symbols(futures))
        fees = Fees(Decimal("0.0002"), Decimal("0.0005"))
        self.books = ContractBooks(venue, self.orders, self.prices, WALLET, fees)
        self.engine = Engine(venue, self.orders, self.books, self.prices)
        self.books.set_isolated(SYMBOL, True)
        self.books.set_leverage(SYMBOL, leverage)

    def fills(self) -> list[tuple[Order, Fill]]:
        return list(self.engine.fills(SYMBOL))

    def earned(self, kind: str) -> Decimal:
        return sum((item.amount for item in self.books.income if item.kind == kind), ZERO)

    def check(self) -> None:
        books, position = self.books, self.books.position(SYMBOL)
        assert books.wallet == sum(item.amount for item in books.income)
        flow = sum((-o.draft.sign * f.quantity * f.price for o, f in self.fills()), ZERO)
        assert self.earned("REALIZED_PNL") == flow + position.cost
        assert -self.earned("COMMISSION") == sum((f.commission for _, f in self.fills()), ZERO)
        assert position.quantity == sum((o.draft.sign * f.quantity for o, f in self.fills()), ZERO)
        assert (position.quantity > 0) == (position.cost > 0)
        assert (position.quantity == 0) == (position.cost == 0)
        assert position.quantity or not position.margin
        self.check_reduction()
        for order in self.orders.all.values():
            assert 0 <= order.filled <= order.draft.quantity
            assert not (order.is_open and order.draft.reduce_only and not position.quantity)

    def check_reduction(self) -> None:
        held = ZERO
        for order, fill in self.fills():
            after = held + order.draft.sign * fill.quantity
            if order.draft.reduce_only or order.draft.is_forced:
                assert abs(after) < abs(held)
                assert after * held >= 0
            held = after


PRICES = st.lists(st.integers(9_300, 10_700), min_size=30, max_size=30)
SIDES = st.sampled_from(["BUY", "SELL"])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("place"),
            SIDES,
            st.sampled_from(["LIMIT", "MARKET"]),
            st.integers(5_000, 3_000_000),
            st.integers(9_300, 10_700),
            st.booleans(),
            st.sampled_from(["GTC", "IOC", "FOK", "GTX"]),
        ),
        st.tuples(
            st.just("stop"),
            SIDES,
            st.integers(5_000, 3_000_000),
            st.integers(9_300, 10_700),
            st.booleans(),
            st.booleans(),
        ),
        st.tuples(st.just("wait"), st.integers(1, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("share"), st.sampled_from(["0", "0.3", "1"])),
        st.tuples(st.just("fund"), st.sampled_from(["0.01", "-0.003"])),
        st.tuples(st.just("give"), st.integers(-300, 300)),
        st.tuples(st.just("mark"), st.integers(8_000, 12_000)),
    ),
    max_size=25,
)


def act(account: Account, name: str, details: list[Any]) -> None:
    engine, clock = account.engine, account.clock
    if name == "place":
        side, kind, lots, cents, reduces, force = details
        price, force = (ZERO, "GTC") if kind == "MARKET" else (Decimal(cents) / 100, force)
        quantity = Decimal(lots) / 100_000
        engine.place(Draft(SYMBOL, side, kind, quantity, price, ZERO, force, "", reduces))
    elif name == "stop":
        side, lots, cents, reduces, by_mark = details
        working = "MARK_PRICE" if by_mark else "CONTRACT_PRICE"
        quantity, price = Decimal(lots) / 100_000, Decimal(cents) / 100
        name = f"stop-{len(account.orders.algos)}"
        draft = Draft(
            SYMBOL, side, "STOP_MARKET", quantity, ZERO, price, "GTC", name, reduces, working
        )
        engine.place_algo(draft)
    elif name == "wait":
        clock.forth(details[0])
    elif name == "cancel":
        engine.advance()  # an order may come of a stop
        numbers = list(account.orders.all) or [0]
        engine.cancel(SYMBOL, numbers[details[0] % len(numbers)], "")
    elif name == "share":
        engine.set_share(SYMBOL, Decimal(details[0]))
    elif name == "fund":
        now_ms = engine.advance()
        account.prices.set_fundings.append((SYMBOL, now_ms + 500, Decimal(details[0])))
    elif name == "give":
        account.books.give("USDT", Decimal(details[0]), engine.advance())
    else:
        engine.advance()
        account.prices.set_marks[SYMBOL] = Decimal(details[0]) / 100
        engine.review(SYMBOL)
        del account.prices.set_marks[SYMBOL]


@given(PRICES, st.sampled_from([1, 5, 20, 100]), ACTIONS)
def test_value_is_conserved_to_the_last_unit(
    prices: list[int], leverage: int, actions: list[Any]
) -> None:
    account = Account(prices, leverage)
    for name, *details in actions:
        with contextlib.suppress(RefusedRequest):
            act(account, name, details)
        account.engine.advance()
        account.check()


@given(PRICES, st.sampled_from([5, 100]), ACTIONS)
def test_looking_often_changes_nothing(
    prices: list[int], leverage: int, actions: list[Any]
) -> None:
    seldom, often = Account(prices, leverage), Account(prices, leverage)
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
    assert seldom.books.income == often.books.income


def test_brackets_are_freqtrade_s_own() -> None:
    """A dry run takes them from its file, a live bot from the exchange."""
    file = Path(freqtrade.exchange.__file__).parent / "binance_leverage_tiers.json"
    tiers = json.loads(file.read_text())
    for base in ("BTC", "ETH", "SOL"):
        for mine, theirs in zip(brackets(base), tiers[f"{base}/USDT:USDT"], strict=False):
            told = (mine.floor, mine.leverage, mine.maintenance, mine.cum)
            names = ("minNotional", "maxLeverage", "maintenanceMarginRate")
            known = (*(theirs[name] for name in names), float(theirs["info"]["cum"]))
            assert tuple(map(float, told)) == known
