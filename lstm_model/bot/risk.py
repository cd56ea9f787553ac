"""LSTMRisk: stake, stop, leverage and reasons for any freqtrade strategy.

What freqtrade does when a callback fails decides how each is written: after `custom_stake_amount`
and `confirm_trade_entry` it would go on and buy, so these two answer "no entry" themselves; after
all others it goes on without the answer, which leaves stops and exits as they were.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from freqtrade.persistence import Order, Trade
from freqtrade.strategy import RealParameter, stoploss_from_absolute
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from pandas import DataFrame

from lstm_model.bot.forecasting import LSTMForecasts
from lstm_model.trading.analyzed import forecast_facts, log_returns, newest, opened_ms
from lstm_model.trading.sizing import ERROR, NO_DATA, NO_EDGE, NO_SKILL, REASONS
from lstm_model.trading.stake import (
    Holding,
    Request,
    Stake,
    correlations,
    stake_of,
    stop_distance,
    stop_price,
    tighter,
)

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

LONG_TAG, SHORT_TAG = "lstm_long", "lstm_short"  # entries of the forecast: staked by Kelly too
FORCED_TAG = "force_entry"  # freqtrade's own, of /forcelong and the REST API
_COMMON_CANDLES = 288  # chosen: a day of 5m candles to correlate pairs over
_FAILED = Stake(0.0, ERROR, "0: it could not be worked out, see the log")


@dataclass(frozen=True)
class Entry:
    """An entry that freqtrade proposes, or a trade that is weighed anew; money in stake currency.

    Attributes
    ----------
    side : 1 long, -1 short
    proposed, free, least : freqtrade's own stake; most and least that may be staked
    trade_id : of the trade that this is already, which is no holding beside it
    """

    pair: str
    tag: str | None
    side: int
    rate: float
    leverage: float
    proposed: float
    free: float
    least: float
    trade_id: int | None = None

    @property
    def is_forecasts(self) -> bool:
        """Whether it is the forecast's, and so staked by its edge."""
        return self.tag in (LONG_TAG, SHORT_TAG)


