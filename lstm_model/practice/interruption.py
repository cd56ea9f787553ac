"""Ctrl-C that is heard where something can end cleanly, not wherever it happens to be."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Ctrl-C, a plain kill, and a terminal that is closed, of which Windows says nothing.
ENDING = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}


class Interruption:
    """Signals heard where a replay can end cleanly; the second ends it at once."""

    def __init__(self) -> None:
        self._asked = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take these signals over; in another thread than the main one nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [
            number for number in ENDING
            if signal.getsignal(number) is not signal.SIG_IGN  # as shells do in the background
        ]  # fmt: skip
        before = {number: signal.signal(number, self._ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """End the replay if it was asked for.

        Raises
        ------
        KeyboardInterrupt
        """
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: object) -> None:
        self.check()
        self._asked = True
