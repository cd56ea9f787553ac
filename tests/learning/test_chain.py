"""The whole way from candles to a judged model: it learns where there is something to learn."""

from pathlib import Path

import numpy as np
import pytest

from lstm_model.commands.models import card_verdict
from lstm_model.learning.schedule import Schedule
from lstm_model.market.candles import Candles
from lstm_model.model.model import Model
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import DAY_MS, Market
from lstm_model.settings import parse_settings
from lstm_model.store.models import ModelStore, StoredModel
from lstm_model.training.maker import ModelMaker

pytestmark = pytest.mark.slow

START_MS = 1_700_006_400_000  # a midnight, UTC
NOW_MS = START_MS + 16 * DAY_MS
SETTINGS = parse_settings(
    {"lookback": 32, "horizon": 10, "units": 24, "max_epochs": 4, "learning_rate": 0.002,
     "train_candles": 20_000, "retrain_candles": 1_440, "test_fraction": 0.25}
)  # fmt: skip


def candles_of(market: Market, pair: str) -> Candles:
    """Everything the market has traded so far, as the bot would have downloaded it."""
    listing = market.listing(pair.replace("/", ""))
    found = listing.candles("1m", NOW_MS, START_MS, NOW_MS, limit=30_000)
    instrument = listing.instrument
    tick, lot = 10.0**-instrument.price_decimals, 10.0**-instrument.amount_decimals
    prices = (
        np.asarray(column) * tick for column in (found.open, found.high, found.low, found.close)
    )
    return Candles(pair, 60_000, found.open_ms, *prices, np.asarray(found.volume) * lot)


def trained_on(market: Market, folder: Path) -> StoredModel:
    pairs = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]
    known = {pair: candles_of(market, pair) for pair in pairs}
    maker = ModelMaker(SETTINGS, "1m", pairs, ModelStore(folder), known.get)
    boundary_ms = Schedule.of(SETTINGS, "1m").last_boundary(NOW_MS)
    return maker.scratch(maker.material(boundary_ms)).stored


@pytest.mark.long
def test_a_learnable_market_is_learnt(tmp_path: Path) -> None:
    stored = trained_on(synthetic_market(seed=1, days=16, start_ms=START_MS), tmp_path)
    skill = stored.card.skill
    assert skill["r2_vs_zero"] > 0.01
    assert skill["r2_vs_zero_delayed"] > 0.01
    assert max(skill["p_value"], skill["p_value_delayed"]) < 0.05
    assert Model.of(stored, SETTINGS).is_skilled(SETTINGS)
    assert "proven at 5 %" in card_verdict(stored.card)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_walk_is_not_and_the_card_says_so(tmp_path: Path, seed: int) -> None:
    market = synthetic_market(seed=seed, days=16, start_ms=START_MS, learnable=False)
    stored = trained_on(market, tmp_path)
    assert stored.card.skill["r2_vs_zero"] < 0.005
    assert not Model.of(stored, SETTINGS).is_skilled(SETTINGS)
    assert "NOT proven" in card_verdict(stored.card)
