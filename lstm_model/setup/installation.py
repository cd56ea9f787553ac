"""Whether what is installed is what was tested, and what the machine leaves a bot."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

from lstm_model import __version__, machine
from lstm_model.errors import TrainingError
from lstm_model.releases import TESTED, standing
from lstm_model.settings import Settings, parse_settings
from lstm_model.setup.environment import tensorflow_of
from lstm_model.setup.finding import Finding, good, note, to_do, warning
from lstm_model.setup.subject import Subject
from lstm_model.training import interpreter
from lstm_model.written import outdated_file

_INSTALL = "python -m pip install"
_LEAST_TRAINING_MB = 1_000  # measured: TensorFlow takes 530 MB, a training up to 1 GB
_LITTLE_DISK_MB, _NO_DISK_MB = 2_000, 200  # chosen: models and journal of a year; of a month
_INSTRUCTIONS = {"x86_64": "avx", "amd64": "avx", "aarch64": "asimd", "arm64": "asimd"}


def check_ourselves(subject: Subject) -> Iterator[Finding]:
    """This package's version, and whether it wrote the strategy files that the user has of it."""
    yield good("lstm-model", __version__)
    for path in sorted((subject.userdir / "strategies").glob("*.py")):
        if text := outdated_file(path):
            yield warning("strategy file", text)


def check_python(_: Subject) -> Iterator[Finding]:
    """Python's version, and which one this is."""
    yield _release("Python", platform.python_version(), f" ({sys.executable})")


def check_libraries(_: Subject) -> Iterator[Finding]:
    """What a bot imports."""
    for name in TESTED:
        if name not in ("Python", "tensorflow"):
            try:
                yield _release(name, metadata.version(name))
            except metadata.PackageNotFoundError:
                yield to_do(name, "is not installed", f"Run `{_INSTALL} lstm-model`")


def check_trainer(subject: Subject) -> Iterator[Finding]:
    """Which interpreter trains, and whether it really imports its TensorFlow."""
    settings = _settings(subject)
    try:
        store = subject.userdir / settings.store_dir
        found = interpreter.find(settings.train_python, store, subject.options)
    except TrainingError as error:
        yield to_do("trainer", str(error))
        return
    where = f"{found.python}, Python {found.release}"
    try:
        version = tensorflow_of(found.python)
    except TrainingError as error:
        yield to_do(
            "trainer", f"{where}: {error}",
            f"Make another with `freqtrade-lstm trainer --install{subject.options}`, and leave "
            "train_python out",
        )  # fmt: skip
        return
    yield good("trainer", where)
    yield _release("tensorflow", version)


def check_processor(subject: Subject) -> Iterator[Finding]:
    """Whether the processor has the instructions that TensorFlow is built for."""
    kind, flags = platform.machine(), machine.processor_flags(subject.root)
    needed = _INSTRUCTIONS.get(kind.lower())
    if needed is None or not flags:
        yield note("processor", f"{kind}; whether it has what TensorFlow needs is not known")
    elif needed in flags:
        yield good("processor", f"{kind} with {needed.upper()}")
    else:
        yield to_do(
            "processor", f"{kind} without {needed.upper()}, for which TensorFlow is built",
            "Train on another computer, or in a virtual machine that passes the host's processor "
            "on (its type is then \"host\")",
        )  # fmt: skip


def check_cores(subject: Subject) -> Iterator[Finding]:
    """Cores that may be used, of those that there are, beside the threads that trainings share."""
    there = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else there
    quota, threads = machine.tightest_quota(subject.root), _settings(subject).train_threads
    text = f"{cores} core(s){f' of {there}' if cores < there else ''}, train_threads {threads}"
    if quota is not None and quota.cores < cores:
        text = f"{quota.cores:.3g} of {there} core(s), by {quota.bound}, train_threads {threads}"
        cores = quota.threads
        if threads > cores:
            yield note("cores", f"{text}: trainings make do with {cores}")
            return
    if threads > cores:
        yield warning("cores", text, f'Set "train_threads" in "lstm" to {cores}')
    else:
        yield good("cores", text)


def check_memory(subject: Subject) -> Iterator[Finding]:
    """What the tightest bound leaves, beside what a training may take."""
    room, allowed = machine.tightest_room(subject.root), _settings(subject).train_memory_mb
    if room is None:
        yield note("memory", f"how much is left is not known; train_memory_mb {allowed:,}")
        return
    text = (
        f"{room.left_mb:,.0f} MB left of {room.limit_mb:,.0f} MB that {room.bound} has; "
        f"train_memory_mb {allowed:,}"
    )
    if room.left_mb < min(_LEAST_TRAINING_MB, allowed):
        yield to_do(
            "memory", f"{text}, and a training takes about {_LEAST_TRAINING_MB:,} MB",
            "Free some, or raise the limit of the container or service",
        )  # fmt: skip
    elif room.left_mb < allowed:
        yield note("memory", f"{text}: trainings make do with what is left")
    else:
        yield good("memory", text)


def check_disk(subject: Subject) -> Iterator[Finding]:
    """What is free where models and journal lie."""
    store = subject.userdir / _settings(subject).store_dir
    there = next(place for place in (store, *store.absolute().parents) if place.exists())
    free_mb = shutil.disk_usage(there).free / 1e6
    text, todo = f"{free_mb:,.0f} MB free at {store}", "Free some, or set another store_dir"
    if free_mb < _NO_DISK_MB:
        yield to_do("disk", text, todo)
    elif free_mb < _LITTLE_DISK_MB:
        yield warning("disk", text, todo)
    else:
        yield good("disk", text)


def _settings(subject: Subject) -> Settings:
    return subject.settings or parse_settings({})


def _release(name: str, version: str, where: str = "") -> Finding:
    oldest, newest = TESTED[name]
    span = oldest if oldest == newest else f"{oldest} to {newest}"
    how = standing(name, version)
    if how == "older":
        return to_do(
            name, f"{version}{where} is older than what was tested, {span}",
            f"Install {oldest} or newer",
        )  # fmt: skip
    if how == "newer":
        return note(name, f"{version}{where}; tested with {span}, yours is newer")
    return good(name, f"{version}{where}")
