"""A bot beside a backtest: every difference is found, and traced to what was planted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nowcast_world import LEVELS, SETTINGS, make_model
from pandas import DataFrame
from rich.console import Console
from series import START_MS, STEP_MS, change, drop, make_candles, to_frame, with_flow

from lstm_model.commands.comparison_view import renderables
from lstm_model.errors import DataError, StoreError
from lstm_model.features.closed_candle import WARM_UP, FeatureRows, compute_features
from lstm_model.market.candles import Candles, utc_text
from lstm_model.model.calibration import POOLED, Calibration, Widths
from lstm_model.model.model import Model
from lstm_model.replay import causes
from lstm_model.replay import trades as trading
from lstm_model.replay.accounts import Account, Lock, Rules, first_in_time
from lstm_model.replay.causes import Evidence, Explanation, explain
from lstm_model.replay.comparison import Comparison, compare
from lstm_model.replay.forecasts import ForecastComparison, compare_forecasts
from lstm_model.replay.inputs import inputs_at
from lstm_model.replay.money import Payment, Purse
from lstm_model.replay.reproduction import NUMBERS, Candidate, reproduce
from lstm_model.replay.trade_facts import TradeFacts
from lstm_model.replay.trades import TradeComparison, compare_trades, match_trades
from lstm_model.store.journal import Journal, JournalRow, VerdictRow
from lstm_model.trading.outlook import Frame, Outlook, Terms
from lstm_model.trading.sizing import ENTER_LONG, NO_DATA, NO_EDGE, NO_MODEL, STALE_MODEL, TOO_SMALL

PAIR, OTHER = "BTC/USDT", "ETH/USDT"
MODEL = make_model()
COUNT = WARM_UP + 60
FIRST, LAST = COUNT - 20, COUNT - 1  # the candles of the window
CANDLES = {pair: with_flow(make_candles(COUNT, pair=pair, seed=n), seed=n)
           for n, pair in enumerate((PAIR, OTHER))}  # fmt: skip
WINDOW = (START_MS + FIRST * STEP_MS, START_MS + (LAST + 1) * STEP_MS)


def open_of(row: int) -> int:
    return START_MS + row * STEP_MS


def described(model: Model, version: str) -> Model:
    card = model.card.model_copy(
        update={"version": version, "kind": "scratch", "train_end_ms": START_MS}
    )
    return replace(model, card=card)


RIGHT = described(MODEL, "v0")


def of_backtest(
    model: Model = RIGHT, candles: Candles | None = None, rows: range = range(FIRST, LAST + 1)
) -> DataFrame:
    """What a backtest says of some candles."""
    candles = CANDLES[PAIR] if candles is None else candles
    outlook = Outlook(candles.pair, candles.date_ms, Terms(SETTINGS, 0.001, can_short=False))
    outlook.fill(model, Frame(candles, SETTINGS), np.array(rows))
    columns = outlook.columns(candles.close, STEP_MS)
    return to_frame(candles)[["date"]].assign(**columns)


def of_bot(
    model: Model = RIGHT, candles: Candles | None = None, rows: range = range(FIRST, LAST + 1)
) -> list[JournalRow]:
    """What a bot writes down of some candles, each with what it knew then."""
    candles = CANDLES[PAIR] if candles is None else candles
    made = []
    for opened_ms in (open_of(row) for row in rows):
        inputs = inputs_at(candles, opened_ms, SETTINGS)
        if not isinstance(inputs, str):
            values = reproduce(model, candles.pair, inputs)
            made.append(
                JournalRow(
                    pair=candles.pair, timeframe="5m", candle_ms=opened_ms, reason="",
                    version=model.card.version, created_ms=opened_ms + STEP_MS + 3_000,
                    **{name: getattr(values, name) for name in ("quantiles", *NUMBERS)},
                )
            )  # fmt: skip
    return made


def compared(frame: DataFrame, rows: Sequence[JournalRow]) -> ForecastComparison:
    return compare_forecasts({PAIR: frame}, {PAIR: rows}, STEP_MS, *WINDOW)


@dataclass(frozen=True)
class Traces:
    """Evidence with candles and models to choose."""

    backtest: Candles = CANDLES[PAIR]
    replay: Candles = CANDLES[PAIR]
    models: Sequence[Candidate] = (Candidate(RIGHT, "in force", "by the step of 12:00"),)
    words: tuple[VerdictRow, ...] = ()

    def of(self, frame: DataFrame, rows: Sequence[JournalRow]) -> Explanation:
        """The cause of the first difference."""
        found = compared(frame, rows).first
        assert found is not None
        account = Account((), self.words)
        return explain(
            found,
            Evidence(SETTINGS, {PAIR: self.backtest}.get, {PAIR: self.replay}.get,
                     lambda row: self.models, account.words),
        )  # fmt: skip


def verdict(row: int, reason: str, text: str = "", order: int = 0, pair: str = PAIR) -> VerdictRow:
    return VerdictRow(pair, "5m", open_of(row), reason, text, order)


# ---- forecasts: whether they are the same ----------------------------------------------------


def test_a_backtest_and_a_bot_of_one_model_are_equal_to_the_last_bit() -> None:
    both = {PAIR: RIGHT, OTHER: described(make_model(3), "v3")}
    frames = {pair: of_backtest(model, CANDLES[pair]) for pair, model in both.items()}
    rows = {pair: of_bot(model, CANDLES[pair]) for pair, model in both.items()}
    found = compare_forecasts(frames, rows, STEP_MS, *WINDOW)
    assert (found.ok, found.compared, found.equal) == (True, 40, 40)
    assert found.first is None


def test_what_the_journal_gives_back_is_equal_even_where_a_zero_has_lost_its_sign(
    tmp_path: Path,
) -> None:
    """A negative mean that is shrunk to nothing is -0.0; SQLite keeps 0.0."""
    worthless = replace(RIGHT, calibration=replace(RIGHT.calibration, shrinkage=-0.0))
    journal = Journal(f"sqlite:///{tmp_path}/journal.sqlite")
    rows = of_bot(worthless)
    journal.record(rows)
    kept = journal.read(PAIR, "5m", 0, 2**53)
    journal.close()
    signs = [{math.copysign(1.0, row.mean) for row in each} for each in (rows, kept)]
    assert -1.0 in signs[0]
    assert signs[1] == {1.0}
    assert compared(of_backtest(worthless), kept).ok


@pytest.mark.parametrize("name", [*NUMBERS, "version"])
def test_the_smallest_change_of_any_number_is_a_difference(name: str) -> None:
    frame = of_backtest()
    column = f"lstm_{name}"
    old = frame[column].iloc[FIRST + 5]
    frame.loc[FIRST + 5, column] = "v9" if name == "version" else np.nextafter(old, 1.0)
    found = compared(frame, of_bot())
    assert (found.compared, found.equal, found.ok) == (20, 19, False)
    assert found.first is not None
    assert found.first.candle_ms == open_of(FIRST + 5)
    assert [part[0] for part in found.first.parts()] == [name]


def test_what_an_older_release_did_not_write_down_is_not_compared() -> None:
    old = [replace(row, mean_error=None, lowest=None, highest=None) for row in of_bot()]
    assert compared(of_backtest(), old).ok


def test_only_candles_that_close_in_the_window_count() -> None:
    around = range(FIRST - 3, LAST + 1)
    frame, rows = of_backtest(rows=around), of_bot(rows=around)
    found = compared(frame, rows)
    assert (found.compared, found.ok) == (20, True)
    shifted = compare_forecasts({PAIR: frame}, {PAIR: rows}, STEP_MS, WINDOW[0], WINDOW[1] - 1)
    assert shifted.compared == 19


def test_of_two_forecasts_of_a_candle_the_one_made_first_counts() -> None:
    later = [replace(row, version="v9", created_ms=row.created_ms + 1) for row in of_bot()]
    assert compared(of_backtest(), [*later, *of_bot()]).ok
    earlier = [replace(row, created_ms=row.created_ms - 2) for row in later]
    assert compared(of_backtest(), [*earlier, *of_bot()]).equal == 0


def test_a_candle_that_only_one_has_forecast_keeps_them_from_being_the_same() -> None:
    less = compared(of_backtest(), of_bot()[1:])
    assert (less.compared, len(less.pairs[0].only_backtest), less.ok) == (19, 1, False)
    more = compared(of_backtest(rows=range(FIRST + 1, LAST + 1)), of_bot())
    assert (more.compared, len(more.pairs[0].only_replay), more.ok) == (19, 1, False)


def test_without_a_candle_to_compare_nothing_is_proven() -> None:
    nothing = compare_forecasts({}, {}, STEP_MS, *WINDOW)
    assert nothing.first is None
    assert not nothing.ok


def test_a_dataframe_without_forecasts_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"BTC/USDT: .* lacks lstm_version, lstm_gate"):
        compared(to_frame(CANDLES[PAIR]), of_bot())


# ---- forecasts: where a difference is from ---------------------------------------------------


def test_a_changed_candle_is_named_with_both_values() -> None:
    row = FIRST - 7
    changed = change(CANDLES[PAIR], row, volume=123.5)
    found = Traces(replay=changed).of(of_backtest(), of_bot(candles=changed))
    assert found.kind == causes.OTHER_CANDLES
    assert f"volume of the candle of {utc_text(open_of(row))}" in found.text
    assert "123.5 to the bot" in found.text


def test_a_changed_order_flow_is_named() -> None:
    candles = CANDLES[PAIR]
    assert candles.flow is not None
    flow = candles.flow.copy()
    flow["taker_base"][FIRST], flow["coverage"][FIRST] = 0.25, 1.0
    changed = candles.with_flow(flow)
    found = Traces(replay=changed).of(of_backtest(), of_bot(candles=changed))
    assert found.kind == causes.OTHER_CANDLES
    assert "order flow (" in found.text
    assert utc_text(open_of(FIRST)) in found.text


def test_a_candle_that_the_bot_lacks_is_named() -> None:
    rows = of_bot()
    rows[0] = replace(rows[0], mean=1.0)
    found = Traces(replay=drop(CANDLES[PAIR], FIRST - 2)).of(of_backtest(), rows)
    expected = (causes.OTHER_CANDLES, f"the bot lacks the candle of {utc_text(open_of(FIRST - 2))}")
    assert found == expected


def test_another_model_is_named_with_its_card() -> None:
    other = described(make_model(1), "v1")
    found = Traces(models=[Candidate(other, "older", "a step late")]).of(
        of_backtest(), of_bot(other)
    )
    assert found.kind == causes.OTHER_MODEL
    assert "by model v0, the bot's by model v1" in found.text
    assert "v1 is a scratch model" in found.text
    assert "a step late" in found.text


def looks_ahead(candles: Candles, *, order_flow: bool) -> FeatureRows:
    """As if a feature were of the candle after."""
    made = compute_features(candles, order_flow=order_flow)
    made.rows[:-1, 5] = np.where(made.known[:-1], made.rows[1:, 5], np.nan)
    return made


def test_a_feature_that_looks_ahead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot cannot look ahead: it has no later candle."""
    monkeypatch.setattr("lstm_model.trading.outlook.compute_features", looks_ahead)
    found = Traces().of(of_backtest(), of_bot())
    assert found.kind == causes.LOOK_AHEAD
    where = f'"range" of the candle of {utc_text(open_of(FIRST))}'
    assert re.match(rf"{where} is \S+ in the whole series and \S+ with those until", found.text)


