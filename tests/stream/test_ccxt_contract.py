"""What we count on in ccxt beyond what it documents, see `lstm_model.stream.connection`."""

from __future__ import annotations

from typing import Any

import ccxt
import ccxt.pro
import pytest
from ccxt.async_support.base.ws.cache import ArrayCache
from promises import Promise

STREAM = "the trade stream"
CLIENT = "ccxt.async_support.base.ws.client:Client"
PROMISES = [
    Promise("ccxt.async_support.base.ws.cache:ArrayCache.append", STREAM),
    Promise("ccxt.async_support.base.ws.cache:ArrayCache.getLimit", STREAM, ("symbol", "limit")),
    Promise("ccxt.pro:binance.handle_message", STREAM, ("client", "message")),
    Promise("ccxt.pro:binance.on_connected", STREAM),
    Promise("ccxt.pro:binance.watch_trades_for_symbols", STREAM),
    Promise("ccxt.pro:binance.watch_trades", STREAM),
    Promise("ccxt.pro:binance.set_markets_from_exchange", STREAM),
    Promise("ccxt.pro:binance.close_connector", "the end of the trade stream"),
    Promise("ccxt.pro:binance.last_response_headers", "Retry-After"),
    Promise(f"{CLIENT}.resolve", STREAM),
    Promise(f"{CLIENT}.handle_message", STREAM),
    Promise("ccxt:binance.httpExceptions", "download-flow"),
    *(Promise(f"ccxt:{name}", "what of a refusal passes")
      for name in ("NotSupported", "BadRequest", "AuthenticationError", "ArgumentsRequired",
                   "DDoSProtection", "RateLimitExceeded", "BaseError")),
    *(Promise(f"ccxt.pro:{name}.handle_trade{'s' if name in ('bybit', 'okx') else ''}", STREAM)
      for name in ("binance", "bybit", "okx")),
]  # fmt: skip


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.place)
def test_ccxt_has_what_we_count_on(promise: Promise) -> None:
    assert not (broken := promise.broken()), broken


class Seen(ArrayCache):  # type: ignore[misc]
    """A cache of ours in the place of ccxt's."""

    def __init__(self) -> None:
        super().__init__(1)
        self.trades: list[dict[str, Any]] = []
        self.append = self.trades.append


class Wire:
    """Stands in for ccxt's connection, which is told what was parsed."""

    url = "wss://127.0.0.1/stream"

    def resolve(self, *_: Any) -> None:
        """Nobody waits."""


def test_a_trade_goes_into_the_cache_that_lies_there_as_its_frame_is_parsed() -> None:
    exchange, seen = ccxt.pro.binance(), Seen()
    exchange.set_markets([exchange.safe_market_structure({
        "id": "BTCUSDT", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "spot": True,
        "type": "spot",
    })])  # fmt: skip
    exchange.trades["BTC/USDT"] = seen
    frame = {"e": "trade", "E": 2, "s": "BTCUSDT", "t": 7, "p": "1.5", "q": "2", "T": 1, "m": True}
    exchange.handle_trade(Wire(), frame)
    [trade] = seen.trades
    told = (trade["id"], trade["price"], trade["amount"], trade["timestamp"], trade["side"])
    assert told == ("7", 1.5, 2.0, 1, "sell")


def test_what_is_temporary_is_known_by_its_status() -> None:
    api = ccxt.binance()
    assert api.httpExceptions["429"].__base__ is ccxt.NetworkError
    assert api.httpExceptions["422"].__base__ is ccxt.BaseError
