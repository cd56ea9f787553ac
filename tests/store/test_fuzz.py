"""Whatever is in the files of a store, who reads it answers or says by name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_store import fuzz


@pytest.mark.lengthy
def test_whatever_is_in_the_files_of_a_store_ends_in_an_answer_or_a_named_error(
    tmp_path: Path,
) -> None:
    """A hundred thousand: `python tests/fuzz_store.py`."""
    kinds = fuzz(tmp_path, 60, seed=1)
    assert len(kinds) == 6