def foresees_volatility(candles: Candles, *, order_flow: bool) -> FeatureRows:
    made = compute_features(candles, order_flow=order_flow)
    made.volatility[:-1] = made.volatility[1:]
    return made


def test_a_volatility_that_looks_ahead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_model.trading.outlook.compute_features", foresees_volatility)
    found = Traces().of(of_backtest(), of_bot())
    assert found.kind == causes.LOOK_AHEAD
    assert found.text.startswith('"volatility" of the candle of')


def test_other_weights_under_the_same_name_are_a_fault_of_serving() -> None:
    impostor = described(make_model(1), "v0")
    found = Traces().of(of_backtest(), of_bot(impostor))
    assert found.kind == causes.SERVING
    assert "other weights or another scaler" in found.text


def calibrated(shrinkage: float = 0.5, scale: float = 0.1) -> Model:
    """The same network with another calibration."""
    widths = Widths(0, 0.0, (scale, 0.2, 0.3, 0.4, 0.5), (0.1,) * 5)
    return replace(RIGHT, calibration=Calibration(LEVELS, shrinkage, 0.2, {POOLED: widths}))


@pytest.mark.parametrize("other", [calibrated(scale=0.6), calibrated(shrinkage=0.9)])
def test_another_calibration_is_told_from_another_network(other: Model) -> None:
    found = Traces().of(of_backtest(), of_bot(other))
    assert found.kind == causes.CALIBRATION
    assert "the network said the same" in found.text


