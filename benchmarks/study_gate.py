"""How often does the gate take luck for merit, and how soon are merit and drift seen? Simulated.

    python benchmarks/study_gate.py [--only equals merit choices alarms delays] [--series 1000]

equals   a challenger that is no better, judged every 288 moments for 8,064 (four weeks of 5m
         candles): in how many series it is promoted
merit    a challenger that saves 1, 2 or 5 % of the loss: in how many series it is promoted, and
         after how many days of 5m candles (the median; `never` where most are not)
choices  the same for other constants of `lstm_model.model.gate` than were chosen
alarms   labels between two false alarms of the drift watch
delays   labels from a drift to its alarm

The gate sees differences of losses alone: overlapping sums of Student t4 shocks, now calm and now
wild, plus a lead that comes and goes (0.3 deviations of a first-order autoregression). Their
deviation is 5 or 10 % of the loss: on recorded 5m candles of three pairs it was 4 to 6 % between
two networks and 10 to 11 % between a network and the baseline. The drift watch sees Student t5
residuals, correlated by 0.6 among the pairs, of which one in ten misses its interval. The
generators are those of `tests/model/test_gate.py` and `tests/learning/test_drift.py`. Every series
has a seed of its own, the same for all that is compared. About nine minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.signal import lfilter

from lstm_model.learning import drift
from lstm_model.learning.drift import DriftWatch
from lstm_model.market.candles import Floats
from lstm_model.model import gate
from lstm_model.model.forecast import paired_test
from lstm_model.model.gate import Evidence, contest

ERROR = 0.05
LOOK, LAST, DAY = 288, 8_064, 288  # moments
HOLDS = (12, 24, 48)  # labels that an alarm is remembered for
HORIZONS, MEMORIES = (1, 12, 24), (0.0, 0.9, 0.98, 0.995)
LEAD = 0.3  # deviations of a lead that comes and goes
SAVED, DEVIATIONS = (0.01, 0.02, 0.05), (0.05, 0.1)  # shares of the loss
FEW, LITTLE = (0.0, 0.98, 0.995), (0.005, 0.01, 0.02)  # memories and savings for `choices`
RATE, EDGE = 0.1, 1.645  # of misses, and the end of the interval in deviations
WAVES, SLOW = 0.3, 0.95  # of log volatility that no forecast sees: deviation, memory per label
PAIRS = (1, 2, 8)
LABELS = 200_000  # of each pair, per run length
console = Console(width=140)


# ---------------------------------------------------------------- the gate


def noise(seed: int, horizon: int, memory: float) -> Floats:
    """(LAST,) differences of losses of equal forecasters, of deviation about one."""
    random = np.random.default_rng((seed, horizon))
    wild = np.exp(0.4 * np.sin(random.uniform(0.0, 2.0 * np.pi) + np.arange(LAST) / 600.0))
    shocks = random.standard_t(4, size=LAST + horizon - 1)
    overlapping = np.convolve(shocks, np.ones(horizon), "valid") * wild
    overlapping /= overlapping.std()
    return overlapping + (LEAD * slow_noise(random, LAST, memory) if memory else 0.0)


def slow_noise(random: np.random.Generator, count: int, memory: float) -> Floats:
    """(count,) first-order autoregression of variance one."""
    shocks = random.normal(size=count) * math.sqrt(1.0 - memory**2)
    shocks[0] = random.normal()
    return np.asarray(lfilter([1.0], [1.0, -memory], shocks))


def record(losses: Floats) -> Evidence:
    return Evidence(np.arange(len(losses)), losses, *[np.zeros(len(losses))] * 4)


def promoted_at(gains: Floats, horizon: int) -> float:
    """Moments until the first promotion of who saves `gains` of a loss of one; else infinite."""
    champion = record(np.ones(len(gains)))
    for count in range(LOOK, len(gains) + 1, LOOK):
        if contest(record(1.0 - gains[:count]), champion, 0, horizon, ERROR).better:
            return float(count)
    return math.inf


class Waits(NamedTuple):
    """Moments until the promotion, one per series; infinite where there was none."""

    moments: Floats

    @classmethod
    def of(
        cls, series: int, horizon: int, memory: float, saved: float = 0.0, deviation: float = 0.1
    ) -> Waits:
        found = (saved + deviation * noise(seed, horizon, memory) for seed in range(series))
        return cls(np.array([promoted_at(gains, horizon) for gains in found]))

    @property
    def share(self) -> str:
        return f"{np.isfinite(self.moments).mean():.1%}"

    @property
    def median(self) -> str:
        """In days of 5m candles, those without a promotion counted as the last."""
        middle = float(np.median(self.moments))
        return f"{middle / DAY:.0f} d" if middle < math.inf else "never"


def print_equals(series: int) -> None:
    table = new_table(
        f"equals that were promoted, of {series:,} series each, at a nominal {ERROR:.0%}",
        "horizon", *(f"leads of memory {memory}" for memory in MEMORIES),
    )  # fmt: skip
    for horizon in HORIZONS:
        shares = (Waits.of(series, horizon, memory).share for memory in MEMORIES)
        table.add_row(f"{horizon}", *shares)
    console.print(table)


def print_merit(series: int) -> None:
    table = new_table(
        f"better ones that were promoted within four weeks, of {series:,} series each, and when",
        "horizon", "memory", "deviation", *(f"saves {saved:.0%}" for saved in SAVED),
    )  # fmt: skip
    for horizon, memory in ((1, 0.0), (12, 0.0), (12, 0.98), (24, 0.0)):
        for deviation in DEVIATIONS:
            waits = (Waits.of(series, horizon, memory, saved, deviation) for saved in SAVED)
            cells = (f"{found.share}, {found.median}" for found in waits)
            table.add_row(f"{horizon}", f"{memory}", f"{deviation:.0%}", *cells)
    console.print(table)


def overlap_variance(gains: Floats, horizon: int) -> float:
    """Variance of the mean, times N, as in `paired_test`; zero where its sum is not positive."""
    test = paired_test(-gains, np.zeros(len(gains)), horizon)
    return len(gains) * (test.gain / test.statistic) ** 2 if test.statistic else 0.0


def either_variance(gains: Floats, horizon: int) -> float:
    """The larger of both."""
    return max(_blocks(gains, horizon), overlap_variance(gains, horizon))


_blocks = gate._long_run_variance
CHOICES: dict[str, dict[str, Any]] = {
    "as chosen": {},
    "variance of the overlap alone": {"_long_run_variance": overlap_variance},
    "the larger of both variances": {"_long_run_variance": either_variance},
    "from 20 blocks on": {"_FEWEST_BLOCKS": 20},
    "from 50 blocks on": {"_FEWEST_BLOCKS": 50, "_LEAST_SPANS": 50},
    "tightest after 100 horizons": {"_SHARPEST_SPANS": 100.0},
}


def print_choices(series: int) -> None:
    table = new_table(
        f"other choices at a horizon of 12, {series:,} series each: equals that were promoted, and "
        f"better ones at a deviation of {DEVIATIONS[0]:.0%}",
        "", *(f"equal, {memory}" for memory in FEW), *(f"saves {saved:.1%}" for saved in LITTLE),
    )  # fmt: skip
    for name, values in CHOICES.items():
        with changed(gate, **values):
            equal = [Waits.of(series, 12, memory) for memory in FEW]
            better = [Waits.of(series, 12, 0.0, saved, DEVIATIONS[0]) for saved in LITTLE]
        table.add_row(name, *(x.share for x in equal), *(f"{x.share}, {x.median}" for x in better))
    console.print(table)


@contextmanager
def changed(module: ModuleType, **values: Any) -> Iterator[None]:
    """The module with other constants, for `with`."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


