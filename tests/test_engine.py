"""Live equals backtest, the past is never repainted, and whatever fails means no trade."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instant_training import SETTINGS, InstantTraining, make_maker, make_terms
from series import START_MS, STEP_MS, change, drop, make_candles, recorded_candles, with_flow

from lstm_model.config import Settings
from lstm_model.engine import WalkForwardEngine
from lstm_model.errors import DataError, LstmModelError, StoreError, TrainingError
from lstm_model.journal import Journal, JournalRow
from lstm_model.live import LiveEngine
from lstm_model.market import Candles
from lstm_model.outlook import Frame, Outlook
from lstm_model.sizing import NO_FORECAST, NO_MODEL
from lstm_model.store import ModelStore
from lstm_model.walk_forward import Model, ModelMaker, Slot, slot_at

PAIR = "BTC/USDT"
COUNT, FRAME = 2_000, 400
FIRST = 1_580  # the bot starts here, inside a slot
PERIOD = SETTINGS.retrain_candles
LAG = SETTINGS.training_lag_candles

SERIES = [
    make_candles(COUNT, signal=2.0),
    make_candles(COUNT, signal=2.0, seed=1, pair="ETH/USDT"),
]


@pytest.fixture(autouse=True)
def training(monkeypatch: pytest.MonkeyPatch) -> InstantTraining:
    instant = InstantTraining()
    monkeypatch.setattr("lstm_model.walk_forward.run_training", instant)
    return instant


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    stopped = [thread for thread in threading.enumerate() if thread.name == "lstm-learning"]
    for thread in stopped:
        thread.join(5.0)
    assert not [thread for thread in stopped if thread.is_alive()]


def row_of(time_ms: int) -> int:
    return (time_ms - START_MS) // STEP_MS


def close_of(row: int) -> int:
    return START_MS + (row + 1) * STEP_MS


def now_ms(row: int) -> int:
    """When the bot looks at candle `row`: three seconds after it has closed."""
    return close_of(row) + 3_000


def slot_of(row: int, settings: Settings = SETTINGS) -> Slot:
    """The slot in force when candle `row` closes."""
    return slot_at(close_of(row), STEP_MS, settings)


# The first candle after the bot's start whose close begins the serving of another model.
SWITCH = row_of(slot_of(FIRST).serves_until_ms) - 1


class Bot:
    """Feeds a live engine as freqtrade does: tick, then the newest candles of a pair."""

    def __init__(
        self, root: Path, series: list[Candles] = SERIES, settings: Settings = SETTINGS,
        journal: Any = None, disk: Callable[[str], Candles | None] | None = None,
    ) -> None:  # fmt: skip
        self.series = {candles.pair: candles for candles in series}
        self.close_ms = 0
        self.maker = make_maker(root, series, settings, disk or self.everything_closed)
        url = f"sqlite:///{root / 'journal.sqlite'}"
        self.journal = Journal(url) if journal is None else journal
        lineage = f"binance-spot-5m-{settings.digest()[:8]}"
        self.engine = LiveEngine(self.maker, make_terms(settings), self.journal, lineage)

    def everything_closed(self, pair: str) -> Candles:
        return self.series[pair].between(0, self.close_ms)

    def start(self) -> Bot:
        self.at(FIRST).engine.start(now_ms(FIRST))
        return self

    def at(self, row: int) -> Bot:
        """Candle `row` has closed."""
        self.close_ms = close_of(row)
        return self

    def close_candle(self, row: int, pair: str = PAIR) -> Outlook:
        """Candle `row` closes; the bot looks at the clock, then at the candle."""
        self.at(row).engine.tick(now_ms(row))
        wait_for_learning()
        return self.engine.outlook(self.frame(pair))

    def frame(self, pair: str = PAIR) -> Candles:
        return self.series[pair].between(self.close_ms - FRAME * STEP_MS, self.close_ms)

    def run(self, first: int, stop: int, pair: str = PAIR) -> dict[int, dict[str, Any]]:
        """What was said about each candle when it had just closed, by its number."""
        return {row: facts(self.close_candle(row, pair), -1) for row in range(first, stop)}


def wait_for_learning() -> None:
    for thread in threading.enumerate():
        if thread.name == "lstm-learning":
            thread.join(10.0)


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    made = Bot(tmp_path / "live").start()
    yield made
    made.engine.stop()


def facts(outlook: Outlook, row: int) -> dict[str, Any]:
    """Everything the strategy reads about one candle; floats by their bits."""
    close = np.full(len(outlook.date_ms), 100.0)
    columns = {name: column[row] for name, column in outlook.columns(close).items()}
    columns["quantiles"] = outlook.forecast.quantiles[row].tobytes()
    columns["version"] = outlook.version[row]
    return {
        name: value.tobytes() if isinstance(value, np.floating) else value
        for name, value in columns.items()
    }


def backtest(root: Path, series: list[Candles] = SERIES, first: int = FIRST) -> Outlook:
    engine = WalkForwardEngine(make_maker(root, series), make_terms())
    return engine.outlook(series[0].between(close_of(first - 1), 2**62), skip=0)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outlook, Path]:
    """A backtest over everything, and its store."""
    root = tmp_path_factory.mktemp("past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstm_model.walk_forward.run_training", InstantTraining())
        return backtest(root), root


def is_forecast(outlook: Outlook) -> np.ndarray:
    return np.isfinite(outlook.forecast.mean)


def no_trade(outlook: Outlook) -> bool:
    return bool((outlook.decision.side == 0).all() and not outlook.decision.stake_fraction.any())


def differences(live: dict[int, dict[str, Any]], past: Outlook) -> list[str]:
    rows = {row_of(date_ms): number for number, date_ms in enumerate(past.date_ms.tolist())}
    return [
        f"candle {row}: {name}"
        for row, said in live.items()
        for name, value in facts(past, rows[row]).items()
        if said[name] != value
    ]


# ---------------------------------------------------------------- live is the backtest


def test_the_live_row_is_the_backtest_row_bit_for_bit(bot: Bot, past: tuple[Outlook, Path]) -> None:
    live = bot.run(FIRST, FIRST + 60)
    assert differences(live, past[0]) == []
    assert {said["lstm_side"] for said in live.values()} == {1, -1}


def test_the_live_row_is_the_backtest_row_across_a_change_of_models(
    bot: Bot, past: tuple[Outlook, Path]
) -> None:
    live = bot.run(SWITCH - LAG - 3, SWITCH + 10)
    assert differences(live, past[0]) == []
    assert len({said["version"] for said in live.values()}) == 2


def test_the_live_row_is_the_backtest_row_with_holes_and_empty_candles(tmp_path: Path) -> None:
    empty = change(SERIES[0], FIRST + 20, volume=0.0)
    holed = drop(change(empty, FIRST - 380, close=np.nan), FIRST - 385)
    series = [holed, SERIES[1]]
    bot = Bot(tmp_path / "live", series).start()
    live = bot.run(FIRST, FIRST + 60)
    bot.engine.stop()
    assert differences(live, backtest(tmp_path / "past", series)) == []
    assert [row for row in live if live[row]["lstm_reason"] == NO_FORECAST] == [FIRST + 20]


def test_the_live_row_is_the_backtest_row_with_order_flow(tmp_path: Path) -> None:
    """freqtrade hands over candles without it; both engines must find it again."""
    series = [with_flow(candles, seed=n) for n, candles in enumerate(SERIES)]
    settings = Settings.model_validate(SETTINGS.model_dump() | {"order_flow": True})
    bot = Bot(tmp_path / "live", series, settings)
    bot.frame = lambda pair=PAIR: replace(Bot.frame(bot, pair), flow=None)  # type: ignore[method-assign]
    live = bot.start().run(FIRST, FIRST + 30)
    bot.engine.stop()
    engine = WalkForwardEngine(
        make_maker(tmp_path / "past", series, settings), make_terms(settings)
    )
    handed = replace(series[0].between(close_of(FIRST - 1), 2**62), flow=None)
    assert differences(live, engine.outlook(handed, skip=0)) == []
    blind = [replace(candles, flow=None) for candles in series]
    maker = make_maker(tmp_path / "past", blind, settings, {c.pair: c for c in series}.get)
    unknown = WalkForwardEngine(maker, make_terms(settings)).outlook(handed, skip=0)
    assert differences(live, unknown) != []


def test_the_live_row_is_the_backtest_row_on_recorded_candles(tmp_path: Path) -> None:
    whole = recorded_candles(PAIR, "5m")
    series = [whole.between(START_MS, close_of(2_600))]
    settings = SETTINGS.model_copy(update={"train_candles": 2_000, "retrain_candles": 1_000})
    first = row_of(slot_of(2_500, settings).serves_from_ms)
    bot = Bot(tmp_path / "live", series, settings).start()
    live = bot.run(first, first + 40)
    bot.engine.stop()
    maker = make_maker(tmp_path / "past", series, settings)
    engine = WalkForwardEngine(maker, make_terms(settings))
    past = engine.outlook(series[0].between(close_of(first - 1), 2**62), skip=0)
    assert differences(live, past) == []
    assert all(said["version"] for said in live.values())


def listen(bot: Bot, row: int) -> None:
    """Candle `row` closes and is analysed for every pair, before the clock is looked at."""
    for pair in bot.at(row).series:
        bot.engine.outlook(bot.frame(pair))


def live_through(bot: Bot, boundary: int) -> None:
    """The candles around the end of a model's data, each as in `Bot.close_candle`."""
    for row in range(boundary - 2, boundary + 4):
        bot.at(row).engine.tick(now_ms(row))
        wait_for_learning()
        listen(bot, row)


