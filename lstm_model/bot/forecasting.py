"""LSTMForecasts: the forecast's columns for any freqtrade strategy, and the engine behind them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from datetime import UTC, datetime
from inspect import getattr_static
from typing import Any, cast

import numpy as np
from freqtrade.enums import CandleType, RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame, concat

from lstm_model.bot import assembly, configuration, insides
from lstm_model.bot.configuration import DEFAULT_FEE_FRACTION
from lstm_model.bot.engine import WalkForwardEngine
from lstm_model.bot.live import LiveEngine
from lstm_model.bot.named import files_of
from lstm_model.bot.theirs import assign, check_order, merged_plot
from lstm_model.durations import DAY_MS
from lstm_model.errors import LstmModelError
from lstm_model.features.closed_candle import WARM_UP
from lstm_model.learning.news import News, as_markdown
from lstm_model.machine import collect_garbage, give_memory_back, keep_large_apart
from lstm_model.market.candles import Candles, Floats, Ints, timeframe_ms
from lstm_model.settings import Settings
from lstm_model.trading.analyzed import Coming, coming, opened_ms, outline
from lstm_model.trading.outlook import Outlook
from lstm_model.written import outdated

logger = logging.getLogger(__name__)

# Options that hyperopt may tune, by a parameter named with `lstm_` before; nothing is trained anew.
PARAMETERS = ("min_edge", "kelly_fraction", "stop_multiple")

_LINE, _FILL = "#6baed6", "rgba(66, 146, 198, 0.25)"
_COMING_LINE, _COMING_FILL = "#fd8d3c", "rgba(253, 141, 60, 0.30)"
_PLOT: dict[str, Any] = {
    "main_plot": {
        "lstm_due_low": {"color": _LINE, "fill_to": "lstm_due_high", "fill_color": _FILL},
        "lstm_due_high": {"color": _LINE},
    },
    "subplots": {
        "width": {"lstm_width": {"color": "#2171b5"}, "lstm_usual_width": {"color": "#9e9ac8"}},
        "edge": {"lstm_mean": {"color": "#2171b5"}, "lstm_edge": {"color": "#cb181d"}},
        "gate": {
            "lstm_gate_open": {"color": "#a1d99b", "type": "bar"},
            "lstm_trust": {"color": "#238b45"},
        },
    },
}  # fmt: skip


class LSTMForecasts(IStrategy):  # type: ignore[misc]
    """The `lstm_*` columns beside your own indicators; it enters, sizes and exits nothing.

    `class MyStrategy(LSTMForecasts, IStrategy)`; where you override one of its callbacks, call
    `super()`. It is an `IStrategy` itself because `freqtrade hyperopt` fails for a mixin that is
    none: it would pickle the modules of all base classes, `builtins` with that of `object`.
    """

    startup_candle_count: int

    def __init__(self, config: dict[str, Any]) -> None:
        check_order(type(self), LSTMForecasts)
        self._lstm_engine: LiveEngine | WalkForwardEngine | None = None
        self._lstm_news, self._lstm_freeze_ms = News(), 0
        self._lstm_fees: dict[str, float] = {}  # of one side, by pair
        super().__init__(config=config)
        with _as_freqtrade_errors():
            self.lstm_settings = configuration.settings_of(config, getattr(self, "timeframe", None))
        self._lstm_own_parameters()
        needed = max(self.startup_candle_count, self._lstm_warm_up)
        assign(self, "startup_candle_count", needed)
        self._lstm_their_plot = getattr(self, "plot_config", None)
        assign(self, "plot_config", merged_plot(self._lstm_their_plot, _PLOT))

    def bot_start(self, **kwargs: Any) -> None:
        """Load the champion before the first candle; a second start begins from nothing.

        freqtrade itself turns our errors, which are `ValueError`s, into one line here.
        """
        self._lstm_stop()
        with ExitStack() as undone:  # a Ctrl-C in theirs would be heard of by nobody else
            undone.callback(self._lstm_stop)
            self._lstm_engine = self._lstm_open()
            super().bot_start(**kwargs)
            undone.pop_all()

    def ft_bot_cleanup(self) -> None:
        """freqtrade's only notice that this strategy ends (also on /reload_config)."""
        try:
            self._lstm_stop()
        finally:
            super().ft_bot_cleanup()

    def gather_informative_pairs(self) -> list[Any]:
        """Theirs, the pair that leads, on the whitelist or not, and the funding of futures."""
        found = list(super().gather_informative_pairs())
        wanted = self._lstm_informative(live) if (live := self._lstm_live) else ()
        return [*found, *(each for each in wanted if each not in found)]

    def bot_loop_start(self, current_time: datetime, **kwargs: Any) -> None:
        """Theirs; then forecast new candles of all pairs, and let the schedule see the clock."""
        try:
            super().bot_loop_start(current_time=current_time, **kwargs)
        finally:
            if live := self._lstm_live:
                self._lstm_look(live, current_time)

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Theirs, and the `lstm_*` columns: of the candles before theirs had them."""
        pair = metadata["pair"]
        candles = self._lstm_read(dataframe, pair)
        dataframe = super().populate_indicators(dataframe, metadata)
        if candles is None:
            return self._lstm_left_out(dataframe, pair)
        dataframe = with_columns(dataframe, candles, self._lstm_outlook(candles))
        if self.config.get("runmode") == RunMode.PLOT:
            shapes = _shapes(dataframe, self._lstm_coming(dataframe))
            drawn = merged_plot(self._lstm_their_plot, {**_PLOT, "main_plot": shapes})
            assign(self, "plot_config", drawn)
        return dataframe

    def plot_annotations(
        self, pair: str, start_date: datetime, end_date: datetime, dataframe: DataFrame,
        **kwargs: Any,
    ) -> list[Any]:  # fmt: skip
        """Theirs; and for FreqUI boxes right of the newest candle: what is forecast of the next."""
        theirs = super().plot_annotations(
            pair=pair, start_date=start_date, end_date=end_date, dataframe=dataframe, **kwargs
        )
        until_ms, step_ms = opened_ms(dataframe), timeframe_ms(self.timeframe)
        return [*theirs, *_coming_boxes(self._lstm_coming(dataframe), until_ms, step_ms)]

    def __getstate__(self) -> dict[str, Any]:
        """`hyperopt -j` pickles strategies: its workers read the columns and need no engine."""
        return {**self.__dict__, "_lstm_engine": None}

    @property
    def _lstm_live(self) -> LiveEngine | None:
        """The engine of a dry run or live; None in backtests."""
        return self._lstm_engine if isinstance(self._lstm_engine, LiveEngine) else None

    def lstm_analyzed(self, pair: str) -> DataFrame:
        """The pair's candles with all columns, in a backtest until now."""
        return cast(DataFrame, self.dp.get_analyzed_dataframe(pair, self.timeframe)[0])

    def _lstm_informative(self, live: LiveEngine) -> Iterator[tuple[str, str, CandleType]]:
        if live.leader is not None and self.dp.market(live.leader) is not None:
            kind = self.config.get("candle_type_def", CandleType.SPOT)
            yield live.leader, self.timeframe, kind
        if self.config.get("trading_mode") == "futures":
            for pair in self._lstm_pairs():
                yield pair, *insides.funding_candle(self.dp)

    def _lstm_pairs(self) -> set[str]:
        """All that a bot trades or holds."""
        held = {trade.pair for trade in Trade.get_open_trades()}
        return held.union(self.dp.current_whitelist())

    def _lstm_coming(self, frame: DataFrame) -> Coming:
        return coming(frame, self.lstm_settings.horizon, timeframe_ms(self.timeframe))

    def _lstm_look(self, live: LiveEngine, current_time: datetime) -> None:
        now_ms = int(current_time.timestamp() * 1000)
        self._lstm_freeze(now_ms)
        live.tick(now_ms, self._lstm_pairs())
        self._lstm_follow(live)
        live.foresee(list(self._lstm_new_candles(live)))
        for news in self._lstm_news.due(live.take_news(), now_ms):
            self.dp.send_msg(as_markdown(news), always_send=True)

    def _lstm_freeze(self, now_ms: int) -> None:
        """Spare what is loaded by now from full collections: each would stop all threads for 0.1 s.

        Not before the loop begins: until then freqtrade holds the bot before a `/reload_config`,
        which would be frozen with all that belongs to it, and never be let go. It may hold it for
        longer: after an outage the log that it keeps for `/logs` does, with the frames of what was
        raised. So once a day what is garbage by then goes.
        """
        if now_ms >= self._lstm_freeze_ms:
            self._lstm_freeze_ms = now_ms + DAY_MS
            keep_large_apart()
            gc.unfreeze()
            collect_garbage()
            give_memory_back()  # a start takes more than what is left of it
            gc.freeze()

    def _lstm_follow(self, live: LiveEngine) -> None:
        """Show the leader's candles before those of the others are forecast."""
        if live.leader is not None:
            frame = self.dp.ohlcv(live.leader, self.timeframe, copy=False)
            if not frame.empty and opened_ms(frame) > live.led_ms:
                leading = live.read(frame, live.leader)
                if leading is not None:
                    live.lead(leading)

    def _lstm_own_parameters(self) -> None:
        """Give this object parameters of its own, with what config.json says as their value.

        freqtrade lists those of the class, which all strategies of a process would share.
        """
        for name in [name for name in dir(self) if name.startswith("lstm_")]:
            option, parameter = name.removeprefix("lstm_"), getattr_static(self, name)
            if not insides.is_parameter(parameter):
                continue
            if option in Settings.model_fields and option not in PARAMETERS:
                raise OperationalException(
                    f'{name} cannot be a parameter of a strategy: set "{option}" in the "lstm" '
                    f"section of {files_of(self.config)}. Parameters are {', '.join(PARAMETERS)}."
                )
            own = copy(parameter)
            if option in self.lstm_settings.model_fields_set & {*PARAMETERS}:
                own.value = getattr(self.lstm_settings, option)
            setattr(self, name, own)

    def _lstm_parameter(self, option: str) -> float:
        """The value in force of an option that a strategy may tune; a plain number is fixed."""
        found = getattr(self, f"lstm_{option}", getattr(self.lstm_settings, option))
        return float(found.value if insides.is_parameter(found) else found)

    @property
    def _lstm_warm_up(self) -> int:
        """Candles before the first that can be forecast, and that was forecast by then."""
        return max(WARM_UP + self.lstm_settings.lookback, self.lstm_settings.horizon)

    def _lstm_outlook(self, candles: Candles) -> Outlook:
        if live := self._lstm_live:  # freqtrade makes one line of our errors here
            return live.outlook(candles)
        with _as_freqtrade_errors():
            self._lstm_engine = self._lstm_engine or self._lstm_open()
            studied = cast(WalkForwardEngine, self._lstm_engine)
            made = studied.outlook(candles, max(self.startup_candle_count, self._lstm_warm_up))
            self._lstm_fee(candles.pair)  # hyperopt has no exchange afterwards
            return made

    def _lstm_fee(self, pair: str) -> float:
        """Exchange fee of one side."""
        if self._lstm_engine:
            self._lstm_fees[pair] = self._lstm_engine.terms.fee_of(pair)
        return self._lstm_fees.get(pair, DEFAULT_FEE_FRACTION)

    def _lstm_new_candles(self, live: LiveEngine) -> Iterator[Candles]:
        for pair in self.dp.current_whitelist():
            frame = self.dp.ohlcv(pair, self.timeframe, copy=False)
            if not frame.empty and live.awaits(pair, opened_ms(frame)):
                candles = live.read(frame, pair)
                if candles is not None:
                    yield candles

    def _lstm_read(self, frame: DataFrame, pair: str) -> Candles | None:
        """The candles of a frame; a study refuses those that a bot leaves out."""
        if live := self._lstm_live:
            candles = live.read(frame, pair)
            return None if candles is None else candles.copy()
        with _as_freqtrade_errors():
            return Candles.from_frame(frame, pair, self.timeframe).copy()

    def _lstm_left_out(self, frame: DataFrame, pair: str) -> DataFrame:
        """The columns of a pair whose candles were refused: no trade."""
        nothing = cast(LiveEngine, self._lstm_live).nothing(pair, _dates_ms(frame))
        unknown = np.full(len(frame), np.nan)
        return frame.assign(**nothing.columns(unknown, timeframe_ms(self.timeframe)))

    def _lstm_open(self) -> LiveEngine | WalkForwardEngine:
        for text in outdated(type(self)):
            logger.warning("%s", text)
        return assembly.open_engine(self.config, self.dp, can_short=self.can_short)

    def _lstm_stop(self) -> None:
        with ExitStack() as ended:
            ended.callback(setattr, self, "_lstm_engine", None)
            if live := self._lstm_live:
                ended.callback(gc.unfreeze)  # what was frozen with this bot is garbage soon
                live.stop()


