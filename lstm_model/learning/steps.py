"""The steps of a chain as they are kept: found by what they were computed from, held by what came.

A step's address is two hashes. The first is of what went in: the step before, the settings, the
code and the candles that came with it; by it everyone finds what was computed already. The second
is of what came out: the record, the arrays, and the weights of all that compete. So two contents
never share an address, and a step that is computed again is the same or another one.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.errors import LstmModelError, StoreError
from lstm_model.learning.learner import Event, State
from lstm_model.learning.packing import (
    checked,
    pack,
    unpack,
    unpack_contender,
    unpack_far,
    unpack_usual,
)
from lstm_model.model.gate import Evidence
from lstm_model.model.model import Model
from lstm_model.model.reliability import Kept
from lstm_model.store.card import canonical, code_digest, sha256
from lstm_model.store.lineage import heads
from lstm_model.store.steps import StepStore
from lstm_model.training.maker import ModelMaker

logger = logging.getLogger(__name__)

_MODELS_READY = 16  # chosen: versions kept in memory, far more than compete at a time
_HALF = 32  # hex digits of an address that say what went in; as many say what came out
# chosen: the newest steps of a chain from which one can go on. If the last is lost or damaged, the
# one before is there, and only the candles between them are needed.
STATES = 2

# chosen: steps kept for each of `keep_models`; with the defaults five years of days, twice
_A_MODEL = 40
_LINE = 400  # chosen: the newest steps of a lineage are never removed, a year of days
_IDLE_S = 30 * 86_400.0  # chosen: who has not gone on for so long computes the last steps again

# The code that decides a step beside what decides its models.
_DECISIVE_MODULES = (
    "features.closed_candle", "features.context", "features.ingredients", "features.series",
    "learning.chain", "learning.contender", "learning.drift", "learning.learner",
    "learning.matured", "learning.packing", "learning.schedule", "learning.steps",
    "market.candles", "model.calibration", "model.dataset", "model.ensemble", "model.forecast",
    "model.gate", "model.lstm", "model.mean", "model.reach", "model.reliability",
    "model.weights", "scoring.evaluation", "scoring.har", "training.maker", "training.material",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What the learner came to at one boundary.

    Attributes
    ----------
    model : the champion, with the calibration and the skill it has by now
    versions : every version that competes
    learnt_ms : as `lstm_model.learning.learner.State`
    """

    address: str
    boundary_ms: int
    model: Model
    versions: frozenset[str]
    events: tuple[Event, ...]
    learnt_ms: Mapping[str, int] = field(default_factory=dict)


