"""The one object the strategy holds: candles in, forecasts and decisions out.

`WalkForwardEngine` serves backtest, hyperopt and the bias analyses: it trains what it lacks and
waits. `LiveEngine` serves dry run and live: it answers at once with the model it has and trains in
the background. Both forecast with the same code on the same schedule.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from lstm_model.errors import DataError, LstmModelError, StoreError
from lstm_model.features import WARM_UP
from lstm_model.forecast import Forecast
from lstm_model.journal import Journal, JournalRow
from lstm_model.market import Candles, Ints, timeframe_ms
from lstm_model.outlook import Frame, Outlook, Terms
from lstm_model.sizing import NO_MODEL
from lstm_model.store import StoredModel
from lstm_model.trainer import Progress
from lstm_model.walk_forward import Model, ModelMaker, Slot, slot_at

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 5.0  # chosen: a training reports its progress this often
_RETRY_S = 600.0  # chosen: after a training that failed


class WalkForwardEngine:
    """Forecasts past candles, each with the model that was in force when it closed."""

    def __init__(self, maker: ModelMaker, terms: Terms) -> None:
        self._maker, self._terms = maker, terms
        self._models: dict[int, Model | None] = {}

    def outlook(self, candles: Candles, skip: int) -> Outlook:
        """Forecast every candle but the first `skip`, which only warm up.

        Raises
        ------
        DataError
            No candle can be forecast for want of history before it.
        TrainingError, StoreError
            A model could not be made.
        """
        outlook = Outlook(candles.pair, candles.date_ms, self._terms)
        frame = Frame(self._with_past(candles), self._terms.settings.lookback)
        closes = candles.date_ms[skip:] + candles.step_ms
        for slot, rows in _by_slot(closes, candles.step_ms, self._terms):
            model = self._model(slot)
            if model is not None:
                outlook.fill(model, frame, rows + skip)
        self._refuse_nothing(candles, len(closes))
        return outlook

    def _with_past(self, candles: Candles) -> Candles:
        """The candles with what precedes them in the data directory, enough to warm up."""
        past = self._maker.history(candles.pair)
        if past is None or not len(candles):
            return candles
        first = int(candles.date_ms[0])
        wanted = (WARM_UP + self._terms.settings.lookback) * candles.step_ms
        return past.between(first - wanted, first).then(candles)

    def _model(self, slot: Slot) -> Model | None:
        if slot.data_end_ms not in self._models:
            self._models[slot.data_end_ms] = self._find_or_make(slot)
        return self._models[slot.data_end_ms]

    def _find_or_make(self, slot: Slot) -> Model | None:
        stored = self._maker.find(slot)
        try:
            stored = stored or self._maker.make(slot, _Teller(slot))
        except DataError as error:
            logger.warning("No forecasts from %s on: %s", _day(slot.serves_from_ms), error)
            return None
        model = Model.of(stored, self._terms.settings)
        logger.info("%s", summary(model))
        return model

    def _refuse_nothing(self, candles: Candles, wanted: int) -> None:
        if wanted and not any(self._models.values()):
            raise DataError(
                f"{candles.pair}: not one candle of this time range can be forecast, because there "
                "is too little history before it to train on. Run `freqtrade download-data` with "
                "an earlier --timerange, or start the test later."
            )


def _by_slot(closes: Ints, step_ms: int, terms: Terms) -> Iterator[tuple[Slot, Ints]]:
    """Group rising close times (N,) by the slot in force: the slot and its row numbers."""
    start = 0
    while start < len(closes):
        slot = slot_at(int(closes[start]), step_ms, terms.settings)
        stop = int(np.searchsorted(closes, slot.serves_until_ms))
        yield slot, np.arange(start, stop)
        start = stop


class LiveEngine:
    """Forecasts candles as they close; trains in the background and never makes the bot wait.

    Parameters
    ----------
    lineage : names the champion in the store, e.g. "binance-spot-5m-1f2e3d4c"
    """

    def __init__(self, maker: ModelMaker, terms: Terms, journal: Journal, lineage: str) -> None:
        self._maker, self._terms = maker, terms
        self._journal, self._lineage = journal, lineage
        self._step_ms = timeframe_ms(maker.timeframe)
        self._facts: dict[str, dict[int, JournalRow]] = {}
        self._skilled: dict[str, bool] = {}
        self._told_ms: dict[str, int] = {}
        self._models: tuple[Model, ...] = ()  # the one in force and the next, oldest first
        self._slot: Slot | None = None
        self._retry_at_s = 0.0
        self._stopping = threading.Event()
        self._learning: threading.Thread | None = None
        self.news: deque[str] = deque(maxlen=100)

    def start(self) -> None:
        """Load the champion, if there is one.

        Raises
        ------
        StoreError
            The store or the journal cannot be used; better known before the bot trades.
        """
        self._maker.store.check_writable()
        self._maker.store.remove_leftovers()
        self._journal.last("", self._maker.timeframe)
        for stored in reversed(self._maker.store.champions(self._lineage, 2)):
            self._serve(stored)

    def tick(self, now_ms: int) -> None:
        """Begin a training in the background when the schedule has one due.

        One candle after its data has ended: before, the last candle may not be there yet.
        """
        lead_ms = (self._terms.settings.training_lag_candles - 1) * self._step_ms
        slot = slot_at(now_ms + lead_ms, self._step_ms, self._terms.settings)
        busy = self._learning is not None and self._learning.is_alive()
        if busy or slot == self._slot or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + _RETRY_S  # if it fails, whatever the reason
        self._learning = threading.Thread(target=self._learn, args=(slot,), name="lstm-learning")
        self._learning.start()

    def stop(self) -> None:
        """End a running training and release everything; returns when no thread is left."""
        self._stopping.set()
        if self._learning is not None:
            self._learning.join()
        self._journal.close()

    def outlook(self, candles: Candles) -> Outlook:
        """Forecasts for the candles served so far; whatever fails, the answer is "no trade"."""
        try:
            return self._outlook(candles)
        except LstmModelError as error:
            logger.error("%s: no forecast: %s", candles.pair, error)
        except Exception:
            logger.exception("%s: no forecast", candles.pair)
        return Outlook(candles.pair, candles.date_ms, self._terms)

    def _outlook(self, candles: Candles) -> Outlook:
        if not len(candles):
            raise DataError("the exchange gave no candles")
        self._maker.remember(candles)
        facts = self._known_facts(candles)
        models = self._models  # the learning thread may replace them meanwhile
        made = self._forecast_new(candles, facts, models)
        self._journal.record(made)
        facts.update({row.candle_ms: row for row in made})
        outlook = self._assemble(candles, facts, models)
        newest = int(candles.date_ms[-1])
        if newest > self._told_ms.get(candles.pair, 0):
            self._told_ms[candles.pair] = newest
            logger.info("%s", outlook.line(len(candles) - 1))
        return outlook

    def _known_facts(self, candles: Candles) -> dict[int, JournalRow]:
        """What was forecast for these candles already, by open time; older ones are forgotten."""
        first, end = int(candles.date_ms[0]), int(candles.date_ms[-1]) + 1
        if candles.pair not in self._facts:
            rows = self._journal.read(candles.pair, self._maker.timeframe, first, end)
            ours = set(self._maker.store.promoted(self._lineage))
            rows = [row for row in rows if row.version in ours]
            rows = sorted(rows, key=lambda row: row.created_ms, reverse=True)
            self._facts[candles.pair] = {row.candle_ms: row for row in rows}
        facts = self._facts[candles.pair]
        for candle_ms in [candle_ms for candle_ms in facts if candle_ms < first]:
            del facts[candle_ms]
        return facts

    def _forecast_new(
        self, candles: Candles, facts: dict[int, JournalRow], models: Sequence[Model]
    ) -> list[JournalRow]:
        """Forecast the candles that a model may and none has; the journal comes before trades."""
        new = np.array([n for n, date in enumerate(candles.date_ms.tolist()) if date not in facts])
        if not len(new) or not models:
            return []
        begin = max(0, int(new[0]) - WARM_UP - self._terms.settings.lookback)
        recent, new = candles.rows(begin, len(candles)), new - begin
        frame = Frame(recent, self._terms.settings.lookback)
        outlook = Outlook(candles.pair, recent.date_ms, self._terms)
        for model, rows in self._in_force(models, recent):
            outlook.fill(model, frame, np.intersect1d(rows, new))
        known = np.flatnonzero(np.isfinite(outlook.forecast.mean))
        return [_journal_row(outlook, row, self._maker.timeframe) for row in known.tolist()]

    def _assemble(
        self, candles: Candles, facts: dict[int, JournalRow], models: Sequence[Model]
    ) -> Outlook:
        """The known forecasts in the order of the candles."""
        outlook = Outlook(candles.pair, candles.date_ms, self._terms)
        for model, rows in self._in_force(models, candles):
            outlook.version[rows] = model.card.version
        dates = candles.date_ms.tolist()
        numbers = [number for number, date in enumerate(dates) if date in facts]
        known = [facts[dates[number]] for number in numbers]
        if known:
            outlook.put(np.array(numbers), _as_forecast(known, outlook.forecast.levels))
            versions = [row.version for row in known]
            outlook.restore(numbers, versions, [self._is_skilled(name) for name in versions])
        return outlook

    def _in_force(self, models: Sequence[Model], candles: Candles) -> Iterator[tuple[Model, Ints]]:
        """The models, newest first, and the rows of the candles each may forecast."""
        lag_ms = self._terms.settings.training_lag_candles * self._step_ms
        closes = candles.date_ms + candles.step_ms
        newer = np.full(len(closes), False)
        for model in reversed(models):
            served = (closes >= model.card.train_end_ms + lag_ms) & ~newer
            newer |= served
            yield model, np.flatnonzero(served)

    def _is_skilled(self, version: str) -> bool:
        if version not in self._skilled:
            try:
                model = Model.of(self._maker.store.load(version), self._terms.settings)
                self._skilled[version] = model.is_skilled(self._terms.settings)
            except StoreError as error:
                logger.warning("%s; its forecasts count as unskilled", error)
                self._skilled[version] = False
        return self._skilled[version]

    def _learn(self, slot: Slot) -> None:
        """Runs in its own thread: make the slot's model, let it serve, say so."""
        try:
            stored = self._maker.find(slot) or self._maker.make(
                slot, _Teller(slot), self._stopping, background=True
            )
            self._maker.store.promote(self._lineage, stored.card.version)
            self._serve(stored)
            self._slot, self._retry_at_s = slot, 0.0
        except (LstmModelError, OSError, ValueError, MemoryError) as error:
            if not self._stopping.is_set():
                meanwhile = "the last good model keeps serving" if self._models else NO_MODEL
                self._tell(f"Training failed, {meanwhile}: {error}")

    def _serve(self, stored: StoredModel) -> None:
        if self._models and self._models[-1].card.version == stored.card.version:
            return
        model = Model.of(stored, self._terms.settings)
        self._skilled[model.card.version] = model.is_skilled(self._terms.settings)
        self._models = (*self._models[-1:], model)
        self._tell(summary(model))

    def _tell(self, message: str) -> None:
        logger.info("%s", message)
        self.news.append(message)


