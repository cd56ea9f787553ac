"""Recorded raw websocket frames: which of them a client gets, and what REST says meanwhile.

Two formats. Binance: lines of `<receive ns> <combined-stream json>`. Coinbase Advanced Trade, as
cryptofeed records it: lines of JSON whose "t" says whether they are a REST answer ("http") or a
received frame ("recv").
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from lstm_model.errors import DataError
from lstm_model.practice.dialect import Json
from lstm_model.practice.recorded import split_symbol
from lstm_model.practice.rest import answer
from lstm_model.practice.tape_market import Instrument, Listing, Trades, make_market

_PRODUCTS = "api/v3/brokerage/market/products"
# Coinbase subscribes to "level2" and sends "l2_data".
_CHANNELS = {"l2_data": "level2"}


@dataclass(frozen=True, slots=True)
class Frame:
    """What came at one moment; who listens to one of its `streams` gets exactly `text`."""

    received_ns: int
    streams: frozenset[str]
    text: str


class Recording(Protocol):
    """Frames of one exchange, in the order in which they were received."""

    @property
    def frames(self) -> Sequence[Frame]:
        """All of them."""

    def trade_ids(self, symbol: str) -> list[int]:
        """The recorded trades of one symbol, rising."""

    def obey(self, text: str, subscribed: set[str]) -> Json:
        """Change what a client listens to as its request says; the answer to it."""

    def rest(self, path: str, query: Mapping[str, str], played: int) -> tuple[int, str]:
        """Status and body of a request after the first `played` frames."""

    def urls(self, rest: str, websocket: str) -> Json:
        """ccxt's `urls` for this exchange on a server of ours."""


def read_recording(paths: Sequence[Path]) -> Recording:
    """Read recordings of one exchange, in whatever order they are named.

    Parameters
    ----------
    paths : `*.jsonl` or `*.jsonl.zst` of Coinbase, anything else, gzipped or not, of Binance

    Raises
    ------
    DataError
        For a line that cannot be read, no trade at all, and trades that are missing in between.
    """
    if all(".jsonl" in path.name for path in paths):
        return CoinbaseRecording(paths)
    return BinanceRecording(paths)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line with its place in words."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", line.decode().strip()