def test_a_bot_without_new_downloads_trains_the_backtests_models(tmp_path: Path) -> None:
    """The data directory ends before the bot starts; from then on the bot must remember."""
    disk = {candles.pair: candles.rows(0, FIRST) for candles in SERIES}
    bot = Bot(tmp_path / "live", disk=disk.get).start()
    boundaries = [SWITCH - LAG, SWITCH - LAG + PERIOD, SWITCH - LAG + 2 * PERIOD]
    for boundary in boundaries:
        for row in range(boundary - PERIOD + 10, boundary - 2, 50):
            listen(bot, row)
        live_through(bot, boundary)
    bot.engine.stop()
    found = make_maker(tmp_path / "live", SERIES)
    made = [found.find(slot_of(boundary + LAG)) is not None for boundary in boundaries]
    assert made == [True, True, True]


def test_training_waits_for_the_last_candle_of_its_data(tmp_path: Path) -> None:
    """`tick` comes before the analysis of the candle that has just closed."""
    boundary = SWITCH - LAG
    disk = {candles.pair: candles.rows(0, boundary) for candles in SERIES}
    bot = Bot(tmp_path / "live", disk=disk.get).start()
    live_through(bot, boundary)
    bot.engine.stop()
    assert make_maker(tmp_path / "live", SERIES).find(slot_of(SWITCH)) is not None


