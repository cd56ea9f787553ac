"""Real freqtrade with real orders, answers that get lost, and `LSTMRisk` between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from e2e import run_lstm
from guarded_bot import GuardedBot, learn
from live_bot import LiveBot

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.faults import DROPPED, UNKNOWN_FATE, Fault, Refused
from lstm_model.orders.guard import IN_FLIGHT_MS
from lstm_model.practice.synthetic import synthetic_market

pytestmark = [pytest.mark.e2e, pytest.mark.long]


@pytest.fixture
def exchange() -> Iterator[TradingExchange]:
    with TradingExchange(synthetic_market(seed=5, days=7), {"USDT": "1000"}) as running:
        yield running


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn(tmp_path_factory.mktemp("learnt"), "spot")


@pytest.mark.parametrize("fault", [DROPPED, UNKNOWN_FATE], ids=["dropped", "-1007"])
def test_a_lost_answer_makes_no_second_order(
    exchange: TradingExchange, learnt: Path, tmp_path: Path, fault: Fault
) -> None:
    with GuardedBot(tmp_path / "bot", exchange, learnt) as bot:
        exchange.fail("POST", "/api/v3/order", 1, fault)
        sent(bot, exchange, "SOL/USDT")
        assert len(exchange.truth.orders) == 1
        assert bot.pending().keys() == {"SOL/USDT"}
        for _ in range(3):
            entered(bot, "SOL/USDT")
        assert len(exchange.truth.orders) == 1
        bot.wait_for(lambda: bot.messages("no trade of this bot explains"), 60.0)

        bot.kill()
        listed = run_lstm("orders", *bot.options)
        assert listed.code == 1
        assert "SOL/USDT" in listed.text
        assert exchange.keys.secret not in listed.text
        bot.start()
        for _ in range(3):
            entered(bot, "SOL/USDT")
        assert [order.draft.symbol for order in exchange.truth.orders] == ["SOLUSDT"]
        assert not bot.rows("trades")
        sent(bot, exchange, "BTC/USDT")  # the other pair is free
        bot.wait_for(lambda: bot.rows("trades"))

        wait_until_it_can_be_settled(bot)
        settled = run_lstm("orders", *bot.options, "-p", "SOL/USDT", "--settle", "close", "--yes")
        assert settled.code == 0, settled.text
        assert exchange.truth.balances.get("SOL", Decimal(0)) < Decimal("0.01")
        sent(bot, exchange, "SOL/USDT")


def test_a_refused_entry_backs_off(exchange: TradingExchange, learnt: Path, tmp_path: Path) -> None:
    exchange.fail("POST", "/api/v3/order", 1, Refused(-2010, "insufficient balance"), calls=99)
    with GuardedBot(tmp_path / "bot", exchange, learnt, wants={"SOL/USDT": "long"}) as bot:
        bot.wait_for(lambda: asked(exchange))
        bot.wait_for(lambda: not bot.pending())
        bot.wait_for(lambda: bot.messages("1 in a row came to nothing"))
        assert asked(exchange) == 1
        for _ in range(3):
            entered(bot, "SOL/USDT")
        assert asked(exchange) == 1


def test_what_the_account_held_before_is_left_alone(
    exchange: TradingExchange, learnt: Path, tmp_path: Path
) -> None:
    exchange.give("SOL", "3")
    with GuardedBot(tmp_path / "bot", exchange, learnt) as bot:
        bot.wait_for(lambda: bot.messages("none of this bot's"))
        sent(bot, exchange, "SOL/USDT")
        bot.wait_for(lambda: exchange.truth.balances.get("SOL", Decimal(0)) > 3)
        bot.wait_for(lambda: bot.rows("trades")[0]["amount"])
        bot.exit(1)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        # Of what is left alone freqtrade pays the entry's fee, where that is in the base currency.
        assert Decimal("2.999") < exchange.truth.balances["SOL"] < Decimal("3.01")


def wait_until_it_can_be_settled(bot: GuardedBot) -> None:
    """The answer to an order may come late, and its trade with it."""
    due_ms = bot.pending()["SOL/USDT"]["time_ms"] + IN_FLIGHT_MS
    time.sleep(max(0.0, due_ms / 1000.0 - time.time()))


def entered(bot: LiveBot, pair: str) -> None:
    """Ask for an entry, whatever becomes of it."""
    with contextlib.suppress(OSError):
        bot.enter(pair)


def sent(bot: LiveBot, exchange: TradingExchange, pair: str) -> None:
    """Ask for an entry until the exchange gets it: a bot first looks at its account."""

    before = asked(exchange)

    def one_more() -> bool:
        entered(bot, pair)
        return asked(exchange) > before

    bot.wait_for(one_more)


def asked(exchange: TradingExchange) -> int:
    """How many orders it was asked for."""
    return len([request for request in exchange.truth.requests if request.method == "POST"])
