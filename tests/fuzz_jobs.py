"""What a training leaves and tells as nobody should find it; see `fuzz_inputs.py`."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from instant_training import InstantTraining, fit, make_maker
from live_world import SERIES, TRAINER, boundary_ms
from oddities import (
    Inputs,
    answers,
    array_changed,
    bytes_changed,
    odd,
    threads_watched,
    tree_changed,
)

from lstm_model.errors import LstmModelError, TrainingError
from lstm_model.learning.learner import Wish
from lstm_model.learning.wording import Teller
from lstm_model.machine import ROOT
from lstm_model.training.child import Child
from lstm_model.training.job import Epoch, Progress, TrainingJob, TrainingResult, check_network
from lstm_model.training.trainer import _stop_check, _Watch

EPOCH = {"epoch": 1, "loss": 1.0, "validation_loss": 2.0, "seconds": 0.1}
RECORD = {"epochs": 1, "best_epoch": 1, "history": [EPOCH], "fallback": None, "initial_loss": 2.5}
NAMES = (
    "", "/", "a", "gaps", "1", "9/", "99999999999/gaps/bias", "2/gaps/bias", "x/y", "²/gaps/bias",
    "lstm_1/kernel/x", "scaler/mean", "mean/bias", "0/lstm_1/bias", "lstm_2/bias", "🦄",
)  # fmt: skip
MESSAGES: tuple[dict[str, Any], ...] = (
    asdict(Progress("training", 1, 2, 3, 4, 0.5, 1.0, 2.0, 100.0, 5.0)), {"stage": "compiling"},
    {"done": "job"}, {"problem": "TensorFlow is not installed"}, {"something": "else"},
)  # fmt: skip


class Whole(InstantTraining):
    """Notes the job, and what is learnt from it."""

    def run(self, job: TrainingJob, workdir: Path, *_: Any, **__: Any) -> TrainingResult:  # type: ignore[override]
        self.jobs.append(job)
        raise TrainingError("noted")


class JobResults(Inputs):
    """The folder of a training that went well, its messages, and the job itself."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "job"
        self.maker = make_maker(root / "store", SERIES)
        self.material = self.maker.material(boundary_ms(1_500))
        noted = Whole()
        with mock.patch(TRAINER, noted), suppress(TrainingError):
            self.maker.scratch(self.material)
        [self.job] = noted.jobs
        self.weights = fit(self.job)
        self.child, self.cases = Child(["cat"]), 0

    def __exit__(self, *_: object) -> None:
        self.child.kill()

    def case(self, draw: random.Random) -> str:
        """Damage, read; the kind of the case."""
        kinds: dict[str, Callable[[random.Random], Any]] = {
            "record": self._a_record, "arrays": self._arrays, "files": self._files,
            "messages": self._messages, "material": self._material,
        }  # fmt: skip
        kind = draw.choice([*kinds, "record", "arrays"])
        with threads_watched():
            kinds[kind](draw)
        return kind

    def _leave(self, record: Any, weights: dict[str, Any]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (self.folder / "result.json").write_text(json.dumps(record))
        np.savez(self.folder / "result.npz", **weights)
        (self.folder / "network.keras").write_bytes(b"a Keras file")

    def _a_record(self, draw: random.Random) -> None:
        self._leave(tree_changed(json.loads(json.dumps(RECORD)), draw), self.weights)
        self._read(draw)

    def _arrays(self, draw: random.Random) -> None:
        weights: dict[str, Any] = {**self.weights}
        for _ in range(draw.choice([1, 1, 2])):
            name = draw.choice(sorted(weights))
            kind = draw.randrange(5)
            if kind == 0:
                del weights[name]
            elif kind == 1:
                weights[draw.choice(NAMES)] = weights[name]
            elif kind == 2:
                weights[name] = np.array(draw.choice([np.nan, np.inf, 1e300, 1 + 1j, "a", b"a"]))
            else:
                weights[name] = array_changed(weights[name], draw)
        self._leave(RECORD, weights)
        self._read(draw)

    def _files(self, draw: random.Random) -> None:
        self._leave(RECORD, self.weights)
        path = draw.choice(sorted(self.folder.iterdir()))
        content = path.read_bytes()
        path.unlink()
        kind = draw.randrange(6)
        if kind == 0:
            path.mkdir()
        elif kind == 1:
            path.symlink_to(path)
        elif kind > 2:
            path.write_bytes(bytes_changed(content, draw))
        self._read(draw)

    def _read(self, draw: random.Random) -> None:
        """As the trainer does, and then who asked for the training."""
        found = answers(lambda: TrainingResult.read(self.folder, 1.0))
        if found is None:
            return
        assert all(isinstance(epoch, Epoch) for epoch in found.history)
        whole = answers(lambda: check_network(self.job, found)) is not None
        if draw.randrange(200) and not (whole and not draw.randrange(50)):
            return

        def run(*_: Any, **__: Any) -> TrainingResult:
            return found

        training = InstantTraining()
        training.run = run  # type: ignore[method-assign]
        with mock.patch(TRAINER, training):
            made = answers(lambda: self.maker.scratch(self.material))
        assert (made is not None) == whole
        if made is not None:
            shutil.rmtree(self.maker.store.root / "models" / made.stored.card.version)

    def _messages(self, draw: random.Random) -> None:
        """Lines through a real pipe, and who follows them."""
        self.cases += 1
        stdin = self.child._process.stdin
        assert stdin is not None
        stdin.flush()
        lines, end = [_line(draw) for _ in range(draw.choice([1, 3]))], {"end": self.cases}
        lines += [b'{"done": "job"}', json.dumps(end).encode(), b""]
        stdin.buffer.write(b"\n".join(lines))
        stdin.buffer.flush()
        told: list[str] = []
        teller = Teller(Wish("scratch"), boundary_ms(1_500), told.append)
        watch = _Watch(teller, _stop_check(None), self.job.settings, 60.0, ROOT)
        with suppress(LstmModelError):
            watch.follow(self.child)
        while (message := self.child.message(10.0)) != end:
            assert message

    def _material(self, draw: random.Random) -> None:
        name = draw.choice(["rows", "targets", "train_ends", "validation_ends", "initial"])
        if name == "initial":
            initial = {**self.weights}
            initial[draw.choice([*sorted(initial), *NAMES])] = np.zeros(draw.randrange(3))
            changes: dict[str, Any] = {
                name: draw.choice([initial, {}, {draw.choice(NAMES): np.zeros(2)}])
            }
        else:
            changes = {name: array_changed(getattr(self.job, name), draw)}
        answers(lambda: replace(self.job, **changes))


def _line(draw: random.Random) -> bytes:
    message = tree_changed(json.loads(json.dumps(draw.choice(MESSAGES))), draw)
    content = json.dumps(odd(draw) if not draw.randrange(20) else message).encode()
    return bytes_changed(content, draw) if not draw.randrange(3) and content else content
