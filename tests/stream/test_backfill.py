"""What REST is asked for where trades are missing, without an exchange."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, cast

import ccxt
import numpy as np
import pytest
from trade_market import QUICK

from lstm_model.market.tape import TradeTape
from lstm_model.stream import backfill
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
    wait_s : how long who was refused is to wait
    """

    def __init__(
        self, count: int, manner: str = "since", names: str = "n", refuse: Refuse = nothing,
        wait_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.wait_s, self.asked_s = wait_s, list[float]()
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
        self.asked_s.append(time.monotonic())
        await asyncio.sleep(0)
        if (error := self.refuse(len(self.asked), pair)) is not None:
            raise Refusal(error, self.wait_s)
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


async def finish(work: Backfill, tracks: Sequence[Track]) -> None:
    """Tend until no gap is open, and end."""
    while any(track.tape.gaps() for track in tracks):
        work.tend(tracks)
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    await work.stop()


def filled(
    rest: PagedRest, first: int, last: int, timing: Timing = AT_ONCE, pairs: Sequence[str] = (PAIR,)
) -> tuple[list[Track], list[str]]:
    """What became of gaps between these trades, and what was told."""
    told = list[str]()

    async def fill() -> list[Track]:
        tracks = [interrupted(rest, first, last, pair) for pair in pairs]
        work = Backfill(cast(Rest, rest), tracks[0].feed, timing, told.append)
        await finish(work, tracks)
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


class Faulty(PagedRest):
    """Answers that are not what they should be, `fault` says how: all of them or the first."""

    def __init__(self, manner: str, names: str, fault: str) -> None:
        super().__init__(3_000, manner, names)
        self.fault = fault
        if fault == "one moment":  # more trades than a page holds
            at_ms = self.known[1_000]["timestamp"]
            self.known[1_000:1_150] = [it | {"timestamp": at_ms} for it in self.known[1_000:1_150]]
        if fault == "unreadable":
            for number in range(700, 1_700, 7):
                self.known[number] = {**self.known[number], "price": None}
        self.told = list(self.known)

    async def trades(self, pair: str, since_ms: int | None = None, params: Any = None) -> Any:
        if self.fault == "forgotten":
            self.known = self.told[1_200:]
        page, is_first = await super().trades(pair, since_ms, params), len(self.asked) == 1
        match self.fault:
            case "nothing" if is_first:
                return []
            case "nothing later" if len(self.asked) == 5:
                return []
            case "the future" if is_first:
                in_days = page[-1]["timestamp"] + 10 * 86_400_000
                return [*page[:50], page[50] | {"timestamp": in_days}, *page[51:]]
            case "stale":
                return self.told[400:500]
            case "one shorter" if not is_first:
                return page[1:]
        return page


@pytest.mark.parametrize(
    "fault",
    ["nothing", "nothing later", "the future", "forgotten", "unreadable", "stale", "one shorter",
     "one moment"],
)  # fmt: skip
@pytest.mark.parametrize("names", ["", "n"])
@pytest.mark.parametrize("manner", ["since", "window", "newest"])
def test_no_gap_counts_as_whole_that_is_not(manner: str, names: str, fault: str) -> None:
    """Whatever the exchange answers: all trades are there, or it is told that some are not."""
    rest = Faulty(manner, names, fault)
    [track], told = filled(rest, 500, 2_000)
    is_whole = track.tape.counts.trades == 3_000
    assert bool(track.tape.missing()) == bool(told)
    assert is_whole or told
    if manner != "newest" and fault in ("nothing", "nothing later", "the future"):
        assert is_whole
        assert not told
    assert len(rest.asked) < 600


def test_odd_answers_now_and_then_do_not_end_a_long_search() -> None:
    """Tries were counted over the whole gap, however far it had been filled."""

    class Odd(PagedRest):
        async def trades(self, pair: str, since_ms: int | None = None, params: Any = None) -> Any:
            page = await super().trades(pair, since_ms, params)
            return [] if len(self.asked) % 30 == 29 else page

    [track], told = filled(Odd(30_000), 10, 29_990)
    assert track.tape.counts.trades == 30_000
    assert told == []


@pytest.mark.parametrize("manner", ["since", "newest"])
def test_what_a_websocket_kept_back_is_a_gap_although_rest_told_newer_ones(manner: str) -> None:
    """REST was asked about a silence, and its newest page hid what lay before that."""
    told = list[str]()

    async def fall_silent() -> Track:
        rest = PagedRest(1_000, manner)
        track = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), TradeFeed(None, print))
        track.tape.ids_consecutive = False
        track.resume(rest.base_ms)
        track.feed.begin_frame()
        for trade in rest.known[:500]:
            track.take(trade)
        work = Backfill(cast(Rest, rest), track.feed, AT_ONCE, told.append)
        assert await work.is_behind(track)
        track.pause()
        track.resume(int(rest.known[-1]["timestamp"]) + 1)
        await finish(work, [track])
        return track

    track = asyncio.run(fall_silent())
    assert track.tape.counts.trades == (1_000 if manner == "since" else 600)
    assert bool(track.tape.missing()) == bool(told) == (manner == "newest")


