"""What several features share, computed once for all candles, or for the newest alone.

Shapes: T candles.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.features.series import ewma, lagged, window_sum
from lstm_model.market.candles import (
    LEADING,
    PAST,
    Candles,
    Floats,
    Records,
    unknown_context,
    unknown_flow,
)

VOLATILITY_HALFLIFE = 36  # chosen: 3 hours of 5m candles
FAST_HALFLIFE = 8  # chosen: reacts within the lookback
ENOUGH_COVERAGE = 0.95  # chosen: below, the missing trades may tell another story


class Ingredients:
    """What several features share, computed once per call, for all candles or for the newest.

    A feature asks `now`, `ago`, `total` and `mean` for what it needs of a series. Here they answer
    with columns (T,); `OpenCandle` answers with the newest row's number alone.
    """

    def __init__(self, candles: Candles) -> None:
        self.candles = candles

    def last(self, count: int) -> Candles:
        """Candles with at least so many behind each that is asked for, for TA-Lib."""
        return self.candles

    def now(self, series: NDArray[Any]) -> Any:
        """The series itself."""
        return series

    def newest(self, series: Floats, window: int) -> Floats:
        """All of the series that is needed to say something of so many rows."""
        return series

    def ago(self, series: Floats, candles: int) -> Any:
        """The series as it was so many candles before."""
        return lagged(series, candles)

    def total(self, series: Floats, window: int) -> Any:
        """Sum over the last `window` candles."""
        return window_sum(series, window)

    def mean(self, series: Floats, halflife: int) -> Any:
        """Exponentially weighted mean."""
        return ewma(series, halflife)

    @cached_property
    def log_close(self) -> Floats:
        return np.log(self.candles.close)

    @cached_property
    def log_return(self) -> Floats:
        return self.log_close - lagged(self.log_close, 1)

    @cached_property
    def squared_return(self) -> Floats:
        return self.log_return**2

    @cached_property
    def volatility(self) -> Any:
        """(T,) EWMA standard deviation of one candle's log return; NaN where nothing moved."""
        return self._volatility(VOLATILITY_HALFLIFE)

    @cached_property
    def fast_volatility(self) -> Any:
        return self._volatility(FAST_HALFLIFE)

    def _volatility(self, halflife: int) -> Any:
        variance = self.mean(self.squared_return, halflife)
        return np.sqrt(np.where(variance > 0.0, variance, np.nan))

    @cached_property
    def garman_klass(self) -> Floats:
        """(T,) variance of a candle by its range (Garman & Klass 1980), never negative."""
        candles = self.candles
        span, body = np.log(candles.high / candles.low), np.log(candles.close / candles.open)
        variance = 0.5 * span**2 - (2.0 * np.log(2.0) - 1.0) * body**2
        return np.asarray(np.maximum(variance, 0.0))

    def past(self, name: str) -> Any:
        """A number of `PAST`: of the whole days before that of the candle before.

        So what the open candle is seen in is known when it opens.
        """
        return self.ago(self._of_context(name), 1)

    def past_known(self) -> Any:
        """Share of `PAST` that is known."""
        return sum(np.isfinite(self.past(name)) for name in PAST) / len(PAST)

    def leading(self, name: str) -> Any:
        """A feature of the leader, of the same candle."""
        return self.now(self._of_context(f"leader_{name}"))

    def leader_known(self) -> Any:
        """One where the leader's features are known, which all are or none, else zero."""
        return np.isfinite(self.leading(LEADING[0])) * 1.0

    def _of_context(self, name: str) -> Floats:
        return np.asarray(self._context[name])

    @cached_property
    def _context(self) -> Records:
        context = self.candles.context
        return unknown_context(self.candles.date_ms) if context is None else context

    @cached_property
    def flow(self) -> Records:
        flow = self.candles.flow
        return unknown_flow(self.candles.date_ms) if flow is None else flow

    @cached_property
    def coverage(self) -> Floats:
        return np.asarray(np.nan_to_num(self.flow["coverage"]))

    @cached_property
    def covered(self) -> Floats:
        """(T,) one where order flow is known well enough to be used, else zero."""
        known = (self.coverage >= ENOUGH_COVERAGE) & (self.flow["volume"] > 0.0)
        return known.astype(np.float64)

    def of_flow(self, name: str) -> Floats:
        """(T,) a column of the order flow, zero where masked."""
        return np.where(self.covered > 0.0, self.flow[name], 0.0)

    @cached_property
    def traded(self) -> Floats:
        return self.of_flow("volume")

    @cached_property
    def net_bought(self) -> Floats:
        """(T,) what takers bought less what they sold."""
        return 2.0 * self.of_flow("taker_base") - self.traded

    def log_ratio(self, top: Floats, bottom: Floats) -> Any:
        """(T,) log(top / bottom) in units of volatility."""
        return np.log(self.now(top) / self.now(bottom)) / self.volatility
