"""LSTMRisk: bounds of stake and leverage, a stop if asked for, and reasons, for any strategy.

Theirs first: where a user's strategy answers a callback too, it is asked as freqtrade would ask it,
and ours only bounds what it says. What freqtrade does when a callback fails decides how each is
written: after `custom_stake_amount` and `confirm_trade_entry` it would go on and buy, so these two
answer "no entry" themselves; after all others it goes on without the answer, which leaves stops and
exits as they were.
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from datetime import datetime
from typing import Any, cast

from freqtrade.persistence import Order, Trade
from freqtrade.strategy import RealParameter, stoploss_from_absolute
from pandas import DataFrame

from lstm_model.bot import insides
from lstm_model.bot.forecasting import LSTMForecasts
from lstm_model.bot.theirs import Said, assign, hears_fills, or_else, unasked, way_out
from lstm_model.orders.book import Intent
from lstm_model.risk import entry as entries
from lstm_model.risk.entry import TICK_SIZE, Entry, side_of, sign, tick_of
from lstm_model.risk.safety import Safety, Unready, open_safety, unready
from lstm_model.risk.stakes import Stakes
from lstm_model.risk.stops import Stops, may_be_liquidated
from lstm_model.settings import default_of
from lstm_model.trading.analyzed import forecast_facts, opened_ms
from lstm_model.trading.own_trades import LONG_TAG, SHORT_TAG
from lstm_model.trading.sizing import STALE_STREAM
from lstm_model.trading.stake import Stake
from lstm_model.trading.stop import has_passed, tighter

logger = logging.getLogger(__name__)

STOP_PASSED = "lstm_stop_passed"  # the price is beyond a stop that was to be set


class LSTMRisk(LSTMForecasts):
    """Forecast columns, bounds of stake and leverage, and reasons beside your own strategy.

    `class MyStrategy(LSTMRisk, IStrategy)`, or `class Safer(LSTMRisk, MyStrategy)` for one that you
    have: its callbacks are asked first, and ours may only make a stake or a leverage smaller, or a
    stop tighter. It enters where yours does. With `"stop": "forecast"` in config.json it sets a
    stop by the forecast; else your own stays the only one, and stakes follow from it.

    Entries by `lstm_enter` count as the forecast's and are staked by its edge, too. Options are in
    the `lstm` section of config.json. A class attribute of yours named `lstm_stop_multiple` or
    `lstm_kelly_fraction` replaces that parameter; config.json, where it names the option, replaces
    its default; freqtrade's parameter file and `buy_params` replace its value; a plain number is
    fixed. All that the mixin adds begins with `lstm_` or `_lstm_`.
    """

    stoploss: float
    use_custom_stoploss: bool

    lstm_sets_stop = False  # unless config.json says `"stop": "forecast"`
    lstm_holds_horizon = False  # its trades last for the forecast's horizon, all of them
    lstm_stop_multiple = RealParameter(0.5, 3.0, default=default_of("stop_multiple"), space="sell")
    lstm_kelly_fraction = RealParameter(
        0.05, 1.0, default=default_of("kelly_fraction"), space="buy", optimize=False
    )

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config=config)
        if alone := unasked(type(self), LSTMRisk):
            logger.warning(
                "%s: LSTMRisk is not asked, so nothing of it is in force there; %s",
                ", ".join(alone), way_out(type(self), LSTMRisk),
            )  # fmt: skip
        self._lstm_plans: dict[str, dict[str, Any]] = {}  # by pair, of a trade once filled
        self._lstm_told: dict[str, tuple[int, str]] = {}
        self._lstm_said, self._lstm_stops = Said(), Stops(self)
        self._lstm_stakes = Stakes(self)
        # A bot that trades with money has one, and before it is there, sends nothing.
        self._lstm_safety: Safety | Unready | None = unready(config)
        if self._lstm_safety:
            # Not a method of the class: freqtrade lets a strategy have this one or the two of it.
            assign(self, "adjust_order_price", self._lstm_adjust_order_price)
        self._lstm_precision: dict[str, tuple[float | None, int]] = {}  # by pair, and ccxt's mode
        if (stop := self.lstm_settings.stop) is not None:
            self.lstm_sets_stop = stop == "forecast"
        # freqtrade asks one method. Where ours makes it ask, theirs is asked if it was to be.
        wanted = config.get("use_custom_stoploss", self.use_custom_stoploss)
        ours = self.lstm_sets_stop or may_be_liquidated(self)
        self._lstm_asks_their_stop = bool(wanted) or not ours
        if ours:
            assign(self, "use_custom_stoploss", True)

    @property
    def _ft_stop_uses_after_fill(self) -> bool:
        """freqtrade's own: whether it asks for a stop after a fill; as it would for theirs."""
        return self.lstm_sets_stop or hears_fills(super().custom_stoploss)

    @_ft_stop_uses_after_fill.setter
    def _ft_stop_uses_after_fill(self, value: bool) -> None:
        """freqtrade decides it by our signature."""

    @property
    def lstm_protections(self) -> list[dict[str, Any]]:
        """Pauses in horizons, for a strategy's `protections`.

        A backtest heeds them with `--enable-protections` only.
        """
        return entries.protections(self.lstm_settings.horizon)

    def bot_start(self, **kwargs: Any) -> None:
        """Theirs and the forecasts; with money at stake the book of orders, too."""
        with ExitStack() as undone:
            undone.callback(self._lstm_stop)
            super().bot_start(**kwargs)
            self._lstm_safety = open_safety(self)
            undone.pop_all()

    def bot_loop_start(self, current_time: datetime, **kwargs: Any) -> None:
        """Theirs and the forecasts; then what the exchange says of orders."""
        try:
            super().bot_loop_start(current_time=current_time, **kwargs)
        finally:
            if safety := self._lstm_safety:
                or_else(safety.loop, False)(_ms(current_time), self)

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Theirs and the `lstm_*` columns; hyperopt has no exchange afterwards."""
        self._lstm_tick(metadata["pair"], 1.0)
        return super().populate_indicators(dataframe, metadata)

    def custom_stake_amount(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, current_time: datetime, current_rate: float, proposed_stake: float,
        min_stake: float | None, max_stake: float, leverage: float, entry_tag: str | None,
        side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """What risk, portfolio and certainty allow of their stake; 0 is no entry."""
        theirs = or_else(super().custom_stake_amount, proposed_stake)(
            pair=pair, current_time=current_time, current_rate=current_rate,
            proposed_stake=proposed_stake, min_stake=min_stake, max_stake=max_stake,
            leverage=leverage, entry_tag=entry_tag, side=side, **kwargs,
        )  # fmt: skip
        if not theirs or math.isnan(theirs):
            return 0.0
        # freqtrade raises what is a little too small, and lowers what is too much.
        least = min_stake or 0.0
        wanted = min(max(theirs, least), max_stake)
        entry = Entry(pair, entry_tag, sign(side), current_rate, leverage, wanted, max_stake, least)
        allowed = or_else(entries.settle, 0.0)(self, entry)
        return float(theirs) if allowed >= wanted * (1.0 - 1e-12) else allowed

    def confirm_trade_entry(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str,
        current_time: datetime, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Theirs; and a veto where the edge is gone by the trades since the candle."""
        confirmed = or_else(super().confirm_trade_entry, True)(
            pair=pair, order_type=order_type, amount=amount, rate=rate,
            time_in_force=time_in_force, current_time=current_time, entry_tag=entry_tag, side=side,
            **kwargs,
        )  # fmt: skip
        ours = entry_tag in (LONG_TAG, SHORT_TAG)
        free = or_else(self._lstm_is_free, not ours)
        if not confirmed or not free(pair, sign(side), rate, ours):
            return False
        intent = Intent(pair, sign(side), amount, rate, _ms(current_time))
        return or_else(self._lstm_may_send, False)(intent)

    def confirm_trade_exit(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, trade: Trade, order_type: str, amount: float, rate: float,
        time_in_force: str, exit_reason: str, current_time: datetime, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Theirs; an exit that comes to nothing for several loops is told."""
        confirmed = super().confirm_trade_exit(
            pair=pair, trade=trade, order_type=order_type, amount=amount, rate=rate,
            time_in_force=time_in_force, exit_reason=exit_reason, current_time=current_time,
            **kwargs,
        )  # fmt: skip
        if confirmed and self._lstm_safety:
            self._lstm_safety.exits(trade)
        return bool(confirmed)

    def should_exit(self, trade: Trade, *args: Any, **kwargs: Any) -> Any:
        """freqtrade's own; a trade that it does not come to for several loops is told."""
        if self._lstm_safety:
            self._lstm_safety.looked_at(trade)
        return super().should_exit(trade, *args, **kwargs)

    def leverage(
        self, pair: str, current_time: datetime, current_rate: float, proposed_leverage: float,
        max_leverage: float, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """Theirs, whole and within `max_leverage` of the settings; the stake shrinks with it."""
        theirs = super().leverage(
            pair=pair, current_time=current_time, current_rate=current_rate,
            proposed_leverage=proposed_leverage, max_leverage=max_leverage, entry_tag=entry_tag,
            side=side, **kwargs,
        )  # fmt: skip
        allowed = self.lstm_leverage(theirs, max_leverage)
        if allowed >= theirs:
            return cast(float, theirs)
        self._lstm_said.once(
            "leverage", "Leverage %g of the strategy is bounded to %g: within max_leverage and the "
            "exchange's, and whole", theirs, allowed,
        )  # fmt: skip
        return allowed

    def custom_stoploss(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, after_fill: bool, **kwargs: Any,
    ) -> float | None:  # fmt: skip
        """Theirs, unless the forecast's is asked for and tighter, or liquidation would come first.

        Ours is answered only where it is tighter than the trade's by more than rounding: freqtrade
        rounds what it is given towards the price, so that a stop handed back would creep.
        """
        theirs, asked = None, super().custom_stoploss
        if self._lstm_asks_their_stop and (not after_fill or hears_fills(asked)):
            theirs = asked(
                pair=pair, trade=trade, current_time=current_time, current_rate=current_rate,
                current_profit=current_profit, after_fill=after_fill, **kwargs,
            )  # fmt: skip
        side, leverage = side_of(trade), trade.leverage or 1.0
        stop = self._lstm_stops.farthest(trade, current_rate)
        if stop is None or has_passed(current_rate, stop, side):
            return cast("float | None", theirs)
        known, step = [trade.stop_loss or None], self._lstm_tick(pair, current_rate)
        if theirs and math.isfinite(theirs):  # after a fill freqtrade takes it even if it is looser
            known = [] if after_fill else known
            known.append(current_rate * (1.0 - side * abs(theirs) / leverage))
        if any(tighter(rate, stop - 2.0 * side * step, side) == rate for rate in known):
            return cast("float | None", theirs)
        return cast(float, stoploss_from_absolute(stop, current_rate, trade.is_short, leverage))

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, **kwargs: Any,
    ) -> str | bool | None:  # fmt: skip
        """Theirs; and out where the price is beyond the forecast's stop before it could be set."""
        theirs = super().custom_exit(
            pair=pair, trade=trade, current_time=current_time, current_rate=current_rate,
            current_profit=current_profit, **kwargs,
        )  # fmt: skip
        stop, side = self._lstm_stops.farthest(trade, current_rate), side_of(trade)
        if theirs or stop is None:
            return cast("str | bool | None", theirs)
        if not has_passed(current_rate, stop, side):
            return None
        if trade.stop_loss and has_passed(current_rate, trade.stop_loss, side):
            return None  # freqtrade ends it as it ends every stop: order type, guards, name
        # A backtest has set the stop of a new trade and ended it there, whatever its candle opened
        # at; a bot whose order was filled too late for that must not wait until the candle closes.
        is_new = trade.open_date_utc.timestamp() * 1000 > opened_ms(self.lstm_analyzed(pair))
        return None if is_new and not self._lstm_live else STOP_PASSED

    def adjust_trade_position(  # noqa: PLR0913 - freqtrade's signature
        self, trade: Trade, current_time: datetime, current_rate: float, current_profit: float,
        min_stake: float | None, max_stake: float, current_entry_rate: float,
        current_exit_rate: float, current_entry_profit: float, current_exit_profit: float,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Theirs, an addition bounded as a first stake is: for the whole position."""
        theirs = super().adjust_trade_position(
            trade=trade, current_time=current_time, current_rate=current_rate,
            current_profit=current_profit, min_stake=min_stake, max_stake=max_stake,
            current_entry_rate=current_entry_rate, current_exit_rate=current_exit_rate,
            current_entry_profit=current_entry_profit, current_exit_profit=current_exit_profit,
            **kwargs,
        )  # fmt: skip
        return entries.add(self, trade, theirs, current_entry_rate, min_stake or 0.0, max_stake)

    def order_filled(
        self, pair: str, trade: Trade, order: Order, current_time: datetime, **kwargs: Any
    ) -> None:
        """Write down with a new trade why it came about, for `/list_custom_data`.

        Not in backtests, where nobody could read it and each entry takes longer than the last.
        """
        super().order_filled(
            pair=pair, trade=trade, order=order, current_time=current_time, **kwargs
        )
        is_entry = order.ft_order_side == trade.entry_side
        if self._lstm_live and is_entry and trade.nr_of_successful_entries == 1:
            facts = self._lstm_plans.pop(pair, None)
            if facts is None:  # the bot was started anew meanwhile
                facts = forecast_facts(self.lstm_analyzed(pair), self.lstm_settings)
            for key, value in facts.items():
                trade.set_custom_data(key, value)

    def lstm_enter(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Enter where the forecast exceeds all costs by `min_edge`: for `populate_entry_trend`."""
        return entries.enter(self, dataframe, metadata)

    def lstm_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float
    ) -> str | None:
        """Why to leave a position of the forecast now, or None: for `custom_exit`.

        The forecast is against it, or too old and not made anew. Trades of others are left alone.
        """
        return entries.leave(self, pair, trade, current_time, current_rate)

    def lstm_reduce(
        self, trade: Trade, current_rate: float, min_stake: float | None
    ) -> tuple[float, str] | None:
        """What to give back of a position of the forecast: for `adjust_trade_position`.

        What the newest forecast would not stake, if it is more than half.
        """
        return entries.reduce(self, trade, current_rate, min_stake)

    def lstm_leverage(self, wanted: float, max_leverage: float) -> float:
        """The most whole leverage within what is wanted, allowed and in the settings: `leverage`.

        Binance takes no other, and freqtrade would set 2 there while its own books say 2.5.
        """
        most = min(wanted, max_leverage, self.lstm_settings.max_leverage or math.inf)
        return float(max(1, math.floor(most)))

    def lstm_stake_for(self, entry: Entry) -> Stake:
        """The stake of an entry, with the reason and the bound that decided.

        One of a strategy of the user's own, or by hand, needs no forecast where the stop in force
        is theirs: that bounds its risk.
        """
        return self._lstm_stakes.of(entry)

    def _lstm_adjust_order_price(self, **given: Any) -> Any:
        """Theirs, as freqtrade would ask it; an entry that is sent again is written down first."""
        theirs = type(self).adjust_order_price(self, **given)
        return entries.resend(self, theirs, **given)

    def _lstm_may_stop(self) -> bool:
        """Whether the forecast's stop is in force: freqtrade must ask for it, too."""
        return bool(self.lstm_sets_stop and self.use_custom_stoploss)

    def _lstm_tick(self, pair: str, rate: float) -> float:
        """Smallest step of a pair's price on the exchange; 0.0 where it does not say."""
        known, exchange = pair in self._lstm_precision, insides.exchange_of(self.dp)
        if not known and exchange is not None and insides.client_of(exchange) is not None:
            market = self.dp.market(pair) or {}
            mode = exchange.precision_mode_price
            self._lstm_precision[pair] = market.get("precision", {}).get("price"), mode
        return tick_of(*self._lstm_precision.get(pair, (None, TICK_SIZE)), rate)

    def _lstm_is_free(self, pair: str, side: int, rate: float, ours: bool) -> bool:
        """Whether the trades since the candle leave an entry be; theirs, while they are known."""
        live = self._lstm_live
        code = live.veto(pair, side, rate) if live else ""
        if not code or (code != STALE_STREAM and not ours):
            return True
        self._lstm_deny(pair, code, "vetoed by the trades since the candle closed")
        return False

    def lstm_unowned(self) -> list[tuple[str, float]]:
        """By pair what is at stake on the exchange beside the trades, shorts below zero."""
        return list(self._lstm_safety.exposures()) if self._lstm_safety else []

    def _lstm_may_send(self, intent: Intent) -> bool:
        """Whether an order that enters or adds may be sent; it is written down then."""
        safety = self._lstm_safety
        if safety is None:
            return True
        denied = safety.denial(intent.pair, intent.time_ms) or safety.intend(intent)
        if denied:
            self._lstm_deny(intent.pair, denied.code, denied.text)
        return denied is None

    def _lstm_stop(self) -> None:
        try:
            super()._lstm_stop()
        finally:
            safety, self._lstm_safety = self._lstm_safety, unready(self.config)
            if safety:
                safety.stop()

    def _lstm_deny(self, pair: str, code: str, text: str) -> None:
        """Say why a signal leads to no order: once, though a bot asks every few seconds."""
        if live := self._lstm_live:
            told = opened_ms(self.lstm_analyzed(pair)), code
            if self._lstm_told.get(pair) != told:
                self._lstm_told[pair] = told
                logger.info("%s: no entry (%s): %s", pair, code, text)
                live.note(pair, *told, text)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
