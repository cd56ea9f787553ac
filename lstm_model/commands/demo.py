"""The whole product once, for real, on a practice market: from download to a trade's life."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lstm_model.commands.sides import both_sides
from lstm_model.commands.terminal import add_numbers
from lstm_model.errors import ConfigError
from lstm_model.features.context import REACH_DAYS
from lstm_model.files import refuse_unwritable
from lstm_model.market.candles import candle_open_ms
from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
_PAIRS = {"spot": PAIRS, "futures": tuple(f"{pair}:USDT" for pair in PAIRS)}
# Of 1m history: enough for a first model, and the days that are backtested; and before them what
# their candles are seen with, or each step would warn that it is not known.
_DAYS = 20 + REACH_DAYS
_TESTED_DAYS, _LEARNT_DAYS = 2, 3  # chosen: so that a champion has proven skill by the backtest
# Chosen: as many trades as the backtest made at last are replayed, about; an hour takes seconds.
_TRADES, _FEWEST_HOURS, _MOST_HOURS = 8, 2, 8
_HOUR_MS, _MINUTE_MS = 3_600_000, 60_000
_LOG_LINE = re.compile(
    r"^\d{4}-\d\d-\d\d [\d:,]+ - (?P<logger>[\w.]+) - (?P<level>\w+) - (?P<text>.*)"
)
_COLUMNS = 250  # freqtrade breaks its log lines at the width of the terminal
_RUNS = "to: RUNNING"  # freqtrade's word for it
_START_S = 300.0  # chosen: no machine needs so long to start freqtrade
_STOP_S = 30.0  # chosen: freqtrade needs a few seconds to close its exchange and threads
_KILL_S = 5.0  # chosen: a terminal that was closed is not waited for, a training is told to end
_STRATEGY = "LSTMStrategy"
_MARKET = "market"  # the file that notes which one a folder is of
_CONFIGS = {
    "spot": ("config.json", "user_data/config-loopback.json"),
    "futures": ("config.json", "user_data/config-loopback-futures.json"),
}

# Smaller than the defaults, so that a first look takes minutes: twelve days to learn from.
_LSTM = {
    "horizon": 10, "train_candles": 18_000, "validation_fraction": 0.1, "test_fraction": 0.3,
    "max_epochs": 6,
    "step_candles": 360, "finetune_candles": 1_440, "retrain_candles": 2_880,
    "finetune_recent_candles": 4_032, "training_lag_candles": 12,
}  # fmt: skip

_MARKETS = {
    "synthetic": "an invented market that carries a learnable signal on purpose; profits and "
    "losses in it say nothing about a real one.",
    "random-walk": "an invented random walk: nothing in it can be learnt, and skill that a card "
    "calls proven is luck, in up to 5 % of cases.",
}

_NOTHING_LEARNT = "The replay made no trade, and none should be: nothing learnt, nothing traded."
_NOTHING_WORTH_IT = "The replay made no trade: no forecast was worth what a trade costs."


class Demo:
    """Runs the commands a user would type, shows how they get on, and leaves no process behind.

    Parameters
    ----------
    mode : `spot` or `futures`
    """

    def __init__(
        self, console: Console, folder: Path, url: str, market: str = "synthetic",
        mode: str = "spot",
    ) -> None:  # fmt: skip
        self._console, self._market, self._mode = console, market, mode
        self._folder = folder.resolve()
        self._userdir = self._folder / "user_data"
        self._log = self._folder / "demo.log"
        self._overlay = self._folder / "demo.json"
        self._replay, self.report = self._folder / "replay", self._folder / "report.html"
        self._begun, self._downloaded_ms = datetime.now(UTC), 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log.write_text("", encoding="utf-8")
        self._overlay.write_text(json.dumps(self._configuration(url), indent=4))

    def prepare(self) -> None:
        """freqtrade's own folder layout, apart from the user's."""
        self._run("Creating a user_data folder of its own",
                  _freqtrade("create-userdir", "--userdir", str(self._userdir)))  # fmt: skip

    def download(self) -> None:
        """Real `freqtrade download-data` against the loopback exchange."""
        self._downloaded_ms = candle_open_ms(time.time_ns() // 1_000_000, _MINUTE_MS)
        command = _freqtrade("download-data", *self._common(), "--days", str(_DAYS), "-t", "1m")
        self._run(f"Downloading {_DAYS} days of 1m candles", command)

    def train(self) -> None:
        """What a bot would have learnt in the last days; its champion is what the rest serves."""
        command = [sys.executable, "-m", "lstm_model", "train", *self._common()]
        printed = self._run("Training: what a bot would have learnt by now", command)
        self._show(printed[_first_index(printed, "Model ") :])

    def backtest(self) -> None:
        """A walk-forward backtest over the last two days."""
        start = self._begun - timedelta(days=_TESTED_DAYS)
        command = _freqtrade(
            "backtesting", "--strategy", _STRATEGY, *self._common(), "--cache", "none",
            "--timerange", f"{start:%Y%m%d}-",
        )  # fmt: skip
        tables = self._run("Backtesting, walk-forward", command)
        self._show(tables[_last_index(tables, "STRATEGY SUMMARY") :])
        if self._mode == "futures":
            self._console.print(both_sides(self._userdir / "backtest_results", _STRATEGY))

    def replay(self) -> None:
        """The last hours again by the bot itself, fast, and the life of one of its trades."""
        from lstm_model.replay.backtest import entries  # freqtrade takes a second

        end_ms = self._downloaded_ms
        start_ms = replayed_from(entries(self._userdir / "backtest_results", _STRATEGY), end_ms)
        of = _MARKETS.get(self._market, f"{self._market}, played again.")
        command = [
            sys.executable, "-m", "lstm_model", "replay", *self._common(),
            "--from", _minute(start_ms), "--to", _minute(end_ms), "--strategy", _STRATEGY,
            "--data", str(self._userdir / "data" / "binance"), "--folder", str(self._replay),
            "--models", str(self._userdir / "lstm"), "--report", str(self.report),
            "--overwrite", "--life", "--note", f"The candles are of {of}",
        ]  # fmt: skip
        title = f"Replaying the last {(end_ms - start_ms) / _HOUR_MS:.1f} hours by the bot itself"
        printed = self._run(title, command)
        self._show(printed[_first_index(printed, "Simulated on ") :])

    @property
    def replayed_trades(self) -> int:
        """How many trades the bot made in the replay."""
        ((count,),) = _query(self._replay / "trades.sqlite", "SELECT count(*) FROM trades")
        return int(count)

    def trade(self, minutes: float) -> None:
        """A dry run; forecasts and orders are shown as they come."""
        self._console.rule(f"Dry run for {minutes:g} minute{'s' * (minutes != 1.0)}")
        command = _freqtrade("trade", "--strategy", _STRATEGY, *self._common())
        with self._child(command) as child:
            # From when it runs: a signal while freqtrade starts would end it as nobody means to.
            timer = _ending(child, _START_S + minutes * 60.0)
            try:
                for line in self._lines(child):
                    if _RUNS in line:
                        timer.cancel()
                        timer = _ending(child, minutes * 60.0)
                    if (shown := _worth_showing(line)) is not None:
                        self._console.print(shown)
            finally:
                timer.cancel()
        self._expect(child, "trade", (0, 130))

    def summary(self) -> Table:
        """What the dry run left: forecasts in the journal, trades in freqtrade's database."""
        table = Table(title="What the dry run left", title_justify="left")
        table.add_column("pair")
        add_numbers(table, "forecasts", "in force", "trades", "closed", "profit USDT")
        journal = self._userdir / "lstm" / "journal.sqlite"
        forecasts = dict(_query(journal, "SELECT pair, count(*) FROM forecast GROUP BY pair"))
        newest = dict(_query(journal, "SELECT pair, max(version) FROM forecast GROUP BY pair"))
        trades = _query(
            self._userdir / "trades.sqlite",
            "SELECT pair, count(*), sum(not is_open), coalesce(sum(close_profit_abs), 0) "
            "FROM trades GROUP BY pair",
        )
        by_pair = {pair: rest for pair, *rest in trades}
        for pair in _PAIRS[self._mode]:
            opened, closed, profit = by_pair.get(pair, (0, 0, 0.0))
            table.add_row(pair, str(forecasts.get(pair, 0)), str(newest.get(pair, "none")),
                          str(opened), str(closed), f"{profit:+.2f}")  # fmt: skip
        return table

    def _configuration(self, url: str) -> dict[str, Any]:
        overlay = loopback_overlay(url, self._mode)
        overlay["exchange"]["pair_whitelist"] = list(_PAIRS[self._mode])
        learnt = self._begun - timedelta(days=_LEARNT_DAYS)  # by steps that all commands share
        return {
            **overlay,
            "timeframe": "1m",
            "db_url": f"sqlite:///{self._userdir / 'trades.sqlite'}",
            "internals": {"process_throttle_secs": 2},
            "lstm": {**_LSTM, "store_dir": "lstm", "learn_from": f"{learnt:%Y%m%d}"},
        }

    def _common(self) -> list[str]:
        files = (*_CONFIGS[self._mode], str(self._overlay))
        options = [word for file in files for word in ("-c", file)]
        return [*options, "--userdir", str(self._userdir)]

    def _run(self, title: str, command: Sequence[str]) -> list[str]:
        """Run one step to its end, its newest log line beside a spinner; what it printed."""
        started, printed = time.monotonic(), []
        with self._console.status(f"{title} ...") as status, self._child(command) as child:
            for line in self._lines(child):
                match = _LOG_LINE.match(line)
                if match is None:
                    printed.append(line)
                text = match["text"] if match else line
                seconds = time.monotonic() - started
                status.update(f"{title} ({seconds:.0f} s): {text[:110].replace('[', '(')}")
        self._expect(child, title, (0,))
        self._console.print(f"{title}: done in {time.monotonic() - started:.0f} s")
        return printed

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.out(line, highlight=False)

    @contextmanager
    def _child(self, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        options = {"COLUMNS": str(_COLUMNS), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        child = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL,
            env={**os.environ, **options}, start_new_session=True,
        )  # fmt: skip
        try:
            yield child
            child.wait(_STOP_S)
        finally:
            if child.poll() is None:
                _end(child)

    def _lines(self, child: subprocess.Popen[str]) -> Iterator[str]:
        """Everything the child says, which also goes to demo.log."""
        with self._log.open("a", encoding="utf-8") as log:
            for line in child.stdout or ():
                log.write(line)
                yield line.rstrip("\n")

    def _expect(self, child: subprocess.Popen[str], title: str, codes: Sequence[int]) -> None:
        if child.returncode not in codes:
            tail = "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-12:])
            raise ConfigError(
                f'"{title}" ended with code {child.returncode}; see {self._log}. Its end:\n{tail}'
            )


def run_demo(
    console: Console, *, minutes: float, folder: Path, market: str, mode: str = "spot"
) -> None:
    """Run every step on a fresh practice market, on its spot side or on its futures.

    Raises
    ------
    ConfigError
        A step failed, this is not the folder that holds config.json, or `folder` is of another
        market.
    StoreError
        `folder` cannot be written.
    """
    for name in _CONFIGS[mode]:
        if not Path(name).is_file():
            raise ConfigError(f"there is no {name} here: run the demo from the repository's root")
    refuse_unwritable(folder.absolute())
    refuse_another_market(folder, market if mode == "spot" else f"{market} {mode}")
    with console.status(f"Preparing the {market} market"):
        opened = open_market(market, seed=1, days=_DAYS + 1)
    with LoopbackExchange(opened, port=0) as exchange, ended_by_signals():
        console.print(f"Loopback exchange on {exchange.url}, market: {market}, {mode}")
        demo = Demo(console, folder, exchange.url, market, mode)
        for step in (demo.prepare, demo.download, demo.train, demo.backtest, demo.replay):
            step()
        demo.trade(minutes)
        console.print(demo.summary())
    for line in last_words(market, demo.replayed_trades):
        console.print(line)
    console.print(f"The replay in one page, with pictures: {demo.report}")


def refuse_another_market(folder: Path, market: str) -> None:
    """Keep the candles, models and trades of two markets apart.

    Raises
    ------
    ConfigError
        The folder holds a demo on another market, or one that does not say on which.
    """
    noted = folder / _MARKET
    known = noted.read_text(encoding="utf-8") if noted.is_file() else ""
    if known != market and (known or (folder / "demo.log").is_file()):
        raise ConfigError(
            f"{folder} holds a demo on another market{known and f' ({known})'}: remove it, or name "
            f"another, e.g. --folder .demo-{Path(market).name.replace(' ', '-')}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(market, encoding="utf-8")


def replayed_from(entered_ms: Sequence[int], end_ms: int) -> int:
    """Since when there is to be a replay: about as many trades ago as make one worth a look.

    Parameters
    ----------
    entered_ms : when a backtest entered its trades, rising
    end_ms : of the candles that there are
    """
    begun_ms = [*entered_ms[-_TRADES:], end_ms][0] // _HOUR_MS * _HOUR_MS
    oldest_ms, newest_ms = end_ms - _MOST_HOURS * _HOUR_MS, end_ms - _FEWEST_HOURS * _HOUR_MS
    return min(max(begun_ms, oldest_ms), newest_ms)


def last_words(market: str, trades: int) -> Iterator[str]:
    """What a reader must know of all this."""
    if not trades:
        yield _NOTHING_LEARNT if market == "random-walk" else _NOTHING_WORTH_IT
    known = _MARKETS.get(market)
    yield f"Everything above happened on {known or 'recorded data, played again.'}"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a closed terminal or a plain kill end what was started, too, as Ctrl-C does."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)  # as shells say it

    numbers = [
        number for name in ("SIGTERM", "SIGHUP")  # Windows lacks the second
        if (number := getattr(signal, name, None)) is not None
        and signal.getsignal(number) is not signal.SIG_IGN  # as `nohup` has it
    ]  # fmt: skip
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending(child: subprocess.Popen[str], seconds: float) -> threading.Timer:
    """Has the child end by itself after a while; started."""
    timer = threading.Timer(seconds, child.send_signal, (signal.SIGTERM,))
    timer.start()
    return timer


def _end(child: subprocess.Popen[str]) -> None:
    """End it and what it has started: asked first, then made to."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(_KILL_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _freqtrade(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "freqtrade", *arguments]


def _minute(date_ms: int) -> str:
    return f"{datetime.fromtimestamp(date_ms / 1000, UTC):%Y-%m-%dT%H:%M}"


def _worth_showing(line: str) -> str | None:
    """The part of a log line that a first-time reader wants, or None."""
    match = _LOG_LINE.match(line)
    if match is None:
        return None
    ours = match["logger"].startswith("lstm_model")
    orders = re.search(r"signal found|fulfilled|Exit for|Creating|exiting", match["text"])
    if ours or orders or match["level"] in ("WARNING", "ERROR", "CRITICAL"):
        return f"  {match['text']}"
    return None


def _last_index(lines: Sequence[str], text: str) -> int:
    found = [number for number, line in enumerate(lines) if text in line]
    return found[-1] if found else 0


def _first_index(lines: Sequence[str], text: str) -> int:
    return next((number for number, line in enumerate(lines) if text in line), 0)


def _query(path: Path, statement: str) -> list[Any]:
    if not path.is_file():
        return []
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()
