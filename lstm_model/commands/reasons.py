"""The commands `reasons` and `coverage`: what became of candles, and what intervals were worth.

Both only read the journal, so they may be asked while a bot runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import click
import numpy as np
from rich.table import Table

from lstm_model.commands.terminal import (
    config_option,
    console,
    datadir_option,
    load_config,
    plain_table,
    some,
    userdir_option,
)
from lstm_model.market.candles import Candles, Floats, Ints, utc_minute
from lstm_model.model.reliability import WINDOW, Reliability, constant_interval, ewma_interval
from lstm_model.settings import Settings
from lstm_model.store.journal import Journal, JournalRow
from lstm_model.store.models import ModelStore
from lstm_model.trading.sizing import REASONS

Command = TypeVar("Command", bound=Callable[..., None])

_DAY_MS = 86_400_000
_BPS = 1e4
_LEGEND = (
    f"worst fifth: by volatility; worst run: of {WINDOW} candles; -: too few to say; "
    "Winkler score in bps, lower is better, beside EWMA: normal with zero mean and EWMA "
    "volatility, and constant: the best that never changes, known in hindsight"
)


@dataclass(frozen=True)
class _Question:
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


def _days_option(days: int) -> Callable[[Command], Command]:
    return click.option(
        "--days", default=days, show_default=True, type=click.IntRange(1), help="How far back."
    )


@contextmanager
def _asked(config: dict[str, Any], days: int) -> Iterator[_Question]:
    from lstm_model.bot import configuration

    settings = configuration.settings_of(config)
    journal = Journal(configuration.journal_url(config, settings))
    journal.check_exists()
    now_ms = time.time_ns() // 1_000_000
    try:
        yield _Question(config, settings, journal, now_ms - days * _DAY_MS, now_ms)
    finally:
        journal.close()


@click.command()
@config_option
@userdir_option
@_days_option(7)
def reasons(configs: tuple[str, ...], userdir: str | None, days: int) -> None:
    """Count why there was a trade or none, per pair; with the meaning of every reason."""
    with _asked(load_config(configs, userdir), days) as asked:
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
    table = plain_table("reason")
    for column in ("candles", "share"):
        table.add_column(column, justify="right")
    table.add_column("which means")
    for code, count in totals.items():
        meaning = REASONS.get(code, "unknown to this release")
        table.add_row(code, f"{count:,}", f"{count / totals.total():.1%}", meaning)
    return table


def _by_pair(counts: Mapping[tuple[str, str], int]) -> Table:
    """A row for each pair and one for all, a column for each reason that there was."""
    totals, pairs = _totals(counts), sorted({pair for pair, _ in counts})
    table = plain_table("pair")
    for column in ("candles", *totals):
        table.add_column(column.replace("_", "_\n"), justify="right", overflow="fold")
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


@click.command()
@config_option
@userdir_option
@datadir_option
@_days_option(30)
def coverage(configs: tuple[str, ...], userdir: str | None, datadir: str | None, days: int) -> None:
    """Hold the bot's intervals against the candles that came, beside two plain intervals."""
    with _asked(load_config(configs, userdir, datadir=datadir), days) as asked:
        judged, settings = list(_judged(asked)), asked.settings
    made, matured = sum(pair.made for pair in judged), sum(pair.matured for pair in judged)
    if not made:
        console.print(f"No forecast was made {asked.span}. A bot that runs forecasts every candle.")
        return
    newest_ms = max((pair.newest_ms or 0 for pair in judged), default=0)
    console.print(
        f"{matured:,} of {made:,} forecasts {asked.span} have come true in the candles of "
        f"{asked.config['datadir']}" + (f", until {utc_minute(newest_ms)}." if newest_ms else "."),
        markup=False,
    )
    for line in _remarks(judged):
        console.print(line, markup=False)
    if matured:
        console.print(f"{_level(settings):.0%} interval of {settings.horizon} candles' return:")
        console.print(_scores([pair for pair in judged if pair.matured], settings))
        console.print(_LEGEND)


class _Judged(NamedTuple):
    """One pair's forecasts beside what came.

    Attributes
    ----------
    low, high, volatility, realized : (N,) float64; realized is NaN where it is not known yet
    others : forecasts that cannot be judged: made for another horizon or other levels
    newest_ms : open of the newest candle on disk; None: there are none
    """

    pair: str
    low: Floats
    high: Floats
    volatility: Floats
    realized: Floats
    others: int
    newest_ms: int | None

    @property
    def made(self) -> int:
        return len(self.low) + self.others

    @property
    def matured(self) -> int:
        return int(np.isfinite(self.realized).sum())

    @property
    def is_behind(self) -> bool:
        """Whether there are forecasts but none has come true."""
        return len(self.low) > 0 and not self.matured


