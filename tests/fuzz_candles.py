"""Candles as nobody should find them, at the door and behind it; see `fuzz_inputs.py`."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from instant_training import SETTINGS, InstantTraining, make_learning, make_terms
from live_world import FIRST, OTHER, PAIR, SERIES, TRAINER, Bot, now_ms, wait_for_learning
from oddities import Inputs, answers, bytes_changed, threads_watched
from series import STEP_MS, to_frame

from lstm_model.bot.configuration import load_candles
from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.bot.forecasting import with_columns
from lstm_model.errors import LstmModelError
from lstm_model.features.closed_candle import WARM_UP, compute_features
from lstm_model.features.context import Contexts
from lstm_model.learning.news import Complaints
from lstm_model.market.candles import Candles
from lstm_model.market.history import CandleHistory, until_now
from lstm_model.trading.analyzed import coming, forecast_facts, log_returns, opened_ms
from lstm_model.trading.outlook import Outlook

Frame = Any  # pandas.DataFrame, or hardly one
SHOWN = 400  # candles: the warm-up, a window, and some that are forecast
SKIP = SHOWN - 40
DAY_MS = 86_400_000
NUMBERS = (
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    -1.0,
    1e308,
    1.7e308,
    1e-308,
    5e-324,
    1e155,
    1e-155,
    1e30,
)
FOREIGN = (None, "x", "1.5", "", True, Decimal("1.5"), [1.0], {}, pd.NaT, 1 + 1j, b"1", 10**400)
DATES = (
    "1970-01-01", "1677-09-22", "2009-01-01", "2100-01-01", "2262-04-11", "2023-11-14 12:34:56.789",
    "NaT",
)  # fmt: skip
COLUMNS = ("open", "high", "low", "close", "volume")


class CandleFrames(Inputs):
    """A bot and a study that know a whole history, and are shown one frame after another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.patch = mock.patch(TRAINER, InstantTraining())
        self.patch.start()
        followed = [candles.pair for candles in SERIES]
        learning = make_learning(root / "study", SERIES, followed=followed)
        self.study = WalkForwardEngine(learning, make_terms())
        self.frame = to_frame(SERIES[1].rows(FIRST - SHOWN, FIRST))
        self.study.outlook(SERIES[1].rows(FIRST - SHOWN, FIRST + 40), SKIP)
        self.bot = Bot(root / "live").start(FIRST)
        self.bot.look(FIRST)
        self.config = {"user_data_dir": root, "datadir": root, "timeframe": "5m",
                       "exchange": {"name": "binance"}, "lstm": {}}  # fmt: skip
        self.cases = 0
        self.unforeseen: list[Exception] = []

    def __exit__(self, *_: object) -> None:
        self.bot.engine.stop()
        wait_for_learning()
        self.bot._journal.close()
        self.patch.stop()

    def case(self, draw: random.Random) -> str:
        """Damage, show; the kind of the case."""
        self.cases += 1
        frame = self.frame.iloc[-draw.choice([SHOWN] * 7 + [1, 2, 60]) :].copy()
        for _ in range(draw.choice([0, 1, 1, 1, 2, 4])):
            frame = _damaged(frame, draw)
        places: dict[str, Callable[[Frame, random.Random], Any]] = {
            "features": self._features, "study": self._a_study, "bot": self._a_bot,
            "disk": self._a_disk,
        }  # fmt: skip
        kind = draw.choices(list(places), [3, 3, 3, 1])[0]
        with threads_watched():
            places[kind](frame, draw)
        return kind

    def _door(self, frame: Frame, pair: str = OTHER) -> Candles | None:
        found: Candles | None = answers(lambda: Candles.from_frame(frame, pair, "5m"))
        if found is not None:
            assert len(found) == len(frame)
            assert all(column.dtype == np.float64 for column in found.columns()[1:])
        return found

    def _features(self, frame: Frame, draw: random.Random) -> None:
        found = self._door(frame)
        if found is None:
            return
        candles = until_now(found)  # as everybody does before holes are filled
        leading, known = (PAIR, OTHER), {c.pair: c for c in SERIES} | {OTHER: candles}
        leader = draw.choice(leading)
        seen = draw.choice([None, known.get])
        context = answers(lambda: Contexts(leader).of(candles, known.get, seen))
        whole = candles if context is None else candles.with_context(context)
        grid: Candles | None = answers(whole.on_grid)
        if grid is None:
            return
        rows = compute_features(grid)
        assert np.isfinite(rows.rows[rows.known]).all()
        assert not np.isinf(rows.volatility[rows.known]).any()
        assert _settled(grid)[rows.known].all()

    def _a_study(self, frame: Frame, draw: random.Random) -> None:
        candles = self._door(frame)
        if candles is not None and _is_of_then(candles):
            skip = draw.choice([0, SKIP, len(candles)])
            _judge(answers(lambda: self.study.outlook(candles, skip)), candles)

    def _a_bot(self, frame: Frame, draw: random.Random) -> None:
        """As a bot reads a frame, forecasts the newest candle of all pairs, then each pair."""
        engine, pair = self.bot.engine, f"N{self.cases}/USDT"
        self.bot.recorder.tick(now_ms(FIRST + self.cases), STEP_MS)  # it has patience again
        with mock.patch.object(Complaints, "take", self._take):
            candles = engine.read(frame, pair)
            if candles is not None:
                if not draw.randrange(3):
                    engine.foresee([candles])
                outlook = engine.outlook(candles)
                _judge(outlook, candles)
                if not draw.randrange(3):
                    _in_a_strategy(frame, candles, outlook)
        engine._history.forget_all_but([OTHER])
        engine._memory.follow([OTHER])
        engine._told_ms.clear()
        if self.unforeseen:
            raise self.unforeseen.pop()

    def _take(self, _name: str, error: Exception) -> None:
        if not isinstance(error, LstmModelError):
            self.unforeseen.append(error)

    def _a_disk(self, frame: Frame, draw: random.Random) -> None:
        """As a data file, whole or not, and what learning has of it."""
        path = self.root / "ETH_USDT-5m.feather"
        path.write_bytes(b"")
        with suppress(Exception):  # Arrow does not take all of these
            frame.reset_index(drop=True).to_feather(path)
        content = path.read_bytes()
        if content and not draw.randrange(4):
            path.write_bytes(bytes_changed(content, draw))
        disk = partial(load_candles, self.config)
        history = CandleHistory(SETTINGS, disk, None, 10**12, Contexts(None))
        history.remember(SERIES[1].rows(FIRST, FIRST + 3))
        found = answers(lambda: history.of(OTHER))
        assert found is None or len(found)
        history.since(0)(OTHER)
        history.stored_until([OTHER])


