"""The network: a stock Keras model, what it is fitted by, and what leaves it as arrays.

`lstm_model.fitting.process` runs it in a process of its own.

Exported weights (float32; gates in Keras's order i f c o; F features, U units, K levels):

    lstm_1/kernel (F, 4U)        lstm_1/recurrent (U, 4U)    lstm_1/bias (4U,)    and lstm_2/ ...
    gaps/kernel (U + F, K - 1)   gaps/bias (K - 1,)

The head sees z = [last hidden state (U), newest row of the window (F)]. With g = softplus(
z @ gaps/kernel + gaps/bias) and m the index of level 0.5:

    level j < m:  -g[j] - ... - g[m - 1]
    level m:      0
    level j > m:  g[m] + ... + g[j - 1]

The middle stands at zero: a mean that is trained with the widths spoils them. It is learnt after
them and apart, see `lstm_model.model.mean`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lstm_model.errors import TrainingError
from lstm_model.fitting.fused import Loss, Tensor, named_variables, spread_matrix
from lstm_model.model.weights import is_trained
from lstm_model.settings import Settings


def build_network(settings: Settings, n_features: int) -> keras.Model:
    """The network as a stock Keras model: (B, L, F) windows to (B, K) quantiles around zero.

    K is the number of levels, in rising order. The quantiles cannot cross: a fixed matrix adds up
    positive gaps. A saved file loads with plain Keras.
    """
    inputs = x = keras.Input((settings.lookback, n_features), name="window")
    for layer in range(1, settings.layers + 1):
        whole = layer < settings.layers
        x = keras.layers.LSTM(settings.units, return_sequences=whole, name=f"lstm_{layer}")(x)
        x = keras.layers.Dropout(settings.dropout, name=f"dropout_{layer}")(x)
    row = keras.layers.Cropping1D((settings.lookback - 1, 0), name="newest_row")(inputs)
    newest = keras.layers.Flatten(name="newest")(row)
    z = keras.layers.Concatenate(name="head_inputs")([x, newest])
    return keras.Model(inputs, _spread_levels(z, settings.units, len(settings.levels)))


def _spread_levels(z: Any, units: int, n_levels: int) -> Any:
    dense = keras.layers.Dense(n_levels - 1, activation="softplus", name="gaps")
    gaps = dense(z)
    # The direct way begins closed. Measured (1h and 5m, two seeds each, features of several time
    # scales): from random numbers the pinball loss of the months after was 0.4 to 0.8 % higher.
    kernel, bias = dense.get_weights()
    kernel[units:] = 0.0
    dense.set_weights([kernel, bias])
    levels = keras.layers.Dense(n_levels, use_bias=False, trainable=False, name="levels")
    outputs = levels(gaps)
    levels.set_weights([spread_matrix(n_levels)])
    return outputs


def import_weights(model: keras.Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Put exported weights back into a model of the same settings, but no scaler and no mean.

    Raises
    ------
    TrainingError
        As `check_weights`.
    """
    variables = named_variables(model)
    check_weights(weights, {name: tuple(found.shape) for name, found in variables.items()})
    for name, variable in variables.items():
        variable.assign(weights[name])


def check_weights(
    weights: Mapping[str, NDArray[np.float32]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Whether these fit a network whose arrays have the `wanted` shapes.

    Raises
    ------
    TrainingError
        Names every array that is missing, foreign or misshapen.
    """
    found = {n: array.shape for n, array in weights.items() if is_trained(n)}
    wrong = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if wrong:
        problems = "; ".join(
            f"{name}: found {found.get(name, 'none')}, the network has {wanted.get(name, 'none')}"
            for name in wrong
        )
        raise TrainingError(f"the weights do not fit the network of these settings: {problems}")


class Averaged:
    """One stock Keras model that answers with the mean of several; of one, with its own answer.

    It takes other weights again and again: to build such a model takes as long as a fine-tuning's
    epoch.
    """

    def __init__(self, settings: Settings, n_features: int, count: int) -> None:
        keras.backend.clear_session(free_memory=False)  # the same names whatever was built before
        self._members = [build_network(settings, n_features) for _ in range(count)]
        self._whole = self._members[0]
        if count > 1:
            inputs = keras.Input(self._whole.input_shape[1:], name="window")
            for number, member in enumerate(self._members, 1):
                member.name = f"member_{number}"
            mean = keras.layers.Average()([member(inputs) for member in self._members])
            self._whole = keras.Model(inputs, mean)

    def of(self, weights: Sequence[Mapping[str, NDArray[np.float32]]]) -> keras.Model:
        """The model with these exported weights, one set for each; it is good until the next."""
        for member, each in zip(self._members, weights, strict=True):
            import_weights(member, each)
        return self._whole


def pinball_loss(levels: tuple[float, ...]) -> Loss:
    """Pinball loss (B,) of targets (B,) and forecasts (B, K), the mean over the K levels."""
    rising = tf.constant(levels, tf.float32)

    def loss(targets: Tensor, forecast: Tensor) -> Tensor:
        error = targets[:, None] - forecast  # (B, K)
        return tf.reduce_mean(tf.maximum(rising * error, (rising - 1.0) * error), axis=1)

    return loss


def use_threads(count: int) -> None:
    """One operation per thread, `count` of them at a time; must precede the first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(count)
    tf.config.experimental.enable_op_determinism()
