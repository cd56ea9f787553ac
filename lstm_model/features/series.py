"""Sums and means over a bounded number of rows, with the same bits wherever a series begins.

Shapes: T rows.
"""

from __future__ import annotations

import numpy as np

from lstm_model.market.candles import Floats


def lagged(values: Floats, lag: int) -> Floats:
    """`values` moved `lag` rows later; the first rows, which nothing precedes, are NaN."""
    moved = np.empty_like(values)
    moved[:lag] = np.nan
    moved[lag:] = values[: max(0, len(values) - lag)]
    return moved


def window_sum(values: Floats, window: int) -> Floats:
    """(T,) sum over the last `window` rows, NaN until there are so many.

    Built by doubling (2, 4, 8 ... rows), always in the same order: no running sum that would
    remember where the series began.

    Examples
    --------
    >>> window_sum(np.array([1.0, 2.0, 3.0, 4.0]), 3)
    array([nan, nan,  6.,  9.])
    """
    total, block, size, offset = np.zeros_like(values), values, 1, 0
    while True:
        if window & size:
            total = total + lagged(block, offset)
            offset += size
        if 2 * size > window:
            return total
        block = block + lagged(block, size)
        size *= 2


def ewma_window(halflife: int) -> int:
    """Rows an `ewma` looks back on: the power of two that holds seven half-lives."""
    return 1 << (7 * halflife - 1).bit_length()


def ewma(values: Floats, halflife: int) -> Floats:
    """(T,) exponentially weighted mean, cut off after `ewma_window(halflife)` rows.

    The cut leaves out less than 0.8 % of the weight; the rest is renormalized.

    Examples
    --------
    >>> ewma(np.ones(64), 2)[-1]
    np.float64(1.0)
    """
    decay, size = 0.5 ** (1.0 / halflife), 1
    while size < ewma_window(halflife):
        values = values + decay**size * lagged(values, size)
        size *= 2
    return np.asarray(values * ((1.0 - decay) / (1.0 - decay**size)))
