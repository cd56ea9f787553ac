"""A processor that TensorFlow is not built for, in earnest: an emulated one without AVX."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest
from test_trainer import make_job

from lstm_model.errors import TrainingError
from lstm_model.training.trainer import Trainer

EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        EMULATOR is None or platform.machine() != "x86_64",
        reason="needs qemu-user, and a Python for x86-64",
    ),
]


def test_a_processor_without_avx_is_named_as_the_cause(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nexec {EMULATOR} -cpu Nehalem {sys.executable} "$@"\n')
    old.chmod(0o755)
    settings = make_job().settings.model_copy(update={"train_python": str(old)})
    with pytest.raises(TrainingError) as caught:
        Trainer().run(make_job(settings=settings), tmp_path / "job", background=False)
    first = str(caught.value).splitlines()[0]
    assert "the training process was ended by SIGILL" in first
    assert "TensorFlow is built for instructions that this processor does not have" in first
    assert "run the bot on another computer" in first
