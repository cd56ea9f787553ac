"""What the strategy gets: a forecast and a decision for every candle of one pair.

Shapes: N candles, K quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.features.closed_candle import compute_features
from lstm_model.market.candles import Candles, Floats, Ints
from lstm_model.model.calibration import HASTE, RATE
from lstm_model.model.dataset import usable_windows
from lstm_model.model.forecast import FAR_NAMES, Forecast
from lstm_model.model.model import Model
from lstm_model.settings import Settings
from lstm_model.trading.sizing import (
    CALIBRATING,
    ERROR,
    NO_DATA,
    NO_MODEL,
    NO_SKILL,
    Decision,
    decide,
)

Code = "U12"  # of `lstm_model.trading.sizing.REASONS`
_RETURNS = ("mean", "mean_error", "low", "high", "lowest", "highest")


def trust(labels: int, horizon: int) -> float:
    """How far widths learnt from so many labels can be relied on, from 0 (a guess) to 1.

    Examples
    --------
    >>> trust(480, horizon=12), trust(10_000, horizon=12)
    (0.5, 1.0)
    """
    return min(1.0, labels / (horizon * (1.0 / RATE - HASTE)))


class Frame:
    """Candles of one pair on a complete grid, with their features and usable windows."""

    def __init__(self, candles: Candles, settings: Settings) -> None:
        self.candles = candles.on_grid()
        self.features = compute_features(self.candles, order_flow=settings.order_flow)
        self.usable = usable_windows(self.features.known, self.candles.sound(), settings.lookback)

    def rows_of(self, date_ms: Ints) -> Ints:
        """Row of each open time; all must be on the grid."""
        return np.searchsorted(self.candles.date_ms, date_ms)


@dataclass(frozen=True)
class Terms:
    """What turns a forecast into a decision besides the forecast.

    Attributes
    ----------
    fee_fraction : exchange fee of one side, where no pair has one of its own
    can_short : short entries are allowed
    own_fee : the fee of one side of a pair
    funding : what a long position is expected to pay over the horizon after candles of a pair that
        opened then (N,): (N,) fractions of the position, below zero what it gets. None: spot
    """

    settings: Settings
    fee_fraction: float
    can_short: bool
    own_fee: Callable[[str], float] | None = None
    funding: Callable[[str, Ints], Floats] | None = None

    def fee_of(self, pair: str) -> float:
        """Exchange fee of one side, fraction of the position."""
        return self.own_fee(pair) if self.own_fee else self.fee_fraction

    def funding_of(self, pair: str, date_ms: Ints) -> Floats:
        """(N,) expected funding of a long position; zeros on spot."""
        return self.funding(pair, date_ms) if self.funding else np.zeros(len(date_ms))


class Outlook:
    """Forecast and decision for N candles; empty until filled.

    Parameters
    ----------
    date_ms : (N,) int64, open times, rising
    """

    def __init__(self, pair: str, date_ms: Ints, terms: Terms) -> None:
        count = len(date_ms)
        self.pair, self.date_ms, self.terms = pair, date_ms, terms
        self.forecast = Forecast.nothing(terms.settings.levels, count)
        self.version: NDArray[np.object_] = np.full(count, "", dtype=object)
        self.gate = np.full(count, NO_MODEL, dtype=Code)
        self.trust, self.usual_width = np.zeros(count), np.full(count, np.nan)

    def fill(self, model: Model, frame: Frame, rows: Ints) -> None:
        """Let `model` forecast the candles numbered `rows` (M,); unusable windows stay NaN."""
        self.admit(model, rows)
        ends = frame.rows_of(self.date_ms[rows])
        usable = frame.usable[ends]
        rows, ends = rows[usable], ends[usable]
        made = model.forecast(self.pair, frame.features.rows, frame.features.volatility, ends)
        self.put(rows, made)

    def put(self, rows: Ints, made: Forecast) -> None:
        """Take over forecasts made elsewhere for the candles numbered `rows`."""
        self.forecast.put(rows, made)

    def admit(self, model: Model, rows: Ints) -> None:
        """Say that `model` is in force for the candles numbered `rows`, and what that allows."""
        labels = model.calibration.widths_of(self.pair).labels
        horizon = self.terms.settings.horizon
        skilled = model.is_skilled(self.terms.settings)
        calibrated = labels >= HASTE * horizon
        self.version[rows] = model.card.version
        self.gate[rows] = CALIBRATING if not calibrated else "" if skilled else NO_SKILL
        self.trust[rows] = trust(labels, horizon)
        self.usual_width[rows] = model.calibration.usual_widths.get(self.pair, math.nan)

    def credit(
        self, rows: Ints, versions: NDArray[np.object_], skilled: Mapping[str, bool]
    ) -> None:
        """Say which other versions (M,) had made the forecasts of rows (M,), and which by skill."""
        self.version[rows] = versions
        said = self.gate[rows]
        rows, versions = (array[(said == "") | (said == NO_SKILL)] for array in (rows, versions))
        for version, proven in skilled.items():
            self.gate[rows[versions == version]] = "" if proven else NO_SKILL

    @cached_property
    def funding(self) -> Floats:
        """(N,) what a long position is expected to pay over the horizon, fraction of it."""
        return self.terms.funding_of(self.pair, self.date_ms)

    @cached_property
    def decision(self) -> Decision:
        """Side, edge and reason per candle; computed once, after everything was filled."""
        terms = self.terms
        unknown = np.isnan(self.forecast.mean) & ~np.isin(self.gate, (NO_MODEL, ERROR))
        gate = np.where(unknown, NO_DATA, self.gate)
        return decide(
            self.forecast, gate, self.trust, terms.fee_of(self.pair), terms.settings,
            can_short=terms.can_short, funding=self.funding,
        )  # fmt: skip

    def columns(self, close: Floats, step_ms: int) -> dict[str, NDArray[Any]]:
        """Dataframe columns; returns as fractions, prices for charts.

        Parameters
        ----------
        close : (N,) what the forecasts are made from
        step_ms : length of a candle
        """
        forecast, decision = self.forecast, self.decision
        returns = {name: getattr(forecast, name) for name in _RETURNS}
        prices = {
            f"price_{name}".removesuffix("_mean"): _price(close, returns[name])
            for name in ("mean", "low", "high", "lowest", "highest")
        }
        due = self._due(step_ms)
        columns = {
            **returns,
            **prices,
            "due_low": due(prices["price_low"]),
            "due_high": due(prices["price_high"]),
            "close": close,
            **dict(zip(FAR_NAMES, forecast.far.T, strict=True)),
            "width": forecast.width,
            "usual_width": self.usual_width,
            "volatility": forecast.volatility,
            **({"funding": self.funding} if self.terms.funding else {}),
            "edge": decision.edge,
            "kelly": decision.kelly,
            "side": decision.side,
            "trust": self.trust,
            "gate": decision.gate.astype(object),
            "gate_open": (decision.gate == "").astype(np.float64),
            "reason": decision.reason.astype(object),
            "version": self.version,
        }
        return {f"lstm_{name}": column for name, column in columns.items()}

    def _due(self, step_ms: int) -> Callable[[Floats], Floats]:
        """Moves what was said (N,) to the candles it was said of, `horizon` later, by their time.

        NaN where no candle is so much older.
        """
        made_ms = self.date_ms - self.terms.settings.horizon * step_ms
        place = np.minimum(np.searchsorted(self.date_ms, made_ms), len(made_ms) - 1)
        known = self.date_ms[place] == made_ms
        return lambda said: np.where(known, said[place], np.nan)

    def line(self, row: int) -> str:
        """One candle in words, for the log."""
        opened = np.datetime64(int(self.date_ms[row]), "ms").astype("datetime64[m]")
        forecast, decision = self.forecast, self.decision
        if np.isnan(forecast.mean[row]):
            return f"{self.pair} {opened}Z: {decision.reason[row]}"
        mean, low, high = (1e4 * x[row] for x in (forecast.mean, forecast.low, forecast.high))
        paid = self.funding[row]
        funding = f", of which funding {-1e4 * decision.leaning[row] * paid:+.1f}" if paid else ""
        return (
            f"{self.pair} {opened}Z: next {self.terms.settings.horizon} candles {mean:+.1f} bps, "
            f"{forecast.interval_level:.0%} in [{low:+.1f}, {high:+.1f}], edge after costs "
            f"{1e4 * decision.edge[row]:+.1f} bps{funding} -> {decision.reason[row]}"
        )


def _price(close: Floats, log_return: Floats) -> Floats:
    """(N,) the price after a log return; NaN where it is none any more."""
    with np.errstate(over="ignore"):
        price = close * np.exp(log_return)
    return np.where(np.isfinite(price), price, np.nan)
