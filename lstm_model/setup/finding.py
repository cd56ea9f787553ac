"""What a check has found, and how it is told: in a line that may be shown to anybody."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from lstm_model.bot.discretion import Discretion


class State(StrEnum):
    """How a finding is marked."""

    GOOD = "ok"
    NOTE = "note"  # to know
    WARNING = "warn"  # better changed; a bot runs all the same
    TODO = "TODO"  # without it a bot does not do its work


class Finding(NamedTuple):
    """What one check found.

    Attributes
    ----------
    name : what was looked at
    text : how it is
    todo : what to do, as a sentence; empty where there is nothing to do
    """

    name: str
    state: State
    text: str
    todo: str = ""

    def __str__(self) -> str:
        end = "" if self.text.endswith((".", "?", "!")) else "."
        told = f"{self.name}: {self.text}" + (f"{end} {self.todo}" if self.todo else "")
        return " ".join(told.split())

    def without(self, discretion: Discretion) -> Finding:
        """The finding without what is nobody's business."""
        return self._replace(text=discretion.of(self.text), todo=discretion.of(self.todo))


def good(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, State.GOOD, text)


def note(name: str, text: str, todo: str = "") -> Finding:
    """Something to know."""
    return Finding(name, State.NOTE, text, todo)


def warning(name: str, text: str, todo: str = "") -> Finding:
    """Something that had better be changed."""
    return Finding(name, State.WARNING, text, todo)


def to_do(name: str, text: str, todo: str = "") -> Finding:
    """Something that has to be changed."""
    return Finding(name, State.TODO, text, todo)
