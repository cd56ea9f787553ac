"""Configurations are read as freqtrade reads them, and what is wrong is told in a line."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from freqtrade.commands import Arguments
from freqtrade.configuration import setup_utils_configuration
from freqtrade.enums import RunMode
from places import STRATEGIES

from lstm_model.bot.configuration import load_config, parsed_timerange, settings_of
from lstm_model.errors import ConfigError

COMPLETE: dict[str, Any] = {
    "dry_run": True, "stake_currency": "USDT", "timeframe": "5m",
    "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, **changes: Any) -> str:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    config = {**COMPLETE, **changes}
    path.write_text(json.dumps({key: it for key, it in config.items() if it is not ...}))
    return name


def freqtrades(words: Sequence[str]) -> dict[str, Any]:
    """What freqtrade's own command line makes of these words."""
    args = Arguments(["list-data", *words]).get_parsed_arg()
    return dict(setup_utils_configuration(args, RunMode.UTIL_NO_EXCHANGE))


@pytest.mark.parametrize(
    ("files", "words", "named"),
    [
        (["user_data/config.json", "config.json"], [], "user_data/config.json"),
        (["config.json"], [], "config.json"),
        (["user_data/config.json", "config.json", "u/config.json"], ["--userdir", "u"],
         "u/config.json"),
        (["user_data/config.json", "config.json", "u/other.json"], ["--userdir", "u"],
         "config.json"),
        (["config.json", "a.json", "b.json"], ["-c", "a.json", "-c", "b.json"], "b.json"),
    ],
)  # fmt: skip
def test_a_configuration_is_found_where_freqtrade_finds_it(
    files: list[str], words: list[str], named: str
) -> None:
    Path("user_data").mkdir()
    for number, name in enumerate(files):
        write(name, bot_name=name, max_open_trades=number)
    configs = [word for before, word in zip(["", *words], words, strict=False) if before == "-c"]
    userdir = {"user_data_dir": words[1]} if "--userdir" in words else {}
    ours, theirs = load_config(configs, userdir), freqtrades(words)
    assert ours["bot_name"] == theirs["bot_name"] == named
    for key in ("max_open_trades", "user_data_dir", "datadir", "exchange", "timeframe"):
        assert ours[key] == theirs[key], key


def test_a_configuration_may_come_by_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("user_data").mkdir()
    text = Path(write("c.json", timeframe=..., bot_name="piped")).read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert load_config(["-"], {"timeframe": "1h"})["bot_name"] == "piped"


def test_variables_of_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("user_data").mkdir()
    write("config.json", lstm={"horizon": 3})
    monkeypatch.setenv("FREQTRADE__LSTM__LEARN_FROM", "20240101")
    monkeypatch.setenv("FREQTRADE__LSTM__KELLY_FRACTION", "1")
    monkeypatch.setenv("FREQTRADE__LSTM__TRAIN_PAIRS", '["ETH/USDT"]')
    monkeypatch.setenv("FREQTRADE__LSTM__TRADE_STREAM", "false")
    monkeypatch.setenv("FREQTRADE__TIMEFRAME", "1h")
    config = load_config([], {})
    assert config["lstm"]["learn_from"] == 20240101, "a number, as freqtrade hands it over"
    settings = settings_of(config)
    assert (settings.learn_from, settings.kelly_fraction) == ("20240101", 1.0)
    assert (settings.train_pairs, settings.trade_stream) == (("ETH/USDT",), False)
    assert (settings.horizon, config["timeframe"]) == (3, "1h")


def test_a_text_that_freqtrade_takes_for_a_number_is_a_text_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("user_data").mkdir()
    write("config.json", timeframe="5m")
    monkeypatch.setenv("FREQTRADE__LSTM__STORE_DIR", "2026")
    monkeypatch.setenv("FREQTRADE__LSTM__TRAIN_PYTHON", "3.11")
    monkeypatch.setenv("FREQTRADE__LSTM__TRAIN_PAIRS", "ETH/USDT, BTC/USDT")
    settings = settings_of(load_config([], {}))
    assert (settings.store_dir, settings.train_python) == ("2026", "3.11")
    assert settings.train_pairs == ("ETH/USDT", "BTC/USDT")


