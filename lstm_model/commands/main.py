"""The command `freqtrade-lstm`. Only commands print: here and in the modules named so."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import lstm_model
from lstm_model.commands.compare import compare
from lstm_model.commands.coverage import coverage
from lstm_model.commands.models import card_verdict, models, print_card
from lstm_model.commands.orders import orders
from lstm_model.commands.reasons import reasons
from lstm_model.commands.replay import replay, verify
from lstm_model.commands.setup import doctor, init, trainer
from lstm_model.commands.terminal import (
    MOST_INVENTED_DAYS,
    Number,
    console,
    days_option,
    of_bot,
    seed_option,
    without_secrets,
    write_what_fits,
)
from lstm_model.errors import LstmModelError
from lstm_model.market.candles import utc_minute
from lstm_model.market.flow_history import FlowSpan
from lstm_model.setup.options import settings_table, times_table

__all__ = ["card_verdict", "main", "print_card"]


class _Group(click.Group):
    """Prints our errors, and what the system refuses, as one line without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        write_what_fits()
        try:
            return super().invoke(ctx)
        except LstmModelError as error:
            raise click.ClickException(without_secrets(ctx, str(error))) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: click ends quietly
                raise
            place = f"{error.filename}: " if error.filename else ""
            text = without_secrets(ctx, f"{place}{error.strerror or error}")
            raise click.ClickException(text) from None


@click.group(cls=_Group)
@click.version_option(lstm_model.__version__)
def main() -> None:
    """LSTMStrategy for freqtrade: train, look at models, practise on a loopback exchange."""


for _command in (init, trainer, doctor, models, reasons, coverage, replay, verify, compare, orders):
    main.add_command(_command)


@main.command()
@click.option("--market", default="synthetic", show_default=True,
              help="synthetic, random-walk, or a folder of candles or trades.")  # fmt: skip
@click.option("--port", default=8787, show_default=True, type=click.IntRange(0, 65_535),
              help="0: any that is free.")  # fmt: skip
@seed_option
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, MOST_INVENTED_DAYS),
              help="History before today.")  # fmt: skip
@click.option("--fault", "specs", multiple=True, metavar="NAME=VALUE",
              help="What goes wrong: gaps=0.01, silence=60:5, ...; repeat.")  # fmt: skip
@click.option("--account", type=Number(1.0, 1e9), metavar="USDT",
              help="Keep an account of play money, for bots with dry_run false.")  # fmt: skip
@click.option("--futures", is_flag=True, help="The account is one of USD-M futures.")
def exchange(
    market: str, port: int, seed: int, days: int, specs: tuple[str, ...],
    account: float | None, futures: bool,
) -> None:  # fmt: skip
    """Serve a practice market in Binance's dialect on 127.0.0.1 until interrupted.

    It prints the commands by which a bot gets its candles and trades there.
    """
    from lstm_model.accounts.exchange import TradingExchange, run_account
    from lstm_model.accounts.overlay import live_bot_overlay
    from lstm_model.practice.exchange import DEFAULT_PORT, open_market, run_exchange
    from lstm_model.practice.faults import parse_faults
    from lstm_model.practice.overlay import bot_overlay
    from lstm_model.practice.serving import check_free
    from lstm_model.setup.scaffold import practice_commands

    if futures and account is None:
        raise click.UsageError("--futures says what kind of account it is: give --account too.")
    faults = parse_faults(specs)
    check_free(port)  # before a market is prepared for it
    console.print(f"Preparing market {market!r} (seed {seed}, {days} days) ...")
    opened = open_market(market, seed, days)
    if specs:
        console.print("What goes wrong: " + ", ".join(specs))

    def ready(url: str) -> None:
        console.print(f"Serving on {url}. Let a bot trade there, in another terminal:")
        usual = url.replace(f":{urlsplit(url).port}", f":{DEFAULT_PORT}")
        spot, futures = (
            practice_commands(bot_overlay(url, mode), bot_overlay(usual, mode), days)
            for mode in ("spot", "futures")
        )
        console.print(*(f"  {command}" for command in spot), sep="\n")
        console.print("Or on its futures, long and short:")
        others = [command for command in futures if command not in spot]
        console.print(*(f"  {command}" for command in others), sep="\n")

    if account is None:
        run_exchange(opened, port=port, ready=ready, faults=faults)
        return
    mode = "futures" if futures else "spot"

    def open_for_orders(url: str) -> None:
        console.print(f"Serving on {url}, with {account:g} USDT of play money. Trade with them:")
        told = live_bot_overlay(url, mode)
        commands = practice_commands(told, told, days)
        console.print(*(f"  {command}" for command in commands), sep="\n")

    money = {"USDT": f"{account:.2f}"}
    run_account(TradingExchange(opened, money, mode, port=port, faults=faults), open_for_orders)


