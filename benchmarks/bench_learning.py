"""What learning costs a bot: its loop, its trainings, its memory.

    python benchmarks/bench_learning.py [--only loop|finetune|cost|memory] [--pairs 1 20] [--quick]

loop    `bot_loop_start` and the candles after it, alone and beside what learns; peer: pair by pair
finetune  a step of the learner with a fine-tuning, from due to done, at the priority it has in a
        bot: the process that trains has to start, or it is warm; the network of config.json
cost    one training from scratch for 1 to 100 pairs; peer: one network per pair
memory  1,000 candles of 20 pairs with 20 promotions

Engine, learner, store, journal and the training child are the real ones and networks have the
default size; candles are invented and no exchange is asked. Returns remember the last one, and the
networks that stand in for trained ones know how much. Every part runs in processes of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import psutil
from networks import LARGE
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from training_child import Training

import lstm_model.training.maker
from lstm_model.bot.forecasting import with_columns
from lstm_model.bot.live import LiveEngine
from lstm_model.features.closed_candle import WARM_UP, feature_names
from lstm_model.learning.chain import Learning
from lstm_model.learning.run import Run
from lstm_model.market.candles import Candles
from lstm_model.model.weights import numbered
from lstm_model.settings import Settings
from lstm_model.store.journal import Journal, JournalRow
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelStore
from lstm_model.store.recorder import Recorder
from lstm_model.store.steps import StepStore
from lstm_model.trading.outlook import Outlook, Terms
from lstm_model.training.job import TrainingJob, TrainingResult
from lstm_model.training.maker import ModelMaker
from lstm_model.training.maker import Training as Request
from lstm_model.training.material import reach_ms
from lstm_model.training.trainer import TRAINER, Trainer

TIMEFRAME, STEP_MS = "5m", 300_000
FRAME = 999  # candles that freqtrade hands over of a pair
MEMORY = 0.9  # of a return for the one before
ORIGIN_MS = 703 * Settings().retrain_candles * STEP_MS  # a boundary at which a chain begins
MARKS = (0, 100, 250, 500, 750, 1_000)  # candles after which memory is looked at
SLOW_MS = 100.0  # an outlook above it would make the benchmark last for an hour
LEAST_CANDLES = 3
PAUSE_S = 0.005  # between two loops; a bot waits for seconds
LOOP_PAIRS, FINETUNE_PAIRS, COST_PAIRS = (1, 20, 100), (3, 20), (1, 4, 20, 100)
console = Console(width=140)

Weights = dict[str, NDArray[np.float32]]


# ---------------------------------------------------------------- the market


def invented_candles(pairs: int, first_ms: int, count: int) -> dict[str, Candles]:
    """Candles whose returns are first-order autoregressions."""
    random = np.random.default_rng(pairs)
    shocks = random.normal(size=(count, pairs)) * math.sqrt(1.0 - MEMORY**2)
    for before, now in itertools.pairwise(shocks):
        now += MEMORY * before
    close = 100.0 * np.exp(np.cumsum(1e-3 * shocks, axis=0))
    before = np.vstack([close[:1], close[:-1]])
    reach = 1.0 + 2e-4 * np.abs(random.normal(size=close.shape))
    high, low = np.maximum(before, close) * reach, np.minimum(before, close) / reach
    volume = random.gamma(2.0, size=close.shape)
    dates = first_ms + STEP_MS * np.arange(count)
    columns = [np.ascontiguousarray(x.T) for x in (before, high, low, close, volume)]
    names = [f"C{number:03}/USDT" for number in range(pairs)]
    return {
        name: Candles(name, STEP_MS, dates, *(column[number] for column in columns))
        for number, name in enumerate(names)
    }


def to_frame(candles: Candles) -> pd.DataFrame:
    """The candles as freqtrade holds them."""
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame({name: getattr(candles, name) for name in names})
    frame.insert(0, "date", pd.to_datetime(candles.date_ms, unit="ms", utc=True))
    return frame


def invented_weights(settings: Settings, features: int, share: float) -> Weights:
    """A network of the configured size that forecasts `share` of what can be known.

    Unit 0 of every layer hands on the last return; the others are busy for nothing.
    """
    random, weights, inputs = np.random.default_rng(0), {}, features
    gain, units = 0.3, settings.units  # of unit 0; small, so that tanh hardly bends it
    for number in range(1, settings.layers + 1):
        layer = {
            "kernel": 0.1 * random.normal(size=(inputs, 4, units)),
            "recurrent": 0.1 * random.normal(size=(units, 4, units)),
            "bias": 0.1 * random.normal(size=(4, units)),
        }
        for array in layer.values():
            array[..., 0] = 0.0
        layer["bias"][:, 0] = (5.0, -5.0, 0.0, 5.0)  # gates i f c o
        layer["kernel"][0, 2, 0] = gain if number == 1 else 1.0
        for name, array in layer.items():
            weights[f"lstm_{number}/{name}"] = array.reshape(*array.shape[:-2], 4 * units)
        inputs = units
    ahead = MEMORY ** np.arange(1, settings.horizon + 1)
    mean = np.zeros((features, 1))
    mean[0] = share * float(ahead.sum()) / math.sqrt(settings.horizon)
    gaps = np.diff([NormalDist().inv_cdf(level) for level in settings.levels])
    weights["mean/kernel"], weights["mean/bias"] = mean, np.zeros(1)
    weights["gaps/kernel"] = np.zeros((units + features, len(gaps)))
    weights["gaps/bias"] = np.log(np.expm1(gaps))
    return {name: array.astype(np.float32) for name, array in weights.items()}


class BetterEveryTime:
    """Stands in for `TRAINER`: each newcomer knows a little more than the last.

    Its means are served as they are: else the ridge regression would know all at once.

    Parameters
    ----------
    first : share of the knowable that the first one forecasts
    count : of trainings until all is known
    """

    def __init__(self, first: float = 1.0, count: int = 1) -> None:
        self._first, self._count, self.made = first, count, 0
        lstm_model.training.maker.learn_mean = lambda weights, *_: weights

    def prepare(self, settings: Settings, background: bool) -> None:
        """Nothing has to be started."""

    def run(
        self, job: TrainingJob, workdir: Path, progress: object = None, stop: object = None,
        *, background: bool = True, ahead: bool = False,
    ) -> TrainingResult:  # fmt: skip
        job.write(workdir)
        share = self._first + (1.0 - self._first) * self.made / self._count
        self.made += 1
        network = workdir / "network.keras"
        network.write_bytes(b"a Keras file")
        alone = invented_weights(job.settings, job.rows.shape[1], share)
        numbers = range(1, job.settings.members + 1)
        weights = {name: a for number in numbers for name, a in numbered(alone, number).items()}
        return TrainingResult(weights, network, 1, 1, (), None, 0.01)


# ---------------------------------------------------------------- the bot


class Bot:
    """A live engine, fed as `LSTMStrategy` feeds it.

    Parameters
    ----------
    root : of the store
    known : pair -> candles before and after the bot's start
    """

    def __init__(
        self, root: Path, known: Mapping[str, Candles], settings: Settings, now_ms: int
    ) -> None:
        self.pairs, self.settings = list(known), settings
        self.began_ms = self.now_ms = now_ms
        disk = {pair: candles.between(0, self.began_ms) for pair, candles in known.items()}
        first_ms = self.began_ms - FRAME * STEP_MS
        self._frames = {
            pair: to_frame(candles.between(first_ms, 2**62)) for pair, candles in known.items()
        }
        self._shown: dict[str, pd.DataFrame] = {}
        self.maker = ModelMaker(settings, TIMEFRAME, self.pairs, ModelStore(root), disk.get)
        self.lineage = Lineage(root, "bench")
        self.journal = Journal(root / "journal.sqlite", "bench")
        learning = Learning(self.maker, StepStore(root), self.pairs)
        terms = Terms(settings, fee_fraction=0.001, can_short=False)
        recorder = Recorder(self.journal, root / "bench.spool")
        self.engine = LiveEngine(learning, terms, recorder, self.lineage)
        self.news: list[str] = []

    def start(self) -> None:
        self.engine.start(self.now_ms)
        self.show()

    def keep_to(self, count: int) -> None:
        """From now on, the bot trades the first so many pairs alone."""
        self.pairs = self.pairs[:count]
        self._frames = {pair: self._frames[pair] for pair in self.pairs}
        self.show()

    def learn(self) -> None:
        """Let the learner reach the newest step."""
        self.engine.tick(self.now_ms, self.pairs)
        wait_for_learning()

    def show(self) -> None:
        """freqtrade has the candles that have closed by now."""
        stop = FRAME + (self.now_ms - self.began_ms) // STEP_MS
        self._shown = {
            pair: whole.iloc[stop - FRAME : stop] for pair, whole in self._frames.items()
        }

    def close_candle(self) -> None:
        self.now_ms += STEP_MS
        self.show()

    def loop(self, *, foresee: bool = True) -> None:
        """`bot_loop_start`."""
        self.engine.tick(self.now_ms, self.pairs)
        if foresee:
            self.engine.foresee(list(self._new_candles()))
        self.news.extend(self.engine.take_news())

    def analyse(self, pair: str) -> Outlook:
        """`populate_indicators`."""
        frame = self._shown[pair]
        candles = Candles.from_frame(frame, pair, TIMEFRAME)
        outlook = self.engine.outlook(candles)
        with_columns(frame, candles, outlook)
        return outlook

    def _new_candles(self) -> Iterator[Candles]:
        for pair, frame in self._shown.items():
            if self.engine.awaits(pair, int(frame["date"].iloc[-1].timestamp() * 1000)):
                yield Candles.from_frame(frame, pair, TIMEFRAME)

    def write_past(self, version: str, candles: int = FRAME, before: int = 0) -> None:
        """Let the journal hold what `version` said of `candles`, but for the newest `before`."""
        quantiles = tuple(1e-3 * (level - 0.5) for level in self.settings.levels)
        stop_ms = self.now_ms - before * STEP_MS
        for pair in self.pairs:
            self.journal.record(
                JournalRow(
                    pair, TIMEFRAME, date_ms, version, quantiles, 1e-3, 0.0, -1e-3, 1e-3, "",
                    date_ms,
                )
                for date_ms in range(stop_ms - candles * STEP_MS, stop_ms, STEP_MS)
            )  # fmt: skip


def wait_for_learning() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("lstm-learning"):
            thread.join()


def is_learning() -> bool:
    return any(thread.name.startswith("lstm-learning") for thread in threading.enumerate())


@contextmanager
def opened(
    root: Path, known: Mapping[str, Candles], settings: Settings, now_ms: int
) -> Iterator[Bot]:
    """A bot that runs; one before it may have left something in the folder."""
    bot = Bot(root, known, settings, now_ms)
    bot.start()
    try:
        yield bot
    finally:
        wait_for_learning()
        bot.engine.stop()


# ---------------------------------------------------------------- the loop


Times = dict[str, list[float]]  # ms


def watch(
    bot: Bot, seconds: float, candles: int, go_on: Callable[[], bool] = lambda: True,
    loops: int = 10,
) -> Times:  # fmt: skip
    """Loops without and with a new candle, and the analysis of the pairs; every third by pair."""
    for pair in bot.pairs:
        bot.analyse(pair)
    times: Times = defaultdict(list)
    until_s = time.perf_counter() + seconds
    for number in range(candles + 1):
        for _ in range(loops):
            if number > LEAST_CANDLES and not (go_on() and time.perf_counter() < until_s):
                return times
            time.sleep(PAUSE_S)
            times["nothing new"].append(timed(bot.loop))
        bot.close_candle()
        warm = times if number else defaultdict(list)
        times_of_a_candle(bot, warm, foresee=number % 3 != 0)
    return times


def times_of_a_candle(bot: Bot, times: Times, *, foresee: bool) -> None:
    loop_ms = timed(lambda: bot.loop(foresee=foresee))
    each_ms = [timed(lambda pair=pair: check(bot.analyse(pair))) for pair in bot.pairs]
    whole_ms = loop_ms + sum(each_ms)
    if foresee:
        times["new candle"].append(loop_ms)
        times["outlook"].extend(each_ms)
        times["whole"].append(whole_ms)
    else:
        times["pair by pair"].append(whole_ms)


def check(outlook: Outlook) -> None:
    assert math.isfinite(outlook.forecast.mean[-1]), "no forecast"


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def loop_of(pairs: int, chosen: argparse.Namespace) -> list[list[str]]:
    """Rows of the table for one number of pairs."""
    lstm_model.training.maker.TRAINER = BetterEveryTime()
    settings = Settings().model_copy(
        update={"retrain_candles": Settings().step_candles}
    )  # every step retrains
    if chosen.quick:
        settings = settings.model_copy(update={"train_candles": 4_000})
    past, lag_ms = reach_ms(settings, TIMEFRAME, pairs), settings.training_lag_candles * STEP_MS
    known = invented_candles(pairs, ORIGIN_MS - past, past // STEP_MS + 600)
    # The first champion need not learn from all; the step that is watched does.
    newest = {pair: c.between(ORIGIN_MS - 2_300 * STEP_MS, 2**62) for pair, c in known.items()}
    seconds, candles = (2.0, 15) if chosen.quick else (chosen.seconds, 60)
    now_ms, rows = ORIGIN_MS + lag_ms + STEP_MS, []
    with tempfile.TemporaryDirectory(prefix="bench-learning-") as folder:
        root = Path(folder)
        with opened(root, newest, settings, now_ms) as bot:
            make_champion(bot)
            rows.append(("nothing", watch(bot, seconds, candles)))
            with Training():
                rows.append(("a training", watch(bot, seconds, candles)))
        with opened(root / "pinned", newest, settings, now_ms) as bot:
            make_champion(bot)
            make_former_pin(bot)
            bot.keep_to(affordable(bot))
            few = f" ({len(bot.pairs)} of them)" if len(bot.pairs) < pairs else ""
            rows.append((f"an old pin{few}", watch(bot, seconds / 2, candles)))
        now_ms += settings.step_candles * STEP_MS
        with opened(root, known, settings, now_ms) as bot:
            rows.append(beside_a_step(bot))
    return [[f"{pairs}", beside, *loop_cells(times)] for beside, times in rows]


def affordable(bot: Bot) -> int:
    """How many pairs' outlooks take less than a second together, at least one."""
    bot.analyse(bot.pairs[0])
    each_ms = timed(lambda: bot.analyse(bot.pairs[0]))
    return max(1, len(bot.pairs) if each_ms < SLOW_MS else int(1e3 / each_ms))


