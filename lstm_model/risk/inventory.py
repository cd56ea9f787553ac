"""What an account holds beside the bot's trades, looked at and put in order by hand.

It works beside a running bot, which hears of it with its next look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from freqtrade.exceptions import FreqtradeException
from freqtrade.persistence import Trade

from lstm_model.bot import insides
from lstm_model.bot.assembly import opened_exchange
from lstm_model.bot.configuration import Config, configured_pairs, in_a_line, settings_of, silent
from lstm_model.bot.named import files_in_order
from lstm_model.errors import ConfigError, DataError
from lstm_model.orders.book import Book, Intent
from lstm_model.orders.standing import NOTHING, Owned, Standing, Unowned, excess, unowned
from lstm_model.risk.desk import KNOWN, UNREADABLE, Desk, in_short
from lstm_model.risk.ownership import book_path, owned_by


@dataclass(frozen=True)
class Inventory:
    """One look at an account.

    Attributes
    ----------
    found : what no trade explains
    waiting : entries of which the bot does not know what became
    kept : by pair what is left alone, base currency
    """

    found: tuple[Unowned, ...]
    waiting: tuple[Intent, ...]
    kept: dict[str, float]


class Account:
    """The account of a configuration, beside its trades; see `opened`."""

    def __init__(self, client: Any, futures: bool, book: Book, pairs: Sequence[str]) -> None:
        self._client, self._book = client, book
        self._desk = Desk(client, futures=futures)
        self._futures, self._pairs = futures, tuple(pairs)

    def look(self) -> Inventory:
        """What is there now.

        Raises
        ------
        DataError
            The exchange refuses or does not answer.
        StoreError
            The book of orders cannot be read.
        """
        page = self._book.read()
        standing, owned, pairs = self._standing()
        found = tuple(unowned(standing, owned, page.kept, pairs))
        kept = {pair: amount for pair, amount in page.kept.items() if amount}
        return Inventory(found, tuple(page.intents.values()), kept)

    def keep(self, pair: str) -> None:
        """What is held of the pair beyond the trades is the user's own from now on."""
        standing, owned, _ = self._standing()
        extra = excess(standing.held.get(pair, 0.0), owned.get(pair, NOTHING))
        self._forget(pair, kept={**self._book.read().kept, pair: extra})

    def close(self, pair: str) -> Iterator[str]:
        """Cancel the orders of the pair that no trade knows, and close what none explains.

        Says what was done, step by step; each step is an order, and all may fail on its way.
        """
        for one in self._of(pair):
            if one.order:
                self._send(
                    "cancel_order", one.order, pair, {"trigger": True} if one.conditional else {}
                )
                yield f"order {one.order} is cancelled"
        for one in self._of(pair):
            if not one.order and not one.reduces:
                side = "sell" if one.amount > 0.0 else "buy"
                amount = float(self._client.amount_to_precision(pair, abs(one.amount)))
                options = {"reduceOnly": True} if self._futures else {}
                self._send("create_order", pair, "market", side, amount, None, options)
                yield f"{amount:.8g} are to be {'sold' if side == 'sell' else 'bought back'}"
        self._forget(pair)

    def _forget(self, pair: str, **parts: Any) -> None:
        """The user knows what became of the pair's order: the bot waits for nothing more."""
        page = self._book.read()
        intents, refusals = (
            {name: it for name, it in known.items() if name != pair}
            for known in (page.intents, page.refusals)
        )
        self._book.change(intents=intents, refusals=refusals, **parts)

    def _of(self, pair: str) -> list[Unowned]:
        return [one for one in self.look().found if one.pair == pair]

    def _send(self, method: str, *arguments: Any) -> None:
        try:
            getattr(self._client, method)(*arguments)
        except UNREADABLE as error:
            raise DataError(f"{method}: {in_short(error)}") from None

    def _price(self, pair: str) -> float:
        try:
            return float(self._client.fetch_ticker(pair)["last"] or "nan")
        except UNREADABLE as error:
            raise DataError(f"the price of {pair}: {in_short(error)}") from None

    def _standing(self) -> tuple[Standing, dict[str, Owned], set[str]]:
        owned = owned_by(Trade.get_open_trades())
        book = self._book.read()
        pairs = {*self._pairs, *owned, *book.kept, *book.intents}
        known = {pair for pair in pairs if pair in self._client.markets}
        self._desk.follow({pair: self._price(pair) for pair in known})
        standing = self._desk.look()
        return standing, owned, {*known, *standing.held, *(it.pair for it in standing.placed)}


@contextmanager
def opened(config: Config) -> Iterator[Account]:
    """The account that a configuration trades with.

    Raises
    ------
    ConfigError
        It trades with no money, or its exchange cannot be asked.
    """
    files = {"config": files_in_order(config), "user_data_dir": str(config["user_data_dir"])}
    try:
        with silent():
            config = insides.set_up_bot(files)
    except FreqtradeException as error:
        raise ConfigError(in_a_line(error)) from None
    if config["dry_run"]:
        raise ConfigError('"dry_run" is true: this bot has no orders on the exchange')
    futures = config.get("trading_mode") == "futures"
    book = Book(book_path(config, settings_of(config)))
    with opened_exchange(config) as exchange, insides.database(config["db_url"]):
        client = insides.client_of(exchange)
        if client.id not in KNOWN:
            raise ConfigError(f"the account of {client.id} is not known: only {', '.join(KNOWN)}")
        try:
            with silent():
                exchange.reload_markets(True, load_leverage_tiers=False)
        except FreqtradeException as error:
            raise ConfigError(in_a_line(error)) from None
        yield Account(client, futures, book, configured_pairs(config, ()))
