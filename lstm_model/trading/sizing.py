"""From a forecast to a decision: side, edge, Kelly's fraction, and the reason, for every candle.

The expected return must exceed what entering and leaving cost. What the edge is worth follows from
the width of the calibrated interval and from how well the mean itself is known. The stake in money
is `lstm_model.trading.stake`'s. Anything that is not a finite number: no entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lstm_model.market.candles import Floats, Ints
from lstm_model.model.forecast import Forecast
from lstm_model.settings import Settings

Codes = NDArray[np.str_]

ENTER_LONG = "enter_long"
ENTER_SHORT = "enter_short"
NO_MODEL = "no_model"
NO_DATA = "no_data"
NO_SKILL = "no_skill"
NO_EDGE = "no_edge"
STALE_MODEL = "stale_model"
STALE_STREAM = "stale_stream"
CALIBRATING = "calibrating"
TOO_SMALL = "too_small"
STOP_NEAR = "stop_near"
NO_MOVE = "no_move"
UNKNOWN_ORDER = "unknown_order"
UNKNOWN_ACCOUNT = "unknown_account"
REFUSED = "refused"
ERROR = "error"
OF_ORDERS = (UNKNOWN_ORDER, UNKNOWN_ACCOUNT, REFUSED)  # in no column: known as an order is sent

REASONS: dict[str, str] = {
    ENTER_LONG: "the price is expected to rise by more than the costs",
    ENTER_SHORT: "the price is expected to fall by more than the costs",
    NO_MODEL: "no model has been trained yet",
    NO_DATA: "too few sound candles for a forecast: warming up, or candles are missing",
    NO_SKILL: "the model has not proven that it forecasts better than chance",
    NO_EDGE: "the expected return does not exceed the costs and the least edge asked for",
    STALE_MODEL: "the model has not been checked for too long",
    STALE_STREAM: "the stream of trades is silent or has holes",
    CALIBRATING: "too few forecasts have come true to know how wide the intervals must be",
    TOO_SMALL: "the stake that is left is below the exchange's minimum",
    STOP_NEAR: "the entry price is at its stop, beyond it, or within two ticks of it",
    NO_MOVE: "the forecast interval is too narrow for a move that would pay the costs",
    UNKNOWN_ORDER: "an order's fate is not known, or the account holds what no trade explains",
    UNKNOWN_ACCOUNT: "the exchange does not say what the account holds",
    REFUSED: "the exchange has taken no order of this pair; it is asked ever more seldom",
    ERROR: "something failed, see the log; the safe answer is no trade",
}


@dataclass(frozen=True)
class Decision:
    """What to do, for N candles.

    Attributes
    ----------
    side : (N,) int64; 1 long, -1 short, 0 no entry
    leaning : (N,) int64; 1 or -1, the side that edge and Kelly's fraction are of; 0 where a gate
        forbids an entry whatever the edge. Who asks for another least edge starts from here
    edge : (N,) float64, expected return net of costs, fraction of the position
    edge_error : (N,) float64, its standard error
    kelly : (N,) float64 >= 0, full Kelly position as a fraction of wealth, after Baker & McHale;
        0 without an edge, and where anything is not finite
    gate : (N,) str, the code that forbids an entry whatever the edge, or ""
    reason : (N,) str, one of `REASONS`
    """

    side: Ints
    leaning: Ints
    edge: Floats
    edge_error: Floats
    kelly: Floats
    gate: Codes
    reason: Codes


def round_trip_cost(fee_fraction: float, settings: Settings) -> float:
    """Fees, slippage and half spreads of entry and exit, as a fraction of the position.

    Examples
    --------
    >>> round(round_trip_cost(0.001, Settings()), 6)
    0.0032
    """
    return 2.0 * (fee_fraction + settings.slippage_fraction + settings.half_spread_fraction)


def net_edge(
    mean: Floats, direction: Ints, fee_fraction: float, settings: Settings,
    funding: Floats | float = 0.0,
) -> Floats:  # fmt: skip
    """(N,) expected return net of the round trip and of funding, fraction of the position.

    `mean` (N,) log return; `direction` (N,) 1 for long, -1 for short; `funding` (N,) what a long
    position is expected to pay, and a short one to get.
    """
    with np.errstate(over="ignore"):
        gross = direction * np.expm1(mean) - round_trip_cost(fee_fraction, settings)
        return np.asarray(gross - direction * funding)


def baker_mchale_factor(edge: Floats, edge_error: Floats) -> Floats:
    """(N,) share, 0 to 1, of Kelly's fraction that is best when the edge is an estimate.

    With the true edge e, its estimate of standard error d and the variance v of the return, a share
    k of the estimated fraction makes wealth grow by k e^2 / v - k^2 (e^2 + d^2) / (2 v), to second
    order and on average over estimates. That is most at k = e^2 / (e^2 + d^2), where the estimate
    must stand for the true edge.

    Parameters
    ----------
    edge : (N,) float64, expected return of the bet; without one (<= 0, NaN) the factor is 0
    edge_error : (N,) float64, its standard error; infinite or NaN makes the factor 0

    References
    ----------
    Baker & McHale (2013), Optimal Betting Under Parameter Uncertainty: Improving the Kelly
    Criterion, Decision Analysis 10(3): their approximate factor, there for a bet at odds b with
    win probability p, of which the edge is (b + 1) p - 1 and its error (b + 1) times that of p.

    Examples
    --------
    >>> baker_mchale_factor(np.array([0.01, 0.01, -0.01]), np.array([0.0, 0.01, 0.0]))
    array([1. , 0.5, 0. ])
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = 1.0 / (1.0 + (edge_error / edge) ** 2)
    return np.where((edge > 0.0) & np.isfinite(edge) & np.isfinite(edge_error), factor, 0.0)


