"""When a bot that looks every few seconds would have seen something, between two looks of a replay.

A replay looks once in a longer while, since nothing happens between most looks. But the price may
pass a stop meanwhile. So while a trade is open, a look is early where the price passes its stop,
its ROI or the price of an order, and where it is better than ever since the entry: there a stop
that trails follows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lstm_model.practice.tape_market import Listing, Trades

MOVED_BPS = 10.0  # chosen: a stop that trails lags by no more
TURNED_BPS = 1.0  # chosen: a top that is left again is seen if it is at least as far
_MINUTE_MS = 60_000
_SECOND_MS = 1_000  # a replay moves in whole seconds


@dataclass(frozen=True)
class Held:
    """What is open in a pair; prices in ticks.

    Attributes
    ----------
    tape : the pair's trades in the market, those to come included
    levels : prices that would end it
    best : the best price that a look has seen since the entry
    side : 1 if a higher price is better, else -1
    turn_ms : when its ROI changes next
    """

    tape: Trades
    levels: tuple[float, ...]
    best: float
    side: int = 1
    turn_ms: float = math.inf


def held_in(listing: Listing, trade: Any, strategy: Any, now_ms: int) -> Held:
    """A trade of freqtrade's with the prices of its orders, its stop, and its ROI now."""
    quoted, side = listing.instrument, -1 if trade.is_short else 1
    unit = 10.0**quoted.price_decimals

    def beyond(price: float, way: int) -> float:
        """In ticks, and so far beyond that the other side of the book is there."""
        return price * unit + way * quoted.spread_ticks(round(price * unit))

    levels = [
        beyond(order.price, 1 if order.side == "sell" else -1)
        for order in trade.open_orders if order.price
    ]  # fmt: skip
    if not trade.has_open_position:
        return Held(listing.trades, tuple(levels), side * math.inf, side)
    if trade.stop_loss:
        levels.append(trade.stop_loss * unit)
    roi, turn_ms = _roi(trade, strategy, now_ms)
    if roi is not None:
        levels.append(beyond(trade.calc_close_rate_for_roi(roi), side))
    best = (trade.min_rate if trade.is_short else trade.max_rate) or trade.open_rate
    return Held(listing.trades, tuple(levels), best * unit, side, turn_ms)


def _roi(trade: Any, strategy: Any, now_ms: int) -> tuple[float | None, float]:
    """By the table, and until when; what a callback decides is not asked for beside the bot."""
    if strategy.use_custom_roi:
        return None, math.inf
    now, opened_ms = datetime.fromtimestamp(now_ms / 1000, UTC), _ms(trade.open_date_utc)
    turns = (opened_ms + _MINUTE_MS * int(minutes) for minutes in strategy.minimal_roi)
    turn_ms = min((at_ms for at_ms in turns if at_ms > now_ms), default=math.inf)
    age = (now_ms - opened_ms) // _MINUTE_MS
    return strategy.min_roi_reached_entry(trade, age, now)[1], turn_ms


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def next_look(held: Iterable[Held], now_ms: int, until_ms: int) -> int:
    """When to look next, at the latest at `until_ms`; a second after now at the earliest.

    Examples
    --------
    The price is at 100.00 and the stop at 99.97; half a minute later it goes down:

    >>> tape = Trades(*(np.array(column) for column in (
    ...     [0, 30_000, 32_000, 34_000], [10_000, 9_999, 9_997, 9_995], [1, 1, 1, 1], [True] * 4
    ... )))
    >>> next_look([Held(tape, levels=(9_997.0,), best=10_000.0)], 1_000, 61_000)
    32000
    >>> next_look([], 1_000, 61_000)
    61000
    """
    moved = (_sees(each, now_ms, until_ms) for each in held)
    return min([until_ms, *(max(at_ms, now_ms + _SECOND_MS) for at_ms in moved)])


def _sees(held: Held, now_ms: int, until_ms: int) -> int:
    """When the price passes a level, is the best so far by enough, or the ROI changes."""
    tape, until_ms = held.tape, int(min(until_ms, held.turn_ms))
    first, end = tape.due(now_ms), tape.due(until_ms)
    if not 0 < first < end:
        return until_ms
    places = list(_places(tape.price[first:end], int(tape.price[first - 1]), held))
    return int(tape.time_ms[first + min(places)]) if places else until_ms


def _places(price: Any, begin: int, held: Held) -> Iterator[int]:
    better = held.side * price - max(held.side * held.best, held.side * begin)
    far = better * 1e4 >= MOVED_BPS * begin
    for level in held.levels:
        far |= price >= level if begin < level else price <= level if begin > level else False
    if far.any():
        yield int(np.argmax(far))
    top = int(np.argmax(better))
    if better[top] * 1e4 >= TURNED_BPS * begin and price[top] != price[-1]:
        yield top
