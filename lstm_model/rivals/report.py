"""Four backtests in words: tables, one sentence of what is proven, and a page that needs nothing.

A page has no script and loads nothing; what came from outside is escaped. Losses are shown as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lstm_model.market.candles import Floats, Ints, utc_minute
from lstm_model.replay.pictures import Picture, Tick, chart
from lstm_model.replay.report import page
from lstm_model.rivals.days import CVAR, EXPOSURE, LEAST_DAYS, MEASURES, PROFIT, Difference, Measure
from lstm_model.rivals.rivalry import CONSTANT, EWMA, OURS, PLAIN, Contender, Rivalry

TEMPLATE = "report.html.jinja"
_UNKNOWN = "unknown"
_FORMS = {"count": "+,.0f", "ratio": "+.2f", "times": "+,.1f"}  # of differences
_PROMISE = "promised"
_NOTHING = 5e-4  # chosen: a difference that no one would act on; a twentieth of a point
TITLES = {
    PLAIN: "as it is", OURS: "with LSTMRisk", CONSTANT: "constant stake",
    EWMA: "stake by EWMA volatility",
}  # fmt: skip


def shown(measure: Measure, value: float) -> str:
    """A number as its measure is written.

    Examples
    --------
    >>> profit = next(each for each in MEASURES if each.name == "profit")
    >>> shown(profit, -0.01234), shown(profit, float("nan"))
    ('-1.23%', 'unknown')
    """
    if not math.isfinite(value):
        return _UNKNOWN
    form = {"count": ",.0f", "ratio": "+.3f", "times": ",.1f"}.get(measure.form)
    if form is None:
        form = "+.2%" if measure.name in (PROFIT, CVAR) else ".2%"
    return _no_sign_of_zero(f"{value:{form}}") + ("x" if measure.form == "times" else "")


def shown_interval(found: Difference) -> str:
    """A difference and its interval; of percentages in points.

    Examples
    --------
    >>> profit = next(each for each in MEASURES if each.name == "profit")
    >>> shown_interval(Difference(profit, 0.012, 0.01, -0.004, 0.0085))
    '+0.20 [-0.40, +0.85]'
    """
    if not math.isfinite(found.value):
        return _UNKNOWN
    value, low, high = (_points(found.measure, x) for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _points(measure: Measure, value: float) -> str:
    if measure.form == "percent":
        text = f"{100.0 * value:+.{2 if abs(value) < 0.1 else 1}f}"
    else:
        text = f"{value:{_FORMS[measure.form]}}"
    return _no_sign_of_zero(text)


def _no_sign_of_zero(text: str) -> str:
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def heading(rivalry: Rivalry) -> str:
    """What was compared, in a line."""
    ours, terms = rivalry.ours, rivalry.terms
    config = ours.ran.config
    fees = [deal.facts.fee_open for deal in rivalry.contenders[0].ran.deals[:1]]
    fee = f"fee {fees[0]:.3%}, " if fees and fees[0] is not None else ""
    return (
        f"{rivalry.strategy}, {config['timeframe']}, {', '.join(sorted(ours.ran.prices))}: "
        f"{utc_minute(rivalry.window.start_ms)} to {utc_minute(rivalry.window.end_ms)} UTC, "
        f"{_days(rivalry)}; {fee}slippage {terms.slippage:.3%} of each order, "
        f"promise {terms.promise:.2%} of the wallet"
    )


def _days(rivalry: Rivalry) -> str:
    return "1 day" if rivalry.days == 1 else f"{rivalry.days:,} days"


def table(rivalry: Rivalry) -> Iterator[tuple[str, list[str]]]:
    """Rows of all measures, a value for each contender; and its worst trade and factor."""
    for measure in MEASURES:
        yield (
            measure.name,
            [shown(measure, float(measure.of(each.book.days))) for each in rivalry.contenders],
        )
    yield "worst trade", [_worst(each) for each in rivalry.contenders]
    yield (
        "factor on stakes",
        [
            f"{each.factor:.3f}" if each.name in (CONSTANT, EWMA) else ""
            for each in rivalry.contenders
        ],
    )


def _worst(contender: Contender) -> str:
    results = contender.book.results
    return f"{results.min():+.2%}" if len(results) else _UNKNOWN


def difference_rows(rivalry: Rivalry) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Rows of measures: `LSTMRisk` less each other, and whether it is proven."""
    for number, measure in enumerate(MEASURES):
        if measure.name == EXPOSURE:  # the rivals' is equal because it was made so
            continue
        found = [made[number] for made in rivalry.against.values()]
        yield measure.name, [(shown_interval(each), _proven(rivalry, each)) for each in found]


def _proven(rivalry: Rivalry, found: Difference) -> int:
    return found.proven if rivalry.days >= LEAST_DAYS else 0


def entry_lines(rivalry: Rivalry) -> list[str]:
    """How many entries are the same, and why some are not; how near the rivals came."""
    made, refused = len(rivalry.contenders[0].ran.deals), rivalry.ours.ran.refused
    lines = [
        f"Entries: of {made:,} made as it is, {rivalry.same_entries:.1%} are made with LSTMRisk "
        "too, in the same candle"
    ]
    if refused:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        lines.append(f"LSTMRisk staked nothing on {refused.total():,} entries: {reasons}")
    for name in (CONSTANT, EWMA):
        rival = rivalry.of(name)
        if rival is not None and not rivalry.is_matched(name):
            lines.append(
                f"The {TITLES[name]} came no nearer than {rival.exposure:.2%} to the mean exposure "
                f"of {rivalry.ours.exposure:.2%}: the exchange's limits or other trades keep it off"
            )
    return lines


