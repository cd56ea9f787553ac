"""`verify` and `replay` on futures: every timeframe, both sides, leverage, funding, real orders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e import SMALL, Outcome, environment
from places import ROOT, STRATEGIES
from test_e2e_replay import Replay

pytestmark = [pytest.mark.e2e, pytest.mark.long]

FUTURES, SPOT = ("BTC/USDT:USDT", "SOL/USDT:USDT"), ("BTC/USDT", "SOL/USDT")
OPTIONS = {
    **SMALL, "max_epochs": 2, "train_candles": 1_000, "test_fraction": 0.3, "trade_stream": False,
    "promotion_error": 0.49, "require_skill": False, "slippage_fraction": 0.0, "max_leverage": 3,
}  # fmt: skip
STRATEGY = '''
from freqtrade.strategy import IStrategy, timeframe_to_minutes

from lstm_model import LSTMRisk


class Plain(IStrategy):
    """Long and short in turn, by the number of the candle; left by closed candles alone."""

    can_short = CAN_SHORT
    minimal_roi = {"0": 100}
    stoploss = -0.5
    startup_candle_count = 5

    def turn(self, dataframe, metadata):
        minutes = dataframe["date"].dt.hour * 60 + dataframe["date"].dt.minute
        return (minutes // timeframe_to_minutes(self.timeframe) + len(metadata["pair"])) % 8

    def populate_entry_trend(self, dataframe, metadata):
        turn = self.turn(dataframe, metadata)
        dataframe.loc[turn == 1, ["enter_long", "enter_tag"]] = (1, "swing")
        dataframe.loc[turn == 5, ["enter_short", "enter_tag"]] = (1, "swing")
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        turn = self.turn(dataframe, metadata)
        dataframe.loc[turn == 4, "exit_long"] = 1
        dataframe.loc[turn == 0, "exit_short"] = 1
        return dataframe

    def leverage(self, *args, **kwargs):
        return 3.0


class Swinging(LSTMRisk, Plain):
    pass
'''


@dataclass(frozen=True)
class Case:
    """What is verified: the words of a command beside those of all."""

    timeframe: str
    start: str
    end: str
    strategy: str
    command: str = "verify"
    words: tuple[str, ...] = ()
    pairs: tuple[str, ...] = FUTURES


STEPS = {"5m": "5m", "15m": "15m", "1h": "1h"}  # a look a candle, as trades are left by them
DAYS = {"1m": "8", "5m": "10", "15m": "26", "1h": "110"}  # before the window: enough to train on
CASES = {
    "1m": Case("1m", "2024-07-10T00:15", "2024-07-10T00:40", "LSTMStrategy", words=("-c", "live")),
    "5m": Case("5m", "2024-07-10T06:30", "2024-07-10T09:00", "Swinging"),
    "15m": Case("15m", "2024-07-10T04:00", "2024-07-10T11:00", "Swinging", words=("--orders",)),
    "1h": Case("1h", "2024-07-10T02:00", "2024-07-11T09:00", "Swinging"),
    "spot": Case("5m", "2024-07-10T06:30", "2024-07-10T09:00", "Swinging", "replay",
                 ("--orders",), SPOT),
}  # fmt: skip


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("futures")
    (folder / "user_data").mkdir()
    for mode in ("spot", "futures"):
        (folder / mode).mkdir()
        text = STRATEGY.replace("CAN_SHORT", str(mode == "futures"))
        (folder / mode / "swinging.py").write_text(text)
        shutil.copy(STRATEGIES / "lstm_strategy.py", folder / mode)
        config = {
            "lstm": OPTIONS, "minimal_roi": {"0": 100}, "strategy_path": str(folder / mode),
            **({"trading_mode": mode, "margin_mode": "isolated"} if mode == "futures" else {}),
        }  # fmt: skip
        if mode == "futures":
            config["minimal_roi"] = {"0": 0.1}
        (folder / f"{mode}.json").write_text(json.dumps(config))
    sharp = {**OPTIONS, "trade_stream": True, "train_candles": 10_000, "max_epochs": 6}
    (folder / "live.json").write_text(json.dumps({"lstm": sharp, "fee": 0.0}))
    return folder


def arguments(user: Path, case: Case, folder: Path) -> list[str]:
    mode = "spot" if case.pairs == SPOT else "futures"
    words = [str(user / f"{word}.json") if word == "live" else word for word in case.words]
    pairs = [word for pair in case.pairs for word in ("-p", pair)]
    return [
        case.command, "-c", "config.json", "-c", str(user / f"{mode}.json"), *words,
        "--userdir", str(user / "user_data"), *pairs, "-t", case.timeframe, "-s", case.strategy,
        "--from", case.start, "--to", case.end, "--data", "synthetic", "--seed", "3",
        "--days-before", DAYS[case.timeframe],
        "--folder", str(folder), "--overwrite", "--step", STEPS.get(case.timeframe, "60s"),
        *(("--tolerance", "1") if case.command == "verify" else ()),
    ]  # fmt: skip


def run(asked: Sequence[Sequence[str]], *options: str) -> list[Outcome]:
    """All of them in one process, one after the other."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "verifying.py"), *options], input=json.dumps(asked),
        cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def done(user: Path) -> dict[str, Replay]:
    """All cases, and what the one of 1h has learnt for the planted bug."""
    folders = {name: user / name for name in CASES}
    asked = [arguments(user, case, folders[name]) for name, case in CASES.items()]
    outcomes = run(asked)
    return {
        name: Replay(outcome, folders[name])
        for name, outcome in zip(CASES, outcomes, strict=True)
    }  # fmt: skip


