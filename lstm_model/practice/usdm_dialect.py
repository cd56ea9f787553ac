"""Binance's JSON of USD-M futures where it is another than spot's, see `dialect`.

https://developers.binance.com/docs/derivatives/usds-margined-futures
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from lstm_model.practice import dialect
from lstm_model.practice.dialect import Json, decimal
from lstm_model.practice.perpetual import INTEREST_RATE, Funding, Perpetual, Void, next_funding_ms
from lstm_model.practice.tape_market import Instrument

_FOREVER_MS = 4_133_404_800_000  # Binance's delivery date of what is never delivered
_LATENESS_MS = 10  # a payment's time is told a few milliseconds late, each time differently
_MIN_NOTIONAL = {"filterType": "MIN_NOTIONAL", "notional": "5"}
_DISTANCE = {
    "filterType": "PERCENT_PRICE",
    "multiplierUp": "1.0500",
    "multiplierDown": "0.9500",
    "multiplierDecimal": "4",
}


def exchange_info(now_ms: int, futures: list[Perpetual]) -> Json:
    """`GET exchangeInfo`."""
    spot = dialect.exchange_info(now_ms, [])
    assets = sorted({future.instrument.quote for future in futures})
    return spot | {
        "futuresType": "U_MARGINED",
        "assets": [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-10000"}
            for asset in assets
        ],
        "symbols": [_symbol(future) for future in futures],
    }


def _symbol(future: Perpetual) -> Json:
    instrument = future.instrument
    return {
        "symbol": instrument.symbol,
        "pair": instrument.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _FOREVER_MS,
        "onboardDate": int(future.trades.time_ms[0]),
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": instrument.base,
        "quoteAsset": instrument.quote,
        "marginAsset": instrument.quote,
        "pricePrecision": instrument.price_decimals,
        "quantityPrecision": instrument.amount_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10_000,
        "filters": [*dialect.common_filters(instrument), _MIN_NOTIONAL, _DISTANCE],
        "orderTypes": [
            "LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET",
            "TRAILING_STOP_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }  # fmt: skip


def trade_rows(future: Perpetual, start: int, stop: int) -> Json:
    """`GET trades` and `historicalTrades`: the trades at `[start, stop)` of the tape."""
    return [_without(row, "isBestMatch") for row in dialect.trade_rows(future, start, stop)]


def aggregate_trade_rows(future: Perpetual, start: int, stop: int) -> Json:
    """`GET aggTrades`: the trades at `[start, stop)` of the tape; their ids are a series apart."""
    rows = dialect.aggregate_trade_rows(future, start, stop)
    first = future.trades.first_id + start
    return [_without(row, "M") | {"a": number} for number, row in enumerate(rows, first)]


def aggregate_position(future: Perpetual, number: int) -> int:
    """Where on the tape the first aggregate with at least this id is."""
    return min(max(0, number - future.trades.first_id), len(future.trades))


def trade_events(future: Perpetual, start: int, stop: int, now_ms: int) -> Iterator[Json]:
    """Messages of the stream `<symbol>@trade`; some use up an id and are no trade of the market."""
    head = {"e": "trade", "E": now_ms, "s": future.instrument.symbol}
    market = {"X": "MARKET", "st": 1}
    trades = (_without(trade, "M") | market for trade, _ in dialect.trades(future, start, stop))
    voids = (_void(void, future.instrument) for void in future.voids(start, stop))
    for body in sorted(chain(trades, voids), key=lambda body: int(body["t"])):
        yield head | body


def _void(void: Void, instrument: Instrument) -> dict[str, Json]:
    price, amount = decimal(void.price, instrument.price_decimals), "0"
    if void.amount:
        amount = decimal(void.amount, instrument.amount_decimals)
    return {
        "t": void.id, "p": price if void.price else "0", "q": amount, "T": void.time_ms,
        "m": False, "X": void.kind, "st": 1,
    }  # fmt: skip


def aggregate_trade_events(future: Perpetual, start: int, stop: int, now_ms: int) -> Iterator[Json]:
    """Messages of the stream `<symbol>@aggTrade`."""
    head = {"e": "aggTrade", "E": now_ms, "s": future.instrument.symbol}
    for row in aggregate_trade_rows(future, start, stop):
        yield head | row


def depth(future: Perpetual, now_ms: int, limit: int) -> Json:
    """`GET depth`."""
    return dialect.depth(future, now_ms, limit) | {"E": now_ms, "T": _traded_ms(future, now_ms)}


def depth_event(future: Perpetual, now_ms: int, levels: int) -> Json:
    """Message of the stream `<symbol>@depth<levels>`: the best of the book, whole."""
    book, traded_ms = dialect.depth(future, now_ms, levels), _traded_ms(future, now_ms)
    number = book["lastUpdateId"]
    head = {"e": "depthUpdate", "E": now_ms, "T": traded_ms, "s": future.instrument.symbol}
    return head | {
        "U": number, "u": number, "pu": number - 1, "b": book["bids"], "a": book["asks"]
    }  # fmt: skip


def book_ticker(future: Perpetual, now_ms: int) -> Json:
    """`GET ticker/bookTicker`."""
    return dialect.book_ticker(future, now_ms) | {"time": _traded_ms(future, now_ms)}


def book_ticker_event(future: Perpetual, now_ms: int) -> Json:
    """Message of the stream `<symbol>@bookTicker`."""
    head = {"e": "bookTicker", "E": now_ms, "T": _traded_ms(future, now_ms)}
    return head | dialect.book_ticker_event(future, now_ms)


def price_ticker(future: Perpetual, now_ms: int) -> Json:
    """`GET ticker/price`."""
    return dialect.price_ticker(future, now_ms) | {"time": _traded_ms(future, now_ms)}


def day_ticker(future: Perpetual, now_ms: int) -> Json:
    """`GET ticker/24hr`."""
    absent = ("bidPrice", "bidQty", "askPrice", "askQty", "prevClosePrice")
    return _without(dialect.day_ticker(future, now_ms), *absent)


def premium_index(future: Perpetual, now_ms: int) -> Json:
    """`GET premiumIndex`: mark and index price, and the next payment as it is expected now."""
    decimals = future.instrument.price_decimals
    return {
        "symbol": future.instrument.symbol,
        "markPrice": decimal(future.mark(now_ms), decimals),
        "indexPrice": decimal(future.index(now_ms), decimals),
        "estimatedSettlePrice": decimal(future.index(now_ms), decimals),
        "lastFundingRate": f"{future.expected_rate(now_ms):.8f}",
        "interestRate": f"{INTEREST_RATE:.8f}",
        "nextFundingTime": next_funding_ms(now_ms),
        "time": now_ms,
    }


def funding_row(future: Perpetual, funding: Funding) -> Json:
    """A row of `GET fundingRate`."""
    return {
        "symbol": future.instrument.symbol,
        "fundingTime": funding.time_ms + funding.time_ms // 3_600_000 % _LATENESS_MS,
        "fundingRate": f"{funding.rate:.8f}",
        "markPrice": decimal(funding.mark, future.instrument.price_decimals),
    }


def _traded_ms(future: Perpetual, now_ms: int) -> int:
    """When the newest trade was, which moved the book."""
    return int(future.trades.time_ms[future.trades.due(now_ms) - 1])


def _without(row: dict[str, Json], *names: str) -> dict[str, Json]:
    return {name: value for name, value in row.items() if name not in names}
