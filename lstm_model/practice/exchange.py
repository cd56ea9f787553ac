"""The loopback exchange: a market in Binance's dialect on 127.0.0.1, over REST and websocket.

freqtrade and ccxt reach it by their own settings, see `user_data/config-loopback*.json`. It never
listens on another interface and knows no private endpoint but those of an attendant: without one
it is for dry runs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from lstm_model.practice import rest, usdm_rest
from lstm_model.practice.attended import Attendant, attended_by
from lstm_model.practice.dialect import Json
from lstm_model.practice.faults import Faults
from lstm_model.practice.interruption import ENDING
from lstm_model.practice.mischief import Cut, Line, Log, Mischief
from lstm_model.practice.perpetual import perpetuals
from lstm_model.practice.query import Query
from lstm_model.practice.recorded import recorded_market
from lstm_model.practice.serving import BackgroundServer, no_endpoint, serve
from lstm_model.practice.streams import SPOT, USDM, Subscriptions
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import Market, wall_clock_ms

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8787

_POLL_S = 0.1  # chosen: how late a candle or a best price may be on the websocket
_TRADE_POLL_S = 0.005  # chosen: how late a trade may be if the clock is not the machine's
_LEAST_WAIT_S = 0.001  # chosen: trades of one millisecond are sent together


def open_market(
    spec: str, seed: int = 1, days: int = 30, now_ms: Callable[[], int] = wall_clock_ms
) -> Market:
    """The market of a command line: `synthetic`, `random-walk` or a directory of recordings.

    Raises
    ------
    ConfigError
        If it is none of these.
    DataError
        If the directory's content cannot be used.
    """
    if spec in ("synthetic", "random-walk"):
        return synthetic_market(seed, days, learnable=spec == "synthetic", now_ms=now_ms)
    return recorded_market(spec, days, now_ms=now_ms)


def run_exchange(
    market: Market,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    ready: Callable[[str], None] | None = None,
    faults: Faults | None = None,
) -> None:
    """Serve until it is told to end; `ready` is called with the URL once requests are answered.

    Raises
    ------
    ConfigError
        If the port is taken or `host` is not a loopback address.
    """
    asyncio.run(_run_until_signal(_Server(market, faults or Faults()), host, port, ready))


async def _run_until_signal(
    server: _Server, host: str, port: int, ready: Callable[[str], None] | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, stop.set)
    async with serve(server.application(), port, host) as taken_port:
        if ready:
            ready(f"http://{host}:{taken_port}")
        await stop.wait()


class _Server:
    """The HTTP side of one market."""

    def __init__(
        self,
        market: Market,
        faults: Faults,
        paced: bool = False,
        attendant: Attendant | None = None,
    ) -> None:
        self.paced, self._attendant = paced, attendant
        self.mischief = Mischief(faults, time.time if paced else time.monotonic)
        self.market = replace(market, now_ms=lambda: market.now_ms() + self._skew_ms())
        self.futures = perpetuals(self.market)
        self.connections: set[_Connection] = set()

    def application(self) -> web.Application:
        layers = [attended_by(self._attendant)] if self._attendant else []
        application = web.Application(middlewares=layers)
        application.router.add_get("/api/v3/{path:.+}", self._spot)
        application.router.add_get("/fapi/v1/{path:.+}", self._usdm)
        for place in ("", "/{category:public|market}"):
            for names in ("", "/{names:.*}"):
                application.router.add_get(f"{place}/{{kind:ws|stream}}{names}", self._websocket)
        application.router.add_route("*", "/{path:.*}", no_endpoint)
        application.on_shutdown.append(self._stop)
        return application

    def _skew_ms(self) -> int:
        return round(self.mischief.faults.skew * 1000.0)

    async def _spot(self, request: web.Request) -> web.Response:
        return self._told(request, partial(rest.answer, self.market))

    async def _usdm(self, request: web.Request) -> web.Response:
        has_key = bool(request.headers.get("X-MBX-APIKEY"))
        return self._told(request, partial(usdm_rest.answer, self.futures, has_key=has_key))

    def _told(
        self, request: web.Request, answer: Callable[[str, Query], tuple[int, Json]]
    ) -> web.Response:
        path, query = request.match_info["path"], request.query
        if refused := self.mischief.refusal(path):
            return _refusal(refused)
        status, body = answer(path, query)
        body = self.mischief.without_holes(path, query.get("symbol", ""), body)
        return web.json_response(body, status=status)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if self.mischief.down:
            return _refusal(503)
        # Pings are answered by hand: an exchange that hangs answers none.
        socket = web.WebSocketResponse(heartbeat=20.0, autoping=False, compress=False)
        await socket.prepare(request)
        subscriptions = self._subscriptions(request)
        names = request.match_info.get("names", "") or request.query.get("streams", "")
        subscriptions.subscribe([name for name in names.split("/") if "@" in name])
        connection = _Connection(
            socket, request.transport, subscriptions, self.mischief, self.paced
        )
        self.connections.add(connection)
        try:
            if self.mischief.down:  # meanwhile
                await connection.cut(polite=False)
            await connection.run()
        finally:
            self.connections.discard(connection)
        return socket

    def _subscriptions(self, request: web.Request) -> Subscriptions:
        combined = request.match_info["kind"] == "stream"
        if (category := request.match_info.get("category")) is None:
            return Subscriptions(self.market, combined, SPOT)
        return Subscriptions(self.futures, combined, USDM[category])

    async def _stop(self, application: web.Application) -> None:
        for connection in tuple(self.connections):
            await connection.close()

    async def cut(self, polite: bool) -> None:
        """End all connections."""
        for connection in tuple(self.connections):
            await connection.cut(polite)

    async def set_down(self, down: bool) -> None:
        """Refuse everything from now on, or no longer."""
        self.mischief.down = down
        if down:
            await self.cut(polite=False)

    async def send_due(self, trades_only: bool) -> None:
        """Send what is due to every client; one may refuse it and go."""
        for connection in tuple(self.connections):
            with contextlib.suppress(ConnectionError):
                await connection.send_due(trades_only)

    async def send_raw(self, text: str) -> None:
        """Send one text to every client; one may refuse it and go."""
        for connection in tuple(self.connections):
            with contextlib.suppress(ConnectionError):
                await connection.socket.send_str(text)


def _refusal(status: int) -> web.Response:
    if status < 500:
        body: Json = {"code": -1003, "msg": "Too many requests; current limit is exceeded."}
        return web.json_response(body, status=status, headers={"Retry-After": "1"})
    text = "<html><body>Service Temporarily Unavailable</body></html>"
    return web.Response(status=status, text=text, content_type="text/html")


class _Connection:
    """One websocket client: its requests are read and what is due is sent, as its line says."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        subscriptions: Subscriptions,
        mischief: Mischief,
        paced: bool,
    ) -> None:
        self.socket = socket
        self._transport, self._paced = transport, paced
        self._subscriptions, self._mischief = subscriptions, mischief
        self._line = Line(mischief, mischief.now_s())
        self._others_s = 0.0

    async def run(self) -> None:
        """Serve until the client or a fault ends the connection."""
        pump = asyncio.create_task(_nothing() if self._paced else self._pump())
        try:
            async for message in self.socket:
                await self._while_stalled()
                await self._obey(message)
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pump
            self._line.close()

    async def cut(self, polite: bool) -> None:
        """End the connection, with a close frame or without."""
        if polite:
            self._mischief.log.disconnects += 1
            await self.close()
        elif self._transport:
            self._mischief.log.drops += 1
            self._transport.abort()

    async def close(self) -> None:
        """End the connection with a close frame."""
        await self.socket.close(code=WSCloseCode.GOING_AWAY, message=b"the exchange stops")

    async def _while_stalled(self) -> None:
        while self._line.stalled(self._mischief.now_s()):
            await asyncio.sleep(_TRADE_POLL_S)

    async def _obey(self, message: WSMessage) -> None:
        with contextlib.suppress(ConnectionError):
            if message.type is WSMsgType.TEXT:
                await self.socket.send_json(self._subscriptions.reply(message.data))
            elif message.type is WSMsgType.PING:
                await self.socket.pong(message.data)

    async def _pump(self) -> None:
        with contextlib.suppress(ConnectionError):
            while not self.socket.closed and await self.send_due(self._only_trades()):
                await asyncio.sleep(self._wait_s())

    def _only_trades(self) -> bool:
        """Whether it is too early to look for anything but trades again."""
        now_s = time.monotonic()
        early = now_s - self._others_s < _POLL_S
        self._others_s = self._others_s if early else now_s
        return early

    async def send_due(self, trades_only: bool) -> bool:
        """Send what is due; False if that ended the connection."""
        messages = self._subscriptions.poll(trades_only)
        actions = self._line.poll(messages, self._mischief.now_s())
        try:
            async with asyncio.timeout(self._mischief.faults.slow_client or None):
                for action in actions:
                    if isinstance(action, Cut):
                        await self.cut(action.polite)
                        return False
                    await self.socket.send_str(action.text)
        except TimeoutError:
            await self.cut(polite=False)
            return False
        return True

    def _wait_s(self) -> float:
        due_s = self._subscriptions.next_trade_ms() / 1000.0
        longest_s = _TRADE_POLL_S if math.isfinite(due_s) else _POLL_S
        return max(_LEAST_WAIT_S, min(due_s, longest_s))


