"""How often `freqtrade-lstm compare` calls two wallets different that are equal by law.

    python benchmarks/study_differences.py --pairs 1000

Each pair of wallets sees one market and has noise of its own, of the same law: Student's t with
four degrees of freedom, in volatility that clusters. So every true difference is zero, and of the
95 % intervals one in twenty should leave it out.

    near  the wallets' own noise is a third of the market's, as of two ways to stake the same trades
    far   it is as large
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from lstm_model.market.candles import Floats
from lstm_model.rivals.days import Days, differences

MEASURES = ("profit", "drawdown", "Sharpe per day", "Sortino per day", "CVaR 5% of days")


def wallets(rng: np.random.Generator, days: int, own: float) -> list[Days]:
    level = np.zeros(days)
    for day in range(1, days):
        level[day] = 0.95 * level[day - 1] + 0.2 * rng.normal()

    def noise() -> Floats:
        return np.asarray(0.01 * np.exp(level) * rng.standard_t(4, days) / np.sqrt(2.0))

    market, nothing = noise(), np.zeros(days)
    return [Days(market + own * noise(), *[nothing] * 4) for _ in range(2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--draws", type=int, default=500)
    asked = parser.parse_args()
    print(f"| days | wallets | {' | '.join(MEASURES)} |")
    print("| --- | --- |" + " --- |" * len(MEASURES))
    for days in (30, 45, 90, 180, 365):
        for name, own in (("near", 0.3), ("far", 1.0)):
            rng, called = np.random.default_rng(days), Counter[str]()
            for _ in range(asked.pairs):
                for found in differences(*wallets(rng, days, own), draws=asked.draws):
                    called[found.measure.name] += found.proven != 0
            shares = (f"{called[measure] / asked.pairs:.1%}" for measure in MEASURES)
            print(f"| {days} | {name} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
