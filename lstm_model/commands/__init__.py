"""The command line `freqtrade-lstm`: the only room that prints.

In come options; out go lines, tables and pages. It decides nothing about models or trades.
"""
