"""What a replay came to: its facts, and the numbers that follow from them.

Profit is after fees. Buy and hold puts equal shares of the same wallet into every pair at the start
of the window and pays the fee of buying; both are valued at the last price, and neither pays for
selling what is left. A number that cannot be said is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.reliability import Reliability
from lstm_model.replay.books import Agreement
from lstm_model.replay.trade_facts import TradeFacts, TradeLife

_FEWEST = 3  # a start and an end alone say nothing about what lay between


class Balance(NamedTuple):
    """The wallet at one moment.

    Attributes
    ----------
    date_ms : UTC
    balance : stake currency, open trades at the price of that moment
    open_trades : how many
    """

    date_ms: int
    balance: float
    open_trades: int = 0


class Moment(NamedTuple):
    """Something that was said at a time."""

    date_ms: int
    text: str


@dataclass(frozen=True)
class ReplayFacts:
    """A replay after its end. What is empty or None is not known, or did not happen.

    Attributes
    ----------
    data : where the market comes from, in words, e.g. `"recorded candles of binance"`
    pairs, timeframe, strategy : as freqtrade names them
    start_ms, end_ms : the window `[start_ms, end_ms)`
    stake_currency : what `wallet_start`, `wallet_end` and `equity` are counted in
    wall_s : how long the replay took
    step_s : how far the clock moved at once
    equity : the wallet over time, in any order
    prices : of each pair (ms, price), in any order; buy and hold needs one at the start and one at
        the end of every pair, its picture and its drawdown need those between
    fee_fraction : of one side
    slippage_fraction : what the forecast's edge is reckoned with beside fees, of a round trip
    life : the trade whose life is told
    reasons : of each pair how many candles got which code of `lstm_model.trading.sizing.REASONS`
    forecasts : how many were journaled
    intervals : what calibrated intervals were worth, by a name such as `"all"` or a pair
    decisions : what the learner decided
    incidents : what went wrong: warnings, errors, restarts
    messages : how many the bot sent
    account : whether freqtrade's trades agree with the practice account that its orders went to;
        None: it was a dry run
    notes : remarks that a reader must see first, e.g. that the replay was stopped early
    """

    data: str
    pairs: tuple[str, ...]
    timeframe: str
    start_ms: int
    end_ms: int
    stake_currency: str
    wallet_start: float
    wallet_end: float | None
    wall_s: float
    step_s: float | None = None
    strategy: str = ""
    equity: Sequence[Balance] = ()
    prices: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    fee_fraction: float = 0.0
    slippage_fraction: float = 0.0
    trades: Sequence[TradeFacts] = ()
    life: TradeLife | None = None
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    forecasts: int | None = None
    intervals: Mapping[str, Reliability] = field(default_factory=dict)
    decisions: Sequence[Moment] = ()
    incidents: Sequence[Moment] = ()
    messages: int | None = None
    account: Agreement | None = None
    notes: Sequence[str] = ()

    @property
    def speed(self) -> float | None:
        """Minutes of the market per minute of the wall."""
        return (self.end_ms - self.start_ms) / 1_000 / self.wall_s if self.wall_s > 0.0 else None

    @property
    def profit(self) -> float | None:
        """What the wallet gained, in stake currency."""
        return _finite(math.nan if self.wallet_end is None else self.wallet_end - self.wallet_start)

    @property
    def profit_ratio(self) -> float | None:
        """What the wallet gained, as a fraction of what it held at the start."""
        known = self.profit is not None and self.wallet_start > 0.0
        return self.profit / self.wallet_start if known and self.profit is not None else None


@dataclass(frozen=True)
class Curve:
    """Wealth over time, as a multiple of the wallet at the start.

    Attributes
    ----------
    date_ms : (N,) int64, rising; N may be 0
    wealth : (N,) float64, finite
    """

    date_ms: Ints
    wealth: Floats

    @property
    def gain(self) -> float | None:
        """Last over 1, as a fraction; None of an empty curve."""
        return float(self.wealth[-1]) - 1.0 if len(self.wealth) else None

    @property
    def drawdown(self) -> Floats:
        """(N,) float64 <= 0, how far below the highest value so far, as a fraction of it."""
        if not len(self.wealth):
            return self.wealth
        return np.asarray(self.wealth / np.maximum.accumulate(self.wealth) - 1.0)

    @property
    def deepest(self) -> Drawdown | None:
        """The largest drawdown; None where fewer than three values say too little."""
        if len(self.wealth) < _FEWEST:
            return None
        trough = int(np.argmin(self.drawdown))
        peak = int(np.argmax(self.wealth[: trough + 1]))
        depth = abs(float(self.drawdown[trough]))  # 0 without a sign
        return Drawdown(depth, int(self.date_ms[peak]), int(self.date_ms[trough]))


class Drawdown(NamedTuple):
    """A fall of the wealth, as a fraction of its peak, and when it began and was deepest."""

    depth: float
    peak_ms: int
    trough_ms: int


def wallet_curve(facts: ReplayFacts) -> Curve:
    """The wallet over time, from `wallet_start` to `wallet_end`.

    Values at or before the start, and those that are no number, are left out. Of a wallet that
    held nothing at the start the curve is empty.

    Examples
    --------
    >>> facts = ReplayFacts(
    ...     "", ("BTC/USDT",), "5m", 0, 900_000, "USDT", 1_000.0, 990.0, 1.0,
    ...     equity=[Balance(300_000, 1_010.0), Balance(600_000, 909.0)],
    ... )
    >>> curve = wallet_curve(facts)
    >>> curve.wealth
    array([1.   , 1.01 , 0.909, 0.99 ])
    >>> round(curve.deepest.depth, 6), round(curve.gain, 6)
    (0.1, -0.01)
    """
    if not facts.wallet_start > 0.0:
        return _curve([], [])
    points = {facts.start_ms: facts.wallet_start}
    points |= {at: made for at, made, _ in facts.equity if at > facts.start_ms}
    if facts.wallet_end is not None:
        points[max(facts.end_ms, *points)] = facts.wallet_end
    known = sorted((at, made) for at, made in points.items() if math.isfinite(made))
    return _curve([at for at, _ in known], [made / facts.wallet_start for _, made in known])


def held_curve(facts: ReplayFacts) -> Curve:
    """Equal shares of every pair, bought at the start; empty where a pair's price is not known.

    The price at a moment is the last one until then; before the first it is the first.

    Examples
    --------
    >>> prices = {"A/USDT": [(0, 10.0), (600_000, 11.0)], "B/USDT": [(0, 5.0), (300_000, 4.0)]}
    >>> facts = ReplayFacts(
    ...     "", ("A/USDT", "B/USDT"), "5m", 0, 600_000, "USDT", 1_000.0, None, 1.0,
    ...     prices=prices, fee_fraction=0.001,
    ... )
    >>> held_curve(facts).wealth.round(5)
    array([0.999  , 0.8991 , 0.94905])
    """
    known = {pair: _sound(facts.prices.get(pair, ())) for pair in facts.pairs}
    if not known or not all(known.values()):
        return _curve([], [])
    every = {at for points in known.values() for at, _ in points}
    within = {at for at in every if facts.start_ms <= at <= facts.end_ms}
    dates = sorted(within | {facts.start_ms, facts.end_ms})
    ratios = np.mean([_ratios(points, dates) for points in known.values()], axis=0)
    return _curve(dates, ratios * (1.0 - facts.fee_fraction))


def price_change(facts: ReplayFacts, pair: str) -> tuple[float, float] | None:
    """A pair's price at the start and at the end of the window; None where it is not known."""
    points = _sound(facts.prices.get(pair, ()))
    if not points:
        return None
    first, last = _at(points, [facts.start_ms, facts.end_ms])
    return float(first), float(last)


