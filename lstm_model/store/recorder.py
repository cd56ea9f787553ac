"""The journal as a running bot uses it: what was said is kept at once, without a long wait.

A forecast is a fact before it is acted upon: it is on a local file (`Spool`) when `record` returns.
A thread hands what is there over to the database in order, and answers questions from it. While the
database is locked, slow or away, the file grows and the bot goes on; after a restart the file is
read first. So every fact is in the database once in the end.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitTimeoutError
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lstm_model.errors import LstmModelError, StoreError
from lstm_model.store.database import AwayError
from lstm_model.store.journal import Journal
from lstm_model.store.journal_rows import DecisionRow, Fact, JournalRow, VerdictRow, forecast_row
from lstm_model.store.spool import Spool, others

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PATIENCE_S = 1.0  # chosen: for which a candle of the bot's loop may wait, with all of its pairs
LOCK_WAIT_S = 2.0  # chosen: the thread tries again anyway
_BUSY_S = 0.1  # chosen: far above another thread's write, if the disk is well
_SYNC_S = 1.0  # chosen: for which the thread waits for the disk before it goes on
_OPEN_S = 3.0  # chosen: another bot's start looks into the files that nobody has
_START_S = 10.0  # chosen: above one connection that is refused for want of an answer
_STOP_S = 5.0  # chosen: above a batch; what is left over is on the file
_STUCK_S = 15.0  # chosen: above the time-outs of the database itself
_OPENING_S = 1_800.0  # chosen: an older release's tables may be copied
_RETRY_S = (1.0, 60.0)  # chosen: after the first failure, and at most
_TOLD_MS = 30_000  # chosen: a lock that is shorter is no news
_AGAIN_MS = 3_600_000
_PRUNE_S, _AT_ONCE, _DAY_MS = 86_400.0, 5_000, 86_400_000
_MOST_LOOSE = 100_000  # chosen: facts in memory while nothing can be written, 100 MB


class Recorder:
    """Keeps what one bot says, and asks its journal, without making it wait.

    All but the thread of its own is for the bot's loop; `record_decisions` is for its learner too.

    Parameters
    ----------
    journal : of this bot alone, which this closes
    path : of the local file
    timeframe, keep_days : rows on older candles are removed; None or 0: never

    Attributes
    ----------
    news : what the user should hear of, oldest first
    """

    def __init__(
        self, journal: Journal, path: Path, timeframe: str = "", keep_days: int | None = None
    ) -> None:
        self.news: deque[str] = deque(maxlen=100)
        self._journal, self._spool = journal, Spool(path)
        self._timeframe, self._keep_days = timeframe, keep_days
        self._loose: deque[Fact] = deque(maxlen=_MOST_LOOSE)  # that the file did not take
        self._questions: deque[tuple[Callable[[Journal], Any], Future[Any]]] = deque()
        self._wake, self._tried, self._kept = (threading.Event() for _ in range(3))
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: StoreError | None = None  # what the last attempt ended in
        self._was_reached = self._has_adopted = False
        self._busy_since = self._prune_at = 0.0
        self._patience_s, self._candle = PATIENCE_S, -1
        self._away_since_ms: int | None = None
        self._told_ms: dict[bool, int] = {}  # when it was last told, by whether facts are kept
        self._is_told, self._damaged = False, 0

    # ------------------------------------------------------------ the bot's loop

    def start(self) -> None:
        """Read what the last run left on the file, and try the database.

        One that is locked or away now may come back: the bot begins without it.

        Raises
        ------
        StoreError
            The file cannot be written, another bot has it, or the database cannot be used. Nothing
            is left open then.
        """
        with ExitStack() as undone:
            undone.callback(self.stop)
            self._open()
            opened = self.ask(Journal.reach)
            self._begin_thread()
            self._tried.wait(_START_S)
            error = opened.exception() if opened.done() else self._trouble
            if error is not None and not isinstance(error, AwayError):
                raise error
            undone.pop_all()
        if not opened.done():
            logger.warning("The journal does not answer; the bot begins without it")

    def tick(self, now_ms: int, step_ms: int) -> None:
        """See what has become of the database, and have patience again with a new candle."""
        if now_ms // step_ms != self._candle:
            self._candle, self._patience_s = now_ms // step_ms, PATIENCE_S
        if self._thread is not None and not self._thread.is_alive():
            logger.error("The thread that writes the journal had died; another begins")
            self._begin_thread()
        stuck = self._is_stuck()
        if stuck:
            self._journal.abort()
        self._tell(now_ms, stuck=stuck)

    def record(self, rows: Iterable[JournalRow]) -> bool:
        """Keep forecasts; whether they may be acted upon: they are where a restart finds them.

        Those that nobody could write yet are kept in memory, and written as soon as may be.

        Raises
        ------
        DataError
            For a number that is NaN or infinite; nothing is kept then.
        """
        return self._keep(self._journal.forecasts(rows))

    def record_decisions(self, rows: Iterable[DecisionRow]) -> None:
        """Keep decisions. Raises as `record`, and `StoreError` where they cannot be written."""
        self._spool.append(self._journal.decided(rows))
        self._wake.set()

    def record_verdicts(self, rows: Iterable[VerdictRow]) -> None:
        """Keep verdicts; nobody acts upon them. Raises as `record`."""
        self._keep(self._journal.judged(rows), synced=False)

    @property
    def keeps(self) -> bool:
        """Whether everything that was recorded is where a restart finds it."""
        return not self._loose

    @property
    def answers(self) -> bool:
        """Whether the database did at the last attempt."""
        return self._was_reached and self._trouble is None

    def ask(self, question: Callable[[Journal], Answer]) -> Future[Answer]:
        """Have a question answered after all that was recorded before; see `wait`."""
        future: Future[Answer] = Future()
        self._questions.append((question, future))
        self._wake.set()
        return future

    def wait(self, future: Future[Any]) -> bool:
        """Whether it is answered, by an error maybe, while the patience of this candle lasts.

        Of a database that is known to be away nobody expects an answer.
        """
        began = time.perf_counter()
        try:
            future.exception(self._bearable_s)
        except WaitTimeoutError:
            self._patience_s = 0.0
            return False
        except CancelledError:
            return False
        self._patience_s -= time.perf_counter() - began
        return True

    def waiting(self) -> list[JournalRow]:
        """This bot's forecasts that the database may lack."""
        facts = [*self._spool.everything(), *self._loose]
        mine = [f.values for f in facts if f.kind == "forecast"]
        mine = [values for values in mine if values["lineage"] == self._journal.lineage]
        return [forecast_row({k: v for k, v in row.items() if k != "lineage"}) for row in mine]

    def settle(self, timeout_s: float) -> bool:
        """Wait until the database has what was recorded; whether it has."""
        if self._stopping.is_set():
            return self._spool.is_empty
        try:
            self.ask(lambda _: None).result(timeout_s)
        except WaitTimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Hand over what can be, and release everything; what is left waits on the file."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            if self._thread.is_alive():
                self._journal.abort()
                self._thread.join(_STOP_S)
        for _, future in tuple(self._questions):
            future.cancel()
        hangs = self._thread is not None and self._thread.is_alive()
        if hangs:
            logger.warning("The journal does not answer; its connection is left behind")
        if not self._spool.is_empty:
            logger.warning("Facts that the journal lacks wait on %s", self._spool.path)
        if not self._spool.close():
            logger.error("A write to %s hangs: it is let go when that ends", self._spool.path)
        if not hangs:
            self._journal.close()

    def _open(self) -> None:
        end_s = time.perf_counter() + _OPEN_S
        while not self._spool.open():
            if time.perf_counter() > end_s:
                raise StoreError(f"another bot writes {self._spool.path}: stop it")
            time.sleep(0.05)

    def _keep(self, facts: Collection[Fact], *, synced: bool = True) -> bool:
        began = time.perf_counter()
        bearable_s = max(self._patience_s, 0.0)
        busy_s = _BUSY_S if self.keeps else 0.0  # once a candle is enough
        failed = None
        try:
            # A disk that is slow is waited for once a candle: then the thread syncs the file.
            sync_s = bearable_s if synced else 0.0
            self._spool.append(facts, sync_s=sync_s, lock_s=max(bearable_s, busy_s))
        except StoreError as error:
            failed = error
        self._patience_s -= time.perf_counter() - began
        if failed is not None:
            self._keep_loose(facts, failed)
        self._wake.set()
        return self.keeps

    def _keep_loose(self, facts: Collection[Fact], error: StoreError) -> None:
        """Keep in memory what the file did not take, and wait whether the database does."""
        if self.keeps:
            logger.error("%s", error)
        if (lost := len(self._loose) + len(facts) - _MOST_LOOSE) > 0:
            logger.error("The oldest %d facts in memory are lost", lost)
        self._kept.clear()
        self._loose.extend(facts)
        self._wake.set()
        began = time.perf_counter()
        self._wait_until_kept()
        self._patience_s -= time.perf_counter() - began

    @property
    def _bearable_s(self) -> float:
        return max(self._patience_s, 0.0) if self._trouble is None else 0.0

    def _wait_until_kept(self) -> None:
        end = time.perf_counter() + self._bearable_s
        while not self.keeps and self._kept.wait(max(end - time.perf_counter(), 0.0)):
            self._kept.clear()

    def _is_stuck(self) -> bool:
        """Whether the database has taken a question and does not answer."""
        since, most_s = self._busy_since, _STUCK_S if self._was_reached else _OPENING_S
        return since > 0.0 and time.perf_counter() - since > most_s

    def _tell(self, now_ms: int, *, stuck: bool) -> None:
        """Say that the journal is away, and that it is back: each at most once an hour."""
        if (damaged := self._spool.damaged) > self._damaged:
            self.news.append(f"Lines of {self._spool.path} that are damaged and lost: {damaged}")
            self._damaged = damaged
        trouble, keeps = self._trouble, self.keeps
        if trouble is None and not stuck and keeps:
            if self._is_told:
                self.news.append("The journal answers again and gets all that was said meanwhile")
            self._away_since_ms, self._is_told = None, False
            return
        self._away_since_ms = self._away_since_ms or now_ms
        is_new = now_ms - self._told_ms.get(keeps, -_AGAIN_MS) >= _AGAIN_MS
        if is_new and (not keeps or now_ms - self._away_since_ms >= _TOLD_MS):
            self._told_ms[keeps], self._is_told = now_ms, True
            meanwhile = f"What is said is kept in {self._spool.path}, and the bot goes on"
            if not keeps:
                meanwhile = "No entries until what is said can be written; stops and exits go on"
            self.news.append(f"{meanwhile}: {trouble or 'the journal does not answer'}")

    # ------------------------------------------------------------ the thread of its own

    def _begin_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="lstm-journal", daemon=True)
        thread.start()  # the system may have none left; nobody can wait for one that never began
        self._thread = thread

    def _work(self) -> None:
        pause_s = _RETRY_S[0]
        while True:
            is_last = self._stopping.is_set()
            self._wake.clear()
            self._attempt()
            self._tried.set()
            if is_last:
                self._journal.close()  # nobody else does, if it was not waited for
                return
            if self._trouble is None:
                pause_s = _RETRY_S[0]
                self._wake.wait(_PRUNE_S)
            else:
                self._stopping.wait(pause_s)
                pause_s = min(2.0 * pause_s, _RETRY_S[1])

    def _attempt(self) -> None:
        trouble = None
        try:
            self._hand_over()
            self._answer()
            self._prune()
        except StoreError as error:
            trouble = error
            if self._trouble is None:
                logger.warning("%s", error)
        self._busy_since, self._trouble = 0.0, trouble

    def _hand_over(self) -> None:
        """Let the database have everything that is on the file or in memory, in order."""
        self._rescue()
        with suppress(StoreError):  # the database may take what the disk does not
            self._spool.sync_within(_SYNC_S)
        self._drain(self._spool)
        if not self._has_adopted:
            with closing(others(self._spool.path)) as found:
                for other in found:
                    self._drain(other)
            self._has_adopted = True

    def _rescue(self) -> None:
        """Write what is in memory alone: on the file, or at once into the database."""
        if loose := list(self._loose):
            try:
                self._spool.append(loose, sync_s=_SYNC_S)
            except StoreError:
                self._call(partial(Journal.write, facts=loose))
            for _ in loose:
                self._loose.popleft()
        if self.keeps:
            self._kept.set()

    def _drain(self, spool: Spool) -> None:
        while not spool.is_empty:
            facts = spool.read()
            self._call(partial(Journal.write, facts=facts))
            spool.done()

    def _answer(self) -> None:
        while self._questions:
            if not (self.keeps and self._spool.is_empty):  # recorded since, and before it was asked
                self._hand_over()
            asked = question, future = self._questions.popleft()
            if future.cancelled():
                continue
            try:
                answer = self._call(question)
            except AwayError:
                self._questions.appendleft(asked)
                raise
            except LstmModelError as error:
                future.set_exception(error)
            else:
                future.set_result(answer)
            finally:  # a fault of ours ends the thread, and who waits for the answer hears of it
                fault = sys.exception()
                if not future.done() and not isinstance(fault, AwayError):
                    future.set_exception(fault)

    def _prune(self) -> None:
        """Once a day, a little at a time: what is recorded meanwhile goes first."""
        if not self._keep_days or time.perf_counter() < self._prune_at:
            return
        before_ms = time.time_ns() // 1_000_000 - self._keep_days * _DAY_MS
        while not self._wake.is_set():
            gone = self._call(lambda journal: journal.prune(self._timeframe, before_ms, _AT_ONCE))
            if not gone:
                self._prune_at = time.perf_counter() + _PRUNE_S
                return
            logger.info("%d rows older than %d days left the journal", gone, self._keep_days)

    def _call(self, question: Callable[[Journal], Answer]) -> Answer:
        """Ask the database, so that the bot's loop sees how long it takes."""
        self._busy_since = time.perf_counter()
        answer = question(self._journal)
        self._busy_since, self._was_reached = 0.0, True
        return answer