def _journal_row(outlook: Outlook, row: int, timeframe: str) -> JournalRow:
    forecast = outlook.forecast
    return JournalRow(
        pair=outlook.pair,
        timeframe=timeframe,
        candle_ms=int(outlook.date_ms[row]),
        version=str(outlook.version[row]),
        quantiles=tuple(forecast.quantiles[row].tolist()),
        volatility=float(forecast.volatility[row]),
        mean=float(forecast.mean[row]),
        low=float(forecast.low[row]),
        high=float(forecast.high[row]),
        reason=str(outlook.decision.reason[row]),
        created_ms=time.time_ns() // 1_000_000,
    )


def _as_forecast(known: Sequence[JournalRow], levels: tuple[float, ...]) -> Forecast:
    return Forecast(
        levels,
        np.array([row.quantiles for row in known]),
        np.array([row.mean for row in known]),
        np.array([row.volatility for row in known]),
    )


class _Teller:
    """Reports a training's progress to the log, not too often."""

    def __init__(self, slot: Slot) -> None:
        self._until = _day(slot.data_end_ms)
        self._told_s = -_TELL_EVERY_S

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            logger.info("Training on candles until %s: %s", self._until, describe(progress))


def describe(progress: Progress) -> str:
    """A training's progress in words."""
    parts = [f"{progress.fraction:4.0%}", progress.stage]
    if progress.epochs:
        parts.append(f"epoch {progress.epoch} of {progress.epochs}")
    if progress.windows_per_s:
        parts.append(f"{progress.windows_per_s:,.0f} windows/s")
    if progress.eta_s is not None:
        parts.append(f"{progress.eta_s:.0f} s left at most")
    return ", ".join(parts)


def summary(model: Model) -> str:
    """A model's card in one line."""
    card = model.card
    skill, scores = card.skill, card.scores["lstm"]
    verdict = "proven" if max(skill["p_value"], skill["p_value_delayed"]) <= 0.05 else "not proven"
    return (
        f"Model {card.version}, trained on {card.windows['train']:,} windows until "
        f"{_day(card.train_end_ms)}: skill {verdict}; R2 against zero {skill['r2_vs_zero']:+.2%} "
        f"(one candle late {skill['r2_vs_zero_delayed']:+.2%}), against ridge "
        f"{skill['r2_vs_ridge']:+.2%}, against reversal {skill['r2_vs_reversal']:+.2%}; interval "
        f"coverage {scores['coverage']:.1%}, Winkler {skill['winkler_vs_zero']:+.2%} against EWMA"
    )


def _day(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms").astype("datetime64[m]")) + "Z"
