"""What is said to be tested is what the project allows and what its tests ran with."""

from __future__ import annotations

import re
import tomllib

import pytest
from places import ROOT

from lstm_model.releases import TESTED, standing

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALLOWED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["train"]]
PINNED = dict(
    line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split() if line
)


@pytest.mark.parametrize("name", sorted(TESTED.keys() - {"Python", "ccxt"}))
def test_the_oldest_is_the_least_that_is_allowed(name: str) -> None:
    [wanted] = [each for each in ALLOWED if re.match(rf"{name}[<>=]", each, re.IGNORECASE)]
    assert re.search(rf">={re.escape(TESTED[name].oldest)}(,|$)", wanted)


@pytest.mark.parametrize("name", sorted(TESTED.keys() - {"Python"}))
def test_the_newest_is_what_the_tests_ran_with(name: str) -> None:
    assert standing(name, PINNED[name.lower()]) == "tested"
    assert PINNED[name.lower()].startswith(TESTED[name].newest)


def test_pythons_oldest_is_the_least_that_is_allowed() -> None:
    assert PROJECT["requires-python"].startswith(f">={TESTED['Python'].oldest},")
