"""Live equals backtest, bit for bit: across steps, promotions, roll-backs, holes and pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from instant_training import SETTINGS, InstantTraining, make_learning, make_terms
from live_world import (  # noqa: F401 - three fixtures
    COUNT,
    FIRST,
    FRAME,
    LAG,
    OTHER,
    PAIR,
    PROMOTION,
    SERIES,
    STORY,
    STORY_FIRST,
    STORY_LAST,
    STORY_SETTINGS,
    SWITCH,
    TRAINER,
    Bot,
    backtest,
    boundary_ms,
    chain,
    close_of,
    differences,
    easy_to_beat,
    facts,
    instant_training,
    is_forecast,
    learning_has_ended,
    row_of,
    running_bot,
)
from series import START_MS, STEP_MS, change, drop, make_candles, recorded_candles, with_flow

from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.learning.packing import unpack
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Candles
from lstm_model.model.calibration import HASTE, POOLED, Widths
from lstm_model.settings import Settings
from lstm_model.store.steps import StepStore
from lstm_model.trading.outlook import Frame, Outlook, trust
from lstm_model.trading.sizing import CALIBRATING, NO_DATA, NO_SKILL


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Outlook:
    """A backtest over everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        return backtest(tmp_path_factory.mktemp("past"))


@pytest.mark.lengthy
def test_the_live_row_is_the_backtest_row_bit_for_bit(bot: Bot, past: Outlook) -> None:
    live = bot.run(FIRST, SWITCH + 20) | bot.run(SWITCH + 35, SWITCH + 50)
    assert differences(live, past) == []
    assert {said["lstm_side"] for said in live.values()} == {1, -1}
    assert len({said["version"] for said in live.values()}) == 1


@pytest.mark.lengthy
def test_the_live_row_is_the_backtest_row_across_a_promotion(bot: Bot, past: Outlook) -> None:
    bot.look(FIRST)
    live = bot.run(PROMOTION - 2, PROMOTION + LAG + 5)
    assert differences(live, past) == []
    assert len({said["version"] for said in live.values()}) == 2


@pytest.mark.lengthy
def test_live_tells_the_story_of_the_backtest_from_candles_it_only_remembers(
    tmp_path: Path,
) -> None:
    """A promotion, a roll-back, a fine-tuning that is promoted; a step every 50 candles."""
    disk = {candles.pair: candles.rows(0, STORY_FIRST) for candles in STORY}
    bot = Bot(tmp_path / "live", STORY, STORY_SETTINGS, disk=disk.get).start(STORY_FIRST)
    live = {}
    for row in range(STORY_FIRST, STORY_LAST):
        if row % 50 in (0, LAG - 2, LAG - 1, LAG, 30, 49):
            live |= bot.run(row, row + 1)
        if row % 50 in (30, 49):
            bot.listen(row)
    bot.stop()
    past = backtest(tmp_path / "past", STORY, STORY_FIRST, STORY_SETTINGS, STORY_LAST)
    assert differences(live, past) == []
    assert {said["lstm_side"] for said in live.values()} == {1, 0, -1}
    kinds = [row.kind for row in bot.decisions()]
    assert [kind for kind in kinds if kind in ("promoted", "rolled back")] == [
        "promoted", "rolled back", "promoted",
    ]  # fmt: skip
    steps = chain(tmp_path / "chain", STORY, 1_350, 1_850, STORY_SETTINGS)
    assert bot.steps == {row_of(step.boundary_ms): step.address for step in steps}
    assert {step.model.card.kind for step in steps} == {"baseline", "scratch", "finetune"}


@pytest.mark.lengthy
def test_the_decision_is_that_of_the_step_in_force_not_of_the_newest(tmp_path: Path) -> None:
    """Between a boundary and the lag after it the newest step knows more of the champion."""
    learning = make_learning(tmp_path / "find", SERIES, followed=[PAIR, OTHER])
    p_values = {
        row_of(step.boundary_ms): step.model.p_value
        for step in chain(tmp_path / "find", SERIES, 1_500, 1_650)
    }
    assert learning.schedule.lag_ms == LAG * STEP_MS
    between = (p_values[1_550] + p_values[1_600]) / 2  # proven at one of the two alone
    settings = SETTINGS.model_copy(update={"skill_p_value": between})
    bot = Bot(tmp_path / "live", settings=settings).start()
    live = bot.run(SWITCH - LAG, SWITCH + 5)
    kept = facts(bot.engine.outlook(bot.frame()), -1 - LAG - 3)
    bot.stop()
    past = backtest(tmp_path / "past", settings=settings)
    assert differences(live, past) == []
    assert kept == live[SWITCH + 4 - LAG - 3]
    assert len({said["lstm_reason"] == NO_SKILL for said in live.values()}) == 2


