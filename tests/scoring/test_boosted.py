"""LightGBM as a rival: finds a planted width, is deterministic, and may be missing."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from series import make_candles

from lstm_model.features.closed_candle import feature_names
from lstm_model.model.dataset import Panel, Split, build_panel, purged_split
from lstm_model.model.forecast import pinball_loss
from lstm_model.scoring.boosted import Boosted, evenly
from lstm_model.settings import Settings

SETTINGS = Settings(
    lookback=10, horizon=2, validation_fraction=0.1, test_fraction=0.15, levels=(0.05, 0.5, 0.95),
    train_threads=1,
)  # fmt: skip
COLUMN = feature_names(False).index("volume_48")

needs_lightgbm = pytest.mark.skipif(
    find_spec("lightgbm") is None, reason='LightGBM is not installed: pip install "lightgbm>=4,<5"'
)


@pytest.fixture(scope="module")
def planted() -> tuple[Panel, Split]:
    """Returns three times as wide where the volume is above its median."""
    panel = build_panel([make_candles(9_000)], SETTINGS)
    seen = panel.rows[:, COLUMN]
    wide = np.where(seen > np.nanmedian(seen), 1.5, 0.5)
    realized = np.random.default_rng(3).normal(size=len(seen)) * wide * panel.unit
    panel = replace(panel, realized=realized)
    return panel, purged_split(panel, SETTINGS)


@needs_lightgbm
def test_a_planted_width_is_found(planted: tuple[Panel, Split]) -> None:
    panel, split = planted
    quantiles = Boosted.fit(panel, split, SETTINGS).predict(panel.rows[split.test])
    realized = panel.target()[split.test]
    constant = np.tile(
        np.quantile(panel.target()[split.train], SETTINGS.levels), (len(realized), 1)
    )
    made, plain = (pinball_loss(SETTINGS.levels, q, realized).mean() for q in (quantiles, constant))
    assert made < 0.93 * plain
    assert (np.diff(quantiles, axis=1) >= 0.0).all()


@needs_lightgbm
def test_it_is_the_same_however_many_threads(planted: tuple[Panel, Split]) -> None:
    panel, split = planted
    made, other = (
        Boosted.fit(panel, split, SETTINGS.model_copy(update={"train_threads": threads})).predict(
            panel.rows[split.test]
        )
        for threads in (1, 2)
    )
    assert np.array_equal(made, other)


@needs_lightgbm
def test_no_outcome_of_the_test_block_changes_it(planted: tuple[Panel, Split]) -> None:
    panel, split = planted
    realized = panel.realized.copy()
    realized[split.test] = 7.0
    made, other = (
        Boosted.fit(p, split, SETTINGS).predict(p.rows[split.test])
        for p in (panel, replace(panel, realized=realized))
    )
    assert np.array_equal(made, other)


def test_rows_are_drawn_from_all_of_their_time() -> None:
    rows = np.arange(1_000, 2_001)
    assert np.array_equal(evenly(rows, 5_000), rows)
    assert evenly(rows, 500).tolist() == list(range(1_000, 2_001, 3))
    assert len(evenly(rows, 1)) == 1
