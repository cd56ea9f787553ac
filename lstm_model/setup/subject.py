"""Who is examined: the configuration that options name, as far as it can be read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstm_model import machine
from lstm_model.bot.discretion import Discretion
from lstm_model.errors import ConfigError, LstmModelError
from lstm_model.files import refuse_unwritable
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import Settings, parse_settings
from lstm_model.setup.finding import Finding, good, to_do

Config = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What the checks look at.

    Attributes
    ----------
    options : as the words of a command, each after a blank: they name the same bot to freqtrade
    userdir : where it is, or would be
    config : as freqtrade reads it; None: it does not
    settings : of our section; None: they are wrong
    findings : of the reading
    discretion : takes secrets out of what is told
    now_ms : UTC milliseconds
    offline : the exchange is not to be asked
    root : below which the operating system says what it leaves
    """

    options: str
    userdir: Path
    config: Config | None
    settings: Settings | None
    findings: tuple[Finding, ...]
    discretion: Discretion
    now_ms: int
    offline: bool = False
    root: Path = field(default=machine.ROOT)


def read_subject(
    configs: Sequence[str], options: Mapping[str, str], now_ms: int, *, offline: bool = False,
    root: Path = machine.ROOT,
) -> Subject:  # fmt: skip
    """Read what options name; what is wrong with it is among the findings.

    Parameters
    ----------
    configs : files; none: the one that freqtrade finds
    options : freqtrade's own, by the names that it has for them in a configuration
    """
    try:
        return _read(configs, options, now_ms, offline, root)
    except ImportError as error:  # which check of the installation says how to get it
        missing = to_do("config", f"cannot be read: {error}", "Install what is missing, see above")
        userdir, nobody = Path(options.get("user_data_dir", "user_data")), Discretion.of_home({})
        return Subject("", userdir, None, None, (missing,), nobody, now_ms, offline, root)


def _read(
    configs: Sequence[str], options: Mapping[str, str], now_ms: int, offline: bool, root: Path
) -> Subject:
    from lstm_model.bot.named import found_config, words

    files = list(configs) or [str(found_config(options.get("user_data_dir")))]
    raw, unread = _as_they_stand(files, options.get("user_data_dir"))
    userdir = Path(options.get("user_data_dir") or str(raw.get("user_data_dir") or "user_data"))
    place = _userdir(userdir)
    config, refused = (None, None) if unread else _loaded(files, options)
    settings, wrong = _settings(config or raw)
    found = [place, *unread]
    if refused and not (place.todo and str(userdir) in refused):
        found.append(to_do("config", refused))
    elif config is not None:
        found.append(good("config", f"{', '.join(files)} can be read"))
    return Subject(
        words(configs, options.get("user_data_dir"), options.get("datadir")),
        userdir, config, settings, (*found, *wrong),
        Discretion.of_home(raw), now_ms, offline, root,
    )  # fmt: skip


def _as_they_stand(files: Sequence[str], userdir: str | None) -> tuple[Config, list[Finding]]:
    """What the files say together, and which of them cannot be read."""
    from lstm_model.bot.reading import read_config

    if "-" in files:
        return {}, [to_do("config", "it is read several times", "Name a file, not -")]
    readable, unread = list[Path](), list[Finding]()
    for file in map(Path, files):
        try:
            read_config(file)
            readable.append(file)
        except ConfigError as error:
            unread.append(_unread(file, userdir, str(error)))
    return read_config(*readable) if readable else {}, unread


def _unread(file: Path, userdir: str | None, text: str) -> Finding:
    from lstm_model.bot.named import how_to_have_one

    if not file.exists():
        how = how_to_have_one(userdir)
        return to_do("config", f"there is no file {file}", how[0].upper() + how[1:])
    return to_do("config", text, "Mend it; a configuration is one section in braces")


def _userdir(userdir: Path) -> Finding:
    quoted = shlex.quote(str(userdir))
    if not userdir.is_dir():
        return to_do(
            "user_data", f"there is no folder {userdir}",
            f"Run `freqtrade create-userdir --userdir {quoted}`, or name yours with --userdir",
        )  # fmt: skip
    try:
        refuse_unwritable(userdir.absolute())
    except LstmModelError:
        return to_do(
            "user_data", f"{userdir} is not writable",
            f"Give it to the user that the bot runs as: `chown -R USER {quoted}`, "
            f"`chmod -R u+rwX {quoted}`",
        )  # fmt: skip
    return good("user_data", f"{userdir} is writable")


def _loaded(
    files: Sequence[str], options: Mapping[str, str]
) -> tuple[Config, None] | tuple[None, str]:
    from lstm_model.bot.configuration import load_config

    try:
        return load_config(files, dict(options)), None
    except LstmModelError as error:
        return None, str(error)


def _settings(config: Config) -> tuple[Settings | None, list[Finding]]:
    """Ours, whatever freqtrade has against the rest."""
    try:
        candle_ms = timeframe_ms(config.get("timeframe", "5m"))
    except LstmModelError as error:
        return None, [to_do("timeframe", str(error))]
    try:
        return parse_settings(config.get("lstm"), candle_ms), []
    except LstmModelError as error:
        text = str(error)
        text = text.partition('section "lstm": ')[2] or text
        return None, [to_do("lstm", text, "`freqtrade-lstm settings` lists all options")]
