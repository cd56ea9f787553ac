"""The strategies' callbacks as freqtrade calls them: with its guards, its trades, its resolver."""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from freqtrade.constants import Config
from freqtrade.enums import CandleType, ExitType, RunMode
from freqtrade.persistence import LocalTrade, Order, disable_database_use, enable_database_use
from freqtrade.persistence.custom_data import CustomDataWrapper
from freqtrade.plugins.protectionmanager import ProtectionManager
from freqtrade.resolvers import StrategyResolver
from freqtrade.strategy import IStrategy
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame, date_range
from places import STRATEGIES
from series import make_candles, to_frame

from lstm_model.bot.live import LiveEngine
from lstm_model.learning.news import News
from lstm_model.market.candles import Candles
from lstm_model.practice.chat import markdown_text
from lstm_model.risk.entry import FORCED_TAG, Entry, sign
from lstm_model.risk.stakes import Stakes
from lstm_model.risk.stops import Stops
from lstm_model.risk.strategy import LSTMRisk
from lstm_model.settings import Settings
from lstm_model.trading.outlook import Terms
from lstm_model.trading.own_trades import LONG_TAG, SHORT_TAG
from lstm_model.trading.sizing import (
    CALIBRATING,
    ENTER_LONG,
    ENTER_SHORT,
    ERROR,
    NO_DATA,
    NO_EDGE,
    NO_SKILL,
    STALE_MODEL,
    STALE_STREAM,
    TOO_SMALL,
)

PAIR, OTHER = "BTC/USDT", "ETH/USDT"
COUNT, CLOSE = 60, 100.0
START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
NOW = START + COUNT * STEP
NEWEST_MS = int((NOW - STEP).timestamp() * 1000)
HORIZON = 12
GOOD = {
    "lstm_mean": 0.01, "lstm_mean_error": 0.002, "lstm_low": -0.02, "lstm_high": 0.04,
    "lstm_lowest": -0.02, "lstm_highest": 0.02, "lstm_volatility": 0.002, "lstm_edge": 0.006,
    "lstm_kelly": 1.0, "lstm_trust": 1.0, "lstm_side": 1, "lstm_gate": "", "lstm_reason": "",
    "lstm_version": "abc123",
}  # fmt: skip


@cache
def calm_frame(seed: int) -> DataFrame:
    noise = np.random.default_rng(seed).normal(scale=0.001, size=COUNT)
    close = CLOSE * np.exp(noise.cumsum() - noise.sum())  # ends at CLOSE
    dates = date_range(START, periods=COUNT, freq=STEP)
    frame = DataFrame({"date": dates, "close": close, "enter_long": 0, "enter_short": 0})
    frame["lstm_close"] = close
    return frame.assign(enter_tag=None, **GOOD)


def frame_of(seed: int = 0, **newest: Any) -> DataFrame:
    """Analyzed candles, of which the newest says `newest`; None: there is no such column."""
    frame = calm_frame(seed).copy()
    for name, value in newest.items():
        if value is None:
            del frame[name]
        else:
            frame[name] = [*frame[name].iloc[:-1], value]
    return frame


class Provider:
    """What strategies ask of freqtrade's data provider."""

    def __init__(self) -> None:
        self.frames = {PAIR: frame_of(), OTHER: frame_of(seed=1)}

        self.sent: list[str] = []

    def get_analyzed_dataframe(self, pair: str, timeframe: str) -> tuple[DataFrame, datetime]:
        return self.frames.get(pair, DataFrame()), NOW

    def current_whitelist(self) -> list[str]:
        return [PAIR, OTHER]

    def market(self, pair: str) -> None:
        """Nothing is known of its ticks."""

    _exchange = None

    def ohlcv(self, pair: str, timeframe: str, copy: bool) -> DataFrame:
        return DataFrame()

    def send_msg(self, message: str, *, always_send: bool = False) -> None:
        assert always_send  # each is said once; freqtrade would drop what it has sent before
        self.sent.append(message)


class Wallets:
    def __init__(self) -> None:
        self.total = 1_000.0

    def get_total_stake_amount(self) -> float:
        return self.total


class Engine(LiveEngine):
    """A live engine that says what a test wants and keeps what it is told."""

    def __init__(self) -> None:
        self.vetoes, self.unwanted, self.known = "", False, 1.0
        self.terms = Terms(Settings(), 0.001, can_short=True)
        self.notes: list[tuple[str, int, str, str]] = []
        self.news: list[str] = []
        self.ticks: list[tuple[int, set[str]]] = []

    leader = None

    def tick(self, now_ms: int, pairs: Collection[str] = ()) -> None:
        self.ticks.append((now_ms, set(pairs)))

    def read(self, frame: DataFrame, pair: str) -> Candles:
        return Candles.from_frame(frame, pair, "5m")

    def foresee(self, series: Sequence[Candles]) -> None:
        assert series == []

    def take_news(self) -> Iterator[str]:
        while self.news:
            yield self.news.pop(0)

    def coverage(self, pair: str) -> float:
        return self.known

    def veto(self, pair: str, side: int, rate: float) -> str:
        return self.vetoes

    def wants_exit(self, pair: str, side: int, rate: float) -> bool:
        return self.unwanted

    def note(self, pair: str, candle_ms: int, code: str, text: str = "") -> None:
        self.notes.append((pair, candle_ms, code, text))

    @property
    def codes(self) -> list[str]:
        return [code for _, _, code, _ in self.notes]


