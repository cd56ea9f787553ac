"""`freqtrade-lstm doctor` on a set-up that lacks nothing, and where one thing is wrong in it."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from doctor_world import (
    COMPLETE,
    COUNT,
    HOUR_MS,
    LSTM,
    PAIRS,
    User,
    by_name,
    container,
    healthy,
    only,
    to_be_done,
    unwritable,
)
from journal_faults import locked
from permissions import permissions_count
from places import ROOT, lay_out, needs_tensorflow
from stored import publish, publish_and_serve
from telegram_world import private_settings, secret_forms

from lstm_model.commands.main import main
from lstm_model.errors import TrainingError
from lstm_model.setup import installation, stored
from lstm_model.setup.environment import tensorflow_of
from lstm_model.setup.finding import State
from lstm_model.training import interpreter

# freqtrade's own, in the pandas of now
pytestmark = [
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
    pytest.mark.usefixtures("same_logging"),
]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.chdir(tmp_path)
    return healthy(tmp_path)


@pytest.fixture(autouse=True)
def _nobody_waits_for_tensorflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """To import it takes seconds; a test of its own does, see below."""
    monkeypatch.setattr(installation, "tensorflow_of", lambda _: "2.21.0")
    interpreter._found.cache_clear()
    yield
    interpreter._found.cache_clear()


def told(user: User, *words: str) -> tuple[int, str]:
    options = ["doctor", "--userdir", str(user.folder), "--offline", *words]
    done = CliRunner().invoke(main, options)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert not done.stderr
    return done.exit_code, done.stdout


# ---------------------------------------------------------------- what is good


def test_a_good_set_up_has_nothing_to_be_done(user: User) -> None:
    findings = user.examined()
    assert to_be_done(findings) == []
    assert [finding for finding in findings if finding.state == State.WARNING] == []
    names = by_name(findings).keys()
    assert {"Python", "freqtrade", "ccxt", "TA-Lib", "numpy", "pandas", "trainer"} <= names
    assert {"processor", "cores", "memory", "disk", "user_data", "config", "strategy"} <= names
    assert {"telegram", "store", "journal", "candles", "clock", "trade stream"} <= names
    assert only(findings, "candles").text.startswith("1h of BTC/USDT, ETH/USDT, ")
    assert "watchTradesForSymbols" in only(findings, "trade stream").text


@pytest.mark.lengthy
def test_the_command_prints_a_line_for_each_and_a_sum(user: User) -> None:
    code, text = told(user)
    *lines, last = text.splitlines()
    assert (code, last) == (0, "Nothing has to be done; 0 warning(s).")
    assert {line[:5].strip() for line in lines} == {"ok", "note"}
    assert len(lines) == len(user.examined())
    assert "\x1b" not in text
    code, text = told(user, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(text)] == [line[5:].split(":")[0] for line in lines]
    assert json.loads(text)[0].keys() == {"name", "state", "text", "todo"}


@pytest.mark.lengthy
def test_nothing_is_changed_by_looking(user: User) -> None:
    publish_and_serve(*_store_and_name(user), 1)
    told(user)
    before = {path: path.stat().st_mtime_ns for path in user.folder.rglob("*")}
    told(user)
    assert {path: path.stat().st_mtime_ns for path in user.folder.rglob("*")} == before


def test_a_bot_that_learns_here_is_left_in_peace(user: User) -> None:
    store, lineage = user.store()
    publish_and_serve(store, lineage.name, 1)
    lineage.acquire()
    try:
        found = only(user.examined(), "store")
    finally:
        lineage.release()
    assert found.state == State.GOOD
    assert "1 model(s), 0 other bot(s)" in found.text


def test_the_home_folder_is_shown_as_a_tilde(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _, text = told(user)
    assert str(tmp_path) not in text
    assert "~/user_data" in text


# ---------------------------------------------------------------- the configuration


def _configured(**changes: Any) -> Callable[[User], None]:
    return lambda user: user.configure(**changes)


def _written(text: str) -> Callable[[User], None]:
    return lambda user: user.file.write_text(text) and None


@pytest.mark.parametrize(
    ("spoil", "name", "parts"),
    [
        (lambda user: user.file.unlink(), "config", ["there is no file", "freqtrade-lstm init"]),
        (_written('{\n"dry_run": true\n"x": 5}'), "config", ["in line 3", "Missing a comma"]),
        (_written("[1, 2]"), "config", ["one section in braces"]),
        (_written("{}"), "config", ["exchange"]),
        (_configured(exchange={}), "config", ["'name' is a required property"]),
        (_configured(exchange={"name": "nowhere"}), "config", ["not known to the ccxt library"]),
        (_configured(stake_amount=[]), "config", ["stake_amount"]),
        (_configured(timeframe="5 minutes"), "timeframe", ["5 minutes"]),
        (_configured(strategy="Nobody"), "strategy", ["Nobody", "Impossible to load"]),
        (_configured(lstm=5), "lstm", ["must be a section in braces"]),
        (_configured(max_open_trades=-1, stake_amount="unlimited"), "config", ["max_open_trades"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_a_line_of_its_own(
    user: User, spoil: Callable[[User], None], name: str, parts: list[str]
) -> None:
    spoil(user)
    findings = user.examined()
    text = " | ".join(map(str, by_name(to_be_done(findings))[name]))
    assert all(part in text for part in parts), text
    assert told(user, "-c", str(user.file))[0] == 1


def test_every_wrong_option_of_ours_is_told_whatever_freqtrade_has_against_the_rest(
    user: User,
) -> None:
    user.configure(lstm={"horizn": 3, "lookback": 1}, stake_amount=[])
    text = str(only(user.examined(), "lstm"))
    assert 'unknown option "horizn". Did you mean "horizon"?' in text
    assert "lookback" in text
    assert "stake_amount" in str(only(user.examined(), "config"))


@pytest.mark.parametrize("lacking", [[], ["strategy"], ["timeframe"], ["strategy", "timeframe"]])
def test_a_strategy_is_judged_apart_from_a_wrong_option_of_ours(
    user: User, lacking: list[str]
) -> None:
    changed = {**COMPLETE, "lstm": {"horizn": 3}}
    user.file.write_text(json.dumps({k: v for k, v in changed.items() if k not in lacking}))
    findings = user.examined()
    assert [(each.name, "horizn" in each.text) for each in to_be_done(findings)] == [("lstm", True)]
    assert str(only(findings, "strategy")).startswith("strategy: LSTMStrategy loads, timeframe ")


def test_a_strategy_that_is_there_and_does_not_start_is_not_called_missing(user: User) -> None:
    config = {name: value for name, value in COMPLETE.items() if name != "strategy"}
    user.file.write_text(json.dumps(config))
    path = user.folder / "strategies" / "lstm_strategy.py"
    parameter = "lstm_lookback = RealParameter(8, 9, default=8, space='buy')"
    path.write_text(f"{path.read_text()}\n    {parameter}\n")
    found = only(user.examined(), "strategy")
    assert (found.state, "lstm_lookback cannot be a parameter" in found.text) == (State.TODO, True)


def test_a_folder_that_is_not_there_is_told_with_the_command_that_makes_it(user: User) -> None:
    user.folder.rename(user.folder.with_name("elsewhere"))
    findings = user.examined([str(user.folder.with_name("elsewhere") / "config.json")])
    assert only(findings, "user_data").todo.startswith(
        f"Run `freqtrade create-userdir --userdir {user.folder}`"
    )
    assert [finding.name for finding in to_be_done(findings)] == ["user_data"]


@pytest.mark.lengthy
def test_a_folder_that_cannot_be_written_is_told(user: User) -> None:
    with permissions_count(), unwritable(user.folder):
        [found] = to_be_done(user.examined())
    assert found.name == "user_data"
    assert found.text.endswith("user_data is not writable")
    user.examined()  # freqtrade has its folders in it now
    with permissions_count(), unwritable(user.folder):
        findings = user.examined()
    store = only(findings, "store")
    assert [found.name for found in to_be_done(findings)] == ["user_data", "store", "journal"]
    assert store.text.endswith("it is not writable; name another place")
    assert store.todo == ""


@pytest.mark.lengthy
def test_without_a_name_of_a_strategy_ours_is_tried(user: User) -> None:
    config = {name: value for name, value in COMPLETE.items() if name != "strategy"}
    user.file.write_text(json.dumps(config))
    assert only(user.examined(), "strategy").state == State.GOOD
    (user.folder / "strategies" / "lstm_strategy.py").unlink()
    assert only(user.examined(), "strategy").state == State.NOTE


@pytest.mark.parametrize(
    ("section", "state", "part"),
    [
        ({"enabled": False}, State.NOTE, "off"),
        ({}, State.GOOD, "allowed"),
        ({"notification_settings": {"strategy_msg": "silent"}}, State.GOOD, "allowed"),
        ({"notification_settings": {"strategy_msg": "off"}}, State.WARNING, "strategy_msg"),
        ({"allow_custom_messages": False}, State.WARNING, "allow_custom_messages"),
    ],
)
def test_whether_news_reach_telegram(
    user: User, section: dict[str, Any], state: State, part: str
) -> None:
    account = {"enabled": True, "token": "1:abcdefgh", "chat_id": "12345"}
    user.configure(telegram={**account, **section})
    found = only(user.examined(), "telegram")
    assert (found.state, part in found.text) == (state, True)
    assert told(user, "-c", str(user.file))[0] == 0


# ---------------------------------------------------------------- what is stored


def _store_and_name(user: User) -> tuple[Any, str]:
    store, lineage = user.store()
    return store, lineage.name


def test_a_damaged_lineage_is_named(user: User) -> None:
    store, lineage = user.store()
    publish_and_serve(store, lineage.name, 1)
    path = store.root / "lineages" / f"{lineage.name}.json"
    path.write_text("{}")
    [found] = to_be_done(user.examined())
    assert found.name == "store"
    assert f"{path} is damaged or foreign" in found.text
    assert path.read_text() == "{}", "it is not for the doctor to move it"


@pytest.mark.lengthy
@pytest.mark.parametrize(("number", "state"), [(1, State.TODO), (2, State.WARNING)])
def test_a_damaged_card_is_named_and_has_to_be_cared_for_where_it_serves(
    user: User, number: int, state: State
) -> None:
    store, lineage = user.store()
    publish_and_serve(store, lineage.name, 1)
    version = publish(store, number).version
    card = store.root / "models" / version / "card.json"
    card.write_bytes(card.read_bytes().replace(b'"epochs": 4', b'"epochs": 5'))
    found = only(user.examined(), "store")
    assert found.state == state
    assert version in found.text
    assert "card.json was changed" in found.text


@pytest.mark.parametrize("name", ["", "models", "steps", "lineages", "spool"])
def test_a_file_in_the_place_of_a_folder_is_to_be_moved_away(user: User, name: str) -> None:
    place = user.folder / "lstm" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text("")
    found = {each.name: each.text for each in to_be_done(user.examined())}
    assert found["store"] == f"{place} is a file, where a folder is needed: move it away"


@pytest.mark.parametrize("target", ["nowhere/store", "itself"])
@pytest.mark.parametrize("name", ["lstm", "lstm/models", "lstm/journal.sqlite"])
def test_a_link_to_what_is_not_there_is_told(user: User, name: str, target: str) -> None:
    """As of a disk that is not mounted."""
    place = user.folder / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place if target == "itself" else user.folder / target)
    kind = "journal" if name.endswith("sqlite") else "store"
    told = [found.text for found in to_be_done(user.examined()) if found.name == kind]
    assert told[0].startswith(f"cannot write {place} because of {place}: it is a link to what is")


def test_what_another_bot_lost_is_a_warning(user: User) -> None:
    store, _ = user.store()
    publish_and_serve(store, "kraken-spot-1h", 1)
    (store.root / "lineages" / "kraken-spot-1h.json").write_text("{}")
    found = by_name(user.examined())["store"]
    assert [each.state for each in found] == [State.WARNING, State.GOOD]
    assert "kraken-spot-1h.json" in found[0].text


def test_a_journal_that_is_none_has_to_be_moved_away(user: User) -> None:
    journal = user.folder / "lstm" / "journal.sqlite"
    journal.parent.mkdir()
    journal.write_bytes(b"not a database" * 100)
    [found] = to_be_done(user.examined())
    assert found.name == "journal"
    assert "move it away" in found.text


def test_a_journal_that_another_process_holds_is_not_waited_for(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_model.setup.stored._LOCK_S", 0.1)
    journal = user.folder / "lstm" / "journal.sqlite"
    journal.parent.mkdir()
    with locked(journal, "alone"):
        [found] = to_be_done(user.examined())
    assert "locked" in found.text


def test_a_journal_that_cannot_be_reached_is_told_without_its_password(user: User) -> None:
    url = "postgresql+nodriver://bot:PLANTED-password@127.0.0.1:1/journal"
    user.configure(lstm={**LSTM, "journal_url": url})
    [found] = to_be_done(user.examined())
    assert found.name == "journal"
    assert "postgresql+nodriver://bot:***@127.0.0.1:1/journal" in found.text
    assert "PLANTED" not in str(found)


def test_a_database_that_never_answers_is_not_waited_for(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_ANSWER_S", 0.2)
    monkeypatch.setattr(stored, "_LOCK_S", 20.0)
    config, settings = user.loaded()
    journal = user.folder / "lstm" / "journal.sqlite"
    journal.parent.mkdir()
    with locked(journal, "alone"):
        [found] = stored.check_journal(config, settings)
    assert "has not answered in 0.2 s" in found.text


# ---------------------------------------------------------------- candles


def command_of(text: str) -> str:
    return text.partition("Run `")[2].partition("`")[0]


def test_without_candles_the_whole_command_is_told(user: User) -> None:
    for path in user.candles.glob("*"):
        path.unlink()
    user.configure(lstm={**LSTM, "leader": ""})
    [found] = to_be_done(user.examined())
    assert f"none of BTC/USDT, ETH/USDT in {user.candles}" in found.text
    assert command_of(found.todo) == (
        f"freqtrade download-data -c {user.file} --userdir {user.folder} --timeframes 1h "
        "--days 200 --pairs BTC/USDT ETH/USDT"
    )


def test_the_command_is_one_that_freqtrade_understands(user: User) -> None:
    from freqtrade.commands import Arguments
    from freqtrade.configuration import setup_utils_configuration
    from freqtrade.enums import RunMode

    user.has_candles("ETH/USDT", 1_000)
    found = only(user.examined(), "candles")
    asked = Arguments(command_of(found.todo).split()[1:]).get_parsed_arg()
    config = setup_utils_configuration(asked, RunMode.UTIL_EXCHANGE)
    assert (config["pairs"], config["timeframes"]) == (["ETH/USDT"], ["1h"])
    assert config["prepend_data"] is True


@pytest.mark.parametrize(
    ("spoil", "part", "more"),
    [
        (lambda user: (user.candles / "ETH_USDT-1h.feather").unlink(), "none of ETH/USDT in", ""),
        (lambda user: user.has_candles("ETH/USDT", 1_000), "of ETH/USDT begin at", "--prepend"),
        (lambda user: user.has_candles("ETH/USDT", until_ms=48 * HOUR_MS), "ETH/USDT end at", ""),
        (lambda user: (user.candles / "ETH_USDT-1h.feather").write_bytes(b"x" * 99),
         "ETH/USDT is damaged", "--erase"),
        (lambda user: user.configure(lstm={**LSTM, "leader": "SOL/USDT"}),
         "what SOL/USDT did is not known of many candles of BTC/USDT, ETH/USDT", "--prepend"),
    ],
)  # fmt: skip
def test_what_is_missing_of_some_is_a_warning_with_the_command_that_gets_it(
    user: User, spoil: Callable[[User], Any], part: str, more: str
) -> None:
    spoil(user)
    findings = user.examined()
    found = only(findings, "candles")
    assert found.state == State.WARNING
    assert part in found.text
    named = "SOL/USDT" if "SOL" in part else "ETH/USDT"
    assert command_of(found.todo).endswith(f"--pairs {named} {more}".strip())
    assert told(user, "-c", str(user.file))[0] == 0


def spoil(user: User, rows: slice, pair: str = "ETH/USDT", **values: float) -> pd.DataFrame:
    """The candles on disk, of which these rows have these values now."""
    path = user.candles / f"{pair.replace('/', '_')}-1h.feather"
    frame = pd.read_feather(path)
    for column, value in values.items():
        frame.loc[rows, column] = value
    frame.to_feather(path)
    return frame


@pytest.mark.parametrize(
    ("column", "value"),
    [("close", 0.0), ("high", float("inf")), ("open", -1.0), ("low", 1e9), ("volume", -1.0)],
)
def test_prices_that_cannot_be_are_counted(user: User, column: str, value: float) -> None:
    frame = spoil(user, slice(2_000, 2_002), **{column: value})
    found = only(user.examined(), "candles")
    assert found.state == State.WARNING
    first = f"{frame.date[2_000]:%Y-%m-%d %H:%M}"
    assert f"3 of ETH/USDT, the first of {first}, have prices or volumes that cannot" in found.text
    assert command_of(found.todo).endswith("--pairs ETH/USDT --erase")


def test_what_is_got_anew_is_no_less_than_there_was(user: User) -> None:
    user.configure(lstm={**LSTM, "train_candles": 2_000})
    user.has_candles("ETH/USDT", 24 * 700)
    spoil(user, slice(100, 100), low=1e9)
    [found] = [it for it in by_name(user.examined())["candles"] if "cannot be" in it.text]
    words = shlex.split(command_of(found.todo))
    assert int(words[words.index("--days") + 1]) >= 700


@pytest.mark.parametrize("values", [{"volume": 0.0}, {"low": 1e9}])
def test_where_nothing_can_be_learnt_from_there_is_something_to_do(
    user: User, values: dict[str, float]
) -> None:
    for pair in PAIRS:
        spoil(user, slice(0, COUNT), pair, **values)
    assert "no candle of BTC/USDT, ETH/USDT has prices and a volume" in " ".join(
        finding.text for finding in to_be_done(user.examined())
    )


def test_a_damaged_leader_is_named_and_no_other_is_erased(user: User) -> None:
    path = user.candles / "BTC_USDT-1h.feather"
    frame = pd.read_feather(path)
    frame.assign(date=frame["date"].dt.tz_localize(None)).to_feather(path)
    told = " ".join(f"{it.text} {it.todo}" for it in by_name(user.examined())["candles"])
    assert "BTC/USDT: the file of its 1h candles" in told
    assert "--pairs BTC/USDT --erase" in told
    assert "--pairs ETH/USDT" not in told


def test_to_learn_from_a_day_to_come_is_remarked(user: User) -> None:
    user.configure(lstm={**LSTM, "learn_from": "20990101"})
    assert "learn_from 20990101 lies in the future" in str(only(user.examined(), "lstm"))


def test_too_few_candles_of_all_have_to_be_downloaded(user: User) -> None:
    for pair in PAIRS:
        user.has_candles(pair, 300)
    assert {finding.name for finding in to_be_done(user.examined())} == {"candles"}


def test_the_days_before_the_candles_to_train_on_are_missed(user: User) -> None:
    for pair in PAIRS:
        user.has_candles(pair, 2_500)
    found = by_name(user.examined())["candles"]
    assert {each.state for each in found} == {State.WARNING}
    [found] = found
    assert "how volatile the 60 days before were is not known of many candles of BTC" in found.text
    assert command_of(found.todo).endswith("--pairs BTC/USDT ETH/USDT --prepend")


def test_where_a_running_bot_makes_the_list_of_pairs_some_have_to_be_named(user: User) -> None:
    made = [{"method": "VolumePairList", "number_assets": 5, "sort_key": "quoteVolume"}]
    user.configure(pairlists=made, exchange={"name": "binance", "pair_whitelist": []})
    found = only(user.examined(), "candles")
    assert (found.state, "VolumePairList" in found.text) == (State.NOTE, True)


@pytest.mark.lengthy
def test_a_list_of_pairs_that_no_backtest_takes_is_told_with_what_to_run(user: User) -> None:
    from freqtrade.commands import Arguments
    from freqtrade.configuration import setup_utils_configuration
    from freqtrade.enums import RunMode

    made = [{"method": "VolumePairList", "number_assets": 5, "sort_key": "quoteVolume"}]
    user.configure(pairlists=made, lstm={**LSTM, "train_pairs": PAIRS})
    found = only(user.examined(), "backtests")
    assert (found.state, "refuse VolumePairList" in found.text) == (State.NOTE, True)
    _, write, _, run, _ = found.todo.split("`")
    subprocess.run(["sh", "-c", write], check=True)
    asked = Arguments(shlex.split(run)[1:]).get_parsed_arg()
    config = setup_utils_configuration(asked, RunMode.UTIL_NO_EXCHANGE)
    assert (config["pairlists"], config["pairs"]) == ([{"method": "StaticPairList"}], PAIRS)
    user.configure()
    assert "backtests" not in by_name(user.examined())


def test_options_that_leave_too_little_to_learn_from_are_told(user: User) -> None:
    user.configure(lstm={"train_candles": 1_000, "horizon": 100})
    assert "train_candles" in str(only(to_be_done(user.examined()), "candles"))


# ---------------------------------------------------------------- the installation


@pytest.mark.parametrize(
    ("limit_mb", "taken_mb", "state"),
    [(8_000, 1_000, State.GOOD), (4_000, 1_000, State.NOTE), (1_500, 900, State.TODO)],
)
def test_memory_is_looked_at_within_the_cgroup(
    user: User, tmp_path: Path, limit_mb: int, taken_mb: int, state: State
) -> None:
    root = container(tmp_path / "machine", limit_mb, taken_mb)
    found = only(user.examined(root=root), "memory")
    assert found.state == state
    assert f"{limit_mb - taken_mb:,} MB left of {limit_mb:,} MB that the cgroup" in found.text
    assert "train_memory_mb 4,096" in found.text


def test_memory_that_nothing_tells_of_is_a_note(user: User, tmp_path: Path) -> None:
    assert only(user.examined(root=tmp_path), "memory").state == State.NOTE


@pytest.mark.parametrize(
    ("kind", "flags", "state"),
    [
        ("x86_64", "fpu avx", State.GOOD), ("x86_64", "fpu sse", State.TODO),
        ("aarch64", "fp asimd", State.GOOD), ("riscv64", "x", State.NOTE),
        ("AMD64", "", State.NOTE),
    ],
)  # fmt: skip
def test_the_processor_needs_what_tensorflow_is_built_for(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, flags: str, state: State
) -> None:
    monkeypatch.setattr("platform.machine", lambda: kind)
    root = lay_out(tmp_path / "machine", {"proc/cpuinfo": f"flags : {flags}\n"} if flags else {})
    assert only(user.examined(root=root), "processor").state == state


def test_more_threads_than_cores_are_a_warning(user: User) -> None:
    user.configure(lstm={**LSTM, "train_threads": 64})
    found = only(user.examined(), "cores")
    assert (found.state, "train_threads 64" in found.text) == (State.WARNING, True)


@pytest.mark.parametrize(
    ("allowed", "state", "end"),
    [("100000", State.NOTE, "train_threads 2: trainings make do with 1"),
     ("9900000000", State.GOOD, "train_threads 2"), ("max", State.GOOD, "train_threads 2")],
)  # fmt: skip
def test_cores_are_those_that_the_cgroup_allows(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, state: State,
    end: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("os.cpu_count", lambda: 99)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    root = container(tmp_path / "machine", 8_000, 1_000)
    lay_out(root, {"sys/fs/cgroup/cpu.max": f"{allowed} 100000\n"})
    found = only(user.examined(root=root), "cores")
    assert found.state == state
    assert found.text.endswith(end)
    bound = f"1 of 99 core(s), by the cgroup {root}/sys/fs/cgroup, "
    assert found.text.startswith(bound if allowed == "100000" else "64 core(s) of 99, ")


@needs_tensorflow
def test_without_tensorflow_nothing_is_trained(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "tensorflow" else known(name)
    )
    monkeypatch.setattr(interpreter, "IMAGE", tmp_path / "image")
    monkeypatch.setenv("PATH", str(tmp_path))
    [found] = to_be_done(user.examined())
    assert found.name == "trainer"
    words = f"-c {user.file} --userdir {user.folder}"
    assert f"Run `freqtrade-lstm trainer --install {words}`" in found.text


@needs_tensorflow
def test_an_interpreter_that_is_named_and_none_is_told(user: User) -> None:
    user.configure(lstm={**LSTM, "train_python": "no-such-python"})
    [found] = to_be_done(user.examined())
    assert "train_python = no-such-python is no Python that runs" in found.text


def test_a_tensorflow_that_cannot_be_imported_is_told_with_what_it_said(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(python: str) -> str:
        raise TrainingError("importing TensorFlow was ended by signal 4")

    monkeypatch.setattr(installation, "tensorflow_of", fail)
    [found] = to_be_done(user.examined())
    assert found.text.startswith(f"{sys.executable}, Python 3.")
    assert found.text.endswith("was ended by signal 4")


@pytest.mark.slow
def test_the_trainer_is_really_asked(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "tensorflow_of", tensorflow_of)
    findings = user.examined()
    assert only(findings, "trainer").state == State.GOOD
    assert only(findings, "tensorflow").text == metadata.version("tensorflow")


@pytest.mark.parametrize(
    ("version", "state", "part"),
    [
        ("2026.9.1", State.GOOD, "2026.9.1"),
        ("2026.10", State.NOTE, "yours is newer"),
        ("2025.3", State.TODO, "older than what was tested"),
    ],
)
def test_other_releases_than_those_that_were_tested_are_told(
    user: User, monkeypatch: pytest.MonkeyPatch, version: str, state: State, part: str
) -> None:
    known = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: version if name == "freqtrade" else known(name)
    )
    found = only(user.examined(), "freqtrade")
    assert (found.state, part in found.text) == (state, True)


@pytest.mark.long
@pytest.mark.lengthy
@pytest.mark.parametrize("library", ["freqtrade", "talib"])
def test_a_library_that_cannot_be_imported_ends_no_other_check(user: User, library: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from lstm_model.commands.main import main\n"
        f"main(['doctor', '--offline', '--userdir', {str(user.folder)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "TODO" in done.stdout
    assert library in done.stdout
    assert "ok   Python" in done.stdout


# ---------------------------------------------------------------- money


KEYS = {"key": "PLANTED-1", "secret": "PLANTED-2"}
ON = {"entry": "limit", "exit": "limit", "stoploss": "market", "stoploss_on_exchange": True}


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({}, "exchange.key and exchange.secret are empty"),
        ({"key": "", "secret": ""}, "exchange.key and exchange.secret are empty"),
        ({"key": "PLANTED-1"}, "exchange.secret is empty"),
        ({"apiKey": None, "secret": "PLANTED-2"}, "exchange.key is empty"),
    ],
)
def test_money_without_keys_is_something_to_do(
    user: User, keys: dict[str, Any], missing: str
) -> None:
    user.configure(dry_run=False, exchange={**COMPLETE["exchange"], **keys}, order_types=ON)
    [found] = to_be_done(user.examined())
    assert (found.name, found.text) == ("money", f"dry_run is false and {missing}")
    assert "a file of their own, named by one more -c" in found.todo
    code, text = told(user, "-c", str(user.file))
    assert (code, "PLANTED" in text, "1 thing(s) to do" in text) == (1, False, True)


@pytest.mark.parametrize("form", [KEYS, {"ccxt_config": {"apiKey": "x", "secret": "y"}}])
def test_money_with_keys_and_stops_on_the_exchange_is_good(
    user: User, form: dict[str, Any]
) -> None:
    user.configure(dry_run=False, exchange={**COMPLETE["exchange"], **form}, order_types=ON)
    findings = user.examined()
    assert to_be_done(findings) == []
    assert only(findings, "money").state == State.GOOD
    assert "stops" not in by_name(findings)


@pytest.mark.lengthy
def test_stops_that_the_bot_keeps_to_itself_are_remarked_where_there_is_money(user: User) -> None:
    """The strategy's count where the configuration names none."""
    for off in ({}, {"order_types": {**ON, "stoploss_on_exchange": False}}):
        user.configure(dry_run=False, exchange={**COMPLETE["exchange"], **KEYS}, **off)
        found = only(user.examined(), "stops")
        assert found.state == State.NOTE
        assert "order_types.stoploss_on_exchange is off" in found.text
    user.configure(order_types=ON)
    assert not {"money", "stops"} & by_name(user.examined()).keys()  # a dry run


