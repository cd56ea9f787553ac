"""Every command as strangers call it: a line and the right status, whatever they give it.

Commands and options are those of click's tree, so that a new one is called, too. More of it than
the suite has time for: `PYTHONPATH=tests python tests/commands/test_strangers.py CALLS [SECONDS]`.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from permissions import permissions_count
from places import STRATEGIES

from lstm_model.commands.main import main
from lstm_model.commands.terminal import Number

COMPLETE = {
    "dry_run": True, "stake_currency": "USDT", "stake_amount": 10, "max_open_trades": 3,
    "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"]},
    "pairlists": [{"method": "StaticPairList"}], "timeframe": "5m",
    "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
}  # fmt: skip
# What keeps a command from serving, asking, replaying or installing: options around it are right.
HARMLESS = {
    "doctor": ["--offline"],
    "exchange": ["--market", "nowhere"],
    "download-flow": ["-c", "user_data/config.json", "-c", "kraken.json"],
    "replay": ["--from", "2024-07-01", "--to", "2024-07-02", "--data", "nowhere"],
    "trainer": ["--python", "no-such-python"],
    "verify": ["--from", "2024-07-01", "--to", "2024-07-02", "--data", "nowhere"],
}
NO_NUMBERS = ("", "x", "nan", "inf", "-inf", "1e999", "-1", "0", "1.5", "9" * 30, "0x10", "٣", "--")
NO_PATHS = ("", "-", "no/such", "a file", "/dev/null", "/proc/x/y", "e\u0301☃", "x" * 300, "a b")
NO_TEXTS = ("", "-", "--", "x", "../x", "☃", "[red]x[/red]", "%s{}", "'; --", "x" * 3_000, "1e9")
LONG_S = 120  # far more than any of these takes, the imports of the first among it


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The path of every command, groups among them."""

    def below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[Any, click.Command]]:
        for name, command in group.commands.items():
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from below(command, (*path, name))

    return below(main, ())


COMMANDS = dict(commands())


def values(parameter: click.Parameter) -> tuple[str, ...]:
    """What a stranger may write there."""
    kind = parameter.type
    if isinstance(kind, click.Path):
        return NO_PATHS
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        ends = [str(end) for end in (getattr(kind, "min", None), getattr(kind, "max", None)) if end]
        return (*NO_NUMBERS, *ends)
    return (*NO_TEXTS, *(NO_NUMBERS if kind.name != "text" else ()), "9999-12-31", "0001-01-01")


def options_of(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and each.opts]


def arguments_of(command: click.Command) -> list[str]:
    return ["x" for each in command.params if isinstance(each, click.Argument)]


def words_of(path: tuple[str, ...], given: Sequence[str]) -> list[str]:
    """A call, made harmless before what is given, which may replace it."""
    command = COMMANDS[path]
    needed = [each.opts[0] for each in options_of(command) if each.required]
    own = [word for name in needed for word in (name, "user_data")]
    return [*path, *own, *HARMLESS.get(path[0], ()), *given, *arguments_of(command)]


@contextmanager
def within_seconds() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def call(words: Sequence[str], charset: str = "latin-1") -> Result:
    with within_seconds():
        return CliRunner(charset, {"COLUMNS": "10000"}).invoke(main, list(words))


