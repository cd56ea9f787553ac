"""What a bot has said is computed again from what is on disk; every fault is found and named."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instant_training import SETTINGS, InstantTraining, make_learning, make_maker, make_terms
from live_world import (  # noqa: F401 - a fixture
    OTHER,
    PAIR,
    SERIES,
    TRAINER,
    Bot,
    boundary_ms,
    easy_to_beat,
    in_context,
    row_of,
)
from lstm_reference import random_weights
from series import change, drop, make_candles, same_bits, with_flow

from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.bot.live import _journal_row
from lstm_model.features.closed_candle import (
    WARM_UP,
    FeatureRows,
    compute_features,
    feature_names,
    leading_columns,
)
from lstm_model.learning.chain import Learning
from lstm_model.learning.steps import Step
from lstm_model.market.candles import Candles, unknown_flow, utc_text
from lstm_model.model.lstm import Lstm
from lstm_model.model.model import Model
from lstm_model.replay import reproduction
from lstm_model.replay.inputs import Inputs, inputs_at, look_ahead
from lstm_model.replay.reproduction import (
    Finding,
    StepsInForce,
    Values,
    check_journal,
    reproduce,
)
from lstm_model.settings import Settings
from lstm_model.store.journal import JournalRow
from lstm_model.store.lineage import Lineage
from lstm_model.trading.outlook import Frame

FROM, UNTIL = 1_598, 1_622
SERVED = 1_604  # the first candle that the step of candle 1,600 serves
COUNT = WARM_UP + SETTINGS.lookback  # candles that a forecast looks back on, with its own
DISK = {candles.pair: candles for candles in in_context(SERIES)}
FLOW_SETTINGS = Settings.model_validate(SETTINGS.model_dump() | {"order_flow": True})


@dataclass(frozen=True)
class Ran:
    """What a bot left behind."""

    root: Path
    rows: tuple[JournalRow, ...]
    series: tuple[Candles, ...] = tuple(SERIES)
    settings: Settings = SETTINGS

    def learning(self) -> Learning:
        return make_learning(self.root, self.series, self.settings)

    def steps(self, learning: Learning) -> tuple[Step, ...]:
        head = Lineage(self.root, "binance-spot-5m").head
        assert head is not None
        return learning.resume(head, 1_000)

    def check(
        self, disk: Mapping[str, Candles] | None = None, rows: Iterable[JournalRow] | None = None,
        steps: Iterable[Step] | None = None,
    ) -> list[Finding]:  # fmt: skip
        learning = self.learning()
        known = self.steps(learning) if steps is None else tuple(steps)
        candles = {c.pair: c for c in self.series} if disk is None else disk
        of = make_maker(self.root, self.series, self.settings, candles.get).history.of
        said = self.rows if rows is None else rows
        return list(check_journal(said, of, learning, known, self.settings))

    def row(self, number: int, **changes: Any) -> JournalRow:
        mine = next(r for r in self.rows if (row_of(r.candle_ms), r.pair) == (number, PAIR))
        return replace(mine, **changes)

    def about(self, row: JournalRow, **options: Any) -> Finding:
        [finding] = self.check(rows=[row], **options)
        return finding


def run_bot(
    root: Path, rows: Iterable[int], act: Callable[[Bot, int], None] | None = None, **options: Any
) -> Ran:
    """A bot that says something of both pairs, all it is handed at each of these candles."""
    numbers = list(rows)
    bot = Bot(root, **options).start(numbers[0])
    for number in numbers:
        (act or as_freqtrade_does)(bot, number)
    said = [r for pair in bot.series for r in bot.journal.read(pair, "5m", 0, 2**60)]
    bot.stop()
    mine = tuple(row for row in said if row_of(row.candle_ms) >= numbers[0])
    return Ran(root, mine, tuple(bot.series.values()), bot.maker.settings)


def as_freqtrade_does(bot: Bot, number: int) -> None:
    bot.look(number)
    if number % 2:  # both pairs in one pass of the network; else one after the other
        bot.engine.foresee([bot.frame(pair) for pair in bot.series])
    bot.listen(number)


@pytest.fixture(name="training", autouse=True, scope="module")
def instant_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, InstantTraining())
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_bot(tmp_path_factory.mktemp("ran"), range(FROM, UNTIL))


@pytest.fixture
def store(ran: Ran, tmp_path: Path) -> Path:
    """A store in which all models and steps are there already, so that a bot starts at once."""
    for folder in ("models", "steps"):
        shutil.copytree(ran.root / folder, tmp_path / folder)
    return tmp_path


def kinds(findings: Iterable[Finding]) -> Counter[str]:
    return Counter(finding.kind for finding in findings)


def by_number(findings: Iterable[Finding], pair: str = PAIR) -> dict[int, Finding]:
    return {row_of(f.row.candle_ms): f for f in findings if f.row.pair == pair}


def opened(number: int) -> str:
    return utc_text(boundary_ms(number))


def seen(candles: Candles, number: int, settings: Settings = SETTINGS) -> Inputs:
    found = inputs_at(candles, boundary_ms(number), settings, DISK[PAIR])
    assert isinstance(found, Inputs), found
    return found


def whole_frame(settings: Settings = SETTINGS) -> tuple[Candles, Frame]:
    candles = with_flow(SERIES[0])
    return candles, Frame(candles, settings)


# ---------------------------------------------------------------- inputs


@pytest.mark.parametrize("settings", [SETTINGS, FLOW_SETTINGS, Settings()])
def test_a_prefix_gives_the_bits_of_the_whole_series(settings: Settings) -> None:
    candles, frame = whole_frame(settings)
    for number in (COUNT + 100, 700, 701, 1_234, 1_999):
        inputs = seen(candles, number, settings)
        window = frame.features.rows[number - settings.lookback + 1 : number + 1]
        assert inputs.names == feature_names(settings.order_flow)
        assert same_bits(inputs.rows, window)
        assert inputs.volatility == frame.features.volatility[number]
        assert look_ahead(inputs, frame) == ""


@given(number=st.integers(COUNT - 1, 1_990), factor=st.floats(0.1, 10.0))
def test_no_later_candle_and_none_beyond_the_warm_up_is_looked_at(
    number: int, factor: float
) -> None:
    known = seen(SERIES[0], number)
    others = np.r_[: number - COUNT + 1, number + 1 : len(SERIES[0])]
    names = ("open", "high", "low", "close", "volume")
    changed = {name: getattr(SERIES[0], name)[others] * factor for name in names}
    other = seen(change(SERIES[0], others, **changed), number)
    assert same_bits(other.rows, known.rows)
    assert other.volatility == known.volatility
    assert len(known.candles) == COUNT
    assert row_of(int(known.candles.date_ms[-1])) == number


def test_the_first_candle_with_enough_before_it_can_be_forecast_and_not_the_one_before() -> None:
    seen(SERIES[0], COUNT - 1)
    why = inputs_at(SERIES[0], boundary_ms(COUNT - 2), SETTINGS)
    assert why == (
        f"1 of the {COUNT} candles up to its own are not on disk, the last of them that of "
        f"{opened(-1)}: `freqtrade download-data` gets them"
    )


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda c: drop(c, 900), f"the candle of {opened(900)} is not on disk: `freqtrade"),
        (lambda c: c.rows(0, 900), f"the candle of {opened(900)} is not on disk"),
        (lambda c: c.rows(0, 0), f"the candle of {opened(900)} is not on disk"),
        (lambda c: drop(c, [700, 890]), f"2 of the {COUNT} candles up to its own are not on disk"),
        (lambda c: change(c, 900, volume=0.0),
         f"1 of 8 candles have no trades or impossible prices, that of {opened(900)} among them"),
        (lambda c: change(c, 900, close=np.nan), f"that of {opened(900)} among them"),
        (lambda c: change(c, slice(893, 896), volume=0.0), "3 of 8 candles have no trades"),
        (lambda c: change(c, 650, close=np.nan), "a price is impossible, or none moved"),
        (lambda c: change(c, 650, low=0.0), "a price is impossible, or none moved"),
    ],
)  # fmt: skip
def test_it_says_why_a_candle_has_no_inputs(spoil: Callable[[Candles], Candles], text: str) -> None:
    why = inputs_at(spoil(SERIES[0]), boundary_ms(900), SETTINGS)
    assert isinstance(why, str)
    assert text in why


def test_order_flow_that_nobody_loaded_is_unknown_and_one_without_trades_is_not() -> None:
    why = inputs_at(SERIES[0], boundary_ms(900), FLOW_SETTINGS)
    assert why == "its order flow is unknown: `freqtrade-lstm download-flow` gets it"
    empty = replace(SERIES[0], flow=unknown_flow(SERIES[0].date_ms))
    assert seen(empty, 900, FLOW_SETTINGS).rows[-1, -1] == 0.0


@pytest.mark.lengthy
def test_a_forecast_alone_has_the_bits_that_it_has_among_many(ran: Ran) -> None:
    lstm = Lstm(random_weights(len(feature_names(False)), 50, 7), Settings().lookback)
    model = replace(ran.steps(ran.learning())[-1].model, lstm=lstm)
    candles = make_candles(1_000)
    inputs = [seen(candles, number, Settings()) for number in range(500, 640)]
    raw = lstm.predict_windows(np.stack([each.rows for each in inputs]))
    volatility = np.array([each.volatility for each in inputs])
    many = model.calibrated(PAIR, raw, volatility)
    for number, each in enumerate(inputs):
        assert reproduce(model, PAIR, each) == Values.of(many.row(number))


# ---------------------------------------------------------------- the journal of a sound bot


def test_all_that_a_bot_said_is_computed_again_to_the_last_bit(ran: Ran) -> None:
    findings = ran.check()
    assert kinds(findings) == {"equal": 2 * (UNTIL - FROM)}
    texts = by_number(findings)
    assert texts[SERVED - 1].text == f"by the step of {opened(1_550)}"
    assert texts[SERVED].text == f"by the step of {opened(1_600)}"
    assert [f.row.pair for f in findings] == [PAIR] * 24 + [OTHER] * 24


def test_a_row_is_reproduced_by_hand_with_the_likeliest_model(ran: Ran) -> None:
    learning = ran.learning()
    row = ran.row(SERVED)
    likeliest = next(StepsInForce(learning, ran.steps(learning)).model_for(row))
    made = reproduce(likeliest.model, PAIR, seen(DISK[PAIR], SERVED))
    assert made == Values.of(row)
    assert made.unlike(Values.of(ran.row(SERVED + 1))).keys() >= {"mean", "low", "quantile 7"}


@pytest.mark.lengthy
def test_it_does_not_matter_how_many_rows_are_computed_together_nor_their_order(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = ran.check()
    monkeypatch.setattr(reproduction, "_TOGETHER", 5)
    assert ran.check(rows=ran.rows[::-1]) == together


@pytest.mark.lengthy
def test_all_that_a_backtest_says_comes_out_of_prefixes_too(tmp_path: Path) -> None:
    """Across retrainings and promotions, in blocks of windows that share candles."""
    learning = make_learning(tmp_path, SERIES, followed=list(DISK))
    engine = WalkForwardEngine(learning, make_terms())
    outlook = engine.outlook(SERIES[0].rows(1_580, 2_000), skip=0)
    rows = [_journal_row(outlook, number, "5m") for number in range(420)]
    steps = tuple(engine._steps.values())
    findings = list(check_journal(rows, learning.maker.history.of, learning, steps, SETTINGS))
    assert kinds(findings) == {"equal": 420}
    assert len({row.version for row in rows}) > 1


@pytest.mark.lengthy
def test_a_bot_with_order_flow_is_reproduced_and_not_without_it(tmp_path: Path) -> None:
    series = [with_flow(candles, seed=n) for n, candles in enumerate(SERIES)]
    ran = run_bot(tmp_path, range(1_598, 1_601), series=series, settings=FLOW_SETTINGS)
    assert kinds(ran.check()) == {"equal": 6}
    flow = series[0].flow
    assert flow is not None
    flow = flow.copy()
    flow[1_590:1_597] = unknown_flow(flow["date_ms"][1_590:1_597])
    lost = by_number(ran.check({PAIR: replace(series[0], flow=flow), OTHER: series[1]}))
    assert {f.kind for f in lost.values()} == {"not reproducible"}
    assert "the order flow of" in lost[1_598].text
    assert "is unknown" in lost[1_598].text


@pytest.mark.lengthy
def test_steps_that_come_late_are_named_and_so_is_the_one_that_should_have_served(
    store: Path,
) -> None:
    def idle_learner(bot: Bot, number: int) -> None:
        if number < 1_600 or number >= SERVED + 3:
            bot.look(number)
        bot.listen(number) if number < SERVED + 3 else None

    findings = by_number(run_bot(store, range(FROM, SERVED + 4), idle_learner).check())
    assert {n for n, f in findings.items() if f.kind == "late step"} == {1_604, 1_605, 1_606}
    assert findings[SERVED].text == (
        f"by the step of {opened(1_550)}; that of {opened(1_600)}, which a backtest takes, was not "
        "there in time"
    )
    assert findings[SERVED - 1].kind == "equal"


def test_a_pinned_version_is_found(store: Path) -> None:
    def pinning(bot: Bot, number: int) -> None:
        champion = bot.lineage.champions[0] if bot.lineage.head else ""
        others = sorted(bot.engine._learning.steps[-1].versions - {champion}) if champion else []
        if number == FROM + 2:
            bot.lineage.pin(others[0])
        as_freqtrade_does(bot, number)

    ran = run_bot(store, range(FROM, FROM + 5), pinning)
    findings = by_number(ran.check())
    assert {f.kind for f in findings.values()} == {"equal"}
    assert findings[FROM + 1].text == f"by the step of {opened(1_550)}"
    assert findings[FROM + 2].text == f"pinned, as the step of {opened(1_550)} knew it"
    assert findings[FROM + 2].row.version != findings[FROM + 1].row.version


# ---------------------------------------------------------------- faults that are planted


@pytest.mark.lengthy
def test_another_close_on_disk_is_named_at_its_candle(ran: Ran) -> None:
    moved = change(SERIES[0], 1_610, close=SERIES[0].close[1_610] * 1.0001)
    findings = by_number(ran.check({PAIR: moved, OTHER: SERIES[1]}))
    assert all(findings[number].kind == "equal" for number in range(FROM, 1_610))
    assert findings[1_610].kind == "differs"
    assert "a close on disk, its own, is not the one that the bot saw" in findings[1_610].text
    assert "in the journal and" in findings[1_610].text
    assert all(findings[n].text.endswith("as for the candle before") for n in range(1_611, UNTIL))
    apart = ran.check({PAIR: moved}, rows=[ran.row(1_610), ran.row(1_612)])
    assert apart[1].text.endswith("is not the one that the bot saw")
    alone = ran.about(ran.row(1_610), disk={PAIR: moved})
    assert f"a close on disk, that of one of the {COUNT} candles, is not" in alone.text


@pytest.mark.parametrize("column", ["open", "high", "low", "volume"])
def test_another_candle_with_the_same_close_is_named_too(ran: Ran, column: str) -> None:
    value = getattr(SERIES[0], column)[1_610] * {"high": 1.001, "low": 0.999}.get(column, 1.01)
    values = {column: value}
    if column == "open":
        values = {"open": (SERIES[0].high[1_610] + SERIES[0].low[1_610]) / 2}
    findings = by_number(ran.check({PAIR: change(SERIES[0], 1_610, **values)}))
    assert findings[1_609].kind == "equal"
    assert findings[1_610].kind == "differs"
    assert "low, volume or order flow on disk, its own, is not what the bot" in findings[1_610].text


@pytest.mark.lengthy
def test_a_close_that_moved_by_next_to_nothing_is_told_from_rounding(ran: Ran) -> None:
    moved = change(SERIES[0], 1_610, close=SERIES[0].close[1_610] * (1.0 + 1e-9))
    finding = by_number(ran.check({PAIR: moved}))[1_610]
    assert "a close on disk, its own, is not" in finding.text
    volume = change(SERIES[0], 1_610, volume=SERIES[0].volume[1_610] * (1.0 + 1e-6))
    finding = by_number(ran.check({PAIR: volume}))[1_610]
    assert "or a candle on disk differs by next to nothing" in finding.text


def test_missing_candles_are_named_and_what_gets_them(ran: Ran) -> None:
    findings = by_number(ran.check({PAIR: drop(SERIES[0], 1_612)}))
    assert findings[1_611].kind == "equal"
    assert findings[1_612].kind == findings[1_613].kind == "not reproducible"
    assert f"the candle of {opened(1_612)} is not on disk: `freqtrade" in findings[1_612].text
    assert f"1 of the {COUNT} candles up to its own are not on disk" in findings[1_613].text
    [other] = {f.text for f in by_number(ran.check({PAIR: SERIES[0]}), OTHER).values()}
    assert other == "no candles of ETH/USDT are on disk: `freqtrade download-data` gets them"
    old = ran.about(ran.row(FROM), disk={PAIR: SERIES[0].rows(0, 900)})
    assert old.text.startswith(f"the candle of {opened(FROM)} is not on disk")


def test_a_model_that_is_gone_is_named(ran: Ran, store: Path) -> None:
    version = ran.row(FROM).version
    steps = ran.steps(ran.learning())
    shutil.rmtree(store / "models" / version)
    finding = replace(ran, root=store).about(ran.row(FROM), steps=steps)
    assert finding.kind == "not reproducible"
    assert f"its model cannot be used: model {version} is not in" in finding.text


def test_a_model_whose_step_is_gone_is_not_reproducible_instead_of_wrong(ran: Ran) -> None:
    steps = ran.steps(ran.learning())
    finding = ran.about(ran.row(FROM), steps=[s for s in steps if row_of(s.boundary_ms) > 1_550])
    assert finding.kind == "not reproducible"
    assert "no known step has its model in force then" in finding.text


def serving(change_model: Callable[[Model], Model]) -> Callable[[Bot, int], None]:
    """A bot that serves other models than it has learnt."""

    def act(bot: Bot, number: int) -> None:
        bot.look(number)
        learning = bot.engine._learning
        if "in_force" not in vars(learning):
            found = learning.in_force
            learning.in_force = lambda candles: (  # type: ignore[method-assign]
                (change_model(model), rows) for model, rows in found(candles)
            )
        bot.listen(number)

    return act


def without_scaler(model: Model) -> Model:
    bare = copy(model.lstm)
    bare.members = [copy(member) for member in model.lstm.members]
    for lstm in bare.members:
        lstm._mean, lstm._scale = np.zeros_like(lstm._mean), np.ones_like(lstm._scale)
    return replace(model, lstm=bare)


def test_a_scaler_that_was_left_out_is_named(store: Path) -> None:
    rows = range(1_606, 1_609)
    findings = by_number(run_bot(store, rows, serving(without_scaler)).check())
    assert {f.kind for f in findings.values()} == {"differs"}
    assert findings[rows[0]].text.endswith("now: the features were not scaled")


def test_other_weights_are_named(store: Path) -> None:
    weights = random_weights(len(feature_names(False)), 16, 7, layers=1)

    def other(model: Model) -> Model:
        return replace(model, lstm=Lstm(weights, SETTINGS.lookback))

    findings = by_number(run_bot(store, range(1_606, 1_608), serving(other)).check())
    assert findings[1_606].kind == "differs"
    assert findings[1_606].text.endswith("or it had other weights or another calibration")


def test_other_widths_are_named(store: Path) -> None:
    def wider(model: Model) -> Model:
        widths = {p: w._replace(slopes=(0.5,) * 5) for p, w in model.calibration.widths.items()}
        return replace(model, calibration=replace(model.calibration, widths=widths))

    findings = by_number(run_bot(store, range(1_606, 1_608), serving(wider)).check())
    assert findings[1_606].kind == "differs"
    assert "its interval has other widths than at any known step" in findings[1_606].text


@pytest.mark.parametrize(
    ("ahead", "text"),
    [(1, "look-ahead: it was made from the candle after"), (-1, "made from the candle before")],
)
def test_a_row_that_was_made_from_another_candle_is_named(ran: Ran, ahead: int, text: str) -> None:
    learning = ran.learning()
    row = ran.row(1_610)
    model = next(StepsInForce(learning, ran.steps(learning)).model_for(row)).model
    said = vars(reproduce(model, PAIR, seen(DISK[PAIR], 1_610 + ahead)))
    finding = ran.about(replace(row, **said))
    assert finding.kind == "differs"
    assert text in finding.text


def looks_ahead(candles: Candles, *, order_flow: bool = False) -> FeatureRows:
    """Features of which one is that of the candle after, where that is known."""
    honest = compute_features(candles, order_flow=order_flow)
    rows = honest.rows.copy()
    column = feature_names(order_flow).index("volume_48")
    rows[:-1, column] = np.where(honest.known[:-1], honest.rows[1:, column], np.nan)
    return FeatureRows(rows, honest.volatility)


def test_a_feature_that_looks_ahead_is_named_though_the_bot_could_not_see_more(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_model.trading.outlook.compute_features", looks_ahead)
    findings = by_number(run_bot(store, range(1_606, 1_609)).check())
    assert {f.kind for f in findings.values()} == {"differs"}
    for number, finding in findings.items():
        assert f'look-ahead: "volume_48" of the candle of {opened(number)} is' in finding.text
        assert "not from what the bot said" in finding.text


def test_a_feature_that_looks_ahead_is_named_where_the_bot_fell_for_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage it forecasts several candles at once, with the later ones known."""
    monkeypatch.setattr("lstm_model.trading.outlook.compute_features", looks_ahead)
    ran = run_bot(store, (1_606, 1_610))
    finding = ran.about(ran.row(1_608))
    assert finding.kind == "differs"
    assert "in the journal and" in finding.text
    assert f'look-ahead: "volume_48" of the candle of {opened(1_608)} is' in finding.text


