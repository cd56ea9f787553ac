"""Past order flow: Binance's klines and freqtrade's trades become the same records, once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ccxt
import numpy as np
import pandas as pd
import pytest
from e2e import PAIRS, environment
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType, RunMode, TradingMode
from places import ROOT
from series import STEP_MS, make_candles, to_frame

from lstm_model.bot import configuration, flow_source
from lstm_model.durations import OLDEST_MS
from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import FLOW, TRADE, Records, timeframe_ms, unknown_flow
from lstm_model.market.flow_history import (
    PAGE,
    Klines,
    download,
    flow_of_klines,
    flow_of_trades_frame,
    span_of,
)
from lstm_model.market.flow_store import FlowStore
from lstm_model.market.tape import TradeTape
from lstm_model.practice.dialect import decimal
from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.practice.rest import answer
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import DAY_MS, Listing, Market

BEGIN_MS = 1_700_006_400_000  # a midnight, UTC; where the market begins
NOW_MS = BEGIN_MS + 2 * DAY_MS + 12_345
PAIR, SYMBOL = "BTC/USDT", "BTCUSDT"
MINUTE_MS = 60_000
SHARED = ("date_ms", "trades", "volume", "quote_volume", "taker_base", "taker_quote", "coverage")


@pytest.fixture(scope="module")
def market() -> Market:
    return synthetic_market(1, 2, start_ms=BEGIN_MS, now_ms=lambda: NOW_MS)


@pytest.fixture
def store(tmp_path: Path) -> FlowStore:
    return FlowStore(tmp_path / "flow")


class Asked:
    """Klines of a practice market, and what was asked for."""

    def __init__(self, market: Market, interval: str = "1m", symbol: str = SYMBOL) -> None:
        self.market, self.interval, self.symbol = market, interval, symbol
        self.queries: list[tuple[int, int]] = []
        self.rows = 0
        self.absent: set[int] = set()
        self.fails_at: int | None = None

    def __call__(self, start_ms: int, end_ms: int, limit: int) -> Any:
        if len(self.queries) == self.fails_at:
            raise DataError("the network is gone")
        self.queries.append((start_ms, end_ms))
        query = {
            "symbol": self.symbol, "interval": self.interval, "startTime": str(start_ms),
            "endTime": str(end_ms - 1), "limit": str(limit),
        }  # fmt: skip
        status, rows = answer(self.market, "klines", query)
        assert status == 200, rows
        rows = [row for row in rows if row[0] not in self.absent]
        self.rows += len(rows)
        return rows


def assert_exact(flow: Records, listing: Listing, timeframe: str) -> None:
    """Every number is the decimal fraction of the market's integers, to the last bit."""
    quote, step = listing.instrument, timeframe_ms(timeframe)
    truth = listing.candles(timeframe, NOW_MS, BEGIN_MS, NOW_MS, 100_000)
    closed = truth.open_ms + step <= NOW_MS
    price, amount = quote.price_decimals, quote.amount_decimals
    decimals = {
        "volume": amount, "quote_volume": price + amount, "trades": 0, "taker_base": amount,
        "taker_quote": price + amount,
    }  # fmt: skip
    assert flow["date_ms"].tolist() == truth.open_ms[closed].tolist()
    for name, places in decimals.items():
        units = getattr(truth, name)[closed]
        assert flow[name].tolist() == [float(decimal(int(unit), places)) for unit in units]
        assert np.rint(flow[name] * 10.0**places).astype(np.int64).tolist() == units.tolist()
    assert (flow["coverage"] == 1.0).all()


# Klines


