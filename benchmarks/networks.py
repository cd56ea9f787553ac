"""The network and training that the published figures are of, where they are not the defaults."""

from __future__ import annotations

from typing import Any

# The defaults until the smaller network of config.json took their place.
LARGE: dict[str, Any] = {
    "lookback": 60, "members": 1, "units": 50, "layers": 2, "max_epochs": 8,
    "epoch_windows": 150_000, "train_candles": 60_000,
    "validation_fraction": 0.1, "test_fraction": 0.15,
}  # fmt: skip
