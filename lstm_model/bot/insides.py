"""What we use of freqtrade beyond what it documents for strategies, each in one function.

freqtrade is released every month and promises nothing of its insides. So there is one place for
each, and a test that says what would break without it: `tests/bot/test_freqtrade_contract.py`.
Documented, and so imported wherever it is needed, are `freqtrade.strategy`, `.persistence`,
`.enums` and `.exceptions`. The replay, which drives the bot itself, names what it uses beyond this
in the same test.
"""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from freqtrade.configuration import Configuration, TimeRange, setup_utils_configuration
from freqtrade.configuration.config_validation import (
    validate_config_consistency,
    validate_config_schema,
)
from freqtrade.configuration.environment_vars import environment_vars_to_dict
from freqtrade.configuration.load_config import load_config_file, load_from_files
from freqtrade.data.converter import ohlcv_fill_up_missing_data
from freqtrade.data.history import get_datahandler, load_pair_history
from freqtrade.enums import CandleType, RunMode, TradingMode
from freqtrade.exceptions import FreqtradeException
from freqtrade.exchange.common import retrier
from freqtrade.misc import deep_merge_dicts
from freqtrade.persistence import LocalTrade, Trade, init_db
from freqtrade.plugins.pairlist.pairlist_helpers import expand_pairlist
from freqtrade.strategy import IStrategy
from freqtrade.strategy.parameters import BaseParameter
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from pandas import DataFrame

from lstm_model.market.candles import Floats, Ints
from lstm_model.releases import TESTED, standing

Config = dict[str, Any]
Answer = TypeVar("Answer")
Search = Callable[..., tuple[type | None, Path | None]]

# What it says where its errors alone tell what is wrong.
AT_OFFSET = re.compile(r"at offset (\d+)")  # of a file that is no JSON
SEGMENT = "Please verify the following segment of your configuration"  # and it shows the segment
READER = "freqtrade.data.history.datahandlers.arrowdatahandler"  # the name of its log
NO_STRATEGY = "Impossible to load"
NO_CANDLES = "No data found"
NO_BACKTEST = "do not support backtesting"  # of what makes or filters the list of pairs


def untested() -> str:
    """What is to be said of libraries newer than all that the tests ran with; else ""."""
    named = [name for name in TESTED if name not in ("Python", "tensorflow")]
    found = {"Python": platform.python_version()} | {name: version(name) for name in named}
    newer = [
        f"{name} {TESTED[name].oldest} to {TESTED[name].newest}, yours is {yours}"
        for name, yours in found.items() if standing(name, yours) == "newer"
    ]  # fmt: skip
    return f"tested with {'; '.join(newer)}: run `freqtrade-lstm doctor`" if newer else ""


# ---------------------------------------------------------------- configuration


def set_up(args: Mapping[str, Any], mode: RunMode) -> Config:
    """The configuration of a command, as freqtrade reads and completes it."""
    return cast(Config, setup_utils_configuration({**args}, mode))


def set_up_bot(args: Mapping[str, Any]) -> Config:
    """The configuration as a bot has it; a command's is of a dry run, without a database."""
    return cast(Config, Configuration({**args}, None).get_config())


def read_file(path: str) -> Config:
    """One configuration file, unchecked and without those that it adds."""
    return cast(Config, load_config_file(path))


def read_files(files: Sequence[str]) -> Config:
    """Configuration files with those that they add and the environment's variables, unchecked."""
    return merged(environment_vars_to_dict(), load_from_files(list(files)))


def merged(over: Mapping[str, Any], under: Mapping[str, Any]) -> Config:
    """Two configurations as freqtrade lays one over the other; `under` may be changed."""
    return cast(Config, deep_merge_dicts(over, under))


def check_schema(config: Config) -> None:
    """Refuse what has another shape than freqtrade's schema wants."""
    validate_config_schema(config)


def check_consistency(config: Config) -> None:
    """Refuse options that freqtrade would not start a bot with."""
    validate_config_consistency(config)


def time_range(text: str | None) -> TimeRange:
    """A time range as freqtrade writes it: `startts` and `stopts` in s, 0 for an open end."""
    return TimeRange.parse_timerange(text)


# ---------------------------------------------------------------- strategies


