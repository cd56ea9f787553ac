"""A model beside its baselines, on candles neither was fitted to, at once and one candle late.

The order of events is that of live trading: the network and the baselines are fitted on the
training block, shrinkage and first interval scales come from the validation block, and the test
block is forecast with the scales tracked so far. Point forecasts are compared in units of
volatility, so that pairs weigh the same; intervals in basis points.

Shapes: R pooled rows, N windows of a block, K quantile levels, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.calibration import POOLED, Calibration, Label, Widths, pooled, rescale, track
from lstm_model.model.dataset import TARGET_CLIP, Panel, Scaler, Split
from lstm_model.model.forecast import (
    PairedTest,
    hit_rate,
    paired_test,
    pinball_loss,
    skill,
)
from lstm_model.model.gate import Evidence, Worth, worth
from lstm_model.model.reliability import Reliability
from lstm_model.settings import Settings

Scores = dict[str, dict[str, float]]
_RIDGE = 1e-3  # chosen: penalty per window, in units of a feature's variance
_BPS = 1e4


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
        return cls(panel.date_ms[rows], *_outcomes(panel, rows).values())


class _Blocks(NamedTuple):
    """Numbers for the windows of the validation and of the test block."""

    validation: Floats
    test: Floats


def evaluate(
    panel: Panel, split: Split, settings: Settings, predict: Callable[[Ints], Floats],
    *, shrinkage: float | None = None,
) -> Evaluation:  # fmt: skip
    """Calibrate a network on the validation block and score it on the test block.

    `lstm` is the forecast as it is served, `lstm_raw` the network's mean before shrinkage.

    Parameters
    ----------
    predict : row numbers (N,) -> raw output (N, K), or (N, 1) for a network without quantiles
    shrinkage : of the mean; None: what the validation block shows it to be worth
    """
    raw = _Blocks(predict(split.validation), predict(split.test))
    draft = _draft(raw, panel, split.validation, settings)
    if shrinkage is not None:
        draft = replace(draft, shrinkage=shrinkage, shrinkage_error=0.0)
    calibration, quantiles = _track_blocks(draft, panel, split, raw)
    plain = _ewma_draft(panel, split, settings)
    _, ewma = _track_blocks(plain, panel, split, _zeros(split))
    points = {
        "lstm": draft.spread(raw.test)[0],
        "lstm_raw": draft.raw_mean(raw.test),
        **{name: fit(panel, split) for name, fit in _BASELINES.items()},
    }
    scores = _point_scores(points, panel, split.test)
    for name, made in {
        "lstm": quantiles,
        "lstm_uncalibrated": draft.spread(raw.test)[1] * panel.unit[split.test][:, None],
        "zero": ewma,
        "ewma_untracked": np.array(plain.residuals) * panel.unit[split.test][:, None],
        "constant": _constant_quantiles(panel, split, settings),
    }.items():
        scores.setdefault(name, {}).update(_interval_scores(made, panel, split.test, settings))
    skills = _point_skill(points, panel, split.test)
    skills["winkler_vs_zero"] = 1.0 - scores["lstm"]["winkler_bps"] / scores["zero"]["winkler_bps"]
    evidence = evidence_of(
        Outcomes.of(panel, split.test),
        points["lstm"],
        points["lstm_raw"],
        quantiles / panel.unit[split.test][:, None],
        settings.levels,
    )
    return Evaluation(calibration, scores, skills, evidence)


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


def _draft(raw: _Blocks, panel: Panel, rows: Ints, settings: Settings) -> Calibration:
    """The calibration of the validation block `rows` before any interval was scaled."""
    raw_of_it = Calibration(settings.levels, 1.0, 0.0, (0.0,) * len(settings.levels), {})
    mean, realized = raw_of_it.raw_mean(raw.validation), panel.target()[rows]
    shrinkage, error = _worth(mean, realized, panel, rows)
    residuals: tuple[float, ...] = ()
    if raw.validation.shape[1] == 1:
        residuals = tuple(np.quantile(realized - shrinkage * mean, settings.levels).tolist())
    return Calibration(settings.levels, shrinkage, error, residuals, {})


def _worth(mean: Floats, realized: Floats, panel: Panel, rows: Ints) -> Worth:
    """What the mean was worth on these rows, see `lstm_model.model.gate.worth`."""
    _, product, power = means_by_moment(panel.date_ms[rows], mean * realized, mean**2)
    return worth(product, power, panel.horizon)


def _ewma_draft(panel: Panel, split: Split, settings: Settings) -> Calibration:
    """Zero mean and the past's quantiles in units of volatility: the champion to beat."""
    past = panel.target()[np.concatenate([split.train, split.validation])]
    residuals = tuple(np.quantile(past, settings.levels).tolist())
    return Calibration(settings.levels, 0.0, 0.0, residuals, {})