def with_columns(frame: DataFrame, candles: Candles, outlook: Outlook) -> DataFrame:
    """The frame with the outlook's columns; by date, as it may have lost or gained candles."""
    columns = outlook.columns(candles.close, candles.step_ms)
    dates = _dates_ms(frame)
    if not np.array_equal(dates, candles.date_ms):
        found = DataFrame(columns, index=candles.date_ms).reindex(dates)
        columns = {name: found[name].to_numpy() for name in columns}
    if not columns.keys().isdisjoint(frame.columns):  # renew them where they are
        return frame.assign(**columns)
    # All at once: one by one takes six times as long.
    return concat([frame, DataFrame(columns, index=frame.index)], axis=1)


def _shapes(frame: DataFrame, band: Coming) -> dict[str, Any]:
    """What `plot-dataframe` draws in place of our lines, with points of their own.

    It draws no annotations, and what it fills between lines it fills wrongly where they have gaps.
    Each stands under a column's name, as nothing is drawn without a column.
    """
    due = (frame[f"lstm_due_{end}"].to_numpy() for end in ("low", "high"))
    return {
        "lstm_due_low": _shape("forecast before", _LINE, _FILL, _dates_ms(frame), *due),
        "lstm_price_low": _shape("forecast of candles to come", _COMING_LINE, _COMING_FILL, *band),
    }


