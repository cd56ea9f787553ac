"""The fast-forward clock: this process's wall clock stands still until one thread sleeps.

Only the wall clock (`time.time`, `datetime.now` and their like) is virtual. Monotonic time stays
real, so event loops, queues and sockets go on working: https://github.com/adamchainz/time-machine
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Self, SupportsIndex

import time_machine

real_sleep = time.sleep


class VirtualClock(AbstractContextManager["VirtualClock"]):
    """The wall clock of this process, for `with`; one at a time.

    Whatever thread enters is the one whose `time.sleep` calls `on_sleep`, which has to move the
    clock; all others sleep for real.

    Parameters
    ----------
    start_ms : UTC milliseconds to begin at

    Examples
    --------
    >>> clock = VirtualClock(86_400_000)
    >>> clock.on_sleep = lambda seconds: clock.move_to(clock.now_ms + round(1000 * seconds))
    >>> with clock:
    ...     time.sleep(3600.0)
    ...     time.time()
    90000.0
    """

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms
        self.on_sleep: Callable[[float], None] = lambda seconds: real_sleep(seconds)
        self._travel: time_machine.travel | None = None
        self._traveller: time_machine.Traveller | None = None
        self._owner = threading.current_thread()

    def __enter__(self) -> Self:
        self._owner = threading.current_thread()
        self._travel = time_machine.travel(self.now_ms // 1000, tick=False)
        self._traveller = self._travel.start()
        self._traveller.shift(timedelta(milliseconds=self.now_ms % 1000))
        time.sleep = self._sleep
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        time.sleep = real_sleep
        if self._travel is not None:
            self._travel.stop()
        self._travel = self._traveller = None

    def move_to(self, now_ms: int) -> None:
        """Let the clock show a later moment; an earlier one changes nothing."""
        if now_ms > self.now_ms and self._traveller is not None:
            self._traveller.shift(timedelta(milliseconds=now_ms - self.now_ms))
            self.now_ms = now_ms

    def _sleep(self, seconds: float | SupportsIndex) -> None:
        if threading.current_thread() is self._owner:
            self.on_sleep(float(seconds))
        else:
            real_sleep(seconds)
