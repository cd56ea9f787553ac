"""Training in the process of a study: the same code as the child's, without starting one each time.

A study trains a hundred networks; starting TensorFlow for each takes longer than a fine-tuning.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from lstm_model.training.trainer import CHILD_ENVIRONMENT

os.environ.update(CHILD_ENVIRONMENT)  # before TensorFlow is imported

import lstm_model.training.maker
from lstm_model.training.fused import export_weights
from lstm_model.training.network import Job, fit_network, use_threads
from lstm_model.training.trainer import (
    Epoch,
    Progress,
    ProgressCallback,
    Stop,
    TrainingJob,
    TrainingResult,
)


def train_here(
    job: TrainingJob, workdir: Path, progress: ProgressCallback | None = None,
    stop: Stop | None = None, *, background: bool = True,
) -> TrainingResult:  # fmt: skip
    """As `lstm_model.training.trainer.run_training`, in this process."""
    started_s = time.monotonic()
    ours = Job(
        job.settings, job.rows, job.targets, job.train_ends, job.validation_ends,
        initial=None if job.initial is None else _network_only(job.initial),
    )  # fmt: skip
    fit = fit_network(ours, lambda message: progress(Progress(**message)) if progress else None)
    network = workdir / "network.keras"
    fit.graph.model.save(network)
    return TrainingResult(
        {name: np.asarray(array) for name, array in export_weights(fit.graph.model).items()},
        network, len(fit.history), fit.best_epoch,
        tuple(Epoch(**epoch) for epoch in fit.history), fit.graph.fallback,
        time.monotonic() - started_s, fit.initial_loss,
    )  # fmt: skip


def _network_only(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in weights.items() if not name.startswith("scaler/")}


def train_in_this_process(threads: int) -> None:
    """Let every `ModelMaker` train here from now on; to be called before TensorFlow computes."""
    use_threads(threads)
    lstm_model.training.maker.run_training = train_here
