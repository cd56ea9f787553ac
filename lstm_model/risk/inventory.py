"""What an account holds beside the bot's trades, looked at and put in order by hand.

It works beside a running bot, which hears of it with its next look.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from freqtrade.exceptions import FreqtradeException
from freqtrade.persistence import Trade

from lstm_model.bot import insides
from lstm_model.bot.assembly import opened_exchange
from lstm_model.bot.configuration import Config, configured_pairs, settings_of
from lstm_model.bot.reading import in_a_line, silent
from lstm_model.errors import ConfigError, DataError
from lstm_model.orders.book import Book, Intent, Page
from lstm_model.orders.guard import IN_FLIGHT_MS
from lstm_model.orders.standing import (
    NOTHING,
    Owned,
    Standing,
    Unowned,
    excess,
    left_alone,
    nearer,
    shown_by_both,
    unexplained,
)
from lstm_model.risk.desk import KNOWN, UNREADABLE, Desk, in_short
from lstm_model.risk.ownership import book_path, owned_by
from lstm_model.store.database import Foreign

PAUSE_S = 10.0  # chosen, as the guard's: an exchange may take so long to show what is so


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


@dataclass(frozen=True)
class _Seen:
    """An answer of the exchange between two looks at the trades."""

    standing: Standing
    then: Mapping[str, Owned]
    now: Mapping[str, Owned]
    kept: Mapping[str, float]
    intents: Mapping[str, Intent]
    pairs: frozenset[str]

    @property
    def found(self) -> dict[str, Unowned]:
        """By key what no trade explains."""
        return unexplained(self.standing, self.then, self.now, self.kept, self.pairs)

    def found_of(self, pair: str) -> dict[str, Unowned]:
        """The same of one pair."""
        return {key: one for key, one in self.found.items() if one.pair == pair}

    def excess_of(self, pair: str) -> float:
        """What is held of a pair beyond the trades, the user's own too."""
        held = self.standing.held.get(pair, 0.0)
        return nearer(*(excess(held, it.get(pair, NOTHING)) for it in (self.then, self.now)))


class Account:
    """The account of a configuration, beside its trades; see `opened`.

    Parameters
    ----------
    client : ccxt's exchange, with keys and loaded markets
    stake : the currency that the bot pays with
    pairs : those that it may trade
    trades : names its database of trades, for the user

    Attributes
    ----------
    trades : the same
    """

    def __init__(
        self, client: Any, book: Book, pairs: Sequence[str], *, futures: bool, stake: str,
        trades: str,
    ) -> None:  # fmt: skip
        self._client, self._book, self.trades = client, book, trades
        self._desk = Desk(client, futures=futures)
        self._futures, self._stake, self._pairs = futures, stake, tuple(pairs)

    def look(self) -> Inventory:
        """What is there now.

        Raises
        ------
        DataError
            The exchange refuses or does not answer.
        StoreError
            The book of orders cannot be read.
        """
        seen = self._seen()
        kept = {pair: amount for pair, amount in seen.kept.items() if amount}
        return Inventory(tuple(seen.found.values()), tuple(seen.intents.values()), kept)

    def keep(self, pair: str, pause_s: float = PAUSE_S) -> float:
        """What is held of the pair beyond the trades is the user's own from now on.

        Parameters
        ----------
        pause_s : between two looks, which must both show it

        Returns
        -------
        How much that is, base currency, shorts below zero.

        Raises
        ------
        ConfigError
            There is no such pair.
        DataError
            The bot is just entering it, or the exchange refuses or does not answer.
        StoreError
            The book of orders cannot be read or written.
        """
        before, now = self._two_looks(pair, pause_s)
        own = nearer(before.excess_of(pair), now.excess_of(pair))
        self._book.settle(pair, now.intents.get(pair), own)
        return own

    def unclaimed(self, pair: str, pause_s: float = PAUSE_S) -> tuple[Unowned, ...]:
        """What of a pair no trade explains by either of two looks, `pause_s` apart.

        Raises
        ------
        ConfigError
            There is no such pair.
        DataError
            No bot has begun with these trades, it is just entering the pair, or the exchange
            refuses or does not answer.
        StoreError
            The book of orders cannot be read.
        """
        if not self._book.path.exists():
            raise DataError(
                f"no bot has begun with the trades in {self.trades}, for there is no book of "
                f"orders {self._book.path}: all that it holds would be nobody's. Give its -c "
                "files, and its --db-url if it has one"
            )
        before, now = self._two_looks(pair, pause_s)
        return tuple(shown_by_both(before.found_of(pair), now.found_of(pair)).values())

    def close(self, pair: str, agreed: Iterable[Unowned]) -> Iterator[str]:
        """Cancel those orders and close those positions, as far as a look now still shows them.

        Says what was done, step by step; each step is an order, and all may fail on its way.

        Parameters
        ----------
        agreed : of `unclaimed`
        """
        seen = self._looked(pair)
        now = shown_by_both({one.key: one for one in agreed}, seen.found_of(pair)).values()
        for one in now:
            if one.order:
                options = {"trigger": True} if one.conditional else {}
                self._ask("cancel_order", one.order, pair, options)
                yield f"order {one.order} is cancelled"
        for one in now:
            if not one.order and not one.reduces:
                side = "sell" if one.amount > 0.0 else "buy"
                amount = float(self._ask("amount_to_precision", pair, abs(one.amount)))
                options = {"reduceOnly": True} if self._futures else {}
                self._ask("create_order", pair, "market", side, amount, None, options)
                yield f"{amount:.8g} are to be {'sold' if side == 'sell' else 'bought back'}"
        self._book.settle(pair, seen.intents.get(pair))

    def _two_looks(self, pair: str, pause_s: float) -> tuple[_Seen, _Seen]:
        before = self._looked(pair)
        time.sleep(pause_s)
        return before, self._looked(pair)

    def _looked(self, pair: str) -> _Seen:
        """A look in which this pair is, while the bot is not entering it."""
        self._check(pair)
        seen = self._seen(pair)
        if intent := seen.intents.get(pair):
            left_s = (intent.time_ms + IN_FLIGHT_MS - time.time_ns() // 1_000_000) / 1000.0
            if left_s > 0.0:
                raise DataError(
                    f"{pair}: the bot has just sent an entry, and its trade may not be written "
                    f"down yet: ask again in {left_s:.0f} s"
                )
        return seen

    def _check(self, pair: str) -> None:
        """Refuse what the bot cannot trade: on spot, coins are counted once, for one pair."""
        known = [
            name for name, market in self._client.markets.items()
            if (market["swap"] if self._futures else market["spot"])
            and (self._futures or market["quote"] == self._stake)
        ]  # fmt: skip
        if pair not in known:
            near = get_close_matches(pair.upper(), known, n=1)
            meant = f"did you mean {near[0]}?" if near else "look at freqtrade list-pairs"
            kind = "futures" if self._futures else f"spot for {self._stake}"
            raise ConfigError(f"{self._client.id} has no such pair on {kind}: {pair}; {meant}")

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._client, method)(*arguments)
        except UNREADABLE as error:
            raise DataError(f"{method}: {in_short(error)}") from None

    def _price(self, pair: str) -> float:
        return float(self._ask("fetch_ticker", pair)["last"] or "nan")

    def _seen(self, *more: str) -> _Seen:
        """Ask, between two looks at the trades.

        The book is read before them each time: an order that it does not name any more has become
        a trade before.
        """
        before = self._book.read()
        pairs = {*self._pairs, *_owned(), *before.kept, *before.intents, *more}
        known = {pair for pair in pairs if pair in self._client.markets}
        self._desk.follow({pair: self._price(pair) for pair in known})
        then = _owned()
        standing = self._desk.look()
        page = self._book.read()
        now = _owned()
        looked = frozenset({*known, *standing.held, *(it.pair for it in standing.placed)})
        intents = {**before.intents, **page.intents}
        return _Seen(
            standing, then, now, self._own(page, intents, standing, (then, now), looked),
            intents, looked,
        )  # fmt: skip

    def _own(
        self, page: Page, intents: Mapping[str, Intent], standing: Standing,
        both: tuple[Mapping[str, Owned], Mapping[str, Owned]], pairs: frozenset[str],
    ) -> dict[str, float]:  # fmt: skip
        """By pair what is the user's, as the bot's next look takes it."""
        first = [] if self._futures else page.first_looks(pairs - intents.keys())
        return left_alone(standing, both, page.kept, pairs, first)


