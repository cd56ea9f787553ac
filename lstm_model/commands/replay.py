"""The commands `replay` and `verify`: the real bot over the past, and a backtest to match."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lstm_model.commands.terminal import (
    MOST_INVENTED_DAYS,
    MOST_MONEY,
    Number,
    check_report,
    config_option,
    console,
    datadir_option,
    days_option,
    load_config,
    named_configs,
    report_option,
    seed_option,
    strategy_option,
    timeframe_option,
    userdir_option,
    with_options,
)
from lstm_model.market.candles import utc_minute

if TYPE_CHECKING:  # freqtrade takes a second to import, which other commands would wait for
    from lstm_model.replay.facts import ReplayFacts
    from lstm_model.replay.reproduction import Finding
    from lstm_model.replay.run import Replay, Wish
    from lstm_model.replay.standing import Moment

_MOST_S = 86_400  # chosen: a bot that looks once a day misses every candle but those of a day
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3_600}
_FORMS = ("%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y%m%dT%H%M")
_FOLDER = click.Path(file_okay=False, path_type=Path)
_INTERRUPTED = 130  # as shells say it of Ctrl-C
_NEEDED = {"from": "start_ms", "to": "end_ms", "data": "data"}
_DAY_MS = 86_400_000
_NAMED = 5  # chosen: findings of a kind that are told one by one
_SHOWN_S = 0.1  # chosen: between two looks at the bar


class _Time(click.ParamType[int]):
    """A moment in UTC, as milliseconds."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        for form in _FORMS:
            try:
                moment = datetime.strptime(value, form).replace(tzinfo=UTC)
            except ValueError:
                continue
            return int(moment.timestamp() * 1000)
        return self.fail(f'"{value}" is no time; give 2024-07-01 or 2024-07-01T06:00 (UTC)')


