"""The part of one pair's recordings that a window needs: trades, and the candles before them.

What the market holds: from what a bot asks for when it starts (its startup candles, in whole pages
of the exchange, and a day more for the 24 h ticker) to a few candles after the window. Older
candles are data, not trades. What a recording lacks before its first trade may come from older
candles; four trades stand for each of those (see `recorded`).

Trade ids are those of the recording. A tape has no holes in its ids: where the recording lost
trades, later ids count on without a gap, and earlier ones back from the first of the window. So
a window in which no trade was lost has its real ids throughout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import (
    CANDLE_COLUMNS,
    PRICE_COLUMNS,
    Candles,
    Floats,
    Ints,
    candle_open_ms,
    timeframe_ms,
    utc_text,
)
from lstm_model.practice.recorded import (
    TRADE_COLUMNS,
    RecordedFile,
    candle_listing,
    joined,
    read_frame,
    recorded_files,
    split_symbol,
    tick_listing,
)
from lstm_model.practice.tape_market import DAY_MS, TIMEFRAMES, Listing, TapeCandles

_PAGE_CANDLES = 1_000  # klines per answer; freqtrade asks for whole pages when a bot starts
_CANDLES_AFTER = 5  # chosen: a bot that is being stopped still asks for the newest candles
_SPOT_PAIR = re.compile(r"([A-Z0-9]+)/([A-Z0-9]+)")
_EXACT = 2**53  # below, an integer is a float64
_VOLUME_DECIMALS = 8  # Binance's own limit


@dataclass(frozen=True)
class Window:
    """The time that is replayed, `[start_ms, end_ms)`.

    Parameters
    ----------
    startup_candles : how many closed candles a bot wants to see at `start_ms`

    Raises
    ------
    ConfigError
        For an unknown timeframe, a window without length and negative numbers.

    Examples
    --------
    >>> window = Window("5m", 1_700_006_400_000, 1_700_092_800_000, startup_candles=300)
    >>> utc_text(window.first_ms), utc_text(window.last_ms)
    ('2023-11-10T12:40:00Z', '2023-11-16T00:25:00Z')
    """

    timeframe: str
    start_ms: int
    end_ms: int
    startup_candles: int = 0

    def __post_init__(self) -> None:
        if self.timeframe not in TIMEFRAMES:
            known = ", ".join(TIMEFRAMES)
            raise ConfigError(f'timeframe "{self.timeframe}" is unknown; give one of {known}')
        if not 0 <= self.start_ms < self.end_ms:
            raise ConfigError(f"a window must end after it starts, found {self}")
        if self.startup_candles < 0:
            raise ConfigError(f"startup_candles must be at least 0, found {self.startup_candles}")

    def __str__(self) -> str:
        return f"{utc_text(self.start_ms)} to {utc_text(self.end_ms)}"

    @property
    def step_ms(self) -> int:
        """Length of a candle."""
        return timeframe_ms(self.timeframe)

    @property
    def first_ms(self) -> int:
        """From where on the market must hold trades; the open of a candle."""
        pages = self.startup_candles // _PAGE_CANDLES + 1
        wanted = self.start_ms - pages * _PAGE_CANDLES * self.step_ms - DAY_MS
        return max(0, int(candle_open_ms(wanted, self.step_ms)))

    @property
    def last_ms(self) -> int:
        """Up to where the market must hold trades."""
        return self.end_ms + _CANDLES_AFTER * self.step_ms


def closed_candles(listing: Listing, timeframe: str, until_ms: int) -> TapeCandles:
    """All candles that have closed by `until_ms`, counted in ticks and lots."""
    step_ms = timeframe_ms(timeframe)
    newest_ms = int(candle_open_ms(until_ms, step_ms)) - step_ms
    count = max(0, newest_ms - int(listing.trades.time_ms[0])) // step_ms + 2
    return listing.candles(timeframe, until_ms - 1, end_ms=newest_ms, limit=count)


def as_candles(listing: Listing, timeframe: str, until_ms: int) -> Candles:
    """All candles that have closed by `until_ms`, bit for bit as a client reads the klines."""
    tape, quoted = closed_candles(listing, timeframe, until_ms), listing.instrument
    open_, high, low, close = (
        parsed(getattr(tape, name), quoted.price_decimals) for name in PRICE_COLUMNS
    )
    volume = parsed(tape.volume, quoted.amount_decimals)
    step_ms = timeframe_ms(timeframe)
    return Candles(quoted.pair, step_ms, tape.open_ms, open_, high, low, close, volume)


def parsed(values: Ints, decimals: int) -> Floats:
    """What parsing the decimals that the exchange writes gives, to the last bit.

    Below 2**53 both numbers are float64, so their division is rounded once, as parsing is.

    Examples
    --------
    >>> count = np.array([3])  # 3 * 0.1 is another number
    >>> parsed(count, 1) == float("0.3"), count * 0.1 == float("0.3")
    (array([ True]), array([False]))
    """
    if int(np.max(values, initial=0)) < _EXACT:
        return np.asarray(values / 10.0**decimals, dtype=np.float64)
    # Python divides integers of any size with one rounding.
    return np.array([value / 10**decimals for value in values.tolist()])


def candle_frame(candles: Candles) -> DataFrame:
    """The candles as freqtrade has them on disk."""
    dates = pd.to_datetime(candles.date_ms, unit="ms", utc=True).astype("datetime64[ms, UTC]")
    columns = (dates, *candles.columns()[1:])
    return DataFrame(dict(zip(CANDLE_COLUMNS, columns, strict=True)))


def no_candles(pair: str, step_ms: int) -> Candles:
    """No candle at all."""
    none = np.empty(0)
    return Candles(pair, step_ms, np.empty(0, np.int64), none, none, none, none, none)


@dataclass(frozen=True)
class _Ticks:
    """Recorded trades of one pair, in order of their ids."""

    frame: Any
    time_ms: Ints

    def span(self) -> tuple[int, int]:
        """First millisecond and the one after the last."""
        return int(self.time_ms.min()), int(self.time_ms.max()) + 1

    def covers(self, window: Window) -> bool:
        """Whether it reaches from the window's first candle to its last."""
        first, end = self.span()
        return first < window.start_ms + window.step_ms and end > window.end_ms - window.step_ms

    def traded(self, window: Window) -> bool:
        """Whether it has a trade in the window."""
        return bool(((self.time_ms >= window.start_ms) & (self.time_ms < window.end_ms)).any())

    def candles(self, start_ms: int, window: Window) -> Candles:
        """From `start_ms` on, those that are older than what the market must hold."""
        inside = (self.time_ms >= start_ms) & (self.time_ms < window.first_ms)
        if not inside.any():
            return no_candles("", window.step_ms)
        older = tick_listing(self.frame[inside], "", "")
        return as_candles(older, window.timeframe, window.first_ms)

    def listing(self, base: str, quote: str, start_ms: int, window: Window) -> Listing:
        """The part from `start_ms` on; the window's first trade has the id it was recorded with."""
        inside = (self.time_ms >= start_ms) & (self.time_ms < window.last_ms)
        listing = tick_listing(self.frame[inside], base, quote)
        ids = self.frame["id"].to_numpy(np.int64)[inside]
        place = min(listing.trades.due(window.start_ms - 1), len(ids) - 1)
        trades = replace(listing.trades, first_id=max(0, int(ids[place]) - place))
        return replace(listing, trades=trades)