def test_a_pair_that_is_named_twice_is_learnt_from_once() -> None:
    pairs = ["ETH/USDT", "BTC/USDT", "ETH/USDT"]
    settings = settings_of({"timeframe": "5m", "lstm": {"train_pairs": pairs}})
    assert settings.train_pairs == ("ETH/USDT", "BTC/USDT")


def test_what_should_be_a_list_is_called_one() -> None:
    with pytest.raises(ConfigError, match="train_pairs: Input should be a list, found 5"):
        settings_of({"timeframe": "5m", "lstm": {"train_pairs": 5}})


@pytest.mark.parametrize("text", ["BTC/USDT;ETH/USDT", "null", '["BTC/USDT"', ",", "", ".*/USDT"])
def test_what_is_no_pair_is_not_left_out_silently(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    Path("user_data").mkdir()
    write("config.json", timeframe="5m")
    monkeypatch.setenv("FREQTRADE__LSTM__TRAIN_PAIRS", text)
    with pytest.raises(ConfigError, match=r"train_pairs.\d: must be called like \"BTC/USDT\""):
        settings_of(load_config([], {}))


STRATEGY = """
from freqtrade.strategy import IStrategy

class {name}(IStrategy):
    minimal_roi, stoploss = {{"0": 0.1}}, -0.1
    {body}
    def populate_indicators(self, dataframe, metadata): return dataframe
    def populate_entry_trend(self, dataframe, metadata): return dataframe
    def populate_exit_trend(self, dataframe, metadata): return dataframe
"""


def strategy(name: str, body: str, folder: str = "user_data/strategies") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, f"{name.lower()}.py").write_text(STRATEGY.format(name=name, body=body))


def test_without_a_timeframe_the_strategys_counts() -> None:
    strategy("Hourly", 'timeframe = "1h"')
    strategy("Elsewhere", 'timeframe = "15m"', folder="more")
    strategy("LSTMStrategy", 'timeframe = "5m"')
    bare, named = write("a.json", timeframe=...), write("b.json", timeframe=..., strategy="Hourly")
    given = write("c.json", timeframe="4h", strategy="Hourly")
    assert load_config([bare], {})["timeframe"] == "5m"
    assert load_config([named], {})["timeframe"] == "1h"
    assert load_config([named], {"strategy": "LSTMStrategy"})["timeframe"] == "5m"
    assert load_config([named], {"timeframe": "1d"})["timeframe"] == "1d"
    assert load_config([given], {})["timeframe"] == "4h"
    elsewhere = {"strategy": "Elsewhere", "strategy_path": "more"}
    assert load_config([bare], elsewhere)["timeframe"] == "15m"
    assert "minimal_roi" not in load_config([named], {}), "nothing else of the strategy's"


def test_our_own_strategy_names_the_timeframe(here: Path) -> None:
    (here / "user_data").mkdir()
    (here / "user_data" / "strategies").symlink_to(STRATEGIES)
    assert load_config([write("a.json", timeframe=...)], {})["timeframe"] == "5m"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", "and the strategy neither"),
        ('timeframe = ""', "and the strategy neither"),
        ("def __init__(self, config): raise KeyError('mine')", "'mine'"),
        ("timeframe = 1 / 0", "division by zero"),
        ("timeframe = nonsense", "'nonsense' is not defined|Impossible to load"),
        ("timeframe = = ", "Impossible to load"),
        ('timeframe, can_short = "5m", True', "Short strategies cannot run in spot"),
    ],
)
def test_a_strategy_without_a_timeframe_is_named(body: str, told: str) -> None:
    strategy("Mine", body)
    with pytest.raises(ConfigError, match=rf'^the configuration has no "timeframe", .*{told}'):
        load_config([write("a.json", timeframe=..., strategy="Mine")], {})


