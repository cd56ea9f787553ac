"""The command `coverage`: what intervals and reaches were worth, by the candles that came.

It only reads the journal, so it may be asked while a bot runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import click
import numpy as np
from rich.table import Table

from lstm_model.commands.reasons import Question, asked_of
from lstm_model.commands.terminal import console, days_option, of_bot, plain_table, some
from lstm_model.durations import MIN_TRAINING_WINDOWS
from lstm_model.market.candles import Candles, Floats, Ints, utc_minute
from lstm_model.model.forecast import SPANS
from lstm_model.model.reliability import WINDOW, Reliability, constant_interval, ewma_interval
from lstm_model.settings import Settings
from lstm_model.store.journal import JournalRow
from lstm_model.store.models import ModelStore

_BPS = 1e4
_MOST_KNOWN = 0.99  # chosen: of the forecasts, for a score to stand beside that of all
_ENOUGH_APART = 30  # chosen: of fewer spans one or two reach further when 5 % are promised
_OTHERS = ("EWMA", "HAR", "constant")
_LEGEND = (
    f"worst fifth: by volatility; worst run: of {WINDOW} candles; -: too few to say; "
    "Winkler score in bps, lower is better, beside EWMA: normal with zero mean and EWMA "
    "volatility, HAR: a regression on past volatility, fitted to the pair's candles before these "
    "and tracked as the bot's, and constant: the best that never changes, known in hindsight"
)


@click.command()
@of_bot
@days_option(30)
def coverage(config: dict[str, Any], days: int) -> None:
    """Hold the bot's intervals against the candles that came, beside three others."""
    from lstm_model.bot.named import words_of

    with asked_of(config, days) as asked:
        judged, settings = list(_judged(asked)), asked.settings
    made, matured = sum(pair.made for pair in judged), sum(pair.matured for pair in judged)
    if not made:
        console.print(f"No forecast was made {asked.span}. A bot that runs forecasts every candle.")
        return
    newest_ms = max((pair.newest_ms or 0 for pair in judged), default=0)
    console.print(
        f"{matured:,} of {made:,} forecasts {asked.span} have come true in the candles of "
        f"{asked.config['datadir']}" + (f", until {utc_minute(newest_ms)}." if newest_ms else "."),
    )
    download = f"freqtrade download-data{words_of(asked.config)} --timeframes {asked.timeframe}"
    for line in _remarks(judged, download):
        console.print(line)
    if matured:
        console.print(f"{_level(settings):.0%} interval of {settings.horizon} candles' return:")
        console.print(_scores([pair for pair in judged if pair.matured], settings))
        console.print(_LEGEND)
        console.print()
        console.print("How often the price went further than a reach (5 % are promised):")
        console.print(_reaches([pair for pair in judged if pair.matured], settings.horizon))


class _Judged(NamedTuple):
    """One pair's forecasts beside what came.

    Attributes
    ----------
    low, high, volatility, realized : (N,) float64; realized is NaN where it is not known yet
    har : (N, 2) low and high of HAR; NaN where that is not known
    missed : (N, 2 S + 2) whether the price went further than a reach, as `excursions` orders them;
        NaN where that is not known
    others : forecasts that cannot be judged: made for another horizon or other levels
    newest_ms : open of the newest candle on disk; None: there are none
    """

    pair: str
    low: Floats
    high: Floats
    volatility: Floats
    realized: Floats
    har: Floats
    missed: Floats
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


def _judged(asked: Question) -> Iterator[_Judged]:
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
        missed = _missed(candles, dates, ours, asked.settings.horizon)
        others = len(said) - len(ours)
        har = _har(candles, dates, asked.settings)
        yield _Judged(pair, low, high, volatility, realized, har, missed, others, newest_ms)


def _first_words(rows: Sequence[JournalRow]) -> list[JournalRow]:
    """Of several versions' forecasts for a candle the one made first: the bot acted on it."""
    first: dict[int, JournalRow] = {}
    for row in rows:  # oldest candle first, of a candle in the order they were made
        first.setdefault(row.candle_ms, row)
    return list(first.values())


def _foreign(asked: Question) -> set[str]:
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

    return _at(candles, date_ms, lambda grid: realized_return(grid, horizon)[:, None])[:, 0]


def _har(candles: Candles | None, date_ms: Ints, settings: Settings) -> Floats:
    """(N, 2) what HAR says of the candles that open at `date_ms`, rising, by those before them."""
    from lstm_model.scoring.har import walk_forward  # as above

    found = np.full((len(date_ms), 2), np.nan)
    if candles is None or not len(date_ms):
        return found
    dates, ends = walk_forward(candles, int(date_ms[0]), settings)
    _, mine, theirs = np.intersect1d(date_ms, dates, assume_unique=True, return_indices=True)
    found[mine] = ends[theirs]
    return found


def _missed(
    candles: Candles | None, date_ms: Ints, rows: Sequence[JournalRow], horizon: int
) -> Floats:
    from lstm_model.model.reach import excursions  # as above

    half = len(SPANS)
    unknown = (None,) * (2 * half)
    told = [row.far if len(row.far) == 2 * half else unknown for row in rows]
    every = [
        (row.lowest, *far[:half], row.highest, *far[half:])
        for row, far in zip(rows, told, strict=True)
    ]
    said = np.abs(np.array(every, np.float64).reshape(-1, 2 * half + 2))
    went = _at(candles, date_ms, lambda grid: excursions(grid, horizon), 2 * half + 2)
    known = np.isfinite(said) & np.isfinite(went)
    return np.where(known, went > said, np.nan)


