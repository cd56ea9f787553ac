"""Two accounts of the same market: the trades of a backtest, and those of a bot.

They are paired by pair, side and time of entry. What differs within a pair of trades is listed; a
trade that only one of the two made gets a cause, from what the other did at that candle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from lstm_model.market.candles import utc_text
from lstm_model.replay.accounts import Account, Rules
from lstm_model.replay.forecasts import ForecastComparison, Place
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.store.journal_rows import VerdictRow
from lstm_model.trading.sizing import (
    ENTER_LONG,
    ENTER_SHORT,
    NO_MODEL,
    REASONS,
    STALE_MODEL,
    STALE_STREAM,
)

BACKTEST, BOT = "the backtest", "the bot"

# Kinds of a cause.
BY_HAND = "entered by hand"
WINDOW_OVER = "the window was over"
TOO_EARLY = "before the first forecast"
OTHER_TRADE = "another trade was open"
LEFT_INSIDE = "exit inside the candle"
FULL = "max_open_trades"
LOCKED = "protection"
VETOED = "vetoed inside the candle"
NO_STAKE = "stake 0"
OTHER_FORECAST = "the forecast differs"
NO_FORECAST = "no fresh forecast"
UNEXPLAINED = "unexplained"

_ENTRIES = (ENTER_LONG, ENTER_SHORT)
_BY_HAND_TAG = "force_entry"  # freqtrade's own
_LEFT_OPEN = "force_exit"  # how a backtest ends trades that are left
_VETO_TEXT = "vetoed"  # how `LSTMRisk` begins the text of a veto
_STAKE_TEXT = "stake"  # and that of a stake of nothing
# Exits that need no candle to close; the first is the strategy's own, the others freqtrade's.
_INSIDE = (
    "lstm_turned_inside", "stop_loss", "trailing_stop_loss", "stoploss_on_exchange", "roi",
    "liquidation", "emergency_exit",
)  # fmt: skip
_BPS = 1e4


class TradeDifference(NamedTuple):
    """What is not alike in two trades that belong together."""

    name: str
    text: str


@dataclass(frozen=True)
class MatchedTrade:
    """The same trade in both accounts."""

    backtest: TradeFacts
    replay: TradeFacts
    differences: tuple[TradeDifference, ...]


class Cause(NamedTuple):
    """Why only one side made a trade."""

    kind: str
    text: str


@dataclass(frozen=True)
class LoneTrade:
    """A trade that only one side made, and why the other did not."""

    who: str
    trade: TradeFacts
    cause: Cause


@dataclass(frozen=True)
class TradeComparison:
    """All trades of both, in the order of time."""

    matched: tuple[MatchedTrade, ...]
    alone: tuple[LoneTrade, ...]

    @property
    def unexplained(self) -> tuple[LoneTrade, ...]:
        """The trades of one side for which no cause was found."""
        return tuple(lone for lone in self.alone if lone.cause.kind == UNEXPLAINED)

    @property
    def ok(self) -> bool:
        """Whether every trade has its like or a cause."""
        return not self.unexplained


def compare_trades(
    backtest: Account, replay: Account, forecasts: ForecastComparison, rules: Rules
) -> TradeComparison:
    """Pair up the trades of both, and find a cause for each that has no like."""
    couples = match_trades(backtest.trades, replay.trades, rules.step_ms)
    differing = forecasts.differences()
    replayed = dict(couples)
    tested = {theirs: mine for mine, theirs in couples}
    cases = [
        (who, _Case(trade, other, likes, differing.keys(), rules))
        for who, mine, other, likes in (
            (BACKTEST, backtest, _Other(BOT, replay), replayed),
            (BOT, replay, _Other(BACKTEST, backtest), tested),
        )
        for trade in mine.trades
        if trade not in likes
    ]
    causes = _causes([case for _, case in cases])
    alone = [
        LoneTrade(who, case.trade, cause) for (who, case), cause in zip(cases, causes, strict=True)
    ]
    matched = [MatchedTrade(*couple, tuple(_differences(*couple, rules))) for couple in couples]
    return TradeComparison(tuple(matched), tuple(sorted(alone, key=lambda x: x.trade.open_ms)))


def match_trades(
    backtest: Sequence[TradeFacts], replay: Sequence[TradeFacts], step_ms: int
) -> list[tuple[TradeFacts, TradeFacts]]:
    """Trades of the same pair and side that were entered within one candle, the nearest first.

    Each belongs to one couple at most; the couples come in the order of time.
    """
    near = [
        (abs(mine.open_ms - theirs.open_ms), min(mine.open_ms, theirs.open_ms), mine, theirs)
        for mine, theirs in product(backtest, replay)
        if (mine.pair, mine.side) == (theirs.pair, theirs.side)
        and abs(mine.open_ms - theirs.open_ms) <= step_ms
    ]
    couples: list[tuple[TradeFacts, TradeFacts]] = []
    taken: set[TradeFacts] = set()
    for _, _, mine, theirs in sorted(near, key=lambda found: found[:2]):
        if not taken & {mine, theirs}:
            couples.append((mine, theirs))
            taken |= {mine, theirs}
    return sorted(couples, key=lambda couple: (couple[0].open_ms, couple[0].pair))


def _differences(
    backtest: TradeFacts, replay: TradeFacts, rules: Rules
) -> Iterator[TradeDifference]:
    if backtest.open_rate != replay.open_rate:
        yield TradeDifference("entry price", _prices(backtest.open_rate, replay.open_rate))
    if backtest.stake != replay.stake:
        text = f"{backtest.stake:.8g}, live {replay.stake:.8g}"
        yield TradeDifference("stake", text)
    if replay.close_ms is None or backtest.close_ms is None:
        yield from _left_open(backtest, replay)
        return
    if backtest.exit_reason != replay.exit_reason:
        text = f"{backtest.exit_reason or 'none'}, live {replay.exit_reason or 'none'}"
        yield TradeDifference("exit reason", text)
    candles = (rules.candle(replay.close_ms) - rules.candle(backtest.close_ms)) // rules.step_ms
    if candles:
        when = "later" if candles > 0 else "earlier"
        yield TradeDifference("exit candle", f"live {abs(candles)} candle(s) {when}")
    if backtest.close_rate and replay.close_rate and backtest.close_rate != replay.close_rate:
        yield TradeDifference("exit price", _prices(backtest.close_rate, replay.close_rate))
    if (backtest.funding or 0.0) != (replay.funding or 0.0):
        text = f"{backtest.funding or 0.0:+.4f}, live {replay.funding or 0.0:+.4f}"
        yield TradeDifference("funding", text)
    mine, theirs = backtest.profit_ratio, replay.profit_ratio
    if mine is not None and theirs is not None and mine != theirs:
        yield TradeDifference("profit", f"{mine:+.3%}, live {theirs:+.3%}")


def _left_open(backtest: TradeFacts, replay: TradeFacts) -> Iterator[TradeDifference]:
    if replay.close_ms is None and backtest.exit_reason == _LEFT_OPEN:
        yield TradeDifference("still open at the end", "the backtest closes what is left")
    elif replay.close_ms != backtest.close_ms:
        who = "live" if replay.close_ms is None else "in the backtest"
        reason = backtest.exit_reason or replay.exit_reason
        yield TradeDifference("exit reason", f"still open {who}, else left by {reason}")


def _prices(mine: float, theirs: float) -> str:
    return f"{mine:.8g}, live {theirs:.8g} ({_BPS * (theirs / mine - 1.0):+.1f} bps)"


class _Other(NamedTuple):
    """The side that did not make a trade."""

    name: str
    account: Account


class _Case(NamedTuple):
    """A trade without its like, and all that may be the cause.

    `likes` has, of all trades of its side, those of the other that they belong to; `explained` the
    trades without a like, of either side, whose cause is known.
    """

    trade: TradeFacts
    other: _Other
    likes: Mapping[TradeFacts, TradeFacts]
    differing: Collection[Place]
    rules: Rules
    explained: Collection[TradeFacts] = ()

    def is_reason(self, held: TradeFacts) -> bool:
        """Whether a trade of the other side may be a reason why that did not make this one.

        One of the same candle might give this one as its reason: it needs a like or a cause.
        """
        is_earlier = self.rules.candle(held.open_ms) < self.rules.candle(self.trade.open_ms)
        return is_earlier or held in self.likes.values() or held in self.explained

    @property
    def words(self) -> tuple[VerdictRow, ...]:
        """What the other side said of the candle that led to the entry."""
        place = (self.trade.pair, self.rules.known_at(self.trade))
        return self.other.account.words.get(place, ())


def _causes(cases: Sequence[_Case]) -> list[Cause]:
    """The cause of each; that another trade stood in its way is one only if that has a cause."""
    causes: dict[int, Cause] = {}
    while True:
        explained = {cases[number].trade for number in causes}
        left = ((n, case) for n, case in enumerate(cases) if n not in causes)
        found = {n: _cause(case._replace(explained=explained)) for n, case in left}
        new = {n: cause for n, cause in found.items() if cause is not None}
        if not new:
            return [causes.get(n) or _none(case) for n, case in enumerate(cases)]
        causes |= new


def _cause(case: _Case) -> Cause | None:
    """The first that applies, from the plainest to the most particular."""
    checks = (
        _by_hand, _outside, _is_held, _is_full, _is_locked, _is_refused, _is_foretold_otherwise,
        _has_no_forecast,
    )  # fmt: skip
    causes = (check(case) for check in checks)
    return next((cause for cause in causes if cause is not None), None)


def _by_hand(case: _Case) -> Cause | None:
    if case.trade.enter_tag == _BY_HAND_TAG:
        return Cause(BY_HAND, "/forcelong, /forceshort or the REST API")
    return None


def _outside(case: _Case) -> Cause | None:
    """Whether the other side had not begun, or enters nothing any more.

    A backtest enters nothing in its last candle.
    """
    rules, first_ms = case.rules, case.other.account.first_ms.get(case.trade.pair)
    if rules.candle(case.trade.open_ms) >= rules.end_ms - rules.step_ms:
        return Cause(WINDOW_OVER, f"{case.other.name} enters nothing in the last candle")
    if first_ms is None:
        return Cause(TOO_EARLY, f"{case.other.name} has no forecast of {case.trade.pair} at all")
    if rules.known_at(case.trade) < first_ms:
        text = f"the first candle {case.other.name} could enter by opened at {utc_text(first_ms)}"
        return Cause(TOO_EARLY, text)
    return None


def _is_held(case: _Case) -> Cause | None:
    """Whether the other side had a trade of the pair, and why this side had none any more."""
    trade, rules = case.trade, case.rules
    for held in case.other.account.trades:
        in_the_way = held.pair == trade.pair and rules.holds(held, trade.open_ms)
        if not in_the_way or not case.is_reason(held):
            continue
        text = f"{case.other.name} held its {held.side} trade of {utc_text(held.open_ms)}"
        like = next((mine for mine, theirs in case.likes.items() if theirs == held), None)
        if like is None or like.close_ms is None:
            return Cause(OTHER_TRADE, text)
        reason = like.exit_reason
        text += f"; here it was left at {utc_text(like.close_ms)} by {reason or 'no reason'}"
        return Cause(LEFT_INSIDE if reason in _INSIDE else OTHER_TRADE, text)
    return None


def _is_full(case: _Case) -> Cause | None:
    """Whether the other side had no room. A bot leaves first and then enters; a backtest takes one
    pair after the other."""
    most, at_ms, rules = case.rules.max_open_trades, case.trade.open_ms, case.rules
    leaves_first = case.other.name == BOT
    count = sum(
        rules.holds(held, at_ms)
        and not (leaves_first and rules.leaves(held, at_ms))
        and case.is_reason(held)
        for held in case.other.account.trades
    )
    if 0 < most <= count:
        return Cause(FULL, f"{case.other.name} held {count} of at most {most:g} trades")
    return None


def _is_locked(case: _Case) -> Cause | None:
    for lock in case.other.account.locks:
        if lock.forbids(case.trade):
            text = f"{case.other.name} had {lock.pair} locked until {utc_text(lock.end_ms)}"
            return Cause(LOCKED, f"{text}: {lock.reason}")
    return None


def _is_refused(case: _Case) -> Cause | None:
    """Whether the other side had the signal too, but staked nothing or vetoed it."""
    for word in reversed(case.words):
        if word.text.startswith(_VETO_TEXT):
            return Cause(VETOED, f"{case.other.name}: {word.reason}, {_meaning(word)}")
        if word.text.startswith(_STAKE_TEXT):
            return Cause(NO_STAKE, f"{case.other.name}: {word.reason}, {word.text}")
    return None


def _is_foretold_otherwise(case: _Case) -> Cause | None:
    candle_ms = case.rules.known_at(case.trade)
    if (case.trade.pair, candle_ms) in case.differing:
        text = f"that of {utc_text(candle_ms)} is not the same in the backtest and the journal"
        return Cause(OTHER_FORECAST, text)
    return None


def _has_no_forecast(case: _Case) -> Cause | None:
    for word in case.words:
        if word.reason in (NO_MODEL, STALE_MODEL, STALE_STREAM):
            return Cause(NO_FORECAST, f"{case.other.name}: {word.reason}, {_meaning(word)}")
    return None


def _none(case: _Case) -> Cause:
    """What is known of a trade for which there is no cause."""
    said = [word.reason for word in case.words]
    if instead := _instead(case):
        text = f"{case.other.name} entered {instead.side} in that candle, by the same forecast"
    elif any(code in _ENTRIES for code in said):
        text = f"{case.other.name} had the signal too, but no order was filled: see the log"
    elif said:
        text = f"{case.other.name} had no signal ({', '.join(said)}), though the forecast is alike"
    else:
        text = f"nothing is known of what {case.other.name} did at that candle"
    return Cause(UNEXPLAINED, text)


def _instead(case: _Case) -> TradeFacts | None:
    """What the other side entered of the pair in the same candle."""
    candle_ms = case.rules.candle(case.trade.open_ms)
    return next(
        (
            held for held in case.other.account.trades
            if held.pair == case.trade.pair and case.rules.candle(held.open_ms) == candle_ms
        ),
        None,
    )  # fmt: skip


def _meaning(word: VerdictRow) -> str:
    return REASONS.get(word.reason, word.text)
