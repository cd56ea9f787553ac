"""What a user's strategy answers, where one of our mixins stands in front of it.

`class Safer(LSTMRisk, Theirs)`: freqtrade asks ours, ours asks theirs first, by keyword as
freqtrade does, so that every signature that freqtrade takes is taken here. What theirs says is the
most that ours may answer; ours only bounds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, TypeVar, cast

from freqtrade.exceptions import OperationalException
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def or_else(work: Callable[..., Answer], otherwise: Answer) -> Callable[..., Answer]:
    """The work; with freqtrade's own guard, which logs any failure, the answer that then counts."""
    return cast(Callable[..., Answer], strategy_safe_wrapper(work, default_retval=otherwise))


def hears_fills(custom_stoploss: Callable[..., Any]) -> bool:
    """Whether freqtrade would ask it after a fill: by its signature, as freqtrade decides it."""
    return "after_fill" in signature(custom_stoploss).parameters


def check_order(strategy: type, mixin: type) -> None:
    """Refuse a strategy in front of the mixin: it would answer in our place and never ask.

    Raises
    ------
    OperationalException
        Says how to write it.
    """
    order = strategy.__mro__
    before = [cls for cls in order[: order.index(mixin)] if not issubclass(cls, mixin)]
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
        part: {**ours.get(part, {}), **known.get(part, {})}
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
