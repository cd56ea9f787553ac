"""The releases of Python and of libraries that this one was tested with.

The oldest are those that pyproject.toml allows, the newest those of constraints.txt.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Literal, NamedTuple


class Tested(NamedTuple):
    """From the oldest to the newest release; what its digits do not say is of no account."""

    oldest: str
    newest: str


TESTED = MappingProxyType({
    "Python": Tested("3.11", "3.13"),
    "freqtrade": Tested("2026.6", "2026.9"),
    "ccxt": Tested("4.5.50", "4.5"),
    "TA-Lib": Tested("0.6.8", "0.8"),
    "numpy": Tested("2.2", "2.4"),
    "pandas": Tested("2.2.3", "3.1"),
    "tensorflow": Tested("2.21", "2.21"),
})  # fmt: skip


def standing(name: str, version: str) -> Literal["older", "tested", "newer"]:
    """How a release stands to those that were tested.

    Examples
    --------
    >>> standing("freqtrade", "2026.5.1"), standing("freqtrade", "2026.9.1")
    ('older', 'tested')
    >>> standing("freqtrade", "2026.10-dev"), standing("numpy", "2.10.0")
    ('newer', 'newer')
    """
    oldest, newest = map(_numbers, TESTED[name])
    found = _numbers(version)
    if found[: len(oldest)] < oldest:
        return "older"
    return "newer" if found[: len(newest)] > newest else "tested"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
