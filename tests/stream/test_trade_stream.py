"""The trade stream against a healthy exchange: complete, fresh, and gone when it is stopped."""

import logging
import math
import socket
import threading
import time
from dataclasses import replace
from typing import Any, ClassVar

import ccxt
import ccxt.pro
import numpy as np
import pytest
from ccxt.async_support.base.ws.cache import ArrayCache
from trade_market import (
    PAIRS,
    QUICK,
    Faults,
    NotesRequests,
    busy_market,
    client_of,
    complete,
    following,
    ids_of,
    until,
    until_fresh,
)

from lstm_model.market.gaps import Gap
from lstm_model.market.tape import TradeTape
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.settings import Settings
from lstm_model.stream import customs as ports
from lstm_model.stream.backfill import spans
from lstm_model.stream.connection import Refusal
from lstm_model.stream.customs import Customs, binance_trade, customs_of
from lstm_model.stream.switchboard import regroup
from lstm_model.stream.timing import Backoff
from lstm_model.stream.trade_feed import (
    ExchangeClock,
    Track,
    TradeFeed,
    records,
    trade_number,
)
from lstm_model.stream.trade_stream import TradeStream

NOW_MS = time.time_ns() // 1_000_000


# Without an exchange


def raw(number: Any = "5", **changes: Any) -> dict[str, Any]:
    trade = {"id": number, "timestamp": NOW_MS, "price": 100.0, "amount": 0.5, "side": "buy"}
    return trade | changes


@pytest.mark.parametrize("name", ["12", "9223372036854775807", 12])
def test_plain_numbers_stay_what_they_are(name: Any) -> None:
    assert trade_number(name) == int(name)


@pytest.mark.parametrize("name", ["a1", "1.5", "-3", "9223372036854775808", "0x1f"])
def test_other_ids_become_the_same_number_each_time(name: str) -> None:
    assert 0 <= trade_number(name) == trade_number(name) < 2**63


@pytest.mark.parametrize("name", [None, ""])
def test_a_trade_needs_an_id(name: Any) -> None:
    with pytest.raises(ValueError, match="without an id"):
        trade_number(name)


BROKEN: list[dict[str, Any]] = [
    {"id": None}, {"id": ""}, {"price": None}, {"price": math.nan}, {"price": -1.0},
    {"price": "7"}, {"amount": 0.0}, {"amount": math.inf}, {"timestamp": None},
    {"timestamp": NOW_MS + 200_000_000}, {"timestamp": 5},
]  # fmt: skip


@pytest.fixture
def track() -> Track:
    feed = TradeFeed(None, lambda work: None)
    feed.clock.best_ms = -10
    feed.tick()
    feed.begin_frame()
    return Track("BTC/USDT", TradeTape("BTC/USDT", 60_000), feed)


@pytest.mark.parametrize("changes", BROKEN)
def test_broken_trades_are_turned_away_and_counted(track: Track, changes: dict[str, Any]) -> None:
    track.take(raw(**changes))
    assert (track.tape.counts.trades, track.tape.counts.rejected) == (0, 1)


@pytest.mark.parametrize("changes", BROKEN[:-3])
def test_broken_trades_of_rest_are_left_out(changes: dict[str, Any]) -> None:
    assert records([raw(**changes), raw("7")], Customs(), 1)["id"].tolist() in ([7], [5, 7])
    assert len(records([raw(**changes)], Customs(), 1)) <= (changes == {"price": "7"})


def test_binance_wraps_its_frames_or_not() -> None:
    frame = {"e": "trade", "s": "X", "t": 7, "p": "0.5", "q": "2", "T": 9, "m": False}
    assert binance_trade(frame) == binance_trade({"stream": "x@trade", "data": frame}) is not None


@pytest.mark.parametrize(
    "frame",
    [7, [], {"result": None, "id": 1}, {"stream": "x", "data": {"e": "kline"}}, {"data": [{}]}],
)
def test_other_frames_are_left_to_ccxt(frame: Any) -> None:
    assert binance_trade(frame) is None


def test_trades_of_rest_come_in_order_and_an_aggregate_as_the_trades_in_it() -> None:
    aggregate = raw("90", timestamp=NOW_MS + 1, amount=1.5, side="sell", info={"f": 11, "l": 13})
    found = records([aggregate, raw("10")], Customs(), 7)
    assert found["id"].tolist() == [10, 11, 12, 13]
    assert found["amount"].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert found["taker_buy"].tolist() == [True, False, False, False]
    assert set(found["received_ns"]) == {7}


