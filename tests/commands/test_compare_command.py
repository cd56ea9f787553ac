"""How the command `compare` shows what runs, and what it hands on to freqtrade."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from lstm_model.commands import compare as command
from lstm_model.commands.compare_view import Screen
from lstm_model.commands.main import main
from lstm_model.rivals import rivalry

TRAINING = "Training a network on candles until 2024-07-04T00:00Z:  40%, training"


def record(text: str, level: int = logging.INFO, name: str = "lstm_model.bot") -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, (), None)


def shown(lines: list[logging.LogRecord]) -> tuple[str, Screen]:
    """What a screen that is a file is told of these."""
    console = Console(file=io.StringIO(), width=80)
    with Screen(console) as screen:
        screen.begin("as it is")
        screen.progress("backtest", 0.5)
        screen.begin("with [LSTMRisk]")
        for line in lines:
            screen.log.handle(line)
    return console.file.getvalue(), screen  # type: ignore[attr-defined]


def test_each_backtest_is_told_when_it_is_done() -> None:
    text, _ = shown([])
    assert text.splitlines() == [
        "Backtest 1, as it is: done in 0 s", "Backtest 2, with [LSTMRisk]: done in 0 s"
    ]  # fmt: skip


def test_a_warning_is_told_once_and_freqtrades_talk_never() -> None:
    warning = record("Pair [X] was removed", logging.WARNING, "freqtrade")
    text, _ = shown([warning, warning, record("Using data directory", name="freqtrade.data")])
    assert text.count("warning: Pair [X] was removed") == 1
    assert "Using data directory" not in text


def test_the_learner_moves_the_bar() -> None:
    text, screen = shown([record(TRAINING), record("and more")])
    assert f"  {TRAINING}\n" in text
    assert "and more" not in text  # too soon after the other, for a file
    (task,) = screen._bar.tasks
    assert task.completed == 0.4
    assert task.description.startswith("Backtest 2, with [LSTMRisk]: and more")


MINE = """
from freqtrade.strategy import IStrategy

class Mine(IStrategy):
    minimal_roi, stoploss, timeframe = {"0": 0.1}, -0.1, "1h"
    def populate_indicators(self, dataframe, metadata): return dataframe
    def populate_entry_trend(self, dataframe, metadata): return dataframe
    def populate_exit_trend(self, dataframe, metadata): return dataframe
"""


def test_what_is_given_is_handed_on_as_freqtrade_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("u", "p"):
        Path(name).mkdir()
    Path("p", "mine.py").write_text(MINE)
    Path("a.json").write_text('{"dry_run": true}')
    Path("b.json").write_text('{"exchange": {"name": "binance"}}')
    heard: dict[str, Any] = {}

    def contest(args: dict[str, Any], slippage: float, watch: Any) -> None:
        heard.update(args, slippage=slippage)
        raise KeyboardInterrupt

    monkeypatch.setattr(rivalry, "contest", contest)
    words = [
        "compare", "-c", "a.json", "-c", "b.json", "--userdir", "u", "--datadir", "d", "-s", "Mine",
        "--strategy-path", "p", "--timerange", "20240101-", "-i", "1h", "--timeframe-detail", "5m",
        "-p", "BTC/USDT", "-p", "ETH/USDT", "--fee", "0.002", "--enable-protections",
        "--starting-balance", "500", "--stake-amount", "50", "--max-open-trades", "2",
        "--slippage", "0.001",
    ]  # fmt: skip
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 130
    assert result.output == (
        "Stopped. What was trained is kept; the same command goes on from there.\n"
    )
    assert heard == {
        "config": ["a.json", "b.json"], "user_data_dir": "u", "datadir": "d", "strategy": "Mine",
        "strategy_path": "p", "timerange": "20240101-", "timeframe": "1h",
        "timeframe_detail": "5m", "pairs": ["BTC/USDT", "ETH/USDT"], "fee": 0.002,
        "enable_protections": True, "dry_run_wallet": 500.0, "stake_amount": 50.0,
        "max_open_trades": 2, "slippage": 0.001,
    }  # fmt: skip


def test_what_is_not_given_is_left_to_the_configuration() -> None:
    given = command._arguments(("c.json",), None, {"pairs": (), "fee": None, "flag": False})
    assert given == {"config": ["c.json"]}
    assert command._arguments((), None, {"pairs": (), "fee": 0.0})["fee"] == 0.0
