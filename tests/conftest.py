"""Settings of the whole test suite."""

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings
from opened import open_databases

from lstm_model.training import interpreter
from lstm_model.training.interpreter import Interpreter

# The workers of pytest-xdist have it; tables would be made for that width, whatever a test says.
os.environ.pop("COLUMNS", None)

# Tests write a strategy anew within a second, and Python would take the old one's bytecode.
sys.dont_write_bytecode = True

# A busy machine may take long over one example; that is no failure. Examples differ in every run.
settings.register_profile("patient", deadline=None, max_examples=50)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: no worker is to begin one when the others are done."""
    long = {item.path for item in items if any(item.get_closest_marker(m) for m in ("e2e", "slow"))}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def no_file_waits_for_the_disk() -> Iterator[None]:
    """Who is killed loses nothing that the system has been given; only a power cut would show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def no_database_stays_open() -> Iterator[None]:
    """From Python 3.13 on it would be told in whatever test runs when it is collected."""
    before = open_databases()
    yield
    until_s = time.monotonic() + 5.0  # a thread may be about to close its own
    while open_databases() > before:
        assert time.monotonic() < until_s, "a database was left open"
        time.sleep(0.01)


@pytest.fixture
def same_logging() -> Iterator[None]:
    """freqtrade sets up the root logger, with a handler to the stderr of that command."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session", autouse=True)
def some_python_trains() -> Iterator[None]:
    """So that tests whose trainings are instant run where none has TensorFlow, as a bot may."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("tensorflow") is None:
            here, real = Interpreter(sys.executable, sys.version_info[:3], True), interpreter.find
            patch.setattr(
                interpreter, "find",
                lambda named, store, *told: real(named, store, *told) if named else here,
            )  # fmt: skip
        yield


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_lightgbm() -> Iterator[None]:
    """Cards are made without it, installed or not; its own tests undo that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstm_model.scoring.boosted.is_installed", lambda: False)
        yield
