"""What a request to Binance's REST interface asks for: parameters read, and refused, as there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from lstm_model.errors import DataError
from lstm_model.practice.tape_market import Listing, Market

Query = Mapping[str, str]


class RefusedRequest(DataError):
    """A request the exchange refuses, with Binance's error code.

    https://developers.binance.com/docs/binance-spot-api-docs/errors
    """

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


def text(query: Query, name: str) -> str:
    """A parameter that must be there.

    Raises
    ------
    RefusedRequest
    """
    if not query.get(name):
        message = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise RefusedRequest(-1102, message)
    return query[name]


def number(query: Query, name: str) -> int | None:
    """A parameter that is a whole number, None where it was not sent.

    Raises
    ------
    RefusedRequest
    """
    if name not in query:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", query[name]):
        message = (
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,18}}$'."
        )
        raise RefusedRequest(-1100, message)
    return int(query[name])


def limit(query: Query, default: int, most: int = 1000) -> int:
    """How many rows at most.

    Raises
    ------
    RefusedRequest
    """
    found = number(query, "limit")
    if found == 0:
        raise RefusedRequest(-1130, "Data sent for parameter 'limit' is not valid.")
    return default if found is None else min(found, most)


def symbols(query: Query) -> list[str]:
    """The symbols a query names, empty for all.

    Raises
    ------
    RefusedRequest
    """
    if "symbol" in query:
        return [text(query, "symbol")]
    if "symbols" not in query:
        return []
    try:
        found = json.loads(query["symbols"])
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise RefusedRequest(-1100, "Illegal characters found in parameter 'symbols'.")
    return found


def listing(market: Market, symbol: str) -> Listing:
    """The pair of that symbol.

    Raises
    ------
    RefusedRequest
    """
    if symbol not in market.listings:
        raise RefusedRequest(-1121, "Invalid symbol.")
    return market.listings[symbol]


def trading(market: Market, query: Query) -> Listing:
    """The pair that a query names, if it has traded by now.

    Raises
    ------
    RefusedRequest
    """
    found = listing(market, text(query, "symbol"))
    if not found.trades.due(market.now_ms()):
        raise RefusedRequest(-1121, "Invalid symbol.")
    return found
