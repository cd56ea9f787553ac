"""What names a bot: the files of its configuration, and the words of a command that mean the same.

A hint that names a command is copied as it stands, so it holds the files that the user gave.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_model.errors import ConfigError

CONFIG_FILE = "config.json"
STATIC_FILE = "static.json"
_FOLDER = "user_data"
_FROM_NOTHING = ["freqtrade create-userdir", "freqtrade-lstm init"]  # which makes no folder


def found_config(userdir: str | None) -> Path:
    """The file that freqtrade reads where none is named: in its folder, else in this one."""
    inside = Path(userdir or _FOLDER) / CONFIG_FILE
    return inside if inside.is_file() else Path(CONFIG_FILE)


def config_files(named: Sequence[str], userdir: str | None) -> list[str]:
    """The files to read: those that are named, else the one that freqtrade finds.

    Raises
    ------
    ConfigError
        One is not there; says how to make one.
    """
    files = list(named) or [str(found_config(userdir))]
    for file in files:
        if file != "-" and not Path(file).exists():
            raise ConfigError(f"there is no file {file}: {how_to_have_one(userdir)}")
    return files


def how_to_have_one(userdir: str | None) -> str:
    """What to do where there is no configuration."""
    folder = userdir or _FOLDER
    steps = ["freqtrade-lstm init"] if Path(folder).is_dir() else _FROM_NOTHING
    made = " and then ".join(f"`{step} --userdir {shlex.quote(folder)}`" for step in steps)
    return f"name yours with -c, or make one with {made}"


def files_of(config: Mapping[str, Any]) -> str:
    """The files that a configuration was read from, for a text about what is wrong in it."""
    return ", ".join(files_in_order(config)) or "the configuration"


def words_of(config: Mapping[str, Any]) -> str:
    """Words that name the same configuration to freqtrade's commands and ours, see `words`."""
    exchange = str(config.get("exchange", {}).get("name", ""))
    userdir, datadir = (Path(config.get(name, "")) for name in ("user_data_dir", "datadir"))
    usual_data = userdir / "data" / exchange.lower()
    return words(
        files_in_order(config),
        None if userdir in (Path(), Path.cwd() / _FOLDER) else str(userdir),
        None if datadir in (Path(), usual_data) else str(datadir),
    )


def words(files: Sequence[str], userdir: str | None, datadir: str | None) -> str:
    """Words of a command line, quoted for a shell, each after a blank; there may be none.

    Examples
    --------
    >>> words(["a b.json"], "mine", None)
    " -c 'a b.json' --userdir mine"
    """
    named = [word for file in files for word in ("-c", file)]
    for option, folder in (("--userdir", userdir), ("--datadir", datadir)):
        named += [option, folder] if folder else []
    return "".join(f" {shlex.quote(word)}" for word in named)


def static_pairs(command: str) -> str:
    """How a backtest gets pairs where a running bot makes their list; `-p` alone is no help.

    Parameters
    ----------
    command : what is to be run, with the overlay and pairs
    """
    overlay = shlex.quote('{"pairlists": [{"method": "StaticPairList"}]}')
    return (
        f"Lay a StaticPairList over it, `echo {overlay} > {STATIC_FILE}`, and name pairs: "
        f"`{command}`"
    )


def files_in_order(config: Mapping[str, Any]) -> list[str]:
    """Those that it was read from, the one that wins last; freqtrade notes them the other way."""
    return [str(file) for file in reversed(config.get("config_files") or ())]
