"""The command `compare`: a strategy with and without `LSTMRisk`, and beside plain rivals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lstm_model.commands.terminal import (
    MOST_MONEY,
    OF_BOT,
    Number,
    check_report,
    console,
    load_config,
    named_configs,
    report_option,
    with_options,
)
from lstm_model.errors import ConfigError

_INTERRUPTED = 130  # as shells say it of Ctrl-C
_NAMING = ("datadir", "strategy", "strategy_path", "recursive_strategy_search", "timeframe")


class _Stake(Number):
    """An amount, or `unlimited`."""

    name = "stake"

    def __init__(self) -> None:
        super().__init__(0.0, MOST_MONEY, above=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if value == "unlimited" else super().convert(value, param, ctx)


_OPTIONS = (
    *OF_BOT,
    click.option("--recursive-strategy-search", is_flag=True, help="In folders below, too."),
    click.option("--timerange", metavar="FROM-TO",
                 help="As freqtrade writes it, e.g. 20240101-20240701; all there is by default."),
    click.option("--timeframe-detail", help="Of smaller candles to look into."),
    click.option("-p", "--pairs", multiple=True, metavar="PAIR",
                 help="Repeat for more; the whitelist by default."),
    click.option("--fee", type=Number(0.0, 1.0),
                 help="Of one side, as a fraction; the exchange's by default."),
    click.option("--dry-run-wallet", "--starting-balance",
                 type=Number(0.0, MOST_MONEY, above=True),
                 help="The configuration's by default."),
    click.option("--stake-amount", type=_Stake(), metavar="AMOUNT|unlimited",
                 help="The configuration's by default."),
    click.option("--max-open-trades", type=click.IntRange(-1, 1_000_000),
                 help="The configuration's by default; -1: any number."),
    click.option("--enable-protections", is_flag=True, help="As in freqtrade, off by default."),
)  # fmt: skip


@click.command()
@with_options(*_OPTIONS)
@click.option("--slippage", default=0.0, show_default=True, type=Number(0.0, 0.1),
              help="Lost on the value of each order, as a fraction, e.g. 0.0005.")  # fmt: skip
@report_option
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

    configs = named_configs(configs, userdir)
    check_report(report)
    _check(load_config(configs, userdir, **{name: options[name] for name in _NAMING}), options)
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
        console.print(f"Report: {report}")


def _check(config: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse what the first or a later backtest would stumble over."""
    from lstm_model.bot import configuration

    configuration.parsed_timerange(options["timerange"])
    if not config.get("strategy"):
        raise ConfigError("no strategy to compare: give --strategy, the name of its class")
    configuration.load_strategy(config)


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
