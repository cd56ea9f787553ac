"""Order flow of closed candles on disk, beside the candles: cheap to append to, safe to be killed.

folder/BTC_USDT-5m.feather   what is known, checksummed; readable with pandas too
folder/BTC_USDT-5m.journal   what came since, one checksummed record after the other

A running bot adds one record per pair and candle. Those go to the end of the journal; once it is
full it is merged into the feather file, which is replaced whole. Whoever reads, reads the journal
first, so that what is merged meanwhile is met twice and never missed.

A feather file of Binance's klines with their flow columns is read as it is; its prices are dropped
when newer records are merged into it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lstm_model.errors import DataError, StoreError
from lstm_model.files import how_to_place, lock, unreadable, write_atomically
from lstm_model.market.candles import FLOW, Floats, Ints, Records, timeframe_ms, utc_text

# Chosen: three days of 5m candles; reading so many back at every append takes a fraction of a
# millisecond, and a merge of 100,000 candles is due only after as many.
JOURNAL_RECORDS = 1_000

_NAMES = tuple(FLOW.names or ())
_VALUES = _NAMES[1:]
_KLINE_VALUES = _VALUES[:5]  # what files of Binance's klines have; they are complete
_ALWAYS_KNOWN = (*_KLINE_VALUES, "coverage")
_CHECKSUM = b"lstm_flow_crc32"  # key in the schema's metadata

_ENTRY = np.dtype([("flow", FLOW), ("crc32", np.uint32)]).newbyteorder("<")
_HEADER = f"lstm-flow {FLOW.newbyteorder('<').descr}\n".encode()
_REMEDY = "delete it, and download it anew with `freqtrade-lstm download-flow`"
# Sums of the same amounts in another order differ by their rounding.
_ROUNDING = 1.0 + 1e-9


def merge(known: Records, news: Records) -> Records:
    """Both (N,) FLOW as one, rising; of two records of a candle the one that covers more of it.

    When both cover as much, the one in `known` stays: a kline is not replaced by a tape's.

    Examples
    --------
    >>> from lstm_model.market.candles import unknown_flow
    >>> one, two = (unknown_flow(np.array([0, step])) for step in (60_000, 120_000))
    >>> merge(one, two)["date_ms"]
    array([     0,  60000, 120000])
    """
    start = np.searchsorted(known["date_ms"], news["date_ms"].min()) if len(news) else len(known)
    both = np.concatenate([known[start:], news])
    order = np.lexsort((-both["coverage"], both["date_ms"]))  # stable
    both = both[order]
    first = np.concatenate([[True], np.diff(both["date_ms"]) != 0])[: len(both)]
    return np.concatenate([known[:start], both[first]])


def coverage_at(flow: Records, date_ms: Ints) -> Floats:
    """(C,) coverage of the candles that open at `date_ms` (C,); 0 where `flow` has no record."""
    if not len(flow):
        return np.zeros(len(date_ms))
    place = np.minimum(np.searchsorted(flow["date_ms"], date_ms), len(flow) - 1)
    return np.where(flow["date_ms"][place] == date_ms, flow["coverage"][place], 0.0)


class FlowStore:
    """Flow of closed candles below one folder; threads and processes may share it.

    Parameters
    ----------
    folder : made on the first write. freqtrade takes every file in its data directory for
        candles, so this is a folder of its own.

    Examples
    --------
    >>> import tempfile
    >>> from lstm_model.market.candles import unknown_flow
    >>> store = FlowStore(Path(tempfile.mkdtemp()))
    >>> record = unknown_flow(np.array([300_000]))
    >>> for name in FLOW.names[1:]:
    ...     record[name] = 1.0
    >>> store.write("BTC/USDT", "5m", record)
    >>> store.read("BTC/USDT", "5m") == record
    array([ True])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tails: dict[Path, tuple[tuple[int, ...], Records]] = {}

    def path(self, pair: str, timeframe: str) -> Path:
        """The feather file of a pair, named as freqtrade names its candles.

        Examples
        --------
        >>> FlowStore(Path("flow")).path("BTC/USDT:USDT", "5m").name
        'BTC_USDT_USDT-5m-futures.feather'
        """
        name = re.sub(r"[/ .@$+:]", "_", pair)  # freqtrade.misc.pair_to_filename
        kind = "-futures" if ":" in pair else ""
        return self.folder / f"{name}-{timeframe}{kind}.feather"

    def read(self, pair: str, timeframe: str) -> Records:
        """(N,) FLOW, rising; empty where nothing is known.

        Raises
        ------
        StoreError
            A file is damaged, or may not be read; names it and says what to do.
        """
        path = self.path(pair, timeframe)
        news = _read_journal(path)
        return merge(_parse_base(_content(path), path, timeframe_ms(timeframe)), news)

    def newest(self, pair: str, timeframe: str, count: int) -> Records:
        """The last `count` records of `read`; quick to ask for again, at every candle.

        Raises
        ------
        StoreError
            As `read`.
        """
        path = self.path(pair, timeframe)
        news, state = _read_journal(path), (count, *_state(path))
        remembered, tail = self._tails.get(path, ((), news[:0]))
        if remembered != state:
            tail = _last(_parse_base(_content(path), path, timeframe_ms(timeframe)), count).copy()
            self._tails[path] = state, tail
        return _last(merge(tail, news), count)

    def write(self, pair: str, timeframe: str, records: Records) -> None:
        """Add what (N,) FLOW knows of closed candles, in any order; better records stay.

        Killed at any moment, this loses nothing that was there before. Records that the
        operating system had not written out when the power failed may be lost.

        Raises
        ------
        DataError
            A record cannot be true; nothing is written.
        StoreError
            A file is damaged, or the folder not writable.
        """
        news = _checked(records, pair, timeframe)
        if not len(news):
            return
        path = self.path(pair, timeframe)
        with _exclusive(_journal(path)) as handle:
            known, end = _parse_journal(handle.read(), _journal(path))
            news = news[news["coverage"] > coverage_at(known, news["date_ms"])]
            if len(known) + len(news) > JOURNAL_RECORDS:
                _fold(path, merge(known, news), timeframe_ms(timeframe))
                handle.truncate(0)
                self._tails.pop(path, None)
            elif len(news):
                _append(handle, end, news)


