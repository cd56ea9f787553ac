"""Does learning while trading pay? Frozen, retrained and online models on recorded candles.

    python benchmarks/study_online.py --data DIR --timeframe 1h --pairs BTC/USDT ETH/USDT \
        --from 2022-01-01 --to 2025-06-30 --set horizon=4 --set retrain_candles=2184

`DIR` holds candles as freqtrade's download-data writes them. All forecasts are walk-forward, scored
as they would have been served:

    baseline   zero mean, EWMA volatility, tracked intervals
    untouched  the first network for ever, exactly as it was made
    frozen     the first network for ever, its intervals and the worth of its mean tracked
    retrained  the newest network trained from scratch, whatever it is worth, its intervals tracked
    online     what the learner has chosen by its gate: the baseline, a network or a fine-tuned one

Nothing here is a profit. Losses are printed as they are.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from freqtrade.data.history import load_pair_history

from lstm_model.learning.chain import Learning
from lstm_model.learning.contender import Contender, Seen
from lstm_model.learning.matured import Matured
from lstm_model.learning.packing import unpack
from lstm_model.learning.run import Run
from lstm_model.learning.steps import Step
from lstm_model.learning.wording import event_line, minute
from lstm_model.market.candles import Candles, timeframe_ms
from lstm_model.model.calibration import Calibration
from lstm_model.model.forecast import paired_test, pinball_loss, winkler_score
from lstm_model.model.gate import Evidence
from lstm_model.settings import Settings, parse_settings
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore
from lstm_model.training.maker import ModelMaker, Training

logger = logging.getLogger("study")
POLICIES = ("baseline", "untouched", "frozen", "retrained", "online")


class Comparison:
    """Policies side by side: who serves each, and how they were scored, moment by moment."""

    def __init__(self, learning: Learning, run: Run, steps: StepStore) -> None:
        self.learning, self.run, self.steps = learning, run, steps
        self.serving: dict[str, Contender] = {}
        self.rows: dict[str, list[np.ndarray]] = {name: [] for name in POLICIES}
        self.before: Step | None = None
        self.trained_s: dict[str, float] = {"scratch": 0.0, "finetune": 0.0}
        self.events: list[tuple[int, str]] = []

    def take(self, step: Step) -> None:
        """Score what served until this step, then let each policy choose what serves next."""
        if self.before is not None:
            matured = self.learning.matured(self.before.boundary_ms, step.boundary_ms, self.run)
            if matured is not None and len(matured.rows):
                self._score(matured, self.before.boundary_ms + self.learning.schedule.lag_ms)
        self._choose(step)
        self.before = step

    def _score(self, matured: Matured, served_ms: int) -> None:
        for name, contender in self.serving.items():
            view = self.learning.view(contender.version, matured)
            seen = Seen.of(contender, matured.labels, view, served_ms)
            self.rows[name].append(_scores(seen, matured))
            if name != "untouched":
                self.serving[name] = seen.scored(
                    matured.labels, self.learning.maker.settings.horizon
                )

    def _choose(self, step: Step) -> None:
        state = unpack(*self.steps.load(step.address))
        for event in step.events:
            self.events.append((step.boundary_ms, event.kind))
            logger.info("%s %s", minute(step.boundary_ms), event_line(event, self.learning.card))
            if event.kind == "trained":
                card = self.learning.card(event.version)
                self.trained_s[card.kind] += card.seconds
                if card.kind == "scratch":
                    self.serving["retrained"] = self._as_made(event.version, step.boundary_ms)
                    for name in ("untouched", "frozen"):
                        self.serving.setdefault(name, self.serving["retrained"])
        self.serving["online"] = state.contender(state.champion)
        self.serving["baseline"] = next(c for c in state.contenders if c.kind == "baseline")

    def _as_made(self, version: str, boundary_ms: int) -> Contender:
        card = self.learning.card(version)
        calibration = Calibration.from_card(self.learning.maker.settings.levels, card.calibration)
        return Contender.entering(
            version, card.kind, boundary_ms, boundary_ms, calibration, Evidence.nothing(),
            self.learning.maker.settings.horizon,
        )  # fmt: skip


_HEAD = (
    "           pinball  against   Winkler  against  cover-       R2   late   pinball\n"
    "                   baseline           baseline    age                    p"
)
COLUMNS = ("date_ms", "pinball", "winkler", "covered", "gain", "gain_late", "power", "power_late")


def _scores(seen: Seen, matured: Matured) -> np.ndarray:
    """(M, columns) one row per moment, the mean over pairs; in units of volatility."""
    labels, levels = matured.labels, seen.calibration.levels
    realized, late = labels.outcomes.realized, labels.outcomes.delayed
    low, high = seen.quantiles[:, 0], seen.quantiles[:, -1]
    values = [
        pinball_loss(levels, seen.quantiles, realized),
        winkler_score(low, high, realized, levels[-1] - levels[0]),
        (low <= labels.realized) & (labels.realized <= high),
        realized**2 - (realized - seen.mean) ** 2,
        late**2 - (late - seen.mean) ** 2,
        realized**2,
        late**2,
    ]
    dates, moment = np.unique(labels.outcomes.date_ms, return_inverse=True)
    count = np.bincount(moment)
    means = [np.bincount(moment, np.asarray(value, float)) / count for value in values]
    return np.column_stack([dates, *means])


def _table(comparison: Comparison, horizon: int, since_ms: int) -> list[str]:
    tables = {name: np.concatenate(rows) for name, rows in comparison.rows.items()}
    tables = {name: table[table[:, 0] >= since_ms] for name, table in tables.items()}
    lines = [_HEAD]
    base = tables["baseline"].mean(axis=0)
    for name, table in tables.items():
        mean = table.mean(axis=0)
        p_value = paired_test(table[:, 1], tables["baseline"][:, 1], horizon).p_value
        lines.append(
            f"{name:10} {mean[1]:7.4f}  {1 - mean[1] / base[1]:+7.2%}  {mean[2]:8.3f}  "
            f"{1 - mean[2] / base[2]:+7.2%}  {mean[3]:6.1%}  {mean[4] / mean[6]:+7.2%}  "
            f"{mean[5] / mean[7]:+6.2%}   {p_value:.3f}"
        )
    for other in ("untouched", "frozen", "retrained"):
        test = paired_test(tables["online"][:, 1], tables[other][:, 1], horizon)
        saved = test.gain / tables[other][:, 1].mean()
        lines.append(
            f"online saves {saved:+.2%} of the pinball loss of {other}, p {test.p_value:.3f}"
        )
    return lines


def load(folder: Path, pairs: Sequence[str], timeframe: str) -> dict[str, Candles]:
    """The candles of freqtrade's data directory."""
    frames = {
        pair: load_pair_history(pair, timeframe, folder, data_format="feather") for pair in pairs
    }
    return {pair: Candles.from_frame(frame, pair, timeframe) for pair, frame in frames.items()}