def test_a_silence_is_found_out_although_rest_put_what_it_hid_on_the_tape() -> None:
    """Each look at REST passed for what the websocket had told, so a deaf one stayed for ever."""

    async def fall_silent() -> list[bool]:
        rest = PagedRest(1_000)
        track = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), TradeFeed(None, print))
        work = Backfill(cast(Rest, rest), track.feed, AT_ONCE, lambda message: None)
        track.resume(rest.base_ms)
        for trade in rest.known[:500]:
            track.take(trade)
        put(track, rest.known)
        deaf = await work.is_behind(track)
        track.pause()
        track.resume(int(rest.known[-1]["timestamp"]) + 1)
        return [deaf, await work.is_behind(track)]

    assert asyncio.run(fall_silent()) == [True, False]


@pytest.mark.parametrize("behind_ms", [-3_600_000, -3_000, 0, 3_000, 3_600_000])
def test_what_was_before_a_connection_is_no_silence_whatever_clock_the_exchange_has(
    behind_ms: int,
) -> None:
    """Ours is not measured before the first trade; by it, a deaf connection stayed for an hour."""

    async def look_twice() -> list[bool]:
        rest = PagedRest(1_000)
        known, rest.known = rest.known, rest.known[:500]
        track = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), TradeFeed(None, lambda work: None))
        work = Backfill(cast(Rest, rest), track.feed, AT_ONCE, lambda message: None)
        track.resume(int(known[499]["timestamp"]) + behind_ms)
        await caught_up(work, track)
        first = await work.is_behind(track)
        rest.known = known
        return [first, await work.is_behind(track)]

    assert asyncio.run(look_twice()) == [False, True]


