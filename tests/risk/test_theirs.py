"""A user's strategy under `LSTMRisk`: theirs is asked as freqtrade asks, ours only bounds it."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.persistence import LocalTrade, Order, disable_database_use, enable_database_use
from freqtrade.resolvers import StrategyResolver
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from hypothesis import given
from hypothesis import strategies as st
from series import make_candles, to_frame

from lstm_model.bot.forecasting import with_columns
from lstm_model.bot.live import LiveEngine
from lstm_model.risk.entry import tick_of
from lstm_model.risk.stops import Stops
from lstm_model.settings import Settings
from lstm_model.trading.outlook import Outlook, Terms

PAIR, CLOSE = "BTC/USDT", 100.0
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
COSTS = 2 * (0.001 + 0.0005 + 0.0001)  # fee, slippage, half a spread; the frame knows no volatility
OURS = {"stop": "forecast", "hold_candles": 12}  # a horizon

HEAD = """
from freqtrade.strategy import IStrategy
from lstm_model import LSTMRisk
HEARD = []

class {name}({bases}):
    timeframe = "5m"
    can_short = True
    stoploss = -0.10
    minimal_roi = {{"0": 10.0}}
    def populate_entry_trend(self, dataframe, metadata): return dataframe
    def populate_exit_trend(self, dataframe, metadata): return dataframe
    def populate_indicators(self, dataframe, metadata): return dataframe
