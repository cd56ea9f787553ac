"""Where things lie."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
STRATEGIES = ROOT / "strategies"
SHARED = ROOT.parent / "shared" / "data"  # recorded market data, which is not part of the project
