"""Steps and lineages survive kills, damage and each other's company."""

import io
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from stored import age, killed_at_every_call

from lstm_model import files
from lstm_model.errors import StoreError
from lstm_model.files import write_atomically
from lstm_model.store import lineage
from lstm_model.store import steps as steps_module
from lstm_model.store.lineage import Lineage, head_record, lineages, versions_in_use
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore

OLD, NEW, OTHER = "0" * 16, "f" * 64, "ab" * 10
NAME = "binance-spot-5m"
RECORD = {
    "boundary_ms": 300_000,
    "previous": None,
    "p_value": 0.1 + 0.2,
    "contenders": [{"version": "v1", "scales": {"BTC/USDT": [1, 0.5, -1e-300]}}],
}
ARRAYS = {
    "v1/gain": np.array([0.1, np.nan, -np.inf]),
    "BTC/USDT:USDT": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "record": np.zeros((0, 2), np.int64),
    "flag": np.array(True),
}


def same(found: Any, record: Any, arrays: dict[str, np.ndarray]) -> bool:
    assert found is not None
    assert found[0] == record
    assert found[1].keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[1][name], array, strict=True)
        assert not found[1][name].flags.writeable
    return True


def of_step(root: Path, address: str, suffix: str) -> Path:
    return root / "steps" / f"{address}.{suffix}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    steps = StepStore(tmp_path / "lstm")
    assert steps.record(OLD) is None
    assert steps.load(OLD) is None
    steps.save(OLD, RECORD, ARRAYS)
    again = StepStore(tmp_path / "lstm")
    assert again.record(OLD) == RECORD
    assert same(again.load(OLD), RECORD, ARRAYS)
    assert again.record(NEW) is None
    with np.load(of_step(tmp_path / "lstm", OLD, "npz"), allow_pickle=False) as file:
        assert "array/v1/gain" in file.files  # anyone can look into it
    steps.save(OLD, {}, {})
    assert same(again.load(OLD), {}, {})
    assert again.record(OLD) == {}


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    plain | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
kinds = st.sampled_from([np.float64, np.float32, np.int64, np.bool_, "<U3", "M8[ms]", ">i2"])
tables = arrays_of.arrays(kinds, arrays_of.array_shapes(min_dims=0, max_dims=2, min_side=0))


@pytest.mark.lengthy
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    record=st.dictionaries(st.text(max_size=5), values, max_size=4),
    arrays=st.dictionaries(st.from_regex(r"[\w.:/+-]{1,9}\w", fullmatch=True), tables, max_size=3),
)
def test_every_record_and_array_makes_the_round_trip(
    tmp_path: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    arrays = {name: array for name, array in arrays.items() if not name.endswith(".npy")}
    steps = StepStore(tmp_path)
    steps.save(OLD, record, arrays)
    assert steps.record(OLD) == record
    assert same(steps.load(OLD), record, arrays)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float64("-inf"), np.zeros(1), {1}])
def test_a_record_json_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, bad: Any
) -> None:
    with pytest.raises(StoreError, match=f"step {OLD}: its record is not plain, finite JSON"):
        StepStore(tmp_path).save(OLD, {"deep": [{"inside": bad}]}, ARRAYS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("objects", np.array([{}], dtype=object)),
        ("", np.zeros(1)),
        ("a\0b", np.zeros(1)),
        ("a\\b", np.zeros(1)),
        ("a.npy", np.zeros(1)),
        ("a" * 201, np.zeros(1)),
    ],
)
def test_arrays_that_would_not_come_back_are_refused(
    tmp_path: Path, name: str, array: np.ndarray
) -> None:
    with pytest.raises(StoreError, match=r"not plain|no name for an array"):
        StepStore(tmp_path).save(OLD, RECORD, {name: array})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address", ["", "0" * 15, "0" * 65, "A" * 16, "../" + "0" * 16, "0" * 16 + "\n", "g" * 16]
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    steps = StepStore(tmp_path)
    for action in (
        lambda: steps.save(address, RECORD, {}),
        lambda: steps.record(address),
        lambda: steps.load(address),
        lambda: steps.forget(address),
        lambda: Lineage(tmp_path, NAME).advance(address, "v1"),
    ):
        with pytest.raises(StoreError, match=r"no address of a step.*0-9a-f"):
            action()
    assert list(tmp_path.iterdir()) == []


