"""What README and docs say of files, names and each other is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT
from source import TEXTS
from test_architecture import ROOMS

PAPERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md",
          *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def prose(paper: Path) -> str:
    """The text without blocks of code."""
    return re.sub(r"^```.*?^```", "", paper.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(paper: Path) -> Iterator[tuple[Path, str]]:
    """File and anchor of every link into the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(paper)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (paper.parent / path).resolve() if path else paper, anchor


def anchors(paper: Path) -> set[str]:
    """As the forge makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", prose(paper), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(paper: Path) -> None:
    for path, anchor in links(paper):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path.name}#{anchor}"


def test_readme_is_short_and_leads_to_every_paper() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 160
    found, waiting = {readme}, [readme]
    while waiting:
        for path, _ in links(waiting.pop()):
            if path.suffix == ".md" and path not in found:
                found.add(path)
                waiting.append(path)
    assert set(PAPERS) <= found


def test_every_file_that_a_paper_names_is_there() -> None:
    for paper in PAPERS:
        for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.\w+)`", prose(paper)):
            places = (ROOT / name, ROOT / "lstm_model" / name, ROOT / "user_data" / name)
            assert name.startswith(("user_data/", ".demo/")) or any(map(Path.exists, places)), (
                paper,
                name,
            )


@pytest.mark.lengthy
def test_every_name_in_the_walks_is_in_the_source() -> None:
    source = "\n".join(TEXTS.values())
    names = re.findall(r"`_?([A-Za-z_]+(?:\.[a-z_]+)?)`", prose(ARCHITECTURE))
    for name in names:
        *of, last = name.split(".")
        if last == "py":
            continue
        assert re.search(rf"\b(def|class) {last}\b|\b_?{last}\b", source), name
        assert not of or re.search(rf"^class {of[0]}\b|\b{of[0]}\b", source, re.MULTILINE), name


def test_the_map_shows_who_may_import_whom() -> None:
    arrows = re.findall(
        r"^ +(\w+)(?:\[.*?\])? --> ([\w &]+)$", ARCHITECTURE.read_text(), re.MULTILINE
    )
    direct = {room: set(targets.split(" & ")) for room, targets in arrows}
    for room, allowed in ROOMS.items():
        if room in ("__main__", "strategies"):
            continue
        reached, waiting = set(), [room]
        while waiting:
            new = direct.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        assert set(allowed.split()) <= reached, room
        assert direct.get(room, set()) <= set(allowed.split()), room
