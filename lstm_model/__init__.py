"""An LSTM forecaster for freqtrade: causal, calibrated, walk-forward by default.

A strategy of yours needs `from lstm_model import LSTMRisk`, or `LSTMForecasts`, and nothing deeper.
They are found when they are asked for: importing the package alone does not import freqtrade.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_model.bot.forecasting import LSTMForecasts
    from lstm_model.risk.strategy import LSTMRisk
    from lstm_model.settings import Settings

__version__ = "0.1.0"
__all__ = ["LSTMForecasts", "LSTMRisk", "Settings", "__version__"]

_PLACES = {"LSTMForecasts": "bot.forecasting", "LSTMRisk": "risk.strategy", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
