"""What became of every candle: noted in passing, written down in batches, summed up on request.

The loop of the bot notes each pair's newest candle and every entry that ends in no order; both are
an assignment in memory. One transaction takes a whole round of pairs to the journal.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from lstm_model.store.journal import Journal, VerdictRow
from lstm_model.store.recorder import Recorder
from lstm_model.trading.sizing import ENTER_LONG, ENTER_SHORT

_SIGNALS = (ENTER_LONG, ENTER_SHORT)
_HOUR_MS = 3_600_000


class Verdicts:
    """Counts what became of candles, each (pair, candle, reason) once, across restarts.

    Not safe between threads: the loop of the bot is its only user.

    Parameters
    ----------
    clock : milliseconds now, UTC

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> recorder = Recorder(Journal("sqlite://"), Path(tempfile.mkdtemp()) / "bot.spool")
    >>> recorder.start()
    >>> verdicts = Verdicts(recorder, "5m", clock=lambda: 600_000)
    >>> verdicts.note("BTC/USDT", 0, "enter_long")
    >>> verdicts.note("BTC/USDT", 0, "too_small", "a stake of 3 USDT, the exchange wants 5")
    >>> verdicts.note("ETH/USDT", 0, "no_edge")
    >>> verdicts.summary(since_ms=0).result()
    'No entry signal in 10 min: 2 candles, no_edge 1, too_small 1'
    >>> recorder.stop()
    """

    def __init__(
        self, journal: Recorder, timeframe: str, clock: Callable[[], int] | None = None
    ) -> None:
        self._journal, self._timeframe = journal, timeframe
        self._clock = clock or _now_ms
        self._newest: dict[str, tuple[int, set[str]]] = {}  # of each pair: candle, codes it had
        self._pending: dict[tuple[str, int, str], VerdictRow] = {}
        self._sums: deque[Future[str]] = deque()  # that the journal has not answered yet
        self._summed_ms = 0

    def note(self, pair: str, candle_ms: int, reason: str, text: str = "") -> None:
        """Say what became of a candle. The last word counts; a word said before is not said again.

        Parameters
        ----------
        candle_ms : open of the newest closed candle
        reason : code, see `lstm_model.trading.sizing.REASONS`
        text : the numbers behind it; that of the first time is kept
        """
        said = self._said(pair, candle_ms)
        if reason in said:
            return
        # Later than the words before, so that it is the last one even within a millisecond.
        created_ms = self._clock() + len(said)
        said.add(reason)
        row = VerdictRow(pair, self._timeframe, int(candle_ms), reason, text, created_ms)
        self._pending.setdefault((pair, row.candle_ms, reason), row)

    def flush(self) -> None:
        """Write down what was noted since the last time, all at once."""
        if self._pending:
            self._journal.record_verdicts(self._pending.values())
            self._pending.clear()

    def summary(self, since_ms: int) -> Future[str]:
        """One line on the candles of all pairs that opened from `since_ms` until now, "" if none.

        Signals are candles whose last word is an entry; whether freqtrade had room for a trade is
        in its own messages. The codes of the others follow, the most frequent first. It comes when
        the journal has answered.
        """
        self.flush()
        now_ms = self._clock()

        def count(journal: Journal) -> str:
            counts: Counter[str] = Counter()
            counted = journal.count_verdicts(self._timeframe, since_ms, now_ms + 1)
            for (_, reason), number in counted.items():
                counts[reason] += number
            return _line(counts, _span(now_ms - since_ms))

        return self._journal.ask(count)

    def sum_up(self, boundary_ms: int) -> Iterator[str]:
        """Sums of the steps until this boundary, each once, when the journal has answered.

        The first, on a start, is of what the bot has seen in the step that is under way.
        """
        if boundary_ms > self._summed_ms:
            self._sums.append(self.summary(self._summed_ms or boundary_ms))
        self._summed_ms = boundary_ms  # an earlier one where the clock was set back
        while self._sums and self._journal.wait(self._sums[0]):
            if summary := self._sums.popleft().result():
                yield summary

    def _said(self, pair: str, candle_ms: int) -> set[str]:
        """The codes that a pair's newest candle had; those of older ones are in the journal."""
        newest, said = self._newest.get(pair, (-1, set()))
        if candle_ms > newest:
            said = set()
            self._newest[pair] = (candle_ms, said)
        return said if candle_ms >= newest else set()


def _line(counts: Counter[str], span: str) -> str:
    if not counts:
        return ""
    signals = sum(counts[code] for code in _SIGNALS)
    head = f"{_number(signals, 'entry signal') if signals else 'No entry signal'} in {span}"
    others = [code for code in sorted(counts) if code not in _SIGNALS]
    others.sort(key=lambda code: -counts[code])
    parts = [_number(counts.total(), "candle"), *(f"{code} {counts[code]:,}" for code in others)]
    return f"{head}: {', '.join(parts)}"


def _number(count: int, name: str) -> str:
    return f"{count:,} {name}" + ("" if count == 1 else "s")


def _span(length_ms: int) -> str:
    """A length of time as people say it: below two hours in minutes."""
    if length_ms < 2 * _HOUR_MS:
        return f"{length_ms / 60_000:.0f} min"
    return f"{length_ms / _HOUR_MS:.0f} h"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
