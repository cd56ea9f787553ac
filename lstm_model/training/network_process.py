"""The training process: `python -m lstm_model.training.network_process WORKDIR`.

It reads the job that `lstm_model.training.trainer` wrote, reports JSON lines on stdout and ends
when its stdin is closed, so no training outlives its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from lstm_model.errors import TrainingError
from lstm_model.settings import Settings
from lstm_model.training.network import Job, fit_network, use_threads, write_result

_INITIAL = "initial/"  # how the arrays of the initial weights are called in job.npz


def _read_job(workdir: Path) -> tuple[Job, dict[str, Any]]:
    options = json.loads((workdir / "job.json").read_text())
    settings = Settings.model_validate_json(json.dumps(options["settings"]))
    with np.load(workdir / "job.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = [name for name in arrays if name.startswith(_INITIAL)]
    initial = {name.removeprefix(_INITIAL): arrays.pop(name) for name in names}
    return Job(settings, **arrays, initial=initial or None), options


def _lower_priority() -> None:
    """Take only what other processes leave: SCHED_IDLE on Linux, elsewhere the lowest nice."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    if sys.platform != "win32":
        os.nice(19)


def _end_with_parent() -> None:
    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


def _report_line(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(workdir: Path) -> None:
    """The training process: job folder in, result files out, progress on stdout."""
    _end_with_parent()
    job, options = _read_job(workdir)
    if options["background"]:
        _lower_priority()
    use_threads(job.settings.train_threads)
    try:
        write_result(workdir, fit_network(job, _report_line))
    except TrainingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
