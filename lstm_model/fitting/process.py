"""The training process, begun by `start.py`: options `--threads N [--background]`.

It reads job folders from stdin, does one job after the other and reports JSON lines on stdout; the
last of a job is `{"done": ...}` or `{"problem": ...}`. It ends when its stdin is closed, so no
training outlives its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_model.errors import TrainingError

if TYPE_CHECKING:
    from lstm_model.fitting.fit import Workshop
    from lstm_model.fitting.graph import Job

_MOST_WILLING = "1000"  # of what a process can write; the default is 0
# Keras imports them where they are installed, for inputs that it is never given here. Without them
# a process starts in two thirds of the time and with a fifth less memory, and no library of theirs
# can be at odds with TensorFlow's.
_NOT_NEEDED = ("pandas", "pyarrow", "sklearn")
_NEEDED = {
    "tensorflow": "TensorFlow",
    "keras": "TensorFlow",
    "numpy": "NumPy",
    "pydantic": "pydantic",
}
_INITIAL = "initial/"  # how the arrays of the initial weights are called in job.npz


def _read_job(workdir: Path) -> Job:
    import numpy as np

    from lstm_model.fitting.graph import Job
    from lstm_model.fitting.parity import Parity
    from lstm_model.settings import Settings

    options = json.loads((workdir / "job.json").read_text())
    settings = Settings.model_validate_json(json.dumps(options["settings"]))
    with np.load(workdir / "job.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = [name for name in arrays if name.startswith(_INITIAL)]
    initial = {name.removeprefix(_INITIAL): arrays.pop(name) for name in names}
    return Job(settings, **arrays, initial=initial or None, parity=Parity.at(options["parity"]))


def _stand_back() -> None:
    """Have the kernel end this process first when memory runs out.

    A training can be made anew; a bot has trades open.
    """
    with contextlib.suppress(OSError):  # there is no such file elsewhere than on Linux
        Path("/proc/self/oom_score_adj").write_text(_MOST_WILLING)


def _tell_where_it_stands() -> None:
    """Write the calls of all threads into the log: at a fault, and when the parent asks."""
    faulthandler.enable()
    if sys.platform != "win32":
        faulthandler.register(signal.SIGUSR1)


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
    """In one write and on a line of its own, whatever else was amid a line."""
    sys.stdout.write(f"\n{json.dumps(message)}\n")
    sys.stdout.flush()


def _able(threads: int) -> Callable[[Path], dict[str, Any]]:
    """What does a job and says its last word. Its libraries are imported late: one may lack."""
    for name in _NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # its import fails, as if not there
    try:
        from lstm_model.fitting.fit import Workshop
        from lstm_model.fitting.network import use_threads
    except ImportError as error:
        problem = {"problem": _lacking(error)}
        return lambda workdir: problem
    use_threads(threads)
    workshop = Workshop()
    return lambda workdir: _work(workshop, workdir)


def _lacking(error: ImportError) -> str:
    """What cannot be imported and what to do about it."""
    name = str(error.name).partition(".")[0]
    if name in _NEEDED:
        return (
            f"{_NEEDED[name]} is not installed for {sys.executable} (no module {name}): run "
            "`freqtrade-lstm trainer --install`, or `pip install 'lstm-model[train]'` with a "
            "Python that TensorFlow exists for"
        )
    first: BaseException = error
    while first.__context__ is not None:  # TensorFlow wraps what the system said
        first = first.__context__
    said = " ".join(str(first).split())
    return (
        f"TensorFlow is installed but cannot be imported by {sys.executable}: {said}. Install it "
        "anew by `pip install --force-reinstall 'lstm-model[train]'` or `freqtrade-lstm trainer "
        "--install`, or see https://www.tensorflow.org/install/errors"
    )


def _work(workshop: Workshop, workdir: Path) -> dict[str, Any]:
    """Job folder in, result files out, progress on stdout; the last word."""
    from lstm_model.fitting.fit import fit_members, write_result

    try:
        write_result(workdir, workshop, fit_members(workshop, _read_job(workdir), _report_line))
    except TrainingError as error:
        return {"problem": str(error)}
    except OSError as error:
        return {"problem": f"the training process cannot read or write in {workdir}: {error}"}
    except MemoryError as error:
        return {"problem": f"the training process was given no more memory: {error}"}
    return {"done": str(workdir)}


def main() -> None:
    """The training process: one job after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--background", action="store_true")
    asked = parser.parse_args()
    folders = _folders()
    _stand_back()
    _tell_where_it_stands()
    if asked.background:
        _lower_priority()
    work = _able(asked.threads)
    while True:
        _report_line(work(folders.get()))
