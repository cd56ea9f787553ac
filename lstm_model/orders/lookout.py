"""Asks the exchange what the account holds, in a thread: the bot's loop never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lstm_model.errors import DataError
from lstm_model.orders.standing import Standing

_END_S = 1.0  # chosen: an answer that is awaited when the bot ends is not worth more


class Lookout:
    """One look at a time; the newest answer, or why there is none.

    Parameters
    ----------
    ask : the question; may take as long as the exchange's time-out; what fails is a `DataError`,
        in a sentence without secrets

    Examples
    --------
    >>> lookout = Lookout(lambda: Standing(1, {}, ()))
    >>> lookout.want()
    >>> lookout.idle.wait(5.0)
    True
    >>> lookout.take()[0].asked_ms
    1
    >>> lookout.stop()
    """

    def __init__(self, ask: Callable[[], Standing]) -> None:
        self._ask = ask
        self._wanted, self._ended, self.idle = (threading.Event() for _ in range(3))
        self._answer: tuple[Standing | None, str] = None, ""
        self.idle.set()
        # A request that hangs must not keep the bot from ending.
        self._thread = threading.Thread(target=self._run, name="lstm-orders", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Look again, as soon as the look before has ended."""
        self.idle.clear()
        self._wanted.set()

    def take(self) -> tuple[Standing | None, str]:
        """The newest answer since the last call, or what went wrong; each once."""
        answer, self._answer = self._answer, (None, "")
        if not self._thread.is_alive():
            return None, "the thread that asks has ended, see the log; start the bot anew"
        return answer

    def stop(self) -> None:
        """End the thread; one that waits for the exchange ends when that lets go of it."""
        self._ended.set()
        self._wanted.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while self._wanted.wait() and not self._ended.is_set():
            self._wanted.clear()
            try:
                self._answer = self._ask(), ""
            except DataError as error:
                self._answer = None, str(error)
            if not self._wanted.is_set():
                self.idle.set()
