"""What `LSTMRisk` does to strategies of the kinds that people run: plain, with it, each option on.

    python benchmarks/study_archetypes.py --data DIR --timeframe 5m \
        --pairs BTC/USDT ETH/USDT SOL/USDT --from 2024-07-01 --to 2025-07-01 --store FOLDER

`DIR` holds candles as freqtrade's download-data writes them. Every strategy of
`benchmarks/archetypes/` that trades spot is backtested by real freqtrade with `config.json`: as it
is, as `class Safer(LSTMRisk, Theirs)`, and so with each of `VARIANTS`. Models are trained once,
walk-forward, and found by all. Fees are those of the exchange; a backtest charges no slippage.
Losses are printed as they are.

    same       share of the plain strategy's entries that it makes too, at the same candle
    per trade  mean profit of a trade, as a fraction of its stake: what does not depend on stakes
    stake      mean stake
    like plain sum of daily returns less that of the plain strategy at the same mean exposure, in
               points, and where 95 % of 2,000 bootstrap draws of weeks are (seed 1); returns and
               exposure are shares of the wallet of that day, so that nothing compounds
    stopped    share of trades that ended at a stop: theirs, ours, the hard one
    beyond     share of trades that lost more than `risk_fraction` of the wallet at their entry
    CVaR       mean of the worst 5 % of days, by the days trades were closed, of the wallet
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay
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
VARIANTS: dict[str, dict[str, Any]] = {
    "LSTMRisk": {},
    "stop: forecast": {"stop": "forecast"},
    "and stop_trails": {"stop": "forecast", "stop_trails": True},
    "stake: steady": {"stake": "steady"},
    "min_move: 3": {"min_move": 3.0},
    "min_move: 6": {"min_move": 6.0},
}
STOPS = ("stop_loss", "trailing_stop_loss", "lstm_stop_passed")
DAY_MS, WEEK_DAYS, DRAWS = 86_400_000, 7, 2_000


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
    def closed(self) -> list[TradeFacts]:
        return sorted(self.trades, key=lambda trade: trade.close_ms or 0)

    @property
    def drawdown(self) -> float:
        """Deepest fall of closed profits, as a fraction of the wallet at its top."""
        equity = WALLET + np.cumsum([0.0, *(trade.profit or 0.0 for trade in self.closed)])
        top = np.maximum.accumulate(equity)
        return float(((top - equity) / top).max())

    @property
    def stopped(self) -> float:
        return self._share(lambda trade: trade.exit_reason in STOPS)

    def beyond(self, risk_fraction: float) -> float:
        """Share of trades that lost more than was promised at their entry."""
        ends = np.array([trade.close_ms or 0 for trade in self.closed])
        wallets = WALLET + np.cumsum([0.0, *(trade.profit or 0.0 for trade in self.closed)])

        def is_beyond(trade: TradeFacts) -> bool:
            wallet = wallets[int(np.searchsorted(ends, trade.open_ms, side="right"))]
            return -(trade.profit or 0.0) > risk_fraction * wallet

        return self._share(is_beyond)

    def _share(self, of: Callable[[TradeFacts], bool]) -> float:
        return float(np.mean([of(trade) for trade in self.trades])) if self.trades else 0.0

    def wallets(self, span: tuple[int, int]) -> NDArray[np.float64]:
        """The wallet at the beginning of each day, and at the end of the last."""
        profits = np.zeros((span[1] - span[0]) // DAY_MS + 1)
        for trade in self.trades:
            profits[((trade.close_ms or 0) - span[0]) // DAY_MS] += trade.profit or 0.0
        return WALLET + np.cumsum([0.0, *profits])

    def exposure(self, span: tuple[int, int]) -> float:
        """Stake, as a share of the wallet of the day, times time, of all trades."""
        wallets = self.wallets(span)
        return sum(
            trade.stake / wallets[(trade.open_ms - span[0]) // DAY_MS]
            * ((trade.close_ms or 0) - trade.open_ms)
            for trade in self.trades
        )  # fmt: skip

    def daily(self, span: tuple[int, int]) -> NDArray[np.float64]:
        """Profit of the trades that were closed on each day, as a share of that day's wallet."""
        wallets = self.wallets(span)
        return np.asarray(np.diff(wallets) / wallets[:-1])

    def mean(self, name: str) -> float:
        values = [getattr(trade, name) or 0.0 for trade in self.trades]
        return float(np.mean(values)) if values else 0.0


