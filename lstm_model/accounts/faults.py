"""What goes wrong with a request on purpose: by its method, its path and its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lstm_model.practice.attended import Answered, Asked, Lost


@dataclass(frozen=True)
class Refused:
    """The exchange refuses the request and does nothing."""

    code: int
    message: str = "Refused on purpose."
    status: int = 400


@dataclass(frozen=True)
class Astray:
    """The exchange does what was asked, and the client does not hear of it."""

    answer: Answered


@dataclass(frozen=True)
class Unheard:
    """The request never arrives: nothing is done, and no answer comes."""

    answer: Answered


@dataclass(frozen=True)
class Stale:
    """A look shows what it showed the last time that somebody looked, if anybody has."""


@dataclass(frozen=True)
class Meanwhile:
    """Something happens right before the request is heard, and the request is answered."""

    what: Callable[[], object]


Fault = Refused | Astray | Unheard | Stale | Meanwhile

_PAGE: Final = "<html><body>Service Unavailable</body></html>"
_FATE: Final = "Timeout waiting for response from backend server. Send status unknown; "
_FATE_UNKNOWN: Final = {"code": -1007, "msg": _FATE + "execution status unknown."}

DROPPED: Final = Astray(Answered(0, None, Lost.DROPPED))
HUNG: Final = Astray(Answered(0, None, Lost.HUNG))
UNAVAILABLE: Final = Astray(Answered(503, _PAGE))
UNKNOWN_FATE: Final = Astray(Answered(408, _FATE_UNKNOWN))
NEVER_ARRIVED: Final = Unheard(Answered(0, None, Lost.DROPPED))
GARBLED: Final = Astray(Answered(200, "<html><body>Welcome</body></html>"))
TOO_MANY: Final = Refused(-1003, "Too many requests; current limit is exceeded.", 429)
BANNED: Final = Refused(-1003, "Way too many requests; IP banned.", 418)
BLIND: Final = Refused(-2013, "Order does not exist.")


@dataclass
class _Planned:
    method: str
    path: str
    first: int
    last: int
    fault: Fault
    seen: int = 0

    def meets(self, asked: Asked) -> bool:
        """Count a request; whether it is one of those that fail."""
        if self.method != asked.method or self.path != asked.path:
            return False
        self.seen += 1
        return self.first <= self.seen <= self.last


class Plan:
    """The faults to come. Requests are counted from when a fault is planned."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._looks: dict[tuple[str, ...], Answered] = {}

    def add(self, method: str, path: str, nth: int, fault: Fault, calls: int = 1) -> None:
        """Let the `nth` such request from now on fail, and those after it, `calls` in all."""
        self._planned.append(_Planned(method, path, nth, nth + calls - 1, fault))

    def clear(self) -> None:
        """Let nothing fail any more."""
        self._planned.clear()

    def apply(self, asked: Asked, answer: Callable[[], Answered | None]) -> Answered | None:
        """The answer to a request, or what a fault makes of it."""
        met = [planned.fault for planned in self._planned if planned.meets(asked)]
        fault, look = (met[0] if met else None), _look(asked)
        if isinstance(fault, Refused):
            return Answered(fault.status, {"code": fault.code, "msg": fault.message})
        if isinstance(fault, Unheard):
            return fault.answer
        if isinstance(fault, Stale) and look in self._looks:
            return self._looks[look]
        if isinstance(fault, Meanwhile):
            fault.what()
        answered = answer()
        if answered and asked.method == "GET":
            self._looks[look] = answered
        return fault.answer if isinstance(fault, Astray) else answered


def _look(asked: Asked) -> tuple[str, ...]:
    """What is looked at, whenever that is."""
    signed = ("timestamp", "recvWindow", "signature")
    wanted = [it for it in asked.query.split("&") if it.partition("=")[0] not in signed]
    return (asked.path, *sorted(wanted))
