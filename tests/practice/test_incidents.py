"""Incidents: what may be asked for, what the exchange then serves, and Ctrl-C."""

import asyncio
import signal
from dataclasses import replace
from functools import partial

import aiohttp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.errors import ConfigError
from lstm_model.practice import rest, usdm_rest
from lstm_model.practice.excerpt import candle_frame, no_candles
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.incidents import (
    HeldBack,
    Incident,
    check_incidents,
    newest_candle_ms,
    parse_incident,
    with_incidents,
)
from lstm_model.practice.interruption import Interruption
from lstm_model.practice.perpetual import perpetuals
from lstm_model.practice.scenario import Scenario, known_candles
from lstm_model.practice.streams import Subscriptions
from lstm_model.practice.tape_market import Instrument, Listing, Trades, make_market

MINUTE_MS = 60_000
BEGIN_MS = 1_720_569_600_000  # 2024-07-10, midnight UTC
HOUR_MS = 60 * MINUTE_MS


def listing() -> Listing:
    """Two trades a minute for a day."""
    count = 2 * 1440
    trades = Trades(
        time_ms=BEGIN_MS + 30_000 * np.arange(count),
        price=10_000 + np.arange(count) % 7,
        amount=1 + np.arange(count) % 5,
        taker_buy=np.arange(count) % 2 == 0,
    )
    return Listing(Instrument("BTC", "USDT", 2, 5), trades)


def scenario(now_ms: list[int], *texts: str) -> Scenario:
    """A window from 06:00 to 08:00 of 1m candles."""
    start_ms, end_ms = BEGIN_MS + 6 * HOUR_MS, BEGIN_MS + 8 * HOUR_MS
    market = make_market([listing()], lambda: now_ms[0])
    older = {"BTC/USDT": candle_frame(no_candles("BTC/USDT", MINUTE_MS))}
    plain = Scenario(market, ("BTC/USDT",), "1m", start_ms, end_ms, older)
    return with_incidents(plain, [parse_incident(text) for text in texts])


def at(text: str) -> int:
    """Milliseconds of a time on that day."""
    hour, minute, second = (int(part) for part in text.split(":"))
    return BEGIN_MS + hour * HOUR_MS + minute * MINUTE_MS + second * 1000


def opens(listed: Listing, now: str, timeframe: str = "1m", since: str = "06:00:00") -> list[str]:
    found = listed.candles(timeframe, at(now), at(since)).open_ms
    return [f"{np.datetime64(int(ms), 'ms').astype('datetime64[m]')}"[-5:] for ms in found]


@pytest.mark.parametrize(
    ("text", "incident"),
    [
        ("outage@2024-07-10T06:00/30m", Incident("outage", at("06:00:00"), 30 * MINUTE_MS)),
        ("missing@2024-07-10T06:00:30Z/2h", Incident("missing", at("06:00:30"), 2 * HOUR_MS)),
        ("late@2024-07-10T08:00+02:00/20s", Incident("late", at("06:00:00"), 20_000)),
        ("restart@2024-07-10/5m", Incident("restart", BEGIN_MS, 5 * MINUTE_MS)),
        ("kill@2024-07-10T06:00", Incident("kill", at("06:00:00"))),
        ("reload@2024-07-10T06:00", Incident("reload", at("06:00:00"))),
        ("locked@2024-07-10T06:00/20s", Incident("locked", at("06:00:00"), 20_000)),
        ("full@2024-07-10T06:00/1m", Incident("full", at("06:00:00"), MINUTE_MS)),
        ("stream@2024-07-10T06:00/1m", Incident("stream", at("06:00:00"), MINUTE_MS)),
        ("halt@2024-07-10T06:00/2h", Incident("halt", at("06:00:00"), 2 * HOUR_MS)),
        ("halt:A/B:B@2024-07-10T06:00/2h", Incident("halt", at("06:00:00"), 2 * HOUR_MS, "A/B:B")),
    ],
)
def test_an_incident_is_read_as_it_is_written(text: str, incident: Incident) -> None:
    assert parse_incident(text) == incident


