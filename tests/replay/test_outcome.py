"""What a reader of a replay must know first."""

from __future__ import annotations

from lstm_model.practice.scenario import Scenario
from lstm_model.practice.tape_market import Market
from lstm_model.replay.outcome import detail_notes


def scenario(detail: str, *detailed: str) -> Scenario:
    pairs = ("BTC/USDT", "ETH/USDT")
    return Scenario(Market({}), pairs, "5m", 0, 300_000, {}, detail, detailed)


def test_pairs_without_finer_candles_are_named() -> None:
    assert list(detail_notes(scenario("1m", "BTC/USDT"))) == [
        "Inside a candle: the 1m candles of BTC/USDT",
        "No 1m candles over the window: ETH/USDT; bot and backtest have the 5m candles alone there",
    ]


def test_nothing_is_said_where_nothing_is_lacking() -> None:
    assert list(detail_notes(scenario(""))) == []
    (line,) = detail_notes(scenario("1m", "BTC/USDT", "ETH/USDT"))
    assert line == "Inside a candle: the 1m candles of BTC/USDT, ETH/USDT"
