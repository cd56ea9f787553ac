"""The forecast inside the candle: one LSTM step for the open candle, renewed as trades arrive.

A base is made for every closed candle: the state of the network after the candles before the open
one. A nowcast takes one step from it, with the open candle completed as `open_candle` says, which
makes it exactly the forecast that a closed candle would get. What completing cannot know is
corrected by measurement: every quarter of a candle has its own tracked interval widths.

Shapes: N pairs, L lookback, F features, K quantile levels.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from lstm_model.features.closed_candle import WARM_UP, compute_features
from lstm_model.features.open_candle import Leading, OpenCandle, followed
from lstm_model.market.candles import LEADING, Candles, Floats, Records, Seen, candle_open_ms
from lstm_model.model.calibration import Label, WidthTracker
from lstm_model.model.forecast import Forecast
from lstm_model.model.lstm import LstmState
from lstm_model.model.model import Model
from lstm_model.settings import Settings

_QUARTERS = 4  # chosen: parts of a candle that are calibrated apart


class Tape(Protocol):
    """What is asked of a `lstm_model.market.tape.TradeTape` here."""

    def newest(self) -> Seen | None: ...

    def seen(self, open_ms: int) -> Seen | None: ...

    def candles(self, start_ms: int, end_ms: int) -> Candles: ...

    def flow(self, start_ms: int, end_ms: int) -> Records: ...


class Nowcast(NamedTuple):
    """A forecast from inside an open candle.

    Attributes
    ----------
    candle_ms : open of the candle
    passed : fraction of the candle that was over
    price : of the newest trade; the returns count from it
    received_ns, made_ns : when that trade arrived and when this was ready, UNIX nanoseconds
    forecast : of one row; log returns over the next `horizon` candles' time
    """

    pair: str
    candle_ms: int
    passed: float
    price: float
    received_ns: int
    made_ns: int
    version: str
    forecast: Forecast

    @property
    def mean(self) -> float:
        """Expected log return from `price`."""
        return float(self.forecast.mean[0])

    @property
    def low(self) -> float:
        """Lower end of the widest interval, log return from `price`."""
        return float(self.forecast.low[0])

    @property
    def high(self) -> float:
        """Upper end of the widest interval, log return from `price`."""
        return float(self.forecast.high[0])


class _Base(NamedTuple):
    """Where the step for the open candle starts from.

    `given_ms` is the open of the newest candle that came from the exchange, not from the tape.
    """

    model: Model
    closed: Candles
    candle: OpenCandle
    state: LstmState
    given_ms: int


class _Led(NamedTuple):
    """What others see of the leader's candle that opened then."""

    open_ms: int
    features: Leading


class _Look(NamedTuple):
    """One pair's open candle as it is now."""

    base: _Base
    seen: Seen
    passed: float
    row: Floats
    volatility: float

    @property
    def pair(self) -> str:
        return self.base.closed.pair


