"""A bot's configuration files, database and book of orders, for an account on a practice exchange.

No bot runs: what one would have left is written down.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from freqtrade.persistence import Trade

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_overlay
from lstm_model.bot import insides
from lstm_model.bot.configuration import load_config, settings_of
from lstm_model.orders.book import Book
from lstm_model.risk.ownership import book_path

PAIRS = ("BTC/USDT", "SOL/USDT")


def bot_files(
    folder: Path, exchange: TradingExchange, mode: str = "spot", **options: Any
) -> list[str]:
    """Two configuration files; the other one has the keys and says that it is real."""
    told = live_overlay(exchange.url, mode)
    names = [f"{pair}:USDT" if mode == "futures" else pair for pair in PAIRS]
    keys = {name: told["exchange"].pop(name) for name in ("key", "secret")}
    told["exchange"] |= {"pair_whitelist": names, "key": "k" * 64, "secret": "s" * 64}
    told["exchange"]["ccxt_config"]["timeout"] = 2_000
    price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    base = {
        **told, "dry_run": True, "db_url": f"sqlite:///{folder / 'other.sqlite'}",
        "timeframe": "5m", "stake_currency": "USDT", "stake_amount": 100, "max_open_trades": 2,
        "entry_pricing": price, "exit_pricing": price, "user_data_dir": str(folder),
        "pairlists": [{"method": "StaticPairList"}], "lstm": {"store_dir": "lstm"},
    }  # fmt: skip
    real = {"dry_run": False, "db_url": url_of(folder), "exchange": keys, **options}
    files = [folder / "config.json", folder / "keys.json"]
    for file, written in zip(files, (base, real), strict=True):
        file.write_text(json.dumps(written))
    return list(map(str, files))


def url_of(folder: Path) -> str:
    """Of the bot's database."""
    return f"sqlite:///{folder / 'trades.sqlite'}"


def make_database(folder: Path, *trades: Trade) -> None:
    """The bot's database with these trades."""
    with insides.database(url_of(folder)):
        for trade in trades:
            Trade.session.add(trade)
        Trade.commit()


def book_of(files: Sequence[str]) -> Book:
    """The book of orders of these files' bot."""
    config = load_config(files, {})
    config["db_url"] = json.loads(Path(files[-1]).read_text())["db_url"]
    return Book(book_path(config, settings_of(config)))


def trade_of(pair: str, amount: float, *, is_open: bool = True) -> Trade:
    """A long trade, whose entry is filled."""
    return Trade(
        pair=pair, base_currency=pair.partition("/")[0], stake_currency="USDT", exchange="binance",
        stake_amount=amount * 100.0, amount=amount, open_rate=100.0, is_open=is_open,
        fee_open=0.001, fee_close=0.001, open_date=datetime.now(UTC), strategy="mine",
    )  # fmt: skip
