"""What holding a perpetual future is expected to cost: funding, paid between longs and shorts.

At every funding time who is long pays the rate times the position to who is short, or gets it where
the rate is below zero. Who enters just after a candle's close and leaves at the end of the horizon
pays at the funding times within it.
"""

from __future__ import annotations

import numpy as np

from lstm_model.market.candles import Floats, Ints

HOUR_MS = 3_600_000
USUAL_MS = 8 * HOUR_MS  # between funding times; exchanges shorten it where rates are wild
# Chosen: a bot hears of a rate once freqtrade's candle of its hour is closed and downloaded, and a
# backtest must not know it earlier.
KNOWN_AFTER_MS = 2 * HOUR_MS
STALE_AFTER_MS = 24 * HOUR_MS  # chosen: three payments were missed


def expected_funding(paid_ms: Ints, rates: Floats, close_ms: Ints, span_ms: int) -> Floats:
    """(N,) what a long position is expected to pay over each span after a close; a short gets it.

    The rate that was paid last is expected of the next payments. It is known alike to a bot and to
    a backtest, which an exchange's own forecast of the next rate is not. Funding times follow the
    newest known one at the distance of the last two, of 8 hours at most.

    Parameters
    ----------
    paid_ms : (M,) int64, full hours at which funding was paid, rising, ms
    rates : (M,) float64, fractions of the position
    close_ms : (N,) int64, candles' closes, ms
    span_ms : how long a position is held; a payment at its very end is paid, at the close not

    Returns
    -------
    Fractions of the position; 0 where no funding time is crossed and where no rate is known

    Examples
    --------
    Paid at 0:00 and 8:00; held for an hour from 14:00, 15:00 and 15:30 on:

    >>> hours = np.array([14.0, 15.0, 15.5])
    >>> paid_ms, close_ms = np.array([0, 8]) * HOUR_MS, (hours * HOUR_MS).astype(np.int64)
    >>> expected_funding(paid_ms, np.array([0.0001, 0.0003]), close_ms, HOUR_MS)
    array([0.    , 0.0003, 0.0003])
    """
    if not len(paid_ms):
        return np.zeros(len(close_ms))
    known = np.searchsorted(paid_ms, close_ms - KNOWN_AFTER_MS, side="right") - 1
    last = np.maximum(known, 0)
    gaps = np.clip(np.diff(paid_ms, prepend=paid_ms[0] - USUAL_MS), HOUR_MS, USUAL_MS)
    since, gap = close_ms - paid_ms[last], gaps[last]
    payments = (since + span_ms) // gap - since // gap
    expected = payments * rates[last]
    sound = is_known(paid_ms, close_ms) & np.isfinite(expected)
    return np.where(sound & (payments > 0), expected, 0.0)


def is_known(paid_ms: Ints, close_ms: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(N,) whether a rate that is not too old is known at each close; see `expected_funding`."""
    known = np.searchsorted(paid_ms, close_ms - KNOWN_AFTER_MS, side="right") - 1
    if not len(paid_ms):
        return np.zeros(len(close_ms), np.bool_)
    return (known >= 0) & (close_ms - paid_ms[np.maximum(known, 0)] <= STALE_AFTER_MS)
