"""Features of the candle that is still open, in microseconds, by the definitions of `features`.

A network that learnt from closed candles must not be shown a tenth of one: its range and volume
would look like a dead market's. So the open candle is first completed with what is to be expected
of the rest if nothing particular happens: no further return, no net buying, the usual volume and
the usual variance.

Shapes: T candles, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.durations import DAY_MS
from lstm_model.errors import DataError
from lstm_model.features.closed_candle import CLIP, FEATURES, WARM_UP, feature_set
from lstm_model.features.ingredients import (
    ENOUGH_COVERAGE,
    FAST_HALFLIFE,
    VOLATILITY_HALFLIFE,
    Ingredients,
)
from lstm_model.features.series import ewma_window
from lstm_model.market.candles import (
    LEADING,
    PAST,
    PRICE_COLUMNS,
    Candles,
    Floats,
    Records,
    Seen,
    unknown_context,
    unknown_flow,
)

# Expected squared log range of a Brownian path in units of its variance (Parkinson 1980).
_SQUARED_RANGE = 4.0 * math.log(2.0)
_FLOW_COLUMNS = ("trades", "volume", "quote_volume", "taker_base")  # that features use
_USUAL = 48  # chosen: candles that say what volume is usual, as in `volume_48`
_LED = {feature.name: feature.compute for feature in FEATURES if feature.name in LEADING}
_UNKNOWN = dict.fromkeys(LEADING, math.nan)

Leading = dict[str, float]  # the leader's features that others see, by name


class OpenCandle(Ingredients):
    """The newest row of features, again and again while its candle grows.

    Parameters
    ----------
    closed : candles on a complete grid, of which the last `WARM_UP` and one are used; the open
        candle is the one after them
    leads : whether the pair is the leader, so that it sees itself as the others see it

    Raises
    ------
    DataError
        Too few candles.

    Examples
    --------
    >>> moves = np.random.default_rng(0).normal(size=WARM_UP + 1)
    >>> price = 100.0 * np.exp(0.001 * moves.cumsum())
    >>> dates = 60_000 * np.arange(WARM_UP + 1)
    >>> closed = Candles("BTC/USDT", 60_000, dates, *[price] * 4, np.ones(WARM_UP + 1))
    >>> candle = OpenCandle(closed, order_flow=False)
    >>> up = float(price[-1]) * 1.001
    >>> seen = Seen(candle.open_ms, up, up, up, up, 0.5, 9, 50.0, 0.2, 20.0, 1.0, 0)
    >>> row, volatility = candle.row(seen, passed=0.5)
    >>> len(row), bool(row[0] > 0.0)
    (41, True)
    """

    def __init__(self, closed: Candles, *, order_flow: bool, leads: bool = False) -> None:
        first = len(closed) - WARM_UP - 1
        if first < 0:
            raise DataError(
                f"{closed.pair}: {len(closed)} candles are too few, {WARM_UP + 1} needed"
            )
        super().__init__(_with_one_more(closed.rows(first, len(closed))))
        self._order_flow, self._leads = order_flow, leads
        self._variance = float(self.mean(self.squared_return[:-1], VOLATILITY_HALFLIFE))
        self._usual_volume = float(self.candles.volume[-1 - _USUAL : -1].mean())
        flow = self.flow[-1 - _USUAL : -1]
        known = flow[flow["coverage"] >= ENOUGH_COVERAGE]
        self._usual_trades = float(known["trades"].mean()) if len(known) else 0.0
        self._last: dict[int, Candles] = {}
        self._leading: Leading = _UNKNOWN
        self._features = [
            _always(feature.compute(self)) if feature.of_time else feature.compute
            for feature in feature_set(order_flow)
        ]
        self._columns = {name: Ingredients.of_flow(self, name) for name in _FLOW_COLUMNS}

    @property
    def open_ms(self) -> int:
        """When the candle opened."""
        return int(self.candles.date_ms[-1])

    def row(
        self, seen: Seen, passed: float, leading: Leading | None = None
    ) -> tuple[Floats, float]:
        """Features (F,) of the completed candle, and volatility; NaN where they are unknown.

        Parameters
        ----------
        passed : the fraction of the candle's time that is over
        leading : `led` of the leader's open candle, None while it is not known
        """
        self._leading = leading or _UNKNOWN
        self._take(seen, 1.0 - passed)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.volatility = self._volatility(VOLATILITY_HALFLIFE)
            self.fast_volatility = self._volatility(FAST_HALFLIFE)
            row = np.array([compute(self) for compute in self._features])
        row = np.minimum(np.maximum(row, -CLIP), CLIP)
        return row, self.volatility if math.isfinite(np.add.reduce(row)) else math.nan

    def led(self) -> Leading:
        """What others may see of this candle as `row` completed it last."""
        return {name: float(_LED[name](self)) for name in LEADING}

    def leading(self, name: str) -> float:
        """What `row` was told of the leader."""
        return float(_LED[name](self)) if self._leads else self._leading[name]

    def last(self, count: int) -> Candles:
        """The newest so many, without copying."""
        if count not in self._last:
            whole = len(self.candles)
            self._last[count] = self.candles.rows(whole - count, whole)
        return self._last[count]

    def of_flow(self, name: str) -> Floats:
        """A column of the order flow, of which `row` renews the last number."""
        return self._columns[name]

    def now(self, series: NDArray[Any]) -> Any:
        """Its last number."""
        return series[-1]

    def newest(self, series: Floats, window: int) -> Floats:
        """The last so many numbers."""
        return series[-window:]

    def ago(self, series: Floats, candles: int) -> Any:
        """The number so many candles before the last."""
        return series[-1 - candles]

    def total(self, series: Floats, window: int) -> Any:
        """Sum of the last `window` numbers."""
        return np.add.reduce(series[-window:])  # `sum` takes twice as long to get there

    def mean(self, series: Floats, halflife: int) -> Any:
        """Exponentially weighted mean of the last numbers."""
        weights = _weights(halflife)
        return weights @ series[-len(weights) :]

    def _volatility(self, halflife: int) -> float:
        variance = float(self.mean(self.squared_return, halflife))
        return math.sqrt(variance) if variance > 0.0 else math.nan

    def _take(self, seen: Seen, rest: float) -> None:
        """Write the completed candle into the last slot of every series."""
        candles = self.candles
        reach = math.log(seen.high / seen.low)
        widen = math.sqrt(reach**2 + rest * _SQUARED_RANGE * self._variance) - reach
        candles.open[-1], candles.close[-1] = seen.open, seen.close
        candles.high[-1] = seen.high * math.exp(0.5 * widen)
        candles.low[-1] = seen.low * math.exp(-0.5 * widen)
        candles.volume[-1] = seen.volume + rest * self._usual_volume
        self.log_close[-1] = math.log(seen.close)
        move = self.log_close[-1] - self.log_close[-2]
        self.log_return[-1] = move
        self.squared_return[-1] = move**2 + rest * self._variance
        body = math.log(seen.close / seen.open) ** 2 + rest * self._variance
        variance = 0.5 * (reach + widen) ** 2 - (2.0 * math.log(2.0) - 1.0) * body
        self.garman_klass[-1] = max(variance, 0.0)
        if self._order_flow:
            self._take_flow(seen, rest)

    def _take_flow(self, seen: Seen, rest: float) -> None:
        rest_volume = rest * self._usual_volume
        self.covered[-1] = seen.coverage >= ENOUGH_COVERAGE and seen.volume + rest_volume > 0.0
        self.coverage[-1] = seen.coverage
        now = {
            "trades": seen.trades + rest * self._usual_trades,
            "volume": seen.volume + rest_volume,
            "quote_volume": seen.quote_volume + rest_volume * seen.close,
            "taker_base": seen.taker_base + 0.5 * rest_volume,
        }
        for name, value in now.items():
            self._columns[name][-1] = value if self.covered[-1] else 0.0
        self.net_bought[-1] = 2.0 * self._columns["taker_base"][-1] - self._columns["volume"][-1]


def followed(closed: Candles, open_ms: int, leading: Leading | None) -> Records:
    """(1,) CONTEXT of the candle that opens at `open_ms`, after these, where only trades say more.

    The whole days before are those of the candle before, until a day begins.
    """
    context = unknown_context(np.array([open_ms], dtype=np.int64))
    newest = closed.context[-1:] if closed.context is not None else context
    if newest["date_ms"][0] // DAY_MS == open_ms // DAY_MS:
        for name in PAST:
            context[name] = newest[name]
    for name, number in (leading or {}).items():
        context[f"leader_{name}"] = number
    return context


def _with_one_more(closed: Candles) -> Candles:
    """The candles and, until something is seen, an empty one at the last price."""
    last = closed.close[-1:]
    columns = {name: np.append(getattr(closed, name), last) for name in PRICE_COLUMNS}
    dates = np.append(closed.date_ms, closed.date_ms[-1:] + closed.step_ms)
    volume = np.append(closed.volume, 0.0)
    flow, context = unknown_flow(dates), unknown_context(dates)
    if closed.flow is not None:
        flow[:-1] = closed.flow
    if closed.context is not None:
        context[:-1] = closed.context
    return Candles(
        closed.pair, closed.step_ms, dates, volume=volume, **columns, flow=flow, context=context
    )


def _always(number: float) -> Callable[[Ingredients], float]:
    return lambda of: number


@cache
def _weights(halflife: int) -> Floats:
    """Of `series.ewma`, oldest first."""
    weights = 0.5 ** (np.arange(ewma_window(halflife))[::-1] / halflife)
    return np.asarray(weights / weights.sum())
