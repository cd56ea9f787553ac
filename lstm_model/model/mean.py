"""The mean of a forecast: a ridge regression on the newest candle, apart from the widths.

A mean that is trained together with the widths spoils them, and is worth less than nothing itself:
trained until mid 2021 and scored on the half year after, its R2 was -0.4 to -2.5 %. So it is fitted
apart, by few numbers, pulled towards what was known before (Hoerl & Kennard 1970). How hard is
chosen by five blocks of time, each foretold from the other four; and unless it then proves itself
on windows that had no part in it, nothing changes. Measured at 1h and 5m before 2022-07: chosen by
the block held out alone, R2 of the months that followed went down to -2.7 %; so, to -0.3 %.

Shapes: N windows, F features of the newest candle, scaled, and 1 for the bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.weights import members, numbered, of_member

Weights = dict[str, NDArray[np.float32]]

# Per window, in units of a column's mean square. Chosen: from as good as none to hardly anything
# of the change left.
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
_NEVER_MS = 2**62
_BLOCKS = 5  # chosen: of time, to choose the penalty by
_LEAST_SCALE = 0.01  # chosen: a column that hardly moved must not get a large coefficient
_ONE_THREAD = 2**18  # multiplications up to which BLAS does not share a product among threads


class Moments(NamedTuple):
    """All that a least-squares fit asks of windows, as means over them.

    Attributes
    ----------
    gram : (F + 1, F + 1) products of the columns, the last of which is 1
    moment : (F + 1,) products of the columns with the target
    """

    gram: Floats
    moment: Floats

    @classmethod
    def of(cls, inputs: NDArray[np.float32], target: Floats) -> Self:
        """Those of windows (N, F) and their targets (N,).

        Part by part, so that no product is so large that BLAS shares it among threads: beside a
        training those wait for each other, measured 0.7 s instead of 0.1.
        """
        count, size = len(inputs), inputs.shape[1] + 1
        gram, moment = np.zeros((size, size)), np.zeros(size)
        step = max(1, _ONE_THREAD // size**2)
        for start in range(0, count, step):
            rows = inputs[start : start + step].astype(np.float64)
            columns = np.column_stack([rows, np.ones(len(rows))])
            gram += columns.T @ columns
            moment += columns.T @ target[start : start + step]
        return cls(gram / count, moment / count)

    @classmethod
    def mean(cls, many: Sequence[Self]) -> Self:
        """Those of the windows of several blocks, which count alike."""
        grams, moments = zip(*many, strict=True)
        return cls(np.mean(grams, axis=0), np.mean(moments, axis=0))

    def missing(self, known: Floats) -> Floats:
        """(F + 1,) products of the columns with what coefficients (F + 1,) leave of the target."""
        return np.asarray(self.moment - self.gram @ known)

    def change(self, penalty: float, known: Floats) -> Floats:
        """(F + 1,) what a ridge regression changes of the known coefficients."""
        scale = np.sqrt(np.diag(self.gram)).clip(_LEAST_SCALE)
        ridge = self.gram + np.diag(penalty * scale**2)
        return np.asarray(np.linalg.solve(ridge, self.missing(known)))

    def gain(self, change: Floats, known: Floats) -> float:
        """By how much a change of the known coefficients lowers the squared error."""
        return 2.0 * float(change @ self.missing(known)) - float(change @ self.gram @ change)


def fitted(blocks: Sequence[Moments], held_out: Moments, known: Floats) -> Floats:
    """(F + 1,) coefficients, the bias last: pulled towards those that are known.

    Of the penalties, the one with the least squared error over the blocks, each foretold from the
    others; where that gains nothing there, or nothing on the windows held out, the known ones are
    the answer to the last bit.

    Examples
    --------
    >>> inputs, noise = np.random.default_rng(0).normal(size=(2, 6_000, 1))
    >>> target = (0.5 * inputs + noise)[:, 0]
    >>> parts = [Moments.of(inputs[part::6], target[part::6]) for part in range(6)]
    >>> fitted(parts[1:], parts[0], np.zeros(2)).round(1)
    array([0.5, 0. ])
    """
    if len(blocks) < 2:  # nothing is left to foretell one from
        return known
    others = [
        Moments.mean([block for block in blocks if block is not left_out]) for left_out in blocks
    ]
    gains = [
        sum(
            block.gain(rest.change(penalty, known), known)
            for block, rest in zip(blocks, others, strict=True)
        )
        for penalty in PENALTIES
    ]
    best = int(np.argmax(gains))
    change = Moments.mean(blocks).change(PENALTIES[best], known)
    proven = gains[best] > 0.0 and held_out.gain(change, known) > 0.0  # a NaN proves nothing
    return known + change if proven else known


class Windows(NamedTuple):
    """What a mean is learnt from.

    Attributes
    ----------
    rows : (R, F) float64, features as computed, not yet scaled
    target : (R,) float64
    train, held_out : rows that end the windows to learn from, and to prove it on
    date_ms : (R,) int64; None: the rows are in order of time
    label_ms : (R,) int64, when the outcome of each is known; None: at once
    """

    rows: Floats
    target: Floats
    train: Ints
    held_out: Ints
    date_ms: Ints | None = None
    label_ms: Ints | None = None

    def blocks(self) -> list[Ints]:
        """`train` in blocks of time, of about as many windows each.

        What is known only after the next block has begun belongs to none (purging, López de Prado
        2018).
        """
        dates = np.asarray(
            self.train if self.date_ms is None else self.date_ms[self.train], np.int64
        )
        known = dates if self.label_ms is None else self.label_ms[self.train]
        parts = np.array_split(np.argsort(dates, kind="stable"), _BLOCKS)
        ends = [dates[part].min(initial=_NEVER_MS) for part in parts[1:]] + [_NEVER_MS]
        return [self.train[part[known[part] <= end]] for part, end in zip(parts, ends, strict=True)]

    def moments(self, scaler: tuple[Floats, Floats], ends: Ints) -> Moments:
        """Those of the windows that end in rows `ends` (N,)."""
        mean, scale = scaler
        inputs = ((self.rows[ends] - mean) / scale).astype(np.float32)
        return Moments.of(inputs, self.target[ends])


def learn_mean(weights: Mapping[str, NDArray[np.float32]], windows: Windows) -> Weights:
    """The weights with a mean fitted anew, pulled towards the one they have, or else to zero.

    It does not depend on the networks, so all members have the same.

    Parameters
    ----------
    weights : as stored, of all members; `mean/kernel` and `mean/bias` may be missing
    """
    size = len(weights["scaler/mean"])
    zero = {"mean/kernel": np.zeros((size, 1), np.float32), "mean/bias": np.zeros(1, np.float32)}
    start = {**zero, **of_member(weights, 1)}
    known = np.concatenate([start["mean/kernel"][:, 0], start["mean/bias"]], dtype=np.float64)
    scaler = start["scaler/mean"].astype(np.float64), start["scaler/scale"].astype(np.float64)
    blocks = [windows.moments(scaler, block) for block in windows.blocks() if len(block)]
    found = fitted(blocks, windows.moments(scaler, windows.held_out), known).astype(np.float32)
    mean = {"mean/kernel": found[:-1, None], "mean/bias": found[-1:]}
    return {
        name: array
        for number in range(1, members(weights) + 1)
        for name, array in numbered({**of_member(weights, number), **mean}, number).items()
    }
