"""A few pairs whose candles open on command, with tapes, one model and a clock."""

from __future__ import annotations

import numpy as np
from lstm_reference import random_weights
from series import STEP_MS, make_candles, with_context, with_flow

from lstm_model.features.closed_candle import WARM_UP, compute_features, feature_names
from lstm_model.market.candles import Candles, Records, Seen
from lstm_model.model.calibration import POOLED, Calibration, Widths
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.forecast import Forecast
from lstm_model.model.model import Model
from lstm_model.settings import Settings
from lstm_model.store.card import ModelCard
from lstm_model.trading.nowcast import Nowcaster

SETTINGS = Settings(lookback=20, horizon=3, order_flow=True)
LEVELS = SETTINGS.levels
COUNT = WARM_UP + 60
PAIRS = ["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "LTC/USDT"]


class CandleTape:
    """A tape that knows candles, and how far the newest has come."""

    def __init__(self, candles: Candles) -> None:
        self.known = candles
        self.number = 0

    def newest(self) -> Seen | None:
        return self.seen(int(self.known.date_ms[self.number]))

    def seen(self, open_ms: int) -> Seen | None:
        number = int(np.searchsorted(self.known.date_ms, open_ms))
        prices = [float(getattr(self.known, n)[number]) for n in ("open", "high", "low", "close")]
        flow = self.known.flow[number]
        names = ("trades", "quote_volume", "taker_base", "taker_quote", "coverage")
        sums = [float(self.known.volume[number]), *(float(flow[name]) for name in names)]
        return Seen(open_ms, *prices, *sums, 77)

    def candles(self, start_ms: int, end_ms: int) -> Candles:
        return self.known.between(start_ms, end_ms)

    def flow(self, start_ms: int, end_ms: int) -> Records:
        return self.known.between(start_ms, end_ms).flow


class World:
    """Some pairs with tapes, one model, and a clock."""

    def __init__(
        self, pairs: list[str] = PAIRS, holes: float = 0.0, leader: str | None = None
    ) -> None:
        self.series = {
            pair: with_flow(make_candles(COUNT, pair=pair, seed=n), seed=n, holes=holes)
            for n, pair in enumerate(pairs)
        }
        if leader:
            leading = self.series[leader]
            self.series = {
                pair: with_context(candles, leading) for pair, candles in self.series.items()
            }
        self.tapes = {pair: CandleTape(candles) for pair, candles in self.series.items()}
        self.now_ms = 0
        self.model = make_model()
        self.nowcaster = Nowcaster(SETTINGS, self.tapes.get, lambda: self.now_ms, leader)

    def open(self, number: int, passed: float = 1.0 - 1.0 / STEP_MS) -> None:
        """Candle `number` is open, and so much of its time is over."""
        for tape in self.tapes.values():
            tape.number = number
            self.now_ms = int(tape.known.date_ms[number] + passed * STEP_MS)

    def rebase(self, count: int) -> None:
        """The exchange has given the first `count` candles."""
        self.nowcaster.rebase([(self.model, c.rows(0, count)) for c in self.series.values()])

    def closed_forecast(self, pair: str, number: int) -> Forecast:
        """What a closed candle's forecast says."""
        features = compute_features(self.series[pair], order_flow=True)
        ends = np.array([number])
        return self.model.forecast(pair, features.rows, features.volatility, ends)


def make_model(seed: int = 0) -> Model:
    names = feature_names(True)
    lstm = Ensemble(random_weights(len(names), 16, len(LEVELS), seed=seed), SETTINGS.lookback)
    card = ModelCard.model_construct(
        version=f"v{seed}", settings=SETTINGS.model_dump(mode="json"), feature_names=names
    )
    widths = Widths(0, 0.0, (0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.1, 0.1, 0.1, 0.1))
    return Model(card, lstm, Calibration(LEVELS, 0.5, 0.2, {POOLED: widths}), p_value=1.0)
