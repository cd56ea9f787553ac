"""The store survives crashes and refuses what is not exactly as it was written."""

import io
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import TESTS
from pydantic import ValidationError
from stored import (
    LINEAGE,
    age,
    folder,
    killed_at_every_call,
    make_card,
    make_weights,
    publish,
    publish_and_serve,
    reseal,
)

from lstm_model.errors import StoreError
from lstm_model.files import write_atomically
from lstm_model.store import card as card_module
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelCard, ModelStore, copy_learnt, version_id


def test_what_is_published_is_loaded(tmp_path: Path) -> None:
    network = tmp_path / "job.keras"
    network.write_bytes(b"a keras file")
    store = ModelStore(tmp_path / "lstm")
    stored = publish(store, network=network)
    loaded = ModelStore(tmp_path / "lstm").load(stored.version)
    assert loaded.card == stored
    assert stored.model_copy(update={"weights": {}, "checksums": {}}) == make_card()
    assert loaded.network is not None
    assert loaded.network.read_bytes() == b"a keras file"
    assert set(stored.checksums) == {"weights.npz", "network.keras", "card.json"}
    assert loaded.weights.keys() == make_weights().keys()
    for name, array in make_weights().items():
        np.testing.assert_array_equal(loaded.weights[name], array)
        assert not loaded.weights[name].flags.writeable