# ---------------------------------------------------------------- the drift watch


def outcomes(
    random: np.random.Generator, labels: int, pairs: int, *, scale: float = 1.0, shift: float = 0.0
) -> Floats:
    """(labels, pairs) residuals: Student t5, pairs correlated by 0.6, one of ten beyond `EDGE`."""
    common = np.sqrt(0.6) * random.normal(size=(labels, 1))
    both = common + np.sqrt(0.4) * random.normal(size=(labels, pairs))
    tails = np.sqrt(5.0 / random.chisquare(5, size=(labels, pairs)))
    return np.asarray(scale * both * tails / 1.225 + shift)


def waving(random: np.random.Generator, labels: int, pairs: int) -> Floats:
    """The same under a volatility that comes in waves; still one of ten beyond `EDGE`."""
    waves = np.exp(WAVES * slow_noise(random, labels, SLOW))[:, None]
    found = waves * outcomes(random, labels, pairs)
    return np.asarray(found * EDGE / np.quantile(np.abs(found), 1.0 - RATE))


def feed(watch: DriftWatch, row: list[float]) -> bool:
    """One label of every pair; whether the alarm rings."""
    for number, residual in enumerate(row):
        watch.update(f"P{number}/USDT", residual, abs(residual) > EDGE)
    return watch.drift_detected


