"""`freqtrade hyperopt` tunes strategies in two processes and trains nothing per epoch.

What it finds is a parameter file that the next backtest obeys. The second example strategy is
backtested with and without `LSTMRisk`, side by side.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2e import PAIRS, SMALL, Bot, Outcome
from places import ROOT

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay

pytestmark = [pytest.mark.e2e, pytest.mark.long]

EPOCHS = 10
TRAINED = re.compile(r"(?:Training a network|Fine-tuning) on candles until")
MADE = re.compile(r"Model \w{16}, (?:trained|fine-tuned)")
# A forecast that moves enough to trade, whatever the networks have learnt by today.
CONFIDENT = '''

class Confident(Learnt):
    """The same with an invented mean, and a line in the log for every pair that is analyzed."""

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        print("analyzed", metadata["pair"])
        dataframe = super().populate_indicators(dataframe, metadata)
        mean = dataframe["close"].pct_change(5)
        known = {"lstm_gate": "", "lstm_mean": mean, "lstm_edge": mean.abs() - 0.002}
        return dataframe.assign(**known, lstm_kelly=(100.0 * mean).clip(0.0, 1.0))
'''


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=1, days=6)) as running:
        yield running


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange) -> Bot:
    """A user with six days of candles, strategies of their own and no model."""
    userdir = tmp_path_factory.mktemp("user") / "user_data"
    (userdir / "data" / "binance").mkdir(parents=True)
    shutil.copytree(ROOT / "strategies", userdir / "strategies")
    source = (ROOT / "strategies" / "lstm_strategy.py").read_text()
    mine = source.replace("class LSTMStrategy(", "class Learnt(") + CONFIDENT
    (userdir / "strategies" / "confident.py").write_text(mine)
    overlay = loopback_overlay(exchange.url)
    overlay["exchange"]["pair_whitelist"] = PAIRS
    options = {**SMALL, "store_dir": "lstm", "require_skill": False, "slippage_fraction": 0.0}
    bot = Bot(
        userdir,
        {
            **overlay,
            "timeframe": "1m",
            "strategy_path": str(userdir / "strategies"),
            "db_url": f"sqlite:///{userdir}/trades.sqlite",
            "fee": 0.0001,
            "lstm": options,
        },
    )
    outcome = bot.run("download-data", "--days", "6", "-t", "1m")
    assert outcome.code == 0, outcome.text
    return bot


@pytest.fixture(scope="module")
def time_range() -> str:
    now = datetime.now(UTC)
    start, stop = (int((now - timedelta(days=days)).timestamp()) for days in (1.6, 0.1))
    return f"--timerange={start}-{stop}"


def tune(bot: Bot, strategy: str, count: int, time_range: str) -> Outcome:
    outcome = bot.run(
        "hyperopt", "--strategy", strategy, "--hyperopt-loss", "OnlyProfitHyperOptLoss",
        "-e", str(count), "--spaces", "buy", "sell", "-j", "2", "--random-state", "1",
        "--min-trades", "1", time_range,
    )  # fmt: skip
    assert outcome.code == 0, outcome.text
    assert "Traceback" not in outcome.text
    return outcome


@pytest.fixture(scope="module")
def first(bot: Bot, time_range: str) -> Outcome:
    return tune(bot, "LSTMStrategy", 4, time_range)


@pytest.fixture(scope="module")
def tuned(bot: Bot, first: Outcome, time_range: str) -> Outcome:
    return tune(bot, "Confident", EPOCHS, time_range)


def learnt(bot: Bot) -> set[str]:
    """All models and the learner's steps."""
    store = bot.userdir / "lstm"
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def epochs(bot: Bot, strategy: str) -> list[dict[str, Any]]:
    (results,) = (bot.userdir / "hyperopt_results").glob(f"strategy_{strategy}_*.fthypt")
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_every_model_is_trained_once_and_none_per_epoch(
    bot: Bot, first: Outcome, time_range: str
) -> None:
    assert len(epochs(bot, "LSTMStrategy")) == 4
    assert TRAINED.search(first.text)
    assert set(Counter(MADE.findall(first.text)).values()) == {1}
    before = learnt(bot)
    outcome = bot.backtest(time_range)
    assert outcome.code == 0, outcome.text
    assert not TRAINED.search(outcome.text)
    assert learnt(bot) == before


def test_two_processes_try_other_parameters_on_columns_that_are_computed_once(
    bot: Bot, tuned: Outcome
) -> None:
    tried = epochs(bot, "Confident")
    assert len(tried) == EPOCHS
    parameters = {frozenset(epoch["params_dict"]) for epoch in tried}
    assert parameters == {frozenset({"lstm_min_edge", "lstm_kelly_fraction", "lstm_stop_multiple"})}
    assert len({epoch["total_profit"] for epoch in tried}) > EPOCHS // 2
    assert sorted(re.findall(r"analyzed (\S+)", tuned.text)) == sorted(PAIRS)
    assert not TRAINED.search(tuned.text)


def test_the_next_backtest_obeys_what_hyperopt_found(
    bot: Bot, tuned: Outcome, time_range: str
) -> None:
    best = min(epochs(bot, "Confident"), key=lambda epoch: float(epoch["loss"]))
    file = json.loads((bot.userdir / "strategies" / "confident.json").read_text())["params"]
    found = {**file["buy"], **file["sell"]}
    assert found == pytest.approx(best["params_dict"])
    outcome = bot.run("backtesting", "--strategy", "Confident", "--cache", "none", time_range)
    assert outcome.code == 0, outcome.text
    for name, value in found.items():
        assert f"Strategy Parameter: {name} = {value}" in outcome.text
    trades = re.search(r"│\s*Confident │\s*(\d+)", outcome.text)
    assert trades
    assert int(trades[1]) == best["results_metrics"]["total_trades"]


def test_a_users_own_entries_with_and_without_the_mixin_side_by_side(
    bot: Bot, first: Outcome, time_range: str
) -> None:
    outcome = bot.run(
        "backtesting", "--strategy-list", "EmaCross", "EmaCrossLSTM", "--cache", "none", time_range
    )
    assert outcome.code == 0, outcome.text
    rows = dict(re.findall(r"│\s*(EmaCross(?:LSTM)?) │\s*(\d+)", outcome.text))
    assert int(rows["EmaCross"]) >= int(rows["EmaCrossLSTM"]) > 0
