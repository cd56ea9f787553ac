"""The trade stream on futures: some frames use up an id and are no trade of the market."""

from __future__ import annotations

import numpy as np
import pytest
from trade_market import (
    NotesRequests,
    busy_market,
    client_of,
    following,
    ids_of,
    until,
    until_fresh,
)

from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults
from lstm_model.practice.perpetual import Perpetual, perpetuals
from lstm_model.practice.tape_market import Listing
from lstm_model.stream.trade_stream import TradeStream

PAIR, SYMBOL = "AAA/USDT:USDT", "AAAUSDT"


def future_of(exchange: LoopbackExchange) -> Perpetual:
    listing: Listing = perpetuals(exchange.market).listing(SYMBOL)
    assert isinstance(listing, Perpetual)
    return listing


def due(exchange: LoopbackExchange, first: int, margin_ms: int = 300) -> list[int]:
    """The ids of the market's trades from `first` on, those of the last moment left out."""
    future = future_of(exchange)
    stop = future.trades.due(exchange.market.now_ms() - margin_ms)
    return [number for number in future.ids(0, stop).tolist() if number >= first]


def voids_since(exchange: LoopbackExchange, stream: TradeStream) -> int:
    """How many frames since the tape's first trade were no trades."""
    future, first = future_of(exchange), ids_of(stream, PAIR)[0]
    stop = future.trades.due(exchange.market.now_ms() - 300)
    return len(future.voids(future.position(first), stop))


def assert_whole(exchange: LoopbackExchange, stream: TradeStream) -> None:
    """All trades are there, nothing else, and nobody heard of anything missing."""
    tape, first = stream.tapes[PAIR], ids_of(stream, PAIR)[0]
    now_ms = exchange.market.now_ms()
    until(lambda: tape.last_time_ms > now_ms)  # by then every loss of before is known
    until(lambda: set(due(exchange, first)) <= set(ids_of(stream, PAIR)))
    until(lambda: not tape.gaps())
    wanted = set(future_of(exchange).ids(0, len(future_of(exchange).trades)).tolist())
    assert set(ids_of(stream, PAIR)) <= wanted
    assert tape.counts.missing == tape.counts.rejected == 0
    assert not tape.missing()
    assert not [told for told in stream.news if "could not be recovered" in told]


@pytest.mark.lengthy
def test_frames_that_are_no_trades_leave_tape_and_candles_alone() -> None:
    with (
        LoopbackExchange(busy_market(400.0)) as exchange,
        following(exchange, [PAIR], client_of(exchange, mode="futures")) as stream,
    ):
        until_fresh(stream)
        asked = stream.tapes[PAIR].counts.trades
        until(lambda: stream.tapes[PAIR].counts.trades > asked + 2_000)
        assert voids_since(exchange, stream) > 5
        assert_whole(exchange, stream)
        future, tape = future_of(exchange), stream.tapes[PAIR]
        held = tape.trades(0, 2**62)
        places = np.searchsorted(future.ids(0, len(future.trades)), held["id"])
        assert held["price"].tolist() == (future.trades.price[places] / 100).tolist()
        assert tape.ids_consecutive


@pytest.mark.lengthy
@pytest.mark.parametrize("key", ["", "k"])
def test_what_a_broken_connection_missed_comes_back_and_holes_of_rest_are_no_loss(
    key: str,
) -> None:
    NotesRequests.asked.clear()
    with LoopbackExchange(busy_market(400.0)) as exchange:
        connect = client_of(exchange, NotesRequests, mode="futures", apiKey=key)
        with following(exchange, [PAIR], connect) as stream:
            until_fresh(stream)
            exchange.break_down()
            until(lambda: not stream.freshness(PAIR).fresh)
            seen = len(ids_of(stream, PAIR))
            until(lambda: len(due(exchange, ids_of(stream, PAIR)[0])) > seen + 1_500)
            exchange.recover()
            until_fresh(stream)
            assert voids_since(exchange, stream) > 3
            assert_whole(exchange, stream)
        asked = [params.get("fetchTradesMethod", "") for params in NotesRequests.asked]
        assert ("fapiPublicGetHistoricalTrades" in asked) == bool(key)


@pytest.mark.lengthy
def test_lost_frames_are_found_by_rest_whether_they_were_trades_or_not() -> None:
    with LoopbackExchange(busy_market(300.0), faults=Faults(gaps=0.05)) as exchange:
        connect = client_of(exchange, mode="futures")
        with following(exchange, [PAIR], connect) as stream:
            until_fresh(stream)
            until(lambda: stream.tapes[PAIR].counts.recovered > 50)
            exchange.faults = Faults()
            assert_whole(exchange, stream)
