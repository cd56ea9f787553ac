"""An entry that freqtrade proposes, or a trade that is weighed anew; and those of the forecast.

`strategy` is a `LSTMRisk`, whose methods `enter`, `leave` and `reduce` are the bodies of.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from freqtrade.persistence import Order, Trade
from pandas import DataFrame

from lstm_model.bot.theirs import or_else
from lstm_model.market.candles import timeframe_ms
from lstm_model.orders.book import Intent
from lstm_model.trading.analyzed import opened_ms
from lstm_model.trading.own_trades import (
    LONG_TAG,
    SHORT_TAG,
    enters_again,
    has_turned,
    is_own,
    mark_entries,
    reduction,
)
from lstm_model.trading.sizing import ERROR, NO_EDGE, TOO_SMALL
from lstm_model.trading.stake import Stake

SIGNIFICANT_DIGITS, TICK_SIZE = 3, 4  # ccxt's, of precision; 2 is decimal places
FORCED_TAG = "force_entry"  # freqtrade's own, of /forcelong and the REST API
# freqtrade keeps a position only if it exceeds the exchange's minimum by a reserve for the stop, at
# most 1.5 times; chosen above that, because the price may fall meanwhile.
_KEPT_MINIMA = 2.0


FAILED = Stake(0.0, ERROR, "0: it could not be worked out, see the log")


@dataclass(frozen=True)
class Entry:
    """What is known of it; money in stake currency.

    Attributes
    ----------
    side : 1 long, -1 short
    proposed, free, least : the stake that is asked for; most and least that may be staked
    trade_id : of the trade that this is already, which is no holding beside it
    held : of `proposed` what an addition finds there
    paid, stopped : the price that was paid for it, and its stop; 0.0 without one
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
    held: float = 0.0
    paid: float = 0.0
    stopped: float = 0.0

    @property
    def is_forecasts(self) -> bool:
        """Whether it is the forecast's, and so staked by its edge."""
        return self.tag in (LONG_TAG, SHORT_TAG)

    @classmethod
    def of(cls, trade: Trade, rate: float, proposed: float, free: float, least: float) -> Entry:
        """A trade that is open, at the price of now."""
        return cls(
            trade.pair, trade.enter_tag, side_of(trade), rate, trade.leverage or 1.0, proposed,
            free, least, trade.id,
        )  # fmt: skip

    @classmethod
    def adding(cls, trade: Trade, rate: float, amount: float, free: float, least: float) -> Entry:
        """The whole position after an addition at the price of now."""
        held = trade.stake_amount
        whole = cls.of(trade, rate, held + amount, held + free, least)
        return replace(
            whole, held=held, paid=trade.open_rate or 0.0, stopped=trade.stop_loss or 0.0
        )


def side_of(trade: Trade) -> int:
    """1 long, -1 short."""
    return -1 if trade.is_short else 1


def entries_of(trade: Trade) -> int:
    """How many orders of the trade enter or add, whatever became of them."""
    return sum(order.ft_order_side == trade.entry_side for order in trade.orders)


def sign(side: str) -> int:
    """freqtrade's word for a side as 1 or -1."""
    return -1 if side == "short" else 1


def is_by_hand(frame: DataFrame, entry: Entry) -> bool:
    """Whether somebody entered by Telegram or the REST API, also under a tag of their own.

    freqtrade hands over the tag of the newest candle's signal otherwise.
    """
    if entry.tag == FORCED_TAG:
        return True
    if not entry.tag or entry.is_forecasts or entry.trade_id is not None:
        return False
    known = frame["enter_tag"].iloc[-1] if len(frame) and "enter_tag" in frame else entry.tag
    return bool(known != entry.tag)


def tick_of(precision: float | None, mode: int, rate: float) -> float:
    """Smallest step of a price by a market's precision, in any of ccxt's modes."""
    if not precision or rate <= 0.0:
        return 0.0
    if mode == TICK_SIZE:
        return float(precision)
    if mode == SIGNIFICANT_DIGITS:
        return float(10.0 ** (math.floor(math.log10(rate)) + 1 - precision))
    return float(10.0**-precision)


