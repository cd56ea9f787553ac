"""Windows learnt per second: ours, Keras `model.fit` and, where it is installed, PyTorch.

    python benchmarks/bench_training.py              the comparison, about three minutes
    python benchmarks/bench_training.py --many 100   and so many trainings by one process

Every contender lives in a process of its own with the thread settings that suit it. One after the
other they run an epoch, round after round, so that a disturbance hits all alike; only one works at
a time. For all of them the defaults' features, dropout 0.2, seven quantiles, Adam; one of the
networks of config.json, LSTM(24) on 16 candles, and two LSTM(50) on 60. `fit` gets its windows as
one array that is already in memory; PyTorch gets them that way too.

A training process stays for the next job: fine-tunings of the default size (22,900 windows, three
epochs, two years of three pairs' 5m rows), the first with a process that has to start, the others
with one that is warm; and what bot and process hold after so many trainings of two shapes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from networks import LARGE
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from lstm_model.features.closed_candle import feature_names
from lstm_model.settings import Settings
from lstm_model.training.job import TrainingJob
from lstm_model.training.trainer import Trainer

N_FEATURES = len(feature_names(False))
N_WINDOWS = 8_192
BATCHES = (64, 256)
NETWORKS: dict[str, dict[str, Any]] = {"LSTM(24)": {}, "2 x LSTM(50)": LARGE}
ROWS, RECENT, HELD_OUT = 630_000, 22_900, 2_500  # of a fine-tuning with the defaults
MARKS = (1, 2, 10, 20, 50, 100, 200, 500, 1_000)
PAUSE_S = 0.3  # lets the spinning threads of the last contender go to sleep

Epoch = Callable[[], Any]
console = Console()


def make_arrays(n_train: int, n_validation: int, lookback: int) -> dict[str, NDArray[Any]]:
    """Noise with a planted signal: the target repeats part of an older feature."""
    random = np.random.default_rng(0)
    ends = np.arange(lookback - 1, lookback - 1 + n_train + n_validation, dtype=np.int32)
    rows = random.standard_normal((len(ends) + lookback - 1, N_FEATURES)).astype(np.float32)
    noise = random.standard_normal(len(rows)).astype(np.float32)
    return {
        "rows": rows,
        "targets": 0.3 * np.roll(rows[:, 0], 3) + noise,
        "train_ends": ends[:n_train],
        "validation_ends": ends[n_train:],
    }


def cut_windows(settings: Settings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Windows (N, L, F) and targets (N,) as arrays in memory."""
    arrays = make_arrays(N_WINDOWS, 1, settings.lookback)
    windows = np.lib.stride_tricks.sliding_window_view(arrays["rows"], settings.lookback, axis=0)
    ends = arrays["train_ends"]
    starts = ends - settings.lookback + 1
    return np.ascontiguousarray(windows[starts].transpose(0, 2, 1)), arrays["targets"][ends]


def prepare_ours(settings: Settings) -> Epoch:
    """An epoch as the training process runs it: shuffled, in chunks, without validation."""
    from lstm_model.fitting.fit import Fit
    from lstm_model.fitting.graph import Job, TrainingGraph
    from lstm_model.fitting.network import use_threads

    use_threads(settings.train_threads)
    job = Job(settings, **make_arrays(N_WINDOWS, 1, settings.lookback))
    fit = Fit(job, TrainingGraph(job), lambda message: None)
    order = np.random.default_rng(0)
    return lambda: list(fit.train_epoch(1, order.permutation(job.train_ends)))


def prepare_keras(settings: Settings) -> Epoch:
    """`model.fit` on the same model, with TensorFlow's own choice of threads."""
    import keras
    import tensorflow as tf

    from lstm_model.training import network

    windows, targets = cut_windows(settings)
    model = network.build_network(settings, N_FEATURES)
    pinball = network.pinball_loss(settings.levels)
    model.compile(
        keras.optimizers.Adam(settings.learning_rate),
        lambda wanted, forecast: pinball(tf.reshape(wanted, [-1]), forecast),
    )
    return lambda: model.fit(windows, targets, batch_size=settings.batch_size, verbose=0)


def prepare_torch(settings: Settings) -> Epoch:
    """`torch.nn.LSTM`, windows picked by a shuffled index."""
    import torch

    torch.set_num_threads(settings.train_threads)
    windows, targets = map(torch.from_numpy, cut_windows(settings))
    lstm = torch.nn.LSTM(
        N_FEATURES, settings.units, settings.layers, batch_first=True, dropout=settings.dropout
    )
    head = torch.nn.Linear(settings.units, len(settings.levels))
    dropout = torch.nn.Dropout(settings.dropout)
    levels = torch.tensor(settings.levels)
    adam = torch.optim.Adam([*lstm.parameters(), *head.parameters()], settings.learning_rate)

    def step(batch: Any) -> None:
        raw = head(dropout(lstm(windows[batch])[0][:, -1]))
        spread = torch.nn.functional.softplus(raw[:, 1:]).cumsum(1)
        error = targets[batch, None] - torch.cat([raw[:, :1], raw[:, :1] + spread], 1)
        loss = torch.maximum(levels * error, (levels - 1.0) * error).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    def epoch() -> None:
        for batch in torch.randperm(N_WINDOWS).split(settings.batch_size):
            step(batch)

    return epoch


PREPARE = {"model.fit": prepare_keras, "ours": prepare_ours, "PyTorch": prepare_torch}


def serve(name: str, network: str, batch: int) -> None:
    """The contender's process: one epoch, and a line on stdout, for every line on stdin."""
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not reach the protocol
    epoch = None
    for _ in sys.stdin:
        epoch = epoch or PREPARE[name](Settings(**NETWORKS[network], batch_size=batch))
        epoch()
        reply.write("done\n")


