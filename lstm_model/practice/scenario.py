"""A window of the past as a market in its own times, and the candles that were known before it.

The candles written for freqtrade are those that the market's klines say, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import FLOW, Records, timeframe_ms
from lstm_model.practice.excerpt import (
    FUTURES_FOLDER,
    OpenedPair,
    as_candles,
    candle_frame,
    closed_candles,
    no_candles,
    open_pair,
    parsed,
    quoted_candles,
)
from lstm_model.practice.perpetual import Perpetual, perpetuals
from lstm_model.practice.synthetic import CHARACTERS, synthetic_market
from lstm_model.practice.tape_market import (
    DAY_MS,
    FUTURE_DAYS,
    Listing,
    Market,
    TapeCandles,
    is_future,
    make_market,
    symbol_of,
    wall_clock_ms,
)
from lstm_model.practice.window import Window

logger = logging.getLogger(__name__)

INVENTED = ("synthetic", "random-walk")
_INVENTED_PAIRS = tuple(character.instrument.pair for character in CHARACTERS)
_MARK_TIMEFRAME = "1h"  # in which freqtrade keeps mark prices and funding rates of Binance
_MOST_DAYS = 730  # what `synthetic_market` can make


@dataclass(frozen=True)
class Scenario:
    """A market to replay and what was known before it.

    Attributes
    ----------
    market : in its own times; it holds more than the window
    pairs : freqtrade's names
    start_ms, end_ms : the window, half-open
    history : per pair freqtrade's candles (`date open high low close volume`) that are older than
        the market's first one; may be empty
    detail : the finer timeframe of `detailed`, "" for none
    detailed : pairs whose market is at least as fine as the detail
    beside : pairs that are not replayed, but that forecasts look at
    """

    market: Market
    pairs: tuple[str, ...]
    timeframe: str
    start_ms: int
    end_ms: int
    history: Mapping[str, DataFrame]
    detail: str = ""
    detailed: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def listing(self, pair: str) -> Listing:
        """The market's side of a pair.

        Raises
        ------
        DataError
            If it is not in the market.
        """
        market = self._futures if is_future(pair) else self.market
        return market.listing(symbol_of(pair))

    @cached_property
    def _futures(self) -> Market:
        return perpetuals(self.market)

    @property
    def trading_mode(self) -> str:
        """freqtrade's name of what is traded: `spot` or `futures`."""
        return "futures" if is_future(self.pairs[0]) else "spot"


def open_scenario(  # noqa: PLR0913 - what a user may say of a market
    data: str | Path,
    pairs: Sequence[str],
    window: Window,
    *,
    history: Path | None = None,
    seed: int = 1,
    days_before: int = 30,
    now_ms: Callable[[], int] = wall_clock_ms,
    beside: Collection[str] = (),
) -> Scenario:
    """Open the part of recordings, or of an invented market, that a replay of the window needs.

    Parameters
    ----------
    data : `synthetic`, `random-walk` or a directory. Of a pair its trades are taken if they cover
        the window (all files `binance_spot_BTCUSDT_*.feather` of its time together), or else its
        candles of the window's detail, or else those of the timeframe (`BTC_USDT-5m.feather`), or
        else the finest that give these.
    history : a directory with older candles of the timeframe, for recordings
    seed, days_before : of an invented market: it depends on its seed and on where it begins and
        ends; it begins at a midnight (UTC) at least so many days before the window
    now_ms : the clock of the market
    beside : pairs that come with the others if they are there; nobody sees them if not

    Raises
    ------
    ConfigError
        For a pair that is not there, a missing directory, a detail that no pair has, and an
        invented market of over 730 days.
    DataError
        For a recording that cannot be read or does not cover the window, and where nothing was
        traded in it.
    """
    names = tuple(dict.fromkeys(pairs))
    if not names:
        raise ConfigError("a replay needs at least one pair, found none")
    if not _are_alike(*names):
        raise ConfigError(f"{', '.join(names)} are of spot and of futures: give one kind of them")
    beside = [pair for pair in beside if pair not in names]
    if str(data) in INVENTED:
        if history is not None:
            raise ConfigError(f'"{data}" brings its own history; "{history}" cannot be added to it')
        others = tuple(pair for pair in beside if _is_invented(pair) and _are_alike(pair, *names))
        listings = _invent(str(data), (*names, *others), window, seed, days_before)
        opened = {
            pair: OpenedPair(listing, no_candles(pair, window.step_ms), bool(window.detail))
            for pair, listing in zip((*names, *others), listings, strict=True)
        }
    else:
        opened = {pair: open_pair(Path(data), history, pair, window) for pair in names}
        alike = [pair for pair in beside if _are_alike(pair, *names)]
        for pair in {*beside} - {*alike}:
            logger.warning("Forecasts are made without %s, which is of another market", pair)
        opened |= _found(Path(data), history, alike, window)
        others = tuple(opened)[len(names) :]
    detailed = tuple(pair for pair in names if opened[pair].is_detailed)
    if window.detail and not detailed:
        raise ConfigError(
            f"{data}: no pair of {', '.join(names)} has {window.detail} candles, or trades, over "
            f"{window}; download them, or do without (--timeframe-detail '')"
        )
    frames = {pair: candle_frame(part.older) for pair, part in opened.items()}
    market = make_market([part.listing for part in opened.values()], now_ms)
    return Scenario(
        market, names, window.timeframe, window.start_ms, window.end_ms, frames,
        window.detail, detailed, others,
    )  # fmt: skip


def _found(
    folder: Path, history: Path | None, pairs: Sequence[str], window: Window
) -> dict[str, OpenedPair]:
    """Those of the pairs whose recordings cover the window."""
    found = {}
    for pair in pairs:
        try:
            found[pair] = open_pair(folder, history, pair, window)
        except (ConfigError, DataError) as error:
            logger.warning("Forecasts are made without %s: %s", pair, error)
    return found


