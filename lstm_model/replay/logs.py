"""Where a replay's bot logs to, and logging as it was before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def log_kept() -> Iterator[None]:
    """Put back where logging goes to, which freqtrade changes for good; its files are closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def log_config(path: Path) -> dict[str, Any]:
    """Everything the bot says, into its log."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "standard": {"format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s"}
        },
        "handlers": {
            "file": {
                "class": "logging.FileHandler", "formatter": "standard", "filename": str(path),
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }  # fmt: skip
