"""A second implementation of training: random LSTM, quantiles of the past, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lstm_reference import random_weights
from series import STEP_MS

from lstm_model.learning.chain import Learning
from lstm_model.market.candles import Candles, Records, unknown_flow
from lstm_model.settings import Settings
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore
from lstm_model.trading.outlook import Terms
from lstm_model.training.job import Progress, TrainingJob, TrainingResult, is_trained
from lstm_model.training.maker import ModelMaker
from lstm_model.training.trainer import ProgressCallback, Stop

SETTINGS = Settings(
    lookback=8, horizon=2, units=16, layers=1, train_candles=1_000, retrain_candles=150,
    training_lag_candles=5, step_candles=50, finetune_candles=100, finetune_recent_candles=200,
    finetune_replay=1.0, drift_cooldown_candles=50, pool_candles=10_000,
    validation_fraction=0.1, test_fraction=0.15,
)  # fmt: skip

OF_THE_NEWEST = 19  # features that a network of random weights can make something of
GLANCE = 0.01  # how much it sees of the others, which must change bits and no decisions


class InstantTraining:
    """Stands in for `TRAINER`; deterministic, and counts its jobs."""

    def __init__(self) -> None:
        self.jobs: list[TrainingJob] = []

    def prepare(self, settings: Settings, background: bool) -> None:
        """Nothing has to be started."""

    def run(
        self, job: TrainingJob, workdir: Path, progress: ProgressCallback | None = None,
        stop: Stop | None = None, *, background: bool = True, ahead: bool = False,
    ) -> TrainingResult:  # fmt: skip
        self.jobs.append(job)
        if progress is not None:
            progress(Progress(stage="training", fraction=1.0))
        network = workdir / "network.keras"
        network.write_bytes(b"a Keras file")
        return TrainingResult(fit(job), network, 1, 1, (), None, 0.01)


class ScriptedTraining(InstantTraining):
    """Trains as a test says, by a function in the place of `run`."""

    def __init__(self, run: Callable[..., object]) -> None:
        super().__init__()
        self.run = run  # type: ignore[assignment,method-assign]


def fit(job: TrainingJob) -> dict[str, np.ndarray]:
    """Weights as exported, without scaler and mean; its gaps are those of the training windows.

    A fine-tuning keeps the LSTM of `job.initial` and goes half the way to the new widths.
    """
    levels, tuned = job.settings.levels, job.initial is not None
    weights = start_of(job)
    target = job.targets[job.train_ends].astype(np.float64)
    newest = job.rows[job.train_ends].astype(np.float64)
    gaps = np.diff(np.quantile(target - newest @ np.linalg.lstsq(newest, target)[0], levels))
    if tuned:
        gaps = 0.5 * gaps + 0.5 * np.log1p(np.exp(weights["gaps/bias"].astype(np.float64)))
    found = {
        "gaps/kernel": weights["gaps/kernel"] * (1.0 if tuned else 0.02),
        "gaps/bias": np.log(np.expm1(gaps)),
    }
    return weights | {name: array.astype(np.float32) for name, array in found.items()}


def start_of(job: TrainingJob) -> dict[str, np.ndarray]:
    """The weights that a training starts from, without scaler and mean."""
    settings = job.settings
    weights = job.initial or random_weights(
        OF_THE_NEWEST, settings.units, len(settings.levels), layers=settings.layers,
        seed=settings.seed,
    )  # fmt: skip
    if job.initial is None:
        random, others = np.random.default_rng(settings.seed), job.rows.shape[1] - OF_THE_NEWEST
        for name in ("lstm_1/kernel", "gaps/kernel"):
            kernel = weights[name]
            end = OF_THE_NEWEST if name == "lstm_1/kernel" else len(kernel)
            more = GLANCE * random.normal(size=(others, kernel.shape[1])).astype(np.float32)
            weights = weights | {name: np.concatenate([kernel[:end], more])}
    return {name: array for name, array in weights.items() if is_trained(name)}


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


def make_learning(
    root: Path, series: Sequence[Candles], settings: Settings = SETTINGS,
    history: Callable[[str], Candles | None] | None = None, followed: Sequence[str] = (),
) -> Learning:  # fmt: skip
    """A learner of such a maker's models, which keeps its steps beside them."""
    return Learning(make_maker(root, series, settings, history), StepStore(root), followed)


def make_terms(settings: Settings = SETTINGS) -> Terms:
    """No costs, so that any proven forecast leads to an entry."""
    free = settings.model_copy(update={"slippage_fraction": 0.0, "half_spread_fraction": 0.0})
    return Terms(free, fee_fraction=0.0, can_short=True)
