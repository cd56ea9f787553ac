"""The trades that stand for a candle: a path through its four prices, fine enough for a stop.

A price goes on a straight line from open to one extreme, to the other, to close: a rising candle
visits its low first, a falling one its high. The corners are at the candle's beginning, a quarter,
a half and its end. A line is cut into steps of at most `STEP_BPS`, so a stop is met no farther
beyond its price. It has fewer where there would be more than one a second, or more than the candle
has ticks or lots. Their number is a power of two, so that pairs trade at the same moments: what a
replay costs is moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lstm_model.errors import DataError
from lstm_model.market.candles import Ints

STEP_BPS = 4.0  # chosen: of 50 trades of a third of the wallet, 0.3 % of it at the very most
_LEAST_MS = 1_000  # between two steps; a replay moves in whole seconds
_MOST_STEPS = 256  # chosen: of a line; 10 % of the price in steps of `STEP_BPS`


@dataclass(frozen=True)
class CandlePath:
    """T trades of C candles, oldest first.

    Attributes
    ----------
    time_ms : (T,) int64
    price : (T,) int64, ticks
    amount : (T,) int64, lots
    """

    time_ms: Ints
    price: Ints
    amount: Ints


def candle_path(open_ms: Ints, prices: Ints, lots: Ints, step_ms: int) -> CandlePath:
    """Trades whose aggregation is the candles: prices and volume as they are.

    Parameters
    ----------
    open_ms : (C,) int64
    prices : (C, 4) int64, open, high, low and close in ticks
    lots : (C,) int64, volume; one below four lots is rounded up to four
    step_ms : length of a candle

    Raises
    ------
    DataError
        If an open or close lies outside the candle's low and high.

    Examples
    --------
    A rising candle of five minutes, 5,000 to 5,004 ticks, that has been at 4,996 and 5,008:

    >>> path = candle_path(
    ...     np.array([0]), np.array([[5_000, 5_008, 4_996, 5_004]]), np.array([60]), 300_000
    ... )
    >>> path.price.tolist()
    [5000, 4998, 4996, 4997, 4999, 5000, 5002, 5003, 5005, 5006, 5008, 5006, 5004]
    >>> path.time_ms.tolist()
    [0, 37500, 75000, 84375, 93750, 103125, 112500, 121875, 131250, 140625, 150000, 224999, 299999]
    >>> int(path.amount.sum())
    60
    """
    corners = _visits(prices)
    offsets = np.array([0, step_ms // 4, step_ms // 2, step_ms - 1])
    steps = _steps(corners, lots, np.diff(offsets))
    # Every line has the trades after its first corner; the candle's open is a line of one trade.
    counts = np.concatenate([np.ones((len(lots), 1), np.int64), steps], axis=1).ravel()
    line = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts) + 1

    def drawn(ends: Ints) -> Ints:
        """(C, 4) corners -> (T,) on the lines between them."""
        begins = np.concatenate([ends[:, :1], ends[:, :-1]], axis=1).ravel()
        ways = ends.ravel() - begins
        way: Ints = begins[line] + ways[line] * place // counts[line]
        return way

    times = open_ms[:, None] + offsets
    return CandlePath(drawn(times), drawn(corners), _shares(lots, counts.reshape(-1, 4).sum(1)))


def _visits(prices: Ints) -> Ints:
    """(C, 4) open, high, low, close -> (C, 4) the order in which they are traded."""
    first, high, low, last = prices.T
    if (np.minimum(first, last) < low).any() or (np.maximum(first, last) > high).any():
        raise DataError("a candle's open or close lies outside its low and high")
    rising = last >= first
    return np.stack((first, np.where(rising, low, high), np.where(rising, high, low), last), axis=1)


def _steps(corners: Ints, lots: Ints, spans_ms: Ints) -> Ints:
    """(C, 3) how many trades each line has after its first corner, at least one."""
    ways = np.abs(np.diff(corners, axis=1))
    step = np.maximum(corners[:, :1], 1) * STEP_BPS / 1e4
    wanted = np.minimum(np.ceil(ways / step), ways)
    most = np.floor(np.log2(np.clip(spans_ms // _LEAST_MS, 1, _MOST_STEPS)))
    powers = np.minimum(np.ceil(np.log2(np.maximum(wanted, 1))), most)
    steps = 2 ** powers.astype(np.int64)
    is_rich = lots >= 1 + steps.sum(axis=1)
    return np.where(is_rich[:, None], steps, 1)


def _shares(lots: Ints, counts: Ints) -> Ints:
    """(C,) volume, (C,) trades -> (T,) amounts of at least one lot whose sum the volume is."""
    each = np.maximum(lots // counts, 1)
    shares = np.repeat(each, counts)
    shares[np.cumsum(counts) - 1] = np.maximum(lots - (counts - 1) * each, 1)
    return shares
