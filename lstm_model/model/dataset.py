"""Targets (the only place that looks ahead), usable windows, the purged split and the scaler.

Shapes: T candles of one pair, R pooled rows of all pairs, N windows, L lookback, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.durations import MIN_BLOCK_WINDOWS, MIN_TRAINING_WINDOWS
from lstm_model.errors import DataError
from lstm_model.features.closed_candle import WARM_UP, FeatureRows, compute_features
from lstm_model.features.series import lagged, window_sum
from lstm_model.market.candles import Candles, Floats, Ints
from lstm_model.model.reach import highest_ahead
from lstm_model.settings import Settings

Mask = NDArray[np.bool_]

TARGET_CLIP = 10.0  # chosen: ten standard deviations; a crash must not own the loss
_PART = 4_096  # rows
_UNSEEN = 1e30  # the scale of what a network is not shown: it vanishes beside any other number
MAX_EMPTY_FRACTION = 0.25  # chosen: of a window's candles that nothing was traded in


def realized_return(candles: Candles, horizon: int, delay: int = 0) -> Floats:
    """(T,) log return from candle t + delay to t + delay + horizon; NaN while unknown.

    With `delay=1` this is what someone gets who acts one candle late.
    """
    log_close = np.log(candles.close)
    out = np.full(len(candles), np.nan)
    count = len(candles) - horizon - delay
    if count > 0:
        out[:count] = log_close[delay + horizon :] - log_close[delay : delay + count]
    return out


def reached_returns(candles: Candles, horizon: int) -> tuple[Floats, Floats]:
    """(T,) log return to the lowest and to the highest price of the next `horizon` candles.

    NaN while unknown, or where one of them is.

    Examples
    --------
    >>> close, low, high = np.array([[8.0, 8.0, 8.0], [8.0, 4.0, 8.0], [8.0, 8.0, 16.0]])
    >>> candles = Candles("A/B", 1, np.arange(3), close, high, low, close, np.ones(3))
    >>> lowest, highest = reached_returns(candles, 2)
    >>> np.exp(lowest[0]).round(3), np.exp(highest[0]).round(3), np.isnan(lowest[1])
    (np.float64(0.5), np.float64(2.0), np.True_)
    """
    log_close = np.log(candles.close)
    lowest = np.log(-highest_ahead(-candles.low, horizon)) - log_close
    return lowest, np.log(highest_ahead(candles.high, horizon)) - log_close


def realized_variance(candles: Candles, horizon: int) -> Floats:
    """(T,) sum of the squared log returns of the next `horizon` candles; NaN while unknown.

    Examples
    --------
    >>> price = np.exp([0.0, 0.1, -0.1, 0.0])
    >>> candles = Candles("A/B", 1, np.arange(4), price, price, price, price, np.ones(4))
    >>> realized_variance(candles, 2).round(3)
    array([0.05, 0.05,  nan,  nan])
    """
    log_close = np.log(candles.close)
    until_now = window_sum((log_close - lagged(log_close, 1)) ** 2, horizon)
    return np.append(until_now[horizon:], np.full(min(horizon, len(candles)), np.nan))


def usable_windows(known: Mask, sound: Mask, lookback: int) -> Mask:
    """(T,) bool: a window of `lookback` candles that ends here can be forecast.

    All its rows are known, this candle is sound, and few others were empty.
    """
    empty = _count(~sound, lookback) <= MAX_EMPTY_FRACTION * lookback
    usable = (_count(~known, lookback) == 0) & empty & sound
    usable[: lookback - 1] = False
    return np.asarray(usable)


def _count(flags: Mask, window: int) -> Ints:
    total = np.concatenate([np.zeros(window, np.int64), flags.cumsum()])
    return np.asarray(total[window:] - total[:-window])


class Reached(NamedTuple):
    """What came true for N forecasts, in units of volatility over the horizon.

    Attributes
    ----------
    realized : (N,) float64
    lowest, highest : (N,) float64, price on the way; NaN where they are not known
    volatility : (N,) float64, of one candle, when it was forecast
    """

    realized: Floats
    lowest: Floats
    highest: Floats
    volatility: Floats

    def of(self, rows: Ints | Mask) -> Reached:
        """Those of some of the forecasts."""
        return Reached(*(column[rows] for column in self))


@dataclass(frozen=True)
class Panel:
    """Rows of all pairs, one pair after the other, each oldest first.

    Attributes
    ----------
    pairs : names; `pair_index` (R,) int32 points at them
    date_ms, label_ms : (R,) int64; a row opens at `date_ms`, its label is known at `label_ms`
    rows : (R, F) float64, NaN where unknown
    volatility : (R,) float64
    realized, delayed : (R,) float64, log return over the horizon, at once and one candle late
    lowest, highest : (R,) float64, log return to the lowest and highest price on the way
    variance : (R,) float64, realized over the horizon: the sum of squared log returns
    usable : (R,) bool, a labelled window ends here
    """

    pairs: tuple[str, ...]
    horizon: int
    pair_index: NDArray[np.int32]
    date_ms: Ints
    label_ms: Ints
    rows: Floats
    volatility: Floats
    realized: Floats
    delayed: Floats
    lowest: Floats
    highest: Floats
    variance: Floats
    usable: Mask

    @property
    def unit(self) -> Floats:
        """(R,) what one unit of the target is worth: volatility over the horizon."""
        return np.asarray(self.volatility * np.sqrt(self.horizon))

    def target(self) -> Floats:
        """(R,) realized return in units of volatility, clipped; NaN where unlabelled."""
        return np.clip(self.realized / self.unit, -TARGET_CLIP, TARGET_CLIP)

    def reached(self, rows: Ints) -> Reached:
        """What came true for rows (N,)."""
        unit = self.unit[rows]
        realized, lowest, highest = (
            column[rows] / unit for column in (self.realized, self.lowest, self.highest)
        )
        return Reached(realized, lowest, highest, self.volatility[rows])

    def labelled_within(self, start_ms: int, end_ms: int) -> Ints:
        """(N,) rows of usable windows that begin to look ahead and stop within this time."""
        inside = (self.date_ms >= start_ms) & (self.label_ms <= end_ms)
        return np.flatnonzero(self.usable & inside)


Featuring = Callable[[Candles, Settings], Sequence[FeatureRows]]


def _features(candles: Candles, settings: Settings) -> Sequence[FeatureRows]:
    return [compute_features(candles, order_flow=settings.order_flow)]


def build_panel(
    series: Sequence[Candles], settings: Settings, features: Featuring = _features
) -> Panel:
    """Pool the candles of several pairs; every candle given may be used, none after.

    Parameters
    ----------
    features : of candles on a complete grid, in parts one after the other
    """
    grids = [candles.on_grid() for candles in series]
    made = [features(grid, settings) for grid in grids]
    # What is large is copied once, and is gone before the rest is made.
    rows = np.concatenate([part.rows for parts in made for part in parts])
    volatility = [np.concatenate([part.volatility for part in parts]) for parts in made]
    known = [np.concatenate([part.known for part in parts]) for parts in made]
    del made
    parts = [_labels(n, *of, settings) for n, of in enumerate(zip(grids, known, strict=True))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    pairs = tuple(candles.pair for candles in series)
    return Panel(
        pairs, settings.horizon, rows=rows, volatility=np.concatenate(volatility), **columns
    )


def _labels(
    number: int, candles: Candles, known: Mask, settings: Settings
) -> dict[str, NDArray[Any]]:
    """A panel's columns but for its features, of candles (T,) whose features are `known` or not."""
    realized = realized_return(candles, settings.horizon)
    delayed = realized_return(candles, settings.horizon, delay=1)
    lowest, highest = reached_returns(candles, settings.horizon)
    labelled = np.isfinite(realized) & np.isfinite(delayed)
    usable = usable_windows(known, candles.sound(), settings.lookback)
    return {
        "pair_index": np.full(len(candles), number, np.int32),
        "date_ms": candles.date_ms,
        "label_ms": candles.date_ms + (settings.horizon + 1) * candles.step_ms,
        "realized": realized,
        "delayed": delayed,
        "lowest": lowest,
        "highest": highest,
        "variance": realized_variance(candles, settings.horizon),
        "usable": usable & labelled,
    }