class Steps:
    """Keeps the steps of one configuration and finds them again.

    Parameters
    ----------
    maker : of the models that compete
    """

    def __init__(self, maker: ModelMaker, store: StepStore) -> None:
        self._maker, self._store = maker, store
        self.model = lru_cache(maxsize=_MODELS_READY)(self._load_model)

    def made_by(self) -> dict[str, str]:
        """What decides a step beside candles and what came before."""
        return {
            "settings": self._maker.settings.learning_digest(),
            "code": code_digest(_DECISIVE_MODULES),
            "timeframe": self._maker.timeframe,
        }

    def key(self, previous: str, boundary_ms: int, data: str) -> str:
        """The first half of an address: what went in."""
        parts = {"previous": previous, "boundary": str(boundary_ms), "data": data}
        return hashlib.sha256(canonical(parts | self.made_by())).hexdigest()[:_HALF]

    def find(self, key: str, *, whole: bool = False) -> Step | None:
        """A step that was computed from the same, if it and its champion are still there.

        Parameters
        ----------
        whole : one from which one can go on
        """
        for address in self._store.find(key):
            step = self.at(address)
            if step is not None and not (whole and self.state(address) is None):
                return step
        return None

    def at(self, address: str) -> Step | None:
        """The step of an address, if it and its champion are as they were."""
        record = self.record(address)
        if record is None or not self._has_models(record, [record["champion"]]):
            return None
        return self._step(address, record)

    def record(self, address: str) -> dict[str, Any] | None:
        """What was decided in a step; None if it is not there, damaged or of another form."""
        record = self._store.record(address)
        if record is None:
            return None
        try:
            checked(record, len(self._maker.settings.levels))
        except LstmModelError as error:
            self._store.warn_of(address, str(error))
            return None
        return record if len(address) <= _HALF or _content(record) == address[_HALF:] else None

    def state(self, address: str) -> State | None:
        """What to go on from, if all of it is as it was: arrays and every model."""
        found, record = self._store.load(address), self.record(address)
        if found is None or record is None or not self._has_models(record, record["p_values"]):
            return None
        try:
            with np.errstate(invalid="ignore"):  # of arrays that another release wrote
                return unpack(*found) if _digest(found[1]) == record.get("state") else None
        except (ValueError, TypeError) as error:  # also a `DataError`
            self._store.warn_of(address, str(error))
            return None

    def keep(
        self, key: str, previous: str | None, state: State, events: Sequence[Event],
        pairs: Sequence[str],
    ) -> Step:  # fmt: skip
        """Store what a step came to.

        Parameters
        ----------
        pairs : that were scored and calibrated in it
        """
        horizon = self._maker.settings.horizon
        record, arrays = pack(state)
        record |= {
            "previous": previous,
            "made_by": self.made_by(),
            "pairs": list(pairs),
            "p_values": {c.version: c.evidence.p_value(horizon) for c in state.contenders},
            "events": [event._asdict() for event in events],
            "models": {c.version: self.model(c.version).card.substance for c in state.contenders},
            "state": _digest(arrays),
        }
        address = f"{key}{_content(record)}"
        self._store.save(address, record, arrays)
        return self._step(address, record)

    def line(self, address: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """The steps that led to this one, newest first and itself among them, as far as known."""
        while address and (record := self.record(address)) is not None:
            yield address, record
            address = record["previous"]

    def release(self, trail: Sequence[str]) -> None:
        """Of steps that follow one another, keep the newest to go on from, and older ones only
        where a lineage may have to. Their records stay."""
        gone = [at for at in trail[:-STATES] if self._store.has_arrays(at)]
        if gone:
            ends = (islice(self._before(at), STATES) for at in heads(self._maker.store.root))
            for at in set(gone) - {at for end in ends for at in end}:
                self._store.forget(at)

    def prune(self) -> None:
        """Keep the disk bounded: records by their number, what one could go on from by its age.

        What lineages have to go on from stays, and the newest steps that lead to it.
        """
        surplus = self._store.oldest(_A_MODEL * self._maker.settings.keep_models)
        idle = self._store.idle(_IDLE_S)
        if not surplus and not idle:
            return
        lines = [[*islice(self._before(at), _LINE)] for at in heads(self._maker.store.root)]
        for at in set(surplus) - {at for line in lines for at in line}:
            self._store.remove(at)
        for at in set(idle) - {at for line in lines for at in line[:STATES]}:
            self._store.forget(at)

    def as_of(self, record: Mapping[str, Any], version: str) -> Model:
        """A version with the calibration and the skill it had at a step."""
        entry = next(c for c in record["contenders"] if c["version"] == version)
        nothing = Evidence.nothing(), Kept.nothing()
        model, contender = self.model(version), unpack_contender(entry, *nothing)
        calibration = contender.calibration(model.calibration)
        usual = {pair: math.exp(mean) for pair, (n, mean) in unpack_usual(record).items() if n}
        calibration = replace(calibration, far=unpack_far(record), usual_widths=usual)
        return replace(model, calibration=calibration, p_value=record["p_values"][version])

    def _before(self, address: str | None) -> Iterator[str]:
        """This step and those that led to it; of another release as well."""
        while address and (record := self._store.record(address)) is not None:
            yield address
            before = record.get("previous")
            address = before if isinstance(before, str) else None

    def _has_models(self, record: Mapping[str, Any], versions: Iterable[str]) -> bool:
        """Whether these are in the store with the weights they had then."""
        known = record.get("models", {})  # an older release wrote none
        try:
            found = {version: self.model(version).card.substance for version in versions}
        except StoreError:  # pruned, or damaged: it is made anew
            return False
        return all(known.get(version, at) == at for version, at in found.items())

    def _step(self, address: str, record: Mapping[str, Any]) -> Step:
        return Step(
            address,
            record["boundary_ms"],
            self.as_of(record, record["champion"]),
            frozenset(record["p_values"]),
            tuple(Event(*map(event.get, Event._fields)) for event in record["events"]),
            record.get("learnt_ms", {}),
        )

    def _load_model(self, version: str) -> Model:
        return Model.of(self._maker.store.load(version), self._maker.settings)


def _content(record: Mapping[str, Any]) -> str:
    """The second half of an address: what came out."""
    return sha256(canonical(dict(record)))[:_HALF]


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    parts = {
        name: [array.dtype.str, array.shape, sha256(np.ascontiguousarray(array).tobytes())]
        for name, array in arrays.items()
    }
    return sha256(canonical(parts))[:_HALF]
