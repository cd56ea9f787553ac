"""The commands `replay` and `verify`: hours of the real bot in seconds, and a backtest beside it.

One replay is looked at from all sides: it begins with an empty store, trains, is fine-tuned and
trained anew, and trades. The market is always the same, and so is what happens in it.
"""

import json
import math
import re
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import look_at, needs_browser
from click.testing import CliRunner
from e2e import PAIRS, SMALL, Outcome, Running, run_lstm
from places import ROOT, STRATEGIES

from lstm_model.commands.main import main
from lstm_model.market.flow_store import FlowStore

pytestmark = pytest.mark.e2e

START, EARLIER, END = "2024-07-10T00:15", "2024-07-10T01:15", "2024-07-10T01:55"
OPTIONS = {
    **SMALL, "step_candles": 30, "finetune_candles": 60, "retrain_candles": 90,
    "promotion_error": 0.49, "require_skill": False, "slippage_fraction": 0.0,
}  # fmt: skip
EXITS = {"roi", "lstm_turned", "lstm_turned_inside", "lstm_horizon", "trailing_stop_loss"}
STORED = {"lstm_model", "lstm_forecast", "lstm_interval", "lstm_stake", "lstm_stop"}
MINUTE_MS = 60_000
OF_JOURNAL = ("created_ms", "at_ms", "candle_ms", "pair", "kind", "version", "reason", "text")
SECRETS = ("7654321:a-token-of-telegram-for-tests", "a-key-for-tests", "a-secret-for-tests")
PLANTING = [str(ROOT / "tests" / "planting.py")]


Row = dict[str, Any]


@dataclass(frozen=True)
class Replay:
    """A command that replays, and what it left."""

    outcome: Outcome
    folder: Path

    def stored(self, table: str) -> list[Row]:
        """A table of freqtrade's database."""
        return read_table(self.folder / "trades.sqlite", table)

    def journal(self, table: str) -> list[Row]:
        rows = read_table(self.folder / "live" / "journal.sqlite", table)
        return sorted(rows, key=lambda row: [str(row.get(name)) for name in OF_JOURNAL])

    def trades(self, *, closed: bool = False) -> list[Row]:
        return [trade for trade in self.stored("trades") if not (closed and trade["is_open"])]

    def messages(self) -> list[dict[str, Any]]:
        """What the bot would have sent by Telegram."""
        lines = (self.folder / "messages.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def log(self) -> str:
        return (self.folder / "bot.log").read_text()


def read_table(database: Path, table: str) -> list[Row]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]  # noqa: S608


def at_ms(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").timestamp() * 1000)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty user_data, and a configuration without costs but with secrets."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "user_data").mkdir()
    own = {"journal_url": f"sqlite:///{folder / 'own.sqlite'}"}  # which is not the replay's
    overlay = {
        "timeframe": "1m", "fee": 0.0, "minimal_roi": {"0": 0.003}, "lstm": {**OPTIONS, **own},
        "telegram": {"enabled": True, "token": SECRETS[0], "chat_id": "1"},
        "exchange": {"key": SECRETS[1], "secret": SECRETS[2]},
    }  # fmt: skip
    (folder / "mine.json").write_text(json.dumps(overlay))
    return folder


def configuration(user: Path) -> list[str]:
    return ["-c", "config.json", "-c", str(user / "mine.json"),
            "--userdir", str(user / "user_data")]  # fmt: skip


