"""A user's strategy with `LSTMRisk`: the same entries and exits, stakes bounded by their risk.

freqtrade backtesting --strategy-list EmaCross EmaCrossLSTM
"""

from ema_cross import EmaCross  # freqtrade looks beside this file

from lstm_model import LSTMRisk


class EmaCrossLSTM(LSTMRisk, EmaCross):
    """The same with the `lstm_*` columns; with `"stop": "forecast"` with a stop by the forecast."""
