"""How long a walk-forward backtest takes: the first, the second, and with one setting changed.

    python benchmarks/bench_backtest.py [--data DIR] [--repeats 3] [--cases NAME ...] [--before DIR]

`freqtrade backtesting -s LSTMStrategy` with `config.json`, as a user types it, each time in a
process of its own: from its start to its end, with the most memory that it and its trainers took
together. Medians of `--repeats` runs. Candles are those of `--data` (a folder as `freqtrade
download-data` writes it), or invented ones: random walks whose volatility comes in waves.

first      with an empty store: everything is learnt
second     the same again: everything is found
changed    again, with another `risk_fraction`, which trains nothing
FreqAI     the peer, where `freqtrade[freqai]` is installed: its LightGBM regressor, trained every
           week on 30 days, over the same months and pairs
before     with `--before DIR`, a checkout of another commit: the same, run in turns with ours

Ratios are to the first backtest of the same case in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
from freqtrade.data.history.datahandlers import get_datahandler
from freqtrade.enums import CandleType
from rich.console import Console
from rich.table import Table

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LTC", "BNB", "LINK", "DOT")
STEP = pd.Timedelta(minutes=5)
BEFORE_DAYS = 600  # of candles to learn from before the first that is tested
POLL_S = 0.05
PEER = '''
from freqtrade.strategy import IStrategy

class Peer(IStrategy):
    """Five features of the kind that FreqAI's example has, on two periods."""
    timeframe, stoploss, minimal_roi, can_short = "5m", -0.05, {"0": 10.0}, False
    startup_candle_count = 200

    def feature_engineering_expand_all(self, dataframe, period, metadata, **kwargs):
        close = dataframe["close"]
        dataframe["%-return-period"] = close.pct_change(period)
        dataframe["%-deviation-period"] = close.pct_change().rolling(period).std()
        dataframe["%-average-period"] = close / close.rolling(period).mean()
        volume = dataframe["volume"]
        dataframe["%-volume-period"] = volume / volume.rolling(period).mean()
        return dataframe

    def feature_engineering_expand_basic(self, dataframe, metadata, **kwargs):
        dataframe["%-change"] = dataframe["close"].pct_change()
        return dataframe

    def feature_engineering_standard(self, dataframe, metadata, **kwargs):
        dataframe["%-hour"] = dataframe["date"].dt.hour
        return dataframe

    def set_freqai_targets(self, dataframe, metadata, **kwargs):
        dataframe["&-return"] = dataframe["close"].shift(-12) / dataframe["close"] - 1
        return dataframe

    def populate_indicators(self, dataframe, metadata):
        return self.freqai.start(dataframe, metadata, self)

    def populate_entry_trend(self, dataframe, metadata):
        sure = (dataframe["do_predict"] == 1) & (dataframe["&-return"] > 0.002)
        return dataframe.assign(enter_long=sure.astype(int))

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe.assign(exit_long=(dataframe["&-return"] < 0).astype(int))
'''
FREQAI = {
    "enabled": True, "purge_old_models": 2, "train_period_days": 30, "backtest_period_days": 7,
    "identifier": "peer", "live_retrain_hours": 0, "data_split_parameters": {"test_size": 0.1},
    "feature_parameters": {
        "include_timeframes": ["5m"], "include_corr_pairlist": [], "label_period_candles": 12,
        "include_shifted_candles": 2, "indicator_periods_candles": [12, 48, 144],
    },
    "model_training_parameters": {"n_estimators": 400, "learning_rate": 0.05},
}  # fmt: skip
console = Console(width=120)


class Case(NamedTuple):
    """What is backtested."""

    pairs: int
    start: str
    end: str

    @property
    def months(self) -> int:
        return round((pd.Timestamp(self.end) - pd.Timestamp(self.start)).days / 30.4)

    def __str__(self) -> str:
        return f"{self.pairs} pairs, {self.months} months"


CASES = {
    "quarter": Case(3, "2024-07-01", "2024-10-01"),
    "wide": Case(10, "2024-07-01", "2024-10-01"),
    "year": Case(3, "2024-07-01", "2025-07-01"),
}


class Cost(NamedTuple):
    """Of one command: seconds, and the most memory at one moment, in megabytes."""

    seconds: float
    megabytes: float


class Bench:
    """Runs freqtrade in a folder of its own."""

    def __init__(self, folder: Path, url: str, data: Path) -> None:
        self._folder, self._url, self._data = folder, url, data
        self._number = 0
        (folder / "peer.py").write_text(PEER)

    def store(self) -> Path:
        """A new one, for models."""
        self._number += 1
        return self._folder / f"store{self._number}"

    def ours(self, case: Case, store: Path, root: Path = ROOT, **lstm: Any) -> Cost:
        """A backtest by the checkout `root`."""
        options = {"lstm": {"store_dir": str(store), **lstm}}
        command = ("-s", "LSTMStrategy", "--strategy-path", str(root / "strategies"))
        return self._run(case, root, options, command)

    def peer(self, case: Case) -> Cost:
        """A backtest by FreqAI, which finds nothing of before."""
        shutil.rmtree(self._folder / "models", ignore_errors=True)
        command = ("-s", "Peer", "--strategy-path", str(self._folder), "--freqaimodel",
                   "LightGBMRegressor")  # fmt: skip
        return self._run(case, ROOT, {"freqai": FREQAI}, command)

    def _run(
        self, case: Case, root: Path, options: dict[str, Any], strategy: Sequence[str]
    ) -> Cost:
        overlay = {**loopback_overlay(self._url), **options}
        overlay["exchange"]["pair_whitelist"] = [f"{name}/USDT" for name in PAIRS[: case.pairs]]
        (self._folder / "overlay.json").write_text(json.dumps(overlay))
        command = [
            sys.executable, "-m", "freqtrade", "backtesting", *strategy, "--cache", "none",
            "--config", str(root / "config.json"), "--config", str(self._folder / "overlay.json"),
            "--userdir", str(self._folder), "--datadir", str(self._data), "--export", "none",
            "--timerange", f"{case.start.replace('-', '')}-{case.end.replace('-', '')}",
        ]  # fmt: skip
        with (self._folder / "log.txt").open("w") as log:
            began = time.perf_counter()
            child = subprocess.Popen(  # noqa: S603 - the command is ours
                command, stdout=log, stderr=log, cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
            )  # fmt: skip
            megabytes = max(_memory(child), default=0.0)
            seconds = time.perf_counter() - began
        if child.returncode:
            raise SystemExit((self._folder / "log.txt").read_text()[-3_000:])
        return Cost(seconds, megabytes)


def _memory(child: subprocess.Popen[bytes]) -> Iterator[float]:
    """What a process and its children hold, looked at until it ends."""
    while child.poll() is None:
        try:
            process = psutil.Process(child.pid)
            family = [process, *process.children(recursive=True)]
            yield sum(member.memory_info().rss for member in family) / 1e6
        except psutil.NoSuchProcess:
            pass
        time.sleep(POLL_S)


def invent(folder: Path) -> None:
    """Candles of all pairs: random walks whose log volatility returns to its mean in a day."""
    handler = get_datahandler(folder, "feather")
    start = min(pd.Timestamp(case.start, tz="UTC") for case in CASES.values())
    end = max(pd.Timestamp(case.end, tz="UTC") for case in CASES.values())
    date = pd.date_range(start - pd.Timedelta(days=BEFORE_DAYS), end, freq=STEP, unit="ms")
    for number, name in enumerate(PAIRS):
        random = np.random.default_rng(number)
        waves = pd.Series(random.normal(0.0, 0.06, len(date))).ewm(halflife=288).mean() * 12
        volatility = 0.0015 * np.exp(waves.to_numpy())
        close = 100.0 * np.exp((random.normal(size=len(date)) * volatility).cumsum())
        opened = np.concatenate([close[:1], close[:-1]])
        reach = np.exp(np.abs(random.normal(size=(2, len(date)))) * volatility / 2)
        frame = pd.DataFrame(
            {"date": date, "open": opened, "high": np.maximum(opened, close) * reach[0],
             "low": np.minimum(opened, close) / reach[1], "close": close,
             "volume": np.exp(random.normal(3.0, 0.5, len(date)))}
        )  # fmt: skip
        handler.ohlcv_store(f"{name}/USDT", "5m", frame, CandleType.SPOT)


def listing(folder: Path, data: Path, names: Sequence[str]) -> Path:
    """The same candles for an exchange that lists these pairs and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in names:
        candles = data / f"{name}_USDT-5m.feather"
        if not candles.exists():
            raise SystemExit(f"{data} has no 5m candles of {name}/USDT; leave the case out")
        (folder / candles.name).symlink_to(candles)
    return folder


def measure(bench: Bench, case: Case, repeats: int, before: Path | None) -> dict[str, list[Cost]]:
    """What each kind of backtest cost, run by run."""
    costs: dict[str, list[Cost]] = {}
    for number in range(repeats):
        with console.status(f"{case}: run {number + 1} of {repeats}"):
            for prefix, root in (("before: ", before), ("", ROOT)):
                if root is None:
                    continue
                store = bench.store()
                for name, lstm in (
                    ("first", {}), ("second", {}), ("changed", {"risk_fraction": 0.02})
                ):  # fmt: skip
                    cost = bench.ours(case, store, root, **lstm)
                    costs.setdefault(prefix + name, []).append(cost)
                shutil.rmtree(store)
            if all(map(importlib.util.find_spec, ("lightgbm", "datasieve", "xgboost"))):
                costs.setdefault("FreqAI, LightGBM", []).append(bench.peer(case))
    return costs


def show(case: Case, costs: dict[str, list[Cost]]) -> None:
    """A table of medians."""
    table = Table(title=f"Backtests of {case}")
    for column in ("", "seconds", "of the first's", "all runs", "memory, MB"):
        table.add_column(column, justify="left" if not column else "right")
    medians = {name: float(np.median([c.seconds for c in found])) for name, found in costs.items()}
    for name, found in costs.items():
        table.add_row(
            name, f"{medians[name]:.1f}", f"{medians[name] / medians['first']:.2f}",
            " ".join(f"{cost.seconds:.1f}" for cost in found),
            f"{max(cost.megabytes for cost in found):,.0f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Folder of candles; else they are invented.")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--before", type=Path, help="Checkout of another commit, run in turns.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.data is None:
            invent(folder / "data")
        data = (asked.data or folder / "data").resolve()
        for case in map(CASES.__getitem__, asked.cases):
            listed = listing(folder / "listed", data, PAIRS[: case.pairs])
            with LoopbackExchange(open_market(str(listed), days=2)) as exchange:
                bench = Bench(folder, exchange.url, data)
                show(case, measure(bench, case, asked.repeats, asked.before))


if __name__ == "__main__":
    main()
