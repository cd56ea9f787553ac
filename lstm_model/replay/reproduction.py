"""Single forecasts made again the slow way: from the candles up to their own and no further.

A forecast in the journal is computed once more from candles, the version that made it, and the
calibration of the learner's step in force; equal means to the last bit (but -0.0 is 0.0, which a
database may not tell apart). Every row gets the features of its own prefix of candles; the network
answers many rows in one pass, because a window has the same bits in any company.

Shapes: L lookback, F features, K quantile levels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Literal, NamedTuple, Self

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.errors import StoreError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import REACH_DAYS
from lstm_model.features.ingredients import ENOUGH_COVERAGE
from lstm_model.learning.chain import Learning
from lstm_model.learning.steps import Step
from lstm_model.market.candles import Candles, Floats, utc_text
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.forecast import FAR_NAMES, Forecast
from lstm_model.model.model import Model
from lstm_model.replay.inputs import DOWNLOAD, Inputs, inputs_at, look_ahead, without_leader
from lstm_model.settings import Settings
from lstm_model.store.journal_rows import JournalRow
from lstm_model.trading.outlook import Frame

Kind = Literal["equal", "late step", "late leader", "differs", "not reproducible"]

NUMBERS = ("volatility", "mean", "low", "high", "mean_error", "lowest", "highest")

_TOGETHER = 512  # chosen: rows in one pass of the network; more gain nothing
_MOST_STEPS = 64  # a bot keeps no more of them ready
# Chosen: what rounding leaves of a volatility (float64), and of an interval's width (float32).
_ROUNDING, _ROUNDING_32 = 1e-12, 1e-5
_ROUNDED = "another processor rounds otherwise, or a candle on disk differs by next to nothing"


@dataclass(frozen=True)
class Values:
    """The numbers of one forecast, as `JournalRow` has them."""

    quantiles: tuple[float, ...]
    volatility: float
    mean: float
    low: float
    high: float
    mean_error: float | None
    lowest: float | None
    highest: float | None
    far: tuple[float | None, ...] = ()

    @classmethod
    def of(cls, made: Forecast | JournalRow) -> Self:
        """Those of a row of the journal, or of a forecast of one candle."""
        if isinstance(made, JournalRow):
            return cls(made.quantiles, **{n: getattr(made, n) for n in NUMBERS}, far=made.far)
        numbers = {name: float(getattr(made, name)[0]) for name in NUMBERS}
        return cls(tuple(made.quantiles[0].tolist()), **numbers, far=made.known_far(0))

    def unlike(self, other: Self) -> dict[str, tuple[float, float]]:
        """Name -> this number and the other's, where they differ; what either lacks is left out."""
        its, mine = other.named(), self.named()
        both = {name: (value, its[name]) for name, value in mine.items() if name in its}
        return {name: values for name, values in both.items() if values[0] != values[1]}

    def named(self) -> dict[str, float]:
        """Name -> number, of all that are known."""
        named = {name: getattr(self, name) for name in NUMBERS}
        named |= {f"quantile {n}": value for n, value in enumerate(self.quantiles, 1)}
        named |= dict(zip(FAR_NAMES, self.far, strict=False))  # an older release wrote none
        return {name: value for name, value in named.items() if value is not None}


def _is_rounding(unlike: dict[str, tuple[float, float]], made: Values) -> bool:
    said, again = unlike.get("volatility", (made.volatility, made.volatility))
    farthest = max(abs(a - b) for a, b in unlike.values())
    widths = _ROUNDING * again, _ROUNDING_32 * (made.high - made.low)
    return abs(said - again) <= widths[0] and farthest <= widths[1]


def reproduce(model: Model, pair: str, inputs: Inputs) -> Values:
    """The forecast of one candle, made alone."""
    return _calibrated(model, pair, inputs, _alone(model.lstm, inputs))


def _alone(lstm: Ensemble, inputs: Inputs) -> Floats:
    return lstm.predict(inputs.rows, np.array([len(inputs.rows) - 1]))


def _calibrated(model: Model, pair: str, inputs: Inputs, raw: Floats) -> Values:
    return Values.of(model.calibrated(pair, raw, np.array([inputs.volatility])))


@dataclass(frozen=True)
class Candidate:
    """A model as it may have answered: by the step in force, by one before, or without."""

    model: Model
    kind: Literal["in force", "older", "pinned"]
    text: str  # which this is, as a clause