@main.command()
@of_bot
def train(config: dict[str, Any]) -> None:
    """Let the learner take the steps that are due now: train, judge, promote."""
    from lstm_model.bot import assembly
    from lstm_model.learning.wording import describe, named

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Training", total=1.0)
        step = assembly.train_now(
            config,
            lambda p: bar.update(task, completed=p.fraction, description=describe(p)),
            console.print,
            time.time_ns() // 1_000_000,
        )
        bar.update(task, completed=1.0, description="Training done")
    console.print(f"{named(step.model.card)} serves.")
    print_card(step.model.card)


@main.command("download-flow")
@of_bot
@days_option(None, "How far back; by default as far as the model in force learns. Backtests reach "
             "further: give their start.")  # fmt: skip
@click.option("--timerange", metavar="FROM-TO", help="As freqtrade writes it, e.g. 20240101-.")
@click.option("-p", "--pairs", "pairs", multiple=True, metavar="PAIR",
              help="Repeat for more; the whitelist by default.")  # fmt: skip
def download_flow(
    config: dict[str, Any], days: int | None, timerange: str | None, pairs: tuple[str, ...]
) -> None:
    """Get the past order flow of candles: who bought and sold how much, for "order_flow"."""
    from lstm_model.bot import flow_source

    if pairs:
        config["pairs"] = list(pairs)
    span = flow_source.flow_span(config, time.time_ns() // 1_000_000, days, timerange)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(pair: str, share: float) -> None:
            if pair not in tasks:
                tasks[pair] = bar.add_task(pair, total=1.0)
            bar.update(tasks[pair], completed=share)

        for known in flow_source.download_flow(config, span, show):
            show(known.pair, 1.0)
            bar.console.print(_flow_line(known))


def _flow_line(known: FlowSpan) -> str:
    if known.first_ms is None or known.last_ms is None:
        return f"{known.pair}: no order flow in this range"
    return (
        f"{known.pair}: order flow of {known.candles:,} candles, {known.covered_fraction:.1%} of "
        f"the range covered, {utc_minute(known.first_ms)} to {utc_minute(known.last_ms)}"
    )


@main.command()
def settings() -> None:
    """Print all options of the `lstm` section, and what times come to, as Markdown tables."""
    click.echo(f"{settings_table()}\n\n{times_table()}")


@main.command()
@click.option("--minutes", default=1.0, show_default=True, help="How long to trade.",
              type=Number(0.0, 10_080.0, above=True))  # fmt: skip
@click.option("--folder", help="[default: .demo, on futures .demo-futures]",
              type=click.Path(file_okay=False, path_type=Path))  # fmt: skip
@click.option("--market", default="synthetic", show_default=True)
@click.option("--futures", is_flag=True, help="On its USD-M futures: long and short.")
def demo(minutes: float, folder: Path | None, market: str, futures: bool) -> None:
    """Download, train, backtest, replay and paper-trade on the loopback exchange, and sum up."""
    from lstm_model.commands.demo import run_demo

    usual, mode = (".demo-futures", "futures") if futures else (".demo", "spot")
    run_demo(console, minutes=minutes, folder=folder or Path(usual), market=market, mode=mode)
