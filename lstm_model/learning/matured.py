"""Which forecasts have come true by now: the labels that became known in one step of the learner.

Shapes: N labels, of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lstm_model.features.closed_candle import WARM_UP
from lstm_model.learning.contender import Labels
from lstm_model.market.candles import Candles, Ints
from lstm_model.model.dataset import Panel, build_panel
from lstm_model.scoring.evaluation import Outcomes
from lstm_model.settings import Settings


class Matured(NamedTuple):
    """The labels of one step, and the rows (N,) of the panel that they belong to."""

    panel: Panel
    rows: Ints
    labels: Labels


def label_reach(settings: Settings) -> int:
    """Candles before a step that forecasts look at whose labels become known in it."""
    return settings.horizon + 1 + WARM_UP + settings.lookback


def mature(
    series: Iterable[Candles], since_ms: int, until_ms: int, settings: Settings
) -> Matured | None:
    """The labels that became known in `(since_ms, until_ms]`; None if no pair has enough candles.

    A label is whole one candle after `label_ms`: then the delayed return is known, too.

    Parameters
    ----------
    series : candles of every pair, from `label_reach` before `since_ms` until `until_ms`
    """
    enough = [candles for candles in series if len(candles) > label_reach(settings)]
    if not enough:
        return None
    candle_ms, panel = enough[0].step_ms, build_panel(enough, settings)
    known_ms = panel.label_ms + candle_ms
    rows = np.flatnonzero(panel.usable & (known_ms > since_ms) & (known_ms <= until_ms))
    outcomes, pairs = Outcomes.of(panel, rows), panel.pair_index[rows]
    labels = Labels(panel.pairs, pairs, outcomes, panel.reached(rows), candle_ms)
    return Matured(panel, rows, labels)
