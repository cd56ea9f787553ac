"""The job-folder protocol, against small children that are not TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest
from places import lay_out

from lstm_model.errors import DataError, TrainingError
from lstm_model.settings import Settings
from lstm_model.training.child import Child
from lstm_model.training.job import Progress, TrainingJob, TrainingResult
from lstm_model.training.trainer import Kind, Trainer

GOOD_CHILD = """
    import json, pathlib, sys
    import numpy as np
    folder = pathlib.Path(json.loads(sys.stdin.readline()))
    with np.load(folder / "job.npz", allow_pickle=False) as job:
        sys.stdout.buffer.write(bytes([0xFF, 0x0A]))  # a library says something, not in UTF-8
        sys.stdout.flush()
        print('["a list"]')
        print("[" * 100_000)
        print(json.dumps({"stage": "compiling"}), flush=True)
        loss = float(job["targets"][job["train_ends"]].mean())
        print(json.dumps({"stage": "training", "epoch": 1, "fraction": 0.5, "loss": loss}))
        np.savez(folder / "result.npz", **{"gaps/bias": job["rows"][0, :1]})
    epoch = {"epoch": 1, "loss": loss, "validation_loss": 2.0, "seconds": 0.1}
    result = {"epochs": 1, "best_epoch": 1, "history": [epoch], "fallback": None}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "network.keras").write_bytes(b"network")
    print(json.dumps({"done": True}), flush=True)
    sys.stdin.read()
"""
HANGING_CHILD = """
    import json, os, pathlib, subprocess, sys, time
    folder = pathlib.Path(json.loads(sys.stdin.readline()))
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "pids").write_text(f"{os.getpid()} {other.pid}")
    time.sleep(60)
"""
HUNGRY_CHILD = """
    import json, os, pathlib, sys, time
    folder = pathlib.Path(json.loads(sys.stdin.readline()))
    (folder / "pids").write_text(str(os.getpid()))
    while not (folder / "eat").exists():
        time.sleep(0.01)
    taken = b"x" * 200_000_000
    time.sleep(60)
