"""No entry is sent while it is unknown what became of the one before."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.errors import StoreError
from lstm_model.orders.book import Book, Intent
from lstm_model.orders.guard import Guard
from lstm_model.orders.standing import Owned, Placed, Standing, unowned
from lstm_model.trading.sizing import REFUSED, UNKNOWN_ACCOUNT, UNKNOWN_ORDER

PAIR, OTHER = "BTC/USDT:USDT", "ETH/USDT:USDT"
PAIRS = (PAIR, OTHER)
CANDLE_MS, NOW_MS, LOOK_MS = 300_000, 1_700_000_000_000, 10_000
RATE = {PAIR: 100.0, OTHER: 10.0}
LEAST = {PAIR: 0.01, OTHER: 0.1}


def held(asked_ms: int, *placed: Placed, **positions: float) -> Standing:
    """An account that was asked at that moment; positions by base currency."""
    by_pair = {f"{base}/USDT:USDT": amount for base, amount in positions.items()}
    return Standing(asked_ms, by_pair, placed, RATE, LEAST)


def intent(pair: str = PAIR, time_ms: int = NOW_MS, orders: int = 0, side: int = 1) -> Intent:
    return Intent(pair, side, 0.5, RATE[pair], time_ms, orders)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "orders" / "bot.json")


def opened(book: Book, *, keeps: bool = False, empty: bool = True) -> Guard:
    """A guard; `empty`: the exchange has told that there is nothing."""
    guard = Guard(book, CANDLE_MS, keeps=keeps)
    if empty:
        guard.judge({}, held(NOW_MS - 1), PAIRS, NOW_MS - 1)
    return guard


def code(guard: Guard, pair: str = PAIR, now_ms: int = NOW_MS) -> str:
    denied = guard.denial(pair, now_ms)
    return "" if denied is None else denied.code


def test_before_the_first_answer_no_entry_is_sent(book: Book) -> None:
    guard = opened(book, empty=False)
    assert code(guard) == UNKNOWN_ACCOUNT
    guard.judge({}, held(NOW_MS), PAIRS, NOW_MS)
    assert code(guard) == ""


def test_an_entry_that_became_a_trade_is_known_in_the_next_loop(book: Book) -> None:
    guard = opened(book)
    guard.intend(intent())
    assert code(guard) == UNKNOWN_ORDER
    assert code(guard, OTHER) == ""
    owned = {PAIR: Owned(0.5, orders=frozenset({"1"}), since_ms=NOW_MS + 200)}
    guard.judge(owned, None, PAIRS, NOW_MS + 5_000)
    assert code(guard) == ""
    assert not guard.waiting


def test_a_lost_order_blocks_its_pair_is_told_once_and_counts(book: Book) -> None:
    guard = opened(book)
    guard.intend(intent())
    lost = Placed("7", PAIR, 1, 0.5, 99.0)
    for seconds in (10, 20, 30, 40):
        asked_ms = NOW_MS + 1_000 * seconds
        guard.judge({}, held(asked_ms, lost), PAIRS, asked_ms)
        assert code(guard) == UNKNOWN_ORDER
        assert dict(guard.exposures()) == {PAIR: 49.5}
    (told,) = guard.news
    assert "id 7" in told
    filled = held(NOW_MS + 50_000, BTC=0.5)
    guard.judge({}, filled, PAIRS, NOW_MS + 50_000)
    assert dict(guard.exposures()) == {PAIR: 50.0}
    assert code(guard) == UNKNOWN_ORDER
    for seconds in (60, 70, 80):
        asked_ms = NOW_MS + 1_000 * seconds
        guard.judge({}, held(asked_ms), PAIRS, asked_ms)
    assert code(guard, now_ms=NOW_MS + 10 * CANDLE_MS) == ""
    assert not dict(guard.exposures())


def test_while_nothing_is_seen_the_intent_itself_counts(book: Book) -> None:
    guard = opened(book)
    guard.intend(intent(side=-1))
    assert dict(guard.exposures()) == {PAIR: -50.0}


def test_a_refused_entry_is_sent_again_ever_more_seldom(book: Book) -> None:
    guard, now_ms, pauses = opened(book), NOW_MS, []
    for _ in range(9):
        guard.intend(intent(time_ms=now_ms))
        for _ in range(2):
            now_ms += LOOK_MS
            guard.judge({}, held(now_ms), PAIRS, now_ms)
        assert code(guard, now_ms=now_ms) == REFUSED
        free_ms = now_ms
        while code(guard, now_ms=free_ms):
            free_ms += CANDLE_MS
        pauses.append((free_ms - now_ms) // CANDLE_MS)
        now_ms = free_ms
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert len(guard.news) == 1
    assert "3 entries in a row" in guard.news[0]
    guard.intend(intent(time_ms=now_ms))
    guard.judge({PAIR: Owned(0.5, since_ms=now_ms)}, None, PAIRS, now_ms)
    assert code(guard, now_ms=now_ms) == ""


def test_one_look_is_not_enough_to_free_a_pair(book: Book) -> None:
    """An exchange may be late in showing what it has accepted."""
    guard = opened(book)
    guard.intend(intent())
    guard.judge({}, held(NOW_MS + 1), PAIRS, NOW_MS + 1)
    guard.judge({}, held(NOW_MS + 2), PAIRS, NOW_MS + 2)
    assert code(guard) == UNKNOWN_ORDER
    guard.judge({}, held(NOW_MS + 9_000, BTC=0.5), PAIRS, NOW_MS + 9_000)
    for later in (9_500, 12_000):
        guard.judge({}, held(NOW_MS + later), PAIRS, NOW_MS + later)
    assert guard.waiting, "what was seen in between begins the waiting anew"


def test_an_order_of_another_thread_has_time_until_its_answer(book: Book) -> None:
    """`/forcelong` is executed in Telegram's thread."""
    guard = opened(book)
    thread = threading.Thread(target=guard.intend, args=(intent(),))
    thread.start()
    thread.join()
    for later in (LOOK_MS, 3 * LOOK_MS, 6 * LOOK_MS):
        guard.judge({}, held(NOW_MS + later), PAIRS, NOW_MS + later)
        assert guard.waiting
    for later in (125_000, 140_000):
        guard.judge({}, held(NOW_MS + later), PAIRS, NOW_MS + later)
    assert not guard.waiting


