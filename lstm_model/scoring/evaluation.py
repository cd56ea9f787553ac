"""A model beside its baselines, on candles neither was fitted to, at once and one candle late.

The order of events is that of live trading: the network and the baselines are fitted on the
training block, shrinkage and first interval scales come from the validation block, and the test
block is forecast with the scales tracked so far. Point forecasts are compared in units of
volatility, so that pairs weigh the same; intervals in basis points.

Shapes: R pooled rows, N windows of a block, K quantile levels, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.calibration import POOLED, Calibration, Series, Widths, pooled, rescale, track
from lstm_model.model.dataset import TARGET_CLIP, Panel, Split
from lstm_model.model.forecast import (
    PairedTest,
    hit_rate,
    paired_test,
    pinball_loss,
    skill,
)
from lstm_model.model.gate import Evidence, Worth, worth
from lstm_model.model.mean import Moments
from lstm_model.model.reliability import Reliability
from lstm_model.model.weights import baseline_weights
from lstm_model.scoring import boosted
from lstm_model.scoring.boosted import Boosted
from lstm_model.scoring.har import Har
from lstm_model.settings import Settings

Scores = dict[str, dict[str, float]]
_RIDGE = 1e-3  # chosen: penalty per window, in units of a feature's variance
_BPS = 1e4
_SHIFTS = (1.0, 0.5, 0.0)  # chosen: of the mean; of equals the first


class Evaluation(NamedTuple):
    """What goes on the model card, and the record of the test block that the gate looks at."""

    calibration: Calibration
    scores: Scores
    skill: dict[str, float]
    evidence: Evidence


class Outcomes(NamedTuple):
    """What came true for N forecasts, in units of volatility over the horizon.

    Attributes
    ----------
    date_ms : (N,) int64, open times
    realized, delayed : (N,) float64, clipped; at once, and for who acts one candle late
    """

    date_ms: Ints
    realized: Floats
    delayed: Floats

    @classmethod
    def of(cls, panel: Panel, rows: Ints) -> Outcomes:
        """Those of the panel's `rows` (N,)."""
        unit = panel.unit[rows]
        realized, delayed = (
            np.clip(column[rows] / unit, -TARGET_CLIP, TARGET_CLIP)
            for column in (panel.realized, panel.delayed)
        )
        return cls(panel.date_ms[rows], realized, delayed)

    def twins(self) -> tuple[tuple[str, Floats], ...]:
        """What a score's name ends with, and the outcomes it is of."""
        return ("", self.realized), ("_delayed", self.delayed)


class _Blocks(NamedTuple):
    """Numbers for the windows of the validation and of the test block."""

    validation: Floats
    test: Floats


