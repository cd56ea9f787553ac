"""A trader at the phone: real freqtrade, driven by Telegram and by REST.

freqtrade is unmodified and so is its Telegram client: it reaches a Telegram on 127.0.0.1 by the
standard variables HTTPS_PROXY and SSL_CERT_FILE. One bot lives through this whole file: it trains,
tells its user so, is stopped, started, made to trade and reloaded, and at the end has told its
secrets to nobody. `pytest -s` prints the chat.
"""

import json
import re
from collections.abc import Iterator

import pytest
from e2e import PAIRS, Bot, Trading, bot_in, free_port
from telegram_world import (
    CHAT_ID,
    TOKEN,
    Client,
    comes_true,
    leaks,
    log_file,
    private_bot,
    secret_forms,
    start_trading,
)

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.telegram import TelegramServer

pytestmark = [
    pytest.mark.e2e,
    # As in test_telegram_server: a server that stops cuts its clients off.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STORED = ("lstm_model", "lstm_forecast", "lstm_interval", "lstm_stake", "lstm_stop")
# Nothing but these tests opens and closes a trade.
QUIET = {"force_entry_enable": True, "use_exit_signal": False, "stoploss": -0.5}


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=1, days=6)) as running:
        yield running


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange, port: int) -> Bot:
    folder = tmp_path_factory.mktemp("user")
    downloader = bot_in(folder, exchange)
    downloader.overlay.update(QUIET)
    outcome = downloader.run("download-data", "--days", "6", "-t", "1m")
    assert outcome.code == 0, outcome.text
    downloader.overlay["order_types"] = {"stoploss_on_exchange": True}
    dear = downloader.with_lstm(slippage_fraction=0.05)  # no edge is worth that
    return private_bot(dear, folder / "private.json", port)


@pytest.fixture(scope="module")
def telegram() -> Iterator[TelegramServer]:
    with TelegramServer(TOKEN, CHAT_ID) as running:
        yield running


@pytest.fixture(scope="module")
def trading(bot: Bot, telegram: TelegramServer) -> Iterator[Trading]:
    running = start_trading(bot, telegram)
    try:
        telegram.wait_for_start(1, 60)
        yield running
    finally:
        running.stop()
        print(f"\n{telegram.transcript()}")


@pytest.fixture(scope="module")
def client(trading: Trading, port: int) -> Iterator[Client]:
    with Client(port) as open_client:
        yield open_client


def answer(telegram: TelegramServer, command: str, *wanted: str) -> str:
    """What the bot says to a command, with all the wanted words in it."""
    since = telegram.say(command)
    return telegram.wait_for(lambda text: all(word in text for word in wanted), 20, since)


def enter(client: Client, pair: str) -> int:
    """The number of a new trade."""
    trade = client.forceenter(pair, "long", stake_amount=100.0)
    assert "trade_id" in trade, trade
    return int(trade["trade_id"])


def forecast_pairs(log: str) -> set[str]:
    return set(re.findall(r"(\S+/USDT) \S+: next 10 candles .* 90% in", log))


def test_the_bot_greets_its_user(trading: Trading, telegram: TelegramServer) -> None:
    assert telegram.wait_for(lambda text: "Strategy: LSTMStrategy" in text, 20)


def test_the_bot_answers_before_its_first_trade(trading: Trading, telegram: TelegramServer) -> None:
    answer(telegram, "/status", "no active trade")
    answer(telegram, "/profit", "No trades yet")


def test_the_bot_tells_what_its_learner_did(
    bot: Bot, trading: Trading, telegram: TelegramServer
) -> None:
    # freqtrade sends a message that was lost on the way once more: they arrive in any order.
    news = telegram.wait_for(lambda text: "trained on" in text and text.startswith("Model "), 150)
    assert "it competes with" in news
    assert f"{news}\n" in log_file(bot).read_text()  # word for word, through Telegram's Markdown


def test_a_stopped_bot_starts_again(
    trading: Trading, telegram: TelegramServer, client: Client
) -> None:
    since = telegram.say("/stop")
    telegram.wait_for(lambda text: text == "Status: stopping trader ...", 20, since)
    telegram.wait_for(lambda text: text == "Status: stopped", 20, since)
    assert client.state() == "stopped"
    since = telegram.say("/start")
    telegram.wait_for(lambda text: text == "Status: starting trader ...", 20, since)
    telegram.wait_for(lambda text: text == "Status: running", 20, since)
    assert client.state() == "running"


def test_a_reloaded_bot_listens_again_and_remembers_its_model_and_why_it_did_not_trade(
    trading: Trading, telegram: TelegramServer
) -> None:
    starts, since = telegram.starts, len(telegram.messages)
    answer(telegram, "/reload_config", "Status: Reloading config ...")
    telegram.wait_for_start(starts + 1, 60)
    told = telegram.wait_for(lambda text: text.startswith("No entry signal in"), 30, since)
    assert "candles, no_" in told  # no underscore was lost to Telegram's markup
    answer(telegram, "/show_config", "Current state: running", "Strategy: LSTMStrategy")
    assert trading.wait_for(lambda text: forecast_pairs(text) == set(PAIRS), 60), trading.text