def _last(flow: Records, count: int) -> Records:
    return flow[max(len(flow) - count, 0) :]


def _checked(records: Records, pair: str, timeframe: str) -> Records:
    """The records that say something, rising and one per candle."""
    if records.dtype != FLOW:
        raise DataError(f"{pair}: order flow must be of dtype FLOW, found {records.dtype}")
    known = merge(records[:0], records[records["coverage"] != 0.0])
    if flaw := _flaw(known, timeframe_ms(timeframe)):
        raise DataError(f"{pair}: order flow of {timeframe} candles {flaw}")
    return known


def _flaw(flow: Records, step_ms: int) -> str | None:
    """What cannot be true of the records, and where it begins; None if all is well."""
    numbers = np.stack([flow[name] for name in _VALUES])
    always = np.stack([flow[name] for name in _ALWAYS_KNOWN])
    with np.errstate(invalid="ignore"):
        flaws = {
            "is off the grid": flow["date_ms"] % step_ms != 0,
            "is not in order of time": np.diff(flow["date_ms"], prepend=-(2**62)) <= 0,
            "is NaN": np.isnan(always).any(axis=0),
            "is negative or infinite": ((numbers < 0.0) | np.isinf(numbers)).any(axis=0),
            "covers more than all": flow["coverage"] > 1.0,
            "has takers buy more than was traded": (
                (flow["taker_base"] > flow["volume"] * _ROUNDING)
                | (flow["taker_quote"] > flow["quote_volume"] * _ROUNDING)
            ),
        }
    found = ((flaw, flow["date_ms"][rows]) for flaw, rows in flaws.items() if rows.any())
    return next((f"{flaw}, first at {utc_text(dates[0])}" for flaw, dates in found), None)


# The journal


def _journal(path: Path) -> Path:
    return path.with_suffix(".journal")


def _read_journal(path: Path) -> Records:
    journal = _journal(path)
    return _parse_journal(_content(journal) or b"", journal)[0]


