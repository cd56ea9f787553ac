"""The error tree. Every message says what was wrong, what was found and what to do.

The root is a `ValueError` because freqtrade turns those into one log line; any other
exception raised inside a strategy callback is logged with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any


class LstmModelError(ValueError):
    """Root of every error this package raises on purpose."""


class ConfigError(LstmModelError):
    """The configuration or the installation is wrong; raised before anything starts."""


class MissingPackageError(ConfigError, ImportError):
    """A package is not installed. As an `ImportError` freqtrade reports it in one line."""


class DataError(LstmModelError):
    """Candles or trades from the exchange, the data directory or the caller are unusable."""


class StoreError(LstmModelError):
    """Something on disk is missing, corrupt, foreign or not writable."""


class UnreadableError(StoreError):
    """Something on disk is there, and this user may not read it; it need not be damaged."""


class TrainingError(LstmModelError):
    """The training child failed, ran out of time or was stopped."""


_NONE: Mapping[str, str] = MappingProxyType({})


def explained(problem: Any, known: Collection[str], gone: Mapping[str, str] = _NONE) -> str:
    """What pydantic has against one option, in words.

    `known` options are suggested; of those that are `gone` it says why.
    """
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        if name in gone:
            return f'option "{name}" is gone: {gone[name]}. Remove it'
        return f'unknown option "{name}".' + _suggestion(name, known)
    found = "" if not problem["loc"] else f", found {problem['input']!r}"
    said = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    return f"{name or 'options'}: {said}{found}"


def _suggestion(name: str, known: Collection[str]) -> str:
    if close := difflib.get_close_matches(name, known, n=1):
        return f' Did you mean "{close[0]}"?'
    return " Known options: " + ", ".join(sorted(known))
