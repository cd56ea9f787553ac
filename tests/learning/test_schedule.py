"""Boundaries count from 1970, whoever asks; a chain begins where everyone else's does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from series import STEP_MS

from lstm_model.learning.schedule import Schedule
from lstm_model.settings import Settings

TIMES = st.integers(1, 10_000_000).map(lambda number: number * STEP_MS)


@st.composite
def plans(draw: st.DrawFn) -> Settings:
    """Rhythms that the settings allow: steps longer and shorter than the periods."""
    step = draw(st.integers(10, 400))
    return Settings(
        horizon=1,
        step_candles=step,
        training_lag_candles=draw(st.integers(0, step - 2)),
        retrain_candles=draw(st.integers(50, 1_500)),
        finetune_candles=draw(st.sampled_from([0, 1, 30]) | st.integers(0, 1_000)),
    )


PLANS = plans()


def schedule_of(plan: Settings) -> Schedule:
    return Schedule.of(plan, "5m")


def passes(plan: Settings, boundary_ms: int, period: int) -> bool:
    """Whether a multiple of `period` candles lies in the step that ends at the boundary."""
    last = boundary_ms // STEP_MS
    return any(candle % period == 0 for candle in range(last - plan.step_candles + 1, last + 1))


@given(TIMES, PLANS)
def test_every_close_is_served_by_the_boundary_that_is_found_for_it(
    close_ms: int, plan: Settings
) -> None:
    schedule = schedule_of(plan)
    serves_from_ms = schedule.boundary_at(close_ms) + schedule.lag_ms
    assert serves_from_ms <= close_ms < serves_from_ms + schedule.step_ms


@given(TIMES, PLANS)
def test_steps_serve_one_after_the_other_without_gap_or_overlap(
    close_ms: int, plan: Settings
) -> None:
    schedule = schedule_of(plan)
    boundary_ms = schedule.boundary_at(close_ms)
    first_ms = boundary_ms + schedule.lag_ms
    assert schedule.boundary_at(first_ms) == boundary_ms
    assert schedule.boundary_at(first_ms + schedule.step_ms - 1) == boundary_ms
    assert schedule.boundary_at(first_ms + schedule.step_ms) == boundary_ms + schedule.step_ms
    assert schedule.boundary_at(first_ms - 1) == boundary_ms - schedule.step_ms


@given(TIMES, PLANS)
def test_a_step_serves_only_after_its_data_ended_and_time_to_train(
    close_ms: int, plan: Settings
) -> None:
    boundary_ms = schedule_of(plan).boundary_at(close_ms)
    assert boundary_ms <= close_ms - plan.training_lag_candles * STEP_MS


@given(TIMES, PLANS)
def test_boundaries_count_from_1970_and_none_is_left_out(now_ms: int, plan: Settings) -> None:
    schedule = schedule_of(plan)
    boundary_ms = schedule.last_boundary(now_ms)
    assert boundary_ms % (plan.step_candles * STEP_MS) == 0
    assert boundary_ms <= now_ms < boundary_ms + schedule.step_ms
    assert schedule.last_boundary(boundary_ms) == boundary_ms


@given(TIMES, PLANS)
def test_every_retraining_is_due_at_the_first_boundary_after_it(
    now_ms: int, plan: Settings
) -> None:
    schedule = schedule_of(plan)
    boundary_ms = schedule.last_boundary(now_ms)
    assert schedule.retrains_at(boundary_ms) == passes(plan, boundary_ms, plan.retrain_candles)


@given(TIMES, PLANS)
def test_every_fine_tuning_is_due_at_the_first_boundary_after_it_or_never(
    now_ms: int, plan: Settings
) -> None:
    schedule = schedule_of(plan)
    boundary_ms = schedule.last_boundary(now_ms)
    period = plan.finetune_candles
    wanted = period > 0 and passes(plan, boundary_ms, period)
    assert schedule.finetunes_at(boundary_ms) == wanted


@given(TIMES, PLANS)
def test_a_chain_begins_with_a_retraining_no_longer_ago_than_their_period(
    now_ms: int, plan: Settings
) -> None:
    schedule = schedule_of(plan)
    boundary_ms = schedule.last_boundary(now_ms)
    origin_ms = schedule.origin_of(boundary_ms)
    assert origin_ms == schedule.last_boundary(origin_ms)
    assert schedule.retrains_at(origin_ms)
    assert 0 <= boundary_ms - origin_ms < schedule.retrain_ms


@given(TIMES, PLANS)
def test_every_boundary_until_the_next_retraining_has_the_same_origin(
    now_ms: int, plan: Settings
) -> None:
    schedule = schedule_of(plan)
    origin_ms = boundary_ms = schedule.origin_of(schedule.last_boundary(now_ms))
    assert schedule.origin_of(origin_ms) == origin_ms
    while not schedule.retrains_at(boundary_ms := boundary_ms + schedule.step_ms):
        assert schedule.origin_of(boundary_ms) == origin_ms
    assert schedule.origin_of(boundary_ms) == boundary_ms


@given(PLANS)
def test_rhythms_are_counted_in_candles_of_the_timeframe(plan: Settings) -> None:
    found = Schedule.of(plan, "1h")
    assert found.candle_ms == 3_600_000
    counts = [found.step_ms, found.lag_ms, found.retrain_ms, found.finetune_ms]
    assert [count // 3_600_000 for count in counts] == [
        plan.step_candles, plan.training_lag_candles, plan.retrain_candles, plan.finetune_candles
    ]  # fmt: skip