# ---------------------------------------------------------------- nothing looks ahead


def foresees(outlook: Outlook, store: ModelStore) -> bool:
    """Whether a forecast comes from a model whose data ended after the candle's close."""
    ends = {card.version: card.train_end_ms for card in store.cards()}
    closes = outlook.date_ms + STEP_MS
    pairs = zip(outlook.version, closes.tolist(), strict=True)
    return any(version and ends[version] > close for version, close in pairs)


def test_every_backtest_forecast_comes_from_a_model_of_its_past(past: tuple[Outlook, Path]) -> None:
    outlook, root = past
    assert len(set(outlook.version)) == 4
    assert is_forecast(outlook).all()
    assert not foresees(outlook, ModelStore(root))


def test_a_planted_model_from_the_future_is_caught(tmp_path: Path) -> None:
    maker = make_maker(tmp_path, SERIES)
    later = Model.of(maker.make(slot_of(FIRST + PERIOD)), SETTINGS)
    candles = SERIES[0].rows(0, FIRST + 1)
    outlook = Outlook(PAIR, candles.date_ms, make_terms())
    outlook.fill(later, Frame(candles, SETTINGS), np.array([FIRST]))
    assert foresees(outlook, maker.store)


STOP = 1_800  # from here on the future is another


def prefix_agrees(
    engine_of: Callable[[Path, list[Candles]], WalkForwardEngine], root: Path
) -> bool:
    """Whether forecasts of a backtest stay the same when the future is another."""
    other = [
        change(c, slice(STOP, None), open=90.0, high=99.0, low=80.0, close=85.0) for c in SERIES
    ]
    said = []
    for name, series in (("one", SERIES), ("other", other)):
        outlook = engine_of(root / name, series).outlook(
            series[0].rows(STOP - 99, STOP + 1), skip=0
        )
        said.append([facts(outlook, row) for row in range(99)])
    return bool(said[0] == said[1])


