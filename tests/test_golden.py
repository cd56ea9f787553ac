"""What the machinery makes of a fixed market and a fixed network, number by number.

The numbers were written down by `python tests/test_golden.py` and are there so that a change of
structure shows that it changed nothing else. On the kind of machine and the NumPy that wrote them
they must be equal to the last bit, elsewhere to nine digits.
"""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from freqtrade.enums import RunMode
from freqtrade.persistence import LocalTrade, disable_database_use, enable_database_use
from freqtrade.resolvers import StrategyResolver
from nowcast_world import SETTINGS, make_model
from places import STRATEGIES, TESTS
from series import STEP_MS, make_candles, same_bits, to_frame, with_context, with_flow

from lstm_model.features.closed_candle import WARM_UP, compute_features
from lstm_model.market.candles import Candles
from lstm_model.model.calibration import Calibration, Widths
from lstm_model.model.dataset import build_panel
from lstm_model.trading.outlook import Frame, Outlook, Terms

NUMBERS = TESTS / "golden" / "numbers.npz"
PAIRS = ("BTC/USDT", "ETH/USDT")
SHOWN = 200  # candles that are forecast; those before warm up
EVERY = 10  # of these, how many apart stakes and stops are asked for
FREE = {"require_skill": False, "slippage_fraction": 0.0, "half_spread_fraction": 0.0}
TERMS = Terms(SETTINGS.model_copy(update=FREE), fee_fraction=0.0, can_short=True)


def market() -> dict[str, Candles]:
    plain = [make_candles(WARM_UP + SHOWN, pair=pair, seed=n) for n, pair in enumerate(PAIRS)]
    return {
        candles.pair: with_context(with_flow(candles, seed=seed), plain[0], seed=seed)
        for seed, candles in enumerate(plain)
    }


def outlook_of(candles: Candles) -> Outlook:
    """Forecasts of the newest candles by a network of random weights that believes in itself."""
    widths = Widths.neutral(SETTINGS.levels)._replace(labels=10_000, usual=-7.0)
    calibration = Calibration(SETTINGS.levels, 1.0, 0.1, {candles.pair: widths})
    outlook = Outlook(candles.pair, candles.date_ms, TERMS)
    rows = np.arange(len(candles) - SHOWN, len(candles))
    model = replace(make_model(), calibration=calibration, p_value=0.0)
    outlook.fill(model, Frame(candles, TERMS.settings), rows)
    return outlook


class Provider:
    """Analyzed candles until now."""

    def __init__(self, frames: dict[str, pd.DataFrame]) -> None:
        self.frames, self.count = frames, 0

    def get_analyzed_dataframe(self, pair: str, timeframe: str) -> tuple[pd.DataFrame, None]:
        return self.frames[pair].iloc[: self.count], None

    def market(self, pair: str) -> None:
        """Nothing is known of its ticks."""

    _exchange = None


class Wallets:
    def get_total_stake_amount(self) -> float:
        return 1_000.0


def strategy_of(name: str, frames: dict[str, pd.DataFrame]) -> Any:
    config = {
        "strategy": name, "strategy_path": str(STRATEGIES), "user_data_dir": Path("nowhere"),
        "timeframe": "5m", "stake_currency": "USDT", "stake_amount": 100.0, "max_open_trades": 3,
        "dry_run": True, "runmode": RunMode.BACKTEST, "trading_mode": "futures",
        "exchange": {"name": "binance"},
        "lstm": {"horizon": 3, "max_leverage": 3.0, "risk_fraction": 0.004, **FREE},
    }  # fmt: skip
    strategy = StrategyResolver.load_strategy(config)
    strategy.dp, strategy.wallets = Provider(frames), Wallets()
    strategy.ft_load_hyper_params()
    return strategy


def trade_of(pair: str, rate: float, when: pd.Timestamp, short: bool) -> LocalTrade:
    return LocalTrade(
        id=1, pair=pair, stake_amount=200.0, amount=200.0 / rate, open_rate=rate, open_date=when,
        fee_open=0.0, fee_close=0.0, is_open=True, is_short=short, leverage=2.0, orders=[],
        exchange="binance", enter_tag="lstm_short" if short else "lstm_long",
        precision_mode_price=4, stop_loss=rate * (1.2 if short else 0.8),
    )  # fmt: skip