@given(
    named=st.sampled_from(
        ["outage", "missing", "late", "restart", "stream", "locked", "full", "halt", "halt:A/B:B"]
    ),
    at_s=st.integers(0, 2**31),
    for_s=st.integers(1, 10**6),
)
def test_the_text_of_an_incident_is_one(named: str, at_s: int, for_s: int) -> None:
    kind, _, pair = named.partition(":")
    incident = Incident(kind, at_s * 1000, for_s * 1000, pair)
    assert parse_incident(str(incident)) == incident


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flood@2024-07-10T06:00/30m", 'no kind "flood"; there are outage'),
        ("outage", '"" is no time; give UTC as 2024-07-10T06:00'),
        ("outage@six/30m", '"six" is no time'),
        ("outage@2024-07-10T06:00", '"" is no duration; give one like 30s, 15m or 2h'),
        ("late@2024-07-10T06:00/0s", '"0s" is no duration'),
        ("late@2024-07-10T06:00/-5m", '"-5m" is no duration'),
        ("late@2024-07-10T06:00/1d", '"1d" is no duration'),
        ("kill@2024-07-10T06:00/5m", "a kill has no duration: kill@2024-07-10T06:00 is enough"),
        ("reload@2024-07-10T06:00/5m", "a reload has no duration"),
        ("locked@2024-07-10T06:00", '"" is no duration'),
        ("halt:@2024-07-10T06:00/5m", '"halt:" names no pair that could be'),
        ("locked:A/B@2024-07-10T06:00/5m", "only a halt is of one pair"),
    ],
)
def test_what_is_no_incident_is_refused_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_incident(text)
    assert said in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["kill@2024-07-10T05:59"], "not within the window"),
        (["kill@2024-07-10T08:00"], "not within the window"),
        (["outage@2024-07-10T06:00/5m"], "allowed is 2024-07-10T06:01:00Z to 2024-07-10T08:00"),
        (["late@2024-07-10T06:10:30/5s"], "the next one does at 2024-07-10T06:11:00Z"),
        (["missing@2024-07-10T06:10:10/20s"], "the next one does at 2024-07-10T06:11:00Z"),
        (["outage@2024-07-10T07:00/5m", "outage@2024-07-10T06:58/2m"], "overlap; make them one"),
        (["restart@2024-07-10T07:00/5m", "restart@2024-07-10T07:04/2m"], "overlap"),
        (
            ["restart@2024-07-10T07:00/5m", "outage@2024-07-10T07:04/2m"],
            "let the restart come later",
        ),
    ],
)
def test_what_cannot_happen_in_the_window_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario([0], *texts)
    assert said in str(caught.value)


def test_what_can_happen_is_accepted() -> None:
    texts = [
        "kill@2024-07-10T06:00", "missing@2024-07-10T06:00/1m", "restart@2024-07-10T07:00/5m",
        "outage@2024-07-10T07:01/4m", "outage@2024-07-10T07:10/9h",
        "halt@2024-07-10T06:00/1h", "locked@2024-07-10T06:59/5m", "full@2024-07-10T06:59/5m",
        "reload@2024-07-10T07:06", "stream@2024-07-10T06:30/5m",
    ]  # fmt: skip
    incidents = [parse_incident(text) for text in texts]
    check_incidents(incidents, at("06:00:00"), at("08:00:00"), MINUTE_MS, ["BTC/USDT"])


def test_without_missing_and_late_candles_nothing_changes() -> None:
    now_ms = [at("07:00:00")]
    plain = scenario(now_ms)
    hit = scenario(now_ms, "outage@2024-07-10T07:10/9m", "kill@2024-07-10T06:00")
    assert type(hit.listing("BTC/USDT")) is Listing
    assert type(plain.listing("BTC/USDT")) is Listing


def test_missing_candles_are_never_served_and_their_trades_are() -> None:
    held = scenario([0], "missing@2024-07-10T06:02/2m").listing("BTC/USDT")
    assert opens(held, "06:05:00") == ["06:00", "06:01", "06:04", "06:05"]
    assert opens(held, "06:03:59") == ["06:00", "06:01"]
    assert len(held.trades) == len(listing().trades)


def test_a_late_candle_holds_back_all_that_follow() -> None:
    held = scenario([0], "late@2024-07-10T06:02/90s").listing("BTC/USDT")
    assert opens(held, "06:02:00") == ["06:00", "06:01"]
    assert opens(held, "06:04:29") == ["06:00", "06:01"]
    assert opens(held, "06:04:30") == ["06:00", "06:01", "06:02", "06:03", "06:04"]


