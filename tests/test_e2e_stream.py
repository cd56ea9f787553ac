"""A real bot whose trade stream goes wrong in every way: it decides all the same, never stops."""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from e2e import PAIRS, Bot, Trading
from test_e2e import bot_in

from lstm_model.flow_store import FlowStore
from lstm_model.replay.exchange import LoopbackExchange, open_market
from lstm_model.replay.faults import Faults

pytestmark = pytest.mark.e2e

FAULTS = Faults(
    drop=35.0, duplicates=(0.05, 3.0), reorder=(0.05, 0.5), gaps=0.03, malformed=0.01,
    skew=1.5, rest_429=0.1, rest_5xx=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def exchange() -> Iterator[LoopbackExchange]:
    with LoopbackExchange(open_market("synthetic", seed=3, days=4)) as running:
        yield running


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, exchange: LoopbackExchange) -> Bot:
    """Without costs and skill gate, so that there is something to veto every minute."""
    bot = bot_in(tmp_path_factory.mktemp("user"), exchange)
    bot.overlay.update(fee=0.0, minimal_roi={"0": 0.0005})
    outcome = bot.run("download-data", "--days", "4", "-t", "1m")
    assert outcome.code == 0, outcome.text
    return bot.with_lstm(require_skill=False, slippage_fraction=0.0)


def verdicts(text: str) -> list[str]:
    return re.findall(r"inside the candle, entry: edge .*(confirmed|vetoed)", text)


def test_a_dry_run_with_faults_decides_by_fresh_forecasts_and_never_stops(
    bot: Bot, exchange: LoopbackExchange
) -> None:
    exchange.faults = FAULTS
    trading = Trading(bot)
    try:
        assert trading.wait_for(lambda text: len(verdicts(text)) > 0, 300), trading.text
        assert trading.process.poll() is None
    finally:
        code = trading.stop()
    assert code in (0, 130)
    assert not re.search(r'File ".*lstm_(model|strategy)', trading.text)  # freqtrade has its own
    assert trading.descendants() == []
    assert exchange.log.drops > 0
    assert exchange.log.refused[429] + exchange.log.refused[503] > 0
    store = FlowStore(bot.userdir / "data" / "binance" / "flow")
    stored = [store.read(pair, "1m") for pair in PAIRS]
    assert all(len(flow) for flow in stored)
    assert np.concatenate(stored)["coverage"].max() == 1.0
