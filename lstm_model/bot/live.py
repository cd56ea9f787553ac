"""Forecasts for a running bot: each candle once, written down before it can cause an order."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lstm_model.errors import DataError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.learning.background import BackgroundLearning
from lstm_model.learning.chain import Learning
from lstm_model.learning.news import Complaints
from lstm_model.market.candles import LEADING, Candles, Ints, timeframe_ms, utc_text
from lstm_model.market.history import closed_by_now, until_now
from lstm_model.model.model import Model
from lstm_model.store.journal import JournalRow
from lstm_model.store.lineage import Lineage
from lstm_model.store.recorder import Recorder
from lstm_model.trading.inside import Guard, InsideCandle
from lstm_model.trading.outlook import Frame, Outlook, Terms
from lstm_model.trading.sizing import ERROR, STALE_MODEL
from lstm_model.trading.told import Memory
from lstm_model.trading.verdicts import Verdicts

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SHOWN_CANDLES = 6_000  # chosen: freqtrade hands over five requests of at most 1,000 candles
_KNOWN_IN_S = 10.0  # chosen: what a start may wait until the journal has told of a hundred pairs


class _Due(NamedTuple):
    """A pair of which the newest candle alone is still to be forecast, by `model`."""

    model: Model
    candles: Candles
    frame: Frame


class LiveEngine:
    """Answers at once with the models it has; a training never makes the bot wait.

    Parameters
    ----------
    journal : kept by this engine alone: it starts and stops it
    lineage : whose head and champions these are
    open_inside : makes what listens to the trade stream between candles; None: candles alone

    Attributes
    ----------
    inside : what listens to the trade stream, if something does
    """

    def __init__(
        self, learning: Learning, terms: Terms, journal: Recorder, lineage: Lineage,
        open_inside: Callable[[Guard], InsideCandle] | None = None,
    ) -> None:  # fmt: skip
        self.terms, self._journal = terms, journal
        self._news: deque[str] = deque(maxlen=100)
        self._complaints = Complaints(self._news.append)
        self._history, self._timeframe = learning.maker.history, learning.maker.timeframe
        self._learning = BackgroundLearning(learning, terms, lineage, journal)
        self.inside = open_inside(self._guarded) if open_inside else None
        self._verdicts = Verdicts(journal, self._timeframe)
        self._schedule, self._pairs = learning.schedule, learning.pairs
        levels, versions = terms.settings.levels, self._learning.versions
        self._memory = Memory(journal, self._timeframe, levels, versions)
        self._told_ms: dict[str, int] = defaultdict(int)
        self._not_led: set[str] = set()  # pairs whose newest forecast does not know the leader

    @property
    def busy(self) -> bool:
        """Whether the learner works in the background now."""
        return self._learning.busy

    def start(self, now_ms: int) -> None:
        """Load the champion, and what was forecast before.

        Raises
        ------
        StoreError
            The store or the journal cannot be used, or another bot learns here; better known
            before the bot trades. Nothing is left open then.
        DataError
            There is no model and nothing to train one on.
        """
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._learning.start(now_ms)
            self._journal.start()
            self._remember(now_ms)
            self._history.prepare(self._pairs)
            if self.inside:
                self.inside.stream.start()
            undo.pop_all()

    def tick(self, now_ms: int, pairs: Collection[str] = ()) -> None:
        """Let the learner go on in the background when a step is due; stream trades of `pairs`."""
        self._guarded("the journal", lambda: self._journal.tick(now_ms, self._step_ms), None)
        self._guarded("the learner", lambda: self._learning.tick(now_ms, pairs), None)
        if self.inside:
            leader = self.leader if self.led_ms else None  # once freqtrade has candles of it
            self.inside.follow({*pairs, *filter(None, [leader])})
        if pairs:
            self._memory.follow(pairs)
        self._guarded("what became of candles", lambda: self._sum_up(now_ms), None)

    def tell(self, text: str) -> None:
        """Let the user hear of something."""
        self._news.append(text)

    def note(self, pair: str, candle_ms: int, reason: str, text: str = "") -> None:
        """Say what became of a candle, see `lstm_model.trading.verdicts`."""
        self._verdicts.note(pair, candle_ms, reason, text)

    def stop(self) -> None:
        """End a running training and release everything; returns when no thread is left."""
        with ExitStack() as ended:  # what fails to end keeps no other from it
            ended.callback(self._journal.stop)
            flush = self._verdicts.flush
            ended.callback(self._guarded, "what became of candles", flush, None)
            ended.callback(self._learning.stop)
            if self.inside:
                self.inside.stream.stop()

    def take_news(self) -> Iterator[str]:
        """What the user should hear of, oldest first; each once."""
        streamed = self.inside.stream.news if self.inside else deque()
        for news in (self._learning.news, streamed, self._news, self._journal.news):
            while news:
                yield news.popleft()

    def veto(self, pair: str, side: int, rate: float) -> str:
        """What the trade stream has against an entry (`side` 1 long, -1 short): a code, or ""."""
        inside = self.inside
        if inside is None:
            return ""
        return self._guarded(pair, lambda: inside.veto(pair, side, rate), ERROR)

    def wants_exit(self, pair: str, side: int, rate: float) -> bool:
        """Whether the forecast has turned against a position inside the candle."""
        inside = self.inside
        if inside is None:
            return False
        return self._guarded(pair, lambda: inside.wants_exit(pair, side, rate), False)

    def coverage(self, pair: str) -> float:
        """Share of the newest trades that are known; 1.0 without a trade stream."""
        inside = self.inside
        if inside is None:
            return 1.0
        return self._guarded(pair, lambda: inside.coverage(pair), 0.0)

    def awaits(self, pair: str, newest_ms: int) -> bool:
        """Whether `foresee` could spare `outlook` the work for this newest candle."""
        return newest_ms > self._told_ms[pair] > 0

    @property
    def leader(self) -> str | None:
        """The pair whose candles all forecasts look at, if there is one."""
        return self._history.leader

    @property
    def led_ms(self) -> int:
        """Open of the leader's newest closed candle that was seen; 0 before the first."""
        until = self._history.seen_until([self.leader] if self.leader else [])
        return min(until.values()) - self._step_ms if until else 0

    def lead(self, candles: Candles) -> None:
        """Take note of the leader's candles, before those of the others are forecast."""
        self._guarded(candles.pair, lambda: self._lead(closed_by_now(candles)), None)

    def foresee(self, series: Sequence[Candles]) -> None:
        """Forecast the newest candle of many pairs in one pass, for `outlook` to find.

        What cannot be forecast here is left to `outlook`, pair by pair. What became of the candles
        before is written down now, when the loop has work anyway.
        """
        if series:
            self._guarded("what became of candles", self._verdicts.flush, None)
            self._guarded("all pairs", lambda: self._foresee(series), None)

    def read(self, frame: Any, pair: str) -> Candles | None:
        """The candles of freqtrade's frame; None if they are refused: this pair is left out."""
        return self._guarded(pair, lambda: Candles.from_frame(frame, pair, self._timeframe), None)

    def outlook(self, candles: Candles) -> Outlook:
        """Forecasts for the candles served so far; whatever fails, the answer is "no trade".

        What was said before stays to be seen: a strategy may hold a position by it.
        """
        made = self._guarded(candles.pair, lambda: self._outlook(candles), None)
        return self._only_known(candles) if made is None else made

    def _only_known(self, candles: Candles) -> Outlook:
        outlook = self.nothing(candles.pair, candles.date_ms)
        found = self._memory.known(candles.pair).of(candles.date_ms)
        outlook.put(found.rows, found.forecast)
        outlook.version[found.rows] = found.versions
        return outlook

    def nothing(self, pair: str, date_ms: Ints) -> Outlook:
        """What is said of candles of which nothing may be said: no trade."""
        nothing = Outlook(pair, date_ms, self.terms)
        nothing.gate[:] = ERROR
        return nothing

    def _guarded(self, name: str, work: Callable[[], Answer], otherwise: Answer) -> Answer:
        """The outer frame: a fault of ours costs a forecast, never the bot."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is "no trade"
            self._complaints.take(name, error)
        return otherwise

    def _lead(self, closed: Candles) -> None:
        closed = self._history.with_flow(closed)
        self._history.remember(closed)
        self._rebase(closed)  # the others see it between candles, too

    def _sum_up(self, now_ms: int) -> None:
        """Sum up for the user what became of candles: once a step, and on a start."""
        self._news.extend(self._verdicts.sum_up(self._schedule.last_boundary(now_ms)))

    def _remember(self, now_ms: int) -> None:
        """Know what was forecast for the candles that will be shown, while the bot has time."""
        newest_ms = now_ms - now_ms % self._step_ms - self._step_ms
        self._memory.begin(newest_ms - SHOWN_CANDLES * self._step_ms, newest_ms)
        self._memory.follow(self._pairs)
        if self._journal.answers:
            self._journal.settle(_KNOWN_IN_S)

    @property
    def _step_ms(self) -> int:
        return timeframe_ms(self._timeframe)

    def _foresee(self, series: Sequence[Candles]) -> None:
        by_version: dict[str, list[_Due]] = defaultdict(list)
        for candles in series:
            nothing: tuple[_Due, ...] = ()
            for due in self._guarded(candles.pair, partial(self._due, candles), nothing):
                by_version[due.model.card.version].append(due)
        self._memory.keep(
            [row for together in by_version.values() for row in self._at_once(together)]
        )
        if self.inside:
            self.inside.rebase(
                [(due.model, due.candles) for together in by_version.values() for due in together]
            )

    def _due(self, candles: Candles) -> tuple[_Due, ...]:
        return tuple(self._newest_alone(self._with_flow(closed_by_now(candles))))

    def _newest_alone(self, candles: Candles) -> Iterator[_Due]:
        """The pair, if exactly its newest candle is due and a model may forecast it."""
        if not len(candles) or self._first_new(candles) != len(candles) - 1:
            return
        recent = self._recent(candles, len(candles) - 1)
        frame = Frame(recent, self.terms.settings)
        for model, rows in self._learning.in_force(recent):
            if len(recent) - 1 in rows and frame.usable[-1]:
                self._tell_if_not_led(recent)
                yield _Due(model, recent, frame)

    def _at_once(self, together: Sequence[_Due]) -> Iterator[JournalRow]:
        """Forecasts of pairs that share a model, from one pass through it."""
        lookback = self.terms.settings.lookback
        windows = np.stack([due.frame.features.rows[-lookback:] for due in together])
        raw = together[0].model.lstm.predict_windows(windows)
        for (model, candles, frame), output in zip(together, raw[:, None], strict=True):
            outlook = Outlook(candles.pair, candles.date_ms[-1:], self.terms)
            volatility = frame.features.volatility[-1:]
            outlook.admit(model, np.array([0]))
            outlook.put(np.array([0]), model.calibrated(candles.pair, output, volatility))
            yield _journal_row(outlook, 0, self._timeframe)

    def _outlook(self, candles: Candles) -> Outlook:
        if not len(candles):
            raise DataError("the exchange gave no candles")
        closed = self._with_flow(closed_by_now(candles))
        self._history.remember(closed)
        self._memory.keep(self._forecast_new(closed))
        self._rebase(closed)
        outlook = self._assemble(candles)
        past = self._without_future(candles)
        newest = int(past.date_ms[-1]) if len(past) else 0
        if newest > self._told_ms[candles.pair]:
            self._told_ms[candles.pair] = newest
            logger.info("%s", outlook.line(len(past) - 1))
        return outlook

    def _without_future(self, candles: Candles) -> Candles:
        """The candles but those that nobody can have seen yet, which are named."""
        past = until_now(candles)
        if len(past) < len(candles):
            opened = utc_text(candles.date_ms[len(past)])
            error = DataError(f"the candle of {opened} lies in the future and is left out")
            self._complaints.take(candles.pair, error)
        return past

    def _with_flow(self, closed: Candles) -> Candles:
        """The candles with the order flow that is stored, the newest of it by the stream."""
        inside = self.inside
        if inside:
            self._guarded(closed.pair, lambda: inside.save_flow(closed), None)
        return self._history.with_flow(closed)

    def _rebase(self, closed: Candles) -> None:
        """Let the forecasts inside the candle start from these closed ones."""
        if self.inside and len(closed):
            recent = self._recent(closed, len(closed) - 1)
            for model, rows in self._learning.in_force(recent):
                if len(recent) - 1 in rows:
                    self.inside.rebase([(model, recent)])

    def _first_new(self, candles: Candles) -> int:
        """Number of the first candle after the newest that was forecast."""
        newest_ms = self._memory.newest_ms(candles.pair)
        return int(np.searchsorted(candles.date_ms, newest_ms, side="right"))

    def _recent(self, candles: Candles, first: int) -> Candles:
        """The candles that forecasting from number `first` on looks at, with their context."""
        begin = first - WARM_UP - self.terms.settings.lookback
        return self._history.with_context(candles.rows(max(0, begin), len(candles)))

    def _forecast_new(self, candles: Candles) -> list[JournalRow]:
        first = self._first_new(candles) if len(candles) else 0
        if first == len(candles) or not self._learning.serves():
            return []
        recent = self._recent(candles, first)
        frame = Frame(recent, self.terms.settings)
        outlook = Outlook(candles.pair, recent.date_ms, self.terms)
        new = first - len(candles) + len(recent)
        for model, rows in self._learning.in_force(recent):
            outlook.fill(model, frame, rows[rows >= new])
        known = np.flatnonzero(np.isfinite(outlook.forecast.mean))
        if len(known) and known[-1] == len(recent) - 1:
            self._tell_if_not_led(recent)
        return [_journal_row(outlook, row, self._timeframe) for row in known.tolist()]

    def _tell_if_not_led(self, recent: Candles) -> None:
        """Say when forecasts begin and cease to be made without the leader."""
        if self.leader is None or recent.context is None:
            return
        pair, is_led = recent.pair, bool(np.isfinite(recent.context[f"leader_{LEADING[0]}"][-1]))
        if is_led == (pair not in self._not_led):
            return
        (self._not_led.discard if is_led else self._not_led.add)(pair)
        text = "with %s again" if is_led else "without %s, whose candle is not known"
        level = logging.INFO if is_led else logging.WARNING
        opened = utc_text(recent.date_ms[-1])
        logger.log(level, f"%s: the candle of %s is forecast {text}", pair, opened, self.leader)

    def _assemble(self, candles: Candles) -> Outlook:
        """The known forecasts in the order of the candles."""
        outlook = Outlook(candles.pair, candles.date_ms, self.terms)
        told = self._memory.of(candles.pair)
        told.forget_before(int(candles.date_ms[0]))
        found = told.of(candles.date_ms)
        outlook.put(found.rows, found.forecast)
        for model, rows in self._learning.in_force(candles):
            outlook.admit(model, rows)
        stale = candles.date_ms + candles.step_ms > self._learning.stale_from_ms()
        outlook.gate[stale] = STALE_MODEL
        others = found.versions != outlook.version[found.rows]
        rows, versions = found.rows[others], found.versions[others]
        skilled = {version: self._learning.is_skilled(version) for version in set(versions)}
        outlook.credit(rows, versions, skilled)
        if not self._journal.keeps:  # what is not written down is not acted upon
            outlook.gate[-1:] = ERROR
        return outlook


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
        mean_error=float(forecast.mean_error[row]),
        lowest=float(forecast.lowest[row]),
        highest=float(forecast.highest[row]),
        far=forecast.known_far(row),
        reason=str(outlook.decision.reason[row]),
        created_ms=time.time_ns() // 1_000_000,
    )
