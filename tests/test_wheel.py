"""What `python -m build` makes can be installed, and holds all that a user needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from places import ROOT

import lstm_model
from lstm_model.setup.scaffold import STRATEGY_FILES

pytestmark = pytest.mark.slow
NOT_SOURCE = ("__pycache__", ".git", ".venv*", ".demo", "*.egg-info", "build", "dist", "docs")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that was made of it."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "-o", folder, folder / "source"],
        check=True, capture_output=True, env=plain(),
    )  # fmt: skip
    return folder


def plain() -> dict[str, str]:
    """An environment in which this checkout is not on the way."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"])
def installed(request: pytest.FixtureRequest, built: Path, tmp_path_factory) -> Path:
    """The programs of an environment that has it, and of this one the libraries alone."""
    (package,) = built.glob(request.param)
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    programs = folder / "bin"
    ask = [programs / "python", "-c", "import sysconfig as s; print(s.get_path('purelib'))"]
    own = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet",
         "--no-deps", "--no-build-isolation", package],
        check=True, env=plain() | {"PYTHONPATH": sysconfig.get_path("purelib")},
    )  # fmt: skip
    libraries = sysconfig.get_path("purelib")
    (Path(own) / "libraries.pth").write_text(f"import sys; sys.path.append({libraries!r})\n")
    return programs


def run(programs: Path, folder: Path, *command: str) -> str:
    done = subprocess.run(
        [programs / command[0], *command[1:]], cwd=folder, env=plain(), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_has_one_place(built: Path) -> None:
    version = lstm_model.__version__
    assert sorted(path.name for path in built.glob("*.*")) == [
        f"lstm_model-{version}-py3-none-any.whl", f"lstm_model-{version}.tar.gz",
    ]  # fmt: skip
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_test_and_no_data_is_in_them(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed, tarfile.open(source) as archive:
        names = [*packed.namelist(), *(each.name for each in archive if each.isfile())]
    ends = {Path(name).suffix for name in names if "info/" not in name}
    assert not [name for name in names if "tests" in Path(name).parts]
    assert ends <= {".py", ".typed", ".json", ".jinja", ".css", ".md", ".toml", ".cfg", ".in", ""}


@pytest.mark.long
def test_a_user_of_it_can_begin(installed: Path, tmp_path: Path) -> None:
    said = run(installed, tmp_path, "freqtrade-lstm", "--version")
    assert said.split()[-1] == lstm_model.__version__
    (tmp_path / "user_data").mkdir()
    run(installed, tmp_path, "freqtrade-lstm", "init", "--userdir", "user_data")
    where = run(
        installed, tmp_path, "python", "-c",
        "import json, lstm_model.bot.forecasting as f, lstm_model.replay.report as r;"
        "print(json.dumps([f.__file__, r.__file__, r.render_html.__module__]))",
    )  # fmt: skip
    assert str(ROOT) not in where
    assert "environment" in json.loads(where)[0]
    listed = run(
        installed, tmp_path, "python", "-m", "freqtrade", "list-strategies", "-1",
        "--userdir", "user_data", "-c", "user_data/config.json",
    )  # fmt: skip
    assert {"LSTMStrategy", "EmaCross", "EmaCrossLSTM"} <= {*listed.split()}
    written = (tmp_path / "user_data" / "strategies").glob("*.py")
    assert {path.name for path in written} == {*STRATEGY_FILES}
