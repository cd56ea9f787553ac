"""What a freqtrade configuration says: settings, pairs, folders, candles on disk, fees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from freqtrade.enums import CandleType, RunMode
from freqtrade.exceptions import FreqtradeException
from pandas import DataFrame

from lstm_model.bot import insides
from lstm_model.bot.named import config_files, files_of, words_of
from lstm_model.bot.reading import STUMBLES, in_a_line, read_config, silent, stumbled
from lstm_model.durations import OLDEST_MS
from lstm_model.errors import ConfigError, DataError
from lstm_model.files import DAMAGE, refuse_closed
from lstm_model.market.candles import Candles, Ints, timeframe_ms
from lstm_model.market.flow_store import FlowStore
from lstm_model.pairs import PLAIN_PAIR
from lstm_model.settings import Settings, parse_settings
from lstm_model.store.journal import Journal
from lstm_model.store.spool import spool_name
from lstm_model.training.downloads import COPY_FIRST, ERASE, days_to_learn, download_command

logger = logging.getLogger(__name__)

Config = insides.Config
STRATEGY = "LSTMStrategy"  # where neither an option nor the configuration names one
DEFAULT_FEE_FRACTION = 0.001  # Binance spot without discounts
_STATIC = "StaticPairList"


def settings_of(config: Config, timeframe: str | None = None) -> Settings:
    """The `lstm` section of a freqtrade configuration, validated.

    Parameters
    ----------
    timeframe : of the strategy, where the configuration names none

    Raises
    ------
    ConfigError
        An option is wrong, or there is no timeframe.
    """
    timeframe = config.get("timeframe") or timeframe
    if not timeframe:
        raise ConfigError('the configuration has no "timeframe", e.g. "5m": set it')
    return parse_settings(config.get("lstm"), timeframe_ms(timeframe), files_of(config))


def without_section(config: Config) -> Config:
    """The configuration without our section: what is wrong in it is not the strategy's fault."""
    return {name: value for name, value in config.items() if name != "lstm"}


def trades_now(config: Config) -> bool:
    """Whether this is a dry run or live, not a backtest or another study of the past."""
    return config.get("runmode") in (RunMode.DRY_RUN, RunMode.LIVE)


def configured_pairs(config: Config, whitelist: Sequence[str]) -> list[str]:
    """The pairs that the configuration names, else the whitelist now.

    The bias analyses shorten the whitelist between runs; the configuration's `pairs` stays, so
    that they meet the same models again.
    """
    named = config.get("pairs") or config.get("exchange", {}).get("pair_whitelist", [])
    chosen = config.get("pairs") or _pairlist(config) == _STATIC or not whitelist
    return list(named) if named and chosen and _are_plain(named) else list(whitelist)


def training_pairs(config: Config, settings: Settings, whitelist: Sequence[str]) -> list[str]:
    """The pairs to pool: those of the settings, else all that are configured."""
    return list(settings.train_pairs or configured_pairs(config, whitelist))


def _patterns(config: Config) -> list[str]:
    """What of the whitelist is no name of a pair."""
    listed = config.get("exchange", {}).get("pair_whitelist") or []
    return [pair for pair in listed if not PLAIN_PAIR.fullmatch(pair)]


def _pairlist(config: Config) -> str:
    """What makes the list of pairs; freqtrade refuses what is none."""
    listed = config.get("pairlists")
    first = listed[0] if isinstance(listed, list) and listed else {}
    return str(first.get("method")) if isinstance(first, dict) and first else _STATIC


def _are_plain(pairs: Sequence[str]) -> bool:
    return all(PLAIN_PAIR.fullmatch(pair) for pair in pairs)


def no_pairs(config: Config) -> str:
    """Why a configuration names no pairs before a bot runs, and what to do."""
    method, patterns = _pairlist(config), _patterns(config)
    why = "exchange.pair_whitelist is empty"
    if method != _STATIC:
        why = f"they come from {method}, which only a running bot asks"
    elif patterns:
        why = f'"{patterns[0]}" is a pattern, which only a running bot resolves'
    return f'{why}; name some in exchange.pair_whitelist or "train_pairs", e.g. "BTC/USDT"'


def makes_pairs(config: Config) -> bool:
    """Whether a running bot makes the list of pairs: by a pairlist, or of patterns."""
    return _pairlist(config) != _STATIC or bool(_patterns(config))


