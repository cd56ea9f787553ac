"""Candles on disk, continued by those the bot saw; nothing twice, nothing lost, nothing read twice.

Order flow follows the candles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from series import START_MS, STEP_MS, make_candles, same_bits

from lstm_model.errors import DataError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.features.context import Contexts
from lstm_model.market.candles import CONTEXT, Candles, Records, unknown_context, unknown_flow
from lstm_model.market.history import CandleHistory, digest_of
from lstm_model.settings import Settings

BTC = make_candles(700)
ETH = make_candles(700, seed=1, pair="ETH/USDT")
FLOWING = Settings(order_flow=True)
KEPT = 400  # candles


class Disk:
    """A data directory that notes what is read."""

    def __init__(self, series: Sequence[Candles]) -> None:
        self.series = {candles.pair: candles for candles in series}
        self.read: list[str] = []

    def __call__(self, pair: str) -> Candles | None:
        self.read.append(pair)
        return self.series.get(pair)


def history_of(
    *series: Candles, settings: Settings = FLOWING, stored: Records | None = None
) -> CandleHistory:
    """History whose data directory holds `series` and, of every pair, this flow."""
    flow = None if stored is None else lambda _: stored
    return CandleHistory(settings, Disk(series), flow, KEPT * STEP_MS)


def closes(history: CandleHistory, pair: str = "BTC/USDT") -> np.ndarray:
    known = history.of(pair)
    assert known is not None
    return known.close


def covered(candles: Candles, coverage: float = 1.0) -> Candles:
    """The candles with a flow of which only the coverage is told."""
    flow = unknown_flow(candles.date_ms)
    flow["coverage"] = coverage
    return candles.with_flow(flow)


def flow_of(candles: Candles | None) -> Records:
    assert candles is not None
    assert candles.flow is not None
    return candles.flow


def test_history_is_the_disk_continued_by_what_the_bot_saw() -> None:
    history = history_of(BTC.rows(0, 500))
    history.remember(BTC.rows(400, 700))
    assert same_bits(closes(history), BTC.close)
    assert history.of("ETH/USDT") is None


def test_a_pair_that_is_not_on_disk_is_known_by_what_the_bot_saw() -> None:
    history = history_of(BTC)
    history.remember(ETH.rows(10, 20))
    history.remember(ETH.rows(0, 0))
    assert same_bits(closes(history, "ETH/USDT"), ETH.close[10:20])


def test_what_the_bot_saw_replaces_no_candle_on_disk() -> None:
    history = history_of(BTC.rows(0, 500))
    other = make_candles(700, seed=9)
    history.remember(other.rows(400, 700))
    assert same_bits(closes(history), np.concatenate([BTC.close[:500], other.close[500:]]))


def test_no_candle_the_bot_saw_is_forgotten_while_it_is_of_use() -> None:
    """A bot runs for weeks after the last download, and sees a few hundred candles at a time."""
    history = history_of(BTC.rows(0, 500))
    for end in range(301, 700, 50):
        history.remember(BTC.rows(end - 300, end))
    assert same_bits(closes(history), BTC.close[:651])


def test_what_is_too_old_to_be_of_use_is_let_go() -> None:
    history = history_of()
    for end in range(100, 700, 100):
        history.remember(BTC.rows(end - 100, end))
    assert same_bits(closes(history), BTC.close[600 - KEPT - 1 : 600])


def test_pairs_that_left_are_let_go() -> None:
    history = history_of(BTC.rows(0, 500))
    history.remember(BTC)
    history.remember(ETH.rows(0, 300))
    history.forget_all_but({"ETH/USDT", "NEW/USDT"})
    assert same_bits(closes(history), BTC.close[:500])
    assert same_bits(closes(history, "ETH/USDT"), ETH.close[:300])
    history.forget_all_but([])
    assert history.of("ETH/USDT") is None


def test_what_is_known_since_a_time_is_read_once_and_trimmed() -> None:
    disk = Disk([BTC.rows(0, 500)])
    history = CandleHistory(FLOWING, disk, None, KEPT * STEP_MS)
    history.remember(BTC.rows(450, 600))
    known = history.since(START_MS + 300 * STEP_MS)
    assert not disk.read
    for _ in range(3):
        found = known("BTC/USDT")
        assert found is not None
        assert same_bits(found.close, BTC.close[300:600])
        assert known("ETH/USDT") is None
    assert disk.read == ["BTC/USDT", "ETH/USDT"]


def test_who_asks_anew_what_is_known_gets_what_came_meanwhile() -> None:
    history = history_of(BTC.rows(0, 500))
    before = history.since(START_MS)
    assert len(before("BTC/USDT") or ()) == 500
    history.remember(BTC.rows(450, 600))
    assert len(before("BTC/USDT") or ()) == 500
    assert len(history.since(START_MS)("BTC/USDT") or ()) == 600


def test_candles_get_the_stored_flow_only_when_it_is_wanted() -> None:
    stored = flow_of(covered(BTC.rows(100, 200)))
    assert history_of(settings=Settings(), stored=stored).with_flow(BTC) is BTC
    found = flow_of(history_of(stored=stored).with_flow(BTC))
    assert np.flatnonzero(found["coverage"]).tolist() == list(range(100, 200))
    assert not flow_of(history_of().with_flow(BTC))["coverage"].any()


@pytest.mark.parametrize("stored_coverage", [0.5, 0.8])
def test_of_stored_and_carried_flow_the_one_that_covers_more_is_taken(
    stored_coverage: float,
) -> None:
    stored = flow_of(covered(BTC.rows(100, 200), stored_coverage))
    found = flow_of(history_of(stored=stored).with_flow(covered(BTC.rows(150, 250), 0.6)))
    assert found["coverage"].tolist() == [max(stored_coverage, 0.6)] * 50 + [0.6] * 50


def test_what_the_bot_saw_gets_the_flow_that_was_stored_since() -> None:
    stored = flow_of(covered(BTC.rows(0, 650)))
    history = history_of(BTC.rows(0, 500).with_flow(stored[:500]), stored=stored)
    history.remember(covered(BTC.rows(400, 700), 0.3))
    found = flow_of(history.of("BTC/USDT"))
    assert found["coverage"].tolist() == [1.0] * 650 + [0.3] * 50


# ---- what candles are seen in ----------------------------------------------------------------


def led_history(*series: Candles, leader: str | None = "BTC/USDT") -> CandleHistory:
    return CandleHistory(Settings(), Disk(series), None, KEPT * STEP_MS, Contexts(leader))


def test_the_days_of_pairs_that_left_are_let_go() -> None:
    contexts = Contexts("BTC/USDT")
    history = CandleHistory(Settings(), Disk([BTC, ETH]), None, KEPT * STEP_MS, contexts)
    history.prepare(["BTC/USDT", "ETH/USDT"])
    assert set(contexts._days) == {"BTC/USDT", "ETH/USDT"}
    history.forget_all_but([])
    assert set(contexts._days) == {"BTC/USDT"}  # the leader


def test_a_pair_whose_file_is_damaged_has_what_the_bot_saw_and_costs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for damaged in ("BTC/USDT", "ETH/USDT"):  # the leader, and one of those that it leads
        disk = Disk([BTC, ETH])

        def read(pair: str, damaged: str = damaged, disk: Disk = disk) -> Candles | None:
            if pair == damaged:
                raise DataError(f"{pair}: not in order of time")
            return disk(pair)

        history = CandleHistory(Settings(), read, None, KEPT * STEP_MS, Contexts("BTC/USDT"))
        known = history.since(START_MS)
        lengths = {pair: known(pair) for pair in ("BTC/USDT", "ETH/USDT")}
        assert [pair for pair, found in lengths.items() if found is None] == [damaged]
        history.remember({"BTC/USDT": BTC, "ETH/USDT": ETH}[damaged].rows(600, 700))
        seen = history.since(START_MS)(damaged)
        assert seen is not None
        assert len(seen) == 100
        assert any(damaged in record.message for record in caplog.records)
        with pytest.raises(DataError):  # a study says so
            history.of("ETH/USDT")


def test_the_leader_stays_when_pairs_leave() -> None:
    history = led_history()
    history.remember(BTC)
    history.remember(ETH)
    history.forget_all_but(["NEW/USDT"])
    assert history.of("ETH/USDT") is None
    assert history.leader == "BTC/USDT"
    assert history.of("BTC/USDT") is not None


def test_what_is_known_carries_what_it_is_seen_in() -> None:
    history = led_history(BTC, ETH)
    known, since = history.of("ETH/USDT"), history.since(START_MS + 400 * STEP_MS)("ETH/USDT")
    assert known is not None
    assert since is not None
    led = known.context["leader_return_1"]
    assert np.isfinite(led[WARM_UP:]).all()
    assert same_bits(since.context["leader_return_1"], led[400:])
    again = history.of("ETH/USDT")
    assert again.context is known.context  # found, not computed anew


def test_what_candles_are_seen_in_is_let_go_with_them() -> None:
    disk: dict[str, Candles] = {"BTC/USDT": BTC.copy(), "ETH/USDT": ETH.copy()}
    history = CandleHistory(Settings(), disk.get, None, KEPT * STEP_MS, Contexts("BTC/USDT"))
    history.of("ETH/USDT"), history.of("BTC/USDT")
    assert set(history._contexts_of._known) == {"BTC/USDT", "ETH/USDT"}
    disk["BTC/USDT"] = BTC.rows(0, 600)
    assert not history._contexts_of._known
    known = history.of("ETH/USDT")
    assert np.isnan(known.context["leader_return_1"][600:]).all()


def test_a_file_that_cannot_be_read_costs_a_bot_what_it_holds_and_no_forecast(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(pair: str) -> Candles | None:
        raise DataError(f"{pair}: 2 duplicate candle(s)")

    history = CandleHistory(Settings(), broken, None, KEPT * STEP_MS, Contexts("BTC/USDT"))
    history.remember(BTC)
    found = history.with_context(ETH).context
    assert np.isfinite(found["leader_return_1"][-100:]).all()
    assert "ETH/USDT: the candles before cannot be read: ETH/USDT: 2 duplicate" in caplog.text


def test_what_a_bot_is_prepared_for_is_read_once_and_before() -> None:
    disk = Disk([BTC, ETH])
    history = CandleHistory(Settings(), disk, None, KEPT * STEP_MS, Contexts("BTC/USDT"))
    history.prepare(["BTC/USDT", "ETH/USDT"])
    before = len(disk.read)
    for count in (500, 520):
        history.with_context(ETH.rows(count - 10, count))
    assert len(disk.read) == before


def test_nobody_who_asks_for_no_context_gets_one() -> None:
    history = history_of(BTC, settings=Settings())
    assert history.leader is None
    assert history.of("BTC/USDT").context is None
    assert history.with_context(BTC) is BTC
    empty = BTC.rows(0, 0)
    assert led_history(BTC).with_context(empty) is empty


def test_a_digest_changes_with_what_candles_are_seen_in() -> None:
    plain = ETH.with_context(unknown_context(ETH.date_ms))
    digests = {digest_of([each], Settings()) for each in (ETH, plain)}
    for name in CONTEXT.names[1:]:
        context = plain.context.copy()
        context[name][7] = 0.5
        digests.add(digest_of([ETH.with_context(context)], Settings()))
    assert len(digests) == 2 + len(CONTEXT.names) - 1
    turned = plain.context.copy()
    turned["variance_1d"] = -np.nan  # another unknown
    assert digest_of([ETH.with_context(turned)], Settings()) in digests
