"""Files of the store as nobody should find them: `python tests/fuzz_store.py [CASES] [SEED]`.

Each case takes a file of a store in which a bot has learnt, changes bytes, or the tree of its JSON
or its arrays with checksums that fit, and lets everything that reads the store read it. What comes
of it must be an answer or one of our named errors.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from instant_training import InstantTraining, make_learning
from live_world import SERIES, TRAINER, chain
from oddities import answers, array_changed, bytes_changed, each_case, timed, tree_changed

from lstm_model.learning.steps import _content, _digest
from lstm_model.store import card as cards
from lstm_model.store import steps as step_files
from lstm_model.store.lineage import Lineage, head_record, heads, versions_in_use
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore

LINEAGE = "binance-spot-5m"


def a_store(root: Path) -> None:
    """A store in which a bot has come to its fourth step."""
    with mock.patch(TRAINER, InstantTraining()):
        steps = chain(root, SERIES, 1_500, 1_650)
    for step in steps[-2:]:
        Lineage(root, LINEAGE).advance(step.address, step.model.card.version)


class Store:
    """A store, damaged and mended again, case after case."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lineage = root / "lineages" / f"{LINEAGE}.json"
        self.head = Lineage(root, LINEAGE).head or ""
        found = StepStore(root).load(self.head)
        assert found is not None
        self.record, self.arrays = found
        self.versions = list(self.record["p_values"])
        self.files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        self.written = {path: path.stat().st_mtime_ns for path in self.files}

    def case(self, draw: random.Random) -> str:
        """Damage, read, mend; the kind of the case."""
        kinds = {
            "bytes": self._bytes, "lineage": self._a_lineage, "record": self._a_record,
            "card": self._a_card, "weights": self._weights, "arrays": self._arrays,
        }  # fmt: skip
        kind = draw.choice(list(kinds))
        kinds[kind](draw)
        self._read(draw)
        self._mend()
        return kind

    def _mend(self) -> None:
        for path in [*self.root.rglob("*")]:
            if path.is_dir() and ".damaged-" in path.name:
                shutil.rmtree(path)
            elif path.is_file() and path not in self.files:
                path.unlink()
        for path, content in self.files.items():
            if not path.exists() or path.stat().st_mtime_ns != self.written[path]:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                self.written[path] = path.stat().st_mtime_ns

    def _bytes(self, draw: random.Random) -> None:
        path = draw.choice(sorted(path for path, content in self.files.items() if content))
        path.write_bytes(bytes_changed(self.files[path], draw))

    def _a_lineage(self, draw: random.Random) -> None:
        changed = tree_changed(json.loads(self.lineage.read_bytes()), draw)
        self.lineage.write_text(json.dumps(changed))

    def _keep(self, record: Any, arrays: dict[str, Any]) -> None:
        """Store a step under the address that it would have, and let the lineage lead to it."""
        address = self.head[:32] + _content(record)
        path = self.root / "steps" / f"{address}.json"
        fields = {"record": record, "sha256": step_files._record_digest(address, record)}
        path.write_bytes(cards.canonical(fields))
        packed = step_files._pack_step(address, record, arrays)
        path.with_suffix(".npz").write_bytes(packed)
        for suffix in ("json", "npz"):
            (self.root / "steps" / f"{self.head}.{suffix}").unlink()
        state = json.loads(self.lineage.read_bytes()) | {"head": address}
        self.lineage.write_text(json.dumps(state))

    def _a_record(self, draw: random.Random) -> None:
        changed = tree_changed(json.loads(json.dumps(self.record)), draw)
        self._keep(changed if isinstance(changed, dict) else {}, self.arrays)

    def _arrays(self, draw: random.Random) -> None:
        name = draw.choice(sorted(self.arrays))
        changed = self.arrays | {name: array_changed(self.arrays[name], draw)}
        if not draw.randrange(4):
            del changed[name]
        self._keep({**self.record, "state": _digest(changed)}, changed)

    def _a_card(self, draw: random.Random) -> None:
        path = self.root / "models" / draw.choice(self.versions) / "card.json"
        fields = tree_changed(json.loads(path.read_bytes()), draw)
        if isinstance(fields, dict) and isinstance(fields.get("checksums"), dict):
            fields["checksums"]["card.json"] = cards._card_digest(fields)
        path.write_text(json.dumps(fields))

    def _weights(self, draw: random.Random) -> None:
        folder = self.root / "models" / draw.choice(self.versions)
        path = folder / "weights.npz"
        if draw.randrange(2):
            path.write_bytes(bytes_changed(path.read_bytes(), draw))
        else:
            weights = dict(cards.parse_weights(path.read_bytes(), path))
            name = draw.choice(sorted(weights))
            weights[name] = array_changed(weights[name], draw)
            if not draw.randrange(4):
                del weights[name]
            buffer = io.BytesIO()
            np.savez(buffer, **weights)  # as foreign software would, unchecked
            path.write_bytes(buffer.getvalue())
        self._reseal(folder)

    def _reseal(self, folder: Path) -> None:
        fields = json.loads((folder / "card.json").read_bytes())
        fields["checksums"]["weights.npz"] = cards.sha256((folder / "weights.npz").read_bytes())
        fields["checksums"]["card.json"] = cards._card_digest(fields)
        (folder / "card.json").write_text(json.dumps(fields))

    def _read(self, draw: random.Random) -> None:
        """Everything that reads the store; each answers or says what is wrong by name."""
        root, lineage, steps = self.root, Lineage(self.root, LINEAGE), StepStore(self.root)
        learning, models = make_learning(root, SERIES), ModelStore(root)
        readers: list[Callable[[], Any]] = [
            lambda: head_record(lineage), lambda: versions_in_use(root), lambda: heads(root),
            lambda: (lineage.champions, lineage.pinned), lambda: models.cards(),
            lambda: [(steps.load(at), steps.record(at)) for at in steps.find(self.head[:32])],
            lambda: [learning._steps.state(at) for at in steps.find(self.head[:32])],
            lambda: [
                learning.continues(step, step.boundary_ms)
                for step in learning.resume(lineage.head or "", 64)
            ],
            lambda: learning.model(draw.choice(self.versions)),
            lambda: models.has(draw.choice(self.versions)), lambda: learning.prune(),
        ]  # fmt: skip
        for act in draw.sample(readers, 4):
            answers(act)
        self._write(draw, lineage)

    def _write(self, draw: random.Random, lineage: Lineage) -> None:
        answers(lambda: lineage.pin("baseline"))
        if not draw.randrange(20):
            lineage.acquire()
            try:
                lineage.advance(self.head, "baseline")
                assert lineage.head == self.head
            finally:
                lineage.release()
        if not draw.randrange(20):
            answers(lambda: ModelStore(self.root).prune(1, versions_in_use(self.root)))


def fuzz(folder: Path, cases: int, seed: int) -> Counter[str]:
    """Run so many cases; how many there were of each kind."""
    a_store(folder)
    return each_case(Store(folder).case, cases, seed)


def main() -> None:
    cases, seed = (int(word) for word in (*sys.argv[1:3], *("100000", "1")[len(sys.argv) - 1 :]))
    timed(lambda folder: fuzz(folder, cases, seed))


if __name__ == "__main__":
    main()