class LSTMRisk(LSTMForecasts):
    """Forecast columns, stake, stop and reasons beside your own entries and exits.

    `class MyStrategy(LSTMRisk, IStrategy)`, or `class Safer(LSTMRisk, MyStrategy)` for one that you
    have. Stake, stop and leverage are LSTMRisk's; where you override another callback that it has
    (`populate_indicators`, `bot_start`, ...), call `super()`. Entries tagged `LONG_TAG` and
    `SHORT_TAG` count as the forecast's and are staked by its edge; all others by their risk alone.
    Options are in the `lstm` section of config.json; a parameter file of freqtrade's overrides
    those that are parameters.
    """

    stoploss: float
    use_custom_stoploss = True

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        # freqtrade finds parameters in the instance, and only here are the settings known.
        settings = self.lstm_settings
        self.stop_multiple = RealParameter(0.5, 3.0, default=settings.stop_multiple, space="sell")
        self.kelly_fraction = RealParameter(
            0.05, 1.0, default=settings.kelly_fraction, space="buy", optimize=False
        )
        self._plans: dict[str, dict[str, Any]] = {}  # by pair: what to note of a trade once filled
        self._told: dict[str, tuple[int, str]] = {}

    @property
    def protections(self) -> list[dict[str, Any]]:
        """Pauses in horizons, all chosen. A list of yours replaces them.

        A backtest heeds them with `--enable-protections` only.
        """
        horizon = self.lstm_settings.horizon
        return [
            {"method": "CooldownPeriod", "stop_duration_candles": max(1, horizon // 6)},
            {"method": "StoplossGuard", "lookback_period_candles": 24 * horizon,
             "trade_limit": 4, "stop_duration_candles": 4 * horizon},
            {"method": "MaxDrawdown", "lookback_period_candles": 168 * horizon,
             "trade_limit": 10, "stop_duration_candles": 24 * horizon,
             "max_allowed_drawdown": 0.1, "calculation_mode": "equity"},
            {"method": "LowProfitPairs", "lookback_period_candles": 168 * horizon,
             "trade_limit": 4, "stop_duration_candles": 24 * horizon, "required_profit": -0.02},
        ]  # fmt: skip

    def custom_stake_amount(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, current_time: datetime, current_rate: float, proposed_stake: float,
        min_stake: float | None, max_stake: float, leverage: float, entry_tag: str | None,
        side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """What risk, portfolio and certainty allow of the proposed stake; 0 is no entry."""
        entry = Entry(
            pair, entry_tag, _sign(side), current_rate, leverage, proposed_stake, max_stake,
            min_stake or 0.0,
        )  # fmt: skip
        return _or_else(self._settle, 0.0)(entry)

    def confirm_trade_entry(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str,
        current_time: datetime, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Veto an entry whose edge is gone by the trades since the candle, or that they forbid."""
        ours = entry_tag in (LONG_TAG, SHORT_TAG)
        if not _or_else(self._is_free, False)(pair, _sign(side), rate, ours):
            return False
        return _or_else(super().confirm_trade_entry, False)(
            pair, order_type, amount, rate, time_in_force, current_time, entry_tag, side, **kwargs
        )

    def leverage(
        self, pair: str, current_time: datetime, current_rate: float, proposed_leverage: float,
        max_leverage: float, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """As the settings say, within what the exchange allows; the stake shrinks with it."""
        return min(self.lstm_settings.max_leverage, max_leverage)

    def custom_stoploss(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, after_fill: bool, **kwargs: Any,
    ) -> float | None:  # fmt: skip
        """Stop where the newest forecast says that few horizons get to, only towards profit.

        freqtrade alone would move it away too, after an order was filled.
        """
        side, leverage = side_of(trade), trade.leverage or 1.0
        stop = self.stop_rate(pair, side, leverage)
        if stop is None:
            return None
        rate = tighter(trade.stop_loss or None, stop, side)
        return cast(float, stoploss_from_absolute(rate, current_rate, trade.is_short, leverage))

    def order_filled(
        self, pair: str, trade: Trade, order: Order, current_time: datetime, **kwargs: Any
    ) -> None:
        """Write down with a new trade why it came about: `/list_custom_data` shows it.

        Not in backtests, where nobody could read it and each entry takes longer than the last.
        """
        super().order_filled(pair, trade, order, current_time, **kwargs)
        is_entry = order.ft_order_side == trade.entry_side
        if self.live_engine and is_entry and trade.nr_of_successful_entries == 1:
            facts = self._plans.pop(pair, None)
            if facts is None:  # the bot was started anew meanwhile
                facts = forecast_facts(self.analyzed(pair), self.lstm_settings)
            for key, value in facts.items():
                trade.set_custom_data(key, value)

    def stake_for(self, entry: Entry) -> Stake:
        """The stake of an entry, with the reason and the bound that decided.

        An entry by hand needs no forecast: without one, the hard stop bounds its risk.
        """
        frame, forced, live = self.analyzed(entry.pair), entry.tag == FORCED_TAG, self.live_engine
        gate = "" if forced else _gate(frame)
        if gate not in ("", NO_SKILL):  # of skill knows the forecast's own entry
            return Stake(0.0, gate, f"0: {REASONS[gate]}")
        stop, is_new = self._first_stop(entry), entry.trade_id is None
        if stop is None:
            return Stake(0.0, NO_DATA, "0: there is no forecast to set a stop by")
        request = Request(
            proposed=entry.proposed,
            wealth=self.wallets.get_total_stake_amount(),
            free=entry.free,
            least=entry.least,
            stop_distance=stop_distance(entry.rate, stop, entry.side),
            kelly=newest(frame, "lstm_kelly") if entry.is_forecasts else None,
            trust=1.0 if forced else newest(frame, "lstm_trust"),
            coverage=live.coverage(entry.pair) if live and is_new and not forced else 1.0,
            side=entry.side,
            leverage=entry.leverage,
            holdings=self._holdings(entry),
        )
        return stake_of(request, self.lstm_settings, kelly_fraction=self.kelly_fraction.value)

    def stop_rate(self, pair: str, side: int, leverage: float) -> float | None:
        """By the forecast inside the candle, else by the last closed candle's, else None."""
        multiple, live = self.stop_multiple.value, self.live_engine
        inside = live.stop_price(pair, side, multiple) if live else None
        if inside is not None and math.isfinite(inside):
            return inside
        frame, column = self.analyzed(pair), "lstm_lowest" if side > 0 else "lstm_highest"
        close, excursion = newest(frame, "close"), newest(frame, column)
        return stop_price(close, excursion, multiple, side, self._hard_stop_fraction(leverage))

    def _settle(self, entry: Entry) -> float:
        stake = _or_else(self.stake_for, _FAILED)(entry)
        if stake.amount == 0.0:
            self._deny(entry.pair, stake.reason, f"stake {stake.text}")
        elif self.live_engine:
            self._plans[entry.pair] = self._facts(entry, stake)
        return stake.amount

    def _is_free(self, pair: str, side: int, rate: float, ours: bool) -> bool:
        """Whether the trades since the candle leave an entry be; a lost edge ends only ours."""
        live = self.live_engine
        code = live.veto(pair, side, rate) if live else ""
        if not code or (code == NO_EDGE and not ours):
            return True
        self._deny(pair, code, "vetoed by the trades since the candle closed")
        return False

    def _deny(self, pair: str, code: str, text: str) -> None:
        """Say why a signal leads to no order: once, though a bot asks every few seconds."""
        if live := self.live_engine:
            told = opened_ms(self.analyzed(pair)), code
            if self._told.get(pair) != told:
                self._told[pair] = told
                logger.info("%s: no entry (%s): %s", pair, code, text)
                live.note(pair, *told, text)

    def _facts(self, entry: Entry, stake: Stake) -> dict[str, Any]:
        """What `/list_custom_data` shows of a trade."""
        stop = self._first_stop(entry)
        distance = stop_distance(entry.rate, stop, entry.side)
        return {
            **forecast_facts(self.analyzed(entry.pair), self.lstm_settings),
            "lstm_stake": {"amount": round(stake.amount, 8), "text": stake.text},
            "lstm_stop": {"rate": stop, "distance": round(distance, 6)},
        }

    def _first_stop(self, entry: Entry) -> float | None:
        """Where the trade would be stopped, never looser than the hard stop."""
        stop = self.stop_rate(entry.pair, entry.side, entry.leverage)
        if stop is None and entry.tag != FORCED_TAG:
            return None
        hard = entry.rate * (1.0 - entry.side * self._hard_stop_fraction(entry.leverage))
        return tighter(hard, stop, entry.side)

    def _holdings(self, entry: Entry) -> tuple[Holding, ...]:
        trades = [trade for trade in Trade.get_open_trades() if trade.id != entry.trade_id]
        if not trades:
            return ()
        others = {trade.pair for trade in trades}
        frames = {pair: self.analyzed(pair) for pair in {entry.pair, *others}}
        alike = correlations(log_returns(frames, _COMMON_CANDLES), entry.pair, others)
        return tuple(
            Holding(trade.pair, trade.stake_amount, side_of(trade), alike[trade.pair])
            for trade in trades
        )

    def _hard_stop_fraction(self, leverage: float) -> float:
        """Of the price; freqtrade's `stoploss` is of the stake."""
        return abs(self.stoploss) / leverage


def _gate(frame: DataFrame) -> str:
    """What forbids an entry by the newest candle's forecast, whatever its edge."""
    return str(frame["lstm_gate"].iloc[-1]) if len(frame) else NO_DATA


def side_of(trade: Trade) -> int:
    """1 long, -1 short."""
    return -1 if trade.is_short else 1


def _sign(side: str) -> int:
    return -1 if side == "short" else 1


def _or_else(work: Callable[..., Answer], otherwise: Answer) -> Callable[..., Answer]:
    """The work; with freqtrade's own guard, which logs any failure, the answer that then counts."""
    return cast(Callable[..., Answer], strategy_safe_wrapper(work, default_retval=otherwise))
