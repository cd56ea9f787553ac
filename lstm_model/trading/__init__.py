"""From a forecast to an order: edge, reason, stake and stop, also between candles.

In come forecasts, candles and the tapes; out go the columns of a dataframe and numbers for
freqtrade's callbacks. It never trades on what is not a finite number, and never asks freqtrade.
"""
