"""How often the price goes further than the reaches of 4, 16 and 64 horizons, in later months.

    python benchmarks/study_reaches.py --data DIR

`DIR` holds candles as freqtrade's download-data writes them. Reaches are measured in the two years
before each date, and held against the months after it; nothing is trained, and nothing is random.
The one-candle-delayed twin holds the reach of a candle against what came a candle later.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lstm_model.features.ingredients import Ingredients
from lstm_model.market.candles import Candles, Floats
from lstm_model.model.forecast import SPANS
from lstm_model.model.reach import excursions, measure

DAY_MS = 86_400_000
FIFTHS = 5
BEFORE_DAYS, WARM_UP_DAYS = 730, 10


class Market(NamedTuple):
    """Which pairs are looked at, and from when on for how long."""

    timeframe: str
    horizon: int
    pairs: tuple[str, ...]
    since: tuple[str, ...]
    days: int


MARKETS = (
    Market("5m", 12, ("BTC", "ETH", "SOL"), ("2024-07", "2024-10", "2025-01", "2025-04"), 91),
    Market("1h", 4, ("BTC", "ETH", "SOL", "XRP"),
           ("2023-01", "2023-07", "2024-01", "2024-07", "2025-01"), 182),
)  # fmt: skip


def missed(candles: Candles, market: Market, since_ms: int) -> Iterator[tuple[str, Floats]]:
    """Per side and span: the share that went further, of all, of each fifth, and a candle late."""
    end_ms = since_ms + market.days * DAY_MS
    longest = SPANS[-1] * market.horizon * candles.step_ms
    past = candles.between(since_ms - BEFORE_DAYS * DAY_MS, since_ms)
    later = candles.between(since_ms - WARM_UP_DAYS * DAY_MS, end_ms + longest).on_grid()
    volatility = np.asarray(Ingredients(later).volatility)
    told = measure(past, market.horizon).at(volatility, market.horizon)
    went = np.delete(excursions(later, market.horizon), [0, len(SPANS) + 1], axis=1)
    inside = (later.date_ms >= since_ms) & (later.date_ms < end_ms) & (volatility > 0.0)
    for number in range(2 * len(SPANS)):
        rows = np.flatnonzero(inside & np.isfinite(went[:, number] + told[:, number]))
        if not len(rows):
            continue
        beyond = went[rows, number] > np.abs(told[rows, number])
        late = went[rows[1:], number] > np.abs(told[rows[:-1], number])
        fifths = list(np.array_split(np.argsort(volatility[rows]), FIFTHS))
        side = "down" if number < len(SPANS) else "up"
        shares = [beyond.mean(), *(beyond[part].mean() for part in fifths), late.mean()]
        yield f"{side}, {SPANS[number % len(SPANS)] * market.horizon} candles", np.array(shares)


def rows(folder: Path, market: Market) -> Iterator[str]:
    found: dict[str, list[Floats]] = {}
    for base in market.pairs:
        pair = f"{base}/USDT"
        frame = pd.read_feather(folder / f"{base}_USDT-{market.timeframe}.feather")
        candles = Candles.from_frame(frame, pair, market.timeframe)
        for month in market.since:
            since_ms = int(pd.Timestamp(f"{month}-01", tz="UTC").timestamp() * 1000)
            for name, shares in missed(candles, market, since_ms):
                found.setdefault(name, []).append(shares)
    for name, every in found.items():
        mean, worst = np.mean(every, axis=0), np.max([shares[0] for shares in every])
        cells = [f"{share:.1%}" for share in (mean[0], *mean[1:-1], mean[-1], worst)]
        yield f"| {market.timeframe} | {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    print("| | | all | calm | | | | wild | a candle late | worst quarter or half of a pair |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for market in MARKETS:
        for line in rows(folder, market):
            print(line, flush=True)


if __name__ == "__main__":
    main()
