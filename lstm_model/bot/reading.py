"""How the files of a configuration are read, and what is wrong with them in a line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from freqtrade.enums import RunMode
from freqtrade.exceptions import FreqtradeException

from lstm_model.bot import insides
from lstm_model.bot.discretion import Discretion
from lstm_model.errors import ConfigError

# What freqtrade's reading raises where a value is of another kind than it counts on.
STUMBLES = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)

_FORMS = {  # what freqtrade uses before its schema looks at it
    "exchange": (dict, "a section in braces"), "user_data_dir": (str, "the path of a folder"),
}  # fmt: skip


def read_config(*paths: Path) -> insides.Config:
    """Configuration files with those that they add and the environment's variables, as they stand.

    Raises
    ------
    ConfigError
        What freqtrade has against it.
    """
    try:
        with silent():
            return insides.read_files(list(map(str, paths)))
    except (TypeError, AttributeError) as error:
        text = _of_shape(error)
    except (FreqtradeException, *STUMBLES) as error:
        text = insides.AT_OFFSET.sub(lambda at: _line(paths[-1], int(at[1])), in_a_line(error))
    raise ConfigError(f"{', '.join(map(str, paths))} cannot be read: {text}")


def _line(path: Path, offset: int) -> str:
    """Where in a file freqtrade's reading ended, or that it was not in this one."""
    try:
        insides.read_file(str(path))
    except (FreqtradeException, *STUMBLES):
        before = path.read_text(encoding="utf-8")[:offset]
        return f"in line {before.count(chr(10)) + 1}"
    return "in a file that it adds"


def _of_shape(error: Exception) -> str:
    return f"a file must be one section in braces, and so must what it adds ({in_a_line(error)})"


@contextmanager
def silent() -> Iterator[None]:
    """Nothing is logged: freqtrade tells what it reads, and what is wrong over many lines."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def in_a_line(error: BaseException) -> str:
    """What freqtrade says, and of which key where its schema says it."""
    cause = error.__context__
    place = getattr(cause, "json_path", "$").removeprefix("$").removeprefix(".")
    text = f"{place}: {getattr(cause, 'message', error)}" if place else str(error)
    if type(cause).__name__ == "JSONDecodeError":  # below stands a part of the file, with secrets
        text = text.splitlines()[0]
    text = text.partition(insides.SEGMENT)[0]
    part, path = getattr(cause, "instance", None), getattr(cause, "absolute_path", ())
    text = Discretion.of_part(part, path).of(text)  # the schema's words hold what stands there
    if isinstance(error, KeyError):
        text = f"there is no {text}"
    return " ".join(text.split())


def _misshapen(files: Sequence[str]) -> str:
    """What of these files has another shape than a configuration; empty if freqtrade finds none."""
    try:
        with silent():
            found = insides.read_files(files)
    except STUMBLES as error:
        return _of_shape(error)
    for name, (kind, what) in _FORMS.items():
        if name in found and not isinstance(found[name], kind):
            shown = Discretion.of_part(found[name], [name]).of(repr(found[name]))
            return f"{name} must be {what}, found {shown}"
    try:
        with silent():
            insides.check_schema({**found, "runmode": RunMode.UTIL_NO_EXCHANGE})
    except (FreqtradeException, *STUMBLES) as error:
        return in_a_line(error)
    return ""


def stumbled(files: Sequence[str], error: BaseException) -> str:
    """Why freqtrade could not go on with these files."""
    if isinstance(error, OSError):
        return f"{error.filename or files[-1]}: {error.strerror or error}"
    problem = in_a_line(error)
    if "-" not in files:  # what came from there cannot be read again
        problem = _misshapen(files) or problem
    return f"{', '.join(files)} cannot be used: {problem}"
