"""A replay in words: a few lines for a terminal, and one page of HTML that needs nothing else.

The page has no script, loads nothing, and may be sent to anyone: what looks like a token or a
password in a text is struck out. Losses are printed as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from lstm_model.market.candles import utc_minute
from lstm_model.model.reliability import WINDOW
from lstm_model.model.reliability import line as interval_line
from lstm_model.replay.facts import (
    Curve,
    Drawdown,
    Moment,
    ReplayFacts,
    Tally,
    by_exit_reason,
    by_pair,
    held_curve,
    price_change,
    reason_counts,
    wallet_curve,
)
from lstm_model.replay.life import decimals, price_text, told
from lstm_model.replay.pictures import Picture, chart, stairs
from lstm_model.trading.sizing import REASONS

TEMPLATE, STYLE = "report.html.jinja", "page.css"
MOST_TRADES, MOST_LINES = 500, 200  # chosen: a page stays below a megabyte
_INCIDENTS = 3  # chosen: as many as a summary tells in words
UNKNOWN = "unknown"
_BPS = 1e4
_EXPLAINED = 1e-4  # chosen: of the wallet; what freqtrade rounds away stays below
_WALLET, _HELD = "the bot's wallet", "buy and hold"
# The token of a Telegram bot, whoever is named in a URL, and named values that open a door.
_SECRETS = (
    (re.compile(r"\d{6,}:[\w-]{20,}"), "<secret>"),
    (re.compile(r"(?<=://)[^/@\s]+(?=@)"), "<secret>"),
    (
        re.compile(r"(?i)((?:api_?key|secret|password|passphrase|signature|token)[\"']?\s*[=:]\s*)"
                   r"[\"']?[^\s\"',&;]+[\"']?"),
        r"\1<secret>",
    ),
)  # fmt: skip


def summary_lines(facts: ReplayFacts) -> list[str]:
    """The replay in a few lines of plain text, without colours.

    Examples
    --------
    >>> facts = ReplayFacts(
    ...     "a random walk", ("BTC/USDT",), "5m", 1_715_472_000_000, 1_715_558_400_000, "USDT",
    ...     1_000.0, 990.0, 60.0,
    ... )
    >>> for text in summary_lines(facts):
    ...     print(text)
    Simulated on a random walk, no order reached an exchange: BTC/USDT, 5m
    2024-05-12 00:00 to 2024-05-13 00:00 UTC, 1 day in 1 min, 1,440 times as fast
    Wallet 1,000.00 to 990.00 USDT: -10.00 USDT (-1.00%) after fees; buy and hold unknown
    Deepest drawdown unknown; of buy and hold unknown
    Trades: none closed
    Forecasts: unknown
    Learner: no decision
    Incidents: none; messages sent: unknown
    """
    return [
        f"Simulated on {_safe(facts.data)}, {_orders(facts)}: "
        f"{', '.join(facts.pairs)}, {facts.timeframe}",
        f"{utc_minute(facts.start_ms)} to {utc_minute(facts.end_ms)} UTC, {_pace(facts)}",
        *(_safe(note) for note in facts.notes),
        f"Wallet {_wallet(facts)}; {_HELD} {_share(held_curve(facts).gain)}",
        f"Deepest drawdown {_depth(wallet_curve(facts).deepest)}; of {_HELD} "
        f"{_depth(held_curve(facts).deepest)}",
        *_trade_lines(facts),
        *([f"Account: {_safe(facts.account.text)}"] if facts.account else []),
        *([f"Candles: {_counted(reason_counts(facts))}"] if facts.reasons else []),
        f"Forecasts: {_count(facts.forecasts)}",
        *(f"  {name}: {interval_line(made)}" for name, made in facts.intervals.items()),
        f"Learner: {_many(len(facts.decisions), 'decision')}",
        f"Incidents: {len(facts.incidents) or 'none'}; messages sent: {_count(facts.messages)}",
        *(f"  {utc_minute(at.date_ms)} {_safe(at.text)}" for at in facts.incidents[:_INCIDENTS]),
    ]


def _orders(facts: ReplayFacts) -> str:
    """Where orders went to."""
    if facts.account:
        return "real orders on a practice account, none reached another exchange"
    return "no order reached an exchange"


def life_lines(facts: ReplayFacts) -> list[str]:
    """One trade's life in plain text, a line a chapter."""
    chapters = told(facts)
    if not chapters:
        return ["No trade was closed whose life could be told."]
    return ["One trade's life", *(f"  {name:9} {_safe(text)}" for name, text in chapters)]


