"""freqtrade's bot in fast-forward: its own worker over a recorded market, as fast as it goes.

freqtrade's `Worker` runs unchanged, in a dry run or with orders to the practice exchange. Its
thread is the one that the virtual clock listens to: where it would sleep until its next look, the
market goes on by as much instead. While a network is trained, virtual time stands still: a step
serves `training_lag_candles` after its boundary at the earliest, and whether a slower training
would be late depends on the machine.

What the plan says goes wrong happens at its exact virtual time. Two runs of one plan leave the same
but for the numbers of orders, which freqtrade draws at random.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from freqtrade.loggers import bufferHandler
from freqtrade.persistence import Trade
from freqtrade.persistence.custom_data import _CustomData
from freqtrade.worker import Worker

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_overlay
from lstm_model.market.candles import candle_open_ms, timeframe_ms
from lstm_model.market.flow_store import FlowStore
from lstm_model.practice.clock import VirtualClock, real_sleep
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.incidents import Incident, with_incidents
from lstm_model.practice.interruption import Interruption
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.practice.scenario import Scenario, klines_flow, write_candles
from lstm_model.replay.books import Books, Terms, open_account
from lstm_model.replay.disturbances import FullDisk, LockedJournal
from lstm_model.replay.logs import Messages, log_config, log_into, log_kept
from lstm_model.replay.looks import held_in, next_look
from lstm_model.replay.pacing import Pace
from lstm_model.replay.standing import Moment, standing
from lstm_model.training.trainer import TRAINER

logger = logging.getLogger(__name__)

_LEARNING_POLL_S = 0.02  # chosen: trainings take seconds
_ACCOUNT_POLL_S = 0.002  # chosen: what the account holds is known within a few of these
_AFTER_MS = 1_000  # as freqtrade itself looks a second after the candle, so that it is there


@dataclass(frozen=True)
class Plan:
    """What is to be replayed, and how.

    Attributes
    ----------
    configs : freqtrade's configuration files
    folder : where everything is left, see `Leavings`
    step_s : longest virtual time between two looks of the bot, see also `looks`
    options : of the `lstm` section
    incidents : what goes wrong
    silenced : sections of the configuration that are switched off, as they would reach others
    orders : whether orders go to the exchange, where the account is, instead of a dry run
    terms : of that account
    """

    scenario: Scenario
    configs: tuple[str, ...]
    userdir: Path
    folder: Path
    strategy: str
    step_s: int
    wallet: float
    options: Mapping[str, Any] = field(default_factory=dict)
    incidents: tuple[Incident, ...] = ()
    silenced: tuple[str, ...] = ()
    orders: bool = False
    terms: Terms = field(default_factory=Terms)


class Leavings:
    """Files of a replay below its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.before, self.whole = self.folder / "before", self.folder / "whole"
        self.live, self.backtest = self.folder / "live", self.folder / "backtest"
        self.database = self.folder / "trades.sqlite"
        self.log, self.messages = self.folder / "bot.log", self.folder / "messages.jsonl"
        self.overlay = self.folder / "replay.json"

    def strange(self) -> list[str]:
        """What lies where a replay would write, though there is none: somebody else's."""
        stores = [path for path in (self.live, self.backtest) if not (path / "models").is_dir()]
        kept = *stores, self.before, self.whole, self.database, self.messages
        return [] if self.overlay.exists() else [path.name for path in kept if path.exists()]


class _Over(BaseException):
    """The window has come to its end."""


class _Restart(BaseException):
    """The bot is to be ended and started anew."""


class _Worker(Worker):  # type: ignore[misc]
    """freqtrade's, of whose bots each is listened to: the first, and those of /reload_config."""

    def __init__(self, arguments: dict[str, Any], listen: Callable[[Any], None]) -> None:
        self._listen = listen
        super().__init__(arguments)

    def _init(self, reconfig: bool) -> None:
        super()._init(reconfig)
        self._listen(self.freqtrade)


