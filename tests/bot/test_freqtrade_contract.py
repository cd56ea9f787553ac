"""What we count on in freqtrade beyond what it documents for strategies.

One of these fails for a new release before anything else does, and says what would break. The
first table is `lstm_model.bot.insides`, in its order; the second is what the replay and the
comparison drive themselves.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccxt
import pytest
from freqtrade.data.dataprovider import DataProvider
from freqtrade.data.history import get_datahandler, load_data
from freqtrade.enums import CandleType, RunMode, State, TradingMode
from freqtrade.exceptions import DDosProtection, FreqtradeException
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.loggers import LOGFORMAT
from freqtrade.persistence import LocalTrade, disable_database_use, enable_database_use
from freqtrade.plugins.pairlistmanager import PairListManager
from freqtrade.strategy import IStrategy, RealParameter, stoploss_from_absolute
from freqtrade.worker import Worker
from pandas import DataFrame, date_range
from promises import Promise
from source import MODULES, TEXTS, imports

from lstm_model.bot import insides
from lstm_model.commands import demo
from lstm_model.releases import TESTED
from lstm_model.replay import outcome

NEWEST = TESTED["freqtrade"].newest
EXCHANGE = "freqtrade.exchange.exchange:Exchange"
HANDLER = "freqtrade.data.history.datahandlers.idatahandler:IDataHandler"
INSIDES = [
    Promise("freqtrade.configuration:setup_utils_configuration", "every command",
            ("args", "method")),
    Promise("freqtrade.configuration.load_config:load_from_files", "`freqtrade-lstm init`"),
    Promise("freqtrade.configuration.load_config:load_config_file",
            "the line of a file that is no JSON", ("path",)),
    Promise("freqtrade.configuration.environment_vars:environment_vars_to_dict",
            "configuration by environment variables"),
    Promise("freqtrade.misc:deep_merge_dicts", "the stream's own ccxt options",
            ("source", "destination")),
    Promise("freqtrade.configuration.config_validation:validate_config_schema",
            "the line that says what is wrong in a configuration"),
    Promise("freqtrade.configuration.config_validation:validate_config_consistency",
            "the refusal of a replay that cannot start"),
    Promise("freqtrade.configuration:TimeRange.parse_timerange", "--timerange", ("text",)),
    Promise("freqtrade.strategy.strategy_wrapper:strategy_safe_wrapper",
            "theirs before ours in LSTMRisk", ("f", "default_retval")),
    Promise("freqtrade.resolvers:StrategyResolver.load_strategy",
            "commands that need a strategy's timeframe", ("config",)),
    Promise("freqtrade.resolvers:StrategyResolver._search_object",
            "`freqtrade-lstm compare`", ("directory", "object_name")),
    Promise("freqtrade.strategy.parameters:BaseParameter", "parameters that hyperopt tunes"),
    Promise("freqtrade.strategy:IStrategy.custom_stoploss", "stops after a fill"),
    Promise("freqtrade.strategy:IStrategy._ft_stop_uses_after_fill", "stops after a fill"),
    Promise("freqtrade.strategy:IStrategy.ft_bot_cleanup", "the end of our threads"),
    Promise("freqtrade.strategy:IStrategy.gather_informative_pairs", "the leader's candles"),
    Promise("freqtrade.strategy:IStrategy.get_strategy_name", "what closed trades taught"),
    Promise("freqtrade.strategy:IStrategy.plot_annotations", "what is forecast, in FreqUI's chart",
            ("pair", "start_date", "end_date", "dataframe")),
    Promise("freqtrade.data.dataprovider:DataProvider.ohlcv", "the candles of a running bot",
            ("pair", "timeframe", "copy")),
    Promise("freqtrade.data.dataprovider:DataProvider.ohlcv", "the funding of a running bot",
            ("pair", "timeframe", "copy", "candle_type")),
    Promise("freqtrade.data.dataprovider:DataProvider.historic_ohlcv", "funding in backtests",
            ("pair", "timeframe", "candle_type")),
    Promise(f"{EXCHANGE}.get_maintenance_ratio_and_amt", "stops inside the liquidation price",
            ("pair", "notional_value")),
    Promise(f"{EXCHANGE}.get_option", "the timeframe of funding rates", ("param",)),
    Promise(f"{EXCHANGE}._init_ccxt", "the trade stream",
            ("exchange_config", "sync", "ccxt_kwargs")),
    Promise(f"{EXCHANGE}._ccxt_config", "the trade stream"),
    Promise(f"{EXCHANGE}.get_fee", "the fee in every stake", ("symbol", "taker_or_maker")),
    Promise(f"{EXCHANGE}.markets", "the leader, and download-flow"),
    Promise(f"{EXCHANGE}.precision_mode_price", "the smallest step of a stop"),
    Promise(f"{EXCHANGE}.close", "download-flow"),
    Promise("freqtrade.resolvers:ExchangeResolver.load_exchange", "download-flow",
            ("config", "validate")),
    Promise("freqtrade.exchange.common:retrier", "download-flow", ("retries",)),
    Promise("freqtrade.plugins.pairlist.pairlist_helpers:expand_pairlist", "download-flow",
            ("wildcardpl", "available_pairs")),
    Promise("freqtrade.resolvers:PairListResolver.search_all_objects", "`doctor` on backtests",
            ("config", "enum_failed")),
    Promise("freqtrade.plugins.pairlist.IPairList:IPairList.supports_backtesting",
            "`doctor` on backtests"),
    Promise("freqtrade.data.history:load_pair_history", "every training",
            ("pair", "timeframe", "datadir", "data_format", "candle_type", "fill_up_missing")),
    Promise("freqtrade.data.converter:ohlcv_fill_up_missing_data", "every training",
            ("dataframe", "timeframe", "pair")),
    Promise("freqtrade.data.history:get_datahandler", "download-flow from trades",
            ("datadir", "data_format")),
    Promise(f"{HANDLER}.ohlcv_get_available_data", "the name of a damaged file",
            ("datadir", "trading_mode")),
    Promise(f"{HANDLER}._pair_data_filename", "the name of a file that may not be read",
            ("datadir", "pair", "timeframe", "candle_type")),
    Promise(f"{HANDLER}.trades_get_available_data", "download-flow from trades",
            ("datadir", "trading_mode")),
    Promise(f"{HANDLER}.trades_load", "download-flow from trades", ("pair", "trading_mode")),
    Promise("freqtrade.persistence:Trade.use_db", "what closed trades taught"),
    Promise("freqtrade.data.btanalysis:load_backtest_data", "`freqtrade-lstm demo`",
            ("file_or_directory", "strategy")),
    Promise("freqtrade.persistence:LocalTrade.bt_trades", "what closed trades taught"),
    Promise("freqtrade:__version__", "the line on an untested freqtrade"),
]  # fmt: skip
BACKTESTING = "freqtrade.optimize.backtesting:Backtesting"
DRIVEN = [
    Promise(f"{BACKTESTING}.__init__", "verify and compare", ("config", "progress_callback")),
    Promise(f"{BACKTESTING}.load_bt_data", "verify and compare"),
    Promise(f"{BACKTESTING}.backtest_one_strategy", "verify and compare",
            ("strat", "data", "timerange")),
    Promise("freqtrade.strategy:IStrategy.advise_all_indicators", "verify", ("data",)),
    Promise("freqtrade.strategy:IStrategy.ft_advise_signals", "verify",
            ("dataframe", "metadata")),
    Promise("freqtrade.mixins:LoggingMixin.show_output", "verify after another backtest"),
    Promise("freqtrade.persistence:PairLocks.locks", "verify after another backtest"),
    Promise("freqtrade.persistence:PairLocks.timeframe", "verify after another backtest"),
    Promise("freqtrade.persistence:CustomDataWrapper.custom_data",
            "verify after another backtest"),
    *(Promise(f"freqtrade.persistence:LocalTrade.{name}", "verify after another backtest")
      for name in ("bt_trades_open", "bt_trades_open_pp", "bt_open_open_trade_count",
                   "bt_total_profit")),
    Promise("freqtrade.persistence.pairlock:PairLock.get_all_locks", "verify"),
    Promise("freqtrade.persistence.custom_data:_CustomData", "the end of a replay"),
    Promise("freqtrade.loggers:bufferHandler.buffer", "the end of a replay"),
    Promise("freqtrade.worker:Worker._init", "replay", ("reconfig",)),
    Promise("freqtrade.worker:Worker.run", "replay"),
    Promise("freqtrade.worker:Worker.exit", "replay"),
    Promise("freqtrade.rpc:RPCHandler.send_msg", "the messages of a replay", ("msg",)),
    Promise("freqtrade.rpc.rpc:RPC._rpc_reload_config", "the incident `reload` of a replay"),
    Promise("freqtrade.util:get_dry_run_wallet", "compare", ("config",)),
    Promise("freqtrade.loggers:LOGFORMAT", "what `freqtrade-lstm demo` and a replay show of logs"),
]  # fmt: skip


@pytest.mark.parametrize("promise", [*INSIDES, *DRIVEN], ids=lambda promise: promise.place)
def test_freqtrade_has_what_we_count_on(promise: Promise) -> None:
    assert not (broken := promise.broken()), broken


def test_a_broken_promise_is_named() -> None:
    gone = Promise("freqtrade.worker:Worker.stroll", "walking")
    assert gone.broken() == "freqtrade's freqtrade.worker no longer has Worker.stroll: walking" + (
        " would break"
    )
    moved = Promise("freqtrade.workers:Worker", "work")
    assert moved.broken() == "freqtrade's freqtrade.workers is gone: work would break"
    renamed = Promise("freqtrade.worker:Worker._init", "reload", ("anew",))
    assert renamed.broken() == "freqtrade's Worker._init no longer takes anew: reload would break"


# ---------------------------------------------------------------- one place for each

DOCUMENTED = ("strategy", "persistence", "enums", "exceptions")
DRIVES = {  # the replay and the comparison run freqtrade's own bot and backtest
    "lstm_model.replay.fast_forward": {"loggers", "persistence.custom_data", "rpc", "worker"},
    "lstm_model.replay.backtest": {"mixins", "optimize.backtesting"},
    "lstm_model.replay.logs": {"rpc"},
    "lstm_model.replay.proof": {"persistence.pairlock"},
    "lstm_model.rivals.variant": {"optimize.backtesting", "util"},
}
PRIVATE = ("._exchange", "._api", "._init_ccxt", "._ccxt_config", "._search_object", ".use_db",
           ".bt_trades")  # fmt: skip


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("bot.insides")])
def test_nobody_else_reaches_into_freqtrade(module: str) -> None:
    names = [n.removeprefix("freqtrade.") for n in imports(module) if n.startswith("freqtrade.")]
    places = {name.rpartition(".")[0] for name in names}
    assert places - {*DOCUMENTED} <= DRIVES.get(module, set())
    if module.split(".")[1:2] == ["bot"]:
        assert not [name for name in PRIVATE if name in TEXTS[module].replace("self._exchange", "")]


# ---------------------------------------------------------------- what the names mean


def test_a_strategys_provider_knows_its_exchange() -> None:
    exchange = object()
    assert insides.exchange_of(DataProvider({}, exchange)) is exchange


def test_an_exchange_holds_ccxts_in_which_trades_are_followed() -> None:
    exchange = insides.open_exchange({**BARE})
    try:
        client = insides.client_of(exchange)
        assert isinstance(client, ccxt.Exchange), "the trade stream would break"
        assert client.id == "binance"
    finally:
        exchange.close()


def test_a_providers_candles_are_the_cached_ones_where_no_copy_is_asked_for() -> None:
    """Half a bot's time would go into copies otherwise."""
    frame = DataFrame({"close": [1.0]})

    class Cache:
        def klines(self, *_: Any, copy: bool = True) -> DataFrame:
            return frame.copy() if copy else frame

    provider = DataProvider(
        {"runmode": RunMode.DRY_RUN, "timeframe": "5m", "candle_type_def": CandleType.SPOT}, Cache()
    )
    assert provider.ohlcv("BTC/USDT", "5m", copy=False) is frame
    assert provider.ohlcv("BTC/USDT", "5m") is not frame


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"dry_run": true "x": 5}')
    insides.read_file(str(folder / "config.json"))


