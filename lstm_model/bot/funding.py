"""The funding that a bot and a study of the past expect of a pair, from freqtrade's own rates."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from lstm_model.bot import insides
from lstm_model.market.candles import Floats, Ints
from lstm_model.market.funding import expected_funding, is_known

logger = logging.getLogger(__name__)


class Funding:
    """What holding a long position over the horizon is expected to cost, candle by candle.

    A bot has freqtrade download the rates once an hour, beside its candles; a study reads those
    that `freqtrade download-data` has left. Where none is known, none is counted, and that is said.

    Parameters
    ----------
    provider : a strategy's `dp`
    step_ms, horizon : length of a candle, and how many of them a forecast reaches
    live : whether a bot asks
    words : options of the command that downloads rates
    """

    def __init__(
        self, provider: Any, step_ms: int, horizon: int, *, live: bool, words: str
    ) -> None:
        self._provider, self._step_ms, self._span_ms = provider, step_ms, horizon * step_ms
        self._live, self._words = live, words
        self._told: set[str] = set()

    def __call__(self, pair: str, date_ms: Ints) -> Floats:
        """(N,) fractions of the position, after the candles that opened at `date_ms` (N,)."""
        close_ms = date_ms + self._step_ms
        try:
            paid_ms, rates = insides.funding_rates(self._provider, pair, live=self._live)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self._tell(pair, f"its funding rates cannot be read ({type(error).__name__}: {error})")
            return np.zeros(len(date_ms))
        asked_ms = close_ms[-1:] if self._live else close_ms
        if missing := int((~is_known(paid_ms, asked_ms)).sum()):
            which = "now" if self._live else f"at {missing:,} of {len(asked_ms):,} candles"
            self._tell(pair, f"no funding rate is known {which}")
        return expected_funding(paid_ms, rates, close_ms, self._span_ms)

    def _tell(self, pair: str, text: str) -> None:
        """Once for each pair."""
        if pair not in self._told:
            self._told.add(pair)
            hint = "" if self._live else f"; `freqtrade download-data{self._words}` gets them"
            logger.warning("%s: %s, so the edge is counted without funding%s", pair, text, hint)
