"""A practice exchange with an account, served by the command, and the bot's way to it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from pathlib import Path

import ccxt
import pytest
from click.testing import CliRunner
from e2e import Running

from lstm_model.commands.main import main

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.mark.e2e
@pytest.mark.parametrize(("mode", "flags"), [("spot", []), ("futures", ["--futures"])])
def test_an_account_is_served_and_led_to(tmp_path: Path, mode: str, flags: list[str]) -> None:
    command = [sys.executable, "-m", "lstm_model", "exchange", "--port", "0", "--days", "1"]
    served = Running([*command, "--account", "250", *flags], tmp_path / "log")
    try:
        assert served.wait_for(lambda text: "freqtrade trade" in text, 60.0), served.text
        written = next(line for line in served.text.splitlines() if " echo " in line)
        text, file = re.fullmatch(r" *echo (.*) > (\S+)", written, re.DOTALL).groups()
        overlay = json.loads(shlex.split(text)[0])
        assert f"-c {file}" in served.text
        assert re.fullmatch(r"user_data/config-loopback(-futures)?-live-\d+\.json", file)
        assert (overlay["dry_run"], overlay["trading_mode"]) == (False, mode)
        told = overlay["exchange"]
        keys = {"apiKey": told["key"], "secret": told["secret"]}
        client = ccxt.binance({**keys, **told["ccxt_config"]})
        client.options["defaultType"] = "swap" if mode == "futures" else "spot"
        assert client.fetch_balance()["USDT"]["free"] == 250.0
        client.session.close()
    finally:
        assert served.stop(signal.SIGINT) == 0, served.text
    assert served.tracebacks() == []


def test_a_kind_of_account_without_one_is_refused() -> None:
    done = CliRunner().invoke(main, ["exchange", "--futures"])
    assert done.exit_code == 2
    assert "--account" in done.output
