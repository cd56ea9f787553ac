"""How fast the bot goes in fast-forward, and where the time goes.

    python benchmarks/bench_replay.py [--hours 12] [--only stream|candles] [--profile] [--data DIR]

stream   `freqtrade-lstm replay` with `trade_stream`: every trade comes through the websocket
candles  the same without
peers    `freqtrade backtesting` over the same window; the same bot in real time

The bot, its strategy, the trade stream and the loopback exchange are the real ones; BTC, ETH and
SOL on 5m, invented unless `--data` names recordings. The network has the size that config.json
says. It is trained and pinned when the bot starts; the first hour is warm-up, and nothing
is trained after it. Each kind runs in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lstm_model.practice.clock import real_sleep
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.replay.backtest import backtest
from lstm_model.replay.run import Replay, Wish, trades
from lstm_model.replay.standing import Moment
from lstm_model.store.lineage import lineages
from lstm_model.store.models import ModelStore

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
TIMEFRAME, STEP_MS, HOUR_MS = "5m", 300_000, 3_600_000
START = datetime(2024, 7, 10, 2, tzinfo=UTC)  # after the day's step of the learner
MOST_HOURS = 21  # the next step is at midnight
WARM_UP_MS, LAST_MS = HOUR_MS, 60_000  # the first look after the warm-up comes a second late
AIMS = {"stream": 500, "candles": 1_500}  # virtual minutes per real minute
# A network that is soon trained; costs and skill are left out, so that there are trades.
OPTIONS = {
    "horizon": 3, "train_candles": 10_000, "max_epochs": 3, "epoch_windows": 20_000,
    "validation_fraction": 0.1, "test_fraction": 0.2,
    "require_skill": False, "slippage_fraction": 0.0, "half_spread_fraction": 0.0,
}  # fmt: skip
DAYS_BEFORE = 40  # enough for `train_candles`
BACKTESTS = 3
SAMPLED_S = 0.003  # between two looks at the threads
SWITCHED_S = 0.000_1  # a thread is asked for the interpreter after 5 ms otherwise
console = Console(width=140)


# ---------------------------------------------------------------- the replay


class Looks:
    """Times the looks of the bot: from one to the next, the stretch of market between included.

    Parameters
    ----------
    warm_ms : virtual time from which on it is measured
    store : of the bot's models
    """

    def __init__(self, warm_ms: int, store: Path) -> None:
        self.at_ms: list[int] = []
        self.at_s: list[float] = []
        self.cpu_s: list[float] = []
        self.warm, self.pinned = threading.Event(), False
        self.learning = 0  # calls while the bot waited for its learner
        self._warm_ms, self._store = warm_ms, store

    def __call__(self, moment: Moment) -> None:
        self.pinned = self.pinned or pin_network(self._store)
        if self.at_ms and moment.now_ms <= self.at_ms[-1]:
            self.learning += self.warm.is_set()
            return
        self.at_ms.append(moment.now_ms)
        self.at_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())
        if moment.now_ms >= self._warm_ms and not self.warm.is_set():
            assert self.pinned, "no network was trained in the first hour"
            gc.collect()
            self.forget()
            self.warm.set()

    def forget(self) -> None:
        """What came before is warm-up."""
        for known in (self.at_ms, self.at_s, self.cpu_s):
            del known[:-1]

    def figures(self) -> dict[str, Any]:
        """What the table shows of them."""
        spent_ms = 1e3 * np.diff(self.at_s)
        at_ms = np.array(self.at_ms)
        opens = np.diff(at_ms // STEP_MS, prepend=at_ms[0] // STEP_MS)[:-1] > 0
        hours = (at_ms[1:] - at_ms[0]) // HOUR_MS
        by_hour = [60e3 * 60 / spent_ms[hours == n].sum() for n in range(int(hours[-1]))]
        wall_s = self.at_s[-1] - self.at_s[0]
        return {
            "speed": (at_ms[-1] - at_ms[0]) / 1e3 / wall_s,
            "by_hour": by_hour,
            "opening": spread(spent_ms[opens]),
            "between": spread(spent_ms[~opens]),
            "cores": (self.cpu_s[-1] - self.cpu_s[0]) / wall_s,
            "minutes": (at_ms[-1] - at_ms[0]) / 60e3,
            "wall_s": wall_s,
        }


def pin_network(store: Path) -> bool:
    """Let the network serve that was trained, whatever the gate says; whether there is one."""
    trained = [card for card in ModelStore(store).cards() if card.kind == "scratch"]
    known = lineages(store)
    if trained and known:
        known[0].pin(trained[-1].version)
    return bool(trained and known)


def spread(values: Any) -> list[float]:
    return [*np.percentile(values, (50, 99)).tolist(), float(values.max())]


def rehearse(kind: str, folder: Path, chosen: argparse.Namespace) -> Replay:
    """A replay with a user of its own."""
    userdir, config = folder / "user", folder / "bench.json"
    userdir.mkdir(parents=True)
    section = {**OPTIONS, "trade_stream": kind == "stream"}
    config.write_text(json.dumps({"fee": 0.0, "lstm": section}))
    start_ms = int(START.timestamp() * 1000)
    end_ms = start_ms + WARM_UP_MS + round(chosen.hours * HOUR_MS) + LAST_MS
    return Replay(
        Wish(
            chosen.data, start_ms, end_ms, ("config.json", str(config)), userdir=str(userdir),
            folder=folder, strategy="LSTMStrategy", timeframe=TIMEFRAME, pairs=PAIRS,
            history=chosen.history, days_before=DAYS_BEFORE,
        )
    )  # fmt: skip


def measure(kind: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """A replay in this process and, of candles alone, a backtest of its window."""
    with tempfile.TemporaryDirectory(prefix="bench-replay-") as folder:
        replay = rehearse(kind, Path(folder), chosen)
        looks = Looks(replay.plan.scenario.start_ms + WARM_UP_MS, replay.files.live)
        profile = Profile(looks.warm) if chosen.profile else None
        with profile or nullcontext():
            replay.run(told(looks, replay.plan.scenario.end_ms, profile))
        assert not looks.learning, "the learner was at work while it was measured"
        found = looks.figures()
        found |= {
            "trades": len(trades()),
            "market": market_facts(replay, looks),
            "profile": profile.shares(found["minutes"], found["wall_s"]) if profile else None,
        }
        if kind == "candles":
            found["backtest"] = time_backtest(replay)
        return found


def told(looks: Looks, end_ms: int, profile: Profile | None) -> Callable[[Moment], None]:
    """What is called after every look."""

    def watch(moment: Moment) -> None:
        looks(moment)
        if len(looks.at_ms) % 60 == 0:
            note(f"{datetime.fromtimestamp(moment.now_ms / 1000, UTC):%H:%M}")
        if profile is not None and moment.now_ms >= end_ms:
            profile.stop()

    return watch


def market_facts(replay: Replay, looks: Looks) -> dict[str, float]:
    """How much was traded while it was measured, in all pairs, per virtual minute."""
    scenario = replay.plan.scenario
    span = (looks.at_ms[0], looks.at_ms[-1])
    times = [scenario.listing(pair).trades.time_ms for pair in scenario.pairs]
    within = np.concatenate([t[slice(*np.searchsorted(t, span, side="right"))] for t in times])
    minutes = (span[1] - span[0]) / 60e3
    return {
        "trades": len(within) / minutes,
        "seconds": len(np.unique(within // 1000)) / minutes,
    }


def time_backtest(replay: Replay) -> dict[str, Any]:
    """freqtrade's own backtest of the window; models are in the store, the first is warm-up."""
    files, scenario, times = replay.files, replay.plan.scenario, []
    replay.write_candles(files.whole, scenario.end_ms)
    with LoopbackExchange(scenario.market) as exchange:
        overlay = json.loads(files.overlay.read_text())
        overlay["exchange"] |= loopback_overlay(exchange.url)["exchange"]
        path = files.folder / "backtest.json"
        path.write_text(json.dumps(overlay))
        arguments = {
            "config": [*replay.plan.configs, str(path)],
            "user_data_dir": str(replay.plan.userdir),
            "datadir": str(files.whole),
            "strategy": replay.plan.strategy,
        }
        for _ in range(1 + BACKTESTS):
            began_s = time.perf_counter()
            backtest(arguments, scenario.start_ms, scenario.end_ms)
            times.append(time.perf_counter() - began_s)
    median_s = float(np.median(times[1:]))
    return {"speed": (scenario.end_ms - scenario.start_ms) / 1e3 / median_s, "seconds": median_s}


