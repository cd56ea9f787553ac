"""Scenarios of real orders in virtual time; each fault and what may never follow from it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from e2e import environment
from order_world import KINDS
from places import ROOT, TESTS

pytestmark = [pytest.mark.e2e, pytest.mark.long]

# All wait, and what replaces them is lost while the same candle wants an entry anew.
REPLACED: list[dict[str, Any]] = [
    *({"minute": 1, "kind": "held", "pair": f"{coin}/USDT"} for coin in ("BTC", "SOL", "XRP")),
    {"minute": 4, "kind": "order dropped", "calls": 3},
]
LOST = {"minute": 3, "kind": "order dropped", "calls": 3}


def lost_and_open(minute: int) -> list[dict[str, Any]]:
    """From then on no limit order is filled, and the answers to the next three are lost."""
    pairs = [f"{coin}/USDT" for coin in ("BTC", "SOL", "XRP")]
    held = [{"minute": minute, "kind": "held", "pair": pair} for pair in pairs]
    return [*held, {**LOST, "minute": minute}]


SPOT: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "dropped": [LOST],
    "503, and a restart": [{"minute": 3, "kind": "order 503"}, {"minute": 3, "kind": "restart"}],
    "-1007": [{"minute": 1, "kind": "order -1007", "calls": 2}],
    "never arrived": [{"minute": 1, "kind": "order never arrived", "calls": 2}],
    "-2010": [{"minute": 1, "kind": "order -2010", "calls": 5}],
    "clock": [{"minute": 5, "kind": "order -1021", "calls": 5}],
    "cancel": [{"minute": 6, "kind": "cancel dropped", "calls": 2}],
    "blind": [{"minute": 1, "kind": "look blind", "calls": 6}],
    "account": [{"minute": 3, "kind": "account dropped", "calls": 8}],
    "partly, then lost": [{"minute": 1, "kind": "partly"}, {"minute": 1, "kind": "order dropped"}],
    "crash": [{"minute": 4, "kind": "crash"}, {"minute": 4, "kind": "crash", "pair": "XRP/USDT"}],
    "taken": [{"minute": 4, "kind": "taken"}],
    "exits lost, still open": lost_and_open(6),
    "-1013, -1015": [
        {"minute": 1, "kind": "order -1013", "calls": 2},
        {"minute": 5, "kind": "order -1015", "calls": 2},
    ],
    "cancel refused": [
        {"minute": 1, "kind": "held"},
        {"minute": 1, "kind": "cancel -2011", "calls": 2},
    ],
    "no answers": [
        {"minute": 1, "kind": "look 503", "calls": 4},
        {"minute": 3, "kind": "account 503", "calls": 4},
        {"minute": 6, "kind": "trades 503", "calls": 4},
    ],
    "garbled stop": [{"minute": 2, "kind": "order garbled"}],
}
FUTURES: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "dropped entries": [{**LOST, "minute": 1}],
    "dropped exits": [LOST],
    "hung": [{"minute": 1, "kind": "order hung"}],
    "garbled": [{"minute": 1, "kind": "order garbled", "calls": 2}],
    "-2019": [{"minute": 1, "kind": "order -2019", "calls": 3}],
    "stop dropped": [{"minute": 1, "kind": "stop dropped", "calls": 2}],
    "stop refused": [{"minute": 1, "kind": "stop refused", "calls": 2}],
    "stop's cancel": [{"minute": 2, "kind": "stop cancel dropped", "calls": 2}],
    "stop blind": [{"minute": 2, "kind": "stop blind", "calls": 6}],
    "positions": [{"minute": 2, "kind": "positions 503", "calls": 6}],
    "exits lost, still open": lost_and_open(5),
    "no answers": [
        {"minute": 1, "kind": "orders 503", "calls": 4},
        {"minute": 3, "kind": "stops 503", "calls": 4},
    ],
    "given": [{"minute": 4, "kind": "given"}],
    "leap, then lost": [{"minute": 4, "kind": "leap"}, {"minute": 4, "kind": "order dropped"}],
}
SCENARIOS = {
    **{f"spot: {name}": {"happenings": them} for name, them in SPOT.items()},
    **{f"futures: {name}": {"happenings": them, "futures": True} for name, them in FUTURES.items()},
}
CARELESS = {
    "spot": {"happenings": [{**LOST, "minute": 1}], "strategy": "Careless"},
    "futures": {"happenings": [{**LOST, "minute": 1}], "strategy": "Careless", "futures": True},
    "spot, replaced": {"happenings": REPLACED, "strategy": "Careless"},
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    all_of = {**SCENARIOS, **CARELESS, "replaced": {"happenings": REPLACED}}
    done = subprocess.run(
        [sys.executable, str(TESTS / "order_world.py"), str(tmp_path_factory.mktemp("orders"))],
        cwd=ROOT, env=environment(), input=json.dumps([*all_of.values()]), text=True, timeout=1_800,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(all_of, results, strict=True))


def test_every_kind_of_fault_is_played() -> None:
    assert {it["kind"] for of in SCENARIOS.values() for it in of["happenings"]} == set(KINDS)
    assert len(KINDS) >= 30


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_lost_is_owned_or_told_and_nothing_is_sent_twice(
    played: dict[str, dict[str, Any]], name: str
) -> None:
    assert played[name]["wrong"] == []
    assert played[name]["orders"] >= 9
    assert played[name]["trades"] >= 3


def test_what_replaces_an_entry_is_not_sent_again_while_it_is_unknown(
    played: dict[str, dict[str, Any]],
) -> None:
    """All three are lost and stay on the exchange: no pair is entered any more, and all is told."""
    assert played["replaced"]["wrong"] == []
    assert played["replaced"]["orders"] == 12
    assert played["replaced"]["told"].count("on the exchange is an order") == 3


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_a_lost_exit_that_waits_on_the_exchange_is_told(
    played: dict[str, dict[str, Any]], market: str
) -> None:
    of = played[f"{market}: exits lost, still open"]
    assert of["open_exits"] >= 3
    assert of["told"].count("an order that can only reduce") >= 3


def test_a_stop_of_which_freqtrade_keeps_no_id_is_told_with_the_way_out(
    played: dict[str, dict[str, Any]],
) -> None:
    told = played["spot: garbled stop"]["told"]
    assert told.count("trade 1 has an order without an id") == 1
    assert "/delete 1" in told


@pytest.mark.parametrize("market", CARELESS)
def test_without_what_watches_over_orders_the_same_goes_wrong(
    played: dict[str, dict[str, Any]], market: str
) -> None:
    assert any("second order" in wrong for wrong in played[market]["wrong"])
