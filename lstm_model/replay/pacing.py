"""Keeps a bot and a paced exchange in step: the clock waits until the bot has all that is due.

What a bot gets in fast-forward must not depend on how fast its threads are. So a stretch of time
is cut into moments, one a second at most, each of which ends with a trade. At each the clock
stands still until the trades have come through the websocket onto the bot's tapes; then the pairs
that traded are forecast anew, once. At the end of the stretch the candles come too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from lstm_model.market.candles import candle_open_ms, timeframe_ms
from lstm_model.practice.clock import VirtualClock, real_sleep
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults
from lstm_model.practice.incidents import STREAM_FAULTS, newest_candle_ms
from lstm_model.practice.streams import KLINE_UPDATE_MS
from lstm_model.practice.tape_market import TIMEFRAMES, Listing
from lstm_model.stream.trade_feed import ExchangeClock
from lstm_model.stream.trade_stream import TradeStream
from lstm_model.trading.inside import InsideCandle

logger = logging.getLogger(__name__)

_GROUP_MS = 1_000  # chosen: how late a trade may be; two seconds would count as behind
_POLL_S = 0.000_1  # chosen: a frame takes about three of these from the exchange to the tape
_PATIENCE_S = 60.0  # chosen: a connection is made anew within a few seconds


class Pace:
    """The stretches of time between two looks of a bot.

    Parameters
    ----------
    listings : pair -> what the exchange has of it
    bot : freqtrade's bot now, None while there is none

    Attributes
    ----------
    deaf : the exchange cannot be reached, so nothing is waited for
    disturbed : trades are lost and late on the websocket: those alone are waited for that were sent
    missed : what the bot should have had and has not got
    """

    def __init__(
        self, clock: VirtualClock, exchange: LoopbackExchange, listings: Mapping[str, Listing],
        bot: Callable[[], Any],
    ) -> None:  # fmt: skip
        self.deaf = self.disturbed = False
        self.missed: list[str] = []
        self._clock, self._exchange, self._listings, self._bot = clock, exchange, listings, bot

    def advance(self, to_ms: int) -> None:
        """Let the clock go on to `to_ms`; the bot gets what happens until then."""
        if self.deaf:
            self._clock.move_to(to_ms)
            self._wait("the end of its connections", self._is_cut_off)
            return
        inside = self._inside()
        if inside is not None and self.settle():
            for at_ms in self._moments(to_ms):
                self._trade(inside, at_ms)
        self._clock.move_to(to_ms)
        self._exchange.send_due()
        self._wait("the candles", self._has_candles)

    def settle(self) -> bool:
        """Whether the bot's stream knows every trade until now, after however long that takes.

        Else how fast it connects would decide whether a forecast inside the candle is there.
        """
        inside = self._inside()
        if inside is None or self.deaf:
            return False
        stream = _stream(inside)
        settled = self._wait("the trade stream", stream.is_settled)
        for track in stream._tracks.values() if settled else ():
            track.proven_s = time.monotonic()  # a training took minutes, but nothing was traded
        return settled

    def cut_off(self) -> None:
        """The exchange goes down; returns when the bot has noticed."""
        self._exchange.break_down()
        self._wait("the end of its connections", self._is_cut_off)
        self.deaf = True

    def reconnect(self) -> None:
        """The exchange is there again."""
        self._exchange.recover()
        self.deaf = False

    def disturb(self) -> None:
        """Cut every connection; when the bot is back, much goes wrong on the new one."""
        before = self._exchange.log.connections
        self._exchange.drop_connections()
        if self._inside() is not None:
            self._wait("a new connection", lambda: self._exchange.log.connections > before)
            self.settle()
        self._exchange.faults = STREAM_FAULTS
        self.disturbed = True

    def calm(self) -> None:
        """What `disturb` began is over; trades that were held back still come late."""
        self._exchange.faults = Faults()
        self.disturbed = False

    def _inside(self) -> InsideCandle | None:
        bot = self._bot()
        engine = bot.strategy._lstm_live if bot else None
        inside: InsideCandle | None = engine.inside if engine else None
        if inside is not None:
            stream = _stream(inside)
            stream.on_trades = None  # how frames come in bursts would decide on forecasts
            if not isinstance(stream._feed.clock, _OneClock):
                stream._feed.clock = _OneClock()
        return inside

    def _moments(self, to_ms: int) -> Iterator[int]:
        """Times of the last trade of each second until `to_ms`."""
        now_ms = self._clock.now_ms
        traded = [item.trades.time_ms for item in self._listings.values()]
        times = np.sort(np.concatenate([_between(time_ms, now_ms, to_ms) for time_ms in traded]))
        yield from times[np.diff(times // _GROUP_MS, append=-1) != 0].tolist()

    def _trade(self, inside: InsideCandle, at_ms: int) -> None:
        before = self._clock.now_ms
        self._clock.move_to(at_ms)
        self._exchange.send_due(trades_only=True)
        tapes = _stream(inside).tapes
        followed = {pair: item for pair, item in self._listings.items() if pair in tapes}
        newest = {pair: _newest_id(item, at_ms) for pair, item in followed.items()}
        due = self._sent(followed) if self.disturbed else newest
        self._wait(
            "its trades",
            lambda: all(tapes[pair].last_id >= number for pair, number in due.items()),
        )
        if self.disturbed:
            self.settle()
        inside.on_trades(
            {pair for pair, item in followed.items() if _newest_id(item, before) < newest[pair]}
        )

    def _sent(self, followed: Mapping[str, Listing]) -> dict[str, int]:
        """Pair -> the newest trade that was not lost on its way; on futures not all are trades."""
        sent = self._exchange.log.newest
        newest = {pair: sent.get(item.instrument.symbol, 0) for pair, item in followed.items()}
        return {
            pair: _last_id(followed[pair], followed[pair].position(id + 1))
            for pair, id in newest.items()
        }

    def _has_candles(self) -> bool:
        """Whether freqtrade's own websocket has the newest candle that is served."""
        websocket = self._websocket()
        if websocket is None:
            return True
        with websocket._state_lock:
            watched = set(websocket._klines_watching)
        self._exchange.send_due()  # to those that have only just connected
        served = [key for key in watched if key[0] in self._listings and key[1] in TIMEFRAMES]
        return all(self._has_candle(websocket, key) for key in served)

    def _has_candle(self, websocket: Any, key: tuple[str, str, Any]) -> bool:
        pair, timeframe, _ = key
        now_ms = self._clock.now_ms
        rows = websocket._ccxt_object.ohlcvs.get(pair, {}).get(timeframe)
        newest_ms = newest_candle_ms(self._listings[pair], timeframe, now_ms)
        if not rows:  # a candle that is missing does not come
            return newest_ms < int(candle_open_ms(now_ms, timeframe_ms(timeframe)))
        refreshed_ms = websocket._klines_last_refresh.get(key, 0)
        return bool(rows[-1][0] >= newest_ms and now_ms - refreshed_ms < KLINE_UPDATE_MS)

    def _is_cut_off(self) -> bool:
        """Whether all that listens to the exchange has noticed that it is gone."""
        websocket, inside = self._websocket(), self._inside()
        if websocket is not None and _is_busy(websocket):
            return False
        if inside is None:
            return True
        stream = _stream(inside)
        return not any(stream.freshness(pair).fresh for pair in stream.tapes)

    def _websocket(self) -> Any:
        bot = self._bot()
        websocket = bot.exchange._exchange_ws if bot else None
        if websocket is not None:
            # ccxt would sleep in real time for what it has reckoned by this clock, which stands.
            websocket._ccxt_object.ws_dial_delay = lambda url: 0.0
        return websocket

    def _wait(self, what: str, is_there: Callable[[], bool]) -> bool:
        """Whether it is there, after however long that takes."""
        until_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until_s:
            if is_there():
                return True
            real_sleep(_POLL_S)
        self.missed.append(what)
        logger.warning("In %.0f s the bot has not got %s; it goes on", _PATIENCE_S, what)
        return False


class _OneClock(ExchangeClock):
    """The clock of an exchange that is the bot's own: nothing of it has to be measured.

    Which trades were there when it is read would decide on what it shows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measured = True

    def tick(self) -> None:
        self.best_ms = None


def _is_busy(websocket: Any) -> bool:
    """Whether freqtrade's websocket listens to something, or tries to."""
    clients = tuple(websocket._ccxt_object.clients.values())
    dialing = any(client.connecting for client in clients)
    return bool(websocket._klines_watching or websocket._klines_scheduled or dialing)


def _stream(inside: InsideCandle) -> TradeStream:
    return cast(TradeStream, inside.stream)


def _between(time_ms: Any, after_ms: int, until_ms: int) -> Any:
    return time_ms[slice(*np.searchsorted(time_ms, (after_ms, until_ms), side="right"))]


def _newest_id(listing: Listing, now_ms: int) -> int:
    return _last_id(listing, listing.trades.due(now_ms))


def _last_id(listing: Listing, count: int) -> int:
    """The id of the last of so many trades, 0 of none."""
    return int(listing.ids(count - 1, count)[0]) if count else 0
