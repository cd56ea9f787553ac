"""Configurations as nobody should find them; see `fuzz_inputs.py`."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from oddities import Inputs, answers, bytes_changed, odd, tree_changed

from lstm_model.bot import assembly, configuration, reading
from lstm_model.bot.named import files_of, words_of
from lstm_model.settings import Settings, parse_settings

COMPLETE: dict[str, Any] = {
    "dry_run": True, "stake_currency": "USDT", "stake_amount": 10, "max_open_trades": 3,
    "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"], "pair_blacklist": []},
    "pairlists": [{"method": "StaticPairList"}], "timeframe": "5m", "trading_mode": "spot",
    "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
    "telegram": {"enabled": False, "token": "", "chat_id": ""}, "fee": 0.001,
}  # fmt: skip
FRAMES_MS = (60_000, 300_000, 3_600_000, 86_400_000, 2_592_000_000)
TIMEFRAMES: tuple[Any, ...] = (
    "1m", "5m", "1h", "1d", "", "0m", "5", "5x", 5, None, "5m\n", [], "9" * 40 + "d", "٣m", True,
)  # fmt: skip
WORDS = (
    "nan", "inf", "-1", "0", "20240101", "00000000", "99999999", "20240230", "true", "None", "[]",
    "[0.1,0.5,0.9]", "{}", "{", "1e999", "1" * 5_000, "a/b", "-", "../x", "🦄", "strategy", "",
)  # fmt: skip
NUMBERS = (0, 1, -1, 8, 16, 500, 501, 0.5, 0.49999999, 1e-320, 1e308, 10**9, 2**31, 2**63, 10**400,
           float("nan"), float("inf"), -float("inf"), True)  # fmt: skip
SECRET = "s3cret-p4ss"  # noqa: S105 - planted, to see that no message shows it


class Options(Inputs):
    """The `lstm` section with every option in it, and a configuration around it."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "config.json"
        self.section: dict[str, Any] = parse_settings({}).model_dump(mode="json")
        self.section |= {"train_python": None, "journal_url": None}
        (root / "user_data").mkdir()

    def case(self, draw: random.Random) -> str:
        """Damage, read; the kind of the case."""
        kinds: dict[str, Callable[[random.Random], Any]] = {
            "section": self._a_section, "pairs": self._pairs, "configuration": self._a_config,
            "file": self._a_file,
        }  # fmt: skip
        kind = draw.choices(list(kinds), [20, 10, 10, 1])[0]
        kinds[kind](draw)
        return kind

    def _changed(self, draw: random.Random) -> Any:
        """A section with some odd values, of those options that it names."""
        if not draw.randrange(50):
            return odd(draw)
        names = draw.sample(sorted(self.section), draw.choice([0, 1, 2, 5, len(self.section)]))
        section = {name: json.loads(json.dumps(self.section[name])) for name in names}
        for _ in range(draw.choice([1, 1, 2, 4])):
            name = draw.choice([*self.section, draw.choice(WORDS)])
            section[name] = _value(draw)
        return tree_changed(section, draw) if not draw.randrange(3) else section

    def _a_section(self, draw: random.Random) -> None:
        section, candle_ms = self._changed(draw), draw.choice(FRAMES_MS)
        found = answers(lambda: parse_settings(section, candle_ms))
        if found is not None:
            _usable(found)

    def _config(self, draw: random.Random) -> dict[str, Any]:
        config = json.loads(json.dumps(COMPLETE))
        config["lstm"] = self._changed(draw) if draw.randrange(3) else {}
        if not draw.randrange(3):
            config["timeframe"] = draw.choice(TIMEFRAMES)
        return {**config, "user_data_dir": self.root / "user_data", "datadir": self.root,
                "config_files": [str(self.path)]}  # fmt: skip

    def _pairs(self, draw: random.Random) -> None:
        """Pairs and lists of them that freqtrade's schema lets through."""
        config = self._config(draw)
        names = ["BTC/USDT", ".*/USDT", "", "*", "(", "BTC/USDT:USDT", "a b", "🦄/USDT", "x" * 300]
        listed = draw.sample(names, draw.randrange(4))
        config["exchange"]["pair_whitelist"] = listed
        if draw.randrange(2):
            config["pairs"] = draw.choice([None, [], listed, ["ETH/USDT"]])
        if draw.randrange(2):
            method = draw.choice(["StaticPairList", "VolumePairList", "", "no such"])
            config["pairlists"] = draw.choice([[], [{"method": method}], [{"method": method}] * 3])
        _read(config, draw.choice([[], ["BTC/USDT"]]))

    def _a_config(self, draw: random.Random) -> None:
        _read(self._config(draw), ["BTC/USDT"])

    def _a_file(self, draw: random.Random) -> None:
        """Files, what they add, and the environment, as a command reads them."""
        config = json.loads(json.dumps(COMPLETE)) | {"lstm": self._changed(draw)}
        kind = draw.randrange(4)
        if kind == 0:
            config = tree_changed(config, draw)
        elif kind == 1:
            config["add_config_files"] = draw.choice([["other.json"], ["no.json"], "x", [1], None])
        content = json.dumps(config).encode()
        if kind == 2 and content:
            content = bytes_changed(content, draw)
        self.path.write_bytes(content)
        (self.root / "other.json").write_bytes(json.dumps({"lstm": self._changed(draw)}).encode())
        variables = _variables(draw, sorted(self.section)) if not draw.randrange(3) else {}
        overrides = {"user_data_dir": str(self.root / "user_data")}
        with mock.patch.dict(os.environ, variables):
            answers(lambda: reading.read_config(self.path))
            found = answers(lambda: configuration.load_config([str(self.path)], overrides))
        if found is not None:
            _read(found, [])


