"""How long the trade stream waits for what."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds, all of them chosen.

    Attributes
    ----------
    first_retry_s, longest_retry_s : between tries to connect; doubling, with jitter
    healthy_s : after that long a lost connection is no longer part of the last trouble
    subscribe_s : a connection without any answer for so long is given up
    settle_s : from the first answer until all pairs count as subscribed
    grace_s : how old a gap must be before REST is asked; reordered frames arrive by themselves
    patience_s : how long REST is asked for a gap
    tick_s, check_s : how often gaps and silences are looked for
    margin_s : trades younger than that may still be on their way
    """

    first_retry_s: float = 0.5
    longest_retry_s: float = 30.0
    healthy_s: float = 15.0
    subscribe_s: float = 20.0
    settle_s: float = 0.3
    grace_s: float = 0.4
    patience_s: float = 600.0
    tick_s: float = 0.2
    check_s: float = 1.0
    margin_s: float = 2.0


class Backoff:
    """How long to wait before the next try: doubling, with jitter so that clients spread out.

    Examples
    --------
    >>> backoff = Backoff(0.5, 30.0)
    >>> 0.25 <= backoff.next_s() <= 0.5 <= backoff.next_s() <= 1.0
    True
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self.tries = 0

    def next_s(self) -> float:
        """Seconds to wait now."""
        whole = min(self._most_s, self._first_s * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return whole * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """All went well for a while."""
        self.tries = 0
