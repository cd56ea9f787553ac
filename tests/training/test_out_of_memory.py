"""A bot and its training in a container that is too small: whom the kernel really ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from places import ROOT, TESTS

pytestmark = pytest.mark.slow
GROUPS = Path("/sys/fs/cgroup")
LIMIT = 600_000_000

BOT = """
    import os, sys
    from pathlib import Path

    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    own = bytearray(os.urandom(1 << 20)) * 250  # what a bot takes

    from test_trainer import make_job
    from lstm_model.errors import TrainingError
    from lstm_model.training import trainer

    trainer._LOOK_S = float(sys.argv[3])
    try:
        trainer.Trainer().run(make_job(), Path(sys.argv[2]), background=False)
    except TrainingError as error:
        print(error)
    print("the bot lives with", len(own))
"""
AT_ONCE = 'taken = b"x" * 4_000_000_000'
SLOWLY = """
import os, time
taken = []
while True:
    taken.append(os.urandom(5_000_000))
    time.sleep(0.1)
"""


@pytest.fixture
def box() -> Iterator[Path]:
    """A cgroup of either version whose processes may take 600 MB in all."""
    old = (GROUPS / "memory").is_dir()
    group = GROUPS / ("memory" if old else "") / f"lstm-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if old else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    yield group
    group.rmdir()


@pytest.mark.parametrize(
    ("greed", "look_s", "said"),
    [
        (
            AT_ONCE,
            3_600.0,  # nobody looks in between, however slow this machine is
            r"ended by SIGKILL, the kernel ended 1 process\(es\) for want of memory meanwhile",
        ),
        (SLOWLY, 0.25, r"only \d+ MB were left; it was ended before the kernel ends the bot"),
    ],
    ids=["at once", "slowly"],
)
def test_the_training_is_ended_and_the_bot_lives_and_says_so(
    box: Path, tmp_path: Path, greed: str, look_s: float, said: str
) -> None:
    for name, text in (("keras", "import tensorflow"), ("tensorflow", greed)):
        (tmp_path / "path" / name).mkdir(parents=True)
        (tmp_path / "path" / name / "__init__.py").write_text(text)
    path = os.pathsep.join(map(str, (tmp_path / "path", ROOT, TESTS, TESTS / "training")))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOT), str(box), str(tmp_path / "job"), str(look_s)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2_000:])
    assert re.search(said, done.stdout), done.stdout
    assert f"the cgroup {box} allows" in done.stdout
    assert "the bot lives with" in done.stdout