def test_candles_that_are_served_are_those_of_the_market() -> None:
    whole = listing().candles("1m", at("06:10:00"), at("06:00:00"))
    held = scenario([0], "missing@2024-07-10T06:02/2m").listing("BTC/USDT")
    found = held.candles("1m", at("06:10:00"), at("06:00:00"))
    kept = np.isin(whole.open_ms, found.open_ms)
    for name, column in vars(found).items():
        np.testing.assert_array_equal(column, getattr(whole, name)[kept])


def test_a_halted_pair_has_neither_trades_nor_candles_of_any_length() -> None:
    held = scenario([0], "halt@2024-07-10T06:02:30/10m").listing("BTC/USDT")
    assert opens(held, "06:12:29") == ["06:00", "06:01", "06:02"]
    assert opens(held, "06:12:30") == ["06:00", "06:01", "06:02", "06:12"]
    assert opens(held, "06:12:29", "3m") == ["06:00"]
    assert opens(held, "06:15:00", "3m") == ["06:00", "06:12", "06:15"]
    time_ms, before = held.trades.time_ms, listing().trades
    assert not ((at("06:02:30") <= time_ms) & (time_ms < at("06:12:30"))).any()
    assert len(held.trades) == len(before) - 20
    assert held.trades.first_id == before.first_id
    candle = held.candles("1m", at("06:20:00"), at("06:02:00"), at("06:02:00"))
    assert candle.trades.tolist() == [1]


def test_the_last_pair_is_halted_and_the_others_go_on() -> None:
    other = Listing(Instrument("ETH", "USDT", 2, 5), listing().trades)
    plain = scenario([0])
    market = make_market([listing(), other], plain.market.now_ms)
    both = replace(plain, market=market, pairs=("BTC/USDT", "ETH/USDT"))
    hit = with_incidents(both, [parse_incident("halt@2024-07-10T06:02/2m")])
    assert hit.listing("BTC/USDT") is both.listing("BTC/USDT")
    assert opens(hit.listing("ETH/USDT"), "06:04:30") == ["06:00", "06:01", "06:04"]
    first = with_incidents(both, [parse_incident("halt:BTC/USDT@2024-07-10T06:02/2m")])
    assert first.listing("ETH/USDT") is other
    assert opens(first.listing("BTC/USDT"), "06:04:30") == ["06:00", "06:01", "06:04"]


def test_what_happened_once_does_not_happen_twice() -> None:
    texts = ["halt@2024-07-10T06:02/2m", "missing@2024-07-10T06:10/2m", "late@2024-07-10T06:20/1m"]
    once = scenario([0], *texts)
    twice = with_incidents(once, [parse_incident(text) for text in texts])
    for now in ("06:15:00", "06:20:30", "06:30:00"):
        mine, again = (item.listing("BTC/USDT") for item in (once, twice))
        assert opens(mine, now) == opens(again, now)
    assert len(once.listing("BTC/USDT").trades) == len(twice.listing("BTC/USDT").trades)


def test_candles_of_other_lengths_are_served() -> None:
    held = scenario([0], "missing@2024-07-10T06:00/1h").listing("BTC/USDT")
    assert opens(held, "06:12:00", "5m") == ["06:00", "06:05", "06:10"]


def test_the_newest_candle_is_the_newest_that_is_served() -> None:
    held = scenario([0], "missing@2024-07-10T06:02/1h").listing("BTC/USDT")
    for now, newest in (("06:01:59", "06:01:00"), ("06:50:00", "06:01:00"), ("07:02", "07:02:00")):
        now_ms = at(now if now.count(":") == 2 else now + ":00")
        assert newest_candle_ms(held, "1m", now_ms) == at(newest)
    early = HeldBack(held.instrument, held.trades, MINUTE_MS, (Incident("late", 0, 2**50),))
    assert newest_candle_ms(early, "1m", at("06:00:00")) == 0


