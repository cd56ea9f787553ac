"""Says once what candles to train on are seen without: the leader, and the days before them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import REACH_DAYS
from lstm_model.market.candles import LEADING, Candles

logger = logging.getLogger(__name__)

MISSING_FRACTION = 0.05  # chosen: of a pair's candles; exchange outages stay below


class Absence:
    """Warns of each pair once, because a run asks for the same candles again and again.

    Parameters
    ----------
    leader : the pair that all see; None: there is none
    """

    def __init__(self, leader: str | None, timeframe: str) -> None:
        self._leader, self._timeframe = leader, timeframe
        self._told: set[tuple[str, str]] = set()

    def tell(self, series: Iterable[Candles]) -> None:
        """Warn of what is unknown of these candles, and say what gets it."""
        for candles in series:
            if candles.context is None or len(candles) <= WARM_UP or candles.step_ms > DAY_MS:
                continue
            since_ms = int(candles.date_ms[0]) - REACH_DAYS * DAY_MS
            if self._leader not in (None, candles.pair):
                self._tell(candles, f"what {self._leader} did", f"leader_{LEADING[0]}", since_ms)
            self._tell(candles, "how volatile the 60 days before were", "variance_60d", since_ms)

    def _tell(self, candles: Candles, what: str, name: str, since_ms: int) -> None:
        assert candles.context is not None  # noqa: S101 - `tell` has looked
        known = float(np.isfinite(candles.context[name][WARM_UP:]).mean())
        if known >= 1.0 - MISSING_FRACTION or (candles.pair, name) in self._told:
            return
        self._told.add((candles.pair, name))
        pair = candles.pair if name.startswith("variance") else self._leader
        day = str(np.datetime64(since_ms, "ms").astype("datetime64[D]")).replace("-", "")
        logger.warning(
            "%s: %s is known of %.0f %% of the candles to train on; if %s is that old, run "
            "`freqtrade download-data --pairs %s --timeframes %s --timerange %s- --prepend`",
            candles.pair, what, 100 * known, pair, pair, self._timeframe, day,
        )  # fmt: skip