@dataclass(frozen=True)
class _Bars:
    """Recorded candles of one pair."""

    bars: Candles

    def span(self) -> tuple[int, int]:
        """First millisecond and the one after the last."""
        return int(self.bars.date_ms[0]), int(self.bars.date_ms[-1]) + self.bars.step_ms

    def covers(self, window: Window) -> bool:
        """Whether it reaches from the window's start to its end."""
        first, end = self.span()
        return first <= window.start_ms and end >= window.end_ms

    def traded(self, window: Window) -> bool:
        """Whether something was traded in the window."""
        return bool((self.bars.between(window.start_ms, window.end_ms).volume > 0.0).any())

    def candles(self, start_ms: int, window: Window) -> Candles:
        """From `start_ms` on, in the window's timeframe."""
        return _coarser(self.bars.between(start_ms, window.last_ms), window.step_ms)

    def listing(self, base: str, quote: str, start_ms: int, window: Window) -> Listing:
        """The part from `start_ms` on."""
        part = self.bars.between(start_ms, window.last_ms)
        return candle_listing(candle_frame(part), base, quote, part.step_ms)


_Recording = _Ticks | _Bars


def open_pair(
    folder: Path, history: Path | None, pair: str, window: Window
) -> tuple[Listing, Candles]:
    """The market's part of a pair, and the candles before it.

    Parameters
    ----------
    folder, history : directories with recordings, and with older candles of the timeframe

    Raises
    ------
    ConfigError
        For a pair or a directory that is not there.
    DataError
        For a recording that cannot be read or does not cover the window, and where nothing was
        traded in it.
    """
    base, quote = _currencies(pair)
    recording = _choose(_files_of(folder, pair), pair, window)
    older = _older(history, pair, window) if history else no_candles(pair, window.step_ms)
    # The candle in which the recording begins is whole in the older candles only.
    begin_ms = recording.span()[0]
    joint = candle_open_ms(begin_ms, window.step_ms)
    joint += window.step_ms if joint < begin_ms and joint in older.date_ms else 0
    cut = max(joint, window.first_ms)
    try:
        older = older.between(0, joint).then(recording.candles(joint, window))
        listing = recording.listing(base, quote, cut, window)
        bridge = older.between(window.first_ms, cut)
        if (bridge.volume > 0.0).any():
            listing = joined(
                candle_listing(candle_frame(bridge), base, quote, bridge.step_ms), listing
            )
    except DataError as error:
        raise DataError(f"{folder}: {pair}: {error}") from None
    return listing, older.between(0, candle_open_ms(int(listing.trades.time_ms[0]), window.step_ms))


