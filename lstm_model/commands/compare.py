"""The command `compare`: a strategy with and without `LSTMRisk`, and beside plain rivals."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lstm_model.commands.terminal import config_option, console, datadir_option, userdir_option
from lstm_model.errors import ConfigError

_INTERRUPTED = 130  # as shells say it of Ctrl-C
_FOLDER = click.Path(file_okay=False)
_OPTIONS = (
    config_option,
    userdir_option,
    datadir_option,
    click.option("-s", "--strategy", help="The class of yours; the configuration's by default."),
    click.option("--strategy-path", type=_FOLDER, help="Where to look for it, too."),
    click.option("--recursive-strategy-search", is_flag=True, help="In folders below, too."),
    click.option("--timerange", metavar="FROM-TO",
                 help="As freqtrade writes it, e.g. 20240101-20240701; all there is by default."),
    click.option("-i", "-t", "--timeframe", help="The strategy's by default."),
    click.option("--timeframe-detail", help="Of smaller candles to look into."),
    click.option("-p", "--pairs", multiple=True, metavar="PAIR",
                 help="Repeat for more; the whitelist by default."),
    click.option("--fee", type=click.FloatRange(0.0, 1.0),
                 help="Of one side, as a fraction; the exchange's by default."),
    click.option("--dry-run-wallet", "--starting-balance",
                 type=click.FloatRange(0.0, min_open=True),
                 help="The configuration's by default."),
    click.option("--stake-amount", help="The configuration's by default; a number or unlimited."),
    click.option("--max-open-trades", type=int, help="The configuration's by default."),
    click.option("--enable-protections", is_flag=True, help="As in freqtrade, off by default."),
)  # fmt: skip


def _as_in_freqtrade(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a backtest."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


@click.command()
@_as_in_freqtrade
@click.option("--slippage", default=0.0, show_default=True, type=click.FloatRange(0.0, 0.1),
              help="Lost on the value of each order, as a fraction, e.g. 0.0005.")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write a page of HTML.")  # fmt: skip
def compare(
    slippage: float, report: Path | None, configs: tuple[str, ...], userdir: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Backtest your strategy with and without LSTMRisk, and beside two plain rivals.

    Backtests of freqtrade over the same time: as it is, as `class X(LSTMRisk, Yours)`, and with
    stakes by a constant and by EWMA volatility at the same mean exposure. No file has to be written
    for it. Says what of the difference is proven.
    """
    from lstm_model.commands.compare_view import Screen, renderables
    from lstm_model.rivals.report import render_page
    from lstm_model.rivals.rivalry import contest

    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {report} does not exist: make it, or name another")
    try:
        with Screen(console) as screen:
            rivalry = contest(_arguments(configs, userdir, options), slippage, screen)
    except KeyboardInterrupt:
        console.print("Stopped. What was trained is kept; the same command goes on from there.")
        sys.exit(_INTERRUPTED)
    for part in renderables(rivalry):
        console.print(part)
    if report is not None:
        report.write_text(render_page(rivalry), encoding="utf-8")
        console.print(f"Report: {report}", markup=False)


def _arguments(
    configs: tuple[str, ...], userdir: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """As freqtrade's own command line gives them; what was not given is left out."""
    given = {
        **options, "config": list(configs), "user_data_dir": userdir,
        "pairs": list(options["pairs"]),
    }  # fmt: skip
    return {
        name: value for name, value in given.items()
        if value is not None and value is not False and value != []
    }  # fmt: skip
