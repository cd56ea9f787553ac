"""Learning while the bot trades: nothing waits, nothing is lost by a restart, all is told."""

from __future__ import annotations

import errno
import json
import platform
import re
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from examples import further
from instant_training import SETTINGS, InstantTraining, make_learning
from live_world import (  # noqa: F401 - three fixtures
    BOUNDARY,
    FIRST,
    LAG,
    OTHER,
    PAIR,
    PERIOD,
    RETRAIN,
    SERIES,
    STEADY,
    SWITCH,
    TRAINER,
    Blocking,
    Bot,
    Failing,
    backtest,
    boundary_ms,
    chain,
    differences,
    facts,
    instant_training,
    is_forecast,
    learning_has_ended,
    learning_threads,
    no_trade,
    now_ms,
    row_of,
    running_bot,
    wait_for_learning,
)
from memory import megabytes, work_and_keep_a_little

from lstm_model.errors import DataError, LstmModelError, StoreError, TrainingError
from lstm_model.learning import background
from lstm_model.learning.run import Run
from lstm_model.learning.steps import Step
from lstm_model.market.candles import Candles
from lstm_model.model.dataset import Panel, Panels
from lstm_model.settings import Settings
from lstm_model.store.lineage import Lineage, versions_in_use
from lstm_model.store.steps import StepStore
from lstm_model.trading.outlook import Outlook
from lstm_model.training.maker import Training
from lstm_model.training.trainer import Trainer

ORIGIN = 1_500  # the last retraining before `FIRST`


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """All steps from the origin on, computed in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        return chain(tmp_path_factory.mktemp("chain"), SERIES, ORIGIN, 1_850)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Outlook:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        return backtest(tmp_path_factory.mktemp("past"), stop=SWITCH + 2)


def addresses(steps: list[Step], last: int) -> dict[int, str]:
    """Number of the boundary -> address, until this one."""
    rows = [row_of(step.boundary_ms) for step in steps]
    return {row: step.address for row, step in zip(rows, steps, strict=True) if row <= last}


# ---------------------------------------------------------------- the bot never waits


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> Blocking:
    trainer = Blocking()
    monkeypatch.setattr(TRAINER, trainer)
    return trainer


def test_the_bot_never_waits_for_a_training(tmp_path: Path, blocking: Blocking) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.at(FIRST)
    started_s = time.monotonic()
    for _ in range(5):
        bot.engine.tick(now_ms(FIRST), [PAIR])
        assert no_trade(bot.engine.outlook(bot.frame()))
    assert time.monotonic() - started_s < 1.0
    assert blocking.begun.wait(5.0)
    assert len(learning_threads()) == 1
    blocking.go.set()
    wait_for_learning()
    assert is_forecast(bot.engine.outlook(bot.frame()))[-1]
    assert len(blocking.jobs) == 1
    bot.stop()


def test_stop_ends_a_first_training_and_leaves_no_thread(
    tmp_path: Path, blocking: Blocking
) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.engine.tick(now_ms(FIRST))
    assert blocking.begun.wait(5.0)
    bot.stop()
    assert learning_threads() == []
    assert bot.news == []
    assert bot.decisions() == []
    assert bot.lineage.head is None
    assert not blocking.jobs


@pytest.mark.lengthy
def test_stop_ends_a_later_training_as_if_it_had_never_begun(
    bot: Bot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Step]
) -> None:
    bot.look(FIRST)
    head, told, decided = bot.lineage.head, list(bot.news), bot.decisions()
    blocking = Blocking()
    monkeypatch.setattr(TRAINER, blocking)
    bot.at(SWITCH).engine.tick(now_ms(SWITCH), list(bot.series))
    assert blocking.begun.wait(5.0)
    bot.stop()
    assert (bot.lineage.head, bot.news, bot.decisions()) == (head, told, decided)
    monkeypatch.setattr(TRAINER, InstantTraining())
    again = Bot(tmp_path / "live").start(SWITCH)
    again.look(SWITCH)
    again.stop()
    assert again.steps == addresses(steps, BOUNDARY)
    assert "training failed" not in {row.kind for row in again.decisions()}


@pytest.mark.lengthy
def test_pairs_that_come_while_a_step_is_made_count_from_the_next(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, steps: list[Step]
) -> None:
    bot.look(FIRST)
    blocking = Blocking()
    monkeypatch.setattr(TRAINER, blocking)
    bot.at(SWITCH).engine.tick(now_ms(SWITCH), list(bot.series))
    assert blocking.begun.wait(5.0)
    bot.series["NEW/USDT"] = replace(SERIES[0], pair="NEW/USDT")
    bot.engine.tick(now_ms(SWITCH), list(bot.series))
    assert "NEW/USDT" not in bot.learning.pairs
    blocking.go.set()
    wait_for_learning()
    bot.look(SWITCH + 1)
    assert bot.steps == addresses(steps, BOUNDARY)
    bot.look(SWITCH + PERIOD)
    assert "NEW/USDT" in bot.learning.pairs


def test_stop_before_any_training_is_harmless(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.engine.stop()
    bot.engine.stop()


# ---------------------------------------------------------------- nothing twice, all told


def test_a_first_start_walks_from_the_last_retraining_until_now(
    bot: Bot, training: InstantTraining
) -> None:
    bot.look(FIRST)
    assert list(bot.steps) == [ORIGIN, ORIGIN + PERIOD]
    assert len(training.jobs) == 1


@pytest.mark.lengthy
def test_nothing_is_trained_twice(bot: Bot, tmp_path: Path, training: InstantTraining) -> None:
    bot.run(FIRST, FIRST + 5)
    assert len(training.jobs) == 1
    bot.run(SWITCH - 3, SWITCH + 3)
    assert len(training.jobs) == 2
    bot.stop()
    again = Bot(tmp_path / "live").start(SWITCH)
    assert again.close_candle(SWITCH + 3).version[-1] != ""
    again.stop()
    backtest(tmp_path / "live", stop=SWITCH + 3)
    assert len(training.jobs) == 2


@pytest.mark.lengthy
def test_every_decision_is_told_and_written_down_once_in_the_same_words(
    bot: Bot, tmp_path: Path, steps: list[Step]
) -> None:
    bot.look(FIRST)
    bot.look(SWITCH)
    bot.stop()
    again = Bot(tmp_path / "live").start(SWITCH)
    again.look(SWITCH + PERIOD)
    again.look(SWITCH + 2 * PERIOD)
    again.stop()
    told = [line for line in bot.news + again.news if not line.startswith("Training a network")]
    decided = again.decisions()
    assert sorted(told) == sorted(row.text for row in decided)
    seen = [step for step in steps if row_of(step.boundary_ms) <= BOUNDARY + 2 * PERIOD]
    events = [event for step in seen for event in step.events]
    assert sorted((row.at_ms, row.kind, row.version) for row in decided) == sorted(
        (event.at_ms, event.kind, event.version) for event in events
    )
    assert {"trained", "promoted"} <= {row.kind for row in decided}


@pytest.mark.lengthy
def test_a_step_that_was_written_down_before_a_crash_is_not_written_twice(
    bot: Bot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal knows of it, the lineage does not yet."""

    def crash(*_: Any) -> None:
        raise StoreError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Lineage, "advance", crash)
        bot.look(FIRST)
    assert len(bot.decisions()) == 2
    assert bot.lineage.head is None
    bot.stop()
    again = Bot(tmp_path / "live").start()
    again.look(FIRST)
    again.stop()
    assert [row.kind for row in again.decisions()] == [row.kind for row in bot.decisions()]