def test_the_calibration_of_another_step_is_named() -> None:
    late = calibrated(scale=0.6)
    models = [
        Candidate(RIGHT, "in force", "by the step of 12:00"),
        Candidate(late, "older", "by the step of 08:00"),
    ]
    found = Traces(models=models).of(of_backtest(), of_bot(late))
    assert found.kind == causes.CALIBRATION
    expected = "the bot's was calibrated by the step of 08:00, the backtest's by the step of 12:00"
    assert expected in found.text


def test_a_quantile_between_the_ends_belongs_to_what_the_bot_said() -> None:
    """No column of a backtest has it, but a bot with other quantiles is not the model's."""
    rows, frame = of_bot(), of_backtest()
    bent = (*rows[0].quantiles[:3], rows[0].quantiles[3] * 1.01, *rows[0].quantiles[4:])
    rows[0] = replace(rows[0], quantiles=bent)
    frame.loc[FIRST, "lstm_mean"] += 1.0
    assert Traces().of(frame, rows).kind == causes.SERVING


def test_a_backtest_that_does_not_say_what_the_model_says_is_blamed() -> None:
    frame = of_backtest()
    frame.loc[FIRST + 2, "lstm_mean"] += 1.0
    found = Traces().of(frame, of_bot())
    assert found.kind == causes.BACKTEST
    assert "the bot's is what the model makes of these candles" in found.text