@pytest.mark.lengthy
def test_what_a_mean_is_worth_changes_with_the_step_in_force_and_with_nothing_else(
    bot: Bot, past: Outlook
) -> None:
    bot.look(FIRST)
    live = bot.run(SWITCH - 1, SWITCH + 1)
    before, after = (step.model for step in bot.engine._learning.steps[-2:])
    assert before.card.version == after.card.version
    assert before.calibration.shrinkage_error != after.calibration.shrinkage_error
    assert differences(live, past) == []
    seen = bot.maker.history.with_context(bot.frame())
    features, ends = Frame(seen, SETTINGS).features, np.array([FRAME - 2, FRAME - 1])
    for model, end, row in zip((before, after), ends, live, strict=True):
        made = model.forecast(PAIR, features.rows, features.volatility, ends[ends == end])
        assert made.mean.tobytes() == live[row]["lstm_mean"]


@pytest.mark.lengthy
def test_the_live_row_is_the_backtest_row_with_holes_and_empty_candles(tmp_path: Path) -> None:
    empty = change(SERIES[0], FIRST + 20, volume=0.0)
    holed = drop(change(empty, FIRST - 380, close=np.nan), FIRST - 385)
    series = [holed, SERIES[1]]
    bot = Bot(tmp_path / "live", series).start()
    live = bot.run(FIRST, FIRST + 40)
    bot.stop()
    past = backtest(tmp_path / "past", series, FIRST - 1)
    assert differences(live, past) == []
    assert [row for row in live if live[row]["lstm_reason"] == NO_DATA] == [FIRST + 20]
    nothing_due = [row for row in live if np.isnan(np.frombuffer(live[row]["lstm_due_low"])[0])]
    assert nothing_due == [FIRST + 20 + SETTINGS.horizon]


@pytest.mark.lengthy
def test_an_outage_that_leaves_too_little_to_fine_tune_on_means_the_same_to_both(
    tmp_path: Path,
) -> None:
    """A fine-tuning is due at candle 1,600; of the 200 candles before, half are missing."""
    series = [drop(candles, slice(1_450, 1_575)) for candles in SERIES]
    bot = Bot(tmp_path / "live", series).start(1_590)
    live = bot.run(1_598, SWITCH + 5)
    bot.stop()
    assert "training failed" in [row.kind for row in bot.decisions()]
    past = backtest(tmp_path / "past", series, 1_590 - 125, stop=1_700)
    assert differences(live, past) == []


@pytest.mark.lengthy
def test_the_live_row_is_the_backtest_row_with_order_flow(tmp_path: Path) -> None:
    """freqtrade hands over candles without it; both engines must find it again."""
    series = [with_flow(candles, seed=n) for n, candles in enumerate(SERIES)]
    settings = Settings.model_validate(SETTINGS.model_dump() | {"order_flow": True})
    bot = Bot(tmp_path / "live", series, settings)
    bot.frame = lambda pair=PAIR: replace(Bot.frame(bot, pair), flow=None)  # type: ignore[method-assign]
    live = bot.start().run(SWITCH - 10, SWITCH + 10)
    bot.stop()
    handed = replace(series[0].between(close_of(FIRST - 1), 2**62), flow=None)
    known = make_learning(tmp_path / "past", series, settings)
    past = WalkForwardEngine(known, make_terms(settings)).outlook(handed, skip=0)
    assert differences(live, past) == []
    blind = [replace(candles, flow=None) for candles in series]
    disk = {candles.pair: candles for candles in series}
    blind_learning = make_learning(tmp_path / "past", blind, settings, disk.get)
    unknown = WalkForwardEngine(blind_learning, make_terms(settings)).outlook(handed, skip=0)
    assert differences(live, unknown) != []


def test_the_live_row_is_the_backtest_row_on_recorded_candles(tmp_path: Path) -> None:
    whole = recorded_candles(PAIR, "5m")
    series = [whole.between(START_MS, close_of(2_700))]
    settings = SETTINGS.model_copy(update={"train_candles": 2_000, "retrain_candles": 1_000})
    origin = row_of(Schedule.of(settings, "5m").origin_of(close_of(2_600)))
    first = origin + LAG + 5
    bot = Bot(tmp_path / "live", series, settings).start(first)
    live = bot.run(first, first + 10) | bot.run(origin + 50, origin + 60)
    bot.stop()
    past = backtest(tmp_path / "past", series, first, settings, 2_700)
    assert differences(live, past) == []
    assert all(said["version"] for said in live.values())


