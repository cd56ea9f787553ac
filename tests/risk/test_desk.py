"""What an account holds, read by real ccxt from an exchange that keeps accounts."""

from __future__ import annotations

import ccxt
import pytest

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_overlay
from lstm_model.orders.standing import Standing
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.risk.desk import Desk

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


def looked(exchange: TradingExchange, mode: str) -> tuple[Standing, list[str]]:
    told = live_overlay(exchange.url, mode)["exchange"]
    client = ccxt.binance({"apiKey": told["key"], "secret": told["secret"], **told["ccxt_config"]})
    if mode == "futures":
        client.options["defaultType"] = "swap"  # as freqtrade sets it
    client.load_markets()
    desk = Desk(client, futures=mode == "futures")
    pairs = ("SOL/USDT", "GONE/USDT")  # the other was delisted while a trade was open
    desk.follow({f"{pair}:USDT" if mode == "futures" else pair: 150.0 for pair in pairs})
    try:
        standing = desk.look()
    finally:
        client.session.close()
    return standing, [request.path for request in exchange.truth.requests]


def test_open_orders_of_a_futures_account_are_those_of_futures() -> None:
    with TradingExchange(synthetic_market(days=1), {"USDT": "1000"}, "futures") as exchange:
        exchange.by_hand("SOLUSDT", "BUY", "1")
        price = round(exchange.price("SOLUSDT") * 97 / 100, 2)
        exchange.by_hand("SOLUSDT", "BUY", "1", str(price))
        standing, paths = looked(exchange, "futures")
    (placed,) = standing.placed
    assert (placed.pair, placed.side, placed.amount) == ("SOL/USDT:USDT", 1, 1.0)
    assert placed.rate == float(price)
    assert standing.held == {"SOL/USDT:USDT": 1.0}
    assert not [path for path in paths if path.startswith("/api/")]


def test_open_orders_of_a_spot_account_are_those_of_spot() -> None:
    with TradingExchange(synthetic_market(days=1), {"USDT": "1000"}) as exchange:
        exchange.by_hand("SOLUSDT", "BUY", "1")
        price = round(exchange.price("SOLUSDT") * 103 / 100, 2)
        exchange.by_hand("SOLUSDT", "SELL", "0.5", str(price))
        standing, _ = looked(exchange, "spot")
    (placed,) = standing.placed
    assert (placed.pair, placed.side, placed.amount) == ("SOL/USDT", -1, 0.5)
    assert standing.held == {"SOL/USDT": 0.999}
