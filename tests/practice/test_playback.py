"""Recorded frames reach an unmodified ccxt.pro client, word for word and complete."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.pro
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from places import SHARED

from lstm_model.errors import ConfigError, DataError
from lstm_model.practice.frames import read_recording
from lstm_model.practice.playback import Playback

RECORDED = SHARED / "websocket"
BINANCE = sorted(RECORDED.glob("hftbacktest_spot_*.gz"))
COINBASE = sorted(RECORDED.glob("cryptofeed_COINBASE.jsonl.zst"))
START_MS = 1_700_000_000_000


# An invented recording in each format


def binance_line(position: int, symbol: str, number: int) -> str:
    body = {
        "e": "trade", "E": START_MS + position * 10, "s": symbol, "t": number,
        "p": f"{100 + position / 8:.8f}", "q": "0.02500000", "T": START_MS + position * 10,
        "m": position % 2 == 0, "M": True,
    }  # fmt: skip
    text = json.dumps({"stream": f"{symbol.lower()}@trade", "data": body}, separators=(",", ":"))
    return f"{(START_MS + position * 10) * 1_000_000} {text}"


def binance_recording(folder: Path, trades: int = 200) -> list[Path]:
    """Two days of one symbol, the second compressed, and other frames in between."""
    eth = [binance_line(position, "ETHUSDT", 70 + position) for position in range(1, trades)]
    book = '{"stream":"ethusdt@bookTicker","data":{"u":1,"s":"ETHUSDT","b":"1.0","a":"2.0"}}'
    eth[3:3] = [f"{(START_MS + 15) * 1_000_000} {book}", ""]
    btc = [binance_line(position, "BTCUSDT", 9_000 + position) for position in range(1, trades)]
    (folder / "btc").write_text("\n".join(btc))
    (folder / "eth1").write_text("\n".join(eth[:50]) + '\n5 {"lastUpdateId":1,"bids":[]}\n')
    (folder / "eth2.gz").write_bytes(gzip.compress("\n".join(eth[50:]).encode()))
    return [folder / "eth2.gz", folder / "eth1", folder / "btc"]


def product(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "product_id": name, "base_currency_id": base, "quote_currency_id": quote,
        "product_type": "SPOT", "status": "online", "trading_disabled": False,
        "base_increment": "0.00000001", "price_increment": "0.01", "quote_increment": "0.01",
        "base_min_size": "0.00000001", "base_max_size": "3400", "quote_min_size": "1",
        "quote_max_size": "150000000", "alias_to": [],
    }  # fmt: skip


def coinbase_message(kind: str, name: str, numbers: list[int]) -> dict[str, Any]:
    rows = [
        {"product_id": name, "trade_id": str(number), "price": "10.5", "size": "0.1",
         "time": f"2026-08-09T21:05:{number % 60:02d}.25045Z", "side": "BUY"}
        for number in reversed(numbers)
    ]  # fmt: skip
    event = {"type": kind, "trades": rows}
    return {"channel": "market_trades", "timestamp": "", "sequence_num": 0, "events": [event]}


def coinbase_recording(folder: Path) -> list[Path]:
    products = json.dumps({"products": [product("BTC-USD"), product("ETH-USD")]})
    records: list[dict[str, Any]] = [
        {"t": "header", "format": 2},
        {"t": "http", "ts": 1.0, "data": products,
         "url": "https://api.coinbase.com/api/v3/brokerage/market/products"},
        {"t": "connect"},
        {"t": "send", "ts": 1.0, "data": "{}"},
    ]  # fmt: skip
    messages = [
        coinbase_message("snapshot", "BTC-USD", [5, 6, 7]),
        coinbase_message("snapshot", "ETH-USD", [50, 51]),
        {"channel": "heartbeats", "events": [{"heartbeat_counter": 1}]},
        {"channel": "l2_data", "events": [{"product_id": "BTC-USD", "updates": []}]},
        *(coinbase_message("update", "BTC-USD", [number]) for number in range(8, 30)),
        coinbase_message("update", "ETH-USD", [52, 53]),
    ]
    records += ({"t": "recv", "ts": 2.0, "data": json.dumps(message)} for message in messages)
    path = folder / "coinbase.jsonl.zst"
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write("\n".join(map(json.dumps, records)).encode())
    return [path]


# What a client gets


Ids = dict[str, set[int]]


def watch(make: Callable[[dict[str, Any]], Any], playback: Playback, wanted: Ids) -> Ids:
    """Ids of the trades that a client received until it had as many as wanted.

    What is received is in ccxt's caches; `watch_trades_for_symbols` itself keeps a symbol's last
    trades to itself if they came while another symbol's were being returned.
    """
    settings = {"fetchMarkets": {"types": ["spot"]}} if make is ccxt.pro.binance else {}
    options = {"tradesLimit": 100_000, **settings}

    async def watching(client: Any) -> None:
        while True:
            await client.watch_trades_for_symbols(list(wanted))

    async def follow() -> Ids:
        client = make({"enableRateLimit": False, "urls": playback.urls, "options": options})
        task = asyncio.create_task(watching(client))
        try:
            while any(len(client.trades.get(pair, ())) < len(ids) for pair, ids in wanted.items()):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
            return {pair: {int(trade["id"]) for trade in client.trades[pair]} for pair in wanted}
        finally:
            await client.close()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(asyncio.wait_for(follow(), 50))


def test_ccxt_gets_every_trade_of_a_binance_recording(tmp_path: Path) -> None:
    with Playback(binance_recording(tmp_path)) as playback:
        wanted = {
            "BTC/USDT": set(playback.trade_ids("BTCUSDT")),
            "ETH/USDT": set(playback.trade_ids("ETHUSDT")),
        }
        assert wanted["ETH/USDT"] == set(range(71, 270))
        assert watch(ccxt.pro.binance, playback, wanted) == wanted
        assert playback.finished.wait(5)


def test_ccxt_gets_every_trade_of_a_coinbase_recording(tmp_path: Path) -> None:
    with Playback(coinbase_recording(tmp_path)) as playback:
        wanted = {"BTC/USD": set(range(5, 30)), "ETH/USD": {50, 51, 52, 53}}
        assert set(playback.trade_ids("BTC-USD")) == wanted["BTC/USD"]
        assert watch(ccxt.pro.coinbase, playback, wanted) == wanted


async def converse(playback: Playback, requests: list[Any], texts: int) -> list[str]:
    """The first texts a client gets that sends these requests."""
    url = playback.url + ("/stream" if "method" in requests[0] else "/")
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for request in requests:
            await socket.send_json(request)
        return [await socket.receive_str(timeout=5) for _ in range(texts)]


def test_the_recorded_text_is_sent_word_for_word_and_nothing_else(tmp_path: Path) -> None:
    paths = binance_recording(tmp_path)
    lines = gzip.decompress(paths[0].read_bytes()).decode() + "\n" + paths[1].read_text()
    recorded = [line.split(" ", 1)[1] for line in lines.splitlines() if "ethusdt@" in line]
    names = ["ethusdt@trade", "ethusdt@bookTicker", "xrpusdt@trade", "btcusdt@trade"]
    requests = [{"method": "SUBSCRIBE", "params": names[:3], "id": 4}]
    with Playback(paths) as playback:
        reply, *got = asyncio.run(converse(playback, requests, 1 + len(recorded)))
    assert json.loads(reply) == {"result": None, "id": 4}
    assert sorted(got) == sorted(recorded)
    numbers = [json.loads(text)["data"].get("t") for text in got]
    assert [number for number in numbers if number] == list(range(71, 270))


def test_coinbase_channels_and_products_are_told_apart(tmp_path: Path) -> None:
    requests = [
        {"type": "subscribe", "product_ids": ["ETH-USD"], "channel": "market_trades"},
        {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "level2"},
        {"type": "unsubscribe", "product_ids": ["BTC-USD"], "channel": "level2"},
    ]
    with Playback(coinbase_recording(tmp_path), speed=1.0) as playback:
        got = [json.loads(text) for text in asyncio.run(converse(playback, requests[:1], 3))]
        found = {row["product_id"] for item in got[1:] for row in item["events"][0]["trades"]}
    assert got[0]["events"] == [{"subscriptions": {"market_trades": ["ETH-USD"]}}]
    assert found == {"ETH-USD"}
    subscribed: set[str] = set()
    for request in requests:
        playback.recording.obey(json.dumps(request), subscribed)
    assert subscribed == {"market_trades", "market_trades:ETH-USD"}


def test_rest_knows_what_has_been_played(tmp_path: Path) -> None:
    recording = read_recording(binance_recording(tmp_path))
    played = next(
        number
        for number, frame in enumerate(recording.frames, 1)
        if '"s":"ETHUSDT","t":100,' in frame.text
    )

    def ids(path: str, **query: str) -> list[int]:
        status, body = recording.rest("api/v3/" + path, {"symbol": "ETHUSDT"} | query, played)
        assert status == 200
        return [row.get("id", row.get("a")) for row in json.loads(body)]

    assert ids("trades", limit="2") == [99, 100]
    assert ids("historicalTrades", fromId="71", limit="3") == [71, 72, 73]
    assert ids("aggTrades", fromId="90") == list(range(90, 101))
    row = json.loads(recording.rest("api/v3/trades", {"symbol": "ETHUSDT"}, 5)[1])[0]
    assert (row["price"], row["qty"], row["isBuyerMaker"]) == ("100.125", "0.025", False)
    assert json.loads(recording.rest("api/v3/time", {}, played)[1]) == {
        "serverTime": START_MS + 300
    }
    assert recording.rest("api/v3/trades", {"symbol": "ETHUSDT"}, 0)[0] == 400
    symbols = json.loads(recording.rest("api/v3/exchangeInfo", {}, 0)[1])["symbols"]
    assert [item["symbol"] for item in symbols] == ["BTCUSDT", "ETHUSDT"]


def test_coinbase_rest_gives_the_newest_trades_played(tmp_path: Path) -> None:
    recording = read_recording(coinbase_recording(tmp_path))

    def ids(played: int, **query: str) -> list[int]:
        path = "api/v3/brokerage/market/products/BTC-USD/ticker"
        rows = json.loads(recording.rest(path, query, played)[1])["trades"]
        return [int(row["trade_id"]) for row in rows]

    assert ids(0) == []
    assert ids(5, limit="2") == [8, 7]
    second = 1_786_309_500  # 2026-08-09 21:05:00 UTC
    assert ids(99, start=str(second + 10), end=str(second + 12)) == [11, 10]
    assert recording.rest("api/v3/brokerage/orders", {}, 0)[0] == 404


def test_a_later_client_continues_where_the_playback_is(tmp_path: Path) -> None:
    requests = [{"method": "SUBSCRIBE", "params": ["ethusdt@trade"], "id": 1}]
    with Playback(binance_recording(tmp_path), speed=2.0) as playback:
        first = asyncio.run(converse(playback, requests, 21))
        second = asyncio.run(converse(playback, requests, 5))
    last, following = (json.loads(texts[position])["data"]["t"] for texts, position in
                       ((first, -1), (second, 1)))  # fmt: skip
    assert last == 90
    assert following > last


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", "not a line", 'a, line 1: "<receive ns> <json>" is needed, found "not a line"'),
        ("a", '5 {"stream":"x@depth","data":{}}', "holds no trade"),
        ("a", binance_line(1, "ETHUSDT", 5) + "\n" + binance_line(2, "ETHUSDT", 7),
         r"1 trade\(s\) are missing"),
        ("a.jsonl", "not json", "a.jsonl, line 1: not a record"),
        ("a.jsonl", '{"t":"header"}', "holds no trade"),
    ],
)  # fmt: skip
def test_an_unusable_recording_is_explained(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        Playback([tmp_path / name])


def test_a_speed_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="positive, found 0"):
        Playback(binance_recording(tmp_path), speed=0.0)


# What was really recorded


@pytest.mark.slow
@pytest.mark.skipif(not BINANCE, reason="recorded Binance frames are not here")
def test_every_recorded_binance_trade_arrives() -> None:
    with Playback(BINANCE) as playback:
        wanted = {pair: set(playback.trade_ids(pair.replace("/", "")))
                  for pair in ("BTC/USDT", "ETH/USDT")}  # fmt: skip
        assert {pair: len(ids) for pair, ids in wanted.items()} == {
            "BTC/USDT": 19_904, "ETH/USDT": 14_515,
        }  # fmt: skip
        assert watch(ccxt.pro.binance, playback, wanted) == wanted


@pytest.mark.skipif(not COINBASE, reason="recorded Coinbase frames are not here")
def test_every_recorded_coinbase_trade_arrives() -> None:
    with Playback(COINBASE) as playback:
        wanted = {pair: set(playback.trade_ids(pair.replace("/", "-")))
                  for pair in ("BTC/USD", "ETH/USD")}  # fmt: skip
        assert {pair: len(ids) for pair, ids in wanted.items()} == {"BTC/USD": 147, "ETH/USD": 132}
        assert watch(ccxt.pro.coinbase, playback, wanted) == wanted
