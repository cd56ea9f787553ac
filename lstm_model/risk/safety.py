"""Order safety of one live bot: the guard, fed with freqtrade's trades and the exchange's word."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from freqtrade.enums import RunMode
from freqtrade.persistence import Trade

from lstm_model.bot import insides
from lstm_model.bot.configuration import Config
from lstm_model.bot.reading import silent
from lstm_model.errors import StoreError
from lstm_model.learning.news import as_markdown
from lstm_model.market.candles import timeframe_ms
from lstm_model.orders.book import Book, Intent
from lstm_model.orders.guard import Denial, Guard
from lstm_model.orders.lookout import Lookout
from lstm_model.orders.standing import Owned, Standing
from lstm_model.orders.stuck import Stuck
from lstm_model.risk.desk import KNOWN, Desk
from lstm_model.risk.ownership import book_path, newest_closed, owned_by
from lstm_model.trading.analyzed import newest
from lstm_model.trading.sizing import ERROR, UNKNOWN_ACCOUNT

logger = logging.getLogger(__name__)

_DOUBT_MS, _SILENCE_MS = 10_000, 30_000  # chosen: pauses between looks while something is open
_UNSEEN_MS = 60_000  # chosen: a request that fails for less is chance, and happens every day
_NO_STOP = "has no stop on the exchange, and none can be placed"
_NO_EXIT = "is to be left, and no exit order can be placed"
_NO_LOOK = "cannot be looked at, so that neither its stop nor an exit is decided"
_NO_ID = "has an order without an id, for the exchange's answer was none; it cannot be left"
_RELOAD = "If the exchange shows it otherwise, `/reload_trade {id}` looks its orders up there"
_NOTHING = (None, "", "None")  # the id of an order that freqtrade made of an answer without one
# freqtrade asks the exchange for such an order for ever; /reload_trade does not take it away.
_DELETE = (
    "`/delete {id}` has freqtrade forget it; what the exchange still holds of it then is told, and "
    "`freqtrade-lstm orders` closes that"
)


class Safety:
    """What stands between freqtrade's wish to enter and the exchange.

    Parameters
    ----------
    guard : the bot's
    lookout : asks `desk`
    tell, shout : get a line for the user; of what is told again and again some are held back,
        of what is shouted none, for each is of other money
    """

    def __init__(
        self, guard: Guard, desk: Desk, lookout: Lookout, candle_ms: int,
        tell: Callable[[str], object], shout: Callable[[str], object],
    ) -> None:  # fmt: skip
        self._guard, self._desk, self._lookout = guard, desk, lookout
        self._candle_ms, self._tell, self._shout = candle_ms, tell, shout
        self._stuck, self._exits = Stuck(), set[int]()
        self._seen, self._seen_ms = set[int](), dict[int, int]()
        self._hears, self._stops = False, dict[int, int]()
        self._asked_ms, self._failed = 0, False
        self._then: dict[str, Owned] | None = None  # the trades when the exchange was asked

    def loop(self, now_ms: int, strategy: Any) -> bool:
        """Between orders: compare, ask anew where that is due, and tell what is to be told."""
        trades, pairs = Trade.get_open_trades(), strategy.dp.current_whitelist()
        owned = self._owned(trades)
        self._guard.judge(owned, self._answer(), pairs, now_ms, then=self._then)
        watched = {*pairs, *(trade.pair for trade in trades)}
        watched |= {intent.pair for intent in self._guard.waiting}
        self._desk.follow({pair: newest(strategy.lstm_analyzed(pair), "close") for pair in watched})
        if now_ms >= self._due_ms():
            if self._lookout.idle.is_set():  # else its answer is to the question before
                self._then = owned
            self._asked_ms = now_ms
            self._lookout.want()
        stops = strategy.order_types.get("stoploss_on_exchange", False)
        troubles = self._troubles(trades, now_ms, stops=stops)
        for trade_id, text in self._stuck.after_loop(troubles, now_ms):
            pair = next(trade.pair for trade in trades if trade.id == trade_id)
            advice = (_DELETE if text == _NO_ID else _RELOAD).format(id=trade_id)
            self._shout(
                f"{pair}: trade {trade_id} {text}, for several loops now: see the log. {advice}"
            )
        while self._guard.news:
            self._shout(self._guard.news.popleft())
        return True

    @property
    def asks(self) -> bool:
        """Whether the exchange is being asked now."""
        return not self._lookout.idle.is_set()

    def denial(self, pair: str, now_ms: int) -> Denial | None:
        """What forbids an order that enters or adds; None: nothing."""
        return self._guard.denial(pair, now_ms)

    def intend(self, intent: Intent) -> Denial | None:
        """Write down what is about to be sent; why it must not be, if that fails."""
        try:
            self._guard.intend(intent)
        except StoreError as error:
            return Denial(ERROR, str(error))
        return None

    def exits(self, trade: Trade) -> None:
        """freqtrade is about to send an exit of this trade."""
        self._exits.add(trade.id)

    def looked_at(self, trade: Trade) -> None:
        """freqtrade has come to ask whether to leave this trade."""
        self._seen.add(trade.id)
        self._hears = True  # a strategy may answer `should_exit` without asking ours

    def exposures(self) -> Iterable[tuple[str, float]]:
        """By pair what is at stake beside the trades, quote currency, shorts below zero."""
        return self._guard.exposures()

    def stop(self) -> None:
        """Ask no more."""
        self._lookout.stop()

    def _answer(self) -> Standing | None:
        """What the exchange has said since the last loop; that it is silent is told once."""
        standing, failure = self._lookout.take()
        if failure:
            self._guard.fail(failure)
        if failure and not self._failed:
            self._tell(f"No entries: the exchange does not say what the account holds: {failure}")
        if standing and self._failed:
            self._tell("The exchange says again what the account holds")
        self._failed = bool(failure) or (self._failed and not standing)
        return standing

    def _due_ms(self) -> int:
        if not self._lookout.idle.is_set():
            return self._asked_ms + 10 * self._candle_ms  # it waits for the exchange
        pause_ms = _SILENCE_MS if self._failed else _DOUBT_MS
        next_ms = self._asked_ms - self._asked_ms % self._candle_ms + self._candle_ms
        return self._asked_ms + pause_ms if self._guard.in_doubt else next_ms

    def _owned(self, trades: Iterable[Trade]) -> dict[str, Owned]:
        owned = owned_by(trades)
        for intent in self._guard.waiting:  # it may have been opened and closed since
            if intent.pair not in owned and (closed := newest_closed(intent.pair)):
                owned[intent.pair] = closed
        return owned

    def _troubles(self, trades: Collection[Trade], now_ms: int, *, stops: bool) -> dict[int, str]:
        """By trade what was to be done of it since the loop before, and was not."""
        exits, seen, placed = self._exits, self._seen, self._stops
        self._exits, self._seen = set(), set()
        self._seen_ms = {
            it.id: now_ms if it.id in seen or not self._hears else self._seen_ms.get(it.id, now_ms)
            for it in trades
        }
        # freqtrade takes the stop off for every addition; one that it has placed anew was taken.
        self._stops = {it.id: _stops_of(it) for it in trades}
        lately_ms = now_ms - _UNSEEN_MS
        found = {
            it.id: _trouble(
                it, it.id in exits, self._seen_ms[it.id] > lately_ms,
                stops and self._stops[it.id] <= placed.get(it.id, 0),
            )
            for it in trades
        }  # fmt: skip
        return {trade_id: text for trade_id, text in found.items() if text}


def _stops_of(trade: Trade) -> int:
    """How many stops of the trade were on the exchange so far."""
    return sum(order.ft_order_side == "stoploss" for order in trade.orders)


def _trouble(trade: Trade, leaves: bool, seen: bool, stops: bool) -> str:
    """What is wrong with a trade.

    Parameters
    ----------
    leaves, seen : freqtrade was about to send an exit of it, and has come to it lately
    stops : there is to be a stop on the exchange, and none was placed since the loop before
    """
    waiting = [it for it in trade.orders if it.ft_is_open]
    if any(it.order_id in _NOTHING for it in waiting):
        return _NO_ID
    if not trade.has_open_position:
        return ""
    exits = any(it.ft_order_side == trade.exit_side for it in waiting)
    if leaves and not exits:
        return _NO_EXIT
    if not seen:
        return _NO_LOOK
    return _NO_STOP if stops and not trade.has_open_sl_orders and not exits else ""


class Unready:
    """Before a bot with money at stake has begun, and after: freqtrade's API answers then, too."""

    asks = False

    def loop(self, now_ms: int, strategy: Any) -> bool:
        """Nothing is known."""
        return True

    def denial(self, pair: str, now_ms: int) -> Denial | None:
        """Everything is forbidden."""
        return Denial(UNKNOWN_ACCOUNT, "the bot has not begun to look at its account yet")

    def intend(self, intent: Intent) -> Denial | None:
        """Nothing may be sent."""
        return self.denial(intent.pair, intent.time_ms)

    def exits(self, trade: Trade) -> None:
        """An exit is always free."""

    def looked_at(self, trade: Trade) -> None:
        """Nothing is looked for."""

    def exposures(self) -> Iterable[tuple[str, float]]:
        """Nothing is known."""
        return ()

    def stop(self) -> None:
        """There is nothing to end."""


