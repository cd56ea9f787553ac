"""Forecasts told again: the numbers that were written down, at the candles they are of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from journal_faults import wait_until

from lstm_model.errors import StoreError
from lstm_model.store.journal import Journal
from lstm_model.store.journal_rows import JournalRow
from lstm_model.store.recorder import Recorder
from lstm_model.trading import told as told_module
from lstm_model.trading.told import Memory, Told

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


def test_what_is_known_stays_and_other_candles_come_beside_it() -> None:
    known = told(row(2), row(4))
    known.precede([row(n, "journal") for n in range(1, 7)])
    versions = known.of(STEP_MS * np.arange(1, 7)).versions.tolist()
    assert versions == ["journal", "a", "journal", "a", "journal", "journal"]
    assert known.newest_ms == 6 * STEP_MS


# ---------------------------------------------------------------- of every pair

PAIR = "BTC/USDT"


@pytest.fixture(name="recorder")
def running(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(Journal(tmp_path / "journal.sqlite", "bot-1m-1"), tmp_path / "bot.spool")
    recorder.start()
    yield recorder
    recorder.stop()


def remembering(recorder: Recorder, newest: int = 9) -> Memory:
    memory = Memory(recorder, "1m", LEVELS, lambda: {"ours"})
    memory.begin(0, newest * STEP_MS)
    return memory


def test_a_spool_older_than_the_journal_hides_nothing_of_it(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.record([row(n) for n in range(1, 8)])
    monkeypatch.setattr(recorder, "waiting", lambda: [row(3), row(3), row(2)])
    memory = remembering(recorder)
    recorder.settle(10.0)
    assert memory.newest_ms(PAIR) == 7 * STEP_MS
    assert memory.of(PAIR).of(STEP_MS * np.arange(10)).rows.tolist() == [*range(1, 8)]


def test_rows_that_name_no_bot_count_by_their_version(recorder: Recorder, tmp_path: Path) -> None:
    old = Journal(tmp_path / "journal.sqlite")
    old.record([row(1, "ours"), row(2, "theirs"), row(3, "theirs")])
    old.close()
    recorder.record([row(3, "new")])
    recorder.settle(10.0)
    versions = remembering(recorder).of(PAIR).of(STEP_MS * np.arange(10)).versions.tolist()
    assert versions == ["ours", "new"]


def test_what_was_heard_is_held_once(recorder: Recorder) -> None:
    recorder.record([row(1)])
    memory = remembering(recorder)
    memory.follow([PAIR])
    recorder.settle(10.0)
    assert memory.of(PAIR).newest_ms == STEP_MS
    assert memory._asked == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [StoreError("no such table"), KeyError("quantiles")])
def test_a_journal_that_failed_is_asked_again(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    recorder.record([row(1)])
    recorder.settle(10.0)

    def fail(*_: object, **__: object) -> list[JournalRow]:
        raise error

    memory = remembering(recorder)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "read", fail)
        assert memory.newest_ms(PAIR) == 9 * STEP_MS  # whatever was said until then
        assert memory._asked == {}
    assert memory.newest_ms(PAIR) == 9 * STEP_MS
    assert memory._asked == {}  # not at once
    memory._lost[PAIR] -= told_module._AGAIN_S
    wait_until(lambda: recorder.tick(0, STEP_MS) or memory.newest_ms(PAIR) == STEP_MS)


def test_a_forecast_of_other_levels_is_named_and_changes_nothing() -> None:
    """The lineage names the levels: whoever wrote it was no bot of these settings."""
    known = told(row(3))
    foreign = row(4, quantiles=(-0.1, 0.1))
    for take in (known.add, known.precede):
        with pytest.raises(StoreError, match=r"1970-01-01T00:04:00Z .* has 2 quantiles, not 3"):
            take([row(2), foreign])
    assert known.of(STEP_MS * np.arange(5)).rows.tolist() == [3]


def test_a_reach_over_other_spans_is_unknown() -> None:
    found = told(row(3, far=(-1.0, 1.0)), row(4)).of(STEP_MS * np.array([3, 4])).forecast
    assert found.known_far(0) == (None,) * 6
    assert found.known_far(1) == (-1.0, -2.0, None, 1.0, 2.0, 3.0)
