"""Candle files as freqtrade writes them, and as they should not be: each is read or named."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from permissions import permissions_count
from series import STEP_MS, make_candles, same_bits, to_frame

from lstm_model.bot import insides
from lstm_model.bot.configuration import load_candles
from lstm_model.errors import DataError, UnreadableError
from lstm_model.market.candles import Candles
from lstm_model.market.history import CandleHistory
from lstm_model.settings import Settings

# freqtrade's own, in the pandas of now
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

PAIR = "BTC/USDT"
WHOLE = make_candles(600)
Change = Callable[[pd.DataFrame], pd.DataFrame]


def config_of(folder: Path) -> dict[str, Any]:
    return {"user_data_dir": folder, "datadir": folder, "timeframe": "5m",
            "exchange": {"name": "binance"}}  # fmt: skip


def written(folder: Path, candles: Candles, change: Change = lambda frame: frame) -> Path:
    path = folder / "BTC_USDT-5m.feather"
    change(to_frame(candles)).reset_index(drop=True).to_feather(path)
    return path


def without(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(index=range(200, 210))


def future(frame: pd.DataFrame) -> pd.DataFrame:
    stray = frame.iloc[-1:].assign(date=pd.Timestamp("2100-01-01", tz="UTC"))
    return pd.concat([frame, stray])


def test_candles_are_what_freqtrade_makes_of_the_file(tmp_path: Path) -> None:
    """Holes are filled as freqtrade fills them: nothing was traded in them."""
    written(tmp_path, WHOLE, without)
    found = load_candles(config_of(tmp_path), PAIR)
    assert found is not None
    assert same_bits(found.date_ms, WHOLE.date_ms)
    assert np.flatnonzero(found.volume == 0.0).tolist() == list(range(200, 210))
    assert set(found.close[200:210]) == {WHOLE.close[199]}


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: pd.concat([frame, frame.iloc[-3:]]),
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.assign(date=frame["date"].where(frame.index != 300, frame["date"]
                                                            + pd.Timedelta("7s"))),
    ],
    ids=["twice", "order", "grid"],
)  # fmt: skip
def test_what_freqtrade_puts_right_is_as_if_it_had_been_right(
    tmp_path: Path, change: Change
) -> None:
    written(tmp_path, WHOLE, change)
    found = load_candles(config_of(tmp_path), PAIR)
    assert found is not None
    assert same_bits(found.date_ms, WHOLE.date_ms)
    assert found.sound().all()


def test_a_candle_of_the_future_is_named_and_hides_none_that_the_bot_sees(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is a gap of 74 years filled."""
    written(tmp_path, WHOLE.rows(0, 500), future)
    config, began_s = config_of(tmp_path), time.monotonic()
    found = load_candles(config, PAIR)
    assert time.monotonic() - began_s < 5.0
    assert found is not None
    assert same_bits(found.date_ms, WHOLE.date_ms[:500])
    [said] = [record.message for record in caplog.records if "2100-01-01" in record.message]
    assert said.startswith("BTC/USDT: 1 5m candle(s) on disk lie in the future")
    history = CandleHistory(Settings(), lambda pair: load_candles(config, pair), None, 10**12)
    history.remember(WHOLE.rows(450, 600))
    known = history.of(PAIR)
    assert known is not None
    assert same_bits(known.close, WHOLE.close)
    assert history.seen_until([PAIR]) == {PAIR: int(WHOLE.date_ms[-1]) + STEP_MS}


def test_a_candle_from_before_all_markets_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A date of zero: 54 years of holes would be filled."""
    stray = pd.Timestamp(0, tz="UTC")
    written(tmp_path, WHOLE, lambda frame: pd.concat([frame.iloc[:1].assign(date=stray), frame]))
    began_s = time.monotonic()
    found = load_candles(config_of(tmp_path), PAIR)
    assert time.monotonic() - began_s < 5.0
    assert found is not None
    assert same_bits(found.date_ms, WHOLE.date_ms)
    [said] = [record.message for record in caplog.records if "1970-01-01" in record.message]
    assert said.startswith("BTC/USDT: 1 5m candle(s) on disk lie in the future or before all")


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(date=frame["date"].dt.tz_localize(None)),
        lambda frame: frame.assign(close="x"),
        lambda frame: frame.assign(date="x"),
        lambda frame: frame.drop(columns=["close"]),
    ],
    ids=["no zone", "texts", "no dates", "lacks a column"],
)
def test_a_file_of_something_else_is_named(
    tmp_path: Path, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    """By us, where freqtrade reads it, and where it takes it for empty."""
    written(tmp_path, WHOLE, change)
    try:
        assert load_candles(config_of(tmp_path), PAIR) is None
        said = caplog.text
    except DataError as error:
        said = str(error)
    assert "BTC/USDT: the file of its 5m candles" in said
    command = "--timeframes 5m --days 850 --pairs BTC/USDT --erase`"
    assert f"{command} gets it anew, after it has deleted the file: copy that first" in said


def test_a_file_of_nothing_but_future_is_no_history(tmp_path: Path) -> None:
    written(tmp_path, WHOLE, lambda frame: future(frame).iloc[-1:])
    assert load_candles(config_of(tmp_path), PAIR) is None


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_named(
    tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, WHOLE)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert load_candles(config_of(tmp_path), PAIR) is None
    assert any("BTC/USDT: the file of its 5m candles" in r.message for r in caplog.records)


@pytest.mark.parametrize("inside", [False, True], ids=["file", "folder"])
def test_what_this_user_may_not_read_is_not_called_damaged(
    tmp_path: Path, inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A bot goes on by what it sees; nobody is told to erase what may be sound."""
    folder = tmp_path / "data"
    folder.mkdir()
    shut = folder if inside else folder / "BTC_USDT-5m.feather"
    written(folder, WHOLE)
    shut.chmod(0)
    config = config_of(folder)
    history = CandleHistory(Settings(), lambda pair: load_candles(config, pair), None, 10**12)
    history.remember(WHOLE)
    try:
        with permissions_count(), pytest.raises(UnreadableError) as caught:
            load_candles(config, PAIR)
        with permissions_count():
            found = history.since(0)(PAIR)
    finally:
        shut.chmod(0o700)
    said = f"{shut} cannot be read by this user (Permission denied): give it permission by `chown"
    assert str(caught.value).startswith(said)
    assert said in caplog.text
    assert "--erase" not in caplog.text + str(caught.value)
    assert found is not None
    assert same_bits(found.close, WHOLE.close)
    assert load_candles(config, PAIR) is not None


def test_a_pair_without_a_file_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, WHOLE)
    assert load_candles(config_of(tmp_path), "ETH/USDT") is None
    assert not any("damaged" in record.message for record in caplog.records)


@pytest.mark.parametrize("content", [b"", b"junk", b"ARROW1\0\0" + bytes(100)])
def test_a_file_that_is_none_is_named_without_a_trace(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (path := tmp_path / "BTC_USDT-5m.feather").write_bytes(content)
    assert load_candles(config_of(tmp_path), PAIR) is None
    assert [record for record in caplog.records if record.name == insides.READER]
    assert str(path) in caplog.text
    assert "Traceback" not in caplog.text
