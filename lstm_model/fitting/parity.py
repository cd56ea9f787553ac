"""Where it is remembered that the fused kernel equals Keras, so that it is compared once.

What was found holds for one shape of network, one TensorFlow, one machine and one version of our
kernel. Only that it *is* equal is remembered: a difference is looked for again every time.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

_CPU = Path("/proc/cpuinfo")
_TELLING = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")


class Parity:
    """Remembers in a folder, made when first written; one that cannot be written forgets.

    Examples
    --------
    >>> import tempfile
    >>> parity = Parity(Path(tempfile.mkdtemp()) / "parity")
    >>> parity.is_known({"units": 24}), parity.remember({"units": 24})
    (False, None)
    >>> parity.is_known({"units": 24}), parity.is_known({"units": 25})
    (True, False)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def at(cls, folder: str | None) -> Self | None:
        """That of a job's options."""
        return None if folder is None else cls(Path(folder))

    def is_known(self, network: Mapping[str, Any]) -> bool:
        """Whether the kernel was found equal for this network, on this machine."""
        return self._file(network).is_file()

    def remember(self, network: Mapping[str, Any]) -> None:
        """It was found equal."""
        with suppress(OSError):  # then it is compared again
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(network).write_text(_canonical(network) + "\n")

    def _file(self, network: Mapping[str, Any]) -> Path:
        seen = f"{_canonical(network)}\n{machine()}"
        return self._folder / f"{hashlib.sha256(seen.encode()).hexdigest()[:32]}.json"


def _canonical(network: Mapping[str, Any]) -> str:
    return json.dumps(network, sort_keys=True)


@cache
def machine() -> str:
    """What can decide which kernels a library chooses on this machine."""
    with suppress(OSError):
        known = dict(line.split("\t", 1) for line in _CPU.read_text().splitlines() if "\t" in line)
        return repr([(name, known.get(name)) for name in _TELLING])
    return f"{platform.machine()} {platform.processor()}"
