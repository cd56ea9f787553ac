"""Rivals that bear the same exposure, the factor by volatility, and what is said of it all."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.errors import ConfigError
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.rivals import rivalry
from lstm_model.rivals.days import Days, differences
from lstm_model.rivals.ledger import Book, Deal, Fill, Terms, Window
from lstm_model.rivals.report import (
    difference_rows,
    entry_lines,
    heading,
    render_page,
    sentence,
    table,
)
from lstm_model.rivals.rivalry import CONSTANT, EWMA, OURS, PLAIN, Contender, Rivalry
from lstm_model.rivals.variant import Make, Ran

HOUR_MS, DAY_MS, PAIR = 3_600_000, 86_400_000, "BTC/USDT"


def deal(day: int, amount: float, *, hours: int = 12, price: float = 95.0) -> Deal:
    """A trade that begins with a day, at 100."""
    fills = (
        Fill(day * DAY_MS, 100.0, amount),
        Fill(day * DAY_MS + hours * HOUR_MS, price, -amount),
    )
    profit = amount * (price - 100.0)
    facts = TradeFacts(
        PAIR, fills[0].time_ms, fills[1].time_ms, False, "", "roi", 100.0, price, amount,
        100.0 * amount, profit / (100.0 * amount), profit, 0.001, 0.001,
    )  # fmt: skip
    return Deal(facts, fills)


def ran(deals: list[Deal], days: int = 40, **fields: Any) -> Ran:
    closed = np.arange(1, 24 * days + 1, dtype=np.int64) * HOUR_MS
    return Ran(
        "Mine", {"timeframe": "1h"}, tuple(deals), {PAIR: (closed, np.full(len(closed), 100.0))},
        Window(0, days * DAY_MS, HOUR_MS), 1_000.0, **fields,
    )  # fmt: skip


class World:
    """Backtests that stake as they are told, up to what the exchange allows."""

    log = logging.NullHandler()

    def __init__(self, risk: float, most: float = 99.0, days: int = 40) -> None:
        self.risk, self.most, self.days = risk, most, days
        self.titles: list[str] = []
        self.windows: list[str | None] = []
        self.later_ms = 0

    def begin(self, title: str) -> None:
        self.titles.append(title)

    def progress(self, doing: str, share: float) -> None:
        raise AssertionError("nothing takes long here")

    def backtest(self, make: Make, args: Any, watch: Any) -> Ran:
        assert watch is self
        self.windows.append(args.get("timerange"))
        promise, start_ms, factor = None, 0, 1.0
        if make is rivalry.with_risk:
            promise, factor, start_ms = 0.01, self.risk, self.later_ms
        elif make is not rivalry.plain:
            factor = make(Staked).factor  # type: ignore[attr-defined]
        amounts = [min(factor * (1.0 + 0.1 * (day % 3)), self.most) for day in range(self.days)]
        deals = [deal(day, amount) for day, amount in enumerate(amounts) if amount > 0.01]
        made = ran(deals, self.days, promise=promise)
        return replace(made, window=made.window._replace(start_ms=start_ms))


class Staked:
    """Stands for a strategy whose stakes are all multiplied."""

    factor = 1.0


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[World, Rivalry]]:
    def make(scale: Callable[[str, int], float]) -> Make:
        return lambda theirs: type("Scaled", (theirs,), {"factor": scale(PAIR, 0)})

    def run(**fields: Any) -> tuple[World, Rivalry]:
        later_ms = fields.pop("later_ms", 0)
        world = World(**fields)
        world.later_ms = later_ms
        monkeypatch.setattr(rivalry, "backtest_as", world.backtest)
        monkeypatch.setattr(rivalry, "with_stake", make)
        monkeypatch.setattr(rivalry.configuration, "load_candles", lambda *_: None)
        return world, rivalry.contest({"timerange": "given"}, 0.0005, world)

    return run


def test_both_rivals_bear_the_same_exposure(held: Any) -> None:
    world, found = held(risk=0.4)
    assert [each.name for each in found.contenders] == [PLAIN, OURS, CONSTANT, EWMA]
    for name in (CONSTANT, EWMA):
        assert found.is_matched(name)
        assert found.of(name).exposure == pytest.approx(found.ours.exposure, rel=0.01)
    assert found.of(CONSTANT).factor == pytest.approx(0.4, rel=0.02)
    assert world.titles[:3] == ["as it is", "with LSTMRisk",
                                "constant stake, try 1 of 3"]  # fmt: skip
    assert set(world.windows[2:]) == {f"0-{(40 * DAY_MS - 1) // 1000}"}


def test_where_stakes_are_as_they_were_the_strategy_is_its_own_rival(held: Any) -> None:
    world, found = held(risk=1.0)
    assert not [title for title in world.titles if "constant" in title]
    assert found.of(CONSTANT).factor == 1.0
    assert "LSTMRisk changes nothing here: all 40 trades" in sentence(found)


def test_a_rival_that_cannot_come_near_is_told(held: Any) -> None:
    _, found = held(risk=3.0, most=2.0)  # all are held back by the exchange's limit alike
    assert found.is_matched(CONSTANT)
    _, found = held(risk=0.004)  # and here no trade is left
    assert [each.name for each in found.contenders] == [PLAIN, OURS]
    assert sentence(found).startswith("LSTMRisk makes no trade in this time")
    assert "%" in render_page(found)


def test_what_is_not_matched_is_neither_scaled_nor_hidden() -> None:
    found = made(np.zeros(40), exposure=0.2)
    assert not found.is_matched(CONSTANT)
    assert any("came no nearer than 20.00% to the mean exposure of 50.00%" in line
               for line in entry_lines(found))  # fmt: skip
    assert "another mean exposure" in sentence(found)


def test_the_tries_end() -> None:
    tries: list[float] = []

    def run(factor: float, title: str) -> Contender:
        tries.append(factor)
        return contender(CONSTANT, np.zeros(40), exposure=0.1, factor=factor)  # whatever it is

    known = contender(CONSTANT, np.zeros(40), exposure=0.3)
    found = rivalry._matched(run, 0.2, known)
    assert len(tries) == 3
    assert found.exposure in (0.1, 0.3)


def test_the_strategy_runs_again_where_forecasts_begin_later(held: Any) -> None:
    world, found = held(risk=0.5, later_ms=DAY_MS)
    assert world.titles[2] == "as it is, in the time that LSTMRisk has forecasts for"
    assert found.window.start_ms == DAY_MS


def test_a_strategy_that_does_not_trade_is_refused(held: Any) -> None:
    with pytest.raises(ConfigError, match="Mine makes no trade in this time"):
        held(risk=1.0, most=0.0)


@given(st.integers(0, 10_000), st.integers(150, 400))
def test_a_factor_knows_nothing_of_later_candles(seed: int, at: int) -> None:
    close = np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, 0.01, 500)))
    changed = close.copy()
    changed[at + 1 :] *= np.linspace(1.5, 3.0, 499 - at)
    before, after = (rivalry.steady_factors(each, HOUR_MS) for each in (close, changed))
    np.testing.assert_array_equal(before[: at + 1], after[: at + 1])
    assert np.all((before >= 0.25) & (before <= 4.0))


@pytest.mark.parametrize("close", [np.ones(100), np.ones(1), np.array([])])
def test_a_market_that_stands_still_has_a_factor_of_one(close: np.ndarray) -> None:
    assert rivalry.steady_factors(close, HOUR_MS).tolist() == [1.0] * len(close)


def test_a_stake_is_scaled_by_the_candles_that_had_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivalry.configuration, "load_candles", lambda *_: None)
    monkeypatch.setattr(rivalry, "steady_factors", lambda close, _: np.arange(len(close)) + 2.0)
    scale = rivalry._steady(ran([deal(0, 1.0)]))
    assert scale(PAIR, HOUR_MS - 1) == 1.0  # none had
    assert [scale(PAIR, HOUR_MS), scale(PAIR, 2 * HOUR_MS - 1), scale(PAIR, 2 * HOUR_MS)] == [
        2.0, 2.0, 3.0
    ]  # fmt: skip


def contender(
    name: str, returns: np.ndarray, exposure: float = 0.5, factor: float = 1.0
) -> Contender:
    count = len(returns)
    days = Days(
        returns, np.ones(count), np.zeros(count), np.full(count, 0.1), np.full(count, exposure)
    )
    ends = (np.arange(count, dtype=np.int64) + 1) * DAY_MS
    equity = 1_000.0 * np.cumprod(1.0 + returns)
    stake = 1.0 if name == PLAIN else 0.5
    deals = [deal(day, stake) for day in range(count)]
    return Contender(name, ran(deals, count), Book(ends, equity, days, returns), factor)


def made(
    ours: np.ndarray, others: np.ndarray | None = None, exposure: float = 0.5, days: int = 40
) -> Rivalry:
    """A rivalry whose daily returns are these."""
    others = ours if others is None else others
    mine = contender(OURS, ours)
    rest = [contender(name, others, exposure) for name in (PLAIN, CONSTANT, EWMA)]
    against = {each.name: differences(mine.book.days, each.book.days, 400) for each in rest}
    return Rivalry(
        "Mine", Window(0, len(ours) * DAY_MS, HOUR_MS), Terms(1_000.0, 0.0, 0.01),
        (rest[0], mine, *rest[1:]), against, 1.0,
    )  # fmt: skip


MARKET = np.random.default_rng(2).normal(0.0, 0.02, 120)


def test_smaller_worst_days_are_proven_and_a_profit_is_not() -> None:
    text = sentence(made(np.clip(MARKET, -0.02, 0.02), MARKET))
    assert text.startswith(
        "At the same mean exposure LSTMRisk's worst days are smaller than those of a constant stake"
    )
    assert "those of a stake by EWMA volatility" in text
    assert "a difference in profit is not proven" in text
    text = sentence(made(MARKET, np.maximum(MARKET, -0.02)))
    assert "worst days are larger than those of a constant stake (CVaR" in text
    assert "it earns less" in text


def test_what_no_number_tells_apart_is_proven_by_none() -> None:
    text = sentence(made(MARKET, np.random.default_rng(8).permutation(MARKET)))
    assert text.count("worst days are not proven to differ") == 2
    assert text.count("a difference in profit is not proven") == 2


def test_where_a_constant_stake_does_the_same_it_is_said_so() -> None:
    text = sentence(made(MARKET))
    assert text.startswith("LSTMRisk does here what a constant stake of 1.000 times the strategy's")
    assert "interval of the difference 0.00 to 0.00 points" in text  # of the other


def test_few_days_prove_nothing_whatever_they_show() -> None:
    found = made(np.full(20, 0.01), MARKET[:20])
    assert sentence(found).startswith(
        "Nothing can be proven: it needs 30 days at least, and this is 20 days"
    )
    assert {proven for _, cells in difference_rows(found) for _, proven in cells} == {0}


def test_tables_have_a_value_for_each_and_losses_as_they_are() -> None:
    found = made(np.full(40, -0.01), MARKET[:40])
    rows = dict(table(found))
    assert rows["profit"][1] == f"{0.99**40 - 1:+.2%}"
    assert rows["trades"] == ["40"] * 4
    assert rows["worst trade"][1] == "-1.00%"
    assert all(len(cells) == 3 for _, cells in difference_rows(found))
    assert "40 days; fee 0.100%, slippage 0.000% of each order" in heading(found)


def test_what_was_refused_is_counted_by_reason() -> None:
    found = made(MARKET)
    mine = replace(found.ours, ran=replace(found.ours.ran, refused=Counter(too_small=3)))
    found = replace(found, contenders=(found.contenders[0], mine, *found.contenders[2:]))
    assert "LSTMRisk staked nothing on 3 entries: too_small 3" in entry_lines(found)


class Reader(HTMLParser):
    """Reads a page; remembers what it would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[Any] = []
        self.lines = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") or any(
            name in ("src", "href") or name.startswith("on") for name, _ in attrs
        ):
            self.foreign.append((tag, attrs))
        self.lines += tag == "polyline"


def test_the_page_stands_alone_and_escapes_what_comes_from_outside() -> None:
    page = render_page(replace(made(MARKET, 0.5 * MARKET), strategy="<script>alert(1)</script>"))
    reader = Reader()
    reader.feed(page)
    assert reader.foreign == []
    assert "&lt;script&gt;" in page
    assert reader.lines == 4 + 4 + 5  # equity, drawdown, losses and the promise
    assert "http" not in page.replace("http-equiv", "")