def _no_strategy(folder: Path) -> None:
    insides.find_strategy({"strategy": "Nobody", "user_data_dir": folder})


def _no_candles(folder: Path) -> None:
    load_data(folder, "5m", ["BTC/USDT"], fail_without_data=True)


def _no_backtest(_: Path) -> None:
    config = {**BARE, "pairlists": VOLUME, "runmode": RunMode.BACKTEST}
    exchange = insides.open_exchange(config)
    try:
        PairListManager(exchange, config)
    finally:
        exchange.close()


BARE = {
    "exchange": {"name": "binance", "pair_whitelist": []}, "stake_currency": "USDT",
    "dry_run": True, "trading_mode": "spot", "candle_type_def": CandleType.SPOT,
    "runmode": RunMode.UTIL_EXCHANGE, "internals": {},
}  # fmt: skip
VOLUME = [{"method": "VolumePairList", "number_assets": 5, "sort_key": "quoteVolume"}]


@pytest.mark.parametrize(
    ("named", "refused"),
    [(["StaticPairList"], []), (["VolumePairList"], ["VolumePairList"]), ([], []),
     (["StaticPairList", "AgeFilter", "PriceFilter"], ["AgeFilter"]), (["Unknown"], [])],
)  # fmt: skip
def test_it_is_known_what_freqtrade_refuses_in_backtests(
    named: list[str], refused: list[str]
) -> None:
    assert insides.refused_in_backtests({"pairlists": [{"method": n} for n in named]}) == refused


