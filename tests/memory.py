"""Memory as glibc keeps it: freed by the process, and still not the system's."""

from __future__ import annotations

import numpy as np
import psutil


def work_and_keep_a_little(times: int) -> list[np.ndarray]:
    """What is left (a tenth) of pieces of work that took 1 MB each, one behind the other.

    Between the pieces that are left, glibc keeps all that was freed.
    """
    pieces = [
        (np.ones(100_000, np.uint8), [np.ones(9_000, np.uint8) for _ in range(100)])
        for _ in range(times)
    ]
    return [left for left, _ in pieces]


def megabytes() -> float:
    """Resident memory of this process, 10^6 bytes."""
    return float(psutil.Process().memory_info().rss / 1e6)
