"""The training process: `python -m lstm_model.training.network_process --threads N [--background]`.

It reads job folders from stdin, does one job after the other and reports JSON lines on stdout; the
last of a job is `{"done": ...}` or `{"problem": ...}`. It ends when its stdin is closed, so no
training outlives its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from lstm_model.errors import TrainingError
from lstm_model.settings import Settings
from lstm_model.training.fit import Workshop, fit_members, write_result
from lstm_model.training.graph import Job
from lstm_model.training.network import use_threads
from lstm_model.training.parity import Parity

_INITIAL = "initial/"  # how the arrays of the initial weights are called in job.npz


def _read_job(workdir: Path) -> Job:
    options = json.loads((workdir / "job.json").read_text())
    settings = Settings.model_validate_json(json.dumps(options["settings"]))
    with np.load(workdir / "job.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = [name for name in arrays if name.startswith(_INITIAL)]
    initial = {name.removeprefix(_INITIAL): arrays.pop(name) for name in names}
    return Job(settings, **arrays, initial=initial or None, parity=Parity.at(options["parity"]))


def _lower_priority() -> None:
    """Take only what other processes leave: SCHED_IDLE on Linux, elsewhere the lowest nice."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    if sys.platform != "win32":
        os.nice(19)


def _folders() -> queue.Queue[Path]:
    """The job folders as they come; the process ends with the last of its parent."""
    folders: queue.Queue[Path] = queue.Queue()

    def listen() -> None:
        try:
            for line in sys.stdin:
                folders.put(Path(json.loads(line)))
        finally:  # also where the parent was killed amid a line
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    return folders


def _report_line(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _work(workshop: Workshop, workdir: Path) -> dict[str, Any]:
    """Job folder in, result files out, progress on stdout; the last word."""
    try:
        write_result(workdir, workshop, fit_members(workshop, _read_job(workdir), _report_line))
    except TrainingError as error:
        return {"problem": str(error)}
    return {"done": str(workdir)}


def main() -> None:
    """The training process: one job after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--background", action="store_true")
    asked = parser.parse_args()
    folders = _folders()
    if asked.background:
        _lower_priority()
    use_threads(asked.threads)
    workshop = Workshop()
    while True:
        _report_line(_work(workshop, folders.get()))


if __name__ == "__main__":
    main()
