"""What freqtrade by itself makes of lost answers and worse: why orders have to be watched over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_bot import LiveBot

from lstm_model.accounts import faults
from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.orders import Order
from lstm_model.practice.faults import Faults
from lstm_model.practice.synthetic import synthetic_market

pytestmark = [pytest.mark.e2e, pytest.mark.long]
SPOT, FUTURES = "SOL/USDT", "SOL/USDT:USDT"


@pytest.fixture
def spot() -> Iterator[TradingExchange]:
    with TradingExchange(synthetic_market(days=1), {"USDT": "1000"}) as running:
        yield running


@pytest.fixture
def futures() -> Iterator[TradingExchange]:
    with TradingExchange(synthetic_market(days=1), {"USDT": "1000"}, "futures") as running:
        yield running


def enter(bot: LiveBot, pair: str, **options: Any) -> bool:
    return bot.enter(pair, ordertype="market", **options)


def bought(exchange: TradingExchange) -> list[Order]:
    return [order for order in exchange.truth.orders if order.draft.side == "BUY"]


def waiting(exchange: TradingExchange) -> int:
    return len([algo for algo in exchange.truth.algos if algo.status == "NEW"])


@pytest.mark.parametrize(
    "fault", [faults.DROPPED, faults.HUNG, faults.UNAVAILABLE, faults.UNKNOWN_FATE]
)
def test_an_entry_whose_answer_is_lost_is_made_again(
    spot: TradingExchange, tmp_path: Path, fault: faults.Fault
) -> None:
    with LiveBot(tmp_path / "bot", spot) as bot:
        spot.fail("POST", "/api/v3/order", 1, fault)
        assert not enter(bot, SPOT)
        assert (len(bought(spot)), bot.rows("trades")) == (1, [])
        assert enter(bot, SPOT)
        bot.wait_for(lambda: [row for row in bot.rows("trades") if row["is_open"]])
        bot.wait_for(lambda: spot.truth.open_orders)  # the stop of the trade
        assert len(bought(spot)) == 2
        (known,) = bot.rows("trades")
        assert known["amount"] < float(spot.truth.balances["SOL"]) * 0.6
        assert len(spot.truth.open_orders) == 1


def test_a_stop_whose_answer_is_lost_outlives_the_trade(
    futures: TradingExchange, tmp_path: Path
) -> None:
    with LiveBot(tmp_path / "bot", futures, "futures") as bot:
        futures.fail("POST", "/fapi/v1/algoOrder", 1, faults.DROPPED)
        enter(bot, FUTURES, side="long", leverage=3)
        bot.wait_for(lambda: waiting(futures) == 2)
        bot.wait_for(lambda: len(bot.rows("orders")) == 2)
        futures.fail("POST", "/fapi/v1/order", 1, faults.UNAVAILABLE)
        assert not bot.exit(1)  # its answer is lost too
        assert futures.truth.positions == {}
        assert bot.rows("trades")[0]["is_open"]
        futures.jump("SOLUSDT", 0.9)  # the stop that it knows goes, and with it what held the trade
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        assert waiting(futures) == 0


def test_the_market_jumps_over_a_stop(futures: TradingExchange, tmp_path: Path) -> None:
    with LiveBot(tmp_path / "bot", futures, "futures") as bot:
        enter(bot, FUTURES, side="long", leverage=3)
        bot.wait_for(lambda: waiting(futures) == 1)
        bot.wait_for(lambda: len(bot.rows("orders")) == 2)
        futures.jump("SOLUSDT", 0.9)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        (trade,) = bot.rows("trades")
        assert trade["exit_reason"] == "stoploss_on_exchange"
        assert futures.truth.positions == {}
        earned = float(futures.truth.balances["USDT"]) - 1000
        assert trade["close_profit_abs"] == pytest.approx(earned, abs=0.01 * trade["amount"])


def test_a_position_is_liquidated(futures: TradingExchange, tmp_path: Path) -> None:
    with LiveBot(tmp_path / "bot", futures, "futures") as bot:
        enter(bot, FUTURES, side="short", leverage=3)
        bot.wait_for(lambda: waiting(futures) == 1)
        futures.liquidate("SOLUSDT")
        assert futures.truth.positions == {}
        lost = 1000 - float(futures.truth.balances["USDT"])
        assert not bot.exit(1)
        assert bot.rows("trades")[0]["is_open"]  # as long as its stop stands
        futures.jump("SOLUSDT", 1.1)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        (trade,) = bot.rows("trades")
        assert -trade["close_profit_abs"] == pytest.approx(lost, rel=0.01)


def test_a_wrong_clock_keeps_the_bot_in_its_trade(spot: TradingExchange, tmp_path: Path) -> None:
    with LiveBot(tmp_path / "bot", spot) as bot:
        enter(bot, SPOT)
        bot.wait_for(lambda: spot.truth.open_orders)
        spot.faults = Faults(skew=20.0)
        assert not bot.exit(1)
        assert bot.rows("trades")[0]["is_open"]
        spot.faults = Faults()
        assert bot.exit(1)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])


def test_the_stop_comes_too_late(futures: TradingExchange, tmp_path: Path) -> None:
    """-2021 is an emergency exit, as at Binance's own address."""
    with LiveBot(tmp_path / "bot", futures, "futures") as bot:
        futures.fail("POST", "/fapi/v1/algoOrder", 1, faults.Refused(-2021))
        enter(bot, FUTURES, side="long", leverage=3)
        bot.wait_for(lambda: [row for row in bot.rows("trades") if not row["is_open"]])
        assert bot.rows("trades")[0]["exit_reason"] == "emergency_exit"
        assert futures.truth.positions == {}