async def caught_up(work: Backfill, track: Track) -> None:
    work.catch_up(track)
    while work.busy:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("before", "behind_ms", "told_first"),
    [*product([600], [-3_000, 0, 3_000], [0, 1]), (0, 0, 0), (0, 0, 1)],
)
def test_what_a_connection_that_never_told_anything_hid_is_a_gap(
    before: int, behind_ms: int, told_first: int
) -> None:
    """The gap began at the newest trade that REST had told when it was asked about the silence."""
    told = list[str]()

    async def never_tell() -> set[int]:
        rest = PagedRest(1_400)
        known, rest.known = rest.known, rest.known[:before]
        track = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), TradeFeed(None, lambda work: None))
        work = Backfill(cast(Rest, rest), track.feed, AT_ONCE, told.append)
        track.resume(int(known[max(0, before - 1)]["timestamp"]) + bool(before) + behind_ms)
        await caught_up(work, track)
        for trade in known[before : before + told_first]:
            track.take(trade)
        rest.known = known
        assert await work.is_behind(track)
        track.pause()
        track.resume(int(known[-1]["timestamp"]) + 1)
        await finish(work, [track])
        since = {trade_number(trade["id"]) for trade in known[max(0, before - PAGE) :]}
        return since - set(track.tape.trades(0, 2**62)["id"].tolist())

    assert asyncio.run(never_tell()) == set()
    assert told == []


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_page_of_before_the_last_known_trade_shows_nothing(forgotten: bool) -> None:
    """It came from a cache, and passed for whole where nothing was known to be traded since."""
    told = list[str]()

    class Cached(PagedRest):
        async def trades(self, pair: str, since_ms: int | None = None, params: Any = None) -> Any:
            await super().trades(pair, since_ms, params)
            return self.known[300:380]

    async def search() -> Track:
        rest = Cached(3_000)
        known = rest.known
        size = 30 if forgotten else 40_000
        track = Track(PAIR, TradeTape(PAIR, 60_000, size), TradeFeed(None, lambda work: None))
        track.tape.ids_consecutive = False
        track.resume(int(known[0]["timestamp"]))
        put(track, known[:500])
        track.told_ms = int(known[499]["timestamp"])
        track.pause()
        track.resume(int(known[-1]["timestamp"]) + 1)
        await finish(Backfill(cast(Rest, rest), track.feed, AT_ONCE, told.append), [track])
        return track

    track = asyncio.run(search())
    assert len(track.tape.missing()) == len(told) == 1


def test_a_page_that_begins_in_the_second_of_the_last_known_trade_leaves_some_out() -> None:
    """Where REST tells whole seconds, its time says little."""

    class Seconds(PagedRest):
        async def trades(self, pair: str, since_ms: int | None = None, params: Any = None) -> Any:
            page = await super().trades(pair, since_ms, params)
            return [it | {"timestamp": it["timestamp"] // 1_000 * 1_000} for it in page]

    rest = Seconds(3_000, "newest")
    first = next(n for n in range(2_800, 2_900) if rest.known[n]["timestamp"] % 1_000 < EVERY_MS)
    rest.known = rest.known[: first + 20 + PAGE]  # whose newest page begins in that second, too
    [track], told = filled(rest, first + 10, first + PAGE)
    assert track.tape.counts.trades < len(rest.known)
    assert len(told) == len(track.tape.missing()) == 1


def test_trades_of_futures_that_could_not_be_read_are_missing() -> None:
    """Where REST leaves out ids that never were a trade's, these would have passed for such."""
    rest = Faulty("window", "", "unreadable")
    rest.leaves_out = lambda pair: True  # type: ignore[method-assign]
    [track], told = filled(rest, 500, 2_000)
    assert track.tape.counts.trades + track.tape.counts.missing == 3_000
    assert track.tape.counts.missing == len(range(700, 1_700, 7))
    assert len(told) == 1


def test_what_fails_in_a_way_of_its_own_is_told_once_and_given_up() -> None:
    """It was begun anew five times a second, without a word."""

    def refuse(number: int, pair: str) -> BaseException | None:
        raise ZeroDivisionError

    rest = PagedRest(1_000, refuse=refuse)
    with pytest.MonkeyPatch.context() as patch:
        failed = list[Any]()
        patch.setattr(backfill, "log_failure", failed.append)
        [track], told = filled(rest, 10, 990)
    assert len(rest.asked) == len(failed) == len(told) == len(track.tape.missing()) == 1


def test_an_exchange_that_wants_to_be_left_alone_is() -> None:
    """Each of 40 pairs went on asking, which makes a ban longer."""

    def refuse(number: int, pair: str) -> BaseException | None:
        return ccxt.DDoSProtection() if number <= 4 else None

    rest = PagedRest(1_000, names="", refuse=refuse, wait_s=0.4)
    tracks, told = filled(rest, 10, 990, pairs=[f"A{number}/USDT" for number in range(40)])
    assert rest.asked_s[4] >= rest.asked_s[3] + 0.4
    assert all(track.tape.counts.trades == 1_000 for track in tracks)
    assert told == []


def test_patience_is_for_all_gaps_of_a_pair_together() -> None:
    def refuse(number: int, pair: str) -> BaseException | None:
        return ccxt.ExchangeNotAvailable()

    timing, told = replace(AT_ONCE, patience_s=0.3), list[str]()

    rest = PagedRest(20_000, names="", refuse=refuse)

    async def fill() -> Track:
        track = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), TradeFeed(None, print))
        track.tape.ids_consecutive = True
        put(track, [trade for number, trade in enumerate(rest.known) if number % 1_500])
        work = Backfill(cast(Rest, rest), track.feed, timing, told.append)
        await finish(work, [track])
        return track

    track = asyncio.run(asyncio.wait_for(fill(), 30.0))
    requests = Counter(since_ms for _, since_ms in rest.asked)
    assert len(requests) == 13
    assert sum(count > 1 for count in requests.values()) <= 1  # the first; the others once each
    assert track.tape.counts.missing == 13
    assert len(told) == 1


