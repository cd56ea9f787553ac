"""Past order flow by way of freqtrade: Binance's klines, or the trades that it has downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from freqtrade.enums import TradingMode
from freqtrade.exceptions import DDosProtection, FreqtradeException, OperationalException

from lstm_model.bot import insides
from lstm_model.bot.assembly import opened_exchange
from lstm_model.bot.configuration import (
    Config,
    flow_store,
    parsed_timerange,
    settings_of,
)
from lstm_model.durations import OLDEST_MS
from lstm_model.errors import ConfigError, DataError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.market.candles import timeframe_ms
from lstm_model.market.flow_history import FlowSpan, Klines, download, flow_of_trades_frame, span_of
from lstm_model.pairs import PLAIN_PAIR

_DAY_MS = 86_400_000
_SETTLE_MS = 60_000  # chosen: how far our clock may be ahead of the exchange's
_RETRIES = 6  # waits 1, 2, 5, 10, 17 and 26 s: a whole minute, over which Binance counts requests


def flow_span(
    config: Config, now_ms: int, days: int | None, timerange: str | None
) -> tuple[int, int]:
    """Start and end (UTC milliseconds) of the order flow to get; no open candle ends in it.

    By default it reaches back as far as the candles that the model in force was trained on.

    Raises
    ------
    ConfigError
        Both `days` and `timerange`, a time range that freqtrade cannot read, or an empty one.
    """
    if days is not None and timerange is not None:
        raise ConfigError("give either --days or --timerange, not both")
    settings, newest_ms = settings_of(config), now_ms - _SETTLE_MS
    reach = settings.train_candles + settings.retrain_candles + settings.step_candles
    reach += WARM_UP + settings.lookback
    span_ms = reach * timeframe_ms(config["timeframe"]) if days is None else days * _DAY_MS
    parsed = parsed_timerange(timerange)
    start_ms = max(1_000 * parsed.startts or newest_ms - span_ms, OLDEST_MS)
    end_ms = min(1_000 * parsed.stopts or newest_ms, newest_ms)
    if end_ms <= start_ms:
        raise ConfigError(f"there is no candle yet in the time range {timerange}: give another")
    return start_ms, end_ms


def download_flow(
    config: Config, span: tuple[int, int], progress: Callable[[str, float], None]
) -> Iterator[FlowSpan]:
    """Get and store the order flow of every pair over `span`; says of each what is known then.

    Raises
    ------
    LstmModelError
        The exchange has no history of order flow, knows a pair not, or does not answer.
    """
    is_binance = str(config["exchange"]["name"]).lower().startswith("binance")
    store, timeframe = flow_store(config), config["timeframe"]
    for pair in _download_klines(config, span, progress) if is_binance else _take_trades(config):
        yield span_of(store, pair, timeframe, *span)


def _download_klines(
    config: Config, span: tuple[int, int], progress: Callable[[str, float], None]
) -> Iterator[str]:
    with _exchange(config) as exchange:
        for pair in _flow_pairs(config, list(exchange.markets), f"traded on {exchange.name}"):
            klines = raw_klines(
                insides.client_of(exchange), exchange.markets[pair]["id"], config["timeframe"],
                futures=config.get("trading_mode") == TradingMode.FUTURES,
            )  # fmt: skip
            share_done = partial(progress, pair)
            share_done(0.0)
            download(pair, config["timeframe"], *span, klines, flow_store(config), share_done)
            yield pair


@contextmanager
def _exchange(config: Config) -> Iterator[Any]:
    """freqtrade's exchange as `freqtrade download-data` opens it."""
    with opened_exchange(config) as exchange:
        if not exchange.markets:
            raise DataError(f"{exchange.name} does not say what it trades: is it reachable?")
        yield exchange


def raw_klines(api: Any, symbol: str, timeframe: str, *, futures: bool) -> Klines:
    """Asks Binance for klines with all their columns, which ccxt's own `fetch_ohlcv` drops.

    Waits and asks again while the exchange limits or cannot be reached.

    Parameters
    ----------
    api : ccxt's exchange; `symbol` is the exchange's own name of the pair
    """
    endpoint = api.fapiPublicGetKlines if futures else api.publicGetKlines
    # ccxt's errors by way of its table of HTTP statuses: NetworkError, and the root of all
    unreachable = api.httpExceptions["429"].__base__
    refused = api.httpExceptions["422"].__base__

    @insides.patient(_RETRIES)
    def ask(query: Config) -> Any:
        try:
            return endpoint(query)
        except unreachable as error:
            raise DDosProtection(_first_line(error)) from None
        except refused as error:
            raise OperationalException(_first_line(error)) from None

    def klines(start_ms: int, end_ms: int, limit: int) -> Any:
        times = {"startTime": start_ms, "endTime": end_ms - 1, "limit": limit}
        try:
            return ask({"symbol": symbol, "interval": timeframe, **times})
        except FreqtradeException as error:
            raise DataError(
                f"{symbol}: no klines ({error}); what came before is stored, and the same command "
                "continues from there"
            ) from None

    return klines


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]


def _take_trades(config: Config) -> Iterator[str]:
    """Make order flow of the trades that `freqtrade download-data --dl-trades` left."""
    datadir, mode = Path(config["datadir"]), config.get("trading_mode", TradingMode.SPOT)
    form = config.get("dataformat_trades")
    available = insides.pairs_with_trades(datadir, form, mode)
    if not available:
        raise ConfigError(
            f"the past order flow of {config['exchange']['name']} is not to be had: it exists for "
            "Binance's klines, and for trades in the data directory from `freqtrade download-data "
            f"--dl-trades` (none in {datadir}). A running bot stores what it sees from now on."
        )
    for pair in _flow_pairs(config, available, "among the downloaded trades"):
        trades = insides.stored_trades(datadir, form, pair, mode)
        flow = flow_of_trades_frame(trades, pair, config["timeframe"])
        flow_store(config).write(pair, config["timeframe"], flow)
        yield pair


def _flow_pairs(config: Config, available: list[str], where: str) -> list[str]:
    """The pairs asked for; without any the whitelist and the pairs to train on."""
    listed = config["exchange"].get("pair_whitelist", [])
    named = config.get("pairs") or [*listed, *(settings_of(config).train_pairs or ())]
    absent = sorted({pair for pair in named if PLAIN_PAIR.fullmatch(pair)} - set(available))
    if absent:
        raise ConfigError(f"{', '.join(absent)}: not {where}")
    try:
        pairs = insides.expanded(named, available)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not pairs:
        raise ConfigError(f"no pair to get order flow of: none of {named} is {where}")
    return list(dict.fromkeys(pairs))