def make_champion(bot: Bot) -> None:
    """The learner makes its first step; its champion has forecast the whole frame."""
    bot.learn()
    bot.write_past(bot.lineage.champions[0])


def make_former_pin(bot: Bot) -> None:
    """The older half of the frame was forecast by a version that no step knows of."""
    (version,), head, pinned = bot.lineage.champions, bot.lineage.head, "f" * 16
    assert head is not None
    found = bot.maker.store.load(version)
    card = found.card.model_copy(update={"version": pinned})
    bot.maker.store.publish(card, found.weights, None)
    bot.lineage.advance(head, pinned)
    bot.lineage.advance(head, version)
    bot.write_past(pinned, FRAME // 2, before=FRAME // 2)


def beside_a_step(bot: Bot) -> tuple[str, Times]:
    """All the while that the learner's thread needs for a step with a retraining."""
    stored, began_s = len(bot.maker.store.cards()), time.perf_counter()
    times = watch(bot, math.inf, 250, is_learning, loops=40)
    wait_for_learning()
    took_s = time.perf_counter() - began_s
    assert len(bot.maker.store.cards()) == stored + 1, "it did not retrain"
    return f"a step of {took_s:.0f} s", times


def loop_cells(times: Times) -> list[str]:
    whole, peer = np.median(times["whole"]), np.median(times["pair by pair"])
    return [
        f"{len(times['nothing new']):,}", spread(times["nothing new"]),
        f"{len(times['new candle']):,}", spread(times["new candle"]), spread(times["outlook"]),
        digits(whole), digits(peer), f"{peer / whole:.1f} x",
    ]  # fmt: skip


def spread(values: list[float]) -> str:
    return "  ".join(digits(x) for x in (*np.percentile(values, (50, 99)), max(values)))


def digits(value: float) -> str:
    return f"{value:.2f}" if value < 10.0 else f"{value:,.0f}"


def print_loop(chosen: argparse.Namespace) -> None:
    table = new_table(
        "a loop of the bot, ms: median, 99th percentile, worst",
        "pairs", "beside it", "loops", "nothing new", "candles", "new candle", "an outlook",
        "all pairs", "pair by pair", "ratio",
    )  # fmt: skip
    for pairs in chosen.pairs or LOOP_PAIRS:
        for row in in_a_process("loop", pairs, chosen):
            table.add_row(*row)
        table.add_section()
    console.print(table)
    console.print(
        "Nothing new: tick, a look at every frame, news. New candle: the same and foresee. All "
        "pairs: this\nand their outlooks; pair by pair: without foresee. An old pin: half of the "
        "frame was forecast by a\nversion that no step knows of (only so many pairs, if slow). A "
        "step: it retrains, but for the child's part."
    )


def new_table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for name in headings:
        table.add_column(name, justify="left" if name == "beside it" else "right")
    return table


# ---------------------------------------------------------------- the trainings


def finetunings_of(pairs: int, chosen: argparse.Namespace) -> list[list[str]]:
    """Rows of the table: steps of four weeks, with fine-tunings by a cold or a warm process."""
    small = {"train_candles": 20_000, "epoch_windows": 10_000} if chosen.quick else {}
    settings = Settings(max_epochs=1, **small)
    past, weeks = reach_ms(settings, TIMEFRAME, pairs), settings.retrain_candles
    known = invented_candles(pairs, ORIGIN_MS - past, past // STEP_MS + weeks)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory(prefix="bench-learning-") as folder:
        root = Path(folder)
        maker = ModelMaker(settings, TIMEFRAME, list(known), ModelStore(root), known.get)
        learning = Learning(maker, StepStore(root))
        run = Run(known.get, lambda wish, boundary: Request(background=True), forgiving=True)
        step, kind = learning.origin(ORIGIN_MS, run), "cold"
        while step.boundary_ms + learning.schedule.step_ms < ORIGIN_MS + weeks * STEP_MS:
            due = learning.schedule.finetunes_at(step.boundary_ms + learning.schedule.step_ms)
            if due and kind == "cold":
                TRAINER.end_idle()
            began_s = time.perf_counter()
            step = learning.after(step, run)
            if due:
                seconds[kind].append(time.perf_counter() - began_s)
                kind = "warm"
    TRAINER.end_idle()
    return [
        [f"{pairs}", kind, f"{len(found)}", f"{np.median(found):.1f}", f"{max(found):.1f}"]
        for kind, found in seconds.items()
    ]


def print_finetunings(chosen: argparse.Namespace) -> None:
    table = new_table(
        "a fine-tuning in a bot, from due to done, seconds", "pairs", "process", "of them",
        "median", "most",
    )  # fmt: skip
    for pairs in chosen.pairs or FINETUNE_PAIRS:
        for row in in_a_process("finetune", pairs, chosen):
            table.add_row(*row)
    console.print(table)


def cost_of(pairs: int, chosen: argparse.Namespace) -> dict[str, float]:
    """Seconds and megabytes of one retraining of all pairs, an epoch long."""
    most = {"train_candles": 3_000, "epoch_windows": 4_000} if chosen.quick else {}
    settings = Settings(**{**LARGE, "max_epochs": 1, **most})
    past = reach_ms(settings, TIMEFRAME, pairs)
    known = invented_candles(pairs, ORIGIN_MS - past, past // STEP_MS)
    seconds: dict[str, float] = {}

    class Watched(Trainer):
        def run(self, job: TrainingJob, *arguments: Any, **options: Any) -> TrainingResult:
            seconds["before"] = time.perf_counter() - began_s
            seconds["windows"] = float(len(job.train_ends))
            result = super().run(job, *arguments, **options)
            seconds["child"] = time.perf_counter() - began_s - seconds["before"]
            seconds["epoch"] = result.history[0].seconds
            return result

    lstm_model.training.maker.TRAINER = trainer = Watched()
    with tempfile.TemporaryDirectory(prefix="bench-learning-") as folder:
        maker = ModelMaker(settings, TIMEFRAME, list(known), ModelStore(Path(folder)), known.get)
        before_mb, began_s = resident_mb(), time.perf_counter()
        maker.scratch(maker.material(ORIGIN_MS))
        seconds["all"] = time.perf_counter() - began_s
    trainer.end_idle()  # so that its memory is counted
    peak = {
        name: resource.getrusage(who).ru_maxrss / 1024
        for name, who in (("parent", resource.RUSAGE_SELF), ("child", resource.RUSAGE_CHILDREN))
    }
    return seconds | {
        "after": seconds["all"] - seconds["before"] - seconds["child"],
        "idle_mb": before_mb,
        "parent_mb": peak["parent"],
        "child_mb": peak["child"],
    }


def print_cost(chosen: argparse.Namespace) -> None:
    epochs = LARGE["max_epochs"]
    table = new_table(
        "a training from scratch of all pairs: seconds, and the most memory of a process in MB",
        "pairs", "windows", "material", "start", "epoch", "scores", f"whole, {epochs} epochs",
        "a network per pair", "ratio", "bot, idle", "bot, most", "child, most",
    )  # fmt: skip
    alone_s = math.nan
    for pairs in chosen.pairs or COST_PAIRS:
        found = in_a_process("cost", pairs, chosen)
        start_s = found["child"] - found["epoch"]
        whole_s = found["before"] + start_s + epochs * found["epoch"] + found["after"]
        alone_s = whole_s if pairs == 1 else alone_s
        seconds = (found["before"], start_s, found["epoch"], found["after"])
        table.add_row(
            f"{pairs}", f"{found['windows']:,.0f}", *(f"{x:.1f}" for x in seconds),
            f"{whole_s:.0f}", f"{pairs * alone_s:,.0f}", f"{pairs * alone_s / whole_s:.1f} x",
            *(f"{found[name]:,.0f}" for name in ("idle_mb", "parent_mb", "child_mb")),
        )  # fmt: skip
    console.print(table)
    console.print(
        "Material and scores are made in the bot's process, start and epochs in the child's. One "
        "epoch was\nmeasured, with the processors to itself; the whole is reckoned from it."
    )


# ---------------------------------------------------------------- memory


def memory_of(pairs: int, chosen: argparse.Namespace) -> list[list[str]]:
    """Rows of the table: what the bot's process holds after so many candles."""
    small = {
        "horizon": 1, "training_lag_candles": 2, "step_candles": 25, "retrain_candles": 50,
        "finetune_candles": 0, "train_candles": 1_000, "promotion_error": 0.2, "keep_models": 10,
    }  # fmt: skip
    settings = Settings(**{**LARGE, **small})
    candles = 150 if chosen.quick else MARKS[-1]
    lstm_model.training.maker.TRAINER = training = BetterEveryTime(0.05, 2 * candles // 50)
    past = reach_ms(settings, TIMEFRAME, pairs)
    known = invented_candles(pairs, ORIGIN_MS - past, past // STEP_MS + candles + 10)
    now_ms = ORIGIN_MS + 10 * STEP_MS
    with (
        tempfile.TemporaryDirectory(prefix="bench-learning-") as folder,
        opened(Path(folder), known, settings, now_ms) as bot,
    ):
        make_champion(bot)
        rows = []
        for number in range(candles + 1):
            if number in MARKS:
                rows.append([f"{number:,}", f"{training.made}", *held_by(bot)])
            bot.close_candle()
            bot.loop()
            for pair in bot.pairs:
                check(bot.analyse(pair))
            wait_for_learning()
            if number % 50 == 0:
                note(f"{number:,} candles")
    return rows


def held_by(bot: Bot) -> list[str]:
    told = [line.split(":")[0] for line in bot.news]
    us = psutil.Process()
    return [
        f"{told.count('Promoted')}",
        f"{told.count('Rolled back')}",
        f"{resident_mb():.1f}",
        f"{us.num_threads()}",
        f"{us.num_fds()}",
        f"{len(bot.maker.store.cards())}",
    ]


def print_memory(chosen: argparse.Namespace) -> None:
    pairs = (chosen.pairs or [4 if chosen.quick else 20])[0]
    table = new_table(
        f"what a bot of {pairs} pairs holds", "candles", "trainings", "promotions", "roll-backs",
        "resident MB", "threads", "open files", "models on disk",
    )  # fmt: skip
    for row in in_a_process("memory", pairs, chosen):
        table.add_row(*row)
    console.print(table)


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


# ---------------------------------------------------------------- parts


PARTS = {
    "loop": print_loop, "finetune": print_finetunings, "cost": print_cost, "memory": print_memory,
}  # fmt: skip
WORK: dict[str, Callable[[int, argparse.Namespace], Any]] = {
    "loop": loop_of, "finetune": finetunings_of, "cost": cost_of, "memory": memory_of,
}  # fmt: skip


def note(text: str) -> None:
    """A sign of life; what a part found goes to stdout."""
    print(text, end="\r", file=sys.stderr, flush=True)


def in_a_process(part: str, pairs: int, chosen: argparse.Namespace) -> Any:
    """A part's work for so many pairs, in a new process; its answer is the last line it prints."""
    command = [sys.executable, __file__, "--work", part, "--pairs", str(pairs)]
    command += ["--seconds", str(chosen.seconds), *(["--quick"] if chosen.quick else [])]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return json.loads(made.stdout.splitlines()[-1])


def measured() -> str:
    """What the parts measure."""

    def network(settings: Settings) -> str:
        size = f"LSTM({settings.units}) on {settings.lookback} candles"
        return f"{settings.members} of {settings.layers} x {size}"

    return (
        f"loop, finetune: {network(Settings())}; memory, cost: {network(Settings(**LARGE))}; "
        f"{len(feature_names(False))} features, 7 levels; frames of {FRAME} candles, {WARM_UP} "
        "to warm up"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--pairs", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, default=6.0, help="per row of the loop's table")
    parser.add_argument("--quick", action="store_true", help="small sizes; no figures to report")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        logging.basicConfig(level=logging.ERROR)
        print(json.dumps(WORK[chosen.work](chosen.pairs[0], chosen)))
        return
    console.print(measured())
    for part in [chosen.only] if chosen.only else PARTS:
        began_s = time.perf_counter()
        PARTS[part](chosen)
        console.print(f"{part}: {time.perf_counter() - began_s:.0f} s\n")


if __name__ == "__main__":
    main()
