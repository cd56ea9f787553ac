"""How good is a forecast from inside the candle? Measured where 1m candles show what happened.

    python benchmarks/study_inside_candle.py DATADIR

DATADIR is freqtrade's: 5m candles to learn from (by default of BTC, ETH and SOL against USDT) and
1m candles of the pairs to test on, newer than the training. A model is trained once on the
5m candles before the 1m candles begin; after every minute each open 5m candle is forecast, and
scored against the return of the next `horizon` candles' time. Beside it: the forecast without
completing the open candle, the last closed candle's forecast counted from the price now, and zero
mean with EWMA volatility.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from lstm_model.config import Settings
from lstm_model.features import WARM_UP, compute_features
from lstm_model.forecast import coverage, skill, winkler_score
from lstm_model.market import Candles, Seen
from lstm_model.nowcast import Nowcast, QuarterWidths
from lstm_model.open_candle import OpenCandle
from lstm_model.store import ModelStore
from lstm_model.walk_forward import Model, ModelMaker, slot_at

MINUTE_MS = 60_000
NORMAL_95 = 1.6449  # quantile of the normal distribution
FORECASTS = ("served", "without tracking", "not completed", "closed candle", "zero, EWMA")


def load(folder: Path, pair: str, timeframe: str) -> Candles:
    frame = pd.read_feather(folder / f"{pair.replace('/', '_')}-{timeframe}.feather")
    return Candles.from_frame(frame, pair, timeframe)


class Scores:
    """What one kind of forecast said after one minute, and what came true."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []

    def add(self, low: float, high: float, mean: float, outcomes: tuple[float, float]) -> None:
        """`outcomes`: log return from now, and for who acts one candle late."""
        self._rows.append((low, high, mean, *outcomes))

    def cells(self, level: float) -> str:
        low, high, mean, realized, late = np.array(self._rows).T
        r2, r2_late = (skill((x - mean) ** 2, x**2) for x in (realized, late))
        winkler = 1e4 * winkler_score(low, high, realized, level).mean()
        covered = coverage(low, high, realized)
        return f"{r2:+8.2%} {r2_late:+8.2%} {covered:8.1%} {winkler:9.1f}"


def seen_after(minutes: Candles, first: int, count: int) -> Seen:
    """A candle of which `count` minutes have passed."""
    rows = slice(first, first + count)
    return Seen(
        int(minutes.date_ms[first]), float(minutes.open[first]), float(minutes.high[rows].max()),
        float(minutes.low[rows].min()), float(minutes.close[first + count - 1]),
        float(minutes.volume[rows].sum()), 0.0, 0.0, 0.0, 0.0, 0.0, 0,
    )  # fmt: skip


class Study:
    """One pair's minutes, forecast from inside their candles."""

    def __init__(self, model: Model, settings: Settings, scores: dict[object, Scores]) -> None:
        self._model, self._settings, self._scores = model, settings, scores
        self._widths = QuarterWidths(settings)

    def run(self, candles: Candles, minutes: Candles) -> None:
        lookback = self._settings.lookback
        per_candle = candles.step_ms // MINUTE_MS
        features = compute_features(candles)
        log_close = np.log(minutes.close)
        ahead = self._settings.horizon * per_candle
        first_row = int(np.searchsorted(candles.date_ms, minutes.date_ms[0])) + 1
        for row in range(first_row, len(candles)):
            start = int(np.searchsorted(minutes.date_ms, candles.date_ms[row]))
            if start + 2 * per_candle + ahead > len(minutes):
                break
            window = features.rows[row - lookback + 1 : row]
            if not np.isfinite(window).all():
                continue
            opened = OpenCandle(candles.rows(row - WARM_UP - 2, row), order_flow=False)
            state = self._model.lstm.state_after(window[None])
            closed = self._model.forecast(
                candles.pair, features.rows, features.volatility, np.array([row - 1])
            )
            for passed in range(1, per_candle + 1):
                now = start + passed - 1
                outcomes = tuple(
                    float(log_close[now + late + ahead] - log_close[now + late])
                    for late in (0, per_candle)
                )
                seen = seen_after(minutes, start, passed)
                self._score(opened, state, closed, seen, passed / per_candle, outcomes)

    def _score(self, opened, state, closed, seen, passed, outcomes) -> None:  # type: ignore[no-untyped-def]
        completed, volatility = self._step(opened, state, seen, passed)
        as_it_is, _ = self._step(opened, state, seen, 1.0)
        nowcast = Nowcast(
            opened.candles.pair, seen.open_ms, passed - 1e-9, seen.close, 0, 0, "", completed
        )
        tracked = self._widths.apply(nowcast, opened.candles.step_ms).forecast
        for name, made in zip(FORECASTS, (tracked, completed, as_it_is, closed), strict=False):
            self._scores[passed, name].add(
                float(made.low[0]), float(made.high[0]), float(made.mean[0]), outcomes
            )
        reach = NORMAL_95 * volatility * np.sqrt(self._settings.horizon)
        self._scores[passed, FORECASTS[-1]].add(-reach, reach, 0.0, outcomes)

    def _step(self, opened, state, seen, passed):  # type: ignore[no-untyped-def]
        row, volatility = opened.row(seen, passed)
        raw = self._model.lstm.step(state.copy(), row[None])
        made = self._model.calibrated(opened.candles.pair, raw, np.array([volatility]))
        return made, volatility


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datadir", type=Path)
    parser.add_argument("--learn", nargs="+", default=["BTC/USDT", "ETH/USDT", "SOL/USDT"])
    parser.add_argument("--test", nargs="+", default=["BTC/USDT", "ETH/USDT"])
    parser.add_argument("--store", type=Path, help="where to keep the model; else nowhere")
    options = parser.parse_args()
    settings = Settings()
    minutes = {pair: load(options.datadir, pair, "1m") for pair in options.test}
    known = {pair: load(options.datadir, pair, "5m") for pair in {*options.learn, *options.test}}
    begin_ms = min(int(series.date_ms[0]) for series in minutes.values())
    folder = options.store or Path(tempfile.mkdtemp(prefix="lstm-study-"))
    maker = ModelMaker(settings, "5m", options.learn, ModelStore(folder), known.get)
    slot = slot_at(begin_ms, known[options.test[0]].step_ms, settings)
    model = Model.of(maker.find(slot) or maker.make(slot), settings)
    scores: dict[object, Scores] = defaultdict(Scores)
    for pair, series in minutes.items():
        recent = known[pair].between(begin_ms - 400 * 300_000, int(series.date_ms[-1]))
        Study(model, settings, scores).run(recent.on_grid(), series.on_grid())
    level = settings.levels[-1] - settings.levels[0]
    print(f"model {model.card.version}, data until {utc(model.card.train_end_ms)}")
    print(f"tested on {', '.join(minutes)} from {utc(begin_ms)}; horizon {settings.horizon} x 5m")
    print(f"{'passed':>6}  {'forecast':18} {'R2':>8} {'R2 late':>8} {'coverage':>8} {'Winkler':>9}")
    for (passed, name), score in sorted(scores.items(), key=lambda item: item[0][0]):  # type: ignore[index]
        print(f"{passed:6.0%}  {name:18} {score.cells(level)}")


def utc(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms").astype("datetime64[m]"))


if __name__ == "__main__":
    main()
