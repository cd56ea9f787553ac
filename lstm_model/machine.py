"""What the operating system leaves a process, within its cgroups: memory, processors of a kind.

Read from files below a root, as Linux lays them out; where there are none, nothing is known. And
what a process gives back of it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

ROOT = Path("/")

_UNBOUND = 2**60  # version 1 of cgroups writes "no limit" as a number beyond any memory
_FEWEST_WAITING = 2  # with one, a read that waits for another could wait for ever
_NOTICED_S = 0.02  # chosen: of those that rest, all saw within 1 ms that they are too many
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGE = 1_000_000  # chosen: bytes; arrays of a candle's are smaller, those of a step are larger
_COUNTING = threading.Lock()  # who reads the numbers that another has lowered would keep them
_CACHE = ("inactive_file", "active_file", "slab_reclaimable")  # what the kernel takes back first


class Room(NamedTuple):
    """How much memory (10^6 bytes) one bound leaves for all that it holds.

    Attributes
    ----------
    bound : what sets it: the folder of a cgroup, or "this machine"
    limit_mb : of all processes together
    left_mb : until the kernel ends one of them; files that it keeps in memory count as left
    """

    bound: str
    limit_mb: float
    left_mb: float


def tightest_room(root: Path = ROOT) -> Room | None:
    """The bound that leaves this process least; None where nothing is known of any.

    It looks at the machine, at this process's cgroup and at those around it, of either version.
    """
    return min(_rooms(root), key=lambda room: room.left_mb, default=None)


class Quota(NamedTuple):
    """How much processor time one cgroup allows all that it holds.

    Attributes
    ----------
    bound : the folder of the cgroup
    cores : whose whole time it may take, e.g. 1.5
    """

    bound: str
    cores: float

    @property
    def threads(self) -> int:
        """That compute all the time and are not made to wait; at least one."""
        return max(1, math.floor(self.cores))


def tightest_quota(root: Path = ROOT) -> Quota | None:
    """The bound on processor time that holds for this process; None where nothing sets one.

    It looks at this process's cgroup and at those around it, of either version.
    """
    return min(_quotas(root), key=lambda quota: quota.cores, default=None)


def processor_flags(root: Path = ROOT) -> frozenset[str]:
    """Which instructions the processor has, in Linux's words; empty where that is not known."""
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def memory_kills(root: Path = ROOT) -> int:
    """How many processes the kernel has ended for want of memory since it started."""
    return int(_table(root / "proc/vmstat").get("oom_kill", 0))


def give_memory_back() -> None:
    """Let the system have what was freed, and libraries keep: the C library and pyarrow.

    glibc has up to eight parts a processor, and a new thread takes any: after one large piece of
    work in each of many threads, each part keeps as much as the work took at most. pyarrow, with
    which freqtrade reads candles, has memory of its own, and so has each of its threads. Other C
    libraries are left alone.
    """
    with suppress(KeyError, AttributeError, ValueError):  # not there, being imported, or ending
        pyarrow = sys.modules["pyarrow"]
        _end_threads(pyarrow)
        pyarrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # glibc alone has it
            ctypes.CDLL(None).malloc_trim(0)