def _constant_quantiles(panel: Panel, split: Split, settings: Settings) -> Floats:
    """(N, K) the quantiles of each pair's past returns, whatever volatility does."""
    past = np.concatenate([split.train, split.validation])
    out = np.full((len(split.test), len(settings.levels)), np.nan)
    for number in range(len(panel.pairs)):
        mine = panel.realized[past[panel.pair_index[past] == number]]
        if len(mine):
            out[panel.pair_index[split.test] == number] = np.quantile(mine, settings.levels)
    return out


def _zeros(split: Split) -> _Blocks:
    return _Blocks(np.zeros((len(split.validation), 1)), np.zeros((len(split.test), 1)))


def _track_blocks(
    draft: Calibration, panel: Panel, split: Split, raw: _Blocks
) -> tuple[Calibration, Floats]:
    """Track every pair through both blocks: the calibration at the end, the test quantiles."""
    rows = np.concatenate([split.validation, split.test])
    unscaled = draft.spread(np.concatenate([raw.validation, raw.test]))[1]
    labels = list(map(Label._make, zip(*(c.tolist() for c in panel.reached(rows)), strict=True)))
    start, scaled, ends = Widths.neutral(draft.levels), np.empty_like(unscaled), {}
    for number, pair in enumerate(panel.pairs):
        mine = np.flatnonzero(panel.pair_index[rows] == number)
        own = [labels[row] for row in mine.tolist()]
        in_force, ends[pair] = track(draft.levels, unscaled[mine], own, panel.horizon, start)
        scaled[mine] = rescale(unscaled[mine], in_force)
    quantiles = scaled[len(split.validation) :] * panel.unit[split.test][:, None]
    return replace(draft, widths={POOLED: pooled(ends.values()), **ends}), quantiles


def _ridge(panel: Panel, split: Split) -> Floats:
    """Ridge regression (Hoerl & Kennard 1970) on the newest candle's features."""
    rows, target = panel.rows[split.train], panel.target()[split.train]
    scaler = Scaler.fit(rows)
    inputs = scaler.transform(rows).astype(np.float64)
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ (target - target.mean()))
    return np.asarray(scaler.transform(panel.rows[split.test]) @ weights + target.mean())


def _reversal(panel: Panel, split: Split) -> Floats:
    """The last return, scaled by least squares: negative where prices bounce."""
    last = panel.rows[:, 0]
    seen, target = last[split.train], panel.target()[split.train]
    slope = float(seen @ target) / max(float(seen @ seen), 1e-12)
    return np.asarray(slope * last[split.test])


def _zero(_: Panel, split: Split) -> Floats:
    return np.zeros(len(split.test))


_BASELINES: dict[str, Callable[[Panel, Split], Floats]] = {
    "ridge": _ridge,
    "reversal": _reversal,
    "zero": _zero,
}


def _outcomes(panel: Panel, rows: Ints) -> dict[str, Floats]:
    """Realized returns in units of volatility: at once, and for who acts one candle late."""
    unit = panel.unit[rows]
    return {
        "": np.clip(panel.realized[rows] / unit, -TARGET_CLIP, TARGET_CLIP),
        "_delayed": np.clip(panel.delayed[rows] / unit, -TARGET_CLIP, TARGET_CLIP),
    }


def _point_scores(points: dict[str, Floats], panel: Panel, rows: Ints) -> Scores:
    scores: Scores = {}
    for twin, realized in _outcomes(panel, rows).items():
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


def _point_skill(points: dict[str, Floats], panel: Panel, rows: Ints) -> dict[str, float]:
    """R squared of the model against each baseline, and how surely it beats zero."""
    out: dict[str, float] = {}
    for twin, realized in _outcomes(panel, rows).items():
        loss = (realized - points["lstm"]) ** 2
        for name in _BASELINES:
            out[f"r2_vs_{name}{twin}"] = skill(loss, (realized - points[name]) ** 2)
        out[f"p_value{twin}"] = _over_time(realized**2, loss, panel, rows).p_value
    return out


def _over_time(reference: Floats, loss: Floats, panel: Panel, rows: Ints) -> PairedTest:
    """Paired test of means over pairs: candles of one moment are not independent."""
    _, mean_loss, mean_reference = means_by_moment(panel.date_ms[rows], loss, reference)
    return paired_test(mean_loss, mean_reference, panel.horizon)
