"""From the orders of a backtest to the wallet at the end of each day, at market prices.

freqtrade's own tables know a trade once it is closed. Here open positions count at the price of
the day's last candle, so that a fall is seen while it happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.market.candles import Floats, Ints
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.rivals.days import Days

_RUIN = 1e-9  # of the wallet; equity counts as this much at least, so that returns exist
_EQUAL = 1e-9  # below, differences are rounding

Prices = Mapping[str, tuple[Ints, Floats]]  # of a pair: when candles closed, and where


class Fill(NamedTuple):
    """An order that was filled: the amount in base currency, above 0 where it was bought."""

    time_ms: int
    price: float
    amount: float

    @property
    def value(self) -> float:
        """In stake currency."""
        return abs(self.price * self.amount)


@dataclass(frozen=True)
class Deal:
    """A closed trade with all its orders: entry, additions, partial exits, exit."""

    facts: TradeFacts
    fills: tuple[Fill, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Deal:
        """From a record of a backtest's results."""
        return cls(
            TradeFacts.of(record),
            tuple(
                Fill(
                    int(order["order_filled_timestamp"]), float(order["safe_price"]),
                    float(order["amount"]) * (1.0 if order["ft_order_side"] == "buy" else -1.0),
                )
                for order in record["orders"]
                if order["order_filled_timestamp"] is not None
            ),
        )  # fmt: skip

    @property
    def key(self) -> tuple[str, int, bool]:
        """Pair, candle and side of the entry."""
        return self.facts.pair, self.facts.open_ms, self.facts.is_short

    @property
    def value(self) -> float:
        """Of all its orders, in stake currency."""
        return sum(fill.value for fill in self.fills)

    def cash(self, slippage: float) -> list[tuple[int, float]]:
        """What each order paid or cost, fees and slippage off, and when.

        The sum is freqtrade's profit less slippage: its rounding, and in futures funding, are
        booked at the end.
        """
        side = -1.0 if self.facts.is_short else 1.0
        fees = self.facts.fee_open or 0.0, self.facts.fee_close or 0.0
        paid = [
            -fill.amount * fill.price - fill.value * fees[fill.amount * side < 0.0]
            for fill in self.fills
        ]
        rest = (self.facts.profit or 0.0) - sum(paid)
        lost = [slippage * fill.value for fill in self.fills]
        booked = [
            (fill.time_ms, cash - cost)
            for fill, cash, cost in zip(self.fills, paid, lost, strict=True)
        ]
        return [*booked, (self.facts.close_ms or self.facts.open_ms, rest)]

    def levels(self, step_ms: int) -> list[tuple[int, float]]:
        """When the value at entry prices changed, and by how much; it lasts a candle at least."""
        held, cost, made = 0.0, 0.0, []
        for fill in self.fills:
            goes_in = held == 0.0 or (fill.amount > 0.0) == (held > 0.0)
            left = max(0.0, 1.0 - abs(fill.amount / held)) if held else 0.0
            change = fill.value if goes_in else cost * (left - 1.0)
            held, cost = held + fill.amount, cost + change
            made.append((fill.time_ms, change))
        until = max(made[-1][0], made[0][0] + step_ms)
        *before, (_, last) = made
        return [*before, (until, last), (until, -cost)]


