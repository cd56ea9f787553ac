"""Unmodified freqtrade trades with `dry_run` false, and its books are the exchange's."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from live_bot import LiveBot

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.money import stepped
from lstm_model.accounts.orders import Order
from lstm_model.accounts.spot import Fees
from lstm_model.practice.synthetic import synthetic_market

pytestmark = pytest.mark.e2e
FEE = Decimal("0.0004")
LOT, TICK = Decimal("0.00001"), Decimal("0.01")


@pytest.fixture
def exchange() -> Iterator[TradingExchange]:
    with TradingExchange(synthetic_market(days=1), {"USDT": "1000"}) as running:
        yield running


def exact(number: float) -> Decimal:
    """A number of freqtrade's database in whole units."""
    return Decimal(f"{number:.8f}")


def differences(bot: LiveBot, exchange: TradingExchange) -> list[tuple[Any, ...]]:
    """Orders of freqtrade's database that are not what the exchange has."""
    truth = {str(order.number): order for order in exchange.truth.orders}
    algos = {str(algo.number) for algo in exchange.truth.algos}
    rows = {row["order_id"]: row for row in bot.rows("orders")}
    assert rows.keys() == truth.keys() | algos
    settled = ":USDT" if exchange.trading_mode == "futures" else ""
    return [
        (number, told, real)
        for number, order in truth.items()
        if (told := stored(rows[number])) != (real := known(order, settled))
    ]


def stored(row: dict[str, Any]) -> tuple[Any, ...]:
    amounts = (row["filled"] or 0.0, row["amount"], row["cost"] if row["filled"] else 0.0)
    return (row["status"], row["side"], row["symbol"], *map(exact, amounts))


def known(order: Order, settled: str = "") -> tuple[Any, ...]:
    says = {"FILLED": "closed", "CANCELED": "canceled", "EXPIRED": "expired"}
    draft, pair = order.draft, order.draft.symbol.replace("USDT", "/USDT") + settled
    amounts = (order.filled, draft.quantity, order.cost)
    status = says.get(order.status, "open")
    return (status, draft.side.lower(), pair, *map(exact, map(float, amounts)))


def test_spot_from_entry_to_exit(exchange: TradingExchange, tmp_path: Path) -> None:
    truth = exchange.truth
    with LiveBot(tmp_path / "bot", exchange) as bot:
        exchange.fill_only("BTCUSDT", "0.4")
        price = exchange.price("BTCUSDT")
        bot.enter("BTC/USDT", price=float(round(price * Decimal("1.002"), 2)))
        bot.wait_for(lambda: [order for order in truth.orders if order.filled])
        assert truth.orders[0].status == "PARTIALLY_FILLED"
        bot.wait_for(lambda: bot.rows("orders")[0]["filled"])

        bot.stop()  # a restart in the middle of an order
        bot.start()
        exchange.fill_only("BTCUSDT", "1")
        bot.wait_for(lambda: truth.orders[0].status == "FILLED")
        bot.wait_for(lambda: truth.open_orders)  # the stop
        (stop,) = truth.open_orders
        bot.wait_for(lambda: len(bot.rows("orders")) == 2)
        (trade,) = bot.rows("trades")
        assert (stop.draft.type, stop.waiting) == ("STOP_LOSS_LIMIT", True)
        assert exact(trade["amount"]) == stepped(truth.balances["BTC"], LOT)  # after the fee
        fee = sum(fill.commission for fill in truth.fills)
        assert exact(bot.rows("orders")[0]["ft_fee_base"]) == fee
        assert differences(bot, exchange) == []

        bot.exit(1)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        assert truth.open_orders == []
        assert truth.orders[1].status == "CANCELED"
        assert differences(bot, exchange) == []
        spent, got = truth.orders[0].cost, truth.orders[2].cost - truth.fills[-1].commission
        assert truth.balances["USDT"] == 1000 - spent + got
        assert truth.free("BTC") == truth.balances["BTC"] < LOT
    assert {request.status for request in truth.requests} <= {None, 200}
    assert all(request.path.startswith("/api/v3/") for request in truth.requests)


