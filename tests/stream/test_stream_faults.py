"""The trade stream against everything that goes wrong, beside the exchange's ground truth.

In the end every id is on the tape, or the tape says exactly which are missing.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ccxt.pro
import numpy as np
import pytest
from places import SHARED
from trade_market import (
    PAIRS,
    QUICK,
    Faults,
    busy_market,
    client_of,
    complete,
    due_ids,
    following,
    ids_of,
    until,
    until_fresh,
)

from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.playback import Playback
from lstm_model.settings import Settings
from lstm_model.stream.trade_stream import TradeStream

pytestmark = pytest.mark.slow  # they wait for real connections

PAIR, SYMBOL = "AAA/USDT", "AAAUSDT"


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


@pytest.fixture
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(busy_market(pairs=PAIRS[:2])) as running:
        yield running


@pytest.fixture
def stream(exchange: LoopbackExchange) -> Iterator[TradeStream]:
    with following(exchange) as running:
        until_fresh(running)
        yield running


def all_there(exchange: LoopbackExchange, stream: TradeStream, first: dict[str, int]) -> bool:
    tapes = stream.tapes.items()
    return all(
        complete(exchange, stream, pair, first[pair]) and not tape.gaps() for pair, tape in tapes
    )


def firsts(stream: TradeStream) -> dict[str, int]:
    return {pair: ids_of(stream, pair)[0] for pair in stream.tapes}


def missing_ids(stream: TradeStream, pair: str) -> set[int]:
    gaps = [gap for gap in stream.tapes[pair].missing() if gap.first_id and gap.last_id]
    ids = [range(gap.first_id, gap.last_id + 1) for gap in gaps]  # type: ignore[arg-type, operator]
    return set(itertools.chain.from_iterable(ids))


EVENTS: dict[str, Callable[[LoopbackExchange], Any]] = {
    "drop": LoopbackExchange.drop_connections,
    "polite close": LoopbackExchange.close_connections,
    "oversized frame": lambda exchange: exchange.send_raw("x" * 11 * 2**20),
    "broken json": lambda exchange: exchange.send_raw('{"stream":'),
    "unknown json": lambda exchange: exchange.send_raw('[[],{"e":7}]'),
    "stall": lambda exchange: exchange.stall(0.5),
}


@pytest.mark.parametrize("name", EVENTS)
def test_after_one_bad_moment_every_trade_is_there(
    exchange: LoopbackExchange, stream: TradeStream, name: str
) -> None:
    first = firsts(stream)
    EVENTS[name](exchange)
    ended = name in ("drop", "polite close", "oversized frame")
    until(lambda: exchange.log.connections == 1 + ended)
    time.sleep(0.3)
    until_fresh(stream)
    until(lambda: all_there(exchange, stream, first))
    assert all(tape.counts.missing == 0 for tape in stream.tapes.values())
    assert not stream.news
    assert exchange.log.connections == 1 + ended
    flow = stream.tapes[PAIR].flow(0, 2**62)
    assert set(flow["coverage"][1:]) <= {1.0}


STEADY = {
    "duplicates": Faults(duplicates=(0.3, 0.3)),
    "reordered": Faults(reorder=(0.3, 0.15)),
    "gaps": Faults(gaps=0.1),
    "malformed beside": Faults(malformed=0.2),
    "malformed instead": Faults(malformed=0.1, malformed_replaces=True),
    "refused backfill": Faults(gaps=0.1, rest_429=0.2, rest_5xx=0.4),
    "all at once": Faults(
        duplicates=(0.1, 0.3),
        reorder=(0.2, 0.2),
        gaps=0.05,
        malformed=0.1,
        malformed_replaces=True,
        drop=0.9,
        skew=-3.0,
    ),
}


@pytest.mark.parametrize("name", STEADY)
def test_under_a_steady_fault_every_trade_is_there(exchange: LoopbackExchange, name: str) -> None:
    exchange.faults = replace(STEADY[name], drop=0.0)
    with following(exchange) as stream:
        until_fresh(stream)
        first = firsts(stream)
        exchange.faults = STEADY[name]
        time.sleep(0.5)
        exchange.faults = replace(STEADY[name], gaps=0.0, drop=0.0, malformed=0.0)
        until(lambda: all_there(exchange, stream, first), 15.0)
        counts = stream.tapes[PAIR].counts
        assert counts.missing == 0
        assert not stream.news
        assert bool(counts.recovered) == bool(
            exchange.log.withheld[SYMBOL] or exchange.log.delayed[SYMBOL] or counts.recovered
        )


def test_silence_is_found_out_and_what_it_hid_is_fetched(exchange: LoopbackExchange) -> None:
    with following(exchange, silence_s=0.8) as stream:
        until_fresh(stream)
        first = firsts(stream)
        exchange.silence(60.0)
        until(lambda: exchange.log.connections == 2)
        assert exchange.log.withheld[SYMBOL]
        exchange.faults = Faults()
        until_fresh(stream)
        until(lambda: all_there(exchange, stream, first))
        assert not stream.news


STOPPED_DURING: dict[str, Callable[[LoopbackExchange], Any]] = {
    "a stall": lambda exchange: exchange.stall(20.0),
    "a silence": lambda exchange: exchange.silence(20.0),
    "a drop": LoopbackExchange.drop_connections,
    "a vain backfill": lambda exchange: (
        exchange.refuse(503, 20.0), exchange.lose(SYMBOL, range(1_001_900, 1_001_950)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPPED_DURING)
def test_stop_at_a_bad_moment(exchange: LoopbackExchange, name: str) -> None:
    with following(exchange) as stream:
        until_fresh(stream)
        STOPPED_DURING[name](exchange)
        time.sleep(0.2)
        began_s = time.monotonic()
        stream.stop()
        assert time.monotonic() - began_s < 5.0
    exchange.faults = Faults()


def test_in_a_quiet_market_a_look_at_rest_keeps_the_stream_fresh() -> None:
    market = busy_market(0.05, PAIRS[:1])
    with (
        LoopbackExchange(market) as exchange,
        following(exchange, PAIRS[:1], silence_s=0.8) as stream,
    ):
        until(lambda: stream.freshness(PAIR).fresh)
        ages = []
        for _ in range(20):
            time.sleep(0.1)
            ages.append(stream.freshness(PAIR))
        assert all(fresh for fresh, _, _ in ages)
        assert exchange.log.connections == 1


def test_a_silence_that_rest_cannot_clear_up_is_stale(exchange: LoopbackExchange) -> None:
    with following(exchange, silence_s=0.8) as stream:
        until_fresh(stream)
        exchange.silence(60.0)
        exchange.refuse(503, 60.0)
        until(lambda: not stream.freshness(PAIR).fresh)
        fresh, age_s, reason = stream.freshness(PAIR)
        assert (fresh, reason) == (False, f"silent for {age_s:.0f} s")
        assert 0.8 < age_s < 2.0


def test_one_busy_pair_that_falls_silent_among_others(exchange: LoopbackExchange) -> None:
    with following(exchange, silence_s=0.8) as stream:
        until_fresh(stream)
        first = firsts(stream)
        until(lambda: len(ids_of(stream, PAIR)) > 1_080)
        newest = ids_of(stream, PAIR)[-1]
        exchange.lose(SYMBOL, range(newest + 1, newest + 5_000))
        until(lambda: exchange.log.connections >= 2)
        until(lambda: complete(exchange, stream, PAIR, first[PAIR]))


@pytest.mark.parametrize("status", [429, 503])
def test_rest_that_refuses_for_a_while_is_asked_again(
    exchange: LoopbackExchange, stream: TradeStream, status: int
) -> None:
    first = firsts(stream)
    exchange.refuse(status, 1.2)
    lost = np.array(exchange.trade_ids(SYMBOL)[-1:]) + np.arange(20, 40)
    exchange.lose(SYMBOL, lost.tolist())
    until(lambda: all_there(exchange, stream, first) and set(lost) <= set(ids_of(stream, PAIR)), 12)
    assert exchange.log.refused[status]
    assert stream.tapes[PAIR].counts.missing == 0


def test_a_long_gap_is_filled_though_pages_of_it_are_refused() -> None:
    """Of a machine that stood still: who begins anew at each refusal never comes to its end."""
    market, faults = busy_market(2_000.0, PAIRS[:1]), Faults(rest_5xx=0.4)
    with LoopbackExchange(market, faults=faults) as exchange, following(exchange, [PAIR]) as stream:
        until_fresh(stream)
        tape = stream.tapes[PAIR]
        exchange.break_down()
        until(lambda: not stream.freshness(PAIR).fresh)
        begun_ms = exchange.market.now_ms()
        until(lambda: exchange.market.now_ms() > begun_ms + 6_000)
        exchange.recover()
        until(lambda: tape.counts.recovered > 0)
        until(lambda: not tape.gaps(), 20.0)
        assert tape.counts.missing == 0
        assert tape.counts.recovered > 10_000
        assert not [told for told in stream.news if "could not be recovered" in told]


def test_rest_that_refuses_for_ever_is_given_up(exchange: LoopbackExchange) -> None:
    timing = replace(QUICK, patience_s=0.5)
    with following(exchange, timing=timing) as stream:
        until_fresh(stream)
        exchange.refuse(503, 60.0)
        newest = ids_of(stream, PAIR)[-1]
        lost = set(range(newest + 30, newest + 35))
        exchange.lose(SYMBOL, lost)
        until(lambda: bool(stream.news))
        assert missing_ids(stream, PAIR) == lost
        assert stream.tapes[PAIR].counts.missing == 5
        assert f"{PAIR}: 5 trade(s) between" in stream.news[0]


def test_what_nobody_has_is_known_by_number_and_lowers_the_coverage(
    exchange: LoopbackExchange, stream: TradeStream
) -> None:
    first = firsts(stream)
    exchange.faults = Faults(gaps=0.2, rest_hole=0.3)
    time.sleep(0.8)
    exchange.faults = Faults()

    def settled() -> bool:
        ids = set(ids_of(stream, PAIR))
        due = set(due_ids(exchange, PAIR, first[PAIR]))
        return due - ids == exchange.log.lost(SYMBOL) & due and not stream.tapes[PAIR].gaps()

    until(settled, 12.0)
    lost = exchange.log.lost(SYMBOL) - set(ids_of(stream, PAIR))
    tape = stream.tapes[PAIR]
    assert lost
    assert missing_ids(stream, PAIR) == lost
    assert tape.counts.missing == len(lost)
    flow = tape.flow(0, 2**62)
    assert (flow["coverage"] < 1.0).any()
    assert sum(f"{PAIR}: " in text for text in stream.news)


def test_an_exchange_that_skews_its_clock_and_drops(exchange: LoopbackExchange) -> None:
    exchange.faults = Faults(skew=-4.0)
    with following(exchange) as stream:
        until_fresh(stream)
        first = firsts(stream)
        exchange.drop_connections()
        until(lambda: exchange.log.connections == 2)
        until_fresh(stream)
        until(lambda: abs(stream.exchange_now_ms() - time.time() * 1000 + 4_000) < 150)
        until(lambda: all_there(exchange, stream, first))


RECORDED = {
    "binance": ("hftbacktest_spot_*.gz", {"BTC/USDT": "BTCUSDT", "ETH/USDT": "ETHUSDT"}),
    "coinbase": ("cryptofeed_COINBASE.jsonl.zst", {"BTC/USD": "BTC-USD", "ETH/USD": "ETH-USD"}),
}


@pytest.mark.parametrize("name", RECORDED)
def test_every_trade_of_recorded_frames_is_on_the_tape(name: str) -> None:
    pattern, symbols = RECORDED[name]
    paths = sorted((SHARED / "websocket").glob(pattern))
    if not paths:
        pytest.skip("needs recorded frames in ../shared/data/websocket")
    with Playback(paths) as playback:

        def connect() -> Any:
            options = {"fetchMarkets": {"types": ["spot"]}}
            config = {"urls": playback.urls, "timeout_on_exit": 1, "options": options}
            return getattr(ccxt.pro, name)(config)

        settings = Settings(tape_trades=200_000)
        stream = TradeStream(connect, 60_000, settings, timing=QUICK)
        stream.follow(symbols)
        stream.start()
        try:
            assert playback.finished.wait(60)
            for pair, symbol in symbols.items():
                wanted = set(playback.trade_ids(symbol))
                # To read all ids again and again would keep the stream from its work.
                until(lambda: stream.tapes[pair].counts.trades >= len(wanted))  # noqa: B023
                assert wanted <= set(ids_of(stream, pair))
                counts = stream.tapes[pair].counts
                assert counts.missing == counts.rejected == counts.late == 0
                until(lambda: stream.tapes[pair].ids_consecutive is True)  # noqa: B023
                share = agreement(stream.tapes[pair].trades(0, 2**62))
                assert share > 0.7
        finally:
            stream.stop()


def agreement(trades: Any) -> float:
    """How often a rise of the price comes with a buying taker, and a fall with a selling one."""
    step = np.diff(trades["price"])
    return float(((step > 0) == trades["taker_buy"][1:])[step != 0].mean())


def test_a_restart_of_the_exchange_and_whitelists_that_change_all_the_time() -> None:
    rng = np.random.default_rng(1)
    faults = Faults(drop=1.5, gaps=0.02, reorder=(0.1, 0.2), duplicates=(0.1, 0.2), rest_5xx=0.1)
    with (
        LoopbackExchange(busy_market(200.0), faults=faults) as exchange,
        following(exchange, PAIRS, client_of(exchange)) as stream,
    ):
        until_fresh(stream)
        first = ids_of(stream, PAIRS[0])[0]
        for _ in range(10):
            stream.follow([PAIRS[0], *rng.choice(PAIRS[1:], rng.integers(0, 3), False)])
            time.sleep(float(rng.uniform(0.05, 0.6)))
        exchange.faults = Faults()
        until(lambda: complete(exchange, stream, PAIRS[0], first), 20.0)
        until(lambda: stream.tapes[PAIRS[0]].counts.missing == 0)
        until(lambda: exchange.open_connections == 1)
