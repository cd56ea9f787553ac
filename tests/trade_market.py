"""A market that trades now, an exchange that serves it and a stream that follows it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import ccxt.pro
import numpy as np

from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.practice.tape_market import (
    Instrument,
    Listing,
    Market,
    Trades,
    make_market,
    wall_clock_ms,
)
from lstm_model.settings import Settings
from lstm_model.stream.timing import Timing
from lstm_model.stream.trade_stream import TradeStream

PAIRS = ("AAA/USDT", "BBB/USDT", "CCC/USDT")
MINUTE_MS = 60_000
QUICK = Timing(
    first_retry_s=0.05, longest_retry_s=0.4, subscribe_s=3.0, settle_s=0.05, grace_s=0.15,
    patience_s=30.0, tick_s=0.05, check_s=0.1, margin_s=0.5,
)  # fmt: skip


def busy_market(
    per_second: float = 60.0, pairs: Sequence[str] = PAIRS, past_s: float = 30.0
) -> Market:
    """Trades from `past_s` ago until 60 s from now; each pair begins with an id of its own."""
    now_ms, listings = wall_clock_ms(), []
    for place, pair in enumerate(pairs):
        rng = np.random.default_rng(place)
        count = int(per_second * (past_s + 60.0))
        times = now_ms + rng.integers(int(-past_s * 1000), 60_000, count)
        price = 100_000 + np.cumsum(rng.integers(-1, 2, count))
        trades = Trades(
            np.sort(times), price, rng.integers(1, 100, count), rng.random(count) < 0.5,
            first_id=1_000_000 * (place + 1),
        )  # fmt: skip
        listings.append(Listing(Instrument(pair.split("/")[0], "USDT", 2, 3), trades))
    return make_market(listings)


class NotesRequests(ccxt.pro.binance):  # type: ignore[misc]
    """Remembers what was asked of REST."""

    asked: ClassVar[list[dict[str, Any]]] = []

    async def fetch_trades(self, symbol: str, *args: Any, **more: Any) -> Any:
        self.asked.append(args[2])
        return await super().fetch_trades(symbol, *args, **more)


def client_of(
    exchange: LoopbackExchange, kind: Any = None, mode: str = "spot", **options: Any
) -> Callable[[], Any]:
    """Makes fresh ccxt objects that talk to this exchange."""
    config = loopback_overlay(exchange.url, mode)["exchange"]["ccxt_config"]
    config["options"]["defaultType"] = {"spot": "spot", "futures": "swap"}[mode]  # as freqtrade
    # ccxt waits that long (ms) after each close, for the sake of TLS.
    return lambda: (kind or ccxt.pro.binance)({**config, "timeout_on_exit": 1, **options})


@contextmanager
def following(
    exchange: LoopbackExchange,
    pairs: Sequence[str] = PAIRS[:2],
    connect: Callable[[], Any] | None = None,
    on_trades: Callable[[set[str]], None] | None = None,
    timing: Timing = QUICK,
    silence_s: float = 2.0,
) -> Iterator[TradeStream]:
    """A running stream, stopped at the end."""
    settings = Settings().model_copy(update={"stream_silence_s": silence_s})  # below its bound
    stream = TradeStream(connect or client_of(exchange), MINUTE_MS, settings, on_trades, timing)
    stream.follow(pairs)
    stream.start()
    try:
        yield stream
    finally:
        stream.stop()


def until(true: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for something, but not for ever."""
    end_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def until_fresh(stream: TradeStream) -> None:
    """Wait until all pairs are followed and what was before is known."""
    tapes = stream.tapes.items()
    until(
        lambda: all(
            stream.freshness(pair).fresh and tape.ids_consecutive is not None
            for pair, tape in tapes
        )
    )


def ids_of(stream: TradeStream, pair: str) -> list[int]:
    """The ids on a tape, in its order."""
    return stream.tapes[pair].trades(0, 2**62)["id"].tolist()


def due_ids(exchange: LoopbackExchange, pair: str, first: int) -> list[int]:
    """The ids of the exchange's trades from `first` on, those of the last moment left out."""
    margin_ms = wall_clock_ms() + int(exchange.faults.skew * 1000) - 200
    ids = exchange.trade_ids(pair.replace("/", ""), None, margin_ms)
    return [number for number in ids if number >= first]


def complete(exchange: LoopbackExchange, stream: TradeStream, pair: str, known: int = 0) -> bool:
    """Whether a tape has every trade since its first one (or since the id `known`)."""
    ids = ids_of(stream, pair)
    due = due_ids(exchange, pair, known or ids[0])
    return ids == sorted(ids) and not set(due) - set(ids)


__all__ = [
    "PAIRS", "QUICK", "Faults", "NotesRequests", "busy_market", "client_of", "complete",
    "due_ids", "following", "ids_of", "until", "until_fresh",
]  # fmt: skip
