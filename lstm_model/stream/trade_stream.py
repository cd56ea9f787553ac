"""The live trade stream: the exchange's trades on the tapes, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from lstm_model.market.candles import Freshness
from lstm_model.market.tape import TradeTape
from lstm_model.settings import Settings
from lstm_model.stream.backfill import Backfill
from lstm_model.stream.connection import Refusal, Rest, open_exchange
from lstm_model.stream.switchboard import Switchboard, is_strangely_quiet
from lstm_model.stream.timing import Backoff, Timing
from lstm_model.stream.trade_feed import Track, TradeFeed

logger = logging.getLogger(__name__)

_LAG_MS = 2_000  # chosen: frames that come later than that are no view of now
_RELOAD_S = 600.0  # chosen: between looks for markets that are new on the exchange
_LEFTOVERS_S = 1.0  # chosen: for the tasks that ccxt leaves behind a closed connection


class TradeStream:
    """Follows the trades of pairs over the exchange's websocket.

    Parameters
    ----------
    connect : gives a fresh ccxt.pro exchange object; called for every connection
    step_ms : of the candles whose flow the tapes keep
    on_trades : called on the stream's own thread after each burst of frames, with the pairs that
        got new trades
    timing : for tests

    Attributes
    ----------
    tapes : of the followed pairs; replaced, never changed
    news : what the user should hear of, oldest first
    on_trades : may be replaced while the stream runs
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        step_ms: int,
        settings: Settings,
        on_trades: Callable[[set[str]], None] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.tapes: Mapping[str, TradeTape] = {}
        self.news: deque[str] = deque(maxlen=100)
        self._connect, self._step_ms, self._settings = connect, step_ms, settings
        self.on_trades, self._timing = on_trades, timing or Timing()
        self._tracks: dict[str, Track] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._rest: Rest | None = None
        self._board: Switchboard | None = None
        self._backfill: Backfill | None = None
        self._unknown: set[str] = set()
        self._reload_at_s = 0.0
        self._feed = TradeFeed(self._pass_on if on_trades else None, self._soon)

    def start(self) -> None:
        """Begin in the background; returns at once."""
        with self._lock:
            if self._thread is not None:
                return
            self._stopping = False
            with contextlib.ExitStack() as undone:  # the system may have no thread left
                loop = self._loop = asyncio.new_event_loop()
                undone.callback(loop.close)
                thread = threading.Thread(target=self._run, args=(loop,), name="lstm-stream")
                thread.start()
                undone.pop_all()
            self._thread = thread

    def follow(self, pairs: Collection[str]) -> None:
        """From now on follow these pairs and no others; returns at once."""
        with self._lock:
            self._tracks = {pair: self._tracks.get(pair) or self._track(pair) for pair in pairs}
            self.tapes = {pair: track.tape for pair, track in self._tracks.items()}
            self._call(self._wish)

    def stop(self) -> None:
        """End all connections; returns when no thread, socket or task is left."""
        with self._lock:
            thread, self._stopping = self._thread, True
            self._call(self._cancel)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            with self._lock:
                if self._thread is thread:
                    self._thread = None

    def freshness(self, pair: str) -> Freshness:
        """How trustworthy the newest trades of a pair are; from any thread."""
        track, board, now_s = self._tracks.get(pair), self._board, time.monotonic()
        if track is None:
            return Freshness(False, math.inf, "not followed")
        wire = board.wire_of(track) if board else None
        if wire is None:
            age_s = track.quiet_s(now_s)
            return Freshness(False, age_s, self._why_not(track))
        return self._judge(track, now_s, max(track.heard_s, track.proven_s, wire.alive_s))

    def is_settled(self) -> bool:
        """Whether all pairs are being watched and nothing before now is left to fetch."""
        board, backfill = self._board, self._backfill
        if board is None or backfill is None or backfill.busy:
            return False
        known = [track for pair, track in self._tracks.items() if pair not in self._unknown]
        return all(board.wire_of(track) and not track.tape.gaps() for track in known)

    def exchange_now_ms(self) -> int:
        """The time now by the exchange's clock; from any thread."""
        return self._feed.clock.now_ms()

    def untold_since_ns(self) -> int:
        """When the oldest trade was received of those that `on_trades` is being called for."""
        return self._feed.untold_ns

    def _judge(self, track: Track, now_s: float, alive_s: float) -> Freshness:
        silence_s, age_s, reason = float(self._settings.stream_silence_s), now_s - alive_s, ""
        if is_strangely_quiet(track, now_s, silence_s):
            age_s = track.quiet_s(now_s)
        if age_s > silence_s:
            reason = f"silent for {age_s:.0f} s"
        elif self._feed.clock.lag_ms > _LAG_MS:
            reason = f"{self._feed.clock.lag_ms / 1000:.1f} s behind"
        return Freshness(not reason, age_s, reason)

    def _why_not(self, track: Track) -> str:
        if track.pair in self._unknown:
            return "not known to the exchange"
        return "not watched yet" if track.began_s == math.inf else "no connection"

    def _track(self, pair: str) -> Track:
        tape = TradeTape(pair, self._step_ms, self._settings.tape_trades)
        return Track(pair, tape, self._feed)

    def _call(self, work: Callable[[], None]) -> None:
        """Run `work` on the stream's thread, if there is one."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it has ended in this very moment
                self._loop.call_soon_threadsafe(work)

    # From here on everything runs on the stream's own thread.

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with (
            asyncio.Runner(loop_factory=lambda: loop) as runner,
            contextlib.suppress(asyncio.CancelledError),
        ):
            runner.run(self._main())

    def _cancel(self) -> None:
        if self._main_task is not None:
            self._main_task.cancel()

    async def _main(self) -> None:
        if self._stopping:
            return
        self._main_task = asyncio.current_task()
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        try:
            self._rest = await self._open_rest()
            await self._follow_on(self._rest)
        finally:
            await self._end()

    async def _open_rest(self) -> Rest:
        """The markets, however long the exchange takes to be there."""
        backoff = Backoff(self._timing.first_retry_s, self._timing.longest_retry_s)
        while True:
            try:
                rest = self._rest = Rest(await open_exchange(self._connect))
                await rest.load()
                return rest
            except Refusal as refusal:
                await self._close_rest()
                wait_s = max(refusal.wait_s, backoff.next_s())
                logger.warning(
                    "The exchange's markets cannot be read (%s); next try in %.1f s",
                    refusal, wait_s,
                )  # fmt: skip
                await asyncio.sleep(wait_s)

    async def _follow_on(self, rest: Rest) -> None:
        self._feed.customs, self._reload_at_s = rest.customs, time.monotonic() + _RELOAD_S
        backfill = self._backfill = Backfill(rest, self._feed, self._timing, self._tell)
        self._board = Switchboard(
            self._connect, rest, self._feed, backfill, self._tell, self._timing,
            self._settings.stream_silence_s,
        )  # fmt: skip
        if not rest.has_stream:
            self._tell(f"ccxt cannot follow the trades of {rest.name}: there are candles only")
        self._wish()
        try:
            while True:
                self._feed.tick()
                self._board.check()
                for track in self._tracks.values():
                    track.learn()
                await self._tend(backfill)
                await self._look_for_new_markets(rest)
        finally:
            await self._board.stop()
            await backfill.stop()

    async def _tend(self, backfill: Backfill) -> None:
        """Look for gaps until it is time for everything else again."""
        until_s = time.monotonic() + self._timing.check_s
        while time.monotonic() < until_s:
            backfill.tend(self._tracks.values())
            await asyncio.sleep(self._timing.tick_s)

    async def _look_for_new_markets(self, rest: Rest) -> None:
        if self._unknown and time.monotonic() >= self._reload_at_s:
            self._reload_at_s = time.monotonic() + _RELOAD_S
            with contextlib.suppress(Refusal):
                await rest.load(reload=True)
                self._wish()

    def _wish(self) -> None:
        if self._board is None or self._rest is None or not self._rest.has_stream:
            return
        unknown = {pair for pair in self._tracks if not self._rest.knows(pair)}
        known = {pair: track for pair, track in self._tracks.items() if pair not in unknown}
        for pair in sorted(unknown - self._unknown):
            self._tell(f"{pair}: {self._rest.name} does not know this pair; it is not followed")
        self._unknown = unknown
        self._board.wish(known)

    async def _end(self) -> None:
        if not self._stopping:
            self._tell("The trade stream has ended by an error of its own; candles go on")
        self._board = None
        for track in self._tracks.values():
            track.pause()
        await self._close_rest()
        me = asyncio.current_task()
        if leftovers := [task for task in asyncio.all_tasks() if task is not me]:
            await asyncio.wait(leftovers, timeout=_LEFTOVERS_S)
        self._main_task = None

    async def _close_rest(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.close()

    def _soon(self, work: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon(work)

    def _pass_on(self, pairs: set[str]) -> None:
        followed = pairs & self.tapes.keys()
        if followed and self.on_trades is not None:
            self.on_trades(followed)

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody caught. A callback of ccxt that fails leaves its connection deaf."""
        error = context.get("exception")
        logger.error("Trade stream: %s", context["message"], exc_info=error)
        if "handle" in context and self._board is not None and not self._feed.blame():
            self._board.fail(f"deaf after {type(error).__name__}")

    def _tell(self, message: str) -> None:
        logger.warning("%s", message)
        self.news.append(message)