# ---------------------------------------------------------------- secrets and the network


def _leaks(text: str) -> list[bytes]:
    return [form for form in secret_forms() if form in text.encode()]


@pytest.mark.lengthy
def test_no_secret_is_shown_whatever_is_wrong_around_it(user: User) -> None:
    """In the section whose schema is broken, as a value of the wrong kind, in a broken file."""
    private = private_settings(8080)
    exchange = {**COMPLETE["exchange"], **private.pop("exchange")}
    spoilt: list[dict[str, Any]] = [
        {},
        {"exchange": {**exchange, "key": [exchange["key"]]}},
        {"telegram": {**private["telegram"], "enabled": private["telegram"]["token"]}},
        {"api_server": {**private["api_server"], "listen_port": private["api_server"]["password"]}},
        {"lstm": {"horizon": exchange["secret"], "journal_url": [exchange["key"]]}},
        {"strategy": exchange["secret"]},
        {"exchange": {**exchange, "name": exchange["key"]}},
    ]
    for changes in spoilt:
        user.configure(**{"exchange": exchange, **private, **changes})
        for words in ((), ("--json",)):
            _, text = told(user, "-c", str(user.file), *words)
            assert _leaks(text) == [], changes
    for cut in range(0, len(whole := user.file.read_text()), 97):
        user.file.write_text(whole[:cut] + "\n" + whole[cut + 1 :])
        assert _leaks(told(user, "-c", str(user.file))[1]) == [], cut