class StepsInForce:
    """Who answered for a candle, by `learning.resume(lineage.head, many)` or other known steps."""

    def __init__(self, learning: Learning, steps: Sequence[Step]) -> None:
        self.learning, self._schedule = learning, learning.schedule
        self._steps = sorted(steps, key=lambda step: step.boundary_ms, reverse=True)
        by_address = {step.address: step for step in steps}
        self._pinned = cache(lambda version, at: learning.model(version, [by_address[at]]))

    def model_for(self, row: JournalRow) -> Iterator[Candidate]:
        """What may have made this row, the likeliest first: its version with the calibration of
        the step in force; of an older one (steps came late); pinned, as a step or its card knew it.

        Raises
        ------
        StoreError
            The version is not in the store.
        """
        due_ms = self._schedule.boundary_at(row.candle_ms + self._schedule.candle_ms)
        for step in self._until(due_ms):
            if step.model.card.version == row.version:
                yield _of_step(step, due_ms)
        for step in self._until(row.created_ms):
            if row.version in step.versions:
                text = f"pinned, as the step of {utc_text(step.boundary_ms)} knew it"
                yield Candidate(self._pinned(row.version, step.address), "pinned", text)
        yield Candidate(self.learning.model(row.version), "pinned", "pinned, as its card has it")

    def _until(self, end_ms: int) -> list[Step]:
        """The newest steps whose boundary is not later, newest first."""
        return [step for step in self._steps if step.boundary_ms <= end_ms][:_MOST_STEPS]


def _of_step(step: Step, due_ms: int) -> Candidate:
    text = f"by the step of {utc_text(step.boundary_ms)}"
    if step.boundary_ms == due_ms:
        return Candidate(step.model, "in force", text)
    late = f"{text}; that of {utc_text(due_ms)}, which a backtest takes, was not there in time"
    return Candidate(step.model, "older", late)


@dataclass(frozen=True)
class Finding:
    """What came out when a row of the journal was computed again."""

    row: JournalRow
    # "late step": equal, by an older step than a backtest takes; "late leader": equal, without the
    # leader's candle, which a backtest has
    kind: Kind
    text: str  # who answered; or by how much it differs and why; or why it cannot be computed


def check_journal(
    rows: Iterable[JournalRow], candles: Callable[[str], Candles | None], learning: Learning,
    steps: Sequence[Step], settings: Settings,
) -> Iterator[Finding]:  # fmt: skip
    """Compute every row again: pair by pair, each in order of its candles.

    Parameters
    ----------
    candles : pair -> its candles on disk, with their order flow where settings ask for it, and
        with what they are seen in, if the learner's have that
    steps : as for `StepsInForce`
    """
    by_pair = defaultdict[str, list[JournalRow]](list)
    for row in rows:
        by_pair[row.pair].append(row)
    in_force, leader = StepsInForce(learning, steps), learning.maker.history.leader
    leading = candles(leader) if leader else None
    for pair, mine in sorted(by_pair.items()):
        mine.sort(key=lambda row: (row.candle_ms, row.created_ms))
        series = candles(pair)
        if series is None or not len(series):
            why = f"no candles of {pair} are on disk: {DOWNLOAD}"
            yield from (Finding(row, "not reproducible", why) for row in mine)
        else:
            reach_ms = (WARM_UP + settings.lookback) * series.step_ms + REACH_DAYS * DAY_MS
            near = series.between(mine[0].candle_ms - reach_ms, mine[-1].candle_ms + reach_ms)
            yield from _Check(near, leading, in_force, settings).of(mine)


class _Case(NamedTuple):
    """A row, what is seen of its candle, and what the network says of that (1, K)."""

    row: JournalRow
    inputs: Inputs
    raw: Floats