def configuration(name: str = "LSTMStrategy", **options: Any) -> Config:
    return {
        "strategy": name, "strategy_path": str(STRATEGIES), "user_data_dir": Path("nowhere"),
        "timeframe": "5m", "stake_currency": "USDT", "stake_amount": 100.0, "max_open_trades": 3,
        "dry_run": True, "runmode": RunMode.DRY_RUN, "trading_mode": "spot",
        "exchange": {"name": "binance"}, "lstm": {"horizon": HORIZON, **options.pop("lstm", {})},
        **options,
    }  # fmt: skip


def load(name: str = "LSTMStrategy", **options: Any) -> Any:
    """A strategy as freqtrade loads it, beside a live engine."""
    strategy = StrategyResolver.load_strategy(configuration(name, **options))
    strategy.dp, strategy.wallets = Provider(), Wallets()
    strategy.ft_load_hyper_params()
    strategy._lstm_engine = Engine()
    return strategy


def show(strategy: Any, pair: str = PAIR, **newest: Any) -> None:
    strategy.dp.frames[pair] = frame_of(**newest)


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    disable_database_use("5m")
    yield
    enable_database_use()


@pytest.fixture(autouse=True)
def trades() -> None:
    LocalTrade.reset_trades()
    CustomDataWrapper.reset_custom_data()


@pytest.fixture(scope="module")
def spot() -> Any:
    """Loaded once, for tests that set everything they look at."""
    return load()


@pytest.fixture(scope="module")
def futures() -> Any:
    return load(trading_mode="futures", lstm={"max_leverage": 3.0})


@pytest.fixture
def strategy(spot: Any) -> Any:
    return fresh(copy.copy(spot))


def fresh(strategy: Any) -> Any:
    strategy.dp, strategy.wallets, strategy._lstm_engine = Provider(), Wallets(), Engine()
    strategy._lstm_told, strategy._lstm_plans, strategy.stoploss = {}, {}, -0.1
    strategy._lstm_news = News()
    strategy.lstm_stop_multiple.value, strategy.lstm_kelly_fraction.value = 1.0, 0.25
    strategy.lstm_min_edge.value = 0.0
    strategy._lstm_stops, strategy._lstm_stakes = Stops(strategy), Stakes(strategy)
    return strategy


def stake(strategy: Any, tag: str | None = LONG_TAG, side: str = "long", **other: Any) -> float:
    """What freqtrade would stake; it proposes 330."""
    asked = {
        "pair": PAIR, "current_time": NOW, "current_rate": CLOSE, "proposed_stake": 330.0,
        "min_stake": 10.0, "max_stake": 900.0, "leverage": 1.0, "entry_tag": tag, "side": side,
    }  # fmt: skip
    if tag != FORCED_TAG and len(frame := strategy.dp.frames.get(PAIR, DataFrame())):
        strategy.dp.frames[PAIR] = frame.assign(enter_tag=tag)  # the signal it comes from
    ask = strategy_safe_wrapper(strategy.custom_stake_amount, default_retval=330.0)
    return float(ask(**{**asked, **other}))


def confirm(strategy: Any, tag: str = LONG_TAG) -> bool:
    ask = strategy_safe_wrapper(strategy.confirm_trade_entry, default_retval=True)
    asked = {
        "pair": PAIR, "order_type": "limit", "amount": 1.0, "rate": CLOSE, "side": "long",
        "time_in_force": "GTC", "current_time": NOW, "entry_tag": tag,
    }  # fmt: skip
    return bool(ask(**asked))


BEYOND = 2 * (0.001 + 0.0005 + 0.0001) + GOOD["lstm_volatility"]  # costs, and the gap


def stop_of(strategy: Any, side: str = "long", leverage: float = 1.0) -> float | None:
    """Where an entry now would be stopped by the forecast."""
    tag = SHORT_TAG if side == "short" else LONG_TAG
    entry = Entry(PAIR, tag, sign(side), CLOSE, leverage, 330.0, 900.0, 10.0)
    plan = strategy._lstm_stops.planned(entry)
    return None if plan is None else float(plan.rate)


def trade_of(pair: str = PAIR, **other: Any) -> LocalTrade:
    """An open position of 200 since the newest candle's close."""
    facts = {
        "id": len(LocalTrade.bt_trades_open) + 1, "pair": pair, "stake_amount": 200.0,
        "amount": 2.0, "open_rate": CLOSE, "open_date": NOW, "fee_open": 0.001,
        "fee_close": 0.001, "is_open": True, "enter_tag": LONG_TAG, "is_short": False,
        "leverage": 1.0, "exchange": "binance", "orders": [], "precision_mode_price": 4,
    }  # fmt: skip
    trade = LocalTrade(**{**facts, **other})
    LocalTrade.add_bt_trade(trade)
    return trade


def order_of(trade: LocalTrade, side: str) -> Order:
    order = Order(
        ft_order_side=side, ft_pair=trade.pair, ft_is_open=False, status="closed", side=side,
        amount=trade.amount, filled=trade.amount, ft_amount=trade.amount, price=CLOSE,
        average=CLOSE, ft_price=CLOSE, order_id=f"{len(trade.orders)}",
    )  # fmt: skip
    trade.orders.append(order)
    return order


