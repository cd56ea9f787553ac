"""What is missing between trades: by the ids that count them, or by time alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lstm_model.market.candles import Ints


class Gap(NamedTuple):
    """Trades known to be missing.

    Attributes
    ----------
    first_id, last_id : inclusive; None where ids are not consecutive and only the time is known
    start_ms : exchange time of the last trade before
    end_ms : exchange time of the first trade after, or from which on trades are received again
    """

    first_id: int | None
    last_id: int | None
    start_ms: int
    end_ms: int


@dataclass(slots=True)
class Hole:
    """Ids from `first` to `last`, both missing; times of the trades before and after."""

    first: int
    last: int
    start_ms: int
    end_ms: int
    lost: bool = False

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def outside(self, first: int, last: int) -> Iterator[Hole]:
        """What of it is not within these ids."""
        if self.first < first:
            yield replace(self, last=min(self.last, first - 1))
        if last < self.last:
            yield replace(self, first=max(self.first, last + 1))

    def shares(self, opens: Ints, step_ms: int) -> Iterator[tuple[int, float]]:
        """Of which candles how many trades are missing; a trade may be as late as the next one."""
        low_ms, high_ms = sorted((self.start_ms, self.end_ms))
        for at, overlap_ms in overlaps(low_ms, high_ms + 1, opens, step_ms):
            yield at, self.size * overlap_ms / (high_ms + 1 - low_ms)


@dataclass(slots=True)
class Blind:
    """Nothing was received in `[start_ms, end_ms)`; newer ids than `top_id` say what was missed."""

    start_ms: int
    end_ms: int
    top_id: int
    lost: bool = False
    known: set[int] = field(default_factory=set)  # of its trades that are here, unless ids count

    def note(self, ids: Ints, times: Ints) -> None:
        inside = (self.start_ms <= times) & (times < self.end_ms)
        self.known.update(ids[inside].tolist())


def overlaps(start_ms: int, end_ms: int, opens: Ints, step_ms: int) -> Iterator[tuple[int, int]]:
    """Which of the candles, on a grid, `[start_ms, end_ms)` touches, and for how long.

    Examples
    --------
    >>> import numpy as np
    >>> list(overlaps(90, 110, np.array([0, 100, 200]), 100))
    [(0, 10), (1, 10)]
    """
    if not len(opens) or end_ms <= start_ms:
        return
    base = int(opens[0])
    first = max(0, (start_ms - base) // step_ms)
    for at in range(first, min(len(opens) - 1, (end_ms - 1 - base) // step_ms) + 1):
        open_ms = base + at * step_ms
        yield at, min(end_ms, open_ms + step_ms) - max(start_ms, open_ms)
