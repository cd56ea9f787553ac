"""What was forecast for the candles of every pair, ready to be shown again at every candle.

In columns: a thousand rows are put side by side in microseconds, of records it takes milliseconds.

Shapes: N forecasts, K quantile levels, S spans.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import StoreError
from lstm_model.market.candles import Floats, Ints, utc_text
from lstm_model.model.forecast import Forecast, unknown_far
from lstm_model.store.journal import Journal
from lstm_model.store.journal_rows import JournalRow
from lstm_model.store.recorder import Recorder

logger = logging.getLogger(__name__)

_SINGLE = ("mean", "volatility", "mean_error", "lowest", "highest")
_UNKNOWN_FAR = tuple(unknown_far(1)[0].tolist())
_AGAIN_S = 60.0  # chosen: after an answer that was an error


class Found(NamedTuple):
    """Forecasts of some candles.

    Attributes
    ----------
    rows : (N,) numbers of the candles that have one
    forecast : of N rows; NaN for what an older release did not write
    versions : (N,) of the models that made them
    """

    rows: Ints
    forecast: Forecast
    versions: NDArray[np.object_]


class Told:
    """Journaled forecasts of one pair, oldest candle first.

    Parameters
    ----------
    levels : K quantile levels
    """

    def __init__(self, levels: tuple[float, ...]) -> None:
        self._levels = levels
        self._date_ms: Ints = np.empty(0, np.int64)
        self._numbers: Floats = np.empty((0, len(levels) + len(_SINGLE) + len(_UNKNOWN_FAR)))
        self._versions: NDArray[np.object_] = np.empty(0, object)

    @property
    def newest_ms(self) -> int:
        """Open time of the newest candle; -1 without any."""
        return int(self._date_ms[-1]) if len(self._date_ms) else -1

    def add(self, rows: Sequence[JournalRow]) -> None:
        """Continue by rows in order of their candles; from their first on only they count.

        Raises
        ------
        StoreError
            Somebody else wrote one, for other levels: nothing changes.
        """
        if not rows:
            return
        for row in rows:
            self._check(row)
        stop = int(np.searchsorted(self._date_ms, rows[0].candle_ms))
        date_ms = np.array([row.candle_ms for row in rows], np.int64)
        versions = np.array([row.version for row in rows], object)
        numbers = np.array([_numbers(row) for row in rows], np.float64)
        self._date_ms = np.concatenate([self._date_ms[:stop], date_ms])
        self._versions = np.concatenate([self._versions[:stop], versions])
        self._numbers = np.concatenate([self._numbers[:stop], numbers])

    def precede(self, rows: Sequence[JournalRow]) -> None:
        """Add what was said of other candles, of rows in order of them: what is known stays.

        Raises as `add`.
        """
        known = set(self._date_ms.tolist())
        other = Told(self._levels)
        other.add([row for row in rows if row.candle_ms not in known])
        date_ms = np.concatenate([other._date_ms, self._date_ms])
        order = np.argsort(date_ms, kind="stable")
        self._date_ms = date_ms[order]
        self._versions = np.concatenate([other._versions, self._versions])[order]
        self._numbers = np.concatenate([other._numbers, self._numbers])[order]

    def forget_before(self, first_ms: int) -> None:
        """Let go of older candles."""
        start = int(np.searchsorted(self._date_ms, first_ms))
        self._date_ms, self._versions = self._date_ms[start:], self._versions[start:]
        self._numbers = self._numbers[start:]

    def of(self, date_ms: Ints) -> Found:
        """The forecasts for the candles that open then (rising)."""
        place = np.searchsorted(self._date_ms, date_ms)
        rows = np.flatnonzero(place < len(self._date_ms))
        rows = rows[self._date_ms[place[rows]] == date_ms[rows]]
        at, levels = place[rows], len(self._levels)
        numbers = self._numbers[at]
        single = dict(zip(_SINGLE, numbers[:, levels:].T, strict=False))
        far = numbers[:, levels + len(_SINGLE) :]
        forecast = Forecast(self._levels, numbers[:, :levels], **single, far=far)
        return Found(rows, forecast, self._versions[at])

    def _check(self, row: JournalRow) -> None:
        if (found := len(row.quantiles)) != len(self._levels):
            raise StoreError(
                f"{row.pair}: the forecast of {utc_text(row.candle_ms)} in the journal has {found} "
                f"quantiles, not {len(self._levels)}: no bot of these settings wrote it; move the "
                "journal away to start a new one"
            )


class Memory:
    """What was forecast, of every pair: asked of the journal once, and known from then on.

    While the journal does not answer, what was said since the bot began is known all the same. What
    was said before is not: so older candles are not forecast, as no forecast is made twice.

    Parameters
    ----------
    journal : that everything is recorded in
    versions : whose forecasts count of those that name no bot, as older releases wrote them
    """

    def __init__(
        self, journal: Recorder, timeframe: str, levels: tuple[float, ...],
        versions: Callable[[], Collection[str]],
    ) -> None:  # fmt: skip
        self._journal, self._timeframe, self._versions = journal, timeframe, versions
        self._told = defaultdict[str, Told](partial(Told, levels))
        self._asked: dict[str, Future[list[list[JournalRow]]]] = {}  # and not heard yet
        self._whole: set[str] = set()  # pairs of which the journal has told everything ...
        self._lost: dict[str, float] = {}  # ... and those of which it cannot, until when
        self._left: dict[str, int] = {}  # the newest candle of pairs that were forgotten
        self._begun_ms = self._oldest_ms = 0

    def begin(self, oldest_ms: int, newest_ms: int) -> None:
        """Know what the journal lacks yet.

        Parameters
        ----------
        oldest_ms : open of the oldest candle that will be shown
        newest_ms : of the newest that may have been forecast before; later ones were not

        Raises
        ------
        StoreError
            What waits for the journal was written by somebody else.
        """
        self._oldest_ms, self._begun_ms = oldest_ms, newest_ms
        rows = sorted(self._journal.waiting(), key=attrgetter("pair"))
        for pair, mine in groupby(rows, key=attrgetter("pair")):
            self._told[pair].precede(_said_first(mine))

    def follow(self, pairs: Collection[str]) -> None:
        """Ask the journal of pairs that are new, and let go of those that are no longer among them.

        Of one that comes back the journal is asked again.
        """
        for pair in (self._told.keys() | self._asked.keys()) - set(pairs):
            newest_ms = self._told[pair].newest_ms
            self._left[pair] = max(newest_ms, self._left.get(pair, -1))
            for known in (self._told, self._asked, self._lost):
                known.pop(pair, None)
            self._whole.discard(pair)
        for pair in pairs:
            self._ask(pair)

    def of(self, pair: str) -> Told:
        """What is known of a pair; the journal is waited for while the bot has patience."""
        self._ask(pair)
        if pair in self._asked and self._journal.wait(self._asked[pair]):
            self._hear(pair, self._asked.pop(pair))
        return self._told[pair]

    def known(self, pair: str) -> Told:
        """The same without asking anybody."""
        return self._told[pair]

    def newest_ms(self, pair: str) -> int:
        """Open of the newest candle that was forecast, or may have been; -1 without any."""
        newest_ms = self.of(pair).newest_ms
        if pair in self._whole:
            return newest_ms
        return max(newest_ms, self._begun_ms, self._left.get(pair, -1))

    def keep(self, made: Sequence[JournalRow]) -> None:
        """Into the journal first: what is not written down is not acted upon."""
        self._journal.record(made)
        for pair, mine in groupby(made, key=attrgetter("pair")):
            self._told[pair].add(list(mine))

    def _ask(self, pair: str) -> None:
        known = pair in self._whole or pair in self._asked
        if not known and time.monotonic() >= self._lost.get(pair, 0.0):
            self._asked[pair] = self._journal.ask(partial(self._read, pair))

    def _hear(self, pair: str, answer: Future[list[list[JournalRow]]]) -> None:
        failed = answer.exception()
        if failed is None:
            try:
                self._told[pair].precede(self._ours(*answer.result()))
            except StoreError as error:
                failed = error
        if failed is None:
            self._whole.add(pair)
            self._lost.pop(pair, None)
            return
        if pair not in self._lost:
            logger.error("%s: what was forecast before the start is not known: %s", pair, failed)
        self._lost[pair] = time.monotonic() + _AGAIN_S

    def _read(self, pair: str, journal: Journal) -> list[list[JournalRow]]:
        """What this bot said, and what is said by nobody."""
        span = self._timeframe, self._oldest_ms, 2**62
        return [journal.read(pair, *span, lineage=name) for name in (journal.lineage, "")]

    def _ours(self, own: Sequence[JournalRow], unnamed: Sequence[JournalRow]) -> list[JournalRow]:
        versions = self._versions() if unnamed else ()
        return _said_first([*own, *(row for row in unnamed if row.version in versions)])


def _said_first(rows: Iterable[JournalRow]) -> list[JournalRow]:
    """Of each candle what was said first, oldest candle first."""
    rows = sorted(rows, key=attrgetter("created_ms"), reverse=True)
    oldest = {row.candle_ms: row for row in rows}
    return [oldest[candle_ms] for candle_ms in sorted(oldest)]


def _numbers(row: JournalRow) -> list[float | None]:
    """A row of the table; NumPy reads None as NaN."""
    single = [getattr(row, name) for name in _SINGLE]
    far = row.far if len(row.far) == len(_UNKNOWN_FAR) else _UNKNOWN_FAR
    return [*row.quantiles, *single, *far]
