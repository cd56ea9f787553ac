"""The compiled steps of training.

A graph is made for a shape of network and batch; jobs of the same shape take turns in it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lstm_model.fitting import fused
from lstm_model.fitting.fused import Tensor, TrainableNetwork, choose_network, export_weights
from lstm_model.fitting.network import (
    build_network,
    check_weights,
    import_weights,
    pinball_loss,
)
from lstm_model.fitting.parity import Parity
from lstm_model.model.weights import members, of_member
from lstm_model.settings import Settings

Ends = NDArray[np.int32]

# A batch is learnt in independent parts of about this many windows, at least two, one per thread
# at a time. Their number depends on the batch alone, so the thread count changes no result.
# Measured on two cores, LSTM(24): parts of 32 take a fifth more time than those of 64, parts of 128
# half as much again, parts of 16 almost twice as much.
_PART_WINDOWS = 64
_MOST_PARTS = 8
# Windows x candles x layers x units squared of one call into the graph: 4,096 windows of 60 candles
# for two LSTM(50), 133,000 of 16 for an LSTM(24). Chosen: half a second of two cores' work for the
# former, about one for the latter, so progress moves that often.
_CHUNK_WORK = 4_096 * 60 * 2 * 50**2
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Keras's own defaults for Adam
_PARITY_WINDOWS = 8
_SEEDS_APART = 1_000_003  # of members, so that models of neighbouring seeds share none


class Shape(NamedTuple):
    """What a compiled graph is made for; jobs that agree in it can share one."""

    lookback: int
    features: int
    units: int
    layers: int
    dropout: float
    levels: tuple[float, ...]
    batch: int


@dataclass(frozen=True)
class Job:
    """One training: scaled rows, targets and the windows to learn from and to stop by.

    Attributes
    ----------
    rows : (R, F) float32
    targets : (R,) float32, volatility-scaled log return
    train_ends, validation_ends : (N,), (M,) int32, last row of each window
    initial : exported weights to start from, instead of random ones
    parity : where it is remembered that the fused kernel equals Keras
    """

    settings: Settings
    rows: NDArray[np.float32]
    targets: NDArray[np.float32]
    train_ends: Ends
    validation_ends: Ends
    initial: Mapping[str, NDArray[np.float32]] | None = None
    parity: Parity | None = None

    @property
    def members(self) -> int:
        """How many networks it is to train: as many as there were, or as the settings say."""
        return self.settings.members if self.initial is None else members(self.initial)

    def member(self, number: int) -> Job:
        """The job of one of them alone. The first has the seed of the settings."""
        seed = (self.settings.seed + (number - 1) * _SEEDS_APART) % 2**31
        settings = self.settings.model_copy(update={"seed": seed, "members": 1})
        initial = None if self.initial is None else of_member(self.initial, number)
        return replace(self, settings=settings, initial=initial)

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

    @property
    def shape(self) -> Shape:
        """What its graph has to be made for."""
        s = self.settings
        return Shape(
            s.lookback, self.rows.shape[1], s.units, s.layers, s.dropout, s.levels, self.batch,
        )  # fmt: skip

    def model(self) -> keras.Model:
        """The Keras model to begin with: its initial weights, or random ones of its seed.

        What Keras remembers of models before is forgotten, so that this one has the same names.
        """
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(self.settings.seed)
        model = build_network(self.settings, self.rows.shape[1])
        if self.initial is not None:
            import_weights(model, self.initial)
        return model


class TrainingGraph:
    """Compiled steps of training: windows are gathered and learnt inside the graph.

    It is made for one job, and can be taken again for another of the same shape.

    Attributes
    ----------
    network : what learns; its weights begin as those of the job
    fallback : why it is a Keras model; None when it is the fused kernel
    """

    def __init__(self, job: Job) -> None:
        self._parts = min(_MOST_PARTS, max(2, job.batch // _PART_WINDOWS))
        self._loss = pinball_loss(job.settings.levels)
        self.network, self.fallback = self._choose(job)
        self._moments = [
            (tf.Variable(tf.zeros_like(variable)), tf.Variable(tf.zeros_like(variable)))
            for variable in self.network.variables
        ]
        data = _Data(_floats(None, job.shape.features), _floats(None))
        pace = _Pace(_whole(), _floats(), _floats())
        self._train = _compile(self._train_batches, _whole(None, job.batch), _whole(), data, pace)
        self._evaluate = _compile(self._sum_losses, _whole(None), data)
        self._load(job)

    def begin(self, job: Job) -> None:
        """Forget the last job, and take another of the same shape.

        Raises
        ------
        TrainingError
            The job's initial weights do not fit.
        """
        if job.initial is None:
            self.network.assign(export_weights(job.model()))
        else:  # a Keras model takes as long to build as an epoch of a fine-tuning
            wanted = {name: array.shape for name, array in self.network.weights().items()}
            check_weights(job.initial, wanted)
            self.network.assign(job.initial)
        for moment in itertools.chain.from_iterable(self._moments):
            moment.assign(tf.zeros_like(moment))
        self._load(job)

    def _load(self, job: Job) -> None:
        settings = job.settings
        self._data = _Data(tf.constant(job.rows), tf.constant(job.targets))
        self._pace = _Pace(
            tf.constant(settings.seed, tf.int32),
            tf.constant(settings.learning_rate, tf.float32),
            tf.constant(settings.max_epochs * job.steps, tf.float32),
        )

    def _choose(self, job: Job) -> tuple[TrainableNetwork, str | None]:
        network = {**job.shape._asdict(), **kernel_identity()}
        known = job.parity is not None and job.parity.is_known(network)
        # As tensors: an array would become a constant of the graph, 5 s of work for 50 MB.
        ends, rows = tf.constant(job.train_ends[:_PARITY_WINDOWS]), tf.constant(job.rows)
        batch = {"rows": rows, "ends": ends, "targets": tf.gather(job.targets, ends)}
        compared = None if known else batch
        chosen, fallback = choose_network(job.settings, job.model(), self._loss, compared)
        if job.parity is not None and fallback is None and not known:
            job.parity.remember(network)
        return chosen, fallback

    def train(self, batches: Ends, first_step: int) -> float:
        """Learn from `batches` (S, B) window ends; mean loss of the S steps."""
        loss = self._train(batches, np.int32(first_step), self._data, self._pace)
        return float(loss) / len(batches)

    def evaluate(self, ends: Ends, block: int) -> float:
        """Mean loss without dropout over window `ends` (M,), `block` windows at a time."""
        blocks = [ends[start : start + block] for start in range(0, len(ends), block)]
        return sum(float(self._evaluate(part, self._data)) for part in blocks) / len(ends)

    def _train_batches(
        self, batches: Tensor, first_step: Tensor, data: _Data, pace: _Pace
    ) -> Tensor:
        def body(index: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            step = first_step + index
            loss, gradients = self._gradients(batches[index], step, data, pace.seed)
            self._apply(gradients, tf.cast(step + 1, tf.float32), pace)
            return index + 1, total + loss

        count = tf.shape(batches)[0]
        return tf.while_loop(lambda index, _: index < count, body, [0, 0.0])[1]

    def _gradients(
        self, ends: Tensor, step: Tensor, data: _Data, first_seed: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        losses, gradients = [], []
        for number, part in enumerate(self._split(ends)):
            seed = tf.stack([first_seed, step * _MOST_PARTS + number])
            with tf.GradientTape() as tape:
                loss = self._sum_loss(part, data, seed) / tf.cast(tf.shape(ends)[0], tf.float32)
            losses.append(loss)
            gradients.append(tape.gradient(loss, self.network.variables))
        return tf.add_n(losses), [tf.add_n(parts) for parts in zip(*gradients, strict=True)]

    def _split(self, ends: Tensor) -> list[Tensor]:
        size = tf.shape(ends)[0]
        bounds = [size * part // self._parts for part in range(self._parts + 1)]
        return [ends[start:end] for start, end in itertools.pairwise(bounds)]

    def _sum_loss(self, ends: Tensor, data: _Data, seed: Tensor | None) -> Tensor:
        forecast = self.network(data.rows, ends, seed)
        return tf.reduce_sum(self._loss(tf.gather(data.targets, ends), forecast))

    def _sum_losses(self, ends: Tensor, data: _Data) -> Tensor:
        return tf.add_n([self._sum_loss(part, data, None) for part in self._split(ends)])

    def _apply(self, gradients: list[Tensor], step: Tensor, pace: _Pace) -> None:
        """Adam (Kingma & Ba 2015), with a step size that falls to zero in a straight line.

        Measured on recorded 5m candles at two dates: the pinball loss of the twelve weeks that
        followed was 0.2 and 0.3 % lower than with a constant one.
        """
        rate = pace.rate * (1.0 - (step - 1.0) / pace.steps)
        for variable, moments, gradient in zip(
            self.network.variables, self._moments, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=moments[0].handle, v=moments[1].handle,
                beta1_power=_BETA_1**step, beta2_power=_BETA_2**step, lr=rate,
                beta1=_BETA_1, beta2=_BETA_2, epsilon=_EPSILON, grad=gradient,
            )  # fmt: skip


class _Data(NamedTuple):
    """What windows are gathered from."""

    rows: Tensor  # (R, F)
    targets: Tensor  # (R,)


class _Pace(NamedTuple):
    """How one job goes through its graph."""

    seed: Tensor
    rate: Tensor  # of the first step
    steps: Tensor  # of all epochs


def _floats(*shape: int | None) -> Any:
    return tf.TensorSpec(shape, tf.float32)


def _whole(*shape: int | None) -> Any:
    return tf.TensorSpec(shape, tf.int32)


def _compile(function: Any, *signature: Any) -> Any:
    return tf.function(function, input_signature=signature, autograph=False)


@cache
def kernel_identity() -> dict[str, str]:
    """Beside the shape and the machine, what decides whether the fused kernel equals Keras."""
    source = Path(fused.__file__).read_bytes()
    return {
        "tensorflow": f"{tf.version.GIT_VERSION} {tf.version.COMPILER_VERSION}",
        "keras": keras.__version__,
        "kernel": hashlib.sha256(source).hexdigest()[:16],
    }