def render_html(facts: ReplayFacts) -> str:
    """The page: one file, readable in light and dark, on paper and on a phone."""
    wallet, held = wallet_curve(facts), held_curve(facts)
    return page(TEMPLATE).render(
        facts=facts,
        orders=_orders(facts),
        account=_safe(facts.account.text) if facts.account else "",
        verdict=_verdict(facts),
        figures=_figures(facts),
        wealth=_wealth(wallet, held),
        drawdown=_falls(wallet, held),
        legend=_legend(wallet, held),
        exposure=_exposure(facts, wallet),
        points=(len(wallet.date_ms), len(held.date_ms)),
        all_trades=Tally.of(facts.trades),
        open_trades=[trade for trade in facts.trades if trade.is_open],
        unexplained=_unexplained(facts),
        life=[(name, _minus(_safe(text))) for name, text in told(facts)],
        exits=by_exit_reason(facts.trades),
        pairs=[(pair, price_change(facts, pair), made) for pair, made in by_pair(facts).items()],
        reasons=_reasons(facts),
        shown_trades=sorted(facts.trades, key=lambda trade: trade.open_ms)[:MOST_TRADES],
        decisions=_first(facts.decisions),
        incidents=_first(facts.incidents),
        pace=_pace(facts),
        window=WINDOW,
    )


class Figure(NamedTuple):
    """A number at the head of the page."""

    name: str
    value: str
    remark: str
    tone: str = ""  # "gain", "loss" or ""


class Reason(NamedTuple):
    """What became of candles: code, meaning, how many, per cent of all, width of its bar."""

    code: str
    meaning: str
    candles: int
    share: float
    bar: float


@cache
def page(template: str, room: str = "lstm_model.replay") -> Template:
    """A page of a room: what it is given is escaped, its style and its filters are shared."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "when": utc_minute, "span": _span, "count": _count, "safe_text": _safe,
        "price": lambda price: UNKNOWN if price is None else price_text(price),
        "share": lambda ratio: _minus(_share(ratio)), "plain_share": _plain_share, "tone": _tone,
        "bps": lambda value: UNKNOWN if math.isnan(value) else f"{_BPS * value:.1f}",
        "money": lambda amount, size, unit="": _minus(_money(amount, size, unit)),
        "amount": _amount, "minus": _minus,
    }  # fmt: skip
    style = files("lstm_model.replay").joinpath(STYLE)
    environment.globals["style"] = style.read_text("utf-8")
    return environment.from_string(files(room).joinpath(template).read_text("utf-8"))


def _verdict(facts: ReplayFacts) -> str:
    """The outcome in two sentences."""
    held = held_curve(facts).gain
    beside = (
        f"What {_HELD} of equal shares would have given is not known."
        if held is None
        else f"Buying and holding equal shares of {_many(len(facts.pairs), 'pair')} would have "
        f"given {_share(held)}."
    )
    return _minus(f"The wallet went from {_wallet(facts)}. {beside}")


def _figures(facts: ReplayFacts) -> list[Figure]:
    made, deepest = Tally.of(facts.trades), wallet_curve(facts).deepest
    held, fallen = held_curve(facts).gain, held_curve(facts).deepest
    profit = _money(facts.profit, facts.wallet_start, facts.stake_currency)
    even = f", {made.even:,} even" if made.even else ""
    ended = f"{made.wins:,} won, {made.losses:,} lost{even}"
    return [
        Figure(
            "Profit after fees", _minus(_share(facts.profit_ratio)), _minus(profit),
            _tone(facts.profit),
        ),
        Figure("Buy and hold", _minus(_share(held)), "in equal shares"),
        Figure("Deepest drawdown", _depth(deepest), f"{_HELD}: {_depth(fallen)}"),
        Figure("Closed trades", f"{made.count:,}", ended),
    ]  # fmt: skip


def _wealth(wallet: Curve, held: Curve) -> Picture | None:
    """The bot's line last, so that it is drawn above the other."""
    drawn = ((_HELD, held), (_WALLET, wallet))
    return chart({name: (curve.date_ms, curve.wealth - 1.0) for name, curve in drawn})


def _falls(wallet: Curve, held: Curve) -> Picture | None:
    """Drawdowns, where there are values enough to speak of one."""
    drawn = ((name, curve) for name, curve in ((_HELD, held), (_WALLET, wallet)) if curve.deepest)
    return chart({name: (c.date_ms, c.drawdown) for name, c in drawn}, around=(-0.01, 0.0))


def _legend(wallet: Curve, held: Curve) -> list[tuple[str, str, str]]:
    """Of each line its name, where it ends, and where its drawdown was deepest."""
    return [
        (name, _minus(_share(curve.gain)), _fall(curve.deepest))
        for name, curve in ((_WALLET, wallet), (_HELD, held))
    ]


def _exposure(facts: ReplayFacts, wallet: Curve) -> tuple[str, int]:
    """The polygon of open trades under the picture of the wallet, and how many were most."""
    points = sorted(facts.equity, key=lambda point: point.date_ms)
    if not points or len(wallet.date_ms) < 2:
        return "", 0
    dates = np.array([point.date_ms for point in points], np.int64)
    counts = np.array([point.open_trades for point in points], np.int64)
    left, right = int(wallet.date_ms[0]), int(wallet.date_ms[-1])
    return stairs(dates, counts, left, right), int(counts.max())


def _unexplained(facts: ReplayFacts) -> float | None:
    """What the wallet gained beyond its closed trades; None where that is too little to mention."""
    closed = Tally.of(facts.trades).profit
    if closed is None or facts.profit is None:
        return None
    rest = facts.profit - closed
    return rest if abs(rest) > _EXPLAINED * facts.wallet_start else None


