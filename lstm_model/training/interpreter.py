"""Which Python interpreter trains: one that has TensorFlow, which the bot's own need not have."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from lstm_model.errors import TrainingError

# What its environment needs, as in the extra `train` and the dependencies of pyproject.toml. Where
# there is a TensorFlow without the code for GPUs, that one: measured, it takes 1.3 GB of 1.9.
NEEDS = (
    "tensorflow-cpu>=2.21,<2.23; sys_platform=='linux' and platform_machine=='x86_64'",
    "tensorflow>=2.21,<2.23; sys_platform!='linux' or platform_machine!='x86_64'",
    "pydantic>=2.10,<3", "numpy>=2.2",
)  # fmt: skip
NAMES = ("python3.13", "python3.12", "python3.11")  # which TensorFlow exists for, newest first
FOLDER = "trainer"  # of an environment for training, beside the models
IMAGE = Path("/opt/lstm-trainer")  # where a container image has one, see the Dockerfile

_LEAST = (3, 11)  # what this package runs on
_PATIENCE_S = 30.0  # chosen: an interpreter on a disk that is busy begins in a few
# Where a training begins: what a name on PATH means there, as with pyenv, is what counts. A folder
# that is called tensorflow is none.
_LOOK = """
import importlib.util, json, sys
sys.path = [path for path in sys.path if path]
found = importlib.util.find_spec("tensorflow")
has_tensorflow = found is not None and found.origin is not None
print()
print(json.dumps([sys.executable, sys.version_info[:3], has_tensorflow]))
"""


class Interpreter(NamedTuple):
    """One that was looked at.

    Attributes
    ----------
    python : path of its program, whatever name led to it
    version : (major, minor, micro)
    has_tensorflow : whether it is installed; whether it can be imported, a training finds
    """

    python: str
    version: tuple[int, ...]
    has_tensorflow: bool

    @classmethod
    def at(cls, python: str) -> Self | None:
        """The one behind a path or a name on PATH; None where there is none that runs."""
        if (path := shutil.which(os.path.expanduser(python))) is None:
            return None
        path = os.path.abspath(path)
        with suppress(OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
            done = subprocess.run(  # noqa: S603 - the user names it, or it is one of ours
                [path, "-c", _LOOK], capture_output=True, text=True, timeout=_PATIENCE_S,
                env=None if path == sys.executable else environment_of_another(), check=True,
                cwd=tempfile.gettempdir(),
            )  # fmt: skip
            program, version, has_tensorflow = json.loads(done.stdout.splitlines()[-1])
            return cls(program or path, tuple(version), bool(has_tensorflow))
        return None

    @property
    def release(self) -> str:
        """Its version as people write it."""
        return ".".join(map(str, self.version))

    @property
    def trains(self) -> bool:
        """Whether it can be expected to train."""
        return self.has_tensorflow and self.version >= _LEAST


def find(named: str | None, store: Path, words: str = "") -> Interpreter:
    """The interpreter that trains.

    The first of these that has TensorFlow: `named`, and then no other; this one; that of the folder
    `trainer` beside the models; `/opt/lstm-trainer`, which container images have; `python3.13`,
    `python3.12`, `python3.11` on PATH.

    Parameters
    ----------
    named : the option `train_python`, a path or a name on PATH; None: look for one
    store : where the models are
    words : that name the configuration to a command, each after a blank

    Raises
    ------
    TrainingError
        There is none, or it lacks TensorFlow; says what to run.
    """
    if not Path((found := _found(named, store, words)).python).exists():  # it was, a while ago
        _found.cache_clear()
        found = _found(named, store, words)
    return found


@cache  # of those that were found; one that is missing may be installed meanwhile
def _found(named: str | None, store: Path, words: str) -> Interpreter:
    install = f"`freqtrade-lstm trainer --install{words}`"
    if named is not None:
        return _wanted(named, install)
    looked_at = []
    for found, name in _candidates(store):
        if found is not None and found.trains:
            return found
        looked_at.append(name)
    raise TrainingError(
        "there is no Python with TensorFlow to train networks with: looked at "
        f"{', '.join(looked_at)}. Run {install}, or name an interpreter that has it by the option "
        "train_python"
    )


def _wanted(named: str, install: str) -> Interpreter:
    found = Interpreter.at(named)
    if found is None:
        problem = "is no Python that runs"
    elif found.version < _LEAST:
        problem = f"is Python {found.release}, 3.11 is the least"
    elif not found.has_tensorflow:
        command = shlex.join([found.python, "-m", "pip", "install", "tensorflow", "pydantic"])
        problem = f"has no TensorFlow, which `{command}` installs"
    else:
        return found
    raise TrainingError(
        f"train_python = {named} {problem}. Name another, or run {install} and leave train_python "
        "out"
    )


def _candidates(store: Path) -> Iterator[tuple[Interpreter | None, str]]:
    """Where to look, in this order, and what is there."""
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    yield Interpreter(sys.executable, sys.version_info[:3], has_tensorflow), sys.executable
    for folder in (store / FOLDER, IMAGE):
        program = str(program_of(folder))
        yield Interpreter.at(program) if _is_ours(folder) else None, program
    for name in NAMES:
        yield Interpreter.at(name), name


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put it there or changed it: what it holds is run unasked."""
    if not hasattr(os, "geteuid"):  # on Windows
        return True
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & stat.S_IWOTH


def program_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    windows = sys.platform == "win32"
    return folder / ("Scripts" if windows else "bin") / ("python.exe" if windows else "python")


def environment_of_another() -> dict[str, str]:
    """This process's environment without what only this interpreter is to know."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
