"""Strategies of the kinds that people run do under `LSTMRisk` what they do without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from freqtrade.data.dataprovider import DataProvider
from freqtrade.enums import CandleType, RunMode
from freqtrade.resolvers import StrategyResolver
from places import ROOT
from series import make_candles, to_frame

from lstm_model.trading.outlook import Outlook, Terms

PAIR = "BTC/USDT"
FILES = sorted((ROOT / "benchmarks" / "archetypes").glob("*.py"))
NAMES = {path.stem: "".join(word.title() for word in path.stem.split("_")) for path in FILES}
MIXED = """
from {module} import {name}
from lstm_model import LSTMRisk

class Safer(LSTMRisk, {name}):
    pass
"""
SIGNALS = ["enter_long", "enter_short", "exit_long", "exit_short", "enter_tag"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archetypes")
    for path in FILES:
        shutil.copy(path, folder)
    return folder


def load(folder: Path, name: str) -> Any:
    config = {
        "strategy": name, "strategy_path": str(folder), "user_data_dir": folder,
        "timeframe": "5m", "stake_currency": "USDT", "stake_amount": "unlimited",
        "max_open_trades": 3, "dry_run": True, "runmode": RunMode.DRY_RUN,
        "trading_mode": "futures", "candle_type_def": CandleType.SPOT,
        "exchange": {"name": "binance"}, "lstm": {},
    }  # fmt: skip
    strategy = StrategyResolver.load_strategy(config)
    strategy.dp = DataProvider(config, None)
    return strategy


def signals(strategy: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """What a strategy makes of candles, by freqtrade's own steps but for other timeframes."""
    meta = {"pair": PAIR}
    frame = strategy.populate_indicators(frame.copy(), meta)
    frame = strategy.populate_exit_trend(strategy.populate_entry_trend(frame, meta), meta)
    return frame.reindex(columns=SIGNALS)


@pytest.mark.parametrize("module", NAMES)
def test_entries_and_exits_are_the_same_to_the_candle(folder: Path, module: str) -> None:
    name = NAMES[module]
    mixed = folder / f"mixed_{module}"
    mixed.mkdir()
    shutil.copy(folder / f"{module}.py", mixed)
    (mixed / "safer.py").write_text(MIXED.format(module=module, name=name))
    plain, safer = load(folder, name), load(mixed, "Safer")
    candles = make_candles(3_000, seed=4)
    terms = Terms(safer.lstm_settings, 0.001, can_short=True)
    safer._lstm_outlook = lambda given: Outlook(PAIR, given.date_ms, terms)
    # An informative timeframe, as freqtrade would merge it.
    frame = to_frame(candles).assign(fast_1h=2.0, slow_1h=1.0)
    made = signals(plain, frame)
    pd.testing.assert_frame_equal(signals(safer, frame), made)
    assert made["enter_long"].sum() > 0
    for attribute in ("stoploss", "minimal_roi", "trailing_stop", "use_custom_stoploss",
                      "protections", "can_short", "position_adjustment_enable"):  # fmt: skip
        assert getattr(safer, attribute) == getattr(plain, attribute), attribute
