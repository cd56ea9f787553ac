"""The examples in the docstrings run."""

from __future__ import annotations

import ast
import doctest
import importlib

import pytest
from places import ROOT

# Only these are imported: others may need TensorFlow or freqtrade, which fast tests do without.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "lstm_model").rglob("*.py")
    if ">>> " in path.read_text()
)


def imported(name: str) -> set[str]:
    """Libraries that a module imports by itself."""
    tree = ast.parse(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[0] for module in named}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0


@pytest.mark.lengthy
def test_there_are_examples_and_they_need_neither_tensorflow_nor_freqtrade() -> None:
    assert len(MODULES) >= 40
    assert not [name for name in MODULES if imported(name) & {"freqtrade", "keras", "tensorflow"}]
