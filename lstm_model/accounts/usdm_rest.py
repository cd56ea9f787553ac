"""The private side of Binance's REST interface of USD-M futures, under `/fapi`.

https://developers.binance.com/docs/derivatives/usds-margined-futures
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from lstm_model.accounts.contracts import ASSET, ContractBooks, Income, Position
from lstm_model.accounts.engine import Engine
from lstm_model.accounts.money import ZERO, text
from lstm_model.accounts.orders import Algo, Draft, Fill, Order
from lstm_model.accounts.signed import Form
from lstm_model.practice.query import RefusedRequest

Json = Any

_TYPES = ("LIMIT", "MARKET")
_ALGO_TYPES = ("STOP", "STOP_MARKET")
_WEEK_MS = 7 * 86_400_000
_DONE = {"code": 200, "msg": "success"}


class UsdmDesk:
    """Answers signed requests of a USD-M account."""

    def __init__(self, engine: Engine, books: ContractBooks) -> None:
        self._engine, self._books = engine, books
        self.routes: dict[tuple[str, str], Callable[[Form], Json]] = {
            ("GET", "/fapi/v1/positionSide/dual"): lambda form: {"dualSidePosition": False},
            ("GET", "/fapi/v1/multiAssetsMargin"): lambda form: {"multiAssetsMargin": False},
            ("GET", "/fapi/v1/leverageBracket"): self._brackets,
            ("POST", "/fapi/v1/leverage"): self._leverage,
            ("POST", "/fapi/v1/marginType"): self._margin_type,
            ("GET", "/fapi/v3/account"): self._account,
            ("GET", "/fapi/v3/balance"): lambda form: self._account(form)["assets"],
            ("GET", "/fapi/v3/positionRisk"): self._positions,
            ("POST", "/fapi/v1/order"): self._place,
            ("GET", "/fapi/v1/order"): self._show,
            ("DELETE", "/fapi/v1/order"): self._cancel,
            ("GET", "/fapi/v1/openOrders"): self._open,
            ("GET", "/fapi/v1/allOrders"): self._all,
            ("GET", "/fapi/v1/userTrades"): self._fills,
            ("POST", "/fapi/v1/algoOrder"): self._place_algo,
            ("GET", "/fapi/v1/algoOrder"): self._show_algo,
            ("DELETE", "/fapi/v1/algoOrder"): self._cancel_algo,
            ("GET", "/fapi/v1/openAlgoOrders"): self._open_algos,
            ("GET", "/fapi/v1/allAlgoOrders"): self._all_algos,
            ("GET", "/fapi/v1/income"): self._income,
            ("GET", "/fapi/v1/commissionRate"): self._fees,
        }

    def _brackets(self, form: Form) -> Json:
        wanted = form.get("symbol")
        return [
            {"symbol": symbol, "notionalCoef": 1.0, "brackets": self._of(symbol)}
            for symbol in self._engine.venue.symbols
            if wanted in ("", symbol)
        ]

    def _of(self, symbol: str) -> list[Json]:
        return [
            {
                "bracket": number,
                "initialLeverage": bracket.leverage,
                "notionalCap": int(bracket.cap),
                "notionalFloor": int(bracket.floor),
                "maintMarginRatio": float(bracket.maintenance),
                "cum": float(bracket.cum),
            }
            for number, bracket in enumerate(self._books.brackets(symbol), start=1)
        ]

    def _fees(self, form: Form) -> Json:
        fees = (("makerCommissionRate", True), ("takerCommissionRate", False))
        told = {name: str(self._books.fee(maker)) for name, maker in fees}
        return {"symbol": self._engine.venue.rules(form.text("symbol")).symbol, **told}

    def _leverage(self, form: Form) -> Json:
        symbol, leverage = form.text("symbol"), form.number("leverage") or 0
        most = self._books.set_leverage(symbol, leverage)
        return {"symbol": symbol, "leverage": leverage, "maxNotionalValue": str(most)}

    def _margin_type(self, form: Form) -> Json:
        allowed = ("ISOLATED", "CROSSED")
        kind = form.choice("marginType", allowed, -1102, "Invalid marginType.")
        self._books.set_isolated(form.text("symbol"), kind == "ISOLATED")
        return _DONE

    def _account(self, form: Form) -> Json:
        now_ms, books = self._engine.advance(), self._books
        marks = {item.symbol: books.mark(item.symbol) for item in books.held()}
        profit = sum((item.profit(marks[item.symbol]) for item in books.held()), ZERO)
        kept = sum((books.kept(item, marks[item.symbol]) for item in books.held()), ZERO)
        initial = sum((self._initial(item) for item in books.held()), ZERO)
        available = text(max(books.available(), ZERO))
        sums = {
            "initialMargin": text(initial + books.order_margin()),
            "maintMargin": text(kept),
            "walletBalance": text(books.wallet),
            "unrealizedProfit": text(profit),
            "marginBalance": text(books.wallet + profit),
            "positionInitialMargin": text(initial),
            "openOrderInitialMargin": text(books.order_margin()),
            "crossWalletBalance": available,
            "crossUnPnl": "0.00000000",
        }
        totals = {f"total{name[0].upper()}{name[1:]}": value for name, value in sums.items()}
        asset = {"asset": ASSET, **sums, "availableBalance": available, "updateTime": now_ms}
        return {
            **totals,
            "availableBalance": available,
            "maxWithdrawAmount": available,
            "assets": [asset | {"maxWithdrawAmount": available}],
            "positions": [self._position(item) for item in books.held()],
        }

    def _initial(self, position: Position) -> Decimal:
        mark = self._books.mark(position.symbol)
        return abs(position.quantity) * mark / position.leverage

    def _positions(self, form: Form) -> Json:
        self._engine.advance()
        wanted = form.get("symbol")
        return [self._position(item) for item in self._books.held() if wanted in ("", item.symbol)]

    def _position(self, position: Position) -> Json:
        books, mark = self._books, self._books.mark(position.symbol)
        profit = position.profit(mark)
        return {
            "symbol": position.symbol,
            "positionSide": "BOTH",
            "positionAmt": text(position.quantity),
            "entryPrice": text(position.entry),
            "breakEvenPrice": text(position.entry),
            "markPrice": text(mark),
            "unRealizedProfit": text(profit),
            "liquidationPrice": text(books.liquidation_price(position)),
            "isolatedMargin": text(position.margin + profit),
            "isolatedWallet": text(position.margin),
            "notional": text(position.quantity * mark),
            "marginAsset": ASSET,
            "initialMargin": text(self._initial(position)),
            "positionInitialMargin": text(self._initial(position)),
            "maintMargin": text(books.kept(position, mark)),
            "openOrderInitialMargin": text(books.order_margin(position.symbol)),
            "adl": 2,
            "bidNotional": "0",
            "askNotional": "0",
            "updateTime": position.updated_ms,
        }

    def _place(self, form: Form) -> Json:
        said = "Order type not supported for this endpoint. Please use the Algo Order API "
        kind = form.choice("type", _TYPES, -4120, said + "endpoints instead.")
        limit = kind == "LIMIT"
        draft = Draft(
            form.text("symbol"),
            form.side(),
            kind,
            form.decimal("quantity"),
            form.decimal("price") if limit else ZERO,
            time_in_force=_time_in_force(form) if limit else "GTC",
            client_id=form.get("newClientOrderId") or uuid.uuid4().hex[:22],
            reduce_only=form.flag("reduceOnly"),
        )
        return _told(self._engine.place(draft))

    def _place_algo(self, form: Form) -> Json:
        form.choice("algoType", ("CONDITIONAL",), -1102, "Invalid algoType.")
        kind = form.choice("type", _ALGO_TYPES, -1116, "Invalid orderType.")
        draft = Draft(
            form.text("symbol"),
            form.side(),
            kind,
            form.decimal("quantity"),
            form.decimal("price") if kind == "STOP" else ZERO,
            form.decimal("triggerPrice"),
            _time_in_force(form) if form.get("timeInForce") else "GTC",
            form.get("clientAlgoId") or uuid.uuid4().hex[:22],
            form.flag("reduceOnly"),
            form.get("workingType") or "CONTRACT_PRICE",
        )
        return self._algo(self._engine.place_algo(draft))

    def _show(self, form: Form) -> Json:
        self._engine.advance()
        symbol, number = form.text("symbol"), form.number("orderId")
        return _told(self._engine.orders.find(symbol, number, form.get("origClientOrderId")))

    def _cancel(self, form: Form) -> Json:
        symbol, number = form.text("symbol"), form.number("orderId")
        return _told(self._engine.cancel(symbol, number, form.get("origClientOrderId")))

    def _open(self, form: Form) -> Json:
        self._engine.advance()
        return [_told(order) for order in self._engine.orders.open(form.get("symbol"))]

    def _all(self, form: Form) -> Json:
        self._engine.advance()
        symbol, first = form.text("symbol"), form.number("orderId") or 0
        orders = self._engine.orders.all.values()
        _check_week(form)
        return form.limited(
            [
                _told(order)
                for order in orders
                if order.draft.symbol == symbol and order.number >= first
                if form.within(order.created_ms)
            ]
        )

    def _fills(self, form: Form) -> Json:
        self._engine.advance()
        number = form.number("orderId")
        _check_week(form)
        return form.limited(
            [
                _trade(order, fill)
                for order, fill in self._engine.fills(form.text("symbol"))
                if form.within(fill.time_ms) and number in (None, order.number)
            ]
        )

    def _show_algo(self, form: Form) -> Json:
        self._engine.advance()
        find = self._engine.orders.find_algo
        return self._algo(find(form.number("algoId"), form.get("clientAlgoId")))

    def _cancel_algo(self, form: Form) -> Json:
        algo = self._engine.cancel_algo(form.number("algoId"), form.get("clientAlgoId"))
        done = {"code": "200", "msg": "success"}
        return {"algoId": algo.number, "clientAlgoId": algo.draft.client_id, **done}

    def _open_algos(self, form: Form) -> Json:
        self._engine.advance()
        return [self._algo(algo) for algo in self._engine.orders.waiting(form.get("symbol"))]

    def _all_algos(self, form: Form) -> Json:
        self._engine.advance()
        symbol, algos = form.text("symbol"), self._engine.orders.algos.values()
        return form.limited(
            [
                self._algo(algo)
                for algo in algos
                if algo.draft.symbol == symbol and form.within(algo.created_ms)
            ]
        )

    def _income(self, form: Form) -> Json:
        self._engine.advance()
        kind, symbol = form.get("incomeType"), form.get("symbol")
        return form.limited(
            [
                _earned(income)
                for income in self._books.income
                if kind in ("", income.kind) and symbol in ("", income.symbol)
                if form.within(income.time_ms)
            ]
        )

    def _algo(self, algo: Algo) -> Json:
        draft = algo.draft
        order = self._engine.orders.all.get(algo.order or 0)
        return {
            "algoId": algo.number,
            "clientAlgoId": draft.client_id,
            "algoType": "CONDITIONAL",
            "orderType": draft.type,
            "symbol": draft.symbol,
            "side": draft.side,
            "positionSide": "BOTH",
            "timeInForce": draft.time_in_force,
            "quantity": text(draft.quantity),
            "algoStatus": algo.status,
            "actualOrderId": str(algo.order or ""),
            "actualPrice": text(order.average if order else ZERO),
            "triggerPrice": text(draft.stop_price),
            "price": text(draft.price),
            "workingType": draft.working_type,
            "reduceOnly": draft.reduce_only,
            "closePosition": False,
            "priceProtect": False,
            "createTime": algo.created_ms,
            "updateTime": algo.updated_ms,
            "triggerTime": algo.updated_ms if algo.order else 0,
            "goodTillDate": 0,
        }


def _time_in_force(form: Form) -> str:
    allowed = ("GTC", "IOC", "FOK", "GTX")
    return form.choice("timeInForce", allowed, -1115, "Invalid timeInForce.")


def _check_week(form: Form) -> None:
    start_ms, end_ms = form.number("startTime"), form.number("endTime")
    if start_ms is not None and end_ms is not None and end_ms - start_ms > _WEEK_MS:
        raise RefusedRequest(-4165, "Invalid time interval: Maximum time interval is 7 days")


def _told(order: Order) -> Json:
    draft = order.draft
    return {
        "orderId": order.number,
        "symbol": draft.symbol,
        "status": order.status,
        "clientOrderId": draft.client_id,
        "price": text(draft.price),
        "avgPrice": text(order.average),
        "origQty": text(draft.quantity),
        "executedQty": text(order.filled),
        "cumQuote": text(order.cost),
        "timeInForce": draft.time_in_force,
        "type": draft.type,
        "reduceOnly": draft.reduce_only,
        "closePosition": False,
        "side": draft.side,
        "positionSide": "BOTH",
        "stopPrice": "0",
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": draft.type,
        "time": order.created_ms,
        "updateTime": order.updated_ms,
    }


def _trade(order: Order, fill: Fill) -> Json:
    return {
        "symbol": order.draft.symbol,
        "id": fill.number,
        "orderId": order.number,
        "side": order.draft.side,
        "price": text(fill.price),
        "qty": text(fill.quantity),
        "realizedPnl": text(fill.realized),
        "quoteQty": text(fill.price * fill.quantity),
        "commission": text(fill.commission),
        "commissionAsset": fill.commission_asset,
        "time": fill.time_ms,
        "positionSide": "BOTH",
        "buyer": order.draft.side == "BUY",
        "maker": fill.maker,
    }


def _earned(income: Income) -> Json:
    return {
        "symbol": income.symbol,
        "incomeType": income.kind,
        "income": text(income.amount),
        "asset": ASSET,
        "info": income.kind,
        "time": income.time_ms,
        "tranId": income.number,
        "tradeId": str(income.fill or ""),
    }
