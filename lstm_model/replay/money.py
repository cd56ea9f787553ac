"""What a backtest promised and what the bot kept, in money: trade by trade, and in all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

from lstm_model.market.candles import utc_text
from lstm_model.replay.accounts import Rules
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.replay.trades import BACKTEST, BOT, LoneTrade, MatchedTrade, TradeComparison

# Exits by a price inside the candle; a backtest knows of it that it was between high and low.
_BY_PRICE = ("stop_loss", "trailing_stop_loss", "stoploss_on_exchange", "roi", "liquidation")
_BY_FORECAST_INSIDE = "lstm_turned_inside"
_AGAIN = "again"  # no exit: an entry that only a backtest makes within a candle
# What freqtrade's backtest takes for granted of prices inside a candle, by the reason of an exit
# (`IStrategy.ft_stoploss_adjust`, `should_exit`, `Backtesting._get_close_rate`).
_ASSUMED = {
    "trailing_stop_loss": "it moves a stop by a candle's best price before it holds the worst "
    "against it, whichever came first",
    "stop_loss": "it leaves at the stop's exact price, and by the stop where a candle reached its "
    "ROI too",
    "roi": "it leaves at the ROI's exact price, and takes the table at the minute in which the "
    "candle opens",
    _AGAIN: "with a detail it enters again in the candle in which it left, where a bot has the "
    "pair locked",
}
_OF_THE_END = "force_exit"  # how a backtest ends trades that are left
# freqtrade's, of Binance: an entry so soon after a payment may be charged it, and a backtest's is.
_CUTOFF_MS = 15_000
_FUNDING_TOLD = 1e-4  # chosen: of a position; what is less does not explain a broken promise
_FUNDING_ALIKE = 0.01  # chosen: of a payment, and a hundred-thousandth of the position


class Payment(NamedTuple):
    """A payment of funding: `each` is what a long position of one in base paid, stake currency."""

    time_ms: int
    each: float


class Purse(NamedTuple):
    """What profits are reckoned by.

    Attributes
    ----------
    wallet : with which both began, in stake currency
    last : pair -> price at the window's end, for trades that are open then
    tolerance : difference of profits that fills may make: of a trade as a fraction of its position
        (its stake times its leverage), in all as a fraction of the wallet
    payments : pair -> funding that the market paid, of futures; rising in time
    inside_exits : whether forecasts inside the candle moved stops and ended trades of the bot
    """

    wallet: float
    last: Mapping[str, float]
    tolerance: float
    inside_exits: bool
    payments: Mapping[str, Sequence[Payment]] = MappingProxyType({})


@dataclass(frozen=True)
class TradeMoney:
    """One trade: the profit promised and the profit kept, after fees.

    Attributes
    ----------
    trade : of the backtest, or of the bot where it alone made one
    position : what was traded with, stake times leverage; the larger of the two sides'
    promised_money, kept_money : profit after fees in stake currency; 0.0 where that side made no
        such trade, NaN where no price is known
    why : where it ended, by which rule and by what was known, on either side
    reasons : of the exits of both
    made_by : the side that alone made it, "" for both
    """

    trade: TradeFacts
    position: float
    promised_money: float
    kept_money: float
    why: str
    reasons: frozenset[str] = frozenset()
    made_by: str = ""

    @property
    def promised(self) -> float:
        """As a fraction of the position."""
        return self.promised_money / self.position

    @property
    def kept(self) -> float:
        """As a fraction of the position."""
        return self.kept_money / self.position

    @property
    def money(self) -> float:
        """Kept less promised, in stake currency."""
        return self.kept_money - self.promised_money

    @property
    def difference(self) -> float:
        """Kept less promised, as a fraction of the position."""
        return self.money / self.position


class OddFunding(NamedTuple):
    """Funding in a trade of one side that is not what the market paid, in stake currency."""

    who: str
    trade: TradeFacts
    booked: float
    due: float


@dataclass(frozen=True)
class MoneyComparison:
    """All trades of both.

    Attributes
    ----------
    promised, kept : profit of all trades, open ones at the last price, in stake currency
    funding : of all closed trades of the backtest and of the bot, in stake currency; None: of spot
    odd : trades whose funding is not what the market paid
    """

    purse: Purse
    promised: float
    kept: float
    trades: tuple[TradeMoney, ...]
    funding: tuple[float, float] | None = None
    odd: tuple[OddFunding, ...] = ()

    @property
    def difference(self) -> float:
        """Kept less promised, as a fraction of the wallet."""
        return (self.kept - self.promised) / self.purse.wallet

    @property
    def alone(self) -> float:
        """What trades of one side alone won and lost together, as a fraction of the wallet.

        Not their sum: a profit that only the bot made does not make up for one that it missed.
        """
        return sum(abs(trade.money) for trade in self.trades if trade.made_by) / self.purse.wallet

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the backtest takes for granted inside a candle, for exits of trades that differ."""
        found = {reason for trade in self.broken for reason in trade.reasons}
        return tuple(text for reason, text in _ASSUMED.items() if reason in found)

    @property
    def broken(self) -> tuple[TradeMoney, ...]:
        """Trades that differ by more than fills may make, the largest difference first."""
        found = [t for t in self.trades if not abs(t.difference) <= self.purse.tolerance]
        return tuple(sorted(found, key=lambda trade: -abs(trade.difference)))

    @property
    def is_kept(self) -> bool:
        """Whether the bot kept what the backtest promised: trade by trade, and in all."""
        most = self.purse.tolerance
        return not self.broken and abs(self.difference) <= most and self.alone <= most

    @property
    def ok(self) -> bool:
        """Whether the promise was kept, and funding is what the market paid."""
        return self.is_kept and not self.odd