def _in_a_strategy(frame: Frame, candles: Candles, outlook: Outlook) -> None:
    """The columns that a strategy gets, and what it reads of them."""
    shown = with_columns(frame, candles, outlook)
    assert len(shown) == len(frame)
    assert opened_ms(shown) == (candles.date_ms[-1] if len(candles) else 0)
    coming(shown, SETTINGS.horizon, candles.step_ms)
    log_returns({OTHER: shown}, 30)
    forecast_facts(shown, SETTINGS)


def _is_of_then(candles: Candles) -> bool:
    """Until the end of the history, or of the future: who asks for the years between waits."""
    last_ms = int(candles.date_ms[-1]) if len(candles) else 0
    return (
        last_ms < int(SERIES[1].date_ms[-1]) or last_ms > time.time() * 1_000 + 2 * candles.step_ms
    )


def _judge(outlook: Outlook | None, candles: Candles) -> None:
    """No forecast of a candle that is spoilt, or looks back on one; nothing without an end."""
    if outlook is None:
        return
    known = np.isfinite(outlook.forecast.mean)
    assert not np.isinf(outlook.forecast.quantiles).any()
    columns = outlook.columns(np.where(candles.sound(), candles.close, np.nan), candles.step_ms)
    for name, column in columns.items():
        if column.dtype.kind == "f":
            assert not np.isinf(column).any(), name
    if known.any():
        grid = candles.on_grid()
        rows = (candles.date_ms[known] - grid.date_ms[0]) // grid.step_ms
        assert grid.sound()[rows].all()
        assert _settled(grid)[rows].all()
    assert (outlook.decision.side[~known] == 0).all()


def _settled(grid: Candles) -> Any:
    """(T,) whether the prices of the candle and of the warm-up before it are prices."""
    prices = np.stack([grid.open, grid.high, grid.low, grid.close])
    broken = ~(np.isfinite(prices) & (prices > 0.0)).all(axis=0) | ~np.isfinite(grid.volume)
    return np.array([not broken[max(0, row - WARM_UP) : row + 1].any() for row in range(len(grid))])


# ---------------------------------------------------------------- damage


def _damaged(frame: Frame, draw: random.Random) -> Frame:
    """The frame with something else in it, if pandas can make such a one."""
    ways = [_numbers, _numbers, _numbers, _prices, _dates, _order, _kinds, _columns]
    way = draw.choice(ways)
    if not len(frame) or not _is_whole(frame):
        return frame
    with warnings.catch_warnings(), np.errstate(all="ignore"), suppress(Exception):
        warnings.simplefilter("ignore")
        return way(frame, draw)
    return frame


def _is_whole(frame: Frame) -> bool:
    return set(frame.columns) >= {"date", *COLUMNS} and frame.columns.is_unique


