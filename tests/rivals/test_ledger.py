"""From orders to a wallet at market prices: cash, what is held, what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.rivals.ledger import Book, Deal, Terms, Window, book

DAY_MS, HOUR_MS, PAIR = 86_400_000, 3_600_000, "BTC/USDT"
WINDOW = Window(0, 3 * DAY_MS, HOUR_MS)
TERMS = Terms(1_000.0, 0.0, 0.01)
# Closes by the hour: 100 on the first day, 110 on the second, 90 on the third.
CLOSED_MS = np.arange(1, 73, dtype=np.int64) * HOUR_MS
PRICES = {PAIR: (CLOSED_MS, np.repeat([100.0, 110.0, 90.0], 24))}
Order = tuple[float, float, float]  # hour, price, amount, which is below zero where it was sold


def deal(
    *orders: Order, fee: float = 0.0, short: bool = False, profit: float | None = None
) -> Deal:
    """A trade as a backtest records it."""
    made = -sum(price * amount + fee * abs(price * amount) for _, price, amount in orders)
    record: dict[str, Any] = {
        "pair": PAIR, "open_timestamp": orders[0][0] * HOUR_MS, "is_short": short,
        "close_timestamp": orders[-1][0] * HOUR_MS, "open_rate": orders[0][1],
        "close_rate": orders[-1][1], "amount": abs(orders[0][2]), "stake_amount": 1.0,
        "profit_ratio": 0.0, "profit_abs": made if profit is None else profit,
        "fee_open": fee, "fee_close": fee,
        "orders": [
            {"order_filled_timestamp": hour * HOUR_MS, "safe_price": price, "amount": abs(amount),
             "ft_order_side": "buy" if amount > 0.0 else "sell"}
            for hour, price, amount in orders
        ],
    }  # fmt: skip
    return Deal.of(record)


def kept(*deals: Deal, **terms: float) -> Book:
    return book(deals, PRICES, WINDOW, TERMS._replace(**terms))


def test_an_open_position_counts_at_the_days_last_price() -> None:
    found = kept(deal((12, 100.0, 2.0), (60, 95.0, -2.0)))
    assert found.equity.tolist() == [1_000.0, 1_020.0, 990.0]
    np.testing.assert_allclose(found.days.returns, [0.0, 0.02, 990 / 1_020 - 1])
    assert found.days.entries.tolist() == [1.0, 0.0, 0.0]


def test_a_short_earns_what_the_price_falls() -> None:
    found = kept(deal((12, 100.0, -2.0), (60, 95.0, 2.0), short=True))
    assert found.equity.tolist() == [1_000.0, 980.0, 1_010.0]


def test_fees_and_slippage_are_off_each_order() -> None:
    found = kept(deal((12, 100.0, 2.0), (60, 95.0, -2.0), fee=0.001), slippage=0.0005)
    assert found.equity[0] == pytest.approx(1_000.0 - 200.0 * 0.0015)
    assert found.equity[-1] == pytest.approx(1_000.0 - 10.0 - 390.0 * 0.0015)
    assert found.results[0] == pytest.approx((-10.0 - 390.0 * 0.0015) / 1_000.0)


def test_what_freqtrade_reckons_beside_is_booked_at_the_end() -> None:
    """Funding of futures, and its rounding."""
    found = kept(deal((12, 100.0, 2.0), (60, 95.0, -2.0), profit=-12.5))
    assert found.equity.tolist() == [1_000.0, 1_020.0, 987.5]


def test_an_order_at_midnight_belongs_to_the_day_that_begins() -> None:
    found = kept(deal((24, 100.0, 2.0), (48, 110.0, -2.0)))
    assert found.days.entries.tolist() == [0.0, 1.0, 0.0]
    assert found.equity.tolist() == [1_000.0, 1_020.0, 1_020.0]


def test_exposure_is_weighted_by_time_at_entry_prices() -> None:
    added = deal((0, 100.0, 2.0), (12, 50.0, 2.0), (18, 100.0, -2.0), (24, 100.0, -2.0))
    # 200 for half a day, 300 for a quarter, half of it for another
    held = 0.5 * 200.0 + 0.25 * 300.0 + 0.25 * 150.0
    assert kept(added).days.exposure.tolist() == pytest.approx([held / 1_000.0, 0.0, 0.0])


def test_a_trade_inside_a_candle_lasts_for_the_candle() -> None:
    found = kept(deal((6, 100.0, 2.4), (6, 101.0, -2.4)))
    assert found.days.exposure[0] == pytest.approx(0.24 / 24)


def test_turnover_counts_additions_and_partial_exits() -> None:
    found = kept(deal((1, 100.0, 2.0), (2, 100.0, 2.0), (3, 100.0, -1.0), (4, 100.0, -3.0)))
    assert found.days.turnover.tolist() == pytest.approx([0.8, 0.0, 0.0])


def test_a_loss_is_beyond_the_promise_by_the_wallet_at_the_entry() -> None:
    lost = deal((1, 100.0, 5.0), (2, 80.0, -5.0))  # a tenth is gone
    at_promise = deal((3, 100.0, 0.9), (4, 90.0, -0.9))  # 9 of 900
    beyond = deal((5, 100.0, 1.0), (6, 90.0, -1.0))  # 10 of 891
    found = kept(beyond, lost, at_promise)
    assert found.results.tolist() == pytest.approx([-0.1, -0.01, -10.0 / 891.0])
    assert found.days.beyond.tolist() == [2.0, 0.0, 0.0]


def test_an_order_that_was_never_filled_is_none() -> None:
    record = {
        "pair": PAIR, "open_timestamp": 0, "close_timestamp": HOUR_MS, "open_rate": 1.0,
        "close_rate": 1.0, "amount": 1.0, "stake_amount": 1.0,
        "orders": [{"order_filled_timestamp": None, "safe_price": 1.0, "amount": 1.0,
                    "ft_order_side": "buy"}],
    }  # fmt: skip
    assert Deal.of(record).fills == ()


def test_without_trades_nothing_happens() -> None:
    found = kept()
    assert found.equity.tolist() == [1_000.0] * 3
    assert not found.days.exposure.any()
    assert len(found.results) == 0


@pytest.mark.parametrize(("start", "end", "days"), [
    (0.0, 3.0, [1.0, 2.0, 3.0]), (0.0, 2.01, [1.0, 2.01]), (0.4, 2.0, [1.0, 2.0]),
    (0.6, 2.0, [2.0]), (0.0, 0.2, [0.2]), (0.9, 1.1, [1.1]), (0.25, 1.75, [1.0, 1.75]),
])  # fmt: skip
def test_a_small_part_of_a_day_belongs_to_the_one_beside_it(
    start: float, end: float, days: list[float]
) -> None:
    window = Window(int(start * DAY_MS), int(end * DAY_MS), HOUR_MS)
    assert (window.ends() / DAY_MS).tolist() == pytest.approx(days)


ORDERS = st.lists(
    st.tuples(st.integers(0, 70), st.floats(50.0, 150.0), st.floats(0.01, 3.0)), min_size=1,
    max_size=5,
)  # fmt: skip


@given(st.lists(ORDERS, max_size=6), st.floats(0.0, 0.01))
def test_in_the_end_the_wallet_has_gained_the_profit_of_all_trades(
    entries: list[list[Order]], fee: float
) -> None:
    deals = []
    for orders in entries:
        added = sorted(orders)
        last = (71.0, 90.0, -sum(amount for *_, amount in added))
        deals.append(deal(*added, last, fee=fee))
    found = kept(*deals)
    profit = sum(each.facts.profit or 0.0 for each in deals)
    if profit > -999.0:
        assert found.equity[-1] == pytest.approx(1_000.0 + profit)
    assert np.all(found.days.exposure >= 0.0)
    assert found.days.turnover @ np.concatenate([[1_000.0], found.equity[:-1]]) == pytest.approx(
        sum(each.value for each in deals)
    )