def reckon(trades: TradeComparison, rules: Rules, purse: Purse) -> MoneyComparison:
    """Hold the profits of both sides against each other."""
    matched = [_of_both(couple, rules, purse) for couple in trades.matched]
    alone = [_of_one(lone, rules, purse) for lone in trades.alone]
    every = sorted((*matched, *alone), key=lambda each: each.trade.open_ms)
    of_both = _of_each(trades)
    return MoneyComparison(
        purse, sum(each.promised_money for each in every), sum(each.kept_money for each in every),
        tuple(every), _funding(of_both) if purse.payments else None,
        tuple(_odd(of_both, purse)),
    )  # fmt: skip


def _of_each(trades: TradeComparison) -> list[tuple[str, TradeFacts]]:
    """Every trade of both sides, and whose it is."""
    couples = [(who, facts) for couple in trades.matched
               for who, facts in ((BACKTEST, couple.backtest), (BOT, couple.replay))]  # fmt: skip
    return [*couples, *((lone.who, lone.trade) for lone in trades.alone)]


def _funding(trades: Sequence[tuple[str, TradeFacts]]) -> tuple[float, float]:
    booked = {BACKTEST: 0.0, BOT: 0.0}
    for who, trade in trades:
        booked[who] += 0.0 if trade.is_open else trade.funding or 0.0
    return booked[BACKTEST], booked[BOT]


def _odd(trades: Sequence[tuple[str, TradeFacts]], purse: Purse) -> Iterator[OddFunding]:
    """Closed trades of one entry and one exit, in which the payments due are not those booked."""
    for who, trade in trades:
        payments = purse.payments.get(trade.pair)
        if payments is None or trade.close_ms is None or (trade.orders or 0) > 2:
            continue
        sums, booked = _possible(trade, payments), trade.funding or 0.0
        least = 1e-5 * trade.amount * trade.open_rate
        if not any(abs(booked - due) <= _FUNDING_ALIKE * abs(due) + least for due in sums):
            yield OddFunding(who, trade, booked, sums[-1])


def _possible(trade: TradeFacts, payments: Sequence[Payment]) -> list[float]:
    """What funding may have brought: a payment at the moment of an entry or exit is one or none.

    The last is with all of them.
    """
    end_ms = trade.close_ms or 0
    parts = [
        (0.0, paid) if _is_close(at_ms, trade.open_ms) or _is_close(at_ms, end_ms) else (paid,)
        for at_ms, paid in _paid(trade, payments, end_ms + _CUTOFF_MS)
    ]
    return [sum(choice) for choice in product(*parts)]


def _is_close(one_ms: int, other_ms: int) -> bool:
    return abs(one_ms - other_ms) <= _CUTOFF_MS


def _paid(
    trade: TradeFacts, payments: Sequence[Payment], until_ms: float
) -> Iterator[tuple[int, float]]:
    """When funding was paid while a trade was open, and what it brought, stake currency."""
    side = 1.0 if trade.is_short else -1.0
    for at_ms, each in payments:
        if trade.open_ms - _CUTOFF_MS <= at_ms <= until_ms:
            yield at_ms, side * trade.amount * each


