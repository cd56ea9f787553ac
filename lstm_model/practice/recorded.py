"""A market from a directory: freqtrade's candles or recorded trades, moved to the present.

Which part is replayed: the last `days` + 2 days of the time that all pairs have in common (of
each pair's own where they have none). Where: moved by whole days, so that hours of the day and
daily candles stay what they were and at least a day is still to come. A recording of less than
four days is moved by whole minutes instead, its middle to now.

A candle becomes a few trades whose aggregation is that candle, see `candle_path`; a candle
without volume has none.
Trade ids are renumbered without gaps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import CANDLE_COLUMNS, Floats, Ints, timeframe_ms
from lstm_model.practice.candle_path import candle_path
from lstm_model.practice.tape_market import (
    DAY_MS,
    FUTURE_DAYS,
    TIMEFRAMES,
    Instrument,
    Listing,
    Market,
    Trades,
    make_market,
    wall_clock_ms,
)

_MINUTE_MS = 60_000
_SHORT_DAYS = 4  # chosen: below, a shift by whole days could leave nothing before or after now
_CANDLE_FILE = re.compile(  # of futures freqtrade names what they are settled in, and the kind
    r"(?P<base>[A-Z0-9]+)_(?P<quote>[A-Z0-9]+)(_[A-Z0-9]+)?-(?P<timeframe>\d+[mhd])(-futures)?"
)
_TRADE_FILE = re.compile(r"binance_spot_(?P<symbol>[A-Z0-9]+)_.+")
_QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "EUR", "TRY", "BTC", "ETH", "BNB")
TRADE_COLUMNS = ("time_us", "id", "price", "qty", "is_buyer_maker")
_MOST_DECIMALS = 8  # Binance's own limit
_MOST_COUNT = 2.0**62  # of ticks times lots within a day: they are added up in 63 bits


@dataclass(frozen=True)
class RecordedFile:
    """A file whose name says that it is a recording; `step_ms` is its resolution, 0 for trades."""

    path: Path
    symbol: str
    step_ms: int

    @property
    def currencies(self) -> tuple[str, str]:
        """Base and quote.

        Raises
        ------
        DataError
            If trades are of a symbol whose quote currency is none of the usual ones.
        """
        if not self.step_ms:
            return split_symbol(self.symbol)
        base, quote, *_ = self.path.stem.split("-")[0].split("_")
        return base, quote

    @property
    def timeframe(self) -> str:
        """Of candles."""
        return self.path.stem.split("-")[1]

    def frame(self) -> Any:
        """Its rows as they are.

        Raises
        ------
        DataError
            If it cannot be read, lacks a column or holds no row.
        """
        return read_frame(self.path, CANDLE_COLUMNS if self.step_ms else TRADE_COLUMNS)


@dataclass(frozen=True)
class _Recording:
    """One file, in its own time; `step_ms` is its resolution, 0 for trades."""

    listing: Listing
    step_ms: int

    def span(self) -> tuple[int, int]:
        """First millisecond and the one after the last."""
        time_ms = self.listing.trades.time_ms
        return int(time_ms[0]), int(time_ms[-1]) + 1

    def moved(self, window: tuple[int, int], shift_ms: int) -> Listing:
        """The part inside the window, `shift_ms` later."""
        trades = self.listing.trades
        low, high = np.searchsorted(trades.time_ms, window)
        part = replace(
            trades,
            time_ms=trades.time_ms[low:high] + shift_ms,
            price=trades.price[low:high],
            amount=trades.amount[low:high],
            taker_buy=trades.taker_buy[low:high],
        )
        return replace(self.listing, trades=part)


def recorded_market(
    directory: Path | str, days: int = 30, *, now_ms: Callable[[], int] = wall_clock_ms
) -> Market:
    """The recordings of a directory as a market.

    Parameters
    ----------
    directory : holds `BTC_USDT-5m.feather` (of several timeframes the finest counts) or tick files
        `binance_spot_BTCUSDT_*.feather` with the columns `time_us id price qty is_buyer_maker`
    days : how much of the recording lies before now, at most

    Raises
    ------
    ConfigError
        If there is no such directory.
    DataError
        If it holds no recording, or one that cannot be read.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ConfigError(f'"{directory}" is not a directory; give one with candles or trades')
    if days < 1:
        raise ConfigError(f"days must be at least 1, found {days}")
    recordings = [_read(path) for path in _choose(folder)]
    now = now_ms()
    unit_ms = max(_MINUTE_MS, *(item.step_ms for item in recordings))
    listings = []
    for item, window in zip(recordings, _windows(recordings, days), strict=True):
        listings.append(item.moved(window, _shift_ms(window, now, unit_ms)))
    return make_market(listings, now_ms)


