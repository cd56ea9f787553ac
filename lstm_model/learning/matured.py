"""Which forecasts have come true by now: the labels that became known in one step of the learner.

Shapes: N labels, of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lstm_model.features.closed_candle import WARM_UP
from lstm_model.learning.contender import Labels
from lstm_model.market.candles import Candles, Ints, utc_minute
from lstm_model.model.dataset import Panel, build_panel
from lstm_model.scoring.evaluation import Outcomes
from lstm_model.settings import Settings

_USUAL = 0.05  # chosen: of a step's moments; so many are missing on usual days, of all or of one


class Matured(NamedTuple):
    """The labels of one step, and the rows (N,) of the panel that they belong to."""

    panel: Panel
    rows: Ints
    labels: Labels


def label_reach(settings: Settings) -> int:
    """Candles before a step that forecasts look at whose labels become known in it."""
    return settings.horizon + 1 + WARM_UP + settings.lookback


def mature(
    series: Iterable[Candles], since_ms: Mapping[str, int], until_ms: int, settings: Settings
) -> Matured | None:
    """The labels that became known in `(since_ms, until_ms]`; None if no pair has enough candles.

    A label is whole one candle after `label_ms`: then the delayed return is known, too.

    Parameters
    ----------
    series : candles of every pair, from `label_reach` before its `since_ms` until `until_ms`
    since_ms : of each pair
    """
    enough = [candles for candles in series if len(candles) > label_reach(settings)]
    if not enough:
        return None
    candle_ms, panel = enough[0].step_ms, build_panel(enough, settings)
    known_ms = panel.label_ms + candle_ms
    since = np.array([since_ms[pair] for pair in panel.pairs])[panel.pair_index]
    rows = np.flatnonzero(panel.usable & (known_ms > since) & (known_ms <= until_ms))
    outcomes, pairs = Outcomes.of(panel, rows), panel.pair_index[rows]
    absent = frozenset(since_ms.keys() - {*panel.pairs})
    labels = Labels(panel.pairs, pairs, outcomes, panel.reached(rows), candle_ms, absent)
    return Matured(panel, rows, labels)


def missing(series: Sequence[Candles], since_ms: int, until_ms: int) -> str:
    """What a step lacks of the candles that open in `[since_ms, until_ms)`, as a clause; or "".

    freqtrade fills holes with candles of no volume, so these count as none. That one pair is not
    traded for a while is no news; that all are not at once, or that one has ended, is.
    """
    if not series:
        return ""
    candle_ms = series[0].step_ms
    wanted = (until_ms - since_ms) // candle_ms
    known = [candles.between(since_ms, until_ms) for candles in series]
    moments = np.concatenate([candles.date_ms[candles.sound()] for candles in known])
    lacking = wanted - len(np.unique(moments))
    parts = [f"none of {lacking} of {wanted} moments"] if lacking > _USUAL * wanted else []
    for candles in series:
        end_ms = int(candles.date_ms[-1]) + candle_ms if len(candles) else since_ms
        if end_ms < until_ms - candle_ms * max(1.0, _USUAL * wanted):  # one may be late
            parts.append(f"those of {candles.pair} end at {utc_minute(end_ms)}")
    return ", ".join(parts)
