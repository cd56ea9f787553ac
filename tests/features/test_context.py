"""What a candle is seen in depends on nothing later, on a bounded past, and on who asks for it not.

Candles of four hours keep days short: six of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series import change, drop, make_candles, same_bits

from lstm_model.durations import DAY_MS
from lstm_model.features.closed_candle import (
    FEATURES,
    WARM_UP,
    compute_features,
    feature_names,
    leading_columns,
)
from lstm_model.features.context import REACH_DAYS, SPANS, Contexts, Days, leader_of
from lstm_model.features.open_candle import OpenCandle
from lstm_model.market.candles import CONTEXT, LEADING, PAST, Candles, Floats, Records, Seen

LEADER, PAIR = "BTC/USDT", "ETH/USDT"
STEP_MS, A_DAY = DAY_MS // 6, 6
COUNT = WARM_UP + 80 * A_DAY
NAMES = [name for name in CONTEXT.names or () if name != "date_ms"]
PAST_FEATURES = [name for name in feature_names(False) if name.startswith(("volatility_", "park"))]


def slow(seed: int, pair: str = PAIR, count: int = COUNT) -> Candles:
    """Candles of four hours, from a midnight on."""
    candles = make_candles(count, pair=pair, seed=seed)
    dates = 19_000 * DAY_MS + STEP_MS * np.arange(count)
    return replace(candles, step_ms=STEP_MS, date_ms=dates)


MINE, LEADING_ONE = slow(0), slow(1, LEADER)
Known = Callable[[str], Candles | None]


def known_of(*series: Candles) -> Known:
    return {candles.pair: candles for candles in series}.get


def context_of(candles: Candles, *series: Candles) -> Records:
    return Contexts(LEADER).of(candles, known_of(*series))


def alike(one: Records, other: Records) -> bool:
    return all(same_bits(one[name], other[name]) for name in NAMES)


def rows_of(candles: Candles, leader: Candles) -> Floats:
    seen = candles.with_context(context_of(candles, candles, leader))
    return compute_features(seen.on_grid()).rows


WHOLE = context_of(MINE, MINE, LEADING_ONE)


# ---- looks back only -------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, COUNT))
def test_features_of_a_prefix_are_the_prefix_of_features(seed: int, stop: int) -> None:
    mine, leader = slow(seed), slow(seed + 1, LEADER)
    prefix = rows_of(mine.rows(0, stop), leader.rows(0, stop))
    assert same_bits(prefix, rows_of(mine, leader)[:stop])


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 80))
def test_a_row_does_not_know_where_the_series_began(seed: int, start: int) -> None:
    mine, leader = slow(seed), slow(seed + 1, LEADER)
    later = rows_of(mine.rows(start, COUNT), leader.rows(start, COUNT))
    warm = WARM_UP + REACH_DAYS * A_DAY
    assert len(later) > warm
    assert same_bits(later[warm:], rows_of(mine, leader)[start + warm :])


def test_a_leaders_candle_of_one_step_later_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_next(candles: Candles) -> Floats:
        columns = leading_columns(candles)
        return np.concatenate([columns[1:], columns[-1:]])

    monkeypatch.setattr("lstm_model.features.context.leading_columns", of_the_next)
    whole = rows_of(MINE, LEADING_ONE)
    stop = COUNT - 5
    prefix = rows_of(MINE.rows(0, stop), LEADING_ONE.rows(0, stop))
    unlike = {feature_names(False)[n] for n in np.flatnonzero(prefix[-1] != whole[stop - 1])}
    assert unlike == {f"leader_{name}" for name in LEADING}


def test_today_says_nothing_of_the_days_before() -> None:
    today = int(MINE.date_ms[-1]) // DAY_MS * DAY_MS
    first = int(np.searchsorted(MINE.date_ms, today))
    wild = change(MINE, slice(first, None), high=1e6, close=1e5)
    assert alike(context_of(wild, wild, LEADING_ONE), WHOLE)


# ---- the leader ------------------------------------------------------------------------------


def test_a_missing_candle_of_the_leader_masks_what_it_did_and_nothing_else() -> None:
    late = rows_of(MINE, LEADING_ONE.rows(0, COUNT - 1))
    whole = rows_of(MINE, LEADING_ONE)
    names = [f"leader_{name}" for name in (*LEADING, "known")]
    masked = [feature_names(False).index(name) for name in names]
    assert same_bits(late[:-1], whole[:-1])
    usual = [np.log(2.0) if "volume" in name else 0.0 for name in names]  # nothing particular
    assert late[-1, masked].tolist() == usual
    assert whole[-1, masked[-1]] == 1.0
    assert same_bits(np.delete(late[-1], masked), np.delete(whole[-1], masked))


def test_candles_that_only_fill_a_hole_of_the_leader_are_as_unknown_as_the_hole() -> None:
    """freqtrade fills it once there is a later candle; the bot had none when it forecast."""
    candles, leader = slow(1), slow(2, LEADER)
    hole = slice(700, 715)
    last = leader.close[699]
    filled = change(leader, hole, open=last, high=last, low=last, close=last, volume=0.0)
    then = context_of(candles.rows(0, 705), leader.rows(0, 700))
    afterwards = context_of(candles, filled)
    assert alike(then[700:], afterwards[700:705])
    assert np.isnan(afterwards["leader_return_1"][hole]).all()
    assert np.isfinite(afterwards["leader_return_1"][715:]).all()


def test_without_a_leader_or_its_candles_the_rows_are_known() -> None:
    for contexts in (Contexts(None), Contexts("X/USDT")):
        seen = MINE.with_context(contexts.of(MINE, known_of(MINE)))
        made = compute_features(seen)
        assert made.known[WARM_UP:].all()
        assert (made.rows[WARM_UP:, feature_names(False).index("leader_known")] == 0.0).all()


def test_the_leader_sees_itself() -> None:
    context = context_of(LEADING_ONE, LEADING_ONE)
    columns = leading_columns(LEADING_ONE)
    for number, name in enumerate(LEADING):
        assert same_bits(context[f"leader_{name}"], columns[:, number])


def test_others_see_the_leaders_own_features() -> None:
    made = compute_features(LEADING_ONE).rows
    for name in LEADING:
        own = made[:, [feature.name for feature in FEATURES].index(name)]
        assert same_bits(WHOLE[f"leader_{name}"], own), name


@pytest.mark.parametrize(
    ("named", "pairs", "leader"),
    [
        (None, ["ETH/USDT", "ADA/USDT"], "BTC/USDT"),
        (None, ["BTC/USDT"], "BTC/USDT"),
        (None, ["ETH/USDT:USDT"], "BTC/USDT:USDT"),
        (None, ["ETH/BTC"], None),
        (None, [], None),
        ("", ["ETH/USDT"], None),
        ("ETH/USDT", ["ADA/USDT"], "ETH/USDT"),
        ("ETH/USDT", [], "ETH/USDT"),
    ],
)
def test_bitcoin_leads_unless_another_is_named(
    named: str | None, pairs: list[str], leader: str | None
) -> None:
    assert leader_of(named, pairs) == leader


# ---- the days before -------------------------------------------------------------------------


def mean_square(candles: Candles, day: int, days: int) -> float:
    """The definition, slowly."""
    inside = (candles.date_ms >= (day - days) * DAY_MS) & (candles.date_ms < day * DAY_MS)
    moves = np.append(np.nan, np.diff(np.log(candles.close)))
    moves[np.append(True, np.diff(candles.date_ms) != candles.step_ms)] = np.nan
    return float(np.nanmean(moves[inside] ** 2))


def test_a_span_is_the_mean_square_of_its_days() -> None:
    for row in (COUNT - 1, COUNT - A_DAY, COUNT - 40):
        day = int(MINE.date_ms[row]) // DAY_MS
        for name, days in SPANS.items():
            assert WHOLE[name][row] == pytest.approx(mean_square(MINE, day, days), rel=1e-12)


@pytest.mark.parametrize(("missing", "is_known"), [(4, True), (5, False)])
def test_a_span_of_which_a_tenth_is_missing_is_unknown(missing: int, is_known: bool) -> None:
    """Of 42 candles of a week; a hole costs the candle after it too."""
    end = int(MINE.date_ms[-1]) // DAY_MS * DAY_MS
    first = int(np.searchsorted(MINE.date_ms, end)) - 20
    holed = drop(MINE, slice(first, first + missing - 1))
    context = context_of(holed, holed)
    assert np.isfinite(context["variance_7d"][-1]) == is_known
    assert np.isfinite(context["variance_30d"][-1])
    if is_known:
        wanted = mean_square(holed, end // DAY_MS, 7)
        assert context["variance_7d"][-1] == pytest.approx(wanted, rel=1e-12)


def test_a_history_that_begins_late_knows_each_span_once_it_is_that_long() -> None:
    young = MINE.rows(3, COUNT)  # its first day is not whole
    context = context_of(young, young)
    for name, days in SPANS.items():
        known = np.isfinite(context[name])
        first = young.date_ms[np.argmax(known)] // DAY_MS
        assert known[np.argmax(known) :].all()
        assert -1 <= first - (19_001 + days) <= 0  # nine tenths are enough


def test_days_that_follow_are_the_days_of_all() -> None:
    whole = Days.of(MINE)
    for stop in (10, 100, 101, 104, COUNT - 1):
        for overlap in (1, 8, 40):
            begun = Days.of(MINE.rows(0, stop))
            newer = Days.of(MINE.rows(max(0, stop - overlap), COUNT))
            joined = begun.then(newer)
            if newer.first <= begun.end:
                assert joined.first == whole.first
                for name in ("squared", "parkinson", "counts"):
                    assert same_bits(getattr(joined, name), getattr(whole, name))


def test_days_do_not_follow_from_less_than_a_day() -> None:
    begun = Days.of(MINE.rows(0, 100))
    part = MINE.rows(100, 103)
    assert begun.then(Days.of(part)) is begun


def test_candles_of_a_day_have_days_too() -> None:
    daily = replace(MINE, step_ms=DAY_MS, date_ms=19_000 * DAY_MS + DAY_MS * np.arange(COUNT))
    context = context_of(daily, daily)
    assert context["variance_1d"][-1] == pytest.approx(
        np.log(daily.close[-2] / daily.close[-3]) ** 2
    )
    week = replace(
        daily, step_ms=7 * DAY_MS, date_ms=daily.date_ms[0] + 7 * DAY_MS * np.arange(COUNT)
    )
    assert not np.isfinite(context_of(week, week)["variance_1d"]).any()


# ---- a running bot ---------------------------------------------------------------------------


class Bot:
    """Asks as a bot does: its data directory ends early, then it sees candle after candle."""

    def __init__(self, *series: Candles, on_disk: int, frame: int = 3 * A_DAY) -> None:
        self.series, self.frame = {candles.pair: candles for candles in series}, frame
        self.contexts, self.seen = Contexts(LEADER), dict[str, Candles]()
        self.disk = {candles.pair: candles.rows(0, on_disk) for candles in series}

    def known(self, pair: str) -> Candles | None:
        disk, seen = self.disk.get(pair), self.seen.get(pair)
        if disk is None or seen is None:
            return seen if disk is None else disk
        return disk.then(seen.between(int(disk.date_ms[-1]) + 1, 2**62))

    def show(self, row: int) -> None:
        for pair, candles in self.series.items():
            newest = candles.rows(max(0, row + 1 - self.frame), row + 1)
            self.seen[pair] = self.seen.get(pair, newest).then(newest)

    def ask(self, row: int, shown: int = 5) -> Records:
        self.show(row)
        mine = self.series[PAIR].rows(row + 1 - shown, row + 1)
        return self.contexts.of(mine, self.known, self.seen.get)


@pytest.mark.parametrize("frame", [A_DAY - 2, 3 * A_DAY, WARM_UP + 20])
def test_candle_by_candle_a_bot_knows_what_is_known_of_all(frame: int) -> None:
    begin = COUNT - 60
    bot = Bot(MINE, LEADING_ONE, on_disk=begin, frame=frame)
    for row in range(begin, COUNT):
        assert alike(bot.ask(row), WHOLE[row - 4 : row + 1]), row


def test_a_restart_forgets_nothing_that_is_on_disk() -> None:
    begin = COUNT - 60
    for start in range(begin, begin + 2 * A_DAY, 3):
        bot = Bot(MINE, LEADING_ONE, on_disk=start, frame=A_DAY)
        for row in range(start, start + 9):
            assert alike(bot.ask(row), WHOLE[row - 4 : row + 1]), (start, row)


def test_a_disk_that_ends_days_before_the_frame_leaves_a_hole_and_no_more() -> None:
    gap = slice(COUNT - 100, COUNT - 60)
    holed, leader = drop(MINE, gap), LEADING_ONE
    wanted = context_of(holed, holed, leader)
    bot = Bot(holed, leader, on_disk=COUNT - 100, frame=60)
    bot.disk[LEADER] = leader
    for row in range(len(holed) - 20, len(holed)):
        assert alike(bot.ask(row), wanted[row - 4 : row + 1]), row
    assert not np.isfinite(wanted["variance_7d"][-60 + 12])
    assert np.isfinite(wanted["variance_1d"][-1])


def test_a_pause_is_filled_from_disk_if_it_is_there() -> None:
    begin = COUNT - 60
    bot = Bot(MINE, LEADING_ONE, on_disk=begin, frame=A_DAY)
    bot.ask(begin)
    bot.seen.clear()
    bot.disk[PAIR], later = MINE.rows(0, COUNT - 12), COUNT - 11
    days = list(PAST)
    said, wanted = bot.ask(later), WHOLE[later - 4 : later + 1]
    assert all(same_bits(said[name], wanted[name]) for name in days)


def test_a_pair_that_returns_is_known_by_what_the_bot_knew_before() -> None:
    """The data directory is old; the bot was there meanwhile."""
    begin = COUNT - 60
    bot = Bot(MINE, LEADING_ONE, on_disk=begin, frame=A_DAY)
    for row in range(begin, COUNT - 14):
        bot.ask(row)
    bot.seen.clear()  # it left, and comes back with a frame that does not reach so far
    assert np.isfinite(bot.ask(COUNT - 2, shown=1)["variance_60d"]).all()


def test_what_a_bot_missed_is_healed_when_the_learner_finds_it() -> None:
    begin = COUNT - 60
    bot = Bot(MINE, LEADING_ONE, on_disk=begin - 60, frame=A_DAY)
    bot.disk[LEADER] = LEADING_ONE
    assert not np.isfinite(bot.ask(begin)["variance_7d"]).any()
    bot.contexts.of(MINE.rows(0, begin), known_of(MINE, LEADING_ONE))
    assert alike(bot.ask(begin + 1), WHOLE[begin - 3 : begin + 2])


def test_the_learners_questions_do_not_change_what_the_bot_knows() -> None:
    begin = COUNT - 60
    bot = Bot(MINE, LEADING_ONE, on_disk=begin)
    for row in range(begin, COUNT):
        assert alike(bot.ask(row), WHOLE[row - 4 : row + 1])
        if row % 7 == 0:  # of fewer candles, as a walk to an earlier boundary asks
            part = [candles.rows(0, begin - 50) for candles in (MINE, LEADING_ONE)]
            assert alike(bot.contexts.of(part[0], known_of(*part)), WHOLE[: begin - 50])
    assert bot.contexts._led is not None
    assert bot.contexts._led.until_ms == LEADING_ONE.date_ms[-1]


def test_a_leader_that_comes_late_is_known_from_then_on() -> None:
    begin = COUNT - 30
    bot = Bot(MINE, LEADING_ONE, on_disk=begin)
    bot.ask(begin)
    bot.series[LEADER] = LEADING_ONE.rows(0, begin + 1)
    said = bot.ask(begin + 1)
    assert np.isnan(said["leader_return_1"][-1])
    assert np.isfinite(said["leader_return_1"][:-1]).all()
    assert np.isfinite(said["variance_60d"]).all()
    bot.series[LEADER] = LEADING_ONE
    assert alike(bot.ask(begin + 2), WHOLE[begin - 2 : begin + 3])


# ---- the open candle -------------------------------------------------------------------------


def whole_candle(candles: Candles, number: int) -> Seen:
    prices = (float(getattr(candles, name)[number]) for name in ("open", "high", "low", "close"))
    volume = float(candles.volume[number])
    return Seen(int(candles.date_ms[number]), *prices, volume, 9.0, 1.0, 1.0, 1.0, 1.0, 0)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(COUNT - 2 * A_DAY, COUNT - 1))
def test_the_open_candle_that_has_passed_has_the_closed_candles_features(
    seed: int, number: int
) -> None:
    mine, leader = slow(seed), slow(seed + 1, LEADER)
    wanted = rows_of(mine, leader)[number]
    seen = [c.with_context(context_of(c, mine, leader)).rows(0, number) for c in (mine, leader)]
    first = OpenCandle(seen[1], order_flow=False, leads=True)
    own, _ = first.row(whole_candle(leader, number), passed=1.0)
    row, _ = OpenCandle(seen[0], order_flow=False).row(
        whole_candle(mine, number), passed=1.0, leading=first.led()
    )
    np.testing.assert_allclose(row, wanted, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(own, rows_of(leader, leader)[number], rtol=0.0, atol=1e-9)


def test_an_open_candle_without_a_leader_masks_it_and_nothing_else() -> None:
    seen = MINE.with_context(WHOLE).rows(0, COUNT - 1)
    candle = OpenCandle(seen, order_flow=False)
    row, _ = candle.row(whole_candle(MINE, COUNT - 1), passed=1.0)
    wanted = rows_of(MINE, LEADING_ONE)[-1]
    for name, mine, closed in zip(feature_names(False), row, wanted, strict=True):
        if name.startswith("leader_"):
            assert mine == (np.log(2.0) if "volume" in name else 0.0)
        else:
            assert mine == pytest.approx(closed, abs=1e-9), name


def test_spans_rise() -> None:
    assert all(short < long for short, long in pairwise(SPANS.values()))
