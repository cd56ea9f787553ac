"""Candles are checked at the door; time is cut into half-open intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import START_MS, STEP_MS, change, drop, make_candles, to_frame

from lstm_model.errors import DataError
from lstm_model.market.candles import Candles, candle_open_ms, timeframe_ms, unknown_flow

TIMES = st.integers(0, 4_000_000_000_000)
TIMEFRAMES = st.sampled_from(["1m", "3m", "5m", "15m", "1h", "4h", "1d"])


@given(TIMES, TIMEFRAMES)
def test_a_trade_belongs_to_exactly_one_candle(time_ms: int, timeframe: str) -> None:
    step_ms = timeframe_ms(timeframe)
    first = time_ms // step_ms * step_ms - 2 * step_ms
    opens = [first + number * step_ms for number in range(5)]
    owners = [open_ms for open_ms in opens if open_ms <= time_ms < open_ms + step_ms]
    assert owners == [candle_open_ms(time_ms, step_ms)]


@given(st.lists(TIMES, max_size=20), TIMEFRAMES)
def test_many_trades_are_placed_as_one_by_one(times: list[int], timeframe: str) -> None:
    step_ms = timeframe_ms(timeframe)
    placed = candle_open_ms(np.array(times, dtype=np.int64), step_ms)
    assert placed.tolist() == [candle_open_ms(time_ms, step_ms) for time_ms in times]


@pytest.mark.parametrize(("timeframe", "length"), [("1m", 60_000), ("4h", 14_400_000)])
def test_a_timeframe_has_a_length(timeframe: str, length: int) -> None:
    assert timeframe_ms(timeframe) == length


@pytest.mark.parametrize(
    "timeframe", ["", "5", "m", "0m", "5s", "1w", "1M", "-1h", "5m ", "1000000m"]
)
def test_an_unusable_timeframe_is_named(timeframe: str) -> None:
    with pytest.raises(DataError, match=f'timeframe "{timeframe}" is not usable'):
        timeframe_ms(timeframe)


def test_a_frame_becomes_candles_without_sharing_memory() -> None:
    candles = make_candles(20)
    frame = to_frame(candles)
    copy = Candles.from_frame(frame, "BTC/USDT", "5m")
    frame.loc[:, "close"] = -1.0
    assert (copy.pair, copy.step_ms, len(copy)) == ("BTC/USDT", STEP_MS, 20)
    for mine, theirs in zip(copy.columns(), candles.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_of_any_resolution_are_understood(unit: str) -> None:
    frame = to_frame(make_candles(5))
    frame["date"] = frame["date"].dt.as_unit(unit)
    assert Candles.from_frame(frame, "X/Y", "5m").date_ms[0] == START_MS


def test_an_empty_frame_gives_no_candles() -> None:
    candles = Candles.from_frame(to_frame(make_candles(5))[:0], "X/Y", "5m")
    assert len(candles) == len(candles.on_grid()) == 0
    assert candles.then(candles) is candles


def _missing(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=["high", "volume"])


def _twice(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[0, 1, 1, 2, 2, 3]]


def _swapped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[0, 2, 1, 3]]


def _off_grid(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(date=frame["date"] + pd.to_timedelta([0, 0, 7, 0], unit="s"))


def _with(**columns: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**columns)


def _stray(date: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The first or the last candle has another date."""
    when, first = pd.Timestamp(date, tz="UTC"), date < "2023"
    return lambda frame: frame.assign(
        date=[when, *frame["date"][1:]] if first else [*frame["date"][:-1], when]
    )


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_with(close=["1", "2", "x", "4"]), "column close of the candles holds no numbers"),
        (_with(close=[1.0, None, [2.0], 3.0]), "column close of the candles holds no numbers"),
        (_with(close=[1.0, 2.0, 10**400, 3.0]), "column close of the candles holds no numbers"),
        (_with(high=np.full(4, 1 + 1j)), "column high .* holds complex128, not numbers"),
        (
            _with(high=pd.to_datetime([1, 2, 3, 4])),
            "column high .* holds datetime64.*, not numbers",
        ),
        (_with(date=range(4)), "column date of the candles holds int64, not dates"),
        (_with(date=["a"] * 4), "column date of the candles holds .*, not dates"),
        (lambda frame: frame.assign(date=frame["date"].where(frame.index != 1)), "without a date"),
        (lambda frame: pd.concat([frame, frame[["low"]]], axis=1), "several columns low"),
        (_stray("1970-01-01"), r"4 candle\(s\) from 1970-01-01T00:00:00Z .* 5,666,403 would be"),
        (_stray("2010-01-01"), "from 2010-01-01T00:00:00Z .* would be: is a date wrong"),
        (_missing, r"lack the column\(s\) high, volume"),
        (_twice, r"2 duplicate candle\(s\), first at 2023-11-14T00:05:00Z"),
        (_swapped, "not in order of time, first at 2023-11-14T00:05:00Z"),
        (_off_grid, "5m grid.*2023-11-14T00:10:07Z"),
    ],
)
def test_spoilt_candles_are_refused_with_pair_and_time(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        Candles.from_frame(spoil(to_frame(make_candles(4))), "SOL/USDT", "5m")
    assert "SOL/USDT" in str(caught.value)


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, -1.0, 1e60, 1.7e308])
def test_what_can_be_neither_price_nor_volume_is_unknown(name: str, value: float) -> None:
    """So nothing behind the door meets the logarithm of no price, or a number without an end."""
    frame = to_frame(make_candles(5))
    frame.loc[2, name] = value
    candles = Candles.from_frame(frame, "X/Y", "5m")
    assert np.flatnonzero(np.isnan(getattr(candles, name))).tolist() == [2]
    assert candles.sound().tolist() == [True, True, False, True, True]
    assert frame[name].to_numpy()[2] == value


