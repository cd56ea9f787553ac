"""The candles that learning may use: those on disk, continued by those the bot has seen."""

from __future__ import annotations

import hashlib
import logging
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from lstm_model.errors import LstmModelError
from lstm_model.market.candles import (
    FLOW,
    LEADING,
    PAST,
    Candles,
    Floats,
    Records,
    unknown_flow,
)
from lstm_model.market.flow_store import merge
from lstm_model.settings import Settings

logger = logging.getLogger(__name__)

Disk = Callable[[str], Candles | None]
KnownFlow = Callable[[str], Records]


class ContextOf(Protocol):
    """Says what candles are seen in, see `lstm_model.features.context.Contexts`."""

    leader: str | None

    def of(self, candles: Candles, known: Disk, seen: Disk | None = None) -> Records: ...

    def forget_all_but(self, pairs: Collection[str | None]) -> None: ...


_FOREVER_MS = 2**62

# What decides a model beside the candles when it learns from order flow: all that features use.
_LEARNT_FLOW = ("trades", "volume", "quote_volume", "taker_base", "taker_quote", "coverage")


class _Found:
    """Contexts of candles for as long as somebody has these very candles, as a study does."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Callable[[], object], Callable[[], object], Records]] = {}

    def find(self, candles: Candles, leading: Candles | None) -> Records | None:
        mine, its, context = self._known.get(candles.pair, (_nobody, _nobody, None))
        return context if mine() is candles and its() is leading else None

    def keep(self, candles: Candles, leading: Candles | None, context: Records) -> None:
        pair, known = candles.pair, self._known
        gone = weakref.ref(candles, lambda _: known.pop(pair, None))
        its = _nobody if leading is None else weakref.ref(leading, lambda _: known.pop(pair, None))
        known[pair] = gone, its, context


def _nobody() -> None:
    """What no candles are found by."""


class CandleHistory:
    """Candles of every pair, from the data directory and from the running bot.

    Parameters
    ----------
    disk : pair -> its candles on disk, or None
    flow : pair -> order flow of its candles on disk (N,) FLOW, rising
    keep_ms : how far back candles that only the bot has seen are of use
    contexts : what candles are seen in; None: nobody asks
    """

    def __init__(
        self, settings: Settings, disk: Disk, flow: KnownFlow | None, keep_ms: int,
        contexts: ContextOf | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._disk, self._flow, self._keep_ms = settings, disk, flow, keep_ms
        self._recent: dict[str, Candles] = {}
        self._contexts, self._contexts_of = contexts, _Found()

    @property
    def leader(self) -> str | None:
        """The pair that leads the others, if one does."""
        return self._contexts.leader if self._contexts else None

    def of(self, pair: str) -> Candles | None:
        """All candles of a pair known so far, and what they are seen in."""
        return self._of(pair, self._plain)

    def _of(self, pair: str, read: Disk) -> Candles | None:
        plain = read(pair)
        if plain is None or self._contexts is None:
            return plain
        leader = self._contexts.leader
        leading = plain if leader == pair else read(leader) if leader else None
        context = self._contexts_of.find(plain, leading)
        if context is None:
            context = self._contexts.of(plain, {leader: leading, pair: plain}.get)
            self._contexts_of.keep(plain, leading, context)
        return replace(plain, context=context)

    def with_context(self, candles: Candles) -> Candles:
        """The candles and what they are seen in, for those that freqtrade hands over.

        The leader's newest candle counts once the bot has seen it.
        """
        if self._contexts is None or not len(candles):
            return candles
        context = self._contexts.of(candles, self._readable, self._recent.get)
        return replace(candles, context=context)

    def prepare(self, pairs: Collection[str]) -> None:
        """Read what forecasts of these pairs look back on, before a bot's loop begins."""
        for pair in pairs:
            known = self._readable(pair)
            if known is None or self._contexts is None:
                continue

            def readable(name: str, known: Candles = known) -> Candles | None:
                return known if name == known.pair else self._readable(name)

            self._contexts.of(known.rows(len(known) - 1, len(known)), readable, self._recent.get)

    def _stored(self, pair: str) -> Candles | None:
        """Those on disk; None of a file that cannot be read. No forecast waits."""
        try:
            return self._disk(pair)
        except LstmModelError as error:
            logger.warning("%s: the candles before cannot be read: %s", pair, error)
            return None

    def _readable(self, pair: str) -> Candles | None:
        """As `_plain`; of a file that cannot be read, what the bot has seen."""
        return self._plain(pair, self._stored)

    def _plain(self, pair: str, disk: Disk | None = None) -> Candles | None:
        stored, recent = (disk or self._disk)(pair), self._recent.get(pair)
        if stored is None or recent is None:
            return recent if stored is None else stored
        newer = recent.between(int(stored.date_ms[-1]) + 1, _FOREVER_MS)
        return self.with_flow(stored.then(newer)) if len(newer) else stored

    def seen_until(self, pairs: Collection[str]) -> dict[str, int]:
        """When the newest candles closed that the bot has seen, of those pairs it has seen."""
        return {pair: _until_ms(self._recent[pair]) for pair in pairs if pair in self._recent}

    def stored_until(self, pairs: Collection[str]) -> list[int]:
        """The same of those on disk, which takes a while; of pairs that have some."""
        found = [candles for candles in map(self._stored, pairs) if candles is not None]
        return [_until_ms(candles) for candles in found]

    def since(self, start_ms: int) -> Disk:
        """What is known of candles that open at or after `start_ms`; each pair is read once.

        A pair whose file is damaged has what the bot has seen of it, and is named.
        """
        leading = lru_cache(maxsize=1)(self._readable)

        def read(pair: str) -> Candles | None:
            return leading(pair) if pair == self.leader else self._readable(pair)

        def recent(pair: str) -> Candles | None:
            known = self._of(pair, read)
            return None if known is None else known.between(start_ms, _FOREVER_MS).copy()

        return lru_cache(maxsize=None)(recent)

    def with_flow(self, candles: Candles) -> Candles:
        """The candles with their order flow, for those that freqtrade hands over.

        What they carry already stays where no more of it is stored. Without `order_flow` they
        come back as they are.
        """
        if not self._settings.order_flow:
            return candles
        nothing = np.empty(0, FLOW)
        stored = nothing if self._flow is None else self._flow(candles.pair)
        return candles.with_flow(merge(stored, nothing if candles.flow is None else candles.flow))

    def remember(self, candles: Candles) -> None:
        """Keep what the bot sees of a pair, which is not on disk yet, as long as it is of use."""
        if len(candles):
            seen = self._recent.get(candles.pair, candles).then(candles)
            oldest = int(candles.date_ms[-1]) - self._keep_ms
            self._recent[candles.pair] = seen.between(oldest, _FOREVER_MS)

    def forget_all_but(self, pairs: Collection[str]) -> None:
        """Let go of pairs that left; the leader stays."""
        for pair in self._recent.keys() - {*pairs, self.leader}:
            del self._recent[pair]
        if self._contexts is not None:
            self._contexts.forget_all_but({*pairs, self.leader})


