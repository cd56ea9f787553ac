"""From the network's raw output to a forecast: shrunk location, intervals of the right width.

Shapes: N forecasts, K quantile levels, J = K // 2 symmetric intervals, widest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lstm_model.forecast import Forecast, mean_weights
from lstm_model.market import Floats

# Step per matured label. Measured at 5m and 1h on up to eight pairs: coverage 0.893 to 0.900
# where the raw head gives 0.754 to 0.910, at the best Winkler score of five methods.
RATE = 0.005
POOLED = "pooled"  # the mean of all pairs' scales
CAUTION = 0.2  # chosen: a pair without a record of its own gets intervals wider by exp(0.2)
GROWN = 200  # labels after which a pair learns at `RATE`; before, faster: its scales are a guess
_HASTE = 20.0  # chosen: a pair's n-th label counts 1 / (n + 20) while that is more than `RATE`
_WIDEST = 3.0  # chosen: no interval is scaled by more than exp(3) or less than exp(-3)


class QuantileTracker:
    """Slow multiplicative quantile tracking of J symmetric intervals.

    Half-widths around the median are scaled by `exp(b)`; when a label matures, b moves by
    `RATE * (miss - wanted miss rate)` (quantile tracking, Angelopoulos et al. 2023, in logarithms).
    The first labels of a pair count for more, as in Robbins & Monro (1951).

    Attributes
    ----------
    labels : how many labels made the scales

    Examples
    --------
    >>> tracker = QuantileTracker((0.05, 0.5, 0.95), (0.0,))
    >>> tracker.update([-1.0, 0.0, 1.0], realized=3.0)
    >>> round(tracker.log_scales[0], 4)  # missed: wider
    0.0045
    """

    def __init__(
        self, levels: Sequence[float], log_scales: Sequence[float], labels: int = GROWN
    ) -> None:
        half = len(levels) // 2
        self._wanted = [2.0 * level for level in levels[:half]]
        self.log_scales = list(log_scales)
        self.labels = labels

    def update(self, quantiles: Sequence[float], realized: float) -> None:
        """Learn from one matured label; `quantiles` (K,) are unscaled."""
        last, middle = len(quantiles) - 1, quantiles[len(quantiles) // 2]
        rate = max(RATE, 1.0 / (self.labels + _HASTE))
        self.labels += 1
        for number, wanted in enumerate(self._wanted):
            side = quantiles[number] if realized < middle else quantiles[last - number]
            reach = abs(side - middle) * math.exp(self.log_scales[number])
            moved = self.log_scales[number] + rate * ((abs(realized - middle) > reach) - wanted)
            self.log_scales[number] = min(_WIDEST, max(-_WIDEST, moved))


def rescale(quantiles: Floats, log_scales: Floats) -> Floats:
    """Scale half-widths around the median; (N, K) and (J,) or (N, J) -> (N, K), rising along K."""
    half = quantiles.shape[1] // 2
    middle = quantiles[:, half : half + 1]
    scales = np.exp(log_scales)
    both = np.concatenate([scales, np.ones_like(scales[..., :1]), scales[..., ::-1]], axis=-1)
    return np.sort(middle + (quantiles - middle) * both, axis=1)


def track(
    levels: Sequence[float], quantiles: Floats, realized: Floats, horizon: int,
    start: Sequence[float],
) -> tuple[Floats, list[float]]:  # fmt: skip
    """Calibrate N consecutive forecasts of one pair, each with what was known when it was made.

    Parameters
    ----------
    quantiles : (N, K) and realized : (N,), oldest first
    start : (J,) log scales before the first
    horizon : a label is known so many rows later

    Returns
    -------
    (N, J) log scales in force at each row, and the (J,) ones after the last label.
    """
    tracker = QuantileTracker(levels, start)
    in_force = np.empty((len(quantiles), len(start)))
    rows, outcomes = quantiles.tolist(), realized.tolist()
    for now in range(len(rows)):
        if now >= horizon:
            tracker.update(rows[now - horizon], outcomes[now - horizon])
        in_force[now] = tracker.log_scales
    for matured in range(max(0, len(rows) - horizon), len(rows)):
        tracker.update(rows[matured], outcomes[matured])
    return in_force, tracker.log_scales


def cautious(pooled: Sequence[float]) -> tuple[float, ...]:
    """(J,) log scales to begin with for a pair that has no record of its own."""
    return tuple(min(_WIDEST, scale + CAUTION) for scale in pooled)


@dataclass(frozen=True)
class Calibration:
    """How one model version's raw output becomes a forecast.

    Attributes
    ----------
    levels : K quantile levels
    shrinkage : in [0, 1], what a predicted mean was worth on data the network was not fitted to
    residuals : K quantiles of the target, for a network without quantiles; else empty
    log_scales : per pair (and `POOLED`) the J log scales of the intervals
    """

    levels: tuple[float, ...]
    shrinkage: float
    residuals: tuple[float, ...]
    log_scales: Mapping[str, tuple[float, ...]]

    def spread(self, raw: Floats) -> tuple[Floats, Floats]:
        """Raw output (N, K) or (N, 1) -> location (N,) and unscaled quantiles (N, K)."""
        if raw.shape[1] == 1:
            location = self.shrinkage * raw[:, 0]
            return location, location[:, None] + np.array(self.residuals)
        # A sum, not a product: BLAS may round a row differently with the rows beside it.
        mean = (raw * mean_weights(self.levels)).sum(axis=1)
        location = self.shrinkage * mean
        return location, raw + (location - mean)[:, None]

    def apply(self, raw: Floats, volatility: Floats, horizon: int, pair: str) -> Forecast:
        """The forecast of N candles of one pair, as log returns over the horizon."""
        location, quantiles = self.spread(raw)
        scales = self.scales_of(pair)
        unit = volatility * np.sqrt(horizon)
        calibrated = rescale(quantiles, np.array(scales)) * unit[:, None]
        return Forecast(self.levels, calibrated, location * unit, volatility)

    def scales_of(self, pair: str) -> tuple[float, ...]:
        """The (J,) log scales of a pair; of an unknown one the pooled ones and `CAUTION`."""
        return self.log_scales.get(pair) or cautious(self.log_scales[POOLED])

    def to_card(self) -> dict[str, list[float]]:
        """Plain numbers for the model card."""
        named = {f"scales {pair}": list(scales) for pair, scales in self.log_scales.items()}
        return {"shrinkage": [self.shrinkage], "residuals": list(self.residuals), **named}

    @classmethod
    def from_card(cls, levels: tuple[float, ...], card: Mapping[str, list[float]]) -> Calibration:
        """The inverse of `to_card`."""
        scales = dict(_named_scales(card))
        return cls(levels, card["shrinkage"][0], tuple(card["residuals"]), scales)


def _named_scales(card: Mapping[str, list[float]]) -> Iterator[tuple[str, tuple[float, ...]]]:
    for name, values in card.items():
        if name.startswith("scales "):
            yield name.removeprefix("scales "), tuple(values)
