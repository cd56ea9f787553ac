"""What we put on a user's strategy cannot meet anything of theirs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e import environment
from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.resolvers import StrategyResolver
from freqtrade.strategy import IStrategy
from places import ROOT, STRATEGIES

from lstm_model import LSTMForecasts, LSTMRisk

# Names that our mixins had before they began with `lstm_`; any of them may be a user's.
FORMER = (
    "analyzed", "live_engine", "stake_for", "stop_rate", "stop_multiple", "kelly_fraction",
    "min_edge", "_engine", "_facts", "_plans", "_told", "_holdings", "_deny", "_settle", "_is_free",
    "_outlook", "_first_stop", "_new_candles", "_hard_stop_fraction",
)  # fmt: skip
THEIRS = """
from freqtrade.strategy import DecimalParameter, IStrategy, RealParameter
from ema_cross import EmaCross
from lstm_model import LSTMRisk

class Theirs(EmaCross):
    stop_multiple = DecimalParameter(2, 6, default=3.5, space="sell")
    kelly_fraction = 3.0
    {names} = "theirs"

    def populate_indicators(self, dataframe, metadata):
        dataframe["band"] = dataframe["close"] * self.kelly_fraction
        return super().populate_indicators(dataframe, metadata)

class Safer(LSTMRisk, Theirs):
    {own}
"""


def is_ours(name: str) -> bool:
    return name.startswith(("lstm_", "_lstm_"))


def loaded(name: str, folder: Path = STRATEGIES, **options: Any) -> Any:
    config = {
        "strategy": name, "strategy_path": str(folder), "user_data_dir": Path("nowhere"),
        "timeframe": "5m", "stake_currency": "USDT", "stake_amount": 100.0, "max_open_trades": 3,
        "dry_run": True, "runmode": RunMode.DRY_RUN, "trading_mode": "spot",
        "exchange": {"name": "binance"}, "lstm": options,
    }  # fmt: skip
    strategy = StrategyResolver.load_strategy(config)
    strategy.ft_load_hyper_params()
    return strategy


def safer(folder: Path, own: str = "", **options: Any) -> Any:
    """A user's strategy with names that were ours once, under the mixin."""
    rest = [name for name in FORMER if name not in ("stop_multiple", "kelly_fraction")]
    (folder / "ema_cross.py").write_text((STRATEGIES / "ema_cross.py").read_text())
    text = THEIRS.format(names=" = ".join(rest), own=own or "pass")
    (folder / "theirs.py").write_text(text)
    return loaded("Safer", folder, **options)


@pytest.mark.parametrize("mixin", [LSTMForecasts, LSTMRisk])
def test_a_mixin_defines_names_of_freqtrade_and_prefixed_ones(mixin: type) -> None:
    known = {*dir(IStrategy), *IStrategy.__annotations__, *vars(type("Empty", (), {}))}
    ours = {*vars(mixin), *inspect.get_annotations(mixin)} - known
    assert {name for name in ours if not is_ours(name)} <= {
        "__firstlineno__",
        "__static_attributes__",
    }
    assert any(map(is_ours, ours))


@pytest.mark.parametrize("name", ["LSTMStrategy", "EmaCrossLSTM"])
def test_a_strategy_object_has_names_of_freqtrade_and_prefixed_ones(name: str) -> None:
    plain, ours = loaded("EmaCross"), loaded(name)
    found = {name for name in set(dir(ours)) - set(dir(plain)) if not is_ours(name)}
    assert found <= {"dp", "wallets"}


def test_what_a_user_calls_by_a_former_name_stays_theirs(tmp_path: Path) -> None:
    mine = safer(tmp_path, stop_multiple=2.0, kelly_fraction=0.5)
    assert mine.stop_multiple.value == 3.5
    assert mine.kelly_fraction == 3.0
    assert {getattr(mine, name) for name in FORMER[:4]} == {"theirs"}
    assert (mine.lstm_stop_multiple.value, mine.lstm_kelly_fraction.value) == (2.0, 0.5)
    assert {name for name, _ in mine.enumerate_parameters("sell")} == {
        "stop_multiple", "lstm_stop_multiple",
    }  # fmt: skip


OWN = 'lstm_stop_multiple = RealParameter(1.0, 9.0, default=4.0, space="exit")'


def test_a_parameter_of_ours_can_be_replaced_and_config_json_sets_its_value(tmp_path: Path) -> None:
    mine = safer(tmp_path, OWN)
    assert (mine.lstm_stop_multiple.value, mine.lstm_stop_multiple.high) == (4.0, 9.0)
    set_there = safer(tmp_path, OWN, stop_multiple=5.0)
    assert (set_there.lstm_stop_multiple.value, set_there.lstm_stop_multiple.high) == (5.0, 9.0)


IN_CLASS = "lstm_stop_multiple = 3.0"
BEFORE = """def __init__(self, config):
        self.lstm_stop_multiple = 3.0
        super().__init__(config)"""
AFTER = """def __init__(self, config):
        super().__init__(config)
        self.lstm_stop_multiple = 3.0"""


@pytest.mark.parametrize("own", [IN_CLASS, BEFORE, AFTER], ids=["class", "before", "after"])
def test_a_plain_number_in_place_of_a_parameter_is_fixed(tmp_path: Path, own: str) -> None:
    mine = safer(tmp_path, own, stop_multiple=2.0)
    assert mine._lstm_parameter("stop_multiple") == 3.0


@pytest.mark.parametrize("option", ["horizon", "risk_fraction", "units"])
def test_an_option_that_no_parameter_can_tune_is_refused_as_one(
    tmp_path: Path, option: str
) -> None:
    with pytest.raises(OperationalException, match=f'lstm_{option} cannot be .* set "{option}" in'):
        safer(tmp_path, f"lstm_{option} = DecimalParameter(1, 9, default=4, space='buy')")


def test_dictionaries_of_a_class_win_over_config_json_as_for_every_parameter(
    tmp_path: Path,
) -> None:
    mine = safer(tmp_path, 'sell_params = {"lstm_stop_multiple": 2.5}', stop_multiple=2.0)
    assert mine._lstm_parameter("stop_multiple") == 2.5


def test_two_strategies_do_not_share_a_parameter() -> None:
    one, other = loaded("EmaCrossLSTM", stop_multiple=2.0), loaded("EmaCrossLSTM")
    one.lstm_kelly_fraction.value = 0.9
    assert other.lstm_stop_multiple.value == LSTMRisk.lstm_stop_multiple.value == 1.0
    assert other.lstm_kelly_fraction.value == LSTMRisk.lstm_kelly_fraction.value == 0.25


@pytest.mark.lengthy
def test_there_is_one_strategy_in_a_file_and_freqtrade_lists_its_parameters() -> None:
    for path in STRATEGIES.glob("*.py"):
        assert len(re.findall(r"^class ", path.read_text(), re.MULTILINE)) == 1, path.name
    command = ["-m", "freqtrade", "list-strategies", "--strategy-path", str(STRATEGIES)]
    done = subprocess.run(
        [sys.executable, *command, "--userdir", str(ROOT / "user_data"), "--no-color"],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    rows = {
        cells[0]: cells[3:6]
        for line in done.stdout.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│ ").split("│")]) > 5
    }
    assert rows["LSTMStrategy"] == ["Yes", "2", "1"]
    assert rows["EmaCrossLSTM"] == ["Yes", "1", "1"]
    assert rows["EmaCross"] == ["No", "0", "0"]