def test_a_volatility_that_looks_ahead_is_named() -> None:
    _, frame = whole_frame()
    inputs = seen(SERIES[0], 900)
    finding = look_ahead(replace(inputs, volatility=0.5), frame)
    assert finding.startswith(f'look-ahead: "volatility" of the candle of {opened(900)} is 0.00')
    assert finding.endswith(f"in the whole series and 0.5 with those until {opened(900)}")


def test_a_model_from_the_future_is_named(ran: Ran) -> None:
    card = ran.steps(ran.learning())[-1].model.card
    first = row_of(card.train_end_ms) + SETTINGS.training_lag_candles - 1
    for number, text in ((first - 1, f"look-ahead: model {card.version} learnt"), (first, " now")):
        row = ran.row(FROM, version=card.version, candle_ms=boundary_ms(number))
        finding = ran.about(row)
        assert finding.kind == "differs"
        assert text in finding.text


# ---------------------------------------------------------------- rows that say less, or otherwise


def test_a_row_of_an_older_release_is_compared_as_far_as_it_goes(ran: Ran) -> None:
    lacking = {"mean_error": None, "lowest": None, "highest": None}
    finding = ran.about(ran.row(FROM, **lacking))
    assert finding.kind == "not reproducible"
    assert "did not write mean_error, lowest, highest; the rest is equal" in finding.text
    assert ran.about(ran.row(FROM, **lacking, mean=0.1)).kind == "differs"