def test_forgetting_drops_the_arrays_and_keeps_the_record(tmp_path: Path) -> None:
    steps = StepStore(tmp_path)
    steps.forget(OLD)
    steps.save(OLD, RECORD, ARRAYS)
    steps.forget(OLD)
    steps.forget(OLD)
    assert steps.load(OLD) is None
    assert steps.record(OLD) == RECORD
    assert not of_step(tmp_path, OLD, "npz").exists()
    steps.save(OLD, RECORD, ARRAYS)
    assert same(steps.load(OLD), RECORD, ARRAYS)


def test_steps_are_found_by_how_their_addresses_begin_whoever_saved_them(tmp_path: Path) -> None:
    one, two = StepStore(tmp_path), StepStore(tmp_path)
    assert one.find("") == []
    one.save(OLD, RECORD, ARRAYS)
    assert one.find("") == two.find("") == [OLD]
    two.save(NEW, RECORD, ARRAYS)
    two.forget(OLD)
    two.save(OTHER, {}, {})
    assert two.find("") == one.find("") == [OLD, OTHER, NEW]
    assert one.find("ab") == [OTHER]
    assert one.find("c") == []
    one.forget(OTHER)
    one.remove(NEW)
    assert one.find("f") == []
    three = StepStore(tmp_path)
    three.save(NEW, {}, {})
    assert three.find("") == [OLD, OTHER, NEW]
    (tmp_path / "steps" / "foreign.json").write_text("{}")
    assert three.find("") == StepStore(tmp_path).find("") == [OLD, OTHER, NEW]


