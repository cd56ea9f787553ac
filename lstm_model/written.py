"""Files of ours in a user's folder: which version wrote one, and whether the user changed it since.

The first line says both, as a comment.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lstm_model import __version__

_LINE = re.compile(
    rb"# lstm-model (?P<version>[\w.+-]+) wrote this, sum (?P<sum>[0-9a-f]{16})[^\n]*\n"
)
_HINT = "`freqtrade-lstm init` renews it unless you change it"


class Signature(NamedTuple):
    """What the first line of a file of ours says.

    Attributes
    ----------
    version : of this package, that wrote it
    untouched : it is as it was written
    """

    version: str
    untouched: bool


def signed(content: bytes) -> bytes:
    """The content below a line that says who wrote it.

    Examples
    --------
    >>> signature(signed(b"x = 1\\n"))
    Signature(version='...', untouched=True)
    >>> signature(signed(b"x = 1\\n") + b"y = 2\\n").untouched
    False
    """
    head = f"# lstm-model {__version__} wrote this, sum {_sum(content)}; {_HINT}\n"
    return head.encode() + content


def signature(content: bytes) -> Signature | None:
    """What its first line says; None where it is none of ours.

    Line ends that an editor or a version control changed are no change.
    """
    plain = content.replace(b"\r\n", b"\n")
    if (line := _LINE.match(plain)) is None:
        return None
    untouched = _sum(plain[line.end() :]).encode() == line["sum"]
    return Signature(line["version"].decode(), untouched)


def outdated(strategy: type) -> Iterator[str]:
    """What is to be said of files of an older version, that a strategy or one it is made of is in.

    Parameters
    ----------
    strategy : a class, as freqtrade has loaded it
    """
    for kind in strategy.__mro__:
        path = _file_of(kind)
        if path is not None and (text := outdated_file(path)):
            yield text


def outdated_file(path: Path) -> str:
    """The same of one file; "" of one that is as new, none of ours, or cannot be read."""
    try:
        found = signature(path.read_bytes())
    except OSError:
        return ""
    if found is None or not is_older(found.version):
        return ""
    said = f"{path} was written by lstm-model {found.version} and {__version__} is installed"
    if path.parent.name != "strategies":  # where `init` writes
        return f"{said}: compare it with what `freqtrade-lstm init` writes into another folder"
    beside = "" if found.untouched else "; yours was changed, so the new one is put beside it"
    return (
        f"{said}: run `freqtrade-lstm init --userdir {shlex.quote(str(path.parents[1]))}`{beside}"
    )


def _file_of(kind: type) -> Path | None:
    """Where a class stands; freqtrade writes it into those that it loads."""
    noted = vars(kind).get("__file__")
    try:
        return Path(noted or inspect.getfile(kind))
    except (OSError, TypeError):
        return None


def is_older(version: str) -> bool:
    """Whether a file of that version is older than this installation.

    Examples
    --------
    >>> is_older("0.0.9"), is_older(__version__), is_older("99.0")
    (True, False, False)
    """
    return _numbers(version) < _numbers(__version__)


def is_newer(version: str) -> bool:
    """Whether it is newer."""
    return _numbers(version) > _numbers(__version__)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
