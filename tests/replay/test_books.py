"""The practice account of a replay with orders, and freqtrade's record of it: equal, or told."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from lstm_model.accounts.orders import Draft
from lstm_model.errors import ConfigError
from lstm_model.practice.clock import VirtualClock
from lstm_model.practice.scenario import Scenario, open_scenario
from lstm_model.practice.window import Window
from lstm_model.replay.books import Books, Owned, Sent, Terms, open_account
from lstm_model.replay.run import Replay, Wish

START_MS, HOUR_MS = 1_720_569_600_000, 3_600_000  # 2024-07-10
SPOT, FUTURE = "SOL/USDT", "SOL/USDT:USDT"


def scenario(pair: str) -> Scenario:
    window = Window("1m", START_MS, START_MS + HOUR_MS, 20)
    return open_scenario("synthetic", [pair], window, seed=3, days_before=1)


def traded(pair: str, fee: float | None, *, closed: bool = False) -> tuple[Books, Owned]:
    """An account that bought 2 SOL, and what freqtrade would have written down of that."""
    market, terms = scenario(pair), Terms(fee=fee)
    with VirtualClock(START_MS) as clock, open_account(market, 1_000.0, terms) as exchange:
        orders = [exchange.by_hand("SOLUSDT", "BUY", "2")]
        if closed:
            clock.move_to(START_MS + HOUR_MS // 2)
            amount = (
                "2" if pair == FUTURE else str(2 - sum(it.commission for it in orders[0].fills))
            )
            orders.append(exchange.by_hand("SOLUSDT", "SELL", amount))
        books = Books.of(exchange, market, 1_000.0, terms)
    cash = sum(-order.draft.sign * float(order.cost) for order in orders)
    paid = [fill for order in orders for fill in order.fills if fill.commission_asset == "USDT"]
    held = 0.0 if closed else 2.0 if pair == FUTURE else float(2 - sum(
        fill.commission for fill in orders[0].fills))  # fmt: skip
    sent = {str(order.number): Sent(float(order.filled), False) for order in orders}
    fees = float(sum(fill.commission for fill in paid))
    return books, Owned(pair, False, float(orders[0].average), held, cash, fees, 0.0, 0.0, sent)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("pair", [SPOT, FUTURE])
def test_what_freqtrade_wrote_down_of_every_order_is_what_the_account_holds(
    pair: str, closed: bool
) -> None:
    books, trade = traded(pair, None, closed=closed)
    found = books.agree([trade])
    assert found.ok, found.text
    count, holding = (2, 0) if closed else (1, 1)
    assert found.text.startswith(f"{count} orders, {holding} open position(s) and ")
    assert found.text.endswith(" USDT on the practice account are those of freqtrade's 1 trades")


@pytest.mark.parametrize("pair", [SPOT, FUTURE])
def test_an_account_takes_the_fee_that_it_is_told_to(pair: str) -> None:
    (free, trade), (dear, _) = (traded(pair, fee, closed=True) for fee in (0.0, 0.01))
    assert free.balance - dear.balance == pytest.approx(0.01 * 4 * trade.open_rate, rel=0.05)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "amount": ({"amount": 1.5}, "the trades own 1.5"),
    "side": ({"is_short": True}, "the trades own -"),
    "money": ({"cash": -300.0}, " USDT, by the trades' fills "),
    "funding": ({"funding": 1.0}, " USDT, by the trades' fills "),
    "filled": ({"orders": {"5000001": Sent(1.0, False)}}, "2 filled, freqtrade has 1"),
    "open": ({"orders": {"5000001": Sent(2.0, True)}}, "is closed, freqtrade has it open"),
    "unknown": ({"orders": {}}, "order 5000001 is in no trade"),
    "unsent": ({"orders": {"5000001": Sent(2.0, False), "77": Sent(0.0, False)}},
               "order 77 was never sent"),
}  # fmt: skip


@pytest.fixture(scope="module")
def opened() -> dict[str, tuple[Books, Owned]]:
    return {pair: traded(pair, None) for pair in (SPOT, FUTURE)}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("pair", [SPOT, FUTURE])
def test_a_record_that_is_wrong_is_told(
    opened: dict[str, tuple[Books, Owned]], pair: str, name: str
) -> None:
    books, trade = opened[pair]
    changes, words = WRONG[name]
    found = books.agree([trade._replace(**changes)])
    assert not found.ok
    assert found.text.startswith("NOT as freqtrade's trades have it: ")
    assert words in found.text


def test_many_differences_fit_a_line(opened: dict[str, tuple[Books, Owned]]) -> None:
    books, _ = opened[SPOT]
    many = {str(number): Sent(1.0, False) for number in range(9)}
    found = replace(books, orders={**books.orders, **many}).agree([])
    assert found.text.count("; ") == 3
    assert re_count(found.text) == 9


def re_count(text: str) -> int:
    """Of the differences that were left out: of 12 in all three are named."""
    return int(text.rpartition("; and ")[2].removesuffix(" more"))


def test_a_stop_of_a_future_and_the_order_it_became_are_one() -> None:
    market, terms = scenario(FUTURE), Terms()
    with VirtualClock(START_MS) as clock, open_account(market, 1_000.0, terms) as exchange:
        entry = exchange.by_hand("SOLUSDT", "BUY", "2")
        stop = exchange._engine.place_algo(
            Draft("SOLUSDT", "SELL", "STOP_MARKET", Decimal(2), reduce_only=True,
                  stop_price=entry.average - Decimal("0.3"))
        )  # fmt: skip
        waits = Books.of(exchange, market, 1_000.0, terms)
        clock.move_to(START_MS + HOUR_MS // 2)
        met = Books.of(exchange, market, 1_000.0, terms)
    assert waits.orders[str(stop.number)] == Sent(0.0, True)
    assert met.orders[str(stop.number)] == Sent(2.0, False)
    assert met.held[FUTURE] == 0.0
    known = {str(entry.number): Sent(2.0, False), str(stop.number): Sent(2.0, False)}
    moved = met.balance - 1_000.0
    found = met.agree([Owned(FUTURE, False, 1.0, 0.0, moved, 0.0, 0.0, 0.0, known)])
    assert found.ok, found.text


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "exchange": ({"exchange": {"name": "kraken"}}, SPOT, "speaks as Binance's spot and USD-M"),
    "cross": ({"trading_mode": "futures", "margin_mode": "cross"}, FUTURE, "isolated margin alone"),
    "currency": ({"stake_currency": "EUR"}, SPOT, "SOL/USDT cannot be paid from an account of EUR"),
    "futures' currency": (
        {"trading_mode": "futures", "margin_mode": "isolated", "stake_currency": "USDC"}, FUTURE,
        'holds USDT alone, "stake_currency" is USDC',
    ),
    "data": ({}, "DOGE/USDT", '"synthetic" has no DOGE/USDT'),
    "environment": ({}, SPOT, "FREQTRADE__EXCHANGE__KEY in the environment would stand before"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_account_cannot_do_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    changes, pair, words = REFUSED[name]
    if name == "environment":
        monkeypatch.setenv("FREQTRADE__EXCHANGE__KEY", "a-key-for-tests")
    (tmp_path / "mine.json").write_text(json.dumps(changes))
    monkeypatch.chdir(ROOT)
    wish = Wish(
        "synthetic", START_MS, START_MS + HOUR_MS, ("config.json", str(tmp_path / "mine.json")),
        str(tmp_path), tmp_path / "never", pairs=(pair,), timeframe="1m", orders=True,
    )  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        Replay(wish)
    assert words in str(refused.value)
    assert "a-key-for-tests" not in str(refused.value)
    assert not (tmp_path / "never").exists()