@pytest.mark.parametrize("left", [None, b"", b"{}", b"[[]]", b'{"record":{"a":1},"sha256":""}'])
def test_the_record_outlives_its_file_while_the_arrays_are_there(
    tmp_path: Path, left: bytes | None
) -> None:
    steps = StepStore(tmp_path)
    steps.save(OLD, RECORD, ARRAYS)
    path = of_step(tmp_path, OLD, "json")
    path.unlink() if left is None else path.write_bytes(left)
    assert steps.record(OLD) == RECORD
    steps.forget(OLD)
    assert steps.load(OLD) is None
    assert steps.record(OLD) == RECORD


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(["json", "npz"]), cut=st.booleans())
def test_no_changed_byte_of_a_step_passes_unnoticed(
    tmp_path: Path, data: st.DataObject, suffix: str, cut: bool
) -> None:
    steps, path = StepStore(tmp_path), of_step(tmp_path, OLD, suffix)
    if not of_step(tmp_path, NEW, suffix).exists():
        for address in (OLD, NEW):
            steps.save(address, RECORD, ARRAYS)
            of_step(tmp_path, address, "json" if suffix == "npz" else "npz").unlink()
        of_step(tmp_path, NEW, suffix).write_bytes(path.read_bytes())
    content = bytearray(of_step(tmp_path, NEW, suffix).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if cut:
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert steps.record(OLD) in ((None, RECORD) if suffix == "json" else (None,))
    assert steps.load(OLD) is None


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_damaged_step_is_absent_with_one_warning_and_saved_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    steps = StepStore(tmp_path)
    steps.save(OLD, RECORD, ARRAYS)
    if suffix == "json":
        steps.forget(OLD)
    else:
        of_step(tmp_path, OLD, "json").unlink()
    path = of_step(tmp_path, OLD, suffix)
    path.write_bytes(path.read_bytes()[:-3])
    for _ in range(3):
        assert steps.record(OLD) is None
        assert steps.load(OLD) is None
    assert len(warnings(caplog)) == 1
    assert warnings(caplog)[0].startswith(f"{path} is left out and computed again: it is damaged")
    steps.save(OLD, RECORD, ARRAYS)
    assert same(steps.load(OLD), RECORD, ARRAYS)
    assert steps.record(OLD) == RECORD


def test_a_step_under_another_address_is_absent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = StepStore(tmp_path)
    steps.save(OLD, RECORD, ARRAYS)
    for suffix in ("json", "npz"):
        of_step(tmp_path, OLD, suffix).rename(of_step(tmp_path, NEW, suffix))
    assert steps.record(NEW) is None
    assert steps.load(NEW) is None
    assert len(warnings(caplog)) == 2


def test_a_forged_step_is_not_unpickled(tmp_path: Path) -> None:
    steps = StepStore(tmp_path)
    steps.save(OLD, RECORD, {})
    objects, plain = io.BytesIO(), io.BytesIO()
    np.savez(objects, record=np.array([{}], dtype=object))
    np.savez(plain, another=np.zeros(1))
    for content in (objects.getvalue(), plain.getvalue(), pickle.dumps([1]), b""):
        sealed = content + steps_module._step_digest(OLD, content)
        of_step(tmp_path, OLD, "npz").write_bytes(sealed)
        assert steps.load(OLD) is None


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    steps, bot = StepStore(tmp_path / "file"), Lineage(tmp_path / "file", NAME)
    for action in (
        lambda: steps.save(OLD, RECORD, {}),
        lambda: bot.advance(OLD, "v1"),
        lambda: bot.pin("v1"),
        bot.acquire,
    ):
        with pytest.raises(StoreError, match=r"cannot write .*/file/.*store_dir"):
            action()
    assert (steps.record(OLD), bot.head, bot.changed_ns()) == (None, None, 0)
    assert lineages(tmp_path / "file") == []
    of_step(tmp_path, OLD, "json").mkdir(parents=True)
    with pytest.raises(StoreError, match=rf"{OLD}\.json cannot be read"):
        StepStore(tmp_path).record(OLD)


def test_a_lineage_never_written_is_empty(tmp_path: Path) -> None:
    bot = Lineage(tmp_path, NAME)
    bot.unpin()
    assert (bot.head, bot.pinned, bot.champions, bot.changed_ns()) == (None, None, [], 0)
    assert not (tmp_path / "lineages" / f"{NAME}.json").exists()
    assert lineages(tmp_path) == []


def test_a_lineage_remembers_head_champions_and_pin(tmp_path: Path) -> None:
    bot = Lineage(tmp_path, NAME)
    for address, champion in ((OLD, "v0"), (NEW, "v1"), (OTHER, "v1"), (OLD, "v2"), (NEW, "v0")):
        bot.advance(address, champion)
        assert bot.head == address
        assert bot.champions[0] == champion
    bot.pin("v1")
    again = Lineage(tmp_path, NAME)
    assert (again.head, again.champions, again.pinned) == (NEW, ["v0", "v2", "v1"], "v1")
    again.advance(OLD, "v3")
    assert bot.pinned == "v1"
    bot.unpin()
    assert (again.head, again.pinned) == (OLD, None)
    path = tmp_path / "lineages" / f"{NAME}.json"
    assert json.loads(path.read_text()) == {
        "head": OLD,
        "champions": ["v3", "v0", "v2", "v1"],
        "pinned": None,
    }


def test_only_the_newest_hundred_champions_are_kept(tmp_path: Path) -> None:
    bot = Lineage(tmp_path, NAME)
    bot.advance(OLD, "v0")
    path = tmp_path / "lineages" / f"{NAME}.json"
    state = {"head": OLD, "champions": [f"v{number}" for number in range(100)], "pinned": None}
    path.write_text(json.dumps(state))
    bot.advance(NEW, "v99")
    assert bot.champions == ["v99", *(f"v{number}" for number in range(99))]
    bot.advance(NEW, "new")
    assert bot.champions == ["new", "v99", *(f"v{number}" for number in range(98))]


def test_every_change_is_seen_by_who_looks_at_the_time_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_within_one_tick(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        os.utime(path, ns=(10**18, 10**18))

    monkeypatch.setattr(lineage, "write_atomically", write_within_one_tick)
    bot = Lineage(tmp_path, NAME)
    seen = [bot.changed_ns()]
    for number in range(5):
        bot.pin(f"v{number}")
        seen.append(bot.changed_ns())
        bot.pin(f"v{number}")
        assert bot.changed_ns() == seen[-1]
    assert all(one != two for one, two in pairwise(seen))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"\xff", b'{"head":null,"champions":[],"pinned":null', b"[" * 9_999,
        b'{"head":"../x","champions":[],"pinned":null}', b'{"head":null,"champions":[]}',
        b'{"head":null,"champions":[1],"pinned":null}',
        b'{"head":null,"champions":[],"pinned":"a/b"}',
    ],
)  # fmt: skip
def test_a_damaged_lineage_is_refused_with_the_remedy_and_kept(
    tmp_path: Path, content: bytes
) -> None:
    bot = Lineage(tmp_path, NAME)
    bot.advance(OLD, "v0")
    path = tmp_path / "lineages" / f"{NAME}.json"
    path.write_bytes(content)
    for action in (
        lambda: bot.head,
        lambda: bot.champions,
        lambda: bot.pinned,
        lambda: bot.advance(NEW, "v1"),
        lambda: bot.pin("v1"),
        bot.unpin,
    ):
        with pytest.raises(StoreError, match=rf"{NAME}\.json is damaged.*move it away.*kept"):
            action()
    assert path.read_bytes() == content
    path.unlink()
    bot.advance(NEW, "v1")
    assert bot.champions == ["v1"]


