"""A bot that kills itself on its way to the disk: `python tests/crashing_bot.py ROOT N`.

It trades synthetic candles in ROOT, from the candle where the last one died, and dies at its N-th
point: the moment before or after a call that syncs, renames, removes, journals or trains. N = 0: it
lives to the end. `survey` imports once and forks a bot for every kill, and for every damage that
befalls a file of its store after a kill at the end of a step.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from damage import DAMAGES, FILES, befall, line_of
from instant_training import SETTINGS as PLAIN
from instant_training import InstantTraining, make_terms
from live_world import OTHER, Bot, chain, row_of
from series import make_candles
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lstm_model.learning import steps as learning
from lstm_model.learning.packing import unpack_contender
from lstm_model.model.gate import Evidence
from lstm_model.model.model import Model
from lstm_model.model.reliability import Kept
from lstm_model.store.journal import Journal
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelStore
from lstm_model.store.recorder import Recorder
from lstm_model.store.steps import StepStore
from lstm_model.trading.outlook import Frame, Outlook
from lstm_model.training import maker
from lstm_model.training.job import TrainingJob

SERIES = [make_candles(1_500, signal=1.0), make_candles(1_500, signal=1.0, seed=1, pair=OTHER)]
# Networks from scratch at 1200 (promoted at 1250), 1300 and 1400, fine-tuned at 1250 and 1350.
SETTINGS = PLAIN.model_copy(
    update={"train_candles": 800, "step_candles": 25, "retrain_candles": 100,
            "finetune_candles": 50, "finetune_recent_candles": 150, "keep_models": 4}
)  # fmt: skip
# The candles that the bot looks at: when a step is due, before its models serve, and since.
ROWS = [row for row in range(1_230, 1_430) if (row + 1) % SETTINGS.step_candles in (1, 3, 14)]
PAIRS = [candles.pair for candles in SERIES]
JOURNAL, LOG, ROW, WORK = "journal.sqlite", "trainings.log", "row", "work"
AT_LEAST = 1  # kills per kind of point, beside the random ones
AT_ONCE = 2  # bots that live side by side
TEMPORARY = ".tmp-*"

Facts = dict[str, Any]


# ---------------------------------------------------------------- the bot that dies


class Points:
    """Counts the moments to die at, and dies at one of them."""

    def __init__(self, root: Path, fatal: int) -> None:
        self.root, self.fatal, self.names = root, fatal, []
        self.news: list[str] = []

    def reach(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, target: int | None) -> None:
        """Make the call of this name two points; its argument number `target` says where."""
        call = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            where = "" if target is None else f" {self.place(args[target])}"
            self.reach(f"before {name}{where}")
            answer = call(*args, **options)
            self.reach(f"after {name}{where}")
            return answer

        setattr(owner, name, watched)

    def place(self, target: Any) -> str:
        """The path of a file, a folder or a handle, without what is random in it."""
        path = Path(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target)
        name = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return re.sub(r"[0-9a-f]{16,}|(?<=lstm-training-)\w+", "*", str(name))


def armed(root: Path, fatal: int) -> Points:
    """Have this process die at a point, and write down what it trains and publishes."""
    points = Points(root, fatal)
    tempfile.tempdir = str(root / WORK)
    maker.TRAINER = Told(root / LOG)
    tell_of_publishing(root / LOG)
    for name, target in {"replace": 1, "rename": 1, "fsync": 0, "unlink": 0}.items():
        points.around(os, name, target)
    points.around(shutil, "rmtree", 0)
    points.around(Journal, "write", None)
    settle_at_once(Recorder, "record", "record_decisions")
    points.around(maker.TRAINER, "run", None)
    event.listen(Engine, "commit", lambda _: points.reach(f"commit {points.names[-1:]}"))
    return points


def settle_at_once(owner: Any, *names: str) -> None:
    """Let the database have everything before the bot goes on: points then come in one order."""
    for name in names:
        call = getattr(owner, name)

        def settled(self: Any, rows: Any, call: Any = call) -> Any:
            answer = call(self, rows)
            assert self.settle(30.0)
            return answer

        setattr(owner, name, settled)


class Told(InstantTraining):
    """Writes down every training, for the processes that come after."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def run(self, job: TrainingJob, *args: Any, **options: Any) -> Any:
        write_line(self.log, f"train {digest_of(job)}")
        return super().run(job, *args, **options)


