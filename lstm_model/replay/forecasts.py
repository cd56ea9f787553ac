"""Two accounts of the same candles: what a backtest forecast, and what a bot wrote down.

They are compared candle by candle; `lstm_model.replay.causes` says where a difference is from.

Shapes: T candles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from lstm_model.errors import DataError
from lstm_model.market.candles import Ints, utc_text
from lstm_model.model.forecast import FAR_NAMES
from lstm_model.replay.reproduction import NUMBERS
from lstm_model.store.journal_rows import JournalRow, VerdictRow

Place = tuple[str, int]  # a pair, and the open of the newest candle that was known
Words = Mapping[Place, Sequence[VerdictRow]]  # what was said of a candle, in that order


class Said(NamedTuple):
    """What a backtest says of one candle.

    Attributes
    ----------
    numbers : as in `NUMBERS`, empty without a forecast
    far : as in `FAR_NAMES`, None where not known
    """

    version: str
    gate: str
    numbers: tuple[float, ...]
    far: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class ForecastDifference:
    """A candle of which the two do not say the same; None: nothing was said."""

    pair: str
    candle_ms: int
    backtest: Said | None
    replay: JournalRow | None

    @property
    def where(self) -> str:
        """Pair and candle, as messages show them."""
        return f"{self.pair} {utc_text(self.candle_ms)}"

    def parts(self) -> Iterator[tuple[str, object, object]]:
        """Name, the backtest's value and the bot's, of everything that differs."""
        if self.backtest is None or not self.backtest.numbers or self.replay is None:
            return
        if self.backtest.version != self.replay.version:
            yield "version", self.backtest.version, self.replay.version
        for name, tested in zip(NUMBERS, self.backtest.numbers, strict=True):
            written = getattr(self.replay, name)
            if written is not None and tested != written:
                yield name, tested, written
        for name, reach, told in zip(FAR_NAMES, self.backtest.far, self.replay.far, strict=False):
            if reach != told:
                yield name, reach, told


@dataclass(frozen=True)
class PairForecasts:
    """Both accounts of one pair.

    Attributes
    ----------
    compared : candles that both have forecast
    differing, only_backtest, only_replay : in the order of time
    """

    pair: str
    compared: int
    differing: tuple[ForecastDifference, ...]
    only_backtest: tuple[ForecastDifference, ...]
    only_replay: tuple[ForecastDifference, ...]

    @property
    def equal(self) -> int:
        """How many are equal in every number."""
        return self.compared - len(self.differing)

    @property
    def differences(self) -> tuple[ForecastDifference, ...]:
        """All that keeps the two from being the same."""
        return (*self.differing, *self.only_backtest, *self.only_replay)


@dataclass(frozen=True)
class ForecastComparison:
    """Both accounts of all pairs."""

    pairs: tuple[PairForecasts, ...]

    @property
    def compared(self) -> int:
        """Candles of which both have a forecast."""
        return sum(pair.compared for pair in self.pairs)

    @property
    def equal(self) -> int:
        """How many of them are equal in every number."""
        return sum(pair.equal for pair in self.pairs)

    @property
    def ok(self) -> bool:
        """Whether there is something to compare, and no difference at all."""
        return self.compared > 0 and self.first is None

    @property
    def first(self) -> ForecastDifference | None:
        """The oldest difference."""
        every = (found for pair in self.pairs for found in pair.differences)
        return min(every, key=lambda found: (found.candle_ms, found.pair), default=None)

    def differences(self) -> dict[Place, ForecastDifference]:
        """Every difference by its place."""
        return {
            (found.pair, found.candle_ms): found
            for pair in self.pairs
            for found in pair.differences
        }


def compare_forecasts(
    columns: Mapping[str, DataFrame], rows: Mapping[str, Sequence[JournalRow]], step_ms: int,
    start_ms: int, end_ms: int,
) -> ForecastComparison:  # fmt: skip
    """Compare the forecasts of all candles that close in `(start_ms, end_ms]`.

    Numbers are equal when they are the same float64; only the sign of a zero does not count, which
    SQLite does not keep. What an older release did not write down (None) is not compared.

    Parameters
    ----------
    columns : pair -> `date` and `lstm_*` columns of the backtest
    rows : pair -> what the bot wrote down. Of several forecasts of a candle the first counts: the
        bot acted on it

    Raises
    ------
    DataError
        The backtest's dataframe lacks a column.
    """
    within = (start_ms - step_ms, end_ms - step_ms)
    return ForecastComparison(
        tuple(
            _pair(pair, _tested(columns.get(pair), pair, *within),
                  first_words(rows.get(pair, ()), *within))
            for pair in sorted({*columns, *rows})
        )
    )  # fmt: skip


def first_words(
    rows: Iterable[JournalRow], after_ms: int = -1, last_ms: int = 2**62
) -> dict[int, JournalRow]:
    """Of each candle that opens in `(after_ms, last_ms]` the forecast made first, by its open."""
    first: dict[int, JournalRow] = {}
    for row in sorted(rows, key=lambda row: (row.candle_ms, row.created_ms)):
        if after_ms < row.candle_ms <= last_ms:
            first.setdefault(row.candle_ms, row)
    return first


def opens_of(frame: DataFrame) -> Ints:
    """(T,) open times of a dataframe of freqtrade."""
    return np.asarray(frame["date"].to_numpy(dtype="datetime64[ms]").astype(np.int64))


def _tested(frame: DataFrame | None, pair: str, after_ms: int, last_ms: int) -> dict[int, Said]:
    """What the backtest says of each candle that opens in `(after_ms, last_ms]`."""
    if frame is None:
        return {}
    names = ["lstm_version", "lstm_gate", *(f"lstm_{name}" for name in (*NUMBERS, *FAR_NAMES))]
    if missing := [name for name in ("date", *names) if name not in frame]:
        raise DataError(f"{pair}: the backtest's dataframe lacks {', '.join(missing)}")
    opens = opens_of(frame)
    within = np.flatnonzero((opens > after_ms) & (opens <= last_ms))
    columns = (frame[name].to_numpy()[within].tolist() for name in names)
    said = {}
    for candle_ms, version, gate, *numbers in zip(opens[within].tolist(), *columns, strict=True):
        known = np.isfinite(numbers[NUMBERS.index("mean")])
        far = tuple(None if np.isnan(reach) else reach for reach in numbers[len(NUMBERS) :])
        made = tuple(numbers[: len(NUMBERS)]) if known else ()
        said[candle_ms] = Said(version, gate, made, far if known else ())
    return said


def _pair(pair: str, tested: Mapping[int, Said], rows: Mapping[int, JournalRow]) -> PairForecasts:
    forecast = {candle_ms for candle_ms, said in tested.items() if said.numbers}
    both = [
        ForecastDifference(pair, candle_ms, tested[candle_ms], rows[candle_ms])
        for candle_ms in sorted(forecast & rows.keys())
    ]
    alone = (
        tuple(
            ForecastDifference(pair, candle_ms, tested.get(candle_ms), rows.get(candle_ms))
            for candle_ms in sorted(candles)
        )
        for candles in (forecast - rows.keys(), rows.keys() - forecast)
    )
    return PairForecasts(pair, len(both), tuple(found for found in both if any(found.parts())),
                         *alone)  # fmt: skip
