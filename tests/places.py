"""Where things lie, and what is there."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
STRATEGIES = ROOT / "strategies"
SHARED = ROOT.parent / "shared" / "data"  # recorded market data, which is not part of the project

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="this Python has no TensorFlow"
)


def lay_out(root: Path, files: Mapping[str, object]) -> Path:
    """Files in which an operating system says what it leaves, below a root of their own."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(content))
    return root
