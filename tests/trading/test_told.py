"""Forecasts told again: the numbers that were written down, at the candles they are of."""

from __future__ import annotations

import numpy as np

from lstm_model.store.journal_rows import JournalRow
from lstm_model.trading.told import Told

LEVELS = (0.05, 0.5, 0.95)
STEP_MS = 60_000


def row(number: int, version: str = "a", **others: object) -> JournalRow:
    facts: dict[str, object] = {
        "pair": "BTC/USDT", "timeframe": "1m", "candle_ms": number * STEP_MS, "version": version,
        "quantiles": (-0.1, 0.0, 0.1 + number), "volatility": 0.01, "mean": 0.5 * number,
        "low": -0.1, "high": 0.1 + number, "reason": "no_edge", "created_ms": 7,
        "mean_error": 0.002, "lowest": -0.2, "highest": 0.3,
        "far": (-1.0, -2.0, None, 1.0, 2.0, 3.0),
    }  # fmt: skip
    return JournalRow(**{**facts, **others})  # type: ignore[arg-type]


def told(*rows: JournalRow) -> Told:
    made = Told(LEVELS)
    made.add(rows)
    return made


def test_each_candle_gets_its_own_numbers_and_a_candle_without_any_none() -> None:
    found = told(row(3), row(5, "b")).of(STEP_MS * np.arange(2, 7))
    assert found.rows.tolist() == [1, 3]
    assert found.versions.tolist() == ["a", "b"]
    forecast = found.forecast
    assert forecast.mean.tolist() == [1.5, 2.5]
    assert forecast.quantiles.tolist() == [[-0.1, 0.0, 3.1], [-0.1, 0.0, 5.1]]
    columns = forecast.volatility, forecast.mean_error, forecast.lowest, forecast.highest
    assert [column[0] for column in columns] == [0.01, 0.002, -0.2, 0.3]
    assert forecast.known_far(0) == (-1.0, -2.0, None, 1.0, 2.0, 3.0)


def test_what_an_older_release_did_not_write_is_unknown() -> None:
    old = row(3, mean_error=None, lowest=None, highest=None, far=())
    forecast = told(old, row(4)).of(STEP_MS * np.array([3, 4])).forecast
    assert np.isnan([forecast.mean_error[0], forecast.lowest[0], forecast.highest[0]]).all()
    assert np.isnan(forecast.far[0]).all()
    assert forecast.mean_error[1] == 0.002


def test_rows_are_added_and_forgotten() -> None:
    known = told()
    assert (known.newest_ms, len(known.of(STEP_MS * np.arange(9)).rows)) == (-1, 0)
    known.add([row(3), row(4), row(5)])
    known.add([])
    known.add([row(5, "later"), row(6, "later")])
    assert known.newest_ms == 6 * STEP_MS
    assert known.of(STEP_MS * np.arange(9)).versions.tolist() == ["a", "a", "later", "later"]
    known.forget_before(4 * STEP_MS)
    assert known.of(STEP_MS * np.arange(9)).rows.tolist() == [4, 5, 6]
    known.forget_before(7 * STEP_MS)
    assert known.newest_ms == -1


def test_what_was_found_is_a_copy() -> None:
    known = told(row(3), row(4))
    known.of(STEP_MS * np.arange(3, 5)).forecast.quantiles[:] = 9.0
    assert known.of(STEP_MS * np.array([3])).forecast.quantiles[0, 0] == -0.1
