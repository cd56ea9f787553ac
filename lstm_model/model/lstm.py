"""The serving LSTM in NumPy: quantiles from stored weights, for many windows or one step.

The cell is that of Hochreiter & Schmidhuber (1997) with forget gates as in `keras.layers.LSTM`.
Three things make it fast: the first layer's input is projected once per candle instead of once per
window; all four gates go through one product and one `tanh` (`sigmoid(x) = (1 + tanh(x / 2)) / 2`;
the halving is folded into the weights, which is exact); and a step is nine calls of NumPy into
memory that is kept. With few windows the calls are what costs, not the numbers.

A window gives the same bits alone and among thousands. The product of a row can differ in its last
bit with the number of rows beside it, because BLAS has other kernels for small products, for single
rows and for the rows left over from its tiles, and each processor has others. A product of four
rows gives each the same bits in any place and beside any rows (measured on all kernels of OpenBLAS
0.3 for x86). So those are the bits that count, and more rows go through BLAS at once only where
they keep them; a window alone is multiplied with three rows of zeros, and only its own row goes on.

Any thread may serve with one `Lstm`: each has scratch memory of its own.

Shapes: N windows, T candles, L lookback, F features, U units, K levels, B windows in a block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import StoreError
from lstm_model.market.candles import Floats, Ints
from lstm_model.model.weights import Head, check_shapes

Floats32 = NDArray[np.float32]

_TILE = 4  # rows whose product every kernel of BLAS makes alike
_ONE_THREAD = 2**18  # multiplications up to which OpenBLAS does not share a product among threads
_HALF = np.array(0.5, np.float32)  # an array: NumPy takes 0.15 us longer for a number
_BLOCK = 128  # windows side by side; measured: 10 % faster than 64, larger gains little
_SIZES = 8  # chosen: of scratch memory that a thread keeps, at most 300 kB each by default
_PARTS = ("kernel", "recurrent", "bias")


@dataclass(frozen=True)
class _Layer:
    kernel: Floats32  # (inputs, 4U), gates in the order o, i, f, g
    recurrent: Floats32  # (U, 4U)
    bias: Floats32  # (4U,)

    @classmethod
    def of(cls, weights: Mapping[str, Floats32], name: str) -> Self:
        return cls(*(_reordered(weights[f"{name}/{part}"]) for part in _PARTS))

    @property
    def units(self) -> int:
        return len(self.recurrent)

    def feed(self, inputs: Floats32) -> Floats32:
        """(N, inputs) -> (N, 4, U): `inputs @ kernel + bias`."""
        count, rows = len(inputs), _padded(inputs)
        out = np.empty((len(rows), 4 * self.units), np.float32)
        multiply, pieces = _pieces(rows, out)
        for some, into in pieces:
            multiply(some, self.kernel, into)
        out += self.bias
        return out.reshape(-1, 4, self.units)[:count]

    def run(
        self, inputs: Iterable[Floats32], rows: int, states: list[Floats32] | None = None
    ) -> _Cells:
        """The cells of B rows after a step from zeros for each of `inputs` (4, B, U).

        `states` gets the hidden states (B, U) on the way, for the next layer.
        """
        cells = _KEPT.cells(rows, self.units)
        cells.hidden[:] = 0.0
        cells.cell[:] = 0.0
        step, recurrent = cells.step, self.recurrent
        for fed in inputs:
            step(recurrent, fed)
            if states is not None:
                states.append(cells.hidden.copy())
        return cells


class _Cells:
    """State and scratch memory of one layer for B rows, cut into views once and for all.

    Attributes
    ----------
    hidden, cell : (B, U), the state
    step : moves the state by one candle; given the recurrent matrix and what is fed, (4, B, U)
    """

    def __init__(self, rows: int, units: int) -> None:
        self._padded = np.zeros((_tiled(rows), units), np.float32)
        self._scratch = np.empty((7, rows, units), np.float32)  # o i f g, cell, two products
        self.hidden, self.cell = self._padded[:rows], self._scratch[4]
        self.step = self._stepper()

    def _stepper(self) -> Callable[[Floats32, Floats32], None]:
        # A function with all it needs at hand: looked up on an object, that is a tenth of a step.
        (rows, units), scratch = self.hidden.shape, self._scratch
        product = np.empty((len(self._padded), 4 * units), np.float32)
        multiply, pieces = _pieces(self._padded, product)
        by_gate = product[:rows].reshape(rows, 4, units).swapaxes(0, 1)
        gates, sigmoids, out = scratch[:4], scratch[:3], scratch[0]
        weights, weighed = scratch[1:3], scratch[3:5]  # i and f; what they weigh: g and the cell
        both, entered, left = scratch[5:], scratch[5], scratch[6]
        hidden, cell, half = self.hidden, self.cell, _HALF
        add, times, tanh = np.add, np.multiply, np.tanh

        def step(recurrent: Floats32, fed: Floats32) -> None:
            for some, into in pieces:
                multiply(some, recurrent, into)
            add(by_gate, fed, gates)
            tanh(gates, gates)
            times(sigmoids, half, sigmoids)
            add(sigmoids, half, sigmoids)
            times(weights, weighed, both)
            add(entered, left, cell)
            tanh(cell, entered)
            times(entered, out, hidden)

        return step


class _Kept(threading.local):
    """Cells that a thread uses again: new memory costs more than a step in it.

    They are good until the thread asks for such again, and come in any state.
    """

    def __init__(self) -> None:
        self.cells = lru_cache(maxsize=_SIZES)(_Cells)


_KEPT = _Kept()


def _reordered(array: Floats32) -> Floats32:
    """(..., 4U) in Keras's order of gates i, f, g, o, as o, i, f, g.

    The sigmoid gates are halved (exactly), for `sigmoid(x) = (1 + tanh(x / 2)) / 2`.
    """
    i, f, g, o = np.split(np.asarray(array, np.float32), 4, axis=-1)
    return np.concatenate([o * _HALF, i * _HALF, f * _HALF, g], axis=-1)


@dataclass
class LstmState:
    """Hidden and cell state of every layer for N series: (N, U) float32 each."""

    hidden: list[Floats32]
    cell: list[Floats32]

    def copy(self) -> Self:
        return type(self)([h.copy() for h in self.hidden], [c.copy() for c in self.cell])

    def rows(self, numbers: Sequence[int]) -> LstmState:
        """A copy for the series with these numbers, in this order."""
        some = list(numbers)
        return LstmState([h[some] for h in self.hidden], [c[some] for c in self.cell])

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """A copy for all the series of several states."""
        hidden = zip(*(state.hidden for state in states), strict=True)
        cell = zip(*(state.cell for state in states), strict=True)
        return cls([np.concatenate(h) for h in hidden], [np.concatenate(c) for c in cell])


class Lstm:
    """A trained network, ready to serve.

    Parameters
    ----------
    weights : mapping of name to float32 array
        As stored: `lstm_1/kernel` (F, 4U), `lstm_1/recurrent` (U, 4U), `lstm_1/bias` (4U,), ...,
        `mean/kernel` (F, 1), `mean/bias` (1,), `gaps/kernel` (U + F, K - 1), `gaps/bias`
        (K - 1,); `scaler/mean` and `scaler/scale` (F,).
    lookback : int
        L, candles in a window.

    Raises
    ------
    StoreError
        A weight is missing or has the wrong shape.
    """

    def __init__(self, weights: Mapping[str, Floats32], lookback: int) -> None:
        self.lookback = lookback
        try:
            check_shapes(weights)
            names = sorted(name.split("/")[0] for name in weights if name.endswith("/recurrent"))
            self._layers = [_Layer.of(weights, name) for name in names]
            self._mean, self._scale = (
                weights[f"scaler/{part}"].astype(np.float64) for part in ("mean", "scale")
            )
            self._head = Head.of(weights)
        except (KeyError, ValueError, IndexError) as error:
            raise StoreError(f"the stored weights do not form a network: {error}") from None

    @property
    def features(self) -> int:
        return len(self._mean)

    def predict(self, rows: Floats, ends: Ints) -> Floats:
        """Quantiles of the scaled return after the windows that end in the given rows.

        Parameters
        ----------
        rows : (T, F) float64, features as computed, not yet scaled
        ends : (N,) int, rising; each at least `lookback - 1`

        Returns
        -------
        (N, K) float64, in units of `volatility * sqrt(horizon)`, rising along K; the middle
        column is the mean
        """
        if not len(ends):
            return np.empty((0, self._head.levels))
        first = int(ends[0]) - self.lookback + 1
        scaled = self._scaled(rows[first : int(ends[-1]) + 1])
        fed = self._layers[0].feed(scaled).swapaxes(0, 1)
        blocks = _blocks(ends - first, _BLOCK)
        return np.concatenate([self._neighbours(fed, scaled, *block) for block in blocks])

    def predict_windows(self, windows: Floats) -> Floats:
        """Quantiles after N windows of different pairs: (N, L, F), not scaled -> (N, K) float64.

        The same bits as `predict` gives for each, in a fraction of the time for many.
        """
        parts = [np.empty((0, self._head.levels))]
        for start in range(0, len(windows), _BLOCK):
            block = windows[start : start + _BLOCK]
            parts.append(self._run(self._by_time(block), self._scaled(block[:, -1])))
        return np.concatenate(parts)

    def initial_state(self) -> LstmState:
        """The state of one series before its first candle: zeros."""
        zeros = [np.zeros((1, layer.units), np.float32) for layer in self._layers]
        return LstmState(zeros, [h.copy() for h in zeros])

    def state_after(self, windows: Floats) -> LstmState:
        """The state of N series after their candles (N, any number, F), from zeros."""
        hidden, cell = [], []
        for cells in self._over_layers(self._by_time(windows), len(windows)):
            hidden.append(cells.hidden.copy())
            cell.append(cells.cell.copy())
        return LstmState(hidden, cell)

    def step(self, state: LstmState, rows: Floats) -> Floats:
        """Advance `state` by a candle, in place, and forecast: `rows` (N, F) -> (N, K) float64."""
        newest = self._scaled(rows)
        fed = self._layers[0].feed(newest)
        for number, layer in enumerate(self._layers):
            if number:
                fed = layer.feed(state.hidden[number - 1])
            hidden, cell = state.hidden[number], state.cell[number]
            cells = _KEPT.cells(len(rows), layer.units)
            cells.hidden[:], cells.cell[:] = hidden, cell
            cells.step(layer.recurrent, fed.swapaxes(0, 1))
            hidden[:], cell[:] = cells.hidden, cells.cell
        return self._head(cells.hidden, newest)

    def _scaled(self, rows: Floats) -> Floats32:
        """(T, F) rows as the network sees them."""
        return ((rows - self._mean) / self._scale).astype(np.float32)

    def _project(self, rows: Floats) -> Floats32:
        """(T, 4, U): the first layer's input for every candle (T, F)."""
        return self._layers[0].feed(self._scaled(rows))

    def _neighbours(self, fed: Floats32, scaled: Floats32, begin: int, end: int) -> Floats:
        """Quantiles of the neighbouring windows that end in rows `[begin, end)` of `scaled`."""
        count, start = end - begin, begin - self.lookback + 1
        inputs = [fed[:, a : a + count] for a in range(start, start + self.lookback)]
        return self._run(inputs, scaled[begin:end])

    def _by_time(self, windows: Floats) -> Iterator[Floats32]:
        """Inputs of the first layer, (4, N, U) per candle, for windows (N, any number, F)."""
        return _candles(self._project, windows.swapaxes(0, 1))

    def _run(self, inputs: Iterable[Floats32], newest: Floats32) -> Floats:
        """(B, K): every layer over L `inputs` (4, B, U) of the first; `newest` rows (B, F)."""
        rows = len(newest)
        if self._head.is_blind:  # the baseline: a fifth of what a backtest forecasts
            return self._head(np.zeros((rows, self._layers[-1].units), np.float32), newest)
        *_, last = self._over_layers(inputs, rows)
        return self._head(last.hidden, newest)

    def _over_layers(self, inputs: Iterable[Floats32], rows: int) -> Iterator[_Cells]:
        """The cells of each layer, one after the other, as the last of the inputs leaves them."""
        for before, layer in pairwise(self._layers):
            states: list[Floats32] = []
            yield before.run(inputs, rows, states)
            inputs = _candles(layer.feed, np.stack(states))
        yield self._layers[-1].run(inputs, rows)


