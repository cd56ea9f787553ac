"""The source of the product, for tests that read it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from places import ROOT

_BY_NAME = ("import_module", "__import__")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


_FILES = [*(ROOT / "lstm_model").rglob("*.py"), *(ROOT / "strategies").glob("*.py")]
TEXTS = {_name(path): path.read_text() for path in sorted(_FILES)}  # by dotted name
MODULES = {name: ast.parse(text) for name, text in TEXTS.items() if not name.endswith("__init__")}


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of what a module imports, wherever and however it does."""
    found: set[str] = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in _BY_NAME:
            assert isinstance(node.args[0], ast.Constant), "import of a computed name"
            found.add(str(node.args[0].value))
    return frozenset(found)


def ours(module: str) -> set[str]:
    """The modules of the package that a module imports; of a whole room, or of the public face, its
    `__init__`."""
    names = imports(module) - {"lstm_model", "lstm_model.__version__"}
    parts = [name.split(".") for name in names]
    begun = {".".join(part[:length]) for part in parts for length in range(len(part) + 1)}
    whole = {f"{name}.__init__" for name in names}
    known = (begun | whole) & TEXTS.keys()
    faced = {part[1] for part in parts if part[0] == "lstm_model"} - {room_of(m) for m in known}
    return known | ({"lstm_model.__init__"} if faced else set())


def outside(module: str) -> set[str]:
    """The libraries that a module imports and Python does not bring."""
    roots = {name.split(".")[0] for name in imports(module)}
    return roots - set(sys.stdlib_module_names) - {"lstm_model", "ema_cross"}


def room_of(module: str) -> str:
    """The room of a module; of one on the ground its own name."""
    package, *inside = module.split(".")
    return inside[0] if package == "lstm_model" else package


def functions() -> Iterator[tuple[str, Function, int]]:
    """Name, node and lines of every function, its docstring not counted."""
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                text = ast.get_docstring(node, clean=False) or ""
                lines = (node.end_lineno or 0) - node.lineno + 1 - len(text.splitlines())
                yield f"{module}.{node.name}:{node.lineno}", node, lines
