"""A lost or damaged file leads to the same chain or to a new one that is told of, to no third."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import DAMAGES, FILES, befall, line_of
from instant_training import SETTINGS, InstantTraining
from live_world import (  # noqa: F401 - fixtures
    SERIES,
    TRAINER,
    Bot,
    boundary_ms,
    chain,
    easy_to_beat,
    instant_training,
    learning_has_ended,
)

from lstm_model.learning import steps as steps_module
from lstm_model.store.steps import StepStore

ORIGIN, AGAIN = 1_500, 1_650  # two retrainings from scratch
YOUNG, OLD = 1_620, 1_720  # a bot stops in the first chain, before and after the second of them
LINEAGE = "binance-spot-5m"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where bots stopped, by the candle they saw last."""
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
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        for origin in (ORIGIN, AGAIN):
            root = tmp_path_factory.mktemp("story")
            steps = chain(root, SERIES, origin, 1_800)
            out[origin] = {step.address: StepStore(root).record(step.address) for step in steps}
    return out


def cases() -> Iterator[Any]:
    """A few in every run: each kind of file once, each kind of damage often."""
    for number, file in enumerate(FILES):
        for kind, damage in enumerate(DAMAGES):
            for last in (YOUNG, OLD):
                always = kind == number % len(DAMAGES) and last == OLD
                name = f"{file} {damage}, {'young' if last == YOUNG else 'old'}"
                marks = [] if always else [pytest.mark.slow, pytest.mark.long]
                yield pytest.param(file, damage, last, id=name, marks=marks)


@pytest.mark.lengthy
@pytest.mark.parametrize(("file", "damage", "last"), [*cases()])
def test_damage_leads_to_the_same_chain_or_to_a_new_one_that_is_told(
    file: str, damage: str, last: int, lived: dict[int, Path],
    stories: dict[int, dict[str, Any]], tmp_path: Path,
) -> None:  # fmt: skip
    root = tmp_path / "store"
    shutil.copytree(lived[last], root)
    assert befall(root, LINEAGE, file, damage)
    bot = Bot(root).start(last + 20)
    for row in range(last + 20, last + 120, 20):
        bot.look(row)
    bot.stop()
    line = line_of(root, LINEAGE)
    newest = max(record["boundary_ms"] for record in line.values())
    assert newest == boundary_ms((last + 100) // 50 * 50)
    told = [news for news in bot.news if "anew" in news]
    if line.items() <= stories[ORIGIN].items():
        assert len(told) <= 1, told
        return
    assert last == OLD
    assert line.items() <= stories[AGAIN].items()
    assert len(told) == 1, bot.news


def test_a_walk_that_begins_anew_ends_where_it_was_to_end(
    lived: dict[int, Path], stories: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    """A chain that is lost just when a retraining is due begins there, and takes no step more."""
    root = tmp_path / "store"
    shutil.copytree(lived[YOUNG], root)
    assert befall(root, LINEAGE, "state before", "removed")
    assert befall(root, LINEAGE, "state", "removed")
    bot = Bot(root).start(AGAIN + 2)
    bot.look(AGAIN + 2)
    bot.stop()
    line = line_of(root, LINEAGE)
    assert [record["boundary_ms"] for record in line.values()] == [boundary_ms(AGAIN)]
    assert line.items() <= stories[AGAIN].items()
    assert sum("anew" in news for news in bot.news) == 1


def test_a_bot_without_the_candles_of_its_chain_goes_on_from_the_step_before(
    lived: dict[int, Path], stories: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    """It has what freqtrade hands over, of which no network could be made, and sees no past."""
    root, lost = tmp_path / "store", OLD // 50 * 50
    shutil.copytree(lived[OLD], root)
    before = line_of(root, LINEAGE)
    befall(root, LINEAGE, "state", "flipped")
    bot = Bot(root, disk=lambda _: None).start(OLD + 20)
    for row in (OLD + 20, OLD + 40, OLD + 60):
        bot.listen(row)
        bot.look(row)
    bot.stop()
    assert not [news for news in bot.news if "stopped" in news]
    assert sum("anew" in news for news in bot.news) == 1
    line = line_of(root, LINEAGE)
    newest, again, *others = line
    assert line[newest]["boundary_ms"] == boundary_ms(1_750)
    assert line[again]["boundary_ms"] == boundary_ms(lost)
    assert again not in before
    assert others == list(before)[1:]
    assert {at: line[at] for at in others}.items() <= stories[ORIGIN].items()


def test_steps_are_pruned_by_number_and_age_and_those_of_a_lineage_stay(
    lived: dict[int, Path], stories: dict[int, dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    root = tmp_path / "store"
    shutil.copytree(lived[OLD], root)
    store, line = StepStore(root), line_of(root, LINEAGE)
    others = [f"{number:064x}" for number in range(8)]
    for number, address in enumerate(others):
        store.save(address, {}, {"a": np.zeros(1)})
        for suffix in ("json", "npz"):
            os.utime(root / "steps" / f"{address}.{suffix}", (number, number))
    Bot(root).learning.prune()  # few are there, but their arrays are old
    assert not any(store.has_arrays(address) for address in others)
    assert all(store.record(address) is not None for address in others)
    for path in (root / "steps").iterdir():
        if path.stem in line:
            os.utime(path, (0, 0))  # older than all, and needed
    monkeypatch.setattr(steps_module, "_A_MODEL", 1)
    settings = SETTINGS.model_copy(update={"keep_models": 4})
    Bot(root, settings=settings).learning.prune()
    assert line_of(root, LINEAGE) == line
    assert [address for address in others if store.record(address) is not None] == others[-4:]
    assert store.load(next(iter(line))) is not None
