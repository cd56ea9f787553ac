"""Accounts on the practice exchange: real orders, signed, filled, lost on the way, for play money.

In come signed requests of unmodified ccxt and freqtrade; out go Binance's answers, and the truth
about every order, fill, balance and position. The books hold decimals, never floats. It never
reaches the internet, and no private endpoint exists without it.
"""
