"""The lines of a chart in a square of 1,000 by 1,000, and where its labels stand.

A page stretches the square to its width and sets the labels as text beside it, so that they stay
as large as the words around them on any screen. Nothing here is HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lstm_model.market.candles import Floats, Ints

SIDE = 1_000.0
_COLUMNS = 360  # chosen: two pixels of a page's width each; more points draw the same picture
_TICKS_ACROSS, _TICKS_UP = 5, 5  # chosen: at most about as many; they fit on a phone
_FLAT = 1e-9  # below it lines differ by rounding only
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
_STEPS_MS = (
    *(_MINUTE_MS * many for many in (1, 5, 15, 30)),
    *(_HOUR_MS * many for many in (1, 2, 3, 6, 12)),
    *(_DAY_MS * many for many in (1, 2, 4, 7, 14, 30, 60, 90, 180, 365, 730, 3_650)),
)


class Tick(NamedTuple):
    """A label and where it stands: per cent from the left, or from the top."""

    place: float
    text: str


class Line(NamedTuple):
    """A line of a chart: its name, and points as SVG's `polyline` takes them."""

    name: str
    points: str


@dataclass(frozen=True)
class Picture:
    """A chart.

    Attributes
    ----------
    lines : in the order they were given
    across, up : labels of time and of value
    zero : per cent from the top where the value is 0
    """

    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    zero: float


def chart(
    lines: Mapping[str, tuple[Ints, Floats]], around: tuple[float, float] = (-0.01, 0.01)
) -> Picture | None:
    """Draw fractions over time, 0 in sight; None where there is no line of two points or more.

    Parameters
    ----------
    lines : of each name (N,) int64 times in ms, rising, and (N,) float64 finite values
    around : least and most value in sight where every line lies flat at 0

    Examples
    --------
    >>> made = chart({"wallet": (np.array([0, 7_200_000]), np.array([0.0, 0.02]))})
    >>> made.lines[0].points
    '0.0,1000.0 1000.0,0.0'
    >>> [tick.text for tick in made.up]
    ['0%', '+0.5%', '+1.0%', '+1.5%', '+2.0%']
    >>> [tick.text for tick in made.across]
    ['1 Jan', '00:30', '01:00', '01:30', '02:00']
    """
    drawn = {name: line for name, line in lines.items() if len(line[0]) > 1}
    if not drawn:
        return None
    dates = np.concatenate([dates for dates, _ in drawn.values()])
    values = np.concatenate([values for _, values in drawn.values()])
    left, right = int(dates.min()), int(dates.max())
    low, high = _bounds(values, around)
    return Picture(
        lines=tuple(
            Line(name, _points(_across(at, left, right), _down(made, low, high)))
            for name, (at, made) in ((n, _thinned(*line)) for n, line in drawn.items())
        ),
        across=tuple(time_ticks(left, right)),
        up=tuple(_value_ticks(low, high)),
        zero=float(_down(np.zeros(1), low, high)[0]) * 100.0 / SIDE,
    )


def stairs(dates: Ints, counts: Ints, left_ms: int, right_ms: int) -> str:
    """Counts that last until the next one, as the points of a `polygon` that stands on the ground.

    Of very many, each column of the picture shows its largest.

    Examples
    --------
    >>> stairs(np.array([0, 50]), np.array([1, 2]), 0, 100)
    '0.0,1000.0 0.0,500.0 500.0,500.0 500.0,0.0 1000.0,0.0 1000.0,1000.0'
    """
    if not len(dates) or not counts.max() > 0:
        return ""
    groups = np.array_split(np.arange(len(dates)), min(len(dates), 4 * _COLUMNS))
    most = np.array([counts[rows].max() for rows in groups])
    begins = dates[[rows[0] for rows in groups]]
    kept = np.flatnonzero(np.diff(most, prepend=most[0] + 1))  # where a count begins
    edges = np.append(begins[kept], right_ms)
    x = _across(np.clip(edges, left_ms, right_ms), left_ms, right_ms).repeat(2)
    y = SIDE * (1.0 - most[kept] / most.max()).repeat(2)
    return _points(x, np.concatenate([[SIDE], y, [SIDE]]))


def time_ticks(left_ms: int, right_ms: int) -> list[Tick]:
    """Round moments in UTC; a midnight shows its date, other hours their time.

    Examples
    --------
    >>> [tick.text for tick in time_ticks(1_715_472_000_000, 1_716_076_800_000)]
    ['12 May', '14 May', '16 May', '18 May']
    """
    span = max(right_ms - left_ms, 1)
    step = next((s for s in _STEPS_MS if span / s <= _TICKS_ACROSS), _STEPS_MS[-1])
    first = -(-left_ms // min(step, _DAY_MS)) * min(step, _DAY_MS)
    return [
        Tick(100.0 * (at - left_ms) / span, _moment(at)) for at in range(first, right_ms + 1, step)
    ]


def _moment(time_ms: int) -> str:
    if time_ms % _DAY_MS:
        return f"{time_ms // _HOUR_MS % 24:02}:{time_ms // _MINUTE_MS % 60:02}"
    day = np.datetime64(time_ms, "ms").item()
    return f"{day.day} {day:%b}"


def _value_ticks(low: float, high: float) -> list[Tick]:
    step = _round_step((high - low) / _TICKS_UP)
    digits = max(0, -math.floor(math.log10(step * 100.0) + 1e-9))
    rows = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    texts = [f"{100.0 * row * step:+.{digits}f}%" if row else "0%" for row in rows]
    places = _down(np.array(rows) * step, low, high) * 100.0 / SIDE
    return [Tick(float(place), text) for place, text in zip(places, texts, strict=True)]


def _round_step(least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * many for many in (1, 2, 5, 10) if power * many >= least * (1.0 - 1e-9))


def _bounds(values: Floats, around: tuple[float, float]) -> tuple[float, float]:
    """Least and most, 0 among them; of a flat line at 0 `around`."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return (low, high) if high - low > _FLAT else around


def _across(dates: Ints, left: int, right: int) -> Floats:
    return np.asarray(SIDE * (dates - left) / max(right - left, 1))


def _down(values: Floats, low: float, high: float) -> Floats:
    return np.asarray(SIDE * (high - values) / (high - low))


def _points(x: Floats, y: Floats) -> str:
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in zip(x, y, strict=True))


def _thinned(dates: Ints, values: Floats) -> tuple[Ints, Floats]:
    """First, last, lowest and highest of every column, so that no peak and no trough is lost."""
    if len(dates) <= 4 * _COLUMNS:
        return dates, values
    kept: set[int] = set()
    for rows in np.array_split(np.arange(len(dates)), _COLUMNS):
        kept |= {rows[0], rows[-1], _row(rows, values, 1), _row(rows, values, -1)}
    order = sorted(kept)
    return dates[order], values[order]


def _row(rows: Ints, values: Floats, sign: int) -> int:
    return int(rows[np.argmax(sign * values[rows])])
