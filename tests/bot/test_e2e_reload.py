"""`/reload_config` again and again: nothing of the bots before stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e import environment
from places import TESTS

pytestmark = [pytest.mark.e2e, pytest.mark.long]

RELOADS = 3
SETTLED = 1  # reloads after which caches are full
PARTS = ("bot", "strategy", "engine", "journal", "stream", "exchange")


def test_a_bot_that_is_reloaded_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "reloaded_bot.py", tmp_path, str(RELOADS)], env=environment(),
        text=True, capture_output=True, timeout=300.0, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["reload"] for one in found] == list(range(RELOADS + 1))
    for one in found:
        assert one["alive"] == dict.fromkeys(PARTS, 1)
        assert one["threads"] == found[0]["threads"]
    descriptors = [one["descriptors"] for one in found[SETTLED:]]
    # A connection that happens to be open is one more; what is left open would be one a reload.
    assert descriptors[-1] - descriptors[0] < len(descriptors) - 1