class FastForward:
    """One replay.

    Parameters
    ----------
    watch : called after every look of the bot, and while it trains

    Attributes
    ----------
    equity : how the bot stood at its first look in every candle
    missed : what it should have got from the exchange and has not; then another run may differ
    exchange : where it trades, once it runs
    books : of the account at the end; None without orders

    Raises
    ------
    ConfigError
        For an incident that cannot happen.
    """

    def __init__(self, plan: Plan, watch: Callable[[Moment], None]) -> None:
        self.files = Leavings(plan.folder)
        self.equity: list[Moment] = []
        self.missed: list[str] = []
        self.books: Books | None = None
        self._plan, self._watch = plan, watch
        self._scenario = with_incidents(plan.scenario, plan.incidents)
        self._worker: Worker | None = None
        self._clock = VirtualClock(plan.scenario.start_ms + _AFTER_MS)
        self._end_ms = plan.scenario.end_ms + _AFTER_MS  # the last candle is looked at too
        self._clock.on_sleep = self._sleep
        self._step_ms = timeframe_ms(plan.scenario.timeframe)
        self._turns: list[tuple[int, Callable[[], None]]] = []
        self._back_ms, self._kills = 0, 0
        self._locked = LockedJournal(self.files.live / "journal.sqlite")
        self._full = FullDisk(self.files.live)
        if any(incident.kind == "full" for incident in plan.incidents):
            self._full.check()
        self._interruption = Interruption()

    def run(self) -> bool:
        """Replay the window; False if Ctrl-C or SIGTERM ended it before."""
        scenario = self._scenario
        listings = {pair: scenario.listing(pair) for pair in (*scenario.pairs, *scenario.beside)}
        with self._clock, self._opened() as exchange, log_kept():  # books begin in its time
            self.exchange = exchange
            self._configure(self._way_to(exchange))
            self._pace = Pace(self._clock, exchange, listings, self.bot)
            self.missed = self._pace.missed
            self._turns = sorted(self._happenings(), key=lambda turn: turn[0])
            with self._interruption.heard():
                finished = self._trade()
            if isinstance(exchange, TradingExchange):
                self.books = Books.of(exchange, scenario, self._plan.wallet, self._plan.terms)
            if self._kills:
                logger.warning("No training ran that could have been killed: %d left", self._kills)
            return finished

    def _opened(self) -> LoopbackExchange:
        if self._plan.orders:
            return open_account(self._scenario, self._plan.wallet, self._plan.terms)
        return LoopbackExchange(self._scenario.market, paced=True)

    def _way_to(self, exchange: LoopbackExchange) -> dict[str, Any]:
        """Configuration that leads a bot to the exchange."""
        mode = self._scenario.trading_mode
        if isinstance(exchange, TradingExchange):
            return live_overlay(exchange.url, mode, exchange.keys)
        return {**loopback_overlay(exchange.url, mode), "dry_run": True}

    def _trade(self) -> bool:
        try:
            self._go_on(self._clock.now_ms)  # to what is to happen from the start on
            while True:
                with suppress(_Restart):
                    self._start().run()
                self._stay_off()
        except _Over:
            return True
        except KeyboardInterrupt:
            return False
        finally:
            self._end()
            self._locked.end()
            self._full.end()

    def _start(self) -> Worker:
        self._worker = _Worker(self._arguments(), self._listen)
        return self._worker

    def _listen(self, bot: Any) -> None:
        """What it would tell is written down, and its looks begin in step."""
        bot.rpc.registered_modules.append(Messages(bot.rpc._rpc, self.files.messages))
        if (engine := bot.strategy._lstm_live) is not None:
            engine.tick = partial(self._tick, engine.tick)

    def _tick(self, tick: Callable[..., None], now_ms: int, pairs: Collection[str] = ()) -> None:
        """The bot's look begins: it goes on when what it has begun is done.

        Else how fast that is would decide what the rest of the look finds.
        """
        tick(now_ms, pairs)
        self._let_it_learn()
        self._pace.settle()

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.exit()
            worker.freqtrade.exchange._api.session.close()
            bufferHandler.buffer.clear()  # its tracebacks hold the bot of an outage
        _leave_database()

    @property
    def now_ms(self) -> int:
        """The virtual time."""
        return self._clock.now_ms

    def bot(self) -> Any:
        """freqtrade's bot, None while there is none."""
        return self._worker.freqtrade if self._worker else None

    def _sleep(self, seconds: float) -> None:
        """The bot would sleep: time goes on."""
        self._let_it_learn()
        if self._clock.now_ms >= self._end_ms:
            raise _Over
        self._go_on(self._awake(self._clock.now_ms + max(1, round(1000.0 * seconds))))
        self._look()

    def _awake(self, until_ms: int) -> int:
        """When the sleep until then ends: earlier where a real bot would have seen a price."""
        bot = self.bot()
        if bot is None or self._pace.deaf:
            return until_ms
        held = [
            held_in(self._scenario.listing(trade.pair), trade, bot.strategy, self.now_ms)
            for trade in Trade.get_open_trades()
        ]
        return next_look(held, self.now_ms, until_ms)

    def _go_on(self, to_ms: int) -> None:
        """Let time go on, at most to the end of the window, and happen what is to happen."""
        to_ms = min(to_ms, self._end_ms)
        while self._turns and self._turns[0][0] <= to_ms:
            at_ms, happen = self._turns.pop(0)
            self._pace.advance(at_ms)
            happen()
        self._pace.advance(to_ms)

    def _let_it_learn(self) -> None:
        bot = self.bot()
        engine = bot.strategy._lstm_live if bot else None
        self._interruption.check()
        safety = getattr(bot.strategy, "_lstm_safety", None) if bot else None
        while self._plan.orders and safety is not None and safety.asks:
            real_sleep(_ACCOUNT_POLL_S)
        while engine is not None and engine.busy:
            if self._kills and TRAINER.crash():
                self._kills -= 1
            real_sleep(_LEARNING_POLL_S)
            self._interruption.check()
            known = self.equity[-1:] or [Moment(self.now_ms, self._plan.wallet, 0, 0)]
            self._watch(known[0])

    def _happenings(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """What is to happen when."""
        for incident in self._plan.incidents:
            begin_and_end: dict[str, tuple[Callable[[], None], ...]] = {
                "outage": (self._pace.cut_off, self._pace.reconnect),
                "stream": (self._pace.disturb, self._pace.calm),
                "locked": (self._locked.begin, self._locked.end),
                "full": (self._full.begin, self._full.end),
                "kill": (self._owe_kill,),
                "reload": (self._reload,),
                "restart": (partial(self._leave, incident.end_ms),),
            }
            yield incident.at_ms, partial(logger.warning, "Incident: %s", incident)
            times = incident.at_ms, incident.end_ms
            yield from zip(times, begin_and_end.get(incident.kind, ()), strict=False)

    def _reload(self) -> None:
        """As Telegram's /reload_config, which the worker obeys when its sleep is over."""
        if (bot := self.bot()) is not None:
            bot.rpc._rpc._rpc_reload_config()

    def _owe_kill(self) -> None:
        self._kills += 1

    def _leave(self, back_ms: int) -> None:
        self._back_ms = back_ms
        raise _Restart

    def _stay_off(self) -> None:
        """Time without a bot, and what a user does before it starts again: download candles."""
        self._end()
        self._go_on(self._back_ms)
        if self._back_ms >= self._end_ms:
            raise _Over
        download(self._scenario, self.files.before, self._clock.now_ms)

    def _look(self) -> None:
        bot, now_ms = self.bot(), self._clock.now_ms
        if bot is None:
            return
        opened = candle_open_ms(now_ms, self._step_ms)
        known = self.equity[-1] if self.equity else None
        if known is None or candle_open_ms(known.now_ms, self._step_ms) < opened:
            known = standing(bot, now_ms, self._scenario)
            self.equity.append(known)
        self._watch(Moment(now_ms, known.equity, known.open_trades, known.closed_trades))

    def _arguments(self) -> dict[str, Any]:
        return {
            "config": [*self._plan.configs, str(self.files.overlay)],
            "user_data_dir": str(self._plan.userdir),
            "datadir": str(self.files.before),
            "strategy": self._plan.strategy,
            "verbosity": 0,
        }

    def _configure(self, overlay: dict[str, Any]) -> None:
        """The bot's configuration on top of the user's, and of what leads to the exchange."""
        scenario = self._scenario
        overlay["exchange"]["pair_whitelist"] = list(scenario.pairs)
        overlay |= {
            "dry_run_wallet": self._plan.wallet,
            "timeframe": scenario.timeframe,
            "db_url": f"sqlite:///{self.files.database}",
            "internals": {
                "process_throttle_secs": self._plan.step_s, "heartbeat_interval": 0,
                "sd_notify": False,
            },
            "initial_state": "running",
            "pairlists": [{"method": "StaticPairList"}],
            **{name: {"enabled": False} for name in self._plan.silenced},
            "log_config": log_config(self.files.log),
            "lstm": {
                "learn_from": f"{datetime.fromtimestamp(scenario.start_ms / 1000, UTC):%Y%m%d}",
                **self._plan.options,
                "store_dir": str(self.files.live),
                "journal_url": None,  # the user's own journal tells of the user's own bot
            },
        }  # fmt: skip
        self.files.folder.mkdir(parents=True, exist_ok=True)
        self.files.overlay.write_text(json.dumps(overlay, indent=4))
        log_into(self.files.log)


def download(scenario: Scenario, folder: Path, until_ms: int) -> None:
    """Make `folder` a data directory of freqtrade with what is known at `until_ms`.

    Of pairs whose order flow is there already, the newer flow comes too.
    """
    write_candles(scenario, folder, until_ms)
    flows = FlowStore(folder / "flow")
    for pair in scenario.pairs if flows.folder.exists() else ():
        flows.write(pair, scenario.timeframe, klines_flow(scenario, pair, until_ms))


def _leave_database() -> None:
    """Close what freqtrade leaves to the end of the process, also where a bot did not start."""
    if hasattr(Trade, "session"):
        _CustomData.session.remove()  # a bot that reads what was written down with a trade
        Trade.session.remove()
        Trade.session.get_bind().dispose()
