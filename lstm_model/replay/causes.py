"""Why a backtest and a bot do not forecast the same for a candle.

The first cause that is found ends the search: no forecast, another model, other candles, a feature
that looked ahead, or an answer that these inputs do not give.

Shapes: L lookback, F features, K quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lstm_model.errors import StoreError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.market.candles import FLOW, PRICE_COLUMNS, Candles, Floats, utc_text
from lstm_model.model.model import Model
from lstm_model.replay.forecasts import ForecastDifference, Said, Words
from lstm_model.replay.inputs import Inputs, inputs_at, look_ahead
from lstm_model.replay.reproduction import NUMBERS, Candidate, Values, reproduce
from lstm_model.settings import Settings
from lstm_model.store.journal_rows import JournalRow
from lstm_model.trading.outlook import Frame
from lstm_model.trading.sizing import REASONS

Models = Callable[[JournalRow], Iterable[Candidate]]

# Kinds of an explanation.
MISSING = "no forecast"
OTHER_MODEL = "another model"
OTHER_CANDLES = "other candles"
LOOK_AHEAD = "look-ahead"
SERVING = "serving"
CALIBRATION = "calibration"
BACKTEST = "backtest"
UNKNOWN = "unknown"

_ALIKE = 1e-9  # chosen: rounding stays below, other weights or another scaler do not


@dataclass(frozen=True)
class Evidence:
    """What a difference is traced with.

    Attributes
    ----------
    backtest, replay : pair -> the candles that the backtest ran on, and those the bot was given
    models : what may have made a row of the journal, as `StepsInForce.model_for` has it
    leader : the pair that all forecasts look at
    words : what the bot said of candles
    """

    settings: Settings
    backtest: Callable[[str], Candles | None]
    replay: Callable[[str], Candles | None]
    models: Models
    words: Words = field(default_factory=dict)
    leader: str | None = None

    def inputs(self, candles: Candles, candle_ms: int) -> Inputs | str:
        """What is seen of a candle of these, or why it cannot be forecast."""
        leading = self.backtest(self.leader) if self.leader else None
        return inputs_at(candles, candle_ms, self.settings, leading)


class Explanation(NamedTuple):
    """Where a difference comes from, and the facts that show it."""

    kind: str
    text: str


def explain(difference: ForecastDifference, evidence: Evidence) -> Explanation:
    """Trace one difference to its cause. The first cause that is found ends the search."""
    row, said = difference.replay, difference.backtest
    if row is None:
        return Explanation(MISSING, _why_bot_is_silent(difference, evidence))
    if said is None or not said.numbers:
        return Explanation(MISSING, _why_backtest_is_silent(difference, evidence))
    if said.version != row.version:
        return Explanation(OTHER_MODEL, _two_models(said, row, evidence))
    mine, theirs = evidence.backtest(row.pair), evidence.replay(row.pair)
    if mine is None or theirs is None:
        silent = "the backtest" if mine is None else "the bot"
        return Explanation(UNKNOWN, f"the candles of {silent} are not at hand")
    count = WARM_UP + evidence.settings.lookback
    if text := _unlike_candles(mine, theirs, row.candle_ms, count, evidence.settings.order_flow):
        return Explanation(OTHER_CANDLES, text)
    inputs = evidence.inputs(mine, row.candle_ms)
    if isinstance(inputs, str):
        return Explanation(UNKNOWN, inputs)
    if text := look_ahead(inputs, Frame(mine, evidence.settings)):
        return Explanation(LOOK_AHEAD, text.removeprefix(f"{LOOK_AHEAD}: "))
    return _unlike_answers(difference, row, said, inputs, _candidates(evidence, row))


def _why_bot_is_silent(difference: ForecastDifference, evidence: Evidence) -> str:
    words = evidence.words.get((difference.pair, difference.candle_ms), ())
    if words:
        last = words[-1]
        return f"the bot made none: {last.reason}, {REASONS.get(last.reason, last.text)}"
    why = _unusable(evidence.replay(difference.pair), difference.candle_ms, evidence)
    return f"the bot made none: {why or 'it was off, or never looked at this candle'}"


def _why_backtest_is_silent(difference: ForecastDifference, evidence: Evidence) -> str:
    why = _unusable(evidence.backtest(difference.pair), difference.candle_ms, evidence)
    if not why and difference.backtest is None:
        why = "the candle is not in its time range"
    gate = difference.backtest.gate if difference.backtest else ""
    return f"the backtest made none: {why or REASONS.get(gate, 'it does not say why')}"


def _unusable(candles: Candles | None, candle_ms: int, evidence: Evidence) -> str:
    """Why nobody could forecast a candle; empty if one could."""
    if candles is None:
        return "it has no candles of the pair"
    inputs = evidence.inputs(candles, candle_ms)
    return inputs if isinstance(inputs, str) else ""


def _two_models(said: Said, row: JournalRow, evidence: Evidence) -> str:
    text = f"the backtest's is by model {said.version}, the bot's by model {row.version}"
    made = [f"{_described(found.model)}, {found.text}" for found in _candidates(evidence, row)[:1]]
    return "; ".join([text, *made])


def _candidates(evidence: Evidence, row: JournalRow) -> list[Candidate]:
    """What may have made a row, the likeliest first; none, if its version is gone."""
    try:
        return [found for found in evidence.models(row) if found.model.card.version == row.version]
    except StoreError:
        return []


def _described(model: Model) -> str:
    card = model.card
    return f"{card.version} is a {card.kind} model of candles until {utc_text(card.train_end_ms)}"


def _unlike_candles(
    mine: Candles, theirs: Candles, candle_ms: int, count: int, order_flow: bool
) -> str:
    """The first of `count` candles up to this one that the two do not have alike; empty if none."""
    since_ms = candle_ms - (count - 1) * mine.step_ms
    ours, others = (candles.between(since_ms, candle_ms + 1) for candles in (mine, theirs))
    lacking = np.setxor1d(ours.date_ms, others.date_ms)
    if len(lacking):
        who = "the bot" if lacking[0] in ours.date_ms else "the backtest"
        return f"{who} lacks the candle of {utc_text(lacking[0])}"
    for name, left, right in _columns(ours, others, order_flow):
        unlike = np.flatnonzero((left != right) & ~(np.isnan(left) & np.isnan(right)))
        if len(unlike):
            row = unlike[0]
            return (
                f"the {name} of the candle of {utc_text(ours.date_ms[row])} is "
                f"{left[row]!s} to the backtest and {right[row]!s} to the bot"
            )
    return ""


def _columns(
    mine: Candles, theirs: Candles, order_flow: bool
) -> Iterator[tuple[str, Floats, Floats]]:
    for name in (*PRICE_COLUMNS, "volume"):
        yield name, getattr(mine, name), getattr(theirs, name)
    if order_flow and mine.flow is not None and theirs.flow is not None:
        for name in FLOW.names or ():
            yield f"order flow ({name})", mine.flow[name], theirs.flow[name]


def _unlike_answers(
    difference: ForecastDifference, row: JournalRow, said: Said, inputs: Inputs,
    candidates: Sequence[Candidate],
) -> Explanation:  # fmt: skip
    """Who of the two does not say what the model makes of the same inputs."""
    name, tested, spoken = next(difference.parts())
    facts = f"{name} is {tested!s} in the backtest and {spoken!s} in the journal"
    made = [(reproduce(found.model, row.pair, inputs), found.text) for found in candidates]
    if not made:
        return Explanation(UNKNOWN, f"{facts}; model {row.version} is not in the store any more")
    written = Values.of(row)
    bots = [words for values, words in made if not written.unlike(values)]
    tests = [words for values, words in made if _agrees(values, said)]
    if bots and tests:
        text = f"{facts}; the bot's was calibrated {bots[0]}, the backtest's {tests[0]}"
        return Explanation(CALIBRATION, text)
    if bots:
        text = f"{facts}; the bot's is what the model makes of these candles ({bots[0]})"
        return Explanation(BACKTEST, text)
    expected = made[0][0].named()[name]
    if same_network_output(made[0][0], written):
        text = f"the network said the same, its calibration makes {expected!s} of it ({made[0][1]})"
        return Explanation(CALIBRATION, f"{facts}; {text}")
    text = f"the model makes {expected!s} of the same candles: other weights or another scaler"
    return Explanation(SERVING, f"{facts}; {text}")


def _agrees(values: Values, said: Said) -> bool:
    numbers = tuple(getattr(values, name) for name in NUMBERS)
    return numbers == said.numbers and values.far == said.far


def same_network_output(one: Values, other: Values) -> bool:
    """Whether two forecasts of one candle may come from the same raw output of a network.

    A calibration moves all quantiles alike and stretches each interval around the median. What it
    cannot change is how far the median is from the mean, and how lopsided each interval is.

    Examples
    --------
    >>> one = Values((-2.0, 0.0, 1.0), 0.1, 0.5, -2.0, 1.0, None, None, None)
    >>> wider = Values((-3.6, 0.4, 2.4), 0.1, 0.9, -3.6, 2.4, None, None, None)
    >>> same_network_output(one, wider)
    True
    """
    if one.volatility != other.volatility or len(one.quantiles) != len(other.quantiles):
        return False
    return bool(np.allclose(_shape(one), _shape(other), rtol=_ALIKE, atol=_ALIKE))


def _shape(values: Values) -> Floats:
    """(1 + K // 2,) what of a forecast no calibration changes."""
    quantiles = np.array(values.quantiles)
    half = len(quantiles) // 2
    middle = quantiles[half]
    down, up = middle - quantiles[:half], quantiles[::-1][:half] - middle
    with np.errstate(divide="ignore", invalid="ignore"):
        lopsided = np.nan_to_num(np.log(down) - np.log(up))
    return np.concatenate([[(middle - values.mean) / values.volatility], lopsided])