"""
# Every callback with its answer, in the signatures that freqtrade accepts.
FULL = """
    use_custom_stoploss = True
    def custom_stake_amount(self, pair, current_time, current_rate, proposed_stake, min_stake,
                            max_stake, leverage, entry_tag, side, **kwargs):
        HEARD.append(("stake", pair, proposed_stake, entry_tag, side)); return 40.0
    def leverage(self, pair, current_time, current_rate, proposed_leverage, max_leverage, entry_tag,
                 side, **kwargs):
        HEARD.append(("leverage", pair, max_leverage, side)); return 2.0
    def confirm_trade_entry(self, pair, order_type, amount, rate, time_in_force, current_time,
                            entry_tag, side, **kwargs):
        HEARD.append(("confirm", pair, amount, rate, side)); return rate < 150.0
    def custom_stoploss(self, pair, trade, current_time, current_rate, current_profit, after_fill,
                        **kwargs):
        HEARD.append(("stoploss", pair, current_rate, after_fill)); return -0.03
    def custom_exit(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        HEARD.append(("exit", pair, current_rate)); return "mine" if current_rate > 150.0 else None
    def adjust_trade_position(self, trade, current_time, current_rate, current_profit, min_stake,
                              max_stake, current_entry_rate, current_exit_rate,
                              current_entry_profit, current_exit_profit, **kwargs):
        HEARD.append(("adjust", trade.pair, min_stake, max_stake)); return 25.0, "more"
    def bot_start(self, **kwargs): HEARD.append(("start",))
    def bot_loop_start(self, current_time, **kwargs): HEARD.append(("loop", current_time))
    def order_filled(self, pair, trade, order, current_time, **kwargs):
        HEARD.append(("filled", pair, order.ft_order_side))
"""
SHORT = """
    use_custom_stoploss = True
    def custom_stake_amount(self, pair, proposed_stake, entry_tag, side, **kwargs):
        HEARD.append(("stake", pair, proposed_stake, entry_tag, side)); return 40.0
    def leverage(self, pair, max_leverage, side, **kwargs):
        HEARD.append(("leverage", pair, max_leverage, side)); return 2.0
    def confirm_trade_entry(self, pair, order_type, amount, rate, time_in_force, **kwargs):
        HEARD.append(("confirm", pair, amount, rate, kwargs["side"])); return rate < 150.0
    def custom_stoploss(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        HEARD.append(("stoploss", pair, current_rate, False)); return -0.03
    def custom_exit(self, pair, trade, current_time, current_rate, **kwargs):
        HEARD.append(("exit", pair, current_rate)); return "mine" if current_rate > 150.0 else None
    def adjust_trade_position(self, trade, current_time, current_rate, current_profit, min_stake,
                              max_stake, **kwargs):
        HEARD.append(("adjust", trade.pair, min_stake, max_stake)); return 25.0, "more"
    def bot_start(self, **kwargs): HEARD.append(("start",))
    def bot_loop_start(self, **kwargs): HEARD.append(("loop", kwargs["current_time"]))
    def order_filled(self, pair, trade, order, **kwargs):
        HEARD.append(("filled", pair, order.ft_order_side))
"""
WORDS = """
    use_custom_stoploss = True
    def custom_stake_amount(self, **k):
        HEARD.append(("stake", k["pair"], k["proposed_stake"], k["entry_tag"], k["side"]))
        return 40.0
    def leverage(self, **k):
        HEARD.append(("leverage", k["pair"], k["max_leverage"], k["side"])); return 2.0
    def confirm_trade_entry(self, **k):
        HEARD.append(("confirm", k["pair"], k["amount"], k["rate"], k["side"]))
        return k["rate"] < 150.0
    def custom_stoploss(self, **k):
        HEARD.append(("stoploss", k["pair"], k["current_rate"], k["after_fill"])); return -0.03
    def custom_exit(self, **k):
        HEARD.append(("exit", k["pair"], k["current_rate"]))
        return "mine" if k["current_rate"] > 150.0 else None
    def adjust_trade_position(self, **k):
        HEARD.append(("adjust", k["trade"].pair, k["min_stake"], k["max_stake"]))
        return 25.0, "more"
    def bot_start(self, **k): HEARD.append(("start",))
    def bot_loop_start(self, **k): HEARD.append(("loop", k["current_time"]))
    def order_filled(self, **k): HEARD.append(("filled", k["pair"], k["order"].ft_order_side))
"""
SIGNATURES = {"full": FULL, "short": SHORT, "words": WORDS}


class Provider:
    """No candle has been forecast yet, unless a test says so."""

    def __init__(self) -> None:
        self.frame, self.tick = pd.DataFrame(), 0.01

    def get_analyzed_dataframe(self, pair: str, timeframe: str) -> tuple[pd.DataFrame, datetime]:
        return self.frame, NOW

    def current_whitelist(self) -> list[str]:
        return [PAIR]

    def market(self, pair: str) -> dict[str, Any]:
        return {"precision": {"price": self.tick}}

    _exchange = SimpleNamespace(  # ticks, and a margin of which all may be lost
        precision_mode_price=4, _api=object(),
        get_maintenance_ratio_and_amt=lambda pair, notional: (0.0, 0.0),
    )  # fmt: skip


class Wallets:
    def get_total_stake_amount(self) -> float:
        return 1_000.0


def written(folder: Path, body: str, *, mixin: bool) -> str:
    """A file of a user's strategy, alone or as they write it under the mixin; the class's name."""
    text = HEAD.format(name="Theirs", bases="IStrategy") + body
    if mixin:
        text += "\nclass Safer(LSTMRisk, Theirs):\n    pass\n"
    (folder / ("safer.py" if mixin else "plain.py")).write_text(text)
    return "Safer" if mixin else "Theirs"


def load(folder: Path, body: str = "", *, mixin: bool = True, **options: Any) -> Any:
    own = folder / ("mixed" if mixin else "alone")
    own.mkdir(exist_ok=True)
    config = {
        "strategy": written(own, body, mixin=mixin), "strategy_path": str(own),
        "user_data_dir": Path("nowhere"), "timeframe": "5m", "stake_currency": "USDT",
        "stake_amount": 100.0, "max_open_trades": 3, "dry_run": True,
        "runmode": RunMode.BACKTEST, "trading_mode": "futures", "margin_mode": "isolated",
        "exchange": {"name": "binance"}, "lstm": options.pop("lstm", {}), **options,
    }  # fmt: skip
    config = {name: value for name, value in config.items() if value is not None}
    strategy = StrategyResolver.load_strategy(config)
    strategy.dp, strategy.wallets = Provider(), Wallets()
    if hasattr(strategy, "_lstm_open"):
        strategy._lstm_open = lambda: None
    return strategy


def foretell(strategy: Any, lowest: float = -0.02, highest: float = 0.02) -> None:
    """The newest candle closed at 100 with these reaches."""
    opened = NOW - timedelta(minutes=5)
    strategy.dp.frame = pd.DataFrame(
        {"date": [pd.Timestamp(opened)], "lstm_close": [CLOSE], "lstm_lowest": [lowest],
         "lstm_highest": [highest], "lstm_gate": [""], "lstm_trust": [1.0], "lstm_kelly": [0.0]}
    )  # fmt: skip


def go_on(strategy: Any, **newest: Any) -> None:
    """One candle more, with the forecast of before or another."""
    frame = strategy.dp.frame
    row = frame.iloc[[-1]].assign(date=frame["date"].iloc[-1] + timedelta(minutes=5), **newest)
    strategy.dp.frame = pd.concat([frame, row], ignore_index=True)


def trade_of(short: bool = False, **fields: Any) -> LocalTrade:
    facts = {
        "id": 1, "pair": PAIR, "stake_amount": 50.0, "amount": 0.5, "open_rate": CLOSE,
        "open_date": NOW, "fee_open": 0.0, "fee_close": 0.0, "is_open": True,
        "is_short": short, "leverage": 1.0, "exchange": "binance", "orders": [],
        "precision_mode_price": 4, "price_precision": 0.01, "enter_tag": "mine",
    }  # fmt: skip
    return LocalTrade(**{**facts, **fields})


def order_of(trade: LocalTrade) -> Order:
    side = trade.entry_side
    return Order(ft_order_side=side, ft_pair=PAIR, ft_is_open=False, side=side, order_id="1")


def asked(strategy: Any) -> dict[str, Any]:
    """All callbacks as freqtrade asks them; what they answered."""
    trade, of_pair = trade_of(), {"pair": PAIR, "current_time": NOW, "current_rate": CLOSE}
    entry = {"entry_tag": "mine", "side": "long"}
    of_trade = {**of_pair, "trade": trade, "current_profit": 0.01}
    confirm = {"pair": PAIR, "order_type": "limit", "amount": 1.0, "time_in_force": "GTC",
               "current_time": NOW, **entry}  # fmt: skip
    adjust = {"trade": trade, "current_time": NOW, "current_rate": CLOSE, "current_profit": 0.0,
              "min_stake": 5.0, "max_stake": 800.0, "current_entry_rate": CLOSE,
              "current_exit_rate": CLOSE, "current_entry_profit": 0.0,
              "current_exit_profit": 0.0}  # fmt: skip

    def ask(name: str, **words: Any) -> Any:
        return strategy_safe_wrapper(getattr(strategy, name), default_retval="failed")(**words)

    return {
        "start": ask("bot_start"),
        "loop": ask("bot_loop_start", current_time=NOW),
        "stake": ask("custom_stake_amount", **of_pair, proposed_stake=330.0, min_stake=5.0,
                     max_stake=900.0, leverage=1.0, **entry),
        "leverage": ask("leverage", **of_pair, proposed_leverage=1.0, max_leverage=20.0, **entry),
        "confirm": [ask("confirm_trade_entry", **confirm, rate=rate) for rate in (CLOSE, 200.0)],
        "stop": ask("custom_stoploss", **of_trade, after_fill=False),
        "exit": [ask("custom_exit", **{**of_trade, "current_rate": rate}) for rate in (CLOSE, 200)],
        "adjust": ask("adjust_trade_position", **adjust),
        "filled": ask("order_filled", pair=PAIR, trade=trade, order=order_of(trade),
                      current_time=NOW),
    }  # fmt: skip


def heard(strategy: Any) -> list[Any]:
    of_theirs = next(cls for cls in type(strategy).__mro__ if cls.__name__ == "Theirs")
    found: list[Any] = of_theirs.populate_indicators.__globals__["HEARD"]
    return found


@pytest.fixture(scope="module", autouse=True)
def database() -> Any:
    disable_database_use("5m")
    yield
    enable_database_use()


@pytest.mark.parametrize("signature", SIGNATURES)
def test_every_callback_of_theirs_is_asked_alike_and_its_answer_stands(
    tmp_path: Path, signature: str
) -> None:
    plain = load(tmp_path, SIGNATURES[signature], mixin=False)
    safer = load(tmp_path, SIGNATURES[signature])
    answers = asked(plain)
    assert "failed" not in answers.values()
    assert asked(safer) == answers
    assert answers["stake"] == 40.0
    assert answers["adjust"] == (25.0, "more")
    assert heard(safer) == heard(plain)
    assert len(heard(plain)) == 11


def test_without_callbacks_of_theirs_freqtrades_own_answers_stand(tmp_path: Path) -> None:
    answers = asked(load(tmp_path, mixin=False))
    mixed = asked(load(tmp_path))
    assert mixed.pop("stake") == pytest.approx(1_000 * 0.01 / (0.10 + COSTS))  # their stop
    assert answers.pop("stake") == 330.0
    assert mixed == answers


def test_a_stake_and_a_leverage_are_bounded_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mine = FULL.replace("return 40.0", "return 300.0").replace("; return 2.0", "; return 2.5")
    safer = load(tmp_path, mine, lstm={"max_leverage": 1.9})
    for _ in range(3):
        answers = asked(safer)
    assert answers["leverage"] == 1.0
    assert answers["stake"] == pytest.approx(10.0 / (0.10 + COSTS))
    said = [record.message for record in caplog.records if "said once" in record.message]
    assert len(said) == len({text.split(":")[0] for text in said}) == 2


def stoploss(strategy: Any, trade: LocalTrade, rate: float = CLOSE) -> None:
    strategy.ft_stoploss_adjust(rate, trade, NOW, trade.calc_profit_ratio(rate), 0.0)


def test_a_break_even_stop_of_theirs_stands(tmp_path: Path) -> None:
    body = FULL.replace("return -0.03", "return -1e-4 if current_profit > 0.01 else -0.03")
    for options in ({}, OURS):
        plain, safer = load(tmp_path, body, mixin=False), load(tmp_path, body, lstm=options)
        foretell(safer, lowest=-0.08)
        one, other = trade_of(), trade_of()
        for rate in (100.0, 102.0, 101.99):
            stoploss(plain, one, rate)
            stoploss(safer, other, rate)
        assert other.stop_loss == one.stop_loss
        assert other.stop_loss > 101.9


def test_a_stop_by_the_forecast_is_only_ever_tighter_than_theirs(tmp_path: Path) -> None:
    safer = load(tmp_path, FULL, lstm=OURS)
    for lowest, wanted in ((-0.02, 98.02), (-0.06, 97.0)):
        foretell(safer, lowest=lowest)
        safer._lstm_stops = Stops(safer)  # the trade of before has the same number
        trade = trade_of()
        stoploss(safer, trade)
        assert trade.stop_loss == pytest.approx(wanted, abs=0.011)


PROPERTIES = """
    @property
    def plot_config(self): return {"main_plot": {"ema": {}}}
    @property
    def use_custom_stoploss(self): return False
    @property
    def startup_candle_count(self): return 30
"""
QUIET = """
    def custom_stoploss(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        return -0.03
"""
IN_START = (
    QUIET
    + """
    def bot_start(self, **kwargs): self.use_custom_stoploss = True
"""
)
BY_WORD = """
    def __init__(self, *, config): super().__init__(config)
    timeframe = "1h"
"""


@pytest.mark.parametrize("stop", [None, "forecast"])
def test_attributes_of_theirs_may_be_properties(tmp_path: Path, stop: str | None) -> None:
    safer = load(tmp_path, PROPERTIES, lstm={"stop": stop, "hold_candles": 12})
    assert safer.plot_config == {"main_plot": {"ema": {}}}
    assert safer.use_custom_stoploss is False
    foretell(safer)
    assert staked(safer) == pytest.approx(
        10.0 / (0.1 + COSTS)
    )  # by their stoploss: nobody sets another


@pytest.mark.parametrize(("body", "own"), [(QUIET, True), (QUIET, False), (IN_START, None)])
def test_whether_their_stop_is_asked_is_their_word_whenever_they_say_it(
    tmp_path: Path, body: str, own: bool | None
) -> None:
    options = {} if own is None else {"use_custom_stoploss": own}
    stops = []
    for mixin in (False, True):
        strategy, trade = load(tmp_path, body, mixin=mixin, **options), trade_of()
        strategy.bot_start()
        stoploss(strategy, trade)
        stops.append(trade.stop_loss)
    assert stops == ([90.0] * 2 if own is False else [97.0] * 2)


@pytest.mark.parametrize(
    ("signature", "hears"),
    [(FULL, True), (SHORT, False), (WORDS, False), ("", False),
     (FULL.replace("current_profit, after_fill,", "current_profit, *, after_fill,"), False)],
)  # fmt: skip
def test_a_stop_after_a_fill_is_asked_for_as_without_us(
    tmp_path: Path, signature: str, hears: bool
) -> None:
    plain = load(tmp_path, signature, mixin=False)
    safer = load(tmp_path, signature)
    assert plain._ft_stop_uses_after_fill is safer._ft_stop_uses_after_fill is hears
    assert load(tmp_path, signature, lstm={"stop": "forecast"})._ft_stop_uses_after_fill


def test_after_a_fill_the_tighter_of_both_stops_is_set_anew(tmp_path: Path) -> None:
    safer, trade = load(tmp_path, FULL.replace("-0.03", "-0.09"), lstm=OURS), None
    foretell(safer)
    trade = trade_of()
    stoploss(safer, trade)
    safer.ft_stoploss_adjust(CLOSE, trade, NOW, 0.0, 0.0, after_fill=True)
    assert trade.stop_loss == pytest.approx(98.02, abs=0.011)


def test_an_own_init_may_take_its_configuration_by_name_and_set_the_timeframe(
    tmp_path: Path,
) -> None:
    body = BY_WORD.replace('    timeframe = "1h"\n', "")
    assert load(tmp_path, body).lstm_settings.step_candles == 288
    hourly = load(tmp_path, BY_WORD, timeframe=None)
    assert hourly.lstm_settings.step_candles == 24


@pytest.mark.parametrize("amount", [4.5, 1e9, math.inf])
def test_a_stake_that_freqtrade_would_raise_or_lower_is_left_to_it(
    tmp_path: Path, amount: float
) -> None:
    body = f"""
    stoploss = -0.004
    def custom_stake_amount(self, **k): return float("{amount}")
"""
    assert staked(load(tmp_path, body, lstm={"max_portfolio_fraction": 1.0})) == amount


@pytest.mark.lengthy
def test_the_loop_of_theirs_runs_whatever_ours_does(tmp_path: Path) -> None:
    safer = load(tmp_path, FULL)
    safer._lstm_engine = object.__new__(LiveEngine)  # not started: whatever it is asked fails
    strategy_safe_wrapper(safer.bot_loop_start, supress_error=True)(current_time=NOW)
    assert ("loop", NOW) in heard(safer)


@pytest.mark.lengthy
@pytest.mark.parametrize("short", [False, True])
def test_a_stop_does_not_creep_towards_the_price(tmp_path: Path, short: bool) -> None:
    """A short at 25.0 with a tick of 0.001 was once stopped out after 3,153 calls."""
    safer = load(tmp_path, lstm=OURS)
    foretell(safer, lowest=-0.0301, highest=0.0299)
    safer.dp.frame["lstm_close"], safer.dp.tick = 25.0, 0.001
    trade = trade_of(short, open_rate=25.0, price_precision=0.001)
    random, stops = np.random.default_rng(1), set()
    for rate in 25.0 * (1.0 + random.uniform(-0.001, 0.001, 4_000)):
        stoploss(safer, trade, float(rate))
        stops.add(trade.stop_loss)
    assert len(stops) == 1
    assert trade.stop_loss == pytest.approx(25.0 * math.exp(0.0299 if short else -0.0301), rel=1e-4)


def test_a_price_beyond_the_stop_that_was_to_be_set_ends_the_trade_by_name(tmp_path: Path) -> None:
    safer, trade = load(tmp_path, lstm=OURS), trade_of()
    foretell(safer)
    go_on(safer)
    words = {"pair": PAIR, "trade": trade, "current_time": NOW, "current_profit": 0.0}
    assert safer.custom_exit(**words, current_rate=98.5) is None
    assert safer.custom_exit(**words, current_rate=97.5) == "lstm_stop_passed"
    stoploss(safer, trade, 97.5)
    assert trade.stop_loss == pytest.approx(90.0)  # freqtrade could not have set it
    fresh = trade_of(id=2, open_date=NOW + timedelta(minutes=5, seconds=5))
    assert safer.custom_exit(**{**words, "trade": fresh}, current_rate=97.5) is None
    safer._lstm_engine = object.__new__(LiveEngine)  # a bot does not wait until a candle closes
    assert safer.custom_exit(**{**words, "trade": fresh}, current_rate=97.5) == "lstm_stop_passed"
    plain = load(tmp_path)
    foretell(plain)
    go_on(plain)
    assert plain.custom_exit(**words, current_rate=97.5) is None


@pytest.mark.parametrize("short", [False, True])
def test_a_stop_that_was_set_is_met_as_freqtrade_meets_stops(tmp_path: Path, short: bool) -> None:
    """With the order type of stops, and counted by `StoplossGuard`, as in a backtest."""
    safer, trade = load(tmp_path, lstm=OURS), trade_of(short)
    foretell(safer)
    stoploss(safer, trade)
    go_on(safer)
    rate = CLOSE + (2.5 if short else -2.5)
    found = safer.should_exit(trade, rate, NOW + timedelta(minutes=6), enter=False, exit_=False)
    assert {each.exit_type.value for each in found} <= {"stop_loss", "trailing_stop_loss"}
    assert found


@pytest.mark.parametrize("where", ["class", "config"])
def test_a_stake_follows_from_the_stop_that_is_in_force(tmp_path: Path, where: str) -> None:
    """With `use_custom_stoploss` off nobody sets the forecast's stop."""
    own = {"use_custom_stoploss": False} if where == "config" else {}
    options = OURS if where == "config" else {}
    safer = load(tmp_path, lstm=options, **own)
    foretell(safer, lowest=-0.02)
    assert asked(safer)["stake"] == pytest.approx(
        10.0 / (0.1 + COSTS)
    )  # 1 % lost at 10 %, not at 2 %


def test_additions_are_bounded_for_the_whole_position(tmp_path: Path) -> None:
    """freqtrade asks neither stake nor confirmation for them."""
    body = FULL.replace('return 25.0, "more"', 'return 700.0, "more"')
    safer = load(tmp_path, body, lstm={"risk_fraction": 0.02, "max_portfolio_fraction": 0.5})
    assert asked(safer)["adjust"] == (pytest.approx(1_000 * 0.02 / (0.10 + COSTS) - 50.0), "more")
    full = load(tmp_path, body, lstm={"risk_fraction": 0.005})
    assert asked(full)["adjust"] is None  # the position is as large as its risk allows
    less = load(tmp_path, FULL.replace("return 25.0", "return -25.0"))
    assert asked(less)["adjust"] == (-25.0, "more")


ATTRIBUTES = """
    protections = [{"method": "CooldownPeriod", "stop_duration_candles": 99}]
    plot_config = {"main_plot": {"ema": {}}, "subplots": {"RSI": {"rsi": {}}, "edge": {"x": {}}}}
    startup_candle_count = 400
"""
IN_INIT = """
    def __init__(self, config):
        super().__init__(config)
        self.protections = []
        self.plot_config = {"main_plot": {"ema": {}}}
        self.startup_candle_count = 30
"""


def test_their_attributes_are_theirs(tmp_path: Path) -> None:
    safer = load(tmp_path, ATTRIBUTES)
    assert [each["method"] for each in safer.protections] == ["CooldownPeriod"]
    assert {"ema", "lstm_due_low"} <= set(safer.plot_config["main_plot"])
    assert safer.plot_config["subplots"]["RSI"] == {"rsi": {}}
    assert safer.plot_config["subplots"]["edge"] == {"x": {}}
    assert safer.startup_candle_count == 400
    later = load(tmp_path, IN_INIT)
    assert later.protections == []
    assert {"ema", "lstm_due_low"} <= set(later.plot_config["main_plot"])
    assert later.startup_candle_count > 250  # what a forecast needs


def test_whoever_stands_in_front_of_the_mixin_is_told_to_go_behind(tmp_path: Path) -> None:
    body = "\nclass Wrong(Theirs, LSTMRisk):\n    pass\n"
    own = tmp_path / "mixed"
    own.mkdir()
    (own / "wrong.py").write_text(HEAD.format(name="Theirs", bases="IStrategy") + body)
    config = {"strategy": "Wrong", "strategy_path": str(own), "user_data_dir": tmp_path,
              "timeframe": "5m", "runmode": RunMode.BACKTEST, "exchange": {"name": "binance"},
              "stake_currency": "USDT", "stake_amount": 100.0, "lstm": {}}  # fmt: skip
    with pytest.raises(OperationalException, match=r"class Wrong\(LSTMRisk, Theirs\)"):
        StrategyResolver.load_strategy(config)


HEIKIN_ASHI = """
    def populate_indicators(self, dataframe, metadata):
        close = (dataframe["open"] + dataframe["high"] + dataframe["low"] + dataframe["close"]) / 4
        dataframe["open"] = (dataframe["open"].shift() + dataframe["close"].shift()) / 2
        dataframe["close"] = close
        return dataframe{more}
"""


@pytest.mark.parametrize("more", ["", ".iloc[5:].reset_index(drop=True)"])
def test_forecasts_are_of_the_markets_candles_whatever_theirs_makes_of_them(
    tmp_path: Path, more: str
) -> None:
    safer, candles = load(tmp_path, HEIKIN_ASHI.format(more=more)), make_candles(400)
    seen = []

    def outlook(given: Any) -> Outlook:
        seen.append(given)
        return Outlook(PAIR, given.date_ms, Terms(safer.lstm_settings, 0.001, can_short=True))

    safer._lstm_outlook = outlook
    frame = safer.populate_indicators(to_frame(candles), {"pair": PAIR})
    assert seen[0].close.tobytes() == candles.close.tobytes()
    market = to_frame(candles).set_index("date")["close"]
    assert frame["lstm_close"].tolist() == market[frame["date"]].tolist()
    assert len(frame) == 400 - (5 if more else 0)
    assert not np.allclose(frame["close"], frame["lstm_close"])


def staked(strategy: Any, rate: float = CLOSE, **words: Any) -> float:
    entry = {
        "pair": PAIR, "current_time": NOW, "current_rate": rate, "proposed_stake": 330.0,
        "min_stake": 5.0, "max_stake": 900.0, "leverage": 1.0, "entry_tag": "mine", "side": "long",
    }  # fmt: skip
    return float(strategy.custom_stake_amount(**{**entry, **words}))


def test_an_entry_within_two_ticks_of_its_stop_is_refused_by_name(tmp_path: Path) -> None:
    """On a pair near 1e-6, 24 of 73 trades once closed at their entry price after 0 minutes."""
    safer = load(tmp_path, lstm=OURS)
    foretell(safer, lowest=-0.02)
    safer.dp.frame["lstm_close"], safer.dp.tick = 1.01e-6, 1e-8
    denied = []
    safer._lstm_deny = lambda pair, code, text: denied.append(code)
    assert staked(safer, 1.01e-6) == 0.0
    assert staked(safer, 0.95e-6) == 0.0  # beyond it: a market state, no error
    assert denied == ["stop_near", "stop_near"]
    safer.dp.tick, safer._lstm_precision = 1e-10, {}
    assert staked(safer, 1.01e-6) > 0.0


@pytest.mark.parametrize(
    ("mode", "precision", "rate", "tick"),
    [(4, 0.01, 100.0, 0.01), (2, 3, 100.0, 0.001), (3, 5, 123.4, 0.01), (3, 5, 0.0123, 1e-6),
     (4, None, 100.0, 0.0)],
)  # fmt: skip
def test_a_tick_is_known_in_every_way_an_exchange_says_it(
    mode: int, precision: float | None, rate: float, tick: float
) -> None:
    assert tick_of(precision, mode, rate) == pytest.approx(tick)


def test_kelly_is_of_the_side_that_is_entered(tmp_path: Path) -> None:
    safer = load(tmp_path, lstm={"stop": "forecast"})
    foretell(safer)
    safer.dp.frame["lstm_kelly"] = 0.8
    for mean, long, short in ((0.01, 200.0, 0.0), (-0.01, 0.0, 200.0)):
        safer.dp.frame["lstm_mean"] = mean
        assert staked(safer, entry_tag="lstm_long") == pytest.approx(long)
        assert staked(safer, entry_tag="lstm_short", side="short") == pytest.approx(short)


def test_an_entry_by_hand_under_a_tag_of_its_own_needs_no_forecast(tmp_path: Path) -> None:
    safer = load(tmp_path, lstm=OURS)
    foretell(safer)
    safer.dp.frame["lstm_gate"], safer.dp.frame["enter_tag"] = "no_model", "ema"
    assert staked(safer, entry_tag="ema") == 0.0
    assert staked(safer, entry_tag="news") > 0.0


def test_what_is_known_of_ticks_is_known_where_there_is_no_exchange_any_more(
    tmp_path: Path,
) -> None:
    """As in the processes of hyperopt."""
    safer = load(tmp_path, lstm={"stop": "forecast"})
    foretell(safer)
    safer._lstm_outlook = lambda given: Outlook(
        PAIR, given.date_ms, Terms(safer.lstm_settings, 0.001, can_short=True)
    )
    safer.populate_indicators(to_frame(make_candles(400)), {"pair": PAIR})
    for gone in (None, SimpleNamespace(_api=None)):  # the second with `--analyze-per-epoch`
        safer.dp._exchange = gone
        assert safer._lstm_tick(PAIR, CLOSE) == 0.01
        assert safer._lstm_tick("NEW/USDT", CLOSE) == 0.0
        assert staked(safer) > 0.0


def methods(body: str) -> dict[str, str]:
    """Name -> text of every method of a class's body."""
    found = {}
    for text in body.split("    def ")[1:]:
        found[text.split("(")[0]] = f"    def {text.rstrip()}\n"
    return found


WRITTEN = {name: [methods(body)[name] for body in SIGNATURES.values()] for name in methods(FULL)}
BODIES = st.fixed_dictionaries(
    {name: st.sampled_from([*texts, ""]) for name, texts in WRITTEN.items()}
)
ANSWERS = st.fixed_dictionaries({
    "return 40.0": st.sampled_from([0.0, 4.0, 60.0, 120.0, 900.0]),
    "return 2.0": st.sampled_from([1.0, 3.0, 20.0]),
    "return -0.03": st.sampled_from([-0.001, -0.09, -0.5, None]),
    "return 25.0, \"more\"": st.sampled_from([None, -25.0, 30.0, 500.0]),
})  # fmt: skip
OPTIONS = st.fixed_dictionaries({}, optional={
    "stop": st.sampled_from(["strategy", "forecast"]), "hold_candles": st.sampled_from([3, 12, 96]),
    "stop_trails": st.booleans(), "max_leverage": st.sampled_from([1.0, 5.0]),
    "stake": st.just("steady"), "risk_fraction": st.sampled_from([0.002, 0.02]),
})  # fmt: skip


@pytest.mark.lengthy
@hypothesis.settings(max_examples=60, deadline=None)
@given(BODIES, ANSWERS, OPTIONS, st.booleans())
def test_whatever_they_answer_in_whatever_signature_ours_only_bounds_it(
    bodies: dict[str, str], answers: dict[str, Any], options: dict[str, Any], known: bool
) -> None:
    body = "    use_custom_stoploss = True\n" + "".join(bodies.values())
    for old, new in answers.items():
        body = body.replace(old, f"return {new}")
    with TemporaryDirectory() as folder:
        plain, safer = (load(Path(folder), body, mixin=on, lstm=options) for on in (False, True))
        if known:
            foretell(safer)
        theirs, ours = asked(plain), asked(safer)
        stops = []
        for strategy in (plain, safer):
            trade = trade_of()
            stoploss(strategy, trade)
            stops.append(trade.stop_loss)
    assert "failed" not in (*theirs.values(), *ours.values())
    same = ("start", "loop", "confirm", "filled")
    assert [ours[name] for name in same] == [theirs[name] for name in same]
    assert ours["stake"] <= theirs["stake"]
    assert ours["leverage"] == min(theirs["leverage"], options.get("max_leverage", 20.0))
    assert stops[1] >= stops[0]
    assert all(mine == their for mine, their in zip(ours["exit"], theirs["exit"], strict=True))
    assert amount_of(ours["adjust"]) <= max(amount_of(theirs["adjust"]), 0.0)
    assert amount_of(theirs["adjust"]) >= 0.0 or ours["adjust"] == theirs["adjust"]
    assert heard(safer) == heard(plain)


def amount_of(answer: Any) -> float:
    return float((answer[0] if isinstance(answer, tuple) else answer) or 0.0)


def added_to(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns of an outlook for 20 candles that a trend of numbers marks."""
    candles = make_candles(20)
    outlook = Outlook(PAIR, candles.date_ms, Terms(Settings(), 0.001, can_short=False))
    outlook.usual_width[:] = np.arange(20.0)
    return with_columns(frame, candles, outlook)


def test_our_columns_come_after_theirs_and_theirs_stay() -> None:
    frame = to_frame(make_candles(20)).assign(theirs=1.5)
    frame.index = pd.RangeIndex(100, 120)
    whole = added_to(frame)
    pd.testing.assert_frame_equal(whole[frame.columns], frame)
    assert whole["lstm_usual_width"].tolist() == list(range(20))
    kinds = whole[["lstm_mean", "lstm_side", "lstm_reason"]].dtypes.astype(str).tolist()
    words = str(pd.Series(["of this pandas"]).dtype)
    assert kinds == ["float64", "int64", words]


def test_a_frame_that_lost_a_candle_gets_each_its_own() -> None:
    whole = added_to(to_frame(make_candles(20)).drop(index=3))
    assert whole["lstm_usual_width"].tolist() == [float(n) for n in range(20) if n != 3]
    assert whole["lstm_reason"].tolist() == ["no_model"] * 19


def test_columns_that_are_there_are_renewed_in_their_place() -> None:
    frame = to_frame(make_candles(20)).assign(lstm_usual_width=-1.0, theirs=1.5)
    whole = added_to(frame)
    assert list(whole.columns[:8]) == list(frame.columns)
    assert whole.columns.is_unique
    assert whole["lstm_usual_width"].tolist() == list(range(20))
