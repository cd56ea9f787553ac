"""The network: a stock Keras model, how it is fitted, and what leaves it as arrays.

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

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lstm_model.errors import TrainingError
from lstm_model.settings import Settings
from lstm_model.training.fused import (
    Loss,
    Tensor,
    TrainableNetwork,
    Weights,
    choose_network,
    export_weights,
    named_variables,
    spread_matrix,
)

Report = Callable[[dict[str, Any]], None]
Ends = NDArray[np.int32]

# A batch is learnt in independent parts of about this many windows, at least two, one per thread
# at a time. Their number depends on the batch alone, so the thread count changes no result.
# Measured on two cores: parts of 64 are as fast as two of 128, parts of 16 lose a fifth.
_PART_WINDOWS = 64
_MOST_PARTS = 8
# Windows x candles x layers x units squared of one call into the graph. Chosen: the default network
# takes half a second over it, so progress moves at least that often.
_CHUNK_WORK = 4_096 * 60 * 2 * 50**2
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Keras's own defaults for Adam
_PARITY_WINDOWS = 8


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


@dataclass(frozen=True)
class Job:
    """One training: scaled rows, targets and the windows to learn from and to stop by.

    Attributes
    ----------
    rows : (R, F) float32
    targets : (R,) float32, volatility-scaled log return
    train_ends, validation_ends : (N,), (M,) int32, last row of each window
    initial : exported weights to start from, instead of random ones
    """

    settings: Settings
    rows: NDArray[np.float32]
    targets: NDArray[np.float32]
    train_ends: Ends
    validation_ends: Ends
    initial: Mapping[str, NDArray[np.float32]] | None = None

    @property
    def windows(self) -> int:
        """Windows that an epoch may draw: all of them, or `epoch_windows` when there are more."""
        return min(self.settings.epoch_windows, len(self.train_ends))

    @property
    def batch(self) -> int:
        """Windows per step: the setting, or all of an epoch's when there are fewer."""
        return min(self.settings.batch_size, self.windows)

    @property
    def steps(self) -> int:
        """Steps per epoch; the few windows that do not fill a batch wait for the next shuffle."""
        return self.windows // self.batch

    @property
    def chunk(self) -> int:
        """Steps that one call into the graph takes."""
        settings = self.settings
        work = self.batch * settings.lookback * settings.layers * settings.units**2
        return max(1, _CHUNK_WORK // work)


class TrainingGraph:
    """The compiled steps of one training: windows are gathered and learnt inside the graph."""

    def __init__(self, job: Job) -> None:
        settings = job.settings
        self.model = build_network(settings, job.rows.shape[1])
        if job.initial is not None:
            import_weights(self.model, job.initial)
        self._seed, self._rate = settings.seed, settings.learning_rate
        self._all_steps = float(settings.max_epochs * job.steps)
        self._parts = min(_MOST_PARTS, max(2, job.batch // _PART_WINDOWS))
        self._loss = loss_of(settings)
        self._rows, self._targets = tf.constant(job.rows), tf.constant(job.targets)
        self.network, self.fallback = self._choose(job)
        self._moments = [
            (tf.Variable(tf.zeros_like(variable)), tf.Variable(tf.zeros_like(variable)))
            for variable in self.network.variables
        ]
        self._train = self._compile(self._train_batches, [None, job.batch], [])
        self._evaluate = self._compile(self._sum_losses, [None])

    def _choose(self, job: Job) -> tuple[TrainableNetwork, str | None]:
        ends = tf.constant(job.train_ends[:_PARITY_WINDOWS])
        batch = {"rows": self._rows, "ends": ends, "targets": tf.gather(self._targets, ends)}
        return choose_network(job.settings, self.model, self._loss, batch)

    def _compile(self, function: Any, *shapes: list[int | None]) -> Any:
        signature = [tf.TensorSpec(shape, tf.int32) for shape in shapes]
        return tf.function(function, input_signature=signature, autograph=False)

    def train(self, batches: Ends, first_step: int) -> float:
        """Learn from `batches` (S, B) window ends; mean loss of the S steps."""
        return float(self._train(batches, np.int32(first_step))) / len(batches)

    def evaluate(self, ends: Ends, block: int) -> float:
        """Mean loss without dropout over window `ends` (M,), `block` windows at a time."""
        blocks = [ends[start : start + block] for start in range(0, len(ends), block)]
        return sum(float(self._evaluate(part)) for part in blocks) / len(ends)

    def _train_batches(self, batches: Tensor, first_step: Tensor) -> Tensor:
        def body(index: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            step = first_step + index
            loss, gradients = self._gradients(batches[index], step)
            self._apply(gradients, tf.cast(step + 1, tf.float32))
            return index + 1, total + loss

        count = tf.shape(batches)[0]
        return tf.while_loop(lambda index, _: index < count, body, [0, 0.0])[1]

    def _gradients(self, ends: Tensor, step: Tensor) -> tuple[Tensor, list[Tensor]]:
        losses, gradients = [], []
        for number, part in enumerate(self._split(ends)):
            seed = tf.stack([self._seed, step * _MOST_PARTS + number])
            with tf.GradientTape() as tape:
                loss = self._sum_loss(part, seed) / tf.cast(tf.shape(ends)[0], tf.float32)
            losses.append(loss)
            gradients.append(tape.gradient(loss, self.network.variables))
        return tf.add_n(losses), [tf.add_n(parts) for parts in zip(*gradients, strict=True)]

    def _split(self, ends: Tensor) -> list[Tensor]:
        size = tf.shape(ends)[0]
        bounds = [size * part // self._parts for part in range(self._parts + 1)]
        return [ends[start:end] for start, end in itertools.pairwise(bounds)]

    def _sum_loss(self, ends: Tensor, seed: Tensor | None) -> Tensor:
        forecast = self.network(self._rows, ends, seed)
        return tf.reduce_sum(self._loss(tf.gather(self._targets, ends), forecast))

    def _sum_losses(self, ends: Tensor) -> Tensor:
        return tf.add_n([self._sum_loss(part, None) for part in self._split(ends)])

    def _apply(self, gradients: list[Tensor], step: Tensor) -> None:
        """Adam (Kingma & Ba 2015), with a step size that falls to zero in a straight line.

        Measured on recorded 5m candles at two dates: the pinball loss of the twelve weeks that
        followed was 0.2 and 0.3 % lower than with a constant one.
        """
        rate = self._rate * (1.0 - (step - 1.0) / self._all_steps)
        for variable, moments, gradient in zip(
            self.network.variables, self._moments, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=moments[0].handle, v=moments[1].handle,
                beta1_power=_BETA_1**step, beta2_power=_BETA_2**step, lr=rate,
                beta1=_BETA_1, beta2=_BETA_2, epsilon=_EPSILON, grad=gradient,
            )  # fmt: skip


@dataclass
class Fit:
    """The fitting of one job: epochs, early stopping, the best weights so far.

    `best_epoch` 0 stands for the initial weights, whose validation loss is `initial_loss`; the
    history begins with epoch 1.
    """

    job: Job
    graph: TrainingGraph
    report: Report
    history: list[dict[str, float]] = field(default_factory=list)
    best: Weights = field(default_factory=dict)
    best_epoch: int = 0
    initial_loss: float | None = None
    _started_s: float = field(default_factory=time.monotonic)
    _loss: float = float("nan")
    _best_loss: float = float("inf")

    def run(self) -> None:
        """Train until the validation loss stops falling, then restore the best epoch's weights.

        Initial weights are what the epochs have to beat: when none does, they are the result.

        Raises
        ------
        TrainingError
            When a loss is not finite.
        """
        settings = self.job.settings
        order = np.random.default_rng(settings.seed)
        self._started_s = time.monotonic()
        if self.job.initial is not None:
            self._measure_initial()
        for epoch in range(1, settings.max_epochs + 1):
            self._run_epoch(epoch, order.permutation(self.job.train_ends))
            if epoch - self.best_epoch >= settings.patience:
                break
        import_weights(self.graph.model, self.best)

    def _measure_initial(self) -> None:
        loss = self._validate()
        if not np.isfinite(loss):
            raise TrainingError(f"the validation loss of the initial weights is {loss}")
        self.initial_loss = self._best_loss = loss
        self.best = self.graph.network.weights()

    def _validate(self) -> float:
        return self.graph.evaluate(self.job.validation_ends, self.job.batch)

    def _run_epoch(self, epoch: int, ends: Ends) -> None:
        started_s = time.monotonic()
        losses = list(self.train_epoch(epoch, ends))
        loss = float(np.mean(losses))
        validation_loss = self._validate()
        if not np.isfinite([loss, validation_loss]).all():
            raise TrainingError(
                f"epoch {epoch}: the loss is not finite ({loss}, validation {validation_loss}); "
                "lower learning_rate"
            )
        if validation_loss < self._best_loss:
            self._best_loss, self.best_epoch = validation_loss, epoch
            self.best = self.graph.network.weights()
        self.history.append(
            {
                "epoch": epoch, "loss": loss, "validation_loss": validation_loss,
                "seconds": time.monotonic() - started_s,
            }
        )  # fmt: skip
        self._tell(epoch, self.job.steps)

    def train_epoch(self, epoch: int, ends: Ends) -> Iterator[float]:
        """Learn from the first of shuffled window `ends` (N,), as many as an epoch may draw.

        Goes chunk by chunk; yields each step's mean loss.
        """
        batch, steps = self.job.batch, self.job.steps
        batches = ends[: steps * batch].reshape(steps, batch)
        chunk = self.job.chunk
        for start in range(0, steps, chunk):
            part = batches[start : start + chunk]
            first = (epoch - 1) * steps + start
            self._loss = self.graph.train(part, first)
            yield from [self._loss] * len(part)
            self._tell(epoch, start + len(part))

    def _tell(self, epoch: int, step: int) -> None:
        epochs, steps = self.job.settings.max_epochs, self.job.steps
        done = ((epoch - 1) * steps + step) / (epochs * steps)
        elapsed_s = time.monotonic() - self._started_s
        self.report(
            {
                "stage": "training", "epoch": epoch, "epochs": epochs,
                "step": step, "steps": steps, "fraction": done, "loss": self._loss,
                "validation_loss": self.history[-1]["validation_loss"] if self.history else None,
                "windows_per_s": done * epochs * steps * self.job.batch / elapsed_s,
                "eta_s": elapsed_s * (1.0 - done) / done,
            }
        )  # fmt: skip


def fit_network(job: Job, report: Report) -> Fit:
    """Build, compile and train; the same job gives the same weights bit for bit."""
    keras.utils.set_random_seed(job.settings.seed)
    report({"stage": "compiling"})
    fit = Fit(job, TrainingGraph(job), report)
    fit.run()
    return fit


def write_result(workdir: Path, fit: Fit) -> None:
    """Leave the weights, the Keras file and the history in the job folder."""
    weights = export_weights(fit.graph.model)
    fit.graph.model.save(workdir / "network.keras")
    np.savez(workdir / "result.npz", **weights)  # type: ignore[arg-type]
    result = {
        "epochs": len(fit.history), "best_epoch": fit.best_epoch, "history": fit.history,
        "fallback": fit.graph.fallback, "initial_loss": fit.initial_loss,
    }  # fmt: skip
    (workdir / "result.json").write_text(json.dumps(result))


def use_threads(count: int) -> None:
    """One operation per thread, `count` of them at a time; must precede the first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(count)
    tf.config.experimental.enable_op_determinism()
