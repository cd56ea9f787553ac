"""One entry's stake and stop: pure arithmetic, the same live and in backtests.

The stake is the smallest of several bounds, each of which a trader can name; the stop follows the
adverse excursion that most horizons stay within. What is not a finite number gives no stake and no
stop of ours.

Examples
--------
The next hour is expected to bring 45 bps, give or take 40; 90 % of hours stay between -150 and 210,
and 95 % never fall by more than 160. The fee is 0.1 % per side:

>>> import numpy as np
>>> from lstm_model.model.forecast import Forecast, unknown_far
>>> from lstm_model.trading.sizing import baker_mchale_factor, decide
>>> from lstm_model.trading.stop import stop_distance, stop_price
>>> ends = np.array([[-0.015, 0.004, 0.021]])
>>> columns = (np.array([number]) for number in (0.0045, 0.003, 0.004, -0.016, 0.02))
>>> forecast, terms = Forecast((0.05, 0.5, 0.95), ends, *columns, far=unknown_far(1)), Settings()
>>> made = decide(forecast, np.array([""]), np.ones(1), 0.001, terms, can_short=False)
>>> (1e4 * made.edge).round(1), baker_mchale_factor(made.edge, made.edge_error).round(3)
(array([13.1]), array([0.096]))
>>> kelly = float(made.kelly[0])  # 0.096 x 0.00131 / 0.01094^2
>>> round(kelly, 2)
1.05
>>> stop = stop_price(100.0, -0.016, terms.stop_multiple, 1, 0.05)
>>> round(stop, 2)
98.41

Of a wallet of 1000, 200 are in a pair correlated 0.8; freqtrade would stake 330, 10 at least:

>>> request = Request(
...     proposed=330.0, wealth=1000.0, free=790.0, least=10.0,
...     stop_distance=stop_distance(100.0, stop, 1), kelly=kelly, trust=0.9, coverage=1.0,
...     side=1, leverage=1.0, holdings=(Holding("ETH/USDT", 200.0, 1, 0.8),), beyond=0.0032,
... )
>>> stake_of(request, terms).text
"236.557: 0.25 of Kelly's 1.051 x the wallet = 262.842, x trust 0.9"
>>> stake_of(request, terms, kelly_fraction=1.0).text  # then freqtrade's own stake is the least
"297: 1 of freqtrade's own stake = 330, x trust 0.9"
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lstm_model.errors import DataError
from lstm_model.market.candles import Floats
from lstm_model.settings import Settings
from lstm_model.trading.sizing import CALIBRATING, ERROR, NO_EDGE, STALE_STREAM, TOO_SMALL

# The bounds by name, as `/list_custom_data` has them with a trade.
KELLY, RISK, PORTFOLIO = "Kelly", "risk at the stop", "all positions together"
OWN, LEAST, FREE = "freqtrade's own stake", "the exchange's least", "what is free"
ENOUGH_COMMON = 50  # chosen: the standard error of a correlation of zero is then 0.14
_LEAST, _MOST = sys.float_info.min, sys.float_info.max


@dataclass(frozen=True)
class Holding:
    """A position that is open already.

    Attributes
    ----------
    position : stake times leverage, stake currency
    side : 1 long, -1 short
    correlation : of its returns with the candidate's, -1 to 1; NaN: unknown, counts in full
    """

    pair: str
    position: float
    side: int
    correlation: float


@dataclass(frozen=True)
class Request:
    """What is known when freqtrade asks for the stake of an entry; money in stake currency.

    Attributes
    ----------
    proposed : freqtrade's own stake
    wealth : the whole wallet, open positions included
    free : most that may be staked now
    least : smallest stake that the exchange takes, 0 for none
    stop_distance : fraction of the price, above 0, at which the position is stopped
    kelly : full Kelly position as a fraction of wealth, or None for an entry that is not the
        forecast's and is bounded by its risk alone
    trust : 0 to 1, share of a stake that the state of calibration allows
    coverage : 0 to 1, share of the recent trades that are known
    side : 1 long, -1 short
    leverage : position over stake, at least 1
    holdings : open positions, this one not among them
    beyond : fraction of the price that is lost beyond the stop: costs, and the gap until it is sold
    parts : equal stakes that the position may come to hold, this being one of them
    steady : share of the proposed stake that its forecast width leaves, see `steadied`
    held : of the proposed stake what the position holds already
    least_anyway : whether risk alone may not refuse it: its stake is then the exchange's least
    sunk : what that loses at the stop beyond what as much would that is entered now, unleveraged;
        below 0 where it loses less
    """

    proposed: float
    wealth: float
    free: float
    least: float
    stop_distance: float
    kelly: float | None
    trust: float
    coverage: float
    side: int
    leverage: float
    holdings: tuple[Holding, ...]
    beyond: float = 0.0
    parts: int = 1
    steady: float = 1.0
    held: float = 0.0
    sunk: float = 0.0
    least_anyway: bool = False


@dataclass(frozen=True)
class Stake:
    """The answer.

    Attributes
    ----------
    amount : 0.0, or at least `Request.least` and above 0
    reason : "" with a stake, else a code of `sizing.REASONS`
    text : which bound decided, in words with numbers
    bound : its name; "" without a stake
    """

    amount: float
    reason: str
    text: str
    bound: str = ""


class Bound(NamedTuple):
    """A limit of the stake."""

    name: str
    amount: float
    text: str
    reason: str  # of no entry where the limit is 0


def stake_of(request: Request, settings: Settings, *, kelly_fraction: float | None = None) -> Stake:
    """The smallest bound, times trust and coverage, from the exchange's minimum to what is free.

    Parameters
    ----------
    kelly_fraction : in place of the setting

    Notes
    -----
    Bounds: freqtrade's stake x `max_stake_fraction`; Kelly's position (1956) x `kelly_fraction`;
    the stake that loses `risk_fraction` of the wallet at its stop, costs and gaps left out; and
    what `max_portfolio_fraction` leaves free, where others count by their correlation on the same
    side and a hedge frees nothing. Kelly's and the risk's are positions: with leverage the stake is
    so much smaller.

    Examples
    --------
    One of a strategy of the user's own, by its risk: 1 % of 1000 are lost at a stop 4 % away.

    >>> request = Request(300.0, 1000.0, 990.0, 10.0, 0.04, None, 1.0, 1.0, 1, 1.0, ())
    >>> stake_of(request, Settings()).text
    '250: 0.01 of the wallet lost at a stop 0.04 of the price away = 250'
    """
    share = settings.kelly_fraction if kelly_fraction is None else kelly_fraction
    if wrong := _wrong(request, share):
        return Stake(0.0, ERROR, f"0: {wrong}")
    bound = min(_bounds(request, settings, share), key=lambda each: each.amount)
    bound = _scaled(bound, request.trust, "trust", CALIBRATING)
    bound = _scaled(bound, request.coverage, "coverage", STALE_STREAM)
    if request.free < bound.amount:
        bound = Bound(FREE, request.free, FREE, TOO_SMALL)
    return _final(bound, request.least)


def _wrong(request: Request, share: float) -> str:
    """What cannot be, or ""."""
    allowed = (
        ("proposed", request.proposed, 0.0, _MOST),
        ("wealth", request.wealth, 0.0, _MOST),
        ("free", request.free, 0.0, math.inf),
        ("least", request.least, 0.0, _MOST),
        ("stop_distance", request.stop_distance, _LEAST, _MOST),
        ("kelly", 0.0 if request.kelly is None else request.kelly, 0.0, _MOST),
        ("trust", request.trust, 0.0, 1.0),
        ("coverage", request.coverage, 0.0, 1.0),
        ("leverage", request.leverage, 1.0, _MOST),
        ("beyond", request.beyond, 0.0, _MOST),
        ("parts", request.parts, 1, _MOST),
        ("steady", request.steady, 0.0, 1.0),
        ("held", request.held, 0.0, _MOST),
        ("sunk", request.sunk, -_MOST, _MOST),
        ("kelly_fraction", share, 0.0, 1.0),
        *((f"the position in {held.pair}", held.position, 0.0, _MOST) for held in request.holdings),
    )
    for name, found, low, high in allowed:
        if not low <= found <= high:
            return f"{name} must be between {low:g} and {high:g}, found {found}"
    sides = {request.side, *(held.side for held in request.holdings)}
    return "" if sides <= {1, -1} else f"a side must be 1 or -1, found {sorted(sides)}"


def _bounds(request: Request, settings: Settings, share: float) -> list[Bound]:
    bounds = [_own(request, settings), _risk(request, settings), _portfolio(request, settings)]
    if request.kelly is not None:  # first: it decides when several are equal
        bounds.insert(0, _kelly(request, request.kelly, share))
    return bounds


def _kelly(request: Request, kelly: float, share: float) -> Bound:
    amount = request.wealth * kelly * share / request.leverage
    text = f"{share:g} of Kelly's {kelly:.4g} x the wallet{_geared(request)}"
    reason = NO_EDGE if kelly == 0.0 else TOO_SMALL
    return Bound(KELLY, amount, f"{text} = {amount:.6g}", reason)


def _own(request: Request, settings: Settings) -> Bound:
    share = min(settings.max_stake_fraction, request.steady)
    amount = request.held + (request.proposed - request.held) * share
    return Bound(OWN, amount, f"{share:.3g} of {OWN} = {amount:.6g}", TOO_SMALL)


def _risk(request: Request, settings: Settings) -> Bound:
    lost = request.stop_distance + request.beyond
    amount = request.wealth * settings.risk_fraction / (lost * request.leverage) / request.parts
    amount = max(0.0, amount - request.sunk / lost)
    if request.least_anyway and amount < request.least:
        text = (
            f"{LEAST}, {request.least:.6g}, which at a stop "
            f"{request.stop_distance:.3g} of the price away is more than {settings.risk_fraction:g}"
            " of the wallet"
        )
        return Bound(LEAST, request.least, text, TOO_SMALL)
    text = (
        f"{settings.risk_fraction:.3g} of the wallet lost at a stop {request.stop_distance:.3g} of "
        f"the price away{_and_beyond(request)}{_geared(request)}{_in_parts(request)}"
        f"{_and_sunk(request)} = {amount:.6g}"
    )
    return Bound(RISK, amount, text, TOO_SMALL)


def _portfolio(request: Request, settings: Settings) -> Bound:
    taken = sum(held.position * _overlap(held, request.side) for held in request.holdings)
    room = max(0.0, request.wealth * settings.max_portfolio_fraction - taken)
    amount = room / request.leverage / request.parts
    text = (
        f"{settings.max_portfolio_fraction:g} of the wallet for all positions, less {taken:.6g} "
        f"in correlated pairs{_geared(request)}{_in_parts(request)} = {amount:.6g}"
    )
    return Bound(PORTFOLIO, amount, text, TOO_SMALL)


def _overlap(held: Holding, side: int) -> float:
    """Share, 0 to 1, of a holding that is the same bet as the candidate."""
    if not math.isfinite(held.correlation):
        return 1.0
    return min(max(held.correlation * held.side * side, 0.0), 1.0)


def _geared(request: Request) -> str:
    return "" if request.leverage == 1.0 else f" at leverage {request.leverage:g}"


def _and_beyond(request: Request) -> str:
    return f" and {request.beyond:.3g} beyond it" if request.beyond else ""


def _and_sunk(request: Request) -> str:
    return ", with what was entered at another price" if request.sunk else ""


def _in_parts(request: Request) -> str:
    return f", in {request.parts} parts" if request.parts > 1 else ""


def steadied(usual: float, width: float) -> float:
    """Share of a stake that equal risk per trade leaves: usual over forecast width, at most 1.

    Parameters
    ----------
    usual, width : widths of the interval, log return; where one is not known the share is 1

    Examples
    --------
    >>> steadied(0.02, 0.04), steadied(0.02, 0.01), steadied(float("nan"), 0.01)
    (0.5, 1.0, 1.0)
    """
    known = math.isfinite(usual) and math.isfinite(width) and usual > 0.0 and width > 0.0
    return min(1.0, usual / width) if known else 1.0


def _scaled(bound: Bound, scale: float, name: str, reason: str) -> Bound:
    """A bound that was 0 before stays with its own reason."""
    if scale == 1.0 or bound.amount == 0.0:
        return bound
    text = f"{bound.text}, x {name} {scale:.3g}"
    kept = reason if scale == 0.0 else bound.reason
    return Bound(bound.name, bound.amount * scale, text, kept)


def _final(bound: Bound, least: float) -> Stake:
    if bound.amount <= 0.0:
        return Stake(0.0, bound.reason, f"0: {bound.text}")
    if bound.amount < least:
        told = f"{bound.amount:.6g} is below the exchange's minimum {least:.6g}"
        return Stake(0.0, TOO_SMALL, f"0: {told} ({bound.text})")
    return Stake(bound.amount, "", f"{bound.amount:.6g}: {bound.text}", bound.name)


def correlations(
    returns: Mapping[str, Floats], pair: str, others: Collection[str]
) -> dict[str, float]:
    """Correlation of a pair's log returns with those of others, over the candles both have.

    Parameters
    ----------
    returns : (T,) float64 per pair, on the same T candles; NaN where a candle is missing
    pair, others : a pair that `returns` lacks counts as unknown

    Returns
    -------
    One number in [-1, 1] per pair in `others`; NaN with fewer than `ENOUGH_COMMON` common candles
    and where one of the two does not move.

    Raises
    ------
    DataError
        The arrays are not on the same candles.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=100)
    >>> found = correlations({"A": noise, "B": 2.0 * noise, "C": -noise}, "A", ["B", "C", "D"])
    >>> {name: round(number, 6) for name, number in found.items()}
    {'B': 1.0, 'C': -1.0, 'D': nan}
    """
    if len(lengths := {len(series) for series in returns.values()}) > 1:
        raise DataError(f"returns must be on the same candles, found lengths {sorted(lengths)}")
    unknown = np.full(0, np.nan)
    mine = returns.get(pair, unknown)
    return {
        other: _correlation(mine, returns[other]) if other in returns and len(mine) else math.nan
        for other in others
    }


def _correlation(one: Floats, other: Floats) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    if len(one) < ENOUGH_COMMON or np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return math.nan
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0))
