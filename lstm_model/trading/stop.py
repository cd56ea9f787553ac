"""Where a position is given up: prices, distances, and what is tighter. Pure arithmetic."""

from __future__ import annotations

import math

_FAR = 700.0  # exp(710) is the first to overflow
_INSIDE = 0.95  # chosen: of the way to liquidation; as far from it as freqtrade's default buffer
# Exchanges ask for about half of the margin that a bracket's highest leverage leaves.
_UNKNOWN_MAINTENANCE = 0.5  # of the margin


def stop_price(
    close: float, excursion: float, multiple: float, side: int, hard_stop_fraction: float
) -> float | None:
    """The price at which to give up, or None where there is none to name: the hard stop stays.

    Parameters
    ----------
    close : price that the excursion counts from
    excursion : log return that the price does not pass with a known probability: below zero for a
        long position (`Forecast.lowest`), above zero for a short one (`Forecast.highest`)
    multiple : of the excursion
    side : 1 long, -1 short
    hard_stop_fraction : of the price, above 0: the stop is never looser than this. freqtrade's
        `stoploss` is of the stake: divide it by the leverage

    References
    ----------
    The adverse excursion as the measure of a stop: Sweeney (1996), Maximum Adverse Excursion.

    Examples
    --------
    >>> [round(stop_price(100.0, x, 1.0, 1, 0.05), 2) for x in (-0.02, -0.2)]
    [98.02, 95.0]
    >>> round(stop_price(100.0, 0.02, 1.0, -1, 0.05), 2)
    102.02
    """
    reach = multiple * -side * excursion
    sound = (
        0.0 < close < math.inf and 0.0 < reach < math.inf and 0.0 < hard_stop_fraction < math.inf
    )
    if not sound or multiple <= 0.0 or abs(side) != 1:
        return None
    # Where exp would overflow, the hard stop is nearer.
    price = close * math.exp(min(-side * reach, _FAR))
    return tighter(close * (1.0 - side * hard_stop_fraction), price, side)


def tighter(old: float | None, new: float | None, side: int) -> float | None:
    """Of two stop prices the one that gives up sooner; what is None or no number does not count.

    Examples
    --------
    >>> tighter(95.0, 97.0, 1), tighter(95.0, 94.0, 1), tighter(105.0, None, -1)
    (97.0, 95.0, 105.0)
    """
    known = [price for price in (old, new) if price is not None and not math.isnan(price)]
    if not known:
        return None
    return max(known) if side > 0 else min(known)


def has_passed(rate: float, stop: float, side: int) -> bool:
    """Whether a price is at a stop or beyond it.

    Examples
    --------
    >>> has_passed(99.0, 100.0, 1), has_passed(101.0, 100.0, 1), has_passed(101.0, 100.0, -1)
    (True, False, True)
    """
    return side * (rate - stop) <= 0.0


def stop_distance(rate: float, stop: float | None, side: int) -> float:
    """Fraction of `rate` that is lost when a position entered there is stopped.

    NaN, which gives no stake, without a stop or with one that the rate has passed already.

    Examples
    --------
    >>> stop_distance(100.0, 98.0, 1), stop_distance(100.0, 98.0, -1), stop_distance(100.0, None, 1)
    (0.02, nan, nan)
    """
    if stop is None or not 0.0 < rate < math.inf:
        return math.nan
    distance = side * (rate - stop) / rate
    return distance if distance > 0.0 else math.nan


def most_before_liquidation(leverage: float, maintenance: float | None, buffer: float) -> float:
    """Fraction of the price within which an isolated position is surely stopped, not liquidated.

    The margin of 1 / leverage is used up but for the maintenance margin, which for a short grows
    with the price; what is lost on the way to it is shortened by the buffer, as freqtrade does, and
    once more, so that the stop comes first. 0.0 where the margin is no more than is to be kept.

    Parameters
    ----------
    maintenance : margin to be kept, fraction of the position; None: unknown, half of the margin
    buffer : freqtrade's `liquidation_buffer`

    Examples
    --------
    >>> round(most_before_liquidation(10.0, 0.004, 0.05), 4)
    0.0863
    """
    kept = _UNKNOWN_MAINTENANCE / leverage if maintenance is None else maintenance
    return max(0.0, (1.0 / leverage - kept) / (1.0 + kept)) * (1.0 - buffer) * _INSIDE


def before_liquidation(open_rate: float, liquidation: float | None, side: int) -> float | None:
    """The farthest stop of an open position that comes before its liquidation; None without one.

    Examples
    --------
    >>> round(before_liquidation(100.0, 90.0, 1), 6), round(before_liquidation(100.0, 110.0, -1), 6)
    (90.5, 109.5)
    """
    if not liquidation or not side * (open_rate - liquidation) > 0.0:
        return None
    return open_rate + (liquidation - open_rate) * _INSIDE
