"""ccxt: one REST client and the websocket lines. The only import of ccxt.

ccxt hands trades to the caller through a cache of 1,000, from which only the pair that was first
in a burst is returned. So `Line` puts its own caches into the exchange object, which pass every
trade on at the moment it is parsed and keep one; the pending watch call is then only waited for
to learn that the connection has ended, and never cancelled, which would slow ccxt down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import aiohttp
import ccxt
from ccxt.async_support.base.ws.cache import ArrayCache

from lstm_model.errors import DataError
from lstm_model.stream.customs import Customs, RawTrade, customs_of
from lstm_model.stream.trade_feed import Track, TradeFeed, log_failure

logger = logging.getLogger(__name__)

# What ccxt's parsers raise on frames they do not understand.
_BROKEN_FRAME = (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError)
_OF_THE_SYSTEM = (*_BROKEN_FRAME, RuntimeError)  # no thread is left, or the session is closed
_TOO_MUCH = (ccxt.DDoSProtection, ccxt.RateLimitExceeded)
_REFUSED_FOR_GOOD = (
    ccxt.NotSupported, ccxt.BadRequest, ccxt.AuthenticationError, ccxt.ArgumentsRequired,
)  # fmt: skip
_CLOSE_S = 2.0  # chosen: for a polite end; after that the sockets are simply closed
_WAYS = ("watchTradesForSymbols", "watchTrades")  # all pairs by one call, or each by its own
_LONGEST_WAIT_S = 60.0  # chosen: of what an exchange may ask for with Retry-After


class Refusal(DataError):
    """A request the exchange did not answer.

    Attributes
    ----------
    passing : it may work later
    wait_s : how long the exchange wants to be left alone
    """

    def __init__(self, error: BaseException, wait_s: float = 0.0) -> None:
        # Only the kind of error is told: its text may hold a signed address.
        super().__init__(type(error).__name__)
        self.passing = not isinstance(error, _REFUSED_FOR_GOOD)
        self.unauthorized = isinstance(error, ccxt.AuthenticationError)
        self.wait_s = wait_s


class Rest:
    """Markets and trades of the past, over one exchange object for the life of the stream."""

    def __init__(self, exchange: Any) -> None:
        self.exchange = exchange
        self.customs: Customs = customs_of(exchange.id)
        self.has_key = bool(exchange.apiKey)

    @property
    def name(self) -> str:
        """ccxt's id of the exchange."""
        return str(self.exchange.id)

    @property
    def has_trades(self) -> bool:
        """Whether the exchange tells past trades at all."""
        return bool(self.exchange.has.get("fetchTrades"))

    @property
    def has_stream(self) -> bool:
        """Whether ccxt can follow the trades of this exchange."""
        return self.follows_by is not None

    @property
    def follows_by(self) -> str | None:
        """ccxt's word for how trades of this exchange are followed; None: not at all."""
        return next((way for way in _WAYS if self.exchange.has.get(way)), None)

    async def clock_ms(self) -> int | None:
        """What time it is there, UTC milliseconds; None where the exchange does not tell.

        Raises
        ------
        Refusal
        """
        if not self.exchange.has.get("fetchTime"):
            return None
        with self._translated():
            return int(await self.exchange.fetch_time())

    async def load(self, reload: bool = False) -> None:
        """Learn the markets.

        Raises
        ------
        Refusal
        """
        with self._translated():
            await self.exchange.load_markets(reload)

    def knows(self, pair: str) -> bool:
        """Whether the exchange has this pair."""
        return pair in (self.exchange.markets or {})

    def kind(self, pair: str) -> str:
        """`spot`, `linear` or `inverse`."""
        market = self.exchange.market(pair)
        return next((kind for kind in ("linear", "inverse") if market.get(kind)), "spot")

    def leaves_out(self, pair: str) -> bool:
        """Whether REST's ids of this pair have holes where there never was a trade.

        Binance counts futures' trades pair by pair, as on spot, but with them what its insurance
        fund takes over and what is no trade at all, which only the websocket tells.
        """
        return self.customs.route == "binance" and self.kind(pair) != "spot"

    async def trades(
        self, pair: str, since_ms: int | None = None, params: Mapping[str, Any] | None = None
    ) -> list[RawTrade]:
        """One page of trades in ccxt's form, oldest first.

        Raises
        ------
        Refusal
        """
        with self._translated():
            page = await self.exchange.fetch_trades(pair, since_ms, 1000, dict(params or {}))
            return list(page)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (ccxt.BaseError, aiohttp.ClientError, OSError, *_OF_THE_SYSTEM) as error:
            raise Refusal(error, self._wait_s(error)) from None

    def _wait_s(self, error: BaseException) -> float:
        if not isinstance(error, _TOO_MUCH):
            return 0.0
        headers = (self.exchange.last_response_headers or {}).items()
        told = next((value for name, value in headers if name.lower() == "retry-after"), 0.0)
        try:
            return max(0.0, min(_LONGEST_WAIT_S, float(told)))  # NaN makes it the longest
        except ValueError:
            return 0.0

    async def close(self) -> None:
        """Leave no socket behind."""
        await close_exchange(self.exchange)