def window(user: Path, folder: Path, end: str) -> list[str]:
    """What a replay is asked for; all begin together, in the same market."""
    pairs = [word for pair in PAIRS for word in ("-p", pair)]
    return [
        *configuration(user), *pairs, "--from", START, "--to", end, "--data", "synthetic",
        "--seed", "3", "--days-before", "8", "--folder", str(folder),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(user: Path) -> Replay:
    """On a terminal, or what is taken for one."""
    folder = user / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        report = ["--report", str(folder.with_suffix(".html"))]
        outcome = run_lstm("replay", *window(user, folder, END), *report, "--life")
    assert outcome.code == 0, outcome.text
    return Replay(outcome, folder)


@pytest.fixture(scope="module")
def proof(user: Path) -> Replay:
    """The first hour of the same again, with a store of its own, and a backtest with another."""
    folder = user / "proof"
    return Replay(run_lstm("verify", *window(user, folder, EARLIER)), folder)


def test_a_replay_shows_how_far_it_is(whole: Replay) -> None:
    shown = re.findall(
        r"2024-07-10 (\d\d:\d\d) UTC, [\d,]+ x, balance [\d,.]+, \d+ open, (\d+) closed",
        whole.outcome.text,
    )
    times, closed = [time for time, _ in shown], [int(count) for _, count in shown]
    assert len({*times}) > 5
    assert times == sorted(times)
    assert closed == sorted(closed)
    assert closed[-1] > closed[0]


def test_a_replay_sums_up_what_its_database_and_journal_hold(whole: Replay) -> None:
    text = whole.outcome.text
    closed = whole.trades(closed=True)
    won = sum(trade["close_profit_abs"] > 0.0 for trade in closed)
    assert "2024-07-10 00:15 to 2024-07-10 01:55 UTC, 1 h 40 min in " in text
    assert f"Trades: {len(closed)} closed, {won} won" in text
    assert f"Learner: {len(whole.journal('decision'))} decisions" in text
    assert f"messages sent: {len(whole.messages())}" in text
    (made,) = re.findall(r"^Forecasts: ([\d,]+)$", text, re.MULTILINE)
    in_window = range(at_ms(START), at_ms(END))
    wanted = [row for row in whole.journal("forecast") if row["candle_ms"] in in_window]
    assert int(made.replace(",", "")) == len(wanted)
    assert "Simulated on the invented synthetic market (seed 3), no order reached" in text


def test_a_replay_is_reported_on_one_page_that_needs_no_other(whole: Replay) -> None:
    page = whole.folder.with_suffix(".html").read_text()
    closed = whole.trades(closed=True)
    text = re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
    assert page.startswith("<!doctype html>")
    assert f"Closed trades {len(closed)} " in text
    assert {word for word in (*PAIRS, "roi", "lstm_turned") if word not in text} == set()
    assert "<svg" in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//|<script", page)


@needs_browser
def test_a_browser_draws_the_page_and_complains_of_nothing(whole: Replay) -> None:
    view = look_at(whole.folder.with_suffix(".html"), 1_000, 1_400)
    assert view.console == ()
    assert view.colours > 100
    for line in ((0x1F, 0x5F, 0x8B), (0xA1, 0x78, 0x3A)):  # the wallet; buy and hold
        assert view.share(line, near=20) > 0.0002


def test_freqtrade_itself_reads_the_trades_of_a_replay(whole: Replay) -> None:
    database = f"sqlite:///{whole.folder / 'trades.sqlite'}"
    assert f"freqtrade show-trades --db-url {database}" in whole.outcome.text
    shown = run_lstm("show-trades", "--db-url", database, script=("-m", "freqtrade"))
    assert shown.code == 0, shown.text
    numbers = re.findall(r"Trade\(id=(\d+), ", shown.text)
    assert numbers == [str(trade["id"]) for trade in whole.trades()]


def test_every_candle_is_forecast_in_the_look_after_it_closed(whole: Replay) -> None:
    opened = range(at_ms(START) - MINUTE_MS, at_ms(END), MINUTE_MS)
    made, verdicts = whole.journal("forecast"), whole.journal("verdict")
    for pair in PAIRS:
        mine = [row for row in made if row["pair"] == pair]
        first = {row["candle_ms"]: row["created_ms"] for row in reversed(mine)}
        silent = [
            row["candle_ms"] for row in verdicts
            if row["pair"] == pair and row["reason"] == "no_data"
        ]  # fmt: skip
        assert len(silent) <= 2  # candles without a trade
        assert [candle for candle in opened if candle not in first] == silent
        waited = {first[candle] - candle - MINUTE_MS for candle in opened if candle in first}
        assert all(0 <= wait_ms <= MINUTE_MS for wait_ms in waited)


def trainings(replay: Replay) -> list[Row]:
    return [row for row in replay.journal("decision") if row["kind"] == "trained"]


def test_networks_are_trained_and_fine_tuned_at_their_times(whole: Replay) -> None:
    """The first from what was known; the others at the first look after their boundary."""
    made = trainings(whole)
    assert [(row["at_ms"], row["created_ms"]) for row in made] == [
        (at_ms("2024-07-10T00:00"), at_ms("2024-07-10T00:15:01")),
        (at_ms("2024-07-10T01:00"), at_ms("2024-07-10T01:01:01")),
        (at_ms("2024-07-10T01:30"), at_ms("2024-07-10T01:31:01")),
    ]
    how = [re.findall(r"^Model \w+, (trained|fine-tuned) ", row["text"]) for row in made]
    assert how == [["trained"], ["fine-tuned"], ["trained"]]
    cards = [json.loads(path.read_text()) for path in (whole.folder / "live").rglob("card.json")]
    ends = {card["version"]: card["train_end_ms"] for card in cards}
    assert [ends[row["version"]] for row in made] == [row["at_ms"] for row in made]


def test_what_the_learner_decided_is_told_logged_and_obeyed(whole: Replay) -> None:
    made = whole.journal("decision")
    assert {"trained", "promoted"} <= {row["kind"] for row in made}
    told = [message["msg"].replace("\\", "") for message in whole.messages() if "msg" in message]
    log = whole.log
    assert [row["text"] for row in made if row["text"] not in told] == []
    assert [row["text"] for row in made if row["text"] not in log] == []
    promoted = [row["version"] for row in made if row["kind"] == "promoted"]
    assert {row["version"] for row in whole.journal("forecast")} == {*promoted}


def test_trades_are_entered_and_left_by_the_forecast_and_say_why(whole: Replay) -> None:
    made = whole.trades()
    assert len(made) > 10
    assert {trade["enter_tag"] for trade in made} == {"lstm_long"}
    reasons = {trade["exit_reason"] for trade in whole.trades(closed=True)}
    assert {"roi", "lstm_turned"} <= reasons <= EXITS
    versions = {row["version"] for row in whole.journal("forecast")}
    stored: dict[int, dict[str, str]] = {trade["id"]: {} for trade in made}
    for row in whole.stored("trade_custom_data"):
        stored[row["ft_trade_id"]][row["cd_key"]] = row["cd_value"]
    for trade in made:
        mine = stored[trade["id"]]
        assert {*mine} == STORED
        assert mine["lstm_model"] in versions
        planned = json.loads(mine["lstm_stop"])["rate"]
        assert trade["stop_loss"] >= 0.9999 * planned  # moved towards profit only


def test_the_life_of_a_trade_is_what_database_and_journal_hold(whole: Replay) -> None:
    closed = sorted(whole.trades(closed=True), key=lambda it: (it["close_profit"], it["id"]))
    trade = closed[(len(closed) - 1) // 2]
    _, _, text = whole.outcome.text.partition("One trade's life\n")
    told = dict(re.findall(r"^  (\w+) +(.*)$", text, re.MULTILINE))
    assert f"{trade['pair']}, long, number {trade['id']}: the middle one" in told["trade"]
    mine = {
        row["cd_key"]: row["cd_value"] for row in whole.stored("trade_custom_data")
        if row["ft_trade_id"] == trade["id"]
    }  # fmt: skip
    said = json.loads(mine["lstm_forecast"])
    candle_ms = int(pd.Timestamp(said["candle"]).timestamp() * 1000)
    (row,) = (
        row for row in whole.journal("forecast")
        if (row["pair"], row["candle_ms"]) == (trade["pair"], candle_ms)
    )  # fmt: skip
    assert (
        f"by model {row['version']}, of the candle of {said['candle'][11:16]}" in told["forecast"]
    )
    assert f"{1e4 * row['mean']:+.1f} bps in the next 10 candles" in told["forecast"]
    edge = 1e4 * math.expm1(said["mean_bps"] / 1e4) - 2.0
    assert told["edge"].startswith(f"{edge:+.1f} bps, after 2.0 for the round trip (fees 0.0, ")
    stake = json.loads(mine["lstm_stake"])
    assert told["stake"].startswith(f"{trade['stake_amount']:,.2f} USDT, bounded by ")
    assert stake["text"].partition(": ")[2] in told["stake"]
    assert trade["open_date"][:19] in told["entry"]
    assert f"{trade['close_date'][:19]} UTC" in told["exit"]
    assert f": {trade['exit_reason']}, " in told["exit"]
    profit, ratio = trade["close_profit_abs"], trade["close_profit"]
    assert told["profit"].startswith(f"{profit:+,.2f} USDT ({ratio:+.2%}): the price's ")
    page = whole.folder.with_suffix(".html").read_text()
    assert f"number {trade['id']}: the middle one" in page


@pytest.mark.long
def test_what_a_store_has_learnt_is_not_trained_again(
    user: Path, whole: Replay, tmp_path: Path
) -> None:
    """Forecasts and trades are those of the replay that trained."""
    until, folder = "2024-07-10 00:34:30", tmp_path / "again"
    words = ["--models", str(whole.folder / "live"), "--note", "an invented market"]
    outcome = run_lstm("replay", *window(user, folder, "2024-07-10T00:35"), *words)
    assert "an invented market\n" in outcome.text
    again = Replay(outcome, folder)
    assert "Training a network" not in again.log
    assert "Training a network" in whole.log
    made, known = beginning(again, until), beginning(whole, until)
    for rows in (made, known):
        rows["messages"] = [row for row in rows["messages"] if "msg" not in row]
    assert made == known
    assert made["forecast"]


def test_every_entry_and_exit_is_told(whole: Replay) -> None:
    told = Counter(message["type"] for message in whole.messages())
    made, closed = len(whole.trades()), len(whole.trades(closed=True))
    assert (told["entry"], told["entry_fill"]) == (made, made)
    assert (told["exit"], told["exit_fill"]) == (closed, closed)


def test_trades_inside_the_candle_confirm_and_veto_and_are_kept_as_order_flow(
    whole: Replay,
) -> None:
    said = re.findall(r"inside the candle, entry: edge .*(confirmed|vetoed)", whole.log)
    assert {*said} == {"confirmed", "vetoed"}
    flows = FlowStore(whole.folder / "before" / "flow")
    for pair in PAIRS:
        flow = flows.read(pair, "1m")
        known = flow[(flow["date_ms"] >= at_ms(START)) & (flow["coverage"] == 1.0)]
        assert len(known) > 95


def test_nothing_goes_wrong_in_a_replay(whole: Replay) -> None:
    told = re.findall(r".* - (?:WARNING|ERROR|CRITICAL) - .*", whole.log)
    young = [line for line in told if "how volatile the 60 days before were" in line]
    assert (len(young), told) == (len(PAIRS), young)  # the market is eight days old
    assert "Traceback" not in whole.outcome.text + whole.log
    assert "Incidents: 1;" in whole.outcome.text  # these


def beginning(replay: Replay, until: str) -> dict[str, list[Row]]:
    """All that a bot had done by then; freqtrade draws the ids of its orders by lot."""
    columns = {
        "trades": "close_date", "orders": "order_update_date", "trade_custom_data": "created_at",
        "pairlocks": "lock_time",
    }  # fmt: skip
    done = {
        table: [row for row in replay.stored(table) if row[when] and row[when] <= until]
        for table, when in columns.items()
    }
    done |= {
        table: [row for row in replay.journal(table) if row["created_ms"] <= at_ms(until)]
        for table in ("forecast", "decision", "verdict")
    }
    done["orders"] = [{**row, "order_id": row["order_id"][:-36]} for row in done["orders"]]
    done["pairlocks"] = [{**row, "active": None} for row in done["pairlocks"]]  # later ones end
    done["messages"] = [
        message for message in replay.messages()
        if message["at"] <= until and not is_progress(message)
    ]  # fmt: skip
    return done


def is_progress(message: dict[str, Any]) -> bool:
    """Whether it tells how fast a training is."""
    return re.match(r"(Training a network|Fine-tuning) on", message.get("msg", "")) is not None


def test_a_replay_does_the_same_again_also_while_it_trains(whole: Replay, proof: Replay) -> None:
    """The other ends earlier, is made by `verify`, and has another store."""
    until = "2024-07-10 01:14:30"
    again, once = beginning(proof, until), beginning(whole, until)
    assert {name: len(rows) for name, rows in again.items()} == {
        name: len(rows) for name, rows in once.items()
    }
    assert again == once
    assert len(once["trades"]) > 5
    assert len(trainings(proof)) == 2


def test_verify_proves_that_all_forecasts_are_those_of_a_backtest(proof: Replay) -> None:
    text = proof.outcome.text
    opened = range(at_ms(START), at_ms(EARLIER), MINUTE_MS)
    made = {(row["pair"], row["candle_ms"]) for row in proof.journal("forecast")}
    count = sum((pair, candle) in made for pair in PAIRS for candle in opened)
    assert count > 170
    assert f"Forecasts: {count} of {count} are equal to the last bit" in text
    assert re.search(r"Trades: \d+ made by both", text)


def test_a_profit_that_was_not_kept_is_no_success(proof: Replay) -> None:
    """What trades inside the candle veto, a backtest enters; both take their ROI at its price."""
    text = proof.outcome.text
    assert proof.outcome.code == 1, text
    assert re.search(r"\nProfit: promised .* kept .* points", text)
    assert re.search(r"made by the (backtest|bot) alone: ", text)
    assert "backtest: roi at" not in text
    assert "Not verified: the profit was not kept within 0.3 points" in text


def test_the_backtest_learnt_for_itself_what_the_bot_learnt(proof: Replay) -> None:
    """Weights have the same bits too; of cards, only how long it took differs."""

    def learnt(store: str) -> dict[str, bytes]:
        folder = proof.folder / store / "models"
        return {path.parent.name: path.read_bytes() for path in folder.rglob("weights.npz")}

    assert learnt("backtest") == learnt("live")
    assert len(learnt("live")) == 3  # the baseline too


def prepared(whole: Replay, folder: Path) -> Path:
    """A folder for a replay that need not train: both stores know the models already."""
    for store in ("live", "backtest"):
        shutil.copytree(
            whole.folder / "live", folder / store, ignore=shutil.ignore_patterns("journal.sqlite*")
        )
    return folder


@pytest.mark.parametrize(
    ("bug", "equal", "cause"),
    [  # of the last candles there is none after
        ("look-ahead", 3, r'Cause: look-ahead\. "return_1" of the candle of 2024-07-10T00:1\d'),
        pytest.param(
            *("leader", 0, r'Cause: look-ahead\. "leader_\w+" of the candle of 2024-07-10T00:1\d'),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("scaler", 0, r"Cause: serving\. .* other weights or another scaler"),
            marks=pytest.mark.long,
        ),
    ],
    ids=["look-ahead", "leader", "scaler"],
)
def test_verify_names_a_planted_bug(
    user: Path, whole: Replay, tmp_path: Path, bug: str, equal: int, cause: str
) -> None:
    folder = tmp_path / "planted"
    if bug != "leader":  # of which a model that knew no bug learnt something else
        prepared(whole, folder)
    asked = window(user, folder, "2024-07-10T00:30")
    outcome = run_lstm("verify", *asked, script=[*PLANTING, bug])
    assert outcome.code == 1, outcome.text
    assert "Traceback" not in outcome.text
    assert f"Forecasts: {equal} of 45 are equal" in outcome.text
    assert re.search(cause, outcome.text), outcome.text
    assert "Not verified" in outcome.text


@pytest.mark.long
def test_a_leader_that_is_not_replayed_is_served_and_seen(user: Path, tmp_path: Path) -> None:
    """Versions are named after what was learnt from, so they are equal only if that is."""
    folder = tmp_path / "led"
    asked = window(user, folder, "2024-07-10T00:25")
    asked.remove(PAIRS[0])
    asked.remove("-p")
    outcome = run_lstm("verify", *asked)
    assert re.search(r"Forecasts: (\d+) of \1 are equal to the last bit", outcome.text)
    for known in ("before", "whole"):
        found = {path.name.split("-")[0] for path in (folder / known).glob("*.feather")}
        assert found == {pair.replace("/", "_") for pair in PAIRS}
    log = (folder / "bot.log").read_text()
    assert f"without {PAIRS[0]}" not in log
    assert f"what {PAIRS[0]} did" not in log


@pytest.mark.long
def test_bot_and_backtest_have_the_same_finer_candles(user: Path, tmp_path: Path) -> None:
    folder = tmp_path / "detailed"
    asked = [*window(user, folder, "2024-07-10T00:45"), "-t", "5m", "--timeframe-detail", "1m"]
    outcome = run_lstm("verify", *asked)
    assert "Traceback" not in outcome.text
    assert f"Inside a candle: the 1m candles of {', '.join(PAIRS)}\n" in outcome.text
    assert re.search(r"Forecasts: (\d+) of \1 are equal to the last bit", outcome.text)
    assert json.loads((folder / "backtest.json").read_text())["timeframe_detail"] == "1m"
    for pair in PAIRS:
        fine = pd.read_feather(folder / "whole" / f"{pair.replace('/', '_')}-1m.feather")
        assert len(fine) == 30
        whole = pd.read_feather(folder / "whole" / f"{pair.replace('/', '_')}-5m.feather")
        inside = whole[whole["date"] >= fine["date"].iloc[0]]
        made = fine.groupby(fine["date"].dt.floor("5min"))
        assert made["high"].max().tolist() == inside["high"].tolist()
        assert made["close"].last().tolist() == inside["close"].tolist()


CREEPING = '''
from lstm_strategy import LSTMStrategy  # freqtrade looks beside this file


class Creeping(LSTMStrategy):
    """Its stop follows every price that a bot sees; a backtest sees none of them."""

    use_custom_stoploss = True

    def custom_stoploss(self, **kwargs):
        return None if self.dp.runmode.value == "backtest" else -0.0002
'''


@pytest.mark.long
def test_verify_names_a_planted_stop_that_trails_inside_the_candle(
    user: Path, whole: Replay, tmp_path: Path
) -> None:
    """All forecasts are equal, every trade has its like: only the money shows it."""
    (tmp_path / "creeping.py").write_text(CREEPING)
    shutil.copy(STRATEGIES / "lstm_strategy.py", tmp_path)
    planted = tmp_path / "planted.json"
    planted.write_text(json.dumps({"strategy_path": str(tmp_path)}))
    asked = window(user, prepared(whole, tmp_path / "planted"), "2024-07-10T00:40")
    more = ["-c", str(planted), "-s", "Creeping", "--tolerance", "0.05"]
    outcome = run_lstm("verify", *asked, *more)
    assert outcome.code == 1, outcome.text
    assert "Traceback" not in outcome.text
    text = re.sub(r"\s+", " ", outcome.text)
    assert re.search(r"Forecasts: (7\d) of \1 are equal to the last bit", text)
    by_price = r"live: (?:trailing_)?stop_loss at \S+, by a price inside the candle"
    assert re.search(rf"backtest: (?!trailing)\w+ at \S+, by [\w ]+; {by_price}", text), text
    assert re.search(r"Not verified: the profit was not kept within 0\.05 points, .* apart", text)
    assert "have no explanation" not in text


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Our command within this process, where freqtrade need not be imported first."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> Outcome:
        result = CliRunner().invoke(main, arguments)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return Outcome(result.exit_code, result.output)

    return run


def check_journal(
    invoke: Callable[..., Outcome], user: Path, replay: Replay, candles: Path
) -> Outcome:
    return invoke(
        "verify", "--journal", *configuration(user), "-c", str(replay.folder / "replay.json"),
        "--datadir", str(candles), "--days", "10000",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # freqtrade's, of pandas
def test_verify_computes_the_journal_of_a_replay_again(
    invoke: Callable[..., Outcome], user: Path, proof: Replay
) -> None:
    outcome = check_journal(invoke, user, proof, proof.folder / "whole")
    assert (outcome.code, outcome.text) == (0, f"{len(proof.journal('forecast'))} equal\n")


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_a_candle_that_changed_since_is_found_by_the_forecasts_it_breaks(
    invoke: Callable[..., Outcome], user: Path, proof: Replay, tmp_path: Path
) -> None:
    shutil.copytree(proof.folder / "whole", tmp_path / "changed")
    file = tmp_path / "changed" / "SOL_USDT-1m.feather"
    candles = pd.read_feather(file)
    candles.loc[candles["date"] == pd.Timestamp("2024-07-10T01:02", tz="UTC"), "close"] *= 1.0001
    candles.to_feather(file)
    outcome = check_journal(invoke, user, proof, tmp_path / "changed")
    assert outcome.code == 1, outcome.text
    named = re.findall(r"^  (\S+) 2024-07-10 (\S+): (.*)", outcome.text, re.MULTILINE)
    assert [words[:2] for words in named[:2]] == [("SOL/USDT", "01:02"), ("SOL/USDT", "01:03")]
    assert "a close on disk, its own, is not the one that the bot saw" in named[0][2]
    made, changed_ms = proof.journal("forecast"), at_ms("2024-07-10T01:02")
    broken = [
        row for row in made if row["pair"] == "SOL/USDT" and row["candle_ms"] >= changed_ms
    ]  # fmt: skip
    assert f"{len(broken)} differs\n" in outcome.text
    assert f"{len(made) - len(broken)} equal\n" in outcome.text


def stopped_by(
    number: signal.Signals, arguments: list[str], when: Callable[[Running], bool]
) -> tuple[int, str]:
    """Exit status and all output of a replay that is stopped then."""
    folder = Path(arguments[arguments.index("--folder") + 1])
    command = [sys.executable, "-m", "lstm_model", "replay", *arguments]
    running = Running(command, folder.with_suffix(".log"))
    try:
        assert running.wait_for(lambda _: when(running), 90), running.text
    finally:
        code = running.stop(number)
    assert running.descendants() == []
    return code, running.text


def assert_stopped(code: int, text: str) -> None:
    assert code == 130, text
    assert re.search(r"2024-07-10 00:15 to 2024-07-10 0\d:\d\d UTC", text), text
    assert re.search(r"Stopped at 2024-07-10 0\d:\d\d UTC, before its end", text), text
    assert "Traceback" not in text


def test_ctrl_c_ends_a_replay_with_a_summary_even_while_it_trains(
    user: Path, tmp_path: Path
) -> None:
    """It may replace another one."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    for name in ("replay.json", "trades.sqlite", "messages.jsonl"):
        (folder / name).write_text("of the replay before")

    def trains(running: Running) -> bool:
        return any("fitting/start.py" in command for command in running.descendants())

    code, text = stopped_by(signal.SIGINT, [*window(user, folder, END), "--overwrite"], trains)
    assert_stopped(code, text)
    assert "Trades: none" in text
    assert read_table(folder / "trades.sqlite", "sqlite_master")


@pytest.mark.long
def test_sigterm_ends_a_replay_with_a_summary_too(
    user: Path, whole: Replay, tmp_path: Path
) -> None:
    folder = prepared(whole, tmp_path / "stopped")
    log = folder / "bot.log"

    def goes_on(_: Running) -> bool:
        return log.exists() and " 00:20:01," in log.read_text()

    code, text = stopped_by(signal.SIGTERM, window(user, folder, END), goes_on)
    assert_stopped(code, text)
    assert re.search(r"Forecasts: [1-9]\d*", text)


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_a_replay_is_not_replaced_unasked(
    invoke: Callable[..., Outcome], user: Path, proof: Replay
) -> None:
    before = everything(proof.folder)
    outcome = invoke("replay", *window(user, proof.folder, END))
    assert outcome.code == 1
    assert one_error(outcome).endswith("--overwrite to replace it, or another --folder")
    assert everything(proof.folder) == before


def test_a_wallet_of_several_currencies_is_refused_before_anything_is_replaced(
    invoke: Callable[..., Outcome], user: Path, proof: Replay, tmp_path: Path
) -> None:
    text, rich = (ROOT / "config.json").read_text(), tmp_path / "rich.json"
    rich.write_text(text.replace('"dry_run_wallet": 1000', '"dry_run_wallet": {"USDT": 9}'))
    before, asked = everything(proof.folder), window(user, proof.folder, END)
    asked[asked.index("config.json")] = str(rich)
    outcome = invoke("replay", *asked, "--overwrite")
    assert outcome.code == 1
    assert one_error(outcome).endswith("give --wallet")
    assert everything(proof.folder) == before


def one_error(outcome: Outcome) -> str:
    """The only line that is not about the usage."""
    (line,) = [
        line for line in outcome.text.splitlines()
        if line and not line.startswith(("Usage:", "Try "))
    ]  # fmt: skip
    return line


@pytest.fixture(scope="module")
def recorded(proof: Replay) -> Path:
    """Candles until the start of the window."""
    return proof.folder / "before"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (["-p", "DOGE/USDT"], '"synthetic" has no DOGE/USDT; there are BTC/USDT, '),
        (["--to", "2024-07-09"], "--to must be later than --from"),
        (["--from", "yesterday"], '"yesterday" is no time; give 2024-07-01 or'),
        (["--step", "soon"], '"soon" is no duration up to 24h; give one like 60s, 5m or 1h'),
        (["--step", "0"], '"0" is no duration up to 24h; give one like 60s, 5m or 1h'),
        (["--data", "nowhere"], "nowhere"),
        (["--incident", "party@2024-07-10T00:30"], "party"),
        (["-t", "7m"], "7m"),
    ],
    ids=lambda change: " ".join(change) if isinstance(change, list) else "",
)
def test_what_cannot_be_replayed_is_said_in_one_line(
    invoke: Callable[..., Outcome], user: Path, tmp_path: Path, change: list[str], wanted: str
) -> None:
    outcome = invoke("replay", *window(user, tmp_path / "never", END), *change)
    assert outcome.code != 0
    assert wanted in one_error(outcome)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (["--from", "2025-01-01", "--to", "2025-01-02"], r"2024-07-0\d.* 2024-07-10"),
        (["--to", "2024-07-10T00:16", "-p", "ETH/USDT"], "no recording of BTC/USDT covers"),
    ],
    ids=["no data", "no pair"],
)
def test_what_is_not_recorded_is_said_beside_what_is(
    invoke: Callable[..., Outcome], user: Path, recorded: Path, tmp_path: Path,
    change: list[str], wanted: str,
) -> None:  # fmt: skip
    asked = window(user, tmp_path / "never", END)
    outcome = invoke("replay", *asked, "--data", str(recorded), *change)
    assert outcome.code == 1
    assert re.search(wanted, one_error(outcome)), outcome.text


def test_nothing_of_a_replay_is_written_beside_its_folder(
    user: Path, whole: Replay, proof: Replay
) -> None:
    assert [*(user / "user_data").rglob("*.sqlite*")] == []
    assert not (user / "user_data" / "lstm").exists()


def test_a_replay_leaves_the_users_journal_alone_and_tells_nobody_a_secret(
    user: Path, whole: Replay, proof: Replay
) -> None:
    assert not (user / "own.sqlite").exists()
    files = [path for one in (whole, proof) for path in one.folder.rglob("*") if path.is_file()]
    texts = [path.read_bytes() for path in (*files, user / "whole.html")]
    texts += [one.outcome.text.encode() for one in (whole, proof)]
    assert len(texts) > 20
    assert not [secret for secret in SECRETS for text in texts if secret.encode() in text]