def test_coinbase_names_the_side_of_the_maker(track: Track) -> None:
    track.feed.customs = customs_of("coinbase")
    track.take(raw(side="sell"))
    assert track.tape.trades(0, 2**62)["taker_buy"].tolist() == [True]
    assert records([raw(side="sell")], customs_of("coinbase"), 1)["taker_buy"].tolist() == [True]


def test_without_a_side_the_price_tells_it(track: Track) -> None:
    prices = (100.0, 101.0, 101.0, 100.5, 100.5, 100.6)
    for number, price in enumerate(prices, 1):
        track.take(raw(str(number), price=price, side=None))
    wanted = [True] * 3 + [False] * 2 + [True]
    assert track.tape.trades(0, 2**62)["taker_buy"].tolist() == wanted
    page = [raw(str(number), price=price, side=None) for number, price in enumerate(prices, 1)]
    assert records(page, Customs(), 1)["taker_buy"].tolist() == wanted


def test_one_trade_from_the_future_does_not_move_the_clock() -> None:
    clock = ExchangeClock()
    assert not clock.measured
    for delta_ms in (-40, -12, -15, 50_000, -13):
        clock.best_ms = delta_ms
        clock.tick()
    assert clock.offset_ms == -12
    assert clock.measured


def test_frames_that_come_late_are_noticed() -> None:
    clock = ExchangeClock()
    for delta_ms in (-10, -12, -3_010):
        clock.best_ms = delta_ms
        clock.tick()
    assert clock.lag_ms == 2_998


def test_backoff_grows_to_its_limit_and_begins_anew() -> None:
    backoff = Backoff(0.5, 30.0)
    waits = [backoff.next_s() for _ in range(40)]
    assert 0.25 <= waits[0] <= 0.5
    assert all(15.0 <= wait <= 30.0 for wait in waits[8:])
    backoff.reset()
    assert backoff.next_s() <= 0.5


def test_gaps_near_each_other_are_asked_for_together() -> None:
    gaps = [Gap(50, 60, 10, 20), Gap(5, 5, 1, 2), Gap(None, None, 0, 9), Gap(9_000, 9_000, 50, 60),
            Gap(None, None, 5_000, 6_000), Gap(None, None, 100_000, 100_001)]  # fmt: skip
    assert spans(gaps) == [
        Gap(5, 60, 1, 20), Gap(9_000, 9_000, 50, 60),
        Gap(None, None, 0, 6_000), Gap(None, None, 100_000, 100_001),
    ]  # fmt: skip


def test_groups_stay_together_unless_they_have_become_too_many() -> None:
    assert regroup("ab", [], 200) == [frozenset("ab")]
    assert regroup("abc", ["ab"], 2) == [frozenset("ab"), frozenset("c")]
    assert regroup("bc", ["ab"], 2) == [frozenset("bc")]
    assert regroup("abcd", ["ax", "bx", "cx", "dx"], 4) == [frozenset("abcd")]
    assert regroup("", ["ab"], 2) == []


def test_a_refusal_tells_no_address() -> None:
    error = ccxt.ExchangeError("binance GET https://host/path?signature=abc")
    assert str(Refusal(error)) == "ExchangeError"
    assert Refusal(error).passing
    assert not Refusal(ccxt.AuthenticationError("key")).passing


# With an exchange


@pytest.fixture(autouse=True)
def no_thread_left() -> Any:
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


def test_every_trade_arrives_and_on_trades_hears_of_it() -> None:
    heard: list[tuple[str, set[str]]] = []

    def on_trades(pairs: set[str]) -> None:
        heard.append((threading.current_thread().name, pairs))

    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, on_trades=on_trades) as stream,
    ):
        until_fresh(stream)
        time.sleep(0.3)
        until(lambda: all(complete(exchange, stream, pair) for pair in PAIRS[:2]))
        tape = stream.tapes["AAA/USDT"]
        assert tape.ids_consecutive
        assert tape.counts.missing == tape.counts.rejected == 0
        assert abs(stream.exchange_now_ms() - time.time() * 1000) < 200
        flow = tape.flow(0, tape.last_time_ms + 1)
        assert 0.0 < flow["coverage"][0] < 1.0  # the page at the start reaches 16 s back
        assert set(flow["coverage"][1:]) <= {1.0}  # of a minute that began meanwhile
    assert {name for name, _ in heard} == {"lstm-stream"}
    assert set().union(*(pairs for _, pairs in heard)) == set(PAIRS[:2])
    assert not stream.news


