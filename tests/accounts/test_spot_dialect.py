"""Real ccxt trades on a spot account, and is told of what is wrong as Binance would tell it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ccxt
import ccxt.pro
import pytest
from account_world import Clock, client, said_by_binance, small_market

from lstm_model.accounts import faults
from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_overlay
from lstm_model.practice.faults import Faults

PAIR, SYMBOL = "BTC/USDT", "BTCUSDT"
FALL = ["100", "100", "99", "98", "90", "89", "95", "101", "102", "103"]

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exchange(clock: Clock) -> Iterator[TradingExchange]:
    with TradingExchange(small_market(clock, FALL), {"USDT": "1000"}) as running:
        yield running


@pytest.fixture
def binance(exchange: TradingExchange, clock: Clock) -> Iterator[ccxt.binance]:
    made = client(exchange)
    made.milliseconds = clock
    made.load_markets()
    yield made
    made.session.close()


def test_a_bought_coin_pays_its_fee_in_itself(
    exchange: TradingExchange, binance: ccxt.binance
) -> None:
    order = binance.create_order(PAIR, "market", "buy", 0.5)
    assert (order["status"], order["filled"], order["average"]) == ("closed", 0.5, 100.01)
    assert order["fee"] == {"cost": 0.0005, "currency": "BTC"}
    assert exchange.truth.balances == {"USDT": Decimal("949.995"), "BTC": Decimal("0.4995")}
    (mine,) = binance.fetch_my_trades(PAIR)
    assert (mine["order"], mine["takerOrMaker"], mine["cost"]) == (order["id"], "taker", 50.005)


def test_an_order_rests_until_the_market_trades_through_it(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    order = binance.create_order(PAIR, "limit", "buy", 2.0, 98.5)
    assert binance.fetch_balance()["USDT"] == {"free": 803.0, "used": 197.0, "total": 1000.0}
    clock.forth(2)
    assert binance.fetch_order(order["id"], PAIR)["status"] == "open"
    clock.forth(1)
    filled = binance.fetch_order(order["id"], PAIR)
    assert (filled["status"], filled["average"], filled["filled"]) == ("closed", 98.5, 2.0)
    assert exchange.truth.fills[0].maker
    assert binance.fetch_open_orders(PAIR) == []
    assert [item["id"] for item in binance.fetch_orders(PAIR)] == [order["id"]]


def test_a_trade_at_the_price_fills_as_far_as_it_reaches(clock: Clock) -> None:
    market = small_market(clock, ["100", "99", "99", "99", "99"], ["1", "1", "0.3", "1", "0.2"])
    with TradingExchange(market, {"USDT": "1000"}) as exchange:
        binance = client(exchange)
        binance.milliseconds = clock
        order = binance.create_order(PAIR, "limit", "buy", 1.0, 99.0)
        seen = []
        for _ in range(4):
            clock.forth()
            seen.append(binance.fetch_order(order["id"], PAIR)["filled"])
        binance.session.close()
    assert seen == [0.0, 0.3, 0.3, 0.5]  # a buyer who takes meets no buyer who rests


def test_a_stop_becomes_an_order_when_it_is_passed(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    stop = binance.create_order(PAIR, "stop_loss_limit", "sell", 0.999, 90.0, {"stopPrice": 98.0})
    assert (stop["status"], stop["triggerPrice"]) == ("open", 98.0)
    assert exchange.truth.free("BTC") == 0
    clock.forth(3)
    sold = binance.fetch_order(stop["id"], PAIR)
    assert (sold["status"], sold["filled"], sold["average"]) == ("closed", 0.999, 97.99)


def test_a_fall_through_stop_and_limit_leaves_the_order_resting(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    binance.create_order(PAIR, "market", "buy", 1.0)
    stop = binance.create_order(PAIR, "stop_loss_limit", "sell", 0.999, 94.0, {"stopPrice": 95.0})
    clock.forth(4)
    assert binance.fetch_order(stop["id"], PAIR)["filled"] == 0.0
    clock.forth(2)
    assert binance.fetch_order(stop["id"], PAIR)["average"] == 94.0


@pytest.mark.parametrize(
    ("kind", "params", "price", "expected"),
    [
        ("limit", {"timeInForce": "IOC"}, 100.01, ("expired", 199.96)),
        ("limit", {"timeInForce": "FOK"}, 100.01, ("expired", 0.0)),
        ("limit", {}, 100.01, ("open", 199.96)),
    ],
)
def test_who_takes_gets_what_the_book_shows(
    clock: Clock, kind: str, params: dict[str, Any], price: float, expected: tuple[str, float]
) -> None:
    with TradingExchange(small_market(clock, FALL), {"USDT": "100000"}) as exchange:
        binance = client(exchange)
        binance.milliseconds = clock
        assert binance.fetch_order_book(PAIR)["asks"][0][:2] == [100.01, 199.98]
        expected = (expected[0], expected[1] and 199.98)
        order = binance.create_order(PAIR, kind, "buy", 300.0, price, params)
        binance.session.close()
    assert (order["status"], order["filled"]) == expected


@pytest.mark.parametrize(
    ("order", "error", "said"),
    [
        (("limit", "buy", 0.04, 100.0), ccxt.BadRequest, "NOTIONAL"),
        (("limit", "buy", 1.0, 501.0), ccxt.InvalidOrder, "PERCENT_PRICE_BY_SIDE"),
        (("limit", "buy", 11.0, 100.0), ccxt.InsufficientFunds, "insufficient balance"),
        (("limit", "sell", 1.0, 100.0), ccxt.InsufficientFunds, "insufficient balance"),
        (("stop_loss_limit", "buy", 1.0, 99.0), ccxt.OrderImmediatelyFillable, "immediately"),
    ],
)
def test_what_cannot_be_is_refused(
    exchange: TradingExchange, binance: ccxt.binance, order: Any, error: Any, said: str
) -> None:
    kind, *rest = order
    params = {"stopPrice": 99.0} if kind.startswith("stop") else {}
    with pytest.raises(error, match=said) as refused:
        binance.create_order(PAIR, kind, *rest, params)
    assert type(refused.value) is error
    assert exchange.truth.orders == []


def test_an_order_at_no_step_is_refused(exchange: TradingExchange, binance: ccxt.binance) -> None:
    asked = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
    for quantity, price, said in [("1.000001", "99", "LOT_SIZE"), ("1", "9.901", "PRICE_FILTER")]:
        with pytest.raises(ccxt.InvalidOrder, match=said):
            binance.private_post_order({**asked, "quantity": quantity, "price": price})
    with pytest.raises(ccxt.BadRequest, match="-1100"):
        binance.private_post_order({**asked, "quantity": "1e3", "price": "99"})
    with pytest.raises(ccxt.BadRequest, match="-1102"):
        binance.private_post_order({**asked, "price": "99"})
    with pytest.raises(ccxt.BadRequest, match="-1102"):
        binance.private_get_order({"symbol": SYMBOL})


def test_who_does_not_sign_is_refused(exchange: TradingExchange, clock: Clock) -> None:
    cases = [
        ({"secret": "another"}, ccxt.AuthenticationError, "-1022"),
        ({"key": "short"}, ccxt.AuthenticationError, "-2014"),
        ({"key": "other" * 12 + "four"}, ccxt.AuthenticationError, "-2015"),
    ]
    for given, error, code in cases:
        binance = client(exchange, **given)
        binance.milliseconds = clock
        with pytest.raises(error, match=code):
            binance.fetch_balance()
        binance.session.close()


@pytest.mark.parametrize(("skew", "said"), [(20.0, "outside"), (-20.0, "ahead")])
def test_a_wrong_clock_is_refused(
    exchange: TradingExchange, binance: ccxt.binance, skew: float, said: str
) -> None:
    exchange.faults = Faults(skew=skew)
    with pytest.raises(ccxt.InvalidNonce, match=f"-1021.*{said}"):
        binance.fetch_balance()
    exchange.faults = Faults()
    assert binance.fetch_balance()["USDT"]["free"] == 1000.0


# Codes that a spot order, its cancel or a look at it may meet.
CODES = (-1000, -1001, -1003, -1007, -1008, -1013, -1021, -1022, -1100, -1102, -1111, -1121,
         -2010, -2011, -2013, -2014, -2015)  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_ccxt_takes_each_code_as_if_binance_had_said_it(
    exchange: TradingExchange, binance: ccxt.binance, code: int
) -> None:
    exchange.fail("POST", "/api/v3/order", 1, faults.Refused(code))
    binance.fetch_balance()
    expected = said_by_binance("https://api.binance.com/api/v3/order", code)
    with pytest.raises(ccxt.BaseError) as error:
        binance.create_order(PAIR, "market", "buy", 0.1)
    assert type(error.value) is expected
    assert exchange.truth.orders == []


@pytest.mark.parametrize(
    ("fault", "error", "orders"),
    [
        (faults.DROPPED, ccxt.NetworkError, 1),
        (faults.HUNG, ccxt.RequestTimeout, 1),
        (faults.UNAVAILABLE, ccxt.ExchangeNotAvailable, 1),
        (faults.UNKNOWN_FATE, ccxt.RequestTimeout, 1),
        (faults.NEVER_ARRIVED, ccxt.NetworkError, 0),
        (faults.TOO_MANY, ccxt.DDoSProtection, 0),
        (faults.BANNED, ccxt.DDoSProtection, 0),
    ],
)
def test_an_answer_is_lost_and_the_order_stands(
    exchange: TradingExchange, binance: ccxt.binance, fault: Any, error: Any, orders: int
) -> None:
    exchange.fail("POST", "/api/v3/order", 2, fault)
    for number in range(3):
        if number == 1:
            with pytest.raises(error):
                binance.create_order(PAIR, "market", "buy", 0.1)
        else:
            binance.create_order(PAIR, "market", "buy", 0.1)
    assert len(exchange.truth.orders) == 2 + orders
    lost = [request for request in exchange.truth.requests if request.status != 200][1:]
    assert [request.path for request in lost] == ["/api/v3/order"]


def test_an_order_cannot_be_found_for_a_while(
    exchange: TradingExchange, binance: ccxt.binance
) -> None:
    order = binance.create_order(PAIR, "limit", "buy", 1.0, 99.5)
    exchange.fail("GET", "/api/v3/order", 1, faults.BLIND, calls=2)
    for _ in range(2):
        with pytest.raises(ccxt.OrderNotFound):
            binance.fetch_order(order["id"], PAIR)
    assert binance.fetch_order(order["id"], PAIR)["status"] == "open"


def test_the_market_fills_as_much_as_it_is_let(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    exchange.fill_only(SYMBOL, "0.4")
    order = binance.create_order(PAIR, "market", "buy", 1.0)
    clock.forth(5)
    part = binance.fetch_order(order["id"], PAIR)
    assert (part["status"], part["filled"]) == ("open", 0.4)
    cancelled = binance.cancel_order(order["id"], PAIR)
    assert (cancelled["status"], cancelled["filled"]) == ("canceled", 0.4)
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        binance.cancel_order(order["id"], PAIR)
    exchange.fill_only(SYMBOL, "0")
    held = binance.create_order(PAIR, "market", "buy", 1.0)
    exchange.fill_only(SYMBOL, "1")
    clock.forth()
    assert binance.fetch_order(held["id"], PAIR)["filled"] == 1.0


def test_a_balance_is_taken_away(exchange: TradingExchange, binance: ccxt.binance) -> None:
    binance.create_order(PAIR, "limit", "buy", 1.0, 99.0)
    exchange.give("USDT", "-5000")
    assert binance.fetch_balance()["USDT"] == {"free": 0.0, "used": 99.0, "total": 99.0}


def test_every_address_of_binance_is_this_machine() -> None:
    told = live_overlay("https://127.0.0.1:1234")["exchange"]["ccxt_config"]

    def places(tree: Any, path: str = "") -> dict[str, str]:
        if isinstance(tree, str):
            return {path: tree}
        return {k: v for name in tree for k, v in places(tree[name], f"{path}/{name}").items()}

    merged = places(ccxt.pro.binance(told).urls["api"])
    assert merged.keys() >= places(ccxt.pro.binance().urls["api"]).keys()
    elsewhere = {name: url for name, url in merged.items() if "127.0.0.1:1234/" not in url}
    assert elsewhere == {}


def test_nothing_secret_is_kept_of_a_request(
    exchange: TradingExchange, binance: ccxt.binance
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        binance.fetch_balance()
    kept = repr(exchange.truth.requests) + repr(exchange.keys)
    assert "signature" not in kept
    assert exchange.keys.key not in kept
    assert exchange.keys.secret not in kept


def test_an_answer_is_a_page_that_ccxt_takes_for_an_order(
    exchange: TradingExchange, binance: ccxt.binance
) -> None:
    exchange.fail("POST", "/api/v3/order", 1, faults.GARBLED)
    order = binance.create_order(PAIR, "market", "buy", 0.1)
    assert (order["id"], order["status"], order["filled"]) == (None, None, 0.0)
    assert [order.status for order in exchange.truth.orders] == ["FILLED"]


def test_a_look_shows_what_was(exchange: TradingExchange, binance: ccxt.binance) -> None:
    assert binance.fetch_balance()["USDT"]["free"] == 1000.0
    exchange.fail("GET", "/api/v3/account", 1, faults.Stale(), calls=2)
    binance.create_order(PAIR, "market", "buy", 1.0)
    seen = [binance.fetch_balance()["USDT"]["free"] for _ in range(3)]
    assert seen == [1000.0, 1000.0, 899.99]


def test_an_order_is_filled_while_its_cancel_is_on_its_way(
    exchange: TradingExchange, binance: ccxt.binance, clock: Clock
) -> None:
    order = binance.create_order(PAIR, "limit", "buy", 1.0, 99.5)
    exchange.fail("DELETE", "/api/v3/order", 1, faults.Meanwhile(lambda: clock.forth(2)))
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        binance.cancel_order(order["id"], PAIR)
    assert binance.fetch_order(order["id"], PAIR)["status"] == "closed"


def test_the_owner_orders_by_hand(exchange: TradingExchange, binance: ccxt.binance) -> None:
    exchange.by_hand(SYMBOL, "BUY", "0.5")
    assert exchange.by_hand(SYMBOL, "SELL", "0.4", "110").is_open
    assert binance.fetch_balance()["BTC"]["used"] == 0.4
    assert [order["status"] for order in binance.fetch_orders(PAIR)] == ["closed", "open"]


def test_what_a_held_order_may_cost_is_not_there_any_more(
    exchange: TradingExchange, clock: Clock
) -> None:
    exchange.fill_only(SYMBOL, "0")
    exchange.by_hand(SYMBOL, "BUY", "9")
    exchange.give("USDT", "-700")
    exchange.fill_only(SYMBOL, "1")
    clock.forth()
    assert exchange.truth.orders[0].filled == 3
    assert exchange.truth.balances == {"BTC": Decimal("2.997")}


def test_each_pair_s_fee_is_told(exchange: TradingExchange, binance: ccxt.binance) -> None:
    fee = binance.fetch_trading_fee(PAIR)
    assert (fee["maker"], fee["taker"]) == (0.001, 0.001)
