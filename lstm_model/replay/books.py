"""The account that a replay's orders go to, and whether freqtrade's trades agree with its books.

The practice exchange keeps the truth: what it holds, which orders it took, and how much of each was
filled. freqtrade keeps its own record in its database. At the end the two are held together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Algo, Order
from lstm_model.accounts.spot import Fees
from lstm_model.practice.scenario import Scenario
from lstm_model.practice.tape_market import is_future

_LEAST = 1e-8  # the exchange's smallest amount
_CENT = 1e-5  # chosen: of the wallet; what freqtrade's floats and rates of fees round stays below
_NAMED = 3  # chosen: differences that fit a line


class Terms(NamedTuple):
    """How an account begins.

    Attributes
    ----------
    currency : in which the wallet is
    fee : of one side, that the exchange takes; None: Binance's own
    """

    currency: str = "USDT"
    fee: float | None = None


def open_account(scenario: Scenario, wallet: float, terms: Terms) -> TradingExchange:
    """The practice exchange of a market, with one account that holds the wallet."""
    fees = None if terms.fee is None else Fees(*2 * [Decimal(str(terms.fee))])
    balances = {terms.currency: str(wallet)}
    return TradingExchange(
        scenario.market, balances, scenario.trading_mode, fees=fees, paced=True
    )  # fmt: skip


class Sent(NamedTuple):
    """An order as one side knows it; `filled` in base."""

    filled: float
    is_open: bool


class Owned(NamedTuple):
    """A trade as freqtrade's database has it.

    Attributes
    ----------
    amount : in base, what is held; 0 of a closed trade
    cash : stake currency that its fills brought, below 0 what they cost; fees aside
    fees : that it paid in stake currency
    funding : that it got, below 0 what it paid
    leeway : by how much `fees` may be off: freqtrade keeps one rate a side, that of its first order
    orders : by the exchange's number
    """

    pair: str
    is_short: bool
    open_rate: float
    amount: float
    cash: float
    fees: float
    funding: float
    leeway: float
    orders: Mapping[str, Sent]

    @property
    def signed(self) -> float:
        """The amount, below 0 of a short."""
        return -self.amount if self.is_short else self.amount


class Agreement(NamedTuple):
    """Whether trades and books agree, in a line."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Books:
    """An account at one moment.

    Attributes
    ----------
    held : pair -> in base, below 0 for a short; on spot without what no order can be for
    step : pair -> the smallest amount of an order
    balance : in stake currency, margins of positions included
    orders : by their number; conditional ones with what they became
    children : numbers of orders that conditional ones became
    """

    terms: Terms
    wallet: float
    is_futures: bool
    held: Mapping[str, float]
    step: Mapping[str, float]
    balance: float
    orders: Mapping[str, Sent]
    children: frozenset[str]

    @classmethod
    def of(
        cls, exchange: TradingExchange, scenario: Scenario, wallet: float, terms: Terms
    ) -> Books:
        """Those of an exchange now; its clock must be the replay's."""
        truth, is_futures = exchange.truth, is_future(scenario.pairs[0])
        instruments = {pair: scenario.listing(pair).instrument for pair in scenario.pairs}
        balances = truth.balances
        positions = truth.positions if is_futures else {}
        held = {pair: balances.get(each.base, ZERO) for pair, each in instruments.items()}
        if is_futures:
            held = {
                pair: positions[each.symbol].quantity if each.symbol in positions else ZERO
                for pair, each in instruments.items()
            }
        orders = {order.number: order for order in truth.orders}
        algos = truth.algos if is_futures else []
        known = {str(number): _of_order(order) for number, order in orders.items()}
        known |= {str(algo.number): _of_algo(algo, orders) for algo in algos}
        return cls(
            terms, wallet, is_futures,
            {pair: float(amount) for pair, amount in held.items()},
            {pair: 10.0**-instrument.amount_decimals for pair, instrument in instruments.items()},
            float(balances.get(terms.currency, ZERO)), known,
            frozenset(str(algo.order) for algo in algos if algo.order is not None),
        )  # fmt: skip

    def agree(self, trades: Sequence[Owned]) -> Agreement:
        """Hold freqtrade's trades against these books."""
        found = [*self._orders(trades), *self._amounts(trades), *self._money(trades)]
        count, holding = len(self.orders), sum(trade.amount > 0.0 for trade in trades)
        if not found:
            return Agreement(
                True,
                f"{count:,} orders, {holding:,} open position(s) and {self.balance:,.2f} "
                f"{self.terms.currency} on the practice account are those of freqtrade's "
                f"{len(trades):,} trades",
            )
        more = f"; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        return Agreement(
            False, f"NOT as freqtrade's trades have it: {'; '.join(found[:_NAMED])}{more}"
        )

    def _orders(self, trades: Sequence[Owned]) -> Iterator[str]:
        theirs = {number: sent for trade in trades for number, sent in trade.orders.items()}
        for number in sorted({*self.orders} - {*theirs} - self.children):
            yield f"order {number} is in no trade"
        for number, sent in theirs.items():
            mine = self.orders.get(number)
            if mine is None:
                yield f"order {number} was never sent"
            elif abs(mine.filled - sent.filled) > _LEAST:
                yield f"order {number}: {mine.filled:.8g} filled, freqtrade has {sent.filled:.8g}"
            elif mine.is_open != sent.is_open:
                states = ["open" if each.is_open else "closed" for each in (mine, sent)]
                yield f"order {number} is {states[0]}, freqtrade has it {states[1]}"

    def _amounts(self, trades: Sequence[Owned]) -> Iterator[str]:
        """On spot what rounding to whole steps has left of each trade may lie there too."""
        for pair, held in self.held.items():
            mine = [trade for trade in trades if trade.pair == pair]
            owned = sum(trade.signed for trade in mine)
            dust = 0.0 if self.is_futures else self.step[pair] * len(mine)
            if not -_LEAST <= held - owned <= dust + _LEAST:
                yield f"{pair}: {held:.8g} held, the trades own {owned:.8g}"

    def _money(self, trades: Sequence[Owned]) -> Iterator[str]:
        """A position's margin stays in the wallet; what is bought on spot leaves it."""
        bound = sum(trade.signed * trade.open_rate for trade in trades) if self.is_futures else 0.0
        moved = sum(trade.cash - trade.fees + trade.funding for trade in trades)
        expected = self.wallet + moved + bound
        leeway = _CENT * self.wallet + sum(trade.leeway for trade in trades)
        if abs(expected - self.balance) > leeway:
            yield (
                f"{self.balance:,.4f} {self.terms.currency}, by the trades' fills {expected:,.4f}"
            )


def _of_order(order: Order) -> Sent:
    return Sent(float(order.filled), order.is_open)


def _of_algo(algo: Algo, orders: Mapping[int, Order]) -> Sent:
    became = orders.get(algo.order) if algo.order is not None else None
    if became is not None:
        return _of_order(became)
    return Sent(0.0, algo.status == "NEW")
