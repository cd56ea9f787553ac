"""Replays in which something goes wrong: what is left equals what is left without, or nearly."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e import environment
from places import ROOT

pytestmark = pytest.mark.e2e

START = "2024-07-10T16:00"
MINUTE_MS = 60_000
START_MS = 1_720_627_200_000
OF_FORECAST = "version, quantiles, volatility, mean, low, high, mean_error, lowest, highest"
OF_TRADE = "pair, open_date, close_date, open_rate, close_rate, amount, exit_reason, is_open"


@dataclass(frozen=True)
class Replayed:
    """What a replay left in its folder and said at its end."""

    folder: Path
    said: dict[str, Any]

    def forecasts(self) -> dict[tuple[str, int], tuple[Any, ...]]:
        """By pair and candle."""
        rows = self._rows("live/journal.sqlite", f"pair, candle_ms, {OF_FORECAST}", "forecast")
        return {row[:2]: row[2:] for row in rows}

    def created(self) -> dict[tuple[str, int], int]:
        """When they were made, by pair and candle."""
        rows = self._rows("live/journal.sqlite", "pair, candle_ms, created_ms", "forecast")
        return {row[:2]: row[2] for row in rows}

    def made_late(self) -> set[int]:
        """Minutes of the window in which candles opened that were forecast late."""
        return {
            (candle_ms - START_MS) // MINUTE_MS
            for (_, candle_ms), created_ms in self.created().items()
            if candle_ms >= START_MS and created_ms > candle_ms + 2 * MINUTE_MS
        }

    def decisions(self) -> list[tuple[Any, ...]]:
        return self._rows("live/journal.sqlite", "at_ms, kind, version, text", "decision")

    def trades(self) -> list[tuple[Any, ...]]:
        return self._rows("trades.sqlite", OF_TRADE, "trades")

    def log(self) -> str:
        return (self.folder / "bot.log").read_text()

    def _rows(self, name: str, columns: str, table: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(self.folder / name)
        try:
            query = f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3"  # noqa: S608 - all ours
            return database.execute(query).fetchall()
        finally:
            database.close()


def replay(
    folder: Path, hours: float, *incidents: str, start: str = START, apart: Sequence[str] = (),
    **variables: str,
) -> Replayed:  # fmt: skip
    """Replay in a process of its own, which must leave nothing behind."""
    script = ROOT / "tests/replayed_bot.py"
    done = subprocess.run(
        [*apart, sys.executable, script, folder, start, str(hours), *incidents],
        cwd=ROOT, env={**environment(), **variables}, text=True, capture_output=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    replayed = Replayed(folder, json.loads(done.stdout))
    said = replayed.said
    assert said["missed"] == []
    assert said["threads"] == ["MainThread"]
    assert (said["children"], said["sockets"], said["files"]) == ([], [], [])
    assert said["frames"] == []  # of a bot, in the log that freqtrade keeps
    return replayed


def opened_before(replayed: Replayed, time: str) -> set[tuple[Any, ...]]:
    """Pair, time and rate of the entries until then."""
    return {(row[0], row[1], row[3]) for row in replayed.trades() if row[1][11:16] < time}


def with_models_of(other: Replayed, folder: Path) -> Path:
    """A folder with what was trained there, so that it need not be trained again."""
    for part in ("models", "steps"):
        shutil.copytree(other.folder / "live" / part, folder / "live" / part)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Forty minutes without any incident."""
    replayed = replay(tmp_path_factory.mktemp("plain"), 2 / 3)
    assert replayed.said["finished"]
    assert len(replayed.trades()) >= 5
    return replayed


@pytest.mark.long
def test_the_same_replay_leaves_the_same(plain: Replayed, tmp_path: Path) -> None:
    again = replay(with_models_of(plain, tmp_path), 2 / 3)
    assert again.trades() == plain.trades()
    assert again.forecasts() == plain.forecasts()
    assert again.created() == plain.created()
    assert plain.made_late() == set()


def test_after_an_outage_all_is_forecast_as_without(plain: Replayed, tmp_path: Path) -> None:
    folder = with_models_of(plain, tmp_path)
    hit = replay(folder, 2 / 3, "outage@2024-07-10T16:10:20/12m")
    assert hit.forecasts() == plain.forecasts()
    assert hit.decisions() == plain.decisions()
    assert hit.made_late() == set(range(10, 22))
    assert hit.trades() != plain.trades()
    assert not [row for row in hit.trades() if "16:10:20" < row[1][11:19] < "16:22:20"]
    assert [row for row in hit.trades() if row[1][11:16] >= "16:22"]
    assert "ExchangeNotAvailable" in hit.log()
    assert hit.log().count("Trade stream: following 3 pair(s)") == 2


@pytest.mark.long
def test_a_late_candle_changes_nothing_but_when(plain: Replayed, tmp_path: Path) -> None:
    folder = with_models_of(plain, tmp_path)
    hit = replay(folder, 2 / 3, "late@2024-07-10T16:10/90s")
    assert hit.forecasts() == plain.forecasts()
    assert hit.made_late() == {10, 11}
    assert opened_before(hit, "16:10") == opened_before(plain, "16:10")


