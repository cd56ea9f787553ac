"""A bot with Telegram and REST switched on, and secrets whose escape would be seen."""

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from e2e import Bot, Trading
from freqtrade_client import FtRestClient

from lstm_model.practice.telegram import TelegramServer

CHAT_ID = 987_654_321
TOKEN = "1234567:PLANTED-telegram-token-AAF9"  # noqa: S105 - planted
PASSWORD = "PLANTED-rest-password"  # noqa: S105 - planted
JWT_SECRET = "PLANTED-jwt-secret-of-at-least-32-bytes"  # noqa: S105 - planted
WS_TOKEN = "PLANTED-websocket-token"  # noqa: S105 - planted
EXCHANGE_KEY, EXCHANGE_SECRET = "PLANTED-exchange-key", "PLANTED-exchange-secret"
USER = "tester"


def private_settings(port: int) -> dict[str, Any]:
    """What a user keeps in a configuration file of its own."""
    return {
        "telegram": {"enabled": True, "token": TOKEN, "chat_id": str(CHAT_ID)},
        "api_server": {
            "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": port,
            "username": USER, "password": PASSWORD, "jwt_secret_key": JWT_SECRET,
            "ws_token": WS_TOKEN,
        },
        "exchange": {"key": EXCHANGE_KEY, "secret": EXCHANGE_SECRET},
    }  # fmt: skip


def secret_forms() -> list[bytes]:
    """Every secret as it stands, as it travels in an address, and as HTTP's basic login."""
    token_key = TOKEN.partition(":")[2]
    plain = [TOKEN, token_key, PASSWORD, JWT_SECRET, WS_TOKEN, EXCHANGE_KEY, EXCHANGE_SECRET]
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return [form.encode() for form in sorted({*plain, *map(quote, plain), login})]


@dataclass(frozen=True)
class PrivateBot(Bot):
    """A bot with one more configuration file, outside its user_data folder, and a log in it."""

    private: Path = field(kw_only=True)

    def command(self, name: str, *arguments: str) -> list[str]:
        more = ["-c", str(self.private), "--logfile", str(log_file(self))]
        return super().command(name, *more, *arguments)


def log_file(bot: Bot) -> Path:
    """A log with whole lines, unlike the console's."""
    return bot.userdir / "logs" / "freqtrade.log"


def private_bot(bot: Bot, private: Path, port: int) -> PrivateBot:
    private.write_text(json.dumps(private_settings(port)))
    return PrivateBot(bot.userdir, bot.overlay, private=private)


def start_trading(bot: Bot, telegram: TelegramServer) -> Trading:
    """`freqtrade trade` in an environment in which Telegram is ours.

    It must not know of pytest, under which freqtrade leaves all loggers as they are: httpx then
    logs every address, and those of Telegram hold the token.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_VERSION", raising=False)
        for name, value in telegram.environment().items():
            patch.setenv(name, value)
        return Trading(bot)


class Client(FtRestClient):
    """freqtrade's own client of its REST interface, for `with`."""

    def __init__(self, port: int) -> None:
        super().__init__(f"http://127.0.0.1:{port}", USER, PASSWORD)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def state(self) -> str:
        return str(self.show_config()["state"])

    def open_ids(self) -> list[int]:
        return [trade["trade_id"] for trade in self.status()]


def comes_true(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether a condition on another process is met in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def everything_left(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, and every database once more as SQL."""
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for path, content in files.items():
        yield str(path), content
        if content.startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(path)) as connection:
                yield f"{path} as SQL", "\n".join(connection.iterdump()).encode()


def leaks(folder: Path) -> list[str]:
    """Where below a folder a secret is, and how it begins."""
    return [
        f"{name}: {secret[:12]!r}..."
        for name, content in everything_left(folder)
        for secret in secret_forms()
        if secret in content
    ]
