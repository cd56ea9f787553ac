"""A lost or damaged file leads to the same chain or to a new one that is told of, to no third."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_world import (  # noqa: F401 - fixtures
    SERIES,
    Bot,
    boundary_ms,
    chain,
    easy_to_beat,
    instant_training,
    learning_has_ended,
)

from lstm_model.store.lineage import Lineage
from lstm_model.store.steps import StepStore

Damage = Callable[[Path], None]

ORIGIN, AGAIN = 1_500, 1_650  # two retrainings from scratch
YOUNG, OLD = 1_620, 1_720  # a bot stops in the first chain, before and after the second of them
LINEAGE = "binance-spot-5m"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = {"flipped": flip, "cut": cut, "empty": empty, "removed": remove}


def record_of(root: Path) -> dict[str, Any]:
    found = StepStore(root).record(Lineage(root, LINEAGE).head or "")
    assert found is not None
    return found


def step_file(suffix: str) -> Callable[[Path], list[Path]]:
    return lambda root: [root / "steps" / f"{Lineage(root, LINEAGE).head}.{suffix}"]


def both_of_the_step(root: Path) -> list[Path]:
    return [*step_file("json")(root), *step_file("npz")(root)]


def model_file(role: str, name: str) -> Callable[[Path], list[Path]]:
    def found(root: Path) -> list[Path]:
        record = record_of(root)
        served = (record["champion"], record["predecessor"])
        roles = {
            "champion": [record["champion"]],
            "challenger": [v for v in record["p_values"] if v not in served],
            "all": list(record["p_values"]),
        }
        assert roles[role]
        return [root / "models" / version / name for version in roles[role]]

    return found


FILES = {
    "state": step_file("npz"),
    "record": step_file("json"),
    "state and record": both_of_the_step,
    "champion's weights": model_file("champion", "weights.npz"),
    "champion's card": model_file("champion", "card.json"),
    "challenger's weights": model_file("challenger", "weights.npz"),
    "challenger's card": model_file("challenger", "card.json"),
    "all weights": model_file("all", "weights.npz"),
    "lineage": lambda root: [root / "lineages" / f"{LINEAGE}.json"],
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where bots stopped, by the candle they saw last."""
    from instant_training import InstantTraining
    from live_world import TRAINER

    roots = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        for last in (YOUNG, OLD):
            roots[last] = tmp_path_factory.mktemp("lived")
            bot = Bot(roots[last]).start(1_560)
            for row in range(1_560, last + 1, 20):
                bot.look(row)
            bot.stop()
    return roots


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What every step holds of the chains that begin at one of the retrainings, by its address."""
    from instant_training import InstantTraining
    from live_world import TRAINER

    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        for origin in (ORIGIN, AGAIN):
            root = tmp_path_factory.mktemp("story")
            steps = chain(root, SERIES, origin, 1_800)
            out[origin] = {step.address: StepStore(root).record(step.address) for step in steps}
    return out


def line_of(root: Path) -> dict[str, Any]:
    """The steps that lead to the head."""
    out, at = {}, Lineage(root, LINEAGE).head
    while at is not None:
        record = StepStore(root).record(at)
        assert record is not None
        out[at], at = record, record["previous"]
    return out


def copied(root: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(root, target)
    return target


def goes_on(root: Path, row: int, **options: Any) -> Bot:
    bot = Bot(root, **options).start(row)
    for later in range(row, row + 100, 20):
        bot.look(later)
    return bot.stop()


@pytest.mark.parametrize("last", [YOUNG, OLD], ids=["young", "old"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_damage_leads_to_the_same_chain_or_to_a_new_one_that_is_told(
    file: Callable[[Path], list[Path]], damage: Damage, last: int,
    lived: dict[int, Path], stories: dict[int, dict[str, Any]], tmp_path: Path,
) -> None:  # fmt: skip
    root = copied(lived[last], tmp_path / "store")
    for path in file(root):
        damage(path)
    bot = goes_on(root, last + 20)
    line = line_of(root)
    newest = max(record["boundary_ms"] for record in line.values())
    assert newest == boundary_ms((last + 100) // 50 * 50)
    if line.items() <= stories[ORIGIN].items():
        return
    assert line.items() <= stories[AGAIN].items()
    told = [news for news in bot.news if "anew" in news]
    assert len(told) == 1, bot.news
