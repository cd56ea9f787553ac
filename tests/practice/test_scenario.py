"""Windows of the past: what is written for freqtrade is what the market serves, bit for bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import CANDLE_COLUMNS, timeframe_ms
from lstm_model.market.flow_history import flow_of_klines
from lstm_model.practice.excerpt import as_candles
from lstm_model.practice.excerpt import candle_frame as candle_frame_of
from lstm_model.practice.rest import answer
from lstm_model.practice.scenario import (
    Scenario,
    klines_flow,
    known_candles,
    open_scenario,
    write_candles,
    write_detail,
)
from lstm_model.practice.tape_market import DAY_MS
from lstm_model.practice.window import Window

MINUTE_MS = 60_000
STEP_MS = 5 * MINUTE_MS
BEGIN_MS = 1_700_006_400_000  # a midnight, UTC
VALUES = CANDLE_COLUMNS[1:]


def candle_frame(
    count: int, timeframe: str = "5m", start_ms: int = BEGIN_MS, seed: int = 0
) -> pd.DataFrame:
    """Candles as Binance rounds them; a tenth of them flat, without volume."""
    rng = np.random.default_rng(seed)
    idle = rng.random(count) < 0.1
    idle[0] = False
    close = 10_000 + np.cumsum(rng.integers(-30, 31, count) * ~idle)
    open_ = np.concatenate([[10_000], close[:-1]])
    up, down = rng.integers(0, 9, (2, count)) * ~idle
    dates = start_ms + timeframe_ms(timeframe) * np.arange(count)
    prices = (open_, np.maximum(open_, close) + up, np.minimum(open_, close) - down, close)
    return pd.DataFrame({
        "date": pd.to_datetime(dates, unit="ms", utc=True).astype("datetime64[ms, UTC]"),
        **{name: price / 100 for name, price in zip(VALUES[:4], prices, strict=True)},
        "volume": rng.integers(4, 10**9, count) * ~idle / 10**6,
    })  # fmt: skip


def tick_frame(
    count: int, step_ms: int, start_ms: int = BEGIN_MS, first_id: int = 9_000_000
) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({
        "time_us": (start_ms + step_ms * np.arange(count)) * 1000 + 7,
        "id": first_id + np.arange(count),
        "price": rng.integers(20_000, 21_000, count) / 10**4,
        "qty": rng.integers(1, 500, count) / 10,
        "is_buyer_maker": rng.random(count) < 0.5,
    })  # fmt: skip


def save(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    frame.reset_index(drop=True).to_feather(folder / f"{name}.feather")
    return folder


def window(first: int, last: int, timeframe: str = "5m", startup: int = 0) -> Window:
    """Counted in candles from the beginning of the recordings."""
    step = timeframe_ms(timeframe)
    return Window(timeframe, BEGIN_MS + first * step, BEGIN_MS + last * step, startup)


def assert_same(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        got.reset_index(drop=True), wanted.reset_index(drop=True), check_exact=True
    )


def opens_ms(frame: pd.DataFrame) -> Any:
    return frame["date"].to_numpy("datetime64[ms]").astype(np.int64)


# Candles


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return candle_frame(3_000)


@pytest.fixture(scope="module")
def folder(bars: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candles")
    save(candle_frame(3_000, seed=5), folder, "ETH_BTC-5m")
    return save(bars, folder, "BTC_USDT-5m")


WINDOW = window(2_400, 2_900, startup=999)  # needs 1000 candles and a day before: from 1112 on


@pytest.fixture(scope="module")
def scenario(folder: Path) -> Scenario:
    return open_scenario(folder, ("BTC/USDT", "ETH/BTC"), WINDOW)


def test_recorded_candles_come_back_bit_for_bit(scenario: Scenario, bars: pd.DataFrame) -> None:
    got = known_candles(scenario, "BTC/USDT", WINDOW.end_ms)
    assert_same(got, bars[:2_900])
    assert_same(known_candles(scenario, "BTC/USDT", WINDOW.end_ms - 1), bars[:2_899])


def test_the_market_holds_what_is_needed_and_the_history_what_is_older(scenario: Scenario) -> None:
    assert WINDOW.first_ms == BEGIN_MS + (2_400 - 1_000 - 288) * STEP_MS
    for pair in scenario.pairs:
        time_ms = scenario.listing(pair).trades.time_ms
        assert WINDOW.first_ms <= time_ms[0] < WINDOW.first_ms + 5 * STEP_MS
        assert WINDOW.end_ms <= time_ms[-1] < WINDOW.last_ms
        older = opens_ms(scenario.history[pair])
        assert older[0] == BEGIN_MS
        assert older[-1] == time_ms[0] // STEP_MS * STEP_MS - STEP_MS


def test_candles_without_trades_where_the_market_would_begin_are_history(
    bars: pd.DataFrame, tmp_path: Path
) -> None:
    idle = bars.copy()
    idle.loc[1_110:1_119, list(VALUES[:4])] = idle.loc[1_109, "close"]
    idle.loc[1_110:1_119, "volume"] = 0.0
    opened = open_scenario(save(idle, tmp_path, "BTC_USDT-5m"), ["BTC/USDT"], WINDOW)
    assert_same(opened.history["BTC/USDT"], idle[: 1_120 + int(not idle.loc[1_120, "volume"])])


@pytest.mark.parametrize(("startup", "pages"), [(0, 1), (999, 1), (1_000, 2), (4_999, 5)])
def test_startup_candles_are_there_in_whole_pages(startup: int, pages: int) -> None:
    start_ms = BEGIN_MS + 50 * DAY_MS + 1
    first_ms = Window("5m", start_ms, start_ms + 1, startup).first_ms
    assert first_ms == BEGIN_MS + 49 * DAY_MS - pages * 1_000 * STEP_MS


def test_nothing_known_before_closes_after_the_start(scenario: Scenario, tmp_path: Path) -> None:
    write_candles(scenario, tmp_path / "before", WINDOW.start_ms)
    write_candles(scenario, tmp_path / "whole", WINDOW.end_ms)
    for name in ("BTC_USDT-5m", "ETH_BTC-5m"):
        before = pd.read_feather(tmp_path / "before" / f"{name}.feather")
        whole = pd.read_feather(tmp_path / "whole" / f"{name}.feather")
        assert opens_ms(before)[-1] + STEP_MS == WINDOW.start_ms
        assert opens_ms(whole)[-1] + STEP_MS == WINDOW.end_ms
        assert_same(whole[: len(before)], before)
        assert tuple(whole) == CANDLE_COLUMNS
        assert str(whole["date"].dtype) == "datetime64[ms, UTC]"


def test_written_candles_are_what_a_client_parses_from_klines(scenario: Scenario) -> None:
    query = {"interval": "5m", "startTime": str(WINDOW.start_ms), "limit": "500"}
    _, rows = answer(scenario.market, "klines", {**query, "symbol": "BTCUSDT"})
    got = known_candles(scenario, "BTC/USDT", WINDOW.end_ms)[-500:]
    assert [row[0] for row in rows] == opens_ms(got).tolist()
    for column, name in enumerate(VALUES, start=1):
        assert [float(row[column]) for row in rows] == got[name].tolist()


def test_flow_is_what_the_klines_say(scenario: Scenario) -> None:
    query = {"interval": "5m", "startTime": str(WINDOW.start_ms), "limit": "500"}
    for pair in scenario.pairs:
        symbol = pair.replace("/", "")
        _, rows = answer(scenario.market, "klines", {**query, "symbol": symbol})
        flow = klines_flow(scenario, pair, WINDOW.end_ms)
        assert flow[-500:].tobytes() == flow_of_klines(rows, pair, "5m").tobytes()
        served = known_candles(scenario, pair, WINDOW.end_ms)[len(scenario.history[pair]) :]
        assert flow["date_ms"].tolist() == opens_ms(served).tolist()
        assert flow["volume"].tolist() == served["volume"].tolist()
        early = klines_flow(scenario, pair, WINDOW.start_ms)
        assert early.tobytes() == flow[: len(early)].tobytes()
        assert early["date_ms"][-1] + STEP_MS == WINDOW.start_ms


def test_sums_too_large_for_a_float_are_rounded_once(tmp_path: Path) -> None:
    frame = candle_frame(60, "1h").assign(volume=300_000_000.1234)
    chosen = window(50, 55, "1h")
    opened = open_scenario(save(frame, tmp_path, "BTC_USDT-1h"), ["BTC/USDT"], chosen)
    query = {"symbol": "BTCUSDT", "interval": "1h", "startTime": str(BEGIN_MS), "limit": "55"}
    texts = [row[7] for row in answer(opened.market, "klines", query)[1]]
    quote = klines_flow(opened, "BTC/USDT", chosen.end_ms)["quote_volume"]
    assert max(int(text.replace(".", "")) for text in texts) > 2**53
    assert quote.tolist() == [float(text) for text in texts]


@pytest.mark.lengthy
@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(1_000, 1_380), length=st.integers(1, 20), until=st.integers(0, 1_400),
    holes=st.lists(st.tuples(st.integers(1, 1_399), st.integers(1, 90)), max_size=9),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_what_is_known_later_continues_what_was_known(
    tmp_path_factory: pytest.TempPathFactory,
    start: int, length: int, until: int, holes: list[tuple[int, int]], seed: int,
) -> None:  # fmt: skip
    lost = {row for first, count in holes for row in range(first, min(first + count, 1_400))}
    recorded = candle_frame(1_400, "1d", seed=seed).drop(index=sorted(lost))
    folder = save(recorded, tmp_path_factory.mktemp("bars"), "BTC_USDT-1d")
    chosen = window(start, start + length, "1d")
    if (
        recorded.index[-1] < start + length - 1
        or not recorded["volume"].reindex(range(start, start + length), fill_value=0.0).any()
    ):
        with pytest.raises(DataError, match=r"covers|nothing of BTC/USDT"):
            open_scenario(folder, ["BTC/USDT"], chosen)
        return
    opened = open_scenario(folder, ["BTC/USDT"], chosen)
    whole = known_candles(opened, "BTC/USDT", chosen.end_ms)
    until_ms = min(BEGIN_MS + until * DAY_MS + 1, chosen.end_ms)
    part = known_candles(opened, "BTC/USDT", until_ms)
    assert_same(whole[: len(part)], part)
    assert (opens_ms(part) + DAY_MS <= until_ms).all()
    assert (opens_ms(whole[len(part) :]) + DAY_MS > until_ms).all()
    # What was recorded is there as it was, what was lost is flat or missing.
    there = whole["date"].isin(recorded["date"]) & (whole["volume"] > 0.0)
    traded = recorded[(recorded["date"] <= whole["date"].iloc[-1]) & (recorded["volume"] > 0.0)]
    assert_same(whole[there], traded)
    assert not whole["volume"][~there].any()


def test_the_timeframe_wins_over_a_finer_one_unless_it_does_not_cover_the_window(
    tmp_path: Path,
) -> None:
    fine, coarse = candle_frame(900, "1m"), candle_frame(180, "5m", seed=3)
    save(fine, tmp_path, "BTC_USDT-1m")
    save(candle_frame(180, "3m"), tmp_path, "BTC_USDT-3m")
    save(coarse, tmp_path, "BTC_USDT-5m")
    got = known_candles(
        open_scenario(tmp_path, ["BTC/USDT"], window(90, 170)), "BTC/USDT", window(90, 170).end_ms
    )
    assert_same(got, coarse[:170])
    save(coarse[:150], tmp_path, "BTC_USDT-5m")
    opened = open_scenario(tmp_path, ["BTC/USDT"], window(90, 170))
    got = known_candles(opened, "BTC/USDT", window(90, 170).end_ms)
    assert (
        got["volume"].tolist()
        == fine.groupby(fine.index // 5)["volume"].sum().round(8).tolist()[:170]
    )


def test_candles_of_a_finer_file_make_market_and_history(tmp_path: Path) -> None:
    fine = candle_frame(6_000, "1m", BEGIN_MS + 2 * MINUTE_MS)
    save(fine, tmp_path, "BTC_USDT-1m")
    chosen = Window("3m", BEGIN_MS + 5_900 * MINUTE_MS, BEGIN_MS + 5_991 * MINUTE_MS)
    opened = open_scenario(tmp_path, ["BTC/USDT"], chosen)
    got = known_candles(opened, "BTC/USDT", chosen.end_ms)
    groups = fine[opens_ms(fine) < chosen.end_ms].groupby(fine["date"].dt.floor("3min"))
    assert 400 < len(opened.history["BTC/USDT"]) < len(got) - 1_000
    assert got["high"].tolist() == groups["high"].max().tolist()
    assert got["low"].tolist() == groups["low"].min().tolist()
    assert got["open"].tolist() == groups["open"].first().tolist()
    assert got["close"].tolist() == groups["close"].last().tolist()
    assert got["volume"].tolist() == groups["volume"].sum().round(8).tolist()


def coarse_of(fine: pd.DataFrame, timeframe: str) -> pd.DataFrame:
    """Longer candles as an exchange makes them."""
    step = pd.Timedelta(milliseconds=timeframe_ms(timeframe))
    made = fine.groupby(fine["date"].dt.floor(step)).agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    return made.assign(volume=made["volume"].round(6)).reset_index()


@pytest.fixture(scope="module")
def detailed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """5m candles of two pairs, of one the last days by the minute too, begun within a candle."""
    fine = candle_frame(15_000, "1m")
    folder, whole = tmp_path_factory.mktemp("detail"), coarse_of(fine, "5m")
    save(whole, folder, "BTC_USDT-5m")
    save(fine[8_003:], folder, "BTC_USDT-1m")
    save(candle_frame(3_000, seed=5), folder, "ETH_USDT-5m")
    return folder, fine, whole


DETAIL = replace(WINDOW, detail="1m")


def test_finer_candles_are_drawn_where_they_are_and_older_ones_before(
    detailed: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    folder, fine, whole = detailed
    opened = open_scenario(folder, ("BTC/USDT", "ETH/USDT"), DETAIL)
    assert (opened.detail, opened.detailed) == ("1m", ("BTC/USDT",))
    known = known_candles(opened, "BTC/USDT", DETAIL.end_ms)
    assert_same(known, whole[whole["date"] < pd.Timestamp(DETAIL.end_ms, unit="ms", tz="UTC")])
    served = as_candles(opened.listing("BTC/USDT"), "1m", DETAIL.end_ms)
    inside = served.between(DETAIL.start_ms, DETAIL.end_ms)
    assert_same(
        candle_frame_of(inside),
        fine[(opens_ms(fine) >= DETAIL.start_ms) & (opens_ms(fine) < DETAIL.end_ms)],
    )


def test_a_backtest_gets_the_finer_candles_of_the_pairs_that_have_them(
    detailed: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folder, fine, _ = detailed
    opened = open_scenario(folder, ("BTC/USDT", "ETH/USDT"), DETAIL)
    write_candles(opened, tmp_path, DETAIL.end_ms)
    write_detail(opened, tmp_path)
    names = ["BTC_USDT-1m.feather", "BTC_USDT-5m.feather", "ETH_USDT-5m.feather"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert_same(pd.read_feather(tmp_path / names[0]), fine[12_000:14_500])


@pytest.mark.lengthy
def test_a_detail_follows_from_still_finer_candles_and_from_an_invented_market(
    detailed: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    step_ms = 15 * MINUTE_MS
    wide = Window("15m", BEGIN_MS + 800 * step_ms, BEGIN_MS + 900 * step_ms, detail="5m")
    opened = open_scenario(detailed[0], ["BTC/USDT"], wide)
    assert opened.detailed == ("BTC/USDT",)
    invented = open_scenario("random-walk", ["BTC/USDT"], DETAIL)
    assert invented.detailed == ("BTC/USDT",)


def test_a_detail_that_no_pair_has_is_a_config_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no pair of BTC/USDT, ETH/BTC has 1m candles, or trades"):
        open_scenario(folder, ("BTC/USDT", "ETH/BTC"), DETAIL)


@pytest.mark.parametrize(
    ("detail", "message"), [("5m", "must be a part"), ("3m", "must be a part"), ("7m", "unknown")]
)
def test_a_detail_that_is_no_part_of_a_candle_is_a_config_error(detail: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(WINDOW, detail=detail)


def test_older_candles_of_another_directory_come_before(tmp_path: Path) -> None:
    everything = candle_frame(3_000)
    save(everything[1_500:], tmp_path / "recent", "BTC_USDT-5m")
    older = everything.assign(volume=everything["volume"] * (everything.index < 1_500))
    save(older, tmp_path / "older", "BTC_USDT-5m")
    opened = open_scenario(
        tmp_path / "recent", ["BTC/USDT"], WINDOW, history=tmp_path / "older"
    )  # fmt: skip
    assert_same(known_candles(opened, "BTC/USDT", WINDOW.end_ms), everything[:2_900])
    assert opened.listing("BTC/USDT").trades.time_ms[0] < BEGIN_MS + 1_120 * STEP_MS


# Trades


def test_trades_keep_their_ids_times_and_sides(tmp_path: Path) -> None:
    ticks = tick_frame(20_000, 700)
    save(ticks, tmp_path, "binance_spot_XRPETH_x")
    chosen = Window("1m", BEGIN_MS + 3_000_000, BEGIN_MS + 9_000_000)
    opened = open_scenario(tmp_path, ["XRP/ETH"], chosen)
    tape = opened.listing("XRP/ETH").trades
    assert tape.first_id == 9_000_000
    wanted = ticks[ticks["time_us"] < chosen.last_ms * 1000]
    assert tape.time_ms.tolist() == (wanted["time_us"] // 1000).tolist()
    assert (tape.price / 1e4).tolist() == wanted["price"].tolist()
    assert (tape.amount / 10).tolist() == wanted["qty"].tolist()
    assert tape.taker_buy.tolist() == (~wanted["is_buyer_maker"]).tolist()


def test_trades_older_than_the_market_become_its_history(tmp_path: Path) -> None:
    ticks = tick_frame(20_000, 20_000)  # more than four days
    save(ticks, tmp_path, "binance_spot_XRPETH_x")
    chosen = Window("1m", BEGIN_MS + 4 * DAY_MS, BEGIN_MS + 4 * DAY_MS + 3_600_000)
    opened = open_scenario(tmp_path, ["XRP/ETH"], chosen)
    tape = opened.listing("XRP/ETH").trades
    assert tape.time_ms[0] == chosen.first_ms
    assert tape.first_id - 9_000_000 == (chosen.first_ms - BEGIN_MS) // 20_000
    got = known_candles(opened, "XRP/ETH", chosen.end_ms)
    known = ticks[ticks["time_us"] < chosen.end_ms * 1000]
    minutes = known.groupby(known["time_us"] // 60_000_000)
    assert len(opened.history["XRP/ETH"]) == 3 * 1440 - 1_000
    assert got["high"].tolist() == minutes["price"].max().tolist()
    np.testing.assert_allclose(got["volume"], minutes["qty"].sum(), rtol=1e-12)


def lose(ticks: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    return ticks.drop(index=range(first, last))


def test_a_window_without_a_lost_trade_has_the_recorded_ids(tmp_path: Path) -> None:
    ticks = lose(lose(tick_frame(12_000, 1_000), 2_000, 2_500), 9_000, 9_100)
    save(ticks, tmp_path, "binance_spot_XRPETH_x")
    chosen = Window("1m", BEGIN_MS + 3_000_000, BEGIN_MS + 11_400_000)
    tape = open_scenario(tmp_path, ["XRP/ETH"], chosen).listing("XRP/ETH").trades
    ids = dict(zip(tape.time_ms.tolist(), range(tape.first_id, 2**63), strict=False))
    assert ids[BEGIN_MS + 3_000_000] == 9_003_000
    assert ids[BEGIN_MS + 8_999_000] == 9_008_999  # up to the hole in the window
    assert ids[BEGIN_MS + 9_100_000] == 9_009_000  # behind it without a gap
    assert ids[BEGIN_MS + 1_999_000] == 9_002_499  # and back from the window's first


def test_files_of_trades_are_read_as_one(tmp_path: Path) -> None:
    ticks = tick_frame(9_000, 1_000)
    save(ticks[4_000:], tmp_path, "binance_spot_XRPETH_a")
    save(ticks[:4_500], tmp_path, "binance_spot_XRPETH_b")
    save(tick_frame(50, 1_000, BEGIN_MS - 90 * DAY_MS, 100), tmp_path, "binance_spot_XRPETH_c")
    chosen = Window("1m", BEGIN_MS + 60_000, BEGIN_MS + 8_400_000)
    opened = open_scenario(tmp_path, ["XRP/ETH"], chosen)
    tape = opened.listing("XRP/ETH").trades
    assert (tape.first_id, tape.time_ms[0]) == (9_000_000, BEGIN_MS)
    assert not len(opened.history["XRP/ETH"])  # nothing of another season
    assert np.array_equal(np.diff(tape.time_ms), np.full(len(tape) - 1, 1_000))


def test_candles_stand_for_the_trades_before_the_first_one(tmp_path: Path) -> None:
    older = candle_frame(3_000, "1m", BEGIN_MS - 2_995 * MINUTE_MS)
    ticks = tick_frame(2_000, 1_000, BEGIN_MS + 2_000)  # within a candle that is known whole
    save(older, tmp_path / "older", "XRP_ETH-1m")
    save(ticks, tmp_path / "ticks", "binance_spot_XRPETH_x")
    chosen = Window("1m", BEGIN_MS + 2 * MINUTE_MS, BEGIN_MS + 30 * MINUTE_MS)
    opened = open_scenario(tmp_path / "ticks", ["XRP/ETH"], chosen, history=tmp_path / "older")
    listing = opened.listing("XRP/ETH")
    got = known_candles(opened, "XRP/ETH", chosen.end_ms)
    assert_same(got[:2_996], older[:2_996])
    assert chosen.first_ms <= listing.trades.time_ms[0] < chosen.first_ms + 5 * MINUTE_MS
    real = int(listing.trades.due(BEGIN_MS + MINUTE_MS - 1))
    assert listing.trades.time_ms[real] == BEGIN_MS + MINUTE_MS
    assert listing.trades.first_id + real == 9_000_058
    behind = ticks[ticks["time_us"] >= (BEGIN_MS + MINUTE_MS) * 1000]["price"].tolist()
    decimals = listing.instrument.price_decimals
    assert (listing.trades.price[real:] / 10**decimals).tolist() == behind[: len(listing.trades)]


def test_trades_that_do_not_cover_the_window_leave_it_to_the_candles(tmp_path: Path) -> None:
    save(tick_frame(500, 1_000), tmp_path, "binance_spot_XRPETH_x")
    bars = candle_frame(900, "1m")
    save(bars, tmp_path, "XRP_ETH-1m")
    opened = open_scenario(tmp_path, ["XRP/ETH"], window(700, 800, "1m"))
    assert_same(known_candles(opened, "XRP/ETH", window(700, 800, "1m").end_ms), bars[:800])


# Invented markets


def test_an_invented_market_depends_on_seed_and_window_alone() -> None:
    chosen = Window("1m", BEGIN_MS + 3_600_000, BEGIN_MS + 7_200_000, 300)
    clock = [BEGIN_MS]
    first, again, other, walk = (
        open_scenario(spec, ["ETH/USDT"], chosen, seed=seed, days_before=1, now_ms=lambda: clock[0])
        for spec, seed in (
            ("synthetic", 3), ("synthetic", 3), ("synthetic", 4), ("random-walk", 3),
        )
    )  # fmt: skip
    clock[0] = chosen.end_ms
    assert first.market.now_ms() == chosen.end_ms
    assert list(first.market.listings) == ["ETHUSDT"]
    assert not len(first.history["ETH/USDT"])
    prices = [item.listing("ETH/USDT").trades.price for item in (first, again, other, walk)]
    assert np.array_equal(prices[0], prices[1])
    assert not np.array_equal(prices[0], prices[2])
    assert not np.array_equal(prices[0], prices[3])


@pytest.mark.parametrize("days_before", [1, 4])
def test_an_invented_market_reaches_from_its_days_before_to_after_the_window(
    days_before: int,
) -> None:
    chosen = Window("1m", BEGIN_MS + 3_600_000, BEGIN_MS + 7_200_000)
    opened = open_scenario("random-walk", ["BTC/USDT"], chosen, days_before=days_before)
    time_ms = opened.listing("BTC/USDT").trades.time_ms
    begin_ms = BEGIN_MS - max(2, days_before) * DAY_MS  # a page of 1m candles and a day before
    assert begin_ms <= time_ms[0] < begin_ms + 2 * MINUTE_MS
    assert time_ms[-1] >= chosen.end_ms + 2 * MINUTE_MS
    got = known_candles(opened, "BTC/USDT", chosen.end_ms)
    assert opens_ms(got)[[0, -1]].tolist() == [begin_ms, chosen.end_ms - MINUTE_MS]


# What cannot be opened


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("7m", 0, 1), r'timeframe "7m" is unknown; give one of 1m, 3m'),
        (("5m", DAY_MS, DAY_MS), "ends later, found 1970-01-02T00:00:00Z to 1970"),
        (("5m", DAY_MS, 0), "ends later"),
        (("5m", 0, 1, -1), "startup_candles must be at least 0, found -1"),
    ],
)
def test_an_impossible_window_is_a_config_error(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Window(*arguments)


@pytest.mark.parametrize(
    ("data", "pairs", "options", "message"),
    [
        ("synthetic", [], {}, "at least one pair"),
        ("synthetic", ["ADA/USDT"], {}, r'"synthetic" has no ADA/USDT; there are BTC/USDT, ETH'),
        ("synthetic", ["BTC/USDT"], {"days_before": 900}, "at most 730 days"),
        ("random-walk", ["BTC/USDT"], {"history": Path("x")}, "brings its own history"),
        ("nowhere", ["BTC/USDT"], {}, '"nowhere" is not a directory'),
        (None, ["SOL/USDT"], {}, "has no recording of SOL/USDT; there are BTC/USDT, ETH/BTC"),
        (None, ["BTC/USD:BTC"], {}, '"BTC/USD:BTC" is neither a pair of a spot market'),
        (None, ["BTC/USDT", "BTC/USDT:USDT"], {}, "are of spot and of futures: give one kind"),
        (None, ["BTC/USDT"], {"history": Path("nowhere")}, '"nowhere" is not a directory'),
    ],
)
def test_what_is_not_there_is_a_config_error(
    folder: Path, data: str | None, pairs: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_scenario(data or folder, pairs, WINDOW, **options)


def test_candles_that_do_not_follow_from_the_recording_are_a_config_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"3m candles of BTC/USDT do not follow from BTC_USDT-5m"):
        open_scenario(folder, ["BTC/USDT"], window(10, 20, "3m"))
    with pytest.raises(ConfigError, match=r"has no candles of BTC/USDT in 1h"):
        open_scenario(folder, ["BTC/USDT"], window(10, 20, "1h"), history=folder)


@pytest.mark.parametrize("chosen", [window(2_900, 3_001), window(-1, 50), window(9_000, 9_009)])
def test_a_window_that_was_not_recorded_is_told_what_was(folder: Path, chosen: Window) -> None:
    with pytest.raises(DataError, match=r"no recording of BTC/USDT covers .*: BTC_USDT-5m.feather "
                       r"has 2023-11-15T00:00:00Z to 2023-11-25T10:00:00Z"):  # fmt: skip
        open_scenario(folder, ["BTC/USDT"], chosen)


def test_trades_of_another_time_are_told(tmp_path: Path) -> None:
    save(tick_frame(500, 1_000), tmp_path, "binance_spot_XRPETH_x")
    with pytest.raises(DataError, match=r"binance_spot_XRPETH_x.feather has 2023-11-15T00:00:00Z"):
        open_scenario(tmp_path, ["XRP/ETH"], window(700, 800, "1m"))


def test_a_window_in_a_hole_is_a_data_error(tmp_path: Path) -> None:
    save(candle_frame(900).drop(index=range(400, 500)), tmp_path, "BTC_USDT-5m")
    with pytest.raises(DataError, match=r"BTC_USDT-5m.feather: nothing of BTC/USDT was traded in"):
        open_scenario(tmp_path, ["BTC/USDT"], window(410, 490))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (candle_frame(99).iloc[::-1], "not in order of time"),
        (candle_frame(99, start_ms=BEGIN_MS + 1), "do not lie on the 5m grid"),
        (candle_frame(99).drop(columns="low"), r"column\(s\) low are missing"),
        (candle_frame(99).replace({"close": {100.0: np.nan}}), "BTC/USDT: column \"close\" holds"),
    ],
)  # fmt: skip
def test_unusable_candles_are_named(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    save(frame, tmp_path, "BTC_USDT-5m")
    with pytest.raises(DataError, match=message):
        open_scenario(tmp_path, ["BTC/USDT"], window(50, 90))


# Real recordings

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded market data is not here")


def utc_ms(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").timestamp() * 1000)


@needs_data
@pytest.mark.parametrize(
    ("pair", "start", "end"),
    [
        ("BTC/USDT", "2020-12-25", "2021-01-05"),  # six decimals, and an outage
        ("BTC/USDT", "2025-03-03", "2025-03-10"),
        ("ETH/USDT", "2025-03-03", "2025-03-10"),
        ("SOL/USDT", "2025-03-03", "2025-03-10"),
    ],
)
def test_real_candles_come_back_bit_for_bit(pair: str, start: str, end: str) -> None:
    chosen = Window("5m", utc_ms(start), utc_ms(end), 4_999)
    got = known_candles(
        open_scenario(SHARED / "binance", [pair], chosen), pair, chosen.end_ms
    ).set_index("date")
    recorded = pd.read_feather(SHARED / "binance" / f"{pair.replace('/', '_')}-5m.feather")
    recorded = recorded[recorded["date"] < pd.Timestamp(end, tz="UTC")].set_index("date")
    pd.testing.assert_frame_equal(got.loc[recorded.index], recorded, check_exact=True)
    assert not got["volume"].drop(recorded.index).any()  # holes are flat


@needs_data
def test_real_trades_make_the_candles_that_were_recorded_at_the_same_time() -> None:
    chosen = Window("1m", utc_ms("2024-08-08 23:56"), utc_ms("2024-08-09 00:04"), 300)
    pairs = ("BTC/USDT", "ETH/USDT")
    opened = open_scenario(SHARED / "trades", pairs, chosen, history=SHARED / "binance")
    for pair in pairs:
        name = f"{pair.replace('/', '_')}-1m.feather"
        recorded = pd.read_feather(SHARED / "binance" / name)
        recorded = recorded[opens_ms(recorded) < chosen.end_ms]
        assert_same(known_candles(opened, pair, chosen.end_ms), recorded)
        symbol = pair.replace("/", "")
        path = next((SHARED / "trades").glob(f"binance_spot_{symbol}_*"))
        ticks = pd.read_feather(path)
        first = ticks[ticks["time_us"] >= chosen.start_ms * 1000].iloc[0]
        tape = opened.listing(pair).trades
        assert tape.first_id + tape.due(chosen.start_ms - 1) == first["id"]


# What is looked at beside the pairs


def test_a_pair_beside_the_others_is_served_and_written_but_not_replayed(
    folder: Path, tmp_path: Path
) -> None:
    scenario = open_scenario(folder, ["ETH/BTC"], WINDOW, beside=["BTC/USDT", "ETH/BTC"])
    assert (scenario.pairs, scenario.beside) == (("ETH/BTC",), ("BTC/USDT",))
    whole = open_scenario(folder, ["ETH/BTC", "BTC/USDT"], WINDOW)
    for of, name in ((scenario, "one"), (whole, "two")):
        write_candles(of, tmp_path / name, WINDOW.end_ms)
    for pair in ("ETH_BTC", "BTC_USDT"):
        made = [pd.read_feather(tmp_path / name / f"{pair}-5m.feather") for name in ("one", "two")]
        assert_same(*made)
    assert "BTCUSDT" in scenario.market.listings


@pytest.mark.parametrize("missing", ["ADA/USDT", "BTC/USDT:USDT"])
def test_a_pair_beside_the_others_that_is_not_there_is_done_without(
    folder: Path, tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    scenario = open_scenario(folder, ["BTC/USDT"], WINDOW, beside=[missing])
    assert scenario.beside == ()
    assert f"Forecasts are made without {missing}" in caplog.text
    write_candles(scenario, tmp_path, WINDOW.end_ms)
    assert [path.name for path in tmp_path.iterdir()] == ["BTC_USDT-5m.feather"]


def test_an_invented_market_has_the_pair_beside_it_if_it_knows_it() -> None:
    chosen = window(0, 12)
    plain = open_scenario("synthetic", ["ETH/USDT"], chosen, days_before=1)
    beside = open_scenario(
        "synthetic", ["ETH/USDT"], chosen, days_before=1, beside=["BTC/USDT", "NONE/USDT"]
    )
    assert beside.beside == ("BTC/USDT",)
    assert set(beside.market.listings) == {"ETHUSDT", "BTCUSDT"}
    assert_same(
        known_candles(beside, "ETH/USDT", chosen.end_ms),
        known_candles(plain, "ETH/USDT", chosen.end_ms),
    )


# Futures


@pytest.mark.lengthy
def test_a_future_is_served_and_written_with_its_mark_prices_and_funding(tmp_path: Path) -> None:
    pair, chosen = "ETH/USDT:USDT", window(0, 24)
    made = open_scenario("synthetic", [pair], chosen, days_before=2, beside=["BTC/USDT"])
    assert (made.trading_mode, made.beside) == ("futures", ())
    write_candles(made, tmp_path, chosen.end_ms)
    files = {path.name: pd.read_feather(path) for path in (tmp_path / "futures").iterdir()}
    candles, mark, funding = (
        files[f"ETH_USDT_USDT-{kind}.feather"]
        for kind in ("5m-futures", "1h-mark", "1h-funding_rate")
    )
    spot = open_scenario("synthetic", ["ETH/USDT"], chosen, days_before=2)
    assert_same(candles, known_candles(spot, "ETH/USDT", chosen.end_ms))
    assert len(funding) == 15
    assert set(funding["date"]) <= set(mark["date"])
    again = open_scenario(tmp_path, [pair], chosen)
    assert_same(known_candles(again, pair, chosen.end_ms).tail(100), candles.tail(100))