def _open(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            return io.BytesIO(stream.read())
    return path.open("rb")


class BinanceRecording:
    """Combined streams of Binance, with the REST interface of the market they came from."""

    def __init__(self, paths: Sequence[Path]) -> None:
        found = [frame for path in paths for frame in _binance_frames(path)]
        self.frames = sorted(found, key=lambda frame: frame.received_ns)
        trades, times_ms = self._trades()
        self._listings = [_listing(symbol, rows) for symbol, rows in sorted(trades.items())]
        # Before the first trade: an exchange on which nothing has happened yet.
        self._times_ms = list(accumulate(times_ms, max, initial=min(filter(None, times_ms)) - 1))

    def _trades(self) -> tuple[dict[str, dict[int, Json]], list[int]]:
        """Trades by symbol and id, and per frame the time of its trade, 0 for another frame."""
        trades: dict[str, dict[int, Json]] = {}
        times_ms = []
        for frame in self.frames:
            body = _trade(frame)
            times_ms.append(body["T"] if body else 0)
            if body:
                trades.setdefault(body["s"], {})[body["t"]] = body
        if not trades:
            raise DataError("the recording holds no trade; streams like btcusdt@trade are needed")
        return trades, times_ms

    def trade_ids(self, symbol: str) -> list[int]:
        """The recorded trades of one symbol, rising."""
        tapes = {item.instrument.symbol: item.trades for item in self._listings}
        return list(range(tapes[symbol].first_id, tapes[symbol].first_id + len(tapes[symbol])))

    def obey(self, text: str, subscribed: set[str]) -> Json:
        """SUBSCRIBE and UNSUBSCRIBE."""
        request = json.loads(text)
        _change(subscribed, request["method"] == "SUBSCRIBE", request.get("params", []))
        return {"result": None, "id": request["id"]}

    def rest(self, path: str, query: Mapping[str, str], played: int) -> tuple[int, str]:
        """Whatever the loopback exchange answers, of the trades in the first `played` frames."""
        market = make_market(self._listings, lambda: self._times_ms[played])
        status, body = answer(market, path.removeprefix("api/v3/"), query)
        return status, json.dumps(body)

    def urls(self, rest: str, websocket: str) -> Json:
        """ccxt's `urls` for this exchange on a server of ours."""
        api, socket = f"{rest}/api/v3", {"spot": f"{websocket}/stream"}
        return {"api": {"public": api, "private": api, "ws": socket}}


def _change(subscribed: set[str], more: bool, names: Iterable[str]) -> None:
    if more:
        subscribed.update(names)
    else:
        subscribed.difference_update(names)


def _binance_frames(path: Path) -> Iterator[Frame]:
    for place, line in _lines(path):
        received, _, text = line.partition(" ")
        if not received.isdigit() or not text.startswith("{"):
            raise DataError(f'{place}: "<receive ns> <json>" is needed, found "{line[:40]}"')
        # Recorders also keep order books fetched by REST, which belong to no stream.
        if text.startswith('{"stream":"'):
            yield Frame(int(received), frozenset({text.split('"', 4)[3]}), text)


def _trade(frame: Frame) -> Json:
    is_trade = any(name.endswith("@trade") for name in frame.streams)
    return json.loads(frame.text)["data"] if is_trade else None


def _listing(symbol: str, rows: dict[int, Json]) -> Listing:
    """The recorded trades as a tape, which knows no gaps."""
    ids = sorted(rows)
    if missing := ids[-1] - ids[0] + 1 - len(ids):
        raise DataError(f"{symbol}: {missing} trade(s) are missing between the first and the last")
    prices, amounts = ([rows[number][name] for number in ids] for name in "pq")
    price_decimals, amount_decimals = _decimals(prices), _decimals(amounts)
    trades = Trades(
        time_ms=np.array([rows[number]["T"] for number in ids], np.int64),
        price=_integers(prices, price_decimals),
        amount=_integers(amounts, amount_decimals),
        taker_buy=np.array([not rows[number]["m"] for number in ids], np.bool_),
        first_id=ids[0],
    )
    base, quote = split_symbol(symbol)
    return Listing(Instrument(base, quote, price_decimals, amount_decimals), trades)


def _decimals(texts: Sequence[str]) -> int:
    """How many decimals are used; Binance always writes eight."""
    return max(len(text.rstrip("0").partition(".")[2]) for text in texts)


def _integers(texts: Sequence[str], decimals: int) -> Any:
    return np.rint(np.array(texts, np.float64) * 10.0**decimals).astype(np.int64)


class CoinbaseRecording:
    """Frames of Coinbase Advanced Trade and its list of products."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.frames: list[Frame] = []
        self._products = '{"products": []}'
        self._rows: list[tuple[int, Json]] = []  # trades with the position of their frame
        for path in paths:
            for place, line in _lines(path):
                self._read(place, line)
        if not self._rows:
            raise DataError("the recording holds no trade; the channel market_trades is needed")

    def _read(self, place: str, line: str) -> None:
        try:
            record = json.loads(line)
            if record["t"] == "http" and record["url"].endswith("/" + _PRODUCTS):
                self._products = record["data"]
            if record["t"] == "recv":
                self._receive(int(record["ts"] * 1e9), record["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{place}: not a record of a frame ({error!r})") from None

    def _receive(self, received_ns: int, text: str) -> None:
        message = json.loads(text)
        if message["channel"] == "market_trades":
            rows = (row for event in message["events"] for row in event["trades"])
            self._rows += ((len(self.frames), row) for row in rows)
        self.frames.append(Frame(received_ns, frozenset(_coinbase_streams(message)), text))

    def trade_ids(self, symbol: str) -> list[int]:
        """The recorded trades of one product, rising."""
        rows = (row for _, row in self._rows if row["product_id"] == symbol)
        return sorted({int(row["trade_id"]) for row in rows})

    def obey(self, text: str, subscribed: set[str]) -> Json:
        """The requests subscribe and unsubscribe."""
        request = json.loads(text)
        products, channel = request.get("product_ids", []), request["channel"]
        names = [channel, *(f"{channel}:{product}" for product in products)]
        _change(subscribed, request["type"] == "subscribe", names)
        events = [{"subscriptions": {channel: products}}]
        return {"channel": "subscriptions", "timestamp": "", "sequence_num": 0, "events": events}

    def rest(self, path: str, query: Mapping[str, str], played: int) -> tuple[int, str]:
        """Products, the trades in the first `played` frames, and nothing of the rest."""
        if path == _PRODUCTS:
            return 200, '{"products": []}' if "product_type" in query else self._products
        if path.startswith(_PRODUCTS) and path.endswith("/ticker"):
            return 200, json.dumps({"trades": self._newest(path.split("/")[-2], query, played)})
        if path in ("v2/currencies", "v2/currencies/crypto"):
            return 200, '{"data": []}'
        if path == "v2/exchange-rates":
            return 200, '{"data": {"currency": "USD", "rates": {}}}'
        return 404, '{"error": "not_found", "error_description": "not recorded"}'

    def _newest(self, product: str, query: Mapping[str, str], played: int) -> list[Json]:
        start_s, end_s = (float(query.get(*given)) for given in (("start", "-inf"), ("end", "inf")))
        rows = {
            int(row["trade_id"]): row
            for position, row in self._rows
            if position < played and row["product_id"] == product
            if start_s <= _time_s(row) <= end_s
        }
        newest = sorted(rows, reverse=True)[: int(query.get("limit", "100"))]
        return [rows[number] for number in newest]

    def urls(self, rest: str, websocket: str) -> Json:
        """ccxt's `urls` for this exchange on a server of ours."""
        return {"api": {"rest": rest, "ws": websocket}}


def _coinbase_streams(message: Json) -> Iterator[str]:
    """`channel:product` for everything a message is about, the channel alone if for everybody."""
    channel = _CHANNELS.get(message["channel"], message["channel"])
    if channel == "heartbeats":
        yield channel
    for event in message["events"]:
        parts = [event, *(row for rows in event.values() if isinstance(rows, list) for row in rows)]
        for part in parts:
            if isinstance(part, dict) and "product_id" in part:
                yield f"{channel}:{part['product_id']}"


def _time_s(row: Json) -> float:
    return datetime.fromisoformat(row["time"]).timestamp()
