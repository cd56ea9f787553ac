"""A user's strategy with `LSTMRisk`: the same entries and exits, our stake and stop.

freqtrade backtesting --strategy-list EmaCross EmaCrossLSTM
"""

from ema_cross import EmaCross  # freqtrade looks beside this file

from lstm_model import LSTMRisk


class EmaCrossLSTM(LSTMRisk, EmaCross):
    """The same with stake and stop by the calibrated forecast; no forecast, no trade."""
