"""Whatever comes from outside, who reads it answers or says by name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_inputs import KINDS, fuzz
from oddities import THEIRS

pytestmark = pytest.mark.filterwarnings(f"ignore:{THEIRS}")

CASES = {"journal": 40, "jobs": 80, "options": 150, "candles": 60}


@pytest.mark.lengthy
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_comes_from_outside_ends_in_an_answer_or_a_named_error(
    kind: str, tmp_path: Path
) -> None:
    """A hundred thousand of a kind: `python tests/fuzz_inputs.py KIND 100000 1`."""
    sorts = fuzz(kind, tmp_path, CASES[kind], seed=1)
    assert sorts.total() == CASES[kind]
    assert len(sorts) >= 4
