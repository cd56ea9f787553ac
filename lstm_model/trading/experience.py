"""What a strategy's closed trades tell of the next: how long it lasts, how often stops are met.

A stop is set for the time that a trade lasts, and by the excursions of all candles. A strategy
enters at chosen ones and leaves by rules of its own, so that its stops are met more or less often
than that: their distance follows what happened.
"""

from __future__ import annotations

import bisect
import math

from lstm_model.model.forecast import STAYS_WITHIN

ENOUGH = 10  # chosen: closed trades that say how long they last
# Chosen by simulation, see tests: the n-th trade counts 12 / (n + 40), and never less than 0.1.
_PACE, _HASTE, _LEAST = 12.0, 40, 0.1
_FARTHEST = 1.0  # chosen: the log of what a distance is multiplied by, at most


class Experience:
    """Closed trades, in the order in which they became known.

    Examples
    --------
    >>> experience = Experience()
    >>> for hours in range(1, 10):
    ...     experience.learn(hours * 3_600_000, reached=None)
    >>> experience.typical_ms
    >>> experience.learn(36_000_000, reached=None)
    >>> experience.typical_ms / 3_600_000, experience.factor
    (5.5, 1.0)
    >>> experience.learn(3_600_000, reached=True)
    >>> round(experience.factor, 3)
    1.33
    """

    def __init__(self) -> None:
        self._durations: list[int] = []
        self._stops, self._log_factor = 0, 0.0

    @property
    def typical_ms(self) -> float | None:
        """Median duration; None while too few trades are known."""
        known, half = self._durations, len(self._durations) // 2
        return (known[half] + known[~half]) / 2.0 if len(known) >= ENOUGH else None

    @property
    def factor(self) -> float:
        """By which the distance of the next stop is multiplied."""
        return math.exp(self._log_factor)

    def learn(self, duration_ms: int, reached: bool | None) -> None:
        """One more trade; `reached`: whether its price came to the stop, None: it had none.

        The factor's log moves along the gradient of the pinball loss (Robbins & Monro 1951), so
        that in the long run the promised share of trades reach their stops.
        """
        bisect.insort(self._durations, duration_ms)
        if reached is not None:
            rate = max(_LEAST, _PACE / (self._stops + _HASTE))
            moved = self._log_factor + rate * (reached - (1.0 - STAYS_WITHIN))
            self._log_factor = min(_FARTHEST, max(-_FARTHEST, moved))
            self._stops += 1
