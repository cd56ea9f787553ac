"""A month of the bot with something going wrong every day: what it forecasts, holds and says.

    python benchmarks/study_month.py [--days 31] [--data DIR] [--pairs BTC/USDT ...] [--seed 1]

The code is `freqtrade-lstm verify`'s: freqtrade's own worker over the window, in fast-forward, with
the trade stream, then a backtest of the same candles. Incidents (docs/replay.md) are dealt by a
seed: every kind once in `ceil(kinds / per day)` days. So that the disk of the store can really be
full, the study runs itself under `unshare` with a small file system of its own; where that is not
allowed, `full` is left out, and the table says so. Candles are invented without `--data`.

Counted are, by virtual day: resident memory, threads and open files of the bot's process, the most
memory of its training process, bots, strategies and engines alive, rows of the journal, messages.
The bot's process also holds what is not the bot's: the market's tape, which is there from the start
(its size is told), the exchange that serves it, whose connections are not counted, and the candles
that `verify` compares, 50 bytes each. `--explain` says each day what malloc keeps, and what holds a
bot that has ended. Status 1 if a forecast differs, a row is missing or there twice, memory or
numbers grow, or a message is too long or comes more than once an hour.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.strategy import IStrategy
from held import heap_megabytes, holders
from rich.console import Console
from rich.table import Table

from lstm_model.bot.live import LiveEngine
from lstm_model.practice.incidents import Incident
from lstm_model.replay.comparison import Comparison
from lstm_model.replay.proof import prove
from lstm_model.replay.run import Replay, Wish
from lstm_model.replay.standing import Moment

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
TIMEFRAME = "5m"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
# What goes wrong, and for how many minutes at least and at most; 0: it does not last.
KINDS = {
    "outage": (5, 40), "late": (1, 7), "restart": (3, 30), "kill": (0, 0), "stream": (5, 5),
    "full": (10, 40), "locked": (10, 40), "halt": (30, 75), "reload": (0, 0),
}  # fmt: skip
LONGEST_MS = 75 * MINUTE_MS
APART_MS = 5 * MINUTE_MS
SMALL = {  # a network that is soon trained, for a try
    "lookback": 16, "units": 16, "layers": 1, "members": 1, "max_epochs": 2,
    "train_candles": 10_000, "epoch_windows": 10_000,
    "validation_fraction": 0.1, "test_fraction": 0.3,
}  # fmt: skip
STORE_SIZE = "1500m"
GROWTH = 0.10  # of memory, last day against the first
MORE = 2  # chosen: threads and files by which a day may differ: connections come and go
LONGEST = 4_096  # characters that Telegram takes
TRADES = {"entry", "entry_fill", "entry_cancel", "exit", "exit_fill", "exit_cancel",
          "protection_trigger", "protection_trigger_global"}  # fmt: skip
WARNED = re.compile(r"^\S+ (\d\d):\S+ - \S+ - (?:WARNING|ERROR|CRITICAL) - (?P<text>.*)")
console = Console(width=150)


# ---------------------------------------------------------------- the plan


def deal(
    start_ms: int, days: float, per_day: int, kinds: Sequence[str], pairs: Sequence[str], seed: int
) -> list[Incident]:
    """Incidents of all days, never two at once, every kind as often as the others.

    The first of a day may last over midnight, when the learner takes its step.
    """
    dice, deck, dealt = random.Random(seed), list[str](), []
    slot_ms = DAY_MS // per_day
    if slot_ms < LONGEST_MS + 3 * APART_MS:
        raise SystemExit(f"--per-day {per_day} is too many; at most 15")
    end_ms = start_ms + round(days * DAY_MS)
    for number in range(math.ceil(days * per_day) + per_day):
        if not deck:
            deck = dice.sample(list(kinds), len(kinds))
        begin_ms = start_ms - 4 * HOUR_MS + number * slot_ms
        spare_ms = slot_ms - LONGEST_MS - 2 * APART_MS
        at_ms = begin_ms + APART_MS + dice.randrange(0, spare_ms, MINUTE_MS)
        if not start_ms + APART_MS <= at_ms < end_ms - LONGEST_MS:
            continue
        kind = deck.pop()
        least, most = KINDS[kind]
        if kind == "late":
            at_ms -= at_ms % (5 * MINUTE_MS)
        pair = dice.choice(pairs) if kind == "halt" else ""
        dealt.append(Incident(kind, at_ms, dice.randint(least, most) * MINUTE_MS, pair))
    return dealt


# ---------------------------------------------------------------- what is sampled


class Alive:
    """How many objects of a class there are, those that `gc.freeze` hides from `gc` included."""

    def __init__(self, kind: type) -> None:
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        made = kind.__init__

        def noted(this: Any, *arguments: Any, **named: Any) -> None:
            self._known.add(this)
            made(this, *arguments, **named)

        kind.__init__ = noted  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Any]:
        return iter([*self._known])


@dataclass
class Day:
    """What was seen of one virtual day; megabytes are 10^6 bytes."""

    megabytes: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    trainer: float = 0.0
    bots: int = 0
    strategies: int = 0
    engines: int = 0
    rows: tuple[int, ...] = ()
    incidents: int = 0
    messages: int = 0
    wall_s: float = 0.0


class Samples:
    """Looks at this process once a virtual hour, at what is alive at the end of each day."""

    def __init__(self, replay: Replay, *, explain: bool = False) -> None:
        self._explain = explain
        self.days: dict[int, Day] = defaultdict(Day)
        self._replay, self._me = replay, psutil.Process()
        self._start_ms = replay.plan.scenario.start_ms
        self._alive = [Alive(kind) for kind in (FreqtradeBot, IStrategy, LiveEngine)]
        self._last_day = -(-(replay.plan.scenario.end_ms - self._start_ms) // DAY_MS) - 1
        self._hour, self._day, self._trainer_s, self._day_s = -1, 0, 0.0, time.monotonic()

    def __call__(self, moment: Moment) -> None:
        now_s, hour = time.monotonic(), (moment.now_ms - self._start_ms) // HOUR_MS
        if now_s - self._trainer_s > 0.5:
            self._trainer_s = now_s
            today = self.days[self._day]
            today.trainer = max(today.trainer, self._trainer())
        if hour == self._hour:
            return
        self._hour, day = hour, min(hour // 24, self._last_day)
        if day != self._day:
            gc.collect()
            self._sample(self.days[self._day])
            self.close_day()
            self._day = day
        self._sample(self.days[self._day])

    def _sample(self, day: Day) -> None:
        day.megabytes.append(self._me.memory_info().rss / 1e6)
        day.threads.append(self._me.num_threads())
        day.files.append(self._me.num_fds() - self._served())
        day.bots, day.strategies, day.engines = map(len, self._alive)

    def close_day(self) -> None:
        """What is written down by now."""
        day, now_s = self.days[self._day], time.monotonic()
        day.rows = tuple(counted(self._replay.files.live / "journal.sqlite"))
        day.wall_s, self._day_s = now_s - self._day_s, now_s
        show_life(
            f"day {self._day + 1}: {day.wall_s:.0f} s, {day.megabytes[-1]:.0f} MB, "
            f"{day.threads[-1]} threads, {day.files[-1]} files, {day.bots} bots, rows {day.rows}"
        )
        if self._explain:
            show_life("  malloc: {:.0f} MB in use, {:.0f} MB free".format(*heap_megabytes()))
            for old in self._alive[0]:
                if old.strategy._lstm_engine is None:
                    ways = holders(old) or ["nobody holds it: it was frozen"]
                    show_life("\n".join(["  an old bot:", *ways]))

    def _served(self) -> int:
        """Open files of the exchange: where it listens, and its ends of the bot's connections."""
        found = self._me.net_connections("tcp")
        served = {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}
        return sum(each.fd >= 0 and each.laddr.port in served for each in found)

    def _trainer(self) -> float:
        found = 0.0
        for child in self._me.children(recursive=True):
            with suppress(psutil.Error):
                found = max(found, child.memory_info().rss / 1e6)
        return found


