"""The chart: what was forecast of a candle stands at it, what is forecast of the next beside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from freqtrade.enums import RunMode
from freqtrade.resolvers import StrategyResolver
from freqtrade.rpc import RPC
from freqtrade.rpc.api_server.api_schemas import PairHistory
from hypothesis import given
from hypothesis import strategies as st
from nowcast_world import LEVELS
from places import STRATEGIES
from series import STEP_MS, drop, make_candles, to_frame

from lstm_model.bot.forecasting import with_columns
from lstm_model.market.candles import Candles
from lstm_model.model.forecast import Forecast, unknown_far
from lstm_model.settings import Settings
from lstm_model.trading.analyzed import coming, outline
from lstm_model.trading.outlook import Outlook, Terms

PAIR, OTHER = "BTC/USDT", "ETH/USDT"
SETTINGS = Settings(horizon=12, levels=LEVELS)
COUNT = 60
THEIRS = """
from freqtrade.strategy import IStrategy
from lstm_model import LSTMForecasts

class Theirs(IStrategy):
    timeframe = "5m"
    stoploss = -0.10
    plot_config = {{"main_plot": {{"ema": {{}}}}, "subplots": {{"RSI": {{"rsi": {{}}}}}}}}
    def populate_indicators(self, dataframe, metadata): return dataframe
    def populate_entry_trend(self, dataframe, metadata): return dataframe
    def populate_exit_trend(self, dataframe, metadata): return dataframe
    {own}

class Safer(LSTMForecasts, Theirs):
    pass
"""
MARKED = """def plot_annotations(self, pair, start_date, end_date, dataframe, **kwargs):
        return [{"type": "line", "label": pair, "start": start_date, "end": end_date,
                 "y_start": 1.0, "y_end": 1.0}]"""


def loaded(name: str, folder: Path = STRATEGIES, mode: RunMode = RunMode.DRY_RUN) -> Any:
    config = {
        "strategy": name, "strategy_path": str(folder), "user_data_dir": Path("nowhere"),
        "timeframe": "5m", "stake_currency": "USDT", "stake_amount": 100.0, "max_open_trades": 3,
        "dry_run": True, "runmode": mode, "trading_mode": "spot",
        "exchange": {"name": "binance"}, "lstm": {"horizon": SETTINGS.horizon},
    }  # fmt: skip
    return StrategyResolver.load_strategy(config)


def theirs(folder: Path, own: str = "", mode: RunMode = RunMode.DRY_RUN) -> Any:
    (folder / "safer.py").write_text(THEIRS.format(own=own))
    return loaded("Safer", folder, mode)


def outlook_of(candles: Candles, masked: tuple[int, ...] = ()) -> Outlook:
    """Of every candle another interval, and none of those that are masked."""
    outlook = Outlook(candles.pair, candles.date_ms, Terms(SETTINGS, 0.001, can_short=False))
    rows = np.setdiff1d(np.arange(len(candles)), masked)
    half = 0.01 + 0.0001 * rows
    ends = np.linspace(-half, half, len(LEVELS), axis=1)
    zeros = np.zeros(len(rows))
    made = Forecast(LEVELS, ends, zeros, zeros, zeros, zeros, zeros, far=unknown_far(len(rows)))
    outlook.put(rows, made)
    outlook.usual_width[:] = 0.02
    return outlook


def analyzed(candles: Candles, masked: tuple[int, ...] = ()) -> pd.DataFrame:
    return with_columns(to_frame(candles), candles, outlook_of(candles, masked))


def boxes_of(strategy: Any, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """As freqtrade asks for them, which lets no annotation pass that it does not know."""
    return list(strategy.ft_plot_annotations(pair=PAIR, dataframe=frame))


def middle(box: dict[str, Any]) -> int:
    return round((box["start"] + (box["end"] - box["start"]) / 2).timestamp() * 1000)


def test_what_is_announced_of_a_candle_is_what_stands_at_it_when_it_is_there() -> None:
    candles, strategy = make_candles(COUNT + SETTINGS.horizon), loaded("EmaCrossLSTM")
    whole = analyzed(candles).assign(ms=candles.date_ms).set_index("ms")
    boxes = boxes_of(strategy, analyzed(candles.rows(0, COUNT)))
    assert [middle(box) for box in boxes] == candles.date_ms[COUNT:].tolist()
    for box in boxes:
        there = whole.loc[middle(box)]
        assert (box["y_start"], box["y_end"]) == (there["lstm_due_low"], there["lstm_due_high"])
        assert box["end"] - box["start"] == timedelta(minutes=5)


def test_of_a_masked_candle_nothing_is_announced_and_holes_move_nothing() -> None:
    strategy, newest = loaded("EmaCrossLSTM"), COUNT - 1
    candles = make_candles(COUNT)
    boxes = boxes_of(strategy, analyzed(candles, masked=(newest - 3, newest)))
    wanted = [ahead for ahead in range(1, SETTINGS.horizon + 1) if ahead not in (9, 12)]
    ahead = [(middle(box) - int(candles.date_ms[-1])) // STEP_MS for box in boxes]
    assert ahead == wanted
    holed = drop(candles, [newest - SETTINGS.horizon, newest - 3])
    found = boxes_of(strategy, analyzed(holed))
    assert [middle(box) for box in found] == [
        int(holed.date_ms[-1]) + STEP_MS * number for number in range(1, 13) if number != 9
    ]


def test_without_candles_or_forecasts_there_is_nothing_to_announce() -> None:
    strategy, candles = loaded("EmaCrossLSTM"), make_candles(COUNT)
    assert boxes_of(strategy, analyzed(candles).iloc[:0]) == []
    assert boxes_of(strategy, to_frame(candles)) == []
    assert boxes_of(strategy, analyzed(candles).drop(columns="lstm_price_high")) == []
    assert boxes_of(strategy, analyzed(candles, masked=tuple(range(COUNT)))) == []


def test_annotations_of_theirs_come_first_and_stay(tmp_path: Path) -> None:
    first, *ours = boxes_of(theirs(tmp_path, MARKED), analyzed(make_candles(COUNT)))
    assert (first["type"], first["label"]) == ("line", PAIR)
    assert len(ours) == SETTINGS.horizon


def test_frequi_gets_columns_and_annotations_as_json() -> None:
    """As freqtrade's own REST server makes it."""
    frame, strategy = analyzed(make_candles(COUNT)), loaded("EmaCrossLSTM")
    frame[["enter_long", "exit_long", "enter_short", "exit_short"]] = 0
    answer = RPC._convert_dataframe_to_dict(
        "EmaCrossLSTM", PAIR, "5m", frame, datetime.now(UTC), None, boxes_of(strategy, frame)
    )
    sent = PairHistory.model_validate(answer)
    assert sent.model_dump_json().count('"area"') == SETTINGS.horizon
    shown = {*strategy.plot_config["main_plot"]}
    for lines in strategy.plot_config["subplots"].values():
        shown |= {*lines}
    assert shown <= {*sent.columns}
    numbers = pd.DataFrame(sent.data, columns=sent.columns)[[*shown]]
    assert numbers.iloc[-1].map(lambda value: isinstance(value, int | float)).all()
    assert {*strategy.plot_config["subplots"]} == {"width", "edge", "gate"}