def test_no_forecast_of_a_backtest_depends_on_the_future(tmp_path: Path) -> None:
    assert prefix_agrees(
        lambda root, series: WalkForwardEngine(make_maker(root, series), make_terms()), tmp_path
    )


class Foresighted(ModelMaker):
    """Trains every model on the candles it will be asked about, too."""

    def training_candles(self, slot: Slot) -> list[Candles]:
        return super().training_candles(slot._replace(data_end_ms=slot.serves_until_ms))


def test_a_planted_lookahead_of_the_trainer_is_caught(tmp_path: Path) -> None:
    def engine_of(root: Path, series: list[Candles]) -> WalkForwardEngine:
        history = {candles.pair: candles for candles in series}.get
        maker = Foresighted(SETTINGS, "5m", [c.pair for c in series],
                            ModelStore(root), history)  # fmt: skip
        return WalkForwardEngine(maker, make_terms())

    assert not prefix_agrees(engine_of, tmp_path)


def test_a_second_backtest_trains_nothing_and_says_the_same(
    past: tuple[Outlook, Path], training: InstantTraining
) -> None:
    one, two = past[0], backtest(past[1])
    assert training.jobs == []
    assert [facts(one, row) for row in (0, 99, -1)] == [facts(two, row) for row in (0, 99, -1)]


def test_where_a_backtest_starts_does_not_matter(past: tuple[Outlook, Path]) -> None:
    one, two = past[0], backtest(past[1], first=FIRST + 37)
    for row in (0, 1, 100, 200):
        assert facts(two, row) == facts(one, row + 37)


def test_start_up_candles_are_not_forecast(tmp_path: Path) -> None:
    engine = WalkForwardEngine(make_maker(tmp_path, SERIES), make_terms())
    outlook = engine.outlook(SERIES[0].rows(FIRST, FIRST + 30), skip=20)
    assert is_forecast(outlook).tolist() == [False] * 20 + [True] * 10


def test_a_backtest_that_no_model_can_serve_is_refused(tmp_path: Path) -> None:
    engine = WalkForwardEngine(make_maker(tmp_path, SERIES), make_terms())
    with pytest.raises(DataError, match=r"too little history before it.*earlier --timerange"):
        engine.outlook(SERIES[0].rows(0, 500), skip=0)


