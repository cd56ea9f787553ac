"""LSTMStrategy: freqtrade's callbacks wired to `lstm_model`. No arithmetic here."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from freqtrade.exceptions import OperationalException
from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy, stoploss_from_absolute
from pandas import DataFrame, notna

from lstm_model import bot
from lstm_model.engine import WalkForwardEngine
from lstm_model.errors import LstmModelError
from lstm_model.features import WARM_UP
from lstm_model.live import LiveEngine
from lstm_model.market import Candles
from lstm_model.outlook import Outlook


@contextmanager
def _as_freqtrade_errors() -> Iterator[None]:
    """Our errors in the form freqtrade prints without a traceback."""
    try:
        yield
    except LstmModelError as error:
        raise OperationalException(str(error)) from None


def _side(trade: Trade) -> int:
    return -1 if trade.is_short else 1


class LSTMStrategy(IStrategy):
    """Enter when the forecast return exceeds the costs, leave when it has turned.

    The stop follows the far end of the forecast interval, never looser than `stoploss`. ROI and
    trailing are freqtrade's own and the user's to configure; all other options are in the `lstm`
    section of config.json.
    """

    INTERFACE_VERSION = 3

    timeframe = "5m"
    can_short = False
    stoploss = -0.10
    minimal_roi = {"0": 10.0}  # noqa: RUF012 - freqtrade's own form
    process_only_new_candles = True
    use_exit_signal = True
    use_custom_stoploss = True

    plot_config = {  # noqa: RUF012
        "main_plot": {
            "lstm_price_low": {
                "color": "#9ecae1",
                "fill_to": "lstm_price_high",
                "fill_label": "forecast interval",
                "fill_color": "rgba(66, 146, 198, 0.15)",
            },
            "lstm_price": {"color": "#2171b5"},
            "lstm_price_high": {"color": "#9ecae1"},
        },
        "subplots": {
            "expected return": {
                "lstm_mean": {"color": "#2171b5"},
                "lstm_edge": {"color": "#cb181d"},
            },
            "stake": {"lstm_stake_fraction": {"color": "#238b45", "type": "bar"}},
        },
    }

    def __init__(self, config: dict[str, Any]) -> None:
        with _as_freqtrade_errors():
            settings = bot.settings_of(config)
        self.startup_candle_count = WARM_UP + settings.lookback
        self.can_short = config.get("trading_mode", "spot") != "spot"
        self._engine: LiveEngine | WalkForwardEngine | None = None
        super().__init__(config)

    def bot_start(self, **kwargs: Any) -> None:
        """Load the champion before the first candle; a second start begins from nothing.

        freqtrade itself turns our errors, which are `ValueError`s, into one line here.
        """
        self._stop_engine()
        self._engine = self._open_engine()

    def ft_bot_cleanup(self) -> None:
        """freqtrade's only notice that this strategy ends (also on /reload_config)."""
        self._stop_engine()
        super().ft_bot_cleanup()

    def bot_loop_start(self, current_time: datetime, **kwargs: Any) -> None:
        """Forecast new candles of all pairs at once; let the schedule look at the clock."""
        if not isinstance(self._engine, LiveEngine):
            return
        held = {trade.pair for trade in Trade.get_open_trades()}
        pairs = held.union(self.dp.current_whitelist())
        self._engine.tick(int(current_time.timestamp() * 1000), pairs)
        self._engine.foresee(list(self._new_candles(self._engine)))
        for news in self._engine.take_news():
            self.dp.send_msg(news, always_send=True)

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        outlook = self._outlook(dataframe, metadata["pair"])
        return dataframe.assign(**outlook.columns(dataframe["close"].to_numpy(dtype="float64")))

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        for side, column in ((1, "enter_long"), (-1, "enter_short")):
            chosen = dataframe["lstm_side"] == side
            dataframe.loc[chosen, column] = 1
            dataframe.loc[chosen, "enter_tag"] = "lstm"
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        for column, turned in (
            ("exit_long", dataframe["lstm_mean"] < 0.0),
            ("exit_short", dataframe["lstm_mean"] > 0.0),
        ):
            dataframe.loc[turned, column] = 1
            dataframe.loc[turned, "exit_tag"] = "lstm turned"
        return dataframe

    def custom_stake_amount(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, current_time: datetime, current_rate: float, proposed_stake: float,
        min_stake: float | None, max_stake: float, leverage: float, entry_tag: str | None,
        side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """freqtrade's stake times the forecast's fraction; 0 (no entry) below the minimum."""
        dataframe, _ = self.dp.get_analyzed_dataframe(pair, self.timeframe)
        if dataframe.empty:
            return 0.0
        stake = proposed_stake * float(dataframe["lstm_stake_fraction"].iloc[-1])
        return stake if stake >= (min_stake or 0.0) else 0.0

    def confirm_trade_entry(  # noqa: PLR0913 - freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str,
        current_time: datetime, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Veto an entry whose edge is gone by the trades since the candle closed."""
        if not isinstance(self._engine, LiveEngine):
            return True
        return self._engine.allows_entry(pair, -1 if side == "short" else 1, rate)

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, **kwargs: Any,
    ) -> str | None:  # fmt: skip
        """Leave when the forecast has turned inside the candle."""
        if not isinstance(self._engine, LiveEngine):
            return None
        turned = self._engine.wants_exit(pair, _side(trade), current_rate)
        return "lstm turned inside the candle" if turned else None

    def custom_stoploss(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float,
        current_profit: float, after_fill: bool, **kwargs: Any,
    ) -> float | None:  # fmt: skip
        """Stop at the far end of the newest interval; freqtrade moves it towards profit only."""
        stop_rate = self._stop_rate(pair, trade)
        if stop_rate is None:
            return None
        return stoploss_from_absolute(
            stop_rate, current_rate, is_short=trade.is_short, leverage=trade.leverage
        )

    def __getstate__(self) -> dict[str, Any]:
        """`hyperopt -j` pickles strategies: workers open an engine of their own."""
        return {**self.__dict__, "_engine": None}

    def _open_engine(self) -> LiveEngine | WalkForwardEngine:
        return bot.open_engine(self.config, self.dp, can_short=self.can_short)

    def _new_candles(self, engine: LiveEngine) -> Iterator[Candles]:
        for pair in self.dp.current_whitelist():
            frame = self.dp.ohlcv(pair, self.timeframe, copy=False)
            if not frame.empty and engine.awaits(
                pair, int(frame["date"].iloc[-1].timestamp() * 1000)
            ):
                yield Candles.from_frame(frame, pair, self.timeframe)

    def _outlook(self, dataframe: DataFrame, pair: str) -> Outlook:
        if isinstance(self._engine, LiveEngine):  # freqtrade makes one line of our errors here
            return self._engine.outlook(Candles.from_frame(dataframe, pair, self.timeframe))
        with _as_freqtrade_errors():
            self._engine = self._engine or self._open_engine()
            candles = Candles.from_frame(dataframe, pair, self.timeframe)
            return self._engine.outlook(candles, self.startup_candle_count)

    def _stop_rate(self, pair: str, trade: Trade) -> float | None:
        """By the forecast inside the candle, else by the last closed candle's."""
        if isinstance(self._engine, LiveEngine):
            inside = self._engine.stop_price(pair, _side(trade))
            if inside is not None:
                return inside
        dataframe, _ = self.dp.get_analyzed_dataframe(pair, self.timeframe)
        column = "lstm_price_high" if trade.is_short else "lstm_price_low"
        known = not dataframe.empty and notna(dataframe[column].iloc[-1])
        return float(dataframe[column].iloc[-1]) if known else None

    def _stop_engine(self) -> None:
        if isinstance(self._engine, LiveEngine):
            self._engine.stop()
        self._engine = None
