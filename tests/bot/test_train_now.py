"""`freqtrade-lstm train` goes on from what a bot has learnt, and a bot from what it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from instant_training import SETTINGS, InstantTraining
from live_world import (  # noqa: F401 - two fixtures
    FIRST,
    SERIES,
    TRAINER,
    Bot,
    Failing,
    chain,
    close_of,
    instant_training,
    learning_has_ended,
    now_ms,
    row_of,
)

from lstm_model.bot import assembly, configuration
from lstm_model.errors import TrainingError
from lstm_model.learning.steps import Step
from lstm_model.settings import Settings
from lstm_model.store.journal import DecisionRow, Journal
from lstm_model.store.lineage import Lineage
from lstm_model.store.steps import StepStore

ORIGIN = 1_500  # the last retraining before `FIRST`
AGAIN = 1_650  # the next one, as the number of a candle


class User:
    """Runs the command on what has closed of the candles."""

    def __init__(self, folder: Path, closed: Callable[[int], None], settings: Settings) -> None:
        self._closed = closed
        pairs = [candles.pair for candles in SERIES]
        self.config: dict[str, Any] = {
            "user_data_dir": folder, "datadir": folder / "data", "timeframe": "5m",
            "exchange": {"name": "binance", "pair_whitelist": pairs},
            "lstm": settings.model_dump(mode="json", exclude_unset=True),
        }  # fmt: skip
        self.root = configuration.store_folder(self.config, settings)
        self.lineage: Lineage = assembly.open_lineage(self.config, settings)
        self.told: list[str] = []

    def train(self, row: int, now: int | None = None) -> Step:
        """Candle `row` is the newest on disk; candle `now` has closed."""
        self._closed(row)
        self.told.clear()
        now_at = now_ms(row if now is None else now)
        return assembly.train_now(self.config, lambda _: None, self.told.append, now_at)

    def bot(self) -> Bot:
        """A bot of the same configuration."""
        return Bot(self.root, lineage=self.lineage.name)

    def decisions(self) -> list[DecisionRow]:
        """What the journal holds, oldest first."""
        journal = Journal(f"sqlite:///{self.root / 'journal.sqlite'}")
        try:
            return journal.decisions(self.lineage.name, 1_000)[::-1]
        finally:
            journal.close()


@pytest.fixture
def make_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., User]:
    series, until_ms = {candles.pair: candles for candles in SERIES}, [0]
    monkeypatch.setattr(
        assembly, "load_candles", lambda _, pair: series[pair].between(0, until_ms[0])
    )

    def close(row: int) -> None:
        until_ms[0] = close_of(row)

    return lambda settings=SETTINGS: User(tmp_path, close, settings)


@pytest.fixture
def user(make_user: Callable[..., User]) -> User:
    return make_user()


def last_of_chain(folder: Path, origin: int, last: int, settings: Settings = SETTINGS) -> str:
    return chain(folder, SERIES, origin, last, settings)[-1].address


@pytest.mark.lengthy
def test_what_the_first_train_command_decided_is_told_and_written_down(
    user: User, training: InstantTraining, tmp_path: Path
) -> None:
    step = user.train(FIRST)
    assert step.address == user.lineage.head == last_of_chain(tmp_path / "chain", ORIGIN, 1_550)
    assert sorted(user.told) == sorted(row.text for row in user.decisions())
    assert "trained" in {row.kind for row in user.decisions()}


def test_a_second_train_command_trains_nothing_and_decides_nothing(
    user: User, training: InstantTraining
) -> None:
    head = user.train(FIRST).address
    jobs, decided = len(training.jobs), user.decisions()
    for row in (FIRST, FIRST + 1):
        assert user.train(row).address == user.lineage.head == head
        assert (user.told, user.decisions(), len(training.jobs)) == ([], decided, jobs)


@pytest.mark.lengthy
def test_the_train_command_goes_on_from_what_a_bot_has_learnt_past_a_retraining(
    user: User, tmp_path: Path
) -> None:
    bot = user.bot().start()
    bot.look(FIRST)
    bot.stop()
    before = bot.decisions()
    step = user.train(AGAIN + 5)
    assert row_of(step.boundary_ms) == AGAIN
    assert user.lineage.head == last_of_chain(tmp_path / "chain", ORIGIN, AGAIN)
    assert user.decisions()[: len(before)] == before
    new = user.decisions()[len(before) :]
    assert sorted(user.told) == sorted(row.text for row in new) != []


def test_a_bot_goes_on_from_what_the_train_command_has_learnt(
    user: User, training: InstantTraining
) -> None:
    step = user.train(FIRST)
    jobs = len(training.jobs)
    bot = user.bot().start(FIRST)
    bot.look(FIRST)
    assert bot.stop().steps[row_of(step.boundary_ms)] == user.lineage.head == step.address
    assert (len(training.jobs), bot.news) == (jobs, [])


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("row", "change"), [(1_910, {}), (AGAIN + 5, {"promotion_error": 0.2})], ids=["rest", "options"]
)
def test_after_too_long_a_rest_or_with_other_options_of_the_learner_the_train_command_begins_anew(
    make_user: Callable[..., User], tmp_path: Path, row: int, change: dict[str, Any]
) -> None:
    first, settings = make_user(), SETTINGS.model_copy(update=change)
    first.train(FIRST)
    later = make_user(settings)
    assert later.lineage.name == first.lineage.name
    last = row // 50 * 50
    wanted = last_of_chain(tmp_path / "chain", last // 150 * 150, last, settings)
    assert later.train(row).address == later.lineage.head == wanted


@pytest.mark.lengthy
def test_a_train_command_whose_head_is_gone_begins_anew(user: User, tmp_path: Path) -> None:
    user.train(FIRST)
    (tmp_path / "nowhere").mkdir()
    (user.root / "steps").rename(tmp_path / "nowhere" / "steps")
    step = user.train(AGAIN + 5)
    assert step.address == last_of_chain(tmp_path / "chain", AGAIN, AGAIN)


@pytest.mark.lengthy
def test_a_train_command_that_fails_keeps_the_steps_before(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is due at candle 1,550, a fine-tuning at 1,600."""
    user.train(ORIGIN + 5)
    with monkeypatch.context() as patch:
        patch.setattr(TRAINER, Failing(TrainingError("out of memory")))
        with pytest.raises(TrainingError, match="out of memory"):
            user.train(1_605)
    assert user.lineage.head == last_of_chain(tmp_path / "chain", ORIGIN, 1_550)
    assert user.train(1_605).address == last_of_chain(tmp_path / "chain", ORIGIN, 1_600)


