"""The forecast's stop of every trade: where it is set, and what its closed trades taught it.

A stop is a function of closed candles and closed trades: of what was known when its candle opened,
live as in a backtest. It stands where it was set, unless the user lets it trail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from freqtrade.persistence import Trade
from pandas import DataFrame

from lstm_model.bot import insides
from lstm_model.market.candles import candle_open_ms, timeframe_ms
from lstm_model.model.forecast import FAR_NAMES
from lstm_model.model.reach import reach_within
from lstm_model.risk.entry import Entry, side_of
from lstm_model.trading.analyzed import newest, opened_ms
from lstm_model.trading.experience import Experience
from lstm_model.trading.stop import (
    before_liquidation,
    has_passed,
    most_before_liquidation,
    stop_price,
    tighter,
)

_STOP_FACT = "lstm_stop"  # of `/list_custom_data`
_LATE = timedelta(hours=1)  # chosen: by which a bot may hear of a fill after a later one
_NEVER_LIQUIDATED = 0.3  # of the stake: half may have to be kept, see `most_before_liquidation`
_SLIP = 0.001  # chosen: fraction of the price by which a fill at a stop may miss it


class Plan(NamedTuple):
    """The stop of a trade: its price when it was set, and the log return it allows against it.

    `is_hard`: it is no farther than `stoploss` allows, where the forecast's would be.
    """

    rate: float
    reach: float
    is_hard: bool = False

    def facts(self, first: float) -> dict[str, Any]:
        """What is written down with a trade beside where it would be stopped first."""
        forecasts = {} if self.rate == first else {"forecasts": self.rate}
        return {"reach": self.reach, **forecasts, **({"is_hard": True} if self.is_hard else {})}


class Stops:
    """The forecast's stops of one strategy, a `LSTMRisk`."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._since = datetime.min
        self._forget()

    def hold_candles(self, entry: Entry, now_ms: int) -> float | None:
        """How long the trade is expected to last; None while too little is known."""
        settings = self._strategy.lstm_settings
        if settings.hold_candles is not None:
            return float(settings.hold_candles)
        if entry.is_forecasts or self._strategy.lstm_holds_horizon:
            return float(settings.horizon)
        typical_ms = self._learnt(now_ms).typical_ms
        return None if typical_ms is None else typical_ms / self._step_ms

    def planned(self, entry: Entry) -> Plan | None:
        """The stop of an entry by the newest candle; None without a forecast."""
        frame = self._strategy.lstm_analyzed(entry.pair)
        plan = self._plan(entry, frame)
        self._proposed[entry.pair, entry.side] = opened_ms(frame) + self._step_ms, plan
        return plan

    def of(self, trade: Trade) -> Plan | None:
        """The stop of a trade that is open; as it was planned when it was entered."""
        self._follow_source()
        key = trade.id, trade.open_date_utc
        if key not in self._plans:
            known = self._written(trade)
            self._plans[key] = self._planned_then(trade) if known is None else _plan_in(known)
        return self._plans[key]

    def in_force(self, trade: Trade, current_rate: float) -> float | None:
        """Where the trade is to be stopped now, or None: there is no stop of the forecast."""
        plan, settings = self.of(trade), self._strategy.lstm_settings
        if plan is None or not settings.stop_trails:
            return None if plan is None else plan.rate
        inside = settings.inside_exits and self._strategy._lstm_live
        frame = self._strategy.lstm_analyzed(trade.pair)
        close, side = current_rate if inside else newest(frame, "lstm_close"), side_of(trade)
        return tighter(plan.rate, close * math.exp(-side * plan.reach), side)

    def farthest(self, trade: Trade, current_rate: float) -> float | None:
        """Where the trade is to be stopped at the latest: by the forecast, and inside liquidation.

        None: its own stop is the only one.
        """
        stop = self.in_force(trade, current_rate) if self._strategy._lstm_may_stop() else None
        side = side_of(trade)
        ruin = before_liquidation(trade.open_rate, trade.liquidation_price, side)
        return tighter(stop, ruin, side)

    def hard_fraction(self, entry: Entry) -> float:
        """Of the price, at which it is stopped whatever is forecast: `stoploss`, or liquidation."""
        strategy = self._strategy
        hard = abs(float(strategy.stoploss)) / entry.leverage
        exchange = insides.exchange_of(strategy.dp)
        if not may_be_liquidated(strategy) or exchange is None:
            return hard
        worth = entry.proposed * entry.leverage
        kept = insides.maintenance_rate(exchange, entry.pair, worth)
        buffer = float(strategy.config.get("liquidation_buffer", 0.05))  # freqtrade's default
        return min(hard, most_before_liquidation(entry.leverage, kept, buffer))

    def _plan(self, entry: Entry, frame: DataFrame) -> Plan | None:
        """By the newest candle of a frame."""
        now_ms = opened_ms(frame) + self._step_ms
        hold, side = self.hold_candles(entry, now_ms), "lowest" if entry.side > 0 else "highest"
        if hold is None:
            return None
        others = [newest(frame, f"lstm_{name}") for name in FAR_NAMES if name.startswith(side)]
        first = newest(frame, f"lstm_{side}")
        reach = reach_within(hold, self._strategy.lstm_settings.horizon, first, others)
        multiple = self._strategy._lstm_parameter("stop_multiple") * self._learnt(now_ms).factor
        hard = self.hard_fraction(entry)
        close = newest(frame, "lstm_close")
        rate = stop_price(close, reach, multiple, entry.side, hard)
        if rate is None:
            return None
        is_hard = rate == close * (1.0 - entry.side * hard)
        return Plan(rate, abs(math.log(rate / close)), is_hard)

    def _planned_then(self, trade: Trade) -> Plan | None:
        frame = self._strategy.lstm_analyzed(trade.pair)
        opened = self._candle_ms(trade.open_date_utc)
        # An order may be filled candles later, when more trades are known.
        proposed_ms, plan = self._proposed.get((trade.pair, side_of(trade)), (0, None))
        if proposed_ms == opened:
            return plan
        if opened_ms(frame) >= opened:  # a candle that the trade's entry did not know
            dates = frame["date"].astype("datetime64[ms, UTC]").astype("int64").to_numpy()
            frame = frame.iloc[: int(np.searchsorted(dates, opened))]
        if not len(frame) or opened_ms(frame) + self._step_ms < opened:
            return None
        return self._plan(Entry.of(trade, trade.open_rate, 0.0, 0.0, 0.0), frame)

    def _written(self, trade: Trade) -> dict[str, Any] | None:
        """What a bot wrote down with the trade, maybe before a restart."""
        return (trade.get_custom_data(_STOP_FACT) or None) if insides.has_database() else None

    def _learnt(self, now_ms: int) -> Experience:
        """The experience of trades that were closed in candles before this moment's."""
        self._follow_source()
        fresh = [trade for trade in self._fresh() if self._closed_ms(trade) < now_ms]
        for trade in sorted(fresh, key=lambda it: (self._closed_ms(it), it.pair, it.id)):
            self._known.add(trade.id)
            ended = trade.close_date_utc.replace(tzinfo=None)
            self._since = max(self._since, ended - _LATE)
            self._experience.learn(self._lasted_ms(trade), self._reached(trade))
        return self._experience

    def _fresh(self) -> Iterable[Any]:
        """Trades of this strategy that are closed and not learnt from, and maybe others."""
        if not insides.has_database():
            return list(self._source[len(self._known) :])
        wanted = [Trade.is_open.is_(False), Trade.close_date >= self._since]
        named = Trade.strategy == self._strategy.get_strategy_name()
        found = Trade.get_trades([*wanted, named], include_orders=False)
        return [trade for trade in found if trade.id not in self._known]

    def _reached(self, trade: Any) -> bool | None:
        """Whether a closed trade came to its stop; None where it had none that stood.

        Nor is it known of one that the hard stop had in its place.
        """
        plan = None if self._strategy.lstm_settings.stop_trails else self.of(trade)
        if plan is None or plan.is_hard:
            return None
        side, rate = side_of(trade), float(trade.close_rate)
        # freqtrade rounds a stop towards the price.
        missed = _SLIP * rate + self._strategy._lstm_tick(trade.pair, rate)
        return has_passed(rate - side * missed, plan.rate, side)

    def _lasted_ms(self, trade: Any) -> int:
        """From candle to candle: a backtest does not know when in a candle a trade was closed."""
        opened, closed = map(self._candle_ms, (trade.open_date_utc, trade.close_date_utc))
        return max(self._step_ms, closed - opened)

    def _follow_source(self) -> None:
        """Begin anew where freqtrade does: every backtest has a list of trades of its own."""
        if self._source is not insides.backtest_trades():
            self._forget()

    def _forget(self) -> None:
        self._source = insides.backtest_trades()
        self._experience, self._since = Experience(), datetime.min
        self._known: set[int] = set()
        self._plans: dict[tuple[int, datetime], Plan | None] = {}
        self._proposed: dict[tuple[str, int], tuple[int, Plan | None]] = {}

    def _closed_ms(self, trade: Any) -> int:
        """End of the candle in which a trade was closed, less one: known to the next."""
        return self._candle_ms(trade.close_date_utc) + self._step_ms - 1

    def _candle_ms(self, moment: datetime) -> int:
        return int(candle_open_ms(int(moment.timestamp() * 1000), self._step_ms))

    @property
    def _step_ms(self) -> int:
        return timeframe_ms(self._strategy.timeframe)


def may_be_liquidated(strategy: Any) -> bool:
    """Whether the hard stop of a strategy may lie beyond the liquidation of its positions.

    Never where it is near: the margin that must be kept leaves more than that of the stake.
    """
    is_far = abs(getattr(strategy, "stoploss", 0.0)) > _NEVER_LIQUIDATED
    return is_far and bool(strategy.config.get("trading_mode") == "futures")


def _plan_in(known: dict[str, Any]) -> Plan | None:
    """The forecast's stop in what was written down with a trade; it may have had none."""
    if not known.get("reach"):
        return None
    rate = float(known.get("forecasts", known["rate"]))
    return Plan(rate, float(known["reach"]), bool(known.get("is_hard")))