def sentence(rivalry: Rivalry) -> str:
    """What is proven and what is not, by the two measures that were chosen before: CVaR, profit."""
    ours = rivalry.ours
    if not ours.ran.deals:
        return "LSTMRisk makes no trade in this time, so there is nothing to hold against others."
    if rivalry.is_unchanged:
        return (
            f"LSTMRisk changes nothing here: all {len(ours.ran.deals):,} trades are made as "
            "without it, with the same stakes."
        )
    if rivalry.days < LEAST_DAYS:
        return (
            f"Nothing can be proven: it needs {LEAST_DAYS} days at least, and this is "
            f"{_days(rivalry)}; give a longer --timerange."
        )
    clauses = [_clause(rivalry, name) for name in (CONSTANT, EWMA) if rivalry.of(name)]
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}." if clauses else "There was no exposure to equal."


def _clause(rivalry: Rivalry, name: str) -> str:
    """One rival."""
    if name == CONSTANT and (rival := rivalry.of(name)) and _is_constant(rivalry):
        return (
            f"LSTMRisk does here what a constant stake of {rival.factor:.3f} times the strategy's "
            "does: neither the worst days nor the profit differ from it"
        )
    found = {each.measure.name: each for each in rivalry.against[name]}
    worst, profit = found[CVAR], found[PROFIT]
    days = ("are not proven to differ from", "are smaller than", "are larger than")[worst.proven]
    earns = (
        "a difference in profit is not proven", "it earns more", "it earns less"
    )[profit.proven]  # fmt: skip
    at = "the same mean exposure" if rivalry.is_matched(name) else "another mean exposure"
    return (
        f"at {at} LSTMRisk's worst days {days} those of a {TITLES[name]} (CVaR "
        f"{shown(worst.measure, worst.ours)} against {shown(worst.measure, worst.theirs)}, 95% "
        f"interval of the difference {_ends(worst)} points), and {earns} "
        f"({_points(profit.measure, profit.value)} points, {_ends(profit)})"
    )


def _ends(found: Difference) -> str:
    low, high = (_points(found.measure, value) for value in (found.low, found.high))
    return f"{low} to {high}"


def _is_constant(rivalry: Rivalry) -> bool:
    """Whether nothing tells `LSTMRisk` from the constant stake."""
    found = [each for each in rivalry.against[CONSTANT] if each.measure.name in (CVAR, PROFIT)]
    return all(max(abs(each.low), abs(each.high)) <= _NOTHING for each in found)


class Drawn(NamedTuple):
    """A contender in a legend: its name, the class of its colour, and how its line ended."""

    name: str
    kind: str
    remark: str


def render_page(rivalry: Rivalry) -> str:
    """The page: one file, readable in light and dark, on paper and on a phone."""
    return page(TEMPLATE, "lstm_model.rivals").render(
        strategy=rivalry.strategy,
        heading=heading(rivalry),
        sentence=sentence(rivalry),
        names=[TITLES[each.name] for each in rivalry.contenders],
        rows=list(table(rivalry)),
        others=[TITLES[name] for name in rivalry.against],
        differences=list(difference_rows(rivalry)),
        entries=entry_lines(rivalry),
        legend=_legend(rivalry),
        equity=chart({
            TITLES[each.name]: _line(rivalry, each.book.equity) for each in _order(rivalry)
        }),
        falls=chart({
            TITLES[each.name]: _line(rivalry, each.book.equity, fall=True)
            for each in _order(rivalry)
        }, around=(-0.01, 0.0)),
        losses=_losses(rivalry),
        kinds={TITLES[name]: f"c{number}" for number, name in enumerate(TITLES)},
        promise=rivalry.terms.promise,
        slippage=rivalry.terms.slippage,
        has_enough_days=rivalry.days >= LEAST_DAYS,
    )  # fmt: skip


def _order(rivalry: Rivalry) -> list[Contender]:
    """`LSTMRisk` last, so that its line is drawn above the others."""
    return sorted(rivalry.contenders, key=lambda each: each.name == OURS)


def _line(rivalry: Rivalry, equity: Floats, *, fall: bool = False) -> tuple[Ints, Floats]:
    """Times and what the equity gained, or how far it is below its top, as fractions."""
    start = rivalry.terms.wallet
    dates = np.concatenate([[rivalry.window.start_ms], rivalry.ours.book.ends])
    whole = np.concatenate([[start], equity])
    base = np.maximum.accumulate(whole) if fall else start
    return dates.astype(np.int64), np.asarray(whole / base - 1.0)


def _legend(rivalry: Rivalry) -> list[Drawn]:
    """Beside each name where it ended."""
    ends = {each.name: each.book.equity[-1] / rivalry.terms.wallet for each in rivalry.contenders}
    return [
        Drawn(TITLES[name], f"c{number}", f"{ends[name] - 1.0:+.2%}")
        for number, name in enumerate(TITLES) if name in ends
    ]  # fmt: skip


def _losses(rivalry: Rivalry) -> Picture | None:
    """What each trade lost, the worst at the left, over the share of trades; and the promise."""
    lines: dict[str, tuple[Ints, Floats]] = {}
    for each in _order(rivalry):
        results = np.sort(np.minimum(each.book.results, 0.0))
        if len(results) > 1:
            share = np.linspace(0, 10_000, len(results)).astype(np.int64)
            lines[TITLES[each.name]] = share, results
    if not lines:
        return None
    lines[_PROMISE] = np.array([0, 10_000]), np.full(2, -rivalry.terms.promise)
    drawn = chart(lines, around=(-0.01, 0.0))
    marks = tuple(Tick(float(at), f"{at}%") for at in (0, 25, 50, 75, 100))
    return drawn and replace(drawn, across=marks)
