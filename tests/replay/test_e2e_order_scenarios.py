"""Orders on spot in virtual time; each fault and what may never follow from it."""

from __future__ import annotations

import pytest
from order_scenarios import FUTURES, LOST, REPLACED, SPOT, Facts, assert_nothing_is_wrong, play
from order_world import KINDS

pytestmark = [pytest.mark.e2e, pytest.mark.long]

CARELESS = {
    "careless": {"happenings": [{**LOST, "minute": 1}], "strategy": "Careless"},
    "careless, replaced": {"happenings": REPLACED, "strategy": "Careless"},
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    scenarios = {name: {"happenings": them} for name, them in SPOT.items()}
    others = {**CARELESS, "replaced": {"happenings": REPLACED}}
    return play({**scenarios, **others}, tmp_path_factory.mktemp("orders"))


def test_every_kind_of_fault_is_played() -> None:
    happenings = [it for those in (SPOT, FUTURES) for them in those.values() for it in them]
    assert {it["kind"] for it in happenings} == set(KINDS)
    assert len(KINDS) >= 30


@pytest.mark.parametrize("name", SPOT)
def test_what_is_lost_is_owned_or_told_and_nothing_is_sent_twice(
    played: dict[str, Facts], name: str
) -> None:
    assert_nothing_is_wrong(played[name])


def test_what_replaces_an_entry_is_not_sent_again_while_it_is_unknown(
    played: dict[str, Facts],
) -> None:
    """All three are lost and stay on the exchange: no pair is entered any more, and all is told."""
    assert played["replaced"]["wrong"] == []
    assert played["replaced"]["orders"] == 12
    assert played["replaced"]["told"].count("on the exchange is an order") == 3


def test_a_lost_exit_that_waits_on_the_exchange_is_told(played: dict[str, Facts]) -> None:
    of = played["exits lost, still open"]
    assert of["open_exits"] >= 3
    assert of["told"].count("an order that can only reduce") >= 3


def test_a_stop_of_which_freqtrade_keeps_no_id_is_told_with_the_way_out(
    played: dict[str, Facts],
) -> None:
    told = played["garbled stop"]["told"]
    assert told.count("trade 1 has an order without an id") == 1
    assert "/delete 1" in told


@pytest.mark.parametrize("name", CARELESS)
def test_without_what_watches_over_orders_the_same_goes_wrong(
    played: dict[str, Facts], name: str
) -> None:
    assert any("second order" in wrong for wrong in played[name]["wrong"])
