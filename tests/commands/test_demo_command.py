"""Commands as processes: a closed terminal, a taken port, a closed pipe, a plain console."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from e2e import Running, run_lstm
from examples import further
from places import ROOT

from lstm_model.commands.demo import last_words, refuse_another_market, replayed_from
from lstm_model.commands.main import main
from lstm_model.errors import ConfigError

# A demo without the training and the backtest that take minutes before its dry run.
DEMO = """
import sys
from pathlib import Path
from lstm_model.commands.demo import Demo, ended_by_signals
from lstm_model.commands.terminal import console
from lstm_model.practice.exchange import LoopbackExchange, open_market

with LoopbackExchange(open_market("synthetic", days=21)) as exchange, ended_by_signals():
    demo = Demo(console, Path(sys.argv[1]), exchange.url)
    demo.prepare()
    demo.download()
    demo.trade(10.0)
"""


def soon(condition: Callable[[], bool], within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.mark.long
@pytest.mark.e2e
def test_who_closes_the_terminal_ends_the_bot_that_the_demo_has_started(tmp_path: Path) -> None:
    demo = Running([sys.executable, "-c", DEMO, str(tmp_path / "demo")], tmp_path / "log")
    log = tmp_path / "demo" / "demo.log"
    try:
        trades = soon(lambda: log.exists() and "Bot heartbeat" in log.read_text(), 180.0)
        assert trades, demo.text
        assert any("freqtrade trade" in command for command in demo.descendants())
    finally:
        code = demo.stop(signal.SIGHUP)
    assert code == 128 + signal.SIGHUP, demo.text
    assert soon(lambda: not demo.descendants(), 10.0), demo.descendants()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("futures", [False, True])
def test_a_demo_ends_with_trades_and_the_life_of_one(tmp_path: Path, futures: bool) -> None:
    folder = tmp_path / "demo"
    words = ["demo", "--minutes", "0.1", "--folder", str(folder), *["--futures"] * futures]
    done = run_lstm(*words, timeout_s=900.0)
    assert done.code == 0, done.text
    sides = set(re.findall(r"^\w+/USDT:USDT (long|short) ", done.text, re.MULTILINE))
    assert sides == ({"long", "short"} if futures else set())
    with closing(sqlite3.connect(folder / "replay" / "trades.sqlite")) as database:
        rows = database.execute("SELECT id, pair, exit_reason FROM trades WHERE NOT is_open")
        known = {number: rest for number, *rest in rows}
    assert 2 <= len(known) <= 30
    number = int(re.search(r"^  trade .*, number (\d+): ", done.text, re.MULTILINE)[1])
    pair, reason = known[number]
    side = "(long|short)" if futures else "long"
    assert re.search(rf"^  trade +{pair}, {side}, number {number}: ", done.text, re.MULTILINE)
    assert re.search(rf"^  exit .*: {reason}, ", done.text, re.MULTILINE)
    for chapter in ("forecast", "edge", "entry", "stake", "stop", "price", "profit"):
        assert re.search(rf"^  {chapter} +\S", done.text, re.MULTILINE), chapter
    assert "Dry run for 0.1 minutes" in done.text
    assert "Incidents: none;" in done.text, "a newcomer takes a warning for a fault"
    assert "is known of" not in done.text
    assert "an invented market that carries a learnable signal on purpose" in done.text
    page = (folder / "report.html").read_text()
    assert "an invented market that carries a learnable signal on purpose" in page
    assert "<svg" in page
    assert f"The replay in one page, with pictures: {folder / 'report.html'}" in done.text
    log = (folder / "replay" / "bot.log").read_text()
    assert "Training a network" not in log  # the training and the backtest have learnt it all


@pytest.mark.e2e
def test_who_ends_the_exchange_ends_it_cleanly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lstm_model", "exchange", "--port", "0", "--days", "1"]
    exchange = Running(command, tmp_path / "log")
    try:
        assert exchange.wait_for(lambda text: text.count("--strategy LSTMStrategy") == 2, 60.0)
        [port] = re.findall(r"Serving on http://127.0.0.1:(\d+)\.", exchange.text)
        for name in ("loopback", "loopback-futures"):
            assert f"-c config.json -c user_data/config-{name}-{port}.json" in exchange.text
    finally:
        code = exchange.stop(signal.SIGHUP)
    assert code == 0, exchange.text
    assert exchange.tracebacks() == []


def test_a_port_that_is_taken_is_refused_before_a_market_is_made() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(main, ["exchange", "--port", port, "--days", "730"])
    assert done.exit_code == 1
    assert done.output == f"Error: port {port} on 127.0.0.1 is taken; choose another one\n"


def test_two_markets_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    refuse_another_market(folder, "synthetic")
    refuse_another_market(folder, "synthetic")
    with pytest.raises(ConfigError, match=r"another market \(synthetic\).*--folder \.demo-random"):
        refuse_another_market(folder, "random-walk")
    (folder / "market").unlink()
    (folder / "demo.log").touch()  # of a version that noted none
    with pytest.raises(ConfigError, match="on another market:"):
        refuse_another_market(folder, "synthetic")


@pytest.mark.parametrize("futures", [False, True])
@pytest.mark.parametrize("lacking", ["config.json", "user_data/config-loopback.json"])
def test_a_demo_elsewhere_is_refused_before_a_market_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, futures: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_data").mkdir()
    needed = {"config.json", "user_data/config-loopback.json"}
    if futures:
        needed = {name.replace("loopback", "loopback-futures") for name in needed}
        lacking = lacking.replace("loopback", "loopback-futures")
    for name in needed - {lacking}:
        shutil.copy(ROOT / name, name)
    done = CliRunner().invoke(main, ["demo", *["--futures"] * futures])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: there is no {lacking} here: run the demo from")


@pytest.mark.parametrize(
    ("market", "trades", "told"),
    [
        ("synthetic", 3, ["an invented market that carries a learnable signal on purpose"]),
        ("synthetic", 0, ["no forecast was worth what a trade costs", "an invented market"]),
        ("random-walk", 0, ["nothing learnt, nothing traded", "an invented random walk"]),
        ("random-walk", 2, ["an invented random walk: nothing in it can be learnt"]),
        ("some/folder", 1, ["recorded data, played again"]),
    ],
)
def test_a_demo_ends_by_saying_what_its_market_was(
    market: str, trades: int, told: list[str]
) -> None:
    lines = list(last_words(market, trades))
    assert len(lines) == len(told)
    for line, text in zip(lines, told, strict=True):
        assert text in line


@pytest.mark.parametrize(
    ("entered", "hours"),
    [  # hours before the end, which is at 12:30, and how long the replay is
        ([], 2.0), ([1.0], 2.0), ([30.0], 8.0), ([5.0, 3.0], 5.5),
        ([20.0, 7.0, 6.5, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 7.5),
    ],
)  # fmt: skip
def test_the_stretch_that_is_replayed_holds_the_last_trades_of_the_backtest(
    entered: list[float], hours: float
) -> None:
    end_ms = 1_732_883_400_000
    begun_ms = replayed_from([end_ms - round(ago * 3_600_000) for ago in entered], end_ms)
    assert (end_ms - begun_ms) / 3_600_000 == hours


@pytest.mark.lengthy
def test_a_console_that_does_not_know_a_character_shows_another(tmp_path: Path) -> None:
    (tmp_path / "é漢☃").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "lstm_model", "init", "--userdir", "é漢☃"], cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"written: \xe9??/config.json\n" in done.stdout


@pytest.mark.lengthy
@pytest.mark.parametrize("words", [["settings"], *further([["init", "--userdir", "u"]])])
def test_a_closed_pipe_is_no_failure_to_tell_of(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "u").mkdir()
    reading, writing = os.pipe()
    os.close(reading)  # as of `| true`
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lstm_model", *words], cwd=tmp_path, stdout=writing,
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
