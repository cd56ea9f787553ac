"""Trades that cannot be protected or left: shouted, because a log is read by nobody at night."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_LOOPS = 3  # chosen: freqtrade tries again in every loop; twice is chance
_AGAIN_MS = 3_600_000  # chosen


class Stuck:
    """Counts the loops in which something about a trade was to be done and was not.

    Examples
    --------
    >>> stuck = Stuck()
    >>> [list(stuck.after_loop({7: "no stop on the exchange"}, 0)) for _ in range(4)]
    [[], [], [(7, 'no stop on the exchange')], []]
    """

    def __init__(self) -> None:
        self._loops: dict[tuple[int, str], int] = {}
        self._told_ms: dict[tuple[int, str], int] = {}

    def after_loop(self, troubles: Mapping[int, str], now_ms: int) -> Iterator[tuple[int, str]]:
        """Take what troubles trades now, by their id; what has lasted is said once an hour."""
        keys = set(troubles.items())
        self._loops = {key: self._loops.get(key, 0) + 1 for key in keys}
        self._told_ms = {key: told for key, told in self._told_ms.items() if key in keys}
        for key, loops in self._loops.items():
            last_ms = self._told_ms.get(key)
            if loops >= _LOOPS and (last_ms is None or now_ms - last_ms >= _AGAIN_MS):
                self._told_ms[key] = now_ms
                yield key