VERIFIED = [name for name, case in CASES.items() if case.command == "verify"]


@pytest.mark.parametrize("name", VERIFIED)
def test_forecasts_of_every_timeframe_are_equal_and_trades_explained(
    done: dict[str, Replay], name: str
) -> None:
    text = done[name].outcome.text
    found = re.search(r"Forecasts: (\d+) of \1 are equal to the last bit", text)
    assert found, text
    assert int(found[1]) >= 2 * 25
    made = re.search(r"Trades: (\d+) made by both", text)
    assert made, text
    assert int(made[1]) >= 3
    assert "have no explanation" not in text
    assert "unexplained" not in text
    assert (done[name].outcome.code, "and kept its profit within" in text) == (0, True), text


@pytest.mark.parametrize("name", [name for name in VERIFIED if name != "1m"])
def test_both_sides_are_traded_with_leverage_and_pay_what_funding_was_due(
    done: dict[str, Replay], name: str
) -> None:
    trades = done[name].trades(closed=True)
    assert {bool(trade["is_short"]) for trade in trades} == {False, True}
    assert {trade["leverage"] for trade in trades} == {3.0}
    assert any(trade["funding_fees"] for trade in trades)
    text = done[name].outcome.text
    (promised, kept) = re.findall(
        r"[pk]\w+ ([+-]\d+\.\d{4})", re.findall(r"Funding in .*", text)[0]
    )
    assert float(promised) == pytest.approx(float(kept), abs=2e-3)
    assert float(kept) == pytest.approx(sum(trade["funding_fees"] for trade in trades), abs=1e-4)


@pytest.mark.parametrize("name", ["15m", "spot"])
def test_real_orders_are_on_the_account_as_freqtrade_has_them(
    done: dict[str, Replay], name: str
) -> None:
    replay = done[name]
    text = re.sub(r"\s+", " ", replay.outcome.text)
    assert replay.outcome.code == 0, text
    assert "real orders on a practice account, none reached another exchange" in text
    orders, trades = replay.stored("orders"), replay.trades()
    assert len(trades) >= 3
    assert re.search(
        rf"Account: {len(orders)} orders, \d+ open position\(s\) and [\d,.]+ USDT on the practice "
        rf"account are those of freqtrade's {len(trades)} trades", text,
    ), text  # fmt: skip
    assert {order["status"] for order in orders} == {"closed"}
    assert all(order["order_id"].startswith("50000") for order in orders)  # the account's numbers
    assert "which no trade of this bot explains" not in replay.log
    assert not [line for line in replay.log.splitlines() if " - ERROR - " in line]
    assert "Traceback" not in replay.outcome.text + replay.log


def test_a_planted_funding_of_the_wrong_sign_is_found_however_small(
    user: Path, done: dict[str, Replay]
) -> None:
    """The profit is kept, the forecasts are equal: only the market's own payments show it."""
    folder = user / "planted"
    for store in ("live", "backtest"):
        shutil.copytree(done["1h"].folder / store, folder / store,
                        ignore=shutil.ignore_patterns("journal.sqlite*"))  # fmt: skip
    (outcome,) = run([arguments(user, CASES["1h"], folder)], "--plant", "funding")
    assert outcome.code == 1, outcome.text
    assert re.search(r"Forecasts: (\d+) of \1 are equal", outcome.text)
    assert re.search(r"the bot booked [+-][\d.]+, the market's payments .* make", outcome.text)
    assert "the backtest booked" not in outcome.text
    verdict = re.findall(r"Not verified: .*", outcome.text)
    assert verdict
    assert re.search(r"the funding of \d+ trade\(s\) is not what the market paid", verdict[0])
    assert "profit was not kept" not in verdict[0]