class Panels:
    """Panels of a history that grows: what the last one had of features is not computed again.

    Threads may share it: what it knows is replaced, never changed.

    Measured, for two years of 5m candles of three pairs that takes a third of the time. The last
    panel stays in memory until `forget`.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Candles, FeatureRows]] = {}

    def build(self, series: Sequence[Candles], settings: Settings) -> Panel:
        """As `build_panel`, with the same bits. The settings must not change."""
        grids = [candles.on_grid() for candles in series]
        panel = build_panel(grids, settings, self._features)
        ends = np.cumsum([len(grid) for grid in grids])
        self._known = {
            grid.pair: (grid, FeatureRows(rows, volatility))
            for grid, rows, volatility in zip(
                grids,
                np.split(panel.rows, ends[:-1]),
                np.split(panel.volatility, ends[:-1]),
                strict=True,
            )
        }
        return panel

    def forget(self) -> None:
        """Let the last panel go."""
        self._known = {}

    def _features(self, candles: Candles, settings: Settings) -> Sequence[FeatureRows]:
        known = self._known.get(candles.pair)
        if known is None:
            return _features(candles, settings)
        before, features = known
        first = int(candles.date_ms[0] - before.date_ms[0]) // candles.step_ms
        both = len(before) - first  # candles that the last panel had, too
        if first < 0 or not 2 * WARM_UP <= both <= len(candles):
            return _features(candles, settings)
        if not _alike(before.rows(first, len(before)), candles.rows(0, both)):
            return _features(candles, settings)
        # A row depends on its candle's context, which was compared, and `WARM_UP` candles before.
        older = _features(candles.rows(0, WARM_UP), settings)
        [newer] = _features(candles.rows(both - WARM_UP, len(candles)), settings)
        return [*older, features.after(first + WARM_UP), newer.after(WARM_UP)]


def _alike(candles: Candles, others: Candles) -> bool:
    """Whether they are the same, order flow included, to the last bit."""
    mine, theirs = ((*each.columns(), each.flow, each.context) for each in (candles, others))
    return all(
        a is b or (a is not None and b is not None and a.tobytes() == b.tobytes())
        for a, b in zip(mine, theirs, strict=True)
    )


class Split(NamedTuple):
    """(N,) int64 each: rows of a `Panel` where the windows of a block end."""

    train: Ints
    validation: Ints
    test: Ints


def purged_split(panel: Panel, settings: Settings) -> Split:
    """Cut the panel by time into train, validation and test, oldest first.

    A row belongs to a block only if its label was known when the next block begins
    (purging, López de Prado 2018), for all pairs at the same moments.

    Raises
    ------
    DataError
        Too few windows are left to train on.
    """
    dates = panel.date_ms[panel.usable]
    if not len(dates):
        raise DataError(_too_few(panel, "train", 0, MIN_TRAINING_WINDOWS))
    begin, end = int(dates.min()), int(panel.label_ms[panel.usable].max())
    test = end - round((end - begin) * settings.test_fraction)
    validation = test - round((end - begin) * settings.validation_fraction)
    split = Split(
        panel.labelled_within(begin, validation),
        panel.labelled_within(validation, test),
        panel.labelled_within(test, end),
    )
    for name, rows in split._asdict().items():
        least = MIN_TRAINING_WINDOWS if name == "train" else MIN_BLOCK_WINDOWS
        if len(rows) < least:
            raise DataError(_too_few(panel, name, len(rows), least))
    return split


def _too_few(panel: Panel, block: str, found: int, least: int) -> str:
    what = {"train": "to train on", "validation": "to stop by", "test": "to score on"}[block]
    return (
        f"too little history {what}: {found:,} complete windows in {len(panel.date_ms):,} candles, "
        f"{least:,} are needed. Download more with `freqtrade download-data --prepend` (see "
        '--days, --timerange), or reduce "lookback" and "horizon". What is wrong with the candles '
        "that there are, `freqtrade-lstm doctor` says."
    )


class Scaler(NamedTuple):
    """Mean and scale of every feature, (F,) float32 each, measured on training rows alone.

    A network is not shown what it cannot have learnt: a feature that is hidden, or was the same in
    all training rows, becomes zero whatever it is later.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def fit(cls, rows: Floats, hidden: Sequence[int] = ()) -> Scaler:
        """From (N, F) known rows; `hidden` are the numbers of features not to be shown."""
        mean, squares = rows.mean(axis=0), np.zeros(rows.shape[1])
        for start in range(0, len(rows), _PART):  # in the cache: a third of the time of `std`
            squares += np.square(rows[start : start + _PART] - mean).sum(axis=0)
        scale = np.sqrt(squares / len(rows))
        scale[scale < 1e-8] = _UNSEEN
        scale[list(hidden)] = _UNSEEN
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def transform(self, rows: Floats) -> NDArray[np.float32]:
        """(R, F) float32; unknown rows become zeros (no usable window holds one)."""
        out = np.empty(rows.shape, np.float32)
        # Part by part, which stays in the processor's cache: measured, a third of the time.
        for start in range(0, len(rows), _PART):
            part = rows[start : start + _PART] - self.mean
            out[start : start + _PART] = np.divide(part, self.scale, out=part)
        out[np.isnan(out)] = 0.0
        return out
