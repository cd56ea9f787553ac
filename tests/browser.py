"""A real browser looks at a page: what it draws, and what its console says. Chromium, headless."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser on this machine: apt-get install chromium"
)
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-device-scale-factor=1", "--virtual-time-budget=10000",
    "--enable-logging=stderr", "--v=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # a page of ours needs no other
)  # fmt: skip
_SAID = re.compile(r":CONSOLE[:(]\d+\)?\] (.*)")


@dataclass(frozen=True)
class View:
    """A page as it was seen.

    Attributes
    ----------
    pixels : (H, W, 3) uint8, red, green, blue
    console : what the browser wrote into its console: errors, and what scripts say
    """

    pixels: np.ndarray
    console: tuple[str, ...]

    @cached_property
    def colours(self) -> int:
        """How many different ones there are."""
        wide = self.pixels.astype(np.uint32) @ np.array([65_536, 256, 1], np.uint32)
        return len(np.unique(wide))

    def share(self, colour: tuple[int, int, int], near: int = 3) -> float:
        """Of all pixels those of this colour."""
        apart = np.abs(self.pixels.astype(np.int16) - np.array(colour, np.int16)).max(axis=2)
        return float((apart <= near).mean())


def look_at(page: Path, width: int = 1_000, height: int = 900) -> View:
    """Open a file in a browser that is offline, and take a picture of its window."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        picture = Path(folder) / "window.png"
        done = subprocess.run(
            [CHROMIUM, *_QUIET, f"--user-data-dir={folder}/profile",
             f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri()],
            capture_output=True, text=True, errors="replace", timeout=120, check=False,
        )  # fmt: skip
        assert picture.exists(), done.stderr[-2_000:]
        return View(read_png(picture.read_bytes()), tuple(_SAID.findall(done.stderr)))


def over(below: tuple[int, int, int], colour: tuple[int, int, int], alpha: float) -> tuple:
    """A colour that shines through."""
    return tuple(
        round(a + (b - a) * alpha) for a, b in zip(below, colour, strict=True)
    )  # fmt: skip


def read_png(data: bytes) -> np.ndarray:
    """The pixels (H, W, 3) of a PNG of eight bits a channel, with or without transparency."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + length]
        at += length + 12
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, interlaced) == (8, 0)
    step = {2: 3, 6: 4}[colour]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    rows = np.zeros((height + 1, width * step), np.uint8)
    for number, line in enumerate(lines):
        rows[number + 1] = _unfiltered(int(line[0]), line[1:], rows[number], step)
    return rows[1:].reshape(height, width, step)[:, :, :3]


def _unfiltered(kind: int, line: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """A row of a PNG before its filter: none, left, above, their mean, or Paeth's choice."""
    if kind == 0:
        return line
    if kind == 1:
        return np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return line + above
    left, corner = [0] * step, [0] * step
    made = bytearray()
    for at, (value, up) in enumerate(zip(line.tolist(), above.tolist(), strict=True)):
        a, c = left[at % step], corner[at % step]
        guess = (a + up) // 2 if kind == 3 else _paeth(a, up, c)
        left[at % step], corner[at % step] = (value + guess) & 255, up
        made.append(left[at % step])
    return np.frombuffer(bytes(made), np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner
