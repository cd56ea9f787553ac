"""The network as the training graph runs it: TensorFlow's fused LSTM kernel beside stock Keras.

The Keras model of `lstm_model.fitting.network` stays the definition. `FusedNetwork` computes the
same numbers from the same weights, time-major and with one kernel per layer instead of one loop;
`choose_network` compares the two on a batch before the first training and falls back to Keras.
Measured on two cores with benchmarks/bench_training.py, windows per second of training: 9.1k
against 2.6k of `model.fit` at batch 64, 10.1k against 4.1k at batch 256.

Shapes: R rows, B windows in a batch, L lookback, F features, U units, K levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lstm_model.settings import Settings

Tensor = Any
Weights = dict[str, NDArray[np.float32]]
Loss = Callable[[Tensor, Tensor], Tensor]

_TOLERANCE = 1e-4  # chosen: float32 noise is about 1e-6, a wrong gate order about 1


class TrainableNetwork(Protocol):
    """What a training step needs: variables and a forecast that gradients flow through."""

    variables: list[Any]

    def __call__(self, rows: Tensor, ends: Tensor, seed: Tensor | None) -> Tensor:
        """Forecasts (B, K) of the windows of `rows` (R, F) that end at rows `ends` (B,)."""

    def weights(self) -> Weights:
        """Current weights under their exported names."""

    def assign(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Put exported weights back."""


def spread_matrix(n_levels: int) -> NDArray[np.float32]:
    """(K - 1, K) matrix that turns gaps >= 0 into levels around zero that cannot cross.

    With m the index of level 0.5, gap j < m lowers the levels 0..j and gap j >= m raises the
    levels j + 1 and up.
    """
    middle = n_levels // 2
    matrix = np.zeros((n_levels - 1, n_levels), np.float32)
    for gap in range(n_levels - 1):
        if gap < middle:
            matrix[gap, : gap + 1] = -1.0
        else:
            matrix[gap, gap + 1 :] = 1.0
    return matrix


def block_lstm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Hidden states (L, B, U) of an LSTM that starts from zeros.

    Parameters
    ----------
    x : (L, B, F) float32
    w : (F + U, 4 U) float32, kernel above recurrent kernel, gates i f c o
    b : (4 U,) float32
    """
    return tf.custom_gradient(_block_lstm)(x, w, b)


def _block_lstm(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
    units = w.shape[1] // 4
    start = tf.zeros([tf.shape(x)[1], units])
    peephole = tf.zeros([units])
    shared = {
        "seq_len_max": tf.shape(x, out_type=tf.int64)[0],
        "x": x, "cs_prev": start, "h_prev": start, "w": w, "b": b,
        "wci": peephole, "wcf": peephole, "wco": peephole, "use_peephole": False,
    }  # fmt: skip
    out = tf.raw_ops.BlockLSTMV2(**shared, cell_clip=0.0)

    # TensorFlow 2.21 registers the gradient of version 1, whose gate order is another one.
    def gradient(h_grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        back = tf.raw_ops.BlockLSTMGradV2(
            **shared, **out._asdict(), cs_grad=tf.zeros_like(h_grad), h_grad=h_grad
        )
        # For a batch of no windows the kernel leaves these two as it found the memory.
        empty = tf.equal(tf.shape(x)[1], 0)
        w_grad = tf.where(empty, tf.zeros_like(w), back.w_grad)
        return back.x_grad, w_grad, tf.where(empty, tf.zeros_like(b), back.b_grad)

    return out.h, gradient


def dropout_mask(shape: Tensor, rate: float, seed: Tensor) -> Tensor:
    """Zeros for a `rate` of the elements, to the nearest 1/256, and 1 / (1 - rate) elsewhere.

    One random byte decides an element: a quarter of the time of one float each, which cost a
    tenth of a training step.
    """
    dropped = round(rate * 256)
    size = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform(
        [(size + 7) // 8], seed=seed, minval=None, maxval=None, dtype=tf.int64
    )
    random_bytes = tf.reshape(tf.bitcast(words, tf.int8), [-1])[:size]  # -128 .. 127
    kept = tf.reshape(random_bytes >= dropped - 128, shape)
    return tf.cast(kept, tf.float32) * (256 / (256 - dropped))


class FusedNetwork:
    """The network on `BlockLSTMV2`, with variables of its own."""

    def __init__(self, settings: Settings, weights: Weights) -> None:
        self._settings = settings
        self._names = [f"lstm_{layer + 1}" for layer in range(settings.layers)]
        self.variables = [tf.Variable(array) for array in _pack(weights, self._names)]
        self._spread = spread_matrix(len(settings.levels))

    def __call__(self, rows: Tensor, ends: Tensor, seed: Tensor | None) -> Tensor:
        x = gather_windows(rows, ends, self._settings.lookback, time_axis=0)  # (L, B, F)
        newest = x[-1]
        *lstm, kernel, bias = self.variables
        for layer in range(self._settings.layers):
            w, b = lstm[2 * layer : 2 * layer + 2]
            h = block_lstm(x, w.read_value(), b.read_value())  # (L, B, U)
            last = layer == self._settings.layers - 1
            x = self._drop(h[-1] if last else h, seed, layer)
        gaps = tf.nn.softplus(tf.matmul(tf.concat([x, newest], 1), kernel) + bias)
        return tf.matmul(gaps, self._spread)  # (B, K)

    def _drop(self, x: Tensor, seed: Tensor | None, layer: int) -> Tensor:
        if seed is None or not self._settings.dropout:
            return x
        return x * dropout_mask(tf.shape(x), self._settings.dropout, seed + tf.constant([layer, 0]))

    def weights(self) -> Weights:
        """Current weights under their exported names."""
        return _unpack([variable.numpy().copy() for variable in self.variables], self._names)

    def assign(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Put exported weights back."""
        for variable, array in zip(self.variables, _pack(weights, self._names), strict=True):
            variable.assign(array)