def known_candles(scenario: Scenario, pair: str, until_ms: int) -> DataFrame:
    """freqtrade's candles of a pair that have closed by `until_ms`, all that are known.

    Those of the market are as its klines say: without gaps, flat where nothing was traded.
    """
    step_ms = timeframe_ms(scenario.timeframe)
    older = scenario.history[pair]
    closed = older["date"] <= pd.Timestamp(until_ms - step_ms, unit="ms", tz="UTC")
    served = as_candles(scenario.listing(pair), scenario.timeframe, until_ms)
    parts = [part for part in (older[closed], candle_frame(served)) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else older.iloc[:0]


def write_candles(scenario: Scenario, folder: Path, until_ms: int) -> None:
    """Write what is known at `until_ms` as a data directory of freqtrade's.

    A pair without any closed candle gets no file. Of futures the mark prices, those of the open
    candle among them, and what was paid for funding are written too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pair in (*scenario.pairs, *scenario.beside):
        frame = known_candles(scenario, pair, until_ms)
        if len(frame):
            _write(frame, folder, pair, scenario.timeframe)
        listing = scenario.listing(pair)
        if isinstance(listing, Perpetual) and listing.trades.due(until_ms):
            _write(_marks(listing, until_ms), folder, pair, _MARK_TIMEFRAME, "mark")
            _write(_fundings(listing, until_ms), folder, pair, _MARK_TIMEFRAME, "funding_rate")


def write_detail(scenario: Scenario, folder: Path) -> None:
    """Write the detail of the window's candles, as the market's klines say, beside them."""
    for pair in scenario.detailed:
        candles = as_candles(scenario.listing(pair), scenario.detail, scenario.end_ms)
        inside = candles.between(scenario.start_ms, scenario.end_ms)
        _write(candle_frame(inside), folder, pair, scenario.detail)


def _write(
    frame: DataFrame, folder: Path, pair: str, timeframe: str, kind: str = "futures"
) -> None:
    """`kind` is of a future's file: `futures`, `mark` or `funding_rate`."""
    name = f"{pair.replace('/', '_').replace(':', '_')}-{timeframe}"
    if is_future(pair):
        folder, name = folder / FUTURES_FOLDER, f"{name}-{kind}"
        folder.mkdir(exist_ok=True)
    # freqtrade's format, but for its compression level: 9 takes twenty times as long
    frame.to_feather(folder / f"{name}.feather", compression="lz4")


def _marks(future: Perpetual, until_ms: int) -> DataFrame:
    step_ms = timeframe_ms(_MARK_TIMEFRAME)
    most = (until_ms - int(future.trades.time_ms[0])) // step_ms + 2
    candles: TapeCandles = future.mark_candles(_MARK_TIMEFRAME, until_ms, limit=most)
    return candle_frame(quoted_candles(future, candles, step_ms))


def _fundings(future: Perpetual, until_ms: int) -> DataFrame:
    fundings = future.fundings(0, until_ms)
    times = np.array([each.time_ms for each in fundings], np.int64)
    dates = pd.to_datetime(times, unit="ms", utc=True).astype("datetime64[ms, UTC]")
    return DataFrame({"date": dates, "funding_rate": [each.rate for each in fundings]})


def klines_flow(scenario: Scenario, pair: str, until_ms: int) -> Records:
    """(N,) FLOW of the market's candles of a pair that have closed by `until_ms`.

    It equals `flow_history.flow_of_klines` of the market's klines, so the sides of trades that
    stand for recorded candles are guesses, here as there. Of `history` no flow is known.
    """
    listing = scenario.listing(pair)
    candles = closed_candles(listing, scenario.timeframe, until_ms)
    price, amount = listing.instrument.price_decimals, listing.instrument.amount_decimals
    flow = np.empty(len(candles), FLOW)
    flow["date_ms"], flow["trades"] = candles.open_ms, candles.trades
    flow["volume"] = parsed(candles.volume, amount)
    flow["quote_volume"] = parsed(candles.quote_volume, price + amount)
    flow["taker_base"] = parsed(candles.taker_base, amount)
    flow["taker_quote"] = parsed(candles.taker_quote, price + amount)
    flow["coverage"] = 1.0
    flow["realized_volatility"] = flow["largest"] = np.nan
    return flow


def _invent(
    spec: str, pairs: Sequence[str], window: Window, seed: int, days_before: int
) -> list[Listing]:
    unknown = [pair for pair in pairs if not _is_invented(pair)]
    if unknown:
        known = ", ".join(_INVENTED_PAIRS)
        raise ConfigError(f'"{spec}" has no {", ".join(unknown)}; there are {known}')
    begin_ms = min(window.first_ms, window.start_ms - days_before * DAY_MS) // DAY_MS * DAY_MS
    days = max(1, -(-(window.last_ms - begin_ms) // DAY_MS) - FUTURE_DAYS)
    if days > _MOST_DAYS or begin_ms < 0:
        raise ConfigError(
            f"an invented market has at most {_MOST_DAYS} days, {window} with what is needed "
            f"before it takes {days}; give a shorter window or a smaller days_before"
        )
    market = synthetic_market(seed, days, start_ms=begin_ms, learnable=spec == "synthetic")
    return [market.listings[symbol_of(pair)] for pair in pairs]


def _are_alike(*pairs: str) -> bool:
    """Whether all are of spot, or all futures."""
    return len({is_future(pair) for pair in pairs}) == 1


def _is_invented(pair: str) -> bool:
    return pair.partition(":")[0] in _INVENTED_PAIRS
