"""The practice exchange with an account: what freqtrade needs to trade with `dry_run` false.

It speaks TLS, for ccxt knows Binance's codes by the beginning of the address alone; that beginning
is put where a user's name would stand, and the host stays 127.0.0.1.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from lstm_model.accounts.engine import Engine
from lstm_model.accounts.faults import Fault, Plan
from lstm_model.accounts.forms import Form
from lstm_model.accounts.orders import Algo, Fill, Order, Orders
from lstm_model.accounts.signed import Keys, parameters
from lstm_model.accounts.spot import Fees, SpotBooks
from lstm_model.accounts.spot_rest import SpotDesk
from lstm_model.accounts.venue import Venue
from lstm_model.practice import dialect
from lstm_model.practice.attended import Answered, Asked
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults
from lstm_model.practice.query import RefusedRequest
from lstm_model.practice.serving import serve
from lstm_model.practice.tape_market import Market
from lstm_model.practice.tunnel import certify

Json = Any


@dataclass(frozen=True)
class Request:
    """A request and its answer, for the record; neither key nor signature is kept.

    Attributes
    ----------
    status : 0 if the client got no answer, None if the public side answered
    """

    method: str
    path: str
    params: dict[str, str]
    status: int | None
    body: Json


class Truth:
    """What really is, whatever clients were told; every look is at the present."""

    def __init__(self, engine: Engine, books: SpotBooks, lock: threading.RLock) -> None:
        self._engine, self._books, self._lock = engine, books, lock
        self._requests: list[Request] = []

    def _now(self) -> Engine:
        self._engine.advance()
        return self._engine

    @property
    def orders(self) -> list[Order]:
        """All orders, the newest last."""
        with self._lock:
            return list(self._now().orders.all.values())

    @property
    def algos(self) -> list[Algo]:
        """All conditional orders for contracts, the newest last."""
        with self._lock:
            return list(self._now().orders.algos.values())

    @property
    def open_orders(self) -> list[Order]:
        """Orders that may still be filled."""
        with self._lock:
            return list(self._now().orders.open())

    @property
    def fills(self) -> list[Fill]:
        """All fills, oldest first."""
        found = [fill for order in self.orders for fill in order.fills]
        return sorted(found, key=lambda fill: fill.number)

    @property
    def requests(self) -> list[Request]:
        """All that was asked for by REST, public or not."""
        with self._lock:
            return list(self._requests)

    @property
    def balances(self) -> dict[str, Decimal]:
        """What the account has of each asset, locked amounts included."""
        with self._lock:
            self._now()
            return {asset: total for asset, total in self._books.total.items() if total}

    def free(self, asset: str) -> Decimal:
        """What may be spent."""
        with self._lock:
            self._now()
            return self._books.free(asset)

    def record(self, request: Request) -> None:
        """Put a request on record."""
        with self._lock:
            self._requests.append(request)


class TradingExchange(LoopbackExchange):
    """The practice exchange with one account on it, for `with`.

    Parameters
    ----------
    balances : what the account begins with, by asset
    fees : what the exchange keeps
    port, faults : as `LoopbackExchange`

    Attributes
    ----------
    truth : what really is
    keys : what a client signs by

    Examples
    --------
    >>> from lstm_model.practice.synthetic import synthetic_market
    >>> with TradingExchange(synthetic_market(days=1), {"USDT": "250"}) as exchange:
    ...     exchange.truth.balances
    {'USDT': Decimal('250')}
    """

    def __init__(
        self,
        market: Market,
        balances: Mapping[str, str] | None = None,
        *,
        fees: Fees | None = None,
        port: int = 0,
        faults: Faults | None = None,
        keys: Keys | None = None,
    ) -> None:
        super().__init__(market, port, faults, attendant=self._attend)
        self.keys = keys or Keys()
        self._lock, self._plan, orders = threading.RLock(), Plan(), Orders()
        venue = Venue(market, told_of(market))
        given = {asset: Decimal(amount) for asset, amount in (balances or _BALANCES).items()}
        self._books = SpotBooks(venue, orders, given, fees or Fees())
        self._engine = Engine(venue, orders, self._books)
        self._desk = SpotDesk(self._engine, self._books)
        self.truth = Truth(self._engine, self._books, self._lock)

    @property
    def url(self) -> str:
        """Where REST is; the websocket is at the same place with `wss://`."""
        return f"https://127.0.0.1:{self.port}"

    def fail(self, method: str, path: str, nth: int, fault: Fault, calls: int = 1) -> None:
        """Let the `nth` such request from now on fail, and those after it, `calls` in all.

        `path` is all after the host: "/api/v3/order".
        """
        with self._lock:
            self._plan.add(method, path, nth, fault, calls)

    def heal(self) -> None:
        """Let no request fail any more."""
        with self._lock:
            self._plan.clear()

    def fill_only(self, symbol: str, share: str) -> None:
        """Let the market fill so much of each order: "0" nothing, "0.4" two fifths, "1" all."""
        with self._lock:
            self._engine.set_share(symbol, Decimal(share))

    def give(self, asset: str, amount: str) -> None:
        """Put something into the account, or with a minus take what is free of it."""
        with self._lock:
            self._engine.advance()
            self._books.give(asset, Decimal(amount))

    def price(self, symbol: str) -> Decimal:
        """Of the last trade."""
        return self._engine.venue.last(symbol, self._engine.venue.now_ms())

    def _attend(self, asked: Asked) -> Answered | None:
        with self._lock:
            answered = self._plan.apply(asked, lambda: self._answer(asked))
        params = parameters(asked)
        params.pop("signature", None)
        status, body = (answered.status, answered.body) if answered else (None, None)
        self.truth.record(Request(asked.method, asked.path, params, status, body))
        return answered

    def _answer(self, asked: Asked) -> Answered | None:
        route = self._desk.routes.get((asked.method, asked.path))
        if not route:
            return None
        try:
            now_ms = self._engine.venue.now_ms() + round(self.faults.skew * 1000.0)
            return Answered(200, route(Form(self.keys.check(asked, now_ms))))
        except RefusedRequest as refusal:
            return Answered(refusal.status, {"code": refusal.code, "msg": str(refusal)})

    async def _serve(self) -> None:
        with tempfile.TemporaryDirectory(prefix="loopback-exchange-") as folder:
            _, tls = certify("127.0.0.1", Path(folder))
        async with serve(self._application(), self.port, tls=tls) as self.port:
            self._ready.set()
            await self._stop.wait()


_BALANCES = {"USDT": "10000"}


def told_of(market: Market) -> list[dict[str, Json]]:
    """All symbols of a spot market as `exchangeInfo` tells of them."""
    instruments = [listing.instrument for listing in market.listings.values()]
    symbols: list[dict[str, Json]] = dialect.exchange_info(0, instruments)["symbols"]
    return symbols
