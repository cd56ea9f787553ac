"""What was forecast for the candles of one pair, ready to be shown again at every candle.

In columns: a thousand rows are put side by side in microseconds, of records it takes milliseconds.

Shapes: N forecasts, K quantile levels, S spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.forecast import Forecast, unknown_far
from lstm_model.store.journal_rows import JournalRow

_SINGLE = ("mean", "volatility", "mean_error", "lowest", "highest")
_UNKNOWN_FAR = tuple(unknown_far(1)[0].tolist())


class Found(NamedTuple):
    """Forecasts of some candles.

    Attributes
    ----------
    rows : (N,) numbers of the candles that have one
    forecast : of N rows; NaN for what an older release did not write
    versions : (N,) of the models that made them
    """

    rows: Ints
    forecast: Forecast
    versions: NDArray[np.object_]


class Told:
    """Journaled forecasts of one pair, oldest candle first.

    Parameters
    ----------
    levels : K quantile levels
    """

    def __init__(self, levels: tuple[float, ...]) -> None:
        self._levels = levels
        self._date_ms: Ints = np.empty(0, np.int64)
        self._numbers: Floats = np.empty((0, len(levels) + len(_SINGLE) + len(_UNKNOWN_FAR)))
        self._versions: NDArray[np.object_] = np.empty(0, object)

    @property
    def newest_ms(self) -> int:
        """Open time of the newest candle; -1 without any."""
        return int(self._date_ms[-1]) if len(self._date_ms) else -1

    def add(self, rows: Sequence[JournalRow]) -> None:
        """Continue by rows in order of their candles; from their first on only they count."""
        if not rows:
            return
        stop = int(np.searchsorted(self._date_ms, rows[0].candle_ms))
        date_ms = np.array([row.candle_ms for row in rows], np.int64)
        versions = np.array([row.version for row in rows], object)
        numbers = np.array([_numbers(row) for row in rows], np.float64)
        self._date_ms = np.concatenate([self._date_ms[:stop], date_ms])
        self._versions = np.concatenate([self._versions[:stop], versions])
        self._numbers = np.concatenate([self._numbers[:stop], numbers])

    def forget_before(self, first_ms: int) -> None:
        """Let go of older candles."""
        start = int(np.searchsorted(self._date_ms, first_ms))
        self._date_ms, self._versions = self._date_ms[start:], self._versions[start:]
        self._numbers = self._numbers[start:]

    def of(self, date_ms: Ints) -> Found:
        """The forecasts for the candles that open then (rising)."""
        place = np.searchsorted(self._date_ms, date_ms)
        rows = np.flatnonzero(place < len(self._date_ms))
        rows = rows[self._date_ms[place[rows]] == date_ms[rows]]
        at, levels = place[rows], len(self._levels)
        numbers = self._numbers[at]
        single = dict(zip(_SINGLE, numbers[:, levels:].T, strict=False))
        far = numbers[:, levels + len(_SINGLE) :]
        forecast = Forecast(self._levels, numbers[:, :levels], **single, far=far)
        return Found(rows, forecast, self._versions[at])


def _numbers(row: JournalRow) -> list[float | None]:
    """A row of the table; NumPy reads None as NaN."""
    single = [getattr(row, name) for name in _SINGLE]
    far = row.far or _UNKNOWN_FAR
    return [*row.quantiles, *single, *far]
