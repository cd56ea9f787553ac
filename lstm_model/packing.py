"""The learner's state as plain JSON and arrays, as it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from lstm_model.contender import Contender, Scales
from lstm_model.gate import Evidence
from lstm_model.learner import State

_PLAIN = (
    "boundary_ms", "champion", "predecessor", "promoted_ms", "finetuned_ms", "owed", "drift",
)  # fmt: skip
_PLAIN_OF_CONTENDER = (
    "version", "kind", "unseen_ms", "entered_ms", "scales", "before",
    "shrinkage", "shrinkage_before",
)  # fmt: skip


def pack(state: State) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The state as plain JSON and arrays; `unpack` is the inverse."""
    record: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN}
    record["contenders"] = [
        {name: getattr(contender, name) for name in _PLAIN_OF_CONTENDER}
        for contender in state.contenders
    ]
    arrays = {
        f"{contender.version}/{name}": array
        for contender in state.contenders
        for name, array in contender.evidence.arrays().items()
    }
    return json.loads(json.dumps(record)), arrays


def unpack(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> State:
    """The state that was packed."""
    contenders = tuple(
        unpack_contender(entry, Evidence.from_arrays(_below(arrays, entry["version"])))
        for entry in record["contenders"]
    )
    return State(**{name: record[name] for name in _PLAIN}, contenders=contenders)


def _below(arrays: Mapping[str, NDArray[Any]], folder: str) -> dict[str, NDArray[Any]]:
    prefix = f"{folder}/"
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def unpack_contender(entry: Mapping[str, Any], evidence: Evidence) -> Contender:
    """One contender of a record."""
    scales = {
        name: {
            pair: Scales(labels, tuple(values)) for pair, (labels, values) in entry[name].items()
        }
        for name in ("scales", "before")
    }
    return Contender(**{**entry, **scales}, evidence=evidence)