def gone(row: JournalRow) -> Iterator[Candidate]:
    raise StoreError("no such model")
    yield


def test_a_model_that_is_gone_is_said_to_be_gone() -> None:
    rows = of_bot()
    rows[0] = replace(rows[0], mean=1.0)
    first = compared(of_backtest(), rows).first
    assert first is not None
    found = explain(first, Evidence(SETTINGS, CANDLES.get, CANDLES.get, gone))
    assert found.kind == causes.UNKNOWN
    assert "not in the store any more" in found.text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "it was off, or never looked at this candle"),
        ((verdict(FIRST, NO_MODEL),), "no_model, no model has been trained yet"),
        ((verdict(FIRST, STALE_MODEL),), "stale_model, the model has not been checked"),
    ],
)
def test_why_the_bot_has_no_forecast(words: tuple[VerdictRow, ...], expected: str) -> None:
    found = Traces(words=words).of(of_backtest(), of_bot()[1:])
    assert found.kind == causes.MISSING
    assert expected in found.text


def test_an_unsound_candle_is_why_there_is_no_forecast() -> None:
    silent = change(CANDLES[PAIR], FIRST, volume=0.0)
    frame, rows = of_backtest(candles=silent), of_bot(candles=silent)
    why = inputs_at(silent, open_of(FIRST), SETTINGS)
    assert isinstance(why, str)
    assert why in Traces(replay=silent).of(of_backtest(), rows).text
    assert why in Traces(backtest=silent).of(frame, of_bot()).text


def test_why_the_backtest_has_no_forecast() -> None:
    later = of_backtest(rows=range(FIRST + 1, LAST + 1))
    found = Traces().of(later, of_bot())
    assert found.kind == causes.MISSING
    assert "no model has been trained yet" in found.text
    assert "not in its time range" in Traces().of(later.iloc[FIRST + 1 :], of_bot()).text


# ---- trades ----------------------------------------------------------------------------------

