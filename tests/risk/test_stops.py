"""The forecast's stop: set for as long as trades last, standing, the same live and in backtests."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from freqtrade.enums import RunMode
from freqtrade.persistence import (
    LocalTrade,
    Trade,
    disable_database_use,
    enable_database_use,
    init_db,
)
from freqtrade.persistence.custom_data import _CustomData
from freqtrade.resolvers import StrategyResolver
from test_theirs import (
    CLOSE,
    COSTS,
    FULL,
    HEAD,
    NOW,
    PAIR,
    Provider,
    Wallets,
    foretell,
    go_on,
    load,
    staked,
    stoploss,
)
from test_theirs import trade_of as trade

from lstm_model.risk.entry import Entry
from lstm_model.risk.stops import Plan
from lstm_model.trading.experience import ENOUGH
from lstm_model.trading.stake import Stake

HOUR = timedelta(hours=1)
FORECAST = {"stop": "forecast"}
FAR = {f"lstm_lowest_{span}": reach for span, reach in ((4, -0.04), (16, -0.08), (64, -0.16))}


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    disable_database_use("5m")
    yield
    enable_database_use()


@pytest.fixture(autouse=True)
def trades() -> None:
    LocalTrade.reset_trades()


def told(tmp_path: Path, body: str = "\n    stoploss = -0.5\n", **options: Any) -> Any:
    strategy = load(tmp_path, body, lstm={**FORECAST, **options})
    foretell(strategy)
    strategy.dp.frame = strategy.dp.frame.assign(**FAR)
    return strategy


def planned(strategy: Any) -> float | None:
    entry = Entry(PAIR, "mine", 1, CLOSE, 1.0, 330.0, 900.0, 5.0)
    plan = strategy._lstm_stops.planned(entry)
    return None if plan is None else math.log(plan.rate / CLOSE)


def close(number: int, hours: float, rate: float = CLOSE) -> None:
    """A trade that was closed in the candle before the newest."""
    ended = NOW - timedelta(minutes=10)
    done = trade(id=number, open_date=ended - hours * HOUR, close_date=ended, is_open=False)
    done.close_rate = rate
    LocalTrade.bt_trades.append(done)


@pytest.mark.parametrize(
    ("candles", "reach"), [(12, -0.02), (48, -0.04), (192, -0.08), (768, -0.16), (3, -0.01)]
)
def test_a_stop_is_set_for_the_time_that_trades_last(
    tmp_path: Path, candles: int, reach: float
) -> None:
    assert planned(told(tmp_path, hold_candles=candles)) == pytest.approx(reach)


def test_the_time_is_the_median_of_the_strategys_own_closed_trades(tmp_path: Path) -> None:
    strategy = told(tmp_path)
    for number in range(ENOUGH - 1):
        close(number, 4.0)
        assert planned(strategy) is None  # their own stop is the only one until then
    assert staked(strategy) == pytest.approx(10.0 / (0.5 + COSTS))
    close(ENOUGH, 100.0)
    assert planned(strategy) == pytest.approx(-0.04)  # four hours


def test_what_is_closed_in_this_candle_is_not_known_yet(tmp_path: Path) -> None:
    """freqtrade's backtest closes one pair's trades in a candle before it opens another's."""
    strategy = told(tmp_path)
    for number in range(ENOUGH):
        close(number, 4.0)
    for done in LocalTrade.bt_trades:
        done.close_date = NOW
    assert planned(strategy) is None
    go_on(strategy)
    assert planned(strategy) == pytest.approx(-0.04, rel=0.03)


def test_a_backtest_that_begins_anew_knows_nothing_of_the_one_before(tmp_path: Path) -> None:
    """Hyperopt runs one strategy object many times, with trades of the same numbers."""
    strategy = told(tmp_path)
    for number in range(ENOUGH):
        close(number, 4.0)
    assert planned(strategy) is not None
    LocalTrade.reset_trades()
    assert planned(strategy) is None


def test_a_trade_lasts_as_long_in_a_bot_as_in_a_backtest(tmp_path: Path) -> None:
    """A backtest closes a trade at the start of a candle, a bot somewhere in it."""
    strategy, plans = told(tmp_path), []
    for late in (timedelta(0), timedelta(minutes=4, seconds=30)):
        LocalTrade.reset_trades()
        for number in range(ENOUGH):
            close(number, 0.25)
            LocalTrade.bt_trades[-1].close_date += late
        plans.append(planned(strategy))
    assert plans[0] == plans[1] is not None


