"""Follows every trade of some pairs over the exchange's websocket, through ccxt.

In come frames; out go trades, in order and once each, on the tapes of `market`. It never signs a
request and never loses a trade silently: what it missed is fetched again or counted.
"""
