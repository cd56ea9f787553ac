"""The tape: the same whatever the order of arrival, exact, bounded, honest about what it lacks."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import tracemalloc
from collections import defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from places import SHARED
from series import recorded_candles

from lstm_model.errors import DataError
from lstm_model.market import continuity
from lstm_model.market.candles import FLOW, TRADE, Records, timeframe_ms
from lstm_model.market.gaps import Gap
from lstm_model.market.tally import Decimals
from lstm_model.market.tape import TradeTape
from lstm_model.practice.synthetic import synthetic_market

STEP_MS = 60_000
START_MS = 1_699_920_000_000  # a midnight
SUMS = ("volume", "quote_volume", "taker_base", "taker_quote")


def trades_of(rows: list[tuple[int, int, str, str, bool]]) -> Records:
    """TRADE records of (id, milliseconds since the start, price, amount, taker buys)."""
    trades = np.zeros(len(rows), TRADE)
    for at, (number, offset_ms, price, amount, buy) in enumerate(rows):
        time_ms = START_MS + offset_ms
        trades[at] = (number, time_ms, time_ms * 10**6, float(price), float(amount), buy)
    return trades


def many_trades(count: int, seed: int = 0, every_ms: int = 500, first_id: int = 1000) -> Records:
    """Trades with ids in a row whose times rise, several at the same moment."""
    random = np.random.default_rng(seed)
    trades = np.zeros(count, TRADE)
    trades["id"] = first_id + np.arange(count)
    trades["time_ms"] = START_MS + np.sort(random.integers(0, count * every_ms, count))
    trades["received_ns"] = trades["time_ms"] * 10**6 + 30_000_000
    trades["price"] = np.round(64_000 + np.cumsum(random.normal(0, 3, count)), 2)
    trades["amount"] = np.round(random.gamma(0.5, 0.2, count) + 1e-5, 5)
    trades["taker_buy"] = random.random(count) < 0.5
    return trades


def tape_of(trades: Records, *, consecutive: bool | None = True, **room: int) -> TradeTape:
    """A tape that watched from the start and got everything at once."""
    tape = new_tape(consecutive=consecutive, **room)
    tape.extend(trades)
    return tape


def new_tape(*, consecutive: bool | None = True, **room: int) -> TradeTape:
    tape = TradeTape("BTC/USDT", STEP_MS, **room)
    tape.ids_consecutive = consecutive
    tape.watch_from(START_MS)
    return tape


def contents(tape: TradeTape) -> tuple[object, ...]:
    """All that must not depend on the order of arrival."""
    candles = tape.candles(0, 2**62)
    return (
        tape.trades(0, 2**62)[["id", "time_ms", "price", "amount", "taker_buy"]].tolist(),
        str(tape.flow(0, 2**62).tolist()),  # as text NaN equals NaN
        [column.tolist() for column in candles.columns()],
        str(candles.flow.tolist()) if candles.flow is not None else None,
        tape.gaps(),
        tape.counts.trades,
        tape.counts.missing,
        (tape.last_id, tape.last_time_ms, tape.last_price),
    )


def all_flow(tape: TradeTape) -> Records:
    return tape.flow(0, 2**62)


# What a tape must say, computed the slow way


def expected_candles(trades: Records) -> dict[int, dict[str, float]]:
    """Per open time what a candle is, by decimal arithmetic."""
    groups: dict[int, list[tuple[int, int, Decimal, Decimal, bool]]] = defaultdict(list)
    for row in {row["id"]: row for row in trades}.values():
        time_ms = int(row["time_ms"])
        price, amount = Decimal(repr(float(row["price"]))), Decimal(repr(float(row["amount"])))
        groups[time_ms // STEP_MS * STEP_MS].append(
            (time_ms, int(row["id"]), price, amount, bool(row["taker_buy"]))
        )
    return {open_ms: expected_candle(sorted(group)) for open_ms, group in groups.items()}


def expected_candle(group: list[tuple[int, int, Decimal, Decimal, bool]]) -> dict[str, float]:
    prices = [float(trade[2]) for trade in group]
    squares = [min(math.log(b / a) ** 2, 64.0) for a, b in itertools.pairwise(prices)]
    return {
        "open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1],
        "trades": len(group), "largest": max(float(trade[3]) for trade in group),
        "volume": float(sum(trade[3] for trade in group)),
        "quote_volume": float(sum(trade[2] * trade[3] for trade in group)),
        "taker_base": float(sum(trade[3] for trade in group if trade[4])),
        "taker_quote": float(sum(trade[2] * trade[3] for trade in group if trade[4])),
        "realized_volatility": math.sqrt(math.fsum(squares)),
    }  # fmt: skip


def check_against_decimals(tape: TradeTape, trades: Records) -> None:
    expected, candles = expected_candles(trades), tape.candles(0, 2**62)
    assert candles.date_ms.tolist() == sorted(expected)
    assert candles.flow is not None
    for at, open_ms in enumerate(candles.date_ms.tolist()):
        wanted = expected[open_ms]
        for name in ("open", "high", "low", "close", "volume"):
            assert getattr(candles, name)[at] == wanted[name], name
        for name in (*SUMS, "trades", "largest"):
            assert candles.flow[name][at] == wanted[name], name
        close = pytest.approx(wanted["realized_volatility"], rel=1e-6, abs=1e-8)
        assert candles.flow["realized_volatility"][at] == close


@pytest.mark.parametrize("amount", ["35247913.78437421", "45035996.27370495"])
def test_a_large_amount_with_many_decimals_is_counted_to_the_last(amount: str) -> None:
    """Times 10**8 it is rounded twice, and that may be one too many."""
    row = Decimal("0.00000001")
    decimals = Decimals(most=8)
    decimals.learn(np.array([float(row)]))
    counted = [decimals.unit(float(amount)), int(decimals.units(np.array([float(amount)]))[0])]
    assert counted == [int(Decimal(amount) / row)] * 2


PRICES = st.decimals("0.00000001", "70000", places=8).map(str) | st.decimals(
    "63990", "64010", places=2
).map(str)
AMOUNTS = st.decimals("0.00000001", "90000000", places=8).map(str) | st.integers(1, 10**11).map(str)
OFFSETS = st.integers(0, 300) | st.sampled_from(
    [0, STEP_MS - 1, STEP_MS, STEP_MS + 1, 3 * STEP_MS, 7 * STEP_MS - 1]
)
ROWS = st.lists(st.tuples(OFFSETS, PRICES, AMOUNTS, st.booleans()), min_size=1, max_size=40)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[Records, list[Records]]:
    """Trades in order, and the same ones in any order, some twice, in batches of any size."""
    rows, kind = draw(ROWS), draw(st.sampled_from(["rising", "consecutive", "hash"]))
    offsets = sorted(row[0] for row in rows)
    if draw(st.booleans()):  # an exchange whose times do not follow its ids
        offsets = draw(st.permutations(offsets))
    ids = list(range(50, 50 + len(rows)))
    if kind != "consecutive":
        ids = draw(
            st.lists(st.integers(-(2**60), 2**60), min_size=len(rows), max_size=len(rows),
                     unique=True)
        )  # fmt: skip
        ids = sorted(ids) if kind == "rising" else ids
    trades = trades_of([(n, o, *row[1:]) for n, o, row in zip(ids, offsets, rows, strict=True)])
    whole = trades[np.lexsort((trades["id"], trades["time_ms"]))]
    order = draw(st.permutations(range(len(whole))))
    again = draw(st.lists(st.sampled_from(order), max_size=10))
    mixed = whole[[*order, *again]]
    cuts = sorted(draw(st.lists(st.integers(0, len(mixed)), max_size=6)))
    return whole, np.split(mixed, cuts)


@pytest.mark.lengthy
@given(arrivals(), st.sampled_from([True, False, None]))
@examples(max_examples=100)
def test_the_tape_is_the_same_whatever_the_order(
    case: tuple[Records, list[Records]], consecutive: bool | None
) -> None:
    whole, batches = case
    wanted = tape_of(whole, consecutive=consecutive)
    tape, one_by_one = (new_tape(consecutive=consecutive) for _ in range(2))
    for batch in batches:
        tape.extend(batch)
        for row in batch.tolist():
            one_by_one.append(*row)
    check_against_decimals(wanted, whole)
    assert contents(tape) == contents(one_by_one) == contents(wanted)
    for found in (tape, one_by_one):
        assert found.counts.duplicates == sum(map(len, batches)) - len(whole)


@pytest.mark.parametrize("consecutive", [True, False, None])
@pytest.mark.parametrize("seed", range(3))
def test_large_batches_are_put_in_order_too(consecutive: bool | None, seed: int) -> None:
    whole, random = many_trades(3000, seed), np.random.default_rng(seed)
    # Late by up to a few hundred trades, as a backfill is, and some of it twice.
    order = np.argsort(np.arange(3000) + random.exponential(200, 3000))
    mixed = whole[np.insert(order, 1500, order[700:1400])]
    tape = new_tape(consecutive=consecutive)
    for batch in np.split(mixed, np.sort(random.integers(0, len(mixed), 12))):
        tape.extend(batch)
    assert contents(tape) == contents(tape_of(whole, consecutive=consecutive))
    assert (tape.counts.trades, tape.counts.duplicates) == (3000, 700)
    check_against_decimals(tape, whole)


@pytest.mark.parametrize("consecutive", [True, False])
@pytest.mark.parametrize("size", [1, 5, 13, 100, 700])
def test_a_full_ring_keeps_the_newest_and_candles_keep_everything(
    consecutive: bool, size: int
) -> None:
    whole = many_trades(2000)
    tape = new_tape(consecutive=consecutive, capacity=150)
    for start in range(0, 2000, size):
        tape.extend(whole[start : start + size])
    np.testing.assert_array_equal(tape.trades(0, 2**62), whole[-150:])
    check_against_decimals(tape, whole)


@pytest.mark.lengthy
def test_trades_out_of_order_around_a_full_ring() -> None:
    whole, random = many_trades(2000), np.random.default_rng(1)
    order = np.argsort(np.arange(2000) + random.uniform(0, 60, 2000))
    for consecutive in (True, False):
        tape = new_tape(consecutive=consecutive, capacity=150)
        for start in range(0, 2000, 7):
            tape.extend(whole[order[start : start + 7]])
        for row in whole[order].tolist()[-150:]:
            assert not tape.append(*row)
        np.testing.assert_array_equal(tape.trades(0, 2**62), whole[-150:])
        check_against_decimals(tape, whole)


def test_candles_beyond_those_remembered_make_room() -> None:
    whole = many_trades(3000, every_ms=2000)
    dates = all_flow(tape_of(whole))["date_ms"]
    for size in (1, 400, 3000):
        tape = new_tape(candles=10)
        for start in range(0, 3000, size):
            tape.extend(whole[start : start + size])
        few = all_flow(tape)
        assert few["date_ms"].tolist() == dates[-10:].tolist()
        assert few.tolist() == all_flow(tape_of(whole))[-10:].tolist()
    assert tape.extend(many_trades(20, first_id=1)) == 20  # too old for a candle, and no harm
    assert all_flow(tape).tolist() == few.tolist()


# Exactness


def test_many_small_decimals_add_up_exactly() -> None:
    random = np.random.default_rng(3)
    rows = [
        (
            n,
            int(n),
            f"{random.integers(1, 10**9)}e-8",
            f"{random.integers(1, 10**13)}e-8",
            n % 2 == 0,
        )
        for n in range(5000)
    ]
    trades = trades_of(rows)
    for size in (5000, 700, 1):
        tape = new_tape()
        for start in range(0, 5000, size):
            tape.extend(trades[start : start + size])
        check_against_decimals(tape, trades)


def test_prices_of_every_magnitude_add_up_exactly() -> None:
    rows = [
        ("0.0000000012345", "98765432100.5"), ("1600000000", "0.00000001"), ("64000.01", "0.1"),
        ("0.1", "0.2"), ("1e15", "1e15"), ("1.5e-10", "3"),
    ]  # fmt: skip
    trades = trades_of([(n, 10 * n, *row, True) for n, row in enumerate(rows)])
    for part in (trades[:2], trades[:4], trades[[2, 3, 5]]):
        check_against_decimals(tape_of(part), part)
    assert all_flow(tape_of(trades))["quote_volume"][0] == pytest.approx(1e30)


def test_numbers_that_are_no_decimals_are_nearly_exact() -> None:
    trades, random = many_trades(2000), np.random.default_rng(0)
    trades["price"] *= random.normal(1.0, 1e-4, 2000)
    trades["amount"] = random.gamma(1.0, size=2000)
    flow = all_flow(tape_of(trades))
    assert flow["volume"].sum() == pytest.approx(trades["amount"].sum(), rel=1e-10)
    quote = (trades["price"] * trades["amount"]).sum()
    assert flow["quote_volume"].sum() == pytest.approx(quote, rel=1e-10)


def test_the_return_from_candle_to_candle_is_not_counted() -> None:
    rows = [(1, STEP_MS - 1, "100", "1", True), (2, STEP_MS, "200", "1", True)]
    flow = all_flow(tape_of(trades_of(rows)))
    assert flow["realized_volatility"].tolist() == [0.0, 0.0]
    rows = [(1, 0, "100", "1", True), (2, 1, "200", "1", True), (3, 2, "100", "1", True)]
    flow = all_flow(tape_of(trades_of(rows)))
    assert flow["realized_volatility"][0] == pytest.approx(math.sqrt(2) * math.log(2))


@pytest.mark.parametrize("timeframe", ["5m", "1h"])
def test_flow_equals_the_klines_of_the_loopback_exchange(timeframe: str) -> None:
    market = synthetic_market(5, 1, start_ms=START_MS)
    step_ms = timeframe_ms(timeframe)
    for listing in list(market.listings.values())[::3]:
        instrument, source = listing.instrument, listing.trades
        tape = TradeTape(instrument.pair, step_ms, capacity=5000)
        tape.ids_consecutive = True
        tape.watch_from(START_MS)
        scale = 10.0**instrument.price_decimals, 10.0**instrument.amount_decimals
        trades = np.zeros(len(source), TRADE)
        trades["id"] = source.first_id + np.arange(len(source))
        trades["time_ms"], trades["taker_buy"] = source.time_ms, source.taker_buy
        trades["received_ns"] = source.time_ms * 10**6
        trades["price"], trades["amount"] = source.price / scale[0], source.amount / scale[1]
        for start in range(0, len(trades), 997):
            tape.extend(trades[start : start + 997])
        end_ms = tape.last_time_ms // step_ms * step_ms
        flow = tape.flow(START_MS, end_ms)
        klines = listing.candles(timeframe, end_ms - 1, START_MS, end_ms - 1, limit=10**6)
        assert flow["date_ms"].tolist() == klines.open_ms.tolist()
        assert (flow["coverage"] == 1.0).all()
        lot = Decimal(10) ** -instrument.amount_decimals
        value = lot * Decimal(10) ** -instrument.price_decimals
        units = {"volume": lot, "taker_base": lot, "quote_volume": value, "taker_quote": value}
        for name, unit in units.items():
            wanted = [float(int(number) * unit) for number in getattr(klines, name)]
            assert flow[name].tolist() == wanted, name
        assert flow["trades"].tolist() == klines.trades.tolist()
        candles = tape.candles(START_MS, end_ms)
        traded = klines.trades > 0
        for name in ("open", "high", "low", "close"):
            wanted = getattr(klines, name)[traded] / scale[0]
            assert getattr(candles, name).tolist() == wanted.tolist(), name


def recorded_trades(name: str) -> Records:
    path = SHARED / "trades" / f"{name}.feather"
    if not path.is_file():
        pytest.skip(f"no recorded trades: {path.name} is not in {SHARED}")
    frame = pd.read_feather(path)
    trades = np.zeros(len(frame), TRADE)
    trades["id"], trades["time_ms"] = frame["id"], frame["time_us"] // 1000
    trades["received_ns"] = frame["time_us"] * 1000
    trades["price"], trades["amount"] = frame["price"], frame["qty"]
    trades["taker_buy"] = ~frame["is_buyer_maker"]
    return trades


@pytest.mark.parametrize("capacity", [20_000, 1_000_000])
def test_candles_of_recorded_ticks_equal_the_recorded_candles(capacity: int) -> None:
    trades = recorded_trades("binance_spot_LTCUSDT_20250621_38h")
    recorded = recorded_candles("LTC/USDT", "5m")
    tape = TradeTape("LTC/USDT", 300_000, capacity)
    tape.learn_ids(trades[50_000:51_000])
    for start in range(0, len(trades), 1000):
        tape.extend(trades[start : start + 1000])
    candles = tape.candles(0, tape.last_time_ms // 300_000 * 300_000)
    assert candles.flow is not None
    complete = candles.flow["coverage"] == 1.0
    shared = np.isin(candles.date_ms, recorded.date_ms)
    assert shared.all()
    theirs = np.searchsorted(recorded.date_ms, candles.date_ms)
    for mine, other in zip(candles.columns(), recorded.columns(), strict=True):
        assert (mine == other[theirs])[complete].all()
    # The run without a lost id, 02:13 to 16:47 UTC on the 22nd.
    run = [
        pd.Timestamp(f"2025-06-22 {clock}", tz="UTC").value // 10**6 for clock in ("02:15", "16:45")
    ]
    inside = (candles.date_ms >= run[0]) & (candles.date_ms < run[1])
    assert inside.sum() == 174
    assert complete[inside].all()
    # Where ticks are missing the candle says so, and is not counted as equal by chance.
    lost = np.diff(trades["id"])
    assert tape.counts.missing == (lost - 1).sum()
    volume_lost = recorded.volume[theirs] > candles.volume
    assert not (complete & volume_lost).any()


# What is missing


@pytest.mark.lengthy
@given(st.integers(0, 2**32), st.floats(0.0, 0.6))
@examples(max_examples=60)
def test_every_lost_id_is_counted_and_its_candle_says_so(seed: int, loss: float) -> None:
    whole, random = many_trades(400, seed % 7, every_ms=1000), np.random.default_rng(seed)
    kept = random.random(400) >= loss
    kept[[0, -1]] = True
    tape = new_tape()
    for batch in np.split(whole[kept], np.sort(random.integers(0, kept.sum(), 5))):
        tape.extend(batch)
    assert tape.counts.missing == (~kept).sum() == sum(g[1] - g[0] + 1 for g in tape.gaps())  # type: ignore[operator]
    lost = [whole["id"][at] for at in np.flatnonzero(~kept)]
    named = [n for gap in tape.gaps() for n in range(gap.first_id or 0, (gap.last_id or 0) + 1)]
    assert named == lost
    number = whole["time_ms"] // STEP_MS
    crossing = set()  # candles with a gap that another candle shares
    for gap in tape.gaps():
        touched = range(gap.start_ms // STEP_MS, gap.end_ms // STEP_MS + 1)
        crossing |= set(touched) if len(touched) > 1 else set()
    flow = all_flow(tape)
    for row in flow[flow["date_ms"] // STEP_MS < number[-1]]:
        candle = row["date_ms"] // STEP_MS
        inside, there = number == candle, int(((number == candle) & kept).sum())
        if candle not in crossing:
            assert row["coverage"] == (there / inside.sum() if inside.any() else 1.0)
        else:
            assert row["coverage"] < 1.0
    # All of it comes by backfill, out of order: healed.
    tape.extend(random.permutation(whole[~kept]))
    assert contents(tape) == contents(tape_of(whole))
    assert (all_flow(tape)["coverage"] == 1.0).all()


def one(tape: TradeTape, id: int, time_ms: int) -> None:
    assert tape.append(id, time_ms, time_ms * 1_000_000, 100.0, 1.0, True)


@pytest.mark.parametrize("known", [True, False])
def test_an_id_that_is_no_trade_is_not_missing_whenever_it_comes(known: bool) -> None:
    """Ids 2, 5 and 6 are no trades; 2 is told late, and 6 before anything newer."""
    tape = TradeTape("AAA/USDT", 300_000)
    tape.ids_consecutive = True if known else None
    for id in (1, 3, 4):
        one(tape, id, 1_000 * id)
    tape.skip(5, 5_000)
    tape.skip(6, 6_000)
    tape.skip(2, 2_000)
    one(tape, 7, 7_000)
    tape.skip(6, 6_000)  # again
    tape.ids_consecutive = True
    assert tape.gaps() == []
    assert tape.counts.missing == tape.counts.rejected == tape.counts.recovered == 0
    assert tape.counts.trades == 4
    one(tape, 9, 9_000)
    assert tape.gaps() == [Gap(8, 8, 7_000, 9_000)]


@given(st.lists(st.sampled_from("ttttvl"), min_size=2, max_size=40), st.randoms(), st.booleans())
def test_missing_is_what_was_lost_whatever_order_trades_and_others_come_in(
    kinds: list[str], random: Any, known: bool
) -> None:
    """Of ids 1, 2, ... each was a trade (t), no trade (v), or was lost (l)."""
    tape = TradeTape("AAA/USDT", 300_000)
    tape.ids_consecutive = True if known else None
    frames = [(id, kind) for id, kind in enumerate(kinds, 1) if kind != "l"]
    random.shuffle(frames)
    for id, kind in frames:
        if kind == "v":
            tape.skip(id, 1_000 * id)
        else:
            one(tape, id, 1_000 * id)
    tape.ids_consecutive = True
    traded = {id for id, kind in frames if kind == "t"}
    seen = {id for id, _ in frames} if known else traded
    assert set(tape.trades(0, 2**62)["id"].tolist()) == traded
    first, last = min(seen, default=0), max(seen, default=0)
    lost = {id for id, kind in enumerate(kinds, 1) if kind == "l" and first < id < last}
    found = {id for gap in tape.gaps() for id in range(gap.first_id, gap.last_id + 1)}
    assert found == lost
    assert tape.counts.missing == len(lost)


def test_an_id_that_is_no_trade_shows_what_was_lost_before_it() -> None:
    tape = TradeTape("AAA/USDT", 300_000)
    tape.ids_consecutive = True
    one(tape, 1, 1_000)
    tape.skip(4, 4_000)
    assert tape.gaps() == [Gap(2, 3, 1_000, 4_000)]
    one(tape, 2, 2_000)
    assert tape.gaps() == [Gap(3, 3, 2_000, 4_000)]


def test_what_a_whole_page_lacks_was_no_trade() -> None:
    tape = TradeTape("AAA/USDT", 300_000)
    tape.ids_consecutive = True
    for id in (1, 3, 9, 14):
        one(tape, id, 1_000 * id)
    tape.whole(3, 11)
    assert [gap[:2] for gap in tape.gaps()] == [(2, 2), (12, 13)]
    tape.whole(1, 14)
    assert tape.gaps() == []
    assert tape.flow(0, 300_000)["coverage"][0] == pytest.approx(1.0, abs=0.1)


def test_a_gap_that_spans_candles_is_shared_by_time() -> None:
    rows = [(1, 0, "1", "1", True), (2, 45_000, "1", "1", True), (43, 164_999, "1", "1", True),
            (44, 239_999, "1", "1", True)]  # fmt: skip
    tape = tape_of(trades_of(rows))
    assert tape.gaps() == [Gap(3, 42, START_MS + 45_000, START_MS + 164_999)]
    # 40 ids over 120 seconds: 15 of them in the first candle, 60 and 45 in the next.
    assert all_flow(tape)["coverage"].tolist() == [2 / (2 + 5), 0.0, 1 / (1 + 15), 1.0]
    assert math.isnan(all_flow(tape)["volume"][1])


def test_a_gap_that_ends_on_the_edge_leaves_both_candles_in_doubt() -> None:
    rows = [(1, 50_000, "1", "1", True), (3, 60_000, "1", "1", True), (4, 119_999, "1", "1", True)]
    first, second = all_flow(tape_of(trades_of(rows)))["coverage"]
    assert first == pytest.approx(0.5, abs=0.01)
    assert 0.999 < second < 1.0


def test_a_recovered_or_given_up_gap_is_missing_for_good_until_it_comes() -> None:
    whole = many_trades(100)
    tape = tape_of(whole[np.r_[0:40, 50:100]])
    (gap,) = tape.gaps()
    tape.extend(whole[43:46])
    (left, right) = tape.gaps()
    assert (left.first_id, left.last_id, right.first_id, right.last_id) == (1040, 1042, 1046, 1049)
    assert (left.end_ms, right.start_ms) == (whole["time_ms"][43], whole["time_ms"][45])
    tape.recovered(gap)
    assert (tape.gaps(), tape.missing()) == ([], [left, right])
    assert (tape.counts.missing, tape.counts.recovered, tape.counts.gaps) == (7, 3, 1)
    assert all_flow(tape)["coverage"][0] < 1.0
    tape.give_up(gap)
    tape.extend(whole[40:50])
    assert (tape.missing(), tape.counts.missing) == ([], 0)
    assert (all_flow(tape)["coverage"] == 1.0).all()


@pytest.mark.lengthy
def test_a_backfill_larger_than_the_ring_still_counts() -> None:
    whole = many_trades(3000)
    for consecutive, page in ((True, 1), (True, 333), (False, 1), (False, 333)):
        tape = new_tape(consecutive=consecutive, capacity=100)
        tape.extend(whole[:500])
        tape.interrupt()
        tape.resume(int(whole["time_ms"][2500]))
        tape.extend(whole[2500:])
        (gap,) = tape.gaps()
        for start in range(500, 2500, page):
            tape.extend(whole[start : min(start + page, 2500)])
            tape.extend(whole[start : min(start + page, 2500)])  # told from new ones
        tape.recovered(gap)
        np.testing.assert_array_equal(tape.trades(0, 2**62), whole[-100:])
        flow, wanted = all_flow(tape), all_flow(tape_of(whole))
        for name in (*SUMS, "trades", "largest", "coverage", "date_ms"):
            assert flow[name].tolist() == wanted[name].tolist(), name
        assert tape.counts.duplicates + tape.counts.late == 2000
        assert (tape.gaps(), tape.counts.missing) == ([], 0)


def test_what_cannot_be_told_from_a_duplicate_is_refused() -> None:
    whole = many_trades(500)
    tape = new_tape(consecutive=False, capacity=100)
    tape.extend(whole[100:])
    assert tape.extend(whole[100:300]) == 0
    assert tape.counts.late == 200
    assert not tape.append(*whole[350].item())
    assert tape.extend(whole[450:]) == 0
    assert tape.counts.duplicates == 50
    assert tape.extend(whole[:100]) == 100  # older than everything: it can only be new
    assert tape.extend(whole[:100]) == 0
    assert tape.counts.trades == 500
    assert all_flow(tape)["volume"].sum() == pytest.approx(whole["amount"].sum())


def test_time_before_the_watch_is_not_covered() -> None:
    rows = [(n, 45_000 + n * 1000, "1", "1", True) for n in range(76)]
    tape = TradeTape("BTC/USDT", STEP_MS)
    tape.extend(trades_of(rows))
    first = all_flow(tape)["coverage"]
    assert first[0] == pytest.approx(14_999 / 60_000)  # trades as early as the first may lack
    assert first[1] == 1.0
    tape.watch_from(START_MS + 30_000)
    assert all_flow(tape)["coverage"].tolist() == [0.5, 1.0, 1.0]
    tape.watch_from(START_MS + 40_000)  # later than what is known already
    assert all_flow(tape)["coverage"].tolist() == [0.5, 1.0, 1.0]
    tape.watch_from(START_MS - STEP_MS)
    flow = all_flow(tape)
    assert flow["date_ms"].tolist() == [START_MS + n * STEP_MS for n in (-1, 0, 1, 2)]
    assert flow["coverage"].tolist() == [1.0] * 4
    assert flow["trades"].tolist() == [0, 15, 60, 1]


def test_older_trades_with_ids_in_a_row_extend_what_is_known() -> None:
    whole = many_trades(600)
    tape = TradeTape("BTC/USDT", STEP_MS)
    tape.ids_consecutive = True
    tape.watch_from(int(whole["time_ms"][300]))
    tape.extend(whole[300:])
    tape.extend(whole[100:200])
    assert tape.gaps()[0][:2] == (1200, 1299)
    tape.extend(whole[200:300])
    assert tape.gaps() == []
    assert (all_flow(tape)["coverage"][1:] == 1.0).all()
    assert all_flow(tape)["coverage"][0] < 1.0


def test_the_open_candle_counts_only_the_time_passed() -> None:
    rows = [(1, 1_000, "1", "1", True), (2, 20_000, "1", "1", True)]
    tape = tape_of(trades_of(rows))
    assert all_flow(tape)["coverage"].tolist() == [1.0]
    late = TradeTape("BTC/USDT", STEP_MS)
    late.watch_from(START_MS + 15_000)
    late.extend(trades_of(rows[1:]))
    assert all_flow(late)["coverage"][0] == pytest.approx(5_001 / 20_001)


def test_an_interruption_without_ids_is_a_gap_in_time() -> None:
    whole = many_trades(400)
    cut = whole[(whole["time_ms"] < START_MS + 70_000) | (whole["time_ms"] >= START_MS + 100_000)]
    tape = new_tape(consecutive=False)
    before = cut[cut["time_ms"] < START_MS + 70_000]
    tape.extend(before)
    assert tape.gaps() == []
    tape.interrupt()
    tape.interrupt()  # already
    doubt = all_flow(tape)["coverage"]
    passed = before["time_ms"][-1] - START_MS - STEP_MS
    assert doubt.tolist() == [1.0, pytest.approx(passed / STEP_MS)]
    tape.resume(START_MS + 100_000)
    tape.resume(START_MS + 110_000)  # nothing to resume
    gap = Gap(None, None, int(before["time_ms"][-1]), START_MS + 100_000)
    assert tape.gaps() == [gap]
    tape.extend(cut)
    coverage = all_flow(tape)["coverage"]
    assert coverage[1] == pytest.approx(1.0 - (gap.end_ms - gap.start_ms) / STEP_MS)
    assert coverage[[0, 2, 3]].tolist() == [1.0] * 3
    tape.give_up(gap)
    assert (tape.gaps(), tape.missing()) == ([], [gap])
    assert all_flow(tape)["coverage"][1] == coverage[1]
    tape.extend(whole)
    tape.recovered(gap)
    assert contents(tape) == contents(tape_of(whole, consecutive=False))


@pytest.mark.parametrize("again", [[(100, 200)], [(150, 250), (100, 160)]])
def test_what_a_gap_in_time_has_got_is_told_from_what_it_lacks(
    again: list[tuple[int, int]],
) -> None:
    """Once the ring had let them go, some counted twice, and earlier ones passed for known."""
    whole = many_trades(1_600)
    whole["id"] = whole["id"] * 2_654_435_761 % 2**31  # no longer rising
    tape = new_tape(consecutive=False, capacity=1_000)
    tape.extend(whole[:100])
    tape.interrupt()
    tape.resume(int(whole["time_ms"][300]))
    tape.extend(whole[300:400])
    tape.extend(whole[150:200])
    tape.extend(whole[400:])
    for first, last in again:
        tape.extend(whole[first:last])
        tape.extend(whole[first:last])
    there = {*range(100), *range(300, 1_600), *range(150, 200)}
    there |= {number for first, last in again for number in range(first, last)}
    assert tape.counts.trades == len(there)


def test_a_trade_of_the_moment_of_an_interruption_may_be_new() -> None:
    rows = [(number, 1_000 * (number // 2), "1", "1", True) for number in range(1, 41)]
    tape = new_tape(consecutive=False, capacity=4)
    tape.extend(trades_of(rows[:5]))
    tape.interrupt()
    tape.resume(rows[20][1] + START_MS)
    tape.extend(trades_of(rows[20:]))
    tape.extend(trades_of(rows[3:7]))  # the sixth is of the same moment as the fifth
    tape.extend(trades_of(rows[3:7]))
    assert tape.counts.trades == 5 + 20 + 2


def test_an_interruption_with_ids_is_a_gap_in_time_until_ids_tell() -> None:
    whole = many_trades(400)
    tape = tape_of(whole[:200])
    tape.interrupt()
    tape.resume(int(whole["time_ms"][220]))
    assert tape.gaps() == [Gap(None, None, whole["time_ms"][199], whole["time_ms"][220])]
    assert all_flow(tape)["coverage"][-1] < 1.0
    tape.extend(whole[220:])
    assert [gap[:2] for gap in tape.gaps()] == [(1200, 1219)]
    tape.extend(whole[200:220])
    assert contents(tape) == contents(tape_of(whole))
    # Nothing was lost: the next id proves it.
    tape.interrupt()
    tape.resume(tape.last_time_ms + 5 * STEP_MS)
    assert len(all_flow(tape)) == len(all_flow(tape_of(whole))) + 5
    assert (all_flow(tape)["coverage"][-6:] < 1.0).all()
    after = tape.last_time_ms + 6 * STEP_MS
    tape.append(1400, after, after * 10**6, 64_000.0, 1.0, True)
    assert tape.gaps() == []
    assert (all_flow(tape)["coverage"] == 1.0).all()


def test_a_backfill_during_an_interruption_is_certain_up_to_its_newest_trade() -> None:
    whole = many_trades(400)
    tape = tape_of(whole[:200])
    tape.interrupt()
    tape.extend(whole[200:380])
    coverage = all_flow(tape)["coverage"]
    assert (coverage[:-1] == 1.0).all()
    assert coverage[-1] < 1.0


def test_an_interruption_before_the_first_trade_moves_the_beginning() -> None:
    tape = new_tape()
    tape.interrupt()
    tape.resume(START_MS + 30_000)
    tape.extend(trades_of([(1, 59_999, "1", "1", True)]))
    assert tape.gaps() == []
    assert all_flow(tape)["coverage"].tolist() == [0.5]


def test_ids_are_learnt_from_a_complete_page() -> None:
    whole = many_trades(300)
    tape = TradeTape("BTC/USDT", STEP_MS)
    tape.watch_from(START_MS)
    tape.extend(whole[np.r_[0:100, 120:300]])
    assert (tape.ids_consecutive, tape.gaps(), tape.counts.missing) == (None, [], 0)
    tape.learn_ids(whole[:5])
    assert tape.ids_consecutive is None
    tape.learn_ids(whole[:50])
    assert tape.ids_consecutive is True
    assert [gap[:2] for gap in tape.gaps()] == [(1100, 1119)]
    tape.extend(whole)
    assert contents(tape) == contents(tape_of(whole))
    tape.ids_consecutive = False  # someone knows better
    assert tape.extend(whole) == 0
    other = TradeTape("BTC/USDT", STEP_MS)
    other.learn_ids(whole[::2])
    assert other.ids_consecutive is False
    other.extend(whole[::3])
    assert (other.gaps(), other.counts.missing) == ([], 0)


def test_time_gaps_that_ids_explain_vanish_when_ids_are_learnt() -> None:
    whole = many_trades(300)
    tape = new_tape(consecutive=None)
    tape.extend(whole[:100])
    tape.interrupt()
    tape.resume(int(whole["time_ms"][130]))
    tape.extend(whole[110:])
    assert [gap.first_id for gap in tape.gaps()] == [None]
    tape.learn_ids(whole[150:250])
    assert [gap[:2] for gap in tape.gaps()] == [(1100, 1109)]


def test_gaps_beyond_those_remembered_still_lower_coverage() -> None:
    count = 2 * continuity.MOST_GAPS + 500
    whole = many_trades(2 * count + 1, every_ms=100)
    tape = new_tape()
    for row in whole[::2].tolist():
        tape.append(*row)
    assert len(tape.gaps()) == continuity.MOST_GAPS
    assert tape.counts.missing == count
    coverage = all_flow(tape)["coverage"]
    np.testing.assert_allclose(coverage, 0.5, atol=0.05)
    for number in range(continuity.MOST_GAPS + 10):
        tape.interrupt()
        tape.resume(tape.last_time_ms + 1 + number)
    assert len([gap for gap in tape.gaps() if gap.first_id is None]) <= continuity.MOST_GAPS


# At the door


@pytest.mark.parametrize(
    "change",
    [{"price": v} for v in (0.0, -1.0, math.nan, math.inf, 1e300)]
    + [{"amount": v} for v in (0.0, -1.0, math.nan, math.inf, 1e300)]
    + [{"time_ms": v} for v in (0, -5, START_MS + 90_000_000)],
)
def test_impossible_trades_are_refused(change: dict[str, float]) -> None:
    good = many_trades(40)
    bad = good.copy()
    ((name, value),) = change.items()
    bad[name][7] = value
    tape, one_by_one = new_tape(), new_tape()
    assert tape.extend(bad) == 39
    assert not one_by_one.append(*bad[7].item())
    assert one_by_one.extend(bad[5:10]) == 4
    assert (tape.counts.rejected, one_by_one.counts.rejected) == (1, 2)
    assert [gap[:2] for gap in tape.gaps()] == [(1007, 1007)]
    assert tape.extend(good) == 1
    assert contents(tape) == contents(tape_of(good))


@pytest.mark.parametrize("room", [{"capacity": 0}, {"candles": 0}, {"step_ms": 0}])
def test_a_tape_without_room_is_refused(room: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"BTC/USDT: a tape needs .* at least 1"):
        TradeTape("BTC/USDT", **{"step_ms": STEP_MS, **room})


def test_an_empty_tape_has_nothing_to_say() -> None:
    tape = new_tape()
    assert tape.extend(np.zeros(0, TRADE)) == 0
    assert (len(tape.trades(0, 2**62)), len(all_flow(tape)), len(tape.candles(0, 2**62))) == (
        0,
        0,
        0,
    )
    assert all_flow(tape).dtype == FLOW
    assert (tape.last_id, tape.last_time_ms, tape.last_price) == (0, 0, 0.0)
    tape.learn_ids(np.zeros(0, TRADE))
    tape.recovered(Gap(1, 2, 3, 4))
    assert tape.counts == (0, 0, 0, 0, 0, 0, 0)


def test_intervals_are_half_open() -> None:
    whole = many_trades(600)
    tape, edge = tape_of(whole), START_MS + STEP_MS
    flow = tape.flow(edge, edge + 2 * STEP_MS)
    assert flow["date_ms"].tolist() == [edge, edge + STEP_MS]
    assert tape.flow(edge + 1, edge + STEP_MS)["date_ms"].tolist() == []
    inside = (whole["time_ms"] >= edge) & (whole["time_ms"] < edge + STEP_MS)
    np.testing.assert_array_equal(tape.trades(edge, edge + STEP_MS), whole[inside])
    assert flow["trades"][0] == inside.sum()


def test_what_is_read_is_a_copy() -> None:
    tape = tape_of(many_trades(600))
    wanted = contents(tape)
    tape.trades(0, 2**62)["price"] = -1.0
    all_flow(tape)["volume"] = -1.0
    candles = tape.candles(0, 2**62)
    for column in (*candles.columns()[1:], candles.flow):
        assert column is not None
        column[...] = np.zeros(1, column.dtype)
    assert contents(tape) == wanted


# Memory and threads


@pytest.mark.lengthy
@pytest.mark.parametrize("hashed", [False, True])
def test_memory_is_what_it_says_and_does_not_grow(hashed: bool) -> None:
    whole = many_trades(30_000)
    if hashed:
        whole["id"] = np.random.default_rng(0).permutation(whole["id"] * 7919)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tape = new_tape(consecutive=False if hashed else None, capacity=5_000, candles=500)
    sizes = []
    for start in range(0, 30_000, 750):
        tape.extend(whole[start : start + 700])
        for row in whole[start + 700 : start + 750].tolist():
            tape.append(*row)
        sizes.append((tracemalloc.get_traced_memory()[0] - before, tape.nbytes))
    tracemalloc.stop()
    assert tape.counts.trades == 30_000
    assert max(held for held, _ in sizes[20:]) < 1.1 * max(held for held, _ in sizes[:20])
    for held, said in sizes:
        assert said == pytest.approx(held, rel=0.1, abs=40_000)


@pytest.mark.lengthy
def test_a_reader_never_sees_half_a_trade() -> None:
    count = 3_000
    whole = many_trades(count, every_ms=50)
    whole["amount"] = 0.1
    whole["price"] = np.where(whole["id"] % 2, 100.0, 200.0)
    whole["taker_buy"] = True
    order = np.argsort(np.arange(count) + np.random.default_rng(0).uniform(0, 40, count))
    tape = new_tape(capacity=500, candles=50)
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            flow, trades = tape.flow(0, 2**62), tape.trades(0, 2**62)
            candles = tape.candles(0, 2**62)
            keys = list(zip(trades["time_ms"].tolist(), trades["id"].tolist(), strict=True))
            odd = (trades["price"] == 100.0) == (trades["id"] % 2 == 1)
            whole_flow = np.abs(flow["trades"] * 0.1 - flow["volume"]) < 1e-9
            same = flow["volume"] == flow["taker_base"]
            ok = keys == sorted(keys) and odd.all() and whole_flow.all() and same.all()
            if not (ok and (candles.low <= candles.close).all() and len(trades) <= 500):
                wrong.append((trades, flow, candles))

    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for start in range(0, count, 50):
            batch = whole[order[start : start + 50]]
            tape.extend(batch[:25])
            for row in batch[25:].tolist():
                tape.append(*row)
    finally:
        done.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(pause)
    assert not wrong
    check_against_decimals(tape, whole)


def test_a_candle_in_plain_numbers_says_what_flow_and_candles_say() -> None:
    trades = many_trades(900)
    tape = tape_of(trades)
    candles = tape.candles(0, 2**62)
    for number, open_ms in enumerate(candles.date_ms.tolist()):
        seen = tape.seen(open_ms)
        assert seen is not None
        prices = [float(column[number]) for column in candles.columns()[1:]]
        assert list(seen[:6]) == [open_ms, *prices]
        flow = candles.flow[number]
        assert all(getattr(seen, name) == flow[name] for name in (*SUMS, "trades", "coverage"))
    assert tape.newest() == tape.seen(int(candles.date_ms[-1]))
    assert tape.newest().received_ns == trades["received_ns"][-1]
    assert tape.seen(START_MS - STEP_MS) is None
    assert new_tape().newest() is None
