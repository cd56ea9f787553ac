"""What doctor says of candles and flow on disk, and that what it advises costs no sound candle."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from doctor_world import COUNT, HOUR_MS, LSTM, PAIRS, User, healthy
from permissions import permissions_count

from lstm_model.bot import configuration
from lstm_model.market.candles import FLOW, unknown_flow
from lstm_model.market.flow_store import FlowStore
from lstm_model.setup.finding import Finding, State
from lstm_model.setup.history import check_candles

# freqtrade's own, in the pandas of now
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

OPTIONS = " -c 'my own.json'"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.chdir(tmp_path)
    return healthy(tmp_path)


def found_of(user: User) -> list[Finding]:
    return list(check_candles(*user.loaded(), OPTIONS, user.now_ms))


def commands(findings: list[Finding]) -> list[str]:
    """All that is to be run, by whatever sentence."""
    return [part for finding in findings for part in str(finding).split("`")[1::2]]


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Nobody may read it."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with permissions_count():
            yield
    finally:
        path.chmod(mode)


def file_of(user: User, pair: str) -> Path:
    return user.candles / f"{pair.replace('/', '_')}-1h.feather"


def rewrite(user: User, pair: str, rows: slice, **values: float) -> pd.DataFrame:
    """The candles on disk, of which these rows have these values now; without any they are gone."""
    frame = pd.read_feather(file_of(user, pair))
    for column, value in values.items():
        frame.loc[rows, column] = value
    kept = frame if values else frame.drop(index=frame.index[rows])
    kept.reset_index(drop=True).to_feather(file_of(user, pair))
    return frame


# ---------------------------------------------------------------- order flow


def flowing(user: User) -> FlowStore:
    """Flow of all candles, which settings want now."""
    user.configure(lstm={**LSTM, "order_flow": True})
    store = configuration.flow_store(user.loaded()[0])
    for pair in PAIRS:
        dates = pd.read_feather(file_of(user, pair))["date"].astype("datetime64[ms, UTC]")
        flow = unknown_flow(dates.astype("int64").to_numpy())
        for name in (FLOW.names or ())[1:]:
            flow[name] = 1.0
        store.write(pair, "1h", flow)
    return store


def test_candles_whose_flow_is_known_are_good(user: User) -> None:
    flowing(user)
    [found] = found_of(user)
    assert found.state == State.GOOD, found


@pytest.mark.parametrize(("pair", "state"), [("ETH/USDT", State.WARNING), ("BTC/USDT", State.TODO)])
@pytest.mark.parametrize("suffix", [".feather", ".journal"])
def test_damaged_flow_costs_no_candles(user: User, pair: str, state: State, suffix: str) -> None:
    """The leader's is read with every pair."""
    path = flowing(user).path(pair, "1h").with_suffix(suffix)
    path.write_bytes(b"x" * 99)
    [found] = found_of(user)
    assert (found.state, found.text.startswith(f"{path} is damaged")) == (state, True)
    assert found.todo.startswith(f"Then run `freqtrade-lstm download-flow{OPTIONS} --pairs {pair}`")
    assert "delete it, and" in found.text
    assert "download-data" not in str(found)


def test_to_get_flow_again_is_a_command_of_ours() -> None:
    from lstm_model.commands.main import download_flow

    assert "--pairs" in {name for option in download_flow.params for name in option.opts}


# ---------------------------------------------------------------- permissions


def test_a_file_that_this_user_may_not_read_is_not_got_anew(user: User) -> None:
    path = file_of(user, "ETH/USDT")
    with closed(path):
        [found] = found_of(user)
    assert found.state == State.WARNING
    assert found.text.startswith(f"{path} cannot be read by this user (Permission denied)")
    assert commands([found]) == [f"chown USER {path}", f"chmod u+rwX {path}"]


@pytest.mark.parametrize("mode", ["spot", "futures"])
def test_nor_are_those_in_a_folder_that_is_closed(user: User, mode: str) -> None:
    folder = user.candles
    if mode == "futures":
        pairs = [f"{pair}:USDT" for pair in PAIRS]
        exchange = {"name": "binance", "pair_whitelist": pairs}
        user.configure(exchange=exchange, trading_mode="futures", margin_mode="isolated")
        folder = folder / "futures"
        folder.mkdir()
    with closed(folder):
        [found] = found_of(user)
    assert found.state == State.TODO
    assert found.text.startswith(f"{folder} cannot be read by this user (Permission denied)")
    assert commands([found]) == [f"chown USER {folder}", f"chmod u+rwX {folder}"]


def test_flow_that_this_user_may_not_read_is_not_deleted(user: User) -> None:
    path = flowing(user).path("ETH/USDT", "1h")
    with closed(path):
        [found] = found_of(user)
    assert commands([found]) == [f"chown USER {path}", f"chmod u+rwX {path}"]