def test_the_whitelist_changes_without_a_lost_trade() -> None:
    with LoopbackExchange(busy_market()) as exchange, following(exchange) as stream:
        until_fresh(stream)
        kept, first = stream.tapes["BBB/USDT"], ids_of(stream, "BBB/USDT")[0]
        stream.follow(PAIRS[1:])
        assert set(stream.tapes) == set(PAIRS[1:])
        until_fresh(stream)
        until(lambda: exchange.open_connections == 1)
        assert exchange.log.connections == 2
        until(lambda: complete(exchange, stream, "BBB/USDT", first))
        until(lambda: complete(exchange, stream, "CCC/USDT"))
        assert stream.tapes["BBB/USDT"] is kept
        assert kept.counts.gaps == 0
        assert stream.freshness("AAA/USDT").reason == "not followed"
        stream.follow([])
        until(lambda: exchange.open_connections == 0)


def test_a_pair_that_leaves_and_comes_back_at_once() -> None:
    with LoopbackExchange(busy_market()) as exchange, following(exchange) as stream:
        until_fresh(stream)
        left = stream.tapes["AAA/USDT"]
        stream.follow(PAIRS[1:2])
        stream.follow(PAIRS[:2])
        assert stream.tapes["AAA/USDT"] is not left
        until_fresh(stream)
        until(lambda: exchange.open_connections == 1)
        until(lambda: all(complete(exchange, stream, pair) for pair in PAIRS[:2]))


@pytest.mark.lengthy
def test_stop_and_start_again() -> None:
    with LoopbackExchange(busy_market()) as exchange, following(exchange) as stream:
        until_fresh(stream)
        first = ids_of(stream, "AAA/USDT")[0]
        stream.start()
        stream.stop()
        stream.stop()
        until(lambda: exchange.open_connections == 0)
        assert stream.freshness("AAA/USDT").reason == "no connection"
        time.sleep(0.3)
        stream.start()
        until_fresh(stream)
        until(lambda: complete(exchange, stream, "AAA/USDT", first))


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.4])
def test_stop_while_nobody_answers(pause_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        exchange = LoopbackExchange(busy_market(1.0), silent.getsockname()[1])
        with following(exchange):
            time.sleep(pause_s)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5.0
        exchange._loop.close()


def test_an_exchange_that_is_not_there_yet(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    exchange = LoopbackExchange(busy_market(), port)
    with following(exchange) as stream:
        until(lambda: "cannot be read" in caplog.text)
        assert stream.freshness("AAA/USDT").reason == "not watched yet"
        with exchange:
            until_fresh(stream)
            until(lambda: complete(exchange, stream, "AAA/USDT"))
            stream.stop()


def test_a_pair_the_exchange_does_not_know_is_told_once() -> None:
    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, ["NOPE/USDT", "AAA/USDT"]) as stream,
    ):
        until(lambda: stream.freshness("AAA/USDT").fresh)
        assert stream.freshness("NOPE/USDT").reason == "not known to the exchange"
        stream.follow(["NOPE/USDT", "AAA/USDT", "BBB/USDT"])
        until(lambda: stream.freshness("BBB/USDT").fresh)
        assert len(stream.news) == 1
        assert "NOPE/USDT" in stream.news[0]


def test_more_pairs_than_one_connection_may_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    customs = replace(customs_of("binance"), pairs=2)
    monkeypatch.setitem(ports._CUSTOMS, "binance", customs)
    with LoopbackExchange(busy_market()) as exchange, following(exchange, PAIRS) as stream:
        until_fresh(stream)
        assert exchange.open_connections == 2
        until(lambda: all(complete(exchange, stream, pair) for pair in PAIRS))


def test_the_candle_that_is_open_by_a_clock_ahead_of_ours() -> None:
    with (
        LoopbackExchange(busy_market(past_s=5), faults=Faults(skew=7.0)) as exchange,
        following(exchange) as stream,
    ):
        until_fresh(stream)
        until(lambda: abs(stream.exchange_now_ms() - time.time() * 1000 - 7_000) < 150)
        assert stream.freshness("AAA/USDT").fresh


