"""What does the learner do when the market changes its mind? An invented market with a known truth.

    python benchmarks/study_switch.py --seeds 6

Two pairs of 5m candles. Until a known moment slow volume foretells the next returns. Then, per kind
of market:

    sign        the relation turns round: what rose now falls
    moved       volume says nothing any more; the lean of the candles' shadows says it instead
    stationary  nothing happens

The candles before that moment are the same in all three. Every market is walked through by the
learner as a bot would; `frozen` is its first network for ever, `baseline` a zero mean with EWMA
volatility. The intervals of all of them are tracked. Losses are pinball losses in units of
volatility, as served.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from networks import LARGE
from picture import line_chart
from scipy.signal import lfilter
from study_online import Comparison

from lstm_model.learning.chain import Learning
from lstm_model.learning.learner import Event
from lstm_model.learning.run import Run
from lstm_model.market.candles import Candles
from lstm_model.model.forecast import paired_test
from lstm_model.settings import Settings, parse_settings
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore
from lstm_model.training.maker import ModelMaker, Training
from lstm_model.training.material import reach_ms

STEP_MS = 300_000
PAIRS = ("AAA/USDT", "BBB/USDT")
KINDS = ("sign", "moved", "stationary")
SIGNAL = 0.3  # deviations of one candle's drift per deviation of the mood; R2 about 13 %
MEMORY = 0.95  # of a mood, per candle
SWITCH = 5_000  # candles after the first network; amid two fine-tunings of the calendar
AFTER = 12_096  # candles after the switch, six weeks
TRAILING = 576  # candles of the trailing loss, two days
WINDOWS = ((-SWITCH, 0), (0, 288), (288, 1_152), (1_152, 2_016), (2_016, 4_032), (4_032, 8_064),
           (8_064, AFTER))  # fmt: skip

SMALL = {
    **LARGE,
    "lookback": 16, "horizon": 4, "units": 16, "layers": 1, "dropout": 0.0, "learning_rate": 0.004,
    "batch_size": 128, "train_candles": 10_000, "max_epochs": 6,
}  # fmt: skip


def slow_noise(random: np.random.Generator, count: int) -> np.ndarray:
    """(count,) first-order autoregression of variance one."""
    return lfilter([math.sqrt(1.0 - MEMORY**2)], [1.0, -MEMORY], random.normal(size=count))


def market(
    pair: str, seed: int, begin_ms: int, count: int, switch: int, kind: str, signal: float = SIGNAL
) -> Candles:  # fmt: skip
    """Candles of which volume or the shadows foretell the next return; `switch` is a row."""
    random = np.random.default_rng((seed, PAIRS.index(pair)))
    volume_mood, shadow_mood = slow_noise(random, count), slow_noise(random, count)
    shocks = random.standard_t(5, count) / math.sqrt(5.0 / 3.0)
    reach = np.abs(random.normal(size=(2, count)))
    volume_noise = random.normal(size=count)
    told = {
        "sign": np.where(np.arange(count) < switch, volume_mood, -volume_mood),
        "moved": np.where(np.arange(count) < switch, volume_mood, shadow_mood),
        "stationary": volume_mood,
    }[kind]
    deviation = 0.001 * np.exp(0.4 * np.sin(np.arange(count) / 90.0))
    drift = signal * np.concatenate([[0.0], told[:-1]])
    close = 100.0 * np.exp(np.cumsum(deviation * (drift + shocks)))
    open_ = np.concatenate([[100.0], close[:-1]])
    up, down = deviation * reach * np.exp(0.5 * np.stack([shadow_mood, -shadow_mood]))
    high, low = np.maximum(open_, close) * (1.0 + up), np.minimum(open_, close) * (1.0 - down)
    volume = 10.0 * np.exp(0.5 * volume_mood + 0.1 * volume_noise)
    dates = begin_ms + STEP_MS * np.arange(count)
    return Candles(pair, STEP_MS, dates, open_, high, low, close, volume)


class KeptSteps(StepStore):
    """Forgets nothing: three markets share the steps until they part."""

    def forget(self, address: str) -> None:
        """Leave it."""


class Course(NamedTuple):
    """One walk: losses (M,) by policy, candles since the switch (M,), events and their candles."""

    at: np.ndarray
    losses: dict[str, np.ndarray]
    events: list[tuple[int, str, Event]]  # candles since the switch, kind, event


def walk(kind: str, seed: int, settings: Settings, root: Path) -> Course:
    """Let the learner go through one market."""
    origin_ms = 200 * settings.retrain_candles * STEP_MS
    past = reach_ms(settings, "5m", len(PAIRS)) // STEP_MS
    begin_ms, switch_ms = origin_ms - past * STEP_MS, origin_ms + SWITCH * STEP_MS
    count = past + SWITCH + AFTER + settings.horizon + 1
    known = {p: market(p, seed, begin_ms, count, past + SWITCH, kind) for p in PAIRS}
    steps = KeptSteps(root)
    learning = Learning(ModelMaker(settings, "5m", PAIRS, ModelStore(root), known.get), steps)
    run = Run(known.get, lambda wish, boundary_ms: Training())
    comparison, events = Comparison(learning, run, steps), []
    last_ms = learning.schedule.last_boundary(switch_ms + AFTER * STEP_MS)
    for step in learning.walk(origin_ms, last_ms, run):
        comparison.take(step)
        for event in step.events:
            made = learning.card(event.version).kind if event.version else ""
            at = (step.boundary_ms - switch_ms) // STEP_MS
            events.append((at, f"{event.kind} {made}".strip(), event))
    tables = {name: np.concatenate(rows) for name, rows in comparison.rows.items()}
    at = (tables["online"][:, 0] - switch_ms) / STEP_MS
    return Course(at, {name: table[:, 1] for name, table in tables.items()}, events)


def trailing(values: np.ndarray) -> np.ndarray:
    """(M,) mean of the last `TRAILING` values; NaN until there are so many."""
    total = np.concatenate([[0.0], values.cumsum()])
    out = np.full(len(values), np.nan)
    out[TRAILING - 1 :] = (total[TRAILING:] - total[:-TRAILING]) / TRAILING
    return out


class Recovery(NamedTuple):
    """In candles after the switch; infinite where it never came."""

    half: float
    regained: float


def recovery(course: Course, policy: str) -> Recovery:
    """When a policy's loss came down again after the switch.

    The loss is taken against the baseline's at the same moments, which takes the market's luck out,
    and is the mean of the last `TRAILING` candles, all of them after the switch. `half`: back
    within half of the gap between its peak and its level before. `regained`: it saves half of what
    it saved before, so a return to the baseline is not enough.
    """
    excess = course.losses[policy] - course.losses["baseline"]
    before = float(excess[course.at < 0].mean())
    after, at = trailing(excess[course.at >= 0]), course.at[course.at >= 0]
    peak = int(np.nanargmax(after))
    return Recovery(
        _first(at[peak:], after[peak:] <= before + 0.5 * (after[peak] - before)),
        _first(at[peak:], after[peak:] <= 0.5 * before),
    )


def _first(at: np.ndarray, reached: np.ndarray) -> float:
    found = np.flatnonzero(reached)
    return float(at[found[0]]) if len(found) else math.inf


def when(course: Course, *kinds: str) -> float:
    """Candles from the switch to the first event of these kinds."""
    return min((at for at, kind, _ in course.events if at > 0 and kind in kinds), default=math.inf)


def loss_table(courses: Sequence[Course]) -> list[str]:
    """Losses before and after the switch, mean over seeds, and what is saved of the baseline's."""
    names = ("baseline", "untouched", "frozen", "retrained", "online")
    lines = [f"{'candles from switch':>20} {'baseline':>9} " +
             " ".join(f"{name:>17}" for name in names[1:])]  # fmt: skip
    for begin, end in WINDOWS:
        means = {
            name: np.array([c.losses[name][(c.at >= begin) & (c.at < end)].mean() for c in courses])
            for name in names
        }
        base = means["baseline"].mean()
        cells = [f"{means[n].mean():8.4f} {1 - means[n].mean() / base:+8.2%}" for n in names[1:]]
        lines.append(f"{begin:>9,} to {end:>7,} {base:9.4f} " + " ".join(cells))
    return lines


