"""What nobody should find: odd values, and bytes, trees of JSON and arrays that are changed.

`tests/fuzz_store.py` and `tests/fuzz_inputs.py` let everything that reads such things read them.
What comes of it must be an answer or one of our named errors.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import shutil
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lstm_model.errors import LstmModelError

Case = Callable[[random.Random], str]

THEIRS = "The inplace keyword"  # how a warning begins that freqtrade causes in the pandas of now
RAM_DISK = Path("/dev/shm")  # noqa: S108 - nothing here has to last
ODD: list[Any] = [
    None, True, 0, -1, 2**63, 10**400, 0.5, 1e308, "", "a", "../../x", "\x00", "ab" * 16, [], [[]],
    [None], {}, {"a": 1}, [1, 2, 3], {"": []}, "NaN", -0.0, ["baseline"], "🦄", 1e-320,
]  # fmt: skip


def bytes_changed(content: bytes, draw: random.Random) -> bytes:
    """The content with some bytes flipped, cut, repeated, inserted or overwritten."""
    out, at = bytearray(content), draw.randrange(len(content))
    kind = draw.randrange(6)
    if kind == 0:
        out[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        del out[at : at + draw.randrange(1, 64)]
    elif kind == 3:
        out[at:at] = draw.randbytes(draw.randrange(1, 64))
    elif kind == 4:
        out[at : at + 16] = draw.choice([b"\0" * 16, b"[" * 50_000, b"9" * 5_000, b"{}", b"\xff"])
    else:
        return draw.randbytes(draw.randrange(200))
    return bytes(out)


def nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of JSON: what holds it, and its key or number."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in below:
        yield tree, key
        if isinstance(value, dict | list):
            yield from nodes(value)


def odd(draw: random.Random) -> Any:
    """One of the odd values, for the caller to change."""
    return copy.deepcopy(draw.choice(ODD))


def tree_changed(tree: Any, draw: random.Random) -> Any:
    """The tree with a value replaced, left out or added."""
    for _ in range(draw.choice([1, 1, 1, 3])):
        places = list(nodes(tree)) if isinstance(tree, dict | list) else []
        if not places:
            return odd(draw)
        holder, key = draw.choice(places)
        kind = draw.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(["newer", "", key])] = odd(draw)
        elif kind == 2 and isinstance(holder, list):
            holder.append(odd(draw))
        else:
            holder[key] = odd(draw)
    return tree


def array_changed(array: np.ndarray, draw: random.Random) -> np.ndarray:
    """An array of another length, kind, shape or content."""
    ways: list[Callable[[], np.ndarray]] = [
        lambda: array[:0], lambda: array.astype(np.float32), lambda: array[::-1],
        lambda: array.reshape(-1, 1), lambda: np.array("text"), lambda: array.astype(bool),
        lambda: np.full_like(array, -1), lambda: np.zeros((2, 0, 3)), lambda: np.array(1e300),
        lambda: np.concatenate([array, array]),
    ]  # fmt: skip
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return draw.choice(ways)()
    except (ValueError, IndexError):  # that one cannot be changed so
        return np.zeros(0)


def answers(act: Callable[[], Any]) -> Any:
    """What it answers; None where it names what is wrong."""
    with suppress(LstmModelError):
        return act()
    return None


@contextmanager
def threads_watched() -> Iterator[None]:
    """What ends a thread that nobody foresaw is raised here."""
    before, died = threading.excepthook, list[BaseException]()

    def note(args: Any) -> None:
        died.append(args.exc_value)

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before
    if died:
        raise died[0]


def each_case(case: Case, cases: int, seed: int, first: int = 0) -> Counter[str]:
    """Run so many cases, which each say their kind; how many there were of each."""
    told = Counter[str]()
    for number in range(first, first + cases):
        draw = random.Random(f"{seed} {number}")
        try:
            told[case(draw)] += 1
        except BaseException as error:
            error.add_note(f"case {number} of seed {seed}")
            raise
    return told


def timed(fuzz: Callable[[Path], Counter[str]]) -> None:
    """Run cases in a folder of their own, in memory where that can be; print what there was."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", THEIRS)
    parent = RAM_DISK if os.access(RAM_DISK, os.W_OK) else None
    folder, began_s = Path(tempfile.mkdtemp(prefix="fuzz-", dir=parent)), time.monotonic()
    try:
        print(dict(fuzz(folder)), f"{time.monotonic() - began_s:.0f} s")
    finally:
        shutil.rmtree(folder)


class Inputs:
    """Something from outside that is damaged anew in every case."""

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of what it has open."""

    def case(self, draw: random.Random) -> str:
        """Damage, have it read; the kind of the case."""
        raise NotImplementedError
