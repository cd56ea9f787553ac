"""Does order flow help? The same walk-forward with and without it, side by side.

    python benchmarks/study_order_flow.py CANDLES FLOW --from 2023-07-01 --to 2025-06-30

CANDLES is freqtrade's data directory, FLOW a folder of klines with taker columns (as
`freqtrade-lstm download-flow` leaves in CANDLES/flow). For every slot of the schedule two models
are trained that differ in `order_flow` alone; their cards' scores are printed beside each other,
and a paired test of the two on the test windows.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from networks import LARGE

from lstm_model.market.candles import Candles, timeframe_ms
from lstm_model.market.flow_store import FlowStore
from lstm_model.model.forecast import paired_test, pinball_loss
from lstm_model.model.model import Model
from lstm_model.settings import Settings
from lstm_model.store.models import ModelStore
from lstm_model.training.maker import ModelMaker
from lstm_model.training.material import Material

HEAD = (
    "candles until  flow        R2   R2 late      unshrunk     ridge  vs ridge      p  p late  "
    "cover  Winkler vs EWMA"
)


def load(candles: Path, flows: FlowStore, pair: str, timeframe: str) -> Candles:
    frame = pd.read_feather(candles / f"{pair.replace('/', '_')}-{timeframe}.feather")
    return Candles.from_frame(frame, pair, timeframe).with_flow(flows.read(pair, timeframe))


def boundaries(first_ms: int, end_ms: int, step_ms: int, settings: Settings) -> range:
    """When a training from scratch is due."""
    period_ms, lag_ms = settings.retrain_candles * step_ms, settings.training_lag_candles * step_ms
    return range((first_ms - lag_ms) // period_ms * period_ms, end_ms - lag_ms, period_ms)


def line(model: Model, flow: bool) -> str:
    scores, skill = model.card.scores, model.card.skill
    served, late, raw, ridge = (
        scores[name] for name in ("lstm", "lstm_delayed", "lstm_raw", "ridge")
    )
    return (
        f"{utc(model.card.train_end_ms):13}  {'with' if flow else 'without':7} "
        f"{served['r2']:+8.2%}  {late['r2']:+8.2%}  {raw['r2']:+12.2%}  {ridge['r2']:+8.2%} "
        f"{skill['r2_vs_ridge']:+8.2%}  {skill['p_value']:.3f}  {skill['p_value_delayed']:.3f}  "
        f"{served['coverage']:5.1%}  {skill['winkler_vs_zero']:+12.1%}"
    )


def losses(model: Model, material: Material) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of the mean as served and pinball loss of the quantiles before tracking.

    Per moment of the test block, averaged over pairs, in units of volatility.
    """
    panel, rows, settings = material.panel, material.split.test, material.settings
    location, quantiles = model.calibration.spread(model.lstm.predict(panel.rows, rows))
    realized = panel.target()[rows]
    squared = (realized - location) ** 2
    pinball = pinball_loss(settings.levels, quantiles, realized)
    _, moment = np.unique(panel.date_ms[rows], return_inverse=True)
    count = np.bincount(moment)
    return np.bincount(moment, squared) / count, np.bincount(moment, pinball) / count


def utc(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms").astype("datetime64[D]"))


def milliseconds(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("candles", type=Path)
    parser.add_argument("flow", type=Path)
    parser.add_argument("--timeframe", default="1h")
    parser.add_argument("--from", dest="start", default="2023-07-01")
    parser.add_argument("--to", dest="end", default="2025-06-30")
    parser.add_argument(
        "--pairs", nargs="+",
        default=[f"{base}/USDT" for base in ("BTC", "BNB", "ETH", "XRP", "ADA", "SOL", "DOGE")],
    )  # fmt: skip
    parser.add_argument("--horizon", type=int, default=4)
    parser.add_argument("--train-candles", type=int, default=17_520)
    parser.add_argument("--retrain-candles", type=int, default=4_032)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    flows = FlowStore(options.flow)
    known = {p: load(options.candles, flows, p, options.timeframe) for p in options.pairs}
    store = ModelStore(Path(tempfile.mkdtemp(prefix="lstm-study-")))
    makers = {
        flow: ModelMaker(
            Settings.model_validate(
                LARGE
                | {"horizon": options.horizon, "train_candles": options.train_candles,
                   "retrain_candles": options.retrain_candles, "order_flow": flow,
                   "seed": options.seed}
            ),
            options.timeframe, options.pairs, store, known.get,
        )
        for flow in (False, True)
    }  # fmt: skip
    print(HEAD)
    span = milliseconds(options.start), milliseconds(options.end)
    for boundary in boundaries(*span, timeframe_ms(options.timeframe), makers[False].settings):
        found = {}
        for flow, maker in makers.items():
            material = maker.material(boundary)
            model = Model.of(maker.scratch(material).stored, maker.settings)
            found[flow] = losses(model, material)
            print(line(model, flow), flush=True)
        names = ("squared error of the mean", "pinball loss")
        for name, without, with_it in zip(names, found[False], found[True], strict=True):
            test = paired_test(with_it, without, options.horizon)
            saved = 1.0 - with_it.sum() / without.sum()
            print(f"    flow saves {saved:+.2%} of the {name}, p = {test.p_value:.3f}", flush=True)


if __name__ == "__main__":
    main()
