"""What all commands share: the console, the options that name a bot, and how names are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True)

config_option = click.option(
    "-c", "--config", "configs", multiple=True, default=("config.json",), show_default=True,
    type=click.Path(dir_okay=False), help="freqtrade configuration; repeat to overlay.",
)  # fmt: skip
userdir_option = click.option("--userdir", type=click.Path(file_okay=False), help="user_data.")
datadir_option = click.option(
    "--datadir", type=click.Path(file_okay=False), help="Where freqtrade keeps candles."
)

_NAMED = 5  # chosen: as many versions, features or pairs as a sentence names


def load_config(configs: Sequence[str], userdir: str | None, **others: Any) -> dict[str, Any]:
    """Read the configuration that the options of a command name; empty options are left out."""
    from lstm_model.bot import configuration

    overrides = {"user_data_dir": userdir, **others}
    return configuration.load_config(
        configs, {name: value for name, value in overrides.items() if value}
    )


def some(names: Sequence[str]) -> str:
    """The first names of many.

    Examples
    --------
    >>> some(["a", "b"]), some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    others = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {others} more" if others > 0 else "")


def plain_table(first: str) -> Table:
    """A table that fits into 80 columns; its first column is never cut."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    return table
