"""A live bot on the practice exchange whose strategy is under `LSTMRisk`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from e2e import SMALL, run_lstm
from live_bot import STRATEGY, LiveBot

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.practice.synthetic import synthetic_market

GUARDED = """

from lstm_model import LSTMRisk


class Guarded(LSTMRisk, Obedient):
    # Obedient; enters by itself where the configuration says `wants`, and leaves after `holds_s`.

    def populate_entry_trend(self, dataframe, metadata):
        wanted = self.config.get("wants", {}).get(metadata["pair"])
        if wanted:
            dataframe[f"enter_{wanted}"] = 1
        return dataframe

    def custom_exit(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        age_s = (current_time - trade.open_date_utc).total_seconds()
        return "old" if age_s > self.config.get("holds_s", 1e9) else None
"""


class GuardedBot(LiveBot):
    """What it has learnt comes from `learnt`.

    Parameters
    ----------
    wants : pair -> the side that it enters whenever it may
    """

    def __init__(
        self, folder: Path, exchange: TradingExchange, learnt: Path | None = None,
        mode: str = "spot", wants: dict[str, str] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        lstm = {**SMALL, "store_dir": "lstm"}
        options = {"strategy": "Guarded", "lstm": lstm, "wants": wants or {}, **options}
        super().__init__(folder, exchange, mode, **options)
        own = STRATEGY.format(can_short=mode == "futures") + GUARDED
        (folder / "guarded.py").write_text(own)
        if learnt:
            for name in ("lstm", "data"):
                shutil.copytree(learnt / name, folder / name, dirs_exist_ok=True)

    def pending(self) -> dict[str, Any]:
        """The intents in the book of orders."""
        (book,) = (self._folder / "lstm" / "orders").glob("*.json")
        intents: dict[str, Any] = json.loads(book.read_text())["intents"]
        return intents

    def messages(self, words: str) -> list[str]:
        """Lines of its log with these words."""
        return [line for line in self.text.splitlines() if words in line]


def learn(folder: Path, mode: str) -> Path:
    """Candles and a model in a folder, for bots to begin with."""
    with TradingExchange(synthetic_market(seed=5, days=7), {"USDT": "1000"}, mode) as running:
        bot = GuardedBot(folder, running, mode=mode)
        bot.run("download-data", "--days", "7", "-t", "1m")
        outcome = run_lstm("train", *bot.options)
        assert outcome.code == 0, outcome.text
    return folder
