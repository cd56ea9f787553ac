"""What a position is worth beside the stake currency, which a future's margin is in already."""

from types import SimpleNamespace
from typing import Any

import pytest

from lstm_model.replay.standing import _worth


def trade(pair: str, *, is_short: bool = False, funding: float | None = None) -> Any:
    return SimpleNamespace(
        pair=pair, is_short=is_short, amount=2.0, open_rate=100.0, funding_fees=funding
    )


@pytest.mark.parametrize(
    ("held", "worth"),
    [
        (trade("BTC/USDT"), 220.0),
        (trade("BTC/USDT:USDT"), 20.0),
        (trade("BTC/USDT:USDT", is_short=True), -20.0),
        (trade("BTC/USDT:USDT", is_short=True, funding=0.5), -19.5),
    ],
)
def test_a_future_adds_what_it_has_won_and_a_coin_its_whole_value(held: Any, worth: float) -> None:
    assert _worth(held, 110.0) == worth