def test_a_stop_that_was_met_is_known_however_coarse_the_prices_are(tmp_path: Path) -> None:
    strategy, tick = told(tmp_path, hold_candles=12), 0.5
    strategy.dp.tick = tick
    for rate, met in ((98.0, True), (98.5, False)):  # rounded towards the price: 97.8 is 98.0
        done = trade(open_date=NOW, is_open=False)
        done.close_rate = rate
        strategy._lstm_stops._plans[done.id, done.open_date_utc] = _plan(97.8)
        assert strategy._lstm_stops._reached(done) is met


def test_stops_that_are_met_too_often_are_set_farther_and_else_nearer(tmp_path: Path) -> None:
    strategy = told(tmp_path, hold_candles=12)
    before = planned(strategy)
    for number in range(5):
        close(number, 1.0, rate=97.0)
        strategy._lstm_stops._plans[number, LocalTrade.bt_trades[-1].open_date_utc] = _plan(98.0)
    wider = planned(strategy)
    assert wider is not None
    assert before is not None
    assert wider < before
    for number in range(5, 40):
        close(number, 1.0, rate=103.0)
        strategy._lstm_stops._plans[number, LocalTrade.bt_trades[-1].open_date_utc] = _plan(98.0)
    nearer = planned(strategy)
    assert nearer is not None
    assert nearer > wider


def _plan(rate: float) -> Any:
    return Plan(rate, -math.log(rate / CLOSE))


def test_a_hard_stop_that_is_met_says_nothing_of_the_forecasts(tmp_path: Path) -> None:
    """Where `stoploss` is the tighter one; the forecast's would go ever farther from it."""
    strategy = told(tmp_path, "\n    stoploss = -0.01\n", hold_candles=12)
    for number in range(40):
        close(number, 1.0, rate=99.0)
        LocalTrade.bt_trades[-1].open_date = NOW
        assert strategy._lstm_stops.of(LocalTrade.bt_trades[-1]) is not None
    assert planned(strategy) == pytest.approx(math.log(0.99))
    assert strategy._lstm_stops._experience.factor == 1.0
    assert strategy._lstm_stops._experience.typical_ms is not None


def test_a_stop_stands_where_it_was_set_whatever_is_forecast_later(tmp_path: Path) -> None:
    strategy, held = told(tmp_path, hold_candles=12), trade()
    stoploss(strategy, held)
    first = held.stop_loss
    assert first == pytest.approx(CLOSE * math.exp(-0.02), abs=0.011)
    for closed, lowest in ((103.0, -0.001), (104.0, -0.5), (99.0, -0.0001)):
        go_on(strategy, lstm_close=closed, lstm_lowest=lowest)
        stoploss(strategy, held, closed)
        assert held.stop_loss == first


@pytest.mark.parametrize("short", [False, True])
def test_one_that_trails_follows_the_closes_at_the_distance_it_was_set_at(
    tmp_path: Path, short: bool
) -> None:
    side = -1 if short else 1
    strategy, held = told(tmp_path, hold_candles=12, stop_trails=True), trade(short)
    stoploss(strategy, held)
    for closed, best in ((102.0, 102.0), (104.0, 104.0), (101.0, 104.0)):
        price = CLOSE + side * (closed - CLOSE)
        go_on(strategy, lstm_close=price, lstm_lowest=-0.5, lstm_highest=0.5)
        stoploss(strategy, held, price)
        wanted = (CLOSE + side * (best - CLOSE)) * math.exp(-side * 0.02)
        assert held.stop_loss == pytest.approx(wanted, abs=0.021)


def test_after_a_restart_the_stop_is_the_one_that_was_written_down(tmp_path: Path) -> None:
    strategy, held = told(tmp_path, hold_candles=12), trade()
    expected = strategy._lstm_stops.of(held)
    go_on(strategy, lstm_close=120.0, lstm_lowest=-0.3)
    again = told(tmp_path, hold_candles=12)
    again.dp.frame = strategy.dp.frame
    assert again._lstm_stops.of(held) == expected  # of the candle that the entry knew
    again._lstm_stops._plans.clear()
    again.dp.frame = strategy.dp.frame.iloc[1:]  # which is no longer among the bot's candles
    assert again._lstm_stops.of(held) is None
    again._lstm_stops._plans.clear()
    again._lstm_stops._written = lambda _: {"rate": expected.rate, "reach": expected.reach}
    assert again._lstm_stops.of(held) == expected


