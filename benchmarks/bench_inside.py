"""From the frame to the forecast: nowcasts under load, alone and beside a training.

    python benchmarks/bench_inside.py [--seconds 30] [--only busy|many] [--order-flow]

The server and its loads are those of `bench_stream.py`; the network has the default size. Its
candles are of 1h, so that no candle closes while it is measured.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import numpy as np
from bench_stream import LOADS, Server
from networks import LARGE
from rich.console import Console
from rich.table import Table
from training_child import Training

from lstm_model.features.closed_candle import WARM_UP, feature_names
from lstm_model.market.candles import Candles, candle_open_ms
from lstm_model.model.calibration import POOLED, Calibration, Widths
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.model import Model
from lstm_model.settings import Settings
from lstm_model.store.card import ModelCard
from lstm_model.stream.trade_stream import TradeStream
from lstm_model.trading.nowcast import Nowcaster

STEP_MS = 3_600_000
console = Console(width=120)


def random_model(settings: Settings) -> Model:
    """A network of the configured size with random weights; speed does not depend on them."""
    random, names = np.random.default_rng(0), feature_names(settings.order_flow)
    shapes = {"scaler/mean": (len(names),), "scaler/scale": (len(names),)}
    inputs = len(names)
    for number in range(1, settings.layers + 1):
        units = settings.units
        shapes[f"lstm_{number}/kernel"] = (inputs, 4 * units)
        shapes[f"lstm_{number}/recurrent"] = (units, 4 * units)
        shapes[f"lstm_{number}/bias"] = (4 * units,)
        inputs = units
    gaps = len(settings.levels) - 1
    inputs += len(names)
    shapes |= {"mean/kernel": (len(names), 1), "mean/bias": (1,)}
    shapes |= {"gaps/kernel": (inputs, gaps), "gaps/bias": (gaps,)}
    weights = {
        name: np.abs(0.1 * random.normal(size=shape)).astype(np.float32) + np.float32(0.01)
        for name, shape in shapes.items()
    }
    card = ModelCard.model_construct(
        version="random", settings=settings.model_dump(mode="json"), feature_names=names
    )
    neutral = {POOLED: Widths.neutral(settings.levels)}
    calibration = Calibration(settings.levels, 0.5, 0.1, neutral)
    return Model(card, Ensemble(weights, settings.lookback), calibration, p_value=1.0)


def invented_candles(pair: str, settings: Settings) -> Candles:
    """Enough closed candles before the open one, at about the price the server sends."""
    count = WARM_UP + settings.lookback + 2
    open_ms = int(candle_open_ms(time.time_ns() // 1_000_000, STEP_MS))
    dates = open_ms + STEP_MS * np.arange(-count, 0)
    random = np.random.default_rng(abs(hash(pair)) % 2**32)
    close = 64_000.0 * np.exp(np.cumsum(1e-4 * random.normal(size=count)))
    prices = close, close * 1.001, close * 0.999, close
    return Candles(pair, STEP_MS, dates, *prices, np.exp(random.normal(size=count)))


class Forecaster:
    """What the bot does on `on_trades`, with a watch."""

    def __init__(self, settings: Settings, pairs: list[str]) -> None:
        self.stream: TradeStream | None = None
        self.ready = np.zeros(3_000_000)  # ms; touched in advance, so that it does not grow
        self.ready[:] = 0.5
        self.made, self.oldest_ms = 0, 0.0
        model = random_model(settings)
        clock = lambda: time.time_ns() // 1_000_000  # noqa: E731
        self._nowcaster = Nowcaster(settings, self._tape, clock)
        self._nowcaster.rebase([(model, invented_candles(pair, settings)) for pair in pairs])

    def _tape(self, pair: str):  # type: ignore[no-untyped-def]
        assert self.stream is not None
        return self.stream.tapes.get(pair)

    def __call__(self, pairs: set[str]) -> None:
        assert self.stream is not None
        untold_ns = self.stream.untold_since_ns()
        self._nowcaster.refresh(pairs)
        for pair in pairs:
            made = self._nowcaster.latest(pair)
            assert made is not None
            self.ready[self.made % len(self.ready)] = (made.made_ns - made.received_ns) / 1e6
            self.made += 1
        self.oldest_ms = max(self.oldest_ms, (time.time_ns() - untold_ns) / 1e6)

    def forget(self) -> None:
        """What came before is warm-up."""
        self.made, self.oldest_ms = 0, 0.0


def measure(load: str, seconds: float, settings: Settings) -> tuple[str, ...]:
    with Server(load) as server:
        forecaster = Forecaster(settings, server.pairs)
        stream = TradeStream(server.client, STEP_MS, settings, forecaster)
        forecaster.stream = stream
        stream.follow(server.pairs)
        stream.start()
        try:
            time.sleep(3.0)
            gc.collect()
            gc.freeze()
            forecaster.forget()
            began_s, cpu_s, memory = time.perf_counter(), time.process_time(), []
            for _ in range(4):
                time.sleep(seconds / 4)
                memory.append(f"{resident_mb():.0f}")
            cpu = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
            ready, oldest_ms = forecaster.ready[: forecaster.made], forecaster.oldest_ms
            server.get("halt")
            time.sleep(1.0)
            truth = server.get("truth")
            tapes = [stream.tapes[pair] for pair in server.pairs]
            lost = sum(
                last - first + 1 - tape.counts.trades
                for first, last, tape in zip(truth["first"], truth["last"], tapes, strict=True)
            )
        finally:
            stream.stop()
    p50, p99 = np.percentile(ready, (50, 99))
    return (
        f"{truth['frames']:,}", f"{lost:,}", f"{len(ready) / seconds:,.0f}", f"{p50:.3f}",
        f"{p99:.3f}", f"{ready.max():.1f}", f"{oldest_ms:.1f}", f"{cpu:.0%}",
        " ".join(memory),
    )  # fmt: skip


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", choices=LOADS)
    parser.add_argument("--order-flow", action="store_true")
    chosen = parser.parse_args()
    settings = Settings(**LARGE, order_flow=chosen.order_flow)
    title = (
        f"frame received to forecast ready, {chosen.seconds:g} s each; ms; MB after each quarter"
    )
    table = Table(title=title)
    for name in (
        "",
        "trades",
        "lost",
        "forecasts/s",
        "p50",
        "p99",
        "largest",
        "oldest",
        "CPU",
        "MB",
    ):
        table.add_column(name, justify="right" if name else "left")
    for load in [chosen.only] if chosen.only else LOADS:
        title = "{:,} trades/s, {} pair(s)".format(*LOADS[load])
        table.add_row(title, *measure(load, chosen.seconds, settings))
        with Training():
            table.add_row("  beside a training", *measure(load, chosen.seconds, settings))
    console.print(table)


if __name__ == "__main__":
    main()