def test_what_could_be_downloaded_lacks_what_is_missing_or_late() -> None:
    hit = scenario([0], "missing@2024-07-10T06:02/2m", "late@2024-07-10T06:10/5m")
    frame = known_candles(hit, "BTC/USDT", at("06:12:00"))
    known = [f"{date:%H:%M}" for date in frame["date"] if date.hour == 6]
    assert known == ["06:00", "06:01", *(f"06:{minute:02}" for minute in range(4, 10))]
    later = known_candles(hit, "BTC/USDT", at("06:17:00"))
    assert f"{later['date'].iloc[-1]:%H:%M}" == "06:16"


def test_rest_holds_a_candle_back_on_spot_and_on_futures() -> None:
    market = scenario([at("06:03:00")], "late@2024-07-10T06:02/90s").market
    asked = {"symbol": "BTCUSDT", "interval": "1m", "limit": "3"}
    futures = partial(usdm_rest.answer, has_key=False)
    for answer, its in ((rest.answer, market), (futures, perpetuals(market))):
        _, rows = answer(its, "klines", asked)
        opened = [str(np.datetime64(row[0], "ms"))[11:16] for row in rows]
        assert "06:01" in opened
        assert "06:02" not in opened


def klines(subscriptions: Subscriptions) -> list[tuple[str, bool]]:
    """When the candles open that are sent, and whether they are final."""
    bodies = [message["k"] for message in subscriptions.poll()]
    return [(str(np.datetime64(body["t"], "ms"))[11:16], body["x"]) for body in bodies]


def test_the_websocket_brings_a_late_candle_when_it_comes() -> None:
    now_ms = [at("06:01:30")]
    subscriptions = Subscriptions(
        scenario(now_ms, "late@2024-07-10T06:02/90s").market, combined=False
    )
    subscriptions.subscribe(["btcusdt@kline_1m"])
    assert klines(subscriptions) == [("06:01", False)]
    now_ms[0] = at("06:03:00")
    assert klines(subscriptions) == [("06:01", True)]
    now_ms[0] = at("06:04:29")
    assert klines(subscriptions) == [("06:01", True)]
    now_ms[0] = at("06:04:31")
    assert klines(subscriptions) == [
        ("06:01", True), ("06:02", True), ("06:03", True), ("06:04", False),
    ]  # fmt: skip


def test_the_websocket_never_brings_a_missing_candle() -> None:
    now_ms = [at("06:02:30")]
    market = scenario(now_ms, "missing@2024-07-10T06:02/2m").market
    subscriptions = Subscriptions(market, combined=False)
    subscriptions.subscribe(["btcusdt@kline_1m"])
    assert klines(subscriptions) == []
    now_ms[0] = at("06:04:10")
    assert klines(subscriptions) == [("06:04", False)]


async def until_cut(exchange: LoopbackExchange) -> None:
    """Follow trades until the exchange, which breaks down meanwhile, cuts the connection.

    Raises
    ------
    aiohttp.WSServerHandshakeError
        It does not let us follow them.
    """
    url = f"ws://127.0.0.1:{exchange.port}/ws/btcusdt@trade"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await asyncio.to_thread(exchange.break_down)
        message = await asyncio.wait_for(socket.receive(), 5.0)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def status(exchange: LoopbackExchange, path: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{exchange.url}/api/v3/{path}") as answer,
    ):
        return answer.status


def test_an_exchange_that_is_down_cuts_and_refuses_until_it_recovers() -> None:
    with LoopbackExchange(scenario([at("06:00:00")]).market) as exchange:
        assert asyncio.run(status(exchange, "time")) == 200
        asyncio.run(until_cut(exchange))
        for path in ("time", "exchangeInfo", "trades?symbol=BTCUSDT"):
            assert asyncio.run(status(exchange, path)) == 503
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            asyncio.run(until_cut(exchange))
        assert exchange.log.refused[503] == 3
        exchange.recover()
        assert asyncio.run(status(exchange, "time")) == 200
        asyncio.run(until_cut(exchange))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_where_it_is_asked_for_and_the_second_at_once(number: int) -> None:
    inherited, interruption = signal.getsignal(number), Interruption()
    signal.signal(number, signal.default_int_handler)  # a shell starts what waits with it ignored
    try:
        with interruption.heard():
            interruption.check()
            signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                interruption.check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, inherited)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption().heard():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
