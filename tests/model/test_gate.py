"""A better challenger is promoted and an equal one hardly ever, however often one looks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from series import slow_noise

from lstm_model.errors import DataError
from lstm_model.market.candles import Floats
from lstm_model.model.gate import (
    _LEAST_SPANS,
    Evidence,
    Verdict,
    Worth,
    _block_variance,
    _long_run_variance,
    contest,
    worth,
)

ERROR = 0.05
LOOK = 288  # moments between two looks
LAST = 4_032  # two weeks of 5m candles


def record(pinball: Floats, gain: Floats | None = None, *, start: int = 0) -> Evidence:
    gain = np.zeros(len(pinball)) if gain is None else gain
    return Evidence(start + np.arange(len(pinball)), pinball, gain, gain, gain, gain)


def rows(evidence: Evidence) -> list[list[float]]:
    return [column.tolist() for column in evidence.arrays().values()]


def judge(gains: Floats, horizon: int = 1, error: float = ERROR) -> Verdict:
    """Verdict of a challenger whose loss is lower by `gains`."""
    loss = np.full(len(gains), 10.0)
    return contest(record(loss - gains), record(loss), 0, horizon, error)


def noise(random: np.random.Generator, count: int, horizon: int, memory: float) -> Floats:
    """Differences of losses of equal forecasters: overlapping, fat tails, now calm and now wild.

    `memory` of a lead that comes and goes: 0.3 deviations of slow noise.
    """
    wild = np.exp(0.4 * np.sin(random.uniform(0.0, 2.0 * np.pi) + np.arange(count) / 600.0))
    shocks = random.standard_t(4, size=count + horizon - 1)
    overlapping = np.convolve(shocks, np.ones(horizon), "valid") * wild
    overlapping /= overlapping.std()
    return overlapping + (0.3 * slow_noise(random, count, memory) if memory else 0.0)


def promoted_at(gains: Floats, horizon: int) -> float:
    """Moments until the first promotion; infinite if there is none."""
    for count in range(LOOK, len(gains) + 1, LOOK):
        if judge(gains[:count], horizon).better:
            return float(count)
    return math.inf


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("horizon", "memory", "allowed"), [(1, 0.0, 0.05), (12, 0.0, 0.05), (12, 0.95, 0.06)]
)
def test_looking_every_step_for_weeks_seldom_promotes_an_equal(
    horizon: int, memory: float, allowed: float
) -> None:
    random = np.random.default_rng(horizon)
    count = 60
    found = sum(
        promoted_at(noise(random, 2 * LAST, horizon, memory), horizon) < math.inf
        for _ in range(count)
    )
    assert found / count <= allowed


@pytest.mark.lengthy
def test_a_lead_that_comes_and_goes_is_seldom_taken_for_good() -> None:
    random = np.random.default_rng(0)
    found = sum(promoted_at(noise(random, LAST, 12, 0.98), 12) < math.inf for _ in range(100))
    assert found <= 8  # variances of one horizon's overlap alone promote 12 to 15 of these


def test_a_better_challenger_is_promoted_and_the_sooner_the_better_it_is() -> None:
    random = np.random.default_rng(1)
    series = [noise(random, LAST, 12, 0.0) for _ in range(20)]
    waits = [
        float(np.median([promoted_at(gains + lead, 12) for gains in series])) for lead in (0.2, 0.6)
    ]
    assert waits[1] < waits[0] < LAST
    assert waits[1] <= 1_152


def test_a_worse_challenger_is_never_promoted() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        gains = noise(random, LAST, 12, 0.0) - 0.6
        assert promoted_at(gains, 12) == math.inf
        assert judge(gains, 12).worse


def test_a_verdict_tells_what_was_saved() -> None:
    gains = 0.5 + np.random.default_rng(0).normal(size=900)
    verdict = judge(gains)
    assert verdict.candles == 900
    assert verdict.gain == pytest.approx(gains.mean())
    assert verdict.saved_fraction == pytest.approx(gains.mean() / 10.0)
    assert 0.0 < verdict.bound < verdict.gain


def test_the_bound_is_that_of_the_paper() -> None:
    gains = np.random.default_rng(0).normal(size=100_000)
    verdict = judge(gains)
    spans, tuned = 100_000, (-2 * math.log(ERROR) + math.log(-2 * math.log(ERROR)) + 1) / 300.0
    inner = math.log(1.0 + math.sqrt(spans * tuned + 1.0) / (2.0 * ERROR))
    width = math.sqrt(2.0 * (spans * tuned + 1.0) / (spans**2 * tuned) * inner)
    assert 0.98 * width < verdict.gain - verdict.bound < 1.15 * width  # the largest of variances


def test_overlapping_labels_count_once_per_horizon() -> None:
    random = np.random.default_rng(3)
    alone = random.normal(size=1_200)
    each = judge(alone)
    repeated = judge(np.repeat(alone, 12), 12)
    assert repeated.gain == pytest.approx(each.gain)
    assert repeated.gain - repeated.bound == pytest.approx(each.gain - each.bound, rel=0.1)


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_a_short_memory_is_seen_in_thirty_blocks(memory: float) -> None:
    random = np.random.default_rng(0)
    found = [_block_variance(slow_noise(random, 31, memory), 1) for _ in range(1_000)]
    truth = (1.0 + memory) / (1.0 - memory)
    assert truth < np.mean(found) < 1.5 * truth  # rather too much than too little


def test_a_slow_lead_widens_the_bound() -> None:
    slow = noise(np.random.default_rng(0), 60_000, 1, 0.98)
    assert _block_variance(slow, 1) < 1.5
    assert 7.0 < _long_run_variance(slow, 1) < 14.0  # 1 + 0.09 * 1.98 / 0.02 is 9.9


def test_a_difference_that_swings_back_is_not_taken_for_certain() -> None:
    swinging = np.diff(np.random.default_rng(0).normal(size=400))  # overlaps that cancel
    assert _long_run_variance(swinging, 2) > 0.0
    assert not judge(swinging, 2).better


def test_fewer_errors_need_more_evidence() -> None:
    gains = 0.3 + np.random.default_rng(0).normal(size=300)
    assert judge(gains, error=0.001).bound < judge(gains, error=0.05).bound


@pytest.mark.parametrize("horizon", [1, 12])
def test_nobody_is_judged_before_there_are_enough_moments(horizon: int) -> None:
    enough = _LEAST_SPANS * horizon
    few, many = judge(np.full(enough - 1, 5.0), horizon), judge(np.full(enough, 5.0), horizon)
    assert not few.better
    assert (few.gain, math.isnan(few.bound)) == (5.0, True)
    assert many.better
    assert judge(np.full(enough, -5.0), horizon).worse
    assert not judge(np.full(enough - 1, -5.0), horizon).worse


def test_records_that_share_no_moment_prove_nothing() -> None:
    empty = contest(Evidence.nothing(), Evidence.nothing(), 0, 12, ERROR)
    apart = contest(record(np.ones(500)), record(np.full(500, 9.0), start=500), 0, 12, ERROR)
    for verdict in (empty, apart):
        assert (verdict.candles, verdict.better, verdict.worse) == (0, False, False)
        assert math.isnan(verdict.gain)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_equal_losses_decide_nothing(level: float) -> None:
    losses = record(np.full(500, level))
    assert contest(losses, losses, 0, 12, ERROR) == Verdict(500, 0.0, 0.0, 0.0, False, False)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_never_wins(bad: float) -> None:
    sound, broken = np.ones(500), np.full(500, 0.5)
    broken[250] = bad
    lost = contest(record(broken), record(sound), 0, 12, ERROR)
    assert (lost.better, lost.worse, math.isnan(lost.gain)) == (False, True, True)
    won = contest(record(sound), record(broken), 0, 12, ERROR)
    assert (won.better, won.worse) == (True, False)
    both = contest(record(broken), record(broken), 0, 12, ERROR)
    assert (both.better, both.worse) == (False, False)
    early = contest(record(broken), record(sound), 200, 12, ERROR)
    assert (early.candles, early.better, early.worse) == (300, False, False)


def test_only_moments_that_both_have_since_the_start_count() -> None:
    random = np.random.default_rng(0)
    champion, challenger = record(random.random(900)), record(random.random(900), start=300)
    trap = replace(champion, pinball=np.where(champion.date_ms < 400, math.nan, champion.pinball))
    verdict = contest(challenger, trap, 400, 1, ERROR)
    gains = champion.pinball[400:] - challenger.pinball[100:600]
    assert verdict.candles == 500
    assert verdict.gain == pytest.approx(gains.mean())


LOSSES = arrays_of.arrays(
    np.float64,
    (2, 40),
    elements=st.one_of(st.floats(0.0, 1e3), st.sampled_from([0.0, 1.0, math.nan, math.inf])),
)


@given(LOSSES, st.integers(1, 3), st.floats(0.0, 10.0))
def test_better_than_it_is_what_it_is_worse_than(losses: Floats, horizon: int, lead: float) -> None:
    one, other = record(losses[0]), record(losses[1] + lead)
    forth, back = (contest(*pair, 0, horizon, ERROR) for pair in ((one, other), (other, one)))
    assert (forth.better, forth.worse) == (back.worse, back.better)
    assert not (forth.better and forth.worse)
    assert forth.candles == back.candles


DATES = st.lists(st.integers(0, 60), unique=True, max_size=20).map(sorted)


def dated(dates: list[int], mark: float) -> Evidence:
    column = mark + np.array(dates, dtype=float)
    return Evidence(np.array(dates, dtype=np.int64), *(column + 0.1 * n for n in range(5)))


@given(DATES, DATES)
def test_a_record_is_continued_by_newer_rows_alone(old: list[int], new: list[int]) -> None:
    first, second = dated(old, 0.0), dated(new, 100.0)
    fresh = [date for date in new if not old or date > old[-1]]
    joined = first.then(second)
    assert joined.date_ms.tolist() == old + fresh
    assert rows(joined.newest(len(fresh))) == rows(dated(fresh, 100.0))
    assert rows(joined.then(second)) == rows(joined)  # once learnt, never twice


@given(DATES, st.integers(-1, 61), st.integers(0, 25))
def test_records_are_cut_by_time_and_by_count(dates: list[int], start: int, count: int) -> None:
    record_ = dated(dates, 0.0)
    assert rows(record_.since(start)) == rows(dated([d for d in dates if d >= start], 0.0))
    assert rows(record_.newest(count)) == rows(dated(dates[len(dates) - count :], 0.0)) or (
        count > len(dates) and rows(record_.newest(count)) == rows(record_)
    )


@given(DATES)
def test_a_saved_record_comes_back(dates: list[int]) -> None:
    record_ = dated(dates, 0.0)
    found = Evidence.from_arrays({**record_.arrays(), "weights": np.zeros(3)})
    assert rows(found) == rows(record_)
    assert found.date_ms.dtype == np.int64


# What a mean is worth


def foretold(slope: float, count: int = 600, horizon: int = 1) -> Evidence:
    """A record whose mean foretells outcomes of deviation 1 with this slope."""
    random = np.random.default_rng(0)
    mean = np.repeat(random.normal(size=count), horizon)
    outcome = slope * mean + np.repeat(random.normal(size=count), horizon)
    nothing = np.zeros(len(mean))
    return Evidence(np.arange(len(mean)), nothing, nothing, nothing, mean * outcome, mean**2)


def worth_of(evidence: Evidence, horizon: int = 1) -> Worth:
    found = evidence.worth(horizon)
    assert found is not None
    return found


def test_a_mean_is_worth_its_slope_less_what_may_be_luck() -> None:
    evidence = foretold(0.5)
    slope = evidence.product.sum() / evidence.power.sum()
    assert slope == pytest.approx(0.5, abs=0.1)
    error = evidence.product.std(ddof=1) / math.sqrt(600)
    statistic = evidence.product.mean() / error
    wanted = slope * (1.0 - 1.0 / statistic**2)
    found = worth_of(evidence)
    assert found.shrinkage == pytest.approx(wanted, rel=0.01)
    assert found.error == pytest.approx(slope / statistic, rel=0.01)


@pytest.mark.parametrize(("slope", "found"), [(3.0, 1.0), (-0.5, 0.0), (0.0, 0.0)])
def test_a_mean_is_worth_no_more_than_itself_and_no_less_than_nothing(
    slope: float, found: float
) -> None:
    assert worth_of(foretold(slope)).shrinkage == pytest.approx(found, abs=0.03)


def test_the_worth_of_overlapping_forecasts_counts_once_per_horizon() -> None:
    one, many = foretold(0.15), foretold(0.15, horizon=12)
    assert worth_of(many, 12) == pytest.approx(worth_of(one), rel=0.05)
    assert worth_of(many, 12).shrinkage < worth_of(many).shrinkage
    assert worth_of(many, 12).error > 3.0 * worth_of(many).error


@pytest.mark.parametrize(("horizon", "memory"), [(1, 0.0), (12, 0.0), (12, 0.95)])
def test_the_error_of_a_worth_is_how_far_slopes_of_other_samples_are_off(
    horizon: int, memory: float
) -> None:
    """Outcomes overlap over the horizon, and the mean moves as slowly as a forecast does."""
    random, count = np.random.default_rng(0), 3_000
    slopes, errors = [], []
    for _ in range(60):
        mean = slow_noise(random, count, memory)
        shocks = random.normal(size=count + horizon - 1)
        noise_ = np.convolve(shocks, np.full(horizon, horizon**-0.5), "valid")
        product, power = mean * (0.2 * mean + noise_), mean**2
        slopes.append(product.sum() / power.sum())
        errors.append(worth(product, power, horizon).error)
    proven = [error for error in errors if error]
    assert len(proven) > 50
    assert np.mean(proven) == pytest.approx(np.std(slopes), rel=0.25)


def test_a_mean_without_a_relation_is_worth_nothing_for_sure() -> None:
    """No error either: a mean of zero is served, and none of it is uncertain."""
    assert worth_of(foretold(-0.5)) == worth_of(foretold(-0.1)) == Worth(0.0, 0.0)
    assert worth(np.zeros(100), np.ones(100), 1) == Worth(0.0, 0.0)


@pytest.mark.parametrize("horizon", [1, 12])
def test_too_few_moments_with_a_mean_tell_nothing_of_its_worth(horizon: int) -> None:
    enough = _LEAST_SPANS * horizon
    evidence = foretold(2.0)
    without = np.where(np.arange(600) < 600 - enough + 1, 0.0, evidence.power)
    assert evidence.newest(enough - 1).worth(horizon) is None
    assert replace(evidence, power=without).worth(horizon) is None
    assert evidence.newest(enough).worth(horizon) is not None
    assert Evidence.nothing().worth(horizon) is None


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_mean_that_is_no_number_is_worth_nothing(bad: float) -> None:
    evidence = foretold(0.5)
    product = np.where(np.arange(600) == 7, bad, evidence.product)
    assert replace(evidence, product=product).worth(1) == Worth(0.0, 0.0)
    power = np.where(np.arange(600) == 7, abs(bad), evidence.power)
    found = replace(evidence, product=product, power=power).worth(1)
    assert found is not None
    assert 0.0 <= found.shrinkage <= 1.0
    assert found.error >= 0.0


@given(DATES, DATES)
def test_another_mean_is_known_where_it_was_measured_and_nowhere_else(
    mine: list[int], theirs: list[int]
) -> None:
    before, other = dated(mine, 1.0), dated(theirs, 100.0)
    found = before.with_means(other.date_ms, other.product, other.power)
    for name in ("date_ms", "pinball", "gain", "gain_delayed"):
        assert getattr(found, name).tolist() == getattr(before, name).tolist()
    for name in ("product", "power"):
        measured = dict(zip(theirs, getattr(other, name).tolist(), strict=True))
        assert getattr(found, name).tolist() == [measured.get(date, 0.0) for date in mine]


def test_a_damaged_record_is_refused() -> None:
    whole = dated([1, 2, 3], 0.0)
    with pytest.raises(DataError, match="must rise"):
        replace(whole, date_ms=np.array([1, 1, 2]))
    with pytest.raises(DataError, match="equally long"):
        replace(whole, pinball=np.zeros(2))
    with pytest.raises(DataError, match=r"lacks the column\(s\) gain_delayed"):
        Evidence.from_arrays({n: c for n, c in whole.arrays().items() if n != "gain_delayed"})


def test_skill_must_survive_a_late_start() -> None:
    random = np.random.default_rng(0)
    skilled, luck = 0.3 + random.normal(size=500), random.normal(size=500) - 0.1
    good = Evidence(np.arange(500), np.ones(500), *[skilled] * 4)
    assert good.p_value(1) < 0.001
    assert replace(good, gain_delayed=luck).p_value(1) > 0.5
    assert replace(good, gain=luck).p_value(1) > 0.5


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12, 359])
def test_a_short_record_proves_no_skill(count: int) -> None:
    gains = 9.0 + np.random.default_rng(count).normal(size=count)
    assert record(np.ones(count), gains).p_value(12) == 1.0


def test_a_gain_that_is_no_number_proves_no_skill() -> None:
    gains = 9.0 + np.random.default_rng(0).normal(size=500)
    gains[7] = math.nan
    assert record(np.ones(500), gains).p_value(1) == 1.0