# ---------------------------------------------------------------- where the time goes


# The innermost frame whose file has one of these in its path says what the main thread does;
# pandas, NumPy and their like work for whoever called them.
DATABASE = "database"
PARTS = (
    ("/sqlalchemy/", DATABASE),
    ("/requests/", "REST"),
    ("/urllib3/", "REST"),
    ("/aiohttp/", "REST"),
    ("/ccxt/", "REST"),
    ("/lstm_model/replay/pacing.py", "delivery"),
    ("/lstm_model/practice/", "delivery"),
    ("/lstm_model/replay/", "the replay's own books"),
    ("/lstm_model/stream/trade_stream.py", "our engine: the trade stream's reins"),
    ("/lstm_model/", "our engine: closed candles"),
    ("/strategies/", "our engine: closed candles"),
    ("/freqtrade/", "freqtrade's own work"),
)
INSIDE = ("/lstm_model/trading/inside.py", "/lstm_model/trading/nowcast.py")
# Where a thread waits; a byte written to wake another up gives it the interpreter as well.
IDLE = {
    "select", "wait", "_wait", "_wait_for_tstate_lock", "_worker", "result", "do_poll",
    "_write_to_self",
}  # fmt: skip


class Profile:
    """Looks at what every thread does, a few hundred times a second; for `with`.

    It has to be given the interpreter at once when it wants it: else it would get it where a
    thread lets go of it by itself, which is at every query of a database.
    """

    def __init__(self, warm: threading.Event) -> None:
        self._warm, self._over, self._main = warm, threading.Event(), threading.get_ident()
        self._parts, self._waits = Counter[str](), Counter[str]()
        self._busy, self._samples = Counter[str](), 0
        self._thread = threading.Thread(target=self._sample, name="profile")

    def __enter__(self) -> None:
        self._interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCHED_S)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        sys.setswitchinterval(self._interval_s)

    def stop(self) -> None:
        self._over.set()
        self._warm.set()
        self._thread.join()

    def shares(self, minutes: float, wall_s: float) -> dict[str, Any]:
        """Of each part its share, its ms per virtual minute and its share of waiting."""
        whole = max(1, self._samples)
        scale = 1e3 * wall_s / minutes / whole
        parts = [
            (part, count / whole, count * scale, self._waits[part] / whole)
            for part, count in self._parts.most_common()
        ]
        busy = [(name, count / whole) for name, count in self._busy.most_common()]
        return {"parts": parts, "busy": busy, "samples": self._samples}

    def _sample(self) -> None:
        self._warm.wait()
        while not self._over.is_set():
            real_sleep(SAMPLED_S)
            frames = sys._current_frames()
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            self._samples += 1
            for ident, frame in frames.items():
                if ident == self._main:
                    self._take(frame)
                elif ident != threading.get_ident() and frame.f_code.co_name not in IDLE:
                    self._busy[names.get(ident, "other")] += 1

    def _take(self, frame: FrameType) -> None:
        stack = [(code.co_filename, code.co_name) for code in codes(frame)]
        part = part_of(stack)
        self._parts[part] += 1
        self._waits[part] += stack[0][1] in IDLE


