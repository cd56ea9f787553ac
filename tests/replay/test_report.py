"""The report of a replay says what happened, whatever happened, and says no more."""

import math
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.model.reliability import Reliability
from lstm_model.replay.books import Agreement
from lstm_model.replay.facts import (
    Balance,
    Curve,
    Moment,
    ReplayFacts,
    Tally,
    by_exit_reason,
    by_pair,
    held_curve,
    price_change,
    reason_counts,
    wallet_curve,
)
from lstm_model.replay.pictures import SIDE, chart, stairs, time_ticks
from lstm_model.replay.report import MOST_LINES, MOST_TRADES, render_html, summary_lines
from lstm_model.replay.trade_facts import TradeFacts, TradeLife

START, MINUTE, DAY = 1_715_472_000_000, 60_000, 86_400_000
END = START + 2 * DAY
WRITTEN = {
    "lstm_forecast": {
        "mean_bps": 45.0, "horizon_candles": 12, "candle": "2024-05-11T23:55:00+00:00"
    },
    "lstm_interval": {"low_bps": -90.0, "high_bps": 150.0, "level": 0.9},
}  # fmt: skip
EMPTY_TAGS = {"meta", "line", "polyline", "polygon", "rect", "br"}


def trade(number: int = 0, **changes: object) -> TradeFacts:
    made = TradeFacts(
        "BTC/USDT", START + number * MINUTE, START + (number + 30) * MINUTE, False, "edge", "roi",
        60_000.0, 60_600.0, 0.002, 120.0, 0.008, 0.96, 0.001, 0.001,
    )  # fmt: skip
    return replace(made, **changes)


def facts(**changes: object) -> ReplayFacts:
    made = ReplayFacts(
        "recorded candles", ("BTC/USDT", "ETH/USDT"), "5m", START, END, "USDT", 1_000.0, 990.0,
        60.0, step_s=5.0, strategy="LSTMStrategy", fee_fraction=0.001, forecasts=1_152, messages=9,
        slippage_fraction=0.0012, life=TradeLife(3, trade(0), WRITTEN, 60_700.0, None, 59_000.0),
        equity=[Balance(START + DAY, 1_010.0, 1), Balance(START + DAY + MINUTE, 980.0, 2)],
        prices={
            "BTC/USDT": [(START, 60_000.0), (START + DAY, 66_000.0), (END, 63_000.0)],
            "ETH/USDT": [(START, 3_000.0), (END, 2_850.0)],
        },
        trades=[
            trade(0), trade(5, profit_ratio=-0.01, profit=-1.2, exit_reason="stop_loss"),
            trade(9, pair="ETH/USDT", is_short=True, profit_ratio=0.0, profit=0.0),
            trade(99, close_ms=None, close_rate=None, profit_ratio=None, profit=None),
        ],
        reasons={"BTC/USDT": {"no_edge": 500, "enter_long": 3}, "ETH/USDT": {"no_edge": 570}},
        intervals={"all": Reliability(0.9, 900, 0.89, 0.85, math.nan, 0.012, 0.01)},
        decisions=[Moment(START + DAY, "Promoted: model b serves"), Moment(START, "Drift")],
        incidents=[Moment(START + 5, "the stream was silent")],
    )  # fmt: skip
    return replace(made, **changes)


