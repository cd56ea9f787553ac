"""What the strategy gets: a forecast and a decision for every candle of one pair.

Shapes: N candles, K quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_model.config import Settings
from lstm_model.dataset import usable_windows
from lstm_model.features import compute_features
from lstm_model.forecast import Forecast
from lstm_model.market import Candles, Ints
from lstm_model.model import Model
from lstm_model.sizing import NO_MODEL, Decision, decide


class Frame:
    """Candles of one pair on a complete grid, with their features and usable windows."""

    def __init__(self, candles: Candles, settings: Settings) -> None:
        self.candles = candles.on_grid()
        self.features = compute_features(self.candles, order_flow=settings.order_flow)
        self.usable = usable_windows(self.features, self.candles.sound(), settings.lookback)

    def rows_of(self, date_ms: Ints) -> Ints:
        """Row of each open time; all must be on the grid."""
        return np.searchsorted(self.candles.date_ms, date_ms)


@dataclass(frozen=True)
class Terms:
    """What turns a forecast into a decision besides the forecast.

    Attributes
    ----------
    fee_fraction : exchange fee of one side
    can_short : short entries are allowed
    """

    settings: Settings
    fee_fraction: float
    can_short: bool


class Outlook:
    """Forecast and decision for N candles; empty until filled.

    Parameters
    ----------
    date_ms : (N,) int64, open times, rising
    """

    def __init__(self, pair: str, date_ms: Ints, terms: Terms) -> None:
        count, levels = len(date_ms), terms.settings.levels
        self.pair, self.date_ms, self.terms = pair, date_ms, terms
        self.forecast = Forecast(
            levels,
            np.full((count, len(levels)), np.nan),
            np.full(count, np.nan),
            np.full(count, np.nan),
        )
        self.version: NDArray[np.object_] = np.full(count, "", dtype=object)
        self._skilled = np.zeros(count, dtype=np.bool_)

    def fill(self, model: Model, frame: Frame, rows: Ints) -> None:
        """Let `model` forecast the candles numbered `rows` (M,); unusable windows stay NaN."""
        self.version[rows] = model.card.version
        self._skilled[rows] = model.is_skilled(self.terms.settings)
        ends = frame.rows_of(self.date_ms[rows])
        usable = frame.usable[ends]
        rows, ends = rows[usable], ends[usable]
        made = model.forecast(self.pair, frame.features.rows, frame.features.volatility, ends)
        self.put(rows, made)

    def put(self, rows: Ints, made: Forecast) -> None:
        """Take over forecasts made elsewhere for the candles numbered `rows`."""
        self.forecast.quantiles[rows] = made.quantiles
        self.forecast.mean[rows] = made.mean
        self.forecast.volatility[rows] = made.volatility

    def credit(
        self, rows: Sequence[int], versions: Sequence[str], is_skilled: Callable[[str], bool]
    ) -> None:
        """Say which versions made the forecasts of `rows`."""
        self.version[list(rows)] = versions
        skilled = {version: is_skilled(version) for version in set(versions)}
        self._skilled[list(rows)] = [skilled[version] for version in versions]

    @cached_property
    def decision(self) -> Decision:
        """Side, stake and reason per candle; computed once, after everything was filled."""
        terms = self.terms
        made = decide(
            self.forecast,
            self._skilled,
            terms.fee_fraction,
            terms.settings,
            can_short=terms.can_short,
        )
        made.reason[self.version == ""] = NO_MODEL
        return made

    def columns(self, close: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Dataframe columns; returns as fractions, prices for charts (`close` (N,))."""
        forecast, decision = self.forecast, self.decision
        return {
            "lstm_mean": forecast.mean,
            "lstm_low": forecast.low,
            "lstm_high": forecast.high,
            "lstm_volatility": forecast.volatility,
            "lstm_price": close * np.exp(forecast.mean),
            "lstm_price_low": close * np.exp(forecast.low),
            "lstm_price_high": close * np.exp(forecast.high),
            "lstm_edge": decision.edge,
            "lstm_stake_fraction": decision.stake_fraction,
            "lstm_side": decision.side,
            "lstm_reason": decision.reason.astype(object),
        }

    def line(self, row: int) -> str:
        """One candle in words, for the log."""
        opened = np.datetime64(int(self.date_ms[row]), "ms").astype("datetime64[m]")
        forecast, decision = self.forecast, self.decision
        if np.isnan(forecast.mean[row]):
            return f"{self.pair} {opened}Z: {decision.reason[row]}"
        mean, low, high = (1e4 * x[row] for x in (forecast.mean, forecast.low, forecast.high))
        return (
            f"{self.pair} {opened}Z: next {self.terms.settings.horizon} candles {mean:+.1f} bps, "
            f"{forecast.interval_level:.0%} in [{low:+.1f}, {high:+.1f}], edge after costs "
            f"{1e4 * decision.edge[row]:+.1f} bps -> {decision.reason[row]}"
        )
