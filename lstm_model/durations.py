"""Options in candles whose default is a time: how many candles that is, and how few are enough.

A step of the learner takes a day, a retraining is due every four weeks, and so on. What that is in
candles depends on the timeframe; where the other options need more candles, there are more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

MIN_TRAINING_WINDOWS = 1_000  # chosen: below, a network only memorizes
MIN_RECENT_WINDOWS = 100  # chosen: below, a fine-tuning learns noise
MIN_BLOCK_WINDOWS = 10  # chosen: of validation and test block each

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
OLDEST_MS = 1_230_940_800_000  # 2009-01-03, Bitcoin's first block: no candle is older
_TOO_MANY = 1e9  # candles; no option allows so many


class Lasting(NamedTuple):
    """A default that is a time, and the fewest candles that the option may be set to."""

    time_ms: int
    least: int


LASTING = {
    "train_candles": Lasting(730 * DAY_MS, 1_000),
    "retrain_candles": Lasting(28 * DAY_MS, 50),
    "step_candles": Lasting(DAY_MS, 10),
    "finetune_candles": Lasting(7 * DAY_MS, 0),
    "finetune_recent_candles": Lasting(14 * DAY_MS, 100),
    "drift_cooldown_candles": Lasting(2 * DAY_MS, 0),
    "training_lag_candles": Lasting(HOUR_MS, 0),
    "stale_model_candles": Lasting(84 * HOUR_MS, 50),
}


def in_candles(options: Mapping[str, Any], candle_ms: int) -> dict[str, int]:
    """The defaults that are times, in candles, each large enough for the options around it.

    Parameters
    ----------
    options : the other options, and those of these that are not to be left at their default
    candle_ms : length of a candle

    Examples
    --------
    >>> options = {"horizon": 12, "validation_fraction": 0.05, "test_fraction": 0.07}
    >>> hourly = in_candles(options, HOUR_MS)
    >>> hourly["step_candles"], hourly["retrain_candles"], hourly["training_lag_candles"]
    (24, 672, 2)
    >>> in_candles({**options, "horizon": 30}, HOUR_MS)["step_candles"]
    48
    """
    chosen = {
        name: max(least, -(-time_ms // candle_ms)) for name, (time_ms, least) in LASTING.items()
    }

    def number(name: str) -> float:
        """What is no number is told elsewhere."""
        value = options.get(name, chosen.get(name))
        usable = isinstance(value, int | float) and abs(value) < _TOO_MANY
        return float(value) if usable and math.isfinite(value) else 0.0

    horizon, held_out = int(number("horizon")), number("validation_fraction")
    # A step begins a candle after its boundary, and takes a while.
    chosen["training_lag_candles"] = max(chosen["training_lag_candles"], 2)
    day, least = -(-DAY_MS // candle_ms), int(number("training_lag_candles") + horizon) + 1
    chosen["step_candles"] = day * -(-max(least, LASTING["step_candles"].least) // day)
    step = int(number("step_candles"))
    floors = {
        "retrain_candles": step,
        "finetune_candles": step,
        "stale_model_candles": 3 * step,
        "finetune_recent_candles": least_recent_candles(horizon, held_out),
        "train_candles": least_train_candles(horizon, held_out, number("test_fraction")),
    }
    return {name: max(count, floors.get(name, 0)) for name, count in chosen.items()}


def least_train_candles(
    horizon: int, validation_fraction: float, test_fraction: float, pairs: int = 1
) -> int:
    """Candles per pair that give enough windows in every block.

    Examples
    --------
    >>> least_train_candles(12, 0.05, 0.07), least_train_candles(12, 0.05, 0.07, pairs=10)
    (1154, 282)
    """
    training, block = -(-MIN_TRAINING_WINDOWS // pairs), -(-MIN_BLOCK_WINDOWS // pairs)
    return max(
        _holding(training, horizon, 1.0 - validation_fraction - test_fraction),
        _holding(block, horizon, validation_fraction),
        _holding(block, horizon, test_fraction),
    )


def least_recent_candles(horizon: int, validation_fraction: float, pairs: int = 1) -> int:
    """Newest candles per pair that give a fine-tuning enough windows, and some to stop by.

    Examples
    --------
    >>> least_recent_candles(12, 0.05), least_recent_candles(12, 0.05, pairs=10)
    (462, 282)
    """
    recent, block = -(-MIN_RECENT_WINDOWS // pairs), -(-MIN_BLOCK_WINDOWS // pairs)
    return max(
        _holding(recent, horizon, 1.0 - validation_fraction),
        _holding(block, horizon, validation_fraction),
    )


def _holding(windows: int, horizon: int, fraction: float) -> int:
    """Candles of which a fraction holds so many windows whose outcome is known."""
    # At the end of a block, outcomes reach into the next.
    no_share = fraction < 1.0 / _TOO_MANY  # none that an option allows
    return 0 if no_share else math.ceil((windows + horizon + 1) / fraction) + 2


def midnight_ms(day: str) -> int:
    """When a day (YYYYMMDD) begins, UTC.

    Examples
    --------
    >>> midnight_ms("19700102") == DAY_MS
    True
    """
    try:
        return int(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise ValueError("must be a day like 20240131") from None


def in_words(time_ms: int) -> str:
    """A time in whole days or hours.

    Examples
    --------
    >>> in_words(DAY_MS), in_words(84 * HOUR_MS)
    ('1 day', '84 hours')
    """
    unit, size_ms = ("hour", HOUR_MS) if time_ms % DAY_MS else ("day", DAY_MS)
    count = time_ms // size_ms
    return f"{count} {unit}{'' if count == 1 else 's'}"