# ---------------------------------------------------------------- restarts


def restarted(root: Path, stops: list[int], last: int) -> dict[int, str]:
    """The steps of a bot that is stopped after these candles and started at the next."""
    found: dict[int, str] = {}
    for first, stop in zip([FIRST, *stops], [*stops, last], strict=True):
        bot = Bot(root).start(first)
        for row in range(first, stop + 1, PERIOD // 2):
            bot.look(row)
        bot.look(stop)
        found |= bot.stop().steps
    return found


@pytest.mark.lengthy
@pytest.mark.parametrize("stops", [[SWITCH - LAG + 1], [1_610, 1_740, 1_790]])
def test_a_restart_continues_to_the_steps_of_a_bot_that_ran_on(
    tmp_path: Path, stops: list[int], steps: list[Step]
) -> None:
    assert restarted(tmp_path / "live", stops, 1_810) == addresses(steps, 1_800)


@pytest.mark.lengthy
def test_a_restart_after_days_catches_up_step_by_step(tmp_path: Path, steps: list[Step]) -> None:
    rest = RETRAIN - 1
    Bot(tmp_path / "live").start().close_candle_and_stop(FIRST)
    again = Bot(tmp_path / "live").start(FIRST + rest)
    again.look(FIRST + rest)
    again.stop()
    assert again.steps == addresses(steps, FIRST + rest)


@pytest.mark.lengthy
def test_after_too_long_a_rest_the_learner_begins_anew_while_the_old_champion_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Bot(tmp_path / "live").start().close_candle_and_stop(FIRST)
    blocking = Blocking()
    monkeypatch.setattr(TRAINER, blocking)
    row = 1_910
    again = Bot(tmp_path / "live").start(row)
    again.engine.tick(now_ms(row), list(again.series))
    assert blocking.begun.wait(5.0)
    assert again.engine.outlook(again.frame()).version[-1] == old.version[-1]
    blocking.go.set()
    wait_for_learning()
    said = again.run(row + 1, row + 6)
    again.stop()
    past = backtest(tmp_path / "past", first=row, stop=row + 10)  # from the retraining at 1,800
    of_the_old = {  # what it had forecast of the first two
        f"candle {number}: lstm_due_{side}" for number in (row + 1, row + 2)
        for side in ("low", "high")
    }  # fmt: skip
    assert SETTINGS.horizon == 2
    assert set(differences(said, past)) == of_the_old
    assert set(again.steps) == {ORIGIN, ORIGIN + PERIOD, 1_800, 1_850, 1_900}


@pytest.mark.lengthy
@pytest.mark.parametrize("change", [{"promotion_error": 0.2}, {"step_candles": 30}])
def test_with_other_settings_of_the_learner_it_begins_anew_from_the_old_champion(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    old = Bot(tmp_path / "live").start().close_candle_and_stop(FIRST)
    settings = SETTINGS.model_copy(update=change)
    again = Bot(tmp_path / "live", settings=settings).start(FIRST + 1)
    again.at(FIRST + 1)
    assert again.engine.outlook(again.frame()).version[-1] == old.version[-1]
    again.look(FIRST + 1)
    head = again.stop().lineage.head
    step = settings.step_candles
    wanted = chain(
        tmp_path / "chain", SERIES, ORIGIN, (FIRST + 1) // step * step, settings
    )  # fmt: skip
    assert head == wanted[-1].address


@pytest.mark.lengthy
def test_panels_are_kept_from_one_training_to_the_next_until_the_walk_ends(
    tmp_path: Path, steps: list[Step]
) -> None:
    told = []

    class Watched(Panels):
        def build(self, series: Sequence[Candles], settings: Settings) -> Panel:
            told.append("build")
            return super().build(series, settings)

        def forget(self) -> None:
            told.append("forget")
            super().forget()

    learning = make_learning(tmp_path, SERIES, followed=[c.pair for c in SERIES])
    known = learning.maker.history.of
    run = Run(known, lambda _wish, _boundary: Training(), panels=Watched())
    found = list(learning.walk(boundary_ms(ORIGIN), boundary_ms(1_850), run))
    assert [step.address for step in found] == [step.address for step in steps]
    assert told[-1] == "forget"
    assert told.count("build") == len(told) - 1 > 1


@pytest.mark.lengthy
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps what is freed")
def test_what_a_walk_has_freed_goes_back_to_the_system(tmp_path: Path) -> None:
    """Every walk has a thread, and glibc keeps for each what it took at most."""
    kept: list[np.ndarray] = []
    held: list[float] = []

    def read(pair: str) -> Candles | None:
        if not kept and learning_threads() == [threading.current_thread()]:
            kept.extend(work_and_keep_a_little(100))
            held.append(megabytes())
        return bot.everything_closed(pair)

    bot = Bot(tmp_path / "live", disk=read)
    bot.start().look(FIRST)
    assert held[0] - megabytes() > 50.0
    bot.stop()


@pytest.mark.lengthy
def test_a_restart_in_the_lag_after_a_step_serves_the_step_before(
    bot: Bot, tmp_path: Path, past: Outlook
) -> None:
    bot.look(FIRST)
    before = bot.run(SWITCH - LAG + 1, SWITCH - 1)
    bot.stop()
    again = Bot(tmp_path / "live").start(SWITCH - 1)
    after = again.run(SWITCH - 1, SWITCH + 2)
    again.stop()
    assert differences(before | after, past) == []


def test_a_lineage_whose_step_is_gone_begins_anew(bot: Bot, tmp_path: Path) -> None:
    bot.look(FIRST)
    bot.stop()
    shutil.rmtree(tmp_path / "live" / "steps")
    again = Bot(tmp_path / "live").start()
    again.look(FIRST)
    assert "it begins anew" in again.news[0]
    assert again.stop().steps == bot.steps


@pytest.mark.lengthy
def test_steps_of_an_older_release_are_begun_anew_from_while_its_champion_serves(
    bot: Bot, tmp_path: Path
) -> None:
    """Their records lack what later releases keep, and were made by other code."""
    bot.look(FIRST)
    bot.stop()
    store, at = StepStore(bot.lineage.root), bot.lineage.head
    while at:
        found = store.load(at)
        assert found is not None
        record, arrays = found
        for name in ("far", "usual_widths", "learnt_ms", "pairs", "models", "state"):
            del record[name]
        record["made_by"] = {**record["made_by"], "code": "older"}
        before = record["previous"]
        record["previous"] = before and before[:32]
        store.save(at[:32], record, arrays)  # an address was half as long
        (tmp_path / "live" / "steps" / f"{at}.json").unlink()
        (tmp_path / "live" / "steps" / f"{at}.npz").unlink()
        at = before
    bot.lineage.advance((bot.lineage.head or "")[:32], record["champion"])
    again = Bot(tmp_path / "live").start(FIRST)
    assert again.engine._learning._fresh_start
    again.look(FIRST)
    assert again.close_candle(FIRST + 1).version[-1]
    again.stop()


@pytest.mark.lengthy
def test_models_that_are_gone_are_made_anew(
    bot: Bot, tmp_path: Path, training: InstantTraining
) -> None:
    bot.look(FIRST)
    bot.stop()
    shutil.rmtree(tmp_path / "live" / "models")
    again = Bot(tmp_path / "live").start()
    again.look(FIRST)
    assert is_forecast(again.engine.outlook(again.frame()))[-1]
    assert again.stop().steps == bot.steps
    assert len(training.jobs) == 2


def test_a_second_bot_of_the_same_lineage_is_refused_until_the_first_has_stopped(
    bot: Bot, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"another bot .* already learns"):
        Bot(tmp_path / "live").start()
    bot.stop()
    Bot(tmp_path / "live").start().stop()


def test_a_bot_with_neither_model_nor_candles_does_not_start(tmp_path: Path) -> None:
    for _ in range(2):  # and lets go of its lineage
        with pytest.raises(DataError, match="freqtrade download-data"):
            Bot(tmp_path / "live", disk={}.get).start()


NOWHERE = TrainingError("there is no Python with TensorFlow; run this or that")


def find_no_trainer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lstm_model.training.interpreter.find", mock.Mock(side_effect=NOWHERE))


def test_a_bot_with_neither_model_nor_a_python_that_trains_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_no_trainer(monkeypatch)
    for _ in range(2):
        with pytest.raises(TrainingError, match="run this or that"):
            Bot(tmp_path / "live").start()


@pytest.mark.lengthy
def test_nor_does_it_need_one_where_another_has_made_its_first_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining
) -> None:
    first = Bot(tmp_path / "live").start()
    first.look(FIRST)
    first.stop()
    jobs = len(training.jobs)
    find_no_trainer(monkeypatch)
    second = Bot(tmp_path / "live", lineage="binance-spot-5m-second").start()
    assert second.lineage.head is None
    second.look(FIRST)
    assert is_forecast(second.close_candle(FIRST + 1))[-1]
    assert len(training.jobs) == jobs
    second.stop()


@pytest.mark.lengthy
def test_without_a_python_that_trains_the_champion_serves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining
) -> None:
    bot = Bot(tmp_path / "live", STEADY).start()
    bot.look(FIRST)
    bot.stop()
    find_no_trainer(monkeypatch)
    bot = Bot(tmp_path / "live", STEADY).start()
    assert is_forecast(bot.close_candle(1_696))[-1]
    jobs = len(training.jobs)
    bot.run(1_697, 1_708)  # a fine-tuning is due at candle 1,700
    assert is_forecast(bot.close_candle(1_708))[-1]
    assert [line for line in bot.news if str(NOWHERE) in line and "keeps serving" in line]
    assert len(training.jobs) == jobs
    bot.stop()


