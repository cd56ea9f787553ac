"""Where somebody who keeps accounts hears of every REST request before the public side answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiohttp import web

_HUNG_S = 3_600.0  # chosen: longer than any client waits


class Lost(Enum):
    """How an answer gets lost on its way."""

    DROPPED = "the connection ends without an answer"
    HUNG = "no answer comes"


@dataclass(frozen=True)
class Asked:
    """One REST request: query and form as they were sent, not decoded, for they are signed."""

    method: str
    path: str
    query: str
    form: str
    key: str


@dataclass(frozen=True)
class Answered:
    """Status and body, or how it got lost; a body that is text is none of Binance's JSON."""

    status: int
    body: Any
    lost: Lost | None = None


Attendant = Callable[[Asked], Answered | None]
"""Answers a request, or leaves it to the public side."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def attended_by(attendant: Attendant) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A layer before a server's endpoints that asks `attendant` first."""

    @web.middleware
    async def first(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await handler(request)
        asked = Asked(
            request.method,
            request.path,
            request.rel_url.raw_query_string,
            await request.text(),
            request.headers.get("X-MBX-APIKEY", ""),
        )
        answered = attendant(asked)
        return await handler(request) if answered is None else await _told(request, answered)

    return first


async def _told(request: web.Request, answered: Answered) -> web.StreamResponse:
    if answered.lost is Lost.HUNG:
        await asyncio.sleep(_HUNG_S)
    if answered.lost and request.transport:
        request.transport.abort()
    if isinstance(answered.body, str):
        page = answered.body
        return web.Response(status=answered.status, text=page, content_type="text/html")
    return web.json_response(answered.body, status=answered.status or 500)
