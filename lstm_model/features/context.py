"""What a candle is seen in: how volatile the days before it were, and what the leader did.

Both need more than a bot's newest candles. Months of the pair's own come from the data directory
and from what the bot has kept; the leader is another pair. Where something is not known, it is
unknown by name (`CONTEXT`), and features say so: no forecast waits for it.

What is known of a candle depends on nothing later, and on a bounded number of candles: 61 days of
the pair's, and `WARM_UP` candles of the leader's. It has the same bits live and in a backtest.

Shapes: T candles, D whole UTC days.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.features.closed_candle import WARM_UP, leading_columns
from lstm_model.features.series import window_sum
from lstm_model.market.candles import (
    LEADING,
    Candles,
    Floats,
    Ints,
    Records,
    unknown_context,
)

logger = logging.getLogger(__name__)

SPANS = {"variance_1d": 1, "variance_7d": 7, "variance_30d": 30, "variance_60d": 60}  # days
REACH_DAYS = max(SPANS.values()) + 2  # before a candle, as the candle before and midnight are
_PARKINSON = 4.0 * math.log(2.0)  # squared log range of a Brownian path per variance (1980)
_ENOUGH = 0.9  # chosen: of a span's candles; exchange outages stay below
_KEPT = 20_000  # chosen: of the leader's candles in a running bot, more than freqtrade shows
_FOREVER_MS = 2**62

Known = Callable[[str], Candles | None]


@dataclass(frozen=True)
class Days:
    """Sums over the whole UTC days of one pair, the first of which is `first` (1970-01-01 is 0).

    Attributes
    ----------
    per_day : candles that a day has
    squared, parkinson : (D,) of squared log returns, and of squared log ranges as variances
    counts : (D,) candles that are known with the one before
    """

    first: int
    per_day: int
    squared: Floats
    parkinson: Floats
    counts: Floats

    @property
    def end(self) -> int:
        """The day after the last."""
        return self.first + len(self.counts)

    @classmethod
    def of(cls, candles: Candles) -> Self:
        """The days that the candles hold from beginning to end, with the candle before.

        Examples
        --------
        >>> price = np.exp(np.arange(60) * 0.1)  # rises by 10 % an hour, from 20:00 on
        >>> dates = 3_600_000 * (20 + np.arange(60))
        >>> days = Days.of(Candles("A/B", 3_600_000, dates, *[price] * 4, np.ones(60)))
        >>> days.first, days.squared.round(2), days.counts
        (1, array([0.24, 0.24]), array([24., 24.]))
        """
        per_day = DAY_MS // candles.step_ms
        if per_day < 1 or len(candles) < 2:
            return cls(0, per_day, np.empty(0), np.empty(0), np.empty(0))
        first = int(candles.date_ms[0]) // DAY_MS + 1
        end = (int(candles.date_ms[-1]) + candles.step_ms) // DAY_MS
        returns = np.diff(np.log(candles.close))
        ranges = np.log(candles.high[1:] / candles.low[1:])
        followed = np.diff(candles.date_ms) == candles.step_ms
        inside = (candles.date_ms[1:] >= first * DAY_MS) & (candles.date_ms[1:] < end * DAY_MS)
        rows = np.flatnonzero(inside & followed & np.isfinite(returns + ranges))
        slots = (candles.date_ms[1:][rows] - first * DAY_MS) // candles.step_ms
        shape = (max(0, end - first), per_day)

        def summed(values: Floats) -> Floats:
            placed = np.zeros(shape)
            placed.reshape(-1)[slots] = values
            return np.asarray(placed.sum(axis=1))

        squared, parkinson = summed(returns[rows] ** 2), summed(ranges[rows] ** 2 / _PARKINSON)
        return cls(first, per_day, squared, parkinson, summed(np.ones(len(rows))))

    def then(self, other: Days) -> Days:
        """What both know: of each day the one that has more of its candles, else the other's."""
        if not len(other.counts) or not len(self.counts):
            return other if len(other.counts) else self
        first, end = min(self.first, other.first), max(self.end, other.end)
        mine, theirs = (days._within(first, end) for days in (self, other))
        return Days(first, self.per_day, *np.where(theirs[2] >= mine[2], theirs, mine))

    def _within(self, first: int, end: int) -> Floats:
        """(3, D) the columns of the days `[first, end)`, zero where they are unknown."""
        out = np.zeros((3, end - first))
        columns = (self.squared, self.parkinson, self.counts)
        out[:, self.first - first : self.end - first] = columns
        return out

    def before(self, date_ms: Ints) -> dict[str, Floats]:
        """(T,) each: mean per candle over the whole days before that of each candle, by name."""
        if not len(self.counts):
            return {}
        row = date_ms // DAY_MS - self.first
        known = (row >= 0) & (row <= len(self.counts))
        at = np.where(known, row, 0)
        return {name: np.where(known, mean[at], np.nan) for name, mean in self._means.items()}

    @cached_property
    def _means(self) -> dict[str, Floats]:
        """(D + 1,) each: of the days before each day, and before the one that has not ended."""
        spans = {name: self._mean(self.squared, days) for name, days in SPANS.items()}
        return {**spans, "parkinson_1d": self._mean(self.parkinson, 1)}

    def _mean(self, sums: Floats, days: int) -> Floats:
        """(D + 1,) over the `days` before each day, NaN where too few candles are known."""
        total, count = (
            np.concatenate([[np.nan], window_sum(column, days)]) for column in (sums, self.counts)
        )
        enough = count >= _ENOUGH * days * self.per_day
        return np.where(enough, total / np.where(enough, count, 1.0), np.nan)