class Page(HTMLParser):
    """Checks that tags close in their order; collects words, and the numbers of every row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.words, self.rows, self.attributes = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.words.append(" ".join(data.split()))
            if self.open[-1] in ("td", "th"):
                self.rows[-1].append(self.words[-1])

    @property
    def text(self) -> str:
        return " ".join(self.words)


# The numbers


@given(st.lists(st.floats(0.1, 10.0), min_size=3, max_size=30))
def test_the_deepest_drawdown_is_the_worst_of_all_pairs_of_moments(wealth: list[float]) -> None:
    made = Curve(np.arange(len(wealth)), np.array(wealth)).deepest
    worst = max(1.0 - low / high for i, high in enumerate(wealth) for low in wealth[i:])
    assert made is not None
    assert made.depth == pytest.approx(worst)
    assert 1.0 - wealth[made.trough_ms] / wealth[made.peak_ms] == pytest.approx(worst)


def test_a_wallet_that_never_fell_has_a_drawdown_of_zero_without_a_sign() -> None:
    flat = facts(equity=[Balance(START + DAY, 1_000.0)], wallet_end=1_000.0)
    assert "Deepest drawdown 0.00%;" in "\n".join(summary_lines(flat))


def test_two_values_are_too_few_for_a_drawdown() -> None:
    assert wallet_curve(facts(equity=())).deepest is None


def test_the_wallet_runs_from_its_start_to_its_end() -> None:
    unsorted = [Balance(END - 1, math.nan), Balance(START + 9, 900.0), Balance(START - 1, 5.0)]
    made = wallet_curve(facts(equity=unsorted))
    assert made.date_ms.tolist() == [START, START + 9, END]
    assert made.wealth.tolist() == [1.0, 0.9, 0.99]
    assert wallet_curve(facts(wallet_start=0.0)).gain is None


def test_profit_is_what_the_wallet_gained() -> None:
    assert (facts().profit, facts().profit_ratio) == (-10.0, -0.01)
    for unknown in (None, math.nan):
        assert (facts(wallet_end=unknown).profit, facts(wallet_end=unknown).profit_ratio) == (
            None, None,
        )  # fmt: skip


def test_buy_and_hold_is_in_equal_shares_after_the_fee_of_buying() -> None:
    assert held_curve(facts()).gain == pytest.approx(0.999 * (1.05 + 0.95) / 2.0 - 1.0)


def test_buy_and_hold_knows_the_window_only() -> None:
    before, after = (START - DAY, 1.0), (END + 1, 1e9)
    prices = {pair: [after, *points, before] for pair, points in facts().prices.items()}
    alike, plain = held_curve(facts(prices=prices)), held_curve(facts())
    assert alike.date_ms.tolist() == plain.date_ms.tolist()
    assert alike.wealth.tolist() == plain.wealth.tolist()
    assert price_change(facts(prices=prices), "BTC/USDT") == (60_000.0, 63_000.0)


def test_buy_and_hold_buys_at_the_last_price_before_the_window() -> None:
    prices = {"A": [(START - DAY, 7.0), (START - 1, 10.0), (START + 1, 20.0), (END, 11.0)]}
    assert held_curve(facts(pairs=("A",), prices=prices, fee_fraction=0.0)).gain == (
        pytest.approx(0.1)
    )


def test_before_its_first_price_a_pair_costs_what_it_cost_first() -> None:
    prices = {"A": [(START + DAY, 10.0), (END, 12.0)]}
    made = held_curve(facts(pairs=("A",), prices=prices, fee_fraction=0.0))
    assert made.wealth.tolist() == [1.0, 1.0, 1.2]


@pytest.mark.parametrize("points", [[], [(START, 0.0)], [(START, math.nan)]])
def test_without_a_pair_s_price_buy_and_hold_is_unknown(points: list[tuple[int, float]]) -> None:
    made = facts(prices={**facts().prices, "ETH/USDT": points})
    assert held_curve(made).gain is None
    assert "buy and hold unknown" in summary_lines(made)[2]
    assert "is not known" in Page(render_html(made)).text


def test_a_summary_says_what_an_incident_was() -> None:
    made = facts(incidents=[Moment(START + number, f"of kind {number}") for number in range(5)])
    told = summary_lines(made)
    first = next(number for number, line in enumerate(told) if line.startswith("Incidents: 5;"))
    assert told[first + 1 :] == [f"  2024-05-12 00:00 of kind {number}" for number in range(3)]


def test_trades_are_won_and_lost_after_fees_and_open_ones_are_neither() -> None:
    made = Tally.of(facts().trades)
    assert (made.count, made.wins, made.losses, made.even) == (3, 1, 1, 1)
    assert made.profit == pytest.approx(-0.24)
    assert made.mean_ratio == pytest.approx(-0.002 / 3)
    assert (made.best, made.worst) == (0.008, -0.01)


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert Tally.of([trade(), trade(profit=None)]).profit is None
    assert Tally.of([]) == Tally(0, 0, 0, 0, 0.0, None, None, None)


def test_groups_add_up_to_all_trades() -> None:
    assert list(by_exit_reason(facts().trades)) == ["roi", "stop_loss"]
    for groups in (by_exit_reason(facts().trades), by_pair(facts())):
        assert sum(made.count for made in groups.values()) == 3
        assert sum(made.profit or 0.0 for made in groups.values()) == pytest.approx(-0.24)
    assert reason_counts(facts()) == {"no_edge": 1_070, "enter_long": 3}


# The pictures


def points_of(line: str) -> np.ndarray:
    return np.array([point.split(",") for point in line.split()], float)


def test_many_points_keep_every_extreme_of_the_picture() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 0.01, 50_000)
    values[31_111], values[41_111] = 5.0, -5.0
    drawn = chart({"": (np.arange(50_000), values)})
    assert drawn is not None
    points = points_of(drawn.lines[0].points)
    assert len(points) < 2_000
    assert (points[:, 1].min(), points[:, 1].max()) == (0.0, SIDE)
    assert points[:, 0].tolist() == sorted(points[:, 0])
    assert (points[0, 0], points[-1, 0]) == (0.0, SIDE)


@pytest.mark.lengthy
@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
@settings(max_examples=200)
def test_labels_of_value_are_few_distinct_and_where_they_say(low: float, width: float) -> None:
    drawn = chart({"": (np.array([0, 1]), np.array([low, low + width]))})
    assert drawn is not None
    assert 1 <= len(drawn.up) <= 7
    assert len({tick.text for tick in drawn.up}) == len(drawn.up)
    bottom, top = min(low, 0.0), max(low + width, 0.0)
    for tick in drawn.up:
        shown = top - tick.place / 100.0 * (top - bottom)
        assert float(tick.text[:-1]) / 100.0 == pytest.approx(shown, abs=1e-6 * (top - bottom))
        assert -1e-6 <= tick.place <= 100.0 + 1e-6


@given(st.integers(0, 2**42), st.integers(MINUTE, 10 * 365 * DAY))
def test_labels_of_time_are_few_and_inside(left: int, span: int) -> None:
    ticks = time_ticks(left, left + span)
    assert len(ticks) <= 6
    assert all(0.0 <= tick.place <= 100.0 for tick in ticks)


def test_a_flat_line_and_a_single_point_are_no_trouble() -> None:
    flat = chart({"": (np.array([0, 1]), np.zeros(2))})
    assert flat is not None
    assert flat.zero == 50.0
    assert chart({"": (np.array([0]), np.zeros(1))}) is None
    assert chart({}) is None


def test_open_trades_are_drawn_as_stairs() -> None:
    assert stairs(np.array([0, 20, 50]), np.array([0, 0, 1]), 0, 100) == (
        "0.0,1000.0 0.0,1000.0 500.0,1000.0 500.0,0.0 1000.0,0.0 1000.0,1000.0"
    )
    assert stairs(np.array([0, 50]), np.zeros(2, np.int64), 0, 100) == ""


# The page


def test_losses_are_printed_as_they_are() -> None:
    text = Page(render_html(facts())).text
    assert "from 1,000.00 to 990.00 USDT: −10.00 USDT (−1.00%) after fees" in text
    assert "1 won, 1 lost, 1 even" in text
    assert "Wallet 1,000.00 to 990.00 USDT: -10.00 USDT (-1.00%)" in "\n".join(
        summary_lines(facts())
    )


def test_tables_show_the_numbers_of_the_trades() -> None:
    rows = Page(render_html(facts())).rows
    assert ["BTC/USDT", "60,000.00", "63,000.00", "+5.00%", "2", "1", "1", "−0.10%", "−0.24"] in (
        rows
    )
    assert ["stop_loss", "1", "0", "1", "−1.00%", "−1.20"] in rows
    assert ["All", "3", "1", "1", "−0.07%", "−0.24"] in rows
    assert ["all", "900", "90.0%", "89.0%", "85.0%", "unknown", "100.0", "120.0"] in rows


def test_what_open_trades_gave_is_said_beside_the_closed_ones() -> None:
    assert "gained −9.76 USDT: an open trade is valued" in Page(render_html(facts())).text
    closed = facts(trades=facts().trades[:3])
    assert "gained −9.76 USDT: no trade explains it" in Page(render_html(closed)).text
    equal = facts(trades=[trade(profit=-10.0)])
    assert "Beside them" not in Page(render_html(equal)).text


def test_it_is_called_a_simulation() -> None:
    for made in (facts(), facts(trades=(), equity=(), prices={}, wallet_end=None)):
        page = Page(render_html(made)).text
        assert "This is a simulation on recorded candles: no order reached an exchange" in page
        assert "no order reached an exchange" in summary_lines(made)[0]
        assert "Account" not in page


def test_real_orders_are_said_to_be_those_of_a_practice_account() -> None:
    made = facts(account=Agreement(True, "44 orders and 990.00 USDT are those of 22 trades"))
    lines = summary_lines(made)
    assert "real orders on a practice account, none reached another exchange" in lines[0]
    assert "Account: 44 orders and 990.00 USDT are those of 22 trades" in lines
    page = Page(render_html(made)).text
    assert "recorded candles: real orders on a practice account, none reached another" in page
    assert "Account: 44 orders and 990.00 USDT are those of 22 trades" in page


def test_events_stand_in_their_order() -> None:
    text = Page(render_html(facts())).text
    assert text.index("Drift") < text.index("Promoted: model b")


POOREST = {"equity": (), "prices": {}, "trades": (), "reasons": {}, "intervals": {},
           "decisions": (), "incidents": (), "forecasts": None, "messages": None,
           "step_s": None, "strategy": "", "wallet_end": None, "wall_s": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        POOREST,
        *({name: value} for name, value in POOREST.items()),
        {**POOREST, "pairs": ()},
        {"wallet_start": 0.0},
        {"equity": [Balance(START, 1_000.0)]},
        {"equity": [Balance(START + 1, math.nan), Balance(START + 2, 0.0, 3)]},
        {"end_ms": START},
        {"trades": [trade(close_ms=None, close_rate=None, profit_ratio=None, profit=None)]},
        {"trades": [trade(profit_ratio=None, profit=None, exit_reason="", enter_tag="")]},
        {"intervals": {"all": Reliability(0.9, 0, *[math.nan] * 5)}},
        {"stake_currency": "BTC", "wallet_start": 0.05, "wallet_end": 0.0499},
    ],
    ids=lambda changes: ", ".join(changes) if len(changes) < 5 else "all",
)
def test_whatever_is_missing_the_page_is_whole(changes: dict[str, object]) -> None:
    page = Page(render_html(facts(**changes)))
    lines = summary_lines(facts(**changes))
    attributes = " ".join(value for _, value in page.attributes if value)
    for words in (page.text, " ".join(lines), attributes):
        assert not re.search(r"\b(nan|inf|None|NaN)\b", words), words


def test_a_line_of_the_summary_is_one_line() -> None:
    lines = summary_lines(facts(notes=["Stopped:\n  Traceback\n"]))
    assert "Stopped: Traceback" in lines
    assert not [line for line in lines if "\n" in line]


def test_a_wallet_in_coins_shows_decimals_enough() -> None:
    made = facts(stake_currency="BTC", wallet_start=0.05, wallet_end=0.0499, trades=())
    assert "0.050000 to 0.049900 BTC: −0.000100 BTC (−0.20%)" in Page(render_html(made)).text


def test_a_trade_that_gained_nothing_has_no_sign() -> None:
    made = facts(wallet_end=999.9999, trades=())
    assert "0.00 USDT (0.00%)" in Page(render_html(made)).text


def test_no_text_becomes_markup() -> None:
    evil = "<script>alert('x')</script>&\"'"
    made = facts(
        data=evil, strategy=evil, timeframe=evil, stake_currency=evil, notes=[evil],
        pairs=(evil,), prices={evil: [(START, 1.0), (END, 2.0)]},
        trades=[trade(pair=evil, enter_tag=evil, exit_reason=evil)],
        life=TradeLife(
            1, trade(pair=evil, enter_tag=evil, exit_reason=evil),
            {"lstm_stake": {"bound": evil, "text": f"1: {evil}!"}}, None, None, None,
        ),
        reasons={evil: {evil: 3}, "": {"no_edge": 1}},
        intervals={evil: Reliability(0.9, 5, *[0.1] * 5)},
        decisions=[Moment(START, evil)], incidents=[Moment(START, evil)],
    )  # fmt: skip
    text = render_html(made)
    assert "<script" not in text
    assert Page(text).text.count("<script>alert('x')</script>") >= 12


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = render_html(facts())
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<img|\bsrc=|\bhref=", text)


SECRETS = (
    "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", "ftbot:hunter2", "5e884898da28047151d0e56f8dc6"
)  # fmt: skip


def test_a_secret_in_a_text_is_struck_out() -> None:
    said = (
        f"POST https://api.telegram.org/bot{SECRETS[0]}/sendMessage",
        f"postgresql://{SECRETS[1]}@localhost/journal cannot be reached",
        f"GET /api?symbol=BTC&signature={SECRETS[2]}&x=1 and 'apiKey': '{SECRETS[2]}'",
    )
    made = facts(incidents=[Moment(START, text) for text in said], notes=said, data=said[0])
    text = render_html(made) + "\n".join(summary_lines(made))
    assert not [secret for secret in SECRETS if secret in text]
    assert "@localhost/journal cannot be reached" in text
    assert "&amp;x=1" in text


@pytest.mark.lengthy
def test_the_page_of_a_long_replay_stays_small() -> None:
    many = facts(
        trades=[trade(number) for number in range(MOST_TRADES + 7)],
        incidents=[Moment(START + number, "x") for number in range(MOST_LINES + 1_234)],
        equity=[Balance(START + number * 1_000, 1_000.0, number % 3) for number in range(90_000)],
    )
    text = render_html(many)
    assert len(text) < 1_000_000
    assert f"The first {MOST_TRADES} of {MOST_TRADES + 7}" in text
    assert "1,234 more are not shown" in text
    assert ["roi", "507", "507", "0", "+0.80%", "+486.72"] in Page(text).rows


def test_every_fact_is_told() -> None:
    account = Agreement(True, "44 orders are those of 22 trades")
    text = Page(render_html(facts(notes=["Stopped by hand."], account=account))).text
    told = {
        "data": "recorded candles", "pairs": "BTC/USDT", "timeframe": "5m candles",
        "start_ms": "2024-05-12 00:00", "end_ms": "2024-05-14 00:00", "stake_currency": "USDT",
        "wallet_start": "1,000.00", "wallet_end": "990.00", "wall_s": "2 days in 1 min, 2,880",
        "step_s": "Step of the clock 5.0 s", "strategy": "LSTMStrategy",
        "equity": "Trades open at a time, 2 at most", "prices": "−0.10%", "fee_fraction": "0.100%",
        "trades": "still open", "reasons": "1,070", "forecasts": "Forecasts 1,152",
        "intervals": "89.0%", "decisions": "Promoted", "incidents": "the stream was silent",
        "messages": "Messages sent 9", "notes": "Stopped by hand.", "account": "44 orders are",
        "life": "number 3: the middle one by profit", "slippage_fraction": "spread 12.0",
    }  # fmt: skip
    assert set(told) == {field.name for field in fields(ReplayFacts)}
    assert [words for words in told.values() if words not in text] == []
