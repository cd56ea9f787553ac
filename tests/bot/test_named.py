"""What is told names the files that the user gave, and a hint's command is one to be copied."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from freqtrade.commands import Arguments
from freqtrade.configuration import setup_utils_configuration
from freqtrade.enums import RunMode
from places import needs_tensorflow

from lstm_model.bot.configuration import load_config
from lstm_model.bot.named import files_of, words_of
from lstm_model.commands.main import main

COMPLETE: dict[str, Any] = {
    "dry_run": True, "stake_currency": "USDT", "timeframe": "5m",
    "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"]},
}  # fmt: skip
COMMANDS = [
    ["train"], ["models"], ["trainer"], ["reasons"], ["coverage"], ["download-flow"],
    ["models", "show", "a"], ["verify", "--journal"], ["trainer", "--install"],
    ["verify", "--from", "2024-07-01", "--to", "2024-07-02", "--data", "synthetic"],
    ["replay", "--from", "2024-07-01", "--to", "2024-07-02", "--data", "synthetic"],
    ["compare", "--strategy", "X", "--timerange", "20240101-"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("user_data", "u", "my data", "candles"):
        (tmp_path / folder).mkdir()
    return tmp_path


pytestmark = pytest.mark.usefixtures("same_logging")


def write(name: str, **config: Any) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(json.dumps(config))
    return name


def called(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_a_configuration_it_is_said_how_to_have_one(words: list[str]) -> None:
    done = called(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert "there is no file config.json: name yours with -c, or make one with" in done.stderr
    assert "`freqtrade-lstm init --userdir user_data`" in done.stderr
    told = called(*words, "-c", "my own.json", "--userdir", "my data").stderr
    assert "there is no file my own.json" in told
    assert "`freqtrade-lstm init --userdir 'my data'`" in told


@pytest.mark.parametrize("userdir", [None, "my data"])
def test_where_there_is_no_folder_either_both_commands_are_named_in_their_order(
    userdir: str | None,
) -> None:
    folder = userdir or "user_data"
    options = ("--userdir", userdir) if userdir else ()
    Path(folder).rmdir()
    make, fill = told_commands(called("train", *options).stderr)
    assert shlex.split(make) == ["freqtrade", "create-userdir", "--userdir", folder]
    assert shlex.split(fill) == ["freqtrade-lstm", "init", "--userdir", folder]
    Path(folder).mkdir()
    assert told_commands(called("train", *options).stderr) == [fill]


def told_commands(text: str) -> list[str]:
    return text.split("`")[1::2]


@pytest.mark.parametrize("section", [5, {"horizn": 3}, {"train_candles": 1_000, "horizon": 100}])
def test_a_wrong_section_is_told_with_the_files_that_were_given(section: object) -> None:
    write("base.json", **COMPLETE)
    write("mine.json", lstm=section)
    told = called("train", "-c", "base.json", "-c", "mine.json").stderr
    assert told.startswith("Error: base.json, mine.json")
    assert "config.json" not in told


def test_init_names_the_file_that_it_found_something_wrong_in() -> None:
    write("user_data/config.json", **COMPLETE, lstm={"horizn": 3})
    told = called("init", "--userdir", "user_data").stderr
    assert told.startswith('Error: user_data/config.json, section "lstm": unknown option "horizn"')


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ([], {}),
        (["base.json", "over.json"], {}),
        (["over.json", "base.json"], {"user_data_dir": "u"}),
        (["my own/over.json", "adds.json"], {"user_data_dir": "my data", "datadir": "candles"}),
    ],
)
def test_the_words_of_a_hint_name_the_same_configuration_to_freqtrade(
    files: list[str], options: dict[str, str]
) -> None:
    write("config.json", **COMPLETE)
    write("base.json", **COMPLETE, bot_name="base")
    for name in ("over.json", "my own/over.json"):
        write(name, bot_name=name, max_open_trades=len(name))
    write("adds.json", add_config_files=["base.json"], dry_run_wallet=7, bot_name="adds")
    config = load_config(files, options)
    words = words_of(config)
    assert words.startswith(" -c ")
    assert ("--userdir" in words, "--datadir" in words) == (
        "user_data_dir" in options, "datadir" in options,
    )  # fmt: skip
    asked = Arguments(["download-data", *shlex.split(words), "--days", "1"]).get_parsed_arg()
    found = setup_utils_configuration(asked, RunMode.UTIL_NO_EXCHANGE)
    keys = ("bot_name", "max_open_trades", "dry_run_wallet", "exchange", "datadir")
    assert {key: found.get(key) for key in keys} == {key: config.get(key) for key in keys}
    assert Path(found["user_data_dir"]).resolve() == Path(config["user_data_dir"]).resolve()
    if "adds.json" not in files:
        assert files_of(config) == (", ".join(files) or "config.json")


@needs_tensorflow  # elsewhere tests are lent a Python that trains
def test_the_hint_to_install_a_trainer_can_be_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("my own.json", **COMPLETE)
    monkeypatch.setattr("lstm_model.training.interpreter._candidates", lambda _: iter(()))
    told = called("trainer", "-c", "my own.json").stderr
    assert "Run `freqtrade-lstm trainer --install -c 'my own.json'`, or name" in told


def test_the_hint_to_download_candles_can_be_copied() -> None:
    write("my own.json", **COMPLETE)
    told = called("train", "-c", "my own.json", "--datadir", "my data").stderr
    begin = "`freqtrade download-data -c 'my own.json' --datadir 'my data' --timeframes 5m "
    assert begin in told
