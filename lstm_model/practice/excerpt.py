"""The part of one pair's recordings that a window needs: trades, and the candles before them.

Candles older than what the market must hold (see `window`) are data, not trades. What a recording
lacks before its first trade may come from older candles; a few trades stand for each of those.

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
from typing import Any, NamedTuple

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
    tick_listing,
)
from lstm_model.practice.tape_market import Listing, TapeCandles, is_future, symbol_of
from lstm_model.practice.window import Window

_PAIR = re.compile(r"([A-Z0-9]+)/([A-Z0-9]+)(:\2)?")
FUTURES_FOLDER = "futures"  # where freqtrade keeps their candles, beside spot's
_EXACT = 2**53  # below, an integer is a float64
_VOLUME_DECIMALS = 8  # Binance's own limit


def closed_candles(listing: Listing, timeframe: str, until_ms: int) -> TapeCandles:
    """All candles that have closed by `until_ms`, counted in ticks and lots."""
    step_ms = timeframe_ms(timeframe)
    newest_ms = int(candle_open_ms(until_ms, step_ms)) - step_ms
    count = max(0, newest_ms - int(listing.trades.time_ms[0])) // step_ms + 2
    return listing.candles(timeframe, until_ms - 1, end_ms=newest_ms, limit=count)


def as_candles(listing: Listing, timeframe: str, until_ms: int) -> Candles:
    """All candles that have closed by `until_ms`, bit for bit as a client reads the klines."""
    closed = closed_candles(listing, timeframe, until_ms)
    return quoted_candles(listing, closed, timeframe_ms(timeframe))


def quoted_candles(listing: Listing, tape: TapeCandles, step_ms: int) -> Candles:
    """Candles counted in ticks and lots, as a client reads them."""
    quoted = listing.instrument
    open_, high, low, close = (
        parsed(getattr(tape, name), quoted.price_decimals) for name in PRICE_COLUMNS
    )
    volume = parsed(tape.volume, quoted.amount_decimals)
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
    step_ms = 0

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

    @property
    def step_ms(self) -> int:
        """Length of a candle."""
        return self.bars.step_ms

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


class OpenedPair(NamedTuple):
    """The market's part of a pair, the candles before it, whether it gives the detail's."""

    listing: Listing
    older: Candles
    is_detailed: bool


def open_pair(folder: Path, history: Path | None, pair: str, window: Window) -> OpenedPair:
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
    files = _files_of(folder, pair)
    recording = _choose(files, pair, window)
    older = no_candles(pair, window.step_ms)
    if history:
        older = _older(history, pair, window)
    elif window.is_detail(recording.step_ms) and _whole(files, window):
        older = _older(folder, pair, window)  # its detail need not reach back as far
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
    begin_ms = candle_open_ms(int(listing.trades.time_ms[0]), window.step_ms)
    return OpenedPair(listing, older.between(0, begin_ms), window.is_detail(recording.step_ms))


def _currencies(pair: str) -> tuple[str, str]:
    match = _PAIR.fullmatch(pair)
    if not match:
        raise ConfigError(
            f'"{pair}" is neither a pair of a spot market, like BTC/USDT, nor a future settled in '
            "its quote currency, like BTC/USDT:USDT"
        )
    return match[1], match[2]


def _files_of(folder: Path, pair: str) -> list[RecordedFile]:
    """The recordings of a pair in a directory, of any timeframe."""
    if not folder.is_dir():
        raise ConfigError(f'"{folder}" is not a directory; give one with candles or trades')
    if is_future(pair) and (folder / FUTURES_FOLDER).is_dir():
        folder = folder / FUTURES_FOLDER
    files = recorded_files(folder)
    found = [file for file in files if file.symbol == symbol_of(pair)]
    if not found:
        known = ", ".join(sorted({_pair_of(file) for file in files}))
        raise ConfigError(f"{folder} has no recording of {pair}; there are {known}")
    return found


def _pair_of(file: RecordedFile) -> str:
    try:
        return "/".join(file.currencies)
    except DataError:
        return file.symbol


def _older(folder: Path, pair: str, window: Window) -> Candles:
    """The candles of the window's timeframe in a directory."""
    files = _whole(_files_of(folder, pair), window)
    if not files:
        raise ConfigError(f"{folder} has no candles of {pair} in {window.timeframe}")
    return _bars(files[0], pair)


def _whole(files: list[RecordedFile], window: Window) -> list[RecordedFile]:
    """Those of the window's own timeframe."""
    return [file for file in files if file.step_ms == window.step_ms]


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
    """Trades, the detail, the timeframe, then finer candles it is a multiple of, finest first."""

    def order(file: RecordedFile) -> tuple[bool, int, int]:
        if window.is_detail(file.step_ms):
            return False, 0, -file.step_ms
        return True, file.step_ms != window.step_ms, file.step_ms

    ticks = [file for file in files if not file.step_ms]
    if ticks:
        yield ", ".join(file.path.name for file in ticks), partial(_ticks, ticks)
    bars = [file for file in files if file.step_ms and window.step_ms % file.step_ms == 0]
    for file in sorted(bars, key=order):
        yield file.path.name, partial(_read_bars, file)


def _read_bars(file: RecordedFile, pair: str, window: Window) -> _Bars:
    return _Bars(_bars(file, pair))


def _bars(file: RecordedFile, pair: str) -> Candles:
    frame = file.frame()
    try:
        return Candles.from_frame(frame, pair, file.timeframe)
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