def counted(journal: Path) -> Iterator[int]:
    """Forecasts, verdicts and decisions in a journal."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        for table in ("forecast", "verdict", "decision"):
            yield int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def show_life(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- what is judged


@dataclass(frozen=True)
class Told:
    """A message that a user got, without what makes every one another."""

    at_ms: int
    kind: str
    text: str

    @property
    def plain(self) -> str:
        return re.sub(r"\d+", "#", self.text)


def messages_of(replay: Replay) -> list[Told]:
    told = []
    for line in replay.files.messages.read_text().splitlines():
        found = json.loads(line)
        at = datetime.fromisoformat(found["at"]).replace(tzinfo=UTC)
        text = found.get("msg") or found.get("status") or json.dumps(found)
        told.append(Told(int(at.timestamp() * 1000), found["type"], str(text)))
    return told


def repeated(told: Sequence[Told]) -> list[tuple[int, Told]]:
    """How often at most within an hour, of each text that came more than once; the worst first."""
    times: dict[str, list[Told]] = defaultdict(list)
    for message in told:
        if message.kind not in TRADES:
            times[message.plain].append(message)
    worst = []
    for found in times.values():
        at_ms = np.array([message.at_ms for message in found])
        within = np.searchsorted(at_ms, at_ms + HOUR_MS) - np.arange(len(at_ms))
        if (most := int(within.max())) > 1:
            worst.append((most, found[int(within.argmax())]))
    return sorted(worst, key=lambda item: -item[0])


def warned(log: Path) -> list[tuple[int, str]]:
    """The warnings and errors of the log that came most often within one hour of the clock."""
    by_hour: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        if match := WARNED.match(line):
            by_hour[line[:13], re.sub(r"[A-Z0-9]+/[A-Z0-9]+|\d+", "#", match["text"])] += 1
    most: dict[str, int] = {}
    for (_, text), count in by_hour.items():
        most[text] = max(count, most.get(text, 0))
    return sorted(((count, text) for text, count in most.items()), reverse=True)


def doubled(replay: Replay) -> int:
    """Candles of a pair that the journal has more than one forecast of."""
    start_ms = replay.plan.scenario.start_ms
    seen = Counter(
        (row.pair, row.candle_ms)
        for rows in replay.rows().values() for row in rows if row.candle_ms >= start_ms
    )  # fmt: skip
    return sum(count > 1 for count in seen.values())


@dataclass(frozen=True)
class Finding:
    """One thing that is judged."""

    what: str
    found: str
    ok: Any  # a truth, also of NumPy's


def findings(
    replay: Replay, samples: Samples, comparison: Comparison, missed: Sequence[str]
) -> Iterator[Finding]:
    """Everything that is judged, in the order of its weight."""
    yield from of_forecasts(replay, comparison)
    whole = [day for _, day in sorted(samples.days.items()) if day.megabytes]
    yield from of_resources(whole[0], whole[-1])
    yield from of_messages(messages_of(replay))
    yield Finding("waited for in vain", ", ".join(Counter(missed)) or "nothing", not missed)


def of_forecasts(replay: Replay, comparison: Comparison) -> Iterator[Finding]:
    said = comparison.forecasts
    differing = sum(len(pair.differing) for pair in said.pairs)
    lacking = sum(len(pair.only_backtest) for pair in said.pairs)
    extra = sum(len(pair.only_replay) for pair in said.pairs)
    yield Finding(
        "forecasts that differ from the backtest's", f"{differing:,} of {said.compared:,}",
        said.compared > 0 and differing == 0,
    )  # fmt: skip
    yield Finding("candles that the backtest alone has forecast", f"{lacking:,}", not lacking)
    yield Finding("candles that the bot alone has forecast", f"{extra:,}", not extra)
    yield Finding("candles with two forecasts in the journal", f"{(two := doubled(replay)):,}",
                  not two)  # fmt: skip


def of_resources(first: Day, last: Day) -> Iterator[Finding]:
    for what, before, after in (
        ("the bot's process", np.median(first.megabytes), np.median(last.megabytes)),
        ("its training process", first.trainer, last.trainer),
    ):
        grown = after / before - 1.0 if before else 0.0
        yield Finding(
            f"memory of {what}, last day against first",
            f"{before:,.0f} MB to {after:,.0f} MB, {grown:+.1%}", grown <= GROWTH,
        )  # fmt: skip
    for what in ("threads", "files"):
        before, after = (float(np.median(getattr(day, what))) for day in (first, last))
        yield Finding(f"{what}, last day against first", f"{before:g} to {after:g}",
                      after <= before + MORE)  # fmt: skip
    alive = f"{last.bots} bots, {last.strategies} strategies, {last.engines} engines"
    # One that was reloaded away may not be collected yet.
    yield Finding("alive at the end", alive, max(last.bots, last.engines) <= 2)


def of_messages(told: Sequence[Told]) -> Iterator[Finding]:
    flood = repeated(told)
    example = f"; e.g. {flood[0][0]} times: {flood[0][1].text[:150]}" if flood else ""
    yield Finding("texts that came more than once within an hour", f"{len(flood)}{example}",
                  not flood)  # fmt: skip
    longest = max((len(message.text) for message in told), default=0)
    yield Finding("longest message", f"{longest:,} characters", longest <= LONGEST)


# ---------------------------------------------------------------- the run


def prepared(chosen: argparse.Namespace, incidents: Sequence[Incident]) -> Replay:
    folder, userdir = chosen.folder, chosen.folder / "user"
    userdir.mkdir(parents=True, exist_ok=True)
    config = folder / "month.json"
    options = {**(SMALL if chosen.small else {}), "trade_stream": not chosen.no_stream}
    config.write_text(json.dumps({"lstm": {**options, **json.loads(chosen.options)}}))
    return Replay(
        Wish(
            chosen.data, chosen.start_ms, chosen.start_ms + round(chosen.days * DAY_MS),
            ("config.json", str(config)), userdir=str(userdir), folder=folder / "replay",
            strategy="LSTMStrategy", timeframe=TIMEFRAME, pairs=tuple(chosen.pairs),
            history=chosen.history, seed=chosen.seed, days_before=chosen.days_before,
            incidents=tuple(incidents), overwrite=True,
        )
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> bool:
    """One month; whether nothing failed."""
    kinds = [kind for kind in KINDS if kind != "full" or chosen.mounted]
    kinds = [kind for kind in kinds if kind not in chosen.without]
    incidents = deal(
        chosen.start_ms, chosen.days, chosen.per_day, kinds, chosen.pairs, chosen.seed
    )  # fmt: skip
    replay = prepared(chosen, incidents)
    samples = Samples(replay, explain=chosen.explain)
    ran = replay.run(samples)
    samples.close_day()
    for incident in incidents:
        samples.days[(incident.at_ms - chosen.start_ms) // DAY_MS].incidents += 1
    for message in messages_of(replay):
        samples.days[(message.at_ms - chosen.start_ms) // DAY_MS].messages += 1
    show_life("Backtesting the same window ...")
    comparison = prove(replay, 0.003)
    made = list(findings(replay, samples, comparison, ran.missed))
    tell(replay, samples, incidents, made, comparison, ran.wall_s)
    if "full" not in kinds:
        console.print("Without `full`: it was left out, or no file system can be mounted here.")
    keep(chosen, replay, samples, made)
    return all(finding.ok for finding in made)


def tell(
    replay: Replay, samples: Samples, incidents: Sequence[Incident], made: Sequence[Finding],
    comparison: Comparison, wall_s: float,
) -> None:  # fmt: skip
    market = replay.plan.scenario.market.listings.values()
    tape = sum(
        column.nbytes for item in market for column in vars(item.trades).values()
        if isinstance(column, np.ndarray)
    )  # fmt: skip
    console.print(by_day(samples))
    kinds = Counter(incident.kind for incident in incidents)
    console.print(f"Incidents: {', '.join(f'{kind} {many}' for kind, many in kinds.items())}")
    console.print(f"The market's tape: {tape / 1e6:.0f} MB. Replayed in {wall_s / 60:.1f} min.")
    for count, text in warned(replay.files.log)[:5]:
        console.print(f"In one hour {count} times in the log: {text[:130]}", markup=False)
    if comparison.explanation is not None:
        console.print(f"First forecast that differs: {comparison.explanation}", markup=False)
    verdict = Table(title="Verdict", title_justify="left")
    for name in ("", "found", "ok"):
        verdict.add_column(name)
    for finding in made:
        verdict.add_row(finding.what, finding.found, "yes" if finding.ok else "NO")
    console.print(verdict)


def by_day(samples: Samples) -> Table:
    table = Table(title="By virtual day: medians of the hours; memory in MB", title_justify="left")
    for name in (
        "day",
        "incidents",
        "memory",
        "most",
        "trainer",
        "threads",
        "files",
        "bots",
        "strategies",
        "engines",
        "forecasts",
        "verdicts",
        "decisions",
        "messages",
        "min",
    ):
        table.add_column(name, justify="right")
    for number, day in sorted(samples.days.items()):
        if day.megabytes:
            table.add_row(
                f"{number + 1}", f"{day.incidents}", f"{np.median(day.megabytes):.0f}",
                f"{max(day.megabytes):.0f}", f"{day.trainer:.0f}", f"{np.median(day.threads):g}",
                f"{np.median(day.files):g}", f"{day.bots}", f"{day.strategies}", f"{day.engines}",
                *(f"{rows:,}" for rows in day.rows), f"{day.messages}", f"{day.wall_s / 60:.1f}",
            )  # fmt: skip
    return table


def keep(
    chosen: argparse.Namespace, replay: Replay, samples: Samples, made: Sequence[Finding]
) -> None:
    """Numbers as JSON; the store, whose file system ends with this process, as a copy."""
    days = {number + 1: vars(day) for number, day in sorted(samples.days.items())}
    found = {"days": days, "verdict": [vars(finding) for finding in made]}
    (chosen.folder / "numbers.json").write_text(json.dumps(found, indent=1, default=bool))
    if chosen.mounted:
        shutil.copytree(replay.files.live, chosen.folder / "live", dirs_exist_ok=True)
    console.print(f"Log, messages and numbers are in {chosen.folder}")


def mounted(folder: Path) -> bool:
    """Whether a small file system lies now where the replay's store will be."""
    store = folder / "replay" / "live"
    store.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={STORE_SIZE}", "tmpfs", str(store)]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603


