"""The book of intents: what was about to be sent, on disk before it is sent.

A small file, replaced whole. A kill at any moment leaves the book with the intent or without it;
without it nothing was sent either.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lstm_model.errors import StoreError
from lstm_model.files import exclusive, write_atomically

_FORM = 1


@dataclass(frozen=True)
class Intent:
    """An entry or an addition that was about to be sent.

    Attributes
    ----------
    side : 1 long, -1 short
    amount, rate : base currency, and quote per base
    time_ms : when; UTC milliseconds
    orders : how many entries and additions the trade had that it adds to; 0 for a new one
    """

    pair: str
    side: int
    amount: float
    rate: float
    time_ms: int
    orders: int = 0

    @property
    def exposure(self) -> float:
        """Quote currency that it puts at stake, shorts below zero."""
        return self.side * self.amount * self.rate


@dataclass(frozen=True)
class Refusals:
    """Entries in a row that came to nothing: how many, and until when none is sent."""

    count: int
    until_ms: int


@dataclass(frozen=True)
class Page:
    """All that the book holds, by pair.

    Attributes
    ----------
    kept : what is held and none of the bot's business, base currency, shorts below zero
    keeps : whether what is held at a pair's first look is; not after the page was lost
    """

    intents: Mapping[str, Intent] = field(default_factory=dict)
    refusals: Mapping[str, Refusals] = field(default_factory=dict)
    kept: Mapping[str, float] = field(default_factory=dict)
    keeps: bool = True

    def first_looks(self, pairs: Collection[str]) -> list[str]:
        """Those of `pairs` of which what is held, on spot, becomes the user's own by a look."""
        return [it for it in pairs if self.keeps and it not in self.kept and it not in self.intents]


class Book:
    """The page on disk of one bot; two processes may write it, each change whole.

    Parameters
    ----------
    path : of the file; its folder is made

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     book = Book(Path(folder) / "bot.json")
    ...     _ = book.change(intents={"BTC/USDT": Intent("BTC/USDT", 1, 0.5, 100.0, 0)})
    ...     Book(Path(folder) / "bot.json").read().intents["BTC/USDT"].exposure
    50.0
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Page:
        """What is on disk; an empty page where there is no file.

        Raises
        ------
        StoreError
            If it cannot be read or is damaged: what was about to be sent is not known then.
        """
        try:
            return _page(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return Page()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(f"the book of orders {self.path} cannot be read: {error}") from None

    def change(self, **parts: Any) -> Page:
        """Replace parts of the page; returns what is on disk now.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        with exclusive(self.path.with_suffix(".lock")):
            return self._write(replace(self.read(), **parts))

    def settle(self, pair: str, intent: Intent | None, kept: float | None = None) -> Page:
        """What became of a pair's order is known: nothing waits for that any more.

        Parameters
        ----------
        intent : as it was seen; a newer one stays
        kept : what is held and none of the bot's business from now on, base currency

        Raises
        ------
        StoreError
            If it cannot be read or written.
        """
        with exclusive(self.path.with_suffix(".lock")):
            page = self.read()
            intents = {it.pair: it for it in page.intents.values() if it != intent}
            refusals = {name: known for name, known in page.refusals.items() if name != pair}
            own = page.kept if kept is None else {**page.kept, pair: kept}
            return self._write(replace(page, intents=intents, refusals=refusals, kept=own))

    def _write(self, page: Page) -> Page:
        write_atomically(self.path, json.dumps({"form": _FORM, **asdict(page)}).encode())
        return page

    def set_aside(self) -> Path:
        """Move a damaged file out of the way; returns where to."""
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
        except OSError as error:
            raise StoreError(f"the book of orders {self.path} cannot be moved: {error}") from None
        return aside


def _page(found: dict[str, Any]) -> Page:
    if found["form"] != _FORM:
        raise ValueError(f"it has form {found['form']}, known is {_FORM}")
    return Page(
        {str(pair): _intent(known) for pair, known in found["intents"].items()},
        {
            str(pair): Refusals(int(known["count"]), int(known["until_ms"]))
            for pair, known in found["refusals"].items()
        },
        {str(pair): float(amount) for pair, amount in found["kept"].items()},
        bool(found["keeps"]),
    )


def _intent(known: dict[str, Any]) -> Intent:
    return Intent(
        str(known["pair"]), 1 if known["side"] > 0 else -1, float(known["amount"]),
        float(known["rate"]), int(known["time_ms"]), int(known["orders"]),
    )  # fmt: skip
