"""An entry that freqtrade proposes, or a trade that is weighed anew."""

from __future__ import annotations

from dataclasses import dataclass

from freqtrade.persistence import Trade

from lstm_model.trading.own_trades import LONG_TAG, SHORT_TAG

FORCED_TAG = "force_entry"  # freqtrade's own, of /forcelong and the REST API


@dataclass(frozen=True)
class Entry:
    """What is known of it; money in stake currency.

    Attributes
    ----------
    side : 1 long, -1 short
    proposed, free, least : the stake that is asked for; most and least that may be staked
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

    @classmethod
    def of(cls, trade: Trade, rate: float, proposed: float, free: float, least: float) -> Entry:
        """A trade that is open, at the price of now."""
        return cls(
            trade.pair, trade.enter_tag, side_of(trade), rate, trade.leverage or 1.0, proposed,
            free, least, trade.id,
        )  # fmt: skip


def side_of(trade: Trade) -> int:
    """1 long, -1 short."""
    return -1 if trade.is_short else 1


def sign(side: str) -> int:
    """freqtrade's word for a side as 1 or -1."""
    return -1 if side == "short" else 1
