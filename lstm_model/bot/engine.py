"""Forecasts for a study of the past: backtest, hyperopt, the bias analyses, plots.

It walks the chain of the learner's steps and waits for the models it lacks. `lstm_model.bot.live`
answers for a running bot; both forecast with the same code on the same schedule.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from lstm_model.errors import DataError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.learning.chain import Learning
from lstm_model.learning.learner import Wish
from lstm_model.learning.run import SCRATCH, Ahead, Run
from lstm_model.learning.steps import Step
from lstm_model.learning.wording import Teller, WalkTeller, event_line, minute
from lstm_model.market.candles import Candles, Ints
from lstm_model.market.history import digest_of, until_now
from lstm_model.model.dataset import Panels
from lstm_model.model.forecast import Forecast
from lstm_model.trading.foreseen import Foreseen
from lstm_model.trading.outlook import Frame, Outlook, Terms
from lstm_model.training.maker import Training

logger = logging.getLogger(__name__)

_FORESEEN = Foreseen()  # by all strategies of this process


class WalkForwardEngine:
    """Forecasts past candles, each with what the learner had come to when it closed.

    Parameters
    ----------
    begin_ms : when the study begins; the chain of steps reaches back to the retraining before.
        None: with the first candle it is asked for
    """

    def __init__(self, learning: Learning, terms: Terms, begin_ms: int | None = None) -> None:
        self._learning, self.terms, self._begin_ms = learning, terms, begin_ms
        self._maker, self._schedule = learning.maker, learning.schedule
        self._steps: dict[int, Step] = {}  # by boundary, rising

    def outlook(self, candles: Candles, skip: int) -> Outlook:
        """Forecast every candle of the study, and of those that warm up the last `horizon`.

        What those say of the first candles of the study is shown there (`lstm_due_low`), wherever
        a study begins. No step is made for their sake: where the chain of steps begins with the
        study, nobody had forecast before, and there is nothing to show of the first `horizon`.

        Parameters
        ----------
        skip : candles that warm up, where the study has no beginning; else what is before that.
            freqtrade may hand over more of them than were asked for, for another strategy

        Raises
        ------
        DataError
            No candle can be forecast for want of history before it, or one lies in the future.
        TrainingError, StoreError
            A model could not be made.
        """
        outlook = Outlook(candles.pair, candles.date_ms, self.terms)
        if len(until_now(candles)) < len(candles):  # steps would be walked until then
            newest = minute(int(candles.date_ms[-1]))
            raise DataError(f"{candles.pair}: the candle of {newest} lies in the future")
        if self._begin_ms is not None:
            skip = int(np.searchsorted(candles.date_ms, self._begin_ms))
        closes = candles.date_ms[skip:] + candles.step_ms
        if not len(closes):
            return outlook
        self._walk(*(self._schedule.boundary_at(int(closes[end])) for end in (0, -1)))
        lead_ms = int(candles.date_ms[skip]) - self.terms.settings.horizon * candles.step_ms
        lead = int(np.searchsorted(candles.date_ms, lead_ms))
        closes = candles.date_ms[lead:] + candles.step_ms
        served = [(step, rows + lead) for step, rows in self._by_step(closes)]
        outlook.forecast = self._forecast(candles, outlook, served)
        for step, rows in served:
            outlook.admit(step.model, rows)
        if not self._steps:
            raise DataError(
                f"{candles.pair}: not one candle of this time range can be forecast, because there "
                "is too little history before it to train on. Run `freqtrade download-data"
                f"{self._maker.words} --prepend` with an earlier --timerange, or start the test "
                "later."
            )
        return outlook

    def _forecast(
        self, candles: Candles, outlook: Outlook, served: Sequence[tuple[Step, Ints]]
    ) -> Forecast:
        """That of every candle by the step that serves it: found, or made."""
        series = self._with_past(candles)

        def make() -> Forecast:
            frame = Frame(series, self.terms.settings)
            for step, rows in served:
                outlook.fill(step.model, frame, rows)
            return outlook.forecast

        steps = [f"{step.address} {rows[0]} {rows[-1]}" for step, rows in served]
        frame = f"{candles.date_ms[0]} {len(candles)}"
        data = digest_of([series], self.terms.settings)
        # An address says what was asked for: trained elsewhere, its weights may differ in bits.
        store = str(self._maker.store.root.resolve())
        return _FORESEEN.find((store, data, frame, *steps), make)

    def _with_past(self, candles: Candles) -> Candles:
        """The candles with what the data directory adds: those before, to warm up, and flow."""
        history = self._maker.history
        candles = history.with_context(history.with_flow(candles))
        past = history.of(candles.pair)
        if past is None:
            return candles
        first = int(candles.date_ms[0])
        wanted = (WARM_UP + self.terms.settings.lookback) * candles.step_ms
        return past.between(first - wanted, first).then(candles)

    def _walk(self, first_ms: int, last_ms: int) -> None:
        """Make the steps from the chain's origin to the boundary `last_ms`."""
        with self._ahead(first_ms, last_ms) as ahead:
            run = Run(self._maker.history.of, _lesson, network=ahead.network)
            step = next(reversed(self._steps.values()), None) or self._begin(first_ms, last_ms, run)
            if step is not None:
                tell = WalkTeller(self._schedule, step.boundary_ms, last_ms)
                origin_ms = next(iter(self._steps))
                for later in self._learning.walk(origin_ms, last_ms, run, step):
                    self._take(later)
                    tell(later.boundary_ms, ahead.ready)

    def _ahead(self, first_ms: int, last_ms: int) -> Ahead:
        """What trains the networks of this walk, from when on the first of them is needed."""
        return Ahead(
            partial(self._maker.material, panels=Panels()),
            self._maker.scratch,
            partial(_lesson, SCRATCH),
            self._schedule.retrainings(first_ms, last_ms),
            self._maker.settings.train_threads,
        )

    def _begin(self, first_ms: int, last_ms: int, run: Run) -> Step | None:
        """The chain's first step, at the first retraining for which there is enough history."""
        if self._begin_ms is not None:
            first_ms = min(first_ms, self._schedule.boundary_at(self._begin_ms))
        boundary_ms = self._learning.origin_of(first_ms)
        while boundary_ms <= last_ms:
            try:
                step = self._learning.origin(boundary_ms, run)
            except DataError as error:
                logger.warning("No forecasts from %s on: %s", minute(boundary_ms), error)
            else:
                self._take(step)
                return step
            boundary_ms += self._schedule.step_ms
            while not self._schedule.retrains_at(boundary_ms):
                boundary_ms += self._schedule.step_ms
        return None

    def _take(self, step: Step) -> None:
        self._steps[step.boundary_ms] = step
        for event in step.events:
            line = event_line(event, self._learning.card)
            logger.info("%s %s", minute(step.boundary_ms), line)

    def _by_step(self, closes: Ints) -> Iterator[tuple[Step, Ints]]:
        """Group rising close times (N,) by the step in force: the step and its row numbers."""
        start = 0
        while start < len(closes):
            boundary_ms = self._schedule.boundary_at(int(closes[start]))
            until_ms = boundary_ms + self._schedule.step_ms + self._schedule.lag_ms
            stop = int(np.searchsorted(closes, until_ms))
            if boundary_ms in self._steps:
                yield self._steps[boundary_ms], np.arange(start, stop)
            start = stop


def _lesson(wish: Wish, boundary_ms: int) -> Training:
    return Training(Teller(wish, boundary_ms))
