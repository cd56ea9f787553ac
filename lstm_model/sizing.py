"""From a forecast to a decision: side, stake, and the reason, for every candle.

A simple rule: the expected return must exceed the round trip's fees and slippage; the stake is a
share of Kelly's (1956), capped by freqtrade's own stake. No forecast or no proven skill: no trade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lstm_model.config import Settings
from lstm_model.forecast import Forecast
from lstm_model.market import Floats

NO_MODEL = "no model yet"
NO_FORECAST = "no forecast: too few sound candles"
NO_SKILL = "no proven skill"
NO_EDGE = "edge below costs"
ENTER_LONG = "enter long"
ENTER_SHORT = "enter short"


@dataclass(frozen=True)
class Decision:
    """What to do, for N candles.

    Attributes
    ----------
    side : (N,) int64; 1 long, -1 short, 0 no entry
    edge : (N,) float64, expected return of the better side net of costs, fraction of the stake
    stake_fraction : (N,) float64 in [0, 1], of freqtrade's own stake
    reason : (N,) str
    """

    side: NDArray[np.int64]
    edge: Floats
    stake_fraction: Floats
    reason: NDArray[np.str_]


def round_trip_cost(fee_fraction: float, settings: Settings) -> float:
    """Fees and slippage of entry and exit, as a fraction of the stake."""
    return 2.0 * (fee_fraction + settings.slippage_fraction)


def net_edge(
    mean: Floats, direction: NDArray[np.int64], fee_fraction: float, settings: Settings
) -> Floats:
    """(N,) expected return net of the round trip, fraction of the stake.

    `mean` (N,) log return; `direction` (N,) 1 for long, -1 for short.
    """
    return np.asarray(direction * np.expm1(mean) - round_trip_cost(fee_fraction, settings))


def decide(
    forecast: Forecast, skilled: NDArray[np.bool_], fee_fraction: float, settings: Settings,
    *, can_short: bool,
) -> Decision:  # fmt: skip
    """Decide for every candle on its own forecast alone.

    Parameters
    ----------
    skilled : (N,) bool, the model in force has proven skill (or none is required)
    fee_fraction : of one side
    """
    direction = np.where(forecast.mean < 0.0, -1 if can_short else 1, 1)
    edge = net_edge(forecast.mean, direction, fee_fraction, settings)
    known = np.isfinite(forecast.mean) & np.isfinite(edge)
    enter = known & skilled & (np.nan_to_num(edge) > 0.0)
    side = np.where(enter, direction, 0)
    return Decision(
        side, edge, _stake_fraction(forecast, edge, enter, settings), _reason(known, skilled, side)
    )


def _stake_fraction(
    forecast: Forecast, edge: Floats, enter: NDArray[np.bool_], settings: Settings
) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        kelly = settings.kelly_fraction * edge / forecast.deviation**2
    return np.where(enter, np.clip(kelly, 0.0, settings.max_stake_fraction), 0.0)


def _reason(
    known: NDArray[np.bool_], skilled: NDArray[np.bool_], side: NDArray[np.int64]
) -> NDArray[np.str_]:
    cases = [~known, ~skilled, side > 0, side < 0]
    return np.select(cases, [NO_FORECAST, NO_SKILL, ENTER_LONG, ENTER_SHORT], NO_EDGE)
