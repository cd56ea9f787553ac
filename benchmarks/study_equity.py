"""What becomes of the wallet where there is something to learn: a real backtest beside holding.

    python benchmarks/study_equity.py --picture docs/equity-synthetic.svg

Real `freqtrade download-data` and `freqtrade backtesting` of LSTMStrategy against the loopback
exchange, with the demo's configuration and its three pairs: twenty days of 1m candles, the last
three of them traded, the exchange's own fee. The market is invented and carries a signal on
purpose: this shows that the parts work together, and says nothing about profit on a real one.

The curves are what the wallet would fetch at every minute if all were sold, after fees. Holding
puts a third of the wallet into each pair at the start. Every seed is another market; its days are
fixed, so that every run sees the same. To be run from the repository's root.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from picture import line_chart
from rich.console import Console

from lstm_model.bot.configuration import DEFAULT_FEE_FRACTION
from lstm_model.commands.demo import _DAYS, PAIRS, Demo
from lstm_model.market.candles import Floats, Ints
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.synthetic import MINUTE_MS, synthetic_market
from lstm_model.practice.tape_market import DAY_MS, Market

BEGIN_MS = 20_001 * DAY_MS  # 2024-10-05
END_MS = BEGIN_MS + _DAYS * DAY_MS
TRADED_MS = END_MS - 3 * DAY_MS
STOPS = ("stop_loss", "trailing_stop_loss")  # freqtrade's names; the second for one that moved


class Prices(NamedTuple):
    """Candles of one pair over the traded days: open time (M,), first open, close (M,)."""

    date_ms: Ints
    first: float
    close: Floats


def prices_of(market: Market, pair: str) -> Prices:
    listing = market.listing(pair.replace("/", ""))
    found = listing.candles("1m", END_MS - 1, TRADED_MS, limit=(END_MS - TRADED_MS) // MINUTE_MS)
    tick = 10.0**listing.instrument.price_decimals
    return Prices(found.open_ms, float(found.open[0] / tick), found.close / tick)


def backtest(market: Market, folder: Path, threads: int) -> dict[str, Any]:
    """What freqtrade exports about its backtest."""
    extra = folder / "extra.json"
    extra.write_text(json.dumps({"lstm": {"train_threads": threads}}))
    console = Console(file=sys.stderr)
    with LoopbackExchange(market) as exchange:
        demo = Demo(console, folder, exchange.url)
        demo.prepare()
        for title, name, since_ms, more in (
            ("Downloading", "download-data", BEGIN_MS, ("-t", "1m")),
            ("Backtesting", "backtesting", TRADED_MS, ("--strategy", "LSTMStrategy", "--cache",
             "none", "--export", "trades", "-c", str(extra))),
        ):  # fmt: skip
            dates = f"--timerange={day(since_ms)}-{day(END_MS)}"
            command = [sys.executable, "-m", "freqtrade", name, *demo._common(), *more, dates]
            demo._run(title, command)
    return exported(folder / "user_data" / "backtest_results")


def day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y%m%d}"


def exported(folder: Path) -> dict[str, Any]:
    """The newest backtest of a results folder."""
    name = Path(json.loads((folder / ".last_result.json").read_text())["latest_backtest"])
    with zipfile.ZipFile(folder / name) as archive:
        content = json.loads(archive.read(f"{name.stem}.json"))
    found: dict[str, Any] = content["strategy"]["LSTMStrategy"]
    return found


def traded(result: dict[str, Any], prices: dict[str, Prices]) -> Floats:
    """(M,) return of the wallet since the start, open trades as if sold at the close."""
    gained = np.zeros(len(prices[PAIRS[0]].date_ms))
    for trade in result["trades"]:
        assert not trade["is_short"]
        date_ms, _, close = prices[trade["pair"]]
        opened, closed = np.searchsorted(
            date_ms, (trade["open_timestamp"], trade["close_timestamp"])
        )
        paid = trade["open_rate"] * (1.0 + trade["fee_open"])
        worth = close[opened:closed] * (1.0 - trade["fee_close"])
        gained[opened:closed] += trade["amount"] * (worth - paid)
        gained[closed:] += trade["profit_abs"]
    return np.asarray(gained / result["starting_balance"])


def held(prices: dict[str, Prices], fee: float) -> Floats:
    """(M,) return of equal parts of all pairs, bought at the first open, as if sold at the close.

    Both fees are taken off.
    """
    growth = np.mean([found.close / found.first for found in prices.values()], axis=0)
    return np.asarray(growth * (1.0 - fee) / (1.0 + fee) - 1.0)


def drawdown(returns: Floats) -> float:
    """Deepest fall from the highest point before, as a fraction of that."""
    wealth = 1.0 + np.concatenate([[0.0], returns])
    return float((1.0 - wealth / np.maximum.accumulate(wealth)).max())


def invested(result: dict[str, Any]) -> float:
    """Mean share of the starting wallet that was in trades."""
    staked = sum(
        trade["stake_amount"] * (trade["close_timestamp"] - trade["open_timestamp"])
        for trade in result["trades"]
    )
    return float(staked / result["starting_balance"] / (END_MS - TRADED_MS))


def exits(trades: Iterable[dict[str, Any]]) -> list[str]:
    """A line per reason: trades, how many of them gained, profit in stake currency."""
    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for trade in trades:
        by_reason[trade["exit_reason"]].append(trade)
    return [
        f"   {reason:20} {len(group):>5} trades, {sum(t['profit_abs'] > 0 for t in group):>4} "
        f"gained, {sum(t['profit_abs'] for t in group):>+9.2f} USDT, "
        f"{np.mean([t['profit_ratio'] for t in group]):+.3%} on average"
        for reason, group in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]


def study(seed: int, threads: int, picture: Path | None) -> None:
    """Run, print and draw one market."""
    market = synthetic_market(seed, _DAYS, start_ms=BEGIN_MS, now_ms=lambda: END_MS)
    with tempfile.TemporaryDirectory() as folder:
        result = backtest(market, Path(folder), threads)
    trades, prices = result["trades"], {pair: prices_of(market, pair) for pair in PAIRS}
    fee = trades[0]["fee_open"] if trades else DEFAULT_FEE_FRACTION
    ours, holding = traded(result, prices), held(prices, fee)
    stopped = sum(trade["exit_reason"] in STOPS for trade in trades)
    print(
        f"seed {seed}: {len(trades)} trades at a fee of {fee:.2%} per side, profit after fees "
        f"{ours[-1]:+.2%} (freqtrade: {result['profit_total']:+.2%}), max drawdown "
        f"{drawdown(ours):.2%} (closed trades, freqtrade: {result['max_drawdown_account']:.2%}), "
        f"{invested(result):.1%} of the wallet invested on average; buy and hold "
        f"{holding[-1]:+.2%}, max drawdown {drawdown(holding):.2%}; stopped: {stopped} of "
        f"{len(trades)}"
    )
    print("\n".join(exits(trades)), flush=True)
    if picture is not None:
        hours = (prices[PAIRS[0]].date_ms + MINUTE_MS - TRADED_MS)[9::10] / 3_600_000.0
        line_chart(
            picture, "An invented market with a signal put in on purpose: return after fees", hours,
            {"buy and hold": holding[9::10], "LSTMStrategy": ours[9::10]},
            f"hours; 1m candles of {', '.join(PAIRS)}; no statement about real markets", "return",
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="the first is drawn")
    parser.add_argument("--threads", type=int, default=1, help="of a training")
    parser.add_argument("--picture", type=Path, help="where to draw")
    chosen = parser.parse_args()
    print(f"{', '.join(PAIRS)}; 1m; {day(TRADED_MS)} to {day(END_MS)} after {_DAYS} days in all")
    for number, seed in enumerate(chosen.seeds):
        study(seed, chosen.threads, chosen.picture if number == 0 else None)


if __name__ == "__main__":
    main()
