"""A replay's log is a file of its own; whoever else logs in this process goes on as before."""

from __future__ import annotations

import io
import logging
from pathlib import Path

from absl.logging import PythonHandler

from lstm_model.replay.logs import log_into, log_kept

said = logging.getLogger("of.a.bot")


def test_what_the_bot_says_is_in_its_log_alone(tmp_path: Path) -> None:
    screen = io.StringIO()
    root = logging.getLogger()
    root.addHandler(user := logging.StreamHandler(screen))
    handlers, level = root.handlers[:], root.level
    try:
        with log_kept():
            log_into(tmp_path / "bot.log")
            said.info("an entry")
            inside = root.handlers[:]
        assert (root.handlers, root.level) == (handlers, level)
        said.error("the replay is over")
    finally:
        root.removeHandler(user)
    assert (tmp_path / "bot.log").read_text().endswith(" - of.a.bot - INFO - an entry\n")
    assert screen.getvalue() == "the replay is over\n"
    assert [one.stream for one in inside if isinstance(one, logging.FileHandler)] == [None]


def test_nobody_elses_stream_is_closed(tmp_path: Path) -> None:
    """absl's handler holds what was sys.stderr when TensorFlow came, and closes it with itself."""
    notebook = io.StringIO()
    of_a_library = PythonHandler(notebook)
    with log_kept():
        log_into(tmp_path / "bot.log")
    assert not notebook.closed
    of_a_library.close()
    assert notebook.closed  # as it would have been
