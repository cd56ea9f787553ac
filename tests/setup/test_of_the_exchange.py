"""The exchange's clock and stream, as the doctor sees them; a real one speaks on 127.0.0.1."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ccxt
import pytest
from doctor_world import COMPLETE, User, healthy, only, to_be_done
from places import needs_tensorflow

from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.settings import parse_settings
from lstm_model.setup import exchange as examined
from lstm_model.setup.finding import State
from lstm_model.stream.connection import Rest

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


class Api:
    """ccxt's exchange, as far as it is asked."""

    id, apiKey = "somewhere", ""

    def __init__(self, answer: Any, **has: bool) -> None:
        self.answer, self.has = answer, {"fetchTime": True, **has}
        self.last_response_headers: dict[str, str] = {}

    async def fetch_time(self) -> float:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.sleep(3_600.0)
        return time.time() * 1e3 + self.answer


@pytest.mark.parametrize(
    ("ahead_ms", "state", "word"),
    [(300, State.GOOD, "behind"), (-300, State.GOOD, "ahead"), (-3_000, State.WARNING, "ahead"),
     (6_000, State.TODO, "6.0 s behind"), (-90_000, State.TODO, "90.0 s ahead")],
)  # fmt: skip
def test_a_clock_that_is_wrong_is_to_be_set(ahead_ms: float, state: State, word: str) -> None:
    found = asyncio.run(examined._clock(Rest(Api(ahead_ms))))
    assert (found.state, word in found.text) == (state, True)


@pytest.mark.parametrize(
    ("api", "part"),
    [
        (Api(ccxt.NetworkError("GET https://host/?signature=PLANTED")), "(NetworkError)"),
        (Api(OSError("PLANTED")), "(OSError)"),
        (Api(None), "no answer in 0.05 s"),
        (Api(0, fetchTime=False), "does not tell the time"),
    ],
)
def test_an_exchange_that_does_not_answer_is_a_note(
    api: Api, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examined, "_ANSWER_S", 0.05)
    found = asyncio.run(examined._clock(Rest(api)))
    assert (found.state, part in found.text) == (State.NOTE, True)
    assert "PLANTED" not in found.text


@pytest.mark.parametrize(
    ("has", "section", "state", "part"),
    [
        ({"watchTrades": True}, {}, State.GOOD, "by watchTrades, 50 pairs a connection"),
        ({"watchTrades": True, "watchTradesForSymbols": True}, {}, State.GOOD, "ForSymbols"),
        ({"watchTrades": True, "fetchTrades": True}, {}, State.GOOD, "missed ones by REST"),
        ({}, {}, State.WARNING, "ccxt follows no trades"),
        ({}, {"trade_stream": False}, State.GOOD, "off"),
    ],
)
def test_whether_trades_can_be_followed(
    has: dict[str, bool], section: dict[str, Any], state: State, part: str
) -> None:
    found = examined._stream(Rest(Api(0, **has)), parse_settings(section))
    assert (found.state, part in found.text) == (state, True)


@pytest.fixture(scope="module")
def practice() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("random-walk", seed=1, days=1)) as running:
        yield running


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.chdir(tmp_path)
    return healthy(tmp_path)


def at(user: User, url: str) -> None:
    address = loopback_overlay(url)["exchange"]
    assert isinstance(address, dict)
    user.configure(exchange={**COMPLETE["exchange"], **address})


@needs_tensorflow
def test_the_practice_exchange_is_one_like_others(user: User, practice: LoopbackExchange) -> None:
    at(user, practice.url)
    findings = user.examined(offline=False)
    assert to_be_done(findings) == []
    assert only(findings, "clock").state == State.GOOD
    assert "binance's" in only(findings, "clock").text


@needs_tensorflow
def test_an_exchange_that_is_not_there_is_a_note(user: User) -> None:
    at(user, "http://127.0.0.1:9")
    findings = user.examined(offline=False)
    assert to_be_done(findings) == []
    assert only(findings, "clock").state == State.NOTE
