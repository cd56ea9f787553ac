"""No command shows what a configuration keeps secret, whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doctor_world import COMPLETE
from test_strangers import COMMANDS, words_of

from lstm_model.commands.main import main

pytestmark = pytest.mark.usefixtures("same_logging")

EXCHANGE = COMPLETE["exchange"]
SERVER = {
    "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": 8080, "username": "me",
    "password": "PLANTED-1", "jwt_secret_key": "PLANTED-2" * 5,
}  # fmt: skip
NUMBER = 4_242_424_242
SPOILT: list[dict[str, Any]] = [
    {"exchange": {**EXCHANGE, "secret": NUMBER}},
    {"exchange": {**EXCHANGE, "key": ["PLANTED", {"of": "PLANTED-3"}]}},
    {"exchange": {**EXCHANGE, "password": {"is": NUMBER}}},
    {"exchange": {**EXCHANGE, "uid": NUMBER}},
    {"exchange": [{"secret": "PLANTED"}]},
    {"exchange": {**EXCHANGE, "ccxt_config": [{"apiKey": "PLANTED"}]}},
    {"exchange": {**EXCHANGE, "secret": "PLANTED"}, "lstm": {"horizon": "PLANTED"}},
    {"exchange": {**EXCHANGE, "secret": "PLANTED"}, "strategy": "PLANTED"},
    {"exchange": {**EXCHANGE, "secret": "PLANTED", "name": "PLANTED"}},
    {"api_server": {**SERVER, "jwt_secret_key": "PLANTED"}},
    {"api_server": {**SERVER, "ws_token": NUMBER}},
    {"api_server": {**SERVER, "ws_token": [NUMBER]}},
    {"api_server": {**SERVER, "listen_port": "PLANTED-1"}},
    {"telegram": {"enabled": True, "token": NUMBER, "chat_id": "5"}},
    {"telegram": [{"token": "PLANTED"}]},
]
OF_BOT = sorted(
    path for path, command in COMMANDS.items()
    if any("--config" in parameter.opts for parameter in command.params)
)  # fmt: skip


def leaks(text: str) -> bool:
    return "PLANTED" in text or str(NUMBER) in text


@pytest.mark.lengthy
@pytest.mark.parametrize("path", OF_BOT, ids=" ".join)
def test_no_command_tells_a_secret_of_a_broken_configuration(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user_data").mkdir()
    for changes in SPOILT:
        Path("secret.json").write_text(json.dumps({**COMPLETE, **changes}))
        done = CliRunner().invoke(main, words_of(path, ["-c", "secret.json"]))
        assert not leaks(done.output), (changes, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), changes


def test_of_the_standard_input_and_the_environment_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither can be read again once something is wrong."""
    monkeypatch.chdir(tmp_path)
    Path("user_data").mkdir()
    for changes in SPOILT[:2]:
        told = json.dumps({**COMPLETE, **changes})
        done = CliRunner().invoke(main, ["reasons", "-c", "-"], input=told)
        assert "exchange." in done.output
        assert not leaks(done.output), done.output
    monkeypatch.setenv("FREQTRADE__EXCHANGE__SECRET", str(NUMBER))
    Path("config.json").write_text(json.dumps(COMPLETE))
    done = CliRunner().invoke(main, ["orders"])
    assert "Error: exchange.secret: *** is not of type 'string'" in done.output


def test_what_is_wrong_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user_data").mkdir()
    Path("a.json").write_text(json.dumps({**COMPLETE, "max_open_trades": "PLANTED"}))
    done = CliRunner().invoke(main, ["orders", "-c", "a.json"])
    assert "Error: max_open_trades: 'PLANTED' is not of type" in done.output