def test_who_learns_sets_a_damaged_lineage_aside_and_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bot = Lineage(tmp_path, NAME)
    bot.advance(OLD, "v0")
    path = tmp_path / "lineages" / f"{NAME}.json"
    path.write_bytes(b"damaged")
    with acquired(bot):
        assert (bot.head, bot.champions, bot.pinned) == (None, [], None)
        assert "was damaged" in bot.lost
        assert warnings(caplog) == [bot.lost]
        bot.advance(NEW, "v1")
        assert bot.champions == ["v1"]
    [aside] = (tmp_path / "lineages").glob("*.damaged-*")
    assert aside.read_bytes() == b"damaged"
    assert [found.name for found in lineages(tmp_path)] == [NAME]


def test_a_first_training_that_was_ended_had_learnt_nothing_to_lose(tmp_path: Path) -> None:
    for _ in range(2):
        bot = Lineage(tmp_path, NAME)
        with acquired(bot):
            assert (bot.lost, bot.head, bot.champions, bot.pinned) == ("", None, [], None)


def test_who_learns_is_told_that_its_lineage_is_gone_and_not_that_it_is_new(
    tmp_path: Path,
) -> None:
    bot = Lineage(tmp_path, NAME)
    with acquired(bot):
        assert bot.lost == ""
        bot.advance(OLD, "v0")
    with acquired(bot):
        assert bot.lost == ""
    (tmp_path / "lineages" / f"{NAME}.json").unlink()
    with acquired(bot):
        assert "is not there" in bot.lost


def test_what_a_newer_release_wrote_into_a_lineage_stays(tmp_path: Path) -> None:
    path = tmp_path / "lineages" / f"{NAME}.json"
    path.parent.mkdir()
    newer = {"head": OLD, "champions": ["v0"], "pinned": None, "newer": {"deep": [1, 2.5]}}
    path.write_text(json.dumps(newer))
    bot = Lineage(tmp_path, NAME)
    bot.pin("v0")
    bot.advance(NEW, "v1")
    assert json.loads(path.read_text()) == newer | {
        "head": NEW,
        "champions": ["v1", "v0"],
        "pinned": "v0",
    }


@pytest.mark.parametrize("name", ["", "..", "a/b", ".tmp-1", "x" * 65, "a\n"])
def test_names_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no name of a lineage"):
        Lineage(tmp_path, name)
    bot = Lineage(tmp_path, NAME)
    for action in (lambda: bot.pin(name), lambda: bot.advance(OLD, name)):
        with pytest.raises(StoreError, match="no model version"):
            action()
    assert list(tmp_path.iterdir()) == []


def test_lineages_lists_what_was_written_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Lineage(tmp_path, name).advance(OLD, f"of-{name}")
    (tmp_path / "lineages" / "not ours.json").write_text("{}")
    (tmp_path / "lineages" / ".tmp-c.json-0").write_text("{}")
    with acquired(Lineage(tmp_path, "begun")):
        found = lineages(tmp_path)
    assert [(bot.name, bot.root, bot.champions) for bot in found] == [
        ("a", tmp_path, ["of-a"]),
        ("b", tmp_path, ["of-b"]),
        ("begun", tmp_path, []),
    ]


def test_in_use_is_what_any_lineage_serves_tries_out_may_go_back_to_or_has_pinned(
    tmp_path: Path,
) -> None:
    assert versions_in_use(tmp_path) == set()
    steps, bot = StepStore(tmp_path), Lineage(tmp_path, NAME)
    assert head_record(bot) == {}
    contenders = [{"version": version} for version in ("serving", "tried")]
    record = {
        "boundary_ms": 300_000, "champion": "serving", "predecessor": "before",
        "contenders": contenders,
    }  # fmt: skip
    steps.save(OLD, {"champion": "older", "contenders": [{"version": "older"}]}, {})
    steps.save(NEW, record, {})
    bot.advance(OLD, "older")
    bot.advance(NEW, "serving")
    assert head_record(bot) == record
    assert versions_in_use(tmp_path) == {"serving", "tried", "before"}
    for number, form in enumerate([{}, [], 1, None, [1], [{}], [{"version": 1}]]):
        steps.save(f"{number:016x}", {"contenders": form, "champion": form}, {})
        another = Lineage(tmp_path, f"of-another-form-{number}")
        another.advance(f"{number:016x}", "serving")
        assert head_record(another) == {}
    assert versions_in_use(tmp_path) == {"serving", "tried", "before"}
    steps.save(OTHER, {"champion": "first", "predecessor": None, "contenders": []}, {})
    Lineage(tmp_path, "young").advance(OTHER, "first")
    Lineage(tmp_path, "only-pinned").pin("pinned")
    assert versions_in_use(tmp_path) == {"serving", "tried", "before", "first", "pinned"}


