"""Who finds the Python that trains, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import ROOT, needs_tensorflow

from lstm_model.errors import TrainingError
from lstm_model.training import interpreter
from lstm_model.training.interpreter import NAMES, NEEDS, Interpreter, find, program_of

Place = Callable[[Path, list[int], bool], Path]


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    interpreter._found.cache_clear()
    yield
    interpreter._found.cache_clear()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This Python has no TensorFlow, nor has any other; the folder is on PATH."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else real(name)
    )
    monkeypatch.setattr(interpreter, "IMAGE", tmp_path / "image")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def place() -> Place:
    """Puts a program that answers as an interpreter of this version would."""

    def put(path: Path, version: list[int], has_tensorflow: bool) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        said = json.dumps([str(path), version, has_tensorflow])
        path.write_text(f"#!/bin/sh\necho 'Welcome!'\necho '{said}'\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


@needs_tensorflow
def test_this_one_trains_where_it_has_tensorflow(tmp_path: Path) -> None:
    found = find(None, tmp_path)
    assert found == Interpreter(sys.executable, sys.version_info[:3], True)


def test_else_the_first_of_the_known_places(alone: Path, place: Place) -> None:
    by_name, store = [alone / "bin" / name for name in reversed(NAMES)], alone / "lstm"
    for newest in [*by_name, program_of(alone / "image"), program_of(store / "trainer")]:
        place(newest, [3, 12, 1], True)
        interpreter._found.cache_clear()
        assert find(None, store).python == str(newest)


def test_one_without_tensorflow_or_too_old_is_passed_by(alone: Path, place: Place) -> None:
    place(program_of(alone / "lstm" / "trainer"), [3, 12, 1], False)
    place(alone / "bin" / "python3.13", [3, 10, 9], True)
    wanted = place(alone / "bin" / "python3.11", [3, 11, 0], True)
    assert find(None, alone / "lstm").python == str(wanted)


def test_without_any_it_is_said_where_was_looked_and_what_to_run(alone: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        find(None, alone / "lstm")
    said = str(caught.value)
    assert "Run `freqtrade-lstm trainer --install`" in said
    assert sys.executable in said
    assert str(program_of(alone / "lstm" / "trainer")) in said
    assert all(name in said for name in NAMES)


def test_one_that_is_installed_later_is_found(alone: Path, place: Place) -> None:
    with pytest.raises(TrainingError):
        find(None, alone)
    wanted = place(program_of(alone / "trainer"), [3, 13, 0], True)
    assert find(None, alone).python == str(wanted)


def test_one_that_is_gone_is_looked_for_again(alone: Path, place: Place) -> None:
    gone = place(program_of(alone / "trainer"), [3, 13, 0], True)
    assert find(None, alone).python == str(gone)
    gone.unlink()
    there = place(alone / "bin" / "python3.12", [3, 12, 0], True)
    assert find(None, alone).python == str(there)


def test_one_in_a_folder_that_others_may_write_is_not_run_unasked(
    alone: Path, place: Place
) -> None:
    named = place(program_of(alone / "trainer"), [3, 13, 0], True)
    (alone / "trainer").chmod(0o777)
    with pytest.raises(TrainingError, match="there is no Python with TensorFlow"):
        find(None, alone)
    assert find(str(named), alone).python == str(named)


def test_a_path_may_begin_at_home_or_here(
    alone: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = place(alone / "my env" / "python", [3, 13, 0], True)
    monkeypatch.setenv("HOME", str(alone))
    monkeypatch.chdir(alone)
    for name in ("~/my env/python", "my env/python"):
        assert find(name, alone).python == str(named)


def test_a_folder_of_that_name_is_no_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow").mkdir()
    monkeypatch.chdir(tmp_path)
    another = tmp_path / "python"
    another.symlink_to(os.path.realpath(sys.executable))
    found = Interpreter.at(str(another))
    assert found is not None
    assert not found.has_tensorflow


def test_one_that_is_named_is_the_only_one(alone: Path, place: Place) -> None:
    place(program_of(alone / "trainer"), [3, 13, 0], True)
    named = place(alone / "mine", [3, 11, 7], True)
    assert find(str(named), alone).python == str(named)


@pytest.mark.parametrize(
    ("version", "has_tensorflow", "said"),
    [
        ([3, 11, 7], False, "has no TensorFlow, which `{named} -m pip install tensorflow"),
        ([3, 10, 1], True, "is Python 3.10.1, 3.11 is the least"),
    ],
)
def test_of_one_that_is_named_and_cannot_train_it_is_said_why(
    alone: Path, place: Place, version: list[int], has_tensorflow: bool, said: str
) -> None:
    named = place(alone / "mine", version, has_tensorflow)
    place(program_of(alone / "trainer"), [3, 13, 0], True)  # is not asked
    with pytest.raises(TrainingError) as caught:
        find(str(named), alone)
    assert str(caught.value).startswith(f"train_python = {named} {said.format(named=named)}")


@pytest.mark.parametrize(
    "content", [None, "", *(f"#!/bin/sh\n{line}\n" for line in ("exit 1", "exit 0", "echo hello",
                                                               "echo 5", "echo '[1, 2, 3]'"))],
)  # fmt: skip
def test_what_is_no_python_is_named(tmp_path: Path, content: str | None) -> None:
    named = tmp_path / "mine"
    if content is not None:
        named.write_text(content)
        named.chmod(0o755)
    with pytest.raises(TrainingError, match=f"train_python = {named} is no Python that runs"):
        find(str(named), tmp_path)


def test_a_real_one_is_looked_at_without_what_this_one_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    another = tmp_path / "python"
    another.symlink_to(os.path.realpath(sys.executable))
    found = Interpreter.at(str(another))
    assert found is not None
    assert (found.version, found.has_tensorflow) == (sys.version_info[:3], False)


def test_what_an_environment_needs_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    assert {need.partition(";")[0].replace("-cpu", "") for need in NEEDS} <= {*said}
