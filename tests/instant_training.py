"""A second implementation of training: random LSTM, least-squares head, done in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lstm_reference import hidden_states, random_weights
from series import STEP_MS

from lstm_model.config import Settings
from lstm_model.market import Candles, Records, unknown_flow
from lstm_model.outlook import Terms
from lstm_model.store import ModelStore
from lstm_model.trainer import Progress, ProgressCallback, Stop, TrainingJob, TrainingResult
from lstm_model.walk_forward import ModelMaker

SETTINGS = Settings(
    lookback=8, horizon=2, units=16, layers=1, train_candles=1_000, retrain_candles=150,
    training_lag_candles=5,
)  # fmt: skip


class InstantTraining:
    """Stands in for `run_training`; deterministic, and counts its jobs."""

    def __init__(self) -> None:
        self.jobs: list[TrainingJob] = []

    def __call__(
        self, job: TrainingJob, workdir: Path, progress: ProgressCallback | None = None,
        stop: Stop | None = None, *, background: bool = True,
    ) -> TrainingResult:  # fmt: skip
        self.jobs.append(job)
        if progress is not None:
            progress(Progress(stage="training", fraction=1.0))
        network = workdir / "network.keras"
        network.write_bytes(b"a Keras file")
        return TrainingResult(fit(job), network, 1, 1, (), None, 0.01)


def fit(job: TrainingJob) -> dict[str, np.ndarray]:
    """Weights as exported, without the scaler; its head is fitted to the training windows."""
    settings = job.settings
    weights = random_weights(
        job.rows.shape[1], settings.units, len(settings.levels), layers=settings.layers,
        seed=settings.seed,
    )  # fmt: skip
    weights = {name: array for name, array in weights.items() if not name.startswith("scaler/")}
    reach = np.arange(1 - settings.lookback, 1)
    blocks = np.array_split(job.train_ends[:, None] + reach, len(job.train_ends) // 100 + 1)
    hidden = np.concatenate([hidden_states(weights, job.rows[block]) for block in blocks])
    inputs = np.column_stack([hidden, np.ones(len(hidden))])
    target = job.targets[job.train_ends].astype(np.float64)
    gram = np.einsum("ni,nj->ij", inputs, inputs) + 1e-6 * np.eye(inputs.shape[1])
    head = np.linalg.solve(gram, np.einsum("ni,n->i", inputs, target))
    gaps = np.diff(np.quantile(target - inputs @ head, settings.levels))
    found = {
        "median/kernel": head[:-1, None],
        "median/bias": head[-1:],
        "gaps/kernel": 0.05 * weights["gaps/kernel"],
        "gaps/bias": np.log(np.expm1(gaps)),
    }
    return weights | {name: array.astype(np.float32) for name, array in found.items()}


def make_maker(
    root: Path, series: Sequence[Candles], settings: Settings = SETTINGS,
    history: Callable[[str], Candles | None] | None = None,
) -> ModelMaker:  # fmt: skip
    """A maker whose data directory holds `series`, and their order flow where they have one."""
    on_disk = {candles.pair: candles for candles in series}

    def flow(pair: str) -> Records:
        known = on_disk[pair].flow
        return unknown_flow(np.empty(0, np.int64)) if known is None else known

    return ModelMaker(
        settings, f"{STEP_MS // 60_000}m", list(on_disk), ModelStore(root), history or on_disk.get,
        flow,
    )  # fmt: skip


def make_terms(settings: Settings = SETTINGS) -> Terms:
    """No costs, so that any proven forecast leads to an entry."""
    free = settings.model_copy(update={"slippage_fraction": 0.0})
    return Terms(free, fee_fraction=0.0, can_short=True)