def test_a_backtest_begins_where_history_suffices(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = WalkForwardEngine(make_maker(tmp_path, SERIES), make_terms())
    past = engine.outlook(SERIES[0].rows(800, 1_300), skip=0)
    forecast = is_forecast(past)
    begin = int(np.argmax(forecast))
    assert 0 < begin < 500
    assert (past.version[:begin] == "").all()
    assert (past.decision.reason[:begin] == NO_MODEL).all()
    assert forecast[begin:].all()
    assert "No forecasts from" in caplog.text


# ---------------------------------------------------------------- a forecast is a fact


def test_a_promotion_repaints_nothing(bot: Bot) -> None:
    said = bot.run(SWITCH - 20, SWITCH + 20)
    assert differences(said, bot.engine.outlook(bot.frame())) == []
    assert len({fact["version"] for fact in said.values()}) == 2


def test_a_candle_revised_later_changes_no_forecast_made_before(bot: Bot) -> None:
    said = bot.run(FIRST, FIRST + 4)
    revised = change(SERIES[0], slice(FIRST - 2, FIRST + 2), volume=99.0, close=70.0, low=60.0)
    bot.series[PAIR] = revised
    assert differences(said, bot.engine.outlook(bot.frame())) == []
    assert is_forecast(bot.close_candle(FIRST + 4))[-1]


def test_a_new_model_serves_from_its_time_on_and_the_old_one_until_then(bot: Bot) -> None:
    said = bot.run(SWITCH - LAG - 10, SWITCH + 10)
    versions = [fact["version"] for fact in said.values()]
    assert versions[: LAG + 10] == [versions[0]] * (LAG + 10)
    assert versions[LAG + 10 :] == [versions[-1]] * 10
    card = bot.maker.store.load(versions[-1]).card
    assert card.serves_from_ms == close_of(SWITCH)
    assert card.train_end_ms == card.serves_from_ms - LAG * STEP_MS


def test_a_restart_restores_what_was_said(bot: Bot, tmp_path: Path) -> None:
    said = bot.run(SWITCH - 5, SWITCH + 5)
    bot.engine.stop()
    again = Bot(tmp_path / "live").start()
    again.close_ms = bot.close_ms
    assert differences(said, again.engine.outlook(again.frame())) == []
    again.engine.stop()


def test_a_restart_does_not_train_again(
    bot: Bot, tmp_path: Path, training: InstantTraining
) -> None:
    bot.close_candle(FIRST)
    bot.engine.stop()
    again = Bot(tmp_path / "live").start()
    assert again.close_candle(FIRST + 1).version[-1] != ""
    assert len(training.jobs) == 1
    again.engine.stop()


def test_a_restart_before_the_new_model_serves_keeps_the_old_one(bot: Bot, tmp_path: Path) -> None:
    before = bot.run(SWITCH - LAG - 5, SWITCH - 2)
    bot.engine.stop()
    again = Bot(tmp_path / "live").start()
    after = again.run(SWITCH - 2, SWITCH + 2)
    again.engine.stop()
    versions = [fact["version"] for fact in (before | after).values()]
    assert versions[-4:-2] == [versions[0]] * 2
    assert versions[-2] == versions[-1] != versions[0]


def test_forecasts_made_with_other_settings_are_not_shown_as_ours(
    bot: Bot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bot.run(FIRST, FIRST + 3)
    bot.engine.stop()
    changed = SETTINGS.model_copy(update={"levels": (0.1, 0.5, 0.9), "horizon": 4})
    again = Bot(tmp_path / "live", settings=changed).start()
    outlook = again.close_candle(FIRST + 3)
    again.engine.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert is_forecast(outlook)[-1]
    horizons = {
        again.maker.store.load(version).card.settings["horizon"]
        for version in set(outlook.version) - {""}
    }
    assert horizons == {4}


def test_a_longer_lag_holds_for_models_made_with_a_shorter_one(tmp_path: Path) -> None:
    make_maker(tmp_path / "live", SERIES).make(slot_of(SWITCH))
    slow = SETTINGS.model_copy(update={"training_lag_candles": 20})
    bot = Bot(tmp_path / "live", settings=slow).start()
    said = bot.run(SWITCH + 5, SWITCH + 20)
    bot.engine.stop()
    engine = WalkForwardEngine(make_maker(tmp_path / "past", SERIES, slow), make_terms(slow))
    past = engine.outlook(SERIES[0].rows(FIRST, COUNT), skip=0)
    late = {row: fact for row, fact in said.items() if fact["version"]}
    assert [row for row, fact in late.items() if past.version[row - FIRST] != fact["version"]] == []


def test_pairs_are_forecast_each_on_its_own_candles(bot: Bot, tmp_path: Path) -> None:
    live = bot.run(FIRST, FIRST + 5, pair="ETH/USDT")
    maker = make_maker(tmp_path / "live", SERIES)
    past = WalkForwardEngine(maker, make_terms()).outlook(SERIES[1].rows(FIRST, FIRST + 9), skip=0)
    assert differences(live, past) == []


def test_a_pair_the_model_never_saw_gets_forecasts_at_once(bot: Bot) -> None:
    bot.close_candle(FIRST)
    stranger = replace(SERIES[0], pair="NEW/USDT").rows(FIRST - FRAME, FIRST + 1)
    assert is_forecast(bot.engine.outlook(stranger))[-1]


def test_a_bot_with_neither_model_nor_candles_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="freqtrade download-data"):
        Bot(tmp_path / "live", disk={}.get).start()


def test_a_first_start_just_before_a_change_of_models_need_not_wait_for_it(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    first = SWITCH - LAG // 2
    assert is_forecast(bot.close_candle(first))[-1]
    bot.run(first + 1, SWITCH + 1)
    assert len({bot.close_candle(SWITCH).version[row] for row in (-2, -1)}) == 2
    bot.engine.stop()


def test_a_candle_that_is_still_open_is_not_forecast(
    bot: Bot, past: tuple[Outlook, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 1)
    bot.at(FIRST + 1)
    opened = change(SERIES[0], FIRST + 1, volume=1.0).between(0, bot.close_ms)
    with monkeypatch.context() as patch:
        patch.setattr("lstm_model.live.time.time_ns", lambda: (close_of(FIRST) + 2_000) * 1_000_000)
        bot.engine.foresee([opened])
        outlook = bot.engine.outlook(opened)
    assert not is_forecast(outlook)[-1]
    assert outlook.decision.side[-1] == 0
    said = bot.run(FIRST + 1, FIRST + 2)
    assert differences(said, past[0]) == []


# ---------------------------------------------------------------- many pairs at once


def test_what_is_foreseen_for_all_pairs_is_what_each_pair_gets_alone(
    bot: Bot, past: tuple[Outlook, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 1)
    bot.run(FIRST, FIRST + 1, pair="ETH/USDT")
    bot.at(FIRST + 1)
    frames = [bot.frame(PAIR), bot.frame("ETH/USDT")]
    assert all(bot.engine.awaits(c.pair, int(c.date_ms[-1])) for c in frames)
    bot.engine.foresee(frames)
    assert [bot.journal.last(c.pair, "5m").candle_ms for c in frames] == [frames[0].date_ms[-1]] * 2
    monkeypatch.setattr(Model, "forecast", None)  # nothing is left to forecast
    said = {FIRST + 1: facts(bot.engine.outlook(frames[0]), -1)}
    assert differences(said, past[0]) == []
    assert not bot.engine.awaits(PAIR, int(frames[0].date_ms[-1]))


def test_a_fault_while_foreseeing_costs_nothing(
    bot: Bot, past: tuple[Outlook, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.run(FIRST, FIRST + 1)
    bot.at(FIRST + 1)
    monkeypatch.setattr("lstm_model.lstm.Lstm.predict_windows", None)
    bot.engine.foresee([bot.frame()])
    assert differences({FIRST + 1: facts(bot.engine.outlook(bot.frame()), -1)}, past[0]) == []


def test_an_unusable_newest_candle_is_not_foreseen(bot: Bot) -> None:
    bot.run(FIRST, FIRST + 1)
    empty = change(SERIES[0], FIRST + 1, volume=0.0)
    bot.at(FIRST + 1)
    bot.engine.foresee([empty.between(bot.close_ms - FRAME * STEP_MS, bot.close_ms)])
    assert bot.journal.last(PAIR, "5m").candle_ms == SERIES[0].date_ms[FIRST]


# ---------------------------------------------------------------- whatever fails: no trade


class BrokenJournal:
    """Works until told to fail."""

    def __init__(self, root: Path) -> None:
        self._journal = Journal(f"sqlite:///{root / 'journal.sqlite'}")
        self.broken: dict[str, Exception] = {}

    def _check(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    def last(self, pair: str, timeframe: str) -> JournalRow | None:
        self._check("last")
        return self._journal.last(pair, timeframe)

    def read(self, *where: Any) -> list[JournalRow]:
        self._check("read")
        return self._journal.read(*where)

    def record(self, rows: list[JournalRow]) -> None:
        self._check("record")
        self._journal.record(rows)

    def close(self) -> None:
        self._journal.close()


@pytest.mark.parametrize("name", ["read", "record"])
@pytest.mark.parametrize("error", [StoreError("disk full"), RuntimeError("boom"), MemoryError()])
def test_a_journal_that_fails_means_no_trade_until_it_works_again(
    tmp_path: Path, name: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    journal = BrokenJournal(tmp_path)
    bot = Bot(tmp_path / "live", journal=journal).start()
    journal.broken[name] = error
    outlook = bot.close_candle(FIRST)
    assert no_trade(outlook)
    assert not is_forecast(outlook).any()
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
    assert f"{PAIR}: no forecast" in failures[0].message
    assert (failures[0].exc_info is None) == isinstance(error, LstmModelError)
    journal.broken.clear()
    assert is_forecast(bot.close_candle(FIRST + 1))[-2:].all()
    bot.engine.stop()


def test_no_forecast_trades_that_the_journal_does_not_hold(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    outlook = bot.close_candle(FIRST)
    held = Journal(f"sqlite:///{tmp_path / 'live' / 'journal.sqlite'}")
    rows = held.read(PAIR, "5m", 0, 2**62)
    held.close()
    bot.engine.stop()
    made = outlook.date_ms[is_forecast(outlook)]
    assert [row.candle_ms for row in rows] == made.tolist()


@pytest.mark.parametrize("error", [StoreError("weights are gone"), ValueError("bad shape")])
def test_a_model_that_fails_means_no_trade(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bot.close_candle(FIRST)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Model, "forecast", fail)
    assert no_trade(bot.close_candle(FIRST + 1))


def test_versions_missing_from_the_store_count_as_unskilled(bot: Bot, tmp_path: Path) -> None:
    bot.run(FIRST, FIRST + 3)
    bot.engine.stop()
    for folder in (tmp_path / "live" / "models").iterdir():
        folder.rename(tmp_path / folder.name)
    again = Bot(tmp_path / "live").start()
    again.close_ms = bot.close_ms
    assert no_trade(again.engine.outlook(again.frame()))
    again.engine.stop()


def test_an_unusable_store_or_journal_is_noticed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        Bot(tmp_path / "file", journal=BrokenJournal(tmp_path)).start()
    journal = BrokenJournal(tmp_path)
    journal.broken["last"] = StoreError("locked")
    with pytest.raises(StoreError, match="locked"):
        Bot(tmp_path / "live", journal=journal).start()


def test_before_the_first_model_there_is_no_trade(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.at(FIRST)
    outlook = bot.engine.outlook(bot.frame())
    assert no_trade(outlook)
    assert set(outlook.decision.reason) == {NO_MODEL}
    bot.engine.stop()


def _nothing(candles: Candles) -> Candles:
    return candles.rows(0, 0)


def _one(candles: Candles) -> Candles:
    return candles.rows(len(candles) - 1, len(candles))


def _too_few(candles: Candles) -> Candles:
    return candles.rows(len(candles) - 200, len(candles))


def _nan(candles: Candles) -> Candles:
    return change(candles, -1, close=np.nan)


def _all_nan(candles: Candles) -> Candles:
    return change(candles, slice(None), open=np.nan, high=np.nan, low=np.nan, close=np.nan)


def _hole(candles: Candles) -> Candles:
    return drop(candles, slice(-40, -3))


def _no_volume(candles: Candles) -> Candles:
    return change(candles, -1, volume=0.0)


def _crossed(candles: Candles) -> Candles:
    return change(candles, -1, high=1.0)


SPOILERS = [_nothing, _one, _too_few, _nan, _all_nan, _hole, _no_volume, _crossed]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_spoilt_candles_mean_no_trade_and_no_traceback(
    bot: Bot, spoil: Callable[[Candles], Candles], caplog: pytest.LogCaptureFixture
) -> None:
    bot.close_candle(FIRST)
    caplog.clear()
    bot.at(FIRST + 1)
    outlook = bot.engine.outlook(spoil(bot.frame()))
    assert len(outlook.date_ms) == 0 or outlook.decision.side[-1] == 0
    assert not is_forecast(outlook)[-1:].any()
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("spoil", SPOILERS)
def test_spoilt_candles_are_told_in_one_line(
    bot: Bot, spoil: Callable[[Candles], Candles], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bot.close_candle(FIRST)
    bot.at(FIRST + 1)
    frame = spoil(bot.frame())
    caplog.clear()
    bot.engine.outlook(frame)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert PAIR in lines[0]
    assert "no forecast" in lines[0]


def test_after_a_spoilt_candle_forecasts_come_back(bot: Bot) -> None:
    bot.close_candle(FIRST)
    bot.at(FIRST + 1)
    bot.engine.outlook(_no_volume(bot.frame()))
    assert is_forecast(bot.close_candle(FIRST + 2))[-1]


def test_a_candle_without_volume_is_forecast_by_neither_engine(tmp_path: Path) -> None:
    series = [change(SERIES[0], FIRST + 1, volume=0.0), SERIES[1]]
    bot = Bot(tmp_path / "live", series).start()
    live = bot.run(FIRST, FIRST + 3)
    bot.engine.stop()
    past = backtest(tmp_path / "past", series)
    assert is_forecast(past)[:3].tolist() == [True, False, True]
    assert [said["lstm_reason"] == NO_FORECAST for said in live.values()] == [False, True, False]


# ---------------------------------------------------------------- learning in the background


class Blocking(InstantTraining):
    """Trains until it is let go or stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, job: Any, workdir: Any, progress: Any, stop: Any, **rest: Any) -> Any:
        self.begun.set()
        while not self.go.wait(0.005):
            if stop.is_set():
                raise TrainingError("the training was stopped")
        return super().__call__(job, workdir, progress, stop, **rest)


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> Blocking:
    trainer = Blocking()
    monkeypatch.setattr("lstm_model.walk_forward.run_training", trainer)
    return trainer


def learning_threads() -> int:
    return sum(thread.name == "lstm-learning" for thread in threading.enumerate())


def test_the_bot_never_waits_for_a_training(tmp_path: Path, blocking: Blocking) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.at(FIRST)
    started_s = time.monotonic()
    for _ in range(5):
        bot.engine.tick(now_ms(FIRST))
        assert no_trade(bot.engine.outlook(bot.frame()))
    assert time.monotonic() - started_s < 1.0
    assert blocking.begun.wait(5.0)
    assert learning_threads() == 1
    blocking.go.set()
    wait_for_learning()
    assert is_forecast(bot.engine.outlook(bot.frame()))[-1]
    assert len(blocking.jobs) == 1
    bot.engine.stop()


def test_stop_ends_a_training_and_leaves_no_thread(tmp_path: Path, blocking: Blocking) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.at(FIRST)
    bot.engine.tick(now_ms(FIRST))
    assert blocking.begun.wait(5.0)
    bot.engine.stop()
    assert learning_threads() == 0
    assert list(bot.engine.take_news()) == []
    assert not blocking.jobs


def test_stop_before_any_training_is_harmless(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "live").start()
    bot.engine.stop()
    bot.engine.stop()


def test_one_training_per_slot(bot: Bot, training: InstantTraining) -> None:
    bot.run(FIRST, FIRST + 10)
    assert len(training.jobs) == 1
    [news] = bot.engine.take_news()
    assert "skill" in news


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("the training process ended with code 1"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("something unforeseen"),
    ],
)
def test_a_failed_training_is_told_and_tried_again_later_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: InstantTraining, error: Exception
) -> None:
    tried = []

    def fail(*_: Any, **__: Any) -> None:
        tried.append(1)
        raise error

    bot = Bot(tmp_path / "live").start()
    monkeypatch.setattr("lstm_model.walk_forward.run_training", fail)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    bot.run(FIRST, FIRST + 3)
    assert len(tried) == 1
    [news] = bot.engine.take_news()
    assert str(error) in news
    later_s = time.monotonic() + 601.0
    monkeypatch.setattr("lstm_model.background.time.monotonic", lambda: later_s)
    monkeypatch.setattr("lstm_model.walk_forward.run_training", training)
    assert is_forecast(bot.close_candle(FIRST + 3))[-1]
    bot.engine.stop()


def test_after_a_failed_training_the_last_good_model_serves_on(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bot.run(SWITCH - LAG - 3, SWITCH - LAG - 1)

    def fail(*_: Any, **__: Any) -> None:
        raise TrainingError("no")

    monkeypatch.setattr("lstm_model.walk_forward.run_training", fail)
    after = bot.run(SWITCH - LAG - 1, SWITCH + 5)
    assert len({fact["version"] for fact in (before | after).values()}) == 1
    assert "the last good model keeps serving" in list(bot.engine.take_news())[-1]
