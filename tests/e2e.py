"""Runs real freqtrade in child processes against a loopback exchange."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from places import ROOT

from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.overlay import loopback_overlay

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]
FUTURES = [f"{pair}:USDT" for pair in PAIRS]
# Small, so that a training takes seconds, and a gate that opens within hours of 1m candles; what is
# tested does not depend on it.
SMALL = {
    "lookback": 16, "horizon": 10, "units": 16, "layers": 1, "max_epochs": 6,
    "batch_size": 64, "epoch_windows": 10_000,
    "train_candles": 10_000, "validation_fraction": 0.1, "test_fraction": 0.3,
    "promotion_error": 0.4,
    "step_candles": 240, "finetune_candles": 720, "retrain_candles": 1_440,
    "finetune_recent_candles": 1_000, "finetune_epochs": 1, "training_lag_candles": 12,
}  # fmt: skip

_MARK = "LSTM_MODEL_TEST_BOT"
# A shell may have told its background jobs, and so the tests, to ignore Ctrl-C.
_HEARS_CTRL_C = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):  # a shell or nohup may have them ignored
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and all it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class Bot:
    """A freqtrade user: a user_data folder and configuration files on top of the project's."""

    userdir: Path
    overlay: dict[str, Any]
    loopback: str = "config-loopback.json"

    def with_lstm(self, **options: Any) -> "Bot":
        return replace(self, overlay={**self.overlay, "lstm": {**self.overlay["lstm"], **options}})

    def options(self, name: str = "lstm") -> list[str]:
        """What names the configuration, to freqtrade's commands and to ours."""
        overlay = self.userdir / f"overlay-{name}.json"
        overlay.write_text(json.dumps(self.overlay))
        files = ["config.json", f"user_data/{self.loopback}", str(overlay)]
        words = [word for file in files for word in ("-c", file)]
        return [*words, "--userdir", str(self.userdir)]

    def command(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "freqtrade", name, *self.options(name), *arguments]

    def run(self, name: str, *arguments: str, timeout_s: float = 240.0) -> Outcome:
        done = subprocess.run(
            self.command(name, *arguments), cwd=ROOT, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout)

    def backtest(self, *arguments: str) -> Outcome:
        return self.run("backtesting", "--strategy", "LSTMStrategy", "--cache", "none", *arguments)


def bot_in(folder: Path, exchange: LoopbackExchange, mode: str = "spot") -> Bot:
    userdir = folder / "user_data"
    (userdir / "data" / "binance").mkdir(parents=True)
    overlay = loopback_overlay(exchange.url, mode)
    overlay["exchange"]["pair_whitelist"] = PAIRS if mode == "spot" else FUTURES
    return Bot(
        userdir,
        {
            **overlay,
            "timeframe": "1m",
            "db_url": f"sqlite:///{userdir}/trades.sqlite",
            "internals": {"process_throttle_secs": 1},
            "lstm": {**SMALL, "store_dir": "lstm"},
        },
        "config-loopback.json" if mode == "spot" else "config-loopback-futures.json",
    )


def closed_trades(bot: Bot, strategy: str = "LSTMStrategy") -> list[dict[str, Any]]:
    """The trades of the newest backtest."""
    last = json.loads((bot.userdir / "backtest_results" / ".last_result.json").read_text())
    archive = bot.userdir / "backtest_results" / last["latest_backtest"]
    shutil.unpack_archive(archive, archive.with_suffix(""))
    (result,) = archive.with_suffix("").glob(f"{archive.stem}.json")
    of_strategy = json.loads(result.read_text())["strategy"][strategy]
    trades: list[dict[str, Any]] = of_strategy["trades"]
    return trades


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A command as a running process that prints into a log, and that Ctrl-C can end."""

    def __init__(self, command: list[str], log_file: Path) -> None:
        self._log, self._mark = log_file, uuid.uuid4().hex
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _HEARS_CTRL_C, *command], cwd=ROOT,
                env={**environment(), _MARK: self._mark},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[str], bool], timeout_s: float) -> bool:
        """Whether the log fulfils the condition before the time, or the process, is over."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and self.process.poll() is None:
            if condition(self.text):
                return True
            time.sleep(0.1)
        return condition(self.text)

    def mapped_files(self) -> str:
        """Paths of all libraries in its memory (Linux)."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; its exit code. One that goes on says where all its threads are."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes the threads' stacks
            self.process.wait(60)
            raise AssertionError(
                f"it went on after {number.name}:\n{self.text[-20_000:]}"
            ) from None
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def tracebacks(self) -> list[str]:
        """All in its log but one: freqtrade's, when the signal meets it while it commits."""
        records = re.split(r"^(?=\d{4}-\d\d-\d\d )", self.text, flags=re.MULTILINE)
        return [
            record for record in records
            if "Traceback" in record
            and not ("Error during cleanup" in record and "KeyboardInterrupt" in record)
        ]  # fmt: skip

    def descendants(self) -> list[str]:
        """Command lines of what it has started and is still there, itself included.

        Known by a mark in the environment that all of them inherit: other tests train meanwhile.
        """
        return [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["environ", "cmdline"])
            if (process.info["environ"] or {}).get(_MARK) == self._mark
        ]


class Trading(Running):
    """`freqtrade trade` as a running process."""

    def __init__(self, bot: Bot) -> None:
        command = bot.command("trade", "--strategy", "LSTMStrategy")
        super().__init__(command, bot.userdir / "trade.log")


def run_lstm(
    *arguments: str, script: Sequence[str] = ("-m", "lstm_model"), folder: Path = ROOT,
    timeout_s: float = 300.0,
) -> Outcome:  # fmt: skip
    """Our own command, or a script that runs it, in this folder to its end."""
    done = subprocess.run(
        [sys.executable, *script, *arguments], cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout)


def environment() -> dict[str, str]:
    """Ours, with a terminal so wide that no log line is broken, and stacks when it is aborted."""
    return {**os.environ, "COLUMNS": "250", "PYTHONFAULTHANDLER": "1"}