@dataclass(frozen=True)
class Tally:
    """Closed trades, counted. Wins and losses are by what is left after fees.

    Attributes
    ----------
    count : trades; those whose profit is not known are neither won, lost nor even
    profit : sum in stake currency; None where that of one trade is not known
    mean_ratio, best, worst : of the profits as fractions of the stake; None without any
    """

    count: int
    wins: int
    losses: int
    even: int
    profit: float | None
    mean_ratio: float | None
    best: float | None
    worst: float | None

    @classmethod
    def of(cls, trades: Iterable[TradeFacts]) -> Tally:
        """Count those of `trades` that are closed."""
        closed = [trade for trade in trades if not trade.is_open]
        ratios = [trade.profit_ratio for trade in closed if trade.profit_ratio is not None]
        profits = [math.nan if trade.profit is None else trade.profit for trade in closed]
        return cls(
            count=len(closed),
            wins=sum(ratio > 0.0 for ratio in ratios),
            losses=sum(ratio < 0.0 for ratio in ratios),
            even=sum(ratio == 0.0 for ratio in ratios),
            profit=_finite(math.fsum(profits)),
            mean_ratio=math.fsum(ratios) / len(ratios) if ratios else None,
            best=max(ratios, default=None),
            worst=min(ratios, default=None),
        )


def by_exit_reason(trades: Iterable[TradeFacts]) -> dict[str, Tally]:
    """Closed trades by why they were closed, the most frequent reason first."""
    closed = [trade for trade in trades if not trade.is_open]
    groups: dict[str, list[TradeFacts]] = {}
    for trade in closed:
        groups.setdefault(trade.exit_reason, []).append(trade)
    made = {name: Tally.of(group) for name, group in groups.items()}
    return dict(sorted(made.items(), key=lambda item: (-item[1].count, item[0])))


def by_pair(facts: ReplayFacts) -> dict[str, Tally]:
    """Closed trades of every pair, those without trades as well."""
    pairs = dict.fromkeys([*facts.pairs, *(trade.pair for trade in facts.trades)])
    return {pair: Tally.of(t for t in facts.trades if t.pair == pair) for pair in pairs}


def reason_counts(facts: ReplayFacts) -> dict[str, int]:
    """Candles of all pairs by what became of them, the most frequent first."""
    names = {name for counts in facts.reasons.values() for name in counts}
    made = {name: sum(own.get(name, 0) for own in facts.reasons.values()) for name in names}
    return dict(sorted(made.items(), key=lambda item: (-item[1], item[0])))


def _curve(dates: Sequence[int], wealth: Sequence[float] | NDArray[np.float64]) -> Curve:
    return Curve(np.asarray(dates, np.int64), np.asarray(wealth, np.float64))


def _sound(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Prices that are above 0 and finite, oldest first."""
    return sorted((at, price) for at, price in points if price > 0.0 and math.isfinite(price))


def _at(points: Sequence[tuple[int, float]], dates: Sequence[int]) -> Floats:
    """(N,) price at each date: the last until then, before the first the first."""
    times, prices = zip(*points, strict=True)
    rows = np.searchsorted(times, dates, side="right") - 1
    return np.asarray(prices, np.float64)[np.maximum(rows, 0)]


def _ratios(points: Sequence[tuple[int, float]], dates: Sequence[int]) -> Floats:
    made = _at(points, dates)
    return np.asarray(made / made[0])


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
