"""An environment that trains is made, or it is said why not; so is what an interpreter imports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lstm_model.errors import TrainingError
from lstm_model.setup.environment import install, tensorflow_of
from lstm_model.training.interpreter import Interpreter, program_of


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_what_is_installed_here_can_be_imported() -> None:
    assert tensorflow_of(sys.executable).startswith("2.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo some warning; echo; echo 2.21.0", ""),
        ("echo 'ImportError: DLL' >&2; exit 1", "ended with code 1: ImportError: DLL"),
        ("exit 3", "ended with code 3: it wrote no message"),
        ("kill -ILL $$", "was ended by signal 4"),
        ("exec sleep 60", "took longer than 0.5 s"),
    ],
)
def test_why_tensorflow_cannot_be_imported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr("lstm_model.setup.environment._IMPORT_S", 0.5)
    python = program(tmp_path / "python", text)
    if not said:
        assert tensorflow_of(python) == "2.21.0"
        return
    with pytest.raises(TrainingError, match=said):
        tensorflow_of(python)


def test_an_environment_that_it_has_not_made_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("version = 3.9.1\n")
    (tmp_path / "mine").write_text("mine")
    for folder in (tmp_path, Path(sys.prefix)):
        with pytest.raises(TrainingError, match="was not made by this command"):
            install(folder, None, print)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "user/notes.txt"])
def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    folder = tmp_path / name if "/" in name else tmp_path
    with pytest.raises(TrainingError, match="nothing was changed"):
        install(folder, None, print)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_where_no_python_is_known_to_tensorflow_it_is_said_how_to_get_one(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_model.setup.environment.NAMES", ("python3.9",))
    with pytest.raises(TrainingError, match=r"python3\.13-venv"):
        install(alone / "new", None, print)
    with pytest.raises(TrainingError, match=r"--python python3\.99 is no Python that runs"):
        install(alone / "new", "python3.99", print)
    assert not (alone / "new").exists()


@pytest.mark.long
@pytest.mark.lengthy
def test_an_installation_that_fails_says_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_model.setup.environment.NEEDS", ("no-such-thing-at-all==1",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(TrainingError, match=r"to install TensorFlow failed: .* goes on"):
        install(tmp_path / "new", sys.executable, print)
    assert Interpreter.at(str(program_of(tmp_path / "new"))) is not None
    (tmp_path / "new" / "left of another").mkdir()
    program_of(tmp_path / "new").unlink()
    with pytest.raises(TrainingError, match=r"to install TensorFlow failed: .* goes on"):
        install(tmp_path / "new", sys.executable, print)
    assert not (tmp_path / "new" / "left of another").exists()