def versus(courses: Sequence[Course], other: str, begin: int, end: int) -> str:
    """Online against another policy in a window: per seed and over all."""
    gains, p_values = [], []
    for course in courses:
        inside = (course.at >= begin) & (course.at < end)
        online, reference = course.losses["online"][inside], course.losses[other][inside]
        gains.append(float(1.0 - online.mean() / reference.mean()))
        p_values.append(paired_test(online, reference, SMALL["horizon"]).p_value)
    joined = [
        np.concatenate([c.losses[n][(c.at >= begin) & (c.at < end)] for c in courses])
        for n in ("online", other)
    ]
    better = paired_test(joined[0], joined[1], SMALL["horizon"])
    worse = paired_test(joined[1], joined[0], SMALL["horizon"])
    return (
        f"online saves {better.gain / joined[1].mean():+.2%} of the loss of {other} (mean "
        f"difference {-better.gain:+.5f}; one-sided p: better {better.p_value:.3f}, worse "
        f"{worse.p_value:.3f}); by seed "
        + ", ".join(f"{gain:+.2%} (p {p:.3f})" for gain, p in zip(gains, p_values, strict=True))
    )


def course_lines(courses: Sequence[Course], seeds: Sequence[int]) -> list[str]:
    """Per seed: what happened when."""
    lines = ["seed  drift  rolled  first fine-  first      recovered   regained    frozen     "
             "retrained",
             "      seen   back    tuning       promotion  (half)      (half its   regained   "
             "regained",
             "                                                          skill)"]  # fmt: skip
    rows = []
    for seed, course in zip(seeds, courses, strict=True):
        online = recovery(course, "online")
        numbers = [
            when(course, *(f"drift {kind}" for kind in ("baseline", "scratch", "finetune"))),
            when(course, *(f"rolled back {k}" for k in ("baseline", "scratch", "finetune"))),
            when(course, "trained finetune"),
            when(course, "promoted scratch", "promoted finetune"),
            *online, recovery(course, "frozen").regained, recovery(course, "retrained").regained,
        ]  # fmt: skip
        rows.append(numbers)
        lines.append(_row(str(seed), numbers))
    return [*lines, _row("med.", np.median(np.array(rows), axis=0).tolist())]