@dataclass(frozen=True)
class Baselines:
    """What any network is compared with on one panel. What does not depend on the network is
    computed once, when it is asked for first.

    Attributes
    ----------
    scaled : (R, F) float32, the panel's rows by the scaler of its training block
    """

    panel: Panel
    split: Split
    settings: Settings
    scaled: NDArray[np.float32]

    @cached_property
    def points(self) -> dict[str, Floats]:
        """Name -> (N,) mean on the test block, in units of volatility over the horizon."""
        zeros = np.zeros(len(self.split.test))
        return {"ridge": self._ridge(), "reversal": self._reversal(), "zero": zeros}

    @cached_property
    def outcomes(self) -> Outcomes:
        """Of the test block."""
        return Outcomes.of(self.panel, self.split.test)

    @cached_property
    def unit(self) -> Floats:
        """(N, 1) what one unit of the target is worth in the test block."""
        return self.panel.unit[self.split.test][:, None]

    @cached_property
    def ewma(self) -> Floats:
        """(K,) the past's quantiles in units of volatility: with zero mean the champion to beat."""
        return np.asarray(np.quantile(self.target[self._past()], self.settings.levels))

    @cached_property
    def target(self) -> Floats:
        """(R,) of the panel."""
        return self.panel.target()

    @cached_property
    def point_scores(self) -> Scores:
        """Of the points, at once and one candle late."""
        return _point_scores(self.points, self.outcomes)

    @cached_property
    def har(self) -> Har:
        """The rival of the widths that any network has to beat."""
        return Har.fit(self.panel, self.split.train, self._past(), self.settings)

    def zero_weights(self) -> dict[str, NDArray[np.float32]]:
        """Of champion number zero: HAR where it foretells the validation block better than EWMA."""
        rows, levels = self.split.validation, self.settings.levels
        realized, count = self.target[rows], self.panel.rows.shape[1]
        plain = np.tile(self.ewma, (len(rows), 1))
        made = self.har.predict(self.panel.rows[rows])
        losses = [pinball_loss(levels, said, realized).mean() for said in (made, plain)]
        if losses[0] < losses[1]:
            return baseline_weights(np.array(self.har.residuals), count, self.har.scale(count))
        return baseline_weights(self.ewma, count)

    @cached_property
    def tracked_scores(self) -> Scores:
        """Of the champion to beat and of HAR, both tracked as a network is."""
        rows = self.panel.rows
        plain = _Blocks(*(np.tile(self.ewma, (len(block), 1)) for block in self.split[1:]))
        foretold = _Blocks(*(self.har.predict(rows[block]) for block in self.split[1:]))
        return self._tracked({"zero": plain, "har": foretold})

    @cached_property
    def trees(self) -> Boosted:
        """A rival by another method. Takes up to minutes, and `lightgbm`."""
        return Boosted.fit(self.panel, self.split, self.settings)

    @cached_property
    def boosted_scores(self) -> Scores:
        """Of the trees, tracked alike; nothing where `lightgbm` is not installed."""
        if not boosted.is_installed():
            return {}
        rows = self.panel.rows
        made = _Blocks(*(self.trees.predict(rows[block]) for block in self.split[1:]))
        return self._tracked({"lightgbm": made})

    @cached_property
    def interval_scores(self) -> Scores:
        """Of intervals that learn nothing in the test block."""
        made = {"ewma_untracked": self.ewma * self.unit, "constant": self._constant_quantiles()}
        return {name: self.scores_of(quantiles) for name, quantiles in made.items()}

    def scores_of(self, quantiles: Floats) -> dict[str, float]:
        """Of quantiles (N, K) of the test block, as log returns."""
        return _interval_scores(quantiles, self.panel, self.split.test, self.settings)

    def _tracked(self, made: Mapping[str, _Blocks]) -> Scores:
        found = _track_blocks(list(made.values()), self.panel, self.split, self.settings.levels)
        return {
            name: self.scores_of(quantiles)
            for name, (_, quantiles) in zip(made, found, strict=True)
        }

    def _past(self) -> Ints:
        return np.concatenate([self.split.train, self.split.validation])

    def _ridge(self) -> Floats:
        """Ridge regression (Hoerl & Kennard 1970) on the newest candle's features."""
        train, target = self.split.train, self.target[self.split.train]
        mean = target.mean()
        gram, moment = (part[..., :-1] for part in Moments.of(self.scaled[train], target - mean))
        ridge = gram[:-1] + _RIDGE * np.eye(len(moment))
        return np.asarray(self.scaled[self.split.test] @ np.linalg.solve(ridge, moment) + mean)

    def _reversal(self) -> Floats:
        """The last return, scaled by least squares: negative where prices bounce."""
        last, train = self.panel.rows[:, 0], self.split.train
        seen, target = last[train], self.target[train]
        slope = float(seen @ target) / max(float(seen @ seen), 1e-12)
        return np.asarray(slope * last[self.split.test])

    def _constant_quantiles(self) -> Floats:
        """(N, K) the quantiles of each pair's past returns, whatever volatility does."""
        panel, test, past = self.panel, self.split.test, self._past()
        out = np.full((len(test), len(self.settings.levels)), np.nan)
        for number in range(len(panel.pairs)):
            mine = panel.realized[past[panel.pair_index[past] == number]]
            if len(mine):
                out[panel.pair_index[test] == number] = np.quantile(mine, self.settings.levels)
        return out


