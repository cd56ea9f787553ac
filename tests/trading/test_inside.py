"""Between candles a fresh stream decides, a stale one leaves it to the candle, and all is told."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nowcast_world import SETTINGS, World
from series import STEP_MS

from lstm_model.features.closed_candle import WARM_UP
from lstm_model.market.candles import Floats, Freshness, Ints
from lstm_model.market.flow_store import FlowStore
from lstm_model.trading.inside import InsideCandle, OnTrades
from lstm_model.trading.outlook import Terms

PAIR, NUMBER = "BTC/USDT", WARM_UP + 40
FREE = {"slippage_fraction": 0.0, "half_spread_fraction": 0.0}
FRESH, STALE = Freshness(True, 0.1, ""), Freshness(False, 31.0, "silent for 31 s")


class StillStream:
    """A stream without an exchange; tests say what it knows."""

    def __init__(self, world: World, on_trades: OnTrades) -> None:
        self.world, self.on_trades = world, on_trades
        self.tapes = world.tapes
        self.state = FRESH
        self.news: deque[str] = deque()

    def start(self) -> None: ...

    def follow(self, pairs: Collection[str]) -> None: ...

    def stop(self) -> None: ...

    def freshness(self, pair: str) -> Freshness:
        return self.state

    def exchange_now_ms(self) -> int:
        return self.world.now_ms


def straight(name: str, work: Callable[[], Any], otherwise: Any) -> Any:
    return work()


class Desk:
    """An `InsideCandle` in the middle of an open candle."""

    def __init__(self, folder: Path, fee: float = 0.0, funding: Any = None, **options: Any) -> None:
        self.world = World([PAIR])
        settings = SETTINGS.model_copy(update=FREE | options)
        terms = Terms(settings, fee, can_short=True, funding=funding)
        self.flows = FlowStore(folder)
        self.inside = InsideCandle(
            terms, "5m", lambda on_trades: StillStream(self.world, on_trades), self.flows, straight
        )
        self.stream: Any = self.inside.stream
        self.closed = self.world.series[PAIR].rows(0, NUMBER)
        self.inside.rebase([(self.world.model, self.closed)])
        self.world.open(NUMBER, passed=0.5)

    @property
    def mean(self) -> float:
        made, _ = self.inside.current(PAIR)
        assert made is not None
        return made.mean

    @property
    def price(self) -> float:
        return float(self.world.series[PAIR].close[NUMBER])

    def towards(self) -> int:
        """The side that the nowcast favours."""
        return 1 if self.mean > 0.0 else -1


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_an_entry_with_the_nowcast_is_confirmed_and_against_it_vetoed(desk: Desk) -> None:
    side = desk.towards()
    assert not desk.inside.veto(PAIR, side, desk.price)
    assert desk.inside.veto(PAIR, -side, desk.price)


def test_the_edge_is_gone_once_the_price_has_run_away(desk: Desk) -> None:
    side, edge = desk.towards(), abs(desk.mean)
    assert not desk.inside.veto(PAIR, side, desk.price * math.exp(0.9 * side * edge))
    assert desk.inside.veto(PAIR, side, desk.price * math.exp(1.1 * side * edge))


def test_costs_count(tmp_path: Path) -> None:
    free = Desk(tmp_path)
    dear = Desk(tmp_path, fee=abs(free.mean))
    assert dear.inside.veto(PAIR, dear.towards(), dear.price)


def test_funding_counts_as_it_did_for_the_candle_that_entered(tmp_path: Path) -> None:
    side = (free := Desk(tmp_path)).towards()
    for paid, vetoed in ((1.1, True), (0.9, False), (-9.0, False)):

        def funding(pair: str, date_ms: Ints, share: float = paid) -> Floats:
            assert (pair, *date_ms.tolist()) == (PAIR, int(free.closed.date_ms[-1]))
            return np.array([share * math.expm1(free.mean)])

        desk = Desk(tmp_path, funding=funding)
        assert bool(desk.inside.veto(PAIR, side, desk.price)) is vetoed


@pytest.mark.parametrize("required", [False, True])
def test_a_stale_stream_leaves_it_to_the_candle_unless_fresh_is_required(
    tmp_path: Path, required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path, require_fresh_stream=required)
    desk.stream.state = STALE
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert bool(desk.inside.veto(PAIR, 1, desk.price)) is required
    [line] = caplog.messages
    assert "stale_stream: silent for 31 s" in line
    assert ("no entry" in line) is required
    assert not desk.inside.wants_exit(PAIR, 1, desk.price)


def test_a_verdict_is_told_once_per_candle_and_again_when_it_changes(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    side = desk.towards()
    with caplog.at_level(logging.INFO):
        for turn in (side, side, -side, -side):
            desk.inside.veto(PAIR, turn, desk.price)
        assert ["confirmed" in line for line in caplog.messages] == [True, False]
        desk.world.open(NUMBER + 1, passed=0.5)
        desk.inside.veto(PAIR, side, desk.price)
    assert len(caplog.messages) == 3
    assert "50% passed" in caplog.messages[0]


def test_a_veto_holds_when_the_stream_goes_stale_until_the_next_candle(desk: Desk) -> None:
    side = desk.towards()
    assert desk.inside.veto(PAIR, -side, desk.price)
    desk.stream.state = STALE
    assert desk.inside.veto(PAIR, -side, desk.price)
    desk.stream.state = FRESH
    assert not desk.inside.veto(PAIR, side, desk.price)
    desk.stream.state = STALE
    assert not desk.inside.veto(PAIR, side, desk.price)
    desk.stream.state = FRESH
    assert desk.inside.veto(PAIR, -side, desk.price)
    desk.world.now_ms += STEP_MS
    desk.stream.state = STALE
    assert not desk.inside.veto(PAIR, -side, desk.price)


def test_a_position_against_the_nowcast_is_left_beyond_the_slippage(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    side = desk.towards()
    assert desk.inside.wants_exit(PAIR, -side, desk.price)
    assert not desk.inside.wants_exit(PAIR, side, desk.price)
    patient = Desk(tmp_path, slippage_fraction=min(0.05, 2 * abs(desk.mean)))
    assert not patient.inside.wants_exit(PAIR, -side, desk.price)


def test_the_share_of_trades_that_are_known_is_the_newest_candles(desk: Desk) -> None:
    assert desk.inside.coverage(PAIR) == 1.0
    desk.world.series[PAIR].flow["coverage"][NUMBER] = 0.25
    assert desk.inside.coverage(PAIR) == 0.25
    desk.stream.state = STALE
    assert desk.inside.coverage(PAIR) == 0.25
    assert desk.inside.coverage("DOGE/USDT") == 1.0


def test_a_nowcast_of_an_earlier_candle_is_not_current(desk: Desk) -> None:
    assert desk.inside.current(PAIR)[0] is not None
    desk.world.now_ms += 2 * STEP_MS
    assert desk.inside.current(PAIR) == (None, "no forecast inside the candle yet")


def test_trades_of_the_stream_renew_the_nowcast(desk: Desk) -> None:
    desk.stream.on_trades({PAIR})
    first = desk.inside.nowcaster.latest(PAIR)
    desk.stream.on_trades({PAIR})
    second = desk.inside.nowcaster.latest(PAIR)
    assert first is not None
    assert second is not None
    assert second.made_ns > first.made_ns


def test_a_failure_on_the_streams_thread_costs_the_nowcast_until_the_next_candle(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guard(name: str, work: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return work()
        except ZeroDivisionError:
            return otherwise

    monkeypatch.setattr(desk.inside, "_guard", guard)
    monkeypatch.setattr(desk.world.tapes[PAIR], "newest", lambda: 1 / 0)
    desk.stream.on_trades({PAIR})
    assert desk.inside.nowcaster.based_on(PAIR) == 0


def test_only_newer_candles_move_the_base(desk: Desk) -> None:
    newest = int(desk.closed.date_ms[-1])
    desk.inside.rebase([(desk.world.model, desk.closed.rows(0, NUMBER - 3))])
    assert desk.inside.nowcaster.based_on(PAIR) == newest


def test_the_exchanges_candle_replaces_one_that_the_tape_has_carried_over(
    desk: Desk, tmp_path: Path
) -> None:
    desk.world.open(NUMBER + 1, passed=0.5)
    assert desk.inside.current(PAIR)[0] is not None  # carried over
    official = desk.world.series[PAIR].rows(0, NUMBER + 1)
    desk.inside.rebase([(desk.world.model, official)])
    fresh = Desk(tmp_path)
    fresh.inside.rebase([(fresh.world.model, official)])
    fresh.world.open(NUMBER + 1, passed=0.5)
    (given, _), (wanted, _) = desk.inside.current(PAIR), fresh.inside.current(PAIR)
    assert given is not None
    assert wanted is not None
    assert given.mean == wanted.mean


def test_the_flow_of_a_candle_is_written_down_once_a_later_trade_has_come(desk: Desk) -> None:
    """Until then trades of it may be on their way, and a complete record is never replaced."""
    desk.world.open(NUMBER - 1)
    desk.inside.save_flow(desk.closed)
    assert desk.flows.read(PAIR, "5m")["date_ms"][-1] == desk.closed.date_ms[NUMBER - 2]
    desk.world.open(NUMBER)
    desk.inside.save_flow(desk.closed)
    assert desk.flows.read(PAIR, "5m")["date_ms"][-1] == desk.closed.date_ms[NUMBER - 1]


def test_the_flow_of_closed_candles_is_written_down(desk: Desk) -> None:
    desk.inside.save_flow(desk.closed)
    stored = desk.flows.read(PAIR, "5m")
    known = desk.closed.flow[NUMBER - 13 : NUMBER]
    assert stored["date_ms"].tolist() == known["date_ms"].tolist()
    np.testing.assert_array_equal(stored["taker_base"], known["taker_base"])
    desk.inside.save_flow(desk.closed.rows(0, 0))


def test_what_is_known_of_pairs_that_left_is_let_go(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.inside.veto(PAIR, 1, 100.0)
    caster = desk.inside.nowcaster
    kept = (caster._bases, caster._latest, caster._widths._quarters, desk.inside._told)
    assert all(kept)
    desk.inside.follow([PAIR])
    assert caster.latest(PAIR) is not None
    desk.inside.follow(["OTHER/USDT"])
    left = (caster._bases, caster._latest, caster._widths._quarters, desk.inside._told)
    assert not any(left)
