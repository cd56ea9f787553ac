"""An entry that freqtrade proposes, or a trade that is weighed anew."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from freqtrade.persistence import Trade
from pandas import DataFrame

from lstm_model.trading.own_trades import LONG_TAG, SHORT_TAG

SIGNIFICANT_DIGITS, TICK_SIZE = 3, 4  # ccxt's, of precision; 2 is decimal places
FORCED_TAG = "force_entry"  # freqtrade's own, of /forcelong and the REST API


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
