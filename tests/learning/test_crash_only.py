"""A bot that is killed at any moment goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crashing_bot import AT_LEAST, PAIRS, SERIES, SETTINGS, outcome
from instant_training import make_maker
from places import TESTS, needs_tensorflow

Facts = dict[str, Any]

BOT = TESTS / "crashing_bot.py"
FEW = 4  # kills in the fast tests
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # who forks has no other
RAM_DISK = Path("/dev/shm")  # noqa: S108 - a kill loses nothing that the system has been given
KEPT = ("head", "champions", "widths", "steps", "forecasts", "decisions")

HANDLES = Path("/proc/self/fd")
pytestmark = [
    pytest.mark.skipif(not HANDLES.exists(), reason="no way to say what is synced"),
    needs_tensorflow,  # its bots are processes, which look for a Python that trains
]


def run_bot(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "error", str(BOT), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | ONE_THREAD, check=False)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(FEW, id="few", marks=pytest.mark.lengthy),
        pytest.param(0, id="all", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def survey(request: pytest.FixtureRequest) -> Iterator[Facts]:
    """What became of bots that were killed: at a few points, or at every kind of point."""
    parent = RAM_DISK if os.access(RAM_DISK, os.W_OK) else None  # bots mostly wait for the disk
    folder = Path(tempfile.mkdtemp(prefix="crashing-bot-", dir=parent))
    try:
        run_bot("survey", folder, request.param, 1).check_returncode()
        yield json.loads((folder / "report.json").read_text())
    finally:
        shutil.rmtree(folder)


def story(survey: Facts) -> Facts:
    """The outcome of the bot that nobody killed."""
    return dict(survey["lived"]["answer"])


def kills(survey: Facts) -> Iterator[tuple[str, Facts, Facts]]:
    """Where a bot was killed, what the next start had, and how it ended."""
    for kill in survey["kills"]:
        where = f"{kill['number']}: {name_of(kill, survey)}"
        yield where, kill["back"]["answer"], kill["on"]["answer"]


def name_of(kill: Facts, survey: Facts) -> str:
    """What the bot was about to do, or had just done."""
    return str(survey["names"][kill["number"] - 1])


def is_within(part: Facts, whole: Facts) -> bool:
    return part.items() <= whole.items()


@pytest.mark.lengthy
def test_the_bots_live_through_all_that_a_learner_does_and_die_everywhere(
    survey: Facts, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, names = story(survey), [name_of(kill, survey) for kill in survey["kills"]]
    told = Counter(name.split()[1] for name in whole["decisions"])
    assert told["trained"] >= 5
    assert told["promoted"] >= 1
    assert len(whole["steps"]) >= 8
    assert len({key.split()[-1] for key in whole["forecasts"]}) >= 2
    assert all(kill["killed"] for kill in survey["kills"])
    if "all" in request.node.callspec.id:
        tried, there = Counter(names), Counter(survey["names"])
        assert all(tried[name] >= min(AT_LEAST, count) for name, count in there.items())
    else:
        assert len(names) == FEW
    with capsys.disabled():
        print(
            f"\nkilled at {len(names)} of {len(survey['names'])} points, "
            f"of {len(set(names))} of {len(set(survey['names']))} kinds"
        )


def test_no_start_after_a_kill_complains_or_fails(survey: Facts) -> None:
    for kill in survey["kills"]:
        complaints = kill["back"]["complaints"] + kill["on"]["complaints"]
        assert complaints == [], name_of(kill, survey)
    assert survey["lived"]["complaints"] == []


def test_after_a_kill_the_last_good_champion_serves_with_exactly_its_widths(survey: Facts) -> None:
    for where, back, _ in kills(survey):
        if back["head"] is None:
            assert back["now"] == {pair: [] for pair in PAIRS}, where
            continue
        assert back["later"] == back["expected"], where
        assert all(back["later"].values()), where
        assert all(back["now"].values()), where


def test_what_is_on_disk_after_a_kill_is_whole_and_a_part_of_the_story(survey: Facts) -> None:
    whole = story(survey)
    for where, back, _ in kills(survey):
        assert is_within(back["steps"], whole["steps"]), where
        assert is_within(back["decisions"], whole["decisions"]), where
        if back["head_row"] is not None:
            decided = {k: v for k, v in whole["decisions"].items() if row(k) <= back["head_row"]}
            assert is_within(decided, back["decisions"]), where
        if back["is_in_time"]:
            assert is_within(back["forecasts"], whole["forecasts"]), where


def row(name: str) -> int:
    return int(name.split()[0])


def test_after_a_kill_everything_ends_as_it_would_have_without(survey: Facts) -> None:
    whole = story(survey)
    for where, _, on in kills(survey):
        assert {name: on[name] for name in KEPT} == {name: whole[name] for name in KEPT}, where
        assert all(on["competing"].values()), where


def test_damage_between_two_lives_leads_to_the_same_chain_or_to_a_new_one_that_is_told(
    survey: Facts,
) -> None:
    whole, stories = story(survey)["steps"], survey["stories"]["answer"]
    assert stories[0].items() <= whole.items()
    assert sum(harm["hit"] for harm in survey["harms"]) >= len(survey["harms"]) / 2 > 1
    for harm in survey["harms"]:
        tracebacks = [line for line in harm["on"]["complaints"] if "Traceback" in line]
        assert tracebacks == [], harm["where"]
        assert any(harm["line"].items() <= chain.items() for chain in stories), harm["where"]
        told = [line for line in harm["on"]["answer"] if "anew" in line]
        # A loss of all models at once shows twice: at the start, and when a step goes on from them.
        assert len(told) <= 1 + ("all weights" in harm["where"]), (harm["where"], told)
        assert harm["line"].items() <= stories[0].items() or told, harm["where"]


def test_no_model_is_trained_again_that_was_published(survey: Facts) -> None:
    lines = survey["trainings"]
    made = {
        digest: next(name for kind, name in lines[number:] if kind == "publish")
        for number, (what, digest) in enumerate(lines)
        if what == "train"
    }
    assert len(made) == len([line for line in lines if line[0] == "train"]) >= 5
    for where, back, on in kills(survey):
        assert len(set(on["trained"])) == len(on["trained"]), where
        assert set(on["trained"]) <= made.keys(), where
        assert not {made[digest] for digest in on["trained"]} & set(back["intact"]), where


def test_a_kill_leaves_nothing_behind_for_long(survey: Facts) -> None:
    for where, _, on in kills(survey):
        assert on["leftovers"] == [], where
        # Two are there to go on from; what was there before them goes when the next step is made.
        assert {*on["newest"][:2]} <= {*on["arrays"]} <= {*on["newest"]}, where
        # Those that compete are kept beside; the others go when the next is trained.
        assert on["models"] <= SETTINGS.keep_models + 2, where


def test_only_folders_of_trainings_that_ended_long_ago_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = [tmp_path / name for name in ("lstm-training-old", "lstm-training-new", "another")]
    for folder in folders:
        folder.mkdir()
        (folder / "job.npz").write_bytes(b"rows")
    day_ago_s, long_ago_s = time.time() - 86_400.0, time.time() - 3 * 86_400.0
    for folder, modified_s in zip(folders, (long_ago_s, day_ago_s, 0.0), strict=True):
        os.utime(folder, (modified_s, modified_s))
    make_maker(tmp_path / "store", SERIES).remove_leftovers()
    assert [folder.exists() for folder in folders] == [False, True, True]


@pytest.mark.long
@pytest.mark.slow
def test_a_bot_of_its_own_process_dies_and_goes_on_too(tmp_path: Path) -> None:
    assert run_bot(tmp_path, 250).returncode == -signal.SIGKILL
    run_bot(tmp_path, 0).check_returncode()
    assert outcome(tmp_path)["head"] is not None