def _windows(recordings: list[_Recording], days: int) -> list[tuple[int, int]]:
    spans = [item.span() for item in recordings]
    common = (max(start for start, _ in spans), min(end for _, end in spans))
    if common[0] < common[1]:
        spans = [common] * len(spans)
    step = max(1, *(item.step_ms for item in recordings))  # no candle is cut in two
    spans = [(-(-start // step) * step, end // step * step) for start, end in spans]
    return [(max(start, _earliest(end, days)), end) for start, end in spans]


def _earliest(end_ms: int, days: int) -> int:
    return -(-end_ms // DAY_MS) * DAY_MS - (days + FUTURE_DAYS) * DAY_MS


def _shift_ms(window: tuple[int, int], now_ms: int, unit_ms: int) -> int:
    start, end = window
    if end - start < _SHORT_DAYS * DAY_MS:
        return (now_ms - (start + end) // 2) // unit_ms * unit_ms
    today = now_ms // DAY_MS * DAY_MS
    return -(-(today + FUTURE_DAYS * DAY_MS - end) // DAY_MS) * DAY_MS


def _choose(folder: Path) -> list[RecordedFile]:
    """The file of every pair: its trades, or else its finest candles."""
    chosen: dict[str, RecordedFile] = {}
    for file in recorded_files(folder):
        if file.symbol not in chosen or file.step_ms < chosen[file.symbol].step_ms:
            chosen[file.symbol] = file
    return list(chosen.values())


def recorded_files(folder: Path) -> list[RecordedFile]:
    """Every recording of a directory, in the order of their names; none is opened.

    Raises
    ------
    DataError
        If there is none.
    """
    files = [file for path in sorted(folder.glob("*.feather")) if (file := _what(path))]
    if not files:
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{folder}: no recording found (there is {found}); needed are files like "
            "BTC_USDT-5m.feather (freqtrade's candles) or binance_spot_BTCUSDT_*.feather (trades)"
        )
    return files


def _what(path: Path) -> RecordedFile | None:
    """The recording, None for a foreign file."""
    candle, trade = _CANDLE_FILE.fullmatch(path.stem), _TRADE_FILE.fullmatch(path.stem)
    if candle and candle["timeframe"] in TIMEFRAMES:
        symbol = candle["base"] + candle["quote"]
        return RecordedFile(path, symbol, timeframe_ms(candle["timeframe"]))
    return RecordedFile(path, trade["symbol"], 0) if trade else None


def _read(file: RecordedFile) -> _Recording:
    frame = file.frame()
    try:
        if file.step_ms:
            listing = candle_listing(frame, *file.currencies, file.step_ms)
            return _Recording(listing, file.step_ms)
        return _Recording(tick_listing(frame, *file.currencies), 0)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None


def read_frame(path: Path, columns: tuple[str, ...], only: bool = False) -> Any:
    """A feather file that has these columns; with `only` no other one is read.

    Raises
    ------
    DataError
        If it cannot be read, lacks a column or holds no row.
    """
    try:
        frame = pd.read_feather(path, columns=list(columns) if only else None)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are among them
        raise DataError(f"{path}: not a feather file that can be read ({error})") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataError(f"{path}: the column(s) {', '.join(missing)} are missing")
    if not len(frame):
        raise DataError(f"{path}: holds no row")
    return frame


def split_symbol(symbol: str) -> tuple[str, str]:
    """Base and quote currency of one of Binance's symbols.

    Raises
    ------
    DataError
        If the quote currency is none of the usual ones.

    Examples
    --------
    >>> split_symbol("ETHBTC")
    ('ETH', 'BTC')
    """
    quote = next((name for name in _QUOTES if symbol.endswith(name) and symbol != name), None)
    if quote is None:
        raise DataError(f"the quote currency of {symbol} is none of {', '.join(_QUOTES)}")
    return symbol.removesuffix(quote), quote


def tick_listing(frame: Any, base: str, quote: str) -> Listing:
    """The trades of a tick file (`time_us id price qty is_buyer_maker`), numbered from its first.

    Raises
    ------
    DataError
        For values that are not numbers, disordered times, no trade.
    """
    price, amount = _floats(frame, "price"), _floats(frame, "qty")
    time_ms = frame["time_us"].to_numpy(np.int64) // 1000
    price_decimals = _decimals(price, _MOST_DECIMALS)
    most = _room(_busiest_days(time_ms, price * amount), price_decimals)
    amount_decimals = _decimals(amount, most)
    trades = Trades(
        time_ms=time_ms,
        price=_integers(price, price_decimals),
        amount=_integers(amount, amount_decimals),
        taker_buy=~frame["is_buyer_maker"].to_numpy(np.bool_),
        first_id=int(frame["id"].iloc[0]) if len(frame) else 1,
    )
    return Listing(Instrument(base, quote, price_decimals, amount_decimals), trades)


def candle_listing(frame: Any, base: str, quote: str, step_ms: int) -> Listing:
    """Each candle as a path of trades, see `candle_path`.

    Raises
    ------
    DataError
        For values that are not numbers, candles that contradict themselves or are disordered,
        and where nothing was traded.
    """
    frame = frame[frame["volume"] > 0.0]
    opens = frame["date"].to_numpy("datetime64[ms]").astype(np.int64)
    prices = np.stack([_floats(frame, name) for name in ("open", "high", "low", "close")], axis=1)
    price_decimals = _decimals(prices, _MOST_DECIMALS)
    volume = _floats(frame, "volume")
    busiest = _busiest_days(opens, prices[:, 1] * volume)
    amount_decimals = _lot_decimals(volume, _room(busiest, price_decimals))
    path = candle_path(
        opens, _integers(prices, price_decimals), _integers(volume, amount_decimals), step_ms
    )
    trades = Trades(
        time_ms=path.time_ms,
        price=path.price,
        amount=path.amount,
        taker_buy=np.diff(path.price, prepend=path.price[:1]) >= 0,  # the tick rule
    )
    return Listing(Instrument(base, quote, price_decimals, amount_decimals), trades)


def joined(older: Listing, newer: Listing) -> Listing:
    """Two parts of one pair's trades as one; ids count back from the newer part's first.

    Raises
    ------
    DataError
        If the two overlap, or are too finely quoted together to be counted in 63 bits.
    """
    ours, theirs = older.instrument, newer.instrument
    price = max(ours.price_decimals, theirs.price_decimals)
    amount = max(ours.amount_decimals, theirs.amount_decimals)
    _check_countable([older, newer], price, amount)
    parts = [_finer(older, price, amount), _finer(newer, price, amount)]
    names = ("time_ms", "price", "amount", "taker_buy")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    # An id is never negative: where there is no room, the newer part is numbered anew.
    first_id = max(0, newer.trades.first_id - len(older.trades))
    trades = Trades(**columns, first_id=first_id)
    return Listing(replace(theirs, price_decimals=price, amount_decimals=amount), trades)


def _check_countable(parts: list[Listing], price_decimals: int, amount_decimals: int) -> None:
    """Whether a day's quote volume fits 63 bits, before anything is multiplied beyond them."""
    trades = [part.trades for part in parts]
    units = [
        10.0 ** (price_decimals - each.price_decimals + amount_decimals - each.amount_decimals)
        for each in (part.instrument for part in parts)
    ]
    time_ms = np.concatenate([part.time_ms for part in trades])
    count = np.concatenate(
        [
            part.price.astype(np.float64) * part.amount * unit
            for part, unit in zip(trades, units, strict=True)
        ]
    )
    if _busiest_days(time_ms, count) > _MOST_COUNT:
        pair = parts[-1].instrument.pair
        raise DataError(
            f"{pair}: {price_decimals} + {amount_decimals} decimals are too many to count a day"
        )


def _finer(listing: Listing, price_decimals: int, amount_decimals: int) -> Trades:
    trades, instrument = listing.trades, listing.instrument
    return replace(
        trades,
        price=trades.price * 10 ** (price_decimals - instrument.price_decimals),
        amount=trades.amount * 10 ** (amount_decimals - instrument.amount_decimals),
    )


def _busiest_days(time_ms: Ints, notional: Floats) -> float:
    """What any 24 hours hold at most: the largest sum of two days in a row."""
    if not len(time_ms):
        return 0.0
    days = np.bincount((time_ms - time_ms.min()) // DAY_MS, weights=notional)
    return float(np.max(days[1:] + days[:-1], initial=float(days.max())))


def _floats(frame: Any, name: str) -> Floats:
    values: Floats = frame[name].to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f'column "{name}" holds values that are not numbers')
    return values


def _decimals(values: Floats, most: int) -> int:
    """The fewest decimals, at most `most`, that hold every value."""
    for decimals in range(most):
        scaled = values * 10.0**decimals
        if np.allclose(scaled, np.rint(scaled), rtol=1e-12, atol=1e-6):
            return decimals
    return most


def _lot_decimals(volume: Floats, most: int) -> int:
    """As many as recorded, and enough to make four trades of the smallest volume."""
    least = float(np.min(volume, initial=1.0))
    return min(max(_decimals(volume, most), math.ceil(math.log10(4.0 / least))), most)


def _room(notional: float, price_decimals: int) -> int:
    """Amount decimals with which a day's quote volume still fits 63 bits."""
    digits = math.log10(_MOST_COUNT / max(notional, 1.0)) - price_decimals
    return max(0, min(_MOST_DECIMALS, int(digits)))


def _integers(values: Floats, decimals: int) -> Ints:
    return np.rint(values * 10.0**decimals).astype(np.int64)