def _currencies(pair: str) -> tuple[str, str]:
    match = _SPOT_PAIR.fullmatch(pair)
    if not match:
        raise ConfigError(f'"{pair}" is not a pair of a spot market, like BTC/USDT')
    return match[1], match[2]


def _files_of(folder: Path, pair: str) -> list[RecordedFile]:
    """The recordings of a pair in a directory, of any timeframe."""
    if not folder.is_dir():
        raise ConfigError(f'"{folder}" is not a directory; give one with candles or trades')
    files = recorded_files(folder)
    found = [file for file in files if file.symbol == pair.replace("/", "")]
    if not found:
        known = ", ".join(sorted({_pair_of(file) for file in files}))
        raise ConfigError(f"{folder} has no recording of {pair}; there are {known}")
    return found


def _pair_of(file: RecordedFile) -> str:
    if file.step_ms:
        return file.path.stem.split("-")[0].replace("_", "/")
    try:
        return "/".join(split_symbol(file.symbol))
    except DataError:
        return file.symbol


def _older(folder: Path, pair: str, window: Window) -> Candles:
    """The candles of the window's timeframe in a directory."""
    files = [file for file in _files_of(folder, pair) if file.step_ms == window.step_ms]
    if not files:
        raise ConfigError(f"{folder} has no candles of {pair} in {window.timeframe}")
    return _bars(files[0], pair)


def _choose(files: list[RecordedFile], pair: str, window: Window) -> _Recording:
    """The first recording that covers the window."""
    candidates = list(_candidates(files, window))
    if not candidates:
        steps = ", ".join(file.path.name for file in files)
        raise ConfigError(f"{window.timeframe} candles of {pair} do not follow from {steps}")
    spans = []
    for name, read in candidates:
        recording = read(pair, window)
        if recording.covers(window):
            if recording.traded(window):
                return recording
            raise DataError(f"{name}: nothing of {pair} was traded in {window}; is it a hole?")
        first, end = recording.span()
        spans.append(f"{name} has {utc_text(first)} to {utc_text(end)}")
    raise DataError(f"no recording of {pair} covers {window}: {'; '.join(spans)}")


_Reader = Callable[[str, Window], _Recording]


def _candidates(files: list[RecordedFile], window: Window) -> Iterator[tuple[str, _Reader]]:
    """Trades, then candles of the timeframe, then those it is a multiple of, finest first."""
    ticks = [file for file in files if not file.step_ms]
    if ticks:
        yield ", ".join(file.path.name for file in ticks), partial(_ticks, ticks)
    bars = [file for file in files if file.step_ms and window.step_ms % file.step_ms == 0]
    for file in sorted(bars, key=lambda file: (file.step_ms != window.step_ms, file.step_ms)):
        yield file.path.name, partial(_read_bars, file)


def _read_bars(file: RecordedFile, pair: str, window: Window) -> _Bars:
    return _Bars(_bars(file, pair))


def _bars(file: RecordedFile, pair: str) -> Candles:
    frame, timeframe = file.frame(), file.path.stem.rsplit("-", 1)[1]
    try:
        return Candles.from_frame(frame, pair, timeframe)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None


def _ticks(files: list[RecordedFile], pair: str, window: Window) -> _Ticks:
    """The trades of those files that overlap the market's time, or else of all of them."""
    near = [file for file in files if _overlaps(file, window)] or files
    parts = [file.frame()[list(TRADE_COLUMNS)] for file in near]
    frame = pd.concat(parts, ignore_index=True).sort_values("id", kind="stable")
    frame = frame.drop_duplicates("id", ignore_index=True)
    return _Ticks(frame, frame["time_us"].to_numpy(np.int64) // 1000)


def _overlaps(file: RecordedFile, window: Window) -> bool:
    time_ms = read_frame(file.path, TRADE_COLUMNS[:1], only=True)["time_us"].to_numpy() // 1000
    return bool(time_ms.min() < window.last_ms and time_ms.max() >= window.first_ms)


def _coarser(candles: Candles, step_ms: int) -> Candles:
    """The same time in longer candles."""
    if step_ms == candles.step_ms or not len(candles):
        return candles
    opens = candle_open_ms(candles.date_ms, step_ms)
    starts = np.flatnonzero(np.diff(opens, prepend=-1))
    ends = np.append(starts[1:], len(opens)) - 1
    return Candles(
        candles.pair,
        step_ms,
        date_ms=opens[starts],
        open=candles.open[starts],
        high=np.maximum.reduceat(candles.high, starts),
        low=np.minimum.reduceat(candles.low, starts),
        close=candles.close[ends],
        volume=np.add.reduceat(candles.volume, starts).round(_VOLUME_DECIMALS),
    )
