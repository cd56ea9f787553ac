"""HTTP on 127.0.0.1, in this thread or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from lstm_model.errors import ConfigError

_SETTLE_S = 0.02  # chosen: connections on 127.0.0.1 hear of their end within
_START_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 10.0


@contextlib.asynccontextmanager
async def serve(
    application: web.Application,
    port: int,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve inside `async with`, which gives the port (useful with `port=0`: any free one)."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(f"the exchange listens on this machine only, not on {host}")
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True, ssl_context=tls)
        await _start(site, host, port)
        yield int(runner.addresses[0][1])
    finally:
        left = [item.transport for item in (runner.server.connections if runner.server else ())]
        await runner.cleanup()
        for transport in filter(None, left):
            transport.abort()  # under TLS a polite end would wait for the client's


def check_free(port: int) -> None:
    """Refuse a port of this machine that is taken, before anything is made to serve on it.

    Raises
    ------
    ConfigError
        Something listens there, or nobody may.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise _taken(error, "127.0.0.1", port) from None


def _taken(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"port {port} on {host} is taken; choose another one")
    return ConfigError(f"cannot listen on {host}:{port}: {error}")


async def _start(site: web.TCPSite, host: str, port: int) -> None:
    try:
        await site.start()
    except OSError as error:
        raise _taken(error, host, port) from None


async def no_endpoint(request: web.Request) -> web.Response:
    """The answer to a request for what the exchange does not have."""
    message = f"The loopback exchange has no endpoint {request.method} {request.path}."
    return web.json_response({"code": -1000, "msg": message}, status=404)


async def _settled() -> None:
    """Let all that was cancelled or closed come to its end before the loop is gone."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=1.0)
    await asyncio.sleep(_SETTLE_S)


class BackgroundServer:
    """A server on 127.0.0.1 in a thread of this process, for `with`.

    Parameters
    ----------
    application : made on the thread, inside its event loop
    port : 0 for any free one
    """

    def __init__(self, application: Callable[[], web.Application], port: int) -> None:
        self.port = port
        self._application = application
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

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` on the server's thread and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except ConfigError as error:
            self._failure = error
        finally:
            self._loop.run_until_complete(_settled())
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        async with serve(self._application(), self.port) as self.port:
            self._ready.set()
            await self._stop.wait()
