"""Orders on futures in virtual time; each fault and what may never follow from it."""

from __future__ import annotations

import pytest
from order_scenarios import FUTURES, LOST, Facts, assert_nothing_is_wrong, play

pytestmark = [pytest.mark.e2e, pytest.mark.long]

CARELESS = {"happenings": [{**LOST, "minute": 1}], "strategy": "Careless", "futures": True}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    scenarios = {name: {"happenings": them, "futures": True} for name, them in FUTURES.items()}
    return play({**scenarios, "careless": CARELESS}, tmp_path_factory.mktemp("orders"))


@pytest.mark.parametrize("name", FUTURES)
def test_what_is_lost_is_owned_or_told_and_nothing_is_sent_twice(
    played: dict[str, Facts], name: str
) -> None:
    assert_nothing_is_wrong(played[name])


def test_a_lost_exit_that_waits_on_the_exchange_is_told(played: dict[str, Facts]) -> None:
    of = played["exits lost, still open"]
    assert of["open_exits"] >= 3
    assert of["told"].count("an order that can only reduce") >= 3


def test_without_what_watches_over_orders_the_same_goes_wrong(played: dict[str, Facts]) -> None:
    assert any("second order" in wrong for wrong in played["careless"]["wrong"])