# ---------------------------------------------------------------- what fails is tried again

UNFORESEEN = [
    ValueError("something unforeseen"), MemoryError("no memory"), RuntimeError("no thread"),
    zipfile.BadZipFile("File is not a zip file"), EOFError(), KeyError("gaps/bias"),
    AssertionError(), SystemExit(3), KeyboardInterrupt(), ReferenceError("gone"),
]  # fmt: skip


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("error", "what"),
    [
        (TrainingError("the process ended\nThe end of its log:\n..."), "Training failed"),
        (StoreError("the models cannot be written"), "Learning stopped"),
        (OSError(errno.ENOSPC, "No space left on device"), "Learning stopped"),
        *((error, f"Learning stopped|{type(error).__name__}") for error in UNFORESEEN),
    ],
)
def test_a_first_training_that_fails_is_told_and_tried_again_later_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining,
    caplog: pytest.LogCaptureFixture, error: BaseException, what: str,
) -> None:  # fmt: skip
    """Whatever it is: the user hears a line, the log has the whole, with where it came from."""
    bot, failing = Bot(tmp_path / "live").start(), Failing(error)
    monkeypatch.setattr(TRAINER, failing)
    assert not any(said["version"] for said in bot.run(FIRST, FIRST + 2).values())
    assert failing.tried == 1
    what, _, kind = what.partition("|")
    first, *_ = str(error).splitlines() or [""]
    reason = ": ".join(filter(None, [kind, first]))
    assert bot.news == [f"{what}, no model yet: {reason}; tried again in 10 minutes"]
    assert str(error) in caplog.text
    assert ("Traceback" in caplog.text) == (not isinstance(error, LstmModelError))
    assert bot.decisions() == []
    monkeypatch.setattr(TRAINER, training)
    assert is_forecast(bot.close_candle(FIRST + 2))[-1]  # ten minutes later
    bot.stop()


