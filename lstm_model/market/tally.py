"""What the trades of every candle add up to: exactly, in any order, one by one or in batches.

Exchanges count in decimals, and so do these sums: prices and amounts become integers of the
finest decimal seen so far, which add up without rounding. Only what is read is a float again, the
one nearest to the decimal sum, which is what the exchange's own kline says.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import FLOW, Floats, Ints, Records, candle_open_ms

# A sum is `high * 2**60 + low`, `high` a float: exact to 2**113, which is 10**18 with 16 decimals.
_LIMB = 60
_MASK = (1 << _LIMB) - 1
_EXACT = 2.0**53  # floats below it hold every integer
# A decimal's float is off by a 2**-53 of itself at most, and so is its product with the scale: by
# less than a half together below this.
_ROUNDED = 2.0**51
_SAFE = 2.0**62  # integers whose sum stays below it fit into int64
_SUMS = ("volume", "taker_base", "quote_volume", "taker_quote", "realized_volatility")
_VOLUME, _TAKER_BASE, _QUOTE, _TAKER_QUOTE, _LINKS = range(len(_SUMS))
# Squared log returns are counted in units that small (chosen: one tick of BTC/USDT is 2,000),
# so that they too add up to the same whatever the order.
_LINK_UNIT = 2.0**56
_WIDEST = 64.0  # chosen: no price becomes 3,000 times another from one trade to the next
_INT = ("date_ms", "trades", "first_ms", "first_id", "last_ms", "last_id")
_FLOAT = ("open", "high", "low", "close", "largest", "lost", "blind_ms")


class Decimals:
    """Numbers as integers of the finest decimal that any of them needed so far.

    Examples
    --------
    >>> decimals = Decimals(most=8)
    >>> decimals.learn(np.array([0.1, 12.25])), decimals.places
    (True, 2)
    >>> float(decimals.units(np.array([0.1, 0.2])).sum() / decimals.scale)
    0.3
    """

    def __init__(self, most: int) -> None:
        self.places, self.scale = 0, 1.0
        self._most = most

    def learn(self, values: Floats) -> bool:
        """Provide for (N,) more numbers; whether that took more decimals than before."""
        before = self.places
        while self.places < self._most:
            whole = np.rint(values * self.scale)
            # The nearest float of a decimal comes back from its integer unharmed, others do not.
            # A float that large has no more decimals to tell.
            if ((whole / self.scale == values) | (whole >= 0.1 * _EXACT)).all():
                break
            self.places += 1
            self.scale = 10.0**self.places
        return self.places > before

    def units(self, values: Floats) -> NDArray[Any]:
        """(N,) int64, or Python's integers where those are too short."""
        whole = np.rint(values * self.scale)
        if whole.max(initial=0.0) < _ROUNDED:
            return whole.astype(np.int64)
        return np.array([self.unit(value) for value in values.tolist()], dtype=object)

    def unit(self, value: float) -> int:
        """The same of one number."""
        whole = value * self.scale
        if whole < _ROUNDED:
            return round(whole)
        return int(Decimal(repr(value)).scaleb(self.places).to_integral_value())