class Nowcaster:
    """The newest forecast of every pair.

    Parameters
    ----------
    tape_of : the trades of a pair, None while it is not followed
    clock_ms : the exchange's time now
    leader : the pair that all see; unknown to them between candles while it is not followed
    is_fresh : whether the trades of a pair are what the exchange traded last
    """

    def __init__(
        self, settings: Settings, tape_of: Callable[[str], Tape | None],
        clock_ms: Callable[[], int], leader: str | None = None,
        is_fresh: Callable[[str], bool] = lambda pair: True,
    ) -> None:  # fmt: skip
        self._settings, self._tape_of, self._clock_ms = settings, tape_of, clock_ms
        self._leader, self._is_fresh = leader, is_fresh
        self._bases: dict[str, _Base] = {}
        self._latest: dict[str, Nowcast] = {}
        self._widths = QuarterWidths(settings)
        self._lock = threading.Lock()

    def latest(self, pair: str) -> Nowcast | None:
        """The newest nowcast of a pair, which may be of a candle that has closed since."""
        return self._latest.get(pair)

    def based_on(self, pair: str) -> int:
        """Open of the newest candle that the pair's base has been given; 0 without one."""
        base = self._bases.get(pair)
        return base.given_ms if base else 0

    def rebase(self, series: Sequence[tuple[Model, Candles]]) -> None:
        """Start from newer closed candles (at least `WARM_UP` + L of each pair)."""
        by_version: dict[str, list[tuple[Model, Candles]]] = defaultdict(list)
        for model, candles in series:
            by_version[model.card.version].append((model, candles))
        made = [base for group in by_version.values() for base in self._bases_of(group)]
        with self._lock:
            self._bases.update({base.closed.pair: base for base in made})

    def forget(self, pairs: Iterable[str]) -> None:
        """Make no nowcast of these pairs until they are rebased."""
        with self._lock:
            for pair in pairs:
                self._bases.pop(pair, None)

    def forget_all_but(self, pairs: Collection[str]) -> None:
        """Let go of all that is known of pairs that left."""
        with self._lock:
            for known in (self._bases, self._latest):
                for pair in known.keys() - set(pairs):
                    del known[pair]
            self._widths.forget_all_but(pairs)

    def refresh(self, pairs: Iterable[str]) -> bool:
        """Renew the nowcasts of these pairs; True when done.

        Pairs without a base or a trade are left alone.
        """
        with self._lock:
            by_version: dict[str, list[_Look]] = defaultdict(list)
            led = self._led_now()
            for pair in pairs:
                if (look := self._look(pair, led)) is not None:
                    by_version[look.base.model.card.version].append(look)
            for looks in by_version.values():
                self._forecast(looks)
        return True

    def _bases_of(self, group: Sequence[tuple[Model, Candles]]) -> Iterator[_Base]:
        """Bases of pairs that share a model, from one pass through it."""
        lookback = self._settings.lookback
        usable = []
        for _, candles in group:
            closed = candles.on_grid()
            closed = closed.rows(max(0, len(closed) - WARM_UP - lookback), len(closed))
            features = compute_features(closed, order_flow=self._settings.order_flow)
            if len(closed) > WARM_UP and features.known[1 - lookback :].all():
                usable.append((closed, features.rows[1 - lookback :]))
        if not usable:
            return
        model = group[0][0]
        states = model.lstm.state_after(np.stack([rows for _, rows in usable]))
        for number, (closed, _) in enumerate(usable):
            candle = self._open(closed)
            given_ms = int(closed.date_ms[-1])
            yield _Base(model, closed, candle, states.rows([number]), given_ms)

    def _open(self, closed: Candles) -> OpenCandle:
        leads = closed.pair == self._leader
        return OpenCandle(closed, order_flow=self._settings.order_flow, leads=leads)

    def _led_now(self) -> _Led | None:
        """The leader's open candle; None while it is not known, which is not as if it stood still.

        Something must have been traded in it, and the stream be fresh.
        """
        if self._leader is None or not self._is_fresh(self._leader):
            return None
        look, tape = self._look(self._leader), self._tape_of(self._leader)
        newest = None if tape is None else tape.newest()
        if look is None or newest is None or newest.open_ms != look.seen.open_ms:
            return None
        return _Led(look.seen.open_ms, look.base.candle.led())

    def _look(self, pair: str, led: _Led | None = None) -> _Look | None:
        tape, base = self._tape_of(pair), self._bases.get(pair)
        if tape is None or base is None or (newest := tape.newest()) is None:
            return None
        step_ms, now_ms = base.closed.step_ms, self._clock_ms()
        open_ms = max(newest.open_ms, int(candle_open_ms(now_ms, step_ms)))
        if open_ms == base.candle.open_ms + step_ms:
            base = self._roll(base, tape)
        if base is None or open_ms != base.candle.open_ms:
            return None
        passed = min(1.0, max(0.0, (now_ms - open_ms) / step_ms))
        seen = newest if newest.open_ms == open_ms else _nothing_yet(newest, open_ms)
        leading = led.features if led is not None and led.open_ms == open_ms else None
        row, volatility = base.candle.row(seen, passed, leading)
        return None if math.isnan(volatility) else _Look(base, seen, passed, row, volatility)

    def _roll(self, base: _Base, tape: Tape) -> _Base | None:
        """The base one candle on, from the tape alone, until the exchange's candle is there.

        None when the tape does not hold every trade of the candle.
        """
        open_ms, step_ms = base.candle.open_ms, base.closed.step_ms
        seen = tape.seen(open_ms)
        if seen is None or seen.coverage < 1.0:
            return None
        leading = self._led_at(open_ms)
        row, _ = base.candle.row(seen, passed=1.0, leading=leading)
        if base.closed.pair == self._leader:
            leading = base.candle.led()
        newer = tape.candles(open_ms, open_ms + step_ms)
        longer = base.closed.then(newer.with_context(followed(base.closed, open_ms, leading)))
        longer = longer.rows(1, len(longer))
        state = base.state.copy()
        base.model.lstm.step(state, row[None])
        candle = self._open(longer)
        rolled = _Base(base.model, longer, candle, state, base.given_ms)
        self._bases[base.closed.pair] = rolled
        return rolled

    def _led_at(self, open_ms: int) -> Leading | None:
        """What is known of the leader's closed candle that opened then."""
        base = self._bases.get(self._leader) if self._leader else None
        if base is None or base.closed.context is None or base.candle.open_ms <= open_ms:
            return None
        newest = base.closed.context[-1]
        if newest["date_ms"] != open_ms:
            return None
        return {name: float(newest[f"leader_{name}"]) for name in LEADING}

    def _forecast(self, looks: Sequence[_Look]) -> None:
        """Nowcasts of pairs that share a model, from one step."""
        model = looks[0].base.model
        state = LstmState.join([look.base.state for look in looks])
        raw = model.lstm.step(state, np.array([look.row for look in looks]))
        volatility = np.array([look.volatility for look in looks])
        due = [number for number, look in enumerate(looks) if self._widths.wants(look)]
        if due:  # once in a quarter of a candle
            _, unscaled = model.calibration.spread(raw[due])
            for number, quantiles in zip(due, unscaled.tolist(), strict=True):
                self._widths.observe(looks[number], quantiles)
        scales = np.array([self._widths.log_scales(look) for look in looks])
        made = model.calibration.scaled(raw, scales, volatility, self._settings.horizon)
        for number, look in enumerate(looks):
            self._latest[look.pair] = _nowcast(look, made.row(number) if len(looks) > 1 else made)