RULES = Rules(STEP_MS, open_of(100), max_open_trades=2)
PURSE = Purse(1_000.0, {PAIR: 100.0, OTHER: 100.0}, 0.003, inside_exits=False)
EQUAL = ForecastComparison(())
BEGUN = {PAIR: open_of(0), OTHER: open_of(0), "SOL/USDT": open_of(0)}


def trade(row: int, until: int | None = None, late_s: float = 0.0, **fields: Any) -> TradeFacts:
    """A trade entered when candle `row` opens, or so many seconds later."""
    opened = int(open_of(row) + 1_000 * late_s)
    closed = None if until is None else int(open_of(until) + 1_000 * late_s)
    facts: dict[str, Any] = {
        "pair": PAIR, "open_ms": opened, "close_ms": closed, "is_short": False,
        "enter_tag": "lstm_long", "exit_reason": "lstm_turned" if until else "",
        "open_rate": 100.0, "close_rate": 101.0 if until else None, "amount": 1.0,
        "stake": 100.0, "profit_ratio": 0.01,
    }  # fmt: skip
    return TradeFacts(**{**facts, **fields})


def account(*trades: TradeFacts, **others: Any) -> Account:
    return Account(trades, **{"first_ms": BEGUN, **others})


def paired(backtest: Account, replay: Account) -> TradeComparison:
    return compare_trades(backtest, replay, EQUAL, RULES)


def test_trades_entered_within_a_candle_are_the_same_trade() -> None:
    found = paired(account(trade(5, 9)), account(trade(5, 9, late_s=4.0)))
    assert (len(found.matched), found.alone, found.ok) == (1, (), True)
    assert found.matched[0].differences == ()


def test_what_differs_within_a_trade_is_named_and_measured() -> None:
    bots = trade(5, 11, open_rate=100.05, stake=90.0, exit_reason="roi", close_rate=102.01,
                 profit_ratio=0.0195)  # fmt: skip
    (couple,) = paired(account(trade(5, 9)), account(bots)).matched
    assert dict(couple.differences) == {
        "entry price": "100, live 100.05 (+5.0 bps)",
        "stake": "100, live 90",
        "exit reason": "lstm_turned, live roi",
        "exit candle": "live 2 candle(s) later",
        "exit price": "101, live 102.01 (+100.0 bps)",
        "profit": "+1.000%, live +1.950%",
    }


def test_another_funding_is_named() -> None:
    sides = (account(trade(5, 9, funding=-0.02)), account(trade(5, 9, funding=0.02)))
    (couple,) = paired(*sides).matched
    assert couple.differences == (("funding", "-0.0200, live +0.0200"),)


def test_a_trade_that_is_left_open_is_said_to_be() -> None:
    closed = trade(5, 99, exit_reason="force_exit")
    (couple,) = paired(account(closed), account(trade(5))).matched
    assert [found.name for found in couple.differences] == ["still open at the end"]
    early = paired(account(trade(5, 9)), account(trade(5))).matched[0].differences
    assert early == (("exit reason", "still open live, else left by lstm_turned"),)


@pytest.mark.parametrize("fields", [{"pair": OTHER}, {"is_short": True}, {"open_ms": open_of(7)}])
def test_trades_of_another_pair_side_or_time_are_others(fields: dict[str, Any]) -> None:
    assert match_trades([trade(5, 6)], [trade(5, 6, **fields)], STEP_MS) == []


opens = st.lists(st.integers(0, 40), max_size=8, unique=True)


