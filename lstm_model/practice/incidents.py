"""What goes wrong in a replay, on purpose and at an exact virtual time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from lstm_model.errors import ConfigError
from lstm_model.market.candles import Ints, timeframe_ms, utc_text
from lstm_model.practice.faults import Faults
from lstm_model.practice.scenario import Scenario
from lstm_model.practice.tape_market import Bools, Listing, Market, TapeCandles, Trades

# What each kind is, and whether it lasts.
_KINDS = {
    "outage": ("the exchange answers nothing and cuts every connection", True),
    "missing": ("candles that open in this span are never served", True),
    "late": ("the candle that opens then, and all newer ones, are served that much late", True),
    "halt": ("one pair, the last or the one of halt:PAIR, is not traded and has no candles", True),
    "stream": ("every connection is cut; then trades are lost, doubled, late and broken", True),
    "locked": ("another connection holds the journal's database locked", True),
    "full": ("nothing more can be written where models and journal lie", True),
    "restart": ("the bot is ended and started anew that much later", True),
    "reload": ("/reload_config, a new bot in the same process", False),
    "kill": ("the next training is killed", False),
}
_OF_THE_BOT = ("outage", "restart", "reload", "stream", "locked", "full")
_ONE_AT_A_TIME = ("outage", "restart", "stream", "locked", "full")
# What the websocket does while "stream" lasts; chosen: a few of each in five minutes of a busy pair
STREAM_FAULTS = Faults(
    gaps=0.02, duplicates=(0.05, 5.0), reorder=(0.05, 2.0), malformed=0.01,
)  # fmt: skip
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_MOST_HELD_BACK = 6  # chosen: 10 ** 5 candles of 1m are two months
_STARTED_MS = 60_000  # chosen: a bot has to have started before it can be hit
_FORM = "KIND@TIME/DURATION, for example outage@2024-07-10T06:00/30m"


@dataclass(frozen=True)
class Incident:
    """One thing that goes wrong.

    Attributes
    ----------
    kind : one of those that `parse_incident` lists where it is asked for another
    at_ms, for_ms : when, and how long; 0 for a `kill` and a `reload`
    pair : of a `halt`; "" for the last one

    Examples
    --------
    >>> str(Incident("late", 1_720_591_200_000, 20_000))
    'late@2024-07-10T06:00:00Z/20s'
    >>> str(Incident("halt", 1_720_591_200_000, 3_600_000, "ETH/USDT"))
    'halt:ETH/USDT@2024-07-10T06:00:00Z/1h'
    """

    kind: str
    at_ms: int
    for_ms: int = 0
    pair: str = ""

    @property
    def end_ms(self) -> int:
        """When it is over."""
        return self.at_ms + self.for_ms

    def __str__(self) -> str:
        unit = next((unit for unit in "hm" if self.for_ms % _UNIT_MS[unit] == 0), "s")
        lasting = f"/{self.for_ms // _UNIT_MS[unit]}{unit}" if self.for_ms else ""
        name = f"{self.kind}:{self.pair}" if self.pair else self.kind
        return f"{name}@{utc_text(self.at_ms)}{lasting}"


def parse_incident(text: str) -> Incident:
    """An incident of a command line; its time is UTC unless it says otherwise.

    Raises
    ------
    ConfigError
        For anything else than the forms of the examples; says what is allowed.

    Examples
    --------
    >>> parse_incident("outage@2024-07-10T06:00/30m")
    Incident(kind='outage', at_ms=1720591200000, for_ms=1800000, pair='')
    >>> parse_incident("kill@2024-07-10T06:00").for_ms
    0
    >>> parse_incident("halt:ETH/USDT@2024-07-10T06:00/2h").pair
    'ETH/USDT'
    """
    name, _, when = text.partition("@")
    kind, _, pair = name.partition(":")
    if kind not in _KINDS:
        known = ", ".join(f"{name} ({what})" for name, (what, _) in _KINDS.items())
        raise ConfigError(f'incident "{text}": no kind "{kind}"; there are {known}; form: {_FORM}')
    if ":" in name and (kind != "halt" or not pair):
        raise ConfigError(
            f'incident "{text}": "{name}" names no pair that could be; only a halt is of one pair: '
            "halt:ETH/USDT@TIME/DURATION"
        )
    time, _, duration = when.partition("/")
    lasts = _KINDS[kind][1]
    if not lasts and duration:
        raise ConfigError(f'incident "{text}": a {kind} has no duration: {kind}@{time} is enough')
    return Incident(kind, _time_ms(text, time), _duration_ms(text, duration) if lasts else 0, pair)


def _time_ms(text: str, time: str) -> int:
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        raise ConfigError(
            f'incident "{text}": "{time}" is no time; give UTC as 2024-07-10T06:00; form: {_FORM}'
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _duration_ms(text: str, duration: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smh])", duration)
    if match is None:
        raise ConfigError(
            f'incident "{text}": "{duration}" is no duration; give one like 30s, 15m or 2h; '
            f"form: {_FORM}"
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def check_incidents(
    incidents: Sequence[Incident], start_ms: int, end_ms: int, step_ms: int, pairs: Sequence[str]
) -> None:
    """Whether these can happen in a window of candles of that length and these pairs.

    Raises
    ------
    ConfigError
        For one outside the window, candles that are none, and two that contradict each other.
    """
    for incident in incidents:
        least_ms = start_ms + (_STARTED_MS if incident.kind in _OF_THE_BOT else 0)
        if not least_ms <= incident.at_ms < end_ms:
            raise ConfigError(
                f'incident "{incident}" is not within the window; allowed is '
                f"{utc_text(least_ms)} to {utc_text(end_ms)}"
            )
        if incident.pair and incident.pair not in pairs:
            raise ConfigError(
                f'incident "{incident}": no pair "{incident.pair}"; there are {", ".join(pairs)}'
            )
        _check_candles(incident, step_ms)
    _check_overlaps(incidents, pairs)
    _check_faults(incidents)
    _check_returns(incidents)


def _check_overlaps(incidents: Sequence[Incident], pairs: Sequence[str]) -> None:
    def what(incident: Incident) -> tuple[str, str]:
        return incident.kind, halted(incident, pairs) if incident.kind == "halt" else ""

    lasting = [item for item in incidents if item.kind in (*_ONE_AT_A_TIME, "halt")]
    for first, second in pairwise(sorted(lasting, key=lambda item: (what(item), _at(item)))):
        if what(first) == what(second) and second.at_ms <= first.end_ms:
            raise ConfigError(f'incidents "{first}" and "{second}" overlap; make them one')


def halted(incident: Incident, pairs: Sequence[str]) -> str:
    """The pair that a `halt` is of."""
    return incident.pair or pairs[-1]


def _at(incident: Incident) -> int:
    return incident.at_ms


def _check_candles(incident: Incident, step_ms: int) -> None:
    opens = -(-incident.at_ms // step_ms) * step_ms
    if incident.kind == "late" and opens != incident.at_ms:
        raise ConfigError(
            f'incident "{incident}": no candle opens then; the next one does at {utc_text(opens)}'
        )
    if incident.kind == "missing" and opens >= incident.end_ms:
        raise ConfigError(
            f'incident "{incident}": no candle opens in that span; the next one does at '
            f"{utc_text(opens)}"
        )


def _check_faults(incidents: Sequence[Incident]) -> None:
    """Without an exchange there is no websocket on which something could go wrong."""
    for stream in (item for item in incidents if item.kind == "stream"):
        for outage in (item for item in incidents if item.kind == "outage"):
            if outage.at_ms <= stream.end_ms and stream.at_ms <= outage.end_ms:
                raise ConfigError(
                    f'incidents "{stream}" and "{outage}" overlap, but there is no stream while '
                    "the exchange is away; let one begin when the other is over"
                )


def _check_returns(incidents: Sequence[Incident]) -> None:
    """freqtrade does not start while its exchange is down."""
    for restart in (item for item in incidents if item.kind in ("restart", "reload")):
        for outage in (item for item in incidents if item.kind == "outage"):
            if outage.at_ms <= restart.end_ms < outage.end_ms:
                raise ConfigError(
                    f'incident "{restart}" ends while "{outage}" lasts, but freqtrade starts with '
                    f"an exchange only; let the {restart.kind} come later"
                )


@dataclass(frozen=True)
class HeldBack(Listing):
    """A pair of which some candles are not served, or not in time; its trades all are.

    Attributes
    ----------
    step_ms : of the candles that are missing or late; those of other lengths are served
    incidents : `missing`, `late` and `halt`; others have no effect
    """

    step_ms: int = 0
    incidents: tuple[Incident, ...] = ()

    def candles(
        self,
        timeframe: str,
        now_ms: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 500,
    ) -> TapeCandles:
        """As those of the market, without what is held back at `now_ms`."""
        whole = super().candles(timeframe, now_ms, start_ms, end_ms, limit)
        kept = ~self.held_back(whole.open_ms, now_ms, timeframe_ms(timeframe))
        columns = (getattr(whole, field.name) for field in fields(TapeCandles))
        return whole if kept.all() else TapeCandles(*(column[kept] for column in columns))

    def held_back(self, open_ms: Ints, now_ms: int, step_ms: int) -> Bools:
        """(C,) bool, of candles of that length that open at `open_ms` (C,)."""
        held = np.zeros(len(open_ms), np.bool_)
        for incident in self.incidents:
            within = (incident.at_ms <= open_ms) & (open_ms < incident.end_ms)
            if incident.kind == "halt":  # with the first trade after it there are candles again
                held |= within & (
                    (open_ms + step_ms <= incident.end_ms) | (now_ms < incident.end_ms)
                )
            elif step_ms != self.step_ms:
                continue
            elif incident.kind == "missing":
                held |= within
            elif incident.kind == "late" and now_ms < incident.end_ms + self.step_ms:
                held |= incident.at_ms <= open_ms
        return held


def with_incidents(scenario: Scenario, incidents: Sequence[Incident]) -> Scenario:
    """The same, as its exchange serves it: without candles that are missing or late, and halted.

    What `known_candles` tells of it is then what could be downloaded by that time. Twice is as
    once.

    Raises
    ------
    ConfigError
        As `check_incidents`.
    """
    step_ms, pairs = timeframe_ms(scenario.timeframe), scenario.pairs
    check_incidents(incidents, scenario.start_ms, scenario.end_ms, step_ms, pairs)
    listings = dict(scenario.market.listings)
    for symbol, item in listings.items():
        chosen = tuple(
            each for each in incidents
            if each.kind in ("missing", "late")
            or (each.kind == "halt" and halted(each, pairs) == item.instrument.pair)
        )  # fmt: skip
        if chosen:
            trades = _without_halts(item.trades, chosen)
            listings[symbol] = HeldBack(item.instrument, trades, step_ms, chosen)
    return replace(scenario, market=Market(listings, scenario.market.now_ms))


def _without_halts(trades: Trades, incidents: Sequence[Incident]) -> Trades:
    """What was traded while a pair was not halted; ids go on where they stopped."""
    kept = np.ones(len(trades), np.bool_)
    for incident in (each for each in incidents if each.kind == "halt"):
        kept[trades.due(incident.at_ms - 1) : trades.due(incident.end_ms - 1)] = False
    if kept.all():
        return trades
    return Trades(
        trades.time_ms[kept], trades.price[kept], trades.amount[kept], trades.taker_buy[kept],
        trades.first_id,
    )  # fmt: skip


def newest_candle_ms(listing: Listing, timeframe: str, now_ms: int) -> int:
    """When the newest candle opened that is served; 0 if none is."""
    for power in range(_MOST_HELD_BACK):
        if len(found := listing.candles(timeframe, now_ms, limit=10**power)):
            return int(found.open_ms[-1])
    return 0