def compare(learning: Learning, steps: StepStore, known: Any, span: tuple[int, int]) -> Comparison:
    """Walk the chain through a span and score every policy."""
    run = Run(known, lambda wish, boundary_ms: Training())
    comparison = Comparison(learning, run, steps)
    origin = learning.schedule.origin_of(learning.schedule.boundary_at(span[0]))
    for step in learning.walk(origin, learning.schedule.last_boundary(span[1]), run):
        comparison.take(step)
    return comparison


class Question(NamedTuple):
    """What a study is asked on the command line."""

    options: argparse.Namespace
    settings: Settings
    known: dict[str, Candles]
    begin_ms: int
    end_ms: int

    def __str__(self) -> str:
        asked = self.options
        return (
            f"{asked.timeframe} {', '.join(asked.pairs)}; {asked.begin} to {asked.end}; "
            f"{' '.join(asked.set)}; seed {self.settings.seed}"
        )


def question(
    description: str, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> Question:
    """Read the command line, load the candles and make this process ready to train.

    Parameters
    ----------
    more : adds a study's own options; its `--test-pairs` are loaded, too
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--timeframe", default="5m")
    parser.add_argument("--pairs", nargs="+", required=True)
    parser.add_argument("--from", dest="begin", required=True)
    parser.add_argument("--to", dest="end", required=True)
    parser.add_argument(
        "--set", action="append", default=[], help="option=value of the lstm section"
    )
    parser.add_argument("--store", type=Path, required=True)
    if more is not None:
        more(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = parse_settings(
        {name: json.loads(value) for name, value in (item.split("=", 1) for item in options.set)},
        timeframe_ms(options.timeframe),
    )
    pairs = sorted({*options.pairs, *(getattr(options, "test_pairs", None) or ())})
    known = load(options.data, pairs, options.timeframe)
    begin_ms, end_ms = (
        int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        for day in (options.begin, options.end)
    )
    return Question(options, settings, known, begin_ms, end_ms)


def main() -> None:
    asked = question(__doc__.splitlines()[0])
    options, settings, known, begin_ms, end_ms = asked
    store, steps = ModelStore(options.store), StepStore(options.store)
    learning = Learning(
        ModelMaker(settings, options.timeframe, options.pairs, store, known.get), steps
    )
    started_s = time.monotonic()
    comparison = compare(learning, steps, known.get, (begin_ms, end_ms))
    kinds = [kind for _, kind in comparison.events]
    print(f"\n{asked}")
    print(", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))))
    print("\n".join(_table(comparison, settings.horizon, begin_ms)))
    for year in range(int(options.begin[:4]), int(options.end[:4]) + 1):
        print(_year(comparison, year, begin_ms))
    seconds = {**comparison.trained_s, "in all": time.monotonic() - started_s}
    print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    np.savez(options.store / "scores.npz",
             **{name: np.concatenate(rows) for name, rows in comparison.rows.items()})  # fmt: skip


def _year(comparison: Comparison, year: int, begin_ms: int) -> str:
    ends = [datetime(y, 1, 1, tzinfo=UTC).timestamp() * 1000 for y in (year, year + 1)]
    parts = []
    base = np.concatenate(comparison.rows["baseline"])
    inside = (base[:, 0] >= max(ends[0], begin_ms)) & (base[:, 0] < ends[1])
    for name in POLICIES[1:]:
        table = np.concatenate(comparison.rows[name])
        parts.append(f"{name} {1 - table[inside, 1].mean() / base[inside, 1].mean():+.2%}")
    return f"{year}: pinball loss saved against the baseline: " + ", ".join(parts)


if __name__ == "__main__":
    main()
