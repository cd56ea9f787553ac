"""An LSTM forecaster for freqtrade: causal, calibrated, walk-forward by default."""

__version__ = "0.1.0"
