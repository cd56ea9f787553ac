"""A training at work while something else is measured."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from networks import LARGE

from lstm_model.features.closed_candle import feature_names
from lstm_model.settings import Settings
from lstm_model.training.job import Progress, TrainingJob
from lstm_model.training.trainer import run_training

_BEGINS_WITHIN_S = 120.0


class Training:
    """A training child at work at the priority it has beside a bot; for `with`."""

    def __init__(self) -> None:
        self._stop, self._begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()
        if not self._begun.wait(_BEGINS_WITHIN_S):
            sys.exit("the training did not begin")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        settings, random = (
            Settings(**{**LARGE, "max_epochs": 200, "patience": 50}),
            np.random.default_rng(0),
        )
        features = len(feature_names(settings.order_flow))
        rows = random.normal(size=(40_000, features)).astype(np.float32)
        targets = random.normal(size=40_000).astype(np.float32)
        ends = np.arange(60, 40_000, dtype=np.int32)
        job = TrainingJob(settings, rows, targets, ends[:-2_000], ends[-2_000:])
        with tempfile.TemporaryDirectory() as folder:
            try:
                run_training(job, Path(folder), self._watch, self._stop, background=True)
            except ValueError as error:  # TrainingError: it was stopped
                if not self._stop.is_set():
                    raise error

    def _watch(self, progress: Progress) -> None:
        if progress.stage == "training":
            self._begun.set()
