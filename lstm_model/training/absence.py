"""Says once what candles to train on are seen without: the leader, and the days before them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import REACH_DAYS
from lstm_model.market.candles import LEADING, Candles

logger = logging.getLogger(__name__)

MISSING_FRACTION = 0.05  # chosen: of a pair's candles; exchange outages stay below


class Unknown(NamedTuple):
    """What is unknown of many candles of a pair.

    Attributes
    ----------
    name : of the column of `Candles.context`
    what : the same in words
    known_fraction : of the candles
    asked : the pair whose older candles would tell
    since_ms : from when on
    """

    pair: str
    name: str
    what: str
    known_fraction: float
    asked: str
    since_ms: int


def unknown(series: Iterable[Candles], leader: str | None) -> Iterator[Unknown]:
    """What candles with their context are seen without, where it is more than outages explain.

    Parameters
    ----------
    leader : the pair that all see; None: there is none
    """
    for candles in series:
        if candles.context is None or len(candles) <= WARM_UP or candles.step_ms > DAY_MS:
            continue
        asked = {"variance_60d": (candles.pair, "how volatile the 60 days before were")}
        if leader not in (None, candles.pair):
            asked = {f"leader_{LEADING[0]}": (leader, f"what {leader} did"), **asked}
        since_ms = int(candles.date_ms[0]) - REACH_DAYS * DAY_MS
        for name, (pair, what) in asked.items():
            known = float(np.isfinite(candles.context[name][WARM_UP:]).mean())
            if known < 1.0 - MISSING_FRACTION:
                yield Unknown(candles.pair, name, what, known, pair, since_ms)


class Absence:
    """Warns of each pair once, because a run asks for the same candles again and again.

    Parameters
    ----------
    leader : the pair that all see; None: there is none
    words : that name the configuration to a command, each after a blank
    """

    def __init__(self, leader: str | None, timeframe: str, words: str = "") -> None:
        self._leader, self._timeframe, self._words = leader, timeframe, words
        self._told: set[tuple[str, str]] = set()

    def tell(self, series: Iterable[Candles]) -> None:
        """Warn of what is unknown of these candles, and say what gets it."""
        for found in unknown(series, self._leader):
            if (found.pair, found.name) not in self._told:
                self._told.add((found.pair, found.name))
                self._warn(found)

    def _warn(self, found: Unknown) -> None:
        day = str(np.datetime64(found.since_ms, "ms").astype("datetime64[D]")).replace("-", "")
        logger.warning(
            "%s: %s is known of %.0f %% of the candles to train on; if %s is that old, run "
            "`freqtrade download-data%s --pairs %s --timeframes %s --timerange %s- --prepend`",
            found.pair, found.what, 100 * found.known_fraction, found.asked, self._words,
            found.asked, self._timeframe, day,
        )  # fmt: skip