class _Duration(click.ParamType[int]):
    """Seconds, also as 60s, 5m or 1h."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        match = re.fullmatch(r"([0-9]{1,9})([smh]?)", str(value))
        seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
        if not 0 < seconds <= _MOST_S:
            self.fail(f'"{value}" is no duration up to 24h; give one like 60s, 5m or 1h')
        return seconds


_OPTIONS = (
    config_option,
    userdir_option,
    click.option("--from", "start_ms", type=_Time(), help="Start of the window (UTC)."),
    click.option("--to", "end_ms", type=_Time(), help="Its end."),
    click.option("--data", metavar="DIR|synthetic|random-walk",
                 help="Candles or trades, as files; or an invented market."),
    click.option("--history", type=_FOLDER, help="Older candles, if the data is of trades."),
    click.option("-p", "--pairs", multiple=True, metavar="PAIR",
                 help="Repeat for more; the whitelist by default."),
    timeframe_option,
    click.option("--timeframe-detail", metavar="TIMEFRAME",
                 help="Finer candles for what happens inside a candle, on both sides, e.g. 1m; the "
                 "configuration's by default."),
    strategy_option,
    click.option("--step", "step_s", default="60s", show_default=True, type=_Duration(),
                 help="Longest time between two looks of the bot."),
    click.option("--wallet", type=Number(0.0, MOST_MONEY, above=True),
                 help="dry_run_wallet by default."),
    seed_option,
    click.option("--days-before", default=30, show_default=True,
                 type=click.IntRange(1, MOST_INVENTED_DAYS),
                 help="Days of history of an invented market."),
    click.option("--orders", is_flag=True,
                 help="Real orders, to an account of the practice exchange, instead of a dry run."),
    click.option("--incident", "incidents", multiple=True, metavar="KIND@TIME[/DURATION]",
                 help="What goes wrong, e.g. outage@2024-07-01T06:00/30m; repeat."),
    click.option("--folder", type=_FOLDER, help="Where all is left; user_data/replay/... else."),
    click.option("--overwrite", is_flag=True, help="Replace an older replay in the folder."),
    report_option,
)  # fmt: skip


def _wish(incidents: tuple[str, ...], **options: Any) -> Wish:
    from lstm_model.practice.incidents import parse_incident
    from lstm_model.replay.run import Wish

    lacking = [f"--{name}" for name, key in _NEEDED.items() if options[key] is None]
    if lacking:
        raise click.UsageError(f"{', '.join(lacking)} must be given")
    if options["end_ms"] <= options["start_ms"]:
        raise click.UsageError("--to must be later than --from")
    options["configs"] = named_configs(options["configs"], options["userdir"])
    return Wish(**options, incidents=tuple(parse_incident(text) for text in incidents))


@click.command()
@with_options(*_OPTIONS)
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A store, e.g. user_data/lstm: what was trained there is not trained again.",
)
@click.option("--note", metavar="TEXT", help="What a reader must know first, e.g. of the data.")
@click.option("--life", is_flag=True, help="Tell one trade's life, from its forecast to its exit.")
def replay(report: Path | None, note: str | None, life: bool, **options: Any) -> None:
    """Run the real bot over the past, as fast as it goes, the same every time.

    In a dry run, or with --orders on an account of the practice exchange.
    """
    from lstm_model.replay.report import life_lines

    check_report(report)
    prepared = _prepared(_wish(**options))
    facts = _replayed(prepared, report, note)
    for line in life_lines(facts) if life else ():
        console.print(line)
    files = prepared.files
    console.print(f"Everything is in {files.folder}, e.g.")
    console.print(f"  freqtrade show-trades --db-url sqlite:///{files.database}")
    if _was_stopped(prepared, facts):
        sys.exit(_INTERRUPTED)


@click.command()
@with_options(*_OPTIONS)
@click.option("--journal", "of_journal", is_flag=True,
              help="Instead: compute anew what the configured bot has journaled.")  # fmt: skip
@days_option(7, "How far back, of --journal.")
@datadir_option
@click.option("--tolerance", default=0.3, show_default=True, type=Number(0.0, 100.0),
              help="Percentage points by which fills may change a profit: of a trade as a share of "
              "its position, in all as a share of the wallet.")  # fmt: skip
def verify(
    report: Path | None, of_journal: bool, days: int, datadir: str | None, tolerance: float,
    **options: Any,
) -> None:  # fmt: skip
    """Replay and backtest the same window: did the bot keep what the backtest promised?

    Ends with status 1 if a profit differs, trade by trade or in all, or a forecast by a bit, or a
    trade has no cause.
    """
    if of_journal:
        named = {name: options[name] for name in ("configs", "userdir", "strategy", "timeframe")}
        sys.exit(_check_journal(load_config(**named, datadir=datadir), days))
    from lstm_model.commands.comparison_view import renderables
    from lstm_model.replay.proof import prove

    check_report(report)
    prepared = _prepared(_wish(**options))
    facts = _replayed(prepared, report)
    if _was_stopped(prepared, facts):
        sys.exit(_INTERRUPTED)
    with console.status("Backtesting the same window ..."):
        comparison = prove(prepared, tolerance / 100.0)
    console.print()
    for part in renderables(comparison):
        console.print(part)
    agrees = facts.account is None or facts.account.ok
    if not agrees:
        console.print("Not verified: the practice account is not as freqtrade's trades have it.",
                      style="bold red")  # fmt: skip
    sys.exit(0 if comparison.ok and agrees else 1)


def _check_journal(config: dict[str, Any], days: int) -> int:
    """Compute the journal's forecasts again and say what came out; the exit status."""
    from lstm_model.replay.proof import journaled

    found: dict[str, list[Finding]] = defaultdict(list)
    with console.status("Computing the forecasts again ..."):
        for finding in journaled(config, time.time_ns() // 1_000_000 - days * _DAY_MS):
            found[finding.kind].append(finding)
    if not found:
        console.print(f"No forecast was made in the last {days} days.")
        return 1
    for kind, findings in sorted(found.items()):
        console.print(f"{len(findings):,} {kind}")
        for finding in findings[:_NAMED] if kind != "equal" else []:
            row = finding.row
            console.print(f"  {row.pair} {utc_minute(row.candle_ms)}: {finding.text}")
    sound = any(found[kind] for kind in ("equal", "late step", "late leader"))
    return 0 if sound and not found["differs"] else 1


def _prepared(wish: Wish) -> Replay:
    from lstm_model.replay.run import Replay

    with console.status("Opening the market ..."):
        return Replay(wish)


def _replayed(prepared: Replay, report: Path | None, note: str | None = None) -> ReplayFacts:
    from lstm_model.replay.outcome import facts_of
    from lstm_model.replay.report import render_html, summary_lines

    with _bar(prepared) as watch:
        ran = prepared.run(watch)
    facts = facts_of(prepared, ran)
    facts = replace(facts, notes=[*([note] if note else []), *facts.notes])
    for line in summary_lines(facts):
        console.print(line)
    if report is not None:
        report.write_text(render_html(facts), encoding="utf-8")
        console.print(f"Report: {report}")
    return facts


def _was_stopped(prepared: Replay, facts: ReplayFacts) -> bool:
    return facts.end_ms < prepared.plan.scenario.end_ms


@contextmanager
def _bar(prepared: Replay) -> Iterator[Callable[[Moment], None]]:
    """What shows how far a replay is."""
    scenario, began_s, shown_s = prepared.plan.scenario, time.monotonic(), 0.0
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Starting the bot", total=scenario.end_ms - scenario.start_ms)

        def watch(moment: Moment) -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - shown_s >= _SHOWN_S:
                shown_s, done_ms = now_s, moment.now_ms - scenario.start_ms
                text = _described(moment, done_ms / 1e3 / (now_s - began_s))
                bar.update(task, completed=done_ms, description=text)

        yield watch


def _described(moment: Moment, speed: float) -> str:
    at = datetime.fromtimestamp(moment.now_ms / 1000, UTC)
    return (
        f"{at:%Y-%m-%d %H:%M} UTC, {speed:,.0f} x, balance {moment.equity:,.2f}, "
        f"{moment.open_trades} open, {moment.closed_trades} closed"
    )
