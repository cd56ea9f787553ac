"""The private side of Binance's spot REST interface, under `/api/v3`.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from lstm_model.accounts.engine import Engine
from lstm_model.accounts.money import text
from lstm_model.accounts.orders import Draft, Fill, Order
from lstm_model.accounts.signed import Form
from lstm_model.accounts.spot import SpotBooks

Json = Any

_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT")


class SpotDesk:
    """Answers signed requests of a spot account."""

    def __init__(self, engine: Engine, books: SpotBooks) -> None:
        self._engine, self._books = engine, books
        self.routes: dict[tuple[str, str], Callable[[Form], Json]] = {
            ("GET", "/api/v3/account"): self._account,
            ("POST", "/api/v3/order"): self._place,
            ("GET", "/api/v3/order"): self._show,
            ("DELETE", "/api/v3/order"): self._cancel,
            ("GET", "/api/v3/openOrders"): self._open,
            ("GET", "/api/v3/allOrders"): self._all,
            ("GET", "/api/v3/myTrades"): self._fills,
            ("GET", "/sapi/v1/spot/delist-schedule"): lambda form: [],
            ("GET", "/sapi/v1/asset/tradeFee"): self._fees,
        }

    def _account(self, form: Form) -> Json:
        now_ms = self._engine.advance()
        balances = [
            {
                "asset": asset,
                "free": text(self._books.free(asset)),
                "locked": text(self._books.locked(asset)),
            }
            for asset in sorted(self._books.total)
        ]
        may = {"canTrade": True, "canWithdraw": False, "canDeposit": True}
        return {**may, "accountType": "SPOT", "updateTime": now_ms, "balances": balances}

    def _fees(self, form: Form) -> Json:
        fees = (("makerCommission", True), ("takerCommission", False))
        told = {name: str(self._books.fee(maker)) for name, maker in fees}
        wanted = form.get("symbol")
        symbols = self._engine.venue.symbols
        return [{"symbol": symbol, **told} for symbol in symbols if wanted in ("", symbol)]

    def _place(self, form: Form) -> Json:
        kind = form.choice("type", _TYPES, -1116, "Invalid orderType.")
        priced = kind != "MARKET"
        draft = Draft(
            form.text("symbol"),
            form.side(),
            "LIMIT" if kind == "LIMIT_MAKER" else kind,
            form.decimal("quantity"),
            form.decimal("price") if priced else form.none(),
            form.decimal("stopPrice") if kind == "STOP_LOSS_LIMIT" else form.none(),
            _time_in_force(form, kind),
            form.get("newClientOrderId") or uuid.uuid4().hex[:22],
        )
        order = self._engine.place(draft)
        head = {"transactTime": order.created_ms}
        if form.get("newOrderRespType") == "ACK":
            return _name(order) | head
        return _told(order) | head | {"fills": [_part(fill) for fill in order.fills]}

    def _show(self, form: Form) -> Json:
        self._engine.advance()
        symbol, number = form.text("symbol"), form.number("orderId")
        return _look(self._engine.orders.find(symbol, number, form.get("origClientOrderId")))

    def _cancel(self, form: Form) -> Json:
        symbol, number = form.text("symbol"), form.number("orderId")
        order = self._engine.cancel(symbol, number, form.get("origClientOrderId"))
        told = _told(order) | {"origClientOrderId": order.draft.client_id}
        return told | {"clientOrderId": uuid.uuid4().hex[:22], "transactTime": order.updated_ms}

    def _open(self, form: Form) -> Json:
        self._engine.advance()
        return [_look(order) for order in self._engine.orders.open(form.get("symbol"))]

    def _all(self, form: Form) -> Json:
        self._engine.advance()
        symbol, first = form.text("symbol"), form.number("orderId") or 0
        orders = [
            _look(order)
            for order in self._engine.orders.all.values()
            if order.draft.symbol == symbol and order.number >= first
            if form.within(order.created_ms)
        ]
        return form.limited(orders)

    def _fills(self, form: Form) -> Json:
        self._engine.advance()
        number = form.number("orderId")
        rows = [
            _trade(order, fill)
            for order, fill in self._engine.fills(form.text("symbol"))
            if form.within(fill.time_ms) and number in (None, order.number)
        ]
        return form.limited(rows)


def _time_in_force(form: Form, kind: str) -> str:
    if kind == "LIMIT_MAKER":
        return "GTX"
    if kind == "MARKET":
        return "GTC"
    allowed = ("GTC", "IOC", "FOK")
    return form.choice("timeInForce", allowed, -1115, "Invalid timeInForce.")


def _name(order: Order) -> dict[str, Json]:
    return {
        "symbol": order.draft.symbol,
        "orderId": order.number,
        "orderListId": -1,
        "clientOrderId": order.draft.client_id,
    }


def _told(order: Order) -> dict[str, Json]:
    draft = order.draft
    maker = draft.time_in_force == "GTX"
    return _name(order) | {
        "price": text(draft.price),
        "origQty": text(draft.quantity),
        "executedQty": text(order.filled),
        "origQuoteOrderQty": "0.00000000",
        "cummulativeQuoteQty": text(order.cost),
        "status": order.status,
        "timeInForce": "GTC" if maker else draft.time_in_force,
        "type": "LIMIT_MAKER" if maker else draft.type,
        "side": draft.side,
        "stopPrice": text(draft.stop_price),
        "workingTime": -1 if order.waiting else order.created_ms,
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def _look(order: Order) -> dict[str, Json]:
    times = {"time": order.created_ms, "updateTime": order.updated_ms}
    return _told(order) | times | {"icebergQty": "0.00000000", "isWorking": not order.waiting}


def _part(fill: Fill) -> dict[str, Json]:
    return {
        "price": text(fill.price),
        "qty": text(fill.quantity),
        "commission": text(fill.commission),
        "commissionAsset": fill.commission_asset,
        "tradeId": fill.number,
    }


def _trade(order: Order, fill: Fill) -> dict[str, Json]:
    part = _part(fill)
    return {
        "symbol": order.draft.symbol,
        "id": part.pop("tradeId"),
        "orderId": order.number,
        "orderListId": -1,
        **part,
        "quoteQty": text(fill.price * fill.quantity),
        "time": fill.time_ms,
        "isBuyer": order.draft.side == "BUY",
        "isMaker": fill.maker,
        "isBestMatch": True,
    }
