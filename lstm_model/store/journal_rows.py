"""What the journal holds: a forecast, a decision, a verdict; and each as plain database values.

Drivers store NumPy's numbers as blobs, no score may meet a NaN, and no database takes every text:
all three end here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lstm_model.errors import DataError

_MOST = 2**63  # what a database's integers do not reach
_LARGEST = 1e100  # chosen: no price, return or edge comes near, and its square is finite
_SHOWN = 60  # characters of a value that is refused


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
    """The inverse of `forecast_values`; columns that a newer release writes too are left out.

    Raises
    ------
    DataError
        Something else is in a column than a release ever wrote there.
    """
    of = _Columns(values)
    return JournalRow(
        pair=of.text("pair"), timeframe=of.text("timeframe"), candle_ms=of.whole("candle_ms"),
        version=of.text("version"), quantiles=of.numbers("quantiles"),
        volatility=of.number("volatility"), mean=of.number("mean"), low=of.number("low"),
        high=of.number("high"), reason=of.text("reason"), created_ms=of.whole("created_ms"),
        mean_error=of.maybe("mean_error"), lowest=of.maybe("lowest"), highest=of.maybe("highest"),
        far=of.maybe_numbers("far"),
    )  # fmt: skip


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


def decision_row(values: Mapping[str, Any]) -> DecisionRow:
    """The inverse of `decision_values`. Raises as `forecast_row`."""
    of = _Columns(values)
    return DecisionRow(
        lineage=of.text("lineage"), at_ms=of.whole("at_ms"), kind=of.text("kind"),
        version=of.text("version"), champion=of.text("champion"), candles=of.whole("candles"),
        gain=of.maybe("gain"), bound=of.maybe("bound"), text=of.text("text"),
        created_ms=of.whole("created_ms"),
    )  # fmt: skip


def verdict_values(row: VerdictRow) -> dict[str, Any]:
    """Column -> value of a verdict."""
    texts = {name: _text(getattr(row, name)) for name in ("pair", "timeframe", "reason", "text")}
    times = {name: _whole(getattr(row, name)) for name in ("candle_ms", "created_ms")}
    return {**texts, **times}


def verdict_row(values: Mapping[str, Any]) -> VerdictRow:
    """The inverse of `verdict_values`. Raises as `forecast_row`."""
    of = _Columns(values)
    return VerdictRow(
        pair=of.text("pair"), timeframe=of.text("timeframe"), candle_ms=of.whole("candle_ms"),
        reason=of.text("reason"), text=of.text("text"), created_ms=of.whole("created_ms"),
    )  # fmt: skip


class _Columns:
    """Reads a row that anybody may have written, each column as what it has to be."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        return as_text(self._values.get(name), f"column {name} holds")

    def whole(self, name: str) -> int:
        value = self._values.get(name)
        if type(value) is not int or not -_MOST <= value < _MOST:
            raise self._wrong(name, "whole number")
        return value

    def number(self, name: str) -> float:
        found = _finite(self._values.get(name))
        if found is None:
            raise self._wrong(name, "finite number")
        return found

    def maybe(self, name: str) -> float | None:
        return None if self._values.get(name) is None else self.number(name)

    def numbers(self, name: str) -> tuple[float, ...]:
        found, text = self.maybe_numbers(name), self._values.get(name)
        known = tuple(value for value in found if value is not None)
        if text is None or len(known) < len(found):
            raise self._wrong(name, "list of finite numbers")
        return known

    def maybe_numbers(self, name: str) -> tuple[float | None, ...]:
        """With None for each that was not known; nothing where an older release wrote none."""
        text = self._values.get(name)
        try:
            listed = json.loads(text or "[]")
        except (ValueError, TypeError, RecursionError):
            listed = None
        if not isinstance(listed, list) or any(_finite(v) is None is not v for v in listed):
            raise self._wrong(name, "list of finite numbers")
        return tuple(map(_finite, listed))

    def _wrong(self, name: str, kind: str) -> DataError:
        return DataError(f"column {name} holds no {kind}: {_shown(self._values.get(name))}")


def as_text(value: Any, where: str) -> str:
    """A value of a column that anybody may have written. Raises as `forecast_row`."""
    if not isinstance(value, str):
        raise DataError(f"{where} no text: {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN]


def _finite(value: Any) -> float | None:
    """The number; None if it is none, or so large that it cannot be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON and Python have numbers of any length
        return None
    return number if abs(number) <= _LARGEST else None


_READ = {"forecast": forecast_row, "decision": decision_row, "verdict": verdict_row}


def is_fact(fact: Fact) -> bool:
    """Whether it is one, read from where others may have written."""
    if not isinstance(fact.kind, str) or not isinstance(fact.values, dict):
        return False
    read = _READ.get(fact.kind)
    try:
        return read is not None and read(fact.values) is not None and _is_of_bot(fact.values)
    except DataError:
        return False


def _is_of_bot(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("lineage"), str)


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
    return all(abs(value) <= _LARGEST for value in numbers.values() if value is not None)
