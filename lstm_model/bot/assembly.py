"""Puts the parts together for one bot, backtest or command: history, learner, journal, engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any

from freqtrade.exceptions import FreqtradeException, OperationalException

from lstm_model.bot import insides
from lstm_model.bot.configuration import (
    DEFAULT_FEE_FRACTION,
    Config,
    configured_pairs,
    flow_store,
    journal_of,
    lineage,
    load_candles,
    no_pairs,
    settings_of,
    spool_path,
    store_folder,
    taker_fee,
    trades_now,
    training_pairs,
)
from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.bot.funding import Funding
from lstm_model.bot.live import SHOWN_CANDLES, LiveEngine
from lstm_model.bot.named import files_of, words_of
from lstm_model.bot.reading import in_a_line, silent
from lstm_model.durations import LASTING, in_words, least_recent_candles, least_train_candles
from lstm_model.errors import ConfigError
from lstm_model.learning.chain import Learning
from lstm_model.learning.learner import Wish
from lstm_model.learning.run import Run
from lstm_model.learning.steps import Step
from lstm_model.learning.wording import decisions
from lstm_model.market.candles import Records, timeframe_ms, utc_minute
from lstm_model.market.history import Disk
from lstm_model.settings import Settings
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelStore
from lstm_model.store.recorder import LOCK_WAIT_S, Recorder
from lstm_model.store.steps import StepStore
from lstm_model.stream.trade_stream import TradeStream
from lstm_model.trading.inside import Guard, InsideCandle, OnTrades
from lstm_model.trading.outlook import Terms
from lstm_model.training.maker import ModelMaker, Training
from lstm_model.training.trainer import ProgressCallback

logger = logging.getLogger(__name__)

_SECRETS = {
    "api_key", "apiKey", "secret", "password", "uid", "account_id", "accountId", "wallet_address",
    "walletAddress", "private_key", "privateKey",
}  # fmt: skip


def model_maker(config: Config, settings: Settings, whitelist: Sequence[str]) -> ModelMaker:
    """The maker of models for this configuration.

    A study of the past reads each pair's candles from disk once; a running bot reads them anew,
    because another process may have downloaded more.

    Raises
    ------
    ConfigError
        No pair to learn from, or "train_candles" too small for so few pairs.
    """
    pairs = training_pairs(config, settings, whitelist)
    if not pairs:
        raise ConfigError(f"no pair to train on: {no_pairs(config)}")
    _check_enough(config, settings, len(pairs))
    store = ModelStore(store_folder(config, settings))
    history: Disk = partial(load_candles, config)
    flow = _known_flow(config)
    if not trades_now(config):
        history, flow = lru_cache(maxsize=None)(history), lru_cache(maxsize=None)(flow)
    return ModelMaker(
        settings, config["timeframe"], pairs, store, history, flow, words_of(config)
    )  # fmt: skip


def _check_enough(config: Config, settings: Settings, pairs: int) -> None:
    """Refuse options that leave too few windows to learn from, however many candles there are."""
    horizon, held_out = settings.horizon, settings.validation_fraction
    least = least_train_candles(horizon, held_out, settings.test_fraction, pairs)
    recent = least_recent_candles(horizon, held_out, pairs) if settings.finetune_candles else 0
    for name, enough in (
        ("train_candles", least),
        ("pool_candles", least * pairs),
        ("finetune_recent_candles", recent),
    ):
        if (found := getattr(settings, name)) < enough:
            raise ConfigError(
                f'{files_of(config)}, section "lstm": {name} leaves too few windows of {pairs} '
                f"pair(s) to train, validate and test on, found {found:,}; set it to {enough:,} or "
                "more"
            )


def describe_times(config: Config, settings: Settings) -> str:
    """What the defaults that are times came to with this timeframe, for the log."""
    own = config.get("lstm") or {}
    return ", ".join(
        f"{name} {getattr(settings, name):,} ({in_words(time_ms)})"
        for name, (time_ms, _) in LASTING.items()
        if name not in own
    )


def _known_flow(config: Config) -> Callable[[str], Records]:
    """Stored order flow of a pair: all of it, or what is quick to read at every candle."""
    store, timeframe = flow_store(config), config["timeframe"]
    if trades_now(config):
        return lambda pair: store.newest(pair, timeframe, SHOWN_CANDLES)
    return lambda pair: store.read(pair, timeframe)


def whitelist_of(provider: Any) -> list[str]:
    """The whitelist now; empty where freqtrade has none, as in `plot-dataframe`."""
    try:
        return list(provider.current_whitelist())
    except OperationalException:
        return []


def open_engine(
    config: Config, provider: Any, *, can_short: bool
) -> WalkForwardEngine | LiveEngine:
    """The engine for this run: live for dry run and live, walk-forward for everything else.

    Raises
    ------
    LstmModelError
        Settings, pairs, store or journal cannot be used.
    """
    settings, whitelist = settings_of(config), whitelist_of(provider)
    if newer := insides.untested():
        logger.warning("%s", newer)
    if times := describe_times(config, settings):
        logger.info("With candles of %s: %s", config["timeframe"], times)
    learning = open_learning(config, settings, whitelist)
    own_fee = lru_cache(maxsize=None)(partial(taker_fee, config, insides.exchange_of(provider)))
    funding = _funding(config, settings, provider)
    terms = Terms(settings, DEFAULT_FEE_FRACTION, can_short, own_fee, funding)
    if absent := _absent_leader(config, settings, provider):
        logger.warning("%s", absent)
    if not trades_now(config):
        return WalkForwardEngine(learning, terms, _begin_ms(config))
    leader = learning.maker.history.leader
    inside = partial(_open_inside, config, insides.exchange_of(provider), terms, leader)
    engine = LiveEngine(
        learning, terms, open_recorder(config, settings), open_lineage(config, settings),
        inside if settings.trade_stream else None,
    )  # fmt: skip
    engine.start(time.time_ns() // 1_000_000)
    if absent:
        engine.tell(absent)
    return engine


def _funding(config: Config, settings: Settings, provider: Any) -> Funding | None:
    """What futures are expected to pay; spot pays none."""
    if config.get("trading_mode") != "futures":
        return None
    step_ms, live = timeframe_ms(config["timeframe"]), trades_now(config)
    return Funding(provider, step_ms, settings.horizon, live=live, words=words_of(config))


def _absent_leader(config: Config, settings: Settings, provider: Any) -> str:
    """What is to be said of a leader that is named and that the exchange lacks; "" of none."""
    named, exchange = settings.leader, insides.exchange_of(provider)
    if not named or exchange is None or not exchange.markets or named in exchange.markets:
        return ""
    return (
        f'{files_of(config)}, section "lstm": leader is {named}, which {exchange.name} does not '
        'trade, so that no forecast sees it; name a pair that it does, or "" for none'
    )


def open_learning(config: Config, settings: Settings, whitelist: Sequence[str]) -> Learning:
    """The learner of this configuration.

    Raises
    ------
    ConfigError
        No pair to learn from.
    """
    maker = model_maker(config, settings, whitelist)
    return Learning(maker, StepStore(maker.store.root), configured_pairs(config, whitelist))


def open_recorder(config: Config, settings: Settings) -> Recorder:
    """What a bot of this configuration writes down by."""
    journal = journal_of(config, settings, lock_wait_s=LOCK_WAIT_S)
    path, days = spool_path(config, settings, journal.database), settings.journal_days
    return Recorder(journal, path, config["timeframe"], days)


def open_lineage(config: Config, settings: Settings) -> Lineage:
    """What a bot of this configuration has learnt so far."""
    return Lineage(store_folder(config, settings), lineage(config, settings))


def _begin_ms(config: Config) -> int | None:
    """Start of the time range of a study, if it has one."""
    start_s = insides.time_range(config.get("timerange")).startts
    return start_s * 1000 or None


def _open_inside(
    config: Config, exchange: Any, terms: Terms, leader: str | None, guard: Guard
) -> InsideCandle:
    """What listens to the trades between candles, over connections like freqtrade's own."""
    connect, step_ms = partial(connect_public, config, exchange), timeframe_ms(config["timeframe"])

    def open_stream(on_trades: OnTrades) -> TradeStream:
        return TradeStream(connect, step_ms, terms.settings, on_trades)

    return InsideCandle(terms, config["timeframe"], open_stream, flow_store(config), guard, leader)