def _value(draw: random.Random) -> Any:
    urls = (f"postgresql://bot:{SECRET}@host/x", f"mysql://bot:{SECRET}@host", f"sqlite://{SECRET}")
    return draw.choice([
        lambda: odd(draw), lambda: draw.choice(NUMBERS), lambda: draw.choice(WORDS),
        lambda: [draw.choice(NUMBERS) for _ in range(draw.randrange(5))],
        lambda: sorted(draw.random() for _ in range(3)), lambda: draw.choice(urls),
        lambda: draw.randrange(1_000), lambda: draw.random(),
    ])()  # fmt: skip


def _variables(draw: random.Random, options: list[str]) -> Mapping[str, str]:
    """The environment's, as freqtrade reads them into the configuration."""
    names = [
        *(f"LSTM__{name.upper()}" for name in options), "LSTM", "LSTM__", "LSTM__A__B", "TIMEFRAME",
        "LSTM__LEVELS__0", "EXCHANGE", "EXCHANGE__PAIR_WHITELIST", "EXCHANGE__NAME",
    ]  # fmt: skip
    return {
        f"FREQTRADE__{draw.choice(names)}": draw.choice(WORDS) for _ in range(draw.randrange(1, 4))
    }


def _usable(settings: Settings) -> None:
    """What everybody counts on of options that were let through."""
    assert settings.digest() != settings.learning_digest() != settings.finetune_digest()
    assert settings.learn_from_ms is None or isinstance(settings.learn_from_ms, int)
    assert settings.step_candles > settings.training_lag_candles + settings.horizon
    assert all(0.0 < level < 1.0 for level in settings.levels)
    again = parse_settings(settings.model_dump(mode="json"))
    assert again.digest() == settings.digest()


def _read(config: dict[str, Any], whitelist: list[str]) -> None:
    """What a bot and a command ask of a configuration before it trades."""
    settings = answers(lambda: configuration.settings_of(config))
    if settings is None:
        return
    _usable(settings)
    pairs = configuration.training_pairs(config, settings, whitelist)
    assert configuration.no_pairs(config)
    assert isinstance(configuration.makes_pairs(config), bool)
    assert files_of(config)
    assert isinstance(words_of(config), str)
    assert configuration.lineage(config, settings)
    answers(lambda: assembly.describe_times(config, settings))
    answers(lambda: configuration.taker_fee(config, None, "BTC/USDT"))
    answers(lambda: assembly.open_learning(config, settings, whitelist))
    journal = answers(lambda: configuration.journal_of(config, settings))
    if journal is not None:
        assert SECRET not in journal.place or journal.place.startswith("sqlite")
        configuration.spool_path(config, settings, journal.database)
        journal.close()
    assert all(isinstance(pair, str) for pair in pairs)
