"""How a walk along the chain is run, and networks that are trained before it comes to them.

A network from scratch depends on candles alone, not on who is champion by then. So while a walk
over the past scores and judges, the trainer need not wait for it. What comes out is the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from lstm_model.errors import TrainingError
from lstm_model.learning.learner import Wish
from lstm_model.market.history import Disk
from lstm_model.model.dataset import Panels
from lstm_model.training.maker import Candidate, Training
from lstm_model.training.material import Material
from lstm_model.training.trainer import at_once

logger = logging.getLogger(__name__)

Lesson = Callable[[Wish, int], Training]
Make = Callable[[Material, Training], Candidate]
SCRATCH = Wish("scratch")


@dataclass(frozen=True)
class Run:
    """One walk along the chain.

    Attributes
    ----------
    known : pair -> its candles
    lesson : how a training that is due at a boundary is run
    forgiving : a training that fails is tried again a step later instead of ending the walk, as
        one is for which there are too few candles
    stopped : whether the walk is to end; a training that failed then did not fail
    network : begins the network from scratch of a boundary, and gives what waits for it; None: it
        is trained when it is asked for
    tell : whom, that a chain cannot be gone on from
    panels : what is learnt from, kept from one training to the next until the walk ends
    """

    known: Disk
    lesson: Lesson
    forgiving: bool = False
    stopped: Callable[[], bool] = lambda: False
    network: Callable[[Material], Callable[[], Candidate]] | None = None
    tell: Callable[[str], object] = logger.warning
    panels: Panels = field(default_factory=Panels)


class Ahead:
    """Trains for one walk; for `with`: at the end what is not done yet is given up.

    Parameters
    ----------
    gather : what there is to learn from at a boundary
    make : trains a network from it
    lesson : boundary -> how that training is run
    boundaries : where the walk may ask for networks, rising
    threads : that trainings share, see `at_once`

    Examples
    --------
    >>> from types import SimpleNamespace as Material
    >>> gather, lesson = lambda at: Material(boundary_ms=at), lambda at: Training()
    >>> make = lambda material, training: f"network of {material.boundary_ms}"
    >>> with Ahead(gather, make, lesson, [1, 2], threads=1) as ahead:
    ...     ahead.network(gather(1))()
    'network of 1'
    """

    def __init__(
        self, gather: Callable[[int], Material], make: Make, lesson: Callable[[int], Training],
        boundaries: Sequence[int], threads: int,
    ) -> None:  # fmt: skip
        self._gather, self._make, self._lesson = gather, make, lesson
        self._boundaries = tuple(boundaries)
        self._workers = ThreadPoolExecutor(at_once(threads), "lstm-ahead")
        self._made: dict[int, Future[Candidate]] = {}
        self._over = threading.Event()

    def network(self, material: Material) -> Callable[[], Candidate]:
        """Begin that of a boundary, of which there is the material, and those of later ones.

        Returns
        -------
        What waits for it. That may raise DataError, TrainingError or StoreError: it could not be
        made.
        """
        now_ms = material.boundary_ms
        if now_ms not in self._made:  # those not begun have to come after it
            self._made = {at: made for at, made in self._made.items() if not made.cancel()}
            self._made[now_ms] = self._workers.submit(self._train, now_ms, material)
        for later_ms in self._boundaries:
            if later_ms > now_ms and later_ms not in self._made:
                self._made[later_ms] = self._workers.submit(self._train, later_ms)
        return self._made.pop(now_ms).result

    @property
    def ready(self) -> int:
        """Networks that are made and were not asked for yet."""
        return sum(future.done() for future in self._made.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._over.set()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _train(self, boundary_ms: int, needed: Material | None = None) -> Candidate:
        training = self._lesson(boundary_ms)._replace(stop=self._over, ahead=needed is None)
        material = needed or self._gather(boundary_ms)
        if self._over.is_set():  # else a process would be started for what is given up
            raise TrainingError("the training was stopped")
        return self._make(material, training)