def _parse_journal(content: bytes, path: Path) -> tuple[Records, int]:
    """What the journal knows, rising, and where its last whole record ends.

    A record that a crash left half-written can only be at the end; there it is ignored.
    """
    if _HEADER.startswith(content[: len(_HEADER)]) and len(content) < len(_HEADER):
        return np.empty(0, FLOW), 0
    if not content.startswith(_HEADER):
        raise StoreError(f"{path} is damaged or of another release: {_REMEDY}")
    count = (len(content) - len(_HEADER)) // _ENTRY.itemsize
    entries = np.frombuffer(content, _ENTRY, count, len(_HEADER))
    sound = entries["crc32"] == _checksums(entries["flow"])
    whole = int(sound.sum())
    if not sound[:whole].all():
        raise StoreError(f"{path} is damaged (checksum differs): {_REMEDY}")
    records = entries["flow"][:whole].astype(FLOW)
    return merge(records[:0], records), len(_HEADER) + whole * _ENTRY.itemsize


def _checksums(records: Records) -> Ints:
    content, size = records.tobytes(), FLOW.itemsize
    crcs = (zlib.crc32(content[at : at + size]) for at in range(0, len(content), size))
    return np.fromiter(crcs, np.int64, len(records))


def _append(handle: BinaryIO, end: int, records: Records) -> None:
    entries = np.empty(len(records), _ENTRY)
    entries["flow"] = records
    entries["crc32"] = _checksums(entries["flow"])
    handle.truncate(end)
    handle.seek(end)
    handle.write((b"" if end else _HEADER) + entries.tobytes())
    handle.flush()


@contextmanager
def _exclusive(path: Path) -> Iterator[BinaryIO]:
    """The journal, open; one writer at a time, so that none loses another's records."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as handle:
            lock(handle, path)
            yield handle
    except OSError as error:
        raise StoreError(
            f"cannot write {path} ({error.strerror}): {how_to_place(error)} and leave room on "
            "the disk"
        ) from None


# The feather file


def _fold(path: Path, news: Records, step_ms: int) -> None:
    """Merge `news` into the feather file; the journal's lock must be held."""
    known = _parse_base(_content(path), path, step_ms)
    merged = merge(known, news)
    if len(merged) == len(known) and (merged["coverage"] == known["coverage"]).all():
        return
    for leftover in path.parent.glob(f".tmp-{path.name}-*"):  # of a writer that was killed
        leftover.unlink(missing_ok=True)
    write_atomically(path, _pack_base(merged))


def _pack_base(flow: Records) -> bytes:
    import pyarrow as pa  # type: ignore[import-untyped]

    dates = pa.array(flow["date_ms"], pa.timestamp("ms", tz="UTC"))
    columns = [dates, *(pa.array(np.ascontiguousarray(flow[name])) for name in _VALUES)]
    table = pa.table(columns, names=["date", *_VALUES])
    table = table.replace_schema_metadata({_CHECKSUM: str(zlib.crc32(flow.tobytes()))})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")  # a feather file is Arrow's file format
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _parse_base(content: bytes | None, path: Path, step_ms: int) -> Records:
    if content is None:
        return np.empty(0, FLOW)
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
        flow = _flow_of_table(table, pa.timestamp("ms", tz="UTC"))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise StoreError(f"{path} is damaged or foreign ({reason}): {_REMEDY}") from None
    checksum = (table.schema.metadata or {}).get(_CHECKSUM)
    if checksum is None:  # not written by us
        flaw = _flaw(flow, step_ms)
    else:
        same = checksum == str(zlib.crc32(flow.tobytes())).encode()
        flaw = None if same else "is damaged (checksum differs)"
    if flaw:
        raise StoreError(f"{path}: order flow {flaw}: {_REMEDY}")
    return flow


def _flow_of_table(table: Any, date_type: Any) -> Records:
    """Our own columns, or those of a file of Binance's klines."""
    ours = "coverage" in table.column_names
    flow = np.empty(len(table), FLOW)
    flow["date_ms"] = table.column("date").cast(date_type).to_numpy().astype(np.int64)
    flow["coverage"] = 1.0
    flow["realized_volatility"] = flow["largest"] = np.nan
    for name in _VALUES if ours else _KLINE_VALUES:
        flow[name] = table.column(name).to_numpy()
    return flow


def _state(path: Path) -> tuple[int, ...]:
    """Changes whenever the file is replaced; empty where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _content(path: Path) -> bytes | None:
    """None where there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise unreadable(path, error) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None