def codes(frame: FrameType | None) -> Iterator[Any]:
    """What a thread is in, the innermost first."""
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def part_of(stack: list[tuple[str, str]]) -> str:
    """Which part of the work a stack is in."""
    part = next((part for path, _ in stack for mark, part in PARTS if mark in path), "other")
    within = {name for path, name in stack if path.endswith("/pacing.py")}
    if part == DATABASE:
        ours = any(path.endswith("/lstm_model/store/journal.py") for path, _ in stack)
        return f"{DATABASE}: {'journal' if ours else 'trades'}"
    if part == "delivery":
        what = "trades" if "_trade" in within else "candles" if "advance" in within else "settling"
        return f"delivery of {what}" if what != "settling" else "settling before a look"
    if part.startswith("our engine") and any(path.endswith(INSIDE) for path, _ in stack):
        return "our engine: inside the candle"
    if part == "freqtrade's own work" and stack[0][1] == "select":  # its own event loop
        return "REST"
    return part


# ---------------------------------------------------------------- tables


def show(found: dict[str, dict[str, Any]], hours: float) -> Table:
    table = Table(title=f"virtual minutes per real minute, {hours:g} virtual hours; looks in ms")
    for name in ("", "speed", "aim", "slowest hour", "median hour", "look at a new candle",
                 "look between", "cores", "trades made", "backtest is"):  # fmt: skip
        table.add_column(name, justify="right" if name else "left")
    tested = found.get("candles", {}).get("backtest")
    for kind, made in found.items():
        title = {"stream": "with trade stream", "candles": "candles alone"}[kind]
        ratio = f"{tested['speed'] / made['speed']:,.0f} x as fast" if tested else ""
        table.add_row(
            title, f"{made['speed']:,.0f}", f"{AIMS[kind]:,}", *hourly(made["by_hour"]),
            read(made["opening"]), read(made["between"]), f"{made['cores']:.2f}",
            f"{made['trades']}", ratio,
        )  # fmt: skip
    if tested:
        table.add_row(
            f"freqtrade backtesting, {tested['seconds']:.2f} s", f"{tested['speed']:,.0f}"
        )
    table.add_row("the same bot in real time", "1")
    return table


