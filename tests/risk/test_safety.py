"""What a bot with money at stake shouts of its trades, and what it advises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from freqtrade.persistence import Order, Trade
from pandas import DataFrame

from lstm_model.orders.book import Book, Intent
from lstm_model.orders.guard import Guard
from lstm_model.orders.lookout import Lookout
from lstm_model.orders.standing import Standing
from lstm_model.risk import entry as entries
from lstm_model.risk.safety import Safety

PAIR, START_MS, LOOP_MS = "BTC/USDT", 1_700_000_000_000, 5_000


class Bot:
    """Loops of a bot with one open trade; nothing is asked of an exchange."""

    def __init__(self, folder: Path) -> None:
        self.shouted, self._loops = list[str](), 0
        self.lookout = Lookout(lambda: Standing(START_MS, {}, ()))
        desk = SimpleNamespace(follow=lambda rates: None)
        self.safety = Safety(
            Guard(Book(folder / "orders.json"), 60_000, keeps=True), desk, self.lookout, 60_000,
            self.shouted.append, self.shouted.append,
        )  # fmt: skip
        self.strategy = SimpleNamespace(
            dp=SimpleNamespace(current_whitelist=lambda: [PAIR]),
            lstm_analyzed=lambda pair: DataFrame({"close": [100.0]}),
            order_types={"stoploss_on_exchange": True},
        )

    def loops(self, count: int, trade: Trade, *, looks: bool = True, leaves: bool = False) -> None:
        """Go on; whether freqtrade comes to the trade, and is about to leave it, in each."""
        for _ in range(count):
            self.safety.loop(START_MS + self._loops * LOOP_MS, self.strategy)
            self._loops += 1
            if looks:
                self.safety.looked_at(trade)
            if leaves:
                self.safety.exits(trade)

    def told(self, words: str) -> int:
        return sum(words in line for line in self.shouted)


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    made = Bot(tmp_path)
    yield made
    made.lookout.stop()


def order(side: str, order_id: str) -> Order:
    return Order(ft_order_side=side, order_id=order_id, ft_is_open=True, ft_pair=PAIR,
                 ft_amount=1.0, ft_price=90.0, status="open", side="sell")  # fmt: skip


@pytest.fixture
def trade(monkeypatch: pytest.MonkeyPatch) -> Trade:
    opened = Trade(id=7, pair=PAIR, amount=1.0, stake_amount=100.0, is_open=True, open_rate=100.0,
                   fee_open=0.001, fee_close=0.001, exchange="binance", is_short=False,
                   open_date=datetime(2023, 11, 14))  # fmt: skip
    opened.orders = [order("stoploss", "5000001")]
    monkeypatch.setattr(Trade, "get_open_trades", staticmethod(lambda: [opened]))
    return opened


def test_a_trade_that_is_well_is_no_news(bot: Bot, trade: Trade) -> None:
    bot.loops(100, trade)
    assert bot.told("trade 7") == 0


def test_a_stop_that_cannot_be_placed_is_told_after_three_loops(bot: Bot, trade: Trade) -> None:
    trade.orders = []
    bot.loops(2, trade)
    assert bot.told("trade 7") == 0
    bot.loops(10, trade)
    assert bot.told("trade 7 has no stop on the exchange") == 1
    assert bot.told("/reload_trade 7") == 1


def test_an_exit_that_comes_to_nothing_is_told(bot: Bot, trade: Trade) -> None:
    bot.loops(10, trade, leaves=True)
    assert bot.told("trade 7 is to be left, and no exit order can be placed") == 1


def test_a_trade_that_freqtrade_does_not_come_to_is_told_after_a_minute(
    bot: Bot, trade: Trade
) -> None:
    """Its stop cannot be looked up, say: freqtrade then decides nothing of the trade."""
    bot.loops(3, trade)
    bot.loops(11, trade, looks=False)
    assert bot.told("trade 7") == 0
    bot.loops(10, trade, looks=False)
    assert bot.told("trade 7 cannot be looked at") == 1


def test_a_strategy_that_answers_in_our_place_is_no_trouble(bot: Bot, trade: Trade) -> None:
    """Its own `should_exit` asks nobody: that freqtrade comes to the trade is not heard."""
    bot.loops(100, trade, looks=False)
    assert bot.told("trade 7") == 0


def test_a_stop_that_is_placed_anew_in_every_loop_is_no_trouble(bot: Bot, trade: Trade) -> None:
    """freqtrade takes it off for each of several additions in a row."""
    for number in range(10):
        gone = order("stoploss", str(number))
        gone.ft_is_open = False
        trade.orders = [*trade.orders, gone]
        for one in trade.orders:
            one.ft_is_open = False
        bot.loops(1, trade)
    assert bot.told("trade 7") == 0


def test_an_order_without_an_id_is_told_with_the_way_out(bot: Bot, trade: Trade) -> None:
    """freqtrade makes one of an answer that is no order, and asks for it for ever."""
    trade.orders = [order("stoploss", "None")]
    bot.loops(10, trade, looks=False)
    assert bot.told("trade 7 has an order without an id") == 1
    assert bot.told("/delete 7") == 1
    assert bot.told("/reload_trade") == 0


def test_an_entry_that_waits_is_no_trouble(bot: Bot, trade: Trade) -> None:
    trade.amount, trade.orders = 0.0, [order("buy", "5000001")]
    bot.loops(30, trade, looks=False)
    assert bot.told("trade 7") == 0


@pytest.mark.parametrize(
    ("theirs", "is_entry", "may", "answer", "written"),
    [
        (99.0, True, True, 99.0, 1),
        (99.0, True, False, 98.0, 1),  # the one that waits stays
        (98.0, True, True, 98.0, 0),
        (None, True, True, None, 0),
        (99.0, False, False, 99.0, 0),  # an exit is always free
    ],
    ids=["replaced", "refused", "kept", "cancelled", "exit"],
)
def test_an_entry_that_is_sent_again_is_written_down_first(
    trade: Trade, theirs: float | None, is_entry: bool, may: bool, answer: float | None,
    written: int,
) -> None:  # fmt: skip
    sent = list[Intent]()

    def may_send(intent: Intent) -> bool:
        sent.append(intent)
        return may

    waiting = order("buy", "5000001")
    trade.orders = [waiting]
    strategy = SimpleNamespace(_lstm_may_send=may_send)
    given = {"trade": trade, "order": waiting, "current_order_rate": 98.0, "is_entry": is_entry}
    assert entries.resend(strategy, theirs, **given, proposed_rate=99.0) == answer
    assert [(it.pair, it.side, it.rate, it.orders) for it in sent] == [(PAIR, 1, 99.0, 1)] * written
