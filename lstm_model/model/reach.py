"""How far the price may go against a position that is held for longer than the horizon.

The network forecasts one horizon. For trades that last longer the same question is asked of the
pair's own past: within 4, 16 and 64 horizons, how far down and up did the price go, in units of the
volatility that was known then? The quantile of that, linear in the level of volatility (in
logarithms, as the widths of `lstm_model.model.calibration`), is measured anew at every retraining.

Shapes: T candles, N forecasts, S spans; 2 S numbers are those down, then those up, shortest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np

from lstm_model.features.ingredients import Ingredients
from lstm_model.market.candles import Candles, Floats
from lstm_model.model.forecast import SPANS, STAYS_WITHIN, unknown_far

_ENOUGH_SPANS = 30  # chosen: of history that do not overlap; one or two of them reach further
_PARTS = 5  # by volatility, of which a line is drawn through the quantiles
_STEEPEST = 1.0  # chosen: by which the log of a reach follows that of volatility, at most
_SHORTEST = 1e-12


class Reach(NamedTuple):
    """Reaches of one pair, as log scales of volatility times the root of the span.

    Attributes
    ----------
    usual : mean log volatility
    scales, slopes : (2 S,) at the usual volatility, and their change with its log; NaN for spans
        that the history is too short for
    """

    usual: float
    scales: tuple[float, ...]
    slopes: tuple[float, ...]

    @classmethod
    def unknown(cls) -> Self:
        """Of who has no history."""
        nothing = tuple(unknown_far(1)[0].tolist())
        return cls(0.0, nothing, nothing)

    def plain(self) -> list[list[float | None]]:
        """As JSON: None where it is not known."""
        parts = (self.scales, self.slopes, (self.usual,))
        return [[None if math.isnan(x) else x for x in part] for part in parts]

    @classmethod
    def of_plain(cls, values: Sequence[Sequence[float | None]]) -> Self:
        """The inverse of `plain`."""
        scales, slopes, (usual,) = (
            tuple(math.nan if x is None else float(x) for x in part) for part in values
        )
        return cls(usual, scales, slopes)

    def at(self, volatility: Floats, horizon: int) -> Floats:
        """(N, 2 S) log returns not passed within each span, below zero down, above zero up.

        Parameters
        ----------
        volatility : (N,) of one candle
        """
        tilt = np.log(volatility) - self.usual
        logs = np.array(self.scales) + np.array(self.slopes) * tilt[:, None]
        units = volatility[:, None] * np.sqrt(horizon * np.array(SPANS * 2))
        return np.asarray(units * np.exp(logs) * np.repeat([-1.0, 1.0], len(SPANS)))


def measure(candles: Candles, horizon: int) -> Reach:
    """The reaches of a pair's past: a function of these candles alone.

    A quantile of the adverse excursion (Sweeney 1996, Maximum Adverse Excursion) per fifth of
    volatility, and a line through the five in logarithms.

    Examples
    --------
    Of a random walk the price goes 1.96 standard deviations down in 5 of 100 spans at most, twice
    as often as it ends there (the reflection principle):

    >>> log_price = np.random.default_rng(0).normal(0.0, 0.001, 40_000).cumsum()
    >>> price = np.exp(log_price)
    >>> candles = Candles("A/B", 1, np.arange(40_000), price, price, price, price, np.ones(40_000))
    >>> found = measure(candles, 12).at(np.array([0.001]), 12)[0] / (0.001 * np.sqrt(12 * 4))
    >>> (-2.1 < found[0] < -1.7), (1.7 < found[3] < 2.1)
    (np.True_, np.True_)
    """
    grid = candles.on_grid()
    volatility = np.asarray(Ingredients(grid).volatility)
    starts = np.arange(len(grid) % horizon, len(grid), horizon)
    starts = starts[volatility[starts] > 0.0]
    if not len(starts):
        return Reach.unknown()
    log_volatility = np.log(volatility)
    usual = float(log_volatility[starts].mean())
    # Without the horizon itself, which the network answers for.
    went = np.delete(excursions(grid, horizon)[starts], [0, len(SPANS) + 1], axis=1)
    lines = []
    for span, excursion in zip(SPANS * 2, went.T, strict=True):
        enough = len(grid) >= _ENOUGH_SPANS * span * horizon
        known = np.isfinite(excursion) & enough
        log_unit = log_volatility[starts][known] + 0.5 * np.log(span * horizon)
        logs = np.log(np.maximum(excursion[known], _SHORTEST)) - log_unit
        lines.append(_line(log_volatility[starts][known] - usual, logs))
    scales, slopes = zip(*lines, strict=True)
    return Reach(usual, scales, slopes)


def excursions(candles: Candles, horizon: int) -> Floats:
    """(T, 2 S + 2) how far the price went within the horizon and each span: down, then up.

    Log returns, not below zero; NaN while unknown. `candles` must be on a complete grid.
    """
    spans, out = (1, *SPANS), []
    for side, prices in ((-1.0, candles.low), (1.0, candles.high)):
        start = side * np.log(candles.close)
        out += [highest_ahead(side * np.log(prices), span * horizon) - start for span in spans]
    return np.maximum(np.stack(out, axis=1), 0.0)


def highest_ahead(values: Floats, count: int) -> Floats:
    """(T,) highest of the next `count` values, NaN while unknown; by doubling."""
    out = np.full(len(values), np.nan)
    if len(values) <= count:
        return out
    block, size = values[1:], 1
    while 2 * size <= count:
        block = np.maximum(block[:-size], block[size:])
        size *= 2
    rest = count - size
    ahead = np.maximum(block[: len(block) - rest], block[rest:]) if rest else block
    out[: len(values) - count] = ahead[: len(values) - count]
    return out


def completed(reach: Reach | None, others: Reach) -> Reach:
    """A pair's reaches; of spans that its own history is too short for, those of the others."""
    if reach is None:
        return others
    scales, slopes = (
        tuple(theirs if math.isnan(own) else own for own, theirs in zip(mine, both, strict=True))
        for mine, both in ((reach.scales, others.scales), (reach.slopes, others.slopes))
    )
    return Reach(reach.usual, scales, slopes)