def hourly(speeds: list[float]) -> tuple[str, str]:
    if not speeds:
        return "", ""
    return f"{min(speeds):,.0f}", f"{np.median(speeds):,.0f}"


def read(values: list[float]) -> str:
    """p50 / p99 / largest."""
    return " / ".join(f"{value:.0f}" for value in values)


def show_profile(kind: str, made: dict[str, Any]) -> Table:
    """Where the bot's thread spends its time, and how busy the others are meanwhile."""
    title = f"{kind}: {made['speed']:,.0f} while sampled {made['profile']['samples']:,} times"
    table = Table(title=title)
    for name in ("the bot's thread", "share", "ms per virtual minute", "of it waiting"):
        table.add_column(name, justify="left" if "thread" in name else "right")
    for part, share, spent_ms, waits in made["profile"]["parts"]:
        table.add_row(part, f"{share:.1%}", f"{spent_ms:.2f}", f"{waits:.1%}")
    for number, (name, share) in enumerate(made["profile"]["busy"]):
        if number == 0:
            table.add_section()
        table.add_row(f"beside it: {name} at work", f"{share:.1%}")
    return table


def note(text: str) -> None:
    """A sign of life; what was found goes to stdout."""
    print(text, end="\r", file=sys.stderr, flush=True)


def in_a_process(kind: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """One kind, in a new process; its answer is the last line it prints."""
    command = [sys.executable, __file__, "--work", kind, "--hours", str(chosen.hours)]
    command += ["--data", chosen.data, *(["--profile"] if chosen.profile else [])]
    command += ["--history", str(chosen.history)] if chosen.history else []
    made = subprocess.run(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    return dict(json.loads(made.stdout.splitlines()[-1]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=12.0, help=f"at most {MOST_HOURS}")
    parser.add_argument("--only", choices=AIMS)
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument("--data", default="synthetic", help="or a directory of recordings")
    parser.add_argument("--history", type=Path, help="older candles, if those are of trades")
    parser.add_argument("--work", choices=AIMS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not 0.0 < chosen.hours <= MOST_HOURS:
        parser.error(f"--hours must be above 0 and at most {MOST_HOURS}, found {chosen.hours:g}")
    return chosen


def main() -> None:
    chosen = arguments()
    if chosen.work:
        logging.basicConfig(level=logging.ERROR)
        print(json.dumps(measure(chosen.work, chosen)))
        return
    found = {kind: in_a_process(kind, chosen) for kind in ([chosen.only] if chosen.only else AIMS)}
    console.print(show(found, chosen.hours))
    for kind, made in found.items():
        if made["profile"]:
            console.print(show_profile(kind, made))
    market = next(iter(found.values()))["market"]
    console.print(
        f"{len(PAIRS)} pairs, {market['trades']:.1f} trades a virtual minute in "
        f"{market['seconds']:.1f} different seconds ({chosen.data}). Looks: p50 / p99 / largest, "
        f"with the market until the next one."
    )


if __name__ == "__main__":
    main()
