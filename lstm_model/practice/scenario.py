"""A window of the past as a market in its own times, and the candles that were known before it.

The candles written for freqtrade are those that the market's klines say, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame

from lstm_model.errors import ConfigError, DataError
from lstm_model.market.candles import FLOW, Records, timeframe_ms
from lstm_model.practice.excerpt import (
    OpenedPair,
    as_candles,
    candle_frame,
    closed_candles,
    no_candles,
    open_pair,
    parsed,
)
from lstm_model.practice.synthetic import CHARACTERS, synthetic_market
from lstm_model.practice.tape_market import (
    DAY_MS,
    FUTURE_DAYS,
    Listing,
    Market,
    make_market,
    wall_clock_ms,
)
from lstm_model.practice.window import Window

logger = logging.getLogger(__name__)

INVENTED = ("synthetic", "random-walk")
_INVENTED_PAIRS = tuple(character.instrument.pair for character in CHARACTERS)
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
        return self.market.listing(pair.replace("/", ""))


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
    if str(data) in INVENTED:
        if history is not None:
            raise ConfigError(f'"{data}" brings its own history; "{history}" cannot be added to it')
        others = tuple(pair for pair in beside if pair in {*_INVENTED_PAIRS} - {*names})
        listings = _invent(str(data), (*names, *others), window, seed, days_before)
        opened = {
            pair: OpenedPair(listing, no_candles(pair, window.step_ms), bool(window.detail))
            for pair, listing in zip((*names, *others), listings, strict=True)
        }
    else:
        opened = {pair: open_pair(Path(data), history, pair, window) for pair in names}
        opened |= _found(
            Path(data), history, [pair for pair in beside if pair not in names], window
        )
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

    A pair without any closed candle gets no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pair in (*scenario.pairs, *scenario.beside):
        frame = known_candles(scenario, pair, until_ms)
        if len(frame):
            _write(frame, folder, pair, scenario.timeframe)


def write_detail(scenario: Scenario, folder: Path) -> None:
    """Write the detail of the window's candles, as the market's klines say, beside them."""
    for pair in scenario.detailed:
        candles = as_candles(scenario.listing(pair), scenario.detail, scenario.end_ms)
        inside = candles.between(scenario.start_ms, scenario.end_ms)
        _write(candle_frame(inside), folder, pair, scenario.detail)


def _write(frame: DataFrame, folder: Path, pair: str, timeframe: str) -> None:
    # freqtrade's format, but for its compression level: 9 takes twenty times as long
    name = f"{pair.replace('/', '_')}-{timeframe}.feather"
    frame.to_feather(folder / name, compression="lz4")


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
    unknown = [pair for pair in pairs if pair not in _INVENTED_PAIRS]
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
    return [market.listings[pair.replace("/", "")] for pair in pairs]
