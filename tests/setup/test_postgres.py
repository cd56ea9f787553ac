"""The doctor and a real PostgreSQL: one that serves, refuses a password, or stands still."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctor_world import LSTM, User, healthy, only
from journal_faults import DRIVERS, Server, needs_server, serving, wait_until

from lstm_model.setup import installation, stored
from lstm_model.setup.finding import State

pytestmark = [
    needs_server,
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as it:
        yield it


@pytest.fixture(params=DRIVERS or ["none"])
def user(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> User:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installation, "tensorflow_of", lambda _: "2.21.0")
    made = healthy(tmp_path)
    made.configure(lstm={**LSTM, "journal_url": server.url(request.param)})
    return made


def test_a_server_that_serves_is_good_before_a_bot_has_written_there(user: User) -> None:
    found = only(user.examined(), "journal")
    assert found.state == State.GOOD, found
    assert found.text.endswith("answers")
    assert "bot:***@127.0.0.1" in found.text


def test_a_wrong_password_is_told_and_not_shown(user: User, server: Server) -> None:
    server.demand_passwords()
    wait_until(lambda: only(user.examined(), "journal").state == State.TODO)
    found = only(user.examined(), "journal")
    assert "password authentication failed" in found.text
    assert "s3cret" not in str(found)


def test_a_server_that_stands_still_is_not_waited_for(
    user: User, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_ANSWER_S", 1.0)
    server.send(signal.SIGSTOP)
    began = time.monotonic()
    config, settings = user.loaded()
    [found] = stored.check_journal(config, settings)
    assert time.monotonic() - began < 5.0
    assert found.state == State.TODO
    assert "has not answered in 1 s" in found.text


def test_a_server_that_is_gone_is_told(user: User, server: Server) -> None:
    server.stop()
    found = only(user.examined(), "journal")
    server.start()
    assert found.state == State.TODO
    assert "make it reachable" in found.text