def test_a_price_of_nothing_is_unknown_and_a_volume_of_nothing_is_none_traded() -> None:
    frame = to_frame(make_candles(3)).assign(close=[1.0, 0.0, 1e-60], volume=[0.0, 1.0, 2.0])
    candles = Candles.from_frame(frame, "X/Y", "5m")
    assert np.isnan(candles.close).tolist() == [False, True, True]
    assert candles.volume.tolist() == [0.0, 1.0, 2.0]


def test_candles_of_another_timeframe_are_refused() -> None:
    with pytest.raises(DataError, match=r"do not lie on the 1h grid"):
        Candles.from_frame(to_frame(make_candles(4)), "SOL/USDT", "1h")


@given(st.sets(st.integers(1, 38)))
def test_on_the_grid_holes_are_nan_and_nothing_else_changes(holes: set[int]) -> None:
    whole = make_candles(40)
    filled = drop(whole, sorted(holes)).on_grid()
    np.testing.assert_array_equal(filled.date_ms, whole.date_ms)
    kept = np.array([number not in holes for number in range(40)])
    for name in ("open", "high", "low", "close", "volume"):
        column = getattr(filled, name)
        np.testing.assert_array_equal(column[kept], getattr(whole, name)[kept])
        assert np.isnan(column[~kept]).all()
    assert not filled.sound()[~kept].any()


@given(st.integers(-2, 42), st.integers(-2, 42), st.integers(-1, 1))
def test_between_is_half_open(start: int, stop: int, shift_ms: int) -> None:
    candles = make_candles(40)
    start_ms, end_ms = START_MS + start * STEP_MS + shift_ms, START_MS + stop * STEP_MS + shift_ms
    wanted = [t for t in candles.date_ms.tolist() if start_ms <= t < end_ms]
    if start <= stop:
        assert candles.between(start_ms, end_ms).date_ms.tolist() == wanted


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_then_continues_and_the_newer_candles_win(a: int, b: int, c: int) -> None:
    older_end, newer_start, newer_end = a, min(b, c), max(b, c)
    old, new = make_candles(40, seed=1), make_candles(40, seed=2)
    joined = old.rows(0, older_end).then(new.rows(newer_start, newer_end))
    dates = joined.date_ms
    assert (np.diff(dates) > 0).all()
    for date, close in zip(dates.tolist(), joined.close.tolist(), strict=True):
        row = (date - START_MS) // STEP_MS
        is_new = newer_start < newer_end and row >= newer_start
        assert close == (new if is_new else old).close[row]


@pytest.mark.parametrize(
    "values",
    [
        {"close": np.nan}, {"high": np.inf}, {"low": 0.0}, {"low": -1.0}, {"open": 1e9},
        {"close": 1e-9}, {"volume": 0.0}, {"volume": np.nan}, {"high": 1e-9}, {"low": 1e9},
    ],
)  # fmt: skip
def test_only_the_spoilt_candle_is_not_sound(values: dict[str, float]) -> None:
    assert np.flatnonzero(~change(make_candles(9), 4, **values).sound()).tolist() == [4]


def known_flow(candles: Candles) -> np.ndarray:
    flow = unknown_flow(candles.date_ms)
    flow["coverage"], flow["trades"] = 1.0, np.arange(len(candles), dtype=np.float64)
    return flow


def test_order_flow_stays_with_its_candle() -> None:
    candles = make_candles(12)
    flow = known_flow(candles)
    candles = candles.with_flow(flow)
    holed = drop(candles, [3, 4]).with_flow(flow)
    assert holed.rows(2, 5).flow["trades"].tolist() == [2.0, 5.0, 6.0]
    grid = holed.on_grid()
    assert grid.flow["coverage"].tolist() == [1.0] * 3 + [0.0] * 2 + [1.0] * 7
    assert grid.flow["date_ms"].tolist() == grid.date_ms.tolist()
    joined = candles.rows(0, 6).then(make_candles(12).rows(4, 12))
    assert joined.flow["coverage"].tolist() == [1.0] * 4 + [0.0] * 8
    assert make_candles(12).on_grid().flow is None


def test_flow_of_other_candles_is_not_taken() -> None:
    candles = make_candles(4)
    flow = known_flow(candles)
    flow["date_ms"] += 1
    assert candles.with_flow(flow).flow["coverage"].tolist() == [0.0] * 4
    assert candles.with_flow(flow[:0]).flow["coverage"].tolist() == [0.0] * 4
