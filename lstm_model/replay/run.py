"""One replay, from what a user asks for to what it leaves."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from freqtrade.exceptions import FreqtradeException
from pandas import DataFrame

from lstm_model.accounts.contracts import ASSET
from lstm_model.bot import configuration
from lstm_model.bot.reading import in_a_line
from lstm_model.errors import ConfigError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import leader_of
from lstm_model.files import refuse_unwritable
from lstm_model.market.candles import FLOW, Records, timeframe_ms
from lstm_model.market.flow_store import FlowStore, merge
from lstm_model.practice.incidents import Incident, with_incidents
from lstm_model.practice.scenario import (
    INVENTED,
    Scenario,
    klines_flow,
    open_scenario,
    write_candles,
)
from lstm_model.practice.window import Window
from lstm_model.replay.books import Agreement, Terms
from lstm_model.replay.fast_forward import FastForward, Leavings, Plan
from lstm_model.replay.standing import Moment, owned
from lstm_model.settings import Settings
from lstm_model.store.journal import Journal
from lstm_model.store.journal_rows import JournalRow
from lstm_model.store.models import copy_learnt

# Sections of freqtrade's configuration by which a bot is heard outside; each has "enabled".
_MOST_PARTS = 300  # chosen: about a day of 5m candles
# freqtrade takes these before any file.
_BEFORE_FILES = ("FREQTRADE__EXCHANGE__", "FREQTRADE__DRY_RUN", "FREQTRADE__TRADING_MODE")
_OF_A_BOT = re.compile(r"Run `freqtrade download-data[^`]*`\.?")  # into the folder of a replay
_TELLING = ("telegram", "api_server", "webhook", "discord", "external_message_consumer")


@dataclass(frozen=True)
class Wish:
    """What a user asks for; None: as the configuration says.

    Attributes
    ----------
    data : `synthetic`, `random-walk` or a directory of candles or trades
    start_ms, end_ms : the window
    folder : where everything is left; None: one below user_data that is named after the window
    history : a directory with older candles
    seed, days_before : of an invented market
    overwrite : an older replay in the folder may go
    models : a store whose trainings are not made again where they are the same; None: none
    orders : whether orders go to an account of the practice exchange instead of a dry run
    """

    data: str
    start_ms: int
    end_ms: int
    configs: tuple[str, ...]
    userdir: str | None = None
    folder: Path | None = None
    strategy: str | None = None
    timeframe: str | None = None
    timeframe_detail: str | None = None
    pairs: tuple[str, ...] = ()
    step_s: int = 60
    wallet: float | None = None
    history: Path | None = None
    seed: int = 1
    days_before: int = 30
    incidents: tuple[Incident, ...] = ()
    overwrite: bool = False
    models: Path | None = None
    orders: bool = False


@dataclass(frozen=True)
class Ran:
    """How a replay went.

    Attributes
    ----------
    end_ms : the window's end, or where the user stopped it
    wall_s : how long it took
    equity : how the bot stood at its first look in every candle
    missed : what the bot has waited for in vain
    fee_fraction : of one side
    agreement : whether freqtrade's trades agree with the account's books; None without orders
    """

    end_ms: int
    wall_s: float
    equity: tuple[Moment, ...]
    missed: tuple[str, ...]
    fee_fraction: float
    agreement: Agreement | None = None


class Replay:
    """A replay whose market is open and for which the candles known before it are written.

    Attributes
    ----------
    plan, files : what is replayed, and where it leaves what
    seen : pair -> the candles that the bot was given, as it got them first

    Raises
    ------
    ConfigError, DataError
        What is asked for cannot be replayed; says why and what to do.
    """

    def __init__(self, wish: Wish) -> None:
        config = _configuration(wish)
        self.settings: Settings = configuration.settings_of(config)
        strategy, userdir = config["strategy"], Path(config["user_data_dir"])
        folder = wish.folder or userdir / "replay" / _name(wish, strategy)
        self.wish, self.files = wish, Leavings(folder)
        _check_room(self.files, wish)
        wallet = _wallet(wish, config)
        # What is missing was never there: neither for the backtest nor for whoever counts later.
        scenario = with_incidents(_scenario(wish, config, self.settings), wish.incidents)
        self.plan = Plan(
            scenario, wish.configs, userdir, folder, strategy, wish.step_s,
            wallet, incidents=wish.incidents,
            silenced=tuple(name for name in _TELLING if name in config),
            options=_own_beginning(self.settings, scenario.start_ms),
            orders=wish.orders,
            terms=Terms(config["stake_currency"], config.get("fee")),
        )  # fmt: skip
        _clear(self.files)
        self._others = {path for path in vars(self.files).values() if path.exists()}
        if wish.models is not None:
            copy_learnt(wish.models, self.files.live)
        self.write_candles(self.files.before, scenario.start_ms)
        self.seen: dict[str, list[DataFrame]] = {pair: [] for pair in scenario.pairs}
        self._fee_fraction: float | None = None

    def run(self, watch: Callable[[Moment], None]) -> Ran:
        """Replay the window; Ctrl-C ends it with what there is by then.

        Raises
        ------
        ConfigError
            freqtrade has something against the configuration, or the strategy does not start.
        """

        def look(moment: Moment) -> None:
            self._see(forward, moment.now_ms)
            watch(moment)

        began_s, forward = time.monotonic(), FastForward(self.plan, look)
        finished = None
        try:
            finished = forward.run()
        except FreqtradeException as error:
            text = _OF_A_BOT.sub(_more_history(self.wish), in_a_line(error))
            raise ConfigError(f"{text} (more in {self.files.log})") from None
        finally:
            if finished is None and not forward.equity:  # it never began
                _remove(self.files, {*self._others, self.files.log})
        return Ran(
            self.plan.scenario.end_ms if finished else forward.now_ms,
            time.monotonic() - began_s, tuple(forward.equity), tuple(forward.missed),
            self._fee_fraction or 0.0, forward.books.agree(owned()) if forward.books else None,
        )  # fmt: skip

    def write_candles(self, folder: Path, until_ms: int) -> None:
        """Make `folder` a data directory of freqtrade with what was known at `until_ms`."""
        scenario = self.plan.scenario
        write_candles(scenario, folder, until_ms)
        if self.settings.order_flow:
            flows = FlowStore(folder / "flow")
            for pair in scenario.pairs:
                known = klines_flow(scenario, pair, until_ms)
                older = self._stored_flow(pair)
                if len(known):
                    older = older[older["date_ms"] < known["date_ms"][0]]
                flows.write(pair, scenario.timeframe, np.concatenate([older, known]))

    def _stored_flow(self, pair: str) -> Records:
        """(N,) FLOW that lies beside the recorded candles, as `download-flow` leaves it."""
        found = np.empty(0, FLOW)
        for folder in filter(None, (self.wish.history, Path(self.wish.data))):
            found = merge(
                found, FlowStore(folder / "flow").read(pair, self.plan.scenario.timeframe)
            )
        return found

    def config(self) -> dict[str, Any]:
        """The configuration that the bot ran with."""
        overrides = {"user_data_dir": str(self.plan.userdir), "datadir": str(self.files.before)}
        return configuration.load_config([*self.plan.configs, str(self.files.overlay)], overrides)

    def rows(self) -> dict[str, list[JournalRow]]:
        """Pair -> what the bot has written down about the candles of the window."""
        scenario = self.plan.scenario
        step_ms = timeframe_ms(scenario.timeframe)
        span = (scenario.start_ms - step_ms, scenario.end_ms)
        with self.journal() as journal:
            return {pair: journal.read(pair, scenario.timeframe, *span) for pair in scenario.pairs}

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The bot's journal."""
        config = self.config()
        settings = configuration.settings_of(config)
        journal = configuration.journal_of(config, settings, read_only=True)
        try:
            yield journal
        finally:
            journal.close()

    def _see(self, forward: FastForward, now_ms: int) -> None:
        """Keep candles that the bot was not given before."""
        running, scenario = forward.bot(), self.plan.scenario
        if running is None:
            return
        if self._fee_fraction is None:
            pair = scenario.pairs[0]
            self._fee_fraction = configuration.taker_fee(running.config, running.exchange, pair)
        closed = pd.Timestamp(now_ms - timeframe_ms(scenario.timeframe), unit="ms", tz="UTC")
        for pair, known in self.seen.items():
            frame = running.dataprovider.ohlcv(pair, scenario.timeframe, copy=False)
            newest = known[-1]["date"].iat[-1] if known else None
            if len(frame) and frame["date"].iat[-1] != newest:
                new = frame["date"] <= closed
                if newest is not None:
                    new &= frame["date"] > newest
                if new.any():
                    known.append(frame[new].copy())
                if len(known) > _MOST_PARTS:  # a frame of one row takes as much as hundreds do
                    known[:] = [pd.concat(known, ignore_index=True)]