def kelly_of(edge: Floats, edge_error: Floats, deviation: Floats) -> Floats:
    """(N,) position, as a fraction of wealth, that makes wealth grow fastest; never below 0.

    Kelly's (1956) criterion for a small return with mean e and standard deviation s is e / s^2
    (Thorp 2006, The Kelly Criterion in Blackjack, Sports Betting and the Stock Market), times the
    factor of Baker & McHale (2013). 0 where anything is not finite or the deviation is not above 0.

    Parameters
    ----------
    edge, edge_error, deviation : (N,) float64, fractions of the position

    Examples
    --------
    >>> kelly_of(np.array([0.01, 0.01, -0.01]), np.array([0.0, 0.01, 0.0]), np.full(3, 0.2))
    array([0.25 , 0.125, 0.   ])
    """
    with np.errstate(all="ignore"):
        kelly = baker_mchale_factor(edge, edge_error) * edge / deviation**2
    sound = (edge > 0.0) & (deviation > 0.0) & np.isfinite(kelly)
    return np.where(sound, kelly, 0.0)


def reasons(gate: Codes, leaning: Ints, edge: Floats, min_edge: float) -> Codes:
    """(N,) the code of each candle: why there is an entry, or why there is none.

    Parameters
    ----------
    gate : (N,) str, as in `Decision`
    leaning : (N,) int64, as in `Decision`
    edge : (N,) float64, as in `Decision`
    min_edge : an entry's edge must exceed it; below 0 it counts as 0, NaN lets nothing in

    Examples
    --------
    >>> reasons(np.array(["", "", "no_skill"]), np.array([1, -1, 0]), np.full(3, 0.01), 0.002)
    array(['enter_long', 'enter_short', 'no_skill'], dtype='<U12')
    >>> reasons(np.array([""]), np.array([1]), np.array([0.001]), 0.002)
    array(['no_edge'], dtype='<U12')
    """
    enough = edge > np.maximum(min_edge, 0.0)
    reason = np.where(leaning > 0, ENTER_LONG, ENTER_SHORT).astype("U12")
    reason[~enough] = NO_EDGE
    reason[leaning == 0] = NO_DATA
    return np.where(gate != "", gate, reason).astype("U12", copy=False)


def decide(  # noqa: PLR0913 - each of them moves the edge or forbids an entry
    forecast: Forecast, gate: Codes, trust: Floats, fee_fraction: float, settings: Settings,
    *, can_short: bool, min_edge: float | None = None, funding: Floats | float = 0.0,
) -> Decision:  # fmt: skip
    """Decide for every candle on its own forecast alone.

    Parameters
    ----------
    gate : (N,) str, the code that forbids an entry, or "" where the forecast may lead to one
    trust : (N,) float64, 0 to 1, share of a stake that the state of calibration allows; none: no
        entry. It leaves `Decision.kelly` as it is: the stake is multiplied by it
    fee_fraction : of one side
    min_edge : in place of the setting
    funding : (N,) what a long position is expected to pay over the horizon, and a short one to get.
        It moves the edge of the side that the mean is on; for funding alone no side is entered

    Examples
    --------
    45 bps expected, with a standard error of 40, and 32 bps of costs:

    >>> from lstm_model.model.forecast import unknown_far
    >>> ends = np.array([[-0.015, 0.004, 0.021]])
    >>> columns = (np.array([number]) for number in (0.0045, 0.003, 0.004, -0.016, 0.02))
    >>> forecast = Forecast((0.05, 0.5, 0.95), ends, *columns, far=unknown_far(1))
    >>> made = decide(forecast, np.array([""]), np.ones(1), 0.001, Settings(), can_short=False)
    >>> made.reason[0], made.side[0], made.edge.round(5), made.kelly.round(2)
    (np.str_('enter_long'), np.int64(1), array([0.00131]), array([1.05]))
    """
    direction = np.where(forecast.mean < 0.0, -1 if can_short else 1, 1)
    edge = net_edge(forecast.mean, direction, fee_fraction, settings, funding)
    edge_error, deviation = _edge_error(forecast), _deviation(forecast)
    needed = (forecast.mean, edge, edge_error, deviation, forecast.lowest, forecast.highest)
    sound = np.isfinite(needed).all(0) & (deviation > 0.0)
    closed = _gate(gate, sound, trust)
    leaning = np.where(closed == "", direction, 0)
    least = settings.min_edge if min_edge is None else min_edge
    reason = reasons(closed, leaning, edge, least)
    return Decision(
        side=np.where((reason == ENTER_LONG) | (reason == ENTER_SHORT), leaning, 0),
        leaning=leaning,
        edge=edge,
        edge_error=edge_error,
        kelly=kelly_of(edge, edge_error, deviation),
        gate=closed,
        reason=reason,
    )


def _edge_error(forecast: Forecast) -> Floats:
    """(N,) standard error of expm1(mean), to first order; NaN for an error below 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.exp(forecast.mean) * forecast.mean_error
    return np.where(error >= 0.0, error, np.nan)


def _deviation(forecast: Forecast) -> Floats:
    """(N,) standard deviation of the return; NaN where no finite interval says."""
    with np.errstate(invalid="ignore"):
        deviation = forecast.deviation
    return np.where(np.isfinite(deviation), deviation, np.nan)


def _gate(gate: Codes, sound: NDArray[np.bool_], trust: Floats) -> Codes:
    """(N,) the first code that forbids an entry."""
    closed = np.where(trust > 0.0, "", CALIBRATING).astype("U12")
    closed[~sound] = NO_DATA
    return np.where(gate != "", gate, closed).astype("U12", copy=False)
