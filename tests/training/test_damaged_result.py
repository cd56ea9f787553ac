"""A result that is cut short or has other bytes is refused by name, never a traceback."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_trainer import GOOD_CHILD, Train, train, trainer

from lstm_model.errors import TrainingError
from lstm_model.training.job import TrainingResult

__all__ = ["train", "trainer"]  # two fixtures

EPOCH = {"epoch": 1, "loss": 1.0, "validation_loss": 2.0, "seconds": 0.1}
RECORD = {"epochs": 1, "best_epoch": 1, "history": [EPOCH], "fallback": None}


def archive() -> bytes:
    written = io.BytesIO()
    np.savez(written, **{"gaps/bias": np.ones(3, np.float32), "gaps/kernel": np.eye(9)})
    return written.getvalue()


FILES = {
    "result.json": json.dumps(RECORD).encode(),
    "result.npz": archive(),
    "network.keras": b"a network",
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def read(folder: Path, **other: bytes) -> TrainingResult:
    """What a folder with these files holds, some other than they should be."""
    for name, content in (FILES | {name.replace("_", "."): c for name, c in other.items()}).items():
        (folder / name).write_bytes(content)
    return TrainingResult.read(folder, 1.0)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_it_is_read_where_it_is_whole(folder: Path) -> None:
    assert read(folder).weights.keys() == {"gaps/bias", "gaps/kernel"}


def test_an_archive_that_is_cut_short_anywhere_is_named(folder: Path) -> None:
    """A disk that was full, or a power cut: BadZipFile, EOFError, ValueError."""
    whole = FILES["result.npz"]
    for length in range(0, len(whole), 13):
        with pytest.raises(TrainingError, match=r"no usable result, .*/result\.npz: \S"):
            read(folder, result_npz=whole[:length])


def kinds(folder: Path, name: str, contents: Iterator[bytes]) -> set[str]:
    """What reading each of these raises inside."""
    found = set()
    for content in contents:
        said: list[TrainingError] = []
        try:
            read(folder, **{name.replace(".", "_"): content})
        except TrainingError as error:
            said = [error]
        assert all(name in str(error) or "not finite" in str(error) for error in said)
        found |= {type(error.__cause__).__name__ for error in said}
    return found


def test_an_archive_with_a_flipped_bit_is_read_or_refused_by_name(folder: Path) -> None:
    whole = FILES["result.npz"]
    step = 31  # every bit of a byte comes in turn
    found = kinds(folder, "result.npz", (flipped(whole, n) for n in range(0, 8 * len(whole), step)))
    assert {"BadZipFile", "NotImplementedError", "ValueError"} <= found


def test_a_record_that_is_cut_short_anywhere_is_named(folder: Path) -> None:
    whole = FILES["result.json"]
    found = kinds(folder, "result.json", (whole[:length] for length in range(len(whole))))
    assert found == {"JSONDecodeError"}


@pytest.mark.parametrize(
    "record",
    ["null", "[]", "{}", "7", '"text"', "[" * 100_000, '{"history": 7}', '{"history": [7]}',
     '{"history": [{}]}', '{"history": []}', '{"history": [], "seconds": 1}', "\ud800"],
)  # fmt: skip
def test_a_record_of_another_form_is_named(folder: Path, record: str) -> None:
    with pytest.raises(TrainingError, match=r"no usable result, .*/result\.json: \S"):
        read(folder, result_json=record.encode(errors="surrogatepass"))


@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    for name in ("result.json", "result.npz"):
        with tempfile.TemporaryDirectory() as made, pytest.raises(TrainingError):
            read(Path(made), **{name.replace(".", "_"): content})


def unnamed(change: Callable[[bytes], bytes]) -> bytes:
    """The archive with something else in the first of its arrays."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive())) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)))
    return made.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[:5],
        lambda array: array[:-1],
        lambda array: array.replace(b"(3,)", b"(-3,)").replace(b"(9, 9)", b"(9,-9)"),
        lambda array: array.replace(b"'<f4'", b"'|O8'").replace(b"'<f8'", b"'|O8'"),
        lambda array: array.replace(b"(3,), }", b"(9**99,)").replace(b"(9, 9)", b"(9**9)"),
        lambda array: array.replace(b"(3,), }      ", b"(9999999999,),}").replace(
            b"NUMPY", b"NUMPI"
        ),
        lambda _: b"",
    ],
)
def test_an_archive_that_holds_other_arrays_is_named(
    folder: Path, change: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(TrainingError, match=r"no usable result, .*/result\.npz: \S"):
        read(folder, result_npz=unnamed(change))


def test_a_training_whose_result_is_cut_short_says_so(train: Train) -> None:
    cut = '(folder / "result.npz").write_bytes((folder / "result.npz").read_bytes()[:-30])'
    at = '    epoch = {"epoch": 1'
    with pytest.raises(TrainingError, match=r"no usable result, .*/job/result\.npz: File is not"):
        train(GOOD_CHILD.replace(at, f"    {cut}\n{at}"))
