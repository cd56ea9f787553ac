"""The invented market: what can be learned from it, and that nothing can from its random walk."""

import numpy as np
import pytest

from lstm_model.errors import ConfigError
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import DAY_MS, FUTURE_DAYS, Market

START_MS = 1_700_006_400_000  # a midnight, UTC
DAYS = 12
LAGS = 30


def whole_market(learnable: bool, seed: int = 3, days: int = DAYS) -> Market:
    end_ms = START_MS + (days + FUTURE_DAYS) * DAY_MS
    return synthetic_market(
        seed, days, start_ms=START_MS, learnable=learnable, now_ms=lambda: end_ms
    )


@pytest.fixture(scope="module")
def synthetic() -> Market:
    return whole_market(learnable=True)


@pytest.fixture(scope="module")
def random_walk() -> Market:
    return whole_market(learnable=False)


def all_candles(market: Market, timeframe: str = "1m"):
    return [
        listing.candles(timeframe, market.now_ms(), limit=10**6)
        for listing in market.listings.values()
    ]


def log_returns(market: Market, timeframe: str = "1m") -> list[np.ndarray]:
    return [np.diff(np.log(candles.close)) for candles in all_candles(market, timeframe)]


def out_of_sample_r2(market: Market, timeframe: str, horizon: int, delay: int) -> float:
    """R2 of ridge on the last returns, pooled over pairs, trained on the first two thirds."""
    train, test = [], []
    for returns in log_returns(market, timeframe):
        scale = np.std(returns)
        windows = np.lib.stride_tricks.sliding_window_view(np.clip(returns / scale, -4, 4), LAGS)
        path = np.concatenate([[0.0], np.cumsum(returns / scale)])
        last = np.arange(LAGS, len(returns) - horizon - delay)
        rows = windows[last - LAGS], path[last + delay + horizon] - path[last + delay]
        cut = len(last) * 2 // 3
        train.append([part[: cut - horizon - delay] for part in rows])
        test.append([part[cut:] for part in rows])
    inputs, target = (np.concatenate(parts) for parts in zip(*train, strict=True))
    weights = np.linalg.solve(inputs.T @ inputs + 500.0 * np.eye(LAGS), inputs.T @ target)
    inputs, target = (np.concatenate(parts) for parts in zip(*test, strict=True))
    return 1.0 - float(np.sum((target - inputs @ weights) ** 2) / np.sum(target**2))


@pytest.mark.parametrize(("timeframe", "horizon"), [("1m", 5), ("1m", 12), ("5m", 2)])
def test_recent_returns_forecast_the_synthetic_market_even_a_candle_late(
    synthetic: Market, timeframe: str, horizon: int
) -> None:
    assert 0.015 < out_of_sample_r2(synthetic, timeframe, horizon, delay=0) < 0.15
    assert 0.01 < out_of_sample_r2(synthetic, timeframe, horizon, delay=1) < 0.15


@pytest.mark.parametrize(("timeframe", "horizon"), [("1m", 5), ("1m", 12), ("5m", 2)])
def test_recent_returns_forecast_nothing_on_the_random_walk(
    random_walk: Market, timeframe: str, horizon: int
) -> None:
    assert out_of_sample_r2(random_walk, timeframe, horizon, delay=0) < 0.002


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("learnable", "least", "most"), [(True, 0.08, 0.5), (False, -0.015, 0.015)]
)
def test_taker_sides_forecast_the_next_ten_minutes_only_where_they_should(
    learnable: bool, least: float, most: float
) -> None:
    correlations = []
    for candles in all_candles(whole_market(learnable, seed=5)):
        imbalance = 2.0 * candles.taker_base / np.maximum(candles.volume, 1) - 1.0
        later = np.log(candles.close[11:] / candles.close[1:-10])
        correlations.append(np.corrcoef(imbalance[1:-10], later)[0, 1])
    assert least < np.mean(correlations) < most


@pytest.mark.lengthy
@pytest.mark.parametrize("learnable", [True, False])
def test_volatility_is_realistic_clusters_and_has_fat_tails(learnable: bool) -> None:
    for returns in log_returns(whole_market(learnable)):
        assert 12e-4 < np.std(returns) < 35e-4
        assert np.mean(returns**4) / np.mean(returns**2) ** 2 > 5.0
        size = np.abs(returns)
        assert np.corrcoef(size[:-10], size[10:])[0, 1] > 0.05


def test_trades_bounce_between_bid_and_ask_in_the_synthetic_market_alone(
    synthetic: Market, random_walk: Market
) -> None:
    for market, bounces in ((synthetic, True), (random_walk, False)):
        tape = market.listings["XRPUSDT"].trades
        change, buys = np.diff(np.log(tape.price)), tape.taker_buy
        bounce = change[buys[1:] & ~buys[:-1]].mean() - change[~buys[1:] & buys[:-1]].mean()
        assert bool(bounce > 4e-4) is bounces
        assert bounces or abs(bounce) < 0.5e-4


def test_volume_rises_with_one_sided_flow(synthetic: Market) -> None:
    for candles in all_candles(synthetic, "15m"):
        one_sided = np.abs(2.0 * candles.taker_base / np.maximum(candles.volume, 1) - 1.0)
        assert np.corrcoef(one_sided, candles.trades)[0, 1] > 0.2


@pytest.mark.parametrize("learnable", [True, False])
def test_the_same_seed_gives_the_same_market_and_another_seed_another(learnable: bool) -> None:
    first, again, other = (whole_market(learnable, seed, days=1) for seed in (3, 3, 4))
    for symbol, listing in first.listings.items():
        for name in ("time_ms", "price", "amount", "taker_buy"):
            column = getattr(listing.trades, name)
            assert np.array_equal(column, getattr(again.listings[symbol].trades, name))
            assert not np.array_equal(column, getattr(other.listings[symbol].trades, name))


def test_a_restart_on_the_same_day_gives_the_same_market() -> None:
    morning, evening = (
        synthetic_market(1, 2, now_ms=lambda hour=hour: START_MS + hour * 3_600_000)
        for hour in (1, 23)
    )
    for symbol, listing in morning.listings.items():
        tape, later = listing.trades, evening.listings[symbol].trades
        assert np.array_equal(tape.price, later.price)
        assert np.array_equal(tape.time_ms, later.time_ms)
        assert tape.time_ms[0] >= START_MS - 2 * DAY_MS
        assert tape.time_ms[-1] > START_MS + 1.9 * DAY_MS


def test_another_day_moves_the_market_in_time_only() -> None:
    """What is tried today goes as it went yesterday."""
    today, later = (
        synthetic_market(1, 1, now_ms=lambda day=day: START_MS + day * DAY_MS) for day in (0, 9)
    )
    for symbol, listing in today.listings.items():
        tape, moved = listing.trades, later.listings[symbol].trades
        assert np.array_equal(tape.time_ms + 9 * DAY_MS, moved.time_ms)
        assert np.array_equal(tape.price, moved.price)
        assert np.array_equal(tape.amount, moved.amount)


@pytest.mark.parametrize(("seed", "days"), [(1, 0), (1, 731), (-1, 30)])
def test_impossible_parameters_are_refused(seed: int, days: int) -> None:
    with pytest.raises(ConfigError, match=r"days must be 1\.\.730"):
        synthetic_market(seed, days)
