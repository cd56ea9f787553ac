"""Binance's spot JSON: what its REST answers and stream messages look like.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams

Every trade is its own aggregate trade: the tape does not know which ones one order caused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lstm_model.market.candles import timeframe_ms
from lstm_model.practice.tape_market import DAY_MS, Instrument, Listing, TapeCandles

Json = Any

# Chosen: a book deep enough for a demo stake, growing away from the touch.
_LEVEL_NOTIONAL = 20_000.0


def decimal(value: int, decimals: int) -> str:
    """An integer count of `10 ** -decimals` as Binance writes it.

    Examples
    --------
    >>> decimal(6_400_050, 2), decimal(7, 5), decimal(-25, 1), decimal(3, 0)
    ('64000.50', '0.00007', '-2.5', '3')
    """
    sign, digits = ("-" if value < 0 else ""), str(abs(value)).rjust(decimals + 1, "0")
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else sign + digits


def exchange_info(now_ms: int, instruments: list[Instrument]) -> Json:
    """`GET exchangeInfo`."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            {
                "rateLimitType": "REQUEST_WEIGHT",
                "interval": "MINUTE",
                "intervalNum": 1,
                "limit": 6000,
            }
        ],
        "exchangeFilters": [],
        "symbols": [_symbol(instrument) for instrument in instruments],
    }


def _symbol(instrument: Instrument) -> Json:
    return {
        "symbol": instrument.symbol,
        "status": "TRADING",
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [*common_filters(instrument), _NOTIONAL, _DISTANCE],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_MAKER"],
    }


_NOTIONAL = {
    "filterType": "NOTIONAL",
    "minNotional": "5.00000000",
    "applyMinToMarket": True,
    "maxNotional": "9000000.00000000",
    "applyMaxToMarket": False,
    "avgPriceMins": 5,
}
_DISTANCE = {
    "filterType": "PERCENT_PRICE_BY_SIDE",
    "bidMultiplierUp": "5",
    "bidMultiplierDown": "0.2",
    "askMultiplierUp": "5",
    "askMultiplierDown": "0.2",
    "avgPriceMins": 5,
}


def common_filters(instrument: Instrument) -> Json:
    """What spot and futures bound an order by alike: ticks and lots."""
    tick, lot = decimal(1, instrument.price_decimals), decimal(1, instrument.amount_decimals)
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "100000000", "stepSize": lot},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "0", "maxQty": "10000000", "stepSize": "0"},
    ]


def kline_rows(instrument: Instrument, candles: TapeCandles, step_ms: int) -> Json:
    """`GET klines`: twelve columns per candle."""
    price, amount = instrument.price_decimals, instrument.amount_decimals
    return [
        [
            row["open_ms"],
            decimal(row["open"], price),
            decimal(row["high"], price),
            decimal(row["low"], price),
            decimal(row["close"], price),
            decimal(row["volume"], amount),
            row["open_ms"] + step_ms - 1,
            decimal(row["quote_volume"], price + amount),
            row["trades"],
            decimal(row["taker_base"], amount),
            decimal(row["taker_quote"], price + amount),
            "0",
        ]
        for row in _rows(candles)
    ]


def kline_events(
    listing: Listing, timeframe: str, candles: TapeCandles, now_ms: int
) -> Iterator[Json]:
    """Messages of the stream `<symbol>@kline_<interval>`; a candle is final once it has ended."""
    step_ms, symbol = timeframe_ms(timeframe), listing.instrument.symbol
    table = kline_rows(listing.instrument, candles, step_ms)
    for row, columns in zip(_rows(candles), table, strict=True):
        body = dict(zip("tohlcvTqnVQB", columns, strict=True))
        body |= {"s": symbol, "i": timeframe, "x": now_ms >= row["open_ms"] + step_ms}
        body |= _trade_ids(listing, row["first_trade"], row["trades"])
        yield {"e": "kline", "E": now_ms, "s": symbol, "k": body}


def _trade_ids(listing: Listing, first: int, count: int) -> dict[str, int]:
    if not count:
        return {"f": -1, "L": -1}
    last = first + count - 1
    return {"f": int(listing.ids(first, first + 1)[0]), "L": int(listing.ids(last, last + 1)[0])}


