"""What the code must never do, and what it always does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from source import MODULES, ROOT, TEXTS, Function


def calls() -> list[tuple[str, str]]:
    """Module and name of everything that is called."""
    return [
        (module, ast.unparse(node.func))
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


@pytest.mark.lengthy
def test_nothing_prints_but_the_commands_through_their_console() -> None:
    unwanted = re.compile(r"(builtins\.)?(print|eval|exec|input|breakpoint)|os\.(system|popen)")
    assert not [call for call in calls() if unwanted.fullmatch(call[1])]


def test_no_table_cuts_a_number() -> None:
    """rich would put dots in its place where a column is too wide for the terminal."""
    aligning = [module for module, text in TEXTS.items() if 'justify="right"' in text]
    assert [module for module in aligning if module.startswith("lstm_model.")] == [
        "lstm_model.commands.terminal"
    ]


def test_nothing_is_unpickled() -> None:
    for module, text in TEXTS.items():
        assert not re.search(r"allow_pickle\s*=\s*True", text), module
        loads = len(re.findall(r"\bnp\.load\(", text))
        assert len(re.findall(r"np\.load\([^)]*(\([^)]*\))?[^)]*allow_pickle=False", text)) == loads


def test_there_is_one_blind_except_and_it_answers_no_trade() -> None:
    blind = [
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type)))
    ]
    assert blind == ["lstm_model.bot.live"]


def test_every_public_function_is_explained() -> None:
    bare = [
        f"{module}.{node.name}"
        for module, tree in MODULES.items()
        if module.startswith("lstm_model")
        for node in tree.body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
        if ast.get_docstring(node) is None
    ]
    assert bare == []


def imported_by(statement: str, names: list[str]) -> str:
    """Which of these libraries a statement brings into a process."""
    code = f"import sys; {statement}; print([m for m in {names} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.lengthy
def test_the_engine_runs_without_tensorflow_keras_and_freqtrade() -> None:
    heavy = ["tensorflow", "keras", "freqtrade", "ccxt", "aiohttp", "torch"]
    assert imported_by("import lstm_model.bot.engine", heavy) == "[]"


@pytest.mark.lengthy
def test_importing_the_package_brings_neither_freqtrade_nor_pandas() -> None:
    assert imported_by("import lstm_model", ["freqtrade", "pandas", "numpy", "talib"]) == "[]"
    face = "from lstm_model import LSTMForecasts, LSTMRisk, Settings"
    assert imported_by(face, ["freqtrade", "tensorflow"]) == "['freqtrade']"
    assert imported_by("from lstm_model import Settings", ["freqtrade", "tensorflow"]) == "[]"
