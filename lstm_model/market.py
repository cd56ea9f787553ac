"""Candles and timeframe arithmetic: what the exchange says, checked at the door.

Intervals are half-open, `[open, open + timeframe)`; times are integer UTC milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRICE_COLUMNS = ("open", "high", "low", "close")
CANDLE_COLUMNS = ("date", *PRICE_COLUMNS, "volume")

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def timeframe_ms(timeframe: str) -> int:
    """Length of a freqtrade timeframe in milliseconds.

    Examples
    --------
    >>> timeframe_ms("5m")
    300000
    """
    match = re.fullmatch(r"([1-9]\d*)([mhd])", timeframe)
    if not match:
        raise DataError(f'timeframe "{timeframe}" is not usable: give one like "5m", "1h" or "1d"')
    return int(match[1]) * _UNIT_MS[match[2]]


def candle_open_ms(time_ms: Ints | int, step_ms: int) -> Any:
    """Open time of the one candle a trade at `time_ms` belongs to.

    Examples
    --------
    >>> candle_open_ms(300_000, 300_000), candle_open_ms(299_999, 300_000)
    (300000, 0)
    """
    return time_ms - time_ms % step_ms


@dataclass(frozen=True)
class Candles:
    """T candles of one pair, oldest first, on a regular grid with holes left out.

    Attributes
    ----------
    date_ms : (T,) int64, open time
    open, high, low, close : (T,) float64, quote currency
    volume : (T,) float64, base currency
    """

    pair: str
    step_ms: int
    date_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.date_ms)

    @classmethod
    def from_frame(cls, frame: Any, pair: str, timeframe: str) -> Self:
        """Check and copy freqtrade's dataframe (`date open high low close volume`).

        Raises
        ------
        DataError
            For missing columns, duplicate or disordered candles and candles off the grid.
            NaN, zero volume and holes pass: `sound` marks those rows unusable.
        """
        missing = [column for column in CANDLE_COLUMNS if column not in frame]
        if missing:
            raise DataError(f"{pair}: the candles lack the column(s) {', '.join(missing)}")
        dates = frame["date"].to_numpy(dtype="datetime64[ms]").astype(np.int64)
        _check_dates(dates, pair, timeframe)
        columns = {
            name: np.ascontiguousarray(frame[name].to_numpy(dtype=np.float64, copy=True))
            for name in (*PRICE_COLUMNS, "volume")
        }
        return cls(pair, timeframe_ms(timeframe), dates, **columns)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The arrays, in the order of the attributes."""
        return tuple(getattr(self, name) for name in _ARRAYS)

    def rows(self, start: int, stop: int) -> Self:
        """Rows `[start, stop)` as views."""
        columns = {name: getattr(self, name)[start:stop] for name in _ARRAYS}
        return type(self)(self.pair, self.step_ms, **columns)

    def between(self, start_ms: int, end_ms: int) -> Self:
        """Candles that open in `[start_ms, end_ms)`."""
        start, stop = np.searchsorted(self.date_ms, (start_ms, end_ms))
        return self.rows(int(start), int(stop))

    def then(self, newer: Self) -> Self:
        """These candles, continued by `newer`; from its first candle on only `newer` counts."""
        if not len(newer):
            return self
        older = self.between(0, int(newer.date_ms[0]))
        columns = {
            name: np.concatenate([getattr(older, name), getattr(newer, name)]) for name in _ARRAYS
        }
        return type(self)(self.pair, self.step_ms, **columns)

    def on_grid(self) -> Self:
        """The same candles with every hole filled by NaN candles, so that rows are equidistant."""
        grid = np.arange(self.date_ms[0], self.date_ms[-1] + 1, self.step_ms) if len(self) else ()
        if len(grid) == len(self):
            return self
        rows = (self.date_ms - self.date_ms[0]) // self.step_ms
        columns = {name: np.full(len(grid), np.nan) for name in _ARRAYS[1:]}
        for name, column in columns.items():
            column[rows] = getattr(self, name)
        return type(self)(self.pair, self.step_ms, np.asarray(grid, dtype=np.int64), **columns)

    def sound(self) -> NDArray[np.bool_]:
        """(T,) bool: finite positive prices, `low <= open, close <= high`, something traded."""
        bottom = np.minimum(self.open, self.close)
        top = np.maximum(self.open, self.close)
        with np.errstate(invalid="ignore"):
            ordered = (self.low > 0.0) & (self.low <= bottom) & (top <= self.high)
            return ordered & np.isfinite(self.high) & (self.volume > 0.0)


_ARRAYS = tuple(field.name for field in fields(Candles))[2:]


def _check_dates(dates: Ints, pair: str, timeframe: str) -> None:
    steps = np.diff(dates)
    if (steps == 0).any():
        first = _utc(dates[1:][steps == 0][0])
        raise DataError(f"{pair}: {int((steps == 0).sum())} duplicate candle(s), first at {first}")
    if (steps < 0).any():
        first = _utc(dates[1:][steps < 0][0])
        raise DataError(f"{pair}: candles are not in order of time, first at {first}")
    off_grid = dates % timeframe_ms(timeframe) != 0
    if off_grid.any():
        first = _utc(dates[off_grid][0])
        raise DataError(
            f"{pair}: candles do not lie on the {timeframe} grid, first at {first}: "
            "wrong timeframe?"
        )


def _utc(time_ms: Any) -> str:
    return str(np.datetime64(int(time_ms), "ms").astype("datetime64[s]")) + "Z"
