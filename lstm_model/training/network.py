"""The network: a stock Keras model, what it is fitted by, and what leaves it as arrays.

`lstm_model.training.network_process` runs it in a process of its own.

Exported weights (float32; gates in Keras's order i f c o; F features, U units, K levels):

    lstm_1/kernel (F, 4U)    lstm_1/recurrent (U, 4U)    lstm_1/bias (4U,)    and lstm_2/ ...
    median/kernel (U, 1)     median/bias (1,)
    gaps/kernel (U, K - 1)   gaps/bias (K - 1,)          only for loss "quantile"

With h the last hidden state, median = h @ median/kernel + median/bias, g = softplus(h @ gaps/kernel
+ gaps/bias) and m the index of level 0.5:

    level j < m:  median - g[j] - ... - g[m - 1]
    level j > m:  median + g[m] + ... + g[j - 1]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lstm_model.errors import TrainingError
from lstm_model.settings import Settings
from lstm_model.training.fused import Loss, Tensor, named_variables, spread_matrix


def build_network(settings: Settings, n_features: int) -> keras.Model:
    """The network as a stock Keras model: (B, L, F) windows to (B, K) forecasts.

    K is the number of levels, in rising order, or 1 for `loss: mse`. The quantiles cannot cross:
    a fixed matrix adds positive gaps to the median. A saved file loads with plain Keras.
    """
    inputs = x = keras.Input((settings.lookback, n_features), name="window")
    for layer in range(1, settings.layers + 1):
        whole = layer < settings.layers
        x = keras.layers.LSTM(settings.units, return_sequences=whole, name=f"lstm_{layer}")(x)
        x = keras.layers.Dropout(settings.dropout, name=f"dropout_{layer}")(x)
    median = keras.layers.Dense(1, name="median")(x)
    if settings.loss == "mse":
        return keras.Model(inputs, median)
    return keras.Model(inputs, _spread_levels(median, x, len(settings.levels)))


def _spread_levels(median: Any, x: Any, n_levels: int) -> Any:
    gaps = keras.layers.Dense(n_levels - 1, activation="softplus", name="gaps")(x)
    levels = keras.layers.Dense(n_levels, use_bias=False, trainable=False, name="levels")
    outputs = levels(keras.layers.Concatenate(name="median_and_gaps")([median, gaps]))
    levels.set_weights([spread_matrix(n_levels)])
    return outputs


def import_weights(model: keras.Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Put exported weights back into a model of the same settings; a scaler is left out.

    Raises
    ------
    TrainingError
        Names every array that is missing, foreign or misshapen.
    """
    variables = named_variables(model)
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    found = {name: array.shape for name, array in weights.items() if not name.startswith("scaler/")}
    wrong = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if wrong:
        problems = "; ".join(
            f"{name}: found {found.get(name, 'none')}, the network has {wanted.get(name, 'none')}"
            for name in wrong
        )
        raise TrainingError(f"the weights do not fit the network of these settings: {problems}")
    for name, variable in variables.items():
        variable.assign(weights[name])


def pinball_loss(levels: tuple[float, ...]) -> Loss:
    """Pinball loss (B,) of targets (B,) and forecasts (B, K), the mean over the K levels."""
    rising = tf.constant(levels, tf.float32)

    def loss(targets: Tensor, forecast: Tensor) -> Tensor:
        error = targets[:, None] - forecast  # (B, K)
        return tf.reduce_mean(tf.maximum(rising * error, (rising - 1.0) * error), axis=1)

    return loss


def squared_loss(targets: Tensor, forecast: Tensor) -> Tensor:
    """Squared error (B,) of targets (B,) and forecasts (B, 1)."""
    return tf.square(targets - forecast[:, 0])


def loss_of(settings: Settings) -> Loss:
    """The loss that the settings ask for: targets (B,) and forecasts (B, K) to losses (B,)."""
    return squared_loss if settings.loss == "mse" else pinball_loss(settings.levels)


def use_threads(count: int) -> None:
    """One operation per thread, `count` of them at a time; must precede the first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(count)
    tf.config.experimental.enable_op_determinism()