"""

Train = Callable[..., TrainingResult]


def make_job(**changes: Any) -> TrainingJob:
    arrays: dict[str, Any] = {
        "rows": np.ones((30, 2), np.float32),
        "targets": np.full(30, 0.25, np.float32),
        "train_ends": np.arange(7, 20, dtype=np.int32),
        "validation_ends": np.arange(20, 30, dtype=np.int32),
    }
    return TrainingJob(**{"settings": Settings(lookback=8), **arrays, **changes})


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    """Of children that the test writes."""
    trainer = Trainer((sys.executable, str(tmp_path / "child.py")))
    yield trainer
    trainer.end_idle()


@pytest.fixture
def train(trainer: Trainer, tmp_path: Path) -> Train:
    def run(source: str, job: TrainingJob | None = None, **options: Any) -> TrainingResult:
        (tmp_path / "child.py").write_text(textwrap.dedent(source))
        return trainer.run(job or make_job(), tmp_path / "job", **options)

    return run


def assert_all_ended(pids: Path) -> None:
    deadline_s = time.monotonic() + 5.0
    for pid in map(int, pids.read_text().split()):
        while is_running(pid):
            assert time.monotonic() < deadline_s, f"process {pid} is still there"
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process is alive; one that ended and waits for its parent is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def beyond_settings(**changes: int) -> TrainingJob:
    """Limits that are tighter than `Settings` allows a user."""
    return make_job(settings=Settings(lookback=8).model_copy(update=changes))


def test_a_result_comes_back_with_progress(train: Train) -> None:
    seen: list[Progress] = []
    result = train(GOOD_CHILD, progress=seen.append)
    np.testing.assert_array_equal(result.weights["gaps/bias"], np.ones(1, np.float32))
    assert result.network.read_bytes() == b"network"
    assert (result.epochs, result.best_epoch, result.fallback) == (1, 1, None)
    assert result.history[0].validation_loss == 2.0
    stages = [progress.stage for progress in seen]
    assert stages[-2:] == ["compiling", "training"]
    assert (seen[-1].fraction, seen[-1].loss) == (0.5, 0.25)


def test_progress_is_repeated_while_the_child_is_silent(train: Train) -> None:
    seen: list[Progress] = []
    train("import time; time.sleep(1.8)" + GOOD_CHILD.replace("\n    ", "\n"), progress=seen.append)
    assert sum(progress.stage == "starting" for progress in seen) >= 2


def test_a_failing_child_is_quoted(train: Train) -> None:
    with pytest.raises(TrainingError, match=r"code 3: the disk is full"):
        train("import sys; sys.stderr.write('hint\\nthe disk is full\\n'); sys.exit(3)")


def test_a_silent_failure_is_reported(train: Train) -> None:
    with pytest.raises(TrainingError, match=r"code 2: it wrote no message"):
        train("import sys; sys.exit(2)")


def test_a_timeout_leaves_no_process(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"longer than train_timeout_s = 1 s"):
        train(HANGING_CHILD, beyond_settings(train_timeout_s=1))
    assert_all_ended(tmp_path / "job" / "pids")


def test_a_training_that_grows_beyond_its_memory_is_ended(train: Train, tmp_path: Path) -> None:
    """It grows after the first look, which precedes the first word of progress."""
    with pytest.raises(TrainingError, match=r"train_memory_mb = 100 MB \(found [12]\d\d MB\)"):
        train(
            HUNGRY_CHILD,
            beyond_settings(train_memory_mb=100, train_timeout_s=10),
            progress=lambda _: (tmp_path / "job" / "eat").touch(),
        )
    assert_all_ended(tmp_path / "job" / "pids")


def test_a_training_within_its_memory_goes_on(train: Train) -> None:
    assert train(GOOD_CHILD, beyond_settings(train_memory_mb=200)).epochs == 1


def test_a_child_that_has_just_ended_takes_no_memory(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Gone:
        def __init__(self, pid: int) -> None:
            asked.append(pid)
            raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr("lstm_model.training.child.psutil.Process", Gone)
    assert train(GOOD_CHILD).epochs == 1
    assert asked


@pytest.mark.parametrize("as_event", [True, False])
def test_a_stop_leaves_no_process(train: Train, tmp_path: Path, as_event: bool) -> None:
    pids, event = tmp_path / "job" / "pids", threading.Event()

    def started() -> bool:
        return pids.exists() and bool(pids.read_text())

    def stop_soon(_: Progress) -> None:
        if started():
            event.set()

    stop = event if as_event else started
    with pytest.raises(TrainingError, match="stopped"):
        train(HANGING_CHILD, progress=stop_soon, stop=stop)
    assert_all_ended(pids)


def test_an_error_of_the_caller_leaves_no_process(train: Train, tmp_path: Path) -> None:
    pids = tmp_path / "job" / "pids"

    def fail(_: Progress) -> None:
        if pids.exists() and pids.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(HANGING_CHILD, progress=fail)
    assert_all_ended(pids)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('job["rows"][0, :1]', 'job["rows"][0, :1] * np.nan', r"not finite: gaps/bias"),
        ('(folder / "network.keras").write_bytes(b"network")', "", r"network\.keras"),
        ('"best_epoch": 1, ', "", "best_epoch"),
        ('job["rows"][0, :1]', "np.array([{}])", "no usable result"),
    ],
)
def test_a_broken_result_is_refused(train: Train, old: str, new: str, problem: str) -> None:
    assert old in GOOD_CHILD
    with pytest.raises(TrainingError, match=problem):
        train(GOOD_CHILD.replace(old, new))


def test_the_child_sees_no_foreign_options(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(TrainingError, match=r"TF_CPP_MIN_LOG_LEVEL.*'-1'") as caught:
        train(
            "import os, sys, lstm_model\n"
            "names = sorted(n for n in os.environ if n.startswith(('TF_', 'CUDA_')))\n"
            "sys.exit(f\"{names} {os.environ['CUDA_VISIBLE_DEVICES']!r}\")"
        )
    assert "XLA" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train_ends": np.empty(0, np.int32)}, "no training windows"),
        ({"validation_ends": np.empty(0, np.int32)}, "no validation windows"),
        ({"train_ends": np.array([6], np.int32)}, "beyond the 30 rows"),
        ({"train_ends": np.array([30], np.int32)}, "beyond the 30 rows"),
        ({"targets": np.zeros(29, np.float32)}, "do not match"),
        ({"targets": np.full(30, np.nan, np.float32)}, "13 of 13 training windows"),
        ({"rows": np.where(np.arange(60).reshape(30, 2) == 41, np.nan, 1)}, "validation windows"),
        ({"initial": {}}, r"hold no network, only \[\]"),
        ({"initial": {"scaler/mean": np.zeros(2)}}, r"hold no network, only \['scaler/mean'\]"),
    ],
)
def test_an_unusable_job_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        make_job(**changes)


def test_rows_outside_every_window_may_be_unusable() -> None:
    rows = np.ones((30, 2), np.float32)
    rows[:5] = np.nan
    make_job(rows=rows, train_ends=np.arange(12, 20, dtype=np.int32))


def test_a_job_folder_names_its_settings(train: Train, tmp_path: Path) -> None:
    train(GOOD_CHILD)
    written = json.loads((tmp_path / "job" / "job.json").read_text())
    assert Settings.model_validate_json(json.dumps(written["settings"])) == Settings(lookback=8)


def test_the_child_gets_the_initial_weights_without_their_scaler(
    train: Train, tmp_path: Path
) -> None:
    initial = {"gaps/bias": np.array([0.5]), "scaler/mean": np.zeros(2), "mean/bias": np.ones(1)}
    result = train(
        GOOD_CHILD.replace('"fallback": None', '"fallback": None, "initial_loss": 2.5'),
        make_job(initial=initial),
    )
    assert result.initial_loss == 2.5
    with np.load(tmp_path / "job" / "job.npz", allow_pickle=False) as job:
        assert [name for name in job.files if "/" in name] == ["initial/gaps/bias"]
        assert job["initial/gaps/bias"].dtype == np.float32
        np.testing.assert_array_equal(job["initial/gaps/bias"], [0.5])


def test_a_training_from_scratch_has_no_initial_weights(train: Train, tmp_path: Path) -> None:
    assert train(GOOD_CHILD).initial_loss is None
    with np.load(tmp_path / "job" / "job.npz", allow_pickle=False) as job:
        assert not [name for name in job.files if name.startswith("initial")]


# ---------------------------------------------------------------- a process that stays

STAYING_CHILD = """
    import json, os, pathlib, sys
    import numpy as np
    print("a library says something", flush=True)
    sys.stderr.write("a word of the start\\n")
    for number, line in enumerate(sys.stdin):
        folder = pathlib.Path(json.loads(line))
        (folder / "pids").write_text(str(os.getpid()))
        settings = json.loads((folder / "job.json").read_text())["settings"]
        sys.stderr.write(f"job {number}\\n")
        if settings["seed"] == 13:
            sys.exit(f"job {number} crashed")
        if settings["seed"] == 14:
            print(json.dumps({"problem": "this cannot be learnt"}), flush=True)
            continue
        while settings["seed"] == 15 and not (folder / "go").exists():
            pass
        np.savez(folder / "result.npz", **{"gaps/bias": np.zeros(1, np.float32)})
        result = {"epochs": number, "best_epoch": 1, "history": [], "fallback": None}
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "network.keras").write_bytes(b"network")
        print(json.dumps({"done": True}), flush=True)
