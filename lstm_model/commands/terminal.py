"""What all commands share: the console, the options that name a bot, and how names are listed."""

from __future__ import annotations

import functools
import io
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from lstm_model.errors import ConfigError
from lstm_model.files import refuse_unwritable

Command = TypeVar("Command", bound=Callable[..., None])

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

MOST_DAYS = 36_500  # chosen: no market is a hundred years old
MOST_INVENTED_DAYS = 730  # of the practice exchange
MOST_MONEY = 1e15  # chosen: beyond, cents are lost in a float
_FOLDER = click.Path(file_okay=False)
_NAMED = 5  # chosen: as many versions, features or pairs as a sentence names


def _noted(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Let whoever tells of an error know which configuration the command was about."""
    ctx.meta[f"{__name__}.{param.name}"] = value
    return value


def without_secrets(ctx: click.Context, text: str) -> str:
    """What is told of an error, without what the command's configuration keeps secret."""
    configs = ctx.meta.get(f"{__name__}.configs")
    if configs is None:  # it was about none
        return text
    from lstm_model.bot.discretion import Discretion
    from lstm_model.bot.named import found_config
    from lstm_model.bot.reading import read_config

    with suppress(OSError):  # a userdir that can be none
        configs = configs or (str(found_config(ctx.meta.get(f"{__name__}.userdir"))),)
    for file in set(configs) - {"-"}:  # what came from there cannot be read again
        with suppress(ConfigError):  # a file that cannot be read, of which nothing is quoted
            text = Discretion.of_part(read_config(Path(file)), ()).of(text)
    return text


# As freqtrade's commands have them, so that the same words name the same bot.
config_option = click.option(
    "-c", "--config", "configs", multiple=True, callback=_noted,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="freqtrade configuration; repeat to overlay.  [default: user_data/config.json, else "
    "config.json]",
)  # fmt: skip
userdir_option = click.option("--userdir", type=_FOLDER, help="user_data.", callback=_noted)
datadir_option = click.option(
    "-d", "--datadir", type=_FOLDER, help="Where freqtrade keeps candles."
)
strategy_option = click.option(
    "-s", "--strategy", help="The class; the configuration's by default, else LSTMStrategy."
)
strategy_path_option = click.option(
    "--strategy-path", type=_FOLDER, help="Where to look for it, too."
)
timeframe_option = click.option(
    "-i", "-t", "--timeframe", help="The configuration's by default, else the strategy's."
)
OF_BOT = (
    config_option, userdir_option, datadir_option, strategy_option, strategy_path_option,
    timeframe_option,
)  # fmt: skip
_NAMES = ("datadir", "strategy", "strategy_path", "timeframe")


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Give a command these options, to be shown in this order."""
    return lambda command: functools.reduce(
        lambda made, option: option(made), reversed(options), command
    )


def of_bot(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a bot, and its function the configuration."""

    @with_options(*OF_BOT)
    @functools.wraps(command)
    def asked(configs: tuple[str, ...], userdir: str | None, **options: Any) -> None:
        named = {name: options.pop(name) for name in _NAMES}
        command(load_config(configs, userdir, **named), **options)

    return asked


def named_configs(configs: Sequence[str], userdir: str | None) -> tuple[str, ...]:
    """The files that the options name, for who reads them more than once.

    Raises
    ------
    ConfigError
        The configuration comes from the standard input, which can be read once; or it is not
        there.
    """
    from lstm_model.bot.named import config_files

    if "-" in configs:
        raise ConfigError("this command reads the configuration several times: give a file, not -")
    return tuple(config_files(configs, userdir))


def load_config(configs: Sequence[str], userdir: str | None, **others: Any) -> dict[str, Any]:
    """Read and check the configuration that options name; empty options are left out."""
    from lstm_model.bot import configuration

    overrides = {"user_data_dir": userdir, **others}
    config = configuration.load_config(
        configs, {name: value for name, value in overrides.items() if value}
    )
    configuration.settings_of(config)  # refused at once, whatever the command is about
    return config


def days_option(days: int | None, text: str = "How far back.") -> Callable[[Command], Command]:
    """`--days`, with this default."""
    return click.option(
        "--days", default=days, show_default=days is not None, help=text,
        type=click.IntRange(1, MOST_DAYS),
    )  # fmt: skip


seed_option = click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0, 2**63 - 1),
    help="Of an invented market.",
)  # fmt: skip


report_option = click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page of HTML."
)


def check_report(report: Path | None) -> None:
    """Refuse a page that cannot be written, before what it tells of is made.

    Raises
    ------
    ConfigError
        Its folder does not exist.
    StoreError
        It cannot be written there.
    """
    if report is None:
        return
    if not report.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {report} does not exist: make it, or name another")
    refuse_unwritable(report.absolute())


class Number(click.FloatRange):
    """A number within bounds; neither nan, which no comparison refuses, nor endless.

    Parameters
    ----------
    above : the least itself is too little
    """

    def __init__(self, least: float, most: float, *, above: bool = False) -> None:
        super().__init__(least, most, min_open=above)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


def write_what_fits() -> None:
    """Let a console that does not know a character show "?" instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def some(names: Sequence[str]) -> str:
    """The first names of many.

    Examples
    --------
    >>> some(["a", "b"]), some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    others = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {others} more" if others > 0 else "")


def plain_table(first: str, *numbers: str) -> Table:
    """A table without lines, for 80 columns; its first column stays in one line."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    return add_numbers(table, *numbers)


def add_numbers(table: Table, *names: str) -> Table:
    """Give a table columns of numbers: where one is too wide it goes on below, and none is cut."""
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table
