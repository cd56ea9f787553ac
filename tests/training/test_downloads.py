"""Commands that get candles: from where on freqtrade has to ask, and that it does ask there."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from instant_training import SETTINGS, make_maker
from series import START_MS, STEP_MS, make_candles

from lstm_model.durations import DAY_MS
from lstm_model.errors import DataError
from lstm_model.features.context import REACH_DAYS
from lstm_model.market.candles import Candles
from lstm_model.settings import Settings
from lstm_model.training.downloads import days_to_learn

PAIRS = ["BTC/USDT", "ETH/USDT"]
BTC, ETH = (make_candles(1_000, pair=pair) for pair in PAIRS)
BEFORE = START_MS - 20 * DAY_MS  # a boundary before all of them
LONG_AFTER = START_MS + 400 * DAY_MS  # they are too old for this one


def commands(boundary_ms: int, *series: Candles, settings: Settings = SETTINGS) -> list[list[str]]:
    """What is to be run where no pair has candles to train on."""
    maker = make_maker(Path("unused"), series, settings)
    with pytest.raises(DataError) as caught:
        maker.material(boundary_ms).check()
    return [shlex.split(part) for part in str(caught.value).split("`")[1::2]]


def begin_ms(command: list[str]) -> int:
    day = command[command.index("--timerange") + 1].removesuffix("-")
    return int(np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}", "ms").astype(int))


def test_older_candles_than_there_are_come_before_them() -> None:
    """freqtrade asks from the newest on, whatever the time range, but with --prepend."""
    [command] = commands(BEFORE, BTC, ETH)
    assert command[:2] == ["freqtrade", "download-data"]
    assert command[-4:] == ["--pairs", *PAIRS, "--prepend"]


def test_they_are_those_that_training_and_retraining_want_and_the_days_before() -> None:
    settings = Settings.model_validate(SETTINGS.model_dump() | {"retrain_candles": 30_000})
    [command] = commands(BEFORE, BTC, ETH, settings=settings)
    wanted = settings.train_candles + settings.retrain_candles
    assert BEFORE - begin_ms(command) >= wanted * STEP_MS + REACH_DAYS * DAY_MS
    assert BEFORE - begin_ms(command) < (days_to_learn(settings, "5m") + 1) * DAY_MS


def test_newer_candles_than_there_are_come_after_them() -> None:
    [command] = commands(LONG_AFTER, BTC, ETH)
    assert command[-3:] == ["--pairs", *PAIRS]


def test_pairs_that_want_older_and_newer_ones_have_a_command_each() -> None:
    young = make_candles(1_000, pair="ETH/USDT", start_ms=LONG_AFTER)
    older, newer = commands(LONG_AFTER, BTC, young)
    assert older[-3:] == ["--pairs", "ETH/USDT", "--prepend"]
    assert newer[-2:] == ["--pairs", "BTC/USDT"]