@pytest.mark.lengthy
def test_a_step_waits_for_the_last_candle_of_its_data(tmp_path: Path) -> None:
    """`tick` comes before the analysis of the candle that has just closed."""
    boundary = SWITCH - LAG + 1
    disk = {candles.pair: candles.rows(0, boundary - 3) for candles in SERIES}
    bot = Bot(tmp_path / "live", disk=disk.get).start()
    for row in range(boundary - 3, boundary + 2):
        bot.look(row)
        bot.listen(row)
        assert (boundary in bot.steps) == (row > boundary - 1)
    bot.stop()
    assert bot.steps[boundary] == chain(tmp_path / "chain", SERIES, 1_500, boundary)[-1].address


@pytest.mark.lengthy
def test_pairs_are_forecast_each_on_its_own_candles(bot: Bot, tmp_path: Path) -> None:
    live = bot.run(FIRST, FIRST + 5, pair=OTHER)
    assert differences(live, backtest(tmp_path / "past", pair=OTHER, stop=FIRST + 9)) == []


@pytest.mark.lengthy
def test_a_first_start_in_the_lag_after_a_boundary_serves_the_step_before(
    bot: Bot, past: Outlook
) -> None:
    first = SWITCH - LAG // 2
    live = bot.run(first, SWITCH + 2)
    assert is_forecast(bot.engine.outlook(bot.frame()))[-1]
    assert differences(live, past) == []


@pytest.mark.lengthy
def test_every_candle_is_scored_once_and_none_is_left_out(tmp_path: Path) -> None:
    steps = chain(tmp_path, SERIES, 1_500, 1_650)
    loaded = StepStore(tmp_path).load(steps[-1].address)
    assert loaded is not None
    [baseline] = [it for it in unpack(*loaded).contenders if it.kind == "baseline"]
    scored = baseline.evidence.date_ms
    assert set(np.diff(scored)) == {STEP_MS}
    acted_late_ms = int(scored[-1]) + (SETTINGS.horizon + 2) * STEP_MS
    assert acted_late_ms == steps[-1].boundary_ms


# ---------------------------------------------------------------- pairs come and go

NEW = "NEW/USDT"
LISTED = replace(make_candles(COUNT, signal=2.0, seed=2), pair=NEW)


def widths(bot: Bot, pair: str) -> Widths | None:
    return bot.engine._learning.steps[-1].model.calibration.widths.get(pair)


@pytest.mark.lengthy
def test_a_new_pair_is_forecast_at_once_with_caution_and_enters_once_it_is_calibrated(
    bot: Bot,
) -> None:
    bot.look(FIRST)
    calibration = bot.engine._learning.steps[-1].model.calibration
    assert calibration.widths_of(NEW) == calibration.widths[POOLED].cautious()
    bot.series[NEW] = LISTED
    wary = bot.close_candle(FIRST + 1, NEW)
    model = replace(bot.engine._learning.steps[-1].model, calibration=calibration)
    seen = bot.maker.history.with_context(bot.frame(NEW))
    features, ends = Frame(seen, SETTINGS).features, np.array([FRAME - 1])
    made = model.forecast(NEW, features.rows, features.volatility, ends)
    assert made.quantiles[0].tobytes() == wary.forecast.quantiles[-1].tobytes()
    assert made.lowest[0] == wary.forecast.lowest[-1]
    assert (wary.decision.reason[-1], wary.trust[-1]) == (CALIBRATING, 0.0)
    bot.look(SWITCH)
    own = widths(bot, NEW)
    assert own is not None
    assert own.labels > HASTE * SETTINGS.horizon
    known = bot.close_candle(SWITCH, NEW)
    assert known.decision.gate[-1] == ""
    assert known.decision.side[-1] != 0
    assert known.trust[-1] == trust(own.labels, SETTINGS.horizon) < 1.0


@pytest.mark.lengthy
def test_a_pair_that_leaves_is_forgotten(bot: Bot) -> None:
    bot.series[NEW] = LISTED
    bot.close_candle(FIRST, NEW)
    assert widths(bot, NEW) is not None
    del bot.series[NEW]
    bot.look(SWITCH)
    assert widths(bot, NEW) is None
    assert NEW not in bot.maker.history._recent
    assert widths(bot, PAIR) is not None