class Tally:
    """Sums, extremes, first and last trade of the newest candles, in memory that never grows.

    A trade must be told at most once; whether it was is the caller's business. Realized
    volatility is that of the trades within the candle: what a candle says depends on its own
    trades alone, not on what came before it.
    """

    def __init__(self, step_ms: int, candles: int) -> None:
        self.step_ms, self.candles = step_ms, candles
        self._amounts = Decimals(most=10)  # chosen: no exchange of freqtrade's has more
        self._prices = Decimals(most=16)  # chosen: coins quoted at 1e-10 with some digits
        record = [(name, np.int64) for name in _INT] + [(name, np.float64) for name in _FLOAT]
        self.rows = np.zeros(candles, record)
        self._high = np.zeros((candles, len(_SUMS)))
        self._low = np.zeros((candles, len(_SUMS)), np.int64)
        self._done = np.zeros((candles, len(_SUMS)))
        self._stale = np.zeros(candles, np.bool_)
        # Single numbers are read and written through these: five times faster than by NumPy.
        self._at: dict[str, Any] = {name: self.rows[name].data for name in _INT + _FLOAT}
        self._high_at: Any = self._high.reshape(-1).data
        self._low_at: Any = self._low.reshape(-1).data
        self._stale_at: Any = self._stale.data
        self._done_at: Any = self._done.reshape(-1).data

    @property
    def nbytes(self) -> int:
        arrays = (self.rows, self._high, self._low, self._done, self._stale)
        return sum(array.nbytes for array in arrays)

    def slot(self, time_ms: int) -> int | None:
        """Where the candle of that time is kept; None for one older than is remembered."""
        open_ms = candle_open_ms(time_ms, self.step_ms)
        slot = open_ms // self.step_ms % self.candles
        found = self._at["date_ms"][slot]
        if found != open_ms:
            if found > open_ms:
                return None
            self._begin(np.array([slot]), np.array([open_ms]))
        return int(slot)

    def _begin(self, slots: Ints, opens: Ints) -> None:
        fresh = np.zeros(len(slots), self.rows.dtype)
        fresh["date_ms"], fresh["low"] = opens, np.inf
        fresh["first_ms"] = np.iinfo(np.int64).max
        self.rows[slots] = fresh
        self._high[slots], self._low[slots] = 0.0, 0
        self._stale[slots] = True

    def add(self, trade_id: int, time_ms: int, price: float, amount: float, buy: bool) -> None:
        """Count one trade that is newer, by (time, id), than all others of its candle."""
        slot = self.slot(time_ms)
        if slot is None:
            return
        lots, ticks = self._amounts.unit(amount), self._prices.unit(price)
        if lots / self._amounts.scale != amount or ticks / self._prices.scale != price:
            self._learn(np.array([price]), np.array([amount]))
            lots, ticks = self._amounts.unit(amount), self._prices.unit(price)
        at, place = self._at, slot * len(_SUMS)
        trades = at["trades"][slot]
        if not trades:
            at["open"][slot], at["first_ms"][slot], at["first_id"][slot] = price, time_ms, trade_id
        elif price != at["close"][slot]:
            self._bump(place + _LINKS, round(_links(price / at["close"][slot])))
        at["trades"][slot] = trades + 1
        at["close"][slot], at["last_ms"][slot], at["last_id"][slot] = price, time_ms, trade_id
        if price > at["high"][slot]:
            at["high"][slot] = price
        if price < at["low"][slot]:
            at["low"][slot] = price
        if amount > at["largest"][slot]:
            at["largest"][slot] = amount
        self._bump(place + _VOLUME, lots)
        self._bump(place + _QUOTE, lots * ticks)
        if buy:
            self._bump(place + _TAKER_BASE, lots)
            self._bump(place + _TAKER_QUOTE, lots * ticks)
        self._stale_at[slot] = True

    def _bump(self, place: int, units: int) -> None:
        units += self._low_at[place]
        self._high_at[place] += units >> _LIMB
        self._low_at[place] = units & _MASK

    def add_many(self, trades: Records) -> None:
        """Count (N,) TRADE in order of (time, id). Their returns are for `link` to tell."""
        price, amount = _column(trades, "price"), _column(trades, "amount")
        self._learn(price, amount)
        starts, slots, kept = self._places(_column(trades, "time_ms"))
        if not len(slots):
            return
        lots, ticks = self._amounts.units(amount), self._prices.units(price)
        value = _products(lots, ticks)
        buy = trades["taker_buy"]
        for name, units in ((_VOLUME, lots), (_TAKER_BASE, lots * buy), (_QUOTE, value),
                            (_TAKER_QUOTE, value * buy)):  # fmt: skip
            self._bump_many(slots, name, _sums(units, starts)[kept])
        self._extremes(slots, price, amount, starts, kept)
        ends = np.append(starts[1:], len(trades))
        self.rows["trades"][slots] += (ends - starts)[kept]
        self._first_and_last(slots, trades[starts[kept]], trades[ends[kept] - 1])
        self._stale[slots] = True

    def _places(self, time_ms: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Where each candle begins in (N,) rising times, the slots of those kept, which those."""
        numbers = time_ms // self.step_ms
        starts = np.append(0, np.flatnonzero(numbers[1:] != numbers[:-1]) + 1)
        opens, slots = numbers[starts] * self.step_ms, numbers[starts] % self.candles
        if len(slots) > 1 and numbers[-1] - numbers[0] >= self.candles:
            # Of several candles that share a slot only the newest is remembered.
            _, last = np.unique(slots[::-1], return_index=True)
            newest = np.isin(np.arange(len(slots)), len(slots) - 1 - last)
        else:
            newest = np.ones(len(slots), np.bool_)
        kept = newest & (self.rows["date_ms"][slots] <= opens)
        new = kept & (self.rows["date_ms"][slots] < opens)
        if new.any():
            self._begin(slots[new], opens[new])
        return starts, slots[kept], kept

    def _bump_many(self, slots: Ints, name: int, units: NDArray[Any]) -> None:
        units = units + self._low[slots, name]
        self._high[slots, name] += (units >> _LIMB).astype(np.float64)
        self._low[slots, name] = (units & _MASK).astype(np.int64)

    def _extremes(
        self, slots: Ints, price: Floats, amount: Floats, starts: Ints, kept: NDArray[np.bool_]
    ) -> None:
        for name, combine, values in (
            ("high", np.maximum, price), ("low", np.minimum, price),
            ("largest", np.maximum, amount),
        ):  # fmt: skip
            found = combine.reduceat(values, starts)[kept]
            self.rows[name][slots] = combine(self.rows[name][slots], found)

    def _first_and_last(self, slots: Ints, first: Records, last: Records) -> None:
        rows = self.rows
        earlier = slots[before := _before(first, rows[slots], "first")]
        rows["first_ms"][earlier], rows["first_id"][earlier] = (
            first["time_ms"][before], first["id"][before],
        )  # fmt: skip
        rows["open"][earlier] = first["price"][before]
        later = slots[after := ~_before(last, rows[slots], "last")]
        rows["last_ms"][later], rows["last_id"][later] = last["time_ms"][after], last["id"][after]
        rows["close"][later] = last["price"][after]

    def link(self, trades: Records, sign: int = 1) -> None:
        """Count (-1: take back) the returns from each of (N,) TRADE to the next of its candle."""
        if len(trades) < 2:
            return
        numbers, price = _column(trades, "time_ms") // self.step_ms, _column(trades, "price")
        units = np.rint(_links(price[1:] / price[:-1]))
        units[numbers[1:] != numbers[:-1]] = 0.0
        starts = np.append(0, np.flatnonzero(numbers[2:] != numbers[1:-1]) + 1)
        opens, slots = numbers[1:][starts] * self.step_ms, numbers[1:][starts] % self.candles
        kept = self.rows["date_ms"][slots] == opens
        sums = _sums(units.astype(np.int64), starts)[kept]
        self._bump_many(slots[kept], _LINKS, sign * sums)
        self._stale[slots[kept]] = True

    def charge(self, opens: Ints, lost: Floats, blind_ms: Floats) -> None:
        """Note for good what candles lack: (C,) trades and (C,) milliseconds."""
        for at in np.flatnonzero((lost > 0.0) | (blind_ms > 0.0)).tolist():
            slot = self.slot(int(opens[at]))
            if slot is not None:
                self._at["lost"][slot] += float(lost[at])
                self._at["blind_ms"][slot] += float(blind_ms[at])

    def _learn(self, price: Floats, amount: Floats) -> None:
        places = self._amounts.places, self._prices.places
        if not (self._amounts.learn(amount) | self._prices.learn(price)):
            return
        base = 10 ** (self._amounts.places - places[0])
        quote = base * 10 ** (self._prices.places - places[1])
        for slot in np.flatnonzero(self.rows["trades"]).tolist():
            for name in (_VOLUME, _TAKER_BASE, _QUOTE, _TAKER_QUOTE):
                place = slot * len(_SUMS) + name
                more = (base if name <= _TAKER_BASE else quote) - 1
                self._bump(place, more * self._units(place))

    def _units(self, place: int) -> int:
        return (int(self._high_at[place]) << _LIMB) + int(self._low_at[place])

    def plain(self, open_ms: int) -> tuple[float, ...] | None:
        """Open, high, low, close, volume, trades, quote volume, taker base and quote of a candle.

        None without a trade, or where trades or time are noted as lost for good.
        """
        at, slot = self._at, open_ms // self.step_ms % self.candles
        trades = at["trades"][slot]
        if at["date_ms"][slot] != open_ms or not trades or at["lost"][slot] or at["blind_ms"][slot]:
            return None
        if self._stale_at[slot]:
            self._settle(slot)
        place, done = slot * len(_SUMS), self._done_at
        return (
            at["open"][slot], at["high"][slot], at["low"][slot], at["close"][slot],
            done[place + _VOLUME], float(trades), done[place + _QUOTE],
            done[place + _TAKER_BASE], done[place + _TAKER_QUOTE],
        )  # fmt: skip

    def flow(self, opens: Ints) -> tuple[Records, Records]:
        """(C,) FLOW of the candles that open then, without coverage, and (C,) what else is known.

        A candle without a trade has zeros.
        """
        slots = opens // self.step_ms % self.candles
        for slot in slots[self._stale[slots]].tolist():
            self._settle(slot)
        rows, done = self.rows[slots], self._done[slots]
        unknown = rows["date_ms"] != opens
        if unknown.any():
            rows[unknown] = np.zeros(1, rows.dtype)
            done[unknown] = 0.0
        flow = np.zeros(len(opens), FLOW)
        flow["date_ms"], flow["trades"], flow["largest"] = opens, rows["trades"], rows["largest"]
        for number, name in enumerate(_SUMS):
            flow[name] = done[:, number]
        return flow, rows

    def _settle(self, slot: int) -> None:
        """Make the floats nearest to the sums: Python divides integers of any size that exactly."""
        place = slot * len(_SUMS)
        base = 10**self._amounts.places
        quote = base * 10**self._prices.places
        units = [self._units(place + number) for number in range(len(_SUMS))]
        self._done[slot] = (
            units[_VOLUME] / base, units[_TAKER_BASE] / base, units[_QUOTE] / quote,
            units[_TAKER_QUOTE] / quote, (units[_LINKS] / _LINK_UNIT) ** 0.5,
        )  # fmt: skip
        self._stale[slot] = False


def _column(trades: Records, name: str) -> NDArray[Any]:
    return np.ascontiguousarray(trades[name])


def _links(ratio: Any) -> Any:
    """Squared log returns of price ratios, in units."""
    log_return = np.log(ratio)
    return np.minimum(log_return * log_return, _WIDEST) * _LINK_UNIT


def _products(lots: NDArray[Any], ticks: NDArray[Any]) -> NDArray[Any]:
    if float(lots.max()) * float(ticks.max()) < _SAFE:
        return np.asarray(lots * ticks)
    return np.asarray(lots.astype(object) * ticks.astype(object))


def _sums(units: NDArray[Any], starts: Ints) -> NDArray[Any]:
    """Sum of every stretch of non-negative integers that begins at `starts`."""
    if units.dtype != object and float(units.max()) * len(units) >= _SAFE:
        units = units.astype(object)
    return np.asarray(np.add.reduceat(units, starts))


def _before(trades: Records, rows: Records, which: str) -> NDArray[np.bool_]:
    """(N,) bool: by (time, id), is the trade before the candle's first (or last) one?"""
    time_ms, known_ms = trades["time_ms"], rows[f"{which}_ms"]
    tie = (time_ms == known_ms) & (trades["id"] < rows[f"{which}_id"])
    return np.asarray((time_ms < known_ms) | tie)
