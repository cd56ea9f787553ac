"""What a user's strategy answers, where one of our mixins stands in front of it.

`class Safer(LSTMRisk, Theirs)`: freqtrade asks ours, ours asks theirs first, by keyword as
freqtrade does, so that every signature that freqtrade takes is taken here. What theirs says is the
most that ours may answer; ours only bounds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from inspect import getfullargspec
from typing import Any, TypeVar

from freqtrade.exceptions import OperationalException
from freqtrade.strategy import IStrategy

from lstm_model.bot import insides

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def or_else(work: Callable[..., Answer], otherwise: Answer) -> Callable[..., Answer]:
    """The work; with freqtrade's own guard, which logs any failure, the answer that then counts."""
    return insides.guarded(work, otherwise)


def hears_fills(custom_stoploss: Callable[..., Any]) -> bool:
    """Whether freqtrade would ask theirs after a fill, too: decided by its signature, as there."""
    is_theirs = not insides.hears_no_fills(custom_stoploss)
    return is_theirs and "after_fill" in getfullargspec(custom_stoploss).args


def assign(strategy: object, name: str, value: Any) -> None:
    """Set an attribute of freqtrade's, unless theirs is a property: that stays as it is."""
    if not isinstance(getattr(type(strategy), name, None), property):
        setattr(strategy, name, value)


def unasked(strategy: type, mixin: type) -> list[str]:
    """Methods of the mixin that a strategy has in its place, without asking it or using its own.

    Whoever writes `super()` or anything that begins with `lstm_` knows that it is there.
    """
    mine = {name for name, known in vars(mixin).items() if callable(known) and name[0] != "_"}
    order = strategy.__mro__
    return [
        f"{cls.__name__}.{name}"
        for cls in order[: order.index(mixin)]
        for name in sorted(mine & vars(cls).keys())
        if not _knows_of_us(vars(cls)[name])
    ]


def way_out(strategy: type, mixin: type) -> str:
    """What to do about methods that are `unasked`.

    Whoever has the mixin in front already cannot put it there once more: Python finds no order.
    """
    own, behind = "call super() of the same name", strategy.__bases__[1:]
    if strategy.__bases__[0] is not mixin or not behind:
        return own
    name, others = strategy.__name__, ", ".join(base.__name__ for base in behind)
    return (
        f"{own}, or let {name} inherit from {others} alone and write "
        f"class Safer({mixin.__name__}, {name})"
    )


def _knows_of_us(method: Any) -> bool:
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    names = code.co_names if code else ()
    return any(name == "super" or name.startswith("lstm_") for name in names)


def check_order(strategy: type, mixin: type) -> None:
    """Refuse a strategy in front of the mixin: it would answer in our place and never ask.

    Raises
    ------
    OperationalException
        Says how to write it.
    """
    order = strategy.__mro__
    before = [
        cls for cls in order[: order.index(mixin)]
        if issubclass(cls, IStrategy) and not issubclass(cls, mixin)
    ]  # fmt: skip
    if before:
        names = ", ".join(cls.__name__ for cls in before)
        raise OperationalException(
            f"{strategy.__name__}: {mixin.__name__} must stand in front of {names}: "
            f"class {strategy.__name__}(LSTMRisk, {names})"
        )


def merged_plot(theirs: Any, ours: Mapping[str, Any]) -> dict[str, Any]:
    """A plot configuration with what both show; where names meet, theirs stays."""
    known = theirs if isinstance(theirs, Mapping) else {}
    return {
        part: {**(ours.get(part) or {}), **(known.get(part) or {})}
        for part in dict.fromkeys((*known, *ours))
    }


class Said:
    """Tells the user once what of theirs was bounded, in a study and in a bot."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, what: str, text: str, *numbers: Any) -> None:
        """`what` is said once; `text` and numbers as for a logger."""
        if what not in self._said:
            self._said.add(what)
            logger.info(f"{text}; said once", *numbers)
