"""What the configured exchange tells: its clock, and whether its trades can be followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from lstm_model.bot import assembly
from lstm_model.bot.reading import silent
from lstm_model.errors import ConfigError
from lstm_model.settings import Settings
from lstm_model.setup.finding import Finding, good, note, to_do, warning
from lstm_model.setup.subject import Config
from lstm_model.stream.connection import Refusal, Rest

_ANSWER_S = 5.0  # chosen: for one small answer
_SLIGHT_S, _MUCH_S = 1.0, 5.0  # chosen: exchanges refuse orders that are 5 to 10 s off


def check_exchange(
    config: Config, settings: Settings | None, *, offline: bool
) -> Iterator[Finding]:
    """Clock and trade stream, by a connection like the bot's own, without what could sign."""
    try:
        with silent():  # freqtrade logs the options of the exchange, keys among them
            found = asyncio.run(_asked(config, settings, offline))
        yield from found
    except ConfigError as error:
        yield to_do("exchange", str(error))


async def _asked(config: Config, settings: Settings | None, offline: bool) -> list[Finding]:
    with assembly.opened_exchange(config) as exchange:
        rest = Rest(assembly.connect_public(config, exchange))
        try:
            clock = note("clock", "not asked for") if offline else await _clock(rest)
        finally:
            await rest.close()
    return [clock, *([] if settings is None else [_stream(rest, settings)])]


async def _clock(rest: Rest) -> Finding:
    before_ms = time.time_ns() / 1e6
    try:
        async with asyncio.timeout(_ANSWER_S):
            there_ms = await rest.clock_ms()
    except (Refusal, TimeoutError) as error:
        why = str(error) or f"no answer in {_ANSWER_S:g} s"
        return note("clock", f"{rest.name} cannot be asked from here ({why})")
    if there_ms is None:
        return note("clock", f"{rest.name} does not tell the time")
    here_ms = (before_ms + time.time_ns() / 1e6) / 2.0
    ahead_s = (here_ms - there_ms) / 1e3
    text = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0.0 else 'behind'} {rest.name}'s"
    if abs(ahead_s) <= _SLIGHT_S:
        return good("clock", text)
    tell = warning if abs(ahead_s) <= _MUCH_S else to_do
    return tell("clock", text, "Let a time service set it, e.g. `timedatectl set-ntp true`")


def _stream(rest: Rest, settings: Settings) -> Finding:
    if not settings.trade_stream:
        return good("trade stream", 'off by "trade_stream" in "lstm"')
    if rest.follows_by is None:
        text = f"ccxt follows no trades of {rest.name}: forecasts are made at candles' ends alone"
        fresh = ' and "require_fresh_stream", too' if settings.require_fresh_stream else ""
        return warning("trade stream", text, f'Set "trade_stream" in "lstm" to false{fresh}')
    past = "missed ones by REST" if rest.has_trades else "missed ones are lost"
    text = f"{rest.name} by {rest.follows_by}, {rest.customs.pairs} pairs a connection, {past}"
    return good("trade stream", text)