def evaluate(
    beside: Baselines, predict: Callable[[Ints], Floats], *, shrinkage: float | None = None,
    thorough: bool = False,
) -> Evaluation:  # fmt: skip
    """Calibrate a network on the validation block and score it on the test block.

    `lstm` is the forecast as it is served, `lstm_raw` the network's mean before shrinkage.

    Parameters
    ----------
    predict : row numbers (N,) -> raw output (N, K)
    shrinkage : of the mean; None: what the validation block shows it to be worth
    thorough : score the rival that takes long, too
    """
    split, unit = beside.split, beside.unit
    raw = _Blocks(predict(split.validation), predict(split.test))
    draft = _draft(raw, beside)
    if shrinkage is not None:
        draft = replace(draft, shrinkage=shrinkage, shrinkage_error=0.0)
    unscaled = _Blocks(*(draft.spread(block)[1] for block in raw))
    [(widths, quantiles)] = _track_blocks([unscaled], beside.panel, split, draft.levels)
    mine = {"lstm": draft.spread(raw.test)[0], "lstm_raw": draft.raw_mean(raw.test)}
    intervals = {"lstm": quantiles, "lstm_uncalibrated": unscaled.test * unit}
    made = {name: beside.scores_of(found) for name, found in intervals.items()}
    made |= beside.tracked_scores | (beside.boosted_scores if thorough else {})
    scores = {**_point_scores(mine, beside.outcomes), **beside.point_scores}
    for name, found in {**made, **beside.interval_scores}.items():
        scores[name] = {**scores.get(name, {}), **found}
    skills = _point_skill(mine["lstm"], beside)
    for name in ("zero", "har"):
        skills[f"winkler_vs_{name}"] = 1.0 - (
            scores["lstm"]["winkler_bps"] / scores[name]["winkler_bps"]
        )
    evidence = evidence_of(
        beside.outcomes, mine["lstm"], mine["lstm_raw"], quantiles / unit, draft.levels
    )
    return Evaluation(replace(draft, widths=widths), scores, skills, evidence)


def evidence_of(
    outcomes: Outcomes, mean: Floats, raw_mean: Floats, quantiles: Floats,
    levels: tuple[float, ...],
) -> Evidence:  # fmt: skip
    """The record of N forecasts, the mean over pairs at every moment.

    Parameters
    ----------
    mean, raw_mean : (N,), after and before shrinkage, and quantiles : (N, K), all in units of
        volatility over the horizon
    """
    realized, delayed = outcomes.realized, outcomes.delayed
    return Evidence(
        *means_by_moment(
            outcomes.date_ms,
            pinball_loss(levels, quantiles, realized),
            realized**2 - (realized - mean) ** 2,
            delayed**2 - (delayed - mean) ** 2,
            raw_mean * realized,
            raw_mean**2,
        )
    )


def means_by_moment(date_ms: Ints, *columns: Floats) -> tuple[Any, ...]:
    """The moments of rows (N,), rising, and each column's mean over the rows of a moment."""
    dates, moment = np.unique(date_ms, return_inverse=True)
    count = np.bincount(moment)
    return (dates, *(np.bincount(moment, column) / count for column in columns))


def _draft(raw: _Blocks, beside: Baselines) -> Calibration:
    """The calibration of the validation block before any interval was scaled."""
    levels, rows = beside.settings.levels, beside.split.validation
    mean = Calibration(levels, 1.0, 0.0, {}).raw_mean(raw.validation)
    draft = Calibration(levels, *_worth(mean, beside.target[rows], beside.panel, rows), {})

    def loss(shift: float) -> float:
        _, quantiles = replace(draft, shift=shift).spread(raw.validation)
        return float(pinball_loss(levels, quantiles, beside.target[rows]).mean())

    return replace(draft, shift=min(_SHIFTS, key=loss))


