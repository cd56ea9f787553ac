"""What befalls files: the kinds of damage, and the kinds of file that a bot keeps in its store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lstm_model.store.lineage import Lineage
from lstm_model.store.steps import StepStore

Find = Callable[[Path, str], list[Path]]


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


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip, "cut": cut, "empty": empty, "removed": remove,
}  # fmt: skip


def line_of(root: Path, lineage: str) -> dict[str, Any]:
    """The records of the steps that lead to the head, newest first, by address."""
    out: dict[str, Any] = {}
    at = Lineage(root, lineage).head
    while at is not None and (record := StepStore(root).record(at)) is not None:
        out[at], at = record, record["previous"]
    return out


def _of_step(back: int, *suffixes: str) -> Find:
    def found(root: Path, lineage: str) -> list[Path]:
        address = [*line_of(root, lineage)][back : back + 1]
        return [root / "steps" / f"{at}.{suffix}" for at in address for suffix in suffixes]

    return found


def _of_model(role: str, name: str) -> Find:
    def found(root: Path, lineage: str) -> list[Path]:
        record = next(iter(line_of(root, lineage).values()), None)
        if record is None:
            return []
        champion, all_of_them = record["champion"], list(record["p_values"])
        others = [v for v in all_of_them if v not in (champion, record["predecessor"])]
        versions = {"champion": [champion], "challenger": others[-1:], "all": all_of_them}[role]
        return [root / "models" / version / name for version in versions]

    return found


FILES: dict[str, Find] = {
    "state": _of_step(0, "npz"),
    "record": _of_step(0, "json"),
    "state and record": _of_step(0, "npz", "json"),
    "state before": _of_step(1, "npz"),
    "record before": _of_step(1, "json"),
    "state and record before": _of_step(1, "npz", "json"),
    "champion's weights": _of_model("champion", "weights.npz"),
    "champion's card": _of_model("champion", "card.json"),
    "champion's network": _of_model("champion", "network.keras"),
    "challenger's weights": _of_model("challenger", "weights.npz"),
    "challenger's card": _of_model("challenger", "card.json"),
    "all weights": _of_model("all", "weights.npz"),
    "lineage": lambda root, lineage: [root / "lineages" / f"{lineage}.json"],
    "lock": lambda root, lineage: [root / "lineages" / f"{lineage}.lock"],
}


def befall(root: Path, lineage: str, file: str, damage: str) -> list[Path]:
    """Damage each file of a kind; those that were there."""
    hit = [path for path in FILES[file](root, lineage) if path.exists()]
    for path in hit:
        DAMAGES[damage](path)
    return hit
