"""A stop comes before the liquidation, and a stake is by what can be lost; long and short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from freqtrade.enums import ExitType
from freqtrade.exceptions import InvalidOrderException
from freqtrade.persistence import LocalTrade, disable_database_use, enable_database_use
from hypothesis import given
from hypothesis import strategies as st
from test_theirs import (
    CLOSE,
    COSTS,
    NOW,
    PAIR,
    Provider,
    foretell,
    load,
    staked,
    stoploss,
    trade_of,
)

from lstm_model.bot import insides
from lstm_model.risk.entry import Entry
from lstm_model.trading.stop import before_liquidation, most_before_liquidation

FAR = "\n    stoploss = -0.99\n"
LONG = FAR + "    can_short = False\n"
THEIR_STOP = (
    FAR
    + """    use_custom_stoploss = True
    def custom_stoploss(self, **k):
        return -0.02
"""
)
KEPT = 0.01
BRACKETS = [
    {"minNotional": 0.0, "maintenanceMarginRate": KEPT, "maintAmt": 0.0},
    {"minNotional": 5_000.0, "maintenanceMarginRate": 0.04, "maintAmt": 150.0},
]
LEVERAGES = st.integers(1, 20)
SIDES = st.sampled_from([1, -1])


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    disable_database_use("5m")
    yield
    enable_database_use()


@pytest.fixture(autouse=True)
def trades() -> None:
    LocalTrade.reset_trades()


@pytest.fixture(scope="module")
def binance() -> Iterator[Any]:
    """freqtrade's own exchange, which has asked nobody, with brackets of ours."""
    exchange = insides.open_exchange({
        "exchange": {"name": "binance"}, "dry_run": True, "runmode": "backtest",
        "stake_currency": "USDT", "trading_mode": "futures", "margin_mode": "isolated",
        "candle_type_def": "futures",
    })  # fmt: skip
    exchange._leverage_tiers = {PAIR: BRACKETS}
    yield exchange
    exchange.close()


def liquidation_of(
    exchange: Any, leverage: float, side: int, stake: float, rate: float = CLOSE
) -> float:
    """freqtrade's own price of it, with its buffer."""
    found = exchange.get_liquidation_price(
        pair=PAIR, open_rate=rate, is_short=side < 0, amount=stake * leverage / rate,
        stake_amount=stake, leverage=leverage, wallet_balance=stake,
    )  # fmt: skip
    return float(found)


@given(leverage=LEVERAGES, side=SIDES, stake=st.floats(10.0, 100_000.0))
def test_the_bound_before_the_entry_is_inside_freqtrades_own_liquidation_price(
    binance: Any, leverage: int, side: int, stake: float
) -> None:
    kept = insides.maintenance_rate(binance, PAIR, stake * leverage)
    assert kept == (KEPT if stake * leverage < 5_000.0 else 0.04)
    most = most_before_liquidation(leverage, kept, binance.liquidation_buffer)
    liquidation = liquidation_of(binance, leverage, side, stake)
    assert 0.0 < most < side * (CLOSE - liquidation) / CLOSE


@given(leverage=LEVERAGES, side=SIDES, rate=st.floats(1e-6, 1e6))
def test_the_stop_of_an_open_position_is_inside_freqtrades_liquidation_price(
    binance: Any, leverage: int, side: int, rate: float
) -> None:
    liquidation = liquidation_of(binance, leverage, side, 100.0, rate)
    stop = before_liquidation(rate, liquidation, side)
    assert stop is not None
    assert side * (rate - liquidation) > side * (rate - stop) > 0.0


def test_what_is_not_known_is_assumed_to_be_dear_and_no_margin_leaves_no_room(binance: Any) -> None:
    assert insides.maintenance_rate(binance, "NEW/USDT:USDT", 1.0) is None
    half = most_before_liquidation(10.0, None, 0.05)
    assert half == pytest.approx((0.1 - 0.05) / 1.05 * 0.95 * 0.95)
    assert most_before_liquidation(20.0, 0.06, 0.05) == 0.0
    for price in (None, 0.0, 101.0, 100.0):
        assert before_liquidation(100.0, price, 1) is None


