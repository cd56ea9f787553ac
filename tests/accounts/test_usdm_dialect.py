"""Real ccxt trades contracts on a USD-M account, and is told of what is wrong as by Binance."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ccxt
import pytest
from account_world import START_MS, Clock, client, said_by_binance, small_market

from lstm_model.accounts import faults
from lstm_model.accounts.exchange import TradingExchange
from lstm_model.errors import ConfigError

PAIR, SYMBOL = "BTC/USDT:USDT", "BTCUSDT"
SWING = ["100", "100", "99", "98", "96", "94", "95", "101", "102", "103"]

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exchange(clock: Clock) -> Iterator[TradingExchange]:
    market = small_market(clock, SWING)
    with TradingExchange(market, {"USDT": "1000"}, "futures") as running:
        yield running


@pytest.fixture
def binance(exchange: TradingExchange, clock: Clock) -> Iterator[ccxt.binance]:
    made = client(exchange, "futures")
    made.milliseconds = clock
    made.load_markets()
    made.set_margin_mode("isolated", PAIR)
    made.set_leverage(10, PAIR)
    yield made
    made.session.close()


def stop(binance: ccxt.binance, price: float, side: str = "sell", **params: Any) -> Any:
    params = {"stopPrice": price, "reduceOnly": True, **params}
    return binance.create_order(PAIR, "stop_market", side, 1.0, None, params)


def test_a_position_is_opened_held_and_closed(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    order = binance.create_order(PAIR, "market", "sell", 1.0)
    assert (order["status"], order["average"], order["filled"]) == ("closed", 100.0, 1.0)
    (held,) = binance.fetch_positions([PAIR])
    assert (held["side"], held["contracts"], held["marginMode"]) == ("short", 1.0, "isolated")
    assert (held["collateral"], held["initialMargin"]) == (10.0, 10.0)
    balance = binance.fetch_balance()["USDT"]
    assert balance == {"free": 989.95, "used": 10.0, "total": 999.95}
    clock.forth(4)
    binance.create_order(PAIR, "market", "buy", 1.0, None, {"reduceOnly": True})
    trades = binance.fetch_my_trades(PAIR)
    assert [trade["fee"]["cost"] for trade in trades] == [0.05, 0.048005]
    assert trades[1]["info"]["realizedPnl"] == "3.99000000"
    assert exchange.truth.positions == {}
    assert exchange.truth.balances["USDT"] == 1000 + Decimal("3.99") - Decimal("0.098005")


def test_a_stop_is_an_order_apart_until_it_is_triggered(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    made = stop(binance, 97.0)
    assert (made["status"], made["triggerPrice"], made["type"]) == ("open", 97.0, "market")
    assert binance.fetch_open_orders(PAIR) == []
    waiting = binance.fetch_open_orders(PAIR, params={"trigger": True})
    assert [order["id"] for order in waiting] == [made["id"]]
    clock.forth(4)
    told = binance.fetch_order(made["id"], PAIR, {"stop": True})
    assert (told["status"], told["info"]["algoStatus"]) == ("closed", "FINISHED")
    real = binance.fetch_order(told["info"]["actualOrderId"], PAIR)
    assert (real["status"], real["average"], real["reduceOnly"]) == ("closed", 96.0, True)
    assert exchange.truth.positions == {}


def test_a_stop_outlives_its_position_and_expires_when_triggered(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    made = stop(binance, 97.0)
    limit = binance.create_order(PAIR, "limit", "sell", 1.0, 104.0, {"reduceOnly": True})
    binance.create_order(PAIR, "market", "sell", 1.0, None, {"reduceOnly": True})
    assert binance.fetch_order(limit["id"], PAIR)["status"] == "expired"
    assert binance.fetch_order(made["id"], PAIR, {"stop": True})["status"] == "open"
    clock.forth(4)
    assert binance.fetch_order(made["id"], PAIR, {"stop": True})["status"] == "expired"
    assert exchange.truth.positions == {}


def test_an_orphan_stop_cuts_the_next_position(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    stop(binance, 97.0)
    binance.create_order(PAIR, "market", "sell", 1.0, None, {"reduceOnly": True})
    binance.create_order(PAIR, "market", "buy", 3.0)
    clock.forth(4)
    assert exchange.truth.positions[SYMBOL].quantity == 2


def test_a_stop_follows_the_price_it_is_told_to(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    made = stop(binance, 90.0, workingType="MARK_PRICE")
    clock.forth(5)
    assert binance.fetch_order(made["id"], PAIR, {"stop": True})["status"] == "open"
    exchange.set_mark(SYMBOL, "89")
    assert binance.fetch_order(made["id"], PAIR, {"stop": True})["status"] == "closed"


def test_the_market_jumps_over_a_stop(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    made = stop(binance, 98.0)
    exchange.jump(SYMBOL, 0.93, for_ms=3_000)
    clock.now_ms += 1
    told = binance.fetch_order(made["id"], PAIR, {"stop": True})
    real = binance.fetch_order(told["info"]["actualOrderId"], PAIR)
    assert real["average"] == pytest.approx(92.99, abs=0.02)
    assert binance.fetch_ticker(PAIR)["last"] == 93.0
    clock.forth(4)
    assert binance.fetch_ticker(PAIR)["last"] == 96.0


def test_a_position_is_liquidated_by_its_mark_price(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 2.0)
    made = stop(binance, 90.0)
    (held,) = binance.fetch_positions([PAIR])
    price = held["liquidationPrice"]
    assert price == pytest.approx((200.02 - 20.002) / 2 / 0.996)
    exchange.set_mark(SYMBOL, str(round(price + 0.01, 2)))
    assert exchange.truth.positions[SYMBOL].quantity == 2
    exchange.set_mark(SYMBOL, str(round(price - 0.01, 2)))
    assert exchange.truth.positions == {}
    lost = 1000 - exchange.truth.balances["USDT"]
    assert lost == Decimal("20.002") + Decimal("0.10001")
    forced = binance.fetch_orders(PAIR)[-1]
    assert forced["clientOrderId"].startswith("autoclose-")
    assert binance.fetch_order(made["id"], PAIR, {"stop": True})["status"] == "open"


def test_funding_is_paid_when_it_is_due(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 2.0)
    exchange.set_funding(SYMBOL, START_MS + 1_000, "0.001")
    exchange.set_funding(SYMBOL, START_MS + 2_000, "-0.0005")
    clock.forth(3)
    paid = binance.fetch_funding_history(PAIR)
    assert [item["amount"] for item in paid] == [-0.2, pytest.approx(0.0997, abs=1e-3)]
    assert [item["timestamp"] - START_MS for item in paid] == [1_000, 2_000]
    margin = exchange.truth.positions[SYMBOL].margin
    assert float(margin) == pytest.approx(20.002 - 0.2 + 0.0997, abs=1e-3)


def test_what_cannot_be_is_refused(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    reduce = {"reduceOnly": True}
    cases: list[tuple[Any, Any, str]] = [
        (("market", "sell", 1.0, None, reduce), ccxt.InvalidOrder, "-2022"),
        (("market", "buy", 200.0), ccxt.InsufficientFunds, "-2019"),
        (("limit", "buy", 0.04, 100.0), ccxt.InvalidOrder, "-4164"),
        (("limit", "buy", 1.0, 106.0), ccxt.BadRequest, "-4016"),
        (("limit", "sell", 1.0, 94.0), ccxt.BadRequest, "-4024"),
        (("limit", "buy", 1.0, 100.01, {"timeInForce": "GTX"}), ccxt.BaseError, "-5022"),
        (("stop_market", "sell", 1.0, None, {"stopPrice": 101.0}), ccxt.BaseError, "-2021"),
    ]
    for order, error, code in cases:
        with pytest.raises(error, match=code):
            binance.create_order(PAIR, *order)
    with pytest.raises(ccxt.BaseError, match="-4046"):
        binance.fapiprivate_post_margintype({"symbol": SYMBOL, "marginType": "ISOLATED"})
    with pytest.raises(ccxt.BaseError, match="-4028"):
        binance.fapiprivate_post_leverage({"symbol": SYMBOL, "leverage": 151})
    binance.create_order(PAIR, "market", "buy", 1.0)
    with pytest.raises(ccxt.BaseError, match="-4161"):
        binance.set_leverage(5, PAIR)
    with pytest.raises(ccxt.BaseError, match="-4048"):
        binance.set_margin_mode("cross", PAIR)
    assert len(exchange.truth.orders) == 1


def test_a_position_has_its_bracket(clock: Clock) -> None:
    market = small_market(clock, ["100"] * 3)
    with TradingExchange(market, {"USDT": "10000000"}, "futures") as exchange:
        binance = client(exchange, "futures")
        binance.milliseconds = clock
        binance.set_margin_mode("isolated", PAIR)
        binance.set_leverage(125, PAIR)  # the most that ccxt lets pass
        with pytest.raises(ccxt.BaseError, match="-2027"):
            binance.create_order(PAIR, "limit", "buy", 3_001.0, 100.0)
        assert binance.create_order(PAIR, "limit", "buy", 2_999.0, 99.0)["status"] == "open"
        tiers = binance.fetch_leverage_tiers([PAIR])[PAIR]
        binance.session.close()
    assert [float(tier["info"]["cum"]) for tier in tiers] == [0, 300, 1_500, 12_000, 132_000]


CODES = (-1000, -1007, -1008, -1013, -1021, -1111, -2010, -2011, -2013, -2015, -2019, -2021,
         -2022, -2027, -4131, -4164)  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_ccxt_takes_each_code_as_if_binance_had_said_it(
    exchange: TradingExchange, binance: ccxt.binance, code: int
) -> None:
    for path, make in [
        ("order", lambda: binance.create_order(PAIR, "market", "buy", 0.1)),
        ("algoOrder", lambda: stop(binance, 97.0)),
    ]:
        exchange.fail("POST", f"/fapi/v1/{path}", 1, faults.Refused(code))
        with pytest.raises(ccxt.BaseError) as error:
            make()
        expected = said_by_binance(f"https://fapi.binance.com/fapi/v1/{path}", code)
        assert type(error.value) is expected
    assert exchange.truth.orders == []
    assert exchange.truth.algos == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (-2021, "OrderImmediatelyFillable"),
        (-2022, "InvalidOrder"),
        (-4164, "InvalidOrder"),
        (-2019, "InsufficientFunds"),
        (-1008, "OperationFailed"),
        (-2027, "OperationRejected"),
        (-4131, "OperationRejected"),
    ],
)
def test_codes_that_a_plain_address_would_get_wrong(code: int, name: str) -> None:
    real = said_by_binance("https://fapi.binance.com/fapi/v1/order", code)
    assert issubclass(real, getattr(ccxt, name))
    plain = said_by_binance("http://127.0.0.1:8787/fapi/v1/order", code)
    assert not issubclass(plain, getattr(ccxt, name))


@pytest.mark.parametrize("fault", [faults.DROPPED, faults.UNAVAILABLE, faults.UNKNOWN_FATE])
def test_a_stop_is_placed_and_nobody_hears_of_it(
    exchange: TradingExchange, binance: ccxt.binance, fault: Any
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    exchange.fail("POST", "/fapi/v1/algoOrder", 1, fault)
    with pytest.raises(ccxt.OperationFailed):
        stop(binance, 97.0)
    assert [algo.status for algo in exchange.truth.algos] == ["NEW"]
    exchange.fail("GET", "/fapi/v1/algoOrder", 1, faults.BLIND, calls=6)
    made = stop(binance, 97.0)
    for _ in range(6):
        with pytest.raises(ccxt.OrderNotFound):
            binance.fetch_order(made["id"], PAIR, {"stop": True})
    assert binance.fetch_order(made["id"], PAIR, {"stop": True})["status"] == "open"
    cancelled = binance.cancel_order(made["id"], PAIR, {"stop": True})
    assert cancelled["info"]["code"] == "200"
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        binance.cancel_order(made["id"], PAIR, {"stop": True})


def test_a_wallet_is_emptied_but_for_its_margins(
    exchange: TradingExchange, binance: ccxt.binance
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    binance.create_order(PAIR, "limit", "buy", 1.0, 99.0)
    exchange.give("USDT", "-5000")
    balance = binance.fetch_balance()["USDT"]
    assert (balance["free"], balance["total"]) == (0.0, pytest.approx(10.001 + 9.9 - 0.01))


def test_a_spot_account_has_no_positions(clock: Clock) -> None:
    with (
        TradingExchange(small_market(clock, SWING)) as exchange,
        pytest.raises(ConfigError, match="futures"),
    ):
        _ = exchange.truth.positions


def test_each_contract_s_fee_is_told(binance: ccxt.binance) -> None:
    fee = binance.fetch_trading_fee(PAIR)
    assert (fee["maker"], fee["taker"]) == (0.0002, 0.0005)


def test_the_owner_opens_a_position_by_hand_and_it_is_liquidated(
    exchange: TradingExchange, binance: ccxt.binance
) -> None:
    exchange.by_hand(SYMBOL, "SELL", "1")
    (held,) = binance.fetch_positions([PAIR])
    assert (held["side"], held["contracts"]) == ("short", 1.0)
    exchange.liquidate(SYMBOL)
    assert exchange.truth.positions == {}
    assert float(exchange.truth.balances["USDT"]) == 1000 - held["collateral"] - 0.05
