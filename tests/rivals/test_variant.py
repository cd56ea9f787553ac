"""A class in front of a user's strategy, whatever its file looks like. The real thing: e2e."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from freqtrade.enums import CandleType, RunMode
from freqtrade.exceptions import OperationalException, StrategyError
from freqtrade.resolvers import StrategyResolver
from series import make_candles, to_frame

from lstm_model.bot import insides
from lstm_model.errors import ConfigError
from lstm_model.rivals import variant
from lstm_model.rivals.variant import plain, with_risk, with_stake

HEAD = """
from freqtrade.strategy import IStrategy, IntParameter, informative
from sibling import PERIOD
from lstm_model import LSTMForecasts, LSTMRisk

class Base(IStrategy):
    timeframe = "5m"
    stoploss = -0.1
    minimal_roi = {"0": 1.0}
    buy_period = IntParameter(1, 100, default=PERIOD, space="buy")
    def populate_indicators(self, dataframe, metadata):
        return dataframe
    def populate_entry_trend(self, dataframe, metadata):
        return dataframe
    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
    @informative("1h")
    def populate_indicators_1h(self, dataframe, metadata):
        return dataframe
"""
SIGNATURES = {
    "none": "    pass",
    "short": "    def custom_stake_amount(self, proposed_stake, **kwargs):\n        return 40.0",
    "kwargs": "    def custom_stake_amount(self, **kwargs):\n        return 40.0",
    "whole": """    def custom_stake_amount(self, pair, current_time, current_rate, proposed_stake,
                            min_stake, max_stake, leverage, entry_tag, side, **kwargs):
        return 40.0""",
    "nothing": "    def custom_stake_amount(self, **kwargs):\n        return None",
    "raises": "    def custom_stake_amount(self, **kwargs):\n        raise KeyError('mine')",
}
WANTED = {"none": 100.0, "short": 40.0, "kwargs": 40.0, "whole": 40.0, "nothing": None,
          "raises": 100.0}  # fmt: skip


def written(folder: Path, body: str, bases: str = "Base") -> dict[str, Any]:
    """A configuration whose strategy is this one."""
    (folder / "sibling.py").write_text("PERIOD = 12\n")
    (folder / "mine.py").write_text(f"{HEAD}\nclass Mine({bases}):\n{body}\n")
    return {
        "strategy": "Mine", "strategy_path": str(folder), "user_data_dir": folder,
        "stake_currency": "USDT", "stake_amount": "unlimited", "max_open_trades": 3,
        "dry_run": True, "runmode": RunMode.BACKTEST, "trading_mode": "spot",
        "candle_type_def": CandleType.SPOT, "exchange": {"name": "binance"}, "lstm": {},
    }  # fmt: skip


def loaded(config: dict[str, Any], make: variant.Make) -> Any:
    with variant._found_as(make):
        return StrategyResolver.load_strategy(config)


def stake(strategy: Any) -> Any:
    return strategy.custom_stake_amount(
        pair="BTC/USDT", current_time=datetime(2024, 7, 1, tzinfo=UTC), current_rate=10.0,
        proposed_stake=100.0, min_stake=5.0, max_stake=500.0, leverage=1.0, entry_tag="mine",
        side="long",
    )  # fmt: skip


@pytest.mark.parametrize("body", SIGNATURES)
def test_theirs_is_asked_in_every_signature_and_scaled(tmp_path: Path, body: str) -> None:
    asked: list[tuple[str, int]] = []

    def scale(pair: str, now_ms: int) -> float:
        asked.append((pair, now_ms))
        return 0.5

    made = loaded(written(tmp_path, SIGNATURES[body]), with_stake(scale))
    wanted = WANTED[body]
    assert stake(made) == (wanted and wanted / 2)
    assert asked == ([("BTC/USDT", 1_719_792_000_000)] if wanted else [])


@pytest.mark.parametrize("make", [plain, with_risk, with_stake(lambda pair, now_ms: 1.0)])
def test_the_parameters_beside_a_strategy_apply_to_all(tmp_path: Path, make: variant.Make) -> None:
    config = written(tmp_path, SIGNATURES["none"])
    params = {"buy": {"buy_period": 77}, "stoploss": {"stoploss": -0.033}}
    (tmp_path / "mine.json").write_text(json.dumps({"strategy_name": "Mine", "params": params}))
    made = loaded(config, make)
    made.ft_load_hyper_params()
    assert made.buy_period.value == 77
    assert made.stoploss == -0.033
    assert made.get_strategy_name() == "Mine"
    assert made.timeframe == "5m"


def test_a_strategy_with_the_mixin_is_refused_and_the_one_below_is_named(tmp_path: Path) -> None:
    for make in (plain, with_risk, with_stake(lambda pair, now_ms: 1.0)):
        with pytest.raises(ConfigError, match="give the one it is made of: --strategy Base"):
            loaded(written(tmp_path, SIGNATURES["none"], "LSTMRisk, Base"), make)


def test_one_that_is_nothing_without_the_mixin_is_refused(tmp_path: Path) -> None:
    body = "    timeframe = '5m'\n    stoploss = -0.1\n    minimal_roi = {}"
    with pytest.raises(ConfigError, match="give a strategy that trades without it"):
        loaded(written(tmp_path, body, "LSTMRisk, IStrategy"), plain)


def test_one_with_the_columns_alone_is_taken(tmp_path: Path) -> None:
    config = written(tmp_path, SIGNATURES["short"], "LSTMForecasts, Base")
    assert stake(loaded(config, plain)) == 40.0
    assert hasattr(loaded(config, with_risk), "lstm_stake_for")


def test_afterwards_freqtrade_finds_what_is_there(tmp_path: Path) -> None:
    config = written(tmp_path, SIGNATURES["short"])
    with pytest.raises(OperationalException, match="Nowhere"):
        loaded({**config, "strategy": "Nowhere"}, with_risk)
    assert "_search_object" not in vars(StrategyResolver)
    assert not hasattr(StrategyResolver.load_strategy(config), "lstm_stake_for")


class Mute:
    """A watch that looks away."""

    log = logging.NullHandler()

    def begin(self, title: str) -> None:
        pass

    def progress(self, doing: str, share: float) -> None:
        pass


def test_what_freqtrade_refuses_is_one_line(tmp_path: Path) -> None:
    handlers = logging.root.handlers[:]
    with pytest.raises(ConfigError, match=r"the backtest failed: .*nowhere\.json"):
        variant.backtest_as(plain, {"config": [str(tmp_path / "nowhere.json")]}, Mute())
    assert logging.root.handlers == handlers


def test_advice_is_given_where_freqtrade_gives_none() -> None:
    args = {"config": ["a b.json", "c.json"]}
    advice = variant._advice("No data found. Terminating.", args)
    assert "`freqtrade download-data -c 'a b.json' -c c.json`" in advice
    assert "--prepend" in advice  # or it asks from the newest candle on
    refused = "Pairlist Handlers VolumePairList do not support backtesting."
    advice = variant._advice(refused, {**args, "pairs": ["ETH/USDT"]})
    assert advice.endswith(
        "`freqtrade-lstm compare -c 'a b.json' -c c.json -c static.json -p ETH/USDT ...`"
    )
    assert variant._advice("Config file not found", args) == ""


def test_a_failure_names_the_line_of_the_users_own_code(tmp_path: Path) -> None:
    body = "    def populate_exit_trend(self, dataframe, metadata):\n        dataframe['mine']"
    made = loaded(written(tmp_path, body), with_risk)
    asked = insides.guarded(made.populate_exit_trend)
    with pytest.raises(StrategyError) as raised:
        asked(to_frame(make_candles(5)), {"pair": "BTC/USDT"})
    lines = (tmp_path / "mine.py").read_text().splitlines()
    line = 1 + lines.index("        dataframe['mine']")
    assert variant._where(raised.value) == f"KeyError('mine') in mine.py, line {line}"