def guarded(work: Callable[..., Answer], otherwise: Answer | None = None) -> Callable[..., Answer]:
    """Theirs as freqtrade calls it: a failure is logged, and answered by `otherwise` if given."""
    return cast(Callable[..., Answer], strategy_safe_wrapper(work, default_retval=otherwise))


def find_strategy(config: Config) -> Any:
    """The strategy that a configuration names, made; freqtrade writes into the configuration."""
    from freqtrade.resolvers import StrategyResolver  # all of ccxt, which few need

    return guarded(StrategyResolver.load_strategy)(config)


@contextmanager
def finding(search: Callable[[Search], Search]) -> Iterator[None]:
    """Have freqtrade look strategies up by what `search` makes of its own way to do so."""
    from freqtrade.resolvers import StrategyResolver

    StrategyResolver._search_object = staticmethod(search(StrategyResolver._search_object))
    try:
        yield
    finally:
        del StrategyResolver._search_object


def is_parameter(value: object) -> bool:
    """Whether it is one that hyperopt may tune, with a `value`."""
    return isinstance(value, BaseParameter)


def hears_no_fills(custom_stoploss: Any) -> bool:
    """Whether a method is freqtrade's own, which is never asked after a fill."""
    return getattr(custom_stoploss, "__func__", custom_stoploss) is IStrategy.custom_stoploss


# ---------------------------------------------------------------- exchanges


def exchange_of(provider: Any) -> Any:
    """freqtrade's exchange behind a strategy's `dp`; None where a command has none."""
    return provider._exchange


def client_of(exchange: Any) -> Any:
    """ccxt's exchange behind freqtrade's; None after a hyperopt has let it go."""
    return exchange._api


def key_of(config: Config) -> str | None:
    """The exchange's key as the user wrote it: a bot blanks it wherever strategies can see it.

    The secret is not for us: without it nothing can be signed.
    """
    section = config.get("original_config", config).get("exchange", {})
    names = ("api_key", "apiKey", "key")  # in freqtrade's order
    return next((section[name] for name in names if name in section), None) or None


def new_client(exchange: Any, section: Config, options: Mapping[str, Any]) -> Any:
    """Another of ccxt's asynchronous exchanges, made as freqtrade makes its own."""
    return exchange._init_ccxt(section, False, options)


def account_client(exchange: Any, section: Config) -> Any:
    """Another of ccxt's exchanges with freqtrade's keys and markets, for a thread of its own.

    freqtrade blanks the keys in its configuration once it has made its own from them.
    """
    own, options = exchange._api, exchange._ccxt_config
    for name in ("ccxt_config", "ccxt_sync_config"):
        options = merged(section.get(name, {}), options)
    keys = {"key": own.apiKey, "secret": own.secret, "password": own.password, "uid": own.uid}
    client = exchange._init_ccxt({**section, **keys}, True, options)
    client.set_markets(own.markets, own.currencies)
    return client


def client_options(exchange: Any) -> Config:
    """What freqtrade itself sets of ccxt's options for this exchange."""
    return cast(Config, exchange._ccxt_config)


def open_exchange(config: Config) -> Any:
    """freqtrade's exchange as `freqtrade download-data` opens it."""
    from freqtrade.resolvers import ExchangeResolver  # all of ccxt, which few need

    return ExchangeResolver.load_exchange(config, validate=False)


def patient(retries: int) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Decorator: ask again after freqtrade's temporary errors, ever later."""
    return cast(Callable[[Callable[..., Answer]], Callable[..., Answer]], retrier(retries=retries))


def expanded(patterns: Sequence[str], available: Sequence[str]) -> list[str]:
    """Pairs of those available that freqtrade's patterns mean."""
    return list(expand_pairlist(list(patterns), list(available)))


def refused_in_backtests(config: Config) -> list[str]:
    """What of a configuration makes or filters the list of pairs, and is for a running bot only."""
    from freqtrade.plugins.pairlist.IPairList import SupportsBacktesting
    from freqtrade.resolvers import PairListResolver  # all of them, which few need

    known = {each["name"]: each["class"] for each in
             PairListResolver.search_all_objects(config, False)}  # fmt: skip
    named = [str(each.get("method")) for each in config.get("pairlists", ())]
    no = SupportsBacktesting.NO
    return [name for name in named if name in known and known[name].supports_backtesting == no]


# ---------------------------------------------------------------- futures


