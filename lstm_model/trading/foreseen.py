"""Forecasts that a study of the past has made, for the next strategy or epoch that asks for them.

`--strategy-list`, hyperopt and a web server's backtests ask in one process again and again for the
same candles. What a forecast is made of is content-addressed, so what was made is simply found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields

from lstm_model.model.forecast import Forecast

Key = tuple[str, ...]

_MOST_ROWS = 1_000_000  # chosen: about 150 MB; three pairs of 5m candles over three years


def frozen(forecast: Forecast) -> Forecast:
    """The same, whose arrays can no longer be written."""
    for column in fields(forecast):
        if column.name != "levels":
            getattr(forecast, column.name).flags.writeable = False
    return forecast


class Foreseen:
    """Keeps what was made last, up to so many candles.

    Examples
    --------
    >>> foreseen = Foreseen(most_rows=3)
    >>> make = lambda: print("made") or Forecast.nothing((0.5,), 2)
    >>> _ = foreseen.find(("BTC/USDT", "1f"), make), foreseen.find(("BTC/USDT", "1f"), make)
    made
    >>> _ = foreseen.find(("ETH/USDT", "2e"), make), foreseen.find(("BTC/USDT", "1f"), make)
    made
    made
    """

    def __init__(self, most_rows: int = _MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._known: dict[Key, Forecast] = {}  # the one used last at the end
        self._lock = threading.Lock()

    def find(self, key: Key, make: Callable[[], Forecast]) -> Forecast:
        """What is known under this key, else what `make` gives; nobody can change it any more."""
        with self._lock:
            known = self._known.pop(key, None)
        made = frozen(make()) if known is None else known
        with self._lock:
            self._known[key] = made
            while sum(len(kept.mean) for kept in self._known.values()) > self._most_rows:
                del self._known[next(iter(self._known))]
        return made