def _configuration(wish: Wish) -> dict[str, Any]:
    """What the bot will run with, its strategy and timeframe in it; they are there."""
    named = {
        "user_data_dir": wish.userdir, "strategy": wish.strategy, "timeframe": wish.timeframe
    }  # fmt: skip
    config = configuration.load_config(
        wish.configs, {name: value for name, value in named.items() if value}
    )
    market = config["exchange"]["name"], str(config["trading_mode"])
    if market not in (("binance", "spot"), ("binance", "futures")):
        raise ConfigError(
            f"a replay's exchange speaks as Binance's spot and USD-M markets do, the configuration "
            f'names {" ".join(market)}: give one more -c, with "trading_mode": "spot" and '
            '"exchange": {"name": "binance"}'
        )
    pairs = list(wish.pairs) or configuration.configured_pairs(config, ())
    if not pairs:
        raise ConfigError(f"no pair to replay: {configuration.no_pairs(config)}; or give --pairs")
    _check_pairs(pairs, futures="futures" in market)
    if wish.orders:
        _check_account(config, pairs)
    config["pairs"] = config["exchange"]["pair_whitelist"] = pairs
    config["pairlists"] = [{"method": "StaticPairList"}]  # as `FastForward` has it
    config["strategy"] = config.get("strategy") or configuration.STRATEGY
    configuration.check_startable(config)
    return config


