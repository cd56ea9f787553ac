"""Puts the strategies and an example configuration into a user's own user_data folder.

Nothing of theirs is overwritten: where a file differs, ours is written beside it.
"""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lstm_model.errors import ConfigError, StoreError
from lstm_model.settings import parse_settings

STRATEGY_FILES = ("lstm_strategy.py", "ema_cross.py", "ema_cross_lstm.py")
CONFIG_FILE = "lstm-config.example.json"


@dataclass(frozen=True)
class Action:
    """What happened to one file.

    Attributes
    ----------
    path : the file that now holds our content
    kind : "written"; "kept": it was there, identical; "beside": `original` differs and was left
    original : the user's file that was in the way
    """

    path: Path
    kind: Literal["written", "kept", "beside"]
    original: Path | None = None

    def __str__(self) -> str:
        if self.original is None:
            return f"{self.kind}: {self.path}"
        return (
            f"left as it is: {self.original}; ours is in {self.path}, compare them and rename it "
            "if you want it"
        )


def scaffold(userdir: Path) -> list[Action]:
    """Write the strategies and the example configuration; a second call changes nothing.

    Raises
    ------
    ConfigError
        If `userdir` does not exist or this installation lacks a strategy file.
    StoreError
        If `userdir` is not writable.

    Examples
    --------
    >>> scaffold(Path("missing"))
    Traceback (most recent call last):
        ...
    lstm_model.errors.ConfigError: ... run "freqtrade create-userdir --userdir missing" first
    """
    if not userdir.is_dir():
        command = f"freqtrade create-userdir --userdir {shlex.quote(str(userdir))}"
        raise ConfigError(f'there is no folder {userdir}: run "{command}" first')
    contents = {f"strategies/{name}": _strategy_source(name) for name in STRATEGY_FILES}
    contents[CONFIG_FILE] = example_config()
    return [_place(userdir / name, content) for name, content in contents.items()]


def next_command(userdir: Path) -> str:
    """The command that starts a dry run with what `scaffold` wrote.

    The user's config.json comes last, so that an `lstm` section of their own wins, and
    `--dry-run` stands there because their configuration may be a live one.

    Examples
    --------
    >>> next_command(Path("user_data"))  # doctest: +ELLIPSIS
    'freqtrade trade --dry-run --userdir user_data --strategy LSTMStrategy -c user_data/lstm-...'
    """
    directory = shlex.quote(str(userdir))
    configs = [shlex.quote(str(userdir / name)) for name in (CONFIG_FILE, "config.json")]
    return (
        f"freqtrade trade --dry-run --userdir {directory} --strategy LSTMStrategy "
        f"-c {configs[0]} -c {configs[1]}"
    )


def example_config() -> bytes:
    """The `lstm` section with every option at its default, as JSON for freqtrade's `-c`."""
    section = parse_settings({}).model_dump(mode="json")
    return (json.dumps({"lstm": section}, indent=4) + "\n").encode()


def _strategy_source(name: str) -> bytes:
    """A wheel carries the files inside the package; a source checkout has them beside it."""
    package = Path(__file__).parents[1]
    candidates = (package / "init" / name, package.parent / "strategies" / name)
    for path in candidates:
        if path.is_file():
            return path.read_bytes()
    raise ConfigError(f"this installation has no {candidates[0]}: install lstm-model again")


def _place(path: Path, content: bytes) -> Action:
    try:
        path.parent.mkdir(exist_ok=True)
        kind = _write_or_compare(path, content)
        if kind is not None:
            return Action(path, kind)
        names = (f"{path.name}.new{number or ''}" for number in itertools.count())
        beside = (path.with_name(name) for name in names)  # freqtrade loads none of these
        return Action(next(p for p in beside if _write_or_compare(p, content)), "beside", path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path} ({error.strerror}): make its folder writable"
        ) from None


def _write_or_compare(path: Path, content: bytes) -> Literal["written", "kept"] | None:
    """None: the path is taken by something else. Exclusive creation: never overwrites."""
    try:
        with path.open("xb") as handle:
            handle.write(content)
    except FileExistsError:
        taken = not path.is_file() or path.read_bytes() != content
        return None if taken else "kept"
    return "written"
