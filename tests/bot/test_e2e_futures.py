"""Unmodified freqtrade on USD-M futures, long and short; only the exchange is ours."""

import base64
import json
import re
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from e2e import FUTURES, Bot, Outcome, Trading, bot_in, closed_trades, free_port, run_lstm
from places import ROOT

from lstm_model.market.flow_store import FlowStore
from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.perpetual import FUNDING_MS, Perpetual, perpetuals

pytestmark = [pytest.mark.e2e, pytest.mark.long]

DAYS = 1.1  # a midnight and a noon are in it, and so a training and a fine-tuning
SERVER = {
    "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": free_port(),
    "username": "tester", "password": "a-password-for-tests", "jwt_secret_key": "for tests" * 5,
}  # fmt: skip
TRAINED = re.compile(r"(Training a network|Fine-tuning) on candles until")
# A candle's forecast that always enters, long and short: the trades have to decide.
EAGER = """

class LSTMStrategy(Learnt):
    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe = super().populate_indicators(dataframe, metadata)
        mean = -0.003 if metadata["pair"].startswith("BTC") else 0.003
        known = {"lstm_gate": "", "lstm_mean": mean, "lstm_edge": 0.002, "lstm_kelly": 0.5}
        return dataframe.assign(**known)
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    """On which one frame in thirty is no trade, so that a minute of three pairs has some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstm_model.practice.perpetual._NA_FRACTION", 0.03)
        with LoopbackExchange(open_market("synthetic", seed=5, days=7)) as running:
            yield running


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange) -> Bot:
    """A user who has downloaded candles, and allows a leverage that the exchange would not take."""
    bot = bot_in(tmp_path_factory.mktemp("user"), exchange, "futures")
    outcome = bot.run("download-data", "--days", "7", "-t", "1m")
    assert outcome.code == 0, outcome.text
    # Before the first candle by more than `training_lag_candles`, at whatever time of day.
    since = (datetime.now(UTC) - timedelta(days=DAYS + 0.02)).strftime("%Y%m%d")
    return bot.with_lstm(
        require_skill=False, slippage_fraction=0.0, max_leverage=2.5, learn_from=since
    )


@pytest.fixture(scope="module")
def time_range() -> str:
    now = datetime.now(UTC)
    start, stop = (int((now - timedelta(days=days)).timestamp()) for days in (DAYS, 0.1))
    return f"--timerange={start}-{stop}"


@pytest.fixture(scope="module")
def first(bot: Bot, time_range: str) -> Outcome:
    outcome = bot.backtest(time_range)
    assert outcome.code == 0, outcome.text
    return outcome


def future_of(exchange: LoopbackExchange, pair: str) -> Perpetual:
    found = perpetuals(exchange.market).listing(pair.partition(":")[0].replace("/", ""))
    assert isinstance(found, Perpetual)
    return found


def stored(bot: Bot, pair: str, kind: str) -> pd.DataFrame:
    name = re.sub("[/:]", "_", pair)
    return pd.read_feather(bot.userdir / "data" / "binance" / "futures" / f"{name}-{kind}.feather")


def test_candles_mark_prices_and_funding_rates_are_downloaded(
    bot: Bot, exchange: LoopbackExchange
) -> None:
    for pair in FUTURES:
        future = future_of(exchange, pair)
        assert len(stored(bot, pair, "1m-futures")) > 6 * 1440
        mark, funding = stored(bot, pair, "1h-mark"), stored(bot, pair, "1h-funding_rate")
        hours = mark["date"].to_numpy("datetime64[ms]").astype(np.int64)[1:]  # the market has begun
        decimals = future.instrument.price_decimals
        assert mark["open"][1:].tolist() == (future.marks(hours) / 10**decimals).tolist()
        due = funding["date"].to_numpy("datetime64[ms]").astype(np.int64)
        assert set(np.diff(due)) == {FUNDING_MS}
        rates = [each.rate for each in future.fundings(int(due[0]), int(due[-1]))]
        assert funding["funding_rate"].tolist() == rates


