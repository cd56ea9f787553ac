"""Telegram on 127.0.0.1: a bot's real client talks to it, and a test does the user's part.

Nothing in the client is changed: it gets here by the standard variables `HTTPS_PROXY` and
`SSL_CERT_FILE`, and no other address is of any use to it.
"""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from lstm_model.practice.chat import Chat, Message, Refusal
from lstm_model.practice.serving import BackgroundServer
from lstm_model.practice.tunnel import Proxy, certify

HOST: Final = "api.telegram.org"

_PATIENCE_S = 0.1  # chosen: at the end, with a bot that waits for updates


def _application(token: str, chat: Chat) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        try:
            if request.match_info["token"] != token:
                raise Refusal(401, "Unauthorized")
            form = {name: str(value) for name, value in (await request.post()).items()}
            result = await chat.obey(request.match_info["method"], {**request.query, **form})
        except Refusal as refusal:
            body = {"ok": False, "error_code": refusal.status, "description": str(refusal)}
            return web.json_response(body, status=refusal.status)
        return web.json_response({"ok": True, "result": result})

    application = web.Application()
    application.router.add_route("*", "/bot{token:[^/]+}/{method}", answer)
    return application


@contextlib.asynccontextmanager
async def _serve_tls(application: web.Application, context: ssl.SSLContext) -> AsyncIterator[int]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_PATIENCE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class TelegramServer(BackgroundServer):
    """Telegram in a thread of this process, with one bot and one user, for `with`.

    Parameters
    ----------
    token : the bot's; any other is refused with 401
    chat_id : of the user's private chat with the bot

    Attributes
    ----------
    refused : hosts that were asked of the proxy in vain

    Examples
    --------
    >>> with TelegramServer("1:secret", 42) as telegram:
    ...     _ = telegram.say("/status")
    ...     print(telegram.transcript(), sorted(telegram.environment())[:2])
    user: /status
     ['HTTPS_PROXY', 'NO_PROXY']
    """

    def __init__(self, token: str, chat_id: int) -> None:
        self.refused: list[str] = []
        self._token = token
        self._authority = Path()
        self._chat = Chat(chat_id)
        super().__init__(lambda: _application(token, self._chat), port=0)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All lines of the chat, oldest first; an edited message is a line of its own."""
        with self._chat.changed:
            return tuple(self._chat.lines)

    @property
    def starts(self) -> int:
        """How often a bot has begun to listen; it drops what the user wrote before."""
        return self._chat.starts

    def environment(self) -> dict[str, str]:
        """Variables with which a process reaches this server as it would reach Telegram.

        In both cases of letters: Python and curl prefer the small ones.
        """
        proxies = {"HTTPS_PROXY": self.url, "NO_PROXY": "127.0.0.1,localhost"}
        small = {name.lower(): value for name, value in proxies.items()}
        return proxies | small | {"SSL_CERT_FILE": str(self._authority)}

    def say(self, text: str) -> int:
        """Write to the bot; the number of lines before, where `wait_for` may look from."""
        since = len(self.messages)
        self.call(self._chat.hear(text))
        return since

    def press(self, label: str) -> int:
        """Press the newest button of the bot whose label begins so; as `say`.

        Raises
        ------
        ConfigError
            There is no such button.
        """
        since = len(self.messages)
        self.call(self._chat.feel(label))
        return since

    def wait_for(self, wanted: Callable[[str], bool], timeout_s: float, since: int = 0) -> str:
        """The first text of the bot, from line `since` on, that is wanted.

        Raises
        ------
        TimeoutError
            There was none in time; the error shows the chat.
        """
        found: list[str] = []

        def arrived() -> bool:
            lines = self._chat.lines[since:]
            found[:] = [line.text for line in lines if line.sender == "bot" and wanted(line.text)]
            return bool(found)

        with self._chat.changed:
            in_time = self._chat.changed.wait_for(arrived, timeout_s)
        if not in_time:
            raise TimeoutError(f"no such message within {timeout_s:g} s in:\n{self.transcript()}")
        return found[0]

    def wait_for_start(self, count: int, timeout_s: float) -> None:
        """Wait until a bot has begun to listen so often.

        Raises
        ------
        TimeoutError
            It has not in time.
        """
        with self._chat.changed:
            if not self._chat.changed.wait_for(lambda: self.starts >= count, timeout_s):
                raise TimeoutError(f"{self.starts} starts of a bot within {timeout_s:g} s")

    def transcript(self, since: int = 0) -> str:
        """The chat to read, without the token, should a bot have told it."""
        lines = "".join(_transcribed(line) for line in self.messages[since:])
        return lines.replace(self._token, "<token>")

    async def _serve(self) -> None:
        with tempfile.TemporaryDirectory(prefix="loopback-telegram-") as folder:
            self._authority, context = certify(HOST, Path(folder))
            async with (
                _serve_tls(self._application(), context) as server_port,
                Proxy(f"{HOST}:443", server_port, self.refused).listen() as self.port,
            ):
                self._ready.set()
                await self._stop.wait()


def _transcribed(message: Message) -> str:
    """Further lines of a message below its first."""
    head = f"{message.sender}{' (edits)' if message.edited else ''}: "
    buttons = "".join(f" [{label}]" for label, _ in message.buttons)
    body = message.text.strip() + ("\n" + buttons.strip() if buttons else "")
    return head + body.replace("\n", "\n" + " " * len(head)) + "\n"
