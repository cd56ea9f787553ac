"""What can befall a real training process, and what is said of it."""

from __future__ import annotations

import importlib.machinery
import json
import os
import re
import signal
import sys
import textwrap
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from examples import further
from places import ROOT
from test_trainer import Train, assert_all_ended, beyond_settings, make_job, train, trainer

from lstm_model.errors import TrainingError
from lstm_model.settings import Settings
from lstm_model.training.job import TrainingJob
from lstm_model.training.trainer import _START, Trainer

__all__ = ["train", "trainer"]  # two fixtures

Fails = Callable[..., str]
FULL = Path("/dev/full")  # whoever writes there is told that the disk is full
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fails:
    """What is said of the real program when this is TensorFlow; a function of its source."""

    def run(source: str, **options: float) -> str:
        before = set(psutil.Process().children())
        for name, text in (("keras", "import tensorflow"), ("tensorflow", source)):
            (tmp_path / "path" / name).mkdir(parents=True)
            (tmp_path / "path" / name / "__init__.py").write_text(textwrap.dedent(text))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
        with pytest.raises(TrainingError) as caught:
            Trainer(**options).run(make_job(), tmp_path / "job", background=False)  # type: ignore[arg-type]
        assert set(psutil.Process().children()) <= before
        return str(caught.value)

    return run


# ---------------------------------------------------------------- how it ends


def sent(name: str) -> str:
    return f"import os, signal\nos.kill(os.getpid(), signal.{name})"


OF_A_MISSING_PAGE = """
    import mmap, tempfile
    file = tempfile.TemporaryFile()
    file.write(b"0" * 8192)
    file.flush()
    pages = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    pages[4096]
"""


@needs_linux
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (sent("SIGILL"), r"SIGILL, .* instructions that this processor does not have \(of AVX, "
                         r"FMA and ASIMD, /proc/cpuinfo lists .*\); .*on another computer, or"),
        (sent("SIGKILL"), r"SIGKILL, by somebody, or by the kernel for want of memory; it took "
                          r"\d+ MB when last looked at, .* allows [\d,]+ MB in all$"),
        ("import ctypes\nctypes.string_at(0)", r"SIGSEGV, because a library of it is at fault; it "
                                               r"stood in File .*string_at, called by File .*ten"),
        (OF_A_MISSING_PAGE, r"SIGBUS, because memory behind a file was not there.*__init__.py"),
        ("import os\nos.abort()", r"SIGABRT, because a library of it gave up; it stood in File .*"),
        (sent("SIGFPE"), r"SIGFPE, because of a division"),
        (sent("SIGXCPU"), r"SIGXCPU, .*ulimit -t"),
        (sent("SIGTERM"), r"SIGTERM, which somebody sent$"),
        (sent("SIGRTMIN + 3"), r"signal 37, which somebody sent$"),
    ],
)  # fmt: skip
def test_a_signal_that_ends_it_is_explained(fails: Fails, source: str, said: str) -> None:
    first, *log = fails(source).splitlines()
    assert re.search(f"^the training process was ended by {said}", first), first
    assert "it wrote no message" not in first
    assert all(len(line) <= 300 for line in log)


def test_without_tensorflow_it_is_said_what_to_install(fails: Fails) -> None:
    said = fails("import sys\nsys.modules['tensorflow'] = None\nfrom tensorflow import keras")
    assert said.startswith(f"TensorFlow is not installed for {sys.executable} ")
    assert "`freqtrade-lstm trainer --install`" in said
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = re.search(r"`pip install 'lstm-model\[(\w+)\]'`", said)
    assert extra
    assert [name.partition(">")[0] for name in project["optional-dependencies"][extra[1]]] == [
        "tensorflow"
    ]


@pytest.mark.parametrize("name", ["numpy", "pydantic"])
def test_without_another_library_that_one_is_named(fails: Fails, name: str) -> None:
    said = fails(f"raise ModuleNotFoundError(name={name!r})")
    assert f"is not installed for {sys.executable} (no module {name})" in said


def test_a_library_of_tensorflow_that_does_not_load_is_named(fails: Fails, tmp_path: Path) -> None:
    broken = tmp_path / f"_native{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    broken.write_bytes(b"\x7fELF")
    said = fails(f"""
        import sys, traceback
        sys.path.insert(0, {str(tmp_path)!r})
        try:
            import _native
        except ImportError:
            raise ImportError(traceback.format_exc() + "Failed to load the native runtime.")
    """)
    assert said.startswith("TensorFlow is installed but cannot be imported")
    assert str(broken) in said
    assert "Traceback" not in said