def owed(exchange: LoopbackExchange, trade: dict[str, Any]) -> float:
    """The funding of a closed trade by the exchange's truth; positive: it was received."""
    future = future_of(exchange, trade["pair"])
    span = trade["open_timestamp"], trade["close_timestamp"]
    unit = 10.0**-future.instrument.price_decimals
    paid = sum(each.rate * each.mark * unit for each in future.fundings(*span))
    return float(paid * trade["amount"] * (1.0 if trade["is_short"] else -1.0))


def test_a_backtest_walks_forward_long_and_short_and_pays_funding(
    bot: Bot, first: Outcome, exchange: LoopbackExchange
) -> None:
    assert set(TRAINED.findall(first.text)) == {"Training a network", "Fine-tuning"}
    trades = closed_trades(bot)
    sides = [trade["is_short"] for trade in trades]
    assert min(sides.count(True), sides.count(False)) > 5
    assert {trade["enter_tag"] for trade in trades} == {"lstm_long", "lstm_short"}
    assert {trade["leverage"] for trade in trades} == {2.0}
    fees = [trade["funding_fees"] for trade in trades]
    assert fees == pytest.approx([owed(exchange, trade) for trade in trades], abs=1e-9)
    assert any(fees)


RECKLESS = """
from freqtrade.strategy import IStrategy

class Reckless(IStrategy):
    timeframe, can_short, stoploss = "1m", True, -0.99
    minimal_roi = {"0": 10.0}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        side = "enter_short" if metadata["pair"].startswith("SOL") else "enter_long"
        return dataframe.assign(**{side: 1})

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def leverage(self, pair, **kwargs):
        return 50.0
"""


def test_a_position_beyond_its_margin_is_liquidated_in_a_backtest(
    bot: Bot, time_range: str
) -> None:
    """By the leverage tiers that freqtrade ships, on our candles."""
    folder = bot.userdir / "reckless"
    folder.mkdir()
    (folder / "strategy.py").write_text(RECKLESS)
    outcome = bot.run(
        "backtesting", "--strategy", "Reckless", "--strategy-path", str(folder), "--cache", "none",
        "--export", "none", time_range,
    )  # fmt: skip
    assert outcome.code == 0, outcome.text
    found = re.search(r"│\s*liquidation │\s*(\d+)", outcome.text)
    assert found
    assert int(found[1]) > 0


def test_order_flow_of_futures_is_downloaded(bot: Bot) -> None:
    done = run_lstm("download-flow", *bot.options(), "--days", "2")
    assert done.code == 0, done.text
    assert len(re.findall(r"100\.0% of the range covered", done.text)) == len(FUTURES)


def test_the_bias_analyses_find_nothing(bot: Bot, first: Outcome, time_range: str) -> None:
    ahead = bot.run(
        "lookahead-analysis", "--strategy", "LSTMStrategy", time_range, "--fee", "0.0005",
        "--minimum-trade-amount", "5", "--targeted-trade-amount", "5", "-p", *FUTURES,
    )  # fmt: skip
    assert ahead.code == 0, ahead.text
    assert "LSTMStrategy: no bias detected" in ahead.text
    recursive = bot.run(
        "recursive-analysis", "--strategy", "LSTMStrategy", time_range, "-p", *FUTURES,
        "--startup-candle", "50", "199", "400",
    )  # fmt: skip
    assert recursive.code == 0, recursive.text
    assert "No lookahead bias on indicators found" in recursive.text
    assert "No variance on indicator(s) found due to recursive formula" in recursive.text
    assert not TRAINED.search(ahead.text + recursive.text)


def test_hyperopt_tunes_in_two_processes_and_trains_nothing(
    bot: Bot, first: Outcome, time_range: str
) -> None:
    outcome = bot.run(
        "hyperopt", "--strategy", "LSTMStrategy", "--hyperopt-loss", "OnlyProfitHyperOptLoss",
        "-e", "4", "--spaces", "buy", "sell", "-j", "2", "--random-state", "1",
        "--min-trades", "1", "--disable-param-export", time_range,
    )  # fmt: skip
    assert outcome.code == 0, outcome.text
    assert "Traceback" not in outcome.text
    assert not TRAINED.search(outcome.text)
    assert len([*(bot.userdir / "hyperopt_results").glob("strategy_LSTMStrategy_*.fthypt")]) == 1