def asked(strategy: Any, frame: pd.DataFrame, number: int, short: bool) -> list[float]:
    """Stakes with two tags, leverage, stop, exit and reduction at a candle."""
    side, rate, now = "short" if short else "long", frame["close"].iloc[number], None
    now = frame["date"].iloc[number] + timedelta(minutes=5)
    strategy.dp.count = number + 1
    trade = trade_of(PAIRS[0], rate, now - timedelta(minutes=20), short)
    common = {"pair": PAIRS[0], "current_time": now, "current_rate": rate}
    entry = {**common, "proposed_stake": 900.0, "min_stake": 1.0, "max_stake": 1_900.0,
             "leverage": 2.0, "side": side}  # fmt: skip
    stakes = [strategy.custom_stake_amount(**entry, entry_tag=tag)
              for tag in (trade.enter_tag, "theirs", "force_entry")]  # fmt: skip
    geared = strategy.leverage(
        **common, proposed_leverage=1.0, max_leverage=20.0, entry_tag=None, side=side
    )
    of_trade = {**common, "trade": trade, "current_profit": 0.0}
    stop = strategy.custom_stoploss(**of_trade, after_fill=False)
    leaves = strategy.custom_exit(**of_trade) if type(strategy).__name__ == "LSTMStrategy" else None
    return [*stakes, geared, np.nan if stop is None else stop, len(leaves or "")]


def numbers() -> dict[str, np.ndarray]:
    """All that must not change, by name."""
    found, frames, candles = {}, {}, market()
    for pair, series in candles.items():
        features = compute_features(series, order_flow=True)
        found[f"{pair} features"] = features.rows
        found[f"{pair} volatility"] = features.volatility
        columns = outlook_of(series).columns(series.close, STEP_MS)
        for name, column in columns.items():
            text = column.dtype == object
            found[f"{pair} {name}"] = np.array([str(x) for x in column]) if text else column
        frames[pair] = to_frame(series).assign(**columns)
    panel = build_panel(list(candles.values()), SETTINGS)
    found["targets"], found["usable"] = panel.target(), panel.usable
    found["lowest"], found["highest"] = panel.lowest, panel.highest
    for name in ("LSTMStrategy", "EmaCrossLSTM"):
        strategy = strategy_of(name, frames)
        frame = frames[PAIRS[0]].copy()
        if name == "LSTMStrategy":
            frame = strategy.populate_entry_trend(frame, {"pair": PAIRS[0]})
            for column in ("enter_long", "enter_short", "lstm_side"):
                found[f"{name} {column}"] = frame[column].to_numpy(dtype=float)
            strategy.dp.frames = {**frames, PAIRS[0]: frame}
        for short in (False, True):
            rows = range(len(frame) - SHOWN, len(frame), EVERY)
            found[f"{name} {'short' if short else 'long'}"] = np.array(
                [asked(strategy, frame, row, short) for row in rows]
            )
    return found


def machine() -> str:
    """What the last bits of a result depend on."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return json.dumps([np.__version__, pd.__version__, platform.machine(), simd])


@pytest.fixture(scope="module", autouse=True)
def database() -> Any:
    disable_database_use("5m")
    yield
    enable_database_use()


@pytest.mark.lengthy
def test_a_fixed_market_and_network_give_the_same_features_forecasts_stakes_and_stops() -> None:
    found = numbers()
    with np.load(NUMBERS, allow_pickle=False) as written:
        assert set(found) == set(written.files) - {"machine"}
        alike = str(written["machine"]) == machine()
        for name, values in found.items():
            if values.dtype.kind in "US":
                assert values.tolist() == written[name].tolist(), name
            elif alike:
                assert same_bits(values.astype(float), written[name].astype(float)), name
            else:
                np.testing.assert_allclose(values, written[name], rtol=1e-9, err_msg=name)


if __name__ == "__main__":
    disable_database_use("5m")
    NUMBERS.parent.mkdir(exist_ok=True)
    np.savez_compressed(NUMBERS, **numbers(), machine=np.array(machine()))