def closed_by_now(candles: Candles) -> Candles:
    """Without a newest candle that is still open, which freqtrade sometimes hands over.

    It comes just after its opening; half a candle of tolerance leaves room for clocks that differ.
    """
    now_ms = time.time_ns() // 1_000_000
    return candles.between(0, now_ms - candles.step_ms // 2 + 1)


def until_now(candles: Candles) -> Candles:
    """The candles but those of the future; a candle's length of room is for clocks that differ."""
    return candles.between(0, time.time_ns() // 1_000_000 + candles.step_ms)


def _until_ms(candles: Candles) -> int:
    return int(candles.date_ms[-1]) + candles.step_ms


def digest_of(series: Sequence[Candles], settings: Settings) -> str:
    """Hash of all that a model can learn from these candles."""
    digest = hashlib.sha256()
    for candles in series:
        digest.update(candles.pair.encode())
        for column in candles.columns():
            digest.update(column.tobytes())
        if settings.order_flow:
            flow = unknown_flow(candles.date_ms) if candles.flow is None else candles.flow
            for name in _LEARNT_FLOW:
                digest.update(_canonical(flow[name]).tobytes())
        if candles.context is not None:
            for name in (*PAST, *(f"leader_{name}" for name in LEADING)):
                digest.update(_canonical(candles.context[name]).tobytes())
    return digest.hexdigest()[:32]


def _canonical(values: Floats) -> Floats:
    """One bit pattern for every NaN and one for zero."""
    return np.where(np.isnan(values), np.nan, values + 0.0)