def test_any_other_fault_of_an_import_is_quoted(fails: Fails) -> None:
    said = fails("raise TypeError('Descriptors cannot be created directly')")
    assert said.splitlines()[0].endswith("TypeError: Descriptors cannot be created directly")


# ---------------------------------------------------------------- whether it lives


def test_a_hang_in_an_import_is_ended_and_its_place_is_named(fails: Fails, tmp_path: Path) -> None:
    started_s = time.monotonic()
    said = fails(
        """
        import threading
        def wait_for_each_other():
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        wait_for_each_other()
        """,
        lifeless_s=1.0,
    )
    assert re.match(r"the training process showed no life for [1-9] s, neither a word nor", said)
    place = tmp_path / "path" / "tensorflow" / "__init__.py"
    assert f'it stood in File "{place}", line 6 in wait_for_each_other, called by' in said
    assert time.monotonic() - started_s < 30.0


def test_one_that_cannot_say_where_it_stands_is_ended_too(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("import time; time.sleep(60)")
    trainer._lifeless_s = 0.6
    with pytest.raises(TrainingError, match=r"no life for 1 s.*it could not say where it stood"):
        trainer.run(make_job(), tmp_path / "job", background=False)


def test_a_slow_one_that_works_is_not_ended(trainer: Trainer, tmp_path: Path) -> None:
    """It takes ever so little processor time, and says nothing."""
    (tmp_path / "child.py").write_text(
        "import sys, time\n"
        "def work():\n"
        "    until_s = time.process_time() + 0.03\n"
        "    while time.process_time() < until_s: pass\n"
        "for _ in range(10):\n"
        "    time.sleep(0.2)\n"
        "    work()\n"
        "sys.exit('it worked to the end')\n"
    )
    trainer._lifeless_s = 1.2
    with pytest.raises(TrainingError, match="it worked to the end"):
        trainer.run(make_job(), tmp_path / "job", background=False)


def test_time_in_which_nobody_looked_does_not_count(trainer: Trainer, tmp_path: Path) -> None:
    """The whole machine was halted, or the container: the child could not live either."""
    (tmp_path / "child.py").write_text("import sys, time; time.sleep(1.6); sys.exit('awake')")
    trainer._lifeless_s = 1.1
    with pytest.raises(TrainingError, match="awake"):
        trainer.run(
            make_job(), tmp_path / "job", lambda _: time.sleep(1.3), background=False
        )  # fmt: skip


# ---------------------------------------------------------------- memory


def lay_out(root: Path, taken_mb: float, limit_mb: float = 1_000.0) -> None:
    """A container with a limit, as version 2 of cgroups writes it down."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/memory.max": f"{limit_mb * 1e6:.0f}\n",
        "sys/fs/cgroup/memory.high": "max\n",
        "sys/fs/cgroup/memory.current": f"{taken_mb * 1e6:.0f}\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


HUNGRY = """
    import json, os, pathlib, sys, time
    folder = pathlib.Path(json.loads(sys.stdin.readline()))
    (folder / "pids").write_text(str(os.getpid()))
    time.sleep(60)
"""


def test_a_training_that_grows_to_the_limit_of_its_cgroup_is_ended_before(
    train: Train, trainer: Trainer, tmp_path: Path
) -> None:
    """The bot has 700 MB of 1,000, and `train_memory_mb` is far."""
    trainer._root = tmp_path / "root"
    taken = iter([700.0, 800.0, 890.0, *[940.0] * 99])
    lay_out(trainer._root, next(taken))
    with pytest.raises(TrainingError) as caught:
        train(HUNGRY, progress=lambda _: lay_out(trainer._root, next(taken)))
    assert re.match(
        r"the training process took \d+ MB, and of the 1,000 MB that the cgroup .*/sys/fs/cgroup "
        r"allows in all only 60 MB were left; it was ended before the kernel ends the bot",
        str(caught.value),
    )
    assert_all_ended(tmp_path / "job" / "pids")


def test_the_smaller_limit_counts(train: Train, trainer: Trainer, tmp_path: Path) -> None:
    trainer._root = tmp_path / "root"
    lay_out(trainer._root, 100.0)
    with pytest.raises(TrainingError, match=r"train_memory_mb = 1 MB \(found \d+ MB\)"):
        train(HUNGRY, beyond_settings(train_memory_mb=1))


@needs_linux
def test_the_kernel_ends_a_training_before_the_bot(trainer: Trainer) -> None:
    real, before = Trainer(), set(psutil.Process().children())
    real.prepare(Settings(train_threads=2), background=True)
    (child,) = set(psutil.Process().children()) - before
    until_s, own = time.monotonic() + 20.0, Path("/proc/self/oom_score")
    while Path(f"/proc/{child.pid}/oom_score_adj").read_text() != "1000\n":
        assert time.monotonic() < until_s
        time.sleep(0.05)
    score = int(Path(f"/proc/{child.pid}/oom_score").read_text())
    assert score > int(own.read_text())
    real.end_idle()


# ---------------------------------------------------------------- disks and starts


needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


@needs_full
@pytest.mark.parametrize("name", ["job.json", "job.npz"])
def test_a_full_disk_is_named_where_the_job_is_written(
    train: Train, tmp_path: Path, name: str
) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / name).symlink_to(FULL)
    with pytest.raises(
        TrainingError, match=f"cannot be written to {tmp_path}/job: .*No space left"
    ):
        train("")


@pytest.mark.parametrize("folder", ["file/job", "/sys/kernel/job", "loop/job"])
def test_a_folder_that_cannot_be_made_is_named(
    trainer: Trainer, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(TrainingError, match=f"job cannot be written to .*{folder}"):
        trainer.run(make_job(), tmp_path / folder)


@pytest.mark.parametrize("program", ["nowhere/python", "", "file"])
def test_a_program_that_cannot_be_started_is_named(tmp_path: Path, program: str) -> None:
    """As where Python runs embedded, or the system has no process left."""
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="the training process cannot be started: "):
        Trainer((program and str(tmp_path / program),)).run(make_job(), tmp_path / "job")


def test_a_system_without_threads_leaves_no_process(train: Train, tmp_path: Path) -> None:
    children = set(psutil.Process().children())
    before = threading.stack_size(1 << 46)  # more than there are addresses
    try:
        with pytest.raises(TrainingError, match="cannot be followed: can't start new thread"):
            train(HUNGRY)
    finally:
        threading.stack_size(before)
    assert set(psutil.Process().children()) <= children


def test_a_message_is_heard_though_a_library_is_amid_a_line(train: Train) -> None:
    with pytest.raises(TrainingError, match=r"^heard$"):
        train(
            "import sys, time\n"
            "from lstm_model.fitting.process import _report_line\n"
            "sys.stderr.write('amid'); sys.stderr.flush()\n"
            "_report_line({'problem': 'heard'}); time.sleep(60)\n"
        )


# ---------------------------------------------------------------- with TensorFlow


def small_job() -> TrainingJob:
    random = np.random.default_rng(7)
    settings = Settings(lookback=8, units=4, max_epochs=1, batch_size=64, members=1)
    return make_job(
        settings=settings,
        rows=random.normal(size=(600, 3)).astype(np.float32),
        targets=random.normal(size=600).astype(np.float32),
        train_ends=np.arange(7, 500, dtype=np.int32),
        validation_ends=np.arange(500, 600, dtype=np.int32),
    )


@needs_full
@pytest.mark.slow
@pytest.mark.parametrize("name", ["result.npz", *further(["network.keras", "result.json"])])
def test_a_full_disk_is_named_where_the_result_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / name).symlink_to(FULL)
    with pytest.raises(TrainingError, match=f"in {tmp_path}/job: .*No space left on device"):
        Trainer().run(small_job(), tmp_path / "job", background=False)


@pytest.mark.slow
def test_it_imports_nothing_that_a_training_does_not_need(tmp_path: Path) -> None:
    """After a training; the program is the real one, asked by a signal what it has imported."""
    asked = tmp_path / "modules"
    source = (
        "import json, pathlib, runpy, signal, sys\n"
        "def tell(*_):\n"
        "    names = [name for name, module in sys.modules.items() if module]\n"
        f"    pathlib.Path({str(asked)!r}).write_text(json.dumps(names))\n"
        "signal.signal(signal.SIGUSR2, tell)\n"
        "sys.argv[1:] = [option for option in sys.argv if option.startswith('--')]\n"
        f"runpy.run_path({str(_START)!r}, run_name='__main__')\n"
    )
    real, before = Trainer((sys.executable, "-c", source)), set(psutil.Process().children())
    assert real.run(small_job(), tmp_path / "job", background=False).fallback is None
    (child,) = set(psutil.Process().children()) - before
    os.kill(child.pid, signal.SIGUSR2)
    until_s = time.monotonic() + 10.0
    while not asked.exists() or not asked.read_text():
        assert time.monotonic() < until_s
        time.sleep(0.02)
    real.end_idle()
    libraries = {name.split(".")[0] for name in json.loads(asked.read_text())}
    assert {"tensorflow", "keras", "numpy"} <= libraries
    unwanted = {"pandas", "pyarrow", "freqtrade", "ccxt", "sqlalchemy", "aiohttp", "sklearn",
                "talib", "lightgbm", "telegram", "fastapi"}  # fmt: skip
    assert not libraries & unwanted