def test_an_intent_survives_the_process(book: Book) -> None:
    opened(book).intend(intent())
    after = opened(Book(book.path), empty=False)
    assert after.waiting == (intent(),)
    after.judge({}, held(NOW_MS + 1, BTC=0.5), PAIRS, NOW_MS + 1)
    assert code(after) == UNKNOWN_ORDER
    assert dict(after.exposures()) == {PAIR: 50.0}


def test_a_trade_opened_and_closed_at_once_is_no_refusal(book: Book) -> None:
    guard = opened(book)
    guard.intend(intent())
    guard.judge({PAIR: Owned(0.0, since_ms=NOW_MS + 100)}, None, PAIRS, NOW_MS + 5_000)
    assert code(guard, now_ms=NOW_MS + 5_000) == ""


def test_what_is_settled_by_hand_is_looked_at_at_once(book: Book) -> None:
    guard = opened(book)
    guard.intend(intent())
    for later in (1, LOOK_MS):
        guard.judge({}, held(NOW_MS + later, BTC=0.5), PAIRS, NOW_MS + later)
    Book(book.path).settle(PAIR, intent())
    guard.judge({}, None, PAIRS, NOW_MS + 2 * LOOK_MS)
    assert guard.in_doubt
    assert code(guard) == UNKNOWN_ORDER
    guard.judge({}, held(NOW_MS + 3 * LOOK_MS), PAIRS, NOW_MS + 3 * LOOK_MS)
    assert not guard.in_doubt
    assert code(guard) == ""


def of_trade(entries: int, orders: int, amount: float = 1.0) -> dict[str, Owned]:
    ids = frozenset(str(number) for number in range(orders))
    return {PAIR: Owned(amount, orders=ids, since_ms=NOW_MS - 10, entries=entries)}


