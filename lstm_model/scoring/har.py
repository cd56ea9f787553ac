"""HAR-RV: how far the price may go, by what it did over the last hours, days and weeks.

The rival that a network has to beat before it is worth its trouble: one regression of a realized
variance on those of the past over several spans (a heterogeneous autoregression), in logarithms,
and the quantiles of what it leaves unexplained.

Shapes: R pooled rows, N windows, F features, C columns used, K quantile levels.

References
----------
Corsi (2009), A simple approximate long-memory model of realized volatility. In logarithms:
Andersen, Bollerslev & Diebold (2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from lstm_model.durations import MIN_TRAINING_WINDOWS
from lstm_model.features.closed_candle import WARM_UP, feature_names, too_slow
from lstm_model.features.context import Contexts
from lstm_model.market.candles import Candles, Floats, Ints
from lstm_model.model.calibration import Series, Widths, rescale, track
from lstm_model.model.dataset import Panel, build_panel
from lstm_model.model.weights import MOST_WIDENED
from lstm_model.settings import Settings

# Of the EWMA variance: without one, a horizon in which nothing moved would own the regression.
# Measured before 2022-07: from 0.0001 to 0.01 the Winkler scores differ by 0.1 %.
_FLOOR = 0.001
MOST_CANDLES = 50_000  # chosen: half a year of 5m candles for seven to eleven weights
_PREFIX = "volatility_"
_OF_THE_DAY = ("day_sin", "day_cos", "half_day_sin", "half_day_cos")
_SINGULAR = 1e-9  # chosen: columns that are sums of others, or constant, get no weight of their own


@dataclass(frozen=True)
class Har:
    """A regression of the log realized variance on the volatility of several spans.

    All is relative to EWMA volatility: its intervals differ from the baseline's as far as the past
    spans say that the next candles will be wilder or calmer than the last ones.

    Attributes
    ----------
    columns : C features it looks at
    weights : C + 1 numbers, the constant last: of the log of the variance over the horizon less
        the log of EWMA's
    residuals : K quantiles of the return in units of the deviation foretold, around their median

    Examples
    --------
    >>> har = Har(columns=(0,), weights=(0.5, 0.0), residuals=(-1.6, 0.0, 1.6))
    >>> har.predict(np.array([[2.0], [0.0]])).round(2)
    array([[-2.64,  0.  ,  2.64],
           [-1.6 ,  0.  ,  1.6 ]])
    """

    columns: tuple[int, ...]
    weights: tuple[float, ...]
    residuals: tuple[float, ...]

    @classmethod
    def fit(cls, panel: Panel, train: Ints, past: Ints, settings: Settings) -> Self:
        """Least squares on rows `train` (N,); the residuals are those of rows `past`.

        Every row needs a label; horizons with a hole teach nothing. Pairs are pooled.
        """
        train = train[np.isfinite(panel.variance[train])]
        dates = panel.date_ms[train]
        columns = har_columns(settings, too_slow(int(dates.max() - dates.min())))
        inputs = panel.rows[train[:, None], columns]
        moved = panel.variance[train] / panel.unit[train] ** 2
        weights = _least_squares(inputs, np.log(np.maximum(moved, _FLOOR)))
        draft = cls(columns, weights, ())
        returns = panel.target()[past] / draft.deviation(panel.rows[past])
        quantiles = np.quantile(returns, settings.levels)
        quantiles -= quantiles[len(quantiles) // 2]  # the mean is zero, as the baseline's
        return cls(columns, weights, tuple(quantiles.tolist()))

    def deviation(self, rows: Floats) -> Floats:
        """(N, F) -> (N,) of the return over the horizon, in units of EWMA volatility."""
        # A sum, not a product: BLAS may round a row differently with the rows beside it.
        log_variance = np.add.reduce(rows[:, self.columns] * np.array(self.weights[:-1]), 1)
        log_variance += self.weights[-1]
        return np.asarray(np.exp(np.clip(log_variance / 2.0, -MOST_WIDENED, MOST_WIDENED)))

    def scale(self, n_features: int) -> Floats:
        """(F + 1,) the same regression as `lstm_model.model.weights.baseline_weights` takes it."""
        out = np.zeros(n_features + 1)
        out[[*self.columns, n_features]] = np.array(self.weights) / 2.0
        return out

    def predict(self, rows: Floats) -> Floats:
        """(N, F) -> (N, K) quantiles of the return, in units of volatility over the horizon."""
        return np.asarray(self.deviation(rows)[:, None] * np.array(self.residuals))


def walk_forward(candles: Candles, since_ms: int, settings: Settings) -> tuple[Ints, Floats]:
    """HAR's widest interval for a pair's candles from a moment on, tracked as a network's is.

    It is fitted to the pair's own candles before that moment, at most `MOST_CANDLES` of them, and
    its widths are tracked from the last part of them on, that of `validation_fraction`.

    Returns
    -------
    (N,) open times of candles whose label is known, and (N, 2) both ends as log returns; none where
    too few candles lie before
    """
    candles = replace(candles, context=Contexts(None).of(candles, {candles.pair: candles}.get))
    first_ms = since_ms - (WARM_UP + MOST_CANDLES) * candles.step_ms
    panel = build_panel([candles.between(first_ms, int(candles.date_ms[-1]) + 1)], settings)
    known = np.flatnonzero(np.isfinite(panel.rows).all(axis=1) & np.isfinite(panel.realized))
    past = known[panel.label_ms[known] <= since_ms]
    if len(past) < MIN_TRAINING_WINDOWS:
        return np.empty(0, np.int64), np.empty((0, 2))
    later = known[panel.date_ms[known] >= since_ms]
    cut = round(len(past) * (1.0 - settings.validation_fraction))
    har = Har.fit(panel, past[: cut - settings.horizon], past, settings)
    rows = np.concatenate([past[cut:], later])
    made, start = har.predict(panel.rows[rows]), Widths.neutral(settings.levels)
    series = Series(made, panel.reached(rows), start)
    [tracked] = track(settings.levels, [series], settings.horizon)
    ends = rescale(made, tracked.in_force)[len(past) - cut :, [0, -1]]
    return panel.date_ms[later], ends * panel.unit[later][:, None]


def har_columns(settings: Settings, without: Sequence[str] = ()) -> tuple[int, ...]:
    """The features it looks at: the volatilities, and the time of day; `without` some.

    Examples
    --------
    >>> names = feature_names(False)
    >>> {names[column] for column in har_columns(Settings())} >= {
    ...     "volatility_ratio", "volatility_trend", "day_sin", "half_day_cos"}
    True
    """
    return tuple(
        number
        for number, name in enumerate(feature_names(settings.order_flow))
        if (name.startswith(_PREFIX) or name in _OF_THE_DAY) and name not in without
    )


def _least_squares(inputs: Floats, target: Floats) -> tuple[float, ...]:
    """(N, C) and (N,) -> C weights and the constant, the smallest ones where several fit."""
    middle, level = inputs.mean(axis=0), float(target.mean())
    centred = inputs - middle
    # Not by BLAS, which shares a product among threads that wait for each other.
    gram = np.einsum("ni,nj->ij", centred, centred)
    moment = np.einsum("ni,n->i", centred, target - level)
    weights = np.linalg.lstsq(gram, moment, rcond=_SINGULAR)[0]
    return (*weights.tolist(), level - float((weights * middle).sum()))