def _some(frame: Frame, draw: random.Random) -> list[int]:
    count = min(len(frame), draw.choice([1, 1, 1, 3, 30, len(frame)]))
    first = draw.choice([len(frame) - count, draw.randrange(len(frame) - count + 1)])
    return list(range(first, first + count))


def _numbers(frame: Frame, draw: random.Random) -> Frame:
    names = draw.choice([[draw.choice(COLUMNS)], list(COLUMNS), list(COLUMNS[:4]), ["volume"]])
    rows, value = _some(frame, draw), draw.choice(NUMBERS)
    return frame.assign(**{name: _with(frame[name], rows, value) for name in names})


def _with(column: Any, rows: list[int], value: Any) -> Any:
    changed = column.to_numpy(copy=True)
    changed[rows] = value
    return changed


def _prices(frame: Frame, draw: random.Random) -> Frame:
    """Of another order, another size, or standing still."""
    one, other = draw.sample(COLUMNS, 2)
    rows, factor = _some(frame, draw), draw.choice([1e-6, 1e6, 1e150, 1e-150, 0.0, -1.0])
    kind = draw.randrange(4)
    if kind == 0:
        return frame.rename(columns={one: other, other: one})
    if kind == 1:
        return frame.assign(**{one: _with(frame[one], rows, 0.0) + frame[one] * factor})
    if kind == 2:
        still = {name: np.full(len(frame), 100.0) for name in COLUMNS[:4]}
        return frame.assign(**still)
    return frame.assign(**{name: frame[name] * factor for name in COLUMNS[:4]})


def _dates(frame: Frame, draw: random.Random) -> Frame:
    dates = frame["date"].tolist()
    rows, kind = _some(frame, draw), draw.randrange(7)
    if kind == 0:
        stray = pd.Timestamp(draw.choice(DATES), tz="UTC")
        changed = [stray if n == rows[0] else date for n, date in enumerate(dates)]
    elif kind == 1:
        off = pd.Timedelta(draw.choice([1, 7_000, 299_999, 10**9, -(10**12)]), "ms")
        changed = [date + off if n in rows else date for n, date in enumerate(dates)]
    elif kind == 2:
        now = pd.Timestamp.now("UTC").floor("5min")
        changed = [now + (date - dates[-1]) for date in dates]
    elif kind == 3:
        return frame.assign(
            date=frame["date"].dt.tz_convert(draw.choice(["Europe/Berlin", "Asia/Kolkata", None]))
        )
    elif kind == 4:
        return frame.assign(
            date=frame["date"].astype(draw.choice(["str", "object", "int64", "category"]))
        )
    elif kind == 5:
        return frame.assign(
            date=draw.choice([0, 1.5, "x", None, [1] * len(dates), True, np.nan, 1.7e12])
        )
    else:
        return frame.assign(date=frame["date"].dt.as_unit(draw.choice(["s", "ms", "us", "ns"])))
    return frame.assign(
        date=pd.Series(changed, index=frame.index, dtype=draw.choice([None, "object"]))
    )


def _order(frame: Frame, draw: random.Random) -> Frame:
    rows = _some(frame, draw)
    return draw.choice([
        lambda: frame.iloc[::-1], lambda: pd.concat([frame, frame.iloc[rows]]),
        lambda: frame.iloc[:0], lambda: frame.drop(index=frame.index[rows]),
        lambda: frame.iloc[draw.sample(range(len(frame)), len(frame))],
        lambda: frame.reset_index(drop=True), lambda: frame.set_index("date", drop=False),
        lambda: frame.iloc[[0, -1]], lambda: frame.iloc[:: draw.choice([2, 7])],
    ])()  # fmt: skip


def _kinds(frame: Frame, draw: random.Random) -> Frame:
    name, rows = draw.choice(COLUMNS), _some(frame, draw)
    if draw.randrange(2):
        values = frame[name].astype(object).tolist()
        foreign = draw.choice(FOREIGN)
        values = [foreign if n in rows else value for n, value in enumerate(values)]
        return frame.assign(**{name: pd.Series(values, index=frame.index, dtype=object)})
    kinds = [
        "float32", "float16", "int64", "str", "object", "bool", "complex128", "category",
        "Float64", "Int64", "uint8", "datetime64[ns]",
    ]  # fmt: skip
    return frame.assign(**{name: frame[name].astype(draw.choice(kinds))})


def _columns(frame: Frame, draw: random.Random) -> Frame:
    name, other = draw.sample(["date", *COLUMNS], 2)
    return draw.choice([
        lambda: frame.drop(columns=[name]), lambda: frame.rename(columns={name: name.upper()}),
        lambda: frame.rename(columns={name: other}), lambda: frame.assign(newer=1.0),
        lambda: pd.concat([frame, frame[[name]]], axis=1), lambda: frame[[*frame.columns][::-1]],
    ])()  # fmt: skip