def _owned() -> dict[str, Owned]:
    """The open trades as they are now: a transaction shows those of its beginning."""
    Trade.rollback()
    return owned_by(Trade.get_open_trades())


@contextmanager
def opened(config: Config, files: Sequence[str], db_url: str | None = None) -> Iterator[Account]:
    """The account that a configuration trades with.

    Parameters
    ----------
    config : as a command has it
    files : those that it was read from, the last one wins; a bot's configuration is read of them
    db_url : the database of trades, laid over the configuration's

    Raises
    ------
    ConfigError
        It trades with no money, or its exchange is not one of those that are known.
    DataError
        There is no such database, or the exchange cannot be reached.
    StoreError
        The database cannot be used.
    """
    config = _of_bot(config, files, db_url)
    trades = Foreign(config["db_url"])
    if trades.is_missing:
        raise DataError(
            f"there is no database {trades.shown}, in which the bot keeps its trades: give the "
            "bot's own by --db-url sqlite:///FILE, or run this in the folder where the bot runs"
        )
    futures = config.get("trading_mode") == "futures"
    book = Book(book_path(config, settings_of(config)))
    with opened_exchange(config) as exchange:
        client = insides.client_of(exchange)
        if client.id not in KNOWN:
            raise ConfigError(f"the account of {client.id} is not known: only {', '.join(KNOWN)}")
        with silent():  # that it cannot be reached is logged
            exchange.reload_markets(True, load_leverage_tiers=False)
        if not client.markets:
            raise DataError(f"{exchange.name} does not say what it trades: is it reachable?")
        with trades.used(), insides.database(config["db_url"]):
            yield Account(
                client, book, configured_pairs(config, ()), futures=futures,
                stake=config["stake_currency"], trades=trades.shown,
            )  # fmt: skip


def _of_bot(config: Config, files: Sequence[str], db_url: str | None) -> Config:
    """The configuration as the bot has it; a command's has no database and no keys."""
    args = {
        "config": list(files), "user_data_dir": str(config["user_data_dir"]),
        "timeframe": config["timeframe"], "db_url": db_url,
    }  # fmt: skip
    try:
        with silent():
            config = insides.set_up_bot(args)
    except FreqtradeException as error:
        raise ConfigError(in_a_line(error)) from None
    if config["dry_run"]:
        raise ConfigError('"dry_run" is true: this bot has no orders on the exchange')
    return config
