"""The weights of a network by name: whether they form one, its head, and champion number zero.

A model may be several networks, its members. The weights of the first have plain names, those of
the n-th begin with "n/"; they share one scaler.

Champion number zero has zero weights and a head that holds the quantiles of the past, in units of
EWMA volatility, widened by HAR where that foretells better (`lstm_model.scoring.har`). Its mean is
zero. As weights it needs hardly any code of its own: it is stored, served, calibrated
and judged like any network, and every network has to beat it first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats

MOST_WIDENED = 3.0  # chosen: HAR widens no more than exp(3) times, and no less than exp(-3)
_NOT_TRAINED = ("scaler", "mean")  # parts of a model that the training process never sees
MOST_MEMBERS = 8  # chosen: more serve slower and gain nothing
_NAME = re.compile(r"([2-9]/)?(lstm_[1-9]|gaps|scale)/[a-z]+")  # what training can leave
_LEAST_GAP = 1e-4  # in units of volatility; ties between quantiles of a market that stands still


def baseline_weights(
    quantiles: Floats, n_features: int, scale: Floats | None = None
) -> dict[str, NDArray[np.float32]]:
    """Weights, named as the network's, of one that answers `quantiles` (K,), always or scaled.

    They are moved so that the middle one is zero: it is the mean of a forecast.

    Parameters
    ----------
    scale : (F + 1,) numbers, the constant last, of the log by which HAR widens them; None: as
        they are

    Examples
    --------
    >>> from lstm_model.model.lstm import Lstm
    >>> rows, ends = np.random.default_rng(0).normal(size=(9, 3)), np.array([8])
    >>> lstm = Lstm(baseline_weights(np.array([-1.5, 0.0, 2.0]), n_features=3), lookback=8)
    >>> lstm.predict(rows, ends).round(5)
    array([[-1.5,  0. ,  2. ]])
    >>> twice = np.array([0.0, 0.0, 0.0, np.log(2.0)])
    >>> lstm = Lstm(baseline_weights(np.array([-1.5, 0.0, 2.0]), 3, twice), lookback=8)
    >>> lstm.predict(rows, ends).round(5)
    array([[-3.,  0.,  4.]])
    """
    gaps = np.maximum(np.diff(quantiles), _LEAST_GAP)
    arrays = {
        "lstm_1/kernel": np.zeros((n_features, 4)),
        "lstm_1/recurrent": np.zeros((1, 4)),
        "lstm_1/bias": np.zeros(4),
        "mean/kernel": np.zeros((n_features, 1)),
        "mean/bias": np.zeros(1),
        "gaps/kernel": np.zeros((1 + n_features, len(gaps))),
        "gaps/bias": np.log(np.expm1(gaps)),  # the inverse of softplus
        "scaler/mean": np.zeros(n_features),
        "scaler/scale": np.ones(n_features),
    }
    if scale is not None:
        arrays |= {"scale/kernel": scale[:-1, None], "scale/bias": scale[-1:]}
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def is_trained(name: str) -> bool:
    """Whether the training process has to do with this array of a model."""
    part = name.rpartition("/")[0].rpartition("/")[2]
    return part not in _NOT_TRAINED


def members(weights: Mapping[str, NDArray[np.float32]]) -> int:
    """How many networks these are the weights of.

    Examples
    --------
    >>> one = baseline_weights(np.array([-1.0, 0.0, 1.0]), n_features=3)
    >>> members(one), members({**one, **numbered(one, 2)})
    (1, 2)
    """
    return max([1, *(int(name.split("/")[0]) for name in weights if name[0].isdigit())])


def of_member(
    weights: Mapping[str, NDArray[np.float32]], number: int
) -> dict[str, NDArray[np.float32]]:
    """The weights of one member under plain names, with the scaler."""
    shared = {name: array for name, array in weights.items() if name.startswith("scaler/")}
    if number == 1:
        return {name: array for name, array in weights.items() if not name[0].isdigit()}
    own = {
        n.removeprefix(f"{number}/"): a for n, a in weights.items() if n.startswith(f"{number}/")
    }
    return {**own, **shared}


def numbered(
    weights: Mapping[str, NDArray[np.float32]], number: int
) -> dict[str, NDArray[np.float32]]:
    """The inverse of `of_member`."""
    if number == 1:
        return dict(weights)
    return {f"{number}/{n}": a for n, a in weights.items() if not n.startswith("scaler/")}


def check_shapes(weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse missing, foreign and misshapen arrays, so that serving cannot fail later.

    Raises
    ------
    ValueError, KeyError, IndexError
    """
    layers = sorted({name.split("/")[0] for name in weights if name.startswith("lstm_")})
    inputs = weights["scaler/mean"].shape[0]
    wanted: dict[str, tuple[int, ...]] = {"scaler/mean": (inputs,), "scaler/scale": (inputs,)}
    for name in layers:
        units = weights[f"{name}/recurrent"].shape[0]
        wanted[f"{name}/kernel"] = (inputs, 4 * units)
        wanted[f"{name}/recurrent"] = (units, 4 * units)
        wanted[f"{name}/bias"] = (4 * units,)
        inputs = units
    features, count = weights["scaler/mean"].shape[0], weights["gaps/bias"].shape[0]
    inputs += features
    wanted |= {"mean/kernel": (features, 1), "mean/bias": (1,)}
    wanted |= {"gaps/kernel": (inputs, max(2, count // 2 * 2)), "gaps/bias": (count,)}
    if any(name.startswith("scale/") for name in weights):
        wanted |= {"scale/kernel": (features, 1), "scale/bias": (1,)}
    found = {name: array.shape for name, array in weights.items()}
    if not layers or found != wanted:
        wrong = sorted(
            name for name in found.keys() | wanted if found.get(name) != wanted.get(name)
        )
        raise ValueError(f"missing, foreign or misshapen: {', '.join(wrong) or 'layers'}")


def check_trained(weights: Mapping[str, NDArray[np.float32]], features: int, levels: int) -> None:
    """Refuse what a training process left that is no network of so many features and levels.

    Nor are scaler and mean from there, which it never sees.

    Raises
    ------
    ValueError, KeyError, IndexError
    """
    foreign = [name for name in weights if not _NAME.fullmatch(name)]
    if foreign:
        raise ValueError(f"no weights of a network: {', '.join(map(repr, foreign))}")
    count = members(weights)
    if count > MOST_MEMBERS:
        raise ValueError(f"{count} networks, where {MOST_MEMBERS} are the most")
    beside = baseline_weights(np.arange(levels, dtype=np.float64), features)
    own = {name: array for name, array in beside.items() if not is_trained(name)}
    for number in range(1, count + 1):
        member = of_member(weights, number) | own
        check_shapes(member)
        if len(member["gaps/bias"]) != levels - 1:
            raise ValueError(f"gaps between {len(member['gaps/bias']) + 1} levels, not {levels}")


@dataclass(frozen=True)
class Head:
    """Mean plus non-negative gaps on either side, so that quantiles cannot cross.

    Attributes
    ----------
    scale : (F,) and a constant, of the log by which gaps are widened; None: they are not
    """

    kernel: Floats  # (K, U + F): of the mean, then of the gaps, each side from the middle outwards
    bias: Floats  # (K,)
    scale: tuple[Floats, float] | None = None

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[np.float32]]) -> Self:
        gaps, mean = weights["gaps/kernel"], weights["mean/kernel"]
        blind = np.zeros((len(gaps) - len(mean), 1), np.float32)  # to the hidden state
        kernel = np.concatenate([np.concatenate([blind, mean]), gaps], 1, dtype=np.float64)
        bias = np.concatenate([weights["mean/bias"], weights["gaps/bias"]], dtype=np.float64)
        half = len(bias) // 2
        outwards = [0, *range(half, 0, -1), *range(half + 1, len(bias))]
        scale = None
        if "scale/bias" in weights:
            widening = weights["scale/kernel"][:, 0].astype(np.float64)
            scale = widening, float(weights["scale/bias"][0])
        return cls(np.ascontiguousarray(kernel.T[outwards]), bias[outwards], scale)

    @property
    def levels(self) -> int:
        return len(self.bias)

    @cached_property
    def is_blind(self) -> bool:
        """It does not ask what the layers found, as that of `baseline_weights`."""
        return not self.kernel.any()

    def __call__(self, hidden: NDArray[np.float32], newest: NDArray[np.float32]) -> Floats:
        """(B, U) float32 and scaled newest rows (B, F) float32 -> (B, K) float64, rising along K.

        The middle column is the mean.
        """
        z = np.concatenate([hidden, newest], 1, dtype=np.float64)
        # A sum, not a product by BLAS: its order does not depend on the rows beside.
        out: Floats = np.add.reduce(z[:, None] * self.kernel, 2)
        out += self.bias
        half, mean = self.levels // 2, out[:, :1]
        gaps = np.logaddexp(0.0, out[:, 1:]).reshape(-1, 2, half)
        if self.scale is not None:
            widening = np.add.reduce(newest * self.scale[0], 1) + self.scale[1]
            gaps *= np.exp(np.clip(widening, -MOST_WIDENED, MOST_WIDENED))[:, None, None]
        far = np.add.accumulate(gaps, 2)
        quantiles = np.empty_like(out)
        quantiles[:, half] = out[:, 0]
        np.subtract(mean, far[:, 0], quantiles[:, half - 1 :: -1])
        np.add(mean, far[:, 1], quantiles[:, half + 1 :])
        return quantiles
