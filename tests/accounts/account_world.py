"""A small market with a clock that a test moves, for accounts on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal

import ccxt
import numpy as np
import pytest

from lstm_model.accounts import faults
from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_overlay
from lstm_model.practice.tape_market import Instrument, Listing, Market, Trades, make_market

START_MS = 1_700_006_400_000
BTC = Instrument("BTC", "USDT", 2, 5)
SOL = Instrument("SOL", "USDT", 2, 3)


class Clock:
    """Stands until a test moves it."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def forth(self, trades: int = 1) -> None:
        """Let so many trades happen, one a second."""
        self.now_ms += 1_000 * trades


def tape(prices: Sequence[str], amounts: Sequence[str] | None = None, start: int = 0) -> Trades:
    """A trade a second, sellers and buyers as takers in turn."""
    count = len(prices)
    return Trades(
        time_ms=START_MS + 1_000 * np.arange(start, start + count, dtype=np.int64),
        price=np.array([int(Decimal(price) * 100) for price in prices]),
        amount=np.array([int(Decimal(amount) * 100_000) for amount in amounts or ["1"] * count]),
        taker_buy=np.arange(count) % 2 == 1,
    )


def small_market(
    clock: Clock, prices: Sequence[str], amounts: Sequence[str] | None = None
) -> Market:
    """BTC at these prices."""
    return make_market([Listing(BTC, tape(prices, amounts))], now_ms=clock)


def client(
    exchange: TradingExchange, mode: str = "spot", *, secret: str = "", key: str = ""
) -> ccxt.binance:
    """Real ccxt on the exchange."""
    told = live_overlay(exchange.url, mode, exchange.keys)["exchange"]
    keys = {"apiKey": key or told["key"], "secret": secret or told["secret"]}
    made = ccxt.binance({**keys, **told["ccxt_config"], "timeout": 2_000})
    if mode == "futures":
        made.options["defaultType"] = "swap"
    return made


def said_by_binance(url: str, code: int) -> type[BaseException]:
    """What ccxt makes of a code that is said at this address."""
    message = faults.Refused(code).message
    body = {"code": code, "msg": message}
    told = ccxt.binance()
    told.options["hasAlreadyAuthenticatedSuccessfully"] = "/api/" in url  # it looks at spot alone
    with pytest.raises(ccxt.BaseError) as error:
        told.handle_errors(400, "", url, "POST", {}, json.dumps(body), body, {}, {})
    return type(error.value)
