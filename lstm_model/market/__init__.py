"""What the exchange says: candles, trades and order flow, checked at the door and kept.

In come freqtrade's frames, the trades of a websocket and files on disk; out go `Candles`, tapes and
order flow that the rooms below can trust. It never opens a connection and never repairs in silence:
what is missing is counted as missing.
"""