def test_klines_become_flow_to_the_last_bit(market: Market) -> None:
    rows = Asked(market, "5m")(BEGIN_MS, NOW_MS // STEP_MS * STEP_MS, PAGE)
    flow = flow_of_klines(rows, PAIR, "5m")
    assert_exact(flow, market.listings[SYMBOL], "5m")
    assert np.isnan(flow["realized_volatility"]).all()


def kline(date_ms: int = STEP_MS, **columns: Any) -> list[Any]:
    values = {"volume": "2", "quote": "200.5", "trades": 3, "base": "1", "taken": "100"} | columns
    return [date_ms, "1", "1", "1", "1", values["volume"], date_ms + STEP_MS - 1, values["quote"],
            values["trades"], values["base"], values["taken"], "0"]  # fmt: skip


def test_a_candle_without_a_trade_is_known() -> None:
    row = kline(volume="0.0", quote="0", trades=0, base="0", taken="0")
    (record,) = flow_of_klines([row], PAIR, "5m")
    assert (record["trades"], record["volume"], record["coverage"]) == (0.0, 0.0, 1.0)


def test_no_klines_are_no_flow() -> None:
    assert flow_of_klines([], PAIR, "5m").shape == (0,)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [kline(), kline(2 * STEP_MS, volume="nan")],
            "1 unsound klines, first at .*T00:10",
        ),
        ([kline(quote="inf")], "1 unsound klines, first at 1970-01-01T00:05"),
        ([kline(taken="-1")], "unsound klines"),
        ([kline(volume="many")], "no klines of Binance's"),
        ([kline(volume=None)], "no klines of Binance's"),
        ([kline()[:9]], "no klines of Binance's"),
        (["gibberish"], "no klines of Binance's"),
        ([kline(), kline()], "1 klines out of order, first at 1970-01-01T00:05"),
        ([kline(3 * STEP_MS), kline()], "1 klines out of order, first at 1970-01-01T00:05"),
        ([kline(STEP_MS + 60_000)], "1 klines off the 5m grid, first at 1970-01-01T00:06"),
    ],
)
def test_nonsense_is_refused_by_pair_and_time(rows: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        flow_of_klines(rows, PAIR, "5m")
    assert str(caught.value).startswith("BTC/USDT: ")


# Downloading


def test_a_download_fills_the_store_and_the_next_one_asks_nothing(
    market: Market, store: FlowStore
) -> None:
    asked, shares = Asked(market), [0.0]
    download(PAIR, "1m", BEGIN_MS, NOW_MS, asked, store, shares.append)
    assert_exact(store.read(PAIR, "1m"), market.listings[SYMBOL], "1m")
    assert (len(asked.queries), asked.rows) == (3, 2_880)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    download(PAIR, "1m", BEGIN_MS, NOW_MS, asked, store)
    assert len(asked.queries) == 3


def test_the_open_candle_is_never_stored(market: Market, store: FlowStore) -> None:
    download(PAIR, "1h", BEGIN_MS, NOW_MS, Asked(market, "1h"), store)
    assert store.read(PAIR, "1h")["date_ms"][-1] == BEGIN_MS + 47 * 60 * MINUTE_MS


def test_an_interrupted_download_continues_where_it_stopped(
    market: Market, store: FlowStore
) -> None:
    asked = Asked(market)
    asked.fails_at = 2
    with pytest.raises(DataError, match="network"):
        download(PAIR, "1m", BEGIN_MS, NOW_MS, asked, store)
    assert len(store.read(PAIR, "1m")) == 2 * PAGE
    asked.fails_at = None
    download(PAIR, "1m", BEGIN_MS, NOW_MS, asked, store)
    assert asked.queries[2:] == [(BEGIN_MS + 2 * PAGE * MINUTE_MS, NOW_MS // MINUTE_MS * MINUTE_MS)]
    assert_exact(store.read(PAIR, "1m"), market.listings[SYMBOL], "1m")


def test_only_what_is_not_complete_is_asked_for(market: Market, store: FlowStore) -> None:
    download(PAIR, "1m", BEGIN_MS, NOW_MS - 5 * MINUTE_MS, Asked(market), store)
    asked = Asked(market)
    download(PAIR, "1m", BEGIN_MS, NOW_MS, asked, store)
    assert (len(asked.queries), asked.rows) == (1, 5)


def test_what_the_tape_missed_is_completed_and_what_it_has_stays(
    market: Market, store: FlowStore
) -> None:
    tape = unknown_flow(BEGIN_MS + MINUTE_MS * np.arange(40, 60))
    for name in ("trades", "volume", "quote_volume", "taker_base", "taker_quote", "largest"):
        tape[name] = 1.0
    tape["coverage"] = np.where(np.arange(20) % 2, 1.0, 0.7)
    store.write(PAIR, "1m", tape)
    asked = Asked(market)
    download(PAIR, "1m", BEGIN_MS + 40 * MINUTE_MS, BEGIN_MS + 60 * MINUTE_MS, asked, store)
    assert len(asked.queries) == 1
    flow = store.read(PAIR, "1m")
    assert (flow["coverage"] == 1.0).all()
    assert np.isnan(flow["largest"]).tolist() == [True, False] * 10


def test_candles_that_the_exchange_leaves_out_saw_no_trade_and_are_not_asked_for_again(
    market: Market, store: FlowStore
) -> None:
    asked = Asked(market)
    asked.absent = {BEGIN_MS + number * MINUTE_MS for number in (*range(50, 60), 999, 1_000)}
    for _ in range(2):
        download(PAIR, "1m", BEGIN_MS, NOW_MS, asked, store)
    assert len(asked.queries) == 3
    flow = store.read(PAIR, "1m")
    assert len(flow) == 2_880
    absent = np.isin(flow["date_ms"], list(asked.absent))
    assert (flow["trades"][absent] == 0.0).all()
    assert (flow["coverage"] == 1.0).all()


def test_before_a_pair_was_listed_nothing_is_known_and_little_is_asked(
    market: Market, store: FlowStore
) -> None:
    asked = Asked(market, "5m")
    for _ in range(2):
        download(PAIR, "5m", BEGIN_MS - 365 * DAY_MS, NOW_MS, asked, store)
    assert len(asked.queries) == 2
    assert_exact(store.read(PAIR, "5m"), market.listings[SYMBOL], "5m")


def test_an_answer_to_another_question_is_refused(market: Market, store: FlowStore) -> None:
    def stubborn(start_ms: int, end_ms: int, limit: int) -> Any:
        return Asked(market)(BEGIN_MS, NOW_MS, limit)

    with pytest.raises(DataError, match=r"BTC/USDT: asked for klines from 2023-11-15T01:00:00Z"):
        download(PAIR, "1m", BEGIN_MS + 60 * MINUTE_MS, NOW_MS, stubborn, store)
    assert len(store.read(PAIR, "1m")) == 0


def test_a_span_says_what_is_known(market: Market, store: FlowStore) -> None:
    download(PAIR, "1m", BEGIN_MS, BEGIN_MS + 30 * MINUTE_MS, Asked(market), store)
    span = span_of(store, PAIR, "1m", BEGIN_MS - 10 * MINUTE_MS, BEGIN_MS + 50 * MINUTE_MS)
    assert span == (PAIR, 30, 0.5, BEGIN_MS, BEGIN_MS + 29 * MINUTE_MS)
    assert span_of(store, "ETH/USDT", "1m", BEGIN_MS, NOW_MS) == ("ETH/USDT", 0, 0.0, None, None)
    assert span_of(store, PAIR, "1m", BEGIN_MS, BEGIN_MS).candles == 0


# Trades that freqtrade downloaded


def trades_frame(listing: Listing, start: int = 0, stop: int | None = None) -> pd.DataFrame:
    """Trades as freqtrade's `--dl-trades` stores them."""
    trades, quote = listing.trades, listing.instrument
    part = slice(start, listing.trades.due(NOW_MS) if stop is None else stop)
    price = trades.price[part] / 10**quote.price_decimals
    amount = trades.amount[part] / 10**quote.amount_decimals
    return pd.DataFrame(
        {
            "timestamp": trades.time_ms[part],
            "id": [str(number) for number in range(*part.indices(len(trades)))],
            "type": None,
            "side": np.where(trades.taker_buy[part], "buy", "sell"),
            "price": price,
            "amount": amount,
            "cost": price * amount,
        }
    )


def test_trades_give_the_same_flow_as_klines(market: Market) -> None:
    listing = market.listings[SYMBOL]
    frame = trades_frame(listing)
    ours = flow_of_trades_frame(frame, PAIR, "1m")
    rows = [*Asked(market)(BEGIN_MS, NOW_MS, PAGE), *Asked(market)(int(1.7e12), NOW_MS, PAGE)]
    klines = flow_of_klines(list({row[0]: row for row in rows}.values()), PAIR, "1m")
    assert ours["date_ms"][0] == BEGIN_MS + MINUTE_MS
    ours = ours[: len(klines) - 1]
    for name in SHARED:
        np.testing.assert_allclose(ours[name], klines[name][1 : 1 + len(ours)], rtol=1e-12)


def tape_of(listing: Listing) -> TradeTape:
    """The listing's trades as the stream would have recorded them."""
    count, quote = listing.trades.due(NOW_MS), listing.instrument
    trades = np.zeros(count, TRADE)
    trades["id"] = listing.trades.first_id + np.arange(count)
    trades["time_ms"] = listing.trades.time_ms[:count]
    trades["received_ns"] = trades["time_ms"] * 1_000_000
    trades["price"] = listing.trades.price[:count] / 10**quote.price_decimals
    trades["amount"] = listing.trades.amount[:count] / 10**quote.amount_decimals
    trades["taker_buy"] = listing.trades.taker_buy[:count]
    tape = TradeTape(PAIR, MINUTE_MS, capacity=1_000, candles=3_000)
    tape.watch_from(BEGIN_MS)
    for page in np.array_split(trades, 100):
        tape.extend(page)
    return tape


def test_the_tape_says_of_a_closed_candle_what_its_kline_says(
    market: Market, store: FlowStore
) -> None:
    download(PAIR, "1m", BEGIN_MS, NOW_MS, Asked(market), store)
    klines = store.read(PAIR, "1m")
    tape = tape_of(market.listings[SYMBOL]).flow(BEGIN_MS, NOW_MS // MINUTE_MS * MINUTE_MS)
    for name in SHARED:
        assert tape[name].tolist() == klines[name].tolist()
    store.write(PAIR, "1m", tape)
    assert store.read(PAIR, "1m").tobytes() == klines.tobytes()


def test_the_tape_says_what_downloaded_trades_say(market: Market) -> None:
    listing = market.listings[SYMBOL]
    ours = flow_of_trades_frame(trades_frame(listing), PAIR, "1m")
    tape = tape_of(listing).flow(int(ours["date_ms"][0]), int(ours["date_ms"][-1]) + MINUTE_MS)
    for name in FLOW.names or ():
        np.testing.assert_allclose(ours[name], tape[name], rtol=1e-6)


def test_volatility_and_the_largest_trade_come_from_the_trades(market: Market) -> None:
    frame = trades_frame(market.listings[SYMBOL], 0, 5_000)
    flow = flow_of_trades_frame(frame, PAIR, "5m")
    assert len(flow) > 3
    for record in flow:
        inside = frame[frame["timestamp"] // STEP_MS * STEP_MS == record["date_ms"]]
        moves = np.diff(np.log(inside["price"].to_numpy()))
        assert record["realized_volatility"] == pytest.approx(np.sqrt((moves**2).sum()), rel=1e-12)
        assert record["largest"] == inside["amount"].max()


def some_trades() -> pd.DataFrame:
    candles, after = np.array([0, 1, 1, 3, 3, 4, 5]), np.array([STEP_MS - 5, 0, 0, 0, 7, 0, 0])
    return pd.DataFrame(
        {
            "timestamp": candles * STEP_MS + after, "id": list("abcdefg"), "type": None,
            "side": ["buy", "buy", "sell", "sell", "buy", "buy", "buy"],
            "price": [10.0, 10.0, 11.0, 10.0, 10.0, 9.0, 8.0], "amount": 2.0, "cost": 20.0,
        }
    )  # fmt: skip


def test_the_edges_are_left_out_and_quiet_candles_are_known() -> None:
    flow = flow_of_trades_frame(some_trades(), PAIR, "5m")
    assert flow["date_ms"].tolist() == [STEP_MS, 2 * STEP_MS, 3 * STEP_MS, 4 * STEP_MS]
    assert flow["trades"].tolist() == [2.0, 0.0, 2.0, 1.0]
    assert flow["taker_base"].tolist() == [2.0, 0.0, 2.0, 2.0]
    assert flow["taker_quote"].tolist() == [20.0, 0.0, 20.0, 18.0]
    assert flow["largest"].tolist() == [2.0, 0.0, 2.0, 2.0]
    assert flow["coverage"].tolist() == [1.0] * 4
    assert flow["realized_volatility"].tolist() == [pytest.approx(np.log(1.1)), 0.0, 0.0, 0.0]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_without_a_whole_candle_there_is_no_flow(count: int) -> None:
    flow = flow_of_trades_frame(some_trades().iloc[:count], PAIR, "5m")
    assert (flow.dtype, len(flow)) == (FLOW, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price": np.nan}, "1 trades without a sound time, price and amount"),
        ({"amount": 0.0}, "1 trades without a sound time, price and amount"),
        ({"timestamp": 0}, "1 trades without a sound time"),
        ({"timestamp": STEP_MS - 1}, "1 trades out of order, first at 1970-01-01T00:04:59"),
        ({"side": None}, "1 trades whose side is neither buy nor sell"),
        ({"timestamp": STEP_MS, "id": "c"}, "1 double trades, first at 1970-01-01T00:05"),
    ],
)
def test_trades_that_cannot_be_true_are_refused(change: dict[str, Any], words: str) -> None:
    frame = some_trades()
    for name, value in change.items():
        frame.loc[3, name] = value
    with pytest.raises(DataError, match=f"BTC/USDT: {words}"):
        flow_of_trades_frame(frame, PAIR, "5m")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match=r"BTC/USDT: the trades lack the column.* side"):
        flow_of_trades_frame(some_trades().drop(columns="side"), PAIR, "5m")


# By way of freqtrade


def config_of(datadir: Path, exchange: str = "binance", **lstm: Any) -> dict[str, Any]:
    return {
        "datadir": datadir, "timeframe": "5m", "runmode": RunMode.UTIL_NO_EXCHANGE,
        "exchange": {"name": exchange, "pair_whitelist": [PAIR]}, "lstm": lstm,
        "trading_mode": TradingMode.SPOT,
    }  # fmt: skip


def ignore(pair: str, share: float) -> None:
    """Nobody watches."""


def test_trades_in_the_data_directory_serve_where_klines_know_no_flow(
    market: Market, tmp_path: Path
) -> None:
    config = config_of(tmp_path, "kraken")
    config["exchange"]["pair_whitelist"] = ["(BTC|ETH)/USDT"]
    frame = trades_frame(market.listings[SYMBOL])
    get_datahandler(tmp_path, "feather").trades_store(PAIR, frame, TradingMode.SPOT)
    (known,) = flow_source.download_flow(config, (BEGIN_MS, NOW_MS), ignore)
    wanted = flow_of_trades_frame(frame, PAIR, "5m")
    assert (known.pair, known.candles) == (PAIR, len(wanted))
    assert configuration.flow_store(config).read(PAIR, "5m").tobytes() == wanted.tobytes()


def test_where_there_is_no_history_of_flow_it_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kraken.*Binance's klines.*--dl-trades.*from now on"):
        list(flow_source.download_flow(config_of(tmp_path, "kraken"), (0, 1), ignore))


def test_a_pair_without_downloaded_trades_is_named(market: Market, tmp_path: Path) -> None:
    config = config_of(tmp_path, "kraken") | {"pairs": ["XRP/USDT"]}
    frame = trades_frame(market.listings[SYMBOL], 0, 10)
    get_datahandler(tmp_path, "feather").trades_store(PAIR, frame, TradingMode.SPOT)
    with pytest.raises(ConfigError, match="XRP/USDT: not among the downloaded trades"):
        list(flow_source.download_flow(config, (BEGIN_MS, NOW_MS), ignore))


def test_the_span_reaches_as_far_as_training_does_and_ends_before_the_open_candle(
    tmp_path: Path,
) -> None:
    start, end = flow_source.flow_span(config_of(tmp_path, train_candles=1_000), NOW_MS, None, None)
    assert NOW_MS - 61_000 < end <= NOW_MS - 60_000
    assert (end - start) // STEP_MS > 1_000 + 8_064
    assert flow_source.flow_span(config_of(tmp_path), NOW_MS, 3, None) == (end - 3 * DAY_MS, end)
    span = flow_source.flow_span(config_of(tmp_path), NOW_MS, None, "20231101-20231102")
    assert span == (1_698_796_800_000, 1_698_883_200_000)
    assert flow_source.flow_span(config_of(tmp_path), NOW_MS, None, "20231101-20300101")[1] == end


@pytest.mark.parametrize(
    ("days", "timerange", "words"), [(3, "20231101-", "not both"), (None, "lately", "lately")]
)
def test_a_span_that_cannot_be_read_is_refused(
    tmp_path: Path, days: int | None, timerange: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        flow_source.flow_span(config_of(tmp_path), NOW_MS, days, timerange)


def test_a_span_begins_no_earlier_than_any_market_and_has_candles(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    for days, timerange in ((36_500, None), (None, "18491118-")):
        assert flow_source.flow_span(config, NOW_MS, days, timerange)[0] == OLDEST_MS
    with pytest.raises(ConfigError, match="no candle yet in the time range 20300101-20300102"):
        flow_source.flow_span(config, NOW_MS, None, "20300101-20300102")


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # freqtrade's, with pandas 3
@pytest.mark.parametrize("order_flow", [True, False])
def test_candles_from_disk_carry_the_stored_flow_when_it_is_wanted(
    tmp_path: Path, order_flow: bool
) -> None:
    config = config_of(tmp_path, order_flow=order_flow)
    candles = make_candles(20)
    handler = get_datahandler(tmp_path, "feather")
    handler.ohlcv_store(PAIR, "5m", to_frame(candles), CandleType.SPOT)
    flow = unknown_flow(candles.date_ms[5:])
    flow["trades"] = flow["volume"] = flow["quote_volume"] = 1.0
    flow["taker_base"] = flow["taker_quote"] = flow["coverage"] = 0.5
    configuration.flow_store(config).write(PAIR, "5m", flow)
    loaded = configuration.load_candles(config, PAIR)
    assert loaded is not None
    if order_flow:
        assert loaded.flow is not None
        assert loaded.flow["coverage"].tolist() == [0.0] * 5 + [0.5] * 15
    else:
        assert loaded.flow is None


# Through ccxt


@pytest.fixture
def client_of() -> Iterator[Callable[[str], Any]]:
    """Makes ccxt's Binance at a URL, as freqtrade configures it."""
    clients = []

    def make(url: str) -> Any:
        clients.append(ccxt.binance(loopback_overlay(url)["exchange"]["ccxt_config"]))
        return clients[-1]

    yield make
    for client in clients:
        client.session.close()


def raw(client: Any) -> Klines:
    return flow_source.raw_klines(client, SYMBOL, "1m", futures=False)


def test_klines_travel_from_a_real_server_into_the_store_to_the_last_bit(
    market: Market, store: FlowStore, client_of: Callable[[str], Any]
) -> None:
    with LoopbackExchange(market) as exchange:
        download(PAIR, "1m", BEGIN_MS, NOW_MS, raw(client_of(exchange.url)), store)
    assert_exact(store.read(PAIR, "1m"), market.listings[SYMBOL], "1m")


class Grumpy(BaseHTTPRequestHandler):
    """Refuses with each of the server's answers in turn, then gives one kline."""

    def do_GET(self) -> None:
        answers: list[tuple[int, Any]] = self.server.answers  # type: ignore[attr-defined]
        status, body = answers.pop(0) if answers else (200, [kline(0)])
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def grumpy() -> Iterator[Callable[..., str]]:
    """A server that first gives these answers; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Grumpy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def begin(*answers: tuple[int, Any]) -> str:
        server.answers = list(answers)  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield begin
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [418, 429, 503])
def test_a_limited_request_is_repeated_after_a_pause(
    grumpy: Callable[..., str], client_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:  # fmt: skip
    pauses: list[float] = []
    monkeypatch.setattr("freqtrade.exchange.common.time.sleep", pauses.append)
    busy = (status, {"code": -1003, "msg": "Too many requests."})
    klines = raw(client_of(grumpy(busy, busy)))
    assert klines(0, MINUTE_MS, PAGE)[0][0] == 0
    assert pauses == [1, 2]


def test_an_exchange_that_stays_limited_is_given_a_minute(
    grumpy: Callable[..., str], client_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("freqtrade.exchange.common.time.sleep", pauses.append)
    klines = raw(client_of(grumpy(*[(429, {})] * 20)))
    with pytest.raises(DataError, match=r"BTCUSDT: no klines.*continues from there"):
        klines(0, MINUTE_MS, PAGE)
    assert 60 <= sum(pauses) < 90


def test_a_refused_request_is_not_repeated(
    grumpy: Callable[..., str], client_of: Callable[[str], Any]
) -> None:
    refusal = (400, {"code": -1121, "msg": "Invalid symbol."})
    with pytest.raises(DataError, match=r"BTCUSDT: no klines \(BadSymbol.*Invalid symbol"):
        raw(client_of(grumpy(refusal)))(0, MINUTE_MS, PAGE)


@pytest.mark.long
@pytest.mark.e2e
def test_the_command_downloads_once_and_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "data" / "binance").mkdir(parents=True)
    overlay = tmp_path / "overlay.json"

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "lstm_model", "download-flow", "-c", "config.json",
             "-c", str(overlay), "--userdir", str(tmp_path), *words],
            cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    with LoopbackExchange(open_market("synthetic", days=2)) as exchange:
        options = loopback_overlay(exchange.url)
        options["exchange"]["pair_whitelist"] = PAIRS[:2]
        overlay.write_text(json.dumps(options))
        code, text = run("-t", "1m", "--days", "1")
        assert code == 0, text
        for pair in PAIRS[:2]:
            assert f"{pair}: order flow of 1,439 candles, 100.0% of the range covered" in text
        store = FlowStore(tmp_path / "data" / "binance" / "flow")
        before = store.read(PAIR, "1m")
        assert (before["coverage"] == 1.0).all()
        assert run("--days", "1", "-p", "XRP/USDT", "-t", "15m")[0] == 0
        assert len(store.read("XRP/USDT", "15m")) == 95
        code, text = run("-p", "NIX/USDT")
        assert code == 1
        assert "Error: NIX/USDT: not traded on Binance" in text
    code, text = run("-t", "1m")
    assert code == 1
    assert "is it reachable?" in text
    assert store.read(PAIR, "1m").tobytes() == before.tobytes()
