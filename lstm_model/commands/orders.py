"""The command `orders`: what an account holds beside the bot's trades, and how to settle it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lstm_model.commands.terminal import (
    OF_BOT,
    console,
    load_config,
    named_configs,
    plain_table,
    with_options,
)

_OPTIONS = (
    *OF_BOT,
    click.option("--db-url", help="The bot's database of trades; the configuration's by default."),
    click.option("-p", "--pair", help="Whose orders and position are to be settled."),
    click.option(
        "--settle", type=click.Choice(["keep", "close"]),
        help="keep: what is held is your own, the bot trades beside it. close: cancel those orders "
        "and sell, or buy back, what no trade explains, at the market's price.",
    ),
    click.option("--yes", is_flag=True, help="Do not ask before an order is sent."),
)  # fmt: skip


@click.command()
@with_options(*_OPTIONS)
def orders(
    configs: tuple[str, ...], userdir: str | None, db_url: str | None, pair: str | None,
    settle: str | None, yes: bool, **named: Any,
) -> None:  # fmt: skip
    """List what is on the exchange and belongs to no trade of the bot; nothing is sent by that.

    It ends with status 1 while there is something.
    """
    from lstm_model.risk.inventory import PAUSE_S, opened

    if (settle is None) != (pair is None):
        raise click.UsageError("--settle and --pair go together")
    files = named_configs(configs, userdir)
    with opened(load_config(files, userdir, **named), files, db_url) as account:
        if pair:
            console.print(f"{pair}: looking twice, {PAUSE_S:g} s apart ...")
        if settle == "keep" and pair:
            own = account.keep(pair)
            console.print(f"{pair}: {own:.8g} beyond the trades are left alone from now on.")
        elif settle == "close" and pair:
            _close(account, pair, yes=yes)
        found = _shown(account.look())
    raise SystemExit(1 if found else 0)


def _close(account: Any, pair: str, *, yes: bool) -> None:
    """Say what is to be sent, ask, and send it."""
    agreed = account.unclaimed(pair)
    steps = _steps(agreed)
    for step in steps or ["nothing is to be cancelled or closed"]:
        console.print(f"{pair}: {step}.")
    if steps and not yes:
        click.confirm(
            f"Send these orders? No trade in {account.trades} explains what they settle.",
            abort=True,
        )
    for step in account.close(pair, agreed):
        console.print(f"{pair}: {step}.")


def _steps(agreed: Sequence[Any]) -> list[str]:
    """What is to be sent, in words: orders first."""
    cancelled = [
        f"cancel order {one.order}, {one.amount:+.8g} at {one.rate:.8g}, worth "
        f"{abs(one.amount * one.rate):,.2f}"
        for one in agreed if one.order
    ]  # fmt: skip
    closed = [
        f"{'sell' if one.amount > 0.0 else 'buy back'} {abs(one.amount):.8g} at the market's "
        f"price, worth {abs(one.exposure):,.2f}"
        for one in agreed if not one.order and not one.reduces
    ]  # fmt: skip
    return [*cancelled, *closed]


def _shown(inventory: Any) -> bool:
    """Print a look at the account; whether something belongs to nobody."""
    for intent in inventory.waiting:
        console.print(
            f"{intent.pair}: an entry of {intent.amount:.8g} at {intent.rate:.8g} was sent, and "
            "the bot does not know yet what became of it."
        )
    for pair, amount in inventory.kept.items():
        console.print(f"{pair}: {amount:.8g} are left alone as your own.")
    if not inventory.found:
        console.print("Every position and order on the exchange belongs to a trade.")
        return False
    table = plain_table("pair", "worth", "order")
    table.add_column("no trade explains")
    for one in inventory.found:
        table.add_row(one.pair, f"{abs(one.amount * one.rate):,.2f}", one.order or "-", one.text)
    console.print(table)
    console.print("Settle a pair by --pair and --settle, or on the exchange's own pages.")
    return True