async def close_exchange(exchange: Any) -> None:
    """Close an exchange object politely, and what does not end in time without manners."""
    closing = asyncio.ensure_future(exchange.close())
    done, _ = await asyncio.wait([closing], timeout=_CLOSE_S)
    if not done:
        with contextlib.suppress(OSError, aiohttp.ClientError):
            await exchange.close_connector()
    await asyncio.wait([closing], timeout=_CLOSE_S)
    if closing.done() and not closing.cancelled() and closing.exception():
        logger.debug("Closing %s: %s", exchange.id, type(closing.exception()).__name__)


class _Sink(ArrayCache):  # type: ignore[misc]
    """ccxt's cache of one pair's trades, which passes on instead of keeping."""

    def __init__(self, track: Track) -> None:
        super().__init__(1)
        self.append = track.take  # what ccxt calls for every trade it has parsed

    def __bool__(self) -> bool:
        return True  # an empty cache would be replaced by `trades.get(symbol) or ArrayCache(...)`

    def __eq__(self, other: object) -> bool:
        return self is other  # ccxt compares with "" before each use

    __hash__ = None  # type: ignore[assignment]

    def getLimit(self, symbol: str | None, limit: int | None) -> int | None:
        return 1


class Line:
    """One connection that follows some pairs, from an exchange object of its own.

    Attributes
    ----------
    subscribed : set at the first frame that the exchange sends, its answer to our subscription
    """

    def __init__(self, exchange: Any, tracks: Mapping[str, Track], feed: TradeFeed) -> None:
        self.subscribed = asyncio.Event()
        self._exchange, self._tracks, self._feed = exchange, tracks, feed
        self._sinks = {pair: _Sink(track) for pair, track in tracks.items()}
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watching: dict[asyncio.Task[Any], Callable[[], Any]] = {}
        exchange.trades.update(self._sinks)
        if (parse := customs_of(exchange.id).parse) is not None:
            exchange.handle_message = self._parsed_by(parse, exchange.handle_message)
        self._ccxt_connected, exchange.on_connected = exchange.on_connected, self._connected

    async def run(self) -> str:
        """Follow the pairs until the connection ends; the reason why it did."""
        for call in self._calls():
            self._watch(call)
        while not self._failure.done():
            await asyncio.wait(
                [*self._watching, self._failure], return_when=asyncio.FIRST_COMPLETED
            )
            for task in [task for task in self._watching if task.done()]:
                self._renew(task)
        return self._failure.result()

    def fail(self, reason: str) -> None:
        """Give this connection up."""
        if not self._failure.done():
            self._failure.set_result(reason)

    async def close(self) -> None:
        """Leave no socket and no task behind."""
        self._sinks.clear()
        await close_exchange(self._exchange)
        for task in self._watching:
            task.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        for task in self._watching:
            _ = task.cancelled() or task.exception()  # they end with "closed by the user"

    def adopt(self) -> None:
        """Take over caches that ccxt has made behind our back, with what is in them."""
        for key, cache in tuple(self._exchange.trades.items()):
            if not isinstance(cache, _Sink) and cache:
                self._offer(cache)
                if (sink := self._sinks.get(cache[-1].get("symbol"))) is not None:
                    self._exchange.trades[key] = sink

    def _calls(self) -> list[Callable[[], Any]]:
        pairs = list(self._tracks)
        if self._exchange.has.get(_WAYS[0]):
            return [partial(self._exchange.watch_trades_for_symbols, pairs)]
        return [partial(self._exchange.watch_trades, pair) for pair in pairs]

    def _watch(self, call: Callable[[], Any]) -> None:
        self._watching[asyncio.ensure_future(call())] = call

    def _renew(self, task: asyncio.Task[Any]) -> None:
        """A watch call has returned: it has failed, or brings trades that passed by the sinks."""
        call = self._watching.pop(task)
        if task.cancelled():
            return self.fail("closed")
        error = task.exception()
        if error is None:
            self._offer(task.result())
            self.adopt()
            return self._watch(call)
        if not isinstance(error, (ccxt.BaseError, aiohttp.ClientError, OSError, *_OF_THE_SYSTEM)):
            log_failure(task)  # an error of ours ends this connection, too, and no other
        return self.fail(_kind(error))

    def _offer(self, trades: Collection[RawTrade]) -> None:
        self._feed.begin_frame()
        for trade in list(trades):
            track = self._tracks.get(trade.get("symbol", ""))
            if track is not None:
                track.take(trade)
        self._feed.end_frame()

    def _connected(self, client: Any, message: Any = None) -> None:
        """ccxt has opened a connection: listen in before its first frame is read."""
        self._ccxt_connected(client, message)
        client.resolve = _without_sinks(client.resolve)
        client.handle_message = self._guarded(client.handle_message)

    def _parsed_by(
        self, parse: Callable[[Any], tuple[str, RawTrade] | None], others: Callable[..., None]
    ) -> Callable[[Any, Any], None]:
        """A short cut around ccxt's parser, where there is one; other frames go to `others`."""
        names = {self._exchange.market(pair)["id"]: track for pair, track in self._tracks.items()}

        def handle_message(client: Any, message: Any) -> None:
            if (found := parse(message)) is None:
                others(client, message)
            elif (track := names.get(found[0])) is not None:
                track.take(found[1])

        return handle_message

    def _guarded(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        """An error in ccxt's handler would end its receive loop without anybody hearing of it."""
        feed, ccxt_parses = self._feed, customs_of(self._exchange.id).parse is None

        def guarded(message: Any) -> None:
            feed.begin_frame()
            try:
                handle(message)
            except (ccxt.BaseError, *_BROKEN_FRAME) as error:
                self._broken(error)
            if not self.subscribed.is_set() and message.type in _DATA:
                self.subscribed.set()
            feed.end_frame()
            if ccxt_parses:  # at once: of frames that pile up the next may make another cache
                self.adopt()

        return guarded

    def _broken(self, error: BaseException) -> None:
        self._feed.broken_frames += 1
        if isinstance(error, ccxt.BaseError):
            return self.fail(_kind(error))  # the exchange refuses something
        level = logging.WARNING if self._feed.broken_frames == 1 else logging.DEBUG
        logger.log(level, "A frame could not be read (%s)", type(error).__name__)
        return None


_DATA = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


def _without_sinks(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """ccxt's `resolve`, except that a sink ends no watch call: its trades are already taken."""

    def selective(result: Any, message_hash: Any = None) -> Any:
        return result if type(result) is _Sink else resolve(result, message_hash)

    return selective


def _kind(error: BaseException) -> str:
    """What went wrong, without texts that may hold addresses."""
    text = type(error).__name__
    code = str(error).rpartition("closing code ")[2] if "closing code " in str(error) else ""
    return f"{text}, closing code {code}" if code else text


async def open_exchange(connect: Callable[[], Any], known: Rest | None = None) -> Any:
    """A fresh exchange object, made in another thread because that takes milliseconds.

    Raises
    ------
    Refusal
    """
    try:
        exchange = await asyncio.to_thread(connect)
        if known is not None:
            exchange.set_markets_from_exchange(known.exchange)
            exchange.ssl_context = known.exchange.ssl_context  # reading certificates takes 20 ms
    except (ccxt.BaseError, OSError, *_OF_THE_SYSTEM) as error:
        raise Refusal(error) from None
    return exchange