def _judged(asked: _Question) -> Iterator[_Judged]:
    from lstm_model.bot import configuration

    foreign = _foreign(asked)
    where = (asked.timeframe, asked.start_ms, asked.end_ms)
    for pair in asked.journal.pairs(*where):
        said = _first_words(asked.journal.read(pair, *where))
        ours = [row for row in said if _is_ours(row, foreign, asked.settings)]
        candles = configuration.load_candles(asked.config, pair)
        dates = np.array([row.candle_ms for row in ours], dtype=np.int64)
        numbers = np.array([(row.low, row.high, row.volatility) for row in ours]).reshape(-1, 3)
        realized = _realized(candles, dates, asked.settings.horizon)
        newest_ms = None if candles is None else int(candles.date_ms[-1])
        low, high, volatility = numbers.T
        others = len(said) - len(ours)
        yield _Judged(pair, low, high, volatility, realized, others, newest_ms)


def _first_words(rows: Sequence[JournalRow]) -> list[JournalRow]:
    """Of several versions' forecasts for a candle the one made first: the bot acted on it."""
    first: dict[int, JournalRow] = {}
    for row in rows:  # oldest candle first, of a candle in the order they were made
        first.setdefault(row.candle_ms, row)
    return list(first.values())


def _foreign(asked: _Question) -> set[str]:
    """Stored versions that were made for another horizon or other levels."""
    from lstm_model.bot import configuration

    ours = asked.settings.model_dump(mode="json")
    cards = ModelStore(configuration.store_folder(asked.config, asked.settings)).cards()
    return {
        card.version
        for card in cards
        if any(card.settings.get(name) != ours[name] for name in ("horizon", "levels"))
    }


def _is_ours(row: JournalRow, foreign: set[str], settings: Settings) -> bool:
    return row.version not in foreign and len(row.quantiles) == len(settings.levels)


def _realized(candles: Candles | None, date_ms: Ints, horizon: int) -> Floats:
    """(N,) log return over the horizon from the close of the candles that open at `date_ms`."""
    from lstm_model.model.dataset import realized_return  # needs TA-Lib, the other commands do not

    realized = np.full(len(date_ms), np.nan)
    if candles is None:
        return realized
    grid = candles.on_grid()
    rows = (date_ms - grid.date_ms[0]) // grid.step_ms
    there = (rows >= 0) & (rows < len(grid))
    realized[there] = realized_return(grid, horizon)[rows[there]]
    return realized


def _remarks(judged: Sequence[_Judged]) -> Iterator[str]:
    """Why forecasts were left out, and what to do."""
    if others := sum(pair.others for pair in judged):
        yield f"{others:,} were made for another horizon or other levels and are left out."
    if without := [pair.pair for pair in judged if pair.newest_ms is None]:
        yield f"No candles of {some(without)}: `freqtrade download-data` gets them."
    if behind := [pair.pair for pair in judged if pair.newest_ms and pair.is_behind]:
        yield (
            f"No forecast of {some(behind)} has come true in these candles: `freqtrade "
            "download-data` gets newer ones."
        )


def _scores(judged: Sequence[_Judged], settings: Settings) -> Table:
    level = _level(settings)
    table = plain_table("pair")
    for column in ("matured", "cover", "worst fifth", "worst run", "Winkler", "EWMA", "constant"):
        table.add_column(column, justify="right")
    parts = [_with_baselines(pair, settings.horizon, level) for pair in judged]
    for pair, part in zip(judged, parts, strict=True):
        table.add_row(pair.pair, *_cells(part, np.zeros(len(pair.low)), level))
    numbers = np.repeat(np.arange(len(judged)), [len(pair.low) for pair in judged])
    table.add_row("all pairs", *_cells(np.concatenate(parts, axis=1), numbers, level))
    return table


def _level(settings: Settings) -> float:
    return settings.levels[-1] - settings.levels[0]


def _with_baselines(pair: _Judged, horizon: int, level: float) -> Floats:
    """(8, N): volatility, realized, then low and high of the bot, of EWMA, of constant width."""
    ewma = ewma_interval(pair.volatility, horizon, level)
    constant = constant_interval(pair.realized, level)
    return np.stack([pair.volatility, pair.realized, pair.low, pair.high, *ewma, *constant])


def _cells(columns: Floats, pairs: Any, level: float) -> Iterator[str]:
    volatility, realized, *ends = columns
    made, *plain = (
        Reliability.of(low, high, realized, volatility, level, groups=pairs)
        for low, high in zip(ends[::2], ends[1::2], strict=True)
    )
    yield f"{made.count:,}"
    for share in (made.coverage, made.worst_quintile, made.worst_window):
        yield "-" if np.isnan(share) else f"{share:.1%}"
    yield from (f"{_BPS * each.winkler:.1f}" for each in (made, *plain))
