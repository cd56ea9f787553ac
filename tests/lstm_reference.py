"""A second LSTM, plain and slow, in float64; random weights in the stored form."""

from __future__ import annotations

import numpy as np

Weights = dict[str, np.ndarray]


def random_weights(
    features: int, units: int, levels: int, *, layers: int = 2, seed: int = 0
) -> Weights:
    """Weights as a training exports them, float32, Keras's names and gate order."""
    random = np.random.default_rng(seed)
    shapes = {"scaler/mean": (features,), "scaler/scale": (features,)}
    inputs = features
    for number in range(1, layers + 1):
        shapes |= {
            f"lstm_{number}/kernel": (inputs, 4 * units),
            f"lstm_{number}/bias": (4 * units,),
        }
        shapes[f"lstm_{number}/recurrent"] = (units, 4 * units)
        inputs = units
    seen = units + features
    shapes |= {"mean/kernel": (features, 1), "mean/bias": (1,)}
    shapes |= {"gaps/kernel": (seen, levels - 1), "gaps/bias": (levels - 1,)}
    weights = {name: random.normal(size=shape) / np.sqrt(units) for name, shape in shapes.items()}
    weights["scaler/scale"] = np.exp(weights["scaler/scale"])
    return {name: array.astype(np.float32) for name, array in weights.items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def hidden_states(weights: Weights, windows: np.ndarray) -> np.ndarray:
    """(N, L, F) scaled windows -> (N, U): the last layer's output after the last candle."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    series = windows.astype(np.float64)
    for layer in sorted({name.split("/")[0] for name in w if name.startswith("lstm_")}):
        h = c = np.zeros((len(series), len(w[f"{layer}/recurrent"])))
        out = []
        for x in series.swapaxes(0, 1):
            z = x @ w[f"{layer}/kernel"] + h @ w[f"{layer}/recurrent"] + w[f"{layer}/bias"]
            i, f, g, o = np.split(z, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        series = np.stack(out, axis=1)
    return series[:, -1]


def reference_quantiles(
    weights: Weights, rows: np.ndarray, ends: np.ndarray, lookback: int
) -> np.ndarray:
    """(N, K) for unscaled feature rows (T, F), one level at a time."""
    scaled = (rows - weights["scaler/mean"]) / weights["scaler/scale"]
    windows = np.stack([scaled[end - lookback + 1 : end + 1] for end in ends])
    z = np.concatenate([hidden_states(weights, windows), windows[:, -1]], axis=1)
    mean = (windows[:, -1] @ weights["mean/kernel"] + weights["mean/bias"])[:, 0]
    gaps = np.log1p(np.exp(z @ weights["gaps/kernel"] + weights["gaps/bias"]))
    middle = gaps.shape[1] // 2
    below = [mean - gaps[:, level:middle].sum(axis=1) for level in range(middle)]
    above = [mean + gaps[:, middle : level + 1].sum(axis=1) for level in range(middle, 2 * middle)]
    return np.stack([*below, mean, *above], axis=1)