def exit_reason(strategy: Any, trade: LocalTrade, rate: float = CLOSE, candles: int = 1) -> str:
    """Why freqtrade would leave after so many candles; "" to stay."""
    exits = strategy.should_exit(trade, rate, NOW + candles * STEP, enter=False, exit_=False)
    return exits[0].exit_reason if exits else ""


# The stake


def test_an_entry_of_the_forecast_is_staked_by_its_edge_and_another_by_its_risk(
    strategy: Any,
) -> None:
    show(strategy, lstm_kelly=0.8)
    assert stake(strategy) == pytest.approx(1_000 * 0.8 * 0.25)
    assert stake(strategy, tag="ema_cross") == pytest.approx(330.0)
    strategy.wallets.total = 400.0  # 1 % of it is lost at a stop 2 % away
    assert stake(strategy, tag="ema_cross") == pytest.approx(
        400 * 0.01 / (1 - math.exp(-0.02) + BEYOND)
    )


def test_what_a_stop_costs_is_by_the_fee_of_the_pair_itself(strategy: Any) -> None:
    strategy.wallets.total = 400.0
    fees = {PAIR: 0.003}
    strategy._lstm_engine.terms = Terms(Settings(), 0.0, can_short=True, own_fee=fees.get)
    assert stake(strategy, tag="ema_cross") == pytest.approx(
        400 * 0.01 / (1 - math.exp(-0.02) + BEYOND + 2 * (0.003 - 0.001))
    )
    strategy._lstm_engine = None  # a worker of hyperopt has no engine, and knows it from before
    again = stake(strategy, tag="ema_cross")
    assert again == pytest.approx(400 * 0.01 / (1 - math.exp(-0.02) + BEYOND + 0.004))


def test_what_a_stop_costs_counts_funding_that_is_paid_and_none_that_is_got(futures: Any) -> None:
    strategy = fresh(copy.copy(futures))
    strategy.wallets.total = 400.0
    lost = 1 - math.exp(-0.02) + BEYOND
    for paid in (0.004, -0.004):
        for side, mean in (("long", 0.01), ("short", -0.01)):
            strategy.dp.frames[PAIR] = frame_of(lstm_mean=mean).assign(lstm_funding=paid)
            share = stake(strategy, tag="ema_cross", side=side) / (400 * 0.01)
            of_side = paid if side == "long" else -paid
            reach = lost if side == "long" else math.expm1(0.02) + BEYOND
            assert 1 / share == pytest.approx(reach + max(of_side, 0.0))


def test_parameters_of_freqtrade_move_stake_and_stop(strategy: Any) -> None:
    show(strategy, lstm_kelly=0.4)
    before = stake(strategy)
    strategy.lstm_kelly_fraction.value = 0.5
    assert stake(strategy) == pytest.approx(2 * before)
    strategy.lstm_stop_multiple.value = 2.0
    assert stop_of(strategy) == pytest.approx(CLOSE * math.exp(-0.04))


def test_trust_and_coverage_scale_a_stake(strategy: Any) -> None:
    show(strategy, lstm_kelly=0.8, lstm_trust=0.5)
    strategy._lstm_engine.known = 0.5
    assert stake(strategy) == pytest.approx(50.0)
    strategy._lstm_engine.known = 0.0
    assert stake(strategy) == 0.0
    assert strategy._lstm_engine.codes == [STALE_STREAM]


def test_what_is_held_in_a_correlated_pair_leaves_less_room(strategy: Any) -> None:
    trade_of(OTHER, stake_amount=600.0)
    strategy.dp.frames[OTHER] = frame_of()  # moves alike
    assert stake(strategy) == pytest.approx(1_000 * 0.75 - 600)
    strategy.dp.frames[OTHER] = DataFrame()  # nothing is known: counts in full
    assert stake(strategy) == pytest.approx(150.0)
    strategy.dp.frames[OTHER] = frame_of(seed=1)
    assert stake(strategy) > 200.0


def test_an_entry_by_hand_needs_no_forecast_and_is_bounded_by_the_hard_stop(strategy: Any) -> None:
    show(strategy, lstm_lowest=math.nan, lstm_trust=0.0)
    strategy._lstm_engine.known = 0.0
    assert stake(strategy, tag=FORCED_TAG) == pytest.approx(1_000 * 0.01 / (0.1 + BEYOND))
    assert confirm(strategy, tag=FORCED_TAG)


NUMBERS = [name for name, value in GOOD.items() if isinstance(value, float)]
USED = ("lstm_lowest", "lstm_kelly", "lstm_trust", "lstm_close")


@pytest.mark.parametrize("value", [math.nan, math.inf, None], ids=str)
@pytest.mark.parametrize("name", USED)
def test_a_missing_number_gives_no_stake(strategy: Any, name: str, value: float | None) -> None:
    show(strategy, **{name: value})
    assert stake(strategy) == 0.0
    assert strategy._lstm_engine.codes in ([ERROR], [NO_DATA])


def test_without_any_candle_there_is_no_stake_no_stop_and_no_exit(strategy: Any) -> None:
    strategy.dp.frames.clear()
    assert stake(strategy) == 0.0
    assert stop_of(strategy) is None
    assert exit_reason(strategy, trade_of()) == ""