def test_what_is_written_down_is_what_was_planned_at_whatever_price_the_order_is_filled(
    tmp_path: Path,
) -> None:
    """The hard stop follows the price of the fill, which the entry did not know."""
    strategy = told(tmp_path, "\n    stoploss = -0.015\n", hold_candles=12)
    entry = Entry(PAIR, "mine", 1, 1.01 * CLOSE, 1.0, 330.0, 900.0, 5.0)
    expected = strategy._lstm_stops.planned(entry)
    known = strategy._lstm_stakes.facts(entry, Stake(330.0, "", ""))["lstm_stop"]
    assert known["rate"] == pytest.approx(1.01 * CLOSE * 0.985)
    again = told(tmp_path, hold_candles=12)
    again._lstm_stops._written = lambda _: known
    assert again._lstm_stops.of(trade()) == expected


def test_a_trade_that_was_entered_without_a_stop_gets_none_by_a_restart(tmp_path: Path) -> None:
    strategy, held = told(tmp_path), trade()
    assert strategy._lstm_stops.of(held) is None  # how long trades last was not known
    for number in range(ENOUGH):
        close(number, 4.0)
    again = told(tmp_path)
    again._lstm_stops._written = lambda _: {"rate": 50.0, "distance": 0.5}
    go_on(again)
    assert planned(again) is not None
    assert again._lstm_stops.of(held) is None


def test_an_order_that_is_filled_candles_later_has_the_stop_of_its_entry(tmp_path: Path) -> None:
    """A bot writes it down at the entry; a backtest is asked for it first when it is filled."""
    strategy = told(tmp_path, hold_candles=12)
    at_entry = planned(strategy)
    for number in range(30):
        close(number, 1.0, rate=97.0)
        LocalTrade.bt_trades[-1].close_date = NOW + timedelta(minutes=5)
        key = number, LocalTrade.bt_trades[-1].open_date_utc
        strategy._lstm_stops._plans[key] = _plan(98.0)
    for _ in range(4):
        go_on(strategy)
    other = Entry("ETH/USDT", "mine", 1, CLOSE, 1.0, 330.0, 900.0, 5.0)
    assert strategy._lstm_stops.planned(other).reach > 0.03  # learnt meanwhile
    assert strategy._lstm_stops.of(trade()).reach == pytest.approx(-at_entry)


def test_a_trade_that_is_seen_to_be_closed_late_is_learnt_from_too(tmp_path: Path) -> None:
    """freqtrade dates it by its order, which a bot may look at after another that came later."""
    enable_database_use()
    init_db(f"sqlite:///{tmp_path / 'trades.sqlite'}")
    try:
        strategy = told(tmp_path)
        for seconds in (*range(ENOUGH), -1):
            ended = NOW - timedelta(minutes=10) + timedelta(seconds=seconds)
            Trade.session.add(
                Trade(pair=PAIR, stake_amount=50.0, amount=0.5, open_rate=CLOSE, is_open=False,
                      open_date=ended - HOUR, close_date=ended, close_rate=CLOSE, fee_open=0.0,
                      fee_close=0.0, exchange="binance", strategy="Safer", leverage=1.0)
            )  # fmt: skip
            Trade.commit()
            planned(strategy)
        assert len(strategy._lstm_stops._known) == ENOUGH + 1
    finally:
        _CustomData.session.remove()
        Trade.session.remove()
        Trade.session.get_bind().dispose()
        disable_database_use("5m")


def test_a_stake_leaves_room_for_the_additions_that_a_strategy_may_make(tmp_path: Path) -> None:
    adds = "\n    position_adjustment_enable = True\n    max_entry_position_adjustment = {}\n"
    whole = 10.0 / (0.10 + COSTS)
    assert staked(load(tmp_path, adds.format(3))) == pytest.approx(whole / 4)
    assert staked(load(tmp_path, adds.format(0))) == pytest.approx(whole)
    for without in (-1, None, 'float("inf")'):
        assert staked(load(tmp_path, adds.format(without))) == pytest.approx(whole / 2)
    with_forecast = load(tmp_path, adds.format(3))
    assert staked(with_forecast, entry_tag="lstm_long") == 0.0  # no Kelly known: as before


ADDS = """
    stoploss = -0.5
    position_adjustment_enable = True
    def adjust_trade_position(self, trade, **k): return 900.0
"""


def added(strategy: Any, held: Any, rate: float = CLOSE) -> float:
    LocalTrade.add_bt_trade(held)
    none = dict.fromkeys(
        ("current_profit", "current_entry_profit", "current_exit_profit"), 0.0
    )  # fmt: skip
    return strategy.adjust_trade_position(
        trade=held, current_time=NOW, current_rate=rate, min_stake=5.0, max_stake=900.0,
        current_entry_rate=rate, current_exit_rate=rate, **none,
    ) or 0.0  # fmt: skip