@pytest.mark.lengthy
def test_the_train_command_stops_at_the_last_boundary_that_its_candles_reach(
    user: User, tmp_path: Path
) -> None:
    """The next one learns from those that came since."""
    step = user.train(1_560, now=AGAIN + 90)
    assert row_of(step.boundary_ms) == 1_550
    assert sum("end at 2023-" in line and "download-data" in line for line in user.told) == 1
    step = user.train(1_560, now=AGAIN + 95)
    assert row_of(step.boundary_ms) == 1_550
    assert len(user.told) == 1
    step = user.train(AGAIN + 5)
    assert user.lineage.head == last_of_chain(tmp_path / "chain", ORIGIN, AGAIN) == step.address
    assert not [line for line in user.told if "end at" in line]


@pytest.mark.lengthy
def test_candles_that_come_late_are_learnt_from_when_they_come(
    tmp_path: Path, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one pair end in the middle of a step, which is taken without them and says so."""
    user.train(1_520)
    whole, half = {candles.pair: candles for candles in SERIES}, SERIES[1].pair
    late = {**whole, half: whole[half].between(0, close_of(1_529))}
    with monkeypatch.context() as patch:
        patch.setattr(
            assembly, "load_candles", lambda _, pair: late[pair].between(0, close_of(1_640))
        )
        user.told.clear()
        assembly.train_now(user.config, lambda _: None, user.told.append, now_ms(1_640))
    [told] = [line for line in user.told if "Candles are missing" in line]
    assert f"those of {half} end at" in told
    labels = []
    for row in (1_640, 1_660):
        record = StepStore(user.root).record(user.train(row).address)
        assert record is not None
        labels.append(record["usual_widths"])
    grown = {pair: labels[1][pair][0] - labels[0][pair][0] for pair in whole}
    assert grown[SERIES[0].pair] == 50
    assert grown[half] == 50 + 70  # from candle 1,530 on