@given(opens, opens)
def test_couples_are_one_to_one_and_do_not_depend_on_who_comes_first(
    mine: list[int], theirs: list[int]
) -> None:
    one = [trade(0, open_ms=open_of(0) + third * STEP_MS // 3) for third in mine]
    other = [trade(0, open_ms=open_of(0) + third * STEP_MS // 3, stake=50.0) for third in theirs]
    couples = match_trades(one, other, STEP_MS)
    assert len({a for a, _ in couples}) == len({b for _, b in couples}) == len(couples)
    assert all(abs(a.open_ms - b.open_ms) <= STEP_MS for a, b in couples)
    left = [a for a in one if a not in dict(couples)]
    free = [b for b in other if b not in {b for _, b in couples}]
    assert match_trades(left, free, STEP_MS) == []
    assert {(a, b) for b, a in match_trades(other, one, STEP_MS)} == set(couples)


TWENTIETH = trade(20, 25)


@dataclass(frozen=True)
class Alone:
    """A trade at candle 20 that one side made alone, and what the other did."""

    kind: str
    words: str
    other: Account
    mine: tuple[TradeFacts, ...] = ()
    trade: TradeFacts = TWENTIETH


SIGNAL = verdict(19, ENTER_LONG)
ALONE = {
    "just begun": Alone(
        trading.UNEXPLAINED, "nothing is known", account(first_ms={PAIR: open_of(19)})
    ),
    "by hand": Alone(
        trading.BY_HAND, "/forcelong", account(), trade=trade(20, 25, enter_tag="force_entry")
    ),
    "the window was over": Alone(
        trading.WINDOW_OVER, "nothing in the last candle", account(), trade=trade(99)
    ),
    "not begun": Alone(
        trading.TOO_EARLY, utc_text(open_of(20)), account(first_ms={PAIR: open_of(20)})
    ),
    "never begun": Alone(trading.TOO_EARLY, "no forecast of BTC/USDT", account(first_ms={})),
    "another trade": Alone(trading.OTHER_TRADE, "held its short trade",
                           account(trade(15, 22, is_short=True))),
    "left inside the candle": Alone(
        trading.LEFT_INSIDE, "by lstm_turned_inside", account(trade(10, 22)),
        mine=(trade(10, 15, exit_reason="lstm_turned_inside"),),
    ),
    "left by another candle": Alone(
        trading.OTHER_TRADE, "by lstm_turned", account(trade(10, 22)), mine=(trade(10, 15),)
    ),
    "it was closed in that very candle": Alone(trading.OTHER_TRADE, "held its long",
                                               account(trade(15, 20, late_s=30.0))),
    "no room": Alone(
        trading.FULL, "held 2 of at most 2",
        account(trade(15, 22, pair=OTHER), trade(16, None, pair="SOL/USDT")),
    ),
    "locked": Alone(
        trading.LOCKED, "4 stoplosses",
        account(locks=(Lock("*", "*", open_of(18), open_of(21), "4 stoplosses"),)),
    ),
    "vetoed": Alone(
        trading.VETOED, "no_edge, the expected return does not exceed",
        account(verdicts=(SIGNAL, verdict(19, NO_EDGE, "vetoed by the trades since", 1))),
    ),
    "no stake": Alone(
        trading.NO_STAKE, "too_small, stake 0: the exchange wants 5",
        account(verdicts=(SIGNAL, verdict(19, TOO_SMALL, "stake 0: the exchange wants 5", 1))),
    ),
    "stale": Alone(trading.NO_FORECAST, "stale_model",
                   account(verdicts=(verdict(19, STALE_MODEL),))),
    "a signal and no order": Alone(
        trading.UNEXPLAINED, "had the signal too", account(verdicts=(SIGNAL,))
    ),
    "no signal": Alone(
        trading.UNEXPLAINED, "no signal (no_edge)", account(verdicts=(verdict(19, NO_EDGE),))
    ),
    "nothing known": Alone(trading.UNEXPLAINED, "nothing is known", account()),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("bot_made_it", [True, False], ids=["bot", "backtest"])
def test_why_only_one_side_made_a_trade(name: str, bot_made_it: bool) -> None:
    case = ALONE[name]
    sides = (account(*case.mine, case.trade), case.other)
    found = paired(*sides[::-1]) if bot_made_it else paired(*sides)
    (lone,) = [lone for lone in found.alone if lone.trade == case.trade]
    assert lone.cause.kind == case.kind
    assert case.words in lone.cause.text
    assert (lone in found.unexplained) == (case.kind == trading.UNEXPLAINED)


@pytest.mark.parametrize(
    "lock",
    [
        Lock(OTHER, "*", open_of(18), open_of(21), ""),
        Lock(PAIR, "short", open_of(18), open_of(21), ""),
        Lock(PAIR, "*", open_of(18), open_of(20), ""),
        Lock(PAIR, "*", open_of(21), open_of(30), ""),
    ],
)
def test_a_lock_of_another_pair_side_or_time_is_no_cause(lock: Lock) -> None:
    (lone,) = paired(account(trade(20, 25)), account(locks=(lock,))).alone
    assert lone.cause.kind == trading.UNEXPLAINED


def test_a_trade_by_a_forecast_that_differs_is_explained_by_it() -> None:
    frame = of_backtest()
    frame.loc[FIRST + 5, "lstm_mean"] += 1.0
    differing = compared(frame, of_bot())
    made = trade(FIRST + 6, FIRST + 9)
    rules = replace(RULES, end_ms=WINDOW[1])
    (lone,) = compare_trades(account(made), account(), differing, rules).alone
    assert lone.cause.kind == trading.OTHER_FORECAST
    (lone,) = compare_trades(account(trade(FIRST + 7)), account(), differing, rules).alone
    assert lone.cause.kind == trading.UNEXPLAINED


def test_a_bot_leaves_one_trade_and_enters_another_in_the_same_candle() -> None:
    """In a backtest it depends on which pair comes first."""
    others = (trade(5, 20, pair=OTHER), trade(5, 30, pair="SOL/USDT"))
    made = account(*others, trade(20, 25))
    (lone,) = paired(made, account(*others)).alone
    assert lone.cause.kind == trading.UNEXPLAINED
    (lone,) = paired(account(*others), made).alone
    assert lone.cause.kind == trading.FULL


def test_two_trades_of_one_candle_do_not_explain_each_other() -> None:
    """By the same forecast one side went long and the other short."""
    found = paired(account(trade(20, 25)), account(trade(20, 24, is_short=True)))
    assert len(found.unexplained) == 2
    texts = {lone.who: lone.cause.text for lone in found.alone}
    assert "the bot entered short in that candle" in texts[trading.BACKTEST]
    assert "the backtest entered long in that candle" in texts[trading.BOT]
    follows = (account(trade(20, 25)), account(trade(20, 24, is_short=True), trade(24, 30)))
    (last,) = [lone for lone in paired(*follows).alone if lone.trade == trade(24, 30)]
    assert last.cause.kind == trading.OTHER_TRADE  # the backtest's of candle 20, an earlier one
    assert not paired(*follows).ok


def test_one_trade_of_a_candle_explains_another_once_it_is_explained_itself() -> None:
    """The bot vetoed the first pair, and so had room for the second."""
    words = (SIGNAL, verdict(19, NO_EDGE, "vetoed by the trades since", 1))
    backtest, bot = account(trade(20, 25)), account(trade(20, 25, pair=OTHER), verdicts=words)
    rules = replace(RULES, max_open_trades=1)
    found = compare_trades(backtest, bot, EQUAL, rules)
    kinds = {lone.trade.pair: lone.cause.kind for lone in found.alone}
    assert kinds == {PAIR: trading.VETOED, OTHER: trading.FULL}
    silent = compare_trades(backtest, account(trade(20, 25, pair=OTHER)), EQUAL, rules)
    assert len(silent.unexplained) == 2


def test_without_a_limit_there_is_always_room() -> None:
    many = [trade(5, 30, pair=f"{n}/USDT") for n in range(10)]
    for limit in (math.inf, -1, 0):
        rules = replace(RULES, max_open_trades=limit)
        backtest = account(*many, trade(20, 25))
        (lone,) = compare_trades(backtest, account(*many), EQUAL, rules).alone
        assert lone.cause.kind == trading.UNEXPLAINED


def test_a_bot_could_enter_from_the_first_candle_it_forecast_in_time() -> None:
    rows = of_bot()
    late = [replace(row, created_ms=open_of(FIRST + 4) + 3_000) for row in rows[:4]]
    assert first_in_time([*late, *rows[4:]], STEP_MS) == {PAIR: open_of(FIRST + 3)}


def test_a_lock_is_read_as_freqtrade_writes_it() -> None:
    told = {"pair": PAIR, "side": "*", "lock_timestamp": 5, "lock_end_timestamp": 9,
            "reason": "Auto lock", "active": True}  # fmt: skip
    assert Lock.of(told) == Lock(PAIR, "*", 5, 9, "Auto lock")


# ---- both, and on the terminal ---------------------------------------------------------------


def whole(frame: DataFrame, rows: Sequence[JournalRow], *sides: Account) -> Comparison:
    known: Callable[[str], Candles | None] = CANDLES.get
    backtest, replay = sides or (account(), account())
    evidence = Evidence(SETTINGS, known, known, lambda row: [Candidate(RIGHT, "in force", "")])
    return compare(compared(frame, rows), backtest, replay, RULES, evidence, PURSE)


def shown(comparison: Comparison) -> str:
    console = Console(file=StringIO(), width=120)
    for part in renderables(comparison):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_a_bot_that_did_as_the_backtest_is_verified() -> None:
    found = whole(of_backtest(), of_bot(), account(trade(5, 9)), account(trade(5, 9)))
    assert found.ok
    text = shown(found)
    assert "20 of 20 are equal to the last bit" in text
    assert "1 made by both" in text
    assert text.startswith("Profit: promised +0.10% (+1.00), kept +0.10% (+1.00): +0.00 points")
    assert text.endswith("and kept its profit within 0.3 points, trade by trade and in all.")


def test_an_unlike_forecast_is_shown_with_its_cause() -> None:
    found = whole(of_backtest(), of_bot(described(make_model(1), "v0")))
    assert not found.ok
    text = shown(found)
    assert f"The first difference is BTC/USDT {utc_text(open_of(FIRST))}:" in text
    assert "Cause: serving." in text
    assert text.endswith("Not verified: forecasts are not proven equal.")


def test_a_trade_without_explanation_is_shown_first() -> None:
    explained = [trade(n, n, enter_tag="force_entry") for n in range(5, 45)]
    unexplained = trade(60, 61, pair=OTHER)
    found = whole(of_backtest(), of_bot(), account(*explained, unexplained), account())
    assert not found.ok
    text = shown(found)
    table = text[text.index("trade     ") :].splitlines()
    assert table[1].startswith("ETH/USDT long")
    assert "and 21 more" in text
    assert "Not verified: 1 trade(s) have no explanation and the profit was not kept" in text


def test_funding_that_the_market_did_not_pay_is_shown_and_not_verified() -> None:
    purse = PURSE._replace(payments={PAIR: [Payment(open_of(7), 0.5)]})
    known: Callable[[str], Candles | None] = CANDLES.get
    evidence = Evidence(SETTINGS, known, known, lambda row: [Candidate(RIGHT, "in force", "")])
    for booked, is_right in ((-0.5, True), (0.5, False)):
        sides = (account(trade(5, 9, funding=-0.5)), account(trade(5, 9, funding=booked)))
        found = compare(compared(of_backtest(), of_bot()), *sides, RULES, evidence, purse)
        text = shown(found)
        assert found.ok == is_right
        assert f"Funding in closed trades: promised -0.5000, kept {booked:+.4f}" in text
        assert ("the bot booked +0.5000, the market's payments while" in text) != is_right
        assert ("the funding of 1 trade(s) is not what the market paid" in text) != is_right
    assert "Funding" not in shown(whole(of_backtest(), of_bot()))  # of spot


def test_what_comes_from_a_database_is_not_read_as_markup() -> None:
    strange = account(trade(5, 9, exit_reason="[red]x[/nothing]"))
    found = whole(of_backtest(), of_bot(), account(trade(5, 9)), strange)
    assert "[red]x[/nothing]" in shown(found)


def test_a_candle_without_a_number_is_missing_and_not_equal() -> None:
    frame = of_backtest()
    frame.loc[FIRST + 1, "lstm_mean"] = np.nan
    frame.loc[FIRST + 1, "lstm_gate"] = NO_DATA
    found = compared(frame, of_bot())
    assert [len(pair.only_replay) for pair in found.pairs] == [1]
