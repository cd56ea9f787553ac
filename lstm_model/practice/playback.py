"""Serves recorded websocket frames, word for word, to a client that thinks it is the exchange."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

from aiohttp import WSMsgType, web

from lstm_model.errors import ConfigError
from lstm_model.practice.dialect import Json
from lstm_model.practice.frames import Frame, read_recording
from lstm_model.practice.serving import BackgroundServer

_TURN = 256  # chosen: after so many frames others get their turn


class Playback(BackgroundServer):
    """A recording as an exchange on 127.0.0.1, for `with`.

    It begins with the first subscription. Who connects later, or again, continues where the
    playback is by then.

    Parameters
    ----------
    paths : files of one exchange, see `read_recording`
    speed : 1: at the recorded pace, 10: ten times as fast, None: as fast as the client reads
    port : 0 for any free one

    Attributes
    ----------
    finished : set once the last frame has been sent

    Raises
    ------
    ConfigError
        For a speed that is not positive.
    DataError
        If the files hold no complete recording.
    """

    def __init__(self, paths: Iterable[Path], speed: float | None = None, port: int = 0) -> None:
        if speed is not None and not speed > 0.0:
            raise ConfigError(f"the speed of a playback must be positive, found {speed}")
        self.recording = read_recording(list(paths))
        self.finished = threading.Event()
        self._speed = speed
        self._times_ns = [frame.received_ns for frame in self.recording.frames]
        self._played = 0
        self._began_s: float | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        super().__init__(self._make, port)

    @property
    def urls(self) -> Json:
        """What to put into a ccxt client's `urls`."""
        return self.recording.urls(self.url, self.url.replace("http://", "ws://"))

    def trade_ids(self, symbol: str) -> list[int]:
        """The ground truth: every recorded trade of one of the exchange's own symbols."""
        return self.recording.trade_ids(symbol)

    def _make(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/", self._websocket)
        application.router.add_get("/stream", self._websocket)
        application.router.add_get("/stream/{number}", self._websocket)
        application.router.add_get("/{path:.+}", self._rest)
        application.on_shutdown.append(self._close_sockets)
        return application

    async def _close_sockets(self, application: web.Application) -> None:
        for socket in tuple(self._sockets):
            await socket.close()

    async def _rest(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        status, body = self.recording.rest(path, request.query, self._position())
        return web.Response(status=status, text=body, content_type="application/json")

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=20.0, compress=False)
        await socket.prepare(request)
        self._sockets.add(socket)
        subscribed: set[str] = set()
        player: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_json(self.recording.obey(message.data, subscribed))
                    player = player or asyncio.create_task(self._play(socket, subscribed))
        finally:
            self._sockets.discard(socket)
            if player:
                player.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await player
        return socket

    def _position(self) -> int:
        """How many frames are over."""
        if self._speed is None or self._began_s is None:
            return self._played
        elapsed_s = asyncio.get_running_loop().time() - self._began_s
        return bisect_left(self._times_ns, self._times_ns[0] + elapsed_s * self._speed * 1e9)

    async def _play(self, socket: web.WebSocketResponse, subscribed: set[str]) -> None:
        frames, start = self.recording.frames, self._position()
        self._began_s = self._began_s or asyncio.get_running_loop().time()
        with contextlib.suppress(ConnectionError):
            for number in range(start, len(frames)):
                await self._wait(number, frames[number])
                if not subscribed.isdisjoint(frames[number].streams):
                    await socket.send_str(frames[number].text)
                self._played = max(self._played, number + 1)
            self.finished.set()

    async def _wait(self, number: int, frame: Frame) -> None:
        """Until a frame is due."""
        if self._speed is None or self._began_s is None:
            if number % _TURN == 0:
                await asyncio.sleep(0)
            return
        due_s = self._began_s + (frame.received_ns - self._times_ns[0]) / 1e9 / self._speed
        delay_s = due_s - asyncio.get_running_loop().time()
        if delay_s > 0.0:
            await asyncio.sleep(delay_s)
