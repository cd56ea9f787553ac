"""How models come into being: from scratch, by fine-tuning, and the baseline.

A model's version is the hash of everything that decides its weights, so whoever needs it again
finds it in the store.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import lstm_model
from lstm_model.durations import DAY_MS
from lstm_model.errors import TrainingError
from lstm_model.features.closed_candle import feature_names
from lstm_model.features.context import REACH_DAYS, Contexts, leader_of
from lstm_model.market.candles import Floats, Ints, timeframe_ms
from lstm_model.market.history import CandleHistory, Disk, KnownFlow
from lstm_model.model.calibration import Calibration
from lstm_model.model.dataset import Panel, Panels, Scaler
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.gate import Evidence
from lstm_model.model.mean import Windows, learn_mean
from lstm_model.model.model import Model
from lstm_model.scoring import boosted
from lstm_model.scoring.evaluation import Evaluation, evaluate, means_by_moment
from lstm_model.settings import Settings
from lstm_model.store.card import ModelCard, canonical, code_digest, version_id
from lstm_model.store.models import ModelStore, StoredModel
from lstm_model.training import interpreter
from lstm_model.training.absence import Absence
from lstm_model.training.interpreter import Interpreter
from lstm_model.training.job import TrainingJob, TrainingResult, check_network
from lstm_model.training.material import Material, reach_ms
from lstm_model.training.trainer import TRAINER, ProgressCallback, Stop

logger = logging.getLogger(__name__)

_WORKDIR = "lstm-training-"
_LEFTOVER_S = 2 * 86_400.0  # chosen: no training takes longer than a day, see `train_timeout_s`
_VALIDATION_SHARE = 4  # chosen: validation sees at most a quarter of an epoch's windows

# The code that decides a model's weights and card; a change of any makes new versions.
_DECISIVE_MODULES = (
    "features.closed_candle", "features.context", "features.ingredients", "features.series",
    "fitting.fit", "fitting.fused", "fitting.graph", "fitting.network", "market.candles",
    "model.calibration", "model.dataset", "model.ensemble", "model.forecast", "model.gate",
    "model.lstm", "model.mean", "model.reliability", "model.weights", "scoring.boosted",
    "scoring.evaluation", "scoring.har", "training.maker", "training.material",
)  # fmt: skip

Weights = Mapping[str, NDArray[np.float32]]


class Candidate(NamedTuple):
    """A stored version with its out-of-sample record.

    Attributes
    ----------
    unseen_ms : candles that open from then on had no part in making it
    """

    stored: StoredModel
    unseen_ms: int
    evidence: Evidence


class Training(NamedTuple):
    """How a training is run.

    Attributes
    ----------
    progress : whom it tells
    stop : what ends it
    background : it takes only processor time that nothing else wants
    ahead : others that wait for a training process go first
    thorough : the card is to have the rival that takes long, where it is installed
    """

    progress: ProgressCallback | None = None
    stop: Stop | None = None
    background: bool = False
    ahead: bool = False
    thorough: bool = True


ALONE = Training()


class ModelMaker:
    """Finds a model in the store, or makes it.

    Parameters
    ----------
    pairs : what the pooled network learns from
    disk : pair -> its candles on disk, or None
    flow : pair -> order flow of its candles on disk (N,) FLOW, rising
    words : that name the configuration to a command, each after a blank

    Attributes
    ----------
    history : the candles on disk and those the bot has seen
    """

    def __init__(
        self, settings: Settings, timeframe: str, pairs: Sequence[str], store: ModelStore,
        disk: Disk, flow: KnownFlow | None = None, words: str = "",
    ) -> None:  # fmt: skip
        self.settings = settings
        self.timeframe = timeframe
        self.pairs = tuple(sorted(set(pairs)))
        self.store, self.words = store, words
        keep_ms = max(2 * reach_ms(settings, timeframe, len(self.pairs)), REACH_DAYS * DAY_MS)
        contexts = Contexts(leader_of(settings.leader, self.pairs))
        self.history = CandleHistory(settings, disk, flow, keep_ms, contexts)
        self._absence = Absence(contexts.leader, timeframe, words)

    def remove_leftovers(self) -> None:
        """Remove what trainings and writers left that were killed long ago."""
        self.store.remove_leftovers()
        oldest_s = time.time() - _LEFTOVER_S
        for folder in Path(tempfile.gettempdir()).glob(f"{_WORKDIR}*"):
            with suppress(OSError):  # another process was faster, or it is another user's
                if folder.stat().st_mtime < oldest_s:
                    shutil.rmtree(folder)

    def check_trainer(self, material: Material) -> None:
        """Refuse where nothing can train, and nobody has made the model of these candles before.

        Raises
        ------
        TrainingError
            No Python with TensorFlow was found; says what to run.
        """
        try:
            self._interpreter()
        except TrainingError:
            if not self.store.has(self.version(material)):
                raise

    def material(
        self, boundary_ms: int, known: Disk | None = None, panels: Panels | None = None
    ) -> Material:
        """Every pair's candles that a model may learn from at a boundary.

        Parameters
        ----------
        panels : of the boundaries before; None: the panel is built from nothing
        """
        material = Material.gather(
            self.settings, self.timeframe, self.pairs, boundary_ms,
            known or self.history.of, panels or Panels(), self.words,
        )  # fmt: skip
        self._absence.tell(material.candles)
        return material

    def version(self, material: Material, kind: str = "scratch", **parts: str) -> str:
        """Content address of a model of this kind that the material makes."""
        return version_id(
            kind=kind,
            settings=self.settings.digest(),
            data=material.digest,
            code=code_digest(_DECISIVE_MODULES),
            timeframe=self.timeframe,
            **parts,
        )

    def scratch(self, material: Material, training: Training = ALONE) -> Candidate:
        """The network trained from random weights: found, or trained, scored and stored.

        Raises
        ------
        DataError
            Too little history before the boundary.
        TrainingError
            The training failed or was stopped.
        StoreError
            The store cannot be written.
        """
        version = self.version(material)
        if self.store.has(version):
            stored = self.store.load(version)
            return _candidate(stored, self._evaluate(material, stored.weights))
        self._expect_training(training)
        panel, split, scaler = material.panel, material.split, material.scaler
        job = self._job(panel, split.train, split.validation, material.scaled)
        with _trained(job, training) as result:
            weights = self._with_mean(
                {**result.weights, **_named(scaler)}, panel, split.train, split.validation
            )
            thorough = training.thorough and boosted.is_installed()
            if thorough:
                logger.info("Scoring %s beside LightGBM, for its card: up to minutes", version)
            evaluation = self._evaluate(material, weights, thorough=thorough)
            card = self._evaluated_card(version, "scratch", material, evaluation, result)
            self.store.publish(card, weights, result.network)
        return _candidate(self.store.load(version), evaluation)

    def baseline(self, material: Material) -> Candidate:
        """Champion number zero: the past's quantiles in units of volatility, by HAR or EWMA.

        Raises
        ------
        DataError, StoreError
            As `scratch`.
        """
        weights = material.baselines.zero_weights()
        evaluation = self._evaluate(material, weights, shrinkage=0.0)
        version = self.version(material, "baseline")
        if not self.store.has(version):
            card = self._evaluated_card(version, "baseline", material, evaluation)
            self.store.publish(card, weights, None)
        return _candidate(self.store.load(version), evaluation)

    def finetune(
        self, material: Material, parent: Model, evidence: Evidence, training: Training = ALONE
    ) -> Candidate:
        """The parent's network after some more learning from the newest candles.

        It keeps the parent's scaler, interval scales and, until it has its own, its record. What
        its mean is worth is measured anew, on the newest candles, which were held out.

        Parameters
        ----------
        evidence : the parent's record

        Raises
        ------
        DataError, TrainingError, StoreError
            As `scratch`.
        """
        calibration = parent.calibration.to_card()
        version = self.version(
            material, "finetune", parent=parent.card.version,
            options=self.settings.finetune_digest(),
            calibration=hashlib.sha256(canonical(calibration)).hexdigest(),
        )  # fmt: skip
        if not self.store.has(version):
            self._expect_training(training)
            self._finetune(version, material, parent, training)
        stored = self.store.load(version)
        return Candidate(stored, material.boundary_ms, self._own(stored, material, evidence))

    def _expect_training(self, training: Training) -> None:
        """Have a training process begin while its job is made."""
        self.store.check_writable()
        TRAINER.prepare(self._for_trainer(self.settings), training.background)

    def _for_trainer(self, settings: Settings) -> Settings:
        """The same, which name the interpreter that trains. Raises as `check_trainer`."""
        return settings.model_copy(update={"train_python": self._interpreter().python})

    def _interpreter(self) -> Interpreter:
        return interpreter.find(self.settings.train_python, self.store.root, self.words)

    def _own(self, stored: StoredModel, material: Material, evidence: Evidence) -> Evidence:
        """The parent's record, with the worth of its own mean on the candles held out."""
        panel, rows = material.panel, material.recent_windows.validation
        calibration = Calibration.from_card(self.settings.levels, stored.card.calibration)
        raw = self._predictor(panel, stored.weights)(rows)
        mean = calibration.raw_mean(raw)
        realized = panel.target()[rows]
        return evidence.with_means(*means_by_moment(panel.date_ms[rows], mean * realized, mean**2))

    def _finetune(
        self, version: str, material: Material, parent: Model, training: Training
    ) -> None:
        initial = self.store.load(parent.card.version).weights
        scaler = Scaler(initial["scaler/mean"], initial["scaler/scale"])
        windows = material.recent_windows
        learnt = np.concatenate([windows.train, windows.replay])
        gently = self.settings.model_copy(
            update={
                "learning_rate": self.settings.finetune_learning_rate,
                "max_epochs": self.settings.finetune_epochs,
                "patience": self.settings.finetune_epochs,
            }
        )
        rows = scaler.transform(material.panel.rows)
        job = self._job(material.panel, learnt, windows.validation, rows, gently, initial)
        with _trained(job, training) as result:
            card = self._card(
                version, material, result,
                windows={name: len(rows) for name, rows in windows._asdict().items()},
                scores={}, skill={}, calibration=parent.calibration.to_card(),
                kind="finetune", parent=parent.card.version,
            )  # fmt: skip
            # The pull towards the parent's mean stands in for older windows.
            weights = self._with_mean(
                {**initial, **result.weights}, material.panel, windows.train, windows.validation
            )
            self.store.publish(card, weights, result.network)

    def _with_mean(self, weights: Weights, panel: Panel, train: Ints, held_out: Ints) -> Weights:
        windows = Windows(
            panel.rows, panel.target(), train, held_out, panel.date_ms, panel.label_ms
        )
        return learn_mean(weights, windows)

    def _job(
        self, panel: Panel, train: Ints, validation: Ints, rows: NDArray[np.float32],
        settings: Settings | None = None, initial: Weights | None = None,
    ) -> TrainingJob:  # fmt: skip
        """Learn from `train`; stop by every n-th window of `validation`, so that it stays cheap."""
        most = max(1, self.settings.epoch_windows // _VALIDATION_SHARE)
        every = max(1, -(-len(validation) // most))
        return TrainingJob(
            self._for_trainer(settings or self.settings),
            rows,
            panel.target().astype(np.float32),
            train.astype(np.int32),
            validation[::every].astype(np.int32),
            initial,
            parity=self.store.root / "parity",
        )

    def _evaluate(
        self, material: Material, weights: Weights, shrinkage: float | None = None,
        *, thorough: bool = False,
    ) -> Evaluation:  # fmt: skip
        predict = self._predictor(material.panel, weights)
        return evaluate(material.baselines, predict, shrinkage=shrinkage, thorough=thorough)

    def _predictor(self, panel: Panel, weights: Weights) -> Callable[[Ints], Floats]:
        """The network: rows of the panel (N,) -> raw output (N, K)."""
        lstm = Ensemble(weights, self.settings.lookback)

        def predict(ends: Ints) -> Floats:
            """Pair by pair: rows between those of one block would be projected for nothing."""
            cuts = np.flatnonzero(np.diff(panel.pair_index[ends])) + 1
            return np.concatenate([lstm.predict(panel.rows, e) for e in np.split(ends, cuts)])

        return predict

    def _evaluated_card(
        self, version: str, kind: str, material: Material, evaluation: Evaluation,
        result: TrainingResult | None = None,
    ) -> ModelCard:  # fmt: skip
        return self._card(
            version, material, result, kind=kind,
            windows={name: len(rows) for name, rows in material.split._asdict().items()},
            scores=evaluation.scores, skill=evaluation.skill,
            calibration=evaluation.calibration.to_card(),
        )  # fmt: skip

    def _card(
        self, version: str, material: Material, result: TrainingResult | None, **fields: Any
    ) -> ModelCard:
        lag_ms = self.settings.training_lag_candles * timeframe_ms(self.timeframe)
        return ModelCard(
            version=version,
            created_ms=time.time_ns() // 1_000_000,
            code_version=lstm_model.__version__,
            timeframe=self.timeframe,
            pairs=material.panel.pairs,
            settings=self.settings.model_dump(mode="json"),
            feature_names=feature_names(self.settings.order_flow),
            train_start_ms=int(min(series.date_ms[0] for series in material.candles)),
            train_end_ms=material.boundary_ms,
            serves_from_ms=material.boundary_ms + lag_ms,
            data_digest=material.digest,
            epochs=0 if result is None else result.epochs,
            seconds=0.0 if result is None else result.seconds,
            **fields,
        )


@contextmanager
def _trained(job: TrainingJob, training: Training) -> Iterator[TrainingResult]:
    """The result of a training, whose folder is there until the block ends."""
    workdir = Path(tempfile.mkdtemp(prefix=_WORKDIR))
    try:
        result = TRAINER.run(
            job, workdir, training.progress, training.stop,
            background=training.background, ahead=training.ahead,
        )  # fmt: skip
        yield check_network(job, result)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _candidate(stored: StoredModel, evaluation: Evaluation) -> Candidate:
    return Candidate(stored, int(evaluation.evidence.date_ms[0]), evaluation.evidence)


def _named(scaler: Scaler) -> dict[str, NDArray[np.float32]]:
    return {"scaler/mean": scaler.mean, "scaler/scale": scaler.scale}
