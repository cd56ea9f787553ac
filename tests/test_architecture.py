"""The shape of the house: who may import whom, and how large things may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (  # a module imports only from rows above it
    "errors", "config", "market", "continuity", "ring", "tally", "tape",
    "trade_feed", "connection", "backfill", "switchboard", "stream",
    "features", "open_candle", "forecast", "reliability", "dataset", "lstm", "calibration", "gate",
    "drift", "evaluation", "sizing", "stake", "fused", "network", "network_process", "card",
    "files", "store", "steps", "lineage", "journal_rows", "journal", "verdicts", "flow_store",
    "flow_history", "trainer", "schedule", "history", "material", "baseline", "model", "maker",
    "contender", "learner", "matured", "packing", "learning", "outlook", "wording", "nowcast",
    "inside", "engine", "background", "live", "bot", "analyzed", "forecasting", "risk",
    "flow_source", "scaffold", "models_cli", "reasons_cli", "replay_cli", "cli", "__main__",
)  # fmt: skip
REPLAY = (
    "tape_market", "synthetic", "recorded", "excerpt", "scenario", "incidents", "clock",
    "interruption", "dialect", "rest", "streams", "faults", "mischief", "serving", "exchange",
    "frames", "playback", "chat", "tunnel", "telegram", "demo",
)  # fmt: skip
REPLAY_KNOWS = {"errors", "market"}  # of the library
REHEARSAL = (  # above the library and `replay`, below the commands
    "trade_facts", "facts", "pictures", "report", "reproduction", "forecasts", "causes",
    "accounts", "trades", "comparison", "view", "backtest", "pacing", "fast_forward", "run",
    "outcome", "proof",
)  # fmt: skip
ONLY_IN = {
    "tensorflow": {"fused", "network"}, "keras": {"fused", "network"}, "torch": set(),
    "freqtrade": {
        "bot", "flow_source", "forecasting", "risk", "lstm_strategy", "ema_cross_lstm",
        "backtest", "fast_forward", "run", "proof",
    }, "ccxt": {"connection"}, "time_machine": {"clock"}, "jinja2": {"report"},
    "aiohttp": {"connection", "exchange", "playback", "serving", "telegram"},
    "psutil": {"trainer", "fast_forward"}, "sqlalchemy": {"journal", "fast_forward"},
    "talib": {"features", "ema_cross_lstm"},
    "subprocess": {"trainer", "demo"},
    "click": {"cli", "models_cli", "reasons_cli", "replay_cli"},
    "rich": {"cli", "demo", "models_cli", "reasons_cli", "replay_cli", "view"},
    "cryptography": {"tunnel"},
    "pickle": set(), "joblib": set(), "dill": set(),
}  # fmt: skip
LIBRARY = set(LAYERS[: LAYERS.index("scaffold")])
FILES = [*sorted((ROOT / "lstm_model").rglob("*.py")), *sorted((ROOT / "strategies").glob("*.py"))]
MODULES = [path for path in FILES if path.name != "__init__.py"]
TREES = {path: ast.parse(path.read_text()) for path in FILES}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of imported modules, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """Which modules of this package a file imports, e.g. {"market", "replay.rest"}."""
    names = {
        name.removeprefix("lstm_model.") for name in imports(TREES[path]) if "lstm_model." in name
    }
    return {re.match(r"((replay|rehearsal)\.)?\w+", name)[0] for name in names} - {"__version__"}  # type: ignore[index]


def functions() -> list[tuple[str, int]]:
    """Name and lines of every function, without its docstring."""
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                first = node.body[0]
                text = ast.get_docstring(node) is not None
                length = (first.end_lineno or 0) - first.lineno + 1 if text else 0
                lines = (node.end_lineno or 0) - node.lineno + 1 - length
                found.append((f"{path.stem}.{node.name}", lines))
    return found


def test_every_module_has_its_place() -> None:
    library = {path.stem for path in MODULES if path.parent == ROOT / "lstm_model"}
    assert library == set(LAYERS)
    for package, names in {"replay": REPLAY, "rehearsal": REHEARSAL}.items():
        assert {path.stem for path in MODULES if path.parent.name == package} == set(names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_from_above(path: Path) -> None:
    if path.parent.name == "replay":
        above = REPLAY_KNOWS | {f"replay.{name}" for name in REPLAY[: REPLAY.index(path.stem)]}
        allowed = above | ({"replay.dialect"} if path.stem in ("rest", "streams") else set())
    elif path.parent.name == "rehearsal":
        above = {f"rehearsal.{name}" for name in REHEARSAL[: REHEARSAL.index(path.stem)]}
        allowed = above | LIBRARY | {f"replay.{name}" for name in REPLAY}
    elif path.stem in LAYERS:
        allowed = set(LAYERS[: LAYERS.index(path.stem)])
        if path.stem in ("cli", "replay_cli"):
            allowed |= {f"replay.{name}" for name in REPLAY}
        if path.stem == "replay_cli":
            allowed |= {f"rehearsal.{name}" for name in REHEARSAL}
    else:
        allowed = {"analyzed", "market", "risk", "sizing", "stake"}  # of a strategy
    assert ours(path) - {"replay", "rehearsal"} <= allowed


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_in_its_place_only(library: str) -> None:
    users = {p.stem for p in MODULES if library in {n.split(".")[0] for n in imports(TREES[p])}}
    assert users == ONLY_IN[library]


def test_only_the_commands_print() -> None:
    calls = [
        (path.stem, node.func.id)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    # The training child speaks to its parent over stdout.
    assert {stem for stem, name in calls if name == "print"} <= {"cli", "network"}
    assert not [stem for stem, name in calls if name in ("eval", "exec", "input", "breakpoint")]


def test_nothing_is_unpickled() -> None:
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"allow_pickle\s*=\s*True", text), path
        loads = len(re.findall(r"\bnp\.load\(", text))
        assert len(re.findall(r"np\.load\([^)]*(\([^)]*\))?[^)]*allow_pickle=False", text)) == loads


def test_there_is_one_blind_except_and_it_answers_no_trade() -> None:
    blind = [
        path.stem
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]
    assert blind == ["live"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (250 if path.parent.name == "strategies" else 400)


def test_functions_are_small() -> None:
    lines = [length for _, length in functions()]
    assert [name for name, length in functions() if length > 60] == []
    assert median(lines) <= 8
    assert quantiles(lines, n=20)[-1] <= 35


def test_every_public_function_is_explained() -> None:
    bare = [
        f"{path.stem}.{node.name}"
        for path, tree in TREES.items()
        if path.parent.name != "strategies"
        for node in tree.body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
        if ast.get_docstring(node) is None
    ]
    assert bare == []


def test_the_engine_runs_without_tensorflow_keras_and_freqtrade() -> None:
    heavy = ["tensorflow", "keras", "freqtrade", "ccxt", "aiohttp", "torch"]
    code = f"import sys, lstm_model.engine; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
