"""The serving LSTM in NumPy: quantiles from stored weights, for many windows or one step.

The cell is that of Hochreiter & Schmidhuber (1997) with forget gates as in `keras.layers.LSTM`.
Two things make it fast: the first layer's input is projected once per candle instead of once per
window, and all four gates go through one `tanh` (`sigmoid(x) = (1 + tanh(x / 2)) / 2`; the halving
is folded into the weights, which is exact).

A window gives the same bits alone and among thousands. The product of a row can differ in its last
bit with the number of rows beside it, because BLAS has other kernels for small products, for single
rows and for the rows left over from its tiles, and each processor has others. A product of four
rows gives each the same bits in any place (measured on all kernels of OpenBLAS 0.3 for x86). So
those are the bits that count, and more rows go through BLAS at once only where they keep them.

Shapes: N windows, T candles, L lookback, F features, U units, K levels, B windows in a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import StoreError
from lstm_model.market.candles import Floats, Ints

Floats32 = NDArray[np.float32]

_TILE = 4  # rows whose product every kernel of BLAS makes alike
_ONE_THREAD = 2**18  # multiplications up to which OpenBLAS does not share a product among threads
_HALF = np.float32(0.5)
_BLOCK = 128  # windows side by side; measured: 10 % faster than 64, larger gains little
_PARTS = ("kernel", "recurrent", "bias")


@dataclass(frozen=True)
class _Layer:
    kernel: Floats32  # (4, inputs, U), gates in the order i, f, o, g
    recurrent: Floats32  # (4, U, U)
    bias: Floats32  # (4, 1, U)

    @classmethod
    def of(cls, weights: Mapping[str, Floats32], name: str) -> Self:
        kernel, recurrent, bias = (weights[f"{name}/{part}"] for part in _PARTS)
        return cls(_by_gate(kernel), _by_gate(recurrent), _by_gate(bias[None, :]))

    @property
    def units(self) -> int:
        return int(self.recurrent.shape[-1])

    def feed(self, inputs: Floats32) -> Floats32:
        """(N, inputs) -> (4, N, U): `inputs @ kernel + bias`; N a multiple of four."""
        out = np.empty((4, len(inputs), self.units), np.float32)
        _multiply(inputs, self.kernel, out)
        out += self.bias
        return out

    def run(self, inputs: Sequence[Floats32], rows: int) -> tuple[Floats32, Floats32]:
        """Hidden states (L, B, U) over L `inputs` (4, B, U) from zero, and the last cell (B, U)."""
        cell = np.zeros((rows, self.units), np.float32)
        hidden = np.zeros((len(inputs) + 1, rows, self.units), np.float32)
        gates = _Gates(rows, self.units)
        before = hidden[0]
        for fed, after in zip(inputs, hidden[1:], strict=True):
            gates.advance(self.recurrent, fed, before, after, cell)
            before = after
        return hidden[1:], cell


class _Gates:
    """Scratch space of one layer's step for B rows, cut into gates once instead of every step."""

    def __init__(self, rows: int, units: int) -> None:
        self._all = np.empty((4, rows, units), np.float32)
        self._sigmoids = self._all[:3]
        self._enter, self._forget, self._out, self._new = self._all

    def advance(
        self, recurrent: Floats32, fed: Floats32, before: Floats32, after: Floats32, cell: Floats32
    ) -> None:
        """One step: from hidden state `before` (B, U) to `after`, moving `cell` (B, U)."""
        gates, sigmoids, new = self._all, self._sigmoids, self._new
        _multiply(before, recurrent, gates)
        np.add(gates, fed, out=gates)
        np.tanh(gates, out=gates)
        np.multiply(sigmoids, _HALF, out=sigmoids)
        np.add(sigmoids, _HALF, out=sigmoids)
        np.multiply(cell, self._forget, out=cell)
        np.multiply(new, self._enter, out=new)
        np.add(cell, new, out=cell)
        np.tanh(cell, out=after)
        np.multiply(after, self._out, out=after)