# ---- the leader ------------------------------------------------------------------------------


UNLED = [SERIES[1], make_candles(COUNT, signal=2.0, seed=3, pair="ADA/USDT")]


class Led(Bot):
    """A bot whose whitelist lacks the pair that leads; the learner learns from `pairs` alone."""

    late: frozenset[int] = frozenset()  # candles of the leader that are not there in time

    def everything_closed(self, pair: str) -> Candles | None:
        if pair == PAIR:
            return SERIES[0].between(0, self.close_ms)
        return super().everything_closed(pair)

    def look(self, row: int) -> None:
        super().look(row)
        until_ms = self.close_ms - (STEP_MS if row in self.late else 0)
        self.engine.lead(SERIES[0].between(self.close_ms - FRAME * STEP_MS, until_ms))


def led_backtest(root: Path, series: Sequence[Candles], pair: str = OTHER) -> Outlook:
    disk = {candles.pair: candles for candles in (*series, SERIES[0])}
    learning = make_learning(root, series, SETTINGS, disk.get, [c.pair for c in series])
    mine = disk[pair].rows(FIRST - SETTINGS.horizon, FIRST + 80)
    return WalkForwardEngine(learning, make_terms(SETTINGS)).outlook(mine, SETTINGS.horizon)


@pytest.mark.lengthy
def test_a_leader_that_is_not_on_the_whitelist_is_seen_live_as_in_a_backtest(
    tmp_path: Path,
) -> None:
    bot = Led(tmp_path / "live", UNLED).start()
    assert bot.engine.leader == PAIR
    live = bot.run(FIRST, SWITCH + 5, OTHER)
    bot.stop()
    past = led_backtest(tmp_path / "past", UNLED)
    assert differences(live, past) == []
    seen = bot.maker.history.with_context(bot.frame(OTHER))
    assert np.isfinite(seen.context["leader_return_1"][-1])
    unled = SETTINGS.model_copy(update={"leader": ""})
    alone = backtest(tmp_path / "alone", UNLED, FIRST, unled, FIRST + 80, OTHER)
    assert differences(live, alone) != []


@pytest.mark.lengthy
def test_what_a_pair_is_seen_in_does_not_depend_on_who_else_is_on_the_whitelist(
    tmp_path: Path,
) -> None:
    """Pairs that models do not learn from come and go, the leader among them."""
    seen = []
    for number, others in enumerate([[], [LISTED], [SERIES[0], LISTED]]):
        bot = Led(tmp_path / str(number), UNLED).start()
        bot.series |= {candles.pair: candles for candles in others}
        for row in range(FIRST, FIRST + 5):
            bot.listen(row)
            bot.look(row)
        seen.append(bot.maker.history.with_context(bot.frame(OTHER)).context)
        bot.stop()
    assert np.isfinite(seen[0]["leader_return_1"]).all()
    assert seen[0].tobytes() == seen[1].tobytes() == seen[2].tobytes()


@pytest.mark.lengthy
def test_a_candle_of_the_leader_that_is_late_masks_it_once_and_nothing_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    late = FIRST + 3
    bot = Led(tmp_path / "live", UNLED)
    bot.late = frozenset({late, late + 1})
    caplog.set_level(logging.INFO, "lstm_model.bot.live")
    live = bot.start().run(FIRST, FIRST + 8, OTHER)
    bot.stop()
    past = led_backtest(tmp_path / "past", UNLED)
    assert {row for row in live if live[row]["lstm_reason"] == NO_DATA} == set()
    found = differences(live, past)
    assert {text.split(":")[0] for text in found if "lstm_due" not in text} <= {
        f"candle {late}", f"candle {late + 1}"
    }  # fmt: skip
    due = {text for text in found if "lstm_due" in text}  # as it was said then
    assert {int(text.split()[1][:-1]) - SETTINGS.horizon for text in due} <= {late, late + 1}
    told = [record.message for record in caplog.records if "leader" not in record.name]
    without = [text for text in told if f"without {PAIR}, whose candle is not known" in text]
    assert len(without) == len([text for text in told if f"with {PAIR} again" in text]) == 1


@pytest.mark.lengthy
def test_without_any_candle_of_the_leader_live_is_the_backtest_too(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live", UNLED).start()
    live = bot.run(FIRST, FIRST + 5, OTHER)
    bot.stop()
    past = backtest(tmp_path / "past", UNLED, FIRST, stop=FIRST + 5, pair=OTHER)
    assert differences(live, past) == []