"""
CRASHING, REFUSED, WAITING = 13, 14, 15


class Staying:
    """A trainer whose children stay, and what it is given to do."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder

    def run(self, name: str, seed: int = 1, threads: int = 2, **options: Any) -> TrainingResult:
        settings = Settings(lookback=8, seed=seed, train_threads=threads)
        options = {"background": False, **options}
        return self.trainer.run(make_job(settings=settings), self.folder / name, **options)

    def pid(self, name: str) -> int:
        """Of the child that took the job of this name."""
        return int((self.folder / name / "pids").read_text())

    def begin(self, name: str, seed: int = 1, **options: Any) -> threading.Thread:
        thread = threading.Thread(target=self.run, args=(name, seed), kwargs=options)
        thread.start()
        return thread

    def has_begun(self, name: str) -> bool:
        return (self.folder / name / "pids").exists()


@pytest.fixture
def staying(trainer: Trainer, tmp_path: Path) -> Staying:
    (tmp_path / "child.py").write_text(textwrap.dedent(STAYING_CHILD))
    return Staying(trainer, tmp_path)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10.0
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_child_takes_job_after_job(staying: Staying) -> None:
    assert [staying.run(name).epochs for name in "abc"] == [0, 1, 2]
    assert len({staying.pid(name) for name in "abc"}) == 1


