"""What we count on in libraries that promise nothing of it, and what would break without it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import reduce
from importlib import import_module


@dataclass(frozen=True)
class Promise:
    """Something is there by this name.

    Attributes
    ----------
    place : module and name in it, e.g. `freqtrade.worker:Worker.exit`
    would_break : without it
    takes : parameters that we give by name
    """

    place: str
    would_break: str
    takes: tuple[str, ...] = ()

    def broken(self) -> str:
        """What of it does not hold, in a line; "" if all does."""
        module, _, names = self.place.partition(":")
        library, breaks = module.split(".")[0], f"{self.would_break} would break"
        try:
            found = reduce(getattr, names.split("."), import_module(module))
        except ImportError:
            return f"{library}'s {module} is gone: {breaks}"
        except AttributeError:
            return f"{library}'s {module} no longer has {names}: {breaks}"
        known = inspect.signature(found).parameters if self.takes else {}
        lacking = [name for name in self.takes if name not in known]
        if lacking and "kwargs" not in known:
            return f"{library}'s {names} no longer takes {', '.join(lacking)}: {breaks}"
        ours = {*self.takes, "self", "cls"}
        new = [name for name, each in known.items() if is_needed(each) and name not in ours]
        if new:
            return f"{library}'s {names} wants {', '.join(new)} as well: {breaks}"
        return ""


def is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a call has to give it."""
    optional = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in optional
