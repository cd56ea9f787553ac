"""Does it stay flat where nothing can be learnt, and does it trade where something can?

    python benchmarks/study_flat.py --seeds 20 [--futures]

Every seed is a random walk of three pairs, 1m, and a network of its own, learnt as the demo does:
its `lstm` options on top of config.json's. The engine of a backtest walks through the last six of
its days, and every candle of every pair is decided on, entries to both sides counted; a spot bot
makes the long ones alone. `--futures`: at the lower fee of futures, with the funding that a
position is expected to pay. Four looks at the same forecasts:

    served        as shipped: the exchange's fee, default slippage and spread, skill required
    free          skill required, but nothing costs anything: what the gate alone keeps out
    ungated       the costs, but no skill required: what the costs alone keep out
    free, ungated neither: any mean that is not zero is an entry

Where the baseline is champion, its mean is zero and no look enters. So each is taken once more
with the newest network trained from scratch, which did not have to win the championship: "network
anyway", with the skill that its own test block gave it.

Then the same on the synthetic market, whose trades do foretell the price: there `served` has to
enter, or staying flat proves nothing. The seeds' last days begin on alternating days, so that the
learner has come to them with and without a record of two days.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_model.accounts.contracts import CONTRACT_FEES
from lstm_model.bot.configuration import DEFAULT_FEE_FRACTION, load_config
from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.commands.demo import _DAYS, _LSTM, _PAIRS
from lstm_model.learning.chain import Learning
from lstm_model.market.candles import Candles, Floats, Ints
from lstm_model.market.funding import expected_funding
from lstm_model.practice.perpetual import Perpetual, perpetuals
from lstm_model.practice.synthetic import MINUTE_MS, synthetic_market
from lstm_model.practice.tape_market import DAY_MS, Listing
from lstm_model.settings import Settings, parse_settings
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore
from lstm_model.trading.outlook import Frame, Outlook, Terms
from lstm_model.trading.sizing import CALIBRATING, NO_DATA, NO_MODEL, NO_SKILL
from lstm_model.training.maker import ModelMaker

FIRST_DAY_MS = 20_000 * DAY_MS  # 2024-10-04; fixed, so that every run sees the same markets
STUDIED_DAYS = 6  # chosen: with three, networks of proven skill were still being judged
NO_COSTS = {"slippage_fraction": 0.0, "half_spread_fraction": 0.0}
CLOSED = {NO_DATA, NO_MODEL, NO_SKILL, CALIBRATING}  # whatever the forecast says
ANYWAY = "network anyway, "
FEES = {"spot": DEFAULT_FEE_FRACTION, "futures": float(CONTRACT_FEES.taker)}  # of one side
# Name, whether it costs anything, other options.
LOOKS: tuple[tuple[str, bool, dict[str, Any]], ...] = (
    ("served", True, {}),
    ("free", False, NO_COSTS),
    ("ungated", True, {"require_skill": False}),
    ("free, ungated", False, {**NO_COSTS, "require_skill": False}),
)


class Look(NamedTuple):
    """What was decided over all pairs: entries by side, candles by reason and kind of champion."""

    longs: int
    shorts: int
    reasons: Counter[str]
    champions: Counter[str]

    @classmethod
    def of(cls, outlooks: Sequence[Outlook], learning: Learning) -> Look:
        side = np.concatenate([outlook.decision.side for outlook in outlooks])
        reasons = Counter(str(code) for o in outlooks for code in o.decision.reason)
        versions = Counter(version for o in outlooks for version in o.version)
        champions: Counter[str] = Counter()
        for version, count in versions.items():
            champions[learning.card(version).kind if version else "none"] += count
        return cls(int((side > 0).sum()), int((side < 0).sum()), reasons, champions)

    @property
    def entries(self) -> int:
        return self.longs + self.shorts

    def text(self) -> str:
        return f"{self.longs:>6,} long {self.shorts:>6,} short ({_counts(self.reasons)})"


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.most_common())


def candles_of(listing: Listing, pair: str, begin_ms: int, end_ms: int) -> Candles:
    """1m candles that open in `[begin_ms, end_ms)`, with the numbers an exchange would send."""
    found = listing.candles("1m", end_ms - 1, begin_ms, limit=(end_ms - begin_ms) // MINUTE_MS)
    tick = 10.0**listing.instrument.price_decimals
    return Candles(
        pair, MINUTE_MS, found.open_ms,
        found.open / tick, found.high / tick, found.low / tick, found.close / tick,
        found.volume / 10.0**listing.instrument.amount_decimals,
    )  # fmt: skip


@dataclass(frozen=True)
class World:
    """One seed's market.

    Attributes
    ----------
    known : pair -> its candles of all days
    paid : pair -> when its funding was paid (ms), and the rates; empty on spot
    """

    known: dict[str, Candles]
    paid: dict[str, tuple[Ints, Floats]]
    fee: float

    @classmethod
    def of(cls, seed: int, mode: str, learnable: bool) -> World:
        begin_ms = FIRST_DAY_MS + seed * DAY_MS
        end_ms = begin_ms + _DAYS * DAY_MS
        made = synthetic_market(seed, _DAYS, start_ms=begin_ms, learnable=learnable)
        market = perpetuals(made) if mode == "futures" else made
        known, paid = {}, {}
        for pair in _PAIRS[mode]:
            listing = market.listing(pair.partition(":")[0].replace("/", ""))
            known[pair] = candles_of(listing, pair, begin_ms, end_ms)
            if isinstance(listing, Perpetual):
                fundings = listing.fundings(begin_ms, end_ms)
                times = np.array([it.time_ms for it in fundings], np.int64)
                paid[pair] = times, np.array([it.rate for it in fundings])
        return cls(known, paid, FEES[mode])

    def terms(self, settings: Settings, costs: bool) -> Terms:
        """Costs are the fee and, on futures, the expected funding."""
        span_ms = settings.horizon * MINUTE_MS

        def funding(pair: str, date_ms: Ints) -> Floats:
            return expected_funding(*self.paid[pair], date_ms + MINUTE_MS, span_ms)

        fee = self.fee if costs else 0.0
        return Terms(settings, fee, True, funding=funding if self.paid and costs else None)


def looks(world: World, settings: Settings, root: Path) -> dict[str, Look]:
    """Decide on the last days once per look; only the first has to train."""
    known, pairs = world.known, tuple(world.known)
    end_ms = int(known[pairs[0]].date_ms[-1]) + MINUTE_MS
    begin_ms = end_ms - STUDIED_DAYS * DAY_MS
    last = [known[pair].between(begin_ms, end_ms) for pair in pairs]
    found = {}
    for name, costs, options in LOOKS:
        ours = settings.model_copy(update=options)
        maker = ModelMaker(ours, "1m", pairs, ModelStore(root), known.get)
        terms, learning = world.terms(ours, costs), Learning(maker, StepStore(root))
        engine = WalkForwardEngine(learning, terms, begin_ms)
        found[name] = Look.of([engine.outlook(candles, 0) for candles in last], learning)
        anyway = [unjudged(candles, known[candles.pair], terms, learning) for candles in last]
        found[f"{ANYWAY}{name}"] = Look.of(anyway, learning)
    return found


def unjudged(candles: Candles, whole: Candles, terms: Terms, learning: Learning) -> Outlook:
    """As if no network had to beat the baseline: each serves from when it may until the next."""
    outlook = Outlook(candles.pair, candles.date_ms, terms)
    frame = Frame(whole, terms.settings)
    cards = [card for card in learning.maker.store.cards() if card.kind == "scratch"]
    for card in sorted(cards, key=lambda card: card.serves_from_ms):
        rows = np.flatnonzero(candles.date_ms >= card.serves_from_ms)
        outlook.fill(learning.model(card.version), frame, rows)
    return outlook


def study(mode: str, seeds: Sequence[int], learnable: bool, options: Mapping[str, Any]) -> None:
    """Print a line per seed and look, and in how many seeds there was no entry."""
    print(f"\n== {'synthetic, learnable' if learnable else 'random walk'}", flush=True)
    found = []
    for seed in seeds:
        started_s = time.monotonic()
        settings = parse_settings({**options, "seed": seed})
        with tempfile.TemporaryDirectory() as root:
            found.append(looks(World.of(seed, mode, learnable), settings, Path(root)))
        champions = _counts(found[-1]["served"].champions)
        print(f"seed {seed:>2} ({time.monotonic() - started_s:.0f} s; champion: {champions})")
        for name, look in found[-1].items():
            print(f"   {name:29} {look.text()}", flush=True)
    for name in found[0]:
        both = sum(of[name].entries == 0 for of in found)
        longs = sum(of[name].longs == 0 for of in found)
        shorts = sum(of[name].shorts == 0 for of in found)
        opened = sum(bool(of[name].reasons.keys() - CLOSED) for of in found)
        print(f"{name:29} no entry in {both} of {len(found)} (no long one in {longs}, no "
              f"short one in {shorts}); the gate was open at some time in {opened}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="of the random walk")
    parser.add_argument("--learnable", type=int, default=5, help="seeds of the synthetic market")
    parser.add_argument("--futures", action="store_true", help="USD-M futures instead of spot")
    parser.add_argument("--config", default="config.json")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)  # a graph per training is meant
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/data")
        config = load_config([chosen.config], {"user_data_dir": folder})
    options = {**config["lstm"], **_LSTM}
    mode = "futures" if chosen.futures else "spot"
    pairs = ", ".join(_PAIRS[mode])
    print(f"{pairs}; 1m; the last {STUDIED_DAYS} of {_DAYS} days; {options}; fee {FEES[mode]}")
    for learnable, seeds in ((False, chosen.seeds), (True, chosen.learnable)):
        if seeds:
            study(mode, range(1, seeds + 1), learnable, options)


if __name__ == "__main__":
    main()