def settle(strategy: Any, entry: Entry) -> float:
    """The stake of a new entry, 0.0 for none; why it is not what was proposed is said."""
    stake = or_else(strategy.lstm_stake_for, FAILED)(entry)
    safety, said = strategy._lstm_safety, strategy._lstm_said
    if safety and (denied := safety.denial(entry.pair, time.time_ns() // 1_000_000)):
        stake = Stake(0.0, denied.code, f"0: {denied.text}")
    if stake.amount == 0.0:
        strategy._lstm_deny(entry.pair, stake.reason, f"stake {stake.text}")
    elif strategy._lstm_live:
        strategy._lstm_plans[entry.pair] = strategy._lstm_stakes.facts(entry, stake)
    if stake.amount == 0.0 and not entry.is_forecasts:
        said.once(
            f"none {stake.reason}", "%s: no entry (%s): stake %s", entry.pair, stake.reason,
            stake.text,
        )  # fmt: skip
    if 0.0 < stake.amount < entry.proposed * (1.0 - 1e-9) and not entry.is_forecasts:
        said.once("stake", "Stake %.6g is bounded: %s", entry.proposed, stake.text)
    return stake.amount


def enter(strategy: Any, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
    """See `LSTMRisk.lstm_enter`."""
    least = strategy._lstm_parameter("min_edge")
    dataframe = mark_entries(dataframe, least, can_short=strategy.can_short)
    if live := strategy._lstm_live:
        live.note(metadata["pair"], opened_ms(dataframe), dataframe["lstm_reason"].iloc[-1])
    return dataframe


def leave(
    strategy: Any, pair: str, trade: Trade, current_time: datetime, current_rate: float
) -> str | None:
    """See `LSTMRisk.lstm_exit`."""
    if not is_own(trade.enter_tag):
        return None
    side, frame, settings = side_of(trade), strategy.lstm_analyzed(pair), strategy.lstm_settings
    if has_turned(frame, side):
        return "lstm_turned"
    live = strategy._lstm_live if settings.inside_exits else None
    if live and live.wants_exit(pair, side, current_rate):
        return "lstm_turned_inside"
    horizon = timedelta(milliseconds=timeframe_ms(strategy.timeframe)) * settings.horizon
    is_over = current_time - trade.open_date_utc >= horizon
    return "lstm_horizon" if is_over and not enters_again(frame, side) else None


def add(strategy: Any, trade: Trade, theirs: Any, rate: float, least: float, most: float) -> Any:
    """What `adjust_trade_position` of a `LSTMRisk` answers where theirs answers `theirs`.

    An addition is bounded as a first stake is: for the whole position.
    """
    amount, *tag = theirs if isinstance(theirs, tuple) else (theirs,)
    if not amount or amount < 0.0:
        return theirs
    stake = or_else(strategy.lstm_stake_for, FAILED)(Entry.adding(trade, rate, amount, most, least))
    room = stake.amount - trade.stake_amount
    is_whole = room >= amount * (1.0 - 1e-9)
    if not is_whole:
        strategy._lstm_said.once(
            f"addition {trade.pair}", "%s: an addition of %.6g is bounded to %.6g; the whole "
            "stake: %s", trade.pair, amount, max(room, 0.0) if room >= least else 0.0, stake.text,
        )  # fmt: skip
        if room < max(least, 1e-9):
            return None
    added = (amount if is_whole else room) * (trade.leverage or 1.0) / rate
    now_ms = time.time_ns() // 1_000_000
    sent = Intent(trade.pair, side_of(trade), added, rate, now_ms, entries_of(trade))
    if not or_else(strategy._lstm_may_send, False)(sent):
        return None
    return theirs if is_whole else (room, *tag) if tag else room


def resend(
    strategy: Any, theirs: Any, *, trade: Trade, order: Order, current_order_rate: float,
    is_entry: bool, **_: Any,
) -> Any:  # fmt: skip
    """What freqtrade hears of an order that waits where a strategy's price for it is `theirs`.

    What replaces an entry is written down as every entry is; while that must not be sent, the one
    that waits stays as it is.
    """
    if not is_entry or not theirs or theirs == current_order_rate:
        return theirs
    now_ms, side = time.time_ns() // 1_000_000, side_of(trade)
    sent = Intent(trade.pair, side, order.safe_remaining, theirs, now_ms, entries_of(trade))
    return theirs if or_else(strategy._lstm_may_send, False)(sent) else current_order_rate


def reduce(
    strategy: Any, trade: Trade, current_rate: float, min_stake: float | None
) -> tuple[float, str] | None:
    """See `LSTMRisk.lstm_reduce`."""
    turned = has_turned(strategy.lstm_analyzed(trade.pair), side_of(trade))
    if turned or trade.has_open_orders or not is_own(trade.enter_tag):
        return None
    least, wealth = min_stake or 0.0, strategy.wallets.get_total_stake_amount()
    held = Entry.of(trade, current_rate, wealth, trade.stake_amount, least)
    own_tag = LONG_TAG if held.side > 0 else SHORT_TAG  # an older release had another
    wanted = strategy.lstm_stake_for(replace(held, tag=own_tag))
    if wanted.reason not in ("", NO_EDGE, TOO_SMALL):
        return None  # nothing is known against the position
    surplus = reduction(trade.stake_amount, wanted.amount, _KEPT_MINIMA * least, least)
    return (-surplus, "lstm_reduced") if surplus else None


def protections(horizon: int) -> list[dict[str, Any]]:
    """Pauses in horizons, all chosen, in freqtrade's form."""
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