def _check_pairs(pairs: Sequence[str], *, futures: bool) -> None:
    """Refuse pairs of the other market, whose names tell them apart."""
    strange = [pair for pair in pairs if (":" in pair) is not futures]
    if strange:
        market, form = ("futures", "BTC/USDT:USDT") if futures else ("spot", "BTC/USDT")
        raise ConfigError(f"{', '.join(strange)}: no pair of {market}, they are named like {form}")


def _check_account(config: dict[str, Any], pairs: Sequence[str]) -> None:
    """Refuse what the practice exchange's account cannot do."""
    currency, futures = config["stake_currency"], config["trading_mode"] == "futures"
    if futures and currency != ASSET:
        raise ConfigError(
            f'--orders on futures: the practice account holds {ASSET} alone, "stake_currency" is '
            f"{currency}"
        )
    if futures and config.get("margin_mode") == "cross":
        raise ConfigError(
            "--orders on futures: the practice account knows isolated margin alone: give one more "
            '-c, with "margin_mode": "isolated"'
        )
    if strange := [pair for pair in pairs if pair.split(":")[0].split("/")[1] != currency]:
        raise ConfigError(
            f"--orders: {', '.join(strange)} cannot be paid from an account of {currency}, which "
            'is the "stake_currency"'
        )
    if named := sorted(name for name in os.environ if name.startswith(_BEFORE_FILES)):
        raise ConfigError(
            f"--orders: {', '.join(named)} in the environment would stand before the practice "
            "account's keys and address: unset them"
        )


def _more_history(wish: Wish) -> str:
    """How the bot of a replay comes to older candles: its own folder is written by the replay."""
    if wish.data in INVENTED:
        return f"Give a larger --days-before than {wish.days_before}."
    return f"They are to be in {wish.history or wish.data}, or where --history says."


def _name(wish: Wish, strategy: str) -> str:
    start, end = (
        f"{datetime.fromtimestamp(at / 1000, UTC):%Y%m%dT%H%M}"
        for at in (wish.start_ms, wish.end_ms)
    )
    return f"{strategy}-{start}-{end}"


def _scenario(wish: Wish, config: dict[str, Any], settings: Settings) -> Scenario:
    pairs = tuple(config["pairs"])
    needed = WARM_UP + settings.lookback
    detail = wish.timeframe_detail
    if detail is None:
        detail = config.get("timeframe_detail") or ""
    leader = leader_of(settings.leader, sorted(settings.train_pairs or pairs))
    return open_scenario(
        wish.data, pairs, Window(config["timeframe"], wish.start_ms, wish.end_ms, needed, detail),
        history=wish.history, seed=wish.seed, days_before=wish.days_before,
        beside=[leader] if leader else [],
    )  # fmt: skip


def _wallet(wish: Wish, config: dict[str, Any]) -> float:
    amount = wish.wallet or config["dry_run_wallet"]
    if not isinstance(amount, int | float):
        raise ConfigError(
            'a replay begins with stake currency alone, but "dry_run_wallet" names several: give '
            "--wallet"
        )
    if not 0.0 < amount < math.inf:
        raise ConfigError(f'"dry_run_wallet" must be above 0, found {amount}: give --wallet')
    return float(amount)


def _own_beginning(settings: Settings, start_ms: int) -> dict[str, Any]:
    """The user's `learn_from`, where it is not later than the window begins."""
    begin_ms = settings.learn_from_ms
    is_earlier = begin_ms is not None and begin_ms <= start_ms
    return {"learn_from": settings.learn_from} if is_earlier else {}


def _check_room(files: Leavings, wish: Wish) -> None:
    """Refuse a folder that cannot take the replay, before anything is made for it."""
    refuse_unwritable(files.folder)
    if wish.models is not None and wish.models.resolve().is_relative_to(files.folder):
        raise ConfigError(
            f"the models of {wish.models} lie in the folder of the replay, which is made anew: "
            "give another --folder"
        )
    if other := ", ".join(files.strange()):
        raise ConfigError(f"{files.folder} holds {other}, of no replay: give another --folder")
    if files.overlay.exists() and not wish.overwrite:
        raise ConfigError(
            f"{files.folder} holds a replay already: give --overwrite to replace it, or another "
            "--folder"
        )


def _clear(files: Leavings) -> None:
    """Make it a folder without a replay in it."""
    if files.overlay.exists():
        _remove(files, set())


def _remove(files: Leavings, but: Collection[Path]) -> None:
    """Take away what a replay leaves."""
    journals = files.folder.glob(f"{files.database.name}-*")  # SQLite's own, of the old database
    for path in (*vars(files).values(), *journals):
        if path != files.folder and path not in but:
            _remove_path(path)


def _remove_path(path: Path) -> None:
    """A file or folder; what lies in it where it is a file system of its own, see `FullDisk`."""
    if path.is_mount():
        for inside in path.iterdir():
            _remove_path(inside)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