def test_what_on_trades_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    def on_trades(pairs: set[str]) -> None:
        raise RuntimeError("a bug")

    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, on_trades=on_trades) as stream,
    ):
        until_fresh(stream)
        time.sleep(0.3)
        assert exchange.log.connections == 1
    assert "a bug" in caplog.text


@pytest.fixture
def ccxt_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with exchanges for which there is no short cut."""
    customs = replace(customs_of("binance"), parse=None)
    monkeypatch.setitem(ports._CUSTOMS, "binance", customs)


class KeepsItsOwnCache(ccxt.pro.binance):  # type: ignore[misc]
    """Makes its caches anew now and then, as some exchanges do when they subscribe."""

    frames = 0

    def handle_trade(self, client: Any, message: Any) -> None:
        self.frames += 1
        if self.frames % 20 == 1:
            self.trades["AAA/USDT"] = ArrayCache(1000)
        super().handle_trade(client, message)


class FollowsOneByOne(ccxt.pro.binance):  # type: ignore[misc]
    """Has no call for several pairs."""

    def describe(self) -> Any:
        return self.deep_extend(super().describe(), {"has": {"watchTradesForSymbols": False}})

    def watch_trades(self, symbol: str, *args: Any, **more: Any) -> Any:
        return super().watch_trades_for_symbols([symbol])


@pytest.mark.usefixtures("ccxt_parses")
@pytest.mark.parametrize("kind", [KeepsItsOwnCache, FollowsOneByOne])
def test_exchanges_with_other_habits(kind: Any) -> None:
    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, connect=client_of(exchange, kind)) as stream,
    ):
        until_fresh(stream)
        time.sleep(0.3)
        until(lambda: all(complete(exchange, stream, pair) for pair in PAIRS[:2]))
        assert exchange.log.connections <= 2
        assert stream.tapes["AAA/USDT"].counts.recovered == 0


class HasNoStream(ccxt.pro.binance):  # type: ignore[misc]
    def describe(self) -> Any:
        has = {"watchTrades": False, "watchTradesForSymbols": False}
        return self.deep_extend(super().describe(), {"has": has})


def test_an_exchange_without_a_stream_is_told_once() -> None:
    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, connect=client_of(exchange, HasNoStream)) as stream,
    ):
        until(lambda: bool(stream.news))
        stream.follow(PAIRS)
        assert list(stream.news) == [
            "ccxt cannot follow the trades of binance: there are candles only"
        ]
        assert stream.freshness("AAA/USDT").reason == "not watched yet"


class NamesItsTrades(ccxt.pro.binance):  # type: ignore[misc]
    """Its ids are no numbers, so only the time tells what is missing."""

    def parse_trade(self, trade: Any, market: Any = None) -> Any:
        parsed = super().parse_trade(trade, market)
        return parsed | {"id": f"x{parsed['id']}", "info": {}}


@pytest.mark.lengthy
@pytest.mark.usefixtures("ccxt_parses")
def test_without_numbers_an_interruption_is_filled_by_time() -> None:
    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, connect=client_of(exchange, NamesItsTrades)) as stream,
    ):
        until_fresh(stream)
        tape = stream.tapes["AAA/USDT"]
        until(lambda: tape.ids_consecutive is False)
        exchange.close_connections()
        until(lambda: not stream.freshness("AAA/USDT").fresh)
        until_fresh(stream)
        until(lambda: not tape.gaps())
        time.sleep(0.4)
        start_ms, end_ms = int(tape.trades(0, 2**62)["time_ms"][0]) + 1, tape.last_time_ms - 300
        due = exchange.trade_ids("AAAUSDT", start_ms, end_ms)
        assert {trade_number(f"x{number}") for number in due} == set(
            tape.trades(start_ms, end_ms)["id"].tolist()
        )
        assert not tape.missing()


class FailsOnce(ccxt.pro.binance):  # type: ignore[misc]
    """Its first watch call ends in an error that is not ccxt's."""

    errors: ClassVar[list[Exception]] = []

    async def watch_trades_for_symbols(self, *args: Any, **more: Any) -> Any:
        if self.errors:
            raise self.errors.pop()
        return await super().watch_trades_for_symbols(*args, **more)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), EOFError()])