def unready(config: Config) -> Unready | None:
    """What stands in the place of a safety that is not open; None where there is no money."""
    return Unready() if config.get("runmode") == RunMode.LIVE else None


def open_safety(strategy: Any) -> Safety | None:
    """The order safety of a bot that trades with money; None where there is none.

    Parameters
    ----------
    strategy : a `LSTMRisk` whose engine runs

    Raises
    ------
    StoreError
        The book of orders cannot be written.
    """
    config, live = strategy.config, strategy._lstm_live
    if live is None or unready(config) is None:
        return None
    exchange, tell = insides.exchange_of(strategy.dp), live.tell
    candle_ms = timeframe_ms(strategy.timeframe)
    client, futures = insides.client_of(exchange), config.get("trading_mode") == "futures"
    if client is None or client.id not in KNOWN:
        tell(
            f"Orders whose answer is lost are not looked for: the account's side of {exchange.name}"
            f" is not known here, only that of {', '.join(KNOWN)}"
        )
        return None
    with silent():
        desk = Desk(insides.account_client(exchange, config["exchange"]), futures=futures)
    guard = Guard(Book(book_path(config, strategy.lstm_settings)), candle_ms, keeps=not futures)

    def shout(text: str) -> None:
        logger.warning("%s", text)
        strategy.dp.send_msg(as_markdown(text), always_send=True)

    return Safety(guard, desk, Lookout(desk.look), candle_ms, tell, shout)
