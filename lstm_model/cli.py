"""The command `freqtrade-lstm`. The only module that prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import lstm_model
from lstm_model.card import ModelCard
from lstm_model.config import settings_table
from lstm_model.errors import LstmModelError
from lstm_model.flow_history import FlowSpan

console = Console(highlight=False, soft_wrap=True)

_config_option = click.option(
    "-c", "--config", "configs", multiple=True, default=("config.json",), show_default=True,
    type=click.Path(dir_okay=False), help="freqtrade configuration; repeat to overlay.",
)  # fmt: skip
_userdir_option = click.option("--userdir", type=click.Path(file_okay=False), help="user_data.")
_datadir_option = click.option(
    "--datadir", type=click.Path(file_okay=False), help="Where freqtrade keeps candles."
)


class _Group(click.Group):
    """Prints our errors as one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LstmModelError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group)
@click.version_option(lstm_model.__version__)
def main() -> None:
    """LSTMStrategy for freqtrade: train, look at models, practise on a loopback exchange."""


@main.command()
@click.option("--userdir", required=True, type=click.Path(file_okay=False, path_type=Path))
def init(userdir: Path) -> None:
    """Put the strategy and an example configuration into your user_data folder."""
    from lstm_model.scaffold import next_command, scaffold

    for action in scaffold(userdir):
        console.print(str(action))
    console.print("Run next:\n  " + next_command(userdir), markup=False)


@main.command()
@click.option("--market", default="synthetic", show_default=True,
              help="synthetic, random-walk, or a folder of candles or trades.")  # fmt: skip
@click.option("--port", default=8787, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--days", default=30, show_default=True, help="History before today.")
@click.option("--fault", "specs", multiple=True, metavar="NAME=VALUE",
              help="What goes wrong: gaps=0.01, silence=60:5, ...; repeat.")  # fmt: skip
def exchange(market: str, port: int, seed: int, days: int, specs: tuple[str, ...]) -> None:
    """Serve a practice market in Binance's dialect on 127.0.0.1 until interrupted."""
    from lstm_model.replay.exchange import open_market, run_exchange
    from lstm_model.replay.faults import parse_faults

    faults = parse_faults(specs)
    console.print(f"Preparing market {market!r} (seed {seed}, {days} days) ...", markup=False)
    opened = open_market(market, seed, days)
    if specs:
        console.print("What goes wrong: " + ", ".join(specs), markup=False)
    run_exchange(
        opened, port=port, ready=lambda url: console.print(f"Serving on {url}"), faults=faults
    )


@main.command()
@_config_option
@_userdir_option
@_datadir_option
def train(configs: tuple[str, ...], userdir: str | None, datadir: str | None) -> None:
    """Train the model that is due now and make it the champion."""
    from lstm_model import bot
    from lstm_model.wording import describe, summary

    config = _load(configs, userdir, datadir)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("Training", total=1.0)
        model = bot.train_now(
            config,
            lambda p: bar.update(task, completed=p.fraction, description=describe(p)),
            time.time_ns() // 1_000_000,
        )
        bar.update(task, completed=1.0, description="Training done")
    console.print(summary(model))
    print_card(model.card)


@main.command("download-flow")
@_config_option
@_userdir_option
@_datadir_option
@click.option("-t", "--timeframe", help="Of the candles; the configuration's by default.")
@click.option("--days", type=click.IntRange(1), help="How far back; by default as far as the model "
              "in force learns. Backtests reach further: give their start.")  # fmt: skip
@click.option("--timerange", metavar="FROM-TO", help="As freqtrade writes it, e.g. 20240101-.")
@click.option("-p", "--pairs", "pairs", multiple=True, metavar="PAIR",
              help="Repeat for more; the whitelist by default.")  # fmt: skip
def download_flow(
    configs: tuple[str, ...], userdir: str | None, datadir: str | None, timeframe: str | None,
    days: int | None, timerange: str | None, pairs: tuple[str, ...],
) -> None:  # fmt: skip
    """Get the past order flow of candles: who bought and sold how much, for "order_flow"."""
    from lstm_model import flow_source

    config = _load(configs, userdir, datadir, timeframe=timeframe, pairs=list(pairs))
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
        f"the range covered, {_minute(known.first_ms)} to {_minute(known.last_ms)}"
    )


