"""Takes out of texts what is nobody's business: the one place that knows secrets by their names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

_MASK = "***"
_SHORT = 4  # chosen: what is shorter is masked where it stands alone, not inside other words
_NAMES = re.compile(
    r"(^|_|api|private|secret|access)(key|secret|password|passwd|passphrase|token|uid|account_id|wallet_address|chat_id"
    r"|authorization|authorized_users|webhook_url|twofa)s?$"
)
_IN_ADDRESS = (
    (re.compile(r"(://[^/\s:@]*:)\S+@"), rf"\1{_MASK}@"),
    (re.compile(r"([?&][^=&\s]*(?:pass|pwd|secret|token|key)[^=&\s]*=)[^&\s\"']+", re.I),
     rf"\1{_MASK}"),
)  # fmt: skip


class Discretion:
    """Takes out of texts what is nobody's business: secrets of a configuration, the home folder.

    Parameters
    ----------
    config : where keys, passwords and tokens are by the names of their options
    home : shown as "~"

    Examples
    --------
    >>> config = {"telegram": {"token": "12:abcdef"}, "db_url": "postgresql://me:pw12@host/db"}
    >>> discretion = Discretion(config, Path("/home/me"))
    >>> discretion.of("/home/me/x sent 12:abcdef to http://a:b@host, pw12")
    '~/x sent *** to http://a:***@host, ***'
    """

    def __init__(self, config: Mapping[str, Any], home: Path) -> None:
        forms = {form for secret in _secrets(config) for form in _forms(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        alone = (rf"(?<!\w){re.escape(form)}(?!\w)" for form in longest_first if len(form) < _SHORT)
        whole = (re.escape(form) for form in longest_first if len(form) >= _SHORT)
        pattern = "|".join([*whole, *alone])
        self._secrets = re.compile(pattern) if pattern else None
        folder = str(home)
        self._home = re.compile(rf"((?<=///)|(?<![\w./-])){re.escape(folder)}(?![\w.-])")
        self._quoted_home = re.compile(rf"'{re.escape(folder)}(?:/([^'`]*))?'(?=[ `]|$)")
        self._has_home = len(folder) > 1

    @classmethod
    def of_part(cls, part: Any, path: Sequence[str | int]) -> Self:
        """For what stands at this place of a configuration; the home folder is left as it is."""
        for name in reversed(path):
            part = {str(name): part}
        return cls(part if isinstance(part, Mapping) else {}, Path("/"))

    @classmethod
    def of_home(cls, config: Mapping[str, Any]) -> Self:
        """For this user, who may have no home."""
        try:
            return cls(config, Path.home())
        except RuntimeError:
            return cls(config, Path("/"))

    def of(self, text: str) -> str:
        """The text without them."""
        for pattern, shown in _IN_ADDRESS:
            text = pattern.sub(shown, text)
        if self._secrets:
            text = self._secrets.sub(_MASK, text)
        if self._has_home:
            text = self._home.sub("~", self._quoted_home.sub(_unquoted_home, text))
        return text


def _unquoted_home(word: re.Match[str]) -> str:
    """For a shell: in quotes it would take the tilde for a name of a folder."""
    return "~" if word[1] is None else f"~/{shlex.quote(word[1])}"


def _secrets(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every text and number that the name of its option, or an address, makes a secret."""
    if isinstance(value, Mapping):
        for name, inside in value.items():
            yield from _secrets(inside, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _secrets(inside, path)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        if _is_secret(path):
            yield str(value)
        elif isinstance(value, str):
            yield from _in_address(value)


def _is_secret(path: tuple[str, ...]) -> bool:
    """Whatever stands below a secret's name is one: it may have been written in the wrong shape."""
    names = (re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", name).lower() for name in path)
    return (
        any(map(_NAMES.search, names))
        or ("webhook", "url") in pairwise(path)
        or "headers" in path[:-1]
    )


def _in_address(text: str) -> Iterator[str]:
    if "://" not in text:
        return
    try:
        address = urlsplit(text)
        password = address.password
    except ValueError:  # no address after all
        return
    if password:
        yield from (password, unquote(password))
    for name, value in parse_qsl(address.query):
        if re.search("pass|pwd|secret|token|key", name, re.I):
            yield value


def _forms(secret: str) -> Iterator[str]:
    """As it stands, as it travels in an address, and as it is quoted in a message."""
    if secret.strip():
        yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
        yield repr(secret)[1:-1]
