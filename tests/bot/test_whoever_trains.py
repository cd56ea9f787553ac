"""A walk-forward backtest with real trainings leaves the same store, whoever trained how."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from instant_training import SETTINGS, make_learning, make_terms
from live_world import COUNT, FIRST, SERIES, TRAINER

from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.errors import TrainingError
from lstm_model.store.card import Weights
from lstm_model.store.models import ModelStore
from lstm_model.training.job import TrainingResult
from lstm_model.training.trainer import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.long]

SMALL = SETTINGS.model_copy(
    update={"units": 6, "max_epochs": 2, "epoch_windows": 1_000, "batch_size": 64, "dropout": 0.1}
)
Facts = dict[str, Any]


class Cold(Trainer):
    """As it was before processes stayed: each training has one of its own."""

    def run(self, *arguments: Any, **options: Any) -> TrainingResult:
        try:
            return super().run(*arguments, **options)
        finally:
            self.end_idle()


class Side(Trainer):
    """Notes how many trainings are under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def _take(self, *arguments: Any) -> Any:
        child = super()._take(*arguments)
        self.most = max(self.most, len(self._busy))
        return child


def walk(root: Path, trainer: Trainer, threads: int, python: str | None = None) -> Facts:
    """A backtest over both pairs; what it leaves."""
    settings = SMALL.model_copy(update={"train_threads": threads, "train_python": python})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, trainer)
        learning = make_learning(root, SERIES, settings)
        engine = WalkForwardEngine(learning, make_terms(settings))
        try:
            outlooks = [engine.outlook(candles.rows(0, COUNT), FIRST) for candles in SERIES]
        finally:
            trainer.end_idle()
    said = [outlook.forecast.quantiles.tobytes() for outlook in outlooks]
    return {"said": hashlib.sha256(b"".join(said)).hexdigest(), **left_in(root)}


def left_in(root: Path) -> Facts:
    """Steps by their address, and the bits of every model by its version."""
    store = ModelStore(root)
    versions = [card.version for card in store.cards()]
    steps = {path.stem: json.loads(path.read_text()) for path in (root / "steps").glob("*.json")}
    return {
        "models": {version: bits_of(store.load(version).weights) for version in versions},
        "steps": {address: hashed(record) for address, record in steps.items()},
    }


def bits_of(weights: Weights) -> str:
    parts = (name.encode() + array.tobytes() for name, array in sorted(weights.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def hashed(record: Facts) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """By one warm process with two threads."""
    return walk(tmp_path_factory.mktemp("warm"), Trainer(), 2)


def test_there_is_something_to_compare(lived: Facts) -> None:
    assert len(lived["models"]) > 6
    assert len(lived["steps"]) > 6


def test_cold_processes_leave_the_same(lived: Facts, tmp_path: Path) -> None:
    assert walk(tmp_path, Cold(), 2) == lived


def test_one_thread_leaves_the_same(lived: Facts, tmp_path: Path) -> None:
    assert walk(tmp_path, Trainer(), 1) == lived


def test_two_at_a_time_leave_the_same(lived: Facts, tmp_path: Path) -> None:
    trainer = Side()
    assert walk(tmp_path, trainer, 4) == lived
    assert trainer.most == 2


def test_a_process_that_did_something_else_before_leaves_the_same(
    lived: Facts, tmp_path: Path
) -> None:
    trainer = Trainer()
    other = [candles.rows(0, COUNT - 150) for candles in SERIES[::-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, trainer)
        engine = WalkForwardEngine(make_learning(tmp_path / "other", other, SMALL), make_terms())
        engine.outlook(other[0], FIRST - 200)
    assert walk(tmp_path / "again", trainer, 2) == lived


@pytest.mark.parametrize("seed", range(3))
def test_trainings_that_were_killed_at_any_moment_are_made_again_to_the_same(
    lived: Facts, tmp_path: Path, seed: int
) -> None:
    """A backtest ends with an error; the next goes on where it was."""
    draw, problems = random.Random(seed), []
    for _ in range(3):
        trainer = Trainer()
        with killer(trainer, draw.uniform(0.0, 2.0)):
            try:
                walk(tmp_path, trainer, 2)
            except TrainingError as error:
                problems.append(str(error))
    assert problems
    assert all("ended by SIGKILL" in problem for problem in problems)
    assert walk(tmp_path, Trainer(), 2) == lived


class killer:
    """Kills the trainings that are under way after some seconds, or the next one."""

    def __init__(self, trainer: Trainer, after_s: float) -> None:
        self._trainer, self._after_s = trainer, after_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        time.sleep(self._after_s)
        while not self._over.is_set() and not self._trainer.crash():
            time.sleep(0.01)
