"""Why memory is not given back: what libraries keep of it, and who holds an object."""

from __future__ import annotations

import ctypes
import gc
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import FrameType, ModuleType
from typing import Any

_FAR = 10  # chosen: steps from an object to what holds it
_NAMES = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
    "keepcost",
)  # fmt: skip


class _Heap(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES]


def heap_megabytes() -> tuple[float, float]:
    """What glibc has given out, and what was freed of its parts (10^6 bytes).

    `malloc_trim` gives back pages of the second, which counts on: resident memory says how many.
    """
    look = ctypes.CDLL(None).mallinfo2
    look.restype = _Heap
    found = look()
    return (found.uordblks + found.hblkhd) / 1e6, found.fordblks / 1e6


def holders(thing: object, most: int = 5) -> list[str]:
    """Ways from an object to what keeps it: a module, a record of the log, a running task.

    Nothing where it is garbage that `gc.freeze` hides. It ends that hiding.
    """
    gc.unfreeze()
    return list(islice(_ways(thing), most))


def _ways(thing: object) -> Iterator[str]:
    known = {id(thing)}
    found: deque[tuple[object, str]] = deque([(thing, type(thing).__name__)])
    known |= {id(known), id(found)}
    while found:
        held, way = found.popleft()
        for holder in gc.get_referrers(held):
            if id(holder) in known or _is_ours(holder):
                continue
            known.add(id(holder))
            further = f"{way} <- {_name(holder)}"
            if isinstance(holder, ModuleType) or type(holder).__name__ in ("LogRecord", "Task"):
                yield further
            elif further.count(" <- ") < _FAR:
                found.append((holder, further))


def _is_ours(holder: object) -> bool:
    return isinstance(holder, FrameType) and holder.f_code.co_filename == __file__


def _name(holder: Any) -> str:
    if isinstance(holder, FrameType):
        return f"{holder.f_code.co_qualname}:{holder.f_lineno}"
    if type(holder).__name__ == "LogRecord":
        return f"the log: {holder.getMessage()[:80]}"
    return getattr(holder, "__name__", "") or type(holder).__name__