def parsed_timerange(text: str | None) -> Any:
    """A time range as freqtrade writes it.

    Raises
    ------
    ConfigError
        It is none.
    """
    try:
        return insides.time_range(text)
    except (FreqtradeException, ValueError, OverflowError):
        raise ConfigError(
            f'"{text}" is no time range: give one like 20240101-20240701 or 20240101-'
        ) from None


def store_folder(config: Config, settings: Settings) -> Path:
    """Where models and journal live; relative names lie inside user_data."""
    return Path(config["user_data_dir"]) / settings.store_dir


def lineage(config: Config, settings: Settings) -> str:
    """Names the champion: models of other exchanges, markets, timeframes or settings are others."""
    market = f"{config['exchange']['name']}-{config.get('trading_mode', 'spot')}"
    return f"{market}-{config['timeframe']}-{settings.digest()[:8]}"


def flow_store(config: Config) -> FlowStore:
    """Where the order flow of closed candles is kept: in a folder beside them."""
    return FlowStore(Path(config["datadir"]) / "flow")


def load_candles(config: Config, pair: str) -> Candles | None:
    """All candles of a pair in freqtrade's data directory, or None.

    With `order_flow` on, they carry what is stored of their flow.

    Raises
    ------
    DataError
        The file is damaged.
    StoreError
        The stored order flow is damaged, or this user may not read a file.
    """
    refuse_closed(_candle_file(config, pair))
    try:
        frame = _stored(config, pair)
        if frame is not None:
            frame = insides.filled(frame, pair, config["timeframe"])
    except (*DAMAGE, FreqtradeException) as error:  # freqtrade reads what it takes for candles
        raise DataError(
            f"{pair}: the file of its {config['timeframe']} candles in {config['datadir']} holds "
            f"something else ({type(error).__name__}: {in_a_line(error)[:100]}); "
            f"`{_anew(config, pair)}` gets it anew, {COPY_FIRST}"
        ) from None
    if frame is None:
        return None
    candles = Candles.from_frame(frame, pair, config["timeframe"])
    if not settings_of(config).order_flow:
        return candles
    return candles.with_flow(flow_store(config).read(pair, config["timeframe"]))


def stored_dates(config: Config, pair: str) -> Ints:
    """(T,) when the candles in a pair's file open; those that fill holes are not among them.

    Nothing is refused: it is to be asked of a pair whose candles `load_candles` has read.
    """
    frame = _stored(config, pair)
    if frame is None:
        return np.empty(0, np.int64)
    return np.unique(frame["date"].to_numpy(dtype="datetime64[ms]").astype(np.int64))


def _stored(config: Config, pair: str) -> DataFrame | None:
    """The candles in a pair's file, with their holes; None if there are none."""
    folder, form, timeframe, kind = _shelf(config)
    frame = insides.stored_candles(folder, form, pair, timeframe, kind)
    if frame.empty and has_candle_file(config, pair):
        logger.warning(
            "%s: the file of its %s candles in %s is damaged or empty, and the pair is left "
            "out; `%s` gets it anew, %s", pair, timeframe, folder, _anew(config, pair), COPY_FIRST,
        )  # fmt: skip
    # Before holes are filled: one candle of the year 1970 or 2100 would mean millions of rows.
    frame = frame if frame.empty else _of_our_time(frame, pair, config)
    return None if frame.empty else frame


def _of_our_time(frame: DataFrame, pair: str, config: Config) -> DataFrame:
    """The candles on disk but those that nobody can have seen.

    Those of the future would hide all newer; no market is as old as others.
    """
    # Clocks differ by less than a candle.
    timeframe = config["timeframe"]
    latest = datetime.now(UTC) + timedelta(milliseconds=timeframe_ms(timeframe))
    dates = frame["date"]
    usual = (dates <= latest) & (dates >= datetime.fromtimestamp(OLDEST_MS / 1_000, UTC))
    if not usual.all():
        first_ms = int(dates[usual].min().timestamp() * 1_000) if usual.any() else None
        logger.warning(
            "%s: %d %s candle(s) on disk lie in the future or before all markets, the first at %s, "
            "and are left out; `%s` gets them anew, %s", pair, (~usual).sum(), timeframe,
            dates[~usual].min(), _anew(config, pair, first_ms), COPY_FIRST,
        )  # fmt: skip
    return frame[usual]


def _anew(config: Config, pair: str, first_ms: int | None = None) -> str:
    """What gets a pair's file anew, from `first_ms` on at the latest."""
    timeframe = config["timeframe"]
    days = days_to_learn(settings_of(config), timeframe, first_ms)
    return download_command(words_of(config), timeframe, days, [pair], ERASE)


