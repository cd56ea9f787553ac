"""freqtrade's command that gets candles, as many as are learnt from or were there."""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Sequence

import numpy as np

from lstm_model.durations import DAY_MS, OLDEST_MS
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import REACH_DAYS
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import Settings

PREPEND = "--prepend"  # of download-data: without it, freqtrade asks from the newest candle on
ERASE = "--erase"  # what is there goes, before the exchange is asked
COPY_FIRST = "after it has deleted the file: copy that first"  # what comes may be less
_ROUND_DAYS = 50  # chosen: of history to download, for a number that is easy to read
_MOST_DAYS = 6_000  # chosen: no exchange has older candles


def days_to_learn(settings: Settings, timeframe: str, first_ms: int | None = None) -> int:
    """Days of history that a first training wants, generously rounded.

    Parameters
    ----------
    first_ms : of candles that are to be got anew; no fewer are wanted than there were

    Examples
    --------
    >>> days_to_learn(Settings(), "5m")
    850
    """
    wanted = settings.train_candles + settings.retrain_candles + WARM_UP + settings.lookback
    wanted_ms = wanted * timeframe_ms(timeframe) + REACH_DAYS * DAY_MS
    if first_ms is not None:
        wanted_ms = max(wanted_ms, time.time_ns() // 1_000_000 - first_ms)
    return min(-(-wanted_ms // (DAY_MS * _ROUND_DAYS)) * _ROUND_DAYS, _MOST_DAYS)


def download_command(
    words: str, timeframe: str, days: int, pairs: Sequence[str], *more: str
) -> str:
    """The command line.

    Parameters
    ----------
    words : that name the configuration, each after a blank

    Examples
    --------
    >>> download_command(" -c mine.json", "1h", 200, ["BTC/USDT"], "--erase")
    'freqtrade download-data -c mine.json --timeframes 1h --days 200 --pairs BTC/USDT --erase'
    """
    return _command(words, timeframe, ["--days", str(days)], pairs, *more)


def no_history(
    settings: Settings, timeframe: str, boundary_ms: int, pairs: Sequence[str],
    old: Collection[str], words: str,
) -> str:  # fmt: skip
    """That no pair has candles before a boundary to train on, and what gets them.

    Parameters
    ----------
    old : those of the pairs that have candles as old as are wanted: they lack newer ones
    words : that name the configuration, each after a blank
    """
    days, oldest = days_to_learn(settings, timeframe), np.datetime64(OLDEST_MS, "ms")
    end = np.datetime64(boundary_ms, "ms").astype("datetime64[D]")
    begin = max(end - np.timedelta64(days, "D"), oldest.astype("datetime64[D]"))
    span = ["--timerange", f"{begin}-".replace("-", "", 2)]
    older, newer = [[pair for pair in pairs if (pair in old) is such] for such in (False, True)]
    commands = [_command(words, timeframe, span, older, PREPEND)] if older or not newer else []
    commands += [_command(words, timeframe, span, newer)] if newer else []
    return " ".join([
        f"no {timeframe} candles of {', '.join(pairs) or 'any pair'} before {end} to train on; "
        f"about {days} days are wanted.", *(f"Run `{command}`." for command in commands),
    ])  # fmt: skip


def _command(
    words: str, timeframe: str, span: Sequence[str], pairs: Sequence[str], *more: str
) -> str:
    named = ["--pairs", *pairs] if pairs else []
    wanted = ["--timeframes", timeframe, *span, *named, *more]
    return f"freqtrade download-data{words} {shlex.join(wanted)}"
