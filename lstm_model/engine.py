"""Forecasts for a study of the past: backtest, hyperopt, the bias analyses, plots.

It trains the models it lacks and waits for them. `lstm_model.live` answers for a running bot; both
forecast with the same code on the same schedule.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from lstm_model.errors import DataError
from lstm_model.features import WARM_UP
from lstm_model.market import Candles, Ints
from lstm_model.outlook import Frame, Outlook, Terms
from lstm_model.walk_forward import Model, ModelMaker, Slot, slot_at
from lstm_model.wording import Teller, minute, summary

logger = logging.getLogger(__name__)


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
        frame = Frame(self._with_past(candles), self._terms.settings)
        closes = candles.date_ms[skip:] + candles.step_ms
        for slot, rows in _by_slot(closes, candles.step_ms, self._terms):
            model = self._model(slot)
            if model is not None:
                outlook.fill(model, frame, rows + skip)
        self._refuse_nothing(candles, len(closes))
        return outlook

    def _with_past(self, candles: Candles) -> Candles:
        """The candles with what the data directory adds: those before, to warm up, and flow."""
        candles, past = self._maker.with_flow(candles), self._maker.history(candles.pair)
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
            stored = stored or self._maker.make(slot, Teller(slot))
        except DataError as error:
            logger.warning("No forecasts from %s on: %s", minute(slot.serves_from_ms), error)
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
