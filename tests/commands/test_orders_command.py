"""The command `orders` as it is typed: which bot it means, what it asks, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from account_files import book_of, bot_files, make_database, trade_of, url_of
from click.testing import CliRunner, Result

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.commands.main import main
from lstm_model.practice.synthetic import synthetic_market

pytestmark = [
    pytest.mark.usefixtures("same_logging"),
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]


MARKET = synthetic_market(days=1)


@pytest.fixture
def exchange() -> Iterator[TradingExchange]:
    with TradingExchange(MARKET, {"USDT": "1000"}) as running:
        yield running


@pytest.fixture
def files(exchange: TradingExchange, tmp_path: Path) -> list[str]:
    """Of a bot that has begun, and found nothing of its pairs."""
    made = bot_files(tmp_path, exchange)
    book_of(made).change(kept={"BTC/USDT": 0.0, "SOL/USDT": 0.0})
    return made


def called(files: list[str], *words: str, typed: str = "") -> Result:
    named = [word for file in files for word in ("-c", file)]
    return CliRunner().invoke(main, ["orders", *named, *words], input=typed)


def refused(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    return line


def test_the_last_file_wins_as_for_the_bot(
    exchange: TradingExchange, files: list[str], tmp_path: Path
) -> None:
    """The first one says dry run, another database and another key."""
    make_database(tmp_path, trade_of("SOL/USDT", 0.999))
    exchange.by_hand("SOLUSDT", "BUY", "1")
    result = called(files)
    assert result.exit_code == 0, result.output
    assert "belongs to a trade" in result.output
    assert '"dry_run" is true' in refused(called(files[::-1]))


def test_files_that_files_add_lie_below_them_as_for_the_bot(
    exchange: TradingExchange, files: list[str], tmp_path: Path
) -> None:
    make_database(tmp_path, trade_of("SOL/USDT", 0.999))
    exchange.by_hand("SOLUSDT", "BUY", "1")
    adds = tmp_path / "adds.json"
    real = json.loads(Path(files[1]).read_text())
    adds.write_text(json.dumps({**real, "add_config_files": ["config.json"]}))
    assert called([files[0], str(adds)]).exit_code == 0


@pytest.mark.lengthy
def test_a_close_says_what_it_sends_and_where_trades_are_before_it_asks(
    exchange: TradingExchange, files: list[str], tmp_path: Path
) -> None:
    make_database(tmp_path)
    exchange.by_hand("SOLUSDT", "BUY", "2")
    price = str(round(exchange.price("SOLUSDT") * 103 / 100, 2))
    lost = exchange.by_hand("SOLUSDT", "SELL", "0.5", price)
    settle = ("-p", "SOL/USDT", "--settle", "close")
    result = called(files, *settle, typed="n\n")
    assert result.exit_code == 1
    said, _, _ = result.output.partition("Send these orders?")
    assert f"cancel order {lost.number}, -0.5 at {float(price):.8g}, worth " in said
    assert "sell 1.998 at the market's price, worth " in said
    assert url_of(tmp_path) in result.output.replace("\n", "")
    assert exchange.truth.balances["SOL"] == Decimal("1.998")

    result = called(files, *settle, typed="y\n")
    assert result.exit_code == 0, result.output
    assert "SOL" not in exchange.truth.balances
    assert exchange.truth.open_orders == []


def test_a_database_that_is_not_there_is_not_made(
    exchange: TradingExchange, files: list[str], tmp_path: Path
) -> None:
    line = refused(called(files))
    assert url_of(tmp_path) in line
    assert "--db-url" in line
    assert not (tmp_path / "trades.sqlite").exists()
    assert exchange.truth.requests == []


def test_another_database_is_named_as_for_freqtrade(
    exchange: TradingExchange, files: list[str], tmp_path: Path
) -> None:
    make_database(tmp_path, trade_of("SOL/USDT", 0.999))
    exchange.by_hand("SOLUSDT", "BUY", "1")
    moved = (tmp_path / "trades.sqlite").rename(tmp_path / "moved.sqlite")
    where = ("--db-url", f"sqlite:///{moved}")
    result = called(files, *where)
    assert result.exit_code == 0, result.output
    # Its book is another, too: no bot has begun with this name of it.
    line = refused(called(files, *where, "-p", "SOL/USDT", "--settle", "close", "--yes"))
    assert "no bot has begun" in line
    assert str(moved) in line
    assert exchange.truth.balances["SOL"] == Decimal("0.999")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "there is no database"),
        ("nothing", "names none that is known"),
        ("mysterious://me:hidden@host/trades", "names none that is known"),
        ("postgresql://me:hidden@127.0.0.1:1/trades?password=hidden", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_a_line(
    files: list[str], url: str, words: str
) -> None:
    line = refused(called(files, "--db-url", url))
    assert words in line
    assert "hidden" not in line


def test_a_file_that_is_no_database_is_told_in_a_line(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "trades.sqlite").write_text("no database at all, but some text" * 40)
    assert "cannot be used: file is not a database" in refused(called(files))


def test_an_exchange_that_is_down_is_told_in_a_line(tmp_path: Path) -> None:
    make_database(tmp_path)
    with TradingExchange(MARKET) as exchange:
        files = bot_files(tmp_path, exchange)
    assert "does not say what it trades: is it reachable?" in refused(called(files))


@pytest.mark.parametrize("settle", ["keep", "close"])
def test_a_pair_that_does_not_exist_is_refused(
    files: list[str], tmp_path: Path, settle: str
) -> None:
    make_database(tmp_path)
    result = called(files, "-p", "sol/usdt", "--settle", settle, "--yes")
    assert "no such pair on spot for USDT: sol/usdt; did you mean SOL/USDT?" in result.stderr
    assert result.exit_code == 1


def test_a_configuration_that_can_be_read_once_is_refused() -> None:
    assert "not -" in refused(called(["-"]))
