"""The practice exchange with an account: what freqtrade needs to trade with `dry_run` false.

It speaks TLS, for ccxt knows Binance's codes by the beginning of the address alone, see `overlay`.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from lstm_model.accounts.contracts import (
    ASSET,
    CONTRACT_FEES,
    ContractBooks,
    Income,
    Position,
)
from lstm_model.accounts.engine import Engine
from lstm_model.accounts.faults import Fault, Plan
from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Algo, Draft, Fill, Order, Orders, Side
from lstm_model.accounts.signed import Form, Keys, parameters
from lstm_model.accounts.spot import Fees, SpotBooks
from lstm_model.accounts.spot_rest import SpotDesk
from lstm_model.accounts.usdm_rest import UsdmDesk
from lstm_model.accounts.venue import FuturesPrices, Venue
from lstm_model.errors import ConfigError
from lstm_model.practice import dialect, usdm_dialect
from lstm_model.practice.attended import Answered, Asked
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults
from lstm_model.practice.interruption import ENDING
from lstm_model.practice.perpetual import Perpetual
from lstm_model.practice.query import RefusedRequest
from lstm_model.practice.serving import serve
from lstm_model.practice.tape_market import Market
from lstm_model.practice.tunnel import certify

Json = Any

_BALANCES: Final = {"USDT": "10000"}
_HEARD_S: Final = 0.5  # chosen: how often Windows is asked for Ctrl-C
_RECORDED: Final = 100_000  # chosen: requests on record, some 100 MB of them
_BEYOND: Final = Decimal("0.01")  # chosen: how far a mark price goes beyond one of liquidation


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

    def __init__(
        self, engine: Engine, books: SpotBooks | ContractBooks, lock: threading.RLock
    ) -> None:
        self._engine, self._books, self._lock = engine, books, lock
        self._requests: deque[Request] = deque(maxlen=_RECORDED)

    def _now(self) -> Engine:
        self._engine.advance()
        return self._engine

    @property
    def orders(self) -> list[Order]:
        """All orders, the newest last."""
        with self._lock:
            return [_copy(order) for order in self._now().orders.all.values()]

    @property
    def algos(self) -> list[Algo]:
        """All conditional orders for contracts, the newest last."""
        with self._lock:
            return [replace(algo) for algo in self._now().orders.algos.values()]

    @property
    def open_orders(self) -> list[Order]:
        """Orders that may still be filled."""
        with self._lock:
            return [_copy(order) for order in self._now().orders.open()]

    @property
    def fills(self) -> list[Fill]:
        """All fills, oldest first."""
        found = [fill for order in self.orders for fill in order.fills]
        return sorted(found, key=lambda fill: fill.number)

    @property
    def requests(self) -> list[Request]:
        """What was asked for by REST, public or not: all, of weeks the last hundred thousand."""
        with self._lock:
            return list(self._requests)

    @property
    def balances(self) -> dict[str, Decimal]:
        """What the account has of each asset; orders and positions have set aside some of it."""
        with self._lock:
            self._now()
            return {asset: total for asset, total in self._books.totals().items() if total}

    def free(self, asset: str) -> Decimal:
        """What may be spent."""
        with self._lock:
            self._now()
            return self._books.free(asset)

    @property
    def positions(self) -> dict[str, Position]:
        """Contracts that are held, by symbol."""
        with self._lock:
            self._now()
            return {item.symbol: replace(item) for item in self.contracts().held()}

    @property
    def income(self) -> list[Income]:
        """Everything that ever changed a futures wallet."""
        with self._lock:
            self._now()
            return list(self.contracts().income)

    def contracts(self) -> ContractBooks:
        """The books of a futures account.

        Raises
        ------
        ConfigError
            It is a spot account.
        """
        if not isinstance(self._books, ContractBooks):
            raise ConfigError("a spot account has no positions; it needs trading_mode futures")
        return self._books

    def record(self, request: Request) -> None:
        """Put a request on record."""
        with self._lock:
            self._requests.append(request)


class TradingExchange(LoopbackExchange):
    """The practice exchange with one account on it, for `with`.

    Parameters
    ----------
    market : copied, for its prices can be made to jump
    balances : what the account begins with, by asset; of futures USDT alone
    trading_mode : `spot` or `futures`, as freqtrade names them
    fees : what the exchange keeps
    port, faults, paced : as `LoopbackExchange`

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
        trading_mode: str = "spot",
        *,
        fees: Fees | None = None,
        port: int = 0,
        faults: Faults | None = None,
        paced: bool = False,
    ) -> None:
        super().__init__(_copied(market), port, faults, paced=paced, attendant=self._attend)
        self.keys, self.trading_mode = Keys(), trading_mode
        self._lock, self._plan, self._orders = threading.RLock(), Plan(), Orders()
        futures = replace(self._server.futures, now_ms=self.market.now_ms)
        self._prices = FuturesPrices(futures)
        given = {asset: Decimal(amount) for asset, amount in (balances or _BALANCES).items()}
        if trading_mode == "spot":
            venue = Venue(self.market, spot_symbols(self.market))
            self._books: SpotBooks | ContractBooks
            self._books = spot = SpotBooks(venue, self._orders, given, fees or Fees())
            self._engine = Engine(venue, self._orders, spot)
            self._routes = SpotDesk(self._engine, spot).routes
        else:
            venue, wallet = Venue(futures, usdm_symbols(futures)), given.get(ASSET, ZERO)
            contracts = ContractBooks(
                venue, self._orders, self._prices, wallet, fees or CONTRACT_FEES
            )
            self._books = contracts
            self._engine = Engine(venue, self._orders, contracts, self._prices)
            self._routes = UsdmDesk(self._engine, contracts).routes
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
            now_ms = self._engine.advance()
            self._books.give(asset, Decimal(amount), now_ms)

    def by_hand(self, symbol: str, side: Side, quantity: str, price: str = "") -> Order:
        """Let the account's owner order something, at the market's price unless one is given.

        Raises
        ------
        RefusedRequest
            As any order is.
        """
        kind, at = ("LIMIT", Decimal(price)) if price else ("MARKET", ZERO)
        client_id = f"by-hand-{len(self._orders.all)}"
        with self._lock:
            if isinstance(self._books, ContractBooks):
                self._books.position(symbol).isolated = True
            draft = Draft(symbol, side, kind, Decimal(quantity), at, client_id=client_id)
            return _copy(self._engine.place(draft))

    def liquidate(self, symbol: str) -> None:
        """Let a position's mark price touch its liquidation price for a moment."""
        with self._lock:
            books = self.truth.contracts()
            price = books.liquidation_price(books.position(symbol))
            beyond = -1 if books.position(symbol).quantity > 0 else 1
            self.set_mark(symbol, str(price * (1 + beyond * _BEYOND)))
            self.set_mark(symbol, None)

    def price(self, symbol: str) -> Decimal:
        """Of the last trade."""
        return self._engine.venue.last(symbol, self._engine.venue.now_ms())

    def jump(self, symbol: str, factor: float, for_ms: int = 60_000) -> None:
        """Let the market trade at another price from its next trade on, which comes at once.

        Candles, streams and books follow, for it is the market's tape that changes.

        Parameters
        ----------
        factor : by which prices differ from what they would be
        for_ms : how long
        """
        with self._lock:
            now_ms = self._engine.advance()
            tape = self.market.listing(symbol).trades
            first, last = tape.due(now_ms), tape.due(now_ms + for_ms)
            if first < len(tape):
                tape.time_ms[first] = min(int(tape.time_ms[first]), now_ms + 1)
                last = max(last, first + 1)
            tape.price[first:last] = np.maximum(1, np.rint(tape.price[first:last] * factor))
            for future in self._server.futures.listings.values():
                cast(Perpetual, future).forget_prices()

    def set_mark(self, symbol: str, price: str | None) -> None:
        """Let a contract's mark price be this, or the market's again; the account hears at once."""
        with self._lock:
            self._engine.advance()
            self._prices.set_marks.pop(symbol, None)
            if price is not None:
                self._prices.set_marks[symbol] = Decimal(price)
            self._engine.review(symbol)

    def set_funding(self, symbol: str, time_ms: int, rate: str) -> None:
        """Let funding at that rate be due at a time to come, besides what the market has."""
        with self._lock:
            self._prices.set_fundings.append((symbol, time_ms, Decimal(rate)))

    def _attend(self, asked: Asked) -> Answered | None:
        with self._lock:
            answered = self._plan.apply(asked, lambda: self._answer(asked))
        params = parameters(asked)
        params.pop("signature", None)
        status, body = (answered.status, answered.body) if answered else (None, None)
        self.truth.record(Request(asked.method, asked.path, params, status, body))
        return answered

    def _answer(self, asked: Asked) -> Answered | None:
        route = self._routes.get((asked.method, asked.path))
        if not route:
            return None
        try:
            now_ms = self.market.now_ms() + round(self.faults.skew * 1000.0)
            return Answered(200, route(Form(self.keys.check(asked, now_ms))))
        except RefusedRequest as refusal:
            return Answered(refusal.status, {"code": refusal.code, "msg": str(refusal)})

    async def _serve(self) -> None:
        with tempfile.TemporaryDirectory(prefix="loopback-exchange-") as folder:
            _, tls = certify("127.0.0.1", Path(folder))
        async with serve(self._application(), self.port, tls=tls) as self.port:
            self._ready.set()
            await self._stop.wait()


