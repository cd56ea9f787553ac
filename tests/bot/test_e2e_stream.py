"""A real bot whose trade stream goes wrong in every way: it decides all the same, never stops."""

import base64
import json
import re
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from e2e import PAIRS, Bot, Trading, bot_in, free_port, run_lstm
from places import ROOT

from lstm_model.market.flow_store import FlowStore
from lstm_model.practice.exchange import LoopbackExchange, open_market
from lstm_model.practice.faults import Faults

pytestmark = pytest.mark.e2e

FAULTS = Faults(
    drop=35.0, duplicates=(0.05, 3.0), reorder=(0.05, 0.5), gaps=0.03, malformed=0.01,
    skew=1.5, rest_429=0.1, rest_5xx=0.1,
)  # fmt: skip
# A candle's forecast that always enters, wherever the market goes: the trades have to decide.
EAGER = """

class LSTMStrategy(Learnt):
    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe = super().populate_indicators(dataframe, metadata)
        known = {"lstm_gate": "", "lstm_mean": 0.003, "lstm_edge": 0.002, "lstm_kelly": 0.5}
        return dataframe.assign(**known)
"""
USER = "tester:a-password-for-tests"


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=3, days=6)) as running:
        yield running


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange) -> Bot:
    """Without skill gate and with entries in every candle, so that there is always a decision.

    What the candle's forecast may not decide alone is asked again until the stream is fresh.
    """
    bot = bot_in(tmp_path_factory.mktemp("user"), exchange)
    name, password = USER.split(":")
    server = {
        "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": free_port(),
        "username": name, "password": password, "jwt_secret_key": "for tests" * 5,
    }  # fmt: skip
    folder = bot.userdir / "strategies"
    folder.mkdir()
    source = (ROOT / "strategies" / "lstm_strategy.py").read_text()
    (folder / "eager.py").write_text(source.replace("class LSTMStrategy(", "class Learnt(") + EAGER)
    bot.overlay.update(fee=0.0, strategy_path=str(folder), api_server=server)
    outcome = bot.run("download-data", "--days", "6", "-t", "1m")
    assert outcome.code == 0, outcome.text
    eager = bot.with_lstm(
        require_skill=False, slippage_fraction=0.0, finetune_candles=0, require_fresh_stream=True
    )
    serve_a_network(eager)
    return eager


def serve_a_network(bot: Bot) -> None:
    """Pinned, because the gate may keep the baseline, which never enters."""

    def run(*words: str) -> None:
        outcome = run_lstm(*words, *bot.options())
        assert outcome.code == 0, outcome.text

    run("train")
    cards = [json.loads(path.read_text()) for path in (bot.userdir / "lstm").rglob("card.json")]
    best = max(cards, key=lambda card: card["calibration"]["shrinkage"][0])
    run("models", "pin", best["version"])


def verdicts(text: str) -> list[str]:
    return re.findall(r"inside the candle, entry: edge .*(confirmed|vetoed)", text)


def following(text: str) -> int:
    return text.count("Trade stream: following")


def reload_config(bot: Bot) -> None:
    """What Telegram's /reload_config does, by freqtrade's REST interface."""
    port = bot.overlay["api_server"]["listen_port"]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/reload_config", data=b"")
    request.add_header("Authorization", f"Basic {base64.b64encode(USER.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
        assert answer.status == 200


def assert_comes_back_after_a_cut(trading: Trading, exchange: LoopbackExchange) -> None:
    """Also while REST refuses to tell what was missed."""
    seen = following(trading.text)
    exchange.refuse(503, 5.0)
    exchange.drop_connections()
    assert trading.wait_for(lambda text: following(text) > seen, 60), trading.text
    assert trading.wait_for(lambda _: exchange.log.refused[503] > 0, 30)


def assert_reloads_without_leaving_a_connection(
    bot: Bot, trading: Trading, exchange: LoopbackExchange
) -> None:
    exchange.faults = Faults()
    before = exchange.open_connections
    for _ in range(3):
        seen = following(trading.text)
        reload_config(bot)
        assert trading.wait_for(lambda text, seen=seen: following(text) > seen, 60), trading.text
    assert trading.wait_for(lambda _: exchange.open_connections <= before, 20)


def test_a_dry_run_with_faults_decides_by_fresh_forecasts_and_never_stops(
    bot: Bot, exchange: LoopbackExchange
) -> None:
    exchange.faults = FAULTS
    trading = Trading(bot)
    try:
        assert trading.wait_for(lambda text: len(verdicts(text)) > 0, 90), trading.text
        assert_comes_back_after_a_cut(trading, exchange)
        assert trading.wait_for(lambda _: has_stored_flow(bot), 180), trading.text
        assert_reloads_without_leaving_a_connection(bot, trading, exchange)
    finally:
        code = trading.stop()
    assert code in (0, 130)
    assert not re.search(r'File ".*lstm_(model|strategy)', trading.text)  # freqtrade has its own
    assert trading.descendants() == []
    assert exchange.log.drops > 0


def has_stored_flow(bot: Bot) -> bool:
    """Whether there is order flow of every pair, and of a whole candle without a hole."""
    store = FlowStore(bot.userdir / "data" / "binance" / "flow")
    known = [store.read(pair, "1m")["coverage"] for pair in PAIRS]
    return all(map(len, known)) and np.concatenate(known).max() == 1.0
