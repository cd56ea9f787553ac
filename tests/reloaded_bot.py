"""Reloads a real bot's configuration in this process: `python tests/reloaded_bot.py FOLDER COUNT`.

Real freqtrade trades against the practice exchange; between the reloads it looks a few times, as
`/reload_config` by Telegram has it. A JSON line after each says what there is in the process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from e2e import Bot, bot_in, run_lstm
from freqtrade.enums import State
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.worker import Worker
from places import ROOT

from lstm_model.practice.exchange import LoopbackExchange, open_market

LOOKS = 3  # of a bot between two reloads


def main(folder: Path, reloads: int) -> None:
    with LoopbackExchange(open_market("synthetic", seed=1, days=6)) as exchange:
        bot = bot_in(folder, exchange)
        outcome = bot.run("download-data", "--days", "6", "-t", "1m")
        assert outcome.code == 0, outcome.text
        outcome = run_lstm("train", *bot.options())
        assert outcome.code == 0, outcome.text
        reload(bot, reloads)


def reload(bot: Bot, reloads: int) -> None:
    """Trade, and say after each reload what is there."""
    worker, generations = Worker(arguments(bot)), Generations()
    for number in range(reloads + 1):
        if number:
            worker._reconfigure()
        generations.note(worker.freqtrade)
        look(worker)
        tell(number, generations)
    worker.exit()


def arguments(bot: Bot) -> dict[str, Any]:
    words = bot.options("reload")
    return {
        "config": [str(ROOT / word) for word in words[1:-2:2]], "user_data_dir": str(bot.userdir),
        "strategy": "LSTMStrategy", "verbosity": 0,
    }  # fmt: skip


def look(worker: Worker) -> None:
    state: State | None = None
    for _ in range(LOOKS):
        state = worker._worker(old_state=state)


class Generations:
    """What every bot of this process consisted of, as far as it is still there."""

    def __init__(self) -> None:
        self._known: list[tuple[str, weakref.ref[Any]]] = []

    def note(self, bot: FreqtradeBot) -> None:
        engine = bot.strategy._lstm_live
        parts = {
            "bot": bot, "strategy": bot.strategy, "engine": engine, "journal": engine._journal,
            "stream": engine.inside.stream, "exchange": bot.exchange,
        }  # fmt: skip
        self._known += [(name, weakref.ref(part)) for name, part in parts.items()]

    def alive(self) -> dict[str, int]:
        return dict(Counter(name for name, found in self._known if found() is not None))


def tell(number: int, generations: Generations) -> None:
    gc.collect()
    me = psutil.Process()
    found = {
        "reload": number,
        "alive": generations.alive(),
        "rss_mb": round(me.memory_info().rss / 2**20, 1),
        "descriptors": me.num_fds(),
        "threads": sorted(item.name for item in threading.enumerate()),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