def maintenance_rate(exchange: Any, pair: str, notional: float) -> float | None:
    """Margin that a position of this worth must keep, fraction of it; None where it is unknown."""
    try:
        return float(exchange.get_maintenance_ratio_and_amt(pair, notional)[0])
    except FreqtradeException:
        return None


def funding_candle(provider: Any) -> tuple[str, CandleType]:
    """How freqtrade keeps funding rates beside candles: the timeframe and kind of theirs."""
    exchange = exchange_of(provider)
    timeframe = exchange.get_option("funding_fee_timeframe") if exchange is not None else None
    return timeframe or "1h", CandleType.FUNDING_RATE


def funding_rates(provider: Any, pair: str, *, live: bool) -> tuple[Ints, Floats]:
    """When funding of a pair was paid (M,), in ms, and the rates (M,), as freqtrade has them.

    A bot has what it asked for beside its candles, of hours that are over; a study all that is on
    disk of its time range. Older releases call the rate "open".
    """
    timeframe, kind = funding_candle(provider)
    if live:
        frame = provider.ohlcv(pair, timeframe, copy=False, candle_type=kind)
    else:
        frame = provider.historic_ohlcv(pair, timeframe, candle_type=kind)
    if frame.empty:
        return np.zeros(0, np.int64), np.zeros(0)
    dates = frame["date"].to_numpy(dtype="datetime64[ms]").astype(np.int64)
    column = "funding_rate" if "funding_rate" in frame else "open"
    return dates, frame[column].to_numpy(np.float64)


# ---------------------------------------------------------------- candles on disk


class _WithoutTrace(logging.Filter):
    """Of a file that cannot be read freqtrade logs what it holds, and a trace nobody needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


logging.getLogger(READER).addFilter(_WithoutTrace())


def stored_candles(
    folder: Path, form: str | None, pair: str, timeframe: str, kind: CandleType
) -> DataFrame:
    """All candles of a pair in a data directory, gaps and all; empty if there are none."""
    return load_pair_history(
        pair, timeframe, folder, data_format=form, candle_type=kind, fill_up_missing=False
    )


def filled(frame: DataFrame, pair: str, timeframe: str) -> DataFrame:
    """The candles with those that nobody traded in, as freqtrade hands them over."""
    return ohlcv_fill_up_missing_data(frame, timeframe, pair)


def has_candles(
    folder: Path, form: str | None, pair: str, timeframe: str, kind: CandleType
) -> bool:
    """Whether there is a file of them, damaged or not."""
    mode = TradingMode.SPOT if kind == CandleType.SPOT else TradingMode.FUTURES
    found = get_datahandler(folder, form).ohlcv_get_available_data(folder, mode)
    return (pair, timeframe, kind) in found


def candle_file(
    folder: Path, form: str | None, pair: str, timeframe: str, kind: CandleType
) -> Path:
    """Where they are, if there are any."""
    handler = get_datahandler(folder, form)
    return Path(handler._pair_data_filename(folder, pair, timeframe, kind))


def pairs_with_trades(folder: Path, form: str | None, mode: TradingMode) -> list[str]:
    """Pairs of which `freqtrade download-data --dl-trades` has left trades."""
    return list(get_datahandler(folder, form).trades_get_available_data(folder, mode))


def stored_trades(folder: Path, form: str | None, pair: str, mode: TradingMode) -> DataFrame:
    """The trades that it has left of a pair."""
    return get_datahandler(folder, form).trades_load(pair, mode)


# ---------------------------------------------------------------- trades


@contextmanager
def database(url: str) -> Iterator[None]:
    """Read a bot's trades outside the bot."""
    before = getattr(Trade, "session", None)
    try:
        init_db(url)
        yield
    finally:
        if getattr(Trade, "session", None) is not before:  # also where its tables cannot be made
            Trade.session.remove()
            Trade.session.get_bind().dispose()


def has_database() -> bool:
    """Whether trades are in a database, as a bot's are and a backtest's are not."""
    return bool(Trade.use_db)


def exported_trades(results: Path, strategy: str) -> DataFrame:
    """The trades of the newest backtest in a folder of results; ValueError: it has none of it."""
    from freqtrade.data.btanalysis import load_backtest_data  # which no bot needs

    return load_backtest_data(results, strategy)


def backtest_trades() -> list[Any]:
    """The closed trades of the backtest that runs; each has a list of its own."""
    return cast(list[Any], LocalTrade.bt_trades)
