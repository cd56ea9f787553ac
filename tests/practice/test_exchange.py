"""The loopback exchange: candles are their trades, and unmodified ccxt gets them all."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import aiohttp
import ccxt
import ccxt.pro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import timeframe_ms
from lstm_model.practice import exchange as exchange_module
from lstm_model.practice.exchange import LoopbackExchange, open_market, run_exchange
from lstm_model.practice.rest import answer
from lstm_model.practice.streams import Subscriptions
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import (
    DAY_MS,
    TIMEFRAMES,
    Instrument,
    Listing,
    Market,
    Trades,
    make_market,
)

START_MS = 1_700_006_400_000  # a midnight, UTC
NOON_MS = START_MS + DAY_MS + DAY_MS // 2 + 12_345
MINUTE_MS = 60_000


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def market(clock: Clock) -> Market:
    return synthetic_market(1, 1, start_ms=START_MS, now_ms=clock)


@pytest.fixture
def exchange(market: Market) -> Iterator[LoopbackExchange]:
    with LoopbackExchange(market) as running:
        yield running


def ccxt_options(exchange: LoopbackExchange) -> dict[str, Any]:
    websocket = exchange.url.replace("http", "ws") + "/stream"
    return {
        "enableRateLimit": False,
        "newUpdates": True,
        "options": {"fetchMarkets": {"types": ["spot"]}},
        "urls": {"api": {"public": exchange.url + "/api/v3", "ws": {"spot": websocket}}},
    }


@pytest.fixture
def client(exchange: LoopbackExchange) -> Iterator[ccxt.binance]:
    binance = ccxt.binance(ccxt_options(exchange))
    yield binance
    binance.session.close()


def get(exchange: LoopbackExchange, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(exchange.url + path, timeout=5) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


# Candles are the aggregation of trades


def naive_candle(trades: list[tuple[int, int, int, bool]]) -> dict[str, int]:
    prices = [price for _, price, _, _ in trades]
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": sum(amount for _, _, amount, _ in trades),
        "quote_volume": sum(price * amount for _, price, amount, _ in trades),
        "trades": len(trades),
        "taker_base": sum(amount for _, _, amount, buy in trades if buy),
        "taker_quote": sum(price * amount for _, price, amount, buy in trades if buy),
    }


def listing_of(trades: list[tuple[int, int, int, bool]]) -> Listing:
    time_ms, price, amount, taker_buy = (np.array(column) for column in zip(*trades, strict=True))
    return Listing(Instrument("AAA", "BBB", 2, 3), Trades(time_ms, price, amount, taker_buy))


TRADE_LISTS = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 2 * DAY_MS),
            st.integers(0, 2 * 1440).map(lambda minute: minute * MINUTE_MS),
        ),
        st.integers(1, 500),
        st.integers(1, 10**6),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
).map(sorted)


@settings(max_examples=60, deadline=None)
@given(TRADE_LISTS, st.integers(0, 2 * DAY_MS), st.sampled_from(TIMEFRAMES))
def test_candles_equal_the_aggregation_of_the_trades_due(
    trades: list[tuple[int, int, int, bool]], now_ms: int, timeframe: str
) -> None:
    step_ms = timeframe_ms(timeframe)
    due = [trade for trade in trades if trade[0] <= now_ms]
    candles = listing_of(trades).candles(timeframe, now_ms, limit=10**6)
    assert sum(candles.trades) == len(due)
    if due:
        assert candles.open_ms[0] == due[0][0] // step_ms * step_ms
        assert candles.open_ms[-1] == now_ms // step_ms * step_ms
        assert set(np.diff(candles.open_ms)) <= {step_ms}
    for row, open_ms in enumerate(candles.open_ms):
        inside = [trade for trade in due if open_ms <= trade[0] < open_ms + step_ms]
        if inside:
            expected = naive_candle(inside)
        else:
            before = [trade for trade in due if trade[0] < open_ms][-1][1]
            expected = dict.fromkeys(naive_candle(due), 0)
            expected |= dict.fromkeys(("open", "high", "low", "close"), before)
        assert {name: getattr(candles, name)[row] for name in expected} == expected


@pytest.mark.parametrize(
    ("start", "end", "limit", "opens"),
    [
        (None, None, 2, [4, 5]),
        (None, None, 500, [0, 1, 2, 3, 4, 5]),
        (2 * MINUTE_MS, None, 2, [2, 3]),
        (2 * MINUTE_MS - 1, None, 2, [2, 3]),
        (2 * MINUTE_MS + 1, None, 500, [3, 4, 5]),
        (None, 3 * MINUTE_MS, 2, [2, 3]),
        (MINUTE_MS, 2 * MINUTE_MS - 1, 9, [1]),
        (7 * MINUTE_MS, None, 9, []),
        (3 * MINUTE_MS, 2 * MINUTE_MS, 9, []),
    ],
)
def test_a_candle_request_selects_as_binance_does(
    start: int | None, end: int | None, limit: int, opens: list[int]
) -> None:
    listing = listing_of([(1000, 5, 1, True), (DAY_MS, 6, 1, True)])
    candles = listing.candles("1m", 5 * MINUTE_MS + 1, start, end, limit)
    assert [open_ms // MINUTE_MS for open_ms in candles.open_ms] == opens


def test_nothing_is_served_before_the_first_trade() -> None:
    listing = listing_of([(MINUTE_MS, 5, 1, True)])
    market = make_market([listing], now_ms=lambda: MINUTE_MS - 1)
    assert len(listing.candles("1m", MINUTE_MS - 1)) == 0
    assert answer(market, "ticker/24hr", {}) == (200, [])
    status, body = answer(market, "depth", {"symbol": "AAABBB"})
    assert (status, body["code"]) == (400, -1121)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], [], [], []), "at least one trade"),
        (([2, 1], [1, 1], [1, 1], [True, True]), "order of time"),
        (([1], [0], [1], [True]), "positive price"),
        (([1], [1], [0], [True]), "positive amount"),
    ],
)
def test_unusable_trades_are_refused(columns: tuple[list[Any], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Trades(*(np.array(column) for column in columns))


# REST


def test_ccxt_loads_the_markets(client: ccxt.binance) -> None:
    markets = client.load_markets()
    assert set(markets) == {"BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"}
    btc = markets["BTC/USDT"]
    assert (btc["spot"], btc["active"], btc["type"]) == (True, True, "spot")
    assert btc["precision"]["price"] == 0.01
    assert btc["precision"]["amount"] == 0.00001
    assert btc["limits"]["cost"]["min"] == 5.0


def test_rest_klines_equal_the_rest_trades(client: ccxt.binance, market: Market) -> None:
    rows = client.public_get_klines({"symbol": "ETHUSDT", "interval": "5m", "limit": 3})
    trades = client.public_get_trades({"symbol": "ETHUSDT", "limit": 1000})
    assert int(rows[-1][0]) <= market.now_ms() <= int(rows[-1][6])
    for row in rows:
        assert len(row) == 12
        inside = [trade for trade in trades if int(row[0]) <= int(trade["time"]) <= int(row[6])]
        prices = [Decimal(trade["price"]) for trade in inside]
        taken = [trade for trade in inside if trade["isBuyerMaker"] is False]
        assert [Decimal(text) for text in row[1:5]] == [
            prices[0], max(prices), min(prices), prices[-1],
        ]  # fmt: skip
        assert Decimal(row[5]) == sum(Decimal(trade["qty"]) for trade in inside)
        assert Decimal(row[7]) == sum(Decimal(trade["quoteQty"]) for trade in inside)
        assert int(row[8]) == len(inside)
        assert Decimal(row[9]) == sum(Decimal(trade["qty"]) for trade in taken)
        assert Decimal(row[10]) == sum(Decimal(trade["quoteQty"]) for trade in taken)
        assert row[11] == "0"


def test_ccxt_reads_candles_tickers_and_the_book(client: ccxt.binance, clock: Clock) -> None:
    candles = client.fetch_ohlcv("BTC/USDT", "1h", since=START_MS, limit=5)
    assert [row[0] for row in candles] == [START_MS + hour * 3_600_000 for hour in range(5)]
    ticker, book = client.fetch_ticker("BTC/USDT"), client.fetch_order_book("BTC/USDT", 20)
    assert len(book["bids"]) == len(book["asks"]) == 20
    assert book["bids"][0][0] < book["asks"][0][0]
    assert ticker["bid"] == book["bids"][0][0]
    assert ticker["last"] in (ticker["bid"], ticker["ask"])
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert ticker["timestamp"] == clock.now_ms
    assert client.fetch_bids_asks(["BTC/USDT"])["BTC/USDT"]["ask"] == ticker["ask"]
    assert client.fetch_last_prices()["BTC/USDT"]["price"] == ticker["last"]
    assert len(client.fetch_tickers()) == 4
    assert client.fetch_time() == clock.now_ms


@pytest.mark.lengthy
def test_the_whole_tape_can_be_read_page_by_page(client: ccxt.binance, market: Market) -> None:
    tape, seen = market.listings["XRPUSDT"].trades, []
    page = client.fetch_trades("XRP/USDT", since=START_MS, limit=1000)
    while page:
        seen += [int(trade["id"]) for trade in page]
        page = client.fetch_trades("XRP/USDT", limit=1000, params={"fromId": seen[-1] + 1})
    assert seen == list(range(tape.first_id, tape.first_id + tape.due(market.now_ms())))


def test_the_last_trades_are_the_last_due(client: ccxt.binance, market: Market) -> None:
    tape = market.listings["SOLUSDT"].trades
    trades = client.public_get_trades({"symbol": "SOLUSDT", "limit": 4})
    last = tape.first_id + tape.due(market.now_ms()) - 1
    assert [trade["id"] for trade in trades] == [last - back for back in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("klines?symbol=NOPE&interval=1m", 400, -1121),
        ("klines?symbol=BTCUSDT&interval=7m", 400, -1120),
        ("klines?symbol=BTCUSDT", 400, -1102),
        ("klines?symbol=BTCUSDT&interval=1m&limit=many", 400, -1100),
        ("klines?symbol=BTCUSDT&interval=1m&limit=0", 400, -1130),
        ("depth", 400, -1102),
        ("aggTrades?symbol=BTCUSDT&fromId=-1", 400, -1100),
        ("ticker/price?symbols=BTCUSDT", 400, -1100),
        ("exchangeInfo?symbol=NOPE", 400, -1121),
        ("account", 404, -1000),
    ],
)
def test_wrong_requests_get_binances_errors(
    exchange: LoopbackExchange, path: str, status: int, code: int
) -> None:
    found, body = get(exchange, "/api/v3/" + path)
    assert (found, body["code"]) == (status, code)
    assert body["msg"]


def test_other_paths_are_refused_in_json(exchange: LoopbackExchange) -> None:
    assert get(exchange, "/sapi/v1/whatever")[0] == 404
    assert get(exchange, "/api/v3/ping") == (200, {})


def test_ccxt_raises_its_own_error_for_an_unknown_symbol(client: ccxt.binance) -> None:
    with pytest.raises(ccxt.BadSymbol):
        client.public_get_klines({"symbol": "NOPE", "interval": "1m"})


# Streams


async def moving(clock: Clock, step_ms: int, pause_s: float = 0.03) -> None:
    while True:
        await asyncio.sleep(pause_s)
        clock.now_ms += step_ms


async def with_moving_clock(clock: Clock, step_ms: int, work: Any) -> Any:
    mover = asyncio.create_task(moving(clock, step_ms))
    try:
        return await asyncio.wait_for(work, 20)
    finally:
        mover.cancel()


def test_ccxt_pro_receives_every_trade(
    exchange: LoopbackExchange, market: Market, clock: Clock
) -> None:
    seen: dict[str, list[int]] = defaultdict(list)

    async def watch() -> None:
        client = ccxt.pro.binance(ccxt_options(exchange))
        try:
            while min(len(seen["BTC/USDT"]), len(seen["XRP/USDT"])) < 60:
                for trade in await client.watch_trades_for_symbols(["BTC/USDT", "XRP/USDT"]):
                    seen[trade["symbol"]].append(int(trade["id"]))
                    assert trade["timestamp"] <= clock.now_ms
        finally:
            await client.close()

    asyncio.run(with_moving_clock(clock, 15_000, watch()))
    for ids in seen.values():
        assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_ccxt_pro_candles_become_the_rest_candles(
    exchange: LoopbackExchange, market: Market, clock: Clock
) -> None:
    pairs = [["ETH/USDT", "1m"], ["SOL/USDT", "5m"]]

    async def watch() -> dict[str, Any]:
        client = ccxt.pro.binance(ccxt_options(exchange))
        try:
            while len(client.ohlcvs.get("SOL/USDT", {}).get("5m", [])) < 3:
                await client.watch_ohlcv_for_symbols(pairs)
            return {symbol: list(client.ohlcvs[symbol][step]) for symbol, step in pairs}
        finally:
            await client.close()

    watched = asyncio.run(with_moving_clock(clock, 15_000, watch()))
    for symbol, timeframe in pairs:
        closed = watched[symbol][:-1]
        query = {"symbol": symbol.replace("/", ""), "interval": timeframe}
        _, rows = answer(market, "klines", query | {"startTime": str(closed[0][0])})
        assert closed == [[row[0], *map(float, row[1:6])] for row in rows[: len(closed)]]


def test_a_kline_stream_updates_each_second_and_ends_every_candle_once(
    market: Market, clock: Clock
) -> None:
    clock.now_ms = START_MS + DAY_MS + 58_000
    streams = Subscriptions(market, combined=False)
    streams.subscribe(["btcusdt@kline_1m"])
    sent = []
    for _ in range(1 + 8 * 65):
        sent += [(message["k"]["t"], message["k"]["x"]) for message in streams.poll()]
        clock.now_ms += 125
    first = START_MS + DAY_MS
    final = [open_ms for open_ms, is_final in sent if is_final]
    assert final == [first, first + MINUTE_MS]
    assert sent.index((first, True)) < sent.index((first + MINUTE_MS, False))
    assert len(sent) == pytest.approx(66 + len(final), abs=2)


def test_a_jump_of_the_clock_sends_every_candle_and_trade_between(
    market: Market, clock: Clock
) -> None:
    streams = Subscriptions(market, combined=True)
    streams.subscribe(["btcusdt@kline_1m", "btcusdt@aggTrade"])
    list(streams.poll())
    clock.now_ms += 10 * MINUTE_MS
    messages = list(streams.poll())
    finals = [message for message in messages if message["data"].get("k", {}).get("x")]
    trades = [message["data"] for message in messages if message["stream"].endswith("aggTrade")]
    assert len(finals) == 10
    assert [trade["a"] for trade in trades] == list(
        range(trades[0]["a"], trades[0]["a"] + len(trades))
    )
    assert list(streams.poll()) == []


def test_trades_can_be_polled_alone_and_say_when_the_next_is_due(
    market: Market, clock: Clock
) -> None:
    streams = Subscriptions(market, combined=False)
    streams.subscribe(["btcusdt@bookTicker", "btcusdt@kline_1m"])
    assert streams.next_trade_ms() == float("inf")
    assert len(list(streams.poll())) == 2
    streams.subscribe(["btcusdt@trade"])
    clock.now_ms += int(streams.next_trade_ms()) - 1
    assert list(streams.poll(trades_only=True)) == []
    clock.now_ms += 1
    (trade,) = streams.poll(trades_only=True)
    assert (trade["e"], trade["T"]) == ("trade", clock.now_ms)
    assert next(streams.poll()).get("e") is None


def test_requests_on_a_socket_are_answered_with_their_id(
    exchange: LoopbackExchange, clock: Clock
) -> None:
    url = exchange.url + "/ws/btcusdt@trade/ethusdt@bookTicker"

    async def converse() -> list[Any]:
        replies = []
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket_:
            for text in (
                {"method": "SUBSCRIBE", "params": ["xrpusdt@kline_1m"], "id": 7},
                {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 8},
                {"method": "LIST_SUBSCRIPTIONS", "id": 9},
                {"method": "DANCE", "id": 10},
            ):
                await socket_.send_json(text)
            while len(replies) < 4:
                message = await socket_.receive_json(timeout=5)
                if "id" in message:
                    replies.append(message)
            await socket_.send_str("not json")
            while "error" not in (message := await socket_.receive_json(timeout=5)):
                pass
        return [*replies, message]

    subscribed, unsubscribed, listed, wrong, broken = asyncio.run(converse())
    assert subscribed == {"result": None, "id": 7}
    assert unsubscribed == {"result": None, "id": 8}
    assert listed == {"result": ["ethusdt@bookTicker", "xrpusdt@kline_1m"], "id": 9}
    assert (wrong["id"], wrong["error"]["code"]) == (10, 2)
    assert (broken["id"], broken["error"]["code"]) == (None, 2)


def test_the_path_stream_wraps_its_messages(exchange: LoopbackExchange) -> None:
    async def first() -> Any:
        url = exchange.url + "/stream?streams=ethusdt@bookTicker/nope@trade"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket_:
            return await socket_.receive_json(timeout=5)

    message = asyncio.run(first())
    assert message["stream"] == "ethusdt@bookTicker"
    assert Decimal(message["data"]["b"]) < Decimal(message["data"]["a"])


# Life of the server


def test_a_taken_port_is_a_clear_error(market: Market) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is taken"),
            LoopbackExchange(market, port),
        ):
            pass


def test_it_serves_this_machine_only(market: Market) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        run_exchange(market, host="0.0.0.0", port=0)  # noqa: S104


def test_unknown_market_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="not a directory"):
        open_market("no-such-market")


def test_the_words_of_the_command_line_open_the_two_invented_markets() -> None:
    learnable, walk = (open_market(spec, seed=2, days=1) for spec in ("synthetic", "random-walk"))
    assert set(learnable.listings) == set(walk.listings)
    assert not np.array_equal(
        learnable.listings["BTCUSDT"].trades.price, walk.listings["BTCUSDT"].trades.price
    )


def test_the_exchange_stops_with_an_open_websocket(market: Market) -> None:
    async def connect_and_stop() -> aiohttp.WSMsgType:
        async with aiohttp.ClientSession() as session:
            with LoopbackExchange(market) as exchange:
                opened = await session.ws_connect(exchange.url + "/ws/btcusdt@trade")
                # The server closes in its own thread while this loop must answer.
                closing = asyncio.create_task(opened.receive(timeout=5))
                await asyncio.to_thread(exchange.stop)
                return (await closing).type

    assert asyncio.run(connect_and_stop()) is aiohttp.WSMsgType.CLOSE


@pytest.mark.lengthy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_exit_code_zero(number: signal.Signals) -> None:
    code = (
        f"import {exchange_module.__name__} as e\n"
        "e.run_exchange(e.open_market('synthetic', days=1), port=0,"
        " ready=lambda url: print(url, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        child.send_signal(number)
        assert child.wait(timeout=10) == 0