def test_plot_dataframe_draws_the_band(bot: Bot, first: Outcome, time_range: str) -> None:
    pytest.importorskip("plotly", reason="plot-dataframe needs plotly: pip install plotly")
    outcome = bot.run("plot-dataframe", "--strategy", "LSTMStrategy", time_range)
    assert outcome.code == 0, outcome.text
    assert "is not found in your strategy" not in outcome.text
    page = bot.userdir / "plot" / "freqtrade-plot-BTC_USDT_USDT-1m.html"
    assert "lstm_" in page.read_text()


def test_a_replay_of_the_last_hours_trades_long_and_short_by_the_bot_itself(
    bot: Bot, first: Outcome
) -> None:
    """From the candles that were downloaded; it knows what the backtest has learnt."""
    folder = bot.userdir / "replayed"
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    span = [f"{now - timedelta(hours=hours):%Y-%m-%dT%H:%M}" for hours in (5, 3)]
    done = run_lstm(
        "replay", *bot.options(), "--from", span[0], "--to", span[1], "--folder", str(folder),
        "--data", str(bot.userdir / "data" / "binance"), "--strategy", "LSTMStrategy",
        "--models", str(bot.userdir / "lstm"),
    )  # fmt: skip
    assert done.code == 0, done.text
    log = (folder / "bot.log").read_text()
    assert "Trade stream: following 3 pair(s)" in log
    assert "could not be recovered" not in log
    with closing(sqlite3.connect(folder / "trades.sqlite")) as database:
        trades = database.execute("SELECT is_short, leverage, exit_reason FROM trades").fetchall()
    assert {short for short, _, _ in trades} == {0, 1}
    assert {leverage for _, leverage, _ in trades} == {2.0}
    assert {reason for _, _, reason in trades if reason} <= {
        "lstm_horizon", "lstm_turned", "stop_loss", "trailing_stop_loss", "lstm_stop_passed"
    }  # fmt: skip


def asked(what: str) -> Any:
    """What the bot's REST interface, and so FreqUI, says."""
    request = urllib.request.Request(f"http://127.0.0.1:{SERVER['listen_port']}/api/v1/{what}")
    words = f"{SERVER['username']}:{SERVER['password']}".encode()
    request.add_header("Authorization", f"Basic {base64.b64encode(words).decode()}")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
        return json.load(answer)


def has_stored_flow(bot: Bot, since_ms: int) -> bool:
    """Whether there is order flow of every pair and of a candle since then."""
    store = FlowStore(bot.userdir / "data" / "binance" / "flow")
    newest = (store.read(pair, "1m")["date_ms"].max(initial=0) for pair in FUTURES)
    return all(candle_ms > since_ms for candle_ms in newest)


def test_a_dry_run_follows_the_trades_and_misses_none_although_some_frames_are_none(
    bot: Bot, first: Outcome
) -> None:
    folder = bot.userdir / "eager"
    folder.mkdir()
    source = (ROOT / "strategies" / "lstm_strategy.py").read_text()
    (folder / "strategy.py").write_text(
        source.replace("class LSTMStrategy(", "class Learnt(") + EAGER
    )
    trained = run_lstm("train", *bot.options())
    assert trained.code == 0, trained.text
    eager = bot.with_lstm(require_fresh_stream=True)
    eager.overlay.update(fee=0.0, strategy_path=str(folder), api_server=SERVER)
    begun_ms, trading = time.time_ns() // 1_000_000, Trading(eager)
    try:
        assert trading.wait_for(lambda _: has_stored_flow(bot, begun_ms - 60_000), 180), (
            trading.text
        )
        assert "Trade stream: following 3 pair(s)" in trading.text
        assert re.search(r"inside the candle, entry: edge .*(confirmed|vetoed)", trading.text)
        shown = asked("pair_candles?pair=BTC/USDT:USDT&timeframe=1m")
        assert {"lstm_mean", "lstm_edge", "enter_short"} <= {*shown["columns"]}
        assert asked("show_config")["short_allowed"]
    finally:
        code = trading.stop()
    assert code in (0, 130)
    assert trading.tracebacks() == []
    assert "could not be recovered" not in trading.text
    store = FlowStore(bot.userdir / "data" / "binance" / "flow")
    for pair in FUTURES:
        assert store.read(pair, "1m")["coverage"][-1] == 1.0