def test_what_was_learnt_is_taken_over_but_not_who_serves(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    card = publish(ModelStore(old))
    (old / "models" / ".tmp-unfinished").mkdir()
    (old / "steps").mkdir()
    (old / "steps" / "abc.json").write_text("{}")
    Lineage(old, LINEAGE).advance("0123456789abcdef", card.version)
    copy_learnt(old, new)
    assert ModelStore(new).load(card.version).card == card
    taken = {path.name for path in new.rglob("*") if path.parent != new}
    assert taken == {card.version, "card.json", "weights.npz", "abc.json"}
    assert Lineage(new, LINEAGE).head is None
    copy_learnt(old, new)  # once more does no harm
    assert ModelStore(new).has(card.version)


def test_a_folder_without_models_is_not_taken_for_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no models: name a store"):
        copy_learnt(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_second_publish_changes_no_byte_and_no_time(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    first = publish(store)
    before = {path: path.stat() for path in folder(store, first.version).iterdir()}
    again = store.publish(make_card(seconds=99.0), make_weights(7), None)
    assert again == first
    after = {path: path.stat() for path in folder(store, first.version).iterdir()}
    assert [(s.st_ino, s.st_mtime_ns) for s in before.values()] == [
        (s.st_ino, s.st_mtime_ns) for s in after.values()
    ]


def test_same_arrays_give_same_bytes_in_any_order() -> None:
    weights = make_weights()
    other = dict(reversed(weights.items()))
    assert card_module.pack_weights(weights) == card_module.pack_weights(other)


def test_published_files_follow_the_umask(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    plain = tmp_path / "plain"
    plain.mkdir()
    assert folder(store, version).stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("name", ["weights.npz", "network.keras", "card.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "missing", "empty"])
def test_damage_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    network = tmp_path / "job.keras"
    network.write_bytes(b"a keras file")
    store = ModelStore(tmp_path / "lstm")
    version = publish(store, network=network).version
    path = folder(store, version) / name
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    damaged = {"truncated": content[:-7], "flipped": bytes(flipped), "foreign": b"{}", "empty": b""}
    path.unlink() if damage == "missing" else path.write_bytes(damaged[damage])
    with pytest.raises(StoreError, match=name) as caught:
        store.load(version)
    assert "move that folder away" in str(caught.value)
    assert not store.has(version)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_card_byte_passes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    content = card_module.pack_card(make_card(), make_weights(), {"weights.npz": b""})
    original = card_module.parse_card(content, tmp_path)
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = card_module.parse_card(bytes(changed), tmp_path)
    except StoreError:
        return
    assert parsed == original  # white space, or a number written differently


def test_a_card_without_checksums_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    path = folder(store, version) / "card.json"
    fields = json.loads(path.read_bytes())
    del fields["checksums"]
    path.write_text(json.dumps(fields))
    assert not store.has(version)
    assert store.cards() == []


def test_pickled_weights_are_not_unpickled(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    where = folder(store, version)
    buffer = io.BytesIO()
    np.savez(buffer, kernel=np.array([{"an": "object"}], dtype=object))
    plain = io.BytesIO()
    np.save(plain, np.zeros(3, np.float32))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("kernel.npy", b"no array")  # of which NumPy gives the bytes
    junk = (pickle.dumps([1]), plain.getvalue(), other.getvalue(), b"PK\x03\x04junk")
    for content in (buffer.getvalue(), *junk):
        (where / "weights.npz").write_bytes(content)
        reseal(where)
        with pytest.raises(StoreError, match=r"weights\.npz holds no plain arrays"):
            store.load(version)


def test_arrays_other_than_the_card_says_are_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    where = folder(store, version)
    other = {"lstm/kernel": np.zeros((2, 2), np.float32)}
    (where / "weights.npz").write_bytes(card_module.pack_weights(other))
    reseal(where)
    with pytest.raises(StoreError, match="other arrays"):
        store.load(version)


def test_unknown_card_field_and_copied_folder_are_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    folder(store, "copy").symlink_to(folder(store, version))
    with pytest.raises(StoreError, match=f"copy holds model {version}"):
        store.load("copy")
    reseal(folder(store, version), sharpe=9.0)
    with pytest.raises(StoreError, match=r'card\.json.*"sharpe".*newer release'):
        store.load(version)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("kernel", np.array([np.nan], np.float32)),
        ("kernel", np.array([np.inf], np.float32)),
        ("kernel", np.zeros(2)),
        ("", np.zeros(2, np.float32)),
        ("../kernel/", np.zeros(2, np.float32)),
    ],
)
def test_unusable_weights_are_not_published(tmp_path: Path, name: str, array: np.ndarray) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(StoreError, match=r"finite float32|no name"):
        store.publish(make_card(), {name: array}, None)
    with pytest.raises(StoreError, match="no weights"):
        store.publish(make_card(), {}, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["seconds", "scores", "skill", "calibration", "settings"])
def test_card_refuses_numbers_json_cannot_hold(field: str, bad: float) -> None:
    shapes = {"seconds": bad, "scores": {"a": {"b": bad}}, "calibration": {"a": [bad]}}
    with pytest.raises(ValidationError, match=field):
        make_card(**{field: shapes.get(field, {"a": bad})})


@pytest.mark.parametrize("version", ["", "..", "a/b", "a\\b", ".tmp-1", "x" * 65, "a\n"])
def test_version_cannot_leave_the_store(tmp_path: Path, version: str) -> None:
    store = ModelStore(tmp_path)
    assert not store.has(version)
    with pytest.raises(StoreError, match="no model version"):
        store.load(version)
    with pytest.raises(ValidationError, match="version"):
        make_card(version=version)


@given(st.dictionaries(st.text(), st.text(), max_size=4), st.text(), st.text())
def test_version_id_depends_on_every_part_and_not_on_order(
    parts: dict[str, str], name: str, value: str
) -> None:
    assert version_id(**parts) == version_id(**dict(reversed(parts.items())))
    if parts.get(name) != value:
        assert version_id(**parts) != version_id(**(parts | {name: value}))


def test_damaged_version_is_set_aside_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    (folder(store, version) / "weights.npz").write_bytes(b"damaged")
    publish(store)
    assert store.load(version).card.version == version
    aside = [path for path in (tmp_path / "models").iterdir() if ".damaged-" in path.name]
    assert [(path / "weights.npz").read_bytes() for path in aside] == [b"damaged"]
    assert [card.version for card in store.cards()] == [version]
    assert "made anew" in caplog.text


def test_cards_skips_a_broken_version_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ModelStore(tmp_path)
    versions = [publish(store, number).version for number in (2, 0, 1)]
    (folder(store, versions[1]) / "weights.npz").write_bytes(b"")
    (tmp_path / "models" / "a note.txt").write_text("not ours")
    assert [card.version for card in store.cards()] == [versions[2], versions[0]]
    assert store.damaged().keys() == {versions[1]}
    store.cards()
    messages = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 1
    assert versions[1] in messages[0]


def test_unwritable_root_names_the_path_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ModelStore(tmp_path / "file" / "lstm")
    for action in (
        store.check_writable,
        lambda: publish(store),
        lambda: write_atomically(store.root / "x", b""),
    ):
        with pytest.raises(StoreError, match=r"cannot write .*file/lstm.*store_dir"):
            action()
    assert store.cards() == []


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "lstm")
    store.check_writable()
    assert list((tmp_path / "lstm" / "models").iterdir()) == []


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish(store).version
    models = tmp_path / "models"
    for name in (".tmp-old", ".tmp-young"):
        (models / name).mkdir()
        (models / name / "weights.npz").write_bytes(b"half")
    (models / "theirs").mkdir()
    for name in ("steps", "lineages"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".tmp-old").write_bytes(b"half")
        (tmp_path / name / "whole.json").write_bytes(b"{}")
    hours_ago = time.time() - 7_200
    leftovers = [tmp_path / name / ".tmp-old" for name in ("models", "steps", "lineages")]
    old = [*leftovers, models / "theirs", tmp_path / "steps" / "whole.json"]
    for path in (*old, folder(store, version)):
        os.utime(path, (hours_ago, hours_ago))
    assert store.remove_leftovers() == leftovers
    assert not any(path.exists() for path in leftovers)
    assert all((tmp_path / name / "whole.json").exists() for name in ("steps", "lineages"))
    assert sorted(path.name for path in models.iterdir()) == sorted(
        [".tmp-young", "theirs", version]
    )
    assert store.remove_leftovers() == []


def test_of_two_who_publish_the_same_the_slower_finds_it_published(tmp_path: Path) -> None:
    class Outrun(ModelStore):
        """Finds nothing there, and another process is faster."""

        def _temporary(self, version: str) -> Path:
            publish(ModelStore(self.root))
            return super()._temporary(version)

    store = Outrun(tmp_path)
    assert publish(store) == store.load(make_card().version).card
    assert [path.name for path in (tmp_path / "models").iterdir()] == [make_card().version]


def stored(store: ModelStore) -> list[str]:
    return [card.version for card in store.cards()]


def test_pruning_removes_the_oldest_and_no_protected_version(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.prune(3, []) == []
    versions = [publish(store, number).version for number in range(6)]
    assert store.prune(6, []) == store.prune(9, []) == []
    assert store.prune(4, [versions[0]]) == versions[1:3]
    assert stored(store) == [versions[0], *versions[3:]]
    assert store.prune(4, ["absent"]) == []  # and does not count
    assert store.prune(1, {versions[0], versions[4]}) == [versions[3], versions[5]]
    assert store.prune(0, []) == [versions[0], versions[4]]
    assert list((tmp_path / "models").iterdir()) == []
    with pytest.raises(StoreError, match="is not in"):
        store.load(versions[0])
    assert publish(store, 0).version == versions[0]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.integers(0, 3), min_size=2, max_size=5),
    keep=st.integers(0, 9),
    protected=st.sets(st.integers(0, 7)),
)
def test_pruning_keeps_as_many_as_it_was_told(
    tmp_path: Path, ages: list[int], keep: int, protected: set[int]
) -> None:
    store = ModelStore(Path(tempfile.mkdtemp(dir=tmp_path)))
    store.check_writable()
    for number, created_ms in enumerate(ages):  # without `publish`, which would wait for the disk
        where = store.root / "models" / f"v{number}"
        where.mkdir()
        made = make_card(version=where.name, created_ms=created_ms)
        (where / "card.json").write_bytes(card_module.pack_card(made, {}, {}))
    oldest_first = [f"v{number}" for number in np.argsort(ages, kind="stable")]
    safe = {f"v{number}" for number in protected}
    removed = store.prune(keep, safe)
    kept = [version for version in oldest_first if version not in removed]
    assert sorted(path.name for path in (store.root / "models").iterdir()) == sorted(kept)
    assert len(kept) == min(len(ages), max(keep, len(safe & set(oldest_first))))
    free = [version for version in oldest_first if version not in safe]
    assert removed == free[: len(removed)]


def test_pruning_reads_cards_only_and_leaves_damaged_folders_alone(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    versions = [publish(store, number).version for number in range(3)]
    (folder(store, versions[0]) / "card.json").write_bytes(b"{}")
    (folder(store, versions[1]) / "weights.npz").write_bytes(b"never read")
    folder(store, "copy").symlink_to(folder(store, versions[2]))
    (tmp_path / "models" / "a note.txt").write_text("not ours")
    before = sorted((tmp_path / "models").iterdir())
    assert store.prune(1, []) == [versions[1]]
    before.remove(folder(store, versions[1]))
    assert sorted((tmp_path / "models").iterdir()) == before


def test_what_another_process_pruned_is_no_error_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(ModelStore):
        """Sees the folder as it was before another process pruned it."""

        def _names(self) -> list[str]:
            names = super()._names()
            ModelStore(self.root).prune(1, [])
            return names

    store = Late(tmp_path)
    versions = [publish(store, number).version for number in range(3)]
    assert stored(store) == [versions[2]]
    assert store.prune(0, []) == [versions[2]]
    assert caplog.records == []


def test_of_two_who_prune_one_removes(tmp_path: Path) -> None:
    class Outrun(ModelStore):
        """Finds what is too old, and another process is faster."""

        def _readable_cards(self) -> Iterator[ModelCard]:
            cards = list(super()._readable_cards())
            if type(self) is Outrun:
                ModelStore(self.root).prune(2, [])
            return iter(cards)

    store = Outrun(tmp_path)
    versions = [publish(store, number).version for number in range(4)]
    assert store.prune(1, []) == [versions[2]]
    assert stored(store) == [versions[3]]


def prune_two(root: Path) -> None:
    ModelStore(root).prune(2, [version_id(number="0")])


@pytest.mark.lengthy
def test_a_crash_while_pruning_leaves_whole_versions_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = ModelStore(tmp_path / "base")
    versions = [publish(base, number).version for number in range(4)]
    roots = killed_at_every_call(prune_two, base.root, tmp_path / "killed")
    left = [stored(ModelStore(root)) for root in roots]
    stages = [versions, [versions[0], *versions[2:]], [versions[0], versions[3]]]
    assert sorted(left, key=stages.index) == left
    assert [stage for stage in stages if stage in left] == stages
    assert caplog.records == []
    assert any(list(root.glob("models/.tmp-*")) for root in roots)
    for root in roots:
        prune_two(root)
        age(root)
        ModelStore(root).remove_leftovers()
        assert {path.name for path in (root / "models").iterdir()} == {versions[0], versions[3]}


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from stored import ModelStore, publish_and_serve
store = ModelStore(Path({root!r}))
for number in range({first}, {first} + 100_000):
    publish_and_serve(store, sys.argv[1], number)
    print("serves", flush=True)
"""


def start_writer(root: Path, lineage: str, first: int = 0) -> subprocess.Popen[bytes]:
    code = WRITER.format(tests=str(TESTS), root=str(root), first=first)
    process = subprocess.Popen([sys.executable, "-c", code, lineage], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"serves\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, "the writer stopped by itself"
    process.send_signal(signal.SIGKILL)
    with process:
        process.wait()


@pytest.mark.lengthy
def test_a_killed_writer_leaves_only_whole_versions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for attempt in range(3):
        writer = start_writer(tmp_path, LINEAGE, first=attempt * 100_000)
        time.sleep(random.uniform(0.0, 0.25))
        kill(writer)
        store = ModelStore(tmp_path)
        for path in (tmp_path / "models").glob("[0-9a-f]*"):
            store.load(path.name)
        bot = Lineage(tmp_path, LINEAGE)
        assert bot.champions[0] == version_id(number=str(int(bot.head or "", 16)))
        assert set(bot.champions) <= set(stored(store))
    assert caplog.records == []
    publish(store, 999)


CRASHER = """
import os, shutil, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from stored import LINEAGE, ModelStore, publish_and_serve

def crash_at(line):
    seen = 0
    def trace(frame, event, _argument):
        nonlocal seen
        if not frame.f_code.co_filename.endswith(("/models.py", "/files.py", "/lineage.py")):
            return None
        seen += event == "line"
        if seen == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)

os.fsync = lambda _: None  # a kill loses nothing that the system has been given
for line in range(1, 10_000):
    root = Path({root!r}) / str(line)
    shutil.copytree({base!r}, root)
    child = os.fork()
    if not child:
        crash_at(line)
        publish_and_serve(ModelStore(root), LINEAGE, 1)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.mark.lengthy
def test_a_crash_at_any_line_of_the_store_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = ModelStore(tmp_path / "base")
    old, new = make_card(0).version, make_card(1).version
    publish_and_serve(base, LINEAGE, 0)
    crashed = tmp_path / "crashed"
    code = CRASHER.format(tests=str(TESTS), root=str(crashed), base=str(base.root))
    subprocess.run([sys.executable, "-c", code], check=True)
    roots = sorted(crashed.iterdir(), key=lambda root: int(root.name))
    assert len(roots) > 100
    champions = []
    for root in roots:
        store = ModelStore(root)
        assert stored(store) in ([old], [old, new])
        champions.append(Lineage(root, LINEAGE).champions[0])
        assert store.has(champions[-1])
        assert caplog.records == [], root
        if int(root.name) % 10 == 0:
            publish_and_serve(store, LINEAGE, 1)
            assert store.load(new).card.version == new
    switch = champions.index(new)
    assert champions == [old] * switch + [new] * (len(roots) - switch)
    assert any(list(root.glob("models/.tmp-*")) for root in roots)


@pytest.mark.lengthy
def test_two_processes_publish_the_same_models_and_each_is_whole(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, lineage) for lineage in ("one", "two")]
    time.sleep(0.3)
    for writer in writers:
        kill(writer)
    store = ModelStore(tmp_path)
    expected = [version_id(number=str(number)) for number in range(20_000)]
    for lineage in ("one", "two"):
        oldest_first = Lineage(tmp_path, lineage).champions[::-1]
        first = expected.index(oldest_first[0])
        assert oldest_first == expected[first : first + len(oldest_first)], lineage
        assert all(store.has(version) for version in oldest_first)