def _of_both(couple: MatchedTrade, rules: Rules, purse: Purse) -> TradeMoney:
    tested, made = couple.backtest, couple.replay
    position = max(_position(tested), _position(made))
    promised, kept = _money(tested, tested, purse), _money(made, tested, purse)
    reasons = frozenset((tested.exit_reason, made.exit_reason))
    why = _why(tested, made, rules, purse) + _of_funding(tested, made)
    return TradeMoney(tested, position, promised, kept, why, reasons)


def _of_one(lone: LoneTrade, rules: Rules, purse: Purse) -> TradeMoney:
    money = _money(lone.trade, lone.trade, purse)
    promised, kept = (money, 0.0) if lone.who == BACKTEST else (0.0, money)
    why = f"made by {lone.who} alone: {lone.cause.kind}, {lone.cause.text}"
    is_again = lone.who == BACKTEST and rules.candle(lone.trade.open_ms) != lone.trade.open_ms
    reasons = frozenset((_AGAIN if is_again else lone.trade.exit_reason,))
    position = _position(lone.trade)
    return TradeMoney(lone.trade, position, promised, kept, why, reasons, lone.who)


def _position(trade: TradeFacts) -> float:
    return trade.stake * trade.leverage


def _of_funding(tested: TradeFacts, made: TradeFacts) -> str:
    """What either side booked, where that is part of a difference."""
    shares = [(trade.funding or 0.0) / _position(trade) for trade in (tested, made)]
    if abs(shares[1] - shares[0]) < _FUNDING_TOLD:
        return ""
    return f"; of it funding {shares[0]:+.2%} promised, {shares[1]:+.2%} kept"


def _money(trade: TradeFacts, like: TradeFacts, purse: Purse) -> float:
    """Profit after fees in stake currency; what is open as if it were left now.

    At the price at which a backtest left its like in the end, so that both are priced alike; also
    if the bot left it since. What was given back in part was realized, and counts as it was.
    """
    in_the_end = like.exit_reason == _OF_THE_END and like.close_rate is not None
    is_later = in_the_end and (trade.close_ms or math.inf) > (like.close_ms or math.inf)
    if not trade.is_open and not is_later:
        if trade.profit is not None:
            return trade.profit
        if trade.profit_ratio is not None:
            return trade.profit_ratio * trade.stake
        return _ratio_at(trade, trade.close_rate) * trade.stake
    rate = like.close_rate if in_the_end else purse.last.get(trade.pair)
    realized = trade.profit or 0.0 if trade.is_open else 0.0
    until_ms = like.close_ms if in_the_end and like.close_ms is not None else math.inf
    paid = _paid(trade, purse.payments.get(trade.pair, ()), until_ms)
    funding = sum(each for at_ms, each in paid if at_ms > trade.open_ms)
    return realized + funding + _ratio_at(trade, rate) * trade.stake


def _ratio_at(trade: TradeFacts, rate: float | None) -> float:
    """Profit after fees as a fraction of the stake, if left at this price; NaN without one."""
    if rate is None:
        return math.nan
    side = -1.0 if trade.is_short else 1.0
    paid = trade.open_rate * (1.0 + side * (trade.fee_open or 0.0))
    got = rate * (1.0 - side * (trade.fee_close or 0.0))
    return side * (got / paid - 1.0) * trade.leverage


def _why(tested: TradeFacts, made: TradeFacts, rules: Rules, purse: Purse) -> str:
    """Where the two ended, and by what; empty where they ended alike."""
    ends = [_end(trade, purse.inside_exits and trade is made) for trade in (tested, made)]
    same_candle = (
        tested.close_ms is not None
        and made.close_ms is not None
        and rules.candle(tested.close_ms) == rules.candle(made.close_ms)
    )
    if same_candle and tested.exit_reason == made.exit_reason:
        prices = ", live ".join(f"{t.close_rate or math.nan:.8g}" for t in (tested, made))
        return f"{tested.exit_reason} in the same candle, at {prices}"
    return f"backtest: {ends[0]}; live: {ends[1]}"


def _end(trade: TradeFacts, moved_inside: bool) -> str:
    if trade.close_ms is None:
        return "still open"
    reason = trade.exit_reason or "no reason"
    text = f"{reason} at {utc_text(trade.close_ms)}"
    if reason == _BY_FORECAST_INSIDE:
        return f"{text}, by a forecast inside the candle"
    if reason in _BY_PRICE:
        what = "a stop that forecasts inside the candle move" if moved_inside else "a price"
        return f"{text}, by {what} inside the candle"
    return f"{text}, by closed candles"
