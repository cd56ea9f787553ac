"""A strategy file that `init` wrote says so, and a newer installation says that it is older."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from lstm_model import __version__
from lstm_model.written import outdated, signature, signed

SOURCE = b"class Base: ...\n\n\nclass Mine(Base): ...\n"


def loaded(path: Path) -> type:
    """The class `Mine` of a file, as freqtrade loads it: the module is in no list."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Mine.__file__ = str(path)
    return module.Mine  # type: ignore[no-any-return]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "my data" / "strategies").mkdir(parents=True)
    return tmp_path / "my data" / "strategies" / "mine.py"


def written_by(version: str, path: Path) -> Path:
    path.write_bytes(signed(SOURCE).replace(__version__.encode(), version.encode(), 1))
    return path


def test_of_an_older_version_it_is_said_how_to_renew_it(path: Path) -> None:
    (said,) = outdated(loaded(written_by("0.0.9", path)))
    assert said == (
        f"{path} was written by lstm-model 0.0.9 and {__version__} is installed: run "
        f"`freqtrade-lstm init --userdir '{path.parents[1]}'`"
    )


def test_of_one_that_was_changed_it_is_said_that_it_stays(path: Path) -> None:
    kind = loaded(written_by("0.0.9", path))
    path.write_bytes(path.read_bytes() + b"# mine\n")
    (said,) = outdated(kind)
    assert said.endswith("; yours was changed, so the new one is put beside it")


def test_elsewhere_than_where_init_writes_it_is_not_sent_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (said,) = outdated(loaded(written_by("0.0.9", tmp_path / "mine" / "mine.py")))
    assert "--userdir" not in said
    assert said.endswith("compare it with what `freqtrade-lstm init` writes into another folder")


@pytest.mark.parametrize("version", [__version__, "99.0.0"])
def test_of_one_that_is_as_new_nothing_is_said(path: Path, version: str) -> None:
    assert list(outdated(loaded(written_by(version, path)))) == []


def test_nor_of_one_that_is_none_of_ours_or_gone(path: Path) -> None:
    path.write_bytes(SOURCE)
    kind = loaded(path)
    assert list(outdated(kind)) == []
    path.unlink()
    assert list(outdated(kind)) == []
    assert list(outdated(int)) == []


@pytest.mark.parametrize(
    "content", [b"", b"# lstm-model", b"\xff\xfe", SOURCE, b"# lstm-model 1 wrote this, sum x\n"]
)
def test_what_is_not_signed_has_no_signature(content: bytes) -> None:
    assert signature(content) is None


def test_line_ends_are_no_change() -> None:
    assert signature(signed(SOURCE).replace(b"\n", b"\r\n")) == (__version__, True)
