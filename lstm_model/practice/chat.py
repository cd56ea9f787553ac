"""One private chat as Telegram's Bot API has it: what a user writes and what a bot answers.

The methods are those that python-telegram-bot calls for freqtrade, as
https://core.telegram.org/bots/api describes them. What Telegram would refuse is refused: another
chat, broken Markdown, a text too long, a second reader of the same updates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from lstm_model.errors import ConfigError

_LONGEST_TEXT = 4096  # Bot API, sendMessage: characters after the entities are parsed
_LONGEST_POLL_S = 50.0  # Telegram's own cap of a long poll
_LONGEST_DATA = 64  # Bot API, InlineKeyboardButton.callback_data: bytes
_PARSE_MODES = ("", "Markdown", "MarkdownV2", "HTML")
_BOT = {"id": 1_234_567, "is_bot": True, "first_name": "freqtrade", "username": "loopback_bot"}

Parameters = dict[str, str]


@dataclass(frozen=True)
class Message:
    """One line of the chat.

    Attributes
    ----------
    time_ms : when Telegram had it, UTC epoch
    sender : "user" or "bot"
    text : as the user reads it, without Markdown
    buttons : label and callback data of the inline keyboard's buttons
    number : Telegram's `message_id`; an edited message keeps it
    edited : whether it took the place of a former text
    """

    time_ms: int
    sender: str
    text: str
    buttons: tuple[tuple[str, str], ...] = ()
    number: int = 0
    edited: bool = False


class Refusal(Exception):
    """What Telegram answers instead of a result."""

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status = status


_ENTITY = re.compile(
    r"\\(?P<escaped>[_*`\[])"
    r"|```(?:\w+\n|\n)?(?P<pre>.*?)```"
    r"|`(?!``)(?P<code>[^`]*)`"
    r"|\*(?P<bold>[^*]*)\*"
    r"|_(?P<italic>[^_]*)_"
    r"|\[(?P<link>[^\]]*)\](?:\([^)]*\))?"
    r"|(?P<open>[_*`\[])"
    r"|(?P<plain>[^\\_*`\[]+|.)",
    re.DOTALL,
)


def markdown_text(markdown: str) -> str:
    """What a user sees of a text in Telegram's older Markdown.

    Raises
    ------
    ValueError
        An entity has no end; Telegram refuses such a text as a whole.

    Notes
    -----
    The rules are those of `parse_markdown` in tdlib, which Telegram's servers run: entities do
    not nest, and inside of one a backslash is a character like any other.

    Examples
    --------
    >>> markdown_text(r"*Status:* `running`, model\\_1")
    'Status: running, model_1'
    >>> markdown_text("the key lstm_model")
    Traceback (most recent call last):
        ...
    ValueError: Can't find end of the entity starting at byte offset 12
    """
    shown = []
    for match in _ENTITY.finditer(markdown):
        if match.lastgroup == "open":
            offset = len(markdown[: match.start()].encode())
            raise ValueError(f"Can't find end of the entity starting at byte offset {offset}")
        shown.append(match[match.lastgroup or 0])
    return "".join(shown)


class Chat:
    """What was said, and what the bot has not fetched yet.

    Everything happens on the server's thread; others read under `changed`.

    Attributes
    ----------
    lines : all that was said, oldest first
    starts : how often a bot has begun to listen
    changed : notified of every new line and every start
    """

    def __init__(self, chat_id: int) -> None:
        self.lines: list[Message] = []
        self.starts = 0
        self.changed = threading.Condition()
        self._chat_id = chat_id
        self._user = {"id": chat_id, "is_bot": False, "first_name": "user"}
        self._shown: dict[int, Message] = {}
        self._pending: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()
        self._updates = 0
        self._reader = 0
        self._starting = False

    async def obey(self, method: str, parameters: Parameters) -> Any:
        """The result of a Bot API method, whose name is written in any case."""
        match method.lower():
            case "getme":
                return _BOT
            case "getupdates":
                return await self._get_updates(parameters)
            case "deletewebhook":
                return self._delete_webhook(parameters)
            case "sendmessage":
                return self._send(parameters)
            case "editmessagetext":
                return self._edit(parameters)
            case "answercallbackquery" | "sendchataction" | "setmycommands" | "close" | "logout":
                return True
        raise Refusal(404, "Not Found: method not found")

    async def hear(self, text: str) -> None:
        """The user writes."""
        message = self._write(Message(_now_ms(), "user", text))
        self._deliver({"message": self._json(message) | {"entities": _commands(text)}})

    async def feel(self, label: str) -> None:
        """The user presses the newest button whose label begins so."""
        found = [
            (message, *button)
            for message in self._shown.values()
            for button in message.buttons
            if button[0].startswith(label)
        ]
        if not found:
            known = [label for message in self._shown.values() for label, _ in message.buttons]
            raise ConfigError(f'no button begins with "{label}"; there are {known}')
        message, full_label, data = found[-1]
        self._note(Message(_now_ms(), "user", f"presses [{full_label}]"))
        query = {"id": str(self._updates), "from": self._user, "chat_instance": "1", "data": data}
        self._deliver({"callback_query": query | {"message": self._json(message)}})

    def _deliver(self, update: dict[str, Any]) -> None:
        self._updates += 1
        self._pending.append({"update_id": self._updates} | update)
        self._arrived.set()

    async def _get_updates(self, parameters: Parameters) -> list[dict[str, Any]]:
        """Updates from `offset` on, which confirms all before; waits for the first."""
        offset = int(parameters.get("offset", 0))
        self._pending = [update for update in self._pending if update["update_id"] >= offset]
        self._note_start()
        self._reader = reader = self._reader + 1
        self._arrived.set()  # a former reader, who gives up
        wait_s = min(float(parameters.get("timeout", 0)), _LONGEST_POLL_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not self._pending and reader == self._reader:
                    self._arrived.clear()
                    await self._arrived.wait()
        if reader != self._reader:
            raise Refusal(409, "Conflict: terminated by other getUpdates request")
        return list(self._pending)

    def _delete_webhook(self, parameters: Parameters) -> bool:
        """How python-telegram-bot begins before it asks for updates."""
        if parameters.get("drop_pending_updates", "").lower() == "true":
            self._pending.clear()
        self._starting = True
        return True

    def _note_start(self) -> None:
        with self.changed:
            self.starts += self._starting
            self._starting = False
            self.changed.notify_all()

    def _send(self, parameters: Parameters) -> dict[str, Any]:
        return self._json(self._write(self._composed(parameters)))

    def _edit(self, parameters: Parameters) -> dict[str, Any]:
        number, new = int(parameters.get("message_id", 0)), self._composed(parameters)
        old = self._shown.get(number)
        if old is None:
            raise Refusal(400, "Bad Request: message to edit not found")
        if old.sender != "bot":
            raise Refusal(400, "Bad Request: message can't be edited")
        if (old.text, old.buttons) == (new.text, new.buttons):
            raise Refusal(400, "Bad Request: message is not modified")
        return self._json(self._write(replace(new, number=number, edited=True)))

    def _composed(self, parameters: Parameters) -> Message:
        """The bot's message, if Telegram would take it."""
        if parameters.get("chat_id") != str(self._chat_id):
            raise Refusal(400, "Bad Request: chat not found")
        text = _shown_text(parameters.get("text", ""), parameters.get("parse_mode", ""))
        return Message(_now_ms(), "bot", text, _buttons(parameters.get("reply_markup", "{}")))

    def _write(self, message: Message) -> Message:
        """Give it a number, unless it has one, and show it."""
        numbered = replace(message, number=message.number or len(self._shown) + 1)
        self._shown[numbered.number] = numbered
        self._note(numbered)
        return numbered

    def _note(self, message: Message) -> None:
        with self.changed:
            self.lines.append(message)
            self.changed.notify_all()

    def _json(self, message: Message) -> dict[str, Any]:
        chat = {"id": self._chat_id, "type": "private", "first_name": "user"}
        body = {
            "message_id": message.number, "date": message.time_ms // 1000, "chat": chat,
            "from": self._user if message.sender == "user" else _BOT, "text": message.text,
        }  # fmt: skip
        if message.buttons:
            row = [{"text": label, "callback_data": data} for label, data in message.buttons]
            body["reply_markup"] = {"inline_keyboard": [row]}
        return body


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _commands(text: str) -> list[dict[str, Any]]:
    """By this entity a client knows a command."""
    command = re.match(r"/\w+", text)
    return [{"type": "bot_command", "offset": 0, "length": command.end()}] if command else []


def _shown_text(text: str, parse_mode: str) -> str:
    """Only the older Markdown is taken apart: the others stay as they were sent."""
    if parse_mode not in _PARSE_MODES:
        raise Refusal(400, "Bad Request: unsupported parse_mode")
    try:
        shown = markdown_text(text) if parse_mode == "Markdown" else text
    except ValueError as error:
        raise Refusal(400, f"Bad Request: can't parse entities: {error}") from None
    if not shown.strip():
        raise Refusal(400, "Bad Request: message text is empty")
    if len(shown) > _LONGEST_TEXT:
        raise Refusal(400, "Bad Request: message is too long")
    return shown


def _buttons(reply_markup: str) -> tuple[tuple[str, str], ...]:
    """Of an inline keyboard; other keyboards have none that call back."""
    rows = json.loads(reply_markup).get("inline_keyboard", [])
    buttons = tuple(
        (button["text"], button["callback_data"])
        for row in rows
        for button in row
        if "callback_data" in button
    )
    if any(not 1 <= len(data.encode()) <= _LONGEST_DATA for _, data in buttons):
        raise Refusal(400, "Bad Request: BUTTON_DATA_INVALID")
    return buttons