def _shape(
    name: str, line: str, fill: str, date_ms: Ints, low: Floats, high: Floats
) -> dict[str, Any]:  # fmt: skip
    rows, along_high = outline(low, high)
    prices = np.where(rows < 0, np.nan, np.where(along_high, high[rows], low[rows]))
    drawn = {"line": {"color": line, "width": 1}, "fill": "toself", "fillcolor": fill}
    dates = date_ms[rows].astype("datetime64[ms]")
    return {"plotly": {**drawn, "name": name, "x": dates, "y": prices, "hoveron": "points"}}


def _coming_boxes(band: Coming, until_ms: int, step_ms: int) -> list[dict[str, Any]]:
    """freqtrade's annotations: of each candle after `until_ms` a box as wide as the candle."""
    candles = zip(band.date_ms.tolist(), band.low.tolist(), band.high.tolist(), strict=True)
    return [
        {
            "type": "area", "color": _COMING_FILL, "y_start": low, "y_end": high,
            "start": _date(date_ms - step_ms / 2), "end": _date(date_ms + step_ms / 2),
        }
        for date_ms, low, high in candles if date_ms > until_ms and low <= high
    ]  # fmt: skip


def _date(time_ms: float) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _dates_ms(frame: DataFrame) -> Ints:
    return cast(Ints, frame["date"].to_numpy(dtype="datetime64[ms]").astype("int64"))


@contextmanager
def _as_freqtrade_errors() -> Iterator[None]:
    """Our errors in the form freqtrade prints without a traceback."""
    try:
        yield
    except LstmModelError as error:
        raise OperationalException(str(error)) from None
