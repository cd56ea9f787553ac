"""`freqtrade-lstm orders` asks the account that the configuration's files name together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from doctor_world import COMPLETE

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_bot_overlay
from lstm_model.commands.main import main
from lstm_model.practice.synthetic import synthetic_market

pytestmark = [
    pytest.mark.usefixtures("same_logging"),
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request"),
]


def test_a_later_file_lies_over_the_earlier_as_it_does_for_a_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A usual config.json is of a dry run and has empty keys; those of money come after it."""
    monkeypatch.chdir(tmp_path)
    Path("user_data").mkdir()
    usual = {**COMPLETE["exchange"], "key": "", "secret": ""}
    Path("config.json").write_text(json.dumps({**COMPLETE, "exchange": usual}))
    with TradingExchange(synthetic_market(seed=1, days=2), {"USDT": "1000"}) as running:
        Path("keys.json").write_text(json.dumps(live_bot_overlay(running.url)))
        words = ["orders", "-c", "config.json", "-c", "keys.json"]
        done = CliRunner().invoke(main, words)
        signed = [request for request in running.truth.requests if "account" in request.path]
    assert "Every position and order on the exchange belongs to a trade." in done.output
    assert done.exit_code == 0
    assert signed
