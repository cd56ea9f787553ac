"""A trade reads the same, whoever tells of it."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from freqtrade.data.btanalysis import trade_list_to_dataframe
from freqtrade.persistence.trade_model import LocalTrade

from lstm_model.errors import DataError
from lstm_model.replay.trade_facts import TradeFacts

OPENED = datetime(2024, 5, 12, 10, 5, tzinfo=UTC)
OPENED_MS = 1_715_508_300_000


def freqtrade_trade(*, closed_at: float | None = None, is_short: bool = False) -> LocalTrade:
    trade = LocalTrade(
        pair="BTC/USDT", stake_amount=100.0, amount=2.0, amount_requested=2.0, open_rate=50.0,
        open_date=OPENED, fee_open=0.001, fee_close=0.002, exchange="binance", is_short=is_short,
        leverage=1.0, enter_tag="edge", is_open=True,
    )  # fmt: skip
    trade.recalc_open_trade_value()
    if closed_at is not None:
        trade.close_date = OPENED + timedelta(minutes=30)
        trade.exit_reason = "stop_loss"
        made = trade.calculate_profit(closed_at)
        trade.close_rate, trade.is_open = closed_at, False
        trade.close_profit, trade.close_profit_abs = made.profit_ratio, made.profit_abs
    return trade


def record(**changes: Any) -> dict[str, Any]:
    return freqtrade_trade(closed_at=45.0).to_json() | changes


def test_a_closed_trade_of_the_bot_is_read_whole() -> None:
    made = TradeFacts.of(freqtrade_trade(closed_at=45.0).to_json())
    paid, got = 100.0 * 1.001, 90.0 * 0.998
    assert made == TradeFacts(
        pair="BTC/USDT", open_ms=OPENED_MS, close_ms=OPENED_MS + 1_800_000, is_short=False,
        enter_tag="edge", exit_reason="stop_loss", open_rate=50.0, close_rate=45.0, amount=2.0,
        stake=100.0, profit_ratio=round(got / paid - 1.0, 8), profit=pytest.approx(got - paid),
        fee_open=0.001, fee_close=0.002, leverage=1.0, orders=0,
    )  # fmt: skip
    assert not made.is_open


def test_funding_and_the_orders_that_were_filled_are_read() -> None:
    filled = {"order_filled_timestamp": OPENED_MS, "filled": 2.0}
    waiting = {"order_filled_timestamp": None, "filled": 0.0}
    made = TradeFacts.of(record(funding_fees=-0.25, orders=[filled, filled, waiting]))
    assert (made.funding, made.orders) == (-0.25, 2)


def test_a_backtest_tells_of_the_same_trade() -> None:
    trade = freqtrade_trade(closed_at=55.0, is_short=True)
    (told,) = trade_list_to_dataframe([trade]).to_dict(orient="records")
    assert TradeFacts.of(told) == TradeFacts.of(trade.to_json())
    assert TradeFacts.of(told).side == "short"


def test_an_open_trade_among_closed_ones_is_open_in_a_backtest_too() -> None:
    # pandas turns the missing time of the one into NaN, and the times of all into floats.
    trades = [freqtrade_trade(closed_at=45.0), freqtrade_trade()]
    closed, still = (
        TradeFacts.of(told) for told in trade_list_to_dataframe(trades).to_dict(orient="records")
    )
    assert (closed.is_open, still.is_open) == (False, True)
    assert (still.close_ms, still.close_rate, still.profit_ratio) == (None, None, None)
    assert still.exit_reason == ""
    assert closed.close_ms == OPENED_MS + 1_800_000


def test_numbers_are_plain_ones() -> None:
    made = TradeFacts.of(
        record(open_timestamp=np.int64(5), open_rate=np.float64(50.0), is_short=np.bool_(True))
    )
    assert (type(made.open_ms), type(made.open_rate), type(made.is_short)) == (int, float, bool)


def test_what_is_no_finite_number_is_unknown() -> None:
    made = TradeFacts.of(record(profit_ratio=math.nan, profit_abs=math.inf, enter_tag=math.nan))
    assert (made.profit_ratio, made.profit, made.enter_tag) == (None, None, "")


def test_a_trade_that_is_said_to_be_open_has_no_end() -> None:
    assert TradeFacts.of(record(is_open=True)).close_ms is None


@pytest.mark.parametrize("field", ["pair", "open_timestamp", "open_rate", "amount", "stake_amount"])
def test_a_missing_field_is_named(field: str) -> None:
    told = record()
    del told[field]
    with pytest.raises(DataError, match=f"has no {field},"):
        TradeFacts.of(told)


def test_a_field_of_another_kind_is_named() -> None:
    with pytest.raises(DataError, match="stake_amount of a trade must be a number, it is 'much'"):
        TradeFacts.of(record(stake_amount="much"))


def test_facts_compare_by_value() -> None:
    made = TradeFacts.of(record())
    assert made == TradeFacts.of(record())
    assert made != replace(made, profit_ratio=None)
