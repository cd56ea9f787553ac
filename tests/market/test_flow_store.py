"""Order flow on disk: better records win, and nothing written is ever lost or half there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from freqtrade.data.history import get_datahandler
from freqtrade.enums import TradingMode
from freqtrade.misc import pair_to_filename
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED

from lstm_model.errors import DataError, StoreError
from lstm_model.files import write_atomically
from lstm_model.market import flow_store
from lstm_model.market.candles import FLOW, Records, unknown_flow, utc_text
from lstm_model.market.flow_store import FlowStore, coverage_at, merge

STEP_MS = 300_000
PAIR, TIMEFRAME = "BTC/USDT", "5m"
NOTHING = np.empty(0, FLOW)


def make_flow(rows: list[tuple[int, float, float]]) -> Records:
    """Records of (number of the candle, coverage, volume)."""
    flow = unknown_flow(np.array([STEP_MS * number for number, _, _ in rows], dtype=np.int64))
    flow["coverage"] = [coverage for _, coverage, _ in rows]
    flow["volume"] = [volume for _, _, volume in rows]
    flow["quote_volume"] = 100.0 * flow["volume"]
    flow["trades"], flow["taker_base"], flow["taker_quote"] = 3.0, 0.0, 0.0
    return flow


def run_of(count: int, start: int = 0, coverage: float = 1.0) -> Records:
    return make_flow([(number, coverage, 1.0 + number) for number in range(start, start + count)])


def same(left: Records, right: Records) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


@pytest.fixture
def store(tmp_path: Path) -> FlowStore:
    return FlowStore(tmp_path / "data" / "flow")


@pytest.fixture
def small_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_store, "JOURNAL_RECORDS", 10)


# Merging

ROWS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([0.25, 0.5, 1.0]), st.integers(1, 9)), max_size=12
)
FLOWS = ROWS.map(lambda rows: make_flow([(n, c, float(v)) for n, c, v in rows]))
KNOWN = FLOWS.map(lambda flow: merge(NOTHING, flow))


@given(KNOWN, FLOWS)
def test_a_merge_is_rising_and_covers_each_candle_as_well_as_the_better(
    known: Records, news: Records
) -> None:
    merged = merge(known, news)
    dates = sorted({*known["date_ms"].tolist(), *news["date_ms"].tolist()})
    assert merged["date_ms"].tolist() == dates
    both = [*known, *news]
    for record in merged:
        rivals = [other for other in both if other["date_ms"] == record["date_ms"]]
        assert record["coverage"] == max(rival["coverage"] for rival in rivals)


@given(KNOWN, FLOWS)
def test_merging_the_same_again_changes_nothing(known: Records, news: Records) -> None:
    merged = merge(known, news)
    assert same(merge(merged, news), merged)
    assert same(merge(merged, known), merged)
    assert same(merge(known, NOTHING), known)


@given(KNOWN, KNOWN)
def test_order_matters_only_between_records_that_cover_as_much(one: Records, two: Records) -> None:
    shared, left, right = np.intersect1d(one["date_ms"], two["date_ms"], return_indices=True)
    tied = shared[one["coverage"][left] == two["coverage"][right]]
    forth, back = merge(one, two), merge(two, one)
    differ = forth["volume"] != back["volume"]
    assert set(forth["date_ms"][differ]) <= set(tied)
    known = np.isin(one["date_ms"], tied)
    assert same(forth[np.isin(forth["date_ms"], tied)], one[known])


@given(KNOWN, KNOWN, KNOWN)
def test_it_does_not_matter_how_merges_are_grouped(a: Records, b: Records, c: Records) -> None:
    assert same(merge(merge(a, b), c), merge(a, merge(b, c)))


@given(KNOWN)
def test_coverage_is_zero_where_nothing_is_known(flow: Records) -> None:
    found = dict(zip(flow["date_ms"].tolist(), flow["coverage"].tolist(), strict=True))
    grid = STEP_MS * np.arange(-1, 11)
    assert coverage_at(flow, grid).tolist() == [found.get(int(date), 0.0) for date in grid]


# What is written is read


def test_nothing_is_known_before_the_first_write(store: FlowStore) -> None:
    assert same(store.read(PAIR, TIMEFRAME), NOTHING)
    assert same(store.newest(PAIR, TIMEFRAME, 5), NOTHING)
    assert not store.folder.exists()


@pytest.mark.lengthy
@settings(max_examples=40)
@given(st.lists(FLOWS, max_size=8), st.integers(1, 12))
def test_the_store_is_the_merge_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Records], count: int
) -> None:
    folder, expected = tmp_path_factory.mktemp("flow"), NOTHING
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_store, "JOURNAL_RECORDS", 4)
        store = FlowStore(folder)
        for batch in batches:
            store.write(PAIR, TIMEFRAME, batch)
            expected = merge(expected, batch)
            assert same(store.read(PAIR, TIMEFRAME), expected)
            assert same(FlowStore(folder).read(PAIR, TIMEFRAME), expected)
            assert same(store.newest(PAIR, TIMEFRAME, count), expected[-count:])


@pytest.mark.parametrize("count", [1, 7, 3_000])
def test_every_bit_comes_back(store: FlowStore, count: int) -> None:
    generator = np.random.default_rng(count)
    flow = run_of(count)
    for name in ("volume", "quote_volume", "realized_volatility", "largest", "trades"):
        flow[name] = generator.lognormal(0.0, 20.0, count)
    flow["coverage"] = generator.uniform(1e-9, 1.0, count)
    store.write(PAIR, TIMEFRAME, flow)
    assert same(store.read(PAIR, TIMEFRAME), flow)


def test_klines_are_not_replaced_by_a_partial_tape_nor_by_a_whole_one(store: FlowStore) -> None:
    klines = make_flow([(1, 1.0, 5.0)])
    store.write(PAIR, TIMEFRAME, klines)
    for coverage in (0.5, 1.0):
        store.write(PAIR, TIMEFRAME, make_flow([(1, coverage, 4.0)]))
        assert same(store.read(PAIR, TIMEFRAME), klines)


def test_a_partial_tape_is_replaced_by_klines(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, make_flow([(1, 0.9, 4.0), (2, 1.0, 7.0)]))
    store.write(PAIR, TIMEFRAME, make_flow([(1, 1.0, 5.0), (2, 1.0, 8.0)]))
    assert store.read(PAIR, TIMEFRAME)["volume"].tolist() == [5.0, 7.0]


def test_records_that_know_nothing_are_not_kept(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, unknown_flow(np.array([0, STEP_MS])))
    assert same(store.read(PAIR, TIMEFRAME), NOTHING)


def test_pairs_and_timeframes_do_not_mix(store: FlowStore) -> None:
    places = [(PAIR, "5m"), (PAIR, "15m"), ("BTC/USDT:USDT", "5m"), ("ETH/USDT", "5m")]
    for number, (pair, timeframe) in enumerate(places):
        store.write(pair, timeframe, make_flow([(3, 1.0, 1.0 + number)]))
    volumes = [store.read(*place)["volume"].tolist() for place in places]
    assert volumes == [[1.0], [2.0], [3.0], [4.0]]


@pytest.mark.parametrize("pair", ["BTC/USDT", "BTC/USDT:USDT", "1000.SHIB/USDT", "A$B+/C@D E"])
def test_files_are_named_as_freqtrade_names_its_own(store: FlowStore, pair: str) -> None:
    name = store.path(pair, "5m").name
    assert name.startswith(pair_to_filename(pair) + "-5m")
    assert name.endswith("-futures.feather" if ":" in pair else "5m.feather")


def test_freqtrade_does_not_take_order_flow_for_candles(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, run_of(2_000))
    store.write(PAIR, TIMEFRAME, run_of(1, 2_000))
    datadir = store.folder.parent
    handler = get_datahandler(datadir, "feather")
    for mode in (TradingMode.SPOT, TradingMode.FUTURES):
        assert handler.ohlcv_get_available_data(datadir, mode) == []
        assert handler.trades_get_available_data(datadir, mode) == []


def test_the_file_is_a_feather_file_that_pandas_reads(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, run_of(2_000))
    frame = pd.read_feather(store.path(PAIR, TIMEFRAME))
    assert list(frame.columns) == ["date", *(FLOW.names or ())[1:]]
    assert frame["date"].iloc[1] == pd.Timestamp(STEP_MS, unit="ms", tz="UTC")
    assert frame["volume"].tolist() == (1.0 + np.arange(2_000)).tolist()


# Cost


@pytest.mark.usefixtures("small_journal")
def test_the_file_is_rewritten_only_when_the_journal_is_full(
    store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = []

    def count(path: Path, content: bytes) -> None:
        rewritten.append(len(store.read(PAIR, TIMEFRAME)) + 1)
        write_atomically(path, content)

    monkeypatch.setattr(flow_store, "write_atomically", count)
    for number in range(50):
        store.write(PAIR, TIMEFRAME, run_of(1, number))
    assert rewritten == [11, 22, 33, 44]
    assert same(store.read(PAIR, TIMEFRAME), run_of(50))


def test_a_record_that_says_nothing_new_is_not_appended(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, make_flow([(1, 0.5, 1.0), (2, 1.0, 1.0)]))
    journal = store.path(PAIR, TIMEFRAME).with_suffix(".journal")
    size = journal.stat().st_size
    for coverage in (0.3, 0.5):
        store.write(PAIR, TIMEFRAME, make_flow([(1, coverage, 2.0), (2, coverage, 2.0)]))
        assert journal.stat().st_size == size
    store.write(PAIR, TIMEFRAME, make_flow([(1, 0.6, 2.0), (2, 0.6, 2.0)]))
    assert journal.stat().st_size == size + FLOW.itemsize + 4


@pytest.mark.usefixtures("small_journal")
def test_writing_again_what_is_known_grows_nothing(store: FlowStore) -> None:
    for _ in range(3):
        store.write(PAIR, TIMEFRAME, run_of(25))
        for number in range(25, 30):
            store.write(PAIR, TIMEFRAME, run_of(1, number))
    path = store.path(PAIR, TIMEFRAME)
    before = path.stat()
    for _ in range(5):
        store.write(PAIR, TIMEFRAME, run_of(30))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.with_suffix(".journal").stat().st_size < 30 * 2 * FLOW.itemsize


def test_the_newest_records_are_read_from_disk_once(
    store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(PAIR, TIMEFRAME, run_of(2_000))
    assert same(store.newest(PAIR, TIMEFRAME, 300), run_of(300, 1_700))
    with monkeypatch.context() as patch:
        patch.delattr(flow_store, "_parse_base")
        store.write(PAIR, TIMEFRAME, run_of(1, 2_000))
        assert same(store.newest(PAIR, TIMEFRAME, 300), run_of(300, 1_701))
    FlowStore(store.folder).write(PAIR, TIMEFRAME, run_of(2_500))
    assert same(store.newest(PAIR, TIMEFRAME, 300), run_of(300, 2_200))


# Damage


@pytest.mark.lengthy
@pytest.mark.parametrize("torn", ["cut", "zeros", "noise"])
def test_a_record_that_was_written_half_is_ignored_and_overwritten(
    store: FlowStore, torn: str
) -> None:
    for number in range(3):
        store.write(PAIR, TIMEFRAME, run_of(1, number))
    journal = store.path(PAIR, TIMEFRAME).with_suffix(".journal")
    whole = journal.read_bytes()
    record = FLOW.itemsize + 4
    ends = [len(whole) - 3 * record + number * record for number in range(5)]
    for length in range(len(whole)):
        rest = len(whole) - length
        tail = {"cut": b"", "zeros": bytes(rest), "noise": b"\xa5" * rest}[torn]
        if length < ends[0] and torn != "cut":
            continue
        journal.write_bytes(whole[:length] + tail)
        count = sum(end <= length for end in ends[1:4])
        assert same(store.read(PAIR, TIMEFRAME), run_of(count))
        store.write(PAIR, TIMEFRAME, run_of(1, 5))
        assert same(store.read(PAIR, TIMEFRAME), np.concatenate([run_of(count), run_of(1, 5)]))
        assert journal.stat().st_size == ends[count + 1]


def test_a_crash_between_merge_and_emptying_the_journal_harms_nothing(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, run_of(5))
    journal = store.path(PAIR, TIMEFRAME).with_suffix(".journal")
    before = journal.read_bytes()
    store.write(PAIR, TIMEFRAME, run_of(2_000))
    assert journal.read_bytes() == b""
    journal.write_bytes(before)
    assert same(store.read(PAIR, TIMEFRAME), run_of(2_000))
    store.write(PAIR, TIMEFRAME, run_of(3_000, 2_000))
    assert same(store.read(PAIR, TIMEFRAME), run_of(5_000))


def assert_refused(store: FlowStore, path: Path) -> None:
    with pytest.raises(StoreError, match=r"delete it.*freqtrade-lstm download-flow") as caught:
        store.read(PAIR, TIMEFRAME)
    assert str(path) in str(caught.value)


def test_a_flipped_bit_in_the_middle_of_the_journal_is_refused(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, run_of(5))
    journal = store.path(PAIR, TIMEFRAME).with_suffix(".journal")
    content = bytearray(journal.read_bytes())
    content[-3 * FLOW.itemsize] ^= 1
    journal.write_bytes(content)
    assert_refused(store, journal)
    with pytest.raises(StoreError, match="damaged"):
        store.write(PAIR, TIMEFRAME, run_of(1, 9))


def test_a_foreign_journal_is_refused(store: FlowStore) -> None:
    store.write(PAIR, TIMEFRAME, run_of(5))
    journal = store.path(PAIR, TIMEFRAME).with_suffix(".journal")
    journal.write_bytes(b"x" * 400)
    assert_refused(store, journal)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_feather_file_is_refused(store: FlowStore, share: float) -> None:
    store.write(PAIR, TIMEFRAME, run_of(2_000))
    path = store.path(PAIR, TIMEFRAME)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(store, path)


def test_a_flipped_bit_in_the_feather_file_is_refused_or_harmless(store: FlowStore) -> None:
    written = run_of(1_200)
    written["volume"] = np.random.default_rng(1).lognormal(size=len(written))
    store.write(PAIR, TIMEFRAME, written)
    path = store.path(PAIR, TIMEFRAME)
    content, refused = path.read_bytes(), 0
    for position in random.Random(1).sample(range(len(content)), 150):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        try:
            assert same(store.read(PAIR, TIMEFRAME), written)
        except StoreError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("name", "value", "flaw"),
    [
        ("date_ms", 7 * STEP_MS + 1, "off the grid"),
        ("volume", np.nan, "is NaN"),
        ("trades", -1.0, "negative or infinite"),
        ("quote_volume", np.inf, "negative or infinite"),
        ("largest", -1.0, "negative or infinite"),
        ("coverage", 1.1, "covers more than all"),
        ("coverage", np.nan, "is NaN"),
        ("taker_base", 100.0, "takers buy more than was traded"),
    ],
)
def test_records_that_cannot_be_true_are_refused(
    store: FlowStore, name: str, value: float, flaw: str
) -> None:
    flow = run_of(10)
    flow[name][7] = value
    with pytest.raises(DataError, match=flaw) as caught:
        store.write(PAIR, TIMEFRAME, flow)
    assert str(caught.value).startswith("BTC/USDT: order flow of 5m candles")
    assert utc_text(7 * STEP_MS)[:16] in str(caught.value)
    assert same(store.read(PAIR, TIMEFRAME), NOTHING)


def test_records_of_another_shape_are_refused(store: FlowStore) -> None:
    with pytest.raises(DataError, match="dtype FLOW"):
        store.write(PAIR, TIMEFRAME, np.zeros(3, [("date_ms", np.int64)]))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "flow").write_text("a file")
    with pytest.raises(StoreError, match=str(tmp_path / "flow")):
        FlowStore(tmp_path / "flow").write(PAIR, TIMEFRAME, run_of(1))


# Files of klines


def kline_frame(count: int = 4) -> pd.DataFrame:
    dates = pd.to_datetime(STEP_MS * np.arange(count), unit="ms", utc=True)
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), 2.0)
    frame = pd.DataFrame({"date": dates, **columns, "quote_volume": 4.0})
    frame["trades"] = np.arange(count, dtype=np.int32)
    return frame.assign(taker_base=1.0, taker_quote=2.0)


def test_a_file_of_klines_is_complete_flow(store: FlowStore) -> None:
    path = store.path(PAIR, TIMEFRAME)
    path.parent.mkdir(parents=True)
    kline_frame().to_feather(path)
    flow = store.read(PAIR, TIMEFRAME)
    assert flow["trades"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert flow["coverage"].tolist() == [1.0] * 4
    assert np.isnan(flow["largest"]).all()
    assert np.isnan(flow["realized_volatility"]).all()
    store.write(PAIR, TIMEFRAME, run_of(2_000, 2))
    merged = store.read(PAIR, TIMEFRAME)
    assert len(merged) == 2_002
    assert same(merged[:4], flow)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="taker_base"), "taker_base"),
        (lambda frame: frame.iloc[::-1].reset_index(drop=True), "not in order of time"),
        (lambda frame: frame.assign(volume=np.nan), "is NaN"),
        (lambda frame: frame.assign(volume="many"), "damaged or foreign"),
        (lambda frame: frame.assign(date=frame["date"] + pd.Timedelta("1s")), "off the grid"),
    ],
)
def test_a_foreign_file_that_cannot_be_used_is_refused(
    store: FlowStore, change: object, words: str
) -> None:
    path = store.path(PAIR, TIMEFRAME)
    path.parent.mkdir(parents=True)
    change(kline_frame()).to_feather(path)  # type: ignore[operator]
    with pytest.raises(StoreError, match=words):
        store.read(PAIR, TIMEFRAME)


@pytest.mark.parametrize("name", ["BTC_USDT-1h", "DOGE_USDT-1h", "ETH_USDT-15m"])
def test_a_recorded_folder_can_be_used_as_it_is(name: str) -> None:
    folder = SHARED / "flow"
    if not (folder / f"{name}.feather").is_file():
        pytest.skip(f"no recorded order flow: {name} is not in {folder}")
    pair, timeframe = name.replace("_", "/").split("-")
    flow = FlowStore(folder).read(pair, timeframe)
    frame = pd.read_feather(folder / f"{name}.feather")
    assert len(flow) == len(frame) > 10_000
    assert (flow["coverage"] == 1.0).all()
    for column in ("volume", "quote_volume", "trades", "taker_base", "taker_quote"):
        assert (flow[column] == frame[column].to_numpy(np.float64)).all()
    assert not list(folder.glob("*.journal"))


# Several at once, and killed

WRITER = """
import sys
from pathlib import Path
import numpy as np
from lstm_model.market import flow_store
from lstm_model.market.flow_store import FlowStore
flow_store.JOURNAL_RECORDS = 20
store, number = FlowStore(Path(sys.argv[1])), int(sys.argv[2])
flow = np.load(sys.argv[3], allow_pickle=False)
while True:
    stop = number + 1 + number % 7
    store.write("BTC/USDT", "5m", flow[number:stop])
    number = stop
    print(number, flush=True)
