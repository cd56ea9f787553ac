"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lstm_model

# TensorFlow and freqtrade, which the fast tests do without, and the command itself.
LEFT_OUT = {f"lstm_model.{name}" for name in ("network", "fused", "bot", "__main__")}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lstm_model.__path__, "lstm_model.")
    if module.name not in LEFT_OUT
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    examples = [test for module in modules for test in finder.find(module) if test.examples]
    assert len(examples) >= 10
