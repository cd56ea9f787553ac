"""What the user hears of, by log and by Telegram: of each kind not too often, and not too long.

Every message of ours to the user passes through `News`, and all that fails again and again through
`Complaints`. What was held back is told later, with how much there was of it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from itertools import accumulate

from lstm_model.errors import LstmModelError

logger = logging.getLogger(__name__)

LONGEST = 4_096  # Telegram's: it refuses longer messages, and freqtrade then drops them
PAUSE_MS = 3_600_000  # chosen: between two messages of a kind
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3_600.0  # chosen: between two lines in the log

# Telegram refuses a message with half a pair of these, and swallows whole pairs.
_MARKUP = re.compile(r"([_*`\[])")
_PAIRS = re.compile(r"[\w.-]+/[\w.:-]*\w(, [\w.-]+/[\w.:-]*\w)*")
_NUMBERS = re.compile(r"(?<![A-Za-z0-9])[+-]?\d[\d.,:TZ-]*(?![A-Za-z0-9])")
_TELLING = 32  # chosen: characters that tell kinds apart; what follows says more of the same


def kind_of(message: str) -> str:
    """What messages have in common that tell the same of other pairs, numbers and times.

    Examples
    --------
    >>> kind_of("BTC/USDT: 3 trade(s) between 2026-01-01T00:00:00Z and ...")
    'PAIR: # trade(s) between # and .'
    >>> kind_of("Pinned: 3f7a serves") == kind_of("Pinned: 4a11 serves")
    False
    """
    return _NUMBERS.sub("#", _PAIRS.sub("PAIR", message))[:_TELLING]


def as_markdown(message: str) -> str:
    """The message so that Telegram shows it as it is, cut where it would be refused.

    Examples
    --------
    >>> as_markdown("no_edge 5")
    'no\\\\_edge 5'
    >>> len(as_markdown("_" * 5_000)), as_markdown("_" * 5_000)[-4:]
    (4096, '\\\\_ …')
    """
    sizes = [1 + (char > "\uffff") + bool(_MARKUP.match(char)) for char in message]
    if sum(sizes) > LONGEST:
        message = message[: sum(size <= LONGEST - 2 for size in accumulate(sizes))] + " …"
    return _MARKUP.sub(r"\\\1", message)


class News:
    """Lets a message of each kind through once an hour, and the newest of the others after it.

    Examples
    --------
    >>> news, lost = News(), "{}: {} trade(s) could not be recovered"
    >>> list(news.due([lost.format("A/USDT", 3), lost.format("B/USDT", 1)], now_ms=0))
    ['A/USDT: 3 trade(s) could not be recovered']
    >>> list(news.due([lost.format("C/USDT", 7)], now_ms=60_000))
    []
    >>> list(news.due([], now_ms=3_600_000))
    ['C/USDT: 7 trade(s) could not be recovered (and 1 more like it)']
    """

    def __init__(self) -> None:
        self._told_ms: dict[str, int] = {}  # by kind, within the hour
        self._held: dict[str, tuple[str, int]] = {}  # by kind: the newest, and how many

    def due(self, messages: Iterable[str], now_ms: int) -> list[str]:
        """What is to be sent now, of these and of those that were held back, for `as_markdown`."""
        sent = self._overdue(now_ms)
        for message in messages:
            kind = kind_of(message)
            if kind in self._told_ms:
                self._held[kind] = message, self._held.get(kind, ("", 0))[1] + 1
            else:
                self._told_ms[kind] = now_ms
                sent.append(message)
        return sent

    def _overdue(self, now_ms: int) -> list[str]:
        """What was held back for an hour; a clock that was set back holds nothing back."""
        sent = []
        for kind, told_ms in list(self._told_ms.items()):
            if 0 <= now_ms - told_ms < PAUSE_MS:
                continue
            del self._told_ms[kind]
            if kind in self._held:
                message, count = self._held.pop(kind)
                more = f" (and {count - 1:,} more like it)" if count > 1 else ""
                sent.append(message + more)
                self._told_ms[kind] = now_ms
        return sent


class Complaints:
    """Logs what fails in growing pauses, from a minute to an hour, and tells the user as often.

    Parameters
    ----------
    tell : gets a line for the user
    """

    def __init__(
        self, tell: Callable[[str], object], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._clock_s = tell, clock_s
        self._pauses: dict[str, tuple[float, float]] = {}  # by what fails: until when, how long
        self._lock = threading.Lock()  # the trade stream has a thread of its own

    def take(self, name: str, error: Exception) -> None:
        """`name` has no forecast for this reason; one that nobody foresaw comes with its trace."""
        foreseen = isinstance(error, LstmModelError)
        text = f"{name}: no forecast: {error if foreseen else _first_line(error)}"
        with self._lock:
            due = self._is_due(f"{name} {kind_of(text)}")
        if due:
            logger.error("%s", text, exc_info=None if foreseen else error)
            self._tell(text)

    def _is_due(self, what: str) -> bool:
        now_s = self._clock_s()
        until_s, pause_s = self._pauses.get(what, (now_s, _FIRST_PAUSE_S))
        if now_s < until_s:
            return False
        self._pauses = {
            known: pause for known, pause in self._pauses.items()
            if now_s < pause[0] + _LONGEST_PAUSE_S
        }  # fmt: skip
        if what not in self._pauses:  # it is new, or had been well for an hour
            pause_s = _FIRST_PAUSE_S
        self._pauses[what] = now_s + pause_s, min(2.0 * pause_s, _LONGEST_PAUSE_S)
        return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
