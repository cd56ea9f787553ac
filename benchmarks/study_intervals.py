"""Do the intervals hold, and are they sharper than plain ones? Walk-forward on recorded candles.

    python benchmarks/study_intervals.py --data DIR --timeframe 1h --pairs BTC/USDT ETH/USDT \
        --from 2022-01-01 --to 2025-06-29 --set horizon=4 --set retrain_candles=2184 --store DIR

`DIR` holds candles as freqtrade's download-data writes them. Every `retrain_candles` a network is
trained from scratch on the candles before; it forecasts those after, until the next. All intervals
have learnt from labels alone that were known when they were made:

    constant    quantiles of the training block's returns, pair by pair
    EWMA        quantiles of its returns in units of EWMA volatility
    EWMA served the same, tracked as the baseline that is champion number zero
    head        the network's, uncalibrated
    level       the network's, tracked without regard to the level of volatility
    served      the network's as they are served

The last lines say how often the price went beyond `lowest` and `highest` within the horizon, which
is to happen in 5 % of cases each. Nothing here is a profit. Failures are printed as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from study_online import question

from lstm_model.learning.matured import label_reach
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Floats, Ints
from lstm_model.model.calibration import Calibration, Series, Widths, reaches, rescale, track
from lstm_model.model.dataset import Panel, build_panel
from lstm_model.model.forecast import winkler_score
from lstm_model.model.lstm import Lstm
from lstm_model.model.reliability import Reliability
from lstm_model.settings import Settings
from lstm_model.store.models import ModelStore
from lstm_model.training.maker import Candidate, ModelMaker
from lstm_model.training.material import Material

logger = logging.getLogger("study")


class Served(NamedTuple):
    """What one network and its rivals said while it served: N rows, log returns."""

    date_ms: Ints
    pair: NDArray[np.int32]
    realized: Floats
    volatility: Floats
    passed: NDArray[np.bool_]  # (N, 2) the price went below `lowest`, above `highest`
    intervals: dict[str, tuple[Floats, Floats]]


def served(candidate: Candidate, material: Material, panel: Panel, since_ms: int) -> Served:
    """Follow one network from its validation block on; what counts begins at `since_ms`."""
    settings, card = material.settings, candidate.stored.card
    first_ms = int(material.panel.date_ms[material.split.validation].min())
    rows = np.flatnonzero(panel.usable & (panel.date_ms >= first_ms))
    unit = panel.unit[rows]
    made = Calibration.from_card(settings.levels, card.calibration)
    head = made.spread(_raw(candidate, panel, rows, settings))[1]
    past = np.concatenate([material.split.train, material.split.validation])
    ewma = np.tile(np.quantile(material.panel.target()[past], settings.levels), (len(rows), 1))
    ewma -= ewma[:, len(settings.levels) // 2][:, None]
    late = panel.date_ms[rows] >= since_ms
    scales = _tracked(head, panel, rows, settings)
    lowest, highest = reaches(head, scales)
    passed = np.stack(
        [panel.lowest[rows] < lowest * unit, panel.highest[rows] > highest * unit], axis=1
    )
    quantiles = {
        "constant": _constant(material, panel, rows) / unit[:, None],
        "EWMA": ewma,
        "EWMA served": rescale(ewma, _tracked(ewma, panel, rows, settings)),
        "head": head,
        "level": rescale(head, _tracked(head, panel, rows, settings, tilted=False)),
        "served": rescale(head, scales),
    }
    chosen = rows[late]
    ends = {name: (q[late, 0], q[late, -1]) for name, q in quantiles.items()}
    return Served(
        panel.date_ms[chosen],
        panel.pair_index[chosen],
        panel.realized[chosen],
        panel.volatility[chosen],
        passed[late],
        {name: (low * unit[late], high * unit[late]) for name, (low, high) in ends.items()},
    )


def _raw(candidate: Candidate, panel: Panel, rows: Ints, settings: Settings) -> Floats:
    lstm = Lstm(candidate.stored.weights, settings.lookback)
    cuts = np.flatnonzero(np.diff(panel.pair_index[rows])) + 1
    return np.concatenate([lstm.predict(panel.rows, part) for part in np.split(rows, cuts)])


def _constant(material: Material, panel: Panel, rows: Ints) -> Floats:
    """(N, K) quantiles of each pair's returns in the training and validation block."""
    past = np.concatenate([material.split.train, material.split.validation])
    out = np.full((len(rows), len(material.settings.levels)), np.nan)
    for number, pair in enumerate(panel.pairs):
        theirs = material.panel.pairs.index(pair)
        mine = material.panel.realized[past[material.panel.pair_index[past] == theirs]]
        out[panel.pair_index[rows] == number] = np.quantile(mine, material.settings.levels)
    return out


