"""A bot under one Python and its trainer under another leave what one Python alone leaves.

The other has the whole project, with TensorFlow, which this one need not have; it is named by
LSTM_OTHER_PYTHON, e.g. `.venv/bin/python` where this one is `python3.13`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from places import ROOT, TESTS
from test_whoever_trains import Facts, walk

from lstm_model.training.interpreter import Interpreter
from lstm_model.training.trainer import Trainer

OTHER = os.path.abspath(found) if (found := os.environ.get("LSTM_OTHER_PYTHON")) else ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OTHER, reason="LSTM_OTHER_PYTHON names no second interpreter"),
]
ALONE = """
import json, sys
from pathlib import Path
from test_whoever_trains import walk
from lstm_model.training.trainer import Trainer
print(json.dumps(walk(Path(sys.argv[1]), Trainer(), 2)))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def alone(store: Path) -> Facts:
    """What the other leaves without this one."""
    path = os.pathsep.join(map(str, (ROOT, TESTS, TESTS / "bot")))
    done = subprocess.run(
        [OTHER, "-c", ALONE, str(store)], env={**os.environ, "PYTHONPATH": path}, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_they_are_two() -> None:
    other = Interpreter.at(OTHER)
    assert other is not None
    assert other.trains
    assert other.version[:2] != sys.version_info[:2]


def test_together_they_leave_the_same(alone: Facts, tmp_path: Path) -> None:
    assert walk(tmp_path, Trainer(), 2, python=OTHER) == alone


def test_what_one_has_made_the_other_finds(alone: Facts, store: Path) -> None:
    idle = mock.Mock(spec=Trainer)
    assert walk(store, idle, 2) == alone
    assert not idle.run.called
