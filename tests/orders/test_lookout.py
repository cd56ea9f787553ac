"""The bot's loop never waits for the exchange's word, and hears of its silence."""

from __future__ import annotations

import threading
import time

import pytest

from lstm_model.errors import DataError
from lstm_model.orders.lookout import Lookout
from lstm_model.orders.standing import Standing


def test_a_look_that_hangs_is_waited_for_by_nobody() -> None:
    released = threading.Event()

    def hang() -> Standing:
        released.wait(30.0)
        return Standing(1, {}, ())

    lookout = Lookout(hang)
    lookout.want()
    began_s = time.monotonic()
    assert lookout.take() == (None, "")
    assert not lookout.idle.is_set()
    assert time.monotonic() - began_s < 1.0
    released.set()
    assert lookout.idle.wait(5.0)
    standing, _ = lookout.take()
    assert standing is not None
    assert lookout.take() == (None, "")
    lookout.stop()


def test_a_failure_is_told_and_the_next_look_is_another() -> None:
    answers = iter([DataError("RequestTimeout: no answer"), Standing(2, {}, ())])

    def ask() -> Standing:
        answer = next(answers)
        if isinstance(answer, DataError):
            raise answer
        return answer

    lookout = Lookout(ask)
    for expected in ((None, "RequestTimeout: no answer"), (Standing(2, {}, ()), "")):
        lookout.want()
        assert lookout.idle.wait(5.0)
        assert lookout.take() == expected
    lookout.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_heard_of() -> None:
    def broken() -> Standing:
        raise ZeroDivisionError

    lookout = Lookout(broken)
    lookout.want()
    until_s = time.monotonic() + 5.0
    while lookout._thread.is_alive() and time.monotonic() < until_s:
        time.sleep(0.01)
    standing, failure = lookout.take()
    assert standing is None
    assert "start the bot anew" in failure
