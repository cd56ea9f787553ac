"""What `LSTMRisk` costs a backtest that is always in a trade.

    python benchmarks/bench_risk.py [--candles 26000] [--repeats 3] [--profile]

An invented pair, 5m candles; a strategy that enters whenever it can and leaves after 12 candles.

peer       it alone, with a `custom_stoploss` that answers nothing
LSTMRisk   the same under the mixin, and with `"stop": "forecast"`, and with that trailing

Whole backtests by real freqtrade in this process, the models of which are there already; one to
warm up, medians of the others, which take turns. `loop` is the backtest without loading candles
and making columns. Ratios are to the peer in the same run.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from freqtrade.data.history.datahandlers import get_datahandler
from freqtrade.enums import CandleType
from freqtrade.optimize.backtesting import Backtesting
from rich.console import Console
from rich.table import Table

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.replay.backtest import backtest

ROOT = Path(__file__).resolve().parents[1]
PAIR, STEP_MS, BEFORE = "BTC/USDT", 300_000, 12_000
START_MS = 1_720_569_600_000  # 2024-07-10; a step of the learner
STRATEGY = """
from freqtrade.strategy import IStrategy
from lstm_model import LSTMRisk

class Always(IStrategy):
    timeframe, stoploss, minimal_roi = "5m", -0.5, {"0": 10.0}
    use_custom_stoploss = True
    def populate_indicators(self, dataframe, metadata): return dataframe
    def populate_entry_trend(self, dataframe, metadata):
        return dataframe.assign(enter_long=1, enter_tag="always")
    def populate_exit_trend(self, dataframe, metadata): return dataframe
    def custom_stoploss(self, pair, trade, current_time, current_rate, current_profit, after_fill,
                        **kwargs): return None
    def custom_exit(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        return "over" if (current_time - trade.open_date_utc).total_seconds() >= 3_600 else None

class Safer(LSTMRisk, Always):
    pass
"""
OPTIONS = {"train_candles": 10_000, "max_epochs": 1, "epoch_windows": 5_000, "finetune_candles": 0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "peer": ("Always", {}),
    "LSTMRisk": ("Safer", {}),
    "stop: forecast": ("Safer", {"stop": "forecast", "hold_candles": 12}),
    "and stop_trails": ("Safer", {"stop": "forecast", "hold_candles": 12, "stop_trails": True}),
}
console = Console(width=120)


def candles(count: int) -> pd.DataFrame:
    """A random walk, the last `count` of it to be backtested."""
    random, total = np.random.default_rng(1), count + BEFORE
    close = 50_000.0 * np.exp(random.normal(0.0, 0.001, total).cumsum())
    opened = np.concatenate([close[:1], close[:-1]])
    spread = 1.0 + np.abs(random.normal(0.0, 0.0005, total))
    date = pd.to_datetime(START_MS + STEP_MS * (np.arange(total) - BEFORE), unit="ms", utc=True)
    return pd.DataFrame(
        {"date": date, "open": opened, "high": np.maximum(opened, close) * spread,
         "low": np.minimum(opened, close) / spread, "close": close, "volume": 10.0}
    )  # fmt: skip


@contextmanager
def timed_loop(spent: dict[str, list[float]], kind: str) -> Iterator[None]:
    """Note how long freqtrade's own loop takes."""
    loop = Backtesting.backtest

    def measured(self: Any, *args: Any, **words: Any) -> Any:
        began = time.perf_counter()
        try:
            return loop(self, *args, **words)
        finally:
            spent[f"{kind} loop"].append(time.perf_counter() - began)

    Backtesting.backtest = measured
    try:
        yield
    finally:
        Backtesting.backtest = loop


def run(folder: Path, url: str, kind: str, count: int) -> int:
    strategy, options = KINDS[kind]
    overlay = {
        **loopback_overlay(url), "strategy_path": str(folder), "dry_run_wallet": 1_000.0,
        "lstm": {"store_dir": str(folder / "lstm"), **OPTIONS, **options},
    }  # fmt: skip
    overlay["exchange"]["pair_whitelist"] = [PAIR]
    (folder / "config.json").write_text(json.dumps(overlay))
    arguments = {
        "config": [str(ROOT / "config.json"), str(folder / "config.json")],
        "user_data_dir": str(folder), "datadir": str(folder / "data"), "strategy": strategy,
    }  # fmt: skip
    made = backtest(arguments, START_MS, START_MS + count * STEP_MS, plain=True)
    return len(made.trades)


def measure(folder: Path, url: str, count: int, repeats: int) -> None:
    spent: dict[str, list[float]] = defaultdict(list)
    made = {}
    for _ in range(repeats + 1):
        for kind in KINDS:
            began = time.perf_counter()
            with timed_loop(spent, kind):
                made[kind] = run(folder, url, kind, count)
            spent[kind].append(time.perf_counter() - began)
    table = Table(title=f"A backtest of {count:,} candles, always in a trade")
    for column in ("", "trades", "whole, s", "of the peer's", "loop, s", "of the peer's"):
        table.add_column(column, justify="left" if not column else "right")
    medians = {name: float(np.median(values[1:])) for name, values in spent.items()}
    for kind in KINDS:
        cells = [f"{made[kind]:,}"]
        for name, peer in ((kind, "peer"), (f"{kind} loop", "peer loop")):
            cells += [f"{medians[name]:.2f}", f"{medians[name] / medians[peer]:.2f}"]
        table.add_row(kind, *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candles", type=int, default=26_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="Of `stop: forecast`, by function.")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "always.py").write_text(STRATEGY)
        handler = get_datahandler(folder / "data", "feather")
        handler.ohlcv_store(PAIR, "5m", candles(asked.candles), CandleType.SPOT)
        with LoopbackExchange(open_market("synthetic", seed=1, days=2)) as exchange:
            if asked.profile:
                run(folder, exchange.url, "stop: forecast", asked.candles)
                with cProfile.Profile() as profile:
                    run(folder, exchange.url, "stop: forecast", asked.candles)
                pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
            else:
                measure(folder, exchange.url, asked.candles, asked.repeats)


if __name__ == "__main__":
    main()
