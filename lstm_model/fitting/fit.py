"""Fitting: epochs, early stopping, and what a training leaves."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lstm_model.errors import TrainingError
from lstm_model.fitting.fused import Weights
from lstm_model.fitting.graph import Ends, Job, Shape, TrainingGraph
from lstm_model.fitting.network import Averaged
from lstm_model.model.weights import numbered

Report = Callable[[dict[str, Any]], None]

_READY = 4  # chosen: a study of several settings; a graph holds a few megabytes


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
        """Train until the validation loss stops falling; `best` are the best epoch's weights.

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


class Workshop:
    """Trains job after job; what is compiled and built stays for the next of the same shape."""

    def __init__(self) -> None:
        self._graphs: dict[Shape, TrainingGraph] = {}  # the one used last at the end
        self._models: dict[tuple[Shape, int], Averaged] = {}

    def fit(self, job: Job, report: Report) -> Fit:
        """Build, compile and train; the same job gives the same weights bit for bit."""
        report({"stage": "compiling"})
        fit = Fit(job, self._graph(job), report)
        fit.run()
        return fit

    def _graph(self, job: Job) -> TrainingGraph:
        known = self._graphs.pop(job.shape, None)
        if known is None:
            graph = TrainingGraph(job)
            gc.unfreeze()  # what is frozen stays, and a graph that is given up has to go
        else:
            graph = known
            graph.begin(job)
        if graph.fallback is None:  # else it is bound to the Keras model of its job
            self._graphs[job.shape] = graph
        _keep_newest(self._graphs)
        gc.collect()  # the Keras model of the last job is full of circles
        if known is None:
            gc.freeze()  # TensorFlow's modules and the graph: to look at them took 0.2 s a job
        return graph

    def keras_model(self, fits: Sequence[Fit]) -> Any:
        """A stock Keras model of what the members of one job have learnt; until the next is asked
        for.
        """
        job, count = fits[0].job, len(fits)
        shape = job.shape._replace(batch=0)  # no matter to the model
        made = self._models.pop((shape, count), None)
        if made is None:
            made = Averaged(job.settings, shape.features, count)
        self._models[shape, count] = made
        _keep_newest(self._models)
        return made.of([fit.best for fit in fits])


def _keep_newest(known: dict[Any, Any]) -> None:
    while len(known) > _READY:
        del known[next(iter(known))]


def fit_network(job: Job, report: Report) -> Fit:
    """One job alone, see `Workshop.fit`."""
    return Workshop().fit(job, report)


def fit_members(workshop: Workshop, job: Job, report: Report) -> list[Fit]:
    """One member after the other; the graph of the first serves all."""
    count = job.members
    return [
        workshop.fit(job.member(number), _of_all(report, number, count))
        for number in range(1, count + 1)
    ]


def _of_all(report: Report, number: int, count: int) -> Report:
    """What one of `count` members reports, as progress of them all."""
    started_s, before = time.monotonic(), number - 1

    def told(message: dict[str, Any]) -> None:
        if fraction := message.get("fraction"):
            epochs, whole_s = message["epochs"], (time.monotonic() - started_s) / fraction
            message = {
                **message, "fraction": (before + fraction) / count, "epochs": count * epochs,
                "epoch": before * epochs + message["epoch"],
                "eta_s": whole_s * (count - before - fraction),
            }  # fmt: skip
        report(message)

    return told


def write_result(workdir: Path, workshop: Workshop, fits: Sequence[Fit]) -> None:
    """Leave the weights of all members, the Keras file and the history in the job folder."""
    weights = {
        name: array
        for number, fit in enumerate(fits, 1)
        for name, array in numbered(fit.best, number).items()
    }
    workshop.keras_model(fits).save(workdir / "network.keras")
    np.savez(workdir / "result.npz", **weights)  # type: ignore[arg-type]
    history = [entry for fit in fits for entry in fit.history]
    result = {
        "epochs": len(history), "best_epoch": max(fit.best_epoch for fit in fits),
        "history": history, "fallback": fits[0].graph.fallback, "initial_loss": _initial(fits),
    }  # fmt: skip
    (workdir / "result.json").write_text(json.dumps(result))


def _initial(fits: Sequence[Fit]) -> float | None:
    losses = [fit.initial_loss for fit in fits if fit.initial_loss is not None]
    return float(np.mean(losses)) if losses else None