@pytest.mark.parametrize(
    ("words", "would_break", "provoke"),
    [
        (insides.AT_OFFSET.pattern, "the line of a file that is no JSON", _no_json),
        (insides.SEGMENT, "secrets kept out of what is told of a broken file", _no_json),
        (insides.NO_STRATEGY, "what to do where a strategy is not found", _no_strategy),
        (insides.NO_BACKTEST, "what to do where `compare` has a list of pairs as of a bot",
         _no_backtest),
        (insides.NO_CANDLES, "what to do where `compare` finds no candles", _no_candles),
    ],
)  # fmt: skip
def test_freqtrades_errors_say_what_we_read_in_them(
    words: str, would_break: str, provoke: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(FreqtradeException) as told:
        provoke(tmp_path)
    broken = f"freqtrade says {str(told.value)!r}, no longer {words!r}: {would_break} would break"
    assert re.search(words, str(told.value)), broken


def test_the_schema_says_of_which_key_it_speaks() -> None:
    with pytest.raises(FreqtradeException) as told:
        insides.check_schema({"exchange": {"name": 5}, "runmode": RunMode.UTIL_NO_EXCHANGE})
    assert getattr(told.value.__context__, "json_path", "").startswith("$"), (
        "the name of the option in a configuration's errors would be gone"
    )


@pytest.mark.parametrize("reader", [demo._LOG_LINE, outcome._WARNING])
def test_a_line_of_freqtrades_log_is_read_as_it_writes_it(reader: re.Pattern[str]) -> None:
    record = logging.makeLogRecord(
        {"name": "freqtrade.worker", "levelname": "WARNING", "msg": "a text", "created": 1e9}
    )
    found = reader.match(logging.Formatter(LOGFORMAT).format(record))
    assert found is not None, "what `freqtrade-lstm demo` and a replay show of logs would break"
    assert found["text"] == "a text"


def test_a_bot_says_that_it_runs_as_the_demo_reads_it() -> None:
    assert "to: {state.name}" in inspect.getsource(Worker)
    assert f"to: {State.RUNNING.name}" == demo._RUNS


def test_a_failure_of_theirs_is_answered_by_what_we_say() -> None:
    def fail(**_: Any) -> float:
        raise KeyError("theirs")

    assert insides.guarded(fail, 7.0)(pair="BTC/USDT") == 7.0
    with pytest.raises(FreqtradeException, match="theirs"):
        insides.guarded(fail)(pair="BTC/USDT")


def test_every_backtest_has_a_list_of_trades_of_its_own() -> None:
    """What was learnt from closed trades is forgotten when the list is another."""
    before = insides.backtest_trades()
    LocalTrade.reset_trades()
    assert insides.backtest_trades() is not before


def test_it_is_known_whether_trades_are_in_a_database() -> None:
    disable_database_use("5m")
    assert not insides.has_database()
    enable_database_use()
    assert insides.has_database()


def test_a_bot_that_ends_or_does_not_start_tells_its_strategy() -> None:
    assert "strategy.ft_bot_cleanup()" in inspect.getsource(FreqtradeBot.cleanup)
    start = inspect.getsource(FreqtradeBot.__init__)
    assert "strategy.ft_bot_start()" in start.partition("except Exception")[0]
    assert "self.cleanup()" in start.partition("except Exception")[2]
    assert "bot_start" in inspect.getsource(IStrategy.ft_bot_start)


def test_a_bot_asks_its_strategy_of_every_position_whether_to_leave_it() -> None:
    assert "self.strategy.should_exit(\n            trade," in inspect.getsource(
        FreqtradeBot._check_and_execute_exit
    )
    assert "self.handle_trade(trade)" in inspect.getsource(FreqtradeBot.exit_positions)


def test_a_stop_after_a_fill_is_asked_for_by_our_word() -> None:
    assert "_ft_stop_uses_after_fill" in inspect.getsource(IStrategy.ft_stoploss_adjust)
    assert insides.hears_no_fills(IStrategy.custom_stoploss)


def test_a_stop_that_the_price_has_passed_is_no_answer() -> None:
    assert stoploss_from_absolute(101.0, 100.0, is_short=False, leverage=1.0) == 0.0


def test_a_parameter_of_hyperopt_is_known_by_its_class() -> None:
    parameter = RealParameter(0.0, 1.0, default=0.5, space="buy")
    assert insides.is_parameter(parameter)
    assert parameter.value == 0.5
    assert not insides.is_parameter(0.5)


def test_a_section_of_ours_passes_the_schema() -> None:
    exchange = {"name": "binance", "pair_whitelist": ["BTC/USDT"]}
    insides.check_schema({
        "exchange": exchange, "stake_currency": "USDT", "stake_amount": 10.0, "max_open_trades": 1,
        "dry_run": True, "runmode": RunMode.UTIL_NO_EXCHANGE, "lstm": {"horizon": 3},
        "pairlists": [{"method": "StaticPairList"}], "timeframe": "5m",
        "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
    })  # fmt: skip


def test_what_lies_over_wins() -> None:
    assert insides.merged({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}) == {"a": {"b": 1, "c": 3}}


def test_a_time_range_is_in_seconds_and_open_where_nothing_stands() -> None:
    parsed = insides.time_range("20240101-")
    assert (parsed.startts, parsed.stopts) == (1_704_067_200, 0)


def test_patterns_mean_pairs() -> None:
    assert insides.expanded([".*/USDT"], ["BTC/USDT", "BTC/EUR"]) == ["BTC/USDT"]


def test_who_asks_patiently_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    asked = []

    @insides.patient(2)
    def ask() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise DDosProtection("slowly")
        return "well"

    assert ask() == "well"
    assert len(asked) == 3


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # freqtrade's, with pandas 3
def test_candles_on_disk_are_found_and_gaps_are_filled_as_freqtrade_does(tmp_path: Path) -> None:
    spot, where = CandleType.SPOT, (tmp_path, "feather", "BTC/USDT", "5m")
    assert insides.stored_candles(*where, spot).empty
    assert not insides.has_candles(*where, spot)
    dates = date_range("2024-01-01", periods=4, freq="5min", tz="UTC").delete(2)
    frame = DataFrame({"date": dates, **dict.fromkeys(("open", "high", "low", "close"), 2.0)})
    frame["volume"] = 1.0
    get_datahandler(tmp_path, "feather").ohlcv_store("BTC/USDT", "5m", frame, spot)
    assert insides.has_candles(*where, spot)
    found = insides.stored_candles(*where, spot)
    assert len(found) == 3
    whole = insides.filled(found, "BTC/USDT", "5m")
    assert whole["volume"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert insides.pairs_with_trades(tmp_path, "feather", TradingMode.SPOT) == []


@pytest.mark.parametrize(
    ("yours", "is_newer"),
    [("2026.6", False), (NEWEST, False), (f"{NEWEST}.1", False),
     ("2026.12", True), ("2027.1", True), ("2027.1-dev-0a1b2c", True)],
)  # fmt: skip
def test_a_freqtrade_newer_than_tested_is_told(
    yours: str, is_newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: tested.newest for name, tested in TESTED.items()} | {"freqtrade": yours}
    monkeypatch.setattr(insides, "version", found.__getitem__)
    monkeypatch.setattr(insides.platform, "python_version", lambda: TESTED["Python"].newest)
    told = f"tested with freqtrade {' to '.join(TESTED['freqtrade'])}, yours is {yours}: run "
    assert insides.untested() == (f"{told}`freqtrade-lstm doctor`" if is_newer else "")


def test_other_libraries_newer_than_tested_are_told_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {name: tested.newest for name, tested in TESTED.items()} | {"numpy": "99.1"}
    monkeypatch.setattr(insides, "version", found.__getitem__)
    monkeypatch.setattr(insides.platform, "python_version", lambda: "3.99.1")
    told = insides.untested()
    assert "; numpy " in told
    assert "yours is 99.1" in told
    assert told.startswith("tested with Python 3.11 to ")
    assert "freqtrade 20" not in told