def _tracked(
    quantiles: Floats, panel: Panel, rows: Ints, settings: Settings, *, tilted: bool = True
) -> Floats:
    """(N, M) log scales in force; without `tilted` the level of volatility is kept from them."""
    reached, start = panel.reached(rows), Widths.neutral(settings.levels)
    if not tilted:
        reached = reached._replace(volatility=np.ones(len(rows)))
    pairs = [np.flatnonzero(panel.pair_index[rows] == n) for n in range(len(panel.pairs))]
    series = [Series(quantiles[mine], reached.of(mine), start) for mine in pairs]
    out = np.empty((len(rows), len(start.scales)))
    tracked = track(settings.levels, series, settings.horizon)
    for mine, (in_force, _) in zip(pairs, tracked, strict=True):
        out[mine] = in_force
    return out


def walk(maker: ModelMaker, begin_ms: int, end_ms: int) -> Iterator[Served]:
    """Every network that the schedule makes in a span, while it serves."""
    schedule, settings = Schedule.of(maker.settings, maker.timeframe), maker.settings
    boundary = schedule.origin_of(schedule.boundary_at(begin_ms))
    while boundary < end_ms:
        later = boundary + schedule.step_ms
        while not schedule.retrains_at(later):
            later += schedule.step_ms
        material = maker.material(boundary)
        candidate = maker.scratch(material)
        card = candidate.stored.card
        logger.info("%s: %d epochs, %.0f s", card.version, card.epochs, card.seconds)
        from_ms = boundary + schedule.lag_ms
        first_ms = int(material.panel.date_ms[material.split.validation].min())
        reach_ms = label_reach(settings) * schedule.candle_ms
        until_ms = min(later, end_ms) + (settings.horizon + 2) * schedule.candle_ms
        series = [
            maker.history.of(pair).between(first_ms - reach_ms, until_ms)
            for pair in material.panel.pairs
        ]
        yield served(candidate, material, build_panel(series, settings), from_ms)
        boundary = later


def report(parts: Sequence[Served], level: float) -> Iterator[str]:
    """The table, and how often the reaches were passed."""
    pair = np.concatenate([part.pair for part in parts])
    realized = np.concatenate([part.realized for part in parts])
    volatility = np.concatenate([part.volatility for part in parts])
    years = _year(np.concatenate([part.date_ms for part in parts]))
    found: dict[str, tuple[Reliability, Floats]] = {}
    for name in parts[0].intervals:
        low, high = (np.concatenate([p.intervals[name][end] for p in parts]) for end in (0, 1))
        scores = winkler_score(low, high, realized, level)
        found[name] = (
            Reliability.of(low, high, realized, volatility, level, groups=pair), scores,
        )  # fmt: skip
    base = found["EWMA served"][1]
    yield f"{len(realized):,} forecasts"
    yield "              cover  worst   worst  Winkler   against  by year"
    yield "                     fifth     250      bps      EWMA"
    spans = [(year, years == year) for year in sorted(set(years.tolist()))]
    for name, (made, scores) in found.items():
        each = ((year, scores[then].mean() / base[then].mean()) for year, then in spans)
        yield (
            f"{name:12} {made.coverage:6.1%} {made.worst_quintile:6.1%} {made.worst_window:7.1%} "
            f"{1e4 * made.winkler:8.1f}    {scores.mean() / base.mean():6.4f}  "
            + " ".join(f"{year} {ratio:.3f}" for year, ratio in each)
        )
    passed = np.concatenate([part.passed for part in parts])
    ranks = np.argsort(np.argsort(volatility)) * 5 // len(volatility)
    for side, name in enumerate(("below lowest", "above highest")):
        fifths = " ".join(f"{passed[ranks == fifth, side].mean():.1%}" for fifth in range(5))
        yield f"{name}: {passed[:, side].mean():.2%}; from calm to wild {fifths}"


def _year(date_ms: Ints) -> Ints:
    return date_ms.astype("datetime64[ms]").astype("datetime64[Y]").astype(int) + 1970


def main() -> None:
    asked = question(__doc__.splitlines()[0])
    options, settings, known, begin_ms, end_ms = asked
    store = ModelStore(options.store)
    maker = ModelMaker(settings, options.timeframe, options.pairs, store, known.get)
    parts = list(walk(maker, begin_ms, end_ms))
    print(f"\n{asked}")
    print("\n".join(report(parts, settings.levels[-1] - settings.levels[0])))


if __name__ == "__main__":
    main()