def test_a_row_for_other_settings_is_not_reproducible(ran: Ran) -> None:
    row = ran.row(FROM)
    for other in (replace(row, quantiles=row.quantiles[1:-1]), replace(row, timeframe="1h")):
        finding = ran.about(other)
        assert (finding.kind, finding.text) == (
            "not reproducible",
            "it was made for other settings",
        )
    longer = SETTINGS.model_copy(update={"horizon": 3})
    learning = ran.learning()
    [finding] = check_journal([row], DISK.get, learning, ran.steps(learning), longer)
    assert finding.text == "it was made for other settings"


@pytest.mark.parametrize(
    "name", ["volatility", "mean", "low", "high", "mean_error", "lowest", "highest", "quantiles"]
)
def test_the_last_bit_of_every_number_counts(ran: Ran, name: str) -> None:
    row = ran.row(FROM)
    value = getattr(row, name)
    moved: Any = np.nextafter(value, 1.0)
    finding = ran.about(replace(row, **{name: tuple(moved) if name == "quantiles" else moved}))
    assert finding.kind == "differs"
    assert finding.text.startswith("quantile " if name == "quantiles" else name)
    assert "another processor rounds otherwise" in finding.text


def test_a_zero_that_a_database_turned_around_is_the_same_zero(ran: Ran) -> None:
    values = Values.of(ran.row(FROM))
    assert replace(values, lowest=-0.0).unlike(replace(values, lowest=0.0)) == {}


