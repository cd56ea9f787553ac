"""What `replay` and `verify` refuse before the work, and what a start that failed leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from permissions import permissions_count
from places import STRATEGIES

from lstm_model.commands.main import main
from lstm_model.replay import run

WORDS = ("--from", "2024-07-01", "--to", "2024-07-02", "--data", "synthetic", "--days-before", "1")
PLAIN: dict[str, Any] = {
    "dry_run": True, "stake_currency": "USDT", "stake_amount": 10, "timeframe": "5m",
    "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"]}, "max_open_trades": 1,
    "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STRATEGIES, "user_data/strategies")
    return configured(tmp_path)


def configured(folder: Path, **changes: Any) -> Path:
    config = {name: value for name, value in {**PLAIN, **changes}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def no_market(monkeypatch: pytest.MonkeyPatch) -> None:
    """A market takes time: none is opened for what is refused."""

    def opened(*args: Any, **others: Any) -> None:
        pytest.fail("the market was opened")

    monkeypatch.setattr(run, "open_scenario", opened)


def replay(*words: str) -> Result:
    return CliRunner().invoke(main, ["replay", *WORDS, *words])


def refused(*words: str) -> str:
    done = replay(*words)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.usefixtures("no_market")
def test_a_page_that_cannot_be_written_is_refused_before_the_replay(user: Path) -> None:
    assert "the folder of missing/x.html does not exist: make it" in refused(
        "--report", "missing/x.html"
    )
    (user / "closed").mkdir(mode=0o555)
    with permissions_count():
        told = refused("--report", "closed/x.html")
    assert "closed/x.html because of" in told
    assert "it is not writable" in told


@pytest.mark.lengthy
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # freqtrade's, in the pandas of now
def test_too_little_history_of_an_invented_market_is_cured_by_more_of_it() -> None:
    """The bot, which cannot know, would have it downloaded into a folder of the replay."""
    told = refused("--to", "2024-07-01T01:00")
    assert "no 5m candles of BTC/USDT before" in told
    assert "are wanted. Give a larger --days-before than 1. (more in " in told
    assert "download-data" not in told


def test_and_of_recorded_candles_by_older_ones_beside_them() -> None:
    wish = run.Wish("their/data", 0, 1, ("config.json",))
    assert run._more_history(wish) == "They are to be in their/data, or where --history says."


@pytest.mark.usefixtures("no_market")
def test_models_in_the_folder_that_is_made_anew_are_refused(user: Path) -> None:
    store = user / "week" / "live"
    (store / "models").mkdir(parents=True)
    told = refused("--folder", "week", "--models", str(store), "--overwrite")
    assert "lie in the folder of the replay, which is made anew: give another --folder" in told
    assert store.is_dir()
    assert replay("--models", "nowhere").exit_code == 2


@pytest.mark.usefixtures("no_market")
@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_a_folder_with_somebody_elses_files_is_refused_and_left_alone(
    user: Path, words: tuple[str, ...]
) -> None:
    (user / "mine" / "live").mkdir(parents=True)
    (user / "mine" / "before").mkdir()
    (user / "mine" / "trades.sqlite").write_text("precious")
    told = refused("--folder", "mine", *words)
    assert f"{user / 'mine'} holds live, before, trades.sqlite, of no replay: give another" in told
    assert (user / "mine" / "trades.sqlite").read_text() == "precious"
    left = {path.name for path in (user / "mine").iterdir()}
    assert left == {"live", "before", "trades.sqlite"}


@pytest.mark.usefixtures("no_market")
@pytest.mark.parametrize("folder", ["closed/here", "closed/a/b", "file", "file/below"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_replay(
    user: Path, folder: str
) -> None:
    (user / "closed").mkdir(mode=0o555)
    (user / "file").write_text("mine")
    if folder == "file":  # click says so
        assert replay("--folder", folder).exit_code == 2
        return
    with permissions_count():
        assert f"cannot write {user / folder} because of" in refused("--folder", folder)


@pytest.mark.usefixtures("no_market")
@pytest.mark.parametrize(
    ("changes", "words", "told"),
    [
        ({"exchange": {"name": "kraken", "pair_whitelist": ["BTC/EUR"]}}, [], "names kraken spot"),
        ({"trading_mode": "futures", "margin_mode": "isolated"}, [],
         "BTC/USDT: no pair of futures, they are named like BTC/USDT:USDT"),
        ({"exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT:USDT"]}}, [],
         "no pair of spot"),
        ({"exchange": {"name": "binance", "pair_whitelist": []}}, [], "or give --pairs"),
        ({"exchange": {"name": "binance", "pair_whitelist": [".*/USDT"]}}, [], "is a pattern"),
        ({"pairlists": [{"method": "VolumePairList", "number_assets": 2}],
          "exchange": {"name": "binance"}}, [], "come from VolumePairList"),
        ({"dry_run_wallet": {"USDT": 5}}, [], "several: give --wallet"),
        ({"dry_run_wallet": 0}, [], "must be above 0, found 0"),
        ({"dry_run_wallet": -1}, [], "must be above 0, found -1"),
        ({}, ["--strategy", "Nowhere"], "strategy Nowhere cannot be used: Impossible to load"),
        ({}, ["-c", "-"], "several times: give a file, not -"),
        ({}, ["-t", "99999999999999999999d"], "d\" is not usable: give one like"),
        ({"exit_pricing": None}, [], "exit_pricing: None is not of type 'object'"),
        ({"exit_pricing": ...}, [], "'exit_pricing' is a required property"),
        ({"stake_amount": ...}, [], "'stake_amount' is a required property"),
        ({"lstm": []}, [], "must be a section in braces"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_refused_before_a_market_is_opened(
    user: Path, changes: dict[str, Any], words: list[str], told: str
) -> None:
    configured(user, **changes)
    assert told in refused(*words)


def test_a_timeframe_that_only_the_strategy_names_is_replayed(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = []
    monkeypatch.setattr(
        run, "open_scenario", lambda data, pairs, window, **_: windows.append(window)
    )
    configured(user, timeframe=...)
    replay()
    replay("-t", "1h")
    assert [window.timeframe for window in windows] == ["5m", "1h"]


@pytest.mark.lengthy
def test_a_start_that_failed_leaves_the_folder_free_and_what_was_there(user: Path) -> None:
    folder = user / "here"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "mine").write_text("mine")
    Path("user_data/strategies/late.py").write_text(LATE)
    words = ["--folder", "here", "--strategy", "Late"]
    for _ in range(2):
        # A real bot, so in a process of its own: freqtrade changes logging and consoles for good.
        done = subprocess.run(
            [sys.executable, "-m", "lstm_model", "replay", *WORDS, *words], cwd=user,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        told = done.stderr
        assert (done.returncode, told.count("\n")) == (1, 1), told
        assert f"nobody is at home (more in {folder / 'bot.log'})" in told
        assert {path.name for path in folder.iterdir()} == {"notes", "bot.log"}
        assert (folder / "notes" / "mine").read_text() == "mine"


LATE = """
from lstm_strategy import LSTMStrategy

class Late(LSTMStrategy):
    def bot_start(self, **kwargs): raise ValueError("nobody is at home")
"""