@main.command()
@_config_option
@_userdir_option
@click.option("--last", default=1, show_default=True, help="How many of the newest cards.")
def models(configs: tuple[str, ...], userdir: str | None, last: int) -> None:
    """Print the cards of stored models: data, settings, scores beside baselines."""
    from lstm_model import bot
    from lstm_model.store import ModelStore

    config = _load(configs, userdir, None)
    settings = bot.settings_of(config)
    folder = bot.store_folder(config, settings)
    cards = ModelStore(folder).cards()
    if not cards:
        console.print(f"No models in {folder}. Run `freqtrade-lstm train` or a backtest.")
    for card in cards[-last:]:
        print_card(card)


@main.command()
def settings() -> None:
    """Print all options of the `lstm` section as a Markdown table."""
    click.echo(settings_table())


@main.command()
@click.option("--minutes", default=3.0, show_default=True, help="How long to trade.")
@click.option("--folder", default=".demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--market", default="synthetic", show_default=True)
def demo(minutes: float, folder: Path, market: str) -> None:
    """Download, train, backtest and paper-trade on the loopback exchange, then sum up."""
    from lstm_model.replay.demo import run_demo

    run_demo(console, minutes=minutes, folder=folder, market=market)


def print_card(card: ModelCard) -> None:
    """A model card as tables: what it was made of, and its scores beside the baselines."""
    console.print(_facts(card))
    console.print(_scores(card))
    console.print(_gains(card))
    console.print(card_verdict(card))


def _facts(card: ModelCard) -> Table:
    table = Table(title=f"Model {card.version}", show_header=False)
    options = card.settings
    for name, value in {
        "pairs": ", ".join(card.pairs),
        "timeframe, horizon": f"{card.timeframe}, {options['horizon']} candles",
        "data": f"{_minute(card.train_start_ms)} to {_minute(card.train_end_ms)}",
        "serves from": _minute(card.serves_from_ms),
        "windows": ", ".join(f"{name} {count:,}" for name, count in card.windows.items()),
        "training": f"{card.epochs} epochs, {card.seconds:.0f} s, seed {options['seed']}",
        "shrinkage of the mean": f"{card.calibration['shrinkage'][0]:.2f}",
    }.items():
        table.add_row(name, value)
    return table


def _scores(card: ModelCard) -> Table:
    table = Table(
        title="Scores on the test block, newer than anything trained on",
        caption="R2 against zero return; late: entered one candle after the forecast; bps",
    )
    for column in ("forecast", "R2", "R2 late", "hits", "late", "cover", "width", "Winkler"):
        table.add_column(column, justify="left" if column == "forecast" else "right")
    for name, title in _FORECASTERS.items():
        table.add_row(title, *_score_cells(card.scores[name], card.scores[f"{name}_delayed"]))
    return table


_FORECASTERS = {
    "lstm": "LSTM as served",
    "lstm_raw": "LSTM unshrunk",
    "ridge": "ridge",
    "reversal": "reversal",
    "zero": "zero, EWMA",
}


def _score_cells(scores: Mapping[str, float], late: Mapping[str, float]) -> Iterator[str]:
    """R2 and hit rate beside their delayed twins, then the interval's scores in basis points."""
    for key, form in (("r2", "{:+.2%}"), ("hit_rate", "{:.1%}")):
        yield from (form.format(twin[key]) if key in twin else "" for twin in (scores, late))
    for key, form in (("coverage", "{:.1%}"), ("width_bps", "{:.1f}"), ("winkler_bps", "{:.1f}")):
        yield form.format(scores[key]) if key in scores else ""


def _gains(card: ModelCard) -> str:
    """R squared of the LSTM as served with each baseline's error as the reference."""
    skill = card.skill
    gains = (
        f"{name} {skill[f'r2_vs_{name}']:+.2%} (late {skill[f'r2_vs_{name}_delayed']:+.2%})"
        for name in ("zero", "ridge", "reversal")
    )
    return "Squared error saved against " + ", ".join(gains) + "."


def card_verdict(card: ModelCard) -> str:
    """Whether the mean has skill, in a sentence."""
    skill = card.skill
    return (
        f"Skill of the mean against zero: p = {skill['p_value']:.3f}, one candle late "
        f"p = {skill['p_value_delayed']:.3f}: "
        + ("proven at 5 %." if card.proven else "NOT proven; with require_skill no entries.")
        + f" Intervals against EWMA volatility: Winkler {skill['winkler_vs_zero']:+.1%}."
    )


def _minute(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _load(
    configs: Sequence[str], userdir: str | None, datadir: str | None, **others: Any
) -> dict[str, Any]:
    from lstm_model import bot

    overrides = {"user_data_dir": userdir, "datadir": datadir, **others}
    given = {name: value for name, value in overrides.items() if value}
    return bot.load_config(configs, given)
