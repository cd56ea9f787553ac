"""What the journal holds: a forecast, a decision, a verdict; and each as plain database values.

Drivers store NumPy's numbers as blobs, no score may meet a NaN, and no database takes every text:
all three end here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lstm_model.errors import DataError

_MOST = 2**63  # what a database's integers do not reach


class Fact(NamedTuple):
    """Something to write down: the kind names a table, the values are those of its columns."""

    kind: str
    values: dict[str, Any]


@dataclass(frozen=True)
class JournalRow:
    """One forecast as it was made.

    Attributes
    ----------
    candle_ms : open of the newest candle the forecast knew
    version : model version that made it
    quantiles : (K,) log return over the horizon, rising
    volatility : log return per candle
    mean, low, high : log return; the calibrated interval is [low, high]
    reason : why it led to an entry or to none
    mean_error : standard error of `mean`, log return
    lowest, highest : log returns that the price does not pass within the horizon, see `Forecast`
    far : (2 S,) the same within longer spans, see `Forecast`; None for each that is not known

    The three before it are None where they were not known: older releases did not write them.
    """

    pair: str
    timeframe: str
    candle_ms: int
    version: str
    quantiles: tuple[float, ...]
    volatility: float
    mean: float
    low: float
    high: float
    reason: str
    created_ms: int
    mean_error: float | None = None
    lowest: float | None = None
    highest: float | None = None
    far: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class DecisionRow:
    """One decision of the learner, or of a person, as it was made.

    Attributes
    ----------
    lineage : the bot whose models it is about
    at_ms : candle time of the decision
    kind : "trained", "promoted", "rejected", "rolled back", "drift", "training failed",
        "calibration", "pinned"
    version : model version it is about; of "drift", the one that was watched
    champion : model version that serves from then on
    candles : how many the two versions were compared on
    gain, bound : the gain over the champion and its lower bound, as the gate reckoned them;
        None where nothing was compared
    text : the decision in a sentence
    """

    lineage: str
    at_ms: int
    kind: str
    version: str
    champion: str
    candles: int
    gain: float | None
    bound: float | None
    text: str
    created_ms: int


@dataclass(frozen=True)
class VerdictRow:
    """What became of a candle: an entry signal, or why there was none or no order.

    Attributes
    ----------
    candle_ms : open of the newest candle that was known
    reason : code, see `lstm_model.trading.sizing.REASONS`
    text : the numbers behind it, in words; may be empty
    """

    pair: str
    timeframe: str
    candle_ms: int
    reason: str
    text: str
    created_ms: int


def forecast_values(row: JournalRow) -> dict[str, Any]:
    """Column -> value of a forecast.

    Raises
    ------
    DataError
        For a number that is NaN or infinite.
    """
    quantiles = [float(value) for value in row.quantiles]
    floats = {name: _float(getattr(row, name)) for name in _FORECAST_FLOATS}
    far = [_float(value) for value in row.far]
    if not _are_finite(dict(enumerate((*quantiles, *far))) | floats):
        raise DataError(
            f"{row.pair}: the forecast for candle {row.candle_ms} holds a NaN or infinite number"
        )
    texts = {name: _text(getattr(row, name)) for name in ("pair", "timeframe", "version", "reason")}
    times = {name: _whole(getattr(row, name)) for name in ("candle_ms", "created_ms")}
    lists = {"quantiles": json.dumps(quantiles), "far": json.dumps(far)}
    return {**texts, **times, **floats, **lists}


def forecast_row(values: Mapping[str, Any]) -> JournalRow:
    """The inverse of `forecast_values`."""
    columns = dict(values)
    quantiles = tuple(float(value) for value in json.loads(columns.pop("quantiles")))
    far = tuple(_float(value) for value in json.loads(columns.pop("far") or "[]"))
    return JournalRow(quantiles=quantiles, far=far, **columns)


def decision_values(row: DecisionRow) -> dict[str, Any]:
    """Column -> value of a decision.

    Raises
    ------
    DataError
        For a number that is NaN or infinite.
    """
    floats = {name: _float(getattr(row, name)) for name in ("gain", "bound")}
    if not _are_finite(floats):
        raise DataError(
            f'{row.lineage}: the decision "{row.kind}" about model {row.version} at {row.at_ms} '
            "holds a NaN or infinite number; leave it out (None)"
        )
    names = ("lineage", "kind", "version", "champion", "text")
    texts = {name: _text(getattr(row, name)) for name in names}
    times = {name: _whole(getattr(row, name)) for name in ("at_ms", "candles", "created_ms")}
    return {**texts, **times, **floats}


def verdict_values(row: VerdictRow) -> dict[str, Any]:
    """Column -> value of a verdict."""
    texts = {name: _text(getattr(row, name)) for name in ("pair", "timeframe", "reason", "text")}
    times = {name: _whole(getattr(row, name)) for name in ("candle_ms", "created_ms")}
    return {**texts, **times}


_NEEDED = {  # the columns without which a fact is none
    "forecast": "lineage pair timeframe candle_ms version quantiles volatility mean low high "
    "reason created_ms",
    "decision": "lineage at_ms kind version champion candles text created_ms",
    "verdict": "lineage pair timeframe candle_ms reason text created_ms",
}


def is_fact(fact: Fact) -> bool:
    """Whether it can be one, read from where others may have written."""
    if not isinstance(fact.kind, str) or not isinstance(fact.values, dict):
        return False
    needed = _NEEDED.get(fact.kind, "no such kind").split()
    plain = all(isinstance(value, str | int | float | None) for value in fact.values.values())
    return plain and all(fact.values.get(name) is not None for name in needed)


_FORECAST_FLOATS = ("volatility", "mean", "low", "high", "mean_error", "lowest", "highest")


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int:
    number = int(value)
    if not -_MOST <= number < _MOST:
        raise DataError(f"the number {number} is too large for a journal")
    return number


def _text(value: Any) -> str:
    """PostgreSQL takes no NUL, and nobody half a surrogate pair."""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _are_finite(numbers: Mapping[Any, float | None]) -> bool:
    return all(math.isfinite(value) for value in numbers.values() if value is not None)
