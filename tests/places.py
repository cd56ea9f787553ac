"""Where things lie, and what is there."""

import importlib.util
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
STRATEGIES = ROOT / "strategies"
SHARED = ROOT.parent / "shared" / "data"  # recorded market data, which is not part of the project

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="this Python has no TensorFlow"
)