def _pack(
    weights: Mapping[str, NDArray[np.float32]], names: Sequence[str]
) -> list[NDArray[np.float32]]:
    packed = []
    for name in names:
        packed.append(np.concatenate([weights[f"{name}/kernel"], weights[f"{name}/recurrent"]]))
        packed.append(weights[f"{name}/bias"])
    return [*packed, weights["gaps/kernel"], weights["gaps/bias"]]


def _unpack(arrays: Sequence[NDArray[np.float32]], names: Sequence[str]) -> Weights:
    weights = {}
    for name, w, bias in zip(names, arrays[:-2:2], arrays[1:-2:2], strict=True):
        features = len(w) - len(bias) // 4
        weights[f"{name}/kernel"], weights[f"{name}/recurrent"] = w[:features], w[features:]
        weights[f"{name}/bias"] = bias
    weights["gaps/kernel"], weights["gaps/bias"] = arrays[-2:]
    return weights


class StockNetwork:
    """The Keras model itself behind the same interface: the reference and the fall-back."""

    def __init__(self, settings: Settings, model: keras.Model) -> None:
        self._lookback = settings.lookback
        self._model = model
        self.variables = [variable.value for variable in named_variables(model).values()]

    def __call__(self, rows: Tensor, ends: Tensor, seed: Tensor | None) -> Tensor:
        windows = gather_windows(rows, ends, self._lookback, time_axis=1)  # (B, L, F)
        return self._model(windows, training=seed is not None)

    def weights(self) -> Weights:
        """Current weights under their exported names."""
        return export_weights(self._model)

    def assign(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Put exported weights back."""
        for name, variable in named_variables(self._model).items():
            variable.assign(weights[name])


def named_variables(model: keras.Model) -> dict[str, Any]:
    """The trainable Keras variables of a network under their exported names."""
    named = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.LSTM):
            named[f"{layer.name}/kernel"] = layer.cell.kernel
            named[f"{layer.name}/recurrent"] = layer.cell.recurrent_kernel
            named[f"{layer.name}/bias"] = layer.cell.bias
        elif layer.name == "gaps":
            named[f"{layer.name}/kernel"] = layer.kernel
            named[f"{layer.name}/bias"] = layer.bias
    return named


def export_weights(model: keras.Model) -> Weights:
    """The trained arrays by name; `lstm_model.fitting.network` lists names, shapes and order."""
    return {name: variable.numpy().copy() for name, variable in named_variables(model).items()}


def gather_windows(rows: Tensor, ends: Tensor, lookback: int, time_axis: int) -> Tensor:
    """Windows of `lookback` rows that end at rows `ends`: (L, B, F) or, time axis 1, (B, L, F)."""
    back = tf.expand_dims(tf.range(1 - lookback, 1), 1 - time_axis)
    return tf.gather(rows, tf.expand_dims(ends, time_axis) + back)


def choose_network(
    settings: Settings, model: keras.Model, loss: Loss, batch: Mapping[str, Tensor] | None
) -> tuple[TrainableNetwork, str | None]:
    """The fused network, or the stock one and the reason.

    Parameters
    ----------
    batch
        `rows` (R, F), `ends` (B,) int32 and `targets` (B,) of the windows to compare on; None where
        the two are known to be equal.
    """
    stock = StockNetwork(settings, model)
    try:
        fused = FusedNetwork(settings, stock.weights())
        difference = 0.0 if batch is None else largest_difference(fused, stock, loss, batch)
    except (AttributeError, ValueError, tf.errors.OpError) as error:
        return stock, f"the fused LSTM kernel failed: {error}"
    if not difference <= _TOLERANCE:
        return stock, f"the fused LSTM kernel differs from Keras by {difference:.1e}"
    return fused, None


def largest_difference(
    fused: TrainableNetwork, stock: TrainableNetwork, loss: Loss, batch: Mapping[str, Tensor]
) -> float:
    """Largest difference in outputs and gradients, relative to the stock network's largest.

    A gradient that cancels to almost nothing has no digits of its own to compare: it counts
    relative to a tenth of the largest of all.
    """
    names = stock.weights()
    forecast, gradients = _outputs_and_gradients(fused, loss, batch)
    expected, stock_gradients = _outputs_and_gradients(stock, loss, batch)
    layers = [name.removesuffix("/recurrent") for name in names if name.endswith("/recurrent")]
    unpacked = _unpack(gradients, layers)
    floor = 0.1 * max(float(np.abs(gradient).max()) for gradient in stock_gradients)
    differences = [
        _relative_difference(unpacked[name], gradient, floor)
        for name, gradient in zip(names, stock_gradients, strict=True)
    ]
    return max(_relative_difference(forecast, expected, 0.0), *differences)


def _outputs_and_gradients(
    network: TrainableNetwork, loss: Loss, batch: Mapping[str, Tensor]
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    def run() -> Any:
        with tf.GradientTape() as tape:
            forecast = network(batch["rows"], batch["ends"], None)
            value = tf.reduce_mean(loss(batch["targets"], forecast))
        return forecast, tape.gradient(value, network.variables)

    forecast, gradients = tf.function(run, autograph=False)()
    return forecast.numpy(), [gradient.numpy() for gradient in gradients]


def _relative_difference(
    found: NDArray[np.float32], wanted: NDArray[np.float32], floor: float
) -> float:
    scale = max(float(np.abs(wanted).max()), floor) or 1.0
    return float(np.abs(found - wanted).max()) / scale
