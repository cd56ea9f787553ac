"""What REST is asked for where trades are missing, without an exchange."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import ccxt
import pytest
from trade_market import QUICK

from lstm_model.market.tape import TradeTape
from lstm_model.stream.backfill import Backfill
from lstm_model.stream.connection import Refusal, Rest
from lstm_model.stream.customs import Customs, RawTrade
from lstm_model.stream.timing import Timing
from lstm_model.stream.trade_feed import Track, TradeFeed, records, trade_number

PAIR, PAGE, EVERY_MS = "AAA/USDT", 100, 10
AT_ONCE = replace(QUICK, first_retry_s=0.001, longest_retry_s=0.004, grace_s=0.0, margin_s=0.0)
Refuse = Callable[[int, str], BaseException | None]


def nothing(number: int, pair: str) -> None:
    """Refuse no request."""


class PagedRest:
    """Past trades, one every 10 ms, as exchanges of different manners hand them out.

    Parameters
    ----------
    names : what precedes a trade's number; with any, ids are no numbers
    refuse : number of the request and pair -> why it is refused, or None
    """

    def __init__(
        self, count: int, manner: str = "since", names: str = "n", refuse: Refuse = nothing
    ) -> None:
        self.manner, self.refuse, self.has_key, self.name = manner, refuse, False, "paged"
        self.customs = Customs(window_ms=20_000 if manner == "window" else 0)
        self.base_ms = time.time_ns() // 1_000_000 - EVERY_MS * count - 60_000
        self.known = [self._trade(names, number) for number in range(count)]
        self.asked = list[tuple[str, int | None]]()

    def _trade(self, names: str, number: int) -> RawTrade:
        at_ms = self.base_ms + EVERY_MS * number
        name = f"{names}{number}"
        return {"id": name, "timestamp": at_ms, "price": 1.0, "amount": 1.0, "side": "buy"}

    def leaves_out(self, pair: str) -> bool:
        return False

    def kind(self, pair: str) -> str:
        return "spot"

    async def trades(self, pair: str, since_ms: int | None = None, params: Any = None) -> Any:
        self.asked.append((pair, since_ms))
        await asyncio.sleep(0)
        if (error := self.refuse(len(self.asked), pair)) is not None:
            raise Refusal(error)
        if since_ms is None or self.manner == "newest":
            return self.known[-PAGE:]
        start = bisect_left(self.known, since_ms, key=lambda trade: trade["timestamp"])
        until_ms = (params or {}).get("until", math.inf)
        found = [it for it in self.known[start:] if it["timestamp"] <= until_ms][: 100 * PAGE]
        return found[:PAGE] if self.manner == "since" else found[-PAGE:]


def interrupted(rest: PagedRest, first: int, last: int, pair: str = PAIR) -> Track:
    """What knows the trades until `first` and from `last` on, as after an interruption."""
    loop = asyncio.get_running_loop()
    track = Track(pair, TradeTape(pair, 60_000, 40_000), TradeFeed(None, loop.call_soon))
    tape = track.tape
    tape.ids_consecutive = str(rest.known[0]["id"]).isdecimal()
    tape.watch_from(rest.base_ms)
    put(track, rest.known[:first])
    tape.interrupt()
    tape.resume(int(rest.known[last]["timestamp"]))
    put(track, rest.known[last:])
    return track


def put(track: Track, trades: Sequence[RawTrade]) -> None:
    track.tape.extend(records(trades, Customs(), time.time_ns()))


def filled(
    rest: PagedRest, first: int, last: int, timing: Timing = AT_ONCE, pairs: Sequence[str] = (PAIR,)
) -> tuple[list[Track], list[str]]:
    """What became of gaps between these trades, and what was told."""
    told = list[str]()

    async def fill() -> list[Track]:
        tracks = [interrupted(rest, first, last, pair) for pair in pairs]
        backfill = Backfill(cast(Rest, rest), tracks[0].feed, timing, told.append)
        while any(track.tape.gaps() for track in tracks):
            backfill.tend(tracks)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)
        await backfill.stop()
        return tracks

    return asyncio.run(asyncio.wait_for(fill(), 30.0)), told


@pytest.mark.parametrize(
    ("manner", "whole"), [("since", True), ("window", True), ("newest", False)]
)
def test_a_gap_in_time_is_filled_as_far_as_the_exchange_tells(manner: str, whole: bool) -> None:
    rest = PagedRest(3_000, manner)
    [track], told = filled(rest, 500, 2_000)
    assert (track.tape.counts.trades == 3_000) == whole
    assert bool(track.tape.missing()) == bool(told) == (not whole)
    assert len(rest.asked) < 60


@pytest.mark.parametrize("names", ["", "n"])
def test_a_gap_of_hundreds_of_pages_is_filled_to_its_end(names: str) -> None:
    """It was left after 200, and where only its time is known the rest was taken for whole."""
    [track], told = filled(PagedRest(30_000, names=names), 10, 29_990)
    assert track.tape.counts.trades == 30_000
    assert track.tape.counts.missing == 0
    assert not track.tape.missing()
    assert told == []


def now_and_then(number: int, pair: str) -> BaseException | None:
    """Six requests of 26 in a row, as of a limit that twenty pages reach."""
    return ccxt.RateLimitExceeded() if number % 26 >= 20 else None


@pytest.mark.parametrize("names", ["", "n"])
def test_no_page_that_was_told_is_asked_for_again_because_another_was_refused(names: str) -> None:
    rest = PagedRest(12_000, names=names, refuse=now_and_then)
    [track], told = filled(rest, 10, 11_990)
    assert track.tape.counts.trades == 12_000
    assert told == []
    assert len(rest.asked) < 1.5 * 12_000 / PAGE


def test_who_is_answered_does_not_wait_for_those_who_are_refused() -> None:
    pairs = [f"{name}/USDT" for name in "ABCDEFGH"]

    def refuse(number: int, pair: str) -> BaseException | None:
        return None if pair == pairs[-1] else ccxt.ExchangeNotAvailable()

    rest = PagedRest(1_000, names="", refuse=refuse)
    timing = replace(AT_ONCE, first_retry_s=0.2, longest_retry_s=0.2, patience_s=1.0)
    tracks, told = filled(rest, 10, 990, timing, pairs)
    assert [track.tape.counts.trades for track in tracks] == [20] * 7 + [1_000]
    assert len(told) == 7
    last = max(place for place, (pair, _) in enumerate(rest.asked) if pair == pairs[-1])
    assert last < 3 * len(pairs) + 1_000 // PAGE  # while the others waited for the first time


def test_rest_is_asked_no_longer_than_patience_lasts() -> None:
    def refuse(number: int, pair: str) -> BaseException | None:
        return None if number % 6 == 0 else ccxt.ExchangeNotAvailable()

    rest = PagedRest(30_000, names="", refuse=refuse)
    timing = replace(AT_ONCE, first_retry_s=0.02, longest_retry_s=0.1, patience_s=0.5)
    begun_s = time.monotonic()
    [track], [told] = filled(rest, 10, 29_990, timing)
    assert time.monotonic() - begun_s < 10.0  # it would have taken 70
    assert track.tape.counts.trades + track.tape.counts.missing == 30_000
    assert f"{track.tape.counts.missing} trade(s) between" in told


def test_a_trade_with_numbers_that_cannot_be_is_left_out() -> None:
    """One of them ended the task that fills gaps, and it was begun anew without end."""
    trade = {"id": "5", "timestamp": 1_000, "price": 1.0, "amount": 1.0, "side": "buy"}
    odd: list[dict[str, Any]] = [
        {"timestamp": 10**25}, {"timestamp": math.inf}, {"id": "5", "price": math.nan},
        {"info": {"f": 1, "l": 10**12}}, {"info": {"f": 2**70, "l": 2**70}},
        {"info": {"f": -5, "l": 5}}, {"info": {"f": 9, "l": 5}},
    ]  # fmt: skip
    found = records([trade, *(trade | change for change in odd)], Customs(), 1)
    assert found["id"].tolist() == [trade_number("5")]