def test_an_addition_is_known_by_the_entries_of_its_trade(book: Book) -> None:
    """A stop that freqtrade places anew is another order of the trade as well."""
    guard = opened(book)
    guard.intend(intent(orders=1))
    guard.judge(of_trade(1, 2), None, PAIRS, NOW_MS + 1)
    assert code(guard) == UNKNOWN_ORDER
    guard.judge(of_trade(1, 3), None, PAIRS, NOW_MS + 2)
    assert code(guard) == UNKNOWN_ORDER
    guard.judge(of_trade(2, 4), None, PAIRS, NOW_MS + 3)
    assert code(guard) == ""
    assert not guard.waiting


def test_an_order_is_not_forgotten_with_the_trade_that_it_was_of(book: Book) -> None:
    """freqtrade deletes a trade whose only entry was cancelled, also if the next one is lost."""
    guard = opened(book)
    guard.intend(intent(orders=1))
    lost = Placed("7", PAIR, 1, 0.5, 99.0)
    for seconds in (5, 15, 25):
        asked_ms = NOW_MS + 1_000 * seconds
        guard.judge({}, held(asked_ms, lost), PAIRS, asked_ms)
        assert code(guard) == UNKNOWN_ORDER
    for seconds in (35, 45, 55):
        asked_ms = NOW_MS + 1_000 * seconds
        guard.judge({}, held(asked_ms), PAIRS, asked_ms)
    assert code(guard) == ""


def test_a_lost_addition_counts_beside_its_trade(book: Book) -> None:
    guard = opened(book)
    trade = Owned(1.0, orders=frozenset({"1"}), since_ms=NOW_MS - 10, entries=1)
    guard.intend(intent(orders=1))
    for later in (1, LOOK_MS):
        guard.judge({PAIR: trade}, held(NOW_MS + later, BTC=1.5), PAIRS, NOW_MS + later)
    ((pair, amount),) = guard.exposures()
    assert pair == PAIR
    assert amount == pytest.approx(50.0, rel=0.01)
    assert len(guard.news) == 1


def test_an_exchange_that_is_silent_stops_entries_until_it_answers(book: Book) -> None:
    guard = opened(book)
    guard.fail("RequestTimeout")
    assert code(guard) == code(guard, OTHER) == UNKNOWN_ACCOUNT
    guard.judge({}, held(NOW_MS + 1), PAIRS, NOW_MS + 1)
    assert code(guard) == ""


def test_an_orphaned_stop_blocks_but_puts_nothing_at_stake(book: Book) -> None:
    guard = opened(book)
    stop = Placed("8", PAIR, -1, 0.5, 95.0, reduces=True)
    for later in (1, LOOK_MS):
        guard.judge({}, held(NOW_MS + later, stop), PAIRS, NOW_MS + later)
    assert code(guard) == UNKNOWN_ORDER
    assert not dict(guard.exposures())
    assert "can only reduce" in guard.news[0]


def account(*placed: Placed, amount: float = 0.0) -> Standing:
    return held(NOW_MS, *placed, BTC=amount)


@pytest.mark.parametrize(
    ("standing", "owned", "consequence"),
    [
        (account(amount=0.5), 0.0, "It has no stop and no exit of the bot's."),
        (account(amount=0.2), 0.5, "A stop or an exit of those trades may be refused."),
        (account(Placed("7", PAIR, 1, 0.5, 99.0)), 0.0, "it is a position without a stop"),
        (account(Placed("8", PAIR, -1, 0.5, 95.0, reduces=True)), 0.0, "made a trade of this pair"),
    ],
    ids=["position", "less than held", "entry", "exit or stop"],
)  # fmt: skip
def test_what_it_means_for_the_user_is_told_by_what_it_is(
    book: Book, standing: Standing, owned: float, consequence: str
) -> None:
    guard = opened(book)
    known = {PAIR: Owned(owned, orders=frozenset({"1"}))} if owned else {}
    for later in (1, LOOK_MS):
        asked_ms = NOW_MS + later
        guard.judge(known, replace(standing, asked_ms=asked_ms), PAIRS, asked_ms)
    (told,) = guard.news
    assert consequence in told