def _by_gate(array: Floats32) -> Floats32:
    """(inputs, 4U) in Keras's gate order i, f, g, o -> (4, inputs, U) as i, f, o, g.

    The sigmoid gates are halved (exactly), for `sigmoid(x) = (1 + tanh(x / 2)) / 2`.
    """
    i, f, g, o = np.split(np.asarray(array, np.float32), 4, axis=-1)
    return np.stack([i * _HALF, f * _HALF, o * _HALF, g])


def _check_shapes(weights: Mapping[str, Floats32]) -> None:
    """Refuse missing, foreign and misshapen arrays, so that serving cannot fail later."""
    layers = sorted({name.split("/")[0] for name in weights if name.startswith("lstm_")})
    inputs = weights["scaler/mean"].shape[0]
    wanted: dict[str, tuple[int, ...]] = {"scaler/mean": (inputs,), "scaler/scale": (inputs,)}
    for name in layers:
        units = weights[f"{name}/recurrent"].shape[0]
        wanted[f"{name}/kernel"] = (inputs, 4 * units)
        wanted[f"{name}/recurrent"] = (units, 4 * units)
        wanted[f"{name}/bias"] = (4 * units,)
        inputs = units
    wanted |= {"median/kernel": (inputs, 1), "median/bias": (1,)}
    if any(name.startswith("gaps/") for name in weights):
        count = weights["gaps/bias"].shape[0]
        wanted |= {"gaps/kernel": (inputs, count // 2 * 2), "gaps/bias": (count,)}
    found = {name: array.shape for name, array in weights.items()}
    if not layers or found != wanted:
        wrong = sorted(
            name for name in found.keys() | wanted if found.get(name) != wanted.get(name)
        )
        raise ValueError(f"missing, foreign or misshapen: {', '.join(wrong) or 'layers'}")


@dataclass
class LstmState:
    """Hidden and cell state of every layer for N series: (N and more, U) float32 each.

    N is filled up to a multiple of four rows; what the others hold does not matter.
    """

    hidden: list[Floats32]
    cell: list[Floats32]

    def copy(self) -> Self:
        return type(self)([h.copy() for h in self.hidden], [c.copy() for c in self.cell])

    def rows(self, numbers: Sequence[int]) -> LstmState:
        """A copy for the series with these numbers, in this order."""
        padded = [*numbers, *([0] * (_tiled(len(numbers)) - len(numbers)))]
        return LstmState([h[padded] for h in self.hidden], [c[padded] for c in self.cell])

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """A copy for several series, of the states of each alone."""
        if len(states) == 1:
            return states[0].copy()
        padded = [*states, *([states[0]] * (_tiled(len(states)) - len(states)))]
        layers = range(len(states[0].cell))
        return cls(
            [np.stack([state.hidden[layer][0] for state in padded]) for layer in layers],
            [np.stack([state.cell[layer][0] for state in padded]) for layer in layers],
        )


class Lstm:
    """A trained network, ready to serve.

    Parameters
    ----------
    weights : mapping of name to float32 array
        As stored: `lstm_1/kernel` (F, 4U), `lstm_1/recurrent` (U, 4U), `lstm_1/bias` (4U,), ...,
        `median/kernel` (U, 1), `median/bias`, and, for quantiles, `gaps/kernel` (U, K-1),
        `gaps/bias`; `scaler/mean` and `scaler/scale` (F,).
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
            _check_shapes(weights)
            names = sorted(name.split("/")[0] for name in weights if name.endswith("/recurrent"))
            self._layers = [_Layer.of(weights, name) for name in names]
            self._mean, self._scale = weights["scaler/mean"], weights["scaler/scale"]
            self._head = _Head.of(weights)
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
        (N, K) float64, in units of `volatility * sqrt(horizon)`, rising along K
        """
        if not len(ends):
            return np.empty((0, self._head.levels))
        first = int(ends[0]) - self.lookback + 1
        projected = self._project(rows[first : int(ends[-1]) + 1])
        parts = [self._predict_block(projected, *block) for block in _blocks(ends - first, _BLOCK)]
        return np.concatenate(parts)

    def predict_windows(self, windows: Floats) -> Floats:
        """Quantiles after N windows of different pairs: (N, L, F), not scaled -> (N, K) float64.

        The same bits as `predict` gives for each, in a fraction of the time for many.
        """
        parts = [
            self._predict_apart(windows[start : start + _BLOCK])
            for start in range(0, len(windows), _BLOCK)
        ]
        return np.concatenate([np.empty((0, self._head.levels)), *parts])

    def initial_state(self) -> LstmState:
        """The state of one series before its first candle: zeros."""
        zeros = [np.zeros((_TILE, layer.units), np.float32) for layer in self._layers]
        return LstmState(zeros, [h.copy() for h in zeros])

    def state_after(self, windows: Floats) -> LstmState:
        """The state of N series after their candles (N, any number, F), from zeros."""
        inputs, rows = self._by_time(windows)
        hidden, cells = self._over_layers(inputs, rows)
        return LstmState([h[-1].copy() for h in hidden], cells)

    def step(self, state: LstmState, rows: Floats) -> Floats:
        """Advance `state` by a candle, in place, and forecast: `rows` (N, F) -> (N, K) float64."""
        scaled = np.zeros((len(state.cell[0]), self.features), np.float32)
        scaled[: len(rows)] = (rows - self._mean) / self._scale
        fed = self._layers[0].feed(scaled)
        for number, layer in enumerate(self._layers):
            hidden, cell = state.hidden[number], state.cell[number]
            if number:
                fed = layer.feed(state.hidden[number - 1])
            _Gates(*cell.shape).advance(layer.recurrent, fed, hidden.copy(), hidden, cell)
        return self._head(state.hidden[-1][: len(rows)])

    def _project(self, rows: Floats) -> Floats32:
        """(4, T + 4 to 7, U): the first layer's input for every candle; the rest is padding."""
        scaled = np.zeros((_tiled(len(rows)) + _TILE, self.features), np.float32)
        scaled[: len(rows)] = np.nan_to_num((rows - self._mean) / self._scale)
        return self._layers[0].feed(scaled)

    def _predict_block(self, projected: Floats32, begin: int, end: int) -> Floats:
        """Quantiles of the neighbouring windows that end in rows `[begin, end)`."""
        rows, start = _tiled(end - begin), begin - self.lookback + 1
        inputs = [projected[:, a : a + rows] for a in range(start, start + self.lookback)]
        return self._run(inputs, rows)[: end - begin]

    def _predict_apart(self, windows: Floats) -> Floats:
        """Quantiles of at most a block of windows (B, L, F) that share no candles."""
        inputs, rows = self._by_time(windows)
        return self._run(inputs, rows)[: len(windows)]

    def _by_time(self, windows: Floats) -> tuple[list[Floats32], int]:
        """Inputs of the first layer, (4, rows, U) per candle, for windows (B, any number, F)."""
        rows, count = _tiled(len(windows)), windows.shape[1]
        by_time = np.zeros((count, rows, self.features))
        by_time[:, : len(windows)] = windows.swapaxes(0, 1)
        projected = self._project(by_time.reshape(-1, self.features))
        return [projected[:, a * rows : (a + 1) * rows] for a in range(count)], rows

    def _run(self, inputs: Sequence[Floats32], rows: int) -> Floats:
        """(B, K): every layer over L `inputs` (4, B, U) of the first."""
        if self._head.is_blind:  # the baseline: a fifth of what a backtest forecasts
            return self._head(np.zeros((rows, len(self._head.kernel)), np.float32))
        hidden, _ = self._over_layers(inputs, rows)
        return self._head(hidden[-1][-1])

    def _over_layers(
        self, inputs: Sequence[Floats32], rows: int
    ) -> tuple[list[Floats32], list[Floats32]]:
        """Every layer's hidden states (L, B, U) and last cell (B, U)."""
        hidden, cell = self._layers[0].run(inputs, rows)
        states, cells = [hidden], [cell]
        for layer in self._layers[1:]:
            fed = layer.feed(states[-1].reshape(-1, states[-1].shape[-1]))
            by_time = list(fed.reshape(4, len(inputs), rows, -1).swapaxes(0, 1))
            hidden, cell = layer.run(by_time, rows)
            states.append(hidden)
            cells.append(cell)
        return states, cells


def _multiply(rows: Floats32, gates: Floats32, out: Floats32) -> None:
    """`rows` (N, inputs) times every gate (4, inputs, U), into `out` (4, N, U); N in fours."""
    most = _rows_at_once(*gates.shape[1:])
    if len(rows) <= most:
        np.matmul(rows, gates, out=out)
        return
    whole = len(rows) // most * most
    for part, size in ((slice(whole), most), (slice(whole, len(rows)), _TILE)):
        tiles = rows[part].reshape(-1, size, rows.shape[1])
        np.matmul(tiles, gates[:, None], out=out[:, part].reshape(4, -1, size, out.shape[2]))


@cache
def _rows_at_once(inputs: int, units: int) -> int:
    """Rows up to which a product gives each, on this machine, the bits that four rows have."""
    most = max(_TILE, min(_BLOCK, _ONE_THREAD // (inputs * units) // _TILE * _TILE))
    random = np.random.default_rng(0)
    rows, matrix = (
        random.standard_normal(shape, np.float32) for shape in ((most, inputs), (inputs, units))
    )
    wanted = np.matmul(rows.reshape(-1, _TILE, inputs), matrix).reshape(most, units)
    for count in range(2 * _TILE, most + 1, _TILE):
        if not np.array_equal(rows[:count] @ matrix, wanted[:count]):
            return count - _TILE
    return most


def _tiled(rows: int) -> int:
    """`rows` rounded up to whole tiles."""
    return -(-rows // _TILE) * _TILE


@dataclass(frozen=True)
class _Head:
    """Median plus non-negative gaps on either side, so that quantiles cannot cross."""

    kernel: Floats  # (U, K): of the median, then of the gaps from the lowest up
    bias: Floats  # (K,)

    @classmethod
    def of(cls, weights: Mapping[str, Floats32]) -> Self:
        parts = [name for name in ("median", "gaps") if f"{name}/bias" in weights]
        kernels = [weights[f"{part}/kernel"] for part in parts]
        biases = [weights[f"{part}/bias"] for part in parts]
        return cls(
            np.concatenate(kernels, axis=1, dtype=np.float64),
            np.concatenate(biases, dtype=np.float64),
        )

    @property
    def levels(self) -> int:
        return len(self.bias)

    @cached_property
    def is_blind(self) -> bool:
        """It says the same whatever the layers found, as does that of `baseline_weights`."""
        return not self.kernel.any()

    def __call__(self, hidden: Floats32) -> Floats:
        """(B, U) float32 -> (B, K) float64, rising along K."""
        # A sum over the axis, not a product: its order does not depend on the rows beside.
        out = (hidden[:, :, None] * self.kernel).sum(axis=1) + self.bias
        median, gaps = out[:, :1], np.logaddexp(0.0, out[:, 1:])
        half = gaps.shape[1] // 2
        below = median - np.cumsum(gaps[:, :half][:, ::-1], axis=1)[:, ::-1]
        above = median + np.cumsum(gaps[:, half:], axis=1)
        return np.concatenate([below, median, above], axis=1)


def _blocks(ends: Ints, size: int) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring `ends`, cut into blocks `[first, last + 1)`."""
    breaks = np.flatnonzero(np.diff(ends) != 1) + 1
    for run in np.split(ends, breaks):
        for start in range(int(run[0]), int(run[-1]) + 1, size):
            yield start, min(start + size, int(run[-1]) + 1)
