"""Do the intervals hold, and are they sharper than others'? Walk-forward on recorded candles.

    python benchmarks/study_intervals.py --data DIR --timeframe 1h --pairs BTC/USDT ETH/USDT \
        --from 2022-01-01 --to 2025-06-29 --set horizon=4 --set retrain_candles=2184 --store DIR

`DIR` holds candles as freqtrade's download-data writes them. Every `retrain_candles` a network is
trained from scratch on the candles before; it forecasts those after, until the next. Its rivals are
fitted on the very same blocks at the very same moments. All intervals have learnt from labels alone
that were known when they were made:

    constant    quantiles of the training block's returns, pair by pair
    EWMA        quantiles of its returns in units of EWMA volatility
    EWMA served the same, tracked as the baseline that is champion number zero
    HAR         a regression of realized variance on that of the past, tracked alike
    LightGBM    trees on the newest row of the network's features, tracked alike (extra `rivals`)
    head        the network's, uncalibrated
    level       the network's, tracked without regard to the level of volatility
    served      the network's as they are served

`against EWMA` are shares of the scores of `EWMA served`: Winkler of the 90 % interval, then the
pinball loss, its mean over all levels. Tests are of the Winkler score's mean over pairs at each
moment, with as many lags as forecasts overlap. How often the price went beyond `lowest` and
`highest` within the horizon, which is to happen in 5 % of cases each, and what the mean is worth
come last. Nothing here is a profit. Failures are printed as they are.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from study_online import Question, question

from lstm_model.features.closed_candle import OF_THE_WEEK, feature_names
from lstm_model.learning.matured import label_reach
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Candles, Floats, Ints
from lstm_model.model.calibration import Calibration, Series, Widths, reaches, rescale, track
from lstm_model.model.dataset import Panel, Scaler, build_panel, realized_return
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.forecast import (
    hit_rate,
    paired_test,
    pinball_loss,
    skill,
    winkler_score,
)
from lstm_model.model.reliability import Reliability
from lstm_model.scoring import boosted
from lstm_model.scoring.evaluation import Outcomes, means_by_moment
from lstm_model.settings import Settings
from lstm_model.store.models import ModelStore
from lstm_model.training.maker import Candidate, ModelMaker, Training
from lstm_model.training.material import Material

logger = logging.getLogger("study")
BASE, RIVALS = "EWMA served", ("EWMA served", "HAR", "LightGBM")
_NAMES = feature_names(False)
FAMILIES = {  # of features, by what they look at
    "days": [n for n in _NAMES if n in ("past_known", "parkinson_1d") or (n.endswith("d")
             and n.startswith("volatility_") and n[11:12].isdigit())],
    "range": ["volatility_3", "jump", "garman_klass_1", "garman_klass_6", "garman_klass_36"],
    "week": list(OF_THE_WEEK),
    "leader": [n for n in _NAMES if n.startswith("leader_")],
}  # fmt: skip
STRONGEST = 0.1  # the part of the forecasts that `direction` looks at


class Said(NamedTuple):
    """What one forecaster said in N rows: ends of the 90 % interval as log returns, and losses."""

    low: Floats
    high: Floats
    winkler: Floats
    pinball: Floats

    @classmethod
    def of(cls, quantiles: Floats, realized: Floats, levels: tuple[float, ...]) -> Said:
        """Quantiles (N, K) as log returns."""
        low, high = quantiles[:, 0].copy(), quantiles[:, -1].copy()
        winkler = winkler_score(low, high, realized, levels[-1] - levels[0])
        return cls(low, high, winkler, pinball_loss(levels, quantiles, realized))


class Network(NamedTuple):
    """What one network said in N rows."""

    intervals: dict[str, Said]
    passed: NDArray[np.bool_]  # (N, 2) the price went below `lowest`, above `highest`
    mean: Floats  # as served, in units of volatility over the horizon
    raw_mean: Floats


class Stretch(NamedTuple):
    """N rows between two retrainings: what came, what rivals and what each seed's network said."""

    date_ms: Ints
    pair: NDArray[np.int32]
    realized: Floats
    volatility: Floats
    unit: Floats
    outcomes: Outcomes
    rivals: dict[str, Said]
    networks: list[Network]


