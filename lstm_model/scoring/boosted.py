"""LightGBM quantiles on the newest row: what the same features are worth without a memory.

A rival for the cards and the studies. It never serves, and without `lightgbm` (the extra `rivals`)
there is none. Only this module knows that library.

Shapes: R pooled rows, N windows, F features, K quantile levels.

References
----------
Ke et al. (2017), LightGBM: a highly efficient gradient boosting decision tree.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.dataset import Panel, Split
from lstm_model.settings import Settings

logger = logging.getLogger(__name__)

MOST_ROWS = 200_000  # chosen: to learn from; more cost time and gain nothing here
_ROUNDS = 400  # chosen, as all below: a plain choice, not tuned on what it is scored on
_PATIENCE = 30  # rounds
_PLAIN = {
    "objective": "quantile", "num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 500,
    "feature_fraction": 0.6, "bagging_fraction": 0.7, "bagging_freq": 1, "deterministic": True,
    "force_row_wise": True, "verbose": -1,
}  # fmt: skip


def is_installed() -> bool:
    """Whether there is a `lightgbm` to ask, which its installation alone does not promise."""
    try:
        importlib.import_module("lightgbm")
    except (ImportError, OSError) as error:  # OSError: it lacks a library of the system
        if not isinstance(error, ModuleNotFoundError):
            logger.warning("LightGBM is installed but cannot be used: %s", error)
        return False
    return True


@dataclass(frozen=True)
class Boosted:
    """Gradient-boosted trees, one ensemble for each quantile level."""

    boosters: tuple[Any, ...]
    threads: int

    @classmethod
    def fit(cls, panel: Panel, split: Split, settings: Settings) -> Self:
        """Learn from the training block, stop by the validation block; pairs are pooled.

        The same numbers give the same trees, however many threads there are.

        Raises
        ------
        ModuleNotFoundError
            See `is_installed`.
        """
        import lightgbm

        target, options = panel.target(), {**_PLAIN, "seed": settings.seed}
        options["num_threads"] = settings.train_threads
        train, validation = evenly(split.train, MOST_ROWS), evenly(split.validation, MOST_ROWS)
        learnt = lightgbm.Dataset(
            _inputs(panel.rows[train]), target[train], params=options, free_raw_data=False
        )
        held_out = lightgbm.Dataset(
            _inputs(panel.rows[validation]), target[validation], reference=learnt, params=options
        )
        boosters = [
            lightgbm.train(
                {**options, "alpha": level}, learnt, _ROUNDS, [held_out],
                callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
            )
            for level in settings.levels
        ]  # fmt: skip
        return cls(tuple(boosters), settings.train_threads)

    def predict(self, rows: Floats) -> Floats:
        """(N, F) -> (N, K) quantiles of the return, in units of volatility over the horizon."""
        inputs = _inputs(rows)
        each = [booster.predict(inputs, num_threads=self.threads) for booster in self.boosters]
        return np.asarray(np.sort(np.stack(each, axis=1), axis=1))


def evenly(rows: Ints, most: int) -> Ints:
    """At most so many of the rows (N,), from all of their time.

    Examples
    --------
    >>> evenly(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    return rows[:: max(1, -(-len(rows) // most))]


def _inputs(rows: Floats) -> NDArray[np.float32]:
    return rows.astype(np.float32)
