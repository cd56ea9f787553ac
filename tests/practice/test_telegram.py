"""The loopback Telegram: what the real client of freqtrade gets from it, and what it refuses."""

import asyncio
import json
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup
from telegram.error import BadRequest, Conflict, InvalidToken, NetworkError
from telegram.helpers import escape_markdown
from telegram_world import leaks, secret_forms

from lstm_model.errors import ConfigError
from lstm_model.practice.chat import markdown_text
from lstm_model.practice.telegram import TelegramServer

# A server that stops cuts its clients off, and asyncio complains of some connection when it is
# collected, in whatever test runs then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TOKEN = "1234567:planted"  # noqa: S105 - planted
CHAT = 42
KEYBOARD = InlineKeyboardMarkup(
    [[InlineKeyboardButton("1 BTC/USDT", callback_data="force_exit__1 ")]]
)


def keyboard(data: str) -> str:
    return json.dumps({"inline_keyboard": [[{"text": "1 BTC/USDT", "callback_data": data}]]})


@pytest.fixture
def telegram() -> Iterator[TelegramServer]:
    with TelegramServer(TOKEN, CHAT) as running:
        yield running


def use(server: TelegramServer, work: Callable[[Bot], Awaitable[Any]], token: str = TOKEN) -> Any:
    """What an unmodified client does that knows the server by its environment alone."""

    async def run() -> Any:
        async with Bot(token) as bot:
            return await work(bot)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        return asyncio.run(run())


def call(server: TelegramServer, method: str, **parameters: object) -> dict[str, Any]:
    """The answer to a method without a client's help."""
    context = ssl.create_default_context(cafile=server.environment()["SSL_CERT_FILE"])
    with httpx.Client(proxy=server.url, verify=context, trust_env=False) as client:
        answer = client.post(f"https://api.telegram.org/bot{TOKEN}/{method}", data=parameters)
    body: dict[str, Any] = answer.json()
    assert body["ok"] is (answer.status_code == 200)
    return body


