"""Candles, trades, order flow and timeframes: what the exchange says, checked at the door.

Intervals are half-open, `[open, open + timeframe)`; times are integer UTC milliseconds.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRICE_COLUMNS = ("open", "high", "low", "close")
CANDLE_COLUMNS = ("date", *PRICE_COLUMNS, "volume")

# One trade, with two clocks: the exchange's and ours at the moment it was received.
TRADE = np.dtype(
    [("id", np.int64), ("time_ms", np.int64), ("received_ns", np.int64), ("price", np.float64),
     ("amount", np.float64), ("taker_buy", np.bool_)], align=True,
)  # fmt: skip

# Who traded how much within one candle. Amounts in base, `quote` in quote currency; NaN where
# unknown. `coverage` in [0, 1] is the share of the candle's trades that is in the record; 0 says
# that nothing is known. Klines know neither `realized_volatility` (square root of the sum of
# squared log returns from trade to trade) nor `largest` (amount of the largest trade).
FLOW = np.dtype(
    [("date_ms", np.int64), ("trades", np.float64), ("volume", np.float64),
     ("quote_volume", np.float64), ("taker_base", np.float64), ("taker_quote", np.float64),
     ("coverage", np.float64), ("realized_volatility", np.float64), ("largest", np.float64)],
)  # fmt: skip
_AMOUNTS = [name for name in FLOW.names or () if name not in ("date_ms", "coverage")]

# What a candle is seen in, see `lstm_model.features.context`; NaN where unknown. First of the pair
# itself, over the whole UTC days before the candle's: mean squared log return of a candle, and that
# of its range (Parkinson). Then what the leader did until the same close, by its own features.
PAST = ("variance_1d", "variance_7d", "variance_30d", "variance_60d", "parkinson_1d")
LEADING = (
    "return_1", "return_3", "return_12", "return_48", "volume_48", "volatility_ratio",
    "volatility_trend",
)  # fmt: skip
CONTEXT = np.dtype(
    [("date_ms", np.int64), *((name, np.float64) for name in PAST),
     *((f"leader_{name}", np.float64) for name in LEADING)]
)  # fmt: skip
Records = NDArray[np.void]

# Chosen: of prices and volumes. Beyond, products of a few of them leave the range of a float.
_LEAST, _MOST = 1e-50, 1e50
# Chosen: of a frame's candles. A year of 5m candles may be missing, but a stray date among a few
# would mean millions of rows.
_MOST_MISSING, _MOST_SPARSE = 100_000, 10
_SHOWN = 100  # characters of what another library says

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def timeframe_ms(timeframe: str) -> int:
    """Length of a freqtrade timeframe in milliseconds.

    Examples
    --------
    >>> timeframe_ms("5m")
    300000
    """
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", str(timeframe))
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


class Seen(NamedTuple):
    """What has been traded in one candle so far, as plain numbers; names as in `FLOW`.

    `received_ns` is when its newest trade arrived.
    """

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: float
    quote_volume: float
    taker_base: float
    taker_quote: float
    coverage: float
    received_ns: int


class Freshness(NamedTuple):
    """Whether the newest trades of a pair are what the exchange traded last.

    Attributes
    ----------
    age_s : since the connection of the pair last proved to be alive
    reason : why it is not fresh; empty when it is
    """

    fresh: bool
    age_s: float
    reason: str


def unknown_flow(date_ms: Ints) -> Records:
    """(T,) FLOW records of candles of which no trade is known.

    Examples
    --------
    >>> unknown_flow(np.array([0, 300_000]))["coverage"]
    array([0., 0.])
    """
    flow = np.zeros(len(date_ms), FLOW)
    flow["date_ms"] = date_ms
    for name in _AMOUNTS:
        flow[name] = np.nan
    return flow


def unknown_context(date_ms: Ints) -> Records:
    """(T,) CONTEXT records of candles of which nothing else is known."""
    context = np.zeros(len(date_ms), CONTEXT)
    context["date_ms"] = date_ms
    for name in (CONTEXT.names or ())[1:]:
        context[name] = np.nan
    return context


def _of_dates(nothing: Records, known: Records) -> Records:
    """`nothing`, with the records of `known` (N,) of the same `date_ms`, which rises."""
    place = np.searchsorted(known["date_ms"], nothing["date_ms"])
    rows = np.flatnonzero(place < len(known))
    rows = rows[known["date_ms"][place[rows]] == nothing["date_ms"][rows]]
    nothing[rows] = known[place[rows]]
    return nothing


@dataclass(frozen=True)
class Candles:
    """T candles of one pair, oldest first, on a regular grid with holes left out.

    Attributes
    ----------
    date_ms : (T,) int64, open time
    open, high, low, close : (T,) float64, quote currency
    volume : (T,) float64, base currency
    flow : (T,) FLOW, or None where nobody asked for order flow
    context : (T,) CONTEXT, or None where nobody asked for it
    """

    pair: str
    step_ms: int
    date_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    flow: Records | None = None
    context: Records | None = None

    def __len__(self) -> int:
        return len(self.date_ms)

    @classmethod
    def from_frame(cls, frame: Any, pair: str, timeframe: str) -> Self:
        """Check and copy freqtrade's dataframe (`date open high low close volume`).

        Raises
        ------
        DataError
            For missing columns and those that hold something else, duplicate or disordered candles,
            candles off the grid, and dates so far apart that one of them must be wrong.
            NaN, zero volume and holes pass: `sound` marks those rows unusable. What can be neither
            a price nor a volume is NaN.
        """
        missing = [column for column in CANDLE_COLUMNS if column not in frame]
        if missing:
            raise DataError(f"{pair}: the candles lack the column(s) {', '.join(missing)}")
        dates = _column(frame, "date", pair, "M", "datetime64[ms]").astype(np.int64)
        _check_dates(dates, pair, timeframe)
        columns: dict[str, Any] = {
            name: _numbers(frame, name, pair) for name in (*PRICE_COLUMNS, "volume")
        }
        return cls(pair, timeframe_ms(timeframe), dates, **columns)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The arrays, in the order of the attributes."""
        return tuple(getattr(self, name) for name in _ARRAYS)

    def rows(self, start: int, stop: int) -> Self:
        """Rows `[start, stop)` as views."""
        columns = {name: getattr(self, name)[start:stop] for name in _ARRAYS}
        beside = {name: of[start:stop] for name, of in self._beside().items()}
        return type(self)(self.pair, self.step_ms, **columns, **beside)

    def copy(self) -> Self:
        """The same candles in arrays of their own, so that a larger series can be let go."""
        columns = {name: getattr(self, name).copy() for name in _ARRAYS}
        beside = {name: records.copy() for name, records in self._beside().items()}
        return type(self)(self.pair, self.step_ms, **columns, **beside)

    def _beside(self) -> dict[str, Any]:
        """The records beside the candles that somebody asked for, by name."""
        both = {"flow": self.flow, "context": self.context}
        return {name: records for name, records in both.items() if records is not None}

    def between(self, start_ms: int, end_ms: int) -> Self:
        """Candles that open in `[start_ms, end_ms)`."""
        start, stop = np.searchsorted(self.date_ms, (start_ms, end_ms))
        return self.rows(int(start), int(stop))

    def known_at(self, start_ms: int, boundary_ms: int) -> Self:
        """Candles that open in `[start_ms, boundary_ms)`, until the last that was traded in.

        freqtrade fills holes with candles in which nothing was traded, but only once there is a
        later one: of a pair that is halted at the boundary a bot has none, a backtest has them.

        Examples
        --------
        >>> price, volume = np.ones(5), np.array([2.0, 0.0, 2.0, 0.0, 0.0])
        >>> candles = Candles("A/B", 1, np.arange(5), price, price, price, price, volume)
        >>> candles.known_at(1, 5).date_ms.tolist(), candles.known_at(0, 2).date_ms.tolist()
        ([1, 2], [0])
        """
        within = self.between(start_ms, boundary_ms)
        traded = np.flatnonzero(within.volume != 0.0)
        return within.rows(0, int(traded[-1]) + 1 if len(traded) else 0)

    def then(self, newer: Self) -> Self:
        """These candles, continued by `newer`; from its first candle on only `newer` counts."""
        if not len(newer):
            return self
        older = self.between(0, int(newer.date_ms[0]))
        columns = {
            name: np.concatenate([getattr(older, name), getattr(newer, name)]) for name in _ARRAYS
        }
        joined = type(self)(self.pair, self.step_ms, **columns)
        flows = [part.flow for part in (older, newer) if part.flow is not None]
        contexts = [part.context for part in (older, newer) if part.context is not None]
        joined = joined.with_flow(np.concatenate(flows)) if flows else joined
        return joined.with_context(np.concatenate(contexts)) if contexts else joined

    def with_flow(self, flow: Records) -> Self:
        """The same candles with the order flow of those that `flow` (N,) FLOW knows.

        Its records may be of other candles too, but must be in order of time.
        """
        return replace(self, flow=_of_dates(unknown_flow(self.date_ms), flow))

    def with_context(self, context: Records) -> Self:
        """The same candles with what `context` (N,) CONTEXT knows of them, as `with_flow`."""
        return replace(self, context=_of_dates(unknown_context(self.date_ms), context))

    def on_grid(self) -> Self:
        """The same candles with every hole filled by NaN candles, so that rows are equidistant."""
        grid = np.arange(self.date_ms[0], self.date_ms[-1] + 1, self.step_ms) if len(self) else ()
        if len(grid) == len(self):
            return self
        rows = (self.date_ms - self.date_ms[0]) // self.step_ms
        columns = {name: np.full(len(grid), np.nan) for name in _ARRAYS[1:]}
        for name, column in columns.items():
            column[rows] = getattr(self, name)
        whole = type(self)(self.pair, self.step_ms, np.asarray(grid, dtype=np.int64), **columns)
        whole = whole if self.flow is None else whole.with_flow(self.flow)
        return whole if self.context is None else whole.with_context(self.context)

    def sound(self) -> NDArray[np.bool_]:
        """(T,) bool: finite positive prices, `low <= open, close <= high`, something traded."""
        bottom = np.minimum(self.open, self.close)
        top = np.maximum(self.open, self.close)
        with np.errstate(invalid="ignore"):
            ordered = (self.low > 0.0) & (self.low <= bottom) & (top <= self.high)
            return ordered & np.isfinite(self.high) & (self.volume > 0.0)