def keep_large_apart() -> None:
    """Have each large piece of memory lie for itself, so that it goes back when it is freed.

    glibc does so at first, but whenever one of up to 32 MB is freed it puts those of that size
    among the small ones from then on. What is small and stays between them then keeps ever more
    from going back. Other C libraries are left alone.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # glibc alone has it
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_TRIM_THRESHOLD, _LARGE)


def collect_garbage() -> None:
    """A full collection that loses no signal.

    It stands still for tenths of a second. A Ctrl-C or SIGTERM of that time is raised in the main
    thread as soon as that executes Python again; if the collection ran there, that would be inside
    of a finalizer, and Python drops what a finalizer raises: freqtrade would go on for ever. So a
    thread of its own collects, while the main thread waits; where none can be had, nobody does.
    """
    collector = threading.Thread(target=gc.collect, name="collector", daemon=True)
    try:
        collector.start()
    except RuntimeError as error:  # as many threads as the system allows
        logger.warning("Garbage is not collected: %s", error)
        return
    collector.join()


def _end_threads(pyarrow: Any) -> None:
    """End all but the fewest threads that pyarrow works with; it makes others when it needs them.

    It has one a processor to unpack and eight to wait for the disk. Which of them read a piece of a
    file is chance, and `release_unused` gives back what the calling thread has kept, but no other:
    a thread gives it back when it ends.
    """
    with _COUNTING:
        unpacking, waiting = pyarrow.cpu_count(), pyarrow.io_thread_count()
        try:
            pyarrow.set_cpu_count(1)
            pyarrow.set_io_thread_count(min(waiting, _FEWEST_WAITING))
            threading.Event().wait(_NOTICED_S)  # not a sleep: a replay's clock goes on by those
        finally:
            pyarrow.set_cpu_count(unpacking)
            pyarrow.set_io_thread_count(waiting)


def _rooms(root: Path) -> Iterator[Room]:
    kilobytes = _table(root / "proc/meminfo")
    swap = 1024 * kilobytes.get("SwapFree", 0.0)
    if "MemAvailable" in kilobytes:
        left = 1024 * kilobytes["MemAvailable"] + swap
        yield Room("this machine", 1024e-6 * kilobytes.get("MemTotal", 0.0), left / 1e6)
    for folder in _groups(root, "memory"):
        with suppress(OSError, ValueError):  # it may have gone, or not be ours to read
            if (limit := _limit(folder)) < _UNBOUND:
                left = limit - _used(folder, limit, swap)
                yield Room(f"the cgroup {folder}", limit / 1e6, max(0.0, left) / 1e6)


def _quotas(root: Path) -> Iterator[Quota]:
    for folder in _groups(root, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):  # as above
            if 0.0 < (cores := _cores(folder)) < math.inf:
                yield Quota(f"the cgroup {folder}", cores)


def _cores(folder: Path) -> float:
    """Microseconds of work per microsecond of a period; negative or endless: no bound."""
    first = folder / "cpu.cfs_quota_us"
    if first.exists():
        return _number(first) / _number(folder / "cpu.cfs_period_us")
    quota, period = (folder / "cpu.max").read_text().split()
    return math.inf if quota == "max" else float(quota) / float(period)


def _is_first(folder: Path) -> bool:
    """Whether a cgroup is of version 1."""
    return (folder / "memory.limit_in_bytes").exists()


def _limit(folder: Path) -> float:
    if _is_first(folder):
        return _number(folder / "memory.limit_in_bytes")
    # Beyond `high` the kernel ends nobody, but has all of them all but stand still.
    return min(_number(folder / "memory.max"), _number(folder / "memory.high"))


def _used(folder: Path, limit: float, swap: float) -> float:
    """Bytes that the kernel cannot take back, less what it may still swap out."""
    if not _is_first(folder):
        with suppress(OSError):  # where the kernel does not count it
            most = _number(folder / "memory.swap.max")
            swap = min(swap, most - _number(folder / "memory.swap.current"))
        return _number(folder / "memory.current") - _cached(folder, "") - swap
    used = _number(folder / "memory.usage_in_bytes") - swap
    with suppress(OSError):  # memory and swap together, where the kernel counts that
        both = _number(folder / "memory.memsw.limit_in_bytes")
        used = max(used, limit - both + _number(folder / "memory.memsw.usage_in_bytes"))
    return used - _cached(folder, "total_")


def _cached(folder: Path, prefix: str) -> float:
    stat = _table(folder / "memory.stat")
    return sum(stat.get(f"{prefix}{name}", 0.0) for name in _CACHE)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of those around it, as far as they are mounted."""
    found = [
        line.split(":", 2) for line in _lines(root / "proc/self/cgroup") if line.count(":") > 1
    ]
    first = [path for _, names, path in found if controller in names.split(",")]
    second = [path for number, names, path in found if (number, names) == ("0", "")]
    for path in first or second:
        for within, mounted in _mounts(root, controller if first else ""):
            folder = mounted / _below(PurePosixPath(path), within)
            yield folder
            while folder != mounted:
                folder = folder.parent
                yield folder


def _mounts(root: Path, controller: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Which cgroup is mounted at which folder: version 1 of a controller, or version 2."""
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = (part.split(" ") for part in line.partition(" - "))
        if len(mount) < 5 or len(system) < 3:
            continue
        is_first = system[0] == "cgroup" and controller in system[2].split(",")
        if is_first if controller else system[0] == "cgroup2":
            spelt = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount[4])
            yield PurePosixPath(mount[3]), root / spelt.lstrip("/")


def _below(path: PurePosixPath, within: PurePosixPath) -> PurePosixPath:
    """The way to a cgroup from the one that is mounted; in a container that may be itself."""
    if ".." in path.parts or not path.is_relative_to(within):
        return PurePosixPath()
    return path.relative_to(within)


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []


def _table(path: Path) -> dict[str, float]:
    """Lines such as "MemTotal:  24683652 kB", by their first word."""
    words = [line.replace(":", " ").split() for line in _lines(path)]
    return {row[0]: float(row[1]) for row in words if len(row) > 1 and row[1].isdecimal()}


def _number(path: Path) -> float:
    text = path.read_text().strip()
    return math.inf if text == "max" else float(text)