def test_whoever_is_no_longer_followed_is_no_longer_asked_for() -> None:
    """And whoever comes back need not wait for what was begun for him before."""

    async def leave() -> tuple[bool, int]:
        rest = PagedRest(1_000, refuse=lambda number, pair: ccxt.ExchangeNotAvailable())
        track = interrupted(rest, 10, 990)
        slow = replace(AT_ONCE, first_retry_s=5.0, longest_retry_s=5.0)
        work = Backfill(cast(Rest, rest), track.feed, slow, print)
        work.catch_up(track)
        work.tend([track])
        await asyncio.sleep(0.05)
        rest.refuse = nothing
        again = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), track.feed)
        work.catch_up(again)
        for _ in range(20):
            work.tend([again])
            await asyncio.sleep(0.01)
        return work.busy, again.tape.counts.trades

    assert asyncio.run(leave()) == (False, PAGE)


def test_a_beginning_that_rest_does_not_know_yet_is_waited_for() -> None:
    """Between the newest trade that REST knew and the subscription a hundred were missing."""

    async def begin() -> Track:
        rest = PagedRest(1_000)
        later, rest.known = rest.known, rest.known[:900]
        track = Track(PAIR, TradeTape(PAIR, 60_000, 40_000), TradeFeed(None, print))
        track.resume(int(later[950]["timestamp"]))
        put(track, later[950:])
        timing = replace(AT_ONCE, margin_s=0.1)
        work = Backfill(cast(Rest, rest), track.feed, timing, print)
        work.catch_up(track)
        await asyncio.sleep(0.05)
        rest.known = later
        while work.busy:
            await asyncio.sleep(0.01)
        return track

    track = asyncio.run(begin())
    first_ms = int(track.tape.trades(0, 2**62)["time_ms"][0])
    assert track.tape.counts.trades >= 150
    known = track.tape.trades(first_ms, 2**62)["time_ms"]
    begins_ms = track.tape._known.begins_ms
    assert (np.diff(known[known >= begins_ms]) == EVERY_MS).all()


@pytest.mark.lengthy
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


@pytest.mark.parametrize("error", [ccxt.DDoSProtection, ccxt.RateLimitExceeded])
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"Retry-After": "30"}, 30.0), ({"retry-after": "7"}, 7.0), ({"Retry-After": "600"}, 60.0),
     ({"Retry-After": "nan"}, 60.0), ({"Retry-After": "-5"}, 0.0), ({"Retry-After": "soon"}, 0.0),
     ({}, 0.0), (None, 0.0)],
)  # fmt: skip
def test_who_asks_too_much_waits_as_long_as_he_is_told(
    error: type[Exception], headers: dict[str, str] | None, wait_s: float
) -> None:
    exchange = ccxt.binance()
    exchange.last_response_headers = headers

    async def refuse(*_: Any) -> None:
        raise error

    exchange.fetch_trades = refuse
    with pytest.raises(Refusal) as refused:
        asyncio.run(Rest(exchange).trades(PAIR))
    assert refused.value.wait_s == wait_s
    assert refused.value.passing