def run_account(exchange: TradingExchange, ready: Callable[[str], None]) -> None:
    """Serve until it is told to end; `ready` is called with the URL once requests are answered."""
    ended = threading.Event()
    for number in ENDING:
        signal.signal(number, lambda *_: ended.set())
    with exchange:
        ready(exchange.url)
        while not ended.wait(_HEARD_S):
            pass


def _copy(order: Order) -> Order:
    return replace(order, fills=list(order.fills))


def _copied(market: Market) -> Market:
    listings = {
        symbol: replace(
            listing,
            trades=replace(
                listing.trades,
                time_ms=listing.trades.time_ms.copy(),
                price=listing.trades.price.copy(),
            ),
        )
        for symbol, listing in market.listings.items()
    }
    return replace(market, listings=listings)


def spot_symbols(market: Market) -> list[dict[str, Json]]:
    """All symbols of a spot market as `exchangeInfo` tells of them."""
    instruments = [listing.instrument for listing in market.listings.values()]
    symbols: list[dict[str, Json]] = dialect.exchange_info(0, instruments)["symbols"]
    return symbols


def usdm_symbols(market: Market) -> list[dict[str, Json]]:
    """As `spot_symbols`, of a market of futures."""
    futures = [cast(Perpetual, listing) for listing in market.listings.values()]
    symbols: list[dict[str, Json]] = usdm_dialect.exchange_info(0, futures)["symbols"]
    return symbols