def has_candle_file(config: Config, pair: str) -> bool:
    """Whether there is a file of a pair's candles, though it may be damaged or empty."""
    folder, form, timeframe, kind = _shelf(config)
    return insides.has_candles(folder, form, pair, timeframe, kind)


def _candle_file(config: Config, pair: str) -> Path:
    folder, form, timeframe, kind = _shelf(config)
    return insides.candle_file(folder, form, pair, timeframe, kind)


def _shelf(config: Config) -> tuple[Path, str | None, str, CandleType]:
    """Folder and form of the candles on disk, their timeframe and kind."""
    kind = config.get("candle_type_def", CandleType.SPOT)
    return Path(config["datadir"]), config.get("dataformat_ohlcv"), config["timeframe"], kind


def taker_fee(config: Config, exchange: Any, pair: str) -> float:
    """Fee of one side: the configuration's, else the exchange's for the pair, else Binance's."""
    if config.get("fee") is not None:
        return float(config["fee"])
    try:
        return float(exchange.get_fee(symbol=pair, taker_or_maker="taker"))
    except (FreqtradeException, AttributeError, TypeError) as error:
        logger.warning("The fee of %s is unknown (%s); 0.1 %% is assumed", pair, error)
        return DEFAULT_FEE_FRACTION


def journal_of(config: Config, settings: Settings, **options: Any) -> Journal:
    """Where the bot of this configuration writes its forecasts and decisions.

    `options` are those of `Journal`. A path may hold what would mean something in a URL.
    """
    place = settings.journal_url or store_folder(config, settings) / "journal.sqlite"
    return Journal(place, lineage(config, settings), **options)


def spool_path(config: Config, settings: Settings, database: str) -> Path:
    """The local file where facts wait for the journal in this `database`."""
    name = spool_name(lineage(config, settings), database)
    return store_folder(config, settings) / "spool" / name


def load_config(files: Sequence[str], overrides: Config) -> Config:
    """Read freqtrade configuration files as freqtrade does, without starting it.

    Where they name no timeframe it is the strategy's: that of `overrides`, else theirs, else ours.

    Raises
    ------
    ConfigError
        One is not there, what freqtrade has against them, or there is no timeframe.
    """
    args = {"config": config_files(files, overrides.get("user_data_dir"))}
    try:
        with silent():
            config = insides.set_up({**args, **overrides}, RunMode.UTIL_NO_EXCHANGE)
    except FreqtradeException as error:
        if insides.SEGMENT in str(error):  # it does not say of which file
            for path in map(Path, args["config"]):
                read_config(path)
        raise ConfigError(in_a_line(error)) from None
    except STUMBLES as error:
        raise ConfigError(stumbled(args["config"], error)) from None
    if not config["exchange"].get("name"):
        raise ConfigError('the configuration names no exchange: set "name" in section "exchange"')
    if not config.get("timeframe"):
        config["timeframe"] = _strategy_timeframe(config)
    return config


def load_strategy(config: Config) -> Any:
    """The strategy that a configuration names, else ours, as freqtrade finds and makes it.

    Raises
    ------
    ConfigError
        There is none of this name, or it does not start.
    """
    name = config.get("strategy") or STRATEGY
    try:
        with silent():  # freqtrade writes into what it is given
            return insides.find_strategy({**deepcopy(config), "strategy": name})
    except FreqtradeException as error:
        text = in_a_line(error)
        if insides.NO_STRATEGY in text:
            text += " --strategy takes the name of the class, --strategy-path its folder"
        raise ConfigError(f"strategy {name} cannot be used: {text}") from None


def check_startable(config: Config) -> None:
    """Refuse what a bot of the configuration would not start with.

    Raises
    ------
    ConfigError
        What freqtrade has against it, or against its strategy.
    """
    whole = {**load_strategy(config).config, "runmode": RunMode.DRY_RUN}  # the strategy's are in it
    try:
        with silent():
            insides.check_consistency(whole)
    except FreqtradeException as error:
        raise ConfigError(in_a_line(error)) from None


def _strategy_timeframe(config: Config) -> str:
    """The timeframe of the strategy, which freqtrade takes where the configuration names none."""
    needed = 'the configuration has no "timeframe"'
    try:
        timeframe = getattr(load_strategy(without_section(config)), "timeframe", None)
    except ConfigError as error:
        raise ConfigError(
            f'{needed}, and {error}; set it, e.g. to "5m", or give --timeframe or --strategy'
        ) from None
    if not timeframe:
        raise ConfigError(f'{needed}, and the strategy neither: set it, e.g. to "5m"')
    return str(timeframe)
