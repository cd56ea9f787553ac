"""Trades as ccxt tells them, checked at the door and put on the tapes. No input or output.

The path of one trade, from the parsed frame to the tape, is `Track.take`; it runs tens of
thousands of times a second, so it is written out instead of being nicely divided.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lstm_model.market.candles import TRADE, Records
from lstm_model.market.continuity import in_a_row
from lstm_model.market.tape import TradeTape
from lstm_model.stream.customs import Customs, RawTrade

logger = logging.getLogger(__name__)

_AHEAD_MS = 60_000  # chosen: a trade that far in the exchange's future is a broken one
_JUMP_NS = 3_000_000_000  # chosen: no tick is that late unless the clock has jumped
_BEHIND_MS = 86_400_000  # chosen: snapshots of very thin pairs may be hours old
_LONGEST_BURST_NS = 10_000_000  # chosen: ccxt drains up to 2,000 frames, 50 ms, without a pause
_CLOCK_TICKS = 300  # chosen: five minutes; clocks drift apart by less than a millisecond meanwhile
_LARGEST_ID = 2**63 - 1
_LATEST_MS = 4_102_444_800_000  # chosen: the year 2100
_MOST_IN_ONE = 100_000  # chosen: trades that an aggregate stands for


def trade_number(name: Any) -> int:
    """A trade's id as an integer: itself if decimal, otherwise a hash that stays the same.

    Examples
    --------
    >>> trade_number("3812"), trade_number("a-7") == trade_number("a-7")
    (3812, True)

    Raises
    ------
    ValueError
        For no id at all.
    """
    text = str(name) if name is not None else ""
    if text.isdecimal() and (number := int(text)) <= _LARGEST_ID:
        return number
    if not text:
        raise ValueError("a trade without an id")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def has_numbers(trades: Iterable[RawTrade]) -> bool:
    """Whether the ids of these trades are plain numbers."""
    return all(str(trade.get("id")).isdecimal() for trade in trades)


def records(trades: Iterable[RawTrade], customs: Customs, received_ns: int) -> Records:
    """(N,) TRADE of trades in ccxt's form, in order of time and id; unusable ones are left out.

    One of Binance's aggregates becomes the trades it stands for, `f` to `l`: their number, time,
    price and side are exact, their amounts an equal share of the aggregate's.
    """
    rows = [row for trade in trades for row in _rows(trade, customs, received_ns)]
    rows.sort(key=lambda row: (row[1], row[0]))
    return np.array(_with_sides(rows), TRADE)


def is_readable(trade: RawTrade, customs: Customs) -> bool:
    """Whether it is one of those that `records` takes, or says that nothing was traded."""
    return bool(_rows(trade, customs, 0)) or trade.get("amount") == 0.0


def _rows(trade: RawTrade, customs: Customs, received_ns: int) -> list[tuple[Any, ...]]:
    try:
        time_ms, price, amount = int(trade["timestamp"]), float(trade["price"]), trade["amount"]
        first, last = _ids(trade)
        share = float(amount) / (last - first + 1)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return []
    if not (0.0 < price < math.inf and 0.0 < share < math.inf and 0 < time_ms < _LATEST_MS):
        return []
    if last - first >= _MOST_IN_ONE or not 0 <= first <= last <= _LARGEST_ID:
        return []
    side = trade.get("side")
    taker_buy = None if side is None else (side == "buy") != customs.maker_side
    return [
        (number, time_ms, received_ns, price, share, taker_buy) for number in range(first, last + 1)
    ]


def _with_sides(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Where no side was told, the tick rule: who lifts the price buys, who lowers it sells."""
    told, last_price, taker_buy = [], 0.0, True
    for *trade, price, amount, side in rows:
        if side is not None:
            taker_buy = side
        elif price != last_price:
            taker_buy = price > last_price
        last_price = price
        told.append((*trade, price, amount, taker_buy))
    return told


def _ids(trade: RawTrade) -> tuple[int, int]:
    info = trade.get("info")
    if isinstance(info, dict) and "f" in info and "l" in info:
        return int(info["f"]), int(info["l"])
    number = trade_number(trade["id"])
    return number, number


