"""What candles to train on are seen without is said once for each pair, with what gets it."""

from __future__ import annotations

import numpy as np
import pytest
from series import START_MS, make_candles, with_context

from lstm_model.features.closed_candle import WARM_UP
from lstm_model.market.candles import Candles, unknown_context
from lstm_model.training.absence import Absence

COUNT = WARM_UP + 1_000
PLAIN = make_candles(COUNT, pair="ETH/USDT")
WHOLE = with_context(PLAIN)


def without(share: float, *names: str) -> Candles:
    """A share of the candles after the warm-up, the first, does not know these."""
    context = WHOLE.context.copy()
    for name in names:
        context[name][: WARM_UP + round(share * 1_000)] = np.nan
    return PLAIN.with_context(context)


def told(caplog: pytest.LogCaptureFixture, *series: Candles, leader: str = "BTC/USDT") -> list[str]:
    caplog.clear()
    absence = Absence(leader or None, "5m")
    for _ in range(3):  # a run asks at every step
        absence.tell(series)
    return [record.message for record in caplog.records]


def test_an_unknown_leader_is_told_once_with_the_command_that_gets_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [text] = told(caplog, without(1.0, "leader_return_1"))
    assert text == (
        "ETH/USDT: what BTC/USDT did is known of 0 % of the candles to train on; if BTC/USDT is "
        "that old, run `freqtrade download-data --pairs BTC/USDT --timeframes 5m --timerange "
        "20230913- --prepend`"
    )


def test_unknown_days_before_are_told_with_the_command_that_gets_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [text] = told(caplog, without(0.3, "variance_60d"))
    assert text.startswith(
        "ETH/USDT: how volatile the 60 days before were is known of 70 % of the candles to train on"
    )
    assert "`freqtrade download-data --pairs ETH/USDT --timeframes 5m --timerange" in text
    assert int(PLAIN.date_ms[0]) == START_MS


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.05, 0), (0.06, 2)])
def test_a_twentieth_may_be_unknown(
    caplog: pytest.LogCaptureFixture, share: float, count: int
) -> None:
    assert len(told(caplog, without(share, "leader_return_1", "variance_60d"))) == count


def test_each_pair_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    other = make_candles(COUNT, pair="ADA/USDT")
    unknown = other.with_context(unknown_context(other.date_ms))
    texts = told(caplog, without(1.0, "leader_return_1"), unknown)
    assert [text.split(":")[0] for text in texts] == ["ETH/USDT", "ADA/USDT", "ADA/USDT"]


def test_who_has_no_leader_or_no_context_is_not_told_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert told(caplog, without(1.0, "leader_return_1"), leader="") == []
    assert told(caplog, without(1.0, "leader_return_1"), leader="ETH/USDT") == []
    assert told(caplog, PLAIN, PLAIN.rows(0, 10)) == []
