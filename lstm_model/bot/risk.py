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
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from freqtrade.persistence import Order, Trade
from freqtrade.strategy import RealParameter, stoploss_from_absolute
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from pandas import DataFrame

from lstm_model.bot.forecasting import LSTMForecasts
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import default_of
from lstm_model.trading.analyzed import forecast_facts, log_returns, newest, opened_ms
from lstm_model.trading.own_trades import (
    LONG_TAG,
    SHORT_TAG,
    enters_again,
    has_turned,
    is_own,
    mark_entries,
)
from lstm_model.trading.sizing import ERROR, NO_DATA, NO_EDGE, NO_SKILL, REASONS, TOO_SMALL
from lstm_model.trading.stake import (
    Holding,
    Request,
    Stake,
    correlations,
    reduction,
    stake_of,
    stop_distance,
    stop_price,
    tighter,
)

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

FORCED_TAG = "force_entry"  # freqtrade's own, of /forcelong and the REST API
_COMMON_CANDLES = 288  # chosen: a day of 5m candles to correlate pairs over
# freqtrade keeps a position only if it exceeds the exchange's minimum by a reserve for the stop, at
# most 1.5 times; chosen above that, because the price may fall meanwhile.
_KEPT_MINIMA = 2.0
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
    (`populate_indicators`, `bot_start`, ...), call `super()`. Entries by `lstm_enter` count as the
    forecast's and are staked by its edge; all others by their risk alone.

    Options are in the `lstm` section of config.json. A class attribute of yours named
    `lstm_stop_multiple` or `lstm_kelly_fraction` replaces that parameter; config.json, where it
    names the option, replaces its default; freqtrade's parameter file and `buy_params` replace its
    value; a plain number is fixed. All that the mixin adds begins with `lstm_` or `_lstm_`.
    """

    stoploss: float
    use_custom_stoploss = True

    lstm_stop_multiple = RealParameter(0.5, 3.0, default=default_of("stop_multiple"), space="sell")
    lstm_kelly_fraction = RealParameter(
        0.05, 1.0, default=default_of("kelly_fraction"), space="buy", optimize=False
    )

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._lstm_plans: dict[
            str, dict[str, Any]
        ] = {}  # by pair: what to note of a trade once filled
        self._lstm_told: dict[str, tuple[int, str]] = {}

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
        return _or_else(self._lstm_settle, 0.0)(entry)

    def confirm_trade_entry(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str,
        current_time: datetime, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Veto an entry whose edge is gone by the trades since the candle, or that they forbid."""
        ours = entry_tag in (LONG_TAG, SHORT_TAG)
        if not _or_else(self._lstm_is_free, False)(pair, _sign(side), rate, ours):
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
        stop = self.lstm_stop_rate(pair, side, leverage)
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
        if self._lstm_live and is_entry and trade.nr_of_successful_entries == 1:
            facts = self._lstm_plans.pop(pair, None)
            if facts is None:  # the bot was started anew meanwhile
                facts = forecast_facts(self.lstm_analyzed(pair), self.lstm_settings)
            for key, value in facts.items():
                trade.set_custom_data(key, value)

    def lstm_enter(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Enter by the forecast, where it exceeds all costs by `min_edge`: for
        `populate_entry_trend`."""
        least = self._lstm_parameter("min_edge")
        dataframe = mark_entries(dataframe, least, can_short=self.can_short)
        if live := self._lstm_live:
            live.note(metadata["pair"], opened_ms(dataframe), dataframe["lstm_reason"].iloc[-1])
        return dataframe

    def lstm_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float
    ) -> str | None:
        """Why to leave a position of the forecast now, or None: for `custom_exit`.

        The forecast is against it, or too old and not made anew. A trade that something else
        entered is left to that.
        """
        if not is_own(trade.enter_tag):
            return None
        side, frame, live = side_of(trade), self.lstm_analyzed(pair), self._lstm_live
        if has_turned(frame, side):
            return "lstm_turned"
        if live and self.lstm_settings.inside_exits and live.wants_exit(pair, side, current_rate):
            return "lstm_turned_inside"
        horizon = timedelta(milliseconds=timeframe_ms(self.timeframe)) * self.lstm_settings.horizon
        is_over = current_time - trade.open_date_utc >= horizon
        return "lstm_horizon" if is_over and not enters_again(frame, side) else None

    def lstm_reduce(
        self, trade: Trade, current_rate: float, min_stake: float | None
    ) -> tuple[float, str] | None:
        """What to give back of a position of the forecast: for `adjust_trade_position`.

        What the newest forecast would not stake, if it is more than half.
        """
        side = side_of(trade)
        turned = has_turned(self.lstm_analyzed(trade.pair), side)
        if turned or trade.has_open_orders or not is_own(trade.enter_tag):
            return None
        least, free = min_stake or 0.0, trade.stake_amount
        tag, wealth = LONG_TAG if side > 0 else SHORT_TAG, self.wallets.get_total_stake_amount()
        held = Entry(
            trade.pair,
            tag,
            side,
            current_rate,
            trade.leverage or 1.0,
            wealth,
            free,
            least,
            trade.id,
        )
        wanted = self.lstm_stake_for(held)
        if wanted.reason not in ("", NO_EDGE, TOO_SMALL):
            return None  # nothing is known against the position
        surplus = reduction(trade.stake_amount, wanted.amount, _KEPT_MINIMA * least)
        return (-surplus, "lstm_reduced") if surplus else None

    def lstm_stake_for(self, entry: Entry) -> Stake:
        """The stake of an entry, with the reason and the bound that decided.

        An entry by hand needs no forecast: without one, the hard stop bounds its risk.
        """
        frame, forced, live = (
            self.lstm_analyzed(entry.pair),
            entry.tag == FORCED_TAG,
            self._lstm_live,
        )
        gate = "" if forced else _gate(frame)
        if gate not in ("", NO_SKILL):  # of skill knows the forecast's own entry
            return Stake(0.0, gate, f"0: {REASONS[gate]}")
        stop, is_new = self._lstm_first_stop(entry), entry.trade_id is None
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
            holdings=self._lstm_holdings(entry),
        )
        return stake_of(
            request, self.lstm_settings, kelly_fraction=self._lstm_parameter("kelly_fraction")
        )

    def lstm_stop_rate(self, pair: str, side: int, leverage: float) -> float | None:
        """By the last closed candle's forecast, else None.

        With `inside_exits`, by the forecast inside the candle where there is one.
        """
        multiple = self._lstm_parameter("stop_multiple")
        live = self._lstm_live if self.lstm_settings.inside_exits else None
        inside = live.stop_price(pair, side, multiple) if live else None
        if inside is not None and math.isfinite(inside):
            return inside
        frame, column = self.lstm_analyzed(pair), "lstm_lowest" if side > 0 else "lstm_highest"
        close, excursion = newest(frame, "close"), newest(frame, column)
        return stop_price(close, excursion, multiple, side, self._lstm_hard_stop_fraction(leverage))

    def _lstm_settle(self, entry: Entry) -> float:
        stake = _or_else(self.lstm_stake_for, _FAILED)(entry)
        if stake.amount == 0.0:
            self._lstm_deny(entry.pair, stake.reason, f"stake {stake.text}")
        elif self._lstm_live:
            self._lstm_plans[entry.pair] = self._lstm_facts(entry, stake)
        return stake.amount

    def _lstm_is_free(self, pair: str, side: int, rate: float, ours: bool) -> bool:
        """Whether the trades since the candle leave an entry be; a lost edge ends only ours."""
        live = self._lstm_live
        code = live.veto(pair, side, rate) if live else ""
        if not code or (code == NO_EDGE and not ours):
            return True
        self._lstm_deny(pair, code, "vetoed by the trades since the candle closed")
        return False

    def _lstm_deny(self, pair: str, code: str, text: str) -> None:
        """Say why a signal leads to no order: once, though a bot asks every few seconds."""
        if live := self._lstm_live:
            told = opened_ms(self.lstm_analyzed(pair)), code
            if self._lstm_told.get(pair) != told:
                self._lstm_told[pair] = told
                logger.info("%s: no entry (%s): %s", pair, code, text)
                live.note(pair, *told, text)

    def _lstm_facts(self, entry: Entry, stake: Stake) -> dict[str, Any]:
        """What `/list_custom_data` shows of a trade."""
        stop = self._lstm_first_stop(entry)
        distance = stop_distance(entry.rate, stop, entry.side)
        return {
            **forecast_facts(self.lstm_analyzed(entry.pair), self.lstm_settings),
            "lstm_stake": {"amount": round(stake.amount, 8), "text": stake.text},
            "lstm_stop": {"rate": stop, "distance": round(distance, 6)},
        }

    def _lstm_first_stop(self, entry: Entry) -> float | None:
        """Where the trade would be stopped, never looser than the hard stop."""
        stop = self.lstm_stop_rate(entry.pair, entry.side, entry.leverage)
        if stop is None and entry.tag != FORCED_TAG:
            return None
        hard = entry.rate * (1.0 - entry.side * self._lstm_hard_stop_fraction(entry.leverage))
        return tighter(hard, stop, entry.side)

    def _lstm_holdings(self, entry: Entry) -> tuple[Holding, ...]:
        trades = [trade for trade in Trade.get_open_trades() if trade.id != entry.trade_id]
        if not trades:
            return ()
        others = {trade.pair for trade in trades}
        frames = {pair: self.lstm_analyzed(pair) for pair in {entry.pair, *others}}
        alike = correlations(log_returns(frames, _COMMON_CANDLES), entry.pair, others)
        return tuple(
            Holding(trade.pair, trade.stake_amount, side_of(trade), alike[trade.pair])
            for trade in trades
        )

    def _lstm_hard_stop_fraction(self, leverage: float) -> float:
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