@dataclass
class Contender:
    """One process and what it took: first epoch with import and compilation, then the others."""

    name: str
    network: str
    batch: int
    process: subprocess.Popen[str]
    first_s: float = 0.0
    epochs_s: list[float] = field(default_factory=list)

    def run_epoch(self) -> None:
        """Run and time one epoch; the very first is the warm-up."""
        started_s = time.perf_counter()
        self._ask()
        seconds = time.perf_counter() - started_s
        if self.first_s:
            self.epochs_s.append(seconds)
        else:
            self.first_s = seconds

    def _ask(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise SystemExit(f"{self.name} failed")

    @property
    def windows_per_s(self) -> float:
        """Windows per second of the median epoch."""
        return N_WINDOWS / statistics.median(self.epochs_s)


@contextmanager
def start(name: str, network: str, batch: int) -> Iterator[Contender]:
    """A contender whose process ends with the block."""
    asked = ["--serve", name, "--network", network, "--batch", str(batch)]
    command = [sys.executable, __file__, *asked]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(  # noqa: S603 - this very file
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, **quiet, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        yield Contender(name, network, batch, process)
    finally:
        process.kill()
        process.wait()


def compare(network: str, rounds: int) -> list[Contender]:
    """Time every contender at every batch size, interleaved."""
    names = [name for name in PREPARE if name != "PyTorch" or importlib.util.find_spec("torch")]
    if "PyTorch" not in names:
        console.print("PyTorch is not installed: left out")
    with ExitStack() as stack, Bar(console=console) as bar:
        contenders = [
            stack.enter_context(start(name, network, batch)) for batch in BATCHES for name in names
        ]
        task = bar.add_task("training", total=(rounds + 1) * len(contenders))
        for number in range(rounds + 1):
            for contender in contenders:
                bar.update(task, description=f"{contender.name}, batch {contender.batch}")
                contender.run_epoch()
                bar.advance(task)
                time.sleep(PAUSE_S if number else 0.0)
    return contenders


def show(contenders: list[Contender]) -> None:
    """Medians, ranges and ratios to `model.fit` of the same batch size."""
    network = contenders[0].network
    table = Table(title=f"{network}, {N_WINDOWS:,} windows per epoch, {os.cpu_count()} cores")
    for column in ("batch", "who", "first s", "median s", "range s", "windows/s", "x fit"):
        table.add_column(column, justify="left" if column == "who" else "right", no_wrap=True)
    fit = {other.batch: other for other in contenders if other.name == "model.fit"}
    for one in contenders:
        rounds = zip(fit[one.batch].epochs_s, one.epochs_s, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in rounds)
        table.add_row(
            str(one.batch), one.name, f"{one.first_s:.1f}",
            f"{statistics.median(one.epochs_s):.2f}",
            f"{min(one.epochs_s):.2f}-{max(one.epochs_s):.2f}",
            f"{one.windows_per_s:,.0f}", f"{ratio:.2f}",
            end_section=one is contenders[len(contenders) // len(BATCHES) - 1],
        )  # fmt: skip
    console.print(table)
    console.print(
        f"Seconds per epoch; first: with import and compilation. x fit: median over the rounds of "
        f"the ratio to model.fit in the same round. {platform.machine()}, "
        f"Python {platform.python_version()}."
    )


def fine_tuning(settings: Settings, seed: int) -> TrainingJob:
    """A job of the default size, of noise."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((ROWS, N_FEATURES)).astype(np.float32)
    targets = random.standard_normal(ROWS).astype(np.float32)
    ends = np.sort(random.choice(np.arange(500, ROWS, dtype=np.int32), RECENT + HELD_OUT))
    gently = {"max_epochs": settings.finetune_epochs, "patience": settings.finetune_epochs}
    return TrainingJob(
        settings.model_copy(update={**gently, "seed": seed}), rows, targets, ends[:-HELD_OUT],
        ends[-HELD_OUT:],
    )  # fmt: skip


def many_trainings(count: int) -> None:
    """Fine-tunings one after the other by one process: how long they take, what stays of them."""
    trainer, me = Trainer(), psutil.Process()
    table = Table(title="Fine-tunings by one process that stays")
    for column in ("after", "seconds, median", "process, MB", "this one, MB", "threads, files"):
        table.add_column(column, justify="right")
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Bar(console=console) as bar:
        for number in bar.track(range(1, count + 1), description="fine-tuning"):
            units = 24 if number == 1 or number % 3 else 20
            job = fine_tuning(Settings(units=units), number)
            began_s = time.perf_counter()
            trainer.run(job, Path(folder) / str(number), background=False)
            seconds.append(time.perf_counter() - began_s)
            shutil.rmtree(Path(folder) / str(number))
            if number in MARKS:
                held = [process.memory_info().rss / 1e6 for process in (*me.children(), me)]
                table.add_row(
                    f"{number:,}", f"{statistics.median(seconds):.2f}", f"{held[0]:.0f}",
                    f"{held[-1]:.0f}", f"{me.num_threads()}, {me.num_fds()}",
                )  # fmt: skip
                seconds.clear()
    trainer.end_idle()
    console.print(table)


def main() -> None:
    """Parse the options and run what they ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each contender")
    parser.add_argument("--many", type=int, default=10, help="trainings of one process")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            serve(options.serve, options.network, options.batch)
        return
    for network in NETWORKS:
        show(compare(network, options.rounds))
    many_trainings(options.many)


if __name__ == "__main__":
    main()
