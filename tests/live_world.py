"""A bot that is fed as freqtrade feeds one, and the backtest that must say the same."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instant_training import SETTINGS, InstantTraining, make_learning, make_terms
from series import START_MS, STEP_MS, make_candles

from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.bot.live import LiveEngine
from lstm_model.errors import TrainingError
from lstm_model.features.context import Contexts, leader_of
from lstm_model.learning.run import Run
from lstm_model.learning.steps import Step
from lstm_model.market.candles import Candles
from lstm_model.model.weights import baseline_weights
from lstm_model.scoring.evaluation import Baselines
from lstm_model.settings import Settings
from lstm_model.store.journal import DecisionRow, Journal
from lstm_model.store.lineage import Lineage
from lstm_model.store.recorder import Recorder
from lstm_model.trading.outlook import Outlook
from lstm_model.training.maker import Training

PAIR, OTHER = "BTC/USDT", "ETH/USDT"
COUNT, FRAME = 2_000, 400
FIRST = 1_580  # the bot starts here, inside a step
LAG = SETTINGS.training_lag_candles
PERIOD = SETTINGS.step_candles
RETRAIN = SETTINGS.retrain_candles
BOUNDARY = 1_600  # the first boundary after the bot's start, as the number of a candle
SWITCH = BOUNDARY + LAG - 1  # the first candle whose close another step serves
TRAINER = "lstm_model.training.maker.TRAINER"
_JOURNALS: list[Journal] = []  # of the bots of a test, which asks them when its bots have ended


def in_context(series: Sequence[Candles]) -> list[Candles]:
    """The candles with what they are seen in, by all of them."""
    contexts = Contexts(leader_of(None, [candles.pair for candles in series]))
    known = {candles.pair: candles for candles in series}.get
    return [candles.with_context(contexts.of(candles, known)) for candles in series]


def turning(
    count: int, turns: Sequence[int], signals: tuple[float, float] = (2.0, -2.0), **options: Any
) -> Candles:
    """A market with the other signal of two from each of these candles on."""
    kinds = [make_candles(count, signal=signal, **options) for signal in signals]
    whole, edges = kinds[0].rows(0, 0), [0, *turns, count]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        part = kinds[number % 2].rows(start, stop)
        ratio = whole.close[-1] / kinds[number % 2].close[start - 1] if start else 1.0
        prices = {name: getattr(part, name) * ratio for name in ("open", "high", "low", "close")}
        whole = whole.then(replace(part, **prices))
    return whole


# There is ever more to know of `SERIES`, and a network takes the place of another at this candle.
GROWING = {"turns": (1_480,), "signals": (1.0, 3.0)}
SERIES = [turning(COUNT, **GROWING), turning(COUNT, **GROWING, seed=1, pair=OTHER)]
PROMOTION = 1_750
STEADY = [
    make_candles(COUNT, signal=1.0, seed=28),
    make_candles(COUNT, signal=1.0, seed=29, pair=OTHER),
]

# A network is promoted, the market turns, it is rolled back, one fine-tuned since is promoted.
STORY_SETTINGS = SETTINGS.model_copy(
    update={"promotion_error": 0.3, "retrain_candles": 750, "finetune_candles": 500,
            "drift_cooldown_candles": 10_000, "train_candles": 700}
)  # fmt: skip
STORY = [turning(2_500, (1_450,), seed=10), turning(2_500, (1_450,), seed=11, pair=OTHER)]
STORY_FIRST, STORY_LAST = 1_360, 1_880


def row_of(time_ms: int) -> int:
    return (time_ms - START_MS) // STEP_MS


def boundary_ms(row: int) -> int:
    """When candle `row` opens."""
    return START_MS + row * STEP_MS


def close_of(row: int) -> int:
    return boundary_ms(row + 1)


def now_ms(row: int) -> int:
    """When the bot looks at candle `row`: three seconds after it has closed."""
    return close_of(row) + 3_000


class Bot:
    """Feeds a live engine as freqtrade does: tick, then the newest candles of a pair."""

    def __init__(
        self, root: Path, series: Sequence[Candles] = SERIES, settings: Settings = SETTINGS,
        disk: Callable[[str], Candles | None] | None = None,
        lineage: str = "binance-spot-5m",
    ) -> None:  # fmt: skip
        self.root, self.series = root, {candles.pair: candles for candles in series}
        self.close_ms = 0
        self.learning = make_learning(root, series, settings, disk or self.everything_closed)
        self.maker, self.steps = self.learning.maker, {}
        self._journal = Journal(root / "journal.sqlite", lineage, lock_wait_s=0.2)
        _JOURNALS.append(self._journal)
        self.recorder = Recorder(self._journal, root / "spool" / f"{lineage}.spool", "5m")
        self.lineage = Lineage(root, lineage)
        terms = make_terms(settings)
        self.engine = LiveEngine(self.learning, terms, self.recorder, self.lineage)
        self.news: list[str] = []

    def everything_closed(self, pair: str) -> Candles | None:
        return self.series[pair].between(0, self.close_ms) if pair in self.series else None

    @property
    def journal(self) -> Journal:
        """The bot's journal, when it has got all that was said."""
        self.recorder.settle(10.0)
        return self._journal

    def start(self, row: int = FIRST) -> Bot:
        self.at(row).engine.start(now_ms(row))
        return self

    def stop(self) -> Bot:
        self.hear()
        self.engine.stop()
        return self

    def at(self, row: int) -> Bot:
        """Candle `row` has closed."""
        self.close_ms = close_of(row)
        return self

    def look(self, row: int) -> None:
        """Candle `row` has closed; the bot looks at the clock and learns what is due."""
        self.at(row).engine.tick(now_ms(row), list(self.series))
        if self.engine.leader in self.series:
            self.engine.lead(self.frame(self.engine.leader))
        wait_for_learning()
        self.hear()

    def hear(self) -> None:
        self.news += self.engine.take_news()
        for step in self.engine._learning.steps:
            self.steps[row_of(step.boundary_ms)] = step.address

    def close_candle(self, row: int, pair: str = PAIR) -> Outlook:
        """Candle `row` closes; the bot looks at the clock, then at the candle."""
        self.look(row)
        return self.engine.outlook(self.frame(pair))

    def listen(self, row: int) -> None:
        """Candle `row` closes and every pair is analysed, before the clock is looked at."""
        self.at(row)
        for pair in self.series:
            self.engine.outlook(self.frame(pair))

    def close_candle_and_stop(self, row: int) -> Outlook:
        outlook = self.close_candle(row)
        self.stop()
        return outlook

    def frame(self, pair: str = PAIR) -> Candles:
        return self.series[pair].between(self.close_ms - FRAME * STEP_MS, self.close_ms)

    def run(self, first: int, stop: int, pair: str = PAIR) -> dict[int, dict[str, Any]]:
        """What was said about each candle when it had just closed, by its number."""
        return self.run_at(range(first, stop), pair)

    def run_at(self, rows: Iterable[int], pair: str = PAIR) -> dict[int, dict[str, Any]]:
        return {row: facts(self.close_candle(row, pair), -1) for row in rows}

    def decisions(self) -> list[DecisionRow]:
        """What the journal holds of this lineage, oldest first."""
        return self.journal.decisions(self.lineage.name, 1_000)[::-1]


