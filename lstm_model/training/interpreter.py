"""Which Python interpreter trains: one that has TensorFlow, which the bot's own need not have."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
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
_LOOK = (
    "import importlib.util, json, sys; "
    "print(json.dumps([list(sys.version_info[:3]), "
    "importlib.util.find_spec('tensorflow') is not None]))"
)


class Interpreter(NamedTuple):
    """One that was looked at.

    Attributes
    ----------
    python : path of its program
    version : (major, minor, micro)
    has_tensorflow : whether it is installed; whether it can be imported, a training finds
    """

    python: str
    version: tuple[int, ...]
    has_tensorflow: bool

    @classmethod
    def at(cls, python: str) -> Self | None:
        """The one behind a path or a name on PATH; None where there is none that runs."""
        if (path := shutil.which(python)) is None:
            return None
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(  # noqa: S603 - the user names it, or it is one of ours
                [path, "-c", _LOOK], capture_output=True, text=True, timeout=_PATIENCE_S,
                env=None if path == sys.executable else environment_of_another(), check=True,
            )  # fmt: skip
            version, has_tensorflow = json.loads(done.stdout)
            return cls(path, tuple(version), bool(has_tensorflow))
        return None

    @property
    def release(self) -> str:
        """Its version as people write it."""
        return ".".join(map(str, self.version))

    @property
    def trains(self) -> bool:
        """Whether it can be expected to train."""
        return self.has_tensorflow and self.version >= _LEAST


@cache  # of those that were found; one that is missing may be installed meanwhile
def find(named: str | None, store: Path) -> Interpreter:
    """The interpreter that trains.

    The first of these that has TensorFlow: `named`, and then no other; this one; that of the folder
    `trainer` beside the models; `/opt/lstm-trainer`, which container images have; `python3.13`,
    `python3.12`, `python3.11` on PATH.

    Parameters
    ----------
    named : the option `train_python`, a path or a name on PATH; None: look for one
    store : where the models are

    Raises
    ------
    TrainingError
        There is none, or it lacks TensorFlow; says what to run.
    """
    if named is not None:
        return _wanted(named)
    looked_at = []
    for found, name in _candidates(store):
        if found is not None and found.trains:
            return found
        looked_at.append(name)
    raise TrainingError(
        "there is no Python with TensorFlow to train networks with: looked at "
        f"{', '.join(looked_at)}. Run `freqtrade-lstm trainer --install` with your config, or name "
        "an interpreter that has it by the option train_python"
    )


def _wanted(named: str) -> Interpreter:
    found = Interpreter.at(named)
    if found is None:
        problem = "is no Python that runs"
    elif found.version < _LEAST:
        problem = f"is Python {found.release}, 3.11 is the least"
    elif not found.has_tensorflow:
        problem = (
            f"has no TensorFlow: install it by `{found.python} -m pip install tensorflow pydantic`"
        )
    else:
        return found
    raise TrainingError(
        f"train_python = {named} {problem}, or run `freqtrade-lstm trainer --install` and leave "
        "train_python out"
    )


def _candidates(store: Path) -> Iterator[tuple[Interpreter | None, str]]:
    """Where to look, in this order, and what is there."""
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    yield Interpreter(sys.executable, sys.version_info[:3], has_tensorflow), sys.executable
    for folder in (store / FOLDER, IMAGE):
        program = str(program_of(folder))
        yield Interpreter.at(program), program
    for name in NAMES:
        yield Interpreter.at(name), name


def program_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    windows = sys.platform == "win32"
    return folder / ("Scripts" if windows else "bin") / ("python.exe" if windows else "python")


def environment_of_another() -> dict[str, str]:
    """This process's environment without what only this interpreter is to know."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
