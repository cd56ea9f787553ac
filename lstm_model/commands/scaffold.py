"""Puts the strategies and a configuration into a user's own user_data folder.

Nothing of theirs is overwritten: where a file differs, ours is written beside it. Who has no
config.json yet gets a whole one, for a dry run; who has one gets an example of the `lstm` section.
"""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lstm_model.commands.options import example_section
from lstm_model.durations import DAY_MS
from lstm_model.errors import ConfigError, StoreError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import REACH_DAYS, leader_of
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import parse_settings

STRATEGY_FILES = ("lstm_strategy.py", "ema_cross.py", "ema_cross_lstm.py")
CONFIG_FILE, SECTION_FILE = "config.json", "lstm-config.example.json"
_TIMEFRAME = "5m"  # of our strategies
_ROUND_DAYS = 50  # chosen: of history to download, for a number that is easy to read


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
    """Write the strategies and a configuration; a second call changes nothing.

    Raises
    ------
    ConfigError
        If `userdir` does not exist, this installation lacks a strategy file, or the user's own
        `lstm` section is wrong.
    DataError
        If the user's timeframe is none.
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
    theirs, whole = _Theirs.of(userdir), _packaged("example.json")
    days_to_download(theirs.section, theirs.timeframe)  # refuses what is wrong before it writes
    if theirs.path is None or _holds(userdir / CONFIG_FILE, whole):
        contents[CONFIG_FILE] = whole
    elif theirs.section is None:
        contents[SECTION_FILE] = _section_alone(theirs)
    return [_place(userdir / name, content) for name, content in contents.items()]


def next_commands(userdir: Path) -> list[str]:
    """The commands that lead from what `scaffold` wrote to the first forecast, in a dry run.

    The user's config.json comes last, so that what it says wins, and `--dry-run` stands there
    because it may be that of a live bot. A bot would train by itself, but freqtrade asks for
    forecasts at a new candle only, so the first would come up to a candle later.

    Raises
    ------
    ConfigError, DataError
        As `scaffold`.
    """
    theirs = _Theirs.of(userdir)
    own = theirs.path or userdir / CONFIG_FILE
    files = [own] if theirs.section is not None else [userdir / SECTION_FILE, own]
    words = ["--userdir", str(userdir)]
    for file in files:
        words += ["-c", str(file)]
    common, days = shlex.join(words), days_to_download(theirs.section, theirs.timeframe)
    download = f"freqtrade download-data {common} --timeframes {theirs.timeframe} --days {days}"
    return [
        download,
        *(f"{download} --pairs {shlex.quote(leader)}" for leader in theirs.leader_apart),
        f"freqtrade-lstm train {common}",
        f"freqtrade trade --dry-run {common} --strategy LSTMStrategy",
    ]


def days_to_download(section: dict[str, Any] | None, timeframe: str) -> int:
    """Days of history that a first training wants, generously rounded.

    Examples
    --------
    >>> days_to_download(None, "5m"), days_to_download({"train_candles": 10_000}, "1h")
    (850, 550)
    """
    candle_ms = timeframe_ms(timeframe)
    settings = parse_settings(section, candle_ms)
    wanted = settings.train_candles + settings.retrain_candles + WARM_UP + settings.lookback
    wanted_ms = wanted * candle_ms + REACH_DAYS * DAY_MS
    return -(-wanted_ms // (DAY_MS * _ROUND_DAYS)) * _ROUND_DAYS


class _Theirs(NamedTuple):
    """What the user has already.

    Attributes
    ----------
    path : of their configuration: in their folder, else in this one; None without
    section : of ours in it, None without
    timeframe : theirs, else that of our strategies
    names_timeframe : whether it is theirs
    leader_apart : the pair that all forecasts see, where it is not among theirs
    """

    path: Path | None
    section: Any
    timeframe: Any
    names_timeframe: bool
    leader_apart: tuple[str, ...]

    @classmethod
    def of(cls, userdir: Path) -> _Theirs:
        from lstm_model.bot.configuration import read_config

        places = (userdir / CONFIG_FILE, Path(CONFIG_FILE))  # as freqtrade looks for it
        path = next((place for place in places if place.exists() or place.is_symlink()), None)
        try:
            config = {} if path is None else read_config(path)
        except ConfigError:
            config = {}  # freqtrade will say what is wrong with it
        named = "timeframe" in config
        timeframe = config.get("timeframe", _TIMEFRAME)
        return cls(path, config.get("lstm"), timeframe, named, _leader_apart(config))


def _leader_apart(config: dict[str, Any]) -> tuple[str, ...]:
    """The leader of their pairs, if freqtrade would not download it with them."""
    exchange, section = config.get("exchange"), config.get("lstm")
    pairs = exchange.get("pair_whitelist") if isinstance(exchange, dict) else None
    named = section.get("leader") if isinstance(section, dict) else None
    plain = sorted(pair for pair in pairs or () if "/" in str(pair))
    leader = leader_of(named, plain)
    return () if leader is None or leader in plain else (leader,)


def _section_alone(theirs: _Theirs) -> bytes:
    """An example of our section, and the timeframe where they name none."""
    timeframe = "" if theirs.names_timeframe else f'    "timeframe": "{_TIMEFRAME}",\n'
    return f"{{\n{timeframe}{example_section(4)}\n}}\n".encode()


def _packaged(name: str) -> bytes:
    return files("lstm_model.commands").joinpath(name).read_bytes()


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
        return "kept" if _holds(path, content) else None
    return "written"


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
