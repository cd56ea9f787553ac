"""Which pair is followed on which connection, and whether that connection still speaks the truth.

A connection is never taken away before its successor has subscribed, so a changing whitelist
loses no trade: for a moment both bring them, and the tapes keep each once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from lstm_model.stream.backfill import Backfill
from lstm_model.stream.connection import Line, Refusal, Rest, open_exchange
from lstm_model.stream.timing import Backoff, Timing
from lstm_model.stream.trade_feed import Track, TradeFeed, log_failure

logger = logging.getLogger(__name__)

_PROBE_AFTER = 2 / 3  # chosen: of the allowed silence, so that quiet markets stay fresh
_UNPROVEN = 3.0  # chosen: times the allowed silence, with REST not answering either
_FAR_LONGER = 20.0  # chosen: times a pair's usual pace; by chance it happens once in e^20 trades
_TROUBLE_TRIES = 5  # chosen: connections that failed in a row before the user hears of it


def regroup(
    wanted: Collection[str], groups: Iterable[Collection[str]], most: int
) -> list[frozenset[str]]:
    """Divide pairs into groups of at most `most`, keeping together what is together.

    Examples
    --------
    >>> [sorted(group) for group in regroup("abcde", ["xab", "c"], 3)]
    [['a', 'b', 'd'], ['c', 'e']]
    """
    left, kept = set(wanted), []
    for group in groups:
        kept.append(left & set(group))
        left -= kept[-1]
    rest = sorted(left)
    if len([group for group in kept if group]) > math.ceil(len(wanted) / most) + 1:
        kept, rest = [], sorted(wanted)
    for group in kept:
        while rest and group and len(group) < most:
            group.add(rest.pop(0))
    chunks = [set(rest[start : start + most]) for start in range(0, len(rest), most)]
    return [frozenset(group) for group in (*kept, *chunks) if group]


class Wire:
    """One group of pairs and the connection that follows it at the moment."""

    def __init__(self, tracks: Mapping[str, Track]) -> None:
        self.tracks = dict(tracks)
        self.pairs = frozenset(tracks)
        self.line: Line | None = None
        self.subscribed = self.retiring = False
        self.alive_s = -math.inf
        self.task: asyncio.Task[None] | None = None
        self.probe: asyncio.Task[None] | None = None
        self.probe_at_s = -math.inf

    def carries(self, track: Track) -> bool:
        """Whether trades go to this very track; a pair that was left and came back has another."""
        return self.tracks.get(track.pair) is track

    def is_outdated(self, tracks: Mapping[str, Track]) -> bool:
        """Whether a pair that is still wanted has another track by now."""
        return any(tracks.get(pair, track) is not track for pair, track in self.tracks.items())

    def suspect(self, now_s: float, silence_s: float) -> Track | None:
        """The pair to ask REST about, if any is quiet for too long."""
        tracks = self.tracks.values()
        if now_s - self.alive_s > silence_s:
            return min(tracks, key=Track.pace_s)
        quiet = [track for track in tracks if is_strangely_quiet(track, now_s, silence_s)]
        return max(quiet, key=lambda track: track.quiet_s(now_s), default=None)


def is_strangely_quiet(track: Track, now_s: float, silence_s: float) -> bool:
    """Whether a pair that is known to be busy is silent although others on its line may not be."""
    return track.quiet_s(now_s) > max(silence_s, _FAR_LONGER * track.pace_s())


class Switchboard:
    """Keeps the wanted pairs connected.

    Parameters
    ----------
    connect : gives a fresh ccxt.pro exchange object
    tell : takes what the user should hear of
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        rest: Rest,
        feed: TradeFeed,
        backfill: Backfill,
        tell: Callable[[str], None],
        timing: Timing,
        silence_s: float,
    ) -> None:
        self._connect, self._rest, self._feed, self._backfill = connect, rest, feed, backfill
        self._tell, self._timing, self._silence_s = tell, timing, silence_s
        self._wires: tuple[Wire, ...] = ()
        self._ending: set[asyncio.Task[Any]] = set()

    def wish(self, tracks: Mapping[str, Track]) -> None:
        """From now on follow these pairs and no others; returns at once."""
        for wire in self._wires:
            wire.retiring = wire.retiring or wire.is_outdated(tracks)
        active = [wire for wire in self._wires if not wire.retiring]
        groups = regroup(tracks, [wire.pairs for wire in active], self._rest.customs.pairs)
        for wire in active:
            wire.retiring = wire.pairs not in groups
        served = {wire.pairs for wire in self._wires if not wire.retiring}
        for group in set(groups) - served:
            wire = Wire({pair: tracks[pair] for pair in group})
            wire.task = asyncio.ensure_future(self._serve(wire))
            wire.task.add_done_callback(log_failure)
            self._wires = (*self._wires, wire)
        self._retire()

    def wire_of(self, track: Track) -> Wire | None:
        """The subscribed connection that follows a pair; from any thread."""
        wires = (wire for wire in self._wires if wire.subscribed and wire.carries(track))
        return next(wires, None)

    def check(self) -> None:
        """To be called about once a second: hear whether the connections are still alive."""
        now_s = time.monotonic()
        for wire in self._wires:
            if wire.line is not None and wire.subscribed:
                self._check(wire, wire.line, now_s)

    def fail(self, reason: str) -> None:
        """Connect anew everywhere."""
        for wire in self._wires:
            if wire.line is not None:
                wire.line.fail(reason)

    async def stop(self) -> None:
        """Leave no connection and no task behind."""
        for wire in self._wires:
            self._end(wire)
        while self._ending:  # the end of a task may begin the end of its connection
            await asyncio.wait(self._ending)

    def _check(self, wire: Wire, line: Line, now_s: float) -> None:
        line.adopt()
        signs = [max(track.heard_s, track.proven_s) for track in wire.tracks.values()]
        wire.alive_s = max(wire.alive_s, *signs)
        if (silent_s := now_s - wire.alive_s) > _UNPROVEN * self._silence_s:
            return line.fail(f"silent for {silent_s:.0f} s")
        track = wire.suspect(now_s, _PROBE_AFTER * self._silence_s)
        busy = wire.probe is not None and not wire.probe.done()
        if track is not None and not busy and now_s >= wire.probe_at_s and self._rest.has_trades:
            wire.probe = asyncio.ensure_future(self._probe(wire, line, track))
            wire.probe.add_done_callback(log_failure)
        return None

    async def _probe(self, wire: Wire, line: Line, track: Track) -> None:
        """Ask REST whether a silence is true."""
        wire.probe_at_s = time.monotonic() + self._timing.check_s
        try:
            if await self._backfill.is_behind(track):
                line.fail(f"{track.pair} traded and nothing was sent")
        except Refusal as refusal:
            wire.probe_at_s = time.monotonic() + max(self._timing.check_s, refusal.wait_s)

    async def _serve(self, wire: Wire) -> None:
        backoff = Backoff(self._timing.first_retry_s, self._timing.longest_retry_s)
        while True:
            began_s = time.monotonic()
            reason = await self._follow(wire)
            self._lost(wire)
            if time.monotonic() - began_s > self._timing.healthy_s:
                backoff.reset()
            wait_s = backoff.next_s()
            logger.info("Trade stream interrupted: %s; next try in %.1f s", reason, wait_s)
            if backoff.tries == _TROUBLE_TRIES:
                self._tell(f"The trade stream cannot be kept up: {reason}; trying on")
            await asyncio.sleep(wait_s)

    async def _follow(self, wire: Wire) -> str:
        """One connection from its opening to its end; the reason of the end."""
        try:
            exchange = await open_exchange(self._connect, self._rest)
        except Refusal as refusal:
            return str(refusal)
        line = wire.line = Line(exchange, wire.tracks, self._feed)
        subscribing = asyncio.ensure_future(self._subscribe(wire, line))
        try:
            return await line.run()
        finally:
            wire.line = None
            subscribing.cancel()
            self._finish(asyncio.ensure_future(line.close()))

    async def _subscribe(self, wire: Wire, line: Line) -> None:
        try:
            await asyncio.wait_for(line.subscribed.wait(), self._timing.subscribe_s)
        except TimeoutError:
            return line.fail("no answer to the subscription")
        await asyncio.sleep(self._timing.settle_s)
        now_ms, wire.alive_s = self._feed.clock.now_ms(), time.monotonic()
        for track in self._alone(wire):
            track.resume(now_ms)
            if self._rest.has_trades:
                self._backfill.catch_up(track)
        wire.subscribed = True
        logger.info("Trade stream: following %d pair(s) on %s", len(wire.pairs), self._rest.name)
        return self._retire()

    def _lost(self, wire: Wire) -> None:
        if wire.subscribed:
            wire.subscribed = False
            for track in self._alone(wire):
                track.pause()
        self._retire()

    def _alone(self, wire: Wire) -> list[Track]:
        """The pairs that no other subscribed connection follows."""
        others = [other for other in self._wires if other.subscribed and other is not wire]
        tracks = wire.tracks.values()
        return [track for track in tracks if not any(other.carries(track) for other in others)]

    def _retire(self) -> None:
        """End the connections whose successors are there, and those that serve nobody."""
        staying = [wire for wire in self._wires if not wire.retiring]
        awaited = {pair for wire in staying if not wire.subscribed for pair in wire.pairs}
        ended = [
            wire for wire in self._wires
            if wire.retiring and not (wire.subscribed and wire.pairs & awaited)
        ]  # fmt: skip
        for wire in ended:
            self._end(wire)
        self._wires = tuple(wire for wire in self._wires if wire not in ended)

    def _end(self, wire: Wire) -> None:
        for task in (wire.task, wire.probe):
            if task is not None:
                task.cancel()
                self._finish(task)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
