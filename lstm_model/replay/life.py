"""One trade's life in words and numbers: why it was entered, with how much, and how it ended.

Everything is read: from what the bot wrote down with the trade, from freqtrade's own record of it,
and from the candles of the market. What is not known is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from lstm_model.market.candles import timeframe_ms
from lstm_model.replay.facts import ReplayFacts
from lstm_model.replay.trade_facts import TradeFacts, TradeLife
from lstm_model.trading.own_trades import EXITS

_BPS = 1e4
_MOVED = 1e-3  # chosen: of the price; freqtrade rounds a stop to a tick
_THEIR_EXITS = {  # freqtrade's own, in words
    "roi": "the profit that the ROI table asks for was there",
    "stop_loss": "the price came to the stop",
    "trailing_stop_loss": "the price came to the stop",  # also of one that stands still
    "exit_signal": "the strategy's exit signal",
    "force_exit": "by hand",
}


class Chapter(NamedTuple):
    """A part of a trade's life: its name, and what is told."""

    name: str
    text: str


def middle(lives: Sequence[TradeLife]) -> TradeLife | None:
    """The closed trade in the middle by profit, the lower one of two; None without any.

    Neither the best nor the worst, so that nobody has picked it to please.
    """
    closed = [
        (life.trade.profit_ratio, life.number, life)
        for life in lives
        if not life.trade.is_open and life.trade.profit_ratio is not None
    ]
    return sorted(closed)[(len(closed) - 1) // 2][2] if closed else None


def told(facts: ReplayFacts) -> list[Chapter]:
    """The life of `facts.life`; empty without it."""
    return [] if facts.life is None else list(_chapters(facts.life, facts))


def _chapters(life: TradeLife, facts: ReplayFacts) -> Iterator[Chapter]:
    trade = life.trade
    count = sum(not each.is_open for each in facts.trades)
    which = f"the middle one by profit of {count} closed" if count > 1 else "the only one closed"
    yield Chapter("trade", f"{trade.pair}, {trade.side}, number {life.number}: {which}")
    yield from _reasons(life, facts)
    tag = f" ({trade.enter_tag})" if trade.enter_tag else ""
    yield Chapter("entry", f"{_second(trade.open_ms)} UTC at {price_text(trade.open_rate)}{tag}")
    yield from _stake(life, facts)
    yield from _stop(life)
    yield from _course(life, facts)
    yield from _end(trade, facts)


def _reasons(life: TradeLife, facts: ReplayFacts) -> Iterator[Chapter]:
    """What the forecast said, and what that left after costs."""
    said, span = life.written.get("lstm_forecast"), life.written.get("lstm_interval")
    if not said or not span:
        return
    model = life.written.get("lstm_model", "")
    yield Chapter(
        "forecast",
        f"by model {model}, of the candle of {_minute(_opened_ms(said))}: "
        f"{said['mean_bps']:+.1f} bps in the next {said['horizon_candles']} candles, "
        f"{span['level']:.0%} between {span['low_bps']:+.1f} and {span['high_bps']:+.1f}",
    )
    side = -1 if life.trade.is_short else 1
    fees = _BPS * 2.0 * _fee(life.trade, facts)
    other = _BPS * facts.slippage_fraction
    edge = side * _BPS * math.expm1(said["mean_bps"] / _BPS) - fees - other
    yield Chapter(
        "edge",
        f"{edge:+.1f} bps, after {fees + other:.1f} for the round trip (fees {fees:.1f}, expected "
        f"slippage and spread {other:.1f})",
    )


def _stake(life: TradeLife, facts: ReplayFacts) -> Iterator[Chapter]:
    """How much, and which bound decided."""
    said = life.written.get("lstm_stake")
    text = f"{life.trade.stake:,.2f} {facts.stake_currency}"
    if said:
        detail = said["text"].partition(": ")[2]
        bound = f", bounded by {said['bound']}" if said.get("bound", detail) != detail else ""
        text += f"{bound}: {detail}"
    yield Chapter("stake", text)


def _stop(life: TradeLife) -> Iterator[Chapter]:
    """Where it stood, and where it came from."""
    said = life.written.get("lstm_stop")
    if not said:
        return
    distance = f"{_BPS * said['distance']:.0f} bps from the entry"
    text = f"{price_text(said['rate'])}, {distance}, {_origin(said)}"
    if life.stop is not None and abs(life.stop / said["rate"] - 1.0) > _MOVED:
        text += f"; at the end it stood at {price_text(life.stop)}"
    yield Chapter("stop", text)


def _origin(said: Mapping[str, Any]) -> str:
    if not said.get("reach"):
        return "the strategy's stoploss: there was no stop by the forecast"
    if said.get("is_hard") or "forecasts" in said:
        return "the strategy's stoploss: the forecast's would be farther away"
    return (
        f"by the forecast: {_BPS * said['reach']:.0f} bps from the candle's close, which few "
        "horizons are expected to reach"
    )


def _course(life: TradeLife, facts: ReplayFacts) -> Iterator[Chapter]:
    """How the price went: while the trade was open, and until the forecast came due."""
    if life.lowest is not None and life.highest is not None:
        parts = (
            f"{name} {price_text(rate)} ({_move(life.trade, rate):+.0f} bps)"
            for name, rate in (("lowest", life.lowest), ("highest", life.highest))
        )
        yield Chapter("price", f"as the bot saw it: {', '.join(parts)}")
    if outcome := _outcome(life, facts):
        yield Chapter("outcome", outcome)


def _outcome(life: TradeLife, facts: ReplayFacts) -> str:
    """Whether the forecast came true."""
    said, span = life.written.get("lstm_forecast"), life.written.get("lstm_interval")
    if not said or not span:
        return ""
    step_ms, closes = timeframe_ms(facts.timeframe), dict(facts.prices.get(life.trade.pair, ()))
    closed_ms = _opened_ms(said) + step_ms
    due_ms = closed_ms + said["horizon_candles"] * step_ms
    close, due = closes.get(closed_ms), closes.get(due_ms)
    if not close or not due:
        return ""
    realized = _BPS * math.log(due / close)
    inside = span["low_bps"] <= realized <= span["high_bps"]
    return (
        f"at {_minute(due_ms)}, when the forecast was due, {realized:+.1f} bps from the candle's "
        f"close: {'inside' if inside else 'OUTSIDE'} the interval"
    )


def _end(trade: TradeFacts, facts: ReplayFacts) -> Iterator[Chapter]:
    if trade.close_ms is None or trade.close_rate is None:
        yield Chapter("exit", "still open")
        return
    reason = trade.exit_reason
    meaning = {**_THEIR_EXITS, **EXITS}.get(reason, "")
    minutes = (trade.close_ms - trade.open_ms) / 60_000
    yield Chapter(
        "exit",
        f"{_second(trade.close_ms)} UTC at {price_text(trade.close_rate)}, after {minutes:.0f} "
        f"min: {reason or 'no reason given'}{', ' if meaning else ''}{meaning}",
    )
    if trade.profit_ratio is not None and trade.profit is not None:
        fees = _BPS * ((trade.fee_open or 0.0) + (trade.fee_close or 0.0))
        yield Chapter(
            "profit",
            f"{trade.profit:+,.2f} {facts.stake_currency} ({trade.profit_ratio:+.2%}): the price's "
            f"{_move(trade, trade.close_rate):+.1f} bps, less {fees:.1f} of fees",
        )


def _move(trade: TradeFacts, rate: float) -> float:
    """From the entry, in bps; above 0 is in the trade's favour."""
    return (-1 if trade.is_short else 1) * _BPS * (rate / trade.open_rate - 1.0)


def _fee(trade: TradeFacts, facts: ReplayFacts) -> float:
    return facts.fee_fraction if trade.fee_open is None else trade.fee_open


def _opened_ms(said: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(said["candle"]).timestamp() * 1000)


def _second(date_ms: int) -> str:
    return f"{datetime.fromtimestamp(date_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _minute(date_ms: int) -> str:
    return f"{datetime.fromtimestamp(date_ms / 1000, UTC):%H:%M}"


def decimals(size: float) -> int:
    """Decimals that give an amount of this size five digits or more: two for USDT, more for BTC."""
    return min(max(4 - math.floor(math.log10(size)), 2), 12) if size > 0.0 else 2


def price_text(price: float) -> str:
    """A price with five digits or more.

    Examples
    --------
    >>> price_text(74_887.65), price_text(0.012)
    ('74,887.65', '0.012000')
    """
    return f"{price:,.{decimals(price)}f}"