def _worth(mean: Floats, realized: Floats, panel: Panel, rows: Ints) -> Worth:
    """What the mean was worth on these rows, see `lstm_model.model.gate.worth`."""
    _, product, power = means_by_moment(panel.date_ms[rows], mean * realized, mean**2)
    return worth(product, power, panel.horizon)


def _track_blocks(
    many: Sequence[_Blocks], panel: Panel, split: Split, levels: tuple[float, ...]
) -> list[tuple[dict[str, Widths], Floats]]:
    """Track every pair through both blocks: per unscaled quantiles (N, K) the widths at the end,
    and the test quantiles as log returns. Many at once take hardly longer than one, see `track`.
    """
    rows = np.concatenate([split.validation, split.test])
    pairs = [np.flatnonzero(panel.pair_index[rows] == n) for n in range(len(panel.pairs))]
    reached, start = panel.reached(rows), Widths.neutral(levels)
    unscaled = [np.concatenate(blocks) for blocks in many]
    series = [Series(made[mine], reached.of(mine), start) for made in unscaled for mine in pairs]
    tracked = iter(track(levels, series, panel.horizon))
    out = []
    for made in unscaled:
        ends, scaled = {}, np.empty_like(made)
        for pair, mine in zip(panel.pairs, pairs, strict=True):
            in_force, ends[pair] = next(tracked)
            scaled[mine] = rescale(made[mine], in_force)
        quantiles = scaled[len(split.validation) :] * panel.unit[split.test][:, None]
        out.append(({POOLED: pooled(ends.values()), **ends}, quantiles))
    return out


def _point_scores(points: Mapping[str, Floats], outcomes: Outcomes) -> Scores:
    scores: Scores = {}
    for twin, realized in outcomes.twins():
        for name, point in points.items():
            entry = {"r2": skill((realized - point) ** 2, realized**2)}
            if point.any():
                entry["hit_rate"] = hit_rate(point, realized)
            scores[name + twin] = entry
    return scores


def _interval_scores(
    quantiles: Floats, panel: Panel, rows: Ints, settings: Settings
) -> dict[str, float]:
    realized, low, high = panel.realized[rows], quantiles[:, 0], quantiles[:, -1]
    level = settings.levels[-1] - settings.levels[0]
    found = Reliability.of(
        low, high, realized, panel.volatility[rows], level, groups=panel.pair_index[rows]
    )
    scores = {
        "coverage": found.coverage,
        "coverage_worst_quintile": found.worst_quintile,
        "coverage_worst_window": found.worst_window,
        "width_bps": found.width * _BPS,
        "winkler_bps": found.winkler * _BPS,
        "pinball_bps": float(pinball_loss(settings.levels, quantiles, realized).mean()) * _BPS,
    }
    return {name: score for name, score in scores.items() if math.isfinite(score)}


def _point_skill(point: Floats, beside: Baselines) -> dict[str, float]:
    """R squared of the model against each baseline, and how surely it beats zero."""
    out: dict[str, float] = {}
    for twin, realized in beside.outcomes.twins():
        loss = (realized - point) ** 2
        for name, other in beside.points.items():
            out[f"r2_vs_{name}{twin}"] = skill(loss, (realized - other) ** 2)
        out[f"p_value{twin}"] = _over_time(
            realized**2, loss, beside.outcomes.date_ms, beside.settings.horizon
        ).p_value
    return out


def _over_time(reference: Floats, loss: Floats, date_ms: Ints, horizon: int) -> PairedTest:
    """Paired test of means over pairs: candles of one moment are not independent."""
    _, mean_loss, mean_reference = means_by_moment(date_ms, loss, reference)
    return paired_test(mean_loss, mean_reference, horizon)
