"""The shape of the house: who imports whom, who knows which library, how large things may grow.

The map in words is docs/architecture.md; what the code must never do is in test_conduct.py.
"""

from __future__ import annotations

import ast
import tomllib
from graphlib import TopologicalSorter
from statistics import median, quantiles

import pytest
from places import TESTS
from source import MODULES, ROOT, TEXTS, functions, imports, ours, outside, room_of

# What every room may import.
GROUND = ("errors", "durations", "pairs", "settings", "files", "machine", "releases", "written")
ROOMS = {  # a room imports from these alone
    "market": "",
    "store": "",
    "stream": "market",
    "features": "market",
    "model": "market store features",
    "scoring": "market features model",
    "fitting": "market model",
    "training": "market store features model scoring",
    "trading": "market store features model",
    "learning": "market store features model scoring training trading",
    "bot": "market store stream features model scoring training trading learning",
    "orders": "trading",
    "risk": "market store features model learning trading orders bot",
    "practice": "market",
    "accounts": "market practice",
    "replay": "market store stream features model scoring training trading learning bot practice "
    "accounts",
    "rivals": "market store features model trading bot risk practice replay",
    "setup": "market store stream features model scoring training trading learning bot",
    "commands": "market store features model scoring training trading learning bot practice "
    "accounts replay rivals setup risk",
    "__main__": "commands",
    "strategies": "__init__",  # the public face
}
KNOWS = {  # library: the only modules that import it; numpy, pandas and pydantic are everywhere
    "tensorflow": "fitting.fused fitting.graph fitting.network",
    "keras": "fitting.fused fitting.graph fitting.network",
    "freqtrade": "bot.assembly bot.configuration bot.flow_source bot.forecasting "
                 "bot.insides bot.reading bot.theirs "
                 "risk.entry risk.inventory risk.ownership risk.safety "
                 "risk.stakes risk.stops risk.strategy "
                 "replay.backtest replay.fast_forward replay.logs replay.run replay.proof "
                 "replay.standing rivals.variant",
    "ccxt": "stream.connection risk.desk", 
    "sqlalchemy": "store.database store.journal store.journal_tables replay.standing",
    "aiohttp": "stream.connection practice.attended practice.exchange practice.playback "
               "practice.serving practice.telegram",
    "psutil": "training.child", "talib": "features.closed_candle",
    "lightgbm": "scoring.boosted",
    "jinja2": "replay.report", "pyarrow": "market.flow_store practice.frames",
    "time_machine": "practice.clock",
    "cryptography": "practice.tunnel",
    "subprocess": "training.child training.interpreter setup.environment commands.demo",
    "click": "commands.compare commands.coverage commands.main commands.models commands.orders "
             "commands.reasons commands.replay commands.setup commands.terminal",
    "rich": "commands.coverage commands.main commands.models commands.reasons commands.replay "
            "commands.setup commands.terminal commands.comparison_view commands.compare_view "
            "commands.demo commands.sides",
    "pickle": "", "shelve": "", "marshal": "", "joblib": "", "dill": "", "cloudpickle": "",
}  # fmt: skip
FREE = {"numpy", "pandas", "pydantic"}
MODULES_IN_ROOM = {**dict.fromkeys(ROOMS, 12), "practice": 28, "replay": 24, "commands": 16}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rooms_that_its_own_may_use(module: str) -> None:
    room, used = room_of(module), {room_of(other) for other in ours(module)}
    assert used <= {room, *GROUND, *ROOMS.get(room, "").split()}


@pytest.mark.parametrize("room", [*ROOMS, "the ground"])
def test_inside_a_room_no_imports_go_in_a_circle(room: str) -> None:
    names = GROUND if room == "the ground" else (room,)
    inside = {module for module in MODULES if room_of(module) in names}
    assert inside
    TopologicalSorter({module: ours(module) & inside for module in inside}).prepare()


@pytest.mark.parametrize("library", KNOWS)
def test_a_library_is_known_in_its_place_only(library: str) -> None:
    mine = [module for module in MODULES if module.startswith("lstm_model.")]
    users = {m for m in mine if library in {name.split(".")[0] for name in imports(m)}}
    assert users == {f"lstm_model.{place}" for place in KNOWS[library].split()}


def test_every_outside_library_has_its_place() -> None:
    assert set.union(*map(outside, MODULES)) <= {*KNOWS, *FREE}


def test_every_module_has_its_room_and_no_room_is_crowded() -> None:
    rooms = [room_of(module) for module in MODULES]
    assert set(rooms) == {*ROOMS, *GROUND}
    assert {room for room, most in MODULES_IN_ROOM.items() if rooms.count(room) > most} == set()


def test_modules_and_functions_are_small() -> None:
    lengths = {module: len(text.splitlines()) for module, text in TEXTS.items()}
    assert {module for module, lines in lengths.items() if lines > 400} == set()
    bodies = {name: lines for name, _, lines in functions()}
    assert {name for name, lines in bodies.items() if lines > 60} == set()
    assert median(bodies.values()) <= 8
    assert quantiles(bodies.values(), n=20)[-1] <= 35


def test_the_tests_have_the_same_rooms() -> None:
    rooms = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert rooms == set(ROOMS) - {"__main__", "strategies"}


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by it."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_every_room_says_what_happens_there() -> None:
    for room in set(ROOMS) - {"__main__", "strategies"}:
        said = ast.parse(TEXTS[f"lstm_model.{room}.__init__"])
        assert len(said.body) == 1, "a docstring and nothing else"
        assert len((ast.get_docstring(said) or "").splitlines()) >= 3, room


def test_a_wheel_holds_every_room() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rooms = {f"lstm_model.{room}" for room in set(ROOMS) - {"__main__", "strategies", "__init__"}}
    shipped = set(project["tool"]["setuptools"]["packages"])
    assert shipped == {"lstm_model", "lstm_model.init", *rooms}