@pytest.fixture
def futures() -> Iterator[TradingExchange]:
    # freqtrade takes the plain mean of the rates of an order's fills, however large each is.
    market, fees = synthetic_market(days=1), Fees(FEE, FEE)
    with TradingExchange(market, {"USDT": "1000"}, "futures", fees=fees) as running:
        yield running


@pytest.mark.parametrize("side", [pytest.param("long", marks=pytest.mark.long), "short"])
def test_futures_from_entry_to_exit(futures: TradingExchange, tmp_path: Path, side: str) -> None:
    truth, pair, sign = futures.truth, "BTC/USDT:USDT", 1 if side == "long" else -1
    with LiveBot(tmp_path / "bot", futures, "futures") as bot:
        futures.fill_only("BTCUSDT", "0.5")
        price = futures.price("BTCUSDT") * (1 + sign * Decimal("0.002"))
        bot.enter(pair, side=side, price=float(round(price, 2)), leverage=5)
        bot.wait_for(lambda: truth.positions)
        bot.wait_for(lambda: bot.rows("orders")[0]["filled"])

        bot.stop()
        bot.start()
        futures.fill_only("BTCUSDT", "1")
        bot.wait_for(lambda: truth.orders[0].status == "FILLED")
        stop = bot.wait_for(lambda: [algo for algo in truth.algos if algo.status == "NEW"])[0]
        bot.wait_for(lambda: len(bot.rows("orders")) == 2)
        position, (trade,) = truth.positions["BTCUSDT"], bot.rows("trades")
        assert (position.leverage, position.isolated) == (5, True)
        assert exact(trade["amount"]) * sign == position.quantity
        assert abs(exact(trade["open_rate"]) - position.entry) <= TICK / 2  # freqtrade keeps ticks
        assert abs(exact(trade["stake_amount"]) - position.margin) < TICK * position.quantity * sign
        assert trade["fee_open"] == pytest.approx(float(FEE), rel=1e-6)  # of cut units
        assert (stop.draft.reduce_only, stop.draft.quantity) == (True, abs(position.quantity))

        futures.set_funding("BTCUSDT", futures.market.now_ms() + 500, "0.001")
        (paid,) = bot.wait_for(lambda: [it for it in truth.income if it.kind == "FUNDING_FEE"])
        bot.exit(1)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        (trade,) = bot.rows("trades")
        assert truth.positions == {}
        assert [algo.status for algo in truth.algos] == ["CANCELED"]
        assert exact(trade["funding_fees"]) == paid.amount
        earned = truth.balances["USDT"] - 1000
        assert abs(exact(trade["close_profit_abs"]) - earned) < TICK * truth.orders[0].filled
        assert differences(bot, futures) == []
    refused = {request.path for request in truth.requests if request.status not in (None, 200)}
    assert refused <= {"/fapi/v1/marginType"}  # isolated already


@pytest.mark.long
@pytest.mark.parametrize("mode", ["spot", "futures"])
def test_the_stop_on_the_exchange_follows(tmp_path: Path, mode: str) -> None:
    with (
        TradingExchange(synthetic_market(days=1), {"USDT": "1000"}, mode) as exchange,
        LiveBot(tmp_path / "bot", exchange, mode, trailing_stop=True) as bot,
    ):
        truth, settled = exchange.truth, ":USDT" if mode == "futures" else ""
        bot.enter(f"SOL/USDT{settled}", ordertype="market", side="long", leverage=1)

        def stops() -> list[tuple[str, Decimal]]:
            placed = truth.algos if mode == "futures" else truth.orders
            return [(it.status, it.draft.stop_price) for it in placed if it.draft.stop_price]

        bot.wait_for(stops)
        exchange.jump("SOLUSDT", 1.05, 120_000)
        bot.wait_for(lambda: len(stops()) == 2)
        (first, below), (second, above) = stops()
        assert (first, second) == ("CANCELED", "NEW")
        assert above > below * Decimal("1.03")
        bot.exit(1)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        assert {status for status, _ in stops()} == {"CANCELED"}
        assert differences(bot, exchange) == []