@pytest.mark.long
def test_missing_candles_are_not_forecast(plain: Replayed, tmp_path: Path) -> None:
    folder = with_models_of(plain, tmp_path)
    hit, whole = replay(folder, 2 / 3, "missing@2024-07-10T16:20/3m").forecasts(), plain.forecasts()
    lacking = {(candle_ms - START_MS) / MINUTE_MS for _, candle_ms in whole.keys() - hit.keys()}
    assert lacking == {20.0, 21.0, 22.0}
    before = {key for key in hit if key[1] < START_MS + 20 * MINUTE_MS}
    assert all(hit[key] == whole[key] for key in before)
    assert not any(hit[key] == whole[key] for key in hit.keys() - before)  # which look back on them


@pytest.mark.long
def test_a_restart_changes_nothing_but_when(plain: Replayed, tmp_path: Path) -> None:
    folder = with_models_of(plain, tmp_path)
    hit = replay(folder, 2 / 3, "restart@2024-07-10T16:10:20/4m")
    assert hit.forecasts() == plain.forecasts()
    assert hit.decisions() == plain.decisions()
    assert hit.made_late() == set(range(10, 13))
    assert not [row for row in hit.trades() if "16:10:20" < row[1][11:19] < "16:14:20"]
    assert len(hit.trades()) >= 5
    assert hit.log().count("Starting worker") == 2


@pytest.mark.long
def test_a_training_that_is_killed_is_made_again(tmp_path: Path) -> None:
    hit = replay(tmp_path, 1 / 3, "kill@2024-07-10T00:10", start="2024-07-10T00:10")
    messages = (tmp_path / "messages.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in messages]
    failed = [line for line in told if "Training failed, no model yet" in str(line.get("msg"))]
    assert [line["at"] for line in failed] == ["2024-07-10 00:10:01"]
    assert "ended by SIGKILL" in failed[0]["msg"]
    window_ms = START_MS - (15 * 60 + 50) * MINUTE_MS
    made = [ms for (_, candle_ms), ms in hit.created().items() if candle_ms >= window_ms]
    assert min(made) == window_ms + 10 * MINUTE_MS + 1_000
    assert len(made) == 3 * 19  # the model serves 12 candles after midnight


def apart(folder: Path) -> list[str]:
    """What runs a command with a small file system where a replay in the folder has its store.

    What lay there is in it, and a copy of it there when the command is over.
    """
    store, kept = folder / "live", folder / "kept"
    script = (
        f"mount -t tmpfs -o size=100m tmpfs {kept} && cp -r {store}/. {kept} && "
        f'mount --move {kept} {store} && "$@"; status=$?; '
        f"cp -r {store}/. {kept} && exit $status"
    )
    kept.mkdir(parents=True)
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


@pytest.mark.long
def test_what_else_goes_wrong_changes_no_forecast_but_of_a_pair_that_is_halted(
    plain: Replayed, tmp_path: Path
) -> None:
    hit = replay(
        with_models_of(plain, tmp_path), 2 / 3,
        "reload@2024-07-10T16:06:20", "halt@2024-07-10T16:12/5m", "stream@2024-07-10T16:22/3m",
    )  # fmt: skip
    forecasts, whole = hit.forecasts(), plain.forecasts()
    halted_ms = START_MS + 12 * MINUTE_MS
    assert {key for key in whole.keys() - forecasts.keys() if key[0] != "XRP/USDT"} == set()
    for key, said in forecasts.items():
        if key[0] != "XRP/USDT" or key[1] < halted_ms:
            assert said == whole[key], key
    assert [key for key in forecasts if key[0] == "XRP/USDT" and key[1] > halted_ms]
    assert hit.log().count("Changing state from RELOAD_CONFIG to: RUNNING") == 1
    assert hit.log().count("Trade stream: following 3 pair(s)") >= 3  # start, reload, cut
    messages = (tmp_path / "messages.jsonl").read_text()
    assert "running after config reloaded" in messages


def test_with_a_locked_journal_and_on_a_full_disk_forecasts_wait_until_they_can_be_written(
    plain: Replayed, tmp_path: Path
) -> None:
    folder = with_models_of(plain, tmp_path)
    command = apart(folder)
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command[:4], "true"], check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    wrong = ["locked@2024-07-10T16:04/4m", "full@2024-07-10T16:10/4m"]
    hit = replay(folder, 1 / 3, *wrong, apart=command)
    shutil.copytree(folder / "kept", folder / "live", dirs_exist_ok=True)
    end_ms = START_MS + 20 * MINUTE_MS
    whole = {key: said for key, said in plain.forecasts().items() if key[1] < end_ms}
    assert hit.forecasts() == whole
    assert hit.decisions() == plain.decisions()
    assert "Incident: locked@" in hit.log()
    assert "No space left on device" in hit.log()
    assert not (folder / "live" / "nothing-is-free").exists()


def test_a_full_disk_needs_one_that_may_be_filled(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/replayed_bot.py", tmp_path, START, "0.5",
         "full@2024-07-10T16:10/4m"],
        cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "is no file system of its own" in done.stderr
    assert done.returncode == 1


def test_ctrl_c_ends_a_replay_in_the_middle_of_an_outage(plain: Replayed, tmp_path: Path) -> None:
    folder = with_models_of(plain, tmp_path)
    ended = replay(folder, 2 / 3, "outage@2024-07-10T16:03/20m", SIGNAL="SIGINT", LOOKS="8")
    assert not ended.said["finished"]
    assert ended.said["looks"] == 8


@pytest.mark.long
def test_sigterm_ends_a_replay_that_trains(tmp_path: Path) -> None:
    ended = replay(tmp_path, 1.0, SIGNAL="SIGTERM", LOOKS="40")
    assert not ended.said["finished"]
    assert ended.trades() == []
