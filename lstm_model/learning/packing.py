"""The learner's state as plain JSON and arrays, as it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lstm_model.errors import DataError
from lstm_model.learning.contender import Contender
from lstm_model.learning.learner import State
from lstm_model.model.calibration import Widths
from lstm_model.model.forecast import SPANS
from lstm_model.model.gate import Evidence, Worth
from lstm_model.model.reach import Reach
from lstm_model.model.reliability import Kept
from lstm_model.store.card import VERSION_PATTERN

_PLAIN = (
    "boundary_ms", "champion", "predecessor", "promoted_ms", "finetuned_ms", "owed", "drift",
    "usual_widths", "learnt_ms",
)  # fmt: skip
_PLAIN_OF_CONTENDER = (
    "version", "kind", "unseen_ms", "entered_ms", "widths", "widths_before",
    "worth", "worth_before",
)  # fmt: skip
_OF_KEPT = tuple(field.name for field in fields(Kept))


_Version = Annotated[str, Field(pattern=f"^{VERSION_PATTERN}$")]
_Log = Annotated[float, Field(ge=-100.0, le=100.0)]  # of a width; far beyond any, and exp is finite
_Numbers = tuple[float, ...]
_Maybe = tuple[float | None, ...]
_Widths = dict[str, tuple[int, float, _Numbers, _Numbers]]


class _Form(BaseModel):
    """What a record must hold to be read. More may be there: a newer release may have written."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _ContenderForm(_Form):
    version: _Version
    kind: Literal["baseline", "scratch", "finetune"]
    unseen_ms: int
    entered_ms: int
    widths: _Widths
    widths_before: _Widths
    worth: tuple[float, float]
    worth_before: tuple[float, float]


class _EventForm(_Form):
    kind: str
    at_ms: int
    version: str
    champion: str
    candles: int
    gain: float | None
    bound: float | None
    saved_fraction: float | None
    text: str


class _RecordForm(_Form):
    boundary_ms: int
    champion: _Version
    predecessor: _Version | None
    promoted_ms: int
    finetuned_ms: int
    owed: Literal["scratch", "finetune"] | None
    drift: dict[str, dict[str, list[float]]]
    far: dict[str, tuple[_Maybe, _Maybe, tuple[float | None]]] = {}
    usual_widths: dict[str, tuple[int, _Log]] = {}
    learnt_ms: dict[str, int] = {}
    contenders: tuple[_ContenderForm, ...]
    previous: str | None
    made_by: dict[str, str]
    pairs: tuple[str, ...] = ()
    p_values: dict[_Version, float]
    events: tuple[_EventForm, ...]
    models: dict[str, str] = {}
    state: str = ""


def checked(record: Mapping[str, Any], levels: int) -> None:
    """Refuse a record of another form, as another release may have written it.

    Parameters
    ----------
    levels : quantile levels of the forecasts

    Raises
    ------
    DataError
        Says what is missing or wrong.
    """
    try:
        form = _RecordForm.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"it has another form ({where}: {first['msg']})") from None
    known = [contender.version for contender in form.contenders]
    if form.champion not in known or len({*known}) < len(known) or {*known} != {*form.p_values}:
        raise DataError("it does not say who competes")
    if not any(contender.kind == "baseline" for contender in form.contenders):
        raise DataError("it has no baseline")
    _check_lengths(form, levels // 2 + 2, 2 * len(SPANS))


def _check_lengths(form: _RecordForm, intervals: int, spans: int) -> None:
    scales = [
        parts[2:]
        for contender in form.contenders
        for widths in (contender.widths, contender.widths_before)
        for parts in widths.values()
    ]
    reaches = [reach[:2] for reach in form.far.values()]
    for parts, wanted in ((scales, intervals), (reaches, spans)):
        if any(len(part) != wanted for pair in parts for part in pair):
            raise DataError(f"it was made for other intervals than {intervals - 2}")


def pack(state: State) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The state as plain JSON and arrays; `unpack` is the inverse."""
    record: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN}
    record["far"] = {pair: reach.plain() for pair, reach in state.far.items()}
    record["contenders"] = [
        {name: getattr(contender, name) for name in _PLAIN_OF_CONTENDER}
        for contender in state.contenders
    ]
    arrays = {
        f"{contender.version}/{name}": array
        for contender in state.contenders
        for name, array in {**contender.evidence.arrays(), **_kept(contender.kept)}.items()
    }
    return json.loads(json.dumps(record)), arrays


def unpack(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> State:
    """The state that was packed in a record that was `checked`.

    Raises
    ------
    DataError
        A column of an array is missing or not as it must be.
    """
    mine = [(entry, _below(arrays, entry["version"])) for entry in record["contenders"]]
    contenders = tuple(
        unpack_contender(entry, Evidence.from_arrays(own), _kept_in(own)) for entry, own in mine
    )
    own: dict[str, Any] = {
        "usual_widths": unpack_usual(record),
        "learnt_ms": dict(record.get("learnt_ms", {})),  # an older release wrote none
    }
    plain = {name: record[name] for name in _PLAIN if name not in own}
    return State(**plain, **own, far=unpack_far(record), contenders=contenders)


def unpack_far(record: Mapping[str, Any]) -> dict[str, Reach]:
    """The reaches of a record."""
    known = record.get("far", {})  # an older release wrote none
    return {pair: Reach.of_plain(values) for pair, values in known.items()}


def unpack_usual(record: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    """The usual widths of a record."""
    known = record.get("usual_widths", {})  # an older release wrote none
    return {pair: (int(count), mean) for pair, (count, mean) in known.items()}


def _kept(kept: Kept) -> dict[str, NDArray[Any]]:
    return {f"kept_{name}": getattr(kept, name) for name in _OF_KEPT}


def _kept_in(arrays: Mapping[str, NDArray[Any]]) -> Kept:
    try:
        return Kept(*(arrays[f"kept_{name}"] for name in _OF_KEPT))
    except KeyError as missing:
        raise DataError(f"a record lacks the column {missing}") from None


def _below(arrays: Mapping[str, NDArray[Any]], folder: str) -> dict[str, NDArray[Any]]:
    prefix = f"{folder}/"
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def unpack_contender(entry: Mapping[str, Any], evidence: Evidence, kept: Kept) -> Contender:
    """One contender of a record."""
    widths = {
        name: {pair: _unpack_widths(*values) for pair, values in entry[name].items()}
        for name in ("widths", "widths_before")
    }
    worth = {name: Worth(*entry[name]) for name in ("worth", "worth_before")}
    plain = {name: entry[name] for name in _PLAIN_OF_CONTENDER}  # a newer release may have more
    return Contender(**{**plain, **widths, **worth}, evidence=evidence, kept=kept)


def _unpack_widths(
    labels: int, usual: float, scales: Sequence[float], slopes: Sequence[float]
) -> Widths:
    return Widths(labels, usual, tuple(scales), tuple(slopes))
