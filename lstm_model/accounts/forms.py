"""The parameters of a signed request, each taken with Binance's code if it is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Side
from lstm_model.practice.query import RefusedRequest

T = TypeVar("T")

_DECIMAL = r"[0-9]{1,20}(\.[0-9]{1,20})?"
_MOST_ROWS = 1_000


@dataclass(frozen=True)
class Form:
    """Names and values as they were sent."""

    given: dict[str, str]

    def get(self, name: str) -> str:
        """A value, or nothing."""
        return self.given.get(name, "")

    def text(self, name: str) -> str:
        """A value that must be there.

        Raises
        ------
        RefusedRequest
            -1102.
        """
        if not self.get(name):
            said = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
            raise RefusedRequest(-1102, said)
        return self.given[name]

    def decimal(self, name: str) -> Decimal:
        """A number that must be there and is not negative."""
        if not re.fullmatch(_DECIMAL, self.text(name)):
            said = f"Illegal characters found in parameter '{name}'; legal range is '^{_DECIMAL}$'."
            raise RefusedRequest(-1100, said)
        return Decimal(self.given[name])

    def none(self) -> Decimal:
        """What a parameter is that does not belong to the order."""
        return ZERO

    def number(self, name: str) -> int | None:
        """A whole number, if there is one."""
        if not self.get(name):
            return None
        if not self.given[name].isdecimal():
            said = (
                f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
            )
            raise RefusedRequest(-1100, said)
        return int(self.given[name])

    def flag(self, name: str) -> bool:
        """Whether it was sent as true."""
        return self.get(name).lower() == "true"

    def choice(self, name: str, allowed: Sequence[str], code: int, said: str) -> str:
        """One of a few words, or a refusal with this code."""
        if self.text(name) not in allowed:
            raise RefusedRequest(code, said)
        return self.given[name]

    def side(self) -> Side:
        """BUY or SELL."""
        return (
            "BUY"
            if self.choice("side", ("BUY", "SELL"), -1117, "Invalid side.") == "BUY"
            else "SELL"
        )

    def within(self, time_ms: int) -> bool:
        """Whether a moment is in the time asked for."""
        end_ms = self.number("endTime")
        return (self.number("startTime") or 0) <= time_ms and (end_ms is None or time_ms <= end_ms)

    def limited(self, rows: list[T]) -> list[T]:
        """As many rows as asked for: the first with a start, the last without."""
        most = min(self.number("limit") or 500, _MOST_ROWS)
        first = "startTime" in self.given or "fromId" in self.given
        return rows[:most] if first else rows[-most:]
