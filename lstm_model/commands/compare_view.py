"""Four backtests on a terminal: tables and a sentence, and how far they are meanwhile."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lstm_model.commands.terminal import plain_table
from lstm_model.rivals.report import (
    difference_rows,
    entry_lines,
    heading,
    sentence,
    table,
)
from lstm_model.rivals.rivalry import Rivalry

_STYLES = {1: "bold green", -1: "bold red", 0: ""}
_SHARE = re.compile(r": +(\d+)%, ")  # of a training
_WIDE = 90  # chosen: of what is done, in a line
_TELL_EVERY_S = 15.0  # chosen: to a file, where nothing can be shown in place of something else


class Screen:
    """Shows what runs and how far it is, with the learner's newest line; says when it is done."""

    def __init__(self, console: Console) -> None:
        self.log: logging.Handler = _Lines(self)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(20))
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("Reading the configuration", total=1.0)
        self._title, self._began_s, self._number, self._told_s = "", 0.0, 0, 0.0
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if kind is None:
            self._done()
        self._bar.stop()

    def begin(self, title: str) -> None:
        """Another backtest begins."""
        self._done()
        self._number += 1
        self._title, self._began_s = title, time.monotonic()
        self._show("", 0.0)

    def progress(self, doing: str, share: float) -> None:
        """How far it is in what it does."""
        self._show(doing, share)

    def note(self, record: logging.LogRecord) -> None:
        """What was logged: ours is shown while it lasts, a warning stays, once."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            if text not in self._said:
                self._said.add(text)
                self._bar.console.print(Text(f"{record.levelname.lower()}: {text}"))
        elif record.name.startswith("lstm_model"):
            share = _SHARE.search(text)
            self._show(text, int(share[1]) / 100.0 if share else None)
            if self._bar.disable and time.monotonic() - self._told_s >= _TELL_EVERY_S:
                self._told_s = time.monotonic()
                self._bar.console.print(Text(f"  {text}"))

    def _show(self, doing: str, share: float | None) -> None:
        text = f"Backtest {self._number}, {self._title}" + (f": {doing}" if doing else "")
        self._bar.update(self._task, description=text[:_WIDE], completed=share)

    def _done(self) -> None:
        if self._title:
            took_s = time.monotonic() - self._began_s
            self._bar.console.print(
                Text(f"Backtest {self._number}, {self._title}: done in {took_s:.0f} s")
            )
            self._title = ""


class _Lines(logging.Handler):
    """Hands on what is logged."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note(record)


def renderables(rivalry: Rivalry) -> Iterator[RenderableType]:
    """What the command prints, one after the other; no markup is read in it."""
    yield Text("")
    yield Text(heading(rivalry))
    yield Text("constant, EWMA: stakes by a constant, by EWMA volatility, at as much mean exposure")
    yield Text("")
    yield _side_by_side(rivalry)
    yield Text("")
    yield Text("LSTMRisk less the others, 95% interval by blocks of days; percentages in points")
    yield _differences(rivalry)
    yield Text("")
    for line in entry_lines(rivalry):
        yield Text(f"{line}.")
    yield Text("")
    yield Text(sentence(rivalry), style="bold")


def _side_by_side(rivalry: Rivalry) -> Table:
    made = plain_table("", *(each.name for each in rivalry.contenders))
    for name, values in table(rivalry):
        made.add_row(Text(name), *map(Text, values))
    return made


def _differences(rivalry: Rivalry) -> Table:
    made = plain_table("", *(f"less {name}" for name in rivalry.against))
    for name, cells in difference_rows(rivalry):
        made.add_row(Text(name), *(Text(text, _STYLES[proven]) for text, proven in cells))
    return made