def complaint(done: Result) -> str | None:
    """What is wrong with how a command ended; None if nothing is."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"raised {done.exception!r}"
    if "Traceback" in done.output:
        return "showed a traceback"
    lines = [line for line in done.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]
    wrong = [line for line in lines if line.startswith("Error: ")]
    if done.exit_code == 2 and len(wrong) == 1:
        return None
    if done.exit_code == 1 and len(lines) == len(wrong) == 1 and len(wrong[0]) > len("Error: xxx"):
        return None
    if done.exit_code in (0, 1) and not lines and (done.stdout.strip() or not done.exit_code):
        return None
    return f"ended with {done.exit_code} and {lines}"


def check(words: Sequence[str], charset: str = "latin-1") -> int:
    done = call(words, charset)
    problem = complaint(done)
    assert problem is None, f"{list(words)} {problem}\n{done.output[-2_000:]}"
    return done.exit_code


def empty(folder: Path) -> None:
    (folder / "a file").write_text("mine")
    (folder / "kraken.json").write_text('{"exchange": {"name": "kraken"}}')


def userdir(folder: Path, config: Mapping[str, Any] = COMPLETE) -> None:
    empty(folder)
    shutil.copytree(STRATEGIES, folder / "user_data" / "strategies")
    (folder / "user_data" / "config.json").write_text(json.dumps(config))


def beside(folder: Path) -> None:
    userdir(folder)
    (folder / "user_data" / "config.json").rename(folder / "config.json")


def without_timeframe(folder: Path) -> None:
    userdir(folder, {name: value for name, value in COMPLETE.items() if name != "timeframe"})


def wrong_section(folder: Path) -> None:
    userdir(folder, {**COMPLETE, "lstm": []})


def read_only(folder: Path) -> None:
    userdir(folder)
    for place in (folder, *folder.rglob("*")):
        place.chmod(place.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


LAYOUTS: tuple[Callable[[Path], None], ...] = (
    empty, userdir, beside, without_timeframe, wrong_section, read_only
)  # fmt: skip


@contextmanager
def standing_in(layout: Callable[[Path], None], folder: Path) -> Iterator[None]:
    before = Path.cwd()
    layout(folder)
    os.chdir(folder)
    try:
        with permissions_count():
            yield
    finally:
        os.chdir(before)
        for place in (folder, *folder.rglob("*")):
            if not place.is_symlink():
                place.chmod(place.stat().st_mode | stat.S_IWUSR)


@pytest.mark.lengthy
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_command_ends_in_a_line_wherever_it_is_called(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    with standing_in(layout, tmp_path):
        for path in COMMANDS:
            if path != ("exchange",):
                check(path)  # with nothing that it needs
            check(words_of(path, ()))


@pytest.mark.lengthy
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_refused_or_obeyed_whatever_its_value(
    tmp_path: Path, path: tuple[str, ...]
) -> None:
    with standing_in(userdir, tmp_path):
        for option in options_of(COMMANDS[path]):
            name = max(option.opts, key=len)
            if option.is_flag:
                check(words_of(path, [name]))
                continue
            check([*path, *HARMLESS.get(path[0], ()), name])  # without a value
            codes = {value: check(words_of(path, [name, value])) for value in values(option)}
            if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
                assert {codes[value] for value in ("", "x", "nan", "1e999", "0x10")} == {2}, name


def test_no_candles_are_asked_for_that_are_older_than_any_market(tmp_path: Path) -> None:
    daily = {
        **COMPLETE,
        "timeframe": "1d",
        "lstm": {"train_candles": 65_000, "learn_from": "20150101"},
    }
    with standing_in(lambda folder: userdir(folder, daily), tmp_path):
        told = call(["train"]).stderr
    command = "freqtrade download-data -c user_data/config.json --timeframes 1d --timerange"
    assert f"`{command} 20090103- --pairs BTC/USDT --prepend`" in told


def test_no_number_is_without_bounds() -> None:
    """Nor does any let nan or infinity pass."""
    for path, command in COMMANDS.items():
        for each in command.params:
            if isinstance(each.type, click.types.IntParamType):
                assert isinstance(each.type, click.IntRange), (path, each.name)
                assert each.type.min is not None, (path, each.name)
                assert each.type.max is not None, (path, each.name)
            if isinstance(each.type, click.types.FloatParamType):
                assert isinstance(each.type, Number), (path, each.name)


def fuzz(calls: int, seconds: float, seed: int, folder: Path) -> int:
    """Call commands at random; how many calls there were until the time was over."""
    chance, until_s = random.Random(seed), time.monotonic() + seconds
    made = 0
    while made < calls and time.monotonic() < until_s:
        place = folder / str(made)
        place.mkdir()
        with standing_in(chance.choice(LAYOUTS), place):
            for _ in range(100):
                if made >= calls:
                    break
                check(at_random(chance), chance.choice(("utf-8", "latin-1", "ascii")))
                made += 1
    return made


def at_random(chance: random.Random) -> list[str]:
    path = chance.choice(list(COMMANDS))
    given = []
    for option in options_of(COMMANDS[path]):
        if chance.random() < 0.25:
            given.append(chance.choice(option.opts))
            if not option.is_flag:
                given.append(chance.choice([junk(chance), *values(option)]))
    return words_of(path, [each for each in given if each not in ("synthetic", "random-walk")])


def junk(chance: random.Random) -> str:
    """Any text that an argument of a process may be."""
    letters = "0123456789.:-/@%[]{}'\"\\ \táß漢😀\x7fabcmhdTZ"
    return "".join(chance.choice(letters) for _ in range(chance.randrange(12)))


@pytest.mark.lengthy
def test_commands_called_at_random_end_in_a_line(tmp_path: Path) -> None:
    assert fuzz(300, 60.0, seed=1, folder=tmp_path) == 300


if __name__ == "__main__":
    most, seconds = int(sys.argv[1]), float(sys.argv[2] if len(sys.argv) > 2 else 1e9)
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        made = fuzz(most, seconds, seed=time.time_ns(), folder=Path(folder))
    click.echo(f"{made:,} calls in {time.monotonic() - begun_s:.0f} s")
