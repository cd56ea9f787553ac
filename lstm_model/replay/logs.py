"""Where a replay's bot logs to and what it tells its user, and logging as it was before."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from freqtrade.rpc import RPCHandler

# Of the certificate of an exchange with an account, which is its own, in a time that is past.
_KNOWN = ("Unverified HTTPS request is being made to host '127.0.0.1'", "System time is way off")
_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
_NOT_FOR_PEOPLE = {"new_candle", "analyzed_df", "whitelist"}


@contextmanager
def log_kept() -> Iterator[None]:
    """Put back where logging goes to, which freqtrade changes for good; its files are closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with warnings.catch_warnings():
            for text in _KNOWN:
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def log_into(path: Path) -> None:
    """Write down in `path` what is said from here on, and nowhere else.

    Not by `logging.config`, by which freqtrade sets up its own: that closes the handlers of the
    whole process, and with absl's, which TensorFlow brings, the stream behind it.
    """
    root = logging.getLogger()
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter(_FORMAT))
    root.handlers[:] = [file]
    root.setLevel(logging.INFO)


def log_config(path: Path) -> dict[str, Any]:
    """The same, for the configuration of freqtrade, which begins its log anew."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"standard": {"format": _FORMAT}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler", "formatter": "standard", "filename": str(path),
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }  # fmt: skip


class Messages(RPCHandler):  # type: ignore[misc]
    """What a user would have been told by Telegram, one JSON line each."""

    name = "messages"

    def __init__(self, rpc: Any, path: Path) -> None:
        super().__init__(rpc, {"messages": {"allow_custom_messages": True}})
        self._path = path

    def send_msg(self, msg: Any) -> None:
        """Write it down, unless only programs listen to it."""
        if msg["type"] in _NOT_FOR_PEOPLE:
            return
        told = {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}", **msg}
        with self._path.open("a") as file:
            file.write(json.dumps(told, default=str) + "\n")

    def cleanup(self) -> None:
        """Nothing is held open."""