def _rows(candles: TapeCandles) -> Iterator[dict[str, int]]:
    names = tuple(vars(candles))
    for values in zip(*(getattr(candles, name).tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def trade_rows(listing: Listing, start: int, stop: int) -> Json:
    """`GET trades` and `historicalTrades`: the trades at `[start, stop)` of the tape."""
    both = listing.instrument.price_decimals + listing.instrument.amount_decimals
    return [
        {
            "id": trade["t"],
            "price": trade["p"],
            "qty": trade["q"],
            "quoteQty": decimal(cost, both),
            "time": trade["T"],
            "isBuyerMaker": trade["m"],
            "isBestMatch": True,
        }
        for trade, cost in trades(listing, start, stop)
    ]


def aggregate_trade_rows(listing: Listing, start: int, stop: int) -> Json:
    """`GET aggTrades`: the trades at `[start, stop)` of the tape."""
    return [_aggregate(trade) for trade, _ in trades(listing, start, stop)]


def trade_events(listing: Listing, start: int, stop: int, now_ms: int) -> Iterator[Json]:
    """Messages of the stream `<symbol>@trade`."""
    head = {"e": "trade", "E": now_ms, "s": listing.instrument.symbol}
    for trade, _ in trades(listing, start, stop):
        yield head | trade


def aggregate_trade_events(listing: Listing, start: int, stop: int, now_ms: int) -> Iterator[Json]:
    """Messages of the stream `<symbol>@aggTrade`."""
    head = {"e": "aggTrade", "E": now_ms, "s": listing.instrument.symbol}
    for trade, _ in trades(listing, start, stop):
        yield head | _aggregate(trade)


def _aggregate(trade: dict[str, Any]) -> Json:
    number = trade["t"]
    return {"a": number, "f": number, "l": number} | {key: trade[key] for key in "pqTmM"}


def trades(listing: Listing, start: int, stop: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The trades at `[start, stop)` of the tape as spot's stream has them, and what they cost."""
    tape, instrument = listing.trades, listing.instrument
    columns = (tape.time_ms, tape.price, tape.amount, tape.taker_buy)
    ids = listing.ids(start, stop).tolist()
    rows = zip(ids, *(column[start:stop].tolist() for column in columns), strict=True)
    for number, time_ms, price, amount, taker_buy in rows:
        yield (
            {
                "t": number,
                "p": decimal(price, instrument.price_decimals),
                "q": decimal(amount, instrument.amount_decimals),
                "T": time_ms,
                "m": not taker_buy,
                "M": True,
            },
            price * amount,
        )


def depth(listing: Listing, now_ms: int, limit: int) -> Json:
    """`GET depth`: `limit` levels on each side of the last trade."""
    bid, ask = listing.quotes(now_ms)
    return {
        "lastUpdateId": listing.trades.first_id + listing.trades.due(now_ms),
        "bids": list(_levels(listing.instrument, bid, -1, min(limit, bid))),
        "asks": list(_levels(listing.instrument, ask, +1, limit)),
    }


def _levels(instrument: Instrument, best: int, direction: int, count: int) -> Iterator[list[str]]:
    step = max(1, instrument.spread_ticks(best) // 2)
    for level in range(count):
        price = best + direction * level * step
        if price <= 0:
            return
        cost = (
            _LEVEL_NOTIONAL
            * (1.0 + 0.5 * level)
            * 10.0 ** (instrument.price_decimals + instrument.amount_decimals)
        )
        lots = max(1, round(cost / price))
        yield [
            decimal(price, instrument.price_decimals),
            decimal(lots, instrument.amount_decimals),
        ]


def book_ticker(listing: Listing, now_ms: int) -> Json:
    """`GET ticker/bookTicker`."""
    book = depth(listing, now_ms, 1)
    (bid, bid_lots), (ask, ask_lots) = book["bids"][0], book["asks"][0]
    return {
        "symbol": listing.instrument.symbol,
        "bidPrice": bid,
        "bidQty": bid_lots,
        "askPrice": ask,
        "askQty": ask_lots,
    }


def book_ticker_event(listing: Listing, now_ms: int) -> Json:
    """Message of the stream `<symbol>@bookTicker`."""
    ticker = book_ticker(listing, now_ms)
    names = {"symbol": "s", "bidPrice": "b", "bidQty": "B", "askPrice": "a", "askQty": "A"}
    number = listing.trades.first_id + listing.trades.due(now_ms)
    return {"u": number} | {short: ticker[long] for long, short in names.items()}


def price_ticker(listing: Listing, now_ms: int) -> Json:
    """`GET ticker/price`."""
    last = int(listing.trades.price[listing.trades.due(now_ms) - 1])
    instrument = listing.instrument
    return {"symbol": instrument.symbol, "price": decimal(last, instrument.price_decimals)}


def day_ticker(listing: Listing, now_ms: int) -> Json:
    """`GET ticker/24hr`."""
    instrument, (day,) = listing.instrument, _rows(listing.last_day(now_ms))
    price, amount = instrument.price_decimals, instrument.amount_decimals
    before = int(listing.trades.price[max(day["first_trade"] - 1, 0)])
    last = listing.trades.due(now_ms) - 1
    change, mean = day["close"] - day["open"], day["close"]
    if day["volume"]:
        mean = round(day["quote_volume"] / day["volume"])
    ids = _trade_ids(listing, day["first_trade"], day["trades"])
    return {
        **book_ticker(listing, now_ms),
        "priceChange": decimal(change, price),
        "priceChangePercent": f"{100.0 * change / day['open']:.3f}",
        "weightedAvgPrice": decimal(mean, price),
        "prevClosePrice": decimal(before, price),
        "lastPrice": decimal(day["close"], price),
        "lastQty": decimal(int(listing.trades.amount[last]), amount),
        "openPrice": decimal(day["open"], price),
        "highPrice": decimal(day["high"], price),
        "lowPrice": decimal(day["low"], price),
        "volume": decimal(day["volume"], amount),
        "quoteVolume": decimal(day["quote_volume"], price + amount),
        "openTime": now_ms - DAY_MS,
        "closeTime": now_ms,
        "firstId": ids["f"],
        "lastId": ids["L"],
        "count": day["trades"],
    }