def tell_of_publishing(log: Path) -> None:
    publish = ModelStore.publish

    def told(self: ModelStore, *args: Any) -> Any:
        card = publish(self, *args)
        write_line(log, f"publish {card.version}")
        return card

    ModelStore.publish = told  # type: ignore[method-assign]


def digest_of(job: TrainingJob) -> str:
    arrays = [job.rows, job.targets, job.train_ends, *(job.initial or {}).values()]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def write_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def trade(root: Path, fatal: int = 0) -> Points:
    """From the candle where the last process died to the end, or to the fatal point."""
    (root / WORK).mkdir(parents=True, exist_ok=True)
    points, first = armed(root, fatal), died_at(root)
    bot = Bot(root, SERIES, SETTINGS).start(first)
    for row in (row for row in ROWS if row >= first):
        (root / ROW).write_text(f"{row}\n")
        bot.look(row)
        for pair in PAIRS:
            bot.engine.outlook(bot.frame(pair))
    points.news = bot.stop().news
    return points


def died_at(root: Path) -> int:
    at = root / ROW
    return int(at.read_text() or ROWS[0]) if at.exists() else ROWS[0]


# ---------------------------------------------------------------- what is left of it


def fingerprint(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def trainings(root: Path) -> list[list[str]]:
    """("train", digest of the job) or ("publish", version), in the order of time."""
    log = root / LOG
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def outcome(root: Path) -> Facts:
    """All that a bot has come to in the end."""
    lineage, steps = Lineage(root, Bot(root).lineage.name), StepStore(root)
    head = steps.record(lineage.head or "")
    assert head is not None
    return {
        "head": lineage.head,
        "champions": lineage.champions,
        "widths": {e["version"]: [e["widths"], e["worth"]] for e in head["contenders"]},
        "steps": known_steps(root),
        "newest": [*line_of(root, lineage.name)][:3],
        "arrays": sorted(path.stem for path in (root / "steps").glob("*.npz")),
        "competing": {e["version"]: ModelStore(root).has(e["version"]) for e in head["contenders"]},
        "models": len(ModelStore(root).cards()),
        **journalled(root),
    }


def known_steps(root: Path) -> Facts:
    """Every step that has a file, by its address; None where it cannot be read."""
    files = [path for suffix in ("json", "npz") for path in (root / "steps").glob(f"*.{suffix}")]
    records = {path.stem: StepStore(root).record(path.stem) for path in files}
    return {address: record and fingerprint(record) for address, record in records.items()}


def journalled(root: Path) -> Facts:
    """Forecasts and decisions, without the times at which they were written."""
    journal = Journal(root / JOURNAL, Bot(root).lineage.name)
    rows = [row for pair in PAIRS for row in journal.read(pair, "5m", 0, 2**62)]
    decisions = journal.decisions(Bot(root).lineage.name, 10_000)
    journal.close()
    forecasts = {
        f"{row.pair} {row_of(row.candle_ms)} {row.version}": fingerprint(replace(row, created_ms=0))
        for row in rows
    }
    decided = {
        f"{row_of(row.at_ms)} {row.kind} {row.version}": fingerprint(replace(row, created_ms=0))
        for row in decisions
    }
    return {"forecasts": forecasts, "decisions": decided}


def leftovers(root: Path) -> list[str]:
    """What stays of unfinished files when they are old enough for the next start."""
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    Bot(root, SERIES, SETTINGS).start(ROWS[-1]).stop()
    left = [*root.rglob(TEMPORARY), *(root / WORK).iterdir()]
    return sorted(str(path.relative_to(root)) for path in left)


# ---------------------------------------------------------------- the next start


def comes_back(root: Path, reference: Path) -> Facts:
    """What a fresh bot has and serves before it learns anything new; in a copy of the folder."""
    copy, row = root.with_name(f"{root.name}-copy"), died_at(root)
    shutil.copytree(root, copy)
    head = Lineage(copy, Bot(copy).lineage.name).head
    facts: Facts = {"head": head, "head_row": None, "is_in_time": True}
    facts["steps"] = known_steps(copy)
    facts["intact"] = [card.version for card in ModelStore(copy).cards()]
    bot = Bot(copy, SERIES, SETTINGS).start(row)
    facts |= {"now": served(bot, row)}
    assert bot.recorder.settle(30.0)
    facts |= journalled(copy)
    if head is not None:
        record = StepStore(reference).record(head)
        assert record is not None, "no step of an uninterrupted bot"
        facts["head_row"] = row_of(record["boundary_ms"])
        facts["is_in_time"] = record["boundary_ms"] >= bot.learning.schedule.boundary_at(
            bot.close_ms
        )
        later = max(row, facts["head_row"] + SETTINGS.training_lag_candles)
        facts["later"] = served(bot, later)
        facts["expected"] = expected(bot, record, later, ModelStore(reference))
    bot.stop()
    shutil.rmtree(copy)
    return facts


def served(bot: Bot, row: int) -> Facts:
    """What is said of a candle, by pair: the version and its forecast."""
    bot.at(row)
    return {pair: said(bot.engine.outlook(bot.frame(pair))) for pair in PAIRS}


def said(outlook: Outlook) -> list[str]:
    forecast = outlook.forecast
    if not np.isfinite(forecast.mean[-1]):
        return []
    columns = (forecast.mean, forecast.volatility, forecast.mean_error, forecast.lowest)
    numbers = [forecast.quantiles[-1], *(column[-1:] for column in (*columns, forecast.highest))]
    plain = [(array + 0.0).tolist() for array in numbers]  # a journal knows no zero below zero
    return [str(outlook.version[-1]), fingerprint(*plain)]


def expected(bot: Bot, record: Facts, row: int, store: ModelStore) -> Facts:
    """What the champion of a step says of a candle, with exactly that step's widths."""
    entry = next(c for c in record["contenders"] if c["version"] == record["champion"])
    champion = unpack_contender(entry, Evidence.nothing(), Kept.nothing())
    model = Model.of(store.load(entry["version"]), SETTINGS)
    calibration = champion.calibration(model.calibration)
    model = replace(model, calibration=calibration)
    out = {}
    for pair in PAIRS:
        candles = bot.maker.history.with_context(bot.at(row).frame(pair))
        outlook = Outlook(pair, candles.date_ms, make_terms(SETTINGS))
        outlook.fill(model, Frame(candles, SETTINGS), np.array([len(candles) - 1]))
        out[pair] = said(outlook)
    return out


def goes_on(root: Path) -> Facts:
    """The rest of the bot's life, and what it trained in it."""
    before = len(trainings(root))
    trade(root)
    facts = outcome(root) | {
        "trained": [d for what, d in trainings(root)[before:] if what == "train"]
    }
    return facts | {"leftovers": leftovers(root)}


# ---------------------------------------------------------------- damage between two lives


def harmed(number: int, file: str, damage: str, folder: Path) -> Facts:
    """Kill a bot at a point, damage a kind of file, and let the next one live to the end."""
    root = folder / f"{number}-{file}-{damage}"
    lineage = Bot(root).lineage.name
    assert forked(lambda: trade(root, number).names) is None
    hit = befall(root, lineage, file, damage)
    on = forked(lambda: trade(root).news)
    after = {at: fingerprint(record) for at, record in line_of(root, lineage).items()}
    shutil.rmtree(root)
    where = f"{number}: {file} {damage}"
    return {"where": where, "hit": len(hit), "on": on, "line": after}


def harms(names: Sequence[str], few: int, seed: int) -> list[tuple[int, str, str]]:
    """Each kind of file at the end of each step, with the kinds of damage in turn; or a few."""
    ends = [n for n, name in enumerate(names, 1) if re.match("after replace lineages/.*json", name)]
    every = [
        (end, file, [*DAMAGES][(step + kind) % len(DAMAGES)])
        for step, end in enumerate(ends)
        for kind, file in enumerate(FILES)
    ]
    return random.Random(seed).sample(every, few) if few else every


def stories(folder: Path) -> list[Facts]:
    """The steps of the chains that begin at each retraining, by what they hold."""
    (folder / WORK).mkdir(parents=True)
    armed(folder, 0)
    out = []
    for origin in (1_200, 1_300, 1_400):
        root = folder / f"story-{origin}"
        steps = chain(root, SERIES, origin, (ROWS[-1] + 1) // 25 * 25, SETTINGS)
        store = StepStore(root)
        out.append({step.address: fingerprint(store.record(step.address)) for step in steps})
    return out


# ---------------------------------------------------------------- all of it, many times


def forked(work: Callable[[], Any]) -> Any:
    """The answer of `work` in a child process and what it complained of; None if it was killed."""
    return begun(work)()


def begun(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin `work` in a child process; what comes back waits for the answer, as `forked`."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        with os.fdopen(into, "w") as pipe:
            json.dump(answered(work), pipe)
        os._exit(0)
    os.close(into)

    def answer() -> Any:
        with os.fdopen(out) as pipe:
            content = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        return json.loads(content)

    return answer


def answered(work: Callable[[], Any]) -> Facts:
    complaints = Complaints()
    logging.getLogger("lstm_model").addHandler(complaints)
    try:
        return {"answer": work(), "complaints": complaints.lines}
    except BaseException:  # noqa: BLE001 - the parent tells of it
        return {"answer": {}, "complaints": [traceback.format_exc()]}


class Complaints(logging.Handler):
    """Warnings and errors that were logged, but that the market is young."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.endswith(".absence"):
            self.lines.append(self.format(record))


def chosen(names: Sequence[str], few: int, seed: int) -> list[int]:
    """Points to die at: `few` at random; or, if 0, each kind so often and fifty at random."""
    draw = random.Random(seed)
    everything = range(1, len(names) + 1)
    if few:
        return sorted(draw.sample(everything, few))
    out = set(draw.sample(everything, 50))
    for kind in dict.fromkeys(names):
        alike = [number for number in everything if names[number - 1] == kind]
        out |= set(draw.sample(alike, min(AT_LEAST, len(alike))))
    return sorted(out)


def survey(folder: Path, few: int, seed: int) -> Facts:
    """An uninterrupted life, and what became of bots that were killed."""
    for module in (learning, maker):  # once for all children; nobody edits the code meanwhile
        module.code_digest(module._DECISIVE_MODULES)
    gc.collect()
    gc.freeze()  # every bot collects when it starts; what was imported need not be looked at again
    whole = folder / "uninterrupted"
    names = forked(lambda: trade(whole).names)
    lived = forked(lambda: outcome(whole))
    report = {"names": names["answer"], "lived": lived, "trainings": trainings(whole)}
    numbers = chosen(names["answer"], few, seed)
    hands = [numbers[hand::AT_ONCE] for hand in range(AT_ONCE)]
    running = [begun(lambda mine=mine: [fate(n, folder, whole) for n in mine]) for mine in hands]
    ended = [wait() for wait in running]
    assert not any(hand["complaints"] for hand in ended), ended
    kills = sorted((one for hand in ended for one in hand["answer"]), key=itemgetter("number"))
    told = [harmed(*harm, folder) for harm in harms(names["answer"], few, seed)]
    walked = forked(lambda: stories(folder / "stories"))
    return report | {"kills": kills, "harms": told, "stories": walked}


def fate(number: int, folder: Path, whole: Path) -> Facts:
    """Kill a bot at a point, look what is left of it, and let the next one live to the end."""
    root = folder / str(number)
    killed = forked(lambda: trade(root, number).names) is None
    back, on = forked(lambda: comes_back(root, whole)), forked(lambda: goes_on(root))
    shutil.rmtree(root)
    return {"number": number, "killed": killed, "back": back, "on": on}


if __name__ == "__main__":
    if sys.argv[1] == "survey":
        target, few, seed = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
        (target / "report.json").write_text(json.dumps(survey(target, few, seed)))
    else:
        trade(Path(sys.argv[1]), int(sys.argv[2]))
