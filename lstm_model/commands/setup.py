"""The commands before a bot starts: `init`, `trainer` and `doctor`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from lstm_model.commands.terminal import OF_BOT, console, load_config, with_options
from lstm_model.settings import Settings
from lstm_model.setup.finding import Finding, State
from lstm_model.training import interpreter
from lstm_model.training.interpreter import Interpreter

_COLOURS = {State.GOOD: "green", State.NOTE: "cyan", State.WARNING: "yellow", State.TODO: "red"}


@click.command()
@click.option("--userdir", required=True, type=click.Path(file_okay=False, path_type=Path))
def init(userdir: Path) -> None:
    """Put the strategies and a configuration into your user_data folder."""
    from lstm_model.setup.scaffold import next_commands, scaffold

    for action in scaffold(userdir):
        console.print(str(action))
    console.print("Run next:", *next_commands(userdir), sep="\n  ")


@click.command()
@with_options(*OF_BOT)
@click.option("--install", "folder", is_flag=False, flag_value="", metavar="[DIR]",
              help="Make an environment there that trains; by default in the folder of the models, "
              "where every bot of it finds it.")  # fmt: skip
@click.option("--python", metavar="PYTHON", help="Of which Python, a path or a name on PATH.")
def trainer(folder: str | None, python: str | None, **named: Any) -> None:
    """Show which Python trains the networks, or install one that can."""
    from lstm_model.setup import environment

    if folder is None:
        found = _trainer_of(*_bot_of(**named))
        console.print(f"{found.python}, Python {found.release}, trains.")
        return
    wanted = Path(folder) if folder else _store_of(*_bot_of(**named)) / interpreter.FOLDER
    made, version = environment.install(wanted, python, console.print)
    console.print(f"{made.python} trains: TensorFlow {version} on Python {made.release}.")
    if folder and wanted == interpreter.IMAGE:
        return
    if _trainer_of(*_bot_of(**named)).python != made.python:
        option = f'"train_python": {json.dumps(made.python)}'
        console.print(f"Another comes first; for this one, put {option} into the lstm section.")


def _bot_of(
    configs: tuple[str, ...], userdir: str | None, **others: Any
) -> tuple[dict[str, Any], Settings]:
    """The configuration that options name, and our section of it."""
    from lstm_model.bot import configuration

    config = load_config(configs, userdir, **others)
    return config, configuration.settings_of(config)


def _store_of(config: dict[str, Any], settings: Settings) -> Path:
    from lstm_model.bot import configuration

    return configuration.store_folder(config, settings)


def _trainer_of(config: dict[str, Any], settings: Settings) -> Interpreter:
    from lstm_model.bot.named import words_of

    return interpreter.find(settings.train_python, _store_of(config, settings), words_of(config))


@click.command()
@with_options(*OF_BOT)
@click.option("--offline", is_flag=True, help="Do not ask the exchange for its time.")
@click.option("--json", "as_json", is_flag=True, help="As a list of JSON objects.")
def doctor(
    configs: tuple[str, ...], userdir: str | None, offline: bool, as_json: bool, **options: Any
) -> None:
    """Look at installation, configuration and candles: a line each, good or what to do.

    The lines hold no keys, passwords and tokens, and may go into a report of a bug. The status is 1
    if something has to be done, else 0.
    """
    from lstm_model.setup.doctor import examine
    from lstm_model.setup.subject import read_subject

    named = {"user_data_dir": userdir, **options}
    given = {name: str(value) for name, value in named.items() if value}
    subject = read_subject(configs, given, time.time_ns() // 1_000_000, offline=offline)
    found = list[Finding]()
    for finding in examine(subject):
        found.append(finding)
        if not as_json:
            console.print(_line(finding))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        console.print(_summary(found))
    sys.exit(any(finding.state == State.TODO for finding in found))


def _line(finding: Finding) -> Text:
    return Text.assemble((f"{finding.state:<5}", _COLOURS[finding.state]), str(finding))


def _summary(found: list[Finding]) -> str:
    counts = Counter(finding.state for finding in found)
    if not counts[State.TODO]:
        return f"Nothing has to be done; {counts[State.WARNING]} warning(s)."
    return f"{counts[State.TODO]} thing(s) to do, {counts[State.WARNING]} warning(s)."