def like_plain(found: Result, plain: Result, span: tuple[int, int]) -> tuple[float, float, float]:
    """Profit less the plain one's at the same mean exposure, and its 95 % interval by weeks."""
    whole = plain.exposure(span)
    share = found.exposure(span) / whole if whole else 0.0
    days = found.daily(span) - share * plain.daily(span)
    weeks = np.add.reduceat(days, np.arange(0, len(days), WEEK_DAYS))
    draws = np.random.default_rng(1).integers(0, len(weeks), (DRAWS, len(weeks)))
    low, high = np.quantile(weeks[draws].sum(axis=1), (0.025, 0.975))
    return float(weeks.sum()), float(low), float(high)


def strategies(folder: Path) -> None:
    """The archetypes, each also under the mixin, as files that freqtrade finds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in ARCHETYPES.items():
        shutil.copy(path, folder)
        mixed = MIXED.format(name=name, module=path.stem)
        (folder / f"safer_{path.name}").write_text(mixed)


def listed(asked: argparse.Namespace) -> Path:
    """A folder with the candles of these pairs alone: the market that freqtrade asks about them."""
    folder = Path(asked.store / "listed")
    folder.mkdir(exist_ok=True)
    for pair in asked.pairs:
        name = f"{pair.replace('/', '_')}-{asked.timeframe}.feather"
        if not (folder / name).exists():
            (folder / name).symlink_to((asked.data / name).resolve())
    return folder


def run(asked: argparse.Namespace, url: str, strategy: str, options: dict[str, Any]) -> Result:
    overlay = {
        **loopback_overlay(url),
        "timeframe": asked.timeframe,
        "dry_run_wallet": WALLET,
        "strategy_path": str(asked.store / "strategies"),
        "lstm": {"store_dir": str(asked.store / "lstm"), **asked.options, **options},
    }
    overlay["exchange"]["pair_whitelist"] = asked.pairs
    path = asked.store / f"{strategy}.json"
    path.write_text(json.dumps(overlay))
    arguments = {
        "config": [str(ROOT / "config.json"), str(path)],
        "user_data_dir": str(asked.store / "user_data"),
        "datadir": str(asked.data),
        "strategy": strategy,
        "timeframe_detail": asked.detail,
    }
    return Result(backtest(arguments, *span_of(asked), plain=True).account.trades)


def span_of(asked: argparse.Namespace) -> tuple[int, int]:
    begin, end = (
        int(day.replace(tzinfo=UTC).timestamp() * 1000) for day in (asked.begin, asked.end)
    )
    return begin, end


def rows(asked: argparse.Namespace, url: str) -> Iterator[str]:
    span, risk = span_of(asked), float(asked.options.get("risk_fraction", 0.01))
    for name in asked.only or ARCHETYPES:
        plain = run(asked, url, name, {})
        yield row(name, "plain", plain, plain, span, risk)
        for label in asked.variants:
            found = run(asked, url, f"Safer{name}", VARIANTS[label])
            yield row("", label, found, plain, span, risk)


def row(
    name: str, label: str, found: Result, plain: Result, span: tuple[int, int], risk: float
) -> str:
    same = len(found.entries & plain.entries) / max(1, len(plain.entries))
    gain, low, high = (100.0 * points for points in like_plain(found, plain, span))
    days = np.sort(found.daily(span))
    tail = float(days[: max(1, len(days) // 20)].mean())
    cells = (
        name, label, f"{same:.1%}", f"{len(found.trades):,}",
        f"{1e4 * found.mean('profit_ratio'):+.1f}", f"{found.mean('stake'):.0f}",
        f"{found.profit:+.1%}", f"{gain:+.1f} ({low:+.1f} to {high:+.1f})",
        f"{found.drawdown:.1%}", f"{tail:+.2%}", f"{found.stopped:.1%}",
        f"{found.beyond(risk):.1%}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def question(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--timeframe", default="5m")
    parser.add_argument("--timeframe-detail", dest="detail", help="Finer candles, where they are.")
    parser.add_argument("--pairs", nargs="+", required=True)
    parser.add_argument("--from", dest="begin", type=datetime.fromisoformat, required=True)
    parser.add_argument("--to", dest="end", type=datetime.fromisoformat, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=ARCHETYPES)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--lstm", type=json.loads, dest="options", default={}, help="JSON")
    return parser.parse_args(arguments)


def main() -> None:
    asked = question()
    asked.store = asked.store.resolve()
    logging.basicConfig(level=logging.WARNING)
    strategies(asked.store / "strategies")
    (asked.store / "user_data").mkdir(exist_ok=True)
    print(
        "| strategy | | same | trades | per trade, bps | stake | profit | like plain, points | "
        "drawdown | CVaR | stopped | beyond |"
    )
    print(f"| {' | '.join(['---'] * 12)} |")
    with LoopbackExchange(open_market(str(listed(asked)), days=2)) as exchange:
        for line in rows(asked, exchange.url):
            print(line, flush=True)


if __name__ == "__main__":
    main()
