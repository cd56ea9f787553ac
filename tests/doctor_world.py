"""A user whose bot lacks nothing, to be spoilt in one way or another, and what doctor says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from places import STRATEGIES, lay_out
from series import make_candles, to_frame

from lstm_model import machine
from lstm_model.bot import configuration
from lstm_model.settings import Settings
from lstm_model.setup.doctor import examine
from lstm_model.setup.finding import Finding, State
from lstm_model.setup.subject import read_subject
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelStore

HOUR_MS = 3_600_000
PAIRS = ["BTC/USDT", "ETH/USDT"]
COUNT = 4_000  # hourly: those to train on, and more than 60 days before
LSTM = {"train_candles": 2_000, "horizon": 4}
COMPLETE: dict[str, Any] = {
    "dry_run": True, "stake_currency": "USDT", "stake_amount": 10, "max_open_trades": 3,
    "exchange": {"name": "binance", "pair_whitelist": PAIRS}, "strategy": "LSTMStrategy",
    "pairlists": [{"method": "StaticPairList"}], "timeframe": "1h", "lstm": LSTM,
    "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
}  # fmt: skip


@dataclass(frozen=True)
class User:
    """A user_data folder with strategies, a configuration and candles until now."""

    folder: Path
    now_ms: int

    @property
    def file(self) -> Path:
        return self.folder / "config.json"

    @property
    def candles(self) -> Path:
        return self.folder / "data" / "binance"

    def configure(self, **changes: Any) -> None:
        self.file.write_text(json.dumps({**COMPLETE, **changes}))

    def has_candles(self, pair: str, count: int = COUNT, until_ms: int = 0) -> None:
        """So many hourly candles, the last of which closed `until_ms` ago."""
        end_ms = (self.now_ms - until_ms) // HOUR_MS * HOUR_MS
        dates = end_ms - HOUR_MS * np.arange(count, 0, -1)
        made = replace(make_candles(count, pair=pair), step_ms=HOUR_MS, date_ms=dates)
        self.candles.mkdir(parents=True, exist_ok=True)
        path = self.candles / f"{pair.replace('/', '_')}-1h.feather"
        to_frame(made).reset_index(drop=True).to_feather(path)

    def options(self) -> dict[str, str]:
        return {"user_data_dir": str(self.folder)}

    def loaded(self) -> tuple[dict[str, Any], Settings]:
        """The configuration as freqtrade reads it, and our section of it."""
        config = configuration.load_config([str(self.file)], self.options())
        return config, configuration.settings_of(config)

    def store(self) -> tuple[ModelStore, Lineage]:
        """What a bot of this configuration has learnt."""
        config, settings = self.loaded()
        root = configuration.store_folder(config, settings)
        return ModelStore(root), Lineage(root, configuration.lineage(config, settings))

    def examined(
        self, files: Sequence[str] = (), root: Path = machine.ROOT, *, offline: bool = True
    ) -> list[Finding]:
        subject = read_subject(
            files or [str(self.file)], self.options(), self.now_ms, offline=offline, root=root
        )
        return list(examine(subject))


def healthy(folder: Path) -> User:
    user = User(folder / "user_data", time.time_ns() // 1_000_000)
    user.folder.mkdir()
    shutil.copytree(STRATEGIES, user.folder / "strategies")
    user.configure()
    for pair in PAIRS:
        user.has_candles(pair)
    return user


def by_name(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    return {f.name: [other for other in findings if other.name == f.name] for f in findings}


def only(findings: Sequence[Finding], name: str) -> Finding:
    [found] = by_name(findings)[name]
    return found


def to_be_done(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state == State.TODO]


def container(root: Path, limit_mb: int, taken_mb: int) -> Path:
    """A machine on which a cgroup leaves so much memory."""
    at = "sys/fs/cgroup/memory"
    return lay_out(root, {
        "proc/cpuinfo": "flags : fpu avx avx2 fma\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        f"{at}.max": limit_mb * 1_000_000, f"{at}.high": "max",
        f"{at}.current": taken_mb * 1_000_000,
    })  # fmt: skip


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(mode)
