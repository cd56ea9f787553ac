"""What the tests of pages rest on: the browser's console is heard, and a picture is read right."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from browser import look_at, needs_browser, read_png

PAGE = "<!doctype html><meta charset=utf-8><body style='margin:0;background:#fff'>{}</body>"


def written(folder: Path, body: str) -> Path:
    page = folder / "page.html"
    page.write_text(PAGE.format(body))
    return page


@pytest.mark.lengthy
@needs_browser
def test_what_is_drawn_is_seen(tmp_path: Path) -> None:
    body = "<div style='width:200px;height:150px;background:#1f5f8b'></div>"
    view = look_at(written(tmp_path, body), 400, 300)
    assert view.pixels.shape == (300, 400, 3)
    assert view.pixels[149, 199].tolist() == [0x1F, 0x5F, 0x8B]
    assert view.pixels[151, 199].tolist() == [255, 255, 255]
    assert view.share((0x1F, 0x5F, 0x8B)) == 0.25
    assert view.colours == 2
    assert view.console == ()


@pytest.mark.lengthy
@needs_browser
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("<script>nothing.there()</script>", "nothing is not defined"),
        ("<script>console.error('it is broken')</script>", "it is broken"),
        (
            "<script src='https://cdn.example.org/plotly.js'></script><script>Plotly.draw()</script>",
            "Plotly is not defined",
        ),
    ],
)
def test_what_is_broken_is_said_and_so_is_what_needs_another_page(
    tmp_path: Path, body: str, wanted: str
) -> None:
    view = look_at(written(tmp_path, body), 400, 300)
    assert wanted in "\n".join(view.console)
    assert view.colours == 1


def png(filtered: list[bytes], width: int, kind: int) -> bytes:
    """A picture of rows that are filtered already."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + b"crc_"

    header = struct.pack(">IIBBBBB", width, len(filtered), 8, kind, 0, 0, 0)
    data = zlib.compress(b"".join(filtered))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)


def test_every_filter_of_a_png_is_undone() -> None:
    rows = [bytes([kind, *range(10, 16)]) for kind in range(5)]
    pixels = read_png(png(rows, 2, 2))
    wanted = [
        [[10, 11, 12], [13, 14, 15]],
        [[10, 11, 12], [23, 25, 27]],  # and what is left of it
        [[20, 22, 24], [36, 39, 42]],  # and what is above
        [[20, 22, 24], [41, 44, 48]],  # and their mean
        [[30, 33, 36], [54, 58, 63]],  # and the nearest of left, above and the corner
    ]
    np.testing.assert_array_equal(pixels, wanted)
    assert read_png(png([bytes([0, *range(8)])], 2, 6)).tolist() == [[[0, 1, 2], [4, 5, 6]]]
