"""The command `compare` on the practice market: real freqtrade, small networks."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser import look_at, needs_browser
from click.testing import CliRunner
from e2e import Bot, Outcome, Running, bot_in, run_lstm
from places import ROOT

from lstm_model.commands.main import main
from lstm_model.practice.exchange import LoopbackExchange, open_market

pytestmark = [pytest.mark.e2e, pytest.mark.long]


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=1, days=5)) as running:
        yield running


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange) -> Bot:
    """A user who has downloaded candles, and bears half a percent per trade."""
    bot = bot_in(tmp_path_factory.mktemp("user"), exchange).with_lstm(
        risk_fraction=0.005, max_epochs=1, finetune_candles=0, train_candles=3_000
    )
    outcome = bot.run("download-data", "--days", "5", "-t", "1m")
    assert outcome.code == 0, outcome.text
    return bot


NOW = datetime.now(UTC)


def words(bot: Bot, *more: str) -> list[str]:
    first, last = (int((NOW - timedelta(days=days)).timestamp()) for days in (0.8, 0.1))
    return [
        "compare", *bot.options("compare"), "--strategy", "MovingAverages",
        "--strategy-path", str(ROOT / "benchmarks" / "archetypes"),
        "--timeframe", "1m", "--timerange", f"{first}-{last}", "--fee", "0.0005", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "page.html"


@pytest.fixture(scope="module")
def compared(bot: Bot, page: Path) -> Outcome:
    return run_lstm(*words(bot, "--slippage", "0.0002", "--report", str(page)))


def row(text: str, name: str) -> list[str]:
    """The cells of a measure in the first table."""
    return re.search(rf"^{name} +(.+)$", text, re.MULTILINE)[1].split()  # type: ignore[index]


def test_four_wallets_stand_side_by_side(compared: Outcome) -> None:
    assert compared.code == 0, compared.text
    trades, profits = row(compared.text, "trades"), row(compared.text, "profit")
    assert len(trades) == len(profits) == 4
    assert int(trades[0]) > 5
    assert trades[1] == trades[0]
    exposures = [float(cell.rstrip("%")) for cell in row(compared.text, "mean exposure")]
    assert exposures[1] < 0.9 * exposures[0]
    assert exposures[2:] == pytest.approx([exposures[1]] * 2, rel=0.011)
    assert "100.0% are made with LSTMRisk too, in the same candle." in compared.text
    assert "Nothing can be proven: it needs 30 days at least, and this is 1 day;" in compared.text
    assert "Traceback" not in compared.text


def test_it_says_what_it_does_and_leaves_out_what_freqtrade_logs(compared: Outcome) -> None:
    assert "Backtest 1, as it is: done in" in compared.text
    assert "Backtest 2, with LSTMRisk: done in" in compared.text
    assert "Using resolved strategy" not in compared.text


def test_the_page_has_the_same_numbers_and_pictures(compared: Outcome, page: Path) -> None:
    html = page.read_text()
    assert str(page) in compared.text
    for cell in row(compared.text, "mean exposure"):
        assert f"<td>{cell}</td>" in html
    assert html.count("<polyline") >= 5
    assert "<script" not in html
    assert "MovingAverages with and without LSTMRisk" in html


@needs_browser
def test_a_browser_draws_the_page_and_complains_of_nothing(compared: Outcome, page: Path) -> None:
    view = look_at(page, 1_000, 2_400)
    assert view.console == ()
    assert view.colours > 100
    for line in ((0x7A, 0x7D, 0x84), (0x1F, 0x5F, 0x8B), (0x7A, 0x4A, 0x8A)):
        assert view.share(line, near=20) > 0.0001


def test_profit_without_slippage_is_what_freqtrade_says(bot: Bot, compared: Outcome) -> None:
    plain = run_lstm(*words(bot))
    _, *arguments = words(bot)
    arguments = arguments[arguments.index("--strategy") :]
    told = bot.run("backtesting", *arguments, "--cache", "none")
    profit = re.search(r"Total profit % +[│|] +(-?[\d.]+)%", told.text)
    assert profit, told.text
    assert float(row(plain.text, "profit")[0].rstrip("%")) == pytest.approx(
        float(profit[1]), abs=0.011
    )
    assert plain.text.count("Training a network") == 0


def test_ctrl_c_ends_it_cleanly(bot: Bot, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lstm_model", *words(bot.with_lstm(units=8))]
    running = Running(command, tmp_path / "log")
    try:
        assert running.wait_for(lambda text: "Backtest 1, as it is: done" in text, 60.0)
    finally:
        code = running.stop(signal.SIGINT)
    assert code == 130, running.text
    assert "Stopped. What was trained is kept" in running.text
    assert "Traceback" not in running.text
    assert running.descendants() == []


def test_what_is_wrong_is_said_in_a_line(bot: Bot, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        return result.output

    ours = told("compare", *bot.options("ours"), "--strategy", "EmaCrossLSTM")
    assert "give the one it is made of: --strategy EmaCross" in ours
    lost = told("compare", *bot.options("lost"), "--strategy", "Nowhere")
    assert "--strategy takes the name of the class" in lost
    assert "does not exist: make it" in told(*words(bot, "--report", str(tmp_path / "no" / "page")))
    assert "Get the candles by `freqtrade download-data -c " in told(*words(bot), "-p", "ETH/USDT")
