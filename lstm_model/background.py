"""Training while the bot trades: keeps the models that serve and makes the next when it is due."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from lstm_model.errors import LstmModelError, StoreError
from lstm_model.market import Candles, Ints, timeframe_ms
from lstm_model.outlook import Terms
from lstm_model.sizing import NO_MODEL
from lstm_model.store import StoredModel
from lstm_model.walk_forward import Model, ModelMaker, Slot, slot_at
from lstm_model.wording import Teller, summary

logger = logging.getLogger(__name__)

_RETRY_S = 600.0  # chosen: after a training that failed


class BackgroundTraining:
    """The models of one lineage, and at most one thread that trains the next.

    Attributes
    ----------
    models : the one in force and the next, oldest first; replaced, never changed
    news : what the user should hear of, oldest first

    Parameters
    ----------
    lineage : names the champion in the store, e.g. "binance-spot-5m-1f2e3d4c"
    """

    def __init__(self, maker: ModelMaker, terms: Terms, lineage: str) -> None:
        self.models: tuple[Model, ...] = ()
        self.news: deque[str] = deque(maxlen=100)
        self._maker, self._terms, self._lineage = maker, terms, lineage
        self._step_ms = timeframe_ms(maker.timeframe)
        self._skilled: dict[str, bool] = {}
        self._slot: Slot | None = None
        self._retry_at_s = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, now_ms: int) -> None:
        """Load the last champions.

        Raises
        ------
        StoreError
            The store cannot be used; better known before the bot trades.
        DataError
            There is no model and nothing to train one on.
        """
        self._maker.store.check_writable()
        self._maker.store.remove_leftovers()
        for stored in reversed(self._maker.store.champions(self._lineage, 2)):
            self._serve(stored)
        if not self.models:
            self._maker.check_history(slot_at(now_ms, self._step_ms, self._terms.settings))

    def tick(self, now_ms: int) -> None:
        """Begin a training when the schedule has one due; returns at once.

        The first is of the model in force now. Later ones begin one candle after their data has
        ended: before, the last candle may not be there yet.
        """
        lead_ms = (self._terms.settings.training_lag_candles - 1) * self._step_ms
        ahead_ms = lead_ms if self.models else 0
        slot = slot_at(now_ms + ahead_ms, self._step_ms, self._terms.settings)
        busy = self._thread is not None and self._thread.is_alive()
        if busy or slot == self._slot or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + _RETRY_S  # if it fails, whatever the reason
        self._thread = threading.Thread(target=self._learn, args=(slot,), name="lstm-learning")
        self._thread.start()

    def stop(self) -> None:
        """End a running training; returns when no thread is left."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def versions(self) -> set[str]:
        """Every version that was ever champion here."""
        return set(self._maker.store.promoted(self._lineage))

    def in_force(self, candles: Candles) -> Iterator[tuple[Model, Ints]]:
        """The models, newest first, and the rows of the candles each may forecast."""
        lag_ms = self._terms.settings.training_lag_candles * self._step_ms
        closes = candles.date_ms + candles.step_ms
        newer = np.full(len(closes), False)
        for model in reversed(self.models):
            served = (closes >= model.card.train_end_ms + lag_ms) & ~newer
            newer |= served
            yield model, np.flatnonzero(served)

    def is_skilled(self, version: str) -> bool:
        """Whether a stored version has proven skill; one that cannot be read has not."""
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
                slot, Teller(slot), self._stopping, background=True
            )
            self._maker.store.promote(self._lineage, stored.card.version)
            self._serve(stored)
            self._slot, self._retry_at_s = slot, 0.0
        except (LstmModelError, OSError, ValueError, MemoryError) as error:
            if not self._stopping.is_set():
                meanwhile = "the last good model keeps serving" if self.models else NO_MODEL
                self._tell(f"Training failed, {meanwhile}: {error}")

    def _serve(self, stored: StoredModel) -> None:
        if self.models and self.models[-1].card.version == stored.card.version:
            return
        model = Model.of(stored, self._terms.settings)
        self._skilled[model.card.version] = model.is_skilled(self._terms.settings)
        self.models = (*self.models[-1:], model)
        self._tell(summary(model))

    def _tell(self, message: str) -> None:
        logger.info("%s", message)
        self.news.append(message)