def test_what_a_spot_account_held_before_is_the_users_own(book: Book) -> None:
    guard = opened(book, keeps=True, empty=False)
    guard.judge({}, held(NOW_MS, BTC=2.0, ETH=0.05), PAIRS, NOW_MS)
    assert code(guard) == code(guard, OTHER) == ""
    assert "2 of BTC" in guard.news.popleft()
    for later in (1, LOOK_MS):  # more than that has come about since
        guard.judge({}, held(NOW_MS + later, BTC=2.5), PAIRS, NOW_MS + later)
    assert code(guard) == UNKNOWN_ORDER
    assert dict(guard.exposures()) == {PAIR: 50.0}
    for later in (1, 2):  # some of it is sold by hand, and bought again by nobody knows whom
        guard.judge({}, held(NOW_MS + 2 * LOOK_MS + later, BTC=1.0), PAIRS, NOW_MS + 30_000)
    assert code(guard) == ""
    guard.judge({}, held(NOW_MS + 40_000, BTC=2.0), PAIRS, NOW_MS + 40_000)
    assert dict(guard.exposures()) == {PAIR: 100.0}


def test_what_comes_with_a_lost_entry_is_not_the_users_own(book: Book) -> None:
    guard = Guard(book, CANDLE_MS, keeps=True)
    guard.intend(intent())
    for later in (1, LOOK_MS):
        guard.judge({}, held(NOW_MS + later, BTC=0.5), PAIRS, NOW_MS + later)
    assert code(guard) == UNKNOWN_ORDER


def test_a_damaged_book_is_set_aside_and_told_and_then_nothing_is_taken_for_granted(
    book: Book,
) -> None:
    opened(book).intend(intent())
    book.path.write_bytes(book.path.read_bytes()[:40])
    guard = opened(book, keeps=True, empty=False)
    assert "cannot be read" in guard.news.popleft()
    assert book.path.with_suffix(".damaged").exists()
    guard.judge({}, held(NOW_MS, BTC=2.0), PAIRS, NOW_MS)
    assert code(guard) == UNKNOWN_ORDER


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b'{"form": 2}', b"\xff\xfe"])
def test_whatever_stands_in_the_book_is_read_or_refused_by_name(book: Book, content: bytes) -> None:
    book.path.parent.mkdir()
    book.path.write_bytes(content)
    with pytest.raises(StoreError, match="book of orders"):
        book.read()


def test_the_book_says_what_was_written(book: Book) -> None:
    written = book.change(intents={PAIR: intent()}, kept={OTHER: 1.5}, keeps=False)
    assert book.read() == written
    assert json.loads(book.path.read_bytes())["form"] == 1


AMOUNTS = st.floats(-5.0, 5.0, allow_nan=False)


@given(AMOUNTS, st.floats(0.0, 3.0), st.floats(0.0, 3.0), st.floats(0.0, 1.0))
def test_what_waiting_orders_may_have_filled_is_explained(
    amount: float, bought: float, sold: float, share: float
) -> None:
    owned = {PAIR: Owned(amount, bought, sold)}
    for filled in (share * bought, -share * sold):
        assert not list(unowned(held(0, BTC=amount + filled), owned, {}, [PAIR]))


@given(AMOUNTS, AMOUNTS)
def test_what_no_trade_explains_is_found_to_the_least_amount(amount: float, extra: float) -> None:
    seen = list(unowned(held(0, BTC=amount + extra), {PAIR: Owned(amount)}, {}, [PAIR]))
    if abs(extra) > 0.003 * abs(amount) + LEAST[PAIR] + 1e-9:
        (one,) = seen
        assert one.amount == pytest.approx(extra, abs=0.003 * abs(amount) + 1e-9)
    if abs(extra) <= LEAST[PAIR]:
        assert not seen


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "lose open", "lose filled", "refuse", "look", "fail", "restart"]),
        st.sampled_from(PAIRS),
    ),
    max_size=30,
)


