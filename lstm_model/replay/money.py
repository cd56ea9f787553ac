"""What a backtest promised and what the bot kept, in money: trade by trade, and in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lstm_model.market.candles import utc_text
from lstm_model.replay.accounts import Rules
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.replay.trades import BACKTEST, LoneTrade, MatchedTrade, TradeComparison

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


class Purse(NamedTuple):
    """What profits are reckoned by.

    Attributes
    ----------
    wallet : with which both began, in stake currency
    last : pair -> price at the window's end, for trades that are open then
    tolerance : difference of profits that fills may make: of a trade as a fraction of its stake, in
        all as a fraction of the wallet
    inside_exits : whether forecasts inside the candle moved stops and ended trades of the bot
    """

    wallet: float
    last: Mapping[str, float]
    tolerance: float
    inside_exits: bool


@dataclass(frozen=True)
class TradeMoney:
    """One trade: the profit promised and the profit kept, after fees.

    Attributes
    ----------
    trade : of the backtest, or of the bot where it alone made one
    stake : the larger of the two sides'
    promised_money, kept_money : profit after fees in stake currency; 0.0 where that side made no
        such trade, NaN where no price is known
    why : where it ended, by which rule and by what was known, on either side
    reasons : of the exits of both
    made_by : the side that alone made it, "" for both
    """

    trade: TradeFacts
    stake: float
    promised_money: float
    kept_money: float
    why: str
    reasons: frozenset[str] = frozenset()
    made_by: str = ""

    @property
    def promised(self) -> float:
        """As a fraction of the stake."""
        return self.promised_money / self.stake

    @property
    def kept(self) -> float:
        """As a fraction of the stake."""
        return self.kept_money / self.stake

    @property
    def money(self) -> float:
        """Kept less promised, in stake currency."""
        return self.kept_money - self.promised_money

    @property
    def difference(self) -> float:
        """Kept less promised, as a fraction of the stake."""
        return self.money / self.stake


@dataclass(frozen=True)
class MoneyComparison:
    """All trades of both.

    Attributes
    ----------
    promised, kept : profit of all trades, open ones at the last price, in stake currency
    """

    purse: Purse
    promised: float
    kept: float
    trades: tuple[TradeMoney, ...]

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
    def ok(self) -> bool:
        """Whether the bot kept what the backtest promised: trade by trade, and in all."""
        most = self.purse.tolerance
        return not self.broken and abs(self.difference) <= most and self.alone <= most


def reckon(trades: TradeComparison, rules: Rules, purse: Purse) -> MoneyComparison:
    """Hold the profits of both sides against each other."""
    matched = [_of_both(couple, rules, purse) for couple in trades.matched]
    alone = [_of_one(lone, rules, purse) for lone in trades.alone]
    every = sorted((*matched, *alone), key=lambda each: each.trade.open_ms)
    return MoneyComparison(
        purse, sum(each.promised_money for each in every), sum(each.kept_money for each in every),
        tuple(every),
    )  # fmt: skip


def _of_both(couple: MatchedTrade, rules: Rules, purse: Purse) -> TradeMoney:
    tested, made = couple.backtest, couple.replay
    stake = max(tested.stake, made.stake)
    promised, kept = _money(tested, tested, purse), _money(made, tested, purse)
    reasons = frozenset((tested.exit_reason, made.exit_reason))
    return TradeMoney(tested, stake, promised, kept, _why(tested, made, rules, purse), reasons)


def _of_one(lone: LoneTrade, rules: Rules, purse: Purse) -> TradeMoney:
    money = _money(lone.trade, lone.trade, purse)
    promised, kept = (money, 0.0) if lone.who == BACKTEST else (0.0, money)
    why = f"made by {lone.who} alone: {lone.cause.kind}, {lone.cause.text}"
    is_again = lone.who == BACKTEST and rules.candle(lone.trade.open_ms) != lone.trade.open_ms
    reasons = frozenset((_AGAIN if is_again else lone.trade.exit_reason,))
    return TradeMoney(lone.trade, lone.trade.stake, promised, kept, why, reasons, lone.who)


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
    return realized + _ratio_at(trade, rate) * trade.stake


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
