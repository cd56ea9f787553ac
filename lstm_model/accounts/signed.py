"""Who a request comes from and what it asks for: key, signature and time, then its parameters.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar
from urllib.parse import parse_qsl

from lstm_model.accounts.money import ZERO
from lstm_model.accounts.orders import Side
from lstm_model.practice.attended import Asked
from lstm_model.practice.query import RefusedRequest

T = TypeVar("T")

_DECIMAL = r"[0-9]{1,20}(\.[0-9]{1,20})?"
_MOST_ROWS = 1_000

_AHEAD_MS = 1_000  # by which a client's clock may be ahead, as on Binance
_WINDOW_MS = 5_000  # if a client names none
_MOST_WINDOW_MS = 60_000


@dataclass(frozen=True)
class Keys:
    """What a client of the practice account knows."""

    key: str = "practice" * 8
    secret: str = "only-for-play-money-" * 3

    def __repr__(self) -> str:
        return "Keys(...)"

    def check(self, asked: Asked, now_ms: int) -> dict[str, str]:
        """The parameters of a signed request, the signature aside.

        Raises
        ------
        RefusedRequest
            Not signed by these keys, or not now.
        """
        if not re.fullmatch(r"[A-Za-z0-9]{64}", asked.key):
            raise RefusedRequest(-2014, "API-key format invalid.", 401)
        if asked.key != self.key:
            said = "Invalid API-key, IP, or permissions for action."
            raise RefusedRequest(-2015, said, 401)
        given = parameters(asked)
        signature = given.pop("signature", "")
        if not hmac.compare_digest(signature, self.sign(_payload(asked))):
            raise RefusedRequest(-1022, "Signature for this request is not valid.")
        _check_time(given, now_ms)
        return given

    def sign(self, payload: str) -> str:
        """The signature of what is sent."""
        return hmac.new(self.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def parameters(asked: Asked) -> dict[str, str]:
    """All parameters of a request, decoded."""
    return dict(parse_qsl(asked.query) + parse_qsl(asked.form))


def _payload(asked: Asked) -> str:
    return re.sub(r"&?signature=[^&]*", "", asked.query + asked.form)


def _check_time(given: dict[str, str], now_ms: int) -> None:
    sent, window = given.get("timestamp", ""), given.get("recvWindow", str(_WINDOW_MS))
    if not (sent.isdecimal() and window.isdecimal()):
        said = "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."
        raise RefusedRequest(-1102, said)
    if int(window) > _MOST_WINDOW_MS:
        raise RefusedRequest(-1131, "recvWindow must be less than 60000")
    if int(sent) >= now_ms + _AHEAD_MS:
        said = f"Timestamp for this request was {_AHEAD_MS}ms ahead of the server's time."
        raise RefusedRequest(-1021, said)
    if now_ms - int(sent) > int(window):
        raise RefusedRequest(-1021, "Timestamp for this request is outside of the recvWindow.")


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
