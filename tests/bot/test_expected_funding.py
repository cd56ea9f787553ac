"""The expected funding by freqtrade's own rates: the same in a bot and in a study of the past."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from freqtrade.data.converter import ohlcv_to_dataframe
from freqtrade.data.dataprovider import DataProvider
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType, RunMode
from pandas import DataFrame

from lstm_model.bot import insides
from lstm_model.bot.funding import Funding
from lstm_model.market.funding import HOUR_MS, expected_funding

PAIR, KIND = "BTC/USDT:USDT", CandleType.FUNDING_RATE
START_MS, STEP_MS, HORIZON = 1_767_225_600_000, 300_000, 12  # 2026-01-01
PAID_MS = START_MS + 8 * HOUR_MS * np.arange(30)
RATES = 0.0001 * np.arange(1, 31)
DATES = START_MS + 7 * 24 * HOUR_MS + STEP_MS * np.arange(288)


def rates(count: int = 30) -> DataFrame:
    """As freqtrade makes it of what the exchange answers, some milliseconds after the hour."""
    rows = [[int(at) + 7, rate] for at, rate in zip(PAID_MS, RATES, strict=True)][:count]
    return ohlcv_to_dataframe(rows, "1h", PAIR, drop_incomplete=False, candle_type=KIND)


class Exchange:
    """freqtrade's, as far as it keeps candles for a bot."""

    def __init__(self, frame: DataFrame) -> None:
        self.frame = frame

    def get_option(self, param: str) -> str:
        return {"funding_fee_timeframe": "1h"}[param]

    def klines(self, wanted: Any, copy: bool = True) -> DataFrame:
        return self.frame if wanted == (PAIR, "1h", KIND) else DataFrame()


def provider_of(folder: Path, mode: RunMode, frame: DataFrame | None) -> DataProvider:
    config = {
        "runmode": mode, "timeframe": "5m", "candle_type_def": CandleType.FUTURES,
        "datadir": folder, "dataformat_ohlcv": "feather", "startup_candle_count": 300,
        "timerange": "20260108-20260109",
    }  # fmt: skip
    if frame is not None and mode == RunMode.BACKTEST:
        get_datahandler(folder, "feather").ohlcv_store(PAIR, "1h", frame, KIND)
    shown = DataFrame() if frame is None else frame
    return DataProvider(config, Exchange(shown) if mode == RunMode.DRY_RUN else None)


def funding_of(folder: Path, mode: RunMode, frame: DataFrame | None) -> Funding:
    (folder / "futures").mkdir(exist_ok=True)
    live, provider = mode == RunMode.DRY_RUN, provider_of(folder, mode, frame)
    return Funding(provider, STEP_MS, HORIZON, live=live, words=" -c here.json")


@pytest.mark.lengthy
def test_a_bot_says_of_every_candle_what_a_backtest_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The bot asks of each when it is closed, and knows no rate of an hour that is not over."""
    whole = funding_of(tmp_path, RunMode.BACKTEST, rates())(PAIR, DATES)
    bot = funding_of(tmp_path, RunMode.DRY_RUN, None)
    said = []
    for date_ms in DATES:
        now_ms = date_ms + STEP_MS
        over = int(np.searchsorted(PAID_MS, now_ms - HOUR_MS, side="right"))
        bot._provider._exchange.frame = rates(over)
        said.append(bot(PAIR, np.array([date_ms]))[0])
    assert said == whole.tolist()
    wanted = expected_funding(PAID_MS, RATES, DATES + STEP_MS, HORIZON * STEP_MS)
    np.testing.assert_array_equal(whole, wanted)
    assert np.count_nonzero(whole) == 3 * HORIZON  # three payments a day
    assert not [record for record in caplog.records if record.name.endswith("bot.funding")]


def test_older_releases_call_the_rate_open(tmp_path: Path) -> None:
    frame = rates().rename(columns={"funding_rate": "open"})
    frame = frame.loc[:, ~frame.columns.duplicated()]
    provider = provider_of(tmp_path, RunMode.DRY_RUN, frame)
    paid_ms, found = insides.funding_rates(provider, PAIR, live=True)
    assert (paid_ms.tolist(), found.tolist()) == (PAID_MS.tolist(), RATES.tolist())


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (RunMode.DRY_RUN, "no funding rate is known now, so the edge is counted without funding"),
        (RunMode.BACKTEST, "no funding rate is known at 288 of 288 candles, so the edge is counted "
                           "without funding; `freqtrade download-data -c here.json` gets them"),
    ],
)  # fmt: skip
def test_where_no_rate_is_known_none_is_counted_and_that_is_said_once(
    tmp_path: Path, mode: RunMode, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    funding = funding_of(tmp_path, mode, None)
    assert funding(PAIR, DATES).tolist() == funding(PAIR, DATES).tolist() == [0.0] * len(DATES)
    records = [record for record in caplog.records if record.name.endswith("bot.funding")]
    assert [(it.levelno, it.getMessage()) for it in records] == [
        (logging.WARNING, f"{PAIR}: {told}")
    ]


def test_rates_that_cannot_be_read_cost_the_funding_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    funding = funding_of(tmp_path, RunMode.DRY_RUN, DataFrame({"close": [1.0]}))
    assert funding(PAIR, DATES[:2]).tolist() == [0.0, 0.0]
    assert "its funding rates cannot be read (KeyError: 'date')" in caplog.text