def test_killed_before_the_answer_is_stored(spot: TradingExchange, tmp_path: Path) -> None:
    with LiveBot(tmp_path / "bot", spot) as bot:
        spot.fail("POST", "/api/v3/order", 1, faults.HUNG)
        with pytest.raises(OSError, match="timed out"):
            bot.ask("POST", "forceenter", pair=SPOT, ordertype="market", wait_s=0.5)
        bot.wait_for(lambda: bought(spot))
        bot.kill()
        bot.start()
        assert bot.rows("trades") == []
        assert spot.truth.balances["SOL"] > 0


def test_a_lost_stop_locks_the_coins_it_would_sell(spot: TradingExchange, tmp_path: Path) -> None:
    with LiveBot(tmp_path / "bot", spot) as bot:
        spot.fail("POST", "/api/v3/order", 2, faults.DROPPED)  # the entry is the first
        assert enter(bot, SPOT)
        bot.wait_for(lambda: spot.truth.open_orders)
        bot.exit(1)
        assert "insufficient balance" in bot.text
        assert len(spot.truth.orders) == 2
        spot.jump("SOLUSDT", 0.945)
        bot.wait_for(lambda: not bot.rows("trades")[0]["is_open"])
        assert bot.rows("trades")[0]["exit_reason"] == "sold_on_exchange"


def test_a_stop_that_cannot_be_found_is_placed_again(
    futures: TradingExchange, tmp_path: Path
) -> None:
    with LiveBot(tmp_path / "bot", futures, "futures") as bot:
        assert enter(bot, FUTURES, side="long", leverage=3)
        bot.wait_for(lambda: waiting(futures) == 1)
        futures.fail("GET", "/fapi/v1/algoOrder", 1, faults.BLIND, calls=6)
        bot.wait_for(lambda: waiting(futures) == 2, 60.0)


def test_a_part_that_is_filled_is_kept_when_the_rest_is_cancelled(
    spot: TradingExchange, tmp_path: Path
) -> None:
    timeout = {"entry": 4, "exit": 4, "unit": "seconds"}
    with LiveBot(tmp_path / "bot", spot, unfilledtimeout=timeout) as bot:
        spot.fill_only("SOLUSDT", "0.5")
        spot.fail("DELETE", "/api/v3/order", 1, faults.DROPPED)
        assert enter(bot, SPOT)
        bot.wait_for(lambda: spot.truth.orders[0].status == "CANCELED")
        spot.fill_only("SOLUSDT", "1")
        bot.wait_for(lambda: spot.truth.open_orders)
        (trade,) = bot.rows("trades")
        (stop,) = spot.truth.open_orders
        assert trade["amount"] == float(stop.draft.quantity)
        assert stop.draft.quantity <= spot.truth.balances["SOL"] < spot.truth.orders[0].filled


@pytest.mark.parametrize("code", [-2010, -1013])
def test_an_entry_is_refused(spot: TradingExchange, tmp_path: Path, code: int) -> None:
    with LiveBot(tmp_path / "bot", spot) as bot:
        spot.fail("POST", "/api/v3/order", 1, faults.Refused(code), calls=2)
        assert not enter(bot, SPOT)
        assert not enter(bot, SPOT)
        assert (spot.truth.orders, bot.rows("trades")) == ([], [])