def test_a_real_training_process_whose_result_is_cut_short_is_told_by_the_bot(
    bot: Bot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "child.py").write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(json.loads(sys.stdin.readline()))\n"
        "whole = (folder / 'job.npz').read_bytes()\n"
        "(folder / 'result.npz').write_bytes(whole[: len(whole) // 2])\n"
        "result = {'epochs': 1, 'best_epoch': 1, 'history': [], 'fallback': None}\n"
        "(folder / 'result.json').write_text(json.dumps(result))\n"
        "print(json.dumps({'done': True}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    trainer = Trainer((sys.executable, str(tmp_path / "child.py")))
    monkeypatch.setattr(TRAINER, trainer)
    bot.look(FIRST)
    trainer.end_idle()
    (told,) = bot.news[1:]  # after the first, that a training has begun
    assert re.fullmatch(
        r"Training failed, no model yet: the training left no usable result, /\S+/result\.npz: "
        r"File is not a zip file; tried again in 10 minutes",
        told,
    )


@pytest.mark.lengthy
def test_what_goes_on_failing_is_tried_at_growing_pauses_and_told_once_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining
) -> None:
    """Minutes of the tries: 0, 10, 30, 70, 150, 310, and so on; what does not repeat is told."""
    bot, failing = Bot(tmp_path / "live").start(), Failing(KeyError("gaps/bias"))
    monkeypatch.setattr(TRAINER, failing)
    bot.run(FIRST, FIRST + 3)
    assert (failing.tried, len(bot.news)) == (2, 1)
    failing.error = EOFError("a second")
    bot.run(FIRST + 3, FIRST + 10)
    assert (failing.tried, len(bot.news)) == (3, 2)
    failing.error = KeyError("gaps/bias")
    bot.run(FIRST + 10, FIRST + 20)
    assert (failing.tried, len(bot.news)) == (4, 3)
    assert bot.news[-1].endswith("tried again in 80 minutes")
    bot.run(FIRST + 20, FIRST + 130)
    assert failing.tried == 8  # at 150, 310, 470 and 630 minutes
    assert bot.news[-1].endswith("tried again in 160 minutes")
    monkeypatch.setattr(TRAINER, training)
    assert is_forecast(bot.close_candle(FIRST + 200))[-1]
    bot.stop()


@pytest.mark.lengthy
def test_what_fails_after_it_went_well_is_tried_again_soon_while_the_champion_serves(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, training: InstantTraining
) -> None:
    champion = bot.close_candle(FIRST).version[-1]
    failing = Failing(AssertionError())
    monkeypatch.setattr(TRAINER, failing)
    said = bot.run(1_700, 1_703)
    assert failing.tried == 2
    assert {row["version"] for row in said.values()} == {champion}
    told = [line for line in bot.news if "tried again" in line]
    assert told == [
        "Learning stopped, the last good model keeps serving: AssertionError; tried again in "
        "10 minutes"
    ]
    monkeypatch.setattr(TRAINER, training)
    bot.look(1_708)
    assert 1_700 in bot.steps


