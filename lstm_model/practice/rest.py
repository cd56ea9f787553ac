"""Binance's public spot REST interface as a function: path and query in, status and JSON out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from lstm_model.errors import DataError
from lstm_model.market.candles import timeframe_ms
from lstm_model.practice import dialect
from lstm_model.practice.dialect import Json
from lstm_model.practice.tape_market import TIMEFRAMES, Listing, Market

Query = Mapping[str, str]

_HOUR_MS = 3_600_000


class RefusedRequest(DataError):
    """A request the exchange refuses, with Binance's error code.

    https://developers.binance.com/docs/binance-spot-api-docs/errors
    """

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


def answer(market: Market, path: str, query: Query) -> tuple[int, Json]:
    """The answer to `GET /api/v3/<path>?<query>`: HTTP status and body."""
    try:
        if path not in _ROUTES:
            raise RefusedRequest(-1000, f"The loopback exchange has no endpoint {path}.", 404)
        return 200, _ROUTES[path](market, query)
    except RefusedRequest as refusal:
        return refusal.status, {"code": refusal.code, "msg": str(refusal)}


def _ping(market: Market, query: Query) -> Json:
    return {}


def _time(market: Market, query: Query) -> Json:
    return {"serverTime": market.now_ms()}


def _exchange_info(market: Market, query: Query) -> Json:
    symbols = _symbols(query) or list(market.listings)
    instruments = [_listing(market, symbol).instrument for symbol in symbols]
    return dialect.exchange_info(market.now_ms(), instruments)


def _klines(market: Market, query: Query) -> Json:
    listing, interval = _listing(market, _text(query, "symbol")), _text(query, "interval")
    if interval not in TIMEFRAMES:
        raise RefusedRequest(-1120, "Invalid interval.")
    start, end = _number(query, "startTime"), _number(query, "endTime")
    limit = _limit(query, default=500)
    candles = listing.candles(interval, market.now_ms(), start, end, limit)
    return dialect.kline_rows(listing.instrument, candles, timeframe_ms(interval))


def _depth(market: Market, query: Query) -> Json:
    listing = _trading(market, query)
    return dialect.depth(listing, market.now_ms(), _limit(query, default=100, most=5000))


def _trades(market: Market, query: Query) -> Json:
    listing = _trading(market, query)
    due = listing.trades.due(market.now_ms())
    return dialect.trade_rows(listing, max(0, due - _limit(query, default=500)), due)


def _historical_trades(market: Market, query: Query) -> Json:
    listing, limit = _trading(market, query), _limit(query, default=500)
    return dialect.trade_rows(listing, *_page(market, listing, query, limit))


def _aggregate_trades(market: Market, query: Query) -> Json:
    listing, limit = _trading(market, query), _limit(query, default=500)
    return dialect.aggregate_trade_rows(listing, *_page(market, listing, query, limit))


def _page(market: Market, listing: Listing, query: Query, limit: int) -> tuple[int, int]:
    """Positions of the trades asked for: from an id or a time on, otherwise the last ones."""
    tape, due = listing.trades, listing.trades.due(market.now_ms())
    start, end = _number(query, "startTime"), _number(query, "endTime")
    number = _number(query, "fromId")
    stop = due if end is None else min(due, tape.due(end))
    if number is not None:
        first = max(0, number - tape.first_id)
    elif start is not None:
        first = tape.due(start - 1)
    else:
        first = max(0, stop - limit)
    return first, max(first, min(stop, first + limit))


def _tickers(one: Callable[[Listing, int], Json]) -> Callable[[Market, Query], Json]:
    """An endpoint that answers for one symbol, a list of them, or all."""

    def endpoint(market: Market, query: Query) -> Json:
        now_ms = market.now_ms()
        if "symbol" in query:
            return one(_trading(market, query), now_ms)
        chosen = _symbols(query)
        listings = [_listing(market, symbol) for symbol in chosen] if chosen else market.trading()
        return [one(listing, now_ms) for listing in listings]

    return endpoint


_ROUTES: dict[str, Callable[[Market, Query], Json]] = {
    "ping": _ping,
    "time": _time,
    "exchangeInfo": _exchange_info,
    "klines": _klines,
    "depth": _depth,
    "trades": _trades,
    "historicalTrades": _historical_trades,
    "aggTrades": _aggregate_trades,
    "ticker/24hr": _tickers(dialect.day_ticker),
    "ticker/price": _tickers(dialect.price_ticker),
    "ticker/bookTicker": _tickers(dialect.book_ticker),
}


def _text(query: Query, name: str) -> str:
    if not query.get(name):
        message = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise RefusedRequest(-1102, message)
    return query[name]


def _number(query: Query, name: str) -> int | None:
    if name not in query:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", query[name]):
        message = (
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,18}}$'."
        )
        raise RefusedRequest(-1100, message)
    return int(query[name])


def _limit(query: Query, default: int, most: int = 1000) -> int:
    limit = _number(query, "limit")
    if limit == 0:
        raise RefusedRequest(-1130, "Data sent for parameter 'limit' is not valid.")
    return default if limit is None else min(limit, most)


def _symbols(query: Query) -> list[str]:
    """The symbols a query names, empty for all."""
    if "symbol" in query:
        return [_text(query, "symbol")]
    if "symbols" not in query:
        return []
    try:
        symbols = json.loads(query["symbols"])
    except ValueError:
        symbols = None
    if not isinstance(symbols, list) or not all(isinstance(item, str) for item in symbols):
        raise RefusedRequest(-1100, "Illegal characters found in parameter 'symbols'.")
    return symbols


def _listing(market: Market, symbol: str) -> Listing:
    if symbol not in market.listings:
        raise RefusedRequest(-1121, "Invalid symbol.")
    return market.listings[symbol]


def _trading(market: Market, query: Query) -> Listing:
    listing = _listing(market, _text(query, "symbol"))
    if not listing.trades.due(market.now_ms()):
        raise RefusedRequest(-1121, "Invalid symbol.")
    return listing
