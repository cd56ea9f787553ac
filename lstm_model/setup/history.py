"""Whether there are candles enough to learn from, and the command that gets the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from lstm_model.bot import assembly, configuration
from lstm_model.bot.reading import silent
from lstm_model.durations import DAY_MS, least_train_candles
from lstm_model.errors import LstmModelError, StoreError, UnreadableError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import REACH_DAYS
from lstm_model.market.candles import Candles, Ints, timeframe_ms, utc_minute
from lstm_model.settings import Settings
from lstm_model.setup.finding import Finding, good, note, to_do, warning
from lstm_model.setup.subject import Config
from lstm_model.training.absence import MISSING_FRACTION, Unknown, unknown
from lstm_model.training.downloads import ERASE, PREPEND, days_to_learn, download_command
from lstm_model.training.maker import ModelMaker
from lstm_model.training.material import Material, reach_ms

_NAME = "candles"
_NAMED = 5  # chosen: as many pairs as a sentence names


def check_candles(
    config: Config, settings: Settings, options: str, now_ms: int
) -> Iterator[Finding]:
    """The candles of every pair to train on, beside what the settings want.

    Parameters
    ----------
    options : words that name the configuration to freqtrade, each after a blank
    """
    if (settings.learn_from_ms or 0) > now_ms:
        text = f"learn_from {settings.learn_from} lies in the future, and is as none until then"
        yield warning("lstm", text, "Give the day from which on it is to learn, or null")
    if not configuration.training_pairs(config, settings, ()):
        yield note(_NAME, f"not looked at, for no pair is named: {configuration.no_pairs(config)}")
        return
    try:
        maker = assembly.model_maker(config, settings, ())
        yield from _Shelf(maker, config, options, now_ms).findings()
    except LstmModelError as error:
        yield to_do(_NAME, str(error))


class Holes(NamedTuple):
    """What is missing between the candles of a pair.

    Attributes
    ----------
    missing, wanted : candles that are not there, of those from the first to the last
    begin_ms, end_ms : the longest hole, `[begin, end)`
    """

    missing: int
    wanted: int
    begin_ms: int
    end_ms: int
    step_ms: int

    @classmethod
    def of(cls, date_ms: Ints, step_ms: int, since_ms: int) -> Holes:
        """Of candles that open at `date_ms` (T,), which rises; holes that end before `since_ms`
        do not count.

        Examples
        --------
        >>> Holes.of(np.array([0, 10, 20, 50, 60]), 10, 15)
        Holes(missing=2, wanted=6, begin_ms=30, end_ms=50, step_ms=10)
        """
        dates = date_ms[max(int(np.searchsorted(date_ms, since_ms, "right")) - 1, 0) :]
        if len(dates) < 2:
            return cls(0, len(dates), 0, 0, step_ms)
        longest = int(np.argmax(np.diff(dates)))
        wanted = int(dates[-1] - dates[0]) // step_ms + 1
        begin_ms, end_ms = int(dates[longest]) + step_ms, int(dates[longest + 1])
        return cls(wanted - len(dates), wanted, begin_ms, end_ms, step_ms)

    @property
    def are_many(self) -> bool:
        """Whether they are more than outages of exchanges explain, which last hours."""
        too_long = self.end_ms - self.begin_ms > DAY_MS
        return too_long or self.missing > MISSING_FRACTION * self.wanted

    def __str__(self) -> str:
        begin, last = utc_minute(self.begin_ms), utc_minute(self.end_ms - self.step_ms)
        count = (self.end_ms - self.begin_ms) // self.step_ms
        longest = f"from {begin} to {last}"
        if count < self.missing:
            longest = f"the most of them ({count:,}) {longest}"
        return f"{self.missing:,} of {self.wanted:,}, {longest}"


class _Shelf:
    """The candles on disk of the pairs to train on."""

    def __init__(self, maker: ModelMaker, config: Config, options: str, now_ms: int) -> None:
        self._maker, self._config, self._options = maker, config, options
        self._now_ms, self._settings, self._timeframe = now_ms, maker.settings, maker.timeframe
        self._damaged = dict[str, str]()
        self._unread = dict[str, str]()  # what is to be said, and done, without new candles
        self._closed = set[str]()
        self._of = lru_cache(maxsize=None)(self._read)

    def findings(self) -> Iterator[Finding]:
        """What is missing, each with the command that gets it; without any, what there is."""
        looks = (
            self._absent, self._short, self._old, self._unsound, self._holed, self._unseen,
            self._flowless,
        )  # fmt: skip
        found = [finding for look in looks for finding in look()]
        yield from found or [self._whole()]

    def _read(self, pair: str) -> Candles | None:
        try:
            with silent():  # what it warns of is told below
                found = self._maker.history.of(pair)
                if found is None and configuration.has_candle_file(self._config, pair):
                    self._damaged[pair] = f"the file of {pair} is damaged or empty"
        except UnreadableError as error:
            self._unread[str(error)] = ""
            self._closed.add(pair)
            return None
        except StoreError as error:
            self._unread[str(error)] = self._flow_again(str(error), pair)
            return None
        except LstmModelError as error:
            text, leader = str(error), self._maker.history.leader
            ill = leader if leader and text.startswith(f"{leader}:") else pair
            self._damaged[ill] = text
            return None
        return found

    @cached_property
    def _known(self) -> dict[str, Candles]:
        found = {pair: self._of(pair) for pair in self._maker.pairs}
        return {pair: candles for pair, candles in found.items() if candles is not None}

    @cached_property
    def _seen(self) -> dict[str, Candles]:
        """The same, and those of the leader of all where it is none of the pairs."""
        leader = self._maker.history.leader
        leading = self._of(leader) if leader else None
        return self._known | ({leader: leading} if leader and leading is not None else {})

    @cached_property
    def _dead(self) -> list[str]:
        """Pairs of which no candle is sound."""
        return [pair for pair, candles in self._seen.items() if not candles.sound().any()]

    @cached_property
    def _material(self) -> Material:
        with silent():
            return self._maker.material(self._now_ms, self._of)

    @property
    def _alive(self) -> dict[str, Candles]:
        """Those of the pairs that are not to be got anew anyway."""
        return {pair: of for pair, of in self._known.items() if pair not in self._dead}

    @property
    def _tell(self) -> Callable[[str, str, str], Finding]:
        """Whether what is missing keeps a first model from being made at all."""
        settings, pairs = self._settings, len(self._maker.pairs)
        held_out = settings.validation_fraction, settings.test_fraction
        least = least_train_candles(settings.horizon, *held_out, pairs) + settings.lookback
        known = max((int(candles.sound().sum()) for candles in self._material.candles), default=0)
        return warning if known >= least + WARM_UP else to_do

    def _flow_again(self, text: str, pair: str) -> str:
        """What to do about a damaged file of order flow: of the pair, else of its leader."""
        store, leader = configuration.flow_store(self._config), self._maker.history.leader
        own = f"{store.path(pair, self._timeframe).with_suffix('')}."
        named = pair if leader is None or text.startswith(own) else leader
        command = f"freqtrade-lstm download-flow{self._options} --pairs {named}"
        return f"Then run `{command}`, with the --timerange of backtests that begin earlier"

    def _absent(self) -> Iterator[Finding]:
        absent = [pair for pair in self._maker.pairs if pair not in self._seen]
        for text, todo in self._unread.items():
            yield self._tell(_NAME, text, todo)
        for pair, text in list(self._damaged.items()):  # others are read on the way
            todo = "" if ERASE in text else self._download([pair], ERASE)
            yield self._tell(_NAME, text, todo)
        if none := [pair for pair in absent if not self._is_there(pair)]:
            text = f"none of {_some(none)} in {self._config['datadir']}"
            yield self._tell(_NAME, text, self._download(none))

    def _is_there(self, pair: str) -> bool:
        """Whether it has a file, though that, or the leader's, may be damaged."""
        ill = self._damaged.keys() | self._closed
        return pair in ill or configuration.has_candle_file(self._config, pair)

    @cached_property
    def _wanted_ms(self) -> int:
        """Where the candles to train on begin."""
        return self._now_ms - reach_ms(self._settings, self._timeframe, len(self._maker.pairs))

    @cached_property
    def _late(self) -> dict[str, int]:
        """Pairs whose first candle opens later than that by more than outages explain, and when."""
        late_ms = self._wanted_ms + round(MISSING_FRACTION * (self._now_ms - self._wanted_ms))
        starts = {pair: int(candles.date_ms[0]) for pair, candles in self._alive.items()}
        return {pair: start_ms for pair, start_ms in starts.items() if start_ms > late_ms}

    def _short(self) -> Iterator[Finding]:
        if self._late:
            short, newest_ms = list(self._late), max(self._late.values())
            text = (
                f"those of {_some(short)} begin at {utc_minute(newest_ms)}, and settings want them "
                f"from {utc_minute(self._wanted_ms)} on, if the exchange has them"
            )
            yield self._tell(_NAME, text, self._download(short, PREPEND))

    def _old(self) -> Iterator[Finding]:
        step_ms = self._settings.step_candles * timeframe_ms(self._timeframe)
        ends = {pair: int(c.date_ms[-1]) + c.step_ms for pair, c in self._alive.items()}
        late = {pair for pair, end_ms in ends.items() if end_ms < self._now_ms - step_ms}
        if old := sorted(late | (self._material.holes.keys() & ends.keys())):
            oldest = utc_minute(min(ends[pair] for pair in old))
            text = f"those of {_some(old)} end at {oldest}, and the learner waits for newer ones"
            yield warning(_NAME, text, self._download(old))

    def _unsound(self) -> Iterator[Finding]:
        """Candles of which nothing can be learnt: where all are so, and where prices cannot be."""
        if self._dead:
            text = f"no candle of {_some(self._dead)} has prices and a volume to learn from"
            yield self._tell(_NAME, text, self._download(self._dead, ERASE))
        wrong = {
            pair: candles.date_ms[~candles.sound() & (candles.volume != 0.0)]
            for pair, candles in self._seen.items() if pair not in self._dead
        }  # fmt: skip
        if bad := [pair for pair, opened_ms in wrong.items() if len(opened_ms)]:
            opened_ms = np.concatenate([wrong[pair] for pair in bad])
            text = (
                f"{len(opened_ms):,} of {_some(bad)}, the first of {utc_minute(opened_ms.min())}, "
                "have prices or volumes that cannot be (none, below 0, a low above the close): "
                "nothing is learnt from the candles around them"
            )
            back = "Where the exchange itself tells such candles they come back: leave them then"
            yield self._tell(_NAME, text, f"{self._download(bad, ERASE)}. {back}")

    @cached_property
    def _holes(self) -> dict[str, Holes]:
        """Of the pairs that lack many candles inside those that are learnt from or looked back on.

        What is read has no holes: freqtrade fills them with candles that nobody traded in.
        """
        since_ms, found = self._wanted_ms - REACH_DAYS * DAY_MS, dict[str, Holes]()
        for pair in self._seen.keys() - set(self._dead):
            with silent():
                dates = configuration.stored_dates(self._config, pair)
            found[pair] = Holes.of(dates, timeframe_ms(self._timeframe), since_ms)
        return {pair: found[pair] for pair in sorted(found) if found[pair].are_many}

    def _holed(self) -> Iterator[Finding]:
        if holed := list(self._holes):
            text = "; ".join(f"{pair} lacks {self._holes[pair]}" for pair in holed[:_NAMED])
            others = len(holed) - _NAMED
            text += f"; and {others} more pairs lack as many" if others > 0 else ""
            how = (
                "`--prepend` fills no hole inside; if the exchange has these candles (some tell "
                "none where nothing was traded), all are to be got anew"
            )
            yield self._tell(_NAME, text, f"{how}. {self._download(holed, ERASE)}")

    def _unseen(self) -> Iterator[Finding]:
        without = defaultdict[str, list[Unknown]](list)
        others = {*self._late, *self._damaged, *self._dead, *self._holes}  # whose commands get it
        for found in unknown(self._material.candles, self._maker.history.leader):
            if found.asked not in others:
                without[found.what].append(found)
        for what, those in without.items():
            pairs = _some([found.pair for found in those])
            asked = list(dict.fromkeys(found.asked for found in those))
            text = f"{what} is not known of many candles of {pairs}"
            yield warning(_NAME, text, self._download(asked, PREPEND))

    def _flowless(self) -> Iterator[Finding]:
        if pairs := list(self._material.unknown_flow):
            command = f"Run `freqtrade-lstm download-flow{self._options}`"
            text = f"order flow is not known of many candles of {_some(pairs)}"
            yield warning(_NAME, text, command)

    def _whole(self) -> Finding:
        first_ms = max(int(candles.date_ms[0]) for candles in self._known.values())
        last_ms = min(int(candles.date_ms[-1]) for candles in self._known.values())
        span = f"{utc_minute(first_ms)} to {utc_minute(last_ms)}"
        return good(_NAME, f"{self._timeframe} of {_some(list(self._known))}, {span}")

    def _download(self, pairs: Sequence[str], *more: str) -> str:
        known = [self._seen[pair] for pair in pairs if pair in self._seen and ERASE in more]
        first_ms = min((int(candles.date_ms[0]) for candles in known), default=None)
        days = days_to_learn(self._settings, self._timeframe, first_ms)
        command = download_command(self._options, self._timeframe, days, pairs, *more)
        return f"Run `{command}`" + (f". {self._what_goes}" if ERASE in more else "")

    @property
    def _what_goes(self) -> str:
        return (
            f"It deletes their files in {self._config['datadir']} before it asks the exchange, "
            "which may have less: copy them first"
        )


def _some(pairs: Sequence[str]) -> str:
    others = len(pairs) - _NAMED
    return ", ".join(pairs[:_NAMED]) + (f" and {others} more" if others > 0 else "")