def leveraged(folder: Path, body: str, kept: float | None = KEPT, **options: Any) -> Any:
    """A strategy on an exchange of such brackets."""

    def brackets(pair: str, notional: float) -> tuple[float, float]:
        if kept is None:
            raise InvalidOrderException("Maintenance margin rate is unavailable")
        return kept, 0.0

    strategy = load(folder, body, **options)
    known = vars(Provider._exchange) | {"get_maintenance_ratio_and_amt": brackets}
    strategy.dp._exchange = SimpleNamespace(**known)
    return strategy


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("kept", [KEPT, None])
def test_a_stake_is_by_what_is_lost_before_liquidation_where_the_stop_is_beyond_it(
    tmp_path: Path, side: str, kept: float | None
) -> None:
    strategy = leveraged(tmp_path, FAR, kept)
    most = most_before_liquidation(10.0, kept, 0.05)
    assert most < 0.099
    stake = staked(strategy, leverage=10.0, side=side)
    assert stake == pytest.approx(10.0 / (most + COSTS) / 10.0)


def test_a_near_stop_and_spot_are_as_they_were(tmp_path: Path) -> None:
    near = leveraged(tmp_path, "\n    stoploss = -0.2\n", None)
    assert not near.use_custom_stoploss
    assert staked(near, leverage=10.0) == pytest.approx(10.0 / (0.02 + COSTS) / 10.0)
    spot = leveraged(tmp_path, LONG, None, trading_mode="spot", margin_mode=None)
    assert not spot.use_custom_stoploss
    assert staked(spot) == pytest.approx(10.0 / (0.99 + COSTS))


def outcome(strategy: Any, trade: LocalTrade, rates: list[float]) -> ExitType:
    """How freqtrade ends a trade whose price goes this way."""
    for rate in rates:
        profit = trade.calc_profit_ratio(rate)
        found = strategy.ft_stoploss_reached(rate, trade, NOW, profit, 0.0).exit_type
        if found != ExitType.NONE:
            return found
    return ExitType.NONE


@pytest.mark.parametrize("body", [FAR, THEIR_STOP.replace("-0.02", "-0.95")])
@pytest.mark.parametrize("leverage", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("options", [{}, {"stop": "forecast"}])
def test_freqtrade_stops_a_trade_and_does_not_liquidate_it(
    tmp_path: Path, binance: Any, body: str, leverage: float, side: int, options: dict[str, Any]
) -> None:
    strategy = leveraged(tmp_path, body, lstm=options)
    liquidation = liquidation_of(binance, leverage, side, 50.0)
    facts = {"leverage": leverage, "amount": 0.5 * leverage, "liquidation_price": liquidation}
    trade = trade_of(side < 0, **facts)
    plain = load(tmp_path, body, mixin=False)
    way = [CLOSE + (liquidation - CLOSE) * share for share in (0.0, 0.5, 0.9, 0.97, 1.0)]
    assert outcome(strategy, trade, way[:3]) == ExitType.NONE
    farthest = before_liquidation(CLOSE, liquidation, side)
    assert trade.stop_loss == pytest.approx(farthest, abs=0.011)  # a tick
    assert outcome(strategy, trade, way[3:4]) == ExitType.TRAILING_STOP_LOSS
    if leverage > 1.0:  # what it would be without
        assert outcome(plain, trade_of(side < 0, **facts), way) == ExitType.LIQUIDATION


@pytest.mark.parametrize("side", [1, -1])
def test_a_stop_of_theirs_that_is_tighter_stands(tmp_path: Path, side: int) -> None:
    strategy = leveraged(tmp_path, THEIR_STOP)
    facts = {"leverage": 2.0, "amount": 1.0, "liquidation_price": CLOSE * (1 - side * 0.45)}
    trade = trade_of(side < 0, **facts)
    stoploss(strategy, trade)
    assert trade.stop_loss == pytest.approx(CLOSE * (1 - side * 0.01), rel=1e-4)


@pytest.mark.parametrize("side", [1, -1])
def test_the_forecasts_stop_is_never_planned_beyond_liquidation(tmp_path: Path, side: int) -> None:
    strategy = leveraged(tmp_path, FAR, lstm={"stop": "forecast", "hold_candles": 12})
    foretell(strategy, lowest=-0.5, highest=0.5)
    entry = Entry(PAIR, "mine", side, CLOSE, 10.0, 330.0, 900.0, 5.0)
    plan = strategy._lstm_stops.planned(entry)
    assert plan.rate == pytest.approx(
        CLOSE * (1 - side * most_before_liquidation(10.0, KEPT, 0.05))
    )
    assert plan.is_hard
