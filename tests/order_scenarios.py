"""Scenarios of real orders in virtual time: what happens in each, and how they are played."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e import environment
from places import ROOT, TESTS

Happening = dict[str, Any]
Facts = dict[str, Any]

# All wait, and what replaces them is lost while the same candle wants an entry anew.
REPLACED: list[Happening] = [
    *({"minute": 1, "kind": "held", "pair": f"{coin}/USDT"} for coin in ("BTC", "SOL", "XRP")),
    {"minute": 4, "kind": "order dropped", "calls": 3},
]
LOST = {"minute": 3, "kind": "order dropped", "calls": 3}


def lost_and_open(minute: int) -> list[Happening]:
    """From then on no limit order is filled, and the answers to the next three are lost."""
    pairs = [f"{coin}/USDT" for coin in ("BTC", "SOL", "XRP")]
    held = [{"minute": minute, "kind": "held", "pair": pair} for pair in pairs]
    return [*held, {**LOST, "minute": minute}]


SPOT: dict[str, list[Happening]] = {
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
FUTURES: dict[str, list[Happening]] = {
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


def play(scenarios: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Facts]:
    """What became of each, played one after the other in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "order_world.py"), str(folder)],
        cwd=ROOT, env=environment(), input=json.dumps([*scenarios.values()]), text=True,
        timeout=1_800, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(scenarios, results, strict=True))


def assert_nothing_is_wrong(facts: Facts) -> None:
    """Whatever was lost is owned or told, nothing was sent twice, and the bot traded on."""
    assert facts["wrong"] == []
    assert facts["orders"] >= 9
    assert facts["trades"] >= 3