def _candles(feed: Callable[[NDArray[Any]], Floats32], by_time: NDArray[Any]) -> Iterator[Floats32]:
    """What a layer is fed (4, N, U) per candle, made of (L, N, columns).

    A few candles at a time, so that it stays in the cache: with 100 windows that halves the time,
    most of which went into new pages of memory.
    """
    rows, size = by_time.shape[1], max(1, 2 * _BLOCK // by_time.shape[1])
    for begin in range(0, len(by_time), size):
        fed = feed(by_time[begin : begin + size].reshape(-1, by_time.shape[2]))
        for start in range(0, len(fed), rows):
            yield fed[start : start + rows].swapaxes(0, 1)


Multiply = Callable[[Floats32, Floats32, Floats32], object]


def _pieces(rows: Floats32, out: Floats32) -> tuple[Multiply, list[tuple[Floats32, Floats32]]]:
    """How to multiply `rows` (N, inputs), N in fours, into `out` (N, columns): by what, and where.

    Every piece of the rows has, times a matrix (inputs, columns), the bits that four rows have.
    """
    inputs, columns = rows.shape[1], out.shape[1]
    most = _rows_at_once(inputs, columns)
    if len(rows) <= most:
        return np.dot, [(rows, out)]  # a third faster than `matmul` for four rows
    whole = len(rows) // most * most
    parts = (slice(whole), most), (slice(whole, len(rows)), _TILE)
    return np.matmul, [
        (rows[part].reshape(-1, size, inputs), out[part].reshape(-1, size, columns))
        for part, size in parts
    ]


@cache
def _rows_at_once(inputs: int, columns: int) -> int:
    """Rows up to which a product gives each, on this machine, the bits that four rows have."""
    most = max(_TILE, min(_BLOCK, _ONE_THREAD // (inputs * columns) // _TILE * _TILE))
    random = np.random.default_rng(0)
    rows, matrix = (
        random.standard_normal(shape, np.float32) for shape in ((most, inputs), (inputs, columns))
    )
    wanted = np.matmul(rows.reshape(-1, _TILE, inputs), matrix).reshape(most, columns)
    for count in range(2 * _TILE, most + 1, _TILE):
        if not np.array_equal(rows[:count] @ matrix, wanted[:count]):
            return count - _TILE
    return most


def _tiled(rows: int) -> int:
    """`rows` rounded up to whole tiles."""
    return -(-rows // _TILE) * _TILE


def _padded(rows: Floats32) -> Floats32:
    """(N, columns) with rows of zeros up to a whole tile, in memory that nobody else has."""
    padded = np.zeros((_tiled(len(rows)), rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return padded


def _blocks(ends: Ints, size: int) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring `ends`, cut into blocks `[first, last + 1)`."""
    breaks = np.flatnonzero(np.diff(ends) != 1) + 1
    for run in np.split(ends, breaks):
        for start in range(int(run[0]), int(run[-1]) + 1, size):
            yield start, min(start + size, int(run[-1]) + 1)