def go_apart(chosen: argparse.Namespace) -> None:
    """Begin anew where this process may mount something, if it can."""
    apart = ["unshare", "--user", "--map-root-user", "--mount"]
    with suppress(FileNotFoundError):
        if subprocess.run([*apart, "true"], check=False).returncode == 0:  # noqa: S603
            os.execvp(apart[0], [*apart, sys.executable, *sys.argv, "--apart"])  # noqa: S606


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--days", type=float, default=31.0)
    parser.add_argument("--start", default="2024-07-10", help="first day, UTC midnight")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS))
    parser.add_argument("--data", default="synthetic", help="or a directory of recorded candles")
    parser.add_argument("--history", type=Path, help="older candles, if those are of trades")
    parser.add_argument("--days-before", type=int, default=75, help="of an invented market")
    parser.add_argument("--seed", type=int, default=1, help="of the incidents and the market")
    parser.add_argument("--per-day", type=int, default=3, help="incidents a day")
    parser.add_argument("--without", nargs="*", default=[], choices=KINDS, help="kinds")
    parser.add_argument("--small", action="store_true", help="a small network, for a try")
    parser.add_argument("--options", default="{}", help='more of the "lstm" section, as JSON')
    parser.add_argument("--no-stream", action="store_true", help="candles alone")
    parser.add_argument("--explain", action="store_true", help="what holds memory and old bots")
    parser.add_argument("--folder", type=Path, help="where all is left; a temporary one else")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    start = datetime.fromisoformat(chosen.start).replace(tzinfo=UTC)
    chosen.start_ms = int(start.timestamp() * 1000)
    return chosen


def main() -> None:
    chosen = arguments()
    os.chdir(ROOT)
    if not chosen.apart and "full" not in chosen.without:
        go_apart(chosen)
    chosen.folder = (chosen.folder or Path(tempfile.mkdtemp(prefix="study-month-"))).resolve()
    chosen.mounted = chosen.apart and mounted(chosen.folder)
    sys.exit(0 if run(chosen) else 1)


if __name__ == "__main__":
    main()
