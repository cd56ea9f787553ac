"""Between candles: what the trade stream says to an entry, an exit and a stop.

A fresh stream answers with the nowcast. A stale one leaves everything to the candle's forecast, and
refuses entries where the settings want it fresh.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lstm_model.market.candles import Candles, Freshness, candle_open_ms, timeframe_ms
from lstm_model.market.flow_store import FlowStore
from lstm_model.model.model import Model
from lstm_model.trading.nowcast import Nowcast, Nowcaster, Tape
from lstm_model.trading.outlook import Terms
from lstm_model.trading.sizing import NO_EDGE, STALE_STREAM, net_edge

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_HEALING = 12  # chosen: candles whose flow may still be completed; backfill gives up before
_NO_NOWCAST = "no forecast inside the candle yet"


class Stream(Protocol):
    """A live stream of trades, see `lstm_model.stream.trade_stream`."""

    news: deque[str]

    @property
    def tapes(self) -> Mapping[str, Tape]: ...

    def start(self) -> None: ...

    def follow(self, pairs: Collection[str]) -> None: ...

    def stop(self) -> None: ...

    def freshness(self, pair: str) -> Freshness: ...

    def exchange_now_ms(self) -> int: ...


OnTrades = Callable[[set[str]], None]


class Guard(Protocol):
    """Runs work of which a failure may cost an answer but never the bot."""

    def __call__(self, name: str, work: Callable[[], Answer], otherwise: Answer) -> Answer: ...


class InsideCandle:
    """Nowcasts of the pairs a stream follows, and the decisions they allow.

    Parameters
    ----------
    open_stream : makes the stream; it is given what to call when pairs have traded
    flows : where the flow of closed candles is kept
    guard : runs work that may fail, see `LiveEngine`
    leader : the pair that all forecasts look at
    """

    def __init__(
        self, terms: Terms, timeframe: str, open_stream: Callable[[OnTrades], Stream],
        flows: FlowStore, guard: Guard, leader: str | None = None,
    ) -> None:  # fmt: skip
        self._terms, self._timeframe = terms, timeframe
        self._flows, self._guard = flows, guard
        self._step_ms = timeframe_ms(timeframe)
        self.stream = open_stream(self.on_trades)
        clock_ms = self.stream.exchange_now_ms
        self.nowcaster = Nowcaster(
            terms.settings, self._tape_of, clock_ms, leader,
            lambda pair: self.stream.freshness(pair).fresh,
        )  # fmt: skip
        self._told: dict[tuple[str, str], tuple[int, str]] = {}
        self._saved_ms: dict[str, int] = {}

    def follow(self, pairs: Collection[str]) -> None:
        """From now on follow the trades of these pairs, and let go of what is known of others."""
        self.stream.follow(pairs)
        self.nowcaster.forget_all_but(pairs)
        self._saved_ms = {pair: ms for pair, ms in self._saved_ms.items() if pair in pairs}
        self._told = {key: told for key, told in self._told.items() if key[0] in pairs}

    def rebase(self, series: Sequence[tuple[Model, Candles]]) -> None:
        """Take over closed candles that are newer than those known."""
        newer = [
            (model, candles)
            for model, candles in series
            if len(candles) and candles.date_ms[-1] > self.nowcaster.based_on(candles.pair)
        ]
        self.nowcaster.rebase(newer)

    def save_flow(self, closed: Candles) -> None:
        """Write down what the tape knows of the newest closed candles, once for each new one.

        Several, because trades that were missing may have been recovered since. Only a later
        trade shows that a candle is complete: before, some of its own may be on their way.
        """
        tape = self._tape_of(closed.pair)
        if tape is None or not len(closed) or (newest := tape.newest()) is None:
            return
        end_ms = min(int(closed.date_ms[-1]) + self._step_ms, newest.open_ms)
        if self._saved_ms.get(closed.pair) == end_ms:
            return
        flow = tape.flow(end_ms - (_HEALING + 1) * self._step_ms, end_ms)
        self._flows.write(closed.pair, self._timeframe, flow[flow["coverage"] > 0.0])
        self._saved_ms[closed.pair] = end_ms

    def current(self, pair: str) -> tuple[Nowcast | None, str]:
        """The nowcast of the candle that is open now, or None and why there is none."""
        freshness = self.stream.freshness(pair)
        if not freshness.fresh:
            return None, f"{STALE_STREAM}: {freshness.reason}"
        self.nowcaster.refresh([pair])
        made = self.nowcaster.latest(pair)
        if made is None or made.candle_ms != self._open_ms():
            return None, _NO_NOWCAST
        return made, ""

    def veto(self, pair: str, side: int, rate: float) -> str:
        """What speaks against an entry at this rate: a code, or "" where its edge is still there.

        `side` is 1 for long, -1 for short. A veto holds until a fresh forecast of the same candle
        takes it back.
        """
        made, reason = self.current(pair)
        if made is None:
            open_ms, code = self._told.get((pair, "entry"), (0, ""))
            if code and open_ms == self._open_ms():
                return code
            code = STALE_STREAM if self._terms.settings.require_fresh_stream else ""
            verdict = "no entry" if code else "the candle's forecast decides alone"
            self._tell(pair, "entry", code, f"{reason} -> {verdict}")
            return code
        edge = self._edge(pair, made, side, rate)
        code = "" if edge > 0.0 else NO_EDGE
        text = f"edge after costs {1e4 * edge:+.1f} bps at {rate:g} ({made.passed:.0%} passed)"
        verdict = "vetoed, the edge is gone" if code else "confirmed"
        self._tell(pair, "entry", code, f"{text} -> {verdict}")
        return code

    def wants_exit(self, pair: str, side: int, rate: float) -> bool:
        """Whether holding on is expected to lose more than the slippage of leaving."""
        made, _ = self.current(pair)
        if made is None:
            return False
        expected = side * math.expm1(made.mean + math.log(made.price / rate))
        turned = expected < -self._terms.settings.slippage_fraction
        if turned:
            self._tell(pair, "exit", "turned", f"expected {1e4 * expected:+.1f} bps -> exit")
        return turned

    def coverage(self, pair: str) -> float:
        """Share of the newest candle's trades that are known; 1.0 where none was followed."""
        tape = self._tape_of(pair)
        newest = None if tape is None else tape.newest()
        return 1.0 if newest is None else newest.coverage

    def on_trades(self, pairs: set[str]) -> None:
        """Pairs have traded; on the stream's thread. What fails waits for the next candle."""
        if not self._guard("inside the candle", lambda: self.nowcaster.refresh(pairs), False):
            self.nowcaster.forget(pairs)

    def _open_ms(self) -> int:
        return int(candle_open_ms(self.stream.exchange_now_ms(), self._step_ms))

    def _tape_of(self, pair: str) -> Tape | None:
        return self.stream.tapes.get(pair)

    def _edge(self, pair: str, made: Nowcast, side: int, rate: float) -> float:
        """Expected return after costs for who enters at `rate`."""
        terms, direction = self._terms, np.array([side])
        mean = np.array([made.mean + math.log(made.price / rate)])
        funding = terms.funding_of(pair, np.array([made.candle_ms - self._step_ms]))
        return float(net_edge(mean, direction, terms.fee_of(pair), terms.settings, funding)[0])

    def _tell(self, pair: str, topic: str, verdict: str, text: str) -> None:
        """Into the log, once per candle and verdict."""
        open_ms = self._open_ms()
        if self._told.get((pair, topic)) != (open_ms, verdict):
            self._told[pair, topic] = open_ms, verdict
            logger.info("%s inside the candle, %s: %s", pair, topic, text)
