"""One trade's life is told from what is stored, in words and numbers, and nothing is made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lstm_model.replay.facts import ReplayFacts
from lstm_model.replay.life import middle, told
from lstm_model.replay.report import life_lines, render_html
from lstm_model.replay.trade_facts import TradeFacts, TradeLife

OPENED = 1_732_838_400_000  # 2024-11-29T00:00Z
MINUTE = 60_000
WRITTEN: dict[str, Any] = {
    "lstm_model": "959ad72639f075b7",
    "lstm_forecast": {
        "mean_bps": 40.0, "horizon_candles": 10, "candle": "2024-11-28T23:59:00+00:00"
    },
    "lstm_interval": {"low_bps": -120.0, "high_bps": 200.0, "level": 0.9},
    "lstm_stake": {
        "amount": 50.0, "bound": "Kelly", "text": "50: 0.25 of Kelly's 0.2 x the wallet = 50"
    },
    "lstm_stop": {"rate": 98.5, "distance": 0.015, "reach": 0.0149},
}  # fmt: skip
LONG = TradeFacts(
    "BTC/USDT", OPENED + 1_000, OPENED + 601_000, False, "lstm_long", "lstm_horizon", 100.0, 101.0,
    0.5, 50.0, 0.00798, 0.4, 0.001, 0.001,
)  # fmt: skip
LIFE = TradeLife(7, LONG, WRITTEN, 101.5, 99.0, 98.51)
FACTS = ReplayFacts(
    "recorded data", ("BTC/USDT",), "1m", OPENED - 60 * MINUTE, OPENED + 60 * MINUTE, "USDT",
    1_000.0, 1_000.4, 60.0, fee_fraction=0.001, slippage_fraction=0.0012, trades=[LONG], life=LIFE,
    prices={"BTC/USDT": [(OPENED, 100.0), (OPENED + 10 * MINUTE, 101.0)]},
)  # fmt: skip


def chapters(trade: TradeFacts = LONG, **changes: Any) -> dict[str, str]:
    life = replace(LIFE, trade=trade, **changes)
    return dict(told(replace(FACTS, trades=[trade], life=life)))


def without(*keys: str, **others: Any) -> dict[str, Any]:
    return {name: value for name, value in {**WRITTEN, **others}.items() if name not in keys}


def test_a_life_is_told_from_the_forecast_to_the_profit() -> None:
    assert told(FACTS) == [
        ("trade", "BTC/USDT, long, number 7: the only one closed"),
        ("forecast", "by model 959ad72639f075b7, of the candle of 23:59: +40.0 bps in the next 10 "
         "candles, 90% between -120.0 and +200.0"),
        ("edge", "+8.1 bps, after 32.0 for the round trip (fees 20.0, expected slippage and "
         "spread 12.0)"),
        ("entry", "2024-11-29 00:00:01 UTC at 100.00 (lstm_long)"),
        ("stake", "50.00 USDT, bounded by Kelly: 0.25 of Kelly's 0.2 x the wallet = 50"),
        ("stop", "98.500, 150 bps from the entry, by the forecast: 149 bps from the candle's "
         "close, which few horizons are expected to reach"),
        ("price", "as the bot saw it: lowest 99.000 (-100 bps), highest 101.50 (+150 bps)"),
        ("outcome", "at 00:10, when the forecast was due, +99.5 bps from the candle's close: "
         "inside the interval"),
        ("exit", "2024-11-29 00:10:01 UTC at 101.00, after 10 min: lstm_horizon, the horizon is "
         "over, and the newest candle would not enter again"),
        ("profit", "+0.40 USDT (+0.80%): the price's +100.0 bps, less 20.0 of fees"),
    ]  # fmt: skip


def test_a_loss_is_a_loss_and_a_short_is_counted_from_its_side() -> None:
    short = replace(
        LONG, is_short=True, exit_reason="trailing_stop_loss", profit_ratio=-0.012, profit=-0.6
    )
    written = without(lstm_forecast={**WRITTEN["lstm_forecast"], "mean_bps": -40.0})
    made = chapters(short, written=written)
    assert made["edge"].startswith("+7.9 bps")  # what falls by 40 log bps falls by 39.9
    assert made["exit"].endswith("trailing_stop_loss, the price came to the stop")
    assert made["profit"] == "-0.60 USDT (-1.20%): the price's -100.0 bps, less 20.0 of fees"
    assert made["price"].endswith("lowest 99.000 (+100 bps), highest 101.50 (-150 bps)")


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ({"rate": 95.0, "distance": 0.05}, "the strategy's stoploss: there was no stop by the"),
        ({"rate": 95.0, "distance": 0.05, "reach": 0.05, "is_hard": True},
         "the strategy's stoploss: the forecast's would be farther away"),
        ({"rate": 95.0, "distance": 0.05, "reach": 0.05, "forecasts": 94.9},
         "the strategy's stoploss: the forecast's would be farther away"),
    ],
)  # fmt: skip
def test_a_stop_says_where_it_came_from(stop: dict[str, Any], text: str) -> None:
    made = chapters(written=without(lstm_stop=stop), stop=95.0)
    assert made["stop"].startswith(f"95.000, 500 bps from the entry, {text}")
    assert "at the end" not in made["stop"]


def test_a_stop_that_moved_says_where_it_stood_at_last() -> None:
    assert chapters(stop=99.7)["stop"].endswith("; at the end it stood at 99.700")


def test_what_a_bound_says_is_not_said_twice() -> None:
    free = {"amount": 50.0, "bound": "what is free", "text": "50: what is free"}
    assert chapters(written=without(lstm_stake=free))["stake"] == "50.00 USDT: what is free"


def test_an_outcome_outside_the_interval_is_called_so() -> None:
    prices = {"BTC/USDT": [(OPENED, 100.0), (OPENED + 10 * MINUTE, 98.0)]}
    made = dict(told(replace(FACTS, prices=prices)))
    assert made["outcome"].endswith("-202.0 bps from the candle's close: OUTSIDE the interval")


def test_what_is_not_known_is_not_told() -> None:
    bare = chapters(written={}, highest=None, lowest=None, stop=None)
    assert {*bare} == {"trade", "entry", "stake", "exit", "profit"}
    assert bare["stake"] == "50.00 USDT"
    early = dict(told(replace(FACTS, prices={"BTC/USDT": [(OPENED, 100.0)]})))
    assert "outcome" not in early  # the window ended before


def lives(*ratios: float | None) -> list[TradeLife]:
    trades = [
        replace(LONG, profit_ratio=ratio, close_ms=None if ratio is None else LONG.close_ms)
        for ratio in ratios
    ]
    return [replace(LIFE, number=number, trade=each) for number, each in enumerate(trades, 1)]


@pytest.mark.parametrize(
    ("ratios", "number"),
    [((), None), ((None,), None), ((0.1,), 1), ((0.1, -0.1), 2), ((0.3, None, -0.1, 0.0), 4),
     ((0.0, 0.0, 0.0), 2)],
)  # fmt: skip
def test_the_trade_in_the_middle_is_chosen(
    ratios: tuple[float | None, ...], number: int | None
) -> None:
    found = middle(lives(*ratios))
    assert (found.number if found else None) == number


def test_the_page_and_the_terminal_tell_the_same_life() -> None:
    page = render_html(FACTS)
    assert "<h2>One trade's life</h2>" in page
    assert "bounded by Kelly: 0.25 of Kelly&#39;s 0.2 x the wallet = 50" in page
    assert "0.25 of Kelly's 0.2 x the wallet = 50" in "\n".join(life_lines(FACTS))
    without_any = replace(FACTS, trades=[], life=None)
    assert "One trade's life" not in render_html(without_any)
    assert life_lines(without_any) == ["No trade was closed whose life could be told."]
