"""The newest trades of one pair in a buffer of fixed size, and the order flow of its candles.

Trades may come late, twice, in any order and in batches of any size: the tape is the same. What
is missing is known by consecutive ids, else by time, and lowers the `coverage` of its candles.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

import numpy as np

from lstm_model.errors import DataError
from lstm_model.market.candles import (
    PRICE_COLUMNS,
    TRADE,
    Candles,
    Ints,
    Records,
    Seen,
    candle_open_ms,
    unknown_flow,
)
from lstm_model.market.continuity import Continuity, in_a_row
from lstm_model.market.gaps import Gap
from lstm_model.market.ring import TradeRing
from lstm_model.market.tally import Tally

CAPACITY = 20_000  # chosen: minutes of the busiest pair, a day of a quiet one
CANDLES = 2_000  # chosen: a week of 5m candles
_AHEAD_MS = 86_400_000  # chosen: no two clocks differ by more than a day
_LARGEST = 1e15  # beyond it a float has no decimals left; no price or amount is that large
_FEW = 24  # so many trades are faster told one by one


class Counts(NamedTuple):
    """Of one tape since it began.

    Attributes
    ----------
    trades : on the tape, each once
    duplicates : refused, known by their id
    late : refused, as too old to tell from a duplicate
    rejected : refused, with an impossible price, amount or time
    gaps : opened, among them those that a reordered trade closed again
    recovered : trades that came after newer ones, into a gap
    missing : ids that are known to exist and not on the tape
    """

    trades: int
    duplicates: int
    late: int
    rejected: int
    gaps: int
    recovered: int
    missing: int


class TradeTape:
    """Bounded record of one pair's trades, and the Flow of its candles.

    One thread feeds it, any may read; all that is read is a copy.

    Parameters
    ----------
    capacity : trades held; the oldest make room
    candles : how many of the newest candles are remembered

    Attributes
    ----------
    last_id, last_time_ms, last_received_ns, last_price : the newest trade by (time, id);
        0 before the first

    Examples
    --------
    >>> tape = TradeTape("BTC/USDT", 300_000)
    >>> tape.append(7, 300_000, 300_050_000_000, 100.1, 0.1, True)
    True
    >>> tape.append(8, 300_900, 300_950_000_000, 100.2, 0.2, False)
    True
    >>> tape.append(8, 300_900, 300_990_000_000, 100.2, 0.2, False)
    False
    >>> float(tape.flow(0, 600_000)["volume"][0]), tape.counts.duplicates
    (0.3, 1)
    """

    def __init__(
        self, pair: str, step_ms: int, capacity: int = CAPACITY, candles: int = CANDLES
    ) -> None:
        if min(step_ms, capacity, candles) < 1:
            raise DataError(
                f"{pair}: a tape needs a timeframe, room for trades and for candles; found "
                f"{step_ms} ms, {capacity} and {candles}, and each must be at least 1"
            )
        self.pair, self.step_ms, self.capacity = pair, step_ms, capacity
        self.last_id = self.last_time_ms = self.last_received_ns = 0
        self.last_price = 0.0
        self._lock = Lock()
        self._ring = TradeRing(capacity)
        self._tally = Tally(step_ms, candles)
        self._known = Continuity()
        self._trades = self._duplicates = self._late = self._rejected = 0

    # Feeding: one thread

    def append(
        self, id: int, time_ms: int, received_ns: int, price: float, amount: float, taker_buy: bool
    ) -> bool:
        """Take one trade.

        Returns
        -------
        False for a duplicate, one too old to tell from a duplicate, and an impossible one
        """
        with self._lock:
            return self._append(id, time_ms, received_ns, price, amount, taker_buy)

    def _append(
        self, id: int, time_ms: int, received_ns: int, price: float, amount: float, taker_buy: bool
    ) -> bool:
        possible = 0.0 < price <= _LARGEST and 0.0 < amount <= _LARGEST  # NaN is not
        if not (possible and 0 < time_ms <= received_ns // 1_000_000 + _AHEAD_MS):
            self._rejected += 1
            return False
        known = self._known
        if id > known.top_id and time_ms >= self.last_time_ms:
            if known.consecutive and id == known.top_id + 1:
                known.top_id, known.top_ms = id, time_ms
            else:
                self._note_one(id, time_ms)
        elif self._seen(id):
            self._duplicates += 1
            return False
        elif (time_ms, id) > (self.last_time_ms, self.last_id):
            self._ring.fall(not known.consecutive)
            self._note_one(id, time_ms)
        else:
            row = np.array([(id, time_ms, received_ns, price, amount, taker_buy)], TRADE)
            return self._admit(self._tellable(row)) > 0
        self._ring.push(id, time_ms, received_ns, price, amount, taker_buy)
        self._tally.add(id, time_ms, price, amount, taker_buy)
        self._trades += 1
        self.last_id, self.last_time_ms, self.last_price = id, time_ms, price
        self.last_received_ns = received_ns
        return True

    def extend(self, trades: Records) -> int:
        """Take (N,) TRADE in any order, known ones among them; how many were new."""
        with self._lock:
            if len(trades) <= _FEW:
                rows = sorted(trades.tolist(), key=lambda row: (row[1], row[0]))
                return sum(self._append(*row) for row in rows)
            return self._extend(trades)

    def _extend(self, trades: Records) -> int:
        trades = self._possible(trades)
        if not len(trades):
            return 0
        if not self._continues(trades):
            trades = self._tellable(self._unseen(trades))
        return self._admit(trades)

    def _possible(self, trades: Records) -> Records:
        price, amount, time_ms = trades["price"], trades["amount"], trades["time_ms"]
        with np.errstate(invalid="ignore"):
            ok = (price > 0.0) & (price <= _LARGEST) & (amount > 0.0) & (amount <= _LARGEST)
        ok &= (time_ms > 0) & (time_ms <= trades["received_ns"] // 1_000_000 + _AHEAD_MS)
        if ok.all():
            return trades
        self._rejected += len(trades) - int(ok.sum())
        return trades[ok]

    def _continues(self, trades: Records) -> bool:
        """The usual case: ids and times rise, and all are newer than the newest."""
        ids, time_ms = trades["id"], trades["time_ms"]
        return bool(
            ids[0] > self._known.top_id
            and time_ms[0] >= self.last_time_ms
            and (ids[1:] > ids[:-1]).all()
            and (time_ms[1:] >= time_ms[:-1]).all()
        )

    def _unseen(self, trades: Records) -> Records:
        """In order of (time, id), each once, those whose ids are not known."""
        ordered = trades[np.lexsort((trades["id"], trades["time_ms"]))]
        _, first = np.unique(ordered["id"], return_index=True)
        ordered = ordered[np.sort(first)]
        ids = ordered["id"]
        new = self._known.new(ids) if self._known.consecutive else ~self._ring.holds(ids)
        self._duplicates += len(trades) - int(new.sum())
        return ordered[new]

    def _seen(self, id: int) -> bool:
        return not self._known.is_new(id) if self._known.consecutive else id in self._ring

    def _tellable(self, trades: Records) -> Records:
        """Without those that may be duplicates of trades no longer held.

        Consecutive ids say which were never received. Otherwise a trade that old is new only if
        it is older than everything so far or within a stretch of time that was not received.
        """
        if self._known.consecutive or not self._ring.full:
            return trades
        old, first = self._ring.old(trades), self._known.first
        keys = zip(trades["time_ms"][:old].tolist(), trades["id"][:old].tolist(), strict=True)
        told = [key < first or self._known.admits(*key) for key in keys]
        self._late += old - sum(told)
        return np.concatenate([trades[:old][told], trades[old:]]) if old else trades

    def _admit(self, trades: Records) -> int:
        """Take (N,) TRADE in order of (time, id), all new."""
        if not len(trades):
            return 0
        by_id = np.argsort(trades["id"], kind="stable")
        self._known.note(trades["id"][by_id], trades["time_ms"][by_id])
        self._tally.add_many(trades)
        self._trades += len(trades)
        held = trades[self._ring.old(trades) :]
        if len(held):
            without, together = self._ring.insert(held, not self._known.consecutive)
            self._tally.link(without, -1)
            self._tally.link(together)
            newest = self._ring.newest()
            self.last_id, self.last_time_ms, self.last_received_ns, self.last_price = newest[:4]
        self._forget_gaps()
        return len(trades)

    def _note_one(self, id: int, time_ms: int) -> None:
        self._known.note_one(id, time_ms)
        self._forget_gaps()

    def _forget_gaps(self) -> None:
        if self._known.overfull:
            opens = self._grid(0, self.last_time_ms + 1)
            self._tally.charge(opens, *self._known.forget(opens, self.step_ms))

    # What is missing

    @property
    def ids_consecutive(self) -> bool | None:
        """Do ids count this pair's trades, so that a jump is a gap? None until known."""
        return self._known.consecutive

    @ids_consecutive.setter
    def ids_consecutive(self, value: bool | None) -> None:
        with self._lock:
            if value is self._known.consecutive:
                return
            self._known.drop_holes()
            self._known.consecutive = value
            if value:
                self._known.rebuild(self._ring.held)
            self._ring.find_ids(not value)

    def learn_ids(self, page: Records) -> None:
        """Learn from (N,) TRADE, a page without omissions, whether ids are consecutive."""
        if self.ids_consecutive is None:
            self.ids_consecutive = in_a_row(page["id"])

    def watch_from(self, time_ms: int) -> None:
        """Everything from this exchange time on is being received, or has been.

        An earlier time than before extends what is known into the past.
        """
        with self._lock:
            self._known.begin_ms = min(time_ms, self._known.begin_ms or time_ms)

    def skip(self, id: int, time_ms: int) -> None:
        """The exchange used up this id, then, for something that is no trade: it is not missing."""
        with self._lock:
            self._known.note_void(id, time_ms)
            self._forget_gaps()

    def whole(self, first_id: int, last_id: int) -> None:
        """All with (consecutive) ids of these are here; what is missing there never was a trade."""
        with self._lock:
            self._known.note_whole(first_id, last_id)

    def interrupt(self, newest_ms: int = 0) -> None:
        """The connection was lost: nothing is certain from then on, or from the newest trade."""
        with self._lock:
            self._known.interrupt(newest_ms or self.last_time_ms, self._ring.held)

    def resume(self, time_ms: int) -> None:
        """Trades are received again from this exchange time on; what lies between is a gap.

        Its times are all that is known of it until a newer trade comes; from then on consecutive
        ids say better what is missing, and it is replaced by theirs.
        """
        with self._lock:
            self._known.resume(time_ms)
            self._forget_gaps()

    def gaps(self) -> list[Gap]:
        """Open ones: neither recovered nor given up."""
        with self._lock:
            return self._known.gaps(lost=False)

    def missing(self) -> list[Gap]:
        """Those given up for good, at most `continuity.MOST_GAPS` of either kind."""
        with self._lock:
            return self._known.gaps(lost=True)

    def recovered(self, gap: Gap) -> None:
        """The exchange gave all it has for the gap, and `extend` has taken it.

        Ids still missing are missing for good; time without ids counts as covered.
        """
        with self._lock:
            self._known.close(gap, recovered=True)

    def give_up(self, gap: Gap) -> None:
        """The exchange cannot help: missing for good, which lowers the candles' coverage."""
        with self._lock:
            self._known.close(gap, recovered=False)

    # Reading: any thread

    @property
    def counts(self) -> Counts:
        """What happened since the tape began."""
        with self._lock:
            known = self._known
            refused = self._duplicates, self._late, self._rejected
            return Counts(self._trades, *refused, known.opened, known.recovered, known.missing)

    def trades(self, start_ms: int, end_ms: int) -> Records:
        """(N,) TRADE of `[start_ms, end_ms)` still held, in order of (time, id)."""
        with self._lock:
            held = self._ring.held
            start, stop = np.searchsorted(held["time_ms"], (start_ms, end_ms))
            return held[start:stop].copy()

    def flow(self, start_ms: int, end_ms: int) -> Records:
        """(C,) FLOW of the candles that open in `[start_ms, end_ms)`, the open one included.

        Without holes: a candle in which nothing was traded has zeros, one of which nothing is
        known NaN and no coverage.
        """
        with self._lock:
            return self._flow(start_ms, end_ms)[0]

    def candles(self, start_ms: int, end_ms: int) -> Candles:
        """Candles with a trade that open in `[start_ms, end_ms)`, with their flow."""
        with self._lock:
            flow, rows = self._flow(start_ms, end_ms)
        traded = flow["trades"] > 0.0
        flow, rows = flow[traded], rows[traded]
        prices = {name: rows[name].copy() for name in PRICE_COLUMNS}
        dates, volume = flow["date_ms"].copy(), flow["volume"].copy()
        return Candles(self.pair, self.step_ms, dates, volume=volume, flow=flow, **prices)

    def newest(self) -> Seen | None:
        """The newest candle with a trade; it is open until a later trade or the clock closes it."""
        return self.seen(int(candle_open_ms(self.last_time_ms, self.step_ms)))

    def seen(self, open_ms: int) -> Seen | None:
        """The candle that opens then, in plain numbers; None without a trade on the tape."""
        with self._lock:
            received_ns = self.last_received_ns
            plain = self._tally.plain(open_ms)
            if plain is not None and self._known.is_whole(open_ms):
                return Seen._make((open_ms, *plain, 1.0, received_ns))
            flow, rows = self._flow(open_ms, open_ms + self.step_ms)
        if not len(flow) or not flow["trades"][0]:
            return None
        prices = rows[list(PRICE_COLUMNS)][0].item()
        _, trades, volume, quote, taker_base, taker_quote, coverage, *_ = flow[0].item()
        sums = volume, trades, quote, taker_base, taker_quote, coverage
        return Seen._make((open_ms, *prices, *sums, received_ns))

    def _flow(self, start_ms: int, end_ms: int) -> tuple[Records, Records]:
        opens = self._grid(start_ms, end_ms)
        flow, rows = self._tally.flow(opens)
        flow["coverage"] = self._known.coverage(rows, opens, self.step_ms, self._now_ms)
        unknown = (flow["coverage"] == 0.0) & (flow["trades"] == 0.0)
        if unknown.any():
            flow[unknown] = unknown_flow(opens[unknown])
        return flow, rows

    @property
    def _now_ms(self) -> int:
        return max(self.last_time_ms, self._known.resumed_ms)

    def _grid(self, start_ms: int, end_ms: int) -> Ints:
        """Open times of candles that have begun and are remembered."""
        if not self._trades:
            return np.empty(0, np.int64)
        step_ms, newest = self.step_ms, candle_open_ms(self._now_ms, self.step_ms)
        began = min(self._known.first[0], self._known.begins_ms)
        oldest = newest - (self._tally.candles - 1) * step_ms
        first = max(oldest, candle_open_ms(began, step_ms), -(-start_ms // step_ms) * step_ms)
        return np.arange(first, min(newest + 1, end_ms), step_ms, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._ring.nbytes + self._tally.nbytes + self._known.nbytes
