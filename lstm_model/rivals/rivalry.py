"""A user's strategy four times: as it is, with `LSTMRisk`, and with two plain rivals.

A smaller stake loses less by being smaller. So the rivals put as much into the market as `LSTMRisk`
does, averaged over time: one by a constant factor on every stake, one by a factor that follows the
usual over the present volatility. What `LSTMRisk` is worth is what it adds to these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lstm_model.bot import configuration
from lstm_model.durations import DAY_MS
from lstm_model.errors import ConfigError
from lstm_model.market.candles import Floats, Ints
from lstm_model.rivals.days import Days, Difference, differences, scaled
from lstm_model.rivals.ledger import Book, Terms, Window, book
from lstm_model.rivals.variant import (
    Make,
    Ran,
    Scale,
    Watch,
    backtest_as,
    plain,
    with_risk,
    with_stake,
)

PLAIN, OURS, CONSTANT, EWMA = "as it is", "LSTMRisk", "constant", "EWMA"
CLOSE = 0.01  # of the exposure: so near is as good as equal
_TRIES = 3  # chosen: backtests to come so near; the relation is almost linear
_LEAST_CANDLES = 10  # chosen: of a half-life and of a median, whatever the timeframe
_USUAL_MS = 30 * DAY_MS
_MOST = 4.0  # chosen: a factor by volatility is at most this, and at least one over it


@dataclass(frozen=True)
class Contender:
    """One of the four.

    Attributes
    ----------
    factor : on every stake of theirs; 1.0 without one
    """

    name: str
    ran: Ran
    book: Book
    factor: float = 1.0

    @property
    def exposure(self) -> float:
        """Mean over the days, as a fraction of the equity."""
        return float(self.book.days.exposure.mean())


@dataclass(frozen=True)
class Rivalry:
    """What came out.

    Attributes
    ----------
    contenders : as it is, with `LSTMRisk`, and the rivals if there was an exposure to equal
    against : name of another -> every measure of `LSTMRisk` less its own
    same_entries : share of the plain strategy's entries that `LSTMRisk` made too, in the same
        candle
    """

    strategy: str
    window: Window
    terms: Terms
    contenders: tuple[Contender, ...]
    against: Mapping[str, tuple[Difference, ...]]
    same_entries: float

    def of(self, name: str) -> Contender | None:
        """The contender of this name, if it ran."""
        return next((each for each in self.contenders if each.name == name), None)

    @property
    def ours(self) -> Contender:
        """The one with `LSTMRisk`."""
        return self.contenders[1]

    @property
    def days(self) -> int:
        """How many there are to draw from."""
        return len(self.ours.book.ends)

    @property
    def is_unchanged(self) -> bool:
        """Whether `LSTMRisk` left every trade as it was."""
        kept, mine = (each.ran.deals for each in self.contenders[:2])
        return [deal.fills for deal in kept] == [deal.fills for deal in mine]

    def is_matched(self, name: str) -> bool:
        """Whether a rival has the same mean exposure."""
        rival = self.of(name)
        return rival is not None and _is_close(self.ours, rival)


class _Runner(NamedTuple):
    """Runs contenders over the same window, by the same terms."""

    args: Mapping[str, Any]
    watch: Watch
    window: Window
    terms: Terms

    def run(self, name: str, make: Make, title: str, factor: float = 1.0) -> Contender:
        self.watch.begin(title)
        return self.reckon(name, backtest_as(make, self.args, self.watch), factor)

    def reckon(self, name: str, ran: Ran, factor: float = 1.0) -> Contender:
        return Contender(
            name, ran, book(ran.deals, ran.prices, self.window, self.terms), factor
        )  # fmt: skip


def contest(args: Mapping[str, Any], slippage: float, watch: Watch) -> Rivalry:
    """Run all, and hold `LSTMRisk` against each of the others.

    Parameters
    ----------
    args : as freqtrade's command line gives them: `config` (files), `strategy`, `timerange`, ...
    slippage : lost on each order, as a fraction of its value; charged afterwards, so that it
        changes no trade

    Raises
    ------
    ConfigError
        A backtest cannot be run, or the strategy does not trade in this time.
    """
    watch.begin("as it is")
    first = backtest_as(plain, args, watch)
    if not first.deals:
        raise ConfigError(
            f"{first.name} makes no trade in this time, so there is nothing to compare: give a "
            "longer --timerange or more --pairs"
        )
    watch.begin("with LSTMRisk")
    ours = backtest_as(with_risk, args, watch)
    terms = Terms(ours.wallet, slippage, ours.promise or 0.0)
    runner = _Runner({**args, "timerange": _timerange(ours.window)}, watch, ours.window, terms)
    if first.window == ours.window:
        known = runner.reckon(PLAIN, first)
    else:  # the mixin needs more candles before the first, and there were none
        known = runner.run(PLAIN, plain, "as it is, in the time that LSTMRisk has forecasts for")
    mine = runner.reckon(OURS, ours)
    contenders = (known, mine, *_rivals(runner, known, mine))
    return Rivalry(
        first.name, runner.window, terms, contenders,
        {
            each.name: differences(mine.book.days, _at_exposure_of(mine, each))
            for each in contenders if each is not mine
        },
        _same(known.ran, ours),
    )  # fmt: skip


def _at_exposure_of(mine: Contender, other: Contender) -> Days:
    """Its days; of a rival that came close, with the rest of the way gone by its returns.

    Else a percent more in the market would be seen in each number, and be taken for proof.
    """
    if other.name == PLAIN or not _is_close(mine, other):
        return other.book.days
    return scaled(other.book.days, mine.exposure / other.exposure)


def _is_close(mine: Contender, other: Contender) -> bool:
    return abs(other.exposure / mine.exposure - 1.0) <= CLOSE


def _timerange(window: Window) -> str:
    """As freqtrade writes it; its own holds the candle that opens at its end, too."""
    return f"{window.start_ms // 1000}-{(window.end_ms - 1) // 1000}"


def _same(known: Ran, ours: Ran) -> float:
    entries, made = ({deal.key for deal in ran.deals} for ran in (known, ours))
    return len(entries & made) / max(1, len(entries))


def _rivals(runner: _Runner, known: Contender, mine: Contender) -> tuple[Contender, ...]:
    """Both plain rivals; none where there is no exposure to equal."""
    if not (known.exposure > 0.0 and mine.exposure > 0.0):
        return ()
    target = mine.exposure
    constant = _matched(
        lambda factor, title: runner.run(
            CONSTANT, with_stake(lambda pair, now_ms: factor), f"constant stake, {title}", factor
        ),
        target, Contender(CONSTANT, known.ran, known.book),
    )  # fmt: skip
    steady = _steady(known.ran)

    def by_volatility(factor: float, title: str) -> Contender:
        make = with_stake(lambda pair, now_ms: factor * steady(pair, now_ms))
        return runner.run(EWMA, make, f"stake by EWMA volatility, {title}", factor)

    ewma = _matched(by_volatility, target, None, constant.factor)
    return constant, ewma


def _matched(
    run: Callable[[float, str], Contender], target: float, known: Contender | None,
    factor: float = 1.0,
) -> Contender:  # fmt: skip
    """The contender whose exposure is nearest to the target, after a few tries."""
    made = [known] if known else []
    for number in range(_TRIES + 1):
        best = min(made, key=lambda each: abs(each.exposure - target), default=None)
        if best and (abs(best.exposure / target - 1.0) <= CLOSE or number == _TRIES):
            break
        if made:
            factor = made[-1].factor * target / max(made[-1].exposure, 1e-3 * target)
        made.append(run(factor, f"try {number + 1} of {_TRIES}"))
    return min(made, key=lambda each: abs(each.exposure - target))


def _steady(known: Ran) -> Scale:
    """Usual over present volatility of each pair, by candles that had closed."""
    factors: dict[str, tuple[Ints, Floats]] = {}
    step_ms = known.window.step_ms
    for pair, (closed_ms, close) in known.prices.items():
        if (candles := configuration.load_candles(known.config, pair)) is not None:
            closed_ms, close = candles.date_ms + step_ms, candles.close
        since = np.searchsorted(closed_ms, known.window.start_ms - 2 * _USUAL_MS)
        factors[pair] = closed_ms[since:], steady_factors(close[since:], step_ms)

    def scale(pair: str, now_ms: int) -> float:
        closed_ms, known_factors = factors[pair]
        row = int(np.searchsorted(closed_ms, now_ms, side="right")) - 1
        return float(known_factors[row]) if row >= 0 else 1.0

    return scale


def steady_factors(close: Floats, step_ms: int) -> Floats:
    """Usual over present volatility (N,) after each candle of (N,) closes.

    Present: the root of an EWMA of squared log returns with a half-life of a day, ten candles at
    least. Usual: its median over the last month or what there is of it, a day at least; before, the
    factor is 1.

    Examples
    --------
    >>> calm, wild = (0.001, -0.001) * 200, (0.01, -0.01) * 40
    >>> close = np.exp(np.cumsum(np.array(calm + wild)))
    >>> factors = steady_factors(close, 3_600_000)
    >>> [round(float(factors[row]), 2) for row in (5, 300, 470)]
    [1.0, 1.0, 0.25]
    """
    day = max(DAY_MS // step_ms, _LEAST_CANDLES)
    month = max(_USUAL_MS // step_ms, day)
    squares = pd.Series(np.square(np.diff(np.log(close), prepend=np.nan)))
    present = np.sqrt(squares.ewm(halflife=day).mean())
    usual = present.rolling(int(month), min_periods=int(day)).median()
    factors = (usual / present.where(present > 0.0)).clip(1.0 / _MOST, _MOST)
    return np.asarray(factors.fillna(1.0), np.float64)
