"""What a backtest or a bot did, in a form in which the two can be held against each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from lstm_model.market.candles import candle_open_ms
from lstm_model.replay.forecasts import Place
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.store.journal_rows import JournalRow, VerdictRow

_EVERY_PAIR, _BOTH_SIDES = "*", "*"


class Lock(NamedTuple):
    """A pair that may not be entered in `[start_ms, end_ms)`; pair and side may be `*`."""

    pair: str
    side: str
    start_ms: int
    end_ms: int
    reason: str

    @classmethod
    def of(cls, lock: Mapping[str, Any]) -> Lock:
        """From `PairLock.to_json()` of freqtrade."""
        return cls(
            str(lock["pair"]), str(lock["side"]), int(lock["lock_timestamp"]),
            int(lock["lock_end_timestamp"]), str(lock["reason"]),
        )  # fmt: skip

    def forbids(self, trade: TradeFacts) -> bool:
        """Whether it stands against this entry."""
        return (
            self.pair in (trade.pair, _EVERY_PAIR)
            and self.side in (trade.side, _BOTH_SIDES)
            and self.start_ms <= trade.open_ms < self.end_ms
        )


@dataclass(frozen=True)
class Account:
    """What one side did.

    Attributes
    ----------
    verdicts : what became of candles, in the order it was said
    first_ms : pair -> open of the first candle that could lead to an entry
    """

    trades: tuple[TradeFacts, ...]
    verdicts: tuple[VerdictRow, ...] = ()
    locks: tuple[Lock, ...] = ()
    first_ms: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def words(self) -> dict[Place, tuple[VerdictRow, ...]]:
        """What was said of each candle."""
        words: dict[Place, tuple[VerdictRow, ...]] = {}
        for verdict in sorted(self.verdicts, key=lambda verdict: verdict.created_ms):
            place = (verdict.pair, verdict.candle_ms)
            words[place] = (*words.get(place, ()), verdict)
        return words


def first_in_time(rows: Iterable[JournalRow], step_ms: int) -> dict[str, int]:
    """Pair -> open of the first candle that a bot forecast before the next one had closed.

    On a start it also forecasts older ones, too late for any entry.
    """
    first: dict[str, int] = {}
    for row in rows:
        if row.created_ms < row.candle_ms + 2 * step_ms:
            first[row.pair] = min(row.candle_ms, first.get(row.pair, row.candle_ms))
    return first


@dataclass(frozen=True)
class Rules:
    """What both sides traded by.

    Attributes
    ----------
    step_ms : length of a candle
    end_ms : the window's end
    max_open_trades : `inf`, 0 or less is no limit
    """

    step_ms: int
    end_ms: int
    max_open_trades: float

    def candle(self, time_ms: int) -> int:
        """Open of the candle a time belongs to."""
        return int(candle_open_ms(time_ms, self.step_ms))

    def known_at(self, trade: TradeFacts) -> int:
        """Open of the newest candle that had closed when a trade was entered."""
        return self.candle(trade.open_ms) - self.step_ms

    def holds(self, held: TradeFacts, time_ms: int) -> bool:
        """Whether a trade stands in the way of another in that candle.

        Also in the candle it was closed in: a backtest enters before it leaves, and a bot locks a
        pair until the candle is over.
        """
        until_ms = math.inf if held.close_ms is None else self.candle(held.close_ms)
        return self.candle(held.open_ms) <= self.candle(time_ms) <= until_ms

    def leaves(self, held: TradeFacts, time_ms: int) -> bool:
        """Whether a trade was closed in that candle."""
        return held.close_ms is not None and self.candle(held.close_ms) == self.candle(time_ms)
