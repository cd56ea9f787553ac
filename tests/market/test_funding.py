"""The expected funding: what a plain loop says, by what was known then, and by nothing later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.market.candles import Floats, Ints
from lstm_model.market.funding import (
    HOUR_MS,
    KNOWN_AFTER_MS,
    STALE_AFTER_MS,
    USUAL_MS,
    expected_funding,
    is_known,
)

MINUTE_MS = 60_000
RATES = st.floats(-0.03, 0.03)
PAID = st.lists(st.tuples(st.integers(0, 200), RATES), max_size=12, unique_by=lambda it: it[0])
CLOSES = st.lists(st.integers(0, 250 * 60), min_size=1, max_size=20).map(sorted)
SPANS = st.integers(1, 48 * 60)


def arrays(paid: list[tuple[int, float]], closes: list[int]) -> tuple[Ints, Floats, Ints]:
    rows = sorted(paid)
    hours = np.array([hour for hour, _ in rows], dtype=np.int64)
    rates = np.array([rate for _, rate in rows], dtype=np.float64)
    return hours * HOUR_MS, rates, np.array(closes, dtype=np.int64) * MINUTE_MS


def told(paid_ms: Ints, rates: Floats, close_ms: int, span_ms: int) -> float:
    """The rule in words: the next payments cost what the last that is known did."""
    known = [n for n, time_ms in enumerate(paid_ms) if time_ms <= close_ms - KNOWN_AFTER_MS]
    if not known or close_ms - paid_ms[known[-1]] > STALE_AFTER_MS:
        return 0.0
    last = known[-1]
    gap_ms = min(paid_ms[last] - paid_ms[last - 1], USUAL_MS) if last else USUAL_MS
    moments = range(int(paid_ms[last]), close_ms + span_ms + 1, int(gap_ms))
    return float(rates[last] * sum(moment > close_ms for moment in moments))


@given(PAID, CLOSES, SPANS)
def test_it_is_the_last_known_rate_times_the_payments_within_the_span(
    paid: list[tuple[int, float]], closes: list[int], minutes: int
) -> None:
    paid_ms, rates, close_ms = arrays(paid, closes)
    span_ms = minutes * MINUTE_MS
    found = expected_funding(paid_ms, rates, close_ms, span_ms)
    wanted = [told(paid_ms, rates, int(close), span_ms) for close in close_ms]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=0.0)


@given(PAID, CLOSES, SPANS, PAID)
def test_no_rate_that_was_not_known_yet_changes_it(
    paid: list[tuple[int, float]], closes: list[int], minutes: int, later: list[tuple[int, float]]
) -> None:
    """What is said at a close stays, whatever is paid from then on, and however many closes are
    asked for."""
    paid_ms, rates, close_ms = arrays(paid, closes)
    span_ms, until_ms = minutes * MINUTE_MS, int(close_ms[0])
    before = expected_funding(paid_ms, rates, close_ms[:1], span_ms)
    seen = paid_ms <= until_ms - KNOWN_AFTER_MS
    more_ms, more, _ = arrays(later, closes)
    new = more_ms > until_ms - KNOWN_AFTER_MS
    other_ms, others = np.append(paid_ms[seen], more_ms[new]), np.append(rates[seen], more[new])
    np.testing.assert_array_equal(expected_funding(other_ms, others, close_ms, span_ms)[:1], before)


@pytest.mark.parametrize("rate", [0.0003, -0.0003])
@pytest.mark.parametrize(
    ("minute", "payments"),
    [(14 * 60 - 1, 0), (15 * 60 - 1, 0), (15 * 60, 1), (16 * 60 - 1, 1), (16 * 60, 0)],
)
def test_a_payment_at_the_end_is_paid_and_at_the_close_is_not(
    minute: int, payments: int, rate: float
) -> None:
    paid_ms, rates, close_ms = arrays([(0, 0.5), (8, rate)], [minute])
    assert expected_funding(paid_ms, rates, close_ms, HOUR_MS).tolist() == [payments * rate]


def test_funding_every_hour_is_paid_every_hour() -> None:
    paid_ms, rates, close_ms = arrays([(0, 0.0), (8, 0.1), (9, 0.001)], [12 * 60])
    assert expected_funding(paid_ms, rates, close_ms, 4 * HOUR_MS)[0] == pytest.approx(0.004)


def test_nothing_is_expected_where_nothing_or_only_what_is_old_is_known() -> None:
    none = np.zeros(0, np.int64)
    close_ms = np.array([15, 15 + 24]) * HOUR_MS
    assert expected_funding(none, np.zeros(0), close_ms, HOUR_MS).tolist() == [0.0, 0.0]
    assert is_known(none, close_ms).tolist() == [False, False]
    paid_ms = np.array([8]) * HOUR_MS
    assert is_known(paid_ms, close_ms).tolist() == [True, False]
    assert expected_funding(paid_ms, np.ones(1), close_ms, HOUR_MS).tolist() == [1.0, 0.0]
    unknown = np.array([np.nan])
    assert expected_funding(paid_ms, unknown, close_ms, HOUR_MS).tolist() == [0.0, 0.0]