@pytest.mark.lengthy
@needs_tensorflow
def test_what_freqtrade_would_log_is_not_shown(user: User) -> None:
    """Options of ccxt, and the address of a proxy."""
    options = {"apiKey": "PLANTED-1", "headers": {"X-Token": "PLANTED-2"}, "timeout": 1_000,
               "aiohttp_proxy": "http://me:PLANTED-3@127.0.0.1:9"}  # fmt: skip
    user.configure(exchange={**COMPLETE["exchange"], "ccxt_config": options})
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_VERSION"}
    done = subprocess.run(  # under pytest freqtrade leaves all loggers as they are
        [sys.executable, "-m", "lstm_model", "doctor", "--userdir", str(user.folder)],
        capture_output=True, text=True, check=False, env={**env, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "note clock" in done.stdout
    assert "PLANTED" not in done.stdout


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"the network was used: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("exchange", [{}, {"pair_whitelist": PAIRS}, {"name": ""}])
def test_no_network_is_used_where_no_exchange_is_named(
    user: User, exchange: dict[str, Any]
) -> None:
    user.configure(exchange=exchange)
    assert "config" in by_name(to_be_done(user.examined(offline=False)))


@pytest.mark.usefixtures("_no_network")
def test_offline_no_network_is_used(user: User) -> None:
    assert to_be_done(user.examined()) == []


def test_count_of_candles_is_what_the_tests_count_on() -> None:
    assert LSTM["train_candles"] + 62 * 24 < COUNT
