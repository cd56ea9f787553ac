"""Hours of real `freqtrade trade` under a busy exchange that misbehaves, and reloads meanwhile.

    python benchmarks/study_endurance.py [--hours 4] [--rate 2000] [--pairs 3] [--reloads 60]

freqtrade runs as a user runs it, in a process of its own, in real time, in a dry run; so does the
practice exchange, which sends `--rate` trades a second with faults (docs/trade-stream.md).
Its market is the invented one, with small trades at its last price in between. Learning steps are
short, so that networks are trained all the time. `/reload_config` comes by freqtrade's own REST
interface on 127.0.0.1, at even distances.

Once a minute: resident memory, threads and open files of the bot's process, the memory of its
training process. Loop times are freqtrade's own, from its debug log, to 10 ms: how long an
iteration took before it slept. Lost trades: of every candle from the first to the last of which the
bot has stored order flow, the exchange's trades less the bot's. Those of candles in which it was
reloaded, or just before, and those that the exchange gave neither by websocket nor REST are counted
apart.
Slopes are of the time after the first quarter. Freqtrade's REST server alone leaves a thread and
six files whenever it is started anew (two event loops that nobody closes); what it leaves is
measured in a process of its own and taken off, once a reload. Status 1 if the bot ended, wrote a
traceback of ours, grew, or lost trades.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvicorn
from fastapi import FastAPI
from freqtrade.rpc.api_server.uvicorn_threaded import UvicornServer
from rich.console import Console
from rich.table import Table

from lstm_model.market.flow_store import FlowStore
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults, parse_faults
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.practice.synthetic import CHARACTERS, synthetic_market
from lstm_model.practice.tape_market import Listing, Trades, make_market
from lstm_model.store.models import ModelStore

ROOT = Path(__file__).resolve().parent.parent
TIMEFRAME, STEP_MS = "1m", 60_000
DAYS = 14  # of history, for the first network
FAULTS = ("drop=900", "duplicates=0.01:3", "reorder=0.005:0.5", "gaps=0.0001",
          "malformed=0.000001", "rest_429=0.05", "rest_5xx=0.05")  # fmt: skip
OPTIONS = {  # a network that is soon trained, and trained anew every hour
    "lookback": 16, "horizon": 10, "units": 16, "layers": 1, "members": 1, "max_epochs": 2,
    "epoch_windows": 10_000, "train_candles": 10_000,
    "validation_fraction": 0.1, "test_fraction": 0.3,
    "step_candles": 60, "finetune_candles": 60, "retrain_candles": 240,
    "finetune_recent_candles": 1_000, "finetune_epochs": 1, "training_lag_candles": 12,
    "require_skill": False, "slippage_fraction": 0.0, "store_dir": "lstm",
}  # fmt: skip
USER = "study:a-password-for-this-study"
TOOK = re.compile(r"Throttling with '_process_running\(\)'.*last iteration took ([\d.]+) s")
GROWTH = 0.10  # of memory, last quarter against second
MORE = 3  # chosen: threads and files that come and go
console = Console(width=130)


# ---------------------------------------------------------------- the exchange


def busy(listing: Listing, rate: float, start_ms: int, end_ms: int) -> Listing:
    """The pair with so many more trades a second in a span, at its last price and a tick above."""
    thin, dice = listing.trades, np.random.default_rng(listing.trades.first_id)
    added = np.sort(dice.integers(start_ms, end_ms, round(rate * (end_ms - start_ms) / 1000.0)))
    price = thin.price[np.maximum(np.searchsorted(thin.time_ms, added, side="right") - 1, 0)]
    side = dice.random(len(added)) < 0.5
    order = np.argsort(np.concatenate([thin.time_ms, added]), kind="stable")
    columns = (
        (thin.time_ms, added),
        (thin.price, price + side),
        (thin.amount, np.ones(len(added), np.int64)),
        (thin.taker_buy, side),
    )
    joined = (np.concatenate(pair)[order] for pair in columns)
    return Listing(listing.instrument, Trades(*joined, first_id=thin.first_id))


def serve(chosen: argparse.Namespace, ours: Connection) -> None:
    """The exchange's process: serves, and answers what the study asks through a pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    market = synthetic_market(chosen.seed, DAYS)
    start_ms = int(time.time() * 1000)
    end_ms = start_ms + round(chosen.hours * 3_600_000) + chosen.warm_up_ms
    rate = chosen.rate / chosen.pairs
    chosen_ones = [*market.listings.values()][: chosen.pairs]
    listings = [busy(item, rate, start_ms, end_ms) for item in chosen_ones]
    with LoopbackExchange(make_market(listings), port=0) as exchange:
        ours.send(exchange.url)
        while (asked := ours.recv()) != "end":
            if asked == "log":
                log = exchange.log
                ours.send((log.connections, log.drops, sum(log.refused.values())))
            elif isinstance(asked, Faults):
                exchange.faults = asked
            else:
                ours.send(traded(exchange, *asked))