def test_an_unmodified_client_knows_the_bot_by_its_environment_alone(
    telegram: TelegramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def name(bot: Bot) -> str:
        return (await bot.get_me()).username

    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # of a machine behind a proxy
    assert use(telegram, name) == "loopback_bot"
    assert telegram.refused == []


def test_what_the_bot_writes_is_shown_without_its_markdown(telegram: TelegramServer) -> None:
    async def write(bot: Bot) -> Any:
        return await bot.send_message(CHAT, "*Status:* `running`", parse_mode="Markdown")

    sent = use(telegram, write)
    (line,) = telegram.messages
    assert (line.sender, line.text) == ("bot", "Status: running")
    assert (sent.text, sent.chat_id, sent.message_id) == (line.text, CHAT, line.number)
    assert abs(sent.date.timestamp() - time.time()) < 60


def test_a_command_reaches_the_bot_as_a_command(telegram: TelegramServer) -> None:
    telegram.say("/forceexit 1")

    async def listen(bot: Bot) -> Any:
        return await bot.get_updates(timeout=5)

    (update,) = use(telegram, listen)
    assert (update.message.text, update.message.chat_id) == ("/forceexit 1", CHAT)
    assert update.message.parse_entities() == {update.message.entities[0]: "/forceexit"}
    assert update.message.entities[0].type == "bot_command"


def test_a_long_poll_ends_when_the_user_writes(telegram: TelegramServer) -> None:
    async def listen(bot: Bot) -> Any:
        writer = threading.Timer(0.1, telegram.say, ["/status"])
        writer.start()
        updates = await bot.get_updates(timeout=30)
        writer.join()
        return updates

    begun_s = time.monotonic()
    (update,) = use(telegram, listen)
    assert update.message.text == "/status"
    assert time.monotonic() - begun_s < 10.0


def test_an_empty_poll_ends_in_time(telegram: TelegramServer) -> None:
    assert call(telegram, "getUpdates", timeout=0)["result"] == []


def test_an_update_comes_again_until_a_later_one_is_asked_for(telegram: TelegramServer) -> None:
    for text in ("/one", "/two"):
        telegram.say(text)
    first, second = call(telegram, "getUpdates")["result"]
    assert call(telegram, "getUpdates", offset=first["update_id"])["result"] == [first, second]
    assert call(telegram, "getUpdates", offset=second["update_id"])["result"] == [second]
    assert call(telegram, "getUpdates", offset=second["update_id"] + 1)["result"] == []


def test_a_second_reader_ends_the_first(telegram: TelegramServer) -> None:
    async def compete(bot: Bot) -> dict[str, Any]:
        first = asyncio.create_task(bot.get_updates(timeout=30))
        await asyncio.sleep(0.1)
        second = await asyncio.to_thread(call, telegram, "getUpdates", timeout=0)
        with pytest.raises(Conflict):
            await first
        return second

    begun_s = time.monotonic()
    assert use(telegram, compete)["result"] == []
    assert time.monotonic() - begun_s < 10.0


def test_a_bot_that_starts_hears_nothing_from_before(telegram: TelegramServer) -> None:
    async def start(bot: Bot) -> Any:
        await bot.delete_webhook(drop_pending_updates=True)
        return await bot.get_updates(timeout=0)

    telegram.say("/too early")
    assert use(telegram, start) == ()
    telegram.wait_for_start(1, 0)
    use(telegram, start)
    assert telegram.starts == 2
    with pytest.raises(TimeoutError, match="2 starts of a bot"):
        telegram.wait_for_start(3, 0)


def test_a_pressed_button_reaches_the_bot_and_its_message_may_change(
    telegram: TelegramServer,
) -> None:
    async def offer(bot: Bot) -> Any:
        return await bot.send_message(CHAT, "Which trade?", reply_markup=KEYBOARD)

    async def obey(bot: Bot) -> Any:
        (update,) = await bot.get_updates(timeout=5)
        await update.callback_query.answer()
        await update.callback_query.edit_message_text("Manually exiting")
        return update.callback_query

    sent = use(telegram, offer)
    telegram.press("1 ")
    query = use(telegram, obey)
    assert (query.data, query.message.message_id) == ("force_exit__1 ", sent.message_id)
    edited = telegram.messages[-1]
    assert (edited.text, edited.edited, edited.number) == ("Manually exiting", True, 1)
    with pytest.raises(ConfigError, match='no button begins with "1 "'):
        telegram.press("1 ")
    assert telegram.transcript() == (
        "bot: Which trade?\n     [1 BTC/USDT]\nuser: presses [1 BTC/USDT]\n"
        "bot (edits): Manually exiting\n"
    )


def test_an_edit_that_changes_nothing_is_refused(telegram: TelegramServer) -> None:
    async def edit(bot: Bot) -> None:
        sent = await bot.send_message(CHAT, "the same")
        await sent.edit_text("the same")

    with pytest.raises(BadRequest, match="Message is not modified"):
        use(telegram, edit)


@pytest.mark.parametrize(
    ("method", "parameters", "code", "description"),
    [
        ("sendVenue", {}, 404, "Not Found: method not found"),
        ("sendMessage", {"chat_id": 1, "text": "x"}, 400, "Bad Request: chat not found"),
        ("sendMessage", {"text": "x"}, 400, "Bad Request: chat not found"),
        ("sendMessage", {"chat_id": CHAT, "text": " "}, 400, "Bad Request: message text is empty"),
        ("sendMessage", {"chat_id": CHAT, "text": "x" * 4097}, 400,
         "Bad Request: message is too long"),
        ("sendMessage", {"chat_id": CHAT, "text": "a_b", "parse_mode": "Markdown"}, 400,
         "Bad Request: can't parse entities: Can't find end of the entity starting at byte "
         "offset 1"),
        ("sendMessage", {"chat_id": CHAT, "text": "x", "parse_mode": "Word"}, 400,
         "Bad Request: unsupported parse_mode"),
        ("sendMessage", {"chat_id": CHAT, "text": "x", "reply_markup": keyboard("é" * 33)}, 400,
         "Bad Request: BUTTON_DATA_INVALID"),
        ("editMessageText", {"chat_id": CHAT, "message_id": 7, "text": "x"}, 400,
         "Bad Request: message to edit not found"),
    ],
)  # fmt: skip
def test_what_telegram_would_refuse_is_refused(
    telegram: TelegramServer,
    method: str,
    parameters: dict[str, object],
    code: int,
    description: str,
) -> None:
    body = call(telegram, method, **parameters)
    assert (body["error_code"], body["description"]) == (code, description)
    assert telegram.messages == ()


def test_the_longest_text_and_the_longest_button_are_taken(telegram: TelegramServer) -> None:
    markup = keyboard("é" * 32)
    body = call(telegram, "sendMessage", chat_id=CHAT, text="x" * 4096, reply_markup=markup)
    assert body["result"]["reply_markup"] == json.loads(markup)


def test_the_newest_of_two_like_buttons_is_pressed(telegram: TelegramServer) -> None:
    for data in ("old", "new"):
        call(telegram, "sendMessage", chat_id=CHAT, text="Which?", reply_markup=keyboard(data))
    telegram.press("1")
    (update,) = call(telegram, "getUpdates")["result"]
    assert update["callback_query"]["data"] == "new"


@pytest.mark.parametrize("method", ["setMyCommands", "sendChatAction", "close", "logOut"])
def test_methods_without_a_trace_are_granted(telegram: TelegramServer, method: str) -> None:
    assert call(telegram, method)["result"] is True


def test_a_bots_own_messages_alone_may_change(telegram: TelegramServer) -> None:
    telegram.say("mine")
    body = call(telegram, "editMessageText", chat_id=CHAT, message_id=1, text="yours")
    assert body["description"] == "Bad Request: message can't be edited"


def test_another_token_is_refused(telegram: TelegramServer) -> None:
    async def nothing(bot: Bot) -> None:
        pass

    with pytest.raises(InvalidToken):
        use(telegram, nothing, token="1234567:guessed")  # noqa: S106 - wrong on purpose


def test_the_transcript_hides_a_token_that_the_bot_tells(telegram: TelegramServer) -> None:
    call(telegram, "sendMessage", chat_id=CHAT, text=f"my token is {TOKEN}")
    assert telegram.transcript() == "bot: my token is <token>\n"
    assert TOKEN in telegram.messages[0].text  # where a test looks for it


def test_waiting_for_a_message_looks_from_a_line_on_and_not_at_the_user(
    telegram: TelegramServer,
) -> None:
    call(telegram, "sendMessage", chat_id=CHAT, text="old news")
    since = telegram.say("news?")
    with pytest.raises(TimeoutError, match="old news\nuser: news\\?"):
        telegram.wait_for(lambda text: "news" in text, 0.01, since)
    assert telegram.wait_for(lambda text: "news" in text, 0.0) == "old news"


@pytest.mark.parametrize(
    ("request_line", "asked"),
    [
        ("CONNECT api.binance.com:443 HTTP/1.1", "api.binance.com:443"),
        ("CONNECT api.telegram.org:80 HTTP/1.1", "api.telegram.org:80"),
        ("GET http://api.telegram.org/bot1:secret/getMe HTTP/1.1", "api.telegram.org"),
        ("GET /bot1:secret/getMe HTTP/1.1", ""),
        ("nonsense", ""),
    ],
)
def test_the_proxy_opens_no_other_way(
    telegram: TelegramServer, request_line: str, asked: str
) -> None:
    with socket.create_connection(("127.0.0.1", telegram.port), 5) as client:
        client.sendall(f"{request_line}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 403 Forbidden")
    assert telegram.refused == [asked]


def test_a_client_that_leaves_in_the_middle_of_its_request_harms_nothing(
    telegram: TelegramServer,
) -> None:
    with socket.create_connection(("127.0.0.1", telegram.port), 5) as client:
        client.sendall(b"CONNECT api.tele")
    with socket.create_connection(("127.0.0.1", telegram.port), 5) as client:
        client.sendall(b"CONNECT api.telegram.org:443 HTTP/1.1\r\n\r\n")
        client.recv(100)
    assert call(telegram, "getMe")["ok"]


def test_a_client_that_does_not_know_the_authority_stays_away(telegram: TelegramServer) -> None:
    context = ssl.create_default_context()
    with (
        httpx.Client(proxy=telegram.url, verify=context, trust_env=False) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.get("https://api.telegram.org/")


def certified(server: TelegramServer, name: str, flags: ssl.VerifyFlags) -> dict[str, Any]:
    """The certificate that a client is shown which expects to meet `name`."""
    context = ssl.create_default_context(cafile=server.environment()["SSL_CERT_FILE"])
    context.verify_flags |= flags
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
        raw.sendall(b"CONNECT api.telegram.org:443 HTTP/1.1\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 200")
        with context.wrap_socket(raw, server_hostname=name) as secured:
            return dict(secured.getpeercert() or {})


def test_the_certificate_is_for_telegram_alone_and_strictly_right(
    telegram: TelegramServer,
) -> None:
    strict = ssl.VERIFY_X509_STRICT  # Python's default from 3.13 on
    shown = certified(telegram, "api.telegram.org", strict)
    assert shown["subjectAltName"] == (("DNS", "api.telegram.org"),)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        certified(telegram, "api.binance.com", strict)


def test_no_key_is_left_on_disk_and_nothing_at_the_end() -> None:
    with TelegramServer(TOKEN, CHAT) as telegram:
        folder = Path(telegram.environment()["SSL_CERT_FILE"]).parent
        (file,) = folder.iterdir()
        assert "PRIVATE KEY" not in file.read_text()
    assert not folder.exists()


def test_a_server_stops_while_a_bot_waits_for_updates() -> None:
    async def listen(bot: Bot) -> None:
        stopper = threading.Timer(0.1, telegram.stop)
        stopper.start()
        with pytest.raises(NetworkError):
            await bot.get_updates(timeout=30)
        stopper.join()

    begun_s = time.monotonic()
    with TelegramServer(TOKEN, CHAT) as telegram:
        use(telegram, listen)
    assert time.monotonic() - begun_s < 10.0


@pytest.mark.parametrize("secret", secret_forms())
def test_a_secret_in_a_file_or_a_database_is_found(tmp_path: Path, secret: bytes) -> None:
    (tmp_path / "harmless.txt").write_text("nothing to see")
    assert leaks(tmp_path) == []
    (tmp_path / "bot.log").write_bytes(b"\xff" + secret)
    with closing(sqlite3.connect(tmp_path / "trades.sqlite")) as database:
        database.execute("CREATE TABLE trade (note TEXT)")
        database.execute("INSERT INTO trade VALUES (?)", [secret.decode()])
        database.commit()
    places = {place.rpartition("/")[2].partition(":")[0] for place in leaks(tmp_path)}
    assert places == {"bot.log", "trades.sqlite", "trades.sqlite as SQL"}


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("*a* _b_ `c` ```python\nd```", "a b c d"),
        ("90% in [-12, +13]", "90% in -12, +13"),
        ("see [docs](https://example.org/a_b)", "see docs"),
        (r"lstm\_model \*\`\[", "lstm_model *`["),
        ("`a_b*c`", "a_b*c"),
        ("*a_b*", "a_b"),
        ("a\\b", "a\\b"),
        ("", ""),
    ],
)
def test_markdown_is_shown_as_telegram_shows_it(markdown: str, shown: str) -> None:
    assert markdown_text(markdown) == shown


@pytest.mark.parametrize(
    ("markdown", "offset"),
    [("a_b", 1), ("é*", 2), ("_a_b_c", 4), ("[x", 0), ("`x", 0), ("```x``", 0), ("``` ` x", 0),
     ("*a_b", 0)],
)  # fmt: skip
def test_markdown_without_an_end_is_no_markdown(markdown: str, offset: int) -> None:
    with pytest.raises(ValueError, match=f"byte offset {offset}$"):
        markdown_text(markdown)


@given(st.text(st.sampled_from("ab1é \n\\_*`[]()")))
def test_what_the_clients_library_escapes_is_shown_as_it_was(text: str) -> None:
    assert markdown_text(escape_markdown(text, version=1)) == text
