"""Binance's public spot REST interface as a function: path and query in, status and JSON out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lstm_model.market.candles import timeframe_ms
from lstm_model.practice import dialect, query
from lstm_model.practice.dialect import Json
from lstm_model.practice.query import Query, RefusedRequest
from lstm_model.practice.tape_market import TIMEFRAMES, Listing, Market, TapeCandles

Route = Callable[[Market, Query], Json]


def answer(market: Market, path: str, asked: Query) -> tuple[int, Json]:
    """The answer to `GET /api/v3/<path>?<query>`: HTTP status and body."""
    return respond(_ROUTES, market, path, asked)


def respond(
    routes: Mapping[str, Route], market: Market, path: str, asked: Query
) -> tuple[int, Json]:
    """What one of these endpoints answers, or why none does: HTTP status and body."""
    try:
        if path not in routes:
            raise RefusedRequest(-1000, f"The loopback exchange has no endpoint {path}.", 404)
        return 200, routes[path](market, asked)
    except RefusedRequest as refusal:
        return refusal.status, {"code": refusal.code, "msg": str(refusal)}


def _ping(market: Market, asked: Query) -> Json:
    return {}


def _time(market: Market, asked: Query) -> Json:
    return {"serverTime": market.now_ms()}


def _exchange_info(market: Market, asked: Query) -> Json:
    symbols = query.symbols(asked) or list(market.listings)
    instruments = [query.listing(market, symbol).instrument for symbol in symbols]
    return dialect.exchange_info(market.now_ms(), instruments)


def _own_candles(listing: Listing, *asked: Any) -> TapeCandles:
    """Those of the listing's own kind, which may hold some back."""
    return listing.candles(*asked)


def klines(most: int, candles_of: Callable[..., TapeCandles] = _own_candles) -> Route:
    """An endpoint of candles, at most so many at once: of the trades, or of another price."""

    def endpoint(market: Market, asked: Query) -> Json:
        listing = query.listing(market, query.text(asked, "symbol"))
        interval = query.text(asked, "interval")
        if interval not in TIMEFRAMES:
            raise RefusedRequest(-1120, "Invalid interval.")
        start, end = query.number(asked, "startTime"), query.number(asked, "endTime")
        limit = query.limit(asked, default=500, most=most)
        candles = candles_of(listing, interval, market.now_ms(), start, end, limit)
        return dialect.kline_rows(listing.instrument, candles, timeframe_ms(interval))

    return endpoint


def _depth(market: Market, asked: Query) -> Json:
    listing = query.trading(market, asked)
    return dialect.depth(listing, market.now_ms(), query.limit(asked, default=100, most=5000))


def _trades(market: Market, asked: Query) -> Json:
    return dialect.trade_rows(*newest(market, asked))


def newest(market: Market, asked: Query) -> tuple[Listing, int, int]:
    """The pair asked for, and where on its tape the newest trades are."""
    listing = query.trading(market, asked)
    due = listing.trades.due(market.now_ms())
    return listing, max(0, due - query.limit(asked, default=500)), due


def _historical_trades(market: Market, asked: Query) -> Json:
    return dialect.trade_rows(*page(market, asked))


def _aggregate_trades(market: Market, asked: Query) -> Json:
    return dialect.aggregate_trade_rows(*page(market, asked))


def page(
    market: Market, asked: Query, position: Callable[[Any, int], int] | None = None
) -> tuple[Listing, int, int]:
    """The pair and the positions of its trades asked for: from an id or a time on, or the last.

    Parameters
    ----------
    position : where on the tape an id is, if it is none of the trades' own
    """
    listing, limit = query.trading(market, asked), query.limit(asked, default=500)
    tape, due = listing.trades, listing.trades.due(market.now_ms())
    start, end = query.number(asked, "startTime"), query.number(asked, "endTime")
    id = query.number(asked, "fromId")
    stop = due if end is None else min(due, tape.due(end))
    if id is not None:
        first = position(listing, id) if position else listing.position(id)
    elif start is not None:
        first = tape.due(start - 1)
    else:
        first = max(0, stop - limit)
    return listing, first, max(first, min(stop, first + limit))


def tickers(one: Callable[[Listing, int], Json]) -> Route:
    """An endpoint that answers for one symbol, a list of them, or all."""

    def endpoint(market: Market, asked: Query) -> Json:
        now_ms = market.now_ms()
        if "symbol" in asked:
            return one(query.trading(market, asked), now_ms)
        chosen = query.symbols(asked)
        listings = [query.listing(market, symbol) for symbol in chosen] or market.trading()
        return [one(listing, now_ms) for listing in listings]

    return endpoint


COMMON: dict[str, Route] = {"ping": _ping, "time": _time}  # of spot and futures alike

_ROUTES: dict[str, Route] = {
    **COMMON,
    "exchangeInfo": _exchange_info,
    "klines": klines(most=1000),
    "depth": _depth,
    "trades": _trades,
    "historicalTrades": _historical_trades,
    "aggTrades": _aggregate_trades,
    "ticker/24hr": tickers(dialect.day_ticker),
    "ticker/price": tickers(dialect.price_ticker),
    "ticker/bookTicker": tickers(dialect.book_ticker),
}
