"""What no trade explains, found and settled by real ccxt beside what a bot writes meanwhile."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt
import pytest
from account_files import PAIRS, make_database, trade_of, url_of

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.faults import Refused
from lstm_model.accounts.overlay import live_overlay
from lstm_model.bot import insides
from lstm_model.errors import ConfigError, DataError
from lstm_model.orders.book import Book, Intent, Page
from lstm_model.orders.guard import IN_FLIGHT_MS, Guard
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.risk.desk import Desk
from lstm_model.risk.inventory import Account

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
PAIR = "SOL/USDT"
MARKET = synthetic_market(days=1)


@pytest.fixture
def exchange() -> Iterator[TradingExchange]:
    with TradingExchange(MARKET, {"USDT": "1000"}) as running:
        yield running


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """Of a bot that has begun, and found nothing of its pairs."""
    made = Book(tmp_path / "orders" / "bot.json")
    made.change(kept=dict.fromkeys(PAIRS, 0.0))
    return made


def client_of(exchange: TradingExchange, mode: str) -> Any:
    told = live_overlay(exchange.url, mode)["exchange"]
    client = ccxt.binance({"apiKey": told["key"], "secret": told["secret"], **told["ccxt_config"]})
    if mode == "futures":
        client.options["defaultType"] = "swap"  # as freqtrade sets it
    client.load_markets()
    return client


@contextmanager
def account_of(
    exchange: TradingExchange, book: Book, folder: Path, meanwhile: Callable[[], None] | None = None
) -> Iterator[Account]:
    """An account; `meanwhile` is done once, when the exchange has said what waits there."""
    mode = exchange.trading_mode
    client = client_of(exchange, mode)
    ask, todo = client.fetch_open_orders, [meanwhile] if meanwhile else []

    def asked(*arguments: Any, **options: Any) -> Any:
        answer = ask(*arguments, **options)
        while todo:
            todo.pop()()
        return answer

    client.fetch_open_orders = asked
    pairs = [f"{pair}:USDT" if mode == "futures" else pair for pair in PAIRS]
    with insides.database(url_of(folder)):
        yield Account(
            client, book, pairs, futures=mode == "futures", stake="USDT", trades=url_of(folder)
        )
    client.session.close()


def bot_writes(folder: Path, sql: str) -> None:
    """As the bot does it: by a connection of its own."""
    with closing(sqlite3.connect(folder / "trades.sqlite")) as database, database:
        database.execute(sql)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def intent(age_ms: int = 0, pair: str = PAIR) -> Intent:
    return Intent(pair, 1, 1.0, 100.0, now_ms() - age_ms)


def sold(exchange: TradingExchange) -> list[str]:
    return [order.draft.symbol for order in exchange.truth.orders if order.draft.side == "SELL"]


def test_a_trade_that_is_written_down_while_the_exchange_answers_explains_it(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    """The bot had sent the order of it before, and its intent is settled since."""
    make_database(tmp_path, trade_of(PAIR, 0.999, is_open=False))
    exchange.by_hand("SOLUSDT", "BUY", "1")

    def opens() -> None:
        bot_writes(tmp_path, "UPDATE trades SET is_open = 1")

    with account_of(exchange, book, tmp_path, opens) as account:
        assert account.look().found == ()


def test_a_trade_that_is_closed_while_the_exchange_answers_explains_it(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path, trade_of(PAIR, 0.999))
    exchange.by_hand("SOLUSDT", "BUY", "1")

    def closes() -> None:
        bot_writes(tmp_path, "UPDATE trades SET is_open = 0")

    with account_of(exchange, book, tmp_path) as account:
        assert account.look().found == ()
    with account_of(exchange, book, tmp_path, closes) as account:
        assert account.look().found == ()
        assert [one.text for one in account.look().found]  # the exit was never sent


def test_what_only_one_of_two_looks_shows_is_not_touched(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path, trade_of(PAIR, 0.999, is_open=False))
    exchange.by_hand("SOLUSDT", "BUY", "1")
    with account_of(exchange, book, tmp_path) as account:
        assert [one.pair for one in account.look().found] == [PAIR]
        asked = len(exchange.truth.requests)
        late = threading.Thread(target=writes_once_asked, args=(exchange, asked, tmp_path))
        late.start()
        found = account.unclaimed(PAIR, pause_s=2.0)
        late.join()
        assert found == ()
        assert account.keep(PAIR, pause_s=0.0) == 0.0
    assert sold(exchange) == []


def writes_once_asked(exchange: TradingExchange, asked: int, folder: Path) -> None:
    """Write the trade down when the first look is over."""
    while not any(it.path == "/api/v3/account" for it in exchange.truth.requests[asked:]):
        time.sleep(0.01)
    time.sleep(0.5)
    bot_writes(folder, "UPDATE trades SET is_open = 1")


def test_what_is_agreed_on_is_closed_as_far_as_it_is_still_there(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.by_hand("SOLUSDT", "BUY", "2")
    price = str(round(exchange.price("SOLUSDT") * 103 / 100, 2))
    lost = exchange.by_hand("SOLUSDT", "SELL", "0.5", price)
    with account_of(exchange, book, tmp_path) as account:
        agreed = account.unclaimed(PAIR, pause_s=0.0)
        assert sorted(one.order for one in agreed) == ["", str(lost.number)]
        exchange.by_hand("SOLUSDT", "BUY", "1")  # after the question
        newer = exchange.by_hand("SOLUSDT", "SELL", "0.2", price)
        done = list(account.close(PAIR, agreed))
    assert done == [f"order {lost.number} is cancelled", "1.998 are to be sold"]
    assert [it.number for it in exchange.truth.open_orders] == [newer.number]
    assert exchange.truth.balances["SOL"] == Decimal("0.999")


def test_a_pair_that_the_bot_is_just_entering_is_not_settled(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.by_hand("SOLUSDT", "BUY", "1")
    book.change(intents={PAIR: intent()})
    with account_of(exchange, book, tmp_path) as account:
        for settle in (account.unclaimed, account.keep):
            with pytest.raises(DataError, match=r"just sent an entry.*ask again in 1[12]. s"):
                settle(PAIR, pause_s=0.0)
        book.change(intents={PAIR: intent(IN_FLIGHT_MS), "BTC/USDT": intent(pair="BTC/USDT")})
        (found,) = account.unclaimed(PAIR, pause_s=0.0)  # its answer is lost
        assert len(list(account.close(PAIR, [found]))) == 1
    assert book.read().intents.keys() == {"BTC/USDT"}
    assert sold(exchange) == ["SOLUSDT"]


def test_an_entry_that_began_after_the_question_is_not_settled(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.by_hand("SOLUSDT", "BUY", "1")
    with account_of(exchange, book, tmp_path) as account:
        agreed = account.unclaimed(PAIR, pause_s=0.0)
        book.change(intents={PAIR: intent()})
        with pytest.raises(DataError, match="just sent an entry"):
            list(account.close(PAIR, agreed))
    assert sold(exchange) == []
    assert book.read().intents


def test_a_newer_intent_than_the_one_seen_stays_in_the_book(book: Book) -> None:
    old, new = intent(IN_FLIGHT_MS), intent()
    book.change(intents={PAIR: new})
    assert book.settle(PAIR, old, 2.0) == Page({PAIR: new}, {}, {**book.read().kept, PAIR: 2.0})
    assert book.settle(PAIR, new).intents == {}


def test_a_pair_outside_the_whitelist_is_looked_at(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.give("XRP", "70")
    with account_of(exchange, book, tmp_path) as account:
        assert account.keep("XRP/USDT", pause_s=0.0) == 70.0
        assert book.read().kept["XRP/USDT"] == 70.0
        book.change(kept={"XRP/USDT": 0.0})
        (found,) = account.unclaimed("XRP/USDT", pause_s=0.0)
        assert found.amount == 70.0


@pytest.mark.parametrize("pair", ["FOO/BAR", "sol/usdt", "SOL/USDT:USDT", ""])
def test_a_pair_that_the_exchange_does_not_have_is_refused(
    exchange: TradingExchange, book: Book, tmp_path: Path, pair: str
) -> None:
    make_database(tmp_path)
    with account_of(exchange, book, tmp_path) as account:
        for settle in (account.unclaimed, account.keep):
            with pytest.raises(ConfigError, match="has no such pair"):
                settle(pair, pause_s=0.0)
    assert book.read().kept.keys() == set(PAIRS)


def test_on_futures_a_pair_of_spot_is_refused_and_its_contract_named(
    book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path)
    with (
        TradingExchange(MARKET, {"USDT": "1000"}, "futures") as exchange,
        account_of(exchange, book, tmp_path) as account,
    ):
        with pytest.raises(ConfigError, match="did you mean SOL/USDT:USDT"):
            account.unclaimed(PAIR, pause_s=0.0)
        exchange.by_hand("SOLUSDT", "SELL", "1")
        agreed = account.unclaimed("SOL/USDT:USDT", pause_s=0.0)
        assert list(account.close("SOL/USDT:USDT", agreed)) == ["1 are to be bought back"]
        assert exchange.truth.positions == {}


def test_before_a_bots_first_look_coins_are_its_users_own_to_both(
    exchange: TradingExchange, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.give("SOL", "3")
    book = Book(tmp_path / "orders" / "bot.json")
    book.change()
    with account_of(exchange, book, tmp_path) as account:
        seen = account.look()
        assert (seen.found, seen.kept) == ((), {PAIR: 3.0})
        assert account.unclaimed(PAIR, pause_s=0.0) == ()
        assert book.read().kept == {}
    guard = Guard(book, 300_000, keeps=True)
    desk = Desk(client_of(exchange, "spot"), futures=False)
    desk.follow(dict.fromkeys(PAIRS, 100.0))
    guard.judge({}, desk.look(), PAIRS, now_ms())
    assert {pair: amount for pair, amount in book.read().kept.items() if amount} == seen.kept
    assert guard.found == ()


def test_after_the_book_was_lost_coins_are_nobodys(
    exchange: TradingExchange, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.give("SOL", "3")
    book = Book(tmp_path / "orders" / "bot.json")
    book.change(keeps=False)
    with account_of(exchange, book, tmp_path) as account:
        assert [one.pair for one in account.look().found] == [PAIR]


def test_where_no_bot_has_begun_nothing_is_closed(
    exchange: TradingExchange, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.by_hand("SOLUSDT", "BUY", "1")
    book = Book(tmp_path / "orders" / "bot.json")
    with account_of(exchange, book, tmp_path) as account:
        with pytest.raises(DataError, match="no bot has begun") as told:
            account.unclaimed(PAIR, pause_s=0.0)
        assert str(book.path) in str(told.value)
        assert url_of(tmp_path) in str(told.value)
        Guard(book, 300_000, keeps=True)  # as a bot's start makes it
        assert account.unclaimed(PAIR, pause_s=0.0) == ()


def test_an_order_that_the_exchange_refuses_is_told_in_a_line(
    exchange: TradingExchange, book: Book, tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.by_hand("SOLUSDT", "BUY", "1")
    exchange.fail("POST", "/api/v3/order", 1, Refused(-1013, "Filter failure: NOTIONAL"))
    with account_of(exchange, book, tmp_path) as account:
        agreed = account.unclaimed(PAIR, pause_s=0.0)
        with pytest.raises(DataError, match=r"create_order: .*NOTIONAL"):
            list(account.close(PAIR, agreed))
