"""Who a request comes from: key, signature and time.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from lstm_model.practice.attended import Asked
from lstm_model.practice.query import RefusedRequest

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
