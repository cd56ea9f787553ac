"""The command `orders`: what an account holds beside the bot's trades, and how to settle it."""

from __future__ import annotations

from typing import Any

import click

from lstm_model.commands.terminal import console, of_bot, plain_table


@click.command()
@of_bot
@click.option("-p", "--pair", help="Whose orders and position are to be settled.")
@click.option(
    "--settle", type=click.Choice(["keep", "close"]),
    help="keep: what is held is your own, the bot trades beside it. close: cancel those orders and "
    "sell, or buy back, what no trade explains, at the market's price.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask before an order is sent.")
def orders(config: dict[str, Any], pair: str | None, settle: str | None, yes: bool) -> None:
    """List what is on the exchange and belongs to no trade of the bot; nothing is sent by that.

    It ends with status 1 while there is something.
    """
    from lstm_model.risk.inventory import opened

    if (settle is None) != (pair is None):
        raise click.UsageError("--settle and --pair go together")
    with opened(config) as account:
        if settle == "keep" and pair:
            account.keep(pair)
            console.print(f"{pair}: what is held beyond the trades is left alone from now on.")
        elif settle == "close" and pair:
            if not yes:
                click.confirm(
                    f"Send real orders to close what no trade of {pair} owns?", abort=True
                )
            for step in account.close(pair):
                console.print(f"{pair}: {step}.")
        found = _shown(account.look())
    raise SystemExit(1 if found else 0)


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
