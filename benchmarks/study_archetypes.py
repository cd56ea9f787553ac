"""What `LSTMRisk` does to strategies of the kinds that people run: plain, with it, with its stop.

    python benchmarks/study_archetypes.py --data DIR --timeframe 5m \
        --pairs BTC/USDT ETH/USDT SOL/USDT --from 2024-07-01 --to 2025-07-01 --store FOLDER

`DIR` holds candles as freqtrade's download-data writes them. Every strategy of
`benchmarks/archetypes/` that trades spot is backtested by real freqtrade with `config.json`: as it
is, as `class Safer(LSTMRisk, Theirs)`, and so with `"stop": "forecast"`. Models are trained once,
walk-forward, and found by all. Fees are those of the exchange; a backtest charges no slippage.
Losses are printed as they are.

    same       share of the plain strategy's entries that it makes too, at the same candle
    per trade  mean profit of a trade, as a fraction of its stake: what does not depend on stakes
    stake      mean stake
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_model.practice.exchange import LoopbackExchange, loopback_overlay, open_market
from lstm_model.replay.backtest import backtest
from lstm_model.replay.trade_facts import TradeFacts

ROOT = Path(__file__).resolve().parents[1]
ARCHETYPES = {
    "".join(word.title() for word in path.stem.split("_")): path
    for path in sorted((ROOT / "benchmarks" / "archetypes").glob("*.py"))
    if path.stem != "both_sides"  # futures
}
MIXED = '''"""{name} under the mixin."""

from {module} import {name}

from lstm_model import LSTMRisk


class Safer{name}(LSTMRisk, {name}):
    """As a user would write it."""
'''
WALLET = 1_000.0


class Result(NamedTuple):
    """A backtest of one strategy."""

    trades: tuple[TradeFacts, ...]

    @property
    def entries(self) -> set[tuple[str, int]]:
        return {(trade.pair, trade.open_ms) for trade in self.trades}

    @property
    def profit(self) -> float:
        return sum(trade.profit or 0.0 for trade in self.trades) / WALLET

    @property
    def drawdown(self) -> float:
        """Deepest fall of closed profits, as a fraction of the wallet at its top."""
        closed = sorted(self.trades, key=lambda trade: trade.close_ms or 0)
        equity = WALLET + np.cumsum([0.0, *(trade.profit or 0.0 for trade in closed)])
        top = np.maximum.accumulate(equity)
        return float(((top - equity) / top).max())

    def mean(self, name: str) -> float:
        values = [getattr(trade, name) or 0.0 for trade in self.trades]
        return float(np.mean(values)) if values else 0.0


def strategies(folder: Path) -> None:
    """The archetypes, each also under the mixin, as files that freqtrade finds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in ARCHETYPES.items():
        shutil.copy(path, folder)
        mixed = MIXED.format(name=name, module=path.stem)
        (folder / f"safer_{path.name}").write_text(mixed)


def run(asked: argparse.Namespace, url: str, strategy: str, stop: str | None) -> Result:
    overlay = {
        **loopback_overlay(url),
        "timeframe": asked.timeframe,
        "dry_run_wallet": WALLET,
        "strategy_path": str(asked.store / "strategies"),
        "lstm": {"store_dir": str(asked.store / "lstm"), "stop": stop, **asked.options},
    }
    overlay["exchange"]["pair_whitelist"] = asked.pairs
    path = asked.store / f"{strategy}-{stop}.json"
    path.write_text(json.dumps(overlay))
    arguments = {
        "config": [str(ROOT / "config.json"), str(path)],
        "user_data_dir": str(asked.store / "user_data"),
        "datadir": str(asked.data),
        "strategy": strategy,
    }
    span = (int(day.replace(tzinfo=UTC).timestamp() * 1000) for day in (asked.begin, asked.end))
    return Result(backtest(arguments, *span, plain=True).account.trades)


def rows(asked: argparse.Namespace, url: str) -> Iterator[str]:
    for name in asked.only or ARCHETYPES:
        plain = run(asked, url, name, None)
        yield row(name, "plain", plain, plain)
        for label, stop in (("LSTMRisk", None), ("stop: forecast", "forecast")):
            yield row("", label, run(asked, url, f"Safer{name}", stop), plain)


def row(name: str, label: str, found: Result, plain: Result) -> str:
    same = len(found.entries & plain.entries) / max(1, len(plain.entries))
    mean = 1e4 * found.mean("profit_ratio")
    cells = (
        name, label, f"{same:.1%}", f"{len(found.trades):,}", f"{mean:+.1f}",
        f"{found.mean('stake'):.0f}", f"{found.profit:+.1%}", f"{found.drawdown:.1%}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def question(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--timeframe", default="5m")
    parser.add_argument("--pairs", nargs="+", required=True)
    parser.add_argument("--from", dest="begin", type=datetime.fromisoformat, required=True)
    parser.add_argument("--to", dest="end", type=datetime.fromisoformat, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=ARCHETYPES)
    parser.add_argument("--lstm", type=json.loads, dest="options", default={}, help="JSON")
    return parser.parse_args(arguments)


def main() -> None:
    asked = question()
    asked.store = asked.store.resolve()
    logging.basicConfig(level=logging.WARNING)
    strategies(asked.store / "strategies")
    (asked.store / "user_data").mkdir(exist_ok=True)
    print("| strategy | | same | trades | per trade, bps | stake | profit | drawdown |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with LoopbackExchange(open_market("synthetic", seed=1, days=2)) as exchange:
        for line in rows(asked, exchange.url):
            print(line, flush=True)


if __name__ == "__main__":
    main()
