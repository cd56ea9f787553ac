"""A pair's perpetual future: the trades of its spot market, a mark price, and funding every 8 h.

The exchange counts more than trades: what its insurance fund takes over and what it leaves out
use up ids too. Those frames come on the websocket only, so ids of REST's trades have holes.
Mark price, index and funding follow from the trades alone, and at each moment from those so far.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lstm_model.market.candles import Floats, Ints, timeframe_ms
from lstm_model.practice.tape_market import (
    Bools,
    Listing,
    Market,
    TapeCandles,
    no_candles,
)

FUNDING_MS = 8 * 3_600_000  # Binance's usual period, from midnight UTC on
MARK_MS = 3_000  # how often Binance tells a mark price
QUOTES = ("USDT", "USDC")  # in which a USD-M future is settled

# About 0.4 % of the frames carried no trade where somebody counted them (hftbacktest, issue 263);
# that one in ten of these is three in a row, and how many are the insurance fund's, is chosen.
_NA_FRACTION, _FUND_FRACTION, _BURST = 0.003, 0.001, 3
_FIRST_ID = 5_000_000_000  # chosen: added to spot's, so that no id is of both
_WORST_FUND_FRACTION = 0.1  # chosen: how far from the market the insurance fund may deal
_MARK_SPAN_MS = 60_000  # chosen: the mark price is the mean of the trades of so long
_INDEX_SPAN_MS = 10 * 60_000  # chosen: the index, slower, so that there is a premium
_PREMIUM_MS = 60_000  # chosen: how often the premium is looked at
_MOST_SAMPLES = 1_200  # of a candle: every mark price up to 1h, every so-manieth beyond
# https://www.binance.com/en/support/faq/introduction-to-binance-futures-funding-rates-360033525031
INTEREST_RATE = 0.0001
_CLAMP, _CAP = 0.0005, 0.003


class Void(NamedTuple):
    """A frame that uses up an id and is no trade; price in ticks, amount in lots, 0 for none.

    Attributes
    ----------
    kind : Binance's `X`
    """

    id: int
    time_ms: int
    kind: str
    price: int
    amount: int


class Funding(NamedTuple):
    """A payment between long and short: `rate` of the position's value at the mark price (ticks).

    Longs pay where the rate is positive.
    """

    time_ms: int
    rate: float
    mark: int


@dataclass(frozen=True)
class _Voids:
    """V frames that are no trades: each comes right after the trade at `after` (V,), rising."""

    after: Ints
    is_fund: Bools
    distance: Floats  # from that trade's price, as a fraction


@dataclass(frozen=True)
class Perpetual(Listing):
    """A future without an end on one pair's trades.

    Attributes
    ----------
    pair_of : the pair, whose candles are the future's too, also where some are held back

    Examples
    --------
    >>> from lstm_model.practice.synthetic import synthetic_market
    >>> future = perpetuals(synthetic_market(days=1)).listing("BTCUSDT")
    >>> bool((np.diff(future.ids(0, 1_000)) > 1).any())
    True
    """

    pair_of: Listing | None = None

    def candles(
        self,
        timeframe: str,
        now_ms: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 500,
    ) -> TapeCandles:
        """As the pair's."""
        asked = timeframe, now_ms, start_ms, end_ms, limit
        return self.pair_of.candles(*asked) if self.pair_of else super().candles(*asked)

    @cached_property
    def _voids(self) -> _Voids:
        # So many numbers a trade, in the trades' order: a longer tape begins with the same.
        seed = zlib.crc32(self.instrument.symbol.encode())
        draw = np.random.default_rng(seed).random((len(self.trades), 2))
        chosen = np.flatnonzero(draw[:, 0] < _NA_FRACTION + _FUND_FRACTION)
        is_fund = draw[chosen, 0] >= _NA_FRACTION
        count = np.where(draw[chosen, 0] < _NA_FRACTION / 10.0, _BURST, 1)
        distance = _WORST_FUND_FRACTION * (2.0 * draw[chosen, 1] - 1.0)
        return _Voids(*(np.repeat(each, count) for each in (chosen, is_fund, distance)))

    @cached_property
    def _ids(self) -> Ints:
        position = np.arange(len(self.trades), dtype=np.int64)
        used_up = np.searchsorted(self._voids.after, position)
        return _FIRST_ID + self.trades.first_id + position + used_up

    def ids(self, start: int, stop: int) -> Ints:
        """Ids of the trades at `[start, stop)` of the tape; where one is missing was no trade."""
        return self._ids[start:stop]

    def position(self, id: int) -> int:
        """Where on the tape the first trade with at least this id is."""
        return int(np.searchsorted(self._ids, id))

    def voids(self, start: int, stop: int) -> list[Void]:
        """The frames that come with the trades at `[start, stop)` and are none, by id."""
        voids, trades = self._voids, self.trades
        first, last = np.searchsorted(voids.after, (start, stop))
        found = []
        for number in range(int(first), int(last)):
            at = int(voids.after[number])
            id, time_ms = _FIRST_ID + trades.first_id + at + 1 + number, int(trades.time_ms[at])
            if not voids.is_fund[number]:
                found.append(Void(id, time_ms, "NA", 0, 0))
                continue
            price = max(1, round(int(trades.price[at]) * (1.0 + float(voids.distance[number]))))
            found.append(Void(id, time_ms, "INSURANCE_FUND", price, int(trades.amount[at])))
        return found

    @cached_property
    def _sums(self) -> Ints:
        # May wrap around: the sum of any span, a difference of two, comes out right all the same.
        return np.concatenate(([0], np.cumsum(self.trades.price)))

    def forget_prices(self) -> None:
        """Sum prices up again, for somebody has changed those to come."""
        self.__dict__.pop("_sums", None)

    def _means(self, times_ms: Ints, span_ms: int) -> Floats:
        """(N,) ticks: mean price of the trades in `(time - span, time]`, else the last before."""
        tape = self.trades.time_ms
        stop = np.maximum(np.searchsorted(tape, times_ms, side="right"), 1)
        start = np.minimum(np.searchsorted(tape, times_ms - span_ms, side="right"), stop - 1)
        means: Floats = (self._sums[stop] - self._sums[start]) / (stop - start)
        return means

    def marks(self, times_ms: Ints) -> Ints:
        """(N,) mark prices in ticks at these times, none of them before the first trade."""
        return np.rint(self._means(times_ms // MARK_MS * MARK_MS, _MARK_SPAN_MS)).astype(np.int64)

    def mark(self, now_ms: int) -> int:
        """The mark price in ticks."""
        return int(self.marks(np.array([now_ms]))[0])

    def index(self, now_ms: int) -> int:
        """The index price in ticks."""
        return round(float(self._means(np.array([now_ms]), _INDEX_SPAN_MS)[0]))

    def mark_candles(
        self,
        timeframe: str,
        now_ms: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 500,
    ) -> TapeCandles:
        """Candles of the mark price, chosen as those of the trades are; nothing trades in them."""
        edges = self.edges(timeframe, now_ms, start_ms, end_ms, limit)
        if len(edges) < 2:
            return no_candles()
        step_ms = timeframe_ms(timeframe)
        every_ms = max(MARK_MS, step_ms // _MOST_SAMPLES)
        times = edges[:-1, None] + np.arange(0, step_ms, every_ms)
        marks = self.marks(np.clip(times, int(self.trades.time_ms[0]), now_ms))
        prices = (marks[:, 0], marks.max(axis=1), marks.min(axis=1), marks[:, -1])
        return TapeCandles(edges[:-1], *prices, *[np.zeros(len(marks), np.int64)] * 6)

    def rate(self, begin_ms: int, end_ms: int) -> float:
        """The funding rate by the premium over `[begin_ms, end_ms)`, to eight decimals."""
        first_ms = max(begin_ms, int(self.trades.time_ms[0]))
        times = np.arange(first_ms, max(end_ms, first_ms + 1), _PREMIUM_MS, dtype=np.int64)
        index = self._means(times, _INDEX_SPAN_MS)
        premium = float(np.mean(self._means(times, _MARK_SPAN_MS) / index - 1.0))
        rate = premium + min(max(INTEREST_RATE - premium, -_CLAMP), _CLAMP)
        return round(min(max(rate, -_CAP), _CAP), 8)

    def expected_rate(self, now_ms: int) -> float:
        """What the next payment's rate would be if the premium stayed as it was so far."""
        return self.rate(now_ms // FUNDING_MS * FUNDING_MS, now_ms + 1)

    def fundings(self, start_ms: int, end_ms: int, most: int | None = None) -> list[Funding]:
        """The payments due in `[start_ms, end_ms]`, the first so many; none before any trade."""
        first_ms = max(start_ms, int(self.trades.time_ms[0]) + 1)
        times = range(-(-first_ms // FUNDING_MS) * FUNDING_MS, end_ms + 1, FUNDING_MS)
        return [Funding(at, self.rate(at - FUNDING_MS, at), self.mark(at)) for at in times[:most]]


def next_funding_ms(now_ms: int) -> int:
    """When the next payment is due."""
    return (now_ms // FUNDING_MS + 1) * FUNDING_MS


def perpetuals(market: Market) -> Market:
    """The futures of a spot market: one on each pair that is quoted in dollars."""
    listings: dict[str, Listing] = {
        symbol: Perpetual(listing.instrument, listing.trades, listing)
        for symbol, listing in market.listings.items()
        if listing.instrument.quote in QUOTES
    }
    return replace(market, listings=listings)
