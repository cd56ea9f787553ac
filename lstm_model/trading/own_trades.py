"""Trades that the forecast makes by itself: where it enters, and why it leaves."""

from __future__ import annotations

import math

from pandas import DataFrame

from lstm_model.trading.analyzed import newest
from lstm_model.trading.sizing import ENTER_LONG, ENTER_SHORT, NO_EDGE

LONG_TAG, SHORT_TAG = "lstm_long", "lstm_short"  # entries of the forecast: staked by Kelly too

EXITS: dict[str, str] = {
    "lstm_turned": "the newest forecast is against it",
    "lstm_turned_inside": "the trades since the candle closed speak against it",
    "lstm_stop_passed": "the price is beyond a stop that was to be set",
    "lstm_horizon": "the horizon is over, and the newest candle would not enter again",
}


def is_own(tag: str | None) -> bool:
    """Whether the forecast entered a trade of this tag, of an older release too.

    Examples
    --------
    >>> is_own("lstm_long"), is_own("lstm"), is_own("force_entry"), is_own(None)
    (True, True, False, False)
    """
    return (tag or "").startswith("lstm")


def mark_entries(frame: DataFrame, least_edge: float, *, can_short: bool) -> DataFrame:
    """Mark the candles after which the expected return exceeds all costs by `least_edge`.

    Writes freqtrade's `enter_long`, `enter_short` and `enter_tag` into the frame, and `lstm_side`
    and `lstm_reason` anew.
    """
    free = (frame["lstm_gate"] == "") & frame["lstm_edge"].notna()
    frame.loc[free, ["lstm_side", "lstm_reason"]] = 0, NO_EDGE
    worth = free & (frame["lstm_edge"] > least_edge)
    for side, column, tag, reason in (
        (1, "enter_long", LONG_TAG, ENTER_LONG),
        (-1, "enter_short", SHORT_TAG, ENTER_SHORT),
    ):
        if side > 0 or can_short:
            chosen = worth & (frame["lstm_mean"] * side > 0.0)
            frame.loc[chosen, [column, "enter_tag"]] = 1, tag
            frame.loc[chosen, ["lstm_side", "lstm_reason"]] = side, reason
    return frame


def has_turned(frame: DataFrame, side: int) -> bool:
    """Whether the newest forecast is against a position (`side` 1 long, -1 short)."""
    return side * newest(frame, "lstm_mean") < 0.0


def enters_again(frame: DataFrame, side: int) -> bool:
    """Whether the newest candle would enter the same position."""
    return newest(frame, "enter_long" if side > 0 else "enter_short") == 1.0


def reduction(held: float, wanted: float, kept: float, least: float) -> float:
    """Stake to give back when the newest forecast wants less than half of what is held.

    Half, because every change costs fees. Both what is given back and what stays are orders that
    the exchange takes, or nothing is given back.

    Parameters
    ----------
    held, wanted : stake now, and the one that would be taken now, in stake currency
    kept : smallest stake that may stay
    least : smallest stake that the exchange takes

    Examples
    --------
    >>> reduction(100.0, 40.0, 20.0, 10.0), reduction(100.0, 60.0, 20.0, 10.0)
    (60.0, 0.0)
    >>> reduction(100.0, 0.0, 20.0, 10.0), reduction(11.0, 0.0, 10.5, 10.0)
    (80.0, 0.0)
    """
    if not wanted < 0.5 * held or not math.isfinite(held + wanted + kept + least):
        return 0.0
    surplus = held - max(wanted, kept)
    return surplus if surplus > 0.0 and surplus >= least else 0.0
