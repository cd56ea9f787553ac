"""What memory is left, by the files in which Linux says so; and what is given back of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import megabytes, work_and_keep_a_little
from places import lay_out

from lstm_model.machine import (
    Quota,
    Room,
    collect_garbage,
    give_memory_back,
    memory_kills,
    processor_flags,
    tightest_quota,
    tightest_room,
)

MB = 1_000_000
MOUNTED = "30 23 0:26 {within} /sys/fs/cgroup{at} rw,relatime shared:4 - {kind} {kind} rw{more}\n"
SECOND = MOUNTED.format(within="/", at="", kind="cgroup2", more=",nsdelegate")
FIRST = MOUNTED.format(within="{}", at="/memory", kind="cgroup", more=",memory")


def second(folder: str, limit: object, taken_mb: float, **more: object) -> dict[str, object]:
    """One cgroup of version 2."""
    files = {"max": limit, "current": int(taken_mb * MB), "high": "max", **more}
    at = f"sys/fs/cgroup/{folder}".rstrip("/")
    return {f"{at}/memory.{name.replace('_', '.')}": content for name, content in files.items()}


def first(folder: str, limit: int, taken_mb: float, **more: object) -> dict[str, object]:
    """One cgroup of version 1."""
    files = {"limit_in_bytes": limit, "usage_in_bytes": int(taken_mb * MB), **more}
    at = f"sys/fs/cgroup/memory/{folder}".rstrip("/")
    return {f"{at}/memory.{name}": content for name, content in files.items()}


def found(root: Path) -> tuple[str, float, float]:
    room = tightest_room(root)
    assert room is not None
    return room.bound.removeprefix(f"the cgroup {root}/sys/fs/cgroup"), room.limit_mb, room.left_mb


def test_a_container_sees_its_own_limit(tmp_path: Path) -> None:
    """In its namespace its cgroup is the root, which has no files where there is no container."""
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": SECOND}
    assert tightest_room(lay_out(tmp_path, files)) is None
    assert found(lay_out(tmp_path, second("", 1_000 * MB, 700.0))) == ("", 1_000.0, 300.0)


def test_the_cgroups_around_count_too(tmp_path: Path) -> None:
    """systemd limits a user; the service within has a limit of its own."""
    lay_out(tmp_path, {
        "proc/self/cgroup": "0::/user.slice/bot.service\n", "proc/self/mountinfo": SECOND,
        **second("user.slice", 2_000 * MB, 1_900.0),
        **second("user.slice/bot.service", 1_000 * MB, 700.0),
    })  # fmt: skip
    assert found(tmp_path) == ("/user.slice", 2_000.0, 100.0)
    lay_out(tmp_path, second("user.slice", "max", 1_900.0))
    assert found(tmp_path) == ("/user.slice/bot.service", 1_000.0, 300.0)
    lay_out(tmp_path, second("user.slice/bot.service", "max", 700.0))
    assert tightest_room(tmp_path) is None


@pytest.mark.parametrize(
    ("more", "left_mb"),
    [
        ({"stat": f"anon 5\ninactive_file {90 * MB}\nactive_file {10 * MB}\nslab 7\n"}, 400.0),
        ({"stat": f"slab_reclaimable {20 * MB}\nfile {80 * MB}\nshmem {80 * MB}\n"}, 320.0),
        ({"high": 800 * MB}, 100.0),
        ({"swap_max": 100 * MB, "swap_current": 40 * MB}, 360.0),
        ({"swap_max": 0, "swap_current": 0}, 300.0),
        ({"swap_max": "max", "swap_current": 0}, 500.0),
        ({"current": 1_100 * MB, "swap_max": 0, "swap_current": 0}, 0.0),
    ],
)
def test_files_kept_in_memory_and_swap_are_left(
    tmp_path: Path, more: dict[str, object], left_mb: float
) -> None:
    swap_kb = 200 * MB / 1024 if "swap_max" in more else 0.0
    meminfo = f"MemTotal: 9999999 kB\nSwapFree: {swap_kb:.0f} kB\n"
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": SECOND, "proc/meminfo": meminfo}
    lay_out(tmp_path, {**files, **second("", 1_000 * MB, 700.0, **more)})
    assert found(tmp_path)[2] == pytest.approx(left_mb, abs=0.001)


CONTROLLERS = "9:name=systemd:{0}\n4:cpu,memory:{0}\n0::{0}\n"


@pytest.mark.parametrize(
    ("path", "within", "folder"),
    [
        ("/docker/abc", "/", "docker/abc"),  # on the machine itself
        ("/docker/abc", "/docker/abc", ""),  # in a container without a namespace of its own
        ("/", "/", ""),  # in one with a namespace
        ("/../other", "/", ""),  # moved out of its namespace
        ("/elsewhere", "/docker/abc", ""),
    ],
)
def test_version_1_is_read_too(tmp_path: Path, path: str, within: str, folder: str) -> None:
    cache = f"cache 1\ntotal_inactive_file {50 * MB}\ninactive_file 3\n"
    lay_out(tmp_path, {
        "proc/self/cgroup": CONTROLLERS.format(path), "proc/self/mountinfo":
        SECOND.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified") + FIRST.format(within),
        **first("", 9_223_372_036_854_771_712, 5_000.0),
        **first(folder, 1_000 * MB, 900.0, stat=cache),
    })  # fmt: skip
    assert found(tmp_path) == (f"/memory/{folder}".rstrip("/"), 1_000.0, 150.0)


def test_memory_and_swap_together_bound_version_1(tmp_path: Path) -> None:
    both = {"memsw.limit_in_bytes": 1_100 * MB, "memsw.usage_in_bytes": 980 * MB}
    lay_out(tmp_path, {
        "proc/self/cgroup": CONTROLLERS.format("/"), "proc/self/mountinfo": FIRST.format("/"),
        "proc/meminfo": "SwapFree: 1000000 kB\n", **first("", 1_000 * MB, 700.0, **both),
    })  # fmt: skip
    assert found(tmp_path)[2] == 120.0


def test_the_machine_itself_bounds_as_well(tmp_path: Path) -> None:
    meminfo = "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 50000 kB\nSwapFree: 10000 kB\n"
    lay_out(tmp_path, {"proc/meminfo": meminfo})
    assert tightest_room(tmp_path) == Room("this machine", 1_024.0, 61.44)


def test_a_mount_with_a_blank_in_its_name_is_found(tmp_path: Path) -> None:
    mounted = SECOND.replace("/sys/fs/cgroup", "/my\\040groups")
    lay_out(tmp_path, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mounted})
    for name, content in second("", 500 * MB, 100.0).items():
        lay_out(tmp_path, {name.replace("sys/fs/cgroup", "my groups"): content})
    assert found(tmp_path)[1:] == (500.0, 400.0)


def test_where_nothing_is_known_there_is_no_bound(tmp_path: Path) -> None:
    assert tightest_room(tmp_path) is None
    assert tightest_quota(tmp_path) is None
    assert processor_flags(tmp_path) == frozenset()
    assert memory_kills(tmp_path) == 0


# ---------------------------------------------------------------- processor time


def allowed(root: Path) -> tuple[str, float]:
    quota = tightest_quota(root)
    assert quota is not None
    return quota.bound.removeprefix(f"the cgroup {root}/sys/fs/cgroup"), quota.cores


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (("150000 100000", None), ("", 1.5)),  # as `docker run --cpus 1.5` in its namespace
        (("max 100000", "50000 100000"), ("/user.slice", 0.5)),
        (("200000 100000", "400000 100000"), ("", 2.0)),
        (("max 100000", "max 100000"), None),
        (("max 0", "5 0"), None),
        (("", "x"), None),
        ((None, None), None),
    ],
)
def test_a_container_sees_how_much_processor_time_it_has(
    tmp_path: Path, texts: tuple[str | None, str | None], found: tuple[str, float] | None
) -> None:
    lay_out(tmp_path, {"proc/self/cgroup": "0::/user.slice\n", "proc/self/mountinfo": SECOND})
    for folder, text in zip(("", "user.slice/"), texts, strict=True):
        if text is not None:
            lay_out(tmp_path, {f"sys/fs/cgroup/{folder}cpu.max": f"{text}\n"})
    assert (allowed(tmp_path) if found else tightest_quota(tmp_path)) == found


@pytest.mark.parametrize(("quota", "found"), [(250_000, ("/cpu,cpuacct/docker", 2.5)), (-1, None)])
def test_version_1_limits_processor_time_by_two_files(
    tmp_path: Path, quota: int, found: tuple[str, float] | None
) -> None:
    mounted = MOUNTED.format(within="/", at="/cpu,cpuacct", kind="cgroup", more=",cpu,cpuacct")
    at = "sys/fs/cgroup/cpu,cpuacct"
    lay_out(tmp_path, {
        "proc/self/cgroup": "4:memory:/other\n2:cpu,cpuacct:/docker\n0::/\n",
        "proc/self/mountinfo": SECOND.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified") + mounted,
        f"{at}/cpu.cfs_quota_us": -1, f"{at}/cpu.cfs_period_us": 100_000,
        f"{at}/docker/cpu.cfs_quota_us": quota, f"{at}/docker/cpu.cfs_period_us": 100_000,
    })  # fmt: skip
    assert (allowed(tmp_path) if found else tightest_quota(tmp_path)) == found


@pytest.mark.parametrize(("cores", "threads"), [(0.2, 1), (1.0, 1), (1.9, 1), (2.0, 2), (6.5, 6)])
def test_so_many_threads_are_not_made_to_wait(cores: float, threads: int) -> None:
    assert Quota("a cgroup", cores).threads == threads


@given(st.lists(st.text("0123: /-maxcgroupry\n", max_size=60), min_size=7, max_size=7))
def test_files_of_any_form_are_read_without_a_fault(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    names = ("proc/self/cgroup", "proc/self/mountinfo", "proc/meminfo", "proc/vmstat",
             "proc/cpuinfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/cpu.max")  # fmt: skip
    root = lay_out(tmp_path_factory.mktemp("root"), dict(zip(names, texts, strict=True)))
    lay_out(root, {"proc/self/cgroup": f"0::/\n{texts[0]}"})
    lay_out(root, {"proc/self/mountinfo": SECOND + texts[1]})
    tightest_room(root), tightest_quota(root), processor_flags(root), memory_kills(root)


def test_flags_and_kills_are_read(tmp_path: Path) -> None:
    lay_out(tmp_path, {
        "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse avx\n\nprocessor\t: 1\n",
        "proc/vmstat": "nr_free_pages 7\noom_kill 3\n",
    })  # fmt: skip
    assert processor_flags(tmp_path) == {"fpu", "sse", "avx"}
    assert memory_kills(tmp_path) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no such files")
def test_of_this_machine_it_is_known() -> None:
    room = tightest_room()
    assert room is not None
    assert 0.0 < room.left_mb <= room.limit_mb * 2
    assert processor_flags()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps what is freed")
def test_what_a_thread_has_freed_is_given_back() -> None:
    """Where something small lies behind it, glibc keeps all that was freed before."""
    with ThreadPoolExecutor(1) as threads:
        kept = threads.submit(work_and_keep_a_little, 100).result()
    held = megabytes()
    give_memory_back()
    assert held - megabytes() > 50.0
    assert len(kept) == 100


@pytest.mark.lengthy
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("apart", [False, True])
def test_large_pieces_that_are_freed_leave_no_holes_among_small_ones(apart: bool) -> None:
    """In a process of its own: what is asked of the C library is for good."""
    script = f"""
        import numpy as np
        from lstm_model.machine import keep_large_apart
        from memory import megabytes
        if {apart}:
            keep_large_apart()
        np.ones(30_000_000, np.uint8)  # glibc learns from it
        before = megabytes()
        pieces = [(np.ones(5_000_000, np.uint8), np.ones(9_000, np.uint8)) for _ in range(20)]
        left = [small for _, small in pieces]
        del pieces
        print(megabytes() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (float(done.stdout) < 10.0) is apart, done.stdout


def test_a_signal_that_comes_while_garbage_is_collected_is_heard() -> None:
    """Python drops what is raised in a finalizer, where a collection's first Python code runs."""
    script = """
        import os, signal
        from lstm_model.machine import collect_garbage

        class Loop:  # as an event loop that nobody has closed
            def __init__(self):
                self.own = self

            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                sum(range(10_000))

        def end(number, frame):
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, end)
        Loop()
        try:
            collect_garbage()
            sum(range(10_000))
        except KeyboardInterrupt:
            print("heard")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("heard\n", "")


def test_where_no_thread_is_left_the_bot_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    collect_garbage()
    assert "not collected: can't start new thread" in caplog.text


def test_what_pyarrow_has_freed_is_given_back() -> None:
    """A file of candles that was read in a thread: none of it is in use, and it is still held."""
    pyarrow = pytest.importorskip("pyarrow")

    in_use = pyarrow.default_memory_pool().bytes_allocated  # tests before may have left a little

    def read() -> float:
        parts = [pyarrow.allocate_buffer(1_000_000) for _ in range(100)]
        for part in parts:
            memoryview(part).cast("B")[:] = bytes(1_000_000)
        return megabytes()

    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(read).result()
    give_memory_back()
    assert in_use() < 1_000_000
    assert held - megabytes() > 50.0


@pytest.mark.lengthy
def test_what_pyarrows_own_threads_have_freed_is_given_back(tmp_path: Path) -> None:
    """They wait for the disk and unpack what comes from it; each keeps what it held, till it ends.

    freqtrade reads candles so. Which threads read a file is chance: the longer a process reads
    files, the more of them hold as much as the largest took.
    """
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import dataset, feather

    columns = np.random.default_rng(1).random((6, 500_000))
    table = pyarrow.table(list(columns), names=list("abcdef"))
    feather.write_feather(table, tmp_path / "candles.feather", compression="lz4")

    def read() -> None:
        dataset.dataset(tmp_path / "candles.feather", format="feather").to_table()

    me, counts = psutil.Process(), (pyarrow.cpu_count(), pyarrow.io_thread_count())
    read()
    give_memory_back()
    before, threads = megabytes(), me.num_threads()
    for _ in range(20):
        read()
    assert me.num_threads() > threads + 1
    give_memory_back()
    assert me.num_threads() <= threads + 1  # one of those for the disk may have rested before
    assert megabytes() - before < 25.0
    assert (pyarrow.cpu_count(), pyarrow.io_thread_count()) == counts


def test_who_gives_back_beside_another_leaves_pyarrow_its_threads() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    counts = pyarrow.cpu_count(), pyarrow.io_thread_count()
    with ThreadPoolExecutor(4) as threads:
        for given in [threads.submit(give_memory_back) for _ in range(12)]:
            given.result()
    assert (pyarrow.cpu_count(), pyarrow.io_thread_count()) == counts
