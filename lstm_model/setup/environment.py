"""Makes an environment that trains, for a bot whose Python has no TensorFlow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from lstm_model.errors import TrainingError
from lstm_model.training.interpreter import (
    NAMES,
    NEEDS,
    Interpreter,
    environment_of_another,
    program_of,
)  # fmt: skip

_MARK = "lstm-trainer"  # a file in every folder that was made here; no other is touched
_IMPORT_S = 120.0  # chosen: on a slow disk it takes 20 s
_IMPORT = "import tensorflow, pydantic; print(tensorflow.__version__)"


def install(
    folder: Path, python: str | None, tell: Callable[[str], object]
) -> tuple[Interpreter, str]:
    """Make the environment, or mend the one that is there, and look whether it can train.

    What `venv` and `pip` say goes to the terminal.

    Parameters
    ----------
    folder : where; made when missing. It may be one of ours that was left unfinished
    python : the interpreter it is of, a path or a name on PATH; None: one that TensorFlow is
        known to exist for, this one if it is
    tell : gets a line when it begins

    Returns
    -------
    the environment's interpreter, and its TensorFlow's version

    Raises
    ------
    TrainingError
        The folder is somebody else's, there is no such Python, or it cannot be installed.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / _MARK).is_file() and any(_entries(folder)):
        raise TrainingError(
            f"{folder} is there and was not made by this command: nothing was changed. Name "
            "another folder"
        )
    base, own = _base(python), str(program_of(folder))
    _clear(folder, base)
    tell(f"Installing TensorFlow, about 1 GB, into {folder} ...")
    _run([base.python, "-m", "venv", str(folder)], "to make the environment")
    _run([own, "-m", "pip", "install", "--no-input", *NEEDS], "to install TensorFlow")
    found = Interpreter.at(own)
    if found is None or not found.trains:
        raise TrainingError(f"{own} was made and does not run")
    return found, tensorflow_of(own)


@cache  # of those that can
def tensorflow_of(python: str) -> str:
    """The version of the TensorFlow that an interpreter imports, which takes it seconds.

    Raises
    ------
    TrainingError
        It cannot; says what it wrote last.
    """
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment = dict(os.environ) if python == sys.executable else environment_of_another()
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter that was found
            [python, "-c", _IMPORT], capture_output=True, text=True, errors="replace",
            env=environment | quiet, timeout=_IMPORT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TrainingError(f"importing TensorFlow took longer than {_IMPORT_S:g} s") from None
    except OSError as error:
        raise TrainingError(f"it cannot be started: {error}") from None
    if done.returncode == 0:
        return done.stdout.split()[-1]
    how = f"was ended by signal {-done.returncode}"
    if done.returncode > 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it wrote no message"]
        how = f"ended with code {done.returncode}: {last[0]}"
    raise TrainingError(f"importing TensorFlow {how}")


def _clear(folder: Path, base: Interpreter) -> None:
    """A folder that is known as ours from the first moment, without what is of another Python."""
    there = Interpreter.at(str(program_of(folder)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).write_text("Made by `freqtrade-lstm trainer --install`.\n")
        if there is None or there.version != base.version:
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != _MARK:
                    path.unlink()
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror}") from None


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except NotADirectoryError:
        yield folder


def _base(python: str | None) -> Interpreter:
    names = (sys.executable, *NAMES) if python is None else (python,)
    for name in names:
        found = Interpreter.at(name)
        if found is not None and (python is not None or _is_known(found)):
            return found
    if python is not None:
        raise TrainingError(f"--python {python} is no Python that runs")
    raise TrainingError(
        f"TensorFlow exists for {', '.join(NAMES)}, and none of them is on PATH. Install one (on "
        "Debian and Ubuntu `apt install python3.13-venv`, or `uv python install 3.13`) and name it "
        "by --python"
    )


def _is_known(found: Interpreter) -> bool:
    return f"python{found.version[0]}.{found.version[1]}" in NAMES


def _run(command: Sequence[str], what: str) -> None:
    try:
        subprocess.run(command, env=environment_of_another(), check=True)  # noqa: S603 - named
    except (OSError, subprocess.CalledProcessError) as error:
        raise TrainingError(f"{what} failed: {error}. The same command goes on from here") from None
