"""What the network sees: causal, scale-free numbers of closed candles and of the open one.

In come `Candles`; out go rows of features and the volatility that scales their targets. It knows
neither clock nor disk, and never looks past a candle's close.
"""