async def _nothing() -> None:
    pass


class LoopbackExchange(BackgroundServer):
    """The exchange in a thread of this process, for `with`, and its faults at hand.

    Parameters
    ----------
    port : 0 for any free one
    faults : what goes wrong from the start on
    paced : nothing is sent on a websocket but by `send_due`, and faults last in the wall clock's
        time: for a clock that stands still between two moves
    attendant : is asked first of every REST request

    Examples
    --------
    >>> with LoopbackExchange(synthetic_market(days=1)) as exchange:
    ...     exchange.url == f"http://127.0.0.1:{exchange.port}"
    True
    """

    def __init__(
        self,
        market: Market,
        port: int = 0,
        faults: Faults | None = None,
        *,
        paced: bool = False,
        attendant: Attendant | None = None,
    ) -> None:
        self.market = market
        self._server = _Server(market, faults or Faults(), paced, attendant)
        super().__init__(self._server.application, port)

    @property
    def log(self) -> Log:
        """The ground truth about what went wrong."""
        return self._server.mischief.log

    @property
    def faults(self) -> Faults:
        """The faults in force; may be replaced at any time, which ends what was provoked."""
        return self._server.mischief.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._server.mischief.set(faults)

    @property
    def open_connections(self) -> int:
        """How many websocket clients there are now."""
        return len(self._server.connections)

    def send_due(self, *, trades_only: bool = False) -> None:
        """Send what is due on every websocket; returns when it is on its way."""
        self.call(self._server.send_due(trades_only))

    def drop_connections(self) -> None:
        """Cut every websocket without a close frame."""
        self.call(self._server.cut(polite=False))

    def close_connections(self) -> None:
        """Close every websocket politely, as exchanges do once a day."""
        self.call(self._server.cut(polite=True))

    def break_down(self) -> None:
        """Cut every websocket and refuse every request and connection until `recover`."""
        self.call(self._server.set_down(True))

    def recover(self) -> None:
        """End what `break_down` began."""
        self.call(self._server.set_down(False))

    def silence(self, for_s: float) -> None:
        """Send no data for so long, and never send what happened meanwhile."""
        self._server.mischief.silence(for_s)

    def stall(self, for_s: float) -> None:
        """Neither read nor send for so long, then send all at once."""
        self._server.mischief.stall(for_s)

    def send_raw(self, text: str) -> None:
        """Send one text, whatever it is, to every websocket client."""
        self.call(self._server.send_raw(text))

    def refuse(self, status: int, for_s: float) -> None:
        """Answer requests for trades (see `Faults.rest_everywhere`) with 429 or 503 for so long."""
        self._server.mischief.refuse(status, for_s)

    def lose(self, symbol: str, ids: Iterable[int], rest: bool = False) -> None:
        """Never send these trades on the websocket and, with `rest`, nor serve them by REST."""
        self._server.mischief.lose(symbol, ids, rest)

    def trade_ids(
        self, symbol: str, since_ms: int | None = None, until_ms: int | None = None
    ) -> list[int]:
        """Ids of the market's trades in `[since_ms, until_ms)` that are due by its clock."""
        trades = self.market.listing(symbol).trades
        due = trades.due(self._server.market.now_ms())
        start = 0 if since_ms is None else trades.due(since_ms - 1)
        stop = due if until_ms is None else min(due, trades.due(until_ms - 1))
        return list(range(trades.first_id + start, trades.first_id + stop))
