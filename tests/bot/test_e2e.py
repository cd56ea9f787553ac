"""Real freqtrade, real ccxt, real websocket frames, real TensorFlow; only the exchange is ours."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser import look_at, needs_browser, over
from e2e import PAIRS, Bot, Outcome, Trading, bot_in, closed_trades, environment, run_lstm
from freqtrade.data.dataprovider import DataProvider
from places import ROOT

from lstm_model.bot.assembly import open_engine
from lstm_model.bot.configuration import load_config
from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.practice.exchange import LoopbackExchange, open_market

pytestmark = pytest.mark.e2e

DAYS = 1.1  # a midnight and a noon are in it, and so a training and a fine-tuning
TRAINED = re.compile(r"(Training a network|Fine-tuning) on candles until")


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=5, days=7)) as running:
        yield running


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange) -> Bot:
    """A user who has downloaded candles."""
    bot = bot_in(tmp_path_factory.mktemp("user"), exchange)
    outcome = bot.run("download-data", "--days", "7", "-t", "1m")
    assert outcome.code == 0, outcome.text
    return bot


def same_candles(bot: Bot, folder: Path, exchange: LoopbackExchange) -> Bot:
    """Another user with the same candles and an empty store."""
    other = bot_in(folder, exchange)
    shutil.copytree(bot.userdir / "data", other.userdir / "data", dirs_exist_ok=True)
    return other


@pytest.fixture
def other_bot(bot: Bot, tmp_path: Path, exchange: LoopbackExchange) -> Bot:
    return same_candles(bot, tmp_path, exchange)


@pytest.fixture(scope="module")
def trained_bot(
    bot: Bot, tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange
) -> Bot:
    return same_candles(bot, tmp_path_factory.mktemp("trained"), exchange)


@pytest.fixture(scope="module")
def trained(trained_bot: Bot) -> Outcome:
    """Our own command fills the store."""
    outcome = run_lstm("train", *trained_bot.options())
    assert outcome.code == 0, outcome.text
    return outcome


def days_ago(start: float, stop: float) -> str:
    now = datetime.now(UTC)
    times = (int((now - timedelta(days=days)).timestamp()) for days in (start, stop))
    return "--timerange={}-{}".format(*times)


@pytest.fixture(scope="module")
def time_range() -> str:
    return days_ago(DAYS, 0.1)


@pytest.fixture(scope="module")
def first(bot: Bot, time_range: str) -> Outcome:
    outcome = bot.with_lstm(require_skill=False, slippage_fraction=0.0).backtest(time_range)
    assert outcome.code == 0, outcome.text
    return outcome


def test_the_second_identical_backtest_trains_nothing_and_trades_the_same(
    bot: Bot, first: Outcome, time_range: str
) -> None:
    assert set(TRAINED.findall(first.text)) == {"Training a network", "Fine-tuning"}
    trades = closed_trades(bot)
    second = bot.with_lstm(require_skill=False, slippage_fraction=0.0).backtest(time_range)
    assert second.code == 0, second.text
    assert not TRAINED.search(second.text)
    assert len(trades) > 5
    assert closed_trades(bot) == trades


def test_lookahead_analysis_finds_no_bias(bot: Bot, first: Outcome, time_range: str) -> None:
    eager = bot.with_lstm(require_skill=False, slippage_fraction=0.0)
    outcome = eager.run(
        "lookahead-analysis", "--strategy", "LSTMStrategy", time_range, "--fee", "0.0005",
        "--minimum-trade-amount", "5", "--targeted-trade-amount", "5", "-p", *PAIRS,
    )  # fmt: skip
    assert outcome.code == 0, outcome.text
    assert "LSTMStrategy: no bias detected" in outcome.text
    assert not TRAINED.search(outcome.text)


def test_recursive_analysis_finds_no_dependence_on_the_start(
    bot: Bot, first: Outcome, time_range: str
) -> None:
    """It starts a few candles before the end: `learn_from` lets it walk the same steps."""
    # Before the first candle by more than `training_lag_candles`, at whatever time of day.
    since = (datetime.now(UTC) - timedelta(days=DAYS + 0.02)).strftime("%Y%m%d")
    eager = bot.with_lstm(require_skill=False, slippage_fraction=0.0, learn_from=since)
    outcome = eager.run(
        "recursive-analysis", "--strategy", "LSTMStrategy", time_range, "-p", *PAIRS,
        "--startup-candle", "50", "199", "400",
    )  # fmt: skip
    assert outcome.code == 0, outcome.text
    assert "No lookahead bias on indicators found" in outcome.text
    assert "No variance on indicator(s) found due to recursive formula" in outcome.text


PAPER = (229, 236, 246)  # of plotly's charts


@needs_browser
def test_plot_dataframe_shows_the_band_around_the_price_and_beyond_the_newest_candle(
    bot: Bot, first: Outcome, time_range: str
) -> None:
    pytest.importorskip("plotly", reason="plot-dataframe needs plotly: pip install plotly")
    eager = bot.with_lstm(require_skill=False, slippage_fraction=0.0)
    outcome = eager.run("plot-dataframe", "--strategy", "LSTMStrategy", time_range)
    assert outcome.code == 0, outcome.text
    assert not TRAINED.search(outcome.text)
    assert "is not found in your strategy" not in outcome.text
    page = bot.userdir / "plot" / "freqtrade-plot-BTC_USDT-1m.html"
    view = look_at(page, 1_400, 900)
    assert view.console == ()
    assert view.colours > 100
    assert view.share(over(PAPER, (66, 146, 198), 0.25)) > 0.005  # the band
    assert view.share(over(PAPER, (253, 141, 60), 0.3)) > 0.00003  # and ten candles to come


def test_what_our_train_command_decided_is_told_and_written_down(
    trained_bot: Bot, trained: Outcome
) -> None:
    written = run_lstm("models", "log", *trained_bot.options())
    assert written.code == 0, written.text
    lines = [line.partition("  ")[2] for line in written.text.splitlines() if line]
    assert [line for line in lines if "it competes with the baseline" in line]
    assert [line for line in lines if line not in trained.text] == []


def test_a_dry_run_serves_what_was_learnt_without_tensorflow_and_ends_cleanly(
    trained_bot: Bot, trained: Outcome
) -> None:
    """What a bot does in the hours after: test_e2e_replay."""
    trading = Trading(trained_bot)
    try:
        assert trading.wait_for(lambda text: forecast_pairs(text) == {*PAIRS}, 90), trading.text
        assert "tensorflow" not in trading.mapped_files()
        assert trading.descendants() != []
    finally:
        code = trading.stop()
    assert code in (0, 130)  # 130: ended by Ctrl-C
    assert trading.tracebacks() == []
    assert trading.descendants() == []
    listed = run_lstm("models", *trained_bot.options())
    assert re.search(r"baseline .*\n.* trained ", listed.text), listed.text


def forecast_pairs(log: str) -> set[str]:
    return set(re.findall(r"(\S+/USDT) \S+: next 10 candles .* bps, 90% in", log))


@pytest.mark.long
def test_order_flow_is_downloaded_and_learnt_from(other_bot: Bot) -> None:
    flowing = other_bot.with_lstm(
        order_flow=True,
        require_skill=False,
        slippage_fraction=0.0,
        finetune_candles=0,
        train_candles=7_000,
    )
    done = run_lstm("download-flow", *flowing.options(), "--days", "7")
    assert done.code == 0, done.text
    assert len(re.findall(r"100\.0% of the range covered", done.text)) == len(PAIRS)
    outcome = flowing.backtest(days_ago(0.4, 0.1))
    assert outcome.code == 0, outcome.text
    assert "order flow is known of" not in outcome.text
    cards = [*(flowing.userdir / "lstm" / "models").glob("*/card.json")]
    names = [json.loads(card.read_text())["feature_names"] for card in cards]
    assert {found[-1] for found in names} == {"flow_coverage"}
    assert closed_trades(flowing)


def assert_clear_error(outcome: Outcome, *wanted: str) -> None:
    assert outcome.code != 0, outcome.text
    assert "Traceback" not in outcome.text
    for words in wanted:
        assert words in outcome.text


def test_an_unknown_option_is_named_with_a_suggestion(bot: Bot) -> None:
    outcome = bot.with_lstm(horizn=5).backtest(days_ago(1, 0))
    assert_clear_error(outcome, 'unknown option "horizn"', 'Did you mean "horizon"?')


def test_an_option_out_of_range_is_named_with_its_bound(bot: Bot) -> None:
    outcome = bot.with_lstm(units=1000).backtest(days_ago(1, 0))
    assert_clear_error(outcome, "units", "less than or equal to 256", "1000")


def test_too_little_history_says_what_to_download(other_bot: Bot) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = int((midnight - timedelta(days=7)).timestamp())  # of the market, and of a slot
    outcome = other_bot.backtest(f"--timerange={begin + 36_000}-{begin + 72_000}")
    assert_clear_error(outcome, "too little history", "freqtrade download-data")


def test_an_unwritable_store_says_so(other_bot: Bot) -> None:
    (other_bot.userdir / "lstm").write_text("a file where a folder should be")
    outcome = other_bot.backtest(days_ago(1, 0))
    assert_clear_error(outcome, str(other_bot.userdir / "lstm"))
    assert (other_bot.userdir / "lstm").read_text() == "a file where a folder should be"


def test_a_dry_run_without_any_candles_does_not_start(
    tmp_path: Path, exchange: LoopbackExchange
) -> None:
    outcome = bot_in(tmp_path, exchange).run("trade", "--strategy", "LSTMStrategy")
    assert_clear_error(outcome, "freqtrade download-data")


@pytest.mark.long
def test_a_dry_run_with_an_unwritable_store_does_not_start(other_bot: Bot) -> None:
    (other_bot.userdir / "lstm").write_text("a file where a folder should be")
    outcome = other_bot.run("trade", "--strategy", "LSTMStrategy")
    assert_clear_error(outcome, str(other_bot.userdir / "lstm"))


@pytest.mark.parametrize(
    "command", [["freqtrade", "list-strategies"], ["lstm_model", "models"]], ids=lambda c: c[0]
)
def test_without_ta_lib_one_line_says_what_to_install(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "talib.py").write_text('raise ImportError("no such library")')
    done = subprocess.run(
        [sys.executable, "-m", *command, "-c", "config.json", "--userdir", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert "pip install" in text
    assert "Traceback" not in text


def test_our_command_names_a_missing_configuration_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lstm_model", "models", "-c", "nothere.json"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert_clear_error(Outcome(done.returncode, done.stdout + done.stderr), "nothere.json")


def test_init_gives_a_strategy_that_freqtrade_finds(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", *words, "--userdir", "mine"],
            check=True, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        ).stdout  # fmt: skip

    run("freqtrade", "create-userdir")
    assert "freqtrade trade --dry-run" in run("lstm_model", "init")
    assert re.search(r"LSTMStrategy.*OK", run("freqtrade", "list-strategies"))


def test_tools_without_a_pairlist_such_as_plot_dataframe_still_get_an_engine(bot: Bot) -> None:
    config = load_config(["config.json"], {"user_data_dir": str(bot.userdir)})
    engine = open_engine(config, DataProvider(config, None), can_short=False)
    assert isinstance(engine, WalkForwardEngine)