def pooled_reach(many: Iterable[Reach]) -> Reach:
    """The mean of several pairs' reaches, for one that has too little history."""
    known = [reach for reach in many if np.isfinite(reach.scales).all()]
    if not known:
        return Reach.unknown()
    means = (np.mean([getattr(r, name) for r in known], axis=0) for name in ("scales", "slopes"))
    scales, slopes = (tuple(mean.tolist()) for mean in means)
    return Reach(float(np.mean([reach.usual for reach in known])), scales, slopes)


def reach_within(
    candles: float, horizon: int, first: float, others: Floats | Iterable[float]
) -> float:
    """The reach of a position that is held for so many candles, as a log return.

    Between the spans that are known in straight lines of logarithms; beyond them, and where none is
    known, it grows with the root of time.

    Parameters
    ----------
    first : reach within the horizon, of either sign
    others : (S,) within the spans, of the same sign; NaN where not known

    Examples
    --------
    >>> [round(reach_within(n, 12, -0.01, [-0.03, -0.06, -0.1]), 4) for n in (3, 12, 48, 384)]
    [-0.005, -0.01, -0.03, -0.0775]
    >>> round(reach_within(48, 12, -0.01, [np.nan] * 3), 4)
    -0.02
    """
    points = [(np.log(horizon), first)]
    points += [
        (np.log(horizon * span), reach)
        for span, reach in zip(SPANS, others, strict=True)
        if np.isfinite(reach) and reach * first > 0.0
    ]
    times, reaches = np.array(points).T
    if not np.isfinite(first) or first == 0.0 or candles <= 0.0:
        return float("nan")
    log_time, logs = np.log(candles), np.log(np.abs(reaches))
    beyond = 0.5 * (min(log_time - times[0], 0.0) + max(log_time - times[-1], 0.0))
    inside = np.interp(log_time, times, np.maximum.accumulate(logs))
    return float(np.sign(first) * np.exp(inside + beyond))


def _line(tilt: Floats, logs: Floats) -> tuple[float, float]:
    """Level and slope of a line through the quantiles of five parts; NaN without rows."""
    if len(tilt) < _PARTS / (1.0 - STAYS_WITHIN):
        return float("nan"), float("nan")
    parts = np.array_split(np.argsort(tilt, kind="stable"), _PARTS)
    across = np.array([tilt[part].mean() for part in parts])
    quantiles = np.array([np.quantile(logs[part], STAYS_WITHIN) for part in parts])
    spread = float(((across - across.mean()) ** 2).sum())
    slope = float((across - across.mean()) @ quantiles / spread) if spread > 0.0 else 0.0
    slope = min(max(slope, -_STEEPEST), _STEEPEST)
    return float(quantiles.mean() - slope * across.mean()), slope