def wait_for_learning() -> None:
    for thread in learning_threads():
        thread.join(60.0)


def learning_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lstm-learning")]


def facts(outlook: Outlook, row: int) -> dict[str, Any]:
    """Everything the strategy reads about one candle; floats by their bits."""
    close = np.full(len(outlook.date_ms), 100.0)
    columns = {name: column[row] for name, column in outlook.columns(close, STEP_MS).items()}
    columns["quantiles"] = outlook.forecast.quantiles[row].tobytes()
    columns["version"] = outlook.version[row]
    return {
        name: value.tobytes() if isinstance(value, np.floating) else value
        for name, value in columns.items()
    }


def backtest(
    root: Path, series: Sequence[Candles] = SERIES, first: int = FIRST,
    settings: Settings = SETTINGS, stop: int = COUNT, pair: str = PAIR,
) -> Outlook:  # fmt: skip
    """A study from the close of candle `first` on; every pair of `series` is in the whitelist.

    It is handed the horizon's candles before, too, as freqtrade hands over those that warm up.
    """
    followed = [candles.pair for candles in series]
    learning = make_learning(root, series, settings, followed=followed)
    engine = WalkForwardEngine(learning, make_terms(settings))
    mine = next(candles for candles in series if candles.pair == pair)
    return engine.outlook(mine.rows(first - settings.horizon, stop), skip=settings.horizon)


def chain(
    root: Path, series: Sequence[Candles], origin: int, last: int, settings: Settings = SETTINGS
) -> list[Step]:  # fmt: skip
    """The steps from one boundary to another (numbers of candles), computed in one go."""
    learning = make_learning(root, series, settings, followed=[c.pair for c in series])
    run = Run(learning.maker.history.of, lambda _wish, _boundary: Training())
    return list(learning.walk(boundary_ms(origin), boundary_ms(last), run))


def is_forecast(outlook: Outlook) -> np.ndarray:
    return np.isfinite(outlook.forecast.mean)


def no_trade(outlook: Outlook) -> bool:
    return bool((outlook.decision.side == 0).all() and (outlook.decision.gate != "").all())


def differences(live: dict[int, dict[str, Any]], past: Outlook) -> list[str]:
    rows = {row_of(date_ms): number for number, date_ms in enumerate(past.date_ms.tolist())}
    return [
        f"candle {row}: {name}"
        for row, said in live.items()
        for name, value in facts(past, rows[row]).items()
        if said[name] != value
    ]


@pytest.fixture(name="training", autouse=True)
def instant_training(monkeypatch: pytest.MonkeyPatch) -> InstantTraining:
    """Trainings take milliseconds."""
    instant = InstantTraining()
    monkeypatch.setattr(TRAINER, instant)
    return instant


@pytest.fixture(scope="module", autouse=True)
def easy_to_beat() -> Iterator[None]:
    """Champion number zero is EWMA: against HAR the networks of `InstantTraining` take long."""

    def plain(self: Baselines) -> dict[str, Any]:
        return baseline_weights(self.ewma, self.panel.rows.shape[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Baselines, "zero_weights", plain)
        yield


@pytest.fixture(name="no_thread_is_left", autouse=True)
def learning_has_ended() -> Iterator[None]:
    yield
    left = learning_threads()
    wait_for_learning()
    while _JOURNALS:
        _JOURNALS.pop().close()
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture(name="bot")
def running_bot(tmp_path: Path) -> Iterator[Bot]:
    made = Bot(tmp_path / "live").start()
    yield made
    made.engine.stop()


class Failing(InstantTraining):
    """A training that always fails, and counts how often it was tried."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.tried = error, 0

    def run(self, *_: Any, **__: Any) -> None:
        self.tried += 1
        raise self.error


class Blocking(InstantTraining):
    """Trains until it is let go or stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def run(self, job: Any, workdir: Any, progress: Any, stop: Any, **rest: Any) -> Any:
        self.begun.set()
        while not self.go.wait(0.005):
            if stop.is_set():
                raise TrainingError("the training was stopped")
        return super().run(job, workdir, progress, stop, **rest)
