"""The stake of an entry in freqtrade's terms: what it may lose, and what else bounds it."""

from __future__ import annotations

import math
from typing import Any

from freqtrade.persistence import Trade
from pandas import DataFrame

from lstm_model.market.candles import timeframe_ms
from lstm_model.risk.entry import Entry, is_by_hand, side_of
from lstm_model.risk.stops import Plan, Stops
from lstm_model.trading.analyzed import (
    forecast_facts,
    gate_of,
    kelly_of_side,
    log_returns,
    newest,
    opened_ms,
)
from lstm_model.trading.sizing import (
    NO_DATA,
    NO_MOVE,
    NO_SKILL,
    REASONS,
    STOP_NEAR,
    round_trip_cost,
)
from lstm_model.trading.stake import Holding, Request, Stake, correlations, stake_of, steadied
from lstm_model.trading.stop import stop_distance, tighter

_COMMON_CANDLES = 288  # chosen: a day of 5m candles to correlate pairs over


class Stakes:
    """The stakes of one strategy, a `LSTMRisk`."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy

    def of(self, entry: Entry) -> Stake:
        """The stake of an entry, with the reason and the bound that decided.

        One of a strategy of the user's own, or by hand, needs no forecast where the stop in force
        is theirs: that bounds its risk.
        """
        strategy = self._strategy
        frame, live = strategy.lstm_analyzed(entry.pair), strategy._lstm_live
        by_hand, is_new = is_by_hand(frame, entry), entry.trade_id is None
        plan = self.plan(entry)
        awaited = self._waits_for(entry) if is_new else plan is not None
        foretold = not by_hand and (entry.is_forecasts or awaited)
        if refusal := self._refusal(entry, frame, foretold, plan):
            return Stake(0.0, refusal, f"0: {REASONS[refusal]}")
        stop = self.first_stop(entry, plan)
        tick = strategy._lstm_tick(entry.pair, entry.rate) if strategy._lstm_may_stop() else 0.0
        if entry.side * (entry.rate - stop) <= 2.0 * tick:
            return Stake(0.0, STOP_NEAR, f"0: an entry at {entry.rate:g} is at its stop {stop:g}")
        distance = stop_distance(entry.rate, stop, entry.side)
        request = Request(
            proposed=entry.proposed,
            wealth=strategy.wallets.get_total_stake_amount(),
            free=entry.free,
            least=entry.least,
            stop_distance=distance,
            kelly=kelly_of_side(frame, entry.side) if entry.is_forecasts else None,
            trust=newest(frame, "lstm_trust") if foretold else 1.0,
            coverage=live.coverage(entry.pair) if live and is_new and foretold else 1.0,
            side=entry.side,
            leverage=entry.leverage,
            holdings=self._holdings(entry),
            beyond=self._beyond(entry, frame),
            parts=self._parts(entry),
            steady=self._steady(frame),
            least_anyway=is_new and not entry.is_forecasts and plan is None,
            held=entry.held,
            sunk=self._sunk(entry, plan, distance),
        )
        kelly_fraction = strategy._lstm_parameter("kelly_fraction")
        return stake_of(request, strategy.lstm_settings, kelly_fraction=kelly_fraction)

    def facts(self, entry: Entry, stake: Stake) -> dict[str, Any]:
        """What `/list_custom_data` shows of a trade."""
        plan = self.plan(entry)
        stop = self.first_stop(entry, plan)
        told = {
            "rate": stop,
            "distance": round(stop_distance(entry.rate, stop, entry.side), 6),
        }
        strategy = self._strategy
        return {
            **forecast_facts(strategy.lstm_analyzed(entry.pair), strategy.lstm_settings),
            "lstm_stake": {
                "amount": round(stake.amount, 8),
                "bound": stake.bound,
                "text": stake.text,
            },
            "lstm_stop": {**told, **plan.facts(stop)} if plan else told,
        }

    def _refusal(self, entry: Entry, frame: DataFrame, foretold: bool, plan: Plan | None) -> str:
        """What forbids an entry whatever its stake, or ""."""
        gate = gate_of(frame) if foretold else ""
        if gate not in ("", NO_SKILL):  # of skill knows the forecast's own entry
            return gate
        if foretold and plan is None and self._strategy._lstm_may_stop():
            return NO_DATA
        least = self._strategy.lstm_settings.min_move * self._costs(entry.pair)
        return NO_MOVE if _width(frame) < least and not is_by_hand(frame, entry) else ""

    def _waits_for(self, entry: Entry) -> bool:
        """Whether a stop by the forecast is to be set, so that there must be a forecast."""
        strategy = self._strategy
        if not strategy._lstm_may_stop():
            return False
        closed_ms = opened_ms(strategy.lstm_analyzed(entry.pair)) + timeframe_ms(strategy.timeframe)
        return strategy._lstm_stops.hold_candles(entry, closed_ms) is not None

    def _beyond(self, entry: Entry, frame: DataFrame) -> float:
        """Fraction of the price that is lost beyond a stop: costs, and how far it may be missed.

        By a deviation of one candle: a bot looks every few seconds, and an order takes a moment.
        Funding that is expected is lost before it; what may be got is not counted.
        """
        gap, funding = newest(frame, "lstm_volatility"), entry.side * newest(frame, "lstm_funding")
        costs = self._costs(entry.pair) + (funding if funding > 0.0 else 0.0)
        return costs + (gap if math.isfinite(gap) else 0.0)

    def _costs(self, pair: str) -> float:
        return round_trip_cost(self._strategy._lstm_fee(pair), self._strategy.lstm_settings)

    def _parts(self, entry: Entry) -> int:
        """Stakes that a new position may come to hold, where their strategy adds to it.

        Without a limit of theirs one addition is provided for: nobody knows how many there will be.
        """
        is_first = entry.trade_id is None and not entry.is_forecasts
        if not is_first or not self._strategy.position_adjustment_enable:
            return 1
        most = self._strategy.max_entry_position_adjustment
        return 1 + (int(most) if most is not None and 0 <= most < math.inf else 1)

    def _steady(self, frame: DataFrame) -> float:
        if self._strategy.lstm_settings.stake != "steady":
            return 1.0
        return steadied(newest(frame, "lstm_usual_width"), _width(frame))

    def first_stop(self, entry: Entry, plan: Plan | None) -> float:
        """Where the trade would be stopped, never looser than the hard stop.

        An addition moves no stop: it is the hard one, or the trade's where that is farther.
        """
        hard = self._hard(entry, entry.rate)
        if entry.stopped:
            hard = min(hard, entry.stopped) if entry.side > 0 else max(hard, entry.stopped)
        return tighter(hard, plan.rate if plan else None, entry.side) or hard

    def _hard(self, entry: Entry, rate: float) -> float:
        stops: Stops = self._strategy._lstm_stops
        return rate * (1.0 - entry.side * stops.hard_fraction(entry))

    def _sunk(self, entry: Entry, plan: Plan | None, distance: float) -> float:
        """What is held loses so much more, or less, at its stop than as much entered now."""
        if not entry.held or not entry.paid:
            return 0.0
        own = entry.stopped or self._hard(entry, entry.paid)
        stop = tighter(own, plan.rate if plan else None, entry.side)
        lost = stop_distance(entry.paid, stop, entry.side)  # NaN: its stop is in profit
        return entry.held * ((lost if lost > 0.0 else 0.0) - distance)

    def plan(self, entry: Entry) -> Plan | None:
        """The forecast's stop of an entry, or of a trade that is open, if one is in force."""
        stops: Stops = self._strategy._lstm_stops
        if not self._strategy._lstm_may_stop():
            return None
        if entry.trade_id is None:
            return stops.planned(entry)
        trades = [trade for trade in Trade.get_open_trades() if trade.id == entry.trade_id]
        return stops.of(trades[0]) if trades else None

    def _holdings(self, entry: Entry) -> tuple[Holding, ...]:
        trades = [trade for trade in Trade.get_open_trades() if trade.id != entry.trade_id]
        held = [(it.pair, side_of(it) * it.stake_amount * (it.leverage or 1.0)) for it in trades]
        held += self._strategy.lstm_unowned()
        if not held:
            return ()
        others = {pair for pair, _ in held}
        frames = {pair: self._strategy.lstm_analyzed(pair) for pair in {entry.pair, *others}}
        alike = correlations(log_returns(frames, _COMMON_CANDLES), entry.pair, others)
        return tuple(
            Holding(pair, abs(amount), 1 if amount > 0.0 else -1, alike[pair])
            for pair, amount in held
        )


def _width(frame: DataFrame) -> float:
    """Of the newest candle's interval, log return."""
    return newest(frame, "lstm_high") - newest(frame, "lstm_low")