def test_whose_record_is_lost_still_uses_its_champion_and_whose_file_is_damaged_is_refused(
    tmp_path: Path,
) -> None:
    bot, other = Lineage(tmp_path, NAME), Lineage(tmp_path, "other")
    for champion in ("older", "serving"):
        bot.advance(OLD, champion)
    other.advance(NEW, "others")
    assert head_record(bot) == {}
    assert versions_in_use(tmp_path) == {"serving", "others"}
    (tmp_path / "lineages" / "other.json").write_text("{}")
    assert head_record(bot) == {}
    with pytest.raises(StoreError, match=r"other\.json is damaged"):
        versions_in_use(tmp_path)


@contextmanager
def acquired(bot: Lineage) -> Iterator[None]:
    bot.acquire()
    try:
        yield
    finally:
        bot.release()


def test_one_object_holds_a_lineage_and_may_say_so_twice(tmp_path: Path) -> None:
    one, two = Lineage(tmp_path, NAME), Lineage(tmp_path, NAME)
    one.release()
    one.acquire()
    one.acquire()
    with pytest.raises(StoreError, match=f"process {os.getpid()},"):
        two.acquire()
    two.release()
    with acquired(Lineage(tmp_path, "another")), pytest.raises(StoreError):
        two.acquire()
    one.release()
    one.release()
    with acquired(two), pytest.raises(StoreError):
        one.acquire()


def test_an_owner_that_has_not_written_its_name_yet_is_an_owner(tmp_path: Path) -> None:
    with acquired(Lineage(tmp_path, NAME)):
        (tmp_path / "lineages" / f"{NAME}.lock").write_bytes(b"12")
        with pytest.raises(StoreError, match="another bot already learns in"):
            Lineage(tmp_path, NAME).acquire()


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process, with the modules and names this file uses."""
    lines = (
        "import itertools, sys",
        "from pathlib import Path",
        "import numpy as np",
        "from lstm_model.store.lineage import Lineage",
        "from lstm_model.store.steps import StepStore",
        "root = Path(sys.argv[1])",
        f"bot = Lineage(root, {NAME!r})",
        code,
    )
    command = [sys.executable, "-c", "\n".join(lines), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    assert process.poll() is None, "the child stopped by itself"
    process.send_signal(signal.SIGKILL)
    with process:
        process.wait()


@pytest.mark.lengthy
def test_the_lock_of_another_process_ends_with_it(tmp_path: Path) -> None:
    holder = child('bot.acquire(); print("held", flush=True); input()', tmp_path)
    assert said(holder) == "held"
    bot = Lineage(tmp_path, NAME)
    for _ in range(2):  # a refusal does not spoil what the lock file says
        with pytest.raises(StoreError) as caught:
            bot.acquire()
        pattern = (
            rf"another bot \(process {holder.pid}, since \d{{4}}-\d\d-\d\dT\d\d:\d\dZ\) already "
            rf"learns in {re.escape(str(tmp_path))}: stop it, or give this bot its own "
            r'"store_dir" in the "lstm" section'
        )
        assert re.fullmatch(pattern, str(caught.value))
    bot.pin("v1")  # who only pins need not wait for the bot to end
    assert bot.pinned == "v1"
    kill(holder)
    with acquired(bot):
        assert (tmp_path / "lineages" / f"{NAME}.lock").read_text().startswith(f"{os.getpid()} 2")


ADVANCE = """
print("ready", flush=True); input()
for number in range(60):
    bot.advance(f"{number:016x}", f"v{number}")
    assert bot.head == f"{number:016x}"
"""
PIN = """
print("ready", flush=True); input()
for number in range(60):
    bot.pin(f"v{number}")
    assert bot.pinned == f"v{number}"