def test_a_trade_is_shown_with_what_it_was_made_of(
    trading: Trading, telegram: TelegramServer, client: Client
) -> None:
    number = enter(client, "BTC/USDT")
    telegram.wait_for(lambda text: "BTC/USDT" in text and "New Trade" in text, 20)
    answer(telegram, "/status", f"Trade ID: {number}", "BTC/USDT")
    since = telegram.say(f"/list_custom_data {number}")
    for key in STORED:  # what the strategy's `order_filled` leaves
        told = telegram.wait_for(lambda text, key=key: f"Key: {key}\n" in text, 20, since)
        assert "Value: " in told


def stored_keys(client: Client, number: int) -> list[str]:
    found = client.list_custom_data(number)
    return sorted(entry["key"] for trade in found for entry in trade["custom_data"])


def test_the_stop_lies_on_the_exchange_where_the_forecast_put_it(
    trading: Trading, client: Client
) -> None:
    number = client.open_ids()[0]

    def ordered() -> bool:
        orders = client.trade(number)["orders"]
        return any(order["ft_order_side"] == "stoploss" and order["is_open"] for order in orders)

    assert comes_true(ordered, 20)
    found, stored = client.trade(number), client.list_custom_data(number)[0]["custom_data"]
    planned = next(entry["value"] for entry in stored if entry["key"] == "lstm_stop")
    assert found["stop_loss_abs"] >= 0.9999 * planned["rate"]  # moved towards profit only
    assert found["stop_loss_abs"] > 0.95 * found["open_rate"]  # tighter than `stoploss`


def test_a_trade_is_left_by_its_number(
    trading: Trading, telegram: TelegramServer, client: Client
) -> None:
    number = enter(client, "SOL/USDT")
    since = telegram.say(f"/forceexit {number}")
    telegram.wait_for(lambda text: "SOL/USDT" in text and "force_exit" in text, 20, since)
    assert comes_true(lambda: number not in client.open_ids(), 10)
    answer(telegram, "/profit", "Total Trade Count")


def test_a_trade_is_left_by_a_button(
    trading: Trading, telegram: TelegramServer, client: Client
) -> None:
    number = enter(client, "XRP/USDT")
    answer(telegram, "/forceexit", "Which trade?")
    since = telegram.press(f"{number} ")
    telegram.wait_for(lambda text: f"Manually exiting Trade #{number}" in text, 20, since)
    telegram.wait_for(lambda text: "XRP/USDT" in text and "force_exit" in text, 20, since)
    assert comes_true(lambda: number not in client.open_ids(), 10)


def test_rest_does_the_same(trading: Trading, client: Client) -> None:
    assert client.ping() == {"status": "pong"}
    number = enter(client, "SOL/USDT")
    assert number in client.open_ids()
    assert client.profit()["trade_count"] >= 3
    assert set(STORED) <= set(stored_keys(client, number))
    assert "Created exit order" in client.forceexit(number)["result"]
    assert comes_true(lambda: number not in client.open_ids(), 10)
    assert client.stop() == {"status": "stopping trader ..."}
    assert comes_true(lambda: client.state() == "stopped", 10)
    assert client.start() == {"status": "starting trader ..."}
    assert comes_true(lambda: client.state() == "running", 10)


def test_a_bot_reloaded_by_rest_is_there_again(
    trading: Trading, telegram: TelegramServer, client: Client
) -> None:
    starts, since = telegram.starts, len(telegram.messages)
    assert client.reload_config() == {"status": "Reloading config ..."}
    telegram.wait_for_start(starts + 1, 60)
    # The new bot answers while it is still being made, and a signal then reaches only the old one:
    # freqtrade would never end.
    telegram.wait_for(lambda text: text == "Status: running after config reloaded", 60, since)
    assert comes_true(lambda: (client.ping() or {}).get("status") == "pong", 20)
    assert client.state() == "running"


def test_no_secret_was_told_to_anybody(
    bot: Bot, trading: Trading, telegram: TelegramServer, client: Client
) -> None:
    shown = json.dumps([client.show_config(), client.logs(), client.sysinfo(), client.health()])
    assert trading.stop() in (0, 130)
    assert trading.tracebacks() == []
    assert "TelegramError" not in trading.text  # of messages that Telegram refuses
    assert telegram.refused == []
    assert leaks(bot.userdir) == []
    said = "".join(message.text for message in telegram.messages) + telegram.transcript()
    assert [form for form in secret_forms() if form in (shown + said).encode()] == []
