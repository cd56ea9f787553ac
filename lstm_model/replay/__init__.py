"""The real bot over the past, and its backtest to match: the commands replay and verify.

In come a window of time and a market; out go what the bot did, a report, and whether a backtest
promised it. It never touches the user's journal, keys or messages.
"""
