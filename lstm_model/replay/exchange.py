"""The loopback exchange: a market in Binance's dialect on 127.0.0.1, over REST and websocket.

freqtrade and ccxt reach it by their own settings, see `user_data/config-loopback.json`. It never
listens on another interface and knows no private endpoint: dry run is all it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from aiohttp import WSCloseCode, WSMsgType, web

from lstm_model.errors import ConfigError
from lstm_model.replay.recorded import recorded_market
from lstm_model.replay.rest import answer
from lstm_model.replay.streams import Subscriptions
from lstm_model.replay.synthetic import synthetic_market
from lstm_model.replay.tape_market import Market, wall_clock_ms

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8787

_POLL_S = 0.1  # chosen: how late a trade may be on the websocket
_START_TIMEOUT_S = 10.0


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
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called with the URL once requests are answered.

    Raises
    ------
    ConfigError
        If the port is taken or `host` is not a loopback address.
    """
    asyncio.run(_run_until_signal(market, host, port, ready))


async def _run_until_signal(
    market: Market, host: str, port: int, ready: Callable[[str], None] | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serve(market, port, host) as taken_port:
        if ready:
            ready(f"http://{host}:{taken_port}")
        await stop.wait()


@contextlib.asynccontextmanager
async def serve(market: Market, port: int, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve inside `async with`, which gives the port (useful with `port=0`: any free one)."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(f"the exchange listens on this machine only, not on {host}")
    server = _Server(market)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        await _start(site, host, port)
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _start(site: web.TCPSite, host: str, port: int) -> None:
    try:
        await site.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is taken; choose another one") from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error}") from None


class _Server:
    """The HTTP side of one market."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/api/v3/{path:.+}", self._rest)
        application.router.add_get("/{kind:ws|stream}", self._websocket)
        application.router.add_get("/{kind:ws|stream}/{names:.*}", self._websocket)
        application.router.add_route("*", "/{path:.*}", self._foreign)
        application.on_shutdown.append(self._close_sockets)
        return application

    async def _rest(self, request: web.Request) -> web.Response:
        status, body = answer(self._market, request.match_info["path"], request.query)
        return web.json_response(body, status=status)

    async def _foreign(self, request: web.Request) -> web.Response:
        message = f"The loopback exchange has no endpoint {request.method} {request.path}."
        return web.json_response({"code": -1000, "msg": message}, status=404)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=20.0)
        await socket.prepare(request)
        combined = request.match_info["kind"] == "stream"
        subscriptions = Subscriptions(self._market, combined)
        names = request.match_info.get("names", "") or request.query.get("streams", "")
        subscriptions.subscribe([name for name in names.split("/") if "@" in name])
        self._sockets.add(socket)
        pump = asyncio.create_task(_pump(socket, subscriptions))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_json(subscriptions.reply(message.data))
        finally:
            self._sockets.discard(socket)
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pump
        return socket

    async def _close_sockets(self, application: web.Application) -> None:
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the exchange stops")


async def _pump(socket: web.WebSocketResponse, subscriptions: Subscriptions) -> None:
    with contextlib.suppress(ConnectionError):
        while not socket.closed:
            for message in list(subscriptions.poll()):
                await socket.send_str(json.dumps(message, separators=(",", ":")))
            await asyncio.sleep(_POLL_S)


class LoopbackExchange:
    """The exchange in a thread of this process, for `with`.

    Examples
    --------
    >>> with LoopbackExchange(synthetic_market(days=1)) as exchange:
    ...     exchange.url == f"http://127.0.0.1:{exchange.port}"
    True
    """

    def __init__(self, market: Market, port: int = 0) -> None:
        self.market = market
        self.port = port
        self._failure: ConfigError | None = None
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="loopback-exchange", daemon=True)

    @property
    def url(self) -> str:
        """Where REST is; the websocket is at the same place with `ws://`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S):
            raise ConfigError("the loopback exchange did not start in time")
        if self._failure:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close all connections and free the port; a second call does nothing."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except ConfigError as error:
            self._failure = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        async with serve(self.market, self.port) as self.port:
            self._ready.set()
            await self._stop.wait()
