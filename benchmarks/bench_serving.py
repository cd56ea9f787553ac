"""Serving speed: our NumPy LSTM beside Keras's `model.predict` and a compiled call, in one run.

python benchmarks/bench_serving.py
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from networks import LARGE
from rich.console import Console
from rich.table import Table

from lstm_model.market.candles import Candles
from lstm_model.model.features import WARM_UP, compute_features, feature_names
from lstm_model.model.lstm import Lstm
from lstm_model.settings import parse_settings
from lstm_model.training.network import build_network, export_weights

SETTINGS = parse_settings(LARGE)
FEATURES = len(feature_names(False))
PAIRS = 100
MANY = 100_000
console = Console(width=110)


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile in microseconds, after a warm-up."""
    for _ in range(max(1, min(10, repeats // 10))):
        work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e6)
    return float(np.median(times)), float(np.percentile(times, 99))


def invented_candles(count: int) -> Candles:
    """A random walk of 1m candles."""
    rng = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(rng.standard_normal(count) * 1e-3))
    before = np.concatenate([[100.0], close[:-1]])
    top, bottom = np.maximum(close, before) * 1.0005, np.minimum(close, before) * 0.9995
    dates = np.arange(count, dtype=np.int64) * 60_000
    return Candles(
        "BTC/USDT", 60_000, dates, before, top, bottom, close, rng.gamma(2.0, size=count)
    )


def main() -> None:
    network = build_network(SETTINGS, FEATURES)
    unit = {"scaler/mean": np.zeros(FEATURES, "f"), "scaler/scale": np.ones(FEATURES, "f")}
    lstm = Lstm({**export_weights(network), **unit}, SETTINGS.lookback)
    rows = np.random.default_rng(0).standard_normal((MANY + SETTINGS.lookback, FEATURES))
    table = Table("what", "peer", "ours, median", "p99", "peer, median", "p99", "ratio")
    for name, ours, peer_name, peer, repeats in cases(lstm, network, rows):
        mine = measure(ours, repeats)
        console.print(f"{name}: {readable(mine[0])}, p99 {readable(mine[1])}")
        theirs = measure(peer, max(1, repeats // 10)) if peer else (float("nan"),) * 2
        ratio = f"{theirs[0] / mine[0]:.1f} x" if peer else ""
        table.add_row(name, peer_name, *(readable(x) for x in (*mine, *theirs)), ratio)
    console.print(table)
    console.print(f"Two LSTM({SETTINGS.units}), window {SETTINGS.lookback}, {FEATURES} features, "
                  f"{len(SETTINGS.levels)} quantiles; NumPy {np.__version__}, "
                  f"TensorFlow {tf.__version__}, Python {sys.version.split()[0]}")  # fmt: skip


def cases(lstm: Lstm, network: Any, rows: Any) -> list[tuple[Any, ...]]:
    lookback = SETTINGS.lookback
    windows = np.lib.stride_tricks.sliding_window_view(rows.astype("f"), lookback, axis=0)
    windows = windows.swapaxes(1, 2)
    first, last = windows[:1].copy(), np.array([lookback - 1])
    hundred = [rows[a : a + lookback] for a in range(PAIRS)]
    batch = windows[:PAIRS].copy()
    compiled = tf.function(lambda x: network(x, training=False))
    state, ends = lstm.initial_state(), np.arange(lookback - 1, lookback - 1 + MANY)
    many = windows[:MANY].copy()
    candles = invented_candles(WARM_UP + lookback + 1)
    return [
        ("one window", lambda: lstm.predict(hundred[0], last),
         "predict", lambda: network.predict(first, verbose=0), 300),
        ("one window", lambda: lstm.predict(hundred[0], last),
         "tf.function", lambda: compiled(first).numpy(), 300),
        ("one step", lambda: lstm.step(state, rows[:1]), "", None, 2_000),
        ("100 pairs, one window each", lambda: lstm.predict_windows(np.stack(hundred)),
         "predict, one batch", lambda: network.predict(batch, verbose=0), 20),
        ("100,000 windows", lambda: lstm.predict(rows, ends),
         "predict", lambda: network.predict(many, verbose=0, batch_size=1024), 2),
        ("features of one live window", lambda: compute_features(candles), "", None, 500),
    ]  # fmt: skip


def readable(microseconds: float) -> str:
    if np.isnan(microseconds):
        return ""
    for limit, unit, scale in ((1e3, "us", 1.0), (1e6, "ms", 1e3)):
        if microseconds < limit:
            return f"{microseconds / scale:.3g} {unit}"
    return f"{microseconds / 1e6:.3g} s"


if __name__ == "__main__":
    main()