def traded(exchange: LoopbackExchange, pair: str, opens_ms: Sequence[int]) -> list[tuple[int, int]]:
    """Of each candle how many trades it had, and how many of them nobody could get."""
    symbol = pair.replace("/", "")
    gone = exchange.log.lost(symbol)
    found = []
    for open_ms in opens_ms:
        ids = exchange.trade_ids(symbol, open_ms, open_ms + STEP_MS)
        found.append((len(ids), sum(number in gone for number in ids) if gone else 0))
    return found


class Exchange:
    """The exchange in a process of its own, for `with`."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(chosen, theirs))
        self._process.start()
        self.url = str(self._ours.recv())

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.send("end")
        self._process.join(20.0)
        self._process.terminate()

    def ask(self, what: Any) -> Any:
        self._ours.send(what)
        return self._ours.recv()

    def go_wrong(self, faults: Faults) -> None:
        self._ours.send(faults)

    @property
    def megabytes(self) -> float:
        return float(psutil.Process(self._process.pid).memory_info().rss / 1e6)


# ---------------------------------------------------------------- the bot


class User:
    """A folder of freqtrade's with what this study needs, and commands run in it."""

    def __init__(self, folder: Path, url: str, pairs: Sequence[str], options: str) -> None:
        self.folder, self.userdir = folder, folder / "user_data"
        (self.userdir / "data" / "binance").mkdir(parents=True, exist_ok=True)
        self.port, self.log = free_port(), folder / "bot.log"
        self._overlay = folder / "endurance.json"
        overlay = loopback_overlay(url)
        overlay["exchange"]["pair_whitelist"] = list(pairs)
        name, password = USER.split(":")
        overlay |= {
            "timeframe": TIMEFRAME, "fee": 0.0,
            "db_url": f"sqlite:///{self.userdir}/trades.sqlite",
            "internals": {"process_throttle_secs": 1},
            "api_server": {
                "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": self.port,
                "username": name, "password": password, "jwt_secret_key": "of this study" * 4,
            },
            "log_config": logs(self.log),
            "lstm": {**OPTIONS, **json.loads(options)},
        }  # fmt: skip
        self._overlay.write_text(json.dumps(overlay))

    def options(self) -> list[str]:
        return ["-c", "config.json", "-c", "user_data/config-loopback.json",
                "-c", str(self._overlay), "--userdir", str(self.userdir)]  # fmt: skip

    def run(self, *words: str) -> None:
        command = [sys.executable, "-m", *words, *self.options()]
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{done.stdout[-3000:]}")

    def prepare(self) -> None:
        """History, and a network that serves, whatever the gate would say."""
        self.run("freqtrade", "download-data", "--days", str(DAYS), "-t", TIMEFRAME)
        self.run("lstm_model", "train")
        trained = [
            card for card in ModelStore(self.userdir / "lstm").cards() if card.kind == "scratch"
        ]
        self.run("lstm_model", "models", "pin", trained[-1].version)
        self.log.write_text("")

    @contextmanager
    def trading(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "freqtrade", "trade", "--strategy", "LSTMStrategy"]
        with (self.folder / "bot.out").open("wb") as out:
            child = subprocess.Popen(  # noqa: S603
                [*command, *self.options()], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                yield child
            finally:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(60)
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)

    def reload(self) -> bool:
        """`/reload_config`, as FreqUI sends it; whether it was heard."""
        url = f"http://127.0.0.1:{self.port}/api/v1/reload_config"
        request = urllib.request.Request(url, data=b"")
        request.add_header("Authorization", f"Basic {base64.b64encode(USER.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def logs(path: Path) -> dict[str, Any]:
    """All in one file, with freqtrade's own times of its loop."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s"}},
        "handlers": {
            "file": {"class": "logging.FileHandler", "formatter": "plain", "filename": str(path)}
        },
        "loggers": {"freqtrade.worker": {"level": "DEBUG"}},
        "root": {"level": "INFO", "handlers": ["file"]},
    }


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Sample:
    """The bot at one time; megabytes are 10^6 bytes."""

    hours: float
    megabytes: float
    threads: int
    files: int
    trainer: float
    reloads: int


def sample(process: psutil.Process, hours: float, reloads: int) -> Sample:
    trainer = 0.0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            trainer = max(trainer, child.memory_info().rss / 1e6)
    return Sample(
        hours, process.memory_info().rss / 1e6, process.num_threads(), process.num_fds(), trainer,
        reloads,
    )  # fmt: skip


def follow(
    user: User, process: psutil.Process, chosen: argparse.Namespace
) -> tuple[list[Sample], list[int]]:
    """Samples of the whole time, and when the configuration was reloaded meanwhile."""
    began_s, length_s, samples, reloads_ms = time.monotonic(), chosen.hours * 3600.0, [], []
    every_s = length_s / (chosen.reloads + 1)
    sampled_s = min(60.0, length_s / 12)
    due_s = 0.0
    while (passed_s := time.monotonic() - began_s) < length_s and process.is_running():
        if passed_s >= due_s:
            due_s += sampled_s
            with suppress(psutil.Error):
                samples.append(sample(process, passed_s / 3600.0, len(reloads_ms)))
                show_life(samples[-1])
        if len(reloads_ms) < chosen.reloads and passed_s >= (len(reloads_ms) + 1) * every_s:
            reloads_ms.append(int(time.time() * 1000))
            if not user.reload():
                print(f"reload {len(reloads_ms)} was not heard", file=sys.stderr)
        time.sleep(0.2)
    return samples, reloads_ms


def show_life(found: Sample) -> None:
    print(
        f"{found.hours:.2f} h, {found.megabytes:.0f} MB, {found.threads} threads, "
        f"{found.files} files, trainer {found.trainer:.0f} MB, {found.reloads} reloads",
        file=sys.stderr, flush=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Count:
    """Trades of the candles whose flow the bot has stored.

    Attributes
    ----------
    gone : nobody could get them
    reloaded : those that it lacks of candles in which it was reloaded, or just before
    lost : all others
    """

    pair: str
    candles: int
    stored: int
    sent: int
    gone: int
    reloaded: int
    lost: int

    @classmethod
    def of(
        cls, user: User, exchange: Exchange, pair: str, since_ms: int, reloads_ms: Sequence[int]
    ) -> Count:
        """Of the candles that began after `since_ms`, from the first to the last one stored."""
        flow = FlowStore(user.userdir / "data" / "binance" / "flow").read(pair, TIMEFRAME)
        flow = flow[flow["date_ms"] >= since_ms]
        opens_ms = np.arange(*flow["date_ms"][[0, -1]] + (0, STEP_MS), STEP_MS)
        stored = np.zeros(len(opens_ms), np.int64)  # of which nothing was known, nothing is stored
        stored[np.searchsorted(opens_ms, flow["date_ms"])] = flow["trades"]
        sent, gone = np.array(exchange.ask((pair, opens_ms.tolist())), np.int64).reshape(-1, 2).T
        lacking = np.maximum(sent - gone - stored, 0)
        excused = np.zeros(len(flow), np.bool_)
        for at_ms in reloads_ms:
            excused |= (opens_ms - STEP_MS < at_ms) & (at_ms < opens_ms + STEP_MS)
        return cls(
            pair, len(opens_ms), int(stored.sum()), int(sent.sum()), int(gone.sum()),
            int(lacking[excused].sum()), int(lacking[~excused].sum()),
        )  # fmt: skip


def loop_times(log: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds that freqtrade says its iterations took."""
    with log.open(errors="replace") as lines:
        return np.array([float(match[1]) for line in lines if (match := TOOK.search(line))])


def tracebacks(log: Path) -> int:
    """Errors with a frame of ours."""
    records = re.split(r"^(?=\d{4}-\d\d-\d\d )", log.read_text(errors="replace"), flags=re.M)
    return sum("Traceback" in text and "/lstm_model/" in text for text in records)


def slope(samples: Sequence[Sample], name: str) -> float:
    """Growth per hour after the first quarter."""
    later = samples[len(samples) // 4 :]
    known = [(item.hours, getattr(item, name)) for item in later if getattr(item, name)]
    if len(known) < 3:
        return float("nan")
    hours, values = np.array(known).T
    return float(np.polyfit(hours, values, 1)[0])


def serve_anew(ours: Connection, times: int = 12) -> None:
    """What freqtrade's REST server alone leaves behind each time: megabytes, threads and files."""
    me, seen = psutil.Process(), []
    for _ in range(times):
        server = UvicornServer(uvicorn.Config(FastAPI(), port=free_port(), log_level="error"))
        server.run_in_thread()
        server.cleanup()
        gc.collect()
        seen.append((me.memory_info().rss / 1e6, me.num_threads(), me.num_fds()))
    ours.send(np.median(np.diff(seen, axis=0), axis=0))


def left_by_their_server() -> dict[str, float]:
    """As `serve_anew`, which runs in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve_anew, args=(theirs,))
    child.start()
    found = ours.recv()
    child.join()
    return dict(zip(("megabytes", "threads", "files"), found.tolist(), strict=True))


def less(samples: Sequence[Sample], left: dict[str, float]) -> list[Sample]:
    """The same without what freqtrade's server has left of each reload."""
    return [
        replace(each, **{of: getattr(each, of) - each.reloads * by for of, by in left.items()})
        for each in samples
    ]


def grown(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Medians of the second and of the last quarter."""
    quarter = max(1, len(samples) // 4)
    values = [getattr(item, name) for item in samples]
    return float(np.median(values[quarter : 2 * quarter])), float(np.median(values[-quarter:]))


# ---------------------------------------------------------------- what is told


def table_of(samples: Sequence[Sample]) -> Table:
    table = Table(title="Over time; memory in MB", title_justify="left")
    for name in ("hours", "memory", "threads", "files", "trainer", "reloads"):
        table.add_column(name, justify="right")
    for found in samples[:: max(1, len(samples) // 16)]:
        table.add_row(
            f"{found.hours:.2f}", f"{found.megabytes:.0f}", f"{found.threads}", f"{found.files}",
            f"{found.trainer:.0f}" if found.trainer else "", f"{found.reloads}",
        )  # fmt: skip
    return table


def judge(samples: Sequence[Sample], counts: Sequence[Count], log: Path, alive: bool) -> bool:
    """Say what was found; whether nothing failed."""
    good = {"the bot ran to the end": alive}
    left = left_by_their_server()
    console.print(
        "Freqtrade's REST server alone leaves at each reload {megabytes:.1f} MB, {threads:g} "
        "thread, {files:g} files: taken off below".format(**left)
    )
    samples = less(samples, left)
    for name in ("megabytes", "threads", "files"):
        before, after = grown(samples, name)
        most = before * (1.0 + GROWTH) if name == "megabytes" else before + MORE
        good[
            f"{name}: {before:.0f} to {after:.0f}, {slope(samples, name):+.2f} an hour"
        ] = after <= most  # fmt: skip
    console.print(f"The trainer's memory: {slope(samples, 'trainer'):+.1f} MB an hour")
    lost = sum(count.lost for count in counts)
    good[f"lost trades: {lost:,} of {sum(count.sent for count in counts):,}"] = lost == 0
    failed = tracebacks(log)
    good[f"tracebacks with a frame of ours: {failed}"] = not failed
    verdict = Table(title="Verdict", title_justify="left")
    verdict.add_column("found")
    verdict.add_column("ok")
    for what, ok in good.items():
        verdict.add_row(what, "yes" if ok else "NO")
    console.print(verdict)
    return all(good.values())


def counted(counts: Sequence[Count]) -> Table:
    table = Table(title="Trades of the candles whose flow is stored", title_justify="left")
    for name in ("pair", "candles", "sent", "stored", "gone for all", "reloaded", "lost"):
        table.add_column(name, justify="left" if name == "pair" else "right")
    for count in counts:
        table.add_row(
            count.pair, f"{count.candles}", f"{count.sent:,}", f"{count.stored:,}",
            f"{count.gone:,}", f"{count.reloaded:,}", f"{count.lost:,}",
        )  # fmt: skip
    return table


def run(chosen: argparse.Namespace) -> bool:
    pairs = [character.instrument.pair for character in CHARACTERS[: chosen.pairs]]
    faults = parse_faults(chosen.faults)
    with Exchange(chosen) as exchange:
        user = User(chosen.folder, exchange.url, pairs, chosen.options)
        user.prepare()
        with user.trading() as child:
            process = psutil.Process(child.pid)
            wait_for(user.log, "Trade stream: following", child, 120.0)
            exchange.go_wrong(faults)
            began_ms = int(time.time() * 1000)
            samples, reloads_ms = follow(user, process, chosen)
            alive = child.poll() is None
            counts = [Count.of(user, exchange, pair, began_ms, reloads_ms) for pair in pairs]
        connections, drops, refused = exchange.ask("log")
        console.print(table_of(samples))
        console.print(counted(counts))
        times = loop_times(user.log)
        if len(times):
            p50, p99 = np.percentile(times, (50, 99))
            console.print(
                f"Loop of the bot, {len(times):,} times: p50 {p50:.2f} s, p99 {p99:.2f} s, "
                f"longest {times.max():.2f} s (to 10 ms)"
            )
        console.print(
            f"Exchange: {connections} connections, {drops} cut, {refused} requests refused, "
            f"{exchange.megabytes:.0f} MB"
        )
        return judge(samples, counts, user.log, alive)


def wait_for(log: Path, text: str, child: subprocess.Popen[bytes], patience_s: float) -> None:
    until_s = time.monotonic() + patience_s
    while text not in log.read_text():
        if child.poll() is not None or time.monotonic() > until_s:
            raise SystemExit(f'no "{text}" in {log}; its end:\n{log.read_text()[-3000:]}')
        time.sleep(0.2)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=2_000.0, help="trades a second, all pairs")
    parser.add_argument("--pairs", type=int, default=3, choices=range(1, len(CHARACTERS) + 1))
    parser.add_argument("--reloads", type=int, default=60)
    parser.add_argument("--faults", nargs="*", default=FAULTS, metavar="NAME=NUMBER")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", default="{}", help='more of the "lstm" section, as JSON')
    parser.add_argument("--warm-up-ms", type=int, default=1_200_000, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where all is left; a temporary one else")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    chosen.folder = (chosen.folder or Path(tempfile.mkdtemp(prefix="study-endurance-"))).resolve()
    ok = run(chosen)
    console.print(f"Log and store are in {chosen.folder}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
