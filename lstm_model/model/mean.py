"""The mean of a forecast: a ridge regression on what the network's head sees, after the widths.

A mean that is trained together with the widths spoils them, and is worth less than nothing itself:
trained until mid 2021 and scored on the half year after, its R2 was -0.4 to -2.5 %. So it is fitted
apart, by few numbers, pulled towards what was known before (Hoerl & Kennard 1970), and only where
that proves itself on windows that had no part in it.

Shapes: N windows, Z what the head sees of one (`Lstm.head_inputs`), and 1 for the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.lstm import Lstm
from lstm_model.model.weights import members, numbered, of_member
from lstm_model.settings import Settings

Weights = dict[str, NDArray[np.float32]]

# Per window, in units of a column's mean square. Chosen: from as good as none to hardly anything
# of the change left.
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
MOST_WINDOWS = 100_000  # chosen: as many as an epoch of training draws
_LEAST_SCALE = 0.01  # chosen: a column that hardly moved must not get a large coefficient
_ONE_THREAD = 2**18  # multiplications up to which BLAS does not share a product among threads


class Moments(NamedTuple):
    """All that a least-squares fit asks of windows, as means over them.

    Attributes
    ----------
    gram : (Z + 1, Z + 1) products of the columns, the last of which is 1
    moment : (Z + 1,) products of the columns with the target
    """

    gram: Floats
    moment: Floats

    @classmethod
    def of(cls, inputs: NDArray[np.float32], target: Floats) -> Self:
        """Those of windows (N, Z) and their targets (N,).

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

    def missing(self, known: Floats) -> Floats:
        """(Z + 1,) products of the columns with what coefficients (Z + 1,) leave of the target."""
        return np.asarray(self.moment - self.gram @ known)


def fitted(learnt: Moments, held_out: Moments, known: Floats) -> Floats:
    """(Z + 1,) coefficients, the bias last: pulled towards those that are known.

    Of the penalties, the one with the least squared error on the windows held out; where none has
    less than the known ones, those are the answer to the last bit.

    Examples
    --------
    >>> inputs, noise = np.random.default_rng(0).normal(size=(2, 4_000, 1))
    >>> target = (0.5 * inputs + noise)[:, 0]
    >>> halves = [Moments.of(inputs[half::2], target[half::2]) for half in (0, 1)]
    >>> fitted(*halves, np.zeros(2)).round(1)
    array([0.5, 0. ])
    """
    scale = np.sqrt(np.diag(learnt.gram)).clip(_LEAST_SCALE)
    missing, open_ = learnt.missing(known), held_out.missing(known)
    best, most = known, 0.0
    for penalty in PENALTIES:
        change = np.linalg.solve(learnt.gram + np.diag(penalty * scale**2), missing)
        gain = 2.0 * float(change @ open_) - float(change @ held_out.gram @ change)
        if gain > most:
            best, most = known + change, gain
    return best


class Windows(NamedTuple):
    """What a mean is learnt from.

    Attributes
    ----------
    rows : (R, F) float64, features as computed, not yet scaled
    target : (R,) float64
    train, held_out : rows that end the windows to learn from, and to choose by
    """

    rows: Floats
    target: Floats
    train: Ints
    held_out: Ints

    def moments(self, lstm: Lstm, ends: Ints, seed: int) -> Moments:
        """Those of the windows, or of `MOST_WINDOWS` of them."""
        if len(ends) > MOST_WINDOWS:
            random = np.random.default_rng(seed)
            ends = np.sort(random.choice(ends, MOST_WINDOWS, replace=False))
        return Moments.of(lstm.head_inputs(self.rows, ends), self.target[ends])


def learn_mean(
    weights: Mapping[str, NDArray[np.float32]], windows: Windows, settings: Settings
) -> Weights:
    """The weights with means fitted anew, pulled towards those they have, or else to zero.

    Parameters
    ----------
    weights : as stored, of all members; `mean/kernel` and `mean/bias` may be missing
    """
    own = [of_member(weights, number) for number in range(1, members(weights) + 1)]
    made = [_learn_mean(of_one, windows, settings) for of_one in own]
    return {
        name: array
        for number, of_one in enumerate(made, 1)
        for name, array in numbered(of_one, number).items()
    }


def _learn_mean(
    weights: Mapping[str, NDArray[np.float32]], windows: Windows, settings: Settings
) -> Weights:
    size = len(weights["gaps/kernel"])
    zero = {"mean/kernel": np.zeros((size, 1), np.float32), "mean/bias": np.zeros(1, np.float32)}
    start = {**zero, **weights}
    lstm = Lstm(start, settings.lookback)
    known = np.concatenate([start["mean/kernel"][:, 0], start["mean/bias"]], dtype=np.float64)
    learnt, held_out = (
        windows.moments(lstm, ends, settings.seed) for ends in (windows.train, windows.held_out)
    )
    found = fitted(learnt, held_out, known).astype(np.float32)
    return {**start, "mean/kernel": found[:-1, None], "mean/bias": found[-1:]}
