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
from networks import LARGE

from lstm_model.features.closed_candle import WARM_UP, compute_features
from lstm_model.features.open_candle import OpenCandle
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Candles, Seen
from lstm_model.model.forecast import Forecast, coverage, skill, unknown_far, winkler_score
from lstm_model.model.lstm import LstmState
from lstm_model.model.model import Model
from lstm_model.settings import Settings
from lstm_model.store.models import ModelStore
from lstm_model.trading.nowcast import Nowcaster
from lstm_model.training.maker import ModelMaker

MINUTE_MS = 60_000
NORMAL_95 = 1.6449  # quantile of the normal distribution
Key = tuple[float, str]  # fraction passed, name of the forecast


def load(folder: Path, pair: str, timeframe: str) -> Candles:
    frame = pd.read_feather(folder / f"{pair.replace('/', '_')}-{timeframe}.feather")
    return Candles.from_frame(frame, pair, timeframe)


class Scores:
    """What one kind of forecast said after one minute, and what came true."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []

    def add(self, made: Forecast, outcomes: tuple[float, ...]) -> None:
        """`outcomes`: log return from now, and for who acts one candle late."""
        self._rows.append((float(made.low[0]), float(made.high[0]), float(made.mean[0]), *outcomes))

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


class StudyTape:
    """Stands where the bot has its tape; the study says what has been seen."""

    now: Seen | None = None

    def newest(self) -> Seen | None:
        return self.now


class Study:
    """One pair's minutes, forecast from inside their candles."""

    def __init__(self, model: Model, settings: Settings, scores: dict[Key, Scores]) -> None:
        self._model, self._settings, self._scores = model, settings, scores
        self._tape, self._now_ms = StudyTape(), 0
        self._served = Nowcaster(settings, lambda _: self._tape, lambda: self._now_ms)

    def run(self, candles: Candles, minutes: Candles) -> None:
        per_candle = candles.step_ms // MINUTE_MS
        features = compute_features(candles)
        log_close = np.log(minutes.close)
        ahead = self._settings.horizon * per_candle
        first_row = int(np.searchsorted(candles.date_ms, minutes.date_ms[0])) + 1
        for row in range(first_row, len(candles)):
            start = int(np.searchsorted(minutes.date_ms, candles.date_ms[row]))
            if start + 2 * per_candle + ahead > len(minutes):
                break
            if not features.known[row - self._settings.lookback : row].all():
                continue
            closed = candles.rows(row - WARM_UP - self._settings.lookback, row)
            self._served.rebase([(self._model, closed)])
            opened = OpenCandle(closed, order_flow=False)
            window = features.rows[row - self._settings.lookback + 1 : row]
            state = self._model.lstm.state_after(window[None])
            before = self._model.forecast(
                candles.pair, features.rows, features.volatility, np.array([row - 1])
            )
            for passed in range(1, per_candle + 1):
                now = start + passed - 1
                outcomes = tuple(
                    float(log_close[now + late + ahead] - log_close[now + late])
                    for late in (0, per_candle)
                )
                self._tape.now = seen_after(minutes, start, passed)
                # Just before the minute's end, so that the last one is still in this candle.
                self._now_ms = int(minutes.date_ms[now]) + MINUTE_MS - 1
                made = self._forecasts(opened, state, before, passed / per_candle)
                for name, forecast in made.items():
                    self._scores[passed / per_candle, name].add(forecast, outcomes)

    def _forecasts(
        self, opened: OpenCandle, state: LstmState, before: Forecast, passed: float
    ) -> dict[str, Forecast]:
        pair, seen = opened.candles.pair, self._tape.now
        assert seen is not None
        self._served.refresh([pair])
        served = self._served.latest(pair)
        assert served is not None
        made = {"served": served.forecast}
        for name, share in (("without tracking", passed), ("not completed", 1.0)):
            row, volatility = opened.row(seen, share)
            raw = self._model.lstm.step(state.copy(), row[None])
            made[name] = self._model.calibrated(pair, raw, np.array([volatility]))
        made["closed candle"] = before
        volatility = made["without tracking"].volatility
        reach = NORMAL_95 * volatility * np.sqrt(self._settings.horizon)
        ends = np.stack([-reach, reach], axis=1)
        zero = 0.0 * reach
        columns = zero, volatility, zero, -reach, reach
        made["zero, EWMA"] = Forecast((0.05, 0.95), ends, *columns, far=unknown_far(len(zero)))
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datadir", type=Path)
    parser.add_argument("--learn", nargs="+", default=["BTC/USDT", "ETH/USDT", "SOL/USDT"])
    parser.add_argument("--test", nargs="+", default=["BTC/USDT", "ETH/USDT"])
    parser.add_argument("--store", type=Path, help="where to keep the model; else nowhere")
    options = parser.parse_args()
    settings = Settings(**LARGE)
    minutes = {pair: load(options.datadir, pair, "1m") for pair in options.test}
    known = {pair: load(options.datadir, pair, "5m") for pair in {*options.learn, *options.test}}
    begin_ms = min(int(series.date_ms[0]) for series in minutes.values())
    folder = options.store or Path(tempfile.mkdtemp(prefix="lstm-study-"))
    maker = ModelMaker(settings, "5m", options.learn, ModelStore(folder), known.get)
    schedule = Schedule.of(settings, "5m")
    boundary_ms = schedule.origin_of(schedule.boundary_at(begin_ms))
    model = Model.of(maker.scratch(maker.material(boundary_ms)).stored, settings)
    scores: dict[Key, Scores] = defaultdict(Scores)
    for pair, series in minutes.items():
        recent = known[pair].between(begin_ms - 400 * 300_000, int(series.date_ms[-1]))
        Study(model, settings, scores).run(recent.on_grid(), series.on_grid())
    level = settings.levels[-1] - settings.levels[0]
    print(f"model {model.card.version}, data until {utc(model.card.train_end_ms)}")
    print(f"tested on {', '.join(minutes)} from {utc(begin_ms)}; horizon {settings.horizon} x 5m")
    print(f"{'passed':>6}  {'forecast':18} {'R2':>8} {'R2 late':>8} {'coverage':>8} {'Winkler':>9}")
    for (passed, name), score in sorted(scores.items(), key=lambda item: item[0][0]):
        print(f"{passed:6.0%}  {name:18} {score.cells(level)}")


def utc(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms").astype("datetime64[m]"))


if __name__ == "__main__":
    main()