def test_any_error_ends_a_connection_and_no_more_than_that(error: Exception) -> None:
    """Those that nobody had named ended the following of its pairs for good, without news."""
    FailsOnce.errors.append(error)
    with (
        LoopbackExchange(busy_market(pairs=PAIRS[:2])) as exchange,
        following(exchange, connect=client_of(exchange, FailsOnce)) as stream,
    ):
        until_fresh(stream)
        assert not FailsOnce.errors


class GoesDeaf(ccxt.pro.binance):  # type: ignore[misc]
    """Its parser fails in a way that nobody expects."""

    failed = False

    def handle_trade(self, client: Any, message: Any) -> None:
        if not GoesDeaf.failed:
            GoesDeaf.failed = True
            raise RecursionError("unexpected")
        super().handle_trade(client, message)


@pytest.mark.usefixtures("ccxt_parses")
def test_a_connection_that_went_deaf_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    GoesDeaf.failed = False
    with (
        LoopbackExchange(busy_market()) as exchange,
        following(exchange, connect=client_of(exchange, GoesDeaf)) as stream,
    ):
        until(lambda: exchange.log.connections == 2)
        until_fresh(stream)
        until(lambda: complete(exchange, stream, "AAA/USDT"))
    assert "unexpected" in caplog.text


@pytest.mark.parametrize(
    ("key", "method"), [("", "publicGetTrades"), ("k", "publicGetHistoricalTrades")]
)
def test_gaps_are_asked_for_by_id_where_a_key_allows_it(key: str, method: str) -> None:
    NotesRequests.asked.clear()
    with LoopbackExchange(busy_market(300.0)) as exchange:
        connect = client_of(exchange, NotesRequests, apiKey=key, secret=key)
        with following(exchange, PAIRS[:1], connect) as stream:
            until_fresh(stream)
            first = ids_of(stream, "AAA/USDT")[0]
            lost = [number + 100 for number in exchange.trade_ids("AAAUSDT")[-60:]]
            exchange.lose("AAAUSDT", lost)
            until(lambda: set(lost) <= set(ids_of(stream, "AAA/USDT")))
            until(lambda: complete(exchange, stream, "AAA/USDT", first))
            assert stream.tapes["AAA/USDT"].counts.recovered >= 30
        methods = [params["fetchTradesMethod"] for params in NotesRequests.asked]
        assert methods[0] == "publicGetTrades"
        assert set(methods[1:]) == {method}
        assert ("fromId" in NotesRequests.asked[-1]) == bool(key)


@pytest.mark.parametrize("short_cut", [True, False])
def test_ids_in_order_of_time_and_numbers_as_the_exchange_told_them(
    short_cut: bool, request: pytest.FixtureRequest
) -> None:
    if not short_cut:
        request.getfixturevalue("ccxt_parses")
    with LoopbackExchange(busy_market()) as exchange, following(exchange) as stream:
        until_fresh(stream)
        time.sleep(0.3)
        listing = exchange.market.listings["AAAUSDT"]
        found = stream.tapes["AAA/USDT"].trades(0, 2**62)
        places = found["id"] - listing.trades.first_id
        assert (np.diff(found["id"]) == 1).all()
        assert found["time_ms"].tolist() == listing.trades.time_ms[places].tolist()
        assert found["price"].tolist() == (listing.trades.price[places] / 100).tolist()
        assert found["amount"].tolist() == (listing.trades.amount[places] / 1000).tolist()
        assert found["taker_buy"].tolist() == listing.trades.taker_buy[places].tolist()


def test_log_lines_hold_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "verysecretkey"  # noqa: S105
    with LoopbackExchange(busy_market(), faults=Faults(rest_429=1.0)) as exchange:
        connect = client_of(exchange, apiKey=secret, secret=secret)
        with following(exchange, connect=connect) as stream:
            until(lambda: exchange.log.refused[429] > 1)
            exchange.drop_connections()
            until(lambda: exchange.log.connections > 1)
            assert not [text for text in stream.news if secret in text]
    ours = [record.getMessage() for record in caplog.records if "lstm_model" in record.name]
    assert ours
    assert not [text for text in ours if secret in text]


def test_settings_and_timing_have_their_defaults() -> None:
    stream = TradeStream(ccxt.pro.binance, 60_000, Settings())
    assert stream.freshness("BTC/USDT") == (False, math.inf, "not followed")
    stream.stop()
    assert QUICK.patience_s < stream._timing.patience_s
