"""The learner's moves on hand-made states: who serves, who leaves, and what is learnt when."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instant_training import SETTINGS

from lstm_model.errors import DataError
from lstm_model.learning.contender import Contender, Labels, Seen, View
from lstm_model.learning.contender import scored as scored_together
from lstm_model.learning.drift import DriftWatch
from lstm_model.learning.learner import (
    State,
    Wish,
    admit,
    begin,
    decline,
    due,
    finetune_parent,
    judge,
    observe,
    review,
)
from lstm_model.learning.packing import pack, unpack
from lstm_model.learning.schedule import Schedule
from lstm_model.model.calibration import (
    CAUTION,
    POOLED,
    Calibration,
    Label,
    Widths,
    WidthTracker,
    pooled,
)
from lstm_model.model.dataset import Reached
from lstm_model.model.gate import Evidence, Worth, contest
from lstm_model.model.reliability import Kept
from lstm_model.scoring.evaluation import Outcomes

CANDLE = 300_000
SCHEDULE = Schedule.of(SETTINGS, "5m")
START = 120 * SCHEDULE.retrain_ms  # a boundary at which all rhythms meet
BOUNDARY = START + 7 * SCHEDULE.step_ms  # and one at which none does
LEVELS = SETTINGS.levels
HALF = len(LEVELS) // 2
NEUTRAL = Widths.neutral(LEVELS)
GROWN = NEUTRAL._replace(labels=20_000, usual=math.log(0.01))
SURE = Worth(1.0, 0.0)
PLAIN = Calibration(LEVELS, 1.0, 0.0, {POOLED: NEUTRAL, "BTC/USDT": GROWN})
BASE = np.array([-1.6, -1.2, -0.6, 0.0, 0.6, 1.2, 1.6])
LEADS = 0.292  # a loss that after 100 candles leads 0.3 by half of what it takes


def record(loss: float, *, count: int = 300, end_ms: int = BOUNDARY) -> Evidence:
    """A record of `count` candles until `end_ms`; the same noise for everyone, but a little."""
    random = np.random.default_rng(round(abs(loss) * 1_000))
    dates = end_ms - CANDLE * np.arange(count, 0, -1)
    pinball = loss + 0.02 * random.normal(size=count)
    return Evidence(dates, pinball, *np.zeros((4, count)))


def contender(
    version: str, kind: str = "scratch", loss: float = 0.3, **fields: object
) -> Contender:
    widths = {"BTC/USDT": GROWN}
    known = {"unseen_ms": 0, "entered_ms": BOUNDARY, "evidence": record(loss), "widths": widths,
             "widths_before": widths, "worth": SURE, "worth_before": SURE,
             "kept": Kept.nothing()} | fields  # fmt: skip
    return Contender(version, kind, **known)


def state_of(champion: Contender, *others: Contender, **fields: object) -> State:
    """A state whose first contender is the champion; a baseline is added where there is none."""
    contenders = (champion, *others)
    if all(c.kind != "baseline" for c in contenders):
        contenders = (*contenders, contender("zero", "baseline"))
    opening = begin(BOUNDARY, contenders[0])
    known = {"finetuned_ms": 0, "contenders": contenders} | fields
    return replace(opening, **known)


def versions(state: State) -> set[str]:
    return {c.version for c in state.contenders}


def kinds(events: list) -> list[tuple[str, str]]:
    return [(event.kind, event.version) for event in events]


def ringing() -> dict:
    """The state of a drift watch in alarm."""
    watch = DriftWatch(2.0 * LEVELS[0])
    for _ in range(40):
        watch.update("BTC/USDT", 3.0, True)
    assert watch.drift_detected
    return watch.state()


# The gate


def test_who_beats_the_champion_serves_and_the_old_champion_is_kept() -> None:
    before = state_of(contender("zero", "baseline"), contender("new", loss=0.2), drift=ringing())
    after, events = judge(before, SETTINGS)
    assert kinds(events) == [("promoted", "new")]
    assert (after.champion, after.predecessor) == ("new", "zero")
    assert after.promoted_ms == BOUNDARY
    assert after.drift == {}
    assert events[0].champion == "zero"
    assert events[0].gain == pytest.approx(0.1, abs=0.01)
    assert 0.0 < events[0].bound < events[0].gain


def test_a_tie_keeps_the_champion() -> None:
    before = state_of(contender("serving"), contender("other"), contender("zero", "baseline"))
    assert judge(before, SETTINGS) == (before, [])


@pytest.mark.parametrize("loss", [0.299, 0.301])
def test_a_difference_that_may_be_luck_decides_nothing(loss: float) -> None:
    before = state_of(contender("serving"), contender("other", loss=loss))
    assert judge(before, SETTINGS) == (before, [])


@pytest.mark.parametrize("other", ["predecessor", "baseline"])
def test_who_served_before_and_does_better_serves_again(other: str) -> None:
    known = contender("old", "scratch" if other == "predecessor" else "baseline", loss=0.2)
    predecessor = "old" if other == "predecessor" else None
    after, events = judge(state_of(contender("bad"), known, predecessor=predecessor), SETTINGS)
    assert kinds(events) == [("rolled back", "old")]
    assert (after.champion, after.predecessor) == ("old", "bad")


def test_a_worse_challenger_leaves_but_predecessor_and_baseline_stay() -> None:
    worse = [
        contender(v, k, 0.5) for v, k in (("c", "scratch"), ("p", "scratch"), ("z", "baseline"))
    ]
    after, events = judge(state_of(contender("serving"), *worse, predecessor="p"), SETTINGS)
    assert kinds(events) == [("rejected", "c")]
    assert versions(after) == {"serving", "p", "z"}


def test_of_several_that_are_better_the_surest_serves_and_the_others_go_on() -> None:
    better = [contender("some", loss=0.25), contender("much", "finetune", 0.1)]
    after, _ = judge(state_of(contender("serving"), *better), SETTINGS)
    assert after.champion == "much"
    assert "some" in versions(after)


@pytest.mark.parametrize(("kind", "stays"), [("scratch", False), ("baseline", True)])
def test_the_predecessor_before_the_predecessor_leaves(kind: str, stays: bool) -> None:
    oldest, new = contender("oldest", kind), contender("new", loss=0.2)
    after, _ = judge(state_of(contender("serving"), oldest, new, predecessor="oldest"), SETTINGS)
    assert (after.champion, after.predecessor) == ("new", "serving")
    assert ("oldest" in versions(after)) is stays


def test_what_was_before_a_promotion_does_not_count_against_it() -> None:
    since = BOUNDARY - 59 * CANDLE  # one too few for a verdict
    before = state_of(contender("bad"), contender("good", loss=0.1), promoted_ms=since)
    assert judge(before, SETTINGS) == (before, [])
    earlier = replace(before, promoted_ms=since - CANDLE)
    assert judge(earlier, SETTINGS)[0].champion == "good"


@pytest.mark.parametrize("who", ["champion", "challenger"])
def test_candles_that_either_has_learnt_from_do_not_count(who: str) -> None:
    learnt = {
        name: BOUNDARY - 59 * CANDLE if name == who else 0 for name in ("champion", "challenger")
    }
    serving = contender("serving", unseen_ms=learnt["champion"])
    other = contender("other", loss=0.1, unseen_ms=learnt["challenger"])
    before = state_of(serving, other)
    assert judge(before, SETTINGS) == (before, [])


def test_judging_again_changes_nothing() -> None:
    state, _ = judge(state_of(contender("serving"), contender("new", loss=0.1)), SETTINGS)
    assert judge(state, SETTINGS) == (state, [])


def test_a_record_that_is_no_number_loses_whoever_has_it() -> None:
    broken = replace(record(0.1), pinball=np.where(np.arange(300) == 150, np.nan, 0.1))
    nan = contender("nan", evidence=broken)
    _, events = judge(state_of(contender("serving"), nan), SETTINGS)
    assert kinds(events) == [("rejected", "nan")]
    assert (events[0].gain, events[0].bound) == (None, None)
    _, events = judge(state_of(nan, contender("zero", "baseline", 0.9)), SETTINGS)
    assert kinds(events) == [("rolled back", "zero")]
    json.dumps([event._asdict() for event in events], allow_nan=False)


def as_good_as(loss: float, of: Evidence) -> Evidence:
    """The same losses but for a constant: the surest verdict there is."""
    return replace(of, pinball=of.pinball + loss)


@pytest.mark.parametrize("gain", [0.0002, -0.0002])
@pytest.mark.parametrize("kind", ["scratch", "finetune", "baseline"])
def test_one_that_is_almost_the_champion_ties_however_sure_it_is(gain: float, kind: str) -> None:
    serving = contender("serving")
    twin = contender("twin", kind, evidence=as_good_as(-gain, serving.evidence))
    state = state_of(serving, twin, boundary_ms=START + SCHEDULE.finetune_ms)
    verdict = contest(twin.evidence, serving.evidence, 0, SETTINGS.horizon, 0.05)
    assert (verdict.better, verdict.worse) == (gain > 0.0, gain < 0.0)
    assert judge(state, SETTINGS) == (state, [])
    assert due(state, SETTINGS, SCHEDULE) == Wish("finetune")
    clear = contender("twin", kind, evidence=as_good_as(-5.0 * gain, serving.evidence))
    told = judge(state_of(serving, clear), SETTINGS)[1]
    assert bool(told) == (gain > 0.0 or kind != "baseline")


def turned_bad(count: int) -> tuple[Evidence, Evidence]:
    """A champion that was better than another for 5,000 candles, and is worse since `count`."""
    noise = np.random.default_rng(3).normal(size=(2, 6_000))[:, : 5_000 + count]
    lead = np.where(np.arange(5_000 + count) < 5_000, -0.04, 0.04)
    dates = BOUNDARY - CANDLE * np.arange(5_000 + count, 0, -1)
    champion, other = 0.3 + lead + 0.05 * noise[0], 0.3 + 0.05 * noise[1]
    plain = Evidence(dates, champion, *np.zeros((4, len(dates))))
    return plain, replace(plain, pinball=other)


@pytest.mark.parametrize("role", ["predecessor", "baseline"])
def test_a_champion_of_months_that_turns_bad_is_rolled_back_in_days_and_something_is_learnt(
    role: str,
) -> None:
    def after(count: int) -> tuple[State, list]:
        mine, theirs = turned_bad(count)
        kind = "scratch" if role == "predecessor" else "baseline"
        others = [contender("old", kind, evidence=theirs)]
        if role == "predecessor":
            others.append(contender("zero", "baseline", evidence=mine))
        served = {"promoted_ms": 1, "predecessor": "old" if role == "predecessor" else None}
        return judge(state_of(contender("serving", evidence=mine), *others, **served), SETTINGS)

    assert after(0)[1] == []
    waits = [count for count in range(0, 1_000, 50) if after(count)[1]]
    assert 50 <= waits[0] <= 400
    assert after(waits[0])[1][0].candles in (240, 480, 960)
    fallen, events = after(waits[0])
    assert kinds(events) == [("rolled back", "old")]
    assert fallen.owed == "finetune"
    assert due(fallen, SETTINGS, SCHEDULE) == Wish("finetune")
    assert kinds(judge(fallen, SETTINGS)[1]) == []


def test_a_challenger_is_judged_by_all_that_came_since_not_by_its_best_days() -> None:
    mine, theirs = turned_bad(400)
    zero = contender("zero", "baseline", evidence=mine)
    other = contender("other", evidence=theirs)
    state = state_of(contender("serving", evidence=mine), other, zero)
    assert kinds(judge(state, SETTINGS)[1]) == [("rejected", "other")]


def test_a_champion_that_falls_owes_no_fine_tuning_where_a_retraining_is_owed() -> None:
    zero = contender("zero", "baseline", 0.2)
    bad = state_of(contender("bad"), zero, promoted_ms=1, owed="scratch")
    assert judge(bad, SETTINGS)[0].owed == "scratch"
    assert judge(replace(bad, owed=None), SETTINGS)[0].owed == "finetune"


def test_a_promotion_owes_nothing() -> None:
    before = state_of(contender("serving"), contender("new", loss=0.2), promoted_ms=1)
    assert judge(before, SETTINGS)[0].owed is None


MOVES = st.lists(
    st.tuples(st.sampled_from(["scratch", "finetune", "tell"]), st.sampled_from([0.1, 0.3, 0.6])),
    max_size=12,
)


@pytest.mark.lengthy
@settings(max_examples=50)
@given(moves=MOVES)
def test_champion_predecessor_and_baseline_always_compete_and_few_others(moves: list) -> None:
    state = begin(BOUNDARY, contender("zero", "baseline"))
    for number, (move, loss) in enumerate(moves):
        end_ms = BOUNDARY + number * SCHEDULE.step_ms
        state = replace(state, boundary_ms=end_ms)
        if move in ("scratch", "finetune"):
            state, _ = admit(state, contender(f"{move}-{number}", move, loss), SETTINGS)
        else:
            target = state.contenders[number % len(state.contenders)]
            told = replace(target, evidence=record(loss, end_ms=end_ms))
            rest = tuple(told if c is target else c for c in state.contenders)
            state = replace(state, contenders=rest)
        state, _ = judge(state, SETTINGS)
        names = [c.version for c in state.contenders]
        assert len(set(names)) == len(names) <= 5
        assert {state.champion, "zero"} <= set(names)
        assert state.predecessor is None or state.predecessor in names
        assert state.predecessor != state.champion
        again = unpack(*pack(state))
        assert pack(again)[0] == pack(state)[0]


# What is due


def test_rhythms_and_debts_decide_what_is_learnt() -> None:
    plain = state_of(contender("net"))
    at = {
        "retraining": (replace(plain, boundary_ms=START), Wish("scratch")),
        "fine-tuning": (replace(plain, boundary_ms=START + SCHEDULE.finetune_ms), Wish("finetune")),
        "nothing": (plain, None),
        "owed scratch": (replace(plain, owed="scratch"), Wish("scratch")),
        "owed finetune": (replace(plain, owed="finetune"), Wish("finetune")),
    }
    found = {name: due(state, SETTINGS, SCHEDULE) for name, (state, _) in at.items()}
    assert found == {name: wish for name, (_, wish) in at.items()}


def test_the_baseline_alone_cannot_be_fine_tuned() -> None:
    alone = begin(START + SCHEDULE.finetune_ms, contender("zero", "baseline"))
    for state in (alone, replace(alone, owed="finetune"), replace(alone, drift=ringing())):
        assert due(state, SETTINGS, SCHEDULE) is None


def test_drift_asks_for_a_fine_tuning_once_the_cool_down_is_over() -> None:
    rest_ms = SETTINGS.drift_cooldown_candles * CANDLE
    drifted = state_of(contender("net"), drift=ringing(), finetuned_ms=BOUNDARY - rest_ms)
    wish = due(drifted, SETTINGS, SCHEDULE)
    assert wish is not None
    assert wish.kind == "finetune"
    assert "BTC/USDT" in wish.drift
    tired = replace(drifted, finetuned_ms=BOUNDARY - rest_ms + CANDLE)
    assert due(tired, SETTINGS, SCHEDULE) is None


def test_drift_alone_changes_no_champion() -> None:
    drifted = state_of(contender("net"), contender("other"), drift=ringing())
    assert judge(drifted, SETTINGS) == (drifted, [])


def test_a_fine_tuned_challenger_that_leads_is_left_to_prove_itself() -> None:
    calendar = START + SCHEDULE.finetune_ms
    leads, hardly, young, trails = (
        state_of(
            contender("net"),
            contender("tuned", "finetune", entered_ms=START, evidence=record(loss, count=count)),
            boundary_ms=calendar,
        )
        for loss, count in ((LEADS, 100), (0.298, 100), (LEADS, 59), (0.4, 100))
    )
    assert judge(leads, SETTINGS) == (leads, [])
    assert due(leads, SETTINGS, SCHEDULE) is None
    for state in (hardly, young, trails):
        assert due(state, SETTINGS, SCHEDULE) == Wish("finetune")


def test_a_lead_counts_for_the_time_of_a_retraining_and_only_for_the_calendar() -> None:
    calendar, tuned = START + SCHEDULE.finetune_ms, {"evidence": record(LEADS, count=100)}
    old = contender("tuned", "finetune", entered_ms=calendar - SCHEDULE.retrain_ms, **tuned)
    young = replace(old, entered_ms=old.entered_ms + CANDLE)
    late, early = (state_of(contender("net"), c, boundary_ms=calendar) for c in (old, young))
    assert due(late, SETTINGS, SCHEDULE) == Wish("finetune")
    assert due(early, SETTINGS, SCHEDULE) is None
    assert due(replace(early, owed="finetune"), SETTINGS, SCHEDULE) == Wish("finetune")
    wish = due(replace(early, drift=ringing()), SETTINGS, SCHEDULE)
    assert wish is not None
    assert wish.drift


def test_a_network_that_leads_from_scratch_does_not_stop_fine_tuning() -> None:
    other = contender("other", "scratch", evidence=record(LEADS, count=100))
    state = state_of(contender("net"), other, boundary_ms=START + SCHEDULE.finetune_ms)
    assert due(state, SETTINGS, SCHEDULE) == Wish("finetune")


def test_the_champion_is_fine_tuned_or_else_the_newest_network() -> None:
    networks = [contender("old", entered_ms=1), contender("new", entered_ms=2)]
    zero = contender("zero", "baseline", entered_ms=3)
    assert finetune_parent(state_of(networks[0], networks[1])) == networks[0]
    assert finetune_parent(state_of(zero, *networks)) == networks[1]
    assert finetune_parent(state_of(zero)) is None


# Letting in


def test_a_newcomer_takes_the_place_of_the_challenger_of_its_kind_alone() -> None:
    others = [contender(v, k) for v, k in (("s", "scratch"), ("f", "finetune"), ("p", "finetune"))]
    before = state_of(contender("net", "finetune"), *others, predecessor="p", owed="finetune")
    after, events = admit(before, contender("f2", "finetune"), SETTINGS)
    assert kinds(events) == [("rejected", "f"), ("trained", "f2")]
    assert versions(after) == {"net", "s", "p", "zero", "f2"}
    assert after.owed is None
    assert after.champion == "net"


@pytest.mark.parametrize("kind", ["scratch", "finetune"])
def test_a_fine_tuning_begins_the_cool_down_and_the_watch_anew(kind: str) -> None:
    before = state_of(contender("net"), drift=ringing(), finetuned_ms=5)
    after, _ = admit(before, contender("new", kind), SETTINGS)
    tuned = kind == "finetune"
    assert after.finetuned_ms == (BOUNDARY if tuned else 5)
    assert (after.drift == {}) is tuned


def test_a_fine_tuning_that_ended_where_it_began_is_told_but_does_not_compete() -> None:
    before = state_of(contender("net"), drift=ringing(), owed="finetune")
    after, events = decline(before, "same")
    assert kinds(events) == [("trained", "same"), ("rejected", "same")]
    assert after == replace(before, drift={}, owed=None, finetuned_ms=BOUNDARY)


def test_what_competes_already_is_not_let_in_twice() -> None:
    before = state_of(contender("net"), contender("new"), owed="scratch")
    assert admit(before, contender("new"), SETTINGS) == (replace(before, owed=None), [])


# Scoring


def labels_of(realized: np.ndarray, pairs: tuple[str, ...] = ("BTC/USDT",)) -> Labels:
    """Labels of every candle from `BOUNDARY` on; realized (N,) for each of the pairs."""
    count = len(realized)
    dates = np.tile(BOUNDARY + CANDLE * np.arange(count), len(pairs))
    index = np.repeat(np.arange(len(pairs), dtype=np.int32), count)
    values = np.tile(realized, len(pairs))
    lowest, highest = np.minimum(values, 0.0) - 0.3, np.maximum(values, 0.0) + 0.3
    outcomes, volatility = Outcomes(dates, values, values), np.full(len(values), 0.01)
    return Labels(pairs, index, outcomes, Reached(values, lowest, highest, volatility), CANDLE)


def with_reached(labels: Labels, **columns: np.ndarray) -> Labels:
    return replace(labels, reached=labels.reached._replace(**columns))


def learnt(net: Contender, labels: Labels, said: View) -> Contender:
    """The contender after these labels, alone."""
    return scored_together([Seen.of(net, labels, said, BOUNDARY)], labels, SETTINGS.horizon)[0]


def view(shift: float = 0.0, count: int = 40) -> View:
    return View(np.tile(BASE + shift, (count, 1)), PLAIN)


def observed(state: State, labels: Labels, views: dict[str, View]) -> State:
    end_ms = state.boundary_ms + SCHEDULE.step_ms
    return observe(state, end_ms, labels, views, SETTINGS, SCHEDULE)


OUTCOMES = np.random.default_rng(0).normal(size=40)


def test_everyone_is_scored_on_the_same_labels_by_what_they_said() -> None:
    before = state_of(contender("net"), contender("zero", "baseline"))
    said = {"net": View(OUTCOMES[:, None] + BASE / 2, PLAIN), "zero": view()}
    after = observed(before, labels_of(OUTCOMES), said)
    net, zero = (after.contender(v).evidence.since(BOUNDARY) for v in ("net", "zero"))
    assert after.boundary_ms == BOUNDARY + SCHEDULE.step_ms
    assert len(net) == len(zero) == 40
    assert (net.pinball < zero.pinball.mean()).all()
    assert net.gain == pytest.approx(OUTCOMES**2)
    assert zero.gain == pytest.approx(np.zeros(40))


def test_a_record_keeps_a_month_and_no_more() -> None:
    long = contender("net", evidence=record(0.3, count=9_990))
    after = observed(state_of(long), labels_of(OUTCOMES), {"net": view(), "zero": view()})
    kept = after.contender("net").evidence
    assert len(kept) == 10_000
    assert kept.date_ms[-1] == BOUNDARY + 39 * CANDLE


def test_widths_change_when_the_new_ones_began_to_serve() -> None:
    older, newer = (GROWN._replace(scales=(x,) * (HALF + 2)) for x in (0.0, 1.0))
    net = contender("net")
    net = replace(net, widths_before={"BTC/USDT": older}, widths={"BTC/USDT": newer})
    labels = labels_of(OUTCOMES)
    served_ms = BOUNDARY + 5 * CANDLE  # the lag
    seen = Seen.of(net, labels, view(), served_ms)
    width = seen.quantiles[:, -1] - seen.quantiles[:, 0]
    closes = labels.outcomes.date_ms + CANDLE
    assert width[closes < served_ms] == pytest.approx(3.2)
    assert width[closes >= served_ms] == pytest.approx(3.2 * math.e)
    assert (closes < served_ms).sum() == 4
    [after] = scored_together([seen], labels, SETTINGS.horizon)
    assert after.widths_before == net.widths
    assert after.widths != net.widths


def test_intervals_are_scored_with_the_tilt_of_their_own_volatility() -> None:
    steep = GROWN._replace(slopes=(0.5,) * (HALF + 2))
    net = contender("net", widths={"BTC/USDT": steep})
    wild = 0.01 * np.exp(np.linspace(-0.4, 0.4, 40))
    labels = with_reached(labels_of(OUTCOMES), volatility=wild)
    seen = Seen.of(net, labels, view(), BOUNDARY)
    width = seen.quantiles[:, -1] - seen.quantiles[:, 0]
    assert width == pytest.approx(3.2 * wild / 0.01)  # half of a log per half of a log


def test_a_pair_learns_from_its_own_labels_one_after_the_other() -> None:
    """What the learner comes to in steps is what tracking gives in one go."""
    net, labels = contender("net"), labels_of(OUTCOMES, ("BTC/USDT", "ETH/USDT"))
    labels = with_reached(labels, volatility=0.01 * np.exp(np.linspace(-1.0, 1.0, 80)))
    after = learnt(net, labels, view(count=80))
    first = WidthTracker(LEVELS, GROWN, SETTINGS.horizon)
    other = WidthTracker(LEVELS, pooled([GROWN]).cautious(), SETTINGS.horizon)
    outcomes = zip(*(column.tolist() for column in labels.reached), strict=True)
    for row, outcome in enumerate(outcomes):
        (first if row < 40 else other).update(BASE.tolist(), Label(*outcome))
    assert after.widths == {"BTC/USDT": first.widths, "ETH/USDT": other.widths}


def test_a_way_that_is_not_known_leaves_the_reaches_alone() -> None:
    labels = labels_of(OUTCOMES)
    blind = with_reached(labels, lowest=np.full(40, np.nan), highest=np.full(40, np.nan))
    known, unknown = (
        learnt(contender("net"), found, view()).widths["BTC/USDT"] for found in (labels, blind)
    )
    assert unknown.scales[HALF:] == GROWN.scales[HALF:] != known.scales[HALF:]
    assert unknown.scales[:HALF] == known.scales[:HALF]


def test_a_new_pair_begins_with_caution_and_one_that_left_is_forgotten() -> None:
    before = state_of(contender("net"))
    labels = labels_of(OUTCOMES[:1], ("ETH/USDT", "SOL/USDT"))
    said = {"net": view(count=2), "zero": view(count=2)}
    widths = observed(before, labels, said).contender("net").widths
    assert set(widths) == {"ETH/USDT", "SOL/USDT"}
    assert widths["ETH/USDT"].labels == 1
    wider = [scale + CAUTION for scale in NEUTRAL.scales]
    assert widths["ETH/USDT"].scales == pytest.approx(wider, abs=0.05)


def test_drift_is_watched_on_labels_that_do_not_overlap() -> None:
    """With a horizon of two, every second label: twice as many would ring twice as early."""
    shifted = np.full(40, 5.0)
    count = next(
        n
        for n in range(1, 41)
        if DriftWatch(
            0.1, observed(state_of(contender("net")), labels_of(shifted[:n]),
                          {"net": view(count=n), "zero": view(count=n)}).drift
        ).drift_detected
    )  # fmt: skip
    watch, needed = DriftWatch(2.0 * LEVELS[0]), 0
    while not watch.drift_detected:
        watch.update("BTC/USDT", 5.0, True)
        needed += 1
    assert count == 2 * needed - 1


# What a mean is worth

SIGNAL = np.random.default_rng(4).normal(size=400)
FORETOLD = SIGNAL + np.random.default_rng(5).normal(size=400)


def foretells(sign: float) -> View:
    return View(sign * SIGNAL[:, None] + BASE, PLAIN)


def unproven(shrinkage: float, **fields: object) -> Contender:
    known = Worth(shrinkage, 0.5)
    return contender(
        "net", **{"evidence": Evidence.nothing(), "worth": known, "worth_before": known} | fields
    )


def scored(net: Contender, said: View, count: int = 400) -> Contender:
    raw = View(said.raw[:count], said.calibration)
    labels = labels_of(FORETOLD[:count])
    return learnt(net, labels, raw)


def test_a_mean_that_proves_its_worth_is_served_from_the_next_step_on() -> None:
    """The labels that prove it were forecast with what was known before."""
    after = scored(unproven(0.0, worth_before=Worth(0.7, 0.1)), foretells(1.0))
    assert after.worth.shrinkage > 0.7
    assert 0.03 < after.worth.error < 0.2
    assert after.worth_before == Worth(0.0, 0.5)
    assert not after.evidence.gain.any()
    calibration = after.calibration(PLAIN)
    assert (calibration.shrinkage, calibration.shrinkage_error) == after.worth
    again = scored(replace(after, evidence=Evidence.nothing()), foretells(1.0))
    assert again.evidence.gain.mean() > 0.5


@pytest.mark.parametrize("said", [foretells(-1.0), View(np.tile(BASE + 1.0, (400, 1)), PLAIN)])
def test_a_mean_that_is_wrong_is_served_no_longer(said: View) -> None:
    assert scored(unproven(1.0), said).worth == Worth(0.0, 0.0)


@pytest.mark.parametrize("shrinkage", [0.0, 0.4, 1.0])
def test_what_a_mean_was_worth_stands_until_enough_is_known(shrinkage: float) -> None:
    assert scored(unproven(shrinkage), foretells(1.0), 59).worth == Worth(shrinkage, 0.5)
    found = scored(unproven(shrinkage), foretells(1.0), 60).worth
    assert found.shrinkage not in (0.0, 0.4, 1.0)
    assert found.error != 0.5


def test_the_baseline_never_gets_a_mean() -> None:
    zero = replace(unproven(0.0), kind="baseline")
    assert scored(zero, foretells(1.0)).worth == zero.worth


def test_what_a_mean_was_worth_before_the_newest_weeks_counts_no_more() -> None:
    moments = BOUNDARY - CANDLE * np.arange(5_000, 0, -1)
    product = np.where(np.arange(5_000) < 1_000, 9.0, -0.1)
    noise = np.random.default_rng(0).normal(size=5_000)
    long = Evidence(moments, *np.ones((3, 5_000)), product + noise, np.ones(5_000))
    found = long.worth(SETTINGS.horizon)
    assert found is not None
    assert found.shrinkage > 0.9
    assert scored(unproven(1.0, evidence=long), foretells(1.0), 1).worth.shrinkage == 0.0
    entering = Contender.entering("new", "scratch", 0, BOUNDARY, PLAIN, long, SETTINGS.horizon)
    assert entering.worth == entering.worth_before == Worth(0.0, 0.0)


@pytest.mark.parametrize(("kind", "count"), [("scratch", 59), ("baseline", 300)])
def test_who_enters_without_a_record_of_its_mean_is_read_as_it_was_made(
    kind: str, count: int
) -> None:
    made = replace(PLAIN, shrinkage=0.25, shrinkage_error=0.125)
    known = Evidence(np.arange(count), *np.ones((5, count)))
    entering = Contender.entering("new", kind, 0, BOUNDARY, made, known, SETTINGS.horizon)
    assert entering.worth == entering.worth_before == Worth(0.25, 0.125)
    assert entering.widths == entering.widths_before == {"BTC/USDT": GROWN}


def test_a_mean_changes_when_its_new_worth_began_to_serve() -> None:
    labels, served_ms = labels_of(OUTCOMES), BOUNDARY + 5 * CANDLE
    net = contender("net", worth=Worth(0.5, 0.1), worth_before=Worth(0.0, 0.0))
    seen = Seen.of(net, labels, view(shift=1.0), served_ms)
    late = labels.outcomes.date_ms + CANDLE >= served_ms
    assert seen.mean[~late] == pytest.approx(np.zeros(4), abs=1e-12)
    assert seen.mean[late] == pytest.approx(np.full(36, 0.5))
    assert seen.raw_mean == pytest.approx(np.ones(40))
    middle = len(LEVELS) // 2
    assert seen.quantiles[:, middle] == pytest.approx(seen.mean)


def test_what_a_mean_is_worth_is_kept_on_disk() -> None:
    net = replace(scored(unproven(0.0), foretells(1.0)), version="net")
    again = unpack(*pack(state_of(net))).contender("net")
    assert (again.worth, again.worth_before) == (net.worth, Worth(0.0, 0.5))
    assert isinstance(again.worth, Worth)
    assert again.evidence.worth(SETTINGS.horizon) == net.worth
    assert again.evidence.product.any()


def test_widths_are_kept_on_disk_bit_by_bit() -> None:
    net = replace(scored(unproven(0.0), foretells(1.0)), version="net")
    record_, arrays = pack(state_of(net))
    kept = unpack(json.loads(json.dumps(record_)), arrays).contender("net")
    assert (kept.widths, kept.widths_before) == (net.widths, net.widths_before)
    assert kept.widths != kept.widths_before
    assert isinstance(kept.widths["BTC/USDT"], Widths)


def test_pairs_that_nobody_knows_are_forecast_with_the_mean_of_the_known_and_caution() -> None:
    one, other = (GROWN._replace(scales=(x,) * (HALF + 2)) for x in (0.0, 1.0))
    net = contender("net", widths={"BTC/USDT": one, "ETH/USDT": other})
    made = net.calibration(PLAIN)
    assert made.widths[POOLED] == pooled([one, other])
    assert made.widths_of("NEW/USDT") == pooled([one, other]).cautious()
    assert replace(net, widths={}).calibration(PLAIN).widths == {POOLED: NEUTRAL}


BROKEN = {
    "all": (slice(None), slice(None), math.nan),
    "one row": (7, slice(None), math.nan),
    "one number": (7, 2, math.nan),
    "endless": (slice(None), 6, math.inf),
    "endless below": (7, slice(None), -math.inf),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_network_that_answers_no_number_disturbs_nobody_and_leaves(how: str) -> None:
    rows, columns, value = BROKEN[how]
    raw = np.tile(BASE, (70, 1))
    raw[rows, columns] = value
    labels = labels_of(np.random.default_rng(1).normal(size=70))
    sound = {name: view(count=70) for name in ("net", "zero")}
    nan = contender("nan", evidence=Evidence.nothing())
    alone = observed(state_of(contender("net")), labels, sound)
    beside = observed(state_of(contender("net"), nan), labels, sound | {"nan": View(raw, PLAIN)})
    assert beside.drift == alone.drift
    for version in sound:
        mine, theirs = beside.contender(version), alone.contender(version)
        assert mine.widths == theirs.widths
        assert (mine.evidence.pinball == theirs.evidence.pinball).all()
    json.dumps(pack(beside)[0], allow_nan=False)
    assert beside.contender("nan").evidence.p_value(SETTINGS.horizon) == 1.0
    after, events = judge(beside, SETTINGS)
    assert kinds(events) == [("rejected", "nan")]
    assert after.champion == "net"


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_champion_that_answers_no_number_makes_way_and_spoils_nothing() -> None:
    labels = labels_of(np.random.default_rng(1).normal(size=70))
    raw = np.full((70, len(LEVELS)), math.nan)
    said = {"net": View(raw, PLAIN), "zero": view(count=70)}
    broken = observed(state_of(contender("net", evidence=Evidence.nothing())), labels, said)
    json.dumps(pack(broken)[0], allow_nan=False)
    after, events = judge(broken, SETTINGS)
    assert kinds(events) == [("rolled back", "zero")]
    assert after.champion == "zero"


# How the intervals have held


def kept_of(*inside: float, runs: int = 300) -> Kept:
    """A record in which each number holds for `runs` candles, every run wilder than the last."""
    share = np.repeat(np.array(inside, np.float64), runs)
    dates = START - CANDLE * np.arange(len(share), 0, -1)
    return Kept(dates, share, np.repeat(np.arange(len(inside), dtype=np.float64), runs))


def reviewed(champion: Contender, *others: Contender, at_ms: int = START) -> list:
    return review(replace(state_of(champion, *others), boundary_ms=at_ms), SCHEDULE)


def test_at_a_retraining_it_is_told_how_the_champions_intervals_held_beside_the_baselines() -> None:
    net = contender("net", kept=kept_of(1.0, 0.8))
    zero = contender("zero", "baseline", kept=kept_of(0.95, runs=100))
    other = contender("other", kept=kept_of(0.5))
    [event] = reviewed(net, other, zero)
    assert (event.kind, event.at_ms) == ("calibration", START)
    assert (event.version, event.champion) == ("net", "net")
    assert event.text == (
        "inside its widest interval were 90.0% over 600 candles, 80.0% in the worst fifth by "
        "volatility, 80.0% in the worst 250; of the baseline 95.0% over 100 candles"
    )


def test_a_baseline_that_serves_is_not_compared_with_itself() -> None:
    [event] = reviewed(contender("zero", "baseline", kept=kept_of(0.95, runs=100)))
    assert event.text == "inside its widest interval were 95.0% over 100 candles"


def test_of_intervals_nothing_is_told_between_retrainings_or_before_any_was_kept() -> None:
    net = contender("net", kept=kept_of(1.0))
    for at_ms in (BOUNDARY, START + SCHEDULE.step_ms, START + SCHEDULE.finetune_ms):
        assert reviewed(net, at_ms=at_ms) == []
    assert reviewed(net, at_ms=START + SCHEDULE.retrain_ms) != []
    assert reviewed(contender("net", kept=Kept.nothing())) == []


def test_a_network_that_serves_at_once_is_told_beside_a_baseline_that_never_forecast() -> None:
    [event] = reviewed(contender("net", kept=kept_of(1.0, runs=10)))
    assert event.text.endswith("100.0% over 10 candles; of the baseline unknown over 0 candles")


def test_an_outcome_counts_as_inside_by_the_interval_that_was_served_then() -> None:
    older, newer = (GROWN._replace(scales=(x,) * (HALF + 2)) for x in (-1.0, 1.0))
    pairs = ("BTC/USDT", "ETH/USDT")
    net = contender("net", widths=dict.fromkeys(pairs, newer))
    net = replace(net, widths_before=dict.fromkeys(pairs, older))
    realized = np.full(40, 1.5)  # between 1.6 / e and 1.6
    labels = labels_of(realized, pairs)
    labels = with_reached(labels, realized=np.where(labels.pair_index == 1, 0.0, 1.5))
    both = View(np.tile(BASE, (80, 1)), PLAIN)
    after = observed(state_of(net), labels, {"net": both, "zero": both}).contender("net").kept
    served = BOUNDARY + SCHEDULE.lag_ms <= after.date_ms + CANDLE
    assert after.date_ms.tolist() == sorted(set(labels.outcomes.date_ms.tolist()))
    assert 0 < served.sum() < 40
    assert after.inside.tolist() == np.where(served, 1.0, 0.5).tolist()
    assert after.log_volatility == pytest.approx(np.full(40, math.log(0.01)))


def test_an_outcome_at_the_very_end_of_an_interval_is_inside_and_beyond_it_is_not() -> None:
    ends = np.array([-1.6, 1.6, -1.61, 1.61])
    after = observed(state_of(contender("net")), labels_of(ends), dict.fromkeys(
        ("net", "zero"), view(count=4)))  # fmt: skip
    assert after.contender("net").kept.inside.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_how_intervals_held_is_kept_on_disk_and_goes_on_there() -> None:
    net = contender("net", kept=kept_of(1.0, 0.75))
    state = unpack(*pack(state_of(net, contender("new"))))
    again = state.contender("net").kept
    for name in ("date_ms", "inside", "log_volatility"):
        assert getattr(again, name).tobytes() == getattr(net.kept, name).tobytes()
    assert len(state.contender("new").kept.date_ms) == 0
    said = dict.fromkeys(("net", "new", "zero"), view())
    after = observed(state, labels_of(OUTCOMES), said)
    assert [len(after.contender(v).kept.date_ms) for v in said] == [640, 40, 40]


def test_who_enters_has_kept_nothing() -> None:
    entered = Contender.entering("new", "finetune", START, START, PLAIN, record(0.3), 2)
    assert len(entered.kept.date_ms) == 0


def test_a_record_without_a_column_is_refused_by_name() -> None:
    record_, arrays = pack(state_of(contender("net")))
    del arrays["net/kept_inside"]
    with pytest.raises(DataError, match="lacks the column 'kept_inside'"):
        unpack(record_, arrays)