# ---------------------------------------------------------------- the leader


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "apart"])
@pytest.mark.parametrize("harm", ["junk", "dead", "no zone"])
def test_a_lost_leader_has_one_command(user: User, harm: str, listed: bool) -> None:
    if not listed:
        user.configure(exchange={"name": "binance", "pair_whitelist": ["ETH/USDT"]})
    if harm == "junk":
        file_of(user, "BTC/USDT").write_bytes(b"x" * 99)
    elif harm == "dead":
        rewrite(user, "BTC/USDT", slice(0, COUNT), volume=0.0)
    else:
        frame = pd.read_feather(file_of(user, "BTC/USDT"))
        frame["date"] = frame["date"].dt.tz_localize(None)
        frame.to_feather(file_of(user, "BTC/USDT"))
    run = [shlex.split(text) for text in commands(found_of(user)) if "--timeframes" in text]
    assert [words[-3:] for words in run] == [["--pairs", "BTC/USDT", "--erase"]]


@pytest.mark.parametrize(("count", "hours"), [(1_000, 0), (COUNT, 48)], ids=["short", "old"])
def test_a_dead_pair_has_one_command(user: User, count: int, hours: int) -> None:
    user.has_candles("ETH/USDT", count, hours * HOUR_MS)
    rewrite(user, "ETH/USDT", slice(0, count), low=1e9)
    [command] = [text for text in commands(found_of(user)) if "--timeframes" in text]
    assert command.endswith("--pairs ETH/USDT --erase")


# ---------------------------------------------------------------- holes


def test_candles_that_are_missing_inside_are_told(user: User) -> None:
    frame = rewrite(user, "ETH/USDT", slice(1_000, 3_900))
    [found] = found_of(user)
    first, last = (f"{frame.date[row]:%Y-%m-%d %H:%M}" for row in (1_000, 3_899))
    assert found.state == State.WARNING
    assert f"ETH/USDT lacks 2,900 of 3,760, from {first} to {last}" in found.text
    [command] = [text for text in commands([found]) if "download-data" in text]
    words = shlex.split(command)
    assert words[-3:] == ["--pairs", "ETH/USDT", "--erase"]
    assert int(words[words.index("--days") + 1]) * 24 >= COUNT
    assert f"deletes their files in {user.candles} before it asks the exchange" in found.todo
    assert "`--prepend` fills no hole" in found.todo


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([slice(3_000, 3_024)], False),  # a day
        ([slice(3_000, 3_025)], True),
        ([slice(at, at + 10) for at in range(1_000, 3_800, 200)], False),  # 140 of 3,760
        ([slice(at, at + 10) for at in range(1_000, 3_800, 100)], True),
    ],
)
def test_outages_are_no_holes(user: User, rows: list[slice], told: bool) -> None:
    """More than a day in one piece is, and more than a twentieth of all."""
    gone = np.concatenate([np.arange(part.start, part.stop) for part in rows])
    frame = pd.read_feather(file_of(user, "BTC/USDT"))
    frame.drop(index=gone).reset_index(drop=True).to_feather(file_of(user, "BTC/USDT"))
    assert ["lacks" in finding.text for finding in found_of(user)] == [told]


def test_a_hole_before_all_that_is_learnt_from_is_left_in_peace(user: User) -> None:
    user.has_candles("ETH/USDT", 24 * 700)
    rewrite(user, "ETH/USDT", slice(100, 5_000))
    [found] = found_of(user)
    assert found.state == State.GOOD, found


def test_a_hole_of_the_leader_apart_is_told(user: User) -> None:
    user.configure(exchange={"name": "binance", "pair_whitelist": ["ETH/USDT"]})
    rewrite(user, "BTC/USDT", slice(1_000, 3_900))
    told = [finding.text for finding in found_of(user)]
    assert len(told) == 1, told
    assert "BTC/USDT lacks 2,900 of 3,760" in told[0]


# ---------------------------------------------------------------- what --erase costs


def damaged(user: User) -> Any:
    return file_of(user, "ETH/USDT").write_bytes(b"x" * 99)


def dead(user: User) -> Any:
    return rewrite(user, "ETH/USDT", slice(0, COUNT), volume=0.0)


def wrong(user: User) -> Any:
    return rewrite(user, "ETH/USDT", slice(2_000, 2_000), low=1e9)


@pytest.mark.parametrize("harm", [damaged, dead, wrong])
def test_who_is_told_to_erase_is_told_what_goes_first(user: User, harm: Any) -> None:
    harm(user)
    [found] = found_of(user)
    assert "--erase`. It deletes their files in" in found.todo
    assert "copy them first" in found.todo
    comes_back = "where the exchange itself tells" in found.todo.lower()
    assert comes_back is (harm is wrong)