def test_a_child_without_work_ends(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(textwrap.dedent(STAYING_CHILD))
    trainer = Trainer((sys.executable, str(tmp_path / "child.py")), idle_s=0.2)
    staying = Staying(trainer, tmp_path)
    staying.run("a")
    wait_until(lambda: not is_running(staying.pid("a")))
    staying.run("b")
    assert staying.pid("a") != staying.pid("b")
    trainer.end_idle()


def test_work_that_comes_in_time_keeps_a_child(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(textwrap.dedent(STAYING_CHILD))
    trainer = Trainer((sys.executable, str(tmp_path / "child.py")), idle_s=1.0)
    staying = Staying(trainer, tmp_path)
    for name in "abc":
        staying.run(name)
        time.sleep(0.5)
    assert is_running(staying.pid("c"))
    assert len({staying.pid(name) for name in "abc"}) == 1
    trainer.end_idle()
    assert not is_running(staying.pid("c"))


def test_one_that_cannot_be_ended_keeps_no_other_from_it(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = [Child((sys.executable, "-c", "input()")) for _ in range(3)]
    for child in children:
        trainer._rest(child, Kind.of(Settings(), 2, background=False))
    with monkeypatch.context() as patch:
        patch.setattr(children[1], "kill", mock.Mock(side_effect=PermissionError("not yours")))
        with pytest.raises(PermissionError, match="not yours"):
            trainer.end_idle()
    assert [child.alive for child in children] == [False, True, False]
    children[1].kill()


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("seed", "problem"), [(CRASHING, "code 1: job 1 crashed"), (REFUSED, "this cannot be learnt")]
)
def test_after_a_failure_the_next_job_has_a_child_of_its_own(
    staying: Staying, seed: int, problem: str
) -> None:
    staying.run("a")
    with pytest.raises(TrainingError, match=problem):
        staying.run("b", seed)
    assert staying.run("c").epochs == 0
    assert staying.pid("a") == staying.pid("b") != staying.pid("c")


def test_the_log_that_is_quoted_is_that_of_the_job(staying: Staying) -> None:
    staying.run("a")
    with pytest.raises(TrainingError) as caught:
        staying.run("b", CRASHING)
    assert "job 1" in str(caught.value)
    assert "job 0" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_child_that_failed_to_start_is_quoted_though_its_job_came_later(
    trainer: Trainer, tmp_path: Path
) -> None:
    """It takes a while to end after its last words, and is given its first job meanwhile."""
    said = tmp_path / "said"
    (tmp_path / "child.py").write_text(
        "import pathlib, sys\n"
        "sys.stderr.write('there is no TensorFlow here\\n'); sys.stderr.flush()\n"
        f"pathlib.Path({str(said)!r}).touch()\n"
        "sys.stdin.readline(); sys.exit(1)\n"
    )
    trainer.prepare(Settings(train_threads=2), background=False)
    wait_until(said.exists)
    with pytest.raises(TrainingError, match="there is no TensorFlow here"):
        Staying(trainer, tmp_path).run("a")


def test_a_child_that_died_at_rest_is_replaced(staying: Staying) -> None:
    staying.run("a")
    os.kill(staying.pid("a"), signal.SIGKILL)
    wait_until(lambda: not is_running(staying.pid("a")))
    assert staying.run("b").epochs == 0


@pytest.mark.lengthy
def test_a_child_is_used_for_what_it_was_started_for(staying: Staying) -> None:
    """Its threads and its priority are settled when it starts; only one kind waits for work."""
    staying.run("a")
    staying.run("b", threads=1)
    staying.run("c", threads=1, background=True)
    assert len({staying.pid(name) for name in "abc"}) == 3
    assert [is_running(staying.pid(name)) for name in "abc"] == [False, False, True]


@pytest.mark.lengthy
def test_trainings_share_the_threads(staying: Staying) -> None:
    """Two at a time with four threads; the third waits, and says so."""
    first = [staying.begin(name, WAITING, threads=4) for name in "ab"]
    wait_until(lambda: staying.has_begun("a") and staying.has_begun("b"))
    told: list[Progress] = []
    third = staying.begin("c", threads=4, progress=told.append)
    wait_until(lambda: bool(told))
    assert told[0].stage == "waiting"
    assert not staying.has_begun("c")
    (staying.folder / "a" / "go").touch()
    third.join(10.0)
    assert staying.pid("c") == staying.pid("a")
    (staying.folder / "b" / "go").touch()
    for thread in first:
        thread.join(10.0)


@pytest.mark.parametrize(
    ("wanted", "background", "quota", "computes"),
    [(2, True, 150_000, 1), (2, False, 150_000, 1), (8, False, 400_000, 2), (8, True, 400_000, 4),
     (2, True, 900_000, 2)],
)  # fmt: skip
def test_more_threads_than_the_cgroup_allows_are_not_begun(
    tmp_path: Path, wanted: int, background: bool, quota: int, computes: int
) -> None:
    """It would stop them all, and the bot beside them, for the rest of every tenth of a second."""
    lay_out(tmp_path, {
        "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    })  # fmt: skip
    tells = "import pathlib, sys\npathlib.Path(sys.argv[0] + '.told').write_text(sys.argv[1])\n"
    (tmp_path / "child.py").write_text(tells + textwrap.dedent(GOOD_CHILD))
    trainer = Trainer((sys.executable, str(tmp_path / "child.py")), root=tmp_path)
    settings = Settings(lookback=8, train_threads=wanted)
    trainer.run(make_job(settings=settings), tmp_path / "job", background=background)
    trainer.end_idle()
    assert (tmp_path / "child.py.told").read_text() == f"--threads={computes}"


@pytest.mark.lengthy
def test_a_training_ahead_lets_others_pass(staying: Staying) -> None:
    order: list[str] = []
    first = staying.begin("a", WAITING)
    wait_until(lambda: staying.has_begun("a"))

    def begin(name: str, ahead: bool) -> threading.Thread:
        told: list[Progress] = []

        def note(progress: Progress) -> None:
            told.append(progress)
            if progress.stage != "waiting" and name not in order:
                order.append(name)

        thread = staying.begin(name, ahead=ahead, progress=note)
        wait_until(lambda: bool(told))
        return thread

    threads = [begin("ahead", True), begin("urgent", False)]
    (staying.folder / "a" / "go").touch()
    for thread in [first, *threads]:
        thread.join(10.0)
    assert order == ["urgent", "ahead"]


def test_for_what_is_stopped_already_no_child_is_started(staying: Staying) -> None:
    with pytest.raises(TrainingError, match="stopped"):
        staying.run("a", stop=lambda: True)
    assert not staying.has_begun("a")


def test_who_waits_for_a_child_can_be_stopped(staying: Staying) -> None:
    first = staying.begin("a", WAITING)
    wait_until(lambda: staying.has_begun("a"))
    with pytest.raises(TrainingError, match="stopped"):
        staying.run("b", stop=lambda: True)
    (staying.folder / "a" / "go").touch()
    first.join(10.0)
    assert not staying.has_begun("b")


def test_a_child_can_be_started_for_a_job_that_comes(staying: Staying) -> None:
    settings, before = Settings(train_threads=2), set(psutil.Process().children())
    for _ in range(2):
        staying.trainer.prepare(settings, background=False)
    (ready,) = set(psutil.Process().children()) - before
    staying.run("a")
    assert staying.pid("a") == ready.pid
    staying.trainer.end_idle()
    assert not is_running(ready.pid)


def test_a_training_can_be_made_to_crash(staying: Staying) -> None:
    assert not staying.trainer.crash()
    caught: list[TrainingError] = []

    def run() -> None:
        try:
            staying.run("a", WAITING)
        except TrainingError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: staying.has_begun("a"))
    assert staying.trainer.crash()
    thread.join(10.0)
    assert "was ended by SIGKILL" in str(caught[0])
    assert staying.run("b").epochs == 0
