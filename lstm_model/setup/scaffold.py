"""Puts the strategies and a configuration into a user's own user_data folder.

Nothing of theirs is overwritten: where a file differs, ours is written beside it. Who has no
config.json yet gets a whole one, for a dry run; who has one gets an example of the `lstm` section,
with pairs to train on where the list of pairs is made by the running bot.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from lstm_model.errors import ConfigError, StoreError, TrainingError
from lstm_model.features.context import leader_of
from lstm_model.files import how_to_place, write_atomically
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import default_of, parse_settings
from lstm_model.setup.options import example_section
from lstm_model.training import interpreter
from lstm_model.training.downloads import days_to_learn
from lstm_model.written import is_newer, signature, signed

STRATEGY_FILES = ("lstm_strategy.py", "ema_cross.py", "ema_cross_lstm.py")
CONFIG_FILE, SECTION_FILE = "config.json", "lstm-config.example.json"
_TIMEFRAME = "5m"  # of our strategies
_PRACTICE = "data/practice"  # candles of a practice exchange, in the user's folder
_FEW = ("BTC", "ETH", "SOL")  # to train on where a list of pairs is made by the running bot


@dataclass(frozen=True)
class Action:
    """What happened to one file.

    Attributes
    ----------
    path : the file that now holds our content
    kind : "written"; "kept": it was there, identical; "renewed": it was there, of another version
        of ours and as that wrote it; "beside": `original` differs and was left
    original : the user's file that was in the way
    """

    path: Path
    kind: Literal["written", "kept", "renewed", "beside"]
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
        `lstm` section is wrong or names no pairs where it has to.
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
    sources = [(name, _strategy_source(name)) for name in STRATEGY_FILES]
    contents = {f"strategies/{name}": signed(source) for name, source in sources}
    theirs, whole = _Theirs.of(userdir), _packaged("example.json")
    theirs.days()  # refuses what is wrong before anything is written
    theirs.check_pairs()
    if theirs.path is None or _holds(userdir / CONFIG_FILE, whole):
        contents[CONFIG_FILE] = whole
    elif theirs.section is None and theirs.has_exchange:
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
    place = shlex.join(["--userdir", str(userdir)])
    if not theirs.has_exchange:  # nothing can be downloaded or traded by it
        whole = f"freqtrade new-config {shlex.join(['-c', str(own)])}"
        return [whole, f"freqtrade-lstm init {place}"]
    common = " ".join([place, *(shlex.join(["-c", str(file)]) for file in files)])
    days, timeframe = theirs.days(), theirs.timeframe
    download = f"freqtrade download-data {common} --timeframes {timeframe} --days {days}"
    few, strategy = theirs.few, "--strategy LSTMStrategy"
    return [
        f"{download} --pairs {shlex.join(few)}" if few else download,
        *(f"{download} --pairs {shlex.quote(leader)}" for leader in theirs.leader_apart),
        *([] if _has_trainer(userdir) else [f"freqtrade-lstm trainer --install {common}"]),
        f"freqtrade-lstm train {common} {strategy}",
        f"freqtrade trade --dry-run {common} {strategy}",
    ]


def practice_commands(overlay: Mapping[str, Any], usual: Mapping[str, Any], days: int) -> list[str]:
    """The commands by which a bot in this folder trades on a practice exchange.

    Its candles come into a folder of their own: freqtrade would join them to those of the exchange
    that it takes this one for.

    Parameters
    ----------
    overlay : the configuration that leads there; a command writes it where no file says the same
    usual : the same of an exchange on the usual port, of which a checkout has a file
    days : of history that the exchange has
    """
    userdir = Path("user_data")
    own = _own_config(userdir)
    timeframe = _as_it_stands(own).get("timeframe", _TIMEFRAME) if own else _TIMEFRAME
    made = [] if own else [f"freqtrade create-userdir --userdir {userdir}",
                           f"freqtrade-lstm init --userdir {userdir}"]  # fmt: skip
    port, usual_port = (_port(each) for each in (overlay, usual))
    mode = "-futures" if overlay["trading_mode"] == "futures" else ""
    mode += "" if overlay["dry_run"] else "-live"
    shipped, other = (userdir / f"config-loopback{mode}{end}.json" for end in ("", f"-{port}"))
    file = shipped if _says(shipped, overlay) else other
    if not _says(file, overlay):
        text = f"echo {shlex.quote(json.dumps(overlay))}"
        if _says(shipped, usual):
            text = f"sed s/:{usual_port}/:{port}/ {shipped}"
        made.append(f"{text} > {file}")
    words = f"-c {own or userdir / CONFIG_FILE} -c {file} --datadir {userdir / _PRACTICE}"
    return [
        *made,
        f"freqtrade download-data {words} --timeframes {timeframe} --days {days}",
        f"freqtrade trade {words} --strategy LSTMStrategy",
    ]


def _port(overlay: Mapping[str, Any]) -> int | None:
    return urlsplit(str(overlay["exchange"]["ccxt_config"]["urls"]["api"]["public"])).port


def _has_trainer(userdir: Path) -> bool:
    """Whether a Python is found that trains, by what a user has who has chosen nothing."""
    try:
        return bool(interpreter.find(None, userdir / default_of("store_dir")))
    except TrainingError:
        return False


def days_to_download(
    section: dict[str, Any] | None, timeframe: str, of: str = "the configuration"
) -> int:
    """Days of history that a first training wants, generously rounded.

    Examples
    --------
    >>> days_to_download(None, "5m"), days_to_download({"train_candles": 10_000}, "1h")
    (850, 550)
    """
    return days_to_learn(parse_settings(section, timeframe_ms(timeframe), of), timeframe)


class _Theirs(NamedTuple):
    """What the user has already.

    Attributes
    ----------
    path : of their configuration: in their folder, else in this one; None without
    section : of ours in it, None without
    timeframe : theirs, else that of our strategies
    names_timeframe : whether it is theirs
    has_exchange : whether it names one, as every command needs
    pairs : those that it names; empty where a running bot makes their list
    few : to train on where a bot makes the list: theirs, else some that are traded everywhere
    no_pairs : why there are no `pairs`
    """

    path: Path | None
    section: Any
    timeframe: Any
    names_timeframe: bool
    has_exchange: bool
    pairs: tuple[str, ...]
    few: tuple[str, ...]
    no_pairs: str

    @classmethod
    def of(cls, userdir: Path) -> _Theirs:
        from lstm_model.bot import configuration

        path = _own_config(userdir)
        if path is None:  # ours will be theirs
            return cls(None, None, _TIMEFRAME, True, True, tuple(_everywhere({})), (), "")
        config = _readable(path)
        exchange, section = _braces(config, "exchange"), _braces(config, "lstm")
        listed = exchange.get("pair_whitelist")
        exchange["pair_whitelist"] = list(map(str, listed if isinstance(listed, list) else ()))
        config["exchange"] = exchange
        pairs = tuple(configuration.configured_pairs({"exchange": exchange}, ()))
        named = section.get("train_pairs")  # `days` refuses what is none
        few = tuple(named if isinstance(named, list) else ())
        few = few or (() if section else tuple(_everywhere(config)))
        is_made = configuration.makes_pairs(config)
        return cls(
            path, config.get("lstm"), config.get("timeframe", _TIMEFRAME), "timeframe" in config,
            bool(exchange.get("name")), pairs, few if is_made and not pairs else (),
            configuration.no_pairs(config),
        )  # fmt: skip

    def days(self) -> int:
        """Of history to download; raises where their section is wrong."""
        return days_to_download(self.section, self.timeframe, str(self.path))

    def check_pairs(self) -> None:
        """Refuse a configuration that names no pairs, neither to trade nor to train on."""
        if self.has_exchange and not (self.pairs or self.few):
            raise ConfigError(f"no pair to train on: {self.no_pairs}")

    @property
    def leader_apart(self) -> tuple[str, ...]:
        """The pair that all forecasts see, if freqtrade would not download it with theirs."""
        named = self.section.get("leader") if isinstance(self.section, dict) else None
        plain = sorted(self.pairs or self.few)
        leader = leader_of(named, plain)
        return () if leader is None or leader in plain else (leader,)


def _own_config(userdir: Path) -> Path | None:
    """Their configuration, where freqtrade looks for it."""
    places = (userdir / CONFIG_FILE, Path(CONFIG_FILE))
    return next((place for place in places if place.exists() or place.is_symlink()), None)


def _readable(path: Path) -> dict[str, Any]:
    """Their configuration; one that cannot be read is not to be written over."""
    from lstm_model.bot.reading import read_config

    try:
        return read_config(path)
    except ConfigError as error:
        raise ConfigError(f"{error}. Mend it, or move it away; nothing was changed") from None


def _as_it_stands(path: Path) -> dict[str, Any]:
    """The same; empty where freqtrade cannot read it, which it will say."""
    try:
        return _readable(path)
    except ConfigError:
        return {}


def _says(path: Path, wanted: Mapping[str, Any]) -> bool:
    return path.is_file() and wanted.items() <= _as_it_stands(path).items()


def _braces(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of it; empty where it is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _everywhere(config: dict[str, Any]) -> list[str]:
    """A few pairs that every exchange trades."""
    money = str(config.get("stake_currency") or "USDT")
    settled = f":{money}" if config.get("trading_mode") == "futures" else ""
    return [f"{coin}/{money}{settled}" for coin in _FEW]


def _section_alone(theirs: _Theirs) -> bytes:
    """An example of our section, and what they do not name: a timeframe, pairs to train on."""
    timeframe = "" if theirs.names_timeframe else f'    "timeframe": "{_TIMEFRAME}",\n'
    section = example_section(4)
    if theirs.few:
        opened, rest = section.split("\n", 1)
        section = f'{opened}\n        "train_pairs": {json.dumps(theirs.few)},\n{rest}'
    return f"{{\n{timeframe}{section}\n}}\n".encode()


def _packaged(name: str) -> bytes:
    return files("lstm_model.setup").joinpath(name).read_bytes()


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
        if _may_be_renewed(path):
            write_atomically(path, content)
            return Action(path, "renewed")
        names = (f"{path.name}.new{number or ''}" for number in itertools.count())
        beside = (path.with_name(name) for name in names)  # freqtrade loads none of these
        return Action(next(p for p in beside if _write_or_compare(p, content)), "beside", path)
    except OSError as error:
        raise StoreError(f"cannot write {path} ({error.strerror}): {how_to_place(error)}") from None


def _write_or_compare(path: Path, content: bytes) -> Literal["written", "kept"] | None:
    """None: the path is taken by something else. Exclusive creation: never overwrites."""
    try:
        with path.open("xb") as handle:
            handle.write(content)
    except FileExistsError:
        return "kept" if _holds(path, content) else None
    return "written"


def _may_be_renewed(path: Path) -> bool:
    """Whether it is a file of ours, as this version or an older one wrote it."""
    found = signature(path.read_bytes()) if path.is_file() and not path.is_symlink() else None
    return found is not None and found.untouched and not is_newer(found.version)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