class Window(NamedTuple):
    """The time that all backtests share, `[start_ms, end_ms)`, and the length of a candle."""

    start_ms: int
    end_ms: int
    step_ms: int

    def ends(self) -> Ints:
        """Where days end (N,): each midnight, UTC, and the window's end.

        Less than half a day at either end belongs to the day beside it.

        Examples
        --------
        >>> day = 86_400_000
        >>> (Window(day // 2, 3 * day, 300_000).ends() / day).tolist()
        [1.0, 2.0, 3.0]
        >>> (Window(0, 2 * day + 300_000, 300_000).ends() / day).round(3).tolist()
        [1.0, 2.003]
        """
        first = -(-(self.start_ms + DAY_MS // 2) // DAY_MS) * DAY_MS
        midnights = np.arange(first, self.end_ms - DAY_MS // 2 + 1, DAY_MS)
        return np.append(midnights[midnights < self.end_ms], self.end_ms).astype(np.int64)


@dataclass(frozen=True)
class Book:
    """A backtest's wallet.

    Attributes
    ----------
    ends : (N,) when each day ended
    equity : (N,) at market prices then, in stake currency
    days : the same in fractions
    results : (T,) profit of each trade, in the order they were opened, as a fraction of the wallet
        when it was opened: what was realized by then
    """

    ends: Ints
    equity: Floats
    days: Days
    results: Floats


class Terms(NamedTuple):
    """What wallets are reckoned by.

    Attributes
    ----------
    wallet : at the start, in stake currency
    slippage : lost on every order, as a fraction of its value
    promise : what a trade may lose, as a fraction of the wallet
    """

    wallet: float
    slippage: float
    promise: float


def book(deals: Sequence[Deal], prices: Prices, window: Window, terms: Terms) -> Book:
    """Reckon a wallet day by day."""
    deals = sorted(deals, key=lambda deal: deal.facts.open_ms)
    ends = window.ends()
    equity = np.maximum(_equity(deals, prices, ends, terms), _RUIN * terms.wallet)
    before = np.concatenate([[terms.wallet], equity[:-1]])
    results = _results(deals, terms)
    opened = [deal.facts.open_ms for deal in deals]
    beyond = results < -terms.promise - _EQUAL
    orders = [(fill.time_ms, fill.value) for deal in deals for fill in deal.fills]
    days = Days(
        returns=equity / before - 1.0,
        entries=_per_day([(at, 1.0) for at in opened], ends),
        beyond=_per_day(list(zip(opened, beyond.astype(float), strict=True)), ends),
        turnover=_per_day(orders, ends) / before,
        exposure=_exposure(deals, window) / before,
    )
    return Book(ends, equity, days, results)


def _equity(deals: Sequence[Deal], prices: Prices, ends: Ints, terms: Terms) -> Floats:
    """Cash, and what is held at the newest price, when each day ended."""
    cash = [each for deal in deals for each in deal.cash(terms.slippage)]
    equity = terms.wallet + np.cumsum(_per_day(cash, ends))
    held: dict[str, list[tuple[int, float]]] = {}
    for deal in deals:
        held.setdefault(deal.facts.pair, []).extend((f.time_ms, f.amount) for f in deal.fills)
    for pair, amounts in held.items():
        closed_ms, close = prices[pair]
        known = np.maximum(np.searchsorted(closed_ms, ends, side="right") - 1, 0)
        equity = equity + np.cumsum(_per_day(amounts, ends)) * close[known]
    return np.asarray(equity)


def _exposure(deals: Sequence[Deal], window: Window) -> Floats:
    """Mean value held on each day, at entry prices, in stake currency."""
    ends = window.ends()
    edges = np.concatenate([[window.start_ms], ends])
    changes = sorted(change for deal in deals for change in deal.levels(window.step_ms))
    if not changes:
        return np.zeros(len(ends))
    times, by = (np.array(each, float) for each in zip(*changes, strict=True))
    held = np.concatenate([[0.0], np.cumsum(np.cumsum(by)[:-1] * np.diff(times))])
    return np.asarray(np.diff(np.interp(edges, times, held)) / np.diff(edges))


def _results(deals: Sequence[Deal], terms: Terms) -> Floats:
    """Profit of each trade, as a fraction of what the wallet had realized when it was opened."""
    profits = np.array([
        (deal.facts.profit or 0.0) - terms.slippage * deal.value for deal in deals
    ], float)  # fmt: skip
    closed = np.array([deal.facts.close_ms or deal.facts.open_ms for deal in deals], np.int64)
    opened = np.array([deal.facts.open_ms for deal in deals], np.int64)
    order = np.argsort(closed, kind="stable")
    realized = np.concatenate([[0.0], np.cumsum(profits[order])])
    had = terms.wallet + realized[np.searchsorted(closed[order], opened, side="right")]
    return np.asarray(profits / np.maximum(had, _RUIN * terms.wallet))


def _per_day(moments: Sequence[tuple[int, float]], ends: Ints) -> Floats:
    """Sum of what happened on each day; what happens at its end belongs to the next."""
    if not moments:
        return np.zeros(len(ends))
    times, amounts = (np.array(each) for each in zip(*moments, strict=True))
    rows = np.minimum(np.searchsorted(ends, times, side="right"), len(ends) - 1)
    return np.bincount(rows, amounts, len(ends)).astype(np.float64)