@contextmanager
def opened_exchange(config: Config) -> Iterator[Any]:
    """freqtrade's exchange of a configuration, which has asked the exchange nothing yet.

    Raises
    ------
    ConfigError
        freqtrade or ccxt does not know it, or its options are wrong.
    """
    try:
        with silent():  # that it cannot be reached is for the caller to say
            exchange = insides.open_exchange(config)
    except FreqtradeException as error:
        raise ConfigError(in_a_line(error)) from None
    try:
        yield exchange
    finally:
        exchange.close()


def connect_public(config: Config, exchange: Any) -> Any:
    """A new ccxt.pro object of freqtrade's exchange section, without what could sign an order.

    The key alone opens some exchanges' older trades, by their ids.

    Parameters
    ----------
    exchange : freqtrade's

    Raises
    ------
    ConfigError
        What freqtrade or ccxt has against the section.
    """
    options = insides.client_options(exchange)
    for name in ("ccxt_config", "ccxt_async_config"):
        options = insides.merged(config["exchange"].get(name, {}), options)
    public, options = (
        {name: value for name, value in section.items() if name not in _SECRETS}
        for section in (config["exchange"] | {"key": insides.key_of(config)}, options)
    )
    try:
        return insides.new_client(exchange, public, options)
    except FreqtradeException as error:
        raise ConfigError(str(error)) from None