class Scene(NamedTuple):
    """Rows (N,) of a panel from the validation block on; those that count are `late`."""

    panel: Panel
    rows: Ints
    late: NDArray[np.bool_]
    settings: Settings

    def said(self, quantiles: Floats) -> Said:
        """Of quantiles (N, K) in units of volatility over the horizon."""
        rows = self.rows[self.late]
        made = quantiles[self.late] * self.panel.unit[rows][:, None]
        return Said.of(made, self.panel.realized[rows], self.settings.levels)

    def tracked(self, quantiles: Floats, *, tilted: bool = True) -> Floats:
        """(N, M) log scales in force; not `tilted`: the level of volatility is kept from them."""
        levels, rows = self.settings.levels, self.rows
        reached, start = self.panel.reached(rows), Widths.neutral(levels)
        if not tilted:
            reached = reached._replace(volatility=np.ones(len(rows)))
        numbers = range(len(self.panel.pairs))
        pairs = [np.flatnonzero(self.panel.pair_index[rows] == n) for n in numbers]
        series = [Series(quantiles[mine], reached.of(mine), start) for mine in pairs]
        out = np.empty((len(rows), len(start.scales)))
        found = track(levels, series, self.settings.horizon)
        for mine, (in_force, _) in zip(pairs, found, strict=True):
            out[mine] = in_force
        return out


