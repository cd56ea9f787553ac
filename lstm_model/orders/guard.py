"""Whether an entry may be sent: not while it is unknown what became of the one before.

freqtrade's `create_order` is asked once. If its answer is lost, freqtrade has no trade and asks for
the same entry again in the next loop, under a new id: two orders, of which one has no owner and no
stop. So an entry is written down before it is sent. If its trade is there in the next loop, it is
known. If not, the pair waits until the exchange shows that there is nothing: twice, some time
apart, because an exchange may be late in telling, too. What it shows instead belongs to nobody,
blocks the pair, and is told.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lstm_model.errors import StoreError
from lstm_model.orders.book import Book, Intent, Page, Refusals
from lstm_model.orders.standing import NOTHING, Owned, Standing, Unowned, left_alone, unexplained
from lstm_model.trading.sizing import REFUSED, UNKNOWN_ACCOUNT, UNKNOWN_ORDER

# All chosen.
_LATE_MS = 10_000  # an exchange may take so long to show what it has accepted
IN_FLIGHT_MS = 120_000  # an order sent by another thread has its answer by then
_MOST_PAUSES = 64  # candles that a pair waits after many refusals in a row
_TOLD_AFTER = 3  # refusals in a row that the user hears of


@dataclass(frozen=True)
class Denial:
    """Why no entry may be sent: a code, and a sentence."""

    code: str
    text: str


class Guard:
    """What is known of one bot's orders; all methods may be called from any thread.

    Parameters
    ----------
    candle_ms : length of a candle: the least pause after a refused entry
    keeps : whether what is held of a pair at the first look is the user's own, as on spot
    """

    def __init__(self, book: Book, candle_ms: int, *, keeps: bool) -> None:
        self._book, self._candle_ms, self._keeps = book, candle_ms, keeps
        self._lock = threading.RLock()
        self._threads: dict[str, int] = {}  # by pair, of an intent of this process
        self._clear_ms: dict[str, int] = {}  # since when a pair with an intent looks clear
        self._suspects: dict[str, Unowned] = {}  # seen once
        self._found: dict[str, Unowned] = {}  # seen twice
        self._judged_ms, self._failure = 0, "the exchange was not asked yet"
        self._settled = False  # somebody has changed the book since the last answer
        self.news: deque[str] = deque(maxlen=100)
        self._page = self._opened()

    @property
    def found(self) -> tuple[Unowned, ...]:
        """What no trade explains, seen at least once."""
        with self._lock:
            return (*self._found.values(), *self._suspects.values())

    @property
    def waiting(self) -> tuple[Intent, ...]:
        """Intents of which it is not known what became."""
        return tuple(self._page.intents.values())

    @property
    def in_doubt(self) -> bool:
        """Whether another look would tell more than the last."""
        return bool(self._page.intents or self._suspects or self._failure or self._settled)

    def exposures(self) -> Iterator[tuple[str, float]]:
        """By pair what is at stake beside the trades, quote currency, shorts below zero."""
        with self._lock:
            seen = [(one.pair, one.exposure) for one in self.found if one.exposure]
            shown = {pair for pair, _ in seen}
            sent = [(it.pair, it.exposure) for it in self.waiting if it.pair not in shown]
        yield from (*seen, *sent)

    def denial(self, pair: str, now_ms: int) -> Denial | None:
        """What forbids an order that makes a position of `pair` larger; None: nothing."""
        with self._lock:
            if pair in self._page.intents:
                return Denial(UNKNOWN_ORDER, "what became of the order before is not known yet")
            if mine := [one for one in self.found if one.pair == pair]:
                return Denial(UNKNOWN_ORDER, f"no trade explains {mine[0].text} on the exchange")
            if self._failure:
                return Denial(UNKNOWN_ACCOUNT, self._failure)
            known = self._page.refusals.get(pair)
            if known and now_ms < known.until_ms:
                wait_s = (known.until_ms - now_ms) // 1000
                return Denial(REFUSED, f"{known.count} in a row came to nothing; {wait_s} s to go")
        return None

    def intend(self, intent: Intent) -> None:
        """Write down what is about to be sent.

        Raises
        ------
        StoreError
            If it cannot be written; then it must not be sent.
        """
        with self._lock:
            self._page = self._book.change(intents={**self._page.intents, intent.pair: intent})
            self._threads[intent.pair] = threading.get_ident()
            self._clear_ms.pop(intent.pair, None)

    def fail(self, why: str) -> None:
        """The exchange does not answer: no entry until it does."""
        with self._lock:
            self._failure = f"the exchange does not say what the account holds: {why}"

    def judge(
        self, owned: Mapping[str, Owned], standing: Standing | None, pairs: Collection[str],
        now_ms: int, then: Mapping[str, Owned] | None = None,
    ) -> None:  # fmt: skip
        """Compare the trades with the newest answer; once a loop, between orders.

        Parameters
        ----------
        owned : the open trades by pair
        standing : the newest answer of the exchange; None: there is none since the last time
        pairs : those that may be traded
        then : the open trades when the exchange was asked; None: the same
        """
        then = owned if then is None else then
        with self._lock:
            before, self._page = self._page, self._reread()
            self._settled |= self._page != before  # by hand
            for intent in self.waiting:
                if _is_known(intent, owned.get(intent.pair, NOTHING)):
                    self._settle(intent, came_true=True, now_ms=now_ms)
            if standing is None or standing.asked_ms <= self._judged_ms:
                return
            self._judged_ms, self._failure, self._settled = standing.asked_ms, "", False
            looked = {*pairs, *owned, *then, *self._page.intents}
            self._keep(standing, (then, owned), looked)
            self._compare(unexplained(standing, then, owned, self._page.kept, looked))
            for intent in self.waiting:
                if self._came_to_nothing(intent, standing, now_ms):
                    self._settle(intent, came_true=False, now_ms=now_ms)

    def _keep(
        self, standing: Standing, both: Collection[Mapping[str, Owned]], pairs: Collection[str]
    ) -> None:  # fmt: skip
        """What a spot account holds of a pair at the first look is the user's own; never grows."""
        first = self._page.first_looks(pairs) if self._keeps else ()
        kept = left_alone(standing, both, self._page.kept, pairs, first)
        news = [
            f"{kept[pair]:.8g} of {pair}" for pair in first
            if kept[pair] > standing.least.get(pair, 0.0)
        ]  # fmt: skip
        if kept != self._page.kept:
            self._write(kept=kept)
        if news:
            self.news.append(f"held before and none of this bot's: {', '.join(news)}")

    def _compare(self, seen: dict[str, Unowned]) -> None:
        for key in [key for key in self._found if key not in seen]:
            gone = self._found.pop(key)
            self.news.append(f"{gone.pair}: {gone.text} is gone")
        for key, one in seen.items():
            if key in self._suspects and key not in self._found:
                self.news.append(
                    f"{one.pair}: on the exchange is {one.text}, which no trade of this bot "
                    f"explains. {one.consequence} No entry of this pair until it is gone; look "
                    "with `freqtrade-lstm orders`"
                )
        self._found = {
            key: one for key, one in seen.items() if key in self._found or key in self._suspects
        }
        self._suspects = {key: one for key, one in seen.items() if key not in self._found}

    def _came_to_nothing(self, intent: Intent, standing: Standing, now_ms: int) -> bool:
        """Whether the exchange has shown twice, some time apart, that there is nothing."""
        mine = self._threads.get(intent.pair, threading.get_ident()) == threading.get_ident()
        if not mine and now_ms - intent.time_ms < IN_FLIGHT_MS:
            return False
        if standing.asked_ms <= intent.time_ms or any(it.pair == intent.pair for it in self.found):
            self._clear_ms.pop(intent.pair, None)
            return False
        since_ms = self._clear_ms.setdefault(intent.pair, standing.asked_ms)
        return standing.asked_ms - since_ms >= _LATE_MS

    def _settle(self, intent: Intent, *, came_true: bool, now_ms: int) -> None:
        pair, refusals = intent.pair, dict(self._page.refusals)
        before = refusals.pop(pair, Refusals(0, 0))
        if not came_true and not intent.orders:
            count = before.count + 1
            pauses = min(2 ** (count - 1), _MOST_PAUSES)
            refusals[pair] = Refusals(count, now_ms + pauses * self._candle_ms)
            if count == _TOLD_AFTER:
                self.news.append(
                    f"{pair}: {count} entries in a row came to nothing on the exchange, see the "
                    "log for its reasons; it is asked ever more seldom"
                )
        others = {name: it for name, it in self._page.intents.items() if name != pair}
        self._threads.pop(pair, None)
        self._clear_ms.pop(pair, None)
        self._write(intents=others, refusals=refusals)

    def _write(self, **parts: object) -> None:
        """Change the page; what the disk refuses stays as it was, and is tried in the next loop."""
        try:
            self._page = self._book.change(**parts)
        except StoreError as error:
            self._failure = str(error)

    def _reread(self) -> Page:
        """The page, which a command may have changed."""
        try:
            return self._book.read()
        except StoreError as error:
            self._failure = str(error)
            return self._page

    def _opened(self) -> Page:
        try:
            page = self._book.read()
        except StoreError as error:
            aside = self._book.set_aside()
            self.news.append(
                f"{error}. It is kept as {aside}. What the account holds beyond the bot's trades "
                "blocks its pair now, also what is your own: see `freqtrade-lstm orders`"
            )
            return self._book.change(keeps=False)
        return page if self._book.path.exists() else self._book.change()  # it tells of a bot


def _is_known(intent: Intent, owned: Owned) -> bool:
    """Whether freqtrade knows of the order: a trade opened since, or another entry of it."""
    if intent.orders:
        return owned.entries > intent.orders
    return owned.since_ms >= intent.time_ms - 1000