class ExchangeClock:
    """How far the exchange's clock is ahead of ours, from what trades say and when they came.

    A trade cannot be received before it happened, so every trade bounds the offset from below,
    and the largest bound of the last minutes is off by the shortest journey only. The largest
    but one is taken, so that a single trade from the future moves nothing.

    Examples
    --------
    >>> clock = ExchangeClock()
    >>> for delta_ms in (2_990, 2_995, 9_000, 2_996):
    ...     clock.best_ms = delta_ms
    ...     clock.tick()
    >>> clock.offset_ms
    2996
    """

    def __init__(self) -> None:
        self.best_ms: int | None = None  # largest bound since the last tick; written by Track.take
        self.offset_ms = 0
        self.lag_ms = 0
        self.measured = False
        self._bounds: deque[int] = deque(maxlen=_CLOCK_TICKS)

    def now_ms(self) -> int:
        """The time now by the exchange's clock."""
        return time.time_ns() // 1_000_000 + self.offset_ms

    def tick(self) -> None:
        """To be called about once a second."""
        if self.best_ms is None:
            self.lag_ms = 0
            return
        self._bounds.append(self.best_ms)
        self.offset_ms = sorted(self._bounds)[-2:][0]
        self.lag_ms = max(0, self.offset_ms - self.best_ms)
        self.best_ms, self.measured = None, True

    def plausible(self) -> tuple[int, int]:
        """Times (ms) between which a trade that comes now can have happened."""
        now_ms = time.time_ns() // 1_000_000
        if not self.measured:
            return 0, now_ms + _BEHIND_MS
        # A recording is played back at any pace, so the past is no limit to what comes next.
        return now_ms + self.offset_ms - _BEHIND_MS, now_ms + max(0, self.offset_ms) + _AHEAD_MS


