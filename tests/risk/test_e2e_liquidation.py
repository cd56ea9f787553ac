"""Unmodified freqtrade at a leverage of 50: liquidated alone, stopped before it under LSTMRisk."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e import bot_in, closed_trades

from lstm_model.practice.exchange import LoopbackExchange, open_market

pytestmark = [pytest.mark.e2e, pytest.mark.long]

DAYS = 1.1
RECKLESS = """
from freqtrade.strategy import IStrategy
from lstm_model import LSTMRisk

class Reckless(IStrategy):
    timeframe, can_short, stoploss = "1m", True, -0.99
    minimal_roi = {"0": 10.0}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        side = "enter_short" if metadata["pair"].startswith("SOL") else "enter_long"
        return dataframe.assign(**{side: 1})

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def leverage(self, pair, **kwargs):
        return 50.0
"""
SAFER = """
class Safer(LSTMRisk, Reckless):
    pass
"""


def test_a_strategy_that_is_liquidated_alone_is_stopped_before_it(tmp_path: Path) -> None:
    with LoopbackExchange(open_market("synthetic", seed=5, days=7)) as running:
        bot = bot_in(tmp_path, running, "futures")
        outcome = bot.run("download-data", "--days", "7", "-t", "1m")
        assert outcome.code == 0, outcome.text
        since = (datetime.now(UTC) - timedelta(days=DAYS + 0.02)).strftime("%Y%m%d")
        bot = bot.with_lstm(require_skill=False, max_leverage=None, learn_from=since)
        folder = bot.userdir / "reckless"
        folder.mkdir()
        (folder / "reckless.py").write_text(RECKLESS)
        # One class a file: freqtrade's parameter files are by file.
        (folder / "safer.py").write_text(RECKLESS + SAFER)
        now = datetime.now(UTC)
        start, stop = (int((now - timedelta(days=days)).timestamp()) for days in (DAYS, 0.1))
        ended = {}
        for name in ("Reckless", "Safer"):
            outcome = bot.run(
                "backtesting", "--strategy", name, "--strategy-path", str(folder),
                "--export", "trades", "--cache", "none", f"--timerange={start}-{stop}",
            )  # fmt: skip
            assert outcome.code == 0, outcome.text
            assert "no funding rate is known" not in outcome.text
            ended[name] = closed_trades(bot, name)
    alone, safer = (Counter(each["exit_reason"] for each in ended[name]) for name in ended)
    assert alone["liquidation"] > 5
    assert safer["trailing_stop_loss"] > 5
    assert "liquidation" not in safer
    assert {each["is_short"] for each in ended["Safer"]} == {True, False}
    assert {each["leverage"] for each in ended["Safer"]} == {50.0}
    # The stake was made to lose 1 % of the wallet, with costs and a gap.
    lost = [each["profit_abs"] / 1_000.0 for each in ended["Safer"]]
    assert min(lost) > -0.01