class QuarterWidths:
    """Interval widths tracked for every pair and quarter of a candle.

    The first nowcast of a quarter is remembered until the same quarter `horizon` candles later
    shows what became of it; then the widths of that quarter learn (`WidthTracker`). They start
    from those the model was calibrated with. Reaches stay as calibrated: what happened on the way
    is not remembered here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._quarters: dict[tuple[str, int], _Quarter] = {}

    def log_scales(self, look: _Look) -> list[float]:
        """(M,) log scales in force for this pair's part of the candle."""
        return self._quarter(look).tracker.in_force(look.volatility)

    def wants(self, look: _Look) -> bool:
        """Whether this would be the first of its quarter."""
        pending = self._quarter(look).pending
        return not pending or pending[-1].candle_ms != look.seen.open_ms

    def observe(self, look: _Look, unscaled: list[float]) -> None:
        """Learn from what the price shows now, and remember the first (K,) of each quarter."""
        if not self.wants(look):
            return
        quarter = self._quarter(look)
        candle_ms, price = look.seen.open_ms, look.seen.close
        pending = quarter.pending
        due_ms = candle_ms - self._settings.horizon * look.base.closed.step_ms
        while pending and pending[0].candle_ms < due_ms:
            pending.popleft()
        if pending and pending[0].candle_ms == due_ms:
            then = pending.popleft()
            realized = math.log(price / then.price) / then.unit
            label = Label(realized, math.nan, math.nan, then.volatility)
            quarter.tracker.update(then.unscaled, label)
        unit = look.volatility * math.sqrt(self._settings.horizon)
        pending.append(_Pending(candle_ms, price, unscaled, look.volatility, unit))

    def forget_all_but(self, pairs: Collection[str]) -> None:
        """Let go of pairs that left; who comes back begins with the model's widths."""
        known = self._quarters
        self._quarters = {key: quarter for key, quarter in known.items() if key[0] in pairs}

    def _quarter(self, look: _Look) -> _Quarter:
        key = look.pair, min(_QUARTERS - 1, int(look.passed * _QUARTERS))
        model, known = look.base.model, self._quarters.get(key)
        if known is None or known.version != model.card.version:
            widths = model.calibration.widths_of(look.pair)
            tracker = WidthTracker(self._settings.levels, widths, self._settings.horizon)
            known = _Quarter(model.card.version, tracker, deque(maxlen=self._settings.horizon + 1))
            self._quarters[key] = known
        return known


class _Pending(NamedTuple):
    """A forecast that waits for its outcome.

    `unscaled` (K,) in units of volatility over the horizon, which `unit` is as a log return.
    """

    candle_ms: int
    price: float
    unscaled: list[float]
    volatility: float
    unit: float


class _Quarter(NamedTuple):
    """One pair's part of the candle, for one model."""

    version: str
    tracker: WidthTracker
    pending: deque[_Pending]


def _nothing_yet(before: Seen, open_ms: int) -> Seen:
    """A candle in which nothing was traded since the newest trade, which came before it."""
    price = before.close
    return Seen(
        open_ms, price, price, price, price, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, before.received_ns
    )


def _nowcast(look: _Look, forecast: Forecast) -> Nowcast:
    seen = look.seen
    return Nowcast(
        look.pair, seen.open_ms, look.passed, seen.close, seen.received_ns,
        time.time_ns(), look.base.model.card.version, forecast,
    )  # fmt: skip
