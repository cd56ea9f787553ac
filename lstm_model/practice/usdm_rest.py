"""Binance's public REST interface of USD-M futures, as `rest` is spot's."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from lstm_model.practice import query, usdm_dialect
from lstm_model.practice.dialect import Json
from lstm_model.practice.perpetual import FUNDING_MS, Perpetual
from lstm_model.practice.query import Query, RefusedRequest
from lstm_model.practice.rest import COMMON, Route, klines, newest, page, respond, tickers
from lstm_model.practice.tape_market import Listing, Market

_HOUR_MS = 3_600_000
_KEYED = frozenset({"historicalTrades"})  # nothing is signed, but who asks is to be known
_MOST_KLINES, _MOST_FUNDINGS = 1_500, 1_000
_FUNDINGS = 200  # told where no beginning is asked for


def answer(market: Market, path: str, asked: Query, *, has_key: bool) -> tuple[int, Json]:
    """The answer to `GET /fapi/v1/<path>?<query>`: HTTP status and body.

    Parameters
    ----------
    market : of `Perpetual` listings
    has_key : whether the request came with a key in its header
    """
    if path in _KEYED and not has_key:
        return 401, {"code": -2014, "msg": "API-key format invalid."}
    return respond(_ROUTES, market, path, asked)


def _exchange_info(market: Market, asked: Query) -> Json:
    return usdm_dialect.exchange_info(market.now_ms(), [_future(it) for it in market.trading()])


def _depth(market: Market, asked: Query) -> Json:
    future = _future(query.trading(market, asked))
    limit = query.limit(asked, default=500, most=1000)
    return usdm_dialect.depth(future, market.now_ms(), limit)


def _trades(market: Market, asked: Query) -> Json:
    listing, start, stop = newest(market, asked)
    return usdm_dialect.trade_rows(_future(listing), start, stop)


def _historical_trades(market: Market, asked: Query) -> Json:
    listing, start, stop = page(market, asked)
    return usdm_dialect.trade_rows(_future(listing), start, stop)


def _aggregate_trades(market: Market, asked: Query) -> Json:
    start_ms, end_ms = query.number(asked, "startTime"), query.number(asked, "endTime")
    if start_ms is not None and end_ms is not None and end_ms - start_ms > _HOUR_MS:
        raise RefusedRequest(-4118, "Time between startTime and endTime must be less than 1 hour")
    listing, start, stop = page(market, asked, usdm_dialect.aggregate_position)
    return usdm_dialect.aggregate_trade_rows(_future(listing), start, stop)


def _funding_rate(market: Market, asked: Query) -> Json:
    """Payments of one symbol, oldest first; from a beginning on, else the newest."""
    future, now_ms = _future(query.trading(market, asked)), market.now_ms()
    start_ms, end_ms = query.number(asked, "startTime"), query.number(asked, "endTime")
    limit = query.limit(asked, default=_MOST_FUNDINGS, most=_MOST_FUNDINGS)
    last_ms = now_ms if end_ms is None else min(end_ms, now_ms)
    if start_ms is None:
        start_ms = last_ms - min(limit, _FUNDINGS) * FUNDING_MS
    fundings = future.fundings(start_ms, last_ms, limit)
    return [usdm_dialect.funding_row(future, each) for each in fundings]


def _tickers(one: Callable[[Perpetual, int], Json]) -> Route:
    return tickers(lambda listing, now_ms: one(_future(listing), now_ms))


def _future(listing: Listing) -> Perpetual:
    return cast(Perpetual, listing)


_ROUTES: dict[str, Route] = {
    **COMMON,
    "exchangeInfo": _exchange_info,
    "klines": klines(_MOST_KLINES),
    "markPriceKlines": klines(
        _MOST_KLINES, lambda listing, *asked: _future(listing).mark_candles(*asked)
    ),
    "premiumIndex": _tickers(usdm_dialect.premium_index),
    "fundingRate": _funding_rate,
    "fundingInfo": lambda market, asked: [],  # those whose payments are not every 8 hours
    "depth": _depth,
    "trades": _trades,
    "historicalTrades": _historical_trades,
    "aggTrades": _aggregate_trades,
    "ticker/24hr": _tickers(usdm_dialect.day_ticker),
    "ticker/price": _tickers(usdm_dialect.price_ticker),
    "ticker/bookTicker": _tickers(usdm_dialect.book_ticker),
}