def asking_inside(strategy: Any) -> Any:
    """The strategy, whose exits may come from inside the candle now."""
    strategy.lstm_settings = strategy.lstm_settings.model_copy(update={"inside_exits": True})
    return strategy


def broken(*_: Any) -> Any:
    raise KeyError("something of ours")


@pytest.mark.parametrize(
    "breakage",
    [
        lambda strategy: setattr(strategy.dp, "get_analyzed_dataframe", broken),
        lambda strategy: setattr(strategy.wallets, "get_total_stake_amount", broken),
        lambda strategy: setattr(strategy._lstm_stops, "planned", broken),
        lambda strategy: setattr(strategy._lstm_engine, "coverage", broken),
        lambda strategy: setattr(strategy._lstm_stakes, "facts", broken),
    ],
    ids=["frame", "wallets", "stop", "coverage", "facts"],
)
def test_a_failure_of_ours_gives_no_stake_where_freqtrade_would_stake_its_own(
    strategy: Any, breakage: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    breakage(strategy)
    assert stake(strategy) == 0.0
    assert "something of ours" in caplog.text
    assert set(strategy._lstm_engine.codes) <= {ERROR}


def test_a_failure_is_counted(strategy: Any) -> None:
    strategy.wallets.get_total_stake_amount = broken
    assert stake(strategy) == 0.0
    assert strategy._lstm_engine.codes == [ERROR]


def test_a_failure_while_noting_a_refusal_does_not_turn_it_into_an_entry(strategy: Any) -> None:
    show(strategy, lstm_kelly=0.0)
    strategy._lstm_engine.note = broken
    assert stake(strategy) == 0.0
    strategy._lstm_engine.vetoes = STALE_STREAM
    assert not confirm(strategy)


def test_a_refusal_is_told_once_for_a_candle_though_freqtrade_asks_again(
    strategy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lstm_model.risk.strategy")
    show(strategy, lstm_kelly=0.0)
    for _ in range(3):
        assert stake(strategy) == 0.0
    assert [note[:3] for note in strategy._lstm_engine.notes] == [(PAIR, NEWEST_MS, NO_EDGE)]
    assert len([line for line in caplog.messages if "no entry (no_edge)" in line]) == 1
    show(strategy, lstm_kelly=0.001)
    assert stake(strategy) == 0.0
    assert strategy._lstm_engine.codes == [NO_EDGE, TOO_SMALL]
    show(strategy, lstm_trust=0.0)
    assert stake(strategy) == 0.0
    assert strategy._lstm_engine.codes[-1] == CALIBRATING


def test_a_study_of_the_past_and_its_workers_need_no_engine(strategy: Any) -> None:
    with_engine = stake(strategy)
    strategy._lstm_engine = None
    assert stake(strategy) == with_engine > 0.0
    assert confirm(strategy)
    show(strategy, lstm_kelly=0.0)
    assert stake(strategy) == 0.0


def test_an_edge_lost_between_candles_vetoes_the_forecasts_entry_and_a_stale_stream_every(
    strategy: Any,
) -> None:
    assert confirm(strategy)
    strategy._lstm_engine.vetoes = NO_EDGE
    assert not confirm(strategy)
    assert strategy._lstm_engine.codes == [NO_EDGE]
    assert confirm(strategy, tag="ema_cross")
    strategy._lstm_engine.vetoes = STALE_STREAM
    assert not confirm(strategy, tag="ema_cross")
    assert strategy._lstm_engine.codes == [NO_EDGE, STALE_STREAM]
    strategy._lstm_engine.veto = broken
    assert not confirm(strategy)


def test_a_gate_forbids_every_entry_but_that_of_skill_only_the_forecasts(strategy: Any) -> None:
    for gate in (STALE_MODEL, CALIBRATING, ERROR):
        show(strategy, lstm_gate=gate)
        assert stake(strategy) == stake(strategy, tag="ema_cross") == 0.0
        assert strategy._lstm_engine.codes[-1] == gate
    show(strategy, lstm_gate=NO_SKILL)
    assert stake(strategy, tag="ema_cross") > 0.0


def test_leverage_is_the_settings_within_the_exchanges(futures: Any, spot: Any) -> None:
    asked = (PAIR, NOW, CLOSE, 1.0)
    assert futures.leverage(*asked, 50.0, LONG_TAG, "long") == 3.0
    assert futures.leverage(*asked, 2.0, LONG_TAG, "long") == 2.0
    assert futures.leverage(*asked, 2.9, LONG_TAG, "long") == 2.0  # whole, as Binance wants it
    assert futures.leverage(*asked, 0.9, LONG_TAG, "long") == 1.0
    assert spot.leverage(*asked, 50.0, LONG_TAG, "long") == 1.0  # unless it is asked for


def test_a_short_is_the_mirror_of_a_long(futures: Any) -> None:
    fresh(futures)
    up = stake(futures, leverage=3.0)
    show(futures, lstm_mean=-0.01, lstm_lowest=-0.03)
    down = stake(futures, SHORT_TAG, "short", leverage=3.0)
    assert up == pytest.approx(1_000 * 0.25 / 3)
    assert down == up
    assert stop_of(futures, "short", 3.0) == pytest.approx(CLOSE * math.exp(0.02))
    assert stop_of(futures, "short", 10.0) == pytest.approx(101.0)  # the hard stop


# The stop

RATES = st.floats(90.5, 115.0)
REACH = st.one_of(st.floats(0.0, 0.3), st.just(math.nan))


@pytest.mark.lengthy
@settings(max_examples=60)
@given(
    steps=st.lists(st.tuples(RATES, RATES, REACH, REACH, st.booleans()), min_size=1, max_size=6),
    short=st.booleans(),
)
def test_a_stop_is_never_looser_than_the_hard_stop_and_never_moves_away(
    steps: list[tuple[float, float, float, float, bool]], short: bool
) -> None:
    strategy, side = fresh(FUTURES[0]), -1 if short else 1
    LocalTrade.reset_trades()
    trade = trade_of(is_short=short)
    trade.adjust_stop_loss(CLOSE, strategy.stoploss, initial=True)
    stops = [trade.stop_loss]
    assert stops == [pytest.approx(CLOSE * (1 - side * 0.1))]
    for rate, close, down, up, filled in steps:
        show(strategy, lstm_close=close, lstm_lowest=-down, lstm_highest=up)
        strategy.ft_stoploss_adjust(rate, trade, NOW, 0.0, 0, after_fill=filled)
        stops.append(trade.stop_loss)
    assert (np.diff(stops) * side >= -1e-9).all()


FUTURES: list[Any] = []


@pytest.fixture(autouse=True)
def for_properties(futures: Any) -> None:
    """hypothesis takes no fixtures that change; this one is the same for all examples."""
    FUTURES[:] = [futures]


@pytest.fixture
def inside(strategy: Any) -> Any:
    return asking_inside(strategy)


def test_by_default_only_closed_candles_end_a_trade(strategy: Any) -> None:
    """What a backtest cannot see must not decide about exits."""
    strategy._lstm_engine.unwanted = True
    assert exit_reason(strategy, trade_of()) == ""


def test_a_failing_stop_leaves_the_old_one_and_the_exit_at_it(inside: Any) -> None:
    strategy, trade = inside, trade_of()
    strategy._lstm_stops.in_force = strategy._lstm_engine.wants_exit = broken
    assert exit_reason(strategy, trade, rate=95.0) == ""
    assert trade.stop_loss == pytest.approx(90.0)
    assert exit_reason(strategy, trade, rate=89.0) == ExitType.STOP_LOSS.value


# What is written down with a trade


def facts(trade: LocalTrade) -> dict[str, Any]:
    return {entry.cd_key: entry.value for entry in trade.get_all_custom_data()}


def fill(strategy: Any, trade: LocalTrade, side: str = "buy") -> None:
    call = strategy_safe_wrapper(strategy.order_filled, supress_error=True)
    call(pair=trade.pair, trade=trade, order=order_of(trade, side), current_time=NOW)


def test_a_new_trade_carries_why_it_came_about(strategy: Any) -> None:
    amount, trade = stake(strategy), trade_of()
    show(strategy, lstm_mean=-0.5)  # what comes later does not count
    fill(strategy, trade)
    known = facts(trade)
    assert known["lstm_model"] == "abc123"
    candle = (NOW - STEP).isoformat()
    assert known["lstm_forecast"] == {"mean_bps": 100.0, "horizon_candles": 12, "candle": candle}
    assert known["lstm_interval"] == {"low_bps": -200.0, "high_bps": 400.0, "level": 0.9}
    assert known["lstm_stake"]["amount"] == pytest.approx(amount)
    assert known["lstm_stake"]["text"].startswith("250: 0.25 of ")
    assert known["lstm_stake"]["bound"] == "Kelly"
    stop = CLOSE * math.exp(-0.02)
    distance = round(1 - stop / CLOSE, 6)
    told = {"rate": stop, "distance": distance, "reach": 0.02}
    assert known["lstm_stop"] == pytest.approx(told)
    json.dumps(known, allow_nan=False)  # freqtrade's REST interface sends it


def test_only_the_first_filled_entry_is_written_down(strategy: Any) -> None:
    stake(strategy)
    trade = trade_of()
    fill(strategy, trade)
    before = facts(trade)
    show(strategy, lstm_mean=0.5)
    fill(strategy, trade)
    fill(strategy, trade, side="sell")
    assert facts(trade) == before


def test_a_bot_started_anew_before_the_fill_still_knows_the_forecast(strategy: Any) -> None:
    trade = trade_of()
    fill(strategy, trade)
    assert set(facts(trade)) == {"lstm_model", "lstm_forecast", "lstm_interval"}


def test_an_entry_by_hand_without_a_forecast_carries_stake_and_stop(strategy: Any) -> None:
    show(strategy, **dict.fromkeys(NUMBERS, math.nan))
    stake(strategy, tag=FORCED_TAG)
    trade = trade_of()
    fill(strategy, trade)
    assert set(facts(trade)) == {"lstm_stake", "lstm_stop"}
    json.dumps(facts(trade), allow_nan=False)


def test_a_backtest_writes_nothing_down_with_its_trades(strategy: Any) -> None:
    strategy._lstm_engine = None
    stake(strategy)
    trade = trade_of()
    fill(strategy, trade)
    assert facts(trade) == {}


# What freqtrade makes of the class


def test_the_warm_up_is_the_longer_of_the_networks_and_the_users() -> None:
    class Patient(LSTMRisk, IStrategy):
        timeframe = "5m"
        startup_candle_count = 5_000

    assert Patient(configuration()).startup_candle_count == 5_000
    assert load("EmaCross").startup_candle_count == 192
    assert load("EmaCrossLSTM").startup_candle_count > 192


def test_a_users_indicators_and_the_forecasts_columns_stand_together() -> None:
    class Columns:
        def columns(self, close: np.ndarray, step_ms: int) -> dict[str, np.ndarray]:
            return {"lstm_mean": np.zeros(len(close)), "lstm_close": close}

    mine = load("EmaCrossLSTM")
    mine._lstm_engine.outlook = lambda _: Columns()
    candles = frame_of()[["date", "close"]].assign(open=CLOSE, high=CLOSE, low=CLOSE, volume=1.0)
    frame = mine.populate_indicators(candles, {"pair": PAIR})
    assert {"ema_fast", "ema_slow", "lstm_mean"} <= set(frame.columns)


def test_hyperopt_sees_what_a_strategy_uses_with_the_settings_as_defaults() -> None:
    options = {"min_edge": 0.002, "kelly_fraction": 0.4, "stop_multiple": 1.5}
    mine = load(lstm=options)
    found = dict(mine.enumerate_parameters())
    assert {name: parameter.value for name, parameter in found.items()} == {
        f"lstm_{name}": value for name, value in options.items()
    }
    assert {name: parameter.space for name, parameter in found.items()} == {
        "lstm_min_edge": "buy", "lstm_kelly_fraction": "buy", "lstm_stop_multiple": "sell"
    }  # fmt: skip
    assert all(parameter.optimize for parameter in found.values())
    other = dict(load("EmaCrossLSTM").enumerate_parameters())
    assert [name for name, parameter in other.items() if parameter.optimize] == [
        "lstm_stop_multiple"
    ]


def test_a_parameter_file_overrides_the_settings(tmp_path: Path) -> None:
    shutil.copy(STRATEGIES / "lstm_strategy.py", tmp_path)
    params = {"buy": {"lstm_min_edge": 0.004}, "sell": {"lstm_stop_multiple": 2.5}}
    file = {"strategy_name": "LSTMStrategy", "params": params}
    (tmp_path / "lstm_strategy.json").write_text(json.dumps(file))
    mine = load(strategy_path=str(tmp_path), lstm={"min_edge": 0.001, "kelly_fraction": 0.3})
    assert (mine.lstm_min_edge.value, mine.lstm_stop_multiple.value) == (0.004, 2.5)
    assert mine.lstm_kelly_fraction.value == 0.3


def test_a_pickled_strategy_leaves_its_engine_behind(strategy: Any) -> None:
    strategy._lstm_engine.notes = (line for line in ())  # no generator can be pickled
    strategy.lstm_min_edge.value = 0.003
    worker = cloudpickle.loads(cloudpickle.dumps(strategy))
    assert worker._lstm_engine is None
    assert worker.lstm_min_edge.value == 0.003
    assert stake(worker) == stake(strategy)


def test_freqtrade_accepts_the_protections(strategy: Any) -> None:
    manager = ProtectionManager(configuration(), strategy.protections)
    assert sorted(manager.name_list) == [
        "CooldownPeriod", "LowProfitPairs", "MaxDrawdown", "StoplossGuard"
    ]  # fmt: skip

    class Bold(LSTMRisk, IStrategy):
        timeframe = "5m"
        protections: list[Any] = []  # noqa: RUF012

    assert Bold(configuration()).protections == []


def test_a_wrong_option_is_one_line_of_freqtrades() -> None:
    with pytest.raises(Exception, match='unknown option "horizn"') as caught:
        load(lstm={"horizn": 3})
    assert type(caught.value).__name__ == "OperationalException"


# LSTMStrategy: entries


def enter(strategy: Any, **newest: Any) -> dict[str, Any]:
    """The newest candle after `populate_entry_trend`."""
    frame = strategy.populate_entry_trend(frame_of(**newest), {"pair": PAIR})
    return dict(frame.iloc[-1])


def test_it_enters_where_the_edge_exceeds_the_least_one(strategy: Any) -> None:
    row = enter(strategy)
    assert (row["enter_long"], row["enter_tag"]) == (1, LONG_TAG)
    assert (row["lstm_side"], row["lstm_reason"]) == (1, ENTER_LONG)
    strategy.lstm_min_edge.value = 0.006
    row = enter(strategy)
    assert (row["enter_long"], row["enter_tag"]) == (0, None)
    assert (row["lstm_side"], row["lstm_reason"]) == (0, NO_EDGE)
    assert strategy._lstm_engine.notes == [
        (PAIR, NEWEST_MS, ENTER_LONG, ""), (PAIR, NEWEST_MS, NO_EDGE, "")
    ]  # fmt: skip


def test_it_goes_short_on_futures_only(strategy: Any, futures: Any) -> None:
    fresh(futures)
    row = enter(futures, lstm_mean=-0.01)
    assert (row["enter_short"], row["enter_tag"], row["lstm_side"]) == (1, SHORT_TAG, -1)
    assert (row["enter_long"], row["lstm_reason"]) == (0, ENTER_SHORT)
    row = enter(strategy, lstm_mean=-0.01)
    assert (row["enter_long"], row["enter_short"], row["lstm_reason"]) == (0, 0, NO_EDGE)


@pytest.mark.parametrize("edge", [0.5, math.nan])
def test_a_gate_or_a_missing_edge_forbids_an_entry_and_keeps_its_reason(
    strategy: Any, edge: float
) -> None:
    row = enter(strategy, lstm_gate=NO_SKILL, lstm_reason=NO_SKILL, lstm_edge=edge)
    assert (row["enter_long"], row["lstm_reason"]) == (0, NO_SKILL)
    row = enter(strategy, lstm_reason=NO_DATA, lstm_edge=math.nan)
    assert (row["enter_long"], row["lstm_reason"]) == (0, NO_DATA)
    assert strategy._lstm_engine.codes == [NO_SKILL, NO_DATA]


@pytest.mark.lengthy
@given(name=st.sampled_from(NUMBERS), value=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_order_comes_of_a_number_that_is_none(name: str, value: float) -> None:
    strategy = fresh(FUTURES[0])
    LocalTrade.reset_trades()
    row = enter(strategy, **{name: value})
    show(strategy, **{name: value})
    tag = row["enter_tag"]
    amount = stake(strategy, tag, "short" if tag == SHORT_TAG else "long") if tag else 0.0
    assert 0.0 <= amount <= 330.0
    if name in ("lstm_mean", "lstm_lowest", "lstm_kelly", "lstm_trust") and math.isnan(value):
        assert amount == 0.0


# LSTMStrategy: exits


def test_it_leaves_when_the_forecast_has_turned(strategy: Any, futures: Any) -> None:
    trade = trade_of()
    assert exit_reason(strategy, trade) == ""
    show(strategy, lstm_mean=-1e-6)
    assert exit_reason(strategy, trade) == "lstm_turned"
    fresh(futures)
    assert exit_reason(futures, trade_of(is_short=True, enter_tag=SHORT_TAG)) == "lstm_turned"


def test_it_leaves_when_the_forecast_has_turned_inside_the_candle(inside: Any) -> None:
    strategy = inside
    strategy._lstm_engine.unwanted = True
    assert exit_reason(strategy, trade_of()) == "lstm_turned_inside"


def test_it_leaves_at_the_horizon_unless_it_would_enter_again(strategy: Any) -> None:
    trade = trade_of()
    assert exit_reason(strategy, trade, candles=HORIZON - 1) == ""
    assert exit_reason(strategy, trade, candles=HORIZON) == "lstm_horizon"
    show(strategy, enter_long=1)
    assert exit_reason(strategy, trade, candles=HORIZON) == ""


def test_it_leaves_at_the_horizon_without_forecasts_or_columns_too(strategy: Any) -> None:
    trade = trade_of()
    for value in (math.nan, None):
        show(strategy, **dict.fromkeys([*NUMBERS, "enter_long"], value))
        assert exit_reason(strategy, trade, candles=3) == ""
        assert exit_reason(strategy, trade, candles=HORIZON) == "lstm_horizon"


def test_a_trade_by_hand_is_left_by_hand_or_stop(strategy: Any) -> None:
    trade = trade_of(enter_tag=FORCED_TAG)
    show(strategy, lstm_mean=-0.5)
    assert exit_reason(strategy, trade, candles=3 * HORIZON) == ""
    assert exit_reason(strategy, trade, rate=80.0) == ExitType.TRAILING_STOP_LOSS.value


# LSTMStrategy: positions


def adjust(strategy: Any, trade: LocalTrade, min_stake: float | None = 10.0) -> Any:
    return strategy._adjust_trade_position_internal(
        trade=trade, current_time=NOW, current_rate=CLOSE, current_profit=0.0,
        min_stake=min_stake, max_stake=800.0, current_entry_rate=CLOSE, current_exit_rate=CLOSE,
        current_entry_profit=0.0, current_exit_profit=0.0,
    )  # fmt: skip


def test_a_position_is_reduced_when_less_than_half_of_it_is_wanted(strategy: Any) -> None:
    trade = trade_of(stake_amount=200.0)
    for kelly, change in ((8.0, None), (0.8, None), (0.4, None), (0.39, -102.5), (0.0, -180.0)):
        show(strategy, lstm_kelly=kelly)
        wanted = (None, "") if change is None else (pytest.approx(change), "lstm_reduced")
        assert adjust(strategy, trade) == wanted


def test_nothing_is_reduced_for_want_of_knowledge(strategy: Any) -> None:
    trade = trade_of()
    strategy._lstm_engine.known = 0.0
    assert adjust(strategy, trade) == (None, "")
    for column in ({"lstm_kelly": math.nan}, {"lstm_lowest": math.nan}, {"lstm_trust": 0.0}):
        show(strategy, **column)
        assert adjust(strategy, trade) == (None, "")
    strategy.wallets.get_total_stake_amount = broken
    assert adjust(strategy, trade) == (None, "")


def test_neither_the_position_itself_nor_a_patchy_stream_makes_it_smaller(strategy: Any) -> None:
    show(strategy, lstm_kelly=8.0)
    trade = trade_of(stake_amount=600.0)  # at 1, it alone would leave 150 of the portfolio's 750
    strategy._lstm_engine.known = 0.4
    assert adjust(strategy, trade) == (None, "")


def test_what_is_left_anyway_is_not_reduced_before(strategy: Any) -> None:
    show(strategy, lstm_kelly=0.0, lstm_mean=-0.01)
    assert adjust(strategy, trade_of()) == (None, "")
    show(strategy, lstm_kelly=0.0)
    assert adjust(strategy, trade_of(enter_tag=FORCED_TAG)) == (None, "")


@pytest.mark.lengthy
@settings(max_examples=60)
@given(kelly=st.floats(0.0, 5.0), held=st.floats(1.0, 900.0), least=st.floats(0.0, 50.0))
def test_a_position_is_never_increased_and_what_stays_can_be_sold(
    kelly: float, held: float, least: float
) -> None:
    strategy = fresh(FUTURES[0])
    LocalTrade.reset_trades()
    show(strategy, lstm_kelly=kelly)
    change, _ = adjust(strategy, trade_of(stake_amount=held), least)
    assert change is None or (change < 0.0 and held + change >= 2.0 * least - 1e-9)


# What the user is told


def heard(strategy: Any, *news: str) -> list[str]:
    """What a user sees in Telegram of what the engine says."""
    strategy._lstm_engine.news = list(news)
    strategy.bot_loop_start(current_time=NOW)
    return [markdown_text(message) for message in strategy.dp.sent]


SUMMARY = "No entry signal in 4 h: 96 candles, no_edge 90, stale_stream 5, too_small 1"


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "news",
    [
        SUMMARY,
        "one_",
        "*",
        "a `b",
        "[c",
        "[d](e)",
        "_f_ *g* `h`",
        "``` i",
        r"\_",
        "\\",
        "Ünïcode 5 %",
    ],
)
def test_news_reach_telegram_as_they_are_whatever_they_hold(strategy: Any, news: str) -> None:
    assert heard(strategy, news) == [news]


@pytest.mark.lengthy
@given(news=st.text(st.sampled_from(r"_*`[]()\a 1"), max_size=20))
def test_no_text_is_refused_or_shortened_by_telegram(news: str) -> None:
    assert heard(fresh(FUTURES[0]), news) == [news]


@pytest.mark.lengthy
def test_a_loop_looks_at_the_clock_and_tells_every_news_once_in_its_order(strategy: Any) -> None:
    assert heard(strategy, "first_", "second", "second") == ["first_", "second"]
    assert strategy._lstm_engine.ticks == [(int(NOW.timestamp() * 1000), {PAIR, OTHER})]
    strategy.bot_loop_start(current_time=NOW)
    assert len(strategy.dp.sent) == 2


class Leading(Engine):
    """An engine whose forecasts look at a leader."""

    leader = "BTC/USDT"

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Candles] = []

    @property
    def led_ms(self) -> int:
        return int(self.shown[-1].date_ms[-1]) if self.shown else 0

    def lead(self, candles: Candles) -> None:
        self.shown.append(candles)

    def awaits(self, pair: str, newest_ms: int) -> bool:
        return True

    def foresee(self, series: Sequence[Candles]) -> None:
        assert self.shown, "the leader comes first"


@pytest.mark.parametrize("theirs", [[], [("BTC/USDT", "1h", "spot")], [("BTC/USDT", "5m", "spot")]])
def test_the_leader_is_an_informative_pair_once_and_where_the_market_has_it(
    strategy: Any, theirs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(pair, frame, CandleType.from_string(kind)) for pair, frame, kind in theirs]
    monkeypatch.setattr(IStrategy, "gather_informative_pairs", lambda _: list(given))
    wanted = ("BTC/USDT", "5m", CandleType.SPOT)
    assert strategy.gather_informative_pairs() == given  # without a leader
    strategy._lstm_engine = Leading()
    assert strategy.gather_informative_pairs() == given  # the market has no such pair
    strategy.dp.market = lambda pair: {"symbol": pair}
    found = strategy.gather_informative_pairs()
    assert found.count(wanted) == 1
    assert found[: len(given)] == given
    strategy._lstm_engine = None  # a backtest
    assert strategy.gather_informative_pairs() == given


def test_a_bot_on_futures_has_the_funding_of_all_that_it_trades_or_holds(
    futures: Any, strategy: Any
) -> None:
    trade_of("SOL/USDT")
    assert strategy.gather_informative_pairs() == []  # spot
    found = fresh(copy.copy(futures)).gather_informative_pairs()
    pairs = {PAIR, OTHER, "SOL/USDT"}
    assert {*found} == {(pair, "1h", CandleType.FUNDING_RATE) for pair in pairs}
    assert len(found) == 3


@pytest.mark.lengthy
def test_the_leaders_candles_are_shown_before_others_are_forecast_and_once(strategy: Any) -> None:
    strategy._lstm_engine = live = Leading()
    frame = to_frame(make_candles(50))
    strategy.dp.ohlcv = lambda pair, timeframe, copy: frame if pair == "BTC/USDT" else DataFrame()
    for _ in range(3):
        strategy.bot_loop_start(current_time=NOW)
    assert [candles.pair for candles in live.shown] == ["BTC/USDT"]