def _at(
    candles: Candles | None, date_ms: Ints, compute: Callable[[Candles], Floats], width: int = 1
) -> Floats:
    """(N, width) of what is computed of a pair's candles, the rows that open at `date_ms`."""
    found = np.full((len(date_ms), width), np.nan)
    if candles is None:
        return found
    grid = candles.on_grid()
    rows = (date_ms - grid.date_ms[0]) // grid.step_ms
    there = (rows >= 0) & (rows < len(grid))
    found[there] = compute(grid)[rows[there]]
    return found


def _reaches(judged: Sequence[_Judged], horizon: int) -> Table:
    """A row for each span; worst fifth: of each pair's own, by volatility.

    apart: so many spans do not overlap; few of them say nothing.
    """
    columns = ("matured", "apart", "below", "worst fifth", "above", "worst fifth")
    table = plain_table("candles", *columns)
    missed = np.concatenate([pair.missed for pair in judged])
    fifths = np.concatenate([_fifths(pair.volatility) for pair in judged])
    for number, span in enumerate((1, *SPANS)):
        sides = missed[:, number], missed[:, number + len(SPANS) + 1]
        matured = int(np.isfinite(sides[0]).sum())
        apart = matured // (span * horizon)
        cells = [text for side in sides for text in _shares(side, fifths, apart)]
        table.add_row(f"{span * horizon:,}", f"{matured:,}", f"{apart:,}", *cells)
    return table


def _fifths(volatility: Floats) -> Ints:
    """(N,) number of the fifth, by volatility, that each row is in."""
    order = np.argsort(np.argsort(volatility, kind="stable"), kind="stable")
    return np.asarray(order * 5 // max(1, len(order)))


def _shares(missed: Floats, fifths: Ints, apart: int) -> Iterator[str]:
    """The share of all that are known, and of the fifth where it is largest."""
    known = np.isfinite(missed)
    worst = [missed[known & (fifths == number)] for number in range(5)]
    enough = apart >= _ENOUGH_APART and bool(known.any())
    yield f"{missed[known].mean():.1%}" if enough else "-"
    enough = apart >= 5 * _ENOUGH_APART and all(map(len, worst))
    yield f"{max(float(part.mean()) for part in worst):.1%}" if enough else "-"


def _remarks(judged: Sequence[_Judged], download: str) -> Iterator[str]:
    """Why forecasts or scores were left out, and what to do: `download` begins the command."""
    if others := sum(pair.others for pair in judged):
        yield f"{others:,} were made for another horizon or other levels and are left out."
    if without := [pair.pair for pair in judged if pair.newest_ms is None]:
        command = f"{download} --pairs {shlex.join(without)}"
        yield f"No candles of {some(without)}: `{command}` gets them."
    if behind := [pair.pair for pair in judged if pair.newest_ms and pair.is_behind]:
        yield (
            f"No forecast of {some(behind)} has come true in these candles: `{download} --pairs "
            f"{shlex.join(behind)}` gets newer ones."
        )
    if without := [pair.pair for pair in judged if pair.matured and np.isnan(pair.har).all()]:
        yield (
            f"HAR is not known of {some(without)}: {MIN_TRAINING_WINDOWS:,} candles whose features "
            f"are known have to lie before the first forecast; `{download} --pairs "
            f"{shlex.join(without)} --prepend` gets older ones."
        )


def _scores(judged: Sequence[_Judged], settings: Settings) -> Table:
    level = _level(settings)
    columns = ("matured", "cover", "worst fifth", "worst run", "Winkler", *_OTHERS)
    table = plain_table("pair", *columns)
    parts = [_with_baselines(pair, settings.horizon, level) for pair in judged]
    for pair, part in zip(judged, parts, strict=True):
        table.add_row(pair.pair, *_cells(part, np.zeros(len(pair.low)), level))
    numbers = np.repeat(np.arange(len(judged)), [len(pair.low) for pair in judged])
    table.add_row("all pairs", *_cells(np.concatenate(parts, axis=1), numbers, level))
    return table


def _level(settings: Settings) -> float:
    return settings.levels[-1] - settings.levels[0]


def _with_baselines(pair: _Judged, horizon: int, level: float) -> Floats:
    """(10, N): volatility, realized, then low and high of the bot and of `_OTHERS`."""
    others = (
        *ewma_interval(pair.volatility, horizon, level),
        *pair.har.T,
        *constant_interval(pair.realized, level),
    )
    return np.stack([pair.volatility, pair.realized, pair.low, pair.high, *others])


def _cells(columns: Floats, pairs: Any, level: float) -> Iterator[str]:
    volatility, realized, *ends = columns
    made, *plain = (
        Reliability.of(low, high, realized, volatility, level, groups=pairs)
        for low, high in zip(ends[::2], ends[1::2], strict=True)
    )
    yield f"{made.count:,}"
    for share in (made.coverage, made.worst_quintile, made.worst_window):
        yield "-" if np.isnan(share) else f"{share:.1%}"
    for each in (made, *plain):
        known = each.count >= _MOST_KNOWN * made.count
        yield f"{_BPS * each.winkler:.1f}" if known else "-"
