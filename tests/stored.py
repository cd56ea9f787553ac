"""Stored things that several tests share: cards, weights, versions, and how a writer is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from places import TESTS

from lstm_model.settings import parse_settings
from lstm_model.store import card as card_module
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelCard, ModelStore, version_id

LINEAGE = "binance-spot-5m"


def make_card(number: int = 0, **changes: object) -> ModelCard:
    fields: dict[str, object] = {
        "version": version_id(number=str(number)),
        "created_ms": 1_700_000_000_000 + number,
        "code_version": "0.1.0",
        "timeframe": "5m",
        "pairs": ("BTC/USDT", "ETH/USDT"),
        "settings": parse_settings({}).model_dump(),
        "feature_names": ("log_return", "volatility"),
        "train_start_ms": 0,
        "train_end_ms": 300_000,
        "serves_from_ms": 600_000,
        "data_digest": "ab" * 8,
        "windows": {"train": 10, "validation": 2, "test": 3},
        "epochs": 4,
        "seconds": 1.5,
        "scores": {"lstm": {"pinball": 0.1 + 0.2}, "zero": {"pinball": 0.4}},
        "skill": {"p_value": 0.01},
        "calibration": {"BTC/USDT": [0.1, -1e-300]},
    }
    return ModelCard(**(fields | changes))


def make_weights(number: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "lstm/kernel": rng.normal(size=(3, 8)).astype(np.float32),
        "dense/bias": np.asfortranarray(rng.normal(size=(4, 2)).astype(np.float32)),
    }


def publish(store: ModelStore, number: int = 0, network: Path | None = None) -> ModelCard:
    return store.publish(make_card(number), make_weights(number), network)


def publish_and_serve(store: ModelStore, lineage: str, number: int) -> None:
    """What a bot does with a model that passed the gate."""
    version = publish(store, number).version
    Lineage(store.root, lineage).advance(f"{number:016x}", version)


def folder(store: ModelStore, version: str) -> Path:
    return store.root / "models" / version


def reseal(where: Path, **changes: object) -> None:
    """Change a stored card and give it checksums that fit, as a careful forger would."""
    path = where / "card.json"
    fields = json.loads(path.read_bytes()) | changes
    fields["checksums"] = {
        name: card_module.sha256((where / name).read_bytes())
        for name in fields["checksums"]
        if name != "card.json"
    }
    fields["checksums"]["card.json"] = card_module._card_digest(fields)
    path.write_text(json.dumps(fields))


KILLED_AT_EVERY_CALL = """
import os, shutil, signal, sys
from pathlib import Path
sys.path[:0] = {tests!r}
import {module}

CALLS = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir", "utime")

def crash_at(boundary):
    seen = 0
    def pass_boundary():
        nonlocal seen
        seen += 1
        if seen == boundary:
            os.kill(os.getpid(), signal.SIGKILL)
    def patch(name, real):
        def call(*arguments, **options):
            pass_boundary()
            try:
                return real(*arguments, **options)
            finally:
                pass_boundary()
        setattr(os, name, call)
    for name in CALLS:
        patch(name, getattr(os, name))

for boundary in range(1, 10_000):
    root = Path({root!r}) / str(boundary)
    shutil.copytree({base!r}, root)
    child = os.fork()
    if not child:
        crash_at(boundary)
        {module}.{action}(root)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def killed_at_every_call(action: Callable[[Path], None], base: Path, root: Path) -> list[Path]:
    """Copies of `base`, in each of which `action` was killed at its next call of the system.

    In the last it came to its end.
    """
    code = KILLED_AT_EVERY_CALL.format(
        tests=[str(TESTS), str(TESTS / "store")],
        module=action.__module__,
        action=action.__name__,
        root=str(root),
        base=str(base),
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return sorted(root.iterdir(), key=lambda path: int(path.name))


def age(root: Path) -> None:
    """Have all below `root` seem old enough to be a leftover."""
    for path in root.glob("*/.tmp-*"):
        os.utime(path, (0, 0))
