"""What the pairs of an exchange are called."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

PLAIN_PAIR = re.compile(r"[\w.-]+/[\w.:-]+")  # a whitelist may hold patterns of names instead


def _plain(pair: str) -> str:
    if not PLAIN_PAIR.fullmatch(pair):
        raise ValueError('must be called like "BTC/USDT", or "BTC/USDT:USDT" on futures')
    return pair


def _each_once(pairs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pairs))  # as freqtrade has a whitelist


Pair = Annotated[str, AfterValidator(_plain)]
Pairs = Annotated[tuple[Pair, ...], AfterValidator(_each_once)]
