"""Serving speed: our NumPy LSTM beside Keras's `model.predict` and a compiled call, in one run.

    python benchmarks/bench_serving.py [--quick]

The network of the defaults and the larger one that was the default before, in one table. Where
ONNX Runtime is installed, and what converts a Keras network for it, one window of it is a peer too.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from networks import LARGE
from rich.console import Console
from rich.table import Table

from lstm_model.features.closed_candle import WARM_UP, compute_features, feature_names
from lstm_model.fitting.fused import export_weights
from lstm_model.fitting.network import Averaged, build_network
from lstm_model.market.candles import Candles
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.weights import numbered
from lstm_model.settings import Settings, parse_settings

NETWORKS = {"default": Settings(), "large": parse_settings(LARGE)}
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 windows in place of 100,000")
    many = MANY // 10 if parser.parse_args().quick else MANY
    table = Table("what", "peer", "ours, median", "p99", "peer, median", "p99", "ratio")
    for name, settings in NETWORKS.items():
        made_of = f"{settings.layers} x LSTM({settings.units})"
        table.add_row(f"[bold]{name}: {settings.members} of {made_of}, {settings.lookback} candles")
        add_rows(table, settings, many)
        table.add_section()
    console.print(table)
    console.print(f"Window {settings.lookback}, {FEATURES} features, "
                  f"{len(settings.levels)} quantiles; NumPy {np.__version__}, "
                  f"TensorFlow {tf.__version__}, Python {sys.version.split()[0]}")  # fmt: skip


def add_rows(table: Table, settings: Settings, many: int) -> None:
    """What one network takes, measured."""
    trained = [export_weights(build_network(settings, FEATURES)) for _ in range(settings.members)]
    network = Averaged(settings, FEATURES, settings.members).of(trained)
    unit = {"scaler/mean": np.zeros(FEATURES, "f"), "scaler/scale": np.ones(FEATURES, "f")}
    mean = {"mean/kernel": np.zeros((FEATURES, 1), "f"), "mean/bias": np.zeros(1, "f")}
    weights = [numbered({**each, **unit, **mean}, n) for n, each in enumerate(trained, 1)]
    lstm = Ensemble({name: array for each in weights for name, array in each.items()},
                    settings.lookback)  # fmt: skip
    rows = np.random.default_rng(0).standard_normal((many + settings.lookback, FEATURES))
    for name, ours, peer_name, peer, repeats in cases(lstm, network, rows, many):
        mine = measure(ours, repeats)
        console.print(f"{name}: {readable(mine[0])}, p99 {readable(mine[1])}")
        theirs = measure(peer, max(1, repeats // 10)) if peer else (float("nan"),) * 2
        ratio = f"{theirs[0] / mine[0]:.1f} x" if peer else ""
        table.add_row(name, peer_name, *(readable(x) for x in (*mine, *theirs)), ratio)


def in_onnx(network: Any, first: Any) -> Callable[[], object] | None:
    """One window by ONNX Runtime on one thread; None where it, or the converter, is missing."""
    if not (find_spec("onnxruntime") and find_spec("tf2onnx")):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network(first)  # one that has never been called cannot be exported
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        network.export(path, format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(path, options)
    fed = {session.get_inputs()[0].name: first}
    return lambda: session.run(None, fed)


def cases(lstm: Ensemble, network: Any, rows: Any, count: int) -> list[tuple[Any, ...]]:
    lookback = lstm.lookback
    windows = np.lib.stride_tricks.sliding_window_view(rows.astype("f"), lookback, axis=0)
    windows = windows.swapaxes(1, 2)
    first, last = windows[:1].copy(), np.array([lookback - 1])
    hundred = [rows[a : a + lookback] for a in range(PAIRS)]
    batch = windows[:PAIRS].copy()
    compiled = tf.function(lambda x: network(x, training=False))
    state, ends = (
        lstm.state_after(rows[None, :lookback]),
        np.arange(lookback - 1, lookback - 1 + count),
    )
    many = windows[:count].copy()
    candles = invented_candles(WARM_UP + lookback + 1)
    onnx = in_onnx(network, first)
    also = [("one window", lambda: lstm.predict(hundred[0], last), "ONNX Runtime", onnx, 300)]
    return [
        *(also if onnx else []),
        ("one window", lambda: lstm.predict(hundred[0], last),
         "predict", lambda: network.predict(first, verbose=0), 300),
        ("one window", lambda: lstm.predict(hundred[0], last),
         "tf.function", lambda: compiled(first).numpy(), 300),
        ("one step", lambda: lstm.step(state, rows[:1]), "", None, 2_000),
        ("100 pairs, one window each", lambda: lstm.predict_windows(np.stack(hundred)),
         "predict, one batch", lambda: network.predict(batch, verbose=0), 20),
        (f"{count:,} windows", lambda: lstm.predict(rows, ends),
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