def log_failure(task: asyncio.Task[Any]) -> None:
    """For a task that nobody waits for: that it failed is an error of ours."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("Trade stream: %s has failed", task.get_coro(), exc_info=error)


class TradeFeed:
    """What all pairs share on the way from frame to tape.

    Parameters
    ----------
    on_trades : called after each burst of frames, with the pairs that got new trades
    soon : schedules a call for when the frames that have already arrived are through

    Attributes
    ----------
    received_ns, heard_s : wall and monotonic clock when the frame in work was received
    broken_frames : frames that could not be understood
    untold_ns : when the oldest trade of the burst was received that `on_trades` hears of next
    """

    def __init__(
        self,
        on_trades: Callable[[set[str]], None] | None,
        soon: Callable[[Callable[[], None]], Any],
    ) -> None:
        self.clock = ExchangeClock()
        self.customs = Customs()
        self.received_ns, self.untold_ns, self.heard_s = 0, 0, 0.0
        self._telling = self._in_frame = False
        self.broken_frames = 0
        self._on_trades, self._soon = on_trades, soon
        self._touched: set[str] = set()
        self.tick()

    def tick(self) -> None:
        """To be called about once a second."""
        self.clock.tick()
        self.oldest_ms, self.latest_ms = self.clock.plausible()
        self._stale_ns = time.time_ns() + _JUMP_NS

    def begin_frame(self) -> None:
        """A frame has been received and is about to be parsed."""
        self.received_ns, self.heard_s, self._in_frame = time.time_ns(), time.monotonic(), True
        if self.received_ns > self._stale_ns:  # the machine slept, or its clock was set
            self.tick()

    def touch(self, pair: str) -> None:
        """A pair has a new trade."""
        if not self._touched:
            self.untold_ns = self.received_ns if self._in_frame else time.time_ns()
            self._soon(self._tell)
        self._touched.add(pair)

    def end_frame(self) -> None:
        """A frame has been parsed; where many have piled up, tell before all of them are."""
        if self._touched and self.received_ns - self.untold_ns > _LONGEST_BURST_NS:
            self._tell()
        self._in_frame = False

    def blame(self) -> bool:
        """Was it `on_trades` that has just failed, and nothing else suffered from it?"""
        alone = self._telling and not self._in_frame
        self._telling = self._in_frame = False
        return alone

    def _tell(self) -> None:
        touched, self._touched = self._touched, set()
        if touched and self._on_trades is not None:
            self._telling = True  # stays so when it raises
            self._on_trades(touched)
            self._telling = False


class Track:
    """One pair on its way: its tape, and what is known about its liveliness.

    Attributes
    ----------
    taken : trades that came over the websocket, duplicates included
    heard_s : monotonic time of the last one
    told_ms : exchange time of the newest of them; the tape may hold newer ones, of REST
    resumed_ms : exchange time from which on it is followed, as far as our clock knew then
    caught_ms : exchange time of the newest trade that REST told of what was before; None until then
    began_s, filled : when it was first followed; whether REST has told what was before
    proven_s : monotonic time at which REST last confirmed that there was nothing newer
    """

    def __init__(self, pair: str, tape: TradeTape, feed: TradeFeed) -> None:
        self.pair, self.tape, self.feed = pair, tape, feed
        self.taken = self.told_ms = self.resumed_ms = 0
        self.caught_ms: int | None = None
        self.heard_s = self.proven_s = -math.inf
        self.began_s, self.filled = math.inf, False
        self.price, self.taker_buy = 0.0, True

    def take(self, trade: RawTrade) -> None:
        """One trade from the websocket, in ccxt's form."""
        feed = self.feed
        try:
            name, time_ms = trade["id"], trade["timestamp"]
            price, amount = trade["price"] + 0.0, trade["amount"] + 0.0
            number = name if type(name) is int else trade_number(name)
            usable = feed.oldest_ms < time_ms < feed.latest_ms and 0 <= number <= _LARGEST_ID
        except (KeyError, TypeError, ValueError):
            usable = False
        if not usable:
            self._take_other(trade)
            return
        if (side := trade.get("side")) is not None:
            self.taker_buy = (side == "buy") != feed.customs.maker_side
        elif price != self.price:  # no side told: the tick rule
            self.taker_buy = price > self.price
        self.price, self.heard_s = price, feed.heard_s
        self.taken += 1
        if time_ms > self.told_ms:
            self.told_ms = time_ms
        if not self.tape.append(number, time_ms, feed.received_ns, price, amount, self.taker_buy):
            return
        delta_ms = time_ms - feed.received_ns // 1_000_000
        best_ms = feed.clock.best_ms
        if best_ms is None or delta_ms > best_ms:
            feed.clock.best_ms = delta_ms
        feed.touch(self.pair)

    def _take_other(self, trade: RawTrade) -> None:
        """What is no trade: an id that is used up, else something broken."""
        feed, number, time_ms = self.feed, trade.get("id"), trade.get("timestamp", 0)
        known = type(number) is int and 0 <= number <= _LARGEST_ID and trade.get("void")
        if number is not None and known and feed.oldest_ms < time_ms < feed.latest_ms:
            self.heard_s = feed.heard_s
            self.tape.skip(number, time_ms)
        else:
            self.tape.append(0, 0, 0, math.nan, math.nan, False)  # which counts it as rejected

    def resume(self, now_ms: int) -> None:
        """The pair is followed from now on, for the first time or again."""
        self.resumed_ms, self.caught_ms = now_ms, None
        if self.began_s == math.inf:
            self.began_s = time.monotonic()
            self.tape.watch_from(now_ms)
        else:
            self.tape.resume(now_ms)

    def pause(self) -> None:
        """The pair is not followed for a while."""
        if self.began_s != math.inf:
            # Of two clocks the earlier: a gap that begins too early costs a request, no trade.
            begun_ms = min(self.resumed_ms, self.begun_ms or self.resumed_ms)
            self.tape.interrupt(max(self.told_ms, begun_ms))

    @property
    def begun_ms(self) -> int:
        """Exchange time after which the websocket has to tell all; REST knows it best."""
        return self.resumed_ms if self.caught_ms is None else self.caught_ms

    def learn(self) -> None:
        """Find out how ids are given even if REST does not answer: from trades without a jump."""
        tape = self.tape
        if tape.ids_consecutive is None and self.taken:
            newest = tape.trades(tape.last_time_ms - _AHEAD_MS, tape.last_time_ms + 1)
            if in_a_row(newest["id"]):
                tape.ids_consecutive = True

    def quiet_s(self, now_s: float) -> float:
        """Seconds since the last trade or proof that there was none."""
        return now_s - max(self.heard_s, self.proven_s)

    def pace_s(self) -> float:
        """Mean seconds between trades, infinite while too few are known to say."""
        if self.taken < 50:  # chosen
            return math.inf
        return (self.heard_s - self.began_s) / self.taken