def false_alarms(series: Floats) -> int:
    watch, found = DriftWatch(RATE), 0
    for row in series.tolist():
        if feed(watch, row):
            found += 1
            watch.reset()
    return found


def run_length(series: Floats) -> str:
    found = false_alarms(series)
    return f"{len(series) / found:,.0f} ({found})" if found else f"over {len(series):,} (0)"


def wait(before: Floats, after: Floats) -> int:
    """Labels of `after` until the alarm."""
    watch = DriftWatch(RATE)
    for row in before.tolist():
        if feed(watch, row):
            watch.reset()
    for count, row in enumerate(after.tolist(), 1):
        if feed(watch, row):
            return count
    return len(after)


def waits(series: int, pairs: int, scale: float, shift: float) -> str:
    found = []
    for seed in range(series):
        random = np.random.default_rng((seed, pairs))
        after = outcomes(random, 500, pairs, scale=scale, shift=shift)
        found.append(wait(outcomes(random, 50, pairs), after))
    return f"{np.mean(found):.0f} ({np.quantile(found, 0.9):.0f})"


def print_alarms(_: int) -> None:
    table = new_table(
        f"labels of a pair between two false alarms, in {LABELS:,}, and how many there were",
        "volatility", "alarms are held for", *(f"pairs: {pairs}" for pairs in PAIRS),
    )  # fmt: skip
    markets: dict[str, Callable[..., Floats]] = {"steady": outcomes, "in waves": waving}
    for name, market in markets.items():
        for hold in HOLDS:
            with changed(drift, _HOLD=hold, _NEVER=hold):
                series = (market(np.random.default_rng(n), LABELS, n) for n in PAIRS)
                table.add_row(name, f"{hold} labels", *map(run_length, series))
    console.print(table)


def print_delays(series: int) -> None:
    table = new_table(
        f"labels from a drift to its alarm: mean of {series:,} series; nine of ten within (...)",
        "drift", "alarms are held for", *(f"pairs: {pairs}" for pairs in PAIRS),
    )  # fmt: skip
    drifts = {"residuals 1.7 times as large": (1.7, 0.0), "half a deviation off": (1.0, 0.5)}
    for name, kind in drifts.items():
        for hold in HOLDS:
            with changed(drift, _HOLD=hold, _NEVER=hold):
                found = (waits(series, pairs, *kind) for pairs in PAIRS)
                table.add_row(name, f"{hold} labels", *found)
    console.print(table)


# ---------------------------------------------------------------- parts


PARTS: dict[str, Callable[[int], None]] = {
    "equals": print_equals,
    "merit": print_merit,
    "choices": print_choices,
    "alarms": print_alarms,
    "delays": print_delays,
}


def new_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--series", type=int, default=1_000)
    chosen = parser.parse_args()
    for part in chosen.only:
        began_s = time.perf_counter()
        PARTS[part](chosen.series)
        console.print(f"{part}: {time.perf_counter() - began_s:.0f} s\n")


if __name__ == "__main__":
    main()
