"""USD-M futures of the loopback exchange: the same trades, other ids, a mark price and funding."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import ccxt
import ccxt.pro
import numpy as np
import pytest
from places import ROOT

from lstm_model.practice import rest, usdm_rest
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.overlay import bot_overlay, loopback_overlay
from lstm_model.practice.perpetual import FUNDING_MS, INTEREST_RATE, Perpetual, perpetuals
from lstm_model.practice.streams import USDM, Subscriptions
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import DAY_MS, Market, Trades

START_MS = 1_700_006_400_000  # a midnight, UTC
NOON_MS = START_MS + 2 * DAY_MS + DAY_MS // 2 + 12_345
MINUTE_MS = 60_000
SYMBOL, PAIR = "BTCUSDT", "BTC/USDT:USDT"


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture(scope="module")
def invented() -> Market:
    return synthetic_market(1, 3, start_ms=START_MS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spot(invented: Market, clock: Clock) -> Market:
    return replace(invented, now_ms=clock)


@pytest.fixture
def market(spot: Market) -> Market:
    return perpetuals(spot)


@pytest.fixture
def future(market: Market) -> Perpetual:
    return future_of(market)


def future_of(market: Market) -> Perpetual:
    found = market.listing(SYMBOL)
    assert isinstance(found, Perpetual)
    return found


@pytest.fixture
def exchange(spot: Market) -> Iterator[LoopbackExchange]:
    with LoopbackExchange(spot) as running:
        yield running


def options(exchange: LoopbackExchange, **more: Any) -> dict[str, Any]:
    config = loopback_overlay(exchange.url, "futures")["exchange"]["ccxt_config"]
    config["options"]["defaultType"] = "swap"
    return {**config, "newUpdates": True, **more}


@pytest.fixture
def client(exchange: LoopbackExchange) -> Iterator[ccxt.binance]:
    binance = ccxt.binance(options(exchange))
    yield binance
    binance.session.close()


def ask(market: Market, path: str, **query: Any) -> Any:
    asked = {name: str(value) for name, value in query.items()}
    status, body = usdm_rest.answer(market, path, asked, has_key=True)
    assert status == 200, body
    return body


# What is the same as on the spot market


def test_candles_are_those_of_the_same_trades(spot: Market, market: Market) -> None:
    query = {"symbol": SYMBOL, "interval": "5m", "limit": "20"}
    assert ask(market, "klines", **query) == rest.answer(spot, "klines", query)[1]


def test_only_what_is_quoted_in_dollars_has_a_future(invented: Market) -> None:
    listing = invented.listing(SYMBOL)
    other = replace(listing, instrument=replace(listing.instrument, quote="EUR"))
    assert perpetuals(Market({"BTCEUR": other, SYMBOL: listing})).listings.keys() == {SYMBOL}


# Ids: trades are not all that is counted


def frames(market: Market, clock: Clock, minutes: int) -> list[dict[str, Any]]:
    subscriptions = Subscriptions(market, False, USDM["public"])
    subscriptions.subscribe(["btcusdt@trade"])
    clock.now_ms += minutes * MINUTE_MS
    return list(subscriptions.poll())


def test_the_stream_counts_frames_that_are_no_trades_and_rest_has_holes_there(
    market: Market, clock: Clock
) -> None:
    sent = frames(market, clock, 600)
    ids = [frame["t"] for frame in sent]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    kinds = Counter(frame["X"] for frame in sent)
    assert kinds.keys() == {"MARKET", "NA", "INSURANCE_FUND"}
    assert 0.002 < (kinds["NA"] + kinds["INSURANCE_FUND"]) / len(ids) < 0.012
    rows = ask(market, "historicalTrades", symbol=SYMBOL, fromId=ids[0], limit=1_000)
    told = [frame["t"] for frame in sent if frame["X"] == "MARKET"]
    assert [row["id"] for row in rows] == told[:1_000]
    for frame in sent:
        assert (float(frame["p"]) > 0.0) == (float(frame["q"]) > 0.0) == (frame["X"] != "NA")
        assert "M" not in frame


def test_the_insurance_fund_deals_off_the_market(market: Market, clock: Clock) -> None:
    sent = frames(market, clock, 600)
    pairs = [
        (float(before["p"]), float(frame["p"]))
        for before, frame in pairwise(sent)
        if (before["X"], frame["X"]) == ("MARKET", "INSURANCE_FUND")
    ]
    distances = [abs(price / before - 1.0) for before, price in pairs]
    assert 0.03 < max(distances) < 0.101


def test_a_longer_tape_begins_with_the_same_ids(future: Perpetual) -> None:
    trades, half = future.trades, len(future.trades) // 2
    columns = (trades.time_ms, trades.price, trades.amount, trades.taker_buy)
    part = Trades(*(column[:half] for column in columns), first_id=trades.first_id)
    shorter = Perpetual(future.instrument, part)
    assert shorter.ids(0, half).tolist() == future.ids(0, half).tolist()
    assert shorter.voids(0, half) == future.voids(0, half)


def test_aggregates_have_ids_of_their_own_without_holes(market: Market) -> None:
    rows = ask(market, "aggTrades", symbol=SYMBOL, limit=1_000)
    numbers = [row["a"] for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + 1_000))
    assert max(np.diff([row["f"] for row in rows])) > 1
    again = ask(market, "aggTrades", symbol=SYMBOL, fromId=numbers[10], limit=5)
    assert again == rows[10:15]


def test_who_asks_for_old_trades_must_name_a_key(
    exchange: LoopbackExchange, client: ccxt.binance
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(  # noqa: S310 - our own address
            f"{exchange.url}/fapi/v1/historicalTrades?symbol={SYMBOL}", timeout=5
        )
    with refused.value as error:
        assert error.code == 401
        assert json.load(error)["code"] == -2014
    client.apiKey = "a key"
    method = {"fetchTradesMethod": "fapiPublicGetHistoricalTrades"}
    assert len(client.fetch_trades(PAIR, None, 10, method)) == 10


# Mark price and funding


def test_the_mark_price_follows_the_trades_and_is_calmer(future: Perpetual) -> None:
    times = np.arange(NOON_MS - DAY_MS, NOON_MS, 10_000)
    marks = future.marks(times)
    last = future.trades.price[np.searchsorted(future.trades.time_ms, times, side="right") - 1]
    assert np.abs(marks / last - 1.0).max() < 0.02
    assert np.abs(np.diff(np.log(marks))).mean() < np.abs(np.diff(np.log(last))).mean()


def test_a_mark_candle_is_the_sum_of_finer_ones_and_never_changes_afterwards(
    market: Market, clock: Clock
) -> None:
    hour_ms = NOON_MS // 3_600_000 * 3_600_000 - 3_600_000
    asked = {"symbol": SYMBOL, "startTime": hour_ms}
    ((_, *prices),) = [row[:5] for row in ask(market, "markPriceKlines", interval="1h", limit=1,
                                              **asked)]  # fmt: skip
    fine = ask(market, "markPriceKlines", interval="1m", limit=60, **asked)
    values = [[float(value) for value in row[1:5]] for row in fine]
    opens, highs, lows, closes = zip(*values, strict=True)
    assert [float(price) for price in prices] == [opens[0], max(highs), min(lows), closes[-1]]
    assert {row[5] for row in fine} == {"0.00000"}
    clock.now_ms += DAY_MS
    assert ask(market, "markPriceKlines", interval="1m", limit=60, **asked) == fine


def test_nothing_later_than_now_is_in_the_open_candle_or_the_expected_rate(
    future: Perpetual,
) -> None:
    due = future.trades.due(NOON_MS)
    columns = ("time_ms", "price", "amount", "taker_buy")
    past = {name: getattr(future.trades, name)[:due] for name in columns}
    known = Perpetual(future.instrument, replace(future.trades, **past))
    ours, theirs = (it.mark_candles("1h", NOON_MS, limit=5) for it in (known, future))
    assert [vars(ours)[n].tolist() for n in vars(ours)] == [
        vars(theirs)[n].tolist() for n in vars(theirs)
    ]
    assert known.expected_rate(NOON_MS) == future.expected_rate(NOON_MS)
    assert known.mark(NOON_MS) == future.mark(NOON_MS)


def test_funding_is_paid_every_eight_hours_and_expected_before(
    market: Market, future: Perpetual, clock: Clock
) -> None:
    rows = ask(market, "fundingRate", symbol=SYMBOL, startTime=0)
    times = [row["fundingTime"] for row in rows]
    assert [time_ms // FUNDING_MS * FUNDING_MS for time_ms in times] == [
        START_MS + n * FUNDING_MS for n in range(1, 8)
    ]
    assert all(0 <= time_ms % FUNDING_MS < 10 for time_ms in times)
    assert any(time_ms % FUNDING_MS for time_ms in times)
    clock.now_ms = START_MS + 3 * FUNDING_MS - 1
    index = ask(market, "premiumIndex", symbol=SYMBOL)
    assert index["nextFundingTime"] == START_MS + 3 * FUNDING_MS
    assert float(index["lastFundingRate"]) == pytest.approx(float(rows[2]["fundingRate"]), abs=1e-5)
    assert len(ask(market, "fundingRate", symbol=SYMBOL, startTime=0)) == 2


@pytest.mark.lengthy
def test_rates_are_of_both_signs_within_their_bounds() -> None:
    market = perpetuals(synthetic_market(1, 30, start_ms=START_MS))
    future = future_of(market)
    rates = [each.rate for each in future.fundings(START_MS, START_MS + 30 * DAY_MS)]
    assert len(rates) == 90
    assert -0.003 <= min(rates) < 0.0 < max(rates) <= 0.003
    assert 0.2 < np.mean(np.array(rates) == INTEREST_RATE) < 0.95


# Unmodified ccxt


def test_ccxt_gets_all_that_freqtrade_asks_for(client: ccxt.binance, clock: Clock) -> None:
    found = client.load_markets()[PAIR]
    assert found["swap"]
    assert found["linear"]
    assert found["active"]
    assert found["limits"]["cost"]["min"] == 5.0
    candles = client.fetch_ohlcv(PAIR, "1m", limit=499)
    marks = client.fetch_ohlcv(PAIR, "1h", limit=499, params={"price": "mark"})
    assert len(candles) == 499
    assert len(marks) == 61
    history = client.fetch_funding_rate_history(PAIR, since=START_MS, limit=1_000)
    assert len(history) == 7
    rate = client.fetch_funding_rate(PAIR)
    assert rate["fundingTimestamp"] == START_MS + 8 * FUNDING_MS
    assert abs(rate["markPrice"] / candles[-1][4] - 1.0) < 0.02
    book = client.fetch_order_book(PAIR, 20)
    assert book["bids"][0][0] < book["asks"][0][0]
    assert client.fetch_tickers([PAIR])[PAIR]["last"] == candles[-1][4]
    assert client.fetch_bids_asks([PAIR])[PAIR]["bid"] == book["bids"][0][0]
    assert len(client.fetch_trades(PAIR, limit=100)) == 100
    assert client.fetch_time() == clock.now_ms


def test_unmodified_ccxt_follows_futures_over_its_own_addresses(
    exchange: LoopbackExchange, clock: Clock
) -> None:
    async def watched() -> tuple[Any, Any, list[str]]:
        pro = ccxt.pro.binance(options(exchange))
        try:
            trades = asyncio.create_task(pro.watch_trades(PAIR))
            candles = asyncio.create_task(pro.watch_ohlcv(PAIR, "1m"))
            while not (trades.done() and candles.done()):
                clock.now_ms += 2_000
                await asyncio.sleep(0.05)
            return trades.result(), candles.result(), list(pro.clients)
        finally:
            await pro.close()

    trades, candles, addresses = asyncio.run(asyncio.wait_for(watched(), 15))
    assert trades[0]["symbol"] == PAIR
    assert trades[0]["info"]["X"] in ("MARKET", "NA", "INSURANCE_FUND")
    assert candles[0][0] % MINUTE_MS == 0
    places = {address.split("/", 3)[3].rsplit("/", 1)[0] for address in addresses}
    assert places == {"public/ws", "market/ws"}


@pytest.mark.parametrize("kind", ["kline_1m", "aggTrade"])
def test_an_address_streams_only_its_own_kinds(market: Market, clock: Clock, kind: str) -> None:
    for category, some in (("public", False), ("market", True)):
        subscriptions = Subscriptions(market, False, USDM[category])
        subscriptions.subscribe([f"btcusdt@{kind}"])
        clock.now_ms += 5 * MINUTE_MS
        assert bool(list(subscriptions.poll())) is some


@pytest.mark.parametrize("kind", ["bookTicker", "depth5@100ms", "depth20"])
def test_the_book_is_sent_after_a_trade(market: Market, clock: Clock, kind: str) -> None:
    subscriptions = Subscriptions(market, False, USDM["public"])
    subscriptions.subscribe([f"btcusdt@{kind}"])
    (message,) = subscriptions.poll()
    assert message["s"] == SYMBOL
    assert not list(subscriptions.poll())
    clock.now_ms += 5 * MINUTE_MS
    assert len(list(subscriptions.poll())) == 1


# Configuration


@pytest.mark.parametrize(("name", "mode"), [("", "spot"), ("-futures", "futures")])
def test_the_shipped_configurations_point_at_the_default_port(name: str, mode: str) -> None:
    shipped = json.loads((ROOT / "user_data" / f"config-loopback{name}.json").read_text())
    assert shipped == bot_overlay("http://127.0.0.1:8787", mode)


@pytest.mark.parametrize("mode", ["spot", "futures"])
def test_no_address_of_ccxts_leads_off_the_machine(mode: str) -> None:
    config = loopback_overlay("http://127.0.0.1:8787", mode)["exchange"]["ccxt_config"]
    for kind in (ccxt.binance, ccxt.pro.binance, ccxt.pro.binanceusdm):
        addresses = list(leaves(kind(config).urls["api"]))
        assert len(addresses) > 20
        hosts = {address.split("://")[1].split("/")[0] for address in addresses}
        assert hosts == {"127.0.0.1:8787"}


def leaves(tree: dict[str, Any]) -> Iterator[str]:
    for branch in tree.values():
        if isinstance(branch, dict):
            yield from leaves(branch)
        else:
            yield branch
