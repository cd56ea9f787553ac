"""freqtrade: the strategies' side, and all that we ask of the bot.

In come freqtrade's configuration, frames and callbacks; out go columns, stakes, stops and messages.
It never makes the bot's loop wait for a training, and a fault of ours costs a trade, not the bot.
"""