class _Led(NamedTuple):
    """The leader's features, (T, M), of candles on a complete grid, and the newest of these."""

    date_ms: Ints
    columns: Floats
    newest: Candles

    @property
    def until_ms(self) -> int:
        """Open of the newest candle."""
        return int(self.date_ms[-1])

    def then(self, tail: _Led, step_ms: int) -> _Led:
        """The newest of these, continued by what `tail` knows of later candles."""
        new = tail.date_ms > self.until_ms
        first_ms = max(int(self.date_ms[0]), tail.until_ms - _KEPT * step_ms)
        dates = np.arange(first_ms, tail.until_ms + 1, step_ms)
        columns = np.full((len(dates), self.columns.shape[1]), np.nan)
        kept = self.date_ms >= first_ms
        columns[: kept.sum()] = self.columns[kept]
        columns[(tail.date_ms[new] - first_ms) // step_ms] = tail.columns[new]
        return _Led(dates, columns, tail.newest)


@dataclass
class Contexts:
    """Finds what candles are seen in.

    Attributes
    ----------
    leader : the pair that leads the others; None: there is none

    Examples
    --------
    >>> moves = np.random.default_rng(0).normal(size=2_000)
    >>> price, dates = 100.0 * np.exp(0.001 * moves.cumsum()), 3_600_000 * np.arange(2_000)
    >>> btc = Candles("BTC/USDT", 3_600_000, dates, *[price] * 4, np.ones(2_000))
    >>> context = Contexts("BTC/USDT").of(btc.rows(1_900, 2_000), lambda pair: btc)
    >>> bool(np.isfinite(context["variance_30d"]).all()), float(context["leader_return_1"][0]) > 0.0
    (True, True)
    """

    leader: str | None

    def __post_init__(self) -> None:
        # Of a running bot, which grow with its candles; its learner, in another thread, has the
        # others, of all candles, and what they were made of. All are replaced, never changed.
        self._days: dict[str, Days] = {}
        self._led: _Led | None = None
        self._whole: tuple[object, _Led | None] = (None, None)
        self._has_begun = False

    def of(self, candles: Candles, known: Known, seen: Known | None = None) -> Records:
        """(T,) CONTEXT of candles.

        Parameters
        ----------
        known : pair -> all its candles, which takes a while; without `seen` it is asked anew
        seen : pair -> the newest of them, at hand
        """
        context = unknown_context(candles.date_ms)
        if not len(candles):
            return context
        for name, column in self._days_of(candles, known, seen).before(candles.date_ms).items():
            context[name] = column
        led = self._led_by_all(known) if seen is None else self._led_until(candles, known, seen)
        if led is not None:
            rows = (candles.date_ms - led.date_ms[0]) // candles.step_ms
            there = np.flatnonzero((rows >= 0) & (rows < len(led.date_ms)))
            for number, name in enumerate(LEADING):
                context[f"leader_{name}"][there] = led.columns[rows[there], number]
        return context

    def forget_all_but(self, pairs: Collection[str | None]) -> None:
        """Let go of the days of pairs that left."""
        self._days = {pair: days for pair, days in self._days.items() if pair in pairs}

    def _days_of(self, candles: Candles, known: Known, seen: Known | None) -> Days:
        if seen is None:
            whole = Days.of(_continued(known(candles.pair), candles))
            if (growing := self._days.get(candles.pair)) is not None:
                self._days[candles.pair] = growing.then(whole)  # what a bot missed may be there now
            return whole
        days, today = self._days.get(candles.pair), int(candles.date_ms[-1]) // DAY_MS
        if days is not None and days.end >= today:
            return days
        newer = Days.of(_continued(seen(candles.pair), candles))
        if days is None or newer.first > days.end:  # what lies between may be known
            older = _continued(known(candles.pair), candles)
            newer = Days.of(older).then(newer)
        days = newer if days is None else days.then(newer)
        self._days[candles.pair] = days
        return days

    def _led_by_all(self, known: Known) -> _Led | None:
        """The leader's features of all its candles; computed once as long as they are the same."""
        leader = known(self.leader) if self.leader is not None else None
        if leader is None or not len(leader):
            return None
        made_of, found = _identity(leader), self._whole
        if found[0] != made_of:
            self._whole = found = made_of, _led_by(leader)
        return found[1]

    def _led_until(self, candles: Candles, known: Known, seen: Known) -> _Led | None:
        """The leader's features until the newest candle, or as far as the bot has seen them."""
        if self.leader is None:
            return None
        if not self._has_begun:
            self._led, self._has_begun = self._led_by_all(known), True
        led, newer = self._led, seen(self.leader)
        if newer is None or (led is not None and led.until_ms >= int(candles.date_ms[-1])):
            return led
        if led is None:
            self._led = _led_by(newer)
        elif int(newer.date_ms[-1]) > led.until_ms:
            tail = _led_by(led.newest.then(newer.between(led.until_ms + 1, _FOREVER_MS)))
            self._led = led if tail is None else led.then(tail, candles.step_ms)
        return self._led


def _identity(candles: Candles) -> tuple[int, ...]:
    """Which candles they are, to tell quickly whether they have changed."""
    prices = (candles.high, candles.low, candles.close, candles.volume)
    return int(candles.date_ms[0]), len(candles), *(hash(of.tobytes()) for of in prices)


def leader_of(named: str | None, pairs: Sequence[str]) -> str | None:
    """The pair that leads these: as named, or the one of Bitcoin on their market.

    Parameters
    ----------
    named : "" for no leader, None for the default

    Examples
    --------
    >>> leader_of(None, ["ADA/USDT:USDT", "BTC/USDT:USDT"]), leader_of("ETH/USDT", ["ADA/USDT"])
    ('BTC/USDT:USDT', 'ETH/USDT')
    >>> leader_of("", ["ADA/USDT"]), leader_of(None, ["ETH/BTC"])
    (None, None)
    """
    if named is not None or not pairs:
        return named or None
    quoted = pairs[0].partition("/")[2]
    return None if quoted.startswith("BTC") else f"BTC/{quoted}"


def _continued(older: Candles | None, newer: Candles) -> Candles:
    return newer if older is None else older.between(0, int(newer.date_ms[0])).then(newer)


def _led_by(leader: Candles | None) -> _Led | None:
    if leader is None or not len(leader):
        return None
    grid = leader.on_grid()
    newest = grid.rows(max(0, len(grid) - WARM_UP), len(grid)).copy()
    columns = leading_columns(grid)
    # freqtrade fills holes with candles in which nothing was traded, but only once there is a later
    # one: a bot that did not have the candle must not be told of it afterwards.
    columns[~grid.sound()] = np.nan
    return _Led(grid.date_ms, columns, newest)
