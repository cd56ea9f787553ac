"""The command `reasons`: what became of candles. It only reads the journal, beside a bot too."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from rich.table import Table

from lstm_model.commands.terminal import console, days_option, of_bot, plain_table
from lstm_model.market.candles import utc_minute
from lstm_model.settings import Settings
from lstm_model.store.journal import Journal
from lstm_model.trading.sizing import REASONS

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Question:
    """Which journal is asked about which candles: those that open in `[start_ms, end_ms)`."""

    config: dict[str, Any]
    settings: Settings
    journal: Journal
    start_ms: int
    end_ms: int

    @property
    def timeframe(self) -> str:
        return str(self.config["timeframe"])

    @property
    def span(self) -> str:
        return f"from {utc_minute(self.start_ms)} to {utc_minute(self.end_ms)} UTC"


@contextmanager
def asked_of(config: dict[str, Any], days: int) -> Iterator[Question]:
    """The question of a configuration's journal, open for as long as it is needed."""
    from lstm_model.bot import configuration

    settings = configuration.settings_of(config)
    journal = configuration.journal_of(config, settings, read_only=True, whole_market=True)
    journal.check_exists()
    now_ms = time.time_ns() // 1_000_000
    try:
        yield Question(config, settings, journal, now_ms - days * _DAY_MS, now_ms)
    finally:
        journal.close()


@click.command()
@of_bot
@days_option(7)
def reasons(config: dict[str, Any], days: int) -> None:
    """Count why there was a trade or none, per pair; with the meaning of every reason."""
    with asked_of(config, days) as asked:
        counts = asked.journal.count_verdicts(asked.timeframe, asked.start_ms, asked.end_ms)
    if not counts:
        console.print(f"No candle was judged {asked.span}. A bot that runs judges every candle.")
        return
    console.print(f"What became of {_totals(counts).total():,} candles {asked.span}:")
    console.print(_meanings(_totals(counts)))
    console.print()
    console.print(_by_pair(counts))


def _meanings(totals: Counter[str]) -> Table:
    """How often each reason was the last word, and what it means."""
    table = plain_table("reason", "candles", "share")
    table.add_column("which means")
    for code, count in totals.items():
        meaning = REASONS.get(code, "unknown to this release")
        table.add_row(code, f"{count:,}", f"{count / totals.total():.1%}", meaning)
    return table


def _by_pair(counts: Mapping[tuple[str, str], int]) -> Table:
    """A row for each pair and one for all, a column for each reason that there was."""
    totals, pairs = _totals(counts), sorted({pair for pair, _ in counts})
    table = plain_table("pair", "candles", *(code.replace("_", "_\n") for code in totals))
    for pair in pairs:
        mine = Counter({code: counts.get((pair, code), 0) for code in totals})
        table.add_row(pair, *_numbers(mine))
    table.add_row("all pairs", *_numbers(totals))
    return table


def _numbers(counts: Counter[str]) -> Iterator[str]:
    yield from (f"{count:,}" for count in (counts.total(), *counts.values()))


def _totals(counts: Mapping[tuple[str, str], int]) -> Counter[str]:
    """Candles of all pairs by reason, the most frequent first."""
    totals: Counter[str] = Counter()
    for (_, code), count in counts.items():
        totals[code] += count
    return Counter(dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))))
