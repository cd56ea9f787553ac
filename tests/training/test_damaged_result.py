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
from lstm_reference import random_weights
from test_trainer import GOOD_CHILD, Train, make_job, train, trainer

from lstm_model.errors import TrainingError
from lstm_model.model.weights import is_trained, numbered
from lstm_model.settings import DEFAULT_LEVELS
from lstm_model.training.job import Progress, TrainingResult, check_network

__all__ = ["train", "trainer"]  # two fixtures

EPOCH = {"epoch": 1, "loss": 1.0, "validation_loss": 2.0, "seconds": 0.1}
RECORD = {"epochs": 1, "best_epoch": 1, "history": [EPOCH], "fallback": None}


def archive() -> bytes:
    written = io.BytesIO()
    np.savez(written, **{"gaps/bias": np.ones(3, np.float32), "gaps/kernel": np.eye(9)})
    return written.getvalue()


FEATURES = make_job().rows.shape[1]
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


@pytest.mark.lengthy
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


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"epochs": "1"}, "epochs"), ({"epochs": -1}, "epochs"), ({"best_epoch": None}, "best_epoch"),
     ({"fallback": []}, "fallback"), ({"initial_loss": "x"}, "initial_loss"),
     ({"newer": 1}, "newer"), ({"history": [EPOCH | {"loss": "x"}]}, "history.0.loss"),
     ({"history": [EPOCH | {"epoch": 1.5}]}, "history.0.epoch")],
)  # fmt: skip
def test_a_record_with_a_value_of_another_kind_is_named(
    folder: Path, changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(TrainingError, match=rf"no usable result, .*result\.json: .*{problem}") as e:
        read(folder, result_json=json.dumps(RECORD | changes).encode())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("array", [np.array(1 + 1j), np.array(["a"]), np.arange(3), np.array(True)])
def test_arrays_of_anything_but_floats_are_named(folder: Path, array: np.ndarray) -> None:
    written = io.BytesIO()
    np.savez(written, **{"gaps/bias": array})
    with pytest.raises(TrainingError, match="no numbers with a fraction: gaps/bias"):
        read(folder, result_npz=written.getvalue())


def test_a_weight_beyond_float32_is_not_finite(folder: Path) -> None:
    written = io.BytesIO()
    np.savez(written, **{"gaps/bias": np.array([1e300])})
    with pytest.raises(TrainingError, match="not finite: gaps/bias"):
        read(folder, result_npz=written.getvalue())


def test_a_folder_in_the_place_of_the_network_is_named(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        read(Path(made))
        (Path(made) / "network.keras").unlink()
        (Path(made) / "network.keras").mkdir()
        with pytest.raises(TrainingError, match=r"network\.keras: "):
            TrainingResult.read(Path(made), 1.0)


@pytest.mark.parametrize(
    "message",
    [{"fraction": "half"}, {"fraction": 2.0}, {"epoch": 1.5}, {"stage": 1}, {"stage": None},
     {"eta_s": [1]}, {"steps": -1}, {"step": 10**400}, {"loss": True}, {}, {"done": 1}],
)  # fmt: skip
def test_what_a_child_tells_is_progress_only_if_all_of_it_is(message: dict[str, object]) -> None:
    assert Progress.of({"stage": "training", "fraction": 0.5}) == Progress("training", fraction=0.5)
    assert Progress.of({**message}) is None


WHOLE = random_weights(FEATURES, 4, len(DEFAULT_LEVELS), layers=1)
TRAINED = {name: array for name, array in WHOLE.items() if is_trained(name)}


def fitted(weights: dict[str, np.ndarray]) -> TrainingResult:
    result = TrainingResult(weights, Path("network.keras"), 1, 1, (), None, 1.0)
    return check_network(make_job(), result)


@pytest.mark.parametrize("count", [1, 2])
def test_networks_that_fit_the_job_are_taken(count: int) -> None:
    both = {**TRAINED, **numbered(TRAINED, 2)} if count == 2 else TRAINED
    assert fitted(both).weights == both


@pytest.mark.parametrize(
    "weights",
    [WHOLE | {"scaler/mean": np.zeros(1)}, {**TRAINED, "mean/bias": np.zeros((2, 1))},
     {}, {"": WHOLE["gaps/bias"]}, {**TRAINED, "a": np.zeros(1)}, {**TRAINED, "x/y": np.zeros(1)},
     {**TRAINED, "99999999999/gaps/bias": np.zeros(1)}, {**TRAINED, "2/gaps/bias": np.zeros(1)},
     {**TRAINED, "²/gaps/bias": np.zeros(1)}, {**TRAINED, "gaps/bias": np.zeros(4)},
     {**TRAINED, "lstm_1/kernel": np.zeros((FEATURES + 1, 16))},
     {**TRAINED, "lstm_1/bias": np.zeros(())}, numbered(TRAINED, 2),
     {name: array for name, array in TRAINED.items() if name != "gaps/kernel"}],
)  # fmt: skip
def test_what_is_no_network_for_the_job_is_refused(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(TrainingError, match="the training left no network that fits: "):
        fitted(weights)


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