class _Check:
    """Computes the rows of one pair again."""

    def __init__(
        self, series: Candles, leading: Candles | None, in_force: StepsInForce, settings: Settings
    ) -> None:
        self._series, self._in_force, self._settings = series, in_force, settings
        self._inputs_at = partial(inputs_at, series, settings=settings, leading=leading)
        self._learning, self._schedule = in_force.learning, in_force.learning.schedule
        self._plain = settings.model_dump(mode="json")
        self._before: Finding | None = None

    def of(self, rows: Sequence[JournalRow]) -> Iterator[Finding]:
        for start in range(0, len(rows), _TOGETHER):
            for case in self._cases(rows[start : start + _TOGETHER]):
                self._before = case if isinstance(case, Finding) else self._judged(case)
                yield self._before

    @cached_property
    def _whole(self) -> Frame:
        return Frame(self._series, self._settings)

    def _cases(self, rows: Sequence[JournalRow]) -> list[_Case | Finding]:
        """The rows with the network's answers, all of one version from one pass."""
        found: dict[int, _Case | Finding] = {}
        by_version = defaultdict[str, dict[int, Inputs]](dict)
        for number, row in enumerate(rows):
            if isinstance(given := self._given(row), Finding):
                found[number] = given
            else:
                by_version[row.version][number] = given
        for version, mine in by_version.items():
            windows = np.stack([inputs.rows for inputs in mine.values()])
            raw = self._learning.model(version).lstm.predict_windows(windows)
            for (number, inputs), answer in zip(mine.items(), raw[:, None], strict=True):
                found[number] = _Case(rows[number], inputs, answer)
        return [found[number] for number in range(len(rows))]

    def _given(self, row: JournalRow) -> Inputs | Finding:
        """What was seen; or that the version cannot be asked, or cannot have answered."""
        try:
            card = self._learning.card(row.version)
        except StoreError as error:
            return Finding(row, "not reproducible", f"its model cannot be used: {error}")
        ours = all(card.settings.get(name) == self._plain[name] for name in ("horizon", "levels"))
        frames = {row.timeframe, card.timeframe, self._learning.maker.timeframe}
        if not ours or len(frames) > 1 or len(row.quantiles) != len(self._settings.levels):
            return Finding(row, "not reproducible", "it was made for other settings")
        if card.train_end_ms + self._schedule.lag_ms > row.candle_ms + self._schedule.candle_ms:
            until = utc_text(card.train_end_ms)
            why = f"look-ahead: model {row.version} learnt from candles up to {until}"
            return Finding(row, "differs", why)
        found = self._inputs_at(row.candle_ms)
        return found if isinstance(found, Inputs) else Finding(row, "not reproducible", found)

    def _match(self, case: _Case) -> Candidate | None:
        """Who made exactly this row from these inputs."""
        said = Values.of(case.row)
        if said.volatility != case.inputs.volatility:  # which is the same whoever answers
            return None
        for candidate in self._in_force.model_for(case.row):
            if not said.unlike(_calibrated(candidate.model, case.row.pair, case.inputs, case.raw)):
                return candidate
        return None

    def _judged(self, case: _Case) -> Finding:
        if (candidate := self._match(case)) is None:
            return self._unequal(case)
        if ahead := look_ahead(case.inputs, self._whole):
            return Finding(case.row, "differs", f"not from what the bot said, but there is {ahead}")
        if lacking := [name for name in NUMBERS if getattr(case.row, name) is None]:
            why = f"an older release did not write {', '.join(lacking)}; the rest is equal"
            return Finding(case.row, "not reproducible", why)
        kind: Kind = "late step" if candidate.kind == "older" else "equal"
        return Finding(case.row, kind, candidate.text)

    def _unequal(self, case: _Case) -> Finding:
        row, likeliest = case.row, next(self._in_force.model_for(case.row))
        if self._was_not_led(case):
            why = "as it is without the leader's candle, which came too late"
            return Finding(row, "late leader", why)
        made = _calibrated(likeliest.model, row.pair, case.inputs, case.raw)
        unlike = Values.of(row).unlike(made)
        cause = _ROUNDED if _is_rounding(unlike, made) else self._found(case)
        if not cause and "volatility" not in unlike and (why := self._lost(case, likeliest)):
            return Finding(row, "not reproducible", why)
        name, (said, again) = max(unlike.items(), key=lambda item: abs(item[1][0] - item[1][1]))
        text = f"{name} is {said:.9g} in the journal and {again:.9g} now: "
        return Finding(row, "differs", text + (cause or self._suspected(case, {*unlike})))

    def _was_not_led(self, case: _Case) -> bool:
        if case.inputs.candles.context is None:
            return False
        inputs = without_leader(case.inputs, self._settings)
        if not isinstance(inputs, Inputs):
            return False
        lstm = self._learning.model(case.row.version).lstm
        return self._match(_Case(case.row, inputs, _alone(lstm, inputs))) is not None

    def _adjacent(self, row: JournalRow) -> Kind | None:
        before, step_ms = self._before, self._series.step_ms
        return before.kind if before and before.row.candle_ms == row.candle_ms - step_ms else None

    def _lost(self, case: _Case, likeliest: Candidate) -> str:
        """What the bot may have known that is known no more; empty if there is nothing."""
        if likeliest.kind == "pinned":
            return "no known step has its model in force then: it was pinned, or the chain is gone"
        flow = case.inputs.candles.flow if self._settings.order_flow else None
        lost = 0 if flow is None else int((flow["coverage"] < ENOUGH_COVERAGE).sum())
        return f"the order flow of {lost} candles up to its own is unknown" if lost else ""

    def _suspected(self, case: _Case, unlike: set[str]) -> str:
        known = self._adjacent(case.row) in ("equal", "late step", "late leader")
        whose = "its own" if known else f"that of one of the {len(case.inputs.candles)} candles"
        if "volatility" in unlike:
            return f"a close on disk, {whose}, is not the one that the bot saw"
        if not unlike & {"mean", "mean_error"}:
            return "its interval has other widths than at any known step"
        what = f"a high, low, volume or order flow on disk, {whose}, is not what the bot saw"
        return f"{what}, or it had other weights or another calibration"

    def _found(self, case: _Case) -> str:
        if self._adjacent(case.row) == "differs":
            return "as for the candle before"
        return look_ahead(case.inputs, self._whole) or self._fault(case)

    def _fault(self, case: _Case) -> str:
        """Which known fault would have made exactly this row; empty if none."""
        weights = self._learning.maker.store.load(case.row.version).weights
        mean, scale = weights["scaler/mean"], weights["scaler/scale"]
        bare = {**weights, "scaler/mean": 0 * mean, "scaler/scale": scale**0}
        for text, moved, used in (
            ("look-ahead: it was made from the candle after", 1, weights),
            ("it was made from the candle before", -1, weights),
            ("the features were not scaled", 0, bare),
        ):
            at_ms = case.row.candle_ms + moved * self._series.step_ms
            if isinstance(inputs := self._inputs_at(at_ms), Inputs):
                raw = _alone(Ensemble(used, self._settings.lookback), inputs)
                if self._match(_Case(case.row, inputs, raw)):
                    return text
        return ""
