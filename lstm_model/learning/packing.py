"""The learner's state as plain JSON and arrays, as it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from numpy.typing import NDArray

from lstm_model.errors import DataError
from lstm_model.learning.contender import Contender
from lstm_model.learning.learner import State
from lstm_model.model.calibration import Widths
from lstm_model.model.gate import Evidence, Worth
from lstm_model.model.reach import Reach
from lstm_model.model.reliability import Kept

_PLAIN = (
    "boundary_ms", "champion", "predecessor", "promoted_ms", "finetuned_ms", "owed", "drift",
    "usual_widths",
)  # fmt: skip
_PLAIN_OF_CONTENDER = (
    "version", "kind", "unseen_ms", "entered_ms", "widths", "widths_before",
    "worth", "worth_before",
)  # fmt: skip
_OF_KEPT = tuple(field.name for field in fields(Kept))


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
    """The state that was packed."""
    mine = [(entry, _below(arrays, entry["version"])) for entry in record["contenders"]]
    contenders = tuple(
        unpack_contender(entry, Evidence.from_arrays(own), _kept_in(own)) for entry, own in mine
    )
    plain = {name: record[name] for name in _PLAIN} | {"usual_widths": unpack_usual(record)}
    return State(**plain, far=unpack_far(record), contenders=contenders)


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
    return Contender(**{**entry, **widths, **worth}, evidence=evidence, kept=kept)


def _unpack_widths(
    labels: int, usual: float, scales: Sequence[float], slopes: Sequence[float]
) -> Widths:
    return Widths(labels, usual, tuple(scales), tuple(slopes))