def _row(name: str, numbers: Sequence[float]) -> str:
    widths = (5, 7, 12, 10, 11, 11, 10, 10)
    cells = (
        f"{n:>{w},.0f}" if n < math.inf else f"{'-':>{w}}"
        for n, w in zip(numbers, widths, strict=True)
    )
    return f"{name:>4} " + " ".join(cells)


def draw(path: Path, kind: str, courses: Sequence[Course]) -> None:
    """What each policy saves of the baseline's loss, trailing, the mean over seeds."""
    every = slice(TRAILING - 1, None, 96)
    base = np.mean([trailing(c.losses["baseline"]) for c in courses], axis=0)
    lines = {
        name: 1.0
        - np.mean([trailing(c.losses[name]) for c in courses], axis=0)[every] / base[every]
        for name in ("baseline", "untouched", "frozen", "retrained", "online")
    }
    title = f"{TITLES[kind]}: pinball loss saved against the baseline, last {TRAILING} candles"
    line_chart(path, title, courses[0].at[every], lines, "candles since the switch", "saved")


TITLES = {
    "sign": "The market changes its sign",
    "moved": "The signal moves to another feature",
    "stationary": "Nothing changes",
}


def _counts(courses: Sequence[Course]) -> str:
    kinds = [kind for course in courses for at, kind, _ in course.events if at > 0]
    return "after the switch, all seeds: " + ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--set", action="append", default=[], help="option=value of the settings")
    parser.add_argument("--history", action="store_true", help="print every event")
    parser.add_argument("--picture", type=Path, help="folder for a chart per kind of market")
    options = parser.parse_args()
    chosen = {name: json.loads(v) for name, v in (item.split("=", 1) for item in options.set)}
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a graph per training is meant
    seeds, started_s = range(1, options.seeds + 1), time.monotonic()
    courses: dict[str, list[Course]] = {kind: [] for kind in options.kinds}
    for seed in seeds:
        settings = parse_settings({**SMALL, "seed": seed, **chosen})
        with tempfile.TemporaryDirectory() as root:
            for kind in options.kinds:
                courses[kind].append(walk(kind, seed, settings, Path(root)))
        print(f"# seed {seed} done after {time.monotonic() - started_s:.0f} s", flush=True)
    print(f"{len(seeds)} seeds of market and network (1 to {len(seeds)}); {', '.join(PAIRS)}; "
          f"5m; signal {SIGNAL}, memory {MEMORY}; {SMALL | chosen}")  # fmt: skip
    for kind, found in courses.items():
        print(f"\n== {kind}: switch {SWITCH:,} candles after the first network")
        print("\n".join(loss_table(found)))
        for other in ("untouched", "frozen", "baseline"):
            print(f"before the switch:        {versus(found, other, -SWITCH, 0)}")
            print(f"all after the switch:     {versus(found, other, 0, AFTER)}")
            print(f"last {AFTER - 8_064:,} candles:       {versus(found, other, 8_064, AFTER)}")
        if kind != "stationary":
            print("\n".join(course_lines(found, seeds)))
        print(_counts(found))
        if options.picture:
            draw(options.picture / f"switch-{kind}.svg", kind, found)
        if options.history:
            for seed, course in zip(seeds, found, strict=True):
                for at, what, event in course.events:
                    print(f"  seed {seed} {at:+7,} {what} gain {event.gain} of {event.candles}")
    print(f"\n{time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
