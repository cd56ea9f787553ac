"""HAR finds what volatility of the past says of that to come, and looks at nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from series import change, make_candles, same_bits

from lstm_model.features.closed_candle import feature_names
from lstm_model.model.dataset import (
    Panel,
    build_panel,
    purged_split,
    realized_return,
    realized_variance,
)
from lstm_model.scoring.har import Har, har_columns, walk_forward
from lstm_model.settings import Settings

SETTINGS = Settings(lookback=10, horizon=4, validation_fraction=0.1, test_fraction=0.15)
PANEL = build_panel([make_candles(4_000), make_candles(3_000, seed=1, pair="E/U")], SETTINGS)
SPLIT = purged_split(PANEL, SETTINGS)
PAST = np.concatenate([SPLIT.train, SPLIT.validation])
NAMES = feature_names(False)


def fitted(panel: Panel = PANEL) -> Har:
    return Har.fit(panel, SPLIT.train, PAST, SETTINGS)


def planted(noise: float = 0.5) -> Panel:
    """Variance and returns follow two of the features, as `TRUE` says."""
    random = np.random.default_rng(5)
    log_variance = -0.2 + PANEL.rows @ TRUE + noise * random.normal(size=len(PANEL.rows))
    unit = PANEL.unit
    return replace(
        PANEL,
        variance=np.exp(log_variance) * unit**2,
        realized=random.normal(size=len(unit)) * np.exp(log_variance / 2) * unit,
    )


TRUE = np.zeros(len(NAMES))
TRUE[[NAMES.index("volatility_ratio"), NAMES.index("day_sin")]] = 0.7, -0.3


def test_a_planted_relation_is_recovered() -> None:
    har = fitted(planted())
    assert har.weights[:-1] == pytest.approx(TRUE[list(har.columns)], abs=0.08)
    assert har.weights[-1] == pytest.approx(-0.2, abs=0.1)
    assert har.residuals[-1] == pytest.approx(1.645 * np.exp(0.5**2 / 2), rel=0.1)


def test_its_widths_hold_where_it_foretells_calm_and_where_it_foretells_wild_times() -> None:
    panel = planted()
    quantiles = fitted(panel).predict(panel.rows[SPLIT.test])
    realized = panel.target()[SPLIT.test]
    inside = (quantiles[:, 0] <= realized) & (realized <= quantiles[:, -1])
    calm = np.argsort(quantiles[:, -1])[: len(realized) // 3]
    wild = np.argsort(quantiles[:, -1])[-len(realized) // 3 :]
    assert inside[calm].mean() == pytest.approx(0.9, abs=0.06)
    assert inside[wild].mean() == pytest.approx(0.9, abs=0.06)


def test_quantiles_rise_around_a_median_of_zero() -> None:
    quantiles = fitted().predict(PANEL.rows[SPLIT.test])
    assert (np.diff(quantiles, axis=1) > 0.0).all()
    assert not quantiles[:, 3].any()


def test_it_learns_from_its_rows_alone() -> None:
    other = np.setdiff1d(np.arange(len(PANEL.rows)), PAST)
    realized, variance = PANEL.realized.copy(), PANEL.variance.copy()
    realized[other], variance[other] = 7.0, 7.0
    assert fitted(replace(PANEL, realized=realized, variance=variance)) == fitted()
    variance[SPLIT.train[0]] *= 2.0
    assert fitted(replace(PANEL, variance=variance)).weights != fitted().weights


def test_a_row_has_the_same_bits_alone_and_under_a_longer_history() -> None:
    har, candles = fitted(), make_candles(2_000)
    whole = build_panel([candles], SETTINGS)
    made = har.predict(whole.rows)
    shorter = build_panel([candles.rows(800, 2_000)], SETTINGS)
    known = np.flatnonzero(np.isfinite(shorter.rows).all(axis=1))
    assert len(known) > 500
    assert same_bits(har.predict(shorter.rows[known]), made[800 + known])
    for row in known[::100]:
        assert same_bits(har.predict(shorter.rows[row : row + 1])[0], made[800 + row])


def test_it_is_causal() -> None:
    har, candles = fitted(), make_candles(2_000)
    later = change(candles, slice(1_500, None), close=2.0 * candles.close[1_500:])
    made, other = (har.predict(build_panel([c], SETTINGS).rows) for c in (candles, later))
    assert same_bits(made[:1_500], other[:1_500])
    assert not np.array_equal(made[1_500:], other[1_500:], equal_nan=True)


def test_it_looks_at_volatility_and_at_the_time_of_day() -> None:
    names = [NAMES[column] for column in har_columns(SETTINGS)]
    assert all(name.startswith("volatility_") or "day_" in name for name in names)
    assert {"volatility_ratio", "volatility_trend", "day_sin", "half_day_cos"} <= set(names)
    flowing = Settings(lookback=10, horizon=4, order_flow=True)
    assert har_columns(flowing) == har_columns(SETTINGS)


def test_columns_that_never_change_have_no_weight() -> None:
    """As the time of day with candles of a day."""
    column = NAMES.index("half_day_cos")
    rows = PANEL.rows.copy()
    rows[:, column] = 1.0
    har = fitted(replace(PANEL, rows=rows))
    assert har.weights[har.columns.index(column)] == pytest.approx(0.0, abs=1e-9)
    assert np.isfinite(har.residuals).all()


def test_a_horizon_in_which_nothing_moved_is_learnt_from_with_a_floor() -> None:
    variance = PANEL.variance.copy()
    variance[SPLIT.train[::50]] = 0.0
    assert np.isfinite(fitted(replace(PANEL, variance=variance)).weights).all()


def test_a_horizon_with_a_hole_teaches_nothing() -> None:
    variance = PANEL.variance.copy()
    variance[SPLIT.train[::3]] = np.nan
    without = np.setdiff1d(SPLIT.train, SPLIT.train[::3])
    holed = fitted(replace(PANEL, variance=variance))
    assert holed == Har.fit(PANEL, without, PAST, SETTINGS)


def test_a_walk_learns_from_what_was_known_alone() -> None:
    """What came later decides neither the fit nor the first widths."""
    candles, horizon = make_candles(3_000), SETTINGS.horizon
    since_ms = int(candles.date_ms[2_500])
    dates, ends = walk_forward(candles, since_ms, SETTINGS)
    assert np.array_equal(dates, candles.date_ms[2_500:-horizon])
    later = change(candles, slice(2_600, None), close=0.5 * candles.close[2_600:])
    _, other = walk_forward(later, since_ms, SETTINGS)
    assert same_bits(other[: 100 - horizon], ends[: 100 - horizon])
    assert not np.array_equal(other[110:], ends[110:])


def test_a_walk_covers_what_it_promises() -> None:
    candles = make_candles(8_000)
    dates, ends = walk_forward(candles, int(candles.date_ms[4_000]), SETTINGS)
    realized = realized_return(candles, SETTINGS.horizon)[4_000:][: len(dates)]
    inside = (ends[:, 0] <= realized) & (realized <= ends[:, 1])
    assert inside.mean() == pytest.approx(0.9, abs=0.02)


def test_of_too_few_candles_no_walk_is_made() -> None:
    candles = make_candles(1_500)
    dates, ends = walk_forward(candles, int(candles.date_ms[1_100]), SETTINGS)
    assert (len(dates), ends.shape) == (0, (0, 2))


def test_the_realized_variance_is_that_of_the_candles_to_come() -> None:
    candles = make_candles(50)
    squares = np.diff(np.log(candles.close)) ** 2
    found = realized_variance(candles, 4)
    expected = [squares[at : at + 4].sum() for at in range(46)]
    np.testing.assert_allclose(found[:46], expected, rtol=1e-12)
    assert np.isnan(found[46:]).all()
    assert np.isnan(realized_variance(candles.rows(0, 3), 4)).all()