def rivals(material: Material, scene: Scene, known: Mapping[str, Candles], trees: bool) -> dict:
    """Name -> what each said, fitted on the blocks that the networks are trained on."""
    settings, split, panel = material.settings, material.split, material.panel
    past, rows = np.concatenate([split.train, split.validation]), scene.panel.rows[scene.rows]
    unit = scene.panel.unit[scene.rows][:, None]
    ewma = np.quantile(panel.target()[past], settings.levels)
    ewma = np.tile(ewma - ewma[len(ewma) // 2], (len(rows), 1))
    tracked = {BASE: ewma, "HAR": material.baselines.har.predict(rows)}
    if trees:
        tracked["LightGBM"] = material.baselines.trees.predict(rows)
    made = {"constant": _constant(material, scene, known) / unit, "EWMA": ewma}
    made |= {name: rescale(each, scene.tracked(each)) for name, each in tracked.items()}
    return {name: scene.said(each) for name, each in made.items()}


def networks(candidates: Sequence[Candidate], scene: Scene) -> list[Network]:
    """What each trained network says of a scene and, where there are several, all as one."""
    raws = [_raw(candidate, scene) for candidate in candidates]
    cards = [candidate.stored.card for candidate in candidates]
    made = [Calibration.from_card(scene.settings.levels, card.calibration) for card in cards]
    if len(raws) > 1:
        raws, made = [*raws, np.mean(raws, axis=0)], [*made, made[0]]
    return [network(each, raw, scene) for each, raw in zip(made, raws, strict=True)]


def network(made: Calibration, raw: Floats, scene: Scene) -> Network:
    """By a network's raw output (N, K)."""
    panel, rows = scene.panel, scene.rows[scene.late]
    mean, head = made.spread(raw)
    scales = scene.tracked(head)
    lowest, highest = (end[scene.late] * panel.unit[rows] for end in reaches(head, scales))
    passed = np.stack([panel.lowest[rows] < lowest, panel.highest[rows] > highest], axis=1)
    quantiles = {
        "head": head,
        "level": rescale(head, scene.tracked(head, tilted=False)),
        "served": rescale(head, scales),
    }
    intervals = {name: scene.said(each) for name, each in quantiles.items()}
    return Network(intervals, passed, mean[scene.late], made.raw_mean(raw)[scene.late])


def _raw(candidate: Candidate, scene: Scene) -> Floats:
    lstm = Ensemble(candidate.stored.weights, scene.settings.lookback)
    cuts = np.flatnonzero(np.diff(scene.panel.pair_index[scene.rows])) + 1
    parts = np.split(scene.rows, cuts)
    return np.concatenate([lstm.predict(scene.panel.rows, part) for part in parts])


def _constant(material: Material, scene: Scene, known: Mapping[str, Candles]) -> Floats:
    """(N, K) quantiles of each pair's returns in the time of training and validation block."""
    past = np.concatenate([material.split.train, material.split.validation])
    theirs, levels = material.panel, material.settings.levels
    out = np.full((len(scene.rows), len(levels)), np.nan)
    for number, pair in enumerate(scene.panel.pairs):
        if pair in theirs.pairs:
            mine = past[theirs.pair_index[past] == theirs.pairs.index(pair)]
            seen = theirs.realized[mine]
        else:
            span = int(theirs.date_ms[past].min()), int(theirs.label_ms[past].max())
            seen = realized_return(known[pair].between(*span).on_grid(), theirs.horizon)
            seen = seen[np.isfinite(seen)]
        enough = seen if len(seen) else theirs.realized[past]
        out[scene.panel.pair_index[scene.rows] == number] = np.quantile(enough, levels)
    return out


class Walk(NamedTuple):
    """A walk through a span of time.

    Attributes
    ----------
    makers : one for each seed, of the pairs to train on; the first one's material serves all
    scored : the pairs to forecast
    trains : False: rivals alone
    trees : whether LightGBM is among them
    hidden : features that no network is shown
    """

    makers: Sequence[ModelMaker]
    known: Mapping[str, Candles]
    scored: Sequence[str]
    trains: bool
    trees: bool
    hidden: Sequence[str]

    def stretches(self, begin_ms: int, end_ms: int) -> Iterator[Stretch]:
        """All that is said between one training of the schedule and the next."""
        maker = self.makers[0]
        schedule, settings = Schedule.of(maker.settings, maker.timeframe), maker.settings
        boundary = schedule.origin_of(schedule.boundary_at(begin_ms))
        while boundary < end_ms:
            later = boundary + schedule.step_ms
            while not schedule.retrains_at(later):
                later += schedule.step_ms
            material = maker.material(boundary)
            if self.hidden:
                self._hide(material)
            training = Training(thorough=self.trees)
            candidates = [each.scratch(material, training) for each in self.makers if self.trains]
            for card in (candidate.stored.card for candidate in candidates):
                logger.info("%s: %d epochs, %.0f s", card.version, card.epochs, card.seconds)
            from_ms = max(begin_ms, boundary + schedule.lag_ms)
            until_ms = min(later, end_ms) + (settings.horizon + 2) * schedule.candle_ms
            scene = self._scene(material, from_ms, until_ms, schedule.candle_ms)
            yield self._stretch(material, scene, candidates)
            boundary = later

    def _hide(self, material: Material) -> None:
        names = feature_names(material.settings.order_flow)
        few = [names[n] for n in np.flatnonzero(material.scaler.scale > 1e20)]
        numbers = [names.index(name) for name in {*self.hidden, *few}]
        rows = material.panel.rows[material.split.train]
        material.__dict__["scaler"] = Scaler.fit(rows, numbers)

    def _scene(self, material: Material, from_ms: int, until_ms: int, candle_ms: int) -> Scene:
        settings = material.settings
        first_ms = int(material.panel.date_ms[material.split.validation].min())
        start_ms = first_ms - label_reach(settings) * candle_ms
        history = self.makers[0].history  # as the networks' own candles are found
        found = [history.of(pair).between(start_ms, until_ms) for pair in self.scored]
        series = [each for each in found if len(each) > label_reach(settings)]
        panel = build_panel(series, settings)
        rows = np.flatnonzero(panel.usable & (panel.date_ms >= first_ms))
        return Scene(panel, rows, panel.date_ms[rows] >= from_ms, settings)

    def _stretch(
        self, material: Material, scene: Scene, candidates: Sequence[Candidate]
    ) -> Stretch:
        rows, panel = scene.rows[scene.late], scene.panel
        logger.info("%s: %d forecasts", np.datetime64(material.boundary_ms, "ms"), len(rows))
        places = np.array([self.scored.index(pair) for pair in panel.pairs], np.int32)
        return Stretch(
            panel.date_ms[rows],
            places[panel.pair_index[rows]],
            panel.realized[rows],
            panel.volatility[rows],
            panel.unit[rows],
            Outcomes.of(panel, rows),
            rivals(material, scene, self.known, self.trees),
            networks(candidates, scene) if candidates else [],
        )


class Record(NamedTuple):
    """All stretches, one after the other, with the networks of one seed or none."""

    date_ms: Ints
    pair: NDArray[np.int32]
    realized: Floats
    volatility: Floats
    unit: Floats
    delayed: Floats  # in units of volatility over the horizon, clipped; `at_once` likewise
    at_once: Floats
    said: dict[str, Said]
    network: Network | None

    @classmethod
    def of(cls, parts: Sequence[Stretch]) -> Record:
        """What came, and what the rivals said."""

        def whole(name: str) -> NDArray:
            return np.concatenate([getattr(part, name) for part in parts])

        outcomes = [part.outcomes for part in parts]
        delayed, at_once = (
            np.concatenate([getattr(each, name) for each in outcomes])
            for name in ("delayed", "realized")
        )
        columns = map(whole, ("date_ms", "pair", "realized", "volatility", "unit"))
        return cls(*columns, delayed, at_once, _joined([part.rivals for part in parts]), None)

    def beside(self, networks: Sequence[Network]) -> Record:
        """The same with what one seed's networks said, one after the other."""
        columns = zip(*(each[1:] for each in networks), strict=True)
        mine = Network(
            _joined([each.intervals for each in networks]), *map(np.concatenate, columns)
        )
        return self._replace(said=self.said | mine.intervals, network=mine)

    def ratios(self, name: str) -> tuple[float, float]:
        """Winkler and pinball as shares of those of the baseline."""
        base, made = self.said[BASE], self.said[name]
        return made.winkler.mean() / base.winkler.mean(), made.pinball.mean() / base.pinball.mean()


def _joined(many: Sequence[dict[str, Said]]) -> dict[str, Said]:
    return {
        name: Said(*map(np.concatenate, zip(*(each[name] for each in many), strict=True)))
        for name in many[0]
    }


def table(record: Record, level: float) -> Iterator[str]:
    """A line for each forecaster."""
    years = record.date_ms.astype("datetime64[ms]").astype("datetime64[Y]").astype(int) + 1970
    spans = [(year, years == year) for year in sorted(set(years.tolist()))]
    base = record.said[BASE].winkler
    yield f"{len(record.realized):,} forecasts"
    yield "              cover  worst   worst  Winkler  pinball  against EWMA    Winkler by year"
    yield "                     fifth     250      bps      bps  Winkl. pinball"
    for name, made in record.said.items():
        found = Reliability.of(
            made.low, made.high, record.realized, record.volatility, level, groups=record.pair
        )
        each = ((year, made.winkler[then].mean() / base[then].mean()) for year, then in spans)
        winkler, pinball = record.ratios(name)
        yield (
            f"{name:12} {found.coverage:6.1%} {found.worst_quintile:6.1%} "
            f"{found.worst_window:7.1%} {1e4 * found.winkler:8.1f} "
            f"{1e4 * made.pinball.mean():8.2f}  {winkler:6.4f}  {pinball:6.4f}  "
            + " ".join(f"{year} {ratio:.3f}" for year, ratio in each)
        )


def contests(record: Record, horizon: int) -> Iterator[str]:
    """Who is sharper than whom, and how surely."""
    names = [name for name in RIVALS if name in record.said]
    pairs = [(name, other) for name in names[1:] for other in names[: names.index(name)]]
    if record.network is not None:
        pairs = [("served", other) for other in names] + pairs
    for name, other in pairs:
        _, mine, theirs = means_by_moment(
            record.date_ms, record.said[name].winkler, record.said[other].winkler
        )
        test = paired_test(mine, theirs, horizon)
        yield (
            f"{name} against {other}: Winkler {test.gain / theirs.mean():+.2%}, "
            f"z {test.statistic:+.1f}, p {test.p_value:.2g}"
        )


def passings(record: Record, network: Network) -> Iterator[str]:
    """How often the reaches were passed."""
    ranks = np.argsort(np.argsort(record.volatility)) * 5 // len(record.volatility)
    for side, name in enumerate(("below lowest", "above highest")):
        passed = network.passed[:, side]
        fifths = " ".join(f"{passed[ranks == fifth].mean():.1%}" for fifth in range(5))
        yield f"{name}: {passed.mean():.2%}; from calm to wild {fifths}"


def direction(record: Record, network: Network, fee: float) -> Iterator[str]:
    """What the mean is worth, at once and one candle late: shrunk as served, and raw."""
    twins = {"": record.at_once, " late": record.delayed}
    for name, mean in {"served": network.mean, "raw": network.raw_mean}.items():
        if not mean.any():
            yield f"direction {name}: always flat"
            continue
        size = np.abs(mean)
        strong = (size >= np.quantile(size, 1.0 - STRONGEST)) & (size > 0.0)
        words = []
        for twin, came in twins.items():
            edge = 1e4 * (np.sign(mean) * came * record.unit)[strong].mean()
            words.append(
                f"R2{twin} {skill((came - mean) ** 2, came**2):+.2%}, hits "
                f"{hit_rate(mean, came):.1%}, strongest tenth {edge:+.1f} bps, net of fees "
                f"{edge - 2e4 * fee:+.1f}"
            )
        yield f"direction {name}: {'; '.join(words)}"


def spread(records: Sequence[Record]) -> Iterator[str]:
    """Mean and range over seeds of the shares of the baseline's scores."""
    yield "against EWMA    Winkler, mean of seeds (least to most)   pinball"
    for name in records[0].said:
        columns = np.array([record.ratios(name) for record in records]).T
        words = (f"{c.mean():.4f} ({c.min():.4f} to {c.max():.4f})" for c in columns)
        yield f"{name:15} " + "   ".join(words)


def report(record: Record, settings: Settings, fee: float) -> Iterator[str]:
    """All there is to say of one seed."""
    yield from table(record, settings.levels[-1] - settings.levels[0])
    yield from contests(record, settings.horizon)
    if record.network is not None:
        yield from passings(record, record.network)
        yield from direction(record, record.network, fee)


def options(parser: argparse.ArgumentParser) -> None:
    """Of this study alone."""
    add = parser.add_argument
    add("--seeds", nargs="+", type=int, help="a network for each; default: that of the settings")
    add("--test-pairs", nargs="+", help="forecast and score these alone; train on the others")
    add("--only-baselines", action="store_true", help="train no network")
    add("--no-boosted", action="store_true", help="leave LightGBM out")
    add(
        "--without",
        nargs="+",
        default=[],
        choices=FAMILIES,
        help="families of features that no network is shown; needs a store of its own",
    )
    add("--fee", type=float, default=0.001, help="of one side, for the net edge; default 0.001")


def walk_of(asked: Question) -> Walk:
    """What the command line asks for."""
    chosen, store = asked.options, ModelStore(asked.options.store)
    scored = chosen.test_pairs or chosen.pairs
    trained = [pair for pair in chosen.pairs if pair not in (chosen.test_pairs or ())]
    seeds = chosen.seeds or [asked.settings.seed]
    makers = [
        ModelMaker(
            asked.settings.model_copy(update={"seed": seed}), chosen.timeframe, trained, store,
            asked.known.get,
        )
        for seed in seeds
    ]  # fmt: skip
    trees = boosted.is_installed() and not chosen.no_boosted
    if not trees and not chosen.no_boosted:
        logger.info('without LightGBM, which is not installed: pip install "lightgbm>=4,<5"')
    hidden = [name for family in chosen.without for name in FAMILIES[family]]
    return Walk(makers, asked.known, scored, not chosen.only_baselines, trees, hidden)


def main() -> None:
    asked = question(__doc__.splitlines()[0], options)
    walk = walk_of(asked)
    parts = list(walk.stretches(asked.begin_ms, asked.end_ms))
    print(f"\n{asked}")
    if asked.options.test_pairs:
        print(f"forecast and scored, but not trained on: {', '.join(walk.scored)}")
    record, fee = Record.of(parts), asked.options.fee
    if not walk.trains:
        print("\n".join(report(record, asked.settings, fee)))
        return
    records = [
        record.beside([part.networks[number] for part in parts])
        for number in range(len(parts[0].networks))
    ]
    titles = [f"seed {maker.settings.seed}" for maker in walk.makers]
    for title, mine in zip([*titles, "all seeds as one"], records, strict=False):
        print(f"\n{title}")
        print("\n".join(report(mine, asked.settings, fee)))
    if len(records) > 1:
        print()
        print("\n".join(spread(records[: len(titles)])))


if __name__ == "__main__":
    main()