@pytest.mark.parametrize("leverage", [1.0, 2.0])
@pytest.mark.parametrize("short", [False, True])
def test_an_addition_counts_what_the_position_has_lost_already(
    tmp_path: Path, short: bool, leverage: float
) -> None:
    """All of it is lost at the stop: what was entered farther from it, too."""
    side = -1 if short else 1
    strategy = told(tmp_path, ADDS, hold_candles=12, max_portfolio_fraction=1.0)
    foretell(strategy, lowest=-0.1, highest=0.1)
    held = trade(short, stake_amount=60.0 / leverage, amount=0.6, leverage=leverage)
    stop = strategy._lstm_stops.of(held).rate
    rate = CLOSE - side * 7.0
    more = added(strategy, held, rate) * leverage
    lost = 0.6 * abs(CLOSE - stop) + more * abs(rate - stop) / rate + (60.0 + more) * COSTS
    assert more > 5.0
    assert lost == pytest.approx(10.0)


def test_an_addition_to_a_winner_counts_how_far_its_stop_is_behind(tmp_path: Path) -> None:
    """A bot's stop stays where it was when a position grows."""
    strategy = load(tmp_path, ADDS.replace("-0.5", "-0.1"))
    held = trade(stop_loss=90.0)
    more = added(strategy, held, 120.0)
    assert 50.0 * 0.1 + more * 0.25 + (50.0 + more) * COSTS == pytest.approx(10.0)


@pytest.mark.parametrize("options", [{"max_stake_fraction": 0.5}, {"stake": "steady"}])
def test_a_share_of_freqtrades_stake_is_taken_of_each_addition_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    body = ADDS.replace("return 900.0", "return 100.0").replace("-0.5", "-0.1")
    strategy = load(tmp_path, body, lstm={"risk_fraction": 0.2, **options})
    foretell(strategy)
    widths = {"lstm_low": -0.04, "lstm_high": 0.04, "lstm_usual_width": 0.04}
    strategy.dp.frame = strategy.dp.frame.assign(**widths)
    assert added(strategy, trade()) == pytest.approx(50.0)


def test_why_an_addition_is_bounded_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    strategy = load(tmp_path, ADDS, lstm={"min_move": 2.0})
    foretell(strategy)
    strategy.dp.frame = strategy.dp.frame.assign(lstm_low=0.0, lstm_high=0.001)
    assert added(strategy, trade()) == 0.0
    assert "bounded to 0; the whole stake: 0: the forecast interval is too narrow" in caplog.text
    assert "by risk and portfolio" not in caplog.text


def test_a_steady_stake_follows_the_usual_over_the_forecast_width(tmp_path: Path) -> None:
    for width, share in ((0.02, 1.0), (0.04, 1.0), (0.08, 0.5)):
        strategy = load(tmp_path, lstm={"stake": "steady", "risk_fraction": 0.2})
        foretell(strategy)
        ends = {"lstm_low": -width / 2, "lstm_high": width / 2, "lstm_usual_width": 0.04}
        strategy.dp.frame = strategy.dp.frame.assign(**ends)
        assert staked(strategy) == pytest.approx(share * 330.0)
        strategy.lstm_settings = strategy.lstm_settings.model_copy(update={"stake": None})
        assert staked(strategy) == pytest.approx(330.0)


def test_where_no_move_can_pay_the_costs_there_is_no_entry_but_by_hand(tmp_path: Path) -> None:
    strategy = load(tmp_path, lstm={"min_move": 2.0})
    denied: list[str] = []
    strategy._lstm_deny = lambda pair, code, text: denied.append(code)
    for width, enters in ((1.9 * COSTS, False), (2.1 * COSTS, True)):
        foretell(strategy)
        strategy.dp.frame = strategy.dp.frame.assign(lstm_low=0.0, lstm_high=width)
        assert (staked(strategy) > 0.0) is enters
        assert staked(strategy, entry_tag="force_entry") > 0.0
    assert denied == ["no_move"]


STAKE = """
    def custom_stake_amount(self, pair, current_time, current_rate, proposed_stake, min_stake,
                            max_stake, leverage, entry_tag, side, **kwargs):
        return 900.0
"""
ASKING = """
    def custom_stake_amount(self, **kwargs):
        return super().custom_stake_amount(**{**kwargs, "proposed_stake": 900.0})
"""
MIXED = """
class Plain:
    def custom_stake_amount(self, **kwargs): return 900.0

class Other(Plain, Mine):
    pass
"""
CHANGED = """
class Other(Mine):
    def custom_stake_amount(self, **kwargs): return 900.0
"""


