"""A backtest beside a bot, on a terminal: tables, the first difference and its cause, a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lstm_model.commands.terminal import plain_table
from lstm_model.market.candles import utc_text
from lstm_model.replay.comparison import Comparison
from lstm_model.replay.forecasts import ForecastComparison, ForecastDifference
from lstm_model.replay.money import MoneyComparison
from lstm_model.replay.trades import LoneTrade, MatchedTrade, TradeComparison

_SHOWN = 20  # chosen: trades that are listed one by one


def renderables(comparison: Comparison) -> Iterator[RenderableType]:
    """What a command prints, one after the other; no markup is read in what comes from outside."""
    forecasts, trades, money = comparison.forecasts, comparison.trades, comparison.money
    yield _money_line(money)
    yield from _broken(money)
    yield from _funding(money)
    yield Text("")
    yield _forecasts_line(forecasts)
    if forecasts.pairs:
        yield _forecasts_table(forecasts)
    if forecasts.first is not None:
        yield from _first(forecasts.first, comparison)
    yield Text("")
    yield _trades_line(trades)
    if any(couple.differences for couple in trades.matched):
        yield _matched_table(trades)
    if trades.alone:
        yield _causes_table(trades)
        yield _alone_table(trades)
    yield Text("")
    yield _verdict(comparison)


def _money_line(money: MoneyComparison) -> Text:
    """Both totals and their difference."""
    wallet, amounts = money.purse.wallet, (money.promised, money.kept)
    promised, kept = (f"{amount / wallet:+.2%} ({amount:+,.2f})" for amount in amounts)
    points = f"{100.0 * money.difference:+.2f} points, {money.kept - money.promised:+,.2f}"
    return Text(
        f"Profit: promised {promised}, kept {kept}: {points}",
        style="" if money.ok else "bold red",
    )


def _broken(money: MoneyComparison) -> Iterator[Text]:
    """The trades whose profit was not kept: how much, and how either side ended."""
    for found in money.broken[:_SHOWN]:
        trade = found.trade
        yield Text(
            f"  {trade.pair} {trade.side} {utc_text(trade.open_ms)}: promised "
            f"{found.promised:+.2%}, kept {found.kept:+.2%}: {100.0 * found.difference:+.2f} "
            f"points, {found.money:+,.2f}\n    {found.why}"
        )
    if len(money.broken) > _SHOWN:
        yield Text(f"  and {len(money.broken) - _SHOWN:,} more")
    if money.assumed:
        yield Text(
            "  A backtest knows no order of the prices inside a candle (--timeframe-detail gives "
            f"shorter ones). What it assumes here: {'; '.join(money.assumed)}."
        )


def _funding(money: MoneyComparison) -> Iterator[Text]:
    """Of futures: what it came to, and where it is not what the market paid."""
    if money.funding is None:
        return
    promised, kept = money.funding
    style = "bold red" if money.odd else ""
    yield Text(f"Funding in closed trades: promised {promised:+,.4f}, kept {kept:+,.4f}", style)
    for who, trade, booked, due in money.odd[:_SHOWN]:
        yield Text(
            f"  {trade.pair} {trade.side} {utc_text(trade.open_ms)}: {who} booked {booked:+,.4f}, "
            f"the market's payments while it was open make {due:+,.4f}"
        )


def _forecasts_line(forecasts: ForecastComparison) -> Text:
    if not forecasts.compared:
        return Text("Forecasts: there is no candle of which both the backtest and the bot have one")
    return Text(
        f"Forecasts: {forecasts.equal:,} of {forecasts.compared:,} are equal to the last bit"
    )


def _forecasts_table(forecasts: ForecastComparison) -> Table:
    table = plain_table("pair", "compared", "equal", "differing", "only backtest", "only bot")
    for pair in forecasts.pairs:
        alone = (pair.only_backtest, pair.only_replay)
        counts = (pair.compared, pair.equal, *map(len, (pair.differing, *alone)))
        table.add_row(Text(pair.pair), *(f"{count:,}" for count in counts))
    return table


def _first(found: ForecastDifference, comparison: Comparison) -> Iterator[Text]:
    yield Text(f"The first difference is {found.where}:")
    for name, tested, written in found.parts():
        yield Text(f"  {name}: {tested} in the backtest, {written} in the journal")
    if comparison.explanation is not None:
        yield Text(f"Cause: {comparison.explanation.kind}. {comparison.explanation.text}")


def _trades_line(trades: TradeComparison) -> Text:
    matched, alone = len(trades.matched), Counter(lone.who for lone in trades.alone)
    parts = [f"{count:,} by {who} alone" for who, count in sorted(alone.items())]
    return Text("Trades: " + ", ".join([f"{matched:,} made by both", *parts]))


def _matched_table(trades: TradeComparison) -> Table:
    """What differs in how many trades, and in the first of them."""
    counts = Counter(
        difference.name for couple in trades.matched for difference in couple.differences
    )
    table = plain_table("differs", "trades", "for example")
    for name, count in counts.most_common():
        table.add_row(Text(name), f"{count:,}", Text(_example(trades, name)))
    table.columns[-1].justify = "left"
    return table


def _example(trades: TradeComparison, name: str) -> str:
    """The first trade that differs so."""
    couple, text = next(
        (couple, difference.text)
        for couple in trades.matched
        for difference in couple.differences
        if difference.name == name
    )
    return f"{_place(couple)}: {text}"


def _place(couple: MatchedTrade) -> str:
    return f"{couple.backtest.pair} {utc_text(couple.backtest.open_ms)}"


def _causes_table(trades: TradeComparison) -> Table:
    counts = Counter((lone.cause.kind, lone.who) for lone in trades.alone)
    table = plain_table("made by one alone, because", "by", "trades")
    for (kind, who), count in counts.most_common():
        table.add_row(Text(kind), who, f"{count:,}")
    return table


def _alone_table(trades: TradeComparison) -> Table:
    """The unexplained first: they are what has to be looked into."""
    unexplained = set(trades.unexplained)
    order = sorted(trades.alone, key=lambda lone: lone not in unexplained)
    table = plain_table("trade", "by", "cause")
    for lone in order[:_SHOWN]:
        table.add_row(Text(_trade(lone)), lone.who, Text(f"{lone.cause.kind}: {lone.cause.text}"))
    if len(order) > _SHOWN:
        table.add_row(f"and {len(order) - _SHOWN:,} more", "", "")
    for column in table.columns[1:]:
        column.justify = "left"
    return table


def _trade(lone: LoneTrade) -> str:
    return f"{lone.trade.pair} {lone.trade.side} {utc_text(lone.trade.open_ms)}"


def _verdict(comparison: Comparison) -> Text:
    if comparison.ok:
        text = "The bot did what the backtest says it would have done, and kept its profit"
        return Text(f"{text} {_within(comparison.money)}.", style="bold green")
    problems = []
    if not comparison.forecasts.ok:
        problems.append("forecasts are not proven equal")
    if unexplained := len(comparison.trades.unexplained):
        problems.append(f"{unexplained:,} trade(s) have no explanation")
    money = comparison.money
    if money.odd:
        problems.append(f"the funding of {len(money.odd):,} trade(s) is not what the market paid")
    if not money.is_kept:
        problems.append(_not_kept(money))
    return Text(f"Not verified: {' and '.join(problems)}.", style="bold red")


def _within(money: MoneyComparison) -> str:
    return f"within {100.0 * money.purse.tolerance:g} points, trade by trade and in all"


def _not_kept(money: MoneyComparison) -> str:
    count, points = len(money.broken), f"{100.0 * money.difference:+.2f} points"
    alone = f", {100.0 * money.alone:.2f} points in trades of one side" if money.alone else ""
    apart = f"{count:,} trade(s) apart, {points} in all{alone}"
    return f"the profit was not kept {_within(money)} ({apart})"