# ---------------------------------------------------------------- the leader


def test_a_forecast_that_was_made_before_the_leaders_candle_came_is_told_apart(
    store: Path,
) -> None:
    def late(bot: Bot, number: int) -> None:
        bot.look(number) if number == 1_606 else bot.at(number)
        bot.engine.outlook(bot.frame(OTHER))  # before the leader's own
        bot.engine.outlook(bot.frame(PAIR))

    findings = by_number(run_bot(store, range(1_606, 1_609), late).check(), OTHER)
    told = {number: finding.kind for number, finding in findings.items()}
    assert told[1_607] == told[1_608] == "late leader"
    assert "without the leader's candle, which came too late" in findings[1_608].text


def test_a_context_that_looks_ahead_at_the_leader_is_named(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_the_next(candles: Candles) -> Any:
        columns = leading_columns(candles)
        return np.concatenate([columns[1:], columns[-1:]])

    monkeypatch.setattr("lstm_model.features.context.leading_columns", of_the_next)
    findings = ran.check(rows=[row for row in ran.rows if row.pair == OTHER])
    assert kinds(findings) == {"differs": UNTIL - FROM}
    assert all('look-ahead: "leader_' in finding.text for finding in findings[:1])


def test_the_days_before_are_those_of_a_prefix(ran: Ran) -> None:
    number = 1_700
    inputs = seen(DISK[PAIR], number)
    begin = number - COUNT + 1
    whole = DISK[PAIR].context[begin : number + 1]
    for name in ("variance_1d", "variance_7d", "parkinson_1d"):
        known = inputs.candles.context[name]
        assert same_bits(known[-SETTINGS.lookback :], whole[name][-SETTINGS.lookback :]), name