bot.unpin()
"""


@pytest.mark.lengthy
def test_pinning_while_a_bot_advances_loses_nothing(tmp_path: Path) -> None:
    children = [child(code, tmp_path) for code in (ADVANCE, PIN)]
    assert [said(process) for process in children] == ["ready", "ready"]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in children:
        with process:
            assert process.wait() == 0
    bot = Lineage(tmp_path, NAME)
    assert bot.head == f"{59:016x}"
    assert bot.champions == [f"v{number}" for number in reversed(range(60))]
    assert bot.pinned is None


def test_who_finds_the_lock_held_for_long_is_told_by_whose_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that was suspended must not keep a bot from stopping."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.1)
    bot, lock = Lineage(tmp_path, NAME), tmp_path / "lineages" / ".lock"
    bot.advance("0123456789abcdef", "v1")
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=re.escape(f"{lock} is held by another process")):
            bot.pin("v1")
    assert bot.pinned is None
    bot.pin("v1")
    assert bot.pinned == "v1"


LEARN = """
steps = StepStore(root)
for number in itertools.count(int(sys.argv[2])):
    arrays = {"values": np.full(1_000, number)}
    steps.save(f"{number:016x}", {"number": number}, arrays)
    bot.advance(f"{number:016x}", f"v{number}")
    if number:
        steps.forget(f"{number - 1:016x}")
    print(number, flush=True)
"""


@pytest.mark.lengthy
def test_a_killed_learner_leaves_its_head_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = 0
    for lines in (3, 17):  # reading so many; by then it is at any place of a later step
        learner = child(LEARN, tmp_path, first)
        done = [int(said(learner)) for _ in range(lines)]
        kill(learner)
        bot, steps = Lineage(tmp_path, NAME), StepStore(tmp_path)
        assert bot.head is not None
        number = int(bot.head, 16)
        assert number >= done[-1]
        assert same(steps.load(bot.head), {"number": number}, {"values": np.full(1_000, number)})
        for earlier in range(number):
            assert steps.record(f"{earlier:016x}") == {"number": earlier}
        first = number + 1
    assert caplog.records == []


def learn(root: Path) -> None:
    """What is killed below at each of its calls."""
    steps, bot = StepStore(root), Lineage(root, NAME)
    steps.save(NEW, RECORD, ARRAYS)
    bot.advance(NEW, "v1")
    steps.forget(OLD)
    bot.pin("v1")


@pytest.mark.lengthy
def test_a_kill_at_any_call_of_the_system_leaves_the_old_or_the_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "base"
    StepStore(base).save(OLD, {"boundary_ms": 0}, ARRAYS)
    Lineage(base, NAME).advance(OLD, "v0")
    roots = killed_at_every_call(learn, base, tmp_path / "killed")
    assert len(roots) > 30
    seen = []
    for root in roots:
        steps, bot = StepStore(root), Lineage(root, NAME)
        assert steps.record(OLD) == {"boundary_ms": 0}
        old, new = (steps.load(address) for address in (OLD, NEW))
        assert old is None or same(old, {"boundary_ms": 0}, ARRAYS)
        assert new is None or same(new, RECORD, ARRAYS)
        assert steps.record(NEW) == (RECORD if new is not None else None)
        seen.append((new is not None, bot.head == NEW, old is None, bot.pinned == "v1"))
        assert bot.champions == (["v1", "v0"] if bot.head == NEW else ["v0"])
    assert seen == sorted(seen)  # each thing happens once, in this order
    stages = [(False,) * 4, *((True,) * n + (False,) * (4 - n) for n in (1, 2, 3, 4))]
    assert sorted(set(seen)) == stages
    assert caplog.records == []
    assert any(list(root.glob("*/.tmp-*")) for root in roots)


@pytest.mark.lengthy
def test_who_was_killed_goes_on_and_its_leftovers_are_removed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    StepStore(base).save(OLD, {"boundary_ms": 0}, ARRAYS)
    for root in killed_at_every_call(learn, base, tmp_path / "killed")[::4]:
        learn(root)
        age(root)
        ModelStore(root).remove_leftovers()
        steps, bot = StepStore(root), Lineage(root, NAME)
        assert (bot.head, bot.champions, bot.pinned) == (NEW, ["v1"], "v1")
        assert same(steps.load(NEW), RECORD, ARRAYS)
        assert not list(root.glob("*/.tmp-*"))