class Lasting(Failing):
    """A training that fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(TrainingError("it took longer than 3,600 s"))
        self.begun, self.over = threading.Event(), threading.Event()

    def run(self, *_: Any, **__: Any) -> None:
        self.begun.set()
        assert self.over.wait(10.0)
        super().run()


def test_the_pause_begins_when_what_failed_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot, lasting = Bot(tmp_path / "live").start(), Lasting()
    monkeypatch.setattr(TRAINER, lasting)
    for row in range(FIRST, FIRST + 12):
        bot.at(row).engine.tick(now_ms(row), list(bot.series))
        assert lasting.begun.wait(5.0)
    lasting.over.set()
    wait_for_learning()
    bot.run(FIRST + 12, FIRST + 13)
    assert lasting.tried == 1
    bot.run(FIRST + 13, FIRST + 14)
    assert lasting.tried == 2
    bot.stop()


def test_a_clock_that_is_set_back_keeps_nobody_from_trying_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot, failing = Bot(tmp_path / "live").start(), Failing(KeyError("gaps/bias"))
    monkeypatch.setattr(TRAINER, failing)
    bot.look(FIRST)
    for row in (FIRST - 20, FIRST - 20 + 2):  # not the pause of the time before, but a new one
        bot.at(FIRST).engine.tick(now_ms(row), list(bot.series))
        wait_for_learning()
    bot.hear()
    assert failing.tried == 2
    assert [line.rpartition(" in ")[2] for line in bot.news] == ["10 minutes", "20 minutes"]
    bot.stop()


def test_a_clock_that_is_set_back_keeps_nobody_from_looking_for_candles(
    tmp_path: Path, training: InstantTraining
) -> None:
    disk = Reading(SERIES)
    bot = Bot(tmp_path / "live", disk=disk).start()
    bot.look(FIRST)
    for row in (BOUNDARY + 20, BOUNDARY + 8):
        disk.threads.clear()
        bot.engine.tick(now_ms(row), list(bot.series))
        wait_for_learning()
        assert disk.threads
    bot.stop()


@pytest.mark.lengthy
def test_where_no_thread_can_be_started_the_bot_goes_on_and_tries_again(
    bot: Bot, training: InstantTraining
) -> None:
    before = threading.stack_size(1 << 46)  # more than there are addresses
    try:
        bot.look(FIRST)
    finally:
        threading.stack_size(before)
    assert not bot.engine.busy
    assert bot.news == [
        "Learning stopped, no model yet: RuntimeError: can't start new thread; tried again in "
        "10 minutes"
    ]
    assert is_forecast(bot.close_candle(FIRST + 2))[-1]


@pytest.mark.lengthy
def test_a_later_training_that_fails_costs_a_message_and_is_tried_again_a_step_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining
) -> None:
    """A fine-tuning is due at candle 1,700 and none at 1,750."""
    bot = Bot(tmp_path / "live", STEADY).start()
    bot.look(FIRST)
    before = bot.run(1_696, 1_698)
    failing = Failing(TrainingError("out of memory"))
    monkeypatch.setattr(TRAINER, failing)
    after = bot.run(1_698, 1_708)
    assert failing.tried == 1
    promoted = [row.version for row in bot.decisions() if row.kind == "promoted"]
    assert {said["version"] for said in (before | after).values()} == set(promoted)
    failed = bot.decisions()[-1]
    assert (failed.kind, failed.at_ms) == ("training failed", boundary_ms(1_700))
    assert failed.text in bot.news
    assert "out of memory" in failed.text
    assert "keeps serving" in failed.text
    monkeypatch.setattr(TRAINER, training)
    bot.look(1_755)
    [*_, made] = bot.decisions()
    assert (made.kind, made.at_ms) == ("trained", boundary_ms(1_750))
    assert training.jobs[-1].initial is not None  # a fine-tuning, and not for drift
    assert "drift" not in {row.kind for row in bot.decisions()}
    bot.stop()


@pytest.mark.lengthy
def test_how_the_intervals_held_is_written_down_and_told_at_every_retraining(bot: Bot) -> None:
    bot.look(FIRST)
    bot.look(ORIGIN + RETRAIN - 1)
    assert "calibration" not in {row.kind for row in bot.decisions()}  # none had been kept
    bot.look(ORIGIN + RETRAIN + 1)
    [row] = [row for row in bot.decisions() if row.kind == "calibration"]
    assert row.at_ms == boundary_ms(ORIGIN + RETRAIN)
    assert bot.news.count(row.text) == 1
    started = f"Calibration of model {row.version}: inside its widest interval were "
    assert row.text.startswith(started)
    told = r"\d+\.\d% over 150 candles; of the baseline \d+\.\d% over 150 candles"
    assert re.fullmatch(told, row.text.removeprefix(started))
    bot.look(ORIGIN + RETRAIN + PERIOD + 1)
    assert [row.kind for row in bot.decisions()].count("calibration") == 1


@pytest.mark.lengthy
@pytest.mark.parametrize("error", [StoreError("disk full"), OSError(errno.ENOSPC, "no space")])
def test_a_walk_that_fails_goes_on_later_from_where_it_was(
    bot: Bot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, steps: list[Step]
) -> None:
    bot.look(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(TRAINER, Failing(error))
        bot.look(SWITCH)
        bot.look(SWITCH + 1)
    assert [line for line in bot.news if "the last good model keeps serving" in line] == [
        f"Learning stopped, the last good model keeps serving: {error}; tried again in 10 minutes"
    ]
    assert list(bot.steps) == [ORIGIN, ORIGIN + PERIOD]
    bot.look(SWITCH + 2)
    assert bot.steps == addresses(steps, BOUNDARY)


# ---------------------------------------------------------------- a broken store


@pytest.mark.lengthy
def test_a_tick_never_raises_when_the_lineage_is_damaged_and_the_champion_serves_on(
    bot: Bot, tmp_path: Path
) -> None:
    bot.close_candle(FIRST)
    path = tmp_path / "live" / "lineages" / "binance-spot-5m.json"
    path.write_bytes(b"damaged")
    assert is_forecast(bot.close_candle(FIRST + 1))[-1]
    assert is_forecast(bot.close_candle(SWITCH))[-1]
    assert sum("was damaged" in line for line in bot.news) == 1
    assert bot.lineage.head == bot.steps[BOUNDARY]


def test_a_tick_never_raises_when_the_store_is_taken_away_and_the_champion_serves_on(
    bot: Bot, tmp_path: Path
) -> None:
    bot.close_candle(FIRST)
    for name in ("models", "steps", "lineages"):
        shutil.rmtree(tmp_path / "live" / name)
        (tmp_path / "live" / name).write_text("in the way")
    started_s = time.monotonic()
    bot.at(SWITCH).engine.tick(now_ms(SWITCH), list(bot.series))
    assert time.monotonic() - started_s < 1.0
    wait_for_learning()
    assert is_forecast(bot.engine.outlook(bot.frame()))[-1]
    bot.hear()
    assert "the last good model keeps serving" in bot.news[-1]


def test_a_start_that_fails_for_whatever_reason_lets_go_of_the_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Lineage, "head", property(lambda _: {}["no named error"]))
        with pytest.raises(KeyError):
            Bot(tmp_path / "live").start()
    Bot(tmp_path / "live").start().stop()


class Stuck(RuntimeError):
    """Something that does not let itself be ended."""


@pytest.mark.lengthy
@pytest.mark.parametrize("stuck", ["stream", "training"])
def test_a_stop_that_fails_half_way_releases_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining, stuck: str
) -> None:
    def refuse() -> None:
        raise Stuck

    bot = Bot(tmp_path / "live").start()
    bot.look(FIRST)
    bot.engine.note(PAIR, boundary_ms(FIRST), "no_edge")
    with monkeypatch.context() as patch:
        if stuck == "stream":
            stream = SimpleNamespace(news=[], stop=refuse)
            patch.setattr(bot.engine, "inside", SimpleNamespace(stream=stream))
        else:
            patch.setattr(background.TRAINER, "end_idle", refuse)
        journals = {thread for thread in threading.enumerate() if thread.name == "lstm-journal"}
        assert journals
        with pytest.raises(Stuck):
            bot.engine.stop()
    assert journals.isdisjoint(threading.enumerate())
    again = Bot(tmp_path / "live").start()  # nobody holds the lineage
    again.stop()
    assert bot._journal.count_verdicts("5m", 0, 2**60) == {(PAIR, "no_edge"): 1}


# ---------------------------------------------------------------- pins


def baseline_of(bot: Bot) -> str:
    return next(c.version for c in bot.maker.store.cards() if c.kind == "baseline")


@pytest.mark.lengthy
def test_a_pin_is_served_at_the_next_tick_and_unpinning_ends_it(bot: Bot, tmp_path: Path) -> None:
    champion = bot.close_candle(FIRST).version[-1]
    outside = Lineage(tmp_path / "live", "binance-spot-5m")
    outside.pin(baseline_of(bot))
    assert bot.close_candle(FIRST + 1).version[-1] == baseline_of(bot)
    assert bot.news[-1] == f"Pinned: {baseline_of(bot)} serves"
    assert bot.close_candle(SWITCH).version[-1] == baseline_of(bot)  # and the learner goes on
    assert BOUNDARY in bot.steps
    assert sum("Pinned" in line for line in bot.news) == 1
    outside.unpin()
    assert bot.close_candle(SWITCH + 1).version[-1] == champion
    assert bot.news[-1] == "The gate chooses again"


@pytest.mark.lengthy
def test_a_pinned_version_that_competes_gets_the_widths_of_the_newest_step(
    bot: Bot, tmp_path: Path
) -> None:
    bot.look(FIRST)
    Lineage(tmp_path / "live", "binance-spot-5m").pin(baseline_of(bot))
    widths = []
    for row in (FIRST + 1, SWITCH, SWITCH + 1):
        bot.look(row)
        assert bot.engine._learning._pinned is not None
        widths.append(bot.engine._learning._pinned.calibration.widths_of(PAIR))
    assert widths[0] != widths[2]


@pytest.mark.lengthy
def test_a_pin_set_while_a_step_is_made_is_not_overlooked(
    bot: Bot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.look(FIRST)
    outside, advance = Lineage(tmp_path / "live", "binance-spot-5m"), Lineage.advance

    def pin_at_the_same_time(lineage: Lineage, *step: str) -> None:
        advance(lineage, *step)
        outside.pin(baseline_of(bot))

    monkeypatch.setattr(Lineage, "advance", pin_at_the_same_time)
    bot.look(SWITCH)
    assert bot.close_candle(SWITCH + 1).version[-1] == baseline_of(bot)


@pytest.mark.lengthy
def test_a_pin_survives_a_restart(bot: Bot, tmp_path: Path) -> None:
    bot.look(FIRST)
    bot.lineage.pin(baseline_of(bot))
    bot.stop()
    again = Bot(tmp_path / "live").start()
    assert again.close_candle(FIRST + 1).version[-1] == baseline_of(bot)
    again.stop()


@pytest.mark.lengthy
def test_a_pin_of_a_version_that_is_not_there_is_told_and_the_champion_serves(
    bot: Bot, tmp_path: Path
) -> None:
    champion = bot.close_candle(FIRST).version[-1]
    Lineage(tmp_path / "live", "binance-spot-5m").pin("nowhere0")
    assert {said["version"] for said in bot.run(FIRST + 1, FIRST + 4).values()} == {champion}
    assert sum("The pinned model cannot serve" in line for line in bot.news) == 1


# ---------------------------------------------------------------- pruning


@pytest.mark.lengthy
def test_pruning_never_removes_what_competes_is_pinned_or_belongs_to_another_lineage(
    tmp_path: Path,
) -> None:
    settings = SETTINGS.model_copy(update={"keep_models": 4})
    bot = Bot(tmp_path / "live", settings=settings).start()
    bot.look(FIRST)
    first = next(c.version for c in bot.maker.store.cards() if c.kind == "scratch")
    other = Lineage(tmp_path / "live", "another")
    other.pin(first)
    for row in range(FIRST + PERIOD, 1_990, PERIOD):
        bot.look(row)
        stored = {card.version for card in bot.maker.store.cards()}
        assert versions_in_use(tmp_path / "live") <= stored
        assert bot.engine._learning.steps[-1].versions | {first} <= stored
    bot.stop()
    trained = [row.version for row in bot.decisions() if row.kind == "trained"]
    assert not set(trained) <= stored


@pytest.mark.lengthy
def test_a_backtest_trains_again_what_was_pruned_where_it_has_to(
    tmp_path: Path, training: InstantTraining
) -> None:
    """To say the same again the champions suffice; to go on, all that compete are needed."""
    one = backtest(tmp_path, stop=1_850)
    made, store = len(training.jobs), make_learning(tmp_path, SERIES).maker.store
    for kept, stop, trains in (({*one.version}, 1_850, False), (set(), 1_850, True),
                               ({*one.version}, 1_950, True)):  # fmt: skip
        assert store.prune(0, kept)
        again = backtest(tmp_path, stop=stop)
        same = again.forecast.quantiles[: len(one.date_ms)]
        assert same.tobytes() == one.forecast.quantiles.tobytes()
        assert (len(training.jobs) > made) == trains
        made = len(training.jobs)


@pytest.mark.lengthy
def test_a_step_waits_for_candles_that_are_still_to_come(
    tmp_path: Path, steps: list[Step], training: InstantTraining
) -> None:
    """An outage at its boundary: what it did not see then it would never see."""
    until = {candles.pair: FIRST + 1 for candles in SERIES}

    def disk(pair: str) -> Candles | None:
        return next(item for item in SERIES if item.pair == pair).between(
            0, boundary_ms(until[pair])
        )

    bot = Bot(tmp_path / "live", disk=disk).start()
    bot.look(FIRST)
    until = dict.fromkeys(until, BOUNDARY - 3)
    for later in range(BOUNDARY + 1, BOUNDARY + LAG + 5):
        bot.at(later).engine.tick(now_ms(later), list(bot.series))
        wait_for_learning()
    bot.hear()
    assert BOUNDARY not in bot.steps
    assert sum("waits for candles" in line for line in bot.news) == 1
    until = dict.fromkeys(until, BOUNDARY + LAG + 6)
    bot.look(BOUNDARY + LAG + 6)
    assert bot.steps[BOUNDARY] == addresses(steps, BOUNDARY)[BOUNDARY]
    bot.stop()


class Reading:
    """A data directory that ends where the bot began, and notes in which thread it is read."""

    def __init__(self, series: Sequence[Candles]) -> None:
        self.series = {candles.pair: candles for candles in series}
        self.threads: list[str] = []

    def __call__(self, pair: str) -> Candles | None:
        self.threads.append(threading.current_thread().name)
        return self.series[pair].between(0, boundary_ms(FIRST + 1))


@pytest.mark.lengthy
def test_a_pair_that_is_halted_neither_delays_the_loop_nor_keeps_a_step_from_serving_in_time(
    tmp_path: Path, training: InstantTraining
) -> None:
    """And the step is the one of a backtest, which has no candles of a halted pair either."""
    halted = SERIES[1].between(0, boundary_ms(BOUNDARY - 3))
    series, disk = [SERIES[0], halted], Reading(SERIES)
    bot = Bot(tmp_path / "live", series, disk=disk).start()
    bot.look(FIRST)
    bot.listen(FIRST)
    disk.threads.clear()
    for row in range(BOUNDARY - 4, BOUNDARY + 2):
        bot.look(row)
        bot.listen(row)
    assert BOUNDARY not in bot.steps
    assert not disk.threads
    bot.look(BOUNDARY + LAG // 2)
    assert set(disk.threads) == {"lstm-learning_0"}
    assert bot.steps[BOUNDARY] == chain(tmp_path / "past", series, ORIGIN, BOUNDARY)[-1].address
    told = [news for news in bot.news if halted.pair in news]
    at_once, by_the_step = told
    assert at_once.startswith(f"The exchange gives no new candles of {halted.pair}: ")
    assert f"those of {halted.pair} end at" in by_the_step
    bot.stop()


def halted(candles: Candles, first: int, stop: int) -> Candles:
    """As freqtrade has them once there is a later candle: those of the halt without a trade."""
    rows, price = slice(first, stop), candles.close[first - 1]
    names = ("open", "high", "low", "close")
    columns = {name: getattr(candles, name).copy() for name in (*names, "volume")}
    for name in names:
        columns[name][rows] = price
    columns["volume"][rows] = 0.0
    return replace(candles, **columns)


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "stop",
    [BOUNDARY + 1, *further([BOUNDARY, BOUNDARY + LAG // 2 + 2, BOUNDARY + PERIOD + LAG])],
)
def test_a_halt_over_a_boundary_leaves_the_bot_the_steps_of_a_backtest_that_knows_its_end(
    tmp_path: Path, training: InstantTraining, stop: int
) -> None:
    """Until the pair is traded again the bot lacks candles that freqtrade then makes up."""
    first = BOUNDARY - 3
    series = [SERIES[0], halted(SERIES[1], first, stop)]
    bot = Bot(tmp_path / "live", [SERIES[0], series[1].between(0, boundary_ms(first))]).start()
    bot.look(FIRST)
    bot.listen(FIRST)
    for row in range(first - 2, BOUNDARY + 2 * PERIOD + LAG):
        if row == stop:
            bot.series[OTHER] = series[1]
        bot.look(row)
        bot.listen(row)
    bot.stop()
    past = chain(tmp_path / "past", series, ORIGIN, BOUNDARY + 2 * PERIOD)
    assert bot.steps == addresses(past, BOUNDARY + 2 * PERIOD)


@pytest.mark.lengthy
@pytest.mark.parametrize("lag", [2, 3])
def test_beside_a_halted_pair_a_step_has_a_candle_to_be_made_in_however_short_the_lag(
    tmp_path: Path, lag: int
) -> None:
    settings = SETTINGS.model_copy(update={"training_lag_candles": lag})
    series = [SERIES[0], SERIES[1].between(0, boundary_ms(BOUNDARY - 3))]
    bot = Bot(tmp_path / "live", series, settings).start()
    bot.look(FIRST)
    bot.listen(FIRST)
    said = {}
    for row in range(BOUNDARY - 4, BOUNDARY + lag + 2):
        bot.at(row).engine.tick(now_ms(row), list(bot.series))
        bot.engine.lead(bot.frame())
        said[row] = facts(bot.engine.outlook(bot.frame()), -1)
        bot.listen(row)
        wait_for_learning()  # it takes less than a candle, and more than the forecast
    bot.stop()
    past = backtest(tmp_path / "past", series, settings=settings, stop=BOUNDARY + lag + 2)
    assert differences(said, past) == []


@pytest.mark.lengthy
def test_a_pair_that_left_the_whitelist_is_neither_awaited_nor_called_halted(
    tmp_path: Path, training: InstantTraining
) -> None:
    """It is traded on; freqtrade asks for it no more."""
    bot = Bot(tmp_path / "live", disk=Reading(SERIES)).start()
    bot.look(FIRST)
    bot.listen(FIRST)
    for row in range(FIRST + 1, BOUNDARY - 3):
        bot.look(row)
        bot.listen(row)
    del bot.series[OTHER]
    for row in range(BOUNDARY - 3, BOUNDARY + 1):
        bot.look(row)
        bot.listen(row)
    assert BOUNDARY in bot.steps
    assert OTHER in bot.learning.pairs
    assert not [news for news in bot.news if "gives no new candles" in news]
    bot.stop()


@pytest.mark.lengthy
def test_a_candle_that_comes_late_is_waited_for_and_nobody_is_called_halted(
    tmp_path: Path, steps: list[Step], training: InstantTraining
) -> None:
    bot = Bot(tmp_path / "live", disk=Reading(SERIES)).start()
    bot.look(FIRST)
    bot.listen(FIRST)
    late = bot.series[OTHER]
    bot.series[OTHER] = late.between(0, boundary_ms(BOUNDARY - 1))
    for row in range(BOUNDARY - 4, BOUNDARY + 1):
        bot.look(row)
        bot.listen(row)
    assert BOUNDARY not in bot.steps
    bot.series[OTHER] = late
    bot.listen(BOUNDARY + 1)
    bot.look(BOUNDARY + 1)
    assert bot.steps[BOUNDARY] == addresses(steps, BOUNDARY)[BOUNDARY]
    assert not [news for news in bot.news if "gives no new candles" in news]
    bot.stop()


@pytest.mark.lengthy
def test_a_step_is_not_taken_where_no_candle_is_known_at_all(
    tmp_path: Path, training: InstantTraining
) -> None:
    """The data directory was moved, and the bot has seen nothing yet."""
    known = {candles.pair: candles for candles in SERIES}
    bot = Bot(tmp_path / "live", disk=lambda pair: known.get(pair)).start()
    bot.look(FIRST)
    bot.stop()
    head = bot.lineage.head
    known.clear()
    again = Bot(tmp_path / "live", disk=known.get).start(BOUNDARY + 20)
    again.at(BOUNDARY + 20).engine.tick(now_ms(BOUNDARY + 20), list(again.series))
    wait_for_learning()
    assert again.stop().lineage.head == head


@pytest.mark.lengthy
def test_a_hole_that_nobody_can_fill_is_named_by_bot_and_backtest_alike(tmp_path: Path) -> None:
    holed = [
        candles.rows(0, BOUNDARY + 5).then(candles.rows(BOUNDARY + 25, 2_000)) for candles in SERIES
    ]
    bot = Bot(tmp_path / "live", holed).start()
    for row in range(FIRST, BOUNDARY + PERIOD + 20, 4):
        bot.look(row)
    bot.stop()
    walked = chain(tmp_path / "chain", holed, ORIGIN, BOUNDARY + PERIOD)
    assert bot.steps == addresses(walked, BOUNDARY + PERIOD)
    said = [event.text for step in walked for event in step.events if "missing" in event.kind]
    assert said == ["none of 20 of 50 moments"]
    assert sum(said[0] in line for line in bot.news) == 1


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.pop(name)


_FORMS: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"no {name}": _without(name) for name in (
        "boundary_ms", "champion", "contenders", "p_values", "events", "previous", "made_by",
        "drift", "owed",
    )},
    "contenders of another kind": lambda record: record.update(contenders={}),
    "a contender that lacks its widths": lambda record: record["contenders"][0].pop("widths"),
    "other intervals": lambda record: record["contenders"][0]["widths"].update(X=[1, 0.5, [], []]),
    "another champion": lambda record: record.update(champion="nobody"),
    "a width beyond any": lambda record: record.update(usual_widths={PAIR: [3, 1e6]}),
    "events of another form": lambda record: record.update(events=[{"kind": "trained"}]),
    "unknown fields": lambda record: (
        record.update(newer={"a": 1}), record["contenders"][0].update(newer=1),
        record.update(events=[event | {"newer": 1} for event in record["events"]]),
    ),
    "another release": lambda record: record["made_by"].update(code="newer"),
}  # fmt: skip


@pytest.mark.lengthy
@pytest.mark.parametrize("change", _FORMS.values(), ids=_FORMS)
def test_a_step_of_another_form_ends_no_start(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], steps: list[Step]
) -> None:
    """It is gone on from where it says enough, else the learning begins anew and says so."""
    from lstm_model.learning.steps import _content

    bot = Bot(tmp_path / "live").start()
    bot.look(FIRST)
    bot.stop()
    store, head = StepStore(bot.lineage.root), bot.lineage.head or ""
    found = store.load(head)
    assert found is not None
    change(found[0])
    address = head[:32] + _content(found[0])
    store.save(address, *found)
    for suffix in ("json", "npz"):
        (tmp_path / "live" / "steps" / f"{head}.{suffix}").unlink()
    bot.lineage.advance(address, bot.lineage.champions[0])
    again = Bot(tmp_path / "live").start(FIRST)
    assert again.lineage.head == address
    again.look(FIRST + 1)
    again.look(SWITCH)
    again.stop()
    if "newer" not in {*found[0], *found[0].get("made_by", {}).values()}:
        assert sum("begins anew" in line for line in again.news) == 1
        assert again.steps[BOUNDARY] == addresses(steps, BOUNDARY)[BOUNDARY]
    assert BOUNDARY in again.steps
    Bot(tmp_path / "live").start(SWITCH + 1).stop()


@pytest.mark.lengthy
def test_a_damaged_lineage_and_steps_of_another_bot_stop_nobody(
    tmp_path: Path, steps: list[Step], caplog: pytest.LogCaptureFixture
) -> None:
    settings = SETTINGS.model_copy(update={"keep_models": 4})
    bot = Bot(tmp_path / "live", settings=settings).start()
    folder = tmp_path / "live" / "lineages"
    for name, content in {
        "kraken-spot-5m-damaged": b"damaged", "kraken-spot-5m-empty": b"",
        "kraken-spot-5m-newer": b'{"head":null,"champions":[],"pinned":null,"newer":1}',
        "kraken-spot-5m-gone": json.dumps(
            {"head": "ab" * 32, "champions": ["v"], "pinned": None}
        ).encode(),
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_bytes(content)
    for row in range(FIRST, 1_860, PERIOD // 2):
        bot.look(row)
    bot.stop()
    assert not [line for line in bot.news if "stopped" in line]
    assert bot.steps == addresses(steps, 1_850)
    assert "No model is removed from the store" in caplog.text
    assert backtest(tmp_path / "live", stop=1_900).version[-1]