def _reasons(facts: ReplayFacts) -> list[Reason]:
    counts = reason_counts(facts)
    total, most = max(sum(counts.values()), 1), max([1, *counts.values()])
    return [
        Reason(code, REASONS.get(code, ""), count, count / total, 100.0 * count / most)
        for code, count in counts.items()
    ]


def _first(moments: Sequence[Moment]) -> tuple[list[tuple[str, str]], int]:
    """Time and text of the first ones, in their order, and how many more there are."""
    ordered = sorted(moments, key=lambda moment: moment.date_ms)
    shown = [(utc_minute(moment.date_ms), _safe(moment.text)) for moment in ordered[:MOST_LINES]]
    return shown, len(ordered) - len(shown)


def _trade_lines(facts: ReplayFacts) -> list[str]:
    made, size = Tally.of(facts.trades), facts.wallet_start
    still = sum(trade.is_open for trade in facts.trades)
    more = f", {still:,} still open" if still else ""
    if not made.count:
        return [f"Trades: none closed{more}"]
    first = (
        f"Trades: {made.count:,} closed, {made.wins:,} won, {made.losses:,} lost"
        f"{more}; {_money(made.profit, size, facts.stake_currency)}, mean "
        f"{_share(made.mean_ratio)}, best {_share(made.best)}, worst {_share(made.worst)}"
    )
    return [first, *(_exit_line(name, t) for name, t in by_exit_reason(facts.trades).items())]


def _exit_line(name: str, made: Tally) -> str:
    mean = _share(made.mean_ratio)
    return f"  {name or 'no reason'}: {made.count:,}, {made.wins:,} won, mean {mean}"


def _wallet(facts: ReplayFacts) -> str:
    size, currency = facts.wallet_start, facts.stake_currency
    end = UNKNOWN if facts.wallet_end is None else _amount(facts.wallet_end, size)
    return (
        f"{_amount(size, size)} to {end} {currency}: {_money(facts.profit, size, currency)} "
        f"({_share(facts.profit_ratio)}) after fees"
    )


def _pace(facts: ReplayFacts) -> str:
    window = _span((facts.end_ms - facts.start_ms) / 1_000)
    if facts.speed is None:
        return window
    return f"{window} in {_span(facts.wall_s)}, {facts.speed:,.0f} times as fast"


def _depth(fall: Drawdown | None) -> str:
    return UNKNOWN if fall is None else f"{fall.depth:.2%}"


def _fall(fall: Drawdown | None) -> str:
    if fall is None or not fall.depth > 0.0:
        return _depth(fall)
    return f"{fall.depth:.2%}, from {utc_minute(fall.peak_ms)} to {utc_minute(fall.trough_ms)}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}s" if count > 1 else f"{count or 'no'} {name}"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _share(ratio: float | None) -> str:
    """A signed percentage; what rounds to zero has no sign."""
    if ratio is None or not math.isfinite(ratio):
        return UNKNOWN
    return "0.00%" if f"{abs(ratio):.2%}" == "0.00%" else f"{ratio:+,.2%}"


def _plain_share(ratio: float) -> str:
    return f"{ratio:.1%}" if math.isfinite(ratio) else UNKNOWN


def _amount(amount: float | None, size: float) -> str:
    if amount is None or not math.isfinite(amount):
        return UNKNOWN
    return f"{amount:,.{decimals(size)}f}"


def _money(amount: float | None, size: float, currency: str = "") -> str:
    """A signed amount with the decimals of a wallet of `size`."""
    if amount is None or not math.isfinite(amount):
        return UNKNOWN
    text = f"{amount:+,.{decimals(size)}f}"
    text = text if re.search("[1-9]", text) else text[1:]
    return f"{text} {currency}".strip()


def _tone(number: float | None) -> str:
    if not number or not math.isfinite(number):
        return ""
    return "gain" if number > 0.0 else "loss"


def _span(seconds: float) -> str:
    """A length of time in its two largest units.

    Examples
    --------
    >>> [_span(seconds) for seconds in (0.42, 59.6, 3_661, 86_400, 100_000)]
    ['0.4 s', '1 min', '1 h 1 min', '1 day', '1 day 3 h']
    """
    if seconds < 10.0:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for size, name in ((86_400, "day"), (3_600, "h"), (60, "min"), (1, "s")):
        many, left = divmod(left, size)
        if many or parts:
            parts.append(f"{many:,} {name}{'s' * (many > 1 and name == 'day')}" if many else "")
    return " ".join(part for part in parts[:2] if part)


def _minus(text: str) -> str:
    """Numbers below zero with a minus sign of the width of a plus."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def _safe(text: str) -> str:
    """A text in one line, without what looks like a token, a password or a key.

    Examples
    --------
    >>> _safe("POST https://api.telegram.org/bot123456789:AAbb-ccddeeffgghhiijjkk/getMe failed")
    'POST https://api.telegram.org/bot<secret>/getMe failed'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())