_ARRAYS = tuple(field.name for field in fields(Candles))[2:-2]


def _column(frame: Any, name: str, pair: str, kinds: str, dtype: str) -> NDArray[Any]:
    """A copy of a column that has to be of one of these kinds, as NumPy names them."""
    column, what = frame[name], "dates" if "M" in kinds else "numbers"
    if column.ndim != 1:
        raise DataError(f"{pair}: the candles have several columns {name}")
    if column.dtype.kind not in kinds:
        raise DataError(f"{pair}: column {name} of the candles holds {column.dtype}, not {what}")
    try:
        return np.asarray(column.to_numpy(dtype=dtype, copy=True))
    except (TypeError, ValueError, OverflowError) as error:
        problem = str(error)[:_SHOWN]
        raise DataError(
            f"{pair}: column {name} of the candles holds no {what}: {problem}"
        ) from None


def _numbers(frame: Any, name: str, pair: str) -> Floats:
    """(T,) prices or volumes; NaN for what is none."""
    values = np.ascontiguousarray(_column(frame, name, pair, "fiubO", "float64"))
    least = 0.0 if name == "volume" else _LEAST
    values[~((values >= least) & (values <= _MOST))] = np.nan
    return values


def _check_dates(dates: Ints, pair: str, timeframe: str) -> None:
    if np.isnat(dates.view("datetime64[ms]")).any():
        raise DataError(f"{pair}: there are candles without a date")
    steps = np.diff(dates)
    if (steps == 0).any():
        first = utc_text(dates[1:][steps == 0][0])
        raise DataError(f"{pair}: {int((steps == 0).sum())} duplicate candle(s), first at {first}")
    if (steps < 0).any():
        first = utc_text(dates[1:][steps < 0][0])
        raise DataError(f"{pair}: candles are not in order of time, first at {first}")
    off_grid = dates % timeframe_ms(timeframe) != 0
    if off_grid.any():
        first = utc_text(dates[off_grid][0])
        raise DataError(
            f"{pair}: candles do not lie on the {timeframe} grid, first at {first}: "
            "wrong timeframe?"
        )
    _check_span(dates[dates <= time.time_ns() // 1_000_000], pair, timeframe)


def _check_span(dates: Ints, pair: str, timeframe: str) -> None:
    """Of the candles until now; those of the future are left out elsewhere, and the rest stays."""
    wanted = int(dates[-1] - dates[0]) // timeframe_ms(timeframe) if len(dates) else 0
    if wanted > _MOST_MISSING + _MOST_SPARSE * len(dates):
        first, last = utc_text(dates[0]), utc_text(dates[-1])
        raise DataError(
            f"{pair}: {len(dates):,} candle(s) from {first} to {last}, where {wanted:,} would be: "
            "is a date wrong?"
        )


def utc_text(time_ms: Any) -> str:
    """The time as messages show it.

    Examples
    --------
    >>> utc_text(1_700_000_000_000)
    '2023-11-14T22:13:20Z'
    """
    return str(np.datetime64(int(time_ms), "ms").astype("datetime64[s]")) + "Z"


def utc_minute(time_ms: int) -> str:
    """The time as tables and reports show it, to the minute.

    Examples
    --------
    >>> utc_minute(1_700_000_000_000)
    '2023-11-14 22:13'
    """
    return utc_text(time_ms)[:16].replace("T", " ")
