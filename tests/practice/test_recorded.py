"""Recordings of a directory: candles come back exactly, trades one by one, moved to now."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import timeframe_ms
from lstm_model.practice.recorded import candle_listing, joined, recorded_market
from lstm_model.practice.rest import answer
from lstm_model.practice.tape_market import DAY_MS, Listing, Market

HOUR_MS = 3_600_000
RECORDED_MS = 1_700_006_400_000  # a midnight, UTC
NOW_MS = RECORDED_MS + 500 * DAY_MS + 9 * HOUR_MS + 1_234  # nine in the morning, much later


def candle_frame(
    count: int, timeframe: str, start_ms: int = RECORDED_MS, seed: int = 0
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.003, count))), 2)
    open_ = np.concatenate([[100.0], close[:-1]])
    dates = start_ms + timeframe_ms(timeframe) * np.arange(count)
    return pd.DataFrame({
        "date": pd.to_datetime(dates, unit="ms", utc=True),
        "open": open_,
        "high": np.round(np.maximum(open_, close) + rng.integers(0, 9, count) / 100, 2),
        "low": np.round(np.minimum(open_, close) - rng.integers(0, 9, count) / 100, 2),
        "close": close,
        "volume": np.round(rng.exponential(3.0, count) * (rng.random(count) > 0.1), 4),
    })  # fmt: skip


def trade_frame(count: int, step_us: int, start_us: int = RECORDED_MS * 1000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({
        "time_us": start_us + step_us * np.arange(count),
        "id": 77_000 + np.arange(count),
        "price": np.round(2.0 + 0.1 * rng.random(count), 4),
        "qty": np.round(1.0 + rng.random(count), 1),
        "is_buyer_maker": rng.random(count) < 0.5,
    })  # fmt: skip


def save(frame: pd.DataFrame, path: Path) -> None:
    frame.reset_index(drop=True).to_feather(path)


def open_at_now(folder: Path, days: int = 30) -> Market:
    return recorded_market(folder, days, now_ms=lambda: NOW_MS)


def served(listing: Listing, timeframe: str) -> pd.DataFrame:
    """Candles of the whole listing, future included, in quote and base units."""
    end_ms = int(listing.trades.time_ms[-1])
    candles = listing.candles(timeframe, end_ms, limit=10**6)
    tick = 10.0**-listing.instrument.price_decimals
    lot = 10.0**-listing.instrument.amount_decimals
    columns: dict[str, Any] = {
        name: getattr(candles, name) * tick for name in ("open", "high", "low", "close")
    }
    return pd.DataFrame({"open_ms": candles.open_ms, **columns, "volume": candles.volume * lot})


def assert_same_candles(frame: pd.DataFrame, listing: Listing, timeframe: str) -> int:
    """The recorded candles inside the replayed part equal those served; returns the shift."""
    got, step_ms = served(listing, timeframe), timeframe_ms(timeframe)
    recorded = frame.assign(open_ms=frame["date"].to_numpy("datetime64[ms]").astype(np.int64))
    traded = recorded[recorded["volume"] > 0.0].iloc[-int((got["volume"] > 0.0).sum()) :]
    got = got[got["volume"] > 0.0]
    shifts = np.unique(got["open_ms"].to_numpy() - traded["open_ms"].to_numpy())
    assert len(shifts) == 1
    assert shifts[0] % step_ms == 0
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_allclose(got[name], traded[name], rtol=1e-12, atol=1e-9)
    return int(shifts[0])


@pytest.mark.parametrize(("timeframe", "count"), [("1m", 8 * 1440), ("5m", 5 * 288), ("1h", 400)])
def test_candles_come_back_exactly_and_moved_by_whole_days(
    tmp_path: Path, timeframe: str, count: int
) -> None:
    frame = candle_frame(count, timeframe)
    save(frame, tmp_path / f"BTC_USDT-{timeframe}.feather")
    listing = open_at_now(tmp_path).listings["BTCUSDT"]
    assert assert_same_candles(frame, listing, timeframe) % DAY_MS == 0
    assert NOW_MS + DAY_MS <= listing.trades.time_ms[-1] < NOW_MS + 3 * DAY_MS


@pytest.mark.lengthy
@settings(max_examples=40, deadline=None)
@given(st.lists(
    st.tuples(st.integers(50, 99), st.integers(0, 9), st.integers(0, 9), st.integers(50, 99),
              st.integers(0, 40)),
    min_size=2, max_size=12,
))  # fmt: skip
def test_any_candle_comes_back_even_of_a_single_lot(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("recording")
    frame = pd.DataFrame([
        {
            "date": pd.Timestamp(RECORDED_MS + minute * 60_000, unit="ms", tz="UTC"),
            "open": open_ / 10, "close": close / 10, "volume": volume / 100,
            "high": (max(open_, close) + up) / 10, "low": (min(open_, close) - down) / 10,
        }
        for minute, (open_, up, down, close, volume) in enumerate(rows)
    ])  # fmt: skip
    save(frame, folder / "AAA_BBB-1m.feather")
    if not (frame["volume"] > 0.0).any():
        with pytest.raises(DataError, match="at least one trade"):
            open_at_now(folder)
        return
    assert_same_candles(frame, open_at_now(folder).listings["AAABBB"], "1m")


def test_coarser_candles_are_those_of_the_recording(tmp_path: Path) -> None:
    frame = candle_frame(5 * 288, "5m")
    save(frame, tmp_path / "ETH_USDT-5m.feather")
    got = served(open_at_now(tmp_path).listings["ETHUSDT"], "1d")
    by_day = frame.groupby(frame["date"].dt.floor("D"))
    np.testing.assert_allclose(got["high"], by_day["high"].max())
    np.testing.assert_allclose(got["volume"], by_day["volume"].sum())


def test_the_finest_timeframe_wins(tmp_path: Path) -> None:
    for timeframe in ("1h", "5m", "15m"):
        save(candle_frame(800, timeframe), tmp_path / f"BTC_USDT-{timeframe}.feather")
    listing = open_at_now(tmp_path).listings["BTCUSDT"]
    assert_same_candles(candle_frame(800, "5m"), listing, "5m")


def test_only_the_last_days_are_kept_and_pairs_stay_aligned(tmp_path: Path) -> None:
    longer, shorter = candle_frame(30 * 288, "5m"), candle_frame(29 * 288 - 7, "5m", seed=5)
    save(longer, tmp_path / "BTC_USDT-5m.feather")
    save(shorter, tmp_path / "ETH_USDT-5m.feather")
    market = open_at_now(tmp_path, days=3)
    shifts = set()
    for symbol, frame in (("BTCUSDT", longer), ("ETHUSDT", shorter)):
        listing = market.listings[symbol]
        common = frame[frame["date"] <= shorter["date"].iloc[-1]]
        shifts.add(assert_same_candles(common, listing, "5m"))
        span = listing.trades.time_ms[-1] - listing.trades.time_ms[0]
        assert 4 * DAY_MS < span <= 5 * DAY_MS
        assert listing.trades.time_ms[0] < NOW_MS - 1.5 * DAY_MS
    assert len(shifts) == 1


def test_the_same_day_gives_the_same_market(tmp_path: Path) -> None:
    save(candle_frame(6 * 288, "5m"), tmp_path / "BTC_USDT-5m.feather")
    midnight = NOW_MS // DAY_MS * DAY_MS
    early, late = (
        recorded_market(tmp_path, now_ms=lambda at=at: midnight + at) for at in (0, DAY_MS - 1)
    )
    times = [market.listings["BTCUSDT"].trades.time_ms for market in (early, late)]
    assert np.array_equal(*times)


def test_ticks_come_back_one_by_one(tmp_path: Path) -> None:
    frame = trade_frame(600, 1_000_000)
    save(frame, tmp_path / "binance_spot_XRPETH_20231114_10min.feather")
    market = open_at_now(tmp_path)
    instrument, tape = market.listings["XRPETH"].instrument, market.listings["XRPETH"].trades
    assert (instrument.pair, instrument.price_decimals, instrument.amount_decimals) == (
        "XRP/ETH", 4, 1,
    )  # fmt: skip
    np.testing.assert_allclose(tape.price / 1e4, frame["price"])
    np.testing.assert_allclose(tape.amount / 10, frame["qty"])
    assert np.array_equal(tape.taker_buy, ~frame["is_buyer_maker"])
    assert np.array_equal(np.diff(tape.time_ms), np.full(599, 1000))
    assert tape.due(NOW_MS) == pytest.approx(300, abs=61)  # moved by whole minutes
    status, rows = answer(market, "trades", {"symbol": "XRPETH", "limit": "2"})
    assert status == 200
    assert [row["id"] for row in rows] == [77_000 + tape.due(NOW_MS) - back for back in (2, 1)]


def test_pairs_recorded_at_different_times_are_each_moved_to_now(tmp_path: Path) -> None:
    later_us = (RECORDED_MS + 90 * DAY_MS) * 1000
    save(trade_frame(600, 1_000_000), tmp_path / "binance_spot_BTCUSDT_a.feather")
    save(trade_frame(600, 1_000_000, later_us), tmp_path / "binance_spot_ETHUSDT_b.feather")
    assert len(open_at_now(tmp_path).trading()) == 2


def test_one_busy_candle_costs_no_decimals() -> None:
    frame = candle_frame(288, "5m").assign(volume=1.123456)
    frame.loc[7, "volume"] = 50_000_000.0  # a day of these could not be counted so finely
    listing = candle_listing(frame, "BTC", "USDT", 300_000)
    assert listing.instrument.amount_decimals == 6
    assert (served(listing, "5m")["volume"] * 1e6).round().iloc[0] == 1_123_456


def test_two_parts_of_a_pair_are_joined_in_the_finer_units() -> None:
    early, late = candle_frame(300, "5m"), candle_frame(300, "5m", RECORDED_MS + 2 * DAY_MS, 3)
    early["volume"] = early["volume"].round(2) + 1.0
    for name in ("open", "high", "low", "close"):
        late[name] = late[name].round(1)
    parts = [candle_listing(frame, "BTC", "USDT", 300_000) for frame in (early, late)]
    whole = joined(*parts)
    for name in ("price_decimals", "amount_decimals"):
        most = [getattr(part.instrument, name) for part in parts]
        assert most[0] != most[1]
        assert getattr(whole.instrument, name) == max(most)
    traded = served(whole, "5m").query("volume > 0").reset_index(drop=True)
    wanted = pd.concat([early, late]).query("volume > 0").reset_index(drop=True)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_allclose(traded[name], wanted[name], rtol=1e-12, atol=1e-9)
    assert whole.trades.first_id == 0  # no id is negative


def test_parts_whose_sums_cannot_be_counted_are_refused() -> None:
    huge = candle_listing(candle_frame(9, "5m").assign(volume=4e13), "BTC", "USDT", 300_000)
    frame = candle_frame(9, "5m", RECORDED_MS + DAY_MS).assign(volume=0.000_001)
    with pytest.raises(DataError, match=r"BTC/USDT: 2 \+ 7 decimals are too many"):
        joined(huge, candle_listing(frame, "BTC", "USDT", 300_000))


def test_a_missing_directory_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a directory"):
        recorded_market(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="days must be at least 1"):
        recorded_market(tmp_path, days=0)


@pytest.mark.parametrize("names", [[], ["notes.txt", "other.feather"]])
def test_a_directory_without_recordings_is_a_data_error(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("something else")
    with pytest.raises(DataError, match=r"no recording found .*(nothing|notes\.txt)"):
        recorded_market(tmp_path)


def broken(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    frame.loc[3, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (candle_frame(9, "5m").iloc[:0], "holds no row"),
        (candle_frame(9, "5m").drop(columns="volume"), r"column\(s\) volume are missing"),
        (broken(candle_frame(9, "5m"), "close", np.nan), '"close" holds values that are not'),
        (broken(candle_frame(9, "5m"), "volume", np.inf), '"volume" holds values that are not'),
        (broken(candle_frame(9, "5m", seed=2), "high", 1.0), "outside its low and high"),
        (candle_frame(9, "5m").iloc[::-1], "not in order of time"),
        (candle_frame(9, "5m").assign(volume=0.0), "at least one trade"),
    ],
)
def test_unusable_candles_are_named(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    save(frame.assign(), tmp_path / "BTC_USDT-5m.feather")
    with pytest.raises(DataError, match=r"BTC_USDT-5m.feather: .*" + message):
        recorded_market(tmp_path)


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "BTC_USDT-5m.feather").write_bytes(b"not feather at all")
    with pytest.raises(DataError, match=r"BTC_USDT-5m\.feather: not a feather file"):
        recorded_market(tmp_path)


def test_an_unknown_quote_currency_is_named(tmp_path: Path) -> None:
    save(trade_frame(9, 1), tmp_path / "binance_spot_ABCXYZ_x.feather")
    with pytest.raises(DataError, match="quote currency of ABCXYZ"):
        recorded_market(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded market data is not here")
@pytest.mark.parametrize("folder", ["binance", "trades"])
def test_real_recordings_can_be_replayed(folder: str) -> None:
    market = open_at_now(SHARED / folder, days=7)
    assert len(market.trading()) == len(market.listings) >= 4
    for listing in market.listings.values():
        assert listing.trades.due(NOW_MS) < len(listing.trades)
    assert len(answer(market, "ticker/24hr", {})[1]) == len(market.listings)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded market data is not here")
def test_real_candles_come_back_exactly() -> None:
    frame = pd.read_feather(SHARED / "binance" / "BTC_USDT-1m.feather")
    frame = frame[frame["date"] < frame["date"].iloc[-1].floor("h")]  # as far as all pairs go
    market = open_at_now(SHARED / "binance", days=7)
    assert_same_candles(frame, market.listings["BTCUSDT"], "1m")