def test_plot_dataframe_draws_shapes_of_each_pair_and_keeps_theirs(tmp_path: Path) -> None:
    strategy = theirs(tmp_path, mode=RunMode.PLOT)
    for pair in (PAIR, OTHER):
        candles = make_candles(COUNT, pair=pair, seed=len(pair))
        strategy._lstm_outlook = outlook_of
        frame = strategy.populate_indicators(to_frame(candles), {"pair": pair})
        drawn = strategy.plot_config["main_plot"]
        assert {*drawn} == {"ema", "lstm_due_low", "lstm_price_low"}
        assert {*strategy.plot_config["subplots"]} == {"RSI", "width", "edge", "gate"}
        before, ahead = (drawn[name]["plotly"] for name in ("lstm_due_low", "lstm_price_low"))
        dates = [shape["x"].astype("int64") for shape in (before, ahead)]
        lead = SETTINGS.horizon
        assert dates[0][0] == candles.date_ms[lead]
        assert dates[0][: COUNT - lead].max() == candles.date_ms[-1]
        assert dates[1][: lead + 1].tolist() == [
            int(candles.date_ms[-1]) + STEP_MS * number for number in range(lead + 1)
        ]
        np.testing.assert_array_equal(before["y"][: COUNT - lead], frame["lstm_due_low"][lead:])
        assert ahead["y"][0] == frame["lstm_due_low"].iloc[-1]


def test_a_plot_config_of_theirs_that_is_a_property_is_left_alone(tmp_path: Path) -> None:
    own = "@property\n    def plot_config(self): return {'main_plot': {'ema': {}}}"
    text = THEIRS.format(own=own).replace("    plot_config = {", "    other = {")
    (tmp_path / "safer.py").write_text(text)
    strategy = loaded("Safer", tmp_path, RunMode.PLOT)
    strategy._lstm_outlook = outlook_of
    strategy.populate_indicators(to_frame(make_candles(COUNT)), {"pair": PAIR})
    assert strategy.plot_config == {"main_plot": {"ema": {}}}


def test_what_is_shown_needs_no_column_from_the_future(tmp_path: Path) -> None:
    """A frame that is analysed for a plot has the columns of one that is not."""
    candles = make_candles(COUNT)
    frames = []
    for mode in (RunMode.PLOT, RunMode.BACKTEST):
        strategy = theirs(tmp_path, mode=mode)
        strategy._lstm_outlook = outlook_of
        frames.append(strategy.populate_indicators(to_frame(candles), {"pair": PAIR}))
    pd.testing.assert_frame_equal(*frames)


@given(st.lists(st.booleans(), max_size=30))
def test_the_way_around_a_band_encloses_every_candle_that_has_one(known: list[bool]) -> None:
    low = np.where(known, np.arange(len(known), dtype=float), np.nan)
    rows, along_high = outline(low, low + 1.0)
    assert len(rows) == len(along_high)
    for high in (False, True):
        part = rows[(along_high == high) & (rows >= 0)]
        assert sorted(part.tolist()) == np.flatnonzero(known).tolist()
    pieces = "".join("x" if one else " " for one in known).split()
    assert (rows == -1).sum() == len(pieces)
    for piece in np.split(rows, np.flatnonzero(rows == -1) + 1)[:-1]:
        there = piece[: len(piece) // 2]
        assert np.diff(there).tolist() == [1] * (len(there) - 1)
        assert piece[:-1].tolist() == [*there, *there[::-1]]


@pytest.mark.parametrize("rows", [0, 1, 5, 12, 13])
def test_a_short_frame_announces_what_it_knows(rows: int) -> None:
    band = coming(analyzed(make_candles(rows or 1)).iloc[:rows], SETTINGS.horizon, STEP_MS)
    assert len(band.date_ms) == len(band.low) == rows
