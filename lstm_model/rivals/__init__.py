"""What `LSTMRisk` is worth on a strategy, beside plain rivals: the command compare.

In comes a user's strategy and a time range; out go backtests of it, with and without us, and what
of their differences is proven. It changes no file of theirs and journals nothing.
"""
