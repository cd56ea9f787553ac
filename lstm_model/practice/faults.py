"""What goes wrong between a market's truth and a client, on purpose: a description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from lstm_model.errors import ConfigError

_PAIRS = {"silence": "every_s:for_s", "slow_reader": "every_s:for_s",
          "duplicates": "fraction:within_s", "reorder": "fraction:within_s"}  # fmt: skip
_FRACTIONS = ("gaps", "malformed", "rest_429", "rest_5xx", "rest_hole")
_SECONDS = ("drop", "disconnect", "oversized", "slow_client")
_LONGEST_S = 1e8  # chosen: three years


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Everything is off by default and can be combined.

    Attributes
    ----------
    drop, disconnect : seconds after which every connection is cut, without or with a close frame
    silence : (every_s, for_s); the last `for_s` of each `every_s` of a connection bring pongs but
        no data, and what happened meanwhile is never sent
    duplicates : (fraction, within_s) of the trades that are sent again, up to `within_s` later
    reorder : (fraction, within_s) of the trades that are held back while others overtake them
    gaps : fraction of the trades that are never sent
    malformed : fraction of the trades with a broken frame before, or with `malformed_replaces`
        instead of, the good one
    oversized : seconds between frames larger than ccxt accepts
    slow_reader : (every_s, for_s); like silence, but the exchange does not read either, and sends
        all that was due at the end
    slow_client : seconds a client may take to accept what is due before it is cut; 0: any time
    skew : seconds by which the exchange's clock is ahead of this machine's
    rest_429, rest_5xx : fractions of the requests for trades, with `rest_everywhere` of all
        requests, that are refused with status 429 and 503
    rest_hole : fraction of the trades withheld on the websocket that REST does not have either

    Raises
    ------
    ConfigError
        For a fraction outside [0, 1] or a negative or endless time.

    Examples
    --------
    >>> Faults(gaps=0.01, silence=(60, 5)) == parse_faults(["gaps=0.01", "silence=60:5"])
    True
    """

    seed: int = 1
    drop: float = 0.0
    disconnect: float = 0.0
    silence: tuple[float, float] = (0.0, 0.0)
    duplicates: tuple[float, float] = (0.0, 0.0)
    reorder: tuple[float, float] = (0.0, 0.0)
    gaps: float = 0.0
    malformed: float = 0.0
    malformed_replaces: bool = False
    oversized: float = 0.0
    slow_reader: tuple[float, float] = (0.0, 0.0)
    slow_client: float = 0.0
    skew: float = 0.0
    rest_429: float = 0.0
    rest_5xx: float = 0.0
    rest_everywhere: bool = False
    rest_hole: float = 0.0

    def __post_init__(self) -> None:
        fractions = [(name, getattr(self, name)) for name in _FRACTIONS]
        seconds = [(name, getattr(self, name)) for name in (*_SECONDS, "skew")]
        for name, form in _PAIRS.items():
            first, second = getattr(self, name)
            (seconds if form.startswith("every") else fractions).append((name, first))
            seconds.append((name, second))
        for name, value in fractions:
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f'fault "{name}": a fraction in [0, 1] is needed, not {value}')
        for name, value in seconds:
            least = -_LONGEST_S if name == "skew" else 0.0
            if not least <= value <= _LONGEST_S:
                span = f"from {least:g} to {_LONGEST_S:g}"
                raise ConfigError(f'fault "{name}": seconds {span} are needed, not {value}')


def parse_faults(specs: Sequence[str]) -> Faults:
    """Faults of a command line, each as `name=number` or `name=number:number`.

    Raises
    ------
    ConfigError
        For an unknown name, naming the known ones, and for values that do not fit.

    Examples
    --------
    >>> parse_faults(["reorder=0.1:2"]).reorder
    (0.1, 2.0)
    """
    known = {item.name: item.default for item in fields(Faults)}
    chosen: dict[str, Any] = {}
    for spec in specs:
        name, _, text = spec.partition("=")
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f'did you mean "{close[0]}"? ' if close else ""
            raise ConfigError(f'no fault "{name}"; {hint}there are {", ".join(known)}')
        chosen[name] = _value(name, text, known[name])
    return replace(Faults(), **chosen)


def _value(name: str, text: str, default: Any) -> Any:
    form = _PAIRS.get(name, "1 or 0" if isinstance(default, bool) else "number")
    try:
        if name in _PAIRS:
            first, second = map(float, text.split(":"))
            return first, second
        return {"1": True, "0": False}[text] if isinstance(default, bool) else type(default)(text)
    except (ValueError, KeyError):
        raise ConfigError(f'fault "{name}": needed is {name}={form}, found "{text}"') from None
