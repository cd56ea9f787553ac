"""Several networks as one: their forecasts are averaged.

Networks that differ in the seed of their training alone err apart where they have memorized, and
agree where they have learnt; the mean of their quantiles is better than each (Lakshminarayanan,
Pritzel & Blundell 2017). Means of rising quantiles rise.

Shapes: as in `lstm_model.model.lstm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.lstm import Lstm, LstmState
from lstm_model.model.weights import members, of_member


class Ensemble:
    """The members of a trained model, ready to serve; what `Lstm` answers, on average.

    Parameters
    ----------
    weights : as stored, see `lstm_model.model.weights`
    lookback : L, candles in a window

    Raises
    ------
    StoreError
        A weight is missing or has the wrong shape.

    Examples
    --------
    >>> from lstm_model.model.weights import baseline_weights, numbered
    >>> near, far = (baseline_weights(np.array([-x, 0.0, x]), n_features=3) for x in (1.0, 2.0))
    >>> both = Ensemble({**near, **numbered(far, 2)}, lookback=8)
    >>> both.predict(np.zeros((9, 3)), np.array([8])).round(5)
    array([[-1.5,  0. ,  1.5]])
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], lookback: int) -> None:
        self.lookback = lookback
        count = members(weights)
        self.members = [Lstm(of_member(weights, n), lookback) for n in range(1, count + 1)]

    @property
    def features(self) -> int:
        """F."""
        return self.members[0].features

    def predict(self, rows: Floats, ends: Ints) -> Floats:
        """(N, K) after the windows that end in the given rows, see `Lstm.predict`."""
        return _mean([member.predict(rows, ends) for member in self.members])

    def predict_windows(self, windows: Floats) -> Floats:
        """(N, K) after N windows (N, L, F), see `Lstm.predict_windows`."""
        return _mean([member.predict_windows(windows) for member in self.members])

    def state_after(self, windows: Floats) -> LstmState:
        """The state of N series after their candles: the layers of one member after the other."""
        states = [member.state_after(windows) for member in self.members]
        hidden = [layer for state in states for layer in state.hidden]
        return LstmState(hidden, [layer for state in states for layer in state.cell])

    def step(self, state: LstmState, rows: Floats) -> Floats:
        """Advance `state` by a candle, in place, and forecast (N, K), see `Lstm.step`."""
        return _mean([member.step(own, rows) for member, own in self._shares(state)])

    def _shares(self, state: LstmState) -> Iterator[tuple[Lstm, LstmState]]:
        layers = len(state.hidden) // len(self.members)
        for number, member in enumerate(self.members):
            mine = slice(number * layers, (number + 1) * layers)
            yield member, LstmState(state.hidden[mine], state.cell[mine])


def _mean(outputs: Sequence[Floats]) -> Floats:
    if len(outputs) == 1:
        return outputs[0]
    total = outputs[0]
    for output in outputs[1:]:  # one after the other: the order decides the last bit
        total = total + output
    return np.asarray(total / len(outputs))
