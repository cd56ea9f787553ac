"""What a reader of a replay must know first."""

from __future__ import annotations

from pathlib import Path

from lstm_model.practice.scenario import Scenario
from lstm_model.practice.tape_market import Market
from lstm_model.replay.outcome import _warnings, detail_notes


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


def test_that_a_websocket_of_candles_is_renewed_is_no_incident(tmp_path: Path) -> None:
    """freqtrade does it once a day, and goes on by REST where its line has ended before."""
    log = tmp_path / "bot.log"
    line = "2026-11-29 00:02:01,000 - freqtrade.exchange.{} - ERROR - {} for BTC/USDT, 1m,\n"
    log.write_text(
        line.format("exchange_ws", "Exception in _unwatch_ohlcv") + line.format("exchange", "None")
    )
    assert [moment.text for moment in _warnings(log)] == ["None for BTC/USDT, 1m,"]
