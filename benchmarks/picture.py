"""A line chart as an SVG file, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

COLOURS = ("#7f7f7f", "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 330, 64, 120, 34, 44


def line_chart(
    path: Path, title: str, x: np.ndarray, lines: Mapping[str, np.ndarray], x_name: str, y_name: str
) -> None:
    """Draw `lines` (N,) over rising `x` (N,); NaN breaks nothing, it is left out."""
    values = np.concatenate(list(lines.values()))
    low, high = np.nanmin(values), np.nanmax(values)
    across = LEFT + (x - x[0]) / (x[-1] - x[0]) * (WIDTH - LEFT - RIGHT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{escape(x_name)}</text>',
        f'<text x="8" y="{TOP - 4}">{escape(y_name)}</text>',
    ]

    def up(y: np.ndarray | float) -> np.ndarray | float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    for tick in np.linspace(low, high, 5):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" '
            f'stroke="#dddddd"/><text x="{LEFT - 6}" y="{up(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:+.0%}</text>'
        )
    for number in np.linspace(0, len(x) - 1, 6).astype(int):
        parts.append(
            f'<text x="{across[number]:.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{x[number]:,.0f}</text>'
        )
    for row, ((name, line), colour) in enumerate(zip(lines.items(), COLOURS, strict=False)):
        known = np.isfinite(line)
        points = " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(across[known], up(line[known]), strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{TOP + 12 + 18 * row}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    path.write_text("\n".join([*parts, "</svg>", ""]))
