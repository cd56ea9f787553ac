"""Carries out faults, without input or output: what is due in, what really happens out.

`Mischief` is the state of one exchange, `Line` that of one websocket connection, `Log` the ground
truth to compare a client with. Whether a trade is hit depends on the seed, the fault, the symbol
and the trade's id alone, not on when somebody looked.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lstm_model.practice.dialect import Json
from lstm_model.practice.faults import Faults

TRADE_ENDPOINTS = frozenset({"trades", "historicalTrades", "aggTrades"})
OVERSIZED_BYTES = 11 * 2**20  # ccxt takes websocket messages up to 10 MiB


@dataclass
class Log:
    """The ground truth; ids per symbol. Written by the exchange, readable from any thread.

    What was on its way to the client when a connection broke counts as sent.

    Attributes
    ----------
    withheld : due on an open subscription but never sent in good form there
    holes : missing from the trades of REST
    duplicated, delayed, malformed : sent again, sent late, with a broken frame
    newest : the largest id that was sent in good form
    """

    withheld: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    holes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    duplicated: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    delayed: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    malformed: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    newest: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    drops: int = 0
    disconnects: int = 0
    oversized: int = 0
    silences: int = 0
    stalls: int = 0
    refused: Counter[int] = field(default_factory=Counter)

    def lost(self, symbol: str) -> set[int]:
        """Ids that neither the websocket nor REST gave."""
        return self.withheld[symbol] & self.holes[symbol]


class Mischief:
    """The faults of one exchange, in force and provoked; times are seconds of `now_s`.

    Parameters
    ----------
    now_s : clock by which faults last

    Attributes
    ----------
    down : every request and every connection is refused
    """

    def __init__(self, faults: Faults, now_s: Callable[[], float]) -> None:
        self.log = Log()
        self.now_s = now_s
        self._given_up: dict[str, set[int]] = defaultdict(set)
        self.set(faults)

    def set(self, faults: Faults) -> None:
        """Replace the faults; what was provoked before ends."""
        self.faults, self.since_s = faults, self.now_s()
        self._random = random.Random(faults.seed)
        self._silent_until_s = self._stalled_until_s = self._refuse_until_s = -math.inf
        self._refuse_status = 0
        self.down = False

    def silence(self, for_s: float) -> None:
        """No data for so long, on every connection."""
        self.log.silences += 1
        self._silent_until_s = self.now_s() + for_s

    def stall(self, for_s: float) -> None:
        """Neither read nor send for so long, on every connection."""
        self.log.stalls += 1
        self._stalled_until_s = self.now_s() + for_s

    def refuse(self, status: int, for_s: float) -> None:
        """Refuse requests for so long."""
        self._refuse_status, self._refuse_until_s = status, self.now_s() + for_s

    def lose(self, symbol: str, ids: Iterable[int], rest: bool = False) -> None:
        """Never send these trades on a websocket and, with `rest`, nor serve them by REST."""
        chosen = set(ids)
        self._given_up[symbol] |= chosen
        if rest:
            self.log.holes[symbol] |= chosen

    def silent(self, age_s: float) -> bool:
        """Whether a connection of that age gets no data now."""
        return self.now_s() < self._silent_until_s or _in_spell(self.faults.silence, age_s)

    def stalled(self, age_s: float) -> bool:
        """Whether the exchange neither reads nor sends now on a connection of that age."""
        return self.now_s() < self._stalled_until_s or _in_spell(self.faults.slow_reader, age_s)

    def never_sent(self, symbol: str, number: int) -> bool:
        """Whether this trade is missing from the websocket."""
        if number in self._given_up.get(symbol, ()):
            return True
        return self.hits("gaps", self.faults.gaps, (symbol, number))

    def withhold(self, symbol: str, number: int) -> None:
        """Put on record that this trade was not sent, and take it from REST too if so set."""
        self.log.withheld[symbol].add(number)
        if self.hits("rest_hole", self.faults.rest_hole, (symbol, number)):
            self.log.holes[symbol].add(number)

    def hits(self, fault: str, fraction: float, trade: tuple[str, int]) -> bool:
        """Whether a fault that concerns a fraction of the trades concerns this one."""
        return fraction > 0.0 and self.chance(fault, trade) < fraction

    def chance(self, what: str, trade: tuple[str, int]) -> float:
        """A uniform number in [0, 1) that belongs to this trade and `what`."""
        symbol, number = trade
        text = f"{self.faults.seed}/{what}/{symbol}/{number}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest()) / 2.0**56

    def refusal(self, path: str) -> int | None:
        """The status with which a request is refused, or None."""
        faults = self.faults
        if self.down:
            self.log.refused[503] += 1
            return 503
        if path not in TRADE_ENDPOINTS and not faults.rest_everywhere:
            return None
        status = None
        if self.now_s() < self._refuse_until_s:
            status = self._refuse_status
        elif self._random.random() < faults.rest_429:
            status = 429
        elif self._random.random() < faults.rest_5xx:
            status = 503
        if status:
            self.log.refused[status] += 1
        return status

    def without_holes(self, path: str, symbol: str, body: Json) -> Json:
        """An answer of REST without the trades it does not have."""
        holes = self.log.holes.get(symbol)
        if not holes or path not in TRADE_ENDPOINTS or not isinstance(body, list):
            return body
        return [row for row in body if row.get("id", row.get("f")) not in holes]


def _in_spell(spell: tuple[float, float], age_s: float) -> bool:
    every_s, for_s = spell
    return every_s > 0.0 and age_s % every_s >= every_s - for_s


class Frame(NamedTuple):
    """A text to send; `trade` is its symbol and id if it is a good trade."""

    text: str
    trade: tuple[str, int] | None = None


class Cut(NamedTuple):
    """The connection ends."""

    polite: bool


Action = Frame | Cut


class Line:
    """One websocket connection: messages that are due in, what really happens out.

    Examples
    --------
    >>> line = Line(Mischief(Faults(gaps=1.0), lambda: 0.0), 0.0)
    >>> line.poll([{"e": "trade", "s": "BTCUSDT", "t": 7}, {"e": "kline"}], 0.0)
    [Frame(text='{"e":"kline"}', trade=None)]
    """

    def __init__(self, mischief: Mischief, now_s: float) -> None:
        self._mischief, self._opened_s = mischief, now_s
        self._later: list[tuple[float, int, Frame]] = []
        self._held: list[Frame] = []
        self._order = 0
        self._oversized_s = now_s
        self._was_silent = self._was_stalled = False
        mischief.log.connections += 1

    def age_s(self, now_s: float) -> float:
        """Seconds since the connection opened or the faults were set."""
        return now_s - max(self._opened_s, self._mischief.since_s)

    def stalled(self, now_s: float) -> bool:
        """Whether nothing is read from the client now."""
        return self._mischief.stalled(self.age_s(now_s))

    def poll(self, messages: Iterable[Json], now_s: float) -> list[Action]:
        """What to do now that `messages` are due."""
        silent, stalled = self._states(now_s)
        frames = [frame for message in messages for frame in self._frames(message, now_s, silent)]
        if not silent:
            frames += self._overdue(now_s)
            frames += self._oversized(now_s)
        self._held += frames
        actions: list[Action] = []
        if not stalled:
            self._note_newest(frame.trade for frame in self._held if frame.trade)
            actions, self._held = [*self._held], []
        return actions + self._cut(now_s)

    def _note_newest(self, sent: Iterable[tuple[str, int]]) -> None:
        newest = self._mischief.log.newest
        for symbol, number in sent:
            newest[symbol] = max(number, newest.get(symbol, 0))

    def close(self) -> None:
        """The connection is gone: what was held back will not be sent."""
        for frame in (*self._held, *(frame for _, _, frame in self._later)):
            if frame.trade:
                self._mischief.withhold(*frame.trade)
        self._held, self._later = [], []

    def _states(self, now_s: float) -> tuple[bool, bool]:
        age_s, log = self.age_s(now_s), self._mischief.log
        silent, stalled = self._mischief.silent(age_s), self._mischief.stalled(age_s)
        log.silences += _in_spell(self._mischief.faults.silence, age_s) and not self._was_silent
        log.stalls += _in_spell(self._mischief.faults.slow_reader, age_s) and not self._was_stalled
        self._was_silent, self._was_stalled = silent, stalled
        return silent, stalled

    def _frames(self, message: Json, now_s: float, silent: bool) -> Iterator[Frame]:
        trade = _trade_of(message)
        if trade is None:
            if not silent:
                yield Frame(_dumps(message))
        elif silent or self._mischief.never_sent(*trade):
            self._mischief.withhold(*trade)
        else:
            yield from self._trade(message, trade, now_s)

    def _trade(self, message: Json, trade: tuple[str, int], now_s: float) -> Iterator[Frame]:
        mischief, (symbol, number) = self._mischief, trade
        faults, frame = mischief.faults, Frame(_dumps(message), trade)
        if mischief.hits("malformed", faults.malformed, trade):
            mischief.log.malformed[symbol].add(number)
            yield Frame(_malformed(message, mischief.chance("how", trade)))
            if faults.malformed_replaces:
                mischief.withhold(*trade)
                return
        if self._put_off("duplicates", Frame(frame.text), trade, now_s):
            mischief.log.duplicated[symbol].add(number)
        if self._put_off("reorder", frame, trade, now_s):
            mischief.log.delayed[symbol].add(number)
        else:
            yield frame

    def _put_off(self, fault: str, frame: Frame, trade: tuple[str, int], now_s: float) -> bool:
        """Send the frame later if the fault hits the trade."""
        fraction, within_s = getattr(self._mischief.faults, fault)
        if not self._mischief.hits(fault, fraction, trade):
            return False
        due_s = now_s + within_s * self._mischief.chance(fault + " for", trade)
        self._order += 1
        heapq.heappush(self._later, (due_s, self._order, frame))
        return True

    def _overdue(self, now_s: float) -> Iterator[Frame]:
        while self._later and self._later[0][0] <= now_s:
            yield heapq.heappop(self._later)[2]

    def _oversized(self, now_s: float) -> Iterator[Frame]:
        every_s = self._mischief.faults.oversized
        since_s = max(self._oversized_s, self._mischief.since_s)
        if every_s and now_s - since_s >= every_s:
            self._oversized_s = now_s
            self._mischief.log.oversized += 1
            yield Frame("x" * OVERSIZED_BYTES)

    def _cut(self, now_s: float) -> list[Action]:
        faults, age_s = self._mischief.faults, self.age_s(now_s)
        if faults.drop and age_s >= faults.drop:
            return [Cut(polite=False)]
        if faults.disconnect and age_s >= faults.disconnect:
            return [Cut(polite=True)]
        return []


def _dumps(message: Json) -> str:
    return json.dumps(message, separators=(",", ":"))


def _trade_of(message: Json) -> tuple[str, int] | None:
    """Symbol and id of a trade's message, bare or wrapped for a combined stream."""
    body = message.get("data", message)
    kind = body.get("e")
    if kind == "trade":
        return body["s"], body["t"]
    return (body["s"], body["f"]) if kind == "aggTrade" else None


def _malformed(message: Json, which: float) -> str:
    """The message broken in one of seven ways, `which` in [0, 1) says how."""
    body = message.get("data", message)
    nameless = {key: value for key, value in body.items() if key not in ("t", "a")}
    bodies = [*({**body, "p": price} for price in ("abc", "NaN", f"-{body['p']}")), nameless]
    broken = [{**message, "data": part} if "data" in message else part for part in bodies]
    text = _dumps(message)
    forms = ["no JSON at all", text[: len(text) // 2], "[1,2,3]", *map(_dumps, broken)]
    return forms[int(which * len(forms))]
