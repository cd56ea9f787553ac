"""Which trades are missing, by their ids where these are consecutive and by time otherwise."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints, Records, candle_open_ms
from lstm_model.market.gaps import Blind, Gap, Hole, overlaps

MOST_GAPS = 1_000  # chosen: remembered one by one; of older ones only what they cost each candle
_FEW = 16  # chosen: gaps that are looked through without losing time
_LEAST = -(2**63)  # no id is below it
# An exchange that numbers all its pairs together may give the fills of one order ids in a row, and
# one that numbers each pair may have lost a few: chosen, to tell them apart by a page of trades.
_PAGE, _IN_A_ROW_FRACTION = 20, 0.99


class Continuity:
    """What is known to be missing between the trades of one pair.

    Attributes
    ----------
    consecutive : do ids count the pair's trades? None until known
    begin_ms : everything from this exchange time on is received; None: nobody has said so
    top_id, top_ms, low_id, low_ms : the highest and lowest id so far, and the times of these trades
    first : (time, id) of the earliest trade so far
    resumed_ms : since when trades are received again after the latest interruption; 0: none yet
    opened, recovered : gaps seen so far, and trades that came into one later
    """

    def __init__(self) -> None:
        self.consecutive: bool | None = None
        self.begin_ms: int | None = None
        self.top_id, self.top_ms = _LEAST, 0
        self.low_id, self.low_ms = -_LEAST, 0
        self.first = (-_LEAST, 0)
        self.opened = self.recovered = 0
        self._holes: list[Hole] = []  # by id, never touching each other
        self._blinds: list[Blind] = []  # by time
        self._interrupted: Blind | None = None  # since then, without an end
        self.resumed_ms = 0
        self._voids: deque[int] = deque(maxlen=MOST_GAPS)  # while nobody knows what ids mean
        self._forgotten = 0  # ids missing in holes that are no longer remembered one by one

    @property
    def nbytes(self) -> int:
        """Memory held, about: a gap is four integers of Python's and the record of them."""
        known = sum(len(blind.known) for blind in self._blinds)
        return (len(self._holes) + len(self._blinds)) * 208 + known * 64  # an id in a set

    @property
    def missing(self) -> int:
        """How many ids are missing."""
        return self._forgotten + sum(hole.size for hole in self._holes)

    def new(self, ids: Ints) -> NDArray[np.bool_]:
        """(N,) bool: which ids were never noted. For consecutive ids only."""
        found = (ids > self.top_id) | (ids < self.low_id)
        if self._holes:
            firsts = np.array([hole.first for hole in self._holes])
            lasts = np.array([hole.last for hole in self._holes])
            place = np.searchsorted(firsts, ids, side="right") - 1
            found |= (place >= 0) & (ids <= lasts[place])
        return found

    def is_new(self, id: int) -> bool:
        """Was this id never noted? For consecutive ids only."""
        if not self.low_id <= id <= self.top_id:
            return True
        place = bisect_right(self._holes, id, key=_first) - 1
        return place >= 0 and id <= self._holes[place].last

    def note_one(self, id: int, time_ms: int) -> None:
        """Note one new id, with the exchange time of its trade."""
        self.first = min(self.first, (time_ms, id))
        if self.consecutive:
            self._note_run(id, id, time_ms, time_ms)
        else:
            self._note_ends(id, id, time_ms, time_ms)
            if self._interrupted is not None or time_ms <= self.resumed_ms:  # seldom
                self._note_in_blinds(np.array([id]), np.array([time_ms]))

    def note(self, ids: Ints, times: Ints) -> None:
        """Note (N,) new ids, rising, with the exchange times of their trades."""
        earliest = int(times.argmin())
        self.first = min(self.first, (int(times[earliest]), int(ids[earliest])))
        if not self.consecutive:
            self._note_ends(int(ids[0]), int(ids[-1]), int(times[0]), int(times[-1]))
            self._note_in_blinds(ids, times)
            return
        starts = np.append(0, np.flatnonzero(np.diff(ids) != 1) + 1)
        ends = np.append(starts[1:], len(ids)) - 1
        edges = (ids[starts], ids[ends], times[starts], times[ends])
        for run in zip(*(edge.tolist() for edge in edges), strict=True):
            self._note_run(*run)

    def note_void(self, id: int, time_ms: int) -> None:
        """Note an id that was used up by something that is no trade."""
        if self.consecutive is None:
            self._voids.append(id)
        if self.low_id <= id <= self.top_id:
            self.note_whole(id, id)
        elif self.consecutive:
            self._note_run(id, id, time_ms, time_ms)
        else:
            self._note_ends(id, id, time_ms, time_ms)

    def note_whole(self, first: int, last: int) -> None:
        """Note that every trade with an id from `first` to `last` is known."""
        if any(hole.first <= last and first <= hole.last for hole in self._holes):
            self._holes = [part for hole in self._holes for part in hole.outside(first, last)]

    def _note_in_blinds(self, ids: Ints, times: Ints) -> None:
        for blind in (*self._blinds, self._interrupted):
            if blind is not None:
                blind.note(ids, times)

    def _note_ends(self, first: int, last: int, first_ms: int, last_ms: int) -> None:
        if first < self.low_id:
            self.low_id, self.low_ms = first, first_ms
        if last > self.top_id:
            self.top_id, self.top_ms = last, last_ms

    def _note_run(self, first: int, last: int, first_ms: int, last_ms: int) -> None:
        """Note ids without a hole between them."""
        if self.top_id == _LEAST:
            pass
        elif first > self.top_id + 1:
            self._holes.append(Hole(self.top_id + 1, first - 1, self.top_ms, first_ms))
            self.opened += 1
        elif last < self.low_id - 1:
            self._holes.insert(0, Hole(last + 1, self.low_id - 1, last_ms, self.low_ms))
            self.opened += 1
        elif self.low_id <= first <= self.top_id:
            self._fill(first, last, first_ms, last_ms)
        self._note_ends(first, last, first_ms, last_ms)

    def _fill(self, first: int, last: int, first_ms: int, last_ms: int) -> None:
        place = bisect_right(self._holes, first, key=_first) - 1
        hole = self._holes[place]
        left = Hole(hole.first, first - 1, hole.start_ms, first_ms, hole.lost)
        right = Hole(last + 1, hole.last, last_ms, hole.end_ms, hole.lost)
        self._holes[place : place + 1] = [part for part in (left, right) if part.size > 0]
        self.recovered += last - first + 1

    def rebuild(self, trades: Records) -> None:
        """Ids are known to be consecutive from now on: find what the (N,) TRADE held lack."""
        order = np.argsort(trades["id"])
        ids, times = trades["id"][order], trades["time_ms"][order]
        jumps = np.flatnonzero(np.diff(ids) > 1)
        self._holes = [
            Hole(int(ids[at]) + 1, int(ids[at + 1]) - 1, int(times[at]), int(times[at + 1]))
            for at in jumps.tolist()
        ]
        for void in self._voids:
            self.note_whole(void, void)
        self._voids.clear()
        self.opened += len(self._holes)
        oldest = int(times.min(initial=np.iinfo(np.int64).max))
        for blind in self._blinds:  # ids say nothing about the time before the trades held
            if blind.start_ms < oldest:
                blind.top_id = -_LEAST

    def drop_holes(self) -> None:
        """Ids are not consecutive after all: what lies between them means nothing."""
        self._holes.clear()
        self._forgotten = 0

    def admits(self, time_ms: int, trade_id: int) -> bool:
        """Can a trade too old to be looked up only be new? So it is within a stretch of time that
        was not received, if it is not among those of it that came since."""
        for blind in (*self._blinds, self._interrupted):
            if blind is not None and blind.start_ms <= time_ms < blind.end_ms:
                if trade_id in blind.known:
                    return False
                self.recovered += 1
                return True
        return False

    def interrupt(self, newest_ms: int, newest: Records) -> None:
        """Nothing is received from the newest trade's time on; `newest` (N,) TRADE are here."""
        if self._interrupted is None:
            start_ms = max(newest_ms, self.resumed_ms)
            self._interrupted = Blind(start_ms, -_LEAST, self.top_id)
            self._interrupted.note(newest["id"], newest["time_ms"])

    def resume(self, time_ms: int) -> None:
        """Everything is received again from this exchange time on."""
        blind, self._interrupted = self._interrupted, None
        if blind is None:
            return
        self.resumed_ms = time_ms
        if blind.start_ms:
            blind.end_ms = max(time_ms, blind.start_ms + 1)
            self._blinds.append(blind)
            self.opened += 1
        else:  # nothing had been received before: it begins only now
            self.begin_ms = time_ms

    def _told_by_ids(self, blind: Blind) -> bool:
        return self.consecutive is True and self.top_id > blind.top_id

    def _still_blind(self) -> list[Blind]:
        self._blinds = [blind for blind in self._blinds if not self._told_by_ids(blind)]
        return self._blinds

    def gaps(self, *, lost: bool) -> list[Gap]:
        """Those given up, or those that are not."""
        holes = [
            Gap(hole.first, hole.last, hole.start_ms, hole.end_ms)
            for hole in self._holes
            if hole.lost is lost
        ]
        return holes + [
            Gap(None, None, blind.start_ms, blind.end_ms)
            for blind in self._still_blind()
            if blind.lost is lost
        ]

    def close(self, gap: Gap, *, recovered: bool) -> None:
        """No more will come. Ids are lost; time without ids counts as covered if `recovered`."""
        for hole in self._holes:
            if gap.first_id is not None and gap.last_id is not None:
                hole.lost |= gap.first_id <= hole.first and hole.last <= gap.last_id
        same = [
            blind for blind in self._blinds if gap == (None, None, blind.start_ms, blind.end_ms)
        ]
        for blind in same:
            blind.lost = True
        if recovered:
            self._blinds = [blind for blind in self._blinds if blind not in same]

    @property
    def overfull(self) -> bool:
        return max(len(self._holes), len(self._blinds)) > MOST_GAPS

    def forget(self, opens: Ints, step_ms: int) -> tuple[Floats, Floats]:
        """Forget the oldest gaps beyond `MOST_GAPS`.

        Returns
        -------
        (C,) trades missing and (C,) milliseconds not watched in these candles on their account
        """
        lost, blind_ms = np.zeros(len(opens)), np.zeros(len(opens))
        while len(self._holes) > MOST_GAPS:
            hole = self._holes.pop(0)
            self._forgotten += hole.size
            for at, share in hole.shares(opens, step_ms):
                lost[at] += share
        while len(self._blinds) > MOST_GAPS:
            blind = self._blinds.pop(0)
            for at, overlap_ms in overlaps(blind.start_ms, blind.end_ms, opens, step_ms):
                blind_ms[at] += overlap_ms
        return lost, blind_ms

    def is_whole(self, open_ms: int) -> bool:
        """Is every trade since then known? False where only `coverage` can tell."""
        if self._interrupted is not None or self.begins_ms > open_ms:
            return False
        if len(self._holes) + len(self._blinds) > _FEW:
            return False
        ends = [hole.end_ms for hole in self._holes] + [blind.end_ms for blind in self._blinds]
        return max(ends, default=-1) < open_ms

    def coverage(self, rows: Records, opens: Ints, step_ms: int, now_ms: int) -> Floats:
        """(C,) share of the trades of candles that is on the tape.

        Parameters
        ----------
        rows : (C,) with `trades`, and `lost` and `blind_ms` of gaps no longer remembered
        opens : (C,) on a grid without holes
        now_ms : the newest exchange time known: more of its candle has not passed yet
        """
        lost, blind_ms = rows["lost"].copy(), rows["blind_ms"].copy()
        passed = np.minimum(step_ms, now_ms + 1 - opens)
        for hole in self._holes:
            for at, share in hole.shares(opens, step_ms):
                lost[at] += share
        for start_ms, end_ms in self._unwatched(now_ms, step_ms):
            for at, overlap_ms in overlaps(start_ms, end_ms, opens, step_ms):
                blind_ms[at] += overlap_ms
        if self._interrupted is not None:  # nobody knows how much of it has passed
            passed[opens == candle_open_ms(now_ms, step_ms)] = step_ms
        known = np.ones(len(opens))
        np.divide(rows["trades"], rows["trades"] + lost, out=known, where=lost > 0.0)
        watched: Floats = known * np.clip(1.0 - blind_ms / passed, 0.0, 1.0)
        return watched

    def _unwatched(self, now_ms: int, step_ms: int) -> Iterator[tuple[int, int]]:
        yield 0, self.begins_ms
        yield from ((blind.start_ms, blind.end_ms) for blind in self._still_blind())
        if self._interrupted is not None:
            start_ms, top_id = self._interrupted.start_ms, self._interrupted.top_id
            # Consecutive ids tell of all up to the newest trade, which a backfill may have brought.
            told = self.consecutive and self.top_id > top_id
            end_ms = candle_open_ms(now_ms, step_ms) + step_ms
            yield (self.top_ms if told else start_ms), end_ms

    @property
    def begins_ms(self) -> int:
        """From when on trades are known: as was said, or after the first of consecutive ids.

        Trades as early as the very first one, but before it, may be unknown.
        """
        if self.consecutive and self.top_id != _LEAST:
            return min(self.low_ms + 1, self.begin_ms or self.low_ms + 1)
        return self.first[0] + 1 if self.begin_ms is None else self.begin_ms


def _first(hole: Hole) -> int:
    return hole.first


def in_a_row(ids: Ints) -> bool | None:
    """Do the ids of a complete page of trades count them? None: the page is too short to tell.

    Examples
    --------
    >>> in_a_row(np.arange(100)), in_a_row(np.array([3, 90, 1])), in_a_row(np.array([1, 2]))
    (True, False, None)
    """
    steps = np.diff(np.unique(ids))
    if not len(steps):
        return None
    if (steps == 1).mean() < _IN_A_ROW_FRACTION:
        return False
    return True if len(steps) >= _PAGE - 1 else None
