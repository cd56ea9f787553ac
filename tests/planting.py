"""Runs our command line with a bug in it: `python planting.py BUG verify ...`.

What a bug changes is this process alone; networks are trained in another one.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from lstm_model.features import closed_candle as features
from lstm_model.features import context
from lstm_model.model.lstm import Lstm
from lstm_model.practice import usdm_dialect


def look_ahead() -> None:
    """The first feature of a candle is that of the candle after it."""
    honest = features.compute_features

    def of_the_next(*arguments: Any, **options: Any) -> features.FeatureRows:
        made = honest(*arguments, **options)
        rows = made.rows.copy()
        rows[:-1, 0] = rows[1:, 0]
        return replace(made, rows=rows)

    features.compute_features = of_the_next


def leader() -> None:
    """All see what the leader does in the candle after their own."""
    honest = context.leading_columns

    def of_the_next(candles: Any) -> Any:
        columns = honest(candles)
        return np.concatenate([columns[1:], columns[-1:]])

    context.leading_columns = of_the_next


def scaler() -> None:
    """A running bot's network sees features that were not scaled."""
    honest = Lstm.predict_windows

    def unscaled(self: Any, windows: Any) -> Any:
        mean, scale = self._mean, self._scale
        self._mean, self._scale = np.zeros_like(mean), np.ones_like(scale)
        try:
            return honest(self, windows)
        finally:
            self._mean, self._scale = mean, scale

    Lstm.predict_windows = unscaled  # type: ignore[method-assign]


def funding() -> None:
    """Whoever asks the exchange for what funding was, is told the other sign."""
    honest = usdm_dialect.funding_row

    def turned(*arguments: Any) -> Any:
        told = honest(*arguments)
        return {**told, "fundingRate": f"{-float(told['fundingRate']):.8f}"}

    usdm_dialect.funding_row = turned


BUGS = {
    "look-ahead": look_ahead, "leader": leader, "scaler": scaler,
    "funding": funding,
}  # fmt: skip

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    from lstm_model.commands.main import main  # now, so that everything takes the planted function

    main()
