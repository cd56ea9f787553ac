"""`freqtrade-lstm init` in an empty folder, then the commands that it prints: a first forecast."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import Running, run_lstm

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay

pytestmark = pytest.mark.e2e

PAIRS = ["BTC/USDT", "XRP/USDT"]  # the only thing that is changed
DAYS = {"5m": 40, "15m": 50, "1h": 100}  # up to 28 since the last retraining, and some before
OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in DAYS if name != "5m"]


@pytest.fixture(scope="module", params=["5m", *OTHERS])
def timeframe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def exchange(timeframe: str) -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=1, days=DAYS[timeframe])) as running:
        yield running


def start(command: str, overlay: Path, log: Path) -> Running:
    """One of the printed commands, with the practice exchange's address."""
    program, *words = shlex.split(command)
    module = {"freqtrade": "freqtrade", "freqtrade-lstm": "lstm_model"}[program]
    return Running([sys.executable, "-m", module, *words, "-c", str(overlay)], log)


def test_the_printed_commands_lead_to_the_first_forecast(
    tmp_path: Path, timeframe: str, exchange: LoopbackExchange
) -> None:
    userdir = tmp_path / "user_data"
    userdir.mkdir()
    printed = run_lstm("init", "--userdir", str(userdir), folder=tmp_path)
    assert printed.code == 0, printed.text
    config = userdir / "config.json"
    text = re.sub(
        r'"pair_whitelist": \[.*\]', f'"pair_whitelist": {json.dumps(PAIRS)}', config.read_text()
    )
    config.write_text(text.replace('"timeframe": "5m"', f'"timeframe": "{timeframe}"'))
    printed = run_lstm("init", "--userdir", str(userdir), folder=tmp_path)
    *before, trade = (line for line in printed.text.splitlines() if line.startswith("  freqtrade"))

    overlay = tmp_path / "address.json"
    database = {"db_url": f"sqlite:///{tmp_path}/trades.sqlite"}
    overlay.write_text(json.dumps({**loopback_overlay(exchange.url), **database}))
    for number, command in enumerate(before):
        done = start(command, overlay, tmp_path / f"{number}.log")
        assert done.process.wait(240) == 0, done.text
    trading = start(trade, overlay, tmp_path / "trade.log")
    try:
        assert trading.wait_for(lambda log: forecast(log) == {*PAIRS}, 90), trading.text
    finally:
        assert trading.stop() in (0, 130)
    assert trading.tracebacks() == []
    assert re.search(
        rf"With candles of {timeframe}: train_candles [\d,]+ \(730 days\)", trading.text
    )


def forecast(log: str) -> set[str]:
    return set(re.findall(r"(\S+/USDT) \S+: next 12 candles .* bps, 90% in", log))
