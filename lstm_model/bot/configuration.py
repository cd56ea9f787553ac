"""What a freqtrade configuration says: settings, pairs, folders, candles on disk, fees."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from freqtrade.configuration import setup_utils_configuration
from freqtrade.configuration.load_config import load_from_files
from freqtrade.data.converter import ohlcv_fill_up_missing_data
from freqtrade.data.history import get_datahandler, load_pair_history
from freqtrade.enums import CandleType, RunMode, TradingMode
from freqtrade.exceptions import FreqtradeException
from pandas import DataFrame

from lstm_model.errors import ConfigError
from lstm_model.market.candles import Candles, timeframe_ms
from lstm_model.market.flow_store import FlowStore
from lstm_model.settings import Settings, parse_settings

logger = logging.getLogger(__name__)

Config = dict[str, Any]
DEFAULT_FEE_FRACTION = 0.001  # Binance spot without discounts
PLAIN_PAIR = re.compile(r"[\w.-]+/[\w.:-]+")


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
    return parse_settings(config.get("lstm"), timeframe_ms(timeframe))


def trades_now(config: Config) -> bool:
    """Whether this is a dry run or live, not a backtest or another study of the past."""
    return config.get("runmode") in (RunMode.DRY_RUN, RunMode.LIVE)


def configured_pairs(config: Config, whitelist: Sequence[str]) -> list[str]:
    """The pairs that the configuration names, else the whitelist now.

    The bias analyses shorten the whitelist between runs; the configuration's `pairs` stays, so
    that they meet the same models again.
    """
    named = config.get("pairs") or config.get("exchange", {}).get("pair_whitelist", [])
    listed = config.get("pairlists") or [{"method": "StaticPairList"}]
    chosen = config.get("pairs") or listed[0].get("method") == "StaticPairList" or not whitelist
    return list(named) if named and chosen and _are_plain(named) else list(whitelist)


def training_pairs(config: Config, settings: Settings, whitelist: Sequence[str]) -> list[str]:
    """The pairs to pool: those of the settings, else all that are configured."""
    named = settings.train_pairs
    return list(named) if named and _are_plain(named) else configured_pairs(config, whitelist)


def _are_plain(pairs: Sequence[str]) -> bool:
    return all(PLAIN_PAIR.fullmatch(pair) for pair in pairs)


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
        The stored order flow is damaged.
    """
    kind = config.get("candle_type_def", CandleType.SPOT)
    folder, form = Path(config["datadir"]), config.get("dataformat_ohlcv")
    frame = load_pair_history(
        pair, config["timeframe"], folder, data_format=form, candle_type=kind, fill_up_missing=False
    )
    if frame.empty:
        _tell_if_damaged(folder, form, (pair, config["timeframe"], kind))
        return None
    frame = _without_future(frame, pair, config["timeframe"])
    if frame.empty:
        return None
    # As freqtrade itself does; before, one candle of the year 2100 would mean millions of rows.
    frame = ohlcv_fill_up_missing_data(frame, config["timeframe"], pair, candle_type=kind)
    candles = Candles.from_frame(frame, pair, config["timeframe"])
    if not settings_of(config).order_flow:
        return candles
    return candles.with_flow(flow_store(config).read(pair, config["timeframe"]))


def _without_future(frame: DataFrame, pair: str, timeframe: str) -> DataFrame:
    """The candles on disk but those that nobody can have seen yet: they would hide all newer."""
    # Clocks differ by less than a candle.
    latest = datetime.now(UTC) + timedelta(milliseconds=timeframe_ms(timeframe))
    past = frame["date"] <= latest
    if not past.all():
        logger.warning(
            "%s: %d %s candle(s) on disk lie in the future, the first at %s, and are left out; "
            "`freqtrade download-data --erase` gets them anew",
            pair, (~past).sum(), timeframe, frame["date"][~past].min(),
        )  # fmt: skip
    return frame[past]


def _tell_if_damaged(folder: Path, form: str | None, wanted: tuple[str, str, CandleType]) -> None:
    """Name a file of which freqtrade has made nothing; there may be none, which is no fault."""
    pair, timeframe, kind = wanted
    handler, mode = get_datahandler(folder, form), TradingMode.SPOT
    if kind != CandleType.SPOT:
        mode = TradingMode.FUTURES
    if wanted in handler.ohlcv_get_available_data(folder, mode):
        logger.warning(
            "%s: the file of its %s candles in %s is damaged or empty, and the pair is left out; "
            "`freqtrade download-data --erase --pairs %s` gets it anew", pair, timeframe, folder,
            pair,
        )  # fmt: skip


def taker_fee(config: Config, exchange: Any, pair: str) -> float:
    """Fee of one side: the configuration's, else the exchange's, else Binance's standard."""
    if config.get("fee") is not None:
        return float(config["fee"])
    try:
        return float(exchange.get_fee(symbol=pair, taker_or_maker="taker"))
    except (FreqtradeException, AttributeError, TypeError) as error:
        logger.warning("The fee of %s is unknown (%s); 0.1 %% is assumed", pair, error)
        return DEFAULT_FEE_FRACTION


def journal_url(config: Config, settings: Settings) -> str:
    """Where forecasts and decisions are written."""
    return settings.journal_url or f"sqlite:///{store_folder(config, settings) / 'journal.sqlite'}"


def read_config(path: Path) -> Config:
    """A configuration file and those that it adds, as they stand.

    Raises
    ------
    ConfigError
        What freqtrade has against it.
    """
    try:
        found = load_from_files([str(path)])
    except (FreqtradeException, OSError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return cast(Config, found)


def load_config(files: Sequence[str], overrides: Config) -> Config:
    """Read freqtrade configuration files as freqtrade does, without starting it.

    Raises
    ------
    ConfigError
        What freqtrade has against them.
    """
    args = {"config": list(files), **overrides}
    try:
        return cast(Config, setup_utils_configuration(args, RunMode.UTIL_NO_EXCHANGE))
    except FreqtradeException as error:
        raise ConfigError(str(error)) from None
