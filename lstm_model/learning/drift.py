"""Has the market left the champion? Control charts on its residuals and missed intervals.

Every chart is a sum of log likelihood ratios, in control against drifted, that never falls below
zero (Page 1954), so one threshold serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from lstm_model.errors import DataError

# Simulated on Student t5 residuals (`benchmarks/study_gate.py --only alarms delays`): one pair
# alone gives a false alarm in 5,600 labels, and in 730 where volatility comes in waves that its
# forecast does not see; residuals 1.7 times as large, which triple the misses, are found after 41
# labels, a mean half a deviation off after 50.
_THRESHOLD = 7.0
# An alarm is remembered for so many labels, so that pairs which are slower can join it (one day
# at 5m with a horizon of 12). Simulated with eight pairs: 48 finds drift no sooner, and gives a
# false alarm in 3,500 labels instead of 4,100.
_HOLD = 24
_NEVER = _HOLD  # labels since an alarm that never was
_SHIFT = 0.5  # deviations; chosen: a shift that is worth a new network
_ODDS = math.log(27.0 / 7.0)  # chosen: odds of a miss that take a rate of 0.1 to 0.3
_FARTHEST = 3.0  # deviations; chosen: one fat-tailed residual must not ring alone
_QUORUM = 0.25  # chosen: share of the pairs; they move together, so half would often be late

_MEAN, _MISSES = "mean", "misses"
_WORDS = {_MISSES: "intervals missed too often", _MEAN: "forecasts off to one side"}

Ratios = Callable[[float], tuple[float, ...]]


class Detector(Protocol):
    """Watches one series of numbers, one at a time."""

    def update(self, x: float) -> None:
        """Learn one number; one that is not finite is ignored."""

    @property
    def drift_detected(self) -> bool:
        """Whether the series has drifted, now or within the last `_HOLD` numbers."""

    def state(self) -> list[float]:
        """Plain numbers from which the same detector can be built again."""


class Cusum:
    """Cumulative sum chart (Page 1954), one sum for each kind of drift.

    A sum stops at the threshold, so that an alarm ends `_HOLD` numbers after its cause.

    Parameters
    ----------
    ratios : number -> log likelihood ratio of each kind of drift to none
    kinds : how many these are
    state : what `state()` gave, to continue

    Raises
    ------
    DataError
        If `state` is not one of a detector with so many kinds.

    Examples
    --------
    >>> detector = misses(0.1)
    >>> for _ in range(7):
    ...     detector.update(1.0)
    >>> detector.drift_detected
    True
    """

    def __init__(self, ratios: Ratios, kinds: int, state: list[float] | None = None) -> None:
        known = [0.0] * kinds + [float(_NEVER)] if state is None else state
        if not _are_numbers(known, kinds + 1):
            raise DataError(f"the state of a detector must be {kinds + 1} numbers, found {state}")
        self._ratios = ratios
        self._sums, self._quiet = known[:-1], known[-1]

    def update(self, x: float) -> None:
        """Learn one number; one that is not finite is ignored."""
        if not math.isfinite(x):
            return
        moved = zip(self._sums, self._ratios(x), strict=True)
        self._sums = [min(_THRESHOLD, max(0.0, total + ratio)) for total, ratio in moved]
        self._quiet = 0.0 if max(self._sums) >= _THRESHOLD else min(_NEVER, self._quiet + 1.0)

    @property
    def drift_detected(self) -> bool:
        """Whether a sum reached the threshold within the last `_HOLD` numbers."""
        return self._quiet < _HOLD

    def state(self) -> list[float]:
        """The sums, and the numbers since one of them last stood at the threshold."""
        return [*self._sums, self._quiet]


def residuals(state: list[float] | None = None) -> Cusum:
    """Detector of a mean of residuals that moved up or down; fed with deviations.

    The ratio of two normal densities `_SHIFT` apart; farther than `_FARTHEST` counts no more.
    """

    def ratios(x: float) -> tuple[float, ...]:
        near = _SHIFT * min(_FARTHEST, max(-_FARTHEST, x))
        return near - _SHIFT**2 / 2.0, -near - _SHIFT**2 / 2.0

    return Cusum(ratios, 2, state)


def misses(rate: float, state: list[float] | None = None) -> Cusum:
    """Detector of intervals that miss more often than `rate`; fed with 1.0 for a miss, else 0.0.

    One-sided: intervals that miss too seldom cost little, and their tracked width mends them.
    """
    drifted = 1.0 / (1.0 + (1.0 - rate) / rate * math.exp(-_ODDS))
    hit, missed = math.log((1.0 - drifted) / (1.0 - rate)), math.log(drifted / rate)
    return Cusum(lambda x: (missed if x else hit,), 1, state)


class DriftWatch:
    """Watches every pair's residuals and intervals and pools the alarms into one decision.

    Parameters
    ----------
    miss_rate : promised share of outcomes outside the interval, in (0, 1)
    state : what `state()` gave, to continue

    Raises
    ------
    DataError
        If `state` is not a watch's.
    """

    def __init__(self, miss_rate: float, state: Mapping[str, Any] | None = None) -> None:
        self._miss_rate = miss_rate
        self._pairs = {
            pair: self._detectors(_checked(pair, known)) for pair, known in (state or {}).items()
        }

    def update(self, pair: str, residual: float, missed: bool) -> None:
        """Learn one label; labels of a pair must not overlap.

        Parameters
        ----------
        residual : error in units of the forecast's deviation; if it is not finite the label is
            ignored
        missed : whether the outcome lay outside the interval
        """
        if not math.isfinite(residual):
            return
        if pair not in self._pairs:
            self._pairs[pair] = self._detectors({})
        mine = self._pairs[pair]
        mine[_MEAN].update(residual)
        mine[_MISSES].update(float(missed))

    @property
    def drift_detected(self) -> bool:
        """Whether a quarter of the pairs are in alarm, at least two unless there is but one."""
        pairs = len(self._pairs)
        wanted = max(min(2, pairs), math.ceil(_QUORUM * pairs))
        ringing = set().union(*self._ringing().values())
        return 0 < wanted <= len(ringing)

    def reason(self) -> str:
        """What drifted and where, as a clause; empty where no pair is in alarm."""
        found = [
            f"{_WORDS[kind]} on {', '.join(pairs)}"
            for kind, pairs in self._ringing().items()
            if pairs
        ]
        return "; ".join(found)

    def reset(self) -> None:
        """Start anew, as after a promotion."""
        self._pairs = {}

    def forget(self, pairs: Collection[str]) -> None:
        """Leave out pairs that are no longer traded."""
        self._pairs = {pair: mine for pair, mine in self._pairs.items() if pair not in pairs}

    def state(self) -> dict[str, Any]:
        """Pair -> kind of detector -> its numbers; plain JSON."""
        return {
            pair: {kind: detector.state() for kind, detector in mine.items()}
            for pair, mine in self._pairs.items()
        }

    def _detectors(self, known: Mapping[str, Any]) -> dict[str, Cusum]:
        return {
            _MISSES: misses(self._miss_rate, known.get(_MISSES)),
            _MEAN: residuals(known.get(_MEAN)),
        }

    def _ringing(self) -> dict[str, list[str]]:
        return {
            kind: sorted(pair for pair, mine in self._pairs.items() if mine[kind].drift_detected)
            for kind in _WORDS
        }


def _checked(pair: str, known: Any) -> Mapping[str, Any]:
    if not isinstance(known, Mapping) or not known.keys() <= _WORDS.keys():
        raise DataError(f"{pair}: the state of a drift watch must name {', '.join(_WORDS)}")
    return known


def _are_numbers(value: Any, count: int) -> bool:
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(isinstance(number, int | float) and math.isfinite(number) for number in value)