def train_now(
    config: Config, progress: ProgressCallback, tell: Callable[[str], None], now_ms: int
) -> Step:
    """Walk the learner to the newest step that is due at `now_ms`, for the next bot to go on from.

    It begins where a bot would: with what was learnt before, if that still counts.

    Parameters
    ----------
    tell : gets a line for each of the learner's decisions

    Raises
    ------
    LstmModelError
        Whatever keeps a step from being made; a bot that runs learns by itself.
    """
    settings = settings_of(config)
    learning = open_learning(config, settings, ())
    due_ms, own = _due_ms(learning, now_ms, tell), open_lineage(config, settings)

    def lesson(wish: Wish, boundary_ms: int) -> Training:
        return Training(progress)

    with ExitStack() as undone:
        own.acquire()
        undone.callback(own.release)
        journal = journal_of(config, settings)
        undone.callback(journal.close)
        head = own.head
        if own.lost:
            tell(own.lost)
        run = Run(lru_cache(maxsize=None)(learning.maker.history.of), lesson, tell=tell)
        found = () if head is None else learning.resume(head)
        step = next((known for known in found if learning.continues(known, due_ms)), None)
        steps = learning.walk(learning.origin_of(due_ms), due_ms, run, step)
        for step in steps:
            made = decisions(step.events, own.name, learning.card)
            journal.record_decisions(made)
            own.advance(step.address, step.model.card.version)
            for decision in made:
                tell(decision.text)
    assert step is not None  # noqa: S101 - a walk without a start begins with one
    return step


def _due_ms(learning: Learning, now_ms: int, tell: Callable[[str], None]) -> int:
    """The newest boundary at which there are candles to learn from: no step sees them later."""
    schedule = learning.schedule
    known = [candles for pair in learning.pairs if (candles := learning.maker.history.of(pair))]
    end_ms = max((int(c.date_ms[-1]) + c.step_ms for c in known if len(c)), default=now_ms)
    due_ms = schedule.last_boundary(now_ms)
    if end_ms >= due_ms:
        return due_ms
    reached_ms = schedule.last_boundary(end_ms)
    steps = (due_ms - reached_ms) // schedule.step_ms
    tell(
        f"The candles end at {utc_minute(end_ms)}: {steps} step(s) that are due since then wait "
        f"for more; run `freqtrade download-data{learning.maker.words} --timeframes "
        f"{learning.maker.timeframe}`"
    )
    return reached_ms
