"""The newest trades in order, in memory that never grows, found by time or by id."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import TRADE, Ints, Records

# Chosen: ids noted one by one before all are sorted anew; so many at once are sorted straight away.
_RECENT, _MANY = 1_000, 100


class Ids:
    """Which ids are held, where their order says nothing."""

    def __init__(self) -> None:
        self._sorted: Ints = np.empty(0, np.int64)
        self._at: Any = self._sorted.data
        self._recent: set[int] = set()

    @property
    def nbytes(self) -> int:
        """The sorted ones, and two slots of a set and an integer of Python's for every other."""
        return self._sorted.nbytes + len(self._recent) * 64

    def renew(self, ids: Ints) -> None:
        """Hold exactly these."""
        self._sorted = np.sort(ids)
        self._at = self._sorted.data
        self._recent.clear()

    def add(self, id: int) -> bool:
        """Hold one more. True: it is time to renew."""
        self._recent.add(id)
        return len(self._recent) >= _RECENT

    def __contains__(self, id: int) -> bool:
        return id in self._recent or _found(self._at, id, 0, len(self._sorted))

    def holds(self, ids: Ints) -> NDArray[np.bool_]:
        """(N,) bool."""
        found = _among(self._sorted, ids)
        return found | np.isin(ids, list(self._recent)) if self._recent else found


class TradeRing:
    """The newest trades by (time, id).

    They lie in `rows[start:stop]`, a window that moves up; at the end of the rows it is moved
    back to the front. The row before the window is the newest trade that had to make room.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rows = np.zeros(capacity + capacity // 8 + 2, TRADE)
        self._start = self._stop = 0
        # Writing single fields through these is eight times faster than a record by NumPy.
        self._at: list[Any] = [self._rows[name].data for name in TRADE.names or ()]
        self._rising = True  # do ids rise along the rows, so that they can be found there?
        self._ids: Ids | None = None  # otherwise, while somebody looks for ids

    @property
    def held(self) -> Records:
        """(N,) TRADE as a view."""
        return self._rows[self._start : self._stop]

    @property
    def full(self) -> bool:
        """Has a trade had to make room?"""
        return self._start > 0

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + (self._ids.nbytes if self._ids else 0)

    def find_ids(self, wanted: bool) -> None:
        """Keep what is needed to find ids, or save the effort."""
        self._ids = Ids() if wanted and not self._rising else None
        if self._ids is not None:
            self._ids.renew(self.held["id"])

    def __contains__(self, id: int) -> bool:
        if self._ids is not None:
            return id in self._ids
        return _found(self._at[0], id, self._start, self._stop)

    def holds(self, ids: Ints) -> NDArray[np.bool_]:
        """(N,) bool: which ids are held."""
        return self._ids.holds(ids) if self._ids else _among(self.held["id"], ids)

    def push(
        self, id: int, time_ms: int, received_ns: int, price: float, amount: float, taker_buy: bool
    ) -> None:
        """Add a trade newer than all that are held."""
        if self._stop == len(self._rows):
            self._write(self._stop, self._rows[:0])
        at, stop = self._at, self._stop
        at[0][stop], at[1][stop], at[2][stop] = id, time_ms, received_ns
        at[3][stop], at[4][stop], at[5][stop] = price, amount, taker_buy
        self._stop = stop + 1
        if stop - self._start >= self.capacity:
            self._start += 1
        if self._ids is not None:
            self._note_ids(self._ids, [id])

    def _note_ids(self, ids: Ids, new: list[int]) -> None:
        if len(new) > _MANY or any(ids.add(id) for id in new):
            ids.renew(self.held["id"])

    def fall(self, wanted: bool) -> None:
        """The next trade's id is not the highest."""
        if self._rising:
            self._rising = False
            self.find_ids(wanted)

    def insert(self, trades: Records, wanted: bool) -> tuple[Records, Records]:
        """Add (N,) TRADE in order of (time, id), none of them `old`.

        Parameters
        ----------
        wanted : will anybody look for ids?

        Returns
        -------
        the trades around them without and with them, so far as their neighbours changed
        """
        new = trades["id"].tolist()
        at = self._start + int(np.searchsorted(self.held["time_ms"], trades["time_ms"][0]))
        first = max(at - 1, 0)
        without = self._rows[first : self._stop].copy()
        if at < self._stop:
            trades = np.concatenate([without[at - first :], trades])
            trades = trades[np.lexsort((trades["id"], trades["time_ms"]))]
        together = np.concatenate([without[: at - first], trades])
        self._write(at, trades)
        ids = together["id"]
        if not (ids[1:] > ids[:-1]).all():
            self.fall(wanted)
        if self._ids is not None:
            self._note_ids(self._ids, new)
        return without, together

    def _write(self, at: int, trades: Records) -> None:
        """Let the rows end with (N,) TRADE from row `at` on."""
        if at + len(trades) >= len(self._rows):
            kept = self._rows[max(self._start - 1, 0) : at]
            self._start = int(self._start > 0 or len(kept) + len(trades) > self.capacity)
            trades = trades[-self.capacity - 1 :]
            at = min(len(kept), self.capacity + 1 - len(trades))
            self._rows[:at] = kept[len(kept) - at :]
        self._rows[at : at + len(trades)] = trades
        self._stop = at + len(trades)
        self._start = max(self._start, self._stop - self.capacity)

    def newest(self) -> tuple[Any, ...]:
        """The newest trade as a tuple."""
        return tuple(self._rows[self._stop - 1].item())

    def old(self, trades: Records) -> int:
        """How many of (N,) TRADE in order come before the newest one that had to make room."""
        if not self._start:
            return 0
        id, time_ms = self._rows[self._start - 1].item()[:2]
        first, stop = np.searchsorted(trades["time_ms"], (time_ms, time_ms + 1)).tolist()
        return int(first + np.searchsorted(trades["id"][first:stop], id, side="right"))


def _found(rising: Any, id: int, start: int, stop: int) -> bool:
    place = bisect_left(rising, id, start, stop)
    return place < stop and bool(rising[place] == id)


def _among(rising: Ints, ids: Ints) -> NDArray[np.bool_]:
    if not len(rising):
        return np.zeros(len(ids), np.bool_)
    place = np.minimum(np.searchsorted(rising, ids), len(rising) - 1)
    return np.asarray(rising[place] == ids)