@pytest.mark.lengthy
@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_no_second_order_is_sent_while_one_may_be_on_the_exchange(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    """An exchange, freqtrade's trades and the guard, in whatever order things happen."""
    book = Book(tmp_path_factory.mktemp("orders") / "bot.json")
    guard, now_ms = opened(book), NOW_MS
    owned: dict[str, Owned] = {}
    positions: dict[str, float] = {}
    placed: list[Placed] = []
    lost: set[str] = set()
    for number, (what, pair) in enumerate(steps):
        now_ms += LOOK_MS
        guard.judge(owned, None, PAIRS, now_ms)
        if what == "look":
            seen = {name.split("/")[0]: amount for name, amount in positions.items()}
            guard.judge(owned, held(now_ms, *placed, **seen), PAIRS, now_ms)
        elif what == "fail":
            guard.fail("timeout")
        elif what == "restart":
            guard = Guard(book, CANDLE_MS, keeps=False)
        elif pair not in owned and guard.denial(pair, now_ms) is None:
            assert pair not in lost, "a second order for one intent"
            guard.intend(intent(pair, now_ms))
            order = str(number)
            if what == "enter":
                owned[pair] = Owned(0.5, orders=frozenset({order}), since_ms=now_ms)
                positions[pair] = 0.5
            elif what == "lose open":
                placed.append(Placed(order, pair, 1, 0.5, RATE[pair]))
                lost.add(pair)
            elif what == "lose filled":
                positions[pair] = 0.5
                lost.add(pair)
        at_stake = dict(guard.exposures())
        assert all(at_stake.get(name, 0.0) >= 0.49 * RATE[name] for name in lost)


def test_a_trade_that_came_or_went_since_the_exchange_was_asked_is_nobodys_loss(book: Book) -> None:
    """Entered after one question and left after the next: each answer is older than the trades."""
    guard, mine = opened(book), {PAIR: Owned(0.5, since_ms=NOW_MS)}
    guard.judge(mine, held(NOW_MS + 1), PAIRS, NOW_MS + 5_000, then={})
    guard.judge({}, held(NOW_MS + 60_000, BTC=0.5), PAIRS, NOW_MS + 65_000, then=mine)
    guard.judge({}, held(NOW_MS + 70_000), PAIRS, NOW_MS + 75_000, then={})
    assert (code(guard), guard.found, [*guard.news]) == ("", (), [])
    for seconds in (80, 90):  # freqtrade has closed a trade that is still held
        asked_ms = NOW_MS + 1_000 * seconds
        guard.judge({}, held(asked_ms, BTC=0.5), PAIRS, asked_ms, then={})
    (told,) = guard.news
    assert "a position of +0.5" in told
    assert code(guard) == UNKNOWN_ORDER


def test_an_order_of_a_trade_that_ended_since_the_exchange_was_asked_is_no_stranger(
    book: Book,
) -> None:
    guard, stop = opened(book), Placed("7", PAIR, -1, 0.5, 99.0, reduces=True)
    mine = {PAIR: Owned(0.5, sold=0.5, orders=frozenset({"7"}), since_ms=NOW_MS)}
    for seconds in (10, 20):
        asked_ms = NOW_MS + 1_000 * seconds
        guard.judge({}, held(asked_ms, stop, BTC=0.5), PAIRS, asked_ms, then=mine)
    assert (guard.found, [*guard.news]) == ((), [])


def test_what_a_trade_held_when_the_exchange_was_asked_first_is_not_the_users_own(
    book: Book,
) -> None:
    guard, mine = opened(book, keeps=True, empty=False), {PAIR: Owned(0.5, since_ms=NOW_MS)}
    guard.judge({}, held(NOW_MS, BTC=0.7), PAIRS, NOW_MS + 5_000, then=mine)
    (told,) = guard.news
    assert "0.1985 of BTC" in told  # what a fee may take counts as the trade's
    assert book.read().kept[PAIR] == pytest.approx(0.2, abs=0.002)