def in_front() -> str:
    """A strategy that lacks nothing but answers of its own, with the mixin in front."""
    lines = HEAD.format(name="Mine", bases="LSTMRisk, IStrategy").splitlines()
    return "\n".join(line for line in lines if "populate_indicators" not in line) + "\n"


def resolved(folder: Path, name: str, text: str) -> Any:
    """The strategy of a file with this text, as freqtrade loads it."""
    folder.mkdir()
    (folder / "own.py").write_text(text)
    strategy = StrategyResolver.load_strategy(
        {"strategy": name, "strategy_path": str(folder), "user_data_dir": folder,
         "timeframe": "5m", "runmode": RunMode.BACKTEST, "exchange": {"name": "binance"},
         "stake_currency": "USDT", "stake_amount": 100.0, "trading_mode": "futures", "lstm": {}}
    )  # fmt: skip
    strategy.dp, strategy.wallets, strategy._lstm_open = Provider(), Wallets(), lambda: None
    foretell(strategy)
    return strategy


def test_a_strategy_that_answers_in_our_place_is_told_what_it_can_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ways that are told are gone, and each leads to what it promises."""
    caplog.set_level(logging.WARNING)
    mine = in_front()
    assert staked(resolved(tmp_path / "alone", "Mine", mine + STAKE)) == 900.0
    assert "Mine.custom_stake_amount: LSTMRisk is not asked" in caplog.text
    assert caplog.text.rstrip().endswith(
        "; call super() of the same name, or let Mine inherit from IStrategy alone and write class "
        "Safer(LSTMRisk, Mine)"
    )
    caplog.clear()
    bounded = staked(resolved(tmp_path / "asking", "Mine", mine + ASKING))
    alone = HEAD.format(name="Mine", bases="IStrategy") + STAKE
    safer = f"{alone}\nclass Safer(LSTMRisk, Mine):\n    pass\n"
    assert staked(resolved(tmp_path / "safer", "Safer", safer)) == bounded < 900.0
    assert "LSTMRisk is not asked" not in caplog.text  # behind the mixin it is asked


@pytest.mark.parametrize("others", [MIXED, CHANGED])
def test_where_no_second_class_would_do_the_same_only_super_is_told(
    others: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mine = in_front()
    resolved(tmp_path / "own", "Other", mine + others)
    assert "custom_stake_amount: LSTMRisk is not asked" in caplog.text
    assert caplog.text.rstrip().endswith("; call super() of the same name")


def test_dates_of_any_unit_find_the_entrys_candle(tmp_path: Path) -> None:
    strategy, held = told(tmp_path, hold_candles=12), trade()
    expected = strategy._lstm_stops.of(held)
    go_on(strategy, lstm_lowest=-0.4)
    for unit in ("ms", "us", "ns"):
        frame = strategy.dp.frame
        strategy.dp.frame = frame.assign(date=frame["date"].astype(f"datetime64[{unit}, UTC]"))
        strategy._lstm_stops._plans.clear()
        assert strategy._lstm_stops.of(held) == expected
    assert isinstance(strategy.dp.frame, pd.DataFrame)


def test_a_strategy_whose_own_stop_is_far_away_still_trades_at_the_exchanges_least(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many write -0.99 and a `custom_stoploss`: 1 % of a small wallet over that is no order."""
    caplog.set_level(logging.INFO)
    body = FULL.replace("use_custom", "stoploss = -0.99\n    use_custom").replace("40.0", "300.0")
    assert staked(load(tmp_path, body), min_stake=12.0) == 12.0
    assert "more than 0.01 of the wallet" in caplog.text
    many = "\n    stoploss = -0.3\n    position_adjustment_enable = True\n"
    many += "    max_entry_position_adjustment = 10\n"
    assert staked(load(tmp_path, many), min_stake=10.0) == 10.0
    assert staked(load(tmp_path, many), min_stake=2.0) == pytest.approx(10.0 / (0.3 + COSTS) / 11)
    told_of = told(tmp_path, "\n    stoploss = -0.99\n", hold_candles=12)
    assert staked(told_of, min_stake=500.0) == 0.0  # with a stop of ours there is a promise to keep


def test_what_gets_no_stake_is_said_in_a_backtest_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    strategy = load(tmp_path, lstm={"max_portfolio_fraction": 0.001})
    assert staked(strategy, min_stake=5.0) == 0.0
    assert "no entry (too_small): stake 0: 1 is below the exchange's minimum 5" in caplog.text
