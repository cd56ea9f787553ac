"""Networks that are trained before a walk asks for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lstm_model.errors import DataError, TrainingError
from lstm_model.learning.run import Ahead
from lstm_model.training.maker import Training


class Maker:
    """Notes what is made, and makes it when it is let."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, bool]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, material: Any, training: Training) -> Any:
        boundary_ms = material.boundary_ms
        self.begun.append((boundary_ms, training.ahead))
        while not self.go.wait(0.005):
            if training.stop.is_set():
                raise TrainingError("the training was stopped")
        if boundary_ms == 13:
            raise DataError("too little history")
        return f"network of {boundary_ms}"


def ahead_of(make: Maker, *boundaries: int, threads: int = 2) -> Ahead:
    return Ahead(at, make, lambda _: Training(), boundaries, threads)


def at(boundary_ms: int) -> Any:
    return SimpleNamespace(boundary_ms=boundary_ms)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 5.0
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_nothing_is_trained_before_the_first_is_asked_for() -> None:
    """Who finds everything in the store asks for none."""
    make = Maker()
    with ahead_of(make, 1, 2, 3):
        time.sleep(0.05)
    assert make.begun == []


def test_when_one_is_asked_for_those_of_later_boundaries_are_begun() -> None:
    make = Maker()
    with ahead_of(make, 1, 2, 3, 4) as ahead:
        assert ahead.network(at(2))() == "network of 2"
        wait_until(lambda: ahead.ready == 2)
        assert [ahead.network(at(late))() for late in (3, 4)] == ["network of 3", "network of 4"]
        assert ahead.ready == 0
    assert sorted(make.begun) == [(2, False), (3, True), (4, True)]


def test_one_that_nobody_foresaw_does_not_wait_for_all_later_ones() -> None:
    make = Maker()
    with ahead_of(make, 1, 10, 20, 30) as ahead:
        make.go.clear()
        first = ahead.network(at(1))
        wait_until(lambda: len(make.begun) == 1)
        unforeseen = ahead.network(at(5))
        make.go.set()
        assert first() == "network of 1"
        assert unforeseen() == "network of 5"
        assert ahead.network(at(30))() == "network of 30"
    assert [boundary for boundary, _ in make.begun] == [1, 5, 10, 20, 30]


def test_one_that_nobody_foresaw_is_trained_when_it_is_asked_for() -> None:
    make = Maker()
    with ahead_of(make, 1, 5) as ahead:
        assert ahead.network(at(3))() == "network of 3"
        assert ahead.network(at(5))() == "network of 5"
    assert sorted(make.begun) == [(3, False), (5, True)]


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 1), (4, 2), (8, 4), (64, 4)])
def test_no_more_are_made_at_once_than_can_train(threads: int, most: int) -> None:
    make = Maker()
    make.go.clear()
    with ahead_of(make, *range(1, 9), threads=threads) as ahead:
        asking = threading.Thread(target=ahead.network(at(1)))
        asking.start()
        wait_until(lambda: len(make.begun) == most)
        time.sleep(0.05)
        assert len(make.begun) == most
        make.go.set()
        asking.join(5.0)
        wait_until(lambda: ahead.ready == 7)


def test_who_asks_hears_of_a_failure_and_nobody_else() -> None:
    with ahead_of(Maker(), 12, 13, 14) as ahead:
        assert ahead.network(at(12))() == "network of 12"
        wait_until(lambda: ahead.ready == 2)
        with pytest.raises(DataError, match="too little history"):
            ahead.network(at(13))()
        assert ahead.network(at(14))() == "network of 14"


def test_at_the_end_of_a_walk_what_is_not_done_is_given_up() -> None:
    make = Maker()
    with ahead_of(make, *range(1, 9)) as ahead:
        ahead.network(at(1))()
        make.go.clear()
    assert len(make.begun) < 8
    assert not [t for t in threading.enumerate() if t.name.startswith("lstm-ahead")]


def test_what_is_gathered_when_the_walk_ends_is_not_made() -> None:
    make, gathering = Maker(), threading.Event()

    def slowly(boundary_ms: int) -> Any:
        gathering.set()
        time.sleep(0.1)
        return at(boundary_ms)

    with Ahead(slowly, make, lambda _: Training(), [1, 2], 2) as ahead:
        ahead.network(at(1))()
        gathering.wait(5.0)
    assert make.begun == [(1, False)]