WRONG = [
    ({"exchange": ...}, "'exchange' is a required property"),
    ({"exchange": None}, "exchange must be a section in braces, found None"),
    ({"exchange": []}, r"exchange must be a section in braces, found \[\]"),
    ({"exchange": "binance"}, "exchange must be a section in braces, found 'binance'"),
    ({"exchange": {}}, "'name' is a required property"),
    ({"exchange": {"name": ""}}, "names no exchange"),
    ({"exchange": {"name": 5}}, "exchange.name: 5 is not of type 'string'"),
    ({"exchange": {"name": "nowhere"}}, 'Exchange "nowhere" is not known'),
    ({"timeframe": None}, "timeframe: None is not of type 'string'"),
    ({"timeframe": 5}, "timeframe: 5 is not of type 'string'"),
    ({"trading_mode": "x"}, "trading_mode: 'x' is not one of"),
    (
        {"user_data_dir": 5},
        "a.json cannot be used: user_data_dir must be the path of a folder, found",
    ),
    ({"user_data_dir": "no/such"}, "create-userdir"),
    ({"add_config_files": 5}, "'int' object is not iterable"),
    ({"add_config_files": ["no.json"]}, 'no.json" not found'),
    ({"pairlists": [5]}, r"pairlists\[0\]: 5 is not of type 'object'"),
]


@pytest.mark.parametrize(("changes", "told"), WRONG)
def test_what_is_wrong_is_told_in_a_line(
    changes: dict[str, Any], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("user_data").mkdir()
    logging.basicConfig(force=True)
    try:
        with pytest.raises(ConfigError, match=told) as caught:
            load_config([write("a.json", **changes)], {})
    finally:
        logging.root.handlers.clear()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "text", ["null", "[]", '"x"', "5", "{", "", b'{"a": "\xff"}', "{}", "[" * 9_999]
)
def test_a_file_that_is_no_configuration_is_named(text: str | bytes) -> None:
    Path("user_data").mkdir()
    Path("a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(["a.json"], {})
    assert re.search("a.json|segment|syntax", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [2, 3])
def test_of_a_broken_file_the_line_is_told_but_nothing_of_what_is_in_it(line: int) -> None:
    """freqtrade shows the text around, where keys and passwords may stand."""
    Path("user_data").mkdir()
    lines = ["{", '"exchange": {"name": "binance", "secret": "PLANTED"},', '"dry_run": true', "}"]
    lines[line - 1] = lines[line - 1].replace('"name": ', '"name" ').replace("true", "yes")
    Path("b.json").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_config([write("a.json"), "b.json"], {})
    assert str(caught.value).startswith(f"b.json cannot be read: Parse error in line {line}: ")
    assert "PLANTED" not in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"a.json cannot be .* in a file that it adds: "
    ) as caught:
        load_config([write("a.json", add_config_files=["b.json"])], {})
    assert "PLANTED" not in str(caught.value)


def test_nor_is_it_told_by_a_freqtrade_to_come_whose_words_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lstm_model.bot.insides.SEGMENT", "Please look at this")
    Path("user_data").mkdir()
    Path("b.json").write_text('{"exchange": {"name" "binance", "secret": "PLANTED"}}')
    with pytest.raises(ConfigError) as caught:
        load_config(["b.json"], {})
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("in_the_way", ["user_data/data", "user_data/logs"])
def test_a_file_in_the_way_of_freqtrades_folders_is_named(in_the_way: str) -> None:
    Path("user_data").mkdir()
    Path(in_the_way).write_text("")
    with pytest.raises(ConfigError, match=in_the_way):
        load_config([write("a.json")], {})


@pytest.mark.parametrize("text", ["x", "2024-", "99999999-", "20240101-20230101", "20241301-", "-"])
def test_a_time_range_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f'"{text}" is no time range'):
        parsed_timerange(text)
