"""Options that cannot lead to a model are refused before a bot trades; times are told."""

from __future__ import annotations

import json
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from freqtrade.configuration import remove_exchange_credentials
from freqtrade.data.dataprovider import DataProvider
from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.resolvers import ExchangeResolver
from series import make_candles

from lstm_model.bot.assembly import connect_public, describe_times, model_maker, open_engine
from lstm_model.bot.configuration import load_config
from lstm_model.bot.live import LiveEngine
from lstm_model.durations import least_train_candles
from lstm_model.errors import ConfigError, DataError
from lstm_model.model.dataset import Panels
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.settings import parse_settings
from lstm_model.trading.outlook import Terms
from lstm_model.training.material import Material

PAIRS = ["BTC/USDT", "ETH/USDT", "SOL/USDT"]


def config_of(folder: Path, timeframe: str = "5m", **options: Any) -> dict[str, Any]:
    exchange = {"name": "binance", "pair_whitelist": PAIRS}
    return {"user_data_dir": folder, "datadir": folder, "timeframe": timeframe,
            "exchange": exchange, "lstm": options}  # fmt: skip


def make(config: dict[str, Any], pairs: int) -> None:
    config["exchange"]["pair_whitelist"] = PAIRS[:pairs]
    model_maker(config, parse_settings(config["lstm"]), PAIRS[:pairs])


@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"horizon": 200}, {"validation_fraction": 0.01}, {"test_fraction": 0.5 - 1e-9}]
)
def test_what_is_said_to_be_enough_is_enough_and_one_less_is_not(
    tmp_path: Path, pairs: int, options: dict[str, Any]
) -> None:
    default = parse_settings(options)
    fractions = default.validation_fraction, default.test_fraction
    least = max(1_000, least_train_candles(default.horizon, *fractions, pairs))
    make(config_of(tmp_path, train_candles=least, **options), pairs)
    settings = parse_settings({**options, "train_candles": least, "lookback": 8})
    series = {p: make_candles(least + 400, pair=p, seed=n) for n, p in enumerate(PAIRS[:pairs])}
    end_ms = int(series[PAIRS[0]].date_ms[-1])
    material = Material.gather(settings, "5m", tuple(series), end_ms, series.get, Panels())
    assert min(map(len, material.split)) >= 10
    if least > 1_000:
        with pytest.raises(ConfigError, match=f"train_candles leaves .* set it to {least:,} or"):
            make(config_of(tmp_path, train_candles=least - 1, **options), pairs)
        fewer = settings.model_copy(update={"train_candles": least * 9 // 10})
        with pytest.raises(DataError, match="too little history"):
            _ = Material.gather(fewer, "5m", tuple(series), end_ms, series.get, Panels()).split


def test_too_small_a_pool_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pool_candles .* found 10,000; set it to \d"):
        make(config_of(tmp_path, pool_candles=10_000, horizon=500), 3)


def test_the_log_says_what_times_came_to_and_leaves_out_what_is_set(tmp_path: Path) -> None:
    config = config_of(tmp_path, "1h", step_candles=48)
    told = describe_times(config, parse_settings(config["lstm"], 3_600_000))
    assert "retrain_candles 672 (28 days)" in told
    assert "step_candles" not in told


class Market:
    """freqtrade's exchange, as far as it says what it trades."""

    name = "Binance"

    def __init__(self, *pairs: str) -> None:
        self.markets: dict[str, Any] = {pair: {} for pair in pairs}

    def get_fee(self, symbol: str, taker_or_maker: str) -> float:
        if symbol not in self.markets:
            raise OperationalException(f"{symbol} is not traded")
        return {"ETH/USDT": 0.0004}.get(symbol, 0.001) if taker_or_maker == "taker" else 0.0


def open_study(folder: Path, market: Market, *, fee: float | None = None, **options: Any) -> Terms:
    config = config_of(folder, **options) | {"fee": fee}
    return open_engine(config, DataProvider(config, market), can_short=False).terms


def test_each_pair_has_the_fee_that_the_exchange_takes_of_it(tmp_path: Path) -> None:
    """A pair that is not among the first, or not traded at all, counts by its own terms, too."""
    terms = open_study(tmp_path, Market(*PAIRS))
    assert [terms.fee_of(pair) for pair in (*PAIRS, "NOPE/USDT")] == [0.001, 0.0004, 0.001, 0.001]


def test_a_fee_of_the_configuration_is_that_of_all_pairs(tmp_path: Path) -> None:
    terms = open_study(tmp_path, Market(*PAIRS), fee=0.0)
    assert {terms.fee_of(pair) for pair in PAIRS} == {0.0}


@pytest.mark.parametrize("named", ["NOPE/USDT", "BTC/USDT", "", None])
def test_a_leader_that_is_named_and_not_traded_is_told_at_the_start(
    tmp_path: Path, named: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    open_study(tmp_path, Market(*PAIRS), leader=named)
    told = [record.message for record in caplog.records if "leader is" in record.message]
    assert len(told) == (named == "NOPE/USDT")
    assert all("leader is NOPE/USDT, which Binance does not trade" in text for text in told)


def test_a_bot_tells_the_user_of_a_leader_that_is_not_traded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveEngine, "start", lambda self, now_ms: None)
    config = config_of(tmp_path, leader="NOPE/USDT") | {"runmode": RunMode.DRY_RUN}
    provider = DataProvider(config, Market(*PAIRS))
    engine = open_engine(config, provider, can_short=False)
    assert isinstance(engine, LiveEngine)
    assert [text for text in engine.take_news() if "leader is NOPE/USDT" in text]
    engine.stop()


@pytest.mark.parametrize("name", ["key", "api_key", "apiKey"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_the_trade_stream_knows_the_key_that_freqtrade_has_blanked_and_no_secret(
    tmp_path: Path, name: str, dry_run: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It opens older trades by their ids; without the secret nothing can be signed."""
    caplog.set_level(logging.DEBUG)
    secret = {"secret": "PLANTED-2", "password": "PLANTED-3", "uid": "PLANTED-4"}
    overlay = loopback_overlay("http://127.0.0.1:9")
    overlay["exchange"] |= {name: "PLANTED-1", "pair_whitelist": PAIRS, **secret}
    file = tmp_path / "overlay.json"
    file.write_text(json.dumps({**overlay, "dry_run": dry_run}))
    config = load_config(["config.json", str(file)], {"user_data_dir": str(tmp_path)})
    if name != "key":
        del config["exchange"]["key"], config["original_config"]["exchange"]["key"]
    config["runmode"] = RunMode.DRY_RUN if dry_run else RunMode.LIVE
    whole = deepcopy(config["exchange"])
    remove_exchange_credentials(config["exchange"], True)  # as a bot does before all else
    exchange = ExchangeResolver.load_exchange(config, exchange_config=whole, validate=False)
    try:
        client = connect_public(config, exchange)
        assert client.apiKey == "PLANTED-1"
        assert [client.secret, client.password, client.uid] == [None] * 3
    finally:
        exchange.close()
    assert "PLANTED" not in caplog.text