"""


def killed_writer(folder: Path, start: int, source: Path, lifetime_s: float) -> int:
    """Writes on from candle `start` until it is killed; how many it had said were written."""
    words = [sys.executable, "-c", WRITER, str(folder), str(start), str(source)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(lifetime_s)
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    return max([start, *(int(line) for line in said if line.endswith(b"\n"))])


@pytest.mark.lengthy
def test_a_writer_killed_at_any_moment_loses_nothing_it_said_was_written(tmp_path: Path) -> None:
    store, source, written = FlowStore(tmp_path / "flow"), tmp_path / "flow.npy", 0
    np.save(source, run_of(20_000), allow_pickle=False)
    for _ in range(4):
        written = killed_writer(store.folder, written, source, random.uniform(0.0, 0.08))
        flow = store.read(PAIR, TIMEFRAME)
        assert len(flow) >= written > 0
        assert same(flow, run_of(len(flow)))
        written = len(flow)
    store.write(PAIR, TIMEFRAME, run_of(2_000, written))
    assert same(store.read(PAIR, TIMEFRAME), run_of(written + 2_000))
    assert not list(store.folder.glob(".tmp-*"))


@pytest.fixture
def reader_of(store: FlowStore) -> Iterator[list[int]]:
    """How many records a reader met, over and over, while a test ran."""
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(len(store.read(PAIR, TIMEFRAME)))

    thread = threading.Thread(target=read)
    thread.start()
    yield seen
    stop.set()
    thread.join()


@pytest.mark.skipif(os.name == "nt", reason="no file locks there")
@pytest.mark.usefixtures("small_journal")
def test_writers_and_readers_do_not_disturb_each_other(
    store: FlowStore, reader_of: list[int]
) -> None:
    def write(first: int) -> None:
        for number in range(first, 120, 2):
            FlowStore(store.folder).write(PAIR, TIMEFRAME, run_of(1, number))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(store.read(PAIR, TIMEFRAME), run_of(120))
    assert reader_of == sorted(reader_of)
