"""How far intervals can be relied on: overall, and where and when they do worst.

A coverage of 90 % overall may hide one of 80 % when the market is wild, which is when a stop and a
stake depend on it. So the worst fifth by volatility and the worst stretch of time stand beside it,
and the scores of two plain intervals that any better one has to beat.

Shapes: N rows, one per pair and candle, every pair's oldest first. Returns are log returns over the
horizon.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.forecast import winkler_score

WINDOW = 250  # candles of one pair in a row; chosen: a day of 5m, ten days of 1h
_PARTS = 5  # by volatility
_BPS = 1e4


@dataclass(frozen=True)
class Reliability:
    """What the intervals of N forecasts were worth. A number that cannot be said is NaN.

    Attributes
    ----------
    level : nominal coverage
    count : rows that counted: those whose five numbers are all finite
    coverage : share of outcomes in `[low, high]`, the ends included
    worst_quintile : the lowest coverage among five parts by volatility. Each pair's own rows are
        sorted by volatility, equal ones by their order, and cut into five parts that differ by one
        row at most; the calmest parts of all pairs make the first quintile, and so on. Needs
        `WINDOW` rows.
    worst_window : the lowest share of outcomes inside, over all runs of `WINDOW` rows of one pair.
        Needs a pair with as many.
    winkler : mean interval score, lower is better, in the unit of the returns
    width : mean of `high - low`, in the unit of the returns
    """

    level: float
    count: int
    coverage: float
    worst_quintile: float
    worst_window: float
    winkler: float
    width: float

    @classmethod
    def of(
        cls, low: Floats, high: Floats, realized: Floats, volatility: Floats, level: float,
        *, groups: NDArray[Any] | None = None,
    ) -> Reliability:  # fmt: skip
        """Measure N intervals.

        Parameters
        ----------
        low, high, realized, volatility : (N,) float64; rows in which one is NaN are left out
        level : nominal coverage, in (0, 1)
        groups : (N,) int, number of the pair; None: all rows are of one

        Examples
        --------
        Intervals of one width in a market that is calm first and wild then:

        >>> volatility = np.repeat([1.0, 2.0], 500)
        >>> realized = volatility * np.random.default_rng(0).normal(size=1_000)
        >>> made = Reliability.of(
        ...     np.full(1_000, -2.6), np.full(1_000, 2.6), realized, volatility, 0.9
        ... )
        >>> made.coverage, made.worst_quintile, made.worst_window
        (0.913, 0.81, 0.804)
        """
        columns = np.stack([low, high, realized, volatility])
        known = np.isfinite(columns).all(axis=0)
        low, high, realized, volatility = columns[:, known]
        pairs = np.zeros(len(low)) if groups is None else groups[known]
        inside = (low <= realized) & (realized <= high)
        return cls(
            level=level,
            count=len(inside),
            coverage=_mean(inside),
            worst_quintile=_worst_quintile(inside, volatility, pairs),
            worst_window=_worst_window(inside, pairs),
            winkler=_mean(winkler_score(low, high, realized, level)),
            width=_mean(high - low),
        )


@dataclass(frozen=True)
class Kept:
    """How one contender's widest interval has held: a row per moment, mean over pairs.

    Attributes
    ----------
    date_ms : (N,) int64, rising
    inside : (N,) float64, share of the pairs whose outcome was inside
    log_volatility : (N,) float64, mean over pairs
    """

    date_ms: Ints
    inside: Floats
    log_volatility: Floats

    @classmethod
    def nothing(cls) -> Self:
        """Of who has forecast nothing yet."""
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))

    def then(self, newer: Self, most: int) -> Self:
        """This record and the rows of `newer` that are newer; the last `most` of both."""
        last = int(self.date_ms[-1]) if len(self.date_ms) else -1
        added = newer.date_ms > last
        mine = (self.date_ms, self.inside, self.log_volatility)
        theirs = (newer.date_ms[added], newer.inside[added], newer.log_volatility[added])
        return type(self)(
            *(np.concatenate(both)[-most:] for both in zip(mine, theirs, strict=True))
        )

    def line(self) -> str:
        """Coverage in all, in the worst fifth by volatility and in the worst `WINDOW` moments.

        Examples
        --------
        >>> inside = np.repeat([1.0, 0.8], 300)
        >>> Kept(np.arange(600), inside, np.repeat([0.0, 1.0], 300)).line()
        '90.0% over 600 candles, 80.0% in the worst fifth by volatility, 80.0% in the worst 250'
        """
        if len(self.inside) < WINDOW:
            return f"{_percent(_mean(self.inside))} over {len(self.inside):,} candles"
        order = np.argsort(self.log_volatility, kind="stable")
        fifths = [self.inside[part].mean() for part in np.array_split(order, _PARTS)]
        sums = np.concatenate([[0.0], np.cumsum(self.inside)])
        window = float((sums[WINDOW:] - sums[:-WINDOW]).min()) / WINDOW
        return (
            f"{_percent(_mean(self.inside))} over {len(self.inside):,} candles, "
            f"{_percent(float(min(fifths)))} in the worst fifth by volatility, "
            f"{_percent(window)} in the worst {WINDOW}"
        )


def line(reliability: Reliability) -> str:
    """In words, for a log or a report; scores in basis points.

    Examples
    --------
    >>> line(Reliability(0.9, 1_234, 0.8979, 0.8612, float("nan"), 0.01234, 0.00987))
    '90% interval over 1,234 forecasts: coverage 89.8%, in the worst fifth by volatility 86.1%, \
in the worst 250 candles unknown; Winkler score 123.4 bps, width 98.7 bps'
    """
    made = reliability
    if not made.count:
        return f"{made.level:.0%} interval: no forecast has matured"
    return (
        f"{made.level:.0%} interval over {made.count:,} forecasts: coverage "
        f"{_percent(made.coverage)}, in the worst fifth by volatility "
        f"{_percent(made.worst_quintile)}, in the worst {WINDOW} candles "
        f"{_percent(made.worst_window)}; Winkler score {_BPS * made.winkler:.1f} bps, width "
        f"{_BPS * made.width:.1f} bps"
    )


def ewma_interval(volatility: Floats, horizon: int, level: float) -> tuple[Floats, Floats]:
    """The plain interval: zero mean, normal, `volatility` (N,) per candle -> (N,) low and high.

    Examples
    --------
    >>> low, high = ewma_interval(np.array([0.01]), horizon=4, level=0.9)
    >>> low.round(5), high.round(5)
    (array([-0.0329]), array([0.0329]))
    """
    reach = NormalDist().inv_cdf(0.5 + level / 2.0) * volatility * np.sqrt(horizon)
    return -reach, reach


def constant_interval(realized: Floats, level: float) -> tuple[Floats, Floats]:
    """The best interval that never changes, known in hindsight only: (N,) low and high.

    Its ends are the quantiles of the outcomes themselves, for which no constant one scores better
    (Gneiting & Raftery 2007). That favours it: who beats it has said more than "as always".

    Parameters
    ----------
    realized : (N,) float64 of one pair; NaN is left out

    Examples
    --------
    >>> constant_interval(np.arange(101.0), level=0.9)[1][:3]
    array([95., 95., 95.])
    """
    known = realized[np.isfinite(realized)]
    if not len(known):
        return np.full(len(realized), np.nan), np.full(len(realized), np.nan)
    wanted = [0.5 - level / 2.0, 0.5 + level / 2.0]
    low, high = np.quantile(known, wanted, method="inverted_cdf")
    return np.full(len(realized), low), np.full(len(realized), high)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _worst_quintile(inside: NDArray[np.bool_], volatility: Floats, pairs: NDArray[Any]) -> float:
    if len(inside) < WINDOW:
        return float("nan")
    part = np.empty(len(inside), np.int64)
    for mine in _by_pair(pairs):
        part[mine[np.argsort(volatility[mine], kind="stable")]] = (
            np.arange(len(mine)) * _PARTS // len(mine)
        )
    counts = np.bincount(part, minlength=_PARTS)
    held = np.bincount(part, inside, _PARTS)[counts > 0] / counts[counts > 0]
    return float(held.min())


def _worst_window(inside: NDArray[np.bool_], pairs: NDArray[Any]) -> float:
    worst = float("nan")
    for mine in _by_pair(pairs):
        if len(mine) >= WINDOW:
            sums = np.concatenate([[0], np.cumsum(inside[mine])])
            worst = float(np.fmin(worst, (sums[WINDOW:] - sums[:-WINDOW]).min() / WINDOW))
    return worst


def _by_pair(pairs: NDArray[Any]) -> Iterator[Ints]:
    """(M,) rows of each pair, in their order."""
    order = np.argsort(pairs, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(pairs[order])) + 1)


def _percent(fraction: float) -> str:
    return "unknown" if np.isnan(fraction) else f"{fraction:.1%}"
