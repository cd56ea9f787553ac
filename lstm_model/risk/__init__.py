"""LSTMRisk: what bounds the stakes, leverage and stops of any freqtrade strategy.

In come freqtrade's callbacks and the forecast's columns; out go stakes, stops, exits and the reason
for every entry that is denied. A user's strategy is asked first, and ours only bounds its answers.
"""
